"""How far chance moves a mean over networks: their spread, and what images add to it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from fairq_utils.metrics.arrays import (
    Array,
    as_array,
    tail_probability,
)


def shared_images(asked: Array) -> float:
    """How much of the noise of images the spread of several networks cannot show, from 0 to 1.

    `asked` is true where a network (row) was asked of an image (column). All of it where each was asked of
    the same images, for then a lucky choice of images lifts them all alike; nothing where no two share any.

    >>> shared_images([[True, True], [True, True]]), shared_images([[True, False], [False, True]])
    (1.0, 0.0)
    """
    table = np.atleast_2d(as_array(asked))
    seeds, times = len(table), table.sum(axis=0, dtype=float)
    if seeds == 1:
        return 1.0
    # Of pairs of networks on one image, over all such pairs that there could be with as much noise.
    return float(seeds * (times * (times - 1)).sum() / ((seeds - 1) * (times**2).sum()))


def beyond_seeds(of_images: float, of_seeds: float, shared: float) -> float:
    """The variance that images add to that of the mean over networks, which is `of_seeds`.

    What the networks vary by holds the noise of images already, except for the `shared` part. With few
    networks it may be too small by chance: the sum is never less than the images alone would give.

    >>> beyond_seeds(2.0, 5.0, 1.0), beyond_seeds(2.0, 5.0, 0.0), beyond_seeds(2.0, 0.5, 0.0)
    (2.0, 0.0, 1.5)
    """
    return max(shared * of_images, of_images - of_seeds)


@dataclass(frozen=True)
class Noise:
    """The mean of each network, and by how much images alone make the mean over networks vary."""

    by_seed: NDArray[np.float64]
    of_images: float
    freedom: float
    shared: float

    @property
    def of_seeds(self) -> float:
        """The variance of the mean over networks that their spread shows; of one network it is not known."""
        return float(self.by_seed.var(ddof=1) / len(self.by_seed)) if len(self.by_seed) > 1 else 0.0

    def parts(self) -> list[tuple[float, float]]:
        """What the variance of the mean over networks is the sum of, each with its degrees of freedom."""
        of_images = beyond_seeds(self.of_images, self.of_seeds, self.shared)
        return [(of_images, self.freedom), (self.of_seeds, len(self.by_seed) - 1)]


def noise(values: Array) -> Noise:
    """Of numbers of one group, seeds by examples: what images and seeds each add to the noise of the mean.

    >>> noise([[1.0, 3.0], [2.0, 4.0]]).by_seed
    array([2., 3.])
    """
    table = np.ma.atleast_2d(as_array(values))
    asked = ~np.ma.getmaskarray(table)
    there = asked.any(axis=1)
    table, asked = table[there], asked[there]
    by_seed = np.asarray(table.mean(axis=1))
    sizes = asked.sum(axis=1, keepdims=True)
    of_image = ((table - by_seed[:, None]) / (sizes * len(table))).filled(0.0).sum(axis=0)
    count = len(of_image)
    of_images = float((of_image**2).sum() * count / (count - 1)) if count > 1 else np.nan
    return Noise(by_seed, of_images, count - 1, shared_images(asked))


def reach_of_sum(parts: Sequence[tuple[float, float]], level: float = 0.95) -> float:
    """How far Student's interval reaches of what varies by these variances, each with its freedom, together.

    >>> round(reach_of_sum([(1.0, 9.0)]), 2)
    2.26
    """
    total = sum(variance for variance, _ in parts)
    if total == 0:
        return 0.0
    # Welch and Satterthwaite's degrees of freedom.
    freedom = 1 / sum((variance / total) ** 2 / free for variance, free in parts if variance)
    return float(np.sqrt(total) * stats.t.ppf(1 - tail_probability(level), freedom))
