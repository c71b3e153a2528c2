"""What supervised and preference training do alike at each step: its row, its validation, a full memory survived."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from equipoise.console import say
from equipoise.errors import UserError
from equipoise.models.lora_sum import keep_small_updates
from equipoise.training import splitting
from equipoise.training.anomalies import Anomalies
from equipoise.training.best import MEAN_LOSS, Best, finite
from equipoise.training.durable import Durable, json_number
from equipoise.training.rng import restore_rng, rng_state
from equipoise.training.stoppable import Stoppable, append_once


@dataclass
class StepHooks:
    """Where a run's events go: journals with `append` and `rows`, and callables."""

    folder: Path
    checkpoints: Path
    metrics: Any
    splits: Any
    anomalies: Anomalies
    ids: list[str]
    section: str  # of the recipe that has the settings, as errors name it
    keep_checkpoints: int = 2
    logging_steps: int = 1
    token_learning_rate: float | None = None
    validate: Callable[[Any, int], dict[str, float]] | None = None
    validations: Any = None
    eval_steps: int | None = None
    keep_best: Mapping[str, Best] = field(default_factory=dict)
    write_model: Callable[[Any, Path], None] | None = None
    on_step: Callable[[dict[str, Any]], None] | None = None
    supervised: Sequence[int] = ()
    example_losses: Callable[[Any, int], Sequence[float]] | None = None
    stops: Any = None


class Stepping(Stoppable, Durable):
    """Goes before a TRL trainer whose batches say in `row_index` which rows of the data they hold."""

    hooks: StepHooks

    def __init__(self: Any, *args: Any, hooks: StepHooks, **kwargs: Any):
        super().__init__(*args, **kwargs)
        keep_small_updates(self.model)
        # The parent counts what a step's loss is divided by only for models whose forward takes loss arguments
        self.model_accepts_loss_kwargs = True
        self.hooks = hooks
        self.split = 1
        self._batches: list[dict[str, Any]] = []
        self._rng: dict[str, Any] = {}
        self._row: dict[str, Any] | None = None
        self._share = 1.0

    def _reset_means(self) -> None:
        """Forget what the step under way has summed up for its row."""
        raise NotImplementedError

    def _tell_trackers(self, row: dict[str, Any]) -> None:
        """Leave the numbers of the step where TRL's `log` looks for them, or clear them away."""
        raise NotImplementedError

    # ---- one optimizer step

    def get_batch_samples(self: Any, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        parent: Any = super()
        samples = parent.get_batch_samples(epoch_iterator, num_batches, device)
        self._batches, self._row = [], None
        self._reset_means()
        return samples

    def training_step(self: Any, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        if not self._batches:
            self._rng = rng_state()
            self.split = max([1, *(r["split"] for r in self.hooks.splits.rows if r["step"] <= self._step)])
        self._batches.append(inputs)
        todo = [inputs]
        while True:
            try:
                return sum(self._in_pieces(model, batch, num_items_in_batch) for batch in todo)  # pyright: ignore
            except Exception as error:
                if not splitting.is_out_of_memory(error):
                    raise
                self._halve(error)
            # outside the except block: the traceback would keep the failed pass's tensors alive
            model.zero_grad()
            restore_rng(self._rng)
            self._reset_means()
            todo = list(self._batches)

    def _in_pieces(self: Any, model: Any, batch: dict[str, Any], num_items: Any) -> torch.Tensor:
        pieces = splitting.split_batch(batch, self.split)
        self._share = 1.0 / (len(pieces) * self.current_gradient_accumulation_steps)
        parent: Any = super()
        losses = [parent.training_step(model, dict(piece), num_items) for piece in pieces]
        return torch.stack(losses).sum()

    def _halve(self: Any, error: Exception) -> None:
        largest = max(splitting.documents(batch) for batch in self._batches)
        section = self.hooks.section
        if self.split >= largest or self.accelerator.num_processes > 1:
            raise UserError(
                "out of memory even with one example at a time"
                if self.accelerator.num_processes == 1
                else "out of memory on one of several processes",
                where=f"step {self._step}",
                fix=f"lower {section}.max_length or {section}.batch_size, set {section}.gradient_checkpointing: true, "
                "or load the model in 4bit",
                docs="docs/troubleshooting.md#out-of-memory",
            ) from error
        self.split = min(self.split * 2, largest)
        self.hooks.splits.append({"step": self._step, "split": self.split})
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        say(
            f"out of memory at step {self._step}: each batch is now computed in {self.split} parts; "
            "the effective batch size is unchanged"
        )

    @property
    def _step(self: Any) -> int:
        return self.state.global_step + 1

    def _step_rows(self: Any) -> list[str]:
        rows = sorted({int(i) for batch in self._batches for i in batch["row_index"].tolist()})
        return [self.hooks.ids[i] for i in rows]

    # ---- what is written

    def _finish_row(self: Any, learning_rate: float | None) -> None:
        assert self._row is not None
        step = self.state.global_step
        row = {"step": step, "epoch": round(float(self.state.epoch or 0.0), 6), "learning_rate": learning_rate}
        row |= {name: json_number(value) for name, value in self._row.items()}
        self._row = None
        self._watch(row, self._batches)
        self._tell_trackers(row)
        if self.hooks.on_step is not None:
            self.hooks.on_step(row)
        if self.is_world_process_zero() and step % self.hooks.logging_steps == 0:
            append_once(self.hooks.metrics, row)
        self._validate(step)

    def _validate(self: Any, step: int) -> None:
        hooks = self.hooks
        per_epoch = max(self.state.max_steps // max(int(self.args.num_train_epochs), 1), 1)
        due = (
            step % per_epoch == 0
            or (hooks.eval_steps is not None and step % hooks.eval_steps == 0)
            or self.stopped_early
        )
        if not due or (hooks.validate is None and hooks.example_losses is None):
            return
        losses = self._validated(step) if self.is_world_process_zero() else None
        if hooks.example_losses is not None:
            self._compare(step, losses)

    def _validated(self: Any, step: int) -> list[float] | None:
        """Validate on this process; the losses of the validation examples, if the pipeline gives them."""
        hooks = self.hooks
        before = rng_state()
        model: Any = self.model
        model.eval()
        with torch.no_grad():
            result = {} if hooks.validate is None else hooks.validate(model, step)
            losses = None if hooks.example_losses is None else list(map(float, hooks.example_losses(model, step)))
        if losses:
            result = {**result, MEAN_LOSS: sum(losses) / len(losses)}
        self._keep_best(model, step, result)
        if self.args.logging_strategy != "no":
            should_log = self.control.should_log  # which logging clears, and the step's own numbers come later
            self.log({f"eval_{name}": value for name, value in result.items() if finite(value)})
            self.control.should_log = should_log
        model.train()
        restore_rng(before)
        if result:
            append_once(hooks.validations, {"step": step, **{k: json_number(v) for k, v in result.items()}})
        return losses
