"""Train a network while it is quantized, and let the groups that pay count for more."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from fairq_utils.data import Dataset
from fairq_utils.errors import BadInput
from fairq_utils.quantizers import Quantizer, UniformQuantizer, bake, quantize_model
from fairq_utils.training import Recipe, fit

_NAMED_WEIGHTS = ("inverse", "effective", "paper")
_EFFECTIVE = 0.999  # beta of the effective number of examples, between no weights (0) and inverse ones (1)


@dataclass(frozen=True)
class FairQAT:
    """Quantization-aware training in mixed precision, with a loss and a sampling that can favour groups.

    Each part can be had alone. `bits=None` without a quantizer rounds nothing, which is the control: the
    same further training in full precision.

    `first_last`: the width of the first and the last layer; None leaves them at `bits`.
    `loss_weights`: how much a group counts in the loss. None: every image alike. `inverse`: by one over
    the size of the group. `effective`: by one over its effective number of images (Cui et al. 2019),
    which is milder. `paper`: 0.6 for the smallest group, 0.4 for all others together (Bellam and Kim
    2025). Or a number for each group.
    `sampling`: how often a group is seen in an epoch. None: as often as it has images. `over`: each group
    as often as the largest. `under`: as the smallest. `both`: as the average group.
    `quantizer`: what rounds the weights; by default symmetrically, one scale for each tensor.
    `recipe`: how long and how fast. Raise `epochs` when the loss still falls at the end.

    Batch norm keeps learning its statistics, because those of the original do not fit rounded weights.

    >>> FairQAT(4, sampling="sideways")
    Traceback (most recent call last):
        ...
    fairq_utils.errors.BadInput: sampling is 'sideways'; expected None, over, under or both.
    """

    bits: int | None
    _: KW_ONLY
    first_last: int | None = 8
    loss_weights: str | Sequence[float] | None = None
    sampling: str | None = None
    quantizer: Quantizer | None = None
    recipe: Recipe = field(default_factory=lambda: Recipe(epochs=4, learning_rate=0.01))

    def __post_init__(self) -> None:
        if self.sampling not in (None, "over", "under", "both"):
            raise BadInput(f"sampling is {self.sampling!r}; expected None, over, under or both.")
        if isinstance(self.loss_weights, str) and self.loss_weights not in _NAMED_WEIGHTS:
            raise BadInput(
                f"loss_weights is {self.loss_weights!r}; expected None, {', '.join(_NAMED_WEIGHTS)} "
                "or a number for each group."
            )

    def fit(
        self,
        model: nn.Module,
        data: Dataset,
        *,
        seed: int = 0,
        description: str = "FairQAT",
        report: Callable[[int], object] | None = None,
    ) -> nn.Module:
        """A copy of the model, trained further on the training images, with its weights on the grid."""
        groups = data.groups[data.is_train]
        sizes = torch.bincount(groups, minlength=len(data.group_names))
        if not sizes.all():
            missing = data.group_names[int((sizes == 0).nonzero()[0])]
            raise BadInput(f"group {missing} has no training image; expected at least one of each group.")
        trained = fit(
            self._quantized(model),
            data.images[data.is_train],
            data.labels[data.is_train],
            recipe=self.recipe,
            seed=seed,
            example_weights=self._group_weights(sizes)[groups] if self.loss_weights is not None else None,
            rows=partial(_sample, groups, sizes, self.sampling) if self.sampling else None,
            description=description,
            report=report,
        )
        return bake(trained)

    def _quantized(self, model: nn.Module) -> nn.Module:
        if quantizer := self.quantizer or (UniformQuantizer(self.bits) if self.bits else None):
            return quantize_model(model, quantizer, first_last=self.first_last)
        return copy.deepcopy(model)

    def _group_weights(self, sizes: Tensor) -> Tensor:
        if self.loss_weights == "inverse":
            return 1 / sizes
        if self.loss_weights == "effective":
            return (1 - _EFFECTIVE) / (1 - _EFFECTIVE**sizes)
        if self.loss_weights == "paper":
            weights = torch.full_like(sizes, 0.4 / max(len(sizes) - 1, 1), dtype=torch.float32)
            weights[sizes.argmin()] = 0.6
            return weights
        weights = torch.as_tensor(self.loss_weights, dtype=torch.float32)
        if weights.shape != sizes.shape or not (weights >= 0).all() or not weights.any():
            raise BadInput(
                f"loss_weights is {self.loss_weights}; expected {len(sizes)} numbers of at least 0, one for "
                "each group."
            )
        return weights


def _sample(groups: Tensor, sizes: Tensor, sampling: str, random: torch.Generator) -> Tensor:
    """The images of one epoch: every group equally often, in random order.

    A group with more images than that shows a random part of them; one with fewer shows each, and some
    again.
    """
    wanted = {"over": sizes.max(), "under": sizes.min(), "both": sizes.float().mean().round()}[sampling]
    drawn = []
    for group, size in enumerate(sizes.tolist()):
        own = (groups == group).nonzero().flatten()
        rounds = -(-int(wanted) // size)
        shuffled = torch.cat([own[torch.randperm(size, generator=random)] for _ in range(rounds)])
        drawn.append(shuffled[: int(wanted)])
    rows = torch.cat(drawn)
    return rows[torch.randperm(len(rows), generator=random)]
