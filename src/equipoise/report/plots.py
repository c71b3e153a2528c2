"""Figures of a comparison of arms: trade-offs, learning curves and how well shock finds conflicts."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from equipoise.report.arms import UNTRAINED, Arm
from equipoise.report.svg import INK, MUTED, PAPER, Panel, panel, plain_log

CURVES = {
    "loss": "training loss (weighted)",
    "shocked_share": "share of tokens shocked",
    "mean_weight": "mean weight",
    "updates_weight": "weight of the tokens of updates",
    "keep_weight": "weight of the tokens of rows to keep",
}
BINS = 60


def trade_offs(analysis: Mapping[str, Any], arms: Mapping[str, Arm]) -> list[Panel]:
    """Draw correction against each task that training may harm: light points are seeds, bars are intervals."""
    tasks = [t for t in ("retention", "locality", "generalisation") if t in analysis["tasks"]]
    return [
        panel(
            f"trade-{task}",
            f"Correction against {task}, one mark per arm. " + _means(analysis, arms, task),
            lambda axes, task=task: draw_trade_off(axes, analysis, arms, task),
        )
        for task in tasks
        if "correction" in analysis["tasks"]
    ]


def draw_trade_off(axes: Axes, analysis: Mapping[str, Any], arms: Mapping[str, Arm], task: str) -> None:
    """Draw one trade-off: up is more corrected, right is more of `task` kept."""
    seen = []
    for name, scores in analysis["arms"].items():
        if task not in scores or "correction" not in scores:
            continue
        arm, x, y = arms[name], scores[task], scores["correction"]
        seen += [value for value in [*x["values"], *(x["ci"] or [])] if value is not None]
        dots = [pair for pair in zip(x["values"], y["values"]) if None not in pair]
        axes.plot(*zip(*dots), arm.marker, color=arm.colour, ms=4, alpha=0.35, mew=0, ls="none") if dots else None
        axes.errorbar(
            [x["mean"]], [y["mean"]], xerr=_arms_of(x), yerr=_arms_of(y), fmt=arm.marker, color=arm.colour,
            ms=8, mec=PAPER, mew=1, elinewidth=1.6, zorder=3,
        )  # fmt: skip
    untrained = analysis.get("untrained") or {}
    if untrained.get(task) is not None and untrained.get("correction") is not None:
        axes.plot([untrained[task]], [untrained["correction"]], UNTRAINED[1], color=UNTRAINED[0], ms=7, mew=2)
        seen.append(untrained[task])
    low, high = max(min(seen, default=0), -0.02), min(max(seen, default=1), 1.0)
    beside = max(0.08 * (high - low) + 0.01, 0.05 - (high - low) / 2)  # ten points at least, so that ticks differ
    axes.set_xlim(low - beside, high + beside)
    name_trade_off(axes, task)


def name_trade_off(axes: Axes, task: str) -> None:
    """Set the axes of a plane of correction, upwards, against `task`, to the right, both in percent."""
    axes.set_ylim(-0.04, 1.04)
    axes.set_xlabel(task)
    axes.set_title("correction", color=MUTED, fontweight="normal", fontsize=11)
    axes.text(0.985, 1.03, "better ↗", transform=axes.transAxes, ha="right", color=MUTED, fontsize=11)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:.0%}" if -1e-9 < share < 1 + 1e-9 else ""))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))


def _arms_of(scores: Mapping[str, Any]) -> NDArray[np.float64] | None:
    if not scores.get("ci") or None in scores["ci"]:
        return None
    low, high = scores["ci"]
    return np.array([[max(scores["mean"] - low, 0)], [max(high - scores["mean"], 0)]])


def _means(analysis: Mapping[str, Any], arms: Mapping[str, Arm], task: str) -> str:
    return " ".join(
        f"{arms[name].label}: {task} {scores[task]['mean']:.0%}, correction {scores['correction']['mean']:.0%}."
        for name, scores in analysis["arms"].items()
        if task in scores and "correction" in scores
    )


def learning_curves(
    metrics: Mapping[str, Mapping[str, list[dict[str, Any]]]], arms: Mapping[str, Arm], keys: Iterable[str] = CURVES
) -> list[Panel]:
    """Draw curves over optimizer steps: the mean over seeds, and a band from the lowest to the highest seed.

    Args:
        keys: which of `CURVES`, where the run has them.
    """
    return [
        panel(
            f"curve-{key}",
            f"{CURVES[key]} over steps, one line per arm",
            lambda axes, key=key: _draw_curve(axes, metrics, arms, key),
        )
        for key in keys
        if any(_finite(row.get(key)) for seeds in metrics.values() for rows in seeds.values() for row in rows)
    ]


def _draw_curve(axes: Axes, metrics: Mapping[str, Mapping[str, list]], arms: Mapping[str, Arm], key: str) -> None:
    lowest, highest = math.inf, -math.inf
    for name, seeds in metrics.items():
        steps, values = binned(seeds.values(), key)
        if not steps.size:
            continue
        mean = np.nanmean(values, axis=0)
        axes.fill_between(
            steps, np.nanmin(values, axis=0), np.nanmax(values, axis=0), color=arms[name].colour, alpha=0.18, lw=0
        )
        axes.plot(steps, mean, color=arms[name].colour, lw=1.8)
        lowest, highest = min(lowest, float(mean.min())), max(highest, float(mean.max()))
    if key == "shocked_share":
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.set_ylim(bottom=0)
    elif lowest > 0 and highest > 20 * lowest:
        axes.set_yscale("log")
        plain_log(axes.yaxis)
    axes.set_title(CURVES[key])
    axes.set_xlabel("optimizer step")
    axes.margins(x=0.01)


def binned(seeds: Iterable[list[dict[str, Any]]], key: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Average a column over neighbouring steps: bin centres [B] and values [seeds, B], empty bins left out."""
    columns = [
        np.array([(row["step"], row[key]) for row in rows if _finite(row.get(key)) and _finite(row.get("step"))])
        for rows in seeds
    ]
    columns = [column for column in columns if column.size]
    if not columns:
        return np.empty(0), np.empty((0, 0))
    last = max(column[:, 0].max() for column in columns)
    edges = np.linspace(min(column[:, 0].min() for column in columns) - 0.5, last + 0.5, min(BINS, int(last)) + 1)
    values = np.full((len(columns), edges.size - 1), np.nan)
    for i, column in enumerate(columns):
        where = np.digitize(column[:, 0], edges) - 1
        for b in np.unique(where):
            values[i, b] = column[where == b, 1].mean()
    filled = ~np.isnan(values).all(axis=0)
    return ((edges[:-1] + edges[1:]) / 2)[filled], values[:, filled]


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def detection_panels(detection: Mapping[str, Any]) -> list[Panel]:
    """Draw, by token and by fact, precision and recall over tau, and one against the other beside nll and chance."""
    drawn = []
    for side, word in (("by_token", "token"), ("by_fact", "fact")):
        if side not in detection:
            continue
        part = detection[side]
        drawn += [
            panel(
                f"tau-{word}",
                f"Precision and recall of shocked, by {word}, against the threshold tau",
                lambda axes, part=part, word=word: _draw_tau(axes, detection, part, word),
            ),
            panel(
                f"pr-{word}",
                f"Precision against recall, by {word}: shock, nll alone and chance",
                lambda axes, part=part, word=word: _draw_precision_recall(axes, part, word),
            ),
        ]
    return drawn


def _draw_tau(axes: Axes, detection: Mapping[str, Any], part: Mapping[str, Any], word: str) -> None:
    taus = [tau for tau in part["taus"] if tau > 0]
    start = len(part["taus"]) - len(taus)
    for key, line in (("precision", "-"), ("recall", "--")):
        axes.plot(taus, _floats(part[key][start:]), line, color=INK, lw=1.8)
    axes.set_xscale("log")
    plain_log(axes.xaxis)
    marks = [("tau in use", detection.get("tau_in_use"))]
    marks += [("ln V", math.log(detection["vocab_size"]))] if detection.get("vocab_size") else []
    for i, (text, at) in enumerate(marks):
        if at and taus and taus[0] <= at <= taus[-1]:
            axes.axvline(at, color=MUTED, lw=1, ls=("-", ":")[i])
            axes.annotate(
                text, (at, 0.5), xycoords=("data", "axes fraction"), xytext=((-4, 12)[i], 0), rotation=90,
                textcoords="offset points", ha="right", va="center", color=MUTED, fontsize=10,
            )  # fmt: skip
    _percent(axes, f"by {word}", "tau")


def _draw_precision_recall(axes: Axes, part: Mapping[str, Any], word: str) -> None:
    alone = part.get("nll_only") or {}
    axes.axhline(part["chance"], color=MUTED, lw=1, ls=":")
    if alone:
        axes.plot(_floats(alone["recall"]), _floats(alone["precision"]), "--", color="#D55E00", lw=1.8)
    axes.plot(_floats(part["recall"]), _floats(part["precision"]), "-", color="#0072B2", lw=1.8)
    _percent(axes, f"by {word}", "recall")
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlim(-0.02, 1.02)
    axes.text(0.985, 1.03, "precision ↑", transform=axes.transAxes, ha="right", color=MUTED)


def _floats(values: Iterable[float | None]) -> NDArray[np.float64]:
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def _percent(axes: Axes, title: str, x: str) -> None:
    axes.set_ylim(-0.02, 1.06)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_title(title)
    axes.set_xlabel(x)
