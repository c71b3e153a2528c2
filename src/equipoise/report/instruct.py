"""The page of an instruct run: findings first, then what each stage did, from raw rows to single answers."""

from equipoise.report import instruct_plots as plots
from equipoise.report import instruct_tables as tables
from equipoise.report.confidence_plots import STROKES
from equipoise.report.instruct_examples import answers, sanity
from equipoise.report.instruct_reading import DPO, DROPPED, LABELS, SFT, InstructRun
from equipoise.report.instruct_words import KINDS, counted, findings, removed
from equipoise.report.page import environment, frame, mapping, part, sequence


def render(found: InstructRun) -> str:
    """Render a run as one HTML page; the same run gives the same bytes."""
    run = found.run
    measured = mapping(found.analysis.get("scores"))
    return environment().get_template("instruct.html").render(
        **frame(run),
        line=what_was_run(found),
        story=story(found),
        several=len(found.seeds) > 1,
        over=part(run, "instruct.json", lambda: [counted(found, of) for of in KINDS if of in found.analysis["n"]]),
        by=mapping(run.config.get("evaluation")).get("by"),
        has_pairs=found.has_pairs,
        arms=[(plots.ARMS[name], STROKES[plots.STROKES[name]]) for name in found.stages],
        removed=part(run, "data.json", lambda: removed(found)),
        findings=part(run, "instruct.json", lambda: findings(found)),
        stages=part(run, "instruct.json", lambda: tables.stages(found)),
        changes=part(run, "instruct.json", lambda: tables.changes(found)),
        one_stage=len(measured) == 1,
        parts=part(run, "instruct.json", lambda: tables.parts(found)),
        cleaning=part(run, "data.json", lambda: tables.cleaning(found)),
        left_out=part(run, DROPPED, lambda: tables.left_out(found), empty_is_content=True),
        training=part(run, "metrics.jsonl", lambda: plots.training(found)),
        stops=part(run, "cells.jsonl", lambda: stops(found), empty_is_content=True),
        pairs=part(run, "pairs.jsonl", lambda: plots.margins(found)),
        answers=part(run, "predictions.jsonl", lambda: answers(found)),
        has_sanity=found.sanity is not None,
        sanity=part(run, "sanity.jsonl", lambda: sanity(found)),
        splits=part(run, "data.json", lambda: tables.splits(found)),
    )  # fmt: skip


def what_was_run(found: InstructRun) -> str:
    """Say in one line what was run: model, test questions and pairs, stages, seeds, device."""
    config, n = found.run.config, mapping(found.analysis.get("n"))
    model = config.get("model")
    model = model.get("path") if isinstance(model, dict) else model
    parts = [f"Model {model}"] if model else []
    named = (("answers", "test questions"), ("pairs", "test pairs"))
    parts += [f"{n[of]:,} {words}" for of, words in named if isinstance(n.get(of), int)]
    parts += [" then ".join(LABELS[name] for name in found.stages[1:])] if found.stages[1:] else []
    parts += [f"{len(found.seeds)} seed{'s' if len(found.seeds) > 1 else ''}"] if found.seeds else []
    parts += [f"device {found.run.manifest['device']}"] if found.run.manifest.get("device") else []
    return " · ".join(parts)


def story(found: InstructRun) -> str:
    """Tell a reader who knows nothing of it what was done."""
    did = {
        SFT: "Supervised fine-tuning (SFT) then taught the model these answers.",
        DPO: (
            "Direct preference optimisation (DPO) learned from pairs of answers to one question which of the two is "
            "better, without moving further than it must from the model it began with."
        ),
    }
    said = " ".join(did[name] for name in found.stages if name in did)
    return (
        "Raw rows were cleaned first: what is broken, stands there twice, may not be used or is in a held-out set was "
        f"left out. {said} After each stage the model answered the same held-out questions."
    )


def stops(found: InstructRun) -> list[str] | None:
    """Say of each stage and seed what did not go by the plan: stopped early, rows left out, broken steps."""
    if not found.cells:
        return None
    said: list[str] = []
    for row in found.cells:
        name = f"{LABELS.get(row['method'], row['method'])}, seed {row['seed']}"
        said += [f"{name}, stopped early: {row['stopped']}"] if row.get("stopped") else []
        dropped, broken = row.get("dropped"), len(sequence(row.get("anomalies")))
        said += [f"{name}: {dropped:,} rows could not be trained on and were left out."] if dropped else []
        said += [f"{name}: {broken:,} steps were passed over, for their numbers were not finite."] if broken else []
    return said
