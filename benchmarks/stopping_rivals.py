"""Stopping rules to compare with, each told of every validation (and the training losses since the last one).

Prechelt, "Early stopping - but when?" (1998), for GL, PQ and UP; a strip is what lies between two validations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Patience:
    """Stop after `patience` validations in a row that are not better than the best by more than `min_delta`.

    `min_delta=0` is patience alone; Lightning's EarlyStopping is patience 3 with whatever `min_delta` is given.
    """

    patience: int = 3
    min_delta: float = 0.0
    best: float = math.inf
    waited: int = 0

    def validate(self, loss: float, strip: Sequence[float]) -> bool:
        """Whether to stop after this validation."""
        if loss < self.best - self.min_delta:
            self.best, self.waited = loss, 0
        else:
            self.waited += 1
        return self.waited >= self.patience


@dataclass
class GeneralisationLoss:
    """GL: stop when the validation loss is more than `alpha` per cent above its minimum."""

    alpha: float = 5.0
    best: float = math.inf

    def lost(self, loss: float) -> float:
        """The generalisation loss in per cent."""
        self.best = min(self.best, loss)
        return 100 * (loss / self.best - 1)

    def validate(self, loss: float, strip: Sequence[float]) -> bool:
        """Whether to stop after this validation."""
        return self.lost(loss) > self.alpha


@dataclass
class ProgressQuotient:
    """PQ: stop when the generalisation loss exceeds `alpha` times the progress of the last `k` training epochs.

    Progress, in per mille, is how much the mean training loss of the strip is above its minimum.
    """

    alpha: float = 0.5
    k: int = 5
    loss: GeneralisationLoss = field(default_factory=GeneralisationLoss)
    recent: list[float] = field(default_factory=list)

    def validate(self, loss: float, strip: Sequence[float]) -> bool:
        """Whether to stop after this validation; each strip counts as one of Prechelt's epochs."""
        self.recent = [*self.recent, sum(strip) / len(strip)][-self.k :]
        lost = self.loss.lost(loss)
        if len(self.recent) < self.k:
            return False
        progress = 1000 * (sum(self.recent) / (self.k * min(self.recent)) - 1)
        return lost > self.alpha * progress


@dataclass
class Ups:
    """UP: stop when the validation loss rose in `strips` validations in a row."""

    strips: int = 3
    before: float = math.inf
    rises: int = 0

    def validate(self, loss: float, strip: Sequence[float]) -> bool:
        """Whether to stop after this validation."""
        self.rises = self.rises + 1 if loss > self.before else 0
        self.before = loss
        return self.rises >= self.strips
