"""Run a treated network over images."""

from __future__ import annotations

from torch import nn

from fairq_utils import training
from fairq_utils.data import Dataset
from fairq_utils.progress import Report
from fairq_utils.stages.here import device
from fairq_utils.stages.images import places
from fairq_utils.stages.restore import restored
from fairq_utils.store import Item
from fairq_utils.training import default_device
from fairq_utils.treatments import Treatment


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
    treated = treatment.apply(restored(arch, images, network), images)
    return logits_of(treated, images, each, split, report)


def logits_of(treated: nn.Module, images: Dataset, each: int, split: str, report: Report) -> Item:
    """Those of a network as it stands."""
    logits = training.predict(treated.to(default_device()), images.images[places(images, each, split)])
    report(len(logits))
    return Item({"logits": logits}, device())
