"""Run a network over images after only a part of what a treatment does, or as much done elsewhere."""

from __future__ import annotations

from fairq_utils.data.datasets import Dataset
from fairq_utils.items import Item
from fairq_utils.progress import Report
from fairq_utils.treatments.ablations import Ablation
from fairq_utils.treatments.jobs.predict import logits_of
from fairq_utils.treatments.jobs.restore import restored


def ablate(
    images: Dataset,
    network: Item,
    *,
    treatment: Ablation,
    arch: str,
    each: int,
    split: str,
    report: Report,
) -> Item:
    """The logits of the images of a split, or of at most so many of each group."""
    ablated = treatment.apply(restored(arch, images, network), images)
    return logits_of(ablated, images, each, split, report)
