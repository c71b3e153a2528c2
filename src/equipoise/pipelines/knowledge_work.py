"""How much work a cell of a grid is, by kind, in tokens read: what its progress counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from equipoise.data.formatting import Formatted
from equipoise.evaluation.functions import FunctionTask
from equipoise.evaluation.knowledge import Item, Task
from equipoise.evaluation.settings import ScoringSettings
from equipoise.records import Example

# Called with a kind of work, and how much of it is newly done: a share of a cell's work of that kind.
OnWork = Callable[[str, float], None]

TRAIN, ASK, COMPLETE, READ = "train", "ask", "complete", "read"

# Measured on SmolLM2-135M on a CPU, in tokens read: a token that is trained on, one that is written, and each pass that
# writes one token of all answers of a batch. Each kind of work finds its own rate as soon as it has begun; until then
# these make the kinds comparable.
TRAINED, WRITTEN, PASS = 3.0, 2.7, 80.0
FUNCTION_TOKENS = 120  # of a completed function


def training_work(formatted: Formatted, epochs: int) -> float:
    """Return the work of training on rows so many times."""
    return TRAINED * epochs * sum(len(row.input_ids) for row in formatted.rows)


class Asking:
    """The work of answering the items of tasks and of completing functions.

    Args:
        talks: the model answers questions in prose, so that each may take all the tokens that it has.
    """

    def __init__(self, tokenizer: Any, how: ScoringSettings, tasks: Sequence[Task], functions: int = 0, *, talks: bool):
        self.tokenizer, self.how, self.talks, self.functions = tokenizer, how, talks, functions
        self._lengths: dict[str, int] = {}
        self._costs: dict[Item, float] = {}
        for task in tasks:
            for form in ("chat", "text"):
                self._count([item for item in task.items if item.form == form])

    @property
    def total(self) -> float:
        """The work of all items."""
        return sum(self._costs.values())

    def of(self, item: Item) -> float:
        """Return the work of one answer: reading its prompt and writing as much as gold has, or as it may."""
        return self._costs[item]

    def of_function(self, task: FunctionTask) -> float:
        """Return the work of completing one function."""
        return self._length(task.prompt) + FUNCTION_TOKENS * (WRITTEN + PASS / self.functions)

    def _count(self, items: Sequence[Item]) -> None:
        """Note the work of items that are answered together, as far as a batch holds them."""
        read = [sum(self._length(turn.content) for turn in item.conversation) for item in items]
        written = [self._written(item) for item in items]
        longest = max((r + w for r, w in zip(read, written)), default=1)
        beside = max(min(len(items), self.how.batch_tokens // longest), 1)
        for item, r, w in zip(items, read, written):
            self._costs[item] = r + w * (WRITTEN + PASS / beside)

    def _written(self, item: Item) -> int:
        gold = self._length(item.gold) + 1
        return max(self.how.max_new_tokens, gold) if self.talks and item.form == "chat" else gold

    def of_rows(self, rows: Sequence[Example]) -> int:
        """Return the work of reading rows as they are trained on."""
        return sum(self._length(turn.content) for row in rows for turn in row.messages)

    def _length(self, text: str) -> int:
        if text not in self._lengths:
            self._lengths[text] = len(self.tokenizer(text).input_ids)
        return self._lengths[text]
