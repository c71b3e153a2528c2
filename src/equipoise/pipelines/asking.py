"""The questions that a user types, or that come through a pipe, one a line."""

import sys
from collections.abc import Iterator
from contextlib import suppress

from equipoise.errors import UserError


def questions() -> Iterator[str]:
    r"""Yield each line of stdin that says something; in a pipe, a line break within a question is written `\n`.

    Raises:
        UserError: a line is not text in the encoding of stdin.
    """
    ask = _typed if sys.stdin.isatty() else _piped
    while (line := ask()) is not None:
        if line.strip():
            yield line.strip().replace("\\n", "\n")


def _piped() -> str | None:
    try:
        return sys.stdin.readline() or None
    except UnicodeDecodeError:
        raise UserError(
            f"this is not {sys.stdin.encoding} text", where="stdin", fix="write the questions in that encoding"
        ) from None


def _typed() -> str | None:
    if not sys.stdout.isatty():
        print("> ", end="", file=sys.stderr, flush=True)
        return _piped()
    with suppress(ImportError):  # Windows has its own
        import readline  # noqa: F401  (gives `input` editing and a history)
    try:
        return input("> ")
    except EOFError:
        print(file=sys.stderr)
        return None
