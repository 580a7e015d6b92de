"""Take a quantized network out of the project: a file of packed codes, or ONNX for other runtimes."""

import copy
import json
import os
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
from fairq_utils.quantization.grids import FloatGrid, Grid, LookupGrid, UniformGrid
from fairq_utils.quantization.models import (
    BAKED,
    InputQuantizer,
    bake,
    grids,
    round_inputs_of,
    rows_of_weights,
)
from fairq_utils.quantization.quantizers import UniformQuantizer

Model = TypeVar("Model", bound=nn.Module)


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
    >>> from fairq_utils.quantization.models import quantize_model, storage_bytes
    >>> network = quantize_model(nn.Linear(1000, 10), UniformQuantizer(3))
    >>> path = Path(tempfile.mkdtemp()) / "network.safetensors"
    >>> save_packed(network, path)
    >>> storage_bytes(network), path.stat().st_size < 5000
    (3794, True)
    """
    packed = packed_grids(network)
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
        if isinstance(module, InputQuantizer)
    }
    header = {
        "version": _VERSION,
        "weights": weights,
        "ties": ties,
        "inputs": inputs,
        "described": [
            {key: value for key, value in row.items() if key != "grid"} for row in rows_of_weights(baked)
        ],
    }
    text = json.dumps(header, sort_keys=True, separators=(",", ":"))
    write_atomically(Path(path), safetensors.torch.save(tensors, {_HEADER: text}))


def packed_grids(network: nn.Module) -> dict[str, Grid]:
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
    >>> from fairq_utils.quantization.models import describe, quantize_model
    >>> path = Path(tempfile.mkdtemp()) / "network.safetensors"
    >>> network = quantize_model(nn.Linear(1000, 10), UniformQuantizer(3))
    >>> save_packed(network, path)
    >>> loaded = load_packed(path, into=nn.Linear(1000, 10))
    >>> torch.equal(loaded.weight, network.weight), describe(loaded).equals(describe(network))
    (True, True)
    """
    path = Path(path)
    if any(
        isinstance(module, InputQuantizer) or parametrize.is_parametrized(module) for module in into.modules()
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
    setattr(network, BAKED, described)
    return network


def _round_inputs_of(layer: nn.Module, quantizer: UniformQuantizer, low: Tensor | None) -> None:
    rounds = InputQuantizer(quantizer)
    rounds.calibrating, rounds.seen = False, True
    if low is not None:
        rounds.to(next(layer.parameters(), low).device, low.dtype)
    layer.input_quantizer = rounds
    layer.register_forward_pre_hook(round_inputs_of, with_kwargs=True)


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
