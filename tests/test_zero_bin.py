from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch import nn

from fairq_book.chapters.zero_bin import figures, story, tables
from fairq_book.experiments.studies import Prediction, Study
from fairq_book.kit import tables as kit_tables
from fairq_book.kit import wording
from fairq_utils.errors import BadInput
from fairq_utils.metrics import groups
from fairq_utils.treatments.ablations import Ablation
from fairq_utils.treatments.treatment import FP32, Treatment

INT3 = Treatment(3)
ZEROS, NORM = Ablation(INT3, "zeros"), Ablation(INT3, "norm")
REST = Treatment.parse("int3-nonzeros")
GROUPS = torch.tensor([0] * 60 + [1] * 40 + [2] * 30)
NAMES = ("many", "some", "few", "none")  # nobody is in the last one


def predictions(losses: dict, *, seeds: int = 3, noise: float = 0.1) -> list[Prediction]:
    """Networks whose mean loss of each group is so much above that of the original, give or take noise."""
    random = np.random.default_rng(0)
    found = []
    for treatment, added in losses.items():
        for seed in range(seeds):
            loss = 0.7 + np.array(added)[GROUPS] + random.normal(0, noise, len(GROUPS))
            # Two classes, of which 0 is right: its cross entropy is ln(1 + exp(-margin)).
            margin = -np.log(np.expm1(np.clip(loss, 0.05, None)))
            logits = torch.tensor(np.stack([margin, np.zeros_like(margin)], axis=1))
            labels = torch.zeros(len(GROUPS), dtype=torch.long)
            found.append(Prediction(Study(seed=seed), treatment, logits, labels, GROUPS, ("x", "y"), NAMES))
    return found


@pytest.fixture(scope="module")
def networks() -> list[nn.Module]:
    torch.manual_seed(0)
    return [nn.Sequential(nn.Conv2d(8, 64, 3), nn.Flatten(), nn.Linear(64, 100)) for _ in range(2)]


@pytest.fixture(scope="module")
def gaussian(networks) -> pd.DataFrame:
    for network in networks:
        for weight in network.parameters():
            nn.init.normal_(weight, std=0.3)
    widths = [FP32, *(Treatment(bits) for bits in (8, 4, 3, 2))]
    return tables.zero_bins([Study(seed=0), Study(seed=1)], networks, widths)


def test_the_zero_bin_of_gaussian_weights_is_as_full_as_theory_says(gaussian, networks):
    assert len(gaussian) == 2 * 2 * 4
    assert set(gaussian["layer"]) == {"0", "2"}
    # 4608 and 6400 weights: three standard errors of a share are at most 2.3 points.
    assert (gaussian["zero_share"] - gaussian["gaussian"]).abs().max() < 0.023
    row = gaussian[(gaussian["treatment"] == "int3") & (gaussian["layer"] == "2")].iloc[0]
    weight = networks[0][2].weight.detach().double()
    step = weight.abs().max() / 3
    small = weight.abs() < step / 2
    assert row["zero_share"] == pytest.approx(float(small.double().mean()), abs=1e-6)
    error = (weight / step - (weight / step).round()) * step
    expected = weight[small].square().sum() / error.square().sum()
    assert row["error_share"] == pytest.approx(float(expected), abs=1e-4)


def test_totals_weigh_layers_by_their_size(gaussian):
    totals = tables.zero_totals(gaussian).set_index("treatment")
    for name, own in gaussian.groupby("treatment"):
        assert totals.loc[name, "zero_share"] == pytest.approx(
            np.average(own["zero_share"], weights=own["weights"])
        )
    assert totals.loc["int2", "zero_share"] > totals.loc["int3", "zero_share"]


def test_a_layer_of_zeros_has_no_error_and_is_all_zero_bin():
    network = nn.Linear(3, 2, bias=False)
    nn.init.zeros_(network.weight)
    bins = tables.zero_bins([Study()], [network], [INT3])
    assert bins[["zero_share", "error_share"]].to_numpy().tolist() == [[1.0, 0.0]]
    assert tables.zero_totals(bins)["error_share"].tolist() == [0.0]


def test_other_grids_have_no_gaussian_curve(networks):
    bins = tables.zero_bins([Study()], networks[:1], [Treatment.parse("int3-channel")])
    assert bins["gaussian"].isna().all()
    assert tables.zero_totals(bins)["zero_share"].between(0, 1).all()


def test_the_emptiest_layer_is_the_one_with_the_most_zeros(gaussian):
    own = gaussian[gaussian["treatment"] == "int3"]
    means = own.groupby("layer")["zero_share"].mean()
    assert tables.emptiest_layer(gaussian, INT3) == max(means.index, key=means.get)


def collapsing(*used: tuple[Treatment, int]) -> list[Prediction]:
    """Under each treatment so many of four classes are in use."""
    labels = torch.arange(40) % 4
    return [
        Prediction(
            Study(),
            treatment,
            nn.functional.one_hot(labels.clamp(max=classes - 1), 4).double(),
            labels,
            labels,
            tuple("abcd"),
            tuple("abcd"),
        )
        for treatment, classes in used
    ]


def test_the_narrowest_standing_width_is_taken_apart_unless_one_is_chosen():
    some = collapsing((FP32, 4), (Treatment(8), 4), (INT3, 3), (Treatment(2), 1))
    assert tables.telling(some) == INT3
    assert tables.telling(some, 5) == Treatment(5)
    assert tables.telling(collapsing((FP32, 4), (INT3, 1), (Treatment(2), 1))) == INT3
    with pytest.raises(BadInput, match="bits is 1"):
        tables.telling(some, 1)


def test_against_puts_a_reference_in_the_place_of_the_original():
    found = predictions({FP32: [0, 0, 0], ZEROS: [0, 0, 1.0], NORM: [0, 0, 0.6]}, noise=0)
    differences = kit_tables.answer_changes(tables.against(found, ZEROS))
    assert set(differences["treatment"]) == {"int3-norm"}
    own = differences[differences["measure"] == "loss"].set_index("group")["estimate"]
    assert own["few"] == pytest.approx(-0.4)
    assert own["many"] == pytest.approx(0.0)


def test_two_groups_keep_one_and_join_the_rest():
    (found,) = tables.two_groups(predictions({FP32: [0, 0, 0]}, seeds=1), "few")
    assert found.group_names == ("few", "the rest")
    assert np.bincount(found.groups).tolist() == [30, 100]


def parts_of(zeros: list, rest: list, norm: list, *, noise: float = 0.1, seeds: int = 3) -> pd.DataFrame:
    found = predictions({FP32: [0, 0, 0], ZEROS: zeros, REST: rest, NORM: norm}, noise=noise, seeds=seeds)
    return tables.zero_bin_parts(found, INT3, "few", level=1 - 0.05 / 4)


def test_the_parts_are_the_differences_they_are_said_to_be():
    parts = parts_of([0.2, 0.2, 1.0], [0, 0, 0.3], [0, 0, 0.4], noise=0).set_index("part")["estimate"]
    assert parts.to_dict() == pytest.approx({"harm": 1.0, "rest": 0.7, "others": 0.8, "norm": 0.6})


@cache
def changes() -> pd.DataFrame:
    return kit_tables.answer_changes(predictions({FP32: [0, 0, 0], ZEROS: [0, 0, 1.0]}))


def verdict(parts: pd.DataFrame, *, share: float = 0.4, seeds: int = 3) -> wording.Verdict:
    collapse = pd.DataFrame(
        {"treatment": ["fp32"], "share": [share], "effective_classes": [3.0], "standing": 1.0}
    )
    return story.small_weights_are_needed(parts, changes(), collapse, "int3", seeds=seeds)


@pytest.mark.parametrize(
    ("zeros", "rest", "norm", "noise", "word"),
    [
        ([0.2, 0.2, 1.0], [0, 0, 0.1], [0, 0, 0.3], 0.1, "supported"),
        # Harms, but the others more than the group.
        ([1.0, 1.0, 0.5], [0, 0, 0.1], [0, 0, 0.1], 0.1, "mixed"),
        # As long a change elsewhere does more harm.
        ([0.2, 0.2, 1.0], [0, 0, 0.1], [0, 0, 1.9], 0.1, "mixed"),
        # The group gains, and everything else costs it more.
        ([0.5, 0.5, -0.3], [0, 0, 0.5], [0, 0, 0.5], 0.1, "contradicted"),
        ([0.01, 0.0, 0.01], [0, 0, 0.0], [0, 0, 0.0], 0.5, "bounded"),
    ],
)
def test_the_verdict_is_the_datas(zeros, rest, norm, noise, word):
    said = verdict(parts_of(zeros, rest, norm, noise=noise))
    assert said.word == word
    assert "few" in said.claim
    assert "nan" not in said.because
    assert (said.because.count(": yes") == 4) == (word == "supported")
    assert "Accuracy under int3-zeros, in points: few −" in said.because


def test_the_verdict_counts_what_holds_and_says_what_one_seed_is():
    parts = parts_of([0.2, 0.2, 1.0], [0, 0, 0.1], [0, 0, 1.9], seeds=1)
    said = verdict(parts, seeds=1)
    assert "3 of the claim's 4 parts surely hold" in said.because
    assert "norm" not in said.because
    assert "no, surely the opposite" in said.because
    assert "One network says nothing of others" in said.because
    assert "One network" not in verdict(parts).because


def test_networks_with_one_answer_decide_nothing():
    said = verdict(parts_of([0.2, 0.2, 1.0], [0, 0, 0.1], [0, 0, 0.3]), share=0.97)
    assert said.word == "undecided"
    assert "97.0 %" in said.because


def layered(few: dict[str, float], *, count: int = 6) -> pd.DataFrame:
    """Losses by layer where each kind adds so much to few, and nothing to the others."""
    kinds = {
        Ablation(INT3, kind, f"layer{n}.weight"): [0, 0, added]
        for kind, added in few.items()
        for n in range(count)
    }
    return tables.losses_by_layer(predictions({FP32: [0, 0, 0], **kinds}, noise=0.02), "few")


def test_layers_are_measured_one_by_one():
    table = layered({"zeros": 0.3, "norm": 0.1, "random": 0.3})
    assert set(table["layer"]) == {f"layer{n}" for n in range(6)}
    means = table.groupby(["kind", "group"])["estimate"].mean()
    assert means["zeros", "few"] == pytest.approx(0.3, abs=0.02)
    assert means["zeros", "the rest"] == pytest.approx(0.0, abs=0.02)
    assert means["norm", "beyond"] == pytest.approx(0.1, abs=0.02)
    signs = tables.layer_signs(table).set_index("measure")
    assert signs.loc["norm", ["rises", "falls"]].tolist() == [6, 0]
    said = story.layer_by_layer(table, tables.layer_signs(table), "few", seeds=3).text
    assert "**emptying the zero bin** costs few surely more than the rest in 6 of 6 layers" in said
    assert "when as much length of that layer went at random in 6 of 6 layers" in said


def test_a_group_of_one_image_is_not_compared_and_no_page_says_nan():
    chosen = torch.tensor([*range(100), 100])
    some = {FP32: [0, 0, 0], ZEROS: [0, 0, 1.0], REST: [0, 0, 0], NORM: [0, 0, 0]}
    found = [
        replace(p, logits=p.logits[chosen], labels=p.labels[chosen], groups=p.groups[chosen])
        for p in predictions(some)
    ]
    added = kit_tables.answer_changes(found)
    said = story.what_is_added(added, ["int3-zeros"], "few").text
    said += figures.loss_by_treatment(added, ["int3-zeros"]).alt
    judged = verdict(tables.zero_bin_parts(found, INT3, "few"))
    kinds = [Ablation(INT3, kind, f"{n}.weight") for n in range(2) for kind in ("zeros", "norm", "random")]
    one = [p for p in found if p.treatment == ZEROS]
    layers = [replace(p, treatment=kind) for kind in kinds for p in one]
    table = tables.losses_by_layer([*(p for p in found if p.treatment == FP32), *layers], "few")
    said += story.layer_by_layer(table, tables.layer_signs(table), "few", seeds=3).text
    said += figures.loss_by_layer(table).alt
    assert "nan" not in said + judged.because
    assert "too few images" in said
    assert judged.word == "undecided"


def test_prose_on_the_bins_reads_the_table(gaussian):
    said = story.zero_bins(gaussian, tables.zero_totals(gaussian)).text
    assert said.count("**int") == 4
    assert "might as well be Gaussian" in said
    peaked = gaussian.assign(zero_share=gaussian["zero_share"] + 0.2)
    assert "more small weights than a Gaussian" in story.zero_bins(peaked, tables.zero_totals(peaked)).text
    flat = gaussian.assign(zero_share=gaussian["zero_share"] - 0.2)
    assert "fewer small weights than a Gaussian" in story.zero_bins(flat, tables.zero_totals(flat)).text


def test_who_surely_pays_is_named_though_another_pays_more_and_less_surely():
    rows = [
        ("int3-zeros", measure, group, *interval)
        for measure in ("loss", "accuracy")
        for group, interval in {
            "all": (0.2, 0.1, 0.3),
            "many": (0.1, 0.05, 0.15),
            "few": (0.4, -0.2, 1.0),
        }.items()
    ]
    columns = ["treatment", "measure", "group", "estimate", "lower", "upper"]
    added = pd.DataFrame(rows, columns=columns)
    assert (
        "many (+0.100 (+0.050 to +0.150)) surely pays"
        in story.what_is_added(added, ["int3-zeros"], "few").text
    )
    unsure = added.assign(lower=added["lower"].where(added["group"] != "many", -0.1))
    said = story.what_is_added(unsure, ["int3-zeros"], "few").text
    assert "which groups pay cannot be told, few most (+0.400" in said
    assert "no loss" not in said


def test_prose_on_the_halves_says_who_pays_and_which_half():
    found = predictions({FP32: [0, 0, 0], ZEROS: [0, 0, 0.9], REST: [0, 0, -0.2], INT3: [0.3, 0, 0]})
    added, collapse = kit_tables.answer_changes(found), kit_tables.collapse(found)
    said = story.what_is_added(added, ["int3-zeros", "int3-nonzeros"], "few", collapse=collapse).text
    zeros, rest = said.split("\n")
    assert "the loss of few rises (+0.9" in zeros
    assert "few (+0.9" in zeros
    assert "surely pays" in zeros
    assert "the loss of few falls" in rest
    assert "no loss surely rises" in rest
    assert "Classes in use: " in zeros
    assert "nan" not in said
    summed = story.halves_sum(added, "int3", "few").text
    assert "opposite ways, and emptying the zero bin goes further" in summed


def test_prose_held_against_a_reference_counts_only_what_is_sure():
    found = predictions({INT3: [0, 0, 0.5], ZEROS: [0, 0, 0.1], NORM: [0, 0, 1.2], REST: [0, 0, 0.5]})
    differences = kit_tables.answer_changes(tables.against(found, INT3))
    said = story.held_against(differences, "int3", "few", notes={"int3-zeros": "5 % zeros"}).text
    assert "**int3-zeros** (5 % zeros): surely better for few" in said
    assert "**int3-nonzeros**: no sure difference for few" in said
    assert "1 of 3 are surely better for few (int3-zeros) and 1 surely worse (int3-norm)" in said


@pytest.mark.parametrize(
    ("norm", "said"),
    [(0.1, "small weights count"), (1.9, "the ones to do without"), (0.9, "neither surely more")],
)
def test_smallness_counts_only_beyond_length(norm, said):
    found = predictions({ZEROS: [0, 0, 0.9], NORM: [0, 0, norm]})
    differences = kit_tables.answer_changes(tables.against(found, ZEROS))
    assert said in story.length_or_smallness(differences, "int3", "few").text


def test_what_is_taken_apart_is_named_also_when_it_is_not_among_the_widths():
    collapse = kit_tables.collapse(collapsing((FP32, 4), (INT3, 3)))
    assert "use 2.8 classes, before 4.0" in story.what_is_taken_apart("int3", "few", collapse).text
    assert "classes" not in story.what_is_taken_apart("int5", "few", collapse).text


def test_figures_hold_their_numbers_as_text(gaussian, networks):
    shares = figures.zero_shares(gaussian)
    most = gaussian[gaussian["treatment"] == "int2"].groupby("layer")["zero_share"].mean().max()
    assert f"to {100 * most:.0f}" in shares.alt
    by_peak = figures.zero_share_by_peak(gaussian)
    assert "int3 at most" in by_peak.alt
    drawn = figures.weight_histogram(networks[0], "2.weight", INT3)
    assert "6,400 weights of 2," in drawn.alt
    assert "7 values of int3" in drawn.alt
    share = float((INT3.quantizer(networks[0][2].weight.detach()) == 0).double().mean())
    assert f"holds {100 * share:.1f} percent" in drawn.alt
    layers = figures.loss_by_layer(layered({"zeros": 0.3, "norm": 0.1, "random": 0.3}, count=3))
    assert "zero bin emptied, few: mean +0.3" in layers.alt
    for picture in (shares, by_peak, drawn, layers):
        assert "nan" not in picture.alt + picture.caption


@pytest.mark.parametrize(("added", "logarithmic"), [(0.9, False), (6.0, True)])
def test_losses_are_drawn_for_each_group_that_has_images(added, logarithmic):
    table = kit_tables.answer_changes(predictions({FP32: [0, 0, 0], ZEROS: [0.3, 0, added]}))
    picture = figures.loss_by_treatment(table, ["int3-zeros"], ["61 % zeros"])
    estimate = table.set_index(["measure", "group"]).loc[("loss", "few"), "estimate"]
    assert f"few: int3-zeros {estimate:+.2f}" in picture.alt
    assert "none" not in picture.alt
    assert ("logarithmic" in picture.caption) == logarithmic
    assert "61 % zeros" in picture.body


def test_a_layer_that_is_not_there_and_a_treatment_that_rounds_nothing_are_refused(networks):
    with pytest.raises(BadInput, match="layer is 'fc'; expected one of: 0, 2"):
        figures.weight_histogram(networks[0], "fc", INT3)
    with pytest.raises(BadInput, match="treatment is fp32; expected one that rounds"):
        figures.weight_histogram(networks[0], "2", FP32)


def test_zero_notes_say_the_share_of_each_network(networks):
    emptied = [ZEROS.apply(networks[0]), networks[0]]
    share = groups.overall_accuracy(
        torch.cat([weight.flatten() for name, weight in emptied[0].named_parameters() if "weight" in name])
        == 0
    )
    notes = tables.zero_notes([ZEROS, FP32], emptied)
    assert notes == {"int3-zeros": f"{100 * share:.0f} % zeros", "fp32": "0 % zeros"}


def test_how_far_each_layer_reaches_stands_beside_what_gaussian_weights_would():
    torch.manual_seed(0)
    networks = [torch.nn.Sequential(torch.nn.Linear(400, 100), torch.nn.Linear(100, 50)) for _ in range(6)]
    for number, network in enumerate(networks):
        for layer in network:
            torch.nn.init.normal_(layer.weight)
        network[1].weight.data[0, 0] = 20.0 + number
    layers = tables.reach_by_layer(networks)
    assert list(layers.index) == ["0", "1"]
    assert layers["weights"].tolist() == [40_000, 5_000]
    halves = [stats.norm.cdf(own) - stats.norm.cdf(-own) for own in layers["gaussian"]]
    assert np.power(halves, layers["weights"]).tolist() == pytest.approx([0.5, 0.5])
    assert layers.loc["0", "mean"] == pytest.approx(layers.loc["0", "gaussian"], rel=0.1)
    assert 18 < layers.loc["1", "least"] < layers.loc["1", "mean"] < layers.loc["1", "most"] < 25
    said = story.how_far_layers_reach(layers, networks=6).text
    assert "`1` reaches" not in said
    assert "deviations and `1` 2" in said
    assert "In every network 1 of 2 layers reach farther" in said
    shown = story.reach_in_a_table(layers)
    assert shown.loc["0", "weights"] == "40,000"
    assert shown.loc["1", "a Gaussian's"] == f"{layers.loc['1', 'gaussian']:.1f}"
