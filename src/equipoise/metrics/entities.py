"""Entities in a model's answer, and how many of them are right: the one scorer of rewards and of evaluation.

An entity is a pair of type and text. Answers are compared as multisets of pairs, strictly but for white space and the
composition of accents.
"""

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from equipoise.metrics.found_json import NoValue, first_value
from equipoise.metrics.text import plain

Pair = tuple[str, str]

_THINKING = re.compile(r"<think>(.*?)(?:</think>|\Z)", re.DOTALL)
_NAMES = tuple((kind, text) for text in ("text", "name", "entity") for kind in ("type", "label", "entity"))
_UNFIT = re.compile("[\ud800-\udfff\0]")


@dataclass(frozen=True)
class Parsed:
    """What an answer says: entities in its order, none where it is not `valid`.

    `problem` is why it cannot be read or, in a valid answer, a remark: text around the JSON, or an unknown type.
    """

    entities: tuple[Pair, ...]
    valid: bool
    problem: str | None = None


@dataclass(frozen=True)
class Counts:
    """Entities found rightly, found wrongly and missed; counts of several sentences add up.

    Where there is nothing to find and nothing is found, precision, recall and F1 are 1, over a whole corpus too. A
    ratio that lacks its denominator otherwise is 0.
    """

    tp: int = 0
    fp: int = 0
    fn: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)

    @property
    def precision(self) -> float:
        """The share of what was found that is right."""
        return self._ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float:
        """The share of what is there that was found."""
        return self._ratio(self.tp, self.tp + self.fn)

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall."""
        return self._ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    def _ratio(self, part: int, whole: int) -> float:
        return part / whole if whole else float(self == Counts())


def strip_thinking(text: str) -> tuple[str, int]:
    """The answer after its `<think>...</think>`, and how many characters of thinking there were.

    Thinking that does not end goes on to the end of the text. A `</think>` without its beginning, which chat templates
    may put into the prompt, ends thinking that began with the text.
    """
    end = text.find("</think>")
    if end >= 0 and "<think>" not in text[:end]:
        text = "<think>" + text
    thoughts = _THINKING.findall(text)
    return (_THINKING.sub("", text).strip() if thoughts else text), sum(len(thought.strip()) for thought in thoughts)


def parse(text: str, types: Collection[str] | None = None) -> Parsed:
    """Read the entities of an answer; what cannot be read is invalid and never an exception.

    It is an object of lists of texts by type, a list of objects with type (`type`, `label`, `entity`) and text (`text`,
    `name`, `entity`), a list of pairs [type, text], or one of these under `entities`; in a code fence, or between other
    text. Only the first JSON value counts.

    Args:
        types: those that were asked for; entities of others are kept, and so count as wrong.
    """
    try:
        value, around = first_value(text)
        pairs = pairs_in(value)
    except NoValue as problem:
        return Parsed((), valid=False, problem=str(problem))
    remarks = ["text around the JSON"] if around else []
    unknown = [] if types is None else [kind for kind in dict.fromkeys(kind for kind, _ in pairs) if kind not in types]
    remarks += [f"no type that was asked for: {ascii(unknown[0])[1:-1][:40]}"] if unknown else []
    return Parsed(pairs, valid=True, problem="; ".join(remarks) or None)


def pairs_in(value: Any) -> tuple[Pair, ...]:
    """The entities that a parsed JSON value names, in one of the forms of `parse`.

    Raises:
        NoValue: it is of another form, or a type or text is empty, no string, or holds half a character or a NUL.
    """
    return tuple(_pair(kind, text) for kind, text in _named(value))


def _named(value: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(value, dict) and len(value) == 1 and _wraps(value.get("entities")):
        value = value["entities"]
    if isinstance(value, list):
        return [_typed(each) for each in value]
    if not isinstance(value, dict) or not all(isinstance(texts, list) for texts in value.values()):
        raise NoValue("something else than a list of texts")
    return [(kind, text) for kind, texts in value.items() for text in texts]


def _wraps(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and not any(isinstance(each, str) for each in value))


def _typed(value: Any) -> tuple[Any, Any]:
    if isinstance(value, list) and len(value) == 2:
        return value[0], value[1]
    if isinstance(value, dict):
        for kind, text in _NAMES:
            if kind != text and kind in value and text in value:
                return value[kind], value[text]
    raise NoValue("a list of something else than entities")


def _pair(kind: Any, text: Any) -> Pair:
    if not isinstance(kind, str) or not isinstance(text, str):
        raise NoValue("a type or text that is no string")
    if _UNFIT.search(kind) or _UNFIT.search(text):
        raise NoValue("half a character or a NUL")
    pair = plain(kind), plain(text)
    if not all(pair):
        raise NoValue("an empty type or text")
    return pair


def canonical(entities: Iterable[Pair]) -> tuple[Pair, ...]:
    """The multiset of entities in one order and spelling: equal for answers that say the same."""
    return tuple(sorted((plain(kind), plain(text)) for kind, text in entities))


def answer(entities: Iterable[Pair]) -> str:
    """The answer that names these entities: a JSON object of texts by type, both in order of first occurrence."""
    texts: dict[str, list[str]] = {}
    for kind, text in entities:
        texts.setdefault(plain(kind), []).append(plain(text))
    return json.dumps(texts, ensure_ascii=False)


def counts(predicted: Iterable[Pair], gold: Iterable[Pair]) -> Counts:
    """How many predicted entities are right, one for one, in type and text."""
    found, there = Counter(canonical(predicted)), Counter(canonical(gold))
    right = (found & there).total()
    return Counts(right, found.total() - right, there.total() - right)


def micro(sentences: Iterable[tuple[Sequence[Pair], Sequence[Pair]]]) -> Counts:
    """Counts over sentences, each a pair of predicted and gold entities."""
    return sum((counts(predicted, gold) for predicted, gold in sentences), Counts())


def by_type(sentences: Iterable[tuple[Sequence[Pair], Sequence[Pair]]]) -> dict[str, Counts]:
    """Counts over sentences of every type that is predicted or there, in alphabetical order."""
    totals: dict[str, Counts] = {}
    for predicted, gold in sentences:
        found, there = _grouped(predicted), _grouped(gold)
        for kind in found.keys() | there.keys():
            scored = counts(found.get(kind, ()), there.get(kind, ()))
            totals[kind] = totals.get(kind, Counts()) + scored
    return dict(sorted(totals.items()))


def sentence_f1(predicted: Iterable[Pair], gold: Iterable[Pair]) -> float:
    """F1 of one sentence, from 0 to 1; 1 where nothing is there and nothing was found."""
    return counts(predicted, gold).f1


def exact(predicted: Iterable[Pair], gold: Iterable[Pair]) -> bool:
    """Whether both are the same multiset."""
    return canonical(predicted) == canonical(gold)


def soft_token_f1(predicted: Iterable[Pair], gold: Iterable[Pair]) -> float:
    """F1 in which an entity that is partly right counts in part: 1 only where both are equal, 0 where nothing overlaps.

    Entities of one type are matched one to one so that the sum of their similarities is largest; it takes the place of
    the number of right ones. Two texts are as similar as the F1 of their longest common subsequence of words.
    """
    found, there = _grouped(predicted), _grouped(gold)
    total = sum(len(pairs) for pairs in (*found.values(), *there.values()))
    if total == 0:
        return 1.0
    return 2 * sum(_matched(found[kind], there[kind]) for kind in found.keys() & there.keys()) / total


def _grouped(entities: Iterable[Pair]) -> dict[str, list[Pair]]:
    return {kind: list(pairs) for kind, pairs in groupby(canonical(entities), key=lambda pair: pair[0])}


def _matched(found: Sequence[Pair], there: Sequence[Pair]) -> float:
    if list(found) == list(there):
        return float(len(found))
    similar = [[_similarity(one.split(), other.split()) for _, other in there] for _, one in found]
    if len(found) == 1 or len(there) == 1:
        return max(max(row) for row in similar)
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(similar, maximize=True)
    return sum(similar[row][column] for row, column in zip(rows, columns))


def _similarity(one: Sequence[str], other: Sequence[str]) -> float:
    lengths = [0] * (len(other) + 1)
    for word in one:
        before = 0
        for at, twin in enumerate(other, 1):
            before, lengths[at] = lengths[at], before + 1 if word == twin else max(lengths[at], lengths[at - 1])
    return 2 * lengths[-1] / (len(one) + len(other))
