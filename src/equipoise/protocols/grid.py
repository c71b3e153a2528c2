"""A grid of arms and seeds on one base model: every cell is journalled, a killed grid resumes, no cell runs twice."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from equipoise.console import progress, say
from equipoise.models.loading import Loaded, load_model
from equipoise.models.settings import ModelSettings
from equipoise.objectives.weighting import weighting
from equipoise.pipelines.knowledge_update import (
    UNTRAINED,
    KnowledgeData,
    check_training,
    load_data,
    run_cell,
    score_untrained,
    step_count,
)
from equipoise.pipelines.settings import ProtocolRecipe
from equipoise.protocols.collect import finish
from equipoise.runs import Run
from equipoise.training.settings import ObjectiveSettings

OnStep = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Cell:
    """One arm with one seed, in some grids at one learning rate; the untrained model is one too, to compare with."""

    arm: str
    seed: int
    rate: float | None = None

    @property
    def name(self) -> str:
        setting = self.arm if self.rate is None else f"{self.arm}@{self.rate:g}"
        return setting if self.arm == UNTRAINED else f"{setting}/seed-{self.seed}"


@dataclass(frozen=True)
class Grid:
    """What is done in which cells.

    Attributes:
        check: finds out before anything is written whether the loaded model will do.
        steps: optimizer steps of a cell, for progress.
        work: does a cell in its folder and returns what to note of it, with how many answers were `scored`; the last
            argument says whether the model is still needed afterwards.
    """

    recipe: BaseModel
    model: ModelSettings
    cells: Sequence[Cell]
    data_hashes: Mapping[str, str]
    seed: int
    check: Callable[[Loaded], object]
    steps: Callable[[Cell], int]
    work: Callable[[Cell, Loaded, Path, OnStep, bool], dict[str, Any]]


def cells(recipe: ProtocolRecipe) -> Iterator[Cell]:
    """Order the grid by seed first, so that a grid that was cut off still compares all arms."""
    yield Cell(UNTRAINED, 0)
    for seed in recipe.seeds:
        for arm in recipe.arms:
            yield Cell(arm, seed)


def check_arms(arms: Mapping[str, ObjectiveSettings]) -> None:
    """Find a mistake in an arm, the last one too, before anything is loaded and not after hours.

    Raises:
        UserError: no such weighting, no such parameter of it, or a value out of range.
    """
    for arm in arms.values():
        weighting(arm.name, **arm.params)


def run_protocol(recipe: ProtocolRecipe, folder: Path) -> dict[str, Any]:
    """Run, or go on with, the grid of `recipe` in `folder`, then analyse it; return the analysis.

    Raises:
        UserError: the folder holds another recipe or other data, or an input is at fault.
    """
    check_arms(recipe.arms)
    data = load_data(recipe.data)
    steps = step_count(recipe, data)
    grid = Grid(
        recipe,
        recipe.model,
        list(cells(recipe)),
        data.hashes,
        recipe.seed,
        check=lambda loaded: check_training(loaded, recipe, data),
        steps=lambda _: steps,
        work=lambda *cell: _work(recipe, data, *cell),
    )
    run_cells(grid, folder, title=recipe.name)
    return finish(
        folder,
        protocol=recipe.protocol,
        margin=recipe.evaluation.margin,
        tau=shock_threshold(recipe),
    )


def run_cells(grid: Grid, folder: Path, *, title: str) -> None:
    """Do the cells that `cells.jsonl` in `folder` does not hold yet.

    Raises:
        UserError: the folder holds another recipe or other data, or an input is at fault.
    """
    # A model that cannot be loaded must not leave a folder that holds "another run" once the mistake is mended.
    loaded = None if (folder / "manifest.json").exists() else load_model(grid.model)
    device = grid.model.device if loaded is None else str(loaded.model.device)
    if loaded is not None:
        grid.check(loaded)
    run = Run.open_or_create(folder, grid.recipe, data_hashes=grid.data_hashes, seed=grid.seed, device=device)
    with run.journal("cells.jsonl", key=lambda row: row["cell"]) as journal:
        done = {row["cell"] for row in journal.rows}
        todo = [cell for cell in grid.cells if cell.name not in done]
        if done:
            rest = "going on with the rest" if todo else "analysing them again"
            say(f"{len(done)} of {len(done) + len(todo)} cells are done already; {rest}")
        if todo:
            loaded = loaded or load_model(grid.model)
            with progress(sum(map(grid.steps, todo)), title) as bar:
                for cell in todo:
                    keep = cell is not todo[-1]  # the last one needs no copy: a single run holds its weights once
                    journal.append(_done(cell, loaded, grid, folder / "cells" / cell.name, bar, keep_base=keep))


def shock_threshold(recipe: ProtocolRecipe) -> float | None:
    """Name the threshold that the first r-eaft arm works with, for the detection curve."""
    return next((arm.params.get("tau", 5.0) for arm in recipe.arms.values() if arm.name == "r-eaft"), None)


def _work(
    recipe: ProtocolRecipe,
    data: KnowledgeData,
    cell: Cell,
    loaded: Loaded,
    folder: Path,
    on_step: OnStep,
    keep_base: bool,
) -> dict[str, Any]:
    if cell.arm == UNTRAINED:
        return {"scored": len(score_untrained(loaded, recipe, data, folder, recipe.arms))}
    predictions = run_cell(
        loaded,
        recipe,
        data,
        folder,
        method=cell.arm,
        objective=recipe.arms[cell.arm],
        seed=cell.seed,
        on_step=on_step,
        keep_base=keep_base,
    )
    return {"scored": len(predictions)}


def _done(cell: Cell, loaded: Loaded, grid: Grid, folder: Path, bar: Any, *, keep_base: bool) -> dict[str, Any]:
    """Do a cell and return its row of the journal."""
    started = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    log = CellLog(folder / "log.txt")
    log(cell.name)
    seen = 0

    def on_step(row: dict[str, Any]) -> None:
        nonlocal seen
        bar.advance(row["step"] - seen, note=cell.name)
        seen = row["step"]
        log(f"step {row['step']} loss {row['loss']:.4f} lr {row['learning_rate']:.2e} grad {row['grad_norm']:.3f}")

    notes = grid.work(cell, loaded, folder, on_step, keep_base)
    bar.advance(grid.steps(cell) - seen, note=cell.name)
    seconds = time.perf_counter() - started
    log(f"scored {notes['scored']} answers; {seconds:.1f} s in all")
    vocab = loaded.model.get_output_embeddings().weight.shape[0]
    named = {"cell": cell.name, "arm": cell.arm, "seed": cell.seed}
    named |= {} if cell.rate is None else {"learning_rate": cell.rate}
    return named | notes | {"seconds": round(seconds, 3), "vocab_size": vocab}


class CellLog:
    """A plain log of one cell, with the time of day on each line. A resumed cell appends to it."""

    def __init__(self, path: Path):
        self.path = path

    def __call__(self, text: str) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
