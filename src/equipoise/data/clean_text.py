"""One spelling of a text: composed characters, no control characters, code blocks as they are."""

import re
import unicodedata
from collections.abc import Iterator

from equipoise.data.jsonl import BadRow

_OPENING = re.compile(r"^[ \t>]*(`{3,}(?=[^`\n]*$)|~{3,})[^\n]*", re.MULTILINE)
_NEW_LINE = re.compile("\r\n?|[\x0b\x0c\x85]")
_TERMINAL = re.compile("\x1b\\[[0-9;?]*[ -/]*[@-~]")  # colours and cursor movements
# the joiners U+200C and U+200D stay: Persian and emoji are written with them
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\u200b\u2060\ufeff]")


def cleaned(text: str) -> tuple[str, list[str]]:
    """A text in NFC, its lines ended by newlines and without control characters, and which rules changed it.

    Everything between the marks of a code block (``` or ~~~), and the marks, stay byte for byte. The rules are
    `control` and `nfc`. What comes out comes out of a second call as it is.

    Raises:
        BadRow: without its control characters, other parts of the text would be code.
    """
    if text.isascii() and text.isprintable():
        return text, []
    parts, code, rules = [], [], {}
    for part, is_code in _parts(text):
        if is_code:
            code.append(part)
            parts.append(part)
            continue
        bare = _CONTROL.sub("", _TERMINAL.sub("", _NEW_LINE.sub("\n", part)))
        composed = unicodedata.normalize("NFC", bare)
        rules |= dict.fromkeys([name for name, hit in (("control", bare != part), ("nfc", composed != bare)) if hit])
        parts.append(composed)
    clean = "".join(parts)
    if rules and [part for part, is_code in _parts(clean) if is_code] != code:
        raise BadRow("control characters stand in the marks of a code block")
    return clean, list(rules)


def _parts(text: str) -> Iterator[tuple[str, bool]]:
    """The text in pieces, in order, each with whether it is a code block; one that does not end runs to the end."""
    at = 0
    while opening := _OPENING.search(text, at):
        mark = opening[1]
        closing = re.compile(rf"^[ \t>]*{mark[0]}{{{len(mark)},}}[ \t\r]*$", re.MULTILINE)
        end = closing.search(text, opening.end() + 1) if opening.end() < len(text) else None
        if opening.start() > at:
            yield text[at : opening.start()], False
        at = end.end() if end else len(text)
        yield text[opening.start() : at], True
    if at < len(text):
        yield text[at:], False
