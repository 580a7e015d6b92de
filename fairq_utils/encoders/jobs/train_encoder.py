"""Train a small encoder by captions, or by labels alone."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fairq_utils.encoders.contrastive import ContrastiveRecipe, train_mini_classifier, train_mini_clip
from fairq_utils.encoders.mini import MiniEncoder
from fairq_utils.encoders.scenes import Scenes
from fairq_utils.items import Item
from fairq_utils.progress import Report


def train_encoder(
    shown: Scenes,
    *,
    arch: str,
    labels: Tensor | None,
    texts: tuple[str, ...],
    recipe: ContrastiveRecipe,
    seed: int,
    description: str,
    report: Report,
) -> Item:
    """The weights of the encoder.

    With `labels` the captions are not read, and `texts` are the names of the classes; without, they are the
    words that it can read.
    """
    how: dict[str, Any] = {"recipe": recipe, "seed": seed, "description": description, "report": report}
    encoder: MiniEncoder
    if labels is not None:
        encoder = train_mini_classifier(arch, shown.images, labels, names=texts, **how)
    else:
        encoder = train_mini_clip(arch, shown.images, shown.captions, words=texts, **how)
    return Item(encoder.state_dict())
