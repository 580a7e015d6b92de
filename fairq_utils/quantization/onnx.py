"""Write a rounded network as an ONNX file that stores its codes."""

import copy
import os
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from fairq_utils.errors import BadInput
from fairq_utils.files import write_atomically
from fairq_utils.quantization.grids import FloatGrid, Grid, LookupGrid, UniformGrid
from fairq_utils.quantization.models import InputQuantizer, bake, places_of_weights
from fairq_utils.quantization.packing import packed_grids


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
    Needs the packages that `pip install fairq-utils[models]` adds.
    """
    try:
        import onnx_ir.passes.common as passes
        from onnxscript import optimizer
    except ImportError as error:
        raise BadInput(
            f"ONNX needs the package {error.name}; run pip install 'fairq-utils[models]'."
        ) from error
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
    packed = packed_grids(network)
    stored = bake(network).eval()
    if any(p.is_floating_point() and p.dtype != torch.float32 for p in stored.parameters()):
        raise BadInput("the network is not in float32; expected that for ONNX: convert it with .float().")
    exportable = {name: _exportable(name, grid) for name, grid in packed.items()}
    places = list(places_of_weights(stored))
    readers = {
        id(place.original): _StoredWeight(exportable[place.name], place.original)
        for place in places
        if place.name in exportable
    }
    for place, reader in [(place, readers.get(id(place.original))) for place in places]:
        if reader is not None:  # unsafe leaves out a trial run, whose values would mean nothing
            parametrize.register_parametrization(place.module, place.tensor, reader, unsafe=True)
    for name, module in list(stored.named_modules()):
        if isinstance(module, InputQuantizer):
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
