"""The metrics against fairlearn, scipy, scikit-learn, statsmodels, torch and closed forms."""

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from fairlearn.metrics import MetricFrame, selection_rate
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal
from scipy import special, stats
from sklearn.metrics import accuracy_score, log_loss
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_paired

from fairq_utils.errors import BadInput
from fairq_utils.metrics import changes as metrics_changes
from fairq_utils.metrics import groups as metrics_groups
from fairq_utils.metrics import populations, ranking

SIZES = np.array([400, 180, 140, 160, 70])
GROUPS = np.repeat(np.arange(5), SIZES)


def answers(examples: int = 600, classes: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits, labels and groups of a fairly good network; group and label do not coincide."""
    rng = np.random.default_rng(7)
    labels = rng.integers(classes, size=examples)
    logits = rng.standard_normal((examples, classes)) + 1.5 * np.eye(classes)[labels]
    return logits, labels, rng.choice(["ash", "birch", "cedar"], size=examples, p=[0.6, 0.3, 0.1])


def outcomes(
    accuracies: np.ndarray, rng: np.random.Generator, seeds: int = 1, luck: float = 0.0
) -> np.ndarray:
    """Right and wrong, seeds by examples: images of unequal difficulty, seeds of unequal luck by group."""
    difficulty = rng.beta(accuracies[GROUPS], 1 - accuracies[GROUPS])
    chances = difficulty + luck * rng.standard_normal((seeds, len(accuracies)))[:, GROUPS]
    return rng.random((seeds, len(GROUPS))) < chances


def holds(table: pd.DataFrame, truth: np.ndarray) -> np.ndarray:
    return ((table["lower"] <= truth + 1e-12) & (truth - 1e-12 <= table["upper"])).to_numpy()


def with_oa_and_fvo(accuracies: np.ndarray) -> np.ndarray:
    return np.append(accuracies, [accuracies @ SIZES / SIZES.sum(), np.ptp(accuracies)])


# -- what a network answers ---------------------------------------------------------------------------


def test_group_metrics_agree_with_metricframe() -> None:
    logits, labels, groups = answers()
    tensor, truth = torch.tensor(logits), torch.tensor(labels)
    softmax = tensor.softmax(dim=1)

    def margin(_: np.ndarray, rows: np.ndarray) -> float:
        first, second = tensor[rows].topk(2, dim=1)[0].T
        own = tensor[rows, truth[rows]]
        return float((own - torch.where(own == first, second, first)).mean())

    def within_class(_: np.ndarray, rows: np.ndarray) -> float:
        return sum(
            float(tensor[chosen].var(dim=0).mean()) * len(chosen) / len(rows)
            for label in range(4)
            if len(chosen := rows[labels[rows] == label])
        )

    oracle = {
        "n": lambda _, rows: len(rows),
        "accuracy": lambda y, rows: accuracy_score(y, logits[rows].argmax(axis=1)),
        "loss": lambda y, rows: log_loss(y, softmax[rows].numpy(), labels=range(4)),
        "logit_variance": lambda _, rows: float(tensor[rows].var(dim=1, correction=0).mean()),
        "logit_variance_within_class": within_class,
        "confidence": lambda _, rows: float(softmax[rows].amax(dim=1).mean()),
        "entropy": lambda _, rows: float(torch.distributions.Categorical(softmax[rows]).entropy().mean()),
        "margin": margin,
    }
    frame = MetricFrame(
        metrics=oracle,
        y_true=labels,
        y_pred=np.arange(len(labels)),
        sensitive_features=pd.Series(groups, name="group"),
    )
    ours = metrics_groups.group_metrics(logits, labels, groups).set_index("group")
    assert_frame_equal(ours, frame.by_group, check_dtype=False, check_names=False, rtol=1e-12)


def test_variance_within_a_class_depends_on_no_number_of_examples() -> None:
    rng = np.random.default_rng(0)
    # Of each class one group has two examples and another twenty, of the same spread.
    groups = np.repeat(["few", "many"], [2 * 3, 20 * 3])
    labels = np.concatenate([np.repeat(range(3), 2), np.repeat(range(3), 20)])
    found = [
        metrics_groups.group_metrics(rng.standard_normal((66, 3)), labels, groups).set_index("group")[
            "logit_variance_within_class"
        ]
        for _ in range(300)
    ]
    table = pd.DataFrame(found)
    assert (abs(table.mean() - 1) < 4 * table.sem()).all()
    # Whoever is alone in class and group says nothing of it, and does not count as alike.
    alone = metrics_groups.group_metrics([[1.0, 0.0], [3.0, 0.0], [9.0, 9.0]], [0, 0, 1], ["a"] * 3)
    assert alone["logit_variance_within_class"].tolist() == [1.0]
    assert metrics_groups.group_metrics([[1.0, 0.0]], [0], ["a"])["logit_variance_within_class"].isna().all()


# -- whether confidence can be believed ---------------------------------------------------------------


def sure(rng: np.random.Generator, examples: int, *, temper: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits of two classes, and labels that come up as often as these say; then the logits are tempered."""
    scores = np.column_stack([np.zeros(examples), rng.normal(0, 1.5, examples)])
    labels = (rng.random(examples) < special.expit(scores[:, 1])).astype(int)
    return scores * temper, labels


def plain(logits: np.ndarray, labels: np.ndarray, bins: int = 15) -> tuple[float, float]:
    """The squared calibration error as one counts it, and without what chance adds, bin by bin."""
    confidence = special.softmax(logits, axis=1).max(axis=1)
    gaps = (logits.argmax(axis=1) == labels) - confidence
    seen = without = count = 0.0
    for low, high in pairwise(np.linspace(0, 1, bins + 1)):
        own = gaps[(low < confidence) & (confidence <= high)]
        seen += len(own) * own.mean() ** 2 / len(gaps) if len(own) else 0
        if len(own) > 1:
            # The mean product of two different examples, times how many examples there are.
            without += (own.sum() ** 2 - (own**2).sum()) / (len(own) - 1)
            count += len(own)
    return seen, without / count


@pytest.mark.parametrize(("examples", "rounds"), [(50, 600), (2000, 60)])
@pytest.mark.parametrize("temper", [1.0, 3.0])
def test_calibration_is_right_on_average_for_few_and_for_many(
    examples: int, rounds: int, temper: float
) -> None:
    rng = np.random.default_rng(5)
    truth = 0.0 if temper == 1 else plain(*sure(rng, 400_000, temper=temper))[0]
    found, seen = [], []
    for _ in range(rounds):
        logits, labels = sure(rng, examples, temper=temper)
        table = metrics_groups.calibration(logits, labels, ["all"] * examples, seed=0)
        found.append(table["squared_calibration_error"].item())
        seen.append(plain(logits, labels)[0])
    error = np.std(found) / math.sqrt(rounds)
    assert abs(np.mean(found) - truth) < 3 * error
    assert np.mean(seen) - truth > (4 if examples == 50 else 1) * error  # of many, chance adds little
    if temper == 1:
        assert np.min(found) < 0  # and nothing is clipped
    else:
        assert np.mean(found) > 20 * error


def test_calibration_takes_as_many_of_each_group_and_other_ones_for_each_seed() -> None:
    rng = np.random.default_rng(1)
    logits, labels = sure(rng, 300)
    groups = np.repeat(["small", "large"], [40, 260])
    names = ["large", "none", "small"]

    def found(seed: int) -> pd.DataFrame:
        return metrics_groups.calibration(logits, labels, groups, seed=seed, group_names=names)

    table = found(0)
    assert table["group"].tolist() == names
    assert table["n"].tolist() == [40, 0, 40]
    assert_frame_equal(table, found(0))
    first, again = (own.set_index("group")["squared_calibration_error"] for own in (table, found(1)))
    # Of the small group all are taken, whatever the seed.
    assert first["small"] == pytest.approx(again["small"], rel=1e-9)
    assert first["small"] == pytest.approx(plain(logits[:40], labels[:40])[1], rel=1e-9)
    assert first["large"] != pytest.approx(again["large"], rel=1e-3)
    assert np.isnan(first["none"])
    alone = metrics_groups.calibration(logits, labels, np.repeat(["one", "rest"], [1, 299]), seed=0)
    assert alone["n"].tolist() == [1, 1]
    assert alone["squared_calibration_error"].isna().all()


def test_overall_violation_and_worst_agree_with_metricframe() -> None:
    logits, labels, groups = answers()
    frame = MetricFrame(
        metrics=accuracy_score, y_true=labels, y_pred=logits.argmax(axis=1), sensitive_features=groups
    )
    correct = metrics_groups.correct_answers(logits, labels)
    assert metrics_groups.overall_accuracy(correct) == pytest.approx(frame.overall, abs=1e-15)
    assert metrics_groups.fairness_violation(correct, groups) == pytest.approx(frame.difference(), abs=1e-15)
    assert metrics_groups.worst_group(correct, groups) == frame.by_group.idxmin()


def test_violation_of_several_seeds_is_that_of_their_average() -> None:
    correct = np.array([[True, True, False, True], [True, False, True, True]])
    assert metrics_groups.fairness_violation(correct, ["a", "a", "b", "b"]) == 0
    assert metrics_groups.fairness_violation(correct[1], ["a", "a", "b", "b"]) == 0.5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors_of_every_float_give_what_their_values_give(dtype: torch.dtype) -> None:
    logits, labels, groups = answers()
    tensor = torch.tensor(logits, dtype=dtype, requires_grad=True)
    ours = metrics_groups.group_metrics(tensor, torch.tensor(labels), groups)
    assert_frame_equal(ours, metrics_groups.group_metrics(tensor.detach().double().numpy(), labels, groups))


def test_names_order_the_groups_and_admit_empty_ones() -> None:
    logits, labels, groups = answers()
    names = ["elm", "cedar", "birch", "ash"]
    named = metrics_groups.group_metrics(logits, labels, groups, group_names=names)
    numbered = metrics_groups.group_metrics(
        logits, labels, [names.index(g) for g in groups], group_names=names
    )
    assert_frame_equal(named, numbered)
    assert named["group"].tolist() == names
    assert named.loc[0, "n"] == 0
    assert named.iloc[0, 2:].isna().all()
    assert_frame_equal(
        named[:0:-1].reset_index(drop=True), metrics_groups.group_metrics(logits, labels, groups)
    )


WITH_INTERVALS: list[Callable[..., pd.DataFrame]] = [
    metrics_changes.accuracy_intervals,
    metrics_changes.mean_intervals,
    lambda correct, *rest, **options: metrics_changes.compare(correct, correct[::-1], *rest, **options),
]


@pytest.mark.parametrize("function", WITH_INTERVALS)
def test_empty_groups_take_no_part_in_intervals(function: Callable[..., pd.DataFrame]) -> None:
    correct = np.random.default_rng(0).random((3, 90)) < 0.7
    groups = ["a", "b", "c"] * 30
    with_empty = function(correct, groups, group_names=["d", "a", "b", "c"])
    assert with_empty.loc[0, "n"] == 0
    assert with_empty.iloc[0, 2:].isna().all()
    assert_frame_equal(with_empty[1:].reset_index(drop=True), function(correct, groups))


def test_a_group_may_be_called_oa() -> None:
    table = metrics_changes.accuracy_intervals([True, False, True], ["OA", "OA", "FVO"])
    assert table["group"].tolist() == ["FVO", "OA", "OA", "FVO"]
    assert table["estimate"].tolist() == pytest.approx([1, 1 / 2, 2 / 3, 1 / 2])


def test_temperature_divides_both_variances_and_keeps_accuracy() -> None:
    logits, labels, groups = answers()
    plain = metrics_groups.group_metrics(logits, labels, groups)
    hot = metrics_groups.group_metrics(logits / 3, labels, groups)
    variances = ["logit_variance", "logit_variance_within_class"]
    np.testing.assert_allclose(hot[variances], plain[variances] / 9, rtol=1e-12)
    assert hot["accuracy"].equals(plain["accuracy"])
    assert (hot["entropy"] > plain["entropy"]).all()


def test_a_constant_moves_only_the_variance_across_examples() -> None:
    logits, labels, groups = answers()
    plain = metrics_groups.group_metrics(logits, labels, groups)
    moved = metrics_groups.group_metrics(logits + np.arange(len(logits))[:, None], labels, groups)
    other = "logit_variance_within_class"
    assert_frame_equal(moved.drop(columns=other), plain.drop(columns=other), rtol=1e-9)
    assert (moved[other] > 100 * plain[other]).all()


@settings(max_examples=30)
@given(order=st.permutations(range(40)))
def test_the_order_of_examples_does_not_matter(order: list[int]) -> None:
    logits, labels, groups = answers(40)
    shuffled = metrics_groups.group_metrics(logits[order], labels[order], groups[order])
    assert_frame_equal(shuffled, metrics_groups.group_metrics(logits, labels, groups), rtol=1e-12)


def test_extreme_and_equal_logits_are_defined() -> None:
    table = metrics_groups.group_metrics([[1e100, -1e100], [0.0, 0.0]], [1, 0], ["far", "tie"]).set_index(
        "group"
    )
    assert table.loc["far", ["accuracy", "loss", "confidence", "entropy"]].tolist() == [0, 2e100, 1, 0]
    assert table.loc["tie", ["accuracy", "confidence", "margin", "logit_variance"]].tolist() == [1, 0.5, 0, 0]
    assert table.loc["tie", "loss"] == table.loc["tie", "entropy"] == pytest.approx(np.log(2))


def test_flips_are_counted_where_the_answer_changes() -> None:
    before = answers()[0]
    after = before[:, ::-1]
    assert metrics_groups.flip_rate(before, before * 0.1) == 0
    assert metrics_groups.flip_rate(before, after) == 1  # four classes reversed: none keeps its place
    one_moved = before.copy()
    one_moved[17] = -before[17]
    assert metrics_groups.flipped(torch.tensor(before), one_moved).nonzero()[0].tolist() == [17]


def test_collapse_of_uniform_and_constant_predictions() -> None:
    uniform = metrics_groups.collapse(np.tile(np.eye(5), (3, 1)))
    assert (uniform.share, uniform.effective_classes) == (pytest.approx(0.2), pytest.approx(5))
    constant = metrics_groups.collapse(np.zeros((7, 5)))
    assert (constant.share, constant.effective_classes) == (1, 1)


# -- intervals ----------------------------------------------------------------------------------------


def test_one_network_has_jeffreys_intervals() -> None:
    rights = np.array([370, 91, 140, 3, 35])
    correct = np.concatenate([np.arange(size) < right for size, right in zip(SIZES, rights, strict=True)])
    table = metrics_changes.accuracy_intervals(correct, GROUPS, resamples=100_000)[:5]
    np.testing.assert_allclose(table["estimate"], rights / SIZES, rtol=1e-15)
    jeffreys = stats.beta.interval(0.95, rights + 0.5, SIZES - rights + 0.5)
    np.testing.assert_allclose(table["lower"], jeffreys[0], atol=1e-3)
    np.testing.assert_allclose(table["upper"], np.maximum(jeffreys[1], rights / SIZES), atol=1e-3)


def test_a_large_group_has_scipys_bootstrap_interval() -> None:
    rng = np.random.default_rng(3)
    before = rng.random(2000) < 0.8
    after = np.where(rng.random(2000) < 0.1, ~before, before)
    options = {"n_resamples": 20_000, "vectorized": True, "method": "percentile", "rng": rng}
    one = stats.bootstrap((before,), np.mean, **options).confidence_interval
    two = stats.bootstrap((after.astype(int) - before,), np.mean, **options).confidence_interval
    groups = np.zeros(2000, int)
    ours = metrics_changes.accuracy_intervals(before, groups, resamples=20_000).loc[0]
    np.testing.assert_allclose(ours[["lower", "upper"]].astype(float), one, atol=1e-3)
    ours = metrics_changes.compare(before, after, groups, resamples=20_000).loc[0]
    np.testing.assert_allclose(ours[["lower", "upper"]].astype(float), two, atol=1e-3)


def test_oa_has_the_stratified_interval() -> None:
    rng = np.random.default_rng(4)
    accuracies = np.array([0.95, 0.2, 0.9, 0.5, 0.7])
    groups = np.repeat(GROUPS, 10)
    correct = rng.random(len(groups)) < accuracies[groups]
    observed = np.array([correct[groups == group].mean() for group in range(5)])
    shares = SIZES / SIZES.sum()
    error = np.sqrt((shares**2 * observed * (1 - observed) / (SIZES * 10)).sum())
    ours = metrics_changes.accuracy_intervals(correct, groups, resamples=50_000).set_index("group").loc["OA"]
    assert ours["estimate"] == pytest.approx(correct.mean(), abs=1e-12)
    np.testing.assert_allclose(
        ours[["lower", "upper"]], correct.mean() + error * np.array([-1.96, 1.96]), atol=5e-4
    )


def test_with_endless_images_seeds_have_students_interval() -> None:
    accuracies = np.array([0.70, 0.80, 0.75, 0.83])
    right = np.arange(100_000) < 100_000 * accuracies[:, None]
    correct = np.apply_along_axis(np.random.default_rng(0).permutation, 1, right)
    ours = metrics_changes.accuracy_intervals(correct, np.zeros(100_000, int), resamples=100_000).loc[0]
    student = stats.t.interval(0.95, 3, accuracies.mean(), stats.sem(accuracies))
    np.testing.assert_allclose(ours[["lower", "upper"]].astype(float), student, atol=4e-3)


def test_copies_of_one_network_are_no_more_evidence_than_one() -> None:
    rng = np.random.default_rng(5)
    before, after = outcomes(np.full(5, 0.8), rng)[0], outcomes(np.full(5, 0.7), rng)[0]
    thrice = [np.stack([correct] * 3) for correct in (before, after)]
    assert_frame_equal(
        metrics_changes.accuracy_intervals(thrice[0], GROUPS),
        metrics_changes.accuracy_intervals(before, GROUPS),
        rtol=1e-9,
    )
    assert_frame_equal(
        metrics_changes.compare(*thrice, GROUPS), metrics_changes.compare(before, after, GROUPS), rtol=1e-9
    )


EQUAL = np.full(5, 0.8)
CLOSE = np.array([0.82, 0.8, 0.78, 0.8, 0.8])
APART = np.array([0.85, 0.8, 0.75, 0.8, 0.6])


@pytest.mark.parametrize("accuracies", [EQUAL, CLOSE, APART], ids=["equal", "close", "apart"])
@pytest.mark.parametrize(("seeds", "luck"), [(1, 0.0), (5, 0.0), (5, 0.03)], ids=["one", "alike", "unlike"])
def test_intervals_cover_the_truth(accuracies: np.ndarray, seeds: int, luck: float) -> None:
    rng = np.random.default_rng(11)
    if luck:  # a chance below 0 or above 1 counts as 0 or 1, which moves the truth a little
        difficulty = rng.beta(accuracies, 1 - accuracies, size=(100_000, 5))
        accuracies = (difficulty + luck * rng.standard_normal((100_000, 5))).clip(0, 1).mean(axis=0)
    truth = with_oa_and_fvo(accuracies)
    covered = [
        holds(metrics_changes.accuracy_intervals(correct, GROUPS, resamples=500, seed=repeat), truth)
        for repeat in range(300)
        for correct in [outcomes(accuracies, rng, seeds, luck)]
    ]
    rates = np.mean(covered, axis=0)
    # 300 repeats of 0.95 stay above 0.91 with 3 standard errors
    assert rates.min() > 0.91
    assert rates[-1] > 0.93


def paired_outcomes(
    before: np.ndarray, after: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """One draw an image decides both, and a tenth is drawn anew: two networks that mostly agree."""
    draw = rng.random(len(GROUPS))
    redrawn = np.where(rng.random(len(GROUPS)) < 0.1, rng.random(len(GROUPS)), draw)
    return draw < before[GROUPS], redrawn < after[GROUPS]


@pytest.mark.parametrize(
    ("before", "after"),
    [(EQUAL, EQUAL), (EQUAL, EQUAL - 0.1), (APART, APART), (APART, APART - [0.01, 0.02, 0.03, 0.04, 0.1])],
    ids=["equal", "drop together", "unchanged gap", "gap grows"],
)
def test_paired_intervals_cover_the_truth(before: np.ndarray, after: np.ndarray) -> None:
    rng = np.random.default_rng(12)
    truth = np.append(with_oa_and_fvo(after) - with_oa_and_fvo(before), after.min() - before.min())
    options = {"worst": True, "resamples": 500}
    covered = [
        holds(
            metrics_changes.compare(*paired_outcomes(before, after, rng), GROUPS, **options, seed=repeat),
            truth,
        )
        for repeat in range(300)
    ]
    assert np.mean(covered, axis=0).min() > 0.91


def test_pairs_are_narrower_than_separate_intervals() -> None:
    before, after = paired_outcomes(APART, APART - 0.02, np.random.default_rng(13))
    width = {
        name: (table["upper"] - table["lower"]).to_numpy()[:-1]
        for name, table in {
            "before": metrics_changes.accuracy_intervals(before, GROUPS),
            "after": metrics_changes.accuracy_intervals(after, GROUPS),
            "pairs": metrics_changes.compare(before, after, GROUPS),
        }.items()
    }
    assert (width["pairs"] < 0.8 * np.hypot(width["before"], width["after"])).all()


def test_compare_says_what_the_two_tables_say() -> None:
    rng = np.random.default_rng(14)
    before, after = outcomes(EQUAL, rng, 4), outcomes(APART, rng, 4)
    table = metrics_changes.compare(before, after, GROUPS)
    for name, correct in (("before", before), ("after", after)):
        np.testing.assert_allclose(
            table[name], metrics_changes.accuracy_intervals(correct, GROUPS)["estimate"], rtol=1e-12
        )
    np.testing.assert_allclose(table["estimate"], table["after"] - table["before"], atol=1e-12)
    assert (table["lower"] <= table["estimate"]).all()
    assert (table["estimate"] <= table["upper"]).all()


def test_the_same_seed_gives_the_same_numbers() -> None:
    correct = outcomes(APART, np.random.default_rng(15), 3)
    first, again, other = (
        metrics_changes.accuracy_intervals(correct, GROUPS, seed=seed) for seed in (1, 1, 2)
    )
    assert_frame_equal(first, again)
    assert not first["lower"].equals(other["lower"])


def test_a_group_of_one_and_a_single_group_are_defined() -> None:
    table = metrics_changes.accuracy_intervals([True], ["only"]).set_index("group")
    assert table.loc["only", "estimate"] == table.loc["OA", "estimate"] == 1
    assert table.loc["only", "lower"] < 0.2  # Jeffreys: 0.15
    assert table.loc["FVO", ["estimate", "lower", "upper"]].tolist() == [0, 0, 0]


@pytest.mark.parametrize("seeds", [1, 5])
def test_mean_intervals_are_students(seeds: int) -> None:
    rng = np.random.default_rng(16)
    values = rng.gamma(2.0, size=(seeds, len(GROUPS)))
    if seeds > 1:  # so that the noise of images vanishes beside that of seeds
        values = values * 1e-9 + rng.standard_normal((seeds, 1))
    table = metrics_changes.mean_intervals(values, GROUPS, level=0.9)
    for group in range(5):
        sample = values[:, group == GROUPS]
        sample = sample.mean(axis=1) if seeds > 1 else sample[0]
        oracle = stats.ttest_1samp(sample, 0).confidence_interval(0.9)
        np.testing.assert_allclose(table.loc[group, ["lower", "upper"]].astype(float), oracle, rtol=1e-7)


def test_a_constant_measure_has_an_interval_of_no_width() -> None:
    table = metrics_changes.mean_intervals([2.0, 2.0, 2.0], ["a", "a", "a"])
    assert table.loc[0, ["estimate", "lower", "upper"]].tolist() == [2, 2, 2]


# -- noise alone --------------------------------------------------------------------------------------


def test_violation_under_equality_of_two_groups_is_the_binomials() -> None:
    sizes, accuracy = [12, 30], 0.7
    first, second = (stats.binom.pmf(np.arange(size + 1), size, accuracy) for size in sizes)
    gaps = np.abs(np.arange(13)[:, None] / 12 - np.arange(31) / 30)
    chance = metrics_changes.fairness_violation_under_equality(sizes, accuracy, resamples=200_000)
    for limit in (0.05, 0.15, 0.25, 0.35):
        exact = (np.outer(first, second) * (gaps >= limit)).sum()
        assert (chance >= limit).mean() == pytest.approx(exact, abs=0.004)


def test_violation_under_equality_of_large_groups_is_a_studentized_range() -> None:
    chance = metrics_changes.fairness_violation_under_equality(
        [4000, 0] + [4000] * 4, 0.75, resamples=100_000
    )
    unit = np.sqrt(0.75 * 0.25 / 4000)
    for q in (0.5, 0.9, 0.95):
        exact = stats.studentized_range.ppf(q, 5, np.inf) * unit
        assert np.quantile(chance, q) == pytest.approx(exact, rel=0.02)


def test_seeds_that_fail_on_the_same_images_do_not_shrink_the_noise() -> None:
    rng = np.random.default_rng(17)
    one = rng.random(5000) < 0.8
    same = np.tile(one, (5, 1)).mean(axis=0)
    unlike = (rng.random((5, 5000)) < 0.8).mean(axis=0)
    noise = [
        np.median(metrics_changes.fairness_violation_under_equality(SIZES, pool))
        for pool in (one.mean(), same, unlike)
    ]
    assert noise[1] == pytest.approx(noise[0], rel=0.05)
    assert noise[2] == pytest.approx(noise[0] / np.sqrt(5), rel=0.05)


def test_the_worst_group_may_be_another_one_after() -> None:
    before, after = [True, True, True, False] * 4, [True, False, False, True] * 4
    groups = ["a", "a", "b", "b"] * 4
    frames = [
        MetricFrame(metrics=selection_rate, y_true=own, y_pred=own, sensitive_features=groups)
        for own in (before, after)
    ]
    record = metrics_changes.compare(before, after, groups, worst=True).iloc[-1]
    assert record["group"] == "worst group"
    assert record["n"] == 16
    assert [record["before"], record["after"]] == [frame.group_min() for frame in frames]
    assert_frame_equal(
        metrics_changes.compare(before, after, groups, worst=True)[:-1],
        metrics_changes.compare(before, after, groups),
    )


# -- contrasts of several treatments ------------------------------------------------------------------


@pytest.mark.parametrize("seeds", [1, 4])
def test_a_contrast_of_two_is_what_compare_says(seeds: int) -> None:
    rng = np.random.default_rng(15)
    before, after = outcomes(EQUAL, rng, seeds), outcomes(APART, rng, seeds)
    expected = metrics_changes.compare(before, after, GROUPS, level=0.9).drop(columns=["before", "after"])
    assert_frame_equal(metrics_changes.contrast([before, after], [-1, 1], GROUPS, level=0.9), expected)
    # Where a treatment stands does not matter, nor does one that is not asked about.
    others = metrics_changes.contrast([after, before, after], [1, -1, 0], GROUPS, level=0.9)
    assert_frame_equal(others, expected, atol=0.01)


def test_one_treatment_as_a_contrast_has_its_own_interval() -> None:
    correct = outcomes(APART, np.random.default_rng(16))
    expected = metrics_changes.accuracy_intervals(correct, GROUPS)[:-1]
    assert_frame_equal(metrics_changes.contrast([correct], [1], GROUPS)[:-1], expected)


def test_the_mean_of_independent_treatments_has_its_closed_form() -> None:
    rng = np.random.default_rng(17)
    first, second = rng.random((2, 5000)) < [[0.9], [0.6]]
    shares = np.array([first.mean(), second.mean()])
    error = np.sqrt((shares * (1 - shares)).sum() / 5000) / 2
    ours = metrics_changes.contrast([first, second], [0.5, 0.5], np.zeros(5000, int), resamples=20_000)
    expected = shares.mean() + error * stats.norm.ppf([0.5, 0.025, 0.975])
    for row in (0, 1):  # the one group is everybody
        np.testing.assert_allclose(
            ours.loc[row, ["estimate", "lower", "upper"]].astype(float), expected, atol=1e-3
        )


def test_a_contrast_of_many_has_scipys_interval_of_its_values() -> None:
    rng = np.random.default_rng(18)
    coefficients = np.array([-1, -1, 1, 1, 1, 1, -1, -1]) / 4
    difficulty = rng.beta(2, 1, size=4000)
    correct = rng.random((8, 4000)) < difficulty + np.linspace(-0.1, 0.1, 8)[:, None]
    student = stats.ttest_1samp(coefficients @ correct, 0).confidence_interval(0.95)
    ours = metrics_changes.contrast(list(correct), coefficients, np.zeros(4000, int), resamples=20_000).iloc[
        0
    ]
    np.testing.assert_allclose(ours[["lower", "upper"]].astype(float), student, atol=1e-3)


def test_with_endless_images_a_contrast_has_students_interval_of_the_seeds() -> None:
    accuracies = np.array([[0.70, 0.80, 0.75, 0.83], [0.72, 0.79, 0.81, 0.85], [0.60, 0.62, 0.61, 0.70]])
    right = np.arange(100_000) < 100_000 * accuracies[..., None]
    correct = np.random.default_rng(0).permuted(right, axis=2)
    coefficients = [0.5, 0.5, -1]
    ours = metrics_changes.contrast(
        list(correct), coefficients, np.zeros(100_000, int), resamples=20_000
    ).iloc[0]
    student = stats.ttest_1samp(coefficients @ accuracies, 0).confidence_interval(0.95)
    np.testing.assert_allclose(ours[["lower", "upper"]].astype(float), student, atol=5e-3)


def test_limits_of_a_contrast_are_possible() -> None:
    never, always, groups = np.zeros(4, bool), np.ones(4, bool), np.array([0, 0, 1, 1])
    table = metrics_changes.contrast([always, groups > 0, groups > 0, never], [-1, 0.5, 0.5, 0], groups)
    assert table["lower"].min() >= -1
    assert table["upper"].max() <= 1
    assert table.loc[3, "upper"] == 1


def test_many_treatments_that_never_err_are_as_uncertain_as_two() -> None:
    perfect, groups = np.ones(20, bool), np.zeros(20, int)
    eight = metrics_changes.contrast([perfect] * 8, [-0.25] * 4 + [0.25] * 4, groups, resamples=20_000)
    two = metrics_changes.compare(perfect, perfect, groups, resamples=20_000)
    assert eight.loc[0, "lower"] < -0.02
    np.testing.assert_allclose(eight[["lower", "upper"]], two[["lower", "upper"]], atol=2e-3)


def test_intervals_of_an_interaction_cover_the_truth() -> None:
    rng = np.random.default_rng(19)
    repaired = np.array([0.85, 0.8, 0.75, 0.8, 0.7])
    rates = np.stack([APART, APART - 0.05, repaired, CLOSE])
    coefficients = [0.5, -0.5, -0.5, 0.5]
    truth = coefficients @ np.stack([with_oa_and_fvo(own) for own in rates])
    covered = []
    for repeat in range(200):
        draw = rng.random(len(GROUPS))
        correct = [
            np.where(rng.random(len(GROUPS)) < 0.1, rng.random(len(GROUPS)), draw) < own[GROUPS]
            for own in rates
        ]
        covered.append(
            holds(metrics_changes.contrast(correct, coefficients, GROUPS, resamples=500, seed=repeat), truth)
        )
    assert np.mean(covered, axis=0).min() > 0.9


def test_a_group_without_examples_takes_no_part_in_a_contrast() -> None:
    arms = np.random.default_rng(20).random((3, 2, 40)) < 0.7
    groups = np.arange(40) % 2
    table = metrics_changes.contrast(list(arms), [1, 1, -2], groups, group_names=["a", "b", "none"])
    assert table.loc[2, "n"] == 0
    assert table.loc[2, ["estimate", "lower", "upper"]].isna().all()
    without = metrics_changes.contrast(list(arms), [1, 1, -2], groups, group_names=["a", "b"])
    assert_frame_equal(table.drop(index=2).reset_index(drop=True), without)


# -- populations of models ----------------------------------------------------------------------------


def population() -> tuple[pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(18)
    before = pd.DataFrame(rng.random((9, 6)), columns=list("abcdef"))
    return before, before + rng.normal([0, 0.05, 0.1, 0.2, 0.3, 0], 0.1, size=(9, 6))


def test_paired_test_agrees_with_scipy_and_statsmodels() -> None:
    before, after = population()
    families = ["x", "y", "x", "y", "x", "z"]
    table = populations.paired_test(after - before, families=families, level=0.9)
    oracle = stats.ttest_rel(after, before)
    np.testing.assert_allclose(table["statistic"], oracle.statistic, rtol=1e-10)
    np.testing.assert_allclose(table["p"], oracle.pvalue, rtol=1e-10)
    np.testing.assert_allclose(table[["lower", "upper"]].T, oracle.confidence_interval(0.9), rtol=1e-9)
    for family in "xyz":
        own = table[[name == family for name in families]]
        np.testing.assert_allclose(own["p_holm"], multipletests(own["p"], method="holm")[1], rtol=1e-12)
    whole = populations.paired_test(after - before)
    np.testing.assert_allclose(whole["p_holm"], multipletests(whole["p"], method="holm")[1], rtol=1e-12)


def test_paired_test_of_changes_without_spread() -> None:
    table = populations.paired_test(pd.DataFrame({"none": [0, 0, 0], "same": [0.5, 0.5, 0.5]}))
    assert table["p"].tolist() == [1, 0]
    assert table["p_holm"].tolist() == [1, 0]
    assert table.loc[1, ["lower", "upper"]].tolist() == [0.5, 0.5]


def test_sign_consistency_agrees_with_scipy() -> None:
    before, after = population()
    changes = after - before
    changes.iloc[:4, 0] = 0
    changes["all"] = 1.0
    table = populations.sign_consistency(changes, level=0.9)
    for row, column in enumerate(changes):
        rises, falls = int((changes[column] > 0).sum()), int((changes[column] < 0).sum())
        oracle = stats.binomtest(rises, rises + falls)
        ours = table.loc[row]
        assert (ours["n"], ours["rises"], ours["falls"]) == (9, rises, falls)
        assert ours["p"] == pytest.approx(oracle.pvalue, rel=1e-12)
        assert (ours["lower"], ours["upper"]) == pytest.approx(tuple(oracle.proportion_ci(0.9)), rel=1e-9)
        assert ours["consistency"] == max(rises, falls) / (rises + falls)


def test_sign_consistency_when_nothing_changed() -> None:
    row = populations.sign_consistency(pd.DataFrame({"still": [0, 0]})).loc[0]
    assert row["p"] == 1
    assert row[["estimate", "lower", "upper", "consistency"]].isna().all()


# -- retrieval ----------------------------------------------------------------------------------------


def test_skew_in_closed_form() -> None:
    ranked = list("aaab") + list("abbbbbbb")  # 4 of a, 8 of b
    assert ranking.max_skew(ranked, 4) == pytest.approx(np.log((3 / 4) / (1 / 3)))
    assert ranking.min_skew(ranked, 4) == pytest.approx(np.log((1 / 4) / (2 / 3)))
    assert ranking.max_skew(ranked, 4, desired="equal") == pytest.approx(np.log(1.5))
    assert ranking.min_skew(ranked, 4, desired={"a": 0.9, "b": 0.1}) == pytest.approx(np.log(0.75 / 0.9))
    assert ranking.max_skew(ranked, 12) == ranking.min_skew(ranked, 12) == 0
    assert ranking.min_skew(ranked, 3) == -np.inf
    assert ranking.min_skew(ranked, 12, desired="equal", group_names=["a", "b", "c"]) == -np.inf
    assert ranking.min_skew(ranked, 12, desired="data", group_names=["a", "b", "c"]) == 0


@settings(max_examples=30)
@given(ranked=st.lists(st.integers(0, 3), min_size=1, max_size=30), equal=st.booleans())
def test_ndkl_is_its_definition(ranked: list[int], equal: bool) -> None:
    present = sorted(set(ranked))
    desired = [1 / len(present) if equal else ranked.count(group) / len(ranked) for group in present]
    terms = [
        stats.entropy([ranked[:i].count(group) / i for group in present], desired) / np.log2(i + 1)
        for i in range(1, len(ranked) + 1)
    ]
    weight = sum(1 / np.log2(i + 1) for i in range(1, len(ranked) + 1))
    ours = ranking.ndkl(ranked, desired="equal" if equal else "data")
    assert ours == pytest.approx(sum(terms) / weight, abs=1e-12)


# -- whether nothing changes, and retrieval ------------------------------------------------------------


@given(
    st.lists(st.floats(-1, 1), min_size=3, max_size=12).filter(lambda values: np.std(values) > 1e-3),
    st.floats(0.01, 1),
)
def test_equivalence_is_that_of_statsmodels_and_of_scipy(values: list[float], margin: float) -> None:
    (row,) = populations.equivalence_test(pd.DataFrame({"x": values}), margin).to_dict("records")
    p, _, _ = ttost_paired(np.array(values), np.zeros(len(values)), -margin, margin)
    assert row["p"] == pytest.approx(p, abs=1e-9)
    sides = (
        stats.ttest_1samp(values, -margin, alternative="greater").pvalue,
        stats.ttest_1samp(values, margin, alternative="less").pvalue,
    )
    assert row["p"] == pytest.approx(max(sides), abs=1e-9)
    inside = -margin < row["lower"] and row["upper"] < margin
    assert inside == (row["p"] < 0.05) or abs(row["p"] - 0.05) < 1e-9


def test_equivalence_of_changes_without_spread_is_certain() -> None:
    table = populations.equivalence_test(
        pd.DataFrame({"none": [0.0] * 3, "much": [0.5] * 3, "at": [0.25] * 3}), 0.25
    )
    assert table["p"].tolist() == [0.0, 1.0, 0.5]


def test_a_large_p_shows_nothing_and_equivalence_says_so() -> None:
    wild = pd.DataFrame({"x": [-0.5, 0.5, -0.4, 0.4]})
    assert populations.paired_test(wild)["p"].item() == 1.0
    assert populations.equivalence_test(wild, 0.05)["p"].item() > 0.4


def test_equivalence_is_corrected_within_families() -> None:
    changes = pd.DataFrame({"a": [0.01, 0.02, 0.0], "b": [0.0, 0.02, 0.03], "c": [0.01, 0.0, 0.0]})
    table = populations.equivalence_test(changes, 0.05, families=["x", "x", "y"])
    assert table["p_holm"].iloc[2] == table["p"].iloc[2]
    own = multipletests(table["p"].iloc[:2], method="holm")[1]
    assert table["p_holm"].iloc[:2].to_numpy() == pytest.approx(own)


def test_ranks_count_ties_against_the_query_and_take_the_best_of_several() -> None:
    scores = [[3.0, 2.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0], [0.0, 1.0, 2.0, 3.0]]
    relevant = [[False, False, True, True], [True, False, False, False], [True, False, False, True]]
    assert ranking.retrieval_ranks(scores, relevant).tolist() == [3, 4, 1]
    assert ranking.retrieval_ranks(torch.tensor(scores), relevant).tolist() == [3, 4, 1]
    assert [ranking.recall_at_k([3, 4, 1], k) for k in (1, 3, 4, 99)] == pytest.approx([1 / 3, 2 / 3, 1, 1])


@given(st.integers(1, 8), st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_recall_rises_with_k_to_one(queries: int, items: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    relevant = random.random((queries, items)) < 0.5
    relevant[:, 0] = True
    ranks = ranking.retrieval_ranks(random.random((queries, items)), relevant)
    recalls = [ranking.recall_at_k(ranks, k) for k in range(1, items + 1)]
    assert recalls == sorted(recalls)
    assert recalls[-1] == 1


def test_recall_disparity_is_by_class_and_open_where_a_group_has_none() -> None:
    correct = np.array([1, 1, 0, 1, 0, 1], dtype=bool)
    table = ranking.recall_disparity(
        correct,
        ["cook", "cook", "cook", "judge", "judge", "nurse"],
        ["a", "b", "b", "a", "b", "a"],
        between=("b", "a"),
        label_names=["cook", "judge", "nurse", "pilot"],
        group_names=["a", "b", "c"],
    ).set_index("label")
    assert table["estimate"].tolist()[:2] == [-0.5, -1.0]
    assert table["estimate"].isna().tolist() == [False, False, True, True]
    assert table.loc["nurse", ["n_first", "n_second"]].tolist() == [0, 1]
    turned = ranking.recall_disparity(correct, [0] * 6, [0, 1, 1, 0, 1, 0], between=("0", "1"))
    assert turned["estimate"].item() == pytest.approx(1 - 1 / 3)


# -- what is refused ----------------------------------------------------------------------------------

RIGHT = [True, False]
LOGITS = [[1.0, 0.0], [0.0, 1.0]]
CHANGES = pd.DataFrame({"a": [1.0, 2.0]})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: metrics_groups.correct_answers([[1.0, np.nan], [np.inf, 0.0]], [0, 1]),
            r"2 of the 4 .* index \(0, 1\)",
        ),
        (lambda: metrics_groups.correct_answers([[1.0], [2.0]], [0, 0]), "two classes or more"),
        (lambda: metrics_groups.correct_answers(LOGITS, [0, 2]), "A label is 2"),
        (lambda: metrics_groups.correct_answers(LOGITS, ["cat", "dog"]), "class_names"),
        (
            lambda: metrics_groups.correct_answers(LOGITS, [0, 1], class_names=["cat"]),
            "1 class names for 2 columns",
        ),
        (lambda: metrics_groups.correct_answers(LOGITS, [0]), "1 labels for 2 rows"),
        (lambda: metrics_groups.group_metrics([LOGITS], [0, 1], ["a", "b"]), "one seed at a time"),
        (lambda: metrics_groups.collapse([LOGITS]), "one seed at a time"),
        (lambda: metrics_groups.group_metrics(LOGITS, [0, 1], ["a"]), "1 groups for 2 rows"),
        (lambda: metrics_groups.group_metrics(LOGITS, [0, 1], ["a", None]), "A group is None"),
        (
            lambda: metrics_groups.group_metrics(LOGITS, [0, 1], ["a", "c"], group_names=["a", "b"]),
            "A group is 'c'",
        ),
        (
            lambda: metrics_groups.group_metrics(LOGITS, [0, 1], [0, -1], group_names=["a", "b"]),
            "A group is -1",
        ),
        (
            lambda: metrics_groups.group_metrics(LOGITS, [0, 1], [0, 1], group_names=["a", "a"]),
            "repeat a name",
        ),
        (lambda: metrics_groups.group_metrics(LOGITS, [0, 1], [], group_names=["a"]), "at least one"),
        (lambda: metrics_groups.calibration(LOGITS, [0, 1], ["a", "b"], seed=0, bins=0), "bins is 0"),
        (lambda: metrics_groups.calibration(LOGITS, [0, 1], ["a"], seed=0), "1 groups for 2 rows"),
        (lambda: metrics_groups.flip_rate(LOGITS, LOGITS[:1]), "the same examples and classes"),
        (lambda: metrics_groups.overall_accuracy([0.9, 0.1]), "expected true and false"),
        (lambda: metrics_groups.overall_accuracy(np.empty(0, bool)), "expected true and false"),
        (lambda: metrics_groups.fairness_violation([1, 0], ["a", "b"]), "expected true and false"),
        (lambda: metrics_groups.worst_group(RIGHT, ["a"]), "for 1 groups"),
        (lambda: metrics_changes.compare(RIGHT, [RIGHT, RIGHT], ["a", "b"]), "same seeds"),
        (lambda: metrics_changes.contrast([RIGHT], [1, -1], ["a", "b"]), "for 1 treatments"),
        (lambda: metrics_changes.contrast([], [], ["a", "b"]), "for 0 treatments"),
        (lambda: metrics_changes.contrast([RIGHT, RIGHT], [1, np.nan], ["a", "b"]), "a finite number"),
        (lambda: metrics_changes.contrast([RIGHT, RIGHT], [0, 0], ["a", "b"]), "not all of them 0"),
        (lambda: metrics_changes.accuracy_intervals(RIGHT, ["a", "b"], level=95), "level is 95"),
        (lambda: metrics_changes.accuracy_intervals(RIGHT, ["a", "b"], resamples=10), "resamples is 10"),
        (lambda: metrics_changes.mean_intervals([1.0, np.nan], ["a", "b"]), "finite numbers"),
        (lambda: metrics_changes.fairness_violation_under_equality([10, 10], 80), "accuracy is 80"),
        (lambda: metrics_changes.fairness_violation_under_equality([0, 0], 0.8), "sizes is"),
        (lambda: metrics_changes.fairness_violation_under_equality([0.5, 0.5], 0.8), "sizes is"),
        (lambda: populations.paired_test(CHANGES[:1]), "two models or more"),
        (lambda: populations.paired_test(CHANGES, families=["x", "y"]), "2 families for 1 measures"),
        (lambda: populations.paired_test(CHANGES, level=1), "level is 1"),
        (lambda: populations.sign_consistency(CHANGES - CHANGES[:1]), "NaN"),
        (lambda: populations.equivalence_test(CHANGES, 0), "margin is 0"),
        (
            lambda: populations.equivalence_test(CHANGES, 0.1, families=["x", "y"]),
            "2 families for 1 measures",
        ),
        (lambda: populations.equivalence_test(CHANGES[:1], 0.1), "two models or more"),
        (lambda: ranking.retrieval_ranks([[1.0]], [[False]]), "1 queries have no relevant item"),
        (lambda: ranking.retrieval_ranks([[1.0]], [[True, False]]), "queries by items for both"),
        (lambda: ranking.retrieval_ranks([[np.nan]], [[True]]), "NaN or infinite"),
        (lambda: ranking.recall_at_k([0, 1], 1), "places from 1"),
        (lambda: ranking.recall_at_k([1], 0), "k is 0"),
        (lambda: ranking.recall_disparity(RIGHT, ["x"], ["a", "b"], between=("a", "b")), "1 labels"),
        (
            lambda: ranking.recall_disparity(RIGHT, ["x", "x"], ["a", "b"], between=("a", "c")),
            "two of the groups",
        ),
        (lambda: ranking.max_skew(["a", "b"], 3), "k is 3"),
        (lambda: ranking.min_skew(["a", "b"], 0), "k is 0"),
        (lambda: ranking.ndkl(["a", "b"], desired="fair"), "desired is 'fair'"),
        (lambda: ranking.ndkl(["a", "b"], desired={"a": 1.0}), "share for each"),
        (lambda: ranking.ndkl(["a", "b"], desired={"a": 1.0, "b": 0.0}), "above 0"),
        (lambda: ranking.ndkl(["a", "b"], desired={"a": 0.6, "b": 0.6}), "sum to 1"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(call: Callable[[], object], message: str) -> None:
    with pytest.raises(BadInput, match=message) as refusal:
        call()
    sentence = str(refusal.value)
    assert sentence.endswith(".")
    assert "\n" not in sentence
