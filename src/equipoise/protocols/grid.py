"""A grid of arms and seeds on one base model: every cell is journalled, a killed grid resumes, no cell runs twice."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from equipoise.console import progress, say, warn
from equipoise.errors import UserError
from equipoise.journal import Journal
from equipoise.models.loading import Loaded, load_model
from equipoise.models.lora_stack import LoraStack, stack_of
from equipoise.models.settings import ModelSettings
from equipoise.objectives.weighting import weighting
from equipoise.pipelines.knowledge_cohort import Validate
from equipoise.pipelines.knowledge_update import UNTRAINED
from equipoise.pipelines.knowledge_work import ASK, COMPLETE, READ, TRAIN, OnWork
from equipoise.pipelines.settings import CohortOf
from equipoise.runs import Run
from equipoise.training.anomalies import DOCS, FIX, Diverged
from equipoise.training.cohort import CohortRun, RunResult, check_cohort, train_cohort
from equipoise.training.settings import ObjectiveSettings

OnStep = Callable[[dict[str, Any]], None]
OnWorkOf = Callable[[str, str, float], None]
# What a cell is doing while it does work of a kind.
DOING = {TRAIN: "training", ASK: "asking", COMPLETE: "completing functions", READ: "reading"}


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
class Together:
    """How cells are done as runs of one cohort, each with what `Grid.work` would leave in its folder.

    Attributes:
        run: a cell as a run, which is named as the cell.
        validate: what the cohort calls after epochs of these cells, if anything, in the folder of all cells; it calls
            the function with a cell's name, a kind of work, and the share of it that is newly done.
        score: scores the cells that a stack holds, in the folder of all cells; returns what to note of each, and calls
            the function with what is newly done, as shares of the work of all of them.
    """

    run: Callable[[Cell, Loaded], CohortRun]
    validate: Callable[[Sequence[Cell], Loaded, Path, OnWorkOf], Validate | None]
    score: Callable[[Sequence[Cell], Loaded, Path, LoraStack, Sequence[RunResult], OnWorkOf], list[dict[str, Any]]]


@dataclass(frozen=True)
class Grid:
    """What is done in which cells.

    Attributes:
        check: finds out before anything is written whether the loaded model will do.
        steps: optimizer steps of a cell.
        costs: how much work a cell is, by kind, for progress; what `train` stands for is spread over its steps.
        work: does a cell in its folder and returns what to note of it, with how many answers were `scored`. It calls
            the first function with each row of metrics and the second with what else is newly done; the last argument
            says whether the model is still needed afterwards.
        cohort: which cells are trained together, by `together`.
        settle: finds what depends on the model before the first cell starts, given the folder of the run; returns the
            grid that is then done.
    """

    recipe: BaseModel
    model: ModelSettings
    cells: Sequence[Cell]
    data_hashes: Mapping[str, str]
    seed: int
    check: Callable[[Loaded], object]
    steps: Callable[[Cell], int]
    costs: Callable[[Cell, Loaded], Mapping[str, float]]
    work: Callable[[Cell, Loaded, Path, OnStep, OnWork, bool], dict[str, Any]]
    cohort: CohortOf
    together: Together
    settle: Callable[[Loaded, Path], "Grid"] | None = None

    def work_left(self, cells: Sequence[Cell], loaded: Loaded) -> dict[str, float]:
        """Return how much work cells are, by kind."""
        work: dict[str, float] = {TRAIN: 0.0}
        for cell in cells:
            for kind, amount in self.costs(cell, loaded).items():
                work[kind] = work.get(kind, 0.0) + amount
        return work


def check_arms(arms: Mapping[str, ObjectiveSettings]) -> None:
    """Find a mistake in an arm, the last one too, before anything is loaded and not after hours.

    Raises:
        UserError: no such weighting, no such parameter of it, or a value out of range.
    """
    for arm in arms.values():
        weighting(arm.name, **arm.params)


def run_cells(grid: Grid, folder: Path, *, title: str) -> None:
    """Do the cells that `cells.jsonl` in `folder` does not hold yet.

    A cell whose training diverges is noted there with why it `failed`, and costs the others nothing.

    Raises:
        UserError: the folder holds another recipe or other data, an input is at fault, or every training diverged.
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
            grid = grid if grid.settle is None else grid.settle(loaded, folder)
            with progress(grid.work_left(todo, loaded), title) as bar:
                for group in cohorts(grid, loaded):
                    mine = [cell for cell in group if cell in todo]
                    if len(group) > 1 and mine:
                        _do_together(group, mine, loaded, grid, folder, bar, journal)
                        continue
                    for cell in mine:
                        keep = cell != todo[-1]  # the last one needs no copy: a single run holds its weights once
                        journal.append(_done(cell, loaded, grid, folder / "cells" / cell.name, bar, keep_base=keep))
        _tell_failed(journal.rows, folder)


def _tell_failed(rows: Sequence[dict[str, Any]], folder: Path) -> None:
    failed = [row for row in rows if "failed" in row]
    if failed and len(failed) == sum(row["arm"] != UNTRAINED for row in rows):
        row = failed[0]
        raise UserError(
            row["failed"],
            where=str(folder / "cells" / row["cell"]),
            fix=f"{FIX}; then start in a new folder",
            docs=DOCS,
        )
    for row in failed:
        warn(f"{row['cell']} is left out: {row['failed']}")


def cohorts(grid: Grid, loaded: Loaded) -> Iterator[list[Cell]]:
    """Part the cells into those that are trained together; a cell by itself is trained as a single run.

    It depends on the recipe and the model alone, so that a grid that goes on finds its cohorts again.
    """
    trained = [cell for cell in grid.cells if cell.arm != UNTRAINED]
    yield from ([cell] for cell in grid.cells if cell.arm == UNTRAINED)
    together = grid.cohort != "off"
    if together and len(trained) > 1:
        try:
            check_cohort(loaded, [grid.together.run(cell, loaded) for cell in trained])
        except UserError as error:
            together = False
            say(f"the cells are trained one by one: {error.what}")
    if not together:
        yield from ([cell] for cell in trained)
    elif grid.cohort == "grid":
        yield trained
    else:
        yield from (list(group) for _, group in groupby(trained, key=lambda cell: cell.seed))


def _done(cell: Cell, loaded: Loaded, grid: Grid, folder: Path, bar: Any, *, keep_base: bool) -> dict[str, Any]:
    """Do a cell by itself and return its row of the journal."""
    started = time.perf_counter()
    watch = _Watch(cell, folder, bar, cell.name, grid.costs(cell, loaded), grid.steps(cell))
    try:
        notes = grid.work(cell, loaded, folder, watch, watch.done, keep_base)
    except Diverged as error:
        return watch.failed(error, time.perf_counter() - started)
    return watch.row(notes, loaded, time.perf_counter() - started)


def _do_together(
    group: Sequence[Cell], todo: Sequence[Cell], loaded: Loaded, grid: Grid, folder: Path, bar: Any, journal: Journal
) -> None:
    """Train a group as one cohort, then score and journal those of it that were not; all of it goes on where it was."""
    place, name = folder / "cells", f"seed-{group[0].seed}" if grid.cohort == "seed" else "grid"
    note = f"{len(group)} cells of {name}"
    watches = {
        cell.name: _Watch(cell, place / cell.name, bar, note, grid.costs(cell, loaded), grid.steps(cell))
        for cell in todo
    }

    def done_of(name: str, kind: str, share: float) -> None:
        if name in watches:
            watches[name].done(kind, share)

    results = train_cohort(
        loaded,
        [grid.together.run(cell, loaded) for cell in group],
        folder=place,
        checkpoints_in=folder / "cohorts" / name,
        validate=grid.together.validate(group, loaded, place, done_of),
        on_step=lambda name, row: watches[name](row) if name in watches else None,
    )
    started = time.perf_counter()
    trained = [(cell, result) for cell, result in zip(group, results) if cell in todo and result.error is None]
    if trained:
        cells, mine = zip(*trained)
        with stack_of(loaded, [result.final for result in mine]) as stack:
            notes = grid.together.score(cells, loaded, place, stack, mine, done_of)
        each = (time.perf_counter() - started) / len(cells)
        journal.extend(
            watches[cell.name].row(row, loaded, result.seconds + each) for (cell, result), row in zip(trained, notes)
        )
    journal.extend(
        watches[cell.name].failed(result.error, result.seconds)
        for cell, result in zip(group, results)
        if cell in todo and result.error is not None
    )


class _Watch:
    """Follows a cell: its log, and its part of the progress under `note`. It is called with each row of its metrics."""

    def __init__(self, cell: Cell, folder: Path, bar: Any, note: str, costs: Mapping[str, float], steps: int):
        folder.mkdir(parents=True, exist_ok=True)
        self.cell, self.bar, self.note, self.log = cell, bar, note, CellLog(folder / "log.txt")
        self.costs, self.left, self.steps, self.seen = dict(costs), dict(costs), steps, 0
        self.log(cell.name)

    def __call__(self, row: dict[str, Any]) -> None:
        if not self.seen and row["step"] > 1:  # a resumed training: earlier steps took no time of this process
            before = (row["step"] - 1) / self.steps * self.costs[TRAIN]
            self.left[TRAIN] -= before
            self.bar.skip(before, TRAIN)
            self.seen = row["step"] - 1
        self.done(TRAIN, (row["step"] - self.seen) / self.steps)
        self.seen = row["step"]
        loss, rate, norm = (math.nan if row[n] is None else row[n] for n in ("loss", "learning_rate", "grad_norm"))
        self.log(f"step {row['step']} loss {loss:.4f} lr {rate:.2e} grad {norm:.3f}")

    def done(self, kind: str, share: float) -> None:
        """Note that this share of the cell's work of a kind is newly done."""
        amount = share * self.costs[kind]
        self.left[kind] -= amount
        self.bar.advance(amount, note=f"{DOING[kind]} {self.note}", kind=kind)

    def _finish(self) -> None:
        for kind, amount in self.left.items():
            self.bar.advance(amount, note=self.note, kind=kind)

    def row(self, notes: dict[str, Any], loaded: Loaded, seconds: float) -> dict[str, Any]:
        """The row of a cell that is done."""
        self._finish()
        self.log(f"scored {notes['scored']} answers; {seconds:.1f} s in all")
        vocab = loaded.model.get_output_embeddings().weight.shape[0]
        return self._named() | notes | {"seconds": round(seconds, 3), "vocab_size": vocab}

    def failed(self, error: UserError, seconds: float) -> dict[str, Any]:
        """The row of a cell that diverged."""
        self._finish()
        self.log(error.what)
        return self._named() | {"failed": error.what, "seconds": round(seconds, 3)}

    def _named(self) -> dict[str, Any]:
        named = {"cell": self.cell.name, "arm": self.cell.arm, "seed": self.cell.seed}
        return named if self.cell.rate is None else named | {"learning_rate": self.cell.rate}


class CellLog:
    """A plain log of one cell, with the time of day on each line. A resumed cell appends to it."""

    def __init__(self, path: Path):
        self.path = path

    def __call__(self, text: str) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
