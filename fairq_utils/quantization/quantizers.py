"""How the grid of a weight tensor is chosen: eight families of quantizers."""

import math
from abc import ABC, abstractmethod
from dataclasses import KW_ONLY, dataclass, fields, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fairq_utils.errors import BadInput
from fairq_utils.quantization.grids import (
    FloatGrid,
    Grid,
    LearnedGrid,
    LookupGrid,
    UniformGrid,
    as_blocks,
    as_rows,
    midpoints,
    working_precision,
)


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
        require_finite(weight)
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
        """This quantizer at another width."""
        if "bits" not in {field.name for field in fields(self)}:  # type: ignore[arg-type]
            raise BadInput(f"first_last is {bits}, but {self} has one width only; leave first_last out.")
        return replace(self, bits=bits)  # type: ignore[type-var]

    def fitted(self, weight: Tensor) -> "Quantizer":
        """The quantizer that serves this one weight; itself, unless it learns."""
        return self


def require_finite(tensor: Tensor) -> None:
    """Refuse a tensor that is not of floating point, or not finite."""
    if not tensor.is_floating_point():
        raise BadInput(f"the tensor holds {tensor.dtype}; expected floating point: convert it first.")
    if not _absmax(tensor.detach().reshape(1, -1)).isfinite():
        raise BadInput("the tensor holds NaN or infinity; expected finite numbers: find what diverged.")


def _require_bits(bits: int, highest: int) -> None:
    if not isinstance(bits, int) or not 2 <= bits <= highest:
        raise BadInput(f"bits is {bits!r}; expected a whole number from 2 to {highest}.")


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


def _sums(ordered: Tensor) -> Tensor:
    """The sum of the first 0, 1, 2, ... entries of each row."""
    return functional.pad(ordered.cumsum(1, dtype=torch.float64), (1, 0))


def _runs(ordered: Tensor, sums: Tensor, boundaries: Tensor) -> tuple[Tensor, Tensor]:
    """How many entries of each sorted row lie between the boundaries, and what they sum to."""
    cuts = torch.searchsorted(ordered, boundaries.flatten(1)).view(boundaries.shape)
    cuts = functional.pad(functional.pad(cuts, (1, 0)), (0, 1), value=ordered.shape[1])
    return cuts.diff(), sums.gather(1, cuts.flatten(1)).view(cuts.shape).diff()


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
        require_finite(weight)
        return self.choose(weight).zero_point

    def choose(self, weight: Tensor) -> UniformGrid:
        """The grid for this tensor, without looking whether the tensor is finite."""
        grid = self.spaced(*self.span(weight), weight.dtype)
        if self.symmetric and self.narrow and self.clip in ("absmax", "minmax"):
            return replace(grid, clipped_gradient=False)  # nothing is clipped: training need not keep a mask
        return grid

    def span(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The lowest and the highest value that the grid has to reach, never on the same side of zero."""
        rows = as_rows(working_precision(weight), self.axis)
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
        counts, totals = _runs(ordered[own], sums[own], midpoints(values))
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
        """This quantizer at another width, not fitted."""
        return LearnedStepQuantizer(bits, axis=self.axis, narrow=self.narrow)

    def fitted(self, weight: Tensor) -> "LearnedStepQuantizer":
        """A quantizer of the weight's own, with a step to learn."""
        fitted = self.with_bits(self.bits)
        fitted.step = nn.Parameter(self._start(weight))
        return fitted

    def _start(self, weight: Tensor) -> Tensor:
        rows = as_rows(working_precision(weight), self.axis)
        mean = (rows.abs() / max(rows.shape[1], 1)).sum(1)
        start = 2 * mean / math.sqrt(2 ** (self.bits - 1) - 1)
        return start.squeeze(0) if self.axis is None else start

    def choose(self, weight: Tensor) -> UniformGrid:
        """The grid for this tensor, without looking whether the tensor is finite."""
        scale = self._start(weight) if self.step is None else self.step.abs()
        lowest, highest = _symmetric_codes(self.bits, self.narrow)
        scale = _bounded(scale, -lowest, weight.dtype)
        return LearnedGrid(scale, torch.zeros_like(scale, dtype=torch.int32), lowest, highest, self.axis)


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
        rows = as_rows(working_precision(weight), self.axis)
        one = rows.new_ones(())
        if rows.shape[1] == 0:
            return LookupGrid(rows.new_zeros(len(rows), 2**self.bits), one, self.axis)
        ordered = _sorted(rows)
        sums = _sums(ordered)
        quantiles = (torch.arange(2**self.bits, device=rows.device) + 0.5) / 2**self.bits
        levels = ordered[:, (quantiles * rows.shape[1]).long()]
        for _ in range(_LLOYD_STEPS):
            counts, totals = _runs(ordered, sums, midpoints(levels))
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
        rows = working_precision(weight).reshape(1, -1)
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
        blocks = as_blocks(working_precision(weight), self.block)
        levels = torch.tensor(_NF4_LEVELS, dtype=blocks.dtype, device=blocks.device)
        scale = _absmax(blocks).clamp_min(torch.finfo(blocks.dtype).tiny)
        return LookupGrid(levels, scale, block=self.block)


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
        rows, format = working_precision(weight).reshape(1, -1), _FORMATS[self.format]
        if self.bits == 16:
            return FloatGrid(rows.new_ones(()), format)
        largest = torch.finfo(format).max
        return FloatGrid(_bounded(_absmax(rows).squeeze(0) / largest, largest, weight.dtype), format)
