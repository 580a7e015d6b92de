"""How far a model's confidence is from its accuracy, group by group, before and after.

The usual calibration error is a sum of absolute differences and so above zero by noise alone: 333 rows of a
perfectly calibrated model show some five points. Here its square is estimated without that surplus.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from fairq_audit.cells import Cells
from fairq_audit.predictions import Pairs
from fairq_audit.sampling import Sampling
from fairq_utils.intervals import Floats, two_sided

_BINS = 15  # equally full
LEAST = 100  # rows of a group, or nothing is said


def calibrations(
    cell: Cells,
    pairs: Pairs,
    sureness: tuple[Floats, Floats],
    *,
    sampling: Sampling,
    confidence: float,
) -> list[dict[str, Any] | None]:
    """For each group its calibration error before and after, and by how much it rose; None of too few rows.

    `sureness`: the probability of the predicted class.
    """
    found: list[dict[str, Any] | None] = []
    for code in range(len(cell.names)):
        rows = np.flatnonzero(cell.codes == code)
        if len(rows) < LEAST:
            found.append(None)
            continue
        weights = np.ones(len(rows)) if sampling.weights is None else sampling.weights[rows]
        clusters = None if sampling.clusters is None else sampling.clusters[rows]
        sides = [
            error(sure[rows], (answer == pairs.labels)[rows], weights, clusters, confidence)
            for sure, answer in zip(sureness, pairs.answers, strict=True)
        ]
        found.append(dict(zip(("before", "after"), sides, strict=True)) | {"rise": _rise(*sides)})
    return found


def error(
    sureness: Floats,
    right: NDArray[np.bool_],
    weights: Floats | None = None,
    clusters: NDArray[np.intp] | None = None,
    confidence: float = 0.95,
) -> dict[str, float]:
    """The root of the mean squared difference of confidence and accuracy over bins, without its surplus.

    >>> rng = np.random.default_rng(0)
    >>> sure = rng.uniform(0.5, 1, 40_000)
    >>> well, badly = (error(sure, rng.random(40_000) < sure - off) for off in (0, 0.1))
    >>> round(well["estimate"], 2), round(badly["estimate"], 2)
    (0.0, 0.1)
    """
    weight = np.ones(len(sureness)) if weights is None else weights / weights.mean()
    bins = np.empty(len(sureness), dtype=np.intp)
    bins[np.argsort(sureness, kind="stable")] = np.arange(len(sureness)) * _BINS // len(sureness)
    off = sureness - right
    total = np.bincount(bins, weight, minlength=_BINS)
    mean = np.bincount(bins, weight * off, minlength=_BINS) / total
    residual = weight * (off - mean[bins])
    if clusters is None:
        squares = np.bincount(bins, residual**2, minlength=_BINS)
    else:
        _, units = np.unique(bins * (int(clusters.max()) + 1) + clusters, return_inverse=True)
        sums = np.bincount(units, residual)
        owner = np.zeros(len(sums), dtype=np.intp)
        owner[units] = bins
        squares = np.bincount(owner, sums**2, minlength=_BINS)
    rows = np.maximum(np.bincount(bins, minlength=_BINS), 2)
    variance = squares / total**2 * rows / (rows - 1)
    share = total / total.sum()
    squared = float(share @ (mean**2 - variance))
    # Of a squared mean: what its noise does at first order, and at second where the mean is near zero.
    spread = float(np.sqrt(share**2 @ (4 * np.maximum(mean**2 - variance, 0) * variance + 2 * variance**2)))
    reach = two_sided(confidence) * spread
    ends = {"estimate": squared, "lower": squared - reach, "upper": squared + reach}
    return {end: float(np.sqrt(max(value, 0.0))) for end, value in ends.items()}


def _rise(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """The limits of a difference from those of its terms, taken as independent, which makes them too wide."""
    rise = after["estimate"] - before["estimate"]
    down = np.hypot(after["estimate"] - after["lower"], before["upper"] - before["estimate"])
    up = np.hypot(after["upper"] - after["estimate"], before["estimate"] - before["lower"])
    return {"estimate": rise, "lower": float(rise - down), "upper": float(rise + up)}


def sureness(pairs: Pairs) -> tuple[Floats, Floats] | None:
    """The probability of the predicted class before and after, where there are scores of all classes."""
    if pairs.scores is None:
        return None

    def of(scores: Floats) -> Floats:
        top = scores.max(axis=1)
        return top if pairs.kind == "probability" else np.exp(top - special.logsumexp(scores, axis=1))

    first, second = pairs.scores
    return of(first), of(second)
