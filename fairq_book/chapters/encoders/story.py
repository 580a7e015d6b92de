"""Chapter 6: images and language."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import pandas as pd

from fairq_audit.formats import counted
from fairq_book.chapters.encoders.tables import fallen
from fairq_book.kit.claims import SLYMAN, WIDTH, Claim, Effect, effects_of_population, under_review
from fairq_book.kit.measured import Measured
from fairq_book.kit.wording import Prose, Verdict, Word, in_nats, in_points, percent, points, unsure, word_of
from fairq_utils.encoders.captions import TRAINING_SETS

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
    open_, bound = _in_margins(found)
    word = (
        "supported"
        if none.all()
        else "mixed"
        if consistent.any() and none.any()
        else "contradicted"
        if consistent.any()
        else open_
    )
    counts = [
        f"{rows['treatment'].iloc[0]} {int(none[rows.index].sum())}, {int(consistent[rows.index].sum())} and "
        f"{int((~none & ~consistent)[rows.index].sum())}"
        for _, rows in found.groupby("treatment", sort=False)
    ]
    said = [_moved(row) for row in found[consistent].to_dict("records")]
    which = f" Consistent: {'; '.join(said)}." if said else ""
    margins = _margins(found)
    return Verdict(
        claim,
        word,
        f"Of {counted(len(found), 'change')}, {int(none.sum())} surely lie within the margin ({margins}), "
        f"{int(consistent.sum())} surely have a direction and are not within it. Within it, with a "
        f"direction, and neither, by treatment: {'; '.join(counts)}.{which}{bound * (word == open_)} Paired "
        f"over up to {counted(int(found['n'].max()), of)}, corrected for {_tested(found)} tests a "
        f"treatment.{apart}",
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
    open_, bound = unsure(own)
    word = (
        "mixed"
        if {"opposite", "alike"} <= set(answers)
        else "supported"
        if "opposite" in answers
        else "contradicted"
        if set(answers) == {"alike"}
        else open_
    )
    of_any_group = f" {bound}, of any group." if word == open_ else ""
    return Verdict(
        claim,
        word,
        "Groups that surely gain or lose, mean change of accuracy in points, paired over up to "
        f"{counted(int(own['n'].max()), 'model')}: {'; '.join(said)}.{of_any_group} Sure is what the "
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
    word = word_of(speaks_for=bool(small.any()), speaks_against=bool(large.any()))
    bound = ""
    if word == "undecided":
        word, bound = _in_margins(found)
    ranked = rows.loc[(rows["estimate"].abs() / rows["margin"]).sort_values(ascending=False).index]
    largest = "; ".join(_moved(row) for row in ranked.head(3).to_dict("records"))
    which = f" Largest against the margin: {largest}." if largest else ""
    return Verdict(
        claim,
        word,
        f"{_how_many(found, len(rows))}, {int(small.sum())} of them surely smaller than the margin "
        f"({_margins(found)}) and {int(large.sum())} surely larger.{which}{bound}{apart}"
        if len(rows)
        else f"{_how_many(found, 0)}.{bound}{apart}",
    )


def _in_margins(found: pd.DataFrame) -> tuple[Word, str]:
    """Measures of several units: how many times its margin the farthest of them may change by."""
    in_margins = found.assign(**{end: found[end] / found["margin"] for end in ("lower", "upper")})
    word, bound = unsure(in_margins, "margins")
    return word, f" {bound}."


def _how_many(found: pd.DataFrame, significant: int) -> str:
    are = "is" if significant < 2 else "are"
    return f"{significant or 'None'} of {counted(len(found), 'change')} {are} significant"


def copies(correct: pd.DataFrame) -> Prose:
    """How many models answer as another one does, and so say nothing new, by the table `accuracy_by_seed`."""
    answers = correct.groupby("model", sort=False)["correct"].apply(tuple)
    twice = list(answers.index[answers.duplicated()])
    if not twice:
        return Prose(f"No two of the {len(answers)} models answer alike.")
    return Prose(
        f"Of {len(answers)} models {len(twice)} repeat{'s' * (len(twice) == 1)} another one: as many images "
        "right in every group and under every treatment. What taught the two was the same to them; intervals "
        f"count both, and are too short: {', '.join(twice)}."
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
    whole = rows[rows["group"] == "OA"]
    own = whole["value"]
    taught = whole["model"].str.extract(f"-({'|'.join(TRAINING_SETS)})-", expand=False)
    by_set = own.groupby(taught, sort=False).mean().map(percent)
    sets = ", ".join(f"{name} {mean}" for name, mean in by_set.items())
    gaps = rows[rows["group"] == "FVO"]["value"]
    random = failed[(failed["treatment"] == "fp32") & (failed["sign"] == "random")]
    doubt = f" Set apart, for they cannot be told from guessing: {len(random)}." if len(random) else ""
    return Prose(
        f"{counted(len(own), 'model')}. In full precision they name {percent(own.mean())} of the images "
        f"right, the worst of them {percent(own.min())} and the best {percent(own.max())}; guessing would "
        f"reach {percent(1 / classes)}. By training set: {sets}. The gap between their groups "
        f"(FVO) is {100 * gaps.mean():.1f} points on average, from {100 * gaps.min():.1f} to "
        f"{100 * gaps.max():.1f}.{doubt}"
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
    word = word_of(speaks_for=bool(differs.any()), speaks_against=bool(alike.any()))
    bound = ""
    if word == "undecided":
        word, bound = unsure(own)
        bound = f" {bound}."
    words = [
        "alike" if same else "other" if other else "open" for same, other in zip(alike, differs, strict=True)
    ]
    said = "; ".join(
        f"{row['treatment']} {how}, {in_points(row)} points"
        for row, how in zip(own.to_dict("records"), words, strict=True)
    )
    return Verdict(
        claim,
        word,
        f"What FVO changes by in an encoder, less what it changes by in its classifier, over up to "
        f"{counted(int(own['n'].max()), 'pair')}: {said}. Alike: surely within "
        f"{100 * own['margin'].iloc[0]:g} points.{bound}{apart}",
    )


def _moved(row: Mapping[Hashable, Any]) -> str:
    """A change with its interval, in points or nats."""
    who = "" if row["group"] == "OA" else f" of {row['group']}"
    ways = f"{row['rises']} models rise, {row['falls']} fall"
    if _in_nats(row["measure"]):
        size = f"{in_nats(row['estimate'])} ({in_nats(row['lower'])} to {in_nats(row['upper'])}) nats"
    else:
        size = f"{in_points(row)} points"
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


def _bias(measured: Measured) -> list[Effect]:
    skew = next((name for name in measured["consistency"]["measure"] if str(name).startswith("NDKL")), "")
    wanted = [("bnb-nf4", "accuracy", "FVO"), (WIDTH, "accuracy", "FVO"), (WIDTH, skew, "OA")]
    return effects_of_population(measured, "consistency", wanted)


def _ends_of_groups(measured: Measured) -> list[Effect]:
    rows = measured["consistency"]
    rows = rows[(rows["treatment"] == WIDTH) & (rows["measure"] == "accuracy") & (rows["family"] == "group")]
    ranked = rows.sort_values("estimate", kind="stable")["group"].tolist()
    ends = dict.fromkeys([*ranked[:1], *ranked[-1:]])
    return effects_of_population(measured, "consistency", [(WIDTH, "accuracy", name) for name in ends])


def _gap_beyond(measured: Measured) -> list[Effect]:
    return effects_of_population(measured, "beyond_classifiers", [(WIDTH, "accuracy", "FVO")])


def _of_encoders(judge: Callable[[pd.DataFrame, pd.DataFrame], Verdict]) -> Callable[[Measured], Verdict]:
    return lambda measured: judge(measured["consistency"], measured["failures"])


def _beyond(measured: Measured) -> Verdict:
    both = pd.concat([measured["failures"], measured["classifier_failures"]], ignore_index=True)
    return differs_in_kind(measured["beyond_classifiers"], both)


CLAIMS = (
    Claim(
        "D1",
        "Over a population of models, quantization changes bias in no consistent size or direction.",
        SLYMAN,
        "06_vision_language",
        ("consistency",),
        _of_encoders(no_consistent_change),
        _bias,
        under_review(
            "so few models can hardly show that a skew stays within its margin: “bounded” was to be expected."
        ),
    ),
    Claim(
        "D2",
        "Different groups answer the same quantization in opposite ways.",
        SLYMAN,
        "06_vision_language",
        ("consistency",),
        _of_encoders(groups_oppose),
        _ends_of_groups,
        under_review("it looks at the mean over models, while the claim is about groups within a model."),
    ),
    Claim(
        "D3",
        "Some changes of bias are significant, and those are small.",
        SLYMAN,
        "06_vision_language",
        ("consistency",),
        _of_encoders(significant_but_small),
        _bias,
        under_review(
            "it asks whether a change is significant where so few models can hardly show that one is."
        ),
    ),
    Claim(
        "D4",
        "Quantization changes the gap between groups otherwise in dual encoders than in classifiers.",
        f"{SLYMAN}, as a supposition",
        "06_vision_language",
        ("beyond_classifiers",),
        _beyond,
        _gap_beyond,
    ),
)
