"""Rows of a source one by one: the usable ones, the others with line and reason, and the fields that nobody reads."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from equipoise.config import nearest
from equipoise.data.hub import PREFIX, HubRows
from equipoise.data.jsonl import DOCS, BadRow, JsonRows, Raw, shown
from equipoise.errors import UserError

LISTED = 5
Rows = JsonRows | HubRows
Kept = TypeVar("Kept")


class Unused(BadRow):
    """A sound row that this use has no place for; it is listed, but is no reason to refuse the source."""


@dataclass(frozen=True)
class Dropped:
    """A row that was left out: its line (from 1), the field if one is to blame, why, and how it begins."""

    line: int
    field: str
    reason: str
    excerpt: str


def open_rows(source: str | Path, fields: Sequence[str]) -> Rows:
    """The rows of the JSONL file or JSON array at a path, or of `hub:NAME:SPLIT`, whose columns `fields` are read."""
    name = str(source)
    return HubRows(name, fields) if name.startswith(PREFIX) else JsonRows(Path(name).expanduser())


class Gathered(Generic[Kept]):
    """What becomes of the rows of a source.

    Args:
        parse: from a row's fields and line to what is kept, with the names of its unread fields. It raises `BadRow` for
            a row to leave out.
    """

    def __init__(self, rows: Rows, parse: Callable[[dict[str, Any], int], tuple[Kept, list[str]]]):
        self.rows = rows
        self.kept: list[tuple[int, Kept]] = []
        self.dropped: list[Dropped] = []
        self._bad: list[Dropped] = []
        self._unknown: dict[str, list[int]] = {}
        for raw in rows:
            self._take(raw, parse)

    def _take(self, raw: Raw, parse: Callable[[dict[str, Any], int], tuple[Kept, list[str]]]) -> None:
        try:
            if isinstance(raw.values, BadRow):
                raise raw.values
            kept, unknown = parse(raw.values, raw.line)
        except BadRow as bad:
            self.dropped.append(Dropped(raw.line, bad.field, bad.reason, raw.excerpt))
            self._bad += [] if isinstance(bad, Unused) else self.dropped[-1:]
            return
        self.kept.append((raw.line, kept))
        for name in dict.fromkeys(unknown):
            self._unknown.setdefault(name, []).append(raw.line)

    def check(self, max_bad_share: float) -> None:
        """Refuse a source without usable rows, or with too many bad ones.

        Raises:
            UserError: naming the first of them.
        """
        total = len(self.dropped) + len(self.kept)
        if total == 0:
            fix = "write one JSON object a line"
            raise UserError("there are no rows", where=self.rows.where(1), fix=fix, docs=DOCS)
        if self.kept and len(self._bad) <= max_bad_share * total:
            return
        bad = self._bad if self.kept else self.dropped
        listed = [f"  {self.rows.where(row.line, row.field)}: {row.reason}" for row in bad[:LISTED]]
        more = [f"  and {len(bad) - LISTED} more"] if len(bad) > LISTED else []
        allowed = f" ({len(bad) / total:.1%}; {max_bad_share:.1%} are allowed)" if self.kept else ""
        raise UserError(
            "\n".join([f"{len(bad)} of {total} rows cannot be used{allowed}", *listed, *more]),
            where=self.rows.where(bad[0].line, bad[0].field),
            fix="mend these rows, or raise max_bad_share (in a recipe data.max_bad_share)"
            if self.kept
            else "mend these rows",
            docs="docs/your-data.md#dropped-rows",
        )

    def notes(self, fields: Sequence[str]) -> list[str]:
        """Say once for each unknown field where it stands, and which of `fields` may have been meant."""
        notes = []
        for name, lines in self._unknown.items():
            guess = None if "[]." in name else nearest(name, fields)
            rows = f"{len(lines)} rows, first in line {lines[0]}" if len(lines) > 1 else f"line {lines[0]}"
            notes.append(f"unknown field {name!r} ignored in {rows}" + (f"; did you mean {guess!r}?" if guess else ""))
        return notes


class Ids(Generic[Kept]):
    """The ids of a source: each names one text, and rows without one are named after their line."""

    def __init__(self, rows: Rows):
        self.rows = rows
        self._texts: dict[str, tuple[int, Kept]] = {}

    def check(self, name: str, line: int, text: Kept) -> None:
        """Take note of an id.

        Raises:
            UserError: it names another text already.
        """
        first, known = self._texts.setdefault(name, (line, text))
        if known != text:
            raise UserError(
                f"the id {shown(name)!r} names two different texts; the other is in line {first}",
                where=self.rows.where(line, "id"),
                fix="give each text an id of its own, or leave the ids out",
                docs=DOCS,
            )

    def for_line(self, line: int) -> str:
        """A name for a row without an id that no other row has."""
        name = f"row-{line:06d}"
        while name in self._texts:
            name += "'"
        return name
