"""What chapter 2 found, in a few sentences: the outputs flatten, and that is not what does the harm."""

from __future__ import annotations

import numpy as np

from fairq_book.kit.interventions import Floats, Networks
from fairq_book.kit.told import falls, in_each, rises, share_of, tell, told
from fairq_book.kit.wording import Prose
from fairq_utils.metrics.verdicts import read

_A_POINT = 0.01


def _flatter(networks: Networks, treatment: str) -> Floats:
    """The logarithm of the logit variance against full precision, mean over groups: one number a network."""
    ratios = networks.of(treatment, "logit_variance") / networks.of("fp32", "logit_variance")
    return np.log(ratios).mean(axis=1).to_numpy()


def _percent(values: Floats) -> str:
    """How much less variance that is, in percent."""
    return f"{100 * (1 - np.exp(values.mean())):.0f} %"


def outputs_flatten(utkface_why: Networks) -> Prose:
    """The variance of logits at four and at three bits."""
    four, three = (_flatter(utkface_why, name) for name in ("int4", "int3"))
    fell = int((three < 0).sum())
    return told(
        f"**The outputs do flatten.** At three bits the logits on UTKFace have {_percent(three)} less "
        f"variance, and less in {fell} of {len(three)} networks; at four bits {_percent(four)} less.",
        holds=fell > 0.6 * len(three) and four.mean() < 0,
        otherwise=f"The logits on UTKFace have {_percent(four)} less variance at four bits, "
        f"{_percent(three)} less at three.",
    )


def but_that_changes_no_answer(utkface_why: Networks, moths_why: Networks) -> Prose:
    """A temperature is undone by another one, and no answer moves: what is lost is not lost by it."""
    both = (utkface_why, moths_why)
    same = all(np.array_equal(own.overall("int3-temperature"), own.overall("int3")) for own in both)
    return told(
        "**That alone costs no right answer.** To divide all logits by one number changes their variance "
        "and no answer. So whatever accuracy is lost, flattening has not lost it: outputs also turn.",
        holds=same,
        otherwise="A temperature that is put right changes accuracy here.",
    )


def batch_norm_does_most(utkface_why: Networks, moths_why: Networks) -> Prose:
    """What new statistics bring back at three bits."""
    both = {"UTKFace": utkface_why, "moths": moths_why}
    back = {name: own.overall("int3-bn") - own.overall("int3") for name, own in both.items()}
    lost = {name: own.overall("fp32") - own.overall("int3") for name, own in both.items()}
    shares = {name: 100 * share_of(back[name], lost[name]) for name in both}
    stays = in_each({name: own.contrast("int3-bn", "fp32-bn") for name, own in both.items()})
    return told(
        "**Old batch norm statistics do most of the harm at three bits.** Taken again from a thousand "
        f"images, without training, they bring back {shares['UTKFace']:.0f} % of the lost accuracy on "
        f"UTKFace and {shares['moths']:.0f} % on moths. What stays lost, the smaller groups lose: {stays}, "
        "against the largest.",
        holds=all(rises(values) for values in back.values())
        and min(shares.values()) > 50
        and all(falls(own.contrast("int3-bn", "fp32-bn")) for own in both.values()),
        otherwise=f"New batch norm statistics change the accuracy at three bits by {in_each(back)}; after "
        f"that the smaller groups change, beyond the largest, by {stays}.",
    )


def whose_images_matters(utkface_why: Networks, moths_why: Networks) -> Prose:
    """Statistics of the majority alone against balanced ones."""
    both = {"UTKFace": utkface_why, "moths": moths_why}
    values = {name: own.contrast("int3-bn-majority", "int3-bn-balanced") for name, own in both.items()}
    return told(
        "**It matters whose images they are taken from.** Statistics of the largest group alone, against "
        f"balanced ones, change the smaller groups by {in_each(values)} beyond the largest, in their "
        "favour.",
        holds=all(rises(own) for own in values.values()),
        otherwise="Statistics of the largest group alone, against balanced ones, change the smaller groups "
        f"beyond it by {in_each(values)}.",
    )


def activations_single_nobody_out(utkface_why: Networks, moths_why: Networks) -> Prose:
    """Activations of four bits alone."""
    both = {"UTKFace": utkface_why, "moths": moths_why}
    values = {name: own.contrast("a4") for name, own in both.items()}
    return told(
        "**Rounding the activations instead singles out no smaller group.** At four bits they lose at most "
        f"a point more than the largest: {in_each(values)}.",
        holds=all(read(own).lower > -_A_POINT for own in values.values()),
        otherwise="With activations of four bits the smaller groups change, beyond the largest, by "
        f"{in_each(values)}.",
    )


FOUND = (
    outputs_flatten,
    but_that_changes_no_answer,
    batch_norm_does_most,
    whose_images_matters,
    activations_single_nobody_out,
)


def in_short() -> Prose:
    """All of it, one below the other."""
    return tell(*FOUND)
