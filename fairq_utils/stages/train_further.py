"""Train a network further, as a treatment says."""

from __future__ import annotations

from fairq_utils.data import Dataset
from fairq_utils.progress import Report
from fairq_utils.stages.here import device, reachable
from fairq_utils.stages.restore import restored
from fairq_utils.store import Item
from fairq_utils.training import Checkpoint, Recipe
from fairq_utils.treatments import Treatment


def train_further(
    images: Dataset,
    original: Item,
    *,
    treatment: Treatment,
    arch: str,
    recipe: Recipe,
    seed: int,
    description: str,
    checkpoint: Checkpoint,
    report: Report,
) -> Item:
    """The weights of the network, trained further on the training images."""
    trained = treatment.train(
        restored(arch, images, original),
        images,
        recipe=recipe,
        seed=seed,
        description=description,
        report=report,
        checkpoint=reachable(checkpoint),
    )
    return Item(trained.state_dict(), device())
