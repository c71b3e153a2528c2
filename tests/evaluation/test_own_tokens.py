"""Tokens that a model wrote itself, and the threshold that is found on them."""

import math

import numpy as np
import pytest
import torch
from tiny_models import tiny_model, tiny_tokenizer

from equipoise.errors import UserError
from equipoise.evaluation.own_tokens import OwnTokens, auto_tau, own_tokens, resolve_tau
from equipoise.models.loading import Loaded

PROMPTS = [[1, 40, 50, 60], [1, 70], [1, 80, 90], [1, 33, 44, 55, 66]]


@pytest.fixture(scope="module")
def loaded():
    return Loaded(tiny_model(initializer_range=1.0), tiny_tokenizer(), "tiny")


@pytest.fixture(scope="module")
def own(loaded):
    return own_tokens(loaded, PROMPTS, tokens=3000, longest=12, seed=1)


def test_there_are_as_many_as_asked_and_the_same_for_the_same_seed(loaded, own):
    assert len(own.nll) >= 3000 and own.continuation[0] == 0 and set(np.diff(own.continuation)) == {0, 1}
    assert np.bincount(own.continuation).max() <= 12
    again = own_tokens(loaded, PROMPTS, tokens=200, longest=12, seed=1)
    torch.testing.assert_close(torch.tensor(again.nll[:200]), torch.tensor(own.nll[:200]), rtol=1e-4, atol=1e-4)
    other = own_tokens(loaded, PROMPTS, tokens=200, longest=12, seed=2)
    assert not np.allclose(other.nll[:100], own.nll[:100])


def test_they_are_drawn_from_the_models_own_distribution(own):
    """Over such tokens nll is H on average, and the tail keeps its promise."""
    excess = own.nll - own.entropy
    assert abs(excess.mean()) < 4 * excess.std() / math.sqrt(len(excess))
    assert own.nll.std() > 0.5
    for delta in (0.05, 0.2):
        assert (own.tail <= delta).mean() < delta + 4 * math.sqrt(delta * (1 - delta) / len(own.tail))
    assert own.h == pytest.approx(own.entropy / math.log(len(tiny_tokenizer())))


def of_shocks(shock, length=5):
    shock = np.asarray(shock, float)
    ones = np.ones_like(shock)
    return OwnTokens(shock, ones, ones, ones, np.arange(len(shock)) // length)


def test_the_threshold_is_the_quantile_by_hand():
    own = of_shocks(np.arange(1, 101))  # h is 1, so shocks are 1 to 100
    found = auto_tau(own, 0.05, eps=1e-300)
    assert found.tau == 96.0  # the smallest of its tokens with at most 5 above it: 97, 98, 99, 100
    assert (found.n, found.continuations, found.published) == (100, 20, 0.95)
    assert found.interval is not None and found.interval[0] < 96 <= found.interval[1] <= 100


def test_it_flags_at_most_the_rate_on_what_it_was_found_on_and_about_it_on_more(loaded, own):
    fresh = own_tokens(loaded, PROMPTS, tokens=3000, longest=12, seed=5)
    for rate in (0.01, 0.05, 0.3):
        found = auto_tau(own, rate)
        assert (own.shock() > found.tau).mean() <= rate
        assert (fresh.shock() > found.tau).mean() == pytest.approx(rate, abs=0.6 * rate + 0.01)


def test_resolving_is_both_in_one(loaded):
    found = resolve_tau(loaded, PROMPTS, false_alarm=0.1, tokens=300, seed=3)
    assert found == auto_tau(own_tokens(loaded, PROMPTS, tokens=300, seed=3), 0.1)


def test_the_interval_is_over_continuations_and_not_tokens():
    """Where the tokens of a continuation are all alike, there are as many values as continuations."""
    rng = np.random.default_rng(0)
    alike, apart = np.repeat(rng.normal(size=50), 20), rng.normal(size=1000)
    wide, narrow = (of_shocks(values, 20).interval(values) for values in (alike, apart))
    assert wide is not None and narrow is not None
    assert wide[1] - wide[0] > 3 * (narrow[1] - narrow[0])
    assert of_shocks(np.ones(10)).interval(np.ones(10)) is None


def test_prompts_without_room_are_passed_over_and_none_at_all_is_an_error(loaded):
    long = [1] * 250  # the model has 256 positions
    assert len(own_tokens(loaded, [long, PROMPTS[0]], tokens=50, longest=10).nll) >= 50
    with pytest.raises(UserError, match="none of 2 prompts leaves the model room"):
        own_tokens(loaded, [long, []], tokens=50, longest=10)
