"""Arms compared on the same sentences: F1 with intervals, change from the untrained model, paired tests by Holm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from equipoise.errors import UserError
from equipoise.evaluation.extraction import Row, summarise
from equipoise.metrics.statistics import bootstrap_interval, compare, holm, mean_interval
from equipoise.records import Result

UNTRAINED = "zero-shot"
MEASURES = ("f1", "precision", "recall", "valid", "non_empty")
RESAMPLES = 2000
Scores = dict[str, dict[int, dict[str, list[Row]]]]  # arm -> seed -> domain -> rows


def analyse(rows: Sequence[Row], *, primary: str, domains: Sequence[str] = ("target", "source")) -> dict[str, Any]:
    """What the answers of all arms and seeds say.

    The t intervals are over seeds and cover other runs on the same sentences. The bootstrap intervals resample seeds
    and sentences, jointly for both arms, and cover other sentences too; verdicts are based on these. The untrained
    model answers greedily, has no seed, and is compared with every seed.

    Args:
        rows: of `extract`, each with its `method` and `seed`; every method answered the same sentences.
        primary: the arm that was named beforehand, compared with every other.

    Returns:
        arms, seeds, n, scores by arm and domain, changes from the untrained model, contrasts, flat results.

    Raises:
        UserError: the arms did not answer the same sentences.
    """
    arms = _arms(rows)
    seeds = sorted({seed for by_seed in arms.values() for seed in by_seed})
    present = [d for d in domains if any(row["domain"] == d for row in rows)]
    scores = {arm: {d: _scores(by_seed, d) for d in present} for arm, by_seed in arms.items()}
    trained = [arm for arm in arms if arm != UNTRAINED]
    changes = (
        {arm: {d: difference(arms[arm], arms[UNTRAINED], d) for d in present} for arm in trained}
        if UNTRAINED in arms
        else {}
    )
    contrasts = []
    if primary in arms:
        found = {arm: difference(arms[primary], arms[arm], present[0]) for arm in arms if arm != primary}
        corrected = holm([row["p"] for row in found.values()])
        contrasts = [{"against": arm, **row, "p_holm": p} for (arm, row), p in zip(found.items(), corrected)]
    return {
        "arms": list(arms),
        "seeds": seeds,
        "primary": primary,
        "n": {d: len(next(iter(next(iter(arms.values())).values())).get(d, [])) for d in present},
        "scores": scores,
        "changes": changes,
        "contrasts": contrasts,
    }


def flat_results(rows: Sequence[Row]) -> list[Result]:
    """One row an arm, seed, domain and measure; all of them are better higher."""
    return [
        Result(method=arm, seed=seed, task=domain, metric=name, value=value, n=len(own))
        for arm, by_seed in _arms(rows).items()
        for seed, by_domain in by_seed.items()
        for domain, own in by_domain.items()
        for name, value in summarise(own).items()
    ]


def difference(a: Mapping[int, Any], b: Mapping[int, Any], domain: str) -> dict[str, Any]:
    """The F1 of one arm less that of another on a domain; seeds are paired, one without seeds is paired with all."""
    seeds = _shared(a, b)
    x, y = (_counts(arm, seeds, domain) for arm in (a, b))
    f = np.stack([_f1(x.sum(1)), _f1(y.sum(1))])  # [2, seeds]
    both = np.concatenate([x, y], axis=2)  # [seeds, sentences, 6]
    drawn = bootstrap_interval(both, _gap, resamples=RESAMPLES)
    row: dict[str, Any] = {
        "estimate": float((f[0] - f[1]).mean()),
        "by_seed": (f[0] - f[1]).tolist(),
        "bootstrap": None if drawn.ci is None else list(drawn.ci),
        "n": x.shape[1],
        "seeds": len(seeds),
        "ci": None,
        "t": None,
        "df": None,
        "p": None,
        "note": None,
    }
    if len(seeds) < 2:
        return row | {"note": "one seed: there is no test over seeds"}
    test = compare(f[0], f[1])
    return row | {"ci": test.ci and list(test.ci), "t": test.t, "df": test.df, "p": test.p_two_sided, "note": test.note}


def _arms(rows: Sequence[Row]) -> Scores:
    arms: Scores = {}
    for row in rows:
        by_domain = arms.setdefault(row["method"], {}).setdefault(row["seed"], {})
        by_domain.setdefault(row["domain"], []).append(row)
    asked = None
    for arm, by_seed in arms.items():
        for seed, by_domain in by_seed.items():
            ids = {domain: [row["id"] for row in sorted(own, key=_id)] for domain, own in by_domain.items()}
            for own in by_domain.values():
                own.sort(key=_id)
            if asked is not None and ids != asked:
                raise UserError(f"{arm} with seed {seed} did not answer the same sentences as the others")
            asked = ids
    if not arms:
        raise UserError("there are no answers to compare")
    return arms


def _id(row: Row) -> str:
    return row["id"]


def _scores(by_seed: Mapping[int, Mapping[str, list[Row]]], domain: str) -> dict[str, Any]:
    """Each measure's mean over seeds with its t interval; of a single seed, F1 has one over sentences."""
    each = [summarise(by_domain[domain]) for by_domain in by_seed.values()]
    out: dict[str, Any] = {}
    for name in MEASURES:
        values = [numbers[name] for numbers in each]
        found = mean_interval(values)
        low, high = found.ci or (None, None)
        out[name] = {"mean": found.mean, "low": low, "high": high, "values": values, "over": "seeds"}
    if len(each) == 1:
        counted = _counts(by_seed, list(by_seed), domain)[0]
        drawn = bootstrap_interval(counted[None], lambda x: float(_f1(x.sum(1)).mean()), resamples=RESAMPLES)
        low, high = drawn.ci or (None, None)
        out["f1"] |= {"low": low, "high": high, "over": "sentences"}
    return out


def _shared(a: Mapping[int, Any], b: Mapping[int, Any]) -> list[int]:
    """The seeds that both have; where one side is the untrained model, with its single one, all of the other's."""
    both = sorted(set(a) & set(b))
    if len(a) == 1 or len(b) == 1:
        return sorted(a if len(b) == 1 else b)
    if not both:
        raise UserError("the arms share no seed, so they cannot be compared pair by pair")
    return both


def _counts(by_seed: Mapping[int, Mapping[str, list[Row]]], seeds: Sequence[int], domain: str) -> np.ndarray:
    """[seeds, sentences, 3] true positives, false positives, false negatives."""
    only = next(iter(by_seed.values()))
    of = [by_seed.get(seed, only)[domain] for seed in seeds]
    return np.array([[[row["tp"], row["fp"], row["fn"]] for row in rows] for rows in of], dtype=float)


def _f1(total: np.ndarray) -> np.ndarray:
    """F1 by the last axis of (tp, fp, fn); with nothing to find and nothing found it is 1, as in `Counts`."""
    tp, fp, fn = np.moveaxis(total, -1, 0)
    whole = 2 * tp + fp + fn
    return np.where(whole == 0, 1.0, 2 * tp / np.where(whole == 0, 1, whole))


def _gap(x: np.ndarray) -> float:
    total = x.sum(1)
    return float((_f1(total[:, :3]) - _f1(total[:, 3:])).mean())
