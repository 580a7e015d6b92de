"""Audits against fairlearn, against worlds where it is known who pays, and of names that mean harm."""

import csv
import json
from functools import cache
from importlib.resources import files
from unittest.mock import patch

import jsonschema
import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from fairlearn.metrics import MetricFrame
from sklearn.metrics import accuracy_score, recall_score

from fairq_audit import (
    auditing,
    cells,
    formats,
    gates,
    measures,
    predictions,
    rates,
    report,
    sentences,
    statistics,
)
from fairq_audit.sampling import Sampling
from fairq_utils import intervals
from fairq_utils.errors import BadInput

SCHEMA = json.loads((files("fairq_audit") / "schemas" / "audit-2.json").read_text())
CLASSES = np.array(["bee", "fly", "moth"])


def tables(
    sizes: dict[str, int], harm: dict[str, float], *, scores: bool = False, seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Predictions before and after, where the groups' right answers are lost with the chances of `harm`."""
    rng = np.random.default_rng(seed)
    group = np.repeat(list(sizes), list(sizes.values()))
    n = len(group)
    labels = rng.integers(3, size=n)
    base = pd.DataFrame({"id": [f"image {i}" for i in range(n)], "label": CLASSES[labels], "group": group})
    base["light"] = rng.choice(["day", "night"], size=n)
    before = rng.normal(size=(n, 3)) + 4 * np.eye(3)[labels]
    after = before + 0.3 * rng.normal(size=(n, 3))
    hit = rng.random(n) < [harm.get(name, 0.0) for name in group]
    after[hit, labels[hit]] -= 8
    if scores:
        columns = [f"logit_{name}" for name in CLASSES]
        return tuple(base.join(pd.DataFrame(one, columns=columns)) for one in (before, after))
    return tuple(base.assign(prediction=CLASSES[one.argmax(axis=1)]) for one in (before, after))


TREES = {"ash": 900, "birch": 500, "cedar": 300, "elm": 200}


@cache
def audited(scores: bool = True) -> auditing.Audit:
    return auditing.audit(
        *tables(TREES, {"elm": 0.15}, scores=scores),
        groups=["group", "light"],
        margin=0.02,
        fail_if=["worst_group_drop > 0.02", "overall_drop > 0.2"],
        layers=pd.DataFrame({"layer": ["conv"], "weights": [9], "zero_before": [0.0], "zero_after": [1 / 3]}),
    )


# -- against fairlearn --------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["before", "after"])
def test_accuracies_and_their_gap_are_fairlearns(side):
    before, after = tables(TREES, {"elm": 0.15})
    found = auditing.audit(before, after).record
    predictions = before if side == "before" else after
    frame = MetricFrame(
        metrics={"accuracy": accuracy_score},
        y_true=predictions["label"],
        y_pred=predictions["prediction"],
        sensitive_features=predictions["group"],
    )
    (grouping,) = found["groupings"]
    own = {group["group"]: group[f"accuracy_{side}"]["estimate"] for group in grouping["groups"]}
    assert own == pytest.approx(frame.by_group["accuracy"].to_dict())
    fvo = grouping[f"fvo_{side}"]
    assert fvo["estimate"] == pytest.approx(frame.difference()["accuracy"])
    assert own[fvo["worst"]] / own[fvo["best"]] == pytest.approx(frame.ratio()["accuracy"])
    assert found["overall"][f"accuracy_{side}"]["estimate"] == pytest.approx(frame.overall["accuracy"])


def test_crossed_groups_and_recall_are_fairlearns():
    before, after = tables(TREES, {"elm": 0.15})
    found = auditing.audit(before, after, groups=["group", "light"])
    frame = MetricFrame(
        metrics=accuracy_score,
        y_true=after["label"],
        y_pred=after["prediction"],
        sensitive_features=after[["group", "light"]],
    )
    crossed = found.record["groupings"][-1]
    assert crossed["name"] == "group x light"
    own = {group["group"]: group["accuracy_after"]["estimate"] for group in crossed["groups"]}
    expected = {f"group={tree} x light={light}": value for (tree, light), value in frame.by_group.items()}
    assert own == pytest.approx(expected)
    recalls = found.tables["recall"].query("grouping == 'group'").set_index(["group", "class"])["after"]
    for name, own in after.groupby("group"):
        expected = recall_score(own["label"], own["prediction"], average=None, labels=CLASSES)
        np.testing.assert_allclose(recalls[f"group={name}"][CLASSES], expected)


def test_counts_are_those_of_a_table_of_before_and_after():
    before, after = tables(TREES, {"elm": 0.15})
    found = auditing.audit(before, after).tables["groups"].set_index("group")
    right = before["prediction"] == before["label"], after["prediction"] == after["label"]
    expected = pd.crosstab(before["group"], [right[0], right[1]])
    flips = (before["prediction"] != after["prediction"]).groupby(before["group"])
    for name in TREES:
        assert found["lost"][name] == expected.loc[name, (True, False)]
        assert found["gained"][name] == expected.loc[name, (False, True)]
        assert found["flip_rate"][name] == pytest.approx(flips.mean()[name])
    assert found["lost"]["all"] == expected[(True, False)].sum()


# -- worlds where it is known who pays ----------------------------------------------------------------

SIZES = np.array([400, 180, 140, 160, 70])
NAMES = ["ash", "birch", "cedar", "elm", "fir"]
AUDITS = 500
CHURN = 0.03


def world(before, harm) -> np.ndarray:
    """The chances of the five fates, a row a group: churn to both sides, and harm on top."""
    before, harm = np.broadcast_to(before, 5), np.broadcast_to(harm, 5)
    kept, wrong = before - CHURN - harm, 1 - before - CHURN
    return np.stack([kept, CHURN + harm, np.full(5, CHURN), 0.8 * wrong, 0.2 * wrong], axis=1)


def simulated(chances: np.ndarray, sizes, groupings) -> list[dict]:
    """Audits of a world, as `audit` measures them; `groupings` divides its cells into named groups."""
    rng = np.random.default_rng(3)
    found = []
    with patch.object(measures, "RESAMPLES", 500):  # a quarter of the time
        for seed, counts in enumerate(rng.multinomial(sizes, chances, size=(AUDITS, len(sizes)))):
            found.append(measures.measure(counts.sum(axis=0), groupings(counts), seed=seed))
    return found


WORLDS = {
    "none": (0.85, 0.0),
    "one": ([0.88, 0.86, 0.84, 0.8, 0.78], [0, 0, 0, 0, 0.15]),
    "all": ([0.88, 0.86, 0.84, 0.8, 0.78], 0.06),
}


def by_tree(counts: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    return {"tree": dict(zip(NAMES, counts, strict=True))}


@cache
def audits(name: str) -> list[dict]:
    return simulated(world(*WORLDS[name]), SIZES, by_tree)


@pytest.mark.parametrize("name", WORLDS)
def test_intervals_of_drops_hold_the_truth_as_often_as_they_say(name):
    harm = np.broadcast_to(WORLDS[name][1], 5)
    groups = np.array(
        [[[group["drop"][e] for e in ("lower", "upper")] for group in found["groupings"][0]["groups"]]
         for found in audits(name)]
    )  # fmt: skip
    held = (groups[..., 0] <= harm) & (harm <= groups[..., 1])
    # 2,500 intervals: the noise of this share is half a point.
    assert 0.93 <= held.mean() <= 0.97
    truth = harm @ SIZES / SIZES.sum()
    overall = [found["overall"]["drop"] for found in audits(name)]
    share = np.mean([drop["lower"] <= truth <= drop["upper"] for drop in overall])
    assert 0.93 <= share <= 0.98  # 500 intervals: the noise of this share is a point


@pytest.mark.parametrize("name", WORLDS)
def test_the_rise_of_the_gap_and_the_worst_drop_are_held_at_least_as_often(name):
    before, harm = (np.broadcast_to(own, 5) for own in WORLDS[name])
    truths = {"fvo_increase": np.ptp(before - harm) - np.ptp(before), "worst_group_drop": harm.max()}
    for measure, truth in truths.items():
        own = [found["groupings"][0][measure] for found in audits(name)]
        assert np.mean([one["lower"] <= truth + 1e-9 and truth - 1e-9 <= one["upper"] for one in own]) >= 0.93


def test_where_the_best_and_the_worst_are_clear_the_rise_of_the_gap_is_held_as_often_as_it_says():
    before, sizes, shares = np.array([0.95, 0.88, 0.87, 0.86, 0.75]), 4 * SIZES, []
    sizes[-1] = 400
    for harm in (0.0, np.array([0, 0, 0, 0, 0.1]), 0.06):
        truth = np.ptp(before - harm) - np.ptp(before)
        found = simulated(world(before, harm), sizes, by_tree)
        own = [one["groupings"][0]["fvo_increase"] for one in found]
        shares.append(np.mean([one["lower"] <= truth <= one["upper"] for one in own]))
    assert 0.93 <= np.mean(shares) <= 0.97
    assert max(shares) <= 0.98  # 500 intervals: the noise of this share is a point


@pytest.mark.parametrize("name", WORLDS)
def test_gates_that_should_hold_fail_in_at_most_one_audit_of_twenty(name):
    before, harm = (np.broadcast_to(own, 5) for own in WORLDS[name])
    truths = {
        "worst_group_drop": harm.max(),
        "overall_drop": harm @ SIZES / SIZES.sum(),
        "fvo_increase": np.ptp(before - harm) - np.ptp(before),
        "group_drop[fir]": harm[-1],
    }
    for quantity, truth in truths.items():
        gate = gates.parse(f"{quantity} > {truth:.6f}")
        failed = np.mean([not gate.judge(found)["passed"] for found in audits(name)])
        assert failed <= 0.05, quantity


def test_where_nobody_pays_harm_is_said_in_at_most_one_audit_of_twenty():
    words = [sentences.verdict(found, confidence=0.95, margin=None)["word"] for found in audits("none")]
    assert words.count("harm shown") <= 0.05 * AUDITS
    assert words.count("cannot tell") > 0.9 * AUDITS  # seventy images of the smallest group show too little


def test_who_pays_is_found_and_named():
    said = [sentences.verdict(found, confidence=0.95, margin=None) for found in audits("one")]
    named = [[one["group"] for one in verdict["harmed"]] for verdict in said]
    assert sum("fir" in names for names in named) > 0.5 * AUDITS
    assert sum(bool(set(names) - {"fir"}) for names in named) <= 0.05 * AUDITS


@pytest.mark.parametrize("place", [0, 2, 4])
def test_the_stated_power_is_the_simulated_one(place):
    """Audits of a world without harm state a drop; in a world with that drop, four of five show it."""
    stated = [own["groupings"][0]["groups"][place]["detectable_drop"] for own in audits("none")]
    harm, n = np.median(stated), int(SIZES[place])
    rng = np.random.default_rng(4)
    counts = rng.multinomial(n, world(0.85, harm)[place], size=10 * AUDITS)
    together = intervals.simultaneous(0.95, len(SIZES))
    lower, _ = statistics.drop_limits(counts[:, statistics.LOST], counts[:, statistics.GAINED], n, together)
    assert (lower > 0).mean() == pytest.approx(0.8, abs=0.05)


CELLS = ["ash x day", "ash x night", "elm x day", "elm x night"]


def crossed(counts: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    """What `audit` counts of two columns: each by itself, and their cells."""
    table = counts.reshape(2, 2, 5)
    return {
        "tree": dict(zip(["ash", "elm"], table.sum(axis=1), strict=True)),
        "light": dict(zip(["day", "night"], table.sum(axis=0), strict=True)),
        "tree x light": dict(zip(CELLS, counts, strict=True)),
    }


@cache
def of_an_intersection(harm: float) -> list[dict]:
    """Audits of a world in which elms pay at night, and nobody else anywhere."""
    kept, wrong = 0.9 - CHURN, 0.1 - CHURN
    chances = np.tile([kept, CHURN, CHURN, wrong, 0.0], (4, 1))
    chances[3, [0, 1]] += -harm, harm
    return simulated(chances, np.full(4, 400), crossed)


def test_harm_in_an_intersection_alone_is_found_there():
    found = of_an_intersection(0.1)
    said = [sentences.verdict(own, confidence=0.95, margin=None) for own in found]
    harmed = [{one["group"] for one in own["harmed"]} for own in said]
    assert sum("elm x night" in own for own in harmed) >= 0.9 * AUDITS
    # Its two columns pay too, by what it is of them; nobody else does.
    assert sum(bool(own - {"elm x night", "elm", "night"}) for own in harmed) <= 0.05 * AUDITS
    assert sum(own["word"] == "harm shown" for own in said) >= 0.95 * AUDITS


def test_intervals_and_gates_are_honest_where_an_intersection_alone_pays():
    found, harm = of_an_intersection(0.1), {"elm x night": 0.1, "elm": 0.05, "night": 0.05}
    drops = [
        (harm.get(group["group"], 0.0), group["drop"])
        for own in found
        for grouping in own["groupings"]
        for group in grouping["groups"]
    ]
    assert 0.93 <= np.mean([drop["lower"] <= truth <= drop["upper"] for truth, drop in drops]) <= 0.97
    for quantity, truth in {"worst_group_drop": 0.1, "overall_drop": 0.025, "fvo_increase": 0.1}.items():
        gate = gates.parse(f"{quantity} > {truth + 1e-6:.6f}")
        assert np.mean([not gate.judge(own)["passed"] for own in found]) <= 0.05, quantity


def test_where_no_intersection_pays_harm_is_said_in_at_most_one_audit_of_twenty():
    said = [sentences.verdict(own, confidence=0.95, margin=None)["word"] for own in of_an_intersection(0.0)]
    assert said.count("harm shown") <= 0.05 * AUDITS


def test_the_power_that_is_stated_for_an_intersection_is_the_simulated_one():
    """What a world without harm says could have been seen is seen as often in one with that harm."""
    own = [own["groupings"][2]["groups"][3]["detectable_drop"] for own in of_an_intersection(0.0)]
    harm = float(np.median(own))
    counts = np.random.default_rng(4).multinomial(
        400, [0.9 - CHURN - harm, CHURN + harm, CHURN, 0.1 - CHURN], size=10 * AUDITS
    )
    lower, _ = statistics.drop_limits(
        counts[:, statistics.LOST], counts[:, statistics.GAINED], 400, intervals.simultaneous(0.95, 8)
    )
    assert (lower > 0).mean() == pytest.approx(0.8, abs=0.05)


# -- classes within groups ----------------------------------------------------------------------------


def rows(counts: np.ndarray) -> tuple[cells.Cells, predictions.Pairs]:
    """Rows of groups x classes x the five fates; who is wrong is taken for the next class."""
    groups, classes, _ = counts.shape
    codes, labels, kinds = (np.repeat(own, counts.ravel()) for own in np.indices(counts.shape).reshape(3, -1))
    wrong = (labels + 1) % classes
    before = np.where(kinds <= statistics.LOST, labels, wrong)
    after = np.where((kinds == statistics.KEPT) | (kinds == statistics.GAINED), labels, wrong)
    names = [f"group {place}" for place in range(groups)]
    pairs = predictions.Pairs(
        classes=[f"class {place}" for place in range(classes)], labels=labels, groups={}, kinds=kinds,
        answers=(before, after), never_predicted=[], kind=None, scores=None, left_out=[], warnings=[],
    )  # fmt: skip
    return cells.Cells("tree", ["tree"], names, names, codes, counts.sum(axis=1), None, [{}]), pairs


def by_class(images: np.ndarray, chances: np.ndarray, audits: int, **settings) -> list[dict]:
    """Verdicts on a world of groups x classes: images and chances of the five fates in each."""
    rng, found = np.random.default_rng(5), []
    with (
        patch.object(measures, "RESAMPLES", 10),
        patch.object(statistics, "detectable_drop", lambda *_: 0.01),
    ):
        for counts in rng.multinomial(images, chances, size=(audits, *images.shape)):
            cell, pairs = rows(counts)
            groups = dict(zip(cell.names, counts.sum(axis=1), strict=True))
            measured = measures.measure(counts.sum(axis=(0, 1)), {"tree": groups}, **settings)
            (own,), family = rates.rates([cell], pairs, sampling=Sampling(), confidence=0.95, smallest=20)
            measured["groupings"][0] |= {"rates": rates.rate_ends(own), "pooled": None}
            verdict = sentences.verdict(measured, confidence=0.95, margin=settings.get("margin"))
            found.append(verdict | {"family": family})
    return found


def fates(lost: np.ndarray | float, gained: float, shape: tuple[int, int]) -> np.ndarray:
    lost = np.broadcast_to(lost, shape)
    return np.stack([0.9 - lost, lost, np.full(shape, gained), np.full(shape, 0.1 - gained), 0 * lost], -1)


def test_classes_hardly_add_to_how_often_harm_is_said_where_nobody_pays():
    said = by_class(np.full((5, 4), 400), fates(0.06, 0.06, (5, 4)), 300)
    assert sum(own["word"] == "harm shown" for own in said) <= 0.05 * len(said)
    assert sum(bool(own["harmed_classes"]) for own in said) <= 0.005 * len(said)


FRAUD = np.array([[9850, 150], [9850, 150]])  # images of two groups that are in order, and frauds


def losing_frauds(share: float, **settings) -> list[dict]:
    lost = np.array([[0.0, 0.0], [0.0, share]])
    return by_class(FRAUD, fates(lost, 0.0, (2, 2)), 100, **settings)


def test_a_class_that_fails_in_one_group_is_harm_though_accuracy_stays_within_the_margin():
    said = losing_frauds(0.4, margin=0.02)
    assert all(own["word"] == "harm shown" for own in said)
    assert all(own["sentence"].startswith("In group 1 the class class 1 lost ") for own in said)
    assert all("Accuracy hides it. In every group accuracy stayed" in own["sentence"] for own in said)
    wanted = {"grouping": "tree", "group": "group 1", "class": "class 1", "measure": "recall"}
    assert all(own["harmed_classes"][0] == wanted for own in said)
    # A loss within the margin, however sure, is told and leaves the word.
    small = losing_frauds(0.2, margin=0.19)
    assert sum(own["word"] == "equivalent" for own in small) > 90
    assert "In group 1 the class class 1 lost" in small[0]["sentence"]
    assert "none surely got worse by more than the margin." in small[0]["sentence"]


def test_the_power_for_a_class_in_a_group_is_that_of_its_limits():
    said = losing_frauds(0.1)
    found = np.mean(["recall" in {cell["measure"] for cell in own["harmed_classes"]} for own in said])
    # Recall of frauds, and how often answers of fraud and of order are right: nothing else flips.
    together = intervals.simultaneous(rates.of_classes(0.95), 3)
    assert found == pytest.approx(statistics.power(150, 0.0, 0.1, together), abs=0.1)


def frauds(*, small: int = 0, lost: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A fraud in ten of group A, `small` in group B, of which `lost` are missed after."""
    n = 4000
    before = pd.DataFrame({"id": range(n), "label": "ok", "group": ["A", "B"] * (n // 2)})
    before.loc[before["group"].eq("A") & (before.index % 10 == 0), "label"] = "fraud"
    before.loc[2 * np.arange(small) + 1, "label"] = "fraud"
    before["prediction"] = before["label"]
    after = before.copy()
    after.loc[2 * np.arange(lost) + 1, "prediction"] = "ok"
    after.loc[2 * np.arange(20) + 101, "prediction"] = "fraud"
    return before, after


def test_what_is_said_of_a_class_is_what_the_tables_hold():
    found = auditing.audit(*frauds(small=60, lost=50), margin=0.06)
    row = found.tables["recall"].query("`class` == 'fraud' and group == 'B'").iloc[0]
    settings, own = found.record["settings"], found.record["groupings"][0]["rates"]
    limits = statistics.drop_limits(50, 0, 60, intervals.simultaneous(0.998, settings["rate_family"]))
    assert (row["drop_simultaneous_lower"], row["drop_simultaneous_upper"]) == pytest.approx(limits)
    assert found.sentence.startswith(
        f"In B the class fraud lost 83.3 points of recall ({100 * limits[0]:.1f} to {100 * limits[1]:.1f}, "
        "allowing for all 8 rates of a class in a group)"
    )
    assert "Accuracy hides it. In every group" in found.sentence
    assert (settings["rate_family"], settings["rate_confidence"]) == (3, pytest.approx(0.998))
    assert (own["tested"], own["too_few"]) == (8, 0)
    assert own["surely_worse"][0]["drop"]["simultaneous_lower"] == pytest.approx(limits[0])
    assert found.verdict == "harm shown"
    assert "Verdict: harm shown. In B the class fraud lost 83.3 points" in found.model_card()
    jsonschema.validate(json.loads(found.to_json()), SCHEMA)


def test_a_class_with_too_few_images_is_not_tested_and_that_is_said():
    found = auditing.audit(*frauds(small=19, lost=19), margin=0.06)
    assert found.verdict == "equivalent"
    assert found.sentence.endswith("For 2 rates of a class in a group the rows are too few to tell.")
    assert any(
        "and 2 rates of a class in a group with fewer than 20 rows not even for that" in sentence
        for sentence in found.record["not_tested"]
    )
    assert np.isnan(found.tables["recall"].query("tested == 'too few'")["drop_simultaneous_lower"]).all()


def test_recall_that_is_accuracy_is_not_tested_twice():
    before, after = frauds(small=60, lost=50)
    found = auditing.audit(before.assign(group=before["label"]), after.drop(columns="group"), margin=0.02)
    assert set(found.tables["recall"]["tested"]) == {"is accuracy"}
    assert not (found.rates.query("measure == 'recall'")["tested"] == "yes").any()
    assert found.sentence.startswith("Group fraud lost")
    assert "recall" not in found.sentence


def test_a_group_that_loses_in_all_its_classes_is_told_as_a_group():
    sentence = auditing.audit(*tables(TREES, {"elm": 0.4})).sentence
    assert sentence.startswith("Group elm lost")
    assert "recall" not in sentence


def test_hundreds_of_classes_and_groups_are_tested_in_seconds():
    rng, n = np.random.default_rng(0), 200_000
    before = pd.DataFrame({"id": np.arange(n), "label": rng.integers(200, size=n)})
    before = before.assign(group=rng.integers(40, size=n), prediction=before["label"])
    after = before.copy()
    dead = before["group"].eq(7) & before["label"].eq(3)
    after["prediction"] = np.where(rng.random(n) < 0.02, rng.integers(200, size=n), after["prediction"])
    after.loc[dead, "prediction"] = 0
    found = auditing.audit(before, after)
    assert found.record["groupings"][0]["rates"]["tested"] > 15_000
    assert found.record["settings"]["rate_family"] < 100  # in hardly another one did enough answers flip
    wanted = {"grouping": "group", "group": "7", "class": "3", "measure": "recall"}
    assert found.record["verdict"]["harmed_classes"][0] == wanted


# -- verdicts -----------------------------------------------------------------------------------------


def verdict_of(harm: float, n: int, margin: float | None = None) -> dict:
    counts = np.array([0.9 * n, 0.01 * n + harm * n, 0.01 * n, 0.08 * n, 0]).astype(int)
    found = measures.measure(2 * counts, {"tree": {"ash": counts, "elm": counts}}, margin=margin)
    return sentences.verdict(found, confidence=0.95, margin=margin)


@pytest.mark.parametrize(
    ("harm", "n", "margin", "word", "said"),
    [
        (0.1, 1000, None, "harm shown", "Group ash lost 9.1 points of accuracy, at least"),
        (0.1, 1000, 0.05, "harm shown", "both groups that were looked at; all others surely lost too."),
        (0.013, 500, None, "harm shown", "but no group's loss is sure by itself: who pays cannot be told"),
        (0.0, 5000, None, "no harm found", "a drop of 0.7 points or more would have been found in any group"),
        (0.0, 60, None, "cannot tell", "a drop that would matter, 5.0 points, could go unseen"),
        (0.0, 1000, 0.005, "cannot tell", "the margin, 0.5 points, could go unseen"),
        (0.0, 6, None, "cannot tell", "In ash, elm no drop, however large, would have been found"),
        (0.0, 5000, 0.02, "equivalent", "accuracy stayed within 2.0 points, up or down"),
        (0.005, 50_000, 0.02, "equivalent", "Within that margin, group ash lost 0.5 points"),
    ],
)
def test_the_verdict_and_its_words(harm, n, margin, word, said):
    found = verdict_of(harm, n, margin)
    assert found["word"] == word
    assert said in found["sentence"]
    assert (word == "harm shown") <= bool(found["harmed"] or "who pays cannot be told" in found["sentence"])


def strangely_answered() -> auditing.Audit:
    """An audit in which one answer of ten is no label, before."""
    before, after = tables(TREES, {"elm": 0.15})
    before.loc[::10, "prediction"] = "<b>wasp"
    return auditing.audit(before, after)


def test_what_must_be_known_first_is_said_first_everywhere(tmp_path):
    found = strangely_answered()
    (warning,) = found.record["verdict"]["warnings"]
    assert warning.startswith("The first table gives 190 of its 1,900 answers (10.0 %) as classes that are")
    assert found.sentence.startswith(warning)
    assert repr(found).startswith(f"{warning}\n{found.verdict.capitalize()}. ")
    assert repr(found).count(warning) == 1
    card = found.model_card()
    assert card.startswith(formats.as_markdown(warning))
    assert card.count("such as") == 1
    box = BeautifulSoup(report.page(found.record), "html.parser").find(class_="verdict")
    paragraphs = [" ".join(own.get_text(" ").split()) for own in box.find_all("p")]
    assert paragraphs[0] == warning
    assert not any(warning in own for own in paragraphs[1:])
    jsonschema.validate(json.loads(found.to_json()), SCHEMA)
    assert audited().record["verdict"]["warnings"] == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (0.0, "No answer changed at all, nor any score: are these two different models?"),
        (1e-9, "No answer changed at all, though scores did."),
        (None, "No answer changed at all: are these two different models?"),
    ],
)
def test_that_nothing_changed_is_said_first(change, said):
    before, _ = tables(TREES, {}, scores=change is not None)
    after = before.copy()
    if change is not None:
        after["logit_moth"] += change
    found = auditing.audit(before, after, margin=0.05)
    assert found.record["verdict"]["warnings"] == [said]
    assert found.sentence.startswith(f"{said} In every group accuracy stayed within 5.0 points")
    assert found.verdict == "equivalent"


def test_one_file_given_twice_is_refused(tmp_path):
    before, after = tables(TREES, {"elm": 0.3})
    first, copy = tmp_path / "first.csv", tmp_path / "copy.csv"
    for path in (first, copy):
        before.to_csv(path, index=False)
    for second in (first, str(first), copy, tmp_path / ".." / tmp_path.name / "first.csv"):
        with pytest.raises(BadInput, match="hold the same, byte for byte; expected what two models answered"):
            auditing.audit(first, second)
    after.to_csv(copy, index=False)
    assert auditing.audit(first, copy).verdict == "harm shown"
    with pytest.raises(BadInput, match=r"gone.csv is no file"):
        auditing.audit(tmp_path / "gone.csv", tmp_path / "gone.csv")


def test_no_verdict_says_that_nothing_was_found_without_what_could_have_been():
    for n in (20, 100, 500, 2000, 20_000):
        for margin in (None, 0.01):
            found = verdict_of(0.0, n, margin)
            if found["word"] in ("no harm found", "cannot tell"):
                assert "would have been found" in found["sentence"]


def test_what_could_have_been_seen_is_what_the_record_says():
    table = audited().power(0.03)
    record = [group for grouping in audited().record["groupings"] for group in grouping["groups"]]
    assert table["smallest_drop"].tolist() == [group["detectable_drop"] for group in record]
    enough = table["n"] >= table["images_needed"]
    assert enough.any()
    assert not enough.all()
    assert (enough == (table["power"] >= measures.POWER)).all()
    assert (enough == (table["smallest_drop"] <= 0.03)).all()


def test_in_a_notebook_an_audit_is_its_report_in_a_frame_of_its_own():
    (frame,) = BeautifulSoup(audited()._repr_html_(), "html.parser").find_all(True)
    assert frame["srcdoc"] == report.page(audited().record | {"created": ""})
    assert "allow-same-origin" not in frame["sandbox"]
    assert frame["title"]


def test_the_time_is_in_the_files_and_not_in_what_a_notebook_shows(tmp_path):
    found = audited()
    later = auditing.Audit(found.record | {"created": "2031-01-01T00:00:00+00:00"}, found.rates)
    assert found._repr_html_() == later._repr_html_()
    later.write(tmp_path)
    assert "1 January 2031, 00:00 UTC" in (tmp_path / "report.html").read_text()
    assert json.loads((tmp_path / "audit.json").read_text())["created"] == "2031-01-01T00:00:00+00:00"


# -- pools, recall, distributions ---------------------------------------------------------------------


def small_cells(rows: int) -> auditing.Audit:
    """A crossing of two columns in which some cells have few images."""
    tree = ["ash"] * 200 + ["elm"] * 200
    light = ["day"] * 150 + ["night"] * 50 + ["day"] * (200 - 2 * rows) + ["dusk"] * rows + ["night"] * rows
    base = pd.DataFrame({"id": range(400), "label": "moth", "tree": tree, "light": light})
    before = base.assign(prediction=["moth", "moth", "fly", "moth"] * 100)
    after = base.assign(prediction=["moth", "fly", "moth", "moth"] * 100)
    return auditing.audit(before, after, groups=["tree", "light"])


def test_small_cells_are_pooled_and_named():
    crossed = small_cells(rows=15).record["groupings"][-1]
    assert {name: crossed["pooled"][name] for name in ("smallest", "n", "kept")} == {
        "smallest": 20,
        "n": 30,
        "kept": True,
    }
    assert [(cell["cell"], cell["n"]) for cell in crossed["pooled"]["cells"]] == [
        ("tree=elm x light=dusk", 15),
        ("tree=elm x light=night", 15),
    ]
    assert [(group["group"], group["n"], group["pooled"]) for group in crossed["groups"]] == [
        ("tree=ash x light=day", 150, False),
        ("tree=ash x light=night", 50, False),
        ("tree=elm x light=day", 170, False),
        ("2 small cells", 30, True),
    ]


def test_a_pool_that_is_itself_too_small_is_no_group_but_counts_over_all():
    found = small_cells(rows=5)
    crossed = found.record["groupings"][-1]
    assert crossed["pooled"]["kept"] is False
    assert sum(group["n"] for group in crossed["groups"]) == 390
    assert found.record["overall"]["n"] == 400
    assert any("count over all rows alone" in sentence for sentence in found.record["not_tested"])


def test_cells_of_the_smallest_size_stand_alone():
    assert small_cells(rows=20).record["groupings"][-1]["pooled"] is None


def test_fvo_is_held_to_more_where_there_are_several_groupings():
    found = audited().record
    assert [grouping["fvo_confidence"] for grouping in found["groupings"]] == pytest.approx(
        [1 - 0.05 / 3] * 3
    )
    assert found["settings"]["family"] == 4 + 2 + 8


def test_recall_fell_where_it_was_made_to_fall():
    recall = audited().record["groupings"][0]["recall"]
    assert {row["group"] for row in recall["largest_drops"][:3]} == {"group=elm"}
    drops = [row["drop"]["estimate"] for row in recall["largest_drops"]]
    assert drops == sorted(drops, reverse=True)
    assert recall["cells"] == 12
    for row in recall["disparities"]:
        assert row["increase"] == pytest.approx(row["after"] - row["before"])


def test_distributions_hold_every_image_once_on_each_side():
    for grouping in audited().record["groupings"]:
        for measure in ("confidence", "margin"):
            found = grouping["distributions"][measure]
            for group, row in zip(grouping["groups"], found["groups"], strict=True):
                assert row["group"] == group["group"]
                assert sum(row["before"]) == sum(row["after"]) == group["n"]
                assert len(found["edges"]) == len(row["before"]) + 1
    edges = np.array(audited().record["groupings"][0]["distributions"]["margin"]["edges"])
    assert np.abs(edges).min() < 1e-6  # right and wrong never share a bin


def test_wrong_answers_are_left_of_zero_margin():
    grouping = audited().record["groupings"][0]
    found = grouping["distributions"]["margin"]
    wrong = np.array(found["edges"])[1:] <= 1e-9
    for group, row in zip(grouping["groups"], found["groups"], strict=True):
        share = np.array(row["after"])[wrong].sum() / group["n"]
        assert 1 - share == pytest.approx(group["accuracy_after"]["estimate"])


def test_probabilities_give_the_confidence_of_their_logits():
    before, after = tables(TREES, {}, scores=True)
    columns = [f"logit_{name}" for name in CLASSES]

    def soft(table: pd.DataFrame) -> pd.DataFrame:
        odds = np.exp(table[columns])
        shares = odds.div(odds.sum(axis=1), axis=0).rename(
            columns=lambda name: name.replace("logit", "probability")
        )
        return table.drop(columns=columns).join(shares)

    by_logits = auditing.audit(before, after).record["groupings"][0]["distributions"]["confidence"]
    by_shares = auditing.audit(soft(before), soft(after)).record["groupings"][0]["distributions"][
        "confidence"
    ]
    assert by_logits == by_shares


# -- rows that one table lacks ------------------------------------------------------------------------


def lacking(share: dict[str, float], **settings) -> auditing.Audit:
    """An audit in which the second table lacks the first rows of groups, and answers the others alike."""
    before, _ = tables(TREES, {}, seed=1)
    place = before.groupby("group").cumcount()
    gone = place < before["group"].map(TREES) * before["group"].map(share).fillna(0)
    return auditing.audit(before, before[~gone], drop_unmatched=True, **settings)


def test_rows_that_are_missing_are_counted_by_group_and_told_first(tmp_path):
    found = lacking({"elm": 0.3, "ash": 0.01}, groups=["group", "light"], margin=0.05)
    (gone,) = found.record["compared"]["dropped"]
    assert (gone["reason"], gone["n"], gone["of"]) == ("only in The first table", 69, 1900)
    by_tree = {row["group"]: (row["n"], row["of"]) for row in gone["groups"] if row["grouping"] == "group"}
    assert by_tree == {"group=elm": (60, 200), "group=ash": (9, 900)}
    assert {row["grouping"] for row in gone["groups"]} == {"group", "light", "group x light"}
    for grouping in ("group", "light", "group x light"):
        own = [row for row in gone["groups"] if row["grouping"] == grouping]
        assert sum(row["n"] for row in own) == 69
        assert sum(row["right"] for row in own) == gone["right"]
    warning = found.record["verdict"]["warnings"][-1]
    assert warning.startswith(
        "69 of 1,900 rows of The first table are missing from The second table and were left out: by group "
        "group=elm 60 of 200, group=ash 9 of 900; by light "
    )
    assert warning.endswith(
        "More are missing of group=elm than chance explains: perhaps because they went wrong."
    )
    jsonschema.validate(json.loads(found.to_json()), SCHEMA)
    for text in (repr(found), found.model_card(), report.page(found.record)):
        assert "elm 60 of 200, group=ash 9 of 900" in text
    facts = BeautifulSoup(report.page(found.record), "html.parser").find(class_="facts")
    assert "69: only in The first table ( group=elm 60 of 200" in " ".join(facts.get_text(" ").split())


def test_nothing_is_called_well_where_missing_rows_could_hide_the_loss():
    assert lacking({}, margin=0.05).verdict == "equivalent"
    found = lacking({"elm": 0.3}, margin=0.05)
    assert found.verdict == "cannot tell"
    assert "If the 60 missing rows of elm count as wrong, elm lost" in found.sentence
    # So few that they could not: the word stays.
    assert lacking({"elm": 0.03}, margin=0.05).verdict == "equivalent"
    gone = lacking({"elm": 1.0}, margin=0.05, fail_if=["worst_group_drop > 0.5", "fvo_increase > 0.5"])
    assert gone.verdict == "cannot tell"
    assert "elm 200 of 200" in gone.sentence
    assert [gate["passed"] for gate in gone.record["gates"]] == [False, False]
    assert not gone.passes("fvo_after > 0.5", decide_on="estimate")


def test_a_column_of_groups_may_be_called_anything():
    before, _ = (one.rename(columns={"group": "n", "light": "right"}) for one in tables(TREES, {}))
    found = auditing.audit(before, before.iloc[5:], groups=["n", "right"], drop_unmatched=True)
    own = found.record["compared"]["dropped"][0]["groups"]
    assert own[0] == {"grouping": "n", "group": "n=ash", "n": 5, "of": 900, "right": own[0]["right"]}


def test_rows_that_are_missing_at_random_are_not_called_conspicuous():
    rng, called = np.random.default_rng(0), 0
    before, _ = tables(TREES, {}, seed=1)
    names = sorted(TREES)
    own = [cells.Cells("group", ["group"], names, names, np.empty(0, np.intp), np.empty(0), None, [{}])]
    for _ in range(200):
        first = predictions.read(before, ["group"], called="a", with_labels=True)
        second = predictions.read(before[rng.random(1900) < 0.97], ["group"], called="b", with_labels=True)
        pairs = predictions.pair(first, second, ["group"], drop_unmatched=True)
        (out,) = pairs.left_out
        dropped = cells.dropped(out, pairs, own, 20)
        called += bool(cells.conspicuous(out, dropped))
    assert 1 <= called <= 12


def test_rows_that_are_missing_before_are_told_too():
    before, after = tables(TREES, {}, seed=1)
    gone = before["group"].eq("elm") & (before.index % 2 == 0)
    found = auditing.audit(before[~gone], after, drop_unmatched=True)
    assert (
        "100 of 1,900 rows of The second table are missing from The first table and were left out: by group "
        in (found.sentence)
    )
    assert "elm 100 of 200. More are missing of elm than" in found.sentence
    unknown = auditing.audit(before[~gone], after[["id", "prediction"]], drop_unmatched=True)
    assert "were left out; of which groups is not known." in unknown.sentence
    jsonschema.validate(json.loads(found.to_json()), SCHEMA)
    jsonschema.validate(json.loads(unknown.to_json()), SCHEMA)


def test_missing_rows_of_small_cells_count_where_the_cells_do():
    tree = ["ash"] * 200 + ["elm"] * 200
    light = ["day"] * 150 + ["night"] * 50 + ["day"] * 140 + ["dusk"] * 15 + ["night"] * 45
    before = pd.DataFrame(
        {"id": range(400), "label": "moth", "tree": tree, "light": light, "prediction": "moth"}
    )
    before["prediction"] = ["moth", "fly"] * 200
    # Of elm x dusk (15) five are missing, of elm x night (45) thirty, which leaves it too small as well.
    gone = before.index.isin([*range(340, 345), *range(355, 385)])
    found = auditing.audit(before, before[~gone], groups=["tree", "light"], drop_unmatched=True)
    crossed = found.record["groupings"][-1]
    assert {cell["cell"] for cell in crossed["pooled"]["cells"]} == {
        "tree=elm x light=dusk",
        "tree=elm x light=night",
    }
    (entry,) = found.record["compared"]["dropped"]
    own = {
        row["group"]: (row["n"], row["of"]) for row in entry["groups"] if row["grouping"] == "tree x light"
    }
    assert own == {"2 small cells": (5, 15), "tree=elm x light=night": (30, 45)}
    gate = gates.parse("worst_group_drop > 0.3").judge(found.record)
    assert (gate["passed"], gate["with_missing"]["group"]) == (False, "tree=elm x light=night")


# -- what comes out -----------------------------------------------------------------------------------


@pytest.mark.parametrize("scores", [True, False])
def test_the_record_is_what_the_schema_says(scores):
    jsonschema.validate(json.loads(audited(scores).to_json()), SCHEMA)


def test_the_record_of_little_is_what_the_schema_says():
    few = pd.DataFrame({"id": [1, 2, 3], "label": "a", "group": "only", "prediction": ["a", "a", "b"]})
    with pytest.raises(BadInput, match="No group of group has 20 rows; expected some: lower smallest_group"):
        auditing.audit(few, few)
    found = auditing.audit(few, few, smallest_group=2)
    jsonschema.validate(json.loads(found.to_json()), SCHEMA)
    assert found.verdict == "cannot tell"
    assert found.record["groupings"][0]["fvo_increase"]["estimate"] == 0
    assert any("one group alone" in sentence for sentence in found.record["not_tested"])


def test_the_same_audit_twice_is_the_same():
    once, again = (
        auditing.audit(*tables(TREES, {"elm": 0.15}), groups=["group", "light"]).record for _ in range(2)
    )
    assert once | {"created": ""} == again | {"created": ""}


def test_tables_and_json_hold_the_same_numbers(tmp_path):
    found = audited()
    paths = {path.name: path for path in found.write(tmp_path)}
    assert set(paths) == {
        "report.html", "audit.json", "model_card.md", "groups.csv", "fvo.csv", "recall.csv",
        "rates.csv", "distributions.csv", "layers.csv", "gates.csv",
    }  # fmt: skip
    assert json.loads(paths["audit.json"].read_text()) == json.loads(found.to_json())
    groups = pd.read_csv(paths["groups.csv"], keep_default_na=False)
    elm = groups.query("grouping == 'group' and group == 'group=elm'").iloc[0]
    (expected,) = [group for group in found.record["groupings"][0]["groups"] if group["value"] == "elm"]
    assert elm["drop"] == pytest.approx(expected["drop"]["estimate"])
    assert elm["drop_simultaneous_lower"] == pytest.approx(expected["drop"]["simultaneous_lower"])
    assert len(groups) == 1 + 4 + 2 + 8
    assert not pd.read_csv(paths["gates.csv"])["passed"].all()


def test_no_table_of_an_earlier_audit_is_left(tmp_path):
    plain = auditing.audit(*tables(TREES, {}))
    first = audited().write(tmp_path, {"before": tables(TREES, {})[0]})
    assert {"layers.csv", "gates.csv", "before.parquet"} < {path.name for path in first}
    written = plain.write(tmp_path)
    assert set(tmp_path.iterdir()) == set(written)
    assert "equivalence" not in plain.tables["groups"]
    assert "equivalence_equivalent" in audited().tables["groups"]


@pytest.mark.parametrize(
    "theirs",
    [
        {"gates.csv": "mine"},
        {"audit.json": "{}", "groups.csv": "mine"},
        {"audit.json": "[1]"},
        {"audit.json": '{"schema": "audit-7"}'},
        {"audit.json": "[" * 100_000},
        {"audit.json": "\x00"},
        {".gitignore": ""},
    ],
)
def test_files_of_somebody_else_are_never_touched(tmp_path, theirs):
    for name, content in theirs.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(BadInput, match="which is no part of an audit; expected a new or an empty folder"):
        audited().write(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == theirs


def test_a_file_beside_an_audit_is_named_and_survives(tmp_path):
    audited().write(tmp_path)
    (tmp_path / "notes.md").write_text("mine")
    with pytest.raises(BadInput, match=r"holds 'notes.md', which is no part of an audit; .* move it away"):
        audited().write(tmp_path)
    assert (tmp_path / "notes.md").read_text() == "mine"
    (tmp_path / "notes.md").unlink()
    (tmp_path / "pooled.csv").mkdir()
    with pytest.raises(BadInput, match=r"holds 'pooled.csv', which is no part"):
        audited().write(tmp_path)


def test_gates_can_be_asked_afterwards():
    found = audited()
    assert found.record["passed"] is False
    assert not found.passes()
    assert found.passes("overall_drop > 0.2", "fvo_increase > 0.9")
    assert not found.passes("overall_drop > 0.2", "worst_group_drop > 0.02")
    assert found.passes("worst_group_drop > 0.14")
    assert not found.passes("worst_group_drop > 0.14", decide_on="upper")
    assert auditing.audit(*tables(TREES, {})).passes()  # without gates there is nothing to fail


def test_the_model_card_is_one_paragraph():
    card = audited().model_card()
    assert "\n" not in card
    assert "Accuracy over all went from" in card
    assert "elm" in card
    assert "Gates that did not pass: worst" in card
    assert len(auditing.audit(*tables(TREES, {"elm": 0.15})).model_card().split()) <= 120


def test_a_gap_that_fell_is_said_to_have_fallen():
    helped, harmed = tables(TREES, {"elm": 0.3})
    found = auditing.audit(harmed, helped)
    change = found.record["groupings"][0]["fvo_increase"]
    fall, least, most = (f"{-100 * change[end]:.1f}" for end in ("estimate", "upper", "lower"))
    assert f"points, a fall of {fall} ({least} to {most})." in found.model_card()
    assert "The gap between the best and the worst group went from" in found.model_card()
    # Where somebody else lost, the verdict tells of the gap too.
    record = found.record | {"groupings": [dict(found.record["groupings"][0])]}
    assert [*sentences._gap(record)] == [
        f"The gap between the best and the worst group shrank by {fall} points ({least} to {most})."
    ]
    assert f"rose by {fall} points (" in auditing.audit(helped, harmed).model_card()
    same = auditing.audit(helped, helped).record
    assert next(sentences._gap(same)).startswith("It is not decided whether the gap between the best and the")


NASTY = [
    "=cmd|' /C calc'!A0", "+1",
    "-1", "@SUM(A1)", "\tx", "\r=1", "<script>alert(1)</script>", "a\nb", "[x](y)",
]  # fmt: skip


def test_names_that_mean_harm_stay_text(tmp_path):
    n = 40 * len(NASTY)
    base = pd.DataFrame({"id": [f"={i}" for i in range(n)], "label": "=1+1", "group": NASTY * 40})
    before = base.assign(prediction="=1+1")
    after = base.assign(prediction=["=1+1", "@x"] * (n // 2))
    found = auditing.audit(before, after)
    for path in found.write(tmp_path):
        if path.suffix == ".csv":
            with path.open(newline="") as file:
                for row in csv.reader(file):
                    for cell in row:
                        number = cell.lstrip("-").replace(".", "").replace("e-", "").isdigit()
                        assert number or not cell.startswith(("=", "+", "-", "@", "\t", "\r")), cell
                        assert "\n" not in cell
    names = pd.read_csv(tmp_path / "groups.csv")["group"]
    assert "'=cmd|' /C calc'!A0" in set(names)
    card = (tmp_path / "model_card.md").read_text()
    assert "<script>" not in card
    assert card.count("\n") == 1
    recorded = [group["group"] for group in json.loads(found.to_json())["groupings"][0]["groups"]]
    assert sorted(recorded) == sorted(NASTY)  # JSON needs no defence: the names as they are


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"groups": []}, "groups is []; expected one column or several"),
        ({"groups": None}, "groups is None; expected one column or several"),
        ({"groups": [5]}, "groups is [5]; expected one column or several"),
        ({"names": ("a",)}, "names is ('a',); expected two names, of before and of after"),
        ({"names": "ab"}, "names is 'ab'; expected two names"),
        ({"names": ("a", "\ud800")}, "names is ('a', '\\ud800'); expected two names"),
        ({"seed": -1}, "seed is -1; expected a whole number of at least 0"),
        ({"seed": 1.5}, "seed is 1.5; expected a whole number"),
        ({"confidence": "0.95"}, "confidence is '0.95'; expected a fraction from 0.5 to 1"),
        ({"margin": "0.02"}, "margin is '0.02'; expected a fraction between 0 and 1"),
        ({"smallest_group": "20"}, "smallest_group is '20'; expected 2 rows or more"),
        ({"fail_if": "fvo_increase > 0.03"}, "fail_if is 'fvo_increase > 0.03'; expected gates, such as ['f"),
        ({"fail_if": None}, "fail_if is None; expected gates"),
        ({"description": 5}, "description is 5; expected text, or none"),
        ({"groups": ["group", "group"]}, "each once, such as gender,race"),
        ({"groups": "colour"}, "has no column colour; it has id, label, group, light, prediction, many"),
        ({"groups": "logit_bee"}, "groups names logit_bee, which is a column of scores"),
        ({"smallest_group": 1}, "smallest_group is 1; expected 2 rows or more"),
        ({"confidence": 95}, "confidence is 95; expected a fraction from 0.5 to 1"),
        ({"margin": 2}, "margin is 2; expected a fraction between 0 and 1"),
        ({"fail_if": ["accuracy < 1"]}, "The gate 'accuracy < 1' cannot be read"),
        ({"decide_on": "middle", "fail_if": ["fvo_after > 0.1"]}, "decide_on is 'middle'"),
        ({"decide_on": "middle"}, "decide_on is 'middle'; expected lower"),
        (
            {"groups": "many", "smallest_group": 2},
            "many has 300 groups; expected 250 at most: name columns with fewer",
        ),
        ({"layers": pd.DataFrame({"layer": ["conv"]})}, "The table of layers has no column weights"),
        ({"groups": ["group", "light"], "smallest_group": 250}, "No group of group x light has 250 rows"),
        ({"crossed": "all"}, "crossed is 'all'; expected full (all columns"),
        (
            {"reference": "oak"},
            "reference is 'oak', which is no group of this audit; expected one of: ash, elm",
        ),
        ({"cluster": "person"}, "has no column person; it has id"),
        ({"weight": "many"}, "has 2 entries of many that are not above 0"),
        ({"weight": "label"}, "weight names label, which holds text here"),
        ({"threshold": 0.5}, "A threshold was given and no positive class"),
        ({"positive": "wasp"}, "positive is 'wasp', which is no class of these tables; expected one of: bee"),
        ({"positive": "bee", "threshold": 0.5}, "has no scores, which a threshold needs"),
        ({"fail_if": ["verdict = equivalent"]}, "asks for the verdict equivalent, and no margin was given"),
        ({"fail_if": ["verdict = fine"]}, "names the verdict 'fine'; expected one of: harm, no_harm"),
        ({"fail_if": ["recall_drop > 0.1"]}, "cannot be read"),
        ({"fail_if": ["recall_drop[wasp] > 0.1"]}, "names no class of this audit; expected one of: bee"),
        ({"fail_if": ["worst_group_drop < 0.1"]}, "has the sign <; expected > or >="),
        ({"fail_if": ["calibration_rise > 0.1"]}, "finds nothing to hold; expected scores of each class"),
    ],
)
def test_bad_settings_are_refused_in_one_sentence(settings, said):
    before, after = tables({"ash": 300, "elm": 300}, {})
    before["many"] = np.arange(600) % 300
    with pytest.raises(BadInput) as refused:
        auditing.audit(before, after, **settings)
    assert said in str(refused.value)


def test_a_column_of_one_group_does_not_stand_for_the_gap():
    before, after = (one.assign(site="here") for one in tables(TREES, {"elm": 0.3}))
    found = auditing.audit(
        before, after, groups=["site", "group"], fail_if=["fvo_increase > 0.1", "fvo_after > 0.9"]
    )
    assert [gate["where"] for gate in found.record["gates"]] == ["group", "group"]
    assert "By group, the gap between the best and the worst group rose by" in found.sentence
    assert "by site went" not in found.model_card()
    assert "Gap between groups (FVO) by group" in " ".join(
        BeautifulSoup(report.page(found.record), "html.parser").find(class_="tiles").get_text(" ").split()
    )
    # Nothing changed: then the gap of one group, 0 for sure, would be the one that surely rose most.
    same = auditing.audit(before, before, groups=["site", "group"], fail_if=["fvo_increase > 0.1"])
    assert same.record["gates"][0]["where"] != "site"
    alone = auditing.audit(
        *(one.query("group == 'elm'") for one in (before, after)), fail_if=["fvo_increase > 0.1"]
    )
    assert alone.passes()
    assert "gap" not in alone.sentence
    assert "gap" not in alone.model_card()


def test_cells_that_cannot_be_told_apart_by_name_are_refused():
    base = pd.DataFrame({"id": range(80), "label": "moth", "prediction": "moth"})
    base["tree"], base["light"] = ["ash x light=dim", "ash"] * 40, ["day", "dim x light=day"] * 40
    with pytest.raises(BadInput, match="are both called 'tree=ash x light=dim x light=day'; expected names"):
        auditing.audit(base, base, groups=["tree", "light"])
