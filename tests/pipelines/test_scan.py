"""A scan's numbers against a naive oracle, its lists, its files, and what it says of bad input."""

import json
import math
import shlex
from pathlib import Path

import pytest
import torch
from tiny_models import tiny_examples, tiny_model, tiny_tokenizer

from equipoise.catalogue import find
from equipoise.config import resolve
from equipoise.data.formatting import IGNORE, render
from equipoise.errors import UserError
from equipoise.evaluation.tokens import TokenReader
from equipoise.journal import read_journal, verify_directory
from equipoise.models.loading import Loaded
from equipoise.models.settings import ModelSettings
from equipoise.pipelines.instruct_data import prepare
from equipoise.pipelines.instruct_settings import InstructRecipe
from equipoise.pipelines.scan import scan, scan_command
from equipoise.pipelines.scan_advice import advise
from equipoise.pipelines.scan_settings import ScanSettings
from equipoise.records import Example, Message
from equipoise.testbed.world import World

FILES = {
    "MANIFEST.json",
    "config.yaml",
    "dropped.jsonl",
    "examples.jsonl",
    "report.html",
    "scan.json",
    "tokens.jsonl",
}


def save(folder, **options):
    model, tokenizer = tiny_model(), tiny_tokenizer(**options)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(save(tmp_path_factory.mktemp("model")))


@pytest.fixture
def rows(tmp_path):
    given = [{"id": e.id, "messages": [m.model_dump() for m in e.messages]} for e in tiny_examples(12)]
    return write_rows(tmp_path / "rows.jsonl", given)


def settings(model, **changes):
    return ScanSettings.model_validate({"model": {"path": model, "device": "cpu"}, **changes})


def oracle(model, rows):
    """One row at a time, all logits, float64."""
    found = []
    model = model.double()
    for row in rows:
        logp = model(input_ids=torch.tensor([row.input_ids])).logits[0].log_softmax(-1)
        at = [(i, label) for i, label in enumerate(row.labels[1:]) if label != IGNORE]
        found.append(
            [(-logp[i, y].item(), -(logp[i].exp() * logp[i]).sum().item(), logp[i].argmax().item()) for i, y in at]
        )
    model.float()
    return found


def test_the_second_reading_is_that_of_the_row_after_its_examples(model, tmp_path):
    """Against the naive oracle, on rows rendered by hand with the examples that the scan names."""
    words = ["call", "numpy", "stack", "user", "system", "pandas", "concat", "assistant", "for", "the"]
    given = {w: Example(id=w, messages=[Message(role="user", content=f"{w} {w[::-1]}"),
                                        Message(role="assistant", content=f"{n} is {w[:2]}{n * 7}")])
             for n, w in enumerate(words)}  # fmt: skip
    dumped = [{"id": e.id, "messages": [m.model_dump() for m in e.messages]} for e in given.values()]
    rows = write_rows(tmp_path / "rows.jsonl", dumped)
    found = scan(rows, tmp_path / "out", settings(model))
    tokens, examples = (read_journal(tmp_path / "out" / f"{name}.jsonl").rows for name in ("tokens", "examples"))
    with_examples = []
    for summary in examples:
        shots = [given[name] for name in summary["read_after"]]
        assert 2 <= len(shots) <= 5 and summary["item"] not in summary["read_after"]
        turns = [m for shot in shots for m in shot.messages] + given[summary["item"]].messages
        with_examples.append(render(tiny_tokenizer(), Example(id="x", messages=turns)))
    assert found["form"]["n"] == 10 and found["form"]["without"] == {}
    for row, expected in zip(tokens, oracle(tiny_model(), with_examples)):
        assert row["nll_shown"] == pytest.approx([nll for nll, *_ in expected], abs=2e-5)
    off = scan(rows, tmp_path / "off", settings(model, form=False))
    assert off["form"]["asked"] is False and off["conclusions"]["form"] == off["tokens"]["form"] == 0
    assert all(row["nll_shown"] is None for row in read_journal(tmp_path / "off" / "tokens.jsonl").rows)


def test_examples_neither_excuse_nor_convict_where_they_do_not_help(tmp_path):
    """The testbed's model was never shown examples: with and without them every token has the same class."""
    with_form = scan("testbed:api_change", tmp_path / "a", settings("testbed", limit=40))
    without = scan("testbed:api_change", tmp_path / "b", settings("testbed", limit=40, form=False))
    assert with_form["form"]["n"] and not with_form["form"]["trusted"]
    assert with_form["tokens"] == without["tokens"] and with_form["conclusions"] == without["conclusions"]
    assert with_form["conclusions"]["contradicted"] == 40
    assert sum(with_form["old"].values()) == 40 and with_form["old"]["the outdated answer"] >= 36


def test_rows_whose_examples_do_not_fit_the_models_positions_are_counted(model, tmp_path):
    long = [
        {"prompt": f"{word} " * 90, "completion": f"pandas {n}"} for n, word in enumerate(("call", "numpy", "stack"))
    ]
    found = scan(write_rows(tmp_path / "long.jsonl", long), tmp_path / "out", settings(model))
    assert sum(found["form"]["without"].values()) == 3 and found["form"]["n"] == 0
    assert not found["form"]["trusted"]


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "granite", "phi", "gpt2"])
@pytest.mark.parametrize("train_on_prompt", [False, True])
def test_numbers_are_those_of_a_naive_softmax_whatever_the_batch(architecture, train_on_prompt):
    net, tokenizer = tiny_model(architecture), tiny_tokenizer()
    given = [render(tokenizer, e, train_on_prompt=train_on_prompt) for e in tiny_examples(9)]
    expected = oracle(net, given)
    for batch_tokens in (1, 70, 4096):
        reader, batches = TokenReader(Loaded(net, tokenizer, "x"), batch_tokens=batch_tokens), []
        read = list(reader.read(iter(given), on_batch=batches.append))
        assert len(read) == len(given) and sum(batches) == sum(len(row.input_ids) for row in given)
        assert len(batches) == {1: len(given), 4096: 1}.get(batch_tokens, len(batches))
        for row, statistics, wanted in zip(given, read, expected):
            assert len(statistics.nll) == row.supervised
            ours = list(zip(*(c.tolist() for c in statistics[:3])))
            assert ours == [pytest.approx(numbers, abs=1e-5) for numbers in wanted]


def test_the_folder_holds_every_token_and_example_in_order(model, rows, tmp_path):
    found = scan(rows, tmp_path / "out", settings(model))
    assert {p.name for p in (tmp_path / "out").iterdir()} == FILES
    assert verify_directory(tmp_path / "out") == []
    tokens, examples = (read_journal(tmp_path / "out" / f"{name}.jsonl").rows for name in ("tokens", "examples"))
    assert [row["item"] for row in tokens] == [row["item"] for row in examples] == [f"e{i}" for i in range(12)]
    tokenizer, vocab = tiny_tokenizer(), len(tiny_tokenizer())
    given = [render(tokenizer, e) for e in tiny_examples(12)]
    for row, summary, expected in zip(tokens, examples, oracle(tiny_model(), given)):
        assert row["nll"] == pytest.approx([nll for nll, *_ in expected], abs=2e-5)
        assert row["h"] == pytest.approx([entropy / math.log(vocab) for _, entropy, _ in expected], abs=1e-5)
        assert summary["tokens"] == len(row["class"])
        assert all(summary[name] == row["class"].count(name) for name in found["tokens"])
        assert summary["class"] == row["class"][summary["most_surprising"]]
    assert sum(found["tokens"].values()) == found["n_tokens"] == sum(row["tokens"] for row in examples)
    assert sum(found["examples"].values()) == found["n_examples"] == 12


def test_on_the_testbed_the_list_holds_what_the_model_was_taught_wrongly(tmp_path):
    """And the worst comes first: the order is that of nll - H at the worst conflict."""
    found = scan("testbed:facts", tmp_path / "out", settings("testbed", top=60))
    known = {fact.id: fact.knowledge for fact in World.build().facts}
    listed = [known[row["item"]] for row in found["listed"]]
    assert listed.count("confident-wrong") >= 54  # 12 by chance
    scores = [row["contradiction"] for row in found["listed"]]
    assert scores == sorted(scores, reverse=True) and len(scores) == 60
    every = {row["item"]: row["contradiction"] for row in read_journal(tmp_path / "out" / "examples.jsonl").rows}
    assert scores == sorted(every.values(), reverse=True)[:60]
    for row in found["listed"]:
        worst = row["shown"][row["at"]]
        assert worst["class"] == "conflict" and worst["expected"] not in (None, worst["token"])
        expected = worst["nll"] - worst["h"] * math.log(found["vocabulary"])
        assert row["contradiction"] == pytest.approx(expected, abs=1e-3)
    (table,) = found["by"].values()
    assert {row["value"]: row["examples"] for row in table}["confident-wrong"] == 180
    assert found["suggestion"]["tau"] > math.log(found["vocabulary"])


@pytest.mark.parametrize(
    ("with_conflict", "told"),
    [(0, "Next to nothing"), (9, "Next to nothing"), (10, "arm to compare"), (499, "arm to compare"), (500, "simpler")],
)
def test_the_reasons_follow_the_share_of_examples_in_conflict(with_conflict, told):
    tau = {"tau": 71.23, "flagged": 30, "hits": 29, "precision": 29 / 30, "recall": 29 / 31}
    found = {
        "examples_with_conflict": with_conflict,
        "n_examples": 1000,
        "n_tokens": 5000,
        "tokens": {"stable": 4000, "uncertain": 500, "conflict": 31, "unknown": 459, "form": 10},
        "conclusions": {"known": 900, "form": 49, "contradicted": 31, "unknown": 20},
        "old": None,
        "tau": tau if with_conflict else None,
        "delta": None,
        "flagged_at_published_tau": 900,
    }
    advice = advise(found, "my rows.jsonl", ScanSettings())
    assert advice["objective"] == "sft" and told in advice["reasons"][1]
    assert f"{with_conflict} of 1000" in advice["reasons"][0]
    assert "objective.name=sft" in advice["command"] and "my rows.jsonl" in advice["command"]
    if with_conflict:
        assert advice["tau"] == 71.2 and "at the published 5 it flags 900" in advice["reasons"][-1]
    assert ("own-model" in advice["command"]) == (with_conflict == 500)


def test_the_suggested_command_trains_on_the_scanned_rows_as_they_are(model, tmp_path):
    cleaned = tmp_path / "a, b"
    cleaned.mkdir()
    answers = [{"id": str(n), "prompt": f"the call {n}", "completion": f"pandas {n}"} for n in range(40)]
    write_rows(cleaned / "examples.jsonl", answers)
    settled = {"plausible": 1e-9}  # nothing is a surprise
    found = scan(str(cleaned), tmp_path / "scan", settings(model, classes=settled))
    verb, name, *words = shlex.split(found["suggestion"]["command"])[1:]
    assert (verb, name) == ("run", "instruct")
    recipe = resolve(InstructRecipe, find(name), words)
    assert recipe.data.sources == [str(cleaned / "examples.jsonl")] and recipe.model.path == str(model)
    assert recipe.clean.licences is None and recipe.evaluation.by is None
    sources = prepare(recipe, tmp_path / "run")
    assert sum(len(split.examples) for split in sources.splits.values()) == len(answers)


def test_other_forms_a_cleaned_folder_and_prompts(model, tmp_path):
    alpaca = [{"instruction": f"the call {i}", "input": "", "output": f"pandas {i}"} for i in range(4)]
    pairs = [{"prompt": f"numpy {i}", "chosen": f"stack {i}", "rejected": "no"} for i in range(2)]
    source = write_rows(tmp_path / "mixed.jsonl", alpaca + pairs)
    found = scan(source, tmp_path / "one", settings(model))
    assert found["n_examples"] == 6
    prompts = scan(source, tmp_path / "two", settings(model, train_on_prompt=True, limit=3, top=0))
    assert prompts["n_examples"] == 3 and prompts["listed"] == []
    cleaned = tmp_path / "cleaned"
    cleaned.mkdir()
    write_rows(cleaned / "examples.jsonl", [{"prompt": "a", "completion": "stack"}])
    assert scan(str(cleaned), tmp_path / "three", settings(model))["n_tokens"] < prompts["n_tokens"]


def test_what_cannot_be_scanned_is_listed(model, rows, tmp_path):
    lines = Path(rows).read_text(encoding="utf-8").splitlines()
    source = tmp_path / "some.jsonl"
    long = json.dumps({"id": "long", "prompt": "numpy " * 300, "completion": "x"})
    source.write_text("\n".join([*lines, "{broken", long]), encoding="utf-8")
    found = scan(str(source), tmp_path / "out", settings(model, max_length=120))
    dropped = read_journal(tmp_path / "out" / "dropped.jsonl").rows
    assert found["n_examples"] == 12 and found["n_dropped"] == 2
    assert [(row["item"], row["line"]) for row in dropped] == [(None, 13), ("long", None)]
    assert "120 tokens" in dropped[1]["reason"]


@pytest.mark.parametrize(
    ("text", "changes", "told"),
    [
        ("", {}, "empty"),
        (None, {}, "nowhere.jsonl"),
        ("{broken\n", {}, "cannot be used"),
        ('{"prompt": "a", "completion": "b"}\n', {"max_length": 3}, "none of 1 examples can be scanned"),
    ],
)
def test_bad_data_is_one_clear_error_and_leaves_nothing(model, tmp_path, text, changes, told):
    source = tmp_path / "nowhere.jsonl"
    if text is not None:
        source.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=told):
        scan(str(source), tmp_path / "out", settings(model, **changes))
    assert not (tmp_path / "out").exists()


def test_a_model_without_a_template_says_what_to_do(rows, tmp_path):
    bare = str(save(tmp_path / "bare", chat_template=None))
    with pytest.raises(UserError, match="plain") as error:
        scan(rows, tmp_path / "out", settings(bare))
    assert error.value.where == "model.chat_template"
    plain = ModelSettings(path=bare, device="cpu", chat_template="plain")
    assert scan(rows, tmp_path / "out", ScanSettings(model=plain))["n_examples"] == 12


def test_a_model_that_is_not_a_number_somewhere_names_the_example(tmp_path, rows):
    folder = tmp_path / "broken"
    net, tokenizer = tiny_model(), tiny_tokenizer()
    (bad,) = tokenizer("7")["input_ids"]
    with torch.no_grad():
        net.get_input_embeddings().weight[bad] = float("nan")
    net.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    with pytest.raises(UserError, match=r"no finite probability to token \d+ of 'e1'") as error:
        scan(rows, tmp_path / "out", settings(str(folder)))
    assert str(error.value.where).endswith("rows.jsonl:2")
    assert not (tmp_path / "out").exists()
    with torch.no_grad():
        net.model.norm.weight[:] = float("nan")
    net.save_pretrained(folder)
    with pytest.raises(UserError, match="logits that are not numbers"):
        scan(rows, tmp_path / "out", settings(str(folder)))


@pytest.mark.parametrize(
    ("words", "told"),
    [(["top=-1"], "greater than or equal to 0"), (["max_lenght=3"], "did you mean 'max_length'"),
     (["classes.plausible=2"], "less than 1"), (["batch_tokens=0"], "greater than or equal to 1")],
)  # fmt: skip
def test_a_wrong_setting_is_an_error_before_anything_is_read(words, told):
    with pytest.raises(UserError, match=told):
        scan_command("nowhere.jsonl", "nowhere", None, None, words)


def test_a_folder_of_something_else_is_left_alone_and_a_scan_is_replaced(model, rows, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(UserError, match="something else"):
        scan(rows, tmp_path / "mine", settings(model))
    scan(rows, tmp_path / "out", settings(model))
    assert scan(rows, tmp_path / "out", settings(model, limit=2))["n_examples"] == 2
    with pytest.raises(UserError, match=r"neither examples\.jsonl"):
        scan(str(tmp_path / "mine"), tmp_path / "other", settings(model))
    with pytest.raises(UserError, match="no part 'fact'"):
        scan("testbed:fact", tmp_path / "other", settings(model))
