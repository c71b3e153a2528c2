"""Strict JSON rows from a JSONL file or a JSON array, one at a time, in bounded memory."""

import hashlib
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from equipoise.config import nearest
from equipoise.data.splitting import ArraySplitter, Piece, UnendedArray, lines
from equipoise.errors import UserError

MAX_ROW_BYTES = 16 * 2**20
MAX_DEPTH = 64
MAX_DIGITS = 308  # as many as the largest float has before its point
CHUNK = 2**20
DOCS = "docs/your-data.md"

_BOM = b"\xef\xbb\xbf"
_FORMATS = {
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "zip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PAR1": "Parquet",
    b"ARROW1": "Arrow",
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
_UTF_16_UNMARKED = re.compile(rb"[\[{]\0[^\0]\0|\0[\[{]\0[^\0]")
_ARRAY = re.compile(rb"[ \t\r\n]*\[[ \t\r\n]*(?:[{\]]|\Z)")
# possessive: a string that does not end must not be tried again from every quote in it
_STRUCTURE = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[\]{}]', re.DOTALL)
_SURROGATE = re.compile("[\ud800-\udfff]")


class BadRow(ValueError):
    """This row cannot be used, for `reason`; `field` is where in the row, as far as one is to blame."""

    def __init__(self, reason: str, field: str = ""):
        super().__init__(reason)
        self.reason, self.field = reason, field


@dataclass(frozen=True)
class Raw:
    """A row as it stands: its line (from 1), its object or why there is none, and how it begins."""

    line: int
    values: dict[str, Any] | BadRow
    excerpt: str


class JsonRows:
    """The rows of a JSONL file or of one JSON array; at most `MAX_ROW_BYTES` of it are held at a time.

    Lines end at a newline byte and nowhere else. After iteration `sha256` is that of the file, and `notes` says what
    was passed over.

    Raises:
        UserError: the file cannot be read, is no UTF-8 text, or is an array that does not end.
    """

    _whole = _ARRAY
    _form = "JSON"
    _wanted = "one JSON object a line"

    def __init__(self, path: Path):
        self.path = path
        self.notes: list[str] = []
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """Of the bytes read so far, as hexadecimal digits."""
        return self._digest.hexdigest()

    def where(self, line: int, field: str = "") -> str:
        """`file:line:field` for an error."""
        return f"{self.path}:{line}:{field}" if field else f"{self.path}:{line}"

    def __iter__(self) -> Iterator[Raw]:
        self._digest, self.notes = hashlib.sha256(), []
        with self._opened() as file:
            try:
                yield from self._rows(self._pieces(file))
            except OSError as error:
                raise self._unreadable(error) from None

    def _rows(self, pieces: Iterator[Piece]) -> Iterator[Raw]:
        blank = 0
        for piece in pieces:
            if piece.data.strip() in (b"", _BOM):
                blank += 1
            else:
                yield self._row(piece)
        if blank:
            self.notes.append(f"{blank} blank line{'s' * (blank != 1)} passed over")

    def _opened(self) -> BinaryIO:
        if self.path.exists() and not self.path.is_file():  # a pipe would wait for ever
            raise UserError("not a file", where=str(self.path), fix=f"give the path of a file of {self._wanted}")
        try:
            return self.path.open("rb")
        except OSError as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: OSError) -> UserError:
        fix = "check the path; a relative one starts at the current folder"
        if isinstance(error, FileNotFoundError) and self.path.parent.is_dir():
            guess = nearest(self.path.name, [other.name for other in self.path.parent.iterdir()])
            fix = f"did you mean {self.path.parent / guess}?" if guess else fix
        return UserError(f"cannot read the data: {error.strerror or error}", where=str(self.path), fix=fix)

    def _pieces(self, file: BinaryIO) -> Iterator[Piece]:
        head = file.read(4096)
        self._check_format(head)
        mark = _BOM if head.startswith(_BOM) else b""
        self._digest.update(mark)
        file.seek(len(mark))
        if not self._whole.match(head.removeprefix(mark)):
            yield from lines(file, MAX_ROW_BYTES, self._digest.update)
            return
        splitter = ArraySplitter(MAX_ROW_BYTES)
        try:
            while chunk := file.read(CHUNK):
                self._digest.update(chunk)
                yield from splitter.feed(chunk)
            splitter.finish()
        except UnendedArray as error:
            fix = "write one array of objects, or one object a line"
            raise UserError(str(error), where=self.where(error.line), fix=fix, docs=DOCS) from None

    def _check_format(self, head: bytes) -> None:
        if not head:
            raise UserError("the file is empty", where=self.where(1), fix=f"write {self._wanted}", docs=DOCS)
        name = next((name for magic, name in _FORMATS.items() if head.startswith(magic)), None)
        if name is None and _UTF_16_UNMARKED.match(head):
            name = "UTF-16"
        if name is not None:
            fix = "save it as UTF-8" if name.startswith("UTF") else "unpack or convert it first"
            raise UserError(f"this is {name}, not {self._form} in UTF-8", where=self.where(1), fix=fix, docs=DOCS)

    def _row(self, piece: Piece) -> Raw:
        data = piece.data.removeprefix(_BOM)
        excerpt = shown(data[:400].decode("utf-8", "backslashreplace").strip())
        if piece.too_long:
            return Raw(piece.line, BadRow(f"longer than {MAX_ROW_BYTES // 2**20} MiB"), excerpt)
        try:
            return Raw(piece.line, parse_object(self._text(piece, data)), excerpt)
        except BadRow as bad:
            if piece.torn and bad.reason.startswith(("not JSON", "not UTF-8")):
                bad = BadRow(f"the last line is cut off ({bad.reason})")
            return Raw(piece.line, bad, excerpt)

    def _text(self, piece: Piece, data: bytes) -> str:
        try:
            return _decoded(data)
        except UnicodeDecodeError as error:
            if piece.torn and error.reason == "unexpected end of data":
                raise BadRow("the last line is cut off within a character") from None
            raise UserError(
                f"byte 0x{data[error.start]:02x}, the {error.start + 1}. of the row, is not UTF-8",
                where=self.where(piece.line),
                fix="save the file as UTF-8; if it is Latin-1: iconv -f latin1 -t utf-8 OLD > NEW",
                docs=DOCS,
            ) from None


def parse_object(text: str) -> dict[str, Any]:
    """Parse one JSON object strictly.

    Raises:
        BadRow: it is not one JSON object, or it holds a key twice, NaN or an infinity, a number beyond any float, an
            integer of more than `MAX_DIGITS` digits, a NUL, a lone surrogate, or nesting deeper than `MAX_DEPTH`.
    """
    if "\0" in text:
        raise BadRow("a raw NUL byte")
    if _too_deep(text):
        raise BadRow(f"nested deeper than {MAX_DEPTH} levels")
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise BadRow(_broken(error)) from None
    if not isinstance(value, dict):
        raise BadRow(f"{kind(value)} where an object belongs")
    if "\\u" in text:  # no other way in for what UTF-8 cannot hold
        check_text(value)
    return value


def check_text(value: Any, field: str = "") -> None:
    """Refuse a NUL or a lone surrogate in any string within `value`.

    Raises:
        BadRow: naming the field below `field`.
    """
    if isinstance(value, str):
        if "\0" in value:
            raise BadRow("a NUL character (\\u0000)", field)
        if _SURROGATE.search(value):
            raise BadRow("a lone surrogate, which is half a character", field)
    elif isinstance(value, dict):
        for key, below in value.items():
            check_text(key, field)
            check_text(below, shown(f"{field}.{key}" if field else key))
    elif isinstance(value, list):
        for i, below in enumerate(value):
            check_text(below, f"{field}[{i}]")


def kind(value: Any) -> str:
    """Name the JSON type of a value, with its article."""
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list", dict: "an object"}
    return "null" if value is None else names.get(type(value), type(value).__name__)


def shown(text: str, limit: int = 80) -> str:
    """Shorten a text for a message; what is not printable is escaped, so that it cannot upset a terminal."""
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        try:
            data.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            raise error from None
        raise BadRow("a lone surrogate, which is half a character") from None


def _too_deep(text: str) -> bool:
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return False
    depth = 0
    for mark in _STRUCTURE.finditer(text):
        depth += (mark[0] in "[{") - (mark[0] in "]}")
        if depth > MAX_DEPTH:
            return True
    return False


def _broken(error: json.JSONDecodeError) -> str:
    place = f"at character {error.pos + 1}"
    if error.msg != "Extra data":
        return f"not JSON: {error.msg[0].lower()}{error.msg[1:].removesuffix(' at')} {place}"
    if error.doc[error.pos] in "{[":
        return f"two objects on one line, the second {place}"
    return f"not JSON: something follows the object {place}"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise BadRow("the key stands twice", shown(twice))
    return made


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise BadRow(f"the number {shown(text, 20)} is beyond any float")
    return value


def _integer(text: str) -> int:
    digits = len(text.removeprefix("-"))
    if digits > MAX_DIGITS:
        raise BadRow(f"an integer of {digits} digits")
    return int(text)


def _constant(text: str) -> NoReturn:
    raise BadRow(f"{text} is no JSON number")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_float, parse_int=_integer, parse_constant=_constant)
