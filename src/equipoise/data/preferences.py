"""Preference pairs: from a JSONL file, a JSON array or a data set on the Hub to a prompt and two answers to it."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equipoise.data.gathering import Dropped, Gathered, Ids, Rows, open_rows
from equipoise.data.jsonl import BadRow, shown
from equipoise.data.rows import Empty, optional, required, row_id, turns
from equipoise.records import Example, Message, PreferencePair

PAIR_FIELDS = ("prompt", "messages", "chosen", "rejected", "id", "meta")
_TRANSCRIPT = re.compile(r"\n\n(Human|Assistant):")


@dataclass(frozen=True)
class LoadedPairs:
    """What came of a source: pairs in order, the other rows, remarks, and the hash of its content."""

    pairs: list[PreferencePair]
    dropped: list[Dropped]
    notes: list[str]
    sha256: str


@dataclass(frozen=True)
class PairDraft:
    """What a row says, before it has an id for certain; `unknown` are the names of fields that nobody reads."""

    id: str | None
    prompt: list[Message]
    chosen: str
    rejected: str
    meta: dict[str, Any]
    unknown: list[str]


def load_pairs(source: str | Path, *, max_bad_share: float = 0.05, limit: int | None = None) -> LoadedPairs:
    """Read rows with `chosen` and `rejected` in TRL's notations, and optionally `id` and `meta`.

    The question stands in `prompt` (a text or messages), in `messages`, or as the common beginning of two lists of
    messages or of two transcripts with turns of `Human:` and `Assistant:`. Two texts without such turns have no prompt
    that could be told from their answers. A row that cannot be used is dropped and listed, also one whose answers are
    the same, that stands there already, or that prefers what an earlier row rejects.

    Args:
        source: the path of a JSONL file or of one JSON array, or `hub:NAME:SPLIT`.
        max_bad_share: the share of dropped rows, from 0 to 1, above which the whole source is refused.
        limit: keep the first so many.

    Raises:
        UserError: the source cannot be read, has no usable row or too many bad ones, or one id names two pairs.
    """
    rows = open_rows(source, PAIR_FIELDS)
    parser = _Parser(rows)
    gathered = Gathered(rows, parser.parse)
    gathered.check(max_bad_share)
    pairs = [parser.pair(line, draft) for line, draft in gathered.kept[:limit]]
    return LoadedPairs(pairs, gathered.dropped, rows.notes + gathered.notes(PAIR_FIELDS), rows.sha256)


def preferred(pair: PreferencePair) -> Example:
    """A pair as an example to learn: its question and the better answer."""
    answer = Message(role="assistant", content=pair.chosen)
    return Example(id=pair.id, messages=[*pair.prompt, answer], meta=pair.meta)


def parse_pair(values: dict[str, Any]) -> PairDraft:
    """Read the fields of one row as `load_pairs` does.

    Raises:
        BadRow: a field is missing, of the wrong type or empty, there is no question, the two conversations part before
            their last answer, or the two answers are the same.
    """
    unknown = [shown(name) for name in values if name not in PAIR_FIELDS]
    prompt = _prompt(values, unknown)
    chosen, rejected = (_said(values, name, unknown) for name in ("chosen", "rejected"))
    if prompt:
        chosen, rejected = (_without(prompt, side) for side in (chosen, rejected))
    else:
        if len(chosen) == len(rejected) == 1:
            required(values, "prompt", "", (str, list))  # refuses the row, with the field that may have been meant
        prompt = _common(chosen, rejected)
        if not prompt:
            raise BadRow("missing, and `chosen` and `rejected` differ before their last turns", "prompt")
        chosen, rejected = chosen[len(prompt) :], rejected[len(prompt) :]
    field = "messages" if values.get("messages") is not None else "prompt"
    if prompt[-1].role != "user":
        raise BadRow("must end in the user's question", field)
    if not prompt[-1].content.strip():
        raise Empty("the question is empty", field)
    better, worse = _answer(chosen, "chosen"), _answer(rejected, "rejected")
    if better.strip() == worse.strip():
        raise BadRow("chosen equals rejected", "rejected")
    return PairDraft(row_id(values), prompt, better, worse, optional(values, "meta", dict) or {}, unknown)


def _prompt(values: dict[str, Any], unknown: list[str]) -> list[Message]:
    given = [name for name in ("prompt", "messages") if values.get(name) is not None]
    if len(given) == 2:
        raise BadRow("stands beside `messages`; a row has the one or the other", "prompt")
    if not given:
        return []
    said = required(values, given[0], "", (str, list) if given == ["prompt"] else (list,))
    if isinstance(said, list):
        return turns(said, given[0], unknown)
    return _transcript(said) or [Message(role="user", content=said)]


def _said(values: dict[str, Any], name: str, unknown: list[str]) -> list[Message]:
    said = required(values, name, "", (str, list))
    if isinstance(said, list):
        return turns(said, name, unknown)
    return _transcript(said) or [Message(role="assistant", content=said)]


def _transcript(text: str) -> list[Message]:
    """The turns of a text in the form of Anthropic's HH-RLHF, or none if it is not in it; one without words is cut."""
    if not text.startswith("\n\nHuman:"):
        return []
    _, *parts = _TRANSCRIPT.split(text)
    said = [
        Message(role="user" if who == "Human" else "assistant", content=content.strip())
        for who, content in zip(parts[::2], parts[1::2], strict=True)
    ]
    return said[:-1] if said[-1].role == "assistant" and not said[-1].content else said


def _without(prompt: list[Message], side: list[Message]) -> list[Message]:
    return side[len(prompt) :] if side[: len(prompt)] == prompt else side


def _common(one: list[Message], other: list[Message]) -> list[Message]:
    """The turns before the two last ones, if they are the same."""
    return one[:-1] if one[:-1] == other[:-1] else []


def _answer(side: list[Message], name: str) -> str:
    if not side or side[-1].role != "assistant":
        raise BadRow("must end in the assistant's answer", name)
    if len(side) > 1:
        raise BadRow("says more than one answer to the question, or the other's turns differ before the last", name)
    if not side[0].content.strip():
        raise Empty("the answer is empty", name)
    return side[0].content


class _Parser:
    """From rows to drafts and pairs, with what is needed to know a pair or an id again."""

    def __init__(self, rows: Rows):
        self.rows = rows
        self.seen: dict[tuple[tuple[tuple[str, str], ...], str, str], int] = {}
        self.ids: Ids[tuple[list[Message], str, str]] = Ids(rows)

    def parse(self, values: dict[str, Any], line: int) -> tuple[PairDraft, list[str]]:
        """Read a row and check that neither it nor its reverse is there already."""
        draft = parse_pair(values)
        if draft.id is not None:
            self.ids.check(draft.id, line, (draft.prompt, draft.chosen, draft.rejected))
        asked = tuple((message.role, message.content) for message in draft.prompt)
        first = self.seen.setdefault((asked, draft.chosen, draft.rejected), line)
        if first != line:
            raise BadRow(f"the same pair as line {first}")
        reverse = self.seen.get((asked, draft.rejected, draft.chosen))
        if reverse is not None:
            raise BadRow(f"prefers what line {reverse} rejects, and the other way round")
        return draft, draft.unknown

    def pair(self, line: int, draft: PairDraft) -> PreferencePair:
        """A kept row, with an id and the place where it stands."""
        return PreferencePair(
            id=draft.id or self.ids.for_line(line),
            prompt=draft.prompt,
            chosen=draft.chosen,
            rejected=draft.rejected,
            meta=draft.meta | {"source": self.rows.where(line)},
        )
