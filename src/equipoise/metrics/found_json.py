"""The JSON value in what a model wrote, read strictly."""

import json
import re
from typing import Any, NoReturn

MAX_DIGITS = 308  # as many as the largest float has before its point

_FENCED = re.compile(r"\s*```(?:json|JSON)?\s*(.*?)\s*```\s*", re.DOTALL)
_START = re.compile(r'\{\s*["}]|\[\s*[\[{"\]]')  # unlike a bracket of prose, as in "[see below]" or "[1]"


class NoValue(ValueError):
    """There is no such value; the message says why, in a few words."""


def first_value(text: str) -> tuple[Any, bool]:
    """The first JSON object or list of a text, and whether something other than a code fence stands around it.

    Only a bracket before a quote or another bracket begins one. What begins so has to be whole: nothing is read out of
    the inside of broken JSON.

    Raises:
        NoValue: there is none, or it is cut off, broken, nested too deeply, or holds a key twice, NaN, an infinity or
            an integer of more than `MAX_DIGITS` digits.
    """
    fenced = _FENCED.fullmatch(text)
    text = (fenced[1] if fenced else text).strip()
    if not text:
        raise NoValue("nothing was written")
    start = _START.search(text)
    if start is None:
        raise NoValue("no JSON object or list")
    try:
        value, end = _DECODER.raw_decode(text, start.start())
    except json.JSONDecodeError as error:
        cut = error.pos >= len(text) or error.msg.startswith("Unterminated string")
        raise NoValue("the JSON is cut off" if cut else f"broken JSON at character {error.pos + 1}") from None
    except RecursionError:
        raise NoValue("JSON nested too deeply") from None
    return value, (start.start(), end) != (0, len(text))


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise NoValue("a key stands twice")
    return made


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise NoValue(f"an integer of {len(text)} digits")
    return int(text)


def _constant(text: str) -> NoReturn:
    raise NoValue(f"{text} is no JSON number")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer, parse_constant=_constant)
