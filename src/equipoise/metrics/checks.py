"""Checks of an answer that anyone can read: what it contains, equals or matches, its JSON keys, its length."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from equipoise.metrics.found_json import NoValue, first_value
from equipoise.metrics.text import normalise, plain


@dataclass(frozen=True)
class Check:
    """What an answer must be; of several conditions all. An empty answer passes none.

    Attributes:
        contains: each of these, whole words, whatever the case.
        equals: one of these, by `metrics.text.normalise`.
        regex: found anywhere in the answer.
        json_keys: the whole answer is one JSON object with these keys; a code fence around it is passed over.
        max_words: at most so many.
    """

    contains: Sequence[str] = ()
    equals: Sequence[str] = ()
    regex: str | None = None
    json_keys: Sequence[str] = field(default=())
    max_words: int | None = None

    def problem(self, answer: str) -> str | None:
        """Say what is wrong with `answer`, or None."""
        if not answer.strip():
            return "the answer is empty"
        missing = next((word for word in self.contains if not _has_words(answer, word)), None)
        if missing is not None:
            return f"does not contain {missing!r}"
        if self.equals and normalise(answer) not in {normalise(right) for right in self.equals}:
            return f"is not {self.equals[0]!r}"
        if self.regex is not None and re.search(self.regex, answer) is None:
            return f"does not match {self.regex!r}"
        if self.json_keys and (wrong := _json_problem(answer, self.json_keys)):
            return wrong
        words = len(answer.split())
        return f"has {words} words" if self.max_words is not None and words > self.max_words else None


def _has_words(answer: str, wanted: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(plain(wanted).casefold())}(?!\w)", plain(answer).casefold()) is not None


def _json_problem(answer: str, keys: Sequence[str]) -> str | None:
    try:
        value, words_around = first_value(answer)
    except NoValue as reason:
        return str(reason)
    if not isinstance(value, dict) or words_around:
        return "is not one JSON object alone"
    missing = [key for key in keys if key not in value]
    return f"has no key {missing[0]!r}" if missing else None
