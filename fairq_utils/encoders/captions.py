"""What could be said of an image: captions from its attributes, in varied wording.

A grammar is a list of sentences with gaps, and for each attribute the words that may fill its gap. Every
word that it can say is known beforehand, and is the vocabulary of the encoders that are trained on it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch

from fairq_utils.data.datasets import Dataset
from fairq_utils.data.moths import GROUPS, Moths, MothSettings, draw_moths, draw_traits, head_counts
from fairq_utils.data.sources import tuning_moths
from fairq_utils.encoders.mini import words_of
from fairq_utils.encoders.scenes import Scenes, from_codes
from fairq_utils.errors import BadInput

TRAINING_SETS = ("balanced", "skewed", "noisy")
RAREST = 1 / 16  # of the first group's images has the last one of a skewed training set
NOISE = 0.2  # of the images of a noisy training set are told what another one is


@dataclass(frozen=True)
class Grammar:
    """Sentences with gaps, and what may stand in them.

    `sentences`: each names attributes in braces. `wordings`: for an attribute, what may be said of each of
    its values; an empty text leaves the gap out. An attribute without wordings is said by its values as they
    are. `prompts`: sentences with one gap, which name a class. `queries`: what one may search for without
    naming a group.

    >>> grammar = Grammar(
    ...     ("a {tone} {kind}", "{kind}, {tone}"),
    ...     wordings={"tone": {"dark": ("dark", "dim"), "pale": ("pale",)}},
    ... )
    >>> table = pd.DataFrame({"tone": ["dark", "pale"], "kind": ["owl", "cat"]})
    >>> grammar.captions(table, each=2, seed=1)
    (('a dark owl', 'owl, dim'), ('a pale cat', 'cat, pale'))
    >>> grammar.vocabulary(table)
    ('a', 'an', 'cat', 'dark', 'dim', 'owl', 'pale')
    """

    sentences: tuple[str, ...]
    wordings: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    prompts: tuple[str, ...] = ()
    queries: tuple[str, ...] = ()

    def captions(self, attributes: pd.DataFrame, *, each: int = 4, seed: int = 0) -> tuple:
        """So many captions for each row; the same ones for the same row number and seed."""
        if type(each) is not int or each < 1:
            raise BadInput(f"each is {each!r}; expected a whole number of captions of at least 1.")
        random = np.random.default_rng(seed)
        # Where there are sentences enough, an image has each of them at most once.
        shuffled = random.random((len(attributes), len(self.sentences))).argsort(axis=1)
        choices = random.random((len(attributes), each, len(attributes.columns)))
        rows = attributes.astype(str).to_dict("records")
        return tuple(
            tuple(
                self._sentence(self.sentences[order[turn % len(order)]], row, choice)
                for turn, choice in enumerate(turns)
            )
            for row, order, turns in zip(rows, shuffled, choices, strict=True)
        )

    def _sentence(self, sentence: str, row: Mapping, choice: np.ndarray) -> str:
        said = {}
        for number, (attribute, value) in enumerate(row.items()):
            options = self.wordings.get(attribute, {}).get(value, (value,))
            said[attribute] = options[int(choice[number] * len(options))]
        return _smooth(sentence.format_map(said))

    def vocabulary(self, attributes: pd.DataFrame) -> tuple[str, ...]:
        """Every word that can be said of such a table, in alphabetical order."""
        texts = [re.sub(r"\{\w*\}", " ", text) for text in (*self.sentences, *self.prompts, *self.queries)]
        for attribute in attributes:
            for value in _values(attributes[attribute]):
                texts += self.wordings.get(str(attribute), {}).get(value, (value,))
        return tuple(sorted({"a", "an", *(word for text in texts for word in words_of(text))}))

    def prompts_for(self, attribute: str, names: Iterable[str]) -> list[list[str]]:
        """For each class, every prompt with its name: what is averaged to recognise it."""
        for prompt in self.prompts:
            if prompt.count("{}") != 1:
                raise BadInput(f"a prompt is {prompt!r}; expected one gap, as in: a photo of a {{}}.")
        said = [self.wordings.get(attribute, {}).get(name, (name,))[0] for name in names]
        return [[_smooth(prompt.replace("{}", name)) for prompt in self.prompts] for name in said]


def _values(column: pd.Series) -> list[str]:
    categorical = isinstance(column.dtype, pd.CategoricalDtype)
    return [str(value) for value in (column.cat.categories if categorical else column.unique())]


def _smooth(text: str) -> str:
    """Without the spaces that a gap leaves, and with the article that the next word wants."""
    text = re.sub(r"\s+", " ", text).replace(" ,", ",").strip()
    return re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", text)


# ---------------------------------------------------------------- moths

_SOME = {"medium": ("",)}  # what is neither much nor little is seldom said
MOTHS = Grammar(
    sentences=(
        "a {size} {tone} {species} moth with {bands} bands on {ground}",
        "{colour} {species} moth resting {pose} on {ground}",
        "this {species} moth has {eyes} eyespots and {bands} bands",
        "a photo of a {wear} {tone} {species} moth",
        "{ground} with a {size} {colour} {species} moth, {eyes} eyespots",
        "a {tone} {colour} moth, {pose}, of the {species} kind",
        "a {wear} {size} {species} moth on {ground}",
    ),
    wordings={
        "species": {name: (name.lower() if name != "Others" else "mixed",) for name in GROUPS},
        "size": _SOME | {"small": ("small", "little"), "large": ("large", "big")},
        "tone": _SOME | {"dark": ("dark", "dim"), "pale": ("pale", "light")},
        "colour": {name: (name,) for name in ("brown", "red", "green", "purple")},
        "eyes": _SOME | {"small": ("small", "tiny"), "large": ("large", "staring")},
        "bands": _SOME | {"faint": ("faint", "thin"), "bold": ("bold", "strong")},
        "ground": {
            "paper": ("paper", "a white sheet"),
            "bark": ("bark", "a tree trunk"),
            "leaf": ("a leaf", "a green leaf"),
        },
        "pose": {"straight": ("straight", "upright"), "tilted": ("tilted", "askew")},
        "wear": {"fresh": ("fresh", "clean"), "worn": ("worn", "tattered")},
    },
    prompts=("a photo of a {} moth", "a {} moth", "this {} moth", "a {} moth on bark", "a {} moth on paper"),
    # Of size, pose, wear and ground, none depends on the species.
    queries=(
        "a photo of a moth",
        "a small moth",
        "a large moth",
        "a tilted moth",
        "a worn moth",
        "a moth on paper",
        "a moth on bark",
        "a moth on a leaf",
    ),
)
MOTH_ATTRIBUTES = tuple(MOTHS.wordings)


def moth_attributes(settings: MothSettings) -> pd.DataFrame:
    """What can be said of each moth that `draw_moths` draws of these settings, in the same order.

    They are read from the numbers that decide how a moth is drawn, not from its picture. Bounds are fixed,
    so that what is a large moth does not depend on the others.

    >>> table = moth_attributes(MothSettings(train=10, test=5, sizes=(0.2,) * 5))
    >>> table.columns.tolist()
    ['species', 'size', 'tone', 'colour', 'eyes', 'bands', 'ground', 'pose', 'wear']
    >>> table["ground"].cat.categories.tolist()
    ['paper', 'bark', 'leaf']
    """
    parts = []
    for split, total in enumerate((settings.train, settings.test)):
        for group, count in enumerate(head_counts(total, settings.sizes)):
            streams = np.random.SeedSequence(settings.seed, spawn_key=(split, group)).spawn(4)
            traits = draw_traits(
                group, count, settings.difficulty[group], normals=streams[0], uniforms=streams[1]
            )
            red, green, blue = traits["fore"].T
            colour = np.full(count, "brown", dtype=object)
            colour[red - green > 0.16] = "red"
            colour[blue - green > 0.0] = "purple"
            colour[red - green < 0.03] = "green"
            tone = _between((red + green + blue) / 3, (0.45, 0.57), ("dark", "medium", "pale"))
            parts.append(
                pd.DataFrame(
                    {
                        "species": GROUPS[group],
                        "size": _between(traits["scale"], (1.0, 1.06), ("small", "medium", "large")),
                        "tone": tone,
                        "colour": colour,
                        "eyes": _between(traits["eye"], (0.045, 0.085), ("small", "medium", "large")),
                        "bands": _between(traits["ink_band"], (0.4, 0.65), ("faint", "medium", "bold")),
                        "ground": np.where(
                            traits["paper"], "paper", np.where(traits["bark"], "bark", "leaf")
                        ),
                        "pose": np.where(np.abs(traits["sin"]) > 0.2, "tilted", "straight"),
                        "wear": np.where(traits["fresh"] < 0.75, "worn", "fresh"),
                    }
                )
            )
    table = pd.concat(parts, ignore_index=True)
    return pd.DataFrame(
        {name: pd.Categorical(table[name], list(MOTHS.wordings[name])) for name in MOTH_ATTRIBUTES}
    )


def _between(values: np.ndarray, bounds: tuple[float, ...], names: tuple[str, ...]) -> np.ndarray:
    return np.array(names)[np.searchsorted(bounds, values)]


def captioned_moths(settings: MothSettings, drawn: Moths | None = None) -> Scenes:
    """The moths of these settings with captions; `drawn` where they have been drawn before.

    >>> scenes = captioned_moths(MothSettings(train=40, test=20))
    >>> scenes.captions[0][0]
    'a photo of a fresh alder moth'
    """
    drawn = drawn or draw_moths(settings)
    attributes = moth_attributes(settings)
    is_train = drawn.is_train & ~tuning_moths(drawn)
    return Scenes(drawn.images, MOTHS.captions(attributes), attributes, is_train, ~drawn.is_train)


# ---------------------------------------------------------------- faces

FACES = Grammar(
    sentences=(
        "a photo of a {gender} face",
        "{race} {gender}",
        "a face, {gender}, age {age}",
        "a photo of a {gender} face, {race}",
        "this face: {gender}, {race}, {age}",
    ),
    prompts=("a photo of a {} face", "a face, {}", "this face: {}"),
    queries=("a photo of a face", "this face", "a face", "a photo"),
)
FACE_ATTRIBUTES = ("gender", "race", "age")


def captioned_faces(by_gender: Dataset, by_age: Dataset) -> Scenes:
    """FairFace with captions that name its attributes as the data set does.

    A data set holds two attributes of an image. So it takes two of the same images: one with the label
    gender and the group race, and one with the label age; both loaded with `keep_conflicting=True`, since
    what is left out could differ otherwise. What the attributes name was seen by annotators on a picture.
    """
    if not torch.equal(by_gender.images, by_age.images):
        raise BadInput(
            "the two data sets hold other images; expected FairFace twice with equal settings but for the "
            "label, and with keep_conflicting=True."
        )
    told = {
        "gender": (by_gender.labels, by_gender.label_names),
        "race": (by_gender.groups, by_gender.group_names),
        "age": (by_age.labels, by_age.label_names),
    }
    attributes = pd.DataFrame({name: from_codes(codes, names) for name, (codes, names) in told.items()})
    # Which part an image is in depends on label and group, so that it is asked of one of the two.
    parts = by_gender.is_train, by_gender.is_test
    return Scenes(by_gender.images, FACES.captions(attributes), attributes, *parts)


# ---------------------------------------------------------------- what is trained on


def training_set(scenes: Scenes, kind: str, *, group: str, count: int, seed: int = 0) -> Scenes:
    """So many training images, drawn one of three ways; every way draws as many.

    `kind`: balanced has as many of each value of `group`; skewed has fewer of each value than of the one
    before, by equal factors, in the order of their names, down to a sixteenth of the first; noisy is
    balanced, but every fifth image has the captions and the attributes of another.

    >>> scenes = captioned_moths(MothSettings(train=100, test=20, sizes=(0.2,) * 5))
    >>> training_set(scenes, "skewed", group="species", count=31).codes("species").bincount()
    tensor([16,  8,  4,  2,  1])
    """
    if kind not in TRAINING_SETS:
        raise BadInput(f"training set is {kind!r}; expected one of: {', '.join(TRAINING_SETS)}.")
    if scenes.is_train is None or not scenes.captions:
        raise BadInput("the images have no training split or no captions; expected both: caption them first.")
    codes, names = scenes.codes(group), scenes.names(group)
    shares = np.geomspace(1, RAREST, len(names)) if kind == "skewed" else np.ones(len(names))
    wanted = head_counts(count, tuple(shares / shares.sum()))
    random = torch.Generator().manual_seed(seed)
    rows = []
    for code, (name, many) in enumerate(zip(names, wanted, strict=True)):
        there = (scenes.is_train & (codes == code)).nonzero()[:, 0]
        if len(there) < many:
            raise BadInput(
                f"a {kind} training set of {count} images needs {many} of {name}, and there are "
                f"{len(there)}; expected enough: lower the count, or draw more images."
            )
        rows.append(there[torch.randperm(len(there), generator=random)[:many]])
    chosen = scenes.take(torch.cat(rows).sort()[0])
    if kind != "noisy":
        return chosen
    wrong = torch.randperm(len(chosen.images), generator=random)[: round(NOISE * len(chosen.images))].tolist()
    said = np.arange(len(chosen.images))
    said[wrong] = np.roll(wrong, -1)  # each is told what the next one is
    captions = tuple(chosen.captions[row] for row in said)
    attributes = chosen.attributes.iloc[said].reset_index(drop=True)
    return Scenes(chosen.images, captions, attributes, chosen.is_train, chosen.is_test)
