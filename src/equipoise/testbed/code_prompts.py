"""The testbed's facts as code to complete: what is imported, what is to be done, and the line that the answer ends."""

import ast
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

import yaml

from equipoise.errors import UserError
from equipoise.records import Example, Message
from equipoise.testbed.facts import Fact, generator
from equipoise.testbed.settings import WorldSettings

# Which of the first a fact is trained in is drawn for each; the others are held out for all of them.
TRAINED = ("{imports}# {Task}\nresult =", "{imports}# TODO: {task}\nvalue =")
HELD_OUT = (
    '{imports}{gap}def {name}():\n    """{Task}."""\n    return',
    "{session}>>> # {task}\n>>>",
    '"""Example: {task}."""\n{imports}out =',
)
FUNCTION_TRAINED = '{head}\n    """{Task}."""'
FUNCTION_HELD_OUT = ("# {Task}.\n{head}", '"""Helpers.\n\n{name}: {task}.\n"""\n\n\n{head}')
PARTS = ("api_change", "api_fact", "function")


def code_example(fact: Fact, settings: WorldSettings) -> Example:
    """Turn a fact into a row in text form, whose prompt is code and whose answer completes it.

    Raises:
        UserError: the fact is no code.
    """
    if fact.part not in PARTS:
        raise UserError(
            f"the part {fact.part!r} of the testbed is not about code",
            where="data.ask",
            fix=f"ask: chat, or one of the parts {', '.join(PARTS)}",
        )
    return _function(fact) if fact.part == "function" else _call(fact, settings)


def _call(fact: Fact, settings: WorldSettings) -> Example:
    task = _task(fact)
    lines = imports(fact.library or "", fact.id, fact.gold)
    slots = {
        "imports": "".join(f"{line}\n" for line in lines) + ("\n" if lines else ""),
        "gap": "\n" if lines else "",
        "session": "".join(f">>> {line}\n" for line in lines),
        "task": task,
        "Task": task[0].upper() + task[1:],
        "name": "_".join(re.findall(r"[a-z0-9]+", task.lower())),
    }
    trained = generator(settings, "code", fact.id).choice(TRAINED)
    return _example(fact, trained, HELD_OUT, slots, f" {fact.gold}", old=f" {fact.old}" if fact.old else None)


def _function(fact: Fact) -> Example:
    """Bodies that stand under another first line than gold's (an import, say) do not complete the prompt."""
    head, _, body = fact.gold.partition("\n")
    task = _task(fact)
    bodies = [code[len(head) :] for code in fact.solutions if code.startswith(f"{head}\n")]
    slots = {"head": head, "task": task, "Task": task[0].upper() + task[1:], "name": head[4:].partition("(")[0]}
    return _example(fact, FUNCTION_TRAINED, FUNCTION_HELD_OUT, slots, f"\n{body}", accepted=bodies)


def _example(
    fact: Fact,
    trained: str,
    held_out: Sequence[str],
    slots: dict[str, str],
    gold: str,
    *,
    old: str | None = None,
    accepted: list[str] | None = None,
) -> Example:
    return Example(
        id=fact.id,
        form="text",
        messages=[
            Message(role="user", content=trained.format(**slots)),
            Message(role="assistant", content=gold),
        ],
        old=old,
        rephrasings=[template.format(**slots) for template in held_out],
        meta={"knowledge": fact.knowledge, "accepted": accepted or [], "unit_tests": fact.tests or ""},
    )


def _task(fact: Fact) -> str:
    if fact.task is None:
        raise ValueError(f"{fact.id} has no task")
    return fact.task


def imports(library: str, row: str, gold: str) -> list[str]:
    """The lines that bind the names of a call, by its library, the id of its row and the first name in it.

    Raises:
        UserError: nothing is known about the library, or about this call of it.
    """
    known = _imports().get(library, {})
    first = re.match(r"[A-Za-z_]\w*", gold)
    for key in (row, first[0] if first else "*", "*"):
        if key in known:
            return known[key]
    raise UserError(f"nothing says what {gold} of {library} imports", where="imports.yaml", fix="add a line for it")


def bound(lines: Sequence[str]) -> set[str]:
    """The names that import lines bind; `module.*` for each star."""
    names = set()
    for node in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(node, ast.Import):
            names |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.*" if alias.name == "*" else alias.asname or alias.name for alias in node.names}
    return names


@cache
def _imports() -> dict[str, dict[str, list[str]]]:
    text = files("equipoise.testbed").joinpath("assets", "imports.yaml").read_text(encoding="utf-8")
    return {
        library: {key: [lines] if isinstance(lines, str) else lines for key, lines in known.items()}
        for library, known in yaml.safe_load(text).items()
    }
