"""Images in memory, with what each one shows and the group it belongs to."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fairq_utils.errors import BadInput

PARTS = ("train", "tuning", "test")


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images in memory, with what each one shows and the group it belongs to.

    `images` is uint8 of shape N x 3 x H x W; `labels` and `groups` index into their names. Each image is in
    one of three parts. On `is_train` networks are trained. `is_tuning` no network sees: there everything is
    fitted or chosen that is not a weight. `is_test` is what is left, to judge by. `notes` says what was found
    and left out; `describe` prints it.
    """

    images: Tensor
    labels: Tensor
    groups: Tensor
    is_train: Tensor
    is_tuning: Tensor
    label_names: tuple[str, ...]
    group_names: tuple[str, ...]
    notes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.is_train & self.is_tuning).any():
            raise BadInput(
                f"{int((self.is_train & self.is_tuning).sum())} images are for training and for tuning; "
                "expected each in one part."
            )

    @property
    def is_test(self) -> Tensor:
        """True for the images that are neither for training nor for tuning."""
        return ~(self.is_train | self.is_tuning)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the content: what was trained on other images must not pass for trained on these."""
        digest = hashlib.sha256(repr((self.images.shape, self.label_names, self.group_names)).encode())
        for tensor in (self.images, self.labels, self.groups, self.is_train, self.is_tuning):
            digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()

    @cached_property
    def image_numbers(self) -> Tensor:
        """A number for each image that tells it in other data sets too: by its content, and which copy it is.

        >>> from fairq_utils.data.sources import load
        >>> first, second = load("moths", train_images=40, test_images=20), load("moths", test_images=20)
        >>> torch.isin(first.image_numbers, second.image_numbers).all()
        tensor(True)
        """
        images = self.images.contiguous().flatten(1).numpy()
        contents = [hashlib.sha256(image).digest()[:8] for image in images]
        numbers = pd.Series(np.frombuffer(b"".join(contents), dtype="<i8").astype(np.int64))
        return torch.tensor((numbers + numbers.groupby(numbers).cumcount()).to_numpy())

    def counts(self) -> pd.DataFrame:
        """How many images there are of each label and group in each part, for all pairs that occur.

        >>> from fairq_utils.data.sources import load
        >>> load("moths", train_images=40, test_images=20).counts().head(3)
           label  group   split   n
        0  Alder  Alder   train  16
        1  Alder  Alder  tuning   1
        2  Alder  Alder    test   9
        """
        codes = pd.DataFrame({"label": self.labels.numpy(), "group": self.groups.numpy()})
        pairs = codes.drop_duplicates().sort_values(["label", "group"])
        part = np.select([self.is_train.numpy(), self.is_tuning.numpy()], PARTS[:2], PARTS[2])
        images = codes.assign(split=part)
        n = images.groupby(["label", "group", "split"]).size().rename("n")
        table = pairs.merge(pd.DataFrame({"split": PARTS}), how="cross")
        table = table.join(n, on=["label", "group", "split"])
        return table.assign(
            label=np.array(self.label_names)[table["label"]],
            group=np.array(self.group_names)[table["group"]],
            n=table["n"].fillna(0).astype(int),
        )


def describe(dataset: Dataset) -> str:
    """What was found, used and left out, and how many images each group has, to be printed.

    Labels are told apart where they do not coincide with the groups.

    >>> from fairq_utils.data.sources import load
    >>> print(describe(load("moths", train_images=40, test_images=20)))  # doctest: +ELLIPSIS
    group    train  tuning  test  all
    Alder       16       1     9   26
    Bracken      6       1     4   11
    Clover       5       1     3    9
    Damson       6       1     3   10
    Others       2       1     1    4
    all         35       5    20   60
    <BLANKLINE>
    fingerprint ...
    """
    counts = dataset.counts()
    coincide = counts["label"].equals(counts["group"])
    keys = ["group"] if coincide else ["group", "label"]
    table = counts.pivot_table(index=keys, columns="split", values="n", aggfunc="sum", sort=False)
    table = table[list(PARTS)].assign(all=table.sum(axis="columns")).reset_index()
    if not coincide:
        order = pd.Index(dataset.group_names).get_indexer(pd.Index(table["group"]))
        table = table.iloc[np.argsort(order, kind="stable")]
    sums = table[[*PARTS, "all"]].sum()
    total = pd.DataFrame([{"group": "all", "label": ""} | sums.to_dict()])[table.columns]
    return "\n".join(
        [
            *_described(dataset.notes),
            *_aligned([list(table.columns), *table.to_numpy().tolist(), *total.to_numpy().tolist()]),
            "",
            f"fingerprint {dataset.fingerprint}",
        ]
    )


def _described(notes: Mapping[str, Any]) -> list[str]:
    if not notes:
        return []
    lines: list[list[Any]] = [["found", notes["found"]], ["used", notes["used"]]]
    for skipped in notes["skipped"]:
        more = ", …" if skipped["count"] > 3 else ""
        lines.append(
            ["skipped", skipped["count"], f"{skipped['reason']}: {', '.join(skipped['files'][:3])}{more}"]
        )
    copies = notes["copies"]
    about = (
        f"identical files in {copies['sets']:,} sets; in {copies['conflicting_sets']:,} sets "
        f"({copies['conflicting_files']:,} files) label or group disagree"
    )
    lines.append(["copies", copies["files"], about])
    width = max(len(f"{line[1]:,}") for line in lines)
    return [
        *(f"{what:<8} {n:>{width},}  {''.join(rest)}".rstrip() for what, n, *rest in lines),
        "",
    ]


def _aligned(rows: list[list[Any]]) -> list[str]:
    cells = [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    named = len(widths) - len(PARTS) - 1  # names stand to the left, numbers to the right
    return [
        "  ".join(
            cell.ljust(width) if place < named else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]
