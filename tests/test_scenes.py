import csv
import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from PIL import Image

from fairq_utils.encoders.scene_folders import coco_captions, facet
from fairq_utils.encoders.scenes import Scenes
from fairq_utils.errors import BadInput


def paint(path: Path, shade: int = 200) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (24, 20), (shade, 0, 0)).save(path)


# -- COCO


@pytest.fixture
def coco_root(tmp_path) -> Path:
    for number in (9, 25, 30):
        paint(tmp_path / "val2017" / f"{number:012}.jpg", number)
    official = {
        "info": {"year": 2017},
        "licenses": [],
        "images": [{"id": n, "file_name": f"{n:012}.jpg", "height": 20, "width": 24} for n in (30, 9, 25)],
        "annotations": [
            {"image_id": 9, "id": 1, "caption": "A plate of food."},
            {"image_id": 25, "id": 2, "caption": "A giraffe. "},
            {"image_id": 9, "id": 3, "caption": "Some food\n"},
        ],
    }
    (tmp_path / "captions_val2017.json").write_text(json.dumps(official))
    return tmp_path


def test_coco_keeps_all_captions_of_an_image_and_leaves_out_what_has_none(coco_root):
    scenes = coco_captions(
        str(coco_root / "val2017"), str(coco_root / "captions_val2017.json"), image_size=16
    )
    assert scenes.captions == (("A plate of food.", "Some food"), ("A giraffe.",))
    assert len(scenes.images) == 2
    assert abs(int(scenes.images[1, 0, 8, 8]) - 25) < 5


# -- FACET

GENDERS = ("masc", "fem", "non_binary", "na")
AGES = ("young", "middle", "older", "na")


def person(number: int, file: str, kind: str, gender: str, age: str, tones: dict[int, int]) -> dict:
    """A row of annotations.csv with the columns that are read, and some of those that are not."""
    return {
        "person_id": number,
        "filename": file,
        "class1": kind,
        "class2": "",
        "bounding_box": '{"x": 1, "y": 1, "width": 5, "height": 5}',
        **{f"gender_presentation_{value}": int(value == gender) for value in GENDERS},
        **{f"skin_tone_{tone}": tones.get(tone, 0) for tone in range(1, 11)},
        "skin_tone_na": int(not tones),
        **{f"age_presentation_{value}": int(value == age) for value in AGES},
        "has_cap": 0,
    }


@pytest.fixture
def facet_root(tmp_path) -> Path:
    rows = [
        person(1, "sa_1.jpg", "guitarist", "fem", "middle", {1: 1, 3: 2}),
        person(2, "sa_2.jpg", "doctor", "masc", "older", {6: 1, 7: 2, 8: 1}),
        person(3, "sa_3.jpg", "doctor", "na", "na", {}),
        person(4, "sa_4.jpg", "nurse", "fem", "young", {5: 1}),
        person(5, "sa_4.jpg", "nurse", "masc", "young", {5: 1}),
    ]
    with (tmp_path / "annotations.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    for number in range(1, 5):
        paint(tmp_path / f"imgs_{number % 3 + 1}" / f"sa_{number}.jpg")
    return tmp_path


def test_facet_is_read_where_one_person_is_annotated(facet_root):
    scenes = facet(str(facet_root), str(facet_root / "annotations.csv"), image_size=16)
    assert scenes.attributes.astype(str).to_numpy().tolist() == [
        ["guitarist", "fem", "middle", "1-3"],
        ["doctor", "masc", "older", "7-10"],
        ["doctor", "na", "na", "na"],
    ]
    assert scenes.names("gender_presentation") == GENDERS
    assert scenes.names("skin_tone") == ("1-3", "4-6", "7-10", "na")


# -- what belongs together, and what is refused


def few(**attributes: list) -> Scenes:
    table = pd.DataFrame({name: pd.Categorical(values) for name, values in attributes.items()})
    return Scenes(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), attributes=table)


def test_the_fingerprint_is_that_of_the_content():
    assert few(kind=["a", "b"]).fingerprint == few(kind=["a", "b"]).fingerprint
    assert few(kind=["a", "b"]).fingerprint != few(kind=["b", "a"]).fingerprint
    both = Scenes(few().images, captions=(("x",), ("y",)))
    assert both.fingerprint != few().fingerprint


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda root: coco_captions(str(root), str(root / "none.json")), "cannot be read"),
        (lambda root: coco_captions(str(root), said(root, "[")), "is no JSON"),
        (lambda root: coco_captions(str(root), said(root, '{"images": []}')), "lacks 'annotations'"),
        (
            lambda root: coco_captions(str(root), said(root, '{"images": [], "annotations": []}')),
            "no caption",
        ),
        (
            lambda root: facet(str(root), said(root, "filename,class1\n")),
            "lacks the columns gender_presentation_masc",
        ),
        (lambda root: few(kind=["a", None]).codes("kind"), "1 images have no kind"),
        (lambda root: few(kind=["a", "b"]).codes("race"), "attribute is 'race'; expected one of: kind"),
        (lambda root: Scenes(torch.zeros(0, 3, 4, 4)), "there are no images"),
        (lambda root: Scenes(torch.zeros(2, 3, 4, 4), captions=(("a",),)), "captions are of 1 images"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(tmp_path, call, message):
    with pytest.raises(BadInput, match=message) as refusal:
        call(tmp_path)
    assert str(refusal.value).endswith(".")


def test_images_that_are_not_there_are_refused(coco_root, facet_root):
    with pytest.raises(BadInput, match=r"000000000009\.jpg"):
        coco_captions(str(coco_root), str(coco_root / "captions_val2017.json"))
    (facet_root / "empty").mkdir()
    with pytest.raises(BadInput, match="has one person"):
        facet(str(facet_root / "empty"), str(facet_root / "annotations.csv"))


def said(root: Path, text: str) -> str:
    (root / "given").write_text(text)
    return str(root / "given")
