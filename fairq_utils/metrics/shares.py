"""What each of several steps or causes has to do with a difference, where their order matters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import permutations
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from fairq_utils.errors import BadInput

Floats = NDArray[np.float64]


class Share(NamedTuple):
    """What one step adds: its mean over all orders of the steps, and the least and the most of any order."""

    mean: Floats
    least: Floats
    most: Floats


def over_orders(steps: Sequence[str], value: Callable[[frozenset[str]], ArrayLike]) -> dict[str, Share]:
    """What each step adds to a value, on average over every order in which the steps can be taken.

    `value` says what there is once some of the steps are taken, in whatever order: a number, or an array of
    numbers, each of which is split by itself. The means sum to what all steps add together (Shapley 1953).
    Where least and most lie far apart, no share belongs to the step alone.

    >>> found = over_orders(["first", "second"], lambda taken: 3.0 * ("first" in taken) + (len(taken) == 2))
    >>> {step: (float(share.mean), float(share.least), float(share.most)) for step, share in found.items()}
    {'first': (3.5, 3.0, 4.0), 'second': (0.5, 0.0, 1.0)}
    """
    if not steps or len(set(steps)) < len(steps) or len(steps) > 6:
        raise BadInput(f"steps are {list(steps)}; expected one to six names, each once.")
    known: dict[frozenset[str], Floats] = {}

    def at(taken: frozenset[str]) -> Floats:
        if taken not in known:
            known[taken] = np.asarray(value(taken), dtype=np.float64)
        return known[taken]

    added: dict[str, list[Floats]] = {step: [] for step in steps}
    for order in permutations(steps):
        for place, step in enumerate(order):
            before = frozenset(order[:place])
            added[step].append(at(before | {step}) - at(before))
    return {
        step: Share(np.mean(found, axis=0), np.min(found, axis=0), np.max(found, axis=0))
        for step, found in added.items()
    }


# -- why answers flip ---------------------------------------------------------------------------------

FLIP_PARTS = ("margins", "spread", "drift")


def margins(logits: ArrayLike, after: ArrayLike) -> tuple[Floats, Floats]:
    """How far each answer is from the next one, and by how much that changes.

    The first is the difference of the two largest logits; the second is how the difference of these same two
    classes changes. An answer goes to its runner-up where the second is below minus the first.

    >>> [found.tolist() for found in margins([[2.0, 0.5, 0.0]], [[1.0, 1.5, 0.0]])]
    [[1.5], [-2.0]]
    """
    before, treated = np.asarray(logits, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if before.shape != treated.shape or before.ndim != 2 or before.shape[1] < 2:
        raise BadInput(
            f"The logits have shapes {before.shape} and {treated.shape}; expected the same images and the "
            "same two classes or more in both."
        )
    places = np.argsort(-before, axis=1, kind="stable")[:, :2]
    first, second = np.take_along_axis(before, places, 1).T
    now_first, now_second = np.take_along_axis(treated, places, 1).T
    return first - second, (now_first - now_second) - (first - second)


def why_flips_differ(
    margin: ArrayLike, change: ArrayLike, groups: ArrayLike, majority: int, group: int
) -> pd.DataFrame:
    """Why the answers of a group flip more often than the majority's: its margins, or what happens to them.

    Flips are forecast by a Gaussian: a margin m flips with the chance that a change of mean `drift` and
    standard deviation `spread` takes it below zero. Each of three parts of the forecast is exchanged, the
    majority's for the group's: which margins there are, the spread, the drift. The `share` of a part is its
    mean over all orders. `beyond` is what the forecast misses. They sum to the difference of the true shares
    that flip to the runner-up.

    >>> rng = np.random.default_rng(0)
    >>> groups = np.repeat([0, 1], 20_000)
    >>> margin = np.abs(rng.normal(size=40_000)) * np.where(groups == 0, 2, 1)  # those of group 1 are smaller
    >>> why_flips_differ(margin, 0.5 * rng.normal(size=40_000), groups, 0, 1)[["part", "share"]].round(3)
          part  share
    0  margins  0.071
    1   spread  0.000
    2    drift -0.000
    3   beyond  0.000
    """
    margin, change = np.asarray(margin, dtype=np.float64), np.asarray(change, dtype=np.float64)
    places = {"majority": majority, "group": group}
    rows_of = {name: np.flatnonzero(np.asarray(groups) == place) for name, place in places.items()}
    own = {name: (margin[rows], change[rows]) for name, rows in rows_of.items()}
    if min(map(len, rows_of.values())) < 2:
        raise BadInput("A group has fewer than two images; expected two or more of each that is compared.")

    def forecast(taken: frozenset[str]) -> float:
        of = {part: own["group" if part in taken else "majority"] for part in FLIP_PARTS}
        spread = max(float(of["spread"][1].std()), 1e-300)
        return float(stats.norm.cdf(-(of["margins"][0] + of["drift"][1].mean()) / spread).mean())

    shares = over_orders(FLIP_PARTS, forecast)
    true = {name: float(np.mean(values + changed < 0)) for name, (values, changed) in own.items()}
    beyond = true["group"] - true["majority"] - sum(float(share.mean) for share in shares.values())
    rows = [(part, *map(float, share)) for part, share in shares.items()]
    return pd.DataFrame([*rows, ("beyond", *[beyond] * 3)], columns=["part", "share", "least", "most"])
