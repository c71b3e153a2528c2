"""Sentences of a CoNLL file: a word and its tag a line, a blank line between sentences."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from equipoise.data.jsonl import MAX_ROW_BYTES, BadRow, JsonRows, Raw, check_text, shown
from equipoise.data.splitting import Piece
from equipoise.errors import UserError

MAX_WORDS = 5_000
DOCS = "docs/extraction-data.md#conll"

_DOCUMENT = b"-DOCSTART-"
_JSON = re.compile(rb'(?:\xef\xbb\xbf)?\s*(?:\{\s*["}]|\[\s*(?:[{\]]|\Z))')


def is_conll(path: Path) -> bool:
    """Whether a file is to be read as CoNLL: it is neither named as JSON nor begins so."""
    if path.suffix in (".json", ".jsonl") or not path.is_file():
        return False
    with path.open("rb") as file:
        return not _JSON.match(file.read(4096))


class ConllRows(JsonRows):
    """The sentences of a CoNLL file as rows of `tokens` and `tags`; a row's line is that of its first word.

    Columns are parted by tabs where a line has one, else by spaces; the first is the word and the last its tag. A line
    that begins with -DOCSTART- ends a sentence too.

    Raises:
        UserError: the file cannot be read, is no UTF-8 text, or a line has a word and no tag.
    """

    _whole = re.compile(rb"(?!)")  # it is never one array
    _form = "CoNLL"
    _wanted = "a word and its tag a line"

    def _rows(self, pieces: Iterator[Piece]) -> Iterator[Raw]:
        sentence: list[Piece] = []
        documents = 0
        for piece in pieces:
            document = piece.data.startswith(_DOCUMENT)
            documents += document
            if piece.data.strip() and not document:
                sentence += [piece] if len(sentence) <= MAX_WORDS else []  # in bounded memory
                continue
            yield from self._sentence(sentence)
            sentence = []
        yield from self._sentence(sentence)
        if documents:
            self.notes.append(f"{documents} line{'s' * (documents != 1)} of {_DOCUMENT.decode()} passed over")

    def _sentence(self, pieces: Sequence[Piece]) -> Iterator[Raw]:
        if not pieces:
            return
        excerpt = shown(b" ".join(piece.data[:80].strip() for piece in pieces[:20]).decode("utf-8", "backslashreplace"))
        try:
            if len(pieces) > MAX_WORDS:
                raise BadRow(f"more than {MAX_WORDS} words; a blank line ends a sentence")
            words = [self._word(piece) for piece in pieces]
        except BadRow as bad:
            yield Raw(pieces[0].line, bad, excerpt)
            return
        yield Raw(pieces[0].line, {"tokens": [word for word, _ in words], "tags": [tag for _, tag in words]}, excerpt)

    def _word(self, piece: Piece) -> tuple[str, str]:
        if piece.too_long:
            raise BadRow(f"line {piece.line} is longer than {MAX_ROW_BYTES // 2**20} MiB")
        text = self._text(piece, piece.data).rstrip(" \t\r\n")
        check_text(text)
        columns = text.split("\t") if "\t" in text else text.lstrip(" ").split(" ")
        if len(columns) > 1:
            return columns[0].strip(" \r"), columns[-1].strip(" \r")
        if piece.torn:
            raise BadRow(f"the last line is cut off: {shown(text, 40)!r} has no tag")
        raise UserError(
            f"the word {shown(text, 40)!r} has no tag",
            where=self.where(piece.line),
            fix="write a word and its tag a line, with O for a word outside of entities",
            docs=DOCS,
        )
