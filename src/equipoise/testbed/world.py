"""The world: facts whose class is known by construction, and the pre-training text that teaches them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from tokenizers import Tokenizer

from equipoise.testbed import templates
from equipoise.testbed.facts import Contents, Document, Fact, Knowledge, Part, generator, text_hash
from equipoise.testbed.parts.api import ApiChanges, ApiFacts
from equipoise.testbed.parts.archive import Archive
from equipoise.testbed.parts.functions import Functions
from equipoise.testbed.settings import WorldSettings
from equipoise.testbed.tokenizer import build_tokenizer

__all__ = ["PARTS", "Contents", "Document", "Fact", "Knowledge", "Part", "World", "WorldSettings", "model_path"]

PARTS: tuple[Part, ...] = (ApiChanges(), ApiFacts(), Functions(), Archive())
ASSETS = Path(__file__).parent / "assets"


def model_path() -> Path:
    """Folder of the shipped pre-trained model and its tokenizer."""
    return ASSETS / "model"


def datasheet_path() -> Path:
    """What the shipped model knows, measured, and the settings that made it."""
    return ASSETS / "datasheet.json"


@dataclass(frozen=True)
class World:
    """Everything that is true in the testbed, and everything that its pre-training text says."""

    settings: WorldSettings
    facts: tuple[Fact, ...]
    extra: tuple[Document, ...]

    @classmethod
    def build(cls, settings: WorldSettings | None = None, parts: Sequence[Part] = PARTS) -> "World":
        """Build the world of `settings`. The same settings give the same world on every machine.

        Raises:
            ValueError: two facts share an id or a prompt, so the text would contradict itself by accident.
        """
        settings = settings or WorldSettings()
        contents = [part.build(settings) for part in parts]
        facts = tuple(fact for content in contents for fact in content.facts)
        _refuse_clashes(facts)
        extra = tuple(document for content in contents for document in content.extra)
        return cls(settings, facts, extra + _practice(facts, settings))

    def documents(self) -> list[Document]:
        """The pre-training text in its seeded order."""
        documents = [document for fact in self.facts for document in fact.documents()]
        documents.extend(self.extra)
        generator(self.settings, "order").shuffle(documents)
        return documents

    @cached_property
    def text_hash(self) -> str:
        """sha256 over the pre-training text in its order, as hexadecimal digits."""
        return text_hash(self.documents())

    @property
    def news(self) -> tuple[Fact, ...]:
        """Archive facts that the news contradict: the archive taught `old`, the news say `gold`."""
        return tuple(fact for fact in self.facts if fact.part == Archive.name and fact.old is not None)

    def select(self, part: str | None = None, knowledge: Knowledge | None = None) -> list[Fact]:
        """The facts of a part, of a class, or of both."""
        return [f for f in self.facts if part in (None, f.part) and knowledge in (None, f.knowledge)]

    def tokenizer(self) -> Tokenizer:
        """The tokenizer that spells this world in whole words."""
        return build_tokenizer(self.strings())

    def strings(self) -> list[str]:
        """Every text that the tokenizer must spell in whole words: also what pre-training never shows."""
        texts = [text for document in self.documents() for text in (document.prompt, document.completion)]
        for fact in self.facts:
            texts += [*fact.prompts_seen, *fact.prompts_held_out, fact.gold, *fact.solutions]
            texts += [fact.old] if fact.old else []
        return list(dict.fromkeys(texts))


@cache
def shipped_world() -> World:
    """The world that the shipped model was taught, built once a process."""
    return World.build()


def _practice(facts: Sequence[Fact], settings: WorldSettings) -> tuple[Document, ...]:
    """Copying every answer without its question: each can then be said, and none is favoured for being known."""
    answers = dict.fromkeys(
        answer
        for fact in facts
        if not fact.solutions
        for answer in (fact.gold, fact.old, *(answer for answer, _ in fact.taught))
        if answer
    )
    return tuple(
        Document(templates.PRACTICE[n % len(templates.PRACTICE)].format(text=answer), answer)
        for answer in answers
        for n in range(settings.exposures_practice)
    )


def _refuse_clashes(facts: Sequence[Fact]) -> None:
    owners: dict[str, str] = {}
    for n, fact in enumerate(facts):
        for key in (fact.id, *fact.prompts_seen, *fact.prompts_held_out):
            if key in owners:
                raise ValueError(f"fact {n} ({fact.id}) and {owners[key]} both claim {key!r}")
            owners[key] = fact.id
