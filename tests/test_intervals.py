"""Intervals and corrections against statsmodels and scipy."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from fairq_utils import intervals
from fairq_utils.errors import BadInput


@pytest.mark.parametrize(("hits", "n"), [(0, 7), (3, 7), (90, 100), (250, 250)])
def test_share_limits_are_wilsons(hits, n):
    expected = proportion_confint(hits, n, alpha=0.1, method="wilson")
    np.testing.assert_allclose(intervals.share_limits(hits, n, 0.9), expected, atol=1e-12)


@pytest.mark.parametrize(("lost", "gained"), [(12, 5), (0, 0), (0, 6), (7, 7)])
def test_the_sign_test_is_mcnemars_and_scipys(lost, gained):
    expected = mcnemar([[100, lost], [gained, 30]], exact=True).pvalue
    assert float(intervals.sign_test(lost, gained)) == pytest.approx(expected)
    if lost + gained:
        assert expected == pytest.approx(stats.binomtest(lost, lost + gained).pvalue)


def test_holm_agrees_with_statsmodels():
    p = np.random.default_rng(0).random(20) ** 3
    np.testing.assert_allclose(intervals.holm(p), multipletests(p, method="holm")[1])


@pytest.mark.parametrize("confidence", [0.0, 0.4, 1.0, 95])
def test_what_is_no_confidence_is_refused(confidence):
    with pytest.raises(BadInput, match=f"confidence is {confidence}; expected a fraction"):
        intervals.share_limits(1, 2, confidence)


def test_a_ratio_of_means_has_the_limits_at_which_student_could_still_doubt_it():
    rng = np.random.default_rng(0)
    above = rng.normal(3, 1, 9)
    below = 0.4 * above + rng.normal(1, 0.5, 9)
    ratio, lower, upper = intervals.ratio_of_means(above, below, 0.9)
    assert ratio == pytest.approx(above.mean() / below.mean())
    for limit in (lower, upper):
        assert stats.ttest_1samp(above - limit * below, 0).pvalue == pytest.approx(0.1)
    assert lower < ratio < upper


def test_a_ratio_of_means_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(2000):
        above = rng.normal(3, 1, 8)
        _, lower, upper = intervals.ratio_of_means(above, 0.3 * above + rng.normal(1.1, 0.7, 8))
        held += lower <= 3 / 2 <= upper
    assert abs(held / 2000 - 0.95) < 0.015


def test_a_ratio_to_what_may_be_zero_has_no_bounds_and_one_of_a_pair_no_interval():
    assert intervals.ratio_of_means([1.0, 2.0, 3.0], [-1.0, 2.0, 0.5])[1:] == (-np.inf, np.inf)
    ratio, *limits = intervals.ratio_of_means([3.0], [2.0])
    assert ratio == 1.5
    assert np.isnan(limits).all()
