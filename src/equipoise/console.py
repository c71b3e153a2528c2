"""Messages, tables and progress. Results go to stdout; everything that only accompanies them goes to stderr."""

import os
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

PLAIN_EVERY_S = 5.0
OPENING = 0.02  # the first share of a kind of work, which is not timed, and the least that is
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

    def advance(self, n: float = 1, note: str = "", kind: str = "") -> None: ...

    def skip(self, n: float, kind: str = "") -> None:
        """Leave out work that was done before this process began: it says nothing of how fast this one is."""


@contextmanager
def progress(total: float | Mapping[str, float], label: str) -> Iterator[Bar]:
    """Show how far the work has come, with rate and time left; plain lines away from a terminal.

    Args:
        total: units of work. Work of several kinds, such as training and asking, is given by kind: each kind has a
            rate of its own, so that the time left is right however the kinds follow one another.
    """
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield _PlainBar(total, label)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    fields = ("{task.fields[rate]}", "{task.fields[left]}", "{task.fields[note]}")
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[count]}", markup=False),
        TimeElapsedColumn(),
        *(TextColumn(field, markup=False) for field in fields),
    )
    with Progress(*columns, console=Console(stderr=True)) as shown:
        yield _RichBar(shown, total, label)


class _Pace:
    """Rate and time left by kind of work, from the start on: work that comes in lumps makes a short window jump."""

    def __init__(self, total: float | Mapping[str, float]):
        self.totals = dict(total) if isinstance(total, Mapping) else {"": total}
        self.dones = dict.fromkeys(self.totals, 0.0)
        self.spent = dict.fromkeys(self.totals, 0.0)
        self.opening = dict.fromkeys(self.totals, (0.0, 0.0))  # units, and seconds that setting up may have taken
        self.started = self.last = time.monotonic()

    def advance(self, n: float, kind: str) -> None:
        kind = kind if kind in self.totals else next(iter(self.totals))
        now = time.monotonic()
        self.spent[kind] += now - self.last  # what passed since the last word went into this kind of work
        self.last = now
        self.dones[kind] += n
        if self.dones[kind] < OPENING * self.totals[kind]:
            self.opening[kind] = (self.dones[kind], self.spent[kind])

    def skip(self, n: float, kind: str) -> None:
        kind = kind if kind in self.totals else next(iter(self.totals))
        self.totals[kind] = max(self.totals[kind] - n, self.dones[kind])

    @property
    def total(self) -> float:
        return sum(self.totals.values())

    @property
    def done(self) -> float:
        return sum(self.dones.values())

    @property
    def count(self) -> str:
        """How far the work has come: units of one kind, or the share of the time that several kinds take."""
        if len(self.totals) == 1:
            return f"{self.done:.0f}/{self.total:.0f}"
        left = self._seconds_left()
        spent = time.monotonic() - self.started
        return "" if left is None else f"{100 * spent / max(spent + left, 1e-9):.0f}%"

    @property
    def rate(self) -> str:
        if len(self.totals) > 1:
            return ""
        per_second = self.done / max(time.monotonic() - self.started, 1e-9)
        return f"{1 / per_second:.1f} s each" if 0 < per_second < 1 else f"{per_second:.1f}/s"

    @property
    def left(self) -> str:
        """The time left, or nothing where it is not known or nothing is left."""
        seconds = self._seconds_left()
        return f"{_clock(seconds)} left" if seconds else ""

    def _seconds_left(self) -> float | None:
        """Seconds left; a kind that has hardly begun takes as long for each unit as all did on average.

        Its first few units come with what it takes to set it up, and would make it look slower than it is.
        """
        if self.done <= 0:
            return None
        if len(self.totals) == 1:
            todo = self.total - self.done
            return max(todo, 0.0) * (time.monotonic() - self.started) / self.done
        average = sum(self.spent.values()) / self.done
        return sum(
            max(self.totals[kind] - done, 0.0) * (self._each(kind) or average) for kind, done in self.dones.items()
        )

    def _each(self, kind: str) -> float | None:
        """Seconds for a unit of a kind, or None where it has hardly begun."""
        units, seconds = self.opening[kind]
        timed = self.dones[kind] - units
        return (self.spent[kind] - seconds) / timed if timed > 0 and timed >= OPENING * self.totals[kind] else None


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class _RichBar:
    def __init__(self, shown: Any, total: float | Mapping[str, float], label: str):
        self.shown, self.pace = shown, _Pace(total)
        self.task = shown.add_task(label, total=self.pace.total, count="", rate="", left="", note="")

    def advance(self, n: float = 1, note: str = "", kind: str = "") -> None:
        self.pace.advance(n, kind)
        fields = {"count": self.pace.count, "rate": self.pace.rate, "left": self.pace.left, "note": note}
        self.shown.update(self.task, advance=n, **fields)

    def skip(self, n: float, kind: str = "") -> None:
        self.pace.skip(n, kind)
        self.shown.update(self.task, total=self.pace.total)


class _PlainBar:
    def __init__(self, total: float | Mapping[str, float], label: str):
        self.label, self.pace, self.last, self.finished = label, _Pace(total), time.monotonic(), False

    def advance(self, n: float = 1, note: str = "", kind: str = "") -> None:
        self.pace.advance(n, kind)
        finished, now = self.pace.done >= self.pace.total, time.monotonic()
        if self.finished or (now - self.last < PLAIN_EVERY_S and not finished):
            return
        self.last, self.finished = now, finished
        parts = (self.pace.count, self.pace.rate, self.pace.left, note)
        say(f"{self.label}: {', '.join(part for part in parts if part)}")

    def skip(self, n: float, kind: str = "") -> None:
        self.pace.skip(n, kind)
