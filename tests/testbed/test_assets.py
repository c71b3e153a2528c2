"""The hand-written API changes and facts are well formed, distinct and do not give their answers away."""

import ast
import io
import json
import re
import tokenize
from collections import Counter
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

import pytest

CHANGE_FIELDS = {"id", "library", "version", "task", "old", "new", "reference"}
FACT_FIELDS = {"id", "library", "task", "answer", "reference"}
LEXICAL = {tokenize.NAME, tokenize.OP, tokenize.NUMBER, tokenize.STRING}

Row = dict[str, Any]


def _rows(name: str) -> list[Row]:
    text = files("equipoise.testbed").joinpath("assets", name).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


CHANGES = _rows("api_changes.jsonl")
FACTS = _rows("api_facts.jsonl")
EVERY = [*CHANGES, *FACTS]
CALLS = [(row["id"], row[side], 14) for row in CHANGES for side in ("old", "new")]
CALLS += [(row["id"], row["answer"], 12) for row in FACTS]


def _lexical_tokens(call: str) -> int:
    return sum(token.type in LEXICAL for token in tokenize.generate_tokens(io.StringIO(call).readline))


def _repeated(values: list[str]) -> list[str]:
    return [value for value, count in Counter(values).items() if count > 1]


def _identifiers(call: str) -> set[str]:
    """Every name, attribute and keyword of a call."""
    names = set()
    for node in ast.walk(ast.parse(call, mode="eval")):
        if isinstance(node, ast.Name):
            names.add(node.id)
        elif isinstance(node, ast.Attribute):
            names.add(node.attr)
        elif isinstance(node, ast.keyword) and node.arg:
            names.add(node.arg)
    return names


def _called(call: str) -> set[str]:
    """The last part of each name that is called: `concat` in `pd.concat(x)`."""
    functions = [node.func for node in ast.walk(ast.parse(call, mode="eval")) if isinstance(node, ast.Call)]
    return {ast.unparse(function).rsplit(".", 1)[-1] for function in functions}


def _leaked(task: str, names: set[str]) -> set[str]:
    """The names (two letters or more) that the task says as words, capitals and underscores aside."""

    def spoken(text: str) -> str:
        return " " + " ".join(re.findall(r"[a-z0-9]+", text.lower())) + " "

    return {name for name in names if len(name) > 1 and spoken(name) in spoken(task)}


def test_there_is_enough_to_update_and_to_keep():
    assert len(CHANGES) >= 80
    assert len(FACTS) >= 270
    assert len({row["library"] for row in CHANGES}) >= 30


@pytest.mark.parametrize(("rows", "fields"), [(CHANGES, CHANGE_FIELDS), (FACTS, FACT_FIELDS)])
def test_rows_have_exactly_the_agreed_fields_as_trimmed_text(rows: list[Row], fields: set[str]):
    for row in rows:
        assert set(row) == fields
        assert all(isinstance(value, str) and value and value == value.strip() for value in row.values()), row["id"]


def test_ids_and_tasks_are_unique_over_both_files():
    assert _repeated([row["id"] for row in EVERY]) == []
    assert _repeated([row["task"] for row in EVERY]) == []


def test_no_call_answers_two_tasks():
    assert _repeated([call for _, call, _ in CALLS]) == []


def test_old_and_new_are_told_apart_even_by_substring():
    for row in CHANGES:
        old, new = row["old"].lower(), row["new"].lower()
        assert old not in new, row["id"]
        assert new not in old, row["id"]
        assert ast.dump(ast.parse(row["old"])) != ast.dump(ast.parse(row["new"])), row["id"]


def test_every_call_parses_is_canonical_and_short():
    for name, call, longest in CALLS:
        tree = ast.parse(call, mode="eval").body
        assert any(isinstance(node, ast.Call) for node in ast.walk(tree)), name
        assert ast.unparse(tree) == call, name
        assert 2 <= _lexical_tokens(call) <= longest, name


def test_tasks_are_short_plain_verb_phrases():
    for row in EVERY:
        task = row["task"]
        assert re.fullmatch(r"[a-z][a-z0-9-]*( [a-z0-9-]+)+", task), row["id"]
        assert (4 if "new" in row else 3) <= len(task.split()) <= 12, row["id"]


def test_no_change_is_given_away_by_its_task():
    for row in CHANGES:
        old, new = row["old"], row["new"]
        telling = (_identifiers(old) ^ _identifiers(new)) | _called(old) | _called(new)
        assert _leaked(row["task"], telling) == set(), row["id"]


def test_no_fact_is_given_away_by_its_task():
    for row in FACTS:
        assert _leaked(row["task"], _called(row["answer"])) == set(), row["id"]


@pytest.mark.parametrize(
    ("task", "names", "leaked"),
    [
        ("append a row", {"append", "concat"}, {"append"}),
        ("get the running loop", {"get_running_loop"}, set()),
        ("is Alive or not", {"is_alive"}, {"is_alive"}),
        ("stack frames", {"stack_frames_now"}, set()),
    ],
)
def test_the_leak_check_itself(task: str, names: set[str], leaked: set[str]):
    assert _leaked(task, names) == leaked


def test_references_are_pages_on_the_web():
    for row in EVERY:
        address = urlsplit(row["reference"])
        assert address.scheme == "https", row["id"]
        assert "." in address.netloc, row["id"]
        assert address.path.strip("/"), f"{row['id']}: a page, not only a host"
        assert not re.search(r"\s", row["reference"]), row["id"]


def test_a_change_names_the_version_that_made_it():
    assert [row["id"] for row in CHANGES if not re.fullmatch(r"\d+(\.\d+){1,2}", row["version"])] == []


def test_some_facts_are_neighbours_of_changes():
    """Locality says little unless facts of the very libraries that change are among those to keep."""
    changing = {row["library"] for row in CHANGES}
    assert sum(row["library"] in changing for row in FACTS) >= 100
