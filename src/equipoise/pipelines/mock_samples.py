"""Synthetic answers without a model: the right ones with seeded mistakes, to try a pipeline before a model is there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np

from equipoise.data.extraction import pairs
from equipoise.errors import UserError
from equipoise.metrics.entities import Pair, answer
from equipoise.models.backends.interface import Reply, Request
from equipoise.records import Sentence

UNREADABLE = 0.03


class Mock:
    """A backend that knows the right answers and spoils them, more in some sentences than in others.

    Each sentence is of a difficulty between 0 and 0.6, which is how likely an entity is lost, cut short or given
    another type; so answers that agree are more often right, as a model's are. It has no log-probabilities.

    Raises:
        UserError: a sentence has no labels.
    """

    name = "mock"

    def __init__(self, sentences: Sequence[Sentence], types: Sequence[str]):
        bare = next((s.id for s in sentences if s.entities is None), None)
        if bare is not None:
            raise UserError(
                f"mock answers are made of the right ones, and {bare!r} has no labels",
                where="--mock",
                fix="give inputs with entities, or a model",
            )
        self._right = {s.id: pairs(s.entities or ()) for s in sentences}
        self._types = list(types)

    def sample(self, requests: Sequence[Request]) -> Iterator[list[Reply]]:
        """Yield one reply at a time; the key of a request begins with the id of its sentence."""
        for request in requests:
            name = request.key[0]  # pyright: ignore[reportIndexIssue]
            draw = np.random.default_rng(request.seed)
            if draw.random() < UNREADABLE:
                yield [Reply(request.key, '{"person": ["', "length")]
                continue
            said = [other for pair in self._right[name] for other in self._spoilt(pair, _difficulty(name), draw)]
            yield [Reply(request.key, answer(said))]

    def _spoilt(self, pair: Pair, difficulty: float, draw: np.random.Generator) -> list[Pair]:
        if draw.random() >= difficulty:
            return [pair]
        kind, words = pair[0], pair[1].split()
        how = draw.integers(3)
        if how == 0:
            return []
        if how == 1 and len(words) > 1:
            return [(kind, " ".join(words[:-1]))]
        return [(self._types[int(draw.integers(len(self._types)))], pair[1])]


def _difficulty(name: str) -> float:
    return 0.6 * hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()[0] / 255
