"""Images, labels and groups, whatever they come from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from fairq_utils.errors import BadInput
from fairq_utils.moths import MothSettings, draw_moths

NAMES = ("moths",)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images in memory, with what each one shows and the group it belongs to.

    `images` is uint8 of shape N x 3 x H x W; `labels` and `groups` index into their names.
    """

    images: Tensor
    labels: Tensor
    groups: Tensor
    is_train: Tensor
    label_names: tuple[str, ...]
    group_names: tuple[str, ...]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the content: what was trained on other images must not pass for trained on these."""
        digest = hashlib.sha256(repr((self.images.shape, self.label_names, self.group_names)).encode())
        for tensor in (self.images, self.labels, self.groups, self.is_train):
            digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()


def settings(
    name: str, *, image_size: int = 32, train_images: int = 6000, test_images: int = 6000
) -> MothSettings:
    """Everything that decides the content of the named data set, without making it.

    >>> settings("moths", train_images=100).train
    100
    >>> settings("mooths")
    Traceback (most recent call last):
        ...
    fairq_utils.errors.BadInput: dataset is 'mooths'; expected one of: moths.
    """
    if name not in NAMES:
        raise BadInput(f"dataset is {name!r}; expected one of: {', '.join(NAMES)}.")
    return MothSettings(image_size=image_size, train=train_images, test=test_images)


def load(settings: MothSettings) -> Dataset:
    """Make the data set that the settings describe.

    >>> moths = load(settings("moths", train_images=40, test_images=20))
    >>> moths.images.shape, int(moths.is_train.sum())
    (torch.Size([60, 3, 32, 32]), 40)
    """
    moths = draw_moths(settings)
    return Dataset(moths.images, moths.labels, moths.groups, moths.is_train, moths.names, moths.names)
