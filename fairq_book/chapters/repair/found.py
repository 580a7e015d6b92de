"""What chapter 5 found, in a few sentences: what repairs rounding, what repairs the gap, and what it "
"costs."""

from __future__ import annotations

from fairq_book.kit.interventions import Floats, Networks
from fairq_book.kit.remedies import gap
from fairq_book.kit.told import falls, in_each, rises, size, tell, told, within
from fairq_book.kit.wording import Prose
from fairq_utils.metrics.verdicts import MARGINS

_WEIGHTED = "int4-ends8-qat-weighted"
_QAT = "int4-ends8-qat"


def _gaps(networks: Networks, after: str, before: str) -> Floats:
    return gap(networks, after) - gap(networks, before)


def training_undoes_rounding(utkface_repair: Networks, moths_repair: Networks) -> Prose:
    """Accuracy after a short training while rounded, at four and at three bits."""
    both = {"UTKFace": utkface_repair, "moths": moths_repair}
    left = {name: own.overall("int3-ends8-qat") - own.overall("fp32") for name, own in both.items()}
    numbers = in_each(left)
    return told(
        "**What rounding does, a short training while rounded undoes.** At three bits the accuracy over "
        f"all images is back to within two points of full precision ({numbers}).",
        holds=all(within(values, 0.02) for values in left.values()),
        otherwise="After training while rounded to three bits accuracy differs from full precision by "
        f"{numbers}.",
    )


def the_gap_wants_weights(utkface_repair: Networks, moths_repair: Networks) -> Prose:
    """Loss weights, with and without rounding."""
    both = {"UTKFace": utkface_repair, "moths": moths_repair}
    narrows = {name: _gaps(own, _WEIGHTED, _QAT) for name, own in both.items()}
    alone = {name: _gaps(own, "fp32-tuned-weighted", "fp32-tuned") for name, own in both.items()}
    cost = {name: own.overall(_QAT) - own.overall(_WEIGHTED) for name, own in both.items()}
    numbers = in_each(narrows)
    unrounded = in_each(alone)
    return told(
        "**The gap that was there before yields to weights in the loss.** They narrow it at four bits "
        f"({numbers}), and without any rounding, too ({unrounded}). The price over all images is "
        f"{size(cost['UTKFace'])} points on UTKFace and {size(cost['moths'])} on moths.",
        holds=all(falls(values) for values in (*narrows.values(), *alone.values())),
        otherwise=f"Loss weights change the gap at four bits by {numbers}, without rounding by {unrounded}.",
    )


def fairqat_overshoots(utkface_repair: Networks, moths_repair: Networks) -> Prose:
    """Weights and sampling together, against either."""
    both = {"UTKFace": utkface_repair, "moths": moths_repair}
    against = {name: _gaps(own, "int4-fairqat", _WEIGHTED) for name, own in both.items()}
    price = {name: own.overall(_WEIGHTED) - own.overall("int4-fairqat") for name, own in both.items()}
    numbers = in_each(against)
    costs = f"{size(price['UTKFace'])} points on UTKFace and {size(price['moths'])} on moths"
    return told(
        "**FairQAT does the same thing twice.** Loss weights let the smallest group count for more, and so "
        f"does sampling. Together they are too much of it. Against weights alone accuracy falls by {costs} "
        f"more, and the gap changes by {numbers}.",
        holds=all(rises(values) for values in price.values()) and rises(against["UTKFace"]),
        otherwise=f"FairQAT against weights alone changes the gap by {numbers}, and costs {costs} more.",
    )


def it_repairs_what_rounding_did_not(utkface_repair: Networks, moths_repair: Networks) -> Prose:
    """FairQAT at eight bits, where rounding has taken nothing."""
    both = {"UTKFace": utkface_repair, "moths": moths_repair}
    values = {name: _gaps(own, "int8-fairqat", "int8-ends8") for name, own in both.items()}
    numbers = in_each(values)
    taken = [_gaps(own, "int8", "fp32") for own in both.values()]
    return told(
        "**And it repairs what rounding never did.** At eight bits, where rounding has changed no gap by a "
        f"point, FairQAT narrows it as well ({numbers}).",
        holds=all(falls(own) for own in values.values()) and all(within(own, MARGINS[8]) for own in taken),
        otherwise=f"At eight bits FairQAT changes the gap by {numbers}.",
    )


FOUND = (
    training_undoes_rounding,
    the_gap_wants_weights,
    fairqat_overshoots,
    it_repairs_what_rounding_did_not,
)


def in_short() -> Prose:
    """All of it, one below the other."""
    return tell(*FOUND)
