"""Texts as they stand, without a chat template: what a model reads when it is given a file."""

from typing import Any

from equipoise.data.formatting import _encode, _Span  # pyright: ignore[reportPrivateUsage]


def text_ids(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a text, with BOS where the tokenizer adds one; control tokens that it spells out stay plain text."""
    return first_ids(tokenizer) + _encode(tokenizer, text, [_Span(0, len(text), False)])[0]


def first_ids(tokenizer: Any) -> list[int]:
    """What the tokenizer puts before every text: BOS, or nothing."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    at = next((i for i in range(len(whole)) if whole[i : i + len(bare)] == bare), 0)
    return [int(token) for token in whole[:at]]
