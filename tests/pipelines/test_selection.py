"""Updates that the untrained model contradicts: which, how many, and the same again."""

import math

import pytest
from tiny_models import tiny_model, tiny_tokenizer

from equipoise.errors import UserError
from equipoise.models.loading import Loaded
from equipoise.pipelines.selection import SelectSettings, draw, remember, remembered, select
from equipoise.records import Example, Message

MARGINS = {"a": -3.0, "b": -2.0, "c": -5.0, "d": 4.0, "e": -9.0}


def row(name, new, old):
    turns = [Message(role="user", content=f"call {name} ="), Message(role="assistant", content=new)]
    return Example(id=name, form="text", messages=turns, old=old)


ROWS = [row("a", " numpy", " pandas"), row("b", " pandas", " numpy"), row("c", " stack", " concat")]


def test_rows_are_taken_by_the_factor_and_drawn_by_the_seed():
    taken = draw(MARGINS, SelectSettings(prefers_old=10), None)
    assert (taken.ids, taken.preferred, taken.rows) == (["a", "c", "e"], 3, 5)
    assert draw(MARGINS, SelectSettings(prefers_old=math.exp(2.5)), 1).preferred == 3
    two = {tuple(draw(MARGINS, SelectSettings(prefers_old=10, seed=seed), 2).ids) for seed in range(20)}
    assert two == {("a", "c"), ("a", "e"), ("c", "e")}
    one, more = (draw(MARGINS, SelectSettings(prefers_old=10, seed=4), n).ids for n in (1, 2))
    assert set(one) < set(more)
    assert "2 of the 3 (among 5)" in draw(MARGINS, SelectSettings(prefers_old=10), 2).note()


def test_a_model_contradicts_what_it_finds_less_likely_than_the_old_answer():
    loaded = Loaded(tiny_model(), tiny_tokenizer(), "tiny")
    found = select(loaded, ROWS, SelectSettings(prefers_old=1))
    assert found.ids == [name for name, margin in found.margins.items() if margin < 0]
    turned = [row(r.id, r.old, r.completion) for r in ROWS]
    others = select(loaded, turned, SelectSettings(prefers_old=1))
    assert {*found.ids, *others.ids} == {"a", "b", "c"} and not {*found.ids} & {*others.ids}
    assert [r.id for r in found.of(ROWS)] == found.ids


def test_a_run_goes_on_with_the_rows_that_it_chose(tmp_path):
    settings, file = SelectSettings(prefers_old=10), tmp_path / "selection.json"
    assert remembered(file, settings, 2) is None
    taken = draw(MARGINS, settings, 2)
    remember(taken, file)
    assert remembered(file, settings, 2) == taken
    with pytest.raises(UserError, match="other settings"):
        remembered(file, settings, 3)
    with pytest.raises(UserError, match="not in its data"):
        taken.of(ROWS[1:2])


def test_what_cannot_be_selected_is_said():
    with pytest.raises(UserError, match=r"none of 5 old answers more than 1e\+06 times"):
        draw(MARGINS, SelectSettings(prefers_old=1e6), None)
    loaded = Loaded(tiny_model(), tiny_tokenizer(), "tiny")
    with pytest.raises(UserError, match="1 of 2 updates have no `old`"):
        select(loaded, [ROWS[0], row("z", " numpy", None)], SelectSettings(prefers_old=1))
