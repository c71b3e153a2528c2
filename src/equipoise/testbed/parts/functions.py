"""Small Python functions, asked for by name and task: the unrelated skill that an update must not cost."""

from importlib.resources import files

import yaml

from equipoise.testbed import templates
from equipoise.testbed.facts import Contents, Fact, phrasings
from equipoise.testbed.settings import WorldSettings


class Functions:
    """All stable; each with the bodies known to be right and with unit tests."""

    name = "function"

    def build(self, settings: WorldSettings) -> Contents:
        text = files("equipoise.testbed").joinpath("assets", "functions.yaml").read_text(encoding="utf-8")
        rows = yaml.safe_load(text)[: settings.functions]
        return Contents(tuple(self._fact(row, settings) for row in rows))

    def _fact(self, row: dict, settings: WorldSettings) -> Fact:
        identity = f"function-{row['name']}"
        seen, held_out = phrasings(templates.FUNCTION, settings, identity, name=row["name"], task=row["task"])
        solutions = tuple(code.rstrip("\n") for code in (row["code"], *row.get("also", ())))
        return Fact(
            id=identity,
            part=self.name,
            knowledge="stable",
            prompts_seen=seen,
            prompts_held_out=held_out,
            gold=solutions[0],
            task=row["task"],
            taught=((solutions[0], settings.exposures_function),),
            solutions=solutions,
            tests=row["tests"].rstrip("\n"),
        )
