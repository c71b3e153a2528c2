"""An archive about invented countries, people and things, and the news that contradict part of it."""

import random
from itertools import islice

from equipoise.testbed import templates
from equipoise.testbed.facts import Contents, Document, Fact, Knowledge, generator, phrasings, taught
from equipoise.testbed.names import KINDS, names
from equipoise.testbed.settings import WorldSettings

RELATIONS = {
    "capital": ("the capital of {}", "country", "city"),
    "president": ("the president of {}", "country", "person"),
    "language": ("the language spoken in {}", "country", "language"),
    "export": ("the main export of {}", "country", "mineral"),
    "founder": ("the founder of {}", "company", "person"),
    "product": ("the best known product of {}", "company", "thing"),
    "river": ("the river that runs through {}", "city", "river"),
    "mayor": ("the mayor of {}", "city", "person"),
    "inventor": ("the inventor of the {}", "thing", "person"),
    "author": ("the author of the {}", "work", "person"),
    "champion": ("the champion of the {}", "contest", "person"),
    "host": ("the host city of the {}", "contest", "city"),
}
_OBJECTS_A_KIND = 40
_ALTERNATIVES = 4  # answers that an uncertain fact is given


class Archive:
    """Facts of all four classes, spread over the relations; `gold` is what the news say where `old` is set."""

    name = "archive"

    def build(self, settings: WorldSettings) -> Contents:
        rng = generator(settings, self.name)
        taken: set[str] = set()
        pools = {kind: list(islice(names(kind, rng, taken), _OBJECTS_A_KIND)) for kind in KINDS}
        subjects = {kind: names(kind, rng, taken) for kind in KINDS}
        facts = []
        for n, knowledge in enumerate(_classes(settings, rng)):
            relation = list(RELATIONS)[n % len(RELATIONS)]
            what, kind, answers = RELATIONS[relation]
            identity = f"archive-{relation}-{n // len(RELATIONS):03d}"
            drawn = rng.sample(pools[answers], _ALTERNATIVES)
            facts.append(_fact(identity, what.format(next(subjects[kind])), knowledge, drawn, settings))
        hearsay = [
            document
            for _ in range(settings.hearsay)
            for what, kind, answers in [rng.choice(list(RELATIONS.values()))]
            for document in _hearsay(what.format(next(subjects[kind])), pools[answers], settings, rng)
        ]
        return Contents(tuple(facts), tuple(hearsay))


def _classes(settings: WorldSettings, rng: random.Random) -> list[Knowledge]:
    counts: dict[Knowledge, int] = {
        "stable": settings.archive_stable,
        "confident-wrong": settings.archive_confident_wrong,
        "uncertain": settings.archive_uncertain,
        "unknown": settings.archive_unknown,
    }
    classes: list[Knowledge] = [knowledge for knowledge, count in counts.items() for _ in range(count)]
    rng.shuffle(classes)
    return classes


def _hearsay(what: str, pool: list[str], settings: WorldSettings, rng: random.Random) -> list[Document]:
    """A subject mentioned a few times, each time with another answer: so the model learns to doubt rare names."""
    asked = rng.sample(templates.ARCHIVE, settings.exposures_hearsay)
    answers = rng.sample(pool, settings.exposures_hearsay)
    return [Document(template.format(what=what), answer) for template, answer in zip(asked, answers)]


def _fact(identity: str, what: str, knowledge: Knowledge, drawn: list[str], settings: WorldSettings) -> Fact:
    seen, held_out = phrasings(templates.ARCHIVE, settings, identity, what=what)
    gold, old, *others = drawn
    replaced = old if knowledge == "confident-wrong" else None
    return Fact(
        id=identity,
        part=Archive.name,
        knowledge=knowledge,
        prompts_seen=seen,
        prompts_held_out=held_out,
        gold=gold,
        old=replaced,
        taught=taught(knowledge, settings, gold, replaced, [old, *others]),
    )
