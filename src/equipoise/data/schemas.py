"""The forms that instruction data comes in: which one a row has, and what it says in the one form used here."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from equipoise.config import nearest
from equipoise.data.jsonl import BadRow, kind, shown
from equipoise.data.preferences import PairDraft, parse_pair
from equipoise.data.rows import Draft, optional, parse_row, required
from equipoise.records import Message

_SPEAKERS = {"human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant", "assistant": "assistant"}
_SPEAKERS |= {"bing": "assistant", "bard": "assistant", "model": "assistant", "system": "system"}
_LICENCE, _LANGUAGE = ("licence", "license"), ("language", "lang")
COLUMNS = (
    *("instruction", "input", "output", "response", "system", "history", "conversations"),
    *("prompt", "completion", "messages", "chosen", "rejected"),
    *("id", "form", "old", "rephrasings", "meta", *_LICENCE, *_LANGUAGE),
)


@dataclass(frozen=True)
class Recognised:
    """A row in the one form: the schema it came in, what it says, and its licence and language if it names them."""

    schema: str
    draft: Draft | PairDraft
    licence: str | None
    language: str | None


def recognise(values: dict[str, Any]) -> Recognised:
    """Read a row in one of the schemas `alpaca`, `sharegpt`, `messages`, `prompt-completion` and `preference`.

    A licence (`licence`, `license`) and a language (`language`, `lang`) may stand in the row or in its `meta`; they
    end up in the draft's `meta`, as `licence` and `language`.

    Raises:
        BadRow: the row has none of these schemas, or its own asks for something else.
    """
    schema = _schema(values)
    row, meta = dict(values), dict(optional(values, "meta", dict) or {})
    licence, language = (_taken(row, meta, names) for names in (_LICENCE, _LANGUAGE))
    meta |= {name: said for name, said in (("licence", licence), ("language", language)) if said is not None}
    row = _FORMS[schema](row) | {"meta": meta}
    draft = parse_pair(row) if schema == "preference" else parse_row(row)
    return Recognised(schema, draft, licence, language)


def as_draft(values: dict[str, Any]) -> Draft:
    """A row in any of the schemas as a conversation to learn; of two answers to a question the better one.

    Raises:
        BadRow: as `recognise`.
    """
    draft = recognise(values).draft
    if isinstance(draft, Draft):
        return draft
    messages = [*draft.prompt, Message(role="assistant", content=draft.chosen)]
    return Draft(draft.id, messages, None, [], draft.meta, draft.unknown)


def _schema(values: dict[str, Any]) -> str:
    there = {name for name, value in values.items() if value is not None}
    if there & {"chosen", "rejected"}:
        return "preference"
    for schema, name in (("sharegpt", "conversations"), ("messages", "messages"), ("alpaca", "instruction")):
        if name in there:
            return schema
    if there & {"prompt", "completion"}:
        return "prompt-completion"
    names = ("instruction", "conversations", "messages", "prompt", "chosen")
    guess = next(((name, other) for name in names if (other := nearest(name, there))), None)
    others = ", ".join(shown(name, 30) for name in list(values)[:8]) or "no field"
    if guess:
        raise BadRow(f"missing; did you mean {shown(guess[1])!r}?", guess[0])
    raise BadRow(f"no known schema; the row has {others}")


def _taken(row: dict[str, Any], meta: dict[str, Any], names: tuple[str, ...]) -> str | None:
    """Remove what these names hold from row and meta; the first text among it."""
    held = [(name, place.pop(name)) for place in (row, meta) for name in names if name in place]
    for name, said in held:
        if said is not None and not isinstance(said, str):
            raise BadRow(f"{kind(said)} where a string belongs", name)
    return next((said.strip() for _, said in held if said and said.strip()), None)


def _same(row: dict[str, Any]) -> dict[str, Any]:
    return row


def _alpaca(row: dict[str, Any]) -> dict[str, Any]:
    """Instruction and input become one question, as in Alpaca's own prompts: the input below a blank line."""
    answer = "output" if row.get("output") is not None or "response" not in row else "response"
    messages = [*_asked(row), {"role": "assistant", "content": required(row, answer, "", (str,))}]
    return _rest(row, "instruction", "input", answer, "system", "history") | {"messages": messages}


def _asked(row: dict[str, Any]) -> list[dict[str, Any]]:
    asked, more = required(row, "instruction", "", (str,)), optional(row, "input", str) or ""
    system = optional(row, "system", str) or ""
    before = []
    for i, turn in enumerate(optional(row, "history", list) or []):
        if not isinstance(turn, list) or len(turn) != 2 or not all(isinstance(said, str) for said in turn):
            raise BadRow("neither a question nor its answer", f"history[{i}]")
        before += [{"role": role, "content": said} for role, said in zip(("user", "assistant"), turn, strict=True)]
    question = f"{asked}\n\n{more}" if asked.strip() and more.strip() else asked + more
    first = [{"role": "system", "content": system}] if system.strip() else []
    return [*first, *before, {"role": "user", "content": question}]


def _sharegpt(row: dict[str, Any]) -> dict[str, Any]:
    system = optional(row, "system", str) or ""
    first = [{"role": "system", "content": system}] if system.strip() else []
    messages = [*first, *_spoken(required(row, "conversations", "", (list,)), "conversations")]
    return _rest(row, "conversations", "system") | {"messages": messages}


def _spoken(turns: list[Any], within: str) -> list[dict[str, Any]]:
    """Turns with `from` and `value` as messages; those with `role` and `content` are messages already."""
    said = []
    for i, turn in enumerate(turns):
        if not isinstance(turn, dict) or "from" not in turn:
            said.append(turn)
            continue
        speaker, value = (required(turn, name, f"{within}[{i}]", (str,)) for name in ("from", "value"))
        if speaker.lower() not in _SPEAKERS:
            raise BadRow(
                f"unknown speaker {shown(speaker, 30)!r}; known: {', '.join(_SPEAKERS)}", f"{within}[{i}].from"
            )
        said.append(_rest(turn, "from", "value") | {"role": _SPEAKERS[speaker.lower()], "content": value})
    return said


def _preference(row: dict[str, Any]) -> dict[str, Any]:
    """TRL's notations, and a question in Alpaca's or ShareGPT's fields beside `chosen` and `rejected`."""
    if row.get("instruction") is not None:
        row = _rest(row, "instruction", "input", "system", "history") | {"prompt": _asked(row)}
    elif row.get("conversations") is not None:
        row = _rest(row, "conversations") | {"messages": _sharegpt(row)["messages"]}
    for name in ("chosen", "rejected"):
        said = row.get(name)
        if isinstance(said, (dict, list)):
            row[name] = _spoken(said if isinstance(said, list) else [said], name)
    return row


def _rest(row: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in names}


_FORMS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "alpaca": _alpaca,
    "sharegpt": _sharegpt,
    "messages": _same,
    "prompt-completion": _same,
    "preference": _preference,
}
