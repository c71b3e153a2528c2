import math
import subprocess
import sys

import numpy as np
import pytest

from equipoise.errors import UserError
from equipoise.metrics.resampling import bootstrap_interval


def test_one_level_agrees_with_the_normal_interval_of_a_mean():
    x = np.random.default_rng(0).normal(size=400)
    low, high = bootstrap_interval(x).ci
    half = 1.96 * x.std(ddof=1) / math.sqrt(len(x))
    assert (low, high) == pytest.approx((x.mean() - half, x.mean() + half), abs=0.02)


def test_seeds_and_items_both_widen_the_interval():
    rng = np.random.default_rng(1)
    seeds, items, noise = rng.normal(0, 0.3, (6, 1)), rng.normal(0, 1, (1, 50)), rng.normal(0, 0.1, (6, 50))
    x = seeds + items + noise
    low, high = bootstrap_interval(x).ci
    # the variance of a crossed bootstrap mean is about that of the seeds' means plus that of the items' means
    expected = 2 * 1.96 * math.sqrt(x.mean(axis=1).var() / 6 + x.mean(axis=0).var() / 50)
    assert high - low == pytest.approx(expected, rel=0.15)
    widths = [np.diff(bootstrap_interval(x.mean(axis=axis)).ci)[0] for axis in (0, 1)]
    assert high - low > max(widths)


def test_a_statistic_of_its_own_gives_the_same_as_the_mean():
    x = np.random.default_rng(2).random((4, 30))
    quick, slow = bootstrap_interval(x), bootstrap_interval(x, lambda sample: float(sample.mean()))
    assert quick.estimate == slow.estimate == x.mean()
    assert quick.ci == pytest.approx(slow.ci, abs=0.01)


def test_methods_on_a_third_axis_stay_paired():
    x = np.random.default_rng(3).random((5, 40))
    double = np.stack([2 * x, x], axis=-1)
    result = bootstrap_interval(
        double, lambda sample: float(sample[..., 0].mean() / sample[..., 1].mean()), resamples=200
    )
    assert result.ci == pytest.approx((2, 2))


def test_it_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(4)
    hits = 0
    for i in range(300):
        low, high = bootstrap_interval(rng.random(40) < 0.3, resamples=500, seed=i).ci
        hits += low <= 0.3 <= high
    assert 0.90 < hits / 300 < 0.98


def test_the_same_seed_gives_the_same_interval():
    x = np.random.default_rng(5).random(20)
    assert bootstrap_interval(x, seed=3) == bootstrap_interval(x, seed=3)
    assert bootstrap_interval(x, seed=3).ci != bootstrap_interval(x, seed=4).ci


@pytest.mark.parametrize("values", [[1.0] * 5, [[0.5] * 4] * 3, [[[1.0, 0.0]] * 4] * 3])
def test_equal_values_have_no_interval_and_it_is_said(values):
    result = bootstrap_interval(values, lambda sample: float(sample.mean()))
    assert result.ci is None
    assert "no variance" in result.note


@pytest.mark.parametrize(
    ("values", "options"),
    [([], {}), (3.0, {}), ([1.0, math.nan], {}), ([1.0, 2.0], {"confidence": 1.0}), ([1.0, 2.0], {"resamples": 0})],
)
def test_bad_input_is_an_error(values, options):
    with pytest.raises(UserError):
        bootstrap_interval(values, **options)


def test_a_statistic_that_breaks_on_a_resample_is_an_error():
    with pytest.raises(UserError, match="not finite"):
        bootstrap_interval([0.0, 1.0], lambda sample: math.inf if sample.sum() == 0 else 1.0)


def test_importing_statistics_costs_neither_scipy_nor_torch():
    look = "import sys, equipoise.metrics.statistics; print(sorted({'scipy', 'torch', 'sklearn'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True).stdout == "[]\n"
