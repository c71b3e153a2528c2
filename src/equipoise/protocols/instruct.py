"""What the verbs do for an instruct recipe: run it whole or by stages, show it first, measure a model by it."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from equipoise.config import dump_yaml, resolve
from equipoise.console import say, table
from equipoise.disk import make_folder
from equipoise.errors import UserError
from equipoise.journal import write_jsonl
from equipoise.pipelines.instruct_settings import InstructRecipe
from equipoise.pipelines.trained import run_of, trained_model
from equipoise.protocols.wording import estimate
from equipoise.report.build import build_report
from equipoise.runs import Run, kept

# measure: column title, factor, digits
SHOWN = {
    "loss": ("answer loss, nats a token", 1, 3),
    "exact": ("exact answers, %", 100, 1),
    "length": ("tokens an answer", 1, 1),
    "pairs": ("pairs right, %", 100, 1),
    "pairs_per_token": ("by token, %", 100, 1),
}


def run_instruct(path: Path, overrides: list[str], out: Path | None, *, until: str = "end") -> Path:
    """Run a recipe into `out`, by default the folder of its name under `runs`; return the folder."""
    recipe = resolve(InstructRecipe, path, overrides)
    if until in ("sft", "dpo") and getattr(recipe, until) is None:
        raise UserError(
            f"this recipe has no stage {until} to stop after: it is null", where="--until", fix="leave --until out"
        )
    folder = out or Run.named(Path("runs"), recipe.name)
    from equipoise.pipelines.instruct import run

    with kept(folder):
        analysis = run(recipe, folder, until=until)
    if analysis is None:
        say(f"run folder: {folder} (`equipoise run` with --out {folder} goes on from here)")
        return folder
    show(analysis)
    say(f"report:  {build_report(folder)}")
    return folder


def show(analysis: Mapping[str, Any]) -> None:
    """Print one row a stage with its scores, then what each stage changed, with 95% intervals."""
    if not analysis["scores"]:
        say("nothing was measured, for no row is held out: name a share or files in data.test")
        return
    measures = [name for name in SHOWN if any(name in by for by in analysis["scores"].values())]
    rows = [[stage, *(_score(name, by.get(name)) for name in measures)] for stage, by in analysis["scores"].items()]
    n = analysis["n"]
    counts = [f"{n[kind]:,} {word}" for kind, word in (("answers", "questions"), ("pairs", "pairs")) if kind in n]
    table(f"held out: {', '.join(counts)}", ["stage", *(SHOWN[name][0] for name in measures)], rows)
    for part, by_stage in analysis["parts"].items():
        say(f"exact answers, {part}: " + ", ".join(f"{s} {_score('exact', v)}%" for s, v in by_stage.items()))
    for change in analysis["changes"]:
        if change["measure"] in ("exact", "pairs"):
            say(in_words(change))


def in_words(change: Mapping[str, Any]) -> str:
    """Say in one sentence what a stage changed."""
    title, factor, digits = SHOWN[change["measure"]]
    text = f"{factor * change['estimate']:+.{digits}f}"
    if change["bootstrap"] is not None:
        low, high = (f"{factor * end:+.{digits}f}" for end in change["bootstrap"])
        text += f" [{low}, {high}]"
    return f"{change['stage']} against {change['against']}: {text} points of {title.removesuffix(', %')}"


def _score(name: str, numbers: Mapping[str, Any] | None) -> str:
    _, factor, digits = SHOWN[name]
    return estimate(numbers, factor=factor, digits=digits)


def preview_instruct(path: Path, overrides: list[str]) -> None:
    """Print what a run would do: the resolved config, the clean data, one example with its loss mask, sizes."""
    recipe = resolve(InstructRecipe, path, overrides)
    from equipoise.pipelines.instruct_preview import preview

    seen = preview(recipe)
    print(dump_yaml(recipe))
    for name, (examples, pairs) in seen["counts"].items():
        print(f"{name + ':':11} {examples:,} instructions, {pairs:,} pairs")
    print("steps:      " + ", ".join(f"{count:,} of {stage}" for stage, count in seen["steps"].items()))
    print(f"trainable:  {seen['trainable']:,} of {seen['parameters']:,} parameters")
    print(f"memory:     {seen['memory']}")
    print("example (what carries loss stands in »«):")
    print(seen["example"])


def evaluate_instruct(model: str, recipe: Path, overrides: list[str], out: Path | None) -> None:
    """Ask `model` a recipe's test questions and pairs, and print the scores; write the rows into `out`."""
    settings = resolve(InstructRecipe, recipe, [o for o in overrides if not o.startswith("model.")])
    target = trained_model(model, overrides, base=settings.model)
    if out:
        make_folder(out)  # before the work whose result it is to hold
    from equipoise.evaluation.instruct_analysis import analyse
    from equipoise.pipelines.instruct import evaluate

    with TemporaryDirectory(prefix="equipoise-") as scratch:
        answers, pairs = evaluate(settings, target, Path(scratch), run=run_of(Path(model)))
    named = [[{"method": "untrained", "seed": 0, **row} for row in rows] for rows in (answers, pairs)]
    scores = analyse(*named, by=settings.evaluation.by)["scores"]["untrained"]
    table(model, ["measure", "value"], [[SHOWN[name][0], _score(name, value)] for name, value in scores.items()])
    if out:
        write_jsonl(out / "predictions.jsonl", answers)
        write_jsonl(out / "pairs.jsonl", pairs)
