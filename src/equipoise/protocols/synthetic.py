"""What the verbs do for a synthetic-RL recipe: run it whole or by stages, show it first, measure a model by it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from equipoise.config import dump_yaml, resolve
from equipoise.console import say, table
from equipoise.disk import make_folder
from equipoise.journal import write_jsonl
from equipoise.pipelines.synthetic_settings import SyntheticRecipe
from equipoise.pipelines.trained import trained_model
from equipoise.protocols.wording import estimate
from equipoise.report.build import build_report
from equipoise.runs import Run, kept

DOMAINS = ("target", "source")
SHOWN = {"f1": "F1", "precision": "precision", "recall": "recall", "valid": "readable", "non_empty": "not empty"}


def run_synthetic(path: Path, overrides: list[str], out: Path | None, *, until: str = "end") -> Path:
    """Run a recipe into `out`, by default the folder of its name under `runs`; return the folder."""
    recipe = resolve(SyntheticRecipe, path, overrides)
    folder = out or Run.named(Path("runs"), recipe.name)
    from equipoise.pipelines.synthetic_rl import run

    with kept(folder):
        analysis = run(recipe, folder, until=until)
    if analysis is None:
        say(f"run folder: {folder} (`equipoise run` with --out {folder} goes on from here)")
        return folder
    show(analysis)
    say(f"report:  {build_report(folder)}")
    return folder


def show(analysis: Mapping[str, Any]) -> None:
    """Print one row an arm: F1 in both domains and its change from the untrained model, in percent."""
    domains = [d for d in DOMAINS if d in analysis["n"]]
    columns = ["arm", *(f"{d} {word}" for d in domains for word in ("F1", "change"))]
    rows = [
        [arm, *(cell for d in domains for cell in (_score(by[d]["f1"]), _change(analysis, arm, d)))]
        for arm, by in analysis["scores"].items()
    ]
    counts = ", ".join(f"{analysis['n'][d]} {d}" for d in domains)
    table(f"entity F1 in %, test sentences: {counts}; changes with 95% over seeds and sentences", columns, rows)
    for row in analysis["contrasts"]:
        say(contrast(analysis["primary"], row))
    for sentence in analysis["warnings"]:
        say(f"warning: {sentence}")


def contrast(primary: str, row: Mapping[str, Any]) -> str:
    """Say in one sentence how the arm in question did against another."""
    test = "one seed, so no test over seeds" if row["p"] is None else f"Holm p = {row['p_holm']:.3f}"
    return (
        f"{primary} against {row['against']}: {_points(row['estimate'], row['bootstrap'])} points of target F1 ({test})"
    )


def _score(numbers: Mapping[str, Any]) -> str:
    return estimate(numbers, factor=100, digits=1)


def _change(analysis: Mapping[str, Any], arm: str, domain: str) -> str:
    found = analysis["changes"].get(arm, {}).get(domain)
    return "" if found is None else _points(found["estimate"], found["bootstrap"])


def _points(estimate: float, ci: list[float] | None) -> str:
    text = f"{100 * estimate:+.1f}"
    return text if ci is None else f"{text} [{100 * ci[0]:.1f}, {100 * ci[1]:.1f}]"


def preview_synthetic(path: Path, overrides: list[str]) -> None:
    """Print what a run would do: the resolved config, the sentences, an example of prompt and answer, sizes."""
    recipe = resolve(SyntheticRecipe, path, overrides)
    from equipoise.pipelines.synthetic_preview import preview

    seen = preview(recipe)
    print(dump_yaml(recipe))
    for domain, counts in seen["counts"].items():
        kinds = ", ".join(seen["types"][domain])
        print(f"{domain + ':':10} " + ", ".join(f"{n} {split}" for split, n in counts.items()) + f"; types {kinds}")
    for note in seen["notes"]:
        print(f"           {note}")
    print(f"samples:   {seen['samples']:,} to draw")
    print(f"runs:      {seen['runs']}, of {seen['steps']} GRPO steps each")
    print(f"trainable: {seen['trainable']:,} of {seen['parameters']:,} parameters")
    print(f"memory:    {seen['memory']}")
    print(f"prompt:\n{seen['prompt']}\nthe model answers: {seen['answer']}")


def evaluate_synthetic(model: str, recipe: Path, overrides: list[str], out: Path | None) -> None:
    """Ask `model` for the entities of a recipe's test sentences, and print the scores; write the answers into `out`."""
    settings = resolve(SyntheticRecipe, recipe, [o for o in overrides if not o.startswith("model.")])
    target = trained_model(model, overrides, base=settings.model)
    if out:
        make_folder(out)  # before the work whose result it is to hold
    from equipoise.evaluation.extraction import summarise
    from equipoise.pipelines.synthetic_rl import evaluate

    rows = evaluate(settings, target)
    cells = []
    for domain in DOMAINS:
        own = [row for row in rows if row["domain"] == domain]
        found = summarise(own)
        cells.append([domain, str(len(own)), *(f"{100 * found[name]:.1f}" for name in SHOWN)])
    table(f"{model}, in %", ["domain", "n", *SHOWN.values()], cells)
    if out:
        write_jsonl(out / "predictions.jsonl", rows)
