"""From preference pairs to token ids: one prompt, two answers, as supervised training and generation would see them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from equipoise.data.formatting import Unusable, answer_parts, refuse_many, supervise
from equipoise.records import Message

if TYPE_CHECKING:
    from equipoise.records import PreferencePair


@dataclass(frozen=True)
class RenderedPair:
    """Token ids of the prompt and of both answers, each with what ends its turn; the answers are supervised."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]


@dataclass(frozen=True)
class RenderedPairs:
    """Pairs that can be used, in order, with their ids; `dropped` holds (id, reason) of the others."""

    rows: list[RenderedPair] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    dropped: list[tuple[str, str]] = field(default_factory=list)


def render_pair(tokenizer: Any, pair: PreferencePair, *, max_length: int | None = None) -> RenderedPair:
    """Token ids of one pair; prompt and answers are those of `formatting.render`.

    Raises:
        Unusable: an answer is empty, it does not fit into `max_length` with its prompt, or the chat template makes the
            two answers the same or their prompts different.
        UserError: as `formatting.render`.
    """
    chosen, rejected = (
        answer_parts(tokenizer, [*pair.prompt, Message(role="assistant", content=answer)])
        for answer in (pair.chosen, pair.rejected)
    )
    if chosen.prompt != rejected.prompt:
        raise Unusable("the prompt's tokens differ between the two answers")
    prompt = chosen.prompt
    sides = [side.answer + side.end for side in (chosen, rejected)]
    if sides[0] == sides[1]:
        raise Unusable("chosen equals rejected, token by token")
    for name, side in zip(("chosen", "rejected"), sides):
        try:
            supervise(prompt + side, range(len(prompt), len(prompt) + len(side)), max_length)
        except Unusable as reason:
            raise Unusable(f"{name}: {reason}") from None
    return RenderedPair(prompt, sides[0], sides[1])


def render_pairs(
    tokenizer: Any, pairs: Iterable[PreferencePair], *, max_length: int | None = None, max_bad_share: float = 0.05
) -> RenderedPairs:
    """Render every pair; those that cannot be used are listed with their reason.

    Raises:
        UserError: more than `max_bad_share` of the pairs, or all of them, cannot be used.
    """
    out = RenderedPairs()
    for pair in pairs:
        try:
            out.rows.append(render_pair(tokenizer, pair, max_length=max_length))
            out.ids.append(pair.id)
        except Unusable as reason:
            out.dropped.append((pair.id, str(reason)))
    refuse_many(len(out.rows), out.dropped, max_bad_share, "pairs", "dpo")
    return out
