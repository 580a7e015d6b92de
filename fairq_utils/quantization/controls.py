"""Quantizers that do a part of another's work, or the same more coarsely: controls, never deployed."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fairq_utils.errors import BadInput
from fairq_utils.quantization.grids import HalfGrid, UniformGrid
from fairq_utils.quantization.quantizers import Quantizer, UniformQuantizer


@dataclass(frozen=True)
class _Half(Quantizer):
    """One half of what a quantizer does, to tell which of its halves does the harm."""

    whole: Quantizer
    does: str

    def with_bits(self, bits: int) -> _Half:
        return replace(self, whole=self.whole.with_bits(bits))

    def choose(self, weight: Tensor) -> HalfGrid:
        grid = self.whole.choose(weight)
        return HalfGrid(grid.scale, grid, self.does, torch.finfo(weight.dtype).bits)


def only_zero_bin(quantizer: Quantizer) -> Quantizer:
    """Zero what the quantizer would zero, and leave the other weights as they are.

    Together with `all_but_zero_bin` it splits the harm of quantization in two: small weights lost, and the
    others rounded. Give either to `quantize_model`; `describe` then counts the weights as unpacked.

    >>> only_zero_bin(UniformQuantizer(2))(torch.tensor([1.0, 0.8, -0.3]))
    tensor([1.0000, 0.8000, 0.0000])
    """
    return _Half(quantizer, "zeros")


def all_but_zero_bin(quantizer: Quantizer) -> Quantizer:
    """Round what the quantizer would not zero, and leave the small weights as they are.

    >>> all_but_zero_bin(UniformQuantizer(2))(torch.tensor([1.0, 0.8, -0.3]))
    tensor([ 1.0000,  1.0000, -0.3000])
    """
    return _Half(quantizer, "nonzeros")


def only_clip(quantizer: UniformQuantizer) -> Quantizer:
    """Cut off what lies beyond the outermost values of the quantizer's grid, and round nothing.

    Together with `only_round` it splits the harm in two: large weights cut off, and all weights moved to the
    nearest value. A quantizer does one after the other, in either order.

    >>> percentile = UniformQuantizer(2, clip="percentile")
    >>> weight = torch.tensor([4.0, *[0.6] * 1000])
    >>> only_clip(percentile)(weight)[:2], only_round(percentile)(weight)[:2], percentile(weight)[:2]
    (tensor([0.6000, 0.6000]), tensor([4.2000, 0.6000]), tensor([0.6000, 0.6000]))
    """
    return _Half(quantizer, "clip")


def only_round(quantizer: UniformQuantizer) -> Quantizer:
    """Round to the quantizer's steps, which go on beyond the ends of its grid; nothing is cut off.

    >>> only_round(UniformQuantizer(2))(torch.tensor([1.0, 0.8, -0.3]))  # whose range takes in all there is
    tensor([1., 1., 0.])
    """
    return _Half(quantizer, "round")


@dataclass(frozen=True)
class _Coarser(Quantizer):
    """A uniform quantizer whose steps are so many times as wide."""

    whole: UniformQuantizer
    factor: int

    def with_bits(self, bits: int) -> _Coarser:
        return replace(self, whole=replace(self.whole, bits=bits))

    def choose(self, weight: Tensor) -> UniformGrid:
        grid = self.whole.choose(weight)
        return replace(grid, scale=grid.scale * self.factor)


def coarser(quantizer: UniformQuantizer, factor: int) -> Quantizer:
    """The quantizer with steps that are `factor` times as wide, on the same tensor: a control.

    It is what becomes of all other weights where one of them is `factor` times as large as the largest
    without it. An affine grid, whose zero point goes with its step, is refused.

    >>> coarser(UniformQuantizer(4), 2)(torch.tensor([1.4, -0.3, 0.2, 0.1]))
    tensor([ 1.6000, -0.4000,  0.0000,  0.0000])
    """
    if not quantizer.symmetric:
        raise BadInput("The quantizer is affine; expected a symmetric one, to make coarser.")
    return _Coarser(quantizer, factor)
