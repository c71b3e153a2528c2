"""The weight of a token against its shock: where each arm's threshold and clamp stand, and where the tokens lie."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter

from equipoise.report.arms import Arm, Weighting
from equipoise.report.plane import DARK, FLOOR, VECTOR_POINTS, columns, short
from equipoise.report.svg import MUTED, Panel, panel, plain_log

HEIGHT = 380
LOWEST = 0.05  # shocks below are drawn at the edge


def weight_against_shock(
    tokens: Sequence[Mapping[str, Any]], arms: Mapping[str, Arm], weightings: Mapping[str, Weighting]
) -> Panel | None:
    """Draw the weights of all arms that have a shock threshold, over the training tokens; None if no arm has one.

    The points are the tokens before training, at the weight h: what an arm gives them below its threshold, and EAFT
    everywhere. The lines are what the arms give above their thresholds.
    """
    shown = {
        name: arm for name, arm in arms.items() if weightings[name].shock_line and weightings[name].params["alpha"]
    }
    if not shown or not tokens:
        return None
    said = " ".join(f"{arm.label}: from shock {weightings[name].params['tau']:.3g} on." for name, arm in shown.items())
    return panel(
        "weight-shock",
        f"Weight against shock of {len(tokens)} tokens before training. {said}",
        lambda axes: _draw(axes, tokens, shown, weightings),
        height=HEIGHT,
    )


def _draw(
    axes: Axes, tokens: Sequence[Mapping[str, Any]], arms: Mapping[str, Arm], weightings: Mapping[str, Weighting]
) -> None:
    h, nll = columns(tokens)
    shock = nll / (h + 1e-6)
    highest = max(w.params["alpha"] * w.params["clamp"] + 1 for name, w in weightings.items() if name in arms)
    last = max(w.params["tau"] * w.params["clamp"] for name, w in weightings.items() if name in arms)
    left, right = LOWEST, 2.0 * max(float(shock.max()), last)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(left, right)
    axes.set_ylim(FLOOR / 2, 3 * highest)
    conflict = np.array([bool(row.get("is_conflict")) for row in tokens])
    for mask, marker, size, colour in ((~conflict, "o", 8, MUTED), (conflict, "D", 18, DARK)):
        axes.scatter(
            np.maximum(shock[mask], left * 1.1), np.maximum(h[mask], FLOOR), s=size, c=colour, marker=marker,
            linewidths=0.3, edgecolors="white", alpha=0.6, rasterized=len(tokens) > VECTOR_POINTS,
        )  # fmt: skip
    axes.axhline(1.0, color=MUTED, lw=1, ls=":")
    shared = Counter(weightings[name].params["tau"] for name in arms)
    for weighting, alike in _alike(arms, weightings):
        _draw_line(axes, weighting, alike, right, at_jump=shared[weighting.params["tau"]] == len(alike))
    plain_log(axes.xaxis)
    plain_log(axes.yaxis)
    axes.xaxis.set_major_locator(FixedLocator([10.0**n for n in range(-1, 10)]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axes.set_xlabel("shock = nll / (h + ε)")
    axes.set_title("weight", color=MUTED, fontweight="normal", fontsize=11)


def _alike(arms: Mapping[str, Arm], weightings: Mapping[str, Weighting]) -> list[tuple[Weighting, list[Arm]]]:
    """Gather the arms that give the same weights: lines that would lie on each other."""
    found: list[tuple[Weighting, list[Arm]]] = []
    for name, arm in arms.items():
        same = next((mine for weighting, mine in found if weighting == weightings[name]), None)
        if same is None:
            found.append((weightings[name], [arm]))
        else:
            same.append(arm)
    return found


def _draw_line(axes: Axes, weighting: Weighting, arms: Sequence[Arm], right: float, *, at_jump: bool) -> None:
    """Draw the weights above a threshold, named where they jump, or at the right end where others jump there too."""
    tau, alpha, clamp = (weighting.params[key] for key in ("tau", "alpha", "clamp"))
    low, high, colour = 1 + alpha * min(1.0, clamp), 1 + alpha * clamp, arms[0].colour
    at = np.geomspace(tau, right, 200)
    line = "--" if weighting.moves else "-"
    axes.plot(at, 1 + alpha * np.minimum(at / tau, clamp), line, color=colour, lw=1.7, zorder=3)
    axes.plot([tau, tau], [FLOOR / 2, low], ":", color=colour, lw=1)
    axes.plot([tau], [low], arms[0].marker, color=colour, ms=5.5, zorder=4)
    if clamp > 1:
        axes.plot([tau * clamp], [high], "|", color=colour, ms=8, mew=1.7, zorder=4)
    place: dict[str, Any] = {"xy": (tau, low), "xytext": (-2, -5), "rotation": 90, "va": "top"}
    if not at_jump:
        place = {"xy": (right, high), "xytext": (-3, 2), "va": "bottom"}
    name = ", ".join(arm.label for arm in arms)
    axes.annotate(name, textcoords="offset points", ha="right", color=colour, fontsize=10, **place)
