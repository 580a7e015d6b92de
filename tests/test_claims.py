import math
import re
import typing

import numpy as np
import pandas as pd
import pytest
import torch

from fairq_book.chapters.disparity import story, tables
from fairq_book.experiments.studies import Prediction, Study
from fairq_book.kit import wording
from fairq_book.kit.treatments import with_columns
from fairq_utils.treatments.treatment import FP32


def changes(**violation: tuple[float, float, float]) -> pd.DataFrame:
    rows = [(name, "FVO", *interval) for name, interval in violation.items()]
    rows += [(name, "few", -0.3, -0.4, -0.2) for name in violation]
    rows += [(name, "many", 0.0, -0.1, 0.1) for name in violation]
    return pd.DataFrame(rows, columns=["treatment", "group", "estimate", "lower", "upper"])


def in_use(**classes: float) -> pd.DataFrame:
    table = pd.DataFrame({"treatment": classes.keys(), "share": 0.5, "effective_classes": classes.values()})
    return table.assign(
        fewest=table["effective_classes"] - 0.1,
        most=table["effective_classes"] + 0.1,
        standing=(table["effective_classes"] >= 2).astype(float),
    )


RISE, FALL, UNSURE = (0.1, 0.05, 0.15), (-0.1, -0.15, -0.05), (0.1, -0.05, 0.25)


TURNS = [[0.2, -0.2, 0.0], [-0.2, 0.0, 0.2], [0.0, 0.2, -0.2]] * 6


def of_eighteen(**changes: list[list[float]]) -> pd.DataFrame:
    """`tables.accuracy_by_seed` of eighteen networks, of which many, some and few change by so much each."""
    rows, before = [], {"many": 0.7, "some": 0.66, "few": 0.6}
    for treatment, by in {"fp32": [[0.0] * 3] * 18, **changes}.items():
        for seed, of_groups in enumerate(by):
            noise = 0.004 * (seed % 3 - 1) * (treatment != "fp32")
            rows += [
                (treatment, seed, group, 1000, round(1000 * (share + change + noise * (group == "few"))))
                for (group, share), change in zip(before.items(), of_groups, strict=True)
            ]
    return pd.DataFrame(rows, columns=["treatment", "seed", "group", "n", "correct"])


EVEN, LOST, WON = [[-0.01] * 3] * 18, [[0.0, 0.0, -0.1]] * 18, [[0.0, 0.0, 0.04]] * 18


@pytest.mark.parametrize(
    ("by_width", "word", "said"),
    [
        ({"int8": EVEN, "int4": LOST}, "supported", "At int4 it grows, and for the same groups."),
        ({"int8": EVEN, "int4": WON}, "contradicted", "At int4 it falls."),
        ({"int8": EVEN, "int4": TURNS}, "contradicted", "At int4 it grows as a lottery over groups."),
        ({"int8": LOST, "int4": TURNS}, "mixed", "for the same groups; at int4 it grows as a lottery"),
        ({"int8": EVEN, "int4": EVEN}, "no difference", "No difference larger than 0.2 points at int8, 0.2"),
    ],
)
def test_a_gap_grows_only_where_fixed_groups_share_it(by_width, word, said):
    verdict = story.violation_grows(of_eighteen(**by_width), in_use(int8=4.0, int4=4.0), seeds=18)
    assert verdict.word == word
    assert said in verdict.because
    assert f"<strong>{word.capitalize()}.</strong>" in verdict._repr_html_()
    assert repr(verdict).startswith(word.capitalize())


@pytest.mark.parametrize(
    ("int8", "int4", "word", "said"),
    [
        (EVEN, LOST, "supported", "It grows, and for the same groups."),
        (EVEN, WON, "contradicted", "It falls."),
        (EVEN, TURNS, "contradicted", "It grows as a lottery over groups."),
        (EVEN, EVEN, "no difference", "No difference larger than 0.0 points."),
        (
            LOST,
            LOST,
            "no difference",
            "No difference larger than 0.0 points.",
        ),  # what is lost at both is no jump
        (EVEN, [*EVEN[:9], *LOST[:5], *WON[:4]], "bounded", "No difference larger than 4."),
    ],
)
def test_a_gap_jumps_between_eight_bits_and_four_where_fixed_groups_share_it(int8, int4, word, said):
    found = tables.readings(of_eighteen(int8=int8, int4=int4), "many")
    verdict = story.gap_jumps(found, in_use(int8=4.0, int4=4.0), "many", seeds=18)
    assert verdict.word == word
    assert verdict.because.startswith(said)
    assert "the other groups against many" in verdict.because
    fallen = story.gap_jumps(found, in_use(int8=4.0, int4=1.0), "many", seeds=18)
    assert fallen.word == "undecided"
    alone = tables.readings(of_eighteen(int4=int4), "many")
    assert story.gap_jumps(alone, in_use(int4=4.0), "many", seeds=18).word == "undecided"


def test_the_three_readings_come_in_their_order_and_over_the_widths():
    widths = {f"int{bits}": [[0.0, 0.0, -0.02 * place]] * 18 for place, bits in enumerate((8, 6, 5, 4, 3))}
    table = of_eighteen(**widths)
    found = tables.readings(table, "many")
    assert list(dict.fromkeys(found["treatment"]))[-2:] == list(tables.OVER_WIDTHS)
    by = found.set_index(["treatment", "reading"])["estimate"]
    # The mean of two groups, of which one loses 2 points more with each width.
    assert by["int8 to int4", "contrast"] == pytest.approx(-0.03)
    assert by["trend over 8, 6, 5, 4, 3 bits", "contrast"] == pytest.approx(-0.04)
    assert by["int8 to int4", tables.GAP] == pytest.approx(0.06)
    said = str(story.three_readings(found, changes(int4=RISE), in_use(**dict.fromkeys(widths, 4.0)), "many"))
    assert [line.split("**")[1] for line in said.splitlines()] == ["int4", *tables.OVER_WIDTHS]
    (at_int4,) = [line for line in said.splitlines() if line.startswith("- **int4**")]
    parts = [
        "the others against many −3.0",
        "FVO per network +6.0",
        "the gap of many, few, as other networks",
    ]
    assert [at_int4.index(part) for part in parts] == sorted(at_int4.index(part) for part in parts)
    assert at_int4.endswith("FVO of the average +10.0 (+5.0 to +15.0).")
    collapsed = in_use(**{**dict.fromkeys(widths, 4.0), "int3": 1.0})
    fewer = str(story.three_readings(found, changes(int4=RISE), collapsed, "many"))
    assert "int3" not in fewer
    assert "trend" not in fewer
    assert tables.readings(table[table["seed"] < 2], "many").empty


@pytest.mark.parametrize("missing", [math.nan, math.inf, 1.2])
def test_without_a_bound_a_verdict_stays_undecided(missing):
    rows = pd.DataFrame({"treatment": ["int4"], "bits": [4], "lower": [-missing], "upper": [missing]})
    assert wording.unsure(rows) == ("undecided", "Nothing says how large a difference may be")
    assert wording.unsure(rows.iloc[:0])[0] == "undecided"


def test_where_a_width_has_no_margin_the_reach_bounds_without_a_declared_word():
    rows = pd.DataFrame({"treatment": ["int7"], "bits": [7], "lower": [-0.004], "upper": [0.006]})
    assert wording.unsure(rows) == ("bounded", "No difference larger than 0.6 points at int7")
    named = rows.assign(margin=pd.Series([None], dtype=object))
    assert wording.unsure(named) == ("bounded", "No difference larger than 0.6 points at int7")


def test_a_collapsed_network_decides_nothing_and_is_named():
    verdict = story.violation_grows(of_eighteen(int4=EVEN, int2=LOST), in_use(int4=4.0, int2=1.0), seeds=18)
    assert verdict.word == "no difference"
    assert "collapsed: int2" in verdict.because
    assert "int2 +10" not in verdict.because
    nothing_stands = story.violation_grows(of_eighteen(int2=LOST), in_use(int2=1.2), seeds=18)
    assert nothing_stands.word == "undecided"
    assert "no width to judge" in nothing_stands.because
    few = of_eighteen(int4=LOST).query("seed < 2")
    assert story.violation_grows(few, in_use(int4=4.0), seeds=2).word == "undecided"


def test_each_word_has_a_colour_of_its_own():
    colours = {wording.Verdict("c", word, "b")._repr_html_() for word in typing.get_args(wording.Word)}
    assert len({re.search(r"solid (#\w+)", shown)[1] for shown in colours}) == 6


def accuracies(**worst: float) -> pd.DataFrame:
    rows = [(t, "few", share, share - 0.1, share + 0.1) for t, share in worst.items()]
    rows += [(t, "many", 0.9, 0.85, 0.95) for t in worst]
    rows += [(t, "OA", 0.8, 0.75, 0.85) for t in worst]
    rows += [(t, "FVO", 0.9 - share, 0.0, 1.0) for t, share in worst.items()]
    return pd.DataFrame(rows, columns=["treatment", "group", "estimate", "lower", "upper"])


def by_network(before: dict[str, float], **changes: dict[str, list[float]]) -> pd.DataFrame:
    """`tables.change_by_network` of groups of 1000 images, where each network changes by so much."""
    rows = [
        (name, seed, group, 1000, round(1000 * (share + change)))
        for name, own in {"fp32": {group: [0.0] * 9 for group in before}, **changes}.items()
        for group, share in before.items()
        for seed, change in enumerate(own[group])
        if name != "fp32" or seed < len(next(iter(changes.values()))[group])
    ]
    columns = ["treatment", "seed", "group", "n", "correct"]
    return tables.change_by_network(pd.DataFrame(rows, columns=columns), "many")


BEFORE = {"many": 0.9, "some": 0.85, "few": 0.3}


def payers(**changes: list[float]) -> story.Payers:
    return story.Payers.of(by_network(BEFORE, int3=changes), "int3", "many")


def test_who_surely_loses_is_named_though_another_has_the_larger_estimate():
    own = payers(many=[0.01, -0.01, 0.0, 0.0], some=[-0.7, 0.1, -0.6, -0.2], few=[-0.1, -0.11, -0.1, -0.09])
    assert own.groups[0] == "some"  # the largest estimate, and uncertain
    assert (own.lost, own.gained) == (["few"], [])
    assert "few surely loses, −10.0 (" in own.text


def test_an_average_that_surely_falls_is_nobodys_innocence():
    # Over all images it falls alike in every network; whom it takes from is another group each time.
    turns = [[-0.3, 0.0, 0.0], [0.0, -0.3, 0.0], [0.0, 0.0, -0.3]]
    own = payers(**{name: [turn[place] for turn in turns] for place, name in enumerate(BEFORE)})
    assert own.rows["OA"]["upper"] < 0
    assert own.lost == []
    assert "accuracy surely falls, −10.0" in own.text
    assert "do not tell which groups pay" in own.text
    assert "no group" not in own.text


def test_where_all_smaller_groups_lose_in_every_network_none_is_named_alone():
    own = payers(many=[0.05, 0.04, 0.06], some=[-0.4, -0.1, -0.7], few=[-0.1, -0.11, -0.1])
    assert own.lost == ["few"]
    assert own.minorities_pay
    assert (
        "in each of 3 networks every group but many loses accuracy, in the mean some 40.0, few 10.3"
        in own.text
    )
    everyone = payers(many=[-0.05, -0.04, -0.06], some=[-0.4, -0.1, -0.7], few=[-0.1, -0.11, -0.1])
    assert "every group loses accuracy" in everyone.text


def test_who_gains_is_named_as_well():
    own = payers(many=[0.05, 0.051, 0.049, 0.05], some=[0.3, -0.3, 0.2, -0.2], few=[0.1, -0.1, 0.0, 0.02])
    assert own.gained == ["many"]
    assert "many surely gains, +5.0" in own.text


def test_little_change_is_bounded_and_few_networks_are_said_to_be_few():
    still = payers(many=[0.0, 0.001, -0.001], some=[0.001, 0.0, 0.0], few=[0.002, -0.002, 0.0])
    within = f"no group changes by more than {100 * still.bound:.1f} points, each by less than matters; "
    assert still.text.startswith(within)
    assert still.bound < 0.02
    more = payers(many=[0.0, 0.015, -0.015], some=[0.0, 0.001, 0.0], few=[0.002, -0.002, 0.0])
    assert more.text.startswith(f"no group changes by more than {100 * more.bound:.1f} points; ")
    open_ = payers(many=[0.0, 0.001, -0.001], some=[0.3, -0.3, 0.0], few=[0.002, -0.002, 0.0])
    assert "3 networks do not tell who pays" in open_.text
    alone = payers(many=[-0.2], some=[-0.2], few=[-0.2])
    assert "one network decides nothing" in alone.text
    assert "nan" not in alone.text


def test_the_contrast_is_signed_and_its_word_is_its_interval():
    worse = payers(many=[0.0] * 3, some=[-0.1, -0.11, -0.09], few=[-0.1, -0.1, -0.1])
    assert worse.contrast["estimate"] == pytest.approx(-0.1)
    assert "The other groups against many: −10.0 (−11.2 to −8.8) points, surely worse" in worse.text
    better = payers(many=[-0.1, -0.11, -0.09], some=[0.0] * 3, few=[0.0] * 3)
    assert "+10.0 (+7.5 to +12.5) points, surely better" in better.text


def test_who_pays_says_it_width_by_width_and_what_another_range_does():
    lost = {"many": [0.0, 0.01, -0.01], "some": [-0.1, -0.1, -0.1], "few": [-0.1, -0.1, -0.12]}
    changed = by_network(BEFORE, int4=lost, **{"int4-mse": lost, "int4-bn": lost, "int2": lost})
    said = story.who_pays(
        accuracies(int4=0.2, int2=0.1),
        changed,
        in_use(int4=4, int2=1.1, **{"int4-mse": 4, "int4-bn": 1.0}),
        "many",
    ).text
    assert "- **int4**: in each of 3 networks every group but many" in said
    assert "Right least often is few, with 20.0 % (10.0 to 30.0)" in said
    assert "- **int2**: the networks have collapsed, and who loses says nothing." in said
    # The contrast is there at another range too, but not of networks that have collapsed.
    assert "points with the range of least squared error at int4." in said
    assert "batch norm" not in said


@pytest.mark.parametrize(("truth", "wanted"), [(0.0, (0.0, 0.065)), (-0.06, (0.8, 1.0))])
def test_who_pays_is_wrong_in_one_of_twenty_tables_and_finds_what_is_there(truth, wanted):
    """Five groups, five networks that scatter by two points; nobody loses, or each of the minorities does."""
    rng, named = np.random.default_rng(0), 0
    for _ in range(400):
        changes = {name: rng.normal(truth if name != "many" else 0, 0.02, 5) for name in ["many", *"abcd"]}
        own = story.Payers.of(by_network(dict.fromkeys(changes, 0.5), int3=changes), "int3", "many")
        named += bool(own.lost or own.gained)
    assert wanted[0] <= named / 400 <= wanted[1]


def test_the_narrowest_width_is_called_collapse_only_when_it_is():
    table = accuracies(int4=0.5, int2=0.1)
    collapsed = story.at_the_narrowest(table, in_use(int4=4.0, int2=1.1), classes=5).text
    assert "**int2**" in collapsed
    assert "That is collapse" in collapsed
    standing = story.at_the_narrowest(table, in_use(int4=4.0, int2=3.0), classes=5).text
    assert "still tell classes apart" in standing
    assert "That is collapse" not in standing
    assert "less than half as many classes beyond the first as in full precision: int2 0.0 %" in standing
    both = story.at_the_narrowest(
        table, in_use(int4=4.0, int2=3.0).assign(fallen=[0.0, 0.75]), classes=5
    ).text
    assert "above the share of the largest label: int2 75.0 %. As a check, those that use" in both
    assert "That is collapse" in both  # the OA of the others decides


def test_what_is_won_and_lost_is_told_of_the_narrowest_width_that_stands():
    row = {"group": "few", "n": 50.0, "won": 1.5, "lost": 4.0}
    row |= {f"{name}_{when}": share for name in ("accuracy", "precision", "f1") for when, share in WHEN}
    rows = [
        row | {"treatment": name, "won": won} for name, won in (("int8", 0.5), ("int4", 1.5), ("int2", 9.0))
    ]
    shown = story.won_and_lost(pd.DataFrame(rows), in_use(int8=4.0, int4=4.0, int2=1.0))
    assert shown.index.name == "int4"
    assert shown.loc["few"].tolist() == ["50", *["70.0 → 62.5"] * 3, "1.5", "4.0"]
    assert "at no width networks stand" in story.won_and_lost(pd.DataFrame(rows), in_use(int8=1.0)).text


WHEN = (("before", 0.7), ("after", 0.625))


def effects(size, difficulty) -> pd.DataFrame:
    nothing = float("nan")
    rows = [
        ("int3", "points", "size", nothing, *size),
        ("int3", "points", "difficulty", nothing, *difficulty),
        ("int3", "points", "moths-by-both", 0.25, *FALL),
        ("int3", "flips", "size", nothing, *RISE),
        ("int3", "nats", "size", nothing, *FALL),
    ]
    names = ["treatment", "unit", "effect", "before", "estimate", "lower", "upper"]
    return pd.DataFrame(rows, columns=names).assign(networks=3)


@pytest.mark.parametrize(
    ("size", "difficulty", "word"),
    [
        (FALL, UNSURE, "supported"),
        (FALL, RISE, "supported"),
        (UNSURE, FALL, "contradicted"),
        (FALL, FALL, "mixed"),
        (UNSURE, RISE, "bounded"),
        (RISE, UNSURE, "bounded"),
    ],
)
def test_size_or_difficulty(size, difficulty, word):
    verdict = story.size_or_difficulty(effects(size, difficulty))
    assert verdict.word == word  # by points alone: the flips rise and the nats fall in each of these
    assert "int3, size" in verdict.because
    assert ("less is surely lost with difficulty at int3" in verdict.because) is (difficulty == RISE)
    assert "over 3 networks of each kind" in verdict.because
    assert verdict.because.endswith("the focal group was right on 25.0 % on moths-by-both.")


def stored(best: float) -> pd.DataFrame:
    rows = [
        ("fp32", "OA", 0.9, 0.88, 0.92),
        ("int3", "OA", 0.5, 0.45, 0.55),
        ("int3", "FVO", 0.4, 0.3, 0.5),
        ("int3-mse", "OA", best, best - 0.05, best + 0.05),
        ("int3-mse", "FVO", 0.1, 0.0, 0.2),
    ]
    return with_columns(pd.DataFrame(rows, columns=["treatment", "group", "estimate", "lower", "upper"]))


def test_another_grid_is_called_better_only_when_it_surely_is():
    said = story.grid_matters(stored(0.8)).text
    assert "OA is 50.0 % with one scale a tensor" in said
    assert "80.0 % with one scale a tensor, least squared error, where FVO is 10.0 points" in said
    assert (
        story.grid_matters(stored(0.52)).text
        == "- At 3 bits no choice of the grid is surely better than another."
    )


def shown(groups, labels, names=("a", "b", "c")) -> Prediction:
    classes = ("a", "b", "c")
    logits = torch.zeros(len(groups), len(classes))
    return Prediction(Study(), FP32, logits, torch.tensor(labels), torch.tensor(groups), classes, names)


def test_who_is_there_says_whether_label_and_group_coincide_and_who_is_missing():
    same = story.who_is_there(shown([0, 0, 0, 1, 1, 2], [0, 0, 0, 1, 1, 2])).text
    assert "**a** with 3 images, the smallest **c** with 1." in same
    assert "Group and label coincide" in same
    assert "No test image" not in same
    other = story.who_is_there(shown([0, 0, 1, 1, 1], [0, 1, 2, 0, 1], names=("x", "y", "z"))).text
    assert "two things here; there are 3 labels" in other
    assert "No test image is of z: nothing is said of them." in other


def test_text_from_data_stays_text():
    verdict = wording.Verdict("<b>claim</b>", "mixed", "<script>alert(1)</script>")
    assert "<script>" not in verdict._repr_html_()
    assert "&lt;b&gt;claim" in verdict._repr_html_()
