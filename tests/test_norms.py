"""Gradient norms of groups against accuracy, by size and difficulty, and where inputs are rounded."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from fairq_book.chapters.landscape import norms
from fairq_book.experiments import settings
from fairq_book.experiments.studies import Landscape, Study
from fairq_book.kit import by_network
from fairq_book.kit.by_network import MeasuredNetworks
from fairq_book.kit.treatments import with_columns
from fairq_utils.data.sources import ROLES
from fairq_utils.intervals import ratio_of_means
from fairq_utils.items import Item
from fairq_utils.treatments.treatment import Treatment

GROUPS = list("abcde")
STEEP = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
FALLING, RISING, SHUFFLED = (
    np.array(own) for own in ([0.9, 0.8, 0.7, 0.6, 0.5], [0.5, 0.6, 0.7, 0.8, 0.9], [0.7, 0.5, 0.9, 0.6, 0.8])
)


def tables_of(**accuracies: np.ndarray) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The landscape and the accuracies of six networks, under these treatments."""
    rng, rows = np.random.default_rng(0), []
    for name, own in accuracies.items():
        for seed in range(6):
            for group, norm, right in zip(GROUPS, STEEP, own, strict=True):
                times = np.exp(0.05 * rng.normal())
                rows.append((name.replace("_", "-"), seed, group, 2 * norm * times, 1000, 1000 * right))
    both = pd.DataFrame(rows, columns=["treatment", "seed", "group", "gradient_norm", "n", "correct"])
    return both.drop(columns=["n", "correct"]), both.drop(columns="gradient_norm")


def standing(*names: str, fallen: tuple[str, ...] = ()) -> pd.DataFrame:
    rows = [(name, float(name not in fallen)) for name in (*names, *fallen)]
    return pd.DataFrame(rows, columns=["treatment", "standing"])


@pytest.mark.parametrize(
    ("accuracies", "word"),
    [
        ({"int4": FALLING, "int2": FALLING}, "supported"),
        ({"int4": RISING, "int2": RISING}, "contradicted"),
        ({"int4": FALLING, "int2": RISING}, "mixed"),
        ({"int4": FALLING, "int2": SHUFFLED}, "undecided"),
        ({"int4": FALLING, "int4_qat": RISING}, "supported"),  # what was trained further plays no part
        ({"int4": FALLING, "fp32": RISING}, "supported"),  # nor does full precision
        ({"fp32": FALLING}, "undecided"),
    ],
)
def test_high_norms_go_with_low_accuracy_where_the_order_of_the_groups_says_so(accuracies, word):
    found = norms.norm_with_accuracy(norms.beside_accuracy(*tables_of(**accuracies)))
    verdict = norms.high_where_wrong(found, standing("fp32", "int4", fallen=("int2",)), seeds=6)
    assert verdict.word == word
    assert ("At int2 accuracy only says which answer is left" in verdict.because) == ("int2" in accuracies)
    assert "int4-qat" not in verdict.because


def test_what_is_so_in_full_precision_is_said_to_be():
    same = norms.norm_with_accuracy(norms.beside_accuracy(*tables_of(fp32=FALLING, int4=FALLING)))
    other = norms.norm_with_accuracy(norms.beside_accuracy(*tables_of(fp32=RISING, int4=FALLING)))
    for found, said in ((same, True), (other, False)):
        verdict = norms.high_where_wrong(found, standing("fp32", "int4"), seeds=6)
        assert ("In full precision it is as low" in verdict.because) == said
        assert "over 5 groups, of means over 6 seeds" in verdict.because


def test_the_rank_correlation_is_that_of_scipy_and_of_two_groups_there_is_none():
    both = norms.beside_accuracy(*tables_of(int4=SHUFFLED))
    (row,) = norms.norm_with_accuracy(both).to_dict("records")
    single = [
        stats.spearmanr(own["gradient_norm"], own["accuracy"]).statistic for _, own in both.groupby("seed")
    ]
    assert row["estimate"] == pytest.approx(np.mean(single))
    assert row["rho"] == pytest.approx(stats.spearmanr(STEEP, SHUFFLED).statistic)
    assert norms.norm_with_accuracy(both[both["group"].isin(["a", "b"])]).empty
    assert norms.norm_with_accuracy(both.assign(accuracy=0.2)).empty


# ---------------------------------------------------------------- size and difficulty

SEEDS = range(8)


def of_kind(name: str, focal: float, *, scatter: float = 0.1, times: float = 1.0) -> MeasuredNetworks:
    """Peers whose squared norm is 4, and a focal group with so many times theirs."""
    rng, rows = np.random.default_rng(len(name)), []
    for treatment, by in (("fp32", 1.0), ("int4", times)):
        for split, more in (("train", 1.0), ("test", 2.0)):
            for seed in SEEDS:
                for group in ROLES:
                    square = 4 * by * more * (focal if group == ROLES[-1] else 1.0) + scatter * rng.normal()
                    rows.append((treatment, seed, split, group, 64, 0.5, np.sqrt(abs(square)), square))
    columns = ["treatment", "seed", "split", "group", "n", "loss"]
    columns += ["gradient_norm", "squared_gradient_norm"]
    table = with_columns(pd.DataFrame(rows, columns=columns))
    return MeasuredNetworks(name, table, {"title": name, "majority": ROLES[0], "made": {}})


def four(equal: float, small: float, hard: float, both: float) -> list[MeasuredNetworks]:
    return [of_kind(name, own) for name, own in zip("abcd", (equal, small, hard, both), strict=True)]


def test_what_size_and_difficulty_add_is_told_apart():
    found = norms.by_kind(four(1.0, 1.0, 3.0, 3.0)).set_index(["treatment", "row"])
    of_fp32 = found.loc["fp32"]["estimate"]
    assert of_fp32.loc[
        ["neither small nor hard", "small", "hard", "small and hard"]
    ].tolist() == pytest.approx([1, 1, 3, 3], abs=0.1)
    assert of_fp32["what being hard adds"] == pytest.approx(2, abs=0.1)
    assert of_fp32["what being small adds"] == pytest.approx(0, abs=0.1)
    kind = four(1.0, 1.0, 3.0, 3.0)[2].table.query("split == 'train' and treatment == 'int4'")
    wide = kind.pivot_table(index="seed", columns="group", values="squared_gradient_norm")
    expected = ratio_of_means(wide[ROLES[-1]], wide[list(ROLES[:-1])].mean(axis=1))
    own = found.loc["int4", "hard"][["estimate", "lower", "upper"]]
    assert own.tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("kinds", "size", "difficulty"),
    [
        ((1.0, 1.0, 3.0, 3.0), "open", "yes"),
        ((1.0, 3.0, 1.0, 3.0), "yes", "open"),
        ((1.0, 0.2, 0.2, 0.1), "the reverse", "the reverse"),
    ],
)
def test_each_question_is_answered_by_its_own_cause(kinds, size, difficulty):
    lines = norms.answers(four(*kinds), inputs()).text.splitlines()
    assert [line.split("(")[1][:2] for line in lines] == [question.key for question in norms.QUESTIONS]
    for line, word in zip(lines, [size, difficulty, size, difficulty], strict=False):
        assert f"*{word}*" in line


def inputs(**ratios: float) -> MeasuredNetworks:
    """Minorities with twice the norm of the majority, and under these treatments so many times that."""
    rng, rows = np.random.default_rng(0), []
    for name in ("fp32", "int4", "a4", "w4a4"):
        for seed in range(12):
            for group in ("many", "some", "few"):
                norm = np.exp(0.01 * rng.normal())
                if group != "many":
                    norm *= 2 * ratios.get(name, 1.0)
                rows.append((name, seed, "train", group, 64, 0.5, norm, norm**2))
    columns = ["treatment", "seed", "split", "group", "n", "loss"]
    columns += ["gradient_norm", "squared_gradient_norm"]
    table = with_columns(pd.DataFrame(rows, columns=columns))
    return MeasuredNetworks("inputs", table, {"title": "Inputs", "majority": "many", "made": {}})


def test_rounded_inputs_are_held_against_the_same_weights_without():
    found = norms.by_inputs(inputs(a4=1.5, w4a4=3.0, int4=1.5)).set_index(["treatment", "row"])["estimate"]
    assert found["fp32", "level"] == pytest.approx(2, abs=0.05)
    assert found["a4", "fp32"] == pytest.approx(1.5, abs=0.05)
    assert found["w4a4", "int4"] == pytest.approx(2, abs=0.05)
    assert found["w4a4", "fp32"] == pytest.approx(3, abs=0.05)
    assert ("a4", "int4") not in found.index
    lines = norms.answers(four(1, 1, 1, 1), inputs(a4=1.5, w4a4=0.5)).text.splitlines()
    assert "*yes*, 1.5" in lines[4]
    assert "*the reverse*, 0.5" in lines[5]
    shown = norms.inputs_in_a_table(inputs(a4=1.5))
    assert list(shown.index) == ["fp32", "int4", "a4", "w4a4"]
    assert shown.loc["a4", "that, in times fp32"].startswith("1.5")
    assert shown.loc["fp32", "that, in times fp32"] == ""


def test_the_table_has_every_kind_and_both_causes():
    shown = norms.kinds_in_a_table(four(1.0, 2.0, 3.0, 4.0))
    assert list(shown.columns) == ["fp32", "int4", "fp32, test images"]
    estimates = [float(text.split(" ")[0]) for text in shown["fp32"]]
    assert estimates == pytest.approx([1, 2, 3, 4, 1, 2], abs=0.1)
    assert list(shown.index[-2:]) == ["what being small adds", "what being hard adds"]


# ---------------------------------------------------------------- measured


def test_gradients_are_told_by_split_and_keep_their_sign():
    def around(name: str) -> Landscape:
        values = {name: torch.ones(2, dtype=torch.float64) for name in ("loss", "gradient_norm")}
        values |= {"squared_gradient_norm": torch.tensor([0.5, -0.5]), "group": torch.tensor([1, 0])}
        return Landscape(Study(seed=3), Treatment.parse(name), ("a", "b"), Item(values, {"n": 5}))

    found = by_network.gradients({"train": [around("int4"), around("a4")], "test": [around("fp32")]})
    assert found["split"].tolist() == ["train"] * 4 + ["test"] * 2
    assert found["group"].tolist() == ["b", "a"] * 3
    assert found["squared_gradient_norm"].tolist() == [0.5, -0.5] * 3
    assert found[["seed", "n"]].drop_duplicates().to_numpy().tolist() == [[3, 5]]


@pytest.mark.parametrize("name", [*norms.KINDS, norms.INPUTS])
def test_what_was_measured_is_what_was_registered_in_its_order(name):
    setting, measured = settings.find_setting(name), by_network.load(name)
    assert list(setting.seeds) == (list(range(20, 32)) if name == norms.INPUTS else list(range(130, 150)))
    assert sorted(set(measured.table["seed"])) == setting.seeds[: measured.networks]
    assert measured.networks >= 5
    assert set(measured.table["treatment"]) == {one.name for one in setting.treatments()}
    assert measured.table["n"].eq(setting.images_per_group).all()
    of_each = measured.table.groupby(["seed", "split"])["treatment"].nunique()
    assert (of_each == len(setting.treatments())).all()
