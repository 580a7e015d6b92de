"""What all claims are worded with: verdicts, paragraphs, and numbers as they stand in prose."""

from __future__ import annotations

import functools
import html
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from fairq_audit.formats import PALETTE, hundredths, signed, true_minus
from fairq_audit.formats import counted as counted  # the stories take all their words from here
from fairq_book.kit.tables import standing_treatments
from fairq_utils.metrics.verdicts import MARGINS

# The last three, where nothing surely speaks for a claim or against it: what may still differ is too small
# to matter, or smaller than is said, or there is nothing to say how large it is.
Word = Literal["supported", "mixed", "contradicted", "no difference", "bounded", "undecided"]
_COLOURS: dict[Word, str] = {
    "supported": PALETTE[2],
    "mixed": PALETTE[1],
    "contradicted": PALETTE[4],
    "no difference": PALETTE[0],
    "bounded": PALETTE[6],
    "undecided": PALETTE[7],
}


@dataclass(frozen=True)
class Verdict:
    """One word on a claim, and the numbers that it rests on."""

    claim: str
    word: Word
    because: str

    def _repr_html_(self) -> str:
        colour = _COLOURS[self.word]
        # Styled in place, because a live notebook and a page of its own have no style sheet of ours.
        return (
            f'<aside style="border-left:0.3rem solid {colour};border-radius:4px;padding:0.75rem 1rem 0.1rem;'
            f'margin:1rem 0;background:color-mix(in srgb,{colour} 10%,transparent)">'
            f"<p><strong>{self.word.capitalize()}.</strong> <em>{html.escape(self.claim)}</em></p>"
            f"<p>{html.escape(self.because)}</p></aside>"
        )

    def __repr__(self) -> str:
        return f"{self.word.capitalize()}. {self.claim} {self.because}"


@dataclass(frozen=True)
class Prose:
    """A paragraph whose numbers and words were computed."""

    text: str

    def _repr_markdown_(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return self.text


def percent(fraction: float) -> str:
    """A share as it stands in prose.

    >>> percent(0.4251)
    '42.5 %'
    """
    return f"{hundredths(fraction)} %"


def whole_percent(share: float) -> str:
    """A share that may be larger than all, without its sign: beyond tenfold its size says nothing.

    >>> whole_percent(0.876), whole_percent(81.3)
    ('88', 'over 1000')
    """
    return "over 1000" if share > 10 else true_minus(f"{100 * share:z.0f}")


def points(fraction: float) -> str:
    """A difference of shares, in percentage points and signed.

    >>> points(0.031), points(-0.2)
    ('+3.1', '−20.0')
    """
    return signed(100 * fraction)


def word_of(*, speaks_for: bool, speaks_against: bool) -> Word:
    """The word on a claim for which something surely speaks, or against it, or both, or neither.

    >>> word_of(speaks_for=True, speaks_against=True), word_of(speaks_for=False, speaks_against=False)
    ('mixed', 'undecided')
    """
    if speaks_for and speaks_against:
        return "mixed"
    return "supported" if speaks_for else "contradicted" if speaks_against else "undecided"


_UNITS: dict[str, Callable[[float], str]] = {
    "points": lambda share: f"{100 * share:.1f} points",
    "nats": lambda nats: f"{nats:.3f} nats",
    "margins": lambda times: f"{times:.1f} margins",
    "ratio": lambda ratio: f"{ratio:.2f}",
    "share": lambda share: f"{whole_percent(share)} %",
    "correlation": lambda rho: signed(min(max(rho, -1.0), 1.0), 2),
}


def unsure(rows: pd.DataFrame, unit: str = "points") -> tuple[Word, str]:
    """Of what surely goes neither way: the word, and a sentence's beginning on how far it may still go.

    By the ends of the intervals, for each width or treatment. No difference, where each lies within the
    margin that is declared for its width, or which the rows name; such margins there are for points alone,
    and not for every width. A `ratio`, `share` or `correlation` has a bound to either side. Over 100 points
    is no bound.

    >>> rows = pd.DataFrame({"treatment": ["int8", "int4"], "lower": [-0.004, -0.01], "upper": [0.006, 0.02]})
    >>> unsure(rows), unsure(rows.assign(bits=[8, 4]))[0]
    (('bounded', 'No difference larger than 0.6 points at int8, 2.0 points at int4'), 'no difference')
    >>> unsure(pd.DataFrame({"lower": [0.8], "upper": [1.3]}), "ratio")
    ('bounded', 'No ratio outside 0.80 to 1.30')
    """
    reach = rows[["lower", "upper"]].abs().max(axis=1)
    if rows.empty or not np.isfinite(reach).all() or (unit == "points" and (reach > 1).any()):
        return "undecided", "Nothing says how large a difference may be"
    label = next((name for name in ("width", "treatment") if name in rows), None)
    of = rows[label] if label else pd.Series("", rows.index)
    form, said, two_sided = _UNITS[unit], [], unit in ("ratio", "share", "correlation")
    for where, own in rows.groupby(of, sort=False):
        lower, upper = own["lower"].min(), own["upper"].max()
        bound = f"{form(lower)} to {form(upper)}" if two_sided else form(max(-lower, upper))
        said.append(f"{bound} at {where}" if label else bound)
    beginning = f"No {unit} outside" if two_sided else "No difference larger than"
    word: Word = "bounded"
    if unit == "points" and ("margin" in rows or "bits" in rows):
        margins = rows["margin"].astype(float) if "margin" in rows else rows["bits"].map(MARGINS)
        word = "no difference" if (reach <= margins).all() else word
    return word, f"{beginning} {', '.join(said)}"


def word_and_reading(
    rows: pd.DataFrame, readings: Mapping[Word, str], unit: str = "points"
) -> tuple[Word, str]:
    """The word for "this grows" by `word_for`, and what is said of it; by `unsure` where nothing is sure.

    >>> rows = pd.DataFrame({"lower": [-0.01], "upper": [0.03]})
    >>> word_and_reading(rows, {"supported": "It surely rises"})
    ('bounded', 'No difference larger than 3.0 points')
    """
    word = word_for(rows)
    return (word, readings[word]) if word in readings else unsure(rows, unit)


def nowhere(claim: str, apart: str = "") -> Verdict:
    """What is said of a claim when no width is left to judge it at; `apart` names those that were."""
    return Verdict(claim, "undecided", f"There is no width to judge it at.{apart}")


def word_for(changes: pd.DataFrame) -> Word:
    """The word for "this grows", from paired changes with intervals that hold together.

    Supported when a change is surely above 0 and none surely below, contradicted the other way round,
    mixed when there are both, undecided when there is neither.

    >>> word_for(pd.DataFrame({"lower": [-0.01, 0.02], "upper": [0.03, 0.09]}))
    'supported'
    >>> word_for(pd.DataFrame({"lower": [-0.01], "upper": [0.03]}))
    'undecided'
    """
    rises, falls = (changes["lower"] > 0).any(), (changes["upper"] < 0).any()
    return word_of(speaks_for=bool(rises), speaks_against=bool(falls))


def estimate_of(record: Mapping[Hashable, Any]) -> float:
    """What a record says, without its interval: to order records by."""
    return record["estimate"]


def in_points(record: Mapping[Hashable, Any]) -> str:
    """A change in points, with its interval where it has one."""
    return with_interval(points, *(record[name] for name in ("estimate", "lower", "upper")))


def with_interval(form: Callable[[float], str], estimate: float, lower: float, upper: float) -> str:
    """An estimate and its interval in some form; without the interval where there is none.

    >>> with_interval(points, 0.01, -0.02, 0.031), with_interval(points, 0.01, math.nan, math.nan)
    ('+1.0 (−2.0 to +3.1)', '+1.0')
    """
    return form(estimate) if math.isnan(lower) else f"{form(estimate)} ({form(lower)} to {form(upper)})"


def together(claim: str, parts: Sequence[Verdict]) -> Verdict:
    """A claim that is a chain: it holds if each part does, and is mixed if some hold and some do not.

    A part that is itself mixed makes the whole mixed. Else, beside parts that hold, the one that is least
    sure decides: undecided, bounded, no difference.

    >>> fell, grew = Verdict("It fell.", "supported", ""), Verdict("It grew.", "contradicted", "")
    >>> together("It fell and it grew.", [fell, grew])
    Mixed. It fell and it grew. Part by part: It fell: supported. It grew: contradicted.
    """
    words = {part.word for part in parts}
    word: Word
    if "mixed" in words or words >= {"supported", "contradicted"}:
        word = "mixed"
    elif "contradicted" in words:
        word = "contradicted"
    else:
        weakest: tuple[Word, ...] = ("undecided", "bounded", "no difference", "supported")
        word = next((one for one in weakest if one in words), "undecided")
    said = " ".join(f"{part.claim.rstrip('.')}: {part.word}." for part in parts)
    return Verdict(claim, word, f"Part by part: {said}")


def those_standing(table: pd.DataFrame, collapse: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The rows whose networks still tell classes apart, and a sentence that names the others."""
    standing = standing_treatments(collapse)
    fallen = [name for name in table["treatment"].unique() if name not in standing]
    return table[table["treatment"].isin(standing)], set_apart(fallen)


def set_apart(fallen: Sequence[str]) -> str:
    """A sentence that names the treatments whose networks have collapsed; nothing where none has."""
    return f" Set apart, because the networks have collapsed: {', '.join(fallen)}." if fallen else ""


def moves(record: Mapping[Hashable, Any]) -> str:
    """Where to something surely goes, as its interval says."""
    return "falls" if record["upper"] < 0 else "rises" if record["lower"] > 0 else "does not surely change"


def in_units(record: Mapping[Hashable, Any]) -> str:
    """A change in its own unit, with its interval where it has one."""
    form = functools.partial(signed, digits=3)
    return with_interval(form, *(record[name] for name in ("estimate", "lower", "upper")))


def in_brackets(names: Sequence[str]) -> str:
    """Names in brackets, to end a sentence with; nothing where there are none."""
    return f" ({', '.join(names)})" if names else ""


def in_nats(nats: float) -> str:
    """A difference of losses, signed."""
    return signed(nats, 2)


def as_sentence(text: str) -> str:
    """The text with a capital letter at its beginning."""
    return text[0].upper() + text[1:]


def whole_points(share: float) -> str:
    """A margin of shares, in percentage points.

    >>> whole_points(0.01), whole_points(0.025)
    ('1 point', '2.5 points')
    """
    return f"{100 * share:g} point{'s' * (share != 0.01)}"
