"""Numbers beside the answers, such as a loss or a score of a text: how their mean changed, group by group.

An answer is right or wrong; a perplexity or an overlap of words is neither. Here such a column of both tables
is compared row by row. Whether a rise is good or bad is for those to say who know the column.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from fairq_audit.cells import Cells
from fairq_audit.sampling import Sampling
from fairq_utils.intervals import Floats


def differences(
    cell: Cells, name: str, values: tuple[Floats, Floats], sampling: Sampling
) -> list[dict[str, Any]]:
    """For each group the mean of an amount before and after, and of the paired difference with limits.

    Rows that lack the amount on either side are left out; `n` is of the others, and `changed` of those that
    differ. The limits are Student's, by clusters where rows belong together, and there are none for fewer
    than two rows or clusters.

    >>> cell = Cells("tree", ["tree"], ["ash"], ["ash"], np.array([0, 0, 0]), np.zeros((1, 5)), None, [])
    >>> found = differences(cell, "loss", (np.zeros(3), np.array([1.0, 2, 3])), Sampling())
    >>> {end: round(value, 2) for end, value in found[0]["change"].items()}
    {'estimate': 2.0, 'lower': -0.48, 'upper': 4.48}
    """
    before, after = values
    known = np.isfinite(before) & np.isfinite(after)
    return [
        {
            "amount": name,
            "group": group,
            **_of_rows(np.flatnonzero(known & (cell.codes == code)), before, after, sampling),
        }
        for code, group in enumerate(cell.names)
    ]


def _of_rows(rows: NDArray[np.intp], before: Floats, after: Floats, sampling: Sampling) -> dict[str, Any]:
    found: dict[str, Any] = {"n": len(rows), "changed": 0, "before": None, "after": None, "change": None}
    if not len(rows):
        return found
    weights = np.ones(len(rows)) if sampling.weights is None else sampling.weights[rows]
    share = weights / weights.sum()
    apart = after[rows] - before[rows]
    mean = float(share @ apart)
    found |= {"changed": int((apart != 0).sum()), "before": float(share @ before[rows])}
    found |= {"after": float(share @ after[rows])}
    residual = share * (apart - mean)
    if sampling.clusters is not None:
        residual = np.bincount(np.unique(sampling.clusters[rows], return_inverse=True)[1], residual)
    units = len(residual)
    if units > 1:
        error = np.sqrt(units / (units - 1) * (residual @ residual))
        reach = float(special.stdtrit(units - 1, (1 + sampling.confidence) / 2) * error)
        found["change"] = {"estimate": mean, "lower": mean - reach, "upper": mean + reach}
    return found
