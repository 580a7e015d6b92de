"""How the rows of an audit came about: which belong together, and how many others each of them stands for.

Twenty photographs of one person say less than those of twenty people, and a row that stands for a thousand
people is still one row. Intervals that overlook this are too narrow. So each share is told with its effective
number of rows: as many independent rows of equal weight would leave it as uncertain (Korn and Graubard 1998).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from fairq_utils.intervals import Floats, two_sided

Values = Sequence[float]


@dataclass(frozen=True)
class Sampling:
    """The weights of the rows and the clusters that they belong to; None where all are alike.

    `confidence` is that of the intervals that effective rows are for: few clusters leave the spread between
    them uncertain itself, and the surer an interval is to be, the more that costs.
    """

    weights: Floats | None = None
    clusters: NDArray[np.intp] | None = None
    confidence: float = 0.95

    @property
    def is_plain(self) -> bool:
        """Whether rows are independent and count alike, so that counts of them say all."""
        return self.weights is None and self.clusters is None


@dataclass(frozen=True)
class Counts:
    """How many rows of each cell are of each kind.

    `rows`: as they are, cells x kinds. `weighted`: by their weights, each cell scaled to its rows in all.
    `effective`: for each measure the effective rows of a cell as a share of its rows.
    """

    rows: NDArray[np.int64]
    weighted: Floats
    effective: Mapping[str, Floats]

    @classmethod
    def plain(cls, rows: NDArray[np.int64], measures: Sequence[str]) -> Counts:
        """Those of independent rows that count alike."""
        return cls(rows, rows.astype(np.float64), dict.fromkeys(measures, np.ones(len(rows))))


def count(
    cells: NDArray[np.intp],
    kinds: NDArray[np.intp],
    shape: tuple[int, int],
    measures: Mapping[str, Values],
    sampling: Sampling,
) -> Counts:
    """Count rows by cell and kind; a cell of -1 is none.

    A measure is the mean of a value that depends on the kind of a row: of an accuracy 1 where the row is
    right and 0 where it is wrong, of a drop 1, 0 and -1.

    >>> cells, kinds = np.repeat([0, 1], 40), np.tile(np.repeat([0, 1], 4), 10)
    >>> own = Sampling(clusters=np.arange(80) // 4)  # four rows each of twenty people, always alike
    >>> found = count(cells, kinds, (2, 2), {"share": [1, 0]}, own)
    >>> found.rows.tolist(), (40 * found.effective["share"]).round(1).tolist()
    ([[20, 20], [20, 20]], [6.8, 6.8])
    """
    inside = cells >= 0
    flat = np.ravel_multi_index((cells[inside], kinds[inside]), shape)
    rows = np.bincount(flat, minlength=shape[0] * shape[1]).reshape(shape)
    if sampling.is_plain:
        return Counts.plain(rows, list(measures))
    weights = np.ones(len(flat)) if sampling.weights is None else sampling.weights[inside]
    totals = np.bincount(flat, weights, minlength=rows.size).reshape(shape)
    n, whole = rows.sum(axis=1), totals.sum(axis=1)
    shares = totals / np.maximum(whole, np.finfo(float).tiny)[:, None]
    if sampling.clusters is None:  # each row is a cluster of its own, and squares add up kind by kind
        clusters = n
        squares = np.bincount(flat, weights**2, minlength=rows.size).reshape(shape)

        def spread(values: Floats) -> Floats:
            return np.asarray((squares * values**2).sum(axis=1))
    else:
        keys = cells[inside].astype(np.int64) * (int(sampling.clusters.max()) + 1) + sampling.clusters[inside]
        units, at = np.unique(keys, return_inverse=True)
        owner = units // (int(sampling.clusters.max()) + 1)
        clusters = np.bincount(owner, minlength=shape[0])
        table = np.bincount(at * shape[1] + kinds[inside], weights, minlength=len(units) * shape[1])
        table = table.reshape(len(units), shape[1])

        def spread(values: Floats) -> Floats:
            squared = (table * values[owner]).sum(axis=1) ** 2
            return np.bincount(owner, squared, minlength=shape[0]).astype(np.float64)

    found = {}
    for name, given in measures.items():
        values = np.asarray(given, dtype=np.float64)
        mean = shares @ values
        alone = (shares @ values**2 - mean**2) / np.maximum(n, 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            spent = clusters / (clusters - 1) * spread(values - mean[:, None]) / whole**2
            # Where nothing varies nothing is known of how alike rows of a cluster are: taken as quite alike.
            alike = spread(np.ones((shape[0], shape[1]))) / whole**2 * n
            effect = np.where((alone > 0) & (clusters > 1), spent / alone, alike)
        found[name] = 1 / (np.fmax(effect, 1) * _uncertain(clusters, sampling))
    return Counts(rows, shares * n[:, None], found)


def _uncertain(clusters: NDArray[np.intp], sampling: Sampling) -> Floats:
    """What it costs to know a spread from so many clusters only: Student's quantile for the normal one."""
    if sampling.clusters is None:
        return np.ones(len(clusters))
    freedom = np.maximum(clusters - 1, 1)
    student = special.stdtrit(freedom, (1 + sampling.confidence) / 2)
    return np.asarray((student / two_sided(sampling.confidence)) ** 2)
