"""How well the shock ratio finds what the model is confidently wrong about, beside chance and beside the nll alone."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.errors import UserError
from equipoise.metrics.resampling import weights

Floats = NDArray[np.float64]
CONFIDENT_WRONG = "confident-wrong"
POINTS = 60
NEEDED = "item, knowledge, nll, shock and is_conflict"


@dataclass(frozen=True)
class _Samples:
    """What is to be found and by which scores: one row a token, or one a fact. `fact` numbers the fact of each row."""

    truth: NDArray[np.bool_]
    shock: Floats
    nll: Floats
    fact: NDArray[np.int64]


def detection(
    rows: Iterable[Mapping[str, Any]],
    *,
    tau_in_use: float | None = None,
    vocab_size: int | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Score "shocked" (shock > tau) as a detector, over supervised tokens of facts whose knowledge class is known.

    By token, what is to be found is the first token at which the gold answer of a confidently wrong fact leaves the
    model's greedy one. By fact, it is the confidently wrong fact, flagged as soon as one of its tokens is. Chance is
    the share of what is to be found, which is the precision of flagging at random.

    Args:
        rows: of the untrained model, each with `item`, `knowledge`, `nll` (nats), `shock` and `is_conflict`. Rows
            without a knowledge class are left out.
        resamples: of whole facts, for the intervals of average precision (none with 0).

    Returns:
        `by_token` and `by_fact`, each with the curve of precision and recall against `taus`, the same for `nll_only`
        against its `thresholds`, `average_precision` with `average_precision_ci` of both, the difference between them,
        `chance`, counts, and `at_tau`. The curves go up to the last threshold that flags anything. Plain JSON.

    Raises:
        UserError: a field is missing, or nll or shock is not a finite number.
    """
    known = [row for row in rows if row.get("knowledge")]
    tokens = _tokens(known)
    sides = {"by_token": tokens, "by_fact": _facts(known, tokens)}
    found = {name: _side(side, tau_in_use, resamples, seed) for name, side in sides.items()}
    return {**found, "tau_in_use": tau_in_use, "vocab_size": vocab_size}


def average_precision(truth: Sequence[bool] | NDArray[np.bool_], score: Sequence[float] | Floats) -> float | None:
    """Give the mean precision over the steps of recall, ties taken together; None if there is nothing to find."""
    ranking = _Ranking(np.asarray(truth, dtype=bool), np.asarray(score, dtype=np.float64))
    return ranking.average_precision(np.ones((1, len(ranking.truth))))[0] if any(truth) else None


class _Ranking:
    """Rows in falling order of a score, with the last row of each group of ties."""

    def __init__(self, truth: NDArray[np.bool_], score: Floats):
        self.order = np.argsort(-score, kind="stable")
        self.truth, self.score = truth[self.order], score[self.order]
        self.last = np.flatnonzero(np.append(np.diff(self.score) != 0, True))

    def average_precision(self, weight: Floats) -> list[float | None]:
        """Give one value for each row of weights [R, rows]; None where nothing that is to be found has weight."""
        weight = weight[:, self.order]
        hits = np.cumsum(weight * self.truth, axis=1)[:, self.last]
        flagged = np.cumsum(weight, axis=1)[:, self.last]
        gained = np.diff(hits, axis=1, prepend=0.0)
        sums = (gained * hits / np.maximum(flagged, 1)).sum(axis=1)
        return [float(s / total) if total else None for s, total in zip(sums, hits[:, -1])]


def _tokens(rows: Sequence[Mapping[str, Any]]) -> _Samples:
    numbers: dict[str, int] = {}
    try:
        fact = [numbers.setdefault(str(row["item"]), len(numbers)) for row in rows]
        truth = [bool(row["is_conflict"]) and row["knowledge"] == CONFIDENT_WRONG for row in rows]
        shock, nll = ([float(row[name]) for row in rows] for name in ("shock", "nll"))
    except KeyError as missing:
        raise UserError(f"a token row has no field {missing}", fix=f"a row needs {NEEDED}") from None
    samples = _Samples(np.array(truth, dtype=bool), np.array(shock), np.array(nll), np.array(fact, dtype=np.int64))
    if not (np.isfinite(samples.shock).all() and np.isfinite(samples.nll).all()):
        raise UserError("a token row has an nll or a shock that is not a finite number")
    return samples


def _facts(rows: Sequence[Mapping[str, Any]], tokens: _Samples) -> _Samples:
    count = int(tokens.fact.max()) + 1 if len(tokens.fact) else 0
    truth = np.zeros(count, dtype=bool)
    shock, nll = np.full(count, -np.inf), np.full(count, -np.inf)
    np.maximum.at(shock, tokens.fact, tokens.shock)
    np.maximum.at(nll, tokens.fact, tokens.nll)
    truth[tokens.fact] = [row["knowledge"] == CONFIDENT_WRONG for row in rows]
    return _Samples(truth, shock, nll, np.arange(count))


def _side(samples: _Samples, tau: float | None, resamples: int, seed: int) -> dict[str, Any]:
    n, positives = len(samples.truth), int(samples.truth.sum())
    side: dict[str, Any] = {"n": n, "n_true": positives, "chance": positives / n if n else None}
    if not positives:
        side["note"] = "no confidently wrong fact is among the rows, so there is nothing to find"
    shock, nll = _Ranking(samples.truth, samples.shock), _Ranking(samples.truth, samples.nll)
    drawn = _drawn(samples, resamples, seed) if positives else np.empty((0, n))
    ap_shock, ap_nll = ([] if not positives else ranking.average_precision(drawn) for ranking in (shock, nll))
    pairs = [(a, b) for a, b in zip(ap_shock, ap_nll) if a is not None and b is not None]
    whole = [ranking.average_precision(np.ones((1, n)))[0] if positives else None for ranking in (shock, nll)]
    difference = whole[0] - whole[1] if whole[0] is not None and whole[1] is not None else None
    taus, precision, recall = _curve(samples.truth, samples.shock, [] if tau is None else [tau])
    thresholds, nll_precision, nll_recall = _curve(samples.truth, samples.nll, [])
    return side | {
        "taus": taus,
        "precision": precision,
        "recall": recall,
        "average_precision": whole[0],
        "average_precision_ci": _interval([a for a, _ in pairs]),
        "nll_only": {
            "thresholds": thresholds,
            "precision": nll_precision,
            "recall": nll_recall,
            "average_precision": whole[1],
            "average_precision_ci": _interval([b for _, b in pairs]),
        },
        "difference": {"average_precision": difference, "ci": _interval([a - b for a, b in pairs])},
        "at_tau": None if tau is None else _at(samples.truth, samples.shock, tau),
    }


def _drawn(samples: _Samples, resamples: int, seed: int) -> Floats:
    """Draw whole facts, since tokens of one fact rise and fall together."""
    facts = int(samples.fact.max()) + 1
    return weights(facts, resamples, np.random.default_rng(seed))[:, samples.fact]


def _interval(values: list[float]) -> list[float] | None:
    return [float(end) for end in np.percentile(values, [2.5, 97.5])] if len(values) > 1 else None


def _curve(truth: NDArray[np.bool_], score: Floats, also: list[float]) -> tuple[list[float], list[float], list[float]]:
    """Give thresholds at even ranks of the distinct scores, and `also`, as far as anything is flagged at all."""
    if not truth.any():
        return [], [], []
    distinct = np.unique(score)
    ranks = np.unique(np.linspace(0, len(distinct) - 1, POINTS).astype(int))
    below = np.concatenate([[np.nextafter(distinct[0], -np.inf)], distinct[ranks[:-1]], also])
    cuts = np.unique(below[below < distinct[-1]])
    points = [_at(truth, score, float(cut)) for cut in cuts]
    return [float(cut) for cut in cuts], [p["precision"] for p in points], [p["recall"] for p in points]


def _at(truth: NDArray[np.bool_], score: Floats, cut: float) -> dict[str, Any]:
    flagged = score > cut
    hits, n, positives = int((flagged & truth).sum()), int(flagged.sum()), int(truth.sum())
    return {
        "threshold": cut,
        "flagged": n,
        "hits": hits,
        "precision": hits / n if n else None,
        "recall": hits / positives if positives else None,
    }
