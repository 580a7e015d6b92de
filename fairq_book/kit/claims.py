"""A claim of a paper, what judges it, and the numbers that are shown with the verdict."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
from scipy import stats

from fairq_audit.formats import number, signed
from fairq_book.kit import tables
from fairq_book.kit.measured import Measured
from fairq_book.kit.wording import Verdict, as_sentence, points, whole_percent, with_interval
from fairq_utils.errors import BadInput

WIDTH = "int4"  # the width at which the papers look most closely, and the one whose numbers are shown
_NARROW = "int3"  # where something is decided, it often is here; shown where networks are left to speak of


@dataclass(frozen=True)
class Effect:
    """A number that a verdict rests on, its interval, and the row of the table that it stands in."""

    says: str
    form: str  # points, share, times, nats, classes or rank
    table: str
    row: Mapping[Hashable, Any]
    columns: tuple[str, str, str] = ("estimate", "lower", "upper")
    threshold: float | None = None  # compared with; of a ratio or share 1, else 0, where none is said

    @property
    def numbers(self) -> tuple[float, float, float]:
        """The estimate and the ends of its interval, which are missing where a single seed gives none."""
        estimate, lower, upper = (float(self.row[column]) for column in self.columns)
        return estimate, lower, upper

    @property
    def beyond(self) -> tuple[float, float, float]:
        """The numbers less the threshold; of a ratio or share in logarithms, where none of it is 0.

        >>> ends = {"estimate": 0.1, "lower": 0.1, "upper": 0.2}
        >>> [round(end, 3) for end in Effect("it", "share", "left", ends, threshold=0.1).beyond]
        [0.0, 0.0, 0.693]
        """
        if self.form in ("times", "share"):
            none = math.log(1 if self.threshold is None else self.threshold)
            estimate, lower, upper = (math.log(max(own, 1e-12)) - none for own in self.numbers)
        else:
            estimate, lower, upper = (own - (self.threshold or 0.0) for own in self.numbers)
        return estimate, lower, upper

    def p(self, networks: int) -> float:
        """How likely so sure a number is by chance, as its interval of 95 % tells; NaN where it does not.

        Student's, with as many networks. Against the threshold; a count of classes has none.

        >>> row = {"estimate": 0.03, "lower": 0.0, "upper": 0.06}
        >>> round(Effect("it", "points", "change", row).p(20), 3)
        0.05
        """
        estimate, lower, upper = self.beyond
        reach = estimate - lower if estimate > 0 else upper - estimate  # to the end that lies nearer to none
        if self.form == "classes" or networks < 2 or not reach > 0 or not math.isfinite(reach):
            return math.nan
        freedom = networks - 1
        return float(2 * stats.t.sf(abs(estimate) / reach * stats.t.ppf(0.975, freedom), freedom))

    @property
    def text(self) -> str:
        """The number and its interval, in its unit."""
        if math.isnan(self.numbers[0]):
            return "none to be had"
        return f"{with_interval(_FORMS[self.form], *self.numbers)}{_UNITS[self.form]}"


_FORMS: dict[str, Callable[[float], str]] = {
    "points": points,
    "share": whole_percent,
    "times": lambda value: number(value, 2),
    "nats": lambda value: signed(value, 3),
    "classes": number,
    # An interval by Student may reach beyond what a correlation can be.
    "rank": lambda value: signed(min(max(value, -1.0), 1.0), 2),
}
_UNITS = {"points": " points", "share": " %", "times": " times", "nats": " nats", "classes": "", "rank": ""}


@dataclass(frozen=True)
class Remark:
    """What a reader has to know of a verdict before its word: in two or three words, and in a sentence."""

    short: str
    why: str


@dataclass(frozen=True)
class Claim:
    """A sentence of a paper, the tables that it takes, what judges it, and the numbers to show with it.

    `remark` is what has to be known before the verdict of a setting, if there is anything.
    """

    key: str
    says: str
    source: str
    chapter: str
    needs: tuple[str, ...]
    judge: Callable[[Measured], Verdict]
    show: Callable[[Measured], Sequence[Effect]]
    remark: Callable[[Measured], Remark | None] = lambda measured: None

    def asked_of(self, measured: Measured) -> bool:
        """Whether the setting has what the claim is judged by."""
        return all(name in measured.tables for name in self.needs)

    def effects(self, measured: Measured) -> list[Effect]:
        """The numbers to show with the verdict; none where a page was run for other widths than theirs."""
        try:
            return list(self.show(measured))
        except BadInput:
            if measured.made:  # what was measured earlier has them all
                raise
            return []

    def verdict(self, measured: Measured) -> Verdict:
        """What the tables say of it; of a single network they say nothing."""
        judged = self.judge(measured)
        if measured.networks < 2:
            judged = Verdict(
                judged.claim, "undecided", f"One network decides nothing. What it shows: {judged.because}"
            )
        if remark := self.remark(measured):
            judged = replace(judged, because=f"{as_sentence(remark.short)}: {remark.why} {judged.because}")
        return judged


def effect_in(measured: Measured, table: str, says: str, form: str, where: Mapping[str, str]) -> Effect:
    """The effect in the one row of a stored table where these columns have these values."""
    return effect_in_row(measured, table, measured[table], says, form, where)


def effect_in_row(
    measured: Measured, table: str, made_of_it: pd.DataFrame, says: str, form: str, where: Mapping[str, str]
) -> Effect:
    """The effect in the one row that has these values of a table that is made of the stored one."""
    rows = made_of_it
    for column, value in where.items():
        rows = rows[rows[column] == value]
    if len(rows) != 1:
        asked = ", ".join(f"{column} {value}" for column, value in where.items())
        raise BadInput(f"{table} of {measured.name} has {len(rows)} rows of {asked}; expected one.")
    return Effect(says, form, table, rows.iloc[0].to_dict())


def shown_widths(measured: Measured, table: pd.DataFrame) -> list[str]:
    """The widths of this table whose numbers are shown."""
    narrow = _NARROW in tables.standing_treatments(measured["collapse"]) and _NARROW in set(
        table["treatment"]
    )
    return [WIDTH, _NARROW] if narrow else [WIDTH]


def effects_of_population(
    measured: Measured, table: str, wanted: Iterable[tuple[str, str, str]]
) -> list[Effect]:
    """The effects that there are: where too few models stand, there is none."""
    there = set(zip(*(measured[table][name] for name in ("treatment", "measure", "group")), strict=True))
    effects = []
    for treatment, measure, group in wanted:
        if (treatment, measure, group) in there:
            says = {"OA": measure, "FVO": "FVO"}.get(group, f"{measure} of {group}")
            form = "points" if measure == "accuracy" else "nats"
            where = {"treatment": treatment, "measure": measure, "group": group}
            effects.append(effect_in(measured, table, f"{says} at {treatment} against fp32", form, where))
    return effects


def under_review(why: str) -> Callable[[Measured], Remark]:
    """A remark that a verdict is being looked at again, and why."""
    return lambda measured: Remark("under review", why)


BELLAM, LIU, TRAN = "Bellam and Kim 2025", "Liu and others 2025", "Tran and others 2022"
SLYMAN = "Slyman and others 2024"
