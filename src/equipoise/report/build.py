"""Builds `report.html`: one file that works offline, from whatever a run directory holds."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from equipoise.journal import write_atomic
from equipoise.report import heat, plane, plots, tables
from equipoise.report.arms import Arm, styles, weighting_of
from equipoise.report.reading import RunData, read_run

GLYPHS = {"s": "■", "^": "▲", "o": "●", "D": "◆", "v": "▼", "P": "✚", "X": "✖", "p": "⬟", "h": "⬢", "*": "★"}


@dataclass(frozen=True)
class Part:
    """One section: what it shows, or why it shows nothing."""

    content: Any = None
    why: str = ""


def build_report(run_dir: Path, out: Path | None = None) -> Path:
    """Write the report of a run and return its path (default: `report.html` in the run directory).

    A section whose input is missing or damaged is left out with a sentence that says so.

    Raises:
        UserError: the folder does not exist or holds no run.
    """
    run = read_run(Path(run_dir))
    target = Path(out) if out is not None else run.path / "report.html"
    write_atomic(target, render(run))
    return target


def render(run: RunData) -> str:
    """Render a run as one HTML page; the same run gives the same bytes."""
    analysis = run.analysis or tables.simple_analysis(run) or {}
    arms = styles(run.arms)
    hidden = not_applicable(run)
    for file in hidden.values():
        run.problems.pop(file, None)
    curves = styles([*arms, *(name for name in run.metrics if name not in arms)])
    return _environment().get_template("report.html").render(
        run=run,
        title=str(run.config.get("name") or run.path.resolve().name),
        description=run.config.get("description"),
        hidden=hidden,
        line=tables.what_was_run(run, analysis),
        counts=tables.item_counts(run),
        task_words=tables.TASK_WORDS,
        glyphs=GLYPHS,
        arms=arms,
        curve_arms={name: arm for name, arm in curves.items() if name in run.metrics},
        notes=[str(note) for note in _list(analysis.get("notes"))],
        verdicts=_part(run, "analysis.json", lambda: tables.verdicts(analysis)),
        changes=_part(run, "analysis.json", lambda: tables.before_and_after(run)),
        table=_part(run, "results.json", lambda: _table(analysis, arms)),
        trade=_part(run, "analysis.json", lambda: plots.trade_offs(analysis, arms) if analysis else None),
        curves=_part(run, "metrics.jsonl", lambda: plots.learning_curves(run.metrics, curves)),
        plane=_part(run, "tokens.jsonl", lambda: _planes(run, arms)),
        heat=_part(run, "tokens.jsonl", lambda: heat.heat_map(run.tokens, run.predictions, arms)),
        heat_scale=heat.heat_scale(),
        hottest=heat.HOTTEST,
        detection=_part(run, "detection.json", lambda: run.detection and plots.detection_panels(run.detection)),
        ap=_average_precision(run.detection or {}),
        missed=_part(run, "missed.json", lambda: tables.missed(run.missed), empty_is_content=True),
        manifest=json.dumps(run.manifest, indent=2, ensure_ascii=False, sort_keys=True) if run.manifest else "",
        versions=_mapping(run.manifest.get("versions")),
    )  # fmt: skip


def not_applicable(run: RunData) -> dict[str, str]:
    """Name the sections that this run cannot have, with their files; they are passed over without a word."""
    hidden = {}
    arms, model = run.config.get("arms"), run.config.get("model")
    if run.missed is None and isinstance(arms, dict) and not {"sft", "r-eaft"} <= set(arms):
        hidden["missed"] = "missed.json"
    if run.detection is None and isinstance(model, dict) and model.get("path") != "testbed":
        hidden["detection"] = "detection.json"  # whose truth is known only there
    return hidden


def _part(run: RunData, file: str, make: Callable[[], Any], *, empty_is_content: bool = False) -> Part:
    """Make a section, or say in a sentence why it cannot be made."""
    try:
        content = make()
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        return Part(why=f"Left out: {file} does not have the expected form ({type(error).__name__}: {error}).")
    if content or (empty_is_content and content is not None):
        return Part(content)
    return Part(why=f"Left out: {run.problems.get(file, f'{file} holds nothing to show here.')}")


def _table(analysis: Mapping[str, Any], arms: Mapping[str, Arm]) -> dict[str, Any] | None:
    if not analysis:
        return None
    tasks = list(analysis["tasks"])
    shares = analysis.get("correction_share_of_sft") or {}
    rows = [
        {
            "arm": arms[name],
            "values": [tables.value(task, scores.get(task)) for task in tasks],
            "share": tables.value("correction, share of SFT's", shares.get(name), highest=math.inf),
            "safety": tables.safety(analysis, name),
        }
        for name, scores in analysis["arms"].items()
    ]
    untrained = [tables.value(task, (analysis.get("untrained") or {}).get(task)) for task in tasks]
    return {"tasks": tasks, "rows": rows, "untrained": untrained, "shares": bool(shares)}


def _planes(run: RunData, arms: Mapping[str, Arm]) -> dict[str, Any] | None:
    if not run.tokens:
        return None
    vocab = (run.detection or {}).get("vocab_size")
    weightings = {name: weighting_of(run.config, name) for name in arms}
    lines = [weighting.shock_line for weighting in weightings.values() if weighting.shock_line]
    return {
        "panels": plane.planes(run.tokens, arms, weightings, vocab),
        "scale": plane.weight_scale(),
        "n": len(run.tokens),
        "conflicts": sum(bool(row.get("is_conflict")) for row in run.tokens),
        "tau": lines[0][0] if lines else None,
        "ln_v": math.log(vocab) if vocab else None,
    }


def _average_precision(detection: Mapping[str, Any]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for word in ("token", "fact"):
        side = _mapping(detection.get(f"by_{word}"))
        found[word] = _number(side.get("average_precision"))
        found[f"nll_{word}"] = _number(_mapping(side.get("nll_only")).get("average_precision"))
    return found


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) else None


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("equipoise.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["short"] = lambda value: "–" if value is None else f"{value:.3g}"
    return environment
