"""The verb `generate` on files of sentences, as a user types it."""

import json
from collections import Counter

import pytest
from tiny_models import tiny_model, tiny_tokenizer
from typer.testing import CliRunner

from equipoise.cli import app

CONLL = "".join(f"{name} B-PER\nLee I-PER\nsaw O\nOslo B-LOC\n.{i} O\n\n" for i, name in enumerate(["Ann", "Bo"] * 20))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.conll").write_text(CONLL)
    return tmp_path


def generate(*words):
    return CliRunner().invoke(app, ["generate", *map(str, words)])


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_mock_samples_of_a_conll_file_in_both_workflows(folder):
    once = ("--inputs", "t.conll", "--mock", "--samples", 2)
    done = generate(*once, "--max-inputs", 10, "--out", "s.jsonl")
    assert done.exit_code == 0, done.output
    assert "mock" in done.stdout and "F1 of labels" in done.stdout
    assert Counter(row["model"] for row in rows(folder / "s.jsonl")) == {"mock": 20}
    again = generate(*once, "--max-inputs", 10, "--out", "s.jsonl")
    assert again.exit_code == 2 and "--resume" in again.output
    more = generate(*once, "--max-inputs", 15, "--out", "s.jsonl", "--resume")
    assert more.exit_code == 0 and len(rows(folder / "s.jsonl")) == 30
    rest = generate(*once, "--skip-labelled", "--max-samples", 50, "--out", "s.jsonl")
    assert rest.exit_code == 0 and len(rows(folder / "s.jsonl")) == 50
    shown = generate("--compare", "s.jsonl")
    assert shown.exit_code == 0 and "agreement" in shown.stdout and "F1" not in shown.stdout
    judged = generate("--compare", "s.jsonl", "--inputs", "t.conll")
    assert judged.exit_code == 0 and "F1 of labels" in judged.stdout


def test_a_model_of_a_folder_beside_another(folder):
    tiny_model(seed=3).save_pretrained(folder / "tiny")
    tiny_tokenizer().save_pretrained(folder / "tiny")
    words = ("--inputs", "t.conll", "--max-inputs", 4, "--samples", 3, "--out", "s.jsonl")
    assert generate(*words, "--mock").exit_code == 0
    done = generate("sampling.max_new_tokens=6", "model.device=cpu", *words, "--model", "tiny", "--resume")
    assert done.exit_code == 0, done.output
    assert Counter(row["model"] for row in rows(folder / "s.jsonl")) == {"mock": 12, "tiny": 12}
    assert "more than half of the answers of tiny cannot be read" in done.stderr
    assert "mock and tiny" in done.stdout
    settings = json.loads((folder / "s.jsonl.settings.json").read_text())
    assert settings["tiny"]["max_new_tokens"] == 6 and settings["tiny"]["seed"] == 42


def test_a_yaml_file_of_its_own(folder):
    (folder / "mine.yaml").write_text("pipeline: sampling\nname: mine\ninputs: t.conll\nsampling: {samples: 1}\n")
    done = generate("mine.yaml", "max_inputs=3", "--mock")
    assert done.exit_code == 0, done.output
    assert len(rows(folder / "mine.jsonl")) == 3


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "nothing says what to answer"),
        (["--inputs", "not-there.conll"], "not-there.conll"),
        (["--inputs", "t.conll", "--samples", "0"], "sampling.samples"),
        (["--inputs", "t.conll", "sampling.temprature=1"], "did you mean 'temperature'?"),
        (["--inputs", "t.conll", "--backend", "openai", "--model", "m"], "needs base_urls"),
        (["--inputs", "t.conll", "--backend", "ollama"], "needs model.path"),
        (["--inputs", "testbed:sauce"], "testbed:source"),
        (["--inputs", "plain.jsonl"], "which types"),
        (["--inputs", "plain.jsonl", "--mock", "types=[person]"], "plain.jsonl"),
        (["--inputs", "t.conll", "--model", "not/there/at-all"], "not/there/at-all"),
        (["--compare", "not-there.jsonl"], "no file of samples"),
        (["confidence-tokens", "--samples", "3"], "--samples has no meaning"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_of_the_user_is_one_clear_message(folder, words, told):
    (folder / "plain.jsonl").write_text('{"text": "Ann saw Oslo."}\n')
    outcome = generate(*words)
    assert outcome.exit_code == 2 and told in outcome.output, outcome.output
    assert not list(folder.glob("*.settings.json"))
