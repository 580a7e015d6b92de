import json
import os
import pathlib
import shutil
import tarfile
import zipfile
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fairq_utils.data import sources
from fairq_utils.data.datasets import Dataset, describe
from fairq_utils.data.layouts import LAYOUTS, UTKFACE
from fairq_utils.data.moths import (
    DIFFICULTY,
    EASIER,
    EVEN,
    FOCAL_DIFFICULTY,
    GROUPS,
    HARDER,
    SHARES,
    MothSettings,
    draw_moths,
)
from fairq_utils.data.sources import ROLES, DataSettings, load, select_images
from fairq_utils.errors import BadInput

ROOT = pathlib.Path(__file__).parents[1]


def refusal(action: Callable[[], object]) -> str:
    """What the action is refused with: one sentence."""
    with pytest.raises(BadInput) as refused:
        action()
    sentence = str(refused.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    return sentence


def paint(path: pathlib.Path, content: int) -> None:
    """A picture that can be told from its first pixel after decoding."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (content % 256, content // 256, 0)).save(path, "PNG")


def contents(dataset: Dataset) -> list[int]:
    red, green, _ = dataset.images[:, :, 0, 0].T.int()
    return (red + 256 * green).tolist()


# ---------------------------------------------------------------- moths


ALIKE, FEW = (0.2,) * 5, (0.23, 0.23, 0.23, 0.23, 0.08)


@pytest.mark.parametrize(
    ("name", "sizes", "difficulty"),
    [("moths", SHARES, DIFFICULTY), ("moths-harder", SHARES, HARDER), ("moths-easier", SHARES, EASIER)],
)
def test_moths_have_the_sizes_of_faces_and_their_species_are_their_groups(name, sizes, difficulty):
    identity = DataSettings(name=name).identity()
    assert DataSettings(name=name).is_drawn
    assert (tuple(identity["sizes"]), tuple(identity["difficulty"])) == (sizes, difficulty)
    assert (identity["train_images"], identity["test_images"]) == (6000, 6000)
    moths = load(name, train_images=100, test_images=50, image_size=16)
    assert moths.images.shape == (150, 3, 16, 16)
    assert moths.images.dtype == torch.uint8
    assert moths.group_names == moths.label_names == GROUPS
    assert torch.equal(moths.labels, moths.groups)
    learned_or_chosen = moths.groups[~moths.is_test].bincount(minlength=5)
    assert (learned_or_chosen - 100 * torch.tensor(sizes)).abs().max() < 1
    assert moths.notes == {}


@pytest.mark.parametrize(
    ("name", "sizes", "harder"),
    [
        ("moths-equal", ALIKE, 1.0),
        ("moths-by-size", FEW, 1.0),
        ("moths-by-difficulty", ALIKE, FOCAL_DIFFICULTY),
        ("moths-by-both", FEW, FOCAL_DIFFICULTY),
    ],
)
@pytest.mark.parametrize("rotation", range(5))
def test_where_roles_rotate_each_species_is_the_focal_group_once(name, sizes, harder, rotation):
    settings = {"train_images": 200, "test_images": 50, "image_size": 16, "rotation": rotation}
    identity = DataSettings(name=name, **settings).identity()
    moths = load(name, **settings)
    assert moths.label_names == GROUPS
    assert moths.group_names == ROLES
    focal = moths.groups == 4
    assert moths.labels[focal].unique().tolist() == [rotation]
    peers = [moths.labels[moths.groups == role].unique().tolist() for role in range(4)]
    assert peers == [[species] for species in range(5) if species != rotation]
    learned_or_chosen = moths.groups[~moths.is_test].bincount(minlength=5)
    assert (learned_or_chosen - 200 * torch.tensor(sizes)).abs().max() < 1
    times = [own / even for own, even in zip(identity["difficulty"], EVEN, strict=True)]
    assert times == pytest.approx([harder if species == rotation else 1.0 for species in range(5)], abs=1e-3)


def test_what_a_kind_of_moths_does_not_change_is_the_same_moths():
    """So that size and difficulty are all that the kinds differ by."""
    kinds = ("moths-equal", "moths-by-size", "moths-by-difficulty", "moths-by-both")
    equal, size, hard, both = (load(name, train_images=400, test_images=100, rotation=2) for name in kinds)

    def tested(moths, species):
        return set(moths.image_numbers[moths.is_test & (moths.labels == species)].tolist())

    for species in (0, 1, 3, 4):
        assert tested(size, species) > tested(equal, species)  # more of them, and none is another
        assert tested(hard, species) == tested(equal, species)
        assert tested(both, species) == tested(size, species)
    assert tested(size, 2) < tested(equal, 2)
    assert tested(both, 2) < tested(hard, 2)
    assert not tested(hard, 2) & tested(equal, 2)


def test_another_draw_is_other_moths():
    one, other = (load("moths", train_images=40, test_images=40, draw=draw) for draw in (0, 1))
    assert not torch.isin(one.image_numbers, other.image_numbers).any()
    assert DataSettings(draw=1).identity() != DataSettings().identity()
    drawn = draw_moths(MothSettings(train=40, test=40, seed=1))
    assert torch.equal(other.images, drawn.images)
    assert torch.equal(other.is_test, ~drawn.is_train)


def test_the_fingerprint_is_that_of_the_content():
    def fingerprint(**changes) -> str:
        images = load("moths", train_images=30, test_images=30, image_size=16)
        for name, change in changes.items():
            change(getattr(images, name))
        return images.fingerprint

    same = fingerprint()
    assert fingerprint() == same
    assert fingerprint(images=lambda tensor: tensor[7, 1].fill_(3)) != same
    assert fingerprint(labels=lambda tensor: tensor[3].fill_(4)) != same
    assert fingerprint(groups=lambda tensor: tensor[3].fill_(4)) != same
    assert fingerprint(is_train=lambda tensor: tensor[3].fill_(False)) != same
    assert fingerprint(is_tuning=lambda tensor: tensor[59].fill_(True)) != same
    assert fingerprint(notes=lambda notes: notes.update(found=7)) == same


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"name": "mooths"}, "expected one of: moths, moths-harder"),
        ({"name": "utkface"}, "expected the path of your copy"),
        ({"name": "folder", "root": ""}, "expected the path of your copy"),
        ({"root": "/tmp"}, "leave it out"),
        ({"label": "race"}, "for moths, one of: species"),
        ({"name": "utkface", "root": "x", "group": "Male"}, "for utkface, one of: race, gender, age"),
        ({"name": "celeba", "root": "x", "label": "race"}, "for celeba, one of: 5_o_Clock_Shadow"),
        ({"image_size": 8}, "from 16 to 512"),
        ({"image_size": 32.0}, "a whole number"),
        ({"train_images": 0}, "from 5 to"),
        ({"test_images": True}, "from 5 to"),
        ({"train_images": 5}, "at least one image"),
        ({"fold": 1}, "fold is 1; expected none, for moths are drawn: give a draw"),
        ({"fold": 5}, "from 0 to 4"),
        ({"draw": -1}, "from 0 to"),
        ({"rotation": 1}, "rotation is 1; expected none, for the groups of moths are no roles"),
        ({"name": "moths-equal", "rotation": 5}, "from 0 to 4"),
        ({"name": "utkface", "root": "x", "draw": 1}, "draw is 1; expected none, for utkface is not drawn"),
        ({"split_seed": 0}, "split_seed is 0; expected none any more: fold, from 0 to 4, says"),
        ({"keep_conflicting": 1}, "true or false"),
    ],
)
def test_settings_that_cannot_be_are_refused(given, why):
    assert why in refusal(lambda: DataSettings(**given).identity())


@pytest.mark.parametrize("name", list(LAYOUTS))
def test_a_wrong_path_is_refused(tmp_path, name):
    """Long before anything is loaded, by the identity as well."""
    for root in (tmp_path, tmp_path / "nowhere", tmp_path / "nowhere.zip"):
        missing = DataSettings(name=name, root=str(root))
        assert "correct the path" in refusal(missing.load)
    refusal(missing.identity)


# ---------------------------------------------------------------- one data set in many packings


@pytest.fixture
def portraits(tmp_path) -> pathlib.Path:
    """Sixty pictures with the names of UTKFace, one of them twice, and what else lies in such a folder."""
    folder = tmp_path / "portraits"
    for number in range(60):
        paint(folder / f"{number}_{number % 2}_{number % 5}_{10**16 + number}.jpg.chip.jpg", number % 59)
    (folder / "61_1_20170109150557335.jpg.chip.jpg").write_bytes(b"whatever")
    (folder / "read.me").write_text("text")
    return folder


def packed(folder: pathlib.Path, target: pathlib.Path, kind: str) -> str:
    target.mkdir()
    files = sorted(folder.iterdir())
    if kind == "folder":
        shutil.copytree(folder, target / "deep" / "folder")
    elif kind == "parts in a folder":
        for number in range(3):
            with zipfile.ZipFile(target / f"part{number}.zip", "w") as archive:
                for path in files[number::3]:
                    archive.write(path, f"part{number}/{path.name}")
        (target / "notes.txt").write_text("nothing")
        with zipfile.ZipFile(target / "others.zip", "w") as archive:
            archive.writestr("../letter.txt", "of no concern")
    elif kind == "parts by path":
        with zipfile.ZipFile(target / "one.zip", "w") as archive:
            for path in files[:20]:
                archive.write(path, path.name)
        with tarfile.open(target / "other.tgz", "w:gz") as archive:
            for path in reversed(files[20:]):
                archive.add(path, f"UTKFace/{path.name}")
        return os.pathsep.join([str(target / "other.tgz"), str(target / "one.zip")])
    elif kind == "folder and zip of it":
        shutil.copytree(folder, target / "folder")
        shutil.make_archive(str(target / "folder"), "zip", folder)
    else:
        form = {".zip": "zip", ".tar": "tar", ".tar.gz": "gztar"}[kind]
        return shutil.make_archive(str(target / "all"), form, folder.parent, folder.name)
    return str(target)


PACKINGS = ["folder", ".zip", ".tar", ".tar.gz", "parts in a folder", "parts by path", "folder and zip of it"]


@pytest.mark.parametrize("kind", PACKINGS)
def test_however_it_is_packed_it_is_the_same_data_set(tmp_path, portraits, kind):
    plain = load("utkface", root=str(portraits), image_size=16)
    other = load("utkface", root=packed(portraits, tmp_path / "packed", kind), image_size=16)
    assert other.fingerprint == plain.fingerprint
    assert contents(other) == contents(plain)
    if kind != "folder and zip of it":
        assert other.notes == plain.notes


def test_what_lies_there_twice_is_taken_once(tmp_path, portraits):
    notes = load("utkface", root=packed(portraits, tmp_path / "packed", "folder and zip of it")).notes
    skipped = {entry["reason"]: entry["count"] for entry in notes["skipped"]}
    assert skipped["the same file a second time"] == 60
    assert notes["copies"]["files"] == 2


def test_two_versions_of_one_picture_are_refused(tmp_path, portraits):
    paint(tmp_path / "portraits" / "wild" / f"7_1_2_{10**16 + 7}.jpg", 77)
    assert "different pictures under one name" in refusal(
        DataSettings(name="utkface", root=str(portraits)).load
    )


def test_notes_tell_what_became_of_every_file(portraits):
    dataset = load("utkface", root=str(portraits), image_size=16, train_images=30, test_images=5)
    notes = dataset.notes
    assert json.loads(json.dumps(notes)) == notes
    assert notes["found"] == 61
    assert notes["used"] == len(dataset.images) == 35
    assert notes["used"] + sum(entry["count"] for entry in notes["skipped"]) == notes["found"]
    assert notes["copies"] == {"sets": 1, "files": 2, "conflicting_sets": 1, "conflicting_files": 2}
    assert notes["skipped"][0] == {
        "reason": "the name is not <age>_<gender>_<race>_<time>.jpg",
        "count": 1,
        "files": ["61_1_20170109150557335.jpg.chip.jpg"],
    }
    assert all(len(entry["files"]) == min(10, entry["count"]) for entry in notes["skipped"])


def test_a_text_file_among_the_pictures_stops_it(portraits):
    (portraits / "20_0_0_20170109150557335.jpg").write_text("a text")
    assert "no image" in refusal(DataSettings(name="utkface", root=str(portraits)).load)


def test_files_without_any_usable_name_are_refused(tmp_path):
    paint(tmp_path / "61_1_20170109150557335.jpg", 0)
    assert "0 of 1 files were usable" in refusal(DataSettings(name="utkface", root=str(tmp_path)).load)


def test_what_is_not_taken_is_not_decoded(portraits, monkeypatch):
    decoded = []
    decode = sources.decode_images

    def counting(members, **options):
        decoded.extend(members)
        return decode(members, **options)

    monkeypatch.setattr(sources, "decode_images", counting)
    few = load("utkface", root=str(portraits), image_size=16, train_images=6, test_images=5)
    assert len(decoded) == len(few.images) == 11


# ---------------------------------------------------------------- the split


def write_own(folder: pathlib.Path, rows: list[tuple[int, ...]], split: list[str] | None = None) -> str:
    """Rows of content, label and group."""
    table = pd.DataFrame(rows, columns=["content", "label", "group"])
    table["file"] = [f"{number:03}.png" for number in range(len(table))]
    for file, content in zip(table["file"], table["content"], strict=True):
        paint(folder / file, content)
    if split is not None:
        table["split"] = split
    table.drop(columns="content").to_csv(folder / "labels.csv", index=False)
    return str(folder)


ROWS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 1), st.integers(0, 2)), min_size=8, max_size=60)


@settings(max_examples=40)
@given(rows=ROWS, fold=st.integers(0, 4), keep=st.booleans())
def test_no_content_is_in_two_parts_and_each_stratum_has_its_share(tmp_path_factory, rows, fold, keep):
    folder = tmp_path_factory.mktemp("own")
    table = pd.DataFrame(rows, columns=["content", "label", "group"])
    agreeing = table.drop_duplicates().groupby("content").filter(lambda copies: len(copies) == 1)
    usable = table if keep else table[table["content"].isin(agreeing["content"])]
    chosen = DataSettings(
        name="folder", root=write_own(folder, rows), image_size=16, fold=fold, keep_conflicting=keep
    )
    if usable["content"].nunique() <= max(fold, 1):
        assert "expected images in both splits" in refusal(chosen.load)
        return
    dataset = chosen.load()
    shutil.rmtree(folder)
    assert contents(dataset) == usable["content"].tolist()
    assert dataset.notes["copies"] == {
        "sets": int((table["content"].value_counts() > 1).sum()),
        "files": int(table["content"].duplicated(keep=False).sum()),
        "conflicting_sets": int(table["content"].nunique() - len(agreeing)),
        "conflicting_files": int((~table["content"].isin(agreeing["content"])).sum()),
    }
    assert (dataset.is_train.int() + dataset.is_tuning.int() + dataset.is_test.int() == 1).all()
    sides = pd.DataFrame({"content": contents(dataset), "part": parts(dataset)}).drop_duplicates()
    assert sides["content"].is_unique
    sides = sides.assign(test=sides["part"] == "test", tuning=sides["part"] == "tuning")
    assert abs(sides["test"].sum() - len(sides) / 5) < 1
    strata = sides.merge(agreeing, on="content").groupby(["label", "group"])
    assert ((strata["test"].sum() - strata.size() / 5).abs() < 1).all()
    rest = strata.size() - strata["test"].sum()
    # A tenth, rounded down, but of two contents or more at least one.
    assert (strata["tuning"].sum() == (rest // 10).clip(lower=(rest > 1).astype(int))).all()


def parts(dataset: Dataset) -> list[str]:
    flags = {"train": dataset.is_train, "tuning": dataset.is_tuning, "test": dataset.is_test}
    return [next(name for name, flag in flags.items() if flag[place]) for place in range(len(dataset.labels))]


def sides(dataset: Dataset) -> dict[int, bool]:
    """Whether each content is for the test."""
    return dict(zip(contents(dataset), dataset.is_test.tolist(), strict=True))


def test_five_folds_test_on_every_content_once(tmp_path):
    random = np.random.default_rng(3)
    rows = [(int(random.integers(0, 150)), 0, 0) for _ in range(200)]  # with copies
    rows = [(content, content % 2, content % 3) for content, *_ in rows]
    root = write_own(tmp_path, rows)
    folds = [load("folder", root=root, image_size=16, fold=fold) for fold in range(5)]
    assert all(torch.equal(fold.images, folds[0].images) for fold in folds)
    assert torch.equal(sum(fold.is_test.int() for fold in folds), torch.ones(200, dtype=torch.int32))
    tested = [set(np.array(contents(fold))[fold.is_test.numpy()].tolist()) for fold in folds]
    assert sum(map(len, tested)) == len(set.union(*tested)) == len({content for content, *_ in rows})


def test_a_folder_with_a_split_of_its_own_keeps_to_it_in_every_fold(tmp_path):
    rows = [(content, content % 2, 0) for content in range(30)]
    root = write_own(tmp_path, rows, ["test" if content < 7 else "train" for content in range(30)])
    for fold in (0, 3):
        dataset = load("folder", root=root, image_size=16, fold=fold)
        assert dataset.is_test.tolist() == [content < 7 for content in range(30)]
        assert int(dataset.is_tuning.sum()) == 2


def test_a_number_tells_an_image_in_other_data_sets_and_copies_apart(tmp_path):
    root = write_own(tmp_path, [(content // 2, 0, 0) for content in range(40)])
    one, few = (load("folder", root=root, image_size=16, **more) for more in ({}, {"train_images": 10}))
    assert len(one.image_numbers.unique()) == 40
    assert torch.isin(few.image_numbers, one.image_numbers).all()


def test_the_split_moves_with_the_fold_and_nothing_else(tmp_path):
    random = np.random.default_rng(0)
    rows = [(content, *random.integers(0, 2, 2)) for content in range(300)]
    conflicting = [(content, label, 1 - group) for content, label, group in rows[:20]]
    root = write_own(tmp_path / "own", rows + conflicting)
    usual = sides(load("folder", root=root, image_size=16))
    assert sides(load("folder", root=root, image_size=16)) == usual
    assert sides(load("folder", root=root, image_size=16, fold=1)) != usual
    assert sides(load("folder", root=root, image_size=32)).items() == usual.items()
    for more in ({"keep_conflicting": True}, {"train_images": 100}, {"test_images": 10, "train_images": 20}):
        other = sides(load("folder", root=root, image_size=16, **more))
        common = other.keys() & usual.keys()
        assert {content: other[content] for content in common} == {
            content: usual[content] for content in common
        }
        assert len(common) >= 30
    # The names of the files do not matter either.
    renamed = sides(
        load("folder", root=write_own(tmp_path / "other", conflicting + rows[::-1]), image_size=16)
    )
    assert renamed == usual


def test_label_and_group_together_make_a_stratum(tmp_path):
    random = np.random.default_rng(1)
    rows = [(content, *random.integers(0, (2, 3))) for content in range(300)]
    root = write_own(tmp_path, rows)
    for fold in range(5):
        counts = load("folder", root=root, image_size=16, fold=fold).counts()
        n = counts.pivot_table(index=["label", "group"], columns="split", values="n")
        assert len(n) == 6
        assert ((n["test"] - n.sum(axis="columns") / 5).abs() < 1).all()


def test_random_numbers_of_others_neither_reach_the_split_nor_are_used_up(tmp_path):
    root = write_own(tmp_path, [(content, content % 2, 0) for content in range(50)])
    torch.manual_seed(1)
    first = load("folder", root=root, image_size=16)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert load("folder", root=root, image_size=16).fingerprint == first.fingerprint
    assert torch.equal(torch.get_rng_state(), before)


def test_a_subset_is_random_and_no_more_than_there_is(tmp_path):
    root = write_own(tmp_path, [(content, content % 2, 0) for content in range(200)])
    whole = load("folder", root=root, image_size=16)
    few = load("folder", root=root, image_size=16, train_images=50)
    assert int((~few.is_test).sum()) == 50
    assert int(few.is_test.sum()) == int(whole.is_test.sum()) == 40
    assert set(contents(few)) < set(contents(whole))
    assert 40 < np.mean(np.array(contents(few))[few.is_train.numpy()]) < 160  # not the first 50, nor the last
    assert load("folder", root=root, image_size=16, train_images=10**6).fingerprint == whole.fingerprint


def test_a_given_split_is_kept_but_for_copies(tmp_path):
    rows = [(1, 0, 0), (2, 0, 0), (3, 1, 0), (1, 0, 0), (4, 0, 1), (4, 1, 1), (5, 1, 1), (5, 1, 0)]
    split = ["train", "train", "test", "test", "test", "test", "train", "test"]
    root = write_own(tmp_path, rows, split)
    dataset = load("folder", root=root, image_size=16)
    assert contents(dataset) == [2, 3, 1]
    assert dataset.is_test.tolist() == [False, True, True]
    reasons = {entry["reason"]: entry["files"] for entry in dataset.notes["skipped"]}
    assert reasons == {
        "a copy of it has another label or group": ["004.png", "005.png", "006.png", "007.png"],
        "a copy of it is in the test split": ["000.png"],
    }
    kept = load("folder", root=root, image_size=16, keep_conflicting=True)
    assert contents(kept) == [2, 3, 1, 4, 4, 5]
    assert kept.is_test.tolist() == [False, True, True, True, True, True]


def test_photographs_of_your_own_are_turned_upright(tmp_path):
    root = write_own(tmp_path, [(content, content % 2, 0) for content in range(4)], ["train", "test"] * 2)
    sideways = Image.new("RGB", (16, 16))
    sideways.paste((255, 255, 255), (0, 0, 8, 16))
    exif = Image.Exif()
    exif[0x0112] = 6
    sideways.save(tmp_path / "000.png", "PNG", exif=exif)
    picture = load("folder", root=root, image_size=16).images[0]
    assert picture[:, :7].eq(255).all()
    assert picture[:, 9:].eq(0).all()


def test_a_data_set_without_test_images_is_refused(tmp_path):
    root = write_own(tmp_path, [(1, 0, 0), (2, 1, 0)], ["train", "train"])
    assert "no test images" in refusal(DataSettings(name="folder", root=root).load)


# ---------------------------------------------------------------- the identity


def test_the_identity_is_plain_and_knows_no_path(tmp_path, portraits):
    identity = DataSettings(name="utkface", root=str(portraits)).identity()
    assert json.loads(json.dumps(identity)) == identity
    assert str(tmp_path) not in json.dumps(identity)
    assert identity == DataSettings(name="utkface", root=str(portraits), label="race").identity()
    portraits.rename(tmp_path / "moved")
    assert DataSettings(name="utkface", root=str(tmp_path / "moved")).identity() == identity


@pytest.mark.parametrize(
    "change",
    [
        {"image_size": 16},
        {"label": "gender"},
        {"group": "age"},
        {"train_images": 20},
        {"test_images": 20},
        {"fold": 1},
        {"keep_conflicting": True},
    ],
)
def test_everything_that_decides_the_content_is_in_the_identity(portraits, change):
    usual = DataSettings(name="utkface", root=str(portraits))
    assert DataSettings(name="utkface", root=str(portraits), **change).identity() != usual.identity()
    if "keep_conflicting" in change or "image_size" in change:
        assert (
            DataSettings(name="utkface", root=str(portraits), **change).load().fingerprint
            != usual.load().fingerprint
        )


# ---------------------------------------------------------------- tables


def test_counts_are_those_of_pandas(portraits):
    dataset = load("utkface", root=str(portraits), label="gender", group="race", image_size=16)
    counts = dataset.counts()
    assert list(counts.columns) == ["label", "group", "split", "n"]
    frame = pd.DataFrame(
        {
            "label": [dataset.label_names[label] for label in dataset.labels],
            "group": [dataset.group_names[group] for group in dataset.groups],
            "split": parts(dataset),
        }
    )
    occurring = counts[counts["n"] > 0].set_index(["label", "group", "split"])["n"].to_dict()
    assert occurring == frame.value_counts().to_dict()
    assert len(counts) == 3 * len(frame[["label", "group"]].drop_duplicates())


def test_the_description_tells_what_was_left_out(portraits):
    dataset = load("utkface", root=str(portraits), image_size=16)
    text = describe(dataset)
    lines = text.splitlines()
    assert lines[0].split() == ["found", "61"]
    assert lines[1].split() == ["used", "58"]
    assert "61_1_20170109150557335.jpg.chip.jpg" in text
    assert "in 1 sets (2 files) label or group disagree" in text
    assert lines[-1] == f"fingerprint {dataset.fingerprint}"
    start = lines.index("group   train  tuning  test  all")
    assert [line.split()[0] for line in lines[start + 1 : start + 7]] == [
        "White",
        "Black",
        "Asian",
        "Indian",
        "Others",
        "all",
    ]
    assert len({len(line) for line in lines[start : start + 7]}) == 1
    crossed = describe(load("utkface", root=str(portraits), label="gender", image_size=16))
    assert "White   Female" in crossed


# ---------------------------------------------------------------- the real ones


@pytest.fixture(scope="module")
def real() -> pathlib.Path:
    folder = os.environ.get("FAIRQ_TEST_DATA")
    if not folder:
        pytest.skip("FAIRQ_TEST_DATA is not set: expected a folder with UTKFace and FairFace")
    for file in ("utkface_index.csv", "fairface_label_train.csv"):
        if not (pathlib.Path(folder) / file).exists():
            pytest.skip(f"FAIRQ_TEST_DATA holds no {file}")
    return pathlib.Path(folder)


def test_utkface_has_the_counts_of_its_index(real):
    settings = DataSettings(name="utkface", root=str(real), image_size=16)
    dataset = settings.load()

    index = pd.read_csv(real / "utkface_index.csv")
    assert index["race"].value_counts(sort=False).sort_index().tolist() == [10078, 4525, 3434, 3975, 1692]
    copies = index.groupby("md5")["race"].agg(["size", "nunique"])
    conflicting = copies.index[copies["nunique"] > 1]
    assert dataset.notes["found"] == len(index)
    assert dataset.notes["copies"] == {
        "sets": 375,
        "files": 765,
        "conflicting_sets": 70,
        "conflicting_files": int(index["md5"].isin(conflicting).sum()),
    }
    used = index[~index["md5"].isin(conflicting)]
    assert dataset.groups.bincount().tolist() == used["race"].value_counts().sort_index().tolist()
    # In the order of the names without .jpg.chip.jpg, so that each row of ours is a row of theirs.
    stems = used["file"].str.replace(r" *\.?jpg\.chip\.jpg$", "", regex=True)
    used = used.assign(stem=stems).sort_values("stem").assign(train=~dataset.is_test.numpy())
    assert dataset.groups.tolist() == used["race"].tolist()
    sides = used.groupby("md5")["train"].agg(["min", "max"])
    assert (sides["min"] == sides["max"]).all()
    units = used.drop_duplicates("md5").groupby("race")["train"]
    assert ((units.size() - units.sum() - units.size() / 5).abs() < 1).all()


def test_the_folds_of_utkface_test_on_every_image_once(real):
    listing = UTKFACE.read([real], label="race", group="race")
    settings = [DataSettings(name="utkface", root=str(real), fold=fold) for fold in range(5)]
    tables = [select_images(listing, own)[0] for own in settings]
    tested = pd.concat([table[table["split"] == "test"].assign(fold=n) for n, table in enumerate(tables)])
    assert sorted(tested["name"]) == sorted(tables[0]["name"])
    assert tested.drop_duplicates(["content", "fold"])["content"].is_unique
    for table in tables:
        assert table.drop_duplicates(["content", "split"])["content"].is_unique
        rest = table[table["split"] != "test"].drop_duplicates("content")
        shares = rest["split"].eq("tuning").groupby(rest["group"]).mean()
        assert shares.between(0.098, 0.1).all()


def test_fairface_has_the_counts_of_its_tables(real):
    dataset = load(
        "fairface", root=str(real), label="age", group="race", image_size=16, keep_conflicting=True
    )
    theirs = pd.concat(pd.read_csv(real / f"fairface_label_{part}.csv") for part in ("train", "val"))
    assert dataset.notes["skipped"] == []
    assert dataset.notes["found"] == len(theirs)
    theirs = theirs.assign(age=theirs["age"].replace("more than 70", "70+"))
    expected = theirs.value_counts(["age", "race"]).to_dict()
    counts = dataset.counts().groupby(["label", "group"])["n"].sum()
    assert counts[counts > 0].to_dict() == expected
