import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from equipoise.errors import UserError
from equipoise.metrics.detection import average_precision, detection


def _row(item, knowledge, nll, h, conflict=False, **more):
    return {"item": item, "knowledge": knowledge, "nll": nll, "h": h, "shock": nll / h, "is_conflict": conflict} | more


# Three facts. Shock: a 0.5, 90 (the conflict), 2; b (stable) 1, 3; c (uncertain, conflicts too) 10, 4.
ROWS = [
    _row("a", "confident-wrong", 0.05, 0.1),
    _row("a", "confident-wrong", 9.0, 0.1, conflict=True),
    _row("a", "confident-wrong", 0.2, 0.1),
    _row("b", "stable", 0.1, 0.1),
    _row("b", "stable", 0.3, 0.1),
    _row("c", "uncertain", 9.5, 0.95, conflict=True),
    _row("c", "uncertain", 2.0, 0.5),
]


def test_by_hand():
    found = detection(ROWS, tau_in_use=5.0, vocab_size=4096)
    tokens, facts = found["by_token"], found["by_fact"]
    assert (tokens["n"], tokens["n_true"], tokens["chance"]) == (7, 1, pytest.approx(1 / 7))
    # shocked at tau 5: the conflict of a, and the token of c with shock 10
    assert tokens["at_tau"] == {"threshold": 5.0, "flagged": 2, "hits": 1, "precision": 0.5, "recall": 1.0}
    assert tokens["average_precision"] == 1.0
    # by nll alone the uncertain token (9.5) comes before the confident one (9.0)
    assert tokens["nll_only"]["average_precision"] == 0.5
    assert tokens["difference"]["average_precision"] == 0.5
    assert (facts["n"], facts["n_true"], facts["chance"]) == (3, 1, pytest.approx(1 / 3))
    assert facts["at_tau"]["precision"] == 0.5
    assert facts["average_precision"] == 1.0
    assert (found["tau_in_use"], found["vocab_size"]) == (5.0, 4096)


def test_shocked_means_above_tau_not_at_it():
    rows = [_row("a", "confident-wrong", 5.0, 1.0, conflict=True), _row("b", "stable", 0.1, 1.0)]
    assert detection(rows, tau_in_use=5.0)["by_token"]["at_tau"]["flagged"] == 0
    assert detection(rows, tau_in_use=5.0)["by_token"]["at_tau"]["precision"] is None
    assert detection(rows, tau_in_use=4.999)["by_token"]["at_tau"]["flagged"] == 1


def test_the_curve_begins_with_everything_flagged_and_holds_the_threshold_in_use():
    side = detection(ROWS, tau_in_use=5.0)["by_token"]
    assert side["recall"][0] == 1.0
    assert side["precision"][0] == pytest.approx(side["chance"])
    at = side["taus"].index(5.0)
    assert (side["precision"][at], side["recall"][at]) == (0.5, 1.0)
    assert side["taus"] == sorted(side["taus"])
    assert side["recall"] == sorted(side["recall"], reverse=True)


SCORED = st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=1, max_size=30)


@given(SCORED)
def test_average_precision_agrees_with_scikit_learn_ties_included(rows):
    truth, score = [t for t, _ in rows], [float(x) for _, x in rows]
    if any(truth):
        assert average_precision(truth, score) == pytest.approx(average_precision_score(truth, score))
    else:
        assert average_precision(truth, score) is None


def _many(rng, facts, tell):
    rows = []
    for fact in range(facts):
        wrong = fact % 2 == 0
        for position in range(3):
            conflict = wrong and position == 1
            nll = float(rng.exponential(1) + (tell if conflict else 0))
            rows.append(
                _row(f"f{fact}", "confident-wrong" if wrong else "stable", nll, float(rng.uniform(0.05, 1)), conflict)
            )
    return rows


def test_scores_without_any_information_reach_chance_and_the_interval_knows():
    side = detection(_many(np.random.default_rng(0), 200, tell=0.0), tau_in_use=5.0)["by_token"]
    low, high = side["average_precision_ci"]
    assert low <= side["average_precision"] <= high
    assert low < side["chance"] * 1.3
    assert side["average_precision"] < 2 * side["chance"]
    low, high = side["difference"]["ci"]
    assert low < 0 < high


def test_more_facts_make_the_interval_narrower():
    def width(facts):
        side = detection(_many(np.random.default_rng(1), facts, tell=1.5), tau_in_use=5.0)["by_fact"]
        return np.diff(side["average_precision_ci"])[0]

    assert width(400) < 0.5 * width(40)


def test_facts_are_resampled_whole():
    # one fact ten times over says no more than one fact
    once = _many(np.random.default_rng(2), 30, tell=1.0)
    often = [row | {"position": i} for row in once for i in range(10)]
    one, ten = (detection(rows, tau_in_use=5.0)["by_token"] for rows in (once, often))
    assert ten["average_precision"] == pytest.approx(one["average_precision"])
    assert ten["average_precision_ci"] == pytest.approx(one["average_precision_ci"])


def test_rows_of_unknown_class_are_left_out():
    more = [*ROWS, _row("d", None, 30.0, 0.01, conflict=True)]
    assert detection(more, tau_in_use=5.0) == detection(ROWS, tau_in_use=5.0)


@pytest.mark.parametrize("rows", [[], [row for row in ROWS if row["knowledge"] == "stable"]])
def test_nothing_to_find_is_said(rows):
    found = detection(rows, tau_in_use=5.0)
    for side in (found["by_token"], found["by_fact"]):
        assert "nothing to find" in side["note"]
        assert side["average_precision"] is None
        assert side["taus"] == side["recall"] == []
    json.dumps(found, allow_nan=False)


def test_no_threshold_in_use_and_no_resamples():
    found = detection(ROWS, resamples=0)
    assert found["tau_in_use"] is found["by_token"]["at_tau"] is found["by_fact"]["average_precision_ci"] is None
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("row", [_row("a", "stable", math.nan, 0.5), {"item": "a", "knowledge": "stable", "nll": 1.0}])
def test_bad_rows_are_an_error(row):
    with pytest.raises(UserError):
        detection([*ROWS, row])
