"""Run a treated network over images."""

from __future__ import annotations

from torch import nn

from fairq_utils.data.datasets import Dataset
from fairq_utils.data.splits import places
from fairq_utils.items import Item
from fairq_utils.progress import Report
from fairq_utils.training.loop import default_device
from fairq_utils.training.loop import predict as answer
from fairq_utils.treatments.jobs.here import device
from fairq_utils.treatments.jobs.restore import restored
from fairq_utils.treatments.treatment import Treatment


def predict(
    images: Dataset,
    network: Item,
    *,
    treatment: Treatment,
    arch: str,
    each: int,
    split: str,
    report: Report,
) -> Item:
    """The logits of the images of a split, or of at most so many of each group."""
    treated = treatment.apply(restored(treatment.arch(arch, images), images, network), images)
    return logits_of(treated, images, each, split, report)


def logits_of(treated: nn.Module, images: Dataset, each: int, split: str, report: Report) -> Item:
    """The logits of a network as it stands."""
    logits = answer(treated.to(default_device()), images.images[places(images, each, split)])
    report(len(logits))
    return Item({"logits": logits}, device())
