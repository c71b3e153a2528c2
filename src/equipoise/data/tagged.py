"""Answers with a confidence token at their end: making them, and reading them from a file."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from equipoise.config import nearest
from equipoise.data.gathering import Dropped, Gathered, Ids, Rows, open_rows
from equipoise.data.jsonl import BadRow, shown
from equipoise.data.rows import optional, required, row_id
from equipoise.errors import UserError
from equipoise.metrics.text import plain
from equipoise.records import Question, TaggedAnswer

FIELDS = ("question", "tagged_response", "dataset", "context", "answer", "correct", "model", "id", "group")
DOCS = "docs/confidence-data.md#tagged"
Tokens = Mapping[str, tuple[str, str]]  # of each domain, the confident and the uncertain token
Mark = Literal["C", "U"]
# <C_MED>, <|sure|>: what looks like a token that was meant, and not like <br>
_TOKEN_LIKE = re.compile(r"<(?=[^<>]*[_|A-Z])\|?\w[\w|-]*\|?>\Z")


@dataclass(frozen=True)
class LoadedTagged:
    """What came of a file: tagged answers in order, the other rows, remarks, and the hash of its content."""

    rows: list[TaggedAnswer]
    dropped: list[Dropped]
    notes: list[str]
    sha256: str


def tag(
    question: Question, response: str, grade_correct: bool, confident: str, uncertain: str, model: str
) -> TaggedAnswer:
    """Put a domain's token after a model's answer: the confident one where it was graded right.

    Raises:
        BadRow: the answer is empty, or spells one of the two tokens itself.
    """
    answer = response.rstrip()
    _check_answer(answer, (confident, uncertain), "the answer")
    return TaggedAnswer(
        question=question.question,
        tagged_response=f"{answer} {confident if grade_correct else uncertain}",
        dataset=question.dataset,
        context=question.context,
        answer=question.answer,
        correct=grade_correct,
        model=model,
        id=question.id,
        group=question.group,
    )


def split_tagged_response(text: str, tokens: Tokens) -> tuple[str, Mark]:
    """Take a tagged answer apart: the answer without white space at its end, and "C" or "U".

    Raises:
        BadRow: there is no token at its end, nothing before it, or one anywhere else.
        UserError: what stands at its end looks like a token, but is none of `tokens`.
    """
    answer, token = _parts(text, tokens)
    return answer, "C" if any(token == confident for confident, _ in tokens.values()) else "U"


def _parts(text: str, tokens: Tokens) -> tuple[str, str]:
    known = sorted({token for pair in tokens.values() for token in pair}, key=len, reverse=True)
    text = text.rstrip()
    token = next((token for token in known if text.endswith(token)), None)
    if token is None:
        if inside := next((token for token in known if token in text), None):
            raise BadRow(f"{inside} stands in the middle of the answer", "tagged_response")
        if strange := _TOKEN_LIKE.search(text):
            guess = nearest(strange[0], known)
            raise UserError(
                f"{shown(strange[0], 40)!r} is no confidence token of these domains",
                fix=(f"did you mean {guess}? " if guess else "") + f"the tokens are {', '.join(sorted(known))}",
                docs=DOCS,
            )
        raise BadRow("there is no confidence token at its end", "tagged_response")
    answer = text.removesuffix(token).rstrip()
    _check_answer(answer, known, "tagged_response")
    return answer, token


def _check_answer(answer: str, known: list[str] | tuple[str, ...], field: str) -> None:
    if not answer.strip():
        raise BadRow("the answer is empty", field)
    if any(answer.endswith(token) for token in known):
        raise BadRow("there are two confidence tokens at its end", field)
    if inside := next((token for token in known if token in answer), None):
        raise BadRow(f"{inside} stands in the middle of the answer", field)


def load_tagged(source: str | Path, tokens: Tokens, *, max_bad_share: float = 0.05) -> LoadedTagged:
    """Read tagged answers: `question`, `tagged_response` and `dataset`, and the other fields of `TaggedAnswer`.

    A row that cannot be used is dropped and listed. Every row gets an id of its own, and `correct` from its token. A
    token in the question or the context is text like any other.

    Args:
        source: the path of a JSONL file or of one JSON array, or `hub:NAME:SPLIT`.
        tokens: the confident and the uncertain token of each domain, which is what `dataset` must name.
        max_bad_share: the share of dropped rows, from 0 to 1, above which the whole file is refused.

    Raises:
        UserError: the file cannot be read, has no usable row or too many bad ones, a `dataset` or a token is unknown,
            or one id names two questions.
    """
    rows = open_rows(source, FIELDS)
    parser = _Parser(rows, tokens)
    gathered = Gathered(rows, parser.parse)
    gathered.check(max_bad_share)
    tagged = [parser.named(line, row) for line, row in gathered.kept]
    return LoadedTagged(tagged, gathered.dropped, rows.notes + gathered.notes(FIELDS), rows.sha256)


class _Parser:
    """From rows to tagged answers, with what is needed to know a row or an id again."""

    def __init__(self, rows: Rows, tokens: Tokens):
        self.rows, self.tokens = rows, tokens
        self.seen: dict[tuple[str, ...], tuple[int, bool]] = {}
        self.ids: dict[str, Ids[str]] = {domain: Ids(rows) for domain in tokens}
        self.given: set[tuple[str, str]] = set()

    def parse(self, values: dict[str, Any], line: int) -> tuple[TaggedAnswer, list[str]]:
        """Read a row and check that it is not there already."""
        question, said = (_text(values, name) for name in ("question", "tagged_response"))
        domain = self._domain(required(values, "dataset", "", (str,)), line)
        answer, token = self._split(said, line)
        if token not in self.tokens[domain]:
            raise BadRow(f"{token} is not a token of {domain!r}", "tagged_response")
        correct = optional(values, "correct", bool)
        if correct is not None and correct != (token == self.tokens[domain][0]):
            raise BadRow(f"contradicts the token {token}", "correct")
        row = TaggedAnswer(
            question=question,
            tagged_response=said,
            dataset=domain,
            context=optional(values, "context", str),
            answer=optional(values, "answer", str),
            correct=token == self.tokens[domain][0],
            model=optional(values, "model", str),
            id=row_id(values),
            group=row_id(values, "group"),
        )
        self._check_new(row, answer, line)
        return row, [shown(name) for name in values if name not in FIELDS]

    def _domain(self, name: str, line: int) -> str:
        if name in self.tokens:
            return name
        guess = nearest(name, self.tokens)
        raise UserError(
            f"the dataset {shown(name, 40)!r} is no domain of the recipe",
            where=self.rows.where(line, "dataset"),
            fix=(f"did you mean {guess!r}? " if guess else "") + f"the domains are {', '.join(self.tokens)}",
            docs=DOCS,
        )

    def _split(self, said: str, line: int) -> tuple[str, str]:
        try:
            return _parts(said, self.tokens)
        except UserError as error:
            where = self.rows.where(line, "tagged_response")
            raise UserError(error.what, where=where, fix=error.fix, docs=error.docs) from None

    def _check_new(self, row: TaggedAnswer, answer: str, line: int) -> None:
        asked, correct = plain(row.prompt), bool(row.correct)
        if row.id is not None:
            self.ids[row.dataset].check(row.id, line, asked)
        first, known = self.seen.setdefault((row.dataset, asked, row.model or "", answer), (line, correct))
        if first != line:
            raise BadRow(f"the same row as line {first}" + (", tagged otherwise" if known != correct else ""))

    def named(self, line: int, row: TaggedAnswer) -> TaggedAnswer:
        """A kept row under an id that no other row of its domain has: one question may have several answers."""
        name = row.id or self.ids[row.dataset].for_line(line)
        number = 1
        while (row.dataset, unique := name if number == 1 else f"{name}#{number}") in self.given:
            number += 1
        self.given.add((row.dataset, unique))
        return row.model_copy(update={"id": unique})


def _text(values: dict[str, Any], name: str) -> str:
    text = required(values, name, "", (str,))
    if not text.strip():
        raise BadRow("the answer is empty" if name == "tagged_response" else "the question is empty", name)
    return text
