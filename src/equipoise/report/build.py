"""Builds `report.html`: one file that works offline, from whatever a run directory holds."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from equipoise.journal import write_atomic
from equipoise.report import changes, confidence, frontier, heat, instruct, plane, plots, scan, shock, synthetic, tables
from equipoise.report.arms import GLYPHS, Arm, Weighting, styles, weighting_of
from equipoise.report.arms_table import arms_tables
from equipoise.report.confidence_reading import read_confidence_run
from equipoise.report.instruct_reading import read_instruct_run
from equipoise.report.page import Verdict, environment, frame, mapping, part, sequence
from equipoise.report.reading import RunData, open_run, read_run
from equipoise.report.synthetic_reading import read_synthetic_run

PAGES: dict[str, Callable[[Path], str]] = {
    "knowledge_update": lambda path: render(read_run(path)),
    "confidence_tokens": lambda path: confidence.render(read_confidence_run(path)),
    "synthetic_rl": lambda path: synthetic.render(read_synthetic_run(path)),
    "instruct": lambda path: instruct.render(read_instruct_run(path)),
    "frontier": lambda path: frontier.render(frontier.read_frontier_run(path), GLYPHS),
}
# which analysis is whose
LEFT = {
    "confidence.json": "confidence_tokens",
    "synthetic.json": "synthetic_rl",
    "instruct.json": "instruct",
    "frontier.json": "frontier",
}


def build_report(run_dir: Path, out: Path | None = None) -> Path:
    """Write the report of a run and return its path (default: `report.html` in the run directory).

    A section whose input is missing or damaged is left out with a sentence that says so.

    Raises:
        UserError: the folder does not exist or holds no run.
    """
    if (Path(run_dir) / scan.SCAN).is_file():
        return scan.build_scan_report(Path(run_dir), out)
    run = open_run(Path(run_dir))
    target = Path(out) if out is not None else run.path / "report.html"
    write_atomic(target, PAGES[pipeline_of(run)](run.path))
    return target


def pipeline_of(run: RunData) -> str:
    """Name the pipeline that made a run; where its recipe does not say, by the analysis it left."""
    named = run.config.get("pipeline")
    if isinstance(named, str) and named in PAGES:
        return named
    return next((pipeline for file, pipeline in LEFT.items() if (run.path / file).exists()), "knowledge_update")


def render(run: RunData) -> str:
    """Render a comparison of arms as one HTML page; the same run gives the same bytes."""
    analysis = run.analysis or tables.simple_analysis(run) or {}
    arms = styles(run.arms)
    hidden = not_applicable(run)
    for file in hidden.values():
        run.problems.pop(file, None)
    curves = styles([*arms, *(name for name in run.metrics if name not in arms)])
    return environment().get_template("report.html").render(
        **frame(run),
        hidden=hidden,
        several_seeds=len(sequence(analysis.get("seeds"))) > 1,
        line=tables.what_was_run(run, analysis),
        task_words=tables.TASK_WORDS,
        glyphs=GLYPHS,
        arms=arms,
        curve_arms={name: arm for name, arm in curves.items() if name in run.metrics},
        notes=[str(note) for note in sequence(analysis.get("notes"))],
        verdicts=part(run, "analysis.json", lambda: tables.verdicts(analysis)),
        findings=part(run, "analysis.json", lambda: _findings(analysis)),
        unmeasured=_unmeasured(analysis),
        table=part(run, "results.json", lambda: arms_tables(run, analysis, arms)),
        changes=part(run, "changes.jsonl", lambda: changes.by_arm(run, arms)),
        drift_note=plots.drift_note(analysis) if isinstance(analysis.get("tasks"), list) else "",
        trade=part(run, "analysis.json", lambda: plots.trade_offs(analysis, arms) if analysis else None),
        curves=part(run, "metrics.jsonl", lambda: plots.learning_curves(run.metrics, curves)),
        plane=part(run, "tokens.jsonl", lambda: _planes(run, arms)),
        heat=part(run, "tokens.jsonl", lambda: heat.heat_map(run.tokens, run.predictions, arms)),
        heat_scale=heat.heat_scale(),
        hottest=heat.HOTTEST,
        detection=part(run, "detection.json", lambda: run.detection and plots.detection_panels(run.detection)),
        ap=_average_precision(run.detection or {}),
        missed=part(run, "missed.json", lambda: tables.missed(run.missed), empty_is_content=True),
    )  # fmt: skip


def not_applicable(run: RunData) -> dict[str, str]:
    """Name the sections that this run cannot have, with their files; they are passed over without a word."""
    hidden = {}
    arms, model = run.config.get("arms"), run.config.get("model")
    if run.missed is None and isinstance(arms, dict) and not {"sft", "r-eaft"} <= set(arms):
        hidden["missed"] = "missed.json"
    if run.detection is None and isinstance(model, dict) and model.get("path") != "testbed":
        hidden["detection"] = "detection.json"  # whose truth is known only there
    if isinstance(arms, dict) and len(arms) == 1:
        hidden["trade-off"] = ""  # one arm trades nothing against another
    return hidden


def _findings(analysis: Mapping[str, Any]) -> dict[str, list[str]]:
    """Take what a run without claims found, in sentences by arm."""
    found = mapping(analysis.get("before_and_after"))
    return {str(arm): [str(sentence) for sentence in sequence(sentences)] for arm, sentences in found.items()}


def _unmeasured(analysis: Mapping[str, Any]) -> list[Verdict]:
    """Name the tasks that tell nothing here, each with why and what to ask instead."""
    reasons = {task: str(reason) for task, reason in mapping(analysis.get("cannot_tell")).items()}
    return [
        Verdict(str(task), "blind", tables.CANNOT_TELL, f"{reason[:1].upper()}{reason[1:]}.")
        for task, reason in reasons.items()
    ]


def _planes(run: RunData, arms: Mapping[str, Arm]) -> dict[str, Any] | None:
    if not run.tokens:
        return None
    vocab = (run.detection or {}).get("vocab_size")
    weightings = shown_weightings(run, arms)
    return {
        "panels": plane.planes(run.tokens, arms, weightings, vocab),
        "shock": shock.weight_against_shock(run.tokens, arms, weightings),
        "scale": plane.weight_scale(),
        "n": len(run.tokens),
        "conflicts": sum(bool(row.get("is_conflict")) for row in run.tokens),
        "line": any(weighting.shock_line for weighting in weightings.values()),
        "moves": any(weighting.moves for weighting in weightings.values()),
        "ln_v": math.log(vocab) if vocab else None,
    }


def shown_weightings(run: RunData, arms: Mapping[str, Arm]) -> dict[str, Weighting]:
    """Give every arm's objective; a threshold that moves stands where the untrained model's tokens put it."""
    shocks = [row["shock"] for row in run.tokens]
    return {name: weighting_of(run.config, name).after(shocks) for name in arms}


def _average_precision(detection: Mapping[str, Any]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for word in ("token", "fact"):
        side = mapping(detection.get(f"by_{word}"))
        found[word] = _number(side.get("average_precision"))
        found[f"nll_{word}"] = _number(mapping(side.get("nll_only")).get("average_precision"))
    return found


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) else None
