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
