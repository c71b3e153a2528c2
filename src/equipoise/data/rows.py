"""From one parsed row to one example; what is wrong with a row is said by field."""

from typing import Any

from equipoise.config import nearest
from equipoise.data.jsonl import BadRow
from equipoise.records import Example, Message

FIELDS = ("id", "prompt", "completion", "messages", "old", "rephrasings", "meta")
ROLES = ("system", "user", "assistant")


def to_example(row: dict[str, Any], name: str) -> Example:
    """Build the example that a row describes; `name` is its id if it has none.

    Raises:
        BadRow: a field is missing, null, of the wrong type or empty, or the conversation does not end in an answer.
    """
    messages = _conversation(row)
    if [message.role for message in messages[-2:]] != ["user", "assistant"]:
        raise BadRow("must end in the user's question and the assistant's answer", "messages")
    answer = "completion" if "completion" in row else "messages"
    if not messages[-1].content.strip():
        raise BadRow("the answer is empty", answer)
    if not messages[-2].content.strip():
        raise BadRow("the question is empty", "prompt" if answer == "completion" else "messages")
    rephrasings = _rephrasings(row)
    if any(text.split() == messages[-2].content.split() for text in rephrasings):
        raise BadRow("a phrasing held out for testing is the one that is trained on", "rephrasings")
    return Example(
        id=_id(row, name),
        messages=messages,
        old=_old(row),
        rephrasings=rephrasings,
        meta=_optional(row, "meta", dict, {}),
    )


def _conversation(row: dict[str, Any]) -> list[Message]:
    if "messages" in row and ("prompt" in row or "completion" in row):
        raise BadRow("give either messages, or prompt and completion", "messages")
    if "messages" in row:
        return _messages(row["messages"], "messages")
    made = []
    for field, role in (("prompt", "user"), ("completion", "assistant")):
        value = _required(row, field)
        made += _messages([{"role": role, "content": value}] if isinstance(value, str) else value, field)
    return made


def _messages(value: Any, field: str) -> list[Message]:
    if value is None:
        raise BadRow("is null", field)
    if not isinstance(value, list):
        raise BadRow(f"must be a text or a list of messages, not {_type(value)}", field)
    return [_message(message, f"{field}[{i}]") for i, message in enumerate(value)]


def _message(value: Any, field: str) -> Message:
    if not isinstance(value, dict):
        raise BadRow(f"must be an object with role and content, not {_type(value)}", field)
    role, content = _required(value, "role", field), _required(value, "content", field)
    if role not in ROLES:
        raise BadRow(f"the role {role!r} is none of {', '.join(ROLES)}", f"{field}.role")
    if not isinstance(content, str):
        raise BadRow(f"must be a text, not {_type(content)}", f"{field}.content")
    return Message.model_validate({"role": role, "content": content})


def _required(row: dict[str, Any], name: str, inside: str = "") -> Any:
    field = f"{inside}.{name}" if inside else name
    if name not in row:
        guess = nearest(name, row)
        raise BadRow("is missing" + (f"; is it {guess!r}?" if guess else ""), field)
    if row[name] is None:
        raise BadRow("is null", field)
    return row[name]


def _optional(row: dict[str, Any], name: str, kind: type, default: Any) -> Any:
    value = row.get(name)
    if value is None:  # tables on the Hub write null for a field that a row does not have
        return default
    if not isinstance(value, kind):
        raise BadRow(f"must be {_NAMES[kind]}, not {_type(value)}", name)
    return value


def _id(row: dict[str, Any], name: str) -> str:
    value = row.get("id")
    if value is None:
        return name
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise BadRow(f"must be a text or a whole number, not {_type(value)}", "id")
    if not str(value).strip():
        raise BadRow("is empty", "id")
    return str(value)


def _old(row: dict[str, Any]) -> str | None:
    old = _optional(row, "old", str, None)
    return old if old is not None and old.strip() else None


def _rephrasings(row: dict[str, Any]) -> list[str]:
    texts = _optional(row, "rephrasings", list, [])
    if not all(isinstance(text, str) and text.strip() for text in texts):
        raise BadRow("must be a list of texts that are not empty", "rephrasings")
    return texts


_NAMES = {str: "a text", bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "an object"}


def _type(value: Any) -> str:
    return "null" if value is None else _NAMES.get(type(value), type(value).__name__)
