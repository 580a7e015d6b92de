"""Chapter 1: who pays, and for what."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from fairq_audit.formats import counted, hundredths, number, signed
from fairq_book.chapters.disparity import tables
from fairq_book.chapters.disparity.tables import CAUSES, GRIDS
from fairq_book.experiments.studies import Prediction
from fairq_book.kit.claims import BELLAM, Claim, Effect, effect_in_row, shown_widths
from fairq_book.kit.measured import Measured
from fairq_book.kit.tables import CONTRAST, standing_treatments, student_interval, together
from fairq_book.kit.treatments import columns_of
from fairq_book.kit.wording import (
    Prose,
    Verdict,
    Word,
    as_sentence,
    estimate_of,
    in_points,
    in_units,
    nowhere,
    percent,
    points,
    those_standing,
    unsure,
    with_interval,
    word_of,
)
from fairq_utils.metrics.by_network import WIDTHS
from fairq_utils.metrics.verdicts import MARGINS
from fairq_utils.treatments.treatment import FP32


def violation_grows(by_seed: pd.DataFrame, collapse: pd.DataFrame, *, seeds: int) -> Verdict:
    """Does FVO per network grow as bits fall? Judged only where the networks still tell classes apart.

    `by_seed` of `tables.accuracy_by_seed`, of which the plain widths count; `collapse` of `tables.collapse`.
    A rise that two groups, which other networks named, do not share is a lottery over groups, and speaks
    against the claim.
    """
    claim = "The gap between the best and the worst served group (FVO) grows as bits fall."
    plain = [name for name in by_seed["treatment"].unique() if name == f"int{columns_of(name)['bits']}"]
    rounded, apart = those_standing(by_seed[by_seed["treatment"].isin(plain)], collapse)
    if rounded.empty:
        return nowhere(claim, apart)
    stand = by_seed[by_seed["treatment"].isin({FP32.name, *rounded["treatment"]})]
    found = tables.readings(stand, level=together(rounded["treatment"].nunique()))
    found = found[~found["treatment"].isin(tables.OVER_WIDTHS)]
    if found.empty:
        return Verdict(claim, "undecided", f"Fewer than three networks tell no gap from a lottery.{apart}")
    judged = found[found["reading"] == tables.GAP]
    words = set(judged["word"])
    word = word_of(speaks_for="grows" in words, speaks_against=bool(words & {"lottery", "falls"}))
    reading = "; ".join(
        f"at {row['treatment']} {_GAPS[row['word']]}"
        for row in judged.to_dict("records")
        if row["word"] in _GAPS
    )
    if word == "undecided":
        elsewhere = judged[~judged["word"].isin(_GAPS)]
        word, bound = unsure(elsewhere)
        if reading:  # somewhere it grows, and for whom is open
            word = "bounded"
            reading += f". Elsewhere: {bound[0].lower()}{bound[1:]}" if len(elsewhere) else ""
        else:
            reading = bound
    pairs = found[found["reading"] == tables.PAIR].set_index("treatment").to_dict("index")
    said = "; ".join(
        f"{row['treatment']} {in_points(row)}, and {pairs[row['treatment']]['groups']} "
        f"{in_points(pairs[row['treatment']])}"
        for row in judged.to_dict("records")
    )
    return Verdict(
        claim,
        word,
        f"{as_sentence(reading)}. Change of FVO per network in points against full precision, and of the gap "
        f"between two groups that a third of the networks named and the others measured, over "
        f"{counted(seeds, 'seed')}, intervals that hold together with 95 %: {said}.{apart}",
    )


# What is said of FVO per network, by the word of `tables.readings`.
_GAPS = {
    "grows": "it grows, and for the same groups",
    "lottery": "it grows as a lottery over groups",
    "grows or lottery": "it grows, for the same groups or as a lottery over them",
    "falls": "it falls",
}


def gap_jumps(readings: pd.DataFrame, collapse: pd.DataFrame, majority: str | None, *, seeds: int) -> Verdict:
    """Does FVO per network jump from eight bits to four? By the row for that of `tables.readings`.

    Judged where networks stand at both widths. Supported where FVO surely rises and a pair of groups that
    other networks named rises with it. The contrast stands beside.
    """
    claim = "The gap between groups (FVO) jumps from int8 to int4."
    own = readings[readings["treatment"] == tables.JUMP_OF_WIDTHS].set_index("reading")
    if own.empty:
        return Verdict(claim, "undecided", "It takes three networks, at both widths, to tell.")
    if not standing_treatments(collapse) >= {"int8", "int4"}:
        return nowhere(claim, " At one of the two widths the networks have collapsed.")
    rows = own.to_dict("index")
    gap, pair = rows[tables.GAP], rows[tables.PAIR]
    words: dict[str, Word] = {
        "grows": "supported",
        "lottery": "contradicted",
        "falls": "contradicted",
        "no change": "no difference",
    }
    beside = f"; the other groups against {majority} {in_points(rows[CONTRAST])}" if CONTRAST in rows else ""
    return Verdict(
        claim,
        words.get(gap["word"], "bounded"),
        f"{as_sentence(_moved(gap))}. FVO per network at int4 less that at int8, in points, over "
        f"{counted(seeds, 'seed')}: {in_points(gap)}. Beside it, the gap of {pair['groups']}, as other "
        f"networks named them, {in_points(pair)}{beside}. A difference of "
        f"{100 * gap['margin']:.0f} points counts as none.",
    )


def three_readings(
    readings: pd.DataFrame, changes: pd.DataFrame, collapse: pd.DataFrame, majority: str | None
) -> Prose:
    """The contrast, FVO per network beside a fixed pair, and FVO of the average, in this order.

    `readings` of `tables.readings`, `changes` of `tables.change`, `collapse` of `tables.collapse`.
    """
    standing = standing_treatments(collapse)
    widths = {f"int{bits}" for bits in WIDTHS}
    average = changes[changes["group"] == "FVO"].set_index("treatment").to_dict("index")
    sentences = []
    for treatment, own in readings.groupby("treatment", sort=False):
        together_stand = treatment in tables.OVER_WIDTHS and standing >= widths
        if not (together_stand or (treatment in average and treatment in standing)):
            continue
        rows = own.set_index("reading").to_dict("index")
        said = []
        if CONTRAST in rows:
            row = rows[CONTRAST]
            said.append(f"the others against {majority} {in_points(row)} points: {_moved(row)}")
        gap, pair = rows[tables.GAP], rows[tables.PAIR]
        said.append(f"FVO per network {in_points(gap)}: {_moved(gap)}")
        said.append(f"the gap of {pair['groups']}, as other networks named them, {in_points(pair)}")
        if treatment in average:
            said.append(f"FVO of the average {in_points(average[treatment])}")
        sentences.append(f"- **{treatment}**: {'; '.join(said)}.")
    return Prose("\n".join(sentences) or "Fewer than three networks tell no gap from a lottery.")


def _moved(row: Mapping[Hashable, Any]) -> str:
    """What a reading says, in words; where nothing is sure, how much it may be."""
    none = f"no difference larger than {100 * row['bound']:.1f} points"
    return {**_GAPS, "rises": "it rises"}.get(row["word"], none)


def who_is_there(tested: Prediction) -> Prose:
    """How many groups and labels there are in the test, how unequal, and whether the two coincide."""
    names, labels = tested.group_names, tested.label_names
    sizes = np.bincount(tested.groups, minlength=len(names))
    least, most = int(sizes.argmin()), int(sizes.argmax())
    same = labels == names and bool((tested.labels == tested.groups).all())
    reading = (
        "Group and label coincide here, so that the accuracy of a group is the recall of a class, and a "
        "network that gives one answer to everything shows the largest possible gap without having singled "
        "anybody out."
        if same
        else f"Group and label are two things here; there are {len(labels)} labels."
    )
    absent = [name for name, size in zip(names, sizes, strict=True) if not size]
    missing = f" No test image is of {', '.join(absent)}: nothing is said of them." if absent else ""
    return Prose(
        f"There are {len(names)} groups. The largest in the test is **{names[most]}** with {sizes[most]:,} "
        f"images, the smallest **{names[least]}** with {sizes[least]:,}.{missing} {reading}"
    )


_TELLING = 0.1  # a change of accuracy that networks which tell anything would show


@dataclass(frozen=True)
class Payers:
    """Whom rounding costs accuracy at one width, by the records of `tables.change_by_network`.

    Every group is asked, not only the one with the largest estimate: a larger loss may be the less certain.
    """

    rows: dict[str, dict[Hashable, Any]]
    majority: str | None

    @classmethod
    def of(cls, changes: pd.DataFrame, treatment: str, majority: str | None) -> Payers:
        """Who pays under one treatment."""
        own = changes[changes["treatment"] == treatment]
        return cls({str(row["group"]): row for row in own.to_dict("records")}, majority)

    @property
    def groups(self) -> list[str]:
        """All of them, those with the largest losses first."""
        named = [name for name in self.rows if name not in ("OA", CONTRAST)]
        return sorted(named, key=lambda name: estimate_of(self.rows[name]))

    @property
    def minorities(self) -> list[str]:
        """All groups but the largest; where none is the largest, all."""
        return [name for name in self.groups if name != self.majority]

    @property
    def lost(self) -> list[str]:
        """The groups that surely lose."""
        return [name for name in self.groups if self.rows[name]["upper"] < 0]

    @property
    def gained(self) -> list[str]:
        """The groups that surely gain."""
        return [name for name in self.groups if self.rows[name]["lower"] > 0]

    @property
    def networks(self) -> int:
        """On how many networks this rests."""
        return int(self.rows["OA"]["networks"])

    @property
    def contrast(self) -> dict[Hashable, Any] | None:
        """What the minorities lose more than the majority, where there is one; above 0 they lose less."""
        return self.rows.get(CONTRAST)

    def all_fell(self, names: Sequence[str]) -> bool:
        """Whether each of these groups lost in every network."""
        return self.networks > 1 and all(self.rows[name]["fell"] == self.networks for name in names)

    @property
    def minorities_pay(self) -> bool:
        """Whether every minority lost in every network, and more than chance explains."""
        surely = [self.rows[name] for name in self.minorities] + [self.rows["OA"]]
        surely += [self.contrast] if self.contrast else []
        return self.all_fell(self.minorities) and any(row["upper"] < 0 for row in surely)

    @property
    def bound(self) -> float:
        """With 95 % no group changes by more than this, upwards or downwards; infinite of one network."""
        ends = [abs(self.rows[name][end]) for name in self.groups for end in ("lower", "upper")]
        return math.inf if any(map(math.isnan, ends)) else max(ends)

    @property
    def negligible(self) -> bool:
        """Whether every group surely changes by less than its margin, where the width has one."""
        rows = [self.rows[name] for name in self.groups]
        return all(max(-row["lower"], row["upper"]) <= row.get("margin", math.nan) for row in rows)

    @property
    def tells(self) -> bool:
        """Whether so many networks would have shown a change of any size that matters."""
        return self.bound <= _TELLING

    @property
    def text(self) -> str:
        """Who pays, as the middle of a sentence."""
        accuracy = f"{in_points(self.rows['OA'])} points over all images"
        by_group = ", ".join(f"{name} {in_points(self.rows[name])}" for name in self.groups)
        if self.networks < 2:
            said = f"one network decides nothing; {accuracy}, and by group: {by_group}"
        elif self.minorities_pay:
            who = "every group" if self.all_fell(self.groups) else f"every group but {self.majority}"
            losses = [f"{name} {100 * abs(estimate_of(self.rows[name])):.1f}" for name in self.minorities]
            together = (
                f"; asked of all groups at once, {self._surely(self.lost, 'lose')}" if self.lost else ""
            )
            said = (
                f"in each of {self.networks} networks {who} loses accuracy, in the mean "
                f"{', '.join(losses)} points{together}; {accuracy}"
            )
        elif self.lost:
            said = f"{self._surely(self.lost, 'lose')}; {accuracy}"
        elif self.rows["OA"]["upper"] < 0:
            said = (
                f"accuracy surely falls, {accuracy}, and {self.networks} networks do not tell which groups "
                f"pay: {by_group}"
            )
        else:
            open_ = f"{self.networks} networks do not tell who pays, and " if not self.tells else ""
            within = ", each by less than matters" if self.negligible else ""
            said = f"{open_}no group changes by more than {100 * self.bound:.1f} points{within}; {accuracy}"
        more = f"; {self._surely(self.gained, 'gain')}" if self.gained else ""
        return f"{said}{more}{self._against_the_majority}"

    def _surely(self, names: Sequence[str], verb: str) -> str:
        changes = " and ".join(in_points(self.rows[name]) for name in names)
        return f"{' and '.join(names)} surely {verb}{'s' * (len(names) == 1)}, {changes} points"

    @property
    def _against_the_majority(self) -> str:
        row = self.contrast
        if row is None or self.networks < 2:
            return ""
        surely = (
            "surely worse"
            if row["upper"] < 0
            else "surely better"
            if row["lower"] > 0
            else "no sure difference"
        )
        return f". The other groups against {self.majority}: {in_points(row)} points, {surely}"


def who_pays(
    accuracies: pd.DataFrame, by_network: pd.DataFrame, collapse: pd.DataFrame, majority: str | None
) -> Prose:
    """Which groups lose under each treatment, which gain, and which is then right least often.

    `by_network` of `tables.change_by_network`.
    """
    standing = standing_treatments(collapse)
    sentences = []
    for treatment in accuracies["treatment"].unique():
        if treatment not in set(by_network["treatment"]):
            continue
        if treatment not in standing:
            sentences.append(f"- **{treatment}**: the networks have collapsed, and who loses says nothing.")
            continue
        own = Payers.of(by_network, treatment, majority)
        rows = accuracies[(accuracies["treatment"] == treatment) & accuracies["group"].isin(own.groups)]
        worst = min(rows.to_dict("records"), key=estimate_of)
        sentences.append(
            f"- **{treatment}**: {own.text}. Right least often is {worst['group']}, with "
            f"{percent(worst['estimate'])} ({100 * worst['lower']:.1f} to {100 * worst['upper']:.1f})."
        )
    narrowest = [name for name in accuracies["treatment"].unique() if name in standing][-1:]
    elsewhere = contrast_elsewhere(by_network, collapse, *narrowest) if narrowest else ""
    return Prose("\n".join([*sentences, *(["", elsewhere] if elsewhere else [])]))


def won_and_lost(answers: pd.DataFrame, collapse: pd.DataFrame) -> pd.DataFrame | Prose:
    """What the accuracy of a group hides where it is a recall: precision, F1, and images won and lost.

    `answers` of `tables.answers`, at the narrowest width at which networks stand.
    """
    own = answers[answers["treatment"].isin(standing_treatments(collapse))]
    if own.empty:
        why = "at no width networks stand" if len(answers) else "group and label are two things"
        return Prose(f"There is no such table here: {why}.")
    own = own[own["treatment"] == own["treatment"].iloc[-1]]
    shown = {"accuracy": "accuracy, %", "precision": "precision, %", "f1": "F1, %"}
    rows = [
        {"group": row["group"], "images": f"{row['n']:.0f}"}
        | {
            said: f"{hundredths(row[f'{name}_before'])} → {hundredths(row[f'{name}_after'])}"
            for name, said in shown.items()
        }
        | {way: f"{row[way]:.1f}" for way in ("won", "lost")}
        for row in own.to_dict("records")
    ]
    table = pd.DataFrame(rows, columns=["group", "images", *shown.values(), "won", "lost"])
    return table.set_index("group").rename_axis(own["treatment"].iloc[0])


def contrast_elsewhere(by_network: pd.DataFrame, collapse: pd.DataFrame, narrowest: str) -> str:
    """The contrast where one thing is done otherwise: other statistics at that width, other ranges at int4.

    Which ones is declared here and not chosen by their outcome. Nothing where none of them was made.
    """
    declared = {
        f"{narrowest}-bn": f"with new batch norm statistics at {narrowest}",
        "int4-mse": "with the range of least squared error at int4",
        "int4-mse-channel": "with that range for each channel at int4",
    }
    standing = standing_treatments(collapse)
    rows = by_network[by_network["group"] == CONTRAST].set_index("treatment").to_dict("index")
    said = [
        f"{in_points(rows[name])} points {where}"
        for name, where in declared.items()
        if name in rows and name in standing and rows[name]["networks"] > 1
    ]
    return f"The same contrast where one thing is done otherwise: {'; '.join(said)}." if said else ""


def _collapsed_both_ways(rows: pd.DataFrame) -> str:
    """How many networks have collapsed: by the OA of the others, where it is known, and by classes in use."""
    by_classes = ", ".join(
        f"{row['treatment']} {percent(1 - row['standing'])}" for row in rows.to_dict("records")
    )
    rule = f"that use less than half as many classes beyond the first as in full precision: {by_classes}"
    if "fallen" not in rows or rows["fallen"].isna().any():
        return f"Networks have collapsed {rule}."
    by_others = ", ".join(f"{row['treatment']} {percent(row['fallen'])}" for row in rows.to_dict("records"))
    return (
        "Networks have collapsed when the other networks' OA is at most 5 points above the share of the "
        f"largest label: {by_others}. As a check, those {rule}."
    )


def grid_matters(stored: pd.DataFrame) -> Prose:
    """What another way to choose the grid does to OA and FVO at the same width."""
    sentences = []
    for bits, rows in stored[stored["grid"] != FP32.format].groupby("bits", sort=False):
        accuracy = rows[rows["group"] == "OA"]
        best = max(accuracy.to_dict("records"), key=estimate_of)
        plain = accuracy[accuracy["grid"] == "int"].to_dict("records")
        gap = rows[(rows["group"] == "FVO") & (rows["treatment"] == best["treatment"])].to_dict("records")[0]
        if plain and best["lower"] > plain[0]["upper"]:
            sentences.append(
                f"- At {bits} bits the choice matters: OA is {percent(plain[0]['estimate'])} with one scale "
                f"a tensor up to its largest weight, and {percent(best['estimate'])} with "
                f"{GRIDS.get(best['grid'], best['grid'])}, "
                f"where FVO is {100 * gap['estimate']:.1f} points."
            )
        else:
            sentences.append(f"- At {bits} bits no choice of the grid is surely better than another.")
    return Prose("\n".join(sentences))


def size_or_difficulty(effects: pd.DataFrame) -> Verdict:
    """Which of the two makes quantization unequal? `effects` are those of `tables.size_and_difficulty`.

    Judged in points. Supported when, under some treatment, small size surely makes the focal group lose more
    and difficulty surely does not under any; contradicted the other way round, mixed when both do. Where
    neither does, the verdict says how much either may add, and 5 points count as nothing.
    """
    claim = "Small groups pay because they are small, not because they are hard."
    causes = effects[effects["effect"].isin(CAUSES)]
    judged = causes[causes["unit"] == "points"]
    surely = {
        cause: bool((judged.loc[judged["effect"] == cause, "upper"] < 0).any())
        for cause in ("size", "difficulty")
    }
    words: dict[tuple[bool, bool], Word] = {
        (True, False): "supported",
        (False, True): "contradicted",
        (True, True): "mixed",
        (False, False): "undecided",
    }
    word, bound = words[surely["size"], surely["difficulty"]], ""
    if word == "undecided":
        word, bound = unsure(judged.assign(margin=MARGINS[3]))
    reading = {
        "supported": "Small size surely adds to what the focal group loses, difficulty does not surely",
        "contradicted": "Difficulty surely adds to what the focal group loses, small size does not surely",
        "mixed": "Both surely add to what the focal group loses",
    }.get(word, bound)
    spared = [
        f"{row['effect']} at {row['treatment']}" for row in judged[judged["lower"] > 0].to_dict("records")
    ]
    less = f", and less is surely lost with {' and '.join(spared)}" if spared else ""
    said = "; ".join(
        f"{row['treatment']}, {row['effect']} {in_points(row)}" for row in judged.to_dict("records")
    )
    others = "; ".join(
        f"{row['treatment']}, {row['effect']} "
        + (f"{in_points(row)} points of flips" if row["unit"] == "flips" else f"{in_units(row)} nats")
        for row in causes[causes["unit"] != "points"].to_dict("records")
    )
    kinds = effects[~effects["effect"].isin(CAUSES)].drop_duplicates("effect")
    before = ", ".join(f"{percent(row['before'])} on {row['effect']}" for row in kinds.to_dict("records"))
    return Verdict(
        claim,
        word,
        f"{reading}{less}. Points that each adds to the change of the focal group against its peers, over "
        f"{counted(int(effects['networks'].iloc[0]), 'network')} of each kind, intervals that hold together "
        f"with 95 %: {said}. In units that have no floor: {others}. In full precision the focal group was "
        f"right on {before}.",
    )


def elsewhere(contrasts: pd.DataFrame) -> Prose:
    """Where in other settings the smaller groups surely lose more or less, and where nothing is sure."""
    lines = []
    for title, rows in contrasts.groupby("setting", sort=False):
        said = [
            f"{row['treatment']} {in_points(row)}"
            + (" (they lose more)" if row["upper"] < 0 else " (they lose less)" if row["lower"] > 0 else "")
            for row in rows.to_dict("records")
        ]
        networks = counted(int(rows["networks"].max()), "network")
        lines.append(f"- **{title}**, {networks}: {', '.join(said)} points.")
    return Prose("\n".join(lines))


def where_clipping_acts(table: pd.DataFrame) -> Prose:
    """In which layers cutting off alone surely costs the smaller groups; of `tables.clipped_by_layer`."""
    lines = []
    for title, rows in table.groupby("setting", sort=False):
        alone = rows[rows["layer"] != tables.ALL_LAYERS]
        (whole,) = rows[rows["layer"] == tables.ALL_LAYERS].to_dict("records")
        costs = alone[alone["upper"] < 0].sort_values("estimate").to_dict("records")
        named = ", ".join(f"`{row['layer']}` {signed(100 * row['estimate'], 2)}" for row in costs) or "none"
        spares = ", ".join(f"`{name}`" for name in alone.loc[alone["lower"] > 0, "layer"])
        lines.append(
            f"- **{title}**, {counted(int(whole['networks']), 'network')}: of {len(alone)} layers, cut off "
            f"alone, {len(costs)} surely cost the smaller groups more: {named}. Surely less: "
            f"{spares or 'none'}. All single layers add up to {points(alone['estimate'].sum())} points; cut "
            f"off in all at once it is {in_points(whole)}."
        )
    return Prose("\n".join(lines))


def answers_change(found: Mapping[str, pd.DataFrame]) -> Prose:
    """How many answers change while the average hardly does, in each setting; of `answers_that_change`."""
    lines = []
    for title, table in found.items():
        own = {str(name): rows.set_index("seed") for name, rows in table.groupby("treatment")}
        four, eight = own["int4"], own["int8"].loc[own["int4"].index]
        times = np.log(four["flips"]) - np.log(eight["flips"].clip(lower=1e-6))
        flips = with_interval(number, **_ends(100 * four["flips"]))
        average = with_interval(points, **_ends(four["accuracy"]))
        often = with_interval(_factor, **_ends(times))
        apart = f"{int(four['apart'].sum())} of {counted(len(four), 'network')}"
        lines.append(
            f"- **{title}**: at int4 {flips} % of all answers change, while OA changes by {average} points. "
            f"That is {often} times as many as at int8. In {apart} some group surely won and another "
            "surely lost."
        )
    return Prose("\n".join(lines))


def _ends(values: pd.Series) -> dict[str, float]:
    interval = student_interval(values, 0.95)
    return {end: interval[end] for end in ("estimate", "lower", "upper")}


def _factor(logarithm: float) -> str:
    return number(math.exp(logarithm), 1)


def at_the_narrowest(accuracies: pd.DataFrame, collapse: pd.DataFrame, *, classes: int) -> Prose:
    """What is left of the networks under the last treatment of the table."""
    last = collapse.iloc[-1]
    rows = accuracies[accuracies["treatment"] == last["treatment"]].set_index("group")["estimate"]
    standing = last["treatment"] in standing_treatments(collapse)
    reading = (
        "They still tell classes apart, so that their FVO is a difference in service."
        if standing
        else "That is collapse: who is called what everybody is called scores high, the others score "
        "nothing, and FVO is large by construction. It says nothing about any group."
    )
    return Prose(
        f"At **{last['treatment']}** the networks use {last['effective_classes']:.1f} of {classes} classes, "
        f"and {percent(last['share'])} of their answers are one and the same. OA is {percent(rows['OA'])} "
        f"and FVO {100 * rows['FVO']:.1f} points. {reading} {_collapsed_both_ways(collapse.iloc[[-1]])}"
    )


def _violation(measured: Measured) -> list[Effect]:
    by_seed = measured["accuracy_by_seed"]
    found = tables.readings(by_seed, measured.majority).drop(columns=["groups", "word"])
    effects = []
    for width in shown_widths(measured, by_seed) if len(found) else ():
        for reading in (tables.GAP, tables.PAIR):
            says, where = f"{reading} at {width} against fp32", {"treatment": width, "reading": reading}
            effects.append(effect_in_row(measured, "accuracy_by_seed", found, says, "points", where))
    return effects


def _jump(measured: Measured) -> list[Effect]:
    by_seed = measured["accuracy_by_seed"]
    found = tables.readings(by_seed, measured.majority).drop(columns=["groups", "word"])
    effects = []
    for reading in (tables.GAP, tables.PAIR, CONTRAST):
        where = {"treatment": tables.JUMP_OF_WIDTHS, "reading": reading}
        if len(found) and (reading != CONTRAST or measured.majority is not None):
            says = f"{reading}, int4 against int8"
            effects.append(effect_in_row(measured, "accuracy_by_seed", found, says, "points", where))
    return effects


CLAIMS = (
    Claim(
        "A1",
        "With fewer bits the gap between the best and the worst served group (FVO) grows.",
        BELLAM,
        "01_disparity_baseline",
        ("accuracy_by_seed", "collapse"),
        lambda measured: violation_grows(
            measured["accuracy_by_seed"], measured["collapse"], seeds=measured.seeds
        ),
        _violation,
    ),
    Claim(
        "A7a",
        "A sign of failure: the gap between groups (FVO) jumps from int8 to int4.",
        BELLAM,
        "01_disparity_baseline",
        ("accuracy_by_seed", "collapse"),
        lambda measured: gap_jumps(
            tables.readings(measured["accuracy_by_seed"], measured.majority),
            measured["collapse"],
            measured.majority,
            seeds=measured.seeds,
        ),
        _jump,
    ),
)
