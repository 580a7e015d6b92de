"""What an audit measures of groups: accuracy, what they lost, the gap and the contrast between them.

`cells` divides the rows of an audit into groups. Here intervals are put to what became of them; `rates` does
the same class by class. What these functions return are the entries of an audit's record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from fairq_audit import predictions, statistics
from fairq_audit.cells import Cells
from fairq_audit.sampling import Counts
from fairq_utils import intervals
from fairq_utils.errors import BadInput

POWER = 0.8
RESAMPLES = 2000
# Each is the mean of a value of a row: kept, lost, gained, wrong and the same, wrong and changed.
OUTCOMES = {
    "accuracy_before": (1, 1, 0, 0, 0),
    "accuracy_after": (1, 0, 1, 0, 0),
    "drop": (0, 1, -1, 0, 0),
    "flip_rate": (0, 1, 1, 0, 1),
}
_CONFIDENCE_BINS = 50
_MARGIN_BINS = 60
_BLOCK = 6  # zero lies after a multiple of so many bins: it stays an edge when neighbours are merged


def measure(
    overall: NDArray[np.int64] | Counts,
    groupings: Mapping[str, Mapping[str, NDArray[np.int64]]],
    *,
    confidence: float = 0.95,
    margin: float | None = None,
    seed: int = 0,
    reference: str | None = None,
    sampled: Mapping[str, Counts] | None = None,
) -> dict[str, Any]:
    """What counts alone say: the entries `overall`, `worst_group_drop` and `groupings` of an audit's record.

    Five counts describe some rows: how many predictions were kept (right throughout), lost, gained, the same
    and wrong, and wrong in another way after. `groupings` holds them by grouping and group. Where rows are
    weighted or belong together, `sampled` has by grouping what they are worth. `reference`: the group that
    the others are compared with, in the groupings that have it; elsewhere the largest.

    >>> counts = {"ash": np.array([800, 30, 20, 140, 10]), "elm": np.array([150, 30, 2, 16, 2])}
    >>> found = measure(sum(counts.values()), {"tree": counts})
    >>> {end: round(found["worst_group_drop"][end], 2) for end in ("estimate", "lower", "upper")}
    {'estimate': 0.14, 'lower': 0.09, 'upper': 0.2}
    >>> {end: round(found["groupings"][0]["contrast"][end], 2) for end in ("estimate", "lower", "upper")}
    {'estimate': 0.13, 'lower': 0.08, 'upper': 0.19}
    """
    family = sum(len(groups) for groups in groupings.values())
    parts = sampled or {name: _plain(np.stack(list(own.values()))) for name, own in groupings.items()}
    everyone = overall if isinstance(overall, Counts) else _plain(overall[None])
    rows = [
        row
        for name in groupings
        for row in _outcomes(parts[name], confidence=confidence, family=family, margin=margin)
    ]
    for row, p in zip(rows, intervals.holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = float(p)
    left = iter(rows)
    found: list[dict[str, Any]] = []
    # FVO is judged once a grouping; together these intervals hold as often as one was asked to.
    stricter = 1 - (1 - confidence) / len(groupings)
    for name, groups in groupings.items():
        own: list[dict[str, Any]] = [{"group": group, "pooled": False, **next(left)} for group in groups]
        counts = parts[name]
        least = np.minimum.reduce(list(counts.effective.values()))
        gap = statistics.fvo_of_one_pair(counts.weighted * least[:, None], stricter, RESAMPLES, seed)
        found.append(
            {
                "name": name,
                "groups": own,
                "fvo_before": _interval(*gap.before) | _ends(own, "accuracy_before"),
                "fvo_after": _interval(*gap.after) | _ends(own, "accuracy_after"),
                "fvo_increase": _interval(*gap.increase),
                "fvo_confidence": stricter,
                "contrast": _contrast(counts, list(groups), stricter, reference),
                "worst_group_drop": _worst([_drop(name, group) for group in own]),
            }
        )
    return {
        "overall": _outcomes(everyone, confidence=confidence, family=1, margin=margin)[0],
        "worst_group_drop": _worst([grouping["worst_group_drop"] for grouping in found]),
        "groupings": found,
    }


def _plain(counts: NDArray[np.int64]) -> Counts:
    return Counts.plain(counts, list(OUTCOMES))


def _ends(groups: Sequence[Mapping[str, Any]], accuracy: str) -> dict[str, str]:
    ranked = sorted(groups, key=lambda group: group[accuracy]["estimate"])
    return {"best": ranked[-1]["group"], "worst": ranked[0]["group"]}


def _contrast(
    counts: Counts, names: Sequence[str], confidence: float, reference: str | None
) -> dict[str, Any] | None:
    """How much more the others lost than one group; None where there is one group alone."""
    if len(names) < 2:
        return None
    n = counts.rows.sum(axis=1)
    place = names.index(reference) if reference in names else int(n.argmax())
    lost, gained, size = _worth(counts, "drop", (statistics.LOST, statistics.GAINED))
    limits = statistics.drop_limits(lost, gained, size, confidence)
    found = statistics.contrast_limits((lost - gained) / size, *limits, place)
    return {"reference": names[place], **_interval(*found)}


def _worth(counts: Counts, measure: str, kinds: Sequence[int]) -> list[intervals.Floats]:
    """Rows of these kinds, and of all, counted as the independent rows that they are worth."""
    scaled = counts.weighted * counts.effective[measure][:, None]
    return [*(scaled[:, kind] for kind in kinds), scaled.sum(axis=1)]


def _drop(grouping: str, group: Mapping[str, Any]) -> dict[str, Any]:
    drop = group["drop"]
    ends = {"estimate": drop["estimate"], "lower": drop["simultaneous_lower"], "upper": drop["upper"]}
    return {"grouping": grouping, "group": group["group"], **ends}


def _outcomes(
    counts: Counts, *, confidence: float, family: int, margin: float | None
) -> list[dict[str, Any]]:
    """For each row of counts all that is said of a group."""
    n = counts.rows.sum(axis=1)
    together = intervals.simultaneous(confidence, family)
    measured = {}
    for name in ("accuracy_before", "accuracy_after", "flip_rate"):
        kinds = np.flatnonzero(OUTCOMES[name])
        *hits, size = _worth(counts, name, kinds.tolist())
        hit = np.minimum(np.sum(hits, axis=0), size)  # of weights, sums may differ in their last digit
        measured[name] = (hit / size, *intervals.share_limits(hit, size, confidence))
    lost, gained, size = _worth(counts, "drop", (statistics.LOST, statistics.GAINED))
    narrow = statistics.drop_limits(lost, gained, size, confidence)
    measured["drop"] = ((lost - gained) / size, *narrow)
    wide = narrow if family == 1 else statistics.drop_limits(lost, gained, size, together)
    p = intervals.sign_test(lost, gained)
    equivalence = None if margin is None else statistics.equivalence_p(lost, gained, size, margin)
    rows = []
    for at, count in enumerate(n.tolist()):
        row: dict[str, Any] = {"n": count}
        for name in OUTCOMES:
            row[name] = _interval(*(float(own[at]) for own in measured[name]))
        row["drop"] |= {"simultaneous_lower": float(wide[0][at]), "simultaneous_upper": float(wide[1][at])}
        row |= {"p": float(p[at]), "p_holm": float(p[at])}
        for name, kind in (
            ("lost", statistics.LOST),
            ("gained", statistics.GAINED),
            ("changed", statistics.CHANGED),
        ):
            row[name] = int(counts.rows[at, kind])
        row["effective_n"] = float(size[at])
        row["detectable_drop"] = statistics.detectable_drop(
            round(float(size[at])),
            float((lost[at] + gained[at]) / size[at]),
            row["accuracy_before"]["estimate"],
            together,
            POWER,
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
    """The largest drop: surely as large as any group's lower limit, and hardly larger than every upper one.

    So the ends may be those of other groups than the one that lost most; they are named.
    """
    worst = max(drops, key=lambda drop: drop["estimate"])
    ends = {end: max(drops, key=lambda drop: drop[end]) for end in ("lower", "upper")}
    return {
        **worst,
        **{end: one[end] for end, one in ends.items()},
        **{f"{end}_of": one.get(f"{end}_of", one["group"]) for end, one in ends.items()},
    }


@dataclass(frozen=True)
class Spread:
    """A quantity of every row before and after, and the edges of its bins."""

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
    """How many rows of each group lie in each bin, before and after."""
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
