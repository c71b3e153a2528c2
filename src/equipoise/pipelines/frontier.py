"""One training of a frontier, scored at several epochs on its way."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from equipoise.data.formatting import Formatted, render_all
from equipoise.errors import UserError
from equipoise.evaluation.drift import Reference
from equipoise.evaluation.knowledge import Item, Task, evaluate
from equipoise.journal import write_jsonl
from equipoise.models.loading import Loaded
from equipoise.pipelines import general
from equipoise.pipelines.frontier_settings import FrontierRecipe
from equipoise.pipelines.knowledge_data import KnowledgeData, load_data, steps_of_an_epoch, tasks
from equipoise.pipelines.knowledge_plan import select_updates
from equipoise.pipelines.knowledge_update import UNTRAINED
from equipoise.pipelines.knowledge_work import ASK, TRAIN, Asking, OnWork, training_work
from equipoise.records import STABILITY, Drift, Example, Prediction
from equipoise.schedules.stopping import Verdict
from equipoise.training.assembly import check_settings
from equipoise.training.sft import train

READING = ("task", "item", "phrasing", "output", "score", "published_score")  # the questions are the untrained model's


@dataclass(frozen=True)
class FrontierData:
    """The rows of a frontier, and what is measured on them.

    Attributes:
        known: `keep` is what no arm trains on.
        rehearsed: rows to keep that a rehearsing arm trains on.
        general: general questions that come with the package, if they are asked.
        reference: the untrained model on held-out texts, once the data are settled and if drift is measured.
    """

    known: KnowledgeData
    rehearsed: list[Example]
    general: Task | None = None
    reference: Reference | None = None

    def settled(self, recipe: FrontierRecipe, loaded: Loaded, folder: Path | None) -> Self:
        """Take what is needed of the untrained model before anything is trained: its choice of updates, its states.

        Args:
            folder: a run directory, which may hold an earlier choice; None to choose without writing.
        """
        known, reference = select_updates(recipe.data, self.known, loaded, folder), None
        if folder is not None and recipe.evaluation.measures_drift(recipe.model.path):
            reference = Reference(loaded, known.texts, copy_head=recipe.training.lora is None)
        return replace(self, known=known, reference=reference)

    def drift(self, model: Any, method: str, seed: int) -> list[Drift]:
        """Return how far a model has moved on each held-out text; nothing where that is not measured."""
        return [] if self.reference is None else self.reference.measure(model, method=method, seed=seed)

    def tasks(self, *, rehearsed: bool) -> list[Task]:
        """Lay out what is asked: correction, what is to be kept, and on demand the rows that are rehearsed."""
        asked = [task for task in tasks(self.known) if task.name != "generalisation"]
        if self.general is not None:
            asked.append(self.general)
        if rehearsed:
            (kept,) = (t for t in tasks(replace(self.known, keep=self.rehearsed)) if t.name == "locality")
            asked.append(Task("rehearsed", kept.items))
        return asked

    def rows(self, recipe: FrontierRecipe, arm: str) -> list[Example]:
        """What an arm trains on."""
        return self.known.updates + (self.rehearsed if recipe.arms[arm].rehearse else [])


def load_frontier_data(recipe: FrontierRecipe) -> FrontierData:
    """Read the rows; if any arm rehearses, every second row to keep is for that, and the others measure all arms.

    Raises:
        UserError: a source cannot be read, or there is too little to choose a setting on one half and report the other.
    """
    known = load_data(recipe.data)
    if recipe.rehearses and len(known.keep) < 4:
        raise UserError(
            f"{len(known.keep)} rows to keep: every second is rehearsed, and the others are cut in two halves again",
            where="data.keep",
            fix="give at least four, or let no arm rehearse",
        )
    rehearsed = known.keep[::2] if recipe.rehearses else []
    known = replace(known, keep=known.keep[1::2] if recipe.rehearses else known.keep)
    for field, rows in (("updates", known.updates), ("keep", known.keep), ("skills", known.skills)):
        if len(rows) == 1 or (field == "updates" and not rows):
            raise UserError(
                f"{len(rows)} row of {field} to score: a setting is chosen on one half and reported on the other",
                where=f"data.{field}",
                fix="give at least two",
            )
    if not known.keep and not known.skills:
        raise UserError("there is nothing to keep", where="data.keep", fix="give data.keep or data.skills")
    asked = general.task(row.prompt for row in known.updates + known.keep + rehearsed)
    return FrontierData(known, rehearsed, asked if recipe.evaluation.asks_general(recipe.model.path) else None)


@dataclass(frozen=True)
class Readings:
    """When one training is scored.

    Attributes:
        epoch: its steps.
        due: names of the readings on the way, by step.
        last: name of the one at the end.
    """

    epoch: int
    due: dict[int, str]
    last: str

    @classmethod
    def of(cls, recipe: FrontierRecipe, arm: str, rows: int) -> Self:
        """The readings of an arm that trains on so many rows; a rule that stops it chooses its only one."""
        epoch, stops = steps_of_an_epoch(rows, recipe.training), recipe.arms[arm].stopping is not None
        last = max(recipe.score_at)
        due = {} if stops else {n * epoch: f"epoch-{n}" for n in recipe.score_at if n < last}
        return cls(epoch, due, "end" if stops else f"epoch-{last}")

    @property
    def count(self) -> int:
        """How often the training is scored."""
        return len(self.due) + 1

    def notes(self, answers: int, steps: int, stopped: Verdict | None) -> dict[str, Any]:
        """What is noted of a training that took so many steps, with so many answers in each reading."""
        return {
            "scored": answers * self.count,
            "epochs": {name: step / self.epoch for step, name in {**self.due, steps: self.last}.items()},
            "stopped": None if stopped is None else stopped.sentence,
        }


def render_arm(loaded: Loaded, recipe: FrontierRecipe, data: FrontierData, arm: str) -> Formatted:
    """The rows of an arm as they are trained on.

    Raises:
        UserError: too many rows cannot be trained on, or the settings do not fit the model.
    """
    settings = recipe.settings_of(arm, recipe.rates_of(arm)[0])
    check_settings(loaded.model, settings)
    return render_all(
        loaded.tokenizer,
        data.rows(recipe, arm),
        train_on_prompt=settings.train_on_prompt,
        max_length=settings.max_length,
        max_bad_share=settings.max_bad_share,
    )


def work(loaded: Loaded, recipe: FrontierRecipe, data: FrontierData, arm: str | None) -> dict[str, float]:
    """Return how much work a training of an arm is, by kind; without an arm, scoring the model as it came."""
    talks = arm is None and recipe.evaluation.reads_prose(loaded.name)
    rehearsed = recipe.rehearses if arm is None else bool(recipe.arms[arm].rehearse)
    once = Asking(loaded.tokenizer, recipe.evaluation, data.tasks(rehearsed=rehearsed), talks=talks).total
    if arm is None:
        return {ASK: once}
    rows = render_arm(loaded, recipe, data, arm)
    plan = Readings.of(recipe, arm, len(rows.rows))
    return {TRAIN: training_work(rows, max(recipe.score_at)), ASK: plan.count * once}


def told_by_share(
    loaded: Loaded,
    recipe: FrontierRecipe,
    asked: Sequence[Task],
    tell: Callable[[float], None],
    *,
    talks: bool = False,
) -> Callable[[Sequence[Item]], None]:
    """Return what hears of answered items and passes them on as a share of the work of a reading."""
    asking = Asking(loaded.tokenizer, recipe.evaluation, asked, talks=talks)
    return lambda items: tell(sum(map(asking.of, items)) / asking.total)


def score_before(
    loaded: Loaded, recipe: FrontierRecipe, data: FrontierData, folder: Path, on_work: OnWork = lambda kind, share: None
) -> dict[str, Any]:
    """Score the model as it came, with every question written out."""
    asked, talks = data.tasks(rehearsed=recipe.rehearses), recipe.evaluation.reads_prose(loaded.name)
    tell = told_by_share(loaded, recipe, asked, lambda share: on_work(ASK, share), talks=talks)
    predictions = evaluate(loaded, asked, method=UNTRAINED, seed=0, how=recipe.evaluation, on_answers=tell)
    write_jsonl(folder / "predictions.jsonl", (row.model_dump() for row in predictions))
    write_reading(folder, "epoch-0", predictions, data.drift(loaded.model, UNTRAINED, 0))
    return {"scored": len(predictions), "epochs": {"epoch-0": 0.0}}


def train_and_score(
    loaded: Loaded,
    recipe: FrontierRecipe,
    data: FrontierData,
    folder: Path,
    *,
    arm: str,
    rate: float,
    seed: int,
    on_step: Callable[[dict[str, Any]], None] | None = None,
    on_work: OnWork = lambda kind, share: None,
    keep_base: bool = True,
) -> dict[str, Any]:
    """Train an arm at one learning rate, and score it after each epoch of `score_at`, or where its rule stopped it.

    Answers go to `epoch-N.jsonl`, or `end.jsonl`, as soon as they are there: a training that is resumed from a
    checkpoint does not come by its earlier epochs again.

    Returns:
        `scored` answers, `epochs` by the name of their file, and `stopped`, the rule's sentence.
    """
    settings, rows = recipe.settings_of(arm, rate), render_arm(loaded, recipe, data, arm)
    plan, asked = Readings.of(recipe, arm, len(rows.rows)), data.tasks(rehearsed=bool(recipe.arms[arm].rehearse))
    method = f"{arm}@{rate:g}"

    def read(model: Any, step: int) -> dict[str, float]:
        return score(model, plan.due[step]) if step in plan.due else {}

    tell = told_by_share(loaded, recipe, asked, lambda share: on_work(ASK, share / plan.count))

    def score(model: Any, name: str) -> dict[str, float]:
        answering = replace(loaded, model=model)
        predictions = evaluate(answering, asked, method=method, seed=seed, how=recipe.evaluation, on_answers=tell)
        moved = data.drift(model, method, seed)
        on_work(ASK, 0)  # the time that measuring the drift took
        return write_reading(folder, name, predictions, moved)

    result = train(
        loaded,
        rows,
        objective=recipe.arms[arm].objective,
        settings=settings,
        folder=folder,
        seed=seed,
        validate=read,
        on_step=on_step,
        keep_base=keep_base,
    )
    score(result.model, plan.last)
    return plan.notes(sum(len(task.items) for task in asked), result.steps, result.stopped)


def write_reading(
    folder: Path, name: str, predictions: Sequence[Prediction], moved: Sequence[Drift]
) -> dict[str, float]:
    """Write what was answered and how far the model has moved; return what of it goes to `validation.jsonl`.

    The stability of a text is exp(-drift): 1 for the untrained model, and the more is kept, the nearer to it.
    """
    rows = [row.model_dump(include=set(READING)) for row in predictions]
    blank = {"phrasing": 0, "output": "", "published_score": None}
    rows += [{"task": STABILITY, "item": row.text, "score": math.exp(-row.kl)} | blank for row in moved]
    write_jsonl(folder / f"{name}.jsonl", rows)
    right = [row.score for row in predictions if row.task == "correction"]
    return {"correction": sum(right) / len(right)}
