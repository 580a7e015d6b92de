"""What is done to a language model: rounded in one way or another, trained further, or both."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from fairq_utils.errors import BadInput
from fairq_utils.language.decoder import ByteDecoder, scale_norms
from fairq_utils.language.measures import byte_logits
from fairq_utils.language.texts import Texts, windows
from fairq_utils.language.training import FURTHER, LanguageRecipe, fit_language
from fairq_utils.quantization.alignment import align
from fairq_utils.quantization.controls import all_but_zero_bin, only_clip, only_round, only_zero_bin
from fairq_utils.quantization.models import bake, places_of_weights, quantize_model
from fairq_utils.quantization.quantizers import Quantizer, UniformQuantizer

WHOLE = 16  # bits of a weight that is to stay as it was: no answer was seen to change
_EACH = 4  # windows of each language that say how far the inputs of a layer reach
_ONLY: dict[str, Callable[[UniformQuantizer], Quantizer]] = {
    "zeros": only_zero_bin,
    "nonzeros": all_but_zero_bin,
    "clipped": only_clip,
    "unclipped": only_round,
}


@dataclass(frozen=True, kw_only=True)
class LanguageTreatment:
    """What is done to a network; its name is made of its fields.

    `bits`: of weights; None leaves them. `channel`: one scale for each output in place of one for a tensor.
    `clip`: how far the grid reaches, as for `UniformQuantizer`.
    `where`: `inside` rounds all but the vectors of the bytes and the head, `ends` these two alone.
    `only`: a half of what rounding does: `zeros`, `nonzeros`, `clipped` or `unclipped`.
    `activations`: bits of the inputs of layers, on ranges of `_EACH` training windows of each language.
    `scaled`: first, a channel behind each layer norm so many times as loud, which what follows undoes: its
    weights where weights are rounded, else its inputs.
    `training`: `tuned` trains further in full precision and rounds then, `qat` trains while rounded.
    `weighted`: languages count by one over their text. `sampled`: each is shown as often as any other.
    `temperature`: logits are divided by what brings them closest to those of full precision, on the tuning
    articles.

    >>> LanguageTreatment(bits=3, channel=True, training="qat", sampled=True).name
    'int3-channel-qat-sampled'
    >>> LanguageTreatment(activations=8).name, LanguageTreatment(bits=4, activations=8).name
    ('a8', 'w4a8')
    """

    bits: int | None = None
    channel: bool = False
    clip: str = "absmax"
    where: Literal["inside", "ends"] | None = None
    only: str | None = None
    activations: int | None = None
    scaled: int | None = None
    training: Literal["tuned", "qat"] | None = None
    weighted: bool = False
    sampled: bool = False
    temperature: bool = False

    def __post_init__(self) -> None:
        if self.training not in (None, "tuned", "qat"):
            raise BadInput(f"training is {self.training!r}; expected None, tuned or qat.")
        if self.where not in (None, "inside", "ends"):
            raise BadInput(f"where is {self.where!r}; expected None, inside or ends.")
        if self.only is not None and self.only not in _ONLY:
            raise BadInput(f"only is {self.only!r}; expected None or one of: {', '.join(_ONLY)}.")
        if (self.weighted or self.sampled) and self.training is None:
            raise BadInput("weighted or sampled is set without training; expected tuned or qat beside it.")
        if self.bits is None and self.training == "qat":
            raise BadInput("training is qat, and bits is None; expected a width to train at.")

    @property
    def name(self) -> str:
        """The format, and a word for each field that is set."""
        if self.activations is not None:
            start = f"a{self.activations}" if self.bits is None else f"w{self.bits}a{self.activations}"
        else:
            start = "fp32" if self.bits is None else f"int{self.bits}"
        words = [
            self.clip if self.clip != "absmax" else None,
            "channel" if self.channel else None,
            self.where,
            self.only,
            f"scaled{self.scaled}" if self.scaled else None,
            self.training,
            "weighted" if self.weighted else None,
            "sampled" if self.sampled else None,
            "temperature" if self.temperature else None,
        ]
        return "-".join([start, *filter(None, words)])

    @property
    def trains(self) -> LanguageTreatment | None:
        """The treatment as far as it trains; those that share it are made of one training."""
        if self.training == "tuned":
            return LanguageTreatment(training="tuned", weighted=self.weighted, sampled=self.sampled)
        return replace(self, temperature=False) if self.training else None

    def further(self, recipe: LanguageRecipe) -> LanguageRecipe:
        """The recipe with which it trains."""
        return replace(
            recipe,
            loss_weights="inverse" if self.weighted else None,
            sampling="even" if self.sampled else None,
        )

    @property
    def quantizer(self) -> Quantizer | None:
        """What rounds the weights."""
        if self.bits is None:
            return None
        whole = UniformQuantizer(self.bits, clip=self.clip, axis=0 if self.channel else None)
        return _ONLY[self.only](whole) if self.only else whole


def train_as(
    treatment: LanguageTreatment,
    network: ByteDecoder,
    texts: Texts,
    *,
    recipe: LanguageRecipe = FURTHER,
    seed: int = 0,
) -> ByteDecoder:
    """A copy of the network, trained further as the treatment says; still to be rounded if it is `tuned`.

    >>> from fairq_utils.language.articles import DeclarationSettings, draw_declaration
    >>> texts = draw_declaration(DeclarationSettings(languages=("English", "Greek", "Thai", "Korean")))
    >>> network = ByteDecoder(width=8, depth=1, heads=2)
    >>> recipe = LanguageRecipe(steps=2, batch_size=4)
    >>> tuned = train_as(LanguageTreatment(training="tuned"), network, texts, recipe=recipe)
    >>> torch.equal(tuned.head.weight, network.head.weight)
    False
    """
    rounded = treatment.training == "qat"
    own = _rounded(treatment, network, texts) if rounded else copy.deepcopy(network)
    fit_language(own, texts, recipe=treatment.further(recipe), seed=seed, description=treatment.name)
    return bake(own) if rounded else own


def treat(
    treatment: LanguageTreatment,
    network: ByteDecoder,
    texts: Texts,
    *,
    original: ByteDecoder | None = None,
) -> ByteDecoder:
    """The network under the treatment, without training: that is done by `train_as`, whose result this gets.

    `original`: whose logits a temperature brings back, if it is not the network itself.

    >>> network, texts = ByteDecoder(width=8, depth=1, heads=2), None
    >>> rounded = treat(LanguageTreatment(bits=2), network, texts)
    >>> rounded.head.weight.unique().numel()
    3
    """
    if treatment.training != "qat":
        louder = network
        if treatment.scaled:
            of_weights: Literal["weights", "inputs"] = "inputs" if treatment.bits is None else "weights"
            louder = scale_norms(network, treatment.scaled, louder=of_weights)
        found = _rounded(treatment, louder, texts)
        if treatment.bits is not None:
            found = bake(found)
    else:
        found = network
    return _as_sure(found, original or network, texts) if treatment.temperature else found


def _rounded(treatment: LanguageTreatment, network: ByteDecoder, texts: Texts) -> ByteDecoder:
    if treatment.bits is None and treatment.activations is None:
        return copy.deepcopy(network)
    bits = None
    if treatment.where:
        names = [place.name for place in places_of_weights(network)]
        ends = [names[0], names[-1]]
        bits = dict.fromkeys(ends if treatment.where == "inside" else names[1:-1], WHOLE)
    activations = None
    if treatment.activations is not None:
        drawn = windows(texts, each=_EACH, length=network.context)
        shown = torch.cat([rows[:, :-1] for rows in drawn.values()])
        activations = UniformQuantizer(treatment.activations, symmetric=False), [shown]
    return quantize_model(network, treatment.quantizer, bits=bits, activations=activations)


@torch.no_grad()
def _as_sure(network: ByteDecoder, original: ByteDecoder, texts: Texts) -> ByteDecoder:
    """A copy whose logits are divided by one number, so that it is as sure as the original was.

    The head has no bias: so its weights are divided.
    """
    own, wanted = (_logits(one, texts) for one in (network, original))
    found = copy.deepcopy(network)
    found.head.weight /= align(own, wanted, temperature=True).temperature
    return found


def _logits(network: nn.Module, texts: Texts) -> Tensor:
    assert isinstance(network, ByteDecoder)
    return torch.cat([logits for logits, _ in byte_logits(network, texts, "tuning")])
