"""Moths: five groups of procedurally drawn moths, in which each cause can be set by itself.

A moth is a list of some fifty numbers: corners of wings, bands, spots and colours, and then pose, light,
wear and ground. A species is a typical value of each of the former, around which its moths vary. The
last group, Others, is no species: it is four rare morphs, each with the form of one species in the
colours of another.

Two things make a moth hard to name, and its group's difficulty scales both. It carries a share of a
stranger's traits (another species; for a morph, one of its two parents), and it varies around its kind.
The share is half-normal: most moths are clear, some are doubtful, a few look more like the stranger.
So there is no single cue that is there or is not, and the margins of a network have a natural spread.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from types import SimpleNamespace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fairq_utils.errors import BadInput

GROUPS = ("Alder", "Bracken", "Clover", "Damson", "Others")
SHARES = (0.425, 0.191, 0.145, 0.168, 0.071)
DIFFICULTY = (1.0, 1.0, 1.0, 1.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class MothSettings:
    """Everything that decides a set of moths: equal settings give equal images, on any machine.

    `train`, `test`: how many images each split has.
    `image_size`: pixels along a side. A moth is the same at every size, only finer; at 16 its eyes are
    blots.
    `seed`: another seed draws other moths of the same kinds.
    `sizes`: each group's share of the images of both splits; by default the shares of UTKFace.
    `difficulty`: at 0 every moth of a group is the pure type, far from all others; a larger value means
    more overlap with other groups and more variety within. When all groups have difficulty 1 and equal
    sizes, a full-precision ResNet18 is right about equally often on each. The default was calibrated
    once, on full-precision networks alone, to resemble accuracies on faces. A group that is too easy
    needs a larger value; beyond 3 there is little left to learn.
    `label_noise`: the fraction of each group's training labels that is replaced by another label at
    random. Groups stay true, and so do all labels of the test split, which is there to judge.

    The i-th moth of a group depends on its split, group, seed and difficulty, never on a size or on
    another group's settings. Size and difficulty can therefore be set apart: `sizes=(0.2,) * 5` leaves
    unequal difficulty alone, `difficulty=(1,) * 5` unequal sizes alone, both together neither.

    >>> MothSettings(difficulty=(1, 1, 1, 1, 2)).difficulty
    (1.0, 1.0, 1.0, 1.0, 2.0)
    >>> MothSettings(label_noise=0.1)
    Traceback (most recent call last):
        ...
    fairq_utils.errors.BadInput: label_noise is 0.1; expected 5 fractions from 0 to 1, one for each of
    Alder, Bracken, Clover, Damson, Others.
    """

    train: int = 6000
    test: int = 6000
    image_size: int = 32
    seed: int = 0
    sizes: tuple[float, ...] = SHARES
    difficulty: tuple[float, ...] = DIFFICULTY
    label_noise: tuple[float, ...] = (0.0,) * 5

    def __post_init__(self) -> None:
        for name, low, high in (
            ("train", 5, 1_000_000),
            ("test", 5, 1_000_000),
            ("image_size", 16, 512),
            ("seed", 0, 2**32 - 1),
        ):
            given = getattr(self, name)
            if type(given) is not int or not low <= given <= high:
                raise BadInput(f"{name} is {given!r}; expected a whole number from {low} to {high}.")
        for name, meaning, high in (
            ("sizes", "shares that add up to 1", 1.0),
            ("difficulty", "numbers from 0 to 10", 10.0),
            ("label_noise", "fractions from 0 to 1", 1.0),
        ):
            given = getattr(self, name)
            try:
                values = tuple(float(value) for value in given)
            except (TypeError, ValueError):
                values = ()
            within = len(values) == len(GROUPS) and all(0 <= value <= high for value in values)
            if not within or (name == "sizes" and abs(sum(values) - 1) > 1e-6):
                raise BadInput(
                    f"{name} is {given!r}; expected {len(GROUPS)} {meaning}, one for each of {', '.join(GROUPS)}."
                )
            object.__setattr__(self, name, values)
        for name in ("train", "test"):
            if 0 in _head_counts(getattr(self, name), self.sizes):
                raise BadInput(
                    f"{name} is {getattr(self, name)} and sizes is {self.sizes}; expected at least one image "
                    "in each group, so raise one of the two."
                )


@dataclass(frozen=True, eq=False)
class Moths:
    """What `draw_moths` returns: first the training images, then the test images, each group by group.

    `images` is uint8 of shape N x 3 x H x W. `groups` and `labels` are int64 and index `names`; they
    differ where label noise struck. `is_train` is true for the training images.
    """

    images: Tensor
    labels: Tensor
    groups: Tensor
    is_train: Tensor
    names: tuple[str, ...] = GROUPS


def draw_moths(settings: MothSettings) -> Moths:
    """Draw the moths that the settings describe; the default 12,000 take a few seconds.

    >>> moths = draw_moths(MothSettings(train=100, test=20))
    >>> moths.images.shape, moths.images.dtype
    (torch.Size([120, 3, 32, 32]), torch.uint8)
    >>> [int((moths.groups[moths.is_train] == group).sum()) for group in range(5)]
    [42, 19, 15, 17, 7]
    """
    images, labels, groups = [], [], []
    for split, total in enumerate((settings.train, settings.test)):
        for group, count in enumerate(_head_counts(total, settings.sizes)):
            # Streams of its own for each split and group, so that no setting reaches another's moths.
            streams = np.random.SeedSequence(settings.seed, spawn_key=(split, group)).spawn(4)
            traits = _traits(group, count, settings.difficulty[group], *streams[:2])
            images += [_paint(batch, settings.image_size) for batch in _batches(traits, settings.image_size, streams[2])]
            noise = np.random.default_rng(streams[3]).random((count, 2))
            wrong = (noise[:, 0] < settings.label_noise[group]) & (split == 0)
            other = 1 + (noise[:, 1] * (len(GROUPS) - 1)).astype(int)
            labels.append((group + wrong * other) % len(GROUPS))
            groups.append(np.full(count, group))
    return Moths(
        images=torch.from_numpy(np.concatenate(images)),
        labels=torch.from_numpy(np.concatenate(labels)),
        groups=torch.from_numpy(np.concatenate(groups)),
        is_train=torch.arange(settings.train + settings.test) < settings.train,
    )


def _head_counts(total: int, shares: tuple[float, ...]) -> list[int]:
    """Whole numbers nearest to the shares that add up to the total: largest remainders round up."""
    exact = np.array(shares) * total
    counts = np.floor(exact + 1e-6).astype(int)
    short = total - counts.sum()
    counts[np.argsort(counts - exact, kind="stable")[:short]] += 1
    return counts.tolist()


# What the species look like. Lengths: the picture reaches from -1 to 1, and the moth's axis is x = 0.
# Bands lie between the root of a wing (0) and its outer edge (1). All else: strength from 0 to 1.
_FORM = {
    # trait: (spread within a species, then Alder, Bracken, Clover, Damson)
    "apex_x": (0.030, 0.90, 0.92, 0.80, 0.88),
    "apex_y": (0.040, 0.46, 0.60, 0.40, 0.50),
    "tornus_x": (0.030, 0.68, 0.54, 0.64, 0.66),
    "tornus_y": (0.030, -0.08, 0.00, -0.06, -0.12),
    "termen_bow": (0.020, 0.05, -0.05, 0.10, 0.05),
    "rounding": (0.020, 0.12, 0.10, 0.18, 0.15),
    "hind_x": (0.030, 0.66, 0.60, 0.66, 0.64),
    "hind_y": (0.030, 0.56, 0.52, 0.50, 0.64),
    "hind_bow": (0.020, 0.13, 0.12, 0.15, 0.15),
    "scallop": (0.003, 0.008, 0.002, 0.011, 0.003),
    "inner_band": (0.030, 0.36, 0.40, 0.42, 0.30),
    "outer_band": (0.030, 0.70, 0.66, 0.72, 0.78),
    "band_width": (0.008, 0.026, 0.020, 0.015, 0.024),
    "band_wave": (0.006, 0.024, 0.002, 0.012, 0.018),
    "ink_band": (0.080, 0.85, 0.60, 0.10, 0.50),
    "pale_band": (0.080, 0.35, 0.40, 0.85, 0.25),
    "field": (0.060, 0.50, 0.05, 0.05, 0.20),
    "border": (0.060, 0.25, 0.40, 0.05, 0.70),
    "kidney": (0.008, 0.050, 0.035, 0.025, 0.055),
    "eye": (0.012, 0.030, 0.075, 0.020, 0.125),
    "veins": (0.060, 0.35, 0.45, 0.60, 0.25),
    "speckle": (0.060, 0.80, 0.35, 0.15, 0.45),
    "girth": (0.010, 0.105, 0.125, 0.090, 0.135),
    "plume": (0.005, 0.014, 0.034, 0.012, 0.044),
}
# Colours in Oklab (lightness, green to red, blue to yellow), where halfway between two looks halfway.
_COLOURS = {
    "fore": ((0.66, 0.010, 0.036), (0.58, 0.070, 0.078), (0.80, -0.032, 0.055), (0.48, 0.045, -0.004)),
    "hind": ((0.76, 0.008, 0.040), (0.70, 0.062, 0.092), (0.87, -0.018, 0.038), (0.62, 0.042, 0.016)),
    "ink": ((0.33, 0.010, 0.025), (0.33, 0.052, 0.042), (0.48, -0.028, 0.042), (0.24, 0.028, -0.012)),
    "pale": ((0.90, 0.004, 0.025), (0.88, 0.022, 0.052), (0.96, -0.004, 0.024), (0.82, 0.026, 0.028)),
    "accent": ((0.62, 0.055, 0.085), (0.76, 0.026, 0.110), (0.72, 0.070, 0.035), (0.74, 0.050, 0.085)),
    "fur": ((0.60, 0.010, 0.036), (0.55, 0.060, 0.070), (0.88, -0.008, 0.038), (0.44, 0.040, 0.006)),
}
_COLOUR_SPREAD = (0.035, 0.012, 0.014)
# A morph has the form of the species at its place, in the colours of the species named here.
_MORPH_COLOURS = np.array([3, 2, 0, 1])
_GROUNDS = np.array([(0.92, 0.003, 0.022), (0.71, 0.006, 0.018), (0.80, -0.024, 0.034)])  # paper, bark, leaf
_STRANGER = (0.25, 0.25, 0.25, 0.25, 0.25)
# Fields of noise, stretched over the picture whatever its size: channels, rows, columns.
_LATTICES = {"blotch": (1, 5, 5), "mottle": (1, 40, 40), "streak": (1, 3, 26), "grain": (3, 32, 32)}

_Array = NDArray[np.float32]


def _traits(
    group: int, count: int, difficulty: float, normals: np.random.SeedSequence, uniforms: np.random.SeedSequence
) -> dict[str, NDArray[np.floating]]:
    """One value (or colour, or pair) for each moth: `count` along the first axis, then what it is."""
    # A row for each moth, so that the first moths of a group stay themselves when more are drawn.
    normal = iter(np.random.default_rng(normals).standard_normal((count, 70)).clip(-2.5, 2.5).T)
    uniform = iter(np.random.default_rng(uniforms).random((count, 6)).T)

    def around(centre: float, spread: float) -> NDArray[np.float64]:
        return centre + spread * next(normal)

    spread, kinds = np.split(np.array(list(_FORM.values())), [1], axis=1)
    colours = np.array(list(_COLOURS.values())).transpose(0, 2, 1)

    shape = next(uniform)
    if group < 4:
        form = colour = np.full(count, group)
        stranger = (group + 1 + (3 * next(uniform)).astype(int)) % 4
    else:
        form = (4 * shape).astype(int)
        colour = _MORPH_COLOURS[form]
        stranger = np.where(next(uniform) < 0.5, form, colour)
    share = np.minimum(np.abs(around(0, _STRANGER[group] * difficulty)), 1)

    values = kinds[:, form] + share * (kinds[:, stranger] - kinds[:, form])
    values += difficulty * spread * np.stack([next(normal) for _ in kinds])
    # However great the difficulty, what is drawn remains a moth.
    lowest, highest = kinds.min(1, keepdims=True), kinds.max(1, keepdims=True)
    floor = np.where(lowest > 0, 0.001, -np.inf)
    values = values.clip(np.maximum(lowest - 3 * spread, floor), highest + 3 * spread)

    # Most of the variety in colour is common to the whole moth, so that its colours stay in harmony.
    common = np.stack([next(normal) for _ in range(3)])
    own = np.stack([next(normal) for _ in range(len(colours) * 3)]).reshape(len(colours), 3, count)
    tints = colours[:, :, colour] + share * (colours[:, :, stranger] - colours[:, :, colour])
    tints += difficulty * np.array(_COLOUR_SPREAD)[:, None] * (0.8 * common + 0.6 * own)

    tilt, leaf_turn, bites = around(0, 0.22), 2 * np.pi * next(uniform), 2 * np.pi * np.stack([next(uniform), next(uniform)], 1)
    ground = (3 * next(uniform)).astype(int)
    warmth = around(0, 0.02)
    scalars = dict(zip(_FORM, values, strict=True)) | {
        "cos": np.cos(tilt),
        "sin": np.sin(tilt),
        "x": around(0, 0.04),
        "y": around(0, 0.04),
        "scale": around(1.03, 0.06),
        "yaw": around(0, 0.03),
        "exposure": around(1, 0.05),
        "light_x": around(0, 0.05),
        "light_y": around(0.04, 0.04),
        "blur": 0.010 + np.abs(around(0, 0.012)),
        "noise": 0.008 + np.abs(around(0, 0.006)),
        "fresh": 1 - np.abs(around(0, 0.25)),
        "leaf_cos": np.cos(leaf_turn),
        "leaf_sin": np.sin(leaf_turn),
        "leaf_shift": around(0, 0.3),
        "paper": ground == 0,
        "bark": ground == 1,
        "leaf": ground == 2,
    }
    pairs = {
        "nick_x": 0.76 * np.cos(bites),
        "nick_y": 0.50 * np.sin(bites),
        "nick": 0.07 * np.stack([next(normal), next(normal)], 1).clip(0),
    }
    triples = {name: _screen(tint.T) for name, tint in zip(_COLOURS, tints, strict=True)} | {
        "ground": _screen(_GROUNDS[ground] + np.stack([around(0, 0.03), around(0, 0.005), around(0, 0.008)], 1)),
        "cast": 1 + warmth[:, None] * [1, 0, -1],
    }
    several = {name: value[:, :, None, None] for name, value in (pairs | triples).items()}
    return {name: value[:, None, None] for name, value in scalars.items()} | several
