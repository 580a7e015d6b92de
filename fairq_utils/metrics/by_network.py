"""One number a network, of accuracies or whatever else was measured of each group: what a question asks.

Arrays of networks by groups in, an array with a number for each network out, which `verdicts.read` reads.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fairq_utils.errors import BadInput
from fairq_utils.metrics.verdicts import Reading, read

Floats = NDArray[np.float64]


def _networks_by_groups(values: ArrayLike) -> Floats:
    own = np.asarray(values, dtype=np.float64)
    if own.ndim != 2 or own.shape[1] < 2 or not np.isfinite(own).all():
        raise BadInput(
            f"The values have shape {own.shape}, {int(np.isfinite(own).sum())} of them finite; expected a "
            "finite number for each network and group, networks by groups, of two groups or more."
        )
    return own


# -- the largest group and the others -----------------------------------------------------------------


def others_against(values: ArrayLike, group: int | Sequence[int]) -> Floats:
    """The mean of all groups but one, minus that one: of each network, signed.

    Of changes of accuracy, with the largest group, this is the contrast: below 0 the minorities lose more.
    Every group counts alike, however many images it has. `group` is a place among the groups, or one for
    each network where the groups change roles.

    >>> others_against([[-0.01, -0.04, -0.02], [0.01, -0.01, -0.03]], 0).round(3)
    array([-0.02, -0.03])
    """
    own = _networks_by_groups(values)
    places = np.broadcast_to(np.asarray(group), len(own))
    if not np.issubdtype(places.dtype, np.integer) or not ((places >= 0) & (places < own.shape[1])).all():
        raise BadInput(f"group is {group}; expected a place from 0 to {own.shape[1] - 1}, or one a network.")
    that = own[np.arange(len(own)), places]
    return (own.sum(axis=1) - that) / (own.shape[1] - 1) - that


def effects_of_two(
    neither: ArrayLike, first: ArrayLike, second: ArrayLike, both: ArrayLike
) -> dict[str, Floats]:
    """What each of two causes adds, on average over the other, and what both together add beyond that.

    Each is given one number a network, of any unit, from the same seeds in the same order: where neither
    cause is at work, the first alone, the second alone, and both. `interaction` is by how much more the
    first adds where the second is at work.

    >>> effects_of_two([0.0, -0.01], [-0.04, -0.03], [-0.01, -0.01], [-0.06, -0.05])
    {'first': array([-0.045, -0.03 ]), 'second': array([-0.015, -0.01 ]),
     'interaction': array([-0.01, -0.02])}
    """
    cells = [np.asarray(cell, dtype=np.float64) for cell in (neither, first, second, both)]
    if cells[0].ndim != 1 or any(cell.shape != cells[0].shape for cell in cells):
        raise BadInput(
            f"The numbers have shapes {', '.join(str(cell.shape) for cell in cells)}; expected one number a "
            "network, of the same networks in all four."
        )
    none, one, other, two = cells
    return {
        "first": (one - none + two - other) / 2,
        "second": (other - none + two - one) / 2,
        "interaction": two - one - other + none,
    }


def slopes_within(values: ArrayLike, sizes: ArrayLike) -> Floats:
    """How far a straight line rises with each step of size, within groups: one number a network.

    Both are networks by groups. What a group has in all networks is taken from its values and its sizes, and
    what a network has in all its groups: so groups that differ anyway, as languages do, show no slope by
    that. The mean over networks is the slope of least squares beside a constant for each group and for each
    network. The constants fit the networks a little too well, so the numbers of n networks are spread by
    the root of (n - 1) / (n - 2) about that mean: `read` then gives intervals that hold.

    >>> sizes = [[0, 1], [1, 0], [0, 1], [1, 0]]  # each group has each size twice
    >>> slopes_within([[5.0, 9.0], [6.0, 8.5], [5.5, 9.0], [7.0, 8.0]], sizes).round(2)
    array([1.31, 0.08, 0.69, 1.92])
    """
    own, size = _networks_by_groups(values), _networks_by_groups(sizes)
    if own.shape != size.shape or len(own) < 3:
        raise BadInput(
            f"The values have shape {own.shape}, the sizes {size.shape}; expected one size for each value, "
            "of three networks or more."
        )
    centred = size - size.mean(axis=0) - size.mean(axis=1, keepdims=True) + size.mean()
    spread = float((centred**2).sum()) / len(own)
    if spread < 1e-12:
        raise BadInput(
            "The sizes are the same in all networks; expected groups that hold now more, now less."
        )
    slopes = ((own - own.mean(axis=0)) * centred).sum(axis=1) / spread
    return slopes.mean() + (slopes - slopes.mean()) * np.sqrt((len(own) - 1) / (len(own) - 2))


# -- widths -------------------------------------------------------------------------------------------

WIDTHS = (8, 6, 5, 4, 3)  # of the trend; at two bits networks answer nothing, which is no point of a line
# How far a straight line through the five widths, in their order, rises from the first to the last. Linear
# in the order and not in the size of a step, which doubles with each bit: by that, three bits alone would be
# the trend. They sum to 0, so that values and their changes against full precision give the same.
TREND = (-0.8, -0.4, 0.0, 0.4, 0.8)
JUMP = (-1.0, 0.0, 0.0, 1.0, 0.0)  # from eight bits to four


def over_widths(values: ArrayLike, coefficients: Sequence[float]) -> Floats:
    """What each network's values at the `WIDTHS` add up to: their `TREND`, or their `JUMP` from 8 bits to 4.

    `values` are networks by widths, in the order 8, 6, 5, 4, 3.

    >>> over_widths([[0.0, -0.01, -0.01, -0.03, -0.08], [0.0, 0.0, 0.01, -0.02, -0.05]], TREND).round(3)
    array([-0.072, -0.048])
    >>> over_widths([[0.0, -0.01, -0.01, -0.03, -0.08], [0.0, 0.0, 0.01, -0.02, -0.05]], JUMP).round(3)
    array([-0.03, -0.02])
    """
    own, weights = np.asarray(values, dtype=np.float64), np.asarray(coefficients, dtype=np.float64)
    if own.ndim != 2 or own.shape[1] != len(WIDTHS) or weights.shape != (len(WIDTHS),):
        raise BadInput(
            f"The values have shape {own.shape}, for {weights.size} coefficients; expected networks by the "
            f"widths {', '.join(map(str, WIDTHS))}, and a coefficient for each."
        )
    if abs(weights.sum()) > 1e-9:
        raise BadInput(f"The coefficients sum to {weights.sum():g}; expected 0, such as TREND or JUMP.")
    return own @ weights


def collapsed(overall: ArrayLike, largest_label: float, *, slack: float = 0.05) -> NDArray[np.bool_]:
    """Which networks have collapsed, by the overall accuracies (OA) of the others.

    A network has collapsed when the mean OA of the *other* networks is at most `slack` above `largest_label`,
    the share that always the most frequent label would be right on. By its own OA, the unlucky networks
    would be sorted out, and what is left would look better than it is. `overall` is one OA a network, or
    networks by treatments.

    >>> collapsed([0.40, 0.46, 0.44], 0.40), collapsed([0.40, 0.60, 0.62], 0.40)
    (array([ True,  True,  True]), array([False, False, False]))
    """
    own = np.asarray(overall, dtype=np.float64)
    if own.ndim not in (1, 2) or len(own) < 2 or not np.isfinite(own).all():
        raise BadInput(f"The OAs have shape {own.shape}; expected one a network, of two networks or more.")
    return (own.sum(axis=0) - own) / (len(own) - 1) <= largest_label + slack


# -- gaps ---------------------------------------------------------------------------------------------


def pair_of(before: ArrayLike, after: ArrayLike) -> tuple[int, int]:
    """The best and the worst group, by the mean over networks and over before and after.

    Over both, because which group was best before by luck will be so less afterwards.

    >>> pair_of([[0.9, 0.7, 0.8], [0.8, 0.6, 0.8]], [[0.9, 0.6, 0.5], [0.8, 0.4, 0.7]])
    (0, 1)
    """
    level = (_networks_by_groups(before) + _networks_by_groups(after)).mean(axis=0)
    return int(level.argmax()), int(level.argmin())


@dataclass(frozen=True)
class GapReading:
    """How the gap between groups changed, in each network by itself and between two that stay the same.

    - `fvo`: the best group of a network minus its worst, whichever they are. It grows already when networks
      come to scatter more.
    - `pair`: the same two groups in all networks, which were named by other seeds.
    - `beyond`: how much more FVO changed than that pair, in the same networks.
    """

    fvo: Reading
    pair: Reading
    beyond: Reading
    groups: tuple[int, int]

    @property
    def word(self) -> Literal["grows", "lottery", "grows or lottery", "falls", "no change", "bounded"]:
        """`grows` where FVO surely rises and the pair does; `lottery` where FVO does and surely more than it.

        Where FVO surely rises and neither is sure, it is one or the other. Else it is the word on FVO.
        """
        if self.fvo.word != "rises":
            return self.fvo.word
        if self.pair.word == "rises":
            return "grows"
        return "lottery" if self.beyond.word == "rises" else "grows or lottery"


def read_gap(
    before: ArrayLike,
    after: ArrayLike,
    pair: tuple[int, int] | None = None,
    *,
    margin: float | None = None,
    level: float = 0.95,
) -> GapReading:
    """Whether the gap between groups changed, and if it grew, for the same groups or as a lottery over them.

    `before` and `after` are accuracies, networks by groups, of the same networks in the same order. `pair`
    are the places of a best and a worst group that other seeds named, those of a pilot for example by
    `pair_of`. Without it the first third of the networks names the pair, and the others measure it: no
    network measures a pair that it helped to name. (If all networks named the pair for each other, leaving
    one out, equal groups would seem to drift apart in up to one case of eight, for the pairs that they name
    agree only when luck is alike.)

    >>> before = [[0.80, 0.79], [0.81, 0.80], [0.80, 0.80], [0.79, 0.80], [0.80, 0.81], [0.81, 0.81]]
    >>> lucky = [[0.90, 0.70], [0.71, 0.90], [0.72, 0.88], [0.88, 0.71], [0.90, 0.72], [0.70, 0.91]]
    >>> read_gap(before * 2, lucky * 2, (0, 1)).word
    'lottery'
    >>> read_gap(before * 2, [sorted(row) for row in lucky] * 2).word
    'grows'
    """
    return read_gap_over([before, after], (-1.0, 1.0), pair, margin=margin, level=level)


def read_gap_over(
    values: Sequence[ArrayLike],
    coefficients: Sequence[float],
    pair: tuple[int, int] | None = None,
    *,
    margin: float | None = None,
    level: float = 0.95,
) -> GapReading:
    """`read_gap` over widths, by the `JUMP` or the `TREND`: accuracies and a coefficient for each.

    The pair is named at the first and the last of the widths, in the order in which they are given.

    >>> even, torn = [[0.80, 0.79], [0.81, 0.80], [0.80, 0.80]] * 4, [[0.90, 0.70], [0.92, 0.71]] * 6
    >>> found = read_gap_over([even, even, even, torn, torn], TREND)
    >>> found.word, round(found.fvo.estimate, 2)
    ('grows', 0.24)
    """
    own = [_networks_by_groups(table) for table in values]
    shapes = [table.shape for table in own]
    if len(set(shapes)) != 1 or len(own) != len(coefficients):
        raise BadInput(
            f"Accuracies have shapes {', '.join(map(str, shapes))}, for {len(coefficients)} coefficients; "
            "expected the same networks and groups in each, and a coefficient for each."
        )
    networks, groups = shapes[0]
    weights, every = np.asarray(coefficients, dtype=np.float64), np.stack(own)
    change, gap = np.tensordot(weights, every, 1), weights @ np.ptp(every, axis=2)
    start = 0
    if pair is None:
        start = max(1, networks // 3)
        pair = pair_of(own[0][:start], own[-1][:start])
    high, low = pair
    if high == low or not {high, low} <= set(range(groups)):
        raise BadInput(f"pair is {pair}; expected the places of two groups, from 0 to {groups - 1}.")
    fixed = change[start:, high] - change[start:, low]
    return GapReading(
        fvo=read(gap, margin, level=level),
        pair=read(fixed, margin, level=level),
        beyond=read(gap[start:] - fixed, margin, level=level),
        groups=(high, low),
    )
