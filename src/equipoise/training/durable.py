"""What every trainer here does alike: whole checkpoints, resume in place, and the best model of the validations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from equipoise.console import say
from equipoise.training import checkpoints


class Durable:
    """Goes before a transformers Trainer with `hooks`, which say where things go and what is worth keeping."""

    hooks: Any
    _row: dict[str, Any] | None  # of the step under way, once its gradient is there

    def _get_grad_norm(self: Any, model: Any, grad_norm: Any = None) -> Any:
        """The parent's; a step whose loss or gradient is not finite is skipped and written down."""
        norm = super()._get_grad_norm(model, grad_norm)  # pyright: ignore[reportAttributeAccessIssue]
        means = self._step_means()
        loss, value = means["loss"], float(norm)
        fine = math.isfinite(value) and math.isfinite(loss)
        self._row = {**means, "grad_norm": value, "skipped": not fine}
        if fine:
            return norm
        scaler = self.accelerator.scaler
        if scaler is not None and math.isfinite(loss) and scaler.get_scale() > 1.0:
            return norm  # fp16: the scaler skips this step itself and halves its scale
        for parameter in model.parameters():
            parameter.grad = None
        step = self.state.global_step + 1
        self.hooks.anomalies.add(step, loss=loss, grad_norm=value, rows=self._step_rows())
        return norm

    def _step_means(self) -> dict[str, float]:
        """What the step under way is told by; `loss` at least."""
        raise NotImplementedError

    def _step_rows(self) -> list[str]:
        """Names of the rows that the step under way learned from."""
        raise NotImplementedError

    def _maybe_log_save_evaluate(
        self: Any, tr_loss: Any, grad_norm: Any, model: Any, trial: Any, epoch: Any, *args: Any, **kwargs: Any
    ) -> None:
        if self._row is not None:
            self._finish_row(kwargs.get("learning_rate"))
        super()._maybe_log_save_evaluate(  # pyright: ignore[reportAttributeAccessIssue]
            tr_loss, grad_norm, model, trial, epoch, *args, **kwargs
        )

    def _finish_row(self, learning_rate: float | None) -> None:
        """Write the row of the step, and do what is due after it."""
        raise NotImplementedError

    def _save_checkpoint(self: Any, model: Any, trial: Any) -> None:
        folder = self.hooks.checkpoints
        with checkpoints.sealed(folder, self.state.global_step, self.accelerator) as aside:
            self.save_model(str(aside), _internal_call=True)
            self._save_optimizer_and_scheduler(str(aside))
            self._save_scaler(str(aside))
            self._save_rng_state(str(aside))
            if self.args.should_save:
                self._export_callbacks()
                self.state.save_to_json(str(aside / "trainer_state.json"))
                self._write_state(aside)
        if self.args.should_save:
            checkpoints.prune(folder, self.hooks.keep_checkpoints)

    def save_end(self: Any) -> None:
        """Save after the last step too, where a signal came in it: else the same call would train again."""
        newest = checkpoints.newest(self.hooks.checkpoints)
        if newest is None or checkpoints.step_of(newest) != self.state.global_step:
            self._save_checkpoint(self.model, None)

    def _write_state(self, aside: Path) -> None:
        """Write what else this trainer wants back after a resume."""

    def _export_callbacks(self: Any) -> None:
        """What each callback, and the trainer's own control, wants back after a resume."""
        from transformers.trainer_callback import ExportableState

        states: dict[str, list[dict]] = {}
        for callback in [*self.callback_handler.callbacks, self.control]:
            if isinstance(callback, ExportableState):
                states.setdefault(type(callback).__name__, []).append(callback.state())
        # written afresh: the parent appends to what earlier checkpoints left
        self.state.stateful_callbacks = {  # pyright: ignore[reportAttributeAccessIssue]  (a dict once trained)
            name: found[0] if len(found) == 1 else found for name, found in states.items()
        }

    def _save(self: Any, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """Weights as safetensors; not the parent's pickle of the arguments."""
        if not self.args.should_save:
            return
        assert output_dir is not None
        save_pretrained(self.model, output_dir, state_dict)

    def _load_from_checkpoint(self: Any, resume_from_checkpoint: str, model: Any = None) -> None:
        if self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)  # pyright: ignore[reportAttributeAccessIssue]
        else:
            checkpoints.load_weights(self.model, Path(resume_from_checkpoint))

    def _keep_best(self: Any, model: Any, step: int, result: Mapping[str, Any]) -> None:
        """Save before the numbers are journalled: cut off in between, a resumed run does both again."""
        earlier = [row for row in self.hooks.validations.rows if row["step"] < step]
        for name, best in self.hooks.keep_best.items():
            if best.improves(result.get(best.metric), earlier) and self.hooks.write_model is not None:
                self.hooks.write_model(self.accelerator.unwrap_model(model), self.hooks.folder / name)
                say(f"new best {best.metric} {result[best.metric]:.4g} after step {step}: saved in {name}/")

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not counted: walking over all parameters takes 4% of a small model's step, and nobody reads it here."""
        return 0


def train_in_float32(model: Any) -> None:
    """TRL makes the adapter of a quantized base bf16, which rounds the last small updates of a row away."""
    import torch

    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype in (torch.bfloat16, torch.float16):
            parameter.data = parameter.data.float()


def save_pretrained(model: Any, folder: str | Path, state_dict: dict | None = None) -> None:
    """Write a model or adapter as safetensors, without asking the Hub whether the base's vocabulary has grown."""
    extra: dict[str, Any] = {}
    if hasattr(model, "active_peft_config"):
        targets = model.active_peft_config.target_modules or ()
        extra["save_embedding_layers"] = not {"embed_tokens", "lm_head", "wte"}.isdisjoint(targets)
    model.save_pretrained(str(folder), state_dict=state_dict, **extra)


def json_number(value: Any) -> Any:
    """The value, or null for a number that JSON has no word for."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
