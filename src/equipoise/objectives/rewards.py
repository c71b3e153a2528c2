"""Rewards of extracted entities against a label, by the scorer that evaluation uses."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from equipoise.metrics.entities import Pair, exact, parse, sentence_f1, soft_token_f1

PARTS = ("soft_f1", "format", "exact", "entity_f1")


@dataclass(frozen=True)
class Rewarded:
    """The reward of one answer, and its parts, each in [0, 1] and without its weight."""

    total: float
    parts: dict[str, float]
    valid: bool
    empty: bool


def reward(
    text: str,
    label: Sequence[Pair],
    types: Collection[str],
    weights: Mapping[str, float],
    *,
    length: float = 0.0,
) -> Rewarded:
    """Reward an answer by how well it agrees with `label`.

    An answer that cannot be read gets nothing, whatever the label: it would otherwise score as an empty one, which
    agrees with an empty label. The form is worth nothing where nothing was found, so that `{}` earns no bonus.

    Args:
        weights: of soft_f1, format, exact, entity_f1, and of length_penalty, which is taken off.
        length: the share of its room that the answer used, 0 to 1.
    """
    found = parse(text, types)
    empty = not found.entities
    parts: dict[str, float] = dict.fromkeys(PARTS, 0.0)
    if found.valid:
        parts = {
            "soft_f1": soft_token_f1(found.entities, label),
            "format": float(not empty),
            "exact": float(exact(found.entities, label)),
            "entity_f1": sentence_f1(found.entities, label),
        }
    total = sum(weights.get(name, 0.0) * value for name, value in parts.items())
    return Rewarded(total - weights.get("length_penalty", 0.0) * length, parts, found.valid, empty)
