"""Questions on why minorities pay: each a contrast of interventions with their control, one number a network.

The questions stand on the page of registered questions and were asked before the networks that answer them
were trained. A number is in points: of accuracy, or of the share of answers that change.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fairq_book.kit.by_network import MeasuredNetworks
from fairq_book.kit.tables import student_interval
from fairq_book.kit.wording import Prose, in_points
from fairq_utils.errors import BadInput
from fairq_utils.metrics.by_network import JUMP, TREND, WIDTHS, others_against, over_widths
from fairq_utils.metrics.verdicts import MARGINS, Reading, read
from fairq_utils.treatments.ablations import parse_name
from fairq_utils.treatments.decomposition import taken_apart
from fairq_utils.treatments.treatment import Treatment

Floats = NDArray[np.float64]


class Networks:
    """What treatments do to minorities and to the majority of each network, by a table of `by_network`.

    >>> rows = [("fp32", 9, 8), ("int4", 9, 6), ("int4-bn", 9, 8), ("fp32-bn", 9, 9)]
    >>> table = pd.DataFrame(
    ...     [(name, 0, group, 10, right) for name, *both in rows for group, right in zip("ab", both)],
    ...     columns=["treatment", "seed", "group", "n", "right"],
    ... )
    >>> networks = Networks(table, "a")
    >>> networks.contrast("int4"), networks.contrast("int4-bn", "fp32-bn")
    (array([-0.2]), array([-0.1]))
    """

    def __init__(self, table: pd.DataFrame, majority: str) -> None:
        self.table, self.majority = table, majority
        self._wide: dict[str, dict[str, pd.DataFrame]] = {}
        self.groups = list(table["group"].unique())
        if majority not in self.groups:
            raise BadInput(f"majority is {majority!r}; expected one of: {', '.join(self.groups)}.")

    def of(self, treatment: str, measure: str = "right") -> pd.DataFrame:
        """A measure of each network and group, seeds by groups; counts as shares of the images."""
        if measure not in self._wide:
            self._wide[measure] = self._laid_out(measure)
        if treatment not in self._wide[measure]:
            raise BadInput(f"{treatment} was not measured; expected it, or another question.")
        return self._wide[measure][treatment]

    def _laid_out(self, measure: str) -> dict[str, pd.DataFrame]:
        """A measure of every treatment at once: to sort a table for one of them takes as long."""
        own = self.table
        value = own[measure] / own["n"] if measure in ("right", "lost", "won", "flips") else own[measure]
        wide = own.assign(value=value).pivot_table(
            index=["treatment", "seed"], columns="group", values="value"
        )
        return {
            str(name): rows.droplevel("treatment")[self.groups] for name, rows in wide.groupby("treatment")
        }

    def change(self, treatment: str, control: str = "fp32", measure: str = "right") -> pd.DataFrame:
        """How a measure differs from that of the control, seeds by groups."""
        return self.of(treatment, measure) - self.of(control, measure)

    def overall(self, treatment: str) -> Floats:
        """The accuracy over all images of each network."""
        own = self.table[self.table["treatment"] == treatment].groupby("seed")[["right", "n"]].sum()
        return (own["right"] / own["n"]).to_numpy()

    def contrast(self, treatment: str, control: str = "fp32", measure: str = "right") -> Floats:
        """The mean change of all groups but the largest, minus that of the largest: one number a network."""
        return self._against(self.change(treatment, control, measure))

    def level(self, treatment: str, measure: str) -> Floats:
        """What all groups but the largest have of it in the mean, minus what the largest has."""
        return self._against(self.of(treatment, measure))

    def parts(self, treatment: str, measure: str = "right") -> pd.DataFrame:
        """A treatment's change taken apart, by `taken_apart`: a row for each network, group and part."""
        share = self.table["right"] / self.table["n"] if measure == "right" else self.table[measure]
        table = self.table[["treatment", "seed", "group"]].assign(value=share)
        return taken_apart(table, Treatment.parse(treatment), value="value")

    def part(self, treatment: str, part: str) -> Floats:
        """The contrast of one part of a treatment's change."""
        found = self.parts(treatment)
        own = found[found["part"] == part]
        return self._against(own.pivot_table(index="seed", columns="group", values="share")[self.groups])

    def _against(self, wide: pd.DataFrame) -> Floats:
        return others_against(wide, self.groups.index(self.majority))


def put_right(words: str, width: str) -> dict[str, tuple[str, str]]:
    """A treatment of that width as it is, with new batch norm statistics, and with class offsets.

    Each with its control: of new statistics full precision with new ones, for it changes by them as well.
    Offsets change nothing in full precision, to which they are fitted.

    >>> put_right("mse", "int4")["new statistics"]
    ('int4-mse-bn', 'fp32-bn')
    """
    endings = {
        "as it is": ("", "fp32"),
        "new statistics": ("bn", "fp32-bn"),
        "class offsets": ("offsets", "fp32"),
    }
    return {
        variant: (parse_name("-".join(filter(None, [width, ending, words]))).name, control)
        for variant, (ending, control) in endings.items()
    }


def in_rows(
    networks: Networks,
    rows: Mapping[str, Mapping[str, tuple[str, str]]],
    *,
    width: str = "",
    measure: str = "right",
    level: float = 0.95,
) -> pd.DataFrame:
    """Contrasts for a figure of dots: for each row and each of its variants a treatment and its control.

    What was not measured is left out. `width` names the panel. Intervals are Student's over networks.
    """
    there = set(networks.table["treatment"])
    found = []
    for row, variants in rows.items():
        for variant, (treatment, control) in variants.items():
            if {treatment, control} <= there:
                values = pd.Series(networks.contrast(treatment, control, measure))
                about = {"width": width, "row": row, "group": variant, "networks": len(values)}
                found.append(about | student_interval(values, level))
    return pd.DataFrame(found)


@dataclass(frozen=True)
class Question:
    """What is asked, of which number, at which width; and which way the number goes if the answer is yes."""

    key: str
    asks: str
    number: Callable[[Networks], Floats]
    said: str  # what the number is
    bits: int
    yes: str  # falls or rises
    chapter: str

    @property
    def margin(self) -> float:
        """The least difference that matters; two bits are judged as three are."""
        return MARGINS[max(self.bits, min(MARGINS))]

    def reading(self, measured: MeasuredNetworks) -> Reading:
        """What the networks say."""
        return read(self.number(Networks(measured.table, measured.majority)), self.margin)

    def answer(self, reading: Reading) -> str:
        """Yes, no, the reverse, or how large a difference the networks leave possible."""
        return answer(reading, self.yes)


def answer(reading: Reading, yes: str) -> str:
    """What a reading says to a question whose number falls, or rises, where the answer is `yes`.

    >>> lower = read([-0.05, -0.06, -0.055], margin=0.03)
    >>> answer(lower, "falls"), answer(lower, "rises")
    ('yes', 'the reverse')
    """
    if reading.word == "no change":
        return "no"
    if reading.word == "bounded":
        return f"no difference larger than {100 * reading.bound:.1f}"
    return "yes" if reading.word == yes else "the reverse"


_RANGE, _WHY, _BIN = "01_disparity_baseline", "02_logit_variance_collapse", "03_zero_bin_sparsity"

QUESTIONS = (
    Question(
        "W1",
        "Does the range with the least squared error make minorities pay?",
        lambda own: own.contrast("int4-mse"),
        "contrast, int4 with that range",
        4,
        "falls",
        _RANGE,
    ),
    Question(
        "W2",
        "More than the range that takes in every weight?",
        lambda own: own.contrast("int4-mse", "int4"),
        "contrast, int4 with that range against int4",
        4,
        "falls",
        _RANGE,
    ),
    Question(
        "W3",
        "Is it that large weights are cut off?",
        lambda own: own.contrast("int4-mse-clipped"),
        "contrast, cut off there and not rounded",
        4,
        "falls",
        _RANGE,
    ),
    Question(
        "W4",
        "Is it that weights are rounded?",
        lambda own: own.contrast("int4-mse-unclipped"),
        "contrast, rounded with its steps and not cut off",
        4,
        "falls",
        _RANGE,
    ),
    Question(
        "W5",
        "Do minorities pay once each class is as probable as it was before?",
        lambda own: own.contrast("int4-offsets"),
        "contrast, int4 with class offsets",
        4,
        "falls",
        _WHY,
    ),
    Question(
        "W6",
        "And with the range of least error?",
        lambda own: own.contrast("int4-mse-offsets"),
        "contrast, int4 with that range and class offsets",
        4,
        "falls",
        _WHY,
    ),
    Question(
        "W7",
        "Do old batch norm statistics make minorities pay?",
        lambda own: own.contrast("int3-bn", "fp32-bn") - own.contrast("int3"),
        "contrast, what new statistics give back at int3, beyond full precision",
        3,
        "rises",
        _WHY,
    ),
    Question(
        "W8",
        "Do minorities still pay with new ones?",
        lambda own: own.contrast("int3-bn", "fp32-bn"),
        "contrast, int3 against full precision, both with new statistics",
        3,
        "falls",
        _WHY,
    ),
    Question(
        "W9",
        "Is anything left once statistics, class offsets and temperature are put right?",
        lambda own: own.part("int4-mse", "rest"),
        "contrast, the rest, int4 with the range of least error",
        4,
        "falls",
        _WHY,
    ),
    Question(
        "W10",
        "Does it matter whose images the statistics are of?",
        lambda own: own.contrast("int3-bn-majority", "int3-bn-balanced"),
        "contrast, int3, statistics of the majority alone against balanced ones",
        3,
        "rises",
        _WHY,
    ),
    Question(
        "W11",
        "Do steps four times as wide make minorities pay, where the function is the same?",
        lambda own: own.contrast("int4-bn-scaled4", "int4-bn"),
        "contrast, int4 with a loud channel in each layer against without, new statistics",
        4,
        "falls",
        _BIN,
    ),
    Question(
        "W12",
        "Does the loud channel do anything beyond widening the steps?",
        lambda own: own.contrast("int4-bn-scaled4", "int4-bn-coarser4"),
        "contrast, the same against steps as wide without it",
        4,
        "falls",
        _BIN,
    ),
    Question(
        "W13",
        "Does emptying the zero bin, and nothing else, make minorities pay?",
        lambda own: own.contrast("int3-zeros-bn", "fp32-bn"),
        "contrast, int3's zero bin emptied, new statistics",
        3,
        "falls",
        _BIN,
    ),
    Question(
        "W14",
        "More than taking as much from weights at random?",
        lambda own: own.contrast("int3-zeros-bn", "int3-bn-norm"),
        "contrast, the zero bin against as much squared length at random",
        3,
        "falls",
        _BIN,
    ),
    Question(
        "W15",
        "Does the majority rely on the largest weights?",
        lambda own: own.contrast("int3-bn-largest", "int3-zeros-bn"),
        "contrast, as much squared length of the largest weights against the zero bin",
        3,
        "rises",
        _BIN,
    ),
    Question(
        "W16",
        "Is a grid without a zero kinder to minorities?",
        lambda own: own.contrast("int3-bn-midrise", "int3-bn"),
        "contrast, values at half steps against int3, new statistics",
        3,
        "rises",
        _BIN,
    ),
    Question(
        "W17",
        "Do activations of four bits alone make minorities pay?",
        lambda own: own.contrast("a4"),
        "contrast, activations alone at 4 bits",
        4,
        "falls",
        _WHY,
    ),
    Question(
        "W18",
        "More together with weights than both apart?",
        lambda own: own.contrast("w4a4") - own.contrast("int4") - own.contrast("a4"),
        "contrast, both at 4 bits, less weights alone and activations alone",
        4,
        "falls",
        _WHY,
    ),
    Question(
        "W19",
        "Do more answers change for minorities?",
        lambda own: own.level("int4", "flips"),
        "share of answers that change at int4, minorities minus majority",
        4,
        "rises",
        _RANGE,
    ),
    Question(
        "W20",
        "Because their answers were nearer to the boundary?",
        lambda own: own.level("int4", "flips_by_margins"),
        "of that difference, what their margins explain",
        4,
        "rises",
        _RANGE,
    ),
)


def _by_width() -> Iterator[Question]:
    """What is asked of plain rounding, with a number for each network: the jump, the trend, each width."""

    def over(own: Networks, coefficients: Sequence[float]) -> Floats:
        every = np.stack([own.contrast(f"int{bits}") for bits in WIDTHS], axis=1)
        return over_widths(every, coefficients)

    said, asks = "contrast, int4 minus int8", "Is there a jump from int8 to int4?"
    yield Question("M1", asks, partial(over, coefficients=JUMP), said, 4, "falls", "")
    said = "contrast, its trend over 8, 6, 5, 4, 3 bits"
    asks = "Do minorities lose more with every bit?"
    yield Question("M2", asks, partial(over, coefficients=TREND), said, 4, "falls", "")
    for bits in WIDTHS:
        number = partial(Networks.contrast, treatment=f"int{bits}")
        asks = f"Do minorities pay at int{bits}?"
        yield Question(f"M3, int{bits}", asks, number, f"contrast, int{bits}", bits, "falls", "")


OF_WIDTHS = tuple(_by_width())


def answered(
    settings: Sequence[MeasuredNetworks], chapter: str, questions: Sequence[Question] | None = None
) -> Prose:
    """The questions of a chapter, each with what the networks of each setting say, as a list."""
    lines = []
    for question in QUESTIONS if questions is None else questions:
        if question.chapter == chapter:
            said = [f"{own.short_title}: {in_words(question, own)}" for own in settings]
            lines.append(f"- **{question.asks}** ({question.key}: {question.said}.) {'. '.join(said)}.")
    return Prose("\n".join(lines))


def left_by_new_statistics(settings: Sequence[MeasuredNetworks], bits: int = 4) -> Prose:
    """What cutting off large weights costs minorities, and what of it new batch norm statistics leave."""
    lines, holds = [], True
    margin = MARGINS[bits]
    for own in settings:
        networks = Networks(own.table, own.majority)
        cut = read(networks.contrast(f"int{bits}-mse-clipped"), margin)
        left = read(networks.contrast(f"int{bits}-mse-clipped-bn", "fp32-bn"), margin)
        holds &= cut.word == "falls" and left.word == "no change"
        lines.append(
            f"- **{own.short_title}**: cut off alone {in_points(ends_of(cut))}; with new batch "
            f"norm statistics, against full precision with new ones, {in_points(ends_of(left))}."
        )
    so = (
        "So minorities do not miss the large weights themselves. Without them the outputs of a layer are "
        "other ones, and batch norm still takes off and divides by what they used to be. (No question was "
        "registered on this: it was seen in the figure.)"
    )
    return Prose("\n".join([*lines, "", so] if holds else lines))


def ends_of(reading: Reading) -> dict[Hashable, float]:
    """The number of a reading with its interval, as a record."""
    return {"estimate": reading.estimate, "lower": reading.lower, "upper": reading.upper}


def in_words(question: Question, measured: MeasuredNetworks) -> str:
    """The answer and the number that it rests on, with its interval, in points."""
    reading = question.reading(measured)
    return f"*{question.answer(reading)}*, {in_points(ends_of(reading))}"


def numbers(measured: MeasuredNetworks) -> pd.DataFrame:
    """The number of each network to each question, in points."""
    networks = Networks(measured.table, measured.majority)
    seeds = sorted(measured.table["seed"].unique())
    rows = [
        (measured.name, question.key, seed, round(100 * value, 2))
        for question in QUESTIONS
        for seed, value in zip(seeds, question.number(networks), strict=True)
    ]
    return pd.DataFrame(rows, columns=["setting", "question", "seed", "points"])
