"""What pseudo-labels and their signals are worth, against numbers by hand and labels whose truth is known."""

import json

import numpy as np
import pytest

from equipoise.errors import UserError
from equipoise.evaluation.pseudo_labels import label_quality
from equipoise.signals.samples import SIGNALS, PseudoLabel

ANN, BOB = ("person", "Ann"), ("person", "Bob")


def label(number, pairs, sure, **signals):
    return PseudoLabel(str(number), tuple(pairs), dict.fromkeys(SIGNALS, sure) | signals, 8, 8)


def test_quality_by_hand():
    labels = [label(0, [ANN], 0.9), label(1, [ANN, BOB], 0.4), label(2, [], 0.8), label(3, [BOB], 0.6, votes=0.0)]
    quality = label_quality(labels, [[ANN], [ANN], [], [ANN]])
    assert quality["n"] == 4 and quality["right"] == 0.5 and quality["empty"] == quality["gold_empty"] == 0.25
    assert quality["f1"] == pytest.approx(2 * 2 / (2 * 2 + 2 + 1))
    assert quality["mean_f1"]["mean"] == pytest.approx((1 + 2 / 3 + 1 + 0) / 4)
    exact = quality["signals"]["exact"]
    assert exact["auroc"]["mean"] == 1 and exact["e_aurc"] == 0
    assert exact["aurc"]["mean"] == pytest.approx((0 + 0 + 1 / 3 + 1 / 2) / 4)
    assert exact["risk_coverage"][-1] == [1.0, 0.5] and exact["auroc_gain"] is None
    assert exact["brier"]["mean"] == pytest.approx((0.01 + 0.16 + 0.04 + 0.36) / 4)
    # sorted by surety: 2, 1, 0 or 1 entities; the ranks are 1..4 against 4, 2.5, 1, 2.5
    assert exact["entities_rank"] == pytest.approx(np.corrcoef([4, 1, 3, 2], [2.5, 4, 1, 2.5])[0, 1])
    json.dumps(quality, allow_nan=False)


def simulated(n=400, seed=1):
    rng = np.random.default_rng(seed)
    labels, gold = [], []
    for i in range(n):
        sure = float(rng.random())
        right = rng.random() < sure
        noise = {"logprob": float(rng.random()), "entropy": 0.5}
        labels.append(label(i, [ANN], sure, **noise))
        gold.append([ANN] if right else [BOB])
    return labels, gold


def test_signals_that_tell_and_those_that_do_not():
    quality = label_quality(*simulated())
    sure, noise, still = (quality["signals"][name] for name in ("votes", "logprob", "entropy"))
    assert sure["auroc"]["low"] < 5 / 6 < sure["auroc"]["high"]  # of confidences that are evenly spread and true
    assert sure["ece"] < 0.1 and sum(point["n"] for point in sure["reliability"]) == 400
    assert noise["auroc"]["low"] < 0.5 < noise["auroc"]["high"]
    assert noise["auroc_gain"]["high"] < 0 and noise["aurc"]["low"] > sure["aurc"]["high"]
    assert still["auroc"]["mean"] == 0.5 and still["f1_rank"] is None
    assert sure["auroc_gain"] == {"mean": 0.0, "low": None, "high": None, "values": [0.0]}


def test_further_confidences_are_measured_beside_the_signals():
    labels, gold = simulated(50)
    quality = label_quality(labels, gold, confidence={"calibrated": np.full(50, 0.5)})
    assert set(quality["signals"]) == {*SIGNALS, "calibrated"}
    assert quality["signals"]["calibrated"]["brier"]["mean"] == 0.25


def test_what_cannot_be_measured_is_none_and_says_why():
    labels, _ = simulated(30)
    quality = label_quality(labels, [[ANN]] * 30)
    assert quality["right"] == 1 and quality["signals"]["exact"]["auroc"] is None
    assert quality["why"] == "all 30 pseudo-labels are right: nothing to tell apart"
    assert label_quality([], [])["right"] is None
    without = [PseudoLabel("0", (ANN,), {name: 0.5 for name in SIGNALS if name != "logprob"}, 8, 8)]
    assert "logprob" not in label_quality(without, [[ANN]])["signals"]
    with pytest.raises(UserError, match="1 pseudo-labels and 0"):
        label_quality(without, [])
