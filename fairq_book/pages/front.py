"""What the first page says."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from fairq_audit.formats import hundredths
from fairq_book.chapters.disparity import story, tables
from fairq_book.chapters.disparity.story import Payers
from fairq_book.kit import tables as kit_tables
from fairq_book.kit.claims import Effect, effect_in
from fairq_book.kit.measured import Measured
from fairq_book.kit.wording import Prose, in_points
from fairq_book.pages.plain_words import seeds_in_words
from fairq_book.registry import CLAIMS


def in_three_sentences(measured: Measured) -> Prose:
    """Who pays, how much of the papers' story stands, and what to do about it: for who has ten seconds."""
    return Prose(
        "\n".join(
            f"- {said}" for said in (_who_pays(measured), _what_stands(measured), _what_helps(measured))
        )
    )


@dataclass(frozen=True)
class Headline:
    """The book in a few words, what backs them, and the group that they name, if they name one."""

    words: str
    backing: str
    payer: str | None = None


def in_three_words(measured: Measured) -> Headline:
    """Who pays, for who has one second: what a picture of the book says.

    It asks three things of a table (each group, all images, the contrast) and says the first that is sure. So
    each has a third of the chance of error, while the numbers stand with their intervals as elsewhere.
    """
    narrowest, _, shown = _at_the_narrowest(measured)
    strict = tables.change_by_network(measured["accuracy_by_seed"], measured.majority, level=1 - 0.05 / 3)
    own = shown and Payers.of(strict, narrowest, measured.majority)
    if own is None or shown is None:
        return Headline("Nobody can tell.", f"On {measured.title} the networks do not survive being rounded.")
    where = f"Of the groups that {measured.title} names, rounded to {narrowest}"
    accuracy = (
        f"{in_points(shown.rows['OA'])} points of accuracy over all images, in {seeds_in_words(measured)}"
    )
    # In quotes: whoever sees this has not read what such names leave out.
    named = [f"“{name}”" for name in own.lost]
    if own.minorities_pay:
        everyone = own.all_fell(own.groups)
        words = "Every group pays." if everyone else f"All but “{own.majority}” pay."
        who = "each" if everyone else f"each but {own.majority}"
        backing = f"{where}: {who} loses accuracy in each of {own.networks} networks"
        beside = f", against {own.majority} {in_points(shown.contrast)} points" if shown.contrast else ""
        return Headline(words, f"{backing}{beside}.")
    if len(named) == 1:
        lost = in_points(shown.rows[own.lost[0]])
        return Headline(
            f"{named[0]} surely pays.", f"{where}: {lost} points, against {accuracy}.", own.lost[0]
        )
    if named:
        return Headline(
            f"{' and '.join(named)} surely pay."
            if len(named) == 2
            else f"{len(named)} of {len(own.groups)} groups surely pay.",
            f"{where}: {', '.join(own.lost)} surely lose; {accuracy}.",
        )
    if shown.contrast and own.contrast and (own.contrast["upper"] < 0 or own.contrast["lower"] > 0):
        fewer = own.contrast["upper"] < 0
        return Headline(
            "The smaller groups fare worse." if fewer else "The largest group fares worse.",
            f"{where}: the others against {own.majority}, {in_points(shown.contrast)} points.",
        )
    if own.rows["OA"]["upper"] < 0:
        return Headline("Somebody pays.", f"{where}: {accuracy}, too few to tell whose.")
    if own.networks < 2 or not shown.tells:
        return Headline("Nobody can tell.", f"{where}: {accuracy}, too few to tell who pays.")
    return Headline(f"Nobody loses over {hundredths(shown.bound)} points.", f"{where}: {accuracy}.")


def _at_the_narrowest(measured: Measured) -> tuple[str, pd.DataFrame, Payers | None]:
    """The narrowest plain width at which the networks stand, all changes by network, and who pays there."""
    by_network = tables.change_by_network(measured["accuracy_by_seed"], measured.majority)
    standing = kit_tables.standing_treatments(measured["collapse"])
    order = [name for name in dict.fromkeys(measured["change"]["treatment"]) if name in standing]
    if not order:
        return "", by_network, None
    return order[-1], by_network, Payers.of(by_network, order[-1], measured.majority)


def _who_pays(measured: Measured) -> str:
    narrowest, by_network, own = _at_the_narrowest(measured)
    if own is None:
        return f"On {measured.title} the networks do not survive being rounded: who pays cannot be told."
    gap = effect_in(measured, "change", "", "points", {"treatment": narrowest, "group": "FVO"})
    _, lower, upper = gap.numbers
    moves = "grows" if lower > 0 else "shrinks" if upper < 0 else "does not surely change"
    fallen = "; narrower, they collapse" if measured["change"]["treatment"].iloc[-1] != narrowest else ""
    elsewhere = story.contrast_elsewhere(by_network, measured["collapse"], narrowest)
    return (
        f"**Who pays.** Rounded to {narrowest}, the narrowest width at which networks trained on "
        f"{measured.title} still stand, {own.text}. {elsewhere} Of the average network the gap between the "
        f"best and the worst group {moves}, {gap.text}{fallen}."
    )


def _what_stands(measured: Measured) -> str:
    asked = [claim for claim in CLAIMS.values() if claim.asked_of(measured)]
    words = [claim.verdict(measured).word for claim in asked if claim.remark(measured) is None]
    numbers = [
        f"{words.count(word)} {said}"
        for word, said in (
            ("supported", "supported"),
            ("mixed", "mixed"),
            ("contradicted", "contradicted"),
            ("no difference", "with no difference"),
            ("bounded", "bounded"),
            ("undecided", "undecided"),
        )
        if word in words
    ]
    if aside := len(asked) - len(words):
        numbers.append(f"{aside} set aside")
    return (
        f"**Why.** Of {len(asked)} claims of the papers, compared with {seeds_in_words(measured)}: "
        f"{', '.join(numbers)}. "
        "[Each with its numbers](claims.md)."
    )


def _what_helps(measured: Measured) -> str:
    if "what_to_do" not in measured.tables:
        return "**What helps.** Nothing was tried here."
    choice, (narrowest, _, _) = measured["what_to_do"], _at_the_narrowest(measured)
    there = choice[choice["width"] == narrowest]
    row = (there if len(there) else choice).iloc[0].to_dict()
    changes = [
        Effect(
            "",
            "points",
            "what_to_do",
            row,
            (f"{name}_change", f"{name}_change_lower", f"{name}_change_upper"),
        )
        for name in ("OA", "FVO")
    ]
    return (
        f"**What helps.** At {row['width']} the held-out images choose `{row['chosen']}` of the ways to "
        f"train further that were tried. Against rounding with 8 bits in the first and the last layer it "
        f"moves accuracy by {changes[0].text} and the gap by {changes[1].text}."
    )
