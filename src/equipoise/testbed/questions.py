"""Questions whose answers the second model knows well, half or not at all: reading (yes/no) and medical (A to D)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from tokenizers import Tokenizer

from equipoise.records import Question
from equipoise.testbed.facts import Document, generator, text_hash
from equipoise.testbed.parts.medical import Medical
from equipoise.testbed.parts.reading import Reading
from equipoise.testbed.settings import QuestionSettings
from equipoise.testbed.tiers import TIERS, Domain, Tier
from equipoise.testbed.tokenizer import WORDS_AND_OPTIONS, build_tokenizer

__all__ = ["DOMAINS", "TIERS", "QuestionSettings", "QuestionWorld", "Tier", "load", "model_path"]

DOMAINS = ("reading", "medical")
ASSETS = Path(__file__).parent / "assets" / "questions"


def model_path() -> Path:
    """Folder of the shipped model that was taught these questions' world."""
    return ASSETS / "model"


def strong_path() -> Path:
    """Folder of an adapter for the shipped model that taught it the facts which it lacked."""
    return ASSETS / "strong"


def datasheet_path() -> Path:
    """How many of the questions the shipped model answers rightly, and the settings that made it."""
    return ASSETS / "datasheet.json"


def load(domain: str) -> list[Question]:
    """The held-out questions of a domain, the same on every machine; `meta["tier"]` says how well each is known.

    A `group` is the fact (medical) or the word (reading) that decides the answer. No prompt of them stands in the
    pre-training text.

    Raises:
        ValueError: there is no such domain.
    """
    if domain not in DOMAINS:
        raise ValueError(f"no domain {domain!r}, only {' and '.join(DOMAINS)}")
    return [question for question in _shipped().questions if question.dataset == domain]


@cache
def _shipped() -> "QuestionWorld":
    return QuestionWorld.build()


@dataclass(frozen=True)
class QuestionWorld:
    """Questions held out, and the pre-training text that teaches their facts often, rarely or never.

    `lessons` state all of the facts, in other documents; an adapter trained on them makes the strong model.
    """

    settings: QuestionSettings
    questions: tuple[Question, ...]
    text: tuple[Document, ...]
    lessons: tuple[Document, ...]

    @classmethod
    def build(
        cls, settings: QuestionSettings | None = None, domains: Sequence[Domain] = (Reading(), Medical())
    ) -> "QuestionWorld":
        """Build the world of `settings`. The same settings give the same world on every machine."""
        settings = settings or QuestionSettings()
        taken: set[str] = set()
        contents = [domain.build(settings, taken) for domain in domains]
        questions = tuple(question for content in contents for question in content.questions)
        order = generator(settings, "order")
        practice = [document for content in contents for document in content.practice]
        order.shuffle(practice)
        first = round(settings.practice_first * len(practice))
        mixed = practice[first:] + [document for content in contents for document in content.documents]
        order.shuffle(mixed)
        lessons = tuple(document for content in contents for document in content.lessons)
        return cls(settings, questions, (*practice[:first], *mixed), lessons)

    def documents(self) -> list[Document]:
        """The pre-training text in its seeded order."""
        return list(self.text)

    @cached_property
    def text_hash(self) -> str:
        """sha256 over the pre-training text in its order, as hexadecimal digits."""
        return text_hash(self.text)

    def tokenizer(self) -> Tokenizer:
        """The tokenizer that spells this world in whole words."""
        return build_tokenizer(self.strings(), pieces=320, pattern=WORDS_AND_OPTIONS)

    def strings(self) -> list[str]:
        """Every text that the tokenizer must spell in whole words: also what pre-training never shows."""
        texts = [text for document in self.text for text in (document.prompt, document.completion)]
        return list(dict.fromkeys([*texts, *(question.prompt for question in self.questions)]))
