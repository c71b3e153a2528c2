"""A watch over reinforcement learning that tells gaming the reward from learning."""

import json

import numpy as np
import pytest

from equipoise.errors import UserError
from equipoise.schedules.collapse import CollapseSettings, CollapseWatch


def run(steps=60, *, reward=None, f1=None, entropy=None, non_empty=None, seed=0, every=5, **options):
    """Feed curves over t in [0, 1] with a little noise; what is not given stands still."""
    rng, watch = np.random.default_rng(seed), CollapseWatch(CollapseSettings(**options))
    found = None
    for step in range(steps):
        t = step / (steps - 1)
        noise = rng.normal(0, 0.02, 3)
        found = watch.add(
            step,
            (reward(t) if reward else 0.5) + noise[0],
            (f1(t) if f1 else None) if step % every == 0 else None,
            (entropy(t) if entropy else 1.0) * np.exp(noise[1]),
            min(1.0, (non_empty(t) if non_empty else 0.9) + noise[2]),
        )
    return found, watch


def rising(t):
    return 0.3 + 0.5 * t


def test_learning_is_no_collapse():
    assert run(reward=rising, f1=lambda t: 0.3 + 0.4 * t, entropy=lambda t: np.exp(-6 * t))[0] is None
    assert run()[0] is None


def test_a_reward_that_rises_while_held_out_f1_falls_is_told_with_its_numbers():
    found, _ = run(reward=rising, f1=lambda t: 0.6 - 0.5 * max(0, t - 0.3))
    assert found is not None and found.reason == "f1"
    assert found.numbers["best_f1"] == pytest.approx(0.6)
    assert found.numbers["f1"] < 0.5 and found.numbers["reward"] > found.numbers["first_reward"]
    assert f"from {found.numbers['best_f1']:.3f} to {found.numbers['f1']:.3f}" in found.sentence
    # two measurements at least 0.1 below the best: the fall begins after step 18 and reaches 0.1 at t = 0.5
    assert found.step == 35


def test_f1_that_falls_with_the_reward_is_a_failure_of_another_kind():
    assert run(reward=lambda t: 0.8 - 0.5 * t, f1=lambda t: 0.6 - 0.5 * t)[0] is None


def test_one_bad_measurement_is_not_enough():
    assert run(reward=rising, f1=lambda t: 0.3 if 0.48 < t < 0.52 else 0.6, every=10)[0] is None


@pytest.mark.parametrize("f1", [None, lambda t: 0.5])
def test_entropy_that_is_gone_without_a_gain_is_collapse(f1):
    found, _ = run(reward=rising, f1=f1, entropy=lambda t: np.exp(-6 * t))
    assert found is not None and found.reason == "entropy"
    assert found.numbers["entropy"] < 0.05 * found.numbers["first_entropy"]


def test_answers_that_become_empty_without_a_gain_are_collapse():
    found, _ = run(reward=rising, f1=lambda t: 0.5 - 0.05 * t, non_empty=lambda t: 0.9 - 0.6 * t)
    assert found is not None and found.reason == "empty"
    assert found.numbers["first_non_empty"] - found.numbers["non_empty"] == pytest.approx(0.2, abs=0.03)
    assert run(reward=rising, f1=lambda t: 0.3 + 0.3 * t, non_empty=lambda t: 0.9 - 0.6 * t)[0] is None


def test_numbers_that_are_missing_or_not_finite_say_nothing():
    watch = CollapseWatch(CollapseSettings())
    for step in range(50):
        assert watch.add(step, float("nan"), float("nan"), float("inf")) is None
    for step in range(50, 99):
        assert watch.add(step, 0.01 * step) is None


def test_noise_alone_is_rarely_called_collapse():
    def noisy(seed):
        rng = np.random.default_rng(seed)
        watch = CollapseWatch(CollapseSettings())
        for step in range(200):
            f1 = 0.5 + rng.normal(0, 0.03) if step % 10 == 0 else None
            watch.add(step, rng.normal(0.5, 0.1), f1, rng.normal(1, 0.1), rng.normal(0.9, 0.05))
        return watch.verdict is not None

    assert sum(noisy(seed) for seed in range(100)) <= 2


@pytest.mark.parametrize("broken", [0, 3, 20, 40, 59])
def test_a_broken_run_comes_to_the_same_verdict(broken):
    def feed(watch, steps):
        for step in steps:
            t = step / 59
            watch.add(step, rising(t) + 0.01 * (step % 3), 0.6 - 0.5 * t if step % 5 == 0 else None, 1.0, 0.9)

    whole, first, second = (CollapseWatch(CollapseSettings()) for _ in range(3))
    feed(whole, range(60))
    feed(first, range(broken))
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    feed(second, range(broken, 60))
    assert second.verdict == whole.verdict and whole.verdict is not None
    assert second.state_dict() == whole.state_dict()


@pytest.mark.parametrize("wrong", [{"window": 1}, {"z": -1.0}, {"drop": 0.0}, {"checks": 0}, {"entropy": 2.0}])
def test_collapse_settings_out_of_range_are_refused(wrong):
    with pytest.raises(UserError, match="cannot be"):
        CollapseSettings(**wrong)
