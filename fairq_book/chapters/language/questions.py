"""The questions on languages that were registered before their networks: one number a network each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fairq_book.chapters.language.treatments import REPAIRED, WIDTHS
from fairq_utils.errors import BadInput
from fairq_utils.metrics.by_network import TREND, over_widths, slopes_within
from fairq_utils.metrics.verdicts import MARGINS, Reading, read

Floats = NDArray[np.float64]
Measure = Literal["accuracy", "extra", "flips", "bits", "logit_variance", "confidence"]
HALVINGS = 3  # from the whole text to an eighth


class Languages:
    """What treatments do to each language of each network, by a table of `measure_language`.

    >>> rows = [("fp32", 0, "a", 1.0, 100, 70.0, 50, 0), ("fp32", 0, "b", 0.5, 100, 70.0, 40, 0)]
    >>> rows += [("int4", 0, "a", 1.0, 100, 77.0, 45, 9), ("int4", 0, "b", 0.5, 100, 70.0, 41, 7)]
    >>> names = ["treatment", "seed", "language", "share", "bytes", "nats", "right", "flips"]
    >>> languages = Languages(pd.DataFrame(rows, columns=names))
    >>> languages.change("int4", "extra").round(2).to_numpy().tolist()
    [[0.1, 0.0]]
    """

    def __init__(self, table: pd.DataFrame) -> None:
        self.table = table
        self.names = list(table["language"].unique())
        original = table[table["treatment"] == "fp32"]
        self._usual = float(original["nats"].mean())
        shares = original.pivot_table(index="seed", columns="language", values="share")[self.names]
        self.halvings = shares.map(lambda share: -np.log2(share))
        self._of = cache(self._laid_out)

    @property
    def networks(self) -> int:
        """How many networks there are."""
        return len(self.halvings)

    def of(self, treatment: str, measure: Measure) -> pd.DataFrame:
        """A measure of each network and language, seeds by languages.

        `accuracy` and `flips` are shares of the bytes, `bits` those of a byte; `extra` is what the articles
        take, as a share of what they take in full precision on average over languages and networks: they say
        the same in all of these.
        """
        return self._of(treatment, measure)

    def _laid_out(self, treatment: str, measure: Measure) -> pd.DataFrame:
        own = self.table[self.table["treatment"] == treatment]
        if own.empty:
            raise BadInput(f"{treatment} was not measured; expected it, or another question.")
        value = {
            "accuracy": lambda: own["right"] / own["bytes"],
            "flips": lambda: own["flips"] / own["bytes"],
            "bits": lambda: own["nats"] / np.log(2) / own["bytes"],
            "extra": lambda: own["nats"] / self._usual,
        }.get(measure, lambda: own[measure])()
        return own.assign(value=value).pivot_table(index="seed", columns="language", values="value")[
            self.names
        ]

    def change(self, treatment: str, measure: Measure, control: str = "fp32") -> pd.DataFrame:
        """By how much a measure differs from that of the control, seeds by languages."""
        return self.of(treatment, measure) - self.of(control, measure)

    def slope(self, treatment: str, measure: Measure, control: str = "fp32") -> Floats:
        """How far a line through the changes rises from a language with all its text to one with an eighth.

        One number a network; what a language has in all networks is taken away.
        """
        return HALVINGS * slopes_within(self.change(treatment, measure, control), self.halvings)

    def steepness(self, treatment: str, measure: Measure) -> Floats:
        """The same of a measure itself, in place of its change."""
        return HALVINGS * slopes_within(self.of(treatment, measure), self.halvings)


@dataclass(frozen=True)
class Question:
    """What is asked, of which number of each network, and which way it goes if the answer is yes."""

    key: str
    asks: str
    said: str
    number: Callable[[Languages], Floats]
    bits: int
    yes: Literal["falls", "rises"]

    @property
    def margin(self) -> float:
        """The least difference that matters, as for the contrasts of images."""
        return MARGINS[self.bits]

    def reading(self, languages: Languages) -> Reading:
        """What the networks say."""
        return read(self.number(languages), self.margin)


def _by_width(
    key: str, asks: str, said: str, measure: Measure, yes: Literal["falls", "rises"]
) -> list[Question]:
    return [
        Question(
            f"{key}, int{bits}",
            asks,
            f"slope of {said}",
            lambda own, name=f"int{bits}": own.slope(name, measure),  # type: ignore[misc]
            bits,
            yes,
        )
        for bits in WIDTHS
    ]


def _trend(own: Languages) -> Floats:
    return over_widths(np.stack([own.slope(f"int{bits}", "accuracy") for bits in WIDTHS], 1), TREND)


def _of_repair(key: str, asks: str, words: str, control: str) -> list[Question]:
    return [
        Question(
            f"{key}, {one.name}",
            asks,
            f"slope of accuracy, {words} less {control}",
            lambda own, name=one.name: own.slope(  # type: ignore[misc]
                f"{name}-{words}", "accuracy", f"{name}-{control}"
            ),
            one.bits or 4,
            "rises",
        )
        for one in REPAIRED
    ]


QUESTIONS = (
    *_by_width(
        "L1",
        "Does an article cost more where less was held?",
        "the extra length of an article",
        "extra",
        "rises",
    ),
    *_by_width("L2", "Do more answers flip where less was held?", "the flips", "flips", "rises"),
    *_by_width("L3", "Is more accuracy lost there?", "the change of accuracy", "accuracy", "falls"),
    Question("L4", "The more, the fewer bits?", "trend of the slope of accuracy", _trend, 4, "falls"),
    *_of_repair("L5", "Does training while rounded narrow that?", "qat", "tuned"),
    *_of_repair(
        "L6", "Do loss weights with even sampling, more than it alone?", "qat-weighted-sampled", "qat"
    ),
)
