"""A claim in every way that it can be asked: each defensible choice is one mark of a sorted curve.

Whether the smaller groups pay more depends on how the weights are rounded, to how many bits, with which
batch norm statistics, of which data, and on what is taken for the gap. Nobody can say which of these is
right. So all are shown, and a reader may take some out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import pandas as pd

from fairq_book.kit.by_network import MeasuredNetworks
from fairq_book.kit.interventions import Floats, Networks
from fairq_book.kit.remedies import gap
from fairq_book.kit.tables import student_interval
from fairq_book.pages.claims import Shown, filled
from fairq_utils.metrics.by_network import WIDTHS

_RANGES = {
    "": "largest weight",
    "mse": "least squared error",
    "percentile": "99.9 % of the weights",
    "affine": "zero point",
}
_SCALES = {"": "one a tensor", "channel": "one a channel"}
_STATISTICS = {"": "as they were", "bn": "taken again"}
_MEASURES = {
    "contrast": "smaller groups against the largest",
    "gap": "best group against the worst",
}
REACH = 0.30  # what the curve draws to either side, in shares; what lies beyond stands at its edge


@dataclass(frozen=True)
class Specification:
    """One way to ask: what was chosen, and the number of the networks with its interval.

    Below zero the smaller groups lose more, or the gap is wider.
    """

    choices: Mapping[str, str]
    estimate: float
    lower: float
    upper: float

    @property
    def side(self) -> str:
        """Whether the interval lies on one side: against the smaller groups, or for them."""
        return "against" if self.upper < 0 else "for" if self.lower > 0 else "neither"


def specifications(settings: Sequence[MeasuredNetworks]) -> list[Specification]:
    """Every choice that these settings were measured under, sorted by what it gives."""
    found = [one for own in settings for one in _of(own)]
    return sorted(found, key=lambda one: one.estimate)


def _of(measured: MeasuredNetworks) -> Iterator[Specification]:
    networks = Networks(measured.table, measured.majority)
    there = set(networks.table["treatment"])
    for bits, words, scale, statistics in product(WIDTHS, _RANGES, _SCALES, _STATISTICS):
        # In the order in which a treatment names them.
        grid = (scale, words) if words == "affine" else (words, scale)
        name = "-".join(filter(None, [f"int{bits}", *grid, statistics]))
        control = "fp32-bn" if statistics else "fp32"
        if name not in there:
            continue
        of: dict[str, Floats] = {
            "contrast": networks.contrast(name, control),
            "gap": gap(networks, control) - gap(networks, name),
        }
        for measure, values in of.items():
            choices = {
                "data": measured.short_title,
                "bits": f"{bits}",
                "range": _RANGES[words],
                "scale": _SCALES[scale],
                "batch norm statistics": _STATISTICS[statistics],
                "measure": _MEASURES[measure],
            }
            yield Specification(choices, **student_interval(pd.Series(values), 0.95))


def curve(settings: Sequence[MeasuredNetworks]) -> Shown:
    """The sorted curve, with a switch for each choice."""
    every = specifications(settings)
    order = {
        "data": [own.short_title for own in settings],
        "bits": [f"{bits}" for bits in WIDTHS],
        "range": list(_RANGES.values()),
        "scale": list(_SCALES.values()),
        "batch norm statistics": list(_STATISTICS.values()),
        "measure": list(_MEASURES.values()),
    }
    switches = {
        name: [own for own in values if any(one.choices[name] == own for one in every)]
        for name, values in order.items()
    }
    kinds = {
        (name, value): f"{place}-{number}"
        for place, (name, values) in enumerate(switches.items())
        for number, value in enumerate(values)
    }
    marks = [
        {
            "classes": " ".join(kinds[choice] for choice in one.choices.items()),
            "side": one.side,
            "title": f"{', '.join(one.choices.values())}: {100 * one.estimate:+.1f} "
            f"({100 * one.lower:+.1f} to {100 * one.upper:+.1f})",
            "low": _place(one.lower),
            "at": _place(one.estimate),
            "high": _place(one.upper),
        }
        for one in every
    ]
    sides = [one.side for one in every]
    counts = {side: sides.count(side) for side in ("against", "for", "neither")}
    return filled(
        "specifications", marks=marks, switches=switches, kinds=kinds, counts=counts, reach=100 * REACH
    )


def _place(share: float) -> float:
    """Where it lies on the axis, in percent of its height from the top."""
    return round(50 - 50 * max(-1.0, min(1.0, share / REACH)), 1)
