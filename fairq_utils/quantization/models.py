"""Round the weights of a whole model, describe what was rounded, and count what it takes to store."""

import copy
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from fairq_utils.errors import BadInput
from fairq_utils.quantization.grids import Grid, HalfGrid, UniformGrid, working_precision
from fairq_utils.quantization.quantizers import Quantizer, UniformQuantizer, require_finite


class _FakeQuantized(nn.Module):
    """The parametrization that puts a weight on its grid whenever the weight is read."""

    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        self.quantizer = quantizer

    def forward(self, weight: Tensor) -> Tensor:
        return self.quantizer.choose(weight)(weight)


class InputQuantizer(nn.Module):
    """What rounds the inputs of a layer, on a range that is fixed once the calibration batches are seen.

    With `axis=0` the range is dynamic: each example has its own, chosen when it comes.
    """

    low: Tensor
    high: Tensor

    def __init__(self, quantizer: UniformQuantizer) -> None:
        super().__init__()
        self.quantizer = quantizer
        self.calibrating = True
        self.seen = False
        self.dynamic = quantizer.axis is not None
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))

    def grid(self) -> UniformGrid:
        """The grid of the range that was seen."""
        if self.dynamic:
            raise BadInput("The range is dynamic: a grid for each example; expected one that is fixed.")
        return self.quantizer.spaced(self.low, self.high, self.low.dtype)

    def forward(self, values: Tensor) -> Tensor:
        """The values on the grid; while calibrating, the values as they are, whose range is noted."""
        if not self.calibrating:
            return self.quantizer.choose(values)(values) if self.dynamic else self.grid()(values)
        require_finite(values)
        if not self.dynamic:
            low, high = self.quantizer.span(_some(values) if self.quantizer.clip != "absmax" else values)
            self.low, self.high = torch.minimum(self.low, low), torch.maximum(self.high, high)
        self.seen = True
        return values


_ENOUGH = 2**16  # values of a batch that tell a percentile, or the range with the least squared error


def _some(values: Tensor) -> Tensor:
    """Values from all over the batch, about as many as tell its range; a search among all takes minutes."""
    flat = values.reshape(-1)
    return flat[:: max(len(flat) // _ENOUGH, 1)]


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


def places_of_weights(model: nn.Module) -> Iterator[_Place]:
    """All weights that can be quantized, in the order of the modules; a tied weight once for each place."""
    for layer, module in model.named_modules():
        if isinstance(module, nn.modules.conv._ConvNd | nn.Linear | nn.Embedding | nn.EmbeddingBag):
            yield _Place(layer, module, "weight")
        elif isinstance(module, nn.MultiheadAttention):  # its output projection is a Linear of its own
            for tensor in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"):
                if getattr(module, tensor) is not None:
                    yield _Place(layer, module, tensor)


def weight_parameters(model: nn.Module) -> list[_Place]:
    """The first place of each weight that can be quantized."""
    first: dict[int, _Place] = {}
    for place in places_of_weights(model):
        first.setdefault(id(place.original), place)
    return list(first.values())


Model = TypeVar("Model", bound=nn.Module)


def quantize_model(
    model: Model,
    quantizer: Quantizer | None,
    *,
    first_last: int | None = None,
    bits: Mapping[str, int] | None = None,
    activations: tuple[UniformQuantizer, Iterable[Tensor]] | None = None,
) -> Model:
    """A copy of the model whose weights are rounded whenever they are read; the model itself is untouched.

    The copy keeps the full-precision weights as its free parameters. Evaluate it, or `bake` it, and it is
    post-training quantization; train it, and it is quantization-aware training.

    Quantized are the weights of convolutions, linear layers, attention projections and embeddings. Biases,
    normalisation, recurrent layers and free parameters stay as they are; `describe` lists what was reached.
    A weight that two layers share is one weight.

    `first_last`: another number of bits for the first and the last of these weights, often 8.

    `bits`: another number of bits for some weights, by the names that `describe` gives them.

    `activations`: a quantizer and batches to calibrate it on, as in
    `activations=(UniformQuantizer(8, symmetric=False), batches)`. The inputs of convolutions, linear layers
    and attention are then rounded too, on one grid a layer, which reaches as far as the widest range that
    any of the batches asks for; with `clip="percentile"` or `"mse"` each batch is asked by 65,536 of its
    values or a few more. With `axis=0` ranges are dynamic: a grid for each example, chosen when it comes.
    Inputs of layers that the batches do not reach stay as they are, and so does what attention computes
    inside. With `quantizer=None` only the inputs are rounded.

    >>> layer = torch.nn.Linear(2, 1, bias=False)
    >>> _ = layer.weight.data.copy_(torch.tensor([[1.4, -0.3]]))
    >>> quantized = quantize_model(layer, UniformQuantizer(4))
    >>> quantized.weight.data, layer.weight.data
    (tensor([[ 1.4000, -0.4000]]), tensor([[ 1.4000, -0.3000]]))
    """
    model = copy.deepcopy(model)
    places = list(places_of_weights(model))
    if not places:
        raise BadInput("the model has no convolution, linear layer, attention or embedding to quantize.")
    if any(place.is_parametrized for place in places):
        raise BadInput("the model is quantized or parametrized already; bake it, or start from the original.")
    if quantizer is not None:
        others = {} if first_last is None else dict.fromkeys((places[0].name, places[-1].name), first_last)
        others |= bits or {}
        if unknown := others.keys() - {place.name for place in places}:
            raise BadInput(
                f"bits are given of {sorted(unknown)[0]!r}; expected of: "
                f"{', '.join(place.name for place in places)}."
            )
        chosen = {
            id(place.original): quantizer.with_bits(others[place.name])
            for place in places
            if place.name in others
        }
        fitted: dict[int, _FakeQuantized] = {}
        for place in places:
            weight = place.original
            require_finite(weight)
            if id(weight) not in fitted:
                fitted[id(weight)] = _FakeQuantized(chosen.get(id(weight), quantizer).fitted(weight))
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
    if not isinstance(quantizer, UniformQuantizer) or quantizer.axis not in (None, 0):
        raise BadInput(f"activations got {quantizer}; expected a UniformQuantizer with axis=None, or 0.")
    inputs = {}
    for layer in dict.fromkeys(place.module for place in places_of_weights(model)):
        if not isinstance(layer, nn.Embedding | nn.EmbeddingBag):  # their inputs are whole numbers
            layer.input_quantizer = InputQuantizer(quantizer)
            hook = layer.register_forward_pre_hook(round_inputs_of, with_kwargs=True)
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


def round_inputs_of(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
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
    rows = rows_of_weights(model)
    model = copy.deepcopy(model)
    places = [place for place in places_of_weights(model) if place.is_parametrized]
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
    setattr(model, BAKED, rows)
    return model


BAKED = "quantized_weights"  # where a baked model keeps what `describe` says of its weights


def describe(model: nn.Module) -> pd.DataFrame:
    """What was quantized: a row for each weight, and one for each layer whose inputs are rounded.

    `layer`; `shape`; `bits` of a code; `lowest` and `highest`, the outermost codes that weights have; `scale`
    (the median, where there are several); `zero_share` (of weights that are exactly zero); `error` (root
    mean square of the rounding error over that of the weights); `bytes` (packed codes with their scales, zero
    points and tables). A baked model tells what it was baked from. An input has no shape, codes, zero share
    or error of its own, and where its range is dynamic no scale.

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
    rows = rows_of_weights(model)
    for name, module in model.named_modules():
        if isinstance(module, InputQuantizer):
            layer = name.removesuffix("_quantizer")
            dynamic = {"layer": layer, "bits": module.quantizer.bits, "scale": math.nan, "bytes": 0}
            rows.append(dynamic if module.dynamic else _row(layer, module.grid()))
    columns = ["layer", "shape", "bits", "lowest", "highest", "scale", "zero_share", "error", "bytes"]
    return pd.DataFrame(rows, columns=columns)


def rows_of_weights(model: nn.Module) -> list[dict[str, Any]]:
    """What is known of each weight that is, or was, rounded."""
    rows = [_row_of_weight(place) for place in weight_parameters(model) if place.is_parametrized]
    return rows or list(getattr(model, BAKED, []))


def _row(layer: str, grid: Grid) -> dict[str, Any]:
    return {"layer": layer, "bits": grid.bits, "scale": float(grid.scale.median()), "bytes": grid.nbytes}


@torch.no_grad()
def _row_of_weight(place: _Place) -> dict[str, Any]:
    grid = place.quantizer.grid(place.original)
    values, weight = working_precision(grid(place.original)), working_precision(place.original)
    norm = float(weight.norm())
    has_codes = weight.numel() and not isinstance(grid, HalfGrid)
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
    return {row["layer"]: row["grid"] for row in rows_of_weights(model) if "grid" in row}


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
    values = {place.name: getattr(place.module, place.tensor) for place in weight_parameters(model)}
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
    counted: list[Tensor] = [place.original for place in weight_parameters(model) if place.name in packed]
    for module in model.modules():
        if isinstance(module, _FakeQuantized | InputQuantizer):
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
