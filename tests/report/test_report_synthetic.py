import json
import re
import shutil

import pytest
from fake_synthetic import GAINS, HOSTILE, WARNING
from html_page import Page
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from equipoise.cli import app
from equipoise.metrics.entities import answer
from equipoise.report.build import build_report
from equipoise.report.synthetic import render
from equipoise.report.synthetic_reading import read_synthetic_run

SECTIONS = ["findings", "arms", "labels", "training", "examples", "data", "setup"]


def page_of(run):
    return Page(render(read_synthetic_run(run)))


def rows_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def text(synthetic_run, tmp_path_factory):
    return build_report(synthetic_run, tmp_path_factory.mktemp("out") / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_every_section_is_there_and_none_is_left_out(page):
    assert list(page.sections) == SECTIONS
    assert "Left out" not in "".join(page.sections.values())
    assert page.count("svg") == 1 + 2 + 1 + 10  # gains and losses, reliability, risk, training


def test_warnings_come_before_findings_and_are_not_folded_away(page, text):
    shown = page.sections["findings"]
    assert shown.index(WARNING) < shown.index("Did curriculum improve the target domain?")
    assert text.index(WARNING) < text.index("<details")


def test_what_was_done_is_told_before_what_was_found(page):
    shown = page.sections["findings"]
    assert shown.index("8 times") < shown.index("Did curriculum")
    for word in ("source", "target", "pseudo-label", "confidence", "GRPO", "curriculum"):
        assert word in shown


def test_every_arm_stands_in_the_table_with_scores_intervals_and_changes(page, synthetic_run):
    shown = page.sections["arms"]
    analysis = json.loads((synthetic_run / "synthetic.json").read_text())
    for arm, by_domain in analysis["scores"].items():
        for domain, scores in by_domain.items():
            found = scores["f1"]
            assert f"{100 * found['mean']:.1f}%" in shown
            assert f"{100 * max(found['low'], 0):.1f} to {100 * min(found['high'], 1):.1f}" in shown
            if arm != "zero-shot":
                row = analysis["changes"][arm][domain]
                assert f"{100 * row['estimate']:+.1f}".replace("-", "−") in shown
                low, high = (f"{100 * end:+.1f}".replace("-", "−") for end in row["bootstrap"])
                assert f"{low} to {high}" in shown
    assert "held out 0.034" in shown  # 0.12 * 0.28


def test_arms_are_told_in_words_of_the_recipe(page):
    shown = page.sections["arms"]
    for words in (
        "the untrained model", "fine-tuning on all labels", "RL, all labels at once", "RL, labels surest first",
        "RL, labels of confidence from 0.5 at once", "confidence renewed at each stage", "in random order",
        "least sure first",
    ):  # fmt: skip
        assert words in shown


def test_the_arm_in_question_is_compared_with_every_other(page, synthetic_run):
    shown = page.sections["arms"]
    for row in json.loads((synthetic_run / "synthetic.json").read_text())["contrasts"]:
        low, high = (f"{100 * end:+.1f}".replace("-", "−") for end in row["bootstrap"])
        p = "< 0.001" if row["p_holm"] < 0.001 else f"{row['p_holm']:.3f}"
        assert f"{row['against']}{100 * row['estimate']:+.1f}{low} to {high}".replace("-0", "−0") in shown
        assert p in shown
    assert shown.count("not told apart") >= 1 and "named beforehand" in shown


def test_labels_say_how_many_are_right_and_what_each_signal_is_worth(page, synthetic_run):
    shown = page.sections["labels"]
    account = json.loads((synthetic_run / "label_quality.json").read_text())
    quality = account["quality"]
    assert f"{100 * quality['right']:.1f}% are exactly right" in shown
    assert "25.0%" in shown  # a fourth of the sentences have nothing to find
    for name, row in quality["signals"].items():
        found = row["auroc"]
        assert f"{found['mean']:.3f}{found['low']:.3f} to {found['high']:.3f}" in shown.split(name)[1] or name in shown
        assert f"{row['aurc']['mean']:.3f}" in shown
    assert shown.count("made into the confidence here") == 1
    assert "22 labels were left out" in shown


def test_stages_hold_the_means_of_their_steps(page, synthetic_run):
    shown = page.sections["training"]
    steps = [rows_of(synthetic_run / f"cells/curriculum/seed-{seed}/metrics.jsonl") for seed in (42, 43, 44)]
    second = [row for rows in steps for row in rows if row["stage"] == 1]
    reward = sum(row["reward"] for row in second) / len(second)
    last = [
        rows_of(synthetic_run / f"cells/curriculum/seed-{seed}/validation.jsonl")[4]["target/f1"]  # step 60
        for seed in (42, 43, 44)
    ]
    assert f"2 of 431 to 60{100 * second[-1]['share']:.1f}%{reward:.3f}{100 * sum(last) / 3:.1f}%" in shown
    assert "curriculum 45% and 15%" in shown  # groups with equal rewards


def test_sentences_gained_and_lost_are_those_that_moved_most(page, synthetic_run):
    rows = rows_of(synthetic_run / "predictions.jsonl")
    before = {row["id"]: row for row in rows if row["method"] == "zero-shot"}
    gained = [
        row for row in rows
        if (row["method"], row["seed"], row["domain"]) == ("curriculum", 42, "target")
        and f1(row) > f1(before[row["id"]])
    ]  # fmt: skip
    shown = page.sections["examples"]
    assert f"gained on the target {len(gained)} of 80 sentences, the 5 that moved most; curriculum, seed 42" in shown
    most = max(f1(row) - f1(before[row["id"]]) for row in gained)
    assert most == 1.0
    first = next(row for row in gained if f1(row) - f1(before[row["id"]]) == most)
    assert first["prompt"].splitlines()[-1] in shown and answer(map(tuple, first["gold"])) in shown
    assert "not readable (not JSON): " in shown and "Types:" not in shown


def f1(row):
    whole = 2 * row["tp"] + row["fp"] + row["fn"]
    return 2 * row["tp"] / whole if whole else 1.0


def test_the_surest_wrong_label_is_shown_with_its_confidence(page, synthetic_run):
    wrong = [row for row in rows_of(synthetic_run / "pseudo_labels.jsonl") if row["entities"] != row["gold"]]
    surest = max(wrong, key=lambda row: row["confidence"])
    assert f"{100 * surest['confidence']:.1f}%" in page.sections["examples"]
    assert surest["text"] in page.sections["examples"]
    assert f"{len(wrong)} of 200 labels are wrong" in page.sections["examples"]


def test_data_gives_splits_types_and_what_was_left_out(page):
    shown = page.sections["data"]
    assert "dish, cook" in shown and "person, place" in shown
    assert "1 row was left out" in shown and "target: the first 320 sentences" in shown


def test_one_seed_gives_no_certain_answer(lone_run):
    shown = page_of(lone_run).sections
    assert "yes, in one run" in shown["findings"] and "One seed" in shown["findings"]
    assert "It is not shown that curriculum wins" in shown["findings"]
    assert "one seed: there is no test over seeds" in shown["arms"]
    assert "Left out" not in "".join(shown.values())


def test_samples_of_each_seed_are_all_accounted_for(lone_run):
    account = json.loads((lone_run / "label_quality.json").read_text())
    for seed, right in ((42, 0.5), (123, 0.625), (1024, 0.75)):
        place = lone_run / f"labels-{seed}"
        place.mkdir()
        shutil.copy(lone_run / "pseudo_labels.jsonl", place)
        changed = account | {"quality": account["quality"] | {"right": right}}
        (place / "label_quality.json").write_text(json.dumps(changed))
    (lone_run / "label_quality.json").unlink()
    (lone_run / "pseudo_labels.jsonl").unlink()
    page = page_of(lone_run)
    assert "Each of 3 seeds drew samples of its own: 50.0% to 75.0%" in page.sections["labels"]
    assert "What is shown here is of seed 42" in page.sections["labels"]
    assert "Left out" not in "".join(page.sections.values())


def test_labels_without_right_answers_are_shown_without_their_worth(lone_run):
    account = json.loads((lone_run / "label_quality.json").read_text())
    none = {"n": 0, "right": None, "signals": {}, "why": "no sentence has a right answer to compare with"}
    (lone_run / "label_quality.json").write_text(json.dumps(account | {"n": 0, "quality": none}))
    rows = [row | {"gold": None} for row in rows_of(lone_run / "pseudo_labels.jsonl")]
    (lone_run / "pseudo_labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shown = page_of(lone_run).sections
    assert "their worth is not known" in shown["labels"]
    assert "pseudo_labels.jsonl holds nothing to show here" in shown["examples"]


def test_text_of_models_and_data_never_becomes_markup(page, text):
    assert page.count("script") == 0 and "<script" not in text
    for section in ("findings", "examples", "data", "setup"):
        assert HOSTILE in page.sections[section]
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]


def test_hostile_names_are_text_too(lone_run):
    for file in [*lone_run.glob("*.json*"), lone_run / "config.yaml"]:
        file.write_text(file.read_text().replace("all-at-once", "<script>x</script>$x^"))
    page = page_of(lone_run)
    assert page.count("script") == 0
    assert "<script>x</script>$x^" in page.sections["arms"]


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


def test_the_same_run_gives_the_same_small_page(synthetic_run, text):
    assert render(read_synthetic_run(synthetic_run)) == text
    assert len(text) < 1_000_000


@pytest.mark.parametrize(
    ("file", "left_out"),
    [
        ("synthetic.json", {"findings", "arms"}),
        ("predictions.jsonl", {"examples"}),
        ("pseudo_labels.jsonl", {"examples"}),
        ("label_quality.json", {"labels"}),
        ("data.json", {"data"}),
        ("manifest.json", {"setup"}),
        ("config.yaml", {"setup"}),
    ],
)
def test_a_missing_file_leaves_out_its_sections_with_a_sentence(lone_run, file, left_out):
    (lone_run / file).unlink()
    shown = page_of(lone_run).sections
    assert {name for name in shown if "Left out" in shown[name]} == left_out
    for name in left_out:
        assert f"{file} is not there" in shown[name]
    assert f"{file} is not there" in shown["setup"]


def test_a_run_that_has_not_trained_yet_says_so(lone_run):
    shutil.rmtree(lone_run / "cells")
    shown = page_of(lone_run).sections
    assert "No arm has left a metrics.jsonl" in shown["training"]


def test_a_run_that_still_trains_shows_its_curves(lone_run):
    for name in ("synthetic.json", "predictions.jsonl"):
        (lone_run / name).unlink()
    assert "Left out" not in page_of(lone_run).sections["training"]


@pytest.mark.parametrize("name", ["synthetic.json", "label_quality.json", "data.json", "predictions.jsonl"])
@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", "null", '[1, "a"]', '{"scores": 3, "changes": [1], "quality": [], "counts": []}']
)
def test_damaged_files_never_crash(lone_run, name, content):
    (lone_run / name).write_text(content)
    assert list(page_of(lone_run).sections) == SECTIONS


JUNK = st.sampled_from([None, [], {}, "x", -1, True, [None], {"a": None}, HOSTILE])


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_junk_anywhere_in_a_file_never_crashes(synthetic_run, tmp_path_factory, data):
    run = tmp_path_factory.mktemp("junk")
    for name in ("config.yaml", "synthetic.json", "data.json", "label_quality.json"):
        shutil.copy(synthetic_run / name, run)
    file = run / data.draw(st.sampled_from(["synthetic.json", "data.json", "label_quality.json"]))
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
    assert list(page.sections) == SECTIONS and page.count("script") == 0


@pytest.mark.parametrize("value", [None, "x", {}])
def test_junk_in_journals_of_training_never_crashes(lone_run, value):
    for name in ("metrics.jsonl", "validation.jsonl"):
        place = lone_run / "cells" / "curriculum" / "seed-42" / name
        rows = [dict.fromkeys(row, value) for row in rows_of(place)[:3]]
        place.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert list(page_of(lone_run).sections) == SECTIONS


def test_the_verb_picks_the_page_by_the_pipeline_or_by_what_it_left(lone_run):
    done = CliRunner().invoke(app, ["report", str(lone_run)])
    assert done.exit_code == 0, done.output
    assert "learning from own labels" in (lone_run / "report.html").read_text()
    (lone_run / "config.yaml").unlink()
    assert "learning from own labels" in build_report(lone_run).read_text()


def test_every_arm_has_a_colour_of_its_own(text):
    legend = re.findall(r'class="glyph" style="--c: (#\w+)"[^>]*>(.)</span> ([\w-]+)', text)
    assert {name for _, _, name in legend} == set(GAINS)
    assert len({colour for colour, _, _ in legend}) == len(GAINS) == len({glyph for _, glyph, _ in legend})
