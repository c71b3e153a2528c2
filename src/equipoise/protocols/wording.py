"""Numbers in words: shares in percent, differences in points, p-values, and who did better than whom."""

from collections.abc import Mapping, Sequence
from typing import Any

# What is said of an arm that has (more, fewer) of what a task counts, and of two that have the same.
VERBS = {
    "correction": ("corrected more items than", "corrected fewer items than", "corrected as many items as"),
    "generalisation": (
        "got more items right in held-out phrasings than",
        "got fewer items right in held-out phrasings than",
        "got as many items right in held-out phrasings as",
    ),
    "locality": ("kept more related facts than", "kept fewer related facts than", "kept as many related facts as"),
    "efficacy": (
        "prefers the new answer more often than",
        "prefers the new answer less often than",
        "prefers the new answer as often as",
    ),
    "paraphrase efficacy": (
        "prefers the new answer in held-out phrasings more often than",
        "prefers the new answer in held-out phrasings less often than",
        "prefers the new answer in held-out phrasings as often as",
    ),
    "preference kept": (
        "kept more right preferences than",
        "kept fewer right preferences than",
        "kept as many right preferences as",
    ),
    "general": ("kept more general answers than", "kept fewer general answers than", "kept as many general answers as"),
    "functions": (
        "kept more functions than",
        "kept fewer functions than",
        "kept as many functions as",
    ),
    "held-out": (
        "predicts held-out text worse than",
        "predicts held-out text better than",
        "predicts held-out text as well as",
    ),
    "drift": ("drifted further than", "drifted less far than", "drifted as far as"),
    "retention": ("retained more than", "retained less than", "retained as much as"),
}


def number(value: float | None, *, share: bool) -> str:
    """Write a value: a share in percent, anything else with four significant digits."""
    if value is None:
        return "–"
    return f"{100 * value:.1f}%" if share else f"{value:.4g}"


def difference(value: float, *, share: bool) -> str:
    """Write a difference with its sign: of shares in points."""
    return f"{_zero(100 * value, 1):+.1f} points" if share else f"{_zero(value, 4):+.4g}"


def interval(ci: Sequence[float] | None, *, share: bool) -> str:
    """Write an interval in the unit of the number before it; nothing if there is none."""
    if ci is None:
        return ""
    return f" [{_zero(100 * ci[0], 1):.1f}, {_zero(100 * ci[1], 1):.1f}]" if share else f" [{ci[0]:.4g}, {ci[1]:.4g}]"


def estimate(numbers: Mapping[str, Any] | None, *, factor: float, digits: int) -> str:
    """Write `mean` times `factor`, with `low` and `high` where there are such; nothing if there is no mean."""
    if not numbers or numbers.get("mean") is None:
        return ""
    mean, *ci = (
        f"{factor * value:.{digits}f}" for name in ("mean", "low", "high") if (value := numbers.get(name)) is not None
    )
    return f"{mean} [{', '.join(ci)}]" if ci else mean


def bounded(ci: Sequence[float] | None) -> tuple[float, float] | None:
    """Cut the interval of a share where shares end."""
    return None if ci is None else (max(ci[0], 0.0), min(ci[1], 1.0))


def p_value(p: float | None) -> str:
    """Write a p-value with three decimals, or as below 0.001."""
    if p is None:
        return "no p-value"
    return f"p = {p:.3f}" if p >= 0.001 else "p < 0.001"


def did(task: str, estimate: float) -> str:
    """Say what an arm did, compared with another, that differs from it by `estimate` on `task`."""
    verbs = VERBS.get(task, (f"scored higher on {task} than", f"scored lower on {task} than", f"scored on {task} as"))
    if abs(estimate) < 1e-12:
        return verbs[2]
    return verbs[0] if estimate > 0 else verbs[1]


def count(n: int, word: str) -> str:
    """Write a count with its noun."""
    return f"{n} {word}" if n == 1 else f"{n} {word}s"


def _zero(value: float, digits: int) -> float:
    """Keep a difference of rounding from being written as -0.0."""
    return value if abs(value) >= 0.5 * 10**-digits else 0.0
