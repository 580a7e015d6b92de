"""What chapter 4 found, in a few sentences: the loss of small groups is steeper, and that tells little."""

from __future__ import annotations

import pandas as pd

from fairq_audit.formats import number
from fairq_book.chapters.landscape import norms
from fairq_book.kit.interventions import Networks
from fairq_book.kit.told import falls, in_points, tell, told
from fairq_book.kit.wording import Prose, with_interval


def _row(table: pd.DataFrame, treatment: str, row: str) -> dict[str, float]:
    (own,) = table[(table["treatment"] == treatment) & (table["row"] == row)].to_dict("records")
    return {end: float(own[end]) for end in ("estimate", "lower", "upper")}


def _times(row: dict[str, float]) -> str:
    return with_interval(lambda value: number(value, 1), row["estimate"], row["lower"], row["upper"])


def steeper_for_being_small(
    moths_equal_steep: Networks,
    moths_by_size_steep: Networks,
    moths_by_difficulty_steep: Networks,
    moths_by_both_steep: Networks,
) -> Prose:
    """What size adds to the squared gradient norm, and what difficulty does."""
    kinds = [moths_equal_steep, moths_by_size_steep, moths_by_difficulty_steep, moths_by_both_steep]
    table = norms.by_kind(kinds)
    small, hard = (_row(table, "fp32", row) for row in ("what being small adds", "what being hard adds"))
    return told(
        "**The loss of small groups is steeper, and mostly because they are small.** Where nothing but its "
        f"number sets a group of moths apart, that adds {_times(small)} times the squared gradient norm of "
        f"a peer. Where it is hard to tell instead, that adds {_times(hard)} times as much.",
        holds=small["lower"] > 0 and hard["estimate"] > 0 and small["lower"] > hard["estimate"],
        otherwise=f"In full precision being small adds {_times(small)} times the squared gradient norm of a "
        f"peer, being hard {_times(hard)} times.",
    )


def but_it_pays_no_more(moths_steep: Networks, moths_why: Networks) -> Prose:
    """The gradient norm of minorities in full precision, and what they lose at four bits."""
    level = _row(norms.by_inputs(moths_steep), "fp32", "level")
    lost = moths_why.contrast("int4")
    return told(
        "**But steeper groups need not lose more.** On the default moths the gradient of the smaller "
        f"groups is {_times(level)} times as long as that of the largest; at four bits they change by "
        f"{in_points(lost)} points beyond it. What a step costs depends on where it goes, and a norm only "
        "says how much it could cost.",
        holds=level["lower"] > 1 and not falls(lost),
        otherwise=f"The gradient of the smaller moths is {_times(level)} times as long as that of the "
        f"largest; at four bits they change by {in_points(lost)} points beyond it.",
    )


def rounding_inputs_flattens(moths_steep: Networks) -> Prose:
    """Activations of four bits alone."""
    after = _row(norms.by_inputs(moths_steep), "a4", "fp32")
    return told(
        "**Rounding the activations does not sharpen it for them.** With activations of four bits the "
        f"gradient of the smaller groups, in times the largest's, is {_times(after)} times what it was: a "
        "little shorter.",
        holds=after["upper"] < 1,
        otherwise="With activations of four bits the gradient of the smaller groups, in times the "
        f"largest's, is {_times(after)} times what it was.",
    )


FOUND = (steeper_for_being_small, but_it_pays_no_more, rounding_inputs_flattens)


def in_short() -> Prose:
    """All of it, one below the other."""
    return tell(*FOUND)
