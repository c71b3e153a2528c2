"""Messages, tables and progress. Results go to stdout; everything that only accompanies them goes to stderr."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

PLAIN_EVERY_S = 5.0
_warned: set[str] = set()


def say(text: str) -> None:
    """Tell the user something, on stderr."""
    print(text, file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """Warn on stderr; the same words only once a process."""
    if text not in _warned:
        _warned.add(text)
        say(f"warning: {text}")


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table of results on stdout: drawn on a terminal, aligned plain text elsewhere."""
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        drawn = Table(title=title, title_justify="left")
        for i, column in enumerate(columns):
            drawn.add_column(column, justify="left" if i == 0 else "right")
        for row in rows:
            drawn.add_row(*(Text(cell) for cell in row))
        Console().print(drawn)
        return
    widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]
    print(title)
    for row in [columns, *rows]:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]
        print("  ".join(cells).rstrip())


class Bar(Protocol):
    """A progress bar under way."""

    def advance(self, n: float = 1, note: str = "") -> None: ...


@contextmanager
def progress(total: float, label: str) -> Iterator[Bar]:
    """Show how far `total` units of work have come, with rate and time left; plain lines where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield _PlainBar(total, label)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as shown:
        yield _RichBar(shown, total, label)


class _RichBar:
    def __init__(self, shown, total: float, label: str):
        self.shown, self.started, self.done = shown, time.monotonic(), 0.0
        self.task = shown.add_task(label, total=total, rate="", note="")

    def advance(self, n: float = 1, note: str = "") -> None:
        self.done += n
        rate = self.done / max(time.monotonic() - self.started, 1e-9)
        self.shown.update(self.task, advance=n, rate=f"{rate:.1f}/s", note=note)


class _PlainBar:
    def __init__(self, total: float, label: str):
        self.total, self.label, self.done = total, label, 0.0
        self.started = self.last = time.monotonic()

    def advance(self, n: float = 1, note: str = "") -> None:
        self.done += n
        now = time.monotonic()
        if now - self.last < PLAIN_EVERY_S and self.done < self.total:
            return
        self.last = now
        rate = self.done / max(now - self.started, 1e-9)
        left = max(self.total - self.done, 0) / rate if rate else 0
        say(f"{self.label}: {self.done:.0f}/{self.total:.0f}, {rate:.1f}/s, {left:.0f} s left {note}".rstrip())
