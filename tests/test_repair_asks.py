"""What the chapter on what repairs it asks for, and that its tables are made of that."""

import pytest
from pandas.testing import assert_frame_equal

from fairq_book.chapters.repair import asks, tables
from fairq_book.experiments.gather import Gathered, Request, gather
from fairq_book.experiments.store import Store
from fairq_book.experiments.studies import studies
from fairq_book.kit import tables as kit_tables
from fairq_utils.errors import BadInput


def requests(**parameters) -> dict[str, Request]:
    return asks.Asks(**parameters)(Gathered(studies(seeds=[0])))


def names(request: Request) -> list[str]:
    return [treatment.name for treatment in request.treatments]


def test_arms_are_asked_of_all_widths_and_a_closer_look_of_the_first():
    found = requests(bit_widths=[3, 5], images_each=9, images_per_group=7)
    assert names(found["rounded"]) == ["fp32", "int5-ends8", "int3-ends8"]
    assert len(found["arms"].treatments) == 16
    assert found["tuning"] == Request(treatments=found["arms"].treatments, split="tuning")
    assert (found["learned"].split, found["learned"].each) == ("train", 9)
    assert {treatment.bits for treatment in found["learned"].treatments[1:]} == {3}
    assert len(found["learned"].treatments) == 10
    assert names(found["landscapes"]) == ["int3-ends8", "int3-ends8-qat", "int3-fairqat"]
    assert found["landscapes"].survey.images_per_group == 7


def test_methods_beside_the_arms_are_asked_once_and_never_those_that_are_arms():
    found = requests(bit_widths=[4], loss_weights=[60, 40, 40], samplings=["sampled", "undersampled"])
    # 60 percent and "sampled" are the published ones.
    assert names(found["further"]) == [
        f"int4-ends8-qat-{word}" for word in ("weighted40", "undersampled", "dro", "adjusted")
    ]


def test_eight_bits_are_the_control_unless_they_are_looked_at_anyway():
    assert names(requests(bit_widths=[4])["control"]) == ["int8", "int8-qat"]
    assert names(requests(bit_widths=[8, 4])["control"]) == []


def test_widths_that_are_no_numbers_are_refused():
    with pytest.raises(BadInput, match="bit_widths is 'four'; expected whole numbers"):
        requests(bit_widths="four")


def test_every_table_is_made_of_what_was_asked_for(tmp_path):
    few = studies(
        seeds=[0, 1], arch="resnet18-16", train_images=60, test_images=60, epochs=1, tuning_epochs=1
    )
    wanted = asks.Asks(
        bit_widths=[4], loss_weights=[40], samplings=["undersampled"], images_per_group=3, images_each=5
    )
    got = gather(few, wanted, store=Store(tmp_path))
    made = tables.make(got)
    assert set(made) == {
        *("collapse", "effects_drawn", "effects", "against_rounding_drawn", "against_rounding"),
        *("against_plain_training", "change_arms", "frontier", "landscape", "around", "to_rounded"),
        *("on_both", "what_to_do"),
    }
    assert all(len(table) for table in made.values())
    assert {"int8", "int8-qat"} <= set(made["change_arms"]["treatment"])
    assert {"int4-ends8-qat-weighted40", "int4-ends8-qat-dro"} <= set(made["frontier"]["treatment"])
    assert set(made["on_both"]["split"]) == {"train", "test"}
    # Of two widths, four bits and the control's eight, the intervals hold together.
    every = [prediction for name in ("rounded", "arms", "control") for prediction in got[name]]
    assert_frame_equal(made["change_arms"].drop(columns="width"), kit_tables.change(every, level=0.975))
