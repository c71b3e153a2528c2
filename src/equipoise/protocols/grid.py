"""A grid of arms and seeds on one base model: every cell is journalled, a killed grid resumes, no cell runs twice."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equipoise.console import progress, say
from equipoise.models.loading import Loaded, load_model
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


@dataclass(frozen=True)
class Cell:
    """One arm with one seed; the untrained model is the cell that everything is compared with."""

    arm: str
    seed: int

    @property
    def name(self) -> str:
        return self.arm if self.arm == UNTRAINED else f"{self.arm}/seed-{self.seed}"


def cells(recipe: ProtocolRecipe) -> Iterator[Cell]:
    """Order the grid by seed first, so that a grid that was cut off still compares all arms."""
    yield Cell(UNTRAINED, 0)
    for seed in recipe.seeds:
        for arm in recipe.arms:
            yield Cell(arm, seed)


def check_arms(recipe: ProtocolRecipe) -> None:
    """Find a mistake in an arm, the last one too, before anything is loaded and not after hours.

    Raises:
        UserError: no such weighting, no such parameter of it, or a value out of range.
    """
    for arm in recipe.arms.values():
        weighting(arm.name, **arm.params)


def run_protocol(recipe: ProtocolRecipe, folder: Path) -> dict[str, Any]:
    """Run, or go on with, the grid of `recipe` in `folder`, then analyse it; return the analysis.

    Raises:
        UserError: the folder holds another recipe or other data, or an input is at fault.
    """
    check_arms(recipe)
    data = load_data(recipe.data)
    # A model that cannot be loaded must not leave a folder that holds "another run" once the mistake is mended.
    loaded = None if (folder / "manifest.json").exists() else load_model(recipe.model)
    device = recipe.model.device if loaded is None else str(loaded.model.device)
    if loaded is not None:
        check_training(loaded, recipe, data)
    run = Run.open_or_create(folder, recipe, data_hashes=data.hashes, seed=recipe.seed, device=device)
    with run.journal("cells.jsonl", key=lambda row: row["cell"]) as journal:
        done = {row["cell"] for row in journal.rows}
        todo = [cell for cell in cells(recipe) if cell.name not in done]
        if done:
            rest = "going on with the rest" if todo else "analysing them again"
            say(f"{len(done)} of {len(done) + len(todo)} cells are done already; {rest}")
        if todo:
            loaded = loaded or load_model(recipe.model)
            steps = step_count(recipe, data)
            with progress(steps * len(todo), recipe.name) as bar:
                for cell in todo:
                    keep = cell is not todo[-1]  # the last one needs no copy: a single run holds its weights once
                    place = folder / "cells" / cell.name
                    journal.append(_run(cell, loaded, recipe, data, place, bar, steps, keep_base=keep))
    return finish(
        folder,
        protocol=recipe.protocol,
        margin=recipe.evaluation.margin,
        tau=shock_threshold(recipe),
    )


def shock_threshold(recipe: ProtocolRecipe) -> float | None:
    """Name the threshold that the first r-eaft arm works with, for the detection curve."""
    return next((arm.params.get("tau", 5.0) for arm in recipe.arms.values() if arm.name == "r-eaft"), None)


def _run(
    cell: Cell,
    loaded: Loaded,
    recipe: ProtocolRecipe,
    data: KnowledgeData,
    folder: Path,
    bar: Any,
    steps: int,
    *,
    keep_base: bool,
) -> dict[str, Any]:
    started = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    log = CellLog(folder / "log.txt")
    log(f"{cell.name}: {len(data.updates)} updates")
    seen = 0

    def on_step(row: dict) -> None:
        nonlocal seen
        bar.advance(row["step"] - seen, note=cell.name)
        seen = row["step"]
        log(f"step {row['step']} loss {row['loss']:.4f} lr {row['learning_rate']:.2e} grad {row['grad_norm']:.3f}")

    if cell.arm == UNTRAINED:
        predictions = score_untrained(loaded, recipe, data, folder, recipe.arms)
    else:
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
    bar.advance(steps - seen, note=cell.name)
    seconds = time.perf_counter() - started
    log(f"scored {len(predictions)} answers; {seconds:.1f} s in all")
    vocab = loaded.model.get_output_embeddings().weight.shape[0]
    return {"cell": cell.name, "arm": cell.arm, "seed": cell.seed, "seconds": round(seconds, 3), "vocab_size": vocab}


class CellLog:
    """A plain log of one cell, with the time of day on each line. A resumed cell appends to it."""

    def __init__(self, path: Path):
        self.path = path

    def __call__(self, text: str) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
