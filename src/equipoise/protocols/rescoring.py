"""A finished knowledge update scored again from the answers that its run directory holds; no model is loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

from equipoise.config import load_yaml, resolve
from equipoise.console import progress, say
from equipoise.errors import UserError
from equipoise.evaluation.drift import summarise_drift
from equipoise.evaluation.functions import TASK, passes
from equipoise.evaluation.knowledge import prediction, summarise
from equipoise.journal import read_journal, write_json, write_jsonl
from equipoise.pipelines.knowledge_data import KnowledgeData, load_data
from equipoise.pipelines.knowledge_measures import Measures
from equipoise.pipelines.knowledge_plan import updates_of_run
from equipoise.pipelines.settings import ProtocolRecipe
from equipoise.protocols.knowledge import analyse
from equipoise.records import Drift, Prediction
from equipoise.runs import Run

SCORES = ("score", "exact", "call", "published_score")
Grader = Callable[[Prediction], Prediction]


def rescore(folder: Path) -> dict[str, Any]:
    """Score the stored answers of every finished cell again, then analyse the run again; return the analysis.

    Where the recipe runs unit tests, the code that the models wrote is executed once more.

    Raises:
        UserError: the folder holds no run of a knowledge update, its data have changed, or nothing in it is finished.
    """
    folder = folder.resolve()
    with chdir(Run.open(folder).working_directory):  # relative paths of the data start there
        return _rescore(folder)


def _rescore(folder: Path) -> dict[str, Any]:
    manifest = Run.open(folder).manifest
    pipeline = load_yaml(folder / "config.yaml").get("pipeline", "knowledge_update")
    if pipeline != "knowledge_update":
        raise UserError(
            f"answers of a {pipeline} run are not scored again; those of a knowledge_update run are",
            where=str(folder),
            fix="the command that made this run analyses it again, if it is given once more",
        )
    recipe = resolve(ProtocolRecipe, folder / "config.yaml")
    data = load_data(recipe.data)
    run = Run.open_or_create(
        folder, recipe, data_hashes=data.hashes, seed=manifest["seed"], device=manifest["device"]
    )  # refuses data that have changed
    with run.journal("cells.jsonl", key=lambda row: row["cell"]) as journal:
        cells = [row for row in journal.rows if "failed" not in row]
        if not cells:
            raise UserError(
                "no cell of this run is finished", where=str(folder), fix="run the command that started it again"
            )
        grade, changed = _grader(recipe, updates_of_run(recipe.data, data, folder)), 0
        total = sum(row["scored"] for row in cells)
        with progress(total, "scored again") as bar:
            for row in cells:
                changed += _rescore_cell(folder / "cells" / row["cell"], grade, recipe, bar.advance)
        say(f"{total} answers of {len(cells)} cells scored again; the scores of {changed} changed")
        return analyse(recipe, folder)


def _grader(recipe: ProtocolRecipe, data: KnowledgeData) -> Grader:
    """Return what scores an answer of the recipe anew."""
    how, stated = recipe.evaluation, recipe.evaluation.reads_prose(recipe.model.path)
    items = {
        (task.name, item.id, item.phrasing, item.form): item
        for task in Measures(recipe, data).tasks
        for item in task.items
    }
    functions = {task.id: task for task in data.functions}

    def grade(row: Prediction) -> Prediction:
        if row.task == TASK and row.item in functions:
            return row.model_copy(update={"score": passes(functions[row.item], row.output)})
        item = items[row.task, row.item, row.phrasing, row.form]
        return prediction(row.task, item, row.output, row.method, row.seed, how, stated=stated, cut=row.cut)

    return grade


def _rescore_cell(folder: Path, grade: Grader, recipe: ProtocolRecipe, on_answer: Callable[[], None]) -> int:
    """Rewrite answers and results of a cell; return how many answers have other scores now."""
    before = read_journal(folder / "predictions.jsonl").rows
    after = []
    for row in _answers(folder / "predictions.jsonl", before):
        try:
            after.append(grade(row).model_dump())
        except KeyError:
            raise UserError(
                f"the recipe's data have no item {row.item!r} of the task {row.task!r}, phrasing {row.phrasing}",
                where=str(folder / "predictions.jsonl"),
                fix="restore the rows that this run was made with",
            ) from None
        on_answer()
    moved = [Drift(**row) for row in read_journal(folder / "drift.jsonl").rows]
    results = summarise([Prediction(**row) for row in after], scoring=recipe.evaluation.scoring)
    write_jsonl(folder / "predictions.jsonl", after)
    write_json(folder / "results.json", [row.model_dump() for row in [*results, *summarise_drift(moved)]])
    return sum(old != new for old, new in zip(before, after, strict=True))


def _answers(path: Path, rows: list[dict[str, Any]]) -> Iterator[Prediction]:
    """Read answers, whatever stands in their scores."""
    for number, row in enumerate(rows, 1):
        try:
            yield Prediction(**{name: value for name, value in row.items() if name not in SCORES}, score=0.0)
        except (ValueError, TypeError) as error:
            raise UserError(
                f"this is no stored answer: {error}", where=f"{path}:{number}", fix="restore the file from a copy"
            ) from None
