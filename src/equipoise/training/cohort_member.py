"""One run of a cohort: which rows each of its steps takes, its optimizer, schedule, stopping rule and journals."""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from equipoise import journal
from equipoise.console import say
from equipoise.data.formatting import Formatted
from equipoise.errors import UserError
from equipoise.objectives.weighting import weighting
from equipoise.training.anomalies import Anomalies
from equipoise.training.durable import json_number
from equipoise.training.head import Objective
from equipoise.training.meter import Meter
from equipoise.training.settings import ObjectiveSettings, TrainSettings
from equipoise.training.stoppable import append_once
from equipoise.training.stopping import StoppingCallback, summary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from equipoise.records import Example
    from equipoise.schedules.stopping import Verdict


@dataclass(frozen=True)
class CohortRun:
    """A run as `training.sft.train` takes it; `name` is its folder within the cohort's, such as `sft/seed-42`."""

    name: str
    examples: Sequence[Example] | Formatted
    objective: ObjectiveSettings
    settings: TrainSettings
    seed: int


@dataclass
class RunResult:
    """What a run left in its folder: `final/`, an ordinary PEFT adapter, `metrics.jsonl` and the rest.

    Attributes:
        anomalies: steps that were skipped.
        seconds: its share of the cohort's time.
        stopped: why it ended before its last step, if it did.
        error: why there is no `final/`; None for a run that went well.
    """

    name: str
    steps: int
    final: Path
    metrics_path: Path
    anomalies: list[int]
    seconds: float
    dropped: list[tuple[str, str]]
    stopped: Verdict | None = None
    error: UserError | None = None


class Member:
    """A run in training. Its parameters and gradient are row i of the cohort's, handed over by `own`.

    Args:
        folder: its own.
        open_files: what closes its journals.
        vocab: rows of the head.
    """

    def __init__(self, run: CohortRun, data: Formatted, folder: Path, open_files: ExitStack, vocab: int):
        self.run, self.data, self.folder, self.settings = run, data, folder, run.settings
        self.objective = Objective(
            weighting(run.objective.name, **run.objective.params), run.objective.detach_weights, run.objective.normalize
        )
        self.meter = Meter(vocab, run.objective)
        self.supervised = [row.supervised for row in data.rows]
        self.metrics = open_files.enter_context(journal.Journal(folder / "metrics.jsonl", key=_step))
        self.anomalies = Anomalies(open_files.enter_context(journal.Journal(folder / "anomalies.jsonl", key=_step)))
        self.stops: Any = None
        self.stopper: StoppingCallback | None = None
        if self.settings.stopping is not None:
            self.stops = open_files.enter_context(journal.Journal(folder / "stopping.jsonl", key=_step))
            chosen = self.settings.stopping.model_dump()
            self.stopper = StoppingCallback(chosen, len(data.rows), sum(self.supervised))
            self.stopper.rule.warmup_steps = self.warmup
        self._told: list[tuple[Tensor, Tensor]] = []
        self.seconds = 0.0
        self.error: UserError | None = None
        self._epoch: tuple[int, list[list[int]]] = (-1, [])

    # ---- which rows

    @cached_property
    def batches_per_epoch(self) -> int:
        return math.ceil(len(self.data.rows) / self.settings.batch_size)

    @cached_property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.batches_per_epoch / self.settings.gradient_accumulation)

    @cached_property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.steps_per_epoch * self.settings.epochs

    @cached_property
    def warmup(self) -> int:
        return math.ceil(self.steps * self.settings.warmup_ratio)

    def batches(self, step: int) -> list[list[int]]:
        """The rows of each micro-batch of an optimizer step, counted from 1: those that the trainer's sampler draws."""
        epoch, at = divmod(step - 1, self.steps_per_epoch)
        if self._epoch[0] != epoch:
            drawn = torch.Generator().manual_seed(self.run.seed + epoch)
            order = torch.randperm(len(self.data.rows), generator=drawn).tolist()
            size = self.settings.batch_size
            self._epoch = epoch, [order[i : i + size] for i in range(0, len(order), size)]
        first = at * self.settings.gradient_accumulation
        return self._epoch[1][first : first + self.settings.gradient_accumulation]

    def items(self, step: int) -> int:
        """Supervised tokens of a step."""
        return sum(self.supervised[i] for batch in self.batches(step) for i in batch)

    def dropout_seed(self, step: int, micro: int) -> int:
        """Where the dropout stream of a micro-batch starts: by the run's seed and the step alone."""
        return int(np.random.SeedSequence([self.run.seed, step, micro]).generate_state(1)[0])

    def saves_at(self, step: int) -> bool:
        """Whether `checkpoint_every` asks for a checkpoint after this step."""
        every = self.settings.checkpoint_every
        every = self.steps_per_epoch if every == "epoch" else every
        return every is not None and (step % every == 0 or step == self.steps)

    # ---- the optimizer

    def own(self, row: Tensor, grad: Tensor) -> None:
        """Take `row [P]` as its parameters from now on, and `grad [P]` as their gradient."""
        parameter = torch.nn.Parameter(row)
        if hasattr(self, "optimizer"):
            state = self.optimizer.state.pop(self.parameter, {})
            self.optimizer.param_groups[0]["params"] = [parameter]
            self.optimizer.state[parameter] = state
        else:
            s = self.settings
            self.optimizer = torch.optim.AdamW([parameter], lr=s.learning_rate, weight_decay=s.weight_decay)
            self.scheduler = _schedule(s, self.optimizer, self.warmup, self.steps)
        self.parameter, self.grad = parameter, grad

    def begin(self) -> None:
        """Forget what the step under way has summed up."""
        self.meter.reset()
        self._told = []

    def add(self, loss: Tensor, out: dict[str, Tensor]) -> None:
        """Take in a micro-batch: its share of the step's loss, and what `token_loss` says of its tokens."""
        self.meter.add(loss, out)
        if self.objective.weighting.recent is not None:
            self._told.append((out["nll"], out["entropy"]))

    def update(self, step: int) -> tuple[dict[str, Any], Verdict | None]:
        """Clip, step the optimizer, and write the step down; a loss or gradient that is no number skips the step.

        Raises:
            UserError: too many steps were skipped.
        """
        self.parameter.grad = self.grad
        norm = torch.nn.utils.clip_grad_norm_([self.parameter], self.settings.max_grad_norm or math.inf)
        means = self.meter.read()
        fine = math.isfinite(float(norm)) and math.isfinite(means["loss"])
        rate = self.optimizer.param_groups[0]["lr"]
        if not fine:
            self.parameter.grad = None  # the optimizer then changes nothing
        self.optimizer.step()
        self.scheduler.step()
        for nll, entropy in self._told:
            self.objective.weighting.observe(nll, entropy / self.meter.log_v)
        done = (step - 1) % self.steps_per_epoch * self.settings.gradient_accumulation + len(self.batches(step))
        row: dict[str, Any] = {
            "step": step,
            "epoch": round((step - 1) // self.steps_per_epoch + done / self.batches_per_epoch, 6),
            "learning_rate": rate,
            **{name: json_number(value) for name, value in means.items()},
            "grad_norm": json_number(float(norm)),
            "skipped": not fine,
        }
        rows = sorted({i for batch in self.batches(step) for i in batch})
        if not fine:
            names = [self.data.ids[i] for i in rows]
            self.anomalies.add(step, loss=means["loss"], grad_norm=float(norm), rows=names)
        verdict = None
        if self.stopper is not None:
            verdict = self.stopper.observe(step, row, not fine, {i: self.supervised[i] for i in rows})
        if verdict is not None:
            append_once(self.stops, summary(verdict))
            say(f"{self.run.name}: stop after step {step}, {verdict.reason}: {verdict.sentence}")
        return row, verdict

    def log(self, row: dict[str, Any]) -> None:
        """Write a step's row, which `sync` brings onto the disk; a resumed run repeats those after its checkpoint."""
        last = self.metrics.rows[-1]["step"] if self.metrics.rows else 0
        if row["step"] > last and row["step"] % self.settings.logging_steps == 0:
            self.metrics.extend([row], wait=False)

    # ---- checkpoints

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds of it as tensors; the optimizer has no moments before its first step."""
        state = self.optimizer.state.get(self.parameter, {})
        moments = {name: state[name] for name in ("exp_avg", "exp_avg_sq", "step") if name in state}
        return {"parameters": self.parameter.detach(), **moments}

    def plain(self) -> dict[str, Any]:
        """What a checkpoint holds of it as plain JSON."""
        recent = self.objective.weighting.recent
        return {
            "seconds": self.seconds,
            "stopping": None if self.stopper is None else self.stopper.kept,
            "shocks": None if recent is None else recent.shocks,
        }

    def restore(self, step: int, tensors: dict[str, Tensor], plain: dict[str, Any]) -> None:
        """Go on after `step`, from what `tensors` and `plain` gave then."""
        with torch.no_grad():
            self.parameter.copy_(tensors.pop("parameters"))
        moments = {n: t if n == "step" else t.to(self.parameter.device) for n, t in tensors.items()}
        self.optimizer.state[self.parameter] = moments
        self.scheduler.last_epoch = step
        rate = self.settings.learning_rate * self.scheduler.lr_lambdas[0](step)
        self.optimizer.param_groups[0]["lr"] = rate
        self.scheduler._last_lr = [rate]
        self.seconds = plain["seconds"]
        self.anomalies.restore(self.anomalies.journal.rows, step)
        if self.stopper is not None:
            self.stopper.kept = plain["stopping"]
        if self.objective.weighting.recent is not None:
            self.objective.weighting.recent.shocks = plain["shocks"]

    def result(self, steps: int) -> RunResult:
        return RunResult(
            self.run.name,
            steps,
            self.folder / "final",
            self.metrics.path,
            list(self.anomalies.steps),
            self.seconds,
            self.data.dropped,
            None if self.stopper is None else self.stopper.rule.verdict,
            self.error,
        )


def _step(row: dict[str, Any]) -> int:
    return row["step"]


def _schedule(settings: TrainSettings, optimizer: Any, warmup: int, steps: int) -> Any:
    from transformers import get_scheduler

    cycles = {"num_cycles": settings.cycles} if settings.scheduler == "cosine_with_restarts" else {}
    return get_scheduler(settings.scheduler, optimizer, warmup, steps, scheduler_specific_kwargs=cycles)
