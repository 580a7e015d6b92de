"""Tables of the chapter on language: of the network that a page trains, and of those measured before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from fairq_book.chapters.language.questions import Languages, Measure
from fairq_book.chapters.language.treatments import REPAIRED, TREATMENTS, WIDTHS
from fairq_book.kit.tables import student_interval, together
from fairq_utils.language.articles import SHARES, DeclarationSettings, deal
from fairq_utils.language.decoder import ByteDecoder
from fairq_utils.language.jobs.measure import FP32, answers_by_language
from fairq_utils.language.measures import answer_texts
from fairq_utils.language.texts import Texts
from fairq_utils.language.treatments import LanguageTreatment, treat

PLAIN, BY_OUTPUT = "one grid for each tensor", "one for each output"
SLOPES: dict[Measure, str] = {
    "extra": "extra length",
    "flips": "flipped answers",
    "accuracy": "accuracy",
}
# What is done to a network, and against what, by the question that it belongs to.
CAUSES = {
    "int4, plain": ("int4", "fp32"),
    "int4, as sure as before": ("int4-temperature", "fp32"),
    "int4, range of least error": ("int4-mse", "fp32"),
    "… its large weights cut off": ("int4-mse-clipped", "fp32"),
    "… its weights rounded": ("int4-mse-unclipped", "fp32"),
    "int4, range without 0.1 %": ("int4-percentile", "fp32"),
    "int4, all but the ends": ("int4-inside", "fp32"),
    "int4, the ends alone": ("int4-ends", "fp32"),
    "int4, with loud channels": ("int4-scaled4", "fp32"),
    "int3, only the zero bin": ("int3-zeros", "fp32"),
    "int3, all but the zero bin": ("int3-nonzeros", "fp32"),
    "inputs at 8 bits": ("a8", "fp32"),
    "inputs at 4 bits": ("a4", "fp32"),
    "… with loud channels": ("a4-scaled4", "fp32"),
}


def rounded(
    network: ByteDecoder, texts: Texts, bit_widths: Sequence[int], *, channel: bool = False
) -> dict[str, ByteDecoder]:
    """The network in full precision and at each width, by the name of what was done to it."""
    ways = [FP32, *(LanguageTreatment(bits=bits, channel=channel) for bits in bit_widths)]
    return {way.name: treat(way, network, texts) for way in ways}


def of_this_network(
    networks: Mapping[str, ByteDecoder], texts: Texts, settings: DeclarationSettings
) -> pd.DataFrame:
    """What each of these answers, as `measure_language` tells it: a row for each and each language."""
    held = deal(settings.languages, settings.seed, settings.shares)
    answers = {name: answer_texts(one, texts) for name, one in networks.items()}
    found = [
        answers_by_language(answers["fp32"], own).assign(treatment=name, seed=settings.seed)
        for name, own in answers.items()
    ]
    table = pd.concat(found, ignore_index=True)
    return table.assign(share=table["language"].map(held))


def who_holds(texts: Texts, live: pd.DataFrame) -> pd.DataFrame:
    """How much of each language there is, and how well the network says its test articles."""
    own = live[live["treatment"] == "fp32"].set_index("language")
    return pd.DataFrame(
        {
            "share": [f"{own.loc[name, 'share']:g}" for name in texts.languages],
            "training bytes": [sum(map(len, texts.train[name].values())) for name in texts.languages],
            "test bytes": own.loc[list(texts.languages), "bytes"].to_numpy(),
            "bits a byte": (own["nats"] / own["bytes"] / np.log(2))[list(texts.languages)]
            .round(2)
            .to_numpy(),
            "right, %": (100 * own["right"] / own["bytes"])[list(texts.languages)].round(1).to_numpy(),
        },
        index=pd.Index(texts.languages, name="language"),
    )


def costs(live: pd.DataFrame) -> pd.DataFrame:
    """What each width costs each language of one network: a row for a figure of dots, without intervals."""
    own = live.merge(
        live.loc[live["treatment"] == "fp32", ["language", "nats"]], on="language", suffixes=("", "_before")
    )
    own = own[~own["treatment"].isin(["fp32", "int2", "int2-channel"])]
    shown = {
        "flips": own["flips"] / own["bytes"],
        "extra length": own["nats"] / own["nats_before"] - 1,
    }
    parts = [
        pd.DataFrame(
            {
                "width": what,
                "row": own["language"],
                "group": own["treatment"],
                "estimate": values,
                "lower": np.nan,
                "upper": np.nan,
            }
        )
        for what, values in shown.items()
    ]
    return pd.concat(parts, ignore_index=True)


# ---------------------------------------------------------------- the networks that were measured


def slopes_by_width(languages: Languages) -> pd.DataFrame:
    """The slope of each measure at each width and on each grid: a row for a figure of dots."""
    return pd.DataFrame(
        [
            {"width": said, "row": f"int{bits}", "group": grid}
            | student_interval(pd.Series(languages.slope(f"int{bits}{words}", measure)), 0.95)
            for measure, said in SLOPES.items()
            for grid, words in ((PLAIN, ""), (BY_OUTPUT, "-channel"))
            for bits in WIDTHS
            if f"int{bits}{words}" in TREATMENTS
        ]
    )


def causes(languages: Languages) -> pd.DataFrame:
    """The slope of each measure under each intervention: a row for a figure of dots."""
    return pd.DataFrame(
        [
            {"width": "", "row": row, "group": said}
            | student_interval(pd.Series(languages.slope(treatment, measure, control)), 0.95)
            for measure, said in SLOPES.items()
            if measure != "accuracy"
            for row, (treatment, control) in CAUSES.items()
        ]
    )


def by_language(languages: Languages, treatments: Sequence[str] = ("int4", "int3-channel")) -> pd.DataFrame:
    """The change of accuracy of each language, with intervals that hold together over the languages."""
    level = together(len(languages.names))
    return pd.DataFrame(
        [
            {"width": "", "row": name, "group": treatment}
            | student_interval(languages.change(treatment, "accuracy")[name], level)
            for treatment in treatments
            for name in languages.names
        ]
    )


_ARMS = {
    "further training alone": "tuned",
    "… with loss weights": "tuned-weighted",
    "… with even sampling": "tuned-sampled",
    "while rounded": "qat",
    "while rounded, with both": "qat-weighted-sampled",
}


def repairs(languages: Languages) -> pd.DataFrame:
    """What each repair leaves: accuracy over all languages, and its slope, at each width that is repaired."""
    rows = []
    for one in (FP32, *REPAIRED):
        for said, words in {"nothing": "", **_ARMS}.items():
            name = f"{one.name}-{words}".rstrip("-")
            if name not in TREATMENTS:
                continue
            overall = languages.of(name, "accuracy").mean(axis=1)
            slope = languages.steepness(name, "accuracy")
            for what, values in (("accuracy of all", overall), ("slope of accuracy", pd.Series(slope))):
                rows.append({"width": one.name, "row": said, "what": what} | student_interval(values, 0.95))
    return pd.DataFrame(rows)


def steepness(landscape: pd.DataFrame) -> pd.DataFrame:
    """Gradient norms and eigenvalues by the share held: means over languages and networks."""
    own = landscape[landscape["converged"]].rename(columns={"squared_gradient_norm": "squared gradient norm"})
    measures = ["loss", "squared gradient norm", "eigenvalue"]
    table = own.pivot_table(index=["treatment", "share"], values=measures)[measures]
    order = [(name, share) for name in own["treatment"].unique() for share in sorted(SHARES, reverse=True)]
    return table.loc[order].round(2)
