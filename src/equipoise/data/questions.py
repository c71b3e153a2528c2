"""Questions with a right answer, from a JSONL file, PubMedQA's JSON or a data set on the Hub."""

import re
import string
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equipoise.data.columns import COLUMNS, FIELDS, renamed
from equipoise.data.gathering import Dropped, Gathered, Ids, Rows, Unused, open_rows
from equipoise.data.hub import PREFIX
from equipoise.data.jsonl import BadRow, kind, shown
from equipoise.data.keyed import KeyedRows, is_keyed
from equipoise.data.rows import optional, required, row_id, texts
from equipoise.errors import UserError
from equipoise.metrics.answers import KINDS, normalise
from equipoise.metrics.text import plain
from equipoise.records import Question

_POLARITY = {"yes": "yes", "true": "yes", "no": "no", "false": "no"}
_LETTER = re.compile(r"[A-Za-z]|[0-9]{1,2}")


@dataclass(frozen=True)
class LoadedQuestions:
    """What came of a source: questions in order, the other rows, remarks, and the hash of its content."""

    questions: list[Question]
    dropped: list[Dropped]
    notes: list[str]
    sha256: str


def load_questions(
    source: str | Path, domain: str, kind: str, *, max_bad_share: float = 0.05, limit: int | None = None
) -> LoadedQuestions:
    """Read questions with `question`, `answer` and optionally `context`, `options`, `accepted`, `id`, `group`, `meta`.

    The columns of BoolQ, MedQA and PubMedQA are known too. A row that cannot be used is dropped and listed. A right
    answer of "maybe" has no place among yes and no: it is listed too, but does not count as a bad row. Options are
    shown with the question, one a line as `A) text`, unless it lists them itself. `meta["source"]` says where a row
    stands.

    Args:
        source: the path of a JSONL file, of one JSON array or of one JSON object of rows, or `hub:NAME:SPLIT`.
        domain: the name that every question gets as its `dataset`.
        kind: how answers are graded: "yes-no", "choice" or "text".
        max_bad_share: the share of bad rows, from 0 to 1, above which the whole source is refused.
        limit: keep the first so many.

    Raises:
        UserError: the source cannot be read, has no usable row or too many bad ones, or one id names two questions.
    """
    if kind not in KINDS:
        raise UserError(f"answers are {kind!r}", where=f"domains.{domain}.answers", fix=f"one of {', '.join(KINDS)}")
    rows = _open(source)
    parser = _Parser(rows, domain, kind)
    gathered = Gathered(rows, parser.parse)
    gathered.check(max_bad_share)
    questions = [parser.named(line, question) for line, question in gathered.kept[:limit]]
    return LoadedQuestions(questions, gathered.dropped, rows.notes + gathered.notes(FIELDS), rows.sha256)


def _open(source: str | Path) -> Rows:
    path = Path(source).expanduser()
    if not str(source).startswith(PREFIX) and is_keyed(path, COLUMNS):
        return KeyedRows(path)
    return open_rows(source, COLUMNS)


class _Parser:
    """From rows to questions of one domain, with what is needed to know a question or an id again."""

    def __init__(self, rows: Rows, domain: str, kind: str):
        self.rows, self.domain, self.kind = rows, domain, kind
        self.asked: dict[str, int] = {}
        self.ids: Ids[str] = Ids(rows)

    def parse(self, values: dict[str, Any], line: int) -> tuple[Question, list[str]]:
        """Read a row and check that its question is not there already."""
        row = renamed(values)
        options = _options(row, needed=self.kind == "choice")
        answer = {"yes-no": _yes_no, "choice": _letter, "text": _text}[self.kind](row, options)
        question = _said(row, "question")
        question = Question(
            id=row_id(row) or "",
            question=_listed(question, options) if self.kind == "choice" else question,
            dataset=self.domain,
            answer=answer,
            context=_said(row, "context") if row.get("context") is not None else None,
            accepted=texts(optional(row, "accepted", list) or [], "accepted"),
            options=options,
            group=row_id(row, "group"),
            meta=optional(row, "meta", dict) or {},
        )
        self._check_new(question, line)
        return question, [shown(name) for name in row if name not in FIELDS]

    def _check_new(self, question: Question, line: int) -> None:
        asked = plain(question.prompt)
        if question.id:
            self.ids.check(question.id, line, asked)
        first = self.asked.setdefault(asked, line)
        if first != line:
            raise BadRow(f"the same question as line {first}")

    def named(self, line: int, question: Question) -> Question:
        """A kept question, with an id and the place where it stands."""
        name = question.id or self.ids.for_line(line)
        return question.model_copy(update={"id": name, "meta": question.meta | {"source": self.rows.where(line)}})


def _said(row: dict[str, Any], name: str) -> str:
    text = required(row, name, "", (str,))
    if not text.strip():
        raise BadRow(f"the {name} is empty", name)
    return text


def _yes_no(row: dict[str, Any], options: dict[str, str]) -> str:
    said = required(row, "answer", "", (str, bool))
    if isinstance(said, bool):
        return "yes" if said else "no"
    word = said.strip().rstrip(".").casefold()
    if word == "maybe":
        raise Unused("the right answer is maybe, neither yes nor no", "answer")
    if word not in _POLARITY:
        raise BadRow(f"{shown(said, 30)!r} is neither yes nor no", "answer")
    return _POLARITY[word]


def _letter(row: dict[str, Any], options: dict[str, str]) -> str:
    said = _said(row, "answer").strip()
    if said.upper() in options:
        return said.upper()
    letter = next((key for key, text in options.items() if normalise(text) == normalise(said)), None)
    if letter is None:
        raise BadRow(f"{shown(said, 30)!r} is none of the options {', '.join(options)}", "answer")
    return letter


def _text(row: dict[str, Any], options: dict[str, str]) -> str:
    return _said(row, "answer")


def _options(row: dict[str, Any], *, needed: bool) -> dict[str, str]:
    """The text of each option by its letter, from an object, a list of texts, or a list of `key` and `value`."""
    given = required(row, "options", "", (dict, list)) if needed else row.get("options")
    if isinstance(given, list):
        keyed = all(isinstance(each, dict) for each in given)
        pairs = (
            [(each.get("key"), each.get("value")) for each in given] if keyed else [*zip(string.ascii_uppercase, given)]
        )
        given = dict(pairs)
    if not isinstance(given, dict):
        return {}
    options: dict[str, str] = {}
    for key, text in given.items():
        if text is None:  # a table has a column for every letter that any row uses
            continue
        if not isinstance(key, str) or not _LETTER.fullmatch(key):
            raise BadRow(f"{shown(str(key), 30)!r} is no letter", "options")
        if not isinstance(text, str):
            raise BadRow(f"{kind(text)} where a string belongs", f"options.{key}")
        if not text.strip():
            raise BadRow("empty", f"options.{key}")
        options[key.upper()] = text.strip()
    if needed and len(options) < 2:
        raise BadRow("fewer than two options", "options")
    if needed and len({normalise(text) for text in options.values()}) < len(options):
        raise BadRow("two options say the same", "options")
    return options


def _listed(question: str, options: dict[str, str]) -> str:
    """The question with its options below it, unless it lists them itself."""
    if all(re.search(rf"(?m)^\W*{key}\W+{re.escape(text)}\s*$", question) for key, text in options.items()):
        return question
    return "\n".join([question.rstrip(), *(f"{key}) {text}" for key, text in options.items())])
