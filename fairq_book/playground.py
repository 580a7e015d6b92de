"""A network you can quantize yourself: trained and rounded in the page, on points that the reader moves.

What the modules in `scripts/playground/` compute is computed here too, from the same constants (`RECIPE`):
for the figure that stands in for it in print, and so that each can be tested by the other.
"""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import traitlets
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fairq_audit import formats
from fairq_audit.page_scripts import SCRIPTS, joined
from fairq_book.widgets import PageWidget
from fairq_utils.errors import BadInput
from fairq_utils.quantization.quantizers import UniformQuantizer

GROUPS = ("majority", "minority")
LABELS = ("hollow", "filled")  # in the order of the logits
FULL = 32  # bits: weights as they were trained
LARGEST_SEED = 2**32 - 1
_DRAWN_FROM = ["size", "difficulty"]  # the points

RECIPE: dict[str, Any] = {
    # The network, and its training by Adam on all points at once.
    "layers": [2, 8, 8, 2],
    "steps": 400,
    "rate": 0.08,  # falls to 0, which also keeps rounding errors of other machines small
    "momentum": 0.9,
    "memory": 0.99,
    "tiny": 1e-8,
    "decay": 0.0005,
    # The points. The majority lies along both sides of a simple boundary, the minority in two clusters.
    "draw": 7,  # the seed of the points; the seed that a reader changes is that of the network
    "majority": 100,
    "bend": 0.52,
    "reach": 0.92,
    "near": 0.07,
    "far": 0.81,
    "aside": 0.5,
    "easy": 0.45,
    "deep": 0.5,
    "spread": 0.1,
    # How many points there may be, and how many seeds are compared.
    "most": 250,
    "largest": 50,  # of the minorities that are drawn
    "population": 20,
}


@dataclass(frozen=True)
class Layer:
    """One layer of the network: a row of weights for each output."""

    weights: NDArray[np.float64]
    biases: NDArray[np.float64]


Network = Sequence[Layer]


class Playground(PageWidget):
    """A network of 96 weights that the reader trains, rounds and retrains.

    `points`: the task, a list of {"x", "y", "label", "group"} in the square from −1 to 1; a label is `hollow`
    or `filled`, a group `majority` or `minority`. Left out, they are drawn from `size` and `difficulty`, and
    drawn again when one of these changes.

    `bits`: 2 to 8, or 32 for full precision. `seed`: of the weights before training; the points do not
    depend on it. `size`: how many points the minority has. `difficulty`: from 0, the minority lies on its own
    side of the simple boundary, to 1, deep on the other one.

    `result`: what the page computed last, written by the script: `weights`, `rounded` and `biases` of each
    layer, and for `full` precision and `now` the n, accuracy and margin of each group and FVO. Empty until
    the widget was shown.

    >>> playground = Playground(bits=3, size=10)
    >>> len(playground.points), playground.points[-1]
    (110, {'x': 0.438, 'y': 0.015, 'label': 'filled', 'group': 'minority'})
    """

    kind = "playground"
    _esm = joined(SCRIPTS / "playground.js")
    _css = SCRIPTS / "playground.css"

    points = traitlets.Any().tag(sync=True)
    bits = traitlets.Any(3).tag(sync=True)
    seed = traitlets.Any(12).tag(sync=True)
    size = traitlets.Any(20).tag(sync=True)
    difficulty = traitlets.Any(0.8).tag(sync=True)
    recipe = traitlets.Dict(read_only=True).tag(sync=True)
    result = traitlets.Dict().tag(sync=True)

    def __init__(self, points: Sequence[Mapping[str, Any]] | None = None, **traits: Any) -> None:
        super().__init__(**traits)
        self.set_trait("recipe", RECIPE)
        self.points = drawn_points(self.size, self.difficulty) if points is None else points
        self.observe(self._draw_again, _DRAWN_FROM)

    def set_state(self, sync_data: dict[str, Any]) -> None:
        """Take what the page sends, which has drawn its points already."""
        self.unobserve(self._draw_again, _DRAWN_FROM)
        try:
            super().set_state(sync_data)
        finally:
            self.observe(self._draw_again, _DRAWN_FROM)

    def _draw_again(self, _: Any) -> None:
        self.points = drawn_points(self.size, self.difficulty)

    @traitlets.validate("points")
    def _valid_points(self, proposal: dict[str, Any]) -> list[dict[str, Any]]:
        return _checked_points(proposal["value"])

    @traitlets.validate("bits", "seed", "size", "difficulty")
    def _valid_number(self, proposal: dict[str, Any]) -> Any:
        name, value = proposal["trait"].name, proposal["value"]
        expected, is_valid = _EXPECTED[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or not is_valid(value):
            raise BadInput(f"{name} is {value!r}; expected {expected}.")
        return value

    def fallback(self) -> str:
        """Two drawings, in full precision and rounded, and a table of all that they show."""
        trained = train(self.points, self.seed)
        bits = 3 if self.bits == FULL else self.bits
        stages = {"full precision": trained, f"{bits} bits": rounded(trained, bits)}
        found = {name: measured(self.points, network) for name, network in stages.items()}
        planes = {name: _plane(self.points, network, name, found[name]) for name, network in stages.items()}
        panels = "".join(f'<div style="flex:1 1 15rem">{name}{plane}</div>' for name, plane in planes.items())
        rows = "".join(
            f'<tr><th scope="row">{label}</th>'
            + "".join(f"<td>{_said(value(one), digits)}</td>" for one in found.values())
            + "</tr>"
            for label, digits, value in _ROWS
        )
        heads = "".join(f'<th scope="col">{name}</th>' for name in stages)
        return (
            '<figure class="fairq-figure">'
            f'<div style="display:flex;flex-wrap:wrap;gap:1rem">{panels}</div>'
            "<figcaption>Circles are the majority, squares the minority. The shaded part of the plane is "
            f"where a network trained from seed {self.seed} answers <em>filled</em>; a ring marks a point "
            "that it gets wrong. Another seed can tell another story.</figcaption>"
            f"<table><thead><tr><td></td>{heads}</tr></thead><tbody>{rows}</tbody></table></figure>"
        )


def _whole(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and low <= value <= high


_EXPECTED: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "bits": (
        f"a whole number from 2 to 8, or {FULL} for full precision",
        lambda value: _whole(value, 2, 8) or _whole(value, FULL, FULL),
    ),
    "seed": (
        f"a whole number from 1 to {LARGEST_SEED}",
        lambda value: _whole(value, 1, LARGEST_SEED),
    ),
    "size": (
        f"a whole number from 0 to {RECIPE['largest']}",
        lambda value: _whole(value, 0, RECIPE["largest"]),
    ),
    "difficulty": ("a number from 0 to 1", lambda value: 0 <= value <= 1),
}


def _checked_points(points: Any) -> list[dict[str, Any]]:
    """The points as plain values that JSON can hold."""
    if isinstance(points, str | bytes | Mapping) or not isinstance(points, Sequence):
        raise BadInput(f"points is {points!r}; expected a list of {{x, y, label, group}}.")
    most = RECIPE["most"]
    if len(points) > most:
        raise BadInput(f"points has {len(points)} entries; expected at most {most}: leave some out.")
    return [_checked_point(number, point) for number, point in enumerate(points)]


def _checked_point(number: int, point: Any) -> dict[str, Any]:
    if not isinstance(point, Mapping) or set(point) != {"x", "y", "label", "group"}:
        raise BadInput(f"points[{number}] is {point!r}; expected x, y, label and group.")
    for name in ("x", "y"):
        value = point[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or not -1 <= value <= 1:
            raise BadInput(f"points[{number}] has {name} {value!r}; expected a number from −1 to 1.")
    for name, known in (("label", LABELS), ("group", GROUPS)):
        if point[name] not in known:
            raise BadInput(f"points[{number}] has {name} {point[name]!r}; expected {' or '.join(known)}.")
    return {
        "x": float(point["x"]),
        "y": float(point["y"]),
        "label": point["label"],
        "group": point["group"],
    }


# ---------------------------------------------------------------- what the script computes too


def uniform(seed: int) -> Callable[[], float]:
    """Numbers from 0 to 1 that Python and every browser draw alike (mulberry32).

    >>> draw = uniform(1)
    >>> round(draw(), 6), round(draw(), 6)
    (0.627074, 0.002736)
    """
    state = seed

    def draw() -> float:
        nonlocal state
        state = (state + 0x6D2B79F5) % 2**32
        mixed = (state ^ (state >> 15)) * (state | 1) % 2**32
        mixed ^= (mixed + (mixed ^ (mixed >> 7)) * (mixed | 61)) % 2**32
        return (mixed ^ (mixed >> 14)) / 2**32

    return draw


def drawn_points(size: int, difficulty: float) -> list[dict[str, Any]]:
    """The task: a majority that is always the same, and a minority of a size and a difficulty."""
    points = []
    draw = uniform(RECIPE["draw"])
    for number in range(RECIPE["majority"]):
        side = 1 if number % 2 else -1
        x = RECIPE["reach"] * (2 * draw() - 1)
        away = RECIPE["near"] + (RECIPE["far"] - RECIPE["near"]) * draw()
        points.append(_point(x, _bend(x) + side * away, number, "majority"))
    draw = uniform(RECIPE["draw"] + 1)
    for number in range(size):
        side = 1 if number % 2 else -1
        x = side * RECIPE["aside"]
        y = _bend(x) + side * (RECIPE["easy"] - (RECIPE["easy"] + RECIPE["deep"]) * difficulty)
        right, up = (RECIPE["spread"] * _bell(draw) for _ in "xy")
        points.append(_point(x + right, y + up, number, "minority"))
    return points


def _bend(x: float) -> float:
    return float(RECIPE["bend"] * x * (1 - x * x))


def _bell(draw: Callable[[], float]) -> float:
    # one after the other, as the script adds: a sum in another order may differ in its last bit
    return draw() + draw() + draw() + draw() - 2


def _point(x: float, y: float, number: int, group: str) -> dict[str, Any]:
    x, y = (math.floor(1000 * max(-0.97, min(0.97, place)) + 0.5) / 1000 for place in (x, y))
    return {"x": x, "y": y, "label": LABELS[number % 2], "group": group}


def untrained(seed: int) -> list[Layer]:
    """The network before training."""
    draw = uniform(seed)
    network = []
    for inputs, outputs in itertools.pairwise(RECIPE["layers"]):
        reach = math.sqrt(6 / (inputs + outputs))
        weights = [reach * (2 * draw() - 1) for _ in range(outputs * inputs)]
        network.append(Layer(np.array(weights).reshape(outputs, inputs), np.zeros(outputs)))
    return network


def forward(network: Network, places: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """What each layer answers at each place; the last one's are the logits."""
    answers = []
    given = places
    for number, layer in enumerate(network, start=1):
        given = given @ layer.weights.T + layer.biases
        given = given if number == len(network) else np.tanh(given)
        answers.append(given)
    return answers


def train(points: Sequence[Mapping[str, Any]], seed: int) -> list[Layer]:
    """The network after training on all points, by Adam with weight decay and a rate that falls to 0.

    >>> network = train(drawn_points(20, 0.8), seed=12)
    >>> measured(drawn_points(20, 0.8), rounded(network, 3))["minority"]["accuracy"]
    0.6
    """
    network = untrained(seed)
    places, truth = _arrays(points)
    tensors = [tensor for layer in network for tensor in (layer.weights, layer.biases)]
    means = [np.zeros_like(tensor) for tensor in tensors]
    squares = [np.zeros_like(tensor) for tensor in tensors]
    momentum, memory = RECIPE["momentum"], RECIPE["memory"]
    for step in range(1, RECIPE["steps"] + 1):
        rate = RECIPE["rate"] * (1 - (step - 1) / RECIPE["steps"])
        gradients = _gradients(network, places, truth)
        for tensor, gradient, mean, square in zip(tensors, gradients, means, squares, strict=True):
            gradient += RECIPE["decay"] * tensor
            mean += (1 - momentum) * (gradient - mean)
            square += (1 - memory) * (gradient**2 - square)
            size = np.sqrt(square / (1 - memory**step)) + RECIPE["tiny"]
            tensor -= rate * mean / (1 - momentum**step) / size
    return network


def _arrays(points: Sequence[Mapping[str, Any]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where the points are, and the number of the label of each."""
    places = np.array([(point["x"], point["y"]) for point in points]).reshape(-1, 2)
    return places, np.array([LABELS.index(point["label"]) for point in points], dtype=float)


def _gradients(
    network: Network, places: NDArray[np.float64], truth: NDArray[np.float64]
) -> list[NDArray[np.float64]]:
    """Of the mean cross-entropy: for each layer that by its weights, and that by its biases."""
    answers = forward(network, places)
    hollow, filled = answers[-1].T
    error = (1 / (1 + np.exp(hollow - filled)) - truth) / max(1, len(truth))
    errors = np.stack([-error, error], axis=1)
    gradients: list[NDArray[np.float64]] = []
    for number in reversed(range(len(network))):
        given = answers[number - 1] if number else places
        gradients[:0] = [errors.T @ given, errors.sum(axis=0)]
        errors = errors @ network[number].weights * (1 - given**2)
    return gradients


def rounded(network: Network, bits: int) -> list[Layer]:
    """The network with each matrix of weights on a symmetric grid of its own; biases stay."""
    if bits == FULL:
        return list(network)
    quantize = UniformQuantizer(bits)
    return [Layer(quantize(torch.from_numpy(layer.weights)).numpy(), layer.biases) for layer in network]


def measured(points: Sequence[Mapping[str, Any]], network: Network) -> dict[str, Any]:
    """Of each group its n, accuracy and mean margin, and FVO: the gap between both accuracies.

    Without points of a group they are None.
    """
    places, truth = _arrays(points)
    hollow, filled = forward(network, places)[-1].T
    margins = np.where(truth == 1, filled - hollow, hollow - filled)
    right = (filled > hollow) == (truth == 1)
    groups = np.array([point["group"] for point in points])
    found: dict[str, Any] = {}
    for group in GROUPS:
        own = groups == group
        n = int(own.sum())
        accuracy, margin = (float(values[own].mean()) if n else None for values in (right, margins))
        found[group] = {"n": n, "accuracy": accuracy, "margin": margin}
    one, other = (found[group]["accuracy"] for group in GROUPS)
    found["FVO"] = None if one is None or other is None else abs(one - other)
    return found


# ---------------------------------------------------------------- what stands there in print

_ROWS: tuple[tuple[str, int, Callable[[Mapping[str, Any]], float | None]], ...] = (
    ("majority, accuracy, %", 1, lambda found: _percent(found["majority"]["accuracy"])),
    ("majority, mean margin", 2, lambda found: found["majority"]["margin"]),
    ("minority, accuracy, %", 1, lambda found: _percent(found["minority"]["accuracy"])),
    ("minority, mean margin", 2, lambda found: found["minority"]["margin"]),
    ("gap (FVO), points", 1, lambda found: _percent(found["FVO"])),
)
_COLOURS = dict(zip(GROUPS, formats.PALETTE[:2], strict=True))
_SIDE = 300


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _said(value: float | None, digits: int) -> str:
    return "–" if value is None else formats.number(value, digits)


def _plane(points: Sequence[Mapping[str, Any]], network: Network, name: str, found: Mapping[str, Any]) -> str:
    """The points over the answers of a network, as SVG in the ink of the page."""
    places, truth = _arrays(points)
    answers = forward(network, places)[-1].argmax(axis=1)
    marks = [_mark(point, wrong) for point, wrong in zip(points, answers != truth, strict=True)]
    right = ", ".join(
        f"{_said(_percent(found[group]['accuracy']), 0)} % of the {group}"
        for group in found
        if group in GROUPS
    )
    alt = f"A plane with {len(points)} points. In {name} the network is right on {right}."
    return (
        f'<svg role="img" aria-label="{html.escape(alt)}" viewBox="0 0 {_SIDE} {_SIDE}" '
        f'style="width:100%;height:auto;display:block;border:1px solid {formats.PALETTE[-1]}">'
        f'<path d="{_region(network)}" fill="currentColor" fill-opacity="0.13" fill-rule="evenodd" '
        f'stroke="currentColor"/>{"".join(marks)}</svg>'
    )


_SHAPES = {"majority": "M-3,0a3,3 0 1,0 6,0a3,3 0 1,0 -6,0Z", "minority": "M-3.4-3.4h6.8v6.8h-6.8Z"}


def _mark(point: Mapping[str, Any], wrong: bool) -> str:
    x, y = (f"{_SIDE * (1 + place) / 2:.1f}" for place in (point["x"], -point["y"]))
    colour, shape = _COLOURS[point["group"]], _SHAPES[point["group"]]
    fill = colour if point["label"] == "filled" else "none"
    ring = '<circle r="6.5" fill="none" stroke="currentColor"/>' if wrong else ""
    mark = f'<path d="{shape}" fill="{fill}" stroke="{colour}" stroke-width="1.4"/>'
    return f'<g transform="translate({x},{y})">{ring}{mark}</g>'


def _region(network: Network) -> str:
    """Where the network answers "filled", as an SVG path."""
    line = np.linspace(-1, 1, 57)
    across, down = np.meshgrid(line, -line)
    hollow, filled = forward(network, np.stack([across.ravel(), down.ravel()], axis=1))[-1].T
    field = (filled - hollow).reshape(across.shape)
    if field.max() <= 0:
        return ""
    place = _SIDE * (1 + line) / 2
    # matplotlib finds the lines; it draws nothing.
    contours = Figure().subplots().contourf(place, place, field, levels=[0, field.max() + 1])
    lines = [polygon for path in contours.get_paths() for polygon in path.to_polygons()]
    return "".join(f"M{'L'.join(f'{x:.1f},{y:.1f}' for x, y in np.asarray(polygon))}Z" for polygon in lines)
