"""What an audit measures class by class: recall, false positives, precision, and how often a class is said.

Accuracy can stand still while a model stops to find a rare class in one group. So each class is looked at in
each group, in pairs: what the model said of a row before and after. `predictions.pair` gives the rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fairq_audit import statistics
from fairq_audit.cells import Cells
from fairq_audit.predictions import Pairs
from fairq_audit.sampling import Sampling, count
from fairq_utils import intervals
from fairq_utils.intervals import Floats

# Of the chance that a limit is wrong, what those of classes have, all together: so little that it hardly adds
# to that of groups and of all rows, and still it takes only a few more lost rows to show a loss.
_SHARE_OF_CLASSES = 1 / 25
_LISTED = 20
_FEW_CLASSES = 50  # of so few all groups are told of, of more those that have enough of a class
# A row by whether it is of the class, was taken for it before, and is after: 4 y + 2 before + after.
_OF, _BEFORE, _AFTER = (np.array([kind >> bit & 1 for kind in range(8)], float) for bit in (2, 1, 0))
HARMS = ("recall", "fpr", "precision")  # of which it is known which way is worse


def of_classes(confidence: float) -> float:
    """How surely the limits of classes hold together.

    >>> round(of_classes(0.95), 3)
    0.998
    """
    return 1 - _SHARE_OF_CLASSES * (1 - confidence)


def rates(
    cells: Sequence[Cells],
    pairs: Pairs,
    *,
    sampling: Sampling,
    confidence: float,
    smallest: int,
    positive: str | None = None,
) -> tuple[list[pd.DataFrame], int]:
    """Each class in each group, a row for each measure; and the family of its limits. A table a grouping.

    `drop` is by how much it became worse: recall and precision fell, the false positive rate rose. Of the
    selection rate, the share of rows that are taken for the class, no direction is worse: there it is the
    rise. Recall is of all classes; the others of those that are a label or an answer in `smallest` rows, or
    of the `positive` one alone. Tested is a pair with enough rows, where the measure says something of its
    own and has a worse way. Simultaneous limits have those in which enough answers flipped that a change
    could be shown.
    """
    tables = [_rates(cell, pairs, sampling, confidence, smallest, positive) for cell in cells]
    flips = [(own["worse"] + own["better"]).where(own["tested"] == "yes", 0) for own in tables]
    family = intervals.able_to_show(np.concatenate(flips), of_classes(confidence))
    together = intervals.simultaneous(of_classes(confidence), family)
    for own, flipped in zip(tables, flips, strict=True):
        able = flipped > intervals.two_sided(together) ** 2
        for end, limit in zip(("lower", "upper"), limits(own[able], together), strict=True):
            own.loc[able, f"drop_simultaneous_{end}"] = limit
    return tables, family


# What the rows of a pair are worth, kind by kind, which limits are made of, and which no reader is shown.
COUNTS = [f"counted_{kind}" for kind in range(8)]


def limits(table: pd.DataFrame, confidence: float) -> tuple[Floats, Floats]:
    """The limits of the drop of each row of a table of rates, whatever its measure."""
    counts = table[COUNTS].to_numpy(np.float64)
    measure = table["measure"].to_numpy()
    worse, better = np.zeros((2, len(table)))
    for name, (down, up) in _WAYS.items():
        mine = measure == name
        worse[mine], better[mine] = counts[mine][:, down].sum(axis=1), counts[mine][:, up].sum(axis=1)
    lower, upper = statistics.drop_limits(worse, better, np.maximum(counts.sum(axis=1), 1e-9), confidence)
    precise = measure == "precision"
    lower[precise], upper[precise] = statistics.precision_drop_limits(counts[precise], confidence)
    return lower, upper


# The kinds of rows that make a measure worse and better; of a selection rate, higher and lower.
_WAYS: dict[str, tuple[list[int], list[int]]] = {
    "recall": ([6], [5]),
    "fpr": ([1], [2]),
    "precision": ([1, 6], [2, 5]),
    "selection_rate": ([1, 5], [2, 6]),
}


def _rates(
    cell: Cells, pairs: Pairs, sampling: Sampling, confidence: float, smallest: int, positive: str | None
) -> pd.DataFrame:
    counted = _eight(cell, pairs)
    own = counted[..., 4:].sum(axis=2)
    said = np.maximum(counted[..., [2, 3, 6, 7]].sum(axis=2), counted[..., [1, 3, 5, 7]].sum(axis=2))
    spoken = (np.maximum(said, own) >= smallest) | (len(pairs.classes) <= _FEW_CLASSES)
    if positive is not None:
        spoken &= np.arange(len(pairs.classes)) == pairs.classes.index(positive)
    groups, classes = np.nonzero(spoken | (own > 0))
    rows, spoken = counted[groups, classes].astype(np.int64), spoken[groups, classes]
    weighted, effective = _worth(cell, pairs, sampling, groups, classes, rows)
    two = len(pairs.classes) == 2 and positive is None
    everyone = cell.counts.sum(axis=1)[groups]
    found = []
    for measure, (down, up) in _WAYS.items():
        n, counts = _part(rows, weighted, effective[measure], _PARTS[measure])
        before, after = (_share(counts @ taken, counts.sum(axis=1)) for taken in (_BEFORE, _AFTER))
        tested = np.where(n < smallest, "too few", "yes")
        if measure == "recall":
            tested = np.where(n == everyone, "is accuracy", tested)
        elif measure == "precision":  # of other rows before and after
            later, _ = _part(rows, weighted, effective["precision_after"], _PARTS["precision_after"])
            tested = np.where(later < smallest, "too few", tested)
            worth = np.minimum(effective["precision"], effective["precision_after"])
            _, counts = _part(rows, weighted, worth, np.ones(8))
            before, after = (_share(counts @ (_OF * taken), counts @ taken) for taken in (_BEFORE, _AFTER))
        elif measure in _NO_TEST and (two or measure != "fpr"):
            tested = np.full(len(n), _NO_TEST[measure])
        table = pd.DataFrame(
            {
                "grouping": cell.name,
                "group": np.array(cell.names, dtype=object)[groups],
                "class": np.array(pairs.classes, dtype=object)[classes],
                "measure": measure,
                "n": n,
                "tested": tested,
                "worse": rows[:, down].sum(axis=1),
                "better": rows[:, up].sum(axis=1),
                "before": before,
                "after": after,
                "drop": (before - after) if measure in ("recall", "precision") else (after - before),
            }
        )
        table[COUNTS] = counts
        found.append(table[(n > 0) & (spoken | (measure == "recall"))])
    table = pd.concat(found, ignore_index=True)
    lower, upper = limits(table, confidence)
    return table.assign(drop_lower=lower, drop_upper=upper)


def _worth(
    cell: Cells,
    pairs: Pairs,
    sampling: Sampling,
    groups: NDArray[np.intp],
    classes: NDArray[np.intp],
    rows: NDArray[np.int64] | NDArray[np.int32],
) -> tuple[Floats, dict[str, Floats]]:
    """The rows of each pair by weight, and as a share of them what they are worth, for each measure."""
    weighted = rows.astype(np.float64)
    effective = {name: np.ones(len(rows)) for name in _PARTS}
    if not sampling.is_plain:
        for code in np.unique(classes).tolist():
            mine = classes == code
            totals, scales = _of_class(cell, pairs, code, sampling)
            weighted[mine] = totals[groups[mine]]
            for name, scale in scales.items():
                effective[name][mine] = scale[groups[mine]]
    return weighted, effective


# Of two classes false positives of one are rows of the other that are not found; of a selection rate no way
# is worse.
_NO_TEST = {"fpr": "is recall of the other class", "selection_rate": "no way is worse"}
# The rows that a measure is a share of; precision has others before and after.
_PARTS = {
    "recall": _OF,
    "fpr": 1 - _OF,
    "selection_rate": np.ones(8),
    "precision": _BEFORE,
    "precision_after": _AFTER,
}


def _part(
    rows: NDArray[np.int64], weighted: Floats, effective: Floats, part: Floats
) -> tuple[NDArray[np.int64], Floats]:
    """How many rows there are, and their counts by weight, scaled to as many rows as they are worth."""
    n = (rows * part).sum(axis=1).astype(np.int64)
    counts = weighted * part
    return n, counts * (_share(n, counts.sum(axis=1)) * effective)[:, None]


def _share(hits: NDArray[Any], of: NDArray[Any]) -> Floats:
    """The share, and nought of nothing."""
    return np.divide(hits, of, out=np.zeros(len(of)), where=of > 0)


def _of_class(cell: Cells, pairs: Pairs, code: int, sampling: Sampling) -> tuple[Floats, dict[str, Floats]]:
    """The eight counts of a class in each group by weight, and what the rows of each measure are worth."""
    own = [one == code for one in (pairs.labels, *pairs.answers)]
    kinds = 4 * own[0] + 2 * own[1] + own[2]
    inside = {
        "recall": (own[0], _AFTER - _BEFORE),
        "fpr": (~own[0], _AFTER - _BEFORE),
        "selection_rate": (np.ones_like(own[0]), _AFTER - _BEFORE),
        "precision": (own[1], _OF),
        "precision_after": (own[2], _OF),
    }
    found = {
        name: count(np.where(where, cell.codes, -1), kinds, (len(cell.names), 8), {"share": values}, sampling)
        for name, (where, values) in inside.items()
    }
    scales = {name: one.effective["share"] for name, one in found.items()}
    return found["selection_rate"].weighted, scales


def _eight(cell: Cells, pairs: Pairs) -> NDArray[np.int32]:
    """The rows of each group and class by whether they are of it, were and are taken for it: eight kinds."""
    shape = len(cell.names), len(pairs.classes)
    inside = cell.codes >= 0
    before, after = (own[inside] for own in pairs.answers)
    codes, labels = cell.codes[inside], pairs.labels[inside]

    def tally(classes: NDArray[np.intp], where: NDArray[np.bool_]) -> NDArray[np.int64]:
        flat = np.ravel_multi_index((codes[where], classes[where]), shape)
        return np.bincount(flat, minlength=shape[0] * shape[1]).reshape(shape)

    # Half as large as it would be by itself: of thousands of classes in hundreds of groups this is all that
    # is held.
    found = np.zeros((*shape, 8), dtype=np.int32)
    kinds = pairs.kinds[inside]
    found[..., 7], found[..., 6], found[..., 5] = (
        tally(labels, kinds == kind) for kind in (statistics.KEPT, statistics.LOST, statistics.GAINED)
    )
    found[..., 4] = tally(labels, kinds > statistics.GAINED)
    found[..., 3] = tally(before, (before != labels) & (before == after))
    found[..., 2] = tally(before, (before != labels) & (before != after))
    found[..., 1] = tally(after, (after != labels) & (before != after))
    found[..., 0] = cell.counts.sum(axis=1)[:, None] - found.sum(axis=2)
    return found


# -- gaps and ratios between groups -------------------------------------------------------------------


def odds(
    cell: Cells,
    pairs: Pairs,
    *,
    sampling: Sampling,
    confidence: float,
    resamples: int,
    seed: int,
    positive: str,
    smallest: int,
) -> dict[str, Any]:
    """The larger of two gaps between groups: that of recall, and that of false positives of a class.

    Groups need `smallest` rows of the class and of others; those that have fewer are named, and where
    fewer than two are left there is no gap. The rise of the
    larger of two lies between the rises of the two, so its interval holds both of theirs.
    """
    code = pairs.classes.index(positive)
    rows = _eight(cell, pairs)[:, code]
    places = np.arange(len(cell.names))
    counted, effective = _worth(cell, pairs, sampling, places, np.full(len(places), code), rows)
    worth = np.minimum(effective["recall"], effective["fpr"])
    both = (rows[:, 4:].sum(axis=1) >= smallest) & (rows[:, :4].sum(axis=1) >= smallest)
    about = {
        "class": positive,
        "groups": int(both.sum()),
        "too_few": [cell.names[place] for place in np.flatnonzero(~both)],
    }
    if both.sum() < 2:
        return about | {"before": None, "after": None, "increase": None}
    counted = (counted * worth[:, None])[both]
    kinds = np.zeros(len(counted))
    gaps = [
        statistics.fvo_of_one_pair(np.column_stack([counted[:, own], kinds]), confidence, resamples, seed)
        for own in ([7, 6, 5, 4], [3, 2, 1, 0])
    ]

    def larger(part: str) -> dict[str, float]:
        two = [getattr(gap, part) for gap in gaps]
        return dict(
            zip(("estimate", "lower", "upper"), (max(ends) for ends in zip(*two, strict=True)), strict=True)
        )

    before, after = larger("before"), larger("after")
    return about | {
        "before": before,
        "after": after,
        "increase": {
            "estimate": after["estimate"] - before["estimate"],
            "lower": min(gap.increase[1] for gap in gaps),
            "upper": max(gap.increase[2] for gap in gaps),
        },
    }


def selection_ratios(rates: pd.DataFrame, confidence: float) -> list[dict[str, Any]]:
    """For each class the lowest share of a group that is taken for it over the highest, before and after.

    1 where all are alike. The limits are those of the groups' shares, which hold together.
    """
    found = []
    of = rates[rates["measure"] == "selection_rate"]
    for name, own in of.groupby("class", sort=False):
        if len(own) < 2:
            continue
        together = intervals.simultaneous(confidence, len(own))
        ends = {}
        for when in ("before", "after"):
            share = np.minimum(own[when].to_numpy(), 1)  # of weights, a sum may be off in its last digit
            low, high = intervals.share_limits(
                share * own[COUNTS].sum(axis=1), own[COUNTS].sum(axis=1), together
            )
            ends[when] = {
                "estimate": float(_share(share.min(keepdims=True), share.max(keepdims=True))[0]),
                "lower": float(low.min() / high.max()),
                "upper": float(min(high.min() / max(low.max(), 1e-12), 1.0)),
            }
        found.append({"class": name, "groups": len(own), **ends})
    return found


# -- what a record holds of them ----------------------------------------------------------------------


def recall_ends(recall: pd.DataFrame, smallest: int) -> dict[str, Any]:
    """Of the recall of a grouping what a record holds: where it fell most, and where gaps opened."""
    large = recall[recall["n"] >= smallest]
    by_class = large.groupby("class", sort=False)[["before", "after"]]
    gaps = (by_class.max() - by_class.min()).assign(increase=lambda own: own["after"] - own["before"])
    gaps = gaps[by_class.size() > 1].sort_values("increase", ascending=False, kind="stable")
    falls = large.sort_values("drop", ascending=False, kind="stable").head(_LISTED)
    return {
        "cells": len(large),
        "largest_drops": [_row(row) for row in falls.to_dict("records")],
        "disparities": gaps.head(_LISTED).reset_index().to_dict("records"),
    }


def rate_ends(rates: pd.DataFrame) -> dict[str, Any]:
    """Of all measures of a grouping what a record holds: how many were tested, and what surely got worse."""
    harms = rates[rates["measure"].isin(HARMS)]
    worse = harms[harms["drop_simultaneous_lower"] > 0]
    worse = worse.sort_values("drop_simultaneous_lower", ascending=False, kind="stable")
    others = rates[rates["measure"] != "recall"].sort_values("drop", ascending=False, kind="stable")
    return {
        "tested": int((rates["tested"] == "yes").sum()),
        "too_few": int((harms["tested"] == "too few").sum()),
        "worse": len(worse),
        "surely_worse": [_row(row) for row in worse.head(_LISTED).to_dict("records")],
        "largest": {
            measure: [_row(row) for row in own.head(_LISTED).to_dict("records")]
            for measure, own in others.groupby("measure", sort=False)
        },
    }


def _row(row: Mapping[Any, Any]) -> dict[str, Any]:
    drop = {"estimate": row["drop"], "lower": row["drop_lower"], "upper": row["drop_upper"]}
    if not np.isnan(row["drop_simultaneous_lower"]):
        drop |= {end: row[f"drop_{end}"] for end in ("simultaneous_lower", "simultaneous_upper")}
    return {
        **{name: row[name] for name in ("measure", "class", "group", "n", "before", "after")},
        "drop": drop,
    }
