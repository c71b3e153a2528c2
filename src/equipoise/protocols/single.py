"""What `run`, `protocol`, `demo`, `analyze` and `evaluate` do: a recipe resolved, run, analysed, shown and drawn."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from equipoise.catalogue import find
from equipoise.config import dump_yaml, load_yaml, resolve
from equipoise.console import say, table, visible
from equipoise.disk import make_folder
from equipoise.errors import UserError
from equipoise.journal import write_jsonl
from equipoise.pipelines.frontier_settings import FrontierRecipe
from equipoise.pipelines.settings import KnowledgeUpdateRecipe, ProtocolRecipe, names_a_folder
from equipoise.pipelines.trained import run_of, trained_model
from equipoise.protocols.before_after import cut_notes, known_of, unmeasured
from equipoise.records import IN_NATS, Result
from equipoise.report.build import build_report
from equipoise.runs import Run, kept

# The stages that each pipeline can be stopped after.
STAGES = {"confidence_tokens": ("data",), "synthetic_rl": ("samples", "labels"), "instruct": ("clean", "sft", "dpo")}


def run_recipe(
    recipe: str, overrides: list[str], out: Path | None, *, dry_run: bool = False, until: str = "end"
) -> Path | None:
    """Run a recipe into `out` (default `runs/NAME`), analyse it and build its report; return the run directory.

    Args:
        until: stop after this stage; the same call without it goes on from there.

    Raises:
        UserError: the recipe, the data or the model is at fault, `out` holds another run, or there is no such stage.
    """
    path = find(recipe)
    pipeline = load_yaml(path).get("pipeline")
    _check_stage(pipeline, until)
    if pipeline == "confidence_tokens":
        from equipoise.protocols.confidence import preview_confidence, run_confidence

        return preview_confidence(path, overrides) if dry_run else run_confidence(path, overrides, out, until=until)
    if pipeline == "synthetic_rl":
        from equipoise.protocols.synthetic import preview_synthetic, run_synthetic

        return preview_synthetic(path, overrides) if dry_run else run_synthetic(path, overrides, out, until=until)
    if pipeline == "instruct":
        from equipoise.protocols.instruct import preview_instruct, run_instruct

        return preview_instruct(path, overrides) if dry_run else run_instruct(path, overrides, out, until=until)
    if pipeline == "frontier":
        from equipoise.protocols.frontier import preview_frontier, run_frontier

        return preview_frontier(path, overrides) if dry_run else run_frontier(path, overrides, out)
    settings = resolve_grid(path, overrides)
    if dry_run:
        _preview(settings)
        return None
    from equipoise.protocols.knowledge import run_protocol

    folder = out or Run.named(Path("runs"), settings.name)
    with kept(folder):
        analysis = run_protocol(settings, folder)
    _hand_over(analysis, folder)
    return folder


def analyze_run(folder: Path, out: Path | None) -> None:
    """Score the stored answers of a finished knowledge update again, analyse it again, and build its report anew.

    Raises:
        UserError: it is no such run, its data have changed, or another folder is asked for.
    """
    if out is not None:
        raise UserError(
            "a run is analysed in its own folder", where="--out", fix=f"leave it out, or copy {folder} and analyse that"
        )
    from equipoise.protocols.rescoring import rescore

    _hand_over(rescore(folder), folder)


def _hand_over(analysis: dict[str, Any], folder: Path) -> None:
    """Show an analysis and build the report beside it."""
    show(analysis)
    page = build_report(folder)
    say(f"report:  {page}\nsummary: {folder / 'SUMMARY.md'}")


def check_recipe(name: str, recipe: str) -> None:
    """Check that a recipe sets up the protocol of that name.

    Raises:
        UserError: it sets up another.
    """
    found = load_yaml(find(recipe))
    pipeline = {"frontier": "frontier", "curriculum": "synthetic_rl"}.get(name, "knowledge_update")
    for field, is_, wanted in (
        ("pipeline", found.get("pipeline", "knowledge_update"), pipeline),
        ("protocol", found.get("protocol") or name, name),
    ):
        if is_ != wanted:
            raise UserError(
                f"this recipe sets up another protocol: its {field} is {is_}, that of {name} is {wanted}",
                where=f"{recipe}:{field}",
                fix=f"`equipoise run {recipe}` runs it as what it is",
            )


def _check_stage(pipeline: Any, until: str) -> None:
    stages = STAGES.get(pipeline, ()) if isinstance(pipeline, str) else ()
    if until != "end" and until not in stages:
        known = f"its stages are {', '.join(stages)}" if stages else "this recipe has one stage alone"
        raise UserError(f"there is no stage {until!r} to stop after", where="--until", fix=known)


def resolve_grid(path: Path, overrides: list[str]) -> ProtocolRecipe:
    """Read a recipe as a grid; a plain run is the grid of one arm, named by its objective, and one seed."""
    if "arms" in load_yaml(path):
        return resolve(ProtocolRecipe, path, overrides)
    single = resolve(KnowledgeUpdateRecipe, path, overrides)
    name = single.objective.name
    arm = name if names_a_folder(name) else "objective"  # that there is no such weighting is told later
    return ProtocolRecipe(**dict(single), arms={arm: single.objective}, seeds=[single.seed])


def show(analysis: dict[str, Any]) -> None:
    """Print one row an arm, the mean of each task over seeds with a 95% interval where there is one, and the findings.

    Of what must stay, the untrained model has in its row how much it knew: that is what the shares are of.
    """
    tasks = analysis["tasks"]
    rows = [["untrained", *(_before(analysis, task) for task in tasks)]]
    for arm, by_task in analysis["arms"].items():
        rows.append([arm, *(_cell(task, by_task.get(task)) for task in tasks)])
    mixed = any(task in IN_NATS for task in tasks)
    title = "share of right answers, in %"
    if mixed:
        title = f"shares in %; {' and '.join(task for task in tasks if task in IN_NATS)} in nats, less is better"
    if any(known_of(analysis, task) for task in tasks):
        title += "; of what must stay, shares of what the untrained model knew"
    table(title, ["arm", *tasks], rows)
    for hypothesis in analysis["hypotheses"]:
        say(f"{hypothesis['id']} {hypothesis['verdict']}: {hypothesis['sentence']}")
    changed = [sentence for said in analysis.get("before_and_after", {}).values() for sentence in said]
    for sentence in [*changed, *unmeasured(analysis), *cut_notes(analysis.get("cut_off", {}))]:
        say(visible(sentence))


def _before(analysis: dict[str, Any], task: str) -> str:
    known = known_of(analysis, task)
    return f"knew {known}" if known else _cell(task, {"mean": analysis["untrained"].get(task)})


def _number(task: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if task in IN_NATS else f"{100 * value:.1f}"


def _cell(task: str, numbers: dict[str, Any] | None) -> str:
    if numbers is None:
        return ""
    if not numbers.get("ci"):
        return _number(task, numbers["mean"])
    low, high = numbers["ci"]
    if task not in IN_NATS:
        low, high = min(max(low, 0.0), 1.0), min(max(high, 0.0), 1.0)  # a share goes no further
    return f"{_number(task, numbers['mean'])}  [{_number(task, low)}, {_number(task, high)}]"


def _preview(settings: ProtocolRecipe) -> None:
    """Print what a run would do: the resolved config, counts, one rendered example with its mask, sizes."""
    from equipoise.models.loading import load_model
    from equipoise.pipelines.knowledge_data import load_data
    from equipoise.pipelines.knowledge_plan import settle
    from equipoise.pipelines.knowledge_update import preview
    from equipoise.protocols.grid import cohorts
    from equipoise.protocols.knowledge import grid_of

    data, loaded = load_data(settings.data), load_model(settings.model)
    shown = settings
    settings, data = settle(settings, data, loaded, None)
    grid = grid_of(settings, data)
    groups = [len(group) for group in cohorts(grid, loaded)][1:]  # the first is the untrained model
    runs, together = sum(groups), max(groups)
    alone = runs > 1 and together == 1  # each but the last trains a copy of the base
    seen = preview(loaded, settings, data, bases=1 + alone, together=together)
    print(dump_yaml(shown))
    print("rows:      " + ", ".join(f"{count} {kind}" for kind, count in seen["counts"].items()))
    for note in seen["notes"]:
        print(f"           {note}")
    at_once = f", {together} trained together" if together > 1 else ""
    print(f"runs:      {runs}, of {seen['steps']} optimizer steps each{at_once}")
    print(f"trainable: {seen['trainable']:,} of {seen['parameters']:,} parameters")
    print(f"memory:    about {seen['memory_mb']:,.0f} MB for weights, gradients and optimizer, activations not counted")
    print("example (what carries loss stands in »«):")
    print(seen["example"])


def _named(row: Result) -> str:
    return row.task if row.metric == "accuracy" else f"{row.task}, {row.metric}"


def evaluate_model(model: str, recipe: str | None, overrides: list[str], out: Path | None) -> None:
    """Ask `model` the questions of a recipe, print the scores, and write item-level predictions into `out`.

    Without a recipe a run directory is asked its own questions, any other model those of `knowledge-update`.
    """
    run = run_of(Path(model))
    own = run / "config.yaml" if run and not recipe else find(recipe or "knowledge-update")
    pipeline = load_yaml(own).get("pipeline")
    if pipeline == "confidence_tokens":
        from equipoise.protocols.confidence import evaluate_confidence

        return evaluate_confidence(model, own, overrides, out)
    if pipeline == "synthetic_rl":
        from equipoise.protocols.synthetic import evaluate_synthetic

        return evaluate_synthetic(model, own, overrides, out)
    if pipeline == "instruct":
        from equipoise.protocols.instruct import evaluate_instruct

        return evaluate_instruct(model, own, overrides, out)
    frontier = pipeline == "frontier"
    settings = resolve(FrontierRecipe, own, overrides) if frontier else resolve_grid(own, overrides)
    target = trained_model(model, overrides, base=settings.model)
    if out:
        make_folder(out)  # before the work whose result it is to hold
    from equipoise.evaluation.knowledge import evaluate, summarise
    from equipoise.models.loading import load_model
    from equipoise.pipelines.frontier import load_frontier_data
    from equipoise.pipelines.knowledge_data import KnowledgeData, load_data, tasks
    from equipoise.pipelines.knowledge_plan import select_updates, updates_of_run

    loaded = load_model(target)

    def selected(data: KnowledgeData) -> KnowledgeData:
        """Take the run's own selection; any other model is asked what it contradicts itself."""
        if run and not recipe:
            return updates_of_run(settings.data, data, run)
        return select_updates(settings.data, data, loaded, None)

    if isinstance(settings, FrontierRecipe):  # rows that an arm rehearsed are no measure of what it keeps
        data = load_frontier_data(settings)
        asked = replace(data, known=selected(data.known)).tasks(rehearsed=settings.rehearses)
    else:
        asked = tasks(selected(load_data(settings.data)))
    predictions = evaluate(loaded, asked, method=Path(model).name, seed=settings.seed, how=settings.evaluation)
    rows = summarise(predictions, scoring=settings.evaluation.scoring)
    shown = [[_named(row), _number(row.task, row.value), str(row.n)] for row in rows]
    table(model, ["task", "right, in %", "n"], shown)
    if out:
        write_jsonl(out / "predictions.jsonl", [row.model_dump() for row in predictions])
    return None
