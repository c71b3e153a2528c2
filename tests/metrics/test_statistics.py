import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats

from equipoise.errors import UserError
from equipoise.metrics import statistics as s

SFT, EAFT, REAFT = [0.75, 0.77, 0.75, 0.73, 0.75], [0.47, 0.50, 0.48, 0.49, 0.49], [0.71, 0.71, 0.73, 0.70, 0.72]
SHARES = st.integers(0, 50).map(lambda k: k / 50)
SAMPLES = st.lists(SHARES, min_size=2, max_size=12)
PAIRS = st.lists(st.tuples(SHARES, SHARES), min_size=2, max_size=12).map(lambda rows: tuple(map(list, zip(*rows))))


def _varies(values):
    return len({round(value * 50) for value in values}) > 1


def _differ(a, b):
    return _varies([x - y for x, y in zip(a, b)])


def test_paired_t_by_hand():
    # differences 1, 2, 3: mean 2, sample variance 1, standard error 1/sqrt(3), t = 2*sqrt(3); 2 degrees of freedom
    result = s.compare([2, 4, 6], [1, 2, 3])
    assert result.estimate == pytest.approx(2)
    assert result.t == pytest.approx(2 * math.sqrt(3))
    assert (result.df, result.n, result.test) == (2, 3, "paired t")
    assert result.effect_size == pytest.approx(2)
    # for 2 degrees of freedom the t distribution is closed: P(|T| > t) = 1 - t/sqrt(2 + t^2)
    assert result.p == pytest.approx(1 - 2 * math.sqrt(3) / math.sqrt(14))
    half = 4.302652729911275 / math.sqrt(3)
    assert result.ci == pytest.approx((2 - half, 2 + half))


def test_the_published_numbers():
    assert s.compare(REAFT, SFT).t == pytest.approx(-5.31, abs=0.005)
    assert s.compare(REAFT, EAFT).t == pytest.approx(28.5, abs=0.005)
    assert [s.sample_variance(x) for x in (SFT, EAFT, REAFT)] == pytest.approx([0.0002, 0.00013, 0.00013])


@given(PAIRS)
def test_paired_t_agrees_with_scipy(pair):
    a, b = pair
    result = s.compare(a, b)
    if not _differ(a, b):
        assert result.t is result.p is result.ci is result.effect_size is None
        assert "no variance" in (result.note or "")
        return
    other = stats.ttest_rel(a, b)
    interval = other.confidence_interval(0.95)
    assert (result.t, result.p) == pytest.approx((other.statistic, other.pvalue))
    assert result.ci == pytest.approx((interval.low, interval.high))
    for alternative in ("greater", "less"):
        assert s.compare(a, b, alternative=alternative).p == pytest.approx(
            stats.ttest_rel(a, b, alternative=alternative).pvalue
        )


@pytest.mark.filterwarnings("ignore:Precision loss")  # scipy's, where one sample is constant
@given(SAMPLES, SAMPLES)
def test_welch_agrees_with_scipy(a, b):
    result = s.compare(a, b, paired=False)
    if not (_varies(a) or _varies(b)):
        assert result.t is None
        assert result.note
        return
    other = stats.ttest_ind(a, b, equal_var=False)
    interval = other.confidence_interval(0.95)
    assert (result.t, result.df, result.p) == pytest.approx((other.statistic, other.df, other.pvalue))
    assert result.ci == pytest.approx((interval.low, interval.high))


@given(PAIRS, st.floats(0.01, 1))
def test_equivalence_is_two_one_sided_tests(pair, margin):
    a, b = pair
    result = s.equivalence(a, b, margin)
    if not _differ(a, b):
        assert result.equivalent is None
        assert "no variance" in (result.note or "")
        return
    d = np.subtract(a, b)
    lower, upper = (
        stats.ttest_1samp(d, -margin, alternative="greater"),
        stats.ttest_1samp(d, margin, alternative="less"),
    )
    assert result.p == pytest.approx(max(lower.pvalue, upper.pvalue), abs=1e-12)
    low, high = result.ci
    assert result.equivalent == (-margin < low and high < margin)


def test_a_difference_on_the_far_side_of_the_margin_is_not_equivalent():
    # both one-sided tests in one direction, as two-sided ones would have it, would call this equivalent
    far = s.equivalence([1.0, 1.01, 0.99, 1.0], [0.8, 0.8, 0.8, 0.8], 0.05)
    assert far.equivalent is False
    assert far.p > 0.99


@given(SAMPLES, SAMPLES)
def test_variance_ratio_is_the_f_test(a, b):
    result = s.variance_ratio_test(a, b)
    if not (_varies(a) and _varies(b)):
        assert result.ratio is result.p is result.ci is None
        assert "no ratio of variances" in (result.note or "")
        return
    ratio = np.var(a, ddof=1) / np.var(b, ddof=1)
    f = stats.f(len(a) - 1, len(b) - 1)
    assert result.ratio == pytest.approx(ratio)
    assert result.p == pytest.approx(min(1, 2 * min(f.cdf(ratio), f.sf(ratio))))
    assert result.ci == pytest.approx((ratio / f.ppf(0.975), ratio / f.ppf(0.025)))


def test_35_percent_less_variance_in_five_seeds_shows_nothing():
    result = s.variance_ratio_test(REAFT, SFT)
    assert result.ratio == pytest.approx(0.65)
    assert result.p == pytest.approx(0.687, abs=0.001)
    assert result.ci[0] < 1 < result.ci[1]
    assert s.variance_ratio_test(REAFT, EAFT).ratio == pytest.approx(1)
    assert s.variance_ratio_test(REAFT, EAFT).p == pytest.approx(1)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_mcnemar_agrees_with_the_binomial_test(rows):
    a, b = (np.array(column, dtype=float) for column in zip(*rows))
    result = s.mcnemar_exact(a, b)
    wins, losses = sum(x and not y for x, y in rows), sum(y and not x for x, y in rows)
    assert (result.only_a, result.only_b, result.n) == (wins, losses, len(rows))
    if wins + losses == 0:
        assert result.p is None
        assert result.note
        return
    assert result.p == result.p_two_sided == pytest.approx(stats.binomtest(wins, wins + losses).pvalue)
    for alternative in ("greater", "less"):
        expected = stats.binomtest(wins, wins + losses, alternative=alternative).pvalue
        assert s.mcnemar_exact(a, b, alternative=alternative).p == pytest.approx(expected)


def test_mcnemar_by_hand():
    # five items won, none lost: 2 * (1/2)^5
    assert s.mcnemar_exact([1] * 5 + [0], [0] * 6).p == pytest.approx(0.0625)


def test_fieller_by_hand():
    # b does not vary: the interval of mean(a) divided by b
    a, b = [1.0, 2.0, 3.0], [2.0, 2.0, 2.0]
    low, high = s.mean_interval(a).ci
    result = s.ratio_interval(a, b)
    assert result.ratio == pytest.approx(1)
    assert result.ci == pytest.approx((low / 2, high / 2))


@given(PAIRS)
@example(([0.16, 0.16, 0.62], [0.16, 0.16, 0.62]))
def test_fieller_holds_exactly_the_ratios_that_a_paired_t_test_does_not_reject(pair):
    a, b = (np.array(values) + 0.5 for values in pair)
    result = s.ratio_interval(a, b)
    if result.ci is None:
        assert result.note
        return
    low, high = result.ci
    for end in (low, high):
        test = s.compare(a, end * b)
        if test.p is not None and high - low > 1e-6:  # where a is b up to a factor, both ends are one ratio, rounded
            assert test.p == pytest.approx(0.05, abs=1e-5)
    assert low <= result.ratio + 1e-9
    assert result.ratio <= high + 1e-9


def test_a_ratio_that_cannot_be_bounded_says_so():
    assert s.ratio_interval([1.0, 2.0], [0.0, 0.0]).ratio is None
    assert s.ratio_interval([1.0, 1.0], [0.5, 0.5]).note
    unbounded = s.ratio_interval([1.0, 2.0, 1.0], [0.1, -0.1, 0.2])
    assert unbounded.ci is None
    assert "may be 0" in unbounded.note


def test_holm_by_hand():
    # sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1, never falling: 0.02, 0.03, 0.06, 0.06
    assert s.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert s.holm([None, 0.02, None]) == [None, 0.02, None]
    assert s.holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_never_rejects_more_than_no_adjustment_nor_less_than_bonferroni(p):
    adjusted = s.holm(p)
    assert all(raw <= new <= min(1, raw * len(p)) + 1e-12 for raw, new in zip(p, adjusted))
    assert [new for _, new in sorted(zip(p, adjusted))] == sorted(adjusted)


def test_mean_interval_of_one_of_equal_and_of_several_values():
    assert s.mean_interval([0.4]).ci is None
    still = s.mean_interval([0.1 + 0.2, 0.3, 0.3])
    assert (still.variance, still.ci) == (0.0, None)
    assert "no variance" in still.note
    several = s.mean_interval([1, 2, 3, 4], confidence=0.9)
    assert several.variance == pytest.approx(5 / 3)
    assert several.ci == pytest.approx(stats.t.interval(0.9, 3, 2.5, math.sqrt(5 / 12)))


@given(SAMPLES, st.floats(-0.5, 0.5))
def test_a_constant_shift_has_no_variance_to_divide_by(values, shift):
    # in floating point (x + c) - x is not always the same number
    result = s.compare([value + shift for value in values], values)
    assert result.t is None
    assert result.estimate == pytest.approx(shift)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: s.compare([1, 2, 3], [1, 2]), "cannot be paired"),
        (lambda: s.compare([1], [2]), "at least 2"),
        (lambda: s.compare([1, math.nan], [1, 2]), "value 2 is not a finite"),
        (lambda: s.compare([1, 2], [1, math.inf]), "value 2 is not a finite"),
        (lambda: s.compare(["a", "b"], [1, 2]), "not a list of numbers"),
        (lambda: s.compare([[1, 2]], [1, 2]), "dimensions"),
        (lambda: s.compare([1, 2], [2, 4], alternative="more"), "no such alternative"),
        (lambda: s.compare([1, 2], [2, 4], confidence=1.5), "confidence"),
        (lambda: s.equivalence([1, 2], [2, 4], 0), "margin"),
        (lambda: s.equivalence([1, 2], [2, 4], math.nan), "margin"),
        (lambda: s.mcnemar_exact([0.5, 1], [1, 0]), "0 and 1"),
        (lambda: s.mcnemar_exact([1], [1, 0]), "cannot be paired"),
        (lambda: s.variance_ratio_test([1], [1, 2]), "at least 2"),
        (lambda: s.holm([0.5, 1.5]), "between 0 and 1"),
        (lambda: s.holm([math.nan]), "between 0 and 1"),
        (lambda: s.mean_interval([]), "at least 1"),
    ],
)
def test_what_cannot_be_computed_is_one_clear_error(call, says):
    with pytest.raises(UserError, match=says):
        call()
