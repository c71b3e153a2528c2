"""Figures of an adaptation: what arms gained and lost, and how far the confidence of pseudo-labels can be trusted."""

from collections.abc import Iterable, Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from equipoise.metrics.entities import exact
from equipoise.report import confidence_plots
from equipoise.report.arms import Arm
from equipoise.report.page import mapping
from equipoise.report.svg import MUTED, PAPER, Panel, panel, plain_percent
from equipoise.report.synthetic_reading import UNTRAINED, SyntheticRun
from equipoise.report.synthetic_words import points

PRIMARY, PLAIN = ("#0072B2", "o"), ("#7F7F7F", "X")
OTHERS = [
    ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "v"), ("#E69F00", "P"), ("#56B4E9", "D"), ("#9467BD", "p"),
    ("#8C6D31", "h"), ("#B2B200", "*"),
]  # fmt: skip
SIGNALS = {
    "exact": ("#D55E00", "--"),
    "consensus": ("#009E73", "-."),
    "votes": ("#CC79A7", ":"),
    "logprob": ("#E69F00", "--"),
    "entropy": ("#56B4E9", "-."),
    "combined": ("#0072B2", "-"),
    "calibrated": ("#9467BD", "-"),
}
CALIBRATED = "calibrated"  # the confidence that training goes by


def styles(names: Iterable[str], primary: str) -> dict[str, Arm]:
    """Give every arm its colour and marker; the arm in question always has the same."""
    drawn, used = {}, 0
    for name in names:
        colour, marker = PRIMARY if name == primary else PLAIN if name == UNTRAINED else OTHERS[used % len(OTHERS)]
        used += name not in (primary, UNTRAINED)
        drawn[name] = Arm(name, name, colour, marker)
    return drawn


# ---- what was gained and lost


def trade_off(analysis: Mapping[str, Any], arms: Mapping[str, Arm]) -> list[Panel]:
    """Draw the change of F1 on the target against that on the source: a mark an arm, a light point a seed."""
    changes = analysis.get("changes") or {}
    changes = {name: by for name, by in changes.items() if by.get("target") and by.get("source")}
    if not changes:
        return []
    words = " ".join(
        f"{name}: target {points(by['target']['estimate'])}, source {points(by['source']['estimate'])}."
        for name, by in changes.items()
    )
    label = f"Change of F1 in points, target against source. {words}"
    return [panel("trade-off", label, lambda axes: _draw_trade_off(axes, changes, arms), height=320)]


def _draw_trade_off(axes: Axes, changes: Mapping[str, Any], arms: Mapping[str, Arm]) -> None:
    axes.axhline(0, color=MUTED, lw=1, ls=":")
    axes.axvline(0, color=MUTED, lw=1, ls=":")
    for name in sorted(changes, key=lambda name: arms[name].colour == PRIMARY[0]):  # the arm in question on top
        by = changes[name]
        arm, x, y = arms[name], by["source"], by["target"]
        axes.plot(x["by_seed"], y["by_seed"], arm.marker, color=arm.colour, ms=4, alpha=0.35, mew=0, ls="none")
        axes.errorbar(
            [x["estimate"]], [y["estimate"]], xerr=_bars(x), yerr=_bars(y), fmt=arm.marker, color=arm.colour,
            ms=8, mec=PAPER, mew=1, elinewidth=1.4, zorder=3,
        )  # fmt: skip
    axes.margins(0.08)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
        axis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value)))
    axes.set_xlabel("change of source F1, points")
    axes.set_title("change of target F1, points", color=MUTED, fontweight="normal", fontsize=11)
    axes.text(0.985, 1.03, "better ↗", transform=axes.transAxes, ha="right", color=MUTED, fontsize=11)


def _tick(value: float) -> str:
    return "0" if value == 0 else points(value).removesuffix(".0")


def _bars(row: Mapping[str, Any]) -> list[list[float]] | None:
    if not row.get("bootstrap"):
        return None
    low, high = row["bootstrap"]
    return [[max(row["estimate"] - low, 0)], [max(high - row["estimate"], 0)]]


# ---- the labels


def label_reliability(found: SyntheticRun) -> list[Panel]:
    """Draw how often labels are right against how sure they are: by the signal as it comes, then calibrated."""
    named = {"raw": found.first_quality.get("signal"), "calibrated": CALIBRATED}
    by_name = mapping(mapping(found.first_quality.get("quality")).get("signals"))
    bins = {kind: {"labels": mapping(by_name.get(str(name))).get("reliability")} for kind, name in named.items()}
    return confidence_plots.reliability({"reliability": bins}, ["labels"])


def is_graded(row: Mapping[str, Any]) -> bool:
    """Tell whether a pseudo-label has a right answer beside it and a confidence."""
    sure = row.get("confidence")
    return isinstance(row.get("gold"), list) and isinstance(sure, int | float) and 0 <= sure <= 1


def is_right(row: Mapping[str, Any]) -> bool:
    """Tell whether a pseudo-label is exactly the right answer."""
    own, gold = ([(kind, text) for kind, text in row[key]] for key in ("entities", "gold"))
    return exact(own, gold)


def label_risk(found: SyntheticRun) -> list[Panel]:
    """Draw the share of wrong labels among the surest ones against how many are taken, one line a signal."""
    by_name = mapping(mapping(found.first_quality.get("quality")).get("signals"))
    curves = {name: row["risk_coverage"] for name, row in by_name.items() if row.get("risk_coverage")}
    if not curves:
        return []
    words = " ".join(f"{name}: {_at_half(curve):.1%} wrong among the surest half." for name, curve in curves.items())
    label = f"Wrong labels among the surest. {words}"
    return [panel("label-risk", label, lambda axes: _draw_risk(axes, curves, found.first_quality), height=300)]


def _at_half(curve: list[list[float]]) -> float:
    return min(curve, key=lambda point: abs(point[0] - 0.5))[1]


def line_of(name: str) -> tuple[str, str]:
    """Give a signal's colour and kind of line."""
    return SIGNALS.get(name, confidence_plots.OTHER)


def _draw_risk(axes: Axes, curves: Mapping[str, Any], account: Mapping[str, Any]) -> None:
    used_signal = CALIBRATED if CALIBRATED in curves else account.get("signal")
    for name, curve in curves.items():
        colour, kind = line_of(name)
        used = name == used_signal
        axes.plot(*zip(*curve), kind, color=colour, lw=2.4 if used else 1.5, zorder=3 if used else 2)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(0, 1.08 * max(risk for curve in curves.values() for _, risk in curve) + 0.01)
    for axis in (axes.xaxis, axes.yaxis):
        plain_percent(axis)
    axes.set_title("wrong among the labels taken")
    axes.set_xlabel("labels taken, the surest first")
