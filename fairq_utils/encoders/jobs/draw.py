"""Draw moths that are to be captioned, to be kept."""

from __future__ import annotations

from fairq_utils.data.moths import Moths, MothSettings, draw_moths
from fairq_utils.items import Item

_TENSORS = ("images", "labels", "groups", "is_train")


def draw(settings: MothSettings) -> Item:
    """The moths; `as_moths` makes them of it again."""
    drawn = draw_moths(settings)
    return Item({name: getattr(drawn, name) for name in _TENSORS})


def as_moths(item: Item) -> Moths:
    """What `draw` kept.

    >>> len(as_moths(draw(MothSettings(train=40, test=20))).images)
    60
    """
    images, labels, groups, is_train = (item.tensors[name] for name in _TENSORS)
    return Moths(images, labels, groups, is_train)
