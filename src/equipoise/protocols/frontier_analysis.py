"""What every arm of a frontier can reach, with intervals over seeds and items, and how that compares. Torch-free.

Letters of shapes: S seeds, P settings (learning rate by epoch), I items, R resamples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.metrics.frontier import half_shares, halvings, hypervolume, matched, pareto_front
from equipoise.metrics.resampling import weights
from equipoise.metrics.statistics import compare, holm, mean_interval
from equipoise.records import STABILITY

SCHEMA_VERSION = 1
KEPT = ("locality", "retention", "general", STABILITY)
HALVINGS = 10
RESAMPLES = 1000
Floats = NDArray[np.float64]
Row = dict[str, Any]


@dataclass(frozen=True)
class ArmScores:
    """What one arm's trainings gave.

    Attributes:
        settings: learning rate and epoch of each; no epoch where a rule ended the training.
        items: scores [S, P, I] by task, the items in the same order in every arm.
        epochs: where each training ended that a rule ended, [S, P]; else the epoch.
    """

    settings: list[tuple[float, int | None]]
    items: dict[str, Floats]
    epochs: Floats


@dataclass(frozen=True)
class _Drawn:
    """Resamples that all arms share, so that their differences are paired: how often each seed and item was drawn."""

    seeds: Floats
    items: dict[str, Floats]
    halves: dict[str, NDArray[np.bool_]]


def analyse(
    arms: Mapping[str, ArmScores],
    *,
    seeds: Sequence[int],
    against: str,
    levels: Sequence[float],
    untrained: Mapping[str, float],
    resamples: int = RESAMPLES,
) -> Row:
    """Analyse the scores of a frontier.

    Returns:
        What `frontier.json` holds. Differences to `against` are paired by seed and item; their tests are paired t over
        seeds, adjusted by Holm's method over the arms. 95% intervals reach as far as the percentiles over `resamples`,
        in which seeds and items were drawn anew, the same for all arms, and as Student's t over the seeds: percentiles
        of a few seeds are too narrow where seeds differ more than items do.
    """
    n = {task: scores.shape[-1] for arm in arms.values() for task, scores in arm.items.items()}
    kept = [task for task in KEPT if task in n]
    drawn = _draw({task: n[task] for task in ("correction", *kept)}, len(seeds), resamples)
    found: dict[str, Row] = {arm: {"settings": len(scores.settings)} for arm, scores in arms.items()}
    for task in kept:
        columns = {"hypervolume": {arm: _volumes(scores, task, drawn) for arm, scores in arms.items()}}
        columns |= {level: {arm: _matched(s, task, level, drawn) for arm, s in arms.items()} for level in levels}
        for column, by_arm in columns.items():
            rows = _compared(by_arm, against, drawn.seeds)
            for arm, row in rows.items():
                if column == "hypervolume":
                    found[arm].setdefault("hypervolume", {})[task] = row
                else:
                    found[arm].setdefault("matched", {}).setdefault(task, []).append({"level": column} | row)
    points = [row for arm, scores in arms.items() for row in _points(arm, scores, seeds)]
    return {
        "schema_version": SCHEMA_VERSION,
        "seeds": list(seeds),
        "against": against,
        "levels": list(levels),
        "kept": kept,
        "n": n,
        "untrained": dict(untrained),
        "arms": found,
        "fronts": {arm: {task: _front(scores, task) for task in kept} for arm, scores in arms.items()},
        "points": points,
        "answers": [answer(found, task, against, levels, len(seeds)) for task in kept],
    }


def _draw(items: Mapping[str, int], seeds: int, resamples: int) -> _Drawn:
    """The first resample is the data as they are."""
    rng = np.random.default_rng(0)

    def counts(units: int) -> Floats:
        return np.concatenate([np.ones((1, units)), weights(units, resamples, rng)])

    halves = {task: halvings(n, HALVINGS) for task, n in items.items()}
    return _Drawn(counts(seeds), {task: counts(n) for task, n in items.items()}, halves)


def _means(scores: Floats, counts: Floats) -> Floats:
    """Mean scores [R, S, P] over the items of each resample."""
    return np.tensordot(counts, scores, axes=([1], [2])) / counts.sum(axis=1)[:, None, None]


def _volumes(scores: ArmScores, task: str, drawn: _Drawn) -> dict[str, Floats]:
    x, y = (_means(scores.items[name], drawn.items[name]) for name in ("correction", task))
    return {"value": hypervolume(x, y)}


def _matched(scores: ArmScores, task: str, level: float, drawn: _Drawn) -> dict[str, Floats]:
    x, y = (half_shares(scores.items[t], drawn.halves[t], drawn.items[t]) for t in ("correction", task))
    value, corrected = matched(x, y, level)
    return {"value": value, "corrected": corrected}


def _compared(by_arm: Mapping[str, dict[str, Floats]], against: str, drawn_seeds: Floats) -> dict[str, Row]:
    """One row an arm: over seeds the mean with its interval and the difference to `against`; values are [R, S].

    An arm that one seed alone does not bring to the level has no mean: the seeds that do would be the lucky ones.
    """
    rows: dict[str, Row] = {}
    base = by_arm[against]["value"]
    for arm, found in by_arm.items():
        values = found["value"]
        reached = ~np.isnan(values[0])
        row: Row = {"reached": int(reached.sum()), "values": [_number(v) for v in values[0]], "against": None}
        row |= {"mean": None, "ci": None}
        if reached.all():
            row["mean"], row["ci"] = _interval(values, drawn_seeds, (0.0, 1.0))
            row |= {key: float(x[0].mean()) for key, x in found.items() if key == "corrected"}
            if arm != against and not np.isnan(base[0]).any():
                row["against"] = _difference(values, base, drawn_seeds)
        rows[arm] = row
    family = [row["against"] for row in rows.values() if row["against"]]
    for row, adjusted in zip(family, holm([row["p"] for row in family])):
        row["p_holm"] = adjusted
    return rows


def _difference(a: Floats, b: Floats, drawn_seeds: Floats) -> Row:
    estimate, ci = _interval(a - b, drawn_seeds, (-1.0, 1.0))
    if a.shape[1] < 2:
        return {"estimate": estimate, "ci": ci, "t": None, "p": None, "note": "one seed has no test"}
    test = compare(a[0], b[0])
    return {"estimate": estimate, "ci": ci, "t": test.t, "p": test.p, "note": test.note}


def _interval(values: Floats, drawn_seeds: Floats, bounds: tuple[float, float]) -> tuple[float, list[float] | None]:
    """The mean over seeds with its interval; a resample leaves out a seed that has no value in it."""
    counts = np.where(np.isnan(values), 0.0, drawn_seeds)
    with np.errstate(invalid="ignore"):
        means = (np.nan_to_num(values) * counts).sum(axis=1) / counts.sum(axis=1)
    drawn = means[1:][~np.isnan(means[1:])]
    if not drawn.size or np.ptp(drawn) == 0:
        return float(means[0]), None
    ends = [*np.percentile(drawn, [2.5, 97.5]), *(mean_interval(values[0]).ci or ())]
    low, high = np.clip((min(ends), max(ends)), *bounds)
    return float(means[0]), [float(low), float(high)]


def _front(scores: ArmScores, task: str) -> list[Row]:
    """The settings that no other setting of the arm beats, by means over seeds and all items, least corrected first."""
    x, y = (scores.items[name].mean(axis=(0, 2)) for name in ("correction", task))
    on = np.flatnonzero(pareto_front(x, y))
    rows = [
        {"learning_rate": scores.settings[i][0], "epoch": scores.settings[i][1], "correction": x[i], "kept": y[i]}
        for i in on[np.lexsort((-y[on], x[on]))]
    ]
    return [{key: _number(value) if key in ("correction", "kept") else value for key, value in r.items()} for r in rows]


def _points(arm: str, scores: ArmScores, seeds: Sequence[int]) -> list[Row]:
    """One row a seed and setting: the share of right answers by task."""
    return [
        {"arm": arm, "learning_rate": rate, "epoch": float(scores.epochs[s, p]), "seed": seed}
        | {task: float(values[s, p].mean()) for task, values in scores.items.items()}
        for s, seed in enumerate(seeds)
        for p, (rate, _) in enumerate(scores.settings)
    ]


def answer(arms: Mapping[str, Row], task: str, against: str, levels: Sequence[float], seeds: int) -> Row:
    """Say in plain words which method keeps most at the highest level that `against` reaches with every seed."""
    by_level = {level: {arm: row["matched"][task][i] for arm, row in arms.items()} for i, level in enumerate(levels)}
    reached = [level for level in levels if by_level[level][against]["mean"] is not None]
    if not reached:
        said = f"{against} does not correct {_percent(min(levels))} with every seed, so nothing is matched with it."
        return {"task": task, "level": None, "seeds": seeds, "sentence": said}
    level = max(reached)
    rows = by_level[level]
    differences = {arm: row["against"] for arm, row in rows.items() if row["against"]}
    told = {arm: d for arm, d in differences.items() if d["p"] is not None and d["p_holm"] < 0.05}
    more = [arm for arm, d in told.items() if d["estimate"] > 0]
    less = [arm for arm, d in told.items() if d["estimate"] < 0]
    open_ = [arm for arm in differences if arm not in told]
    short = [f"{arm} ({row['reached']} of {seeds} seeds)" for arm, row in rows.items() if row["mean"] is None]
    share = f"{100 * rows[against]['mean']:.1f}%"
    sentence = f"At {_percent(level)} corrected, {against} keeps {share} of {task}."
    if seeds == 1:
        sentence += _over_items(differences, against)
    else:
        sentence += f" More is kept by {_listed(more, differences)}." if more else " No method was shown to keep more."
        sentence += f" Less by {_listed(less, differences)}." if less else ""
        sentence += f" Not told apart from {against}: {_listed(open_, differences)}." if open_ else ""
    sentence += f" Not reached with every seed: {', '.join(short)}." if short else ""
    kept = {"more": more, "less": less, "open": open_}
    return {"task": task, "level": level, "seeds": seeds, **kept, "sentence": sentence}


def _over_items(differences: Mapping[str, Row], against: str) -> str:
    """Say which differences the items of a single seed show; another training run may differ by more."""
    more = [arm for arm, d in differences.items() if d["ci"] is not None and d["ci"][0] > 0]
    less = [arm for arm, d in differences.items() if d["ci"] is not None and d["ci"][1] < 0]
    rest = [arm for arm in differences if arm not in more + less]
    said = " One seed has no test. In this run, over its items:"
    parts = [f"more is kept by {_listed(more, differences)}"] if more else []
    parts += [f"less by {_listed(less, differences)}"] if less else []
    parts += [f"not told apart from {against}: {_listed(rest, differences)}"] if rest else []
    return f"{said} {'; '.join(parts)}." if parts else " One seed has no test."


def _listed(arms: Sequence[str], differences: Mapping[str, Row]) -> str:
    ranked = sorted(arms, key=lambda arm: -differences[arm]["estimate"])
    return ", ".join(f"{arm} ({100 * differences[arm]['estimate']:+.1f} points)" for arm in ranked)


def _percent(value: float) -> str:
    return f"{100 * value:g}%"


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
