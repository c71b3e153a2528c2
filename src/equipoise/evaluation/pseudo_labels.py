"""What pseudo-labels are worth where the right answers are known, and which signal tells the right ones best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from equipoise.errors import UserError
from equipoise.evaluation.confidence_intervals import draws, interval
from equipoise.metrics.calibration import auroc, brier, ece, reliability
from equipoise.metrics.entities import Pair, exact, micro, sentence_f1
from equipoise.metrics.graded import Floats, probabilities
from equipoise.metrics.selective import aurc, e_aurc, risk_coverage
from equipoise.signals.samples import SIGNALS, PseudoLabel, signal

Row = dict[str, Any]
POINTS = 20  # of the curve of risk against coverage
BINS = 10
REFERENCE = "exact"


def label_quality(
    labels: Sequence[PseudoLabel],
    gold: Sequence[Sequence[Pair]],
    *,
    confidence: Mapping[str, ArrayLike] | None = None,
) -> Row:
    """Compare pseudo-labels with the right answers, and measure each signal as a prediction of which are exactly right.

    Intervals are of 95%, over sentences drawn anew. A measure that these labels do not allow is None, and `why` says
    why. `auroc_gain` is the AUROC less that of `exact`, on the same draws: a signal is better on such sentences where
    its interval is above 0. `f1_rank` and `entities_rank` are rank correlations (Spearman) with the label's F1, and
    with its number of entities; the second says how far the signal prefers short answers.

    Args:
        gold: the right entities of each label.
        confidence: further confidences [n] by name, as the calibrated one.

    Returns:
        `n`, `right` (share exactly right), `f1` (micro, over all labels) and `mean_f1` (of a sentence), `empty`,
        `gold_empty`, `unreadable` (labels without any readable sample), `valid` (share of readable samples), `signals`
        by name, plain JSON throughout. `right` and what follows from it are None if there are no labels.
    """
    if len(labels) != len(gold):
        raise UserError(f"there are {len(labels)} pseudo-labels and {len(gold)} right answers")
    n = len(labels)
    if not n:
        return {"n": 0, "right": None, "signals": {}, "why": "no sentence has a right answer to compare with"}
    right = np.array([exact(label.entities, answer) for label, answer in zip(labels, gold)], dtype=bool)
    f1 = np.array([sentence_f1(label.entities, answer) for label, answer in zip(labels, gold)])
    counts = np.array([len(label.entities) for label in labels], dtype=np.float64)
    told = [name for name in SIGNALS if all(name in label.signals for label in labels)]
    by_name: dict[str, Floats] = {name: signal(labels, name) for name in told}
    by_name |= {name: probabilities(values, name) for name, values in (confidence or {}).items()}
    drawn = draws(range(n))
    return {
        "n": n,
        "right": float(right.mean()),
        "mean_f1": interval(lambda at: float(f1[at].mean()), n, drawn),
        "f1": micro((label.entities, answer) for label, answer in zip(labels, gold)).f1,
        "empty": float(np.mean([label.empty for label in labels])),
        "gold_empty": float(np.mean([not answer for answer in gold])),
        "unreadable": float(np.mean([not label.valid for label in labels])),
        "valid": sum(label.valid for label in labels) / sum(label.samples for label in labels),
        "signals": {
            name: _signal(values, by_name[REFERENCE], right, drawn)
            | {"f1_rank": _rank_correlation(values, f1), "entities_rank": _rank_correlation(values, counts)}
            for name, values in by_name.items()
        },
        "why": _why(right),
    }


def _signal(values: Floats, reference: Floats, right: np.ndarray, drawn: Sequence[np.ndarray]) -> Row:
    n = len(right)

    def gain(at: np.ndarray) -> float | None:
        own, other = _auroc(values[at], right[at]), _auroc(reference[at], right[at])
        return None if own is None or other is None else own - other

    coverage, risk = risk_coverage(values, right)
    shown = np.unique(np.linspace(0, n - 1, POINTS).round().astype(int))
    return {
        "auroc": interval(lambda at: _auroc(values[at], right[at]), n, drawn),
        "auroc_gain": None if values is reference else interval(gain, n, drawn),
        "aurc": interval(lambda at: aurc(values[at], right[at]), n, drawn),
        "e_aurc": e_aurc(values, right),
        "brier": interval(lambda at: brier(values[at], right[at]), n, drawn),
        "ece": ece(values, right, bins=min(BINS, n), by="mass"),
        "reliability": reliability(values, right, bins=min(BINS, n)),
        "risk_coverage": [[float(coverage[i]), float(risk[i])] for i in shown],
    }


def _auroc(values: Floats, right: np.ndarray) -> float | None:
    return None if right.all() or not right.any() else auroc(values, right)


def _rank_correlation(a: Floats, b: Floats) -> float | None:
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    from scipy import stats

    return float(np.corrcoef(stats.rankdata(a), stats.rankdata(b))[0, 1])


def _why(right: np.ndarray) -> str | None:
    if right.all() or not right.any():
        return f"all {len(right)} pseudo-labels are {'right' if right.all() else 'wrong'}: nothing to tell apart"
    return None
