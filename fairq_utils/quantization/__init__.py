"""Round weights and activations: grids, quantizers, whole models, and files."""

from fairq_utils.quantization.controls import all_but_zero_bin, coarser, only_clip, only_round, only_zero_bin
from fairq_utils.quantization.grids import FloatGrid, Grid, LookupGrid, UniformGrid
from fairq_utils.quantization.models import (
    bake,
    describe,
    grids,
    quantize_model,
    reestimate_batchnorm,
    storage_bytes,
    zero_share,
)
from fairq_utils.quantization.onnx import export_onnx
from fairq_utils.quantization.packing import load_packed, pack_codes, save_packed, unpack_codes
from fairq_utils.quantization.quantizers import (
    CodebookQuantizer,
    FloatQuantizer,
    LearnedStepQuantizer,
    NF4Quantizer,
    PowerOfTwoQuantizer,
    Quantizer,
    UniformQuantizer,
)

__all__ = [
    "CodebookQuantizer",
    "FloatGrid",
    "FloatQuantizer",
    "Grid",
    "LearnedStepQuantizer",
    "LookupGrid",
    "NF4Quantizer",
    "PowerOfTwoQuantizer",
    "Quantizer",
    "UniformGrid",
    "UniformQuantizer",
    "all_but_zero_bin",
    "bake",
    "coarser",
    "describe",
    "export_onnx",
    "grids",
    "load_packed",
    "only_clip",
    "only_round",
    "only_zero_bin",
    "pack_codes",
    "quantize_model",
    "reestimate_batchnorm",
    "save_packed",
    "storage_bytes",
    "unpack_codes",
    "zero_share",
]
