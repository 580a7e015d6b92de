"""Which images of a data set a network is shown."""

from __future__ import annotations

import torch
from torch import Tensor

from fairq_utils.data.datasets import PARTS, Dataset
from fairq_utils.errors import BadInput


def places(images: Dataset, each: int, split: str) -> Tensor:
    """The places of the images of that part, or of at most so many of each group.

    >>> from fairq_utils.data.sources import load
    >>> moths = load("moths", train_images=100, test_images=20)
    >>> len(places(moths, 0, "test")), len(places(moths, 1, "test"))
    (20, 5)
    """
    if split not in PARTS:
        raise BadInput(f"split is {split!r}; expected one of: {', '.join(PARTS)}.")
    shown: Tensor = getattr(images, f"is_{split}")
    found = shown.nonzero()[:, 0]
    return found[of_each(images.groups[found], each)] if each else found


def of_each(groups: Tensor, count: int) -> Tensor:
    """The places of at most so many of each group.

    >>> of_each(torch.tensor([0, 1, 1, 0, 1]), 5)
    tensor([0, 1, 2, 3, 4])
    """
    # Drawn, because images may lie sorted by label, but the same ones every time.
    drawn = torch.randperm(len(groups), generator=torch.Generator().manual_seed(0))
    chosen = [drawn[groups[drawn] == group][:count] for group in groups.unique()]
    return torch.cat(chosen).sort()[0]
