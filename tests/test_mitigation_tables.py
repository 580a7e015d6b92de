"""The tables of chapter 5 against least squares, fairlearn, and numbers counted by hand."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import torch
from fairlearn.metrics import accuracy_score_difference, accuracy_score_group_min
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from fairq_book.chapters.repair import tables
from fairq_book.chapters.zero_bin import tables as zero_bin_tables
from fairq_book.experiments.studies import Prediction, Study
from fairq_book.kit import tables as kit_tables
from fairq_utils.data.sources import DataSettings
from fairq_utils.errors import BadInput
from fairq_utils.metrics import changes as metrics_changes
from fairq_utils.training.loop import Recipe
from fairq_utils.treatments.treatment import FP32, Treatment

NAMES = ("many", "some", "few", "untested")
PTQ = Treatment.parse("int4-ends8")
QAT = Treatment.parse("int4-ends8-qat")
FAIRQAT = Treatment.parse("int4-fairqat")
EIGHT = [
    f"ends8-{training}{weights}{sampling}"
    for training in ("tuned", "qat")
    for weights in ("", "-weighted")
    for sampling in ("", "-sampled")
]
GROUPS = np.repeat([0, 1, 2], [60, 30, 10])


@cache
def study(seed: int) -> Study:
    return Study(seed=seed)


def predicted(
    treatment: str | Treatment, given: np.ndarray, groups: Sequence[int] | np.ndarray = GROUPS
) -> list[Prediction]:
    """A prediction for each seed: the class that each image is given, of which 0 is right."""
    what = Treatment.parse(treatment) if isinstance(treatment, str) else treatment
    codes = torch.tensor(np.asarray(groups))
    return [
        Prediction(
            study(seed),
            what,
            torch.tensor(np.eye(3)[row.astype(int)]),
            torch.zeros_like(codes),
            codes,
            ("a", "b", "c"),
            NAMES,
        )
        for seed, row in enumerate(np.atleast_2d(given))
    ]


def correct(predictions: Sequence[Prediction]) -> np.ndarray:
    return np.stack([prediction.correct for prediction in predictions])


def eight(
    rates: Callable[[bool, bool, bool], np.ndarray], *, seeds: int = 2, times: int = 1, width: str = "int4"
) -> list[Prediction]:
    """All arms of a width, their groups right at these rates; images are alike hard for all of them."""
    rng = np.random.default_rng(1)
    groups = np.repeat(GROUPS, times)
    hard = rng.random(len(groups))
    found = []
    for name in EIGHT:
        arm = Treatment.parse(f"{width}-{name}")
        rate = rates(arm.training == "qat", arm.weight is not None, arm.sampling is not None)
        redrawn = rng.random((seeds, len(groups)))
        often = rng.random((seeds, len(groups))) < 0.2
        found += predicted(arm, np.where(often, redrawn, hard) > rate[groups], groups)
    return found


# -- the effects of the parts -------------------------------------------------------------------------


def test_effects_are_twice_the_coefficients_of_least_squares() -> None:
    rng = np.random.default_rng(2)
    found = eight(lambda *_: rng.uniform(0.4, 1, size=3))
    ours = tables.effects(found).pivot_table(index="group", columns="effect", values="estimate")
    signs = np.array(list(itertools.product((-1, 1), repeat=3)))
    design = pd.DataFrame(signs, columns=["training", "weights", "sampling"])
    for size in (2, 3):
        for parts in itertools.combinations(list(design.columns[:3]), size):
            design[" × ".join(parts)] = design[list(parts)].prod(axis=1)
    arms = [correct(found[place : place + 2]) for place in range(0, 16, 2)]
    outcomes = {
        "OA": [arm.mean() for arm in arms],
        "few": [arm[:, GROUPS == 2].mean() for arm in arms],
        "FVO": [np.ptp([arm[:, group == GROUPS].mean() for group in range(3)]) for arm in arms],
    }
    for group, outcome in outcomes.items():
        fitted = 2 * sm.OLS(outcome, sm.add_constant(design)).fit().params
        assert ours.loc[group].to_dict() == pytest.approx(fitted.drop("const").to_dict(), abs=1e-12)


def test_effects_that_were_put_in_are_found_and_no_others() -> None:
    def rates(while_rounded: bool, weighted: bool, sampled: bool) -> np.ndarray:
        few = 0.4 + 0.2 * weighted + 0.2 * (sampled and not weighted)
        return np.array([0.9 + 0.05 * while_rounded, 0.8, few])

    table = tables.effects(eight(rates, seeds=3, times=40)).set_index(["effect", "group"])
    put_in = {
        ("training", "many"): 0.05,
        ("training", "few"): 0.0,
        ("training", "FVO"): 0.05,
        ("weights", "few"): 0.1,  # 0.2 without sampling, none with it
        ("weights", "FVO"): -0.1,
        ("sampling", "few"): 0.1,
        ("weights × sampling", "few"): -0.1,  # half of 0 less 0.2
        ("weights × sampling", "FVO"): 0.1,
        ("training × weights", "FVO"): 0.0,
        ("training × weights × sampling", "many"): 0.0,
    }
    for key, effect in put_in.items():
        record = table.loc[key]
        assert record["lower"] <= effect <= record["upper"]
        assert record["upper"] - record["lower"] < 0.15


def test_effects_need_all_eight_arms_and_bear_an_empty_group() -> None:
    whole = eight(lambda *_: np.array([0.9, 0.8, 0.7]), width="int3")
    short = [p for p in eight(lambda *_: np.array([0.9, 0.8, 0.7])) if p.treatment != FAIRQAT]
    other = [replace(p, treatment=replace(p.treatment, bits=2, ends8=False)) for p in whole]
    table = tables.effects([*short, *whole, *other])
    assert set(table["width"]) == {"int3"}
    assert table["effect"].nunique() == 7
    untested = table[table["group"] == "untested"]
    assert (untested["n"] == 0).all()
    assert untested["estimate"].isna().all()
    assert table.loc[table["group"] != "untested", "estimate"].notna().all()
    none = tables.effects(short)
    assert none.empty
    assert list(none.columns) == list(table.columns)


# -- against rounding alone ---------------------------------------------------------------------------


def counted() -> list[Prediction]:
    """Two images of many and two of few; the worst group is few before, and many after."""
    groups = [0, 0, 2, 2]
    return [
        *predicted(FP32, np.array([[0, 0, 0, 1], [0, 0, 0, 0]]), groups),
        *predicted(PTQ, np.array([[0, 0, 1, 2], [0, 0, 1, 1]]), groups),
        *predicted(QAT, np.array([[1, 0, 0, 2], [1, 0, 0, 0]]), groups),
    ]


def test_changes_against_rounding_are_those_counted_by_hand() -> None:
    table = tables.against_rounding(counted())
    assert list(table.columns[:2]) == ["treatment", "bits"]
    assert table[["treatment", "reference", "width"]].drop_duplicates().to_numpy().tolist() == [
        [QAT.name, PTQ.name, "int4"]
    ]
    records = table.set_index("group")
    assert records["before"].dropna().to_dict() == pytest.approx(
        {"many": 1, "few": 0, "OA": 0.5, "FVO": 1, "worst group": 0, "flips": 4 / 8}
    )
    assert records["after"].dropna().to_dict() == pytest.approx(
        {"many": 0.5, "few": 0.75, "OA": 0.625, "FVO": 0.25, "worst group": 0.5, "flips": 3 / 8}
    )
    assert (records["estimate"] - (records["after"] - records["before"])).abs().max() < 1e-12
    inside = records["lower"].le(records["estimate"]) & records["estimate"].le(records["upper"])
    assert inside[records["n"] > 0].all()
    assert records["n"].to_dict() == {
        "many": 2,
        "some": 0,
        "few": 2,
        "untested": 0,
        **dict.fromkeys(["OA", "FVO", "worst group", "flips"], 4),
    }


def test_networks_are_paired_by_study_and_not_by_their_place() -> None:
    expected = tables.against_rounding(counted())
    rounded = [p for p in counted() if p.treatment == PTQ]
    others = [p for p in counted() if p.treatment != PTQ]
    assert_frame_equal(tables.against_rounding([*others, *rounded[::-1]]), expected)


@pytest.mark.parametrize(
    ("arm", "reference", "width"),
    [
        ("int4-fairqat", "int4-ends8", "int4"),
        ("int3-ends8-tuned-weighted-sampled", "int3-ends8", "int3"),
        ("int4-ends8-qat-weighted40", "int4-ends8", "int4"),
        ("int4-ends8-qat-oversampled", "int4-ends8", "int4"),
        ("int4-ends8-qat-dro", "int4-ends8", "int4"),
        ("int4-ends8-qat-adjusted", "int4-ends8", "int4"),
        ("int4-qat", "int4", "int4"),
        ("int4-mse-channel-ends8-qat", "int4-mse-channel-ends8", "int4-mse-channel"),
        ("nf4-tuned", "nf4", "nf4"),
    ],
)
def test_every_arm_finds_its_reference(arm: str, reference: str, width: str) -> None:
    rows = np.zeros((1, len(GROUPS)))
    found = [p for name in ("fp32", "int8", reference, arm) for p in predicted(name, rows)]
    about = tables.against_rounding(found)[["treatment", "reference", "width"]].drop_duplicates()
    assert about.to_numpy().tolist() == [[arm, reference, width]]


def test_training_without_rounding_is_no_arm() -> None:
    rows = np.zeros((1, len(GROUPS)))
    found = [*predicted(FP32, rows), *predicted("fp32-tuned-weighted", rows), *predicted(PTQ, rows)]
    table = tables.against_rounding(found)
    assert table.empty
    assert list(table.columns) == list(tables.against_rounding(counted()).columns)


@pytest.mark.parametrize(
    ("left_out", "message"),
    [
        (lambda p: p.treatment == PTQ, "int4-ends8 are missing for moths.*-seed0"),
        (lambda p: p.treatment == FP32, "fp32 are missing"),
        (lambda p: p.treatment == QAT and p.study.seed == 1, "int4-ends8-qat are missing for .*-seed1"),
    ],
)
def test_what_is_missing_is_named(left_out: Callable[[Prediction], bool], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        tables.against_rounding([p for p in counted() if not left_out(p)])


# -- training and test images -------------------------------------------------------------------------


def test_training_and_test_images_are_compared_each_by_itself() -> None:
    rng = np.random.default_rng(3)
    lists = [
        [
            p
            for name in (PTQ, QAT, FAIRQAT)
            for p in predicted(name, rng.integers(0, 2, (3, n)), np.arange(n) % 3)
        ]
        for n in (90, 60)
    ]
    table = tables.on_both(*lists, level=0.9)
    assert set(table["group"]) == {"OA", "FVO"}
    for split, predictions in zip(("train", "test"), lists, strict=True):
        own = table[table["split"] == split].drop(columns="split").reset_index(drop=True)
        whole = tables.against_rounding(
            [*predictions, *(replace(p, treatment=FP32) for p in predictions[:3])], level=0.9
        )
        whole = whole[whole["group"].isin(["OA", "FVO"])].reset_index(drop=True)
        assert_frame_equal(own, whole)


def test_an_arm_that_only_one_kind_of_images_saw_is_refused() -> None:
    with pytest.raises(BadInput, match="int4-ends8-qat are there for one kind"):
        tables.on_both(counted(), [p for p in counted() if p.treatment != QAT])


# -- the frontier -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "width", "family", "strength"),
    [
        ("fp32", "fp32", "none", np.nan),
        ("int4-ends8", "int4", "none", np.nan),
        ("int4-ends8-qat", "int4", "none", np.nan),
        ("int3-ends8-tuned", "int3", "none", np.nan),
        ("int4-ends8-qat-weighted", "int4", "weights", 60.0),
        ("int4-ends8-qat-weighted40", "int4", "weights", 40.0),
        ("int4-ends8-qat-sampled", "int4", "sampling", "both"),
        ("int4-ends8-qat-sampled50", "int4", "sampling", 50.0),
        ("int4-ends8-qat-oversampled", "int4", "sampling", "over"),
        ("int4-fairqat", "int4", "both", np.nan),
        ("int4-ends8-qat-dro", "int4", "dro", np.nan),
        ("int4-ends8-qat-adjusted", "int4", "adjusted", np.nan),
    ],
)
def test_a_point_of_the_frontier_says_what_the_training_favours(
    name: str, width: str, family: str, strength: float | str
) -> None:
    (point,) = tables.frontier(predicted(name, np.zeros((1, len(GROUPS))))).to_dict("records")
    assert point["treatment"] == name
    assert (point["width"], point["family"]) == (width, family)
    assert point["strength"] == pytest.approx(strength, nan_ok=True)


def test_the_worst_group_of_a_point_may_switch() -> None:
    table = tables.frontier(counted()).set_index("treatment")
    assert table["worst"].to_dict() == {"fp32": "few", PTQ.name: "few", QAT.name: "many"}
    assert table["worst_accuracy"].to_dict() == {"fp32": 0.75, PTQ.name: 0.0, QAT.name: 0.5}
    assert table["FVO"].to_dict() == pytest.approx({"fp32": 0.25, PTQ.name: 1.0, QAT.name: 0.25})
    accuracy = kit_tables.accuracy(counted()).set_index(["treatment", "group"])
    for treatment, measure in itertools.product(table.index, ("OA", "FVO")):
        point = table.loc[treatment, [measure, f"{measure}_lower", f"{measure}_upper"]]
        record = accuracy.loc[(treatment, measure), ["estimate", "lower", "upper"]]
        assert point.tolist() == record.tolist()


# -- what to do ---------------------------------------------------------------------------------------

TUNED = Treatment.parse("int4-ends8-tuned")
COSTS = {QAT.name: 0.3, FAIRQAT.name: 0.4, TUNED.name: 0.2}
MEGABYTES = {PTQ.name: 5.5}


def right_of_20(**shares: tuple[int, int]) -> list[Prediction]:
    """Of twenty images each of many and of few so many are right; names with _ for -."""
    groups = np.repeat([0, 2], 20)
    return [
        p
        for name, (many, few) in shares.items()
        for p in predicted(
            name.replace("_", "-"), (np.arange(40) % 20 >= np.where(groups, few, many))[None], groups
        )
    ]


def chosen(tuning: list[Prediction], test: list[Prediction], **options: float) -> dict:
    table = tables.what_to_do(tuning, test, costs=COSTS, megabytes=MEGABYTES, **options)
    (row,) = table.to_dict("records")
    return row


def test_the_choice_sees_validation_and_the_numbers_are_of_test() -> None:
    tuning = right_of_20(int4_ends8=(18, 10), int4_ends8_qat=(18, 12), int4_fairqat=(17, 16))
    test = right_of_20(int4_ends8=(17, 11), int4_ends8_qat=(20, 20), int4_fairqat=(16, 12))
    row = chosen(tuning, test)
    assert row["chosen"] == FAIRQAT.name
    assert (row["width"], row["cost"], row["megabytes"]) == ("int4", 0.4, 5.5)
    assert (row["OA"], row["FVO"]) == pytest.approx((0.7, 0.2))
    own = [p for p in test if p.treatment == FAIRQAT]
    before, groups = [p for p in test if p.treatment == PTQ], own[0].groups
    changes = metrics_changes.compare(correct(before), correct(own), groups, group_names=NAMES).set_index(
        "group"
    )
    records = metrics_changes.accuracy_intervals(correct(own), groups, group_names=NAMES).set_index("group")
    for name, expected in (("", records), ("_change", changes)):
        for measure in ("OA", "FVO"):
            found = [row[f"{measure}{name}{end}"] for end in ("", "_lower", "_upper")]
            assert found == expected.loc[measure, ["estimate", "lower", "upper"]].tolist()


def test_an_even_network_that_is_often_wrong_is_not_chosen() -> None:
    found = right_of_20(int4_ends8=(18, 12), int4_ends8_qat=(18, 14), int4_fairqat=(15, 15))
    assert chosen(found, found)["chosen"] == QAT.name
    assert chosen(found, found, oa_loss=0.045)["chosen"] == QAT.name
    assert chosen(found, found, oa_loss=0.05)["chosen"] == FAIRQAT.name


def test_of_equals_the_cheaper_is_taken() -> None:
    found = right_of_20(int4_ends8=(18, 10), int4_fairqat=(18, 16), int4_ends8_qat=(16, 18))
    assert chosen(found, found)["chosen"] == QAT.name


def test_rounding_alone_does_not_stand_for_choice() -> None:
    """What is asked is how to train, and rounding alone is not training."""
    found = right_of_20(int4_ends8=(20, 20), int4_ends8_qat=(18, 10))
    assert chosen(found, found)["chosen"] == QAT.name


@given(st.lists(st.tuples(*[st.integers(0, 20)] * 2), min_size=4, max_size=4), st.sampled_from([0, 0.05, 1]))
@settings(max_examples=25)
def test_no_allowed_arm_has_a_smaller_gap(rights: list[tuple[int, int]], oa_loss: float) -> None:
    names = ["int4_ends8", "int4_ends8_tuned", "int4_ends8_qat", "int4_fairqat"]
    found = right_of_20(**dict(zip(names, rights, strict=True)))
    truth, groups = np.ones(40), found[0].groups.numpy()
    oracle = {
        p.treatment.name: (
            p.correct.mean(),
            accuracy_score_difference(truth, p.correct, sensitive_features=groups),
        )
        for p in found
        if p.treatment != PTQ
    }
    best = max(right for right, _ in oracle.values())
    allowed = {name: gap for name, (right, gap) in oracle.items() if right >= best - oa_loss - 1e-9}
    row = chosen(found, found, oa_loss=oa_loss)
    assert allowed[row["chosen"]] == pytest.approx(min(allowed.values()))


def test_the_published_method_is_held_against_plain_training() -> None:
    groups = [0, 0, 2, 2]
    before = predicted(QAT, np.array([[1, 0, 0, 2], [1, 0, 0, 0]]), groups)
    after = predicted(FAIRQAT, np.array([[0, 0, 1, 2], [1, 0, 1, 0]]), groups)
    table = tables.against_plain_training([*before, *after])
    expected = kit_tables.change(zero_bin_tables.against([*before, *after], QAT))
    assert set(table["treatment"]) == {FAIRQAT.name}
    assert set(table["reference"]) == {QAT.name}
    own = table[table["group"] != "worst group"]
    assert own["group"].tolist() == expected["group"].tolist()
    assert own["estimate"].tolist() == pytest.approx(expected["estimate"].tolist(), nan_ok=True)
    assert tables.against_plain_training(before).empty


def test_a_training_costs_the_images_that_it_shows() -> None:
    study = Study(
        dataset=DataSettings(train_images=500, test_images=50),
        recipe=Recipe(epochs=2),
        tuning=Recipe(epochs=1),
    )
    costs = tables.training_costs(
        study, study.dataset.load(), [PTQ, QAT, Treatment.parse("int4-qat-sampled")]
    )
    assert costs[PTQ.name] == 0
    assert costs[QAT.name] == pytest.approx(0.5)
    assert costs["int4-qat-sampled"] == pytest.approx(costs[QAT.name], abs=0.01)


def test_every_width_that_has_an_arm_has_its_row() -> None:
    rows = np.zeros((2, len(GROUPS)))
    names = ["fp32", "int8", "int4-ends8", "int4-ends8-qat", "int3-ends8", "int3-ends8-qat", "fp32-tuned"]
    found = [p for name in names for p in predicted(name, rows)]
    numbers = dict.fromkeys(names, 1.0)
    table = tables.what_to_do(found, found, costs=numbers, megabytes=numbers)
    assert table["width"].tolist() == ["int4", "int3"]
    assert table["chosen"].tolist() == ["int4-ends8-qat", "int3-ends8-qat"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"costs": {}}, "nothing of int4-ends8-qat;"),
        ({"megabytes": {QAT.name: 1.0}}, "nothing of int4-ends8;"),
        ({"oa_loss": -1}, "oa_loss is -1"),
        ({"test": []}, "of int4-ends8, int4-ends8-qat are missing;"),
    ],
)
def test_a_choice_that_cannot_be_made_is_refused(changed: dict, message: str) -> None:
    given = {"tuning": counted(), "test": counted(), "costs": COSTS, "megabytes": MEGABYTES} | changed
    with pytest.raises(BadInput, match=message) as refusal:
        tables.what_to_do(given.pop("tuning"), given.pop("test"), **given)
    assert str(refusal.value).endswith(".")


def test_the_worst_accuracy_is_fairlearns() -> None:
    rng = np.random.default_rng(5)
    own = predicted(QAT, rng.integers(0, 2, (1, len(GROUPS))))
    (point,) = tables.frontier(own).to_dict("records")
    expected = accuracy_score_group_min(np.ones(len(GROUPS)), correct(own)[0], sensitive_features=GROUPS)
    assert point["worst_accuracy"] == pytest.approx(expected)
