"""TRL's DPOTrainer on our token ids, with a reference measured once, and steps and checkpoints as everywhere here."""

from __future__ import annotations

import math
from typing import Any

import torch
from trl.trainer.dpo_trainer import DPOTrainer

from equipoise.console import progress
from equipoise.errors import UserError
from equipoise.training import splitting
from equipoise.training.durable import train_in_float32
from equipoise.training.stepping import StepHooks, Stepping

MEANS = (
    "rewards/chosen",
    "rewards/rejected",
    "rewards/margins",
    "rewards/accuracies",
    "logps/chosen",
    "logps/rejected",
    "entropy",
)
SORTED = ("aot", "aot_unpaired")  # these compare the pairs of a micro-batch with each other


class PairTrainer(Stepping, DPOTrainer):
    """Overrides what reference, weights of micro-batches and durability need; losses and loop are the parents'.

    The reference is the model before the first step, whatever it is made of. TRL would take a second adapter, the
    adapter switched off, or weights from wherever the configuration says, and round a quantized base's adapter first.
    """

    def __init__(self, *args: Any, hooks: StepHooks, **kwargs: Any):
        given: Any = kwargs["model"]
        quantized = getattr(given, "quantization_method", None) is not None
        before = {name: p.detach().clone() for name, p in given.named_parameters() if quantized and p.requires_grad}
        super().__init__(*args, hooks=hooks, **kwargs)
        model: Any = self.model
        if "ref" in getattr(model, "peft_config", {}):
            model.delete_adapter("ref")
        if quantized:
            train_in_float32(model)
            for name, parameter in model.named_parameters():
                if name in before:
                    parameter.data.copy_(before[name])  # TRL made it bf16
        self.data_collator = _WithRows(self.data_collator)
        self.loss_is_scaled_for_ga = True  # `compute_loss` does it, by pairs; TRL means the mean over micro-batches
        self._parts: list[tuple[int, int, dict[str, float]]] = []  # pairs, their answers' tokens, means over the pairs
        self._add_reference()

    # ---- data: token ids already, and the reference's log-probabilities

    def _prepare_dataset(self, dataset: Any, *args: Any) -> Any:
        return dataset

    def _precompute_ref_logps(self, dataset: Any, *args: Any) -> Any:
        return dataset  # `_add_reference` does it, once the model is as it will be trained, and without a file

    @torch.no_grad()
    def _add_reference(self) -> None:
        """Measure both answers of every pair with the model as it is now."""
        data: Any = self.train_dataset
        model: Any = self.model
        size = self.args.per_device_train_batch_size
        training = model.training
        model.eval()
        columns: dict[str, list[float]] = {"ref_chosen_logps": [], "ref_rejected_logps": []}
        with progress(len(data), "reference") as bar:
            for start in range(0, len(data), size):
                rows = [data[i] for i in range(start, min(start + size, len(data)))]
                batch: Any = self._prepare_inputs(self.data_collator(rows))
                labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
                inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], "labels": labels}
                with self.accelerator.autocast():
                    out = model(**inputs, fused_lm_head=True)
                for column, part in zip(columns.values(), out.log_probs.float().sum(1).chunk(2)):
                    column += part.tolist()
                bar.advance(len(rows))
        model.train(training)
        for i, pair in enumerate(zip(*columns.values())):
            if not all(map(math.isfinite, pair)):
                raise UserError(
                    f"the starting model gives pair {self.hooks.ids[i]} a log-probability that is not a finite number",
                    where="model.path",
                    fix="load it in fp32 or bf16, or check its weights",
                )
        for name, column in columns.items():
            data = data.add_column(name, column)
        self.train_dataset = data

    # ---- one optimizer step

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> int:
        return sum(splitting.documents(batch) for batch in batch_samples)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """TRL's mean over the pairs given, as their share of the mean over all pairs of the step."""
        pairs = splitting.documents(inputs)
        told = {name: value for name, value in inputs.items() if name != "row_index"}
        loss = super().compute_loss(model, told, num_items_in_batch=num_items_in_batch)
        loss = loss * (pairs / num_items_in_batch)
        means = {name: self._metrics["train"][name][-1] for name in MEANS}
        tokens = int(inputs["completion_mask"].sum())
        self._parts.append((pairs, tokens, {"loss": float(loss.detach()) * num_items_in_batch / pairs, **means}))
        return loss

    def _halve(self, error: Exception) -> None:
        if self.loss_types[0] in SORTED:
            raise UserError(
                f"out of memory, and the batches of loss_type {self.loss_types[0]} cannot be computed in parts",
                where=f"step {self._step}",
                fix="lower dpo.max_length or dpo.batch_size, or set dpo.gradient_checkpointing: true",
                docs="docs/troubleshooting.md#out-of-memory",
            ) from error
        super()._halve(error)

    # ---- what is written

    def _reset_means(self) -> None:
        self._parts = []

    def _step_means(self) -> dict[str, float]:
        """Means over the pairs of the step, and by how much its answers became less likely, in nats a token.

        On answers that the reference would have drawn that is an estimate of KL(reference || policy).
        """
        pairs = sum(part[0] for part in self._parts)
        tokens = sum(part[1] for part in self._parts)
        means = {
            name: math.fsum(count * numbers[name] for count, _, numbers in self._parts) / pairs
            for name in ("loss", *MEANS)
        }
        gained = (means["rewards/chosen"] + means["rewards/rejected"]) / self.beta * pairs
        return {**means, "kl_estimate": -gained / tokens}

    def _tell_trackers(self, row: dict[str, Any]) -> None:
        if self.args.logging_strategy == "no":
            self._metrics["train"].clear()  # which logging would do


class _WithRows:
    """A collator that also says which pairs a batch holds."""

    def __init__(self, collate: Any):
        self.collate = collate

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        return {**self.collate(features), "row_index": torch.tensor([row["row_index"] for row in features])}
