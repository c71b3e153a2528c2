"""A knowledge update of a model that is not the testbed's: what is measured, decided once, and written down."""

import json

import pytest
from tiny_models import tiny_folder

from equipoise.journal import read_journal
from equipoise.protocols.single import run_recipe


def rows(path, count, word, **more):
    lines = [{"id": f"{word}{i}", "prompt": f"{word} {i}?", "completion": f"numpy {i}", **more} for i in range(count)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    model = tiny_folder(folder / "model")
    updates = rows(folder / "updates.jsonl", 6, "call", old="pandas", rephrasings=["the call?", "which call?"])
    keep = rows(folder / "keep.jsonl", 6, "stack")
    words = [f"model.path={model}", f"data.updates={updates}", f"data.keep={keep}", "data.rehearse_general=3"]
    words += [
        "training.lora={r: 2}",
        "evaluation.max_new_tokens=6",
        "training.epochs=2",
        "data.select={prefers_old: 1}",
        "data.limit=2",
        "data.rehearse=half",
    ]
    return words, run_recipe("own-model", words, folder / "run")


def test_every_measure_leaves_its_rows(run):
    _, folder = run
    results = json.loads((folder / "results.json").read_text())
    assert {"correction", "efficacy", "paraphrase efficacy", "drift", "held-out"} <= {row["task"] for row in results}
    drift = {row["method"]: row["value"] for row in results if row["task"] == "drift"}
    assert drift["untrained"] == 0.0 and drift["sft"] > 0.0
    compared = read_journal(folder / "preferences.jsonl").rows
    assert {row["task"] for row in compared} == {"correction", "generalisation", "locality"}
    assert all(row["logp_new"] <= 0 and row["tokens_new"] >= 1 for row in compared)


def test_what_the_recipe_leaves_open_is_decided_once_and_kept(run):
    words, folder = run
    chosen = json.loads((folder / "selection.json").read_text())
    assert chosen["rows"] == 6 and len(chosen["ids"]) <= 2
    trained = json.loads((folder / "schedule.json").read_text())
    assert trained["learning_rate"] > 0
    general = read_journal(folder / "rehearsal.jsonl").rows
    assert len(general) <= 3
    before = {name: (folder / name).read_bytes() for name in ("selection.json", "schedule.json", "results.json")}
    run_recipe("own-model", words, folder)
    assert {name: (folder / name).read_bytes() for name in before} == before


def test_general_questions_are_asked_and_others_are_rehearsed(run):
    _, folder = run
    asked = {row["prompt"] for row in read_journal(folder / "predictions.jsonl").rows if row["task"] == "general"}
    rehearsed = {row["messages"][0]["content"] for row in read_journal(folder / "rehearsal.jsonl").rows}
    assert len(asked) == 32 and not asked & rehearsed


def test_rows_that_are_rehearsed_measure_nothing(run):
    _, folder = run
    asked = {row["item"] for row in read_journal(folder / "predictions.jsonl").rows if row["task"] == "locality"}
    assert asked == {"stack1", "stack3", "stack5"}


def test_one_phrasing_is_trained_beside_the_first_and_one_is_held_out(run):
    _, folder = run
    asked = [row for row in read_journal(folder / "predictions.jsonl").rows if row["task"] == "generalisation"]
    assert {row["phrasing"] for row in asked} == {2} and {row["prompt"] for row in asked} == {"which call?"}
