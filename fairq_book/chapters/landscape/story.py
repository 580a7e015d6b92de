"""Chapter 4: the landscape of the loss."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from fairq_audit.formats import counted, signed
from fairq_book.chapters.landscape import tables
from fairq_book.chapters.landscape.tables import (
    AS_MEASURED,
    LESS_SAMPLING,
    MINORITIES,
    SMALLEST_TO_OTHERS,
)
from fairq_book.kit import wording
from fairq_book.kit.claims import BELLAM, TRAN, WIDTH, Claim, Effect, effect_in_row, shown_widths
from fairq_book.kit.measured import Measured
from fairq_book.kit.tables import ALL, Ends
from fairq_book.kit.wording import (
    Prose,
    Verdict,
    Word,
    as_sentence,
    nowhere,
    percent,
    those_standing,
    unsure,
    whole_percent,
    word_for,
    word_of,
)
from fairq_utils.metrics.ranks import rank_agreement


def who_is_compared(ends: Ends, table: pd.DataFrame, split: str) -> Prose:
    """Between which groups, on how many images of each, and of which split."""
    least, most = table["n"].min(), table["n"].max()
    count = f"{least}" if least == most else f"{least} to {most}"
    if ends.most == ends.fewest:
        sizes = f"All have {ends.most:,} training images, so that no group is a minority here"
    else:
        sizes = (
            f"**{ends.largest}** has the most training images, {ends.most:,}, and **{ends.smallest}** the "
            f"fewest, {ends.fewest:,}"
        )
    few = " That is few: read every number below with care." if least < 30 else ""
    images = "training images" if split == "train" else f"{split} images"
    return Prose(f"{sizes}. Everything below is measured on {count} {images} of each group.{few}")


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


def larger_for_minorities(
    ratios: pd.DataFrame, measure: str, ends: Ends, collapse: pd.DataFrame, *, seeds: int
) -> Verdict:
    """Have minorities the larger gradient norm, or top eigenvalue? By `tables.minorities_to_majority`.

    One width decides: four bits, at which the paper looks. What other widths show, and the smallest group
    by itself, stands beside it and decides nothing.
    """
    name = _AROUND[measure]
    return _at_the_paper_s_width(
        f"Minority groups have a larger {name} than the majority.",
        ratios[(ratios["measure"] == measure) & (ratios["of"] == "level")],
        f"The {name} of the minorities, in times that of {ends.largest}, is",
        ends,
        collapse,
        seeds=seeds,
    )


def less_sampling(steepness: pd.DataFrame, ratios: pd.DataFrame, ends: Ends, collapse: pd.DataFrame) -> Prose:
    """How much of the squared gradient norms is sampling, and how steep minorities are without it.

    By `tables.steepness` and `tables.steepness_ratios`.
    """
    judged, apart = those_standing(ratios, collapse)
    means = steepness.pivot_table(
        index=["treatment", "group"], columns="measure", values="estimate", sort=False
    )
    sampled = 1 - means[LESS_SAMPLING] / means[AS_MEASURED]
    lines = []
    for treatment, own in judged.groupby("treatment", sort=False):
        here = sampled.loc[treatment]
        others = here.drop(ends.largest)
        least, most = whole_percent(others.min()), whole_percent(others.max())
        line = (
            f"- **{treatment}**: sampling is {whole_percent(here[ends.largest])} % of the squared gradient "
            f"norm of {ends.largest}, and {least if least == most else f'{least} to {most}'} % of that of "
            "the other groups."
        )
        if ends.most > ends.fewest:
            of = own[own["who"] == MINORITIES].set_index("measure").to_dict("index")
            line += (
                f" Less it, the minorities' is {_times(of[LESS_SAMPLING])} times that of {ends.largest}; as "
                f"measured, {_times(of[AS_MEASURED])} times."
            )
        lines.append(line)
    return Prose("\n".join(lines) + (f"\n\n{apart.strip()}" if apart else ""))


def sharpened_for_minorities(
    ratios: pd.DataFrame, ends: Ends, collapse: pd.DataFrame, *, seeds: int
) -> Verdict:
    """Does rounding raise the top eigenvalue of minorities more? By `tables.minorities_to_majority`.

    One width decides, as for `larger_for_minorities`.
    """
    return _at_the_paper_s_width(
        "Quantization sharpens the loss of minority groups more than that of the majority.",
        ratios[(ratios["measure"] == "eigenvalue") & (ratios["of"] == "rise")],
        f"Rounding multiplies the top eigenvalue of the minorities, in times that of {ends.largest}, by",
        ends,
        collapse,
        seeds=seeds,
    )


def steep_where_hard(ranks: pd.DataFrame) -> Prose:
    """Do gradient norm and eigenvalue say more of a group than its loss does? By `tables.with_loss`."""
    sentences = []
    for treatment, own in ranks.groupby("treatment", sort=False):
        groups = int(own["groups"].iloc[0])
        said = "; ".join(f"{_AROUND[row['measure']]} {_correlation(row)}" for row in own.to_dict("records"))
        sure = own[(own["lower"] > 0) & (own["groups"] >= _FEWEST_TO_RANK)]
        alike = [_AROUND[measure] for measure in sure["measure"]]
        reading = f", surely positive for {' and '.join(alike)}" if alike else ""
        sentences.append(f"- **{treatment}**, over {counted(groups, 'group')}: {said}{reading}.")
    return Prose(
        "How the loss of a group goes with its steepness, as rank correlations:\n\n" + "\n".join(sentences)
    )


def sharper_generalize_worse(landscape: pd.DataFrame, generalization: pd.DataFrame, *, seeds: int) -> Verdict:
    """Do the more curved groups lose more between training and test images? In full precision.

    Judged once, by means over networks: in however many networks, five groups are five data.
    """
    claim = "The groups whose loss is more curved generalize worse."
    reached = landscape[(landscape["treatment"] == "fp32") & landscape["converged"]]
    curved = reached.assign(log=np.log(reached["eigenvalue"])).groupby("group", sort=False)["log"].mean()
    own = generalization[generalization["treatment"] == "fp32"]
    gaps = own.groupby("group", sort=False)["gap"].mean()
    groups = [name for name in curved.index if name in gaps.index]
    if len(groups) < _FEWEST_TO_RANK:
        return Verdict(claim, "undecided", f"A ranking of {counted(len(groups), 'group')} says nothing.")
    found = rank_agreement([curved[groups]], [gaps[groups]])
    surely = found.p < 0.05
    word = word_of(speaks_for=surely and found.rho > 0, speaks_against=surely and found.rho < 0)
    said = ", ".join(f"{name} {np.exp(curved[name]):.3g} and {100 * gaps[name]:.1f}" for name in groups)
    return Verdict(
        claim,
        word,
        f"Top eigenvalue, and points by which accuracy on training images is higher than on test images, "
        f"means of {counted(seeds, 'network')}: {said}. Rank correlation {signed(found.rho, 2)}, p = "
        f"{found.p:.2f} by permuting the groups, which are {len(groups)} data in however many networks.",
    )


def sharpens(ratios: pd.DataFrame, ends: Ends, collapse: pd.DataFrame, *, seeds: int) -> Verdict:
    """Does rounding raise the top eigenvalue of the groups? By `tables.to_full_precision`."""
    claim = "Quantization raises the top eigenvalue."
    own = ratios[ratios["measure"] == "eigenvalue"]
    judged, apart = those_standing(own[own["group"] == ALL], collapse)
    reading: dict[Word, str] = {
        "supported": "At some width it surely does, and at none does it surely lower it",
        "contradicted": "At some width it surely lowers it, and at none does it surely raise it",
        "mixed": "It surely does at one width, and surely lowers it at another",
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
    judged, apart = those_standing(own, collapse)
    if len(judged):  # the other one of each pair has to stand as well
        both, fallen = those_standing(judged.assign(treatment=judged["reference"]), collapse)
        judged, apart = judged.loc[both.index], apart or fallen
    reading: dict[Word, str] = {
        "supported": "Flatter at some width for sure, and sharper at none",
        "contradicted": "Sharper at some width for sure, and flatter at none",
        "mixed": "Flatter at one width for sure, and sharper at another",
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


def bound_tells_who_is_hurt(bounds: pd.DataFrame, collapse: pd.DataFrame, *, seeds: int) -> Verdict:
    """Does the bound rank the groups as the excess loss does? `bounds` of `tables.bounds`.

    Judged once, by means over networks and widths: in however many networks, five groups are five data.
    """
    claim = "The Taylor bound ranks the groups by what rounding costs them."
    judged, apart = those_standing(bounds.dropna(subset=["bound", "excess"]), collapse)
    if judged.empty:
        return nowhere(claim, apart)
    means = judged.groupby("group", sort=False)[["bound", "excess"]].mean()
    groups = counted(len(means), "group")
    if len(means) < _FEWEST_TO_RANK:
        return Verdict(
            claim,
            "undecided",
            f"A ranking of {groups} says nothing: chance alone gets it right half of the time. At least "
            f"{_FEWEST_TO_RANK} are needed.",
        )
    found = rank_agreement([means["bound"]], [means["excess"]])
    surely = found.p < 0.05
    word = word_of(speaks_for=surely and found.rho > 0, speaks_against=surely and found.rho < 0)
    reading = {
        "supported": "The ranks agree more than chance explains",
        "contradicted": "The ranks are opposed more than chance explains",
    }.get(word, f"The order of {groups} would be as like, or as opposed, by chance often enough")
    ranks = tables.rank_correlations(judged)
    single = ranks[(ranks["forecast"] == "bound") & (ranks["outcome"] == "excess")]
    said = "; ".join(f"{row['treatment']} {_correlation(row)}" for row in single.to_dict("records"))
    return Verdict(
        claim,
        word,
        f"{reading}: rank correlation {signed(found.rho, 2)}, p = {found.p:.2f} by permuting the groups. "
        f"{as_sentence(groups)} are as many data, in however many networks. Within single networks, mean of "
        f"{counted(seeds, 'seed')}: {said}.{_of_one_seed(seeds)}{apart}",
    )


def how_tight(bounds: pd.DataFrame, ranks: pd.DataFrame) -> Prose:
    """How far the bound lies above the excess loss, and how the parabola along the way does instead."""
    sentences = []
    for treatment, own in bounds.groupby("treatment", sort=False):
        broken = int((own["excess"] > own["bound"]).sum())
        kept = f"it is broken {counted(broken, 'time')}" if broken else "no excess loss is above it"
        share = (own["curvature_term"] / own["bound"]).median()
        error = (own["parabola"] - own["excess"]).abs().median()
        most, least = own["excess"].max(), own["excess"].min()
        spared = f" (and the largest gain {-least:.2g})" if least < 0 else ""
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
            f"{percent(share)} of it curvature; the largest excess loss is {_signed(most)}{spared}, and "
            f"{kept}. The parabola misses the excess loss by {error:.3f} in the median. Rank correlations: "
            f"{ranked}."
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
            f"{means['excess'].max():+z.3f} nats; {there}. Rank correlation over "
            f"{counted(rank['parts'], 'part')}: {_correlation(rank)}."
        )
    missed = int((~parts["converged"]).sum())
    left = f"\n\nLeft out, as not reached: {counted(missed, 'eigenvalue')}." if missed else ""
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


def how_far_out(spectra: pd.DataFrame) -> Prose:
    """How the largest eigenvalue stands out of the bulk, and whether any are below zero."""
    sentences = []
    for (treatment, group), own in spectra.groupby(["treatment", "group"], sort=False):
        values = np.sort(own["eigenvalue"])
        below = f"the lowest is {_short(values[0])}" + (", so this is no minimum" if values[0] < 0 else "")
        sentences.append(
            f"- **{treatment}, {group}**: the largest is {_short(values[-1])}, the next one "
            f"found {_short(values[-2])}; {below}."
            if len(values) > 1
            else f"- **{treatment}, {group}**: the only one found is {_short(values[0])}."
        )
    return Prose("\n".join(sentences))


_AROUND = {"gradient_norm": "gradient norm", "eigenvalue": "top eigenvalue"}
_OUTCOMES = {"excess": "excess loss", "excess_test": "excess loss on the test images"}
_FEWEST_TO_RANK = 3
_PAPERS_WIDTH = "int4"
_LARGER: dict[Word, str] = {
    "supported": "surely above one",
    "contradicted": "surely below one",
}


def decides(treatments: Sequence[str]) -> str:
    """Of these the one that decides a claim on minorities: four bits; where nobody asked, the narrowest.

    >>> decides(["fp32", "int8", "int4", "int3"]), decides(["fp32", "int6", "int5"])
    ('int4', 'int5')
    """
    return _PAPERS_WIDTH if _PAPERS_WIDTH in treatments else treatments[-1]


def _at_the_paper_s_width(
    claim: str, ratios: pd.DataFrame, said: str, ends: Ends, collapse: pd.DataFrame, *, seeds: int
) -> Verdict:
    """A verdict from the minorities' ratio at one width; all else that there is, said beside it."""
    if ends.most == ends.fewest:
        return Verdict(claim, "undecided", "There is no minority: all groups have as many training images.")
    judged, apart = those_standing(ratios, collapse)
    known = judged.dropna(subset="estimate")
    if known.empty:
        return nowhere(claim, apart)
    width = decides(list(known["treatment"].unique()))
    decisive = known[(known["treatment"] == width) & (known["who"] == MINORITIES)]
    if decisive.empty:
        return nowhere(claim, apart)
    word, reading = _of_ratios(decisive, _LARGER)
    (row,) = decisive.to_dict("records")
    others = known[(known["who"] == MINORITIES) & (known["treatment"] != width)].to_dict("records")
    beside = [f"{own['treatment']} {_times(own)}" for own in others]
    narrowest = known["treatment"].iloc[-1]
    of_smallest = known[known["treatment"] == narrowest].set_index("who").to_dict("index")
    if ends.smallest in of_smallest:
        beside.append(f"of {ends.smallest} alone at {narrowest} {_times(of_smallest[ends.smallest])}")
    if SMALLEST_TO_OTHERS in of_smallest:
        beside.append(f"in times the other minorities {_times(of_smallest[SMALLEST_TO_OTHERS])}")
    said_beside = f" Beside it, each interval by itself: {'; '.join(beside)}." if beside else ""
    left_out = int(known.loc[known["who"] == MINORITIES, "left_out"].sum())
    without = f" Left out, as not reached or not above 0: {counted(left_out, 'value')}." if left_out else ""
    return Verdict(
        claim,
        word,
        f"{said} {_times(row)} at {width}, paired over {counted(seeds, 'seed')}: "
        f"{reading[0].lower()}{reading[1:]}. This width decides.{said_beside}"
        f"{_of_one_seed(seeds)}{without}{apart}",
    )


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
        return nowhere(claim, apart)
    word, said_of_it = _of_ratios(known, reading, lower_is_better=lower_is_better)
    left_out = int(known["left_out"].sum())
    without = f" Left out, as not reached or not above 0: {counted(left_out, 'value')}." if left_out else ""
    numbers = "; ".join(f"{row['treatment']} {_times(row)}" for row in known.to_dict("records"))
    return Verdict(
        claim,
        word,
        f"{said_of_it}. {said}, paired over {counted(seeds, 'seed')}, intervals that hold together with "
        f"95 %: {numbers}.{_of_one_seed(seeds)}{without}{apart}",
    )


def _of_ratios(
    rows: pd.DataFrame, readings: Mapping[Word, str], *, lower_is_better: bool = False
) -> tuple[Word, str]:
    logs = rows[["lower", "upper"]].apply(np.log)
    if lower_is_better:
        logs = -logs.rename(columns={"lower": "upper", "upper": "lower"})
    word = word_for(logs)
    return (word, readings[word]) if word in readings else unsure(rows, "ratio")


def _short(value: float) -> str:
    return (f"{value:,.0f}" if abs(value) >= 10 else f"{value:.2f}").replace("-", "−")


def _signed(nats: float) -> str:
    return f"{nats:+.2g}".replace("-", "−")


def _of_one_seed(seeds: int) -> str:
    return "" if seeds > 1 else " Of one seed there is no interval, so nothing is decided."


def _times(record: Mapping[Hashable, Any]) -> str:
    """A ratio, with its interval where it has one."""
    if np.isinf(record["lower"]):
        return f"{record['estimate']:.2f} (no bounds)"
    texts = [f"{record[name]:.2f}" for name in ("estimate", "lower", "upper")]
    return f"{texts[0]} ({texts[1]} to {texts[2]})" if record["lower"] == record["lower"] else texts[0]


def _correlation(record: Mapping[Hashable, Any]) -> str:
    """A mean of correlations; its interval by Student may reach beyond what a correlation can be."""
    if record["estimate"] != record["estimate"]:
        return "none to be had"
    texts = [signed(np.clip(record[name], -1, 1), 2) for name in ("estimate", "lower", "upper")]
    return f"{texts[0]} ({texts[1]} to {texts[2]})" if record["lower"] == record["lower"] else texts[0]


def _rounding_only(measured: Measured) -> pd.DataFrame:
    """The landscape without what chapter 5 adds: with 8 bits in the first and the last layer."""
    table = measured["landscape"]
    return table[~table["ends8"]]


def _to_majority(measured: Measured) -> pd.DataFrame:
    return tables.minorities_to_majority(_rounding_only(measured), measured.ends)


def _larger(measured: Measured, measure: str) -> Verdict:
    return larger_for_minorities(
        _to_majority(measured), measure, measured.ends, measured["collapse"], seeds=measured.seeds
    )


def _judge_curvature(measured: Measured) -> Verdict:
    sharper = sharpened_for_minorities(
        _to_majority(measured), measured.ends, measured["collapse"], seeds=measured.seeds
    )
    chain = wording.together(
        "Minority groups have a larger top Hessian eigenvalue, and quantization sharpens it further.",
        [_larger(measured, "eigenvalue"), sharper],
    )
    return replace(chain, because=f"{chain.because} {sharper.because}")


def _gradient(measured: Measured) -> list[Effect]:
    return [
        _show_ratio(measured, "gradient_norm", who, "level", treatment)
        for treatment in (WIDTH, "fp32")
        for who in (tables.MINORITIES, measured.ends.smallest)
    ]


def _curvature(measured: Measured) -> list[Effect]:
    widths = shown_widths(measured, measured["landscape"])
    found = [_show_ratio(measured, "eigenvalue", tables.MINORITIES, "rise", width) for width in widths]
    found.append(_show_ratio(measured, "eigenvalue", tables.MINORITIES, "level", WIDTH))
    for who in (measured.ends.smallest, tables.SMALLEST_TO_OTHERS):
        found.append(_show_ratio(measured, "eigenvalue", who, "rise", widths[-1]))
    return found


def _show_ratio(measured: Measured, measure: str, who: str, of: str, treatment: str) -> Effect:
    ends = measured.ends
    pair = {
        tables.MINORITIES: f"minorities to {ends.largest}",
        ends.smallest: f"{ends.smallest} to {ends.largest}",
        tables.SMALLEST_TO_OTHERS: f"{ends.smallest} to the other minorities",
    }[who]
    where = "in full precision" if treatment == "fp32" else f"at {treatment}"
    says = f"{pair}, {where}" if of == "level" else f"{pair}, what rounding does {where}"
    row = {"treatment": treatment, "measure": measure, "who": who, "of": of}
    return effect_in_row(measured, "landscape", _to_majority(measured), says, "times", row)


def _plain_rounding_bounds(measured: Measured) -> pd.DataFrame:
    table = measured["bounds"]
    return table[~table["ends8"]]


def _bound(measured: Measured) -> list[Effect]:
    row = {"treatment": WIDTH, "forecast": "bound", "outcome": "excess"}
    says = f"rank correlation of bound and excess loss at {WIDTH}"
    ranks = tables.rank_correlations(_plain_rounding_bounds(measured))
    return [effect_in_row(measured, "bounds", ranks, says, "rank", row)]


CLAIMS = (
    Claim(
        "A3",
        "Minority groups have larger gradient norms.",
        BELLAM,
        "04_hessian_landscape",
        ("landscape",),
        lambda measured: _larger(measured, "gradient_norm"),
        _gradient,
    ),
    Claim(
        "A4",
        "Minority groups have a larger top Hessian eigenvalue, and quantization sharpens it further.",
        BELLAM,
        "04_hessian_landscape",
        ("landscape",),
        _judge_curvature,
        _curvature,
    ),
    Claim(
        "Tran",
        "Gradient norm and curvature of a group bound what it loses, and so tell who is hurt.",
        TRAN,
        "04_hessian_landscape",
        ("bounds",),
        lambda measured: bound_tells_who_is_hurt(
            _plain_rounding_bounds(measured), measured["collapse"], seeds=measured.seeds
        ),
        _bound,
    ),
)
