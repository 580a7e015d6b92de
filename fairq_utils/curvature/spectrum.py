"""Eigenvalues, spectral density and slices of the loss, and how much a step can raise it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal, Unpack

import numpy as np
import torch
from scipy.linalg import eigh_tridiagonal
from torch import Tensor, nn

from fairq_utils.curvature.hessian import Hessian, Where, dot, euclidean_norm
from fairq_utils.errors import BadInput

# What some tens of roundings amount to, relative to the Hessian's norm: below it a residual says nothing.
_ROUNDINGS = 32


class NotConverged(BadInput):
    """The eigenvalue was not reached; `value`, `residual` and `iterations` are where it stopped.

    `value` is no answer: the eigenvalue may lie well beyond it. Allow more `max_iterations` or a larger
    `tol`; when the residual stays near the rounding of float32, give the model in float64.

    >>> raise NotConverged(value=3.9, residual=0.2, iterations=5, tol=0.001)
    Traceback (most recent call last):
        ...
    fairq_utils.curvature.spectrum.NotConverged: the residual of the eigenvalue is 0.2 after 5 iterations
    (value
    3.9); expected at most 0.0039 (tol=0.001): allow more max_iterations or a larger tol.
    """

    def __init__(self, *, value: float, residual: float, iterations: int, tol: float):
        super().__init__(
            f"the residual of the eigenvalue is {residual:.3g} after {iterations} iterations (value "
            f"{value:.6g}); expected at most {tol * abs(value):.3g} (tol={tol:g}): allow more "
            "max_iterations or a larger tol."
        )
        self.value, self.residual, self.iterations, self.tol = value, residual, iterations, tol

    def __reduce__(self) -> tuple:  # an exception's own way forgets keywords, and workers send theirs home
        return partial(NotConverged, **vars(self)), ()


@dataclass(frozen=True, eq=False)
class Eigenvalue:
    """An eigenvalue of the Hessian, with `|H v - value v|` as `residual` and the unit vector v.

    An eigenvalue lies within `residual` of `value`; `vector` is ordered as `Hessian.names`.
    """

    value: float
    residual: float
    iterations: int
    vector: Tensor


@dataclass(frozen=True)
class Trace:
    """An estimate of the Hessian's trace and its standard error, after so many products."""

    value: float
    standard_error: float
    products: int


@dataclass(frozen=True, eq=False)
class SpectralDensity:
    """The Hessian's spectrum as a histogram of unequal bars: `weights` (they sum to 1) at `eigenvalues`."""

    eigenvalues: Tensor
    weights: Tensor

    def smooth(self, at: Tensor, *, width: float) -> Tensor:
        """The density at the points `at`, each bar blurred by a Gaussian of standard deviation `width`.

        >>> bars = SpectralDensity(torch.tensor([0.0, 4.0]), torch.tensor([0.75, 0.25]))
        >>> bars.smooth(torch.tensor([0.0, 4.0]), width=0.5)
        tensor([0.5984, 0.1995])
        """
        distance = (at[:, None] - self.eigenvalues.to(at)) / width
        return torch.exp(-(distance**2) / 2) @ self.weights.to(at) / (width * math.sqrt(2 * math.pi))


def top_eigenvalue(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    tol: float = 1e-3,
    max_iterations: int = 100,
    seed: int = 0,
    **where: Unpack[Where],
) -> Eigenvalue:
    """The largest signed eigenvalue of the Hessian, by Lanczos with full reorthogonalisation.

    A negative eigenvalue of larger magnitude does not count. It has converged when its residual is at most
    `tol` times the value (or no more than rounding, when the value is next to 0), and raises `NotConverged`
    otherwise. An iteration costs one product, about two gradients.

    A residual proves that the value is an eigenvalue; that it is the largest rests on the random start, of
    which every eigenvector has a share. Where two lie close together, another `seed` is a cheap check.

    >>> model = nn.Linear(2, 1, bias=False)
    >>> images, labels = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.zeros(2, 1)
    >>> top = top_eigenvalue(model, images, labels, loss=nn.MSELoss())
    >>> round(top.value, 4), top.iterations, top.vector.abs().round(decimals=4)
    (4.0, 2, tensor([0., 1.]))
    """
    return _extreme(Hessian(model, images, labels, **where), -1, tol, max_iterations, seed)


def trace(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    products: int = 30,
    seed: int = 0,
    **where: Unpack[Where],
) -> Trace:
    """The trace of the Hessian by Hutch++ (Meyer et al. 2021), with a standard error.

    A third of the products finds the large eigenvalues, a third sums them exactly, and a third samples the
    rest. The error comes from these last samples: when it is too large, allow more `products`.

    >>> model = nn.Linear(2, 1, bias=False)
    >>> images, labels = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.zeros(2, 1)
    >>> round(trace(model, images, labels, products=6, loss=nn.MSELoss()).value, 4)
    5.0
    """
    third = products // 3
    if third < 2:
        raise BadInput(f"products is {products}; expected 6 or more, three thirds of at least two.")
    hessian = Hessian(model, images, labels, **where)
    samples = _gaussian_vectors(hessian, seed)
    sketch = torch.stack([hessian @ next(samples) for _ in range(min(third, hessian.size))], dim=1)
    basis = torch.linalg.qr(sketch).Q
    del sketch
    large = sum(dot(column, hessian @ column) for column in basis.T)
    rest = []
    for _ in range(third):
        sample = next(samples)
        sample -= basis @ (basis.T @ sample)
        rest.append(dot(sample, hessian @ sample))
    return Trace(
        value=large + float(np.mean(rest)),
        standard_error=float(np.std(rest, ddof=1)) / math.sqrt(third),
        products=2 * basis.shape[1] + third,
    )


def spectral_density(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    steps: int = 30,
    probes: int = 3,
    seed: int = 0,
    **where: Unpack[Where],
) -> SpectralDensity:
    """The distribution of the Hessian's eigenvalues, by stochastic Lanczos quadrature.

    `steps` products from each of `probes` random vectors. The ends of the spectrum are sharp after few
    steps; too few of them show the bulk as lumps, and too few probes make the lumps' weights noisy.

    >>> model = nn.Linear(2, 1, bias=False)
    >>> images, labels = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.zeros(2, 1)
    >>> density = spectral_density(model, images, labels, probes=1, loss=nn.MSELoss())
    >>> density.eigenvalues, round(density.weights.sum().item(), 4)
    (tensor([1.0000, 4.0000], dtype=torch.float64), 1.0)
    """
    if steps < 1 or probes < 1:
        raise BadInput(f"steps is {steps} and probes is {probes}; expected 1 or more of each.")
    hessian = Hessian(model, images, labels, **where)
    samples = _gaussian_vectors(hessian, seed)
    nodes, shares = [], []
    for _ in range(probes):
        *_, last = _lanczos(hessian, next(samples), steps)
        nodes.append(last.values)
        shares.append(last.vectors[0] ** 2 / probes)
    values, weights = np.concatenate(nodes), np.concatenate(shares)
    order = np.argsort(values)
    return SpectralDensity(torch.from_numpy(values[order]), torch.from_numpy(weights[order]))


# -- the algorithms ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Krylov:
    basis: list[Tensor]
    values: np.ndarray
    vectors: np.ndarray
    beta: float


def _lanczos(hessian: Hessian, start: Tensor, steps: int) -> Iterator[_Krylov]:
    """The Ritz values after 1, 2, ... products, until `steps` or until the space is invariant."""
    basis: list[Tensor] = []
    alphas: list[float] = []
    betas: list[float] = []
    w, beta = start, euclidean_norm(start)
    while len(basis) < min(steps, hessian.size):
        basis.append(w.div_(beta))
        w = hessian @ basis[-1]
        alphas.append(dot(basis[-1], w))
        # First what theory says is there, known exactly, then against all vectors what rounding left.
        for v, coefficient in zip(basis[-2:], [*betas[-1:], alphas[-1]], strict=True):
            w.sub_(v, alpha=coefficient)
        for v in basis:
            w.sub_(v, alpha=torch.dot(v, w).item())
        beta = euclidean_norm(w) if len(basis) < hessian.size else 0.0
        values, vectors = eigh_tridiagonal(alphas, betas)
        yield _Krylov(basis, values, vectors, beta)
        if beta <= _rounding(hessian, values):
            return
        betas.append(beta)


def _extreme(hessian: Hessian, end: Literal[0, -1], tol: float, max_iterations: int, seed: int) -> Eigenvalue:
    if max_iterations < 1 or not tol > 0:
        raise BadInput(
            f"max_iterations is {max_iterations} and tol is {tol}; expected at least 1, and more than 0."
        )
    start = next(_gaussian_vectors(hessian, seed))
    if end == -1:
        # The gradient leans towards the top: it saves an iteration or two. Its share is kept so small that
        # an eigenvector orthogonal to it still stands out above the tolerance.
        start += min(100.0, 0.1 / tol) * nn.functional.normalize(hessian.gradient(), dim=0)
    for krylov in _lanczos(hessian, start, max_iterations):
        value, weights = float(krylov.values[end]), krylov.vectors[:, end]
        residual = krylov.beta * abs(float(weights[-1]))
        if residual <= max(tol * abs(value), _rounding(hessian, krylov.values)):
            vector = torch.zeros_like(start)
            for weight, v in zip(weights, krylov.basis, strict=True):
                vector.add_(v, alpha=weight)
            return Eigenvalue(value, residual, len(krylov.basis), vector)
    raise NotConverged(value=value, residual=residual, iterations=len(krylov.basis), tol=tol)


def _rounding(hessian: Hessian, values: np.ndarray) -> float:
    return _ROUNDINGS * torch.finfo(hessian.parameters[0].dtype).eps * float(np.abs(values).max())


def _gaussian_vectors(hessian: Hessian, seed: int) -> Iterator[Tensor]:
    """Random vectors, the same on every device and in every precision."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randn(hessian.size, generator=generator, dtype=torch.float32).to(hessian.parameters[0])
