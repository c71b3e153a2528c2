"""From the report can be read what was corrected, what was lost, in which unit, and what could not be measured."""

import json
import re
import shutil

import pytest
from fake_run import HOSTILE, HOSTILE_LINK, make_run
from html_page import Page

from equipoise.report.arms import styles
from equipoise.report.build import render
from equipoise.report.changes import LONGEST, MANY, by_arm
from equipoise.report.reading import RunData, read_run


@pytest.fixture(scope="module")
def text(made_small_run):
    return render(read_run(made_small_run))


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def row(item="a", change="lost", task="locality", seed=1, method="sft", **more):
    base = {"method": method, "seed": seed, "task": task, "item": item, "phrasing": 0, "form": "chat", "cut": False}
    texts = {"prompt": "Which?", "gold": "this", "old": None, "before": "this", "after": "that"}
    return base | texts | {"change": change} | more


def listed(rows, known=None, arms=("sft",)):
    run = RunData(path=None, analysis={"known": known or {}}, changes=rows)  # pyright: ignore[reportArgumentType]
    return by_arm(run, styles(arms))


def test_the_lists_stand_before_every_plot(text):
    assert text.index('id="verdicts"') < text.index('id="changes"') < text.index("<svg")


def test_every_update_and_every_lost_row_is_shown_with_both_texts(page, made_small_run):
    shown = page.sections["changes"]
    first = [
        entry
        for line in (made_small_run / "changes.jsonl").read_text().splitlines()
        if (entry := json.loads(line))["seed"] == 42
    ]
    assert len(first) > 100
    for entry in first:
        for key in ("item", "prompt", "gold", "before", "after"):
            assert entry[key].strip().splitlines()[0].strip() in shown, (key, entry)
    for count in (
        "trained phrasing: corrected 49 of 50",
        "locality: lost 1 of the 59 (of 60) that the untrained model knew, gained 1",
        "retention: lost 1 of the 12 (of 25) that the untrained model knew",
        "functions: the untrained model knew none of 8, so nothing could be lost",
        "Lost, locality: 1 of 59",
        "Lost with other seeds only, locality: 1 of 59",
        "Not corrected, trained phrasing: 1 of 50",
    ):
        assert count in shown, count


def test_how_many_seeds_agree_is_said(page):
    shown = page.sections["changes"]
    assert re.search(r"fact-tokyo.*?2 of 2", shown, re.DOTALL)
    assert re.search(r"fact-week.*?1 of 2", shown, re.DOTALL)


def test_lost_answers_are_open_and_long_lists_are_closed(text):
    lists = re.findall(r"<details( open)?><summary><b[^>]*>.</b> ([^<]+)</summary>", text)
    found = {title: bool(is_open) for is_open, title in lists}
    assert found["Lost, locality: 1 of 59"] and found["Lost, retention: 1 of 12"]
    assert not found["Corrected, trained phrasing: 49 of 50"]


def test_texts_of_models_are_text(text, page):
    assert page.count("script") == 0 and page.count("img") == 0
    assert HOSTILE in page.sections["changes"] and HOSTILE_LINK in page.sections["changes"]
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]


def test_lines_and_indentation_of_code_stay_and_steering_characters_are_written_out():
    body = "\n    total = 0\n    return total\n\n"
    (arm,) = listed([row(before=body, after="a\u202eb\x1b[2J\ud800", gold=" sum(x)", form="text")])
    (change,) = arm.lists[0].rows
    assert change.before.shown == "    total = 0\n    return total"
    assert change.after.shown == "a\\u202eb\\x1b[2J\\ud800" and change.gold.shown == "sum(x)" and change.code


def test_an_endless_answer_is_cut_and_said_to_be():
    (arm,) = listed([row(after="x" * (LONGEST + 7))])
    assert (len(arm.lists[0].rows[0].after.shown), arm.lists[0].rows[0].after.more) == (LONGEST, 7)


def test_of_very_many_rows_the_first_are_shown():
    (arm,) = listed([row(item=str(i), change="gained", task="correction") for i in range(MANY + 3)])
    assert (len(arm.lists[0].rows), arm.lists[0].more) == (MANY, 3) and not arm.lists[0].open
    assert arm.counts == [f"trained phrasing: corrected {MANY + 3} of {MANY + 3}"]


def test_an_update_that_was_right_before_is_neither_corrected_nor_hidden():
    rows = [row(item=c, change=c, task="correction") for c in ("kept", "lost", "gained", "never known")]
    (arm,) = listed(rows)
    assert arm.counts == ["trained phrasing: corrected 1 of 4"]
    assert [found.title for found in arm.lists] == [
        "Corrected, trained phrasing: 1 of 4",
        "Not corrected, trained phrasing: 1 of 4",
        "Right before, wrong now, trained phrasing: 1 of 4",
        "Right before and after, trained phrasing: 1 of 4",
    ]


def test_nothing_lost_is_said_too():
    rows = [row(change="gained", task="correction")]
    (arm,) = listed(rows, {"locality": {"asked": 12, "right": 8}, "retention": {"asked": 3, "right": 0}})
    assert arm.counts[1:] == [
        "locality: lost none of the 8 (of 12) that the untrained model knew",
        "retention: the untrained model knew none of 3, so nothing could be lost",
    ]


def test_no_percent_sign_stands_on_nats(text, page):
    cells = re.findall(r'data-label="(?:drift|held-out), nats">(.*?)</td>', text, re.DOTALL)
    assert len(cells) == 2 * (2 + 1)  # tasks, arms and the untrained model
    for cell in cells:
        assert "%" not in cell and "track" not in cell and re.search(r"\d\.\d{3}\b", cell)
    assert "less is better" in page.sections["arms"]
    labels = [str(a.get("aria-label")) for tag, a in page.tags if tag == "svg"]
    drift = next(label for label in labels if "against drift" in label)
    assert re.search(r"drift \d\.\d{3} nats per token, ", drift)
    assert "nats per token (less is better)" in page.sections["trade-off"]


def test_what_cannot_be_measured_has_its_mark_its_reason_and_what_to_ask(page):
    assert re.search(r"⊘\s+cannot tell", page.sections["verdicts"])
    under = page.sections["arms"].split("What could not be measured")[1]
    assert re.search(r"⊘\s+cannot tell", under) and "functions" in under
    assert f"The untrained model got 0 of 8 right; ask {HOSTILE} instead" in under


def test_a_share_that_tells_nothing_is_marked_and_not_drawn(made_small_run, tmp_path):
    run = shutil.copytree(made_small_run, tmp_path / "run")
    analysis = json.loads((run / "analysis.json").read_text())
    analysis["cannot_tell"] = {"retention": "the untrained model got 2 of 25 right"}
    analysis["correction_share_of_sft"] = {"r-eaft": {"mean": None, "ci": None}}
    (run / "analysis.json").write_text(json.dumps(analysis))
    text = render(read_run(run))
    cells = re.findall(r'data-label="retention">(.*?)</td>', text, re.DOTALL)
    assert len(cells) == 3 and all("track" not in cell for cell in cells)
    assert all(re.search(r"⊘ \d+\.\d%", cell) for cell in cells[:2]) and "⊘" not in cells[2]
    shown = Page(text).sections
    assert "lost 1 of the 12 (of 25) that the untrained model knew, too few to tell" in shown["changes"]
    assert "share of SFT" not in shown["arms"]  # nothing to divide by


def test_of_a_model_on_the_disk_the_folder_is_not_shown(made_small_run, tmp_path):
    run = shutil.copytree(made_small_run, tmp_path / "run")
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("path: testbed", "path: /somewhere/else/smol"))
    assert '<p class="line">Model smol · ' in render(read_run(run))


def test_the_lead_says_how_many_updates_the_model_contradicts_and_what_auto_chose(text):
    line = re.search(r'<p class="line">(.*?)</p>', text, re.DOTALL)
    assert line
    for words in (
        "50 updates, of the 90 (among 245) whose old answer the untrained model found more than 10 times as likely",
        "60 locality items", "learning rate 0.001 (auto)", "30 epochs (auto)",
    ):  # fmt: skip
        assert words in line[1], words
    assert not re.search("(correction|drift|drift/code) items", line[1])


def test_a_run_without_claims_says_what_it_found_in_the_words_of_its_analysis(tmp_path):
    run = make_run(tmp_path / "run", arms=["sft"], seeds=[42])
    file = run / "analysis.json"
    analysis = json.loads(file.read_text())
    said = {"sft": [f"sft keeps 5 of the 8 answers that it knew; lost: {HOSTILE}."]}
    file.write_text(json.dumps(analysis | {"hypotheses": [], "before_and_after": said}))
    page = Page(render(read_run(run)))
    assert said["sft"][0] in page.sections["verdicts"] and page.count("script") == 0
    assert "What training changed" in page.sections["verdicts"]
    assert "5 of 5" not in page.sections["changes"] and "seeds" not in page.sections["changes"]


@pytest.mark.parametrize("junk", [{"method": "sft"}, {"method": "sft", "seed": 1}, row(prompt=None), row(known=[])])
@pytest.mark.parametrize("name", ["changes.jsonl", "selection.json", "schedule.json", "thresholds.json"])
def test_damaged_files_never_crash(tmp_path, name, junk):
    (tmp_path / "results.json").write_text("[]")
    (tmp_path / name).write_text(json.dumps(junk))
    assert "changes" in Page(render(read_run(tmp_path))).sections
