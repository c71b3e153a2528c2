"""The rows of a cleaning job between its passes: rows and texts on disk, some numbers of each in memory."""

import json
from array import array
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from equipoise.config import nearest
from equipoise.data.gathering import Rows
from equipoise.data.jsonl import shown
from equipoise.data.near_duplicates import NearDuplicates
from equipoise.errors import UserError
from equipoise.pipelines.cleaning_settings import CleaningSettings


@dataclass(frozen=True)
class Source:
    """One of the inputs: its number, what it was called by, and its rows."""

    number: int
    name: str
    rows: Rows

    @property
    def stem(self) -> str:
        """The name of the file without folder and endings."""
        return Path(self.name).name.partition(".")[0] or self.name


class Ledger:
    """A JSONL file of what was dropped or changed, with the count for each rule."""

    def __init__(self, path: Path):
        self.counts: dict[str, int] = {}
        self._file = path.open("w", encoding="utf-8", newline="\n")

    def write(self, rules: list[str], entry: dict[str, Any]) -> None:
        """Add an entry, counted once under each of these rules."""
        for rule in dict.fromkeys(rules):
            self.counts[rule] = self.counts.get(rule, 0) + 1
        self._file.write(line(entry))

    def close(self) -> None:
        """Flush the file."""
        self._file.close()


class Stage:
    """The rows of one kind that passed the first look: their lines on disk, and for each 22 bytes here.

    Args:
        questions: compare the rows' questions with held-out ones, which are to be added first.
    """

    def __init__(self, folder: Path, kind: str, settings: CleaningSettings, *, questions: bool):
        near = settings.near
        self.path = folder / f"{kind}.jsonl"
        self._file = self.path.open("w", encoding="utf-8", newline="\n")
        self.sources, self.lines, self.lengths, self.orders = array("H"), array("I"), array("Q"), array("Q")
        on = near.threshold
        self.texts = NearDuplicates(folder, f"{kind}-texts", on, near.shingle) if on else None
        self.questions = NearDuplicates(folder, f"{kind}-questions", on, near.shingle) if on and questions else None

    def __len__(self) -> int:
        return len(self.sources)

    def add(self, row: dict[str, Any], changes: list[Any], at: tuple[int, int], length: int, order: int) -> None:
        """Add a row that stands `at` a line of a source; `order` is a number of 64 bits to choose among rows by."""
        self._file.write(line(row, changes))
        self.sources.append(at[0])
        self.lines.append(at[1])
        self.lengths.append(length)
        self.orders.append(order)

    def close(self) -> None:
        """Write out what was added; nothing more can be."""
        self._file.close()
        for index in (self.texts, self.questions):
            if index is not None:
                index.close()

    def __iter__(self) -> Iterator[tuple[int, str, str]]:
        """Each row's number, and row and changes as JSON."""
        self.close()
        with self.path.open(encoding="utf-8", newline="\n") as file:
            for number, held in enumerate(file):
                row, _, changes = held.rstrip("\n").partition("\t")
                yield number, row, changes


class Ids:
    """The ids of all sources: in one source an id names one text, and no two kept rows have the same.

    Ids and texts are known by 64 and 128 bits of a hash.
    """

    def __init__(self) -> None:
        self._held: dict[int, int] = {}

    def take(self, given: str | None, digest: int, source: Source, at: int) -> str:
        """The id under which a row is kept: its own, unless another source has that, or one made of file and line.

        Raises:
            UserError: its own names another text of this source.
        """
        name, mark = given, digest << 16 | source.number
        held = None if given is None else self._held.get(_key(given))
        if held is not None and held != mark and held & 0xFFFF == source.number:
            raise UserError(
                f"the id {shown(given or '')!r} names two different texts",
                where=source.rows.where(at, "id"),
                fix="give each text an id of its own, or leave the ids out",
                docs="docs/cleaning.md",
            )
        if name is None or held is not None:
            name = f"{source.stem}-{at:06d}" if given is None else f"{source.stem}:{given}"
        while _key(name) in self._held:
            name += "'"
        self._held[_key(name)] = mark
        return name


def _key(name: str) -> int:
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big")


def line(*values: Any) -> str:
    """Values as a line of JSON, with tabs between them."""
    return "\t".join(json.dumps(value, ensure_ascii=False, separators=(",", ":")) for value in values) + "\n"


def weights_of(sources: list[Source], weights: dict[str, float] | None) -> list[float] | None:
    """The weight of each source, or None where no mixture is asked for.

    Raises:
        UserError: a weight belongs to no source, or a source has none.
    """
    if weights is None:
        return None
    found: list[float | None] = [None for _ in sources]
    for name, weight in weights.items():
        ours = [source.number for source in sources if name in (source.name, source.stem)]
        if not ours:
            guess = nearest(name, [source.stem for source in sources])
            fix = f"did you mean {guess!r}?" if guess else f"known: {', '.join(source.stem for source in sources)}"
            raise UserError(f"no source is called {name!r}", where="weights", fix=fix)
        for number in ours:
            found[number] = weight
    for source, weight in zip(sources, found, strict=True):
        if weight is None:
            fix = "give every source a weight, or none of them"
            raise UserError(f"{source.name} has no weight", where="weights", fix=fix)
    return [weight for weight in found if weight is not None]


def remove(folder: Path) -> None:
    """Remove a folder of files."""
    with suppress(FileNotFoundError):
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
