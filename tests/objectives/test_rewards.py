"""Rewards of extracted entities against numbers worked out by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equipoise.metrics.entities import answer
from equipoise.objectives.rewards import reward

TYPES = ("person", "place")
ANN, OSLO = ("person", "Ann Lee"), ("place", "Oslo")
ALL = {"soft_f1": 1.0, "format": 0.1, "exact": 0.5, "entity_f1": 0.25}


@pytest.mark.parametrize(
    ("text", "label", "parts"),
    [
        ('{"person": ["Ann Lee"]}', (ANN,), (1, 1, 1, 1)),
        ('{"person": ["Ann Lee"]}', (ANN, OSLO), (2 / 3, 1, 0, 2 / 3)),
        ('{"person": ["Ann"]}', (ANN,), (2 / 3, 1, 0, 0)),  # one of two words: F1 2/3
        ('{"place": ["Ann Lee"]}', (ANN,), (0, 1, 0, 0)),
        ("{}", (ANN,), (0, 0, 0, 0)),
        ("{}", (), (1, 0, 1, 1)),
        ("nobody", (), (0, 0, 0, 0)),  # cannot be read: nothing, though an empty answer would be right
        ('{"person": ["Ann Lee"', (ANN,), (0, 0, 0, 0)),
    ],
)
def test_each_part_by_hand(text, label, parts):
    got = reward(text, label, TYPES, ALL)
    assert tuple(got.parts.values()) == pytest.approx(parts)
    assert got.total == pytest.approx(sum(w * p for w, p in zip(ALL.values(), parts)))


def test_length_costs_what_it_weighs():
    weights = {"soft_f1": 1.0, "length_penalty": 0.5}
    text = answer([ANN])
    assert reward(text, (ANN,), TYPES, weights, length=0.4).total == pytest.approx(0.8)
    assert reward(text, (ANN,), TYPES, {"soft_f1": 1.0}, length=0.4).total == pytest.approx(1.0)


def test_empty_and_unreadable_answers_get_no_bonus():
    assert not reward("{}", (ANN,), TYPES, ALL).total
    assert reward("{}", (ANN,), TYPES, ALL).empty and reward("{}", (ANN,), TYPES, ALL).valid
    assert not reward("{", (ANN,), TYPES, ALL).valid


entities = st.lists(st.tuples(st.sampled_from(TYPES), st.sampled_from(["Ann", "Ann Lee", "Oslo", "a b c"])), max_size=5)


@given(entities, entities)
def test_the_label_itself_is_never_beaten(label, other):
    best = reward(answer(label), label, TYPES, {"soft_f1": 1.0, "exact": 1.0})
    assert best.total == pytest.approx(2.0)
    assert 0 <= reward(answer(other), label, TYPES, {"soft_f1": 1.0, "exact": 1.0}).total <= best.total
