"""Train a network while it is quantized, and let the groups that pay count for more."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import KW_ONLY, InitVar, dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fairq_utils.data.datasets import Dataset
from fairq_utils.errors import BadInput
from fairq_utils.progress import Report
from fairq_utils.quantization.models import bake, quantize_model
from fairq_utils.quantization.quantizers import Quantizer, UniformQuantizer
from fairq_utils.training.loop import Checkpoint, Recipe, fit, predict

# Smaller and more steps than an original is trained with, for it is the steps that leave a coarse grid; and
# the slower of two rates tried, for it kept more of the OA of moths held out of training at 8 and 4 bits.
TUNING = Recipe(epochs=4, batch_size=64, learning_rate=0.005)
_TELLING = 20  # images for tuning, of which it says something that all are given one label
_EFFECTIVE = 0.999  # beta of the effective number of images, between no weights (0) and inverse ones (1)
_DRO_STEP = 0.01  # how fast group-DRO's weights follow the losses, as in the code of its authors


@dataclass(frozen=True)
class FairQAT:
    """Quantization-aware training in mixed precision, with a loss and a sampling that can favour groups.

    Each part can be had alone, and weights and sampling go by group, whether or not groups are labels.
    `bits=None` without a quantizer rounds nothing, which is the control: the same further training in full
    precision.

    `first_last`: the width of the first and the last layer; None leaves them like all others, as a quantizer
    that has one width only needs.
    `loss_weights`: how much an image counts in the loss. None: each alike. `inverse`: by one over the size of
    its group. `effective`: by one over the group's effective number of images (Cui et al. 2019), which is
    milder. A number between 0 and 1: that for images of the smallest group, or of several that are as small
    of the last, and the rest divided evenly among all other groups. Or a number for each group. `dro`: each
    group by a weight that grows as long as its loss is large (group-DRO, Sagawa et al. 2020).
    `loss_share`: in place of weights, the share of the loss that images of the smallest group have, as often
    as they are shown; all others count alike.
    `sampling`: how often a group is seen in an epoch. None: as often as it has images. `over`: each group
    as often as the largest. `under`: as the smallest. `both`: as the average group. A number between 0
    and 1: so far from its own size to the average one, on a logarithmic scale.
    `logit_adjustment`: adds so many times the logarithm of each label's share, of the images as they are
    shown, to the logits while training, so that a rare label has to win by more (Menon et al. 2021).
    `quantizer`: what rounds the weights, in place of `bits`, which round symmetrically with one scale for
    each tensor. With a `LearnedStepQuantizer` the scales are learned too.
    `recipe`: how long and how fast; `epochs` for another length of the same. Raise it when the loss still
    falls at the end.
    `patience`: after so many epochs in a row in which all images for tuning are given one and the same label,
    training has failed and is stopped; None goes on, and so do fewer than twenty images, which tell nothing.

    OA and the worst group that progress shows are measured on the data's images for tuning, and so should be
    every choice of yours.

    Batch norm keeps learning its statistics, because those of the original do not fit rounded weights, and
    is then fixed with the rest: nothing is folded into the weights, which would change what is rounded.

    >>> FairQAT(4, sampling="sideways")
    Traceback (most recent call last):
        ...
    fairq_utils.errors.BadInput: sampling is 'sideways'; expected None, over, under, both or a number
    between 0 and 1.
    """

    bits: int | None
    _: KW_ONLY
    first_last: int | None = 8
    loss_weights: str | float | Sequence[float] | None = None
    loss_share: float | None = None
    sampling: str | float | None = None
    logit_adjustment: float = 0.0
    quantizer: Quantizer | None = None
    recipe: Recipe = TUNING
    epochs: InitVar[float | None] = None
    patience: int | None = 2

    def __post_init__(self, epochs: float | None) -> None:
        if epochs is not None:
            object.__setattr__(self, "recipe", replace(self.recipe, epochs=epochs))
        if self.bits is not None:
            if self.quantizer is not None:
                raise BadInput(f"bits is {self.bits} beside a quantizer; expected one of the two.")
            UniformQuantizer(self.bits)  # refuses a width that there is not
        if self.patience is not None and self.patience < 1:
            raise BadInput(f"patience is {self.patience}; expected None or at least 1 epoch.")
        if isinstance(self.loss_weights, Tensor | np.ndarray):
            object.__setattr__(self, "loss_weights", tuple(self.loss_weights.tolist()))
        if self.sampling not in (None, "over", "under", "both") and not _is_share(self.sampling):
            raise BadInput(
                f"sampling is {self.sampling!r}; expected None, over, under, both or a number between 0 "
                "and 1."
            )
        alone = isinstance(self.loss_weights, str | float | int)
        named = self.loss_weights in ("inverse", "effective", "dro")
        if alone and not named and not _is_share(self.loss_weights):
            raise BadInput(
                f"loss_weights is {self.loss_weights!r}; expected None, inverse, effective, dro, a number "
                "between 0 and 1, or a number for each group."
            )
        if self.loss_share is not None and not _is_share(self.loss_share):
            raise BadInput(f"loss_share is {self.loss_share!r}; expected None or a number between 0 and 1.")
        if self.loss_share is not None and self.loss_weights is not None:
            raise BadInput(
                f"loss_share is {self.loss_share} beside loss_weights {self.loss_weights!r}; expected one of "
                "the two."
            )
        if not self.logit_adjustment >= 0:
            raise BadInput(f"logit_adjustment is {self.logit_adjustment!r}; expected a number of at least 0.")

    @classmethod
    def paper(cls, bits: int = 4, *, recipe: Recipe = TUNING) -> FairQAT:
        """FairQAT as published (Bellam and Kim 2025), at the width that it was tuned for or another.

        Published are: 8 bits in the first and the last layer, activations in full precision, and weights
        0.1, 0.1, 0.1, 0.1 and 0.6 in the cross entropy, 0.6 for the smallest of five groups. Left open is
        the rest, and chosen here: abs-max ranges with one scale for each tensor, chosen anew at each step;
        a loss divided by the weights in the batch, as PyTorch does; for "under- and over-sampling" every
        group as often as the average one, so that an epoch is as long as before; the network trained in
        full precision as the beginning, and a short training at a low rate.

        What 0.6 means depends on the data. Of the published faces 7 % are of the smallest group, and the
        weights by themselves give it a third of the loss; with each group shown equally often they give it
        60 %. For a third on other data, or with sampling, take `loss_share=0.32` in place of weights.

        >>> FairQAT.paper(4).loss_weights
        0.6
        """
        return cls(bits, loss_weights=0.6, sampling="both", recipe=recipe)

    def fit(
        self,
        model: nn.Module,
        data: Dataset,
        *,
        seed: int = 0,
        description: str = "FairQAT",
        report: Report | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> nn.Module:
        """A copy of the model, trained further on the training images, with its weights on the grid.

        With a `checkpoint` an interrupted training goes on where it was; see `training.fit`.
        """
        own = data.is_train
        labels, groups = data.labels[own], data.groups[own]
        sizes = self._sizes(data)
        trained = fit(
            self._quantized(model),
            data.images[own],
            labels,
            recipe=self.recipe,
            seed=seed,
            loss=self._loss(labels, groups, sizes, classes=len(data.label_names)),
            rows=partial(_sample, groups, _wanted(sizes, self.sampling)) if self.sampling else None,
            after_epoch=_Watch(data, description, self) if data.is_tuning.any() else None,
            description=description,
            report=report,
            checkpoint=checkpoint,
            method=repr(self),
        )
        return bake(trained)

    def images_seen(self, data: Dataset) -> int:
        """How many images the training shows, each as often as it is shown, but for short last batches.

        >>> from fairq_utils import data
        >>> moths = data.load("moths", train_images=200, test_images=20)
        >>> FairQAT(4).images_seen(moths)
        732
        """
        return round(int(_wanted(self._sizes(data), self.sampling).sum()) * self.recipe.epochs)

    def _sizes(self, data: Dataset) -> Tensor:
        sizes = torch.bincount(data.groups[data.is_train], minlength=len(data.group_names))
        by_group = (self.sampling, self.loss_weights, self.loss_share)
        if not sizes.all() and any(value is not None for value in by_group):
            missing = data.group_names[int((sizes == 0).nonzero()[0])]
            raise BadInput(f"group {missing} has no training image; expected at least one of each group.")
        return sizes

    def _quantized(self, model: nn.Module) -> nn.Module:
        quantizer = UniformQuantizer(self.bits) if self.bits is not None else self.quantizer
        if quantizer is not None:
            return quantize_model(model, quantizer, first_last=self.first_last)
        return copy.deepcopy(model)

    def _loss(self, labels: Tensor, groups: Tensor, sizes: Tensor, *, classes: int) -> _Loss | None:
        weighted = self.loss_weights is not None or self.loss_share is not None
        if not weighted and not self.logit_adjustment:
            return None
        times_shown = (_wanted(sizes, self.sampling) / sizes.clamp(min=1))[groups]
        shares = torch.bincount(labels, weights=times_shown, minlength=classes) / times_shown.sum()
        # A label that is never seen is pushed down by training itself, and needs no logarithm of nothing.
        adjustment = self.logit_adjustment * shares.clamp(min=1 / len(labels)).log()
        weights = self._group_weights(sizes) if weighted else torch.ones(len(sizes))
        return (_GroupDRO if self.loss_weights == "dro" else _Loss)(groups, weights, adjustment)

    def _group_weights(self, sizes: Tensor) -> Tensor:
        if self.loss_share is not None:
            shown = _wanted(sizes, self.sampling).double()
            smallest = _smallest(sizes)
            odds = shown[smallest] / (shown.sum() - shown[smallest]).clamp(min=1)
            weights = torch.ones(len(sizes))
            weights[smallest] = float(self.loss_share / (1 - self.loss_share) / odds)
            return weights
        if self.loss_weights == "dro":
            return torch.full((len(sizes),), 1 / len(sizes))
        if self.loss_weights == "inverse":
            return 1 / sizes
        if self.loss_weights == "effective":
            return (1 - _EFFECTIVE) / (1 - _EFFECTIVE**sizes)
        if isinstance(self.loss_weights, float | int):
            weights = torch.full((len(sizes),), (1 - self.loss_weights) / max(len(sizes) - 1, 1))
            weights[_smallest(sizes)] = self.loss_weights
            return weights
        weights = torch.as_tensor(self.loss_weights, dtype=torch.float32)
        if weights.shape != sizes.shape or not (weights >= 0).all() or not weights.any():
            raise BadInput(
                f"loss_weights is {self.loss_weights}; expected {len(sizes)} numbers of at least 0, one for "
                "each group."
            )
        return weights


class _Loss(nn.Module):
    """Cross entropy in which images count by the weight of their group."""

    def __init__(self, groups: Tensor, weights: Tensor, adjustment: Tensor) -> None:
        super().__init__()
        self.groups: Tensor
        self.weights: Tensor
        self.adjustment: Tensor
        self.register_buffer("groups", groups)
        self.register_buffer("weights", weights)
        self.register_buffer("adjustment", adjustment)

    def forward(self, logits: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        losses = F.cross_entropy(logits + self.adjustment, labels, reduction="none")
        return self._mean(losses, self.groups[rows])

    def _mean(self, losses: Tensor, groups: Tensor) -> Tensor:
        weights = self.weights[groups]
        # A batch in which nobody counts teaches nothing.
        return (losses * weights).sum() / weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)


class _GroupDRO(_Loss):
    """Each group by a weight that grows with its loss: an online ascent beside the descent."""

    def _mean(self, losses: Tensor, groups: Tensor) -> Tensor:
        counts = torch.bincount(groups, minlength=len(self.weights))
        sums = torch.zeros_like(self.weights).index_add(0, groups, losses)
        of_groups = sums / counts.clamp(min=1)
        grown = self.weights * torch.exp(_DRO_STEP * of_groups.detach())
        self.weights.copy_(grown / grown.sum())
        return (self.weights.clone() * of_groups).sum()


class _Watch:
    """Says after each epoch how the images for tuning are answered, and stops what has failed."""

    def __init__(self, data: Dataset, description: str, method: FairQAT) -> None:
        own = data.is_tuning
        self.images, self.labels = data.images[own], data.labels[own]
        self.groups, self.group_names = data.groups[own], data.group_names
        self.label_names, self.description, self.method = data.label_names, description, method
        self.epochs_of_one_answer = 0

    def __call__(self, network: nn.Module) -> str:
        answers = predict(network, self.images).argmax(dim=1)
        self._stop_if_collapsed(answers)
        right = (answers == self.labels).float()
        of_groups = {
            name: float(right[self.groups == group].mean())
            for group, name in enumerate(self.group_names)
            if (self.groups == group).any()
        }
        worst = min(of_groups, key=lambda name: of_groups[name])
        return f"OA {right.mean():.0%}, worst {worst} {of_groups[worst]:.0%}"

    def _stop_if_collapsed(self, answers: Tensor) -> None:
        one_answer = len(answers) >= _TELLING and len(answers.unique()) == 1 < len(self.labels.unique())
        self.epochs_of_one_answer = self.epochs_of_one_answer + 1 if one_answer else 0
        if self.method.patience is not None and self.epochs_of_one_answer >= self.method.patience:
            raise BadInput(
                f"{self.description}: all of {len(answers)} images for tuning were given the label "
                f"{self.label_names[int(answers[0])]} in {self.epochs_of_one_answer} epochs in a row; "
                "expected several labels, so lower learning_rate (now "
                f"{self.method.recipe.learning_rate}) or take more bits."
            )


def _is_share(value: object) -> bool:
    return isinstance(value, float | int) and not isinstance(value, bool) and 0 < value < 1


def _smallest(sizes: Tensor) -> int:
    """Which group is the smallest; of several that are as small, the last."""
    return len(sizes) - 1 - int(sizes.flip(0).argmin())


def _wanted(sizes: Tensor, sampling: str | float | None) -> Tensor:
    """How many images of each group an epoch shows."""
    if sampling is None:
        return sizes
    if isinstance(sampling, str):
        each = {"over": sizes.max(), "under": sizes.min(), "both": sizes.float().mean().round()}[sampling]
        return torch.full_like(sizes, int(each))
    between = sizes.double() ** (1 - sampling) * sizes.double().mean() ** sampling
    return (between * sizes.sum() / between.sum()).round().clamp(min=1).to(sizes.dtype)


def _sample(groups: Tensor, wanted: Tensor, random: torch.Generator) -> Tensor:
    """The images of one epoch: so many of each group, in random order.

    A group with more images than that shows a random part of them; one with fewer shows each, and some
    again.
    """
    drawn = []
    for group, count in enumerate(wanted.tolist()):
        own = (groups == group).nonzero().flatten()
        rounds = -(-count // len(own))
        shuffled = torch.cat([own[torch.randperm(len(own), generator=random)] for _ in range(rounds)])
        drawn.append(shuffled[:count])
    rows = torch.cat(drawn)
    return rows[torch.randperm(len(rows), generator=random)]
