"""A file of samples: reading it, what it was made with, and writing it while more are drawn."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from equipoise.console import warn
from equipoise.errors import UserError
from equipoise.journal import Journal, read_journal, write_json
from equipoise.records import Sample

DOCS = "docs/generating.md#resume"
PAUSE_S = 0.5  # between waits for the disk, which hold up writing too: a small model ends answers every millisecond
Key = tuple[str, str, int]


@dataclass(frozen=True)
class SampleFile:
    """The samples of a file, each (input, model, sample) once, and why other rows were left out."""

    samples: list[Sample] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)

    @property
    def models(self) -> list[str]:
        """Whose samples there are, in order of appearance."""
        return list(dict.fromkeys(sample.model for sample in self.samples))


def key(row: dict[str, Any]) -> Key:
    """What must not stand twice in a file of samples."""
    return row["id"], row["model"], row["sample"]


def read_samples(path: Path | str) -> SampleFile:
    """Read a file of samples, finished or not, without changing it.

    Raises:
        UserError: there is no such file, or a row is no sample.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError("there is no file of samples", where=str(path), fix="make one with `equipoise generate`")
    read = read_journal(path)
    dropped = [f"line {line} is damaged" for line, _ in read.damaged] + ["the last line is torn"] * read.torn
    return samples_of(read.rows, path, dropped)


def samples_of(rows: Iterable[dict[str, Any]], path: Path, dropped: Iterable[str] = ()) -> SampleFile:
    """The rows of a journal as samples; a key that stands twice counts once.

    Raises:
        UserError: a row is no sample.
    """
    found: dict[Key, Sample] = {}
    left_out = list(dropped)
    for number, row in enumerate(rows, 1):
        try:
            sample = Sample.model_validate(row)
        except ValidationError as error:
            raise UserError(
                f"row {number} is no sample: {error.errors()[0]['loc']} {error.errors()[0]['msg']}",
                where=str(path),
                fix="name a file that `equipoise generate` made, or a new one",
            ) from None
        if key(row) in found:
            left_out.append(f"row {number}: sample {sample.sample} of {sample.id} by {sample.model} stands there twice")
        else:
            found[key(row)] = sample
    return SampleFile(list(found.values()), left_out)


# ---- what a file was made with


def check_made_with(path: Path, model: str, made_with: dict[str, Any]) -> None:
    """Compare what decides a model's samples with what it was for those in the file.

    Raises:
        UserError: something differs, so that old and new samples would not be of one kind.
    """
    before = _made_with(path).get(model, {})
    changed = [
        f"{name} (was {before[name]!r}, is {now!r})"
        for name, now in made_with.items()
        if name in before and before[name] != now
    ]
    if changed:
        raise UserError(
            f"the samples of {model} in this file were drawn with other settings: {'; '.join(changed)}",
            where=str(path),
            fix="name another file with --out, or go back to those settings",
            docs=DOCS,
        )


def note_made_with(path: Path, model: str, made_with: dict[str, Any]) -> None:
    """Remember beside the file what decides a model's samples in it."""
    known = _made_with(path)
    if known.get(model) != made_with:
        write_json(_beside(path), {**known, model: made_with})


def _made_with(path: Path) -> dict[str, dict[str, Any]]:
    file = _beside(path)
    try:
        return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    except ValueError:
        warn(f"{file} is damaged; what the samples there were drawn with cannot be compared")
        return {}


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".settings.json")


# ---- writing


class Writer:
    """Appends rows that outlive the process at once; a thread of its own waits for the disk, so that drawing does not.

    What a machine that loses power may lose is what came within about `PAUSE_S`.
    """

    def __init__(self, journal: Journal):
        self._journal = journal
        self._error: BaseException | None = None
        self._new, self._closing = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Append rows.

        Raises:
            UserError: they cannot be written, or earlier ones did not reach the disk.
        """
        if self._error is not None:
            raise self._error
        self._journal.extend(rows, wait=False)
        self._new.set()

    def close(self) -> None:
        """Wait until everything is on disk. Raises as `add`."""
        self._closing.set()
        self._new.set()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        try:
            while not self._closing.wait(PAUSE_S):
                self._new.wait()
                self._new.clear()
                self._journal.sync()
            self._journal.sync()
        except BaseException as error:  # `add` or `close` raises it
            self._error = error


@contextmanager
def written(journal: Journal) -> Iterator[Writer]:
    """A writer whose rows are on disk when the block ends, also if it ends in an error."""
    writer = Writer(journal)
    try:
        yield writer
    except BaseException:
        with suppress(Exception):  # what the block raised says more
            writer.close()
        raise
    writer.close()
