"""Tables, figures and verdicts of the chapter on the landscape, where the right answer is known."""

import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from fairq_audit.formats import signed
from fairq_book.chapters.landscape import figures, story, tables
from fairq_book.experiments.studies import Landscape, Prediction, Spectrum, Study
from fairq_book.kit import figures as kit_figures
from fairq_book.kit import tables as kit_tables
from fairq_book.kit.tables import Ends
from fairq_utils.curvature.spectrum import SpectralDensity
from fairq_utils.intervals import ratio_of_means
from fairq_utils.items import Item
from fairq_utils.treatments.treatment import FP32, Treatment

GROUPS = ("many", "some", "few")
ENDS = Ends("many", "few", 100, 10)
STANDING = {"fp32": 3.0, "int4": 3.0, "int3": 3.0, "int4-qat": 3.0}
INT4, QAT = Treatment(4), Treatment.parse("int4-qat")


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def collapse(**classes: float) -> pd.DataFrame:
    in_use = STANDING | classes
    table = pd.DataFrame({"treatment": in_use.keys(), "share": 0.5, "effective_classes": in_use.values()})
    return table.assign(standing=(table["effective_classes"] >= 2).astype(float))


def landscape(seed: int, treatment: Treatment, *, times: float = 1.0, converged: float = 1.0) -> Landscape:
    """Eigenvalues of 10, 20 and 40 and gradient norms of 1, 2 and 4, all times the same."""
    around = {
        "group": column(0, 1, 2),
        "loss": column(0.1, 0.2, 0.4) * times,
        "gradient_norm": column(1, 2, 4) * times,
        "squared_gradient_norm": column(0.5, 3, 15) * times**2,
        "eigenvalue": column(10, 20, 40) * times,
        "residual": column(0.5, 0.5, 0.5),
        "iterations": column(3, 4, 5),
        "converged": column(1, 1, converged),
    }
    change = parts = None
    named = {"parts": ["front", "middle", "back"]}
    if treatment == INT4:
        change = Item(
            {
                "group": column(0, 1, 2),
                "slope": column(0.1, 0.2, 0.3),
                "bend": column(0.0, 0.1, 0.2),
                "distance": column(2.0)[0],
                "extremes": torch.tensor([0, 2]),
                "steps": column(0.0, 0.5, 1.0),
                "slices": torch.stack([column(0.1, 0.15, 0.2), column(0.4, 0.5, 0.8)]) * times,
                "part_distance": column(1, 2, 3),
                "part_excess": torch.stack([column(0.1, 0.2, 0.3), column(0.3, 0.2, 0.1)]),
            },
            named,
        )
    if treatment == FP32:
        parts = Item(
            {
                "group": column(0, 0, 0, 2, 2, 2),
                "part": column(0, 1, 2, 0, 1, 2),
                "gradient_norm": column(1, 1, 1, 1, 1, 1),
                "eigenvalue": column(2, 2, 2, 2, 2, 2),
                "converged": column(1, 1, 1, 1, 1, converged),
            },
            named,
        )
    return Landscape(Study(seed=seed), treatment, GROUPS, Item(around, {"n": 7}), change, parts)


def landscapes(*, rounding: float = 2.0, training: float = 1.0) -> list[Landscape]:
    return [
        landscape(seed, treatment, times=times * (1 + 0.01 * seed))
        for seed in range(3)
        for treatment, times in ((FP32, 1.0), (INT4, rounding), (QAT, training))
    ]


def predictions() -> list[Prediction]:
    """Each network is sure of class 0 by its treatment's margin; the group `some` has no test image."""
    labels = torch.tensor([0, 0, 1, 1])
    groups = torch.tensor([0, 0, 2, 2])
    return [
        Prediction(
            Study(seed=seed),
            treatment,
            torch.tensor([[margin, 0.0]] * 4),
            labels,
            groups,
            ("no", "yes"),
            GROUPS,
        )
        for seed in range(3)
        for treatment, margin in ((FP32, 1.0), (INT4, 2.0), (QAT, 1.0))
    ]


# ---------------------------------------------------------------- tables


def test_ratios_are_paired_by_seed_and_exact_where_every_seed_agrees():
    table = kit_tables.landscape(landscapes())
    assert list(table["n"].unique()) == [7]
    ratios = tables.minorities_to_majority(table, ENDS)
    # Of three pairs two measures: at fp32, at int4, and from one to the other; none of what trained further.
    assert len(ratios) == 3 * 2 * 3
    levels = ratios[ratios["of"] == "level"].groupby("who")[["estimate", "lower", "upper"]]
    steep = table.query("seed == 0 and treatment == 'fp32'").set_index("group")["gradient_norm"]
    others = {
        tables.MINORITIES: math.sqrt(steep["some"] * steep["few"]) / steep["many"],
        "few": steep["few"] / steep["many"],
        tables.SMALLEST_TO_OTHERS: steep["few"] / steep["some"],
    }
    assert others["few"] == 4
    for who, own in levels:
        np.testing.assert_allclose(own, others[who])
    np.testing.assert_allclose(ratios[ratios["of"] == "rise"]["estimate"], 1.0)
    changes = tables.to_full_precision(table).set_index(["treatment", "group", "measure"])["estimate"]
    np.testing.assert_allclose(changes["int4"], 2.0)
    assert "int4-qat" not in changes
    np.testing.assert_allclose(kit_tables.to_rounded(table)["estimate"], 0.5)


def test_intervals_are_students_of_the_logarithms():
    around = kit_tables.around(kit_tables.landscape(landscapes()))
    (row,) = around.query("treatment == 'fp32' and group == 'few' and measure == 'eigenvalue'").to_dict(
        "records"
    )
    logs = np.log([40.0, 40.4, 40.8])
    reach = stats.t.ppf(0.975, 2) * logs.std(ddof=1) / math.sqrt(3)
    assert row["estimate"] == pytest.approx(stats.gmean([40.0, 40.4, 40.8]))
    assert row["upper"] == pytest.approx(math.exp(logs.mean() + reach))


def test_squared_norms_are_averaged_as_they_are_and_keep_their_sign():
    table = kit_tables.landscape(landscapes())
    table.loc[(table["seed"] == 1) & (table["group"] == "many"), "squared_gradient_norm"] = -0.25
    means = tables.steepness(table).set_index(["treatment", "measure", "group"])
    measured = means.loc["fp32", "as measured", "few"]
    squares = 16 * np.array([1.0, 1.01, 1.02]) ** 2
    reach = stats.t.ppf(0.975, 2) * stats.sem(squares)
    assert measured["estimate"] == pytest.approx(squares.mean())
    assert measured["upper"] == pytest.approx(squares.mean() + reach)
    less = np.array([0.5, -0.25, 0.5 * 1.02**2])
    assert means.loc[("fp32", "less sampling", "many"), "estimate"] == pytest.approx(less.mean())
    ratios = tables.steepness_ratios(table, ENDS).set_index(["treatment", "measure", "who"])
    assert "int4-qat" not in ratios.index.levels[0]
    own = ratios.loc["fp32", "less sampling", "minorities"]
    others = np.array([9.0, 9.0 * 1.01**2, 9.0 * 1.02**2])
    expected = ratio_of_means(others, less)
    assert (own["estimate"], own["lower"], own["upper"]) == pytest.approx(expected)
    assert own["lower"] == -np.inf  # the majority's may be zero
    few = ratios.loc["fp32", "as measured", "few"]
    np.testing.assert_allclose(few[["estimate", "lower", "upper"]].astype(float), 16)
    assert own[["n", "left_out"]].tolist() == [3, 0]
    table.loc[(table["seed"] == 2) & (table["group"] == "some"), "squared_gradient_norm"] = np.nan
    of_two = tables.steepness_ratios(table, ENDS).set_index(["treatment", "measure", "who"])
    assert of_two.loc["fp32", "less sampling", "few"][["n", "left_out"]].tolist() == [2, 1]


def test_what_is_sampling_is_said_beside_how_steep_minorities_are_without_it():
    table = kit_tables.landscape(landscapes())
    means, ratios = tables.steepness(table), tables.steepness_ratios(table, ENDS)
    said = str(story.less_sampling(means, ratios, ENDS, collapse()))
    assert (
        "- **fp32**: sampling is 50 % of the squared gradient norm of many, and 6 to 25 % of that of the "
        "other groups. Less it, the minorities' is 18.00 (18.00 to 18.00) times that of many; as measured, "
        "10.00 (10.00 to 10.00) times."
    ) in said
    equal = str(story.less_sampling(means, ratios, Ends("many", "few", 50, 50), collapse()))
    assert "of that of the other groups.\n" in equal
    assert "minorities" not in equal
    fallen = str(story.less_sampling(means, ratios, ENDS, collapse(int4=1.0)))
    assert "int4**" not in fallen
    assert "Set apart, because the networks have collapsed: int4." in fallen
    unknown = story.less_sampling(means, ratios.assign(lower=-np.inf, upper=np.inf), ENDS, collapse())
    assert "Less it, the minorities' is 18.00 (no bounds) times that of many" in str(unknown)


def test_a_gradient_that_grows_with_the_loss_is_said_to():
    ranks = tables.with_loss(kit_tables.landscape(landscapes()))
    assert (ranks["estimate"] == 1).all()
    assert "**fp32**, over 3 groups: gradient norm +1.00 (+1.00 to +1.00); top eigenvalue +1.00" in str(
        story.steep_where_hard(ranks)
    )
    assert "surely positive for gradient norm and top eigenvalue" in str(story.steep_where_hard(ranks))
    assert "surely" not in str(story.steep_where_hard(ranks.assign(lower=-0.1)))
    assert "surely" not in str(story.steep_where_hard(ranks.assign(groups=2)))


def test_what_was_not_reached_is_left_out_and_counted():
    some = [*landscapes()[3:], landscape(0, FP32, converged=0.0), landscape(0, INT4), landscape(0, QAT)]
    ratios = tables.minorities_to_majority(kit_tables.landscape(some), ENDS)
    # Where one minority was not reached, the mean of the others would be that of other groups.
    for of in ("level", "rise"):
        rows = ratios.query(f"measure == 'eigenvalue' and of == '{of}' and who in ['minorities', 'few']")
        at = rows[rows["treatment"] == ("fp32" if of == "level" else "int4")]
        assert at[["n", "left_out"]].to_numpy().tolist() == [[2, 1]] * 2
    bounds = tables.bounds(some, predictions())
    assert bounds.query("seed == 0 and group == 'few'")["bound"].isna().all()
    assert bounds["bound"].notna().sum() == 8
    assert tables.part_bounds(some)["bound"].isna().sum() == 1


def test_one_seed_has_an_estimate_and_no_interval():
    ratios = tables.minorities_to_majority(kit_tables.landscape(landscapes()[:3]), ENDS)
    assert ratios["estimate"].notna().all()
    assert ratios[["lower", "upper"]].isna().all(axis=None)


def test_bounds_add_up_and_stand_beside_what_the_change_did_cost():
    bounds = tables.bounds(landscapes(), predictions())
    row = bounds.query("seed == 0 and group == 'few'").iloc[0]
    assert row["bound"] == pytest.approx(4 * 2 + 40 * 2**2 / 2)
    assert row["parabola"] == pytest.approx(0.5)
    assert row["excess"] == pytest.approx(0.4)
    loss = torch.nn.functional.cross_entropy
    logits, label = torch.tensor([[1.0, 0.0], [2.0, 0.0]]), torch.tensor([1])
    expected = loss(logits[1:], label) - loss(logits[:1], label)
    assert row["excess_test"] == pytest.approx(expected.item())
    assert bounds.query("group == 'some'")["excess_test"].isna().all()


def test_rank_correlations_agree_with_scipy():
    random = np.random.default_rng(0)
    rows = [("int4", seed, f"g{g}") for seed in range(4) for g in range(6)]
    bounds = pd.DataFrame(rows, columns=["treatment", "seed", "group"])
    for name in ("bound", "parabola", "excess", "excess_test"):
        bounds[name] = random.random(len(bounds))
    ranks = tables.rank_correlations(bounds).set_index(["forecast", "outcome"])
    single = [stats.spearmanr(own["bound"], own["excess"]).statistic for _, own in bounds.groupby("seed")]
    own = ranks.loc[("bound", "excess")]
    interval = stats.t.interval(0.95, 3, np.mean(single), stats.sem(single))
    np.testing.assert_allclose([own["estimate"], own["lower"], own["upper"]], [np.mean(single), *interval])
    assert own["groups"] == 6


def test_the_intervals_of_ranks_hold_together_over_the_widths():
    random = np.random.default_rng(0)
    rows = [(name, seed, f"g{g}") for name in ("int8", "int4", "int3") for seed in range(5) for g in range(5)]
    bounds = pd.DataFrame(rows, columns=["treatment", "seed", "group"])
    for name in ("bound", "parabola", "excess", "excess_test"):
        bounds[name] = random.random(len(bounds))
    three = tables.rank_correlations(bounds)
    alone = tables.rank_correlations(bounds[bounds["treatment"] == "int4"])
    wide, narrow = (
        own.query("treatment == 'int4' and forecast == 'bound' and outcome == 'excess'").iloc[0]
        for own in (three, alone)
    )
    longer = stats.t.ppf(1 - 0.05 / 6, 4) / stats.t.ppf(1 - 0.05 / 2, 4)
    assert wide["upper"] - wide["lower"] == pytest.approx(longer * (narrow["upper"] - narrow["lower"]))


def test_parts_are_ranked_for_each_group():
    ranks = tables.part_rank_correlations(tables.part_bounds(landscapes()))
    assert ranks.set_index("group")["estimate"].to_dict() == pytest.approx({"many": 1.0, "few": -1.0})


# ---------------------------------------------------------------- figures

SPECTRA = [
    Spectrum(Study(), FP32, group, SpectralDensity(column(-1.0, 0.0, top), column(1e-6, 0.999, 1e-5)))
    for group, top in (("many", 20.0), ("few", 50.0))
]
DRAWINGS = {
    "around": lambda: kit_figures.around_by_treatment(
        kit_tables.around(kit_tables.landscape(landscapes())), GROUPS
    ),
    "one seed": lambda: kit_figures.around_by_treatment(
        kit_tables.around(kit_tables.landscape(landscapes()[:3])), GROUPS
    ),
    "steepness": lambda: figures.steepness(tables.steepness(kit_tables.landscape(landscapes())), GROUPS),
    "steepness of one seed, below zero": lambda: figures.steepness(
        tables.steepness(
            kit_tables.landscape(landscapes()[:3]).assign(squared_gradient_norm=[-2.0, 0.0, math.nan] * 3)
        ),
        GROUPS,
    ),
    "spectra": lambda: figures.spectra(tables.spectra(SPECTRA), GROUPS),
    "slices": lambda: figures.slices(tables.slices(landscapes()), GROUPS),
    "bounds": lambda: figures.bound_against_excess(tables.bounds(landscapes(), predictions()), GROUPS),
    "parts": lambda: figures.bound_by_part(tables.part_bounds(landscapes()), GROUPS),
}


@cache
def picture(name: str) -> kit_figures.Picture:
    return DRAWINGS[name]()


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_drawing_is_sound_and_speaks(name):
    body, alt = picture(name).body, picture(name).alt
    assert ET.fromstring(body).get("aria-label") == alt
    assert kit_figures.INK not in body
    defined = re.findall(r' id="([^"]+)"', body)
    assert len(set(defined)) == len(defined)
    assert "nan" not in alt


def test_what_a_screen_reader_hears_are_the_numbers():
    assert "few: fp32 4.0, int4 8.1, int4-qat 4.0" in picture("around").alt
    assert "less sampling. many: fp32 0.5, int4 2.0, int4-qat 0.5." in picture("steepness").alt
    assert "many: fp32 -2.0" in picture("steepness of one seed, below zero").alt
    assert "fp32, few: from -1.0 to 50.0" in picture("spectra").alt
    assert "int4, few: 0.81 at fp32, 1.62 at int4" in picture("slices").alt
    assert "bound from 22 to 90" in picture("bounds").alt
    assert "few, excess: front 0.30, middle 0.20, back 0.10" in picture("parts").alt


def test_a_group_looks_alike_in_every_figure():
    for name in ("around", "steepness", "spectra", "slices", "bounds", "parts"):
        body = picture(name).body
        assert kit_figures.PALETTE[0] in body
        assert kit_figures.PALETTE[2] in body
        assert (kit_figures.PALETTE[1] in body) == (name in ("around", "steepness", "bounds"))


# ---------------------------------------------------------------- verdicts

MORE, LESS, UNSURE = (1.5, 1.2, 1.9), (0.7, 0.6, 0.8), (1.1, 0.8, 1.5)
CASES = [
    ({"fp32": MORE, "int4": UNSURE}, "supported"),
    ({"fp32": LESS, "int4": UNSURE}, "contradicted"),
    ({"fp32": MORE, "int4": LESS}, "mixed"),
    ({"fp32": UNSURE, "int4": UNSURE}, "bounded"),
]


def ratios(intervals: dict[str, tuple[float, float, float]], **others: object) -> pd.DataFrame:
    rows = [
        {"treatment": name, "n": 3, "left_out": 0}
        | dict(zip(("estimate", "lower", "upper"), interval, strict=True))
        for name, interval in intervals.items()
    ]
    return pd.DataFrame(rows).assign(**others)


def to_majority(of: str, measure: str, **who: dict[str, tuple[float, float, float]]) -> pd.DataFrame:
    return pd.concat([ratios(own, who=name, of=of, measure=measure) for name, own in who.items()])


@pytest.mark.parametrize(
    ("intervals", "word"),
    [
        ({"int8": LESS, "int4": MORE, "int3": LESS}, "supported"),
        ({"int8": MORE, "int4": LESS, "int3": MORE}, "contradicted"),
        ({"int8": MORE, "int4": UNSURE, "int3": MORE}, "bounded"),
        # Where nobody asked for four bits, the narrowest decides.
        ({"int8": LESS, "int3": MORE}, "supported"),
    ],
)
@pytest.mark.parametrize("measure", ["gradient_norm", "eigenvalue", "rise"])
def test_minorities_decide_at_four_bits_and_all_else_stands_beside(intervals, word, measure):
    of, name = ("rise", "eigenvalue") if measure == "rise" else ("level", measure)
    opposite = dict.fromkeys(intervals, LESS if word == "supported" else MORE)
    table = to_majority(of, name, minorities=intervals, few=opposite)
    # Neither the other measure has a say, nor the level where the rise is asked for.
    other = "level" if of == "rise" else "rise"
    table = pd.concat([table, to_majority(other, name, minorities=opposite)])
    table = pd.concat([table, to_majority(of, "another", minorities=opposite)])
    verdict = (
        story.sharpened_for_minorities(table, ENDS, collapse(), seeds=3)
        if of == "rise"
        else story.larger_for_minorities(table, name, ENDS, collapse(), seeds=3)
    )
    assert verdict.word == word
    assert f"at {'int4' if 'int4' in intervals else 'int3'}, paired over 3 seeds" in verdict.because
    assert "of few alone at int3" in verdict.because
    assert "int8" in verdict.because


def test_without_a_minority_or_a_second_seed_nothing_is_decided():
    equal = Ends("many", "few", 50, 50)
    table = to_majority("level", "eigenvalue", minorities={"fp32": MORE, "int4": MORE})
    verdict = story.larger_for_minorities(table, "eigenvalue", equal, collapse(), seeds=3)
    assert verdict.word == "undecided"
    assert "no minority" in verdict.because
    alone = to_majority("level", "eigenvalue", minorities={"int4": (2.0, math.nan, math.nan)})
    verdict = story.larger_for_minorities(alone, "eigenvalue", ENDS, collapse(), seeds=1)
    assert verdict.word == "undecided"
    assert "Of one seed there is no interval" in verdict.because
    assert "nan" not in verdict.because


def test_the_collapsed_are_set_apart_and_what_was_left_out_is_counted():
    table = to_majority("level", "eigenvalue", minorities={"int4": MORE, "int3": UNSURE}).assign(left_out=1)
    verdict = story.larger_for_minorities(table, "eigenvalue", ENDS, collapse(int4=1.0), seeds=3)
    assert verdict.word == "bounded"  # what is left is int3
    assert "collapsed: int4" in verdict.because
    assert "Left out, as not reached or not above 0: 1 value." in verdict.because
    none = story.larger_for_minorities(table, "eigenvalue", ENDS, collapse(int4=1.0, int3=1.0), seeds=3)
    assert none.word == "undecided"
    assert "no width to judge it at" in none.because


@pytest.mark.parametrize(("intervals", "word"), CASES)
def test_the_word_on_sharpening_is_that_of_all_groups(intervals, word):
    intervals = {"int4" if name == "fp32" else "int3": interval for name, interval in intervals.items()}
    every = ratios(intervals, measure="eigenvalue", group="all")
    few = ratios({"int4": LESS, "int3": MORE}, measure="eigenvalue", group="few")
    verdict = story.sharpens(pd.concat([every, few]), ENDS, collapse(), seeds=3)
    assert verdict.word == word
    assert "For few alone: int4 0.70 (0.60 to 0.80); int3 1.50 (1.20 to 1.90)." in verdict.because


@pytest.mark.parametrize(
    ("interval", "word"), [(LESS, "supported"), (MORE, "contradicted"), (UNSURE, "bounded")]
)
def test_training_flattens_where_the_ratio_is_below_one(interval, word):
    table = ratios({"int4-qat": interval}, reference="int4", measure="eigenvalue", group="all")
    verdict = story.training_flattens(table, collapse(), seeds=3)
    assert verdict.word == word
    fallen = story.training_flattens(table, collapse(int4=1.0), seeds=3)
    assert fallen.word == "undecided"
    assert fallen.because.count("Set apart") == 1
    nothing = story.training_flattens(
        kit_tables.to_rounded(kit_tables.landscape([landscape(0, FP32)])), collapse(), seeds=1
    )
    assert nothing.word == "undecided"


def bounds_of(excess: list[float], *, seeds: int = 3, treatments: Sequence[str] = ("int4",)) -> pd.DataFrame:
    """Forecasts that rise from group to group, and what it cost each group in the mean over networks."""
    rng = np.random.default_rng(0)
    rows = [
        (treatment, seed, f"g{group}", 1.0 + group, rng.normal(), cost + 0.01 * rng.normal(), cost)
        for treatment in treatments
        for seed in range(seeds)
        for group, cost in enumerate(excess)
    ]
    names = ["treatment", "seed", "group", "bound", "parabola", "excess", "excess_test"]
    return pd.DataFrame(rows, columns=names)


@pytest.mark.parametrize(
    ("excess", "word"),
    [
        ([0.1, 0.2, 0.3, 0.4, 0.5], "supported"),
        ([0.5, 0.4, 0.3, 0.2, 0.1], "contradicted"),
        ([0.1, 0.2, 0.3, 0.5, 0.4], "undecided"),  # one pair swapped: as like by chance in 10 of 120 orders
        ([0.3, 0.1, 0.5, 0.2, 0.4], "undecided"),
    ],
)
@pytest.mark.parametrize("seeds", [3, 30])
def test_the_word_on_the_bound_is_that_of_its_groups_in_however_many_networks(excess, word, seeds):
    bounds = bounds_of(excess, seeds=seeds, treatments=["int4", "int3"])
    verdict = story.bound_tells_who_is_hurt(bounds, collapse(), seeds=seeds)
    assert verdict.word == word
    rho, p = stats.spearmanr(range(5), excess).statistic, "p = 0.0" if word != "undecided" else "p = 0."
    assert f"rank correlation {signed(rho, 2)}, {p}" in verdict.because
    assert "5 groups are as many data" in verdict.because


@pytest.mark.parametrize(
    ("gaps", "word"),
    [
        ([0.1, 0.2, 0.3, 0.4, 0.5], "supported"),
        ([0.5, 0.4, 0.3, 0.2, 0.1], "contradicted"),
        ([0.3, 0.1, 0.5, 0.2, 0.4], "undecided"),
    ],
)
def test_whether_sharper_groups_generalize_worse_is_told_by_their_order(gaps, word):
    rng = np.random.default_rng(0)
    groups = [f"g{place}" for place in range(5)]
    rows = [
        ("fp32", seed, name, 10.0 * (place + 1) * np.exp(0.1 * rng.normal()), True, gap + 0.01 * rng.normal())
        for seed in range(8)
        for place, (name, gap) in enumerate(zip(groups, gaps, strict=True))
    ]
    both = pd.DataFrame(rows, columns=["treatment", "seed", "group", "eigenvalue", "converged", "gap"])
    both.loc[0, ["eigenvalue", "converged"]] = [1e9, False]  # one that was not reached says nothing
    verdict = story.sharper_generalize_worse(both, both, seeds=8)
    assert verdict.word == word
    few = both[both["group"].isin(groups[:2])]
    assert story.sharper_generalize_worse(few, few, seeds=8).word == "undecided"


def test_the_gap_is_what_was_learned_less_what_was_not():
    labels, groups = torch.tensor([0, 1, 0, 1]), torch.tensor([0, 0, 1, 1])

    def answers(split: str, given: list[int]) -> Prediction:
        logits = torch.nn.functional.one_hot(torch.tensor(given), 2).float()
        return Prediction(Study(seed=3), FP32, logits, labels, groups, ("x", "y"), ("a", "b"), split=split)

    found = tables.generalization([answers("train", [0, 1, 0, 1])], [answers("test", [0, 0, 0, 1])])
    assert found[["group", "train", "test", "gap"]].to_numpy().tolist() == [
        ["a", 1, 0.5, 0.5],
        ["b", 1, 1, 0],
    ]


def test_two_groups_cannot_be_ranked():
    verdict = story.bound_tells_who_is_hurt(bounds_of([0.1, 0.2]), collapse(), seeds=3)
    assert verdict.word == "undecided"
    assert "A ranking of 2 groups says nothing" in verdict.because


# ---------------------------------------------------------------- sentences


def test_sentences_hold_the_numbers_of_the_tables():
    table = kit_tables.landscape(landscapes())
    assert "**many** has the most training images, 100, and **few** the fewest, 10" in str(
        story.who_is_compared(ENDS, table, "train")
    )
    assert "measured on 7 training images of each group. That is few" in str(
        story.who_is_compared(ENDS, table, "train")
    )
    folds = table.assign(n=[40] * 9 + [43] * 18)
    assert "measured on 40 to 43 training images of each group." in str(
        story.who_is_compared(ENDS, folds, "train")
    )
    equal = story.who_is_compared(Ends("many", "few", 50, 50), table.assign(n=64), "test")
    assert str(equal).endswith("measured on 64 test images of each group.")
    assert "no group is a minority" in str(equal)
    said = str(story.eigenvalues_reached(table))
    assert (
        "- **fp32**: 9 of 9 eigenvalues reached by at most 5 products, each within 5.0 % of its value."
        in said
    )
    missed = str(story.eigenvalues_reached(kit_tables.landscape([landscape(0, FP32, converged=0.0)])))
    assert "fp32 few seed 0 (residual 0.5 of 40)" in missed
    bounds = tables.bounds(landscapes(), predictions())
    said = str(story.how_tight(bounds, tables.rank_correlations(bounds)))
    assert "the largest excess loss is +0.41, and no excess loss is above it" in said
    assert "nan" not in said
    gained = str(story.how_tight(bounds.assign(excess=[0.1] + [-0.5] * 8), tables.rank_correlations(bounds)))
    assert "the largest excess loss is +0.1 (and the largest gain 0.5), and" in gained
    assert "and it is broken 1 time. The parabola" in str(
        story.how_tight(bounds.assign(excess=[99.0] + [0.0] * 8), tables.rank_correlations(bounds))
    )
    assert "for many from 0.20 to 0.40 and for few from 0.81 to 1.62" in str(
        story.along_the_way(tables.slices(landscapes()))
    )
    assert "**fp32, few**: the largest is 50, the next one found 0.00; the lowest is −1.00" in str(
        story.how_far_out(tables.spectra(SPECTRA))
    )


def test_the_dearest_part_is_named_beside_the_one_of_the_largest_bound():
    parts = tables.part_bounds(landscapes())
    said = str(story.where_it_costs(parts, tables.part_rank_correlations(parts)))
    assert (
        "**int4, many**: rounding back alone costs most, +0.300 nats; where the bound is largest too" in said
    )
    assert "**int4, few**: rounding front alone costs most, +0.300 nats; the bound is largest in back" in said
