"""What a run decides once, with the untrained model at hand: rows, schedule and thresholds that its recipe leaves open.

Each decision is written into the run directory, so that a resume makes none of them again.
"""

import json
from dataclasses import replace
from pathlib import Path

from equipoise.console import progress, say, warn
from equipoise.errors import UserError
from equipoise.journal import write_json
from equipoise.models.loading import Loaded
from equipoise.pipelines import general, selection, thresholds
from equipoise.pipelines.knowledge_data import KnowledgeData, steps_of_an_epoch, training_rows
from equipoise.pipelines.settings import DataSettings, ProtocolRecipe
from equipoise.runs import SCHEDULE, SELECTION
from equipoise.training.recommended import Schedule, schedule


def settle(
    recipe: ProtocolRecipe, data: KnowledgeData, loaded: Loaded, folder: Path | None
) -> tuple[ProtocolRecipe, KnowledgeData]:
    """Return recipe and data with nothing left open, and write what was decided into `folder`.

    Args:
        folder: a run directory, which may hold earlier decisions; None to decide without writing, for a preview.

    Raises:
        UserError: the model prefers no outdated answer, or no prompt leaves it room to write.
    """
    data = select_updates(recipe.data, data, loaded, folder)
    if recipe.data.rehearse_general:
        answered = general.settle(loaded, recipe.data.rehearse_general, folder)
        data = replace(data, rehearsed=data.rehearsed + answered)
    if recipe.training.is_auto:
        recipe = _with_schedule(recipe, _schedule(recipe, data, loaded, folder))
    rates = thresholds.wanted(recipe.arms)
    if folder is None:  # any number shows what would be trained
        return recipe.model_copy(update={"arms": thresholds.with_taus(recipe.arms, dict.fromkeys(rates, 1.0))}), data
    thresholds.settle(loaded, training_rows(recipe, data), rates, folder, seed=recipe.seed)
    return settled(recipe, folder), data


def settled(recipe: ProtocolRecipe, folder: Path) -> ProtocolRecipe:
    """Return the recipe with the thresholds that its run in `folder` found."""
    return recipe.model_copy(update={"arms": thresholds.with_taus(recipe.arms, thresholds.read(folder))})


def select_updates(settings: DataSettings, data: KnowledgeData, loaded: Loaded, folder: Path | None) -> KnowledgeData:
    """Return the data with the updates that `data.select` keeps, or as they are without it.

    Args:
        folder: as in `settle`.

    Raises:
        UserError: the model prefers no outdated answer.
    """
    if settings.select is None:
        return data
    chosen = _selection(settings.select, settings.limit, data, loaded, folder)
    return replace(data, updates=chosen.of(data.updates), notes=[*data.notes, chosen.note()])


def updates_of_run(settings: DataSettings, data: KnowledgeData, folder: Path) -> KnowledgeData:
    """Return the data with the updates that the run in `folder` selected, or as they are without `data.select`.

    Raises:
        UserError: the run's selection is missing.
    """
    if settings.select is None:
        return data
    chosen = selection.remembered(folder / SELECTION, settings.select, settings.limit)
    if chosen is None:
        raise UserError(
            "the updates that this run selected are missing",
            where=str(folder / SELECTION),
            fix="run the command that started it again",
        )
    return replace(data, updates=chosen.of(data.updates))


def _selection(
    wanted: selection.SelectSettings, limit: int | None, data: KnowledgeData, loaded: Loaded, folder: Path | None
) -> selection.Selection:
    path = folder / SELECTION if folder else None
    if path is not None and (known := selection.remembered(path, wanted, limit)):
        return known
    say("asking the model which updates it contradicts")
    with progress(2 * len(data.updates), "answers compared") as bar:
        chosen = selection.select(loaded, data.updates, wanted, limit=limit, on_batch=bar.advance)
    say(chosen.note())
    if path is not None:
        selection.remember(chosen, path)
    return chosen


def _schedule(recipe: ProtocolRecipe, data: KnowledgeData, loaded: Loaded, folder: Path | None) -> Schedule:
    path = folder / SCHEDULE if folder else None
    if path is not None and path.exists():
        return Schedule(**json.loads(path.read_text(encoding="utf-8")))
    rows = len(training_rows(recipe, data))
    parameters = sum(parameter.numel() for parameter in loaded.model.parameters())
    found = schedule(parameters, rows, steps_of_an_epoch(rows, recipe.training))
    say(f"auto: {found.note}")
    if found.warning:
        warn(found.warning)
    if path is not None:
        write_json(path, found._asdict())
    return found


def _with_schedule(recipe: ProtocolRecipe, found: Schedule) -> ProtocolRecipe:
    given = recipe.training
    chosen = {
        "learning_rate": found.learning_rate if given.learning_rate == "auto" else given.learning_rate,
        "epochs": found.epochs if given.epochs == "auto" else given.epochs,
    }
    return recipe.model_copy(update={"training": given.model_copy(update=chosen)})
