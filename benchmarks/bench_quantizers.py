"""Quantization-aware training against plain training and brevitas, and the search for the best range."""

import contextlib
import math
import warnings
from collections.abc import Callable, Iterator
from statistics import median
from time import perf_counter

import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from benchmarks import scaled
from fairq_utils.quantization.models import quantize_model
from fairq_utils.quantization.quantizers import UniformQuantizer


def _seconds(work: Callable[[], object]) -> float:
    start = perf_counter()
    work()
    return perf_counter() - start


def _interleaved(works: list[Callable[[], object]], rounds: int) -> list[list[float]]:
    """Seconds of each work, round after round, so that noise of the machine meets all alike."""
    for work in works:
        work()  # warm-up
    return [
        list(times)
        for times in zip(*([_seconds(work) for work in works] for _ in range(rounds)), strict=True)
    ]


def _ratio(times: list[float], peers: list[float]) -> float:
    return median(mine / theirs for mine, theirs in zip(times, peers, strict=True))


def _training_step(model: nn.Module, batch: int) -> Callable[[], None]:
    images, labels = torch.randn(batch, 3, 64, 64), torch.randint(5, (batch,))
    optimizer = torch.optim.SGD(model.train().parameters(), lr=0.01, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()

    return step


def _with_brevitas(model: nn.Module) -> nn.Module:
    """The model with brevitas' layers for int4 weights."""
    from brevitas.nn import QuantConv2d, QuantLinear
    from brevitas.quant import Int8WeightPerTensorFloat

    options = {"weight_quant": Int8WeightPerTensorFloat, "weight_bit_width": 4}
    for name, layer in list(model.named_modules()):
        if isinstance(layer, nn.Conv2d):
            sizes = layer.in_channels, layer.out_channels, layer.kernel_size
            like = {"stride": layer.stride, "padding": layer.padding, "bias": False}
            model.set_submodule(name, QuantConv2d(*sizes, **like, **options))
        elif isinstance(layer, nn.Linear):
            model.set_submodule(
                name, QuantLinear(layer.in_features, layer.out_features, bias=True, **options)
            )
    return model


def cases(scale: float = 1.0) -> Iterator[dict]:
    torch.manual_seed(0)
    batch = scaled(128, scale)
    model = resnet18(num_classes=5)
    steps = [_training_step(quantize_model(model, UniformQuantizer(4)), batch), _training_step(model, batch)]
    with contextlib.suppress(ImportError):
        steps.append(_training_step(_with_brevitas(resnet18(num_classes=5)), batch))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Named tensors")  # which brevitas takes
        ours, plain, *brevitas = _interleaved(steps, rounds=scaled(7, scale))
    case = f"training step of ResNet18, batch {batch}, 64x64, int4 weights"
    yield {
        "case": case,
        "measured": _ratio(ours, plain),
        "unit": "x",
        "limit": 1.15,
        "peer": "the plain training step",
        "note": f"plain {median(plain):.2f} s",
    }
    yield {
        "case": f"{case}, brevitas' own ratio",
        "measured": _ratio(*brevitas, plain) if brevitas else math.nan,
        "unit": "x",
        "limit": None,
        "peer": "the plain training step",
        "note": "Int8WeightPerTensorFloat at four bits"
        if brevitas
        else "brevitas is not installed: make peers",
    }

    weights = [p.detach() for p in model.parameters() if p.dim() > 1]
    for axis, scales in ((None, "one scale a tensor"), (0, "one scale a channel")):
        search, whole = (UniformQuantizer(4, clip=clip, axis=axis) for clip in ("mse", "absmax"))
        spans = [lambda q=q: _spans(q, weights) for q in (search, whole)]
        searched, plain = _interleaved(spans, rounds=scaled(5, scale))
        yield {
            "case": f"search of the mse range of all ResNet18 weights at int4, {scales}",
            "measured": median(searched),
            "unit": "s",
            "limit": 2.0,
            "peer": "abs-max",
            "note": f"{_ratio(searched, plain):.0f} x the abs-max range",
        }


def _spans(quantizer: UniformQuantizer, weights: list[Tensor]) -> None:
    for weight in weights:
        quantizer.span(weight)
