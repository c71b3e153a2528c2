"""The stopping rule as the trainer keeps it: told of every step, saved in each checkpoint, restored from it."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from equipoise.schedules.stopping import Stopping, StoppingSettings, Verdict


class StoppingCallback(TrainerCallback, ExportableState):
    """A `Stopping` and which examples it has seen.

    The trainer makes it anew from `state()` when it resumes, so its arguments are plain JSON.

    Args:
        settings: the fields of `StoppingSettings`.
        examples: how many training examples there are.
        tokens: how many supervised tokens they have together.
    """

    def __init__(self, settings: dict[str, Any], examples: int, tokens: int):
        self.arguments = {"settings": dict(settings), "examples": examples, "tokens": tokens}
        self.rule = Stopping(StoppingSettings(**settings), total_tokens=tokens)
        self.seen = np.zeros(examples, dtype=bool)
        self.cuts: list[list[int]] = []  # epoch and position from which a restart shuffled again

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Only the trainer knows how many steps its warm-up takes."""
        self.rule.warmup_steps = args.get_warmup_steps(state.max_steps)

    def observe(self, step: int, row: dict[str, Any], broken: bool, examples: Mapping[int, int]) -> Verdict | None:
        """Take a step into account.

        Args:
            row: the step's `loss` and `tokens`.
            broken: the loss or the gradient was no finite number.
            examples: the examples in the step's batches, on all processes, with their supervised tokens.
        """
        fresh = sum(tokens for i, tokens in examples.items() if not self.seen[i])
        self.seen[list(examples)] = True
        loss = math.nan if broken or row["loss"] is None else row["loss"]
        return self.rule.add(step, loss, row["tokens"], fresh)

    @property
    def kept(self) -> dict[str, Any]:
        """What a checkpoint holds of it, as plain JSON."""
        seen = base64.b64encode(np.packbits(self.seen).tobytes()).decode()
        return {"rule": self.rule.state_dict(), "seen": seen, "cuts": [list(cut) for cut in self.cuts]}

    @kept.setter
    def kept(self, value: dict[str, Any]) -> None:
        self.rule.load_state_dict(value["rule"])
        bits = np.frombuffer(base64.b64decode(value["seen"]), dtype=np.uint8)
        self.seen = np.unpackbits(bits, count=len(self.seen)).astype(bool)
        self.cuts = [list(cut) for cut in value["cuts"]]

    def state(self) -> dict[str, Any]:
        """What transformers writes into `trainer_state.json`."""
        return {"args": self.arguments, "attributes": {"kept": self.kept}}


def summary(verdict: Verdict) -> dict[str, Any]:
    """The verdict as a row of `stopping.jsonl`."""
    return {
        "step": verdict.step,
        "action": verdict.action,
        "reason": verdict.reason,
        "sentence": verdict.sentence,
        **verdict.numbers,
    }
