"""Training and running a ResNet18 on small images, whose last convolutions are done as matrix products."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from unittest.mock import patch

import torch

from fairq_utils import training
from fairq_utils.architectures import build
from fairq_utils.small_maps import AsProducts
from fairq_utils.training import Recipe, fit, predict

IMAGES = 256


def seconds(work: Callable[[], object], way: type) -> float:
    """With convolutions done in this way."""
    with patch.object(training, "AsProducts", way):
        start = time.perf_counter()
        work()
        return time.perf_counter() - start


def ratio(work: Callable[[], object], *, runs: int = 7) -> float:
    """Of the time with products to that without, in turns; the median of pairs."""
    seconds(work, AsProducts)
    return statistics.median(seconds(work, AsProducts) / seconds(work, nullcontext) for _ in range(runs))


def cases() -> Iterator[dict]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as jobs run
    for size, limits in ((32, (0.6, 0.9)), (64, (0.8, 0.95))):
        images = torch.randint(0, 256, (IMAGES, 3, size, size), dtype=torch.uint8)
        network = build("resnet18", classes=5, image_size=size)
        labels, once = torch.arange(IMAGES) % 5, Recipe(epochs=1, learning_rate=1e-6)
        work = {
            "trained on": lambda x=images, y=labels, n=network, r=once: fit(
                n, x, y, recipe=r, report=lambda *_: None
            ),
            "run over": lambda x=images, n=network: predict(n, x),
        }
        for (name, own), limit in zip(work.items(), limits, strict=True):
            yield {
                "case": f"{IMAGES} images of {size} x {size} pixels, {name} by a ResNet18",
                "measured": ratio(own),
                "unit": "",
                "limit": limit,
                "peer": "PyTorch's convolutions",
                "note": "",
            }
    torch.set_num_threads(threads)


if __name__ == "__main__":
    print(*cases(), sep="\n")
