"""The sanity suite: files of prompts, answers checked, models side by side."""

import json

import pytest
from tiny_models import tiny_model, tiny_tokenizer
from typer.testing import CliRunner

from equipoise.cli import app
from equipoise.errors import UserError
from equipoise.evaluation.sanity import answered, load_suite, run_suite, side_by_side
from equipoise.models.loading import Loaded, load_model
from equipoise.models.settings import ModelSettings

GIBBERISH = ("", "xq zzv 9k", "yes", "the the the the the the the the the the", '{"')


@pytest.mark.parametrize("name", ["default", "testbed"])
def test_gold_passes_and_gibberish_fails_in_what_is_shipped(name):
    suite = load_suite(name)
    checked = [prompt for prompt in suite if prompt.check]
    assert len(checked) >= 5 and len(checked) < len(suite)
    for prompt in checked:
        assert answered(prompt, prompt.gold, model="m").passed is True
        assert [answered(prompt, text, model="m").passed for text in GIBBERISH] == [False] * len(GIBBERISH)
    assert {answered(p, "anything", model="m").passed for p in suite if not p.check} == {None}


def test_the_testbeds_model_knows_the_testbeds_suite():
    rows = run_suite(load_model(ModelSettings()), load_suite("testbed"), model="testbed", max_new_tokens=32)
    assert all(row.passed is not False for row in rows)


def test_files_of_both_kinds_read_alike(tmp_path):
    rows = [
        {"prompt": "Hot?", "check": {"contains": "cold"}, "gold": "cold"},
        {"prompt": "List.", "id": "l", "system": "s"},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (tmp_path / "a.yaml").write_text(json.dumps({"prompts": rows}), encoding="utf-8")
    assert load_suite(tmp_path / "a.jsonl") == load_suite(tmp_path / "a.yaml")
    assert [prompt.id for prompt in load_suite(tmp_path / "a.yaml")] == ["prompt-1", "l"]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"prompt": "x", "chek": {}}, "chek"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": "x", "check": {}}, "a check needs"),
        ({"prompt": "x", "check": {"regex": "("}}, "no regular expression"),
        ({"prompt": "x", "check": {"max_words": 0}}, "max_words"),
        ({"prompt": "x", "check": {"equals": []}}, "equals"),
        ({"prompt": "x", "check": {"equals": "y"}, "gold": "z"}, "gold does not pass the check"),
    ],
)
@pytest.mark.parametrize("kind", ["jsonl", "yaml"])
def test_a_prompt_at_fault_is_told_with_its_line(row, told, kind, tmp_path):
    path = tmp_path / f"a.{kind}"
    path.write_text(json.dumps(row if kind == "jsonl" else {"prompts": [row]}) + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"a\.\w+:1") as caught:
        load_suite(path)
    assert told in str(caught.value)


def test_an_id_stands_once(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"prompt": "x", "id": "i"}\n{"prompt": "y", "id": "i"}\n', encoding="utf-8")
    with pytest.raises(UserError, match="'i' stands twice"):
        load_suite(tmp_path / "a.jsonl")
    (tmp_path / "b.jsonl").write_text("\n", encoding="utf-8")
    with pytest.raises(UserError, match="no prompts"):
        load_suite(tmp_path / "b.jsonl")


def test_models_stand_side_by_side_on_one_line_each():
    suite = load_suite("testbed")[-2:]
    rows = [answered(suite[0], suite[0].gold, model="a"), answered(suite[1], "one\ntwo \x1b[31m", model="a")]
    rows += [answered(suite[0], "no", model="b"), answered(suite[1], "x" * 99, model="b")]
    columns, table = side_by_side(rows, width=30)
    assert columns == ["prompt", "a", "b"]
    assert table[0][1].startswith("[right] ") and table[0][2] == "[wrong] no"
    assert table[1][1:] == ["one / two \\x1b[31m", "x" * 29 + "…"]
    assert table[-1] == ["passed", "1 of 1", "0 of 1"]


def test_any_model_can_be_asked():
    rows = run_suite(Loaded(tiny_model(), tiny_tokenizer(), "tiny"), load_suite("default"), model="t", max_new_tokens=3)
    assert [row.id for row in rows] == [prompt.id for prompt in load_suite("default")]
    assert not any(row.passed for row in rows)


def test_the_verb_prints_and_keeps_the_answers(tmp_path):
    words = ["evaluate", "testbed", "--sanity", "testbed", "--beside", "testbed:questions", "--out", str(tmp_path)]
    said = CliRunner().invoke(app, words)
    assert said.exit_code == 0, said.stderr
    assert said.stdout.splitlines()[1].split() == ["prompt", "testbed:questions", "testbed"]
    assert said.stdout.splitlines()[-1].split() == ["passed", "0", "of", "6", "6", "of", "6"]
    rows = [json.loads(line) for line in (tmp_path / "sanity.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 14
