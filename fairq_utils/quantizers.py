"""Put the weights of a network on a grid: value objects that round, and verbs that apply them to a model.

A *quantizer* says how a grid is chosen, a *grid* is what was chosen for one tensor, and *codes* are the
whole numbers a quantized network would store. Quantizers are called on tensors and return tensors of the
same shape and dtype. float64 is computed in float64; float32, bfloat16 and float16 in float32.

Every quantizer refuses tensors that hold NaN or infinity. Empty tensors stay empty, tensors of zeros stay
zeros, and so does what is smaller than half the smallest normal number.
"""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, ClassVar, NamedTuple, Self, TypeVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from fairq_utils.errors import BadInput


class _StraightThrough(torch.autograd.Function):
    """Return `values`; the gradient goes to `weight` where `inside` is true (everywhere if it is None).

    A `scale` that is learned receives the gradient times `slope`, the derivative of the values.
    """

    @staticmethod
    def forward(
        weight: Tensor,
        values: Tensor,
        inside: Tensor | None = None,
        scale: Tensor | None = None,
        slope: Tensor | None = None,
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


def _require_finite(tensor: Tensor) -> None:
    if not tensor.is_floating_point():
        raise BadInput(f"the tensor holds {tensor.dtype}; expected floating point: convert it first.")
    # the largest magnitude is NaN or infinite if any entry is, and takes a fifth of the time of torch.isfinite
    if tensor.numel() and not torch.linalg.vector_norm(tensor.detach(), math.inf).isfinite():
        raise BadInput("the tensor holds NaN or infinity; expected finite numbers: find the step that diverged.")


def _require_bits(bits: int, highest: int) -> None:
    if not isinstance(bits, int) or not 2 <= bits <= highest:
        raise BadInput(f"bits is {bits!r}; expected a whole number from 2 to {highest}.")


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
        raise BadInput(f"{self} has a width of its own, so first_last={bits} has no meaning; leave it out.")

    def fitted(self, weight: Tensor) -> Self:
        """The quantizer that serves this one weight; itself, unless it learns."""
        return self


def _arithmetic(weight: Tensor) -> Tensor:
    """The tensor without gradient, in the precision that grids are computed in."""
    return weight.detach() if weight.dtype == torch.float64 else weight.detach().float()


def _rows(tensor: Tensor, axis: int | None) -> Tensor:
    """One row for each channel along the axis, or one row in all."""
    if axis is None:
        return tensor.reshape(1, -1)
    if not -tensor.dim() <= axis < tensor.dim():
        raise BadInput(f"axis is {axis}, the tensor has {tensor.dim()} axes; choose one of these, or None.")
    return tensor.movedim(axis, 0).flatten(1) if tensor.dim() > 1 else tensor.unsqueeze(1)


def _sorted(rows: Tensor) -> Tensor:
    """Each row in ascending order."""
    if rows.is_cpu:  # NumPy's vectorised sort takes a thirtieth of the time of torch's
        return torch.from_numpy(np.sort(rows.numpy(), axis=1))
    return rows.sort(dim=1).values


def _sums(ordered: Tensor) -> Tensor:
    """The sum of the first 0, 1, 2, ... entries of each row."""
    return functional.pad(ordered.cumsum(1, dtype=torch.float64), (1, 0))


def _runs(ordered: Tensor, sums: Tensor, boundaries: Tensor) -> tuple[Tensor, Tensor]:
    """How many entries of each sorted row lie between the boundaries, and their sums: no pass over the rows."""
    cuts = torch.searchsorted(ordered, boundaries.flatten(1)).view(boundaries.shape)
    cuts = functional.pad(functional.pad(cuts, (1, 0)), (0, 1), value=ordered.shape[1])
    return cuts.diff(), sums.gather(1, cuts.flatten(1)).view(cuts.shape).diff()


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
        """Four bytes a scale, and for an affine grid two bytes a zero point."""
        return self.scale.numel() * (6 if self.lowest == 0 else 4)

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
        return _StraightThrough.apply(weight, values, inside, None, None)


# One of them is within 4.4 % of the best ratio between 1 and 1/256, and near its minimum the error is flat.
_CLIP_RATIOS = (2 ** -np.linspace(0, 8, 65)).tolist()
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

    def with_bits(self, bits: int) -> "UniformQuantizer":
        """The same quantizer at another width."""
        return replace(self, bits=bits)

    def choose(self, weight: Tensor) -> UniformGrid:
        """The grid for this tensor, without looking whether the tensor is finite."""
        return self.spaced(*self.span(weight), weight.dtype)

    def span(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The lowest and the highest value that the grid has to reach, never on the same side of zero."""
        rows = _rows(_arithmetic(weight), self.axis)
        low, high = self._ends(rows)
        if self.clip == "mse" and rows.numel():
            ratio = self._best_ratio(rows, low, high)
            low, high = low * ratio, high * ratio
        return (low.squeeze(0), high.squeeze(0)) if self.axis is None else (low, high)

    def _ends(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        count = rows.shape[1]
        if count == 0:
            return rows.new_zeros(len(rows)), rows.new_zeros(len(rows))
        if self.symmetric:
            if self.clip == "percentile":
                reach = rows.abs().kthvalue(math.ceil((1 - _CLIPPED_SHARE) * count), dim=1).values
            else:
                reach = torch.linalg.vector_norm(rows, math.inf, dim=1)
            return -reach, reach
        if self.clip == "percentile":
            rank = math.ceil((1 - _CLIPPED_SHARE / 2) * count)
            low, high = rows.kthvalue(count + 1 - rank, dim=1).values, rows.kthvalue(rank, dim=1).values
        else:
            low, high = rows.amin(1), rows.amax(1)
        return low.clamp_max(0), high.clamp_min(0)

    def spaced(self, low: Tensor, high: Tensor, dtype: torch.dtype) -> UniformGrid:
        """The grid that reaches from low to high, for tensors of a dtype."""
        if self.symmetric:
            lowest, highest = int(self.narrow) - 2 ** (self.bits - 1), 2 ** (self.bits - 1) - 1
            steps = -lowest
            scale = torch.maximum(-low, high) / steps
        else:
            lowest, highest = 0, 2**self.bits - 1
            steps = highest
            scale = high / steps - low / steps
        # The largest grid value must not overflow, nor 1/scale; four epsilons outlast the rounding of both.
        info = torch.finfo(scale.dtype)
        scale = scale.clamp(info.tiny, torch.finfo(dtype).max / steps * (1 - 4 * info.eps))
        zero_point = (-low / scale).round().clamp_max(highest) if lowest == 0 else torch.zeros_like(scale)
        return UniformGrid(scale, zero_point.int(), lowest, highest, self.axis, self.gradient == "clipped")

    def _best_ratio(self, rows: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """The share of the range from low to high that has the smallest squared error, for each row."""
        ratios = torch.tensor(_CLIP_RATIOS, dtype=rows.dtype, device=rows.device)
        grids = self.spaced(low[:, None] * ratios, high[:, None] * ratios, rows.dtype)
        errors = _squared_errors(rows, grids).nan_to_num(nan=math.inf)  # of numbers whose squares overflow
        return ratios[errors.argmin(1)]


def _squared_errors(rows: Tensor, grids: UniformGrid) -> Tensor:
    """The squared error of each row on each of its grids, less what is the same for all of them."""
    width = grids.highest - grids.lowest + 1
    if width > rows.shape[1]:
        columns = zip(grids.scale.T, grids.zero_point.T, strict=True)
        one_each = [replace(grids, scale=scale, zero_point=zero_point, axis=0) for scale, zero_point in columns]
        return torch.stack([(grid(rows) - rows).square().sum(1) for grid in one_each], dim=1)
    codes = torch.arange(grids.lowest, grids.highest + 1, device=rows.device)
    ordered = _sorted(rows)
    sums = _sums(ordered)
    size = math.ceil(2**20 / (width * grids.scale.shape[1]))  # few rows at a time: they stay in the cache
    errors = []
    for part in torch.arange(len(rows)).split(size):
        own = slice(int(part[0]), int(part[-1]) + 1)
        values = (codes - grids.zero_point[own, :, None]) * grids.scale[own, :, None]
        counts, totals = _runs(ordered[own], sums[own], values[..., :-1] + values.diff() / 2)
        errors.append((values.double() * (values * counts - 2 * totals)).sum(-1))
    return torch.cat(errors)


class _FakeQuantized(nn.Module):
    """The parametrization that puts a weight on its grid whenever the weight is read."""

    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        self.quantizer = quantizer

    def forward(self, weight: Tensor) -> Tensor:
        return self.quantizer.choose(weight)(weight)


class _InputQuantizer(nn.Module):
    """A quantizer for the inputs of a layer, whose range is fixed once it has seen the calibration batches."""

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
    def quantizer(self) -> Quantizer | None:
        if not parametrize.is_parametrized(self.module, self.tensor):
            return None
        return self.module.parametrizations[self.tensor][0].quantizer  # type: ignore[index,union-attr,return-value]

    @property
    def original(self) -> nn.Parameter:
        """The free parameter."""
        if not parametrize.is_parametrized(self.module, self.tensor):
            return getattr(self.module, self.tensor)
        return self.module.parametrizations[self.tensor].original  # type: ignore[index,union-attr,return-value]


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
    """Each weight that can be quantized once, tied or not."""
    return list({id(place.original): place for place in reversed(list(_places(model)))}.values())[::-1]


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
    if any(parametrize.is_parametrized(place.module, place.tensor) for place in places):
        raise BadInput("the model is quantized or parametrized already; bake it, or start from the original.")
    if quantizer is not None:
        ends = {id(places[0].original), id(places[-1].original)} if first_last is not None else set()
        for place in places:
            weight = place.original
            chosen = quantizer.with_bits(first_last) if first_last and id(weight) in ends else quantizer
            _require_finite(weight)
            parametrization = _FakeQuantized(chosen.fitted(weight))
            # unsafe leaves out a trial run, which a search for the best range would double
            parametrize.register_parametrization(place.module, place.tensor, parametrization, unsafe=True)
    if activations is not None:
        _quantize_inputs(model, *activations)
    return model


def bake(model: Model) -> Model:
    """A copy of the model with the rounded weights in place of the free ones, for good.

    `describe` and `storage_bytes` go on telling what was baked. Rounding of inputs stays, on its fixed range.
    """
    table = describe(model)
    model = copy.deepcopy(model)
    places = [place for place in _places(model) if place.quantizer is not None]
    with torch.no_grad():
        # all values before any is written: a tied weight must not be rounded twice
        values = [(place.original, getattr(place.module, place.tensor)) for place in places]
        for place in places:
            parametrize.remove_parametrizations(place.module, place.tensor, leave_parametrized=False)
        for weight, value in values:
            weight.copy_(value)
    setattr(model, _TABLE, table)
    return model


_TABLE = "quantization_table"


def describe(model: nn.Module) -> pd.DataFrame:
    """What was quantized, a row for each weight, and for each layer whose inputs are rounded.

    `layer`; `shape`; `bits` of a code; `scale` (the median, where there are several); `zero_share` (the share
    of weights that are exactly zero); `error` (root mean square of the rounding error over that of the
    weights); `bytes` (packed codes with their scales, zero points and tables). A baked model tells what it
    was baked from.
    """
    rows = [_describe(place) for place in _weights(model) if place.quantizer is not None]
    if not rows and hasattr(model, _TABLE):
        return getattr(model, _TABLE).copy()
    return pd.DataFrame(rows)


@torch.no_grad()
def _describe(place: _Place) -> dict[str, Any]:
    assert place.quantizer is not None
    weight = place.original
    grid = place.quantizer.grid(weight)
    values = grid(weight)
    return {
        "layer": place.name,
        "shape": tuple(weight.shape),
        "bits": grid.bits,
        "scale": float(grid.scale.median()),
        "zero_share": float((values == 0).float().mean()),
        "error": float((values - weight).norm() / weight.norm()),
        "bytes": math.ceil(weight.numel() * grid.bits / 8) + grid.nbytes,
    }


def zero_share(model: nn.Module) -> pd.Series:
    """The share of weights that are exactly zero, by layer and, as `total`, over all that can be quantized."""
    weights = _weights(model)
    with torch.no_grad():
        zeros = {place.name: int((getattr(place.module, place.tensor) == 0).sum()) for place in weights}
    sizes = {place.name: place.original.numel() for place in weights}
    shares = pd.Series(zeros) / pd.Series(sizes)
    shares["total"] = sum(zeros.values()) / sum(sizes.values())
    return shares.rename("zero_share")
