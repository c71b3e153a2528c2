"""From JSONL, a JSON array or a data set on the Hub to examples; a row that is left out is listed with its reason."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from equipoise.config import nearest
from equipoise.data.jsonl import DOCS, BadRow, RawRow, RowFile, parse, refuse_unwritable
from equipoise.data.rows import FIELDS, to_example
from equipoise.errors import UserError
from equipoise.records import Example

HUB = "hub:"
SHOWN = 5


@dataclass(frozen=True)
class Dropped:
    """A row that was left out: where, which field, why, and how it begins."""

    line: int
    field: str
    reason: str
    excerpt: str


@dataclass(frozen=True)
class Loaded:
    """What was read: examples in order, rows left out, remarks, and the hash of the source's content."""

    examples: list[Example]
    dropped: list[Dropped]
    notes: list[str]
    sha256: str


def load_examples(source: str | Path, *, max_bad_share: float = 0.05) -> Loaded:
    """Read examples from a JSONL file (or one JSON array) or from `hub:NAME:SPLIT`.

    A row has `prompt` and `completion` (texts, or lists of messages) or `messages`; `id`, `old`, `rephrasings` and
    `meta` are optional, other fields are named in the notes and ignored.

    Args:
        max_bad_share: the share of rows that may be left out, in [0, 1].

    Raises:
        UserError: the source cannot be read, one id has two texts, no row is usable, or too many are not.
    """
    gathered = _Gathered(str(source))
    if str(source).startswith(HUB):
        from equipoise.data.hub import hub_rows

        digest = hashlib.sha256()
        for number, row in enumerate(hub_rows(str(source)), 1):
            text = json.dumps(row, ensure_ascii=False, sort_keys=True, default=str).encode("utf-8", "backslashreplace")
            digest.update(text + b"\n")
            gathered.take(RawRow(number, text), row)
        sha256 = digest.hexdigest()
    else:
        file = RowFile(Path(source))
        for raw in file.rows():
            gathered.take(raw)
        sha256 = file.sha256
        gathered.notes += _remarks(file)
    return gathered.result(max_bad_share, sha256)


def _remarks(file: RowFile) -> Iterator[str]:
    if file.marked:
        yield "the file begins with a byte-order mark, which was passed over"
    if file.array:
        yield "the rows stand in one JSON array"
    if file.blank:
        yield f"{file.blank} blank lines were passed over"


@dataclass
class _Gathered:
    source: str
    examples: list[Example] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unknown: Counter[str] = field(default_factory=Counter)
    by_id: dict[str, tuple[int, str]] = field(default_factory=dict)
    by_text: dict[str, int] = field(default_factory=dict)

    def take(self, raw: RawRow, row: dict[str, Any] | None = None) -> None:
        """Turn one row into an example, or note why not."""
        try:
            values = parse(raw, f"{self.source}:{raw.line}") if row is None else row
            if row is not None:
                refuse_unwritable(row)
            example = to_example(values, f"row-{raw.line}")
            self._refuse_repetition(example, raw.line)
        except BadRow as bad:
            self.dropped.append(Dropped(raw.line, bad.field, bad.reason, raw.excerpt))
            return
        self.unknown.update(name for name in values if name not in FIELDS)
        self.examples.append(example)

    def _refuse_repetition(self, example: Example, line: int) -> None:
        text = _fingerprint(example)
        if example.id in self.by_id:
            first, other = self.by_id[example.id]
            if other != text:
                raise UserError(
                    f"the id {example.id!r} stands for two texts, here and in line {first}",
                    where=f"{self.source}:{line}:id",
                    fix="give each row an id of its own, or leave `id` out",
                    docs=DOCS,
                )
        if text in self.by_text:
            raise BadRow(f"the same as line {self.by_text[text]}")
        self.by_id[example.id] = (line, text)
        self.by_text[text] = line

    def result(self, max_bad_share: float, sha256: str) -> Loaded:
        """Refuse too many bad rows; else hand over what was gathered."""
        total = len(self.examples) + len(self.dropped)
        share = len(self.dropped) / total if total else 1.0
        if not self.examples or share > max_bad_share:
            raise self._too_many(total, share, max_bad_share)
        for name, count in self.unknown.items():
            guess = nearest(name, FIELDS)
            hint = f"; did you mean {guess!r}?" if guess else ""
            self.notes.append(f"unknown field {name!r} in {count} rows, ignored{hint}")
        return Loaded(self.examples, self.dropped, self.notes, sha256)

    def _too_many(self, total: int, share: float, allowed: float) -> UserError:
        if not self.dropped:
            return UserError("there are no rows", where=self.source, fix="give at least one row", docs=DOCS)
        listed = [
            f"\n    line {bad.line}{bad.field and ', ' + bad.field}: {bad.reason}: {bad.excerpt}"
            for bad in self.dropped[:SHOWN]
        ]
        more = f"\n    and {len(self.dropped) - SHOWN} more" if len(self.dropped) > SHOWN else ""
        first = self.dropped[0]
        return UserError(
            f"{len(self.dropped)} of {total} rows ({share:.1%}) cannot be used, more than the {allowed:.1%} allowed:"
            + "".join(listed)
            + more,
            where=f"{self.source}:{first.line}" + (f":{first.field}" if first.field else ""),
            fix="mend the rows, or raise data.max_bad_share to leave them out",
            docs=DOCS,
        )


def _fingerprint(example: Example) -> str:
    """Identify what a row says, apart from its id."""
    said = example.model_dump(exclude={"id", "meta"})
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def check_disjoint(train: Iterable[Example], test: Iterable[Example]) -> None:
    """Make sure that no question of `test`, in any phrasing, is trained on. White space does not tell two apart.

    Raises:
        UserError: one is; both rows are named.
    """
    trained = {_question(row, row.prompt): row.id for row in train}
    for row in test:
        for phrasing in (row.prompt, *row.rephrasings):
            twin = trained.get(_question(row, phrasing))
            if twin is not None:
                raise UserError(
                    f"the same question is in training (id {twin!r}) and in the rows to test (id {row.id!r})",
                    where=f"{row.id}:prompt",
                    fix="remove it from one of the two files",
                    docs=DOCS,
                )


def _question(row: Example, prompt: str) -> tuple[str, ...]:
    before = [f"{message.role}: {message.content}" for message in row.messages[:-2]]
    return tuple(" ".join(text.split()) for text in (*before, prompt))
