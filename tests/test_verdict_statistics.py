"""The statistics behind the verdicts, against scipy, statsmodels and scikit-learn."""

import itertools
import math

import numpy as np
import pytest
from scipy import integrate, stats
from sklearn.metrics import precision_recall_fscore_support
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import ttost_paired

from fairq_utils import intervals
from fairq_utils.errors import BadInput
from fairq_utils.metrics import by_network, groups, ranks, verdicts


def drawn(seed: int, mean: float = 0.0, networks: int = 12, sd: float = 0.02) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, sd, networks)


# -- the word on a change -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_a_reading_is_students_test_and_two_one_sided_ones(seed):
    before, change = drawn(100 + seed), drawn(seed, mean=0.004 * seed)
    found = verdicts.read(change, margin=0.02)
    scipys = stats.ttest_rel(before + change, before)
    assert found.p == pytest.approx(scipys.pvalue)
    assert (found.lower, found.upper) == pytest.approx(tuple(scipys.confidence_interval(0.95)))
    assert found.p_none == pytest.approx(ttost_paired(before + change, before, -0.02, 0.02)[0])
    ninety = stats.ttest_1samp(change, 0).confidence_interval(0.90)
    assert found.bound == pytest.approx(max(abs(ninety.low), abs(ninety.high)))
    assert found.negligible == (found.bound < 0.02)
    surely = (scipys.pvalue < 0.05) * np.sign(change.mean())
    assert found.word == {1: "rises", -1: "falls"}.get(surely, "no change" if found.negligible else "bounded")


def test_the_four_words():
    words = [
        verdicts.read(0.01 * np.array([-1, 0, 1, 0]) + shift, margin=margin).word
        for shift, margin in ((0.05, 0.03), (-0.05, 0.03), (0.0, 0.03), (0.0, 0.005))
    ]
    assert words == ["rises", "falls", "no change", "bounded"]


def test_what_surely_changes_by_less_than_the_margin_rises_and_is_negligible():
    found = verdicts.read([0.004, 0.005, 0.006, 0.005], margin=0.01)
    assert found.word == "rises"
    assert found.negligible


def test_without_a_margin_nothing_is_called_no_change():
    found = verdicts.read([0.0, 0.0, 0.0])
    assert (found.word, found.p_none, found.negligible, found.bound) == ("bounded", None, False, 0.0)
    assert verdicts.read([0.0, 0.0, 0.0], margin=0.01).word == "no change"


def test_a_bound_is_the_least_margin_that_would_be_shown():
    change = drawn(3)
    bound = verdicts.read(change).bound
    assert not verdicts.read(change, margin=bound * 0.999).negligible
    assert verdicts.read(change, margin=bound * 1.001).negligible


def test_a_higher_level_asks_for_more():
    change = [0.01, 0.02, 0.012, 0.004]
    assert verdicts.read(change).word == "rises"
    careful = verdicts.read(change, level=1 - 0.05 / 5)
    assert careful.word == "bounded"
    expected = stats.ttest_1samp(change, 0).confidence_interval(0.99)
    assert (careful.lower, careful.upper) == pytest.approx(tuple(expected))


@pytest.mark.parametrize("values", [[0.1], [], [[0.1, 0.2]], [0.1, math.nan], [0.1, math.inf]])
def test_what_is_not_one_number_a_network_is_refused(values):
    with pytest.raises(BadInput, match="expected one finite number a network"):
        verdicts.read(values)


def test_margins_and_levels_that_make_no_sense_are_refused():
    with pytest.raises(BadInput, match="margin is -1; expected a number above 0"):
        verdicts.read([0.1, 0.2], margin=-1)
    with pytest.raises(BadInput, match=r"level is 0.4; expected a fraction above 0.5"):
        verdicts.read([0.1, 0.2], level=0.4)
    with pytest.raises(BadInput, match="bits is 2; expected a width with a declared margin: 8, 6, 5, 4, 3"):
        verdicts.margin_at(2)


# -- many beside each other ---------------------------------------------------------------------------


def test_the_false_discovery_rate_agrees_with_statsmodels():
    p = np.random.default_rng(0).random(40) ** 3
    np.testing.assert_allclose(intervals.benjamini_hochberg(p), multipletests(p, method="fdr_bh")[1])
    assert intervals.benjamini_hochberg([]).tolist() == []


def test_a_page_adjusts_all_that_could_be_said_on_it():
    alone = [
        verdicts.read(drawn(seed, mean=0.004 * seed), margin=0.02 if seed % 2 else None) for seed in range(8)
    ]
    together = verdicts.over_a_page(alone)
    listed = [own.p for own in alone] + [own.p_none for own in alone if own.p_none is not None]
    adjusted = multipletests(listed, method="fdr_bh")[1]
    assert [own.p for own in together] == pytest.approx(adjusted[:8])
    assert [own.p_none for own in together if own.p_none is not None] == pytest.approx(adjusted[8:])
    assert [own.p_none is None for own in together] == [own.p_none is None for own in alone]
    for own, before in zip(together, alone, strict=True):
        assert (own.estimate, own.bound) == (before.estimate, before.bound)
        assert own.word in (before.word, "no change", "bounded")
    assert {own.word for own in together} > {"rises"}


# -- power --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("networks", "effect"), [(5, 0.05), (10, 0.05), (20, 0.03)])
def test_power_agrees_with_statsmodels(networks, effect):
    expected = TTestPower().power(effect / 0.05, networks, 0.05)
    assert verdicts.power_to_decide(0.05, effect, networks) == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize("effect", [0.03, 0.05, 0.1])
def test_seeds_agree_with_statsmodels(effect):
    expected = TTestPower().solve_power(effect / 0.05, alpha=0.05, power=0.8)
    assert verdicts.seeds_needed(0.05, effect=effect) == math.ceil(expected)


@pytest.mark.parametrize(("networks", "effect"), [(4, 0.0), (8, 0.01), (20, 0.02)])
def test_power_of_equivalence_is_an_integral_over_the_spread(networks, effect):
    """By another way: the density of the sample's spread, integrated by scipy."""
    sd, margin, freedom = 0.04, 0.04, networks - 1
    error = sd / math.sqrt(networks)

    def both(chi: float) -> float:
        room = max(0.0, margin - stats.t.ppf(0.95, freedom) * error * chi / math.sqrt(freedom))
        inside = stats.norm.cdf(room, effect, error) - stats.norm.cdf(-room, effect, error)
        return inside * stats.chi.pdf(chi, freedom)

    expected = integrate.quad(both, 0, 15, limit=200)[0]
    found = verdicts.power_to_show_none(sd, margin, networks, effect=effect)
    assert found == pytest.approx(expected, abs=5e-4)


def test_seeds_are_the_fewest_that_suffice():
    for aim in (0.02, 0.05):
        few = verdicts.seeds_needed(0.05, margin=aim)
        power = [verdicts.power_to_show_none(0.05, aim, networks) for networks in (few - 1, few)]
        assert power[0] < 0.8 <= power[1]
    assert verdicts.seeds_needed(0.0, margin=0.01) == 2


def test_the_spread_of_a_pilot_is_seldom_larger_than_allowed_for():
    rng, limit = np.random.default_rng(0), []
    for _ in range(2000):
        limit.append(verdicts.sd_at_most(rng.normal(0, 1, 8).std(ddof=1), 8))
    assert np.mean(np.array(limit) >= 1) == pytest.approx(0.8, abs=0.03)
    assert verdicts.seeds_needed(0.05, margin=0.03, pilot=8) > verdicts.seeds_needed(0.05, margin=0.03)


def test_seeds_for_nothing_to_find_are_refused():
    with pytest.raises(BadInput, match="expected one of them"):
        verdicts.seeds_needed(0.05)
    with pytest.raises(BadInput, match="expected a spread of 0 or more"):
        verdicts.seeds_needed(0.05, effect=0.0)
    with pytest.raises(BadInput, match="needs over 100,000 networks"):
        verdicts.seeds_needed(1.0, effect=1e-4)
    with pytest.raises(BadInput, match="networks is 1; expected two or more"):
        verdicts.sd_at_most(0.05, 1)


# -- one number a network -----------------------------------------------------------------------------


def test_others_against_one_is_written_out():
    values = np.random.default_rng(0).random((6, 4))
    expected = [(row[0] + row[1] + row[3]) / 3 - row[2] for row in values]
    np.testing.assert_allclose(by_network.others_against(values, 2), expected)
    roles = [0, 1, 2, 3, 0, 1]
    expected = [np.delete(row, role).mean() - row[role] for row, role in zip(values, roles, strict=True)]
    np.testing.assert_allclose(by_network.others_against(values, roles), expected)


@pytest.mark.parametrize("group", [4, -1, 0.5])
def test_a_group_that_is_not_there_is_refused(group):
    with pytest.raises(BadInput, match=f"group is {group}; expected a place from 0 to 3"):
        by_network.others_against(np.zeros((3, 4)), group)


def test_two_causes_are_those_of_a_regression():
    rng = np.random.default_rng(1)
    cells = dict(zip(itertools.product((0, 1), (0, 1)), rng.random((4, 5)), strict=True))
    found = by_network.effects_of_two(cells[0, 0], cells[1, 0], cells[0, 1], cells[1, 1])
    coded = np.array([[1, a - 0.5, b - 0.5, (a - 0.5) * (b - 0.5)] for a, b in cells])
    for network in range(5):
        _, first, second, interaction = np.linalg.solve(coded, [own[network] for own in cells.values()])
        assert found["first"][network] == pytest.approx(first)
        assert found["second"][network] == pytest.approx(second)
        assert found["interaction"][network] == pytest.approx(interaction)
    with pytest.raises(BadInput, match="of the same networks in all four"):
        by_network.effects_of_two([0.1], [0.1], [0.1], [0.1, 0.2])


def test_the_trend_is_the_rise_of_the_fitted_line():
    values = np.random.default_rng(2).random((4, 5))
    expected = [4 * np.polyfit(range(5), row, 1)[0] for row in values]
    np.testing.assert_allclose(by_network.over_widths(values, by_network.TREND), expected)
    jumps = by_network.over_widths(values, by_network.JUMP)
    np.testing.assert_allclose(jumps, values[:, by_network.WIDTHS.index(4)] - values[:, 0])


def test_widths_that_are_not_the_five_are_refused():
    with pytest.raises(BadInput, match="expected networks by the widths 8, 6, 5, 4, 3"):
        by_network.over_widths(np.zeros((4, 6)), by_network.TREND)
    with pytest.raises(BadInput, match="The coefficients sum to 5; expected 0"):
        by_network.over_widths(np.zeros((4, 5)), np.ones(5))


def test_collapse_is_judged_by_the_others():
    overall = np.array([0.30, 0.52, 0.54, 0.53])
    assert by_network.collapsed(overall, 0.44).tolist() == [False, True, True, True]
    both = by_network.collapsed(np.column_stack([overall, overall + 0.3]), 0.44)
    assert both.T.tolist() == [[False, True, True, True], [False] * 4]
    with pytest.raises(BadInput, match="of two networks or more"):
        by_network.collapsed([0.5], 0.4)


def test_a_pair_is_named_by_some_networks_and_measured_on_the_others():
    rng = np.random.default_rng(3)
    before, after = rng.random((2, 9, 4))
    found = by_network.read_gap(before, after)
    level = (before + after)[:3].mean(axis=0)
    high, low = level.argmax(), level.argmin()
    assert found.groups == (high, low)
    fixed = ((after - before)[:, high] - (after - before)[:, low])[3:]
    gap = np.ptp(after, axis=1) - np.ptp(before, axis=1)
    assert found.pair == verdicts.read(fixed)
    assert found.fvo == verdicts.read(gap)
    assert found.beyond == verdicts.read(gap[3:] - fixed)
    assert by_network.read_gap(before, after, (1, 2)).pair.networks == 9


@pytest.mark.parametrize(
    ("losses", "scatter", "word"),
    [
        ([0, 0, 0, 0, 0.08], 0.01, "grows"),
        ([0, 0, 0, 0, 0], 0.05, "lottery"),
        ([0, 0, 0, 0, 0], 0.001, "no change"),
        ([0.05, 0.0, 0.0, 0.0, -0.05], 0.01, "falls"),
    ],
)
def test_words_on_a_gap(losses, scatter, word):
    rng = np.random.default_rng(4)
    level = np.full(5, 0.8) if word == "lottery" else np.array([0.9, 0.8, 0.8, 0.8, 0.6])
    before = level + rng.normal(0, 0.01, (20, 5))
    after = before - losses + rng.normal(0, scatter, (20, 5))
    assert by_network.read_gap(before, after, margin=0.03).word == word


def test_a_rise_whose_pair_is_unsure_is_one_or_the_other():
    surely, unsure = verdicts.read([0.05, 0.06, 0.04]), verdicts.read([0.05, -0.06, 0.09])
    assert by_network.GapReading(surely, unsure, unsure, (0, 1)).word == "grows or lottery"


def test_gaps_of_what_does_not_match_are_refused():
    with pytest.raises(BadInput, match="expected the same networks and groups"):
        by_network.read_gap(np.zeros((3, 4)), np.zeros((4, 4)))
    with pytest.raises(BadInput, match="expected the places of two groups"):
        by_network.read_gap(np.zeros((3, 4)), np.zeros((3, 4)), (2, 2))
    with pytest.raises(BadInput, match="networks by groups"):
        by_network.read_gap([0.5, 0.4], [0.4, 0.5])


# -- ranks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_ranks_within_one_setting_are_scipys(seed):
    forecast, outcome = np.random.default_rng(seed).integers(0, 6, (2, 6))  # with ties
    found = ranks.rank_agreement([forecast], [outcome])
    assert found.rho == pytest.approx(stats.spearmanr(forecast, outcome).statistic)
    scipys = stats.permutation_test(
        (outcome,),
        lambda own: stats.spearmanr(forecast, own).statistic,
        permutation_type="pairings",
        n_resamples=np.inf,
        alternative="two-sided",
    )
    # scipy doubles the smaller tail; ours counts what is as far from 0. Without ties both are the same.
    every = scipys.null_distribution
    assert found.p == pytest.approx(np.mean(np.abs(every) >= abs(found.rho) - 1e-9))


def test_ranks_are_permuted_within_each_setting():
    rng = np.random.default_rng(5)
    forecasts, outcomes = [rng.random(4), rng.random(3)], [rng.random(4), rng.random(3)]
    found = ranks.rank_agreement(forecasts, outcomes)
    every = [
        np.mean([stats.spearmanr(f, own).statistic for f, own in zip(forecasts, permuted, strict=True)])
        for permuted in itertools.product(*(itertools.permutations(own) for own in outcomes))
    ]
    assert len(every) == 24 * 6
    assert found.exact
    assert found.p == pytest.approx(np.mean(np.abs(every) >= abs(found.rho) - 1e-9))


def test_many_groups_are_permuted_by_lot_with_a_fixed_seed():
    rng = np.random.default_rng(6)
    forecast = rng.random(30)
    outcome = forecast + rng.normal(0, 0.8, 30)
    found = ranks.rank_agreement([forecast], [outcome])
    assert not found.exact
    assert found == ranks.rank_agreement([forecast], [outcome])
    assert found.p == pytest.approx(stats.spearmanr(forecast, outcome).pvalue, abs=0.01)


def test_five_groups_are_five_data():
    assert ranks.rank_agreement([range(5)], [range(5)]).p == pytest.approx(2 / 120)
    with pytest.raises(BadInput, match="is the same for all groups"):
        ranks.rank_agreement([[1, 2, 3]], [[1, 1, 1]])
    with pytest.raises(BadInput, match="expected one finite number a group for both"):
        ranks.rank_agreement([[1, 2, 3]], [[1, 2]])
    with pytest.raises(BadInput, match="expected as many"):
        ranks.rank_agreement([], [])


# -- answers ------------------------------------------------------------------------------------------


def test_precision_and_f1_are_scikit_learns():
    rng = np.random.default_rng(7)
    labels = [rng.choice(3, size, p=[0.6, 0.3, 0.1]) for size in (200, 150)]
    before, after = (
        [np.where(rng.random(len(own)) < 0.7, own, rng.integers(0, 3, len(own))) for own in labels]
        for _ in "ab"
    )
    table = groups.answers_by_group(labels, before, after, labels, group_names=["many", "some", "few"])
    assert len(table) == 6
    for network, (truth, first, second) in enumerate(zip(labels, before, after, strict=True)):
        own = table[table["network"] == network]
        for when, answers in (("before", first), ("after", second)):
            precision, recall, f1, n = precision_recall_fscore_support(truth, answers)
            np.testing.assert_allclose(own[f"precision_{when}"], precision)
            np.testing.assert_allclose(own[f"accuracy_{when}"], recall)
            np.testing.assert_allclose(own[f"f1_{when}"], f1)
            np.testing.assert_array_equal(own["n"], n)
        for group in range(3):
            member = truth == group
            won = (member & (first != truth) & (second == truth)).sum()
            assert own["won"].iloc[group] == won
        net = own["n"] * (own["accuracy_after"] - own["accuracy_before"])
        np.testing.assert_allclose(own["won"] - own["lost"], net)


def test_where_group_and_label_part_ways_there_is_no_precision_of_a_group():
    table = groups.answers_by_group([[0, 1, 1, 0]], [[0, 1, 0, 0]], [[0, 1, 1, 1]], [["a", "a", "b", "b"]])
    assert table["precision_after"].isna().all()
    assert table["f1_before"].isna().all()
    assert table[["won", "lost"]].to_numpy().tolist() == [[0, 0], [1, 1]]


def test_a_group_without_images_and_a_label_without_answers():
    labels, answers = [[0, 0, 2], [0, 2, 2]], [[0, 0, 0], [0, 0, 2]]
    table = groups.answers_by_group(labels, answers, answers, labels, group_names=["a", "b", "c"])
    nobody, unnamed = table.iloc[1], table.iloc[2]
    assert nobody["n"] == 0
    assert math.isnan(nobody["accuracy_before"])
    assert math.isnan(unnamed["precision_before"])
    assert unnamed["f1_before"] == 0
    with pytest.raises(BadInput, match="different networks or images"):
        groups.answers_by_group([[0, 1]], [[0]], [[0, 1]], [[0, 1]])
