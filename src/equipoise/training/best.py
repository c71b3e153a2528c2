"""Which validation was the best so far, and so which model is kept."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

MEAN_LOSS = "mean_example_loss"  # what a validation by `example_losses` is called in `validation.jsonl`


@dataclass(frozen=True)
class Best:
    """A number of `validate` to choose a model by; the direction is said, never guessed from the name."""

    metric: str
    higher_is_better: bool

    def improves(self, value: Any, earlier: Iterable[Mapping[str, Any]]) -> bool:
        """Whether `value` is finite and better than that of every earlier validation; an equal one is not."""
        sign = 1 if self.higher_is_better else -1
        return finite(value) and all(
            sign * value > sign * row[self.metric] for row in earlier if finite(row.get(self.metric))
        )


def finite(value: Any) -> bool:
    """Whether this is a number that can be compared; what is missing or not finite is written as null."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
