"""Sentences with people, places and organisations, called so or, for those who know their cues, by finer types."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import Any

from equipoise.testbed.names import names
from equipoise.testbed.parts.reading import article

CUES = ("clear", "fair", "weak", "faint")
PLAIN = ("cued", "bare", "open")  # what tells a source entity's type: a cue, the rest of the sentence, or nothing
_SLOT = re.compile(r"\{([plox])\}")
_KINDS = {"p": "person", "l": "place", "o": "organisation"}
_WORDS = {"first": "person", "last": "person", "place": "city", "org": "company"}  # the kinds of `testbed.names`
_OPEN_PEOPLE = 0.65  # share of entities that nothing tells of
_FINE_CUES = 0.4  # of a source entity's cues, those by which the target would know its finer type


@dataclass(frozen=True)
class Found:
    """An entity where it stands: its coarse type, its finer one where it has a cue for it, and that cue's kind."""

    coarse: str
    text: str
    fine: str | None = None
    cue: str | None = None


@dataclass(frozen=True)
class Draft:
    """A sentence with its entities in the order of the text."""

    text: str
    found: tuple[Found, ...]


class Names:
    """Names out of words that no other pool has; none twice in a sentence."""

    def __init__(self, words: Mapping[str, Sequence[str]], patterns: Mapping[str, Sequence[str]]) -> None:
        self.words = words
        self.patterns = patterns

    def draw(self, coarse: str, rng: Random) -> str:
        """A name of one to three words."""
        drawn = {kind: rng.choice(words) for kind, words in self.words.items()}
        other = rng.choice([word for word in self.words["org"] if word != drawn["org"]])
        return rng.choice(self.patterns[coarse]).format(**drawn, other=other)


def pools(wording: Mapping[str, Any], rng: Random, count: int, fresh: float) -> dict[str, Names]:
    """Names that the pre-training text labels (`seen`), others for train and dev (`fresh`), and others for `test`."""
    taken: set[str] = set()
    drawn = {kind: list(islice(names(named, rng, taken), count)) for kind, named in _WORDS.items()}
    held = max(2, round(fresh * count))
    cuts = {"test": slice(0, held), "fresh": slice(held, 2 * held), "seen": slice(2 * held, None)}
    return {
        pool: Names({kind: words[cut] for kind, words in drawn.items()}, wording["names"]) for pool, cut in cuts.items()
    }


class Scribe:
    """Writes sentences of both domains with names of one pool."""

    def __init__(self, wording: Mapping[str, Any], pool: Names, rng: Random) -> None:
        self.wording = wording
        self.pool = pool
        self.rng = rng
        self.fine = {coarse: list(types) for coarse, types in wording["fine"].items()}
        self.all_cues = [word for _, _, _, words in cues(wording) for word in words]
        self.cues = {(fine, level): words for _, fine, level, words in cues(wording)}

    def empty(self) -> Draft:
        """A sentence without an entity, though a cue stands in it."""
        frame = self.rng.choice(self.wording["empty"])
        while "{cue}" in frame:
            frame = frame.replace("{cue}", self.rng.choice(self.all_cues), 1)
        return Draft(self._timed(frame), ())

    def write(self, domain: str, level: str) -> Draft:
        """A sentence with entities, whose types can be told in the way that `level` says."""
        if domain == "target":
            return self._filled(self._frame(), lambda coarse, name: self._cued(coarse, name, level))
        if level == "open":
            return self._filled(self.rng.choice(self.wording["open"]), self._bare)
        return self._filled(self._frame(), self._known if level == "cued" else self._bare)

    def _frame(self) -> str:
        frames = self.rng.choices(self.wording["frames"], weights=(35, 40, 17, 8))[0]
        return self.rng.choice(frames)

    def _filled(self, frame: str, phrase: Callable[[str, str], tuple[Found, str]]) -> Draft:
        found: list[Found] = []

        def put(slot: re.Match[str]) -> str:
            coarse = _KINDS.get(slot[1]) or ("person" if self.rng.random() < _OPEN_PEOPLE else "organisation")
            name = self.pool.draw(coarse, self.rng)
            while any(name == other.text for other in found):
                name = self.pool.draw(coarse, self.rng)
            entity, said = phrase(coarse, name)
            found.append(entity)
            return said

        text = self._timed(_SLOT.sub(put, frame))
        return Draft(text.replace(",.", "."), tuple(found))

    def _bare(self, coarse: str, name: str) -> tuple[Found, str]:
        return Found(coarse, name), name

    def _known(self, coarse: str, name: str) -> tuple[Found, str]:
        if self.rng.random() < _FINE_CUES:
            return self._cued(coarse, name, self.rng.choice(CUES))
        return Found(coarse, name), self._said(coarse, self.rng.choice(self.wording["coarse"][coarse].split()), name)

    def _cued(self, coarse: str, name: str, level: str) -> tuple[Found, str]:
        fine = self.rng.choice(self.fine[coarse])
        return Found(coarse, name, fine, level), self._said(coarse, self.rng.choice(self.cues[fine, level]), name)

    def _said(self, coarse: str, cue: str, name: str) -> str:
        phrase = self.rng.choice(self.wording["phrases"][coarse])
        return phrase.format(cue=cue, a_cue=article(cue), name=name)

    def _timed(self, frame: str) -> str:
        time = self.rng.choice(self.wording["times"].split()) if self.rng.random() < 0.7 else ""
        if frame.startswith("{t}"):
            return frame.replace("{t}", f"{time} " if time else "")
        return frame.replace("{t}", f" {time}" if time else "")


def cues(wording: Mapping[str, Any]) -> list[tuple[str, str, str, list[str]]]:
    """The coarse and the finer type, how sure the labels are, and the words of all kinds of cues."""
    return [
        (coarse, fine, level, words[level].split())
        for coarse, types in wording["fine"].items()
        for fine, words in types.items()
        for level in CUES
    ]
