"""Chapter 2: logits and the boundary."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from fairq_audit.formats import counted
from fairq_book.kit import tables, wording
from fairq_book.kit.claims import BELLAM, WIDTH, Claim, Effect, effect_in
from fairq_book.kit.measured import Measured
from fairq_book.kit.tables import ALL
from fairq_book.kit.treatments import counterparts
from fairq_book.kit.wording import (
    Prose,
    Verdict,
    Word,
    estimate_of,
    in_points,
    in_units,
    moves,
    nowhere,
    percent,
    those_standing,
    unsure,
    whole_percent,
    word_and_reading,
    word_of,
)

_HALF = 0.5  # of a variance or of a loss: what is under it is the smaller part
_NEGLIGIBLE = 0.01  # a change of variance by less than this share is none
_NULLIFIED = 0.1  # of the variance: with less left of it, nothing is left


def variance_falls(left: pd.DataFrame, collapse: pd.DataFrame, *, seeds: int) -> Verdict:
    """Does the typical logit variance fall below that of the original?

    `left` of `tables.variance_left`, `collapse` of `tables.collapse`. Collapsed networks count, since what
    they say has a variance too; but when they alone decide, the sentence says so.
    """
    claim = "Rounding the weights lowers the variance of the logits."
    rows = _every_image(left)
    falls, rises = rows["upper"] < 1 - _NEGLIGIBLE, rows["lower"] > 1 + _NEGLIGIBLE
    word = word_of(speaks_for=bool(falls.any()), speaks_against=bool(rises.any()))
    readings = {
        "supported": "At some width it surely falls, and at none does it surely rise",
        "contradicted": "At some width it surely rises, and at none does it surely fall",
        "mixed": "It surely falls at one width and surely rises at another",
    }
    if word == "undecided":
        word, bound = unsure(rows, "ratio")
        near = ((rows["lower"] > 1 - _NEGLIGIBLE) & (rows["upper"] < 1 + _NEGLIGIBLE)).all()
        word = "no difference" if near and len(rows) else word
        readings[word] = f"Nowhere does it surely change by more than {percent(_NEGLIGIBLE)}. {bound}"
    reading = readings[word]
    standing, _ = those_standing(rows[falls | rises], collapse)
    if (falls | rises).any() and standing.empty:
        reading += ", and that only where the networks have collapsed onto one answer"
    said = [f"{row['treatment']} {_share(row)}" for row in rows.to_dict("records")]
    return Verdict(
        claim,
        word,
        f"{reading}. Of the typical variance in full precision there is left, over "
        f"{_over(seeds)} and all images, with intervals that hold together: {'; '.join(said)}.",
    )


def logits_are_nullified(left: pd.DataFrame, *, seeds: int) -> Verdict:
    """Is less than a tenth of the typical logit variance left, at two and at three bits? By each width.

    `left` of `tables.variance_left`. Collapsed networks count: it is they that the claim speaks of.
    """
    claim = "At three and at two bits the variance of the logits is nullified."
    rows = _every_image(left)
    parts, said = [], []
    for width in ("int3", "int2"):
        for row in rows[rows["treatment"] == width].to_dict("records"):
            word = word_of(speaks_for=row["upper"] < _NULLIFIED, speaks_against=row["lower"] > _NULLIFIED)
            if word == "undecided":
                word, _ = unsure(pd.DataFrame([row]), "share")
            parts.append(Verdict(f"At {width}.", word, ""))
            said.append(f"{width} {_share(row)}")
    if not parts:
        return Verdict(claim, "undecided", "Neither two nor three bits were asked for.")
    chain = wording.together(claim, parts)
    return replace(
        chain,
        because=f"{chain.because} Nullified is what keeps less than {whole_percent(_NULLIFIED)} % of the "
        f"typical variance in full precision. There is left, over {_over(seeds)} and all images, with "
        f"intervals that hold together over the widths: {'; '.join(said)}.",
    )


def towards_the_boundary(changes: pd.DataFrame) -> Prose:
    """How confidence, margin and loss change over all images; `changes` of `tables.answer_changes`."""
    sentences = []
    for treatment, rows in _every_image(changes).groupby("treatment", sort=False):
        row = rows.set_index("measure").to_dict("index")
        sentences.append(
            f"- **{treatment}**: confidence {moves(row['confidence'])}, "
            f"{in_points(row['confidence'])} points; margin {moves(row['margin'])}, {in_units(row['margin'])}"
            f"; loss {moves(row['loss'])}, {in_units(row['loss'])} nats."
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
    judged, apart = those_standing(beyond, collapse)
    judged = judged.dropna()
    if judged.empty:
        return nowhere(claim, apart)
    readings: dict[Word, str] = {
        "supported": "At some width it surely grows more, and at none does it surely grow less",
        "contradicted": "At some width it surely grows less, and at none does it surely grow more",
        "mixed": "It surely grows more at one width and surely less at another",
    }
    word, reading = word_and_reading(judged, readings, "nats")
    said = [f"{row['treatment']} {in_units(row)}" for row in judged.to_dict("records")]
    last = judged["treatment"].iloc[-1]
    of_groups = changes[(changes["measure"] == "loss") & (changes["group"] != ALL)].dropna()
    most = max(of_groups[of_groups["treatment"] == last].to_dict("records"), key=estimate_of)
    surely = "" if most["lower"] > 0 else ", though not surely"
    return Verdict(
        claim,
        word,
        f"{reading}. Its growth less that of the others, in nats, paired over {_over(seeds)}, with "
        f"intervals that hold together: {'; '.join(said)}. At {last} the loss of {most['group']} grows "
        f"most, by {in_units(most)}{surely}.{apart}",
    )


def temperature_explains(
    explained: pd.DataFrame, changes: pd.DataFrame, collapse: pd.DataFrame, *, seeds: int
) -> Verdict:
    """Does the original, heated to the same variance, gain the loss that the quantized network gains?

    Asked where the quantized network surely gained some: more than half of it, or less? `explained` of
    `tables.loss_explained`, `changes` of `tables.answer_changes`. Of accuracy it cannot be asked: a
    temperature keeps the order of the logits, so it changes no answer, whatever the data.
    """
    claim = "The fall in variance explains the loss that is gained."
    shares, apart = those_standing(_every_image(explained), collapse)
    votes: set[str] = set()
    said, asked = [], []
    for share in shares.to_dict("records"):
        name = share["treatment"]
        if _of(changes, name, "loss")["lower"] > 0:
            votes |= {"for"} if share["lower"] > _HALF else {"against"} if share["upper"] < _HALF else set()
            said.append(f"{name} {_share(share)}")
            asked.append(share)
    word = word_of(speaks_for="for" in votes, speaks_against="against" in votes)
    readings = {
        "supported": "The original at that temperature gains most of it",
        "contradicted": "The original at that temperature gains less than half of it",
        "mixed": "The original at that temperature gains most of it at one width and little at another",
    }
    if said and not votes:
        word, bound = unsure(pd.DataFrame(asked), "share")
        readings[word] = f"The intervals hold both more and less than half. {bound}"
    elif not said:
        losses = _every_image(changes)
        losses = losses[(losses["measure"] == "loss") & losses["treatment"].isin(shares["treatment"])]
        word, bound = unsure(losses, "nats")
        readings[word] = f"No loss is surely gained that could be explained. {bound}"
    reading = readings[word]
    listed = (
        f" Of the loss gained, temperature alone adds, over {_over(seeds)}: {'; '.join(said)}."
        if said
        else ""
    )
    return Verdict(
        claim,
        word,
        f"{reading}.{listed} Lost accuracy it cannot explain: a temperature changes no answer.{apart}",
    )


def variance_stands(left: pd.DataFrame, *, seeds: int) -> Verdict:
    """The break condition: does the variance stay where weights are hardly or not at all rounded?"""
    rows = _every_image(left)
    names = ", ".join(rows["treatment"])
    claim = f"Where weights are not made coarse ({names}), the variance does not collapse."
    stands, falls = (rows["lower"] > _HALF).sum(), (rows["upper"] < _HALF).sum()
    open_, bound = unsure(rows, "share")
    word = (
        "supported"
        if stands == len(rows) > 0
        else "contradicted"
        if falls == len(rows) > 0
        else "mixed"
        if falls
        else open_
    )
    readings = {
        "supported": "Each surely keeps more than half of it",
        "contradicted": "Each surely keeps less than half of it",
        "mixed": "Some surely keep less than half of it, others do not",
    }
    reading = readings.get(word, f"Not all intervals lie above one half, but none lies below it. {bound}")
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
            stays = "stays" if accuracy["estimate"] == 0 else f"moves by {in_points(accuracy)} points"
            sentences.append(
                f"- **{name}**: with the original's variance the loss {moves(loss)}, {in_units(loss)} nats "
                f"against the quantized network as it was; accuracy {stays}."
            )
    return Prose("\n".join(sentences) or "At no width is loss or accuracy surely lost: nothing is to mend.")


def what_statistics_mend(regained: pd.DataFrame, changes: pd.DataFrame, left: pd.DataFrame) -> Prose:
    """What new batch norm statistics give back; `changes` and `left` hold treatments with and without."""
    sentences = []
    plain_of = counterparts(changes, {"batchnorm": False})
    for name in regained["treatment"].unique():
        plain = plain_of[name]
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
            f"{_share(variance[name])}. Accuracy changes by {in_points(before)} points against full "
            f"precision, with new statistics by {in_points(after)}.{back}"
        )
    return Prose("\n".join(sentences))


def who_flips(flips: pd.DataFrame, *, smallest: str) -> Prose:
    """How often answers flip near the boundary and far from it; `flips` of `tables.flips`."""
    parts = flips["part"].max()
    sentences = []
    for name, rows in flips.groupby("treatment", sort=False):
        every = rows[rows["group"] == ALL].set_index("part").to_dict("index")
        own = rows[(rows["group"] == smallest)].set_index("part").to_dict("index")
        ends = [rows[rows["part"] == part].set_index("group") for part in (1, parts)]
        nearer = ends[0]["lower"] > ends[1]["upper"].reindex(ends[0].index)
        where = "more often near the boundary" if nearer[ALL] else "not surely more often near the boundary"
        alone = nearer.drop(ALL)
        if nearer[ALL] and not alone.all():
            # Groups that lie at other distances make a slope over all that none of them has.
            where += f", but within only {alone.sum()} of {counted(len(alone), 'group')} so"
        sentences.append(
            f"- **{name}**: {_share(every[0])} of the answers flip, {where}: {_share(every[1])} of the "
            f"nearest tenth, {_share(every[parts])} of the farthest. Of {smallest}, {_share(own[0])} flip, "
            f"and {percent(own[1]['answers'] / own[0]['answers'])} of its images lie in the nearest tenth."
        )
    return Prose("\n".join(sentences))


def _every_image(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["group"] == ALL]


def _of(table: pd.DataFrame, treatment: str, measure: str) -> dict[Hashable, Any]:
    rows = _every_image(table)
    return rows[(rows["treatment"] == treatment) & (rows["measure"] == measure)].to_dict("records")[0]


def _over(seeds: int) -> str:
    return counted(seeds, "seed") if seeds > 1 else "1 seed (what others would do is unknown)"


def _share(record: Mapping[Hashable, Any]) -> str:
    """A share with its interval, where it has one."""
    texts = [whole_percent(record[name]) for name in ("estimate", "lower", "upper")]
    missing = record["lower"] != record["lower"]
    return f"{texts[0]} %" if missing else f"{texts[0]} % ({texts[1]} to {texts[2]})"


def _logits(measured: Measured) -> list[Effect]:
    every = {"treatment": WIDTH, "group": tables.ALL}
    smallest = measured["loss_beyond_others"]["group"].iloc[0]
    return [
        effect_in(measured, "variance_left", f"logit variance left at {WIDTH}", "share", every),
        effect_in(
            measured,
            "loss_beyond_others",
            f"loss that {smallest} gains beyond the others",
            "nats",
            {"treatment": WIDTH},
        ),
        effect_in(
            measured, "loss_explained", "of what all lose, the fall in variance explains", "share", every
        ),
    ]


def _judge_logits(measured: Measured) -> Verdict:
    collapse = measured["collapse"]
    return wording.together(
        "Quantization lowers logit variance, and that is why loss grows, most for minorities.",
        [
            variance_falls(measured["variance_left"], collapse, seeds=measured.seeds),
            loss_falls_on(
                measured["loss_beyond_others"], measured["answer_changes"], collapse, seeds=measured.seeds
            ),
            temperature_explains(
                measured["loss_explained"], measured["answer_changes"], collapse, seeds=measured.seeds
            ),
        ],
    )


def _nullified(measured: Measured) -> list[Effect]:
    found = []
    for width in ("int3", "int2"):
        where = {"treatment": width, "group": tables.ALL}
        own = effect_in(measured, "variance_statistics", f"logit variance left at {width}", "share", where)
        found.append(replace(own, threshold=_NULLIFIED))
    return found


CLAIMS = (
    Claim(
        "A2",
        "Quantization lowers logit variance, and that is why loss grows, most for minorities.",
        BELLAM,
        "02_logit_variance_collapse",
        ("variance_left", "loss_explained"),
        _judge_logits,
        _logits,
    ),
    Claim(
        "A7b",
        "A sign of failure: at int3 and at int2 the variance of the logits is nullified.",
        BELLAM,
        "02_logit_variance_collapse",
        ("variance_statistics",),
        lambda measured: logits_are_nullified(measured["variance_statistics"], seeds=measured.seeds),
        _nullified,
    ),
)
