"""What can be done to a network: a value with a short name that says it and parses back."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from fairq_utils.data.datasets import Dataset
from fairq_utils.errors import BadInput
from fairq_utils.progress import Report
from fairq_utils.quantization.alignment import Aligned, align, fit_offsets
from fairq_utils.quantization.controls import (
    all_but_zero_bin,
    coarser,
    only_clip,
    only_round,
    only_zero_bin,
)
from fairq_utils.quantization.models import bake, quantize_model, reestimate_batchnorm
from fairq_utils.quantization.outliers import scale_outliers
from fairq_utils.quantization.pruning import pruner, sparsity_of
from fairq_utils.quantization.quantizers import (
    CodebookQuantizer,
    FloatQuantizer,
    LearnedStepQuantizer,
    NF4Quantizer,
    PowerOfTwoQuantizer,
    Quantizer,
    UniformQuantizer,
)
from fairq_utils.training.distillation import narrower, train_narrower
from fairq_utils.training.fairqat import TUNING, FairQAT
from fairq_utils.training.loop import Checkpoint, Recipe, augment, predict, to_input
from fairq_utils.treatments.bits_by_layer import bits_by_layer

# A word of a name, what it sets, and what it means. The order here is their order in a name.
_WORDS: dict[str, tuple[dict[str, Any], str]] = {
    "e5m2": ({"e5m2": True}, "five bits of exponent instead of four (fp8)"),
    "mse": ({"clip": "mse"}, "the range with the least squared error, instead of the largest weight"),
    "percentile": ({"clip": "percentile"}, "a range that leaves out 0.1 % of the weights"),
    "channel": ({"channel": True}, "one scale for each output channel"),
    "affine": ({"affine": True}, "a zero point, and a range from the smallest to the largest weight"),
    "full": ({"full": True}, "all codes: {-2, -1, 0, 1} at two bits, instead of {-1, 0, 1}"),
    "lsq": ({"learned": True}, "a learned step size"),
    "zeros": ({"only": "zeros"}, "only the zero bin is emptied, all other weights stay as they are"),
    "nonzeros": ({"only": "nonzeros"}, "the zero bin stays as it is, all other weights are rounded"),
    "clipped": ({"only": "clip"}, "weights beyond the range are cut off, and none is rounded"),
    "unclipped": ({"only": "round"}, "weights are rounded to the steps of the range, and none is cut off"),
    "ends8": ({"ends8": True}, "8 bits in the first and the last layer"),
    "groupbits": (
        {"allocated": "groups"},
        "bits of each layer chosen so that the group whose answers change most changes least, as many in all",
    ),
    "meanbits": (
        {"allocated": "mean"},
        "bits of each layer chosen so that answers change least on average over groups, as many in all",
    ),
    "distilled": ({"distilled": True}, "trained on what the original says, as much as on labels"),
    "qat": ({"training": "qat"}, "trained further while quantized, or pruned"),
    "tuned": ({"training": "tuned"}, "trained further in full precision, then quantized, or pruned"),
    "weighted": ({"weight": 60}, "images of the smallest group count 0.6 in the loss, of all others 0.4 / n"),
    "dro": ({"dro": True}, "each group counts by a weight that grows with its loss (group-DRO)"),
    "adjusted": ({"adjusted": True}, "a rare label has to win by more while training (logit adjustment)"),
    "sampled": ({"sampling": "both"}, "with every group seen as often as the average one"),
    "oversampled": ({"sampling": "over"}, "with every group seen as often as the largest"),
    "undersampled": ({"sampling": "under"}, "with every group seen as often as the smallest"),
    "fairqat": (
        {"training": "qat", "ends8": True, "weight": 60, "sampling": "both"},
        "the published FairQAT: qat, ends8, weighted and sampled",
    ),
    "bn": ({"batchnorm": True}, "batch norm statistics taken again"),
    "amse": (
        {"inputs": "mse"},
        "inputs on ranges with the least squared error, instead of all",
    ),
    "apercentile": ({"inputs": "percentile"}, "inputs on ranges that leave out 0.1 % of the values"),
    "dynamic": ({"inputs": "dynamic"}, "inputs on a range of each image, taken when it comes"),
    "balanced": ({"calibration": "balanced"}, "statistics and ranges from equally many images of each group"),
    "majority": ({"calibration": "majority"}, "statistics and ranges from the largest group's images alone"),
    "smallest": (
        {"calibration": "smallest"},
        "statistics and ranges from the smallest group's images alone",
    ),
    "augmented": ({"augmented": True}, "statistics and ranges from images mirrored and moved as in training"),
    "temperature": ({"temperature": True}, "logits divided by what brings them closest to those before"),
    "offsets": ({"offsets": True}, "to each class an offset, so that it is as probable as it was before"),
    "labels": ({"fitted": "labels"}, "to each class an offset, fitted to labels of images for tuning"),
    "evenlabels": (
        {"fitted": "even"},
        "to each class an offset, fitted to labels of images for tuning of which each counts alike",
    ),
}
_FORMATS = {
    "fp32": "no rounding",
    "fp16": "half precision",
    "bf16": "bfloat16",
    "fp8": "8-bit floats",
    "nf4": "4-bit NormalFloat, a scale for each 64 weights",
    "int": "int2 to int16: evenly spaced values",
    "codebook": "codebook2 to codebook16: values that k-means chooses",
    "pot": "pot2 to pot8: powers of two",
    "narrow": "narrow2 to narrow16: a network with fewer channels, which takes no more bytes at 32 bits",
    "pruned": "pruned2 to pruned8: the smallest weights zero, so many that it takes the bytes of int2..",
}
_NUMBERED = {
    "weighted40": "images of the smallest group count 0.4 (any percentage)",
    "share32": "images of the smallest group have 0.32 of the loss, as they are shown (any percentage)",
    "sampled50": "every group seen half as far from its own size as sampled would have it (any percentage)",
    "passes8": "trained further for 8 passes over the images, however many others take (any number)",
    "scaled4": "first, the channel with a layer's largest weight 4 times as large, undone by its batch norm",
    "coarser4": "steps 4 times as wide, as all other channels get them from scaled4",
}
_AFTER = {"temperature", "offsets", "labels", "evenlabels", "bn", "amse", "apercentile", "dynamic", "scaled"}
_AFTER |= {"balanced", "majority", "smallest", "augmented"}  # what needs no rounding of weights
_NUMBERS = ("share", "passes", "scaled", "coarser")  # words that a whole number follows
_HOW_TRAINED = ("weight", "share", "dro", "adjusted", "sampling", "passes")
_FURTHER = {"weighted", "share", "dro", "adjusted", "sampled", "oversampled", "undersampled", "passes"}
_ROUNDED = {"zeros", "nonzeros", "qat"} | _FURTHER | _AFTER
_TAKES = {
    "fp32": {"tuned"} | _FURTHER | _AFTER,
    "fp16": _ROUNDED | {"tuned"},
    "bf16": _ROUNDED | {"tuned"},
    "fp8": _ROUNDED | {"tuned", "e5m2"},
    "nf4": _ROUNDED | {"tuned"},
    "int": _WORDS.keys() - {"e5m2", "distilled"} | {"share", "passes", "scaled", "coarser"},
    "codebook": _ROUNDED | {"tuned", "channel", "ends8", "fairqat"},
    "pot": _ROUNDED | {"tuned", "ends8", "fairqat"},
    "narrow": {"distilled"} | _AFTER - {"scaled", "temperature", "offsets"},
    "pruned": (_ROUNDED | {"tuned"}) - {"zeros", "nonzeros"},
}
_INPUTS = {
    "w4a8": "int4 weights, and the inputs of each layer at 8 bits (any two widths)",
    "a8": "inputs alone at 8 bits, weights in full precision (any width; also as a word: nf4-a8)",
}
_HALVES: dict[str, Callable[[Any], Quantizer]] = {
    "zeros": only_zero_bin,
    "nonzeros": all_but_zero_bin,
    "clip": only_clip,
    "round": only_round,
}
_CALIBRATION_IMAGES, _CALIBRATION_BATCH = 1000, 250


@dataclass(frozen=True)
class Treatment:
    """What is done to a network. Its name is made of a format and words, and parses back.

    >>> for name in ("fp32", "int4", "int4-mse-channel", "nf4", "w4a8", "a8", "int4-qat", "int4-fairqat"):
    ...     assert Treatment.parse(name).name == name
    >>> Treatment.parse("int4") == Treatment(4)
    True
    >>> Treatment(1)
    Traceback (most recent call last):
        ...
    fairq_utils.errors.BadInput: bits is 1; expected a whole number from 2 to 16.
    >>> Treatment.parse("int4-msee")
    Traceback (most recent call last):
        ...
    fairq_utils.errors.BadInput: treatment is 'int4-msee', of which 'msee' is not understood; expected a
    format and words, such as int4-mse-channel: `fairq treatments` lists them.
    """

    bits: int | None = None
    format: str = "int"
    clip: str = "absmax"
    channel: bool = False
    affine: bool = False
    full: bool = False
    learned: bool = False
    e5m2: bool = False
    only: str | None = None
    activations: int | None = None
    ends8: bool = False
    batchnorm: bool = False
    training: str | None = None
    distilled: bool = False
    weight: int | None = None  # of an image of the smallest group, in percent
    dro: bool = False
    adjusted: bool = False
    share: int | None = None  # of the loss that the smallest group has, in percent
    sampling: str | None = None  # both, over, under, or a percentage of the way
    passes: int | None = None  # over the images, to train further; None for what the recipe says
    inputs: str = "absmax"  # or mse, percentile, dynamic: the ranges of activations
    calibration: str | None = None  # balanced, majority, smallest: whose images statistics and ranges are of
    augmented: bool = False  # these images
    temperature: bool = False
    offsets: bool = False
    fitted: str | None = None  # labels or even: what offsets of classes are fitted to
    allocated: str | None = None  # groups or mean: for whom bits are given to layers
    scaled: int | None = None
    coarser: int | None = None

    def __post_init__(self) -> None:
        if self.bits is None and self.format == "int":
            object.__setattr__(self, "format", "fp32")
        self.quantizer  # noqa: B018 - refuses a width that it cannot quantize to
        self._input_quantizer  # noqa: B018 - refuses a width of inputs
        for word in self._words():
            if _without_number(word) not in _TAKES[self.format]:
                raise BadInput(
                    f"treatment {self.name!r} says {word}, which {self.format} does not take; expected of: "
                    f"{', '.join(sorted(_TAKES[self.format]))}."
                )
        if any(getattr(self, name) for name in _HOW_TRAINED) and not self.training:
            raise BadInput(
                f"treatment {self.name!r} weights or samples, but does not train; add qat or tuned."
            )
        if sum((self.weight is not None, self.share is not None, self.dro)) > 1:
            raise BadInput(
                f"treatment {self.name!r} weights groups in two ways; leave out dro, share or weighted."
            )
        self._further(TUNING)  # refuses a percentage that is none
        if self.learned and (self.affine or self.clip != "absmax"):
            raise BadInput(
                f"treatment {self.name!r} has a range to learn; leave out affine, mse and percentile."
            )
        if self.only in ("clip", "round") and (self.learned or self.trains):
            raise BadInput(
                f"treatment {self.name!r} takes rounding apart; leave out clipped and unclipped, or what "
                "trains or learns."
            )
        if (self.temperature or self.offsets) and self.trains:
            raise BadInput(
                f"treatment {self.name!r} trains, and there is no network before that to align with; leave "
                "out temperature and offsets."
            )
        if self.fitted and self.offsets:
            raise BadInput(f"treatment {self.name!r} has offsets of two kinds; leave out offsets or labels.")
        if self.allocated and (self.trains or self.only or self.learned or self.ends8 or self.coarser):
            raise BadInput(
                f"treatment {self.name!r} gives bits to layers, which goes with ranges alone; leave out what "
                "trains, learns, takes apart or gives them bits already."
            )
        if self.coarser and (self.affine or self.learned or self.only or self.trains):
            raise BadInput(
                f"treatment {self.name!r} makes steps coarser that are not plain; leave out one of them."
            )
        if self.inputs != "absmax" and not self.activations:
            raise BadInput(f"treatment {self.name!r} says how inputs are rounded, to no width; add a8.")
        if (self.calibration or self.augmented) and not (self.activations or self.batchnorm):
            raise BadInput(
                f"treatment {self.name!r} says on which images, but not what is taken of them; add bn or a8."
            )
        if self.full and self.affine:
            raise BadInput(f"treatment {self.name!r} is affine and uses all codes already; leave out full.")

    @property
    def name(self) -> str:
        """The name that stands in tables and figures."""
        base = (
            f"{self.format}{self.bits}"
            if self.format in ("int", "codebook", "pot", "narrow", "pruned")
            else self.format
        )
        words = list(self._words())
        if self.activations and self.format == "int":
            base = f"w{self.bits}a{self.activations}"
        elif self.activations and self.format == "fp32":
            base = f"a{self.activations}"
        elif self.activations:
            words.append(f"a{self.activations}")
        return "-".join([base, *words])

    def _words(self) -> Iterator[str]:
        """The words that say how this differs from the plain format."""
        said: set[str] = set()
        fair = _WORDS["fairqat"][0]
        if all(getattr(self, name) == value for name, value in fair.items()):
            said = set(fair)
        for word, (settings, _) in _WORDS.items():
            if word == "fairqat":
                if said:
                    yield word
            elif all(name not in said and getattr(self, name) == value for name, value in settings.items()):
                yield word
            elif word == "weighted" and self.weight is not None and "weight" not in said:
                yield f"weighted{self.weight}"
            elif word == "sampled" and self.sampling and self.sampling.isdecimal():
                yield f"sampled{self.sampling}"
        yield from (f"{word}{factor}" for word in _NUMBERS if (factor := getattr(self, word)) is not None)

    @classmethod
    def parse(cls, name: str) -> Treatment:
        """The treatment of that name."""
        base, *words = name.split("-")
        settings = _parse_base(base)
        if settings is None:
            raise BadInput(
                f"treatment is {name!r}, of which {base!r} is not understood; expected one of "
                f"{', '.join(_FORMATS)} (with a width: int4), w4a8 or a8: `fairq treatments` lists them."
            )
        for word in words:
            if match := re.fullmatch(r"a(\d+)", word):
                settings["activations"] = int(match[1])
            elif match := re.fullmatch(r"weighted([1-9]\d?)", word):
                settings["weight"] = int(match[1])
            elif match := re.fullmatch(r"sampled([1-9]\d?)", word):
                settings["sampling"] = match[1]
            elif match := re.fullmatch(rf"({'|'.join(_NUMBERS)})([1-9]\d{{0,3}})", word):
                settings[match[1]] = int(match[2])
            elif word in _WORDS:
                settings |= _WORDS[word][0]
            else:
                raise BadInput(
                    f"treatment is {name!r}, of which {word!r} is not understood; expected a format and "
                    "words, such as int4-mse-channel: `fairq treatments` lists them."
                )
        return cls(**settings)

    @staticmethod
    def words() -> tuple[str, ...]:
        """What may follow a format."""
        return tuple(_WORDS)

    # ------------------------------------------------------------ what it does

    @property
    def trains(self) -> bool:
        """Whether the network is trained further, and not only rounded."""
        return self.training is not None or self.format == "narrow"

    @property
    def aligns(self) -> bool:
        """Whether something is done to the logits."""
        return self.temperature or self.offsets or self.fitted is not None

    def arch(self, arch: str, data: Dataset) -> str:
        """The architecture of the network that comes out, where that of the original is given."""
        if self.format != "narrow":
            return arch
        size = int(data.images.shape[-1])
        return narrower(arch, self._bits / 32, classes=len(data.label_names), image_size=size)

    @cached_property
    def quantizer(self) -> Quantizer | None:
        """What rounds the weights; nothing does at full precision."""
        quantizer = self._whole_quantizer()
        if quantizer is None or self.only is None:
            if self.coarser and isinstance(quantizer, UniformQuantizer) and quantizer.symmetric:
                return coarser(quantizer, self.coarser)
            return quantizer
        return _HALVES[self.only](quantizer)

    def _whole_quantizer(self) -> Quantizer | None:
        axis = 0 if self.channel else None
        match self.format:
            case "fp32":
                return None
            case "int" if self.learned:
                return LearnedStepQuantizer(self._bits, axis=axis, narrow=not self.full)
            case "int":
                return UniformQuantizer(
                    self._bits, symmetric=not self.affine, clip=self.clip, axis=axis, narrow=not self.full
                )
            case "codebook":
                return CodebookQuantizer(self._bits, axis=axis)
            case "pot":
                return PowerOfTwoQuantizer(self._bits)
            case "narrow":
                UniformQuantizer(self._bits)  # refuses a width that there is not
                return None
            case "pruned":
                sparsity_of(self._bits)  # refuses a width that there is not
                return None  # what is small is told of a whole network: see _quantizer_of
            case "nf4":
                return NF4Quantizer()
            case "fp8" if self.e5m2:
                return FloatQuantizer("fp8-e5m2")
            case "fp16" | "bf16" | "fp8":
                return FloatQuantizer(self.format)
        raise BadInput(f"format is {self.format!r}; expected one of: {', '.join(_FORMATS)}.")

    def _quantizer_of(self, network: nn.Module) -> Quantizer | None:
        """What rounds the weights of this very network, or prunes them."""
        return pruner(network, sparsity_of(self._bits)) if self.format == "pruned" else self.quantizer

    @property
    def _bits(self) -> int:
        return self.bits if self.bits is not None else 0

    @cached_property
    def _input_quantizer(self) -> UniformQuantizer | None:
        if self.activations is None:
            return None
        dynamic = self.inputs == "dynamic"
        return UniformQuantizer(
            self.activations,
            symmetric=False,
            clip="absmax" if dynamic else self.inputs,
            axis=0 if dynamic else None,
        )

    @property
    def as_trained(self) -> Treatment:
        """The treatment that decides the trained network: what is done to it afterwards is left out."""
        if self.training == "tuned":
            # Trained in full precision, so one network serves every width.
            return Treatment(training="tuned", **{name: getattr(self, name) for name in _HOW_TRAINED})
        return replace(
            self,
            activations=None,
            inputs="absmax",
            batchnorm=False,
            calibration=None,
            augmented=False,
            fitted=None,
        )

    def images_seen(self, data: Dataset, recipe: Recipe = TUNING) -> int:
        """How many images its training shows, each as often as it is shown; 0 where it does not train."""
        if self.format == "narrow":
            return round(int(data.is_train.sum()) * recipe.epochs)
        return self._further(recipe).images_seen(data) if self.trains else 0

    def train(
        self,
        network: nn.Module,
        data: Dataset,
        *,
        recipe: Recipe = TUNING,
        seed: int = 0,
        arch: str = "",
        description: str = "training",
        report: Report | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> nn.Module:
        """The network trained further, as this treatment says; the given one stays as it is.

        Where a narrower one is trained in its place, `arch` is the architecture of that one.
        """
        told: Any = {"seed": seed, "description": description, "report": report, "checkpoint": checkpoint}
        if self.format == "narrow":
            return train_narrower(network, data, arch=arch, distilled=self.distilled, recipe=recipe, **told)
        quantizer = self._quantizer_of(network) if self.training == "qat" else None
        return replace(self._further(recipe), quantizer=quantizer).fit(network, data, **told)

    def _further(self, recipe: Recipe) -> FairQAT:
        sampling = self.sampling
        return FairQAT(
            None,
            quantizer=self.quantizer if self.training == "qat" else None,
            first_last=8 if self.ends8 else None,
            loss_weights="dro" if self.dro else self.weight / 100 if self.weight is not None else None,
            loss_share=self.share / 100 if self.share is not None else None,
            logit_adjustment=float(self.adjusted),
            sampling=int(sampling) / 100 if sampling and sampling.isdecimal() else sampling,
            recipe=recipe if self.passes is None else replace(recipe, epochs=self.passes),
            patience=None,  # a study shows collapsed networks too, and measures that they are
        )

    def apply(self, network: nn.Module, data: Dataset) -> nn.Module:
        """The treated network, after `train` if this treatment trains; the given one stays as it is.

        Where inputs are rounded or batch norm statistics are taken again, some training images of the data
        are run through the network: those for tuning stay unseen, to choose among what comes out. On these
        the logits are aligned with those of the given network.
        """
        treated = scale_outliers(network, self.scaled) if self.scaled else network
        # training has rounded the weights already
        quantizer = None if self.training == "qat" else self._quantizer_of(treated)
        if quantizer:
            widths = (
                bits_by_layer(treated, data, quantizer, bits=self._bits, whose=self.allocated)
                if self.allocated
                else None
            )
            ends = 8 if self.ends8 else None
            treated = bake(quantize_model(treated, quantizer, first_last=ends, bits=widths))
        return self.finish(treated, network, data)

    def finish(self, network: nn.Module, before: nn.Module, data: Dataset) -> nn.Module:
        """What is done once the weights are as they shall be: statistics, ranges of inputs, alignment.

        `before` is the network whose logits those of this one are aligned with.
        """
        needed = self.activations or self.batchnorm
        batches = _some_batches(data, self.calibration, self.augmented) if needed else []
        if self.batchnorm:
            network = reestimate_batchnorm(network, batches)
        if self._input_quantizer:
            network = quantize_model(network, None, activations=(self._input_quantizer, batches))
        if self.temperature or self.offsets:
            images = data.images[data.is_tuning]
            found = align(
                predict(network, images),
                predict(before, images),
                temperature=self.temperature,
                offsets=self.offsets,
            )
            network = Aligned(network, found).eval()
        if self.fitted:
            own = data.is_tuning
            logits = predict(network, data.images[own])
            fitted = fit_offsets(logits, data.labels[own], evenly=self.fitted == "even")
            network = Aligned(network, fitted).eval()
        return network


FP32 = Treatment()


def vocabulary() -> pd.DataFrame:
    """All formats and words that a name can be made of, and what they mean.

    >>> vocabulary().query("word == 'mse'").meaning.item()
    'the range with the least squared error, instead of the largest weight'
    """
    rows = [("format", name, meaning) for name, meaning in _FORMATS.items()]
    rows += [("format", name, meaning) for name, meaning in _INPUTS.items()]
    rows += [("word", name, meaning) for name, (_, meaning) in _WORDS.items()]
    rows += [("word", name, meaning) for name, meaning in _NUMBERED.items()]
    return pd.DataFrame(rows, columns=["part", "word", "meaning"])


def _without_number(word: str) -> str:
    """The word that a percentage may follow, by itself."""
    return re.sub(rf"^(weighted|sampled|{'|'.join(_NUMBERS)})\d+$", r"\1", word)


def _parse_base(base: str) -> dict[str, Any] | None:
    """What the first part of a name says, or None."""
    if match := re.fullmatch(r"(int|codebook|pot|narrow|pruned)(\d+)", base):
        return {"format": match[1], "bits": int(match[2])}
    if match := re.fullmatch(r"w(\d+)a(\d+)", base):
        return {"format": "int", "bits": int(match[1]), "activations": int(match[2])}
    if match := re.fullmatch(r"a(\d+)", base):
        return {"format": "fp32", "activations": int(match[1])}
    return {"format": base} if base in ("fp32", "fp16", "bf16", "fp8", "nf4") else None


def _some_batches(data: Dataset, whose: str | None, augmented: bool) -> list[Tensor]:
    """Training images as a network sees them, the same ones every time; `whose` as in the treatment."""
    random = torch.Generator().manual_seed(0)
    shown = data.is_train.nonzero()[:, 0]
    shown = shown[torch.randperm(len(shown), generator=random)]
    groups = data.groups[shown]
    sizes = torch.bincount(groups, minlength=len(data.group_names))
    there = sizes.nonzero()[:, 0]
    if whose == "balanced":
        each = min(int(sizes[there].min()), _CALIBRATION_IMAGES // len(there))
        shown = torch.cat([shown[groups == group][:each] for group in there])
        shown = shown[torch.randperm(len(shown), generator=random)]
    elif whose is not None:
        place = sizes[there].argmax() if whose == "majority" else sizes[there].argmin()
        shown = shown[groups == there[place]]
    images = data.images[shown[:_CALIBRATION_IMAGES]]
    if augmented:
        images = augment(images, Recipe(), random)
    return [to_input(batch) for batch in images.split(_CALIBRATION_BATCH)]
