import itertools
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
import yaml
from fairq_book.experiments.census import Census

from fairq_book.chapters.logits import tables
from fairq_book.chapters.repair import tables as repair_tables
from fairq_book.experiments import kept, studies
from fairq_book.experiments import settings as experiments_settings
from fairq_book.experiments.settings import Setting
from fairq_book.experiments.store import Store
from fairq_book.kit import tables as kit_tables
from fairq_utils.data import sources
from fairq_utils.encoders import linear_layers
from fairq_utils.errors import BadInput
from fairq_utils.treatments.ablations import Ablation
from fairq_utils.treatments.treatment import FP32, Treatment
from tests.conftest import ROOT

BARE = {"title": "Bare", "seeds": [0, 1], "bit_widths": [8, 4, 3, 2]}


def declared_as(folder, text: str) -> dict[str, Setting]:
    file = folder / "settings.yml"
    file.write_text(text)
    return experiments_settings.declared(file)


def setting(**more) -> Setting:
    return Setting(**{"name": "bare", **BARE, **more})


# ---------------------------------------------------------------- what a file declares


def test_a_block_is_a_setting_and_they_keep_the_order_of_the_file(tmp_path):
    found = declared_as(
        tmp_path,
        "second:\n  {title: B, seeds: [3, 1], bit_widths: [4], dataset: utkface, epochs: 2.5}\n"
        "first:\n  {title: A, seeds: [0], bit_widths: [8, 2], landscape: [8]}\n",
    )
    assert list(found) == ["second", "first"]
    assert found["second"] == Setting(
        name="second", title="B", seeds=[3, 1], bit_widths=[4], dataset="utkface", epochs=2.5
    )
    assert found["first"].landscape == [8]
    assert found["first"].repair == ()


def test_an_empty_file_declares_nothing(tmp_path):
    assert declared_as(tmp_path, "# nothing yet\n") == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: {title: A, seeds: [0], bit_widths: [4], widths: [4]}", "says 'widths' of a; expected some of"),
        # The name is what stands before the block, and nothing inside may say another.
        ("a: {name: b, title: A, seeds: [0], bit_widths: [4]}", "says 'name' of a; expected some of"),
        ("a: [0, 1]", r"says \[0, 1\] of a; expected some of"),
        ("a:", "says None of a; expected some of"),
        ("a: {seeds: [0], bit_widths: [4]}", "says no title of a; expected one"),
        ("a: {title: A, bit_widths: [4]}", "says no seeds of a; expected one"),
        ("a: {title: A, seeds: [0]}", "says no bit_widths of a; expected one"),
        ("a: {title: [", "cannot be read .*; expected settings in YAML"),
        ("- a\n- b\n", "expected settings in YAML"),
        ("just words", "expected settings in YAML"),
    ],
)
def test_what_declares_no_setting_is_refused_in_one_sentence(tmp_path, text, said):
    with pytest.raises(BadInput, match=said) as refused:
        declared_as(tmp_path, text)
    assert "settings.yml" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"gone\.yml cannot be read .*; expected settings in YAML"):
        experiments_settings.declared(tmp_path / "gone.yml")
    (tmp_path / "image.yml").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(BadInput, match=r"image\.yml cannot be read"):
        experiments_settings.declared(tmp_path / "image.yml")


def test_every_setting_of_the_book_names_treatments_that_there_are(tmp_path):
    declared = experiments_settings.declared(ROOT / "book" / "settings.yml")
    assert list(declared) == list(yaml.safe_load((ROOT / "book" / "settings.yml").read_text()))
    for one in declared.values():
        if isinstance(one, Census):
            studies_ = one.studies(seeds=[one.seeds[-1]], root=str(tmp_path))
            assert len(studies_) == 2 * experiments_settings.of_each_seed(one) >= 2 * 9
            assert all(linear_layers.runs(name) for name in one.treatments)
            continue
        (study,) = one.studies(seeds=[one.seeds[-1]], root=str(tmp_path))
        wanted = experiments_settings.wanted([(one, [study])])
        named = {treatment.name for want in wanted for treatment in want.treatments}
        assert {"fp32", *(f"int{width}" for width in one.bit_widths)} <= named
        # What is judged of faces is said at these widths.
        assert {8, 4, 3, 2} <= set(one.bit_widths)


# ---------------------------------------------------------------- its studies


def test_the_studies_are_those_of_all_seeds_or_of_some():
    one = setting(seeds=[4, 1, 7], train_images=50, epochs=3, tuning_epochs=2, learning_rate=0.07)
    every = one.studies()
    assert [study.seed for study in every] == [4, 1, 7]
    assert [study.seed for study in one.studies(seeds=[7, 4])] == [7, 4]
    (study,) = one.studies(seeds=[1])
    assert study == every[1]
    assert (study.dataset.train_images, study.dataset.test_images) == (50, sources.DataSettings().test_images)
    assert (study.recipe.epochs, study.recipe.learning_rate, study.tuning.epochs) == (3, 0.07, 2)


def test_seeds_that_a_setting_lacks_are_refused():
    with pytest.raises(BadInput, match=r"seeds are \[2, 9\]; expected some of those of bare: \[0, 1\]"):
        setting().studies(seeds=[0, 9, 2])


def test_moths_lie_nowhere_and_faces_where_they_are_said_to(tmp_path):
    assert setting().studies(root=str(tmp_path))[0] == setting().studies()[0]
    faces = setting(dataset="utkface", label="gender", group="race", image_size=64)
    study = faces.studies(root=str(tmp_path))[0]
    assert study.dataset.root == str(tmp_path)
    assert (study.dataset.label, study.dataset.group, study.dataset.image_size) == ("gender", "race", 64)


# ---------------------------------------------------------------- what it wants


def test_the_first_network_of_every_setting_comes_before_the_second_of_any():
    settings = [setting(seeds=[5, 6, 7]), setting(name="other", train_images=50, seeds=[1, 2])]
    chosen = [(one, one.studies()) for one in settings]
    seeds = [want.study.seed for want in experiments_settings.wanted(chosen)]
    assert list(dict.fromkeys(seeds)) == [5, 1, 6, 2, 7]
    # Each comes whole: none is taken up again.
    assert sum(a != b for a, b in itertools.pairwise(seeds)) == 4
    assert experiments_settings.wanted([]) == []


def by_layer(want) -> bool:
    return any(isinstance(t, Ablation) and t.layer for t in want.treatments)


@pytest.mark.parametrize(("limit", "seeds"), [(1, [3]), (2, [3, 1]), (9, [3, 1, 2])])
def test_few_networks_are_taken_apart_layer_by_layer(limit, seeds):
    one = setting(seeds=[3, 1, 2], take_apart=4, seeds_by_layer=limit, images_each=20, images_each_layer=7)
    wanted = experiments_settings.wanted([(one, one.studies())])
    layers = [want for want in wanted if by_layer(want)]
    assert [want.study.seed for want in layers] == seeds
    assert {want.each for want in layers} == {7}
    # The rest of the part is wanted of all.
    whole = [want for want in wanted if want.each == 20]
    assert [want.study.seed for want in whole] == [3, 1, 2]


def names_wanted(one: Setting) -> list[tuple[str, int, bool, tuple[str, ...]]]:
    wanted = experiments_settings.wanted([(one, one.studies(seeds=[0]))])
    return [
        (want.split, want.each, want.survey is not None, tuple(t.name for t in want.treatments))
        for want in wanted
    ]


def test_what_is_not_asked_is_left_out():
    assert names_wanted(setting()) == [
        ("test", 0, False, ("fp32", "int8", "int4", "int3", "int2")),
        ("test", 0, False, ("int4-bn", "int3-bn", "int2-bn")),
    ]


@pytest.mark.parametrize(
    ("asked", "added"),
    [
        (
            {"grids": ["mse", "channel"], "bit_widths": [8, 4]},
            ("int8-mse", "int4-mse", "int8-channel", "int4-channel"),
        ),
        ({"controls": ["fp16", "a4"]}, ("fp16", "a4")),
        ({"also": ["int2-full"]}, ("int2-full",)),
    ],
)
def test_what_is_asked_is_added_and_nothing_else(asked, added):
    bare = names_wanted(setting(**{key: value for key, value in asked.items() if key == "bit_widths"}))
    assert [own for own in names_wanted(setting(**asked)) if own not in bare] == [("test", 0, False, added)]


def test_repair_takes_eight_arms_at_its_widths_and_three_at_the_few():
    added = [own for own in names_wanted(setting(repair=[4], repair_few=[3])) if "int4-fairqat" in own[3]]
    assert [(split, each) for split, each, _, _ in added] == [("test", 0), ("validation", 0), ("train", 200)]
    test, validation, train = (names for *_, names in added)
    assert [name for name in test if name.startswith("int3")] == [
        "int3-ends8",
        "int3-ends8-qat",
        "int3-ends8-qat-weighted",
        "int3-fairqat",
    ]
    assert len([name for name in test if name.startswith("int4")]) == 1 + 8
    assert set(test) - set(validation) == {"int4-ends8", "int3-ends8"}
    assert set(train) == {name for name in test if name.startswith("int4")}


def test_the_landscape_is_that_of_full_precision_of_its_widths_and_of_what_was_trained_at_the_first():
    own = names_wanted(setting(landscape=[8, 4], repair=[3, 4]))
    assert [names for _, _, surveyed, names in own if surveyed] == [
        ("fp32", "int8", "int4", "int3-ends8", "int3-ends8-qat", "int3-fairqat")
    ]
    (alone,) = [names for _, _, surveyed, names in names_wanted(setting(landscape=[8])) if surveyed]
    assert alone == ("fp32", "int8")


# ---------------------------------------------------------------- the tables


def test_a_sweep_leaves_nothing_for_the_tables_to_make(swept):
    assert swept.jobs > 100
    assert swept.made_for_tables == {}


def test_the_tables_are_those_that_chapters_draw(swept):
    def predicted(*names, **more):
        asked = [FP32 if name == "fp32" else Treatment.parse(name) for name in names]
        return studies.predictions(swept.setting.studies(), asked, store=Store(swept.store), **more)

    rounded = predicted("fp32", "int8", "int4", "int3", "int2")
    same = pd.testing.assert_frame_equal
    same(swept.tables["accuracy"], kit_tables.accuracy(rounded))
    # Four intervals that hold together with 95 %: each holds with 98.75 %.
    same(swept.tables["change"], kit_tables.change(rounded, level=0.9875))
    assert not swept.tables["change"].equals(kit_tables.change(rounded))
    same(swept.tables["variance_left"], tables.variance_left(rounded, level=0.9875))
    eight = studies.repair_arms([4])
    few = ["int3-ends8-qat", "int3-ends8-qat-weighted", "int3-fairqat"]
    arms = predicted("fp32", "int4-ends8", "int3-ends8", *(arm.name for arm in eight), *few)
    same(
        swept.tables["effects"], repair_tables.effects(arms, level=0.95)
    )  # at one width alone there are all eight
    same(swept.tables["against_rounding"], repair_tables.against_rounding(arms, level=0.975))  # two widths
    same(swept.tables["against_plain_training"], repair_tables.against_plain_training(arms, level=0.975))
    assert set(swept.tables["effects"]["width"]) == {"int4"}
    assert set(swept.tables["against_plain_training"]["width"]) == {"int4", "int3"}


def test_how_far_a_network_has_collapsed_is_told_of_every_treatment(swept):
    collapse, by_seed = swept.tables["collapse"], swept.tables["accuracy_by_seed"]
    every = {"fp32", "int8", "int4-channel", "int2-full", "int3-bn", "fp16", "int4-ends8", "int3-fairqat"}
    assert every <= set(collapse["treatment"])
    assert not collapse["treatment"].duplicated().any()
    prediction = studies.predictions(
        swept.setting.studies(seeds=[1]), [Treatment.parse("int4-fairqat")], store=Store(swept.store)
    )[0]
    own = by_seed[(by_seed["treatment"] == "int4-fairqat") & (by_seed["seed"] == 1)].set_index("group")
    right = prediction.logits.argmax(1) == prediction.labels
    for place, name in enumerate(prediction.group_names):
        assert own["n"][name] == int((prediction.groups == place).sum())
        assert own["correct"][name] == int(right[prediction.groups == place].sum())


def test_the_groups_are_counted_as_the_data_hold_them(swept):
    images = sources.load("moths", train_images=60, test_images=60)
    counted = swept.tables["groups"]
    assert tuple(counted["group"]) == images.group_names
    for place, row in enumerate(counted.itertuples()):
        mine = images.groups.numpy() == place
        assert row.train == np.sum(mine & images.is_train.numpy())
        assert row.test == np.sum(mine & ~images.is_train.numpy())


def test_one_network_alone_is_taken_apart_where_the_setting_says_so(swept):
    assert set(swept.tables["zero_bins"]["seed"]) == {0, 1}
    layers = swept.tables["zero_layers"]
    # As many images of a group as `images_each_layer`, and no more for a second network.
    assert layers["n"].min() >= 1
    assert layers.loc[layers["group"].isin(swept.tables["groups"]["group"]), "n"].max() == 3


def test_without_its_parts_a_setting_has_fewer_tables(swept):
    bare = Setting(
        **{
            **{key: asdict(swept.setting)[key] for key in ("name", "title", "seeds", "bit_widths")},
            **{key: asdict(swept.setting)[key] for key in ("train_images", "test_images", "epochs")},
            "tuning_epochs": 1,
        }
    )
    store = Store(swept.store)
    found = experiments_settings.tables_of(bare, bare.studies(seeds=[1]), store=store)
    assert dict(store.written) == {}
    assert found.keys() < swept.tables.keys()
    gone = {"landscape", "bounds", "effects", "what_to_do", "zero_parts", "storage", "variance_controls"}
    assert gone <= swept.tables.keys() - found.keys()
    assert {"groups", "accuracy", "change", "collapse", "loss_explained"} <= found.keys()
    # Of the one network that was asked for, and not of the other.
    assert set(found["accuracy_by_seed"]["seed"]) == {1}


def test_the_book_finds_its_settings_by_name():
    assert kept.find_setting("utkface").dataset == "utkface"
    with pytest.raises(BadInput, match="setting is 'utk'; expected one of: utkface, gender"):
        kept.find_setting("utk")
