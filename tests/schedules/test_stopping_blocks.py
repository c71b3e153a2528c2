"""Blocks of a loss curve against plain numpy on all its steps."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equipoise.schedules.blocks import MOST, Blocks, noise, remembered, window


def blocks_of(losses, tokens, length):
    blocks = Blocks(length)
    for loss, count in zip(losses, tokens):
        blocks.add(float(loss), int(count))
    return blocks


@settings(max_examples=60, deadline=None)
@given(steps=st.integers(1, 900), length=st.integers(1, 8), seed=st.integers(0, 100))
def test_every_block_is_the_weighted_mean_of_its_steps(steps, length, seed):
    rng = np.random.default_rng(seed)
    losses, tokens = rng.normal(2, 1, steps), rng.integers(1, 50, steps)
    blocks = blocks_of(losses, tokens, length)
    parts = [*blocks.closed, *([blocks.open] if blocks.open else [])]
    assert sum(part.steps for part in parts) == steps and len(blocks.closed) < MOST
    at = 0
    for part in parts:
        here = slice(at, at + part.steps)
        at += part.steps
        mean = np.average(losses[here], weights=tokens[here])
        assert part.tokens == tokens[here].sum() and part.mean == pytest.approx(mean)
        assert part.deviation == pytest.approx((tokens[here] * (losses[here] - mean) ** 2).sum(), abs=1e-9)
    assert all(part.steps == blocks.length for part in blocks.closed)


def test_with_equal_tokens_the_error_is_that_of_the_mean_of_the_block_means():
    means = np.random.default_rng(0).normal(size=10)
    found = window(blocks_of(means, [7] * 10, 1).closed)
    assert found.mean == pytest.approx(means.mean()) and found.error == pytest.approx(means.std(ddof=1) / math.sqrt(10))


def test_noise_is_the_pooled_deviation_within_blocks():
    losses = np.array([[1.0, 3.0], [10.0, 14.0], [5.0, 5.0]])
    pooled = math.sqrt((1 + 1 + 4 + 4) / (6 - 3))
    assert noise(blocks_of(losses.ravel(), [3] * 6, 2).closed) == pytest.approx(pooled)
    assert noise(blocks_of(losses.ravel(), [3] * 6, 1).closed) == 0.0


def test_neighbours_that_resemble_each_other_are_noticed():
    rng = np.random.default_rng(3)
    independent = blocks_of(rng.normal(size=60), [1] * 60, 1).closed
    slow = blocks_of(np.cumsum(rng.normal(size=60)), [1] * 60, 1).closed
    by_turns = blocks_of([0.0, 1.0] * 30, [1] * 60, 1).closed
    assert remembered(independent) < 0.3 and remembered(slow) > 0.7
    assert remembered(by_turns) == 0.0 and remembered(blocks_of([2.0] * 60, [1] * 60, 1).closed) == 0.0


def test_no_windows_before_there_are_enough_blocks():
    blocks = blocks_of(np.arange(47.0), [1] * 47, 2)
    assert blocks.windows(0.34, 8) is None
    assert blocks_of(np.arange(48.0), [1] * 48, 2).windows(0.34, 8) is not None
