import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch import nn

from fairq_book.chapters.disparity import tables
from fairq_book.experiments.studies import Prediction, Study
from fairq_book.kit import tables as kit_tables
from fairq_utils.data.sources import DataSettings
from fairq_utils.quantization.models import storage_bytes
from fairq_utils.treatments.treatment import FP32, Treatment


def made_up(treatment: Treatment, seed: int, logits: np.ndarray) -> Prediction:
    labels = torch.tensor([0, 0, 0, 0, 1, 1])
    return Prediction(
        Study(seed=seed), treatment, torch.tensor(logits), labels, labels, ("a", "b"), ("many", "few")
    )


def test_tables_pair_seeds_and_keep_each_seeds_own_collapse():
    right = np.array([[1.0, 0.0]] * 4 + [[0.0, 1.0]] * 2)
    all_a, all_b = np.array([[1.0, 0.0]] * 6), np.array([[0.0, 1.0]] * 6)
    found = [
        made_up(FP32, 0, right),
        made_up(Treatment(2), 0, all_a),
        made_up(FP32, 1, right),
        made_up(Treatment(2), 1, all_b),
    ]
    accuracy = kit_tables.accuracy(found).set_index(["treatment", "group"])["estimate"]
    assert accuracy["fp32"].to_dict() == {"many": 1.0, "few": 1.0, "OA": 1.0, "FVO": 0.0}
    assert accuracy["int2"].to_dict() == pytest.approx({"many": 0.5, "few": 0.5, "OA": 0.5, "FVO": 0.0})
    change = kit_tables.change(found).set_index("group")["estimate"]
    assert change.to_dict() == pytest.approx({"many": -0.5, "few": -0.5, "OA": -0.5, "FVO": 0.0})
    # Pooled, two networks that each give one answer would look as if they used both classes.
    collapse = kit_tables.collapse(found).set_index("treatment")
    of_int2 = {"share": 1.0, "effective_classes": 1.0, "fewest": 1.0, "most": 1.0, "standing": 0.0}
    assert collapse.loc["int2"].to_dict() == of_int2
    assert collapse.loc["fp32", "standing"] == 1.0  # with two labels too
    chance = kit_tables.chance(found).set_index("treatment")
    assert chance.loc["fp32", "upper"] == 0
    assert chance.loc["int2", "upper"] >= chance.loc["int2", "median"] >= 0
    assert isinstance(chance, pd.DataFrame)


def test_right_answers_of_each_network_are_counted():
    right = np.array([[1.0, 0.0]] * 4 + [[0.0, 1.0]] * 2)
    counted = kit_tables.accuracy_by_seed([made_up(FP32, 3, right), made_up(Treatment(2), 3, 1 - right)])
    assert counted.to_dict("list") == {
        "treatment": ["fp32", "fp32", "int2", "int2"],
        "seed": [3] * 4,
        "group": ["many", "few"] * 2,
        "n": [4, 2] * 2,
        "correct": [4, 2, 0, 0],
    }


def test_size_is_that_of_the_packed_network_and_the_grid_is_named():
    network = nn.Sequential(nn.Linear(300, 400), nn.Linear(400, 2))
    asked = [FP32, Treatment(4), Treatment.parse("int4-mse-channel")]
    networks = [treatment.apply(network, None) for treatment in asked]
    rows = [(t.name, group, 10, 0.5, 0.4, 0.6) for t in asked for group in ("few", "OA", "FVO")]
    accuracies = pd.DataFrame(rows, columns=["treatment", "group", "n", "estimate", "lower", "upper"])
    stored = tables.storage(networks, asked, accuracies)
    assert set(stored["group"]) == {"OA", "FVO"}
    for treatment, own in zip(asked, networks, strict=True):
        megabytes = stored.loc[stored["treatment"] == treatment.name, "megabytes"].unique()
        assert megabytes == [storage_bytes(own) / 1e6]
    assert stored.groupby("treatment")["grid"].first().to_dict() == {
        "fp32": "full precision",
        "int4": "one scale a tensor, largest weight",
        "int4-mse-channel": "one scale a channel, least squared error",
    }


KINDS = ("moths", "moths-by-size", "moths-by-difficulty", "moths-equal")


def moths_that_lose(lost: dict[str, float], seeds: int, n: int = 400) -> list[Prediction]:
    """Predictions of two groups: right before, and after that Others lose such a share on each kind."""
    generator = np.random.default_rng(0)
    groups = torch.arange(2).repeat_interleave(n)
    labels = torch.zeros(2 * n, dtype=torch.long)
    found = []
    for kind in KINDS:
        for seed in range(seeds):
            study = Study(dataset=DataSettings(name=kind), seed=seed)
            wrong = (generator.random(2 * n) < lost[kind]) & (groups.numpy() == 1)
            for treatment, misses in ((FP32, np.zeros(2 * n, bool)), (Treatment(3), wrong)):
                logits = torch.tensor(np.where(misses[:, None], [0.0, 1.0], [1.0, 0.0]))
                found.append(
                    Prediction(study, treatment, logits, labels, groups, ("a", "b"), ("species", "Others"))
                )
    return found


def test_the_effects_of_size_and_difficulty_are_those_that_were_put_in():
    lost = {"moths": 0.5, "moths-by-size": 0.1, "moths-by-difficulty": 0.4, "moths-equal": 0.0}
    effects = tables.size_and_difficulty(moths_that_lose(lost, seeds=4)).set_index("effect")
    for kind in KINDS:
        assert effects.loc[kind, "lower"] <= -lost[kind] <= effects.loc[kind, "upper"]
        assert effects.loc[kind, "n"] == 400
        assert effects.loc[kind, "before"] == 1.0
    # On average over the other: size adds (50 + 10 - 40 - 0) / 2 points, difficulty (50 + 40 - 10 - 0) / 2.
    assert effects.loc["size", "lower"] < -0.1 < effects.loc["size", "upper"] < 0
    assert effects.loc["difficulty", "lower"] < -0.4 < effects.loc["difficulty", "upper"] < 0
    assert effects.loc["size", "estimate"] == pytest.approx(-0.1, abs=0.03)


def test_with_one_seed_the_interval_of_a_kind_is_welchs():
    lost = dict.fromkeys(KINDS, 0.3)
    found = moths_that_lose(lost, seeds=1)
    effects = tables.size_and_difficulty(found, level=0.9).set_index("effect")
    for kind in KINDS:
        own = [p for p in found if p.study.dataset.name == kind]
        change = own[1].correct.astype(float) - own[0].correct
        others, species = change[own[0].groups == 1], change[own[0].groups == 0]
        oracle = stats.ttest_ind(others, species, equal_var=False).confidence_interval(0.9)
        assert effects.loc[kind, ["lower", "upper"]].tolist() == pytest.approx([oracle.low, oracle.high])
