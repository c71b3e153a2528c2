"""From tags of words to entities, in whichever scheme they are spelled: IO, IOB1, IOB2, IOE1, IOE2, BIOES or BILOU."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from equipoise.errors import UserError

OUTSIDE = "O"
DOCS = "docs/extraction-data.md#schemes"
Chunk = tuple[str, int, int]

_SPELLINGS = {  # of an entity of one word, and of the first and last of several; others are I
    "IO": ("I", "I", "I"),
    "IOB2": ("B", "B", "I"),
    "IOB1": ("B", "B", "I"),  # right after one of its type, else as IO
    "IOE2": ("E", "I", "E"),
    "IOE1": ("E", "I", "E"),  # right before one of its type, else as IO
    "BIOES": ("S", "B", "E"),
    "BILOU": ("U", "B", "L"),
}
_PREFIXES = frozenset("BIELSU")


def chunks(tags: Sequence[str]) -> list[Chunk]:
    """The entities of a sentence as type, first word and the word after the last; one rule reads every scheme.

    An entity begins at B, S and U, and at any tag after O, after another type and after E, L, S and U.

    Raises:
        ValueError: a tag is neither `O` nor a prefix, a hyphen and a type.
    """
    found: list[Chunk] = []
    before_prefix = before = ""
    for at, tag in enumerate(tags):
        prefix, kind = _parts(tag)
        begins = prefix in ("B", "S", "U") or kind != before or before_prefix in ("E", "L", "S", "U")
        if prefix and begins:
            found.append((kind, at, at + 1))
        elif prefix:
            found[-1] = (kind, found[-1][1], at + 1)
        before_prefix, before = prefix, kind
    return found


def scheme_of(rows: Iterable[tuple[int, Sequence[str]]], where: Callable[[int, int], str]) -> tuple[str, list[str]]:
    """The scheme that spells most entities of a source as they are spelled there, and remarks.

    Args:
        rows: line and tags of each sentence.
        where: from a line and the place of a tag in its sentence to `file:line:field`.

    Raises:
        UserError: a tag is of no known scheme, or the prefixes belong to no scheme together.
    """
    first: dict[str, str] = {}
    wrong: Counter[str] = Counter(dict.fromkeys(_SPELLINGS, 0))
    total = 0
    for line, tags in rows:
        for at, tag in enumerate(tags):
            try:
                prefix, _ = _parts(tag)
            except ValueError:
                raise _unknown(f"the tag {ascii(tag)[:40]} is of no known scheme", where(line, at)) from None
            if prefix and prefix not in first:
                first[prefix] = where(line, at)
        found = chunks(tags)
        total += len(found)
        for scheme in _SPELLINGS:
            wrong[scheme] += sum(spelled != tags[start:end] for spelled, _, start, end in _respelled(found, scheme))
    if not total:
        return "IO", ["every word is tagged O"]
    fitting = [scheme for scheme, spelling in _SPELLINGS.items() if first.keys() <= {"I", *spelling}]
    if not fitting:
        raise _unknown(f"the prefixes {', '.join(first)} belong to no scheme together", [*first.values()][-1])
    scheme = min(fitting, key=wrong.__getitem__)
    remarks = ["I is the only prefix, so neighbours of one type are one entity"] if scheme == "IO" else []
    remarks += [f"{wrong[scheme]} of {total} entities are not spelled as {scheme} has it"] if wrong[scheme] else []
    return scheme, remarks


def _respelled(found: Sequence[Chunk], scheme: str) -> Iterable[tuple[list[str], str, int, int]]:
    single, first, last = _SPELLINGS[scheme]
    for i, (kind, start, end) in enumerate(found):
        after = i > 0 and found[i - 1][0] == kind and found[i - 1][2] == start
        before = i + 1 < len(found) and found[i + 1][0] == kind and found[i + 1][1] == end
        plainly = (scheme == "IOB1" and not after) or (scheme == "IOE1" and not before)
        prefixes = [single] if end - start == 1 else [first, *"I" * (end - start - 2), last]
        yield [f"{'I' if plainly else prefix}-{kind}" for prefix in prefixes], kind, start, end


def _parts(tag: str) -> tuple[str, str]:
    if tag == OUTSIDE:
        return "", ""
    prefix, _, kind = tag.partition("-")
    if prefix not in _PREFIXES or not kind:
        raise ValueError(tag)
    return prefix, kind


def _unknown(what: str, where: str) -> UserError:
    return UserError(
        what, where=where, fix="write O, B-TYPE and I-TYPE; the tag is the last column of its line", docs=DOCS
    )
