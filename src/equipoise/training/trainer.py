"""TRL's SFTTrainer with the fused objective, steps that survive memory and NaN, and checkpoints that are whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from trl.trainer.sft_trainer import SFTTrainer

from equipoise.errors import UserError
from equipoise.journal import write_json
from equipoise.models.token_rows import spare_copies
from equipoise.training.durable import train_in_float32
from equipoise.training.head import Objective, attach, detach
from equipoise.training.meter import Meter
from equipoise.training.stepping import StepHooks, Stepping

RECENT = "recent_shocks.json"  # in a checkpoint: what a weighting with a memory remembers


class FusedTrainer(Stepping, SFTTrainer):
    """Overrides what the objective and durability need; loop, optimizer, schedule and parallelism are the parents'."""

    def __init__(self, *args: Any, objective: Objective, meter: Meter, hooks: StepHooks, **kwargs: Any):
        super().__init__(*args, hooks=hooks, **kwargs)
        model: Any = self.model
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        detach(base)  # TRL's fused head: one path only
        spare_copies(base)
        if getattr(base, "quantization_method", None) is not None:
            train_in_float32(model)
        attach(base, objective)
        if objective.weighting.recent is not None and self.accelerator.num_processes > 1:
            raise UserError(
                f"{objective.weighting.name} remembers the tokens of its own process alone",
                where="objective.name",
                fix="train in one process, or with a threshold that does not move",
            )
        self.objective, self.meter = objective, meter
        self._told: list[tuple[torch.Tensor, torch.Tensor]] = []  # nll and entropy of the step's tokens, where wanted
        self.data_collator = _WithRows(self.data_collator)

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
            if self.objective.weighting.recent is not None:
                self._told.append((out["nll"], out["entropy"]))
        return (loss, out) if return_outputs else loss

    def _step_means(self) -> dict[str, float]:
        return self.meter.read(self.accelerator)

    def _reset_means(self) -> None:
        self.meter.reset()
        self._told = []

    def _finish_row(self, learning_rate: float | None) -> None:
        for nll, entropy in self._told:
            self.objective.weighting.observe(nll, entropy / self.meter.log_v)
        super()._finish_row(learning_rate)

    def _write_state(self, aside: Path) -> None:
        recent = self.objective.weighting.recent
        if recent is not None:
            write_json(aside / RECENT, {"shocks": recent.shocks})

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        recent = self.objective.weighting.recent
        if recent is not None:
            text = (Path(resume_from_checkpoint) / RECENT).read_text(encoding="utf-8")
            recent.shocks = json.loads(text)["shocks"]

    def _tell_trackers(self, row: dict[str, Any]) -> None:
        if self.args.logging_strategy != "no":
            for name in ("entropy", "shocked_share", "mean_weight", "token_accuracy"):
                self._metrics["train"][name].append(row[name] or 0.0)


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
