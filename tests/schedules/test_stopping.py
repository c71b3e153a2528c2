"""The stopping rule: when it stops, when it must not, and that a break in between changes no bit."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equipoise.errors import UserError
from equipoise.schedules.stopping import Stopping, StoppingSettings


def noise(seed, size, memory=0.0):
    rng = np.random.default_rng(seed)
    out = [rng.normal()]
    for _ in range(size - 1):
        out.append(memory * out[-1] + math.sqrt(1 - memory**2) * rng.normal())
    return np.array(out)


def falling(steps=2000, speed=100, sigma=0.02, seed=0):
    return 1 + np.exp(-np.arange(steps) / speed) + sigma * noise(seed, steps)


def feed(losses, *, tokens=100, epoch=100, warmup=0, **options):
    """Run a rule over losses; the data are seen once every `epoch` steps. Gives the rule and its verdicts."""
    rule = Stopping(StoppingSettings(**options), total_tokens=epoch * tokens, warmup_steps=warmup)
    verdicts = []
    for step, loss in enumerate(losses, 1):
        verdict = rule.add(step, float(loss), tokens, tokens if step <= epoch else 0)
        if verdict is not None:
            verdicts.append(verdict)
            if verdict.action == "stop":
                break
    return rule, verdicts


# ---- plateau


def test_a_curve_that_came_to_rest_is_stopped_and_the_sentence_says_why():
    _, [verdict] = feed(falling())
    assert (verdict.action, verdict.reason) == ("stop", "plateau")
    assert 300 < verdict.step < 1500
    assert verdict.numbers["gain"] + 1.0 * verdict.numbers["error"] < 0.03
    assert "less than 3.00%" in verdict.sentence and "100% of the supervised tokens" in verdict.sentence


def test_a_curve_that_still_falls_is_not_stopped():
    assert feed(3 - np.arange(2000) / 1000 + 0.05 * noise(1, 2000))[1] == []


def test_the_gain_by_hand():
    """Blocks of 2, 24 of them: two windows of 8 blocks, whose means are 4 and 3, after a start of 10."""
    losses = [10.0] * 16 + [4.5, 4.5, 3.5, 3.5] * 4 + [3.5, 3.5, 2.5, 2.5] * 4
    rule, verdicts = feed(losses, block=2, window=0.34, checks=99)
    gain, error = rule.gain()
    assert verdicts == [] and gain == pytest.approx((4 - 3) / (10 - 3))
    single = math.sqrt(8 * 0.5**2 / 7 / 8)  # block means lie 0.5 above and below by turns: neighbours are unlike
    assert error == pytest.approx(math.sqrt(2) * single / 7)


def test_tokens_weigh_the_steps():
    rule = Stopping(StoppingSettings(block=2, window=0.34, checks=99), total_tokens=1)
    for step in range(1, 49):
        heavy = step % 2 == 0
        rule.add(step, 4.0 if heavy else 1.0, 300 if heavy else 100, 1)
    assert rule.blocks.closed[0].mean == pytest.approx((300 * 4 + 100 * 1) / 400)
    assert rule.gain()[0] == 0


@pytest.mark.parametrize("memory", [0.0, 0.9])
def test_noise_delays_the_stop(memory):
    def stop(sigma, seed):
        losses = 1 + np.exp(-np.arange(4000) / 100) + sigma * noise(seed, 4000, memory)
        verdicts = feed(losses)[1]
        return verdicts[0].step if verdicts else 4000

    quiet, loud = (np.mean([stop(sigma, seed) for seed in range(16)]) for sigma in (0.01, 0.3))
    assert loud > (1.3 if memory else 1.0) * quiet


def test_the_error_of_autocorrelated_noise_is_not_that_of_independent_noise():
    """The true spread of the difference of two window means, over 300 runs, against the error that the rule states."""
    gains, errors = [], []
    for seed in range(300):
        rule, _ = feed(noise(seed, 400, 0.8) + 10, block=8, checks=99, divergence=9, delta=1e-9)
        found = rule.blocks.windows(0.33, 8)
        gains.append(found[0].mean - found[1].mean)
        errors.append(math.hypot(found[0].error, found[1].error))
    true, independent = np.std(gains), math.sqrt(2 / 128)
    assert 0.8 * true < np.sqrt(np.mean(np.square(errors))) < 1.6 * true
    assert true > 2.5 * independent


def test_a_fall_that_noise_hides_is_seldom_called_a_plateau():
    """Noise with memory makes the last window look much worse than the one before while the loss still falls."""

    def stops(**options):
        curves = [3 - np.arange(600) / 600 + 0.4 * noise(seed, 600, 0.95) for seed in range(40)]
        return sum(bool(feed(losses, **options)[1]) for losses in curves)

    assert stops() < 0.5 * stops(unsure=1e9)


def test_a_flat_curve_without_noise_stops_as_soon_as_windows_are_full():
    _, [verdict] = feed([2.0] * 1000)
    assert verdict.reason == "plateau" and verdict.numbers == {"gain": 0.0, "error": 0.0, "seen": 1.0}
    assert verdict.step == 8 * (25 + 4)  # a third of 25 blocks of 8 steps are 8 blocks, and five checks in a row


# ---- floor


def test_no_plateau_stops_before_the_floor_of_distinct_tokens():
    _, [verdict] = feed([2.0] * 2000, epoch=1000, floor=0.8)
    assert verdict.step == 800 and verdict.numbers["seen"] == 0.8


def test_tokens_seen_again_do_not_count():
    rule = Stopping(StoppingSettings(), total_tokens=10_000)
    assert all(rule.add(step, 2.0, 100, 100 if step <= 99 else 0) is None for step in range(1, 3000))


def test_warm_up_is_no_plateau():
    losses = np.concatenate([np.full(600, 3.0), 3 - 2 * (1 - np.exp(-np.arange(3000) / 200))])
    _, [late] = feed(losses + 0.01 * noise(0, 3600), warmup=600)
    _, [early] = feed(losses + 0.01 * noise(0, 3600), warmup=0)
    assert early.step < 600 < 1000 < late.step


# ---- overfitting


def validations(curve, *, seen=1.0, **options):
    """Validate along `curve`: 100 examples of very different losses all rise by it, with small moves of their own."""
    rng = np.random.default_rng(0)
    hard = rng.gamma(2, 1, 100)
    rule = Stopping(StoppingSettings(**options), total_tokens=100)
    rule.add(1, 2.0, 100, int(100 * seen))
    for i, rise in enumerate(curve, 1):
        verdict = rule.validate(10 * i, hard + rise + rng.normal(0, 0.1, 100))
        if verdict is not None:
            return verdict
    return None


def test_a_rise_on_the_same_examples_is_overfitting_though_examples_differ_far_more():
    verdict = validations([0.5, 0.0, 0.1, 0.2, 0.3])
    assert verdict.reason == "overfitting" and verdict.step == 40
    assert verdict.numbers["best_step"] == 20 and verdict.numbers["rise"] == pytest.approx(0.2, abs=0.05)
    assert "after step 20" in verdict.sentence


def test_moves_within_the_error_are_none():
    assert validations([0.5, 0.0, 0.004, 0.002, 0.005, 0.0, 0.003]) is None


def test_rises_count_in_a_row():
    curve = [0.5, 0.0, 0.3, -0.1, 0.3, 0.3]
    assert [validations(curve, rises=n).step for n in (1, 2)] == [30, 60] and validations(curve, rises=3) is None


def test_overfitting_too_waits_for_the_floor():
    assert validations([0.5, 0.0, 0.1, 0.2, 0.3], seen=0.9) is None
    assert validations([0.5, 0.0, 0.1, 0.2, 0.3], seen=0.9, floor=0.9).reason == "overfitting"


def test_the_lower_bound_by_hand():
    """Rises 1, 2, 3, 6: mean 3, standard error sqrt(14 / 3) / 2 = 1.0801."""
    for rise_z, stops in ((3 / 1.0802, True), (3 / 1.0800, False)):
        rule = Stopping(StoppingSettings(rises=1, rise_z=rise_z), total_tokens=1)
        rule.add(1, 1.0, 1, 1)
        assert rule.validate(1, [0, 0, 0, 0]) is None
        assert (rule.validate(2, [1, 2, 3, 6]) is not None) == stops


def test_a_single_example_or_one_that_is_not_finite_is_no_evidence():
    rule = Stopping(StoppingSettings(rises=1), total_tokens=1)
    rule.add(1, 1.0, 1, 1)
    assert rule.validate(1, [math.nan]) is None and rule.best is None
    assert [rule.validate(2, [1.0]), rule.validate(3, [9.0]), rule.validate(4, [math.inf])] == [None] * 3
    with pytest.raises(UserError, match="2 validation losses"):
        rule.validate(5, [1.0, 2.0])


# ---- divergence and what is no number


def test_divergence_stops_before_the_floor():
    losses = np.concatenate([falling(100), np.linspace(1, 9, 100)])
    _, [verdict] = feed(losses, epoch=10_000)
    assert verdict.reason == "divergence" and 130 < verdict.step < 160
    assert "above the" in verdict.sentence


def test_a_rise_that_stays_below_the_start_is_no_divergence():
    verdicts = feed(np.concatenate([falling(300), np.full(300, 1.8)]), epoch=10_000)[1]
    assert verdicts == []


def test_losses_that_are_no_numbers_stop_only_in_a_row():
    broken = [2.0, math.nan, math.inf, 2.0] * 50
    assert feed(broken, non_finite=3, epoch=10_000)[1] == []
    _, [verdict] = feed([2.0, math.nan, -math.inf, math.nan, 2.0], non_finite=3)
    assert (verdict.reason, verdict.step) == ("non-finite", 4) and verdict.sentence.startswith("3 losses in a row")


def test_steps_without_labels_say_nothing():
    rule = Stopping(StoppingSettings(), total_tokens=1)
    assert all(rule.add(step, 0.0, 0, 1) is None for step in range(1, 2000))


def test_after_a_stop_it_says_the_same_again():
    rule, [verdict] = feed(falling())
    assert rule.add(5000, 0.1, 100, 0) is verdict and rule.validate(5000, [1.0, 2.0]) is verdict


# ---- restarts


def test_a_plateau_before_the_floor_restarts_a_bounded_number_of_times():
    _, verdicts = feed([2.0] * 3000, epoch=2500, restarts=2)
    assert [v.action for v in verdicts] == ["restart", "restart", "stop"]
    assert all(v.reason == "plateau" for v in verdicts)
    assert [v.step for v in verdicts] == [232, 464, 2500]
    assert "1 restarts left" in verdicts[0].sentence


# ---- going on after a break


@settings(max_examples=30, deadline=None)
@given(
    cut=st.integers(1, 700),
    seed=st.integers(0, 1000),
    kind=st.sampled_from(["falling", "diverging", "broken"]),
    restarts=st.integers(0, 2),
)
def test_a_state_through_json_changes_no_bit(cut, seed, kind, restarts):
    losses = falling(700, seed=seed)
    losses[400:] += {"falling": 0.0, "diverging": 5.0, "broken": math.nan}[kind]
    options = {"epoch": 500, "restarts": restarts}

    def step(rule, i):
        out = [rule.add(i + 1, float(losses[i]), 100 + i % 7, 103 if i < 500 else 0)]
        if i % 50 == 49:
            out.append(rule.validate(i + 1, losses[i] + np.arange(5.0) / 3))
        return out

    def fresh():
        return Stopping(StoppingSettings(restarts=options["restarts"]), total_tokens=51_500)

    whole, cut_short = fresh(), fresh()
    for i in range(cut):
        assert step(whole, i) == step(cut_short, i)
    resumed = fresh()
    resumed.load_state_dict(json.loads(json.dumps(cut_short.state_dict())))
    for i in range(cut, 700):
        assert step(whole, i) == step(resumed, i)
    assert whole.state_dict() == resumed.state_dict()


def test_the_state_does_not_grow_with_the_run():
    rule, _ = feed(3 - np.arange(50_000) / 50_000, checks=99)
    assert len(json.dumps(rule.state_dict())) < 10_000


def test_a_state_is_a_copy():
    rule, _ = feed(falling(50))
    state = rule.state_dict()
    before = json.dumps(state)
    rule.add(51, 1.0, 100, 0)
    assert json.dumps(state) == before


# ---- settings


@pytest.mark.parametrize(
    "wrong",
    [
        {"floor": 1.1},
        {"delta": 0.0},
        {"z": -1.0},
        {"checks": 0},
        {"window": 0.6},
        {"block": 1},
        {"divergence": 1.0},
        {"restarts": -1},
        {"k": math.nan},
        {"rise_z": math.inf},
    ],
)
def test_settings_out_of_range_are_named(wrong):
    with pytest.raises(UserError, match=f"{next(iter(wrong))} cannot be"):
        StoppingSettings(**wrong)


def test_nothing_to_learn_is_an_error():
    with pytest.raises(UserError, match="0 supervised tokens"):
        Stopping(StoppingSettings(), total_tokens=0)
