import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairq_book.chapters.repair import story
from fairq_book.kit import wording
from fairq_book.kit.treatments import with_columns

UP, DOWN, UNSURE = (0.1, 0.05, 0.15), (-0.1, -0.15, -0.05), (0.01, -0.05, 0.07)
LESS, LOST, KEPT = (-0.008, -0.012, -0.004), (-0.03, -0.04, -0.02), (0.0, -0.005, 0.005)
Interval = tuple[float, float, float]


def changed(arm: str, against: str, *, FVO: dict[str, Interval], OA: dict[str, Interval]) -> pd.DataFrame:
    rows = [
        (f"{width}-{arm}", f"{width}-{against}", width, group, *interval)
        for group, intervals in (("OA", OA), ("FVO", FVO))
        for width, interval in intervals.items()
    ]
    # What groups do has no say.
    rows += [(f"{width}-{arm}", f"{width}-{against}", width, "few", 0.9, 0.8, 1.0) for width in FVO]
    columns = ["treatment", "reference", "width", "group", "estimate", "lower", "upper"]
    return with_columns(pd.DataFrame(rows, columns=columns))


def standing(*fallen: str) -> pd.DataFrame:
    names = ["fp32"]
    for width in ("int4", "int3"):
        words = [
            f"ends8-{training}{extra}"
            for training, extra in itertools.product(
                ("tuned", "qat"), ("", "-weighted", "-sampled", "-weighted-sampled")
            )
        ]
        names += [f"{width}-{word}" for word in ("ends8", "fairqat", "ends8-qat-dro", *words[:-1])]
    return pd.DataFrame({"treatment": names, "standing": [float(name not in fallen) for name in names]})


def judged(ptq: dict, qat: dict, accuracy: dict | None = None, *, fallen=(), seeds=5) -> wording.Verdict:
    kept = dict.fromkeys(ptq, KEPT) | (accuracy or {})
    return story.repairs(
        changed("fairqat", "ends8", FVO=ptq, OA=kept),
        changed("fairqat", "ends8-qat", FVO=qat, OA=dict.fromkeys(qat, KEPT)),
        standing(*fallen),
        seeds=seeds,
    )


REPAIRS = [
    ({"int4": DOWN, "int3": UNSURE}, {"int4": DOWN, "int3": UNSURE}, {}, "supported"),
    ({"int4": UP}, {"int4": UNSURE}, {}, "contradicted"),
    ({"int4": UNSURE}, {"int4": UNSURE}, {"int4": LOST}, "contradicted"),
    ({"int4": DOWN}, {"int4": UP}, {}, "mixed"),
    ({"int4": DOWN, "int3": UP}, {"int4": DOWN, "int3": DOWN}, {}, "mixed"),
    ({"int4": DOWN}, {"int4": DOWN}, {"int4": LOST}, "mixed"),
    ({"int4": DOWN}, {"int4": DOWN}, {"int4": LESS}, "supported"),  # surely less, not surely by a point
    ({"int4": DOWN}, {"int4": UNSURE}, {}, "bounded"),
    ({"int4": DOWN, "int3": UNSURE}, {"int4": UNSURE, "int3": DOWN}, {}, "bounded"),
    ({"int4": UNSURE}, {"int4": UNSURE}, {}, "bounded"),
]


@pytest.mark.parametrize(("ptq", "qat", "accuracy", "word"), REPAIRS)
def test_fairqat_repairs_only_if_it_beats_both_and_keeps_accuracy(ptq, qat, accuracy, word):
    verdict = judged(ptq, qat, accuracy)
    assert verdict.word == word
    assert "paired over 5 seeds" in verdict.because
    assert "+90.0" not in verdict.because


def test_the_words_say_which_half_holds_and_what_is_lost():
    half = judged({"int4": DOWN}, {"int4": UNSURE}).because
    assert half.startswith("Against rounding FVO surely falls at int4; against plain QAT FVO changes nowhere")
    assert "Only the half against rounding holds." in half
    assert "Against rounding: int4 OA +0.0 (−0.5 to +0.5); int4 FVO −10.0 (−15.0 to −5.0)." in half
    dear = judged({"int4": DOWN}, {"int4": DOWN}, {"int4": LOST}).because
    assert "falls at int4 while OA surely loses more than 1 point at int4" in dear
    assert "Only the half" not in dear
    assert "Only the half against plain QAT holds" in judged({"int4": UP}, {"int4": DOWN}).because


def test_a_margin_of_its_own():
    strict = story.repairs(
        changed("fairqat", "ends8", FVO={"int4": DOWN}, OA={"int4": LESS}),
        changed("fairqat", "ends8-qat", FVO={"int4": DOWN}, OA={"int4": LESS}),
        standing(),
        seeds=5,
        margin=0.003,
    )
    assert strict.word == "mixed"
    assert "more than 0.3 points" in strict.because


def test_fairqat_is_not_judged_against_the_collapsed():
    both = {"int4": DOWN, "int3": DOWN}
    apart = judged(both, {"int4": UNSURE, "int3": DOWN}, fallen=["int3-ends8"])
    assert apart.word == "bounded"
    assert "Set apart, because the networks have collapsed: int3-ends8." in apart.because
    assert apart.because.count("int3 FVO") == 1
    half = judged({"int3": DOWN}, {"int3": DOWN}, fallen=["int3-ends8"])
    assert half.word == "bounded"
    assert "against rounding FVO cannot be judged" in half.because.lower().replace("fvo", "FVO")
    nothing = judged(both, both, fallen=["int3-fairqat", "int4-fairqat"])
    assert nothing.word == "undecided"
    assert "no width to judge it at" in nothing.because
    assert nothing.because.count("int3-fairqat") == 1


def test_one_seed_says_nothing_of_others():
    alone = judged({"int4": DOWN}, {"int4": DOWN}, seeds=1)
    assert "over 1 seed" in alone.because
    assert "One network says nothing of others" in alone.because
    assert "One network" not in judged({"int4": DOWN}, {"int4": DOWN}).because


# ---------------------------------------------------------------- which part


def effects(**parts: Interval | dict[str, Interval]) -> pd.DataFrame:
    names = {"three": "training × weights × sampling", "training_weights": "training × weights"}
    named = {name: parts.pop(word, UNSURE) for word, name in names.items()}
    intervals = {"training": UNSURE, "weights": UNSURE, "sampling": UNSURE} | parts | named
    rows = [
        (width, effect, "FVO", *(interval[width] if isinstance(interval, dict) else interval))
        for width in ("int4", "int3")
        for effect, interval in intervals.items()
    ]
    rows += [("int4", "training", "OA", 0.5, 0.4, 0.6)]
    return pd.DataFrame(rows, columns=["width", "effect", "group", "estimate", "lower", "upper"])


@pytest.mark.parametrize(
    ("parts", "word"),
    [
        ({"weights": {"int4": DOWN, "int3": UNSURE}}, "supported"),
        ({"weights": DOWN, "training": UP}, "supported"),
        ({"training": DOWN}, "contradicted"),
        ({"weights": UP}, "contradicted"),
        ({"weights": DOWN, "training": {"int4": UNSURE, "int3": DOWN}}, "mixed"),
        ({"weights": {"int4": DOWN, "int3": UP}}, "mixed"),
        ({"sampling": DOWN}, "bounded"),
        ({}, "bounded"),
    ],
)
def test_the_word_on_the_part_is_that_of_weights_and_training(parts, word):
    verdict = story.which_part_repairs(effects(**parts), standing(), seeds=3)
    assert verdict.word == word
    assert "over 3 seeds" in verdict.because
    assert "+50.0" not in verdict.because
    assert "No interaction surely differs from 0." in verdict.because


def test_sampling_and_sure_interactions_are_named():
    table = effects(sampling=DOWN, training_weights={"int4": UP, "int3": UNSURE}, three=DOWN)
    said = story.which_part_repairs(table, standing(), seeds=1).because
    assert "with the sampling FVO surely falls at int4, int3" in said
    assert "int4, training × weights +10.0 (+5.0 to +15.0), so that together they leave a larger gap" in said
    assert "int3, training × weights +" not in said
    assert "int3, training × weights × sampling −10.0" in said
    assert "One network says nothing of others" in said


def test_a_width_with_a_collapsed_arm_has_no_parts():
    table = effects(weights={"int4": UNSURE, "int3": DOWN})
    verdict = story.which_part_repairs(table, standing("int3-ends8-tuned-sampled"), seeds=3)
    assert verdict.word == "bounded"
    assert "collapsed: int3-ends8-tuned-sampled" in verdict.because
    assert "int3, weights" not in verdict.because
    both = standing("int3-fairqat", "int4-ends8-qat")
    assert "no width to judge it at" in story.which_part_repairs(table, both, seeds=3).because
    # Rounding alone is none of the eight.
    ptq_fell = story.which_part_repairs(table, standing("int3-ends8"), seeds=3)
    assert ptq_fell.word == "supported"


# ---------------------------------------------------------------- plain training while rounded


@pytest.mark.parametrize(
    ("gap", "word"),
    [
        ({"int4": UP, "int3": UNSURE}, "supported"),
        ({"int4": DOWN, "int3": UNSURE}, "contradicted"),
        ({"int4": DOWN, "int3": UP}, "mixed"),
        ({"int4": UNSURE}, "bounded"),
    ],
)
def test_the_word_on_plain_training_is_that_of_its_gap(gap, word):
    plain = changed("ends8-qat", "ends8", FVO=gap, OA=dict.fromkeys(gap, UP))
    fair = changed("fairqat", "ends8", FVO={"int4": UP, "int3": DOWN}, OA={"int4": DOWN})
    verdict = story.training_is_less_fair(pd.concat([plain, fair]), standing(), seeds=4)
    assert verdict.word == word
    assert "paired over 4 seeds" in verdict.because
    assert "OA, in points: int4 rises, +10.0 (+5.0 to +15.0)" in verdict.because


def test_plain_training_is_less_fair_than_no_collapsed_network():
    gap = {"int4": UNSURE, "int3": UP}
    accuracy = {"int4": UNSURE, "int3": DOWN}
    table = changed("ends8-qat", "ends8", FVO=gap, OA=accuracy)
    verdict = story.training_is_less_fair(table, standing("int3-ends8"), seeds=1)
    assert verdict.word == "bounded"
    assert "collapsed: int3-ends8. OA, in points: int4 does not surely change" in verdict.because
    assert "int3 falls, −10.0" in verdict.because
    assert "One network says nothing" in verdict.because
    nothing = story.training_is_less_fair(table, standing("int3-ends8", "int4-ends8"), seeds=3)
    assert nothing.word == "undecided"
    assert "no width to judge it at" in nothing.because


# ---------------------------------------------------------------- accuracy comes back


def since_fp32(arm: str, **widths: Interval) -> pd.DataFrame:
    return changed(arm, "", FVO=dict.fromkeys(widths, DOWN), OA=widths).drop(columns="reference")


@pytest.mark.parametrize(
    ("trained", "word"),
    [
        ({"int4": KEPT, "int3": UP}, "supported"),
        ({"int4": LOST, "int3": UNSURE}, "contradicted"),
        ({"int4": KEPT, "int3": LOST}, "mixed"),
        ({"int4": KEPT, "int3": UNSURE}, "bounded"),
        ({"int4": LESS}, "bounded"),
        ({}, "undecided"),
    ],
)
def test_accuracy_is_back_when_the_whole_interval_is_within_a_point(trained, word):
    rounded = since_fp32("ends8", int4=LOST, int3=DOWN)
    verdict = story.accuracy_comes_back(since_fp32("ends8-qat", **trained), rounded, seeds=5)
    assert verdict.word == word
    assert "within 1 point of" in verdict.claim
    assert "Rounding alone" not in verdict.because


def test_what_rounding_alone_does_stands_beside_it():
    trained = since_fp32("ends8-qat", int4=KEPT, int3=LOST)
    others = since_fp32("fairqat", int4=LOST)
    rounded = since_fp32("ends8", int4=KEPT, int3=DOWN)
    verdict = story.accuracy_comes_back(pd.concat([trained, others]), rounded, seeds=1)
    assert "int4 surely within it, +0.0 (−0.5 to +0.5), by rounding alone +0.0" in verdict.because
    assert "int3 surely not, −3.0 (−4.0 to −2.0), by rounding alone −10.0" in verdict.because
    assert "At int4 rounding alone is surely within it already." in verdict.because
    assert "One network says nothing" in verdict.because
    assert verdict.word == "contradicted"  # where nothing was lost, nothing came back
    wider = story.accuracy_comes_back(trained, rounded, seeds=5, margin=0.05)
    assert wider.word == "supported"


@given(st.floats(-0.1, 0.1), st.floats(0, 0.05), st.floats(0.001, 0.05))
def test_an_equivalence_never_says_both(centre, reach, margin):
    # Oracle: yes and no are about disjoint sets of true changes.
    table = since_fp32("ends8-qat", int4=(centre, centre - reach, centre + reach))
    word = story.accuracy_comes_back(table, table[:0], seeds=5, margin=margin).word
    possible = {bool(change < -margin) for change in np.linspace(centre - reach, centre + reach, 101)}
    if word == "supported":
        assert possible == {False}
    elif word == "contradicted":
        assert possible == {True}


def test_without_an_interval_nothing_is_decided_and_none_is_said():
    alone = (-0.05, math.nan, math.nan)
    verdict = story.accuracy_comes_back(
        since_fp32("ends8-qat", int4=alone), since_fp32("ends8", int4=alone), seeds=1
    )
    assert verdict.word == "undecided"
    assert "int4 not surely either, −5.0, by rounding alone −5.0." in verdict.because
    assert "nan" not in verdict.because


# ---------------------------------------------------------------- train and test


def on_both(train: dict[str, Interval], test: dict[str, Interval]) -> pd.DataFrame:
    tables = [
        changed(arm, "ends8", FVO={"int4": interval}, OA={"int4": DOWN}).assign(split=split)
        for split, arms in (("train", train), ("test", test))
        for arm, interval in arms.items()
    ]
    return pd.concat(tables)


SMALLER = (-0.02, -0.04, -0.01)  # surely less than DOWN, and surely
GONE = (-0.01, -0.03, 0.01)  # surely less than DOWN, and not surely


@pytest.mark.parametrize(
    ("train", "test", "word"),
    [
        ({"fairqat": DOWN, "ends8-qat": UNSURE}, {"fairqat": SMALLER, "ends8-qat": UP}, "supported"),
        ({"fairqat": DOWN}, {"fairqat": GONE}, "contradicted"),
        ({"fairqat": DOWN}, {"fairqat": UP}, "contradicted"),
        ({"fairqat": DOWN, "ends8-qat": DOWN}, {"fairqat": DOWN, "ends8-qat": GONE}, "mixed"),
        ({"fairqat": DOWN}, {"fairqat": (-0.05, -0.12, 0.02)}, "bounded"),
        ({"fairqat": UNSURE}, {"fairqat": DOWN}, "bounded"),
    ],
)
def test_only_what_is_surely_repaired_in_training_can_hold_on_test(train, test, word):
    verdict = story.holds_on_test(on_both(train, test), standing(), seeds=3)
    assert verdict.word == word
    assert "over 3 seeds" in verdict.because


def test_size_and_count_of_what_holds_are_said():
    table = on_both({"fairqat": DOWN, "ends8-qat": UNSURE}, {"fairqat": SMALLER, "ends8-qat": UNSURE})
    said = story.holds_on_test(table, standing(), seeds=1).because
    assert said.startswith("Of 2 arms, 1 surely narrows the gap on training images; of these 1 surely do")
    assert "int4-fairqat −10.0 (−15.0 to −5.0) in training and −2.0 (−4.0 to −1.0) in the test" in said
    assert "the test, surely less." in said
    assert "One network says nothing" in said
    many = on_both({"ends8-qat": DOWN, "ends8-qat-dro": DOWN}, {"ends8-qat": GONE, "ends8-qat-dro": DOWN})
    said = story.holds_on_test(many, standing(), seeds=3).because
    assert "int4-ends8-qat −10.0 (−15.0 to −5.0) in training and −1.0 (−3.0 to +1.0)" in said
    assert "dro" not in said


def test_arms_beside_a_collapsed_reference_are_set_apart():
    table = on_both({"fairqat": DOWN}, {"fairqat": DOWN})
    verdict = story.holds_on_test(table, standing("int4-ends8"), seeds=3)
    assert verdict.word == "undecided"
    assert "There is no arm to judge it by. Set apart, because the networks have collapsed: int4-ends8" in (
        verdict.because
    )


# ---------------------------------------------------------------- the price


def point(
    arm: str, family: str, strength: object, accuracy: float, gap: float, worst: str = "few", width="int4"
) -> dict[str, object]:
    ends = (("", 0.0), ("_lower", -0.02), ("_upper", 0.02))
    measured = {
        f"{name}{end}": centre + reach
        for name, centre in (("OA", accuracy), ("FVO", gap))
        for end, reach in ends
    }
    about = {"treatment": f"{width}-{arm}", "width": width, "family": family, "strength": strength}
    return about | measured | {"worst": worst, "equal": 10.0}


def points(rows: list[dict[str, object]]) -> pd.DataFrame:
    return with_columns(pd.DataFrame(rows))


SWEEP = [
    point("ends8-qat-weighted80", "weights", 80.0, 0.78, 0.10, "many"),
    point("ends8-qat-weighted20", "weights", 20.0, 0.85, 0.20),
    point("ends8-qat-weighted", "weights", 60.0, 0.80, 0.12, "many"),
    point("ends8-qat-weighted40", "weights", 40.0, 0.83, 0.15),
    point("ends8-tuned-weighted", "weights", 60.0, 0.5, 0.5, "some"),
    point("ends8-qat-sampled", "sampling", "both", 0.84, 0.16),
    point("ends8-qat-sampled50", "sampling", 50.0, 0.85, 0.18),
    point("ends8-qat-oversampled", "sampling", "over", 0.2, 0.9, "some"),
    point("fairqat", "both", math.nan, 0.82, 0.13),
    point("ends8-qat-dro", "dro", math.nan, 0.87, 0.14),
    point("ends8-qat-adjusted", "adjusted", math.nan, 0.82, 0.02),
]


def test_the_price_is_told_from_the_mildest_to_the_strongest():
    said = story.at_what_price(points(SWEEP)).text
    assert (
        "- **int4**: As the weights go from 20 to 80 % for the smallest group, OA goes from 85.0 "
        "(83.0 to 87.0) to 78.0 (76.0 to 80.0) % and FVO from 20.0 (18.0 to 22.0) to 10.0 (8.0 to 12.0) "
        "points; neither pair of intervals overlaps. Served worst is first few, from 60 % on many."
    ) in said
    assert "As the sampling goes from 50 to 100 % of the way" in said
    assert "both pairs of intervals overlap. few is served worst throughout." in said
    assert "some" not in said


def test_what_beats_the_published_setting_is_named():
    table = points(SWEEP)
    alone = table[~table["treatment"].str.contains("weighted40")]
    said = story.at_what_price(alone).text
    assert "has OA 82.0 (80.0 to 84.0) % and FVO 13.0 (11.0 to 15.0) points: no other point is better" in said
    better = points([*SWEEP, point("ends8-tuned", "none", math.nan, 0.83, 0.12)])
    assert "better in both is int4-ends8-tuned, though all with intervals that overlap." in (
        story.at_what_price(better).text
    )
    sure = points([*SWEEP, point("ends8-tuned", "none", math.nan, 0.9, 0.05)])
    assert "better in both is int4-ends8-tuned, for int4-ends8-tuned no intervals overlap." in (
        story.at_what_price(sure).text
    )


def test_nothing_is_said_of_a_sweep_of_one_point():
    one = points(SWEEP[:1])
    assert story.at_what_price(one).text == "Neither the weights nor the sampling were varied."


@given(st.lists(st.sampled_from(["few", "many", "some"]), min_size=2, max_size=6))
def test_as_many_switches_of_the_worst_group_are_said_as_there_are(worst):
    rows = [
        point(f"ends8-qat-weighted{percent}", "weights", float(percent), 0.8, 0.1, name)
        for percent, name in enumerate(worst, start=1)
    ]
    said = story.at_what_price(points(rows)).text
    switches = sum(a != b for a, b in itertools.pairwise(worst))
    assert said.count(" on ") == switches
    assert ("throughout" in said) == (switches == 0)


def test_the_other_methods_stand_beside_fairqat():
    said = story.baselines(points(SWEEP)).text
    assert "FairQAT has OA 82.0 (80.0 to 84.0) % and FVO 13.0 (11.0 to 15.0) points." in said
    assert "Group-DRO has OA 87.0 (85.0 to 89.0) %, higher by 5.0 (the intervals lie apart), and FVO" in said
    assert "larger by 1.0 (the intervals overlap)." in said
    assert "Logit adjustment has OA 82.0 (80.0 to 84.0) %, the same (the intervals overlap)" in said
    assert "smaller by 11.0 (the intervals lie apart)." in said
    assert "No width has both" in story.baselines(points(SWEEP[:3])).text


# ---------------------------------------------------------------- what to do


def choice(chosen: str, cost: float, accuracy: Interval = KEPT, gap: Interval = DOWN) -> pd.DataFrame:
    row: dict[str, object] = {"width": "int4", "chosen": chosen, "cost": cost, "megabytes": 1.234}
    levels = {"OA": (0.8, 0.78, 0.82), "FVO": (0.1, 0.05, 0.15), "OA_change": accuracy, "FVO_change": gap}
    for name, interval in levels.items():
        row |= dict(zip((name, f"{name}_lower", f"{name}_upper"), interval, strict=True))
    return with_columns(pd.DataFrame([row]), "chosen")


def test_advice_is_a_table_and_a_sentence_a_width():
    said = story.advice(choice("int4-fairqat", 0.2)).text
    shown = story.choices(choice("int4-fairqat", 0.2))
    assert shown.reset_index().iloc[0].tolist() == [
        *("int4", "int4-fairqat", "80.0 (78.0 to 82.0)", "10.0 (5.0 to 15.0)", "20 %", "1.23")
    ]
    assert "<table" in shown._repr_html_()
    assert "- **int4**: train further while rounded (`int4-fairqat`)." in said
    assert "OA does not surely change, +0.0 (−0.5 to +0.5) points, and FVO falls, −10.0" in said
    assert "It costs 20 % of the training that the original took. It takes 1.23 MB." in said
    assert "no reason" not in said
    tuned = story.advice(choice("int4-ends8-tuned-sampled", 0.2)).text
    assert "train further in full precision, then round (`int4-ends8-tuned-sampled`)" in tuned


@pytest.mark.parametrize(
    ("accuracy", "gap", "doubt"),
    [(KEPT, UNSURE, True), (KEPT, UP, True), (UP, UNSURE, False), (KEPT, DOWN, False)],
)
def test_what_test_images_do_not_bear_out_is_doubted(accuracy, gap, doubt):
    said = story.advice(choice("int4-fairqat", 0.2, accuracy, gap)).text
    assert ("The test images give no reason not to just round." in said) == doubt
