"""Who pays when this model was quantized? An answer from two tables of predictions.

`audit` takes what a model answered before and after, from any framework, and says group by group what was
lost, how sure that is, and what could not have been seen. `answers` reads the tables, `audit_measures`
counts and measures, `audit_sentences` says what was found, and `gates` holds what a pipeline may fail on.
Nothing here needs a network or torch.
"""

from __future__ import annotations

import functools
import html
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fairq_audit import arguments, gates, measures, report, sentences, statistics
from fairq_audit import predictions as fairq_audit_predictions
from fairq_audit.formats import shown
from fairq_audit.predictions import Predictions
from fairq_utils import __version__, intervals
from fairq_utils.errors import BadInput
from fairq_utils.files import check_replaceable, replace_folder, saying_what_cannot_be_written

_TABLES = ("groups", "fvo", "recall", "pooled", "distributions", "layers", "gates")
_FILES = {
    *("report.html", "audit.json", "model_card.md", "before.parquet", "after.parquet"),
    *(f"{name}.csv" for name in _TABLES),
}


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
    # Refused before anything is read:
    columns = arguments.group_columns(groups)
    arguments.check(
        names=names,
        margin=margin,
        confidence=confidence,
        smallest_cell=smallest_cell,
        fail_if=fail_if,
        seed=seed,
        description=description,
    )
    intervals.two_sided(confidence)
    asked = [gates.parse(expression, decide_on) for expression in fail_if]
    gates.check_end(decide_on)
    fairq_audit_predictions.check_two_files(before, after)
    first = fairq_audit_predictions.read(before, columns, called="The first table", with_labels=True)
    second = fairq_audit_predictions.read(after, columns, called="The second table", with_labels=False)
    pairs = fairq_audit_predictions.pair(first, second, columns, drop_unmatched=drop_unmatched)

    cells = measures.groupings(pairs, columns, smallest_cell)
    overall = np.bincount(pairs.kinds, minlength=5)
    by_group = {cell.name: dict(zip(cell.names, cell.counts.sum(axis=1), strict=True)) for cell in cells}
    measured = measures.measure(overall, by_group, confidence=confidence, margin=margin, seed=seed)
    recalls, recall_family = measures.recalls(cells, pairs.classes, confidence, smallest_cell)
    spreads = measures.spreads(pairs)
    for cell, recall, grouping in zip(cells, recalls, measured["groupings"], strict=True):
        grouping |= {
            "columns": cell.columns,
            "pooled": cell.pooled,
            "recall": measures.recall_ends(recall, smallest_cell),
            "distributions": measures.histograms(cell, spreads) if spreads else None,
        }
        if cell.pooled and cell.pooled["kept"]:
            grouping["groups"][-1]["pooled"] = True
    dropped = [measures.dropped(out, pairs, cells, smallest_cell) for out in pairs.left_out]
    missing = gates.parse("worst_group_drop > 0", "estimate").judge(
        measured | {"compared": {"dropped": dropped}}
    )["with_missing"]
    found = sentences.verdict(measured, confidence=confidence, margin=margin, missing=missing)
    told = [
        sentences.missing_said(out, entry, measures.conspicuous(out, entry))
        for out, entry in zip(pairs.left_out, dropped, strict=True)
    ]
    warnings = [*pairs.warnings, *told]
    called = names or _names(first, second)
    record: dict[str, Any] = {
        "schema": report.SCHEMA,
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
            "resamples": measures.RESAMPLES,
            "seed": seed,
            "power": measures.POWER,
            "family": sum(len(cell.names) for cell in cells),
            "recall_family": recall_family,
            "recall_confidence": measures.of_recall(confidence),
            "decide_on": decide_on,
        },
        "verdict": found | {"warnings": warnings, "sentence": " ".join([*warnings, found["sentence"]])},
        **measured,
        "layers": None if layers is None else measures.zeros_by_layer(layers),
        "not_tested": sentences.not_tested(pairs, measured["groupings"], smallest_cell),
    }
    record["gates"] = [gate.judge(record) for gate in asked]
    record["passed"] = all(gate["passed"] for gate in record["gates"]) if asked else None
    return Audit(record, pd.concat(recalls, ignore_index=True))


def _names(
    first: fairq_audit_predictions.PredictionTable, second: fairq_audit_predictions.PredictionTable
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
        warnings, sentence = sentences.told(self.record["verdict"])
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
        together = intervals.simultaneous(settings["confidence"], settings["family"])
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
        return sentences.model_card(self.record)

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
    return isinstance(record, dict) and record.get("schema") == report.SCHEMA


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
