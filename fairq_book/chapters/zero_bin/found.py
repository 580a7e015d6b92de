"""What chapter 3 found, in a few sentences: the zero bin is a symptom of coarse steps."""

from __future__ import annotations

from fairq_book.kit.interventions import Floats, Networks
from fairq_book.kit.told import falls, in_each, tell, told, within
from fairq_book.kit.wording import Prose
from fairq_utils.metrics.verdicts import MARGINS, read


def _both(utkface: Networks, moths: Networks, treatment: str, control: str) -> dict[str, Floats]:
    return {name: own.contrast(treatment, control) for name, own in (("UTKFace", utkface), ("moths", moths))}


def emptying_it_costs(utkface_why: Networks, moths_why: Networks) -> Prose:
    """The zero bin of three bits emptied, and nothing else."""
    values = _both(utkface_why, moths_why, "int3-zeros-bn", "fp32-bn")
    return told(
        "**To empty the zero bin costs the smaller groups more.** Where the weights that three bits round "
        "to zero become zero, all others stay, and batch norm statistics are taken again, they change by "
        f"{in_each(values)} against the largest.",
        holds=all(falls(own) for own in values.values()),
        otherwise="With the zero bin of three bits emptied the smaller groups change, beyond the largest, "
        f"by {in_each(values)}.",
    )


def not_because_they_are_small(utkface_why: Networks, moths_why: Networks) -> Prose:
    """As much squared length at random, and of the largest weights."""
    random = _both(utkface_why, moths_why, "int3-zeros-bn", "int3-bn-norm")
    largest = _both(utkface_why, moths_why, "int3-bn-largest", "int3-zeros-bn")
    return told(
        "**Not because these weights are small.** As much taken from weights at random costs the same to "
        f"less than {100 * MARGINS[3]:.0f} points: {in_each(random)}. And the largest group does not live "
        f"on large weights: as much taken from these makes a difference of {in_each(largest)}.",
        holds=all(within(own, MARGINS[3]) for own in random.values())
        and all(read(own).upper < MARGINS[3] for own in largest.values()),
        otherwise=f"Against as much taken at random the zero bin changes the contrast by {in_each(random)}; "
        f"the largest weights against the zero bin by {in_each(largest)}.",
    )


def it_is_the_step(utkface_why: Networks, moths_why: Networks) -> Prose:
    """The same function on a grid whose steps are four times as wide."""
    wider = _both(utkface_why, moths_why, "int4-bn-scaled4", "int4-bn")
    control = _both(utkface_why, moths_why, "int4-bn-scaled4", "int4-bn-coarser4")
    return told(
        "**It is the width of the step, and bits are only one way to set it.** One loud channel in each "
        "layer leaves the network the same function and makes all steps four times as wide. At the same "
        "four bits, with new batch norm statistics, the smaller groups then lose more, by "
        f"{in_each(wider)}. Against steps as wide without it, the loud channel itself does them no sure "
        f"harm: {in_each(control)}.",
        holds=all(falls(own) for own in wider.values()) and not any(falls(own) for own in control.values()),
        otherwise="With steps four times as wide the smaller groups change, beyond the largest, by "
        f"{in_each(wider)}.",
    )


FOUND = (emptying_it_costs, not_because_they_are_small, it_is_the_step)


def in_short() -> Prose:
    """All of it, one below the other."""
    return tell(*FOUND)
