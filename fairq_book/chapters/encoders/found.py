"""What chapter 6 found, in a few sentences: a population of encoders that moves, and moves together."""

from __future__ import annotations

import pandas as pd

from fairq_audit.formats import hundredths
from fairq_book.kit.measured import Measured
from fairq_book.kit.told import together, told
from fairq_book.kit.wording import Prose

_FINE, _COARSE = ("bnb-int8", "int8"), "int4"


def in_short(faces: Measured) -> Prose:
    """All of it, of encoders of faces."""
    return together(nothing_at_eight(faces), alike_at_four(faces), not_the_language(faces))


def _of(faces: Measured, treatment: str, family: str) -> pd.DataFrame:
    table = faces["consistency"]
    return table[(table["treatment"] == treatment) & (table["family"] == family)]


def nothing_at_eight(faces: Measured) -> Prose:
    """Four measures of bias, with the libraries that people use."""
    found = pd.concat([_of(faces, name, "bias") for name in _FINE])
    inside = int((found["p_within"] < 0.05).sum())
    return told(
        f"**At eight bits nothing moves by as much as matters.** Over {faces.networks} encoders of FairFace "
        "every measure of bias surely stays within two points of accuracy, or 0.05 nats of skew, rounded "
        "by bitsandbytes as by this library.",
        holds=inside == len(found) > 0,
        otherwise=f"At eight bits {inside} of {len(found)} changes of bias surely lie within their margins.",
    )


def alike_at_four(faces: Measured) -> Prose:
    """What each group loses at four bits."""
    found = _of(faces, _COARSE, "group")
    own = found[found["measure"] == "accuracy"]
    low, high = (hundredths(-value) for value in (own["estimate"].max(), own["estimate"].min()))
    ranks = _of(faces, _COARSE, "bias")["p_within"]
    sure = ((own["p_holm"] < 0.05) & (own["estimate"] < 0)).all()
    return told(
        f"**At four bits every group loses, and about as much.** All {len(own)} groups surely lose "
        f"accuracy, between {low} and {high} points. Whether some come first for sentences that name "
        "nobody, so few encoders cannot tell.",
        holds=bool(sure and len(own) > 1 and own["estimate"].max() - own["estimate"].min() < 0.01)
        and bool((ranks >= 0.05).any()),
        otherwise=f"At four bits the groups lose between {low} and {high} points of accuracy in the mean.",
    )


def not_the_language(faces: Measured) -> Prose:
    """Encoders against classifiers of the same shape, taught by labels, down to four bits."""
    beyond = faces["beyond_classifiers"]
    gaps = beyond[(beyond["group"] == "FVO") & (beyond["bits"] >= 4)]
    inside = int((gaps["p_within"] < 0.05).sum())
    three = beyond[(beyond["group"] == "FVO") & (beyond["bits"] == 3)]["p_within"]
    return told(
        "**It is not the language.** Down to four bits a classifier of the same shape, taught by labels in "
        "place of captions, changes its gap by as much, to within two points. At three, so few pairs "
        "cannot tell.",
        holds=inside == len(gaps) > 0 and bool((three >= 0.05).all()),
        otherwise=f"At {inside} of {len(gaps)} ways to round to four bits or more the gap of an encoder "
        "surely changes as that of its classifier does.",
    )
