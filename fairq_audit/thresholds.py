"""Answers from scores: a row is taken for one class where its probability is high enough."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from fairq_audit.formats import shown
from fairq_audit.predictions import PredictionTable
from fairq_utils.errors import BadInput
from fairq_utils.intervals import Floats


def decide(
    first: PredictionTable,
    second: PredictionTable,
    positive: str | None,
    threshold: float | None,
    *,
    same_rate: bool = False,
) -> tuple[PredictionTable, PredictionTable, dict[str, Any]]:
    """Both tables with the answers that a threshold gives, and what a record says of it.

    Without `threshold` the answers stay as they are. With `same_rate` the second table has the threshold that
    takes as large a share of its rows for the class as the first, by their weight where they have one: only
    who is chosen can then differ.

    >>> from fairq_audit.predictions import read
    >>> rows = {"id": range(4), "label": ["no", "no", "yes", "yes"], "group": "elm"}
    >>> def one(name, sure):
    ...     table = pd.DataFrame(rows | {"probability_yes": sure, "probability_no": [1 - p for p in sure]})
    ...     return read(table, ["group"], called=name, with_labels=True)
    >>> tables = one("fp32", [0.1, 0.4, 0.6, 0.9]), one("int8", [0.1, 0.2, 0.3, 0.4])
    >>> before, after, said = decide(*tables, "yes", 0.5, same_rate=True)
    >>> after.table["prediction"].tolist(), said["after"]
    (['no', 'no', 'yes', 'yes'], 0.3)
    """
    if positive is None:
        raise BadInput("A threshold was given and no positive class; expected the class that it is of.")
    known = {
        text
        for one in (first, second)
        for text in [
            *one.classes,
            *(one.table["label"].cat.categories if "label" in one.table else []),
            *(one.table["prediction"].cat.categories if "prediction" in one.table else []),
        ]
    }
    if positive not in known:
        raise BadInput(
            f"positive is {shown(positive)!r}, which is no class of these tables; expected one of: "
            f"{shown(', '.join(sorted(known)), 300)}."
        )
    if threshold is None and not same_rate:
        return first, second, {"class": positive, "before": None, "after": None, "same_rate": False}
    for one in (first, second):
        if one.kind is None:
            raise BadInput(
                f"{one.called} has no scores, which a threshold needs; expected a column "
                "probability_<class> or logit_<class> for each class."
            )
    at = 0.5 if threshold is None else threshold
    if not 0 < at < 1:
        raise BadInput(f"threshold is {at}; expected a probability between 0 and 1, such as 0.3.")
    sure = [_probability(one, positive) for one in (first, second)]
    ends = [at, at]
    if same_rate:
        weights = _weights(first, second)
        share = weights[0][sure[0] >= at].sum() / weights[0].sum()
        ends[1] = _taking(share, sure[1], weights[1])
    tables = [
        _answered(one, positive, own >= end)
        for one, own, end in zip((first, second), sure, ends, strict=True)
    ]
    said = {"class": positive, "before": ends[0], "after": ends[1], "same_rate": same_rate}
    return tables[0], tables[1], said


def _weights(first: PredictionTable, second: PredictionTable) -> tuple[Floats, Floats]:
    """How many each row stands for, in both tables, as the first says of the rows that both have."""
    if first.weight is None:
        return np.ones(len(first.table)), np.ones(len(second.table))
    known = pd.Series(first.table[first.weight].to_numpy(), index=first.table["id"])
    return known.to_numpy(), known.reindex(second.table["id"]).fillna(0).to_numpy()


def _taking(share: float, sure: Floats, weights: Floats) -> float:
    """The threshold that takes as much of the weight as comes nearest to a share of it.

    >>> _taking(0.5, np.array([0.1, 0.2, 0.3, 0.4]), np.ones(4))
    0.3
    """
    ends, at = np.unique(sure, return_inverse=True)
    above = np.bincount(at, weights)[::-1].cumsum()[::-1]  # the weight of all that are at least so sure
    nobody = float(np.nextafter(ends[-1], 2))
    taken = np.append(above, 0.0)
    return float(np.append(ends, nobody)[np.abs(taken - share * weights.sum()).argmin()])


def _probability(one: PredictionTable, positive: str) -> Floats:
    scores = one.scores(one.classes)
    found = special.softmax(scores, axis=1) if one.kind == "logit" else scores
    return np.asarray(found[:, one.classes.index(positive)])


def _answered(one: PredictionTable, positive: str, taken: NDArray[np.bool_]) -> PredictionTable:
    """A row that is not taken has the likeliest of the other classes."""
    others = [name for name in one.classes if name != positive]
    best = np.array(others, dtype=object)[one.scores(others).argmax(axis=1)]
    answers = pd.Series(np.where(taken, positive, best), index=one.table.index).astype("category")
    return replace(one, table=one.table.assign(prediction=answers))
