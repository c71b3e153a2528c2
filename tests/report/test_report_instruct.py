import json
import math
import re
import shutil

import pytest
from fake_instruct import DROPPED, HOSTILE, STOPPED, make_instruct_run
from html_page import Page
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from equipoise.cli import app
from equipoise.data.rules import RULES
from equipoise.evaluation.sanity import SanityAnswer
from equipoise.report.build import build_report
from equipoise.report.instruct import render
from equipoise.report.instruct_reading import read_instruct_run

SECTIONS = ["findings", "stages", "answers", "pairs", "training", "cleaning", "data", "setup"]


def page_of(run):
    return Page(render(read_instruct_run(run)))


def rows_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def edit(path, change):
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))


@pytest.fixture(scope="module")
def text(instruct_run, tmp_path_factory):
    return build_report(instruct_run, tmp_path_factory.mktemp("out") / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_every_section_is_there_and_none_is_left_out(page):
    assert list(page.sections) == SECTIONS
    assert "Left out" not in "".join(page.sections.values())
    assert page.count("svg") == 2 + 6  # margins of pairs, training


def test_findings_tell_what_was_removed_gained_and_lost(page, instruct_run):
    shown = page.sections["findings"]
    assert f"{sum(DROPPED.values())} of 600 rows were left out: 20 duplicates, 12 near duplicates" in shown
    analysis = json.loads((instruct_run / "instruct.json").read_text())
    scores = analysis["scores"]
    for claim, word, measure, stage, before in (
        ("Did SFT lower the loss", "yes", "loss", "sft", "untrained"),
        ("Does it answer more", "yes", "exact", "sft", "untrained"),
        ("Did DPO make it prefer", "yes", "pairs", "dpo", "sft"),
        ("What did DPO cost", "the loss rose", "loss", "dpo", "sft"),
    ):
        old, new = scores[before][measure]["mean"], scores[stage][measure]["mean"]
        written = f"{old:.3f}" if measure == "loss" else f"{100 * old:.1f}%"
        after = f"{new:.3f}" if measure == "loss" else f"{100 * new:.1f}%"
        said = shown[shown.index(claim) :]
        assert re.search(rf"{written} before( training)?, {after} after", said), claim
        assert shown[: shown.index(claim)].rstrip().endswith(word), claim
    assert "draws 3 seeds and 60 questions in 20 groups anew" in shown
    assert "In 100.0% of pairs the better answer is the shorter one" in shown


def test_an_interval_that_holds_0_settles_nothing(taught_run):
    def unsettle(analysis):
        for row in analysis["changes"]:
            row["bootstrap"] = [-0.1, 0.2]

    edit(taught_run / "instruct.json", unsettle)
    page = page_of(taught_run)
    assert page.sections["findings"].count("not settled") == 4
    coloured = [a for tag, a in page.tags if tag == "b" and a.get("class") in ("yes", "no")]
    assert len(coloured) == page.sections["answers"].count("✓") + page.sections["answers"].count("✗")


def test_one_seed_gives_no_certain_answer(taught_run):
    shown = page_of(taught_run).sections
    assert "yes, in one run" in shown["findings"] and "One seed: another training run" in shown["findings"]
    assert "Left out" not in "".join(shown.values())


def test_every_stage_has_its_scores_intervals_and_changes(page, instruct_run):
    shown = page.sections["stages"]
    analysis = json.loads((instruct_run / "instruct.json").read_text())
    for by_measure in analysis["scores"].values():
        for name in ("exact", "pairs", "pairs_per_token"):
            found = by_measure[name]
            ends = [] if found["low"] is None else [max(found["low"], 0), min(found["high"], 1)]
            interval = " to ".join(f"{100 * end:.1f}" for end in ends)
            assert f"{100 * found['mean']:.1f}%{interval}" in shown
        assert f"{by_measure['loss']['mean']:.3f}{by_measure['loss']['low']:.3f} to" in shown
    for row in analysis["changes"]:
        if row["measure"] == "exact":
            low, high = (f"{100 * end:+.1f}".replace("-", "−") for end in row["bootstrap"])
            assert f"{100 * row['estimate']:+.1f}{low} to {high}".replace("-", "−") in shown
    assert "60 questions in 20 groups and 60 pairs in 20 groups" in shown
    assert "31 s60 steps" in shown


def test_answers_of_each_part_are_counted(page, instruct_run):
    shown = page.sections["answers"]
    assert "Exact answers by form" in shown
    for part, by_stage in json.loads((instruct_run / "instruct.json").read_text())["parts"].items():
        assert f"{part}20{100 * by_stage['untrained']['mean']:.1f}%" in shown


def test_a_part_that_fell_is_a_cost_whatever_the_whole_did(instruct_run, tmp_path):
    folder = shutil.copytree(instruct_run, tmp_path / "run")
    analysis = json.loads((folder / "instruct.json").read_text())
    for stage, low, high in (("sft", 0.93, 0.96), ("dpo", 0.70, 0.80)):
        analysis["parts"]["bare"] = analysis["parts"].get("bare", {}) | {
            stage: {"mean": (low + high) / 2, "low": low, "high": high, "values": [], "over": "seeds"}
        }
    (folder / "instruct.json").write_text(json.dumps(analysis))
    shown = build_report(folder).read_text()
    assert "lost in parts" in shown and "bare: 94.5% before, 75.0% after" in shown


def test_questions_are_shown_by_what_became_of_them(page, instruct_run):
    rows = [row for row in rows_of(instruct_run / "predictions.jsonl") if row["seed"] == 1]
    right = {(row["method"], row["id"]): row["exact"] for row in rows}
    ids = [row["id"] for row in rows if row["method"] == "untrained"]
    gained = [i for i in ids if right["dpo", i] and not right["untrained", i]]
    lost = [i for i in ids if not right["dpo", i] and (right["untrained", i] or right["sft", i])]
    shown = page.sections["answers"]
    assert f"right in the end, not before {len(gained)} of 60 questions" in shown
    assert f"right once, wrong in the end {len(lost)} of 60 questions" in shown
    first = next(row for row in rows if row["method"] == "untrained" and row["id"] == gained[0])
    group = shown[shown.index("right in the end") : shown.index("right once")]
    assert first["prompt"] in group and first["output"] in group and first["gold"] in group


def test_every_rule_of_cleaning_has_its_rows_and_meaning(page):
    shown = page.sections["cleaning"]
    for rule, n in DROPPED.items():
        assert f"{rule}{n}{n / 6:.1f}%{RULES[rule]}" in shown
        assert f"{rule} 2 {HOSTILE}" in shown and f"{rule} 3 {HOSTILE}" not in shown
    assert "read600100.0%" in shown and "kept55592.5%400 instructions, 155 pairs" in shown
    assert "7 by control" in shown
    assert "a duplicate of alpaca.json:7" in shown and "/deep/folder" not in shown


def test_held_out_data_shows_its_cleaning_only_where_it_lost_rows(taught_run):
    assert "Held out" not in page_of(taught_run).sections["cleaning"]
    edit(taught_run / "data.json", lambda data: data["cleaning"]["test"].update(dropped={"empty": 2}, kept=28))
    shown = page_of(taught_run).sections["cleaning"]
    assert "Held out: test" in shown and "Held out: validation" not in shown
    assert "empty26.7%" in shown


def test_a_stage_that_stopped_early_says_why(page, taught_run):
    assert f"SFT, seed 1, stopped early: {STOPPED}" in page.sections["training"]
    rows = [{k: v for k, v in row.items() if k != "stopped"} for row in rows_of(taught_run / "cells.jsonl")]
    write(taught_run / "cells.jsonl", rows)
    assert "All stages went through to their planned end" in page_of(taught_run).sections["training"]
    write(taught_run / "cells.jsonl", [row | {"dropped": 2, "anomalies": [4]} for row in rows[-1:]])
    shown = page_of(taught_run).sections["training"]
    assert "DPO, seed 1: 2 rows could not be trained on" in shown and "1 steps were passed over" in shown


def test_margins_say_in_words_how_many_pairs_are_ranked_right(page, instruct_run):
    label = next(str(a["aria-label"]) for tag, a in page.tags if tag == "svg" and "Margins" in str(a["aria-label"]))
    for stage, name in (("untrained", "untrained"), ("sft", "SFT"), ("dpo", "DPO")):
        rows = [row for row in rows_of(instruct_run / "pairs.jsonl") if row["method"] == stage]
        right = sum(row["chosen_logprob"] > row["rejected_logprob"] for row in rows) / len(rows)
        assert re.search(rf"{name}: median \S+, {100 * right:.0f}% above 0", label)


def test_equal_pairs_can_be_drawn(taught_run):
    write(taught_run / "pairs.jsonl", [r | {"rejected_logprob": -9.0, "chosen_logprob": -9.0, "rejected_tokens": 9}
                                       for r in rows_of(taught_run / "pairs.jsonl")])  # fmt: skip
    page = page_of(taught_run)
    assert "Left out" not in page.sections["pairs"] and page.count("svg") == 8


def test_training_of_a_few_steps_can_be_drawn(taught_run):
    for place in (taught_run / "cells").glob("*/*/metrics.jsonl"):
        write(place, rows_of(place)[:2])
    page = page_of(taught_run)
    assert "Left out" not in page.sections["training"] and page.count("svg") == 8


@pytest.mark.parametrize("stages", [["sft"], ["dpo"]])
def test_one_stage_alone(tmp_path, stages):
    page = page_of(make_instruct_run(tmp_path / "run", seeds=[1, 2], stages=stages, n=30))
    assert list(page.sections) == SECTIONS
    assert "Left out" not in "".join(page.sections.values())
    other = {"sft": "DPO", "dpo": "SFT"}[stages[0]]
    for section in ("findings", "stages", "answers", "pairs"):
        assert other not in page.sections[section]


def test_neither_pairs_nor_parts(tmp_path):
    page = page_of(make_instruct_run(tmp_path / "run", stages=["sft"], n=30, pairs=False, by=None))
    assert list(page.sections) == [name for name in SECTIONS if name != "pairs"]
    assert "Left out" not in "".join(page.sections.values())
    assert "Exact answers by" not in page.sections["answers"] and "Pairs right" not in page.sections["stages"]


@pytest.mark.parametrize("column", ["method", "model"])
def test_sanity_prompts_stand_side_by_side(taught_run, column):
    said = {"untrained": f"a {HOSTILE}", "sft": "Paris", "dpo": "Paris\nand more"}
    rows = []
    for name, output in said.items():
        problem = None if name == "sft" else f"is not {HOSTILE}"
        asked = [
            SanityAnswer(model=name, id="c", prompt="Capital?", output=output, passed=not problem, problem=problem),
            SanityAnswer(model=name, id="o", prompt="Write a list.", output=f"{name} list"),
        ]
        rows += [{column if key == "model" else key: value for key, value in a.model_dump().items()} for a in asked]
    write(taught_run / "sanity.jsonl", rows)
    page = page_of(taught_run)
    shown = page.sections["answers"]
    shown = shown[shown.index("Prompts to try it out") :]
    for output in (*said.values(), "untrained list", "sft list", "dpo list", f"is not {HOSTILE}"):
        assert output in shown
    assert shown.count("✓") == 1 and shown.count("✗") == 2
    assert "untrained 0 of 1 right, SFT 1 of 1 right, DPO 0 of 1 right" in shown
    (taught_run / "sanity.jsonl").write_text('{"method": 3}\n')
    assert "Left out: sanity.jsonl" in page_of(taught_run).sections["answers"]


def test_text_of_models_and_data_never_becomes_markup(page, text):
    assert page.count("script") == 0 and "<script" not in text
    for section in ("answers", "cleaning", "setup"):
        assert HOSTILE in page.sections[section]
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]


def test_nothing_is_fetched_and_figures_speak(page, text):
    for tag, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "srcset"):
            assert not attributes.get(name) or str(attributes[name]).startswith("#"), (tag, name)
    labels = [a.get("aria-label") for tag, a in page.tags if tag == "svg"]
    assert all(labels) and len(set(labels)) == len(labels)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    used = {str(a.get("href") or a.get("xlink:href") or "") for _, a in page.tags}
    used |= set(re.findall(r"url\((#[^)]+)\)", text))
    assert {target[1:] for target in used if target} <= set(ids)


def test_the_same_run_gives_the_same_small_page(instruct_run, text):
    assert render(read_instruct_run(instruct_run)) == text
    assert len(text) < 500_000


@pytest.mark.parametrize(
    ("file", "left_out"),
    [
        ("instruct.json", {"findings", "stages", "answers"}),
        ("predictions.jsonl", {"answers"}),
        ("pairs.jsonl", {"pairs"}),
        ("data.json", {"findings", "cleaning", "data"}),
        ("clean/dropped.jsonl", {"cleaning"}),
        ("cells.jsonl", {"training"}),
        ("manifest.json", {"setup"}),
        ("config.yaml", {"setup"}),
    ],
)
def test_a_missing_file_leaves_out_its_sections_with_a_sentence(taught_run, file, left_out):
    (taught_run / file).unlink()
    shown = page_of(taught_run).sections
    assert {name for name in shown if "Left out" in shown[name]} == left_out
    for name in left_out:
        assert f"{file} is not there" in shown[name]
    assert f"{file} is not there" in shown["setup"]


def test_a_run_that_was_only_cleaned_shows_its_cleaning(taught_run):
    shutil.rmtree(taught_run / "cells")
    for name in ("cells.jsonl", "predictions.jsonl", "pairs.jsonl", "instruct.json", "results.json"):
        (taught_run / name).unlink()
    shown = page_of(taught_run).sections
    assert "45 of 600 rows were left out" in shown["findings"]
    assert "Left out" not in shown["cleaning"] + shown["data"]
    assert "No arm has left a metrics.jsonl" in shown["training"]


FILES = ["instruct.json", "data.json", "predictions.jsonl", "pairs.jsonl", "cells.jsonl", "clean/dropped.jsonl"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "content",
    ["{", "[]", "{}", "null", '[1, "a"]', '{"scores": 3, "changes": [1], "cleaning": [], "n": 1}'],
)
def test_damaged_files_never_crash(taught_run, name, content):
    (taught_run / name).write_text(content)
    assert [name for name in page_of(taught_run).sections if name != "pairs"] == [n for n in SECTIONS if n != "pairs"]


JUNK = st.sampled_from([None, [], {}, "x", -1, True, [None], {"a": None}, HOSTILE, math.inf])


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_junk_anywhere_in_a_file_never_crashes(instruct_run, tmp_path_factory, data):
    run = tmp_path_factory.mktemp("junk")
    for name in ("config.yaml", "instruct.json", "data.json", "pairs.jsonl"):
        shutil.copy(instruct_run / name, run)
    file = run / data.draw(st.sampled_from(["instruct.json", "data.json"]))
    value = json.loads(file.read_text())
    node = value
    while True:
        key = data.draw(st.sampled_from(list(node) if isinstance(node, dict) else list(range(len(node)))))
        if not (isinstance(node[key], dict | list) and node[key] and data.draw(st.integers(0, 3))):
            break
        node = node[key]
    node[key] = data.draw(JUNK)
    file.write_text(json.dumps(value))
    page = page_of(run)
    assert "findings" in page.sections and page.count("script") == 0


@pytest.mark.parametrize("value", [None, "x", {}])
def test_junk_in_journals_never_crashes(taught_run, value):
    places = [taught_run / f"cells/sft/seed-1/{name}" for name in ("metrics.jsonl", "validation.jsonl")]
    for place in [*places, *(taught_run / name for name in FILES[2:])]:
        write(place, [dict.fromkeys(row, value) for row in rows_of(place)[:3]])
    assert list(page_of(taught_run).sections) == SECTIONS


def test_the_verb_picks_the_page_by_the_pipeline_or_by_what_it_left(taught_run):
    done = CliRunner().invoke(app, ["report", str(taught_run)])
    assert done.exit_code == 0, done.output
    assert "from instructions to a model" in (taught_run / "report.html").read_text()
    (taught_run / "config.yaml").unlink()
    assert "from instructions to a model" in build_report(taught_run).read_text()
