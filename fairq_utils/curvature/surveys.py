"""What the loss is like around a network, group by group, on as many images of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from fairq_utils.curvature.hessian import Hessian, Parameters
from fairq_utils.curvature.spectrum import Eigenvalue, NotConverged, spectral_density, top_eigenvalue
from fairq_utils.data.datasets import Dataset
from fairq_utils.errors import BadInput
from fairq_utils.items import Item
from fairq_utils.progress import Report
from fairq_utils.training.loop import default_device, to_input

_FEWEST_PARTS, _MOST_PARTS = 4, 8
_STEPS = torch.linspace(-0.5, 1.5, 9, dtype=torch.float64)  # 0 the original, 1 the rounded network
_EACH_PRODUCT = 6  # passes forward that a product of Hessian and vector takes as long as
_USUAL_PRODUCTS = 6


@dataclass(frozen=True, kw_only=True)
class Survey:
    """How the landscape is measured, alike around every network.

    Which images are drawn, and where iterations start, is no part of it: that is told by the seed that the
    functions below are given. With the seed of the network, networks are looked at on different images, so
    that an interval over networks covers the images, and what is done to one of them on the same.

    `images_per_group`: so many images of each group, or as many as the smallest group has.
    `split`: of which images, train or test. Of the training images the network is near an optimum, which
    is where the theory speaks; the test images are those that accuracy is counted on.
    `tol`, `max_iterations`: as for `landscape.top_eigenvalue`. An eigenvalue lies within `tol` times its
    value of the one that is given, and mostly much nearer, since its error goes with the residual squared.
    `density_steps`: products of Hessian and vector behind a spectral density.

    >>> Survey(images_per_group=0)
    Traceback (most recent call last):
        ...
    fairq_utils.errors.BadInput: images_per_group is 0; expected a whole number of at least 1.
    """

    images_per_group: int = 64
    split: Literal["train", "test"] = "train"
    tol: float = 0.1
    max_iterations: int = 30
    density_steps: int = 10

    def __post_init__(self) -> None:
        for name in ("images_per_group", "max_iterations", "density_steps"):
            if type(value := getattr(self, name)) is not int or value < 1:
                raise BadInput(f"{name} is {value!r}; expected a whole number of at least 1.")
        if self.split not in ("train", "test"):
            raise BadInput(f"split is {self.split!r}; expected train or test.")
        if not self.tol > 0:
            raise BadInput(f"tol is {self.tol!r}; expected a number above 0, such as 0.1.")


@dataclass(frozen=True, eq=False)
class Sample:
    """Images of one group, as a network sees them."""

    group: int
    images: Tensor
    labels: Tensor


def samples(data: Dataset, survey: Survey, *, seed: int) -> list[Sample]:
    """Equally many images of each group, drawn anew for each seed; empty groups are left out.

    >>> from fairq_utils.data.sources import load
    >>> moths = load("moths", train_images=100, test_images=20)
    >>> [len(sample.images) for sample in samples(moths, Survey(), seed=0)]
    [6, 6, 6, 6, 6]
    """
    places = _places(data, survey)
    count = _count(places, survey)
    random = torch.Generator().manual_seed(seed)
    chosen = [own[torch.randperm(len(own), generator=random)[:count]] for own in places]
    return [
        Sample(group, to_input(data.images[rows]).contiguous(), data.labels[rows])
        for group, rows in enumerate(chosen)
        if len(rows)
    ]


def extremes(data: Dataset, survey: Survey) -> tuple[int, int]:
    """The groups with the most and with the fewest training images, of those that can be surveyed.

    Of equal ones it is the first that is taken for the largest, and the last for the smallest.

    >>> from fairq_utils.data.sources import load
    >>> extremes(load("moths", train_images=100, test_images=20), Survey())
    (0, 4)
    """
    sizes = torch.bincount(data.groups[data.is_train], minlength=len(data.group_names)).tolist()
    present = [group for group, own in enumerate(_places(data, survey)) if len(own)]
    return max(present, key=sizes.__getitem__), min(reversed(present), key=sizes.__getitem__)


def _places(data: Dataset, survey: Survey) -> list[Tensor]:
    """Of each group, where the images of the split are."""
    of_split = data.is_train if survey.split == "train" else data.is_test
    return [(of_split & (data.groups == group)).nonzero().flatten() for group in range(len(data.group_names))]


def _count(places: Sequence[Tensor], survey: Survey) -> int:
    return min([survey.images_per_group, *(len(own) for own in places if len(own))])


def parts(names: Sequence[str]) -> dict[str, list[str]]:
    """The weights, in their order, cut into a few parts of the network, each with a name.

    >>> parts(["conv1.weight", "layer1.0.weight", "layer1.1.weight", "layer2.weight", "fc.weight"])
    {'conv1': ['conv1.weight'], 'layer1': ['layer1.0.weight', 'layer1.1.weight'],
     'layer2': ['layer2.weight'], 'fc': ['fc.weight']}
    """
    runs: list[tuple[str, list[str]]] = []
    for depth in range(1, 1 + max(name.count(".") for name in names)):
        runs = [
            (key, list(own))
            for key, own in groupby(names, lambda name: _beginning(name, depth))  # noqa: B023
        ]
        if len(runs) >= _FEWEST_PARTS:
            break
    merged = {}
    for chosen in np.array_split(np.arange(len(runs)), min(_MOST_PARTS, len(runs))):
        first, last = runs[chosen[0]][0], runs[chosen[-1]][0]
        merged[first if first == last else f"{first} to {last}"] = [n for i in chosen for n in runs[i][1]]
    return merged


def _beginning(name: str, depth: int) -> str:
    return ".".join(name.removesuffix(".weight").split(".")[:depth])


# ---------------------------------------------------------------- what is measured


def measure(network: nn.Module, data: Dataset, survey: Survey, *, seed: int, report: Report) -> Item:
    """Loss, gradient norm and top eigenvalue of each group at the network, with respect to its weights.

    Beside the gradient norm on these images, `squared_gradient_norm` estimates the square of that on all
    images there could be, without bias, as `Hessian.squared_gradient_norm` does; it may be below 0.
    Where an eigenvalue was not reached, `converged` is 0, and value and residual are where it stopped.
    """
    network = network.to(default_device())
    rows = []
    for sample in samples(data, survey, seed=seed):
        rows.append([*_gradient(network, sample), *_top(network, sample, survey, seed)])
        report(_cost(len(sample.images)))
    return _in_columns(rows, (*_OF_GRADIENT, *_OF_EIGENVALUE), n=len(sample.images))


def measure_gradients(
    network: nn.Module, data: Dataset, survey: Survey, *, seed: int, report: Report
) -> Item:
    """As `measure`, without eigenvalues: where inputs are rounded, a gradient goes straight through that."""
    network = network.to(default_device())
    rows = []
    for sample in samples(data, survey, seed=seed):
        rows.append(_gradient(network, sample))
        report(_EACH_PRODUCT * len(sample.images))
    return _in_columns(rows, _OF_GRADIENT, n=len(sample.images))


def _gradient(network: nn.Module, sample: Sample) -> list[float]:
    hessian = Hessian(network, sample.images, sample.labels, parameters="weights")
    own = [hessian.loss(), hessian.gradient().norm().item(), hessian.squared_gradient_norm()]
    return [sample.group, *own]


def _in_columns(rows: Sequence[Sequence[float]], names: Sequence[str], *, n: int) -> Item:
    columns = zip(names, torch.tensor(rows, dtype=torch.float64).T, strict=True)
    return Item({name: column.clone() for name, column in columns}, {"n": n})


_OF_GRADIENT = ("group", "loss", "gradient_norm", "squared_gradient_norm")
_OF_EIGENVALUE = ("eigenvalue", "residual", "iterations", "converged")


def _top(
    network: nn.Module, sample: Sample, survey: Survey, seed: int, parameters: Parameters = "weights"
) -> list[float]:
    try:
        top: Eigenvalue | NotConverged = top_eigenvalue(
            network,
            sample.images,
            sample.labels,
            parameters=parameters,
            tol=survey.tol,
            max_iterations=survey.max_iterations,
            seed=seed,
        )
    except NotConverged as error:
        top = error
    return [top.value, top.residual, top.iterations, isinstance(top, Eigenvalue)]


def measure_parts(network: nn.Module, data: Dataset, survey: Survey, *, seed: int, report: Report) -> Item:
    """Gradient norm and top eigenvalue of each part, for the largest and the smallest group."""
    network = network.to(default_device())
    rows = []
    for sample in _of_extremes(data, survey, seed):
        hessian = Hessian(network, sample.images, sample.labels, parameters="weights")
        gradient = dict(zip(hessian.names, _split(hessian, hessian.gradient()), strict=True))
        for number, own in enumerate(parts(hessian.names).values()):
            norm = parameters_to_vector([gradient[name] for name in own]).norm().item()
            rows.append([sample.group, number, norm, *_top(network, sample, survey, seed, own)])
            report(_cost(len(sample.images)) // 2)
    columns = torch.tensor(rows, dtype=torch.float64).T
    named = zip(("group", "part", "gradient_norm", *_OF_EIGENVALUE), columns, strict=True)
    return Item({name: column.clone() for name, column in named}, {"parts": list(parts(hessian.names))})


def measure_change(
    original: nn.Module, rounded: nn.Module, data: Dataset, survey: Survey, *, seed: int, report: Report
) -> Item:
    """What lies between a network and itself with rounded weights.

    How far it is (`distance`, and `part_distance` of each part alone); for each group the first two terms
    of the loss along the way, `slope` and `bend`, which add up to the excess loss if the loss is a parabola;
    for the largest and the smallest group the loss at `steps` along the way, and the excess loss when only
    one part is rounded.
    """
    device = default_device()
    original, rounded = original.to(device), rounded.to(device)
    terms, slices, excesses = [], [], []
    ends = extremes(data, survey)
    for sample in samples(data, survey, seed=seed):
        hessian = Hessian(original, sample.images, sample.labels, parameters="weights")
        start = parameters_to_vector(hessian.parameters).detach()
        way = _way(hessian, rounded)
        slope = torch.dot(hessian.gradient(), way).item()
        terms.append([sample.group, slope, torch.dot(way, hessian @ way).item() / 2])
        if sample.group in ends:
            slices.append(_losses(hessian, [start + step.item() * way for step in _STEPS]))
            own = _by_part(hessian, way)
            (loss,) = _losses(hessian, [start])
            excesses.append([value - loss for value in _losses(hessian, [start + piece for piece in own])])
        report(_cost(len(sample.images)) // 2)
    group, slope_of, bend_of = torch.tensor(terms, dtype=torch.float64).T
    return Item(
        {
            "group": group.clone(),
            "slope": slope_of.clone(),
            "bend": bend_of.clone(),
            "distance": way.norm().double(),
            "extremes": torch.tensor([g for g in group.int().tolist() if g in ends]),
            "steps": _STEPS,
            "slices": torch.tensor(slices, dtype=torch.float64),
            "part_distance": torch.stack([piece.norm().double() for piece in _by_part(hessian, way)]),
            "part_excess": torch.tensor(excesses, dtype=torch.float64),
        },
        {"parts": list(parts(hessian.names))},
    )


def measure_spectrum(network: nn.Module, data: Dataset, survey: Survey, *, seed: int, report: Report) -> Item:
    """The spectral density for the largest and the smallest group."""
    network = network.to(default_device())
    tensors = {}
    for sample in _of_extremes(data, survey, seed):
        density = spectral_density(
            network,
            sample.images,
            sample.labels,
            parameters="weights",
            steps=survey.density_steps,
            probes=1,
            seed=seed,
        )
        tensors[f"eigenvalues-{sample.group}"] = density.eigenvalues
        tensors[f"weights-{sample.group}"] = density.weights
        report(_EACH_PRODUCT * survey.density_steps * len(sample.images))
    return Item(tensors, {"n": len(sample.images)})


def cost(data: Dataset, survey: Survey) -> int:
    """About how long it takes to measure one network, in images that pass through it."""
    places = _places(data, survey)
    return _cost(_count(places, survey)) * sum(len(own) > 0 for own in places)


def _cost(count: int) -> int:
    return _EACH_PRODUCT * _USUAL_PRODUCTS * count


def _of_extremes(data: Dataset, survey: Survey, seed: int) -> list[Sample]:
    ends = extremes(data, survey)
    return [sample for sample in samples(data, survey, seed=seed) if sample.group in ends]


def _way(hessian: Hessian, rounded: nn.Module) -> Tensor:
    """From the network of the Hessian to the rounded one, as a vector over the weights."""
    before, after = hessian.network.state_dict(), rounded.state_dict()
    if before.keys() != after.keys() or any(
        not before[name].equal(after[name]) for name in before.keys() - set(hessian.names)
    ):
        raise BadInput(
            "the networks differ in more than their weights; expected one whose weights were rounded: leave "
            "out treatments that train, that round inputs or that take batch norm statistics again."
        )
    return torch.cat([(after[name] - before[name]).reshape(-1) for name in hessian.names]).to(
        hessian.parameters[0]
    )


def _split(hessian: Hessian, vector: Tensor) -> tuple[Tensor, ...]:
    return vector.split([p.numel() for p in hessian.parameters])


def _by_part(hessian: Hessian, way: Tensor) -> list[Tensor]:
    """A way through all weights, cut up: for each part of the network a way that changes nothing else."""
    pieces = dict(zip(hessian.names, _split(hessian, way), strict=True))
    return [
        torch.cat([piece if name in own else torch.zeros_like(piece) for name, piece in pieces.items()])
        for own in map(set, parts(hessian.names).values())
    ]


def _losses(hessian: Hessian, places: Sequence[Tensor]) -> list[float]:
    """The loss with the weights at each of these places; afterwards they stand at the last."""
    losses = []
    for place in places:
        vector_to_parameters(place, hessian.parameters)
        losses.append(hessian.loss())
    return losses
