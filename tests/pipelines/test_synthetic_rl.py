"""From samples to evidence on a new domain, for real, in small: every stage alone, cut off, with other files."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from equipoise.cli import app
from equipoise.config import resolve
from equipoise.errors import UserError
from equipoise.evaluation.extraction import extract, summarise
from equipoise.models.loading import load_model
from equipoise.models.settings import ModelSettings
from equipoise.pipelines import synthetic_rl
from equipoise.pipelines.synthetic_data import load_sources
from equipoise.pipelines.synthetic_settings import SyntheticRecipe
from equipoise.testbed import ner

SHARED = Path(__file__).parents[3] / "shared" / "data"
RECIPE = """
name: small
pipeline: synthetic_rl
seeds: [1, 2]
model: {path: testbed:ner, device: cpu}
source: {train: "testbed:source", limit: 12}
target: {train: "testbed:target", limit: 16}
sampling: {samples: 4, max_new_tokens: 40}
data: {max_new_tokens: 40}
grpo: {epochs: 1, group: 4, prompts_per_step: 8, max_new_tokens: 40, lora: {r: 4}}
sft: {epochs: 1, learning_rate: 1e-3, lora: {r: 4}}
arms:
  zero-shot: {method: zero-shot}
  sft: {method: sft}
  curriculum: {method: grpo}
  dynamic: {method: grpo, curriculum: {dynamic: true, stages: 2}}
"""


def recipe_in(folder, text=RECIPE, *overrides):
    path = Path(folder) / "recipe.yaml"
    path.write_text(text)
    return resolve(SyntheticRecipe, path, list(overrides))


def rows(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthetic")
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE)
    result = CliRunner().invoke(app, ["run", str(recipe), "--out", str(folder / "run")])
    assert result.exit_code == 0, result.output
    return folder / "run", result.output


def test_every_arm_and_seed_answered_the_same_test_sentences(done):
    folder, output = done
    asked = {}
    for row in rows(folder / "predictions.jsonl"):
        asked.setdefault((row["method"], row["seed"]), set()).add((row["domain"], row["id"]))
    assert set(asked) == {("zero-shot", 1)} | {
        (arm, seed) for arm in ("sft", "curriculum", "dynamic") for seed in (1, 2)
    }
    assert len({frozenset(each) for each in asked.values()}) == 1 and len(asked["sft", 1]) == 28
    assert "target F1" in output and "curriculum against sft" in output


def test_the_untrained_model_scores_what_it_scores_alone(done):
    loaded = load_model(ModelSettings(path="testbed:ner", device="cpu"))
    expected = summarise(extract(loaded, ner.load("target", "test")[:16], ner.TYPES["target"], max_new_tokens=40))
    analysis = json.loads((done[0] / "synthetic.json").read_text())
    assert analysis["scores"]["zero-shot"]["target"]["f1"]["mean"] == pytest.approx(expected["f1"])
    assert set(analysis["changes"]) == {"sft", "curriculum", "dynamic"}
    flat = json.loads((done[0] / "results.json").read_text())
    assert {row["metric"] for row in flat} == {"f1", "precision", "recall", "valid", "non_empty"}


def test_labels_come_from_the_samples_alone_and_are_measured_by_the_right_answers(done):
    folder, _ = done
    labels = rows(folder / "pseudo_labels.jsonl")
    samples = {}
    for row in rows(folder / "samples.jsonl"):
        if row["entities"] is not None:
            said = sorted((e["type"], e["text"]) for e in row["entities"])
            samples.setdefault(row["id"], []).append(said)
    train = [row for row in labels if row["confidence"] is not None]
    assert len(train) == 16 and all(0 <= row["confidence"] <= 1 for row in train)
    for row in train:
        if row["entities"]:
            mine = sorted(map(tuple, row["entities"]))
            votes = [samples[row["id"]].count(other) for other in samples[row["id"]]]
            assert samples[row["id"]].count(mine) == max(votes)
    quality = json.loads((folder / "label_quality.json").read_text())
    right = sum(sorted(row["entities"]) == sorted(row["gold"]) for row in train) / 16
    assert quality["quality"]["right"] == pytest.approx(right)


def test_a_finished_run_is_not_run_again_and_a_cut_one_goes_on(done, tmp_path):
    folder, _ = done
    before = (folder / "cells.jsonl").read_bytes()
    again = synthetic_rl.run(recipe_in(tmp_path), folder)
    assert again is not None and (folder / "cells.jsonl").read_bytes() == before
    cells = rows(folder / "cells.jsonl")
    (folder / "cells.jsonl").write_text("".join(json.dumps(row) + "\n" for row in cells[:-1]))
    once_more = synthetic_rl.run(recipe_in(tmp_path), folder)
    assert once_more["scores"] == again["scores"]


def test_the_stages_run_alone(tmp_path):
    recipe = recipe_in(tmp_path, RECIPE, "seeds=[1]")
    assert synthetic_rl.run(recipe, tmp_path / "run", until="samples") is None
    assert not (tmp_path / "run" / "pseudo_labels.jsonl").exists()
    assert len(rows(tmp_path / "run" / "samples.jsonl")) == 4 * (16 + 16)
    assert synthetic_rl.run(recipe, tmp_path / "run", until="labels") is None
    assert (tmp_path / "run" / "label_quality.json").exists() and not (tmp_path / "run" / "cells.jsonl").exists()


def test_the_verbs_show_evaluate_and_generate(done, tmp_path):
    invoke = CliRunner().invoke
    recipe = str(done[0].parent / "recipe.yaml")
    shown = invoke(app, ["run", recipe, "--dry-run"])
    assert shown.exit_code == 0 and "24 GB" in shown.output and "the model answers" in shown.output
    model = str(done[0] / "cells" / "curriculum" / "seed-1")
    asked = invoke(app, ["evaluate", model, "--out", str(tmp_path / "asked")])
    assert asked.exit_code == 0, asked.output
    measured = {(r["domain"], r["id"]): r["output"] for r in rows(tmp_path / "asked" / "predictions.jsonl")}
    assert len(measured) == 28
    drawn = invoke(app, ["generate", recipe, "--out", str(tmp_path / "drawn")])
    assert drawn.exit_code == 0 and (tmp_path / "drawn" / "samples.jsonl").exists()


def test_samples_of_two_models_need_a_choice(done, tmp_path):
    both = rows(done[0] / "samples.jsonl")
    both += [row | {"model": "another"} for row in both]
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in both))
    given = f"labels.samples={tmp_path / 'samples.jsonl'}"
    with pytest.raises(UserError, match=r"2 models") as caught:
        synthetic_rl.run(recipe_in(tmp_path, RECIPE, given), tmp_path / "run", until="labels")
    assert "labels.model" in str(caught.value)
    synthetic_rl.run(recipe_in(tmp_path, RECIPE, given, "labels.model=another"), tmp_path / "other", until="labels")
    ours, theirs = ((f / "pseudo_labels.jsonl").read_text() for f in (done[0], tmp_path / "other"))
    assert ours == theirs


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("grpo.group=1", "nothing to compare"),
        ("primary=best", "primary names no arm"),
        ("arms.zero-shot.method=sft", "untrained model"),
        ("arms.curriculum.grpo={learing_rate: 1}", "learning_rate"),
        ("seeds=[1,1]", "twice"),
        ("labels.max_empty=2", "less than or equal"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused_before_anything_is_loaded(tmp_path, override, message):
    with pytest.raises(UserError) as caught:
        recipe_in(tmp_path, RECIPE, override)
    assert message in str(caught.value)


def test_41_a_sentence_in_train_and_test_is_refused(tmp_path):
    lines = [{"text": f"Ann met Bob {i} times.", "entities": [{"type": "person", "text": "Ann"}]} for i in range(8)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "b.jsonl").write_text(json.dumps(lines[0]) + "\n")
    recipe = recipe_in(tmp_path, RECIPE, f"target={{train: {tmp_path}/a.jsonl, test: {tmp_path}/b.jsonl}}")
    with pytest.raises(UserError, match="both"):
        load_sources(recipe)


def test_a_file_of_ones_own_is_cut_into_three_splits(tmp_path):
    lines = [{"text": f"Ann{i} met Bob.", "entities": [{"type": "person", "text": f"Ann{i}"}]} for i in range(200)]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = load_sources(recipe_in(tmp_path, RECIPE, f"target={{train: {tmp_path}/mine.jsonl}}")).target
    texts = [{s.text for s in part} for part in (found.train, found.dev, found.test)]
    assert (
        sum(map(len, texts)) == 200 == len(set.union(*texts)) and 40 < len(texts[2]) < 80 and found.types == ("person",)
    )


def test_wikigold_and_wnut17_run_from_end_to_end(tmp_path):
    if not SHARED.exists():
        pytest.skip(f"needs the data sets in {SHARED}")
    text = RECIPE.replace("seeds: [1, 2]", "seeds: [1]").split("arms:")[0]
    wikigold, wnut = SHARED / "wikigold" / "wikigold.conll.txt", SHARED / "wnut17"
    files = f"train: {wnut}/train.conll, dev: {wnut}/dev.conll, test: {wnut}/test.conll"
    recipe = recipe_in(
        tmp_path,
        text,
        f"source={{train: {wikigold}, adapter: wikigold, limit: 10}}",
        f"target={{{files}, adapter: wnut17, limit: 10}}",
        "arms={zero-shot: {method: zero-shot}, curriculum: {method: grpo}}",
        "labels.max_empty=1",
    )
    analysis = synthetic_rl.run(recipe, tmp_path / "run")
    assert analysis["n"] == {"target": 10, "source": 10}
