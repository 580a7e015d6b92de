"""What an audit measures: groups and their cells, tables of what they lost, and how the answers are spread.

`answers.pair` gives the images with both their answers; the functions here count them by group and class, and
put intervals to the counts. What they return are the entries of an audit's record.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from fairq_audit import predictions, statistics
from fairq_audit.formats import shown
from fairq_utils import intervals
from fairq_utils.errors import BadInput

POWER = 0.8
RESAMPLES = 2000
# Of the chance that a limit is wrong, what those of recall have, all together: so little that it hardly adds
# to that of groups and of all images, and still it takes only a few more lost images to show a loss.
_SHARE_OF_RECALL = 1 / 25
MOST_GROUPS = 250
_LISTED = 20
_CONFIDENCE_BINS = 50
_MARGIN_BINS = 60
_BLOCK = 6  # zero lies after a multiple of so many bins: it stays an edge when neighbours are merged


# -- groups -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cells:
    """One way to divide the images: of each image its cell, −1 for none; counts cells x classes x kinds."""

    name: str
    columns: list[str]
    names: list[str]
    codes: NDArray[np.intp]
    counts: NDArray[np.int64]
    pooled: dict[str, Any] | None


def groupings(pairs: predictions.Pairs, columns: Sequence[str], smallest: int) -> list[Cells]:
    """The images divided by each column and, where there are several, by all of them crossed."""
    cells = [_column(pairs, name) for name in columns]
    return [*cells, _crossed(pairs, columns, smallest)] if len(columns) > 1 else cells


def _column(pairs: predictions.Pairs, name: str) -> Cells:
    column = pairs.groups[name]
    names = [str(value) for value in column.categories]
    sizes = np.bincount(column.codes, minlength=len(names))
    if (sizes == 1).any():
        lone = names[int((sizes == 1).argmax())]
        raise BadInput(
            f"{shown(name)} has a group of one image, {shown(lone)!r}; expected two or more, better twenty: "
            "merge it with another, or leave it out."
        )
    return _cells(pairs, name, [name], names, column.codes.astype(np.intp), None)


def _crossed(pairs: predictions.Pairs, columns: Sequence[str], smallest: int) -> Cells:
    """The intersection of several columns, its small cells in one pool."""
    parts = [pairs.groups[name] for name in columns]
    flat = np.ravel_multi_index([part.codes for part in parts], [len(part.categories) for part in parts])
    seen, codes, sizes = np.unique(flat, return_inverse=True, return_counts=True)
    places = np.unravel_index(seen, [len(part.categories) for part in parts])
    names = [
        " x ".join(str(part.categories[place[cell]]) for part, place in zip(parts, places, strict=True))
        for cell in range(len(seen))
    ]
    name = " x ".join(columns)
    if twice := sorted({one for one in names if names.count(one) > 1}):
        raise BadInput(
            f"Two cells of {shown(name)} are both called {shown(twice[0])!r}; expected names that tell them "
            "apart: rename groups that have ' x ' in their names."
        )
    small = sizes < smallest
    if not small.any():
        return _cells(pairs, name, list(columns), names, codes, None)
    kept = bool(sizes[small].sum() >= smallest)
    if not kept and small.all():
        raise BadInput(
            f"No cell of {shown(name)} has {smallest} images; expected some: lower smallest_cell or cross "
            "fewer columns."
        )
    pooled = {
        "smallest": smallest,
        "n": int(sizes[small].sum()),
        "kept": kept,
        "cells": [{"cell": names[cell], "n": int(sizes[cell])} for cell in np.flatnonzero(small)],
    }
    new = np.where(small, -1, np.cumsum(~small) - 1)
    large = [names[cell] for cell in np.flatnonzero(~small)]
    if kept:
        new[small] = len(large)
        large.append(f"{small.sum()} small cells")
    return _cells(pairs, name, list(columns), large, new[codes], pooled)


def _cells(
    pairs: predictions.Pairs,
    name: str,
    columns: list[str],
    names: list[str],
    codes: NDArray[np.intp],
    pooled: dict[str, Any] | None,
) -> Cells:
    if len(names) > MOST_GROUPS:
        raise BadInput(
            f"{shown(name)} has {len(names)} groups; expected {MOST_GROUPS} at most: name columns with "
            "fewer, or raise smallest_cell."
        )
    inside = codes >= 0
    shape = len(names), len(pairs.classes), 5
    flat = np.ravel_multi_index((codes[inside], pairs.labels[inside], pairs.kinds[inside]), shape)
    counts = np.bincount(flat, minlength=int(np.prod(shape))).reshape(shape)
    return Cells(name, columns, names, codes, counts, pooled)


# -- rows that one table lacks ------------------------------------------------------------------------


def dropped(
    out: predictions.LeftOut, pairs: predictions.Pairs, cells: Sequence[Cells], smallest: int
) -> dict[str, Any]:
    """How many rows are left out, of which groups, where the table says, and how many were right before."""
    entry: dict[str, Any] = {"reason": f"only in {out.called}", "n": out.n, "of": out.rows}
    if out.right is not None:
        entry["right"] = int(out.right.sum())
    if out.groups is not None:
        entry["groups"] = [row for cell in cells for row in _dropped_of(cell, out, pairs, smallest)]
    return entry


def _dropped_of(
    cell: Cells, out: predictions.LeftOut, pairs: predictions.Pairs, smallest: int
) -> Iterator[dict[str, Any]]:
    """The groups of a grouping that lost rows, the largest share first; small cells in the pool, if any."""
    assert out.groups is not None
    places = list(range(len(cell.columns)))  # in place of the columns' names, which may be n
    kept = pd.DataFrame({place: pairs.groups[cell.columns[place]].astype(str) for place in places})
    lost = out.groups[cell.columns].set_axis(places, axis=1)
    right = np.zeros(out.n, bool) if out.right is None else out.right
    rows = pd.concat([kept.assign(n=0, right=0), lost.assign(n=1, right=right)])
    cells = rows.groupby(places).agg(of=("n", "size"), n=("n", "sum"), right=("right", "sum"))
    names = [" x ".join(parts) for parts in cells.index.to_frame().to_numpy()]
    alone = np.isin(names, cell.names) | (len(cell.columns) == 1) | (cells["of"] >= smallest).to_numpy()
    pool = bool(cell.pooled and cell.pooled["kept"])
    found = cells.set_axis(np.where(alone, names, cell.names[-1])).loc[alone | pool].groupby(level=0).sum()
    shares = (found["n"] / found["of"]).sort_values(ascending=False, kind="stable")
    for name, own in found.loc[shares[shares > 0].index].iterrows():
        entry = {"grouping": cell.name, "group": str(name), "n": int(own["n"]), "of": int(own["of"])}
        yield entry if out.right is None else entry | {"right": int(own["right"])}


def conspicuous(out: predictions.LeftOut, dropped: Mapping[str, Any]) -> list[str]:
    """The groups that lack more rows than chance explains, at a level of 5 % for each column of groups."""
    found = []
    for column in [] if out.groups is None else map(str, out.groups):
        lost = [row for row in dropped["groups"] if row["grouping"] == column]
        # The chance that a group with such a share of the rows has so many of the missing ones:
        chances = [special.bdtrc(row["n"] - 1, out.n, row["of"] / out.rows) for row in lost]
        found += [row["group"] for row, p in zip(lost, chances, strict=True) if p * len(lost) < 0.05]
    return found


# -- measures -----------------------------------------------------------------------------------------


def measure(
    overall: NDArray[np.int64],
    groupings: Mapping[str, Mapping[str, NDArray[np.int64]]],
    *,
    confidence: float = 0.95,
    margin: float | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """What counts alone say: the entries `overall`, `worst_group_drop` and `groupings` of an audit's record.

    Five counts describe some images: how many predictions were kept (right throughout), lost, gained,
    the same and wrong, and wrong in another way after. `groupings` holds them by grouping and group.

    >>> counts = {"ash": np.array([800, 30, 20, 140, 10]), "elm": np.array([150, 30, 2, 16, 2])}
    >>> found = measure(sum(counts.values()), {"tree": counts})
    >>> {end: round(found["worst_group_drop"][end], 2) for end in ("estimate", "lower", "upper")}
    {'estimate': 0.14, 'lower': 0.09, 'upper': 0.2}
    """
    family = sum(len(groups) for groups in groupings.values())
    of = functools.partial(_outcomes, confidence=confidence, margin=margin)
    rows = of(np.stack([own for groups in groupings.values() for own in groups.values()]), family=family)
    for row, p in zip(rows, intervals.holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = float(p)
    left = iter(rows)
    found: list[dict[str, Any]] = []
    # FVO is judged once a grouping; together these intervals hold as often as one was asked to.
    stricter = 1 - (1 - confidence) / len(groupings)
    for name, groups in groupings.items():
        own: list[dict[str, Any]] = [{"group": group, "pooled": False, **next(left)} for group in groups]
        gap = statistics.fvo_of_one_pair(np.stack(list(groups.values())), stricter, RESAMPLES, seed)
        found.append(
            {
                "name": name,
                "groups": own,
                "fvo_before": _interval(*gap.before) | _ends(own, "accuracy_before"),
                "fvo_after": _interval(*gap.after) | _ends(own, "accuracy_after"),
                "fvo_increase": _interval(*gap.increase),
                "fvo_confidence": stricter,
                "worst_group_drop": _worst([_drop(name, group) for group in own]),
            }
        )
    return {
        "overall": of(overall[None], family=1)[0],
        "worst_group_drop": _worst([grouping["worst_group_drop"] for grouping in found]),
        "groupings": found,
    }


def _ends(groups: Sequence[Mapping[str, Any]], accuracy: str) -> dict[str, str]:
    ranked = sorted(groups, key=lambda group: group[accuracy]["estimate"])
    return {"best": ranked[-1]["group"], "worst": ranked[0]["group"]}


def _drop(grouping: str, group: Mapping[str, Any]) -> dict[str, Any]:
    drop = group["drop"]
    ends = {"estimate": drop["estimate"], "lower": drop["simultaneous_lower"], "upper": drop["upper"]}
    return {"grouping": grouping, "group": group["group"], **ends}


def _outcomes(
    counts: NDArray[np.int64], *, confidence: float, family: int, margin: float | None
) -> list[dict[str, Any]]:
    """For each row of counts all that is said of a group."""
    n = counts.sum(axis=1)
    kept, lost, gained, _, changed = counts.T
    together = intervals.simultaneous(confidence, family)
    measured = {
        "accuracy_before": ((kept + lost) / n, *intervals.share_limits(kept + lost, n, confidence)),
        "accuracy_after": ((kept + gained) / n, *intervals.share_limits(kept + gained, n, confidence)),
        "drop": ((lost - gained) / n, *statistics.drop_limits(lost, gained, n, confidence)),
        "flip_rate": (
            (lost + gained + changed) / n,
            *intervals.share_limits(lost + gained + changed, n, confidence),
        ),
    }
    wide = measured["drop"][1:] if family == 1 else statistics.drop_limits(lost, gained, n, together)
    p = intervals.sign_test(lost, gained)
    equivalence = None if margin is None else statistics.equivalence_p(lost, gained, n, margin)
    rows = []
    for at, size in enumerate(n.tolist()):
        row: dict[str, Any] = {"n": size}
        for name, (estimate, lower, upper) in measured.items():
            row[name] = _interval(estimate[at], lower[at], upper[at])
        row["drop"] |= {"simultaneous_lower": float(wide[0][at]), "simultaneous_upper": float(wide[1][at])}
        row |= {"p": float(p[at]), "p_holm": float(p[at])}
        row |= {"lost": int(lost[at]), "gained": int(gained[at]), "changed": int(changed[at])}
        row["detectable_drop"] = statistics.detectable_drop(
            size, (lost[at] + gained[at]) / size, row["accuracy_before"]["estimate"], together, POWER
        )
        row["equivalence"] = None
        if equivalence is not None:
            within = bool(equivalence[at] < 1 - confidence)
            row["equivalence"] = {"margin": margin, "p": float(equivalence[at]), "equivalent": within}
        rows.append(row)
    return rows


def _interval(estimate: float, lower: float, upper: float) -> dict[str, float]:
    return {"estimate": float(estimate), "lower": float(lower), "upper": float(upper)}


def _worst(drops: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The largest drop. It is above every group's simultaneous lower limit, and it is one group's own."""
    worst = max(drops, key=lambda drop: drop["estimate"])
    ends = {end: max(drop[end] for drop in drops) for end in ("lower", "upper")}
    return {**worst, **ends}


def recalls(
    cells: Sequence[Cells], classes: Sequence[str], confidence: float, smallest: int
) -> tuple[list[pd.DataFrame], int]:
    """Recall of every class in every group that has it, a table a grouping; and the family of its limits.

    Tested is a pair with enough images, in a group that has other classes too: else recall is accuracy.
    Simultaneous limits have the pairs in which enough answers flipped that a loss could be shown. They are
    stricter than those of groups, so that the verdict of both is hardly more often wrong than of one.
    """
    tables = [_recall(cell, classes, confidence, smallest) for cell in cells]
    flips = [(own["lost"] + own["gained"]).where(own["tested"] == "yes", 0) for own in tables]
    family = intervals.able_to_show(np.concatenate(flips), of_recall(confidence))
    together = intervals.simultaneous(of_recall(confidence), family)
    for own, flipped in zip(tables, flips, strict=True):
        able = flipped > intervals.two_sided(together) ** 2
        lost, gained, n = own.loc[able, ["lost", "gained", "n"]].to_numpy().T
        limits = statistics.drop_limits(lost, gained, n, together)
        for end, limit in zip(("lower", "upper"), limits, strict=True):
            own.loc[able, f"drop_simultaneous_{end}"] = limit
    return tables, family


def of_recall(confidence: float) -> float:
    """How surely the limits of recall hold together.

    >>> round(of_recall(0.95), 3)
    0.998
    """
    return 1 - _SHARE_OF_RECALL * (1 - confidence)


def _recall(cell: Cells, classes: Sequence[str], confidence: float, smallest: int) -> pd.DataFrame:
    groups, labels = np.nonzero(cell.counts.sum(axis=2))
    kept, lost, gained, _, _ = cell.counts[groups, labels].T
    n = cell.counts[groups, labels].sum(axis=1)
    lower, upper = statistics.drop_limits(lost, gained, n, confidence)
    alone = n == cell.counts.sum(axis=(1, 2))[groups]
    return pd.DataFrame(
        {
            "grouping": cell.name,
            "group": np.array(cell.names, dtype=object)[groups],
            "class": np.array(classes, dtype=object)[labels],
            "n": n,
            "tested": np.select([alone, n < smallest], ["is accuracy", "too few"], "yes"),
            "lost": lost,
            "gained": gained,
            "before": (kept + lost) / n,
            "after": (kept + gained) / n,
            "drop": (lost - gained) / n,
            "drop_lower": lower,
            "drop_upper": upper,
        }
    )


def recall_ends(recall: pd.DataFrame, smallest: int) -> dict[str, Any]:
    """Of a table of `recalls` what a record holds: where it fell most or surely, and where gaps opened."""
    large = recall[recall["n"] >= smallest]
    by_class = large.groupby("class", sort=False)[["before", "after"]]
    gaps = (by_class.max() - by_class.min()).assign(increase=lambda own: own["after"] - own["before"])
    gaps = gaps[by_class.size() > 1].sort_values("increase", ascending=False, kind="stable")
    falls = large.sort_values("drop", ascending=False, kind="stable").head(_LISTED)
    sure = recall[recall["drop_simultaneous_lower"] > 0]
    sure = sure.sort_values("drop_simultaneous_lower", ascending=False, kind="stable")
    return {
        "cells": len(large),
        "tested": int((recall["tested"] == "yes").sum()),
        "too_few": int((recall["tested"] == "too few").sum()),
        "fell": len(sure),
        "surely_fell": [_recall_row(row) for row in sure.head(_LISTED).to_dict("records")],
        "largest_drops": [_recall_row(row) for row in falls.to_dict("records")],
        "disparities": gaps.head(_LISTED).reset_index().to_dict("records"),
    }


def _recall_row(row: Mapping[Any, Any]) -> dict[str, Any]:
    drop = _interval(row["drop"], row["drop_lower"], row["drop_upper"])
    if not np.isnan(row["drop_simultaneous_lower"]):
        drop |= {end: row[f"drop_{end}"] for end in ("simultaneous_lower", "simultaneous_upper")}
    return {**{name: row[name] for name in ("class", "group", "n", "before", "after")}, "drop": drop}


@dataclass(frozen=True)
class Spread:
    """A quantity of every image before and after, and the edges of its bins."""

    before: NDArray[np.float64]
    after: NDArray[np.float64]
    edges: NDArray[np.float64]


def spreads(pairs: predictions.Pairs) -> dict[str, Spread]:
    """How sure the answers are and how far from the border, where there are scores."""
    if pairs.scores is None:
        return {}
    before, after = (_sureness(scores, pairs.labels, pairs.kind) for scores in pairs.scores)
    edges = {
        "confidence": np.linspace(0, 1, _CONFIDENCE_BINS + 1),
        "margin": _around_zero(np.concatenate([before["margin"], after["margin"]])),
    }
    return {name: Spread(before[name], after[name], own) for name, own in edges.items()}


def histograms(cell: Cells, spreads: Mapping[str, Spread]) -> dict[str, Any]:
    """How many images of each group lie in each bin, before and after."""
    inside = cell.codes >= 0

    def counts(values: NDArray[np.float64], edges: NDArray[np.float64]) -> list[list[int]]:
        bins = np.searchsorted(edges[1:-1], values[inside], side="right")
        shape = len(cell.names), len(edges) - 1
        flat = np.ravel_multi_index((cell.codes[inside], bins), shape)
        table: list[list[int]] = np.bincount(flat, minlength=shape[0] * shape[1]).reshape(shape).tolist()
        return table

    return {
        name: {
            "edges": [round(float(edge), 9) for edge in own.edges],
            "groups": [
                {"group": group, "before": before, "after": after}
                for group, before, after in zip(
                    cell.names, counts(own.before, own.edges), counts(own.after, own.edges), strict=True
                )
            ],
        }
        for name, own in spreads.items()
    }


def _around_zero(margins: NDArray[np.float64]) -> NDArray[np.float64]:
    """Edges of bins for all but the outermost margins, zero among them: right and wrong share no bin.

    >>> edges = _around_zero(np.array([0.9, 1.0, 5.0]))
    >>> len(edges), int(np.flatnonzero(edges == 0)[0])
    (61, 6)
    """
    low, high = np.quantile(margins, [0.005, 0.995])
    low, high = min(low, 0.0), max(high, 0.0)
    step = max((high - low) / (_MARGIN_BINS - _BLOCK - 1), 1e-6)
    first = _BLOCK * np.floor(min(low / step, -1) / _BLOCK)
    return step * np.arange(first, first + _MARGIN_BINS + 1)


def _sureness(
    scores: NDArray[np.float64], labels: NDArray[np.intp], kind: predictions.Kind | None
) -> dict[str, NDArray[np.float64]]:
    """The probability of the predicted class, and the true class's score minus the highest other."""
    rows = np.arange(len(scores))
    top = scores.max(axis=1)
    confidence = top if kind == "probability" else np.exp(top - special.logsumexp(scores, axis=1))
    own = scores[rows, labels]
    others = scores.copy()
    others[rows, labels] = -np.inf
    return {"confidence": confidence, "margin": own - others.max(axis=1)}


def zeros_by_layer(layers: pd.DataFrame) -> list[dict[str, Any]]:
    """For each layer its number of weights and the share of zeros among them, before and after."""
    wanted = ["layer", "weights", "zero_before", "zero_after"]
    if missing := [name for name in wanted if name not in layers]:
        raise BadInput(f"The table of layers has no column {missing[0]}; expected {', '.join(wanted)}.")
    return [
        {
            "layer": str(layer),
            "weights": int(weights),
            "zero_before": float(before),
            "zero_after": float(after),
        }
        for layer, weights, before, after in layers[wanted].itertuples(index=False)
    ]
