"""What one optimizer step did, summed over its micro-batches on the device and read once."""

from __future__ import annotations

import math
import time
from typing import Any

import torch

from equipoise.training.settings import ObjectiveSettings

_FIELDS = ("loss", "tokens", "entropy", "shocked", "weight", "correct", "without")


class Meter:
    """Sums of one step. `add` takes a micro-batch, `read` returns the step's means as plain numbers.

    Shocked is what the objective's own test flags; where it has none, a shock above the published 5.
    """

    def __init__(self, vocab_size: int, objective: ObjectiveSettings):
        params = objective.params
        tau, eps = float(params.get("tau", 5.0)), float(params.get("eps", 1e-6))
        self.by_weight = objective.name == "r-eaft-tail"  # whose flagged tokens alone weigh more than 1
        self.log_v, self.tau, self.eps = math.log(vocab_size), tau, eps
        self.reset()

    def reset(self) -> None:
        """Forget the step so far and start its clock."""
        self.sums: torch.Tensor | None = None
        self.started = time.perf_counter()

    @torch.no_grad()
    def add(self, loss: torch.Tensor, out: dict[str, torch.Tensor]) -> None:
        """Add one micro-batch: its share of the step's loss and its per-token statistics [N]."""
        nll, entropy, weights = out["nll"].float(), out["entropy"].float(), out["weights"].float()
        shocked = weights > 1 if self.by_weight else nll / (entropy / self.log_v + self.eps) > self.tau
        tokens = torch.tensor(float(nll.numel()), device=nll.device)
        without = (tokens == 0).float()
        parts = [loss.detach().float().to(nll.device), tokens, entropy.sum(), shocked.sum().float(), weights.sum()]
        sums = torch.stack([*parts, out["correct"].sum().float(), without])
        self.sums = sums if self.sums is None else self.sums + sums

    def read(self, accelerator: Any = None) -> dict[str, float]:
        """Means over the step's supervised tokens, over all processes of `accelerator`, if there is one."""
        assert self.sums is not None
        sums = self.sums
        if accelerator is not None and accelerator.num_processes > 1:
            sums = accelerator.reduce(sums, "sum")
            sums[0] /= accelerator.num_processes  # every rank's loss was scaled up for DDP's mean
        row = dict(zip(_FIELDS, sums.tolist()))
        n = max(row["tokens"], 1.0)
        return {
            "loss": row["loss"],
            "entropy": row["entropy"] / n,
            "shocked_share": row["shocked"] / n,
            "mean_weight": row["weight"] / n,
            "token_accuracy": row["correct"] / n,
            "tokens": int(row["tokens"]),
            "batches_without_labels": int(row["without"]),
            "seconds": time.perf_counter() - self.started,
        }
