"""What shocks have been like lately: the memory that a threshold which moves with training is read from."""

from __future__ import annotations

import torch
from torch import Tensor

LEAST = 64  # tokens that must have been seen before a quantile of them means something


class RecentShock:
    """The shocks of the last `window` supervised tokens that were trained on, in order."""

    def __init__(self, window: int):
        self.window = window
        self.shocks: list[float] = []

    def add(self, shock: Tensor) -> None:
        """Take in the tokens of an optimizer step, [N]; what is not finite is passed over."""
        kept = shock.detach().flatten()
        kept = kept[torch.isfinite(kept)].tolist()
        self.shocks = [*self.shocks, *kept][-self.window :]

    def quantile(self, q: float, otherwise: float) -> float:
        """The q-quantile, linear between neighbours; `otherwise` while there are fewer than `LEAST` tokens."""
        if len(self.shocks) < LEAST:
            return otherwise
        return float(torch.tensor(self.shocks, dtype=torch.float64).quantile(q))
