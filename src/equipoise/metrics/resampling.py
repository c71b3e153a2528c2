"""Bootstrap intervals over units, and over seeds and items at once."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from equipoise.errors import UserError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Bootstrap:
    """A statistic with its percentile interval; `note` says why there is none, if there is none."""

    estimate: float
    ci: tuple[float, float] | None
    resamples: int
    note: str | None = None


def bootstrap_interval(
    values: ArrayLike,
    statistic: Callable[[Floats], float] | None = None,
    *,
    confidence: float = 0.95,
    resamples: int = 4000,
    seed: int = 0,
) -> Bootstrap:
    """Give a percentile bootstrap interval of the mean, or of `statistic`.

    Args:
        values: [units], or [seeds, items] where every seed answered the same items: then seeds and items are both drawn
            anew in each resample (the crossed bootstrap of Owen 2007, on the wide side), so that the interval speaks of
            other seeds *and* other items. Two methods are compared by handing in the differences of paired scores, or
            for anything but a mean as [seeds, items, methods], of which the last axis is never resampled.
        statistic: from an array shaped as `values` (of one resample) to a number; a mean where None.

    Raises:
        UserError: no values, a value that is not finite, or a shape of other than one to three dimensions.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.size == 0 or x.ndim not in (1, 2, 3):
        raise UserError(f"a bootstrap needs values as [units] or [seeds, items], not of shape {x.shape}")
    if not np.isfinite(x).all():
        raise UserError("a bootstrap needs finite numbers")
    if not 0 < confidence < 1 or resamples < 1:
        raise UserError("a bootstrap needs a confidence between 0 and 1, and at least one resample")
    estimate = float(x.mean() if statistic is None else statistic(x))
    if np.ptp(x, axis=(0, 1) if x.ndim == 3 else None).max() == 0:
        return Bootstrap(estimate, None, 0, "all values are equal: no variance, so no interval")
    rng = np.random.default_rng(seed)
    drawn = _means(x, resamples, rng) if statistic is None else _any(x, statistic, resamples, rng)
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(drawn, [tail, 100 - tail])
    return Bootstrap(estimate, (float(low), float(high)), resamples)


def weights(units: int, resamples: int, rng: np.random.Generator) -> Floats:
    """Draw how often each unit occurs in each resample, [resamples, units]."""
    return rng.multinomial(units, np.full(units, 1 / units), size=resamples).astype(np.float64)


def _means(x: Floats, resamples: int, rng: np.random.Generator) -> Floats:
    """A mean needs no copy of the data: it is the data between two vectors of weights."""
    if x.ndim == 3:
        raise UserError("a bootstrap of several methods needs a statistic")
    if x.ndim == 1:
        return weights(len(x), resamples, rng) @ x / len(x)
    seeds, items = x.shape
    return np.einsum(
        "rs,si,ri->r", weights(seeds, resamples, rng), x, weights(items, resamples, rng), optimize=True
    ) / (seeds * items)


def _any(x: Floats, statistic: Callable[[Floats], float], resamples: int, rng: np.random.Generator) -> Floats:
    drawn = np.empty(resamples)
    for i in range(resamples):
        sample = x[rng.integers(len(x), size=len(x))]
        if x.ndim > 1:
            sample = sample[:, rng.integers(x.shape[1], size=x.shape[1])]
        drawn[i] = statistic(sample)
    if not np.isfinite(drawn).all():
        raise UserError("the statistic is not finite on some resamples", fix="there may be too few values for it")
    return drawn
