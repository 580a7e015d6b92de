"""How hard the moths are: difficulties that give full-precision networks the accuracies that are wanted.

`fairq calibrate` runs it. Networks of pilot seeds learn moths that no page of the book shows, in full
precision only, so nothing that is said of rounding went into the numbers. What it finds is written into
`fairq_utils/data/moths.py` by hand.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from fairq_book.experiments.seeds import draw_of, rotation_of
from fairq_utils.data.moths import GROUPS, MothSettings, draw_moths
from fairq_utils.data.sources import MOTHS, ROLES, MothKind, roles_of_species, tuning_moths
from fairq_utils.training.loop import Recipe, predict, train

KIND_IMAGES = (
    2000  # training images of the kinds of moths whose roles rotate: many small networks, quickly made
)
_EAGER = 2.0  # how far a difficulty moves, on a scale of logarithms, for all of the accuracy that is missing


@dataclass(frozen=True, kw_only=True)
class Target:
    """Moths whose difficulties are to be found, and the accuracy that is wanted of each group.

    By species or, where the roles of `kind` rotate, by role. Where nothing is wanted, the difficulty stays as
    it is.
    """

    kind: MothKind
    wanted: tuple[float | None, ...]
    train_images: int = 6000
    test_images: int = 6000

    @property
    def groups(self) -> tuple[str, ...]:
        """Whose accuracies these are."""
        return ROLES if self.kind.rotates else GROUPS

    def moths(self, seed: int) -> MothSettings:
        """Which moths the network of a seed learns."""
        kind = self.kind.by_species(rotation_of(seed))
        return MothSettings(
            train=self.train_images,
            test=self.test_images,
            seed=draw_of(seed),
            sizes=kind.sizes,
            difficulty=kind.difficulty,
        )


_NOTHING = (None,) * 4
# By the name of the data set. Of moths whose roles rotate, the first finds by species what makes these
# equally hard, and the last how much harder the focal group is; of the two between nothing is sought.
TARGETS = {
    "moths": Target(kind=MOTHS["moths"], wanted=(*_NOTHING, 0.50)),
    "moths-harder": Target(kind=MOTHS["moths-harder"], wanted=(*_NOTHING, 0.35)),
    "moths-easier": Target(kind=MOTHS["moths-easier"], wanted=(*_NOTHING, 0.65)),
    "moths-equal": Target(
        kind=MOTHS["moths-equal"].by_species(0), wanted=(0.80,) * 5, train_images=KIND_IMAGES
    ),
    "moths-by-size": Target(kind=MOTHS["moths-by-size"], wanted=(*_NOTHING, None), train_images=KIND_IMAGES),
    "moths-by-difficulty": Target(
        kind=MOTHS["moths-by-difficulty"], wanted=(*_NOTHING, None), train_images=KIND_IMAGES
    ),
    "moths-by-both": Target(kind=MOTHS["moths-by-both"], wanted=(*_NOTHING, 0.40), train_images=KIND_IMAGES),
}


@dataclass(frozen=True, eq=False)
class Tried:
    """A step of a search: the difficulties that were tried, and the accuracy of each group, by network."""

    target: Target
    by_network: NDArray[np.float64]

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """The mean of each group over networks."""
        return np.asarray(self.by_network.mean(axis=0))

    @property
    def spread(self) -> NDArray[np.float64]:
        """The standard deviation of each group over networks."""
        return np.asarray(self.by_network.std(axis=0, ddof=min(1, len(self.by_network) - 1)))

    @property
    def table(self) -> pd.DataFrame:
        """A row a group: how hard it was made, and how often it was named right, in percent."""
        numbers = {
            "difficulty": self.target.kind.difficulty,
            "accuracy": (100 * self.accuracy).round(1),
            "sd": (100 * self.spread).round(1),
        }
        return pd.DataFrame({"group": self.target.groups, **numbers, "networks": len(self.by_network)})

    @property
    def missing(self) -> NDArray[np.float64]:
        """How much more accurate each group is than is wanted; 0 where nothing is."""
        wanted = np.array(self.target.wanted, dtype=float)  # None becomes NaN
        return np.nan_to_num(self.accuracy - wanted)

    def next(self) -> Target:
        """The next difficulties: harder where a group is right too often, easier where too rarely."""
        kind = self.target.kind
        moved = (
            round(own * math.exp(_EAGER * more), 3)
            for own, more in zip(kind.difficulty, self.missing, strict=True)
        )
        return replace(self.target, kind=replace(kind, difficulty=tuple(moved)))


def search(target: Target, seeds: Sequence[int], *, arch: str, rounds: int, workers: int) -> Iterator[Tried]:
    """Step by step towards the difficulties that give what is wanted; the last step is not always the best.

    >>> even = replace(TARGETS["moths-equal"], train_images=60, test_images=20)
    >>> next(search(even, [900], arch="resnet18-1", rounds=1, workers=1)).by_network.shape
    (1, 5)
    """
    with ProcessPoolExecutor(workers) as pool:
        for _ in range(rounds):
            tried = Tried(target, np.array(list(pool.map(partial(_accuracy, target, arch), seeds))))
            yield tried
            target = tried.next()


def _accuracy(target: Target, arch: str, seed: int) -> list[float]:
    """The share of test images that one network names right, for each group."""
    torch.set_num_threads(1)
    moths = draw_moths(target.moths(seed))
    learned = moths.is_train & ~tuning_moths(moths)
    network = train(
        arch,
        moths.images[learned],
        moths.labels[learned],
        classes=len(GROUPS),
        recipe=Recipe(),
        seed=seed,
    )
    tested = ~moths.is_train
    right = (predict(network, moths.images[tested]).argmax(1) == moths.labels[tested]).double()
    groups = moths.groups[tested]
    if target.kind.rotates:
        groups = torch.tensor(roles_of_species(rotation_of(seed)))[groups]
    return [float(right[groups == group].mean()) for group in range(len(GROUPS))]
