"""Make a network of weights that were stored."""

from __future__ import annotations

import torch
from torch import nn

from fairq_utils.data.datasets import Dataset
from fairq_utils.items import Item
from fairq_utils.training.architectures import build


def restored(arch: str, images: Dataset, item: Item) -> nn.Module:
    """The network with the weights of that item, which was trained on these images, in evaluation mode."""
    # On no device first: drawing weights that are then overwritten would take longer than reading them.
    with torch.device("meta"):
        network = build(arch, classes=len(images.label_names), image_size=images.images.shape[-1])
    network.load_state_dict(item.tensors, assign=True)
    return network.eval()
