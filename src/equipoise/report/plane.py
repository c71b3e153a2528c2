"""What an arm listens to: training tokens by entropy, nll and shock, and the weight it gives to every place."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, TwoSlopeNorm, to_hex
from matplotlib.ticker import NullLocator
from numpy.typing import NDArray

from equipoise.report.arms import Arm, Weighting
from equipoise.report.svg import Panel, panel, plain_log

LOW, HIGH = -2.0, 1.5  # log10 of the weight: 0.01 or less, 1, 31 or more
# Purple, white, orange, mixed with white so that the points stand out everywhere.
COLOURS = ListedColormap(0.35 + 0.65 * matplotlib.colormaps["PuOr_r"](np.linspace(0.08, 0.92, 256)))
SCALE = TwoSlopeNorm(vmin=LOW, vcenter=0.0, vmax=HIGH)
DARK = "#111111"  # the background is light in a dark page too
FLOOR = 1e-4  # what is smaller is drawn at the edge
GRID = 160
VECTOR_POINTS = 1000  # more points than this on a page are drawn as pixels, to keep it small
PROBABILITIES = {0.999: "0.999", 0.99: "0.99", 0.9: "0.9", 0.5: "0.5", 0.1: "0.1", 1e-3: "0.001", 1e-8: "1e-8"}
REGIONS = (  # as the R-EAFT report names them: text, x and y of the axes, alignment, slant
    ("confident conflict", 0.03, 0.76, "left", "italic"),
    ("stable", 0.33, 0.05, "left", "italic"),
    ("uncertain", 0.97, 0.47, "right", "italic"),
)


def planes(
    tokens: Sequence[Mapping[str, Any]], arms: Mapping[str, Arm], weightings: Mapping[str, Weighting], vocab: int | None
) -> list[Panel]:
    """Draw one plane per arm, all with the same axes and colours."""
    limits, pixels = plane_limits(tokens), len(tokens) * len(arms) > VECTOR_POINTS
    return [
        panel(
            f"plane-{index}",
            f"Entropy and nll of {len(tokens)} tokens before training, and the weight that {arm.label} gives them",
            lambda axes, arm=arm: _draw_panel(axes, tokens, arm, weightings[arm.name], limits, vocab, pixels),
        )
        for index, arm in enumerate(arms.values())
    ]


def _draw_panel(
    axes: Axes,
    tokens: Sequence[Mapping[str, Any]],
    arm: Arm,
    weighting: Weighting,
    limits: tuple[float, float, float, float],
    vocab: int | None,
    pixels: bool,
) -> None:
    """Draw one arm's plane with the names of its regions, its threshold, and the probability on the right."""
    left, bottom, _, height = axes.get_position().bounds
    axes.set_position((left, bottom, 0.81 - left, height))
    draw_plane(axes, tokens, arm, weighting, limits, vocab, pixels=pixels)
    words = [*REGIONS]
    words += [(threshold_words(weighting), 0.97, 0.05, "right", "normal")] if weighting.shock_line else []
    for text, x, y, side, slant in words:
        axes.text(
            x, y, text, transform=axes.transAxes, ha=side, va="bottom", fontsize=10, fontstyle=slant, color=DARK,
            bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1.2}, zorder=4,
        )  # fmt: skip
    beside = axes.twinx()
    beside.set_yscale("log")
    beside.set_ylim(limits[2:])
    shown = {-math.log(p): label for p, label in PROBABILITIES.items() if limits[2] <= -math.log(p) <= limits[3]}
    beside.set_yticks(list(shown), list(shown.values()))
    beside.yaxis.set_minor_locator(NullLocator())
    beside.set_ylabel("probability of the token", labelpad=2)
    beside.grid(False)


def threshold_words(weighting: Weighting) -> str:
    """Say where a shock threshold stands and which weights it gives above."""
    tau, alpha, clamp = (weighting.params[name] for name in ("tau", "alpha", "clamp"))
    at = f"τ moves, {short(tau)} here" if weighting.moves else f"τ = {short(tau)}"
    low, high = 1 + alpha * min(1.0, clamp), 1 + alpha * clamp
    return f"{at}\nweight {low:g}" + (f" to {high:g}" if high > low else "")


def short(value: float) -> str:
    """Write a positive number with at most three figures, and thousands as k: 0.6, 17.9k, 2M."""
    for limit, unit in ((1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}"


def plane_limits(tokens: Sequence[Mapping[str, Any]]) -> tuple[float, float, float, float]:
    """Give the limits (h low, h high, nll low, nll high) of the axes, in whole decades at the low end."""
    h, nll = columns(tokens)
    low_h = 10 ** math.floor(math.log10(max(np.quantile(h, 0.01), FLOOR)))
    low_nll = 10 ** math.floor(math.log10(max(np.quantile(nll, 0.01), FLOOR)))
    return min(low_h, 0.1), 1.0, min(low_nll, 0.1), max(20.0, 1.3 * float(nll.max()))


def columns(tokens: Sequence[Mapping[str, Any]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Take h [N] and nll [N] out of the rows."""
    return np.array([row["h"] for row in tokens], float), np.array([row["nll"] for row in tokens], float)


def draw_plane(
    axes: Axes,
    tokens: Sequence[Mapping[str, Any]],
    arm: Arm,
    weighting: Weighting,
    limits: tuple[float, float, float, float],
    vocab: int | None,
    *,
    pixels: bool = False,
) -> None:
    """Draw one arm's plane: weight as background where its form is known, else as the colour of the points.

    Args:
        pixels: draw the points as an image, which is smaller where they are many.
    """
    h0, h1, n0, n1 = limits
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(h0, h1)
    axes.set_ylim(n0, n1)
    axes.grid(False)
    weight = weighting.weight
    if weight is not None:
        _background(axes, weight, limits)
    line = weighting.shock_line
    if line:
        at = np.geomspace(h0, h1, 100)
        axes.plot(at, line[0] * (at + line[1]), color=DARK, lw=1.5, ls="--" if weighting.moves else "-")
        if vocab:
            axes.plot(at, at * math.log(vocab), color=DARK, lw=1, ls=":")
    h, nll = columns(tokens)
    h, nll = np.clip(h, h0 * 1.06, h1), np.clip(nll, n0 * 1.1, n1)
    conflict = np.array([bool(row.get("is_conflict")) for row in tokens])
    colours = None if weight is not None else _point_colours(tokens, arm.name)
    for mask, marker, size, fill in ((~conflict, "o", 9, "#3d444d"), (conflict, "D", 22, DARK)):
        if not mask.any():
            continue
        face = fill if colours is None else [c for c, on in zip(colours, mask) if on]
        edge = "white" if colours is None else DARK
        rim = 0.0 if colours is None and size < 10 else 0.3
        axes.scatter(
            h[mask], nll[mask], s=size, c=face, marker=marker, edgecolors=edge, linewidths=rim,
            alpha=0.85, zorder=3, rasterized=pixels, clip_on=False,
        )  # fmt: skip
    axes.set_title(arm.label)
    axes.set_xlabel("normalized entropy h (unsure →)")
    axes.set_ylabel("nll (wrong →)", labelpad=1)
    plain_log(axes.xaxis)
    plain_log(axes.yaxis)


def _background(axes: Axes, weight: Any, limits: tuple[float, float, float, float]) -> None:
    h0, h1, n0, n1 = limits
    h, nll = np.meshgrid(np.geomspace(h0, h1, GRID), np.geomspace(n0, n1, GRID))
    image = COLOURS(SCALE(np.clip(np.log10(np.maximum(weight(nll, h), 1e-9)), LOW, HIGH)))
    # imshow wants linear axes; a second, linear pair underneath keeps the picture to one small image
    under = axes.inset_axes((0, 0, 1, 1), zorder=-1)
    under.imshow(image, origin="lower", aspect="auto", interpolation="none", extent=(0, 1, 0, 1))
    under.set_axis_off()
    axes.patch.set_facecolor("none")


def _point_colours(tokens: Sequence[Mapping[str, Any]], arm: str) -> list[str] | None:
    weights = [(row.get("weights") or {}).get(arm) for row in tokens]
    found = [weight for weight in weights if weight is not None]
    return [weight_colour(weight) for weight in found] if len(found) == len(weights) else None


def weight_colour(weight: float) -> str:
    """Give the colour of a weight on the scale that all planes share."""
    return to_hex(COLOURS(float(SCALE(min(max(math.log10(max(weight, 1e-9)), LOW), HIGH)))))


def weight_scale() -> list[tuple[str, str]]:
    """Give (label, colour) from the smallest weight to the largest, for a legend."""
    marks = [("≤ 0.01", 0.01), ("0.1", 0.1), ("0.3", 0.3), ("1", 1.0), ("3", 3.0), ("10", 10.0), ("≥ 31", 31.7)]
    return [(label, weight_colour(weight)) for label, weight in marks]
