"""Starting the learning rate again, and shuffling again what an epoch has left; both come back after a resume."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from torch.utils.data import Sampler


class Reshuffled(Sampler[int]):
    """Each epoch in an order of its own; from every cut on, what is left of the epoch is shuffled again.

    An epoch still takes each example once. The order hangs on the seed, the epoch and the cuts alone.

    Args:
        cuts: gives pairs of epoch and position.
    """

    def __init__(self, size: int, seed: int, cuts: Callable[[], list[list[int]]]):
        self.size, self.seed, self.cuts = size, seed, cuts
        self.epoch = self.drawn = 0

    def __len__(self) -> int:
        return self.size

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before each epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.size)
        for at in range(self.size):
            if [self.epoch, at] in self.cuts():
                order[at:] = np.random.default_rng([self.seed, self.epoch, at]).permutation(order[at:])
            self.drawn = at + 1  # the loader is a batch ahead of the step
            yield int(order[at])


def restart_schedule(scheduler: Any, arguments: Any, first: int, total: int, *, now: bool) -> None:
    """From step `first` on, give the learning rate the schedule of a run of `total - first` steps without warm-up.

    Args:
        scheduler: the trainer's `LambdaLR`.
        now: set the rate of the next step too; after a resume the optimizer already has it.
    """
    import torch
    from transformers import get_scheduler

    idle = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    steps = max(total - first, 1)
    kind, options = arguments.lr_scheduler_type, arguments.lr_scheduler_kwargs
    shape: Any = get_scheduler(
        kind, idle, num_warmup_steps=0, num_training_steps=steps, scheduler_specific_kwargs=options
    )
    rate = shape.lr_lambdas[0]
    scheduler.lr_lambdas = [lambda step: rate(step - first) for _ in scheduler.lr_lambdas]
    if now:
        rates = [base * rate(scheduler.last_epoch - first) for base in scheduler.base_lrs]
        scheduler._last_lr = rates
        for group, value in zip(scheduler.optimizer.param_groups, rates):
            group["lr"] = value
