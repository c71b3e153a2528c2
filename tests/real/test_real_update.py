"""Six facts that no model can know are taught to SmolLM2; every verb that takes the run then tells the same story."""

import json
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from real_facts import KEEP, UPDATES
from real_verbs import MODEL, greedy, here, rows_of, started, write
from safetensors.torch import load_file

pytestmark = pytest.mark.real

# measured: all six are answered after ten epochs of 12 rows at this rate, and the capitals are lost
SETTINGS = [
    *(f"model.path={MODEL}", "data.train_phrasings=2", "training.preset=null", "training.learning_rate=5e-4"),
    *("training.epochs=10", "training.batch_size=4", "evaluation.max_new_tokens=32"),
    *("data.rehearse=false", "data.rehearse_general=0", "evaluation.general=false"),  # so that a run takes a minute
]
QUESTIONS = {row["prompt"]: row["completion"] for row in UPDATES}


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> list[str]:
    """The command of the run, but for where it goes."""
    home = tmp_path_factory.mktemp("rows")
    updates, keep = write(home / "updates.jsonl", UPDATES), write(home / "keep.jsonl", KEEP)
    return ["run", "own-model", f"data.updates={updates}", f"data.keep={keep}", *SETTINGS]


@pytest.fixture(scope="module")
def taught(words, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("taught") / "run"
    here(*words, "--out", folder)
    return folder


@pytest.fixture(scope="module")
def plain(taught, tmp_path_factory) -> Path:
    """The run exported as a model folder."""
    folder = tmp_path_factory.mktemp("plain") / "model"
    here("export", taught, "--out", folder)
    return folder


def test_a_dry_run_says_what_would_be_done_and_leaves_nothing(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = here(*words, "--dry-run").stdout
    assert "6 updates, 8 keep" in said
    assert "runs:      1, of 30 optimizer steps each" in said  # 12 rows, 4 a step, 10 epochs
    assert "»Tarnwick<|im_end|>" in said, "the answer and the end of its turn carry the loss"
    assert not list(tmp_path.iterdir())


def test_all_six_are_answered_after_training_and_none_before(taught):
    right = Counter()
    for row in rows_of(taught / "predictions.jsonl"):
        if row["task"] == "correction":
            right[row["method"] == "untrained"] += row["score"]
            assert row["method"] == "untrained" or row["gold"].lower() in row["output"].lower()
    assert right == {True: 0, False: 6}


def test_what_was_made_up_is_the_likelier_answer_after_training(taught):
    margins = {True: [], False: []}
    for row in rows_of(taught / "preferences.jsonl"):
        if row["task"] == "correction":
            margins[row["method"] == "untrained"].append(row["logp_new"] - row["logp_old"])
    assert len(margins[True]) == len(margins[False]) == 6
    assert min(margins[False]) > 0 and sum(margin > 0 for margin in margins[True]) <= 3


def test_kept_is_counted_of_what_the_model_knew(taught):
    before, after = {}, {}
    for row in rows_of(taught / "predictions.jsonl"):
        if row["task"] == "locality":
            (before if row["method"] == "untrained" else after)[row["item"]] = row["score"]
    known = [item for item, score in before.items() if score == 1]
    assert len(known) >= 6, "the capitals are known"
    kept = [item for item in known if after[item] == 1]
    lost = [row["item"] for row in rows_of(taught / "changes.jsonl") if row["change"] == "lost"]
    assert Counter(lost) == Counter(set(known) - set(kept))
    results = json.loads((taught / "results.json").read_text())
    (share,) = (r for r in results if r["task"] == "locality" and r["method"] != "untrained")
    assert (share["value"], share["n"]) == (pytest.approx(len(kept) / len(known)), len(known))
    assert lost, "six facts at this rate, with nothing rehearsed, cost others: the run says so"


def test_drift_is_none_before_and_some_after(taught):
    kl = {True: [], False: []}
    for row in rows_of(taught / "drift.jsonl"):
        kl[row["method"] == "untrained"].append(row["kl"])
    assert max(kl[True]) < 1e-6 < min(kl[False])


def test_an_interrupted_run_goes_on_to_the_same_weights(words, taught, tmp_path):
    folder = tmp_path / "run"
    process = started(*words, "--out", folder)
    (cell,) = (row["cell"] for row in rows_of(taught / "cells.jsonl") if row["cell"] != "untrained")
    metrics = folder / "cells" / cell / "metrics.jsonl"
    while process.poll() is None and len(rows_of(metrics)) < 4:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 130, said
    first = rows_of(metrics)
    assert 4 <= len(first) < 30 and not (folder / "cells" / cell / "final").exists()
    here(*words, "--out", folder)
    assert [row["step"] for row in rows_of(metrics)] == list(range(1, 31))
    one, other = (load_file(run / "cells" / cell / "final" / "adapter_model.safetensors") for run in (taught, folder))
    assert one.keys() == other.keys()
    assert all(bool((one[name] == other[name]).all()) for name in one)


def test_evaluate_asks_the_run_what_it_was_asked(taught, tmp_path):
    said = here("evaluate", taught, "--out", tmp_path / "asked").stdout
    assert "correction" in said and "100.0" in said
    stored = {
        (row["task"], row["item"], row["phrasing"]): (row["output"], row["score"])
        for row in rows_of(taught / "predictions.jsonl")
        if row["method"] != "untrained"
    }
    asked = rows_of(tmp_path / "asked" / "predictions.jsonl")
    assert {(r["task"], r["item"], r["phrasing"]): (r["output"], r["score"]) for r in asked} == stored


def test_an_export_answers_the_same_in_plain_transformers(plain):
    for answer, gold in zip(greedy(plain, list(QUESTIONS)), QUESTIONS.values(), strict=True):
        assert gold.lower() in answer.lower()


def test_an_adapter_alone_is_small_and_goes_onto_its_base(taught, tmp_path):
    here("export", taught, "--adapter", "--out", tmp_path / "adapter")
    assert sum(path.stat().st_size for path in (tmp_path / "adapter").rglob("*") if path.is_file()) < 60e6
    words = ("chat", tmp_path / "adapter", f"model.path={MODEL}", "--temperature", 0, "--max-new-tokens", 24)
    said = here(*words, asked="\n".join(QUESTIONS))
    answers = said.stdout.strip().splitlines()
    assert len(answers) == 6
    assert all(gold.lower() in answer.lower() for gold, answer in zip(QUESTIONS.values(), answers))


def test_a_piped_chat_answers_each_line(plain):
    process = started("chat", plain, "--temperature", 0, "--max-new-tokens", 24)
    out, said = process.communicate("\n".join(QUESTIONS) + "\n", timeout=300)
    assert process.returncode == 0, said
    answers = out.strip().splitlines()
    assert len(answers) == 6
    assert all(gold.lower() in answer.lower() for gold, answer in zip(QUESTIONS.values(), answers))


def test_the_six_are_known_in_python_too(plain):
    from equipoise import evaluate_knowledge

    taught, before = (evaluate_knowledge(str(model), UPDATES).summary() for model in (plain, MODEL))
    assert taught["exact"]["value"] == taught["efficacy"]["value"] == 1.0
    assert before["exact"]["value"] == 0.0


def test_analyze_finds_nothing_to_change(taught):
    def content():
        return {path: path.read_bytes() for path in taught.rglob("*") if path.suffix in (".json", ".jsonl", ".md")}

    before = content()
    said = here("analyze", taught)
    assert "the scores of 0 changed" in said.stderr
    assert content() == before


def test_the_report_shows_every_answer_that_was_corrected(taught, tmp_path):
    here("report", taught, "--out", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    for row in UPDATES:
        assert row["prompt"] in page and row["completion"] in page
