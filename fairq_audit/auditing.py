"""Who pays when this model was quantized? An answer from two tables of predictions.

`audit` takes what a model answered before and after, from any framework, and says group by group what was
lost, how sure that is, and what could not have been seen. `answers` reads the tables, `paired` holds the
statistics and `gates` what a pipeline may fail on. Nothing here needs a network or torch.
"""

from __future__ import annotations

import functools
import html
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from fairq_audit import gates, report, statistics
from fairq_audit import predictions as fairq_audit_predictions
from fairq_audit.gates import shown
from fairq_audit.predictions import Predictions
from fairq_utils import __version__
from fairq_utils.errors import BadInput
from fairq_utils.files import check_replaceable, replace_folder, saying_what_cannot_be_written

_SCHEMA = "audit-1"
POWER = 0.8
RESAMPLES = 2000
# Without a margin, an audit that could not have shown a drop of so much in some group cannot tell.
TELLING_DROP = 0.05
# Of the chance that a limit is wrong, what those of recall have, all together: so little that it hardly adds
# to that of groups and of all images, and still it takes only a few more lost images to show a loss.
_SHARE_OF_RECALL = 1 / 25
MOST_GROUPS = 250
_LISTED = 20
_TABLES = ("groups", "fvo", "recall", "pooled", "distributions", "layers", "gates")
_FILES = {
    *("report.html", "audit.json", "model_card.md", "before.parquet", "after.parquet"),
    *(f"{name}.csv" for name in _TABLES),
}
_CONFIDENCE_BINS = 50
_MARGIN_BINS = 60
_BLOCK = 6  # zero lies after a multiple of so many bins: it stays an edge when neighbours are merged


def audit(
    before: Predictions,
    after: Predictions,
    *,
    groups: str | Sequence[str] = "group",
    names: tuple[str, str] | None = None,
    margin: float | None = None,
    confidence: float = 0.95,
    smallest_cell: int = 20,
    fail_if: Sequence[str] = (),
    decide_on: str = "lower",
    drop_unmatched: bool = False,
    layers: pd.DataFrame | None = None,
    description: str | None = None,
    seed: int = 0,
) -> Audit:
    """Audit a model that was quantized (or changed in any other way), from what it answered before and after.

    `before` and `after` are CSV or Parquet files or data frames with one row per image: `id`, `label`, a
    column for each of `groups`, and `prediction`, or a column `logit_<class>` (or `probability_<class>`)
    for each class; then the class with the highest score is the prediction. `after` may leave out label
    and groups. Several `groups` are audited each by itself and crossed; crossed cells of fewer than
    `smallest_cell` images are pooled.

    `margin` is the smallest drop that matters, a fraction: with it the audit also tests whether every
    group stayed within it. `fail_if` are gates such as "fvo_increase > 0.03"; `decide_on` says whether
    one fails when the interval's lower end, the estimate or the upper end is beyond. `layers` may hold,
    for each layer, `weights` and the share of zeros before and after (`zero_before`, `zero_after`).

    >>> before = pd.DataFrame({"id": range(600), "label": ["moth", "moth", "fly", "fly"] * 150})
    >>> before = before.assign(group=["ash", "elm"] * 300, prediction=before["label"])
    >>> after = before.assign(prediction=["moth", "fly", "fly", "moth", "moth", "moth", "fly", "fly"] * 75)
    >>> print(audit(before, after).sentence)
    Group elm lost 50.0 points of accuracy, at least 43.6 allowing for both groups that were looked at.
    The gap between the best and the worst group rose by 50.0 points (43.8 to 55.4).
    """
    columns = [groups] if isinstance(groups, str) else list(groups)
    if not columns or len(set(columns)) < len(columns) or set(columns) & {"id", "prediction"}:
        raise BadInput(
            f"groups is {columns}; expected one column or several, each once, such as gender,race."
        )
    if smallest_cell < 2:
        raise BadInput(f"smallest_cell is {smallest_cell}; expected 2 images or more, such as 20.")
    # Refused before anything is read:
    statistics.two_sided(confidence)
    asked = [gates.parse(expression, decide_on) for expression in fail_if]
    gates.check_end(decide_on)
    fairq_audit_predictions.check_two_files(before, after)
    first = fairq_audit_predictions.read(before, columns, called="The first table", with_labels=True)
    second = fairq_audit_predictions.read(after, columns, called="The second table", with_labels=False)
    pairs = fairq_audit_predictions.pair(first, second, columns, drop_unmatched=drop_unmatched)

    cells = _groupings(pairs, columns, smallest_cell)
    overall = np.bincount(pairs.kinds, minlength=5)
    by_group = {cell.name: dict(zip(cell.names, cell.counts.sum(axis=1), strict=True)) for cell in cells}
    measured = measure(overall, by_group, confidence=confidence, margin=margin, seed=seed)
    recalls, recall_family = _recalls(cells, pairs.classes, confidence, smallest_cell)
    spreads = _spreads(pairs)
    for cell, recall, grouping in zip(cells, recalls, measured["groupings"], strict=True):
        grouping |= {
            "columns": cell.columns,
            "pooled": cell.pooled,
            "recall": _recall_ends(recall, smallest_cell),
            "distributions": _histograms(cell, spreads) if spreads else None,
        }
        if cell.pooled and cell.pooled["kept"]:
            grouping["groups"][-1]["pooled"] = True
    dropped = [_dropped(out, pairs, cells, smallest_cell) for out in pairs.left_out]
    missing = gates.parse("worst_group_drop > 0", "estimate").judge(
        measured | {"compared": {"dropped": dropped}}
    )["with_missing"]
    found = verdict(measured, confidence=confidence, margin=margin, missing=missing)
    told = [_missing_said(out, entry) for out, entry in zip(pairs.left_out, dropped, strict=True)]
    warnings = [*pairs.warnings, *told]
    called = names or _names(first, second)
    record: dict[str, Any] = {
        "schema": _SCHEMA,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "package": {"name": "fairq-utils", "version": __version__},
        "compared": {
            "before": {"name": called[0], "file": first.file, "rows": len(first.table)},
            "after": {"name": called[1], "file": second.file, "rows": len(second.table)},
            "description": description,
            "n": measured["overall"]["n"],
            "classes": pairs.classes,
            "group_columns": columns,
            "scores": pairs.kind if pairs.scores else None,
            "dropped": dropped,
        },
        "settings": {
            "confidence": confidence,
            "margin": margin,
            "smallest_cell": smallest_cell,
            "resamples": RESAMPLES,
            "seed": seed,
            "power": POWER,
            "family": sum(len(cell.names) for cell in cells),
            "recall_family": recall_family,
            "recall_confidence": _of_recall(confidence),
            "decide_on": decide_on,
        },
        "verdict": found | {"warnings": warnings, "sentence": " ".join([*warnings, found["sentence"]])},
        **measured,
        "layers": None if layers is None else _layers(layers),
        "not_tested": _not_tested(pairs, measured["groupings"], smallest_cell),
    }
    record["gates"] = [gate.judge(record) for gate in asked]
    record["passed"] = all(gate["passed"] for gate in record["gates"]) if asked else None
    return Audit(record, pd.concat(recalls, ignore_index=True))


def _names(
    first: fairq_audit_predictions.Answers, second: fairq_audit_predictions.Answers
) -> tuple[str, str]:
    """The models are called as their files are, when that tells them apart."""
    if not first.file or not second.file or Path(first.file).stem == Path(second.file).stem:
        return "before", "after"
    return Path(first.file).stem, Path(second.file).stem


@dataclass(frozen=True)
class Audit:
    """What an audit found: a sentence, tables, gates, and files.

    `record` is the whole of it, in the form that `schemas/audit-1.json` describes. In a notebook it shows the
    report, without the time at which it was made: that is in the files that `write` leaves.
    """

    record: dict[str, Any]
    recall: pd.DataFrame

    @property
    def verdict(self) -> str:
        """One of: harm shown, no harm found, equivalent, cannot tell."""
        return str(self.record["verdict"]["word"])

    @property
    def sentence(self) -> str:
        """The answer, with what could have been found where nothing was."""
        return str(self.record["verdict"]["sentence"])

    def __repr__(self) -> str:
        warnings, sentence = report.told(self.record["verdict"])
        return "\n".join([*warnings, f"{self.verdict.capitalize()}. {sentence}"])

    def _repr_html_(self) -> str:
        # In a frame of its own, whose style and script reach nothing of the page around it; and without the
        # time, so that a notebook that is run again stays the same where its numbers do.
        shown = report.page(self.record | {"created": ""})
        return (
            '<iframe class="fairq-report" title="Report of the audit" '
            'sandbox="allow-scripts allow-downloads" '
            'style="width:100%;height:34rem;border:1px solid #7d828a;border-radius:4px" '
            f'srcdoc="{html.escape(shown)}"></iframe>'
        )

    def passes(self, *expressions: str, decide_on: str | None = None) -> bool:
        """Whether the gates hold; without any, whether those of the audit did.

        `decide_on` is that of the audit unless said otherwise.
        """
        if not expressions:
            return self.record["passed"] is not False
        decided = decide_on or self.record["settings"]["decide_on"]
        return all(gates.parse(one, decided).judge(self.record)["passed"] for one in expressions)

    def to_json(self) -> str:
        """The whole of it as JSON, in the form of `schemas/audit-1.json`."""
        return json.dumps(self.record, indent=1, allow_nan=False, ensure_ascii=False)

    @functools.cached_property
    def tables(self) -> dict[str, pd.DataFrame]:
        """Tidy tables, each the content of a CSV file: groups, fvo, recall, and what else there is."""
        record = self.record
        everyone = {"grouping": "", "group": "all", "pooled": False, **record["overall"]}
        groups = [
            {"grouping": grouping["name"], **group}
            for grouping in record["groupings"]
            for group in grouping["groups"]
        ]
        tables = {
            "groups": pd.DataFrame(_flat(row) for row in [everyone, *groups]).drop(
                columns="equivalence", errors="ignore"
            ),
            "fvo": pd.DataFrame(
                {"grouping": grouping["name"], "measure": measure, **grouping[measure]}
                for grouping in record["groupings"]
                for measure in ("fvo_before", "fvo_after", "fvo_increase")
            ),
            "recall": self.recall,
        }
        others: dict[str, list[dict[str, Any]]] = {
            "pooled": [
                {"grouping": grouping["name"], **cell, "kept": grouping["pooled"]["kept"]}
                for grouping in record["groupings"]
                if grouping["pooled"]
                for cell in grouping["pooled"]["cells"]
            ],
            "distributions": list(_distributed(record)),
            "layers": record["layers"] or [],
            "gates": [_flat(gate) for gate in record["gates"]],
        }
        return tables | {name: pd.DataFrame(rows) for name, rows in others.items() if rows}

    def power(self, drop: float) -> pd.DataFrame:
        """What this audit could have seen: one row per group, for a true drop of that size (a fraction).

        `power`: how often such an audit would have shown it. `images_needed`: how many images of the group
        it takes to show it in 80 of 100 audits. `smallest_drop`: what its images show as often; NaN for none.
        Each when as many images flip without harm as flipped here, allowing for all groups. A group that was
        right in fewer of its images than the drop has no such drop to show.

        >>> before = pd.DataFrame({"id": range(600), "label": "moth", "group": ["ash", "elm", "elm"] * 200})
        >>> before["prediction"] = ["moth"] * 500 + ["fly"] * 100
        >>> found = audit(before, before.assign(prediction=before["prediction"].iloc[::-1].to_numpy()))
        >>> found.power(0.2).round(3)
          grouping group    n  smallest_drop  power  images_needed
        0    group   ash  200          0.150  0.957            123
        1    group   elm  400          0.101  1.000            122
        """
        settings = self.record["settings"]
        together = statistics.simultaneous(settings["confidence"], settings["family"])
        rows = []
        for grouping in self.record["groupings"]:
            for group in grouping["groups"]:
                flips = (group["lost"] + group["gained"]) / group["n"]
                possible = group["accuracy_before"]["estimate"] >= drop
                needed = statistics.images_needed(flips, drop, together, settings["power"])
                rows.append(
                    {
                        "grouping": grouping["name"],
                        "group": group["group"],
                        "n": group["n"],
                        "smallest_drop": group["detectable_drop"],
                        "power": statistics.power(group["n"], flips, drop, together) if possible else 0.0,
                        "images_needed": needed if possible else None,
                    }
                )
        return pd.DataFrame(rows).astype({"smallest_drop": float, "images_needed": "Int64"})

    def model_card(self) -> str:
        """One paragraph for a model card, in Markdown."""
        return _model_card(self.record)

    def write(
        self, folder: str | os.PathLike[str], predictions: Mapping[str, pd.DataFrame] | None = None
    ) -> list[Path]:
        """Write report.html, audit.json, model_card.md and one CSV file per table, and return their paths.

        `predictions` are tables `before` and `after` to be left beside them, as Parquet. The folder is new,
        empty, or that of an earlier audit, which is replaced as a whole: whatever goes wrong, it holds the
        one or the other. In the CSV files, text that a spreadsheet would run as a formula gets an apostrophe
        in front.
        """
        check_place(folder)
        texts = {
            "report.html": report.page(self.record),
            "audit.json": self.to_json() + "\n",
            "model_card.md": self.model_card() + "\n",
        }
        for name, table in self.tables.items():
            texts[f"{name}.csv"] = _harmless(table).to_csv(index=False, lineterminator="\n")
        contents = {name: text.encode() for name, text in texts.items()}
        for name, table in (predictions or {}).items():
            contents[f"{name}.parquet"] = table.to_parquet()
        replace_folder(Path(folder), contents)
        return [Path(folder) / name for name in contents]


# -- groups -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Cells:
    """One way to divide the images: of each image its cell, −1 for none; counts cells x classes x kinds."""

    name: str
    columns: list[str]
    names: list[str]
    codes: NDArray[np.intp]
    counts: NDArray[np.int64]
    pooled: dict[str, Any] | None


def _groupings(pairs: fairq_audit_predictions.Pairs, columns: Sequence[str], smallest: int) -> list[_Cells]:
    cells = [_column(pairs, name) for name in columns]
    return [*cells, _crossed(pairs, columns, smallest)] if len(columns) > 1 else cells


def _column(pairs: fairq_audit_predictions.Pairs, name: str) -> _Cells:
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


def _crossed(pairs: fairq_audit_predictions.Pairs, columns: Sequence[str], smallest: int) -> _Cells:
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
    pairs: fairq_audit_predictions.Pairs,
    name: str,
    columns: list[str],
    names: list[str],
    codes: NDArray[np.intp],
    pooled: dict[str, Any] | None,
) -> _Cells:
    if len(names) > MOST_GROUPS:
        raise BadInput(
            f"{shown(name)} has {len(names)} groups; expected {MOST_GROUPS} at most: name columns with "
            "fewer, or raise smallest_cell."
        )
    inside = codes >= 0
    shape = len(names), len(pairs.classes), 5
    flat = np.ravel_multi_index((codes[inside], pairs.labels[inside], pairs.kinds[inside]), shape)
    counts = np.bincount(flat, minlength=int(np.prod(shape))).reshape(shape)
    return _Cells(name, columns, names, codes, counts, pooled)


# -- rows that one table lacks ------------------------------------------------------------------------


def _dropped(
    out: fairq_audit_predictions.LeftOut,
    pairs: fairq_audit_predictions.Pairs,
    cells: Sequence[_Cells],
    smallest: int,
) -> dict[str, Any]:
    """How many rows are left out, of which groups, where the table says, and how many were right before."""
    entry: dict[str, Any] = {"reason": f"only in {out.called}", "n": out.n, "of": out.rows}
    if out.right is not None:
        entry["right"] = int(out.right.sum())
    if out.groups is not None:
        entry["groups"] = [row for cell in cells for row in _dropped_of(cell, out, pairs, smallest)]
    return entry


def _dropped_of(
    cell: _Cells, out: fairq_audit_predictions.LeftOut, pairs: fairq_audit_predictions.Pairs, smallest: int
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


def _missing_said(out: fairq_audit_predictions.LeftOut, dropped: Mapping[str, Any]) -> str:
    """How many rows are left out, and whose; and whether of some group more than chance explains."""
    said = f"{out.n:,} of {out.rows:,} rows of {out.called} are missing from {out.other} and were left out"
    if out.groups is None:
        return f"{said}; of which groups is not known."
    parts, conspicuous = [], []
    for column in map(str, out.groups):
        lost = [row for row in dropped["groups"] if row["grouping"] == column]
        whose = [f"{shown(row['group'])} {row['n']:,} of {row['of']:,}" for row in lost]
        parts.append(f"by {shown(column)} {_some(whose)}")
        # The chance that a group with such a share of the rows has so many of the missing ones:
        chances = [special.bdtrc(row["n"] - 1, out.n, row["of"] / out.rows) for row in lost]
        conspicuous += [
            shown(row["group"]) for row, p in zip(lost, chances, strict=True) if p * len(lost) < 0.05
        ]
    said += f": {'; '.join(parts)}."
    if conspicuous:
        more = f"More are missing of {_some(conspicuous)} than chance explains"
        said += f" {more}: perhaps because they went wrong."
    return said


def _some(names: Sequence[str]) -> str:
    """The first names of a list, which may be long."""
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


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
    for row, p in zip(rows, statistics.holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = float(p)
    left = iter(rows)
    found: list[dict[str, Any]] = []
    # FVO is judged once a grouping; together these intervals hold as often as one was asked to.
    stricter = 1 - (1 - confidence) / len(groupings)
    for name, groups in groupings.items():
        own: list[dict[str, Any]] = [{"group": group, "pooled": False, **next(left)} for group in groups]
        gap = statistics.gap_limits(np.stack(list(groups.values())), stricter, RESAMPLES, seed)
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
    together = statistics.simultaneous(confidence, family)
    intervals = {
        "accuracy_before": ((kept + lost) / n, *statistics.share_limits(kept + lost, n, confidence)),
        "accuracy_after": ((kept + gained) / n, *statistics.share_limits(kept + gained, n, confidence)),
        "drop": ((lost - gained) / n, *statistics.drop_limits(lost, gained, n, confidence)),
        "flip_rate": (
            (lost + gained + changed) / n,
            *statistics.share_limits(lost + gained + changed, n, confidence),
        ),
    }
    wide = intervals["drop"][1:] if family == 1 else statistics.drop_limits(lost, gained, n, together)
    p = statistics.mcnemar(lost, gained)
    equivalence = None if margin is None else statistics.equivalence_p(lost, gained, n, margin)
    rows = []
    for at, size in enumerate(n.tolist()):
        row: dict[str, Any] = {"n": size}
        for name, (estimate, lower, upper) in intervals.items():
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


def _recalls(
    cells: Sequence[_Cells], classes: Sequence[str], confidence: float, smallest: int
) -> tuple[list[pd.DataFrame], int]:
    """Recall of every class in every group that has it, a table a grouping; and the family of its limits.

    Tested is a pair with enough images, in a group that has other classes too: else recall is accuracy.
    Simultaneous limits have the pairs in which enough answers flipped that a loss could be shown. They are
    stricter than those of groups, so that the verdict of both is hardly more often wrong than of one.
    """
    tables = [_recall(cell, classes, confidence, smallest) for cell in cells]
    flips = [(own["lost"] + own["gained"]).where(own["tested"] == "yes", 0) for own in tables]
    family = statistics.able_to_show(np.concatenate(flips), _of_recall(confidence))
    together = statistics.simultaneous(_of_recall(confidence), family)
    for own, flipped in zip(tables, flips, strict=True):
        able = flipped > statistics.two_sided(together) ** 2
        lost, gained, n = own.loc[able, ["lost", "gained", "n"]].to_numpy().T
        limits = statistics.drop_limits(lost, gained, n, together)
        for end, limit in zip(("lower", "upper"), limits, strict=True):
            own.loc[able, f"drop_simultaneous_{end}"] = limit
    return tables, family


def _of_recall(confidence: float) -> float:
    """How surely the limits of recall hold together.

    >>> round(_of_recall(0.95), 3)
    0.998
    """
    return 1 - _SHARE_OF_RECALL * (1 - confidence)


def _recall(cell: _Cells, classes: Sequence[str], confidence: float, smallest: int) -> pd.DataFrame:
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


def _recall_ends(recall: pd.DataFrame, smallest: int) -> dict[str, Any]:
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
class _Spread:
    """A quantity of every image before and after, and the edges of its bins."""

    before: NDArray[np.float64]
    after: NDArray[np.float64]
    edges: NDArray[np.float64]


def _spreads(pairs: fairq_audit_predictions.Pairs) -> dict[str, _Spread]:
    """How sure the answers are and how far from the border, where there are scores."""
    if pairs.scores is None:
        return {}
    before, after = (_sureness(scores, pairs.labels, pairs.kind) for scores in pairs.scores)
    edges = {
        "confidence": np.linspace(0, 1, _CONFIDENCE_BINS + 1),
        "margin": _around_zero(np.concatenate([before["margin"], after["margin"]])),
    }
    return {name: _Spread(before[name], after[name], own) for name, own in edges.items()}


def _histograms(cell: _Cells, spreads: Mapping[str, _Spread]) -> dict[str, Any]:
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
    scores: NDArray[np.float64], labels: NDArray[np.intp], kind: fairq_audit_predictions.Kind | None
) -> dict[str, NDArray[np.float64]]:
    """The probability of the predicted class, and the true class's score minus the highest other."""
    rows = np.arange(len(scores))
    top = scores.max(axis=1)
    confidence = top if kind == "probability" else np.exp(top - special.logsumexp(scores, axis=1))
    own = scores[rows, labels]
    others = scores.copy()
    others[rows, labels] = -np.inf
    return {"confidence": confidence, "margin": own - others.max(axis=1)}


def _layers(layers: pd.DataFrame) -> list[dict[str, Any]]:
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


# -- sentences ----------------------------------------------------------------------------------------


def _points(fraction: float) -> str:
    return f"{100 * fraction:.1f}".replace("-", "−").replace("−0.0", "0.0")


def _between(change: Mapping[str, float]) -> str:
    return f"{_points(change['lower'])} to {_points(change['upper'])}"


def _harmed(record: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """The groups that surely lost, most first."""
    sure = [
        (grouping["name"], group)
        for grouping in record["groupings"]
        for group in grouping["groups"]
        if group["drop"]["simultaneous_lower"] > 0
    ]
    return sorted(sure, key=lambda found: -found[1]["drop"]["estimate"])


def _fell(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The pairs of class and group whose recall surely fell, most first.

    `further`: surely by more than the accuracy of the group, which so does not tell of it.
    """
    sure = []
    for grouping in record["groupings"]:
        drops = {group["group"]: group["drop"]["estimate"] for group in grouping["groups"]}
        for cell in grouping.get("recall", {}).get("surely_fell", []):
            lower = cell["drop"]["simultaneous_lower"]
            own = {"grouping": grouping["name"], "lower": lower, "further": lower > drops[cell["group"]]}
            sure.append({**cell, **own})
    return sorted(sure, key=lambda cell: -cell["lower"])


def _pairs(record: Mapping[str, Any], count: str) -> int:
    """How many pairs of class and group were tested, or had too few images, or fell."""
    return sum(grouping.get("recall", {}).get(count, 0) for grouping in record["groupings"])


def verdict(
    record: Mapping[str, Any],
    *,
    confidence: float,
    margin: float | None,
    missing: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A word, the sentences to it, and the groups and classes that surely lost, from what `measure` gives.

    Harm is shown when the drop of a group is above 0 with all groups looked at, or that of all images, or
    the drop of a class's recall in a group with all such pairs looked at. With a margin, all groups within
    it are equivalent, however surely one lost a little, unless a class surely fell by more in one of them.
    Otherwise it matters what could have been found: where a group's smallest drop that the audit would have
    shown is above the margin (5 points without one), it cannot tell. Nor can it where rows are `missing`
    after and a group would have lost so much were they wrong.
    """
    harmed, fell = _harmed(record), _fell(record)
    groups = [group for grouping in record["groupings"] for group in grouping["groups"]]
    overall = record["overall"]["drop"]
    telling = TELLING_DROP if margin is None else margin
    sentences = []
    if margin is not None and all(group["equivalence"]["equivalent"] for group in groups):
        word = "equivalent"
        sentences += [
            f"In every group accuracy stayed within {_points(margin)} points, up or down, by two one-sided "
            f"tests at {100 * confidence:g} % each."
        ]
        if harmed:
            sentences += [f"Within that margin, {_loss(harmed, len(groups))}."]
        if fell and fell[0]["lower"] > margin:
            word = "harm shown"
            sentences.insert(0, f"{_class_loss(record, fell)} Accuracy hides it.")
        else:
            sentences += [*([_class_loss(record, fell)] if fell else []), *_other_classes(record)]
    elif harmed or fell:
        word = "harm shown"
        if harmed:
            loss = _loss(harmed, len(groups))
            sentences += [f"{loss[0].upper()}{loss[1:]}."]
        # Where a group lost, its classes did: told is a class that lost more than its group.
        further = [cell for cell in fell if cell["further"] or not harmed]
        if further:
            second = bool(harmed) and further[0]["lower"] < harmed[0][1]["drop"]["estimate"]
            sentences.insert(1 if second else 0, _class_loss(record, further))
        sentences += _gap(record)
    elif overall["lower"] > 0:
        word = "harm shown"
        sentences += [
            f"Over all images {_points(overall['estimate'])} points of accuracy were lost "
            f"({_points(overall['lower'])} to {_points(overall['upper'])}), but no group's loss is sure by "
            "itself: who pays cannot be told.",
            _power(groups),
        ]
    else:
        blind = any(
            group["detectable_drop"] is None or group["detectable_drop"] > telling for group in groups
        )
        word = "cannot tell" if blind else "no harm found"
        sentences += ["No group's loss is sure, and that is no proof that there is none.", _power(groups)]
        if blind:
            what = "the margin" if margin is not None else "a drop that would matter"
            sentences += [f"That is too blunt to tell: {what}, {_points(telling)} points, could go unseen."]
    if missing and missing["value"] > telling and word in ("equivalent", "no harm found"):
        word = "cannot tell"
        group = shown(missing["group"])
        sentences.insert(
            0,
            f"If the {missing['n']:,} missing rows of {group} count as wrong, {group} lost "
            f"{_points(missing['value'])} points, so whether anybody lost cannot be told. The rest is of "
            "the other rows.",
        )
    return {
        "word": word,
        "sentence": " ".join(sentences),
        "harmed": [{"grouping": name, "group": group["group"]} for name, group in harmed],
        "harmed_classes": [{name: cell[name] for name in ("grouping", "group", "class")} for cell in fell],
    }


def _class_loss(record: Mapping[str, Any], fell: Sequence[Mapping[str, Any]]) -> str:
    """What the class lost that surely lost most, and which others did."""
    worst, tested = fell[0], _pairs(record, "tested")
    drop = worst["drop"]
    said = (
        f"In {shown(worst['group'])} the class {shown(worst['class'])} lost {_points(drop['estimate'])} "
        f"points of recall ({_points(drop['simultaneous_lower'])} to {_points(drop['simultaneous_upper'])}"
        f"{f', allowing for all {_of_pairs(tested)}' if tested > 1 else ''})"
    )
    listed = [f"{shown(cell['class'])} in {shown(cell['group'])}" for cell in fell[1:4]]
    more = _pairs(record, "fell") - 1 - len(listed)
    if listed:
        said += f"; {', '.join(listed)}{f' and {more:,} more' if more else ''} surely lost too"
    return f"{said}."


def _other_classes(record: Mapping[str, Any]) -> Iterator[str]:
    """What the equivalence of groups leaves open about their classes; nothing where there is one class."""
    tested, few = _pairs(record, "tested"), _pairs(record, "too_few")
    if tested:
        yield f"In none of {_of_pairs(tested)} is a loss of recall beyond the margin sure."
    if few:
        yield f"In {_of_pairs(few)} the images are too few to tell whether recall fell."


def _of_pairs(count: int) -> str:
    return f"{count:,} pair{'s' if count > 1 else ''} of class and group"


def _loss(harmed: Sequence[tuple[str, Mapping[str, Any]]], looked_at: int) -> str:
    worst = harmed[0][1]
    allowing = (
        ""
        if looked_at == 1
        else f" allowing for {'both' if looked_at == 2 else f'all {looked_at}'} groups that were looked at"
    )
    lost = (
        f"group {shown(worst['group'])} lost {_points(worst['drop']['estimate'])} points of accuracy, at "
        f"least {_points(worst['drop']['simultaneous_lower'])}{allowing}"
    )
    others = [shown(group["group"]) for _, group in harmed[1:]]
    if not others:
        return lost
    return f"{lost}; {_some(others) if len(harmed) < looked_at else 'all others'} surely lost too"


def _gap(record: Mapping[str, Any]) -> Iterator[str]:
    """A sentence on the gap that rose most surely; none where every column has one group alone."""
    groupings = [own for own in record["groupings"] if len(own["groups"]) > 1]
    if not groupings:
        return
    grouping = max(groupings, key=lambda own: own["fvo_increase"]["lower"])
    rise = grouping["fvo_increase"]
    gap = "the gap between the best and the worst group"
    if rise["lower"] <= 0 <= rise["upper"]:
        said = f"it is not decided whether {gap} rose ({_between(rise)} points)."
    else:
        far, went = report.unsigned(rise), "rose" if rise["estimate"] > 0 else "shrank"
        said = f"{gap} {went} by {_points(far['estimate'])} points ({_between(far)})."
    yield _by(record, grouping, said)


def _by(record: Mapping[str, Any], grouping: Mapping[str, Any], said: str) -> str:
    """A sentence on one grouping, which it names where there are several."""
    if len(record["groupings"]) > 1:
        return f"By {shown(grouping['name'])}, {said}"
    return said[0].upper() + said[1:]


def _power(groups: Sequence[Mapping[str, Any]]) -> str:
    """What could have been found, at best and at worst."""
    blind = [shown(group["group"]) for group in groups if group["detectable_drop"] is None]
    seeing = sorted(
        (group for group in groups if group["detectable_drop"] is not None),
        key=lambda group: group["detectable_drop"],
    )
    sentences = []
    if blind:
        sentences.append(
            f"In {_some(blind)} no drop, however large, would have been found: too few right answers to lose."
        )
    if seeing:
        sharp, dull = seeing[0], seeing[-1]
        least, most = _points(sharp["detectable_drop"]), _points(dull["detectable_drop"])
        sharpest = f" ({least} in {shown(sharp['group'])})" if least != most else ""
        sentences.append(
            f"In 80 of 100 such audits a drop of {most} points or more would have been found in any "
            f"{'other ' if blind else ''}group{sharpest}; smaller ones may be there."
        )
    return " ".join(sentences)


def _not_tested(
    pairs: fairq_audit_predictions.Pairs, groupings: Sequence[Mapping[str, Any]], smallest: int
) -> list[str]:
    sentences = [
        "Images unlike these: the intervals hold for images that are drawn as these were.",
        "Other training runs: one model was compared with one, and another seed may fail other groups.",
        "Groups that no column names, and whether the names of the groups and the labels are right.",
    ]
    tested, few = (sum(own["recall"][count] for own in groupings) for count in ("tested", "too_few"))
    if tested + few:
        smaller = f", and {_of_pairs(few)} with fewer than {smallest} images not even for that" if few else ""
        sentences.append(
            f"Whether recall of a class in a group stayed the same: it was tested for a loss alone{smaller}."
        )
    if pairs.scores is None:
        sentences.append("How sure the models were: at least one table holds predictions without scores.")
    if pairs.left_out:
        n = sum(out.n for out in pairs.left_out)
        sentences.append(f"The {n:,} images that stand in one table alone: they were left out.")
    if pairs.never_predicted:
        listed = ", ".join(map(shown, pairs.never_predicted[:5]))
        sentences.append(
            f"Labels that neither model ever predicts count as wrong throughout ({listed}): check that they "
            "are spelt as the predictions are."
        )
    for grouping in groupings:
        if len(grouping["groups"]) == 1:
            sentences.append(
                f"{shown(grouping['name'])} has one group alone, so there is no gap to speak of."
            )
        pooled = grouping["pooled"]
        if pooled:
            what = (
                "were pooled" if pooled["kept"] else "count over all images alone, being too few for a pool"
            )
            sentences.append(
                f"{len(pooled['cells'])} cells of {shown(grouping['name'])} with fewer than "
                f"{pooled['smallest']} images each ({pooled['n']} together) {what}: what happened in each by "
                "itself is not known."
            )
    return sentences


def _model_card(record: Mapping[str, Any]) -> str:
    compared, overall, worst = record["compared"], record["overall"], record["worst_group_drop"]
    before, after = compared["before"]["name"], compared["after"]["name"]
    was, now = (_points(overall[f"accuracy_{side}"]["estimate"]) for side in ("before", "after"))
    allowing = f": {report.WHOSE_ENDS['worst_group_drop']}" if record["settings"]["family"] > 1 else ""
    together = ", those of gaps together" if len(record["groupings"]) > 1 else ""
    warnings, sentence = report.told(record["verdict"])
    text = "".join(f"{warning} " for warning in warnings)
    text += (
        f"The accuracy of {shown(before)} and {shown(after)} was compared on {compared['n']:,} images, by "
        f"{' and '.join(map(shown, compared['group_columns']))}. Over all images it went from "
        f"{was} % to {now} %; the largest drop of a group was {_points(worst['estimate'])} points "
        f"({shown(worst['group'])}; {_points(worst['lower'])} to {_points(worst['upper'])}{allowing}). "
    )
    for grouping in record["groupings"]:
        if len(grouping["groups"]) == 1:
            continue
        first, second, rise = (grouping[f"fvo_{name}"] for name in ("before", "after", "increase"))
        far = report.unsigned(rise)
        way = f"a {'fall' if rise['estimate'] < 0 else 'rise'} of {_points(far['estimate'])}"
        said = (
            f"the gap between the best and the worst group went from {_points(first['estimate'])} to "
            f"{_points(second['estimate'])} points, {way} ({_between(far)}). "
        )
        text += _by(record, grouping, said)
    text += f"Verdict: {record['verdict']['word']}. {sentence} "
    text += (
        f"Intervals are at {100 * record['settings']['confidence']:g} %{together}. "
        f"Not tested: other training runs, other images. Made by {record['package']['name']} "
        f"{record['package']['version']}."
    )
    return as_markdown(text)


def as_markdown(text: str) -> str:
    r"""The text as Markdown that reads the same, whatever the names in it look like.

    >>> print(as_markdown("<b> of *all*"))
    \<b\> of \*all\*
    """
    return re.sub(r"([\\`*_\[\]<>#|~&!$])", r"\\\1", text)


# -- files --------------------------------------------------------------------------------------------


def check_place(folder: str | os.PathLike[str]) -> None:
    """Refuse a folder that an audit may not replace: one that holds anything else, or cannot be written."""
    place = Path(folder)
    check_replaceable(place)
    with saying_what_cannot_be_written(place):
        entries = sorted(place.iterdir()) if place.is_dir() else []
        ours = _FILES if _holds_an_audit(place / "audit.json") else set()
    for entry in entries:
        if entry.name not in ours or not entry.is_file():
            raise BadInput(
                f"{place} holds {shown(entry.name)!r}, which is no part of an audit; expected a new or an "
                "empty folder, or one that holds an earlier audit and nothing else, which is replaced: name "
                "another, or move it away."
            )


def _holds_an_audit(path: Path) -> bool:
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):  # no file, or no JSON
        return False
    return isinstance(record, dict) and record.get("schema") == _SCHEMA


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """Nested numbers beside each other: drop_lower for drop's lower; an estimate has the name alone."""
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            flat |= {name if end == "estimate" else f"{name}_{end}": own for end, own in value.items()}
        else:
            flat[name] = value
    return flat


def _distributed(record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for grouping in record["groupings"]:
        for measure, histogram in (grouping["distributions"] or {}).items():
            edges = histogram["edges"]
            for group in histogram["groups"]:
                for at, (before, after) in enumerate(zip(group["before"], group["after"], strict=True)):
                    yield {
                        "grouping": grouping["name"],
                        "measure": measure,
                        "group": group["group"],
                        "from": edges[at],
                        "to": edges[at + 1],
                        "before": before,
                        "after": after,
                    }


def _harmless(table: pd.DataFrame) -> pd.DataFrame:
    """A table whose text no spreadsheet runs, in lines that nothing breaks."""

    def quiet(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        line = "".join(char if char.isprintable() else " " for char in value)
        return f"'{line}" if value.startswith(("=", "+", "-", "@", "\t", "\r")) else line

    texts = table.select_dtypes(include=["object"]).columns
    return table.assign(**{name: table[name].map(quiet) for name in texts})
