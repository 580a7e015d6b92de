"""The sentences of the chapter on language: each with a guard, and with plain numbers where the guard fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from fairq_audit.formats import counted, signed
from fairq_book.chapters.language import secondary, tables
from fairq_book.chapters.language.kept import SEEDS, Kept
from fairq_book.chapters.language.questions import QUESTIONS, Languages
from fairq_book.chapters.language.treatments import WIDTHS
from fairq_book.kit.wording import Prose, points, with_interval
from fairq_utils.language.articles import SHARES
from fairq_utils.metrics.verdicts import Reading


@dataclass(frozen=True, eq=False)
class Findings:
    """What the networks that were measured say, each number read once."""

    kept: Kept

    @cached_property
    def languages(self) -> Languages:
        """The answers, by treatment and measure."""
        return Languages(self.kept.answers)

    @cached_property
    def primary(self) -> Mapping[str, Reading]:
        """The reading of each primary question."""
        return {one.key: one.reading(self.languages) for one in QUESTIONS}

    @cached_property
    def secondary(self) -> Mapping[str, Reading]:
        """Of each that is secondary, all of them together."""
        return secondary.readings(self.languages, self.kept.landscape)

    def word(self, key: str) -> str:
        """What is said of a question, be it primary or secondary."""
        return (self.primary.get(key) or self.secondary[key]).word

    def numbers(self, *keys: str) -> str:
        """What the questions rest on, in points with intervals."""
        return "; ".join(f"{_short(key)} {self.number(key)}" for key in keys)

    def number(self, key: str) -> str:
        """What a question rests on, in points, or as a factor where it is one."""
        own = self.primary.get(key) or self.secondary[key]
        form = points if key in self.primary or self._asked[key].in_points else _times
        return with_interval(form, own.estimate, own.lower, own.upper)

    def mean(self, key: str) -> float:
        """The estimate of a question, in points."""
        return 100 * (self.primary.get(key) or self.secondary[key]).estimate

    @cached_property
    def _asked(self) -> Mapping[str, secondary.Asked]:
        return secondary.asked(self.languages.names)


def _short(key: str) -> str:
    """What a number is of, as it stands before it.

    >>> _short("L1, int4"), _short("int4-mse extra")
    ('int4', 'int4-mse extra')
    """
    return key.rpartition(", ")[2]


def _times(log: float) -> str:
    return f"{2**log:.2f} times"


@dataclass(frozen=True)
class Sentence:
    """A sentence that a person wrote, and when it is true; `numbers` are told where it is not."""

    about: str
    holds: Callable[[Findings], bool]
    says: Callable[[Findings], str]
    numbers: Sequence[str]

    def told(self, found: Findings) -> Prose:
        """The sentence, or what it is about with its numbers."""
        if self.holds(found):
            return Prose(self.says(found))
        return Prose(
            f"{self.about}, over {counted(found.kept.networks, 'network')}: {found.numbers(*self.numbers)}."
        )


def _at(question: str, widths: Sequence[int] = WIDTHS) -> list[str]:
    return [f"{question}, int{bits}" for bits in widths]


SENTENCES: dict[str, Sentence] = {}


def tell(key: str, kept: Kept) -> Prose:
    """The sentence of that name, on the networks that were measured."""
    return SENTENCES[key].told(Findings(kept))
