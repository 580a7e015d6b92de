"""What is asked of languages besides: numbers of each network, judged together over the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fairq_book.chapters.language.questions import HALVINGS, Languages, Measure
from fairq_utils.metrics.by_network import slopes_within
from fairq_utils.metrics.verdicts import Reading, over_a_page, read

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Asked:
    """A number of each network; `in_points`, or a factor in logarithms to the base of two."""

    said: str
    number: Callable[[Languages, pd.DataFrame], Floats]
    in_points: bool = True


def _slope(treatment: str, measure: Measure, control: str = "fp32") -> Callable[..., Floats]:
    return lambda languages, _: languages.slope(treatment, measure, control)


def _relative(treatment: str) -> Callable[..., Floats]:
    def number(languages: Languages, _: pd.DataFrame) -> Floats:
        before, after = languages.of("fp32", "bits"), languages.of(treatment, "bits")
        return HALVINGS * slopes_within(after / before - 1, languages.halvings)

    return number


def _of_language(name: str, treatment: str) -> Callable[..., Floats]:
    return lambda languages, _: languages.change(treatment, "accuracy")[name].to_numpy()


def _logarithm(treatment: str, measure: Measure) -> Callable[..., Floats]:
    def number(languages: Languages, _: pd.DataFrame) -> Floats:
        ratio = languages.of(treatment, measure) / languages.of("fp32", measure)
        return HALVINGS * slopes_within(np.log2(ratio), languages.halvings)

    return number


def _around(treatment: str, measure: str) -> Callable[..., Floats]:
    """The slope of a squared gradient norm, as a share of its mean, or of the logarithm of an eigenvalue."""

    def number(languages: Languages, landscape: pd.DataFrame) -> Floats:
        own = landscape[landscape["treatment"] == treatment]
        wide = own.pivot_table(index="seed", columns="language", values=measure)[languages.names]
        values = np.log2(wide) if measure == "eigenvalue" else wide / wide.to_numpy().mean()
        return HALVINGS * slopes_within(values, languages.halvings)

    return number


def _doubt(treatment: str) -> Callable[..., Floats]:
    """How many times as often answers in doubt flip as others do, as a logarithm to the base of two."""

    def number(languages: Languages, _: pd.DataFrame) -> Floats:
        own = languages.table[languages.table["treatment"] == treatment]
        sums = own.groupby("seed")[["bytes", "flips", "doubted", "flips_in_doubt"]].sum()
        within = sums["flips_in_doubt"] / sums["doubted"]
        beyond = (sums["flips"] - sums["flips_in_doubt"]) / (sums["bytes"] - sums["doubted"])
        return np.log2((within / beyond).to_numpy())

    return number


def _times_as_many(narrow: str, wide: str) -> Callable[..., Floats]:
    def number(languages: Languages, _: pd.DataFrame) -> Floats:
        flips = [languages.of(name, "flips").mean(axis=1) for name in (narrow, wide)]
        return np.log2((flips[0] / flips[1]).to_numpy())

    return number


def _overall(treatment: str, measure: Measure) -> Callable[..., Floats]:
    return lambda languages, _: languages.change(treatment, measure).mean(axis=1).to_numpy()


def asked(names: list[str]) -> dict[str, Asked]:
    """Everything that is secondary, by a key."""
    found: dict[str, Asked] = {}
    for treatment in ("int4-channel", "int3-channel"):
        for measure in ("extra", "flips", "accuracy"):
            found[f"{treatment} {measure}"] = Asked("slope", _slope(treatment, measure))
    for treatment in ("int4", "int3"):
        found[f"{treatment} relative"] = Asked("slope of the own extra length", _relative(treatment))
        found[f"{treatment}-temperature extra"] = Asked("slope", _slope(f"{treatment}-temperature", "extra"))
        found[f"{treatment} logit variance"] = Asked("slope", _logarithm(treatment, "logit_variance"), False)
        found |= {f"{treatment} {name}": Asked("accuracy", _of_language(name, treatment)) for name in names}
    pairs = [(f"int3-{half}", "fp32") for half in ("zeros", "nonzeros")]
    pairs += [(f"int4-{part}", "fp32") for part in ("mse-clipped", "mse-unclipped", "inside", "ends")]
    pairs += [("a8", "fp32"), ("a4", "fp32")]
    pairs += [("int4-mse", "int4"), ("int4-percentile", "int4"), ("int3-mse", "int3")]
    pairs += [("int4-scaled4", "int4"), ("a4-scaled4", "a4")]
    both: tuple[Measure, ...] = ("extra", "flips")
    for treatment, control in pairs:
        for measure in both:
            number = _slope(treatment, measure, control)
            found[f"{treatment} {measure}"] = Asked(f"slope, against {control}", number)
    for start in ("fp32", "int4"):
        for words in ("weighted", "sampled"):
            number = _slope(f"{start}-tuned-{words}", "accuracy", f"{start}-tuned")
            found[f"{start}-tuned-{words} accuracy"] = Asked("slope, against tuned", number)
    for start in ("int4", "int3-channel"):
        number = _slope(f"{start}-qat-weighted-sampled", "accuracy", f"{start}-tuned")
        found[f"{start}-qat-weighted-sampled accuracy"] = Asked("slope, against tuned", number)
    for treatment in ("fp32", "int4", "int3-channel"):
        found[f"{treatment} gradient"] = Asked("slope", _around(treatment, "squared_gradient_norm"))
        found[f"{treatment} eigenvalue"] = Asked("slope", _around(treatment, "eigenvalue"), False)
    for treatment in (
        "int4-scaled4",
        "a4-scaled4",
        "a4",
        "int4",
        "int4-temperature",
        "int3-temperature",
        "int3",
    ):
        found[f"{treatment} extra of all"] = Asked("extra length", _overall(treatment, "extra"))
    for start in ("int4", "int3-channel"):
        for words in ("tuned", "qat", "qat-weighted-sampled"):
            number = _overall(f"{start}-{words}", "accuracy")
            found[f"{start}-{words} accuracy of all"] = Asked("accuracy", number)
    for treatment in ("int4", "int3"):
        found[f"{treatment} flips of all"] = Asked("flips", _overall(treatment, "flips"))
        found[f"{treatment} accuracy of all"] = Asked("accuracy", _overall(treatment, "accuracy"))
        found[f"{treatment} in doubt"] = Asked("times as often", _doubt(treatment), False)
    found["int4 against int8"] = Asked("times as many flips", _times_as_many("int4", "int8"), False)
    return found


def readings(languages: Languages, landscape: pd.DataFrame) -> Mapping[str, Reading]:
    """The word on each, with a false discovery rate of 5 % over all of them."""
    questions = asked(languages.names)
    alone = [read(one.number(languages, landscape)) for one in questions.values()]
    return dict(zip(questions, over_a_page(alone), strict=True))
