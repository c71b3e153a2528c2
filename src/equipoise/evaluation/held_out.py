"""Texts that are never trained on: those that are shipped, or a user's own, or HumanEval's solutions."""

from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from equipoise.data.formatting import IGNORE, Rendered, Unusable, render, supervise
from equipoise.data.gathering import Dropped, Gathered, Ids, Rows, open_rows
from equipoise.data.jsonl import BadRow, shown
from equipoise.data.rows import optional, required, row_id
from equipoise.data.text_form import text_ids
from equipoise.errors import UserError
from equipoise.records import Example, HeldOutText, Message

FIELDS = (
    *("id", "kind", "text", "prompt", "completion", "form"),
    *("task_id", "canonical_solution", "entry_point", "test"),  # HumanEval's
)


@dataclass(frozen=True)
class LoadedTexts:
    """What came of a source: texts in order, the rows left out, remarks, and the hash of its content."""

    texts: list[HeldOutText]
    dropped: list[Dropped]
    notes: list[str]
    sha256: str


def load_texts(source: str | Path | None = None, *, max_bad_share: float = 0.05) -> LoadedTexts:
    """Read texts: rows with `text`, or with `prompt` and `completion`, and optionally `id`, `kind` and `form`.

    `kind` is `prose` where a row does not say. A prompt goes through the chat template unless `form` is `text`.
    HumanEval's rows are code: the prompt and its solution as one text.

    Args:
        source: the path of a JSONL file or of one JSON array, or `hub:NAME:SPLIT`; None for the shipped texts.
        max_bad_share: the share of bad rows, from 0 to 1, above which the whole source is refused.

    Raises:
        UserError: the source cannot be read, has no usable row or too many bad ones, or an id stands twice.
    """
    if source is None:
        with as_file(files("equipoise.evaluation").joinpath("held-out.jsonl")) as shipped:
            return load_texts(shipped)
    rows = open_rows(source, FIELDS)
    parser = _Parser(rows)
    gathered = Gathered(rows, parser.parse)
    gathered.check(max_bad_share)
    notes = rows.notes + gathered.notes(FIELDS)
    return LoadedTexts([parser.named(*kept) for kept in gathered.kept], gathered.dropped, notes, rows.sha256)


class _Parser:
    """From rows to texts, with what is needed to know a text or an id again."""

    def __init__(self, rows: Rows):
        self.ids: Ids[str] = Ids(rows)
        self.seen: dict[str, int] = {}

    def parse(self, values: dict[str, Any], line: int) -> tuple[HeldOutText, list[str]]:
        text = _human_eval(values) if "canonical_solution" in values else _text(values)
        whole = (text.prompt or "") + text.text
        first = self.seen.setdefault(whole, line)
        if first != line:
            raise BadRow(f"the same text as line {first}")
        if text.id:
            self.ids.check(text.id, line, whole)
        return text, [shown(name) for name in values if name not in FIELDS]

    def named(self, line: int, text: HeldOutText) -> HeldOutText:
        """A kept text, with an id."""
        return text if text.id else text.model_copy(update={"id": self.ids.for_line(line)})


def _human_eval(values: dict[str, Any]) -> HeldOutText:
    code = _said(values, "prompt") + _said(values, "canonical_solution")
    return HeldOutText(id=row_id(values, "task_id") or "", kind="code", text=code)


def _text(values: dict[str, Any]) -> HeldOutText:
    name, kind = row_id(values) or "", optional(values, "kind", str) or "prose"
    if "text" in values:
        return HeldOutText(id=name, kind=kind, text=_said(values, "text"))
    form = optional(values, "form", str) or "chat"
    if form not in ("chat", "text"):
        raise BadRow(f"{shown(form, 30)!r} is neither `chat` nor `text`", "form")
    prompt, completion = _said(values, "prompt"), _said(values, "completion")
    return HeldOutText(id=name, kind=kind, prompt=prompt, text=completion, form=form)


def _said(values: dict[str, Any], name: str) -> str:
    text = required(values, name, "", (str,))
    if not text.strip():
        raise BadRow("empty", name)
    return text


def render_text(tokenizer: Any, text: HeldOutText, *, max_length: int) -> Rendered:
    """Token ids and labels of a text, of which what is beyond `max_length` tokens is left out.

    Raises:
        UserError: nothing of it can be predicted, or the tokenizer has no chat template for its prompt.
    """
    try:
        if text.prompt is None:
            ids = text_ids(tokenizer, text.text)[:max_length]
            return supervise(ids, range(1, len(ids)), None)
        turns = [Message(role="user", content=text.prompt), Message(role="assistant", content=text.text)]
        row = render(tokenizer, Example(id=text.id, messages=turns, form=text.form))
        ids = row.input_ids[:max_length]
        return supervise(ids, [i for i in range(len(ids)) if row.labels[i] != IGNORE], None)
    except Unusable as reason:
        raise UserError(
            f"nothing of the held-out text {shown(text.id)!r} can be predicted: {reason}",
            where="evaluation.held_out",
            fix=f"give texts of two tokens or more, with prompts of fewer than {max_length} tokens",
        ) from None
