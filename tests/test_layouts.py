import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torchvision
from PIL import Image

from fairq_utils.data.layouts import (
    AGES,
    CELEBA,
    CELEBA_ATTRIBUTES,
    FAIRFACE,
    FOLDER,
    LAYOUTS,
    UTKFACE,
    Listing,
)
from fairq_utils.errors import BadInput


def refusal(action: Callable[[], object]) -> str:
    """What the action is refused with: one sentence."""
    with pytest.raises(BadInput) as refused:
        action()
    sentence = str(refused.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    return sentence


def named(listing: Listing) -> dict[str, tuple[str, str, str]]:
    return {
        row.name: (listing.label_names[row.label], listing.group_names[row.group], row.split)
        for row in listing.table.itertuples(index=False)
    }


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_where_nothing_is_one_sentence_says_what_was_looked_for(tmp_path, layout):
    for paths in ([tmp_path], [tmp_path / "nowhere"], []):
        sentence = refusal(lambda paths=paths: layout.read(paths, label=layout.label, group=layout.group))
        assert "expected" in sentence


# ---------------------------------------------------------------- UTKFace


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_utkface_is_read_from_its_names(tmp_path):
    touch(
        tmp_path,
        "1_0_0_20170109150557335.jpg.chip.jpg",
        "deep/deeper/26_1_1_20170116184024662.jpg",
        "70_0_2_20170116184024662.JPG",
        "55_1_3_20170116232725357jpg.chip.jpg",
        "24_0_4_20170116220224657 .jpg.chip.jpg",
        "readme.txt",
        "portrait.jpg",
    )
    listing = UTKFACE.read([tmp_path], label="age", group="race")
    assert named(listing) == {
        "1_0_0_20170109150557335": ("0-2", "White", ""),
        "24_0_4_20170116220224657": ("20-29", "Others", ""),
        "26_1_1_20170116184024662": ("20-29", "Black", ""),
        "55_1_3_20170116232725357": ("50-59", "Indian", ""),
        "70_0_2_20170116184024662": ("70+", "Asian", ""),
    }
    assert listing.skipped == {}
    assert listing.found == 5
    listing = UTKFACE.read([tmp_path], label="gender", group="gender")
    assert [label for label, _, _ in named(listing).values()] == ["Male", "Male", "Female", "Female", "Male"]


def test_utkface_names_that_say_nothing_are_skipped_and_named(tmp_path):
    touch(
        tmp_path,
        "20_0_0_20170109150557335.jpg.chip.jpg",
        "61_1_20170109150557335.jpg.chip.jpg",
        "61_1_20170109142408075.jpg.chip.jpg",
        "39_1_20170116174525125.jpg.chip.jpg",
        "53__0_20170116184028385.jpg",
        f"{'9' * 200}_0_0_20170116184028385.jpg",
        "117_0_0_20170109150557335.jpg",
        "20_2_0_20170109150557335.jpg",
        "20_0_5_20170109150557335.jpg",
    )
    listing = UTKFACE.read([tmp_path], label="race", group="race")
    assert list(named(listing)) == ["20_0_0_20170109150557335"]
    assert listing.found == 9
    assert listing.skipped == {
        "the name is not <age>_<gender>_<race>_<time>.jpg": [
            "39_1_20170116174525125.jpg.chip.jpg",
            "53__0_20170116184028385.jpg",
            "61_1_20170109142408075.jpg.chip.jpg",
            "61_1_20170109150557335.jpg.chip.jpg",
            f"{'9' * 200}_0_0_20170116184028385.jpg",
        ],
        "the age is not from 0 to 116": ["117_0_0_20170109150557335.jpg"],
        "the gender is not 0 or 1": ["20_2_0_20170109150557335.jpg"],
        "the race is not from 0 to 4": ["20_0_5_20170109150557335.jpg"],
    }


def test_every_age_falls_into_the_bin_that_names_it(tmp_path):
    touch(tmp_path, *(f"{age}_0_0_1.jpg" for age in range(117)))
    for name, (age, _, _) in named(UTKFACE.read([tmp_path], label="age", group="race")).items():
        least, _, most = age.replace("70+", "70-116").partition("-")
        assert int(least) <= int(name.split("_")[0]) <= int(most)


# ---------------------------------------------------------------- FairFace

HEADER = "file,age,gender,race,service_test\n"


def write_fairface(folder: Path, train: str, val: str, header: str = HEADER) -> Path:
    (folder / "fairface_label_train.csv").write_text(header + train)
    (folder / "fairface_label_val.csv").write_text(header + val)
    return folder


@pytest.fixture
def fairface(tmp_path) -> Path:
    write_fairface(
        tmp_path,
        "train/1.jpg,more than 70,Male,East Asian,TRUE\ntrain/2.jpg,0-2,Female,Latino_Hispanic,FALSE\n",
        "val/1.jpg,30-39,Female,Middle Eastern,FALSE\n",
    )
    return touch(tmp_path, "train/1.jpg", "train/2.jpg", "val/1.jpg")


def test_fairface_is_read_from_its_tables(fairface):
    assert named(FAIRFACE.read([fairface], label="race", group="age")) == {
        "train/1.jpg": ("East Asian", "70+", ""),
        "train/2.jpg": ("Latino_Hispanic", "0-2", ""),
        "val/1.jpg": ("Middle Eastern", "30-39", ""),
    }


def test_fairface_in_zips_beside_its_tables_is_the_same(fairface):
    before = FAIRFACE.read([fairface], label="race", group="gender")
    for part in ("train", "val"):
        with zipfile.ZipFile(fairface / f"{part}.zip", "w") as archive:
            for path in (fairface / part).iterdir():
                archive.writestr(f"fairface/{part}/{path.name}", b"")
        shutil.rmtree(fairface / part)
    with zipfile.ZipFile(fairface / "others.zip", "w") as archive:
        archive.writestr("1_0_0_20170109150557335.jpg", b"")
    assert named(FAIRFACE.read([fairface], label="race", group="gender")) == named(before)


def test_rows_without_an_image_and_images_without_a_row_are_named(fairface):
    touch(fairface, "train/77.jpg", "train/not-theirs.jpg")
    (fairface / "train" / "2.jpg").unlink()
    listing = FAIRFACE.read([fairface], label="race", group="race")
    assert list(named(listing)) == ["train/1.jpg", "val/1.jpg"]
    assert listing.skipped == {
        "a row without an image": ["train/2.jpg"],
        "an image without a row": ["train/77.jpg"],
    }


def test_a_race_that_fairface_does_not_have_is_refused_where_it_matters(fairface):
    write_fairface(fairface, "train/1.jpg,0-2,Male,Martian,TRUE\ntrain/2.jpg,0-2,Male,White,TRUE\n", "")
    sentence = refusal(lambda: FAIRFACE.read([fairface], label="race", group="race"))
    assert "'train/1.jpg' has 'Martian' for its race; expected one of: White, Black" in sentence
    assert "train/1.jpg" in named(FAIRFACE.read([fairface], label="age", group="gender"))


def test_bad_tables_of_fairface_are_refused(fairface):
    def sentence() -> str:
        return refusal(lambda: FAIRFACE.read([fairface], label="race", group="race"))

    write_fairface(fairface, "", "", header="file,age\n")
    assert "has no column gender and no column race" in sentence()
    write_fairface(fairface, "train/1.jpg,0-2,Male,White,TRUE\n" * 2, "")
    assert "'train/1.jpg' more than once" in sentence()
    (fairface / "fairface_label_val.csv").write_bytes(b"\xff\xfe\x00 no text")
    assert "cannot be read as a table" in sentence()
    (fairface / "fairface_label_val.csv").write_bytes(b"")
    assert "cannot be read as a table" in sentence()
    (fairface / "fairface_label_val.csv").unlink()
    assert "a folder with fairface_label_val.csv" in sentence()


# ---------------------------------------------------------------- CelebA


@pytest.fixture
def celeba(tmp_path) -> Path:
    """Twelve images, with all tables that torchvision wants."""
    folder = touch(tmp_path / "celeba")
    names = [f"{number:06}.jpg" for number in range(1, 13)]
    values = np.random.default_rng(0).choice([-1, 1], (12, 40))

    def write(file: str, columns: list[str] | None, rows: np.ndarray) -> None:
        head = [] if columns is None else [str(len(rows)), " ".join(columns)]
        lines = [" ".join([name, *map(str, row)]) for name, row in zip(names, rows, strict=True)]
        (folder / file).write_text("\n".join([*head, *lines, ""]))

    (folder / "img_align_celeba").mkdir(parents=True)
    for number, name in enumerate(names):
        Image.new("RGB", (17, 21), (number, 0, 0)).save(folder / "img_align_celeba" / name)
    write("list_attr_celeba.txt", list(CELEBA_ATTRIBUTES), values)
    write("list_eval_partition.txt", None, np.arange(12)[:, None] % 3)
    write("identity_CelebA.txt", None, np.arange(12)[:, None])
    write("list_bbox_celeba.txt", ["x_1", "y_1", "width", "height"], np.ones((12, 4), int))
    write("list_landmarks_align_celeba.txt", [f"x{i}" for i in range(10)], np.ones((12, 10), int))
    return tmp_path


@pytest.mark.parametrize(
    ("label", "group"), [("Smiling", "Male"), ("5_o_Clock_Shadow", "Young"), ("Male", "Male")]
)
def test_celeba_is_read_as_torchvision_reads_it(celeba, monkeypatch, label, group):
    expected = {}
    monkeypatch.setattr(torchvision.datasets.CelebA, "_check_integrity", lambda self: True)
    theirs = torchvision.datasets.CelebA(str(celeba), split="all")
    columns = [theirs.attr_names.index(name) for name in (label, group)]
    for name, (is_label, is_group) in zip(theirs.filename, theirs.attr[:, columns].tolist(), strict=True):
        told = (label if is_label else f"not {label}", group if is_group else f"not {group}")
        expected[name] = (*told, "")
    for root in (celeba, celeba / "celeba"):
        listing = CELEBA.read([root], label=label, group=group)
        assert named(listing) == expected
        assert listing.skipped == {}


def test_celeba_in_its_zip_is_the_same(celeba):
    before = CELEBA.read([celeba], label="Smiling", group="Male")
    images = celeba / "celeba" / "img_align_celeba"
    with zipfile.ZipFile(images.with_suffix(".zip"), "w") as archive:
        for path in images.iterdir():
            archive.write(path, f"img_align_celeba/{path.name}")
    shutil.rmtree(images)
    assert named(CELEBA.read([celeba], label="Smiling", group="Male")) == named(before)


def test_what_does_not_match_in_celeba_is_named(celeba):
    images = celeba / "celeba" / "img_align_celeba"
    (images / "000001.jpg").rename(images / "999999.jpg")
    skipped = CELEBA.read([celeba], label="Smiling", group="Male").skipped
    assert skipped["a row without an image"] == ["000001.jpg"]
    assert skipped["an image without a row"] == ["999999.jpg"]


def test_bad_tables_of_celeba_are_refused(celeba):
    def sentence() -> str:
        return refusal(lambda: CELEBA.read([celeba], label="Smiling", group="Male"))

    table = celeba / "celeba" / "list_attr_celeba.txt"
    whole = table.read_text()
    table.write_text(whole.replace("Smiling", "Frowning"))
    assert "has no column Smiling" in sentence()
    table.write_text(whole.replace(" -1", " 7"))
    assert "of -1 and 1" in sentence()
    table.write_text(whole + whole.splitlines()[-1] + "\n")
    assert "more than once" in sentence()
    table.write_text("")
    assert "cannot be read as a table" in sentence()
    table.write_text(whole)
    shutil.rmtree(celeba / "celeba" / "img_align_celeba")
    assert "img_align_celeba.zip" in sentence()
    (celeba / "celeba" / "img_align_celeba").mkdir()
    assert "000001.jpg and so on" in sentence()


# ---------------------------------------------------------------- a folder of your own


def write_own(folder: Path, *lines: str) -> Path:
    (folder / "labels.csv").write_text("\n".join(lines), encoding="utf-8-sig")
    return folder


def test_your_own_folder_is_read_from_its_table(tmp_path):
    touch(tmp_path, "b/x.png", "y.png")
    write_own(tmp_path, "file,label,group,split,remark", "y.png,NA,10,train,?", "b/x.png,cat,9,test,")
    expected = {"b/x.png": ("cat", "9", "test"), "y.png": ("NA", "10", "train")}
    for path in (tmp_path, tmp_path / "labels.csv"):
        listing = FOLDER.read([path], label="label", group="group")
        assert named(listing) == expected
        assert listing.label_names == ("NA", "cat")
        assert listing.group_names == ("10", "9")


BAD_TABLES = {
    "no header": (["x.png,cat,old"], "has no column file"),
    "semicolons": (["file;label;group", "x.png;cat;old"], "has no column"),
    "no images": (["file,label,group"], "one line an image"),
    "no label": (["file,label,group", "x.png,,old"], "Image 1 in "),
    "short line": (["file,label,group", "x.png,cat"], "expected a group"),
    "long line": (["file,label,group", "x.png,cat,old,x"], "cannot be read as a table"),
    "long second line": (
        ["file,label,group", "x.png,cat,old", "y.png,cat,old,x"],
        "cannot be read as a table",
    ),
    "unknown split": (["file,label,group,split", "x.png,cat,old,validation"], "expected train or test"),
    "upwards": (["file,label,group", "../x.png,cat,old"], "leads out of"),
    "absolute": (["file,label,group", "/x.png,cat,old"], "leads out of"),
    "missing": (["file,label,group", "z.png,cat,old"], "'z.png' is not in"),
    "a folder": (["file,label,group", ".,cat,old"], "'.' is not in"),
    "twice": (["file,label,group", "x.png,cat,old", "x.png,dog,old"], "more than once"),
}


@pytest.mark.parametrize("bad", BAD_TABLES)
def test_bad_tables_of_your_own_are_refused(tmp_path, bad):
    lines, why = BAD_TABLES[bad]
    write_own(touch(tmp_path, "x.png", "y.png"), *lines)
    assert why in refusal(lambda: FOLDER.read([tmp_path], label="label", group="group"))


# ---------------------------------------------------------------- the digest of what is there


def test_the_state_follows_tables_and_images(fairface, celeba):
    own = write_own(touch(fairface, "y.png"), "file,label,group", "y.png,cat,old")
    for layout, root, image, table in (
        (FAIRFACE, fairface, "train/1.jpg", "fairface_label_val.csv"),
        (CELEBA, celeba, "celeba/img_align_celeba/000001.jpg", "celeba/list_attr_celeba.txt"),
        (FOLDER, own, "y.png", "labels.csv"),
    ):
        before = layout.state([root])
        assert layout.state([root]) == before
        (root / image).write_bytes(b"something else")
        after = layout.state([root])
        assert after != before
        (root / table).write_text((root / table).read_text() + "\n")
        assert layout.state([root]) not in (before, after)


def test_two_data_sets_have_the_same_ages(fairface):
    people = pd.read_csv(fairface / "fairface_label_train.csv")
    assert set(people["age"]) - {"more than 70"} <= set(AGES)
    touch(fairface, "26_1_1_1.jpg")
    names = {layout.read([fairface], label="age", group="age").label_names for layout in (FAIRFACE, UTKFACE)}
    assert names == {AGES}
