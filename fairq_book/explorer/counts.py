"""What is embedded of many answers: counts in bins, means and quartiles, and who flips."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairq_book.explorer.given import Images, Run
from fairq_book.explorer.quantities import ANSWERS, short
from fairq_utils.metrics import groups


def values_of(run: Run, images: Images) -> dict[str, NDArray[np.float64]]:
    """Each quantity of single answers, network by network; the logarithm of those that are spaced by it."""
    if not run.logits:
        return dict(run.ranked)
    tables = []
    for of_seed, labels in zip(run.logits, images.labels, strict=False):  # as yet it may be of fewer networks
        table = groups.example_metrics(of_seed, labels)
        tables.append(table.assign(logit=of_seed.double().numpy()[np.arange(len(labels)), labels]))
    found = {name: np.concatenate([table[name].to_numpy() for table in tables]) for name in ANSWERS}
    floors = {name: quantity.floor for name, quantity in ANSWERS.items() if quantity.floor is not None}
    spaced = {name: np.log10(found[name].clip(floor)) for name, floor in floors.items()}
    return found | spaced | dict(run.ranked)


def counted(values: NDArray[np.float64], bins: Mapping[str, Any]) -> list[int]:
    """How many values lie in each bin; those beyond an end lie in the last bin before it."""
    ends = (bins["low"], bins["high"])
    return np.histogram(values.clip(*ends), bins=bins["bins"], range=ends)[0].tolist()


def packed(counts: Iterable[int]) -> list[int]:
    """The counts, with a negative number for so many zeros in a row.

    >>> packed([0, 0, 0, 5, 2, 0, 1])
    [-3, 5, 2, -1, 1]
    """
    found: list[int] = []
    for count in counts:
        if count:
            found.append(count)
        elif found and found[-1] < 0:
            found[-1] -= 1
        else:
            found.append(-1)
    return found


def unpacked(packed: Iterable[int]) -> list[int]:
    """The counts that were packed."""
    return [count for part in packed for count in ([part] if part > 0 else [0] * -part)]


def summary_of(quantity: Mapping[str, Any], values: NDArray[np.float64]) -> list[float | None]:
    """Mean and quartiles, of what the values stand for."""
    quartiles = np.quantile(values, [0.25, 0.5, 0.75])
    if not quantity["log"]:
        found = [values.mean(), *quartiles]
    elif quantity["mean"] == "geometric mean":
        found = [10 ** values.mean(), *10**quartiles]
    else:
        found = [(10**values).mean(), *10**quartiles]
    return [short(number) if math.isfinite(number) else None for number in found]


def flow_of(
    before: NDArray[np.int64],
    after: NDArray[np.int64],
    labels: NDArray[np.int64],
    inside: Sequence[NDArray[np.bool_]],
) -> list[list[int]]:
    """For each group how many answers stay right, become wrong, become right, become wrong otherwise."""
    was, is_now = before == labels, after == labels
    parts = (was & is_now, was & ~is_now, ~was & is_now, ~was & ~is_now & (before != after))
    return [[int(part[of_group].sum()) for part in parts] for of_group in inside]
