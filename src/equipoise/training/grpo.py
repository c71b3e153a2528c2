"""GRPO in the order of a curriculum: from prompts with pseudo-labels to a trained adapter in one call."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from equipoise import journal
from equipoise.console import say
from equipoise.errors import UserError
from equipoise.models.adapters import adapter_digest, base_note
from equipoise.models.loading import Loaded
from equipoise.records import Message
from equipoise.schedules.curriculum import Curriculum
from equipoise.training import checkpoints
from equipoise.training.anomalies import Anomalies
from equipoise.training.assembly import check_settings, lora_config, pick_precision, trainable
from equipoise.training.best import Best
from equipoise.training.grpo_settings import GrpoSettings
from equipoise.training.interrupts import Interrupted, StopRequest
from equipoise.training.rollouts import Item, Refresh, Rollouts
from equipoise.training.sft import quiet_training, write_model

__all__ = ["GrpoResult", "Item", "Summary", "train_grpo"]


@dataclass(frozen=True)
class Summary:
    """A run in a few numbers: means over the last ten steps, divergences in nats a token; why it stopped early."""

    steps: int
    stopped: str | None
    reward: float | None
    kl: float | None
    forward_kl: float | None
    equal_share: float | None
    skipped: int
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class GrpoResult:
    """What training leaves: the model in memory and, in the folder, `final/`, `metrics.jsonl`, `validation.jsonl`."""

    model: Any = field(repr=False)
    summary: Summary
    metrics_path: Path
    final: Path
    seconds: float


def train_grpo(
    loaded: Loaded,
    targets: Sequence[Item],
    *,
    curriculum: Curriculum,
    settings: GrpoSettings,
    folder: str | Path,
    seed: int,
    replay: Sequence[Item] = (),
    validate: Callable[[Any, int], dict[str, float]] | None = None,
    held_out: Sequence[Sequence[Message]] = (),
    refresh: Refresh | None = None,
    on_step: Callable[[dict[str, Any]], None] | None = None,
    keep_base: bool = False,
    keep_best: Mapping[str, Best] | None = None,
) -> GrpoResult:
    """Train an adapter on the rewards of `targets`; a folder with a valid checkpoint of the same run is resumed.

    Args:
        curriculum: which targets, and which of `replay`, each optimizer step draws answers to.
        validate: called as `validate(model, step)` before the first step, at each new stage, every `eval_every` steps
            and at the end; "target/f1" in what it returns is what the collapse watch looks at.
        held_out: prompts on which KL(base || policy) is measured with each validation.
        refresh: called as `refresh(model, step)` where a dynamic curriculum is due; returns labels and confidences of
            all targets.
        keep_base: train a copy, so that `loaded` can be used again.
        keep_best: for each name, a folder of that name in `folder` holds the model of the best validation so far. If
            the run collapses, the first of them is what is returned and what `final/` holds.

    Raises:
        UserError: model and settings do not go together, the folder holds another run, or training met too many
            non-finite steps.
        Interrupted: SIGINT or SIGTERM; the step was finished and saved.
    """
    started = time.perf_counter()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _check(loaded, targets, settings)
    precision = pick_precision(loaded.model, settings.training())
    base = base_note(loaded.model, loaded.name)
    checkpoints.claim(folder, _identity(loaded, targets, replay, curriculum, settings, seed, base))
    model = trainable(copy.deepcopy(loaded.model) if keep_base else loaded.model, settings.training())
    rollouts = Rollouts(loaded.tokenizer, targets, replay, curriculum, settings, seed, refresh)
    with ExitStack() as stack:
        stack.enter_context(quiet_training())
        hooks = stack.enter_context(_hooks(folder, settings, validate, on_step, dict(keep_best or {})))
        hooks.write_model = partial(write_model, loaded, base)
        stop = stack.enter_context(StopRequest())
        trainer = _trainer(model, loaded, rollouts, settings, precision, seed, hooks, held_out, stop)
        resume = checkpoints.newest(hooks.checkpoints)
        if resume is None:
            trainer.begin()
        else:
            step = checkpoints.step_of(resume)
            say(f"resuming after step {step} from {resume}")
            hooks.anomalies.restore(hooks.anomalies.journal.rows, step)
        trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
        trained = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
        steps = trainer.state.global_step
        ended = steps == trainer.state.max_steps or trainer.stopped is not None
        if stop.requested and not ended:
            raise Interrupted(stop.requested, steps, folder)
        if stop.requested:
            trainer.save_end()  # before another model's weights may take the place of these
        best = next((folder / name for name in hooks.keep_best if (folder / name).is_dir()), None)
        if trainer.collapsed and best is not None:
            checkpoints.load_weights(trained, best)
            say(f"the model of {best} is kept, from before the collapse")
        write_model(loaded, base, trained, folder / "final")
        if stop.requested:
            raise Interrupted(stop.requested, steps, folder)
        summary = _summary(hooks, trainer)
    trained.eval()
    seconds = time.perf_counter() - started
    return GrpoResult(trained, summary, folder / "metrics.jsonl", folder / "final", seconds)


def _check(loaded: Loaded, targets: Sequence[Item], settings: GrpoSettings) -> None:
    from peft import PeftModel

    if isinstance(loaded.model, PeftModel):
        raise UserError(
            "GRPO starts a new adapter, without which the model is the reference, and this model brings one",
            where="model.adapter",
            fix="merge it into its base with `equipoise export`, and start from the merged model",
        )
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("GRPO here runs in a single process", fix="start it without torchrun or accelerate launch")
    if not targets:
        raise UserError("there is no target sentence to learn from", where="target.train")
    check_settings(loaded.model, settings.training())


def _identity(
    loaded: Loaded,
    targets: Sequence[Item],
    replay: Sequence[Item],
    curriculum: Curriculum,
    settings: GrpoSettings,
    seed: int,
    base: dict[str, Any],
) -> dict[str, Any]:
    adapter = adapter_digest(loaded.model)
    rows = [[item.id, [m.model_dump() for m in item.prompt], item.label, item.types] for item in (*targets, *replay)]
    return {
        "model": {"name": loaded.name, "fingerprint": base["fingerprint"], **({"adapter": adapter} if adapter else {})},
        "data": {"targets": len(targets), "replay": len(replay), "sha256": _hash(rows)},
        "curriculum": {"settings": repr(curriculum.settings), "sha256": _hash(curriculum.state_dict())},
        "training": settings.model_dump(mode="json"),
        "seed": seed,
    }


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


@contextmanager
def _hooks(
    folder: Path, settings: GrpoSettings, validate: Any, on_step: Any, keep_best: dict[str, Best]
) -> Iterator[Any]:
    from equipoise.training.grpo_trainer import GrpoHooks

    def by_step(row: dict[str, Any]) -> int:
        return row["step"]

    with ExitStack() as stack:

        def opened(name: str) -> Any:
            return stack.enter_context(journal.Journal(folder / f"{name}.jsonl", key=by_step))

        yield GrpoHooks(
            folder=folder,
            checkpoints=folder / "checkpoints",
            metrics=opened("metrics"),
            validations=opened("validation"),
            anomalies=Anomalies(opened("anomalies")),
            keep_checkpoints=settings.keep_checkpoints,
            validate=validate,
            keep_best=keep_best,
            on_step=on_step,
        )


def _trainer(
    model: Any,
    loaded: Loaded,
    rollouts: Rollouts,
    settings: GrpoSettings,
    precision: str,
    seed: int,
    hooks: Any,
    held_out: Sequence[Sequence[Message]],
    stop: StopRequest,
) -> Any:
    from datasets import Dataset
    from transformers.trainer_callback import PrinterCallback, ProgressCallback

    from equipoise.training.forward_kl import HeldOut
    from equipoise.training.grpo_trainer import CurriculumTrainer
    from equipoise.training.pace import Pace

    steps = rollouts.curriculum.total_steps
    # TRL counts rows of a data set; which prompts they stand for, the rollouts ask the curriculum
    rows = Dataset.from_dict({"prompt": [f"row {i}" for i in range(steps * settings.prompts_per_step)]})
    trainer = CurriculumTrainer(
        model=model,
        args=_arguments(settings, precision, hooks.checkpoints, seed, model.device.type, steps),
        train_dataset=rows,
        processing_class=loaded.tokenizer,
        peft_config=lora_config(model, settings.training()),
        callbacks=[Pace(settings.checkpoint_every, stop)],
        rollouts=rollouts,
        settings=settings,
        hooks=hooks,
        held_out=HeldOut(loaded.tokenizer, held_out, seed=seed, max_new_tokens=settings.max_new_tokens),
    )
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    return trainer


def _arguments(settings: GrpoSettings, precision: str, folder: Path, seed: int, device: str, steps: int) -> Any:
    """TRL's arguments: answers are drawn for each optimizer step, and nothing is logged or saved on its own account."""
    from trl.trainer.grpo_config import GRPOConfig

    return GRPOConfig(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=settings.prompts_per_step * settings.group // settings.accumulation,
        gradient_accumulation_steps=settings.accumulation,
        steps_per_generation=settings.accumulation,
        num_generations=settings.group,
        max_completion_length=settings.max_new_tokens,
        temperature=settings.temperature,
        beta=settings.beta,
        loss_type=settings.loss_type,
        scale_rewards=settings.scale_rewards,
        shuffle_dataset=False,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.scheduler,
        warmup_steps=settings.warmup_ratio,  # below 1 it is a share of all steps
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm or math.inf,  # 0: measured, not clipped
        activation_checkpointing=settings.gradient_checkpointing,
        seed=seed,
        data_seed=seed,
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        use_cpu=device == "cpu",
        dataloader_pin_memory=device == "cuda",
        ignore_data_skip=True,  # the rows are all alike
        save_strategy="no",  # `Pace` says when
        eval_strategy="no",
        logging_strategy="no",
        restore_callback_states_from_checkpoint=True,
        report_to=[],
        disable_tqdm=True,
        log_level="error",
    )


def _summary(hooks: Any, trainer: Any) -> Summary:
    rows = [row for row in hooks.metrics.rows if row["step"] <= trainer.state.global_step][-10:]

    def mean(name: str) -> float | None:
        values = [row[name] for row in rows if row[name] is not None]
        return sum(values) / len(values) if values else None

    forward = [row["forward_kl"] for row in hooks.validations.rows if row.get("forward_kl") is not None]
    return Summary(
        trainer.state.global_step,
        trainer.stopped,
        mean("reward"),
        mean("kl"),
        forward[-1] if forward else None,
        mean("equal_share"),
        len(hooks.anomalies.steps),
        tuple(trainer.warned),
    )
