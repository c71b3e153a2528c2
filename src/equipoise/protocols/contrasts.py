"""One arm against another on one task: the difference, its test, and what it says in plain words."""

from typing import Any

import numpy as np

from equipoise.metrics.statistics import (
    Alternative,
    Comparison,
    bootstrap_interval,
    compare,
    equivalence,
    mcnemar_exact,
    mean_interval,
)
from equipoise.protocols.scores import Scores
from equipoise.protocols.wording import count, did, difference, interval, number, p_value
from equipoise.records import IN_NATS

BLANK = dict.fromkeys(["estimate", "ci", "t", "df", "p", "p_two_sided", "p_holm", "effect_size", "n", "bootstrap"])


def difference_of(scores: Scores, a: str, b: str, task: str, alternative: Alternative) -> dict[str, Any]:
    """Test the difference a - b on a task by the strongest test that the data allow.

    Paired t over the seeds that both have; Welch's t where they share none; over the items of a single seed McNemar's
    exact test (paired t if scores are graded). `unit` says what was compared. A `problem` says why there is no test.
    """
    x, y = scores.pair(a, b, task)
    if len(x) >= 2:
        return _row(compare(x, y, alternative=alternative), "seed") | _bootstrap(scores, a, b, task)
    both = scores.item_pair(a, b, task)
    if len(x) == 1 and both is not None and len(scores.seeds) == 1:
        return _over_items(both[0][0], both[1][0], alternative)
    alone, other = scores.by_seed(a, task), scores.by_seed(b, task)
    if not x and len(alone) >= 2 and len(other) >= 2:
        return _row(compare(alone, other, paired=False, alternative=alternative), "value")
    estimate = float(np.mean(alone) - np.mean(other))
    return BLANK | {
        "estimate": estimate,
        "n": len(x),
        "test": "none",
        "problem": "one seed has no variance",
        "unit": "seed",
    }


def _row(result: Comparison, unit: str) -> dict[str, Any]:
    row = BLANK | {
        name: getattr(result, name) for name in ("estimate", "t", "df", "p", "p_two_sided", "effect_size", "n")
    }
    return row | {"ci": _list(result.ci), "test": result.test, "problem": result.note, "unit": unit}


def _bootstrap(scores: Scores, a: str, b: str, task: str) -> dict[str, Any]:
    """Give the interval over seeds and items at once, which speaks of other items too."""
    both = scores.item_pair(a, b, task)
    if both is None:
        return {}
    drawn = bootstrap_interval(both[0] - both[1])
    return {"bootstrap": {"ci": _list(drawn.ci), "over": "seeds and items", "resamples": drawn.resamples}}


def _over_items(x: np.ndarray, y: np.ndarray, alternative: Alternative) -> dict[str, Any]:
    if len(x) < 2:
        return BLANK | {
            "estimate": float((x - y).mean()),
            "n": 1,
            "test": "none",
            "problem": "one item",
            "unit": "item",
        }
    row = _row(compare(x, y, alternative=alternative), "item")
    if not (np.isin(x, (0, 1)).all() and np.isin(y, (0, 1)).all()):
        return row | {"test": "paired t over items"}
    exact = mcnemar_exact(x, y, alternative=alternative)
    drawn = bootstrap_interval(x - y)
    blank = {"t": None, "df": None, "effect_size": None, "ci": _list(drawn.ci)}
    return (
        row | blank | {"test": "exact McNemar", "p": exact.p, "p_two_sided": exact.p_two_sided, "problem": exact.note}
    )


def alike(scores: Scores, a: str, b: str, task: str, margin: float, alpha: float) -> dict[str, Any]:
    """Test by TOST that a and b differ by less than `margin`, over seeds, or over the items of a single seed."""
    x, y = scores.pair(a, b, task)
    unit, paired = "seed", True
    both = scores.item_pair(a, b, task)
    if len(x) == 1 and both is not None and len(scores.seeds) == 1 and both[0].shape[1] >= 2:
        x, y, unit = both[0][0], both[1][0], "item"
    elif not x:
        x, y, unit, paired = scores.by_seed(a, task), scores.by_seed(b, task), "value", False
    if min(len(x), len(y)) < 2:
        return BLANK | {
            "estimate": float(np.mean(x) - np.mean(y)),
            "n": len(x),
            "test": "TOST",
            "problem": "one seed has no variance",
            "unit": unit,
        }
    result = equivalence(x, y, margin, paired=paired, alpha=alpha)
    binding = result.t_lower if result.estimate < 0 else result.t_upper
    row = BLANK | {"estimate": result.estimate, "ci": _list(result.ci), "t": binding, "df": result.df, "p": result.p}
    extra = _bootstrap(scores, a, b, task) if unit == "seed" else {}
    return row | {"n": result.n, "test": result.test, "problem": result.note, "unit": unit} | extra


def describe(scores: Scores, a: str, b: str, task: str, row: dict[str, Any]) -> str:
    """Say in one sentence how a did against b, with means, difference, interval, test and n."""
    share = is_share(scores, task)
    mean_a, mean_b = (mean_interval(scores.by_seed(arm, task)).mean for arm in (a, b))
    text = f"{a} {did(task, row['estimate'])} {b}: {number(mean_a, share=share)} against {number(mean_b, share=share)}"
    text += f", difference {difference(row['estimate'], share=share)}{interval(row['ci'], share=share)}"
    if row["problem"]:
        return f"{text}. There is no test: {row['problem']}."
    if row["t"] is not None:
        text += f", {row['test']}({row['df']:.3g}) = {row['t']:.2f}"
    else:
        text += f", {row['test']}"
    return f"{text}, {p_value(row['p_two_sided'])} two-sided, {count(row['n'], row['unit'])}."


def is_share(scores: Scores, task: str) -> bool:
    """Tell whether the values on a task are shares, all in [0, 1], so that they can be written in percent."""
    if task.partition("/")[0] in IN_NATS:
        return False
    values = [value for arm in scores.arms for value in scores.of(arm, task).values()]
    return all(0 <= value <= 1 for value in values)


def _list(ci: tuple[float, float] | None) -> list[float] | None:
    return None if ci is None else [float(end) for end in ci]
