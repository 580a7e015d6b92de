"""Put the weights of a network on a grid: value objects that round, and verbs that apply them to a model.

A *quantizer* says how a grid is chosen, a *grid* is what was chosen for one tensor, and *codes* are the
whole numbers a quantized network would store. Quantizers are called on tensors and return tensors of the
same shape and dtype. float64 is computed in float64; float32, bfloat16 and float16 in float32.

Every quantizer refuses tensors that hold NaN or infinity. Empty tensors stay empty. Zeros stay zeros, except
with a codebook, and so does what is too small for a step of the smallest normal number.
"""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, fields, replace
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from fairq_utils.errors import BadInput

# ---------------------------------------------------------------- what every quantizer and grid can do


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


class Quantizer(ABC):
    """What all quantizers share. A new one says how to `choose` a grid."""

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

    def with_bits(self, bits: int) -> "Quantizer":
        """The same quantizer at another width."""
        if "bits" not in {field.name for field in fields(self)}:  # type: ignore[arg-type]
            raise BadInput(f"first_last is {bits}, but {self} has one width only; leave first_last out.")
        return replace(self, bits=bits)  # type: ignore[type-var]

    def fitted(self, weight: Tensor) -> "Quantizer":
        """The quantizer that serves this one weight; itself, unless it learns."""
        return self


def _require_finite(tensor: Tensor) -> None:
    if not tensor.is_floating_point():
        raise BadInput(f"the tensor holds {tensor.dtype}; expected floating point: convert it first.")
    if not _absmax(tensor.detach().reshape(1, -1)).isfinite():
        raise BadInput("the tensor holds NaN or infinity; expected finite numbers: find what diverged.")


def _require_bits(bits: int, highest: int) -> None:
    if not isinstance(bits, int) or not 2 <= bits <= highest:
        raise BadInput(f"bits is {bits!r}; expected a whole number from 2 to {highest}.")


def _arithmetic(weight: Tensor) -> Tensor:
    """The tensor without gradient, in the precision that grids are computed in."""
    return weight.detach() if weight.dtype == torch.float64 else weight.detach().float()


# ---------------------------------------------------------------- rows: a channel, a block or all of a tensor


def _rows(tensor: Tensor, axis: int | None) -> Tensor:
    """One row for each channel along the axis, or one row in all."""
    if axis is None:
        return tensor.reshape(1, -1)
    if not -tensor.dim() <= axis < tensor.dim():
        raise BadInput(f"axis is {axis}, the tensor has {tensor.dim()} axes; choose one of these, or None.")
    return tensor.movedim(axis, 0).flatten(1) if tensor.dim() > 1 else tensor.unsqueeze(1)


def _blocks(tensor: Tensor, size: int) -> Tensor:
    """One row for each block of neighbours in memory, the last filled up with zeros."""
    return functional.pad(tensor.flatten(), (0, -tensor.numel() % size)).view(-1, size)


def _absmax(rows: Tensor) -> Tensor:
    """The largest magnitude of each row; 0 for rows without entries, NaN for rows with a NaN."""
    if rows.shape[1] == 0:
        return rows.new_zeros(len(rows))
    # two vectorised passes; the single one of vector_norm(ord=inf) or aminmax takes 20 times as long
    return torch.maximum(rows.amax(1), -rows.amin(1))


def _sorted(rows: Tensor) -> Tensor:
    """Each row in ascending order."""
    if rows.is_cpu:  # NumPy's vectorised sort takes a thirtieth of the time of torch's
        return torch.from_numpy(np.sort(rows.contiguous().numpy(), axis=1))
    return rows.sort(dim=1)[0]


def _midpoints(values: Tensor) -> Tensor:
    return values[..., :-1] / 2 + values[..., 1:] / 2  # each half by itself: the sum may overflow


def _sums(ordered: Tensor) -> Tensor:
    """The sum of the first 0, 1, 2, ... entries of each row."""
    return functional.pad(ordered.cumsum(1, dtype=torch.float64), (1, 0))


def _runs(ordered: Tensor, sums: Tensor, boundaries: Tensor) -> tuple[Tensor, Tensor]:
    """How many entries of each sorted row lie between the boundaries, and what they sum to."""
    cuts = torch.searchsorted(ordered, boundaries.flatten(1)).view(boundaries.shape)
    cuts = functional.pad(functional.pad(cuts, (1, 0)), (0, 1), value=ordered.shape[1])
    return cuts.diff(), sums.gather(1, cuts.flatten(1)).view(cuts.shape).diff()


# ---------------------------------------------------------------- evenly spaced values


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
        return _arithmetic(weight) * self._along(1 / self.scale, weight)

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


# What clip="mse" tries: the whole range down to 1/256 of it in steps of 9 %, then 0.5 % around the best.
_CLIP_RATIOS = (2 ** -np.linspace(0, 8, 65), 2 ** np.linspace(-1 / 8, 1 / 8, 33))
_CLIPPED_SHARE = 0.001  # what clip="percentile" leaves outside the range


def _bounded(scale: Tensor, largest: float, dtype: torch.dtype) -> Tensor:
    """The scale, so that neither scale * largest overflows in the dtype, nor 1 / scale."""
    info = torch.finfo(scale.dtype)
    room_for_rounding = 1 - 4 * info.eps
    return scale.clamp(info.tiny, torch.finfo(dtype).max / largest * room_for_rounding)


def _symmetric_codes(bits: int, narrow: bool) -> tuple[int, int]:
    return int(narrow) - 2 ** (bits - 1), 2 ** (bits - 1) - 1


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
    0.1 % of values that lie furthest out, `mse` searches the range with the smallest squared error. Training
    chooses the range again at every step.

    `axis`: None for one scale, or the axis along which each channel has its own (0: the outputs of a
    convolution or a linear layer).

    `gradient`: `identity` lets every gradient through the rounding; `clipped` stops those of values that
    are clipped, which are those that round to a code outside the range. The scale counts as a constant.

    >>> weight = torch.tensor([-1.4, -0.3, 0.2, 0.6])
    >>> int4 = UniformQuantizer(4)
    >>> int4.codes(weight), int4.scale(weight)
    (tensor([-7, -2,  1,  3], dtype=torch.int32), tensor(0.2000))
    >>> int4(weight)
    tensor([-1.4000, -0.4000,  0.2000,  0.6000])
    >>> UniformQuantizer(2, narrow=False).codes(weight)
    tensor([-2,  0,  0,  1], dtype=torch.int32)

    A few outliers stretch the grid until most weights share the code 0: where the zero share is high, try
    `clip="mse"`, an `axis`, or more bits.
    """

    bits: int
    _: KW_ONLY
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
        _require_finite(weight)
        return self.choose(weight).zero_point

    def choose(self, weight: Tensor) -> UniformGrid:
        """The grid for this tensor, without looking whether the tensor is finite."""
        grid = self.spaced(*self.span(weight), weight.dtype)
        if self.symmetric and self.narrow and self.clip in ("absmax", "minmax"):
            return replace(grid, clipped_gradient=False)  # nothing is clipped: training need not keep a mask
        return grid

    def span(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The lowest and the highest value that the grid has to reach, never on the same side of zero."""
        rows = _rows(_arithmetic(weight), self.axis)
        low, high = self._ends(rows)
        if self.clip == "mse" and rows.numel():
            ratio = self._best_ratio(rows, low, high)
            low, high = low * ratio, high * ratio
        return (low.squeeze(0), high.squeeze(0)) if self.axis is None else (low, high)

    def _ends(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        count, clips = rows.shape[1], self.clip == "percentile"
        if self.symmetric or count == 0:
            rank = math.ceil((1 - _CLIPPED_SHARE) * count)
            reach = rows.abs().kthvalue(rank, dim=1)[0] if clips and count else _absmax(rows)
            return -reach, reach
        rank = math.ceil((1 - _CLIPPED_SHARE / 2) * count) if clips else count
        low = rows.kthvalue(count + 1 - rank, dim=1)[0] if clips else rows.amin(1)
        high = rows.kthvalue(rank, dim=1)[0] if clips else rows.amax(1)
        return low.clamp_max(0), high.clamp_min(0)

    def spaced(self, low: Tensor, high: Tensor, dtype: torch.dtype) -> UniformGrid:
        """The grid that reaches from low to high, for tensors of a dtype."""
        if self.symmetric:
            lowest, highest = _symmetric_codes(self.bits, self.narrow)
            steps = -lowest
            scale = torch.maximum(-low, high) / steps
        else:
            lowest, highest = 0, 2**self.bits - 1
            steps = highest
            scale = high / steps - low / steps
        scale = _bounded(scale, steps, dtype)
        zero_point = torch.zeros_like(scale) if self.symmetric else (-low / scale).round().clamp_max(highest)
        return UniformGrid(scale, zero_point.int(), lowest, highest, self.axis, self.gradient == "clipped")

    def _best_ratio(self, rows: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """The share of the range from low to high that has the smallest squared error, for each row."""
        best = torch.ones_like(low)[:, None]
        for factors in _CLIP_RATIOS:
            ratios = best * torch.from_numpy(factors).to(best)
            grids = self.spaced(low[:, None] * ratios, high[:, None] * ratios, rows.dtype)
            best = ratios.gather(1, _squared_errors(rows, grids).argmin(1, keepdim=True))
        return best.squeeze(1)


def _squared_errors(rows: Tensor, grids: UniformGrid) -> Tensor:
    """The squared error of each row on each of its grids, less what is the same for all of them."""
    width = grids.highest - grids.lowest + 1
    if width > rows.shape[1]:  # fewer entries than grid values
        columns = zip(grids.scale.T, grids.zero_point.T, strict=True)
        one_each = [replace(grids, scale=scale, zero_point=zero, axis=0) for scale, zero in columns]
        errors = [(grid(rows) - rows).double().square().sum(1) for grid in one_each]
        return torch.stack(errors, dim=1)
    codes = torch.arange(grids.lowest, grids.highest + 1, device=rows.device)
    ordered = _sorted(rows)
    sums = _sums(ordered)
    size = math.ceil(2**20 / (width * grids.scale.shape[1]))  # few rows at a time: memory stays small
    errors = []
    for start in range(0, len(rows), size):
        own = slice(start, start + size)
        values = (codes - grids.zero_point[own, :, None]) * grids.scale[own, :, None]
        counts, totals = _runs(ordered[own], sums[own], _midpoints(values))
        errors.append((values.double() * (values.double() * counts - 2 * totals)).sum(-1))
    return torch.cat(errors).nan_to_num(nan=math.inf)  # numbers whose squares overflow


class LearnedStepQuantizer(Quantizer, nn.Module):
    """A symmetric uniform quantizer that learns its scale together with the weights (LSQ, Esser et al. 2020).

    `quantize_model` gives each weight its own, fitted to it: a module whose parameter `step` starts at
    2 mean|w| / sqrt(largest code). Make the optimizer after that, so that it holds the steps too. Before it
    is fitted, the quantizer uses the starting value for whatever tensor it is given.

    No gradient passes to values that are clipped, which are those that round to a code outside the range.
    The scale receives, over sqrt(n * largest code), the last code from these, and code - w / scale from all
    others.

    >>> weight = torch.tensor([0.9, -0.3, 0.1, 0.1], requires_grad=True)
    >>> fitted = LearnedStepQuantizer(2).fitted(weight)
    >>> fitted.step
    Parameter containing:
    tensor(0.7000, requires_grad=True)
    >>> fitted(weight).sum().backward()
    >>> weight.grad, fitted.step.grad
    (tensor([1., 1., 1., 1.]), tensor(-0.0714))

    A step that runs away wants a smaller learning rate than the weights, in a parameter group of its own.
    """

    def __init__(self, bits: int, *, axis: int | None = None, narrow: bool = True) -> None:
        super().__init__()
        _require_bits(bits, 16)
        self.bits, self.axis, self.narrow = bits, axis, narrow
        self.step: nn.Parameter | None = None

    def with_bits(self, bits: int) -> "LearnedStepQuantizer":
        """The same quantizer at another width, not fitted."""
        return LearnedStepQuantizer(bits, axis=self.axis, narrow=self.narrow)

    def fitted(self, weight: Tensor) -> "LearnedStepQuantizer":
        """A quantizer of the weight's own, with a step to learn."""
        fitted = self.with_bits(self.bits)
        fitted.step = nn.Parameter(self._start(weight))
        return fitted

    def _start(self, weight: Tensor) -> Tensor:
        rows = _rows(_arithmetic(weight), self.axis)
        mean = (rows.abs() / max(rows.shape[1], 1)).sum(1)
        start = 2 * mean / math.sqrt(2 ** (self.bits - 1) - 1)
        return start.squeeze(0) if self.axis is None else start

    def choose(self, weight: Tensor) -> UniformGrid:
        """The grid for this tensor, without looking whether the tensor is finite."""
        scale = self._start(weight) if self.step is None else self.step.abs()
        lowest, highest = _symmetric_codes(self.bits, self.narrow)
        scale = _bounded(scale, -lowest, weight.dtype)
        return _LearnedGrid(scale, torch.zeros_like(scale, dtype=torch.int32), lowest, highest, self.axis)


@dataclass(frozen=True, eq=False)
class _LearnedGrid(UniformGrid):
    """A uniform grid whose scale receives a gradient."""

    def __call__(self, weight: Tensor) -> Tensor:
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


# ---------------------------------------------------------------- values from a table


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
        return _rows(tensor, self.axis) if self.block is None else _blocks(tensor, self.block)

    def _join(self, rows: Tensor, shape: torch.Size) -> Tensor:
        """The rows put back into the shape that they were split from."""
        if self.axis is None:
            return rows.flatten()[: shape.numel()].view(shape)
        others = [size for at, size in enumerate(shape) if at != self.axis % len(shape)]
        return rows.view(shape[self.axis], *others).movedim(0, self.axis)

    def codes(self, weight: Tensor) -> Tensor:
        """The place in the table of the value nearest to each entry, as int32."""
        rows = self._split(_arithmetic(weight)) / self.scale.view(-1, 1)
        places = torch.searchsorted(_midpoints(self.levels), rows.contiguous(), out_int32=True)
        return self._join(places, weight.shape)

    def dequantize(self, codes: Tensor) -> Tensor:
        """The values of the table that the codes stand for."""
        rows = self._split(codes).long()
        levels = self.levels.expand(len(rows), -1)
        return self._join(levels.gather(1, rows) * self.scale.view(-1, 1), codes.shape)


_LLOYD_STEPS = 1000


@dataclass(frozen=True)
class CodebookQuantizer(Quantizer):
    """2**bits values of the tensor's own, where k-means puts them: zero is in general not among them.

    Lloyd's algorithm in one dimension, from evenly spaced quantiles until nothing moves. `axis` gives each
    channel its own codebook, which costs four bytes a value, so that only long channels pay. The scale is 1.

    >>> CodebookQuantizer(2)(torch.tensor([-3.0, -2.0, 0.1, 0.3, 1.0, 1.2, 4.0]))
    tensor([-2.5000, -2.5000,  0.2000,  0.2000,  1.1000,  1.1000,  4.0000])

    The gradient passes through everywhere. The result is a local optimum, in which a few outliers may share
    one value: where it matters, compare the error that `describe` gives with that of a `UniformQuantizer`
    with `clip="mse"`. Training runs k-means again at every step.
    """

    bits: int
    _: KW_ONLY
    axis: int | None = None

    def __post_init__(self) -> None:
        _require_bits(self.bits, 16)

    def choose(self, weight: Tensor) -> LookupGrid:
        """The grid for this tensor, without looking whether the tensor is finite."""
        rows = _rows(_arithmetic(weight), self.axis)
        one = rows.new_ones(())
        if rows.shape[1] == 0:
            return LookupGrid(rows.new_zeros(len(rows), 2**self.bits), one, self.axis)
        ordered = _sorted(rows)
        sums = _sums(ordered)
        quantiles = (torch.arange(2**self.bits, device=rows.device) + 0.5) / 2**self.bits
        levels = ordered[:, (quantiles * rows.shape[1]).long()]
        for _ in range(_LLOYD_STEPS):
            counts, totals = _runs(ordered, sums, _midpoints(levels))
            means = (totals / counts).to(levels.dtype)
            moved = torch.where(means.isfinite(), means, levels)  # not those of empty runs, nor of overflows
            if torch.equal(moved, levels):
                break
            levels = moved
        # differences of sums carry a rounding error, which can swap values that are all but equal
        return LookupGrid(levels.sort(dim=1)[0], one, self.axis)


@dataclass(frozen=True)
class PowerOfTwoQuantizer(Quantizer):
    """Zero and plus or minus powers of two, so that a product is a shift: fine near zero, coarse far out.

    The largest power is the one nearest to the largest magnitude, each next one is half of it, and there
    are 2**(bits - 1) - 1 of them. `bits` ends at 8, because further powers are below the smallest float.

    >>> PowerOfTwoQuantizer(3)(torch.tensor([0.9, -0.6, 0.2, 0.1, -1.1]))
    tensor([ 1.0000, -0.5000,  0.2500,  0.0000, -1.0000])

    The gradient passes through everywhere. More bits refine only what is near zero: an error that more bits
    do not lower sits in the large weights, and wants another quantizer.
    """

    bits: int

    def __post_init__(self) -> None:
        _require_bits(self.bits, 8)

    def choose(self, weight: Tensor) -> LookupGrid:
        """The grid for this tensor, without looking whether the tensor is finite."""
        rows = _arithmetic(weight).reshape(1, -1)
        powers = 0.5 ** torch.arange(2 ** (self.bits - 1) - 1, dtype=rows.dtype, device=rows.device)
        levels = torch.cat([-powers, powers.new_zeros(1), powers.flip(0)])
        most = torch.finfo(weight.dtype).max / 2
        mantissa, exponent = _absmax(rows).squeeze(0).clamp(torch.finfo(rows.dtype).tiny, most).frexp()
        nearest = exponent - (mantissa < 0.75).int()
        return LookupGrid(levels, torch.ldexp(rows.new_ones(()), nearest))


def _normal_float() -> list[float]:
    """The 16 values of NF4: quantiles of a normal distribution, seven below zero and eight above it."""
    outermost = (31 / 32 + 29 / 30) / 2
    below = -torch.special.ndtri(torch.linspace(outermost, 0.5, 8, dtype=torch.float64)[:-1])
    above = torch.special.ndtri(torch.linspace(0.5, outermost, 9, dtype=torch.float64))
    return (torch.cat([below, above]) / above[-1]).tolist()


_NF4_LEVELS = _normal_float()


@dataclass(frozen=True)
class NF4Quantizer(Quantizer):
    """The 4-bit NormalFloat of QLoRA: quantiles of a normal distribution, with a scale for each block.

    A block is `block` neighbours in memory, and its largest magnitude is the scale; the last block may be
    short. Zero is among the values.

    >>> NF4Quantizer(block=4)(torch.tensor([1.0, -0.5, 0.1, 0.0, 2.0, 0.3]))
    tensor([ 1.0000, -0.5251,  0.0796,  0.0000,  2.0000,  0.3219])

    The gradient passes through everywhere. Where the error is high, a few outliers rule their blocks: take
    smaller blocks, at four bytes for each.
    """

    bits: ClassVar[int] = 4
    _: KW_ONLY
    block: int = 64

    def __post_init__(self) -> None:
        if not isinstance(self.block, int) or self.block < 1:
            raise BadInput(f"block is {self.block!r}; expected a whole number of weights, such as 64.")

    def choose(self, weight: Tensor) -> LookupGrid:
        """The grid for this tensor, without looking whether the tensor is finite."""
        blocks = _blocks(_arithmetic(weight), self.block)
        levels = torch.tensor(_NF4_LEVELS, dtype=blocks.dtype, device=blocks.device)
        scale = _absmax(blocks).clamp_min(torch.finfo(blocks.dtype).tiny)
        return LookupGrid(levels, scale, block=self.block)


# ---------------------------------------------------------------- narrower floating point


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
        scaled = (_arithmetic(weight) / self.scale).clamp_(-largest, largest)
        return scaled.to(self.format).view(self._pattern).int()

    def dequantize(self, codes: Tensor) -> Tensor:
        """The numbers that the bit patterns stand for."""
        return codes.to(self._pattern).view(self.format).to(self.scale.dtype) * self.scale


_FORMATS = {
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp8": torch.float8_e4m3fn,
    "fp8-e5m2": torch.float8_e5m2,
}


@dataclass(frozen=True)
class FloatQuantizer(Quantizer):
    """A narrower floating-point format: `fp16`, `bf16`, `fp8` (four bits of exponent) or `fp8-e5m2` (five).

    The 8-bit formats have a scale that puts the largest magnitude on their largest number, as hardware does.
    The 16-bit formats have none; what is beyond their largest number becomes that number.

    >>> FloatQuantizer("bf16")(torch.tensor([1.001, 3.14159]))
    tensor([1.0000, 3.1406])
    >>> FloatQuantizer("fp8")(torch.tensor([448.0, 100.0, 31.0]))
    tensor([448.,  96.,  32.])

    The gradient passes through everywhere. Zeros that `fp16` makes of small weights come back with `bf16`,
    which has the range of float32.
    """

    format: str

    def __post_init__(self) -> None:
        if self.format not in _FORMATS:
            raise BadInput(f"format is {self.format!r}; choose one of {', '.join(_FORMATS)}.")

    @property
    def bits(self) -> int:
        """The width of the format."""
        return torch.finfo(_FORMATS[self.format]).bits

    def choose(self, weight: Tensor) -> FloatGrid:
        """The grid for this tensor, without looking whether the tensor is finite."""
        rows, format = _arithmetic(weight).reshape(1, -1), _FORMATS[self.format]
        if self.bits == 16:
            return FloatGrid(rows.new_ones(()), format)
        largest = torch.finfo(format).max
        return FloatGrid(_bounded(_absmax(rows).squeeze(0) / largest, largest, weight.dtype), format)


# ---------------------------------------------------------------- the two halves of an ablation


@dataclass(frozen=True, eq=False)
class _HalfGrid(Grid):
    """A grid of which only the zero is used, or only the rest; the other weights stay free."""

    scale: Tensor
    whole: Grid
    zero_bin: bool
    free_bits: int

    @property
    def bits(self) -> int:
        return self.free_bits

    @property
    def nbytes(self) -> int:
        return 0

    def codes(self, weight: Tensor) -> Tensor:
        raise BadInput("half of an ablation has no codes, because some weights stay free; use its values.")

    def dequantize(self, codes: Tensor) -> Tensor:
        return self.codes(codes)

    def __call__(self, weight: Tensor) -> Tensor:
        values = self.whole(weight)
        return torch.where((values == 0) == self.zero_bin, values, weight)


@dataclass(frozen=True)
class _Half(Quantizer):
    """One half of the ablation that `only_zero_bin` and `all_but_zero_bin` make."""

    whole: Quantizer
    zero_bin: bool

    def with_bits(self, bits: int) -> "_Half":
        return replace(self, whole=self.whole.with_bits(bits))

    def choose(self, weight: Tensor) -> _HalfGrid:
        grid = self.whole.choose(weight)
        return _HalfGrid(grid.scale, grid, self.zero_bin, torch.finfo(weight.dtype).bits)


def only_zero_bin(quantizer: Quantizer) -> Quantizer:
    """Zero what the quantizer would zero, and leave the other weights as they are.

    Together with `all_but_zero_bin` it splits the harm of quantization in two: small weights lost, and the
    others rounded. Give either to `quantize_model`; `describe` then counts the weights as unpacked.

    >>> only_zero_bin(UniformQuantizer(2))(torch.tensor([1.0, 0.8, -0.3]))
    tensor([1.0000, 0.8000, 0.0000])
    """
    return _Half(quantizer, zero_bin=True)


def all_but_zero_bin(quantizer: Quantizer) -> Quantizer:
    """Round what the quantizer would not zero, and leave the small weights as they are.

    >>> all_but_zero_bin(UniformQuantizer(2))(torch.tensor([1.0, 0.8, -0.3]))
    tensor([ 1.0000,  1.0000, -0.3000])
    """
    return _Half(quantizer, zero_bin=False)


# ---------------------------------------------------------------- models


class _FakeQuantized(nn.Module):
    """The parametrization that puts a weight on its grid whenever the weight is read."""

    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        self.quantizer = quantizer

    def forward(self, weight: Tensor) -> Tensor:
        return self.quantizer.choose(weight)(weight)


class _InputQuantizer(nn.Module):
    """What rounds the inputs of a layer, on a range that is fixed once the calibration batches are seen."""

    low: Tensor
    high: Tensor

    def __init__(self, quantizer: UniformQuantizer) -> None:
        super().__init__()
        self.quantizer = quantizer
        self.calibrating = True
        self.seen = False
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))

    def grid(self) -> UniformGrid:
        return self.quantizer.spaced(self.low, self.high, self.low.dtype)

    def forward(self, values: Tensor) -> Tensor:
        if not self.calibrating:
            return self.grid()(values)
        _require_finite(values)
        low, high = self.quantizer.span(values)
        self.low, self.high = torch.minimum(self.low, low), torch.maximum(self.high, high)
        self.seen = True
        return values


class _Place(NamedTuple):
    """Where a weight lives in a model."""

    layer: str
    module: nn.Module
    tensor: str

    @property
    def name(self) -> str:
        return f"{self.layer}.{self.tensor}".removeprefix(".")

    @property
    def is_parametrized(self) -> bool:
        return parametrize.is_parametrized(self.module, self.tensor)

    @property
    def original(self) -> nn.Parameter:
        """The free parameter."""
        if self.is_parametrized:
            return self.module.parametrizations[self.tensor].original  # type: ignore[index,union-attr]
        return getattr(self.module, self.tensor)

    @property
    def quantizer(self) -> Quantizer:
        """What a parametrized weight is rounded with."""
        return self.module.parametrizations[self.tensor][0].quantizer  # type: ignore[index,union-attr]


def _places(model: nn.Module) -> Iterator[_Place]:
    """All weights that can be quantized, in the order of the modules; a tied weight once for each place."""
    for layer, module in model.named_modules():
        if isinstance(module, nn.modules.conv._ConvNd | nn.Linear | nn.Embedding | nn.EmbeddingBag):
            yield _Place(layer, module, "weight")
        elif isinstance(module, nn.MultiheadAttention):  # its output projection is a Linear of its own
            for tensor in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"):
                if getattr(module, tensor) is not None:
                    yield _Place(layer, module, tensor)


def _weights(model: nn.Module) -> list[_Place]:
    """The first place of each weight that can be quantized."""
    first: dict[int, _Place] = {}
    for place in _places(model):
        first.setdefault(id(place.original), place)
    return list(first.values())


Model = TypeVar("Model", bound=nn.Module)


def quantize_model(
    model: Model,
    quantizer: Quantizer | None,
    *,
    first_last: int | None = None,
    activations: tuple[UniformQuantizer, Iterable[Tensor]] | None = None,
) -> Model:
    """A copy of the model whose weights are rounded whenever they are read; the model itself is untouched.

    The copy keeps the full-precision weights as its free parameters. Evaluate it, or `bake` it, and it is
    post-training quantization; train it, and it is quantization-aware training.

    Quantized are the weights of convolutions, linear layers, attention projections and embeddings. Biases,
    normalisation, recurrent layers and free parameters stay as they are; `describe` lists what was reached.
    A weight that two layers share is one weight.

    `first_last`: another number of bits for the first and the last of these weights, often 8.

    `activations`: a quantizer and batches to calibrate it on, as in
    `activations=(UniformQuantizer(8, symmetric=False), batches)`. The inputs of convolutions, linear layers
    and attention are then rounded too, on one grid a layer, which reaches as far as the widest range that
    any of the batches asks for. Inputs of layers that the batches do not reach stay as they are, and so does
    what attention computes inside. With `quantizer=None` only the inputs are rounded.

    >>> layer = torch.nn.Linear(2, 1, bias=False)
    >>> _ = layer.weight.data.copy_(torch.tensor([[1.4, -0.3]]))
    >>> quantized = quantize_model(layer, UniformQuantizer(4))
    >>> quantized.weight.data, layer.weight.data
    (tensor([[ 1.4000, -0.4000]]), tensor([[ 1.4000, -0.3000]]))
    """
    model = copy.deepcopy(model)
    places = list(_places(model))
    if not places:
        raise BadInput("the model has no convolution, linear layer, attention or embedding to quantize.")
    if any(place.is_parametrized for place in places):
        raise BadInput("the model is quantized or parametrized already; bake it, or start from the original.")
    if quantizer is not None:
        outer = quantizer if first_last is None else quantizer.with_bits(first_last)
        ends = {id(places[0].original), id(places[-1].original)}
        fitted: dict[int, _FakeQuantized] = {}
        for place in places:
            weight = place.original
            _require_finite(weight)
            if id(weight) not in fitted:
                chosen = outer if id(weight) in ends else quantizer
                fitted[id(weight)] = _FakeQuantized(chosen.fitted(weight))
            # unsafe leaves out a trial run, which would double the time of a search for the best range
            parametrize.register_parametrization(place.module, place.tensor, fitted[id(weight)], unsafe=True)
    if activations is not None:
        _quantize_inputs(model, *activations)
    return model


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradient, each weight rounded once, and every module's mode put back."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad(), parametrize.cached():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _quantize_inputs(model: nn.Module, quantizer: UniformQuantizer, batches: Iterable[Tensor]) -> None:
    """Round what goes into each layer, on a grid for what the batches send into it."""
    if not isinstance(quantizer, UniformQuantizer) or quantizer.axis is not None:
        raise BadInput(f"activations got {quantizer}; expected a UniformQuantizer with axis=None.")
    inputs = {}
    for layer in dict.fromkeys(place.module for place in _places(model)):
        if not isinstance(layer, nn.Embedding | nn.EmbeddingBag):  # their inputs are whole numbers
            layer.input_quantizer = _InputQuantizer(quantizer)
            hook = layer.register_forward_pre_hook(_round_inputs, with_kwargs=True)
            inputs[layer] = layer.input_quantizer, hook
    with _evaluating(model):
        for batch in batches:
            model(batch)
    if not any(rounds.seen for rounds, _ in inputs.values()):
        raise BadInput("activations got no batch that reaches a layer; give at least one batch of inputs.")
    for layer, (rounds, hook) in inputs.items():
        rounds.calibrating = False
        if not rounds.seen:
            hook.remove()
            del layer.input_quantizer


def _round_inputs(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    """Round the input of a layer, or the query, key and value of attention; masks and sizes stay."""
    rounds: Any = layer.input_quantizer
    names = {"input", "query", "key", "value"}
    signals = [rounds(value) if isinstance(value, Tensor) else value for value in args[:3]]
    named = {name: rounds(value) if name in names else value for name, value in kwargs.items()}
    return (*signals, *args[3:]), named


def bake(model: Model) -> Model:
    """A copy of the model with the rounded weights in place of the free ones, for good.

    `describe` and `storage_bytes` go on telling what was baked. Rounding of inputs stays, on its fixed range.

    >>> layer = torch.nn.Linear(2, 1, bias=False)
    >>> _ = layer.weight.data.copy_(torch.tensor([[1.4, -0.3]]))
    >>> bake(quantize_model(layer, UniformQuantizer(4))).weight.data
    tensor([[ 1.4000, -0.4000]])
    """
    rows = _rows_of_weights(model)
    model = copy.deepcopy(model)
    places = [place for place in _places(model) if place.is_parametrized]
    with torch.no_grad():
        # all values before any is written: a tied weight must not be rounded twice
        values = [(place.original, getattr(place.module, place.tensor)) for place in places]
        for module in {place.module for place in places}:
            # copies of a parametrized module share its class, from which the removal deletes the attribute
            kind = type(module)
            module.__class__ = type(kind.__name__, kind.__bases__, dict(kind.__dict__))
        for place in places:
            parametrize.remove_parametrizations(place.module, place.tensor, leave_parametrized=False)
        for weight, value in values:
            weight.copy_(value)
    setattr(model, _BAKED, rows)
    return model


_BAKED = "quantized_weights"  # where a baked model keeps what `describe` says of its weights


def describe(model: nn.Module) -> pd.DataFrame:
    """What was quantized: a row for each weight, and one for each layer whose inputs are rounded.

    `layer`; `shape`; `bits` of a code; `lowest` and `highest`, the outermost codes that weights have; `scale`
    (the median, where there are several); `zero_share` (of weights that are exactly zero); `error` (root
    mean square of the rounding error over that of the weights); `bytes` (packed codes with their scales, zero
    points and tables). A baked model tells what it was baked from. An input has no shape, codes, zero share
    or error of its own.

    >>> layer = torch.nn.Linear(2, 1, bias=False)
    >>> _ = layer.weight.data.copy_(torch.tensor([[1.4, -0.3]]))
    >>> describe(quantize_model(layer, UniformQuantizer(4))).round(3)
        layer   shape  bits  lowest  highest  scale  zero_share  error  bytes
    0  weight  (1, 2)     4      -2        7    0.2         0.0   0.07      5

    An error near 1 means that hardly anything is left of the layer.
    """
    table = _table(model)
    if table.empty:
        raise BadInput("nothing in the model is quantized; describe what quantize_model or bake returned.")
    return table


def _table(model: nn.Module) -> pd.DataFrame:
    rows = _rows_of_weights(model)
    for name, module in model.named_modules():
        if isinstance(module, _InputQuantizer):
            rows.append(_row(name.removesuffix("_quantizer"), module.grid()))
    columns = ["layer", "shape", "bits", "lowest", "highest", "scale", "zero_share", "error", "bytes"]
    return pd.DataFrame(rows, columns=columns)


def _rows_of_weights(model: nn.Module) -> list[dict[str, Any]]:
    rows = [_row_of_weight(place) for place in _weights(model) if place.is_parametrized]
    return rows or list(getattr(model, _BAKED, []))


def _row(layer: str, grid: Grid) -> dict[str, Any]:
    return {"layer": layer, "bits": grid.bits, "scale": float(grid.scale.median()), "bytes": grid.nbytes}


@torch.no_grad()
def _row_of_weight(place: _Place) -> dict[str, Any]:
    grid = place.quantizer.grid(place.original)
    values, weight = _arithmetic(grid(place.original)), _arithmetic(place.original)
    norm = float(weight.norm())
    has_codes = weight.numel() and not isinstance(grid, _HalfGrid)
    ends = grid.codes(place.original).aminmax() if has_codes else ()
    return _row(place.name, grid) | {
        "shape": tuple(weight.shape),
        "zero_share": _zeros(values) / max(values.numel(), 1),
        "error": float((values - weight).norm()) / norm if norm else 0.0,
        "bytes": math.ceil(weight.numel() * grid.bits / 8) + grid.nbytes,
        "grid": grid,
        **{name: int(code) for name, code in zip(("lowest", "highest"), ends, strict=False)},
    }


def grids(model: nn.Module) -> dict[str, Grid]:
    """The grid of each quantized weight by its name, of a baked model too; of a tied one by its first name.

    >>> layer = torch.nn.Linear(2, 1, bias=False)
    >>> _ = layer.weight.data.copy_(torch.tensor([[1.4, -0.3]]))
    >>> baked = bake(quantize_model(layer, UniformQuantizer(4)))
    >>> grids(baked)["weight"].codes(baked.weight)
    tensor([[ 7, -2]], dtype=torch.int32)
    """
    return {row["layer"]: row["grid"] for row in _rows_of_weights(model) if "grid" in row}


def _zeros(values: Tensor) -> int:
    return values.numel() - int(values.count_nonzero())


@torch.no_grad()
def zero_share(model: nn.Module) -> pd.Series:
    """The share of weights that are exactly zero, by layer and, as `total`, over all that can be quantized.

    Works on any model, quantized, baked or neither.

    >>> layer = torch.nn.Linear(2, 1, bias=False)
    >>> _ = layer.weight.data.copy_(torch.tensor([[1.4, -0.3]]))
    >>> zero_share(quantize_model(layer, UniformQuantizer(2)))
    weight    0.5
    total     0.5
    Name: zero_share, dtype: float64
    """
    values = {place.name: getattr(place.module, place.tensor) for place in _weights(model)}
    shares = {name: _zeros(value) / max(value.numel(), 1) for name, value in values.items()}
    total = sum(map(_zeros, values.values())) / max(sum(value.numel() for value in values.values()), 1)
    return pd.Series(shares | {"total": total}, name="zero_share")


def storage_bytes(model: nn.Module) -> int:
    """What the model takes with its codes packed: quantized weights as `describe` says, the rest as it is.

    >>> layer = torch.nn.Linear(1000, 10)  # 10,000 weights and 10 biases of four bytes
    >>> storage_bytes(layer), storage_bytes(quantize_model(layer, UniformQuantizer(4)))
    (40040, 5044)
    """
    table = _table(model)
    packed = set(table["layer"])
    counted: list[Tensor] = [place.original for place in _weights(model) if place.name in packed]
    for module in model.modules():
        if isinstance(module, _FakeQuantized | _InputQuantizer):
            counted += [*module.parameters(), *module.buffers()]
    unpacked = {id(tensor): tensor.nbytes for tensor in (*model.parameters(), *model.buffers())}
    for tensor in counted:
        unpacked.pop(id(tensor), None)
    return int(table["bytes"].sum()) + sum(unpacked.values())


def reestimate_batchnorm(model: Model, batches: Iterable[Tensor]) -> Model:
    """A copy of the model whose batch-norm statistics are the averages over the batches.

    Rounded weights change what reaches a batch norm, so the statistics of the full-precision network no
    longer fit. Batches count by their size. Small batches give poor variances: make them as large as in
    training. Everything but the batch norms runs in evaluation mode.

    >>> norm = torch.nn.BatchNorm1d(1)
    >>> reestimate_batchnorm(norm, [torch.tensor([[1.0], [3.0]])]).running_mean
    tensor([2.])
    """
    model = copy.deepcopy(model)
    kind = nn.modules.batchnorm._BatchNorm
    norms = [module for module in model.modules() if isinstance(module, kind) and module.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    seen = 0
    with _evaluating(model):
        for norm in norms:
            norm.train()
        for batch in batches:
            seen += len(batch)
            for norm in norms:
                norm.momentum = len(batch) / seen  # makes the running average that of all examples so far
            model(batch)
    if not seen:
        raise BadInput("batches holds no batch; give at least one batch of inputs.")
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return model
