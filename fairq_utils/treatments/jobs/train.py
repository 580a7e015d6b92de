"""Train a network in full precision."""

from __future__ import annotations

from fairq_utils.data.datasets import Dataset
from fairq_utils.items import Item
from fairq_utils.progress import Report
from fairq_utils.training.loop import Checkpoint, Recipe
from fairq_utils.training.loop import train as train_network
from fairq_utils.treatments.jobs.here import device, reachable


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
    trained = train_network(
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
