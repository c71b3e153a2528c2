"""Instruct runs whose data, stages or models are not the usual ones: what is held out, named twice, or missing."""

import json
import weakref

import pytest
from instruct_run import RECIPE, make, rows, run, write
from tiny_models import tiny_folder
from typer.testing import CliRunner

from equipoise.cli import app
from equipoise.config import resolve
from equipoise.evaluation.answers import answer_rows
from equipoise.evaluation.instruct_analysis import analyse, flat_results
from equipoise.models.loading import load_model
from equipoise.models.settings import ModelSettings
from equipoise.pipelines import instruct
from equipoise.pipelines.instruct_data import prepare
from equipoise.pipelines.instruct_settings import InstructRecipe
from equipoise.testbed.instructions import load_instructions, load_preferences

SHORT = RECIPE.replace("epochs: 2", "epochs: 1").replace("sanity: testbed", "sanity: null")


def evaluate(*words):
    return CliRunner().invoke(app, ["evaluate", *map(str, words)])


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("instruct")
    result = run(make(folder, SHORT), folder / "run")
    assert result.exit_code == 0, result.output
    return folder


def contents(folder):
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file() and not p.name.endswith(".lock")}


# ---- nothing, or not all, is held out


def test_no_instructions_are_no_rows():
    assert answer_rows(load_model(ModelSettings(path="testbed")), [], max_new_tokens=4, max_length=64) == []


def test_a_run_without_held_out_rows_trains_and_says_so(tmp_path):
    result = run(make(tmp_path, SHORT), tmp_path / "run", "data.test=0", "data.validation=0", "dpo=null")
    assert result.exit_code == 0, result.output
    assert "no row is held out" in result.output and (tmp_path / "run" / "report.html").exists()
    said = evaluate(tmp_path / "run")
    assert said.exit_code == 2 and "data.test" in said.output


def test_pairs_alone_are_enough_for_dpo(tmp_path):
    recipe = make(tmp_path, SHORT)
    named = [f"data.sources=[{tmp_path}/pairs.jsonl]", f"data.test=[{tmp_path}/test_pairs.jsonl]", "sft=null"]
    shown = run(recipe, tmp_path / "run", "--dry-run", *named)
    assert shown.exit_code == 0 and "3 of dpo" in shown.output and "»" in shown.output, shown.output
    result = run(recipe, tmp_path / "run", *named)
    assert result.exit_code == 0, result.output
    analysis = json.loads((tmp_path / "run" / "instruct.json").read_text())
    assert set(analysis["scores"]["dpo"]) == {"pairs", "pairs_per_token"}


def asked(method, tokens):
    return [
        {"method": method, "seed": 1, "id": str(n), "group": str(n), "nll": 2.0 * count, "tokens": count}
        | {"exact": n % 2, "length": 3}
        for n, count in enumerate(tokens)
    ]


def test_answers_too_long_to_score_have_no_part_in_the_loss():
    found = analyse([*asked("untrained", [0, 0, 3, 0, 1]), *asked("sft", [0, 0, 3, 0, 1])], [])
    assert found["scores"]["sft"]["loss"]["mean"] == pytest.approx(2.0)
    assert found["scores"]["sft"]["exact"]["mean"] == pytest.approx(0.4)
    none = [*asked("untrained", [0, 0]), *asked("sft", [0, 0])]
    assert set(analyse(none, [])["scores"]["sft"]) == {"exact", "length"}
    assert {row.metric for row in flat_results(none, [])} == {"exact", "length"}


def test_a_dry_run_shows_the_first_row_that_fits(tmp_path):
    recipe = make(tmp_path, SHORT)
    lengths = [len(example.prompt) for example in load_instructions("sft")[:24]]
    assert lengths[0] > min(lengths)
    shown = run(recipe, tmp_path / "run", "--dry-run", "sft.max_length=26")
    assert shown.exit_code == 0 and "»" in shown.output, shown.output
    none = run(recipe, tmp_path / "run", "--dry-run", "sft.max_length=4")
    assert none.exit_code == 2 and "no row can be trained on" in none.output


def test_the_memory_is_that_of_the_stage_that_needs_most(tmp_path):
    recipe = make(tmp_path, SHORT)

    def memory(*words):
        said = run(recipe, tmp_path / "run", "--dry-run", *words).output
        return next(line for line in said.splitlines() if line.startswith("memory:"))

    large, alone = ["dpo.batch_size=64", "sft.batch_size=1"], ["dpo.batch_size=64", "sft=null", "dpo.lora.r=4"]
    assert memory(*large) == memory(*alone) != memory("sft.batch_size=1", "dpo.batch_size=1")


# ---- what stands in two splits


def test_a_question_may_not_be_validated_and_tested_on(tmp_path):
    """The best model is chosen on the one, so the other would flatter it."""
    recipe = make(tmp_path, SHORT)
    for name in ("test", "test_pairs"):
        result = run(recipe, tmp_path / name, f"data.validation=[{tmp_path}/{name}.jsonl]", "--until", "clean")
        assert result.exit_code == 2 and "stands in both sets" in result.output


def test_shares_that_leave_nothing_are_refused_at_once(tmp_path):
    result = run(make(tmp_path, SHORT), tmp_path / "run", "data.validation=0.6", "data.test=0.4")
    assert result.exit_code == 2 and "nothing to train on" in result.output and not (tmp_path / "run").exists()


def test_an_empty_list_of_files_is_refused_at_once(tmp_path):
    result = run(make(tmp_path, SHORT), tmp_path / "run", "data.test=[]")
    assert result.exit_code == 2 and "data.test" in result.output and not (tmp_path / "run").exists()


# ---- mistakes


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("sft.optimizer=adamw_torchh", "sft.optimizer"),
        ("dpo.optimizer=adamw_torchh", "dpo.optimizer"),
        ("sft.lora.target_modules=[q_projj]", "sft.lora.target_modules"),
        ("sft.precision=fp16", "sft.precision"),
        ("objective.name=sftt", "did you mean 'sft'"),
        ("data.sources=[DIR/rowz.jsonl]", "did you mean DIR/rows.jsonl"),
        ("data.sources=[testbed:instructions, DIR/rowz.jsonl]", "did you mean DIR/rows.jsonl"),
        ("data.sources=[testbed:instruction]", "testbed:instructions"),
    ],
)
def test_a_mistake_is_named_as_the_recipe_has_it_and_leaves_no_run_behind(tmp_path, override, said):
    recipe = make(tmp_path, SHORT)
    for more in (["--dry-run"], []):
        result = run(recipe, tmp_path / "run", override.replace("DIR", str(tmp_path)), *more)
        assert result.exit_code == 2 and said.replace("DIR", str(tmp_path)) in result.output, result.output
        assert not (tmp_path / "run").exists()


def test_a_mistake_in_a_run_that_has_begun_leaves_it_alone(tmp_path):
    recipe = make(tmp_path, SHORT)
    assert run(recipe, tmp_path / "run", "--until", "clean").exit_code == 0
    before = contents(tmp_path / "run")
    (tmp_path / "rows.jsonl").unlink()
    assert run(recipe, tmp_path / "run").exit_code == 2
    assert contents(tmp_path / "run") == before


# ---- a model measured again


def test_other_questions_than_the_runs_leave_it_as_it_is(done):
    write(done / "others.jsonl", load_instructions("test")[40:45])
    before = contents(done / "run")
    said = evaluate(done / "run", f"data.test=[{done}/others.jsonl]", "--out", done / "others")
    assert said.exit_code == 0, said.output
    assert [row["id"] for row in rows(done / "others" / "predictions.jsonl")] == [
        example.id for example in load_instructions("test")[40:45]
    ]
    assert contents(done / "run") == before


@pytest.mark.parametrize("test", ["[{}/rows.jsonl]", "[{}/pairs.jsonl]", "0.5"])
def test_a_model_is_not_measured_on_what_it_was_trained_on(done, test):
    said = evaluate(done / "run", f"data.test={test.format(done)}")
    assert said.exit_code == 2 and "stands in both sets" in said.output


def test_the_testbeds_files_are_written_once(tmp_path):
    recipe = resolve(InstructRecipe, make(tmp_path, SHORT), ["data.test=[testbed:test]"])
    prepare(recipe, tmp_path / "run")
    before = contents(tmp_path / "run")
    prepare(recipe, tmp_path / "run")
    assert contents(tmp_path / "run") == before


# ---- stages


def test_a_finished_run_asked_for_an_earlier_stage_still_means_its_last_model(done):
    before = (done / "run" / "model.json").read_text()
    assert run(done / "recipe.yaml", done / "run", "--until", "sft").exit_code == 0
    assert (done / "run" / "model.json").read_text() == before and "dpo" in before


def test_a_stage_that_the_recipe_leaves_out_cannot_be_stopped_after(tmp_path):
    recipe = make(tmp_path, SHORT)
    for stage in ("sft", "dpo"):
        result = run(recipe, tmp_path / "run", f"{stage}=null", "--until", stage)
        assert result.exit_code == 2 and f"no stage {stage}" in result.output and not (tmp_path / "run").exists()


def test_one_model_at_a_time_is_in_memory(tmp_path, monkeypatch):
    models, alive = [], []
    load = instruct.load_model

    def counted(settings):
        alive.append(sum(model() is not None for model in models))
        loaded = load(settings)
        models.append(weakref.ref(loaded.model))
        return loaded

    monkeypatch.setattr(instruct, "load_model", counted)
    recipe = resolve(InstructRecipe, make(tmp_path, SHORT), ["dpo=null"])
    instruct.run(recipe, tmp_path / "run")
    assert alive == [0, 0]


# ---- models


def test_a_model_without_a_template_is_refused_before_a_folder_is_made(tmp_path):
    model = tiny_folder(tmp_path / "phi", "phi")
    (model / "chat_template.jinja").unlink()
    recipe = make(tmp_path, SHORT)
    result = run(recipe, tmp_path / "run", f"model.path={model}")
    assert result.exit_code == 2 and "chat_template" in result.output and not (tmp_path / "run").exists()


def test_the_phi_2_recipe_fits_a_phi_without_a_template(tmp_path):
    model = tiny_folder(tmp_path / "phi", "phi")
    (model / "chat_template.jinja").unlink()
    write(tmp_path / "rows.jsonl", load_instructions("sft")[:24])
    write(tmp_path / "pairs.jsonl", load_preferences("preferences")[:24])
    own = [f"data.sources=[{tmp_path}/rows.jsonl,{tmp_path}/pairs.jsonl]", "data.test=0.3"]
    result = run(
        "instruct-phi-2", tmp_path / "run", f"model.path={model}", "model.quantization=null", *own, "--dry-run"
    )
    assert result.exit_code == 0 and "trainable" in result.output, result.output


def test_the_testing_sheet_says_which_answers_were_right(done):
    result = CliRunner().invoke(app, ["export", str(done / "run"), "--adapter", "--out", str(done / "handed-on")])
    assert result.exit_code == 0, result.output
    answers = [row for row in rows(done / "run" / "predictions.jsonl") if row["method"] == "dpo"]
    assert any(row["exact"] for row in answers)
    sheet = (done / "handed-on" / "TESTING.md").read_text()
    assert "which counted as right" in sheet and "which counted as wrong" in sheet


def test_interrupted_while_it_is_measured_it_says_how_to_go_on_and_does(tmp_path, monkeypatch):
    asked, real = [], instruct._measure

    def interrupted(*args):
        asked.append(args[-2:])
        if len(asked) == 2:  # the first measures the untrained model
            raise KeyboardInterrupt
        real(*args)

    monkeypatch.setattr(instruct, "_measure", interrupted)
    recipe = make(tmp_path, SHORT)
    result = run(recipe, tmp_path / "run", "dpo=null")
    assert result.exit_code == 130 and f"is saved in {tmp_path / 'run'}; run the same command again" in result.output
    again = run(recipe, tmp_path / "run", "dpo=null")
    assert again.exit_code == 0 and [stage for stage, _ in asked] == ["untrained", "sft", "sft"]
