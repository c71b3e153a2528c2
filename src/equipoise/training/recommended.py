"""Learning rate and number of epochs for teaching facts with LoRA, where a recipe says `auto`.

The numbers come from a sweep on real models; LOG.md has its table.
"""

import math
from typing import NamedTuple

# Largest number of parameters, learning rate at LoRA r=16, alpha=32, batches of 8 rows.
RATES = ((200e6, 5e-4), (1e9, 3e-4), (math.inf, 2e-4))
STEPS = 200  # optimizer steps within which a handful of facts is learned
FEWEST_EPOCHS, MOST_EPOCHS = 3, 40
MANY_STEPS = 1500


class Schedule(NamedTuple):
    """Settings that fit a model and a number of rows, and what a user should know about them."""

    learning_rate: float
    epochs: int
    note: str
    warning: str | None


def schedule(parameters: int, rows: int, steps_per_epoch: int) -> Schedule:
    """Return learning rate and epochs for LoRA training on so many rows.

    Args:
        parameters: of the model, frozen ones included.
        rows: that are trained on in an epoch.
        steps_per_epoch: optimizer steps in an epoch.
    """
    rate = next(rate for most, rate in RATES if parameters <= most)
    epochs = min(max(math.ceil(STEPS / steps_per_epoch), FEWEST_EPOCHS), MOST_EPOCHS)
    steps = epochs * steps_per_epoch
    note = f"learning rate {rate:g} and {epochs} epochs ({steps} steps) for {rows} rows"
    warning = None
    if steps > MANY_STEPS:
        warning = (
            f"{rows} rows make {steps} steps even with {epochs} epochs; to adapt to a domain rather than to correct "
            "facts, set training.preset=domain"
        )
    elif rows < 8:
        warning = f"{rows} rows are few: the model may learn them by heart and answer other questions with them"
    return Schedule(rate, epochs, note, warning)
