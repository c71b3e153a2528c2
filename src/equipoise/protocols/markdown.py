"""Markdown from text that comes from outside: tables whose rows hold, names that stay on their line and are no HTML."""

import re
from collections.abc import Iterable, Sequence


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table; a cell may hold any text."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(one_line(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def one_line(text: str) -> str:
    """Keep a text on one line."""
    return " ".join(text.split())


def bullets(lines: Iterable[str]) -> str:
    """Write a list of one line each."""
    return "\n".join(f"- {one_line(line)}" for line in lines)


def text_only(text: str) -> str:
    """Keep a name from being read as HTML."""
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", text)
