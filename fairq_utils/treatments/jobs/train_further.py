"""Train a network further, as a treatment says."""

from __future__ import annotations

from fairq_utils.data.datasets import Dataset
from fairq_utils.items import Item
from fairq_utils.progress import Report
from fairq_utils.training.loop import Checkpoint, Recipe
from fairq_utils.treatments.jobs.here import device, reachable
from fairq_utils.treatments.jobs.restore import restored
from fairq_utils.treatments.treatment import Treatment


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
        arch=treatment.arch(arch, images),
        description=description,
        report=report,
        checkpoint=reachable(checkpoint),
    )
    return Item(trained.state_dict(), device())
