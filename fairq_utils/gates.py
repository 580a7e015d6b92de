"""Gates: sentences such as `fvo_increase > 0.03`, held against an audit, that let a pipeline pass or fail.

An expression is read by a pattern and never evaluated as code.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from fairq_utils.errors import BadInput

DecideOn = Literal["lower", "estimate", "upper"]

QUANTITIES = {
    "overall_drop": "accuracy lost over all images",
    "worst_group_drop": "the largest accuracy lost by a group",
    "group_drop[NAME]": "the accuracy lost by one group",
    "fvo_increase": "by how much the gap between the best and the worst group rose",
    "fvo_after": "that gap after",
    "flip_rate": "the share of images whose prediction changed",
}

_EXPRESSION = re.compile(
    r"\s*(?P<quantity>[a-z_]+)\s*(?:\[(?P<name>.+)\])?\s*(?P<sign>>=?)\s*(?P<threshold>[-+]?[0-9.]+)\s*", re.S
)


@dataclass(frozen=True)
class Gate:
    """What must not be exceeded, and by which end of the interval that is decided.

    >>> parse("worst_group_drop > 0.02").threshold
    0.02
    """

    expression: str
    quantity: str
    name: str | None
    threshold: float
    or_equal: bool
    decide_on: DecideOn

    def _exceeded(self, value: float) -> bool:
        return value >= self.threshold if self.or_equal else value > self.threshold

    def judge(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """What the gate makes of an audit's record: the entry under `gates`.

        Where there are several groupings, FVO is held to the gate in each, and the one that comes
        furthest decides.
        """
        where, value = max(self._values(record), key=lambda found: found[1][self.decide_on])
        passed = not self._exceeded(value[self.decide_on])
        return {
            "expression": self.expression,
            "quantity": self.quantity.removesuffix("[NAME]"),
            "threshold": self.threshold,
            "decided_on": self.decide_on,
            "where": where,
            "value": {end: value[end] for end in ("estimate", "lower", "upper")},
            "passed": passed,
            "sentence": self._sentence(where, value, passed),
        }

    def _values(self, record: Mapping[str, Any]) -> Iterator[tuple[str | None, Mapping[str, float]]]:
        if self.quantity == "overall_drop":
            yield None, record["overall"]["drop"]
        elif self.quantity == "flip_rate":
            yield None, record["overall"]["flip_rate"]
        elif self.quantity == "worst_group_drop":
            yield record["worst_group_drop"]["group"], record["worst_group_drop"]
        elif self.quantity == "group_drop[NAME]":
            yield self.name, self._group(record)["drop"]
        else:
            several = [own for own in record["groupings"] if len(own["groups"]) > 1]  # one has no gap
            for grouping in several or record["groupings"]:
                yield grouping["name"], grouping[self.quantity]

    def _group(self, record: Mapping[str, Any]) -> Mapping[str, Any]:
        known = {
            name: group
            for grouping in record["groupings"]
            for group in grouping["groups"]
            for name in (group["group"], f"{grouping['name']}={group['group']}")
        }
        namesakes = [
            f"{grouping['name']}={self.name}"
            for grouping in record["groupings"]
            if any(group["group"] == self.name for group in grouping["groups"])
        ]
        if len(namesakes) > 1:
            raise BadInput(
                f"The gate {self.expression!r} names a group of several columns; expected one of: "
                f"{', '.join(namesakes)}."
            )
        if self.name not in known:
            groups = [group["group"] for grouping in record["groupings"] for group in grouping["groups"]]
            raise BadInput(
                f"The gate {self.expression!r} names no group of this audit; expected one of: "
                f"{shown(', '.join(groups), 400)}."
            )
        return known[self.name]

    def _sentence(self, where: str | None, value: Mapping[str, float], passed: bool) -> str:
        at = f" for {shown(where)}" if where is not None else ""
        lower, estimate, upper = (_number(value[end]) for end in ("lower", "estimate", "upper"))
        found = f"{shown(self.expression)}: {estimate}{at}, between {lower} and {upper}"
        if not passed:
            reason = {
                "lower": "it is surely beyond",
                "estimate": "the estimate is beyond",
                "upper": "it cannot be ruled out",
            }[self.decide_on]
            return f"Failed. {found}; {reason}."
        if self._exceeded(value["upper"]):
            return f"Passed, but not ruled out. {found}."
        return f"Passed. {found}."


def _number(value: float) -> str:
    return f"{value:.4f}".replace("-", "−")


def parse(expression: str, decide_on: str = "lower") -> Gate:
    """Read a gate: a quantity, > or >=, and a fraction.

    >>> parse("group_drop[elm] > 0.05").name
    'elm'
    >>> parse("accuracy < 0.9")
    Traceback (most recent call last):
        ...
    fairq_utils.errors.BadInput: The gate 'accuracy < 0.9' cannot be read; expected QUANTITY > FRACTION,
    such as fvo_increase > 0.03, where the quantity is one of: overall_drop, worst_group_drop,
    group_drop[NAME], fvo_increase, fvo_after, flip_rate.
    """
    found = _EXPRESSION.fullmatch(expression)
    quantity = found["quantity"] + ("[NAME]" if found["name"] is not None else "") if found else None
    try:
        threshold = float(found["threshold"]) if found else None
    except ValueError:  # such as 0.0.3
        threshold = None
    if found is None or quantity not in QUANTITIES or threshold is None:
        raise BadInput(
            f"The gate {expression!r} cannot be read; expected QUANTITY > FRACTION, such as "
            f"fvo_increase > 0.03, where the quantity is one of: {', '.join(QUANTITIES)}."
        )
    if not -1 < threshold < 1:
        raise BadInput(
            f"The gate {expression!r} has the threshold {threshold:g}; expected a fraction between −1 and 1: "
            "0.03 for three points."
        )
    return Gate(
        expression=expression.strip(),
        quantity=quantity,
        name=found["name"],
        threshold=threshold,
        or_equal=found["sign"] == ">=",
        decide_on=check_end(decide_on),
    )


def check_end(decide_on: str) -> DecideOn:
    """The end of the interval by which gates are decided, if it is one.

    >>> check_end("upper")
    'upper'
    """
    for end in get_args(DecideOn):
        if decide_on == end:
            return end
    raise BadInput(
        f"decide_on is {decide_on!r}; expected lower (fail when surely beyond), estimate (when the estimate "
        "is beyond) or upper (when it cannot be ruled out)."
    )


def shown(text: str, longest: int = 60) -> str:
    """A name that somebody else chose, as it may stand in a sentence: in one line, and not endless.

    >>> shown("a\\nb\\x1b[31m")
    'a b [31m'
    """
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line if len(line) <= longest else line[: longest - 1] + "…"
