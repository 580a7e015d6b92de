"""Take part of what rounding does to a network, or do as much to other weights: controls, never deployed."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from fairq_utils.data.datasets import Dataset
from fairq_utils.errors import BadInput
from fairq_utils.quantization.controls import only_clip, only_round, only_zero_bin
from fairq_utils.quantization.models import zero_share
from fairq_utils.quantization.quantizers import UniformQuantizer
from fairq_utils.treatments.treatment import FP32, Treatment

KINDS = {
    "zeros": "the zero bin emptied, all other weights as they are",
    "random": "as many weights of each tensor set to zero, drawn at random",
    "norm": "weights drawn at random and set to zero until as much is taken, in squared length",
    "largest": "the largest weights set to zero until as much is taken, in squared length",
    "global": "as many weights set to zero, the smallest of the whole network",
    "midrise": "evenly spaced values at half steps, zero not among them",
    "clipped": "weights beyond the range cut off, and none rounded",
    "unclipped": "weights rounded to the steps of the range, and none cut off",
}
_HALVES = {"clipped": only_clip, "unclipped": only_round}


@dataclass(frozen=True)
class Ablation:
    """What is done instead of a treatment, to tell which part of it does the harm. Goes where it goes.

    `treatment`: whose zero bin is meant: one that rounds weights and does not train, such as int3. What it
    does besides, such as new batch norm statistics, is done as well: int3-bn.
    `kind`: one of `KINDS`. `layer`: the weight that alone is touched, by its name in `layers`; empty for all.

    What is drawn at random is the same every time, and the same whether a layer is touched alone or not.

    >>> Ablation(Treatment(3), "random").name, Ablation(Treatment(3), "zeros", "fc.weight").name
    ('int3-random', 'int3-zeros@fc.weight')
    >>> Ablation(Treatment(3), "rnadom")
    Traceback (most recent call last):
        ...
    fairq_utils.errors.BadInput: kind is 'rnadom'; expected one of: zeros, random, norm, largest, global,
    midrise, clipped, unclipped.
    """

    treatment: Treatment
    kind: str
    layer: str = ""

    trains: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise BadInput(f"kind is {self.kind!r}; expected one of: {', '.join(KINDS)}.")
        own = self.treatment
        if own.quantizer is None or own.trains or own.only or own.scaled:
            raise BadInput(
                f"treatment is {self.treatment.name}; expected one that rounds weights and does not train, "
                "such as int3."
            )
        if self.kind == "midrise" and (own.format != "int" or own.quantizer != Treatment(own.bits).quantizer):
            raise BadInput(
                f"treatment is {self.treatment.name}, of which there is no midrise; expected a plain int, "
                "such as int3."
            )
        if self.kind in _HALVES and not isinstance(own.quantizer, UniformQuantizer):
            raise BadInput(
                f"treatment is {self.treatment.name}, which has no range to clip to; expected an int, such "
                "as int4-mse."
            )
        if self.kind == "global" and self.layer:
            raise BadInput(f"kind is global and layer is {self.layer}; expected no layer: leave it out.")

    @property
    def name(self) -> str:
        """The name that stands in tables and figures."""
        return f"{self.treatment.name}-{self.kind}" + (f"@{self.layer}" if self.layer else "")

    def arch(self, arch: str, data: Dataset) -> str:
        """The architecture of the network that comes out: that of the original."""
        return arch

    @torch.no_grad()
    def apply(self, network: nn.Module, data: Dataset | None = None) -> nn.Module:
        """The network so changed; the given one stays as it is.

        Data are needed where the treatment takes batch norm statistics again, rounds inputs or aligns logits.
        """
        before, network = network, copy.deepcopy(network)
        known = layers(network)
        if self.layer and self.layer not in known:
            raise BadInput(f"layer is {self.layer!r}; expected one of: {', '.join(known)}.")
        weights = {name: network.get_parameter(name) for name in known}
        threshold = self._threshold(weights)
        for name, weight in weights.items():
            if self.layer in ("", name):
                weight.copy_(self._changed(name, weight, threshold))
        return network if data is None else self.treatment.finish(network, before, data)

    def _changed(self, name: str, weight: Tensor, threshold: Tensor | None) -> Tensor:
        if threshold is not None:
            return weight.where(weight.abs() > threshold, 0.0)
        if self.kind == "midrise":
            return midrise(weight, self.treatment.bits or 0)
        if self.kind in _HALVES:
            assert isinstance(self.treatment.quantizer, UniformQuantizer)  # refused at construction
            return _HALVES[self.kind](self.treatment.quantizer)(weight)
        emptied = self._emptied(weight)
        if self.kind == "zeros":
            return emptied
        flat = weight.flatten().clone()
        if self.kind == "largest":
            order = flat.abs().argsort(descending=True, stable=True)
        else:
            order = torch.randperm(flat.numel(), generator=torch.Generator().manual_seed(_seed(name)))
        if self.kind == "random":
            count = _zeros(emptied)
        else:
            taken = flat.double().square().sum() - emptied.double().square().sum()
            count = int(torch.searchsorted(flat.double().square()[order].cumsum(0), taken, right=True))
        flat[order[:count]] = 0.0
        return flat.view_as(weight)

    def _threshold(self, weights: Mapping[str, Tensor]) -> Tensor | None:
        """The magnitude of the largest weight to go, where the whole network is asked for its smallest."""
        if self.kind != "global":
            return None
        count = sum(
            weight.numel() - int(self._emptied(weight).count_nonzero()) for weight in weights.values()
        )
        magnitudes = torch.cat([weight.flatten().abs() for weight in weights.values()])
        # NumPy's, because torch.kthvalue takes several times as long.
        return magnitudes.new_tensor(np.partition(magnitudes, count - 1)[count - 1] if count else -1.0)

    def _emptied(self, weight: Tensor) -> Tensor:
        assert self.treatment.quantizer is not None  # refused at construction
        return only_zero_bin(self.treatment.quantizer)(weight)


def parse_name(name: str) -> Treatment | Ablation:
    """The treatment or the ablation of that name.

    >>> parse_name("int3-zeros"), parse_name("int3-random@fc.weight").layer
    (Treatment(bits=3, ...only='zeros', ...), 'fc.weight')
    """
    base, _, layer = name.partition("@")
    whole, _, kind = base.rpartition("-")
    if whole and kind in KINDS and (layer or kind not in Treatment.words()):
        return Ablation(Treatment.parse(whole), kind, layer)
    return Treatment.parse(name)


def layers(network: nn.Module) -> list[str]:
    """The weights that rounding reaches, by name, in the order of the network.

    >>> layers(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 2)))
    ['0.weight', '3.weight']
    """
    return list(zero_share(network).index[:-1])


def midrise(weight: Tensor, bits: int) -> Tensor:
    """The tensor on 2**bits evenly spaced values at half steps: the smallest magnitude is half a step.

    The largest magnitude is the last value. No weight becomes zero, and none goes further than half a step.

    >>> midrise(torch.tensor([3.0, -1.2, 0.1, -0.1]), 2)
    tensor([ 3., -1.,  1., -1.])
    """
    step = 2 * weight.abs().max() / (2**bits - 1) if weight.numel() else weight.new_zeros(())
    if step == 0:
        return weight.clone()
    ends = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return ((weight / step).floor().clamp(*ends) + 0.5) * step


def halves(treatment: Treatment) -> list[Treatment | Ablation]:
    """Only the zero bin emptied, only the rest rounded, and both: the treatment itself.

    >>> [half.name for half in halves(Treatment(3))]
    ['int3-zeros', 'int3-nonzeros', 'int3']
    """
    return [Ablation(treatment, "zeros"), Treatment.parse(f"{treatment.name}-nonzeros"), treatment]


def controls(treatment: Treatment) -> list[Ablation]:
    """Ablations of other weights than those of the zero bin: as much is done to them, in four senses.

    >>> [control.name for control in controls(Treatment(3))]
    ['int3-random', 'int3-norm', 'int3-largest', 'int3-global']
    """
    return [Ablation(treatment, kind) for kind in ("random", "norm", "largest", "global")]


def other_grids(treatment: Treatment) -> list[Treatment | Ablation]:
    """Other ways to spend as many bits on a weight, for a plain int treatment; powers of two end at 8 bits.

    >>> [grid.name for grid in other_grids(Treatment(3))]
    ['int3-midrise', 'codebook3', 'pot3', 'int3-mse', 'int3-channel', 'int3-lsq']
    """
    bits = treatment.bits or 0
    names = [f"codebook{bits}", *([f"pot{bits}"] if bits <= 8 else [])]
    names += [f"{treatment.name}-{word}" for word in ("mse", "channel", "lsq")]
    return [Ablation(treatment, "midrise"), *map(Treatment.parse, names)]


def by_layer(treatment: Treatment, network: nn.Module) -> list[Treatment | Ablation]:
    """Full precision, and then, for one layer of the network after the other, its zero bin and two controls.

    >>> [one.name for one in by_layer(Treatment(3), nn.Linear(2, 2))]
    ['fp32', 'int3-zeros@weight', 'int3-norm@weight', 'int3-random@weight']
    """
    kinds = ("zeros", "norm", "random")
    return [FP32, *(Ablation(treatment, kind, layer) for layer in layers(network) for kind in kinds)]


def _seed(name: str) -> int:
    return zlib.crc32(name.encode())


def _zeros(values: Tensor) -> int:
    return values.numel() - int(values.count_nonzero())
