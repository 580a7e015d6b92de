"""Training on small images: convolutions as matrix products, and windows of an encoder as convolutions."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import scaled
from fairq_utils.encoders import mini
from fairq_utils.encoders.contrastive import ContrastiveRecipe, train_mini_clip
from fairq_utils.training import small_convolutions
from fairq_utils.training.architectures import build
from fairq_utils.training.loop import Recipe, fit, predict
from fairq_utils.training.small_convolutions import ConvolutionsAsProducts


def seconds(work: Callable[[], object], way: type) -> float:
    """With convolutions done in this way."""
    with patch.object(small_convolutions, "ConvolutionsAsProducts", way):
        start = time.perf_counter()
        work()
        return time.perf_counter() - start


def ratio(work: Callable[[], object], *, runs: int) -> float:
    """Of the time with products to that without, in turns; the median of pairs."""
    seconds(work, ConvolutionsAsProducts)
    return statistics.median(
        seconds(work, ConvolutionsAsProducts) / seconds(work, nullcontext) for _ in range(runs)
    )


def unfolded(layer: nn.Module, picture: Tensor, stride: int) -> Tensor:
    """Windows as the encoders see them when they are used: laid out, and multiplied."""
    return layer(F.unfold(picture, 3, padding=1, stride=stride).transpose(1, 2)).flatten(0, 1)


def ratio_of_encoders(count: int, *, runs: int) -> float:
    """Of the time that a small encoder trains with convolutions to that with windows laid out."""
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8)
    words, once = ("a", "moth"), ContrastiveRecipe(epochs=1)

    def taken(way: Callable[[nn.Module, Tensor, int], Tensor]) -> float:
        with patch.object(mini, "_at_each_window", way):
            start = time.perf_counter()
            train_mini_clip(
                "patch8", images, [words] * count, words=words, recipe=once, report=lambda *_: None
            )
            return time.perf_counter() - start

    ours = mini._at_each_window
    taken(ours)
    return statistics.median(taken(ours) / taken(unfolded) for _ in range(runs))


def cases(scale: float = 1.0) -> Iterator[dict]:
    count = scaled(256, scale, least=5)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as jobs run
    for size, limits in ((32, (0.6, 0.9)), (64, (0.8, 0.95))):
        images = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8)
        network = build("resnet18", classes=5, image_size=size)
        labels, once = torch.arange(count) % 5, Recipe(epochs=1, learning_rate=1e-6)
        work = {
            "trained on": lambda x=images, y=labels, n=network, r=once: fit(
                n, x, y, recipe=r, report=lambda *_: None
            ),
            "run over": lambda x=images, n=network: predict(n, x),
        }
        for (name, own), limit in zip(work.items(), limits, strict=True):
            yield {
                "case": f"{count} images of {size} x {size} pixels, {name} by a ResNet18",
                "measured": ratio(own, runs=scaled(7, scale)),
                "unit": "",
                "limit": limit,
                "peer": "PyTorch's convolutions",
                "note": "",
            }
    yield {
        "case": f"{count} images of 32 x 32 pixels and captions, trained on by a MiniCLIP",
        "measured": ratio_of_encoders(count, runs=scaled(5, scale)),
        "unit": "",
        "limit": 0.9,
        "peer": "windows laid out by unfold",
        "note": "",
    }
    torch.set_num_threads(threads)


if __name__ == "__main__":
    print(*cases(), sep="\n")
