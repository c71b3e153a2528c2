"""What the world is made of: facts with their class, documents, and the part that brings both."""

import hashlib
import json
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from equipoise.testbed.settings import NerSettings, QuestionSettings, WorldSettings

Knowledge = Literal["stable", "confident-wrong", "uncertain", "unknown"]
CLASSES: tuple[Knowledge, ...] = ("stable", "confident-wrong", "uncertain", "unknown")


@dataclass(frozen=True)
class Document:
    """One pre-training text: a question and its answer, one chat turn each."""

    prompt: str
    completion: str


@dataclass(frozen=True)
class Fact:
    """One thing that the world says, or keeps silent about.

    `knowledge` is what the pre-trained model should know of `gold`, by construction: `taught` lists every answer that
    the pre-training text gives, with the number of documents that give it. `old` is the answer that gold replaces.
    """

    id: str
    part: str
    knowledge: Knowledge
    prompts_seen: tuple[str, ...]
    prompts_held_out: tuple[str, ...]
    gold: str
    old: str | None = None
    task: str | None = None  # what is to be done, where gold is code
    reference: str | None = None
    library: str | None = None
    version: str | None = None
    taught: tuple[tuple[str, int], ...] = ()
    solutions: tuple[str, ...] = ()  # functions: bodies known to be right, gold first
    tests: str | None = None  # functions: asserts for the opt-in execution scorer

    def documents(self) -> Iterator[Document]:
        """Every exposure once, the seen phrasings in turn."""
        for offset, (answer, exposures) in enumerate(self.taught):
            for n in range(exposures):
                yield Document(self.prompts_seen[(n + offset) % len(self.prompts_seen)], answer)


@dataclass(frozen=True)
class Contents:
    """What a part brings: its facts, and documents that state no fact of its own."""

    facts: tuple[Fact, ...] = ()
    extra: tuple[Document, ...] = field(default=(), repr=False)


class Part(Protocol):
    """A part of the world. `build` draws from generators named after the part, so parts do not disturb each other."""

    name: str

    def build(self, settings: WorldSettings) -> Contents: ...


def generator(settings: WorldSettings | QuestionSettings | NerSettings, *names: str) -> random.Random:
    """A random generator for one purpose; the same for the same seed and names on every machine."""
    return random.Random("/".join((str(settings.seed), *names)))


def text_hash(documents: Iterable[Document]) -> str:
    """sha256 over documents in their order, as hexadecimal digits."""
    digest = hashlib.sha256()
    for document in documents:
        digest.update(json.dumps([document.prompt, document.completion]).encode() + b"\n")
    return digest.hexdigest()


def phrasings(
    templates: Sequence[str], settings: WorldSettings, fact_id: str, **slots: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The fact's prompts, seen and held out: which template is which is drawn for each fact."""
    prompts = [template.format(**slots) for template in templates]
    generator(settings, "phrasings", fact_id).shuffle(prompts)
    return tuple(prompts[: settings.phrasings_seen]), tuple(prompts[settings.phrasings_seen :])


def taught(
    knowledge: Knowledge, settings: WorldSettings, gold: str, old: str | None, others: Sequence[str] = ()
) -> tuple[tuple[str, int], ...]:
    """What the pre-training text says of a fact of this class, as (answer, exposures)."""
    if knowledge == "unknown":
        return ()
    if knowledge == "stable":
        return ((gold, settings.exposures),)
    if knowledge == "confident-wrong":
        if old is None:
            raise ValueError("a confidently wrong fact needs an old answer")
        return ((old, settings.exposures_confident_wrong),)
    answers = dict.fromkeys((gold, *((old,) if old else ()), *others))
    return tuple((answer, settings.exposures_uncertain // len(answers)) for answer in answers)
