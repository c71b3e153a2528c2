"""Other rows of the data as examples before a row's question, which show a model the form of the answers."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from equipoise.data.near_duplicates import jaccard, shingles
from equipoise.records import Example, Message

FEWEST, MOST = 2, 5  # examples; two are not enough for a small model, which then still answers in sentences
ROOM = 1200  # characters of all examples, from which on there are no more than the fewest
LOOKED_AT = 64  # rows tried for each row, from its own place in a fixed order on
CHOSEN_FROM = 16  # of those that may be shown, the ones whose answers are most like the row's in length are
ALIKE = 0.6  # Jaccard index of the questions' words from which two rows are near duplicates
LABEL_SHARE, LABEL_ROWS = 0.1, 3  # an answer of more rows than both is a label
SEPARATOR = "\n\n"  # between rows in the text form
LABEL = "its answer is a label that many rows have, and other labels as examples would point away from it"
FEW = "too few other rows that may stand before it (of another question, group and answer)"


@dataclass(frozen=True)
class _Row:
    """What decides whether two rows may stand together."""

    question: str
    words: set[str]
    answer: str
    old: str | None
    group: str | None
    size: float
    text: str = field(repr=False)

    @classmethod
    def of(cls, example: Example) -> _Row:
        question, answer = _plain(example.prompt), _plain(example.completion)
        old, group = example.old, example.meta.get("group")
        text = f" {_plain(' '.join((example.prompt, example.completion)))} "
        size = math.log1p(len(example.completion))
        old = None if old is None else _plain(old)
        return cls(question, shingles(question, 1), answer, old, None if group is None else str(group), size, text)


class Shots:
    """Chooses examples for the rows of a data set: the same ones every time, whatever the order of the rows.

    A row is never shown beside its own question, group or near duplicate, nor a text that holds its answer or its
    outdated one; the examples differ in their answers too. A row whose answer is a label, one of few in the data, has
    no examples: those that remain would all point away from it.
    """

    def __init__(self, examples: Sequence[Example]):
        self.examples = sorted(examples, key=_order)
        self.rows = [_Row.of(example) for example in self.examples]
        self.place = {id(example): i for i, example in enumerate(self.examples)}
        self.answers = Counter(row.answer for row in self.rows)

    def before(self, example: Example) -> tuple[tuple[Example, ...], None] | tuple[None, str]:
        """The examples to show before a row of the data, or why it has none."""
        at = self.place[id(example)]
        row = self.rows[at]
        if self.answers[row.answer] > max(LABEL_SHARE * len(self.rows), LABEL_ROWS):
            return None, LABEL
        may: list[int] = []
        for step in range(1, min(LOOKED_AT, len(self.rows) - 1) + 1):
            other = (at + step) % len(self.rows)
            if self.examples[other].form == example.form and _apart(row, self.rows[other]):
                may.append(other)
            if len(may) == CHOSEN_FROM:
                break
        chosen: list[int] = []
        room = ROOM
        for other in sorted(may, key=lambda i: abs(self.rows[i].size - row.size)):
            room -= len(self.rows[other].text)
            if len(chosen) == MOST or (len(chosen) >= FEWEST and room < 0):
                break
            if all(_apart(self.rows[other], self.rows[held]) for held in chosen):
                chosen.append(other)
        if len(chosen) < FEWEST:
            return None, FEW
        return tuple(self.examples[i] for i in chosen), None


def with_shots(example: Example, shots: Sequence[Example], *, answer: str | None = None) -> Example:
    """The row with examples before its question: as earlier turns, or, in the text form, in the text before it.

    Args:
        answer: to stand in place of the row's own.
    """
    said = Message(role="assistant", content=example.completion if answer is None else answer)
    if example.form == "text":
        # A text that runs on without a break is cut off from the next; what the rows begin and end with stays theirs.
        before = "".join(shot.prompt + shot.completion + SEPARATOR for shot in shots)
        messages = [Message(role="user", content=before + example.prompt), said]
    else:
        system = [message for message in example.messages[:1] if message.role == "system"]
        turns = [message for shot in shots for message in shot.messages[-2:]]
        messages = [*system, *turns, *example.messages[len(system) : -1], said]
    return example.model_copy(update={"messages": messages})


def _apart(row: _Row, other: _Row) -> bool:
    if row.question == other.question or row.answer == other.answer:
        return False
    if row.group is not None and row.group == other.group:
        return False
    if any(said is not None and f" {said} " in other.text for said in (row.answer, row.old)):
        return False
    return jaccard(row.words, other.words) < ALIKE


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).strip(" .")


def _order(example: Example) -> tuple[bytes, str]:
    return hashlib.sha256(f"{example.id}\n{example.prompt}".encode()).digest(), example.id
