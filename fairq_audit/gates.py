"""Gates: sentences such as `fvo_increase > 0.03`, held against an audit, that let a pipeline pass or fail.

An expression is read by a pattern and never evaluated as code.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from fairq_audit.formats import number, shown
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
        furthest decides. Where rows are missing after, what it is held to must pass as well when they count
        as wrong: else nothing would be easier than to pass, by answering nothing that is hard.
        """
        where, value = max(self._values(record), key=lambda found: found[1][self.decide_on])
        missing = self._with_missing(record)
        ruled_out = missing is None or not self._exceeded(missing["value"])
        passed = not self._exceeded(value[self.decide_on]) and ruled_out
        return {
            "expression": self.expression,
            "quantity": self.quantity.removesuffix("[NAME]"),
            "threshold": self.threshold,
            "decided_on": self.decide_on,
            "where": where,
            "value": {end: value[end] for end in ("estimate", "lower", "upper")},
            "with_missing": missing,
            "passed": passed,
            "sentence": self._sentence(where, value, passed, missing),
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
        for gone in _dropped(record):
            for group in gone.get("groups", []):
                lost = (group["group"], f"{group['grouping']}={group['group']}")
                if self.name in lost and self.name not in known and group["n"] == group["of"]:
                    raise BadInput(
                        f"The gate {self.expression!r} names a group all of whose {group['n']:,} rows are "
                        "missing; expected answers to some of them from both models."
                    )
        if self.name not in known:
            groups = [group["group"] for grouping in record["groupings"] for group in grouping["groups"]]
            raise BadInput(
                f"The gate {self.expression!r} names no group of this audit; expected one of: "
                f"{shown(', '.join(groups), 400)}."
            )
        return known[self.name]

    def _with_missing(self, record: Mapping[str, Any]) -> dict[str, Any] | None:
        """What the quantity would be were the rows that are missing after wrong; None where none matters."""
        for gone in (own for own in _dropped(record) if "right" in own):
            if self.quantity in ("overall_drop", "flip_rate"):
                ((_, now),) = self._values(record)
                n, wrong = record["overall"]["n"], gone["right" if self.quantity == "overall_drop" else "n"]
                value = (n * now[self.decide_on] + wrong) / (n + gone["n"])
                return {"n": gone["n"], "group": None, "value": value}
            found = [
                {"n": group["n"], "group": group["group"], "value": self._of_group(record, group, gone)}
                for group in gone["groups"]
                if self.name in (None, group["group"], f"{group['grouping']}={group['group']}")
            ]
            return max(found, key=lambda own: float(own["value"]), default=None)
        return None

    def _of_group(
        self, record: Mapping[str, Any], group: Mapping[str, Any], gone: Mapping[str, Any]
    ) -> float:
        """The value if the missing rows of one group are wrong, and no other's."""
        (grouping,) = (own for own in record["groupings"] if own["name"] == group["grouping"])
        groups = {own["group"]: own for own in grouping["groups"]}
        own, left = groups.get(group["group"]), group["of"] - group["n"]
        if not self.quantity.startswith("fvo"):
            simultaneous = self.quantity == "worst_group_drop" and self.decide_on == "lower"  # as that has
            end = "simultaneous_lower" if simultaneous else self.decide_on
            return (left * (own["drop"][end] if own else 0.0) + group["right"]) / group["of"]
        after = {name: one["accuracy_after"]["estimate"] for name, one in groups.items()}
        # A group of which nothing is left would be right in nothing.
        fell = after[group["group"]] * group["n"] / group["of"] if own else min(after.values())
        value = grouping[self.quantity][self.decide_on] + fell
        if self.quantity == "fvo_increase":  # of the gap before the missing rows are known
            before = {name: one["accuracy_before"]["estimate"] for name, one in groups.items()}
            whole = dict(before)
            for lost in gone["groups"]:
                if lost["grouping"] == group["grouping"] and lost["group"] in groups:
                    share = lost["n"] / lost["of"]
                    whole[lost["group"]] = (1 - share) * before[lost["group"]] + lost["right"] / lost["of"]
            value += _gap(before) - _gap(whole)
        return float(value)

    def _sentence(
        self, where: str | None, value: Mapping[str, float], passed: bool, missing: Mapping[str, Any] | None
    ) -> str:
        at = f" for {shown(where)}" if where is not None else ""
        lower, estimate, upper = (number(value[end], 4) for end in ("lower", "estimate", "upper"))
        found = f"{shown(self.expression)}: {estimate}{at}, between {lower} and {upper}"
        if missing and not passed and not self._exceeded(value[self.decide_on]):
            of = f" of {shown(missing['group'])}" if missing["group"] is not None else ""
            return (
                f"Failed. {found}; not ruled out: {missing['n']:,} rows{of} are missing, and if they count "
                f"as wrong it is {number(missing['value'], 4)}."
            )
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


def _dropped(record: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The rows that were left out; those that are missing after say how many were right before."""
    found: Sequence[Mapping[str, Any]] = record.get("compared", {}).get("dropped", [])
    return found


def _gap(accuracies: Mapping[str, float]) -> float:
    return max(accuracies.values()) - min(accuracies.values())


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
