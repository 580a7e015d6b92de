"""Chapter 3: the zero bin."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import pandas as pd

from fairq_audit.formats import counted
from fairq_book.kit.claims import BELLAM, Claim, Effect, effect_in, under_review
from fairq_book.kit.measured import Measured
from fairq_book.kit.tables import ALL
from fairq_book.kit.wording import (
    Prose,
    Verdict,
    Word,
    as_sentence,
    estimate_of,
    in_brackets,
    in_nats,
    in_points,
    in_units,
    moves,
    percent,
    points,
    together,
    word_and_reading,
)

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
        groups = sorted(rows[rows["group"] != ALL].to_dict("records"), key=estimate_of, reverse=True)
        pay = [f"{row['group']} ({in_units(row)})" for row in groups if row["lower"] > 0]
        if pay:
            payer = f"{' and '.join(pay)} surely pay{'s' * (len(pay) == 1)}"
        elif every["lower"] > 0:
            payer = f"which groups pay cannot be told, {groups[0]['group']} most ({in_units(groups[0])})"
        else:
            payer = "no loss surely rises"
        accuracy = _row(changes, name, "accuracy", group)
        used = ""
        if collapse is not None:
            classes = collapse.set_index("treatment")["effective_classes"]
            used = f" Classes in use: {classes[name]:.1f}, before {classes['fp32']:.1f}."
        sentences.append(
            f"- **{name}**: the loss of {group} {moves(own)} ({in_units(own)} nats), that of all images "
            f"{moves(every)} ({in_units(every)}); {payer}. Accuracy of {group}: {in_points(accuracy)} "
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
        f"{in_nats(zeros + rest)} nats; both done together give {in_nats(whole)}."
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
            f"- **{name}**{note}: {_better(own)} for {group} ({in_units(own)} nats), {_better(every)} for "
            f"all images ({in_units(every)})."
        )
    count = len(sentences)
    return Prose(
        "\n".join(sentences)
        + f"\n\nHeld against {reference}, {len(better)} of {count} are surely better for "
        f"{group}{in_brackets(better)} and {len(worse)} surely worse{in_brackets(worse)}."
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
            f"{in_nats(rows['estimate'].mean())} nats more."
        )
    if not sentences:
        return Prose(f"There are too few images to compare {group} with the rest.")
    by_luck = 0.05 * len(table["layer"].unique())
    compared = [
        f"What {group} pays more than the rest is larger with the zero bin than when "
        f"{'as much length' if row['measure'] == 'norm' else 'as many weights'} of that layer went at random "
        f"in {row['rises']} of {row['n']} layers (sign test, p = {row['p']:.2f})."
        for row in signs.to_dict("records")
    ]
    return Prose(
        "\n".join(sentences)
        + f"\n\nIn each line about {by_luck:.0f} of these intervals would leave out zero "
        f"by luck alone; {counted(seeds, 'seed')}. {' '.join(compared)} "
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
    answers: dict[Word, str] = {"supported": "yes", "contradicted": "no, surely the opposite"}
    verdicts, said = [], []
    for part, claim in claims.items():
        row = parts[parts["part"] == part].iloc[0]
        word, bound = word_and_reading(pd.DataFrame([row]), answers, "nats")
        verdicts.append(Verdict(claim, word, ""))
        number = (
            f" ({in_units(row.to_dict())})" if pd.notna(row["estimate"]) else " (nothing to compare with)"
        )
        said.append(f"{claim}: {bound[0].lower()}{bound[1:]}{number}")
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
        f"{as_sentence('; '.join(said))}. In nats, "
        f"paired over {counted(seeds, 'seed')}, with intervals that hold together with 95 %. "
        f"Accuracy under {emptied}, in points: {group} {in_points(own)}, all images {in_points(every)}."
        + (" One network says nothing of others: the intervals cover other images only." * (seeds == 1)),
    )


def _row(table: pd.DataFrame, treatment: str, measure: str, group: str) -> dict[Hashable, Any]:
    own = (table["treatment"] == treatment) & (table["measure"] == measure) & (table["group"] == group)
    return table[own].to_dict("records")[0]


def _better(record: Mapping[Hashable, Any]) -> str:
    better, worse = record["upper"] < 0, record["lower"] > 0
    return "surely better" if better else "surely worse" if worse else "no sure difference"


def _zero_bin(measured: Measured) -> list[Effect]:
    return [
        effect_in(measured, "zero_parts", "emptying the zero bin adds to its loss", "nats", {"part": "harm"}),
        effect_in(measured, "zero_parts", "beyond as long a change at random", "nats", {"part": "norm"}),
    ]


def _judge_zero_bin(measured: Measured) -> Verdict:
    return small_weights_are_needed(
        measured["zero_parts"],
        measured["zero_changes"],
        measured["zero_collapse"],
        f"int{measured.take_apart}",
        seeds=measured.seeds,
    )


CLAIMS = (
    Claim(
        "A5",
        "The zero bin empties small weights that minorities need.",
        BELLAM,
        "03_zero_bin_sparsity",
        ("zero_parts",),
        _judge_zero_bin,
        _zero_bin,
        under_review(
            "it is asked at four bits alone, where rounding may harm too little for a cause to be seen. At "
            "three bits other networks answer, as W13 to W16 among the interventions."
        ),
    ),
)


def how_far_layers_reach(layers: pd.DataFrame, *, networks: int) -> Prose:
    """The layers that reach least and farthest, and farther than Gaussians; of `tables.reach_by_layer`."""
    far = layers["mean"]
    beyond = int((layers["least"] > layers["gaussian"]).sum())
    farther = f"{beyond} of {counted(len(far), 'layer')} reach farther than as many Gaussian weights would"
    return Prose(
        f"In the mean over {counted(networks, 'network')}, `{far.idxmin()}` reaches {far.min():.1f} standard "
        f"deviations and `{far.idxmax()}` {far.max():.1f}; half of them reach more than "
        f"{far.median():.1f}. In every network {farther}. Where a layer reaches twice as far, a plain grid "
        "has steps twice as wide."
    )


def reach_in_a_table(layers: pd.DataFrame) -> pd.DataFrame:
    """`tables.reach_by_layer` for a reader."""
    shown = {
        "weights": layers["weights"].map("{:,}".format),
        "mean": layers["mean"].map("{:.1f}".format),
        "over networks": [
            f"{low:.1f} to {high:.1f}" for low, high in zip(layers["least"], layers["most"], strict=True)
        ],
        "a Gaussian's": layers["gaussian"].map("{:.1f}".format),
    }
    return pd.DataFrame(shown, index=layers.index)
