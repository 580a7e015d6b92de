"""Read scenes from copies of ImageNet, COCO and FACET that you have."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from fairq_utils.data.archives import decode_images, find_members, pick_members
from fairq_utils.encoders.scenes import Scenes, from_codes
from fairq_utils.errors import BadInput

_IMAGES = (".jpg", ".jpeg", ".png")


def coco_captions(
    root: str, annotations: str, *, image_size: int = 224, most: int | None = None, seed: int = 0
) -> Scenes:
    """The images of COCO with their captions, usually five each.

    `root`: the folder with the images. `annotations`: the JSON that came with them, such as
    `captions_val2017.json`. Images without a caption are left out.
    """
    found = _json(annotations)
    try:
        files = {image["id"]: image["file_name"] for image in found["images"]}
        said: dict[Any, list[str]] = {}
        for row in found["annotations"]:
            if (caption := row["caption"].strip()) and row["image_id"] in files:
                said.setdefault(row["image_id"], []).append(caption)
    except (KeyError, TypeError, AttributeError) as error:
        raise BadInput(
            f"{annotations!r} lacks {error}; expected COCO's captions, with images (id, file_name) and "
            "annotations (image_id, caption)."
        ) from error
    if not said:
        raise BadInput(f"{annotations!r} has no caption; expected some, as in captions_val2017.json.")
    ids = sorted(said)
    ids = [ids[row] for row in _drawn(len(ids), most, seed)]
    members = pick_members(_folder(root), [files[number] for number in ids])
    return Scenes(
        decode_images(members, image_size=image_size), captions=tuple(tuple(said[number]) for number in ids)
    )


FACET_COLUMNS = {
    "gender_presentation": ("masc", "fem", "non_binary", "na"),
    "age_presentation": ("young", "middle", "older", "na"),
}
FACET_SKIN_TONES = ("1-3", "4-6", "7-10", "na")


def facet(
    root: str, annotations: str, *, image_size: int = 224, most: int | None = None, seed: int = 0
) -> Scenes:
    """The images of FACET on which one person is annotated.

    `root`: the folder with the images, in whatever folders below it. `annotations`: its `annotations.csv`.
    Attributes: `class` (its column `class1`), `gender_presentation` and `age_presentation` (of their columns
    the one that is set, named as there), and `skin_tone`: the mean of the reviewers' choices on the Monk
    scale, in three ranges. `na` is what the reviewers could not tell. These are what reviewers perceived,
    and not what anybody is.
    """
    needed = {
        "filename": "",
        "class1": "",
        **{f"{name}_{value}": 0 for name, values in FACET_COLUMNS.items() for value in values},
        **{f"skin_tone_{tone}": 0 for tone in [*range(1, 11), "na"]},
    }
    with _open(annotations) as file:
        reader = csv.DictReader(file)
        missing = [name for name in needed if name not in (reader.fieldnames or [])]
        if missing:
            raise BadInput(
                f"{annotations!r} lacks the columns {', '.join(missing[:3])}; expected FACET's "
                "annotations.csv as it was downloaded."
            )
        people = pd.DataFrame(list(reader))[list(needed)]
    people = people[~people["filename"].duplicated(keep=False)].sort_values("filename")
    files = {member.name.split("/")[-1]: member for member in find_members([_folder(root)], _is_image)}
    people = people[people["filename"].isin(list(files))]
    if people.empty:
        raise BadInput(
            f"{root!r} has no image of those on which {annotations!r} has one person; expected imgs_1 to "
            "imgs_3 somewhere below it."
        )
    people = people.iloc[list(_drawn(len(people), most, seed))]
    counts = people[[name for name in needed if needed[name] == 0]].apply(pd.to_numeric, errors="coerce")
    if counts.isna().any(axis=None):
        raise BadInput(f"{annotations!r} has a count that is no number; expected 0, 1, 2 and so on.")
    attributes = {"class": pd.Categorical(people["class1"], sorted(set(people["class1"])))}
    for name, values in FACET_COLUMNS.items():
        chosen = counts[[f"{name}_{value}" for value in values]].to_numpy()
        told = np.where(chosen.max(axis=1) > 0, chosen.argmax(axis=1), len(values) - 1)
        attributes[name] = from_codes(told, values)
    tones = counts[[f"skin_tone_{tone}" for tone in range(1, 11)]].to_numpy(dtype=float)
    said = tones.sum(axis=1)
    mean = tones @ np.arange(1, 11) / np.where(said > 0, said, 1)
    ranges = np.where(said > 0, np.searchsorted([3.5, 6.5], mean, side="right"), 3)
    attributes["skin_tone"] = from_codes(ranges, FACET_SKIN_TONES)
    return Scenes(
        decode_images([files[name] for name in people["filename"]], image_size=image_size),
        attributes=pd.DataFrame(attributes).reset_index(drop=True),
    )


def _is_image(name: str) -> bool:
    return name.lower().endswith(_IMAGES)


def _folder(root: str) -> Path:
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise BadInput(f"root is {root!r}, which is no folder; expected the one that holds the images.")
    return folder


def _drawn(count: int, most: int | None, seed: int) -> Sequence[int]:
    """Places of at most so many, in their own order."""
    if most is None:
        return range(count)
    if type(most) is not int or most < 1:
        raise BadInput(f"most is {most!r}; expected a whole number of at least 1.")
    drawn = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:most]
    return drawn.sort()[0].tolist()


def _open(path: str) -> Any:
    try:
        return Path(path).expanduser().open(encoding="utf-8", newline="")
    except OSError as error:
        raise BadInput(
            f"{path!r} cannot be read ({error.strerror}); expected the file with the annotations."
        ) from error


def _json(path: str) -> Any:
    with _open(path) as file:
        try:
            return json.load(file)
        except ValueError as error:
            raise BadInput(f"{path!r} is no JSON ({error}); expected the annotations of COCO.") from error


def _class_names(path: str) -> dict[str, str]:
    with _open(path) as file:
        lines = [line.strip().split(" ", 1) for line in file if line.strip()]
    if not lines or any(len(parts) < 2 for parts in lines):
        raise BadInput(
            f"{path!r} has a line without a name; expected a folder, a space and names, as in: "
            "n01440764 tench, Tinca tinca."
        )
    return {folder: names.split(",")[0].strip() for folder, names in lines}
