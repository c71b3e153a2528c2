"""Messages, tables and progress. Results go to stdout; everything that only accompanies them goes to stderr."""

import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

PLAIN_EVERY_S = 5.0
_warned: set[str] = set()
# all that can steer a terminal or turn the order of its text around, and halves of characters that have no bytes
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def say(text: str) -> None:
    """Tell the user something, on stderr."""
    print(text, file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """Warn on stderr; the same words only once a process."""
    if text not in _warned:
        _warned.add(text)
        say(f"warning: {text}")


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, words: bool = False) -> None:
    """Print a table on stdout: drawn on a terminal, aligned plain text elsewhere.

    Numbers, which every column but the first holds unless the table is one of `words`, stand to the right.
    """
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        drawn = Table(title=Text(title), title_justify="left")
        for i, column in enumerate(columns):
            drawn.add_column(Text(column), justify="left" if words or i == 0 else "right")
        for row in rows:
            drawn.add_row(*(Text(cell) for cell in row))
        Console().print(drawn)
        return
    widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]
    _print(title)
    for row in [columns, *rows]:
        cells = [
            cell.ljust(width) if words or i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        _print("  ".join(cells).rstrip())


def visible(text: str) -> str:
    """Write control characters out, an escape as `\\x1b`; line breaks and tabs stay, and so does all that has a glyph.

    What a model wrote is data: it must not steer the terminal that shows it.
    """
    return _STEERING.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def put(text: str) -> None:
    """Write a part of a result on stdout at once, without a line break; raises as `print` does."""
    _print(text, end="")
    sys.stdout.flush()


def _print(text: str, *, end: str = "\n") -> None:
    """Print what the stream's encoding may not have, as a redirected stdout on Windows, as escapes."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), end=end)


class Bar(Protocol):
    """A progress bar under way."""

    def advance(self, n: float = 1, note: str = "") -> None: ...


@contextmanager
def progress(total: float, label: str) -> Iterator[Bar]:
    """Show how far `total` units of work have come, with rate and time left; plain lines away from a terminal."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield _PlainBar(total, label)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    fields = ("{task.fields[rate]}", "{task.fields[left]}", "{task.fields[note]}")
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        *(TextColumn(field, markup=False) for field in fields),
    )
    with Progress(*columns, console=Console(stderr=True)) as shown:
        yield _RichBar(shown, total, label)


class _Pace:
    """Rate and time left from the start on: work that comes in lumps makes a short window jump about."""

    def __init__(self, total: float):
        self.total, self.done, self.started = total, 0.0, time.monotonic()

    def advance(self, n: float) -> None:
        self.done += n

    @property
    def rate(self) -> str:
        per_second = self.done / max(time.monotonic() - self.started, 1e-9)
        return f"{1 / per_second:.1f} s each" if 0 < per_second < 1 else f"{per_second:.1f}/s"

    @property
    def left(self) -> str:
        """The time left, or nothing where it is not known or nothing is left."""
        todo = self.total - self.done
        if self.done <= 0 or todo <= 0:
            return ""
        return f"{_clock(todo * (time.monotonic() - self.started) / self.done)} left"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class _RichBar:
    def __init__(self, shown: Any, total: float, label: str):
        self.shown, self.pace = shown, _Pace(total)
        self.task = shown.add_task(label, total=total, rate="", left="", note="")

    def advance(self, n: float = 1, note: str = "") -> None:
        self.pace.advance(n)
        self.shown.update(self.task, advance=n, rate=self.pace.rate, left=self.pace.left, note=note)


class _PlainBar:
    def __init__(self, total: float, label: str):
        self.label, self.pace, self.last, self.finished = label, _Pace(total), time.monotonic(), False

    def advance(self, n: float = 1, note: str = "") -> None:
        self.pace.advance(n)
        finished, now = self.pace.done >= self.pace.total, time.monotonic()
        if self.finished or (now - self.last < PLAIN_EVERY_S and not finished):
            return
        self.last, self.finished = now, finished
        parts = (f"{self.pace.done:.0f}/{self.pace.total:.0f}", self.pace.rate, self.pace.left, note)
        say(f"{self.label}: {', '.join(part for part in parts if part)}")
