"""What the verbs do for a confidence-tokens recipe: run it whole or by stages, show it first, measure a model by it."""

import time
from pathlib import Path
from typing import Any

from equipoise.config import dump_yaml, resolve
from equipoise.console import say, table
from equipoise.disk import make_folder
from equipoise.journal import write_jsonl
from equipoise.pipelines.confidence_settings import ConfidenceRecipe
from equipoise.pipelines.trained import trained_model
from equipoise.protocols.wording import estimate
from equipoise.report.build import build_report
from equipoise.runs import Run

SHOWN = (
    ("validation_accuracy", "token right, %"),
    ("answer_accuracy", "answer right, %"),
    ("auroc", "AUROC"),
    ("calibration_error", "calibration error"),
    ("brier", "Brier"),
    ("token_missing_rate", "no token, %"),
)


def run_confidence(path: Path, overrides: list[str], out: Path | None, *, until: str = "end") -> Path:
    """Run a recipe into `out`, by default a new folder under `runs` named by recipe and time; return the folder."""
    recipe = resolve(ConfidenceRecipe, path, overrides)
    folder = out or Run.named(Path("runs"), f"{recipe.name}-{time.strftime('%Y%m%d-%H%M%S')}")
    from equipoise.pipelines.confidence_tokens import run

    try:
        analysis = run(recipe, folder, until=until)
    except KeyboardInterrupt:
        if out is None and folder.exists():
            say(f"to go on: repeat the command with --out {folder}")
        raise
    if analysis is None:
        say(f"run folder: {folder} (`equipoise run` with --out {folder} goes on from here)")
        return folder
    show(analysis)
    say(f"report:  {build_report(folder)}")
    return folder


def show(analysis: dict[str, Any]) -> None:
    """Print one row a domain and method: means over seeds, with a 95% interval where there are seeds for one."""
    tasks = analysis["domains"] if len(analysis["domains"]) == 1 else [*analysis["domains"], "overall"]
    for task in tasks:
        rows = [
            [method, *(_cell(by_task[task].get(metric), percent=title.endswith("%")) for metric, title in SHOWN)]
            for method, by_task in analysis["metrics"].items()
            if by_task.get(task)
        ]
        table(f"{task}, n = {analysis['n'][task]}", ["method", *(title for _, title in SHOWN)], rows)
    for choice in analysis["abstention"]:
        say(_promise(choice))
    for sentence in analysis["warnings"]:
        say(f"warning: {sentence}")


def _cell(numbers: dict[str, Any] | None, *, percent: bool) -> str:
    return estimate(numbers, factor=100, digits=1) if percent else estimate(numbers, factor=1, digits=3)


def _promise(choice: dict[str, Any]) -> str:
    wanted = f"at most {choice['target_error']:.0%} errors with confidence {1 - choice['delta']:.0%}"
    if choice["threshold"] is None:
        return f"seed {choice['seed']}: no threshold can be certified for {wanted}"
    test = choice["test"]
    return (
        f"seed {choice['seed']}: from confidence {choice['threshold']:.3f} on, {wanted} is certified; "
        f"on test it answers {test['coverage']:.1%} with {test['error']:.1%} errors"
    )


def preview_confidence(path: Path, overrides: list[str]) -> None:
    """Print what a run would do: the resolved config, the questions, one example with its loss mask, sizes."""
    from equipoise.pipelines.confidence_preview import preview

    recipe = resolve(ConfidenceRecipe, path, overrides)
    seen = preview(recipe)
    print(dump_yaml(recipe))
    print("questions: " + ", ".join(f"{count} {domain}" for domain, count in seen["counts"].items()))
    for note in seen["notes"]:
        print(f"           {note}")
    right = ", ".join(f"{hits} of {n} {domain}" for domain, (hits, n) in seen["right"].items())
    print(f"tried:     the model answers {right} questions rightly")
    print(f"trainable: {seen['trainable']:,} of {seen['parameters']:,} parameters")
    print(f"memory:    about {seen['memory_mb']:,.0f} MB for weights, gradients and optimizer, activations not counted")
    print("example, as the model answered it (what carries loss stands in »«):")
    print(seen["example"])


def evaluate_confidence(model: str, recipe: Path, overrides: list[str], out: Path | None) -> None:
    """Ask `model` the test questions of a recipe, and print the measures; write the answers into `out`.

    Raises:
        UserError: the model has no confidence tokens, or the recipe is at fault.
    """
    settings = resolve(ConfidenceRecipe, recipe, [o for o in overrides if not o.startswith("model.")])
    target = trained_model(model, overrides, base=settings.model)
    if out:
        make_folder(out)  # before the work whose result it is to hold
    from equipoise.pipelines.confidence_tokens import evaluate

    rows, summary = evaluate(settings, target)
    titles = ["task", "n", *(title for _, title in SHOWN)]
    cells = [
        [
            task,
            str(numbers["n"]),
            *(_cell({"mean": numbers[name]}, percent=title.endswith("%")) for name, title in SHOWN),
        ]
        for task, numbers in summary.items()
    ]
    table(model, titles, cells)
    if out:
        write_jsonl(out / "predictions.jsonl", rows)
