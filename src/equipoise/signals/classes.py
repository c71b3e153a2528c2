"""What a token is to the model that is to learn it: stable, uncertain, a confident conflict, or unknown."""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from equipoise.config import Section

CLASSES = ("stable", "uncertain", "conflict", "unknown")
STABLE, UNCERTAIN, CONFLICT, UNKNOWN = range(4)
EPS = 1e-6  # of the shock ratio


class Thresholds(Section):
    """Where sure ends and where expected ends. Neither depends on the vocabulary; what follows from them does.

    The model is *sure* at a token where its entropy H is at most `sure` nats: 0.1 is a bet of 98% on one token. It
    *expects* the token that stands there where it gives it a probability of `plausible` or more, nll <= -ln plausible.

    |                | expected  | not expected         |
    |----------------|-----------|----------------------|
    | **sure**       | stable    | conflict (confident) |
    | **not sure**   | uncertain | unknown              |

    In the terms of R-EAFT a model with V tokens is sure where h <= sure / ln V, and every conflict has a shock of
    more than `-ln(plausible) * ln V / sure`.
    """

    sure: float = Field(default=0.1, gt=0)  # nats of entropy
    plausible: float = Field(default=0.1, gt=0, lt=1)  # probability

    @property
    def surprising(self) -> float:
        """Nats of nll above which a token is not expected."""
        return -math.log(self.plausible)

    def sure_h(self, vocab: int) -> float:
        """The normalized entropy up to which a model with so many tokens is sure."""
        return self.sure / math.log(vocab)


def classify(nll: ArrayLike, h: ArrayLike, vocab: int, thresholds: Thresholds | None = None) -> NDArray[np.int8]:
    """The class of each token, as its number in `CLASSES`.

    Args:
        nll: [N], nats.
        h: [N], normalized entropy.
        vocab: V, by which h was normalized.

    >>> [CLASSES[c] for c in classify([0.01, 0.7, 9.0, 9.0], [0.001, 0.1, 0.001, 0.5], vocab=4000)]
    ['stable', 'uncertain', 'conflict', 'unknown']
    """
    given = thresholds or Thresholds()
    unsure = np.asarray(h) > given.sure_h(vocab)
    surprised = np.asarray(nll) > given.surprising
    return (unsure + 2 * surprised).astype(np.int8)


def contradiction(nll: ArrayLike, h: ArrayLike, vocab: int) -> NDArray[np.float64]:
    """How much more surprising each token is than the model expected, nll - H in nats, [N]."""
    return np.asarray(nll, float) - np.asarray(h, float) * math.log(vocab)


def separating_tau(nll: ArrayLike, h: ArrayLike, classes: ArrayLike) -> dict[str, Any] | None:
    """The tau by which R-EAFT's test `shock > tau` finds the conflicts best (highest F1), and how well it does.

    It lies in the middle, geometrically, of the two shocks that it parts. None where there is no conflict.

    Returns:
        `tau`, and at it `flagged`, `hits`, `precision` and `recall`.
    """
    shock = np.asarray(nll, float) / (np.asarray(h, float) + EPS)
    truth = np.asarray(classes) == CONFLICT
    if not truth.any():
        return None
    order = np.argsort(-shock, kind="stable")
    ranked = shock[order]
    hits = np.cumsum(truth[order])
    last = np.flatnonzero(np.append(np.diff(ranked) != 0, True))  # ties fall on one side
    f1 = 2 * hits[last] / (last + 1 + truth.sum())
    at = int(last[np.argmax(f1)])
    below = ranked[at + 1] if at + 1 < len(ranked) else ranked[at] / 2
    found = int(hits[at])
    return {
        "tau": float(np.sqrt(ranked[at] * max(below, EPS))),
        "flagged": at + 1,
        "hits": found,
        "precision": found / (at + 1),
        "recall": found / int(truth.sum()),
    }


def flagged_at(nll: ArrayLike, h: ArrayLike, tau: float) -> int:
    """How many tokens R-EAFT would call shocked at this tau."""
    return int((np.asarray(nll, float) / (np.asarray(h, float) + EPS) > tau).sum())
