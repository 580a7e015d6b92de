"""Gates: sentences such as `fvo_increase > 0.03`, compared with an audit, that let a pipeline pass or fail.

An expression is read by a pattern and never evaluated as code.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from fairq_audit.arguments import one_of
from fairq_audit.formats import number, shown
from fairq_audit.quantities import QUANTITIES, VERDICTS
from fairq_audit.rates import limits
from fairq_utils.errors import BadInput
from fairq_utils.intervals import able_to_show, simultaneous

DecideOn = Literal["lower", "estimate", "upper"]
DECIDE_ON: dict[DecideOn, str] = {
    "lower": "fail when surely beyond",
    "estimate": "when the estimate is beyond",
    "upper": "when it cannot be ruled out",
}
Value = Mapping[str, Any]

_OF_CLASS = {
    "worst_recall_drop": "recall",
    "recall_drop": "recall",
    "fpr_rise": "fpr",
    "precision_drop": "precision",
}
_BELOW = ("selection_rate_ratio",)  # of these too little is bad

_EXPRESSION = re.compile(
    r"\s*(?P<quantity>[a-z_]+)\s*(?:\[(?P<name>.+)\])?\s*(?P<sign>[<>]=?|!?=)\s*(?P<threshold>[^\s<>=!]+)\s*",
    re.S,
)
_NUMBER = re.compile(r"(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)(?P<percent>%?)", re.I)


@dataclass(frozen=True)
class Gate:
    """What must not be exceeded, and by which end of the interval that is decided.

    `threshold`: a fraction; of a gate on the verdict, one of its words.

    >>> parse("worst_group_drop > 0.02").threshold
    0.02
    """

    expression: str
    quantity: str
    name: str | None
    sign: str
    threshold: float
    word: str | None
    decide_on: DecideOn

    def _exceeded(self, value: float) -> bool:
        if self.sign.startswith("<"):
            return value <= self.threshold if self.sign == "<=" else value < self.threshold
        return value >= self.threshold if self.sign == ">=" else value > self.threshold

    def _end(self, end: str) -> str:
        """The end of an interval that is nearest to harm, or furthest from it, whichever way harm lies."""
        turned = {"lower": "upper", "upper": "lower", "estimate": "estimate"}
        return turned[end] if self.sign.startswith("<") else end

    def _worst(self, found: Sequence[tuple[str | None, Value]], end: str) -> tuple[str | None, Value]:
        pick = min if self.sign.startswith("<") else max
        return pick(found, key=lambda one: one[1][end])

    def judge(self, record: Mapping[str, Any], rates: pd.DataFrame | None = None) -> dict[str, Any]:
        """What the gate makes of an audit's record: the entry under `gates`. `rates`: those of its classes.

        It has one of three outcomes. *Failed*: the quantity is beyond, by the end of the interval that
        decides. *Passed*: no end of any of the intervals is beyond. *Not ruled out*: neither, so that nobody
        knows.

        Where there are several groupings, a gap is held to the gate in each, and each that is not ruled out
        is named. Where rows are missing after, what it is held to must pass as well when they count as wrong:
        else nothing would be easier than to pass, by answering nothing that is hard.
        """
        if self.word is not None:
            return self._judged_verdict(record["verdict"]["word"])
        found = self._values(record, rates)
        if not found:
            return self._judged_nothing(self._unseen(record, rates))
        where, value = self._worst(found, self._end(self.decide_on))
        failed = self._exceeded(value[self._end(self.decide_on)])
        open_ = [one for one in found if self._exceeded(one[1][self._end("upper")])]
        if not failed:  # the largest is what a reader asks for, however sure another is
            where, value = self._worst(found, "estimate")
        missing = self._with_missing(record, where, value)
        beyond = missing is not None and missing["value"] is not None and self._exceeded(missing["value"])
        unknown = missing is not None and missing["value"] is None
        unseen = self._unseen(record, rates)
        # What nobody can see cannot be ruled out either.
        failed = failed or (self.decide_on == "upper" and bool(unknown or unseen))
        quiet = not (open_ or unknown or unseen)
        outcome = "failed" if failed or beyond else "passed" if quiet else "not ruled out"
        return {
            "expression": self.expression,
            "quantity": re.sub(r"\[.*", "", self.quantity),
            "threshold": self.threshold,
            "decided_on": self.decide_on,
            "where": where,
            "value": {
                end: value[end]
                for end in ("estimate", "lower", "upper", "lower_of", "upper_of")
                if end in value
            },
            "with_missing": missing,
            "not_ruled_out": [
                {"where": name, "value": own[self._end("upper")]}
                for name, own in sorted(open_, key=lambda one: -abs(one[1]["estimate"]))
            ],
            "too_few": unseen,
            "outcome": outcome,
            "passed": outcome != "failed",
            "sentence": self._sentence(
                where, value, outcome, missing, failed, [name for name, _ in open_], unseen
            ),
        }

    def _judged_nothing(self, unseen: Sequence[str]) -> dict[str, Any]:
        """What is made of a gate for which no group has rows enough."""
        outcome = "failed" if self.decide_on == "upper" else "not ruled out"
        said = f"{outcome.capitalize()}. {shown(self.expression)}{_too_few(unseen)}."
        return self._without_value(re.sub(r"\[.*", "", self.quantity), self.threshold, outcome, said, unseen)

    def _without_value(
        self, quantity: str, threshold: float | None, outcome: str, sentence: str, unseen: Sequence[str] = ()
    ) -> dict[str, Any]:
        return {
            "expression": self.expression,
            "quantity": quantity,
            "threshold": threshold,
            "decided_on": self.decide_on,
            "where": None,
            "value": None,
            "with_missing": None,
            "not_ruled_out": [],
            "too_few": list(unseen),
            "outcome": outcome,
            "passed": outcome != "failed",
            "sentence": sentence,
        }

    def _judged_verdict(self, word: str) -> dict[str, Any]:
        wanted = VERDICTS[str(self.word)]
        failed = (word == wanted) == (self.sign == "=")
        # Where it cannot be told whether there is harm, that there is none was not shown.
        unsure = self.sign == "=" and self.word == "harm" and word != "equivalent"
        outcome = "failed" if failed else "not ruled out" if unsure else "passed"
        unsure = outcome == "not ruled out"
        said = f"{outcome.capitalize()}. {shown(self.expression)}: the verdict is {word}"
        said += "; what is equivalent within a margin is ruled out (--margin)." if unsure else "."
        return self._without_value("verdict", None, outcome, said)

    def _values(
        self, record: Mapping[str, Any], rates: pd.DataFrame | None
    ) -> list[tuple[str | None, Value]]:
        """All that is held to the gate: the names of it, and estimate and ends of each."""
        several = [own for own in record["groupings"] if len(own["groups"]) > 1]  # one has no gap
        if self.quantity in ("overall_drop", "flip_rate"):
            what = "drop" if self.quantity == "overall_drop" else "flip_rate"
            return [(None, record["overall"][what])]
        if self.quantity == "worst_group_drop":
            return [(record["worst_group_drop"]["group"], record["worst_group_drop"])]
        if self.quantity == "group_drop[NAME]":
            return [(self.name, self._group(record)["drop"])]
        if self.quantity in ("fvo_increase", "fvo_after"):
            return [(own["name"], own[self.quantity]) for own in several or record["groupings"]]
        found: list[tuple[str | None, Value]]
        bare = self.quantity.partition("[")[0]
        if self.name is not None:
            self._check_class(record)
        if bare in _OF_CLASS:
            return self._of_class(record, rates, _OF_CLASS[bare])
        if bare == "contrast":
            found, known = [(own["name"], own["contrast"]) for own in several], bool(several)
            expected = "two groups or more"
        elif bare == "calibration_rise":
            groups = [
                group for own in record["groupings"] for group in own["groups"] if group.get("calibration")
            ]
            found = [(group["group"], group["calibration"]["rise"]) for group in groups]
            found = [_joined(found)] if found else []
            decided = record["compared"]["positive"] or {"before": None}
            known = record["compared"]["scores"] is not None and decided["before"] is None
            expected = "scores of each class (logit_<class> or probability_<class>), and no threshold"
        elif bare == "equalized_odds_increase":
            of = [(own["name"], own["odds"]) for own in several if own.get("odds")]
            found, known = [(name, odds["increase"]) for name, odds in of if odds["increase"]], bool(of)
            expected = "two classes, or one that --positive names, and two groups or more"
        else:
            ratios = [(own["name"], ratio) for own in several for ratio in own["selection_ratios"]]
            found = [(name, ratio["after"]) for name, ratio in ratios if ratio["class"] == self.name]
            known, expected = bool(several), "two groups or more"
        if not known:
            raise BadInput(f"The gate {self.expression!r} finds nothing to hold; expected {expected}.")
        return found

    def _check_class(self, record: Mapping[str, Any]) -> None:
        """Refuse a class that the audit does not have, or does not look at."""
        classes, positive = record["compared"]["classes"], record["compared"]["positive"]
        if self.name not in classes:
            raise BadInput(
                f"The gate {self.expression!r} names no class of this audit; expected one of: "
                f"{shown(', '.join(classes), 400)}."
            )
        if positive and positive["class"] != self.name and not self.quantity.startswith("recall"):
            raise BadInput(
                f"The gate {self.expression!r} is of another class than --positive; expected "
                f"{shown(positive['class'])!r}, or an audit without a positive class."
            )

    def _of_class(
        self, record: Mapping[str, Any], rates: pd.DataFrame | None, measure: str
    ) -> list[tuple[str | None, Value]]:
        """The largest of a class over groups, or of all classes, of pairs with rows enough; none of none."""
        if rates is None:
            raise BadInput(
                f"The gate {self.expression!r} needs the rates of classes; expected those of the audit."
            )
        own = rates[(rates["measure"] == measure) & (rates["tested"] != "too few")]
        if self.name is not None:
            own = own[own["class"] == self.name]
        if own.empty:
            return []
        # Allowed for are those of these pairs in which enough flipped that one could be beyond anything.
        confidence = record["settings"]["confidence"]
        together = simultaneous(confidence, able_to_show(own["worse"] + own["better"], confidence))
        lower, _ = limits(own, together)
        pairs: list[tuple[str | None, Value]] = [
            (
                row["group"] if self.name is not None else f"{row['class']} in {row['group']}",
                {"estimate": row["drop"], "lower": float(least), "upper": row["drop_upper"]},
            )
            for row, least in zip(own.to_dict("records"), lower, strict=True)
        ]
        return [_joined(pairs)]

    def _unseen(self, record: Mapping[str, Any], rates: pd.DataFrame | None) -> list[str]:
        """The groups that have too few rows for the quantity, of which so nothing is ruled out."""
        groups = [group for grouping in record["groupings"] for group in grouping["groups"]]
        bare = self.quantity.partition("[")[0]
        if bare == "calibration_rise":
            return [group["group"] for group in groups if not group.get("calibration")]
        if bare == "equalized_odds_increase":
            return [name for own in record["groupings"] if own.get("odds") for name in own["odds"]["too_few"]]
        if bare not in _OF_CLASS or rates is None:
            return []
        own = rates[rates["measure"] == _OF_CLASS[bare]]
        if self.name is None:
            few = own[own["tested"] == "too few"]
            return [f"{row['class']} in {row['group']}" for row in few.to_dict("records")]
        seen = own[(own["class"] == self.name) & (own["tested"] != "too few")]
        tested = set(zip(seen["grouping"], seen["group"], strict=True))
        return [
            group["group"]
            for grouping in record["groupings"]
            for group in grouping["groups"]
            if (grouping["name"], group["group"]) not in tested
        ]

    def _group(self, record: Mapping[str, Any]) -> Mapping[str, Any]:
        known = {
            name: group
            for grouping in record["groupings"]
            for group in grouping["groups"]
            for name in _names(grouping, group)
        }
        namesakes = [
            f"{grouping['name']}={self.name}"
            for grouping in record["groupings"]
            if any(group.get("value", group["group"]) == self.name for group in grouping["groups"])
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
        apart = [own["pooled"] for own in record["groupings"] if own.get("pooled")]
        small = {cell["cell"]: cell["n"] for own in apart for cell in own["cells"]}
        if self.name in small:
            raise BadInput(
                f"The gate {self.expression!r} names a group of {small[self.name]} rows, too few to stand "
                "alone; expected more, or a lower --smallest-group."
            )
        if self.name not in known:
            groups = [group["group"] for grouping in record["groupings"] for group in grouping["groups"]]
            raise BadInput(
                f"The gate {self.expression!r} names no group of this audit; expected one of: "
                f"{shown(', '.join(groups), 400)}."
            )
        return known[self.name]

    def _with_missing(
        self, record: Mapping[str, Any], where: str | None, now: Value
    ) -> dict[str, Any] | None:
        """What the quantity would be were the rows that are missing after wrong; None where none matters.

        Of what is counted class by class it is not computed, and so not known.
        """
        bare = self.quantity.partition("[")[0]
        for gone in (own for own in _dropped(record) if "right" in own):
            if bare in (
                *_OF_CLASS,
                "contrast",
                "selection_rate_ratio",
                "equalized_odds_increase",
                "calibration_rise",
            ):
                return {"n": gone["n"], "group": None, "value": None}
            if self.quantity in ("overall_drop", "flip_rate"):
                n, wrong = record["overall"]["n"], gone["right" if self.quantity == "overall_drop" else "n"]
                value = (n * now[self.decide_on] + wrong) / (n + gone["n"])
                return {"n": gone["n"], "group": None, "value": value}
            found = [
                {"n": group["n"], "group": group["group"], "value": self._of_group(record, group, gone)}
                for group in gone["groups"]
                if self.name is None or self.name in _names({"name": group["grouping"]}, group)
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
        self,
        where: str | None,
        value: Value,
        outcome: str,
        missing: Mapping[str, Any] | None,
        failed: bool,
        open_: Sequence[str | None],
        unseen: Sequence[str],
    ) -> str:
        at = f" for {shown(where)}" if where is not None else ""
        lower, estimate, upper = (
            number(value[end], 4)
            + (f" ({shown(value[f'{end}_of'])})" if value.get(f"{end}_of", where) != where else "")
            for end in ("lower", "estimate", "upper")
        )
        found = f"{shown(self.expression)}: {estimate}{at}, between {lower} and {upper}"
        if outcome == "failed" and not failed:
            assert missing is not None
            of = f" of {shown(missing['group'])}" if missing["group"] is not None else ""
            return (
                f"Failed. {found}; not ruled out: {missing['n']:,} rows{of} are missing, and if they count "
                f"as wrong it is {number(missing['value'], 4)}."
            )
        if outcome == "failed":
            reason = {
                "lower": "it is surely beyond",
                "estimate": "the estimate is beyond",
                "upper": "it cannot be ruled out",
            }[self.decide_on]
            return f"Failed. {found}; {reason}{_too_few(unseen)}."
        if outcome == "not ruled out":
            others = [shown(name) for name in open_ if name is not None and name != where]
            more = (
                f"; nor is it for {', '.join(others[:4])}{' and others' if len(others) > 4 else ''}"
                if others
                else ""
            )
            more += _too_few(unseen)
            if not open_ and not unseen and missing is not None:
                more = f"; {missing['n']:,} rows are missing, which may count"
            return f"Not ruled out. {found}{more}."
        return f"Passed. {found}."


def _too_few(unseen: Sequence[str]) -> str:
    """Of whom a gate cannot tell."""
    if not unseen:
        return ""
    names = ", ".join(map(shown, unseen[:4])) + (" and others" if len(unseen) > 4 else "")
    return f"; too few rows to tell of {names}"


def _joined(found: Iterable[tuple[str | None, Value]]) -> tuple[str | None, Value]:
    """The largest of several, with the largest ends of all, and whose they are."""
    pairs = list(found)
    where, largest = max(pairs, key=lambda one: one[1]["estimate"])
    ends = {end: max(pairs, key=lambda one: one[1][end]) for end in ("lower", "upper")}
    return where, {
        "estimate": largest["estimate"],
        **{end: own[end] for end, (_, own) in ends.items()},
        **{f"{end}_of": name for end, (name, _) in ends.items()},
    }


def _names(grouping: Mapping[str, Any], group: Mapping[str, Any]) -> set[str]:
    """What a group may be called in a gate."""
    bare = group.get("value", group["group"])
    return {group["group"], bare, f"{grouping['name']}={bare}"}


def _dropped(record: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The rows that were left out; those that are missing after say how many were right before."""
    found: Sequence[Mapping[str, Any]] = record.get("compared", {}).get("dropped", [])
    return found


def _gap(accuracies: Mapping[str, float]) -> float:
    return max(accuracies.values()) - min(accuracies.values())


def parse(expression: str, decide_on: str = "lower") -> Gate:
    """Read a gate: a quantity, a sign, and a fraction; or the verdict, = or !=, and one of its words.

    >>> parse("group_drop[elm] > 5%").threshold
    0.05
    >>> parse("verdict != equivalent").word
    'equivalent'
    >>> parse("accuracy < 0.9")
    Traceback (most recent call last):
        ...
    fairq_utils.errors.BadInput: The gate 'accuracy < 0.9' cannot be read; expected QUANTITY > FRACTION,
    such as fvo_increase > 0.03, where the quantity is one of: overall_drop, worst_group_drop,
    group_drop[NAME], contrast, fvo_increase, fvo_after, flip_rate, worst_recall_drop, recall_drop[CLASS],
    fpr_rise[CLASS], precision_drop[CLASS], selection_rate_ratio[CLASS], equalized_odds_increase,
    calibration_rise, verdict.
    """
    found = _EXPRESSION.fullmatch(expression)
    quantity = _quantity(found["quantity"], found["name"]) if found else None
    if found is None or quantity is None:
        raise BadInput(
            f"The gate {expression!r} cannot be read; expected QUANTITY > FRACTION, such as "
            f"fvo_increase > 0.03, where the quantity is one of: {', '.join(QUANTITIES)}."
        )
    text, sign = found["threshold"], found["sign"]
    below = found["quantity"] in _BELOW
    signs = ("=", "!=") if quantity == "verdict" else ("<", "<=") if below else (">", ">=")
    if sign not in signs:
        raise BadInput(
            f"The gate {expression!r} has the sign {sign}; expected {' or '.join(signs)}, for what "
            f"{'is asked of a verdict' if quantity == 'verdict' else 'a pipeline must not do'}."
        )
    threshold, word = 0.0, None
    if quantity == "verdict":
        if text not in VERDICTS:
            raise BadInput(
                f"The gate {expression!r} names the verdict {text!r}; expected one of: {', '.join(VERDICTS)}."
            )
        word = text
    else:
        value = _NUMBER.fullmatch(text)
        if value is None:
            raise BadInput(
                f"The gate {expression!r} ends in {text!r}; expected a fraction, such as 0.03 or 3%."
            )
        threshold = float(value["number"]) / (100 if value["percent"] else 1)
        if not -1 < threshold < 1:
            raise BadInput(
                f"The gate {expression!r} has the threshold {threshold:g}; expected a fraction between −1 "
                "and 1: 0.03 for three points."
            )
    return Gate(
        expression=expression.strip(),
        quantity=quantity,
        name=found["name"],
        sign=sign,
        threshold=threshold,
        word=word,
        decide_on=one_of("decide_on", decide_on, DECIDE_ON),
    )


def read(expressions: Sequence[str], decide_on: str, margin: float | None) -> list[Gate]:
    """The gates of an audit, if each can be read and what it needs was given.

    >>> [gate.quantity for gate in read(["contrast > 0.02"], "lower", None)]
    ['contrast']
    """
    one_of("decide_on", decide_on, DECIDE_ON)
    found = [parse(expression, decide_on) for expression in expressions]
    if margin is None and any(gate.word == "equivalent" for gate in found):
        raise BadInput(
            "A gate asks for the verdict equivalent, and no margin was given; expected one, such as 0.02."
        )
    return found


def _quantity(name: str, of: str | None) -> str | None:
    """The quantity as it is listed, if what it is of was named just where that is needed."""
    listed = {known.partition("[")[0]: known for known in QUANTITIES}.get(name)
    return listed if listed is not None and ("[" in listed) == (of is not None) else None
