"""Put the weights of a network on a grid: value objects that round, and verbs that apply them to a model.

A *quantizer* says how a grid is chosen, a *grid* is what was chosen for one tensor, and *codes* are the
whole numbers a quantized network would store. Quantizers are called on tensors and return tensors of the
same shape and dtype. float64 is computed in float64; float32, bfloat16 and float16 in float32.

Every quantizer refuses tensors that hold NaN or infinity. Empty tensors stay empty, tensors of zeros stay
zeros, and so does what is too small for a step of the smallest normal number.
"""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from fairq_utils.errors import BadInput


class _StraightThrough(torch.autograd.Function):
    """Return `values`; the gradient goes to `weight` where `inside` is true (everywhere if it is None)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(weight: Tensor, values: Tensor, inside: Tensor | None) -> Tensor:
        return values

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[2])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (inside,) = ctx.saved_tensors
        return gradients[0] if inside is None else gradients[0] * inside, None, None


class Grid(ABC):
    """The values that one tensor may take, and the codes that stand for them."""

    scale: Tensor

    @abstractmethod
    def codes(self, weight: Tensor) -> Tensor:
        """The code of the grid value that stands for each entry, as int32."""

    @abstractmethod
    def dequantize(self, codes: Tensor) -> Tensor:
        """The grid values that the codes stand for."""

    def __call__(self, weight: Tensor) -> Tensor:
        """Round to the grid; the gradient passes straight through."""
        with torch.no_grad():
            values = self.dequantize(self.codes(weight)).to(weight.dtype)
        return _StraightThrough.apply(weight, values, None)


def _require_finite(tensor: Tensor) -> None:
    if not tensor.is_floating_point():
        raise BadInput(f"the tensor holds {tensor.dtype}; expected floating point: convert it first.")
    if not torch.isfinite(tensor).all():
        raise BadInput("the tensor holds NaN or infinity; expected finite numbers: find the step that diverged.")


class Quantizer(ABC):
    """What all quantizers share. A new one says its `bits` and how to `choose` a grid."""

    bits: int

    @abstractmethod
    def choose(self, weight: Tensor) -> Grid:
        """The grid for this tensor, without looking whether the tensor is finite.

        Training calls this, because the look would make a GPU wait at every layer. Weights that have
        become NaN then give a NaN loss, as in any other network.
        """

    def grid(self, weight: Tensor) -> Grid:
        """The grid for this tensor."""
        _require_finite(weight)
        return self.choose(weight)

    def __call__(self, weight: Tensor) -> Tensor:
        """The fake-quantized tensor: rounded to the grid, same shape and dtype."""
        return self.grid(weight)(weight)

    def codes(self, weight: Tensor) -> Tensor:
        """The integer code of each entry."""
        return self.grid(weight).codes(weight)

    def scale(self, weight: Tensor) -> Tensor:
        """What a code is multiplied with: one number, or one for each channel or block."""
        return self.grid(weight).scale


def _arithmetic(weight: Tensor) -> Tensor:
    """The tensor without gradient, in the precision that grids are computed in."""
    return weight.detach() if weight.dtype == torch.float64 else weight.detach().float()


def _rows(weight: Tensor, axis: int | None) -> Tensor:
    """One row for each channel, or one row in all."""
    if axis is None:
        return weight.reshape(1, -1)
    if not -weight.dim() <= axis < weight.dim():
        raise BadInput(f"axis is {axis}, the tensor has {weight.dim()} axes; choose one of these, or None.")
    return weight.movedim(axis, 0).reshape(weight.shape[axis], -1)


def _sorted(rows: Tensor) -> Tensor:
    """Each row in ascending order."""
    if rows.is_cpu:  # NumPy's vectorised sort takes a thirtieth of the time of torch's
        return torch.from_numpy(np.sort(rows.numpy(), axis=1))
    return rows.sort(dim=1).values


@dataclass(frozen=True, eq=False)
class UniformGrid(Grid):
    """Whole multiples of a step: (code - zero_point) * scale, for codes from lowest to highest."""

    scale: Tensor  # one number, or one for each channel along `axis`
    zero_point: Tensor
    lowest: int
    highest: int
    axis: int | None = None
    clipped_gradient: bool = True

    def _along(self, parameter: Tensor, weight: Tensor) -> Tensor:
        """A parameter shaped so that it broadcasts against the weight."""
        if self.axis is None:
            return parameter
        shape = [1] * weight.dim()
        shape[self.axis] = -1
        return parameter.view(shape)

    def _steps(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """How many steps each entry is from zero, before and after clipping."""
        # times 1/scale, not over scale: to agree with torch.fake_quantize in the last bit
        free = (_arithmetic(weight) * self._along(1 / self.scale, weight)).round_()
        zero_point = self._along(self.zero_point, weight)
        return free, free.clamp(self.lowest - zero_point, self.highest - zero_point)

    def codes(self, weight: Tensor) -> Tensor:
        """The code of the grid value that stands for each entry, as int32."""
        return self._steps(weight)[1].int() + self._along(self.zero_point, weight)

    def dequantize(self, codes: Tensor) -> Tensor:
        """The grid values that the codes stand for."""
        return (codes - self._along(self.zero_point, codes)) * self._along(self.scale, codes)

    def __call__(self, weight: Tensor) -> Tensor:
        """Round to the grid; the gradient passes, or stops where a value is clipped."""
        with torch.no_grad():
            free, steps = self._steps(weight)
            inside = free == steps if self.clipped_gradient else None
            values = steps.mul_(self._along(self.scale, weight)).to(weight.dtype)
        return _StraightThrough.apply(weight, values, inside)


# Ends within 2.2 % of the best ratio between 1 and 1/256; near its minimum the error is flat.
_CLIP_RATIOS = (2 ** -np.linspace(0, 8, 129)).tolist()
_CLIPPED_SHARE = 0.001  # what clip="percentile" leaves outside the range


@dataclass(frozen=True)
class UniformQuantizer(Quantizer):
    """Evenly spaced values, zero among them.

    `bits`: a whole number from 2 to 16.

    `symmetric`: the grid mirrors itself around zero, and the zero point is 0. Otherwise (affine) the codes
    run from 0 to 2**bits - 1, and the zero point is the code that stands for exactly zero.

    `narrow` (symmetric only): at two bits the codes are {-1, 0, 1}, the largest magnitude is the last grid
    value, and nothing is clipped. With `narrow=False` they are {-2, -1, 0, 1}, and the largest magnitude is
    code -2: the steps are finer, and positive values near the end are clipped by up to one step.

    `clip`: how far the grid reaches. `absmax` and `minmax` take in every value: a symmetric grid reaches the
    largest magnitude, an affine one spans the smallest to the largest value. `percentile` leaves out the
    0.1 % of values that lie furthest out, `mse` searches the range with the smallest squared error.

    `axis`: None for one scale, or the axis along which each channel has its own (0: the outputs of a
    convolution or a linear layer).

    `gradient`: `identity` lets every gradient through the rounding; `clipped` stops those of values that
    are clipped, those that round to a code outside the range. The scale counts as a constant.

    >>> weight = torch.tensor([-1.4, -0.3, 0.2, 0.6])
    >>> int4 = UniformQuantizer(4)
    >>> int4.codes(weight), int4.scale(weight)
    (tensor([-7, -2,  1,  3], dtype=torch.int32), tensor(0.2000))
    >>> int4(weight)
    tensor([-1.4000, -0.4000,  0.2000,  0.6000])
    >>> UniformQuantizer(2, narrow=False).codes(weight)
    tensor([-2,  0,  0,  1], dtype=torch.int32)

    Few outliers stretch the grid until most weights share the code 0: where the zero share is high, try
    `clip="mse"`, an `axis`, or more bits.
    """

    bits: int
    symmetric: bool = True
    clip: str = "absmax"
    axis: int | None = None
    narrow: bool = True
    gradient: str = "clipped"

    def __post_init__(self) -> None:
        _require_bits(self.bits, 16)
        if self.clip not in ("absmax", "minmax", "percentile", "mse"):
            raise BadInput(f"clip is {self.clip!r}; choose absmax, minmax, percentile or mse.")
        if self.gradient not in ("identity", "clipped"):
            raise BadInput(f"gradient is {self.gradient!r}; choose identity or clipped.")

    def zero_point(self, weight: Tensor) -> Tensor:
        """The code that stands for zero: one number, or one for each channel."""
        return self.choose_checked(weight).zero_point
