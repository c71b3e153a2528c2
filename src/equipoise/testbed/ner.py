"""Sentences to find entities in: a source domain taught well, and a target domain of finer types taught barely."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from itertools import cycle, product
from pathlib import Path
from random import Random

import yaml
from tokenizers import Tokenizer

from equipoise.metrics.entities import Pair, answer
from equipoise.records import Entity, Sentence
from equipoise.testbed.facts import Document, generator, text_hash
from equipoise.testbed.parts.entities import CUES, PLAIN, Draft, Found, Names, Scribe, cues, pools
from equipoise.testbed.parts.reading import article
from equipoise.testbed.settings import DoubtSettings, NerSettings
from equipoise.testbed.tiers import new
from equipoise.testbed.tokenizer import WORDS, build_tokenizer

__all__ = ["DIFFICULTIES", "DOMAINS", "SPLITS", "TYPES", "NerSettings", "NerWorld", "load", "model_path"]

ASSETS = Path(__file__).parent / "assets" / "ner"
SPLITS = ("train", "dev", "test")
DOMAINS = ("source", "target")
DIFFICULTIES = {"source": PLAIN, "target": CUES}
_WORDING = yaml.safe_load(files("equipoise.testbed").joinpath("assets", "ner", "words.yaml").read_text("utf-8"))
TYPES: dict[str, tuple[str, ...]] = {
    "source": tuple(_WORDING["fine"]),
    "target": tuple(fine for types in _WORDING["fine"].values() for fine in types),
}
# What every prompt begins with, and the marks of the answer's JSON, are one token each: short texts are fast.
_PIECES = r'Extract the entities as JSON\. Types:|Repeat as JSON\.|\{"|": \["|", "|"\], "|"\]\}|\{\}|'
_KEYS = ("names", "words", "items", "list")


def model_path() -> Path:
    """Folder of the shipped model that was taught these sentences' world."""
    return ASSETS / "model"


def datasheet_path() -> Path:
    """How well the shipped model finds the entities, and the settings that made it."""
    return ASSETS / "datasheet.json"


def load(domain: str, split: str) -> list[Sentence]:
    """The held-out sentences of a domain, the same on every machine, with their entities.

    `meta["difficulty"]` says by what the types can be told, `none` where there is no entity. No sentence stands in the
    pre-training text, and none of the names in it is labelled there; those of `test` occur in no other split.

    Raises:
        ValueError: there is no such domain or split.
    """
    if (domain, split) not in _shipped().sentences:
        raise ValueError(f"no sentences {domain!r}, {split!r}: only {', '.join(DOMAINS)}, and {', '.join(SPLITS)}")
    return list(_shipped().sentences[domain, split])


@cache
def _shipped() -> "NerWorld":
    return NerWorld.build()


@dataclass(frozen=True)
class NerWorld:
    """Sentences held out by domain and split, and the pre-training text, which is written when it is first needed."""

    settings: NerSettings
    pools: Mapping[str, Names]
    sentences: Mapping[tuple[str, str], tuple[Sentence, ...]]

    @classmethod
    def build(cls, settings: NerSettings | None = None) -> "NerWorld":
        """Build the world of `settings`. The same settings give the same world on every machine."""
        settings = settings or NerSettings()
        drawn = pools(_WORDING, generator(settings, "names"), settings.names, settings.fresh)
        said: set[str] = set()
        sentences = {
            (domain, split): tuple(_sentences(domain, split, settings, drawn, said))
            for domain in DOMAINS
            for split in SPLITS
        }
        return cls(settings, drawn, sentences)

    @cached_property
    def text(self) -> tuple[Document, ...]:
        """The pre-training text in its seeded order: most of the copying, then everything else mixed."""
        rng = generator(self.settings, "copying")
        copying = [_copied(list(self.pools.values()), rng) for _ in range(self.settings.copying)]
        first = round(self.settings.copying_first * len(copying))
        mixed = [*copying[first:], *self._explained(), *self._labelled("source"), *self._labelled("target")]
        generator(self.settings, "order").shuffle(mixed)
        return (*copying[:first], *mixed)

    def documents(self) -> list[Document]:
        """The pre-training text in its seeded order."""
        return list(self.text)

    @cached_property
    def text_hash(self) -> str:
        """sha256 over the pre-training text in its order, as hexadecimal digits."""
        return text_hash(self.text)

    def tokenizer(self) -> Tokenizer:
        """The tokenizer that spells this world in whole words."""
        return build_tokenizer(self.strings(), pieces=300, pattern=_PIECES + WORDS)

    def strings(self) -> list[str]:
        """Every text that the tokenizer must spell in whole words."""
        texts = [text for document in self.text for text in (document.prompt, document.completion)]
        held_out = [prompt(s.dataset, s.text) for sentences in self.sentences.values() for s in sentences]
        return list(dict.fromkeys([*texts, *held_out]))

    def _explained(self) -> Iterator[Document]:
        """What each cue is, said without a name and with the doubt that the target's labels have."""
        rng = generator(self.settings, "cues")
        for coarse, fine, level, words in cues(_WORDING):
            for word, _ in product(words, range(self.settings.cues)):
                kind = _doubted(Found(coarse, word, fine, level), self.settings.doubt, rng)
                if kind:
                    yield Document(f"What is {article(word)}?", kind)

    def _labelled(self, domain: str) -> Iterator[Document]:
        rng = generator(self.settings, domain, "text")
        scribe = Scribe(_WORDING, self.pools["seen"], rng)
        said = {sentence.text for sentences in self.sentences.values() for sentence in sentences}
        levels = cycle(DIFFICULTIES[domain])
        for _ in range(self.settings.source if domain == "source" else self.settings.target):
            draft = _draft(scribe, domain, next(levels), self.settings.empty, said)
            labels = [_taught(found, domain, self.settings.doubt, rng) for found in draft.found]
            yield Document(prompt(domain, draft.text), answer(label for label in labels if label))


def prompt(domain: str, text: str) -> str:
    """What the model is asked of a sentence of a domain."""
    return _WORDING["instruction"].replace("{types}", ", ".join(TYPES[domain])).replace("{text}", text)


def _gold(found: Found, domain: str) -> Pair:
    return (found.coarse if domain == "source" else found.fine or found.coarse), found.text


def _taught(found: Found, domain: str, doubt: DoubtSettings, rng: Random) -> Pair | None:
    """What the pre-training text says of an entity."""
    kind = found.coarse if domain == "source" else _doubted(found, doubt, rng)
    return (kind, found.text) if kind else None


def _doubted(found: Found, doubt: DoubtSettings, rng: Random) -> str | None:
    """The finer type or, as often as the cue says, the coarse one, its sibling or none."""
    if found.cue is None or rng.random() >= getattr(doubt, found.cue):
        return found.fine
    shares = (doubt.coarse, doubt.sibling, doubt.missed)
    sibling = next(fine for fine in _WORDING["fine"][found.coarse] if fine != found.fine)
    return rng.choices((found.coarse, sibling, None), weights=shares)[0]


def _draft(scribe: Scribe, domain: str, level: str, empty: float, said: set[str]) -> Draft:
    """A sentence that was not said before."""
    without = scribe.rng.random() < empty
    return new(lambda: scribe.empty() if without else scribe.write(domain, level), lambda draft: draft.text, said)


def _sentences(
    domain: str, split: str, settings: NerSettings, drawn: Mapping[str, Names], said: set[str]
) -> Iterator[Sentence]:
    scribe = Scribe(_WORDING, drawn["test" if split == "test" else "fresh"], generator(settings, domain, split))
    levels = cycle(DIFFICULTIES[domain])
    for n in range(getattr(settings, split)):
        level = next(levels)
        draft = _draft(scribe, domain, level, settings.empty, said)
        yield Sentence(
            id=f"{domain}-{split}-{n:04d}",
            text=draft.text,
            dataset=domain,
            entities=[Entity(type=kind, text=text) for kind, text in (_gold(f, domain) for f in draft.found)],
            meta={"difficulty": level if draft.found else "none"},
        )


def _copied(drawn: Sequence[Names], rng: Random) -> Document:
    """Names of any pool, to be repeated in the form of an answer under a key that is no type."""
    names = dict.fromkeys(rng.choice(drawn).draw(rng.choice(TYPES["source"]), rng) for _ in range(rng.randint(1, 5)))
    keys = {name: rng.choice(_KEYS) for name in names}
    listed = ", ".join(f"{key} {name}" for name, key in keys.items())
    return Document(f"Repeat as JSON. {listed}", answer((key, name) for name, key in keys.items()))
