"""What each stage of an instruct run changed: held-out loss, exact answers and pairs, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from equipoise.errors import UserError
from equipoise.metrics.resampling import bootstrap_interval
from equipoise.metrics.statistics import compare, mean_interval
from equipoise.records import INSTRUCT_STAGES, Result

RESAMPLES = 2000
Row = dict[str, Any]
BySeed = Mapping[int, Sequence[Row]]


@dataclass(frozen=True)
class Measure:
    """A number of a set of rows: the ratio of two sums over them. A row with nothing `under` says nothing of it."""

    name: str
    over: Callable[[Row], float]
    under: Callable[[Row], float]
    higher_is_better: bool = True


def _one(row: Row) -> float:
    return 1.0


ANSWERS = (
    Measure("loss", lambda row: row["nll"], lambda row: row["tokens"], higher_is_better=False),
    Measure("exact", lambda row: row["exact"], _one),
    Measure("length", lambda row: row["length"], _one, higher_is_better=False),
)


def _above(a: float, b: float) -> float:
    """1 where a is above b, one half where they are equal."""
    return 0.5 if a == b else float(a > b)


def _per_token(row: Row, side: str) -> float:
    return row[f"{side}_logprob"] / row[f"{side}_tokens"]


PAIRS = (
    Measure("pairs", lambda row: _above(row["chosen_logprob"], row["rejected_logprob"]), _one),
    Measure("pairs_per_token", lambda row: _above(_per_token(row, "chosen"), _per_token(row, "rejected")), _one),
)


def analyse(answers: Sequence[Row], pairs: Sequence[Row], *, by: str | None = None) -> dict[str, Any]:
    """Scores of each stage, and what each changed from the one before and from the untrained model.

    Intervals of scores are t intervals over seeds, or of one seed bootstrap intervals over items. Those of changes draw
    seeds and items anew (crossed bootstrap), both stages alike; rows of one `group` are drawn together. The untrained
    model has no seed and is paired with all. A measure that no row says anything of, as the loss where all answers are
    too long, is left out.

    Args:
        answers: rows of `answer_rows` with `method`, `seed` and `group`; `part` is what `by` names.
        pairs: rows with `method`, `seed`, `group`, and sums of log-probabilities and numbers of tokens of both sides.

    Raises:
        UserError: stages or seeds were not asked the same items.
    """
    scores: dict[str, dict[str, Any]] = {}
    changes: list[Row] = []
    n: dict[str, int] = {}
    for kind, rows, measures in (("answers", answers, ANSWERS), ("pairs", pairs, PAIRS)):
        if not rows:
            continue
        stages = _stages(rows)
        first = next(iter(next(iter(stages.values())).values()))
        n[kind], n[f"{kind}_groups"] = len(first), len({row["group"] for row in first})
        for measure in (measure for measure in measures if any(map(measure.under, first))):
            for stage, by_seed in stages.items():
                scores.setdefault(stage, {})[measure.name] = _score(by_seed, measure)
            changes += [
                {"measure": measure.name, "stage": stage, "against": before, **_change(stages, stage, before, measure)}
                for stage, before in _comparisons(list(stages))
            ]
    parts = {}
    if by is not None:
        names = sorted({str(row["part"]) for row in answers})
        for part in names:
            own = _stages([row for row in answers if str(row["part"]) == part])
            parts[part] = {stage: _score(by_seed, ANSWERS[1]) for stage, by_seed in own.items()}
    seeds = sorted({row["seed"] for row in [*answers, *pairs] if row["method"] != INSTRUCT_STAGES[0]})
    return {"stages": list(scores), "seeds": seeds, "n": n, "scores": scores, "changes": changes, "parts": parts}


def flat_results(answers: Sequence[Row], pairs: Sequence[Row]) -> list[Result]:
    """One row a stage, seed and measure."""
    return [
        Result(
            method=stage,
            seed=seed,
            task=task,
            metric=measure.name,
            value=_value(rows, measure),
            n=len(rows),
            higher_is_better=measure.higher_is_better,
        )
        for task, found, measures in (("instructions", answers, ANSWERS), ("preferences", pairs, PAIRS))
        if found
        for stage, by_seed in _stages(found).items()
        for seed, rows in by_seed.items()
        for measure in measures
        if any(map(measure.under, rows))
    ]


def _stages(rows: Sequence[Row]) -> dict[str, dict[int, list[Row]]]:
    """Rows by stage, in their order, and by seed, each sorted by item.

    Raises:
        UserError: not all have the same items.
    """
    found: dict[str, dict[int, list[Row]]] = {}
    for stage in INSTRUCT_STAGES:
        for row in rows:
            if row["method"] == stage:
                found.setdefault(stage, {}).setdefault(row["seed"], []).append(row)
    asked = None
    for stage, by_seed in found.items():
        for seed, own in by_seed.items():
            own.sort(key=lambda row: row["id"])
            ids = [row["id"] for row in own]
            if asked is not None and ids != asked:
                raise UserError(f"{stage} with seed {seed} was not asked the same items as the others")
            asked = ids
    return found


def _comparisons(stages: Sequence[str]) -> list[tuple[str, str]]:
    """Each stage with the one before, and the last with the first."""
    pairs = list(zip(stages[1:], stages, strict=False))
    return pairs + ([(stages[-1], stages[0])] if len(stages) > 2 else [])


def _value(rows: Sequence[Row], measure: Measure) -> float:
    return sum(map(measure.over, rows)) / sum(map(measure.under, rows))


def _score(by_seed: BySeed, measure: Measure) -> Row:
    values = [_value(rows, measure) for rows in by_seed.values()]
    found, over = mean_interval(values), "seeds"
    low, high = found.ci or (None, None)
    if len(values) == 1:
        drawn = bootstrap_interval(_sums(by_seed, list(by_seed), measure), _ratio, resamples=RESAMPLES)
        (low, high), over = drawn.ci or (None, None), "items"
    return {"mean": found.mean, "low": low, "high": high, "values": values, "over": over}


def _change(stages: Mapping[str, BySeed], stage: str, before: str, measure: Measure) -> Row:
    """The measure of a stage less that of another, seeds paired."""
    a, b = stages[stage], stages[before]
    seeds = sorted(a if len(b) == 1 else set(a) & set(b))
    x, y = (_sums(side, seeds, measure) for side in (a, b))
    drawn = bootstrap_interval(np.concatenate([x, y], axis=2), _gap, resamples=RESAMPLES)
    by_seed = [_ratio(x[i : i + 1]) - _ratio(y[i : i + 1]) for i in range(len(seeds))]
    row: Row = {"estimate": float(np.mean(by_seed)), "by_seed": by_seed, "seeds": len(seeds), "ci": None, "p": None}
    row["bootstrap"] = None if drawn.ci is None else list(drawn.ci)
    if len(seeds) > 1:
        test = compare(by_seed, [0.0] * len(seeds))
        row |= {"ci": test.ci and list(test.ci), "p": test.p_two_sided}
    return row


def _sums(by_seed: BySeed, seeds: Sequence[int], measure: Measure) -> np.ndarray:
    """[seeds, groups, 2] what the measure is the ratio of, summed within each group."""
    only = next(iter(by_seed.values()))
    rows = [by_seed.get(seed, only) for seed in seeds]
    told = dict.fromkeys(row["group"] for row in rows[0] if measure.under(row))
    groups = {group: at for at, group in enumerate(told)}
    sums = np.zeros((len(seeds), len(groups), 2))
    for s, own in enumerate(rows):
        for row in (row for row in own if row["group"] in groups):
            sums[s, groups[row["group"]]] += measure.over(row), measure.under(row)
    return sums


def _ratio(sums: np.ndarray) -> float:
    """The mean over seeds of the ratio of sums over groups."""
    total = sums.sum(1)
    return float((total[:, 0] / total[:, 1]).mean())


def _gap(both: np.ndarray) -> float:
    return _ratio(both[..., :2]) - _ratio(both[..., 2:])
