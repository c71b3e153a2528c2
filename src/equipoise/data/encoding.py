"""From text to token ids, in which a control token that somebody spelled out stays plain text."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from equipoise.errors import UserError


@dataclass(frozen=True)
class Span:
    """Where a message's content stands in a text."""

    start: int
    end: int
    from_model: bool


def encode(tokenizer: Any, text: str, spans: list[Span]) -> tuple[list[int], list[tuple[int, int]]]:
    """Tokenise as usual, then turn control tokens that stand inside a message back into plain text."""
    if not tokenizer.is_fast:
        raise UserError(
            f"{type(tokenizer).__name__} gives no character offsets, which answer-only training needs",
            fix="use a model whose tokenizer comes with a tokenizer.json",
        )
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    added = tokenizer.added_tokens_decoder
    ids: list[int] = []
    offsets: list[tuple[int, int]] = []
    for token, (start, end) in zip(encoded["input_ids"], encoded["offset_mapping"]):
        if token in added and _spelled_out(added[token], text, start, end, spans):
            plain = _plain_ids(tokenizer, text[start:end], frozenset(added))
            ids += plain
            offsets += [(start, end)] * len(plain)
        else:
            ids.append(token)
            offsets.append((start, end))
    return ids, offsets


def _spelled_out(token: Any, text: str, start: int, end: int, spans: list[Span]) -> bool:
    """Whether a message spelled this token out. A model's own answer may use added tokens that are not special."""
    at = text.find(token.content, start, end)
    core = (at, at + len(token.content)) if at >= 0 else (start, end)
    return any(
        span.start <= core[0] and core[1] <= span.end and (token.special or not span.from_model) for span in spans
    )


_without_added: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()


def _plain_ids(tokenizer: Any, text: str, control: frozenset[int]) -> list[int]:
    """Token ids of `text` from a twin of the tokenizer that knows no added token.

    `split_special_tokens` would not do: it leaves tokens added with `add_tokens` in force.
    """
    if tokenizer not in _without_added:
        from tokenizers import Tokenizer

        state = json.loads(tokenizer.backend_tokenizer.to_str())
        state["added_tokens"], state["post_processor"] = [], None
        _without_added[tokenizer] = Tokenizer.from_str(json.dumps(state))
    twin = _without_added[tokenizer]
    ids = twin.encode(text, add_special_tokens=False).ids
    if control.isdisjoint(ids):
        return ids
    # a vocabulary of whole words holds the control token as a word: spell it
    return [i for char in text for i in twin.encode(char, add_special_tokens=False).ids if i not in control]
