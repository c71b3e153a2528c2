"""TRL's SFTTrainer with the fused objective, steps that survive memory and NaN, and checkpoints that are whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from trl.trainer.sft_trainer import SFTTrainer

from equipoise.console import say
from equipoise.errors import UserError
from equipoise.models.token_rows import spare_copies
from equipoise.training import splitting
from equipoise.training.anomalies import Anomalies
from equipoise.training.best import MEAN_LOSS, Best, finite
from equipoise.training.durable import Durable, json_number, train_in_float32
from equipoise.training.head import Objective, attach, detach
from equipoise.training.meter import Meter
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


class FusedTrainer(Stoppable, Durable, SFTTrainer):
    """Overrides what the objective and durability need; loop, optimizer, schedule and parallelism are the parents'."""

    def __init__(self, *args: Any, objective: Objective, meter: Meter, hooks: StepHooks, **kwargs: Any):
        super().__init__(*args, **kwargs)
        model: Any = self.model
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        detach(base)  # TRL's fused head: one path only
        spare_copies(base)
        if getattr(base, "quantization_method", None) is not None:
            train_in_float32(model)
        attach(base, objective)
        # The parent counts the step's tokens only for models whose forward takes loss arguments
        self.model_accepts_loss_kwargs = True
        self.objective, self.meter, self.hooks = objective, meter, hooks
        self.data_collator = _WithRows(self.data_collator)
        self.split = 1
        self._batches: list[dict[str, Any]] = []
        self._rng: dict[str, Any] = {}
        self._row: dict[str, Any] | None = None
        self._share = 1.0

    def create_optimizer(self, model: Any = None) -> Any:
        """The parent's, with a rate of their own for the rows of new tokens where the hooks name one."""
        fresh = self.optimizer is None
        optimizer: Any = super().create_optimizer(model)
        if not fresh or self.hooks.token_learning_rate is None:
            return optimizer
        named = (self.model if model is None else model).named_parameters()  # pyright: ignore
        rows = [p for name, p in named if "trainable_tokens_delta" in name and p.requires_grad]
        theirs = {id(p) for p in rows}
        for group in optimizer.param_groups:
            group["params"] = [p for p in group["params"] if id(p) not in theirs]
        if rows:
            optimizer.add_param_group({"params": rows, "lr": self.hooks.token_learning_rate, "weight_decay": 0.0})
        return optimizer

    # ---- one optimizer step

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        samples = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._batches, self._row = [], None
        self.meter.reset()
        return samples

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
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
            self.meter.reset()
            todo = list(self._batches)

    def _in_pieces(self, model: Any, batch: dict[str, Any], num_items: Any) -> torch.Tensor:
        pieces = splitting.split_batch(batch, self.split)
        self._share = 1.0 / (len(pieces) * self.current_gradient_accumulation_steps)
        losses = [super(FusedTrainer, self).training_step(model, dict(piece), num_items) for piece in pieces]
        return torch.stack(losses).sum()

    def _halve(self, error: Exception) -> None:
        largest = max(splitting.documents(batch) for batch in self._batches)
        if self.split >= largest or self.accelerator.num_processes > 1:
            raise UserError(
                "out of memory even with one example at a time"
                if self.accelerator.num_processes == 1
                else "out of memory on one of several processes",
                where=f"step {self._step}",
                fix="lower training.max_length or training.batch_size, set training.gradient_checkpointing: true, "
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
    def _step(self) -> int:
        return self.state.global_step + 1

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        inputs = {name: value for name, value in inputs.items() if name != "row_index"}
        if self.aux_loss_enabled:
            inputs["output_router_logits"] = True
        out = model(**inputs, fused_objective=True, num_items=num_items_in_batch)
        loss = out["loss"]
        in_training = num_items_in_batch is not None
        if self.objective.normalize == "weights":
            loss = loss * self._share if in_training else loss
        elif in_training and self.args.average_tokens_across_devices:
            # DDP averages gradients over ranks, and the tokens of every rank are counted
            loss = loss * (self.accelerator.num_processes // self.get_tp_size())
        if self.aux_loss_enabled:
            loss = loss + self.router_aux_loss_coef * out["aux_loss"] * (self._share if in_training else 1.0)
        if in_training:
            self.meter.add(loss, out)
        return (loss, out) if return_outputs else loss

    def _step_means(self) -> dict[str, float]:
        return self.meter.read(self.accelerator)

    def _step_rows(self) -> list[str]:
        rows = sorted({int(i) for batch in self._batches for i in batch["row_index"].tolist()})
        return [self.hooks.ids[i] for i in rows]

    # ---- what is written

    def _finish_row(self, learning_rate: float | None) -> None:
        assert self._row is not None
        step = self.state.global_step
        row = {"step": step, "epoch": round(float(self.state.epoch or 0.0), 6), "learning_rate": learning_rate}
        row |= {name: json_number(value) for name, value in self._row.items()}
        self._row = None
        self._watch(row, self._batches)
        if self.args.logging_strategy != "no":
            for name in ("entropy", "shocked_share", "mean_weight", "token_accuracy"):
                self._metrics["train"][name].append(row[name] or 0.0)
        if self.hooks.on_step is not None:
            self.hooks.on_step(row)
        if self.is_world_process_zero() and step % self.hooks.logging_steps == 0:
            append_once(self.hooks.metrics, row)
        self._validate(step)

    def _validate(self, step: int) -> None:
        hooks = self.hooks
        per_epoch = max(self.state.max_steps // max(int(self.args.num_train_epochs), 1), 1)
        due = step % per_epoch == 0 or (hooks.eval_steps is not None and step % hooks.eval_steps == 0) or self._stopped
        if not due or (hooks.validate is None and hooks.example_losses is None):
            return
        losses = self._validated(step) if self.is_world_process_zero() else None
        if hooks.example_losses is not None:
            self._compare(step, losses)

    def _validated(self, step: int) -> list[float] | None:
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
        append_once(hooks.validations, {"step": step, **{k: json_number(v) for k, v in result.items()}})
        return losses


class _WithRows:
    """A collator that also says which examples a batch holds."""

    def __init__(self, collate: Any):
        self.collate = collate

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        batch = self.collate(features)
        rows: list[int] = []
        for feature in features:
            start = 0
            for length in feature.get("seq_lengths") or [len(feature["row_index"])]:
                rows.append(feature["row_index"][start])
                start += length
        batch["row_index"] = torch.tensor(rows)
        return batch
