"""From a JSONL file, a JSON array or a data set on the Hub to examples; every row left out has its line and reason."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equipoise.data.gathering import Dropped, Gathered, Ids, Rows, open_rows
from equipoise.data.jsonl import DOCS, BadRow, shown
from equipoise.data.rows import FIELDS, Draft, parse_row
from equipoise.errors import UserError
from equipoise.metrics.text import plain
from equipoise.records import Example, Message


@dataclass(frozen=True)
class Loaded:
    """What came of a source: usable rows in order, the others, remarks, and the hash of its content."""

    examples: list[Example]
    dropped: list[Dropped]
    notes: list[str]
    sha256: str


def load_examples(
    source: str | Path,
    *,
    max_bad_share: float = 0.05,
    parse: Callable[[dict[str, Any]], Draft] = parse_row,
    fields: Sequence[str] = FIELDS,
) -> Loaded:
    """Read rows with `prompt` and `completion`, or `messages`, and the optional fields of `parse_row`.

    A row that cannot be used is dropped and listed. One without an id is named after its line (`row-000001`), and
    `meta["source"]` says where each one stands.

    Args:
        source: the path of a JSONL file or of one JSON array, or `hub:NAME:SPLIT`.
        max_bad_share: the share of dropped rows, from 0 to 1, above which the whole source is refused.
        parse, fields: how a row is read, and the fields that this looks at, for rows in another form.

    Raises:
        UserError: the source cannot be read, has no usable row or too many bad ones, or one id names two texts.
    """
    rows = open_rows(source, fields)
    parser = _Parser(rows, parse)
    gathered = Gathered(rows, parser.parse)
    gathered.check(max_bad_share)
    examples = [parser.example(line, draft) for line, draft in gathered.kept]
    notes = rows.notes + gathered.notes(fields) + _overlaps(examples)
    return Loaded(examples, gathered.dropped, notes, rows.sha256)


def check_disjoint(train: Iterable[Example], test: Iterable[Example]) -> None:
    """Refuse an example that stands in both: the same question, whatever its id, spacing or answer.

    A held-out rephrasing is a question of its row. System messages do not tell two questions apart.

    Raises:
        UserError: naming the first such pair.
    """
    asked = {question: example for example in train for question in questions(example)}
    for example in test:
        twin = next((asked[question] for question in questions(example) if question in asked), None)
        if twin is not None:
            raise UserError(
                f"the same question stands in both sets, as {shown(twin.id)!r} and as {shown(example.id)!r}: "
                f"{shown(example.prompt)}",
                where=f"{_place(twin)} and {_place(example)}",
                fix="remove it from one of the two",
                docs=DOCS,
            )


def check_form(examples: Sequence[Example], ask: str, source: str) -> None:
    """Refuse rows in chat form where `ask` wants code: a row of one's own cannot be asked in a form it does not have.

    Raises:
        UserError: naming the rows (`code`), or because none of them is in text form (`both`).
    """
    others = [example for example in examples if example.form != "text"]
    if ask == "chat" or not others or (ask == "both" and len(others) < len(examples)):
        return
    first = ", ".join(_place(example) for example in others[:3])
    raise UserError(
        f"{len(others)} of {len(examples)} rows are in chat form, where data.ask={ask} wants code: {first}",
        where=source,
        fix='write "form": "text" into rows whose completion continues their prompt as it stands, or set data.ask=chat',
        docs="docs/your-data.md#text-form",
    )


def questions(example: Example) -> list[tuple[str, ...]]:
    """What an example asks, by which the same question is known again: itself first, then its rephrasings."""
    before = [plain(message.content) for message in example.messages[:-2] if message.role != "system"]
    return [(*before, plain(question)) for question in (example.prompt, *example.rephrasings)]


def _overlaps(examples: list[Example]) -> list[str]:
    """Remark on rows that a person would want to look at: one question twice, a rephrasing trained on."""
    asked: dict[tuple[str, ...], Example] = {}
    twice: list[tuple[Example, Example]] = []
    leaks: list[tuple[Example, Example]] = []
    for example in examples:
        first = asked.setdefault(questions(example)[0], example)
        twice += [(example, first)] if first is not example else []
    for example in examples:
        leaks += [(example, asked[held]) for held in questions(example)[1:] if held in asked]
    remarks = (
        (twice, "{} asks the same question as {}"),
        (leaks, "a rephrasing at {} is the question at {}, so it is not held out"),
    )
    return [
        text.format(*map(_place, found[0])) + (f" (and {len(found) - 1} more such)" if found[1:] else "")
        for found, text in remarks
        if found
    ]


def _place(example: Example) -> str:
    return str(example.meta.get("source", example.id))


class _Parser:
    """From rows to drafts and examples, with what is needed to know a text or an id again."""

    def __init__(self, rows: Rows, read: Callable[[dict[str, Any]], Draft]):
        self.rows, self.read = rows, read
        self.texts: dict[tuple[tuple[str, str], ...], int] = {}
        self.ids: Ids[list[Message]] = Ids(rows)

    def parse(self, values: dict[str, Any], line: int) -> tuple[Draft, list[str]]:
        """Read a row and check that it is not there already."""
        draft = self.read(values)
        if draft.id is not None:
            self.ids.check(draft.id, line, draft.messages)
        text = tuple((message.role, message.content) for message in draft.messages)
        first = self.texts.setdefault(text, line)
        if first != line:
            raise BadRow(f"the same text as line {first}")
        return draft, draft.unknown

    def example(self, line: int, draft: Draft) -> Example:
        """A kept row, with an id."""
        return Example(
            id=draft.id or self.ids.for_line(line),
            messages=draft.messages,
            form=draft.form,
            old=draft.old,
            rephrasings=draft.rephrasings,
            meta=draft.meta | {"source": self.rows.where(line)},
        )
