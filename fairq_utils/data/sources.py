"""Images, labels and groups, whatever they come from."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import InitVar, asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from fairq_utils.data.archives import content_digests, decode_images
from fairq_utils.data.datasets import Dataset
from fairq_utils.data.layouts import LAYOUTS, Listing
from fairq_utils.data.moths import (
    DIFFICULTY,
    EASIER,
    EVEN,
    FOCAL_DIFFICULTY,
    HARDER,
    SHARES,
    Brood,
    Moths,
    MothSettings,
    draw_moths,
)
from fairq_utils.errors import BadInput

# The roles of moths whose roles rotate: four peers alike, and the focal group, which is small, hard, or both.
ROLES = ("Peer 1", "Peer 2", "Peer 3", "Peer 4", "Focal")


@dataclass(frozen=True)
class MothKind:
    """Sizes and difficulties of the groups of moths: by species, or by role where the roles rotate.

    With a rotation of r the focal group is the species in place r, and the peers are the other four in their
    order. So over five rotations each species is the focal one once, and what a role meets is no species'
    own. The difficulty of a role is a multiple of what makes the species equally hard.

    >>> MOTHS["moths-by-size"].by_species(3).sizes
    (0.23, 0.23, 0.23, 0.08, 0.23)
    """

    sizes: tuple[float, ...]
    difficulty: tuple[float, ...]
    rotates: bool = True

    def by_species(self, rotation: int) -> MothKind:
        """Which species has which size and difficulty at that rotation."""
        if not self.rotates:
            return self
        roles = roles_of_species(rotation)
        difficulty = (round(own * self.difficulty[role], 4) for own, role in zip(EVEN, roles, strict=True))
        return MothKind(tuple(self.sizes[role] for role in roles), tuple(difficulty), rotates=False)


def roles_of_species(rotation: int) -> list[int]:
    """The role of each species at that rotation, as a place in `ROLES`.

    >>> roles_of_species(0), roles_of_species(4)
    ([4, 0, 1, 2, 3], [0, 1, 2, 3, 4])
    """
    roles = list(range(len(ROLES) - 1))
    return [*roles[:rotation], len(ROLES) - 1, *roles[rotation:]]


_ALIKE, _FEW = (0.2,) * 5, (0.23,) * 4 + (0.08,)
_EASY, _HARD = (1.0,) * 5, (1.0,) * 4 + (FOCAL_DIFFICULTY,)
MOTHS: Mapping[str, MothKind] = {
    "moths": MothKind(SHARES, DIFFICULTY, rotates=False),
    "moths-harder": MothKind(SHARES, HARDER, rotates=False),
    "moths-easier": MothKind(SHARES, EASIER, rotates=False),
    "moths-by-size": MothKind(_FEW, _EASY),
    "moths-by-difficulty": MothKind(_ALIKE, _HARD),
    "moths-by-both": MothKind(_FEW, _HARD),
    "moths-equal": MothKind(_ALIKE, _EASY),
}
NAMES = (*MOTHS, *LAYOUTS)

FOLDS = 5  # where the data set has no split, each fifth image is for the test: which, the fold says
_TUNING = 0.1  # the share for tuning of what is not for the test


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Everything that decides the content of a data set.

    `name`: one of `NAMES`. The moths are drawn; the others are read from your copy.
    `root`: where that lies: for `utkface` a folder, a zip or a tar, for `fairface` and `celeba` the folder
    with the tables, for `folder` a CSV with the columns file, label, group and, if you like, split, or the
    folder with such a `labels.csv`. Several paths are joined as in PATH, by a colon (Windows: semicolon).
    `image_size`: pixels along a side, to which images are shrunk.
    `label`, `group`: what is to be predicted and whom to compare: race, gender or age, or one of CelebA's
    attributes; by default the data set's usual one.
    `train_images`, `test_images`: at most so many, taken at random; by default all, and 6000 moths. Of the
    former a tenth of each label in each group is for tuning.
    `fold`: of photographs, which fifth of the images is for the test, from 0 to 4: each image in one fold,
    and byte-identical ones in the same. A folder that names its own test images keeps to them.
    `draw`: of moths, which ones are drawn; another number gives others of the same kinds.
    `rotation`: of moths whose groups are roles, which species is the focal one, from 0 to 4.
    `keep_conflicting`: keep copies of one image that disagree about its label or group. They are left out
    by default, for nobody knows which is right.

    >>> DataSettings(train_images=100).identity()["train_images"]
    100
    >>> DataSettings(name="mooths")
    Traceback (most recent call last):
        ...
    fairq_utils.errors.BadInput: dataset is 'mooths'; expected one of: moths, moths-harder, moths-easier,
    moths-by-size, moths-by-difficulty, moths-by-both, moths-equal, utkface, fairface, celeba, folder.
    """

    name: str = "moths"
    root: str | None = None
    image_size: int = 32
    label: str | None = None
    group: str | None = None
    train_images: int | None = None
    test_images: int | None = None
    fold: int = 0
    draw: int = 0
    rotation: int = 0
    keep_conflicting: bool = False
    split_seed: InitVar[int | None] = None

    def __post_init__(self, split_seed: int | None) -> None:
        if split_seed is not None:
            raise BadInput(
                f"split_seed is {split_seed!r}; expected none any more: fold, from 0 to {FOLDS - 1}, says "
                "which photographs are for the test, and draw which moths there are."
            )
        if self.name not in NAMES:
            raise BadInput(f"dataset is {self.name!r}; expected one of: {', '.join(NAMES)}.")
        limits = {
            "image_size": (16, 512),
            "train_images": (5, 10**6),
            "test_images": (5, 10**6),
            "fold": (0, FOLDS - 1),
            "draw": (0, 2**32 - 1),
            "rotation": (0, len(ROLES) - 1),
        }
        for name, (least, most) in limits.items():
            given = getattr(self, name)
            if given is None and name.endswith("_images"):
                continue
            if type(given) is not int or not least <= given <= most:
                raise BadInput(f"{name} is {given!r}; expected a whole number from {least} to {most}.")
        if type(self.keep_conflicting) is not bool:
            raise BadInput(f"keep_conflicting is {self.keep_conflicting!r}; expected true or false.")
        if self.is_drawn and self.fold:
            raise BadInput(f"fold is {self.fold}; expected none, for {self.name} are drawn: give a draw.")
        if self.draw and not self.is_drawn:
            raise BadInput(f"draw is {self.draw}; expected none, for {self.name} is not drawn: give a fold.")
        if self.rotation and not self.rotates:
            raise BadInput(
                f"rotation is {self.rotation}; expected none, for the groups of {self.name} are no roles."
            )
        attributes = ("species",) if self.is_drawn else LAYOUTS[self.name].attributes
        for name in ("label", "group"):
            given = getattr(self, name)
            if given is not None and given not in attributes:
                raise BadInput(
                    f"{name} is {given!r}; expected, for {self.name}, one of: {', '.join(attributes)}."
                )
        if self.is_drawn:
            if self.root is not None:
                raise BadInput(
                    f"root is {self.root!r}; expected none, for {self.name} are drawn: leave it out."
                )
            self._moths()

    @property
    def is_drawn(self) -> bool:
        """Whether the images are drawn here, so that no person is on them.

        >>> DataSettings().is_drawn, DataSettings(name="utkface", root="faces.zip").is_drawn
        (True, False)
        """
        return self.name in MOTHS

    @property
    def rotates(self) -> bool:
        """Whether the groups are roles, which the species take in turn.

        >>> DataSettings().rotates, DataSettings(name="moths-equal").rotates
        (False, True)
        """
        return self.is_drawn and MOTHS[self.name].rotates

    def identity(self) -> dict[str, Any]:
        """What decides the content, as plain JSON: the settings and a digest of what lies at the root.

        The images are not read, and the path itself is left out: a folder may be moved. Touching its files
        changes the identity all the same, since their times of change are part of it.

        >>> DataSettings(name="moths-equal").identity()["sizes"]
        [0.2, 0.2, 0.2, 0.2, 0.2]
        """
        if self.is_drawn:
            moths = asdict(self._moths())
            counts = {"train_images": moths.pop("train"), "test_images": moths.pop("test")}
            turned = {"rotation": self.rotation} if self.rotates else {}
            return json.loads(json.dumps({"name": self.name} | counts | moths | turned))
        layout = LAYOUTS[self.name]
        settings = asdict(self) | {
            "label": self.label or layout.label,
            "group": self.group or layout.group,
            "content": layout.state(self.paths()),
        }
        del settings["root"], settings["draw"], settings["rotation"]
        return settings

    def load(self, draw: Callable[[Brood, int], NDArray[np.uint8]] = Brood.draw) -> Dataset:
        """Make the data set: a few seconds for the moths, up to a minute for real images.

        Whatever cannot be read stops it with one sentence, and nothing is half loaded. `draw`: where pictures
        of moths come from, as for `draw_moths`.

        >>> moths = DataSettings(train_images=40, test_images=20).load()
        >>> moths.images.shape, int(moths.is_train.sum()), int(moths.is_tuning.sum())
        (torch.Size([60, 3, 32, 32]), 35, 5)
        """
        if self.is_drawn:
            moths = draw_moths(self._moths(), draw)
            is_tuning = tuning_moths(moths)
            roles = torch.tensor(roles_of_species(self.rotation))
            return Dataset(
                images=moths.images,
                labels=moths.labels,
                groups=roles[moths.groups] if self.rotates else moths.groups,
                is_train=moths.is_train & ~is_tuning,
                is_tuning=is_tuning,
                label_names=moths.names,
                group_names=ROLES if self.rotates else moths.names,
            )
        layout = LAYOUTS[self.name]
        listing = layout.read(
            self.paths(), label=self.label or layout.label, group=self.group or layout.group
        )
        table, notes = select_images(listing, self)
        return Dataset(
            images=decode_images(
                table["member"].tolist(), image_size=self.image_size, upright=layout.upright
            ),
            labels=torch.tensor(table["label"].to_numpy(dtype=np.int64)),
            groups=torch.tensor(table["group"].to_numpy(dtype=np.int64)),
            is_train=torch.tensor(table["split"].eq("train").to_numpy(dtype=bool)),
            is_tuning=torch.tensor(table["split"].eq("tuning").to_numpy(dtype=bool)),
            label_names=listing.label_names,
            group_names=listing.group_names,
            notes=notes,
        )

    def _moths(self) -> MothSettings:
        defaults, kind = MothSettings(), MOTHS[self.name].by_species(self.rotation)
        return MothSettings(
            image_size=self.image_size,
            train=self.train_images or defaults.train,
            test=self.test_images or defaults.test,
            seed=self.draw,
            sizes=kind.sizes,
            difficulty=kind.difficulty,
        )

    def paths(self) -> list[Path]:
        """Where the data set lies: the paths that `root` joins. Without any it cannot be read."""
        found = [Path(part).expanduser() for part in (self.root or "").split(os.pathsep) if part]
        if not found:
            raise BadInput(
                f"root is {self.root!r}; expected the path of your copy of {self.name}: a folder, an archive "
                "or, for folder, a CSV."
            )
        return found


def load(name: str, **settings: Any) -> Dataset:
    """Make the named data set; the settings are those of `DataSettings`, which explains them.

    >>> load("moths-equal", train_images=40, test_images=20).group_names
    ('Peer 1', 'Peer 2', 'Peer 3', 'Peer 4', 'Focal')
    >>> load("utkface")
    Traceback (most recent call last):
        ...
    fairq_utils.errors.BadInput: root is None; expected the path of your copy of utkface: a folder, an
    archive or, for folder, a CSV.
    """
    return DataSettings(name=name, **settings).load()


def tuning_moths(moths: Moths) -> Tensor:
    """Which of the moths that are not for the test are for tuning: a tenth of each label in each group.

    >>> moths = draw_moths(MothSettings(train=200, test=20))
    >>> int(tuning_moths(moths).sum()), bool((tuning_moths(moths) & ~moths.is_train).any())
    (17, False)
    """
    table = pd.DataFrame({"label": moths.labels.numpy(), "group": moths.groups.numpy()})
    table = table.assign(content=table.index.astype(str))[moths.is_train.numpy()]
    found = torch.zeros_like(moths.is_train)
    found[torch.tensor(table.index[_for_tuning(table)].to_numpy())] = True
    return found


def select_images(listing: Listing, settings: DataSettings) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The rows of the listing that are used, each with its split, and what was left out."""
    table = listing.table
    table = table.assign(content=content_digests(table["member"].tolist()))
    skipped = dict(listing.skipped)

    def leave_out(rows: pd.Series | NDArray[np.bool_], reason: str) -> None:
        nonlocal table
        if rows.any():
            skipped[reason] = table["name"][rows].tolist()
            table = table[~rows]

    again = table.duplicated(["name", "content"])
    leave_out(again, "the same file a second time")
    _refuse_namesakes(table)

    of_content = table.groupby("content")
    copies = of_content["name"].transform("size") > 1
    disagreeing = (of_content["label"].transform("nunique") > 1) | (
        of_content["group"].transform("nunique") > 1
    )
    notes = {
        "sets": int(table["content"][copies].nunique()),
        "files": int(copies.sum()),
        "conflicting_sets": int(table["content"][disagreeing].nunique()),
        "conflicting_files": int(disagreeing.sum()),
    }
    table = table.assign(disagreeing=disagreeing)
    if not settings.keep_conflicting:
        leave_out(disagreeing, "a copy of it has another label or group")

    if table["split"].eq("").all():
        test = _for_test(table, settings.fold)
        table = table.assign(split=np.where(test, "test", "train"))
    in_test = table["content"].isin(table["content"][table["split"] == "test"])
    leave_out(in_test & (table["split"] == "train"), "a copy of it is in the test split")

    for split, most in (("train", settings.train_images), ("test", settings.test_images)):
        here = table["split"] == split
        if most is not None:
            pairs = zip(table["name"][here], table["content"][here], strict=True)
            draws = pd.Series([_draw(*pair) for pair in pairs], table.index[here])
            leave_out(table.index.isin(draws.sort_values().index[most:]), f"more than {split}_images")
            here = table["split"] == split
        if not here.any():
            raise BadInput(
                f"{settings.name} at {settings.root!r} has no {split} images ({len(listing.table)} of "
                f"{listing.found} files were usable); expected images in both splits: add some."
            )
    tuning = _for_tuning(table[table["split"] == "train"])
    table.loc[table.index[table["split"] == "train"][tuning], "split"] = "tuning"
    found = {
        "found": listing.found,
        "used": len(table),
        "skipped": [
            {"reason": reason, "count": len(names), "files": names[:10]} for reason, names in skipped.items()
        ],
        "copies": notes,
    }
    return table, found


def _refuse_namesakes(table: pd.DataFrame) -> None:
    namesakes = table[table.duplicated("name", keep=False)]
    if len(namesakes):
        one, other, *_ = namesakes["member"][namesakes["name"] == namesakes["name"].iloc[0]]
        raise BadInput(
            f"{one.name!r} in {str(one.source)!r} and {other.name!r} in {str(other.source)!r} are different "
            "pictures under one name; expected one version of the data set: give the path of that alone."
        )


def _for_test(table: pd.DataFrame, fold: int) -> NDArray[np.bool_]:
    """Every fifth content, along all strata: so each stratum, and the whole, is within one of its share.

    The order within a stratum comes from the contents alone. Contents whose copies disagree stand at the
    end, so that keeping them moves no other image to another fold.
    """
    contents = table.drop_duplicates("content")
    contents = contents.assign(draw=[_draw(content) for content in contents["content"]])
    contents = contents.sort_values(["disagreeing", "label", "group", "draw"])
    return table["content"].isin(contents["content"].iloc[fold::FOLDS]).to_numpy(dtype=bool)


def _for_tuning(table: pd.DataFrame) -> NDArray[np.bool_]:
    """A tenth of the contents of each label in each group, and of two contents or more at least one.

    The table is of what is not for the test. Copies stay together, and those that disagree are a stratum of
    their own.
    """
    strata = ["disagreeing", "label", "group"] if "disagreeing" in table else ["label", "group"]
    contents = table.drop_duplicates("content")
    contents = contents.assign(draw=[_draw("tuning", content) for content in contents["content"]])
    places = contents.sort_values("draw").groupby(strata)["content"]
    sizes = places.transform("size")
    wanted = np.maximum((_TUNING * sizes).astype(int), (sizes > 1).astype(int))
    chosen = contents["content"][(places.cumcount() < wanted).reindex(contents.index)]
    return table["content"].isin(chosen).to_numpy(dtype=bool)


def _draw(*what: str) -> float:
    """A number from 0 to 1, at random but always the same."""
    digest = hashlib.sha256(repr(what).encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
