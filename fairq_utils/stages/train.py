"""Train a network in full precision."""

from __future__ import annotations

from fairq_utils import training
from fairq_utils.data import Dataset
from fairq_utils.progress import Report
from fairq_utils.stages.here import device, reachable
from fairq_utils.store import Item
from fairq_utils.training import Checkpoint, Recipe


def train(
    images: Dataset,
    *,
    arch: str,
    weights: str | None,
    recipe: Recipe,
    seed: int,
    description: str,
    checkpoint: Checkpoint,
    report: Report,
) -> Item:
    """The weights of the network, trained on the training images."""
    trained = training.train(
        arch,
        images.images[images.is_train],
        images.labels[images.is_train],
        classes=len(images.label_names),
        recipe=recipe,
        seed=seed,
        weights=weights,
        description=description,
        report=report,
        checkpoint=reachable(checkpoint),
    )
    return Item(trained.state_dict(), device())
