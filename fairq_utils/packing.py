"""Take a quantized network out of the project: a file of packed codes, or ONNX for other runtimes."""

import copy
import json
import os
import re
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from fairq_utils.errors import BadInput
from fairq_utils.files import write_atomically
from fairq_utils.quantizers import (
    _BAKED,
    FloatGrid,
    Grid,
    LookupGrid,
    UniformGrid,
    UniformQuantizer,
    _InputQuantizer,
    _places,
    _round_inputs,
    _rows_of_weights,
    bake,
    grids,
)

Model = TypeVar("Model", bound=nn.Module)

# ---------------------------------------------------------------- codes as bits


def pack_codes(codes: Tensor, bits: int) -> Tensor:
    """The codes one after the other, each in so many bits, as bytes.

    Little endian throughout: the lowest bit of the first code is the lowest bit of the first byte, and a
    code may begin in one byte and end in the next. Negative codes are two's complements. What is left of
    the last byte is zero.

    >>> pack_codes(torch.tensor([1, 2, 3, -1]), 3)  # 0b11_010_001 and 0b1111_0
    tensor([209,  14], dtype=torch.uint8)
    """
    words = codes.cpu().flatten().numpy().astype("<i4").view(np.uint8).reshape(-1, 4)
    each = np.unpackbits(words, axis=1, bitorder="little")[:, :bits]
    return torch.from_numpy(np.packbits(each, bitorder="little"))


def unpack_codes(packed: Tensor, bits: int, *, count: int, signed: bool) -> Tensor:
    """The codes that `pack_codes` packed, as int32.

    >>> unpack_codes(torch.tensor([209, 14], dtype=torch.uint8), 3, count=4, signed=True)
    tensor([ 1,  2,  3, -1], dtype=torch.int32)
    >>> unpack_codes(torch.tensor([209], dtype=torch.uint8), 3, count=4, signed=True)
    Traceback (most recent call last):
        ...
    fairq_utils.errors.BadInput: 1 bytes for 4 codes of 3 bits; expected 2: take the bytes that pack_codes
    gave.
    """
    expected = -(-count * bits // 8)
    if packed.dtype != torch.uint8 or packed.numel() != expected:
        raise BadInput(
            f"{packed.nbytes} bytes for {count} codes of {bits} bits; expected {expected}: "
            "take the bytes that pack_codes gave."
        )
    each = np.unpackbits(packed.numpy(), count=count * bits, bitorder="little").reshape(count, bits)
    words = np.packbits(np.pad(each, ((0, 0), (0, 32 - bits))), axis=1, bitorder="little")
    codes = words.view("<i4").reshape(count).astype(np.int32)
    if signed:
        codes -= (codes >> (bits - 1)) << bits
    return torch.from_numpy(codes)


# ---------------------------------------------------------------- a file of packed codes

_HEADER = "fairq-packed"
_VERSION = 1


def save_packed(network: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write the network to a safetensors file in which every code takes its own number of bits.

    The network is what `quantize_model` or `bake` returned. A weight `w` becomes `w:codes` (as `pack_codes`
    packs them), `w:scale`, and where its grid has them `w:zero_point` (uint16) or `w:levels`, its codebook.
    Tables that many weights share are there once. The rest is as it is: biases, normalisation, weights that
    stay free, and the ranges of rounded inputs. Under the key `fairq-packed` the header tells, as JSON, the
    grid, shape, axis and dtype of each weight.

    The data are as long as `storage_bytes` says, but for shared tables and the ranges of inputs.

    >>> import tempfile
    >>> from fairq_utils.quantizers import quantize_model, storage_bytes
    >>> network = quantize_model(nn.Linear(1000, 10), UniformQuantizer(3))
    >>> path = Path(tempfile.mkdtemp()) / "network.safetensors"
    >>> save_packed(network, path)
    >>> storage_bytes(network), path.stat().st_size < 5000
    (3794, True)
    """
    packed = _packed(network)
    tensors: dict[str, Tensor] = {}
    weights: dict[str, dict[str, Any]] = {}
    ties: dict[str, str] = {}
    first: dict[int, str] = {}
    baked = bake(network)
    for name, tensor in baked.state_dict(keep_vars=True).items():
        known = first.setdefault(id(tensor), name)
        if known != name:
            ties[name] = known
        elif name in packed:
            weights[name] = _put(name, tensor.detach(), packed[name], tensors)
        else:
            # a clone, because safetensors refuses tensors that share their memory
            tensors[name] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    inputs = {
        name.rpartition(".")[0]: asdict(module.quantizer)
        for name, module in baked.named_modules()
        if isinstance(module, _InputQuantizer)
    }
    header = {
        "version": _VERSION,
        "weights": weights,
        "ties": ties,
        "inputs": inputs,
        "described": [
            {key: value for key, value in row.items() if key != "grid"} for row in _rows_of_weights(baked)
        ],
    }
    text = json.dumps(header, sort_keys=True, separators=(",", ":"))
    write_atomically(Path(path), safetensors.torch.save(tensors, {_HEADER: text}))


def _packed(network: nn.Module) -> dict[str, Grid]:
    """The grids that save something: half of an ablation leaves weights as long as they are."""
    return {name: grid for name, grid in grids(network).items() if grid.bits <= 16}


@torch.no_grad()
def _put(name: str, weight: Tensor, grid: Grid, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Add what stands for a weight to the tensors, and return what the header says of it."""
    about: dict[str, Any] = {
        "shape": list(weight.shape),
        "dtype": str(weight.dtype).removeprefix("torch."),
        "bits": grid.bits,
    }
    codes = grid.codes(weight)
    if not torch.equal(grid.dequantize(codes).to(weight.dtype), weight):
        raise BadInput(
            f"{name} has left the grid of {grid.bits} bits that it was baked on; expected the values that "
            "bake left: quantize the network again."
        )
    tensors[f"{name}:codes"] = pack_codes(codes, grid.bits)
    scale = grid.scale.detach().cpu().contiguous()
    if isinstance(grid, UniformGrid):
        about |= {"grid": "uniform", "lowest": grid.lowest, "highest": grid.highest, "axis": grid.axis}
        tensors[f"{name}:scale"] = scale
        if grid.lowest == 0:
            tensors[f"{name}:zero_point"] = grid.zero_point.cpu().to(torch.uint16)
    elif isinstance(grid, LookupGrid):
        levels = grid.levels.cpu().contiguous()
        about |= {"grid": "lookup", "axis": grid.axis, "block": grid.block}
        if levels.dim() > 1:  # the weight's own, and the scale is 1
            about["levels"] = f"{name}:levels"
            tensors[f"{name}:levels"] = levels
        else:
            about["levels"] = f":levels:{'' if grid.block else 'powers:'}{grid.bits}:{about['dtype']}"
            tensors[about["levels"]] = levels
            tensors[f"{name}:scale"] = scale
    elif isinstance(grid, FloatGrid):
        about |= {"grid": "float", "format": str(grid.format).removeprefix("torch.")}
        if grid.nbytes:
            tensors[f"{name}:scale"] = scale
    else:
        raise BadInput(
            f"{name} is on a {type(grid).__name__}; expected a UniformGrid, LookupGrid or FloatGrid: "
            "quantize it with a quantizer of this package."
        )
    return about


def _take(name: str, about: dict[str, Any], tensors: dict[str, Tensor]) -> tuple[Grid, Tensor]:
    """The grid and the weight that `_put` added."""
    dtype = getattr(torch, about["dtype"])
    one = torch.ones((), dtype=torch.float64 if dtype == torch.float64 else torch.float32)
    scale = tensors.get(f"{name}:scale", one)
    grid: Grid
    if about["grid"] == "uniform":
        zero_point = tensors.get(f"{name}:zero_point", torch.zeros_like(scale)).int()
        grid = UniformGrid(scale, zero_point, about["lowest"], about["highest"], about["axis"])
    elif about["grid"] == "lookup":
        grid = LookupGrid(tensors[about["levels"]], scale, about["axis"], about["block"])
    else:
        grid = FloatGrid(scale, getattr(torch, about["format"]))
    shape = torch.Size(about["shape"])
    signed = about["grid"] == "uniform" and about["lowest"] < 0
    codes = unpack_codes(tensors[f"{name}:codes"], about["bits"], count=shape.numel(), signed=signed)
    return grid, grid.dequantize(codes.view(shape)).to(dtype)


def load_packed(path: str | os.PathLike[str], *, into: Model) -> Model:
    """A copy of the network `into` that holds what `save_packed` wrote; the network itself is untouched.

    The values are those of the saved network, baked, bit for bit; inputs that it rounds are rounded again,
    and `describe` says the same. `into` is a plain network of the same architecture, trained or not.

    >>> import tempfile
    >>> from fairq_utils.quantizers import describe, quantize_model
    >>> path = Path(tempfile.mkdtemp()) / "network.safetensors"
    >>> network = quantize_model(nn.Linear(1000, 10), UniformQuantizer(3))
    >>> save_packed(network, path)
    >>> loaded = load_packed(path, into=nn.Linear(1000, 10))
    >>> torch.equal(loaded.weight, network.weight), describe(loaded).equals(describe(network))
    (True, True)
    """
    path = Path(path)
    if any(
        isinstance(module, _InputQuantizer) or parametrize.is_parametrized(module)
        for module in into.modules()
    ):
        raise BadInput("into is quantized already; expected a plain network: build it anew.")
    header, tensors = _read(path)
    try:
        taken = {name: _take(name, about, tensors) for name, about in header["weights"].items()}
        state = {name: weight for name, (_, weight) in taken.items()}
        state |= {name: tensor for name, tensor in tensors.items() if ":" not in name}
        state |= {name: state[known] for name, known in header["ties"].items()}
        inputs = {layer: UniformQuantizer(**options) for layer, options in header["inputs"].items()}
        described = [row | {"shape": tuple(row["shape"])} for row in header["described"]]
        for row in described:
            row |= {"grid": taken[row["layer"]][0]} if row["layer"] in taken else {}
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise BadInput(
            f"{path} is damaged; expected a file as save_packed wrote it: save it again."
        ) from error
    network = copy.deepcopy(into)
    modules = dict(network.named_modules())
    for layer, quantizer in inputs.items():
        if layer in modules:
            _round_inputs_of(
                modules[layer], quantizer, state.get(f"{layer}.input_quantizer.low".removeprefix("."))
            )
    _require_same(path, state, network.state_dict())
    network.load_state_dict(state)
    setattr(network, _BAKED, described)
    return network


def _round_inputs_of(layer: nn.Module, quantizer: UniformQuantizer, low: Tensor | None) -> None:
    rounds = _InputQuantizer(quantizer)
    rounds.calibrating, rounds.seen = False, True
    if low is not None:
        rounds.to(next(layer.parameters(), low).device, low.dtype)
    layer.input_quantizer = rounds
    layer.register_forward_pre_hook(_round_inputs, with_kwargs=True)


def _require_same(path: Path, saved: dict[str, Tensor], own: dict[str, Tensor]) -> None:
    """Refuse a network that has other tensors than the file, or tensors of another kind."""

    def kind(tensor: Tensor | None) -> str:
        if tensor is None:
            return "nothing"
        return f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"

    for name in (*saved, *own):
        ours, theirs = kind(own.get(name)), kind(saved.get(name))
        if ours != theirs:
            raise BadInput(
                f"{path} holds another architecture: {name} is {theirs} there and {ours} in the network "
                "given; build the network with the arguments of the one that was saved."
            )


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The header and the tensors of a file that `save_packed` wrote."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except OSError as error:
        raise BadInput(
            f"{path} cannot be read; expected a file that save_packed wrote: check the path."
        ) from error
    except safetensors.SafetensorError as error:
        raise BadInput(
            f"{path} is cut short or no safetensors file; expected what save_packed wrote: copy it again."
        ) from error
    try:
        header = json.loads(metadata[_HEADER])
        version = header["version"]
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(f"{path} was not written by save_packed; give a file that was.") from error
    if version != _VERSION:
        raise BadInput(
            f"{path} has version {version} of the format; expected {_VERSION}: save it with this package."
        )
    return header, tensors


# ---------------------------------------------------------------- ONNX


class _StoredWeight(nn.Module):
    """The parametrization that reads a weight from its codes, as ONNX does."""

    codes: Tensor
    scale: Tensor
    zero_point: Tensor

    def __init__(self, grid: UniformGrid, weight: Tensor) -> None:
        super().__init__()
        kind = _code_dtype(grid)
        self.attributes: dict[str, Any] = {} if grid.axis is None else {"axis": grid.axis % weight.dim()}
        self.register_buffer("codes", grid.codes(weight).to(kind))
        self.register_buffer("scale", grid.scale.detach())
        self.register_buffer("zero_point", grid.zero_point.to(kind))

    def forward(self, weight: Tensor) -> Tensor:
        parts = (self.codes, self.scale, self.zero_point)
        return torch.onnx.ops.symbolic(
            "DequantizeLinear", parts, self.attributes, dtype=self.scale.dtype, shape=self.codes.shape
        )


class _RoundedInput(nn.Module):
    """What rounds the inputs of a layer, as ONNX does."""

    scale: Tensor
    zero_point: Tensor

    def __init__(self, grid: UniformGrid) -> None:
        super().__init__()
        kind = _code_dtype(grid)
        self.register_buffer("scale", grid.scale.detach())
        self.register_buffer("zero_point", grid.zero_point.to(kind))
        steps = torch.tensor([grid.lowest, grid.highest]) - grid.zero_point
        self.range = (steps * grid.scale.detach()).tolist()
        # ONNX clips at the ends of the 8-bit type by itself
        self.clips = (grid.lowest, grid.highest) != (torch.iinfo(kind).min, torch.iinfo(kind).max)

    def forward(self, values: Tensor) -> Tensor:
        if self.clips:
            values = values.clamp(*self.range)
        grid = self.scale, self.zero_point
        kind, shape = self.zero_point.dtype, values.shape
        codes = torch.onnx.ops.symbolic("QuantizeLinear", (values, *grid), dtype=kind, shape=shape)
        return torch.onnx.ops.symbolic("DequantizeLinear", (codes, *grid), dtype=values.dtype, shape=shape)


def _code_dtype(grid: UniformGrid) -> torch.dtype:
    return torch.uint8 if grid.lowest == 0 else torch.int8


def export_onnx(network: nn.Module, path: str | os.PathLike[str], *, example: Tensor) -> None:
    """Write the network as ONNX, which other runtimes execute.

    Weights of evenly spaced values stay whole numbers of 8 bits, however few of these they use, each
    followed by a DequantizeLinear node. Where inputs of layers are rounded, a QuantizeLinear and a
    DequantizeLinear node stand in front of the layer. All else, and a network that is not quantized, is in
    float32.

    `example`: a batch of inputs; only the shape of one of them matters. The exported network, in evaluation
    mode, takes batches of any size under the name `images` and returns `logits`.

    The values of the file are those of the network, and so are its predictions, but for the order of sums;
    where inputs are rounded, that now and then moves one by a step. A runtime may round further:
    onnxruntime takes the inputs of matrix products in 8 bits, unless its session option
    `session.qdq_matmulnbits_accuracy_level` is "1". On a transformer that is easily seen.

    Codebooks, powers of two, NF4, narrow floats and more than 8 bits are refused: `save_packed` takes them.
    Needs the packages that `pip install fairq-utils[onnx]` adds.
    """
    try:
        import onnx_ir.passes.common as passes
        from onnxscript import optimizer
    except ImportError as error:
        raise BadInput(f"ONNX needs the package {error.name}; run pip install fairq-utils[onnx].") from error
    if not isinstance(example, Tensor) or example.dim() == 0 or len(example) == 0:
        raise BadInput("example is no batch of inputs; give a tensor that the network takes.")
    stored = _stored_network(network)
    batch = torch.cat([example[:1].cpu()] * 2)  # a batch of one would fix the size at one
    with torch.no_grad(), warnings.catch_warnings():
        # torch warns of a class of its own
        warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning)
        try:
            program = torch.onnx.export(
                stored,
                (batch,),
                dynamo=True,
                verbose=False,
                optimize=False,  # it would compute the float weights and store these; see below
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
            )
        except torch.onnx.OnnxExporterError as error:
            raise BadInput(
                "torch cannot express this network in ONNX; expected one that torch.export takes, and an "
                "example that the network takes: save_packed takes every network."
            ) from error
    model = program.model  # type: ignore[union-attr] # None only without dynamo
    kept = {"DequantizeLinear", "Split"}  # of Split the optimizer logs that it cannot fold it
    optimizer.optimize_ir(model, should_fold=lambda node: False if node.op_type in kept else None)
    for value in list(model.graph.initializers.values()):
        value.name = re.sub(r"parametrizations\.(\w+)\.0\.", r"\1:", value.name)  # as save_packed names them
    passes.RemoveUnusedNodesPass()(model)  # among them the float weights, which nothing reads any more
    passes.ClearMetadataAndDocStringPass()(model)  # the traces of calls, with the paths of this machine
    write_atomically(Path(path), program.model_proto.SerializeToString())  # type: ignore[union-attr]


def _stored_network(network: nn.Module) -> nn.Module:
    """A copy of the network that reads its weights from codes and rounds inputs as ONNX does."""
    network = copy.deepcopy(network).cpu()
    packed = _packed(network)
    stored = bake(network).eval()
    if any(p.is_floating_point() and p.dtype != torch.float32 for p in stored.parameters()):
        raise BadInput("the network is not in float32; expected that for ONNX: convert it with .float().")
    exportable = {name: _exportable(name, grid) for name, grid in packed.items()}
    places = list(_places(stored))
    readers = {
        id(place.original): _StoredWeight(exportable[place.name], place.original)
        for place in places
        if place.name in exportable
    }
    for place, reader in [(place, readers.get(id(place.original))) for place in places]:
        if reader is not None:  # unsafe leaves out a trial run, whose values would mean nothing
            parametrize.register_parametrization(place.module, place.tensor, reader, unsafe=True)
    for name, module in list(stored.named_modules()):
        if isinstance(module, _InputQuantizer):
            grid = _exportable(name.removesuffix("_quantizer"), module.grid())
            stored.get_submodule(name.rpartition(".")[0]).input_quantizer = _RoundedInput(grid)
    return stored


def _exportable(name: str, grid: Grid) -> UniformGrid:
    """The grid, if ONNX has it."""
    if isinstance(grid, UniformGrid) and grid.bits <= 8:
        return grid
    kinds: dict[type, str] = {LookupGrid: "values from a table", FloatGrid: "narrow floating point"}
    kind = kinds.get(type(grid), "evenly spaced values")
    raise BadInput(
        f"{name} has codes of {grid.bits} bits for {kind}; ONNX takes evenly spaced values of at most 8 "
        "bits, as UniformQuantizer and LearnedStepQuantizer make them: quantize so, or use "
        "save_packed, which takes every width."
    )
