"""Supervised fine-tuning with a token-weighted objective: from examples to a trained model in one call."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equipoise import journal
from equipoise.console import say
from equipoise.data.formatting import Formatted, render_all
from equipoise.errors import UserError
from equipoise.models.adapters import BASE_FILE, adapter_digest, base_note
from equipoise.models.loading import Loaded
from equipoise.models.quiet import quiet
from equipoise.models.tables import tables
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
from equipoise.training.best import MEAN_LOSS, Best
from equipoise.training.head import Objective, detach
from equipoise.training.interrupts import Interrupted, StopRequest
from equipoise.training.meter import Meter
from equipoise.training.packing import check_documents_stay_apart
from equipoise.training.settings import CommonSettings, ObjectiveSettings, TrainSettings

if TYPE_CHECKING:
    from equipoise.records import Example
    from equipoise.schedules.stopping import Verdict


@dataclass
class TrainResult:
    """What training leaves: the model in memory and, under `folder`, `final/`, `metrics.jsonl` and the rest."""

    model: Any = field(repr=False)
    tokenizer: Any = field(repr=False)
    steps: int
    metrics_path: Path
    anomalies: list[int]
    seconds: float
    final: Path
    dropped: list[tuple[str, str]] = field(default_factory=list)
    stopped: Verdict | None = None


def train(
    loaded: Loaded,
    examples: Sequence[Example] | Formatted,
    *,
    objective: ObjectiveSettings,
    settings: TrainSettings,
    folder: str | Path,
    seed: int,
    validate: Callable[[Any, int], dict[str, float]] | None = None,
    on_step: Callable[[dict[str, Any]], None] | None = None,
    keep_base: bool = False,
    token_rows: Sequence[int] = (),
    eval_steps: int | None = None,
    keep_best: Mapping[str, Best] | None = None,
    checkpoints_in: str | Path | None = None,
    example_losses: Callable[[Any, int], Sequence[float]] | None = None,
) -> TrainResult:
    """Train `loaded.model` on the answers of `examples`; a folder with a valid checkpoint of the same run is resumed.

    Args:
        examples: conversations, or what is rendered already.
        validate: called as `validate(model, step)` after each epoch and every `eval_steps` optimizer steps, in eval
            mode; its numbers go to `validation.jsonl`, and the random generators are put back afterwards.
        on_step: called with each row of `metrics.jsonl`.
        keep_base: train a copy, so that `loaded` can be used again.
        token_rows: ids of tokens whose embeddings train beside the adapter, in both tables. Without an adapter all do.
        keep_best: for each name, a folder of that name in `folder` holds the model of the best validation so far.
        checkpoints_in: where `checkpoint-N/` folders go; by default `checkpoints` in `folder`.
        example_losses: called like `validate`, for the loss of each validation example, always in the same order; by
            them `settings.stopping` sees overfitting, and the model of the lowest mean is kept in `best_loss/`.

    Raises:
        UserError: the data, model and settings do not go together, the folder holds another run, or training met too
            many non-finite steps or ran out of memory for good.
        Interrupted: SIGINT or SIGTERM; the step was finished and saved.
    """
    started = time.perf_counter()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    places = Path(checkpoints_in or folder / "checkpoints")
    precision = pick_precision(loaded.model, settings)
    check_settings(loaded.model, settings, token_rows)
    data = formatted(loaded.tokenizer, examples, settings)
    check_ids(loaded.model, ((name, row.input_ids) for name, row in zip(data.ids, data.rows)))
    if settings.packing:
        check_documents_stay_apart(base_of(loaded.model), settings.section)
    base = base_note(loaded.model, loaded.name)
    if is_main_process():
        checkpoints.claim(folder, identity(loaded, data, objective, settings, seed, base, token_rows))
    if data.dropped:
        say(f"{len(data.dropped)} examples left out, first: {data.dropped[0][0]} ({data.dropped[0][1]})")
    model = trainable(copy.deepcopy(loaded.model) if keep_base else loaded.model, settings)
    with ExitStack() as stack:
        stack.enter_context(quiet_training())
        hooks = stack.enter_context(step_hooks(folder, places, data.ids, settings, validate, on_step, example_losses))
        hooks.supervised = [row.supervised for row in data.rows]
        hooks.token_learning_rate = settings.token_learning_rate
        hooks.eval_steps, hooks.keep_best = eval_steps, dict(keep_best or {})
        if example_losses is not None:
            hooks.keep_best = {"best_loss": Best(MEAN_LOSS, higher_is_better=False), **hooks.keep_best}
        hooks.write_model = partial(write_model, loaded, base)
        stop = stack.enter_context(StopRequest())
        config = lora_config(model, settings, token_rows)
        trainer = _trainer(model, loaded.tokenizer, data, objective, settings, precision, config, seed, hooks, stop)
        carry_out(trainer, stop)
        trained = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    stopper = trainer.stopper
    stopped = None if stopper is None else stopper.rule.verdict
    seconds = time.perf_counter() - started
    metrics, skipped, steps = folder / "metrics.jsonl", hooks.anomalies.steps, trainer.state.global_step
    return TrainResult(
        trained, loaded.tokenizer, steps, metrics, skipped, seconds, folder / "final", data.dropped, stopped=stopped
    )


# ---- checks and identity


def formatted(tokenizer: Any, examples: Sequence[Example] | Formatted, settings: TrainSettings) -> Formatted:
    """The examples rendered as the settings say, if they are not yet."""
    if isinstance(examples, Formatted):
        return examples
    return render_all(
        tokenizer,
        examples,
        train_on_prompt=settings.train_on_prompt,
        max_length=settings.max_length,
        max_bad_share=settings.max_bad_share,
    )


def check_ids(model: Any, rows: Iterable[tuple[str, Sequence[int]]]) -> None:
    """Check the token ids of rows by name.

    Raises:
        UserError: the model does not know one of them.
    """
    known = len(tables(model)[0])
    for name, ids in rows:
        if max(ids) >= known:
            raise UserError(
                f"example {name} has token id {max(ids)}, but the model knows {known} tokens",
                fix="use the tokenizer that belongs to this model",
            )


def model_identity(loaded: Loaded, base: dict[str, Any]) -> dict[str, Any]:
    """What a run's folder remembers of the model that it started from."""
    adapter = adapter_digest(loaded.model)
    return {"name": loaded.name, "fingerprint": base["fingerprint"], **({"adapter": adapter} if adapter else {})}


def identity(
    loaded: Loaded,
    data: Formatted,
    objective: ObjectiveSettings,
    settings: TrainSettings,
    seed: int,
    base: dict[str, Any],
    token_rows: Sequence[int] = (),
) -> dict[str, Any]:
    """What a run's folder remembers of how it was started, so that a resume finds out what has changed."""
    text = json.dumps([[row.input_ids, row.labels] for row in data.rows])
    return {
        "model": model_identity(loaded, base),
        "data": {"examples": len(data.rows), "sha256": hashlib.sha256(text.encode()).hexdigest()},
        "objective": objective.model_dump(mode="json"),
        "training": settings.model_dump(mode="json"),
        "seed": seed,
        **({"token_rows": sorted(token_rows)} if token_rows else {}),
    }


# ---- the trainer


def _trainer(
    model: Any,
    tokenizer: Any,
    data: Formatted,
    objective: ObjectiveSettings,
    settings: TrainSettings,
    precision: str,
    adapter: Any,
    seed: int,
    hooks: Any,
    stop: StopRequest,
) -> Any:
    from transformers.trainer_callback import PrinterCallback, ProgressCallback
    from trl.trainer.sft_config import SFTConfig

    from equipoise.objectives.weighting import weighting
    from equipoise.training.pace import Pace
    from equipoise.training.trainer import FusedTrainer

    rule = weighting(objective.name, **objective.params)
    rows = len(tables(model)[-1])
    arguments = trainer_arguments(settings, precision, hooks.folder, hooks.checkpoints, seed, model.device.type)
    trainer = FusedTrainer(
        model=model,
        args=SFTConfig(
            **arguments,
            max_length=settings.max_length,
            packing=settings.packing,
            dataset_kwargs={"skip_prepare_dataset": True},
        ),
        train_dataset=tokenised_dataset(data, settings),
        processing_class=tokenizer,
        peft_config=adapter,
        callbacks=[Pace(settings.checkpoint_every, stop), *_stoppers(settings, hooks.supervised)],
        objective=Objective(rule, objective.detach_weights, objective.normalize),
        meter=Meter(rows, objective),
        hooks=hooks,
    )
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    return trainer


def _stoppers(settings: TrainSettings, supervised: Sequence[int]) -> list[Any]:
    from equipoise.training.stopping import StoppingCallback

    if settings.stopping is None:
        return []
    return [StoppingCallback(settings.stopping.model_dump(), len(supervised), sum(supervised))]


@contextmanager
def step_hooks(
    folder: Path,
    places: Path,
    ids: list[str],
    settings: CommonSettings,
    validate: Any,
    on_step: Any,
    losses: Any = None,
) -> Iterator[Any]:
    """The journals of a run in `folder`, open, and what is called at its steps."""
    from equipoise.training.stepping import StepHooks

    def by_step(row: dict[str, Any]) -> int:
        return row["step"]

    with ExitStack() as stack:

        def opened(name: str, key: Any = by_step) -> Any:
            book = journal.Journal(folder / f"{name}.jsonl", key=key) if is_main_process() else Unwritten()
            return stack.enter_context(book)

        yield StepHooks(
            folder=folder,
            checkpoints=places,
            metrics=opened("metrics"),
            splits=opened("splits", None),  # a step can be split twice
            anomalies=Anomalies(opened("anomalies")),
            ids=ids,
            section=settings.section,
            keep_checkpoints=settings.keep_checkpoints,
            logging_steps=settings.logging_steps,
            validate=validate,
            validations=None if validate is None and losses is None else opened("validation"),
            example_losses=losses,
            on_step=on_step if is_main_process() else None,
            stops=opened("stopping") if isinstance(settings, TrainSettings) and settings.stopping else None,
        )


def carry_out(trainer: Any, stop: StopRequest) -> None:
    """Train from the newest valid checkpoint to the end, give the model its own forward back, and write `final/`.

    Raises:
        Interrupted: a signal came; the step was finished and saved, and after the last one `final/` is written too.
    """
    hooks = trainer.hooks
    resume = checkpoints.newest(hooks.checkpoints)
    if resume is not None:
        step = checkpoints.step_of(resume)
        say(f"resuming after step {step} from {resume}")
        hooks.anomalies.restore(hooks.anomalies.journal.rows, step)
    trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    trained = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    steps = trainer.state.global_step
    ended = steps == trainer.state.max_steps or trainer.stopped_early
    if stop.requested and ended:
        trainer.save_end()
    detach(base_of(trained))
    if ended and trainer.args.should_save:
        hooks.write_model(trained, hooks.folder / "final")
    if stop.requested:
        raise Interrupted(stop.requested, steps, hooks.folder)
    trained.eval()


class Unwritten(AbstractContextManager):
    """The journal of a process that is not the main one: a file has one writer."""

    rows: tuple[dict[str, Any], ...] = ()

    def append(self, row: dict[str, Any]) -> None:
        """Write nothing."""

    def __exit__(self, *_: object) -> None: ...


def is_main_process() -> bool:
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


def write_model(loaded: Loaded, base: dict[str, Any], trained: Any, target: Path) -> None:
    """The model or adapter, its tokenizer and a note of its base; whole or not there at all."""
    from equipoise.training.durable import save_pretrained

    with journal.atomic_directory(target) as aside:
        save_pretrained(trained, aside)
        loaded.tokenizer.save_pretrained(str(aside))
        journal.write_json(Path(aside) / BASE_FILE, base)
