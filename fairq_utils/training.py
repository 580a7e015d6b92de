"""Make a full-precision network from images, and run it."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fairq_utils.architectures import build
from fairq_utils.errors import BadInput
from fairq_utils.progress import progress


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained: SGD with Nesterov momentum; the rate climbs for a quarter and falls to 0.

    When training diverges, lower `learning_rate`; when groups are still far from their final accuracy,
    raise `epochs`.

    >>> Recipe(epochs=2).epochs
    2
    >>> Recipe(epochs=0)
    Traceback (most recent call last):
        ...
    fairq_utils.errors.BadInput: epochs is 0; expected a whole number of at least 1.
    """

    epochs: int = 8
    batch_size: int = 128
    learning_rate: float = 0.03
    momentum: float = 0.9
    weight_decay: float = 5e-4
    flip: bool = True  # mirror half of the images
    shift: float = 0.1  # move each image by up to this share of its width and height

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise BadInput(f"{name} is {value!r}; expected a whole number of at least 1.")
        if not self.learning_rate > 0:
            raise BadInput(f"learning_rate is {self.learning_rate!r}; expected a number above 0.")
        if not 0 <= self.shift < 0.5:
            raise BadInput(f"shift is {self.shift!r}; expected a share of the image from 0 to below 0.5.")


def default_device() -> torch.device:
    """The accelerator when there is one, else the CPU.

    >>> default_device().type in {"cpu", "cuda", "mps"}
    True
    """
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def train(
    arch: str,
    images: Tensor,
    labels: Tensor,
    *,
    classes: int,
    recipe: Recipe = Recipe(),
    seed: int = 0,
    weights: str | None = None,
    device: torch.device | None = None,
    description: str = "training",
    report: Callable[[int], object] | None = None,
) -> nn.Module:
    """Train a network of that architecture on uint8 images (N x 3 x H x W); it comes back in eval mode.

    From scratch, unless `weights` names some to begin with. What else is to be known says `fit`.

    >>> images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
    >>> network = train("resnet18", images, torch.arange(8) % 2, classes=2, recipe=Recipe(epochs=1))
    >>> predict(network, images).shape
    torch.Size([8, 2])
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build(arch, classes=classes, image_size=images.shape[-1], weights=weights)
    return fit(
        network,
        images,
        labels,
        recipe=recipe,
        seed=seed,
        device=device,
        description=description,
        report=report,
    )


def fit(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    recipe: Recipe = Recipe(),
    seed: int = 0,
    example_weights: Tensor | None = None,
    rows: Callable[[torch.Generator], Tensor] | None = None,
    device: torch.device | None = None,
    description: str = "training",
    report: Callable[[int], object] | None = None,
) -> nn.Module:
    """Train this very network further; it comes back on the CPU, in eval mode.

    The seed decides the order of the images and how each is moved: two runs on one machine with as many
    threads give equal weights. PyTorch's global random state is left as it was.

    `example_weights`: how much the loss of each image counts.
    `rows`: draws the images of one epoch, each as often as it is to be seen; by default each once.
    `report`: is told after each step how many images passed, a backward pass counting as two; without it
    a progress bar is drawn.

    >>> images = torch.randint(0, 256, (8, 3, 4, 4), dtype=torch.uint8)
    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    >>> fit(network, images, torch.arange(8) % 2, recipe=Recipe(epochs=1)) is network
    True
    """
    if len(images) < 2:
        raise BadInput(f"{len(images)} images to train on; expected at least 2.")
    device = device or default_device()
    network = network.to(device)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # missing from the stub
    images, labels = images.to(device), labels.to(device)
    if example_weights is not None:
        example_weights = example_weights.to(device)

    # Drawn on the CPU whatever the device, so that every device sees the same images in the same order.
    random = torch.Generator().manual_seed(seed)
    rows = rows or partial(_each_once, len(images))
    # A short last batch is dropped: of one image, BatchNorm could take no statistics.
    seen = len(rows(torch.Generator().manual_seed(seed)))
    batch_size = min(recipe.batch_size, seen)
    steps = seen // batch_size
    total = recipe.epochs * steps
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.momentum > 0,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _one_cycle((step + 1) / (total + 1)))
    network.train()
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng([device] if device.type == "cuda" else []))
        torch.manual_seed(seed)  # of dropout, where the architecture has it
        if report is None:
            bar = stack.enter_context(
                progress(total=3 * batch_size * total, description=description, unit="img")
            )
            report = bar.update
        for _ in range(recipe.epochs):
            for batch in rows(random).to(device).split(batch_size)[:steps]:
                seen_images = to_input(augment(images[batch], recipe, random))
                with torch.autocast(device.type, torch.bfloat16, enabled=has_fast_bfloat16(device)):
                    logits = network(seen_images)
                loss = _loss(logits.float(), labels[batch], example_weights, batch)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                schedule.step()
                report(3 * len(batch))
            if not torch.isfinite(loss):
                raise BadInput(
                    f"{description}: the loss became {loss.item()}; expected a finite number, "
                    f"so lower learning_rate (now {recipe.learning_rate})."
                )
    network = network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload] # likewise
    return network.eval().to("cpu")


def _each_once(count: int, random: torch.Generator) -> Tensor:
    return torch.randperm(count, generator=random)


def _loss(logits: Tensor, labels: Tensor, weights: Tensor | None, rows: Tensor) -> Tensor:
    if weights is None:
        return F.cross_entropy(logits, labels)
    losses = F.cross_entropy(logits, labels, reduction="none")
    return (losses * weights[rows]).sum() / weights[rows].sum()


@torch.no_grad()
def predict(network: nn.Module, images: Tensor, *, batch_size: int = 500) -> Tensor:
    """Logits of every image, on the network's own device, returned on the CPU.

    In float32 throughout: what is to be compared must not drown in the rounding of bfloat16.

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    >>> predict(network, torch.zeros(7, 3, 2, 2, dtype=torch.uint8)).shape
    torch.Size([7, 3])
    """
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()
    try:
        return torch.cat(
            [network(to_input(batch.to(device))).float().cpu() for batch in images.split(batch_size)]
        )
    finally:
        network.train(was_training)


def to_input(images: Tensor) -> Tensor:
    """What a network sees of uint8 images: float32, about zero mean and unit variance, channels last.

    >>> to_input(torch.tensor([0, 255], dtype=torch.uint8).reshape(2, 1, 1, 1)).flatten()
    tensor([-2.,  2.])
    """
    return images.float().div_(63.75).sub_(2.0).contiguous(memory_format=torch.channels_last)


def augment(images: Tensor, recipe: Recipe, random: torch.Generator) -> Tensor:
    """Each image mirrored or not, and moved a little; what moves in at the edge repeats the edge.

    >>> image = torch.arange(4, dtype=torch.uint8).reshape(1, 1, 1, 4)
    >>> always = Recipe(flip=True, shift=0.0)
    >>> sorted(augment(image, always, torch.Generator().manual_seed(s)).flatten().tolist() for s in (0, 1))
    [[0, 1, 2, 3], [3, 2, 1, 0]]
    """
    count, _, height, width = images.shape

    def positions(size: int, mirrored: Tensor) -> Tensor:
        reach = round(recipe.shift * size)
        offset = torch.randint(-reach, reach + 1, (count, 1), generator=random)
        along = torch.arange(size).expand(count, size)
        along = torch.where(mirrored, size - 1 - along, along)
        return (along + offset).clamp_(0, size - 1).to(images.device)

    mirrored = torch.rand(count, 1, generator=random) < (0.5 if recipe.flip else 0.0)
    columns = positions(width, mirrored)[:, None, None, :]
    rows = positions(height, torch.zeros(count, 1, dtype=torch.bool))[:, None, :, None]
    moved = images.gather(2, rows.expand_as(images))
    return moved.gather(3, columns.expand_as(images))


def _one_cycle(done: float) -> float:
    """The share of the learning rate when so much of the training is done: up a line, down half a cosine."""
    climb = 0.25
    return done / climb if done < climb else 0.5 * (1 + math.cos(math.pi * (done - climb) / (1 - climb)))


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is computed natively: on a CPU without it, autocast is slower than float32.

    >>> has_fast_bfloat16(torch.device("meta"))
    False
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    capabilities = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))
