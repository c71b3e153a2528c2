"""From a JSONL file, a JSON array or a data set on the Hub to examples; every row left out has its line and reason."""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from equipoise.config import nearest
from equipoise.data.hub import PREFIX, HubRows
from equipoise.data.jsonl import DOCS, BadRow, JsonRows, Raw, shown
from equipoise.data.rows import FIELDS, Draft, parse_row
from equipoise.errors import UserError
from equipoise.records import Example, Message

LISTED = 5


@dataclass(frozen=True)
class Dropped:
    """A row that was left out: its line (from 1), the field if one is to blame, why, and how it begins."""

    line: int
    field: str
    reason: str
    excerpt: str


@dataclass(frozen=True)
class Loaded:
    """What came of a source: usable rows in order, the others, remarks, and the hash of its content."""

    examples: list[Example]
    dropped: list[Dropped]
    notes: list[str]
    sha256: str


def load_examples(source: str | Path, *, max_bad_share: float = 0.05) -> Loaded:
    """Read rows with `prompt` and `completion`, or `messages`, and optionally `id`, `old`, `rephrasings` and `meta`.

    A row that cannot be used is dropped and listed. One without an id is named after its line (`row-000001`), and
    `meta["source"]` says where each one stands.

    Args:
        source: the path of a JSONL file or of one JSON array, or `hub:NAME:SPLIT`.
        max_bad_share: the share of dropped rows, from 0 to 1, above which the whole source is refused.

    Raises:
        UserError: the source cannot be read, has no usable row or too many bad ones, or one id names two texts.
    """
    name = str(source)
    rows = HubRows(name) if name.startswith(PREFIX) else JsonRows(Path(name).expanduser())
    gathered = _Gathered(rows)
    for raw in rows:
        gathered.take(raw)
    gathered.check(max_bad_share)
    examples = gathered.examples()
    notes = rows.notes + gathered.notes() + _overlaps(examples)
    return Loaded(examples, gathered.dropped, notes, rows.sha256)


def check_disjoint(train: Iterable[Example], test: Iterable[Example]) -> None:
    """Refuse an example that stands in both: the same question, whatever its id, spacing or answer.

    A held-out rephrasing is a question of its row. System messages do not tell two questions apart.

    Raises:
        UserError: naming the first such pair.
    """
    asked = {question: example for example in train for question in _questions(example)}
    for example in test:
        twin = next((asked[question] for question in _questions(example) if question in asked), None)
        if twin is not None:
            raise UserError(
                f"the same question stands in both sets, as {shown(twin.id)!r} and as {shown(example.id)!r}: "
                f"{shown(example.prompt)}",
                where=f"{_place(twin)} and {_place(example)}",
                fix="remove it from one of the two",
                docs=DOCS,
            )


def _questions(example: Example) -> list[tuple[str, ...]]:
    before = [_plain(message.content) for message in example.messages[:-2] if message.role != "system"]
    return [(*before, _plain(question)) for question in (example.prompt, *example.rephrasings)]


def _overlaps(examples: list[Example]) -> list[str]:
    """Remark on rows that a person would want to look at: one question twice, a rephrasing trained on."""
    asked: dict[tuple[str, ...], Example] = {}
    twice: list[tuple[Example, Example]] = []
    leaks: list[tuple[Example, Example]] = []
    for example in examples:
        first = asked.setdefault(_questions(example)[0], example)
        twice += [(example, first)] if first is not example else []
    for example in examples:
        leaks += [(example, asked[held]) for held in _questions(example)[1:] if held in asked]
    remarks = (
        (twice, "{} asks the same question as {}"),
        (leaks, "a rephrasing at {} is the question at {}, so it is not held out"),
    )
    return [
        text.format(*map(_place, found[0])) + (f" (and {len(found) - 1} more such)" if found[1:] else "")
        for found, text in remarks
        if found
    ]


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def _place(example: Example) -> str:
    return str(example.meta.get("source", example.id))


class _Gathered:
    """The rows so far, with what is needed to know a text or an id again."""

    def __init__(self, rows: JsonRows | HubRows):
        self.rows = rows
        self.drafts: list[tuple[int, Draft]] = []
        self.dropped: list[Dropped] = []
        self.texts: dict[tuple[tuple[str, str], ...], int] = {}
        self.ids: dict[str, tuple[int, list[Message]]] = {}
        self.unknown: dict[str, list[int]] = {}

    def take(self, raw: Raw) -> None:
        """Keep a row, or drop it with its reason."""
        try:
            if isinstance(raw.values, BadRow):
                raise raw.values
            draft = parse_row(raw.values)
            self._check_new(raw.line, draft)
        except BadRow as bad:
            self.dropped.append(Dropped(raw.line, bad.field, bad.reason, raw.excerpt))
            return
        self.drafts.append((raw.line, draft))
        for name in dict.fromkeys(draft.unknown):
            self.unknown.setdefault(name, []).append(raw.line)

    def _check_new(self, line: int, draft: Draft) -> None:
        if draft.id is not None:
            first, messages = self.ids.setdefault(draft.id, (line, draft.messages))
            if messages != draft.messages:
                raise UserError(
                    f"the id {shown(draft.id)!r} names two different texts; the other is in line {first}",
                    where=self.rows.where(line, "id"),
                    fix="give each text an id of its own, or leave the ids out",
                    docs=DOCS,
                )
        text = tuple((message.role, message.content) for message in draft.messages)
        first = self.texts.setdefault(text, line)
        if first != line:
            raise BadRow(f"the same text as line {first}")

    def check(self, max_bad_share: float) -> None:
        """Refuse a source without usable rows, or with too many bad ones."""
        bad, total = len(self.dropped), len(self.dropped) + len(self.drafts)
        if total == 0:
            fix = "write one JSON object a line"
            raise UserError("there are no rows", where=self.rows.where(1), fix=fix, docs=DOCS)
        if self.drafts and bad <= max_bad_share * total:
            return
        listed = [f"  {self.rows.where(row.line, row.field)}: {row.reason}" for row in self.dropped[:LISTED]]
        more = [f"  and {bad - LISTED} more"] if bad > LISTED else []
        allowed = f" ({bad / total:.1%}; {max_bad_share:.1%} are allowed)" if self.drafts else ""
        raise UserError(
            "\n".join([f"{bad} of {total} rows cannot be used{allowed}", *listed, *more]),
            where=self.rows.where(self.dropped[0].line, self.dropped[0].field),
            fix="mend these rows, or raise data.max_bad_share to leave them out" if self.drafts else "mend these rows",
            docs="docs/your-data.md#dropped-rows",
        )

    def examples(self) -> list[Example]:
        """Every kept row, with an id."""
        return [self._example(line, draft) for line, draft in self.drafts]

    def _example(self, line: int, draft: Draft) -> Example:
        name = draft.id or f"row-{line:06d}"
        while draft.id is None and name in self.ids:
            name += "'"
        return Example(
            id=name,
            messages=draft.messages,
            old=draft.old,
            rephrasings=draft.rephrasings,
            meta=draft.meta | {"source": self.rows.where(line)},
        )

    def notes(self) -> list[str]:
        """Say once for each unknown field where it stands, and what may have been meant."""
        notes = []
        for name, lines in self.unknown.items():
            guess = None if "[]." in name else nearest(name, FIELDS)
            rows = f"{len(lines)} rows, first in line {lines[0]}" if len(lines) > 1 else f"line {lines[0]}"
            notes.append(f"unknown field {name!r} ignored in {rows}" + (f"; did you mean {guess!r}?" if guess else ""))
        return notes
