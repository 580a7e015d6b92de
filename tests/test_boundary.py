"""Chapter 2: logit variance, the boundary, and the interventions on them."""

import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from fairq_book.chapters.logits import figures, story, tables
from fairq_book.experiments.studies import Prediction, Study
from fairq_book.kit import figures as kit_figures
from fairq_book.kit import tables as kit_tables
from fairq_book.kit import wording
from fairq_book.kit.treatments import with_columns
from fairq_utils.errors import BadInput
from fairq_utils.treatments.treatment import FP32, Treatment

GROUPS = ("many", "few")
IMAGES, SMALL = 400, 80


# A study checks its architecture, which takes a while.
STUDIES = [Study(seed=seed) for seed in range(6)]


def made_up(seed: int, change, name: str = "int4", *, groups=None) -> list[Prediction]:
    """An original with random logits that lean to the label, and what `change` makes of it."""
    draw = np.random.default_rng(seed)
    labels = np.arange(IMAGES) % 3
    logits = draw.normal(size=(IMAGES, 3)) * 2
    logits[np.arange(IMAGES), labels] += 1.5
    groups = (np.arange(IMAGES) < SMALL).astype(int) if groups is None else groups
    common = (torch.tensor(labels), torch.tensor(groups), ("a", "b", "c"), GROUPS)
    return [
        Prediction(STUDIES[seed % 6], FP32, torch.tensor(logits), *common),
        Prediction(STUDIES[seed % 6], Treatment.parse(name), torch.tensor(change(logits, draw)), *common),
    ]


def several(change, name: str = "int4", seeds: int = 3) -> list[Prediction]:
    return [prediction for seed in range(seeds) for prediction in made_up(seed, change, name)]


def halved(logits, draw):
    return logits / 2


def noisy(logits, draw):
    return logits / 3 + draw.normal(size=logits.shape)


def of(table: pd.DataFrame, **where) -> pd.Series:
    for name, value in where.items():
        table = table[table[name] == value]
    (row,) = table.to_dict("records")
    return row


# ---------------------------------------------------------------- tables


def test_measures_are_means_and_changes_are_differences():
    found = several(noisy)
    answered, changed = tables.answers(found), kit_tables.answer_changes(found)
    assert not answered.duplicated(["treatment", "measure", "group"]).any()
    for group, inside in (("many", slice(SMALL, None)), ("few", slice(SMALL)), (kit_tables.ALL, slice(None))):
        losses = {p.treatment.name: [] for p in found}
        for p in found:
            loss = torch.nn.functional.cross_entropy(p.logits, p.labels, reduction="none")
            losses[p.treatment.name].append(loss[inside].mean().item())
        for name, values in losses.items():
            row = of(answered, treatment=name, measure="loss", group=group)
            assert row["estimate"] == pytest.approx(np.mean(values))
            assert row["lower"] < row["estimate"] < row["upper"]
        typical = stats.gmean([p.logits[inside].numpy().var(axis=1) for p in found[::2]], axis=None)
        row = of(answered, treatment="fp32", measure="logit_variance", group=group)
        assert row["estimate"] == pytest.approx(typical)
        row = of(changed, treatment="int4", measure="loss", group=group)
        assert row["estimate"] == pytest.approx(np.mean(losses["int4"]) - np.mean(losses["fp32"]))


def test_halved_logits_leave_a_quarter_of_the_variance_exactly():
    left = tables.variance_left(several(halved))
    assert left[["estimate", "lower", "upper"]].to_numpy() == pytest.approx(0.25)


def test_without_a_treatment_nothing_is_left_to_say():
    with pytest.raises(BadInput, match="No treatment beside fp32 was given"):
        tables.variance_left(made_up(0, halved)[:1])


def test_a_network_of_constant_logits_has_no_variance_left_and_stays_as_it_is():
    found = several(lambda logits, draw: np.ones_like(logits))
    assert tables.variance_left(found)["upper"].max() < 1e-6
    for before, after in zip(found, tables.rescaled(found), strict=True):
        assert torch.equal(before.logits, after.logits)
    assert tables.heated(found)[1].logits.abs().max() < 1e-4


@settings(max_examples=15)
@given(st.floats(0.01, 100), st.floats(0, 3), st.integers(0, 5))
def test_a_temperature_moves_no_answer_and_gives_the_variance_asked_for(factor, noise, seed):
    found = made_up(seed, lambda logits, draw: factor * (logits + noise * draw.normal(size=logits.shape)))
    original, quantized = found

    def typical(logits):
        return stats.gmean(logits.numpy().var(axis=1))

    hot, cold = tables.heated(found)[1], tables.rescaled(found)[1]
    assert typical(hot.logits) == pytest.approx(typical(quantized.logits))
    assert typical(cold.logits) == pytest.approx(typical(original.logits))
    assert torch.equal(hot.logits.argmax(1), original.logits.argmax(1))
    assert torch.equal(cold.logits.argmax(1), quantized.logits.argmax(1))
    assert hot.treatment == cold.treatment == quantized.treatment


def test_a_pure_temperature_is_explained_by_temperature_and_noise_is_not():
    pure = tables.loss_explained(several(halved))
    assert pure["estimate"].to_numpy() == pytest.approx(1)
    rough = tables.loss_explained(
        several(lambda logits, draw: logits / 3 + draw.normal(size=logits.shape, scale=2))
    )
    assert (rough["upper"] < 1).all()


def test_growth_beyond_others_is_welchs_difference_with_one_seed():
    found = made_up(0, noisy)
    row = of(kit_tables.loss_beyond_others(found, "few", level=0.9))
    losses = [torch.nn.functional.cross_entropy(p.logits, p.labels, reduction="none").numpy() for p in found]
    change = losses[1] - losses[0]
    expected = stats.ttest_ind(change[:SMALL], change[SMALL:], equal_var=False).confidence_interval(0.9)
    assert (row["lower"], row["upper"]) == pytest.approx((expected.low, expected.high))
    assert row["n"] == SMALL


def test_growth_beyond_others_holds_the_truth_about_as_often_as_it_says():
    def worse_for_few(logits, draw):
        worse = logits.copy()
        worse[:SMALL] += draw.normal(size=(SMALL, 3))
        return worse + draw.normal(scale=0.3, size=(1, 3))

    truth = np.mean(
        [of(kit_tables.loss_beyond_others(made_up(s, worse_for_few), "few"))["estimate"] for s in range(120)]
    )
    held = 0
    for first in range(0, 120, 3):
        found = [p for seed in range(first, first + 3) for p in made_up(seed, worse_for_few)]
        row = of(kit_tables.loss_beyond_others(found, "few"))
        held += row["lower"] < truth < row["upper"]
    assert held >= 36  # of 40, which are less than 36 with a chance of 5 % at most if 95 % hold


@pytest.mark.parametrize("group", [0, 1])
def test_without_others_nothing_is_compared(group):
    found = made_up(0, noisy, groups=np.full(IMAGES, group))
    assert np.isnan(of(kit_tables.loss_beyond_others(found, "few"))["estimate"])
    assert tables.answers(found).query(f"group == '{GROUPS[1 - group]}'")["estimate"].isna().all()
    assert len(tables.densities(found, "margin")["group"].unique()) == 1


def test_what_statistics_regain_is_a_share_of_the_loss():
    found = several(lambda logits, draw: -logits)
    mended = several(
        lambda logits, draw: np.where(np.arange(IMAGES)[:, None] % 4 < 3, logits, -logits), "int4-bn"
    )
    back = of(tables.regained(found, mended), treatment="int4-bn", measure="loss", group=kit_tables.ALL)
    loss = {}
    for p in [*found, *mended]:
        value = torch.nn.functional.cross_entropy(p.logits, p.labels).item()
        loss[p.treatment.name] = loss.get(p.treatment.name, 0) + value
    whole = loss["int4"] - 2 * loss["fp32"] / 2 / 2
    assert back["estimate"] == pytest.approx((loss["int4"] - loss["int4-bn"]) / whole)
    assert back["lower"] < back["estimate"] < back["upper"]


def test_flips_are_counted_by_nearness_and_add_up():
    def push(logits, draw):
        """The second largest logit gains 1: what is nearer than that flips, and nothing else."""
        pushed = logits.copy()
        second = np.argsort(logits, axis=1)[:, 1]
        pushed[np.arange(IMAGES), second] += 1
        return pushed

    found = several(push)
    table = tables.flips(found, parts=10)
    gaps = np.stack([np.diff(np.sort(p.logits.numpy())[:, 1:])[:, 0] for p in found if p.treatment == FP32])
    every = table[table["group"] == kit_tables.ALL].set_index("part")
    assert every.loc[0, "estimate"] == pytest.approx((gaps < 1).mean())
    assert every.loc[1, "estimate"] == 1
    assert every.loc[10, "estimate"] == 0
    assert every.loc[1, "lower"] < 1
    assert every.loc[10, "upper"] > 0
    assert every.loc[1:, "answers"].tolist() == [3 * IMAGES // 10] * 10
    of_groups = table[(table["part"] > 0) & (table["group"] != kit_tables.ALL)]
    assert of_groups["answers"].sum() == 3 * IMAGES
    flipped = (of_groups["estimate"].fillna(0) * of_groups["answers"]).sum()
    assert flipped == pytest.approx((gaps < 1).sum())


@pytest.mark.parametrize("measure", ["margin", "logit_variance", "confidence"])
def test_densities_hold_every_answer_of_each_group(measure):
    found = several(noisy)
    table = tables.densities(found, measure)
    shares = table.groupby(["treatment", "group"])["density"].sum()
    assert shares.to_numpy() == pytest.approx(1)
    assert set(table["n"]) == {3 * SMALL, 3 * (IMAGES - SMALL)}
    if measure == "margin":
        wrong = 1 - np.mean([p.correct[:SMALL].mean() for p in found if p.treatment == FP32])
        row = table[(table["treatment"] == "fp32") & (table["group"] == "few")].iloc[0]
        assert row["below"] == pytest.approx(wrong)


def test_changes_may_be_against_the_same_treatment_before():
    found = several(noisy)
    changed = kit_tables.answer_changes(tables.rescaled(found), against=found)
    accuracy = of(changed, measure="accuracy", group=kit_tables.ALL)
    assert (accuracy["estimate"], accuracy["treatment"]) == (0, "int4")
    whole = kit_tables.answer_changes(tables.rescaled(found))
    parts = kit_tables.answer_changes(found)
    for measure in ("loss", "confidence"):
        of_all = {"measure": measure, "group": kit_tables.ALL}
        total = of(changed, **of_all)["estimate"] + of(parts, **of_all)["estimate"]
        assert of(whole, **of_all)["estimate"] == pytest.approx(total)


def test_arms_stand_side_by_side_and_a_repair_beside_what_it_repairs():
    found = several(noisy)
    table = tables.arms(quantized=found, original_heated=tables.heated(found))
    accuracy = table[table["measure"] == "accuracy"].set_index(["arm", "treatment"])["estimate"]
    assert accuracy["original heated", "int4"] == accuracy["quantized", "fp32"]
    repaired = [p for p in several(halved, "int4-bn") if p.treatment != FP32]
    beside = tables.repair_arms(found, repaired)
    assert set(beside["treatment"]) == {"fp32", "int4"}
    assert set(beside["arm"]) == {"quantized", "new statistics"}
    mended = of(beside, arm="new statistics", treatment="int4", measure="accuracy")
    assert mended["estimate"] == accuracy["quantized", "fp32"]


# ---------------------------------------------------------------- claims

UP, DOWN, OPEN = (0.2, 0.1, 0.3), (-0.2, -0.3, -0.1), (0.1, -0.1, 0.3)


def shares(**by_treatment: tuple[float, float, float]) -> pd.DataFrame:
    rows = [
        (name, group, 100, *row) for name, row in by_treatment.items() for group in ("few", kit_tables.ALL)
    ]
    return pd.DataFrame(rows, columns=["treatment", "group", "n", "estimate", "lower", "upper"])


def moved(treatment: str, **measures: tuple[float, float, float]) -> pd.DataFrame:
    still = dict.fromkeys(["accuracy", "confidence", "margin", "loss"], (0.0, -0.01, 0.01))
    rows = [
        (treatment, measure, group, 100, *row)
        for measure, row in (still | measures).items()
        for group in ("many", "few", kit_tables.ALL)
    ]
    columns = ["treatment", "measure", "group", "n", "estimate", "lower", "upper"]
    return with_columns(pd.DataFrame(rows, columns=columns))


def in_use(**classes: float) -> pd.DataFrame:
    table = pd.DataFrame({"treatment": classes.keys(), "share": 0.5, "effective_classes": classes.values()})
    return table.assign(standing=(table["effective_classes"] >= 2).astype(float))


LOW, HIGH, EVEN = (0.3, 0.2, 0.4), (1.6, 1.2, 2.0), (0.9, 0.7, 1.1)


@pytest.mark.parametrize(
    ("left", "word"),
    [
        ({"int8": EVEN, "int3": LOW}, "supported"),
        ({"int8": EVEN, "int3": HIGH}, "contradicted"),
        ({"int4": HIGH, "int3": LOW}, "mixed"),
        ({"int8": EVEN}, "bounded"),
        ({"int8": (0.999, 0.998, 0.9995), "int3": (1.002, 1.001, 1.003)}, "no difference"),
    ],
)
def test_variance_falls_when_the_data_say_so(left, word):
    standing = in_use(int8=4.0, int4=4.0, int3=4.0)
    verdict = story.variance_falls(shares(**left), standing, seeds=3)
    assert verdict.word == word
    assert "3 seeds" in verdict.because
    assert "collapsed" not in verdict.because
    assert all(name in verdict.because for name in left)


@pytest.mark.parametrize(
    ("left", "word", "said"),
    [
        ({"int3": (0.05, 0.03, 0.08), "int2": (0.02, 0.01, 0.04)}, "supported", "At int3: supported."),
        ({"int3": (0.5, 0.3, 0.8), "int2": (0.3, 0.2, 0.4)}, "contradicted", "At int2: contradicted."),
        ({"int3": (0.5, 0.3, 0.8), "int2": (0.02, 0.01, 0.04)}, "mixed", "int2 2 % (1 to 4)"),
        ({"int3": (0.5, 0.3, 0.8), "int2": (0.1, 0.05, 0.2)}, "contradicted", "At int2: bounded."),
        ({"int2": (0.1, 0.05, 0.2)}, "bounded", "less than 10 % of the typical variance"),
        ({"int4": (0.02, 0.01, 0.04)}, "undecided", "Neither two nor three bits"),
    ],
)
def test_logits_are_nullified_where_less_than_a_tenth_of_their_variance_is_left(left, word, said):
    verdict = story.logits_are_nullified(shares(**left), seeds=3)
    assert verdict.word == word
    assert said in verdict.because


def test_a_fall_that_only_collapsed_networks_show_is_said_to_be_one():
    left = shares(int8=EVEN, int2=LOW)
    verdict = story.variance_falls(left, in_use(int8=4.0, int2=1.0), seeds=3)
    assert verdict.word == "supported"
    assert "only where the networks have collapsed" in verdict.because


@pytest.mark.parametrize(
    ("left", "word"),
    [
        ({"fp16": (1.0, 0.99, 1.01), "a8": EVEN}, "supported"),
        ({"fp16": LOW, "a8": LOW}, "contradicted"),
        ({"fp16": EVEN, "a4": LOW}, "mixed"),
        ({"fp16": EVEN, "a4": (0.6, 0.4, 0.8)}, "bounded"),
    ],
)
def test_the_break_condition_breaks_when_the_data_say_so(left, word):
    assert story.variance_stands(shares(**left), seeds=3).word == word


@pytest.mark.parametrize(
    ("beyond", "word"),
    [
        ({"int8": OPEN, "int3": UP}, "supported"),
        ({"int8": OPEN, "int3": DOWN}, "contradicted"),
        ({"int4": UP, "int3": DOWN}, "mixed"),
        ({"int3": OPEN}, "bounded"),
    ],
)
def test_loss_falls_on_the_smallest_group_when_the_data_say_so(beyond, word):
    table = shares(**beyond).query("group == 'few'")
    changes = pd.concat([moved(name, loss=UP) for name in beyond])
    verdict = story.loss_falls_on(table, changes, in_use(int8=4.0, int4=4.0, int3=4.0), seeds=3)
    assert verdict.word == word
    assert "few" in verdict.claim
    assert "int3 the loss of many grows most, by +0.200 (+0.100 to +0.300)." in verdict.because


def test_loss_is_not_judged_where_networks_have_collapsed_or_nothing_can_be_compared():
    table = shares(int2=UP).query("group == 'few'")
    verdict = story.loss_falls_on(table, moved("int2", loss=UP), in_use(int2=1.0), seeds=3)
    assert (verdict.word, "collapsed: int2" in verdict.because) == ("undecided", True)
    nothing = shares(int4=(np.nan,) * 3).query("group == 'few'")
    verdict = story.loss_falls_on(nothing, moved("int4", loss=UP), in_use(int4=4.0), seeds=1)
    assert verdict.word == "undecided"
    assert "nan" not in verdict.because


MOST, LITTLE, UNSURE = (0.9, 0.7, 1.1), (0.1, 0.0, 0.2), (0.5, 0.2, 0.8)


@pytest.mark.parametrize(
    ("explained", "change", "word"),
    [
        (MOST, {"loss": UP}, "supported"),
        (LITTLE, {"loss": UP}, "contradicted"),
        (UNSURE, {"loss": UP}, "bounded"),
        (LITTLE, {"loss": OPEN}, "bounded"),
        # That accuracy fell has no say: no temperature can change an answer.
        (MOST, {"loss": UP, "accuracy": DOWN}, "supported"),
        (LITTLE, {"loss": OPEN, "accuracy": DOWN}, "bounded"),
    ],
)
def test_temperature_explains_when_the_data_say_so(explained, change, word):
    verdict = story.temperature_explains(
        shares(int3=explained), moved("int3", **change), in_use(int3=4.0), seeds=3
    )
    assert verdict.word == word
    assert ("could be explained" in verdict.because) == (change["loss"] == OPEN)
    assert "a temperature changes no answer" in verdict.because


def test_collapsed_networks_need_no_explanation():
    lost = moved("int2", loss=UP, accuracy=DOWN)
    verdict = story.temperature_explains(shares(int2=LITTLE), lost, in_use(int2=1.0), seeds=3)
    assert verdict.word == "undecided"
    assert "collapsed: int2" in verdict.because


@pytest.mark.parametrize(
    ("words", "whole"),
    [
        (["supported", "supported"], "supported"),
        (["supported", "contradicted", "bounded"], "mixed"),
        (["mixed", "bounded"], "mixed"),
        (["contradicted", "contradicted"], "contradicted"),
        (["contradicted", "bounded"], "contradicted"),
        (["supported", "bounded", "undecided"], "undecided"),
        (["supported", "no difference", "bounded"], "bounded"),
        (["supported", "no difference"], "no difference"),
        (["undecided"], "undecided"),
    ],
)
def test_a_chain_holds_when_each_link_does(words, whole):
    parts = [wording.Verdict(f"Link {number}.", word, "") for number, word in enumerate(words)]
    verdict = wording.together("All.", parts)
    assert verdict.word == whole
    assert f"Link 0: {words[0]}." in verdict.because


def test_sentences_take_their_direction_from_the_data():
    said = story.towards_the_boundary(moved("int3", confidence=DOWN, loss=UP)).text
    assert "confidence falls, −20.0 (−30.0 to −10.0) points" in said
    assert "margin does not surely change" in said
    assert "loss rises, +0.200 (+0.100 to +0.300) nats" in said


def test_a_factor_mends_loss_or_worsens_it_and_leaves_accuracy():
    lost = moved("int3", loss=UP, accuracy=DOWN)
    same = {"accuracy": (0.0, 0.0, 0.0)}
    better = story.what_a_factor_mends(lost, moved("int3", loss=DOWN, **same)).text
    assert "the loss falls, −0.200 (−0.300 to −0.100) nats" in better
    assert "accuracy stays" in better
    assert "the loss rises" in story.what_a_factor_mends(lost, moved("int3", loss=UP, **same)).text
    assert "nothing is to mend" in story.what_a_factor_mends(moved("int8"), moved("int8")).text


def test_what_statistics_mend_is_a_share_only_where_something_was_lost():
    left = shares(**{"int3": LOW, "int3-bn": EVEN})
    mended = moved("int3-bn", accuracy=(-0.04, -0.06, -0.02))

    def said(share, before):
        changes = pd.concat([moved("int3", accuracy=before), mended])
        return story.what_statistics_mend(moved("int3-bn", accuracy=share), changes, left).text

    much = said((0.8, 0.7, 0.9), DOWN)
    assert "**int3**: 30 % (20 to 40) of the variance is left, with new statistics 90 % (70 to 110)" in much
    assert "by −20.0 (−30.0 to −10.0) points against full precision" in much
    assert "new statistics by −4.0 (−6.0 to −2.0). Of what was lost 80 % (70 to 90) returns." in much
    assert "No part of it surely returns" in said((0.1, -0.5, 0.7), DOWN)
    assert "return" not in said((0.8, 0.7, 0.9), OPEN)


def test_who_flips_says_near_only_when_it_is_sure():
    def push(logits, draw):
        return logits + draw.normal(scale=0.3, size=logits.shape)

    near = story.who_flips(tables.flips(several(push)), smallest="few").text
    assert "more often near the boundary" in near
    assert "not surely" not in near
    anywhere = story.who_flips(
        tables.flips(several(lambda logits, draw: draw.permutation(logits))), smallest="few"
    ).text
    assert "not surely more often near the boundary" in anywhere
    # Two groups, each flipped alike everywhere, of which the one that flips lies near the boundary.
    shares = {
        (1, "few"): 0.9,
        (1, kit_tables.ALL): 0.9,
        (10, "many"): 0.1,
        (10, kit_tables.ALL): 0.1,
        (1, "many"): 0.1,
    }
    shares |= {(10, "few"): 0.9} | {(0, name): 0.5 for name in ("few", "many", kit_tables.ALL)}
    rows = [
        {"treatment": "int2", "part": part, "group": name, "answers": 50, "n": 50, "estimate": share}
        | {"lower": share - 0.02, "upper": share + 0.02}
        for (part, name), share in shares.items()
    ]
    mixed = story.who_flips(pd.DataFrame(rows), smallest="few").text
    assert "more often near the boundary, but within only 0 of 2 groups so" in mixed


def test_one_seed_says_so_and_endless_intervals_are_not_spelt_out():
    left = shares(int3=(0.5, 1e-9, 1e20))
    verdict = story.variance_falls(left, in_use(int3=4.0), seeds=1)
    assert "1 seed (what others would do is unknown)" in verdict.because
    assert "int3 50 % (0 to over 1000)" in verdict.because


# ---------------------------------------------------------------- figures

DRAWINGS = {
    "measures": lambda: figures.measures_by_treatment(tables.answers(several(noisy))),
    "arms": lambda: figures.measures_by_treatment(
        tables.arms(one=several(noisy), two=several(halved)), by="arm"
    ),
    "a group without images": lambda: figures.measures_by_treatment(
        tables.answers(made_up(0, noisy, groups=np.ones(IMAGES, dtype=int)))
    ),
    "variance left": lambda: figures.variance_left(tables.variance_left(several(noisy))),
    "ridges of margin": lambda: figures.ridges(tables.densities(several(noisy), "margin")),
    "ridges of variance": lambda: figures.ridges(tables.densities(several(noisy), "logit_variance")),
    "flips": lambda: figures.flips_by_nearness(tables.flips(several(noisy))),
}


@pytest.mark.parametrize("draw", DRAWINGS.values(), ids=DRAWINGS.keys())
def test_a_drawing_is_sound_and_says_its_numbers(draw):
    picture = draw()
    assert ET.fromstring(picture.body).get("aria-label") == picture.alt
    assert kit_figures.INK not in picture.body
    assert any(character.isdigit() for character in picture.alt)
    assert "nan" not in picture.alt
    assert picture.caption


def test_what_a_screen_reader_hears_are_the_numbers_of_the_tables():
    found = several(halved)
    assert "all: int4 25." in figures.variance_left(tables.variance_left(found)).alt
    wrong = 100 * (1 - np.mean([p.correct[:SMALL].mean() for p in found if p.treatment == FP32]))
    heard = figures.ridges(tables.densities(found, "margin")).alt
    assert f"few: fp32 {wrong:.0f} %, int4 {wrong:.0f} %." in heard
    loss = -np.mean(
        [
            special.log_softmax(p.logits.numpy(), axis=1)[np.arange(IMAGES), p.labels.numpy()].mean()
            for p in found
            if p.treatment != FP32
        ]
    )
    assert (
        f"int4 {loss:.2f}" in figures.measures_by_treatment(tables.answers(found)).alt.split("loss, nats.")[1]
    )


@pytest.mark.parametrize("estimate", [1e-12, 0.5, 40.0])
def test_endless_intervals_leave_marks_and_their_names_readable(estimate):
    picture = figures.variance_left(shares(int3=(1.0, 0.9, 1.1), int2=(estimate, 1e-15, 1e28)))
    texts = [t.text.strip() for t in ET.fromstring(picture.body).iter("{http://www.w3.org/2000/svg}text")]
    numbers = [float(text) for text in texts if text.replace(".", "").isdigit()]
    assert 2 <= len(numbers) <= 12
    assert min(numbers) >= 0.01
    assert max(numbers) <= 100_000


def test_variance_that_stands_is_drawn_on_a_plain_scale_with_more_than_two_numbers():
    picture = figures.variance_left(shares(a8=(1.0, 0.99, 1.01), a4=(1.05, 0.9, 9.0)))
    texts = [t.text.strip() for t in ET.fromstring(picture.body).iter("{http://www.w3.org/2000/svg}text")]
    assert sum(text.replace(".", "").isdigit() for text in texts) >= 4
    assert "logarithmic" not in picture.caption
    assert "Those that reach the edge of a panel go on beyond it." in picture.caption
    assert "logarithmic" in figures.variance_left(shares(int2=LOW, int3=(1.9, 1.0, 3.0))).caption


def test_a_group_without_images_is_named_and_the_others_keep_their_colour():
    picture = DRAWINGS["a group without images"]()
    assert "Not drawn, for want of test images: many." in picture.caption
    assert kit_figures.PALETTE[1] in picture.body
    assert kit_figures.PALETTE[0] not in picture.body
