"""Confidence tokens from questions to a report, on a sample of the testbed's questions and its own model."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from equipoise.cli import app
from equipoise.errors import UserError
from equipoise.journal import read_journal, verify_directory
from equipoise.metrics.graded import HIGHER_IS_BETTER
from equipoise.pipelines.confidence_chat import Talker
from equipoise.pipelines.confidence_settings import ConfidenceRecipe
from equipoise.pipelines.confidence_tokens import run
from equipoise.records import Result
from equipoise.testbed import questions as testbed

DOMAINS = {
    "reading": {"answers": "yes-no", "confident": "<C_READ>", "uncertain": "<U_READ>"},
    "medical": {"answers": "choice", "confident": "<C_MED>", "uncertain": "<U_MED>"},
}
TRAINING = {
    "epochs": 1,
    "learning_rate": 1e-4,
    "token_learning_rate": 3e-3,
    "batch_size": 16,
    "gradient_checkpointing": False,
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("questions")
    for domain in DOMAINS:
        rows = [q.model_dump(exclude={"dataset"}) for q in testbed.load(domain)[::20]]
        (folder / f"{domain}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return folder


def recipe(sources, **changes) -> ConfidenceRecipe:
    domains = {name: {**one, "source": str(sources / f"{name}.jsonl")} for name, one in DOMAINS.items()}
    given = {
        "model": {"path": "testbed:questions"},
        "domains": domains,
        "data": {"validation": 0.2, "calibration": 0.2, "test": 0.3, "max_new_tokens": 4},
        "training": TRAINING,
        "validation": {"beta": 20},
    }
    return ConfidenceRecipe(**{**given, **changes})


@pytest.fixture(scope="module")
def done(sources, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    strong = {"path": "testbed:questions", "adapter": "testbed:questions-strong"}
    return folder, run(recipe(sources, strong=strong), folder)


def rows_of(folder: Path, name: str) -> list[dict]:
    return read_journal(folder / name).rows


def test_a_run_leaves_what_its_page_promises(done):
    folder, _ = done
    for name in ("final", "best_accuracy", "best_calibration"):
        assert verify_directory(folder / name) == [], name
        assert (folder / name / "adapter_model.safetensors").is_file()
    assert list(folder.glob("logs/**/events.*"))
    table = json.loads((folder / "reliability_epoch_1.json").read_text(encoding="utf-8"))
    assert set(table) == {"step", "epoch", "reading", "medical", "overall"}
    tagged = rows_of(folder, "tagged/testbed-questions/testbed-questions_all_tagged.jsonl")
    assert {tuple(row["tagged_response"].split()[-1:]) for row in tagged if row["correct"]} == {
        ("<C_READ>",),
        ("<C_MED>",),
    }
    assert "`<C_MED>` sure" in (folder / "MODEL_CARD.md").read_text(encoding="utf-8")


def test_no_question_and_no_fact_stands_in_two_splits(done):
    folder, _ = done
    of = {name: rows_of(folder, f"splits/{name}.jsonl") for name in ("train", "validation", "calibration", "test")}
    assert all(of.values())
    for key in ("question", "group"):
        seen = [{(row["dataset"], row["context"], row[key]) for row in rows} for rows in of.values()]
        assert sum(map(len, seen)) == len(set().union(*seen))


def test_results_are_those_of_the_predictions(done):
    folder, analysis = done
    rows = rows_of(folder, "predictions.jsonl")
    right = sum(row["token"] == row["expected"] for row in rows) / len(rows)
    assert analysis["metrics"]["confidence-token"]["overall"]["validation_accuracy"]["mean"] == pytest.approx(right)
    assert len({row["p"] for row in rows}) > len(rows) / 2, "p varies between inputs"
    for row in json.loads((folder / "results.json").read_text(encoding="utf-8")):
        assert Result(**row).higher_is_better is HIGHER_IS_BETTER.get(row["metric"], row["higher_is_better"])
    assert analysis["routing"]["strong"] > analysis["routing"]["weak"]


def test_a_finished_run_is_only_analysed_again(done, sources):
    folder, analysis = done
    strong = {"path": "testbed:questions", "adapter": "testbed:questions-strong"}
    before = (folder / "predictions.jsonl").read_bytes()
    assert run(recipe(sources, strong=strong), folder) == analysis
    assert (folder / "predictions.jsonl").read_bytes() == before


def test_chat_strips_the_token_and_says_how_sure_it_is(done):
    folder, _ = done
    talker = Talker.of(folder)
    question = testbed.load("medical")[0]
    reply = talker.reply(question.prompt)
    assert reply.text in question.options
    assert 0 <= reply.confidence <= 1
    (row,) = [row for row in rows_of(folder, "predictions.jsonl") if row["domain"] == "medical"][:1]
    assert talker.reply(row["prompt"]).text == row["output"]


def test_what_was_found_for_one_model_is_not_used_for_another(done, capsys):
    folder, _ = done
    other = Talker.of(folder / "best_accuracy")
    assert (other.calibrators, other.threshold) == ({}, None)
    assert "found for `final`" in capsys.readouterr().err
    assert set(Talker.of(folder).calibrators) >= set(DOMAINS)


def test_chat_asks_as_training_did(done):
    folder, _ = done
    talker = Talker.of(folder)
    question = testbed.load("medical")[0].prompt
    head, _, last = question.rpartition("\n")
    of = talker.recipe.domains["medical"].model_copy(update={"instruction": last})
    taught = replace(talker, recipe=talker.recipe.model_copy(update={"domains": {"medical": of}}))
    assert taught.reply(head, "medical") == talker.reply(question, "medical")


def test_without_a_domain_chat_adds_what_all_domains_say(done):
    talker = Talker.of(done[0])

    def taught(**instructions):
        domains = {
            name: one.model_copy(update={"instruction": instructions[name]})
            for name, one in talker.recipe.domains.items()
        }
        return replace(talker, recipe=talker.recipe.model_copy(update={"domains": domains}))

    first, second = DOMAINS
    alike = taught(**{first: "Be short.", second: "Be short."})
    assert alike.reply("Is it so?") == talker.reply("Is it so?\nBe short.")
    apart = taught(**{first: "Be short.", second: None})
    assert apart.reply("Is it so?") == talker.reply("Is it so?")
    assert apart.reply("Is it so?", first) == talker.reply("Is it so?\nBe short.", first)


def test_the_verbs_on_a_run(done, tmp_path):
    folder, _ = done
    verbs = CliRunner()
    said = verbs.invoke(app, ["chat", str(folder)], input="Is it so?\n")
    assert said.exit_code == 0, said.output
    assert "confidence" in said.output
    said = verbs.invoke(app, ["evaluate", str(folder / "best_accuracy"), "--out", str(tmp_path / "asked")])
    assert said.exit_code == 0, said.output
    assert len(rows_of(tmp_path, "asked/predictions.jsonl")) == len(rows_of(folder, "predictions.jsonl"))
    said = verbs.invoke(app, ["report", str(folder)])
    assert said.exit_code == 0, said.output
    said = verbs.invoke(app, ["export", str(folder), "--out", str(tmp_path / "plain")])
    assert said.exit_code == 0, said.output


def test_an_exported_model_says_what_the_run_said(done, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, _ = done
    said = CliRunner().invoke(app, ["export", str(folder), "--out", str(tmp_path / "plain")])
    assert said.exit_code == 0, said.output
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "plain")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "plain")
    row = rows_of(folder, "predictions.jsonl")[0]
    turn = [{"role": "user", "content": row["prompt"]}]
    ids = tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    tokens = model.generate(**ids, max_new_tokens=4, do_sample=False)[0, ids["input_ids"].shape[1] :]
    pair = DOMAINS[row["domain"]]
    token = {"C": pair["confident"], "U": pair["uncertain"], None: ""}[row["token"]]
    assert tokenizer.decode(tokens).startswith(row["output"] + token)


def test_tagged_rows_in_the_three_field_form_are_enough(done, sources, tmp_path):
    folder, _ = done
    fields = ("question", "context", "tagged_response", "dataset")
    rows = rows_of(folder, "tagged/testbed-questions/testbed-questions_all_tagged.jsonl")
    path = tmp_path / "tagged.jsonl"
    path.write_text("\n".join(json.dumps({f: row[f] for f in fields}) for row in rows), encoding="utf-8")
    options = {"tagged": str(path), "validation": 0.2, "calibration": 0.2, "test": 0.3, "max_new_tokens": 4}
    analysis = run(recipe(sources, data=options), tmp_path / "run")
    # of a wrong letter the file does not say which one would be right
    assert analysis["n"]["reading"] > analysis["n"]["medical"] > 0
    assert not (tmp_path / "run" / "answers.jsonl").exists()


@pytest.mark.parametrize("mode", ["self-ref", "existing-token"])
def test_the_other_modes_run_to_the_end(sources, tmp_path, mode):
    analysis = run(recipe(sources, mode=mode, validation={"beta": 20, "baselines": False}), tmp_path / "run")
    assert analysis["metrics"]["confidence-token"]["overall"]["validation_accuracy"]["mean"] > 0
    if mode == "existing-token":
        with pytest.raises(UserError, match="no confidence tokens"):
            Talker.of(tmp_path / "run")


def test_the_stages_alone_go_on_where_the_last_one_ended(sources, tmp_path):
    folder = tmp_path / "run"
    assert run(recipe(sources), folder, until="answers") is None
    answers = (folder / "answers.jsonl").read_bytes()
    lines = answers.splitlines(keepends=True)
    (folder / "answers.jsonl").write_bytes(b"".join(lines[: len(lines) // 2]) + lines[-1][:20])  # cut off in mid-write
    assert run(recipe(sources), folder, until="data") is None
    again = rows_of(folder, "answers.jsonl")
    assert sorted(row["id"] for row in again) == sorted(json.loads(line)["id"] for line in lines)
    same = {(r["domain"], r["id"]): r["output"] for r in map(json.loads, lines)}
    assert same == {(r["domain"], r["id"]): r["output"] for r in again}
    counts = json.loads((folder / "data.json").read_text(encoding="utf-8"))["counts"]
    assert sum(sum(of.values()) for of in counts.values()) == len(again)


def test_mistakes_are_told_before_anything_is_trained(sources, tmp_path):
    with pytest.raises(UserError, match="no test question"):
        run(recipe(sources, data={"test": 0.0, "max_new_tokens": 4}), tmp_path / "run")
    with pytest.raises(ValueError, match="called overall"):
        recipe(sources, domains={"overall": DOMAINS["reading"]})
    with pytest.raises(UserError, match="has no source of questions"):
        run(recipe(sources, domains=DOMAINS), tmp_path / "other")
