"""How far K sampled answers to one input agree: the pseudo-label they vote for, and how sure they are of it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from equipoise.errors import UserError
from equipoise.metrics.entities import Pair, canonical, sentence_f1
from equipoise.metrics.graded import Floats, probabilities
from equipoise.metrics.text import plain
from equipoise.records import Sample

Label = Literal["largest", "majority"]
SIGNALS = ("exact", "consensus", "votes", "logprob", "entropy", "combined")
GROUP = 20  # labels of about as many entities that are compared with each other; fewer make no distribution
Answer = tuple[Pair, ...]


@dataclass(frozen=True)
class PseudoLabel:
    """What the samples of an input say.

    Attributes:
        entities: the label, in the order of the first sample that says so.
        signals: how sure the samples are, by name, each in [0, 1]; no `logprob` where the backend does not tell.
        samples: how many there are.
        valid: how many of them can be read.
    """

    id: str
    entities: Answer
    signals: dict[str, float]
    samples: int
    valid: int

    @property
    def empty(self) -> bool:
        """Whether the label says that there is nothing to find."""
        return not self.entities


def pseudo_label(samples: Sequence[Sample], *, label: Label = "largest") -> PseudoLabel:
    """Make the label that the samples of one input vote for, and measure their agreement.

    A sample that cannot be read votes for nothing, not even for an empty label, but is one of the K:

    - `exact`: share of the samples that say exactly the label;
    - `consensus`: mean entity F1 over all pairs of samples;
    - `votes`: mean over the label's entities of the share of samples that have them (`exact` for an empty label);
    - `logprob`: exp of the mean token log-probability, over those samples that say the label, else over all readable;
    - `entropy`: 1 - H / ln K, with H the entropy of the distribution over different answers (Farquhar et al. 2024,
      where equal sets of entities are equal meanings);
    - `combined`: mean of `exact` to the power of 1 / entities, `consensus`, `votes` and, where known, `logprob`.

    `exact` and `entropy` fall with the number of entities, since each of them can go wrong, while an answer without any
    agrees with every other such: see `comparable`.

    Args:
        label: `largest` takes the answer given most often (ties: the one nearest to all, then the first); `majority`
            every entity that more than half of the readable samples have.

    Raises:
        UserError: no samples, or samples of several inputs or models.
    """
    if len({(s.id, s.model) for s in samples}) != 1:
        raise UserError(
            f"a pseudo-label is made of the samples of one input and one model, not {len({s.id for s in samples})} "
            f"inputs and {len({s.model for s in samples})} models",
            fix="choose the model with labels.model=NAME",
        )
    ordered = sorted(samples, key=lambda s: s.sample)
    readable = [s for s in ordered if s.entities is not None]
    answers = [_answer(s) for s in readable]
    clusters = Counter(canonical(a) for a in answers)
    f1 = _between(list(clusters))
    chosen = _largest(answers, clusters, f1) if label == "largest" else _majority(answers)
    same = clusters[canonical(chosen)] if answers else 0
    k = len(samples)
    signals = {
        "exact": same / k,
        "consensus": _consensus(clusters, f1, k),
        "votes": _votes(chosen, answers, k) if chosen else same / k,
        "entropy": _certainty(clusters, k),
    }
    logprob = _logprob(readable, [canonical(a) == canonical(chosen) for a in answers])
    if logprob is not None:
        signals["logprob"] = logprob
    per_entity = signals["exact"] ** (1 / max(1, len(chosen)))
    parts = [per_entity, *(signals[name] for name in ("consensus", "votes", "logprob") if name in signals)]
    signals["combined"] = float(np.mean(parts))
    return PseudoLabel(ordered[0].id, chosen, signals, k, len(readable))


def _answer(sample: Sample) -> Answer:
    return tuple((plain(entity.type), plain(entity.text)) for entity in sample.entities or ())


def _between(clusters: Sequence[Answer]) -> dict[tuple[Answer, Answer], float]:
    """Entity F1 of every two different answers, both ways round, and 1 of each with itself."""
    out = {(a, a): 1.0 for a in clusters}
    for i, a in enumerate(clusters):
        for b in clusters[:i]:
            out[a, b] = out[b, a] = sentence_f1(a, b)
    return out


def _largest(answers: Sequence[Answer], clusters: Counter[Answer], f1: dict[tuple[Answer, Answer], float]) -> Answer:
    if not answers:
        return ()

    def worth(answer: Answer) -> tuple[int, float]:
        own = canonical(answer)
        return clusters[own], math.fsum(f1[own, other] * size for other, size in clusters.items())

    return max(answers, key=worth)  # the first of equals


def _majority(answers: Sequence[Answer]) -> Answer:
    """Entities of most answers; the second occurrence of an entity needs a majority of its own."""
    seen: Counter[tuple[Pair, int]] = Counter()
    for answer in answers:
        seen.update(_numbered(answer))
    return tuple(pair for (pair, _), votes in seen.items() if 2 * votes > len(answers))


def _numbered(answer: Answer) -> list[tuple[Pair, int]]:
    """Each entity with how many equal ones stand before it, so that no two are equal."""
    before: Counter[Pair] = Counter()
    out = []
    for pair in answer:
        out.append((pair, before[pair]))
        before[pair] += 1
    return out


def _votes(label: Answer, answers: Sequence[Answer], k: int) -> float:
    said = Counter(entity for answer in answers for entity in _numbered(answer))
    return sum(said[entity] for entity in _numbered(label)) / (k * len(label))


def _consensus(clusters: Counter[Answer], f1: dict[tuple[Answer, Answer], float], k: int) -> float:
    if k == 1:
        return float(len(clusters))
    all_ways = math.fsum(f1[a, b] * n * m for a, n in clusters.items() for b, m in clusters.items())
    return min(1.0, (all_ways - clusters.total()) / (k * (k - 1)))  # without each sample's agreement with itself


def _certainty(clusters: Counter[Answer], k: int) -> float:
    """An unreadable sample is an answer of its own."""
    if k == 1:
        return float(len(clusters))
    sizes = [*clusters.values(), *[1] * (k - clusters.total())]
    entropy = -math.fsum(n / k * math.log(n / k) for n in sizes)
    return min(1.0, max(0.0, 1 - entropy / math.log(k)))


def _logprob(readable: Sequence[Sample], says_label: Sequence[bool]) -> float | None:
    told = [(s, says) for s, says in zip(readable, says_label) if s.logprob is not None and s.tokens]
    if not readable:
        return 0.0
    if not told:
        return None
    counted = [s for s, says in told if says] or [s for s, _ in told]
    mean = math.fsum(s.logprob or 0.0 for s in counted) / sum(s.tokens or 0 for s in counted)
    return min(1.0, math.exp(mean))


def signal(labels: Sequence[PseudoLabel], name: str) -> Floats:
    """Give one signal of all labels [n].

    Raises:
        UserError: there is no such signal, or a label lacks it.
    """
    if name not in SIGNALS:
        raise UserError(f"no such signal: {name!r}", where="labels.signal", fix=", ".join(SIGNALS))
    if any(name not in label.signals for label in labels):
        raise UserError(
            f"the samples have no {name}: what generated them does not tell log-probabilities",
            where="labels.signal",
            fix="take another signal, such as combined",
        )
    return np.array([label.signals[name] for label in labels], dtype=np.float64)


def comparable(confidence: ArrayLike, entities: Sequence[int], *, group: int = GROUP) -> Floats:
    """Make confidences [n] comparable between labels of few and of many entities.

    Each confidence becomes the quantile of all confidences that it is among the labels of as many entities, so that
    every number of entities has the same distribution, none among them, and no curriculum begins with the sentences in
    which there is least to find. Order within a number of entities is kept, ties too, and so is the scale on the whole.
    Numbers of entities with fewer than `group` labels are taken together with their neighbours.

    Args:
        entities: how many each label has.

    Raises:
        UserError: a confidence outside [0, 1], or not one number of entities for each.
    """
    c = probabilities(confidence)
    if len(entities) != len(c):
        raise UserError(f"there are {len(c)} confidences and {len(entities)} numbers of entities")
    out, every = np.empty(len(c)), np.sort(c)
    for members in _groups(np.asarray(entities), group):
        own = np.sort(c[members])
        # the middle of the ranks that equal ones share
        rank = (np.searchsorted(own, c[members], "left") + np.searchsorted(own, c[members], "right")) / 2 / len(own)
        out[members] = np.interp(rank, (np.arange(len(every)) + 0.5) / len(every), every)
    return out


def _groups(entities: np.ndarray, least: int) -> list[np.ndarray]:
    groups: list[np.ndarray] = []
    open_ = np.empty(0, dtype=np.int64)
    for count in np.unique(entities):
        open_ = np.concatenate([open_, np.flatnonzero(entities == count)])
        if len(open_) >= least:
            groups.append(open_)
            open_ = open_[:0]
    if len(open_):
        groups[-1:] = [np.concatenate([*groups[-1:], open_])]
    return groups


@dataclass(frozen=True)
class Capped:
    """Labels to train on, and those that are left out: empty ones above the cap, and those no sample spoke for."""

    kept: list[PseudoLabel]
    dropped: list[PseudoLabel]
    unreadable: list[PseudoLabel]


def cap_empty(labels: Sequence[PseudoLabel], share: float) -> Capped:
    """Leave out the least sure empty labels, so that at most `share` of what is kept is empty; order is kept.

    Labels whose samples could none of them be read are no labels and always left out.

    Raises:
        UserError: share is not in [0, 1].
    """
    if not 0 <= share <= 1:
        raise UserError(f"a share of empty labels lies between 0 and 1, not {share}", where="labels.max_empty")
    spoken = [label for label in labels if label.valid]
    empty = sorted((label for label in spoken if label.empty), key=lambda label: -label.signals["combined"])
    full = len(spoken) - len(empty)
    room = len(empty) if share == 1 else math.floor(full * share / (1 - share) + 1e-9)
    out = {label.id for label in empty[room:]}
    return Capped(
        [label for label in spoken if label.id not in out],
        [label for label in spoken if label.id in out],
        [label for label in labels if not label.valid],
    )
