"""Who is on the picture: the ways in which UTKFace, FairFace, CelebA and your own folder say it."""

from __future__ import annotations

import hashlib
import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from pandas.errors import ParserWarning

from fairq_utils.data.archives import find_members, pick_members, state_of_members
from fairq_utils.errors import BadInput

GENDERS = ("Male", "Female")
AGES = ("0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "70+")
UTKFACE_RACES = ("White", "Black", "Asian", "Indian", "Others")
FAIRFACE_RACES = (
    "White",
    "Black",
    "Latino_Hispanic",
    "East Asian",
    "Southeast Asian",
    "Indian",
    "Middle Eastern",
)
# fmt: off
CELEBA_ATTRIBUTES = (
    "5_o_Clock_Shadow", "Arched_Eyebrows", "Attractive", "Bags_Under_Eyes", "Bald", "Bangs", "Big_Lips",
    "Big_Nose", "Black_Hair", "Blond_Hair", "Blurry", "Brown_Hair", "Bushy_Eyebrows", "Chubby",
    "Double_Chin", "Eyeglasses", "Goatee", "Gray_Hair", "Heavy_Makeup", "High_Cheekbones", "Male",
    "Mouth_Slightly_Open", "Mustache", "Narrow_Eyes", "No_Beard", "Oval_Face", "Pale_Skin", "Pointy_Nose",
    "Receding_Hairline", "Rosy_Cheeks", "Sideburns", "Smiling", "Straight_Hair", "Wavy_Hair",
    "Wearing_Earrings", "Wearing_Hat", "Wearing_Lipstick", "Wearing_Necklace", "Wearing_Necktie", "Young",
)
# fmt: on

# The distribution has a name with a space before its .jpg, and one without the dot.
_LIKE_UTKFACE = re.compile(r"(?P<stem>[0-9]+_[0-9_]*) *\.?jpg(\.chip\.jpg)?", re.IGNORECASE)
_UTKFACE = re.compile(r"([0-9]{1,9})_([0-9]{1,9})_([0-9]{1,9})_[0-9]+")
_FAIRFACE = re.compile(r"(?:.*/)?((?:train|val)/[0-9]+\.jpg)")


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The images of a data set before any is opened.

    `table` has a row an image, in the order of its `name`: `name` is the same however the images are
    packed, `member` the file, `label` and `group` index into their names, and `split` is train, test, or
    empty where folds decide. `found` counts the files that look like the data set's images,
    `skipped` names by reason those that are not in the table.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("26_1_2_20170116184024662.jpg", "61_1_20170109150557335.jpg"):
    ...         Path(folder, name).touch()
    ...     listing = UTKFACE.read([Path(folder)], label="race", group="age")
    >>> listing.table[["name", "label", "group"]].values.tolist()
    [['26_1_2_20170116184024662', 2, 3]]
    >>> listing.skipped
    {'the name is not <age>_<gender>_<race>_<time>.jpg': ['61_1_20170109150557335.jpg']}
    """

    table: pd.DataFrame
    label_names: tuple[str, ...]
    group_names: tuple[str, ...]
    found: int
    skipped: Mapping[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Layout(ABC):
    """A way to lay out images and what is known about them.

    `attributes` can each be the label or the group; `label` and `group` are the usual ones.

    >>> UTKFACE.attributes, UTKFACE.label
    (('race', 'gender', 'age'), 'race')
    """

    attributes: tuple[str, ...]
    label: str
    group: str
    upright: ClassVar[bool] = False

    @abstractmethod
    def state(self, paths: Sequence[Path]) -> str:
        """A digest that changes when what lies at the paths does, without reading the images.

        >>> len(UTKFACE.state([]))
        64
        """

    @abstractmethod
    def read(self, paths: Sequence[Path], *, label: str, group: str) -> Listing:
        """List the images that lie at the paths; nothing found is refused, with what was looked for.

        >>> UTKFACE.read([], label="race", group="race")
        Traceback (most recent call last):
            ...
        fairq_utils.errors.BadInput: No image of UTKFace was found at ''; expected files called
        <age>_<gender>_<race>_<time>.jpg or .jpg.chip.jpg, in a folder, a zip or a tar: correct the path.
        """


# ---------------------------------------------------------------- UTKFace


class _UTKFace(Layout):
    def state(self, paths: Sequence[Path]) -> str:
        return state_of_members(paths, _looks_like_utkface)

    def read(self, paths: Sequence[Path], *, label: str, group: str) -> Listing:
        members = find_members(paths, _looks_like_utkface)
        if not members:
            raise _nothing_found(
                "UTKFace",
                paths,
                "files called <age>_<gender>_<race>_<time>.jpg or .jpg.chip.jpg, in a folder, a zip or a tar",
            )
        names = {"race": UTKFACE_RACES, "gender": GENDERS, "age": AGES}
        rows, skipped = [], _Skipped()
        for member in members:
            name = _base(member.name)
            # The cropped and the whole picture of a face have one stem: they are one face, twice.
            stem = _LIKE_UTKFACE.fullmatch(name)["stem"]  # type: ignore[index]
            fields = _UTKFACE.fullmatch(stem)
            if fields is None:
                skipped.add("the name is not <age>_<gender>_<race>_<time>.jpg", name)
                continue
            age, gender, race = (int(digits) for digits in fields.groups())
            if age > 116:
                skipped.add("the age is not from 0 to 116", name)
            elif gender >= len(GENDERS):
                skipped.add("the gender is not 0 or 1", name)
            elif race >= len(UTKFACE_RACES):
                skipped.add("the race is not from 0 to 4", name)
            else:
                codes = {"race": race, "gender": gender, "age": _age_bin(age)}
                rows.append((stem, member, codes[label], codes[group], ""))
        return _listing(rows, names[label], names[group], len(members), skipped)


def _looks_like_utkface(name: str) -> bool:
    return _LIKE_UTKFACE.fullmatch(_base(name)) is not None


def _age_bin(age: int) -> int:
    return int(np.searchsorted([3, *range(10, 80, 10)], age, side="right"))


# ---------------------------------------------------------------- FairFace


class _FairFace(Layout):
    def state(self, paths: Sequence[Path]) -> str:
        return _digest(*self._tables(paths).values(), state_of_members(paths, _is_fairface))

    def read(self, paths: Sequence[Path], *, label: str, group: str) -> Listing:
        tables = self._tables(paths)
        people = pd.concat(
            [
                _csv(path, ["file", "age", "gender", "race"]).assign(split=split)
                for split, path in tables.items()
            ],
            ignore_index=True,
        )
        _refuse_repeated(people["file"], tables["train"])
        members = find_members(paths, _is_fairface)
        if not members:
            raise _nothing_found("FairFace", paths, "train/1.jpg and so on, in a folder, a zip or a tar")
        images = pd.DataFrame(
            {"file": [_FAIRFACE.fullmatch(member.name)[1] for member in members], "member": members}  # type: ignore[index]
        )
        both = people.merge(images, on="file", how="outer", indicator=True)
        names = {"race": FAIRFACE_RACES, "gender": GENDERS, "age": AGES}
        skipped = _Skipped()
        skipped.add("a row without an image", *both["file"][both["_merge"] == "left_only"])
        skipped.add("an image without a row", *both["file"][both["_merge"] == "right_only"])
        both = both[both["_merge"] == "both"].replace({"age": {"more than 70": "70+"}})
        codes = {name: pd.Index(names[name]).get_indexer(pd.Index(both[name])) for name in names}
        for name in dict.fromkeys((label, group)):
            if (unknown := codes[name] < 0).any():
                first = both[unknown].iloc[0]
                raise BadInput(
                    f"{first['file']!r} has {first[name]!r} for its {name}; expected one of: "
                    f"{', '.join(names[name])}: correct {str(tables[first['split']])!r}."
                )
        # The split that is published is not kept: five folds test on every image in turn.
        columns = (both["file"], both["member"], codes[label], codes[group], [""] * len(both))
        rows = list(zip(*columns, strict=True))
        return _listing(rows, names[label], names[group], len(members), skipped)

    def _tables(self, paths: Sequence[Path]) -> dict[str, Path]:
        files = {"train": "fairface_label_train.csv", "test": "fairface_label_val.csv"}
        return {split: _beside(paths, file, "FairFace") for split, file in files.items()}


def _is_fairface(name: str) -> bool:
    return _FAIRFACE.fullmatch(name) is not None


# ---------------------------------------------------------------- CelebA


class _CelebA(Layout):
    def state(self, paths: Sequence[Path]) -> str:
        attributes, images = self._places(paths)
        return _digest(attributes, state_of_members([images], _is_jpeg))

    def read(self, paths: Sequence[Path], *, label: str, group: str) -> Listing:
        attributes, images = self._places(paths)
        values = _spaced(attributes, skiprows=1)
        for name in (label, group):
            if name not in values or not values[name].isin([-1, 1]).all():
                raise BadInput(
                    f"{str(attributes)!r} has no column {name} of -1 and 1; expected the table that comes "
                    "with CelebA: fetch it again."
                )
        _refuse_repeated(values.index.to_series(), attributes)
        members = find_members([images], _is_jpeg)
        if not members:
            raise _nothing_found("CelebA", [images], "000001.jpg and so on")
        rows, skipped, seen = [], _Skipped(), set()
        labels, groups = values[label].to_dict(), values[group].to_dict()
        for member in members:
            name = _base(member.name)
            seen.add(name)
            if name not in labels:
                skipped.add("an image without a row", name)
            else:  # the published partition is not kept: five folds test on every image in turn
                rows.append((name, member, int(labels[name] == 1), int(groups[name] == 1), ""))
        skipped.add("a row without an image", *values.index.difference(list(seen)))
        both = [(f"not {name}", name) for name in (label, group)]
        return _listing(rows, both[0], both[1], len(members), skipped)

    def _places(self, paths: Sequence[Path]) -> tuple[Path, Path]:
        below = [path / "celeba" for path in paths]
        attributes = _beside([*paths, *below], "list_attr_celeba.txt", "CelebA")
        folder = attributes.parent
        for images in (folder / "img_align_celeba", folder / "img_align_celeba.zip"):
            if images.exists():
                return attributes, images
        raise _nothing_found("CelebA", [folder], "img_align_celeba or img_align_celeba.zip in it")


def _is_jpeg(name: str) -> bool:
    return name.lower().endswith(".jpg")


# ---------------------------------------------------------------- a folder of your own


class _Folder(Layout):
    upright = True

    def state(self, paths: Sequence[Path]) -> str:
        table = self.table(paths)
        members = pick_members(table.parent, _csv(table, ["file"])["file"])
        return _digest(table, repr([(member.name, member.size, member.stamp) for member in members]))

    def read(self, paths: Sequence[Path], *, label: str, group: str) -> Listing:
        path = self.table(paths)
        table = _csv(path, ["file", "label", "group"])
        _refuse_repeated(table["file"], path)
        for column in table.columns.intersection(["file", "label", "group", "split"]):
            for number, value in enumerate(table[column], start=1):
                if not value.strip() or (column == "split" and value not in ("train", "test")):
                    what = "train or test" if column == "split" else f"a {column}"
                    raise BadInput(
                        f"Image {number} in {str(path)!r} has {value!r} for its {column}; expected {what}: "
                        "correct its line."
                    )
        members = pick_members(path.parent, table["file"])
        if not members:
            raise _nothing_found("your own", [path], "one line an image, below file,label,group")
        names = {name: tuple(sorted(table[name].unique())) for name in (label, group)}
        codes = {name: pd.Index(names[name]).get_indexer(pd.Index(table[name])) for name in names}
        split = table["split"] if "split" in table else [""] * len(table)
        rows = list(zip(table["file"], members, codes[label], codes[group], split, strict=True))
        return _listing(rows, names[label], names[group], len(members), _Skipped())

    def table(self, paths: Sequence[Path]) -> Path:
        if len(paths) == 1 and paths[0].is_file():
            return paths[0]
        return _beside(paths, "labels.csv", "your own")


# ---------------------------------------------------------------- common to all


class _Skipped(dict[str, list[str]]):
    def add(self, reason: str, *names: str) -> None:
        if names:
            self.setdefault(reason, []).extend(names)


def _listing(
    rows: Sequence[tuple[Any, ...]],
    label_names: tuple[str, ...],
    group_names: tuple[str, ...],
    found: int,
    skipped: _Skipped,
) -> Listing:
    table = pd.DataFrame(rows, columns=["name", "member", "label", "group", "split"])
    return Listing(
        table=table.sort_values("name", kind="stable", ignore_index=True),
        label_names=label_names,
        group_names=group_names,
        found=found,
        skipped={reason: sorted(names) for reason, names in skipped.items()},
    )


def _base(name: str) -> str:
    return name.rpartition("/")[2]


def _beside(paths: Sequence[Path], file: str, whose: str) -> Path:
    for path in paths:
        if (path / file).is_file():
            return path / file
    raise _nothing_found(whose, paths, f"a folder with {file}", what="table")


def _nothing_found(whose: str, paths: Sequence[Path], expected: str, what: str = "image") -> BadInput:
    places = " or ".join(repr(str(path)) for path in paths) or repr("")
    of = "your own data" if whose == "your own" else whose
    return BadInput(f"No {what} of {of} was found at {places}; expected {expected}: correct the path.")


def _csv(path: Path, columns: list[str]) -> pd.DataFrame:
    """The table as text, with at least these columns."""
    table = _parsed(path, dtype=str, index_col=False, keep_default_na=False, encoding="utf-8-sig").fillna("")
    missing = [column for column in columns if column not in table]
    if missing:
        raise BadInput(
            f"{str(path)!r} has no column {' and no column '.join(missing)}; expected a first line "
            f"with {','.join(columns)}: add it."
        )
    return table


def _spaced(path: Path, **options: Any) -> pd.DataFrame:
    table = _parsed(path, sep=r"\s+", low_memory=False, **options)
    return table.set_axis(table.index.astype(str))


def _parsed(path: Path, **options: Any) -> pd.DataFrame:
    try:
        with warnings.catch_warnings(action="error", category=ParserWarning):  # lines of unlike length
            return pd.read_csv(path, **options)
    except (OSError, ValueError, ParserWarning) as error:  # no text and no table are ValueErrors
        why = " ".join(str(error).split())
        raise BadInput(
            f"{str(path)!r} cannot be read as a table ({why}); expected the text file that comes with the "
            "images: fetch or make it again."
        ) from None


def _refuse_repeated(names: pd.Series, path: Path) -> None:
    repeated = names[names.duplicated()]
    if len(repeated):
        raise BadInput(
            f"{str(path)!r} names {str(repeated.iloc[0])!r} more than once; expected one line an image: "
            "keep the right one."
        )


def _digest(*parts: Path | str) -> str:
    digest = hashlib.sha256()
    for part in parts:
        content = part.read_bytes() if isinstance(part, Path) else part.encode()
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()


_PEOPLE = {"attributes": ("race", "gender", "age"), "label": "race", "group": "race"}
UTKFACE = _UTKFace(**_PEOPLE)  # type: ignore[arg-type]
FAIRFACE = _FairFace(**_PEOPLE)  # type: ignore[arg-type]
CELEBA = _CelebA(attributes=CELEBA_ATTRIBUTES, label="Smiling", group="Male")
FOLDER = _Folder(attributes=("label", "group"), label="label", group="group")
LAYOUTS: Mapping[str, Layout] = {
    "utkface": UTKFACE,
    "fairface": FAIRFACE,
    "celeba": CELEBA,
    "folder": FOLDER,
}
