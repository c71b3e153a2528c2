"""Figures of training on pseudo-labels, one small panel a measure and one line an arm."""

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from equipoise.report.arms import Arm
from equipoise.report.confidence_training import points
from equipoise.report.plots import binned
from equipoise.report.reading import Curves, Rows
from equipoise.report.svg import MUTED, Panel, panel, plain_percent
from equipoise.report.synthetic_reading import SyntheticRun

SHARES = {"share", "target/f1", "source/f1", "target/valid", "equal_share_first", "non_empty"}
OF_STEPS = {
    "share": "labels in use",
    "reward": "reward",
    "kl": "KL from the untrained model",
    "entropy": "entropy of the answers, nats a token",
    "equal_share_first": "groups with equal rewards, first draw",
    "non_empty": "answers that name an entity",
}
OF_DEV = {
    "target/f1": "target F1, dev sentences",
    "source/f1": "source F1, dev sentences",
    "target/valid": "readable as JSON, dev sentences",
    "forward_kl": "KL on held-out prompts, dev",
}
ORDER = (
    "share", "reward", "target/f1", "source/f1", "kl", "forward_kl", "target/valid", "entropy", "equal_share_first",
    "non_empty",
)  # fmt: skip
SMOOTH = 5  # neighbouring bins that a line of steps is averaged over
Line = tuple[list[float], list[float]]


def training(found: SyntheticRun, arms: Mapping[str, Arm]) -> list[Panel]:
    """Draw each measure that some arm has over its steps: the mean of its seeds, the arm in question thicker."""
    drawn = []
    starts = stage_starts(found)
    for key in ORDER:
        lines = _lines(found, key)
        if lines:
            title = OF_STEPS.get(key) or OF_DEV[key]
            words = " ".join(f"{arm}: {y[0]:.3g} at first, {y[-1]:.3g} at the end." for arm, (_, y) in lines.items())
            drawn.append(
                panel(
                    f"training-{key.replace('/', '-')}",
                    f"{title}, over steps. {words}",
                    lambda axes, key=key, lines=lines: _draw(axes, key, lines, arms, found.primary, starts),
                )
            )
    return drawn


def stage_starts(found: SyntheticRun) -> list[int]:
    """Give the steps at which the stages of the arm in question begin, without the first."""
    rows = next(iter((found.steps.get(found.primary) or {}).values()), [])
    rows = [row for row in rows if isinstance(row.get("stage"), int) and isinstance(row.get("step"), int)]
    return [row["step"] for before, row in pairwise(rows) if row["stage"] != before["stage"]]


def _lines(found: SyntheticRun, key: str) -> dict[str, Line]:
    curves = found.steps if key in OF_STEPS else found.validation
    averaged = over_steps if key in OF_STEPS else over_validations
    lines = {arm: averaged(curves, arm, key) for arm in curves}
    return {arm: line for arm, line in lines.items() if line[0]}


def over_steps(curves: Curves, arm: str, key: str) -> Line:
    """Average over seeds and, except for what follows a plan, over neighbouring steps."""
    x, values = binned(curves[arm].values(), key)
    if not x.size:
        return [], []
    mean = np.nanmean(values, axis=0)
    if key != "share":
        window = np.ones(min(SMOOTH, mean.size))  # a longer one would lengthen the line
        mean = np.convolve(mean, window, "same") / np.convolve(np.ones_like(mean), window, "same")
    return x.tolist(), mean.tolist()


def over_validations(curves: Curves, arm: str, key: str) -> Line:
    """Average over seeds, at the steps at which all of them were validated."""
    by_step: dict[float, list[float]] = {}
    for rows in curves[arm].values():
        for step, value in points([{"step": row.get("step"), key: row.get(key)} for row in rows], key):
            by_step.setdefault(step, []).append(value)
    # A seed may have stopped early: a mean over other seeds than before would look like a jump.
    full = {step: values for step, values in sorted(by_step.items()) if len(values) == len(curves[arm])}
    return list(full), [math.fsum(values) / len(values) for values in full.values()]


def _draw(
    axes: Axes, key: str, lines: Mapping[str, Line], arms: Mapping[str, Arm], primary: str, starts: list[int]
) -> None:
    for step in starts:
        axes.axvline(step, color=MUTED, lw=0.8, ls=(0, (1, 3)))
    for name in sorted(lines, key=lambda name: name == primary):
        x, y = lines[name]
        arm, dots = arms[name], key in OF_DEV
        axes.plot(
            x, y, color=arm.colour, lw=2.4 if name == primary else 1.4, marker=arm.marker if dots else "", ms=4,
            mew=0, alpha=1 if name == primary else 0.85,
        )  # fmt: skip
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    _limits(axes, key, [value for _, y in lines.values() for value in y])
    axes.set_title(OF_STEPS.get(key) or OF_DEV[key])
    axes.set_xlabel("optimizer step")
    axes.margins(x=0.02)


def _limits(axes: Axes, key: str, seen: list[float]) -> None:
    low, high = min(seen), max(seen)
    if key in ("share", "equal_share_first", "kl", "forward_kl", "entropy"):
        axes.set_ylim(min(0.0, low), 1.08 * high if high > 0 else 1)
    else:
        room = 0.08 * (high - low) + 0.01
        axes.set_ylim(low - room, high + room)
    if key in SHARES:
        plain_percent(axes.yaxis)


def equal_groups(found: SyntheticRun) -> list[str]:
    """Say of each arm how many groups had equal rewards: as first drawn, and after drawing again."""
    said = []
    for arm, seeds in found.steps.items():
        rows = [row for rows in seeds.values() for row in rows]
        first, left = (_mean_share(rows, key) for key in ("equal_share_first", "equal_share"))
        if first is not None and left is not None:
            said.append(f"{arm} {first:.0%} and {left:.0%}")
    return said


def _mean_share(rows: Rows, key: str) -> float | None:
    values = [row[key] for row in rows if _is_number(row.get(key))]
    return math.fsum(values) / len(values) if values else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
