"""Train small encoders by captions or by labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fairq_utils.encoders.mini import MiniClassifier, MiniCLIP, MiniEncoder, WordTokenizer
from fairq_utils.errors import BadInput
from fairq_utils.progress import Report, progress, reporting
from fairq_utils.training.loop import Recipe, augment, default_device
from fairq_utils.training.schedules import one_cycle, require_finite


@dataclass(frozen=True, kw_only=True)
class ContrastiveRecipe:
    """How a MiniCLIP is trained: AdamW; the rate climbs for a tenth and falls to 0.

    Of a batch, each image is to find its caption among all, and each caption its image. When accuracy is
    still far from what it should be, raise `epochs`.

    >>> ContrastiveRecipe(epochs=0)
    Traceback (most recent call last):
        ...
    fairq_utils.errors.BadInput: epochs is 0; expected a whole number of at least 1.
    """

    epochs: int = 8
    batch_size: int = 50
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    shift: float = 0.06  # move each image by up to this share of its width and height

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 2)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise BadInput(f"{name} is {value!r}; expected a whole number of at least {least}.")
        if not isinstance(self.learning_rate, int | float) or not 0 < self.learning_rate < math.inf:
            raise BadInput(f"learning_rate is {self.learning_rate!r}; expected a number above 0.")


def train_mini_clip(
    arch: str,
    images: Tensor,
    captions: Sequence[Sequence[str]],
    *,
    words: Sequence[str],
    recipe: ContrastiveRecipe = ContrastiveRecipe(),
    seed: int = 0,
    device: torch.device | None = None,
    description: str = "training",
    report: Report | None = None,
) -> MiniCLIP:
    """Train a MiniCLIP on uint8 images, each with one caption or several; it comes back in eval mode.

    An epoch shows each image once, with one of its captions. `report` is told how many images passed, a
    backward pass counting as two. The seed decides everything that is drawn.

    >>> images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
    >>> captions = [("a pale moth",), ("a dark moth", "dark")] * 4
    >>> once = ContrastiveRecipe(epochs=1, batch_size=4)
    >>> encoder = train_mini_clip("patch8", images, captions, words=("a", "pale", "dark"), recipe=once)
    >>> encoder.training
    False
    """
    if len(images) != len(captions) or len(images) < 2:
        raise BadInput(
            f"{len(images)} images and captions for {len(captions)}; expected captions for each of at least "
            "2 images."
        )
    if not all(captions):
        raise BadInput("an image has no caption; expected at least one for each: leave that image out.")
    with _seeded(seed):
        encoder = MiniCLIP(arch, WordTokenizer(tuple(words)), image_size=images.shape[-1])
    distinct = list(dict.fromkeys(text for several in captions for text in several))
    place = {text: number for number, text in enumerate(distinct)}
    tokens = encoder.tokenizer(distinct)
    said = [torch.tensor([place[text] for text in several]) for several in captions]

    def texts_of(order: Tensor, random: torch.Generator) -> Tensor:
        chosen = [said[i][torch.randint(len(said[i]), (), generator=random)] for i in order.tolist()]
        return tokens[torch.stack(chosen)]

    def loss_of(pictures: Tensor, texts: Tensor) -> Tensor:
        """How far images and captions of a batch are from finding their own among all."""
        logits = _close(encoder, pictures, encoder.token_features(texts))
        own = torch.arange(len(logits), device=logits.device)
        return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2

    return _train(encoder, images, texts_of, loss_of, recipe, seed, device, description, report)


def train_mini_classifier(
    arch: str,
    images: Tensor,
    labels: Tensor,
    *,
    names: Sequence[str],
    recipe: ContrastiveRecipe = ContrastiveRecipe(),
    seed: int = 0,
    device: torch.device | None = None,
    description: str = "training",
    report: Report | None = None,
) -> MiniClassifier:
    """A MiniClassifier trained from labels, which index `names`: each image is to find its class.

    >>> images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
    >>> once = ContrastiveRecipe(epochs=1, batch_size=4)
    >>> labels = torch.tensor([0, 1] * 4)
    >>> classifier = train_mini_classifier("patch8", images, labels, names=("pale", "dark"), recipe=once)
    >>> classifier.encode_texts(["dark"]).shape
    torch.Size([1, 64])
    """
    if len(images) != len(labels) or len(images) < 2:
        raise BadInput(
            f"{len(images)} images and {len(labels)} labels; expected a label for each of at least 2 images."
        )
    with _seeded(seed):
        classifier = MiniClassifier(arch, names, image_size=images.shape[-1])

    def labels_of(order: Tensor, random: torch.Generator) -> Tensor:
        return labels[order]

    def loss_of(pictures: Tensor, own: Tensor) -> Tensor:
        return F.cross_entropy(
            _close(classifier, pictures, classifier.class_features()), own.to(pictures.device)
        )

    return _train(classifier, images, labels_of, loss_of, recipe, seed, device, description, report)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _close(encoder: MiniEncoder, pictures: Tensor, texts: Tensor) -> Tensor:
    """How close each image is to each text, times the logit scale."""
    pictures, texts = F.normalize(pictures.float(), dim=-1), F.normalize(texts.float(), dim=-1)
    with torch.autocast(pictures.device.type, enabled=False):
        return encoder.log_scale.exp() * pictures @ texts.T


Encoder = TypeVar("Encoder", bound=MiniEncoder)


def _train(
    encoder: Encoder,
    images: Tensor,
    beside: Callable[[Tensor, torch.Generator], Tensor],
    loss_of: Callable[[Tensor, Tensor], Tensor],
    recipe: ContrastiveRecipe,
    seed: int,
    device: torch.device | None,
    description: str,
    report: Report | None,
) -> Encoder:
    """`beside` says once an epoch what stands beside each image; `loss_of` judges a batch of both."""
    device = device or default_device()
    random = torch.Generator().manual_seed(seed)
    encoder = encoder.to(device).train()
    batch_size = min(recipe.batch_size, len(images))
    steps = len(images) // batch_size  # a short last batch is dropped: it would be an easier task
    total = recipe.epochs * steps
    # Weights of linear layers decay; biases, norms, vectors of words and places do not.
    linear = [layer.weight for layer in encoder.modules() if isinstance(layer, nn.Linear)]
    others = [weight for weight in encoder.parameters() if all(weight is not one for one in linear)]
    optimizer = torch.optim.AdamW(
        [
            {"params": linear, "weight_decay": recipe.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ],
        lr=recipe.learning_rate,
        betas=(0.9, 0.98),
        fused=device.type in ("cpu", "cuda"),
    )
    moves = Recipe(flip=True, shift=recipe.shift)
    bar = None
    if report is None:
        bar = progress(total=3 * total * batch_size, description=description, unit="img")
        report = reporting(bar)
    try:
        for step in range(total):
            if step % steps == 0:
                order = torch.randperm(len(images), generator=random)
                beside_images = beside(order, random)
            rows = slice(step % steps * batch_size, (step % steps + 1) * batch_size)
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * one_cycle((step + 1) / (total + 1))
            batch = augment(images[order[rows]], moves, random)
            # Layers this small are no faster in bfloat16 on a CPU.
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                pictures = encoder.image_features(batch)
                loss = loss_of(pictures, beside_images[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
            optimizer.step()
            with torch.no_grad():
                encoder.log_scale.clamp_(max=math.log(100))
            said_now = f"loss {loss.item():.2f}" if step % steps == steps - 1 else ""
            report(3 * batch_size, said_now)
            if said_now:
                require_finite(loss.item(), description, recipe.learning_rate)
    finally:
        if bar is not None:
            bar.close()
    return encoder.eval().to("cpu")
