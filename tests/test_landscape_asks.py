"""What the chapter on the loss around a network asks for, and that its tables are made of that."""

import pytest

from fairq_book.chapters.landscape import asks, tables
from fairq_book.experiments.gather import Gathered, gather
from fairq_book.experiments.store import Store
from fairq_book.experiments.studies import studies
from fairq_utils.errors import BadInput


def names(request) -> list[str]:
    return [treatment.name for treatment in request.treatments]


def test_the_loss_is_looked_at_where_the_networks_were_asked():
    wanted = asks.Asks(bit_widths=[3, 8], images_per_group=7, split="test", tol=0.2)
    requests = wanted(Gathered(studies(seeds=[0])))
    assert list(requests) == ["treated", "learned", "landscapes", "norms", "spectra"]
    assert (names(requests["learned"]), requests["learned"].split) == (["fp32", "int8", "int3"], "train")
    assert names(requests["landscapes"]) == ["fp32", "int8", "int3", "int3-qat"]
    assert names(requests["treated"]) == [*names(requests["landscapes"]), "int2"]
    assert (names(requests["norms"]), requests["norms"].look) == (["int2"], "around")
    assert requests["norms"].survey == requests["landscapes"].survey
    assert requests["treated"].survey is None
    survey = requests["landscapes"].survey
    assert (survey.images_per_group, survey.split, survey.tol) == (7, "test", 0.2)


def test_spectra_are_those_of_one_network_before_and_at_the_fewest_bits():
    spectra = asks.Asks(bit_widths=[3, 8])(Gathered(studies(seeds=[0])))["spectra"]
    assert (names(spectra), spectra.networks, spectra.density) == (["fp32", "int3"], 1, True)


def test_what_a_survey_cannot_do_is_refused_before_anything_is_made():
    with pytest.raises(BadInput, match="tol is 0; expected a number above 0"):
        asks.Asks(tol=0)(Gathered(studies(seeds=[0])))


def test_every_table_is_made_of_what_was_asked_for(tmp_path):
    few = studies(
        seeds=[0, 1], arch="resnet18-16", train_images=60, test_images=60, epochs=1, tuning_epochs=1
    )
    wanted = asks.Asks(bit_widths=[4], images_per_group=3)
    got = gather(few, wanted, store=Store(tmp_path))
    made = tables.make(got, tables.ends(got.images, wanted.survey))
    assert set(made) == {
        *(
            "collapse",
            "accuracy_by_seed",
            "landscape",
            "around",
            "to_majority",
            "steepness",
            "steepness_ratios",
            "to_full_precision",
            "to_rounded",
            "with_loss",
            "generalization",
        ),
        *("spectra", "slices", "bounds", "ranks", "part_bounds", "part_ranks"),
    }
    assert all(len(table) for table in made.values())
    assert list(made["landscape"]["treatment"].unique()) == ["fp32", "int4", "int4-qat", "int2"]
    assert list(made["bounds"]["treatment"].unique()) == ["int4"]
    assert list(made["bounds"]["treatment"].unique()) == ["int4"]
    # Of the ten products behind a density each gives one eigenvalue, and all shares add up to one.
    shares = made["spectra"].groupby(["treatment", "group"])["share"].agg(["size", "sum"])
    assert list(shares["size"]) == [10] * 4
    assert list(shares["sum"]) == pytest.approx([1] * 4)
