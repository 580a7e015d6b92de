"""What a treatment is, as columns."""

import itertools

import pandas as pd
import pytest
from torch import nn

from fairq_book.kit import treatments
from fairq_utils.treatments.ablations import Ablation, by_layer, controls, halves, other_grids
from fairq_utils.treatments.treatment import FP32, Treatment

NAMES = [
    *("fp32", "fp32-tuned", "fp32-bn", "fp16", "bf16", "fp8", "fp8-e5m2", "nf4", "nf4-a8", "a8", "w4a8"),
    *("int4-percentile", "int4-affine", "int4-full", "int4-lsq-channel", "int4-ends8", "int4-ends8-bn"),
    *(
        "int4-qat",
        "int4-tuned",
        "int4-ends8-qat",
        "int4-fairqat",
        "int4-mse-fairqat",
        "int4-adjusted-fairqat",
    ),
    *(
        "int4-qat-weighted",
        "int4-qat-weighted40",
        "int4-qat-dro",
        "int4-qat-adjusted",
        "int4-qat-dro-adjusted",
    ),
    *("int4-qat-sampled", "int4-qat-sampled50", "int4-qat-oversampled", "int4-qat-undersampled"),
]
WIDTHS = [Treatment(bits) for bits in (2, 3, 8)]
EVERY = [
    *map(Treatment.parse, NAMES),
    *itertools.chain.from_iterable([*halves(t), *controls(t), *other_grids(t)] for t in WIDTHS),
    *by_layer(Treatment(3), nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))[1:],
]


def test_columns_tell_all_treatments_apart_and_a_name_gives_the_same():
    """Except that emptying the zero bin is a treatment and an ablation, of one name."""
    found = {one.name: treatments.columns(one) for one in EVERY}
    assert len({tuple(own.values()) for own in found.values()}) == len(found) > 50
    for name, own in found.items():
        assert tuple(own) == treatments.COLUMNS
        assert treatments.columns_of(name) == own


def test_an_ablation_has_the_columns_of_what_it_takes_apart():
    whole = treatments.columns(Treatment.parse("int3-mse-channel"))
    part = treatments.columns(Ablation(Treatment.parse("int3-mse-channel"), "norm", "fc.weight"))
    assert part == whole | {"ablation": "norm", "ablated_layer": "fc.weight"}


@pytest.mark.parametrize(
    ("name", "bits", "activation_bits", "grid"),
    [
        ("bnb-nf4", 4, 32, "bnb-nf4"),
        ("torch-int8", 8, 8, "torch-int"),
        ("nobody's", None, None, None),
        ("-zeros", None, None, None),
    ],
)
def test_of_a_name_of_something_else_is_said_what_is_known(name, bits, activation_bits, grid):
    found = treatments.columns_of(name)
    assert (found["bits"], found["activation_bits"], found["grid"]) == (bits, activation_bits, grid)


def test_arms_are_found_by_what_they_are():
    table = treatments.with_columns(pd.DataFrame({"treatment": NAMES}))
    fair = table[treatments.where(table, treatments.FAIRQAT)]["treatment"]
    assert fair.tolist() == ["int4-fairqat", "int4-mse-fairqat"]
    plain = table[treatments.where(table, treatments.PLAIN_QAT)]["treatment"]
    assert plain.tolist() == ["int4-qat", "int4-ends8-qat"]
    none = table[:0]
    assert none[treatments.where(none, treatments.FAIRQAT)].empty
    assert treatments.counterparts(table, {"batchnorm": False})["int4-ends8-bn"] == "int4-ends8"
    assert "fp32-bn" not in treatments.counterparts(
        table[table["treatment"] != FP32.name], {"batchnorm": False}
    )


def test_columns_are_set_anew_where_a_table_has_some_and_its_index_stays():
    table = pd.DataFrame({"n": [1, 2], "chosen": ["int4-qat", "int4"], "grid": "in words"}, index=[7, 3])
    found = treatments.with_columns(table, "chosen")
    assert list(found) == ["n", "chosen", *treatments.COLUMNS]
    assert found.loc[7, ["n", "grid", "training"]].tolist() == [1, "int", "qat"]
    assert list(treatments.with_columns(table[:0], "chosen")) == list(found)
