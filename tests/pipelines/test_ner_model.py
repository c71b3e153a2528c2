"""The model of the entities is what its data sheet says: good at the source, middling at the target."""

import json
from pathlib import Path

import pytest

from equipoise.data.extraction import pairs
from equipoise.evaluation.nersheet import find, markdown, sample, worth
from equipoise.metrics.entities import micro
from equipoise.models.loading import load_model
from equipoise.models.settings import ModelSettings
from equipoise.pipelines.testbed import NerBuildSettings, build, settings_of, shipped_sheet
from equipoise.testbed.ner import DOMAINS, NerSettings, NerWorld, datasheet_path, load, model_path

SENTENCES = slice(0, 400, 7)  # 58 of a domain's test


@pytest.fixture(scope="module")
def sheet():
    return json.loads(datasheet_path().read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def shipped():
    return load_model(ModelSettings(path="testbed:ner", device="cpu"))


def f1(loaded, sentences):
    found = find(loaded.model, loaded.tokenizer, sentences)
    counts = micro((parsed.entities, pairs(s.entities)) for parsed, s in zip(found, sentences))
    return counts.f1, sum(parsed.valid for parsed in found) / len(found)


def row(sheet, domain, difficulty="all"):
    return next(r for r in sheet["greedy"] if (r["domain"], r["difficulty"]) == (domain, difficulty))


def test_the_shipped_model_was_taught_the_text_of_the_default_settings(sheet):
    assert NerSettings.model_validate(sheet["build"]["world"]) == NerSettings()
    assert NerWorld.build().text_hash == sheet["text_hash"]
    assert settings_of("ner") is NerBuildSettings


def test_the_source_is_known_well_and_the_target_leaves_room(sheet):
    assert row(sheet, "source")["f1"] >= 0.8 and row(sheet, "source")["valid"] >= 0.9
    assert 0.3 <= row(sheet, "target")["f1"] <= 0.6 and row(sheet, "target")["valid"] >= 0.8
    falling = [row(sheet, "target", level)["f1"] for level in ("clear", "fair", "weak", "faint")]
    assert falling == sorted(falling, reverse=True) and falling[0] - falling[-1] > 0.4


def test_agreement_tells_which_labels_are_right(sheet):
    target = next(r for r in sheet["samples"] if r["domain"] == "target")
    assert target["n"] == 400
    assert target["auroc"]["exact"] >= 0.75 and target["auroc"]["combined"] >= 0.75
    assert target["right_surest"] >= 0.8 > target["right"]


@pytest.mark.parametrize("domain", DOMAINS)
def test_the_sheet_agrees_with_generation(sheet, shipped, domain):
    measured, valid = f1(shipped, load(domain, "test")[SENTENCES])
    assert measured == pytest.approx(row(sheet, domain)["f1"], abs=0.12)
    assert valid == pytest.approx(row(sheet, domain)["valid"], abs=0.12)


def test_samples_of_sentences_nobody_labelled_agree_where_they_are_right(shipped):
    """On other sentences than those of the sheet."""
    sentences = load("target", "train")[SENTENCES]
    measured = worth(sample(shipped.model, shipped.tokenizer, sentences), [pairs(s.entities) for s in sentences])
    assert measured["auroc"]["exact"] > 0.7 and measured["right_surest"] > measured["right"]


def test_the_assets_are_small():
    assert sum(file.stat().st_size for file in model_path().parent.rglob("*") if file.is_file()) <= 2_900_000


def test_a_small_world_is_built_measured_and_loaded(tmp_path):
    small = NerSettings(source=30, target=30, copying=30, cues=1, train=4, dev=4, test=16, names=20)
    settings = NerBuildSettings(
        world=small, hidden_size=32, intermediate_size=64, layers=2, heads=2, rows=2, max_steps=3
    )
    made = build(tmp_path, settings)
    assert {r["domain"]: r["n"] for r in made["greedy"] if r["difficulty"] == "all"} == {"source": 16, "target": 16}
    assert json.loads((tmp_path / "datasheet.json").read_text(encoding="utf-8")) == made
    sentence = NerWorld.build(small).sentences["source", "dev"][0]
    again = load_model(ModelSettings(path=str(tmp_path / "model"), device="cpu"))
    assert len(find(again.model, again.tokenizer, [sentence])) == 1
    assert markdown(made).startswith("| domain | told by |")


def test_the_documentation_shows_the_sheet_of_the_shipped_model(sheet):
    page = (Path(__file__).parents[2] / "docs" / "testbed.md").read_text(encoding="utf-8")
    assert shipped_sheet("ner") == markdown(sheet) and markdown(sheet) in page and sheet["text_hash"] in page
