"""Chapter 1: who pays, and for what."""

from __future__ import annotations

import numpy as np
import pandas as pd

from fairq_utils.claims.wording import (
    Prose,
    Verdict,
    Word,
    counted,
    estimate_of,
    in_points,
    nowhere,
    percent,
    those_standing,
    word_for,
)
from fairq_utils.data import Dataset
from fairq_utils.tables import standing_treatments


def violation_grows(changes: pd.DataFrame, collapse: pd.DataFrame, *, seeds: int) -> Verdict:
    """Does FVO grow as bits fall? Judged only where the networks still tell classes apart.

    `changes` are the records of `tables.change`, with a level that holds for all treatments at
    once; `collapse` those of `tables.collapse`.
    """
    claim = "The gap between the best and the worst served group (FVO) grows as bits fall."
    judged, apart = those_standing(changes[changes["group"] == "FVO"], collapse)
    if judged.empty:
        return nowhere(claim, apart)
    word = word_for(judged)
    said = [f"{row['treatment']} {in_points(row)}" for row in judged.to_dict("records")]
    reading = {
        "supported": "Somewhere FVO surely rises, and nowhere does it surely fall",
        "contradicted": "Somewhere FVO surely falls, and nowhere does it surely rise",
        "mixed": "FVO surely rises at one width and surely falls at another",
        "undecided": "No interval leaves out zero",
    }[word]
    return Verdict(
        claim,
        word,
        f"{reading}. Change of FVO in points against full precision, paired over {counted(seeds, 'seed')}, "
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
        loser = min(groups.to_dict("records"), key=estimate_of)
        own = accuracies[(accuracies["treatment"] == treatment) & accuracies["group"].isin(groups["group"])]
        worst = min(own.to_dict("records"), key=estimate_of)
        if loser["upper"] < 0:
            lost = f"{loser['group']} loses most, {in_points(loser)} points"
        else:
            lost = f"no group surely loses, {loser['group']} most with {in_points(loser)} points"
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
        f"{counted(seeds, 'seed')}: {said}. A network has collapsed that uses less than half as many classes "
        "beyond the first as in full precision.",
    )


def grid_matters(stored: pd.DataFrame) -> Prose:
    """What another way to choose the grid does to OA and FVO at the same width."""
    sentences = []
    width = stored["treatment"].str.extract(r"^int(\d+)")[0]
    for bits, rows in stored[width.notna()].groupby(width[width.notna()].astype(int), sort=False):
        accuracy = rows[rows["group"] == "OA"]
        best = max(accuracy.to_dict("records"), key=estimate_of)
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
    said = "; ".join(
        f"{row['treatment']}, {row['effect']} {in_points(row)}" for row in rows.to_dict("records")
    )
    kinds = effects[~effects["effect"].isin(surely)].drop_duplicates("effect")
    before = ", ".join(f"{row['effect']} {percent(row['before'])}" for row in kinds.to_dict("records"))
    return Verdict(
        claim,
        word,
        f"{reading}{less}. Points that each adds to the change of Others against that of the species, over "
        f"{counted(seeds, 'seed')}, intervals that hold together with 95 %: {said}. Who is seldom right has "
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
