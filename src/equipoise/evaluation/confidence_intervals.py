"""Measures with their intervals: over seeds where something was trained, over groups of questions where nothing was."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from equipoise.evaluation.confidence_metrics import Row, arrays, by_task, group_of, scores
from equipoise.metrics.graded import HIGHER_IS_BETTER
from equipoise.metrics.statistics import mean_interval

RESAMPLES = 400
BINNED = ("calibration_error", "ece_width", "ece_mass")


def over_seeds(summaries: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """The measures of each task with t intervals; None for one that some seed could not be measured by."""
    return {
        task: {
            name: mean([summary[task][name] for summary in summaries]) for name in numbers if name in HIGHER_IS_BETTER
        }
        for task, numbers in summaries[0].items()
    }


def mean(values: Sequence[float | None]) -> Row | None:
    """The mean of one value a seed with its t interval, which a single seed does not have; None if a value is."""
    there = [value for value in values if value is not None]
    if len(there) < len(values):
        return None
    found = mean_interval(there)
    low, high = found.ci or (None, None)
    return {"mean": found.mean, "low": low, "high": high, "values": there}


def over_groups(rows: Sequence[Row], measured: Row) -> dict[str, dict[str, Any]]:
    """Return the measures of a model without seeds, with intervals from resampling whole groups of questions.

    Binned errors have no interval: resampling adds noise to each bin, so the interval would be biased upwards.
    """
    out: dict[str, dict[str, Any]] = {}
    for task, own in by_task(rows).items():
        if not own:
            continue
        correct = np.array([row["correct"] for row in own], dtype=bool)
        drawn = draws([group_of(row) for row in own])
        out[task] = {"answer_accuracy": interval(lambda at, y=correct: float(y[at].mean()), len(own), drawn)}
        if any("p" not in row for row in own):
            continue
        p = arrays(own)[0]
        for name in scores(p, correct, **measured)[0]:

            def measure(at: np.ndarray, p: np.ndarray = p, y: np.ndarray = correct, name: str = name) -> float | None:
                return scores(p[at], y[at], only=name, **measured)[0][name]

            out[task][name] = interval(measure, len(own), [] if name in BINNED else drawn)
    return out


def draws(groups: Sequence[Any]) -> list[np.ndarray]:
    """Return the row indices [n] of each of `RESAMPLES` resamples of whole groups."""
    members: dict[Any, list[int]] = {}
    for i, group in enumerate(groups):
        members.setdefault(group, []).append(i)
    each = [np.array(found) for found in members.values()]
    rng = np.random.default_rng(0)
    return [np.concatenate([each[i] for i in rng.integers(len(each), size=len(each))]) for _ in range(RESAMPLES)]


def interval(measure: Callable[[np.ndarray], float | None], n: int, drawn: Sequence[np.ndarray]) -> Row | None:
    """Give the measure of all n rows, and its percentile interval over those draws that allow it, if they are most."""
    value = measure(np.arange(n))
    if value is None:
        return None
    found = [each for each in map(measure, drawn) if each is not None]
    varies = len(found) >= max(0.9 * len(drawn), 1) and np.ptp(found) > 0
    low, high = map(float, np.percentile(found, [2.5, 97.5])) if varies else (None, None)
    return {"mean": value, "low": low, "high": high, "values": [value]}
