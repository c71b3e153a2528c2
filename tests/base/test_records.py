"""Rows: what they hold, and what they refuse."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from equipoise.records import Example, Message, Prediction, Result

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ASKED = Message(role="user", content="Which call stacks two frames?")
TOLD = Message(role="assistant", content="pd.concat([a, b])")


def result(**changed: Any) -> Result:
    return Result(**{"method": "sft", "seed": 1, "task": "t", "metric": "accuracy", "value": 0.5, "n": 2, **changed})


def prediction(**changed: Any) -> Prediction:
    row = {
        "method": "sft",
        "seed": 1,
        "task": "t",
        "item": "i",
        "prompt": "p",
        "gold": "g",
        "output": "o",
        "score": 1.0,
    }
    return Prediction(**{**row, **changed})


def test_an_example_gives_its_last_question_and_the_answer():
    earlier = [Message(role="system", content="Be brief."), Message(role="user", content="Hello"), TOLD]
    example = Example(id="1", messages=[*earlier, ASKED, TOLD])
    assert (example.prompt, example.completion) == (ASKED.content, TOLD.content)


@pytest.mark.parametrize(
    "messages",
    [[], [TOLD], [TOLD, ASKED], [ASKED, ASKED], [ASKED, TOLD, TOLD], [Message(role="system", content="x"), TOLD]],
    ids=["none", "answer alone", "ends in a question", "no answer", "two answers", "no question"],
)
def test_an_example_ends_in_a_question_and_its_answer(messages):
    with pytest.raises(ValidationError):
        Example(id="1", messages=messages)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("value", math.nan),
        ("value", math.inf),
        ("value", True),
        ("value", "0.5"),
        ("value", None),
        ("seed", True),
        ("seed", 1.5),
        ("seed", "1"),
        ("n", -1),
        ("higher_is_better", 1),
        ("method", 3),
        ("colour", "red"),
    ],
)
def test_a_result_is_refused_for_any_field_at_fault(field, value):
    with pytest.raises(ValidationError, match=field):
        result(**{field: value})


@pytest.mark.parametrize("score", [-0.1, 1.1, math.nan, True, "1"])
def test_a_score_is_a_share(score):
    with pytest.raises(ValidationError, match="score"):
        prediction(score=score)


@pytest.mark.parametrize("score", [math.nan, math.inf, True])
def test_a_published_score_is_a_number_or_missing(score):
    with pytest.raises(ValidationError, match="published_score"):
        prediction(published_score=score)
    assert prediction(published_score=None).published_score is None


def test_a_whole_number_does_for_a_score():
    assert prediction(score=1).score == 1.0


def test_rows_do_not_change_and_do_not_share_their_defaults():
    one, two = (Example(id=name, messages=[ASKED, TOLD]) for name in "ab")
    one.meta["seen"] = True
    one.rephrasings.append("And how?")
    assert (two.meta, two.rephrasings) == ({}, [])
    with pytest.raises(ValidationError, match="frozen"):
        one.id = "c"  # pyright: ignore[reportAttributeAccessIssue]  the mistake under test


@given(asked=texts, told=texts, old=st.none() | texts, again=st.lists(texts, max_size=3))
def test_an_example_survives_json(asked, told, old, again):
    turns = [Message(role="user", content=asked), Message(role="assistant", content=told)]
    example = Example(id="1", messages=turns, old=old, rephrasings=again)
    assert Example.model_validate_json(example.model_dump_json()) == example
    assert Example.model_validate(example.model_dump()) == example


@given(value=st.floats(allow_nan=False, allow_infinity=False), seed=st.integers(), n=st.integers(min_value=0))
def test_a_result_survives_json_to_the_last_bit(value, seed, n):
    row = result(value=value, seed=seed, n=n)
    assert Result.model_validate_json(row.model_dump_json()) == row
