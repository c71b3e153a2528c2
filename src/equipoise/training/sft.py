"""Supervised fine-tuning with a token-weighted objective: from examples to a trained model in one call."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equipoise import journal
from equipoise.console import say
from equipoise.data.formatting import Formatted, render_all
from equipoise.errors import UserError
from equipoise.models.adapters import BASE_FILE, fingerprint
from equipoise.models.loading import Loaded
from equipoise.models.quiet import quiet
from equipoise.training import checkpoints
from equipoise.training.anomalies import Anomalies
from equipoise.training.assembly import (
    base_of,
    check_settings,
    lora_config,
    pick_precision,
    tokenised_dataset,
    trainable,
    trainer_arguments,
)
from equipoise.training.head import Objective, detach
from equipoise.training.interrupts import Interrupted, StopRequest
from equipoise.training.meter import Meter
from equipoise.training.packing import check_documents_stay_apart
from equipoise.training.settings import ObjectiveSettings, TrainSettings

if TYPE_CHECKING:
    from equipoise.records import Example


@dataclass
class TrainResult:
    """What training leaves: the model in memory and, under `folder`, `final/`, `metrics.jsonl` and the rest."""

    model: Any
    tokenizer: Any
    steps: int
    metrics_path: Path
    anomalies: list[int]
    seconds: float
    final: Path
    dropped: list[tuple[str, str]] = field(default_factory=list)


def train(
    loaded: Loaded,
    examples: Sequence[Example],
    *,
    objective: ObjectiveSettings,
    settings: TrainSettings,
    folder: str | Path,
    seed: int,
    validate: Callable[[Any, int], dict[str, float]] | None = None,
    on_step: Callable[[dict[str, Any]], None] | None = None,
    keep_base: bool = False,
) -> TrainResult:
    """Train `loaded.model` on the answers of `examples`; a folder with a valid checkpoint of the same run is resumed.

    Args:
        validate: called as `validate(model, step)` after each epoch, in eval mode; its numbers go to
            `validation.jsonl`, and the random generators are put back afterwards.
        on_step: called with each row of `metrics.jsonl`.
        keep_base: train a copy, so that `loaded` can be used again.

    Raises:
        UserError: the data, model and settings do not go together, the folder holds another run, or training met too
            many non-finite steps or ran out of memory for good.
        Interrupted: SIGINT or SIGTERM; the step was finished and saved.
    """
    started = time.perf_counter()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    precision = pick_precision(loaded.model, settings)
    check_settings(loaded.model, settings)
    data = render_all(
        loaded.tokenizer,
        examples,
        train_on_prompt=settings.train_on_prompt,
        max_length=settings.max_length,
        max_bad_share=settings.max_bad_share,
    )
    _check_labels(loaded.model, data)
    if settings.packing:
        check_documents_stay_apart(base_of(loaded.model))
    base = fingerprint(loaded.model)
    if _is_main_process():
        checkpoints.claim(folder, _identity(loaded, data, objective, settings, seed, base))
    if data.dropped:
        say(f"{len(data.dropped)} examples left out, first: {data.dropped[0][0]} ({data.dropped[0][1]})")
    model = trainable(copy.deepcopy(loaded.model) if keep_base else loaded.model, settings)
    with ExitStack() as stack:
        stack.enter_context(quiet_training())
        hooks = stack.enter_context(_hooks(folder, data, settings, validate, on_step))
        stop = stack.enter_context(StopRequest())
        trainer = _trainer(model, loaded.tokenizer, data, objective, settings, precision, folder, seed, hooks, stop)
        resume = checkpoints.newest(folder / "checkpoints")
        if resume is not None:
            step = checkpoints.step_of(resume)
            say(f"resuming after step {step} from {resume}")
            hooks.anomalies.restore(hooks.anomalies.journal.rows, step)
        trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
        trained = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
        steps = trainer.state.global_step
        if stop.requested and steps < trainer.state.max_steps:
            raise Interrupted(stop.requested, steps, folder)
        detach(base_of(trained))
        final = _write_final(trainer, trained, loaded, base, folder)
    trained.eval()
    seconds = time.perf_counter() - started
    return TrainResult(
        trained, loaded.tokenizer, steps, folder / "metrics.jsonl", hooks.anomalies.steps, seconds, final, data.dropped
    )


# ---- checks and identity


def _check_labels(model: Any, data: Formatted) -> None:
    rows = model.get_input_embeddings().weight.shape[0]
    for name, row in zip(data.ids, data.rows):
        if max(row.input_ids) >= rows:
            raise UserError(
                f"example {name} has token id {max(row.input_ids)}, but the model knows {rows} tokens",
                fix="use the tokenizer that belongs to this model",
            )


def _identity(
    loaded: Loaded, data: Formatted, objective: ObjectiveSettings, settings: TrainSettings, seed: int, base: str
) -> dict[str, Any]:
    text = json.dumps([[row.input_ids, row.labels] for row in data.rows])
    return {
        "model": {"name": loaded.name, "fingerprint": base},
        "data": {"examples": len(data.rows), "sha256": hashlib.sha256(text.encode()).hexdigest()},
        "objective": objective.model_dump(mode="json"),
        "training": settings.model_dump(mode="json"),
        "seed": seed,
    }


# ---- the trainer


def _trainer(
    model: Any,
    tokenizer: Any,
    data: Formatted,
    objective: ObjectiveSettings,
    settings: TrainSettings,
    precision: str,
    folder: Path,
    seed: int,
    hooks: Any,
    stop: StopRequest,
) -> Any:
    from transformers.trainer_callback import PrinterCallback, ProgressCallback

    from equipoise.objectives.weighting import weighting
    from equipoise.training.pace import Pace
    from equipoise.training.trainer import FusedTrainer

    rule = weighting(objective.name, **objective.params)
    tau = float(objective.params.get("tau", 5.0))
    rows = model.get_output_embeddings().weight.shape[0]
    trainer = FusedTrainer(
        model=model,
        args=trainer_arguments(settings, precision, folder, seed, model.device.type),
        train_dataset=tokenised_dataset(data, settings),
        processing_class=tokenizer,
        peft_config=lora_config(model, settings),
        callbacks=[Pace(settings.checkpoint_every, stop)],
        objective=Objective(rule, objective.detach_weights, objective.normalize),
        meter=Meter(rows, tau, float(objective.params.get("eps", 1e-6))),
        hooks=hooks,
    )
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    return trainer


@contextmanager
def _hooks(folder: Path, data: Formatted, settings: TrainSettings, validate: Any, on_step: Any) -> Iterator[Any]:
    from equipoise.training.trainer import StepHooks

    def by_step(row: dict[str, Any]) -> int:
        return row["step"]

    with ExitStack() as stack:

        def opened(name: str, key: Any = by_step) -> Any:
            book = journal.Journal(folder / f"{name}.jsonl", key=key) if _is_main_process() else Unwritten()
            return stack.enter_context(book)

        yield StepHooks(
            folder=folder,
            metrics=opened("metrics"),
            splits=opened("splits", None),  # a step can be split twice
            anomalies=Anomalies(opened("anomalies")),
            ids=data.ids,
            keep_checkpoints=settings.keep_checkpoints,
            logging_steps=settings.logging_steps,
            validate=validate,
            validations=None if validate is None else opened("validation"),
            on_step=on_step if _is_main_process() else None,
        )


class Unwritten(AbstractContextManager):
    """The journal of a process that is not the main one: a file has one writer."""

    rows: tuple[dict[str, Any], ...] = ()

    def append(self, row: dict[str, Any]) -> None:
        """Write nothing."""

    def __exit__(self, *_: object) -> None: ...


def _is_main_process() -> bool:
    return int(os.environ.get("RANK", "0")) == 0


@contextmanager
def quiet_training() -> Iterator[None]:
    """No progress bars or advice of the libraries' own while we report."""
    import datasets

    bars = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        with quiet():
            yield
    finally:
        if not bars:
            datasets.enable_progress_bars()


def _write_final(trainer: Any, trained: Any, loaded: Loaded, base: str, folder: Path) -> Path:
    from equipoise.training.trainer import save_pretrained

    final = folder / "final"
    if not trainer.args.should_save:
        return final
    with journal.atomic_directory(final) as aside:
        save_pretrained(trained, aside)
        loaded.tokenizer.save_pretrained(str(aside))
        journal.write_json(Path(aside) / BASE_FILE, {"name": loaded.name, "fingerprint": base})
    return final
