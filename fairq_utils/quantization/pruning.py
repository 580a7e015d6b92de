"""Set the smallest weights of a network to zero, as many as leave the bytes of a width."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from fairq_utils.errors import BadInput
from fairq_utils.quantization.grids import Grid
from fairq_utils.quantization.models import quantize_model, weight_parameters
from fairq_utils.quantization.quantizers import Quantizer, require_finite

Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True, eq=False)
class MaskGrid(Grid):
    """What is left of a pruned weight: a mask of one bit for each entry, and the entries that stay."""

    scale: Tensor
    mask: Tensor

    @property
    def bits(self) -> int:
        """One, of the mask."""
        return 1

    @property
    def nbytes(self) -> int:
        """What the entries that stay take."""
        return int(self.mask.count_nonzero()) * self.scale.element_size()

    def codes(self, weight: Tensor) -> Tensor:
        """The mask: 1 for what stays."""
        return self.mask.int()

    def dequantize(self, codes: Tensor) -> Tensor:
        """Refused, for the mask says nothing of the entries that stay."""
        raise BadInput("a mask does not say what the weights are that stay; use the weights themselves.")

    def __call__(self, weight: Tensor) -> Tensor:
        """The weight with zeros where it is pruned; there it has no gradient either."""
        return torch.where(self.mask, weight, 0.0)


@dataclass(frozen=True)
class MagnitudePruner(Quantizer):
    """Zeros for all weights up to a threshold. In training the mask of the beginning stays.

    >>> MagnitudePruner(0.25)(torch.tensor([1.4, -0.3, 0.2]))
    tensor([ 1.4000, -0.3000,  0.0000])
    """

    threshold: float

    def choose(self, weight: Tensor) -> MaskGrid:
        """The mask of this tensor."""
        return MaskGrid(weight.new_ones(()), weight.detach().abs() > self.threshold)

    def fitted(self, weight: Tensor) -> FixedMask:
        """The mask that this weight has now, for good."""
        return FixedMask(self.choose(weight).mask)


class FixedMask(Quantizer, nn.Module):
    """The mask of one weight, whatever becomes of the weight."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def choose(self, weight: Tensor) -> MaskGrid:
        """The mask that it holds."""
        return MaskGrid(weight.new_ones(()), self.mask)


def sparsity_of(bits: int) -> float:
    """The share of weights that has to be zero so that a network takes as much as at so many bits a weight.

    A weight that stays takes its 32 bits, and a mask says with one bit a weight which these are.

    >>> [round(sparsity_of(bits), 3) for bits in (8, 4, 3, 2)]
    [0.781, 0.906, 0.938, 0.969]
    """
    if not isinstance(bits, int) or not 2 <= bits <= 32:
        raise BadInput(f"bits is {bits!r}; expected a whole number from 2 to 32.")
    return 1 - (bits - 1) / 32


def pruner(model: nn.Module, sparsity: float) -> MagnitudePruner:
    """What sets that share of all weights of the model to zero, the smallest of the whole model.

    The weights are those that `quantize_model` reaches.
    """
    if not 0 <= sparsity < 1:
        raise BadInput(f"sparsity is {sparsity}; expected a share from 0 to below 1.")
    weights = [place.original.detach() for place in weight_parameters(model)]
    if not weights:
        raise BadInput("the model has no convolution, linear layer, attention or embedding to prune.")
    for weight in weights:
        require_finite(weight)
    magnitudes = torch.cat([weight.flatten().abs() for weight in weights]).sort().values
    count = round(sparsity * len(magnitudes))
    return MagnitudePruner(float(magnitudes[count - 1]) if count else -1.0)


def prune_model(model: Model, sparsity: float) -> Model:
    """A copy in which that share of all weights is zero, the smallest of the whole model, and stays so.

    Evaluate it, `bake` it, or train it: what was pruned stays at zero. Weights as large as the largest that
    has to go, go with it.

    >>> layer = nn.Linear(4, 1, bias=False)
    >>> _ = layer.weight.data.copy_(torch.tensor([[1.4, -0.3, 0.2, 0.9]]))
    >>> prune_model(layer, 0.5).weight.data
    tensor([[1.4000, 0.0000, 0.0000, 0.9000]])
    """
    return quantize_model(model, pruner(model, sparsity))
