"""What a token is to the model that is to learn it: stable, uncertain, a confident conflict, unknown, or form alone."""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from equipoise.config import Section

CLASSES = ("stable", "uncertain", "conflict", "unknown", "form")
STABLE, UNCERTAIN, CONFLICT, UNKNOWN, FORM = range(5)
USUAL_LENGTH = 10  # tokens of an answer
CONCLUSIONS: tuple[str, ...] = ("known", "form", "contradicted", "unknown")  # of a whole row
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

    Once examples have shown it the form of the answers, a model that bets `decided` or more on one token *says
    something else* where it gives the token that stands there less than `rejected` of that (`reread`).
    """

    sure: float = Field(default=0.1, gt=0)  # nats of entropy
    plausible: float = Field(default=0.1, gt=0, lt=1)  # probability
    decided: float = Field(default=0.3, gt=0, lt=1)  # probability
    rejected: float = Field(default=0.03, gt=0, lt=1)  # ratio of probabilities

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


def reread(
    classes: NDArray[np.int8],
    nll: ArrayLike,
    logp_said: ArrayLike,
    thresholds: Thresholds | None = None,
    *,
    ends: bool = False,
    opens: int | None = None,
) -> NDArray[np.int8]:
    """The classes of a row's tokens after a second reading, in which other rows had shown the form of the answers.

    What was not expected at first is *form* where it is expected now. What was not stable is a *conflict* where the
    model is now decided for another token: one that the first reading held for possible may have been so only as the
    beginning of something else. What else was not expected is *unknown*: a model that was sure of its own form at
    first, and is not decided now, is not sure of another fact. In an answer of n > 10 tokens, decided means a bet that
    leaves 10 / n of what `decided` leaves.

    Args:
        classes: [N], of the first reading.
        nll: [N], nats, of the second reading; NaN where there is none.
        logp_said: [N], nats, of the model's own choice in the second reading.
        ends: whether the last token ends the answer. That the model would have gone on says nothing of the fact.
        opens: a token in whose place the model would begin in another form, which is no vote for another fact.

    >>> first = np.array([STABLE, UNCERTAIN, UNKNOWN, UNKNOWN, CONFLICT, UNKNOWN], np.int8)
    >>> found = reread(first, [9.0, 9.0, 0.1, 9.0, 0.1, 9.0], [-0.1, -0.1, -0.1, -3.0, -0.1, -0.1], ends=True)
    >>> [CLASSES[c] for c in found]
    ['stable', 'conflict', 'form', 'unknown', 'form', 'form']
    """
    given = thresholds or Thresholds()
    nll, logp_said = np.asarray(nll, float), np.asarray(logp_said, float)
    out = np.array(classes)
    surprised = (out == CONFLICT) | (out == UNKNOWN)
    # in prose a model is often decided for one of several words that would do
    decided = 1 - (1 - given.decided) * min(1.0, USUAL_LENGTH / max(1, len(out)))
    other = (logp_said >= math.log(decided)) & (nll + logp_said > -math.log(given.rejected))
    if opens is not None:
        other[opens] = False
    out[surprised & ~np.isnan(nll)] = UNKNOWN
    out[other & (out != STABLE)] = CONFLICT
    out[surprised & (nll <= given.surprising)] = FORM
    if ends and surprised[-1] and not np.isnan(nll[-1]):
        out[-1] = FORM
    elif ends and out[-1] == CONFLICT:
        out[-1] = classes[-1]
    return out


def conclusion(classes: ArrayLike, nll: ArrayLike, thresholds: Thresholds | None = None) -> str:
    """What a row is to the model, one of `CONCLUSIONS`: by the most surprising token that stays unexpected.

    In an answer of n > 10 tokens only those count that are expected n / 10 times less than `plausible`: some tokens of
    a long text are unlikely ones even where a model writes it itself.

    Args:
        classes: [N], after `reread` where there is a second reading.
        nll: [N], of the reading that counts.
    """
    given = thresholds or Thresholds()
    classes, nll = np.asarray(classes), np.asarray(nll, float)
    limit = given.surprising + math.log(max(1.0, len(classes) / USUAL_LENGTH))
    open_ = ((classes == CONFLICT) | (classes == UNKNOWN)) & (nll > limit)
    if not open_.any():
        return "form" if (classes == FORM).any() else "known"
    worst = int(np.where(open_, nll, -np.inf).argmax())
    return "contradicted" if classes[worst] == CONFLICT else "unknown"


def contradiction(nll: ArrayLike, h: ArrayLike, vocab: int) -> NDArray[np.float64]:
    """How much more surprising each token is than the model expected, nll - H in nats, [N]."""
    return np.asarray(nll, float) - np.asarray(h, float) * math.log(vocab)


def separating_tau(nll: ArrayLike, h: ArrayLike, classes: ArrayLike) -> dict[str, Any] | None:
    """The tau by which R-EAFT's test `shock > tau` finds the conflicts best (highest F1), and how well it does.

    It lies in the middle, geometrically, of the two shocks that it parts. None where there is no conflict.

    Returns:
        `tau`, and at it `flagged`, `hits`, `precision` and `recall`.
    """
    found = _separating(np.asarray(nll, float) / (np.asarray(h, float) + EPS), classes)
    return None if found is None else {"tau": found.pop("cut"), **found}


def separating_delta(tail: ArrayLike, classes: ArrayLike) -> dict[str, Any] | None:
    """The delta by which the test `tail < delta` finds the conflicts best, as `separating_tau` finds tau."""
    found = _separating(1 / np.maximum(np.asarray(tail, float), EPS**2), classes)
    return None if found is None else {"delta": 1 / found.pop("cut"), **found}


def _separating(score: NDArray[np.float64], classes: ArrayLike) -> dict[str, Any] | None:
    truth = np.asarray(classes) == CONFLICT
    if not truth.any():
        return None
    order = np.argsort(-score, kind="stable")
    ranked = score[order]
    hits = np.cumsum(truth[order])
    last = np.flatnonzero(np.append(np.diff(ranked) != 0, True))  # ties fall on one side
    f1 = 2 * hits[last] / (last + 1 + truth.sum())
    at = int(last[np.argmax(f1)])
    below = ranked[at + 1] if at + 1 < len(ranked) else ranked[at] / 2
    found = int(hits[at])
    return {
        "cut": float(np.sqrt(ranked[at] * max(below, EPS))),
        "flagged": at + 1,
        "hits": found,
        "precision": found / (at + 1),
        "recall": found / int(truth.sum()),
    }


def flagged_at(nll: ArrayLike, h: ArrayLike, tau: float) -> int:
    """How many tokens R-EAFT would call shocked at this tau."""
    return int((np.asarray(nll, float) / (np.asarray(h, float) + EPS) > tau).sum())
