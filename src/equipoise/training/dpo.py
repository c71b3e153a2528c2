"""Direct preference optimisation: from a model and pairs of answers to a trained adapter in one call."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equipoise.console import say
from equipoise.data.rendered_pairs import RenderedPairs, render_pairs
from equipoise.errors import UserError
from equipoise.models.adapters import base_note
from equipoise.models.head import HeadFormula, verify
from equipoise.models.loading import Loaded
from equipoise.models.token_rows import trained_rows
from equipoise.training import checkpoints
from equipoise.training.assembly import (
    base_of,
    check_settings,
    lora_config,
    pick_precision,
    trainable,
    trainer_arguments,
)
from equipoise.training.best import Best
from equipoise.training.dpo_settings import DPOSettings
from equipoise.training.head import detach
from equipoise.training.interrupts import StopRequest
from equipoise.training.sft import (
    TrainResult,
    carry_out,
    check_ids,
    model_identity,
    quiet_training,
    step_hooks,
    write_model,
)

if TYPE_CHECKING:
    from equipoise.records import PreferencePair


def train_dpo(
    loaded: Loaded,
    pairs: Sequence[PreferencePair],
    *,
    settings: DPOSettings,
    folder: str | Path,
    seed: int,
    validate: Callable[[Any, int], dict[str, float]] | None = None,
    on_step: Callable[[dict[str, Any]], None] | None = None,
    keep_base: bool = False,
    eval_steps: int | None = None,
    keep_best: Mapping[str, Best] | None = None,
) -> TrainResult:
    """Train `loaded.model` to prefer `chosen` to `rejected`; a folder with a valid checkpoint of the run is resumed.

    The reference is `loaded.model` as it is given: an adapter that it brings is trained on, and `final/` holds that one
    adapter. Its log-probabilities are measured once, before the first step and again on a resume.

    Args:
        validate: called as `validate(model, step)` after each epoch and every `eval_steps` optimizer steps, in eval
            mode; its numbers go to `validation.jsonl`, and the random generators are put back afterwards.
        on_step: called with each row of `metrics.jsonl`.
        keep_base: train a copy, so that `loaded` can be used again, for example as the reference of an evaluation.
        keep_best: for each name, a folder of that name in `folder` holds the model of the best validation so far.

    Raises:
        UserError: the pairs, model and settings do not go together, the folder holds another run, or training met too
            many non-finite steps or ran out of memory for good.
        Interrupted: SIGINT or SIGTERM; the step was finished and saved.
    """
    started = time.perf_counter()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    precision = pick_precision(loaded.model, settings)
    _check(loaded, settings)
    data = render_pairs(loaded.tokenizer, pairs, max_length=settings.max_length, max_bad_share=settings.max_bad_share)
    check_ids(
        loaded.model,
        ((name, row.prompt + row.chosen + row.rejected) for name, row in zip(data.ids, data.rows)),
    )
    base = base_note(loaded.model, loaded.name)
    checkpoints.claim(folder, _identity(loaded, data, settings, seed, base))
    if data.dropped:
        say(f"{len(data.dropped)} pairs left out, first: {data.dropped[0][0]} ({data.dropped[0][1]})")
    model = trainable(copy.deepcopy(loaded.model) if keep_base else loaded.model, settings)
    with ExitStack() as stack:
        stack.enter_context(quiet_training())
        hooks = stack.enter_context(step_hooks(folder, folder / "checkpoints", data.ids, settings, validate, on_step))
        hooks.eval_steps, hooks.keep_best = eval_steps, dict(keep_best or {})
        hooks.write_model = partial(write_model, loaded, base)
        stop = stack.enter_context(StopRequest())
        stack.callback(detach, base_of(model))  # TRL's head, also where training fails
        trainer = _trainer(model, loaded.tokenizer, data, settings, precision, seed, hooks, stop)
        carry_out(trainer, stop)
        trained = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    return TrainResult(
        trained,
        loaded.tokenizer,
        trainer.state.global_step,
        folder / "metrics.jsonl",
        hooks.anomalies.steps,
        time.perf_counter() - started,
        folder / "final",
        data.dropped,
    )


def _check(loaded: Loaded, settings: DPOSettings) -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("DPO here runs in a single process", fix="start it without torchrun or accelerate launch")
    check_settings(loaded.model, settings)
    if hasattr(loaded.model, "peft_config") and not any(p.requires_grad for p in loaded.model.parameters()):
        raise UserError(
            "the adapter that the model brings is frozen",
            where="model.adapter",
            fix="load it with `load_model`, or with is_trainable=True",
        )
    base = base_of(loaded.model)
    if trained_rows(base.get_output_embeddings()) is not None:
        raise UserError(
            "the adapter that the model brings trains rows of its head, which preference training cannot",
            where="model.adapter",
            fix="merge it into its base with `equipoise export`, and start from the merged model",
        )
    verify(base, HeadFormula.of(base), base.forward)  # TRL's head has the same formula


def _identity(
    loaded: Loaded, data: RenderedPairs, settings: DPOSettings, seed: int, base: dict[str, Any]
) -> dict[str, Any]:
    text = json.dumps([[row.prompt, row.chosen, row.rejected] for row in data.rows])
    return {
        "model": model_identity(loaded, base),
        "data": {"pairs": len(data.rows), "sha256": hashlib.sha256(text.encode()).hexdigest()},
        "training": settings.model_dump(mode="json"),
        "seed": seed,
    }


def _trainer(
    model: Any,
    tokenizer: Any,
    data: RenderedPairs,
    settings: DPOSettings,
    precision: str,
    seed: int,
    hooks: Any,
    stop: StopRequest,
) -> Any:
    from datasets import Dataset
    from transformers.trainer_callback import PrinterCallback, ProgressCallback
    from trl.trainer.dpo_config import DPOConfig

    from equipoise.training.dpo_trainer import PairTrainer
    from equipoise.training.pace import Pace

    rows = Dataset.from_dict(
        {
            "prompt_ids": [row.prompt for row in data.rows],
            "chosen_ids": [row.chosen for row in data.rows],
            "rejected_ids": [row.rejected for row in data.rows],
            "row_index": list(range(len(data.rows))),
        }
    )
    arguments = trainer_arguments(settings, precision, hooks.folder, hooks.checkpoints, seed, model.device.type)
    trainer = PairTrainer(
        model=model,
        args=DPOConfig(
            **arguments,
            beta=settings.beta,
            loss_type=[settings.loss_type, *(["sft"] if settings.sft_weight else [])],
            loss_weights=[1.0, *([settings.sft_weight] if settings.sft_weight else [])],
            label_smoothing=settings.label_smoothing,
            max_length=None,  # what is too long was left out, and nothing is cut
            precompute_ref_log_probs=True,
        ),
        train_dataset=rows,
        processing_class=tokenizer,
        peft_config=lora_config(model, settings),
        callbacks=[Pace(settings.checkpoint_every, stop)],
        hooks=hooks,
    )
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    return trainer
