"""Values in a text: its words in one spelling, numbers in figures, and dates whatever their form."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from equipoise.metrics.text import normalise

Kind = Literal["date", "number", "name", "phrase"]

_WORD = re.compile(
    r"(?<![\w.])-?\d{1,3}(?:[,\u00a0\u2009\u202f]\d{3})+(?:\.\d+)?(?!\d)|(?:(?<![\w)])-)?\d+(?:\.\d+)?|%"
    r"|(?:[^\W\d_]\.){2,}|[^\W\d_]+(?:['\u2019][^\W\d_]+)*"
)
_ARTICLES = frozenset(("a", "an", "the"))
_UNITS_TEXT = """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
    eighteen nineteen
"""
_UNITS = _UNITS_TEXT.split()
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_SMALL = {**{word: n for n, word in enumerate(_UNITS)}, **{word: 10 * n for n, word in enumerate(_TENS, 2)}}
_LARGEST = 10**18  # no one writes larger numbers in words
_ONE_OF_THEM = frozenset(("of", "that", "which", "who", "another", "can", "such"))
_BEFORE_ONE = frozenset(("the", "this", "that", "no", "any", "every", "each", "only", "which", "another"))

_MONTHS_TEXT = """
    january february march april may june july august september october november december
"""
_MONTHS = _MONTHS_TEXT.split()
_MONTH = "|".join([*_MONTHS, *(f"{name[:3]}\\.?" for name in _MONTHS), "sept\\.?"])
_DAY = r"(?P<d>\d{1,2})(?:st|nd|rd|th)?"
_YEAR = r"(?P<y>[1-9]\d{3})"
_DATES = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"\b(?P<y>[12]\d{3})-(?P<m>\d{1,2})-(?P<d>\d{1,2})\b",
        r"\b(?P<d>\d{1,2})[./](?P<m>\d{1,2})[./](?P<y>[12]\d{3})\b",
        rf"\b(?:the\s+)?{_DAY}\s+(?:of\s+)?(?P<name>{_MONTH})\b(?:,?\s+(?:of\s+)?{_YEAR}\b)?",
        rf"\b(?P<name>{_MONTH})\s+(?:the\s+)?{_DAY}\b(?!\d)(?:,?\s+(?:of\s+|in\s+)?{_YEAR}\b)?",
        rf"\b(?P<name>{_MONTH}),?\s+(?:of\s+)?{_YEAR}\b",
        r"(?<![\w.,/$€£-])(?P<y>[12]\d{3})(?:s\b)?(?![\w%/]|[.,]\d|-\d)",
    )
]

Date = tuple[int | None, int | None, int | None]


@dataclass(frozen=True)
class Word:
    """A word of a text, its one spelling, and where it stands."""

    norm: str
    raw: str
    start: int
    end: int

    @property
    def number(self) -> bool:
        return bool(re.match(r"-?\d", self.norm))


@dataclass(frozen=True)
class Value:
    """A value found in a text: a date as year, month and day, else as words."""

    what: Date | tuple[str, ...]
    start: int
    end: int


@lru_cache(maxsize=1024)
def words(text: str) -> tuple[Word, ...]:
    """Cut a text into words: case, accents, articles and possessives dropped, numbers in figures.

    >>> [word.norm for word in words("The two hundred and six bones; Brasília's 1,000.0")]
    ['206', 'bones', 'brasilia', '1000']
    """
    found = [_word(match) for match in _WORD.finditer(text)]
    return tuple(word for word in _numbers(found) if word.norm and not _is_article(word))


def _word(match: re.Match[str]) -> Word:
    raw = match[0]
    plain = "".join(char for char in unicodedata.normalize("NFKD", raw) if not unicodedata.combining(char))
    plain = re.sub(r"['\u2019]s$", "", plain)
    return Word(normalise(plain) if plain not in _ARTICLES else plain, raw, match.start(), match.end())


def _is_article(word: Word) -> bool:
    return word.raw in _ARTICLES or word.raw in ("The", "An", "A")


def _numbers(found: Sequence[Word]) -> list[Word]:
    """Write number words as figures: "two hundred and six" is 206, "8 million" 8000000, "percent" %."""
    out: list[Word] = []
    at = 0
    while at < len(found):
        end, value = _number(found, at)
        if end > at:
            out.append(Word(value, found[at].raw, found[at].start, found[end - 1].end))
            at = end
            continue
        word = found[at]
        ordinal = out and word.norm in ("st", "nd", "rd", "th") and out[-1].end == word.start and out[-1].number
        percent = word.norm == "percent" or (word.norm == "cent" and out and out[-1].norm == "per")
        if percent and word.norm == "cent":
            out.pop()
        if not ordinal:
            out.append(Word("%", word.raw, word.start, word.end) if percent else word)
        at += 1
    return out


def _number(found: Sequence[Word], at: int) -> tuple[int, str]:
    """Read the number that begins at a word: where it ends, and its figures; where it begins if there is none."""
    first = found[at]
    total, part, end = 0, 0, at
    if first.number:
        scales = [word for word in found[at + 1 : at + 2] if word.norm in _SCALES]
        if not scales:
            return at, ""
        return at + 2, normalise(f"{float(first.norm) * _SCALES[scales[0].norm]:.2f}")
    if first.norm == "one" and _is_no_number(found, at):
        return at, ""
    while end < len(found):
        name = found[end].norm
        if name in _SMALL and (part % 10 == 0 and (part % 100 != 10) and (part % 100 == 0 or _SMALL[name] < 10)):
            part += _SMALL[name]
        elif name in _SCALES and end > at:
            part, total = (part * 100, total) if name == "hundred" else (0, total + part * _SCALES[name])
        elif not (name == "and" and end > at and found[end - 1].norm in _SCALES and _follows(found, end)):
            break
        end += 1
        if total + part > _LARGEST:
            break
        complete = name == "zero" or (name in _SMALL and 0 < part % 100 < 20 and part % 10)
        if complete and not (end < len(found) and found[end].norm in _SCALES):
            break
    return (end, str(total + part)) if end > at else (at, "")


def _is_no_number(found: Sequence[Word], at: int) -> bool:
    after = found[at + 1].norm if at + 1 < len(found) else ""
    return after not in _SCALES and (after in _ONE_OF_THEM or (at > 0 and found[at - 1].raw.casefold() in _BEFORE_ONE))


def _follows(found: Sequence[Word], at: int) -> bool:
    return at + 1 < len(found) and found[at + 1].norm in _SMALL


def dates(text: str) -> list[Value]:
    """Find dates and years, as (year, month, day) with None for what is not said."""
    found: list[Value] = []
    for pattern in _DATES:
        for match in pattern.finditer(text):
            if not any(each.start < match.end() and match.start() < each.end for each in found):
                found.append(Value(_date(match), match.start(), match.end()))
    return sorted(found, key=lambda each: each.start)


def _date(match: re.Match[str]) -> Date:
    groups = match.groupdict()
    name = groups.get("name")
    month = _MONTHS.index(next(each for each in _MONTHS if each[:3] == name[:3].casefold())) + 1 if name else None
    numbers = {key: int(groups[key]) if groups.get(key) else None for key in "ymd"}
    return numbers["y"], month or numbers["m"], numbers["d"]


def within(date: Date, wanted: Date) -> bool:
    """Whether a date says at least what is wanted, as "18 March 2014" says 2014.

    A day and a month in figures may stand in either order.
    """
    year, month, day = date
    return any(
        all(want is None or want == said for said, want in zip(said, wanted))
        for said in ((year, month, day), (year, day, month) if day and month and day <= 12 else (year, month, day))
    )


def kind_of_value(text: str) -> Kind:
    """Tell of what kind a value is, by its form."""
    stripped = text.strip().strip(".")
    whole = [date for date in dates(stripped) if date.start == 0 and date.end >= len(stripped)]
    if whole:
        return "date"
    said = words(stripped)
    if said and said[0].number:
        return "number"
    return "name" if said and said[0].raw[:1].isupper() else "phrase"
