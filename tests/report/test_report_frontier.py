"""The page of a frontier: what it says, what it escapes, and what it leaves out when something is missing."""

import json

import numpy as np
import pytest
from html_page import Page

from equipoise.errors import UserError
from equipoise.protocols.frontier_analysis import ArmScores, analyse
from equipoise.report.build import build_report

HOSTILE = "<b>&sft"
TRUE = {  # what each arm's settings correct and keep
    "sft": ([0.4, 1.0], [0.9, 0.5]),
    "better": ([0.6, 1.0], [0.95, 0.9]),
    "never": ([0.1, 0.3], [1.0, 0.8]),
    HOSTILE: ([0.5, 1.0], [0.9, 0.3]),
}


def frontier(folder, seeds):
    rng, arms = np.random.default_rng(3), {}
    for name, levels in TRUE.items():
        shares = zip(("correction", "locality"), levels, (40, 80))
        items = {
            task: (rng.random((len(seeds), 2, n)) < np.array(level)[:, None]).astype(float) for task, level, n in shares
        }
        arms[name] = ArmScores([(1e-3, 2), (1e-3, 5)], items, np.tile([2.0, 5.0], (len(seeds), 1)))
    before = {"correction": 0.0, "locality": 1.0}
    found = analyse(arms, seeds=seeds, against="sft", levels=[0.8, 0.9], untrained=before, resamples=200)
    (folder / "frontier.json").write_text(json.dumps(found, allow_nan=False))
    config = {
        "pipeline": "frontier",
        "name": "mine",
        "arms": {name: {"name": "sft"} for name in TRUE},
        "score_at": [2, 5],
    }
    config["arms"][HOSTILE]["rehearse"] = True
    (folder / "config.yaml").write_text(json.dumps(config | {"learning_rates": [1e-3], "model": {"path": "testbed"}}))
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return frontier(tmp_path_factory.mktemp("frontier"), [1, 2, 3, 4])


def page_of(run):
    return Page(build_report(run, run / "page.html").read_text(encoding="utf-8"))


def test_the_answer_comes_first_and_the_table_says_the_same(run):
    page = page_of(run)
    assert list(page.sections) == ["answer", "plane", "matched", "settings", "setup"]
    answer = page.sections["answer"]
    assert "more kept" in answer and "More is kept by better" in answer and "never (0 of 4 seeds)" in answer
    table = " ".join(page.sections["matched"].split())
    assert "not reached" in table and "hypervolume" in table and "every second one is trained on" in table
    assert "p = 0.0" in table or "p < 0.001" in table
    assert page.count("svg") == 1 and page.count("table") == 1


def test_one_seed_has_no_test_and_the_page_does_not_say_that_none_was_shown(tmp_path):
    answer = page_of(frontier(tmp_path, [1])).sections["answer"]
    assert "one seed, no test" in answer and "more is kept by better" in answer and "none shown" not in answer


def test_names_are_data(run):
    text = build_report(run, run / "page.html").read_text(encoding="utf-8")
    assert "<b>&sft" not in text and "&lt;b&gt;&amp;sft" in text


def test_the_same_run_gives_the_same_bytes_and_asks_nothing_of_the_network(run):
    first = build_report(run, run / "one.html").read_bytes()
    assert first == build_report(run, run / "two.html").read_bytes()
    links = [value for tag, found in page_of(run).tags for key, value in found.items() if key in ("src", "href")]
    assert all(str(value).startswith("#") for value in links)


@pytest.mark.parametrize("left", ["", "{", "[]", '{"arms": {"sft": {}}, "kept": ["locality"]}'])
def test_what_is_missing_or_damaged_is_left_out_with_a_sentence(run, tmp_path, left):
    (tmp_path / "config.yaml").write_text((run / "config.yaml").read_text())
    if left:
        (tmp_path / "frontier.json").write_text(left)
    page = page_of(tmp_path)
    assert all("Left out: frontier.json" in page.sections[name] for name in ("answer", "plane", "matched", "settings"))


def test_a_folder_without_a_run_is_told(tmp_path):
    with pytest.raises(UserError, match="holds no run"):
        build_report(tmp_path)
