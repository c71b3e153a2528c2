"""The frontier: every arm at every learning rate, scored along the way; run, gathered, analysed, shown."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from equipoise.config import dump_yaml, resolve
from equipoise.console import say, table
from equipoise.errors import UserError
from equipoise.journal import read_journal, write_json
from equipoise.pipelines.frontier_settings import FrontierRecipe
from equipoise.protocols.frontier_analysis import ArmScores, Row, analyse
from equipoise.protocols.kept import cannot_tell
from equipoise.records import KEEP_TASKS, Result
from equipoise.report.build import build_report
from equipoise.runs import Run, kept

UNTRAINED = "untrained"
ANALYSIS = "frontier.json"


def run_frontier(path: Path, overrides: list[str], out: Path | None) -> Path:
    """Run, or go on with, a frontier in `out`, by default the folder of its name under `runs`; return the folder.

    Raises:
        UserError: the recipe, the data or the model is at fault, or the folder holds another run.
    """
    recipe = resolve(FrontierRecipe, path, overrides)
    folder = out or Run.named(Path("runs"), recipe.name)
    from equipoise.pipelines.frontier import load_frontier_data
    from equipoise.protocols.frontier_grid import grid_of
    from equipoise.protocols.grid import check_arms, run_cells
    from equipoise.protocols.knowledge import tell

    check_arms(recipe.arms)
    data = load_frontier_data(recipe)
    tell(data.known.notes)
    grid = grid_of(recipe, data)
    with kept(folder):
        run_cells(grid, folder, title=recipe.name)
        analysis = finish(folder, recipe)
    show(analysis)
    say(f"report:  {build_report(folder)}")
    return folder


def finish(folder: Path, recipe: FrontierRecipe) -> Row:
    """Gather the finished cells of `folder` into `results.json` and `frontier.json`; return the analysis."""
    before = _before(folder, recipe)
    keep, notes = _known(before)
    scores = gather(folder, recipe, keep)
    notes += _left_out(folder)
    if recipe.against not in scores:
        raise UserError(
            f"{recipe.against}, which the others are compared with, diverged at every learning rate",
            where=str(folder),
            fix="start with lower learning_rates in a new folder",
        )
    right = {task: float(before[task][chosen].mean()) for task, chosen in keep.items()}
    analysis = analyse(scores, seeds=recipe.seeds, against=recipe.against, levels=recipe.levels, untrained=right)
    analysis["notes"] = notes
    write_json(folder / "results.json", [row.model_dump() for row in flat(analysis)])
    write_json(folder / ANALYSIS, analysis)
    return analysis


def gather(folder: Path, recipe: FrontierRecipe, keep: Mapping[str, Any]) -> dict[str, ArmScores]:
    """Read what every arm's trainings answered, seeds and settings in the recipe's order.

    Args:
        keep: by task, a mask over its questions; other tasks are left out.

    A learning rate at which a seed diverged is no setting of its arm; an arm without any is left out.
    """
    done = read_journal(folder / "cells.jsonl").rows
    cells = {(row["arm"], row.get("learning_rate"), row["seed"]): row for row in done}
    found = {}
    for arm, how in recipe.arms.items():
        read: list[tuple[int | None, str]] = [(epoch, f"epoch-{epoch}") for epoch in sorted(recipe.score_at)]
        read = [(None, "end")] if how.stopping else read
        held = [r for r in recipe.rates_of(arm) if not any("failed" in cells[arm, r, seed] for seed in recipe.seeds)]
        if not held:
            continue
        settings = [(rate, epoch, name) for rate in held for epoch, name in read]
        rows = [[cells[arm, rate, seed] for rate, _, _ in settings] for seed in recipe.seeds]
        answers = [
            [_scores(folder / "cells" / row["cell"], name, recipe) for row, (_, _, name) in zip(by_seed, settings)]
            for by_seed in rows
        ]
        tasks = [task for task in answers[0][0] if task in keep]
        found[arm] = ArmScores(
            settings=[(rate, epoch) for rate, epoch, _ in settings],
            items={
                task: np.array([[one[task][keep[task]] for one in by_seed] for by_seed in answers]) for task in tasks
            },
            epochs=np.array([[row["epochs"][name] for row, (_, _, name) in zip(r, settings)] for r in rows]),
        )
    return found


def _known(before: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Choose the questions that tell something: what the untrained model did not know cannot be lost.

    Returns:
        A mask over the questions of each task, and a sentence about each task that is left out because the untrained
        model knew too little of it.
    """
    asked = {task: {"asked": len(scores), "right": int((scores == 1).sum())} for task, scores in before.items()}
    reasons = {task: why for task, why in cannot_tell(asked).items() if task in KEEP_TASKS}
    masks = {
        task: scores == 1 if task in KEEP_TASKS else np.ones(len(scores), dtype=bool)
        for task, scores in before.items()
        if task not in reasons
    }
    return masks, [f"{task} cannot be measured: {why}." for task, why in reasons.items()]


def _left_out(folder: Path) -> list[str]:
    """Say which settings diverged."""
    failed = defaultdict(list)
    for row in read_journal(folder / "cells.jsonl").rows:
        if "failed" in row:
            failed[row["arm"], row["learning_rate"]].append(str(row["seed"]))
    return [
        f"{arm} at a learning rate of {rate:g} is left out: it diverged with seed {', '.join(seeds)}."
        for (arm, rate), seeds in failed.items()
    ]


def _before(folder: Path, recipe: FrontierRecipe) -> dict[str, Any]:
    return _scores(folder / "cells" / UNTRAINED, "epoch-0", recipe)


def _scores(folder: Path, name: str, recipe: FrontierRecipe) -> dict[str, Any]:
    """Scores by task, items in the order in which all models were asked."""
    published, found = recipe.evaluation.scoring == "published", {}
    for row in read_journal(folder / f"{name}.jsonl").rows:
        other = published and row["published_score"] is not None
        found.setdefault(row["task"], []).append(row["published_score" if other else "score"])
    return {task: np.array(scores, dtype=np.float64) for task, scores in found.items()}


def flat(analysis: Row) -> list[Result]:
    """The flat table: a method is an arm with its learning rate and epoch."""
    n = analysis["n"]
    rows = [(UNTRAINED, 0, task, value) for task, value in analysis["untrained"].items()]
    for point in analysis["points"]:
        method = f"{point['arm']}@{point['learning_rate']:g}x{point['epoch']:g}"
        rows += [(method, point["seed"], task, point[task]) for task in n if task in point]
    return [
        Result(method=method, seed=seed, task=task, metric="accuracy", value=value, n=n[task])
        for method, seed, task, value in rows
    ]


def show(analysis: Row) -> None:
    """Print, for each task to keep, a row an arm: what is kept at each level of correction, and the hypervolume."""
    for task in analysis["kept"]:
        columns = ["arm", *(f"at {100 * level:g}% corrected" for level in analysis["levels"]), "hypervolume"]
        rows = []
        for arm, row in analysis["arms"].items():
            found = [*row["matched"][task], row["hypervolume"][task]]
            rows.append([arm, *(_cell(one, len(analysis["seeds"])) for one in found)])
        before = analysis["untrained"][task]
        table(f"{task} kept, in % (untrained: {100 * before:.1f})", columns, rows)
    for answer in analysis["answers"]:
        say(answer["sentence"])
    for note in analysis["notes"]:
        say(note)


def _cell(row: Row, seeds: int) -> str:
    if row["mean"] is None:
        return "not reached" if not row["reached"] else f"reached by {row['reached']} of {seeds} seeds"
    ends = "" if row["ci"] is None else f"  [{100 * row['ci'][0]:.1f}, {100 * row['ci'][1]:.1f}]"
    return f"{100 * row['mean']:.1f}{ends}"


def preview_frontier(path: Path, overrides: list[str]) -> None:
    """Print what a run would do: the resolved config, the trainings, rows and steps of each arm, what is scored."""
    recipe = resolve(FrontierRecipe, path, overrides)
    from equipoise.models.loading import load_model
    from equipoise.pipelines.frontier import load_frontier_data, render_arm
    from equipoise.pipelines.knowledge_data import steps_of_an_epoch
    from equipoise.protocols.grid import check_arms

    check_arms(recipe.arms)
    loaded = load_model(recipe.model)
    data = load_frontier_data(recipe).settled(recipe, loaded, None)
    print(dump_yaml(recipe))
    for note in data.known.notes:
        print(f"           {note}")
    print(f"trainings: {len(list(recipe.trainings()))}, scored after epochs {', '.join(map(str, recipe.score_at))}")
    asked = data.tasks(rehearsed=recipe.rehearses)
    print("asked:     " + ", ".join(f"{len(task.items)} {task.name}" for task in asked if task.items))
    for arm in recipe.arms:
        rows = len(render_arm(loaded, recipe, data, arm).rows)
        steps = steps_of_an_epoch(rows, recipe.training)
        rates = ", ".join(f"{rate:g}" for rate in recipe.rates_of(arm))
        length = f"{steps * max(recipe.score_at)} steps in {max(recipe.score_at)} epochs"
        print(f"{arm + ':':20} {rows} rows, {length}, at learning rates of {rates}")
