"""Say: a claim held against a table, with words that the data choose."""

from __future__ import annotations

import html
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from fairq_utils.auditing import Audit, as_markdown
from fairq_utils.data import Dataset
from fairq_utils.gates import shown
from fairq_utils.populations import fallen
from fairq_utils.studies import Spectrum
from fairq_utils.tables import ALL, Ends, rounding_of, standing_treatments, swept

Word = Literal["supported", "mixed", "contradicted", "undecided"]

_COLOURS: dict[Word, str] = {
    "supported": "#1f9a6c",
    "mixed": "#c4720e",
    "contradicted": "#d0457b",
    "undecided": "#7d828a",
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
    judged, apart = _standing(changes[changes["group"] == "FVO"], collapse)
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


def who_is_there(images: Dataset) -> Prose:
    """How many groups and labels there are, how unequal they are, and whether the two coincide."""
    sizes = np.bincount(images.groups[~images.is_train], minlength=len(images.group_names))
    least, most = int(sizes.argmin()), int(sizes.argmax())
    names = images.group_names
    same = images.label_names == names and bool((images.labels == images.groups).all())
    reading = (
        "Group and label coincide here, so that the accuracy of a group is the recall of a class, and a "
        "network that gives one answer to everything shows the largest possible gap without having singled "
        "anybody out."
        if same
        else f"Group and label are two things here; there are {len(images.label_names)} labels."
    )
    absent = [name for name, size in zip(names, sizes, strict=True) if not size]
    missing = f" No test image is of {', '.join(absent)}: nothing is said of them." if absent else ""
    return Prose(
        f"There are {len(names)} groups. The largest in the test is **{names[most]}** with {sizes[most]:,} "
        f"images, the smallest **{names[least]}** with {sizes[least]:,}.{missing} {reading}"
    )


def who_pays(accuracies: pd.DataFrame, changes: pd.DataFrame, collapse: pd.DataFrame) -> Prose:
    """Which group loses most under each treatment, and which is then worst served."""
    standing = standing_treatments(collapse)
    sentences = []
    for treatment in changes["treatment"].unique():
        rows = changes[changes["treatment"] == treatment]
        if treatment not in standing:
            sentences.append(f"- **{treatment}**: the networks have collapsed, and who loses says nothing.")
            continue
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


def answers_collapse(collapse: pd.DataFrame, *, seeds: int) -> Verdict:
    """Do the networks stop to tell classes apart at two or three bits?

    Supported when every network has collapsed at every such width, contradicted when none has, mixed
    otherwise, undecided when no such width was asked for.
    """
    claim = "At two and three bits the logits say nothing any more."
    narrow = collapse[collapse["treatment"].isin(["int2", "int3"])]
    if narrow.empty:
        return Verdict(claim, "undecided", "Neither two nor three bits were asked for.")
    word: Word = "mixed"
    if (narrow["standing"] == 0).all():
        word = "supported"
    elif (narrow["standing"] == 1).all():
        word = "contradicted"
    said = "; ".join(
        f"{row.treatment} {row.effective_classes:.1f} ({row.fewest:.1f} to {row.most:.1f})"
        for row in narrow.itertuples(index=False)
    )
    return Verdict(
        claim,
        word,
        "Effective number of classes that the networks answer with, and its range over "
        f"{_count(seeds, 'seed')}: {said}. A network has collapsed that uses less than half as many classes "
        "beyond the first as in full precision.",
    )


def grid_matters(stored: pd.DataFrame) -> Prose:
    """What another way to choose the grid does to OA and FVO at the same width."""
    sentences = []
    width = stored["treatment"].str.extract(r"^int(\d+)")[0]
    for bits, rows in stored[width.notna()].groupby(width[width.notna()].astype(int), sort=False):
        accuracy = rows[rows["group"] == "OA"]
        best = max(accuracy.to_dict("records"), key=_estimate)
        plain = accuracy[accuracy["treatment"] == f"int{bits}"].to_dict("records")
        gap = rows[(rows["group"] == "FVO") & (rows["treatment"] == best["treatment"])].to_dict("records")[0]
        if plain and best["lower"] > plain[0]["upper"]:
            sentences.append(
                f"- At {bits} bits the choice matters: OA is {percent(plain[0]['estimate'])} with one scale "
                f"a tensor up to its largest weight, and {percent(best['estimate'])} with {best['grid']}, "
                f"where FVO is {100 * gap['estimate']:.1f} points."
            )
        else:
            sentences.append(f"- At {bits} bits no choice of the grid is surely better than another.")
    return Prose("\n".join(sentences))


def size_or_difficulty(effects: pd.DataFrame, *, seeds: int) -> Verdict:
    """Which of the two makes quantization unequal? `effects` are those of `tables.size_and_difficulty`.

    Supported when, at some width, small size surely makes Others lose more and difficulty surely does not
    at any; contradicted the other way round, mixed when both do, undecided when neither does.
    """
    claim = "Small groups pay because they are small, not because they are hard."
    surely = {
        effect: bool((effects.loc[effects["effect"] == effect, "upper"] < 0).any())
        for effect in ("size", "difficulty")
    }
    words: dict[tuple[bool, bool], Word] = {
        (True, False): "supported",
        (False, True): "contradicted",
        (True, True): "mixed",
        (False, False): "undecided",
    }
    word = words[surely["size"], surely["difficulty"]]
    reading = {
        "supported": "Small size surely adds to what Others lose, difficulty does not surely",
        "contradicted": "Difficulty surely adds to what Others lose, small size does not surely",
        "mixed": "Both surely add to what Others lose",
        "undecided": "Neither surely adds to what Others lose",
    }[word]
    rows = effects[effects["effect"].isin(surely)]
    spared = [f"{row['effect']} at {row['treatment']}" for row in rows[rows["lower"] > 0].to_dict("records")]
    less = f", and less is surely lost with {' and '.join(spared)}" if spared else ""
    said = "; ".join(f"{row['treatment']}, {row['effect']} {_change(row)}" for row in rows.to_dict("records"))
    kinds = effects[~effects["effect"].isin(surely)].drop_duplicates("effect")
    before = ", ".join(f"{row['effect']} {percent(row['before'])}" for row in kinds.to_dict("records"))
    return Verdict(
        claim,
        word,
        f"{reading}{less}. Points that each adds to the change of Others against that of the species, over "
        f"{_count(seeds, 'seed')}, intervals that hold together with 95 %: {said}. Who is seldom right has "
        f"little to lose: in full precision Others were right on {before}.",
    )


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
        f"and FVO {100 * rows['FVO']:.1f} points. {reading}"
    )


def _estimate(record: Mapping[Hashable, Any]) -> float:
    return record["estimate"]


def _change(record: Mapping[Hashable, Any]) -> str:
    """A change in points, with its interval where it has one."""
    texts = [points(record[name]) for name in ("estimate", "lower", "upper")]
    return f"{texts[0]} ({texts[1]} to {texts[2]})" if record["lower"] == record["lower"] else texts[0]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


# ---------------------------------------------------------------- chapter 2: logits and the boundary

_HALF = 0.5  # of a variance or of a loss: what is under it is the smaller part
_NEGLIGIBLE = 0.01  # a change of variance by less than this share is none


def variance_falls(left: pd.DataFrame, collapse: pd.DataFrame, *, seeds: int) -> Verdict:
    """Does the typical logit variance fall below that of the original?

    `left` of `tables.variance_left`, `collapse` of `tables.collapse`. Collapsed networks count, since what
    they say has a variance too; but when they alone decide, the sentence says so.
    """
    claim = "Rounding the weights lowers the variance of the logits."
    rows = _every_image(left)
    falls, rises = rows["upper"] < 1 - _NEGLIGIBLE, rows["lower"] > 1 + _NEGLIGIBLE
    word = word_for(pd.DataFrame({"lower": falls * 1.0, "upper": rises * -1.0}))
    reading = {
        "supported": "At some width it surely falls, and at none does it surely rise",
        "contradicted": "At some width it surely rises, and at none does it surely fall",
        "mixed": "It surely falls at one width and surely rises at another",
        "undecided": f"Nowhere does it surely change by more than {percent(_NEGLIGIBLE)}",
    }[word]
    standing, _ = _standing(rows[falls | rises], collapse)
    if word != "undecided" and standing.empty:
        reading += ", and that only where the networks have collapsed onto one answer"
    said = [f"{row['treatment']} {_share(row)}" for row in rows.to_dict("records")]
    return Verdict(
        claim,
        word,
        f"{reading}. Of the typical variance in full precision there is left, over "
        f"{_over(seeds)} and all images, with intervals that hold together: {'; '.join(said)}.",
    )


def towards_the_boundary(changes: pd.DataFrame) -> Prose:
    """How confidence, margin and loss change over all images; `changes` of `tables.answer_changes`."""
    sentences = []
    for treatment, rows in _every_image(changes).groupby("treatment", sort=False):
        row = rows.set_index("measure").to_dict("index")
        sentences.append(
            f"- **{treatment}**: confidence {_moves(row['confidence'])}, "
            f"{_change(row['confidence'])} points; margin {_moves(row['margin'])}, {_signed(row['margin'])}; "
            f"loss {_moves(row['loss'])}, {_signed(row['loss'])} nats."
        )
    return Prose("\n".join(sentences))


def loss_falls_on(
    beyond: pd.DataFrame, changes: pd.DataFrame, collapse: pd.DataFrame, *, seeds: int
) -> Verdict:
    """Does the loss of the smallest group grow more than that of all others?

    `beyond` of `tables.loss_beyond_others`, `changes` of `tables.answer_changes`, both with a level that
    holds for all treatments at once; `collapse` of `tables.collapse`. Collapsed networks are set apart.
    """
    group = beyond["group"].iloc[0]
    claim = f"The loss of the smallest group, {group}, grows more than that of the others."
    judged, apart = _standing(beyond, collapse)
    judged = judged.dropna()
    if judged.empty:
        return Verdict(claim, "undecided", f"There is no width to judge it at.{apart}")
    word = word_for(judged)
    reading = {
        "supported": "At some width it surely grows more, and at none does it surely grow less",
        "contradicted": "At some width it surely grows less, and at none does it surely grow more",
        "mixed": "It surely grows more at one width and surely less at another",
        "undecided": "No interval leaves out zero",
    }[word]
    said = [f"{row['treatment']} {_signed(row)}" for row in judged.to_dict("records")]
    last = judged["treatment"].iloc[-1]
    of_groups = changes[(changes["measure"] == "loss") & (changes["group"] != ALL)].dropna()
    most = max(of_groups[of_groups["treatment"] == last].to_dict("records"), key=_estimate)
    surely = "" if most["lower"] > 0 else ", though not surely"
    return Verdict(
        claim,
        word,
        f"{reading}. Its growth less that of the others, in nats, paired over {_over(seeds)}, with "
        f"intervals that hold together: {'; '.join(said)}. At {last} the loss of {most['group']} grows "
        f"most, by {_signed(most)}{surely}.{apart}",
    )


def temperature_explains(
    explained: pd.DataFrame,
    changes: pd.DataFrame,
    heated: pd.DataFrame,
    collapse: pd.DataFrame,
    *,
    seeds: int,
) -> Verdict:
    """Does the original, heated to the same variance, lose what the quantized network loses?

    Asked of loss where the quantized network surely gained some: more than half of it, or less? And of
    accuracy where it surely lost some: more than half of that? `explained` of `tables.loss_explained`;
    `changes` and `heated` of `tables.answer_changes`, the latter of `tables.heated`.
    """
    claim = "The fall in variance explains what is lost."
    shares, apart = _standing(_every_image(explained), collapse)
    votes: set[str] = set()
    said = []
    for share in shares.to_dict("records"):
        name = share["treatment"]
        loss, accuracy = _of(changes, name, "loss"), _of(changes, name, "accuracy")
        if loss["lower"] > 0:
            votes |= {"for"} if share["lower"] > _HALF else {"against"} if share["upper"] < _HALF else set()
            said.append(f"{name}: of the loss it added, temperature adds {_share(share)}")
        if accuracy["upper"] < 0:
            control = _of(heated, name, "accuracy")
            votes.add("for" if control["estimate"] < _HALF * accuracy["estimate"] else "against")
            said.append(
                f"{name}: accuracy changes by {_change(accuracy)} points, by temperature alone by "
                f"{points(control['estimate'])}"
            )
    word: Word = (
        "mixed"
        if len(votes) == 2
        else "supported"
        if votes == {"for"}
        else "contradicted"
        if votes
        else "undecided"
    )
    reading = {
        "supported": "The original at that temperature loses most of it",
        "contradicted": "The original at that temperature loses less than half of it",
        "mixed": "The original at that temperature loses most of one thing and little of another",
        "undecided": "Nothing is surely lost that could be explained"
        if not said
        else "The intervals hold both more and less than half",
    }[word]
    listed = f" {'; '.join(said)}; over {_over(seeds)}." if said else ""
    return Verdict(claim, word, f"{reading}.{listed}{apart}")


def variance_stands(left: pd.DataFrame, *, seeds: int) -> Verdict:
    """The break condition: does the variance stay where weights are hardly or not at all rounded?"""
    rows = _every_image(left)
    names = ", ".join(rows["treatment"])
    claim = f"Where weights are not made coarse ({names}), the variance does not collapse."
    stands, falls = (rows["lower"] > _HALF).sum(), (rows["upper"] < _HALF).sum()
    word: Word = (
        "supported"
        if stands == len(rows) > 0
        else "contradicted"
        if falls == len(rows) > 0
        else "mixed"
        if falls
        else "undecided"
    )
    reading = {
        "supported": "Each surely keeps more than half of it",
        "contradicted": "Each surely keeps less than half of it",
        "mixed": "Some surely keep less than half of it, others do not",
        "undecided": "Not all intervals lie above one half, but none lies below it",
    }[word]
    said = [f"{row['treatment']} {_share(row)}" for row in rows.to_dict("records")]
    return Verdict(claim, word, f"{reading}. Typical variance left, over {_over(seeds)}: {'; '.join(said)}.")


def what_a_factor_mends(changes: pd.DataFrame, mended: pd.DataFrame) -> Prose:
    """What rescaling does where something was surely lost.

    `mended` of `tables.answer_changes` of the rescaled networks against the same ones before.
    """
    sentences = []
    for name in changes["treatment"].unique():
        if _of(changes, name, "loss")["lower"] > 0 or _of(changes, name, "accuracy")["upper"] < 0:
            loss, accuracy = _of(mended, name, "loss"), _of(mended, name, "accuracy")
            stays = "stays" if accuracy["estimate"] == 0 else f"moves by {_change(accuracy)} points"
            sentences.append(
                f"- **{name}**: with the original's variance the loss {_moves(loss)}, {_signed(loss)} nats "
                f"against the quantized network as it was; accuracy {stays}."
            )
    return Prose("\n".join(sentences) or "At no width is loss or accuracy surely lost: nothing is to mend.")


def what_statistics_mend(regained: pd.DataFrame, changes: pd.DataFrame, left: pd.DataFrame) -> Prose:
    """What new batch norm statistics give back; `changes` and `left` hold treatments with and without."""
    sentences = []
    for name in regained["treatment"].unique():
        plain = name.removesuffix("-bn")
        before, after = _of(changes, plain, "accuracy"), _of(changes, name, "accuracy")
        variance = _every_image(left).set_index("treatment").to_dict("index")
        share = _of(regained, name, "accuracy")
        back = ""
        if before["upper"] < 0:
            surely = share["lower"] > 0
            back = (
                f" Of what was lost {_share(share)} returns." if surely else " No part of it surely returns."
            )
        sentences.append(
            f"- **{plain}**: {_share(variance[plain])} of the variance is left, with new statistics "
            f"{_share(variance[name])}. Accuracy changes by {_change(before)} points against full precision, "
            f"with new statistics by {_change(after)}.{back}"
        )
    return Prose("\n".join(sentences))


def who_flips(flips: pd.DataFrame, *, smallest: str) -> Prose:
    """How often answers flip near the boundary and far from it; `flips` of `tables.flips`."""
    parts = flips["part"].max()
    sentences = []
    for name, rows in flips.groupby("treatment", sort=False):
        every = rows[rows["group"] == ALL].set_index("part").to_dict("index")
        own = rows[(rows["group"] == smallest)].set_index("part").to_dict("index")
        surely = every[1]["lower"] > every[parts]["upper"]
        where = "more often near the boundary" if surely else "not surely more often near the boundary"
        sentences.append(
            f"- **{name}**: {_share(every[0])} of the answers flip, {where}: {_share(every[1])} of the "
            f"nearest tenth, {_share(every[parts])} of the farthest. Of {smallest}, {_share(own[0])} flip, "
            f"and {percent(own[1]['answers'] / own[0]['answers'])} of its images lie in the nearest tenth."
        )
    return Prose("\n".join(sentences))


def together(claim: str, parts: Sequence[Verdict]) -> Verdict:
    """A claim that is a chain: it holds if each part does, and is mixed if some hold and some do not.

    A part that is itself mixed makes the whole mixed; undecided parts beside parts that hold leave it open.

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
        word = "undecided" if "undecided" in words or not parts else "supported"
    said = " ".join(f"{part.claim.rstrip('.')}: {part.word}." for part in parts)
    return Verdict(claim, word, f"Part by part: {said}")


def _every_image(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["group"] == ALL]


def _of(table: pd.DataFrame, treatment: str, measure: str) -> dict[Hashable, Any]:
    rows = _every_image(table)
    return rows[(rows["treatment"] == treatment) & (rows["measure"] == measure)].to_dict("records")[0]


def _standing(table: pd.DataFrame, collapse: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The rows whose networks still tell classes apart, and a sentence that names the others."""
    standing = standing_treatments(collapse)
    fallen = [name for name in table["treatment"].unique() if name not in standing]
    return table[table["treatment"].isin(standing)], _set_apart(fallen)


def _set_apart(fallen: Sequence[str]) -> str:
    return f" Set apart, because the networks have collapsed: {', '.join(fallen)}." if fallen else ""


def _moves(record: Mapping[Hashable, Any]) -> str:
    return "falls" if record["upper"] < 0 else "rises" if record["lower"] > 0 else "does not surely change"


def _signed(record: Mapping[Hashable, Any]) -> str:
    """A change in its own unit."""
    texts = [f"{record[name]:+.3f}".replace("-", "−") for name in ("estimate", "lower", "upper")]
    return f"{texts[0]} ({texts[1]} to {texts[2]})" if record["lower"] == record["lower"] else texts[0]


def _over(seeds: int) -> str:
    return _count(seeds, "seed") if seeds > 1 else "1 seed (what others would do is unknown)"


def _share(record: Mapping[Hashable, Any]) -> str:
    """A share with its interval, where it has one."""
    texts = [
        "over 1000" if record[name] > 10 else f"{100 * record[name]:.0f}".replace("-", "−")
        for name in ("estimate", "lower", "upper")
    ]
    missing = record["lower"] != record["lower"]
    return f"{texts[0]} %" if missing else f"{texts[0]} % ({texts[1]} to {texts[2]})"


# ---------------------------------------------------------------- chapter 3: the zero bin

_ONE_ANSWER = 0.95  # a larger share of equal answers, and a network tells nothing apart
_AS_GAUSSIAN = 0.03  # a layer whose zero share is nearer than this to a Gaussian's tells nothing else


def zero_bins(bins: pd.DataFrame, totals: pd.DataFrame) -> Prose:
    """How full the zero bin is, and how much of the rounding error it makes; of `tables.zero_bins`."""
    sentences = [
        f"- **{row['treatment']}**: {percent(row['zero_share'])} of all weights become zero, and make "
        f"{percent(row['error_share'])} of the squared rounding error. "
        f"Gaussian weights would have {percent(row['gaussian'])} zeros."
        for row in totals.to_dict("records")
    ]
    layers = bins.groupby(["treatment", "layer"], sort=False)[["zero_share", "gaussian"]].mean().reset_index()
    off = layers["zero_share"] - layers["gaussian"]
    place = int(off.abs().to_numpy().argmax())
    worst, largest = layers.iloc[place], float(off.iloc[place])
    reading = (
        "The weights might as well be Gaussian: how many become zero is settled by the range and the spread "
        "of a layer, whatever it has learned."
        if abs(largest) < _AS_GAUSSIAN
        else f"That layer has {'more' if largest > 0 else 'fewer'} small weights than a Gaussian has."
    )
    return Prose(
        "\n".join(sentences) + f"\n\nThe layer furthest from the Gaussian curve is {worst['layer']} at "
        f"{worst['treatment']}, {points(largest)} points. {reading}"
    )


def what_is_taken_apart(treatment: str, group: str, collapse: pd.DataFrame) -> Prose:
    """Which width the interventions are at, and which group is the smallest; of `tables.collapse`."""
    used = collapse.set_index("treatment")["effective_classes"]
    left = (
        f", under which the networks use {used[treatment]:.1f} classes, before {used['fp32']:.1f}"
        if treatment in used
        else ""
    )
    return Prose(
        f"Taken apart is **{treatment}**{left}. The smallest group, by training images, is **{group}**."
    )


def what_is_added(
    changes: pd.DataFrame, order: Sequence[str], group: str, *, collapse: pd.DataFrame | None = None
) -> Prose:
    """What each treatment adds to the loss of the smallest group and of all images, and whom it costs most.

    `changes` of `tables.answer_changes`; with `collapse` of `tables.collapse` also how many classes are left.
    """
    sentences = []
    for name in order:
        rows = changes[(changes["treatment"] == name) & (changes["measure"] == "loss")]
        rows = rows.dropna(subset="estimate")
        own, every = (_row(rows, name, "loss", who) for who in (group, ALL))
        most = max(rows[rows["group"] != ALL].to_dict("records"), key=_estimate)
        payer = (
            f"{most['group']} pays most ({_signed(most)})" if most["lower"] > 0 else "no group surely pays"
        )
        accuracy = _row(changes, name, "accuracy", group)
        used = ""
        if collapse is not None:
            classes = collapse.set_index("treatment")["effective_classes"]
            used = f" Classes in use: {classes[name]:.1f}, before {classes['fp32']:.1f}."
        sentences.append(
            f"- **{name}**: the loss of {group} {_moves(own)} ({_signed(own)} nats), that of all images "
            f"{_moves(every)} ({_signed(every)}); {payer}. Accuracy of {group}: {_change(accuracy)} "
            f"points.{used}"
        )
    return Prose("\n".join(sentences))


def halves_sum(changes: pd.DataFrame, treatment: str, group: str) -> Prose:
    """Do the two halves, each by itself, add up to the whole? Words by which half moves the group further."""
    zeros, rest, whole = (
        _row(changes, name, "loss", group)["estimate"]
        for name in (f"{treatment}-zeros", f"{treatment}-nonzeros", treatment)
    )
    further = "emptying the zero bin" if abs(zeros) > abs(rest) else "rounding all other weights"
    ways = "the same way" if zeros * rest > 0 else "opposite ways"
    return Prose(
        f"For {group} the two halves go {ways}, and {further} goes further. Their sum is "
        f"{_plain(zeros + rest)} nats; both done together give {_plain(whole)}."
    )


def held_against(
    differences: pd.DataFrame, reference: str, group: str, *, notes: Mapping[str, str] | None = None
) -> Prose:
    """Each treatment beside a reference, in pairs: is it better or worse for the smallest group, and for all?

    `differences` of `tables.answer_changes`, of what `tables.against` the reference gives. `notes`: a few
    words beside each name.
    """
    notes = notes or {}
    sentences, better, worse = [], [], []
    for name in differences["treatment"].unique():
        own, every = (_row(differences, name, "loss", who) for who in (group, ALL))
        better += [name] if own["upper"] < 0 else []
        worse += [name] if own["lower"] > 0 else []
        note = f" ({notes[name]})" if name in notes else ""
        sentences.append(
            f"- **{name}**{note}: {_better(own)} for {group} ({_signed(own)} nats), {_better(every)} for all "
            f"images ({_signed(every)})."
        )
    count = len(sentences)
    return Prose(
        "\n".join(sentences)
        + f"\n\nHeld against {reference}, {len(better)} of {count} are surely better for "
        f"{group}{_listed(better)} and {len(worse)} surely worse{_listed(worse)}."
    )


def length_or_smallness(differences: pd.DataFrame, treatment: str, group: str) -> Prose:
    """Whether the zero bin costs the group more than as long a change elsewhere; of `held_against` too."""
    control = _row(differences, f"{treatment}-norm", "loss", group)
    reading = (
        "more than its length explains: for this group, small weights count"
        if control["upper"] < 0
        else "less than a change of that length elsewhere: small weights are the ones to do without"
        if control["lower"] > 0
        else "neither surely more nor surely less than a change of that length elsewhere, so that nothing "
        "says it is their smallness that counts"
    )
    return Prose(f"Emptying the zero bin costs {group} {reading}.")


def layer_by_layer(table: pd.DataFrame, signs: pd.DataFrame, group: str, *, seeds: int) -> Prose:
    """In how many layers the group pays more than the rest; of `tables.losses_by_layer` and `layer_signs`."""
    meaning = {
        "zeros": "emptying the zero bin",
        "norm": "taking the same length at random",
        "random": "zeroing the same number at random",
    }
    sentences = []
    for kind, rows in table[table["group"] == "beyond"].dropna().groupby("kind", sort=False):
        more, less = (rows["lower"] > 0).sum(), (rows["upper"] < 0).sum()
        sentences.append(
            f"- **{meaning[str(kind)]}** costs {group} surely more than the rest in {more} of {len(rows)} "
            f"layers, surely less in {less}; on average over the layers "
            f"{_plain(rows['estimate'].mean())} nats more."
        )
    if not sentences:
        return Prose(f"There are too few images to compare {group} with the rest.")
    by_luck = 0.05 * len(table["layer"].unique())
    compared = [
        f"In {row['rises']} of {row['n']} layers it is more with the zero bin than when "
        f"{'as much length' if row['measure'] == 'norm' else 'as many weights'} of that layer went at random "
        f"(sign test, p = {row['p']:.2f})."
        for row in signs.to_dict("records")
    ]
    return Prose(
        "\n".join(sentences) + f"\n\nOf so many intervals about {by_luck:.0f} a line would leave out zero by "
        f"luck alone; {_count(seeds, 'seed')}. What {group} pays more than the rest: {' '.join(compared)} "
        "Layers share images and networks, so a p near 0.05 decides nothing."
    )


def small_weights_are_needed(
    parts: pd.DataFrame, changes: pd.DataFrame, collapse: pd.DataFrame, treatment: str, *, seeds: int
) -> Verdict:
    """Does the zero bin empty small weights that the smallest group needs? Judged part by part, by the loss.

    `parts` of `tables.zero_bin_parts`, with a level that holds for all four at once. Supported if each part
    holds; mixed if one surely holds and another surely does not. `changes` of `tables.answer_changes`, for
    what accuracy says beside it; `collapse` of `tables.collapse`: originals that give one answer to nearly
    everything have nothing to lose, and decide nothing.
    """
    group = parts["group"].iloc[0]
    claims = {
        "harm": f"emptying the zero bin adds to the loss of {group}",
        "rest": "it adds more than rounding all other weights",
        "others": "it adds more than it does to all other groups",
        "norm": "it adds more than taking the same length from weights drawn at random",
    }
    answers = {
        "supported": "yes",
        "contradicted": "no, surely the opposite",
        "undecided": "cannot be told",
    }
    verdicts, said = [], []
    for part, claim in claims.items():
        row = parts[parts["part"] == part].iloc[0]
        word = word_for(pd.DataFrame([row]))
        verdicts.append(Verdict(claim, word, ""))
        number = f" ({_signed(row.to_dict())})" if pd.notna(row["estimate"]) else " (nothing to compare with)"
        said.append(f"{claim}: {answers[word]}{number}")
    claim = f"The zero bin empties small weights that the smallest group, {group}, needs."
    share = collapse.set_index("treatment")["share"]["fp32"]
    if share > _ONE_ANSWER:
        return Verdict(
            claim,
            "undecided",
            f"The networks give one and the same answer to {percent(share)} of the images before anything is "
            "done to them: train them longer, or on more images.",
        )
    held = sum(verdict.word == "supported" for verdict in verdicts)
    emptied = f"{treatment}-zeros"
    own, every = (_row(changes, emptied, "accuracy", who) for who in (group, ALL))
    return Verdict(
        claim,
        together(claim, verdicts).word,
        f"At {treatment}, {held} of the claim's {len(verdicts)} parts surely hold. "
        f"{_sentence('; '.join(said))}. In nats, "
        f"paired over {_count(seeds, 'seed')}, with intervals that hold together with 95 %. "
        f"Accuracy under {emptied}, in points: {group} {_change(own)}, all images {_change(every)}."
        + (" One network says nothing of others: the intervals cover other images only." * (seeds == 1)),
    )


def _row(table: pd.DataFrame, treatment: str, measure: str, group: str) -> dict[Hashable, Any]:
    own = (table["treatment"] == treatment) & (table["measure"] == measure) & (table["group"] == group)
    return table[own].to_dict("records")[0]


def _better(record: Mapping[Hashable, Any]) -> str:
    better, worse = record["upper"] < 0, record["lower"] > 0
    return "surely better" if better else "surely worse" if worse else "no sure difference"


def _listed(names: Sequence[str]) -> str:
    return f" ({', '.join(names)})" if names else ""


def _plain(nats: float) -> str:
    return f"{nats:+.2f}".replace("-", "−")


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


# ---------------------------------------------------------------- chapter 4: the landscape


def who_is_compared(ends: Ends, table: pd.DataFrame, split: str) -> Prose:
    """Between which groups, on how many images of each, and of which split."""
    count = table["n"].iloc[0]
    if ends.most == ends.fewest:
        sizes = f"All have {ends.most:,} training images, so that no group is a minority here"
    else:
        sizes = (
            f"**{ends.largest}** has the most training images, {ends.most:,}, and **{ends.smallest}** the "
            f"fewest, {ends.fewest:,}"
        )
    few = " That is few: read every number below with care." if count < 30 else ""
    return Prose(f"{sizes}. Everything below is measured on {count} {split} images of each group.{few}")


def eigenvalues_reached(table: pd.DataFrame) -> Prose:
    """How many eigenvalues were asked for and reached, by how many products, with what residual."""
    lines = []
    residual = (table["residual"] / table["eigenvalue"].abs()).where(table["converged"])
    for treatment, own in table.assign(relative=residual).groupby("treatment", sort=False):
        largest, most = own["relative"].max(), int(own["iterations"].max())
        within = f", each within {percent(largest)} of its value" if largest == largest else ""
        reached = f"{int(own['converged'].sum())} of {len(own)}"
        lines.append(f"- **{treatment}**: {reached} eigenvalues reached by at most {most} products{within}.")
    missed = table[~table["converged"]].to_dict("records")
    text = "\n".join(lines)
    if missed:
        named = [
            f"{row['treatment']} {row['group']} seed {row['seed']} (residual {row['residual']:.3g} of "
            f"{row['eigenvalue']:.3g})"
            for row in missed
        ]
        text += f"\n\nNot reached, and left out of all that follows: {'; '.join(named)}."
    return Prose(text)


def larger_for_the_smallest(
    ratios: pd.DataFrame, measure: str, ends: Ends, collapse: pd.DataFrame, *, seeds: int
) -> Verdict:
    """Has the smallest group the larger gradient norm, or top eigenvalue? By `tables.smallest_to_largest`."""
    name = _AROUND[measure]
    claim = f"The smallest group has a larger {name} than the largest."
    if ends.most == ends.fewest:
        return Verdict(claim, "undecided", "There is no smallest group: all have as many training images.")
    judged, apart = _standing(ratios[ratios["measure"] == measure], collapse)
    reading: dict[Word, str] = {
        "supported": f"Somewhere it surely has, and nowhere has {ends.largest} the larger one for sure",
        "contradicted": f"Somewhere {ends.largest} surely has the larger one, and nowhere {ends.smallest}",
        "mixed": "It has at one width, and surely has not at another",
        "undecided": "No interval leaves out a ratio of one",
    }
    said = f"Ratio of {ends.smallest} to {ends.largest}"
    return _ratio_verdict(claim, judged, reading, said, apart, seeds=seeds)


def steep_where_hard(ranks: pd.DataFrame) -> Prose:
    """Do gradient norm and eigenvalue say more of a group than its loss does? By `tables.with_loss`."""
    sentences = []
    for treatment, own in ranks.groupby("treatment", sort=False):
        groups = int(own["groups"].iloc[0])
        said = "; ".join(f"{_AROUND[row['measure']]} {_correlation(row)}" for row in own.to_dict("records"))
        sure = own[(own["lower"] > 0) & (own["groups"] >= _FEWEST_TO_RANK)]
        alike = [_AROUND[measure] for measure in sure["measure"]]
        reading = f", surely positive for {' and '.join(alike)}" if alike else ""
        sentences.append(f"- **{treatment}**, over {_count(groups, 'group')}: {said}{reading}.")
    return Prose("Rank correlation of the loss of a group with its\n\n" + "\n".join(sentences))


def sharpens(ratios: pd.DataFrame, ends: Ends, collapse: pd.DataFrame, *, seeds: int) -> Verdict:
    """Does rounding raise the top eigenvalue of the groups? By `tables.to_full_precision`."""
    claim = "Quantization raises the top eigenvalue."
    own = ratios[ratios["measure"] == "eigenvalue"]
    judged, apart = _standing(own[own["group"] == ALL], collapse)
    reading: dict[Word, str] = {
        "supported": "At some width it surely does, and at none does it surely lower it",
        "contradicted": "At some width it surely lowers it, and at none does it surely raise it",
        "mixed": "It surely does at one width, and surely lowers it at another",
        "undecided": "No interval leaves out a ratio of one",
    }
    smallest = own[(own["group"] == ends.smallest) & own["treatment"].isin(judged["treatment"])]
    also = "; ".join(f"{row['treatment']} {_times(row)}" for row in smallest.to_dict("records"))
    apart = f"{apart} For {ends.smallest} alone: {also}." if also else apart
    return _ratio_verdict(claim, judged, reading, "Over all groups, ratio to fp32", apart, seeds=seeds)


def training_flattens(
    ratios: pd.DataFrame, collapse: pd.DataFrame, *, seeds: int, group: str = ALL
) -> Verdict:
    """Is the loss flatter after training while quantized than after rounding? By `tables.to_rounded`."""
    whom = "" if group == ALL else f" for {group}"
    claim = f"Training while quantized ends where the loss is flatter{whom} than rounding does."
    own = ratios[(ratios["measure"] == "eigenvalue") & (ratios["group"] == group)]
    judged, apart = _standing(own, collapse)
    if len(judged):  # the other one of each pair has to stand as well
        plain = judged["treatment"].map(rounding_of)
        both, fallen = _standing(judged.assign(treatment=plain), collapse)
        judged, apart = judged.loc[both.index], apart or fallen
    reading: dict[Word, str] = {
        "supported": "Flatter at some width for sure, and sharper at none",
        "contradicted": "Sharper at some width for sure, and flatter at none",
        "mixed": "Flatter at one width for sure, and sharper at another",
        "undecided": "No interval leaves out a ratio of one",
    }
    # Less is more here: a ratio below one supports the claim.
    return _ratio_verdict(
        claim,
        judged,
        reading,
        f"Top eigenvalue{whom or ' over all groups'}, ratio to mere rounding",
        apart,
        seeds=seeds,
        lower_is_better=True,
    )


def bound_tells_who_is_hurt(ranks: pd.DataFrame, collapse: pd.DataFrame, *, seeds: int) -> Verdict:
    """Does the bound rank the groups as the excess loss does? By `tables.rank_correlations`."""
    claim = "The Taylor bound ranks the groups by what rounding costs them."
    of_bound = ranks[(ranks["forecast"] == "bound") & (ranks["outcome"] == "excess")]
    judged, apart = _standing(of_bound, collapse)
    if len(judged) and judged["groups"].max() < _FEWEST_TO_RANK:
        return Verdict(
            claim,
            "undecided",
            f"A ranking of {_count(int(judged['groups'].max()), 'group')} says nothing: chance alone gets it "
            f"right half of the time. At least {_FEWEST_TO_RANK} are needed.",
        )
    known = judged.dropna(subset="estimate")
    if known.empty:
        return Verdict(claim, "undecided", f"There is no width to judge it at.{apart}")
    word = word_for(known)
    reading = {
        "supported": "Somewhere the ranks surely agree, and nowhere are they surely opposed",
        "contradicted": "Somewhere the ranks are surely opposed, and nowhere do they surely agree",
        "mixed": "The ranks surely agree at one width and are surely opposed at another",
        "undecided": "No interval leaves out zero",
    }[word]
    said = "; ".join(f"{row['treatment']} {_correlation(row)}" for row in known.to_dict("records"))
    groups = _count(int(known["groups"].max()), "group")
    return Verdict(
        claim,
        word,
        f"{reading}. Rank correlation over {groups}, mean of {_count(seeds, 'seed')}: {said}."
        f"{_of_one_seed(seeds)}{apart}",
    )


def how_tight(bounds: pd.DataFrame, ranks: pd.DataFrame) -> Prose:
    """How far the bound lies above the excess loss, and how the parabola along the way does instead."""
    sentences = []
    for treatment, own in bounds.groupby("treatment", sort=False):
        broken = int((own["excess"] > own["bound"]).sum())
        kept = f"it is broken {_count(broken, 'time')}" if broken else "no excess loss is above it"
        share = (own["curvature_term"] / own["bound"]).median()
        error = (own["parabola"] - own["excess"]).abs().median()
        largest = own["excess"].abs().max()
        others = [
            (str(row["forecast"]), str(row["outcome"]), row)
            for row in ranks[ranks["treatment"] == treatment].to_dict("records")
            if row["estimate"] == row["estimate"] and (row["forecast"], row["outcome"]) != ("bound", "excess")
        ]
        ranked = "; ".join(
            f"{forecast} with {_OUTCOMES[outcome]} {_correlation(row)}" for forecast, outcome, row in others
        )
        sentences.append(
            f"- **{treatment}**: the bound is {own['bound'].median():,.0f} nats in the median, "
            f"{percent(share)} of it curvature; the largest excess loss is {largest:.2g}, and {kept}. The "
            f"parabola misses the excess loss by {error:.3f} in the median. Rank correlations: {ranked}."
        )
    return Prose("\n".join(sentences))


def where_it_costs(parts: pd.DataFrame, ranks: pd.DataFrame) -> Prose:
    """Which part costs whom most when it alone is rounded, and whether the bound names that part."""
    sentences = []
    for (treatment, group), own in parts.groupby(["treatment", "group"], sort=False):
        means = own.groupby("part", sort=False)[["bound", "excess"]].mean().fillna(0)
        rank = ranks[(ranks["treatment"] == treatment) & (ranks["group"] == group)].to_dict("records")[0]
        dearest, named = means["excess"].idxmax(), means["bound"].idxmax()
        there = "where the bound is largest too" if dearest == named else f"the bound is largest in {named}"
        sentences.append(
            f"- **{treatment}, {group}**: rounding {dearest} alone costs most, "
            f"{means['excess'].max():+.3f} nats; {there}. Rank correlation over "
            f"{_count(rank['parts'], 'part')}: {_correlation(rank)}."
        )
    missed = int((~parts["converged"]).sum())
    left = f"\n\nLeft out, as not reached: {_count(missed, 'eigenvalue')}." if missed else ""
    return Prose("\n".join(sentences) + left)


def along_the_way(table: pd.DataFrame) -> Prose:
    """Who gains and who loses loss on the way to the rounded weights."""
    sentences = []
    for treatment, own in table.groupby("treatment", sort=False):
        ends_of = own[own["step"].isin([0.0, 1.0])].groupby(["group", "step"], sort=False)["loss"].mean()
        said = [
            f"{group} from {ends_of[group, 0.0]:.2f} to {ends_of[group, 1.0]:.2f}"
            for group in own["group"].unique()
        ]
        sentences.append(f"- **{treatment}**: the mean loss goes for {' and for '.join(said)} nats.")
    return Prose("\n".join(sentences))


def how_far_out(spectra: Sequence[Spectrum]) -> Prose:
    """How the largest eigenvalue stands out of the bulk, and whether any are below zero."""
    sentences = []
    for own in spectra:
        values = np.sort(own.density.eigenvalues.numpy())
        below = f"the lowest is {_short(values[0])}" + (", so this is no minimum" if values[0] < 0 else "")
        sentences.append(
            f"- **{own.treatment.name}, {own.group}**: the largest is {_short(values[-1])}, the next one "
            f"found {_short(values[-2])}; {below}."
            if len(values) > 1
            else f"- **{own.treatment.name}, {own.group}**: the only one found is {_short(values[0])}."
        )
    return Prose("\n".join(sentences))


_AROUND = {"gradient_norm": "gradient norm", "eigenvalue": "top eigenvalue"}
_OUTCOMES = {"excess": "excess loss", "excess_test": "excess loss on the test images"}
_FEWEST_TO_RANK = 3


def _ratio_verdict(
    claim: str,
    judged: pd.DataFrame,
    reading: Mapping[Word, str],
    said: str,
    apart: str,
    *,
    seeds: int,
    lower_is_better: bool = False,
) -> Verdict:
    known = judged.dropna(subset="estimate")
    if known.empty:
        return Verdict(claim, "undecided", f"There is no width to judge it at.{apart}")
    logs = known[["lower", "upper"]].apply(np.log)
    if lower_is_better:
        logs = -logs.rename(columns={"lower": "upper", "upper": "lower"})
    word = word_for(logs)
    left_out = int(known["left_out"].sum())
    without = f" Left out, as not reached or not above 0: {_count(left_out, 'value')}." if left_out else ""
    numbers = "; ".join(f"{row['treatment']} {_times(row)}" for row in known.to_dict("records"))
    return Verdict(
        claim,
        word,
        f"{reading[word]}. {said}, paired over {_count(seeds, 'seed')}, intervals that hold together with "
        f"95 %: {numbers}.{_of_one_seed(seeds)}{without}{apart}",
    )


def _short(value: float) -> str:
    return (f"{value:,.0f}" if abs(value) >= 10 else f"{value:.2f}").replace("-", "−")


def _of_one_seed(seeds: int) -> str:
    return "" if seeds > 1 else " Of one seed there is no interval, so nothing is decided."


def _times(record: Mapping[Hashable, Any]) -> str:
    """A ratio, with its interval where it has one."""
    texts = [f"{record[name]:.2f}" for name in ("estimate", "lower", "upper")]
    return f"{texts[0]} ({texts[1]} to {texts[2]})" if record["lower"] == record["lower"] else texts[0]


def _correlation(record: Mapping[Hashable, Any]) -> str:
    """A mean of correlations; its interval by Student may reach beyond what a correlation can be."""
    if record["estimate"] != record["estimate"]:
        return "none to be had"
    texts = [
        f"{np.clip(record[name], -1, 1):+.2f}".replace("-", "−") for name in ("estimate", "lower", "upper")
    ]
    return f"{texts[0]} ({texts[1]} to {texts[2]})" if record["lower"] == record["lower"] else texts[0]


# ---------------------------------------------------------------- chapter 5: what repairs

_FAIRQAT = "fairqat"
_METHODS = {"dro": "Group-DRO", "adjusted": "Logit adjustment"}


def repairs(
    changes_vs_ptq: pd.DataFrame,
    changes_vs_qat: pd.DataFrame,
    collapse: pd.DataFrame,
    *,
    seeds: int,
    margin: float = 0.01,
) -> Verdict:
    """Does FairQAT lower FVO against rounding and against plain QAT, and keep OA?

    The tables are of `tables.against_rounding` and `tables.against_plain_training`; of both only the rows of
    FairQAT count. Supported when FVO surely falls against both at some
    width where OA does not surely lose more than `margin`, and surely rises nowhere. Mixed when something
    surely falls and something else speaks against it, contradicted when only the latter is so.
    """
    claim = "FairQAT lowers FVO against rounding and against plain QAT, at about the same OA."
    falls: dict[str, list[str]] = {}
    rises: dict[str, list[str]] = {}
    dear: list[str] = []
    facts, said, fallen = [], [], []
    for other, words, table in (
        ("rounding", "-ends8", changes_vs_ptq),
        ("plain QAT", "-ends8-qat", changes_vs_qat),
    ):
        own = table[table["treatment"].str.endswith(_FAIRQAT) & table["group"].isin(["OA", "FVO"])]
        width = own["treatment"].map(_width_of)
        judged, collapsed = _both_stand(own.assign(width=width, reference=width + words), collapse)
        fallen += [name for name in collapsed if name not in fallen]
        gap, accuracy = (judged[judged["group"] == name] for name in ("FVO", "OA"))
        falls[other], rises[other] = _surely(gap)
        lost = list(accuracy.loc[accuracy["upper"] < -margin, "width"])
        dear += lost
        cost = f" while OA surely loses more than {_points(margin)} at {', '.join(lost)}" if lost else ""
        moves = _where(falls[other], rises[other]) if len(judged) else "cannot be judged"
        facts.append(f"against {other} FVO {moves}{cost}")
        numbers = "; ".join(
            f"{row['width']} {row['group']} {_change(row)}" for row in judged.to_dict("records")
        )
        said += [f"Against {other}: {numbers}."] if numbers else []
    apart = _set_apart(fallen)
    if not said:
        return Verdict(claim, "undecided", f"There is no width to judge it at.{apart}")
    anything_falls, anything_rises = (any(where.values()) for where in (falls, rises))
    whole = set.intersection(*map(set, falls.values())) - set(dear)
    against = anything_rises or bool(dear)
    word: Word = (
        "supported"
        if whole and not anything_rises
        else "mixed"
        if anything_falls and against
        else "contradicted"
        if against
        else "undecided"
    )
    holding = [other for other in falls if falls[other] and not rises[other]]
    half = f" Only the half against {holding[0]} holds." if len(holding) == 1 else ""
    return Verdict(
        claim,
        word,
        f"{_sentence('; '.join(facts))}.{half} Changes in points, paired over {_count(seeds, 'seed')}, "
        "intervals that hold together over the widths with 95 %. "
        f"{' '.join(said)}{_of_images_only(seeds)}{apart}",
    )


def which_part_repairs(effects: pd.DataFrame, collapse: pd.DataFrame, *, seeds: int) -> Verdict:
    """Is it the weights that lower FVO, or the training while rounded? `effects` of `tables.effects`.

    Supported when the weights surely lower FVO somewhere and raise it nowhere, and training while rounded
    surely lowers it nowhere. A width is set apart when one of its eight arms has collapsed.
    """
    claim = "It is the weights, not the training while rounded, that narrow the gap (FVO)."
    standing = standing_treatments(collapse)
    own = effects[effects["group"] == "FVO"]
    fallen = [arm for width in own["width"].unique() for arm in _eight_arms(width) if arm not in standing]
    judged, apart = own[~own["width"].isin(_width_of(arm) for arm in fallen)], _set_apart(fallen)
    if judged.empty:
        return Verdict(claim, "undecided", f"There is no width to judge it at.{apart}")
    by_effect = dict(list(judged.groupby("effect")))
    weights, training = by_effect["weights"], by_effect["training"]
    holds = bool((weights["upper"] < 0).any())
    against = bool((weights["lower"] > 0).any() or (training["upper"] < 0).any())
    words: dict[tuple[bool, bool], Word] = {
        (True, False): "supported",
        (False, True): "contradicted",
        (True, True): "mixed",
        (False, False): "undecided",
    }
    reading = "; ".join(f"{said} FVO {_where(*_surely(by_effect[name]))}" for name, said in _PARTS.items())
    numbers = "; ".join(
        f"{row['width']}, {row['effect']} {_change(row)}"
        for row in judged[judged["effect"].isin(_PARTS)].to_dict("records")
    )
    together = judged[~judged["effect"].isin(_PARTS) & ((judged["upper"] < 0) | (judged["lower"] > 0))]
    depends = "; ".join(
        f"{row['width']}, {row['effect']} {_change(row)}, "
        + (
            f"so that together they leave a {'smaller' if row['upper'] < 0 else 'larger'} gap than they add "
            "up to"
            if row["effect"].count("×") == 1
            else "so that what two do depends on the third"
        )
        for row in together.to_dict("records")
    )
    add_up = f" They do not just add up: {depends}." if depends else " No interaction surely differs from 0."
    return Verdict(
        claim,
        words[holds, against],
        f"{_sentence(reading)}. What each part does to FVO, in points, on average over the other two, over "
        f"{_count(seeds, 'seed')}, intervals that hold together over the widths with 95 %: {numbers}.{add_up}"
        f"{_of_images_only(seeds)}{apart}",
    )


def training_is_less_fair(changes: pd.DataFrame, collapse: pd.DataFrame, *, seeds: int) -> Verdict:
    """Is plain QAT less fair than rounding to the same bits? `changes` of `tables.against_rounding`."""
    claim = "Plain QAT leaves a larger gap (FVO) than rounding to the same width."
    own = changes[changes["treatment"].str.endswith("-qat")]
    judged, fallen = _both_stand(own[own["group"] == "FVO"], collapse)
    accuracy = "; ".join(
        f"{row['width']} {_moves(row)}, {_change(row)}"
        for row in own[own["group"] == "OA"].to_dict("records")
    )
    apart = _set_apart(fallen) + (f" OA, in points: {accuracy}." if accuracy else "")
    if judged.empty:
        return Verdict(claim, "undecided", f"There is no width to judge it at.{apart}")
    word = word_for(judged)
    reading = {
        "supported": "Somewhere its FVO is surely larger, and nowhere surely smaller",
        "contradicted": "Somewhere its FVO is surely smaller, and nowhere surely larger",
        "mixed": "Its FVO is surely larger at one width and surely smaller at another",
        "undecided": "No interval leaves out zero",
    }[word]
    said = "; ".join(f"{row['width']} {_change(row)}" for row in judged.to_dict("records"))
    return Verdict(
        claim,
        word,
        f"{reading}. Change of FVO in points against rounding, paired over {_count(seeds, 'seed')}, "
        f"intervals that hold together over the widths with 95 %: {said}.{_of_images_only(seeds)}{apart}",
    )


def accuracy_comes_back(
    change_from_fp32: pd.DataFrame, ptq_change: pd.DataFrame, *, seeds: int, margin: float = 0.01
) -> Verdict:
    """Does QAT bring OA back to no more than `margin` below full precision?

    Both are records of `tables.change`: of the plain QAT arms, and of the networks that were only rounded.
    An interval wholly above −`margin` says yes, one wholly below says no. Supported when all widths say
    yes, contradicted when some say no and none yes, mixed when there are both. Widths at which rounding alone
    surely loses no more than `margin` are told, and do not count.
    """
    claim = f"QAT brings OA back to within {_points(margin)} of full precision."
    accuracy, rounded = (table[table["group"] == "OA"] for table in (change_from_fp32, ptq_change))
    accuracy = accuracy[accuracy["treatment"].str.endswith("-qat")]
    if accuracy.empty:
        return Verdict(claim, "undecided", "There is no width to judge it at.")
    beside = {_width_of(row["treatment"]): row for row in rounded.to_dict("records")}
    answers, said, needless = [], [], []
    for row in accuracy.to_dict("records"):
        width, answer = _width_of(row["treatment"]), _is_back(row, margin)
        alone = f", by rounding alone {_change(beside[width])}" if width in beside else ""
        said.append(f"{width} {answer}, {_change(row)}{alone}")
        if width in beside and _is_back(beside[width], margin) == _BACK:
            needless.append(width)  # nothing was lost there, so nothing can come back
        else:
            answers.append(answer)
    word: Word = (
        "mixed"
        if {_BACK, _NOT_BACK} <= set(answers)
        else "supported"
        if answers and set(answers) == {_BACK}
        else "contradicted"
        if _NOT_BACK in answers
        else "undecided"
    )
    no_need = f" Rounding alone is surely within it too at {', '.join(needless)}." if needless else ""
    return Verdict(
        claim,
        word,
        f"Change of OA in points against full precision, paired over {_count(seeds, 'seed')}, intervals that "
        f"hold together over the widths with 95 %: {'; '.join(said)}.{no_need}{_of_images_only(seeds)}",
    )


def holds_on_test(on_both: pd.DataFrame, collapse: pd.DataFrame, *, seeds: int) -> Verdict:
    """Does what narrows the gap on training images narrow it on test images? By `tables.on_both`.

    Asked of the arms whose FVO surely falls in training. It holds where FVO surely falls in the test as
    well; it does not where FVO surely rises there, or falls for sure less and not surely at all. Supported
    when it holds for more than half of them and fails for none.
    """
    claim = "What narrows the gap (FVO) on training images narrows it on test images."
    judged, fallen = _both_stand(on_both[on_both["group"] == "FVO"], collapse)
    by_split = {split: rows.set_index("treatment") for split, rows in judged.groupby("split")}
    apart = _set_apart(fallen)
    if len(by_split) < 2:
        return Verdict(claim, "undecided", f"There is no arm to judge it by.{apart}")
    holds, fails, said = [], [], []
    narrowed = by_split["train"][by_split["train"]["upper"] < 0]
    for name, seen in zip(narrowed.index, narrowed.to_dict("records"), strict=True):
        unseen = by_split["test"].loc[[name]].to_dict("records")[0]
        less = unseen["lower"] > seen["upper"]
        fell, rose = unseen["upper"] < 0, unseen["lower"] > 0
        holds += [name] if fell else []
        fails += [name] if rose or (less and not fell) else []
        # Dozens of numbers inform nobody: the rest are in the figure.
        if name in fails or name.endswith(_FAIRQAT):
            size = ", surely less" if less else ""
            said.append(f"{name} {_change(seen)} in training and {_change(unseen)} in the test{size}")
    word: Word = (
        "mixed"
        if holds and fails
        else "contradicted"
        if fails
        else "supported"
        if 2 * len(holds) > len(narrowed)
        else "undecided"
    )
    arms = len(by_split["train"])
    listed = f" Change of FVO in points, of those and of FairQAT: {'; '.join(said)}." if said else ""
    return Verdict(
        claim,
        word,
        f"Of {_count(arms, 'arm')}, {len(narrowed)} surely narrow{'s' * (len(narrowed) == 1)} the gap on "
        f"training images; of these {len(holds)} surely do so on test images and {len(fails)} surely do "
        f"not.{listed} Against rounding, over {_count(seeds, 'seed')}.{_of_images_only(seeds)}{apart}",
    )


def at_what_price(frontier: pd.DataFrame) -> Prose:
    """What more weight, or more sampling, does to OA and FVO, and where the published setting stands.

    `frontier` of `tables.frontier`.
    """
    sentences = []
    for width, own in frontier.groupby("width", sort=False):
        said = []
        for family, unit in (
            ("weights", "for the smallest group"),
            ("sampling", "of the way to groups of one size"),
        ):
            rows = swept(own, family)
            if len(rows) < 2:
                continue
            first, last = rows.iloc[0].to_dict(), rows.iloc[-1].to_dict()
            said.append(
                f"As the {family} {'goes' if family == 'sampling' else 'go'} from {first['percent']:g} to "
                f"{last['percent']:g} % {unit}, OA goes from {_level(first, 'OA')} to {_level(last, 'OA')} % "
                f"and FVO from {_level(first, 'FVO')} to {_level(last, 'FVO')} points; "
                f"{_apart(first, last)}. {_who_is_worst(rows)}"
            )
        said += [_beside_published(own)] if own["treatment"].str.endswith(_FAIRQAT).any() else []
        sentences += [f"- **{width}**: {' '.join(said)}"] if said else []
    return Prose("\n".join(sentences) or "Neither the weights nor the sampling were varied.")


def baselines(frontier: pd.DataFrame) -> Prose:
    """Group-DRO and logit adjustment beside FairQAT: who has the higher OA, and who the smaller gap."""
    sentences = []
    for width, own in frontier.groupby("width", sort=False):
        published = own[own["treatment"].str.endswith(_FAIRQAT)].to_dict("records")
        rivals = own[own["family"].isin(_METHODS)].to_dict("records")
        if not published or not rivals:
            continue
        said = [
            f"{_METHODS[row['family']]} has OA {_level(row, 'OA')} %, "
            f"{_beside(row, published[0], 'OA', ('lower', 'higher'))}, and FVO {_level(row, 'FVO')} points, "
            f"{_beside(row, published[0], 'FVO', ('smaller', 'larger'))}."
            for row in rivals
        ]
        sentences.append(
            f"- **{width}**: FairQAT has OA {_level(published[0], 'OA')} % and FVO "
            f"{_level(published[0], 'FVO')} points. {' '.join(said)}"
        )
    return Prose("\n".join(sentences) or "No width has both FairQAT and another method to hold it against.")


def choices(what_to_do: pd.DataFrame) -> pd.DataFrame:
    """A table to act on, as it is read; by `tables.what_to_do`."""
    rows = [
        {
            "width": row["width"],
            "do": row["chosen"],
            "OA, %": _level(row, "OA"),
            "FVO, points": _level(row, "FVO"),
            "training": f"{100 * row['cost']:.0f} %",
            "MB": f"{row['megabytes']:.2f}",
        }
        for row in what_to_do.to_dict("records")
    ]
    columns = ["width", "do", "OA, %", "FVO, points", "training", "MB"]
    return pd.DataFrame(rows, columns=columns).set_index("width").rename_axis(None)


def advice(what_to_do: pd.DataFrame) -> Prose:
    """How to read the table, and a sentence a width: what to do and what it costs."""
    sentences = [
        f"- **{row['width']}**: {_what_to_do(row)} It takes {row['megabytes']:.2f} MB."
        for row in what_to_do.to_dict("records")
    ]
    note = (
        "Chosen on validation images: the smallest FVO among the arms that come close to the best OA. OA "
        "and FVO are those on test images, with intervals. Training comes on top of the original's, as a "
        "share of it, counted in images shown."
    )
    return Prose("\n".join([note, "", *sentences]))


_PARTS = {
    "training": "with training while rounded",
    "weights": "with the weights",
    "sampling": "with the sampling",
}
_BACK, _NOT_BACK = "surely within it", "surely not"


def _both_stand(changes: pd.DataFrame, collapse: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The pairs of which neither has collapsed, and the names of all that have."""
    standing = standing_treatments(collapse)
    named = dict.fromkeys([*changes["reference"], *changes["treatment"]])
    stand = changes["treatment"].isin(standing) & changes["reference"].isin(standing)
    return changes[stand], [name for name in named if name not in standing]


def _eight_arms(width: str) -> list[str]:
    extras = ("", "-weighted", "-sampled", "-weighted-sampled")
    arms = [f"{width}-ends8-{training}{extra}" for training in ("tuned", "qat") for extra in extras]
    return [*arms[:-1], f"{width}-{_FAIRQAT}"]


def _width_of(treatment: str) -> str:
    """The format and the grid in a name, as `tables.against_rounding` says them."""
    return re.split(r"-(?:ends8|tuned|qat|fairqat)\b", treatment)[0]


def _surely(changes: pd.DataFrame) -> tuple[list[str], list[str]]:
    """The widths at which something surely falls, and those at which it surely rises."""
    return list(changes.loc[changes["upper"] < 0, "width"]), list(changes.loc[changes["lower"] > 0, "width"])


def _where(falls: Sequence[str], rises: Sequence[str]) -> str:
    said = [f"surely {verb} at {', '.join(at)}" for verb, at in (("falls", falls), ("rises", rises)) if at]
    return " and ".join(said) or "surely changes nowhere"


def _points(share: float) -> str:
    return f"{100 * share:g} point{'s' * (share != 0.01)}"


def _of_images_only(seeds: int) -> str:
    return " One network says nothing of others: the intervals cover other images only." * (seeds == 1)


def _is_back(record: Mapping[Hashable, Any], margin: float) -> str:
    back, lost = record["lower"] > -margin, record["upper"] < -margin
    return _BACK if back else _NOT_BACK if lost else "undecided"


def _level(record: Mapping[Hashable, Any], measure: str) -> str:
    """OA or FVO of a wide record, in hundredths."""
    texts = [f"{100 * record[measure + end]:.1f}" for end in ("", "_lower", "_upper")]
    return f"{texts[0]} ({texts[1]} to {texts[2]})"


def _overlap(one: Mapping[Hashable, Any], other: Mapping[Hashable, Any], measure: str) -> bool:
    lower, upper = f"{measure}_lower", f"{measure}_upper"
    return bool(one[lower] <= other[upper] and other[lower] <= one[upper])


def _apart(first: Mapping[Hashable, Any], last: Mapping[Hashable, Any]) -> str:
    overlapping = [measure for measure in ("OA", "FVO") if _overlap(first, last, measure)]
    if len(overlapping) == 1:
        return f"the intervals of {overlapping[0]} overlap, the others do not"
    return "both pairs of intervals overlap" if overlapping else "neither pair of intervals overlaps"


def _who_is_worst(rows: pd.DataFrame) -> str:
    """Who is served worst along a sweep, and where that changes."""
    switches = rows[rows["worst"] != rows["worst"].shift()]
    if len(switches) == 1:
        return f"{rows['worst'].iloc[0]} is served worst throughout."
    then = ", ".join(
        f"from {row['percent']:g} % on {row['worst']}" for row in switches[1:].to_dict("records")
    )
    return f"Served worst is first {rows['worst'].iloc[0]}, {then}."


def _beside_published(points: pd.DataFrame) -> str:
    """Whether any other point of the width is better than FairQAT in both OA and FVO."""
    published = points[points["treatment"].str.endswith(_FAIRQAT)].iloc[0].to_dict()
    better = points[(points["OA"] > published["OA"]) & (points["FVO"] < published["FVO"])]
    surely = better[
        (better["OA_lower"] > published["OA_upper"]) & (better["FVO_upper"] < published["FVO_lower"])
    ]
    reading = "no other point is better in both"
    if len(better):
        clear = (
            f"for {', '.join(surely['treatment'])} no intervals overlap"
            if len(surely)
            else "though all with intervals that overlap"
        )
        reading = (
            f"better in both {'is' if len(better) == 1 else 'are'} {', '.join(better['treatment'])}, {clear}"
        )
    stands = f"OA {_level(published, 'OA')} % and FVO {_level(published, 'FVO')} points"
    return f"The published setting has {stands}: {reading}."


def _beside(
    record: Mapping[Hashable, Any],
    other: Mapping[Hashable, Any],
    measure: str,
    words: tuple[str, str],
) -> str:
    difference = record[measure] - other[measure]
    word = words[0] if difference < 0 else words[1]
    overlap = "the intervals overlap" if _overlap(record, other, measure) else "the intervals lie apart"
    return f"{word} by {100 * abs(difference):.1f} ({overlap})" if difference else f"the same ({overlap})"


def _what_to_do(row: Mapping[Hashable, Any]) -> str:
    how = (
        "train further in full precision, then round"
        if "-tuned" in row["chosen"]
        else "train further while rounded"
    )
    changes: dict[str, dict[Hashable, Any]] = {
        measure: {
            name: row[f"{measure}_change{end}"]
            for name, end in (("estimate", ""), ("lower", "_lower"), ("upper", "_upper"))
        }
        for measure in ("OA", "FVO")
    }
    accuracy, gap = (_moves(changes[measure]) for measure in ("OA", "FVO"))
    gains = gap == "falls" or accuracy == "rises"
    doubt = "" if gains else ". The test images give no reason not to just round"
    return (
        f"{how} (`{row['chosen']}`). Against rounding alone OA {accuracy}, {_change(changes['OA'])} "
        f"points, and FVO {gap}, {_change(changes['FVO'])}{doubt}. It costs {100 * row['cost']:.0f} % of the "
        "training that the original took."
    )


# ---------------------------------------------------------------- chapter 6: vision and language

_SHOWN = 0.05  # what remains of p after Holm's correction is below it


def no_consistent_change(found: pd.DataFrame, failed: pd.DataFrame, *, of: str = "model") -> Verdict:
    """Does quantization skew a population in no consistent way? `found` of `populations.consistency`.

    `of`: what a row of changes belongs to, a model or a pair of a model and a query.

    Judged by the measures of bias: FVO, the skews and the recall disparity. A change is shown to be none
    that matters where the equivalence test puts its mean within the margin. It is consistent where that is
    not so and the paired t-test or the sign test finds a direction. Supported when all changes are shown to
    be none; contradicted when some is consistent and none is shown to be none; mixed when there are both;
    undecided when some are neither and none is consistent.
    """
    claim = "Over a population of models, quantization changes bias in no consistent size or direction."
    apart = _failures(failed)
    found = found[found["family"] == "bias"]
    if found.empty:
        return Verdict(claim, "undecided", f"No treatment has two models to judge it by.{apart}")
    none = found["p_within"] < _SHOWN
    consistent = ~none & ((found["p_holm"] < _SHOWN) | (found["p_sign"] < _SHOWN))
    word: Word = (
        "supported"
        if none.all()
        else "mixed"
        if consistent.any() and none.any()
        else "contradicted"
        if consistent.any()
        else "undecided"
    )
    counts = [
        f"{rows['treatment'].iloc[0]} {int(none[rows.index].sum())} none, "
        f"{int(consistent[rows.index].sum())} consistent, "
        f"{int((~none & ~consistent)[rows.index].sum())} open"
        for _, rows in found.groupby("treatment", sort=False)
    ]
    said = [_moved(row) for row in found[consistent].to_dict("records")]
    which = f" Consistent: {'; '.join(said)}." if said else ""
    margins = _margins(found)
    return Verdict(
        claim,
        word,
        f"Of {_count(len(found), 'change')}, {int(none.sum())} surely lie within the margin ({margins}), "
        f"{int(consistent.sum())} surely have a direction and are not within it. By treatment: "
        f"{'; '.join(counts)}.{which} Paired over up to {_count(int(found['n'].max()), of)}, corrected "
        f"for {_tested(found)} tests a treatment.{apart}",
    )


def groups_oppose(found: pd.DataFrame, failed: pd.DataFrame) -> Verdict:
    """Do groups answer the same quantization in opposite ways? `found` of `populations.consistency`.

    Judged by the accuracy of each group. Opposite at a treatment: some group surely gains and another surely
    loses, over the population. Not opposite: every group surely moves one way, or surely stays within the
    margin. Supported when some treatment is opposite and of none it is shown that it is not, mixed when
    there are both, contradicted when it is shown of all that they are not.
    """
    claim = "Different groups answer the same quantization in opposite ways."
    apart = _failures(failed)
    own = found[(found["measure"] == "accuracy") & ~found["group"].isin(["OA", "FVO"])]
    if own.empty:
        return Verdict(claim, "undecided", f"No treatment has two models to judge it by.{apart}")
    answers, said = [], []
    for treatment, rows in own.groupby("treatment", sort=False):
        sure = rows["p_holm"] < _SHOWN
        gains, losses = sure & (rows["estimate"] > 0), sure & (rows["estimate"] < 0)
        within = rows["p_within"] < _SHOWN
        opposite = gains.any() and losses.any()
        alike = not opposite and ((gains | within).all() or (losses | within).all())
        answers.append("opposite" if opposite else "alike" if alike else "open")
        numbers = ", ".join(
            f"{row['group']} {points(row['estimate'])}" for row in rows[sure].to_dict("records")
        )
        said.append(f"{treatment} {answers[-1]}: {numbers or 'no group surely'}")
    word: Word = (
        "mixed"
        if {"opposite", "alike"} <= set(answers)
        else "supported"
        if "opposite" in answers
        else "contradicted"
        if set(answers) == {"alike"}
        else "undecided"
    )
    return Verdict(
        claim,
        word,
        "Groups that surely gain or lose, mean change of accuracy in points, paired over up to "
        f"{_count(int(own['n'].max()), 'model')}: {'; '.join(said)}. Sure is what the "
        f"paired t-test shows after correction for {_tested(found[found['family'] == 'group'])} tests a "
        f"treatment.{apart}",
    )


def significant_but_small(found: pd.DataFrame, failed: pd.DataFrame) -> Verdict:
    """Are the changes that are significant small? `found` of `populations.consistency`.

    Judged by the measures of bias. Significant is what the paired t-test shows after correction. Small is a
    change whose interval lies within the margin, large one whose interval lies outside. Supported when there
    are small ones and no large ones, contradicted the other way round, mixed when there are both.
    """
    claim = "Some changes of bias are significant, and those are small."
    apart = _failures(failed)
    found = found[found["family"] == "bias"]
    if found.empty:
        return Verdict(claim, "undecided", f"No treatment has two models to judge it by.{apart}")
    rows = found[found["p_holm"] < _SHOWN]
    small = (rows["lower"] > -rows["margin"]) & (rows["upper"] < rows["margin"])
    large = (rows["lower"] >= rows["margin"]) | (rows["upper"] <= -rows["margin"])
    word: Word = (
        "mixed"
        if small.any() and large.any()
        else "supported"
        if small.any()
        else "contradicted"
        if large.any()
        else "undecided"
    )
    ranked = rows.loc[(rows["estimate"].abs() / rows["margin"]).sort_values(ascending=False).index]
    largest = "; ".join(_moved(row) for row in ranked.head(3).to_dict("records"))
    which = f" Largest against the margin: {largest}." if largest else ""
    return Verdict(
        claim,
        word,
        f"Of {_count(len(found), 'change')}, {len(rows)} are significant; of these {int(small.sum())} surely "
        f"are smaller than the margin ({_margins(found)}), {int(large.sum())} surely are larger.{which}"
        f"{apart}",
    )


def what_rounds(treatments: pd.DataFrame) -> Prose:
    """What each treatment does, and what did it here. `treatments` of `linear_layers.linear_treatments`."""
    return Prose(
        "\n".join(
            f"- `{row['treatment']}`: {row['meaning']}. *Runs* {row['runs']}."
            for row in treatments.to_dict("records")
        )
    )


def who_was_trained(measured: pd.DataFrame, failed: pd.DataFrame, *, classes: int) -> Prose:
    """How many models there are, and what they are worth before anything is rounded.

    `measured` of `populations.measures`, `failed` of `populations.failures`.
    """
    rows = measured[(measured["measure"] == "accuracy") & (measured["treatment"] == "fp32")]
    own = rows[rows["group"] == "OA"]["value"]
    gaps = rows[rows["group"] == "FVO"]["value"]
    random = failed[(failed["treatment"] == "fp32") & (failed["sign"] == "random")]
    doubt = f" Set apart, for they cannot be told from guessing: {len(random)}." if len(random) else ""
    return Prose(
        f"{_count(len(own), 'model')}. In full precision they name {percent(own.mean())} of the images "
        f"right, the worst of them {percent(own.min())} and the best {percent(own.max())}; guessing would "
        f"reach {percent(1 / classes)}. The gap between their groups (FVO) is {100 * gaps.mean():.1f} points "
        f"on average, from {100 * gaps.min():.1f} to {100 * gaps.max():.1f}.{doubt}"
    )


def retrieval(measured: pd.DataFrame) -> pd.DataFrame:
    """Recall at K in both directions, and the share of flips: means over the models, in percent."""
    own = measured[(measured["group"] == "OA") & measured["measure"].str.contains("recall to|flips")]
    table = own.pivot_table(index="treatment", columns="measure", values="value", sort=False) * 100
    order = [name for name in own["measure"].unique() if name != "flips"]
    order += ["flips"] if "flips" in table else []
    table = table[order].round(1)
    table.columns.name = "percent"
    return table


def lost_and_won(counts: pd.DataFrame) -> Prose:
    """Which groups lost more answers than they won. `counts` of `populations.lost_and_won`."""
    said = []
    for treatment, rows in counts.groupby("treatment", sort=False):
        sure = rows[rows["p_holm"] < _SHOWN]
        fewer = [
            f"{row['group']} ({row['lost']} lost, {row['won']} won)"
            for row in sure.to_dict("records")
            if row["lost"] > row["won"]
        ]
        more = [
            f"{row['group']} ({row['won']} won, {row['lost']} lost)"
            for row in sure.to_dict("records")
            if row["lost"] < row["won"]
        ]
        parts = [f"lost by {', '.join(fewer)}"] * bool(fewer) + [f"won by {', '.join(more)}"] * bool(more)
        said.append(f"- `{treatment}`: {'; '.join(parts) or 'no group surely'}")
    return Prose("Answers surely, on these very images:\n\n" + "\n".join(said))


def differs_in_kind(found: pd.DataFrame, failed: pd.DataFrame) -> Verdict:
    """Does quantization do other things to dual encoders than to classifiers of the same images?

    `found` of `populations.beyond_classifiers`: judged by FVO. It differs where the paired t-test finds a
    difference that is not shown to lie within the margin; it is alike where it is shown to. Supported when
    some treatment differs and none is alike, contradicted the other way round, mixed when there are both.
    """
    claim = "Quantization changes the gap between groups otherwise in dual encoders than in classifiers."
    apart = _failures(failed)
    own = found[(found["measure"] == "accuracy") & (found["group"] == "FVO")]
    if own.empty:
        return Verdict(claim, "undecided", f"No treatment has two pairs to judge it by.{apart}")
    alike = own["p_within"] < _SHOWN
    differs = ~alike & (own["p_holm"] < _SHOWN)
    word: Word = (
        "mixed"
        if alike.any() and differs.any()
        else "supported"
        if differs.any()
        else "contradicted"
        if alike.any()
        else "undecided"
    )
    words = [
        "alike" if same else "other" if other else "open" for same, other in zip(alike, differs, strict=True)
    ]
    said = "; ".join(
        f"{row['treatment']} {how}, {_change(row)} points"
        for row, how in zip(own.to_dict("records"), words, strict=True)
    )
    return Verdict(
        claim,
        word,
        f"What FVO changes by in an encoder, less what it changes by in its classifier, over up to "
        f"{_count(int(own['n'].max()), 'pair')}: {said}. Alike: surely within "
        f"{100 * own['margin'].iloc[0]:g} points.{apart}",
    )


def _moved(row: Mapping[Hashable, Any]) -> str:
    """A change with its interval, in points or nats."""
    who = "" if row["group"] == "OA" else f" of {row['group']}"
    ways = f"{row['rises']} models rise, {row['falls']} fall"
    if _in_nats(row["measure"]):
        size = f"{_plain(row['estimate'])} ({_plain(row['lower'])} to {_plain(row['upper'])}) nats"
    else:
        size = f"{_change(row)} points"
    return f"{row['treatment']} {row['measure']}{who} {size}, {ways}"


def _in_nats(measure: str) -> bool:
    return measure.startswith(("MaxSkew", "MinSkew", "NDKL"))


def _margins(found: pd.DataFrame) -> str:
    nats = found["measure"].map(_in_nats)
    said = [f"{100 * margin:g} points" for margin in sorted(set(found.loc[~nats, "margin"]))]
    return ", ".join(said + [f"{margin:g} nats" for margin in sorted(set(found.loc[nats, "margin"]))])


def _tested(found: pd.DataFrame) -> int:
    return int(found.groupby(["treatment", "family"]).size().max())


def _failures(failed: pd.DataFrame) -> str:
    """How many models have failed under which treatment, and how."""
    down = fallen(failed)
    if down.empty:
        return ""
    meaning = {
        "random": "no better than one answer to everything",
        "lost": "lost over a fifth of its accuracy",
    }
    counts = down.groupby(["treatment", "sign"], sort=False).size().rename("count").reset_index()
    said = [f"{row['treatment']} {row['count']} {meaning[row['sign']]}" for row in counts.to_dict("records")]
    return f" Set apart as failed: {'; '.join(said)}."


# ---------------------------------------------------------------- chapter 7: an audit

_MOST_SAID = 8


def audit_verdict(audit: Audit) -> Prose:
    """The word of an audit, and what it rests on."""
    return Prose(f"**{audit.verdict.capitalize()}.** {as_markdown(audit.sentence)}")


def audit_groups(audit: Audit) -> pd.DataFrame:
    """Accuracies before and after, and the points lost with limits that hold for all groups at once."""
    rows = [
        {
            "group": row["group"],
            "images": f"{row['n']:,}",
            "before, %": _hundredths(row["accuracy_before"]),
            "after, %": _hundredths(row["accuracy_after"]),
            "lost, points": points(row["drop"]),
            "from": points(row["drop_simultaneous_lower"]),
            "to": points(row["drop_simultaneous_upper"]),
        }
        for row in audit.tables["groups"].to_dict("records")
    ]
    return pd.DataFrame(rows).set_index("group").rename_axis(None)


def audit_gap(audit: Audit) -> Prose:
    """FVO before and after, who stands at its ends, and whether its rise is sure."""
    said = []
    for grouping in audit.record["groupings"]:
        if len(grouping["groups"]) < 2:
            continue
        before, after, rise = (grouping[f"fvo_{name}"] for name in ("before", "after", "increase"))
        reading = (
            "It surely rose"
            if rise["lower"] > 0
            else "It surely shrank"
            if rise["upper"] < 0
            else "Whether it changed is not decided"
        )
        where = f" by {shown(grouping['name'])}" if len(audit.record["groupings"]) > 1 else ""
        said.append(
            f"FVO{where} was {_hundredths(before['estimate'])} points before, from {shown(before['best'])} "
            f"down to {shown(before['worst'])}, and is {_hundredths(after['estimate'])} after, from "
            f"{shown(after['best'])} down to {shown(after['worst'])}. {reading}: the change is "
            f"{points(rise['estimate'])} points ({points(rise['lower'])} to {points(rise['upper'])})."
        )
    return Prose(as_markdown(" ".join(said) or "There is one group alone, so there is no gap to speak of."))


def audit_flips(audit: Audit) -> Prose:
    """How many predictions changed, in which way, and in which group most."""
    overall = audit.record["overall"]
    groups = [group for grouping in audit.record["groupings"] for group in grouping["groups"]]
    flipped = overall["lost"] + overall["gained"] + overall["changed"]
    if not flipped:
        return Prose(f"Not one of {overall['n']:,} predictions changed.")
    most = max(groups, key=lambda group: group["flip_rate"]["estimate"])
    own = most["flip_rate"]
    text = (
        f"Of {overall['n']:,} predictions {flipped:,} changed: {overall['lost']:,} became wrong, "
        f"{overall['gained']:,} became right, and {overall['changed']:,} went from one wrong answer to "
        f"another. OA shows only the first less the second: {points(-overall['drop']['estimate'])} points."
    )
    if len(groups) > 1:
        text += (
            f" The largest share changed in {shown(most['group'])}: {percent(own['estimate'])} "
            f"({percent(own['lower'])} to {percent(own['upper'])})."
        )
    return Prose(as_markdown(text))


def audit_power(audit: Audit, drop: float) -> Prose:
    """How often a true drop of that size would have been shown in each group, and what it would take."""
    table = audit.power(drop).sort_values("power", kind="stable")
    wanted = audit.record["settings"]["power"]
    enough = int((table["power"] >= wanted).sum())
    reading = (
        "Every group reaches that."
        if enough == len(table)
        else f"{enough or 'None'} of {_count(len(table), 'group')} "
        f"{'reach' if enough > 1 else 'reaches'} that."
    )
    overall = audit.record["overall"]
    quiet = (
        ""
        if overall["lost"] + overall["gained"]
        else " No answer became right or wrong here; where some do, it takes more images."
    )
    lines = [
        f"- **{as_markdown(shown(row['group']))}**, {row['n']:,} images: {_what_it_takes(row, wanted)}"
        for row in table.head(_MOST_SAID).to_dict("records")
    ]
    if len(table) > _MOST_SAID:
        lines.append(f"- The other {len(table) - _MOST_SAID} groups: at least as often.")
    return Prose(
        "\n".join(
            [
                f"If a group had truly lost {_points(drop)}, how often would an audit like this one "
                f"have shown it? Enough is {100 * wanted:.0f} of 100. {reading}{quiet}",
                "",
                *lines,
            ]
        )
    )


def audit_equivalence(audit: Audit) -> Prose:
    """Which groups surely stayed within the margin, up or down."""
    margin = audit.record["settings"]["margin"]
    if margin is None:
        return Prose("No margin was set, so equivalence was not tested.")
    groups = [group for grouping in audit.record["groupings"] for group in grouping["groups"]]
    held = [group["equivalence"]["equivalent"] for group in groups]
    within, open_ = (
        [shown(group["group"]) for group, own in zip(groups, held, strict=True) if own is wanted]
        for wanted in (True, False)
    )
    text = (
        f"{len(within) or 'None'} of {_count(len(groups), 'group')} stayed surely within "
        f"{_points(margin)}, up or down{_listed(within[:_MOST_SAID])}."
    )
    if open_:
        text += (
            f" For {', '.join(open_[:_MOST_SAID])}{' and others' if len(open_) > _MOST_SAID else ''} it "
            "is not shown: either they changed more, or the images are too few to tell."
        )
    return Prose(as_markdown(text))


def audit_gates(audit: Audit) -> Prose:
    """What each gate found, and the exit code that a pipeline sees."""
    found = audit.record["gates"]
    code = 0 if audit.passes() else 1
    if not found:
        return Prose(f"No gate was set. The exit code is {code}.")
    lines = [f"- {as_markdown(gate['sentence'])}" for gate in found]
    return Prose("\n".join([*lines, "", f"The exit code is **{code}**."]))


def audit_card(audit: Audit) -> Prose:
    """The paragraph for a model card, as a quotation."""
    return Prose(f"> {audit.model_card()}")


def audit_untested(audit: Audit) -> Prose:
    """What the audit did not test, in a list."""
    return Prose("\n".join(f"- {as_markdown(sentence)}" for sentence in audit.record["not_tested"]))


def _what_it_takes(row: Mapping[Hashable, Any], wanted: float) -> str:
    if pd.isna(row["images_needed"]):
        return "it was right too rarely to lose so much."
    often = f"in {100 * row['power']:.0f} of 100."
    if row["power"] >= wanted:
        return f"{often} That is enough."
    return f"{often} It takes about {_rounded(row['images_needed'])} images."


def _hundredths(share: float) -> str:
    return f"{100 * share:.1f}"


def _rounded(number: float) -> str:
    """A count to two digits, because more would pretend to know."""
    return f"{float(f'{number:.2g}'):,.0f}"
