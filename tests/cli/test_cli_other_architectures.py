"""The whole path of a recipe on random-weight folders of other architectures than the testbed's."""

import json

import pytest
from tiny_models import tiny_folder
from typer.testing import CliRunner

from equipoise.cli import app

GREEDY = ("--temperature", "0", "--max-new-tokens", "12")


def run(*words, asked=None):
    return CliRunner().invoke(app, list(map(str, words)), input=asked)


@pytest.mark.parametrize(
    ("architecture", "layers"),
    [
        ("phi", {"q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"}),  # a bias on the head, partial rotary
        ("llama", {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}),
    ],
)
def test_train_score_export_and_chat(architecture, layers, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tiny_folder(tmp_path / architecture, architecture)
    rows = [{"prompt": f"the call for {i}", "completion": f"pandas.concat({i})"} for i in range(3)]
    (tmp_path / "updates.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    own = ["data.updates=updates.jsonl", "data.keep=null", "data.skills=null", "training.epochs=8"]
    own += ["training.lora={r: 16}", "training.learning_rate=0.02", "objective={name: sft}"]
    outcome = run("run", "knowledge-update", f"model.path={folder}", *own, "--out", tmp_path / "run")
    assert outcome.exit_code == 0, outcome.output
    cell = tmp_path / "run" / "cells" / "sft" / "seed-42"
    losses = [json.loads(line)["loss"] for line in (cell / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0]
    targets = json.loads((cell / "final" / "adapter_config.json").read_text())["target_modules"]
    assert {name.rpartition(".")[2] for name in targets} == layers
    merged = run("export", tmp_path / "run", "--out", tmp_path / "plain")
    assert merged.exit_code == 0, merged.output
    said = [run("chat", model, *GREEDY, asked="the call for 2\n") for model in ("run", "plain", folder)]
    assert [one.exit_code for one in said] == [0, 0, 0], said[0].output
    assert said[0].stdout == said[1].stdout != said[2].stdout
