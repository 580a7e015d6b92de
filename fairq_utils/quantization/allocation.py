"""Spend the bits of a network where a group needs them: a width for each layer, at equal bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize

from fairq_utils.errors import BadInput


def allocate(
    costs: Mapping[str, ArrayLike], sizes: Mapping[str, int], widths: Sequence[int], *, bits: float
) -> dict[str, int]:
    """A width for each layer, so that whoever pays most pays least, with at most `bits` a weight on average.

    `costs`: for each layer by name what each of the `widths` costs each group, widths by groups, or of widths
    alone where there is one to please. What several layers cost adds up. `sizes`: how many weights they have.

    The choice is the best there is, found by integer programming.

    >>> costs = {"first": [[5.0, 1.0], [0.0, 0.0]], "last": [[1.0, 2.0], [0.0, 0.0]]}
    >>> allocate(costs, {"first": 10, "last": 10}, [2, 6], bits=4)
    {'first': 6, 'last': 2}
    """
    names = list(costs)
    table: NDArray[np.float64] = np.stack([np.asarray(costs[name], dtype=float) for name in names])
    if table.ndim == 2:
        table = table[:, :, None]
    if table.ndim != 3 or table.shape[1] != len(widths) or not np.isfinite(table).all():
        raise BadInput(
            f"costs of a layer have shape {table.shape[1:]}; expected finite numbers, {len(widths)} widths "
            "by groups."
        )
    layers, count, groups = table.shape
    weights = np.array([sizes[name] for name in names], dtype=float)
    if bits < min(widths):
        raise BadInput(f"bits is {bits}; expected at least {min(widths)}, the smallest of the widths.")
    # Unknown are, for each layer and width, whether it is chosen, and at the end what whoever pays most pays.
    unknown = layers * count + 1
    one_each = np.zeros((layers, unknown))
    for layer in range(layers):
        one_each[layer, layer * count : (layer + 1) * count] = 1
    share = weights / weights.sum()
    spent = np.append(np.outer(share, widths).ravel(), 0.0)
    paid = np.column_stack([table.reshape(layers * count, groups).T, -np.ones(groups)])
    found = optimize.milp(
        np.append(np.zeros(unknown - 1), 1.0),
        integrality=np.append(np.ones(unknown - 1), 0),
        bounds=optimize.Bounds(
            np.append(np.zeros(unknown - 1), -np.inf), np.append(np.ones(unknown - 1), np.inf)
        ),
        constraints=[
            optimize.LinearConstraint(one_each, 1, 1),
            optimize.LinearConstraint(spent[None], -np.inf, bits + 1e-9),
            optimize.LinearConstraint(paid, -np.inf, 0),
        ],
    )
    if not found.success:
        raise BadInput(f"no allocation of {bits} bits was found: {found.message}")
    chosen = found.x[:-1].reshape(layers, count).argmax(axis=1)
    return {name: int(widths[place]) for name, place in zip(names, chosen, strict=True)}
