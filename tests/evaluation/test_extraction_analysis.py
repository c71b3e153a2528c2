"""Arms compared on the same sentences, against F1 worked out by hand."""

import pytest

from equipoise.errors import UserError
from equipoise.evaluation.extraction_analysis import analyse, difference, flat_results


def row(method, seed, name, tp, fp, fn, domain="target", valid=True):
    predicted = [["x", str(i)] for i in range(tp + fp)]
    return {"method": method, "seed": seed, "id": name, "domain": domain, "tp": tp, "fp": fp, "fn": fn} | {
        "valid": valid,
        "predicted": predicted,
    }


def arm(method, seed, *counts, domain="target"):
    return [row(method, seed, f"s{i}", *each, domain=domain) for i, each in enumerate(counts)]


def f1(*counts):
    tp, fp, fn = map(sum, zip(*counts))
    return 2 * tp / (2 * tp + fp + fn)


ZERO = [(1, 1, 1), (0, 1, 2), (2, 0, 0), (0, 0, 1)]
BETTER = [(2, 0, 0), (1, 0, 1), (2, 0, 0), (1, 0, 0)]
OTHER = [(2, 1, 0), (1, 1, 1), (1, 0, 1), (1, 0, 0)]


def test_scores_changes_and_contrasts_are_those_of_plain_arithmetic():
    rows = arm("zero-shot", 1, *ZERO) + arm("curriculum", 1, *BETTER) + arm("curriculum", 2, *OTHER)
    rows += arm("sft", 1, *OTHER) + arm("sft", 2, *ZERO)
    found = analyse(rows, primary="curriculum")
    assert found["n"] == {"target": 4} and found["seeds"] == [1, 2]
    assert found["scores"]["zero-shot"]["target"]["f1"]["mean"] == pytest.approx(f1(*ZERO))
    scores = found["scores"]["curriculum"]["target"]["f1"]
    assert scores["values"] == pytest.approx([f1(*BETTER), f1(*OTHER)])
    assert scores["mean"] == pytest.approx((f1(*BETTER) + f1(*OTHER)) / 2)
    change = found["changes"]["curriculum"]["target"]
    assert change["estimate"] == pytest.approx((f1(*BETTER) + f1(*OTHER)) / 2 - f1(*ZERO))
    assert change["by_seed"] == pytest.approx([f1(*BETTER) - f1(*ZERO), f1(*OTHER) - f1(*ZERO)])
    against = {contrast["against"]: contrast for contrast in found["contrasts"]}
    assert set(against) == {"zero-shot", "sft"}
    assert against["sft"]["by_seed"] == pytest.approx([f1(*BETTER) - f1(*OTHER), f1(*OTHER) - f1(*ZERO)])
    assert all(each["p"] <= each["p_holm"] <= 1 for each in found["contrasts"])


def test_an_arm_that_is_always_better_has_an_interval_above_zero():
    many = [(1, 0, 0)] * 60 + [(0, 1, 1)] * 20
    few = [(0, 1, 1)] * 60 + [(1, 0, 0)] * 20
    rows = arm("zero-shot", 1, *few) + [r for seed in (1, 2, 3) for r in arm("curriculum", seed, *many)]
    low, high = analyse(rows, primary="curriculum")["changes"]["curriculum"]["target"]["bootstrap"]
    assert 0.1 < low < 0.5 < high < 0.9


def test_an_arm_against_itself_differs_by_nothing_and_has_no_interval():
    same = {1: {"target": arm("a", 1, *BETTER)}}
    found = difference(same, same, "target")
    assert found["estimate"] == 0 and found["p"] is None and "one seed" in found["note"]


def test_a_single_seed_has_an_interval_over_sentences():
    rows = arm("zero-shot", 1, *ZERO) + arm("curriculum", 1, *BETTER)
    found = analyse(rows, primary="curriculum")["scores"]["curriculum"]["target"]["f1"]
    assert found["over"] == "sentences" and found["low"] <= found["mean"] <= found["high"]


def test_both_domains_are_scored_each_for_itself():
    rows = arm("zero-shot", 1, *ZERO) + arm("zero-shot", 1, *BETTER, domain="source")
    found = analyse(rows, primary="curriculum")
    assert found["scores"]["zero-shot"]["source"]["f1"]["mean"] == pytest.approx(f1(*BETTER))
    assert found["contrasts"] == [] and found["changes"] == {}
    flat = {(r.task, r.metric): r.value for r in flat_results(rows)}
    assert flat["target", "f1"] == pytest.approx(f1(*ZERO)) and flat["source", "valid"] == 1


def test_arms_that_answered_other_sentences_are_refused():
    rows = arm("zero-shot", 1, *ZERO) + arm("curriculum", 1, *BETTER[:3])
    with pytest.raises(UserError, match="same sentences"):
        analyse(rows, primary="curriculum")
    with pytest.raises(UserError, match="no answers"):
        analyse([], primary="curriculum")
