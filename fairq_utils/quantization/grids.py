"""The values that a rounded tensor may take, and how a tensor is put on them."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from fairq_utils.errors import BadInput

_BEYOND = 2**23  # steps to either side that a grid without ends has; float32 holds no finer ones


class _StraightThrough(torch.autograd.Function):
    """Return `values`; the gradient goes to `weight` where `inside` is true (everywhere if it is None).

    A `scale` that is learned receives the gradient times `slope`, the derivative of the values.
    """

    @staticmethod
    def forward(
        weight: Tensor, values: Tensor, inside: Tensor | None, scale: Tensor | None, slope: Tensor | None
    ) -> Tensor:
        return values

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, _, inside, scale, slope = inputs
        ctx.save_for_backward(inside, slope)
        ctx.scale_shape = None if scale is None else scale.shape

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        inside, slope = ctx.saved_tensors
        to_weight = gradient if inside is None else gradient * inside
        to_scale = None if slope is None else (gradient * slope).sum_to_size(ctx.scale_shape)
        return to_weight, None, None, to_scale, None


class Grid(ABC):
    """The values that one tensor may take, and the codes that stand for them."""

    scale: Tensor

    @property
    @abstractmethod
    def bits(self) -> int:
        """How many bits a code takes."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """What is stored beside the codes: scales, zero points, tables."""

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
        return _StraightThrough.apply(weight, values, None, None, None)


def working_precision(weight: Tensor) -> Tensor:
    """The tensor without gradient, in the precision that grids are computed in."""
    return weight.detach() if weight.dtype == torch.float64 else weight.detach().float()


def as_rows(tensor: Tensor, axis: int | None) -> Tensor:
    """One row for each channel along the axis, or one row in all."""
    if axis is None:
        return tensor.reshape(1, -1)
    if not -tensor.dim() <= axis < tensor.dim():
        raise BadInput(f"axis is {axis}, the tensor has {tensor.dim()} axes; choose one of these, or None.")
    return tensor.movedim(axis, 0).flatten(1) if tensor.dim() > 1 else tensor.unsqueeze(1)


def as_blocks(tensor: Tensor, size: int) -> Tensor:
    """One row for each block of neighbours in memory, the last filled up with zeros."""
    return functional.pad(tensor.flatten(), (0, -tensor.numel() % size)).view(-1, size)


def midpoints(values: Tensor) -> Tensor:
    """Half way between neighbours."""
    return values[..., :-1] / 2 + values[..., 1:] / 2  # each half by itself: the sum may overflow


@dataclass(frozen=True, eq=False)
class UniformGrid(Grid):
    """Whole multiples of a step: (code - zero_point) * scale, for codes from lowest to highest."""

    scale: Tensor  # one number, or one for each channel along `axis`
    zero_point: Tensor
    lowest: int
    highest: int
    axis: int | None = None
    clipped_gradient: bool = True

    @property
    def bits(self) -> int:
        """How many bits a code takes."""
        return (self.highest - self.lowest).bit_length()

    @property
    def nbytes(self) -> int:
        """Four bytes for each scale, and for each zero point of an affine grid two."""
        return self.scale.numel() * (6 if self.lowest == 0 else 4)

    def _along(self, parameter: Tensor, weight: Tensor) -> Tensor:
        """A parameter shaped so that it broadcasts against the weight."""
        if self.axis is None:
            return parameter
        shape = [1] * weight.dim()
        shape[self.axis] = -1
        return parameter.view(shape)

    def _steps(self, weight: Tensor) -> Tensor:
        """How many steps each entry is from zero, neither rounded nor clipped."""
        # times 1/scale, not over scale: to agree with torch.fake_quantize in the last bit
        return working_precision(weight) * self._along(1 / self.scale, weight)

    def _ends(self, weight: Tensor) -> tuple[Any, Any]:
        """The first and the last step of the grid."""
        if self.lowest < 0:  # the zero point is 0, and plain numbers clip ten times as fast as tensors
            return self.lowest, self.highest
        zero_point = self._along(self.zero_point, weight)
        return self.lowest - zero_point, self.highest - zero_point

    def codes(self, weight: Tensor) -> Tensor:
        """The code of the grid value that stands for each entry, as int32."""
        steps = self._steps(weight).round_().clamp_(*self._ends(weight))
        return steps.int() + self._along(self.zero_point, weight)

    def dequantize(self, codes: Tensor) -> Tensor:
        """The grid values that the codes stand for."""
        return (codes - self._along(self.zero_point, codes)) * self._along(self.scale, codes)

    def clip(self, weight: Tensor) -> Tensor:
        """Cut off what lies beyond the outermost values, and leave the rest as it is."""
        lowest, highest = ((self._along(self.scale, weight) * end) for end in self._ends(weight))
        return working_precision(weight).clamp(lowest, highest).to(weight.dtype)

    def unclipped(self) -> "UniformGrid":
        """The grid of the same steps that goes on beyond its ends."""
        return replace(self, lowest=-_BEYOND, highest=_BEYOND)

    def __call__(self, weight: Tensor) -> Tensor:
        """Round to the grid; the gradient passes, or stops where a value is clipped."""
        with torch.no_grad():
            steps, inside = self._steps(weight).round_(), None
            if self.clipped_gradient:
                free, steps = steps, steps.clamp(*self._ends(weight))
                inside = free == steps
            else:
                steps.clamp_(*self._ends(weight))
            values = steps.mul_(self._along(self.scale, weight)).add_(0.0)  # -0.0 becomes 0.0
        return _StraightThrough.apply(weight, values.to(weight.dtype), inside, None, None)


@dataclass(frozen=True, eq=False)
class LearnedGrid(UniformGrid):
    """A uniform grid whose scale receives a gradient."""

    def __call__(self, weight: Tensor) -> Tensor:
        """The weight on the grid, with the gradient of a learned step."""
        with torch.no_grad():
            free = self._steps(weight)
            rounded = free.round()
            steps = rounded.clamp(*self._ends(weight))
            inside = rounded == steps
            # so that the scale learns about as fast as the weights, whatever their number
            balance = (max(weight.numel() / self.scale.numel(), 1) * self.highest) ** -0.5
            slope = (steps - free * inside) * balance
            scale = self._along(self.scale, weight)
            values = steps.mul_(scale).add_(0.0).to(weight.dtype)
        return _StraightThrough.apply(weight, values, inside, self._along(self.scale, weight), slope)


@dataclass(frozen=True, eq=False)
class LookupGrid(Grid):
    """Values from a table, times a scale; the code is the place in the table."""

    levels: Tensor  # ascending; one table for all, or a row for each channel
    scale: Tensor  # one number, or one for each block
    axis: int | None = None
    block: int | None = None

    @property
    def bits(self) -> int:
        """How many bits a code takes."""
        return (self.levels.shape[-1] - 1).bit_length()

    @property
    def nbytes(self) -> int:
        """Four bytes for each scale, or for each value of a table that is the tensor's own."""
        return 4 * (self.levels.numel() if self.levels.dim() > 1 else self.scale.numel())

    def _split(self, tensor: Tensor) -> Tensor:
        return as_rows(tensor, self.axis) if self.block is None else as_blocks(tensor, self.block)

    def _join(self, rows: Tensor, shape: torch.Size) -> Tensor:
        """The rows put back into the shape that they were split from."""
        if self.axis is None:
            return rows.flatten()[: shape.numel()].view(shape)
        others = [size for at, size in enumerate(shape) if at != self.axis % len(shape)]
        return rows.view(shape[self.axis], *others).movedim(0, self.axis)

    def codes(self, weight: Tensor) -> Tensor:
        """The place in the table of the value nearest to each entry, as int32."""
        rows = self._split(working_precision(weight)) / self.scale.view(-1, 1)
        places = torch.searchsorted(midpoints(self.levels), rows.contiguous(), out_int32=True)
        return self._join(places, weight.shape)

    def dequantize(self, codes: Tensor) -> Tensor:
        """The values of the table that the codes stand for."""
        rows = self._split(codes).long()
        levels = self.levels.expand(len(rows), -1)
        return self._join(levels.gather(1, rows) * self.scale.view(-1, 1), codes.shape)


@dataclass(frozen=True, eq=False)
class FloatGrid(Grid):
    """The numbers of a floating-point format, times a scale; the code is their bit pattern."""

    scale: Tensor
    format: torch.dtype

    @property
    def bits(self) -> int:
        """How many bits a code takes."""
        return torch.finfo(self.format).bits

    @property
    def nbytes(self) -> int:
        """Four bytes for the scale of an 8-bit format; the others have none."""
        return 4 if self.bits == 8 else 0

    @property
    def _pattern(self) -> torch.dtype:
        return torch.uint8 if self.bits == 8 else torch.int16

    def codes(self, weight: Tensor) -> Tensor:
        """The bit pattern of the number nearest to each entry, as int32."""
        largest = torch.finfo(self.format).max
        scaled = (working_precision(weight) / self.scale).clamp_(-largest, largest)
        return scaled.to(self.format).view(self._pattern).int()

    def dequantize(self, codes: Tensor) -> Tensor:
        """The numbers that the bit patterns stand for."""
        return codes.to(self._pattern).view(self.format).to(self.scale.dtype) * self.scale


@dataclass(frozen=True, eq=False)
class HalfGrid(Grid):
    """A grid that does only a half of its work; what the other half would touch stays free.

    `does`: `zeros` empties the zero bin alone, `nonzeros` rounds all but that; `clip` cuts off what lies
    beyond the outermost values and rounds nothing, `round` goes on with the same steps beyond them.
    """

    scale: Tensor
    whole: Grid
    does: str
    free_bits: int

    @property
    def bits(self) -> int:
        """Bits of a weight that stays free."""
        return self.free_bits

    @property
    def nbytes(self) -> int:
        """Nothing beside the weights, of which some stay free."""
        return 0

    def codes(self, weight: Tensor) -> Tensor:
        """Refused, because half of an ablation has no codes."""
        raise BadInput("half of an ablation has no codes, because some weights stay free; use its values.")

    def dequantize(self, codes: Tensor) -> Tensor:
        """Refused, because half of an ablation has no codes."""
        return self.codes(codes)

    def __call__(self, weight: Tensor) -> Tensor:
        """The weight with one half of it done."""
        if self.does in ("zeros", "nonzeros"):
            values = self.whole(weight)
            return torch.where((values == 0) == (self.does == "zeros"), values, weight)
        assert isinstance(self.whole, UniformGrid)  # what makes this refuses other grids
        return self.whole.clip(weight) if self.does == "clip" else self.whole.unclipped()(weight)
