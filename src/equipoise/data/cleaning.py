"""One row of instruction data, cleaned: one form, one spelling, and refused with a rule where it teaches nothing."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from equipoise.data.clean_text import cleaned
from equipoise.data.jsonl import BadRow
from equipoise.data.loading import questions
from equipoise.data.preferences import PairDraft, parse_pair
from equipoise.data.rows import Draft, Empty, parse_row
from equipoise.data.schemas import Recognised, recognise
from equipoise.metrics.text import plain
from equipoise.records import Example, Message

Kind = Literal["examples", "pairs"]
_ONE_CHARACTER = re.compile(r"\s*(\S)(?:\s*\1){7,}\s*")
LINES, WORDS = 3, 8  # so many, all the same, are no answer


class Rejected(BadRow):
    """A row that can be read and teaches nothing, for the rule of this name."""

    def __init__(self, rule: str, reason: str, field: str = ""):
        super().__init__(reason, field)
        self.rule = rule


@dataclass(frozen=True)
class CleanRow:
    """A row in the one form, and what the steps after it look at.

    Attributes:
        values: as it is written, without an id.
        asked: how its question, and then its rephrasings, are known again.
        conversation: what there is to read; of a pair, with the longer answer.
        changes: field and rule of each change.
    """

    kind: Kind
    schema: str
    id: str | None
    values: dict[str, Any]
    asked: list[tuple[str, ...]]
    conversation: list[Message]
    changes: list[dict[str, str]]
    licence: str | None
    language: str | None
    unread: list[str]

    @property
    def text(self) -> str:
        """All that the row says but its system message, as it is compared with other rows."""
        said = [message.content for message in self.conversation if message.role != "system"]
        return "\n".join([*said[:-1], *self.answers])

    @property
    def answers(self) -> list[str]:
        """What may be learnt from it; of a pair, the better answer stands first."""
        if self.kind == "pairs":
            return [self.values["chosen"], self.values["rejected"]]
        return [self.conversation[-1].content]

    @property
    def digest(self) -> int:
        """128 bits that are the same for the same text, whatever its white space; roles tell two texts apart."""
        turns = self.values["prompt"] if self.kind == "pairs" else self.values["messages"]
        said = [f"{turn['role']}\0{plain(turn['content'])}" for turn in turns]
        said += [plain(answer) for answer in self.answers] if self.kind == "pairs" else []
        return int.from_bytes(hashlib.blake2b("\0\0".join(said).encode(), digest_size=16).digest(), "big")


def clean_row(values: dict[str, Any]) -> CleanRow:
    """Recognise, clean and judge the fields of one row.

    Raises:
        BadRow: it has none of the known schemas, or its own asks for something else; `Empty`, if a text says nothing.
        Rejected: its answer is its question, or says one thing over and over.
    """
    row = recognise(values)
    changes: list[dict[str, str]] = []
    spelt = dict(_spelt(_fields(row.draft), changes))
    unread, name = row.draft.unknown, row.draft.id
    draft = row.draft
    if changes:
        draft = parse_pair(spelt) if isinstance(draft, PairDraft) else parse_row(spelt)
    made = _made(replace(row, draft=draft), spelt, changes, name, unread)
    _judge(made)
    return made


def held_out_questions(values: dict[str, Any]) -> list[tuple[str, ...]]:
    """How the questions of a row of an evaluation set are known again: in any of the schemas, or without an answer.

    Raises:
        BadRow: the row asks nothing.
    """
    try:
        return clean_row(values).asked
    except BadRow as bad:
        names = ("question", "prompt", "instruction")
        asked = next((values[name] for name in names if isinstance(values.get(name), str)), "")
        if not asked.strip():
            raise bad from None
        more = [values.get("context"), asked, values.get("input")]
        return [(plain(cleaned("\n\n".join(text for text in more if isinstance(text, str) and text.strip()))[0]),)]


def _made(
    row: Recognised, values: dict[str, Any], changes: list[dict[str, str]], name: str | None, unread: list[str]
) -> CleanRow:
    draft = row.draft
    if isinstance(draft, PairDraft):
        longest = max(draft.chosen, draft.rejected, key=len)
        conversation = [*draft.prompt, Message(role="assistant", content=longest)]
        kind, rephrasings = "pairs", []
    else:
        kind, conversation, rephrasings = "examples", draft.messages, draft.rephrasings
    asked = questions(Example(id="-", messages=conversation, rephrasings=rephrasings))
    return CleanRow(kind, row.schema, name, values, asked, conversation, changes, row.licence, row.language, unread)


def _fields(draft: Draft | PairDraft) -> dict[str, Any]:
    """A draft as a row that `load_examples` or `load_pairs` reads."""
    said = draft.prompt if isinstance(draft, PairDraft) else draft.messages
    turns = [{"role": turn.role, "content": turn.content} for turn in said]
    if isinstance(draft, PairDraft):
        row = {"prompt": turns, "chosen": draft.chosen, "rejected": draft.rejected}
    else:
        form = None if draft.form == "chat" else draft.form
        row = {"messages": turns, "form": form, "old": draft.old, "rephrasings": draft.rephrasings or None}
    return {name: value for name, value in (row | {"meta": draft.meta or None}).items() if value is not None}


def _spelt(row: dict[str, Any], changes: list[dict[str, str]]) -> Iterator[tuple[str, Any]]:
    for name, value in row.items():
        yield name, value if name == "meta" else _spelt_value(value, name, changes)


def _spelt_value(value: Any, field: str, changes: list[dict[str, str]]) -> Any:
    if isinstance(value, list):
        return [_spelt_value(each, f"{field}[{i}]", changes) for i, each in enumerate(value)]
    if isinstance(value, dict):
        return value | {"content": _spelt_value(value["content"], f"{field}.content", changes)}
    try:
        text, rules = cleaned(value)
    except BadRow as bad:
        raise Rejected("control", bad.reason, field) from None
    changes += [{"field": field, "rule": rule} for rule in rules]
    return text


def _judge(row: CleanRow) -> None:
    answer, question = row.answers[0], row.conversation[-2].content
    last = len(row.conversation) - 1
    asking = f"{'prompt' if row.kind == 'pairs' else 'messages'}[{last - 1}].content"
    field = "chosen" if row.kind == "pairs" else f"messages[{last}].content"
    if plain(answer) == plain(question):
        raise Rejected("echo", "the answer is the question", field)
    for text, name in ((answer, field), (question, asking)):
        if what := _degenerate(text):
            raise Rejected("repetition", f"nothing but {what}, over and over", name)


def _degenerate(text: str) -> str | None:
    if _ONE_CHARACTER.fullmatch(text):
        return "one character"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) >= LINES and len(set(lines)) == 1:
        return "one line"
    words = text.split()
    return "one word" if len(words) >= WORDS and len(set(words)) == 1 else None


def rule_of(bad: BadRow) -> str:
    """The name of the rule that a row was refused by."""
    if isinstance(bad, Rejected):
        return bad.rule
    return "empty" if isinstance(bad, Empty) else "schema"
