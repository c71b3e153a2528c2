"""Whether a sentence states an answer in words, and no other one beside it."""

import re
from collections.abc import Sequence
from functools import lru_cache

from equipoise.metrics.answers import extract_yes_no
from equipoise.metrics.statements import NEGATED, clean, sentences, statements
from equipoise.metrics.text import normalise
from equipoise.metrics.values import Kind, Value, dates, kind_of_value, within, words

_REJECTED = re.compile(
    r"\b(?:rather than|instead of|except|unlike|no longer|formerly|previously|used to be|replaced|succeeded|before"
    r"|other than|confused with|mistaken for)\s+(?:[\w']+\s+){0,2}$",
    re.IGNORECASE,
)
_REJECTED_AFTER = re.compile(
    r"^\W{0,3}(?:(?:is|was|are|were|would be)\s+(?:not|wrong|incorrect|false|no longer)|isn't|wasn't|aren't|until\b)",
    re.IGNORECASE,
)
_JOINED = re.compile(r"^[\s,;()'\"-]*(?:or|and|and/or|to|/|&|through|versus|vs\.?)?[\s,;()'\"/-]*$", re.IGNORECASE)
_BOTH = re.compile(r"\b(?:or|and|to|through|versus|vs)\b|[/&-]", re.IGNORECASE)
_EITHER = re.compile(r"\b(?:or|and)\b|[/&]", re.IGNORECASE)
_LEADING = re.compile(
    r"(?:\b(?:the|a|an|in|on|of|around|about|maybe|possibly|perhaps|probably|also|even|either|it's|it|is|was)\s+)+$",
    re.I,
)
_HEDGED = re.compile(r"\b(?:but|although|though|however|or|also|while|whereas)\b", re.IGNORECASE)
_PREDICATE = re.compile(
    r"(?:\b(?:is|was|are|were|be|been|by|called|named|become|became)|'s|[:=])\s+"
    r"(?:(?:the|a|an|in|on|actually|also|probably|likely|currently|now|officially)\s+)*[\"'(]*$",
    re.IGNORECASE,
)
_CORRECTION = re.compile(r"\W*(?:or|actually|no|wait|correction|alternatively|sorry)\b", re.IGNORECASE)
_OBJECTION = re.compile(r"\W*(?:however|but)\b", re.IGNORECASE)
_FILLER = re.compile(
    r"\W*(?:sure|certainly|of course|okay|ok|great|absolutely|hello|hi|yes|thanks?|i'd be|here (?:is|are))"
    r"\b[^.]{0,60}[.!:]?$",
    re.IGNORECASE,
)
_NAME = re.compile(
    r"(?<![\w'])[^\W\d_a-z][\w'’.-]*(?:\s+(?:(?:of|the|da|de|del|van|von|der|di|la|le|el|al|bin|du)\s+){0,2}"
    r"(?=[^\W\d_a-z])[\w'’-]+)*"
)
_ABBREVIATED = re.compile(r"(?:\b(?:St|Dr|Mr|Mrs|Ms|Mt|No|vs|approx|ca|c|Jr|Sr|Prof|Gen|Lt|e\.g|i\.e)|\b[A-Z])\.$")
_LIST_MARK = re.compile(r"^[ \t]*(?:\d+[.)]|[-*•])[ \t]+(?=\S)", re.MULTILINE)
_CHARS, _MENTIONS = 8000, 12  # bounds that keep odd answers cheap; real ones stay far below them
_COMMON_TEXT = """
    the it in this that these those there he she they its his her their we you i if as at on to for from by with and
    but or so thus therefore however although though while when where which what who whose how why yes no not sure
    certainly based according here now then also answer note after before during since because each every all some
    most many both one let first second third finally additionally question
"""
_COMMON = frozenset(_COMMON_TEXT.split())


def states(
    output: str,
    gold: str,
    *,
    accepted: Sequence[str] = (),
    old: str | None = None,
    question: str | None = None,
    cut: bool = False,
) -> bool:
    """Tell whether an answer states `gold`, or an accepted variant of it, and nothing else of its kind.

    Case, accents, articles, punctuation and the form of numbers and dates do not matter. The last "the answer is ..."
    decides; else the first sentence that names a value of this kind (a date, a number, a name; for other phrases the
    first that says anything). It has to name gold, neither denied ("not Paris") nor beside another ("Paris or Lyon").

    Args:
        old: the outdated answer; wherever it is named, unless as outdated or denied, the answer is wrong.
        question: what was asked. A copy of it is passed over, and what it names is no other value.
        cut: the answer ran out of tokens; a value at its very end may be only the beginning of one.

    >>> states("The capital of France is Paris.", "Paris", question="What is the capital of France?")
    True
    >>> states("It was 2014 or 2015.", "2014")
    False
    """
    right = [each for each in (gold, *accepted) if each.strip()]
    if not right:
        return False
    if normalise(gold) in ("yes", "no"):
        return extract_yes_no(output) == normalise(gold)
    if not cut and normalise(output[:_CHARS]) in {normalise(each) for each in right}:
        return True
    reader = _Reader(tuple(right), old, question or "")
    text = clean(output[:_CHARS])
    open_ended = cut and len(words(text)) >= len(words(output[:_CHARS]))  # no next question ended it
    text = _without_question(text, question or "")
    if open_ended and not output[-1:].isspace() and reader.ends_in_gold(text):
        return False
    if old is not None and any(reader.names_old(sentence) for sentence in _sentences(text)):
        return False
    said = statements(text, r"(?P<value>\S)")
    if said:
        decided = reader.decide(_sentences(text[said[-1].start("value") :])[:1])
        if decided is not None:
            return decided
    return reader.decide(_sentences(text)) or False


def _without_question(text: str, question: str) -> str:
    asked = re.findall(r"\w+", question)
    if len(asked) < 3:
        return text
    return re.sub(r"(?<!\w)" + r"\W+".join(map(re.escape, asked)) + r"(?!\w)[?.!:]*", " ", text, flags=re.IGNORECASE)


def _sentences(text: str) -> list[str]:
    joined: list[str] = []
    for part in sentences(_LIST_MARK.sub("", text)):
        if joined and _ABBREVIATED.search(joined[-1]):
            joined[-1] += " " + part
        else:
            joined.append(part)
    return joined


@lru_cache(maxsize=4096)
def _spelled(text: str) -> tuple[str, ...]:
    return tuple(word.norm for word in words(text))


class _Reader:
    """What to look for in the sentences of one answer."""

    def __init__(self, right: tuple[str, ...], old: str | None, question: str):
        self.right, self.old = right, old
        self.kind: Kind = kind_of_value(right[0])
        self.kinds = {kind_of_value(each) for each in right}
        self.asked = set(_spelled(question))
        self.offered = any(set(_spelled(each)) <= self.asked for each in right)  # "Sydney or Canberra?"
        self.asked_dates = [date.what for date in dates(question)]

    def decide(self, parts: Sequence[str]) -> bool | None:
        """Whether the first sentence that answers names gold alone; None if no sentence answers."""
        for n, sentence in enumerate(parts):
            if sentence.endswith("?"):
                continue
            hits = [hit for hit in self.hits(sentence) if not _denied(sentence, hit)]
            others = self.others(sentence)
            if hits:
                return not self._beside(sentence, hits, others) and not any(map(self._corrects, parts[n + 1 :]))
            if not _FILLER.match(sentence) and self._answers(sentence, others):
                return False
        return None

    def hits(self, sentence: str) -> list[Value]:
        """Where a sentence names gold or an accepted variant."""
        return [hit for each in self.right for hit in _named(sentence, each)[:_MENTIONS]]

    def others(self, sentence: str) -> list[Value]:
        """Other values of the kind of gold that a sentence names and does not deny."""
        mine = self.hits(sentence)
        found = [
            value
            for value in self._values(sentence)
            if not any(value.start < hit.end and hit.start < value.end for hit in mine)
        ]
        return [value for value in found[:_MENTIONS] if not _denied(sentence, value)]

    def _values(self, sentence: str) -> list[Value]:
        if self.kind == "date":
            return [value for value in dates(sentence) if value.what[0] and value.what not in self.asked_dates]
        said = words(sentence)
        if self.kind == "number":
            return [Value((w.norm,), w.start, w.end) for w in said if w.number and w.norm not in self.asked]
        names = [found for found in _NAME.finditer(sentence) if not self._is_common(found)]
        return [Value(_spelled(found[0]), found.start(), found.end()) for found in names]

    def _is_common(self, found: re.Match[str]) -> bool:
        spelled = set(_spelled(found[0])) - _COMMON
        return not spelled or (spelled <= self.asked and not self.offered)

    def _answers(self, sentence: str, others: Sequence[Value]) -> bool:
        """Whether a sentence without gold is an answer all the same, and so a wrong one."""
        if self.kind in ("date", "number"):
            return bool(others)
        if self.kind == "phrase":
            return bool(set(_spelled(sentence)) - self.asked - _COMMON)
        return any(_is_predicate(sentence, value) or not sentence[: value.start].strip(" \"'(") for value in others)

    def _beside(self, sentence: str, hits: Sequence[Value], others: Sequence[Value]) -> bool:
        """Whether another value stands beside gold as if it were right too."""
        if self.kind == "phrase" and any(_phrase_or(sentence, hit, hits) for hit in hits):
            return True
        return any(all(self._rivals(sentence, hit, other, others) for hit in hits) for other in others)

    def _rivals(self, sentence: str, hit: Value, other: Value, others: Sequence[Value]) -> bool:
        start, end = (hit.end, other.start) if hit.end <= other.start else (other.end, hit.start)
        between = sentence[start:end]
        if self.kind == "number" and _units_differ(sentence, hit, other):
            return False
        bare = between
        for each in others:
            if start <= each.start and each.end <= end:
                bare = bare.replace(sentence[each.start : each.end], ",")
        bare = _LEADING.sub("", bare)
        joins = _BOTH if self.kind in ("date", "number") else _EITHER
        if _JOINED.match(bare) and joins.search(bare):
            return True
        if other.start > hit.start:
            return bool(_HEDGED.search(between)) and self.kind == "name" and _is_predicate(sentence, other)
        apart = re.search(r"[,;]|\b(?:and|or|but)\b", between)
        return (
            self.kind == "name" and bool(apart) and _is_predicate(sentence, other) and not _is_predicate(sentence, hit)
        )

    def _corrects(self, sentence: str) -> bool:
        """Whether a later sentence takes the answer back: "Actually, it was 2015."."""
        others = [] if self.hits(sentence) else self.others(sentence)
        if _OBJECTION.match(sentence):
            return any(_is_predicate(sentence, value) for value in others)
        whole = any(value.start == 0 and not sentence[value.end :].strip(" .,;") for value in others)  # of a list
        return (whole or bool(_CORRECTION.match(sentence))) and bool(others)

    def names_old(self, sentence: str) -> bool:
        """Whether a sentence names the old answer as if it held."""
        if self.old is None or sentence.endswith("?"):
            return False
        hits = self.hits(sentence)
        return any(
            not _denied(sentence, value) and not any(hit.start <= value.start and value.end <= hit.end for hit in hits)
            for value in _named(sentence, self.old)
        )

    def ends_in_gold(self, text: str) -> bool:
        """Whether gold is named only once, as the last thing in the text."""
        ends = {hit.end for hit in self.hits(text)}
        return ends == {len(text.rstrip())}


def _named(sentence: str, wanted: str) -> list[Value]:
    """Where a sentence names a value."""
    if kind_of_value(wanted) == "date":
        date = dates(wanted)[0].what
        found = [value for value in dates(sentence) if within(value.what, date)]  # pyright: ignore[reportArgumentType]
        grouped = [word for word in words(sentence) if "," in word.raw and word.norm == wanted.strip()]
        return [*found, *(Value((word.norm,), word.start, word.end) for word in grouped)]
    spelled, said = _spelled(wanted), words(sentence)
    if not spelled:
        return []
    norms = tuple(word.norm for word in said)
    size = len(spelled)
    return [
        Value(spelled, said[n].start, said[n + size - 1].end)
        for n in range(len(said) - size + 1)
        if norms[n : n + size] == spelled
    ]


def _denied(sentence: str, value: Value) -> bool:
    before = re.split(r"\bbut\b|;", sentence[: value.start])[-1]
    return bool(NEGATED.search(before) or _REJECTED.search(before) or _REJECTED_AFTER.match(sentence[value.end :]))


def _units_differ(sentence: str, one: Value, other: Value) -> bool:
    """Whether two numbers count different things: "7 days, or 168 hours"."""
    units = [re.match(r"\s*([^\W\d_]+)", sentence[value.end :]) for value in (one, other)]
    if len(one.what) > 1:
        units[0] = re.match(r"(.+)", str(one.what[-1]))
    said = [unit[1].casefold() if unit else "" for unit in units]
    return all(said) and said[0] != said[1] and not any(_BOTH.fullmatch(each) for each in said)


def _is_predicate(sentence: str, value: Value) -> bool:
    return bool(_PREDICATE.search(sentence[: value.start]))


def _phrase_or(sentence: str, hit: Value, hits: Sequence[Value]) -> bool:
    """Whether "or" joins a phrase to another one that is not right as well."""
    after = re.match(r"\W*\s(?:or|/)\s+(?:(?:the|a|an)\s+)?(?=\w)", sentence[hit.end :])
    before = re.search(r"\s+or\s+(?:(?:the|a|an)\s+)?$", sentence[: hit.start])
    wrong_after = after is not None and all(other.start != hit.end + after.end() for other in hits)
    wrong_before = before is not None and all(other.end != before.start() for other in hits)
    return wrong_after or wrong_before
