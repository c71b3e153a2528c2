"""From the fields of one row to a conversation: which fields there are, and what each must hold."""

from dataclasses import dataclass
from typing import Any, Literal

from equipoise.config import nearest
from equipoise.data.jsonl import BadRow, kind, shown
from equipoise.records import Form, Message

FIELDS = ("prompt", "completion", "messages", "id", "form", "old", "rephrasings", "meta")
Role = Literal["system", "user", "assistant"]
ROLES: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant"}


class Empty(BadRow):
    """A field that is there, but says nothing."""


@dataclass(frozen=True)
class Draft:
    """What a row says, before it has an id for certain; `unknown` are the names of fields that nobody reads."""

    id: str | None
    messages: list[Message]
    old: str | None
    rephrasings: list[str]
    meta: dict[str, Any]
    unknown: list[str]
    form: Form = "chat"


def parse_row(values: dict[str, Any]) -> Draft:
    """Read `prompt` and `completion` (texts, or lists of messages) or `messages`, and the optional fields.

    Null in an optional field means that it is not there: tables write it so.

    Raises:
        BadRow: a field is missing, null where needed, of the wrong type or empty, the conversation does not end in a
            question and its answer, `old` is the answer itself, a rephrasing is the question itself, or a row in text
            form has several turns.
    """
    unknown = [shown(name) for name in values if name not in FIELDS]
    messages = _conversation(values, unknown)
    in_turns = values.get("messages") is not None
    if [message.role for message in messages[-2:]] != ["user", "assistant"]:
        field = "messages" if in_turns else "completion"
        raise BadRow("the conversation must end in the user's question and the assistant's answer", field)
    question, answer = messages[-2].content, messages[-1].content
    if not question.strip():
        raise Empty("the question is empty", "messages" if in_turns else "prompt")
    if not answer.strip():
        raise Empty("the answer is empty", "messages" if in_turns else "completion")
    old = optional(values, "old", str)
    if old is not None and not old.strip():
        raise BadRow("empty; leave the field out", "old")
    if old is not None and old.strip() == answer.strip():
        raise BadRow("the outdated answer is the answer itself", "old")
    rephrasings, form = _rephrasings(values, question), _form(values, messages)
    return Draft(row_id(values), messages, old, rephrasings, _meta(values), unknown, form)


def _conversation(values: dict[str, Any], unknown: list[str]) -> list[Message]:
    if values.get("messages") is None:
        messages = []
        for name, role in (("prompt", "user"), ("completion", "assistant")):
            said = required(values, name, "", (str, list))
            messages += (
                [Message(role=ROLES[role], content=said)] if isinstance(said, str) else turns(said, name, unknown)
            )
        return messages
    for name in ("prompt", "completion"):
        if values.get(name) is not None:
            raise BadRow("stands beside `messages`; a row has the one or the other", name)
    return turns(required(values, "messages", "", (list,)), "messages", unknown)


def turns(values: list[Any], within: str, unknown: list[str]) -> list[Message]:
    """The messages in the field `within`; the names of their unread fields are added to `unknown`.

    Raises:
        BadRow: naming the first that is no message with a known role and a text.
    """
    return [_message(value, f"{within}[{i}]", unknown) for i, value in enumerate(values)]


def _message(value: Any, within: str, unknown: list[str]) -> Message:
    if not isinstance(value, dict):
        raise BadRow(f"{kind(value)} where a message with role and content belongs", within)
    role, content = required(value, "role", within, (str,)), required(value, "content", within, (str,))
    if role not in ROLES:
        guess = nearest(role, ROLES)
        hint = f"did you mean {guess!r}?" if guess else f"known: {', '.join(ROLES)}"
        raise BadRow(f"unknown role {shown(role, 30)!r}; {hint}", f"{within}.role")
    whole = within.partition("[")[0]
    unknown += [f"{whole}[].{shown(key)}" for key in value if key not in ("role", "content") and value[key] is not None]
    return Message(role=ROLES[role], content=content)


def required(values: dict[str, Any], name: str, within: str, kinds: tuple[type, ...]) -> Any:
    """The value of a field that must be there and of one of these types.

    Raises:
        BadRow: naming `within.name`, and a field that may have been meant.
    """
    field = f"{within}.{name}" if within else name
    if name not in values:
        guess = nearest(name, values)
        others = ", ".join(shown(key, 30) for key in list(values)[:8]) or "no field"
        raise BadRow(f"missing; did you mean {shown(guess)!r}?" if guess else f"missing; the row has {others}", field)
    if not isinstance(values[name], kinds):
        raise BadRow(f"{kind(values[name])} where {' or '.join(kind(k()) for k in kinds)} belongs", field)
    return values[name]


def optional(values: dict[str, Any], name: str, wanted: type) -> Any:
    """The value of a field of this type, or None where it is not there or null.

    Raises:
        BadRow: it is of another type.
    """
    return None if values.get(name) is None else required(values, name, "", (wanted,))


def row_id(values: dict[str, Any], name: str = "id") -> str | None:
    """The id of a row, or another name that may be a number, as a string; None where it has none.

    Raises:
        BadRow: it is neither a string nor a whole number, or empty.
    """
    value = values.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise BadRow(f"{kind(value)} where a string or a whole number belongs", name)
    if not str(value).strip():
        raise BadRow("empty; leave the field out", name)
    return str(value)


def _form(values: dict[str, Any], messages: list[Message]) -> Form:
    said = optional(values, "form", str)
    if said not in (None, "chat", "text"):
        raise BadRow(f"{shown(said, 30)!r} is neither `chat` nor `text`", "form")
    if said == "text" and len(messages) != 2:
        raise BadRow("a row in text form has one prompt and its completion, and no other turns", "form")
    return "text" if said == "text" else "chat"


def _rephrasings(values: dict[str, Any], question: str) -> list[str]:
    said = texts(optional(values, "rephrasings", list) or [], "rephrasings")
    for i, text in enumerate(said):
        if text.split() == question.split():
            raise BadRow("is the question itself, so it is not held out", f"rephrasings[{i}]")
    return said


def _meta(values: dict[str, Any]) -> dict[str, Any]:
    """Check the two entries that evaluation reads: `accepted`, other right answers, and `unit_tests`."""
    meta = {key: value for key, value in (optional(values, "meta", dict) or {}).items() if value is not None}
    if "accepted" in meta:
        texts(required(meta, "accepted", "meta", (list,)), "meta.accepted")
    if "unit_tests" in meta:
        required(meta, "unit_tests", "meta", (str,))
    return meta


def texts(values: list[Any], within: str) -> list[str]:
    """A list whose every element is a text with something in it.

    Raises:
        BadRow: naming the first that is not.
    """
    for i, text in enumerate(values):
        if not isinstance(text, str):
            raise BadRow(f"{kind(text)} where a string belongs", f"{within}[{i}]")
        if not text.strip():
            raise BadRow("empty", f"{within}[{i}]")
    return list(values)
