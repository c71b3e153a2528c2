"""JSON rows that others wrote: read as a stream, parsed strictly, each fault with its line and its reason."""

import codecs
import hashlib
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from equipoise.config import nearest
from equipoise.errors import UserError

MAX_ROW_BYTES = 16 * 2**20
MAX_ARRAY_BYTES = 2**30
MAX_DEPTH = 64
MAX_DIGITS = 308  # a longer integer has no float beside it
DOCS = "docs/your-data.md#format"
MAGIC = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"\x28\xb5\x2f\xfd": "zstd", b"PAR1": "parquet", b"ARROW1": "arrow"}
# possessive: a long string must not leave a trail to walk back on
_STRING_OR_BRACKET = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[\]{},"]', re.DOTALL)


class BadRow(ValueError):
    """A row that cannot be used: `field` where one is to blame, and the reason in words."""

    def __init__(self, reason: str, field: str = ""):
        super().__init__(reason)
        self.reason, self.field = reason, field


@dataclass(frozen=True)
class RawRow:
    """The bytes of one row and the line it starts in; `torn` if it is the last one and has no newline."""

    line: int
    data: bytes
    torn: bool = False

    @property
    def excerpt(self) -> str:
        """The beginning, on one line, with nothing in it that could upset a terminal."""
        text = self.data[:80].decode("utf-8", "backslashreplace").strip()
        return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


@dataclass
class RowFile:
    """A JSONL file, or one JSON array, read row by row. The counts are complete once `rows` is used up.

    Attributes:
        blank: lines with nothing in them.
        marked: the file begins with a byte-order mark.
        array: the rows stand in one JSON array.
    """

    path: Path
    blank: int = 0
    marked: bool = False
    array: bool = False
    _digest: Any = field(default_factory=hashlib.sha256)

    @property
    def sha256(self) -> str:
        """Of the bytes read so far."""
        return self._digest.hexdigest()

    def rows(self) -> Iterator[RawRow]:
        """Yield the rows that are not blank, in order, in bounded memory if they stand on lines.

        Raises:
            UserError: the file cannot be read, is empty, compressed or in UTF-16, or is an array that never ends.
        """
        with _opened(self.path) as file:
            head = file.read(4096)
            self._refuse_other_formats(head)
            self.marked = head.startswith(codecs.BOM_UTF8)
            self.array = _is_array(self.path, file, head)
            file.seek(len(codecs.BOM_UTF8) if self.marked else 0)
            self._digest.update(codecs.BOM_UTF8 if self.marked else b"")
            found = 0
            for row in self._elements(file) if self.array else self._lines(file):
                found += 1
                yield row
        if not found:
            raise UserError("the file has no rows", where=str(self.path), fix="give one JSON object a line", docs=DOCS)

    def _refuse_other_formats(self, head: bytes) -> None:
        kind = next((kind for magic, kind in MAGIC.items() if head.startswith(magic)), None)
        if kind:
            raise UserError(
                f"this is a {kind} file", where=str(self.path), fix="unpack or convert it to JSONL first", docs=DOCS
            )
        if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or head.count(0) > len(head) / 3:
            raise UserError(
                "the file is in UTF-16", where=str(self.path), fix=f"iconv -f utf-16 -t utf-8 {self.path}", docs=DOCS
            )

    def _lines(self, file: BinaryIO) -> Iterator[RawRow]:
        number = 0
        while line := file.readline(MAX_ROW_BYTES + 1):
            number += 1
            self._digest.update(line)
            ended = line.endswith(b"\n")
            if not ended and len(line) > MAX_ROW_BYTES:
                ended = self._skip_line(file)
            if line.strip():
                yield RawRow(number, line.rstrip(b"\r\n"), torn=not ended)
            else:
                self.blank += 1

    def _skip_line(self, file: BinaryIO) -> bool:
        """Pass over the rest of a line that is too long to hold; tell whether it ended."""
        while rest := file.readline(MAX_ROW_BYTES):
            self._digest.update(rest)
            if rest.endswith(b"\n"):
                return True
        return False

    def _elements(self, file: BinaryIO) -> Iterator[RawRow]:
        if self.path.stat().st_size > MAX_ARRAY_BYTES:
            raise UserError(
                "a JSON array of this size cannot be read as a stream", where=str(self.path), fix="write one row a line"
            )
        data = file.read()
        self._digest.update(data)
        depth, start, line, counted = 0, 0, 1, 0
        for match in _STRING_OR_BRACKET.finditer(data):
            token = match[0]
            if token == b'"':
                break
            depth += (token in b"[{") - (token in b"]}")
            if depth == 1 and token == b"[":
                start = match.end()
            elif (depth == 1 and token == b",") or depth == 0:
                element = data[start : match.start()]
                lead = start + len(element) - len(element.lstrip())
                line, counted = line + data.count(b"\n", counted, lead), lead
                if element.strip():
                    yield RawRow(line, element.strip())
                start = match.end()
            if depth == 0:
                if data[match.end() :].strip():
                    break
                return
        raise UserError(
            "the JSON array does not end where the file does",
            where=f"{self.path}:{line}",
            fix="mend the array, or write one row a line",
            docs=DOCS,
        )


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError:
        there = [other.name for other in path.parent.glob("*")] if path.parent.is_dir() else []
        guess = nearest(path.name, there)
        fix = f"did you mean {path.parent / guess}?" if guess else "check the path; relative paths start at this folder"
        raise UserError("there is no such file", where=str(path), fix=fix) from None
    except OSError as error:
        raise UserError(f"cannot read the file: {error.strerror}", where=str(path), fix="give a JSONL file") from None


def _is_array(path: Path, file: BinaryIO, head: bytes) -> bool:
    """Tell one array over the whole file from lines of which the first happens to be an array."""
    text = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if not text.startswith(b"["):
        return False
    file.seek(len(head) - len(text))
    line = file.readline(MAX_ROW_BYTES)
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return True
    return not file.read(4096).strip()


def parse(row: RawRow, where: str) -> dict[str, Any]:
    """Parse one row strictly into an object.

    Raises:
        BadRow: it is no single JSON object, or holds something that would not survive: a key twice, NaN, 1e999, an
            integer without a float beside it, NUL, a lone surrogate, too deep nesting.
        UserError: the bytes are not UTF-8, so the whole file is in another encoding.
    """
    if len(row.data) > MAX_ROW_BYTES:
        raise BadRow(f"longer than {MAX_ROW_BYTES // 2**20} MiB")
    if b"\0" in row.data:
        raise BadRow("a NUL byte")
    text = _decoded(row, where)
    if _too_deep(row.data):
        raise BadRow(f"nested deeper than {MAX_DEPTH} levels")
    try:
        value = json.loads(
            text, object_pairs_hook=_object, parse_constant=_constant, parse_float=_float, parse_int=_integer
        )
    except json.JSONDecodeError as error:
        raise BadRow(_broken(error, row)) from None
    if not isinstance(value, dict):
        raise BadRow(f"{_kind(value)} instead of an object")
    if "\\u" in text:
        refuse_unwritable(value)
    return value


def _decoded(row: RawRow, where: str) -> str:
    try:
        return row.data.decode("utf-8")
    except UnicodeDecodeError as error:
        if row.torn and error.reason == "unexpected end of data":
            raise BadRow("the last line is cut off") from None
        raise UserError(
            f"byte 0x{row.data[error.start]:02x} is not UTF-8; the file may be in Latin-1 or Windows-1252",
            where=where,
            fix="convert it, as in `iconv -f latin1 -t utf-8 OLD > NEW`",
            docs=DOCS,
        ) from None


def _too_deep(data: bytes) -> bool:
    if data.count(b"[") + data.count(b"{") <= MAX_DEPTH:
        return False
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(data):
        depth += (match[0] in b"[{") - (match[0] in b"]}")
        if depth > MAX_DEPTH:
            return True
    return False


def _broken(error: json.JSONDecodeError, row: RawRow) -> str:
    if error.msg == "Extra data" and error.doc[error.pos :].lstrip().startswith(("{", "[")):
        return "two objects on one line"
    if row.torn:
        return f"the last line is cut off ({error.msg} at column {error.colno})"
    return f"not JSON: {error.msg} at column {error.colno}"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise BadRow("the key stands twice", twice)
    return made


def _constant(name: str) -> NoReturn:
    raise BadRow(f"{name} is no JSON number")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise BadRow(f"the number {text[:20]} is too large")
    return value


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise BadRow(f"an integer of {len(text.lstrip('-'))} digits")
    return int(text)


def refuse_unwritable(value: Any, at: str = "") -> None:
    """Raise BadRow for a text that cannot be written again as UTF-8, or that ends early in C."""
    if isinstance(value, str):
        if "\0" in value:
            raise BadRow("a NUL character", at)
        if any("\ud800" <= char <= "\udfff" for char in value):
            raise BadRow("a lone surrogate, half of a character", at)
    elif isinstance(value, list):
        for below in value:
            refuse_unwritable(below, at)
    elif isinstance(value, dict):
        for key, below in value.items():
            refuse_unwritable(key, at)
            refuse_unwritable(below, f"{at}.{key}".lstrip("."))


def _kind(value: Any) -> str:
    names = {str: "a string", bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return "null" if value is None else names[type(value)]
