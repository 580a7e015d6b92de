"""Moths: five groups of procedurally drawn moths, in which each cause can be set by itself.

A moth is a list of some fifty numbers: corners of its wings, bands, spots and colours, and then pose,
light, wear and ground. A species is a typical value of each of the former, around which its moths vary.
The last group, Others, is no species: it is four rare morphs, each with the fore wings and body of one
species and the hind wings of another.

Two things make a moth hard to name, and the difficulty of its group raises both. It takes a share of a
stranger's traits (of another species; a morph, of one of its own two), and it varies around its kind.
The share is half-normal: most moths are clear, some are doubtful, a few look more like the stranger.
So no single cue decides, and the margins of a network have a natural spread.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fairq_utils.errors import BadInput

GROUPS = ("Alder", "Bracken", "Clover", "Damson", "Others")
SHARES = (0.425, 0.191, 0.145, 0.168, 0.071)
# Calibrated on full-precision networks of pilot seeds alone, by `fairq calibrate`. Of the default moths there
# are three that differ in how hard Others are. `EVEN` are difficulties at which groups of one size are right
# about equally often; where roles rotate, that of the focal group is `FOCAL_DIFFICULTY` times as large.
DIFFICULTY = (1.0, 1.0, 1.0, 1.0, 1.25)
HARDER, EASIER = (*DIFFICULTY[:4], 1.54), (*DIFFICULTY[:4], 1.02)
EVEN = (0.95, 1.04, 0.955, 0.905, 0.575)
FOCAL_DIFFICULTY = 1.5


@dataclass(frozen=True, kw_only=True)
class MothSettings:
    """Everything that decides a set of moths: equal settings give equal images, on any machine.

    `train`, `test`: how many images each split has.
    `image_size`: pixels along a side. A moth is the same at every size, only finer; at 16 its eyes are
    blots.
    `seed`: another seed draws other moths of the same kinds.
    `sizes`: each group's share of the images of both splits; by default the shares of UTKFace.
    `difficulty`: at 0 all moths of a group are of its pure type, far from the other groups; a larger value
    means more overlap with them and more variety within. With equal sizes and the difficulties `EVEN`, a
    full-precision network is right about equally often on all groups. The default was calibrated once, on
    full-precision networks alone, so that the largest group is right on about 90 % and Others on half.
    Raise it for a group that is too easy; beyond 4 there is little left to learn.
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
        whole_numbers = {
            "train": (5, 10**6),
            "test": (5, 10**6),
            "image_size": (16, 512),
            "seed": (0, 2**32 - 1),
        }
        for name, (least, most) in whole_numbers.items():
            given = getattr(self, name)
            if type(given) is not int or not least <= given <= most:
                raise BadInput(f"{name} is {given!r}; expected a whole number from {least} to {most}.")
        for name, meaning, highest in (
            ("sizes", "positive shares that add up to 1", 1),
            ("difficulty", "numbers from 0 to 10", 10),
            ("label_noise", "fractions from 0 to 1", 1),
        ):
            given = getattr(self, name)
            values = tuple(given) if isinstance(given, (tuple, list)) else ()
            right = len(values) == len(GROUPS) and all(
                isinstance(value, (int, float)) and 0 <= value <= highest for value in values
            )
            if not right or (name == "sizes" and abs(sum(values) - 1) > 1e-6):
                raise BadInput(
                    f"{name} is {given!r}; expected {len(GROUPS)} {meaning}, "
                    f"one for each of {', '.join(GROUPS)}."
                )
            object.__setattr__(self, name, tuple(map(float, values)))
        for name in ("train", "test"):
            if 0 in head_counts(getattr(self, name), self.sizes):
                raise BadInput(
                    f"{name} is {getattr(self, name)} and sizes is {self.sizes}; expected at least one image "
                    "in each group, so raise one of the two."
                )


@dataclass(frozen=True, eq=False)
class Moths:
    """What `draw_moths` returns: first the training images, then the test images, each group by group.

    `images` is uint8 of shape N x 3 x H x W. `groups` and `labels` are int64 and index `names`; they
    differ where label noise struck. `is_train` is true for the training images.

    >>> moths = draw_moths(MothSettings(train=50, test=20, label_noise=(0, 0, 0, 0, 1)))
    >>> [moths.names[group] for group in moths.groups[moths.labels != moths.groups]]
    ['Others', 'Others', 'Others', 'Others']
    """

    images: Tensor
    labels: Tensor
    groups: Tensor
    is_train: Tensor
    names: tuple[str, ...] = GROUPS


@dataclass(frozen=True, kw_only=True)
class Brood:
    """Moths of one group in one split, in an order: to draw more of them changes none of the first ones.

    `split`: 0 for training, 1 for the test. Broods that differ in any field have streams of random numbers
    of their own, so that no setting reaches another's moths.

    >>> few, more = (Brood(split=0, group=2, seed=0).draw(count) for count in (3, 5))
    >>> bool((few == more[:3]).all())
    True
    """

    split: int
    group: int
    seed: int
    difficulty: float = 1.0
    image_size: int = 32

    def draw(self, count: int) -> NDArray[np.uint8]:
        """Pictures of so many of them, count x 3 x size x size."""
        normals, uniforms, fields, _ = self._streams()
        traits = draw_traits(self.group, count, self.difficulty, normals=normals, uniforms=uniforms)
        batches = [_paint(batch, self.image_size) for batch in _batches(traits, self.image_size, fields)]
        return np.concatenate(batches)

    def noise(self, count: int) -> NDArray[np.float64]:
        """Two numbers from 0 to 1 for each of them, which decide over noise of its label."""
        return np.random.default_rng(self._streams()[3]).random((count, 2))

    def _streams(self) -> list[np.random.SeedSequence]:
        return np.random.SeedSequence(self.seed, spawn_key=(self.split, self.group)).spawn(4)


def draw_moths(settings: MothSettings, draw: Callable[[Brood, int], NDArray[np.uint8]] = Brood.draw) -> Moths:
    """Draw the moths that the settings describe; the default 12,000 take a few seconds.

    `draw`: where the pictures of a brood come from, for whoever has drawn them before.

    >>> moths = draw_moths(MothSettings(train=200, test=20))
    >>> moths.images.shape, moths.images.dtype
    (torch.Size([220, 3, 32, 32]), torch.uint8)
    >>> [int((moths.groups[moths.is_train] == group).sum()) for group in range(5)]
    [85, 38, 29, 34, 14]
    """
    images, labels, groups = [], [], []
    for split, total in enumerate((settings.train, settings.test)):
        for group, count in enumerate(head_counts(total, settings.sizes)):
            brood = Brood(
                split=split,
                group=group,
                seed=settings.seed,
                difficulty=settings.difficulty[group],
                image_size=settings.image_size,
            )
            images.append(draw(brood, count))
            noise = brood.noise(count)
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


def head_counts(total: int, shares: tuple[float, ...]) -> list[int]:
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
    "rounding": (0.020, 0.12, 0.13, 0.18, 0.15),
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
# The i-th morph has the hind wings (these traits) of the species named i-th, and all else of species i.
_HIND_TRAITS = {"hind_x", "hind_y", "hind_bow", "eye", "hind", "accent"}
_HIND_SPECIES = np.array([1, 2, 3, 0])
# What difficulty 1 means to each group: with equal sizes, ResNet18s of three seeds in full precision are
# right on 84 to 86 of 100 moths of each (and with the default settings on 93, 84, 80, 81 and 39).
_EVEN = (1.00, 1.48, 1.66, 1.44, 2.05)
_GROUNDS = np.array([(0.92, 0.003, 0.022), (0.71, 0.006, 0.018), (0.80, -0.024, 0.034)])  # paper, bark, leaf
# Fields of noise, stretched over the picture whatever its size: channels, rows, columns.
_LATTICES = {"blotch": (1, 5, 5), "mottle": (1, 40, 40), "streak": (1, 3, 26), "grain": (3, 32, 32)}


def draw_traits(
    group: int,
    count: int,
    difficulty: float,
    *,
    normals: np.random.SeedSequence,
    uniforms: np.random.SeedSequence,
) -> dict[str, NDArray[np.floating]]:
    """What decides each moth's look, but for noise: arrays of `count` numbers, pairs or colours."""
    # A row for each moth, so that the first moths of a group stay themselves when more are drawn.
    normal = iter(np.random.default_rng(normals).standard_normal((count, 64)).clip(-2.5, 2.5).T)
    uniform = iter(np.random.default_rng(uniforms).random((count, 6)).T)

    def around(centre: float, spread: float) -> NDArray[np.float64]:
        return centre + spread * next(normal)

    def three() -> NDArray[np.float64]:
        return np.stack([next(normal) for _ in range(3)], axis=1)

    # -- its kind, which for a morph is two species, and the stranger whose traits it shares
    pick, side = (4 * next(uniform)).astype(int), next(uniform)
    if GROUPS[group] == "Others":
        front, rear = pick, _HIND_SPECIES[pick]
        stranger = np.where(side < 0.5, front, rear)
    else:
        front = rear = np.full(count, group)
        stranger = (group + 1 + (3 * side).astype(int)) % 4
    strength = _EVEN[group] * difficulty
    share = _bounded(0.25 * strength * np.abs(next(normal)))
    # Bounded, too: a hard moth should resemble a stranger, not be known by its oddity.
    variety = 1.4 * _bounded(strength)

    # -- form
    values = {}
    for name, (spread, *kinds) in _FORM.items():
        own, strange = np.array(kinds)[[rear if name in _HIND_TRAITS else front, stranger]]
        value = own + share * (strange - own) + variety * spread * next(normal)
        # However great the variety, it remains a moth: near to what the species show, no width below 0.
        least = min(kinds) - 3 * spread
        values[name] = value.clip(max(least, 0.001) if min(kinds) > 0 else least, max(kinds) + 3 * spread)

    # -- colours: most of the variety is common to all colours of a moth, which keeps them in harmony
    common = three()
    for name, colours in _COLOURS.items():
        own, strange = np.array(colours)[[rear if name in _HIND_TRAITS else front, stranger]]
        different = variety * (0.8 * common + 0.6 * three()) * _COLOUR_SPREAD
        values[name] = _screen(own + share[:, None] * (strange - own) + different)

    # -- pose, light, wear and ground: alike in all groups
    tilt, turn = around(0, 0.22), 2 * np.pi * next(uniform)
    nicks = 2 * np.pi * np.stack([next(uniform), next(uniform)], axis=1)
    ground = (3 * next(uniform)).astype(int)
    shade = three() * (0.030, 0.005, 0.008)
    return values | {
        "cos": np.cos(tilt),
        "sin": np.sin(tilt),
        "x": around(0, 0.04),
        "y": around(0, 0.04),
        "scale": around(1.03, 0.06),
        "yaw": around(0, 0.03),
        "exposure": around(1, 0.05),
        "light_x": around(0, 0.05),
        "light_y": around(0.04, 0.04),
        "cast": 1 + around(0, 0.02)[:, None] * [1, 0, -1],
        "blur": 0.010 + np.abs(around(0, 0.012)),
        "noise": 0.008 + np.abs(around(0, 0.006)),
        "fresh": 1 - np.abs(around(0, 0.25)),
        "nick_x": 0.88 * np.cos(nicks),
        "nick_y": 0.60 * np.sin(nicks),
        "nick": 0.07 * np.stack([next(normal), next(normal)], axis=1).clip(0),
        "ground": _screen(_GROUNDS[ground] + shade),
        "paper": ground == 0,
        "bark": ground == 1,
        "leaf": ground == 2,
        "leaf_cos": np.cos(turn),
        "leaf_sin": np.sin(turn),
        "leaf_shift": around(0, 0.3),
    }


def _bounded(value: Any) -> Any:
    """About the value when small, and never more than 1."""
    return value / np.sqrt(1 + value * value)


def _screen(oklab: NDArray[np.float64]) -> NDArray[np.float64]:
    """Oklab colours (n x 3) as red, green and blue from 0 to 1 (sRGB)."""
    to_cones = [
        [1.0, 1.0, 1.0],
        [0.39633778, -0.10556135, -0.08948418],
        [0.21580376, -0.06385417, -1.29148555],
    ]
    to_light = [
        [4.07674166, -1.26843800, -0.00419609],
        [-3.30771159, 2.60975740, -0.70341861],
        [0.23096993, -0.34131940, 1.70761470],
    ]
    light = ((oklab @ to_cones) ** 3 @ to_light).clip(0, 1)
    return np.where(light < 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def _batches(
    traits: dict[str, NDArray[np.floating]], size: int, stream: np.random.SeedSequence
) -> Iterator[SimpleNamespace]:
    """The traits of as many moths at a time as stay in a processor's cache, with their fields of noise."""
    random = np.random.default_rng(stream)
    step = max(1, 2**16 // size**2)
    for start in range(0, len(traits["x"]), step):
        batch = {
            name: values[start : start + step, ..., None, None].astype(np.float32)
            for name, values in traits.items()
        }
        lengths = [prod(shape) for shape in _LATTICES.values()]
        noise = random.standard_normal((len(batch["x"]), sum(lengths)), dtype=np.float32)
        fields = np.split(noise, np.cumsum(lengths)[:-1], axis=1)
        for (name, shape), field in zip(_LATTICES.items(), fields, strict=True):
            batch[name] = _stretch(field.reshape(-1, *shape), size)
        yield SimpleNamespace(**batch)


# From here on only operations that IEEE 754 rounds exactly (+, -, *, /, sqrt, comparisons), one at a time
# and in float32: the same bits on every processor, which sin, exp or a matrix product do not promise.
# Shapes: numbers are n x 1 x 1, colours n x 3 x 1 x 1, fields n x H x W. A distance is positive outside.


def _paint(m: SimpleNamespace, size: int) -> NDArray[np.uint8]:
    """The pictures (n x 3 x size x size) of the moths with traits and noise `m`."""
    right = (np.arange(size, dtype=np.float32) + 0.5) * (2 / size) - 1
    up = -right[:, None]
    soft = np.sqrt(m.blur * m.blur + (2 / size) ** 2)
    mottle, blotch = m.mottle[:, 0], m.blotch[:, 0]

    # -- the ground: paper, bark or a leaf
    along = m.leaf_cos * right + m.leaf_sin * up
    across = m.leaf_cos * up - m.leaf_sin * right + m.leaf_shift
    side_ribs = 0.2 * _wave(1.5 * along - 1.35 * np.abs(across))
    ribs = _line(across, 0.012, soft) + 0.4 * _line(side_ribs, 0.009, soft)
    rough = m.paper * 0.008 + m.bark * 0.018 + m.leaf * 0.010
    texture = 0.022 * blotch + rough * mottle + 0.05 * m.bark * m.streak[:, 0] + 0.08 * m.leaf * ribs
    picture = m.ground + texture[:, None]

    # -- the moth's own coordinates: v upwards along the body, u away from it on both sides
    x = (m.cos * (right - m.x) + m.sin * (up - m.y)) / m.scale
    v = (m.cos * (up - m.y) - m.sin * (right - m.x)) / m.scale
    u = np.abs(x) * (1 + m.yaw * np.sign(x))

    # -- outlines: a wing is a triangle with bent sides and round corners
    root, apex, tornus = (0.02, 0.05), (m.apex_x, m.apex_y), (m.tornus_x, m.tornus_y)
    shoulder, heel = (m.hind_x, 0.06), (0.16, -m.hind_y)
    costa, _ = _edge(u, v, (0.02, 0.16), apex, 0.045)
    termen, fore_along = _edge(u, v, apex, tornus, m.termen_bow)
    termen = termen + m.scallop * _wave(7 * fore_along)
    inner, _ = _edge(u, v, tornus, (0.02, -0.06), 0)
    fore = _larger(_larger(costa, termen, m.rounding), inner, m.rounding)
    top, _ = _edge(u, v, (0.02, 0.14), shoulder, 0)
    rim, hind_along = _edge(u, v, shoulder, heel, m.hind_bow)
    rim = rim + 1.3 * m.scallop * _wave(7 * hind_along)
    flank, _ = _edge(u, v, heel, (0, 0), 0.06)
    hind = _larger(_larger(top, rim, 0.2), flank, 0.2)
    wings = np.minimum(fore, hind)
    for k in range(2):  # nicks, on one side only
        wings = np.maximum(wings, m.nick[:, k] - _length(x - m.nick_x[:, k], v - m.nick_y[:, k]))
    abdomen = _oval(u, v + 0.20, 0.85 * m.girth, 0.32)
    thorax = _oval(u, v - 0.10, 1.15 * m.girth, 0.19)
    head = _oval(u, v - 0.285, 0.6 * m.girth, 0.07)
    body = -_larger(_larger(-abdomen, -thorax, 0.06), -head, 0.04) - 0.006 * mottle
    shadow = (0.7 - 10 * np.minimum(wings, body)).clip(0, 1)
    picture = _over(picture, 0.4 * m.ground, 0.5 * shadow)

    # -- wings: q runs from the root (0) to the outer edge (1) of the wing that is seen
    seen_fore = _inside(fore, soft)
    is_fore = fore < 0
    fore_reach, hind_reach = -_edge(*root, apex, tornus, 0)[0], -_edge(*root, shoulder, heel, 0)[0]
    q = 1 + np.where(is_fore, termen / fore_reach, rim / hind_reach)
    thin = soft / np.where(is_fore, fore_reach, hind_reach)
    bend = m.band_wave * _wave(4 * np.where(is_fore, fore_along, hind_along) + 0.2)
    inner_band, outer_band = q - m.inner_band - bend, q - m.outer_band - bend
    bands = _line(outer_band, m.band_width, thin) + is_fore * _line(inner_band, m.band_width, thin)
    field = is_fore * _inside(-inner_band, thin) * _inside(outer_band, thin)
    halo = _line(outer_band - 2.3 * m.band_width, m.band_width, thin)
    halo = halo + is_fore * _line(inner_band + 2.3 * m.band_width, m.band_width, thin)
    border = (5 * q - 4).clip(0, 1)
    ink = np.maximum(np.maximum(m.ink_band * bands, 0.55 * m.field * field), m.border * border)
    beside = u + 0.05
    veins = m.veins * _line(0.055 * beside * _wave(3.2 * (v - 0.10) / beside), 0.006, soft)
    a, b = u - 0.52 * m.apex_x, v - 0.10 - 0.38 * m.apex_y
    kidney = _length(a + 0.5 * b, 0.67 * b) - m.kidney
    eye = _length(u - 0.54 * m.hind_x, v + 0.36 * m.hind_y) - m.eye
    seen_eye = (25 * m.eye - 0.7).clip(0, 1) * (1 - seen_fore)
    fresh = (m.fresh + 0.12 * blotch).clip(0, 1)
    margin = np.where(is_fore, fore, hind)

    wing = _over(m.hind, m.fore, seen_fore) + 0.02 * m.blotch
    for colour, alpha in (
        (m.ink, 0.5 * fresh * veins),
        (m.ink, 0.35 * m.speckle * (mottle - 0.4).clip(0, 1)),
        (m.pale, 0.20 * m.speckle * (-mottle - 0.4).clip(0, 1)),
        (m.pale, fresh * m.pale_band * halo),
        (m.ink, fresh * ink),
        (m.ink, 0.8 * fresh * seen_fore * _inside(kidney, soft)),
        (m.fore, fresh * seen_fore * _inside(kidney + 0.022, soft)),
        (m.ink, seen_eye * _inside(eye, soft)),
        (m.accent, seen_eye * _inside(eye + 0.28 * m.eye, soft)),
        (m.ink, seen_eye * _inside(eye + 0.60 * m.eye, soft)),
        (m.pale, seen_eye * _inside(eye + 0.84 * m.eye, soft)),
        (m.ink, 0.6 * _line(margin + 0.042, 0.008, soft)),
        (m.pale, 0.5 * _inside(-margin - 0.028, soft)),
    ):
        wing = _over(wing, colour, alpha)
    under_fore = (1 - seen_fore) * (1 - 10 * fore).clip(0, 1)
    wing = wing * (1 - 0.28 * under_fore - 0.22 * (1 - 4.5 * u).clip(0, 1))[:, None]
    picture = _over(picture, wing, _inside(wings, soft))

    # -- antennae, then the body in its fur
    height = (v - 0.30).clip(0, 0.34)
    antenna = 0.8 * (u - 0.03 - 0.5 * height - 1.3 * height * height)
    ends = _inside(0.295 - v, soft) * _inside(v - 0.62, soft)
    plume = 31 * m.plume * height * (0.36 - height)
    picture = _over(picture, m.ink, 0.55 * ends * _line(antenna, plume, soft))
    picture = _over(picture, m.ink, 0.9 * ends * _line(antenna, 0.008, soft))
    fur = _over(m.fur, m.ink, 0.3 * _wave(8 * v).clip(0, 1) * _inside(v + 0.03, soft))
    fur = _over(fur, m.pale, 0.45 * _line(v - 0.20, 0.03, soft))
    fur = fur * (1.1 - 0.4 * (u / m.girth).clip(0, 1.2) + 0.06 * mottle)[:, None]
    picture = _over(picture, fur, _inside(body, soft))

    light = m.exposure + m.light_x * right + m.light_y * up
    picture = picture * light[:, None] * m.cast + m.noise[:, None] * m.grain
    return (255 * picture.clip(0, 1) + 0.5).astype(np.uint8)


def _over(below: Any, colour: Any, alpha: Any) -> Any:
    return below + (colour - below) * alpha[:, None]


def _inside(distance: Any, soft: Any) -> Any:
    """How much of a pixel lies inside an outline, which is `soft` wide."""
    return (0.5 - distance / soft).clip(0, 1)


def _line(distance: Any, width: Any, soft: Any) -> Any:
    """How much of a pixel is covered by a line of half-width `width`: a thin line grows faint, not wide."""
    away = np.abs(distance)
    return _inside(away - width, soft) - _inside(away + width, soft)


def _length(a: Any, b: Any) -> Any:
    return np.sqrt(a * a + b * b)


def _larger(a: Any, b: Any, rounding: Any) -> Any:
    """The maximum, with a round transition: of two distances, the corner in which two outlines meet."""
    near = (rounding - np.abs(a - b)).clip(0)
    return np.maximum(a, b) + near * near / (4 * rounding)


def _wave(phase: Any) -> Any:
    """A wave of period 1 between -1 and 1, of parabolas."""
    z = phase - np.floor(phase) - 0.5
    return -8 * z * (1 - 2 * np.abs(z))


def _edge(u: Any, v: Any, start: tuple[Any, Any], end: tuple[Any, Any], bow: Any) -> tuple[Any, Any]:
    """Distance to the left of the line from start to end, bent outwards by `bow`, and the place along it."""
    du, dv = end[0] - start[0], end[1] - start[1]
    length = _length(du, dv)
    du, dv = du / length, dv / length
    along = ((u - start[0]) * du + (v - start[1]) * dv) / length
    return (v - start[1]) * du - (u - start[0]) * dv - 4 * bow * along * (1 - along), along


def _oval(u: Any, v: Any, half_width: Any, half_height: Any) -> Any:
    """About the distance to an ellipse."""
    a, b = u / half_width, v / half_height
    ratio = _length(a, b)
    return ratio * (ratio - 1) / (_length(a / half_width, b / half_height) + 1e-6)


def _stretch(lattice: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """A lattice of values (n x c x rows x columns) smoothly stretched to n x c x size x size."""
    for axis in (2, 3):
        cells = lattice.shape[axis]
        at = ((np.arange(size) + 0.5) / size * cells - 0.5).clip(0, cells - 1)
        low = np.minimum(at.astype(int), cells - 2)
        part = (at - low).astype(np.float32)
        part = part * part * (3 - 2 * part)
        part = part[:, None] if axis == 2 else part
        below = lattice.take(low, axis)
        lattice = below + (lattice.take(low + 1, axis) - below) * part
    return lattice
