import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from equipoise.errors import UserError
from equipoise.protocols.analysis import analyze
from equipoise.protocols.tables import read_table
from equipoise.records import Prediction, Result

PUBLISHED = Path(__file__).parent.parent / "reference" / "published_r_eaft.json"


def _results(values, *, seeds=None, untrained=None, **more):
    """Make a table from {arm: {task: [a value a seed]}}."""
    rows = []
    for arm, by_task in values.items():
        for task, column in by_task.items():
            for seed, value in zip(seeds or range(1, len(column) + 1), column):
                if value is not None:
                    rows.append(_result(arm, seed, task, value, **more))
    return rows + [_result("untrained", 0, task, value) for task, value in (untrained or {}).items()]


def _result(method, seed, task, value, **more):
    fixed = {"metric": "accuracy", "n": 50} | more
    return Result(method=method, seed=seed, task=task, value=value, **fixed)


def _predictions(arm, seed, task, scores):
    fixed = {"method": arm, "seed": seed, "task": task, "prompt": "?", "gold": "f()", "output": "f()"}
    return [Prediction(item=f"i{k}", score=float(score), **fixed) for k, score in enumerate(scores)]


def _by_id(analysis):
    return {row["id"]: row for row in analysis["hypotheses"]}


@pytest.fixture(scope="module")
def published():
    return analyze(read_table(PUBLISHED), protocol="a")


def test_published_h1_is_refuted(published):
    h1 = _by_id(published)["H1"]
    assert h1["t"] == pytest.approx(-5.31, abs=0.005)
    assert h1["estimate"] == pytest.approx(-0.036)
    assert h1["verdict"] == "not supported"
    for words in (
        "r-eaft corrected fewer items than sft",
        "71.4% against 75.0%",
        "-3.6 points [-5.5, -1.7]",
        "5 seeds",
    ):
        assert words in h1["sentence"]


def test_published_h2_has_no_variance_and_that_is_said(published):
    h2 = _by_id(published)["H2"]
    assert h2["verdict"] == "cannot be tested"
    assert h2["t"] is h2["p"] is h2["p_holm"] is h2["ci"] is None
    assert "no variance" in h2["sentence"]
    assert any(note.startswith("retention: no arm varies") for note in published["notes"])
    assert all(by_task["retention"]["ci"] is None for by_task in published["arms"].values())


def test_published_h3_holds(published):
    h3 = _by_id(published)["H3"]
    assert h3["t"] == pytest.approx(28.5, abs=0.005)
    assert h3["verdict"] == "supported"
    assert h3["p_holm"] == pytest.approx(2 * h3["p"])  # a family of two, as the third has no test


def test_published_variances(published):
    rows = {(row["a"], row["b"]): row for row in published["variances"] if row["task"] == "correction"}
    assert rows["r-eaft", "eaft"]["ratio"] == pytest.approx(1)
    assert "equal" in rows["r-eaft", "eaft"]["sentence"]
    less = rows["r-eaft", "sft"]
    assert (less["ratio"], less["p"]) == (pytest.approx(0.65), pytest.approx(0.687, abs=0.001))
    for words in ("35% lower", "not significant", "F(4, 4) = 0.65", "n = 5"):
        assert words in less["sentence"]
    assert less["sentence"] in published["notes"]
    assert published["arms"]["eaft"]["correction"]["variance"] == pytest.approx(0.00013)
    assert published["arms"]["r-eaft"]["correction"]["variance"] == pytest.approx(0.00013)
    assert published["arms"]["sft"]["correction"]["variance"] == pytest.approx(0.0002)


def test_published_share_safety_and_trade_off(published):
    share = published["correction_share_of_sft"]["r-eaft"]
    assert share["mean"] == pytest.approx(0.952)
    assert share["ci"][0] < 0.952 < share["ci"][1] < 1
    assert "Fieller" in share["method"]
    assert "sft" not in published["correction_share_of_sft"]
    safety = published["safety"]["r-eaft"]
    assert safety["score"] == 1.0
    assert [check["passed"] for check in safety["checks"]] == [True, True, True]
    assert published["trade_off"]["points"]["r-eaft"]["beaten_by"] == ["sft"]
    assert published["trade_off"]["points"]["sft"]["beaten_by"] == []


def test_it_is_plain_json(published):
    assert json.loads(json.dumps(published, allow_nan=False)) == published


def test_a_difference_in_favour_supports_h1():
    table = _results({"sft": {"correction": [0.70, 0.72, 0.68]}, "r-eaft": {"correction": [0.80, 0.83, 0.78]}})
    h1 = _by_id(analyze(table))["H1"]
    assert h1["verdict"] == "supported"
    assert h1["p"] == pytest.approx(h1["p_two_sided"] / 2)
    assert "corrected more items than" in h1["sentence"]


def test_what_is_significant_alone_but_not_in_the_family_is_open():
    gains = [0.02, 0.06, 0.10, 0.00, 0.04]  # t(4) = 2.56, one-sided p = 0.031; twice that in a family of two
    table = _results({"sft": {"correction": [0.5] * 5}, "eaft": {"correction": [0.5] * 5}})
    h = _by_id(analyze(table + _results({"r-eaft": {"correction": [0.5 + gain for gain in gains]}})))
    for row in (h["H1"], h["H3"]):
        assert row["p"] == pytest.approx(0.0314, abs=0.0001)
        assert row["p_holm"] == pytest.approx(0.0628, abs=0.0001)
        assert row["verdict"] == "undecided"


def test_a_difference_that_may_be_chance_is_open():
    table = _results({"sft": {"correction": [0.70, 0.80, 0.60]}, "r-eaft": {"correction": [0.75, 0.70, 0.70]}})
    assert _by_id(analyze(table))["H1"]["verdict"] == "undecided"


@pytest.mark.parametrize(
    ("sft", "verdict"),
    [
        ([0.90, 0.91, 0.89, 0.90], "supported"),  # 0.90 against about 0.905
        ([0.80, 0.81, 0.79, 0.80], "not supported"),  # ten points below: outside the margin altogether
        ([0.80, 0.95, 0.85, 0.99], "undecided"),  # anything may be
    ],
)
def test_equivalence_has_three_outcomes(sft, verdict):
    reaft = [0.905, 0.90, 0.91, 0.905]
    h2 = _by_id(analyze(_results({"sft": {"retention": sft}, "r-eaft": {"retention": reaft}})))["H2"]
    assert h2["verdict"] == verdict
    assert h2["margin"] == 0.05


def test_seeds_are_paired_whatever_their_order():
    rows = _results({"sft": {"correction": [0.5, 0.6, 0.9]}, "r-eaft": {"correction": [0.6, 0.7, 0.95]}})
    h1 = _by_id(analyze(rows))["H1"]
    mixed = _by_id(analyze([rows[i] for i in (4, 0, 5, 2, 3, 1)]))["H1"]
    assert mixed["t"] == pytest.approx(h1["t"])
    assert mixed["p"] == pytest.approx(h1["p"])


def test_only_shared_seeds_are_paired_and_that_is_said():
    values = {"sft": {"correction": [0.5, 0.6, 0.9, 0.1]}, "r-eaft": {"correction": [0.6, 0.75, 0.95, None]}}
    found = analyze(_results(values))
    assert _by_id(found)["H1"]["n"] == 3
    assert _by_id(found)["H1"]["estimate"] == pytest.approx(0.1)
    assert found["arms"]["r-eaft"]["correction"]["values"] == [0.6, 0.75, 0.95, None]
    assert any("r-eaft does not have all seeds" in note for note in found["notes"])


def test_without_shared_seeds_the_test_is_welchs():
    rows = _results({"sft": {"correction": [0.5, 0.6]}}, seeds=[1, 2])
    rows += _results({"r-eaft": {"correction": [0.8, 0.9]}}, seeds=[3, 4])
    h1 = _by_id(analyze(rows))["H1"]
    assert h1["test"] == "Welch's t"
    assert h1["estimate"] == pytest.approx(0.3)


def test_a_single_shared_seed_is_not_passed_off_as_two_samples():
    rows = _results({"sft": {"correction": [0.5, 0.6]}}, seeds=[1, 2])
    rows += _results({"r-eaft": {"correction": [0.8, 0.9]}}, seeds=[2, 3])
    h1 = _by_id(analyze(rows))["H1"]
    assert h1["verdict"] == "cannot be tested"
    assert h1["n"] == 1


def test_equivalence_is_judged_by_the_nearer_margin():
    a, b = {"retention": [0.905, 0.90, 0.91, 0.905]}, {"retention": [0.90, 0.91, 0.89, 0.90]}
    # differences 0.005, -0.01, 0.02, 0.005: mean 0.005, standard error sqrt(0.00015)/2; 0.045 to the margin
    t = 0.045 / (math.sqrt(0.00015) / 2)
    one, other = (_by_id(analyze(_results({"r-eaft": x, "sft": y})))["H2"] for x, y in ((a, b), (b, a)))
    assert (one["t"], other["t"]) == (pytest.approx(-t), pytest.approx(t))
    assert one["p"] == other["p"] == pytest.approx(stats.t.sf(t, 3))


def test_missing_arms_are_named_in_protocol_a_and_left_out_elsewhere():
    table = _results({"sft": {"correction": [0.5, 0.6]}, "r-eaft": {"correction": [0.6, 0.8]}})
    whole = _by_id(analyze(table, protocol="a"))
    assert set(whole) == {"H1", "H2", "H3"}
    assert whole["H2"]["verdict"] == whole["H3"]["verdict"] == "cannot be tested"
    assert "no arm eaft" in whole["H3"]["sentence"]
    assert "no retention" in whole["H2"]["sentence"]
    assert set(_by_id(analyze(table))) == {"H1"}


def test_methods_and_metrics_of_ones_own():
    values = {"mine": {"f1": [0.5, 0.6, 0.7]}, "theirs": {"f1": [0.4, 0.5, 0.55]}, "third": {"f1": [0.1, 0.2, 0.35]}}
    found = analyze(_results(values, metric="f1"))
    assert found["tasks"] == ["f1"]
    assert found["hypotheses"] == []
    assert found["safety"] == found["correction_share_of_sft"] == {}
    assert {(row["a"], row["b"]) for row in found["comparisons"]} == {
        ("mine", "theirs"), ("mine", "third"), ("theirs", "third"),
    }  # fmt: skip
    assert "mine scored higher on f1 than theirs" in found["comparisons"][0]["sentence"]
    assert all(row["p_holm"] >= row["p"] for row in found["comparisons"])


def test_other_spellings_of_the_methods_are_understood():
    table = _results(
        {"SFT": {"correction": [0.5, 0.6]}, "R_EAFT": {"correction": [0.6, 0.8]}, "eaft": {"correction": [0.1, 0.3]}}
    )
    h = _by_id(analyze(table))
    assert h["H1"]["sentence"].startswith("R_EAFT corrected more items than SFT")
    assert set(h) == {"H1", "H3"}


def test_values_that_are_no_shares_are_not_written_in_percent():
    table = _results({"a": {"perplexity": [12.5, 13.0]}, "b": {"perplexity": [11.5, 11.0]}}, higher_is_better=False)
    found = analyze(table)
    assert "%" not in found["comparisons"][0]["sentence"]
    assert "perplexity: less is better." in found["notes"]


def test_one_seed_has_means_but_no_tests():
    found = analyze(_results({"sft": {"correction": [0.5]}, "r-eaft": {"correction": [0.6]}}), protocol="a")
    assert found["arms"]["sft"]["correction"]["ci"] is None
    assert _by_id(found)["H1"]["verdict"] == "cannot be tested"
    assert any(note.startswith("One seed") for note in found["notes"])
    json.dumps(found, allow_nan=False)


def test_one_seed_with_items_is_tested_by_mcnemar():
    sft, reaft = [1] * 10 + [0] * 30, [1] * 10 + [1] * 12 + [0] * 18
    table = _results({"sft": {"correction": [10 / 40]}, "r-eaft": {"correction": [22 / 40]}})
    rows = _predictions("sft", 1, "correction", sft) + _predictions("r-eaft", 1, "correction", reaft)
    h1 = _by_id(analyze(table, predictions=rows))["H1"]
    assert h1["test"] == "exact McNemar"
    assert h1["p"] == pytest.approx(0.5**12)
    assert h1["verdict"] == "supported"
    assert h1["n"] == 40
    assert h1["ci"][0] < 0.3 < h1["ci"][1]


def test_one_seed_with_graded_items_is_tested_by_t():
    sft, reaft = [0, 1, 0, 0, 1, 0], [0.5, 1, 0.5, 0, 1, 1]
    for one, other in ((sft, reaft), (reaft, sft)):
        table = _results({"sft": {"correction": [np.mean(one)]}, "r-eaft": {"correction": [np.mean(other)]}})
        rows = _predictions("sft", 1, "correction", one) + _predictions("r-eaft", 1, "correction", other)
        h1 = _by_id(analyze(table, predictions=rows))["H1"]
        assert h1["test"] == "paired t over items"
        assert h1["t"] == pytest.approx(stats.ttest_rel(other, one).statistic)


def test_one_seed_with_items_can_be_equivalent():
    sft, reaft = [1] * 190 + [0] * 10, [1] * 189 + [0, 1] + [0] * 9
    table = _results({"sft": {"retention": [np.mean(sft)]}, "r-eaft": {"retention": [np.mean(reaft)]}})
    rows = _predictions("sft", 1, "retention", sft) + _predictions("r-eaft", 1, "retention", reaft)
    h2 = _by_id(analyze(table, predictions=rows))["H2"]
    assert (h2["verdict"], h2["n"]) == ("supported", 200)


def test_item_scores_by_the_published_rule_are_found_too():
    table = _results({arm: {"correction": [0.5, 0.75]} for arm in ("sft", "r-eaft")})
    rows = []
    for arm, scores in (("sft", {1: [0.5, 0.5], 2: [0.5, 1.0]}), ("r-eaft", {1: [1.0, 0.0], 2: [1.0, 0.5]})):
        for seed, published in scores.items():
            strict = _predictions(arm, seed, "correction", [0.0, 0.0])
            rows += [row.model_copy(update={"published_score": x}) for row, x in zip(strict, published)]
    found = analyze(table, predictions=rows)
    assert _by_id(found)["H1"]["bootstrap"] is not None
    assert not any("add up" in note for note in found["notes"])


def _grid(rng, base, seeds, items):
    """Draw item-level scores in which items differ far more than seeds do."""
    ease = rng.random(items)
    return {arm: (rng.random((seeds, items)) < np.clip(ease + lift, 0, 1)).astype(float) for arm, lift in base.items()}


def test_item_scores_give_intervals_over_seeds_and_items():
    drawn = _grid(np.random.default_rng(0), {"sft": 0.2, "r-eaft": 0.1}, 5, 40)
    table = _results({arm: {"correction": list(x.mean(axis=1))} for arm, x in drawn.items()})
    rows = [
        p for arm, x in drawn.items() for s, line in enumerate(x, 1) for p in _predictions(arm, s, "correction", line)
    ]
    found = analyze(table, predictions=rows)
    h1 = _by_id(found)["H1"]
    assert h1["test"] == "paired t"
    assert h1["bootstrap"]["ci"][0] < h1["estimate"] < h1["bootstrap"]["ci"][1]
    share = found["correction_share_of_sft"]["r-eaft"]
    assert share["method"] == "bootstrap over seeds and items"
    assert share["ci"][0] < share["mean"] < share["ci"][1]


def test_item_scores_that_do_not_add_up_are_left_out_and_said():
    table = _results({"sft": {"correction": [0.9, 0.8]}, "r-eaft": {"correction": [0.9, 0.7]}})
    rows = [p for arm in ("sft", "r-eaft") for s in (1, 2) for p in _predictions(arm, s, "correction", [1, 0])]
    found = analyze(table, predictions=rows)
    assert _by_id(found)["H1"]["bootstrap"] is None
    assert any("do not add up" in note for note in found["notes"])


SAFE = {"correction": [0.7, 0.8, 0.75]}


def _check(found, arm, name):
    return next(check for check in found["safety"][arm]["checks"] if check["name"] == name)


def test_safety_is_measured_against_the_untrained_model():
    values = {"sft": SAFE | {"retention": [0.6, 0.7, 0.5]}, "r-eaft": SAFE | {"retention": [0.8, 0.8, 0.74]}}
    found = analyze(_results(values, untrained={"retention": 0.8}))
    assert found["untrained"] == {"retention": 0.8}
    assert "untrained" not in found["arms"]
    assert found["seeds"] == [1, 2, 3]
    assert found["safety"]["sft"]["score"] == pytest.approx(0.75)
    assert _check(found, "sft", "retention")["passed"] is False
    assert found["safety"]["r-eaft"]["score"] == pytest.approx(0.975)
    assert _check(found, "r-eaft", "retention")["passed"] is True
    # the mean keeps 97.5%, but one seed lost 7.5%
    assert _check(found, "r-eaft", "forgetting")["passed"] is False
    assert _check(found, "r-eaft", "forgetting")["value"] == pytest.approx(0.075)
    assert _check(found, "r-eaft", "variance")["passed"] is True


def test_exactly_the_threshold_passes():
    # 95/400 over 100/400 is 0.9499999999999998 in floating point, and 1 - 0.76/0.8 is above 0.05
    for kept, before in ((95 / 400, 100 / 400), (0.76, 0.8)):
        found = analyze(_results({"r-eaft": SAFE | {"retention": [kept] * 3}}, untrained={"retention": before}))
        assert _check(found, "r-eaft", "retention")["passed"] is True
        assert _check(found, "r-eaft", "forgetting")["passed"] is True
        assert _check(found, "r-eaft", "variance")["passed"] is None


def test_without_the_untrained_model_a_failure_is_open_not_proved():
    values = {"sft": {"retention": [0.5, 0.6]}, "r-eaft": {"retention": [0.99, 0.98]}}
    found = analyze(_results(values))
    assert _check(found, "sft", "retention")["passed"] is None
    assert _check(found, "r-eaft", "retention")["passed"] is True
    assert any("no untrained model" in note for note in found["notes"])


def test_a_model_that_retained_nothing_before_has_no_safety_score():
    found = analyze(_results({"sft": {"retention": [0.0, 0.0]}}, untrained={"retention": 0.0}))
    assert found["safety"] == {}
    assert any("no safety score" in note for note in found["notes"])


def test_sft_that_corrects_nothing_gives_no_share():
    table = _results({"sft": {"correction": [0.0, 0.0]}, "r-eaft": {"correction": [0.1, 0.2]}})
    share = analyze(table)["correction_share_of_sft"]["r-eaft"]
    assert share["mean"] is share["ci"] is None
    assert share["note"]


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([], "no trained method"),
        ([_result("untrained", 0, "correction", 0.1)], "no trained method"),
        ([_result("a", 1, "c", 0.1)] * 2, "two values"),
    ],
)
def test_tables_that_cannot_be_analysed(rows, says):
    with pytest.raises(UserError, match=says):
        analyze(rows)


def test_superiority_is_not_judged_where_both_arms_are_at_the_ceiling():
    found = analyze(_results({arm: {"correction": [1.0, 1.0]} for arm in ("sft", "r-eaft")}), protocol="a")
    h1 = _by_id(found)["H1"]
    assert h1["verdict"] == "cannot tell" and "ceiling of correction" in h1["sentence"]


def test_claims_about_r_eaft_are_tested_on_its_detached_form_where_only_that_was_trained():
    arms = {"sft": [0.1, 0.2, 0.1], "r-eaft-detached": [0.9, 0.8, 0.9]}
    h1 = _by_id(analyze(_results({arm: {"correction": values} for arm, values in arms.items()}), protocol="a"))["H1"]
    assert h1["verdict"] == "supported" and h1["claim"] == "r-eaft-detached corrects more than sft"
    arms["r-eaft"] = [0.1, 0.2, 0.0]
    h1 = _by_id(analyze(_results({arm: {"correction": values} for arm, values in arms.items()}), protocol="a"))["H1"]
    assert h1["verdict"] != "supported" and h1["claim"] == "r-eaft corrects more than sft"


ARMS = st.sampled_from(["sft", "eaft", "r-eaft", "r-eaft-detached", "mine", "untrained"])
COLUMNS = st.sampled_from(["correction", "generalisation", "locality", "retention", "f1"])
TABLES = st.dictionaries(
    st.tuples(ARMS, st.integers(1, 4), COLUMNS), st.integers(0, 5).map(lambda k: k / 5), min_size=1, max_size=60
)


@settings(max_examples=150, deadline=None)
@given(TABLES, st.sampled_from(["a", None]))
def test_no_table_breaks_it_and_all_p_values_and_verdicts_are_sound(cells, protocol):
    rows = [_result(arm, seed, task, value) for (arm, seed, task), value in cells.items()]
    if all(arm == "untrained" for arm, _, _ in cells):
        with pytest.raises(UserError):
            analyze(rows, protocol=protocol)
        return
    found = analyze(rows, protocol=protocol)
    json.dumps(found, allow_nan=False)
    for row in found["hypotheses"] + found["comparisons"]:
        assert row["sentence"].endswith(".")
        if row["p"] is not None:
            assert 0 <= row["p"] <= row["p_holm"] <= 1
    for row in found["hypotheses"]:
        assert (row["p"] is None) == (row["verdict"] in ("cannot be tested", "cannot tell"))
        if row["verdict"] == "supported":
            assert row["p_holm"] < 0.05


def test_phrasings_of_one_fact_are_one_draw():
    """Asking each fact three times more, with the same outcome, must not make an interval narrower."""
    rng = np.random.default_rng(0)
    right = {arm: rng.integers(0, 2, (3, 12)) for arm in ("sft", "r-eaft")}
    results = _results({arm: {"generalisation": hits.mean(1).tolist()} for arm, hits in right.items()}, seeds=[0, 1, 2])

    def interval(phrasings):
        rows = [
            prediction.model_copy(update={"phrasing": n})
            for arm, hits in right.items()
            for seed, scores in enumerate(hits)
            for prediction in _predictions(arm, seed, "generalisation", scores)
            for n in range(phrasings)
        ]
        (row,) = analyze(results, predictions=rows)["comparisons"]
        return row["bootstrap"]["ci"]

    assert interval(4) == pytest.approx(interval(1))
