"""What the chapters on who pays and on logits ask for, and the tables that they make of it."""

import pytest

from fairq_book.chapters.disparity import asks as of_disparity
from fairq_book.chapters.disparity import figures as disparity_figures
from fairq_book.chapters.disparity import story as disparity_story
from fairq_book.chapters.disparity import tables as disparity_tables
from fairq_book.chapters.logits import asks as of_logits
from fairq_book.chapters.logits import tables as logits_tables
from fairq_book.experiments import studies
from fairq_book.experiments.gather import Gathered, gather
from fairq_book.experiments.store import Store
from fairq_utils.errors import BadInput

TINY = {"arch": "resnet18-16", "test_images": 60, "epochs": 1}
NOTHING_YET = Gathered(studies.studies())

DISPARITY = of_disparity.Asks(
    bit_widths=[3, 8],
    weight_range=["mse", "mse-channel"],
    grid_bit_widths=[3],
    moth_seeds=[0, 1],
    moth_treatments=["int3-mse-channel"],
    moth_train_images=60,
)
LOGITS = of_logits.Asks(bit_widths=[8, 6, 3, 4], controls=["bf16", "a4"], activation_bits=[4, 3])


def named(requests) -> dict[str, list[str]]:
    return {name: [treatment.name for treatment in own.treatments] for name, own in requests.items()}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def chosen():
    return studies.studies(seeds=[0, 1], train_images=60, **TINY)


def test_who_pays_is_asked_at_every_width_and_on_other_grids_beside_the_plain_one():
    assert named(DISPARITY(NOTHING_YET)) == {
        "rounded": ["fp32", "int8", "int3"],
        "grids": ["fp32", "int3", "int3-mse", "int3-mse-channel"],
    }


def test_moths_of_four_kinds_are_treated_as_is_said():
    assert named(DISPARITY.of_moths(NOTHING_YET)) == {"rounded": ["fp32", "int3-mse-channel"]}
    moths = DISPARITY.moths(**TINY)
    kinds = ["moths-equal", "moths-by-size", "moths-by-difficulty", "moths-by-both"]
    assert [(s.dataset.name, s.seed) for s in moths] == [(kind, seed) for kind in kinds for seed in (0, 1)]
    assert {(s.dataset.train_images, s.dataset.test_images, s.arch) for s in moths} == {
        (60, 60, "resnet18-16")
    }


def test_logits_are_asked_at_every_width_repaired_at_the_three_narrowest_and_under_controls():
    assert named(LOGITS(NOTHING_YET)) == {
        "rounded": ["fp32", "int8", "int6", "int4", "int3"],
        "statistics": ["int6-bn", "int4-bn", "int3-bn"],
        "controls": ["fp32", "bf16", "a4", "a3"],
    }


def test_a_treatment_that_is_no_treatment_is_refused_before_anything_is_trained():
    with pytest.raises(BadInput, match="bf61"):
        of_logits.Asks(controls=["bf61"])(NOTHING_YET)


def test_every_table_on_who_pays_is_made(store, chosen):
    got = gather(chosen, DISPARITY, store=store)
    without = disparity_tables.make(got)
    assert set(without) == {
        "groups",
        "accuracy",
        "accuracy_by_seed",
        "answers",
        "change",
        "change_by_network",
        "chance",
        "collapse",
        "confusion",
        "readings",
        "storage",
    }
    assert list(without["storage"]["treatment"].unique()) == ["fp32", "int3", "int3-mse", "int3-mse-channel"]
    moths = gather(DISPARITY.moths(**TINY), DISPARITY.of_moths, store=store)
    made = disparity_tables.make(got, moths)
    assert set(made) - set(without) == {"size_and_difficulty"}
    assert not any(made[name].empty for name in made.keys() - {"readings"})  # of so few networks


def test_the_contrast_of_several_settings_is_that_of_each_by_itself(store, chosen):
    got = gather(chosen, DISPARITY, store=store)
    wide = gather(
        chosen, of_disparity.Asks(bit_widths=[7], weight_range=[], grid_bit_widths=[7]), store=store
    )
    both = disparity_tables.contrasts({"Here": got, "There": got})
    alone = disparity_tables.make(got)["change_by_network"].query("group == 'contrast'")
    for title in ("Here", "There"):
        own = both[both["setting"] == title]
        assert own["treatment"].tolist() == ["int8", "int3"]
        assert own["estimate"].tolist() == alone["estimate"].tolist()
    said = disparity_story.elsewhere(both).text
    assert said.startswith("- **Here**, 2 networks: int8 ")
    assert set(disparity_tables.contrasts({"Here": wide, "There": got})["setting"]) == {"There"}
    picture = disparity_figures.contrasts(both)
    assert "There, int3: " in repr(picture)


def test_every_answer_is_counted_once_in_the_table_of_confusion(store, chosen):
    got = gather(chosen, DISPARITY, store=store)
    made = disparity_tables.make(got)
    counted = made["confusion"].groupby(["treatment", "group"])["n"].sum()
    tested = dict(zip(made["groups"]["group"], made["groups"]["test"], strict=True))
    assert counted.to_dict() == {
        (treatment, group): 2 * n for treatment in ("fp32", "int8", "int3") for group, n in tested.items()
    }
    right = made["confusion"].query("group == answer").groupby(["treatment", "group"])["n"].sum()
    by_seed = made["accuracy_by_seed"].groupby(["treatment", "group"])["correct"].sum()
    assert right.to_dict() == by_seed.to_dict()


def test_every_table_on_logits_is_made(store, chosen):
    made = logits_tables.make(gather(chosen, LOGITS, store=store))
    assert set(made) == {
        "collapse",
        "variance_left",
        "densities",
        "answers",
        "answer_changes",
        "loss_beyond_others",
        "arms_heated",
        "loss_explained",
        "arms_rescaled",
        "changes_rescaled",
        "arms_statistics",
        "regained",
        "changes_statistics",
        "variance_statistics",
        "variance_controls",
        "flips",
    }
    assert not any(table.empty for table in made.values())
    assert set(made["densities"]["measure"]) == {"logit_variance", "margin"}
    assert list(made["variance_controls"]["treatment"].unique()) == ["bf16", "a4", "a3"]
