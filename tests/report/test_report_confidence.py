import json
import re
import shutil

import pytest
from fake_confidence import DOMAINS, HOSTILE, WARNING
from html_page import Page
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from equipoise.cli import app
from equipoise.report.build import build_report
from equipoise.report.confidence import render
from equipoise.report.confidence_reading import read_confidence_run

SECTIONS = [
    "findings", "measures", "reliability", "abstain", "routing", "training", "tiers", "answers", "data", "setup",
]  # fmt: skip


def page_of(run):
    return Page(render(read_confidence_run(run)))


@pytest.fixture(scope="module")
def text(confidence_run, tmp_path_factory):
    return build_report(confidence_run, tmp_path_factory.mktemp("out") / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_every_section_is_there_and_none_is_left_out(page):
    assert list(page.sections) == SECTIONS
    assert "Left out" not in "".join(page.sections.values())
    assert page.count("svg") == 6 + 1 + 1 + 6 + 1  # reliability, risk, routing, validation, loss


def test_warnings_come_first_and_are_not_folded_away(page, text):
    shown = page.sections["findings"]
    assert WARNING in shown
    assert shown.index(WARNING) < shown.index("Is the token right")
    assert text.index(WARNING) < text.index("<details")


def test_every_mean_stands_in_the_tables_with_its_interval_and_n(page, confidence_run):
    shown = page.sections["measures"]
    analysis = json.loads((confidence_run / "confidence.json").read_text())
    for by_task in analysis["metrics"].values():
        for scores in by_task.values():
            for metric, found in scores.items():
                share = metric.endswith(("accuracy", "rate"))
                if found:
                    assert (f"{100 * found['mean']:.1f}%" if share else f"{found['mean']:.3f}") in shown
                if found and found["low"] is not None:
                    low, high = (100 * found[key] if share else found[key] for key in ("low", "high"))
                    assert (f"{low:.1f} to {high:.1f}" if share else f"{low:.3f} to {high:.3f}") in shown
    assert "n = 800" in shown and shown.count("n = 400") == len(DOMAINS)
    assert "if perfectly calibrated: 0.031 [0.022, 0.043]" in shown
    assert re.search(r"AUROC\s+higher is better", shown) and re.search(r"Brier score\s+lower is better", shown)


def test_reliability_gives_the_counts_in_the_figure_and_in_numbers(page, text, confidence_run):
    bins = json.loads((confidence_run / "confidence.json").read_text())["reliability"]["raw"]["reading"]
    assert "40 a point" in text and "n = 400" in text
    for b in bins:
        assert f"{b['low']:.3f} to {b['high']:.3f}" in page.sections["reliability"]
        assert f"{100 * b['ci_low']:.1f} to {100 * b['ci_high']:.1f}" in page.sections["reliability"]
    assert "Answers of seed 42" in page.sections["reliability"]


def test_what_abstaining_promises_and_keeps_is_said_in_words(page):
    shown = page.sections["abstain"]
    assert re.search(
        r"Seed 42. From p = 0.900 on it answers \d+% of 800 test questions with \d.\d% errors; promised", shown
    )
    assert "Seed 43. No threshold could be certified from 800 calibration questions" in shown
    assert "kept its promise 97.3% of the time" in shown
    assert "certified in 2 of 3" in page.sections["findings"]


def test_routing_says_what_is_recovered(page):
    shown = page.sections["routing"]
    assert "63.0%" in shown and "92.0%" in shown
    assert "APGR 0.660" in shown and "CPT(50%) 31.0%" in shown and "CPT(80%) 57.0%" in shown


def test_without_a_strong_model_routing_is_a_sentence(sure_run):
    assert "names no stronger model" in page_of(sure_run).sections["routing"]


def test_one_seed_has_no_intervals_and_no_certain_answer(sure_run):
    shown = page_of(sure_run).sections
    assert "yes, in one run" in shown["findings"]
    assert "One seed" in shown["measures"] and "Seed 42." not in shown["abstain"]
    assert "Left out" not in "".join(shown.values())


def test_the_worst_answers_come_first_and_a_long_question_keeps_its_end(page, confidence_run):
    rows = [json.loads(line) for line in (confidence_run / "predictions.jsonl").read_text().splitlines()]
    worst = max(row["p"] for row in rows if row["seed"] == 42 and not row["correct"])
    assert f"{worst:.3f}" in page.sections["answers"]
    wrong = [row for row in rows if row["seed"] == 42 and not row["correct"] and row["p"] > 0.5]
    assert f"5 of {len(wrong)}" in page.sections["answers"]


def test_a_long_question_is_cut_at_its_beginning(sure_run):
    rows = [json.loads(line) for line in (sure_run / "predictions.jsonl").read_text().splitlines()]
    rows[0] |= {"correct": False, "p": 1.0, "prompt": "passage " * 100 + "Is it so?"}
    (sure_run / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shown = page_of(sure_run).sections["answers"]
    assert "…" in shown and "passage Is it so?" in shown and len(shown) < 2500


def test_data_says_what_was_left_out_and_why(page):
    shown = page.sections["data"]
    assert "13 rows were left out" in shown
    assert "12 × the answer has no end" in shown and "as answers.jsonl:0" in shown
    assert "1,200 C, 700 U (63.2% C)" in shown
    assert "medical: at most 700 of a class" in shown


def test_text_of_models_and_data_never_becomes_markup(page, text):
    assert page.count("script") == 0 and "<script" not in text
    assert HOSTILE in page.sections["findings"] and HOSTILE in page.sections["answers"]
    assert HOSTILE in page.sections["data"] and HOSTILE in page.sections["setup"]
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]


def test_hostile_names_are_text_too(sure_run):
    for file in [*sure_run.glob("*.json*"), sure_run / "config.yaml"]:
        file.write_text(file.read_text().replace("medical", json.dumps(HOSTILE + "$x^")[1:-1].replace('\\"', "'")))
    page = page_of(sure_run)
    assert page.count("script") == 0
    assert "<script>alert('x')</script>$x^" in page.sections["measures"]


def test_nothing_is_fetched_and_figures_speak(page, text):
    for tag, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "srcset"):
            assert not attributes.get(name) or str(attributes[name]).startswith("#"), (tag, name)
    labels = [a.get("aria-label") for tag, a in page.tags if tag == "svg"]
    assert all(labels) and len(set(labels)) == len(labels)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    used = {str(a.get("href") or a.get("xlink:href") or "") for _, a in page.tags} | set(
        re.findall(r"url\((#[^)]+)\)", text)
    )
    assert {target[1:] for target in used if target} <= set(ids)
    sizes = {
        float(size)
        for size in re.findall(
            r"font-size: ([\d.]+)px; ?[a-z-]*:? ?", "".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL))
        )
    }
    assert min(sizes) >= 10


def test_the_same_run_gives_the_same_small_page(confidence_run, text):
    assert render(read_confidence_run(confidence_run)) == text
    assert len(text) < 1_000_000


@pytest.mark.parametrize(
    ("file", "left_out"),
    [
        ("confidence.json", {"findings", "measures", "reliability", "abstain", "routing"}),
        ("predictions.jsonl", {"answers"}),
        ("validation.jsonl", set()),
        ("data.json", {"data"}),
        ("manifest.json", {"setup"}),
        ("config.yaml", {"setup"}),
    ],
)
def test_a_missing_file_leaves_out_its_sections_with_a_sentence(sure_run, file, left_out):
    (sure_run / file).unlink()
    shown = page_of(sure_run).sections
    assert {name for name in shown if "Left out" in shown[name]} == left_out
    for name in left_out:
        assert f"{file} is not there" in shown[name]
    assert f"{file} is not there" in shown["setup"]


def test_a_run_that_still_trains_shows_its_curves(sure_run):
    for name in ("confidence.json", "predictions.jsonl", "manifest.json"):
        (sure_run / name).unlink()
    page = page_of(sure_run)
    assert "Left out" not in page.sections["training"] and page.count("svg") == 7


@pytest.mark.parametrize(
    "name", ["confidence.json", "data.json", "manifest.json", "predictions.jsonl", "validation.jsonl"]
)
@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", "null", '[1, "a"]', '{"metrics": 3, "abstention": [1], "counts": []}']
)
def test_damaged_files_never_crash(sure_run, name, content):
    (sure_run / name).write_text(content)
    assert set(SECTIONS) - {"tiers"} <= set(page_of(sure_run).sections)


JUNK = st.sampled_from([None, [], {}, "x", -1, True, [None], {"a": None}, HOSTILE])


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_junk_anywhere_in_a_file_never_crashes(confidence_run, tmp_path_factory, data):
    run = tmp_path_factory.mktemp("junk")
    for name in ("config.yaml", "confidence.json", "data.json"):
        shutil.copy(confidence_run / name, run)
    file = run / data.draw(st.sampled_from(["confidence.json", "data.json"]))
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
    assert set(SECTIONS) - {"tiers"} <= set(page.sections)
    assert page.count("script") == 0


def test_the_verb_picks_the_page_by_the_pipeline(sure_run, full_run, tmp_path):
    done = CliRunner().invoke(app, ["report", str(sure_run)])
    assert done.exit_code == 0, done.output
    assert "confidence tokens" in (sure_run / "report.html").read_text()
    assert "What each arm did" in build_report(full_run, tmp_path / "arms.html").read_text()
    (sure_run / "config.yaml").unlink()
    assert "What was found" in build_report(sure_run).read_text()
