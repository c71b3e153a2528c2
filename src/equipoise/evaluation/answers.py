"""Answers to held-out instructions: the loss of the right one, and whether the model gives it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from equipoise.data.formatting import Rendered, Unusable, render, render_prompt
from equipoise.evaluation.tokens import TokenReader
from equipoise.models.generation import generate
from equipoise.models.loading import Loaded
from equipoise.records import Example
from equipoise.signals.tokens import TokenStatistics

Row = dict[str, Any]


def answer_losses(
    loaded: Loaded, examples: Sequence[Example], *, max_length: int, batch_tokens: int = 4096
) -> list[tuple[float, int]]:
    """The nll in nats, summed over the answer, and its number of tokens, end of turn included, of each example.

    One that does not fit into `max_length` has no tokens.
    """
    rendered: list[Rendered | None] = []
    for example in examples:
        try:
            rendered.append(render(loaded.tokenizer, example, max_length=max_length))
        except Unusable:
            rendered.append(None)
    read = TokenReader(loaded, batch_tokens=batch_tokens).read(row for row in rendered if row is not None)
    return [(0.0, 0) if row is None else _sum(next(read)) for row in rendered]


def _sum(read: TokenStatistics) -> tuple[float, int]:
    return float(read.nll.double().sum()), len(read.nll)


def answer_rows(
    loaded: Loaded, examples: Sequence[Example], *, max_new_tokens: int, max_length: int, batch_tokens: int = 8192
) -> list[Row]:
    """Ask each question greedily; one row each with prompt, gold, output, `exact`, `nll`, `tokens` and `length`.

    `exact` is 1 where the output is gold but for white space at its ends; `length` counts the tokens of the output, and
    `cut` tells whether it was still going on at `max_new_tokens`.
    """
    prompts = [render_prompt(loaded.tokenizer, example) for example in examples]
    answers = generate(
        loaded.model, loaded.tokenizer, prompts, max_new_tokens=max_new_tokens, batch_tokens=batch_tokens
    )
    texts = [loaded.tokenizer.decode(answer.ids, skip_special_tokens=True) for answer in answers]
    losses = answer_losses(loaded, examples, max_length=max_length)
    return [
        {
            "id": example.id,
            "prompt": example.prompt,
            "gold": example.completion,
            "output": text,
            "exact": int(text.strip() == example.completion.strip()),
            "nll": nll,
            "tokens": tokens,
            "length": len(answer.ids),
            "cut": answer.stop is None,
        }
        for example, answer, text, (nll, tokens) in zip(examples, answers, texts, losses, strict=True)
    ]
