"""Comparisons with intervals: t, TOST, F, exact McNemar, Fieller, Holm. There is one variance, the sample's (n - 1).

A test that would divide by a variance of zero is not made: its numbers are None and `note` says why. scipy is imported
only when a test needs it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from equipoise.errors import UserError
from equipoise.metrics.outcomes import Alternative, Comparison, Equivalence, McNemar, Mean, Ratio, VarianceRatio
from equipoise.metrics.resampling import bootstrap_interval as bootstrap_interval

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _Difference:
    """What every t test of a difference needs; `spread` is the standard error, 0 if nothing varies."""

    estimate: float
    spread: float
    df: float
    scale: float
    n: int
    test: str
    note: str | None = None


def sample_variance(values: ArrayLike) -> float:
    """Give the sample variance (divided by n - 1); exactly 0 where values differ by rounding alone.

    Raises:
        UserError: fewer than two values, or a value that is not a finite number.
    """
    x = _numbers(values, "values", least=2)
    return 0.0 if _constant(x, float(np.abs(x).max())) else float(x.var(ddof=1))


def mean_interval(values: ArrayLike, *, confidence: float = 0.95) -> Mean:
    """Give the mean of at least one value, and from two on its sample variance and t interval."""
    x = _numbers(values, "values")
    mean = float(x.mean())
    if len(x) < 2:
        return Mean(mean, None, None, 1, "a single value has no interval")
    variance = sample_variance(x)
    if variance == 0:
        return Mean(mean, 0.0, None, len(x), f"all {len(x)} values are equal: no variance, so no interval")
    half = _quantile(len(x) - 1, confidence) * math.sqrt(variance / len(x))
    return Mean(mean, variance, (mean - half, mean + half), len(x))


def compare(
    a: ArrayLike,
    b: ArrayLike,
    *,
    paired: bool = True,
    alternative: Alternative = "two-sided",
    confidence: float = 0.95,
) -> Comparison:
    """Compare two samples by t: paired (a[i] with b[i]), or by Welch's test for independent ones.

    Args:
        alternative: what is claimed: `greater` is mean(a) > mean(b).

    Raises:
        UserError: lengths differ while paired, fewer than two values, or a value that is not a finite number.

    >>> result = compare([0.71, 0.71, 0.73, 0.70, 0.72], [0.75, 0.77, 0.75, 0.73, 0.75])
    >>> round(result.t, 2), round(result.estimate, 3)
    (-5.31, -0.036)
    """
    _check(alternative)
    d = _difference(a, b, paired)
    if d.spread == 0:
        return Comparison(d.estimate, None, None, d.df, None, None, None, d.n, d.test, alternative, d.note)
    t = d.estimate / d.spread
    half = _quantile(d.df, confidence) * d.spread
    both = 2 * _below(-abs(t), d.df)
    p = {"two-sided": both, "greater": _below(-t, d.df), "less": _below(t, d.df)}[alternative]
    ci = (d.estimate - half, d.estimate + half)
    return Comparison(d.estimate, ci, t, d.df, p, both, d.estimate / d.scale, d.n, d.test, alternative)


def equivalence(a: ArrayLike, b: ArrayLike, margin: float, *, paired: bool = True, alpha: float = 0.05) -> Equivalence:
    """Test by TOST (Schuirmann 1987) whether the means of two samples differ by less than `margin`.

    Raises:
        UserError: as `compare`; or the margin is not a positive number.
    """
    if not (margin > 0 and math.isfinite(margin)):
        raise UserError(f"the margin of equivalence has to be a positive number, not {margin}")
    d = _difference(a, b, paired)
    test = f"TOST, {d.test}"
    if d.spread == 0:
        return Equivalence(d.estimate, None, margin, None, None, d.df, None, None, d.n, test, d.note)
    t_lower, t_upper = (d.estimate + margin) / d.spread, (d.estimate - margin) / d.spread
    p = max(_below(-t_lower, d.df), _below(t_upper, d.df))
    half = _quantile(d.df, 1 - 2 * alpha) * d.spread
    ci = (d.estimate - half, d.estimate + half)
    return Equivalence(d.estimate, ci, margin, t_lower, t_upper, d.df, p, p < alpha, d.n, test)


def variance_ratio_test(a: ArrayLike, b: ArrayLike, *, confidence: float = 0.95) -> VarianceRatio:
    """Test by F, two-sided, whether two samples have the same variance.

    >>> result = variance_ratio_test([0.71, 0.71, 0.73, 0.70, 0.72], [0.75, 0.77, 0.75, 0.73, 0.75])
    >>> round(result.ratio, 2), round(result.p, 2)
    (0.65, 0.69)
    """
    x, y = _numbers(a, "a", least=2), _numbers(b, "b", least=2)
    df, va, vb = (len(x) - 1, len(y) - 1), sample_variance(x), sample_variance(y)
    if va == 0 or vb == 0:
        still = "neither sample varies" if va == vb else f"sample {'a' if va == 0 else 'b'} does not vary"
        return VarianceRatio(None, None, None, va, vb, df, f"{still}, so there is no ratio of variances to test")
    from scipy import special

    ratio = va / vb
    p = min(1.0, 2 * min(float(special.fdtr(*df, ratio)), float(special.fdtrc(*df, ratio))))
    tail = (1 - confidence) / 2
    ci = (ratio / float(special.fdtri(*df, 1 - tail)), ratio / float(special.fdtri(*df, tail)))
    return VarianceRatio(ratio, ci, p, va, vb, df)


def mcnemar_exact(a: ArrayLike, b: ArrayLike, *, alternative: Alternative = "two-sided") -> McNemar:
    """Compare paired binary outcomes (1 right, 0 wrong) by the exact McNemar test.

    Args:
        alternative: what is claimed: `greater` is that a is right more often.

    Raises:
        UserError: lengths differ, or a value is neither 0 nor 1.
    """
    _check(alternative)
    x, y = _numbers(a, "a"), _numbers(b, "b")
    _same_length(x, y)
    if not (np.isin(x, (0, 1)).all() and np.isin(y, (0, 1)).all()):
        raise UserError("McNemar's test needs outcomes of 0 and 1", fix="use compare for graded scores")
    only_a, only_b = int(((x == 1) & (y == 0)).sum()), int(((x == 0) & (y == 1)).sum())
    if only_a + only_b == 0:
        note = f"both give the same outcome on all {len(x)} items, so there is nothing to test"
        return McNemar(0, 0, None, None, len(x), note)
    from scipy import special

    discordant = only_a + only_b
    both = min(1.0, 2 * float(special.bdtr(min(only_a, only_b), discordant, 0.5)))
    if alternative == "two-sided":
        return McNemar(only_a, only_b, both, both, len(x))
    against = only_b if alternative == "greater" else only_a
    return McNemar(only_a, only_b, float(special.bdtr(against, discordant, 0.5)), both, len(x))


def ratio_interval(a: ArrayLike, b: ArrayLike, *, confidence: float = 0.95) -> Ratio:
    """Give mean(a) / mean(b) of paired values with Fieller's interval (1954).

    It is finite only if mean(b) is surely not 0. Without any variance there is a ratio and no interval.
    """
    x, y = _numbers(a, "a"), _numbers(b, "b")
    _same_length(x, y)
    n, ma, mb = len(x), float(x.mean()), float(y.mean())
    if mb == 0:
        return Ratio(None, None, n, "the mean to divide by is 0")
    if n < 2:
        return Ratio(ma / mb, None, n, "one pair has no interval")
    va, vb = sample_variance(x) / n, sample_variance(y) / n
    if va == vb == 0:
        return Ratio(ma / mb, None, n, f"none of the {n} pairs differs from the others, so there is no interval")
    cov = 0.0 if 0 in (va, vb) else float(np.cov(x, y)[0, 1]) / n
    t2 = _quantile(n - 1, confidence) ** 2
    square = mb**2 - t2 * vb
    if square <= 0:
        return Ratio(ma / mb, None, n, "the mean to divide by may be 0, so the interval is not finite")
    middle = ma * mb - t2 * cov
    root = math.sqrt(max(0.0, middle**2 - (ma**2 - t2 * va) * square))
    return Ratio(ma / mb, ((middle - root) / square, (middle + root) / square), n)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust a family of p-values by Holm's step-down method (1979). None (not tested) stays None and does not count.

    >>> holm([0.01, 0.04, None, 0.03])
    [0.03, 0.06, None, 0.06]
    """
    tested = [(p, i) for i, p in enumerate(p_values) if p is not None]
    if any(not 0 <= p <= 1 for p, _ in tested):
        raise UserError("a p-value has to lie between 0 and 1")
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(sorted(tested)):
        largest = max(largest, min(1.0, (len(tested) - rank) * p))
        adjusted[i] = largest
    return adjusted


def _check(alternative: str) -> None:
    if alternative not in ("two-sided", "greater", "less"):
        raise UserError(f"no such alternative: {alternative!r}", fix="two-sided, greater or less")


def _difference(a: ArrayLike, b: ArrayLike, paired: bool) -> _Difference:
    x, y = _numbers(a, "a", least=2), _numbers(b, "b", least=2)
    size = float(max(np.abs(x).max(), np.abs(y).max()))
    if paired:
        _same_length(x, y)
        d = x - y
        n, estimate = len(d), float(d.mean())
        if _constant(d, size):
            note = f"all {n} differences are equal ({estimate:.4g}): no variance, so no test"
            return _Difference(estimate, 0.0, n - 1, 0.0, n, "paired t", note)
        scale = float(d.std(ddof=1))
        return _Difference(estimate, scale / math.sqrt(n), n - 1, scale, n, "paired t")
    va, vb, n = sample_variance(x), sample_variance(y), len(x) + len(y)
    estimate, ea, eb = float(x.mean() - y.mean()), va / len(x), vb / len(y)
    if ea + eb == 0:
        note = "neither sample varies, so there is no test"
        return _Difference(estimate, 0.0, n - 2, 0.0, n, "Welch's t", note)
    share = ea / (ea + eb)  # Welch and Satterthwaite's degrees of freedom, written so that nothing underflows
    df = 1 / (share**2 / (len(x) - 1) + (1 - share) ** 2 / (len(y) - 1))
    return _Difference(estimate, math.sqrt(ea + eb), df, math.sqrt((va + vb) / 2), n, "Welch's t")


def _constant(x: Floats, size: float) -> bool:
    """Tell whether values differ by rounding alone, at numbers of this size: 0.75 - 0.71 is not 0.77 - 0.73."""
    return float(np.ptp(x)) <= 8 * np.finfo(np.float64).eps * size


def _numbers(values: ArrayLike, name: str, *, least: int = 1) -> Floats:
    try:
        x = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise UserError(f"{name}: not a list of numbers") from None
    if x.ndim != 1:
        raise UserError(f"{name}: a list of numbers is needed, not one of {x.ndim} dimensions")
    if len(x) < least:
        raise UserError(f"{name}: {len(x)} value{'s' * (len(x) != 1)}, where at least {least} are needed")
    if not np.isfinite(x).all():
        raise UserError(f"{name}: value {int(np.flatnonzero(~np.isfinite(x))[0]) + 1} is not a finite number")
    return x


def _same_length(x: Floats, y: Floats) -> None:
    if len(x) != len(y):
        raise UserError(
            f"a has {len(x)} values and b has {len(y)}: they cannot be paired",
            fix="pair them by seed or item first, or say paired=False",
        )


def _below(t: float, df: float) -> float:
    from scipy import special

    return float(special.stdtr(df, t))


def _quantile(df: float, confidence: float) -> float:
    if not 0 < confidence < 1:
        raise UserError(f"confidence has to lie between 0 and 1, not {confidence}")
    from scipy import special

    return float(special.stdtrit(df, (1 + confidence) / 2))
