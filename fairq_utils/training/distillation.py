"""Train a narrower network in place of another, with its labels or with what the other one says of images."""

from __future__ import annotations

from contextlib import suppress
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fairq_utils.data.datasets import Dataset
from fairq_utils.errors import BadInput
from fairq_utils.progress import Report
from fairq_utils.training.architectures import build
from fairq_utils.training.loop import Checkpoint, Recipe, fit, predict

_WIDEST = 128  # of what there is in several widths, and no number behind its name
TEMPERATURE = 4.0  # of Hinton et al. 2015, who tried from 1 to 20
_SOFT = 0.5  # how much the other network counts, beside the labels


@cache
def narrower(arch: str, share: float, *, classes: int, image_size: int = 32) -> str:
    """The architecture with fewer channels that has at most that share of the parameters, and as many as fit.

    >>> narrower("resnet18-16", 4 / 32, classes=5)
    'resnet18-5'
    """
    name, _, channels = arch.partition("-")
    most = share * _parameters(arch, classes, image_size)
    for fewer in range(int(channels or _WIDEST) - 1, 0, -1):
        with suppress(BadInput):  # not every number of channels goes with every architecture
            if _parameters(f"{name}-{fewer}", classes, image_size) <= most:
                return f"{name}-{fewer}"
    raise BadInput(
        f"arch is {arch!r}, of which there is no narrower one with {share:.1%} of its parameters; expected "
        "another, or more bits."
    )


def _parameters(arch: str, classes: int, image_size: int) -> int:
    with torch.device("meta"):
        network = build(arch, classes=classes, image_size=image_size)
    return sum(one.numel() for one in network.parameters())


class SoftLabels(nn.Module):
    """Half the cross entropy, half the divergence from what another network says, both at a temperature.

    The divergence counts by the squared temperature, so that its gradient is as large at any. With a
    temperature the other network also says which wrong answers are less wrong.
    """

    logits: Tensor

    def __init__(self, logits: Tensor, *, temperature: float = TEMPERATURE) -> None:
        super().__init__()
        if not temperature > 0:
            raise BadInput(f"temperature is {temperature}; expected a number above 0.")
        self.register_buffer("logits", logits)
        self.temperature = temperature

    def forward(self, logits: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        """The loss of a batch: of its logits, its labels, and the places of its images."""
        soft = F.kl_div(
            (logits / self.temperature).log_softmax(1),
            (self.logits[rows] / self.temperature).log_softmax(1),
            log_target=True,
            reduction="batchmean",
        )
        return (1 - _SOFT) * F.cross_entropy(logits, labels) + _SOFT * self.temperature**2 * soft


def train_narrower(
    network: nn.Module,
    data: Dataset,
    *,
    arch: str,
    distilled: bool,
    recipe: Recipe,
    seed: int = 0,
    description: str = "training",
    report: Report | None = None,
    checkpoint: Checkpoint | None = None,
) -> nn.Module:
    """A network of that architecture, trained from scratch on the training images, in evaluation mode.

    `distilled`: half of its loss is how far it is from `network`, as `SoftLabels` says. What that one says is
    asked once, of each image as it is, though training moves and mirrors them.
    """
    own = data.is_train
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        begun = build(arch, classes=len(data.label_names), image_size=data.images.shape[-1])
    return fit(
        begun,
        data.images[own],
        data.labels[own],
        recipe=recipe,
        seed=seed,
        loss=SoftLabels(predict(network, data.images[own])) if distilled else None,
        description=description,
        report=report,
        checkpoint=checkpoint,
        method=f"{arch} distilled" if distilled else arch,
    )
