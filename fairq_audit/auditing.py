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
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fairq_audit import amounts as amounts_of
from fairq_audit import (
    arguments,
    calibration,
    cells,
    gates,
    measures,
    predictions,
    report,
    sentences,
    statistics,
    thresholds,
)
from fairq_audit import rates as class_rates
from fairq_audit.cells import Cells
from fairq_audit.formats import shown
from fairq_audit.predictions import Pairs, Predictions
from fairq_audit.sampling import Sampling, count
from fairq_utils import __version__, intervals
from fairq_utils.errors import BadInput
from fairq_utils.files import check_replaceable, replace_folder, saying_what_cannot_be_written

MOST_CLASSES = 50  # of which a record tells how alike groups are taken for them
_TABLES = ("groups", "fvo", "recall", "rates", "pooled", "distributions", "layers", "amounts", "gates")
_SCHEMAS = (report.SCHEMA, "audit-1", "audit-versions-1")  # of an audit that may be replaced
_FILES = {
    *("report.html", "audit.json", "versions.csv", "model_card.md", "before.parquet", "after.parquet"),
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
    smallest_group: int = 20,
    crossed: str = "full",
    reference: str | None = None,
    cluster: str | None = None,
    weight: str | None = None,
    positive: str | None = None,
    threshold: float | None = None,
    same_rate: bool = False,
    amounts: Sequence[str] = (),
    unit: str = "row",
    fail_if: Sequence[str] = (),
    decide_on: str = "lower",
    drop_unmatched: bool = False,
    layers: pd.DataFrame | None = None,
    description: str | None = None,
    warnings: Sequence[str] = (),
    seed: int = 0,
) -> Audit:
    """Audit a model that was quantized (or changed in any other way), from what it answered before and after.

    `before` and `after` are CSV or Parquet files or data frames with one row for each example: `id`, `label`,
    a column for each of `groups`, and `prediction`, or a column `logit_<class>` (or `probability_<class>`)
    for each class; then the class with the highest score is the prediction. `after` may leave out label and
    groups.

    *Groups.* Several `groups` are audited each by itself and, as `crossed` says, all with one another
    (`full`), each with each (`pairs`), both (`every`) or not at all (`none`). Groups of fewer than
    `smallest_group` rows are set apart and named; small cells of crossed columns are pooled. `reference` is
    the group that the others are compared with, the largest if nobody says.

    *Rows.* `cluster` names a column of what rows belong together by, such as a person of whom there are
    several photographs; `weight` one of how many others a row stands for. `unit` is what a row is called:
    image, person, loan.

    *Answers.* `positive` is the class that matters. With scores, `threshold` takes a row for it whose
    probability is at least so high; with `same_rate` the second model's threshold is moved until it takes as
    many. `amounts` are columns of numbers in both tables, such as a loss: their mean difference is told by
    group, beside the verdict.

    *Decisions.* `margin` is the smallest drop that matters, a fraction: with it the audit also tests whether
    every group stayed within it. `fail_if` are gates such as "fvo_increase > 0.03"; `decide_on` says whether
    one fails when the interval's lower end, the estimate or the upper end is beyond. `layers` may hold, for
    each layer, `weights` and the share of zeros before and after (`zero_before`, `zero_after`); `description`
    and `warnings` are told as they are.

    >>> before = pd.DataFrame({"id": range(600), "label": ["moth", "moth", "fly", "fly"] * 150})
    >>> before = before.assign(group=["ash", "elm"] * 300, prediction=before["label"])
    >>> after = before.assign(prediction=["moth", "fly", "fly", "moth", "moth", "moth", "fly", "fly"] * 75)
    >>> print(audit(before, after).sentence)
    Group elm lost 50.0 points of accuracy, at least 43.6 allowing for both groups that were looked at.
    The gap between the best and the worst group rose by 50.0 points (43.8 to 55.4).
    """
    # Refused before anything is read:
    columns = arguments.group_columns(groups)
    numbers = arguments.amount_columns(amounts)
    arguments.check(
        names=names,
        margin=margin,
        confidence=confidence,
        smallest_group=smallest_group,
        fail_if=fail_if,
        seed=seed,
        description=description,
    )
    intervals.two_sided(confidence)
    asked = gates.read(fail_if, decide_on, margin)
    ways = arguments.one_of("crossed", crossed, cells.CROSSED)
    predictions.check_two_files(before, after)
    first = predictions.read(
        before,
        columns,
        called="The first table",
        with_labels=True,
        cluster=cluster,
        weight=weight,
        amounts=numbers,
    )
    second = predictions.read(after, columns, called="The second table", with_labels=False, amounts=numbers)
    if positive is not None or threshold is not None or same_rate:
        first, second, decided = thresholds.decide(first, second, positive, threshold, same_rate=same_rate)
    else:
        decided = None
    pairs = predictions.pair(first, second, columns, drop_unmatched=drop_unmatched)

    divided = cells.groupings(pairs, columns, smallest_group, ways)
    if reference is not None and not any(reference in (*own.names, *own.bare_names) for own in divided):
        raise BadInput(
            f"reference is {shown(reference)!r}, which is no group of this audit; expected one of: "
            f"{shown(', '.join(name for own in divided for name in own.names), 400)}."
        )
    family = sum(len(own.names) for own in divided)
    sampling = Sampling(pairs.weights, pairs.clusters, intervals.simultaneous(confidence, family))
    found = _measured(pairs, divided, sampling, confidence, margin, seed, reference)
    rates, rate_family = class_rates.rates(
        divided, pairs, sampling=sampling, confidence=confidence, smallest=smallest_group, positive=positive
    )
    stricter = 1 - (1 - confidence) / len(divided)
    main = positive or (pairs.classes[0] if len(pairs.classes) == 2 else None)
    spreads = measures.spreads(pairs)
    # Where a threshold decides, the answer is not the class that the model is surest of.
    sure = calibration.sureness(pairs) if decided is None or decided["before"] is None else None
    beside = replace(
        sampling, confidence=intervals.simultaneous(confidence, family * max(1, len(pairs.amounts)))
    )
    for cell, own, grouping in zip(divided, rates, found["groupings"], strict=True):
        grouping |= {
            "columns": cell.columns,
            "pooled": cell.pooled,
            "recall": class_rates.recall_ends(own[own["measure"] == "recall"], smallest_group),
            "rates": class_rates.rate_ends(own),
            "selection_ratios": class_rates.selection_ratios(own, stricter)[:MOST_CLASSES],
            "odds": class_rates.odds(
                cell, pairs, sampling=sampling, confidence=1 - (1 - stricter) / 2,
                resamples=measures.RESAMPLES, seed=seed, positive=main, smallest=smallest_group,
            ) if main else None,
            "distributions": measures.histograms(cell, spreads) if spreads else None,
            "amounts": [
                row
                for name, values in pairs.amounts.items()
                for row in amounts_of.differences(cell, name, values, beside)
            ],
        }  # fmt: skip
        calibrated = (
            calibration.calibrations(cell, pairs, sure, sampling=sampling, confidence=sampling.confidence)
            if sure
            else [None] * len(cell.names)
        )
        for group, value, off in zip(grouping["groups"], cell.bare_names, calibrated, strict=True):
            group |= {"value": value, "calibration": off}
        if cell.pooled and cell.pooled["kept"]:
            grouping["groups"][-1]["pooled"] = True
    dropped = [cells.dropped(out, pairs, divided, smallest_group) for out in pairs.left_out]
    missing = gates.parse("worst_group_drop > 0", "estimate").judge(
        found | {"compared": {"dropped": dropped}}
    )["with_missing"]
    judged = sentences.verdict(found, confidence=confidence, margin=margin, missing=missing, unit=unit)
    told = [
        *warnings,
        *pairs.warnings,
        *sentences.no_better_said(*_found_before(pairs)),
        *(
            sentences.missing_said(out, entry, cells.conspicuous(out, entry))
            for out, entry in zip(pairs.left_out, dropped, strict=True)
        ),
        *sentences.small_said(found["groupings"], unit),
    ]
    called = names or _names(first, second)
    record: dict[str, Any] = {
        "schema": report.SCHEMA,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "package": {"name": "fairq-utils", "version": __version__},
        "compared": {
            "before": {"name": called[0], "file": first.file, "rows": len(first.table)},
            "after": {"name": called[1], "file": second.file, "rows": len(second.table)},
            "description": description,
            "n": found["overall"]["n"],
            "unit": unit,
            "classes": pairs.classes,
            "group_columns": columns,
            "scores": pairs.kind if pairs.scores else None,
            "positive": decided,
            "clusters": _sampled(cluster, pairs.clusters),
            "weights": _sampled(weight, pairs.weights),
            "dropped": dropped,
        },
        "settings": {
            "confidence": confidence,
            "margin": margin,
            "smallest_group": smallest_group,
            "crossed": ways,
            "reference": reference,
            "resamples": measures.RESAMPLES,
            "seed": seed,
            "power": measures.POWER,
            "family": family,
            "rate_family": rate_family,
            "rate_confidence": class_rates.of_classes(confidence),
            "decide_on": decide_on,
        },
        "verdict": judged | {"warnings": told, "sentence": " ".join([*told, judged["sentence"]])},
        **found,
        "layers": None if layers is None else measures.zeros_by_layer(layers),
        "not_tested": sentences.not_tested(pairs, found["groupings"], smallest_group, unit=unit),
    }
    table = pd.concat(rates, ignore_index=True)
    record["gates"] = [gate.judge(record, table) for gate in asked]
    record["passed"] = all(gate["passed"] for gate in record["gates"]) if asked else None
    return Audit(record, table)


def _measured(
    pairs: Pairs,
    divided: Sequence[Cells],
    sampling: Sampling,
    confidence: float,
    margin: float | None,
    seed: int,
    reference: str | None,
) -> dict[str, Any]:
    """What became of the rows of each group, each counted as what it is worth."""
    by_group = {own.name: dict(zip(own.names, own.counts, strict=True)) for own in divided}
    everywhere = np.zeros(len(pairs.kinds), dtype=np.intp)
    worth = {
        own.name: count(own.codes, pairs.kinds, (len(own.names), 5), measures.OUTCOMES, sampling)
        for own in divided
    }
    bare = {value: name for own in divided for name, value in zip(own.names, own.bare_names, strict=True)}
    return measures.measure(
        count(everywhere, pairs.kinds, (1, 5), measures.OUTCOMES, sampling),
        by_group,
        confidence=confidence,
        margin=margin,
        seed=seed,
        reference=bare.get(reference, reference) if reference else None,
        sampled=worth,
    )


def _found_before(pairs: Pairs) -> tuple[list[int], list[int]]:
    """Of each class how many rows there are, and how many the first model finds."""
    of = np.bincount(pairs.labels, minlength=len(pairs.classes))
    found = np.bincount(pairs.labels[pairs.answers[0] == pairs.labels], minlength=len(pairs.classes))
    return of.tolist(), found.tolist()


def _sampled(column: str | None, values: NDArray[Any] | None) -> dict[str, Any] | None:
    """A column of clusters or of weights, and how many different ones it holds."""
    return None if values is None else {"column": column, "different": len(np.unique(values))}


def _names(first: predictions.PredictionTable, second: predictions.PredictionTable) -> tuple[str, str]:
    """The models are called as their files are, when that tells them apart."""
    if not first.file or not second.file or Path(first.file).stem == Path(second.file).stem:
        return "before", "after"
    return Path(first.file).stem, Path(second.file).stem


@dataclass(frozen=True)
class Audit:
    """What an audit found: a sentence, tables, gates, and files.

    `record` is the whole of it, in the form that `schemas/audit-2.json` describes. In a notebook it shows the
    report, without the time at which it was made: that is in the files that `write` leaves.
    """

    record: dict[str, Any]
    rates: pd.DataFrame

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
        return all(gates.parse(one, decided).judge(self.record, self.rates)["passed"] for one in expressions)

    def to_json(self) -> str:
        """The whole of it as JSON, in the form of `schemas/audit-2.json`."""
        return json.dumps(self.record, indent=1, allow_nan=False, ensure_ascii=False)

    @property
    def recall(self) -> pd.DataFrame:
        """Of every class in every group how many of its rows are found, before and after."""
        own = self.rates[self.rates["measure"] == "recall"].drop(columns=["measure", *class_rates.COUNTS])
        return own.rename(columns={"worse": "lost", "better": "gained"}).reset_index(drop=True)

    @functools.cached_property
    def tables(self) -> dict[str, pd.DataFrame]:
        """Tidy tables, each the content of a CSV file: groups, fvo, recall, and what else there is."""
        record = self.record
        everyone = {"grouping": "", "group": "all", "pooled": False, **record["overall"]}
        groups = [
            {
                "grouping": grouping["name"],
                **{name: value for name, value in group.items() if name != "calibration"},
                **{f"calibration_{when}": off for when, off in (group["calibration"] or {}).items()},
            }
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
                for measure in ("fvo_before", "fvo_after", "fvo_increase", "contrast")
                if grouping[measure]
            ),
            "recall": self.recall,
        }
        others: dict[str, list[Any]] = {
            "pooled": [
                {"grouping": grouping["name"], **cell, "kept": grouping["pooled"]["kept"]}
                for grouping in record["groupings"]
                if grouping["pooled"]
                for cell in grouping["pooled"]["cells"]
            ],
            "distributions": list(_distributed(record)),
            "layers": record["layers"] or [],
            "amounts": [
                {"grouping": grouping["name"], **_flat(row)}
                for grouping in record["groupings"]
                for row in grouping["amounts"]
            ],
            "gates": [_flat(gate) for gate in record["gates"]],
            "rates": self.rates[self.rates["measure"] != "recall"]
            .drop(columns=class_rates.COUNTS)
            .to_dict("records"),
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
                # Rows that belong together or are weighted are worth fewer, and so more of them are needed.
                worth = group["effective_n"] / group["n"]
                needed = statistics.images_needed(flips, drop, together, settings["power"])
                chance = statistics.power(round(group["effective_n"]), flips, drop, together)
                rows.append(
                    {
                        "grouping": grouping["name"],
                        "group": group["group"],
                        "n": group["n"],
                        "smallest_drop": group["detectable_drop"],
                        "power": chance if possible else 0.0,
                        "images_needed": math.ceil(needed / worth) if possible else None,
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
            texts[f"{name}.csv"] = harmless(table).to_csv(index=False, lineterminator="\n")
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
    return isinstance(record, dict) and record.get("schema") in _SCHEMAS


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """Nested numbers beside each other: drop_lower for drop's lower; an estimate has the name alone."""
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, list):
            flat[name] = ", ".join(str(one["where"] if isinstance(one, Mapping) else one) for one in value)
        elif isinstance(value, Mapping):
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


def harmless(table: pd.DataFrame) -> pd.DataFrame:
    """A table whose text no spreadsheet runs, in lines that nothing breaks."""

    def quiet(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        line = "".join(char if char.isprintable() else " " for char in value)
        return f"'{line}" if value.startswith(("=", "+", "-", "@", "\t", "\r")) else line

    texts = table.select_dtypes(include=["object"]).columns
    return table.assign(**{name: table[name].map(quiet) for name in texts})
