"""The verb `scan` as a user meets it: exit codes, what is printed, and what is left behind."""

import json

import pytest
from typer.testing import CliRunner

from equipoise.cli import app


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The verb, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(app, ["scan", *words], catch_exceptions=False)


def test_a_scan_says_what_it_found_and_where_it_is(run, tmp_path):
    done = run("testbed:api_change", "limit=30", "--top", "3", "batch_tokens=400")
    assert done.exit_code == 0, done.stderr
    assert "Suggested: sft" in done.stdout and "30 of 30 examples (100.0%)" in done.stdout
    assert "equipoise run knowledge-update data.updates=testbed:api_change" in done.stdout
    assert "wrote scan" in done.stderr and "tokens read" in done.stderr
    found = json.loads((tmp_path / "scan" / "scan.json").read_text())
    assert len(found["listed"]) == 3 and found["n_examples"] == 30


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nowhere.jsonl"], "nowhere.jsonl"),
        (["testbed:facts", "--model", "nowhere/at/all"], "there is no model folder"),
        (["testbed:facts", "--model", "testbed", "limt=3"], "did you mean 'limit'?"),
        (["testbed:facts", "--top", "-2"], "top"),
        (["testbed:facts", "max_length=2"], "raise max_length"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(run, tmp_path, words, told):
    done = run(*words)
    assert done.exit_code == 2 and told in done.stderr
    assert not (tmp_path / "scan").exists()
