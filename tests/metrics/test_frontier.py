"""Fronts, areas and what is kept at matched correction: worked by hand, against brute force, and as properties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from equipoise.errors import UserError
from equipoise.metrics.frontier import choose, half_shares, halvings, hypervolume, matched, pareto_front

STEPS = 8  # shares in eighths, so that there are ties
SHARE = st.integers(0, STEPS).map(lambda n: n / STEPS)
POINTS = st.lists(st.tuples(SHARE, SHARE), min_size=1, max_size=12)


def brute_front(points):
    return [not any(b != a and b[0] >= a[0] and b[1] >= a[1] for b in points) for a in points]


def brute_area(points):
    """Count the small squares of a grid whose upper right corner some point reaches."""
    squares = [(i, j) for i in range(STEPS) for j in range(STEPS)]
    inside = [any(x * STEPS >= i + 1 and y * STEPS >= j + 1 for x, y in points) for i, j in squares]
    return sum(inside) / STEPS**2


@given(POINTS)
def test_front_and_area_agree_with_brute_force(points):
    x, y = zip(*points)
    assert pareto_front(x, y).tolist() == brute_front(points)
    assert hypervolume(x, y) == pytest.approx(brute_area(points))


@given(POINTS)
def test_the_front_alone_has_the_whole_area(points):
    x, y = np.array(points).T
    front = pareto_front(x, y)
    assert front.any()
    assert hypervolume(x[front], y[front]) == pytest.approx(hypervolume(x, y))


@given(POINTS, SHARE, SHARE)
def test_a_further_point_never_takes_area_away(points, x, y):
    before, after = hypervolume(*zip(*points)), hypervolume(*zip(*points, (x, y)))
    assert after >= before - 1e-12 and after >= x * y - 1e-12


@given(POINTS, SHARE)
def test_the_choice_is_the_best_of_those_that_reach_the_level(points, level):
    x, y = zip(*points)
    found = int(choose(x, y, level))
    able = [(kept, corrected, -i) for i, (corrected, kept) in enumerate(points) if corrected >= level]
    assert found == (-max(able)[2] if able else -1)


def test_areas_worked_by_hand():
    # a square, a staircase of three strips, and a point behind the reference that adds nothing
    assert hypervolume([1.0], [1.0]) == 1
    assert hypervolume([0.2, 0.6, 0.9], [0.9, 0.7, 0.1]) == pytest.approx(0.2 * 0.9 + 0.4 * 0.7 + 0.3 * 0.1)
    assert hypervolume([0.5, -1.0], [0.5, 2.0]) == pytest.approx(0.25)


def test_leading_axes_are_so_many_fronts():
    rng = np.random.default_rng(0)
    x, y = rng.random((2, 3, 4, 7))
    areas, found = hypervolume(x, y), choose(x, y, 0.5)
    for i, j in np.ndindex(3, 4):
        assert areas[i, j] == pytest.approx(hypervolume(x[i, j], y[i, j]))
        assert found[i, j] == choose(x[i, j], y[i, j], 0.5)


@given(st.integers(2, 30), st.integers(1, 5))
def test_halves_are_halves_and_each_is_followed_by_its_other(items, count):
    halves = halvings(items, count)
    assert halves.shape == (2 * count, items)
    assert (halves[:count] ^ halves[count:]).all()
    assert set(halves[:count].sum(axis=1)) == {items // 2}


def test_shares_on_halves_by_hand():
    halves = np.array([[True, True, False, False], [False, False, True, True]])
    scores = np.array([[1, 0, 1, 1], [0, 0, 0, 1]])  # two settings
    assert half_shares(scores, halves).tolist() == [[[0.5, 0.0], [1.0, 0.5]]]
    # the first item drawn three times, the third never: it stays in its half
    assert half_shares(scores, halves, np.array([[3, 1, 0, 2]])).tolist() == [[[0.75, 0.0], [1.0, 1.0]]]


def test_matched_by_hand():
    # one halving; three settings; on the first half the second setting is the best that reaches 0.8, on the other half
    # the third; so what counts is the second on the other half and the third on the first half
    correction = np.array([[[0.5, 0.8, 1.0], [0.6, 0.7, 0.9]]])
    kept = np.array([[[1.0, 0.9, 0.6], [0.9, 0.4, 0.2]]])
    value, corrected = matched(correction, kept, 0.8)
    assert value.tolist() == pytest.approx([(0.4 + 0.6) / 2])
    assert corrected.tolist() == pytest.approx([(0.7 + 1.0) / 2])
    assert np.isnan(matched(correction, kept, 1.01)[0]).all()
    # 0.95 is reached on one of two halves alone: that is half of the choices, and its setting is read on the other
    assert matched(correction, kept, 0.95)[0].tolist() == [0.2]


def brute_matched(correction, kept, halves_c, halves_k, level):
    read = []
    for a, b in zip(halves_c, halves_k):
        able = [p for p in range(len(correction)) if correction[p][a].mean() >= level - 1e-9]
        if able:
            best = max(able, key=lambda p: (round(kept[p][b].mean(), 9), round(correction[p][a].mean(), 9), -p))
            read.append((kept[best][~b].mean(), correction[best][~a].mean()))
    return np.mean(read, axis=0) if 2 * len(read) >= len(halves_c) else (np.nan, np.nan)


@given(st.integers(0, 10_000), SHARE)
def test_matched_agrees_with_loops(seed, level):
    rng = np.random.default_rng(seed)
    correction, kept = ((rng.random((4, n)) < rng.random((4, 1))).astype(float) for n in (9, 12))
    halves = halvings(9, 3, seed=seed), halvings(12, 3, seed=seed)
    value, corrected = matched(half_shares(correction, halves[0]), half_shares(kept, halves[1]), level)
    expected = brute_matched(correction, kept, *halves, level)
    np.testing.assert_allclose([value.item(), corrected.item()], expected, atol=1e-12)


def test_the_choice_does_not_flatter_itself():
    """Twenty settings that all truly keep 60%: the best by all items looks better, chosen by halves it does not."""
    rng = np.random.default_rng(1)
    naive, crossed = [], []
    for i in range(200):
        correction, kept = np.ones((20, 20)), (rng.random((20, 40)) < 0.6).astype(float)
        naive.append(kept.mean(axis=1).max())
        halves = halvings(20, 5, seed=i), halvings(40, 5, seed=i)
        crossed.append(matched(half_shares(correction, halves[0]), half_shares(kept, halves[1]), 0.9)[0].item())
    assert np.mean(naive) > 0.7
    assert np.mean(crossed) == pytest.approx(0.6, abs=0.015)


def test_an_empty_half_reaches_nothing():
    halves = halvings(2, 1)
    scores = np.ones((3, 2))
    shares = half_shares(scores, halves, np.array([[2.0, 0.0]]))  # the second item was not drawn
    assert np.isnan(matched(shares, shares, 0.5)[0]).all()


@pytest.mark.parametrize("wrong", [([], []), ([0.5, np.nan], [0.5, 0.5])])
def test_what_is_no_front_is_refused(wrong):
    with pytest.raises(UserError):
        hypervolume(*wrong)
    with pytest.raises(UserError):
        halvings(1, 1)
