"""From the fields of one row to a sentence: its words and their tags, or its text and the entities in it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from equipoise.data.jsonl import BadRow, kind, shown
from equipoise.data.rows import optional, required, row_id
from equipoise.data.tags import OUTSIDE
from equipoise.metrics.entities import Pair, pairs_in
from equipoise.metrics.found_json import NoValue
from equipoise.metrics.text import plain

FIELDS = ("text", "entities", "tokens", "ner_tags", "fine_ner_tags", "tags", "id", "meta")


@dataclass(frozen=True)
class Draft:
    """What a row says: `entities` of a text, or `words` and `tags`, which mean something only beside all others.

    A word that is but white space is an empty string. `column` is where the tags stand.
    """

    id: str | None
    text: str
    meta: dict[str, Any]
    unknown: list[str]
    entities: tuple[Pair, ...] | None = None
    words: Sequence[str] = ()
    tags: Sequence[str] | None = None
    column: str = "tags"


def parse_row(values: dict[str, Any], *, column: str, labelled: bool) -> Draft:
    """Read `tokens` with their tags in `column` or in `tags`, or `text` and `entities`, and the optional fields.

    Raises:
        BadRow: a field is missing, of the wrong type or empty, there are not as many tags as words, or an entity does
            not stand in the text.
    """
    unknown = [shown(name) for name in values if name not in (*FIELDS, column)]
    name, meta = row_id(values), optional(values, "meta", dict) or {}
    if values.get("tokens") is None:
        text = required(values, "text", "", (str,))
        if not text.strip():
            raise BadRow("empty", "text")
        given = values.get("entities")
        said = required(values, "entities", "", (list, dict)) if labelled or given is not None else None
        return Draft(name, text, meta, unknown, None if said is None else _entities(said, text))
    words = [plain(word) for word in _strings(required(values, "tokens", "", (list,)), "tokens")]
    text = " ".join(filter(None, words))
    if not text:
        raise BadRow("no words", "tokens")
    column = column if values.get(column) is not None else "tags"
    if not labelled and values.get(column) is None:
        return Draft(name, text, meta, unknown)
    tags = _strings(required(values, column, "", (list,)), column)
    if len(tags) != len(words):
        raise BadRow(f"{len(tags)} tags for {len(words)} words", column)
    if any(tag != OUTSIDE and not word for word, tag in zip(words, tags)):
        raise BadRow("a word in an entity is empty", "tokens")
    return Draft(name, text, meta, unknown, words=words, tags=tags, column=column)


def _strings(values: list[Any], within: str) -> list[str]:
    for i, value in enumerate(values):
        if not isinstance(value, str):
            raise BadRow(f"{kind(value)} where a string belongs", f"{within}[{i}]")
    return values


def _entities(value: Any, text: str) -> tuple[Pair, ...]:
    """The entities in the order of the text: by their places where these are given, else by where they first stand."""
    spans = [_span(each, text, f"entities[{i}]") for i, each in enumerate(value)] if isinstance(value, list) else []
    if all(span is not None for span in spans):
        value = [span for _, span in sorted(filter(None, spans), key=lambda found: found[0])] or value
    try:
        found = pairs_in(value)
    except NoValue as problem:
        raise BadRow(str(problem), "entities") from None
    there = plain(text)
    for _, said in found:
        if said not in there:
            raise BadRow(f"{shown(said, 40)!r} does not stand in the text", "entities")
    return tuple(sorted(found, key=lambda pair: there.find(pair[1]))) if isinstance(value, dict) else found


def _span(value: Any, text: str, within: str) -> tuple[int, dict[str, Any]] | None:
    if not isinstance(value, dict) or value.get("start") is None or value.get("end") is None:
        return None
    start, end = (required(value, name, within, (int,)) for name in ("start", "end"))
    if isinstance(start, bool) or isinstance(end, bool) or not 0 <= start < end <= len(text):
        raise BadRow(f"{start} to {end} is no place in a text of {len(text)} characters", within)
    said = text[start:end]
    if isinstance(value.get("text"), str) and plain(value["text"]) != plain(said):
        raise BadRow(f"{shown(said, 40)!r} stands at {start} to {end}, not {shown(value['text'], 40)!r}", within)
    return start, value | {"text": said}
