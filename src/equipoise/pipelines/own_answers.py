"""General questions with the untrained model's own answers: rehearsed, they keep an update from reaching everything."""

from importlib.resources import files
from pathlib import Path

from equipoise.data.formatting import render_prompt
from equipoise.journal import read_journal, write_jsonl
from equipoise.models.generation import generate
from equipoise.models.loading import Loaded
from equipoise.records import Example, Message

FILE = "rehearsal.jsonl"  # in a run directory
MOST_TOKENS = 48
ENDS = (".", "!", "?", "\n")


def general_questions() -> list[str]:
    """Return the shipped questions: short, varied, and about nothing that an update would be about."""
    text = files("equipoise.data").joinpath("general_questions.txt").read_text(encoding="utf-8")
    return text.splitlines()


def settle(loaded: Loaded, count: int, folder: Path | None) -> list[Example]:
    """Have the untrained model answer the first `count` questions, once for a run.

    Args:
        folder: a run directory, which may hold the answers already; None to write nothing.
    """
    path = folder / FILE if folder else None
    if path is not None and path.exists():
        return [Example(**row) for row in read_journal(path).rows]
    questions = [Message(role="user", content=text) for text in general_questions()[:count]]
    prompts = [render_prompt(loaded.tokenizer, [question]) for question in questions]
    answers = generate(loaded.model, loaded.tokenizer, prompts, max_new_tokens=MOST_TOKENS)
    texts = loaded.tokenizer.batch_decode([answer.ids for answer in answers], skip_special_tokens=True)
    rows = []
    for number, (question, answer, text) in enumerate(zip(questions, answers, texts, strict=True), 1):
        if said := (_whole_sentences(text) if answer.cut else text.strip()):
            messages = [question, Message(role="assistant", content=said)]
            rows.append(Example(id=f"general-{number:03d}", messages=messages))
    if path is not None:
        write_jsonl(path, (row.model_dump() for row in rows))
    return rows


def _whole_sentences(text: str) -> str:
    """Leave out the sentence that ran out of tokens: rehearsed, it would teach the model to stop in mid-sentence."""
    return text[: max(text.rfind(end) for end in ENDS) + 1].strip()
