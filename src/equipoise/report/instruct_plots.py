"""Figures of an instruct run: the curves of SFT and DPO, and how far apart the answers of pairs lie."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from equipoise.report.arms import Arm
from equipoise.report.instruct_reading import DPO, LABELS, SFT, UNTRAINED, InstructRun
from equipoise.report.reading import Rows
from equipoise.report.svg import MUTED, Panel, panel, plain_percent
from equipoise.report.synthetic_training import Line, over_steps, over_validations

ARMS = {
    UNTRAINED: Arm(UNTRAINED, LABELS[UNTRAINED], "#7F7F7F", "X"),
    SFT: Arm(SFT, LABELS[SFT], "#D55E00", "s"),
    DPO: Arm(DPO, LABELS[DPO], "#0072B2", "o"),
}
STROKES = {UNTRAINED: ":", SFT: "--", DPO: "-"}
BINS, OUTER = 32, 1  # of a histogram; the share, in percent, that its first and last bin take in at least


@dataclass(frozen=True)
class Curve:
    """One line of a panel: a column of `metrics.jsonl`, or of `validation.jsonl`, which has dots."""

    key: str
    of_validation: bool = False
    dashed: bool = False


@dataclass(frozen=True)
class Curves:
    """One panel of a stage's training."""

    name: str
    stage: str
    title: str
    curves: tuple[Curve, ...]
    share: bool = False
    chance: float | None = None  # what a model that knows nothing would have


PANELS = (
    Curves("sft-loss", SFT, "SFT: loss, nats", (Curve("loss"), Curve("mean_example_loss", of_validation=True))),
    Curves("dpo-loss", DPO, "DPO: loss", (Curve("loss"),), chance=math.log(2)),
    Curves("dpo-margin", DPO, "DPO: reward margin", (Curve("rewards/margins"),), chance=0.0),
    Curves(
        "dpo-rewards", DPO, "DPO: rewards of both sides",
        (Curve("rewards/chosen"), Curve("rewards/rejected", dashed=True)), chance=0.0,
    ),
    Curves("dpo-accuracy", DPO, "DPO: rewards ranked right", (Curve("rewards/accuracies"),), True, 0.5),
    Curves("dpo-pairs", DPO, "DPO: pairs right, validation", (Curve("accuracy", of_validation=True),), True, 0.5),
)  # fmt: skip


def training(found: InstructRun) -> list[Panel]:
    """Draw what each stage left of its training: means over its seeds."""
    drawn = []
    for spec in PANELS:
        lines = [(curve, line) for curve in spec.curves if (line := _line(found, spec.stage, curve))[0]]
        if lines:
            words = " ".join(f"{c.key}: {y[0]:.3g} at first, {y[-1]:.3g} at the end." for c, (_, y) in lines)
            label = f"{spec.title}, over steps. {words}"
            drawn.append(panel(spec.name, label, lambda axes, spec=spec, lines=lines: _draw(axes, spec, lines)))
    return drawn


def _line(found: InstructRun, stage: str, curve: Curve) -> Line:
    source = found.validation if curve.of_validation else found.steps
    if stage not in source:
        return [], []
    return (over_validations if curve.of_validation else over_steps)(source, stage, curve.key)


def _draw(axes: Axes, spec: Curves, lines: Sequence[tuple[Curve, Line]]) -> None:
    arm, seen = ARMS[spec.stage], [value for _, (_, y) in lines for value in y]
    if spec.chance is not None:
        axes.axhline(spec.chance, color=MUTED, lw=1, ls=":")
        seen.append(spec.chance)
    for curve, (x, y) in lines:
        dots = curve.of_validation
        axes.plot(
            x, y, "--" if curve.dashed else "-", color=arm.colour, lw=1.2 if dots else 2,
            marker=arm.marker if dots else "", ms=5,
        )  # fmt: skip
    room = 0.08 * (max(seen) - min(seen)) + 0.01
    axes.set_ylim(min(seen) - room, max(seen) + room)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    if spec.share:
        plain_percent(axes.yaxis)
    axes.set_title(spec.title)
    axes.set_xlabel("optimizer step")
    last = max(x[-1] for _, (x, _) in lines)
    axes.set_xlim(-0.02 * last, 1.02 * last)


# ---- pairs


def margins(found: InstructRun) -> list[Panel]:
    """Draw how the pairs of all seeds spread: log-probability of the better answer less that of the worse one."""
    drawn = []
    for name, title, per_token in (("margins", "sum, nats", False), ("margins-token", "per token, nats", True)):
        values = {stage: _margins(found.pairs, stage, per_token) for stage in found.stages}
        values = {stage: own for stage, own in values.items() if own.size}
        if values:
            words = " ".join(
                f"{LABELS[stage]}: median {np.median(own):.2f}, {np.mean(own > 0):.0%} above 0."
                for stage, own in values.items()
            )
            label = f"Margins of pairs, {title}. {words}"
            drawn.append(panel(name, label, lambda axes, v=values, t=title: _draw_margins(axes, v, t), height=300))
    return drawn


def _margins(pairs: Rows, stage: str, per_token: bool) -> NDArray[np.float64]:
    rows = [row for row in pairs if row.get("method") == stage]
    better, worse = (
        np.array([row[f"{side}_logprob"] / (row[f"{side}_tokens"] if per_token else 1) for row in rows], float)
        for side in ("chosen", "rejected")
    )
    found = better - worse
    return found[np.isfinite(found)]


def _draw_margins(axes: Axes, values: Mapping[str, NDArray[np.float64]], title: str) -> None:
    everything = np.concatenate(list(values.values()))
    low, high = (float(end) for end in np.percentile(everything, [OUTER, 100 - OUTER]))
    low, high = min(low, 0.0) - 1e-9, max(high, 0.0) + 1e-9
    width = (high - low) / BINS
    # An edge lies at 0, so that no bar holds pairs of both sides.
    edges = np.arange(math.floor(low / width), math.ceil(high / width) + 1) * width
    axes.axvline(0, color=MUTED, lw=1, ls=":")
    for stage, own in values.items():
        counts, _ = np.histogram(np.clip(own, edges[0], edges[-1]), bins=edges)
        share = counts / own.size
        colour = ARMS[stage].colour
        axes.stairs(share, edges, color=colour, lw=1.8, ls=STROKES[stage])
        axes.stairs(share, edges, color=colour, alpha=0.12, fill=True)
    axes.set_ylim(bottom=0)
    plain_percent(axes.yaxis)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    axes.set_title("share of pairs", color=MUTED, fontweight="normal", fontsize=11)
    axes.set_xlabel(f"better less worse answer, {title}")
    axes.text(0.985, 1.03, "ranked right →", transform=axes.transAxes, ha="right", color=MUTED, fontsize=11)
