"""General questions that come with the package: some to rehearse with the model's own answers, others to ask.

Rehearsed, they keep an update from reaching what it has nothing to do with. Asked before and after, they show whether
it did.
"""

import json
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path

from equipoise.console import say
from equipoise.data.formatting import render_prompt
from equipoise.evaluation.knowledge import Item, Task
from equipoise.journal import read_journal, write_jsonl
from equipoise.metrics.text import plain
from equipoise.models.generation import generate
from equipoise.models.loading import Loaded
from equipoise.records import Example, Message

TASK = "general"
FILE = "rehearsal.jsonl"  # in a run directory
MOST_TOKENS = 48
ENDS = (".", "!", "?", "\n")


def _questions() -> list[dict]:
    text = files("equipoise.pipelines").joinpath("general-questions.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def task(asked: Iterable[str]) -> Task:
    """Return the general questions that have an answer and are not among `asked`, which training is about."""
    own = {plain(text) for text in asked}
    rows = [row for row in _questions() if "answer" in row and plain(row["question"]) not in own]
    return Task(
        TASK,
        tuple(
            Item(
                id=f"general-{number:02d}",
                conversation=(Message(role="user", content=row["question"]),),
                gold=row["answer"],
                accepted=tuple(row["accepted"]),
            )
            for number, row in enumerate(rows, 1)
        ),
    )


def settle(loaded: Loaded, count: int, folder: Path | None) -> list[Example]:
    """Have the untrained model answer the first `count` questions that are never asked, once for a run.

    Args:
        folder: a run directory, which may hold the answers already; None to write nothing.
    """
    path = folder / FILE if folder else None
    if path is not None and path.exists():
        return [Example(**row) for row in read_journal(path).rows]
    texts = [row["question"] for row in _questions() if "answer" not in row][:count]
    questions = [Message(role="user", content=text) for text in texts]
    prompts = [render_prompt(loaded.tokenizer, [question]) for question in questions]
    say(f"asking the model {len(questions)} general questions to rehearse")
    answers = generate(loaded.model, loaded.tokenizer, prompts, max_new_tokens=MOST_TOKENS)
    outputs = loaded.tokenizer.batch_decode([answer.ids for answer in answers], skip_special_tokens=True)
    rows = []
    for number, (question, answer, output) in enumerate(zip(questions, answers, outputs, strict=True), 1):
        if said := (_whole_sentences(output) if answer.cut else output.strip()):
            messages = [question, Message(role="assistant", content=said)]
            rows.append(Example(id=f"rehearsed-{number:02d}", messages=messages))
    if path is not None:
        write_jsonl(path, (row.model_dump() for row in rows))
    return rows


def _whole_sentences(text: str) -> str:
    """Leave out the sentence that ran out of tokens: rehearsed, it would teach the model to stop in mid-sentence."""
    return text[: max(text.rfind(end) for end in ENDS) + 1].strip()
