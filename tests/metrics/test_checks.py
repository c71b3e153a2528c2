"""Checks of an answer: what is right passes, what is near it or nothing does not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equipoise.metrics.checks import Check


@pytest.mark.parametrize(
    ("check", "right", "wrong"),
    [
        (Check(contains=["42"]), ["It is 42.", "42"], ["142", "4 2", "42nd"]),
        (Check(contains=["New  York", "big"]), ["a BIG new york"], ["New York", "bigger than New York"]),
        (Check(contains=["C++"]), ["I use C++."], ["C+", "C"]),
        (Check(equals=["Paris", "the city of Paris"]), ["paris.", "The city of Paris"], ["It is Paris", "Pari"]),
        (Check(regex=r"^ls\b"), ["ls -l"], ["lsof", "run ls"]),
        (Check(json_keys=["a", "b"]), ['{"a": 1, "b": 2, "c": 3}', '```json\n{"a": 1, "b": null}\n```'],
         ['{"a": 1}', 'Here: {"a": 1, "b": 2}', '[{"a": 1, "b": 2}]', "a b", '{"a": 1, "b": 2']),
        (Check(max_words=3), ["one two three"], ["one two three four"]),
        (Check(contains=["two"], max_words=2), ["two words"], ["words", "two more words"]),
    ],
)  # fmt: skip
def test_right_and_wrong_answers(check, right, wrong):
    assert [check.problem(answer) for answer in right] == [None] * len(right)
    assert all(check.problem(answer) for answer in wrong)
    assert check.problem(" \n") == "the answer is empty"


@given(st.text())
def test_any_answer_can_be_checked(text):
    full = Check(contains=["x"], equals=["x"], regex="x", json_keys=["x"], max_words=1)
    assert full.problem(text) is not None, "x is no JSON, so nothing passes all"
