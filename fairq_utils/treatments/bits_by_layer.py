"""What each layer costs each group at each width, and the widths that follow from it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from fairq_utils.data.datasets import Dataset
from fairq_utils.data.splits import of_each
from fairq_utils.quantization.allocation import allocate
from fairq_utils.quantization.models import weight_parameters
from fairq_utils.quantization.quantizers import Quantizer
from fairq_utils.training.loop import predict

WIDTHS = (2, 3, 4, 5, 6, 8)
_EACH = 50  # images of each group, so that each is known as well as the others


def bits_by_layer(
    network: nn.Module, data: Dataset, quantizer: Quantizer, *, bits: int, whose: str
) -> dict[str, int]:
    """The widths of a network's layers that cost least, at as many bytes as `bits` for each weight.

    `whose` answers: those of `groups`, where that group decides whose answers change most; or their `mean`.
    What a width of a layer costs a group is how far it takes the softmax, with this layer alone quantized:
    the mean Kullback-Leibler divergence from full precision, on images for tuning, fifty of each group.
    Unlike the loss it is never below zero, so that no luck of these images passes for a gain.
    """
    rows = data.is_tuning.nonzero()[:, 0]
    rows = rows[of_each(data.groups[rows], _EACH)]
    images, groups = data.images[rows], data.groups[rows]
    costs, sizes = {}, {}
    with torch.no_grad():
        before = predict(network, images).double().log_softmax(1)
        for place in weight_parameters(network):
            weight = place.original
            kept = weight.clone()
            at = []
            for width in WIDTHS:
                weight.copy_(quantizer.with_bits(width)(kept))
                at.append(_divergences(predict(network, images).double().log_softmax(1), before, groups))
            weight.copy_(kept)
            costs[place.name] = np.stack(at) if whose == "groups" else np.stack(at).mean(axis=1)
            sizes[place.name] = kept.numel()
    return allocate(costs, sizes, WIDTHS, bits=bits)


def _divergences(after: Tensor, before: Tensor, groups: Tensor) -> NDArray[np.float64]:
    """The mean divergence of each group that is there."""
    of_image = functional.kl_div(after, before, log_target=True, reduction="none").sum(1)
    return np.array([float(of_image[groups == group].mean()) for group in groups.unique()])
