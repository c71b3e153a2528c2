"""Facts of the testbed as code to complete: their imports are right, and do not say which of two calls is."""

import ast
import builtins
import importlib
import re

import pytest

from equipoise.errors import UserError
from equipoise.metrics.functions import run_unit_tests
from equipoise.pipelines.knowledge_data import load_data
from equipoise.pipelines.settings import DataSettings
from equipoise.testbed.code_prompts import PARTS, bound, code_example, imports
from equipoise.testbed.examples import load_facts
from equipoise.testbed.world import shipped_world

WORLD = shipped_world()
FACTS = [fact for fact in WORLD.facts if fact.part in PARTS]
CALLS = [fact for fact in FACTS if fact.part != "function"]
CHANGES = [fact for fact in CALLS if fact.part == "api_change"]
# What a reader takes to be defined elsewhere: objects of the program around the line.
OBJECTS = """x y f a b ds df loss response optimizer llm retriever collection db session engine connection tokenizer
model trainer image font draw node condition thread context parser path logger self text data client driver soup G ax
Model fig writer scheduler vectorizer schema metadata registry"""
GIVEN = set(OBJECTS.split())


def names(code):
    nodes = list(ast.walk(ast.parse(code)))
    return {n.id for n in nodes if isinstance(n, ast.Name)} | {n.attr for n in nodes if isinstance(n, ast.Attribute)}


def test_a_fact_is_code_whose_answer_completes_the_line():
    row = next(row for row in load_facts("testbed:api_change", ask="code")[0] if row.id == "change-numpy-004")
    assert row.form == "text" and (row.completion, row.old) == (" np.all(x)", " np.alltrue(x)")
    assert row.prompt == "import numpy as np\n\n# Check that every value is true\nresult ="
    assert len(row.rephrasings) >= 2
    assert any(prompt.endswith('"""Check that every value is true."""\n    return') for prompt in row.rephrasings)


def test_every_phrasing_with_its_answer_is_python():
    for fact in FACTS:
        row = code_example(fact, WORLD.settings)
        for prompt in (row.prompt, *row.rephrasings):
            for answer in filter(None, (row.completion, row.old)):
                code = prompt + answer
                if ">>>" in code:
                    code = "\n".join(line.removeprefix(">>> ") for line in code.split("\n"))
                ast.parse(code)


def test_no_two_prompts_are_the_same():
    rows = [code_example(fact, WORLD.settings) for fact in FACTS]
    prompts = [prompt for row in rows for prompt in (row.prompt, *row.rephrasings)]
    assert len(set(prompts)) == len(prompts)


def test_the_imports_bind_what_the_right_call_begins_with():
    for fact in CALLS:
        first = re.match(r"[A-Za-z_]\w*", fact.gold)
        known = bound(imports(fact.library, fact.id, fact.gold))
        stars = {name.removesuffix(".*") for name in known if name.endswith(".*")}
        assert first is None or stars or first[0] in known | set(dir(builtins)) | GIVEN, fact.id
        installed = [importlib.import_module(star) for star in stars if star.split(".")[0] in ("sklearn", "scipy")]
        brought = {name for module in installed for name in getattr(module, "__all__", dir(module))}
        assert not installed or first[0] in brought | known, fact.id


def test_the_imports_do_not_tell_the_new_call_from_the_old():
    for fact in CHANGES:
        lines = imports(fact.library, fact.id, fact.gold)
        if lines == [f"import {fact.library}"] or (len(lines) == 1 and " as " in lines[0]):
            continue  # the library itself, as code that uses it always has it
        said = set(re.findall(r"\w+", "\n".join(lines)))
        new, old = names(fact.gold), names(fact.old)
        # or both modules are there, by name; urllib's parts have to be imported by name
        both = said & (old - new) or (len(lines) == 2 and fact.library in said)
        assert not said & (new - old) or both or "urllib" in said, fact.id


def test_calls_of_the_standard_library_resolve_after_their_imports():
    for fact in CALLS:
        lines = imports(fact.library, fact.id, fact.gold)
        if fact.library != "python" or not lines:
            continue
        scope = {}
        for line in lines:
            if line.split()[1].split(".")[0] not in ("imp", "distutils", "pipes", "cgi", "commands"):
                exec(line, scope)
        call = ast.parse(fact.gold).body[0].value
        while isinstance(call, ast.Call):
            call = call.func
        path = ast.unparse(call).split(".")
        if path[0] in scope:
            value = scope[path[0]]
            for name in path[1:]:
                value = getattr(value, name)


def test_functions_are_completed_by_every_known_body_that_fits():
    rows, _ = load_facts("testbed:function", ask="code")
    assert len(rows) == 25
    for row in rows:
        assert row.prompt.startswith("def ") and row.completion in row.meta["accepted"]
        for body in row.meta["accepted"]:
            assert run_unit_tests(row.prompt + body, row.meta["unit_tests"])


def test_both_gives_each_fact_twice_under_two_ids():
    chat, code = (load_facts("testbed:api_fact", ask=ask)[0] for ask in ("chat", "code"))
    both, text_hash = load_facts("testbed:api_fact", ask="both")
    assert both[0::2] == chat and [row.messages for row in both[1::2]] == [row.messages for row in code]
    assert [row.id for row in both[1::2]] == [f"{row.id}:code" for row in chat]
    assert text_hash == WORLD.text_hash


def test_what_is_no_code_is_not_asked_as_code():
    with pytest.raises(UserError, match="'archive'"):
        load_facts("testbed:archive", ask="code")
    with pytest.raises(UserError, match="nothing says"):
        imports("nobody's", "x", "f(x)")


def test_a_recipe_asks_in_code():
    data = load_data(DataSettings(ask="code", limit=3))
    assert {row.form for row in (*data.updates, *data.keep, *data.skills)} == {"text"}
    assert {row.form for row in load_data(DataSettings()).updates} == {"chat"}
