import numpy as np
import pandas as pd
import pytest
import torch

from fairq_utils import tables
from fairq_utils.studies import Prediction, Study
from fairq_utils.treatments import FP32, Treatment


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
    accuracy = tables.accuracy(found).set_index(["treatment", "group"])["estimate"]
    assert accuracy["fp32"].to_dict() == {"many": 1.0, "few": 1.0, "OA": 1.0, "FVO": 0.0}
    assert accuracy["int2"].to_dict() == pytest.approx({"many": 0.5, "few": 0.5, "OA": 0.5, "FVO": 0.0})
    change = tables.change(found).set_index("group")["estimate"]
    assert change.to_dict() == pytest.approx({"many": -0.5, "few": -0.5, "OA": -0.5, "FVO": 0.0})
    # Pooled, two networks that each give one answer would look as if they used both classes.
    collapse = tables.collapse(found).set_index("treatment")
    assert collapse.loc["int2"].to_dict() == {"share": 1.0, "effective_classes": 1.0}
    chance = tables.chance(found).set_index("treatment")
    assert chance.loc["fp32", "upper"] == 0
    assert chance.loc["int2", "upper"] >= chance.loc["int2", "median"] >= 0
    assert isinstance(chance, pd.DataFrame)


def test_right_answers_of_each_network_are_counted():
    right = np.array([[1.0, 0.0]] * 4 + [[0.0, 1.0]] * 2)
    counted = tables.accuracy_by_seed([made_up(FP32, 3, right), made_up(Treatment(2), 3, 1 - right)])
    assert counted.to_dict("list") == {
        "treatment": ["fp32", "fp32", "int2", "int2"],
        "seed": [3] * 4,
        "group": ["many", "few"] * 2,
        "n": [4, 2] * 2,
        "correct": [4, 2, 0, 0],
    }
