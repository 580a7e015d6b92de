"""Draw broods of moths, or read the images of a data set from your copy, to be kept."""

from __future__ import annotations

import torch

from fairq_utils.data.datasets import Dataset
from fairq_utils.data.moths import Brood
from fairq_utils.data.sources import DataSettings
from fairq_utils.items import Item

_TENSORS = ("images", "labels", "groups", "is_train", "is_tuning")
_ABOUT = ("label_names", "group_names", "notes", "fingerprint")


def read(settings: DataSettings) -> Item:
    """The images, labels and groups; `as_dataset` makes a data set of them again."""
    made = settings.load()
    return Item(
        {name: getattr(made, name) for name in _TENSORS}, {name: getattr(made, name) for name in _ABOUT}
    )


def draw_brood(brood: Brood, count: int) -> Item:
    """The pictures of so many moths of a brood.

    >>> draw_brood(Brood(split=0, group=1, seed=0), 3).tensors["images"].shape
    torch.Size([3, 3, 32, 32])
    """
    return Item({"images": torch.from_numpy(brood.draw(count))})


def as_dataset(item: Item) -> Dataset:
    """What `read` kept.

    >>> made = read(DataSettings(train_images=40, test_images=20))
    >>> as_dataset(made).fingerprint == made.info["fingerprint"]
    True
    """
    info = item.info
    found = Dataset(
        **item.tensors,
        label_names=tuple(info["label_names"]),
        group_names=tuple(info["group_names"]),
        notes=info["notes"],
    )
    vars(found)["fingerprint"] = info["fingerprint"]  # the store has just checked the same bytes
    return found
