"""Facts of the testbed as rows to train on, by the names that recipes give them."""

from typing import Literal

from equipoise.errors import UserError
from equipoise.records import Example, Message
from equipoise.testbed.code_prompts import code_example
from equipoise.testbed.settings import WorldSettings
from equipoise.testbed.world import PARTS, Fact, shipped_world

TESTBED = "testbed:"
ALL = "testbed:facts"
Ask = Literal["chat", "code", "both"]


def load_facts(source: str, *, ask: Ask = "chat") -> tuple[list[Example], str]:
    """The rows of `testbed:PART` or `testbed:PART:CLASS`, and the hash of the world's text.

    Without a class it is what the testbed's model is confidently wrong about (`api_change`), else what it knows; the
    class `any` takes all, for a model that was not made on the testbed. `testbed:facts` are the facts of every part and
    class, functions apart.

    Args:
        ask: as questions (`chat`), as code to complete (`code`), or each fact in both forms, its code row as `ID:code`.

    Raises:
        UserError: there is no such part, it has no fact of that class, or it cannot be asked as code.
    """
    world = shipped_world()
    if source == ALL:
        return _asked([fact for fact in world.facts if fact.part != "function"], ask, world.settings), world.text_hash
    part, _, knowledge = source.removeprefix(TESTBED).partition(":")
    parts = [known.name for known in PARTS]
    if part not in parts:
        raise UserError(f"the testbed has no part {part!r}", where=source, fix=f"one of facts, {', '.join(parts)}")
    knowledge = knowledge or ("confident-wrong" if part == "api_change" else "stable")
    facts = [fact for fact in world.facts if fact.part == part and knowledge in ("any", fact.knowledge)]
    if not facts:
        raise UserError(f"no {part} of the testbed is {knowledge!r}", where=source)
    return _asked(facts, ask, world.settings), world.text_hash


def _asked(facts: list[Fact], ask: Ask, settings: WorldSettings) -> list[Example]:
    rows = []
    for fact in facts:
        rows += [fact_example(fact)] if ask != "code" else []
        if ask != "chat":
            code = code_example(fact, settings)
            rows.append(code.model_copy(update={"id": f"{fact.id}:code"}) if ask == "both" else code)
    return rows


def fact_example(fact: Fact) -> Example:
    """Turn a fact of the testbed into a row: its first phrasing, the truth of now, and the held-out phrasings."""
    return Example(
        id=fact.id,
        messages=[Message(role="user", content=fact.prompts_seen[0]), Message(role="assistant", content=fact.gold)],
        old=fact.old,
        rephrasings=list(fact.prompts_held_out),
        meta={
            "knowledge": fact.knowledge,
            "accepted": list(fact.solutions),
            "unit_tests": fact.tests or "",
        },
    )
