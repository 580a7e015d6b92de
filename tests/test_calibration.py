"""The difficulties of the moths are those that were calibrated, and give what they were chosen for."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from fairq_book.cli.main import main
from fairq_book.experiments.calibration import TARGETS, Tried
from fairq_utils.data.sources import MOTHS

TABLE = Path(__file__).parent.parent / "book" / "data" / "calibration.csv"


@pytest.fixture(scope="module")
def found() -> dict[str, pd.DataFrame]:
    table = pd.read_csv(TABLE)
    return {str(name): own.set_index("group") for name, own in table.groupby("dataset", sort=False)}


def test_every_kind_of_moths_is_in_the_table_with_the_difficulty_that_it_has(found):
    assert list(found) == list(TARGETS)
    assert set(TARGETS) == set(MOTHS)
    for name, own in found.items():
        assert own["difficulty"].tolist() == list(TARGETS[name].kind.difficulty)
        assert own.index.tolist() == list(TARGETS[name].groups)
        assert (own["networks"] >= 15).all()


@pytest.mark.parametrize(("name", "others"), [("moths-harder", 35), ("moths", 50), ("moths-easier", 65)])
def test_others_are_as_hard_as_is_said_and_the_rest_as_on_faces(found, name, others):
    accuracy = found[name]["accuracy"]
    assert abs(accuracy["Others"] - others) <= 5
    assert abs(accuracy["Alder"] - 90) <= 3
    assert accuracy[["Bracken", "Clover", "Damson"]].between(75, 88).all()


def test_equal_moths_are_equal(found):
    assert np.ptp(found["moths-equal"]["accuracy"]) <= 3


@pytest.mark.parametrize("name", ["moths-by-size", "moths-by-difficulty", "moths-by-both"])
def test_the_focal_group_keeps_something_to_lose_and_peers_are_alike(found, name):
    accuracy = found[name]["accuracy"]
    peers = accuracy.drop("Focal")
    assert 30 <= accuracy["Focal"] < peers.min()
    assert np.ptp(peers) <= 6


def test_a_step_makes_harder_who_is_right_too_often():
    tried = Tried(TARGETS["moths-equal"], np.array([[0.9, 0.8, 0.7, 0.8, 0.8], [0.9, 0.8, 0.7, 0.8, 0.8]]))
    before, after = tried.target.kind.difficulty, tried.next().kind.difficulty
    assert after[0] > before[0]
    assert after[2] < before[2]
    assert [after[1], *after[3:]] == [before[1], *before[3:]]
    assert tried.table["accuracy"].tolist() == [90, 80, 70, 80, 80]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["moth"], "moths is 'moth'; expected some of: moths, moths-harder"),
        (["--seeds", "0-3"], "expected those of pilots, from 900 on"),
        (["--arch", "resnet19", "--rounds", "1", "--workers", "1"], "arch is 'resnet19'; expected one of"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(given, said):
    done = CliRunner().invoke(main, ["calibrate", *given])
    assert done.exit_code == 2
    assert said in done.stderr
