"""What a method can reach: Pareto fronts of corrected and kept, their area, and what is kept at equal correction.

Letters of shapes: P settings (say learning rate by epoch), I items, H halvings, R resamples, S seeds.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from equipoise.errors import UserError

Floats = NDArray[np.float64]
ROUNDING = 1e-9  # shares are quotients of counts: what is closer than this is equal


def pareto_front(correction: ArrayLike, kept: ArrayLike) -> NDArray[np.bool_]:
    """Mark the points [P] that no other beats: none is as good in both and better in one. Equal points stand together.

    >>> pareto_front([0.2, 0.9, 0.9, 1.0], [1.0, 0.8, 0.7, 0.5]).tolist()
    [True, True, False, True]
    """
    x, y = _shares(correction), _shares(kept)
    as_good = (x >= x[:, None]) & (y >= y[:, None])  # [i, j]: is j as good as i in both
    better = (x > x[:, None]) | (y > y[:, None])
    return np.array([not beaten.any() for beaten in as_good & better])


def hypervolume(correction: ArrayLike, kept: ArrayLike) -> Floats:
    """Measure the area [...] that points [..., P] dominate, from the reference point (0, 0): 1 for one at (1, 1).

    With more points it can only grow: compare methods that were given the same number of settings.

    >>> hypervolume([0.5, 1.0], [0.75, 0.5]).item()
    0.625
    """
    x, y = np.maximum(_shares(correction), 0), np.maximum(_shares(kept), 0)
    order = np.argsort(-x, axis=-1)
    x, y = np.take_along_axis(x, order, -1), np.take_along_axis(y, order, -1)
    # a strip between two corrections is as high as the best of the points that reach its right end
    widths = x - np.concatenate([x[..., 1:], np.zeros_like(x[..., :1])], axis=-1)
    return (widths * np.maximum.accumulate(y, axis=-1)).sum(axis=-1)


def choose(correction: ArrayLike, kept: ArrayLike, level: float) -> NDArray[np.intp]:
    """Choose [...] among settings [..., P] the one that keeps most of those that correct at least `level`; -1 if none.

    Nothing is interpolated: a mixture of two settings is no model that anyone has. Of equals the one that corrects
    more is taken, then the first.
    """
    x, y = _shares(correction), _shares(kept)
    reaches = x >= level - ROUNDING
    best = np.where(reaches, y, -np.inf)
    best = reaches & (best >= best.max(axis=-1, keepdims=True) - ROUNDING)
    found = np.where(best, x, -np.inf).argmax(axis=-1)
    return np.where(reaches.any(axis=-1), found, -1)


def halvings(items: int, count: int, *, seed: int = 0) -> NDArray[np.bool_]:
    """Draw `count` ways of cutting `items` in two halves, [2 * count, items]: each half, then each of the others.

    Raises:
        UserError: fewer than two items.
    """
    if items < 2:
        raise UserError(f"{items} item cannot be cut in two halves")
    rng = np.random.default_rng(seed)
    half = np.zeros((count, items), dtype=bool)
    for row in half:
        row[rng.permutation(items)[: items // 2]] = True
    return np.concatenate([half, ~half])


def half_shares(scores: ArrayLike, halves: NDArray[np.bool_], counts: ArrayLike | None = None) -> Floats:
    """Give the mean score on each half, [R, 2H, ..., P], of item-level scores [..., P, I].

    Args:
        halves: from `halvings`.
        counts: how often each item occurs in each resample [R, I]; once in a single one if None. An item lies in one
            half however often it was drawn, so resampling lets nothing slip from one half into the other. Where a half
            is empty the share is NaN.
    """
    x = np.asarray(scores, dtype=np.float64)
    weights = (np.ones((1, x.shape[-1])) if counts is None else np.asarray(counts, np.float64))[:, None, :] * halves
    total = weights.sum(axis=-1)
    sums = np.tensordot(weights, x, axes=([-1], [-1]))
    with np.errstate(invalid="ignore"):
        return sums / total.reshape(total.shape + (1,) * (x.ndim - 1))


def matched(correction: Floats, kept: Floats, level: float) -> tuple[Floats, Floats]:
    """Give what is kept, and corrected, at a matched level of correction: chosen on one half, read on the other.

    The best of many noisy settings looks better than it is on the items that it was chosen by. So for each half the
    setting is chosen there and both numbers are read on the other half, where they are unbiased for the setting; the
    mean over all halves is returned. What was corrected there tells how well the level was matched.

    Args:
        correction: from `half_shares`, [R, 2H, ..., P].
        kept: likewise, of the same halvings' numbers.

    Returns:
        Two arrays [R, ...]; NaN where more than half of the choices found no setting that reaches the level. Choices
        that found none are left out of the mean.
    """
    half = correction.shape[1] // 2
    # a half without an item says nothing: it reaches no level, and what is read on it is left out
    found = choose(np.nan_to_num(correction, nan=-np.inf), np.nan_to_num(kept, nan=-np.inf), level)
    read = [np.take_along_axis(np.roll(x, half, axis=1), found[..., None], -1)[..., 0] for x in (kept, correction)]
    usable = (found >= 0) & ~np.isnan(read[0]) & ~np.isnan(read[1])
    enough = usable.sum(axis=1) * 2 >= usable.shape[1]
    with np.errstate(invalid="ignore"):
        means = [np.where(usable, x, 0.0).sum(axis=1) / usable.sum(axis=1) for x in read]
    return np.where(enough, means[0], np.nan), np.where(enough, means[1], np.nan)


def _shares(values: ArrayLike) -> Floats:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim == 0 or x.shape[-1] == 0 or np.isnan(x).any():
        raise UserError("a front needs at least one setting, and numbers")
    return x
