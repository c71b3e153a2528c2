"""How much work a cell of a grid is, by kind, in tokens read: what its progress counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from equipoise.data.formatting import Formatted
from equipoise.evaluation.functions import FunctionTask
from equipoise.evaluation.knowledge import Item
from equipoise.evaluation.settings import ScoringSettings
from equipoise.records import Example

# Called with a kind of work, and how much of it is newly done: a share of a cell's work of that kind.
OnWork = Callable[[str, float], None]

TRAIN, ASK, COMPLETE, READ = "train", "ask", "complete", "read"

# What a token costs that is trained on, or written, against one that is read. Each kind finds its own rate as soon as
# it has begun; until then these keep kinds comparable.
TRAINED, WRITTEN = 3.0, 5.0
FUNCTION_TOKENS = 120  # of a completed function


def training_work(formatted: Formatted, epochs: int) -> float:
    """Return the work of training on rows so many times."""
    return TRAINED * epochs * sum(len(row.input_ids) for row in formatted.rows)


class Asking:
    """The work of answering items and of completing functions.

    Args:
        talks: the model answers questions in prose, so that each may take all the tokens that it has.
    """

    def __init__(self, tokenizer: Any, how: ScoringSettings, *, talks: bool):
        self.tokenizer, self.how, self.talks = tokenizer, how, talks
        self._lengths: dict[str, int] = {}

    def of(self, item: Item) -> float:
        """Return the work of one answer: reading its prompt and writing as much as gold has, or as it may."""
        gold = self._length(item.gold) + 1
        written = max(self.how.max_new_tokens, gold) if self.talks and item.form == "chat" else gold
        return sum(self._length(turn.content) for turn in item.conversation) + WRITTEN * written

    def of_function(self, task: FunctionTask) -> float:
        """Return the work of completing one function."""
        return self._length(task.prompt) + WRITTEN * FUNCTION_TOKENS

    def of_rows(self, rows: Sequence[Example]) -> int:
        """Return the work of reading rows as they are trained on."""
        return sum(self._length(turn.content) for row in rows for turn in row.messages)

    def _length(self, text: str) -> int:
        if text not in self._lengths:
            self._lengths[text] = len(self.tokenizer(text).input_ids)
        return self._lengths[text]
