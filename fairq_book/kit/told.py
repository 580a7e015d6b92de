"""Sentences that people wrote for the results that there are, and when each of them is true.

A sentence is written by a person and its numbers are filled in from tables. A plain function of the tables
says whether it holds. Where it does not, because the tables are other ones, a short neutral sentence with the
same numbers takes its place, with a mark by which the build finds it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import ArrayLike

from fairq_book.kit import by_network, earlier
from fairq_book.kit.interventions import Networks
from fairq_book.kit.wording import Prose, points, with_interval
from fairq_utils.metrics.verdicts import read

# Markdown shows nothing of it, so that a reader sees the sentence and the build sees the mark.
GAVE_WAY = "<!-- a sentence gave way to its numbers -->"

Sentence = Callable[..., Prose]


def told(says: str, *, holds: bool, otherwise: str) -> Prose:
    """What a person wrote, where it holds; else the numbers alone.

    >>> told("Nobody pays.", holds=True, otherwise="The change is +0.1.")
    Nobody pays.
    >>> told("Nobody pays.", holds=False, otherwise="The change is -7.0.")
    The change is -7.0. <!-- a sentence gave way to its numbers -->
    """
    return Prose(says if holds else f"{otherwise} {GAVE_WAY}")


def together(*sentences: Prose) -> Prose:
    """Several as paragraphs of one text."""
    return Prose("\n\n".join(one.text for one in sentences))


def needs(sentence: Sentence) -> list[str]:
    """The settings that a sentence is about: its parameters are named after them."""
    return list(inspect.signature(sentence).parameters)


def networks_of(setting: str) -> Networks:
    """The networks of that setting, as they were measured; of one measured earlier, their accuracies."""
    if setting in earlier.NAMES:
        before = earlier.load(setting)
        return Networks(before["accuracy_by_seed"].rename(columns={"correct": "right"}), str(before.majority))
    own = by_network.load(setting)
    return Networks(own.table, own.majority)


def tell(*sentences: Sentence) -> Prose:
    """Each of these sentences as a paragraph, of the settings that it names."""
    known = {name: networks_of(name) for name in {name for one in sentences for name in needs(one)}}
    return together(*(one(**{name: known[name] for name in needs(one)}) for one in sentences))


# ---------------------------------------------------------------- what a condition is made of


def falls(values: ArrayLike) -> bool:
    """Whether the mean over networks is surely below zero.

    >>> falls([-0.031, -0.012, -0.024, -0.017]), falls([-0.031, 0.012, 0.024, -0.017])
    (True, False)
    """
    return bool(read(values).upper < 0)


def rises(values: ArrayLike) -> bool:
    """Whether the mean over networks is surely above zero."""
    return falls(-np.asarray(values))


def within(values: ArrayLike, margin: float) -> bool:
    """Whether the mean over networks surely lies nearer to zero than the margin.

    >>> within([-0.003, 0.002, 0.001, -0.001], 0.01), within([-0.03, 0.02, 0.01, -0.01], 0.01)
    (True, False)
    """
    found = read(values)
    return bool(-margin < found.lower and found.upper < margin)


def share_of(part: ArrayLike, whole: ArrayLike) -> float:
    """Which share of the whole a part is, by the means over networks; 0 where there is no whole.

    >>> share_of([0.02, 0.04], [0.05, 0.05])
    0.6
    """
    all_of_it = float(np.mean(np.asarray(whole)))
    return round(float(np.mean(np.asarray(part))) / all_of_it, 12) if all_of_it > 0 else 0.0


# ---------------------------------------------------------------- numbers in a sentence


def in_points(values: ArrayLike) -> str:
    """The mean over networks in points, signed, with its interval.

    >>> in_points([-0.031, -0.012, -0.024, -0.017])
    '−2.1 (−3.4 to −0.8)'
    """
    found = read(values)
    return with_interval(points, found.estimate, found.lower, found.upper)


def in_each(values: Mapping[str, ArrayLike]) -> str:
    """The same of several settings: a number with its interval each, in points.

    >>> in_each({"faces": [-0.031, -0.012, -0.024, -0.017], "moths": [0.01, 0.02, 0.01, 0.02]})
    '−2.1 (−3.4 to −0.8) points on faces and +1.5 (+0.6 to +2.4) on moths'
    """
    (first, numbers), *others = ((name, in_points(own)) for name, own in values.items())
    said = [f"{numbers} points on {first}", *(f"{more} on {name}" for name, more in others)]
    return " and ".join(filter(None, [", ".join(said[:-1]), said[-1]]))


def size(values: ArrayLike) -> str:
    """The mean over networks in points, without its sign.

    >>> size([-0.031, -0.012, -0.024, -0.017])
    '2.1'
    """
    return f"{100 * abs(np.asarray(values, dtype=float).mean()):.1f}"
