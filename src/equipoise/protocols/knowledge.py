"""The grid of a knowledge update: every arm with every seed on the same rows, then the analysis."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from equipoise.console import say
from equipoise.data.formatting import Formatted
from equipoise.models.loading import Loaded
from equipoise.models.lora_stack import LoraStack
from equipoise.pipelines import thresholds
from equipoise.pipelines.knowledge_cohort import Validate, trace_weights
from equipoise.pipelines.knowledge_data import KnowledgeData, load_data, rehearses, step_count
from equipoise.pipelines.knowledge_measures import Measures
from equipoise.pipelines.knowledge_plan import settle, settled
from equipoise.pipelines.knowledge_update import UNTRAINED, check_training, run_cell, score_untrained
from equipoise.pipelines.knowledge_work import TRAIN, OnWork, training_work
from equipoise.pipelines.settings import ArmSettings, ProtocolRecipe
from equipoise.protocols.collect import finish
from equipoise.protocols.grid import Cell, Grid, OnStep, OnWorkOf, Together, check_arms, run_cells
from equipoise.training.cohort import CohortRun

LISTED = 5


def run_protocol(recipe: ProtocolRecipe, folder: Path) -> dict[str, Any]:
    """Run, or go on with, the grid of `recipe` in `folder`, then analyse it; return the analysis.

    Raises:
        UserError: the folder holds another recipe or other data, or an input is at fault.
    """
    data = load_data(recipe.data)
    tell(data.notes)
    grid = grid_of(recipe, data)
    run_cells(grid, folder, title=recipe.name)
    return analyse(recipe, folder)


def analyse(recipe: ProtocolRecipe, folder: Path) -> dict[str, Any]:
    """Gather and analyse the finished cells of a run of `recipe`; return the analysis."""
    return finish(
        folder,
        protocol=recipe.protocol,
        margin=recipe.evaluation.margin,
        tau=shock_threshold(settled(recipe, folder)),
        rehearsed=recipe.data.rehearse is True,
    )


def tell(notes: Sequence[str]) -> None:
    """Report what became of rows of the data, the first few of them where there are many."""
    for note in notes[:LISTED]:
        say(note)
    if len(notes) > LISTED:
        say(f"and {len(notes) - LISTED} more; --dry-run lists all of them")


def grid_of(recipe: ProtocolRecipe, data: KnowledgeData) -> Grid:
    """Lay out the grid of a recipe.

    Raises:
        UserError: an arm's objective is at fault.
    """
    check_arms(thresholds.with_taus(recipe.arms, dict.fromkeys(thresholds.wanted(recipe.arms), 1.0)))
    measures, rendered = Measures(recipe, data), _Rendered(recipe, data)
    return Grid(
        recipe,
        recipe.model,
        list(cells(recipe)),
        data.hashes,
        recipe.seed,
        check=lambda loaded: check_training(loaded, recipe, data),
        steps=lambda cell: 0 if cell.arm == UNTRAINED else step_count(recipe, data, recipe.arms[cell.arm]),
        costs=lambda cell, loaded: _costs(cell, loaded, recipe, measures, rendered),
        work=lambda *cell: _work(recipe, measures, *cell),
        cohort=recipe.cohort,
        together=_together(recipe, measures, rendered),
        settle=lambda loaded, folder: grid_of(*settle(recipe, data, loaded, folder)),
    )


def cells(recipe: ProtocolRecipe) -> Iterator[Cell]:
    """Order the grid by seed first, so that a grid that was cut off still compares all arms."""
    yield Cell(UNTRAINED, 0)
    for seed in recipe.seeds:
        for arm in recipe.arms:
            yield Cell(arm, seed)


class _Rendered:
    """What arms train on, rendered once for those that rehearse and once for those that do not."""

    def __init__(self, recipe: ProtocolRecipe, data: KnowledgeData):
        self.recipe, self.data = recipe, data
        self.known: dict[bool, Formatted] = {}

    def of(self, arm: ArmSettings, loaded: Loaded) -> Formatted:
        kind = rehearses(self.recipe, arm)
        if kind not in self.known:
            self.known[kind] = check_training(loaded, self.recipe, self.data, arm)
        return self.known[kind]


def _costs(
    cell: Cell, loaded: Loaded, recipe: ProtocolRecipe, measures: Measures, rendered: _Rendered
) -> dict[str, float]:
    if cell.arm == UNTRAINED:
        return measures.work(loaded, trained=False)
    rows = rendered.of(recipe.arms[cell.arm], loaded)
    epochs = recipe.training.epochs
    assert epochs != "auto"  # the recipe is settled
    return {TRAIN: training_work(rows, epochs), **measures.work(loaded, trained=True)}


def shock_threshold(recipe: ProtocolRecipe) -> float | None:
    """Name the threshold that the first r-eaft arm works with, for the detection curve."""
    known = (arm for arm in recipe.arms.values() if arm.name == "r-eaft" and arm.false_alarm is None)
    return next((arm.params.get("tau", 5.0) for arm in known), None)


def _work(
    recipe: ProtocolRecipe,
    measures: Measures,
    cell: Cell,
    loaded: Loaded,
    folder: Path,
    on_step: OnStep,
    on_work: OnWork,
    keep_base: bool,
) -> dict[str, Any]:
    if cell.arm == UNTRAINED:
        return {"scored": len(score_untrained(loaded, measures, folder, recipe.arms, on_work))}
    predictions = run_cell(
        loaded,
        measures,
        folder,
        method=cell.arm,
        objective=recipe.arms[cell.arm],
        seed=cell.seed,
        on_step=on_step,
        on_work=on_work,
        keep_base=keep_base,
    )
    return {"scored": len(predictions)}


def _together(recipe: ProtocolRecipe, measures: Measures, rendered: _Rendered) -> Together:
    """Return the cells of a knowledge-update grid as runs of a cohort."""
    data = measures.data

    def run(cell: Cell, loaded: Loaded) -> CohortRun:
        arm = recipe.arms[cell.arm]
        return CohortRun(cell.name, rendered.of(arm, loaded), arm.objective, recipe.training, cell.seed)

    def validate(cells: Sequence[Cell], loaded: Loaded, *_: object) -> Validate | None:
        return trace_weights(loaded, recipe, data, {cell.name: cell.arm for cell in cells})

    def score(
        cells: Sequence[Cell], loaded: Loaded, folder: Path, stack: LoraStack, _: object, on_work_of: OnWorkOf
    ) -> list[dict[str, Any]]:
        def on_work(kind: str, share: float) -> None:
            for cell in cells:
                on_work_of(cell.name, kind, share)

        runs = [(cell.arm, cell.seed, folder / cell.name) for cell in cells]
        return [{"scored": len(mine)} for mine in measures.score_stack(loaded, stack, runs, on_work=on_work)]

    return Together(run, validate, score)
