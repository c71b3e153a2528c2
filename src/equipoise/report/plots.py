"""Figures of a comparison of arms: trade-offs, learning curves and how well shock finds conflicts."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from equipoise.records import IN_NATS
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
# What is drawn upwards, and to the right what training may harm.
TRADE_OFFS = (
    *(("correction", task) for task in ("retention", "functions", "locality", "general", "generalisation", "drift")),
    *(("efficacy", task) for task in ("preference kept", "drift")),
)


def trade_offs(analysis: Mapping[str, Any], arms: Mapping[str, Arm]) -> list[Panel]:
    """Draw what was corrected against what training may harm: light points are seeds, bars are intervals."""
    return [
        panel(
            f"trade-{of}-{task}".replace(" ", "-"),
            f"{of.capitalize()} against {task}, one mark per arm. " + _means(analysis, arms, task, of),
            lambda axes, task=task, of=of: draw_trade_off(axes, analysis, arms, task, of),
        )
        for of, task in TRADE_OFFS
        if {of, task} <= set(analysis["tasks"])
    ]


def draw_trade_off(
    axes: Axes, analysis: Mapping[str, Any], arms: Mapping[str, Arm], task: str, of: str = "correction"
) -> None:
    """Draw one trade-off: up is more of `of`, right is more of `task` kept, or further moved where it is in nats."""
    seen = []
    for name, scores in analysis["arms"].items():
        if task not in scores or of not in scores:
            continue
        arm, x, y = arms[name], scores[task], scores[of]
        seen += [value for value in [*x["values"], *(x["ci"] or [])] if value is not None]
        dots = [pair for pair in zip(x["values"], y["values"]) if None not in pair]
        axes.plot(*zip(*dots), arm.marker, color=arm.colour, ms=4, alpha=0.35, mew=0, ls="none") if dots else None
        axes.errorbar(
            [x["mean"]], [y["mean"]], xerr=_arms_of(x), yerr=_arms_of(y), fmt=arm.marker, color=arm.colour,
            ms=8, mec=PAPER, mew=1, elinewidth=1.6, zorder=3,
        )  # fmt: skip
    untrained = analysis.get("untrained") or {}
    if untrained.get(task) is not None and untrained.get(of) is not None:
        axes.plot([untrained[task]], [untrained[of]], UNTRAINED[1], color=UNTRAINED[0], ms=7, mew=2)
        seen.append(untrained[task])
    axes.set_xlim(*_limits(seen, share=task not in IN_NATS))
    name_trade_off(axes, task, of)


def drift_note(analysis: Mapping[str, Any]) -> str:
    """Say which way is better where something is drawn against drift."""
    return "; against drift, left is less moved" if "drift" in analysis["tasks"] else ""


def _limits(seen: list[float], *, share: bool) -> tuple[float, float]:
    if not share:
        low, high = max(min(seen, default=0), 0.0), max(seen, default=1)
        beside = 0.08 * (high - low) + 0.002
        return low - beside, high + beside
    low, high = max(min(seen, default=0), -0.02), min(max(seen, default=1), 1.0)
    beside = max(0.08 * (high - low) + 0.01, 0.05 - (high - low) / 2)  # ten points at least, so that ticks differ
    return low - beside, high + beside


def name_trade_off(axes: Axes, task: str, of: str = "correction") -> None:
    """Set the axes of a plane of a share, upwards, against `task`, to the right: in percent, or in nats per token."""
    moved = task in IN_NATS
    axes.set_ylim(-0.04, 1.04)
    axes.set_xlabel(f"{task}, nats per token (less is better)" if moved else task)
    axes.set_title(of, color=MUTED, fontweight="normal", fontsize=11)
    better = "↖ better" if moved else "better ↗"
    axes.text(0.985, 1.03, better, transform=axes.transAxes, ha="right", color=MUTED, fontsize=11)
    for axis in [axes.yaxis] if moved else [axes.xaxis, axes.yaxis]:
        axis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:.0%}" if -1e-9 < share < 1 + 1e-9 else ""))
    if moved:
        axes.xaxis.set_major_formatter(FuncFormatter(lambda nats, _: f"{nats:.3g}" if nats > -1e-9 else ""))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))


def _arms_of(scores: Mapping[str, Any]) -> NDArray[np.float64] | None:
    if not scores.get("ci") or None in scores["ci"]:
        return None
    low, high = scores["ci"]
    return np.array([[max(scores["mean"] - low, 0)], [max(high - scores["mean"], 0)]])


def _means(analysis: Mapping[str, Any], arms: Mapping[str, Arm], task: str, of: str) -> str:
    return " ".join(
        f"{arms[name].label}: {task} {_written(task, scores[task]['mean'])}, {of} {scores[of]['mean']:.0%}."
        for name, scores in analysis["arms"].items()
        if task in scores and of in scores
    )


def _written(task: str, value: float) -> str:
    return f"{value:.3f} nats per token" if task in IN_NATS else f"{value:.0%}"


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
