"""Greedy answers to extraction prompts, read as entities and scored by the one scorer that rewards use too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from equipoise.data.extraction import pairs, prompt
from equipoise.data.formatting import render_prompt
from equipoise.metrics.entities import Counts, counts, parse
from equipoise.models.generation import generate
from equipoise.models.loading import Loaded
from equipoise.records import Message, Sentence

Row = dict[str, Any]


def extract(
    loaded: Loaded,
    sentences: Sequence[Sentence],
    types: Sequence[str],
    *,
    instruction: str | None = None,
    max_new_tokens: int = 128,
    batch_tokens: int = 8192,
) -> list[Row]:
    """Ask for the entities of each labelled sentence, greedily; one row each, in order.

    An answer that cannot be read counts as empty. `logprob` is that of the answer and of the token that ended it, in
    nats, over `tokens` of them.

    Returns:
        rows of id, domain, prompt, output, valid, problem, predicted and gold (lists of [type, text]), tp, fp, fn,
        logprob, tokens.
    """
    asked = [prompt(sentence.text, types, instruction) for sentence in sentences]
    rendered = [render_prompt(loaded.tokenizer, [Message(role="user", content=text)]) for text in asked]
    answers = generate(
        loaded.model, loaded.tokenizer, rendered, max_new_tokens=max_new_tokens, batch_tokens=batch_tokens
    )
    outputs = loaded.tokenizer.batch_decode([a.ids for a in answers], skip_special_tokens=True) if answers else []
    rows = []
    for sentence, text, output, answer in zip(sentences, asked, outputs, answers):
        found = parse(output, types)
        gold = pairs(sentence.entities or ())
        scored = counts(found.entities, gold)
        rows.append(
            {
                "id": sentence.id,
                "domain": sentence.dataset,
                "prompt": text,
                "output": output,
                "valid": found.valid,
                "problem": found.problem,
                "predicted": [list(pair) for pair in found.entities],
                "gold": [list(pair) for pair in gold],
                "tp": scored.tp,
                "fp": scored.fp,
                "fn": scored.fn,
                "logprob": answer.logprob,
                "tokens": len(answer.ids) + (answer.stop is not None),
            }
        )
    return rows


def summarise(rows: Sequence[Row]) -> dict[str, float]:
    """Strict micro precision, recall and F1 over multisets; shares of readable and of non-empty answers."""
    total = sum((Counts(row["tp"], row["fp"], row["fn"]) for row in rows), Counts())
    return {
        "f1": total.f1,
        "precision": total.precision,
        "recall": total.recall,
        "valid": sum(row["valid"] for row in rows) / len(rows),
        "non_empty": sum(bool(row["predicted"]) for row in rows) / len(rows),
    }
