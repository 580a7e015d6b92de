"""What the seed of a network tells besides its weights: which images it sees."""

from __future__ import annotations

from dataclasses import replace

from fairq_utils.data.sources import FOLDS, ROLES, DataSettings

# Networks of different seeds see different images, so that an interval over networks covers other images and
# another split as well. There are few draws, as there are few folds, which keeps the store small.
DRAWS = 4
PILOTS, PILOT_DRAW = 900, 10  # seeds of pilots begin here, and so do their draws


def draw_of(seed: int) -> int:
    """Which moths the networks of a seed see: seeds from 900 on are pilots, whose moths no other sees.

    >>> [draw_of(seed) for seed in (0, 1, 4, 900, 903)]
    [0, 1, 0, 10, 13]
    """
    return seed % DRAWS + (PILOT_DRAW if seed >= PILOTS else 0)


def rotation_of(seed: int) -> int:
    """Which species is the focal one for the networks of a seed, where moths take roles in turn.

    >>> [rotation_of(seed) for seed in (0, 4, 5)]
    [0, 4, 0]
    """
    return seed % len(ROLES)


def fold_of(seed: int) -> int:
    """Which fold of photographs the networks of a seed are tested on.

    >>> [fold_of(seed) for seed in (0, 4, 5)]
    [0, 4, 0]
    """
    return seed % FOLDS


def of_seed(settings: DataSettings, seed: int) -> DataSettings:
    """The images that the networks of a seed see.

    >>> of_seed(DataSettings(name="moths-equal"), 6).rotation, of_seed(DataSettings(), 6).draw
    (1, 2)
    """
    if settings.is_drawn:
        return replace(settings, draw=draw_of(seed), rotation=rotation_of(seed) if settings.rotates else 0)
    return replace(settings, fold=fold_of(seed))
