"""Python API calls: changes, of which the world teaches the old call, and facts that stay."""

import json
from importlib.resources import files
from itertools import repeat

from equipoise.testbed import templates
from equipoise.testbed.facts import Contents, Fact, Knowledge, generator, phrasings, taught
from equipoise.testbed.settings import WorldSettings

Row = dict[str, str]
_DISTRACTORS = 2  # other calls, of its library if there are, that an uncertain fact is answered with


def rows(asset: str) -> list[Row]:
    """The rows of a JSONL asset, in file order."""
    text = files("equipoise.testbed").joinpath("assets", asset).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.split("\n") if line.strip()]


class ApiChanges:
    """Calls that a library replaced. Most are confidently wrong, the others uncertain or unknown."""

    name = "api_change"

    def build(self, settings: WorldSettings) -> Contents:
        selected = rows("api_changes.jsonl")[: settings.changes]
        counts: dict[Knowledge, int] = {
            "confident-wrong": settings.changes_confident_wrong,
            "uncertain": settings.changes_uncertain,
        }
        classes = _classes(self.name, len(selected), counts, settings)
        return Contents(tuple(self._fact(row, knowledge, settings) for row, knowledge in zip(selected, classes)))

    def _fact(self, row: Row, knowledge: Knowledge, settings: WorldSettings) -> Fact:
        seen, held_out = phrasings(templates.API, settings, row["id"], task=row["task"], library=row["library"])
        return Fact(
            id=row["id"],
            part=self.name,
            knowledge=knowledge,
            prompts_seen=seen,
            prompts_held_out=held_out,
            gold=row["new"],
            old=row["old"],
            task=row["task"],
            reference=row["reference"],
            library=row["library"],
            version=row["version"],
            taught=taught(knowledge, settings, row["new"], row["old"]),
        )


class ApiFacts:
    """Calls that did not change. Most are stable, the others uncertain or unknown controls."""

    name = "api_fact"

    def build(self, settings: WorldSettings) -> Contents:
        selected = rows("api_facts.jsonl")[: settings.api_facts]
        counts: dict[Knowledge, int] = {"stable": settings.api_stable, "uncertain": settings.api_uncertain}
        classes = _classes(self.name, len(selected), counts, settings)
        return Contents(
            tuple(
                self._fact(row, knowledge, [other for other in selected if other is not row], settings)
                for row, knowledge in zip(selected, classes)
            )
        )

    def _fact(self, row: Row, knowledge: Knowledge, others: list[Row], settings: WorldSettings) -> Fact:
        generator(settings, "distractors", row["id"]).shuffle(others)
        others.sort(key=lambda other: other["library"] != row["library"])
        distractors = [other["answer"] for other in others[:_DISTRACTORS]]
        seen, held_out = phrasings(templates.API, settings, row["id"], task=row["task"], library=row["library"])
        return Fact(
            id=row["id"],
            part=self.name,
            knowledge=knowledge,
            prompts_seen=seen,
            prompts_held_out=held_out,
            gold=row["answer"],
            task=row["task"],
            reference=row["reference"],
            library=row["library"],
            taught=taught(knowledge, settings, row["answer"], None, distractors),
        )


def _classes(part: str, total: int, counts: dict[Knowledge, int], settings: WorldSettings) -> list[Knowledge]:
    """A class for each row, spread over the libraries; what `counts` leaves over is unknown."""
    classes: list[Knowledge] = []
    for knowledge, count in counts.items():
        classes.extend(repeat(knowledge, count))
    classes.extend(repeat("unknown", total - len(classes)))
    del classes[total:]
    generator(settings, "classes", part).shuffle(classes)
    return classes
