"""The top eigenvalue of one group, against PyHessian and against what its gradients alone would take."""

import copy
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate
from torchvision.models import resnet18

from benchmarks import scaled
from fairq_utils.curvature.spectrum import top_eigenvalue


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = perf_counter()
    result = work()
    return perf_counter() - start, result


def _trained_network_and_a_group(steps: int, count: int, side: int) -> tuple[nn.Module, Tensor, Tensor]:
    """ResNet18 trained for so many steps on five noisy patterns, and so many images of one of them."""
    torch.manual_seed(0)
    model = resnet18(num_classes=5)
    patterns = interpolate(torch.randn(5, 3, 8, 8), size=(side, side))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    for _ in range(steps):
        labels = torch.randint(5, (64,))
        images = 0.1 * patterns[labels] + torch.randn(64, 3, side, side)
        wrong = torch.rand(64) < 0.2  # or the loss, and with it the Hessian, would vanish
        optimizer.zero_grad()
        targets = torch.where(wrong, torch.randint(5, (64,)), labels)
        cross_entropy(model(images), targets).backward()
        optimizer.step()
    images = 0.1 * patterns[0] + torch.randn(count, 3, side, side)
    return model.eval(), images, torch.zeros(count, dtype=torch.long)


def cases(scale: float = 1.0) -> Iterator[dict]:
    steps = scaled(60, scale)  # a minute of training
    count, side = scaled(256, scale), scaled(64, scale, least=32)
    model, images, labels = _trained_network_and_a_group(steps, count, side)
    parameters = list(model.parameters())
    case = f"top eigenvalue of one group ({count} images {side}x{side}, ResNet18), residual 1e-3"
    try:
        import pyhessian
    except ImportError:
        pyhessian = None

    def gradient() -> object:
        return torch.autograd.grad(cross_entropy(model(images), labels), parameters)

    def peer(seed: int) -> float:
        torch.manual_seed(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its graph refers to itself
            data = (images, labels)
            hessian = pyhessian.hessian(copy.deepcopy(model), cross_entropy, data=data, cuda=False)
        return hessian.eigenvalues(tol=1e-3)[0][0]

    gradient(), top_eigenvalue(model, images, labels)  # warm-up
    products, over_gradients, over_peer, errors = [], [], [], []
    for seed in range(scaled(3, scale)):
        seconds, ours = _timed(partial(top_eigenvalue, model, images, labels, seed=seed))
        products.append(ours.iterations)
        over_gradients.append(seconds / (ours.iterations * 2 * _timed(gradient)[0]))
        if pyhessian:
            their_seconds, theirs = _timed(partial(peer, seed))
            over_peer.append(seconds / their_seconds)
            errors.append(abs(theirs / ours.value - 1))
    yield {
        "case": case,
        "measured": median(over_peer) if over_peer else float("nan"),
        "unit": "x",
        "limit": 0.8,
        "peer": "PyHessian, tol 1e-3",
        "note": f"{min(over_peer):.2f} to {max(over_peer):.2f}; its value is off by {max(errors):.0e}"
        if over_peer
        else "PyHessian is not installed: make peers",
    }
    yield {
        "case": case,
        "measured": median(over_gradients),
        "unit": "x",
        "limit": 1.6,
        "peer": "products x 2 x one gradient",
        "note": f"{min(over_gradients):.2f} to {max(over_gradients):.2f}; {products} products",
    }
