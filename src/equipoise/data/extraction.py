"""Sentences and their entities."""

import re
from collections.abc import Iterable, Sequence

from equipoise.errors import UserError
from equipoise.metrics.entities import Pair
from equipoise.records import Entity

INSTRUCTION = "Extract the entities as JSON. Types: {types}.\n{text}"
_FIELD = re.compile(r"\{(types|text)\}")


def prompt(text: str, types: Sequence[str], instruction: str | None = None) -> str:
    """What the user says: an instruction in which {types} and {text} are replaced, and nothing else.

    Raises:
        UserError: the instruction has no place for the text.
    """
    instruction = INSTRUCTION if instruction is None else instruction
    if "{text}" not in instruction:
        raise UserError(
            "the instruction does not say where the sentence belongs",
            where="data.instruction",
            fix="write {text} in it",
        )
    said = {"types": ", ".join(types), "text": text}
    return _FIELD.sub(lambda field: said[field[1]], instruction)


def pairs(entities: Iterable[Entity]) -> tuple[Pair, ...]:
    """Entities as `metrics.entities` scores them."""
    return tuple((entity.type, entity.text) for entity in entities)
