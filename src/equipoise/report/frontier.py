"""The page of a frontier: what each method can reach, what it keeps at equal correction, and the points behind it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from equipoise.report.arms import UNTRAINED, Arm, styles
from equipoise.report.page import Verdict, environment, frame, mapping, part, sequence
from equipoise.report.plots import name_trade_off
from equipoise.report.reading import RunData, open_run, read_json
from equipoise.report.svg import MUTED, PAPER, Panel, panel
from equipoise.report.tables import TASK_WORDS

ANALYSIS = "frontier.json"
NONE_SHOWN, MORE, LESS = ("open", "none shown"), ("yes", "more kept"), ("no", "less kept")
NOT_TESTED = ("open", "one seed, no test")  # the sentence says what its items show


@dataclass
class FrontierRun:
    """What a frontier left; an analysis that could not be read is empty, and `run.problems` says why."""

    run: RunData
    analysis: dict[str, Any] = field(default_factory=dict)

    @property
    def arms(self) -> dict[str, Arm]:
        """Every arm with its style, in the order of the analysis, else of the recipe."""
        return styles(mapping(self.analysis.get("arms")) or mapping(self.run.config.get("arms")))


def read_frontier_run(path: Path) -> FrontierRun:
    """Read what the run left; nothing in it is changed.

    Raises:
        UserError: there is no such folder, or it holds no run.
    """
    run = open_run(path)
    return FrontierRun(run, read_json(run, ANALYSIS, dict) or {})


def render(found: FrontierRun, glyphs: Mapping[str, str]) -> str:
    """Render a frontier as one HTML page; the same run gives the same bytes."""
    run, analysis = found.run, found.analysis
    return environment().get_template("frontier.html").render(
        **frame(run),
        line=what_was_run(found),
        arms=found.arms,
        glyphs=glyphs,
        words=TASK_WORDS,
        against=analysis.get("against", ""),
        notes=[str(note) for note in sequence(analysis.get("notes"))],
        rehearses=any(mapping(arm).get("rehearse") for arm in mapping(run.config.get("arms")).values()),
        stops=any(mapping(arm).get("stopping") is not None for arm in mapping(run.config.get("arms")).values()),
        answers=part(run, ANALYSIS, lambda: [_answer(row) for row in analysis["answers"]]),
        planes=part(run, ANALYSIS, lambda: [plane(found, task) for task in analysis["kept"]]),
        tables=part(run, ANALYSIS, lambda: [matched(found, task) for task in analysis["kept"]]),
        fronts=part(run, ANALYSIS, lambda: fronts(found)),
    )  # fmt: skip


def what_was_run(found: FrontierRun) -> str:
    """Say in one line what was run: model, items, arms, settings, seeds, device."""
    config, analysis = found.run.config, found.analysis
    parts = [f"Model {mapping(config.get('model')).get('path')}"] if config.get("model") else []
    parts += [f"{n} {task} items" for task, n in mapping(analysis.get("n")).items()]
    rates = {*sequence(config.get("learning_rates"))}
    rates |= {rate for arm in mapping(config.get("arms")).values() for rate in mapping(arm).get("learning_rates") or []}
    counts = (("arm", found.arms), ("learning rate", rates))
    counts += (("reading", sequence(config.get("score_at"))), ("seed", sequence(analysis.get("seeds"))))
    parts += [f"{len(values)} {word}{'s' * (len(values) != 1)}" for word, values in counts if values]
    parts += [f"device {found.run.manifest['device']}"] if found.run.manifest.get("device") else []
    return " · ".join(parts)


def plane(found: FrontierRun, task: str) -> Panel:
    """Draw every training's readings, light, and each arm's front by the means over seeds, as a staircase."""
    rows = found.analysis["fronts"]
    sizes = {arm.label: len(rows[name][task]) for name, arm in found.arms.items()}
    best = [f"{label}: {n} setting{'s' * (n != 1)} on its front." for label, n in sizes.items()]
    return panel(
        f"front-{task}",
        f"Correction against {task}: one light mark a seed and setting, one line an arm. " + " ".join(best),
        lambda axes: _draw(axes, found, task),
        height=340,
    )


def _draw(axes: Axes, found: FrontierRun, task: str) -> None:
    points, arms = found.analysis["points"], found.arms
    for name, arm in arms.items():
        mine = [row for row in points if row["arm"] == name]
        x, y = [row[task] for row in mine], [row["correction"] for row in mine]
        axes.plot(x, y, arm.marker, color=arm.colour, ms=3.5, alpha=0.5, mew=0, ls="none")
    for name, arm in arms.items():
        front = sorted(found.analysis["fronts"][name][task], key=lambda row: (row["kept"], -row["correction"]))
        x, y = [row["kept"] for row in front], [row["correction"] for row in front]
        # what a front reaches lies left of and below its points: down to the axis from the last, left from the first
        axes.plot([0, *x, x[-1]], [y[0], *y, 0], drawstyle="steps-pre", color=arm.colour, lw=1.4, alpha=0.9)
        axes.plot(x, y, arm.marker, color=arm.colour, ms=6, mec=PAPER, mew=0.8, ls="none", zorder=3)
    before = found.analysis["untrained"]
    axes.plot([before[task]], [before["correction"]], UNTRAINED[1], color=UNTRAINED[0], ms=7, mew=2)
    for level in found.analysis["levels"]:
        axes.axhline(level, color=MUTED, lw=0.8, ls=":", zorder=0)
    low = min([before[task], *(row[task] for row in points)])
    axes.set_xlim(max(low - 0.05, -0.02), 1.03)
    name_trade_off(axes, task)


def matched(found: FrontierRun, task: str) -> dict[str, Any]:
    """Give the table of one task: a row an arm, a column a level of correction, and the hypervolume."""
    analysis, seeds = found.analysis, len(found.analysis["seeds"])
    rows = []
    for name, arm in found.arms.items():
        measured = analysis["arms"][name]
        columns = [(f"at {100 * row['level']:g}% corrected", row) for row in measured["matched"][task]]
        columns.append(("hypervolume", measured["hypervolume"][task]))
        rows.append({"arm": arm, "cells": [_cell(label, row, seeds) for label, row in columns]})
    return {"task": task, "rows": rows, "untrained": f"{100 * analysis['untrained'][task]:.1f}%"}


def _cell(label: str, row: Mapping[str, Any], seeds: int) -> dict[str, Any]:
    if row["mean"] is None:
        reached = f"in {row['reached']} of {seeds} seeds" if row["reached"] else ""
        return {"label": label, "text": "not reached", "notes": [reached] if reached else [], "kind": ""}
    notes = [f"{100 * row['ci'][0]:.1f} to {100 * row['ci'][1]:.1f}"] if row["ci"] else []
    notes += [f"({100 * row['corrected']:.1f}% corrected)"] if "corrected" in row else []
    notes += [_difference(row["against"])] if row.get("against") else []
    told, kind = row.get("against"), ""
    if told and told["p"] is not None and told["p_holm"] < 0.05:
        kind = "yes" if told["estimate"] > 0 else "no"
    return {
        "label": label,
        "text": f"{100 * row['mean']:.1f}%",
        "notes": notes,
        "kind": kind,
    }


def _difference(row: Mapping[str, Any]) -> str:
    text = _points(row["estimate"])
    text += f" [{_points(row['ci'][0])}, {_points(row['ci'][1])}]" if row["ci"] else ""
    if row["p"] is not None:
        text += ", p < 0.001" if row["p_holm"] < 0.001 else f", p = {row['p_holm']:.3f}"
    return text.replace("-", "−")


def _points(value: float) -> str:
    return f"{round(100 * value, 1) + 0.0:+.1f}"  # no -0.0


def _answer(row: Mapping[str, Any]) -> Verdict:
    kind, word = MORE if row.get("more") else LESS if row.get("less") else NONE_SHOWN
    if row.get("seeds") == 1 and row["level"] is not None:
        kind, word = NOT_TESTED
    return Verdict(row["task"], kind, word, row["sentence"])


def fronts(found: FrontierRun) -> list[dict[str, Any]]:
    """List the settings on each arm's front, with the means over seeds."""
    return [
        {"arm": arm, "task": task, "rows": [_setting(row) for row in found.analysis["fronts"][name][task]]}
        for task in found.analysis["kept"]
        for name, arm in found.arms.items()
    ]


def _setting(row: Mapping[str, Any]) -> str:
    when = "where it stopped" if row["epoch"] is None else f"{row['epoch']} epochs"
    return f"{row['learning_rate']:g}, {when}: {100 * row['correction']:.1f}% / {100 * row['kept']:.1f}%"
