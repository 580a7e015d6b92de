"""Training on small images: windows of an encoder as convolutions."""

import statistics
import time
from collections.abc import Callable, Iterator
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import scaled
from fairq_utils.encoders import mini
from fairq_utils.encoders.contrastive import ContrastiveRecipe, train_mini_clip


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
