"""What the book ships of networks whose images it may not hold: written, read in their place, and checked."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from fairq_book import results
from fairq_book.build import notebooks
from fairq_book.chapters.disparity import asks, tables
from fairq_book.cli.main import main
from fairq_book.experiments import codes, gather, settings
from fairq_book.experiments.gather import Request, identified
from fairq_book.experiments.layer import Layer
from fairq_book.experiments.settings import Setting
from fairq_book.experiments.store import Store
from fairq_book.experiments.studies import studies
from fairq_utils.errors import BadInput
from fairq_utils.treatments.treatment import Treatment

EVERYWHERE = {"dataset": "utkface", "arch": "resnet18-16", "image_size": 32, "epochs": 1, "seeds": [900, 901]}
FACES = Setting(name="faces", title="Faces", **EVERYWHERE, bit_widths=[8, 4], ways=["", "channel"])


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Of nobody: a hundred squares of one colour, with names as in UTKFace."""
    folder = tmp_path_factory.mktemp("faces")
    for number in range(100):
        shade = (37 * number % 256, 91 * number % 256, number % 256)
        path = folder / f"{number % 90}_{number % 2}_{number % 5}_{10**16 + number}.jpg.chip.jpg"
        Image.new("RGB", (32, 32), shade).save(path)
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def written(photographs, store, tmp_path_factory):
    """Two networks, shipped."""
    layer = Layer(tmp_path_factory.mktemp("results"))
    chosen = studies(root=str(photographs), **EVERYWHERE)
    assert len(list(results.write(FACES, chosen, store=store, layer=layer))) == 2
    return layer


def asking(*names):
    return lambda got: {"rounded": Request(treatments=[Treatment.parse(name) for name in names])}


def test_without_a_photograph_a_chapter_reads_what_the_networks_answered(written, store, photographs):
    chosen, here = studies(**EVERYWHERE), studies(root=str(photographs), **EVERYWHERE)
    wanted = asks.Asks(bit_widths=[8, 4], weight_range=["channel"], grid_bit_widths=[4])
    nothing = Layer(written.folder / "nothing")
    shipped = gather.gather(chosen, wanted, layer=written)
    made = gather.gather(here, wanted, store=store, layer=nothing)
    assert shipped.shipped.keys() == set(chosen)
    assert not made.shipped
    for one, other in zip(shipped["rounded"], made["rounded"], strict=True):
        assert (one.treatment, one.study.seed) == (other.treatment, other.study.seed)
        assert np.array_equal(one.correct, other.correct)
        assert torch.equal(one.logits.argmax(1), other.logits.argmax(1))
        assert (one.logits - other.logits).abs().max() <= 2 / 64
        assert torch.equal(one.groups, other.groups)
    from_layer, from_store = tables.make(shipped), tables.make(made)
    assert from_layer.keys() == from_store.keys()
    for name in (
        "groups",
        "accuracy_by_seed",
        "change",
        "change_by_network",
        "chance",
        "storage",
        "confusion",
    ):
        pd.testing.assert_frame_equal(from_layer[name], from_store[name], check_dtype=False)
    few = asking("fp32", "int4")
    each = gather.gather(chosen, lambda got: {"few": replace(few(got)["rounded"], each=2)}, layer=written)
    assert [len(one.labels) for one in each["few"]] == [10] * 4


def test_one_width_too_many_is_never_paired_with_another_network(written, store, photographs):
    """A seed is another network elsewhere: either all of a study is read, or all of it is made."""
    too_many = asking("fp32", "int4", "int3")
    with pytest.raises(BadInput, match=r"does not ship, .*, int3; expected some of: fp32, int8, int4, int8"):
        gather.gather(studies(**EVERYWHERE), too_many, layer=written)
    got = gather.gather(studies(root=str(photographs), **EVERYWHERE), too_many, store=store, layer=written)
    assert not got.shipped
    alone = Layer(written.folder / "nothing")
    whole = gather.gather(studies(root=str(photographs), **EVERYWHERE), too_many, store=store, layer=alone)
    for one, other in zip(got["rounded"], whole["rounded"], strict=True):
        assert torch.equal(one.logits, other.logits)


def test_a_later_round_that_asks_for_more_begins_anew_with_networks_of_one_kind(written, store, photographs):
    def in_two_rounds(got):
        first = asking("fp32", "int4")(got)
        return first | ({"more": Request(treatments=[Treatment(3)])} if "rounded" in got else {})

    got = gather.gather(
        studies(root=str(photographs), **EVERYWHERE), in_two_rounds, store=store, layer=written
    )
    assert not got.shipped
    assert [len(got[name]) for name in ("rounded", "more")] == [4, 2]


@pytest.mark.parametrize(
    ("parameters", "asked", "said"),
    [
        ({"seeds": [7]}, asking("fp32"), r"none were given; expected where your copy lies, by -p root=PATH"),
        ({"seeds": [7]}, asking("fp32"), "that the book ships: -p setting=faces, with its own seeds"),
        (
            {},
            lambda got: {"learned": Request(treatments=[Treatment(4)], split="train")},
            "does not ship, of .*, its answers to the images for train; expected some of: fp32",
        ),
    ],
)
def test_what_can_neither_be_read_nor_made_is_told_in_one_sentence(written, parameters, asked, said):
    with pytest.raises(BadInput, match=said) as refused:
        gather.gather(studies(**EVERYWHERE | parameters), asked, layer=written)
    assert str(refused.value).count("\n") == 0


def test_it_names_weights_code_and_images_and_no_place(written, photographs):
    (one, other) = written.networks("faces")
    assert one.weights != other.weights
    assert one.split != other.split  # the seed tells the fold
    assert {*one.made["code"]} == {"read", "train", "predict"}
    assert one.made["code"].items() <= codes.CODE.items()
    assert str(photographs) not in str(one.study) + str(one.made)
    split = written.split("faces", one)
    assert {*split.attributes} == {"gender", "age"}
    assert one.record["bytes"]["int4"] < one.record["bytes"]["int8"] < one.record["bytes"]["fp32"]
    assert one.study == identified(studies(**EVERYWHERE | {"seeds": [900]})[0])


@pytest.fixture
def shipping(written, monkeypatch, store):
    """The commands, of a book that ships these networks."""
    monkeypatch.setattr(gather, "results_folder", lambda root=None: written.folder)
    monkeypatch.setattr(results, "results_folder", lambda root=None: written.folder)
    monkeypatch.setattr(settings, "settings", lambda root=None: {"faces": FACES})
    monkeypatch.setenv("FAIRQ_STORE", str(store.root))
    return lambda *arguments: CliRunner().invoke(main, ["results", *arguments])


def test_what_is_there_is_listed_and_what_earlier_code_made_is_called_so(shipping, monkeypatch):
    assert "faces: 2 networks, 5 treatments, 0." in shipping("list").output
    assert "made by this code" in shipping("list").output
    monkeypatch.setattr(results, "CODE", codes.CODE | {"predict": "0" * 64})
    assert "made by earlier code of: predict" in shipping("list").output


def test_what_is_made_anew_is_what_is_shipped(shipping, photographs):
    done = shipping("verify", "faces", "--root", str(photographs))
    assert done.exit_code == 0, done.output
    assert "25 of 25 counts agree (equal)" in done.output


def test_a_network_in_the_place_of_another_is_found_out(shipping, written, photographs, tmp_path):
    layer = Layer(tmp_path / "results")
    shutil.copytree(written.folder, layer.folder)
    (one, _) = written.networks("faces")
    answers = {name: logits.roll(1, dims=1) for name, logits in one.logits.items()}
    layer.write("faces", replace(one, logits=answers), written.split("faces", one))
    table = results.verified(FACES, studies(root=str(photographs), **EVERYWHERE)[0], layer=layer)
    assert not table["agrees"].all()


def test_writing_says_what_is_written(shipping, photographs):
    done = shipping("write", "faces", "--root", str(photographs), "--seeds", "900")
    assert done.output == "faces: utkface-resnet18-16-32px-seed900, 5 treatments\n"
    assert "expected some of those of faces" in shipping("write", "faces", "--seeds", "3").output
    assert "setting is 'nobody'; expected one of: faces" in shipping("verify", "nobody").output


def test_other_images_than_those_that_were_shipped_are_refused_before_a_network_is_made(
    shipping, written, photographs, tmp_path, monkeypatch
):
    other = shutil.copytree(photographs, tmp_path / "other")
    Image.new("RGB", (32, 32), "white").save(sorted(other.iterdir())[0])
    monkeypatch.setattr(results, "answered", lambda *_, **__: pytest.fail("hours"))
    before = {path: path.read_bytes() for path in written.folder.rglob("*.xz")}
    done = shipping("write", "faces", "--root", str(other))
    assert done.exit_code == 2
    place = written.folder / "faces"
    assert f"utkface-resnet18-16-32px-seed900 would see other images than {place} was made of" in done.stderr
    assert "expected the same: give the copy of the data that those were made of" in done.stderr
    assert done.stderr.count("\n") == 1
    assert {path: path.read_bytes() for path in written.folder.rglob("*.xz")} == before


def test_a_setting_fills_the_parameters_of_a_study_and_what_is_given_beside_it_overrules():
    chapter = notebooks.find("01")
    found = chapter.check({"setting": "utkface_small", "seeds": [901]})
    assert (found["dataset"], found["image_size"], found["arch"]) == ("utkface", 64, "resnet18-16")
    assert found["seeds"] == [901]
    assert "root" not in found
    (study,) = settings.studies_of(
        **{name: found[name] for name in ("setting", "seeds", "arch", "image_size")}
    )
    assert study.recipe.learning_rate == 0.05  # which is no parameter of a chapter, and comes all the same
    with pytest.raises(BadInput, match="image_size is 32, which is the default and so counts as not given"):
        chapter.check({"setting": "utkface_small", "image_size": 32})
    with pytest.raises(BadInput, match="setting is 'nobody'; expected one of: utkface_small"):
        chapter.check({"setting": "nobody"})
