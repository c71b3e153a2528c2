"""Learning rate and epochs that are chosen for a user."""

import pytest

from equipoise.training.recommended import schedule


@pytest.mark.parametrize(("parameters", "larger"), [(135e6, 500e6), (500e6, 1.5e9)])
def test_a_larger_model_gets_no_larger_rate(parameters, larger):
    assert schedule(parameters, 24, 3).learning_rate >= schedule(larger, 24, 3).learning_rate


def test_few_rows_get_more_epochs_but_never_without_end():
    few, some, many = schedule(135e6, 5, 1), schedule(135e6, 500, 63), schedule(135e6, 5000, 625)
    assert few.epochs > some.epochs >= many.epochs >= 1
    assert few.epochs <= 50
    assert "few" in (few.warning or "")
    assert some.warning is None
    assert "preset=domain" in (many.warning or "")
    assert f"{many.epochs * 625} steps" in many.note
