"""What is asked of each answer, and the bins in which it is counted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairq_utils.errors import BadInput

BINS = 144  # fine ones; neighbours are merged 2, 3, 4, 6, 8 or 12 at a time
_BLOCK = 24  # zero lies after a multiple of so many bins, so that it stays an edge however bins are merged


@dataclass(frozen=True)
class Quantity:
    """How a quantity is called, and how its bins lie."""

    name: str
    unit: str = ""
    factor: float = 1  # what is said is so many times what is measured
    floor: float | None = None  # the smallest value, where bins are spaced by logarithm
    signed: bool = False  # zero is to be an edge
    mean: str = "mean"
    closed: bool = False  # nothing can lie beyond the ends of the axis
    whole: bool = False  # places are counted: 1, 2, 3 ...

    @property
    def is_logarithmic(self) -> bool:
        """Whether bins are spaced by powers of ten."""
        return self.floor is not None


ANSWERS = {
    "logit_variance": Quantity("logit variance", floor=1e-12, mean="geometric mean"),
    "confidence": Quantity("confidence", "%", 100, closed=True),
    "margin": Quantity("margin", signed=True),
    "loss": Quantity("loss", "nats", floor=1e-6),
    "logit": Quantity("logit of the label", signed=True),
}
QUANTITIES = (*ANSWERS, "weights")
OF_ANSWERS = (*ANSWERS, "rank", "place")
RANK = Quantity("rank of own caption", floor=1, closed=True, whole=True)


def described_as(quantity: Quantity) -> dict[str, Any]:
    """What the script is told of a quantity, besides its bins."""
    return {
        "name": quantity.name,
        "unit": quantity.unit,
        "factor": quantity.factor,
        "log": quantity.is_logarithmic,
        "mean": quantity.mean,
        "closed": quantity.closed,
        "whole": quantity.whole,
    }


def require_known(quantities: Sequence[str]) -> None:
    """Refuse quantities of which there are none, and weights without answers."""
    unknown = [name for name in quantities if name not in QUANTITIES]
    if unknown or isinstance(quantities, str) or not any(name in ANSWERS for name in quantities):
        raise BadInput(
            f"quantities is {quantities!r}; expected some of {', '.join(QUANTITIES)}, and not weights alone."
        )


def bins_for(quantity: Quantity, values: Sequence[NDArray[np.float64]], *, classes: int) -> dict[str, Any]:
    """Bins for all treatments, of which the first values are those of full precision."""
    if quantity.closed:
        return {"low": 1 / classes, "high": 1.0, "bins": BINS, "zero": None}
    low, high = np.quantile(values[0], [0.005, 0.995])
    # A treatment under which logits explode must not press all others into a single bin.
    room = 2 * (high - low)
    ends = np.array([np.quantile(own, [0.005, 0.995]) for own in values])
    low, high = max(low - room, ends[:, 0].min()), min(high + room, ends[:, 1].max())
    if quantity.signed:
        return _bins_around_zero(low, high)
    low, high = math.floor(100 * low) / 100, math.ceil(100 * high) / 100
    return {"low": low, "high": max(high, low + 0.01), "bins": BINS, "zero": None}


def _bins_around_zero(low: float, high: float) -> dict[str, Any]:
    """The finest bins of a round width that reach from low to high, and have an edge at zero.

    >>> _bins_around_zero(-5.1, 11.3)
    {'low': -6.0, 'high': 12.0, 'bins': 144, 'zero': 48}
    """
    blocks = BINS // _BLOCK

    def step_needed(reach: float, blocks: int) -> float:
        return 0.0 if reach <= 0 else reach / (blocks * _BLOCK) if blocks else math.inf

    steps = [max(step_needed(-low, n), step_needed(high, blocks - n)) for n in range(blocks + 1)]
    below = int(np.argmin(steps))
    step = _round_up(max(steps[below], 1e-6))
    low, high = -step * below * _BLOCK, step * (blocks - below) * _BLOCK
    return {"low": short(low, 9), "high": short(high, 9), "bins": BINS, "zero": below * _BLOCK}


def bins_of_places(count: int) -> dict[str, Any]:
    """Bins of a round number of places each, and of a number that can be halved twice.

    >>> bins_of_places(1000)
    {'low': 0.5, 'high': 1000.5, 'bins': 100, 'zero': None}
    """
    step = next(10**power * x for power in range(9) for x in (1, 2, 5) if 10**power * x * BINS >= count)
    bins = 4 * math.ceil(count / step / 4)
    return {"low": 0.5, "high": bins * step + 0.5, "bins": bins, "zero": None}


def _round_up(step: float) -> float:
    """The next round number.

    >>> _round_up(0.117), _round_up(3.1)
    (0.125, 4.0)
    """
    power = 10.0 ** math.floor(math.log10(step))
    return next(short(power * x, 6) for x in (1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if power * x >= step)


def short(number: float, digits: int = 4) -> float:
    """The number to so many digits: sixteen of each would fill a page with what nobody sees."""
    return float(f"{number:.{digits}g}")
