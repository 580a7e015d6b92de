"""The top eigenvalue of one group, against PyHessian and against what its gradients alone would take."""

import copy
import warnings
from collections.abc import Callable, Iterator
from statistics import median
from time import perf_counter

import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from fairq_utils.landscape import top_eigenvalue

ROUNDS = 3


def _seconds(work: Callable[[], object]) -> float:
    start = perf_counter()
    work()
    return perf_counter() - start


def _trained_network_and_a_group() -> tuple[nn.Module, Tensor, Tensor]:
    """ResNet18 trained for a minute on five noisy patterns, and 256 images of one of them."""
    torch.manual_seed(0)
    model = resnet18(num_classes=5)
    patterns = nn.functional.interpolate(torch.randn(5, 3, 8, 8), scale_factor=8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    for _ in range(60):
        labels = torch.randint(5, (64,))
        images = 0.1 * patterns[labels] + torch.randn(64, 3, 64, 64)
        wrong = torch.rand(64) < 0.2  # or the loss, and with it the Hessian, would vanish
        optimizer.zero_grad()
        targets = torch.where(wrong, torch.randint(5, (64,)), labels)
        nn.functional.cross_entropy(model(images), targets).backward()
        optimizer.step()
    return model.eval(), 0.1 * patterns[0] + torch.randn(256, 3, 64, 64), torch.zeros(256, dtype=torch.long)


def cases() -> Iterator[dict]:
    model, images, labels = _trained_network_and_a_group()
    parameters = list(model.parameters())
    case = "top eigenvalue of one group (256 images 64x64, ResNet18), residual 1e-3"

    def gradient() -> object:
        return torch.autograd.grad(nn.functional.cross_entropy(model(images), labels), parameters)

    def pyhessian_eigenvalue(seed: int) -> float:
        torch.manual_seed(seed)
        data = (images, labels)
        peer = pyhessian.hessian(copy.deepcopy(model), nn.functional.cross_entropy, data=data, cuda=False)
        return peer.eigenvalues(tol=1e-3)[0][0]

    try:
        import pyhessian
    except ImportError:
        pyhessian = None
    gradient()
    top_eigenvalue(model, images, labels, max_iterations=100)
    products, over_gradients, over_peer, errors = [], [], [], []
    for seed in range(ROUNDS):
        start = perf_counter()
        ours = top_eigenvalue(model, images, labels, seed=seed)
        seconds = perf_counter() - start
        products.append(ours.iterations)
        over_gradients.append(seconds / (ours.iterations * 2 * _seconds(gradient)))
        if pyhessian:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that its graph refers to itself
                start = perf_counter()
                theirs = pyhessian_eigenvalue(seed)
                over_peer.append(seconds / (perf_counter() - start))
                errors.append(abs(theirs / ours.value - 1))
    yield {
        "case": case,
        "measured": median(over_peer) if over_peer else float("nan"),
        "unit": "x",
        "limit": 0.8,
        "peer": "PyHessian, tol 1e-3",
        "note": f"from {min(over_peer):.2f} to {max(over_peer):.2f}; {products} products, its value off by "
        f"{max(errors):.1e}"
        if over_peer
        else "peer not installed: make peers",
    }
    yield {
        "case": case,
        "measured": median(over_gradients),
        "unit": "x",
        "limit": 1.6,
        "peer": "products x 2 x one gradient",
        "note": f"from {min(over_gradients):.2f} to {max(over_gradients):.2f}",
    }
