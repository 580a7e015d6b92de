"""Say: a claim held against a table, with words that the data choose."""

from __future__ import annotations

import html
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

Word = Literal["supported", "mixed", "contradicted", "undecided"]

_COLOURS: dict[Word, str] = {
    "supported": "#1f9a6c",
    "mixed": "#c4720e",
    "contradicted": "#d0457b",
    "undecided": "#7d828a",
}
# Fewer classes in use than this, and a network hardly tells groups apart: its FVO is that of its favourite.
_CLASSES_OF_A_STANDING_NETWORK = 2.0


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
    return f"{100 * fraction:.1f} %"


def points(fraction: float) -> str:
    """A difference of shares, in percentage points and signed.

    >>> points(0.031), points(-0.2)
    ('+3.1', '−20.0')
    """
    return f"{100 * fraction:+.1f}".replace("-", "−")


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
    if rises and falls:
        return "mixed"
    return "supported" if rises else "contradicted" if falls else "undecided"


def violation_grows(changes: pd.DataFrame, collapse: pd.DataFrame, *, seeds: int) -> Verdict:
    """Does FVO grow as bits fall? Judged only where the networks still tell classes apart.

    `changes` are the records of `tables.change`, with a level that holds for all treatments at
    once; `collapse` those of `tables.collapse`.
    """
    claim = "The gap between the best and the worst served group (FVO) grows as bits fall."
    standing = collapse.loc[collapse["effective_classes"] >= _CLASSES_OF_A_STANDING_NETWORK, "treatment"]
    violation = changes[changes["group"] == "FVO"]
    judged = violation[violation["treatment"].isin(standing)]
    fallen = [name for name in violation["treatment"] if name not in set(standing)]
    apart = f" Set apart, because the networks have collapsed: {', '.join(fallen)}." if fallen else ""
    if judged.empty:
        return Verdict(claim, "undecided", f"There is no width to judge it at.{apart}")
    word = word_for(judged)
    said = [f"{row['treatment']} {_change(row)}" for row in judged.to_dict("records")]
    reading = {
        "supported": "Somewhere FVO surely rises, and nowhere does it surely fall",
        "contradicted": "Somewhere FVO surely falls, and nowhere does it surely rise",
        "mixed": "FVO surely rises at one width and surely falls at another",
        "undecided": "No interval leaves out zero",
    }[word]
    return Verdict(
        claim,
        word,
        f"{reading}. Change of FVO in points against full precision, paired over {_count(seeds, 'seed')}, "
        f"intervals that hold together with 95 %: {'; '.join(said)}.{apart}",
    )


def who_pays(accuracies: pd.DataFrame, changes: pd.DataFrame) -> Prose:
    """Which group loses most under each treatment, and which is then worst served."""
    sentences = []
    for treatment, rows in changes.groupby("treatment", sort=False):
        groups = rows[~rows["group"].isin(["OA", "FVO"])]
        loser = min(groups.to_dict("records"), key=_estimate)
        own = accuracies[(accuracies["treatment"] == treatment) & accuracies["group"].isin(groups["group"])]
        worst = min(own.to_dict("records"), key=_estimate)
        if loser["upper"] < 0:
            lost = f"{loser['group']} loses most, {_change(loser)} points"
        else:
            lost = "no group surely loses"
        sentences.append(
            f"- **{treatment}**: {lost}; {worst['group']} is served worst, at {percent(worst['estimate'])} "
            f"({100 * worst['lower']:.1f} to {100 * worst['upper']:.1f})."
        )
    return Prose("\n".join(sentences))


def at_the_narrowest(accuracies: pd.DataFrame, collapse: pd.DataFrame, *, classes: int) -> Prose:
    """What is left of the networks under the last treatment of the table."""
    last = collapse.iloc[-1]
    rows = accuracies[accuracies["treatment"] == last["treatment"]].set_index("group")["estimate"]
    standing = last["effective_classes"] >= _CLASSES_OF_A_STANDING_NETWORK
    reading = (
        "They still tell classes apart, so that their FVO is a difference in service."
        if standing
        else "That is collapse: who is called what everybody is called scores high, the others score "
        "nothing, and FVO is large by construction. It says nothing about any group."
    )
    return Prose(
        f"At **{last['treatment']}** the networks use {last['effective_classes']:.1f} of {classes} classes, "
        f"and {percent(last['share'])} of their answers are one and the same. OA is {percent(rows['OA'])} "
        f"and FVO {100 * rows['FVO']:.1f} points. {reading}"
    )


def _estimate(record: Mapping[Hashable, Any]) -> float:
    return record["estimate"]


def _change(record: Mapping[Hashable, Any]) -> str:
    return f"{points(record['estimate'])} ({points(record['lower'])} to {points(record['upper'])})"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
