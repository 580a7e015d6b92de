"""A temperature and an offset for each class, so that a network is as sure of classes as another one."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from fairq_utils.errors import BadInput

_FLATTEST = 1e-2  # the inverse temperature stays above, for at 0 the answers would be gone
_STEPS, _CLOSE = 100, 1e-10


class Alignment(NamedTuple):
    """What is done to logits: `offsets` are added, and the sum is divided by `temperature`."""

    temperature: float
    offsets: Tensor

    def __call__(self, logits: Tensor) -> Tensor:
        """The logits so aligned."""
        return (logits + self.offsets.to(logits)) / self.temperature


def align(
    logits: Tensor, reference: Tensor, *, temperature: bool = False, offsets: bool = False
) -> Alignment:
    """The offsets of classes, or the temperature, or both, that bring the logits closest to the reference.

    Closest means: the mean Kullback-Leibler divergence from the softmax of the reference is smallest. That
    is convex, and with offsets its minimum is where both say each class with the same mean probability. No
    label is used. With both, the offsets come first and one temperature for all after them: so a temperature
    changes no answer, with offsets or without. An inverse temperature below 0.01 is not tried.

    >>> reference = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.5, 0.0]])
    >>> round(align(reference / 2, reference, temperature=True).temperature, 6)
    0.5
    >>> found = align(reference + torch.tensor([0.3, 0.0]), reference, offsets=True)
    >>> found.temperature, found.offsets.round(decimals=3)
    (1.0, tensor([-0.1500,  0.1500]))
    """
    if logits.shape != reference.shape or logits.ndim != 2 or not len(logits):
        raise BadInput(
            f"logits have shape {tuple(logits.shape)}, the reference {tuple(reference.shape)}; expected the "
            "same images and classes in both, and at least one image."
        )
    own, wanted = logits.double(), reference.double().softmax(1)
    shift, inverse = torch.zeros(own.shape[1], dtype=torch.float64), 1.0
    if offsets:
        # What a unit of an offset adds to the scores: one to its class, the same of every image.
        shift = _newton(own, wanted, torch.eye(own.shape[1], dtype=torch.float64).expand(len(own), -1, -1))
    if temperature:
        inverse += float(_newton(own + shift, wanted, (own + shift)[:, None]))
    return Alignment(1 / max(inverse, _FLATTEST), (shift - shift.mean()).float())


def fit_offsets(logits: Tensor, labels: Tensor, *, evenly: bool = False) -> Alignment:
    """The offsets of classes that make the labels likeliest: each becomes as probable as it is frequent.

    `evenly`: each label counts alike, however many images it has. Every label needs an image.

    >>> logits = torch.tensor([[2.0, 0.0], [1.0, 0.0], [1.0, 0.5], [0.5, 0.0]])
    >>> found = fit_offsets(logits, torch.tensor([0, 0, 0, 1]))
    >>> found(logits).softmax(1).mean(0)
    tensor([0.7500, 0.2500])
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise BadInput(
            f"logits have shape {tuple(logits.shape)}, labels {tuple(labels.shape)}; expected a row of "
            "logits for each label."
        )
    classes = logits.shape[1]
    counts = torch.bincount(labels, minlength=classes)
    if len(counts) > classes or not counts.all():
        raise BadInput(
            f"labels have {counts.tolist()} images each; expected at least one of each of {classes} labels."
        )
    weights = (1 / counts.double())[labels] if evenly else torch.ones(len(labels), dtype=torch.float64)
    eye = torch.eye(classes, dtype=torch.float64)
    shift = _newton(logits.double(), eye[labels], eye.expand(len(labels), -1, -1), weights)
    return Alignment(1.0, (shift - shift.mean()).float())


def _newton(scores: Tensor, wanted: Tensor, adds: Tensor, weights: Tensor | None = None) -> Tensor:
    """How much of each of some things to add to the scores: `adds`, images by things by classes.

    Newton's steps from nothing, each halved until the divergence falls. Images count by `weights`.
    """
    shares = torch.ones(len(scores), dtype=torch.float64) if weights is None else weights
    shares = shares / shares.sum()

    def at(found: Tensor) -> Tensor:
        return scores + torch.einsum("ijk,j->ik", adds, found)

    def divergence(found: Tensor) -> Tensor:
        return shares @ functional.cross_entropy(at(found), wanted, reduction="none")

    found = torch.zeros(adds.shape[1], dtype=torch.float64)
    now = divergence(found)
    for _ in range(_STEPS):
        chances = at(found).softmax(1)
        slope = torch.einsum("i,ik,ijk->j", shares, chances - wanted, adds)
        mean = torch.einsum("ik,ijk->ij", chances, adds)
        bend = torch.einsum("i,ik,ijk,ilk->jl", shares, chances, adds, adds)
        bend -= mean.T @ (shares[:, None] * mean)
        # A constant added to all offsets changes nothing, so the matrix may be singular.
        step = -(torch.linalg.pinv(bend, hermitian=True) @ slope)
        while (then := divergence(found + step)) > now and step.abs().max() > _CLOSE:
            step /= 2
        if not then < now:
            break
        found, now = found + step, then
    return found


class Aligned(nn.Module):
    """A network whose logits are aligned; everything else of it is as it was."""

    offsets: Tensor
    temperature: Tensor

    def __init__(self, network: nn.Module, alignment: Alignment) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("temperature", torch.tensor(alignment.temperature))
        self.register_buffer("offsets", alignment.offsets)

    def forward(self, inputs: Tensor) -> Tensor:
        """The aligned logits."""
        return (self.network(inputs) + self.offsets) / self.temperature
