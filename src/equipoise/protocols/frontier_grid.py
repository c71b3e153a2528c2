"""The trainings of a frontier as the cells of a grid, done together or one by one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from equipoise.data.formatting import Formatted
from equipoise.models.loading import Loaded
from equipoise.models.lora_stack import LoraStack
from equipoise.pipelines.frontier import FrontierData, Readings, render_arm, score_before, train_and_score, work
from equipoise.pipelines.frontier_cohort import Training, read_on_the_way, read_stack
from equipoise.pipelines.frontier_settings import FrontierRecipe
from equipoise.pipelines.knowledge_cohort import Trained, Validate
from equipoise.pipelines.knowledge_data import steps_of_an_epoch
from equipoise.pipelines.knowledge_update import UNTRAINED
from equipoise.pipelines.knowledge_work import ASK, OnWork
from equipoise.protocols.grid import Cell, Grid, OnStep, OnWorkOf, Together
from equipoise.training.cohort import CohortRun, RunResult


def grid_of(recipe: FrontierRecipe, data: FrontierData) -> Grid:
    """Lay out the grid of a frontier: the untrained model, then every training."""

    def steps(cell: Cell) -> int:
        rows = data.rows(recipe, cell.arm) if cell.rate is not None else []
        return steps_of_an_epoch(len(rows), recipe.training) * max(recipe.score_at)

    costs: dict[str, dict[str, float]] = {}  # every training of an arm is as much work

    def costs_of(cell: Cell, loaded: Loaded) -> dict[str, float]:
        if cell.arm not in costs:
            costs[cell.arm] = work(loaded, recipe, data, None if cell.rate is None else cell.arm)
        return costs[cell.arm]

    def do(
        cell: Cell, loaded: Loaded, place: Path, on_step: OnStep, on_work: OnWork, keep_base: bool
    ) -> dict[str, Any]:
        if cell.rate is None:
            return score_before(loaded, recipe, data, place, on_work)
        setting = {"arm": cell.arm, "rate": cell.rate, "seed": cell.seed}
        how = {"on_step": on_step, "on_work": on_work, "keep_base": keep_base}
        return train_and_score(loaded, recipe, data, place, **setting, **how)

    return Grid(
        recipe,
        recipe.model,
        [Cell(UNTRAINED, 0), *(Cell(arm, seed, rate) for arm, rate, seed in recipe.trainings())],
        data.known.hashes,
        recipe.seed,
        check=lambda loaded: [render_arm(loaded, recipe, data, arm) for arm in recipe.arms],
        steps=steps,
        costs=costs_of,
        work=do,
        cohort=recipe.cohort,
        together=together(recipe, data),
        settle=lambda loaded, folder: grid_of(recipe, data.settled(recipe, loaded, folder)),
    )


def together(recipe: FrontierRecipe, data: FrontierData) -> Together:
    """How the trainings of a frontier go as runs of a cohort."""
    rendered: dict[str, Formatted] = {}

    def rows(arm: str, loaded: Loaded) -> Formatted:
        if arm not in rendered:
            rendered[arm] = render_arm(loaded, recipe, data, arm)
        return rendered[arm]

    def run(cell: Cell, loaded: Loaded) -> CohortRun:
        assert cell.rate is not None  # the untrained model is no run
        settings = recipe.settings_of(cell.arm, cell.rate)
        return CohortRun(cell.name, rows(cell.arm, loaded), recipe.arms[cell.arm].objective, settings, cell.seed)

    def training(cell: Cell, loaded: Loaded, folder: Path) -> Training:
        plan = Readings.of(recipe, cell.arm, len(rows(cell.arm, loaded).rows))
        return Training(cell.arm, Trained(f"{cell.arm}@{cell.rate:g}", cell.seed, folder / cell.name), plan)

    def validate(cells: Sequence[Cell], loaded: Loaded, folder: Path, on_work_of: OnWorkOf) -> Validate:
        trainings = {cell.name: training(cell, loaded, folder) for cell in cells}

        def told(name: str, share: float) -> None:
            on_work_of(name, ASK, share / trainings[name].plan.count)

        return read_on_the_way(loaded, recipe, data, trainings, told)

    def score(
        cells: Sequence[Cell],
        loaded: Loaded,
        folder: Path,
        stack: LoraStack,
        results: Sequence[RunResult],
        on_work_of: OnWorkOf,
    ) -> list[dict[str, Any]]:
        trainings = [training(cell, loaded, folder) for cell in cells]

        def told(place: int, share: float) -> None:
            on_work_of(cells[place].name, ASK, share / trainings[place].plan.count)

        wanted = {i: (one, one.plan.last) for i, one in enumerate(trainings)}
        done = read_stack(loaded, recipe, data, stack, wanted, told)
        return [
            one.plan.notes(done[i][0], result.steps, result.stopped)
            for i, (one, result) in enumerate(zip(trainings, results))
        ]

    return Together(run, validate, score)
