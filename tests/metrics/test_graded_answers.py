"""Answers of two real models, each graded by a person who did not see the scorer's grade: the two have to agree."""

import json
from collections import defaultdict
from pathlib import Path

import pytest

from equipoise.metrics.functions import function_code, run_unit_tests
from equipoise.metrics.grading import grade

ROWS = [json.loads(line) for line in Path(__file__).with_name("graded_answers.jsonl").read_text("utf-8").splitlines()]
SCORES = ("exact", "call", "stated", "passes")


def _graded(row):
    prompt = row["question"] if row["form"] == "text" else None
    options = {"accepted": row["accepted"], "prompt_code": prompt, "cut": row["cut"]}
    grades = grade(row["output"], row["gold"], old=row["old"], question=row["question"], **options)
    scores = {"exact": grades.exact, "call": grades.call, "stated": grades.stated}
    if "passes" in row["human"]:
        solutions = [row["gold"], *row["accepted"]]
        code = function_code(row["output"], solutions, prompt_code=prompt, cut=row["cut"])
        scores["passes"] = float(bool(code) and run_unit_tests(code[-1], row["unit_tests"]))
    return {name: score for name, score in scores.items() if score is not None}


@pytest.fixture(scope="module")
def pairs():
    """For each score and part: the person's grade, the scorer's, and the row."""
    found = defaultdict(list)
    for row in ROWS:
        scores = _graded(row)
        for name, human in row["human"].items():
            found[name].append((human, scores[name], row))
    return found


def test_there_are_enough_answers_of_both_models_in_both_forms_right_and_wrong():
    assert len(ROWS) >= 120
    assert any(row["part"] == "held-out" for row in ROWS)
    for field in ("model", "form"):
        assert len({row[field] for row in ROWS}) == 2
    for name in ("call", "stated"):
        grades = [row["human"][name] for row in ROWS if name in row["human"]]
        assert 15 <= sum(grades) <= len(grades) - 15


@pytest.mark.parametrize("name", SCORES)
def test_the_scorer_agrees_with_a_person(pairs, name):
    wrong = [row["output"][:200] for human, score, row in pairs[name] if human != score]
    assert len(wrong) <= 0.03 * len(pairs[name]), wrong


def test_the_scorer_agrees_on_answers_that_it_was_not_changed_for(pairs):
    held_out = [(human, score) for name in SCORES for human, score, row in pairs[name] if row["part"] == "held-out"]
    assert sum(human == score for human, score in held_out) >= 0.97 * len(held_out)
