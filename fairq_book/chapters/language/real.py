"""A real language model: what rounding takes from SmolLM2 in sixteen languages, and the questions on it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from fairq_audit.formats import PALETTE, counted, signed, true_minus
from fairq_book.kit.figures import (
    INK,
    Picture,
    caption_of_own_scales,
    drawn,
    label_below,
    legend_above,
    panels_in_rows,
)
from fairq_book.kit.smollm2 import MeasuredModel
from fairq_book.kit.wording import Prose, percent, points, whole_percent
from fairq_utils.errors import BadInput
from fairq_utils.intervals import student, two_sided
from fairq_utils.metrics.verdicts import MARGINS

FULL = "fp32"
WIDTHS = {bits: f"int{bits}-channel" for bits in MARGINS}  # as the questions were registered
_BEST_KNOWN = "English"
_LEFT = 0.5  # of the right tokens; where fewer are left the network has collapsed


# ---------------------------------------------------------------- tables


def by_text(model: MeasuredModel) -> pd.DataFrame:
    """A row for each treatment, language and article, against full precision.

    `bits` that the text took in full precision, `more` that it takes now, `share` of it; `flips`, the share
    of tokens whose most likely one is another; `right` now and `right_before`.
    """
    table = model.answers.copy()
    full = table[table["treatment"] == FULL].set_index(["language", "article"])
    places = pd.MultiIndex.from_frame(table[["language", "article"]])
    nats = full["nats"].reindex(places).to_numpy()
    return table.assign(
        bits=nats / math.log(2),
        more=(table["nats"] - nats) / math.log(2),
        share=table["nats"] / nats - 1,
        flips=table["flips"] / table["tokens"],
        right_before=full["right"].reindex(places).to_numpy(),
    ).drop(columns="nats")


def by_language(texts: pd.DataFrame) -> pd.DataFrame:
    """A row for each treatment and language: the columns of `by_text`, of all articles together."""
    sums = (
        texts.assign(flips=texts["flips"] * texts["tokens"])
        .groupby(["treatment", "language"], sort=False)[
            ["bytes", "tokens", "bits", "more", "flips", "right", "right_before"]
        ]
        .sum()
        .reset_index()
    )
    return sums.assign(share=sums["more"] / sums["bits"], flips=sums["flips"] / sums["tokens"])


def collapsed(languages: pd.DataFrame) -> list[str]:
    """The treatments that leave fewer than half of the tokens right that were right, of all languages."""
    sums = languages.groupby("treatment", sort=False)[["right", "right_before"]].sum()
    return list(sums.index[sums["right"] < _LEFT * sums["right_before"]])


def of_whole_texts(model: MeasuredModel) -> pd.DataFrame:
    """Gradient norm and top eigenvalue of the nats of whole texts, and those of the mean token beside them.

    An eigenvalue that was not reached to within a tenth of its value is missing.
    """
    table = model.landscape.copy()
    reached = table["residual"] <= 0.1 * table["eigenvalue"].abs()
    table["eigenvalue"] = table["eigenvalue"].where(reached)
    for name in ("gradient_norm", "eigenvalue"):
        table[f"{name}_of_token"] = table[name]
        table[name] *= table["tokens"]
    return table


def rank_correlation(
    first: ArrayLike, second: ArrayLike, confidence: float = 0.95
) -> tuple[float, float, float]:
    """Spearman's rank correlation with its interval: Fisher's z, the variance of Bonett and Wright (2000).

    Where all of one side are equal there is none, and it is NaN.

    >>> [round(number, 2) for number in rank_correlation([1, 2, 3, 4, 5, 6], [1, 3, 2, 4, 6, 5])]
    [0.89, 0.07, 0.99]
    """
    pairs = pd.DataFrame({"first": np.asarray(first), "second": np.asarray(second)}).dropna()
    if len(pairs) < 4:
        raise BadInput(f"there are {counted(len(pairs), 'pair')}; expected at least four to rank.")
    if (pairs.nunique() < 2).any():  # nothing to rank by
        return math.nan, math.nan, math.nan
    rho = float(pairs["first"].corr(pairs["second"], method="spearman"))
    inside = min(max(rho, -1 + 1e-9), 1 - 1e-9)
    reach = two_sided(confidence) * math.sqrt((1 + inside**2 / 2) / (len(pairs) - 3))
    return rho, math.tanh(math.atanh(inside) - reach), math.tanh(math.atanh(inside) + reach)


def against_english(
    texts: pd.DataFrame, measure: str, confidence: float = 0.95
) -> tuple[float, float, float]:
    """The mean of the other languages less English, article by article, with Student's interval."""
    wide = texts.pivot_table(index="article", columns="language", values=measure)
    mean, reach = student(wide.drop(columns=_BEST_KNOWN).mean(axis=1) - wide[_BEST_KNOWN], confidence)
    return mean, mean - reach, mean + reach


def answered(model: MeasuredModel) -> pd.DataFrame:
    """The registered questions S1 to S8: a row for each and each treatment that it is asked at.

    `word` is yes, the reverse, open, no difference, or collapsed.
    """
    rows = [
        (question, treatment, *found, _word(found, margin))
        for question, treatment, found, margin in _asked(model)
    ]
    table = pd.DataFrame(rows, columns=["question", "treatment", "estimate", "lower", "upper", "word"])
    none = table["treatment"].isin(collapsed(by_language(by_text(model))))
    return table.assign(
        word=table["word"].mask(none & table["question"].isin(["S1", "S2", "S3", "S4"]), "collapsed")
    )


def _asked(model: MeasuredModel) -> Iterator[tuple[str, str, tuple[float, float, float], float]]:
    texts = by_text(model)
    languages = dict(tuple(by_language(texts).set_index("language").groupby("treatment")))
    known = languages[FULL]["bits"]
    for bits, treatment in WIDTHS.items():
        own, of_texts = languages[treatment].reindex(known.index), texts[texts["treatment"] == treatment]
        for ranked, less, measure in (("S1", "S3", "share"), ("S2", "S4", "flips")):
            yield ranked, treatment, rank_correlation(known, own[measure]), 0.0
            yield less, treatment, against_english(of_texts, measure), MARGINS[bits]
    around = {
        str(treatment): own.reindex(known.index)
        for treatment, own in of_whole_texts(model).set_index("language").groupby("treatment", sort=False)
    }
    for treatment, own in around.items():
        yield "S5", treatment, rank_correlation(known, own["gradient_norm"]), 0.0
        yield "S6", treatment, rank_correlation(known, own["eigenvalue"]), 0.0
    lost, full = languages[WIDTHS[4]]["more"].reindex(known.index), around[FULL]
    yield "S7", WIDTHS[4], rank_correlation(full["gradient_norm"], lost), 0.0
    yield "S8", WIDTHS[4], rank_correlation(full["eigenvalue"], lost), 0.0


def _word(found: Sequence[float], margin: float) -> str:
    _, lower, upper = found
    if -margin < lower and upper < margin:
        return "no difference"
    return "yes" if lower > 0 else "the reverse" if upper < 0 else "open"


def shown(model: MeasuredModel) -> pd.DataFrame:
    """The network before it is rounded: a row for each language, from the one that it knows best.

    Gradient norm and top eigenvalue are those of the nats of article 6. What rounding does to each language
    is the figure.
    """
    languages = by_language(by_text(model))
    known = languages[languages["treatment"] == FULL].set_index("language").sort_values("bits")
    table = pd.DataFrame(
        {
            "tokens": known["tokens"],
            "bytes a token": (known["bytes"] / known["tokens"]).round(1),
            "bits in full": known["bits"].round().astype(int),
            "right, %": (100 * known["right"] / known["tokens"]).round(1),
        }
    )
    around = of_whole_texts(model)
    around = around[around["treatment"] == FULL].set_index("language").reindex(known.index)
    table["gradient norm"] = around["gradient_norm"].round().astype(int)
    table["top eigenvalue"] = around["eigenvalue"].round(-2).astype(int)
    return table


def _standing(languages: pd.DataFrame) -> list[str]:
    """The widths at which the network has not collapsed."""
    there, gone = set(languages["treatment"]), set(collapsed(languages))
    return [treatment for treatment in WIDTHS.values() if treatment in there - gone]


def beside(model: MeasuredModel) -> pd.DataFrame:
    """What each treatment does: a row for each, of all languages, and of English beside the others."""
    texts = by_text(model)
    languages = by_language(texts)
    gone = collapsed(languages)
    rows = []
    for treatment, own in languages[languages["treatment"] != FULL].groupby("treatment", sort=False):
        is_english = own["language"] == _BEST_KNOWN
        rows.append(
            {
                "treatment": treatment,
                "bits more, %": round(100 * own["more"].sum() / own["bits"].sum(), 1),
                "flips, %": round(100 * np.average(own["flips"], weights=own["tokens"]), 1),
                "right of those before, %": round(100 * own["right"].sum() / own["right_before"].sum(), 1),
                "English: bits more, %": round(100 * own.loc[is_english, "share"].mean(), 1),
                "others: bits more, %": round(100 * own.loc[~is_english, "share"].mean(), 1),
                "collapsed": "yes" if treatment in gone else "",
            }
        )
    return pd.DataFrame(rows).set_index("treatment")


# ---------------------------------------------------------------- the figure


_MARKS = {
    "share": ("bits more", {"color": PALETTE[0], "marker": "o"}),
    "flips": ("answers that flip", {"color": PALETTE[1], "marker": "^"}),
}


def picture(model: MeasuredModel) -> Picture:
    """What each width takes from each language: a panel a width, a line a language, best known on top."""
    languages = by_language(by_text(model))
    known = languages[languages["treatment"] == FULL].sort_values("bits")["language"].tolist()
    standing = _standing(languages)
    said = []
    with panels_in_rows(len(standing), 0.17 * len(known) + 0.5, above=0.3, most=2, sharey=True) as (
        figure,
        axes,
    ):
        for axis, treatment in zip(axes, standing, strict=True):
            own = languages[languages["treatment"] == treatment].set_index("language").reindex(known)
            for measure, (_, look) in _MARKS.items():
                axis.plot(100 * own[measure], range(len(known)), linestyle="", markersize=4.5, **look)
            axis.axvline(0, color=INK, linewidth=0.9)
            axis.set_title(treatment.removesuffix("-channel"), fontsize=9.5)
            axis.set_yticks(range(len(known)), known, fontsize=9)
            axis.set_ylim(len(known) - 0.5, -0.5)
            axis.tick_params(axis="y", length=0)
            heard = ", ".join(
                f"{name} {true_minus(f'{100 * share:z.1f}')} and {100 * flips:.1f}"
                for name, share, flips in zip(known, own["share"], own["flips"], strict=True)
            )
            said.append(f"{treatment}, bits more and answers that flip in percent: {heard}.")
        legend_above(figure, {name: look | {"linestyle": ""} for name, look in _MARKS.values()})
        label_below(figure, "percent")
        gone = [name.removesuffix("-channel") for name in WIDTHS.values() if name in collapsed(languages)]
        left_out = f" Left out: {' and '.join(gone)}, where the network has collapsed." if gone else ""
        return drawn(
            figure,
            alt=f"Dot plots. SmolLM2, a line a language, that which it knows best on top. {' '.join(said)}",
            caption="SmolLM2, rounded from a file that has its weights at four bits already. Languages from "
            "the one whose text takes the fewest bits in full precision to the one whose takes most."
            f"{caption_of_own_scales(standing)}{left_out}",
        )


# ---------------------------------------------------------------- sentences, and what has to hold for them


def what_full_means(model: MeasuredModel) -> Prose:
    """What is said first, wherever a number of this model is shown."""
    return Prose(
        "SmolLM2 has 135 million weights, of which the file that is given away keeps four bits each, in "
        "blocks of 32 with a scale and a zero point of their own, and eight of the embedding. So *full "
        "precision* means here: as the file has them. It was taught in English, and may have read the "
        f"Declaration. It is one model, so what follows is one observation. Measured on {model.made}."
    )


def the_average_stands_and_answers_flip(model: MeasuredModel) -> bool:
    """At eight bits no language takes two per cent more bits or fewer, and in each some answers flip."""
    own = _at(model, 8)
    return bool(own["share"].abs().max() < 0.02 and own["flips"].min() > 0.01)


def of_eight_bits(model: MeasuredModel) -> Prose:
    """What eight bits do to the bits of texts, and to answers."""
    own = _at(model, 8)
    least, most = own["flips"].min(), own["flips"].max()
    flips = f"between {percent(least)} and {percent(most)} of the most likely tokens"
    if the_average_stands_and_answers_flip(model):
        return Prose(
            "**At eight bits next to nothing is lost, and answers change all the same.** In no language do "
            f"the bits of the texts change by more than {percent(own['share'].abs().max())}, yet {flips} are "
            "others."
        )
    return Prose(
        f"At eight bits texts take {points(own['share'].min())} to {points(own['share'].max())} % more bits, "
        f"and {flips} are others."
    )


def english_is_spared_at_four_bits_alone(model: MeasuredModel) -> bool:
    """S3 is answered by yes at four bits and surely neither way at more; counted by the token there is "
    nothing."""
    words = _words(model, "S3")
    _, lower, upper = _by_token(model, 4)
    others = {words[bits] for bits in (8, 6, 5)}
    return words[4] == "yes" and not others & {"yes", "the reverse"} and lower < 0 < upper


def of_english(model: MeasuredModel) -> Prose:
    """What English loses beside the fifteen others, at five bits and at four, and what a token loses."""
    said = []
    for bits in (5, 4):
        own = _at(model, bits)["share"]
        others = own.drop(_BEST_KNOWN).mean()
        said.append(f"{whole_percent(own[_BEST_KNOWN])} % more bits, the others {whole_percent(others)} %")
    four = _at(model, 4)
    tokens = four["tokens"].drop(_BEST_KNOWN).mean() / four["tokens"][_BEST_KNOWN]
    more = four["more"] / four["tokens"]
    elsewhere = more.drop(_BEST_KNOWN).mean()
    each = f"{more[_BEST_KNOWN]:.1f} bits a token are lost in English, {elsewhere:.1f} elsewhere"
    if english_is_spared_at_four_bits_alone(model):
        return Prose(
            f"**English is spared at four bits, and not before.** There it takes {said[1]} on average. At "
            f"five bits it takes {said[0]}, and there as at six and eight no difference is sure. Nor is a "
            f"token of it spared: at four bits {each}, where the same text takes {tokens:.0f} times as many "
            "tokens. And the network is near its end by then: of the tokens that it got right "
            f"{whole_percent(_left(model, 4))} % are left."
        )
    return Prose(f"At five bits English takes {said[0]} on average; at four bits {said[1]}, and {each}.")


def _by_token(model: MeasuredModel, bits: int) -> tuple[float, float, float]:
    texts = by_text(model)
    own = texts[texts["treatment"] == WIDTHS[bits]]
    return against_english(own.assign(by_token=own["more"] / own["tokens"]), "by_token")


def no_order_is_sure(model: MeasuredModel) -> bool:
    """Of the rank correlations S1 and S2 none is surely above zero, or below, where the network survives."""
    words = {*_words(model, "S1").values(), *_words(model, "S2").values()}
    return words <= {"open", "collapsed"}


def of_the_order(model: MeasuredModel) -> Prose:
    """Whether languages that the network knows less lose more, by their ranks; in shares and in bits."""
    known = _known(model)
    own = _at(model, 4).reindex(known.index)
    at_four = _between(rank_correlation(known, own["share"]))
    in_bits = _between(rank_correlation(known, own["more"]))
    beside = (
        f"In bits in place of shares it is {in_bits}: where a text takes more bits, there are more of "
        "them to lose."
    )
    if no_order_is_sure(model):
        return Prose(
            "**How little it knows of a language does not tell what share of it is lost.** At no width do "
            "the ranks by bits in full precision surely go with the ranks by the share of bits more, or of "
            f"answers that flip. At four bits the first two correlate by {at_four}; sixteen languages leave "
            f"room for much. {beside}"
        )
    return Prose(
        "At four bits the ranks by bits in full precision and by the share of bits more correlate by "
        f"{at_four}. {beside}"
    )


def _between(found: Sequence[float]) -> str:
    estimate, *ends = (signed(number, 2) for number in found)
    return f"{estimate} (95 %: {ends[0]} to {ends[1]})"


def _known(model: MeasuredModel) -> pd.Series:
    """The bits that each language takes in full precision."""
    languages = by_language(by_text(model))
    return languages[languages["treatment"] == FULL].set_index("language")["bits"]


def steepness_foretells_what_length_does(model: MeasuredModel) -> bool:
    """S7 is answered by yes, the number of tokens foretells no less, and counted by the token nothing is
    sure.
    """
    whole, tokens, by_token = _foretold(model)
    return _words(model, "S7")[4] == "yes" and tokens[0] >= whole[0] and by_token[1] < 0 < by_token[2]


def of_steepness(model: MeasuredModel) -> Prose:
    """Whether the gradient norm and the top eigenvalue in full precision foretell what four bits take."""
    whole, tokens, by_token = map(_between, _foretold(model))
    found = answered(model)
    own = found.loc[found["question"] == "S8", ["estimate", "lower", "upper"]]
    eigenvalue = _between(own.iloc[0].tolist())
    numbers = f"{whole} for the gradient norm and {eigenvalue} for the top eigenvalue"
    if steepness_foretells_what_length_does(model):
        return Prose(
            "**Where the loss of a text is steeper, more is lost, but its length foretells that as well.** "
            "The ranks in full precision correlate with the ranks by the bits that four bits take by "
            f"{numbers}, and by {tokens} for nothing but the number of tokens. Counted by the token it is "
            f"{by_token} for the gradient norm: what it adds to the length is not sure."
        )
    return Prose(
        "The ranks in full precision correlate with the ranks by the bits that four bits take by "
        f"{numbers}, by {tokens} for the number of tokens, and counted by the token by {by_token} for the "
        "gradient norm."
    )


def _foretold(model: MeasuredModel) -> tuple[tuple[float, float, float], ...]:
    """How ranks correlate with those of what four bits take.

    Those by the gradient norm of the whole text and by its tokens, with the bits more; and those by the
    gradient norm of the mean token, with the bits more a token.
    """
    lost, around = _at(model, 4), of_whole_texts(model)
    around = around[around["treatment"] == FULL].set_index("language").reindex(lost.index)
    return (
        rank_correlation(around["gradient_norm"], lost["more"]),
        rank_correlation(lost["tokens"], lost["more"]),
        rank_correlation(around["gradient_norm_of_token"], lost["more"] / lost["tokens"]),
    )


def _at(model: MeasuredModel, bits: int) -> pd.DataFrame:
    languages = by_language(by_text(model))
    return languages[languages["treatment"] == WIDTHS[bits]].set_index("language")


def _left(model: MeasuredModel, bits: int) -> float:
    """Of the tokens that were right, the share that still is."""
    own = _at(model, bits)
    return float(own["right"].sum() / own["right_before"].sum())


def _words(model: MeasuredModel, question: str) -> dict[int, str]:
    """The answers to a question by width."""
    found = answered(model)
    words = found[found["question"] == question].set_index("treatment")["word"]
    return {bits: words[name] for bits, name in WIDTHS.items() if name in words}
