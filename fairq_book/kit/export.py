"""Write tables to be taken elsewhere, with a card that says what they hold and how they were made."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd

from fairq_book.experiments.export import made_by
from fairq_book.experiments.studies import Prediction
from fairq_book.kit import tables
from fairq_utils.data.datasets import Dataset
from fairq_utils.data.sources import DataSettings
from fairq_utils.errors import BadInput
from fairq_utils.files import write_atomically
from fairq_utils.treatments.treatment import FP32

FORMATS = ("csv", "parquet")


def tidy(predictions: Sequence[Prediction]) -> dict[str, pd.DataFrame]:
    """The tables that chapters draw, by name.

    `accuracy`, `chance` and `collapse` say how each treated network did over all seeds, `change` what
    differs from full precision (where that is among the predictions), and `accuracy_by_seed` counts the
    right answers of every single network. Beside its name, each says in columns what a treatment is, as
    `kit.treatments.columns` describes them.
    """
    found = {
        "accuracy": tables.accuracy(predictions),
        "accuracy_by_seed": tables.accuracy_by_seed(predictions),
        "chance": tables.chance(predictions),
        "collapse": tables.collapse(predictions),
    }
    if {prediction.treatment for prediction in predictions} > {FP32}:
        found["change"] = tables.change(predictions)
    return found


def card(settings: DataSettings, images: Dataset) -> dict[str, Any]:
    """What the card of a data set shows: counts, what was left out and how much, and where it was counted.

    No file is named, and nothing says where the data lie.
    """
    notes = {key: value for key, value in images.notes.items() if key != "skipped"}
    skipped = [{"reason": s["reason"], "count": s["count"]} for s in images.notes.get("skipped", [])]
    parameters = asdict(settings)
    parameters.pop("root")
    return {
        "parameters": parameters,
        "images": len(images.images),
        "notes": notes | {"skipped": skipped},
        "counts": images.counts().to_dict("records"),
        "data_fingerprint": images.fingerprint,
    } | made_by()


def provenance(predictions: Sequence[Prediction]) -> dict[str, Any]:
    """What decided these predictions, and when, where and by which code the tables were made of them."""
    study = predictions[0].study
    parameters = asdict(study)
    # Where it lies on somebody's disk is nobody's business, and the rest goes by the seed.
    for part in ("root", "fold", "draw", "rotation"):
        parameters["dataset"].pop(part)
    seeds = parameters.pop("seed"), *(prediction.study.seed for prediction in predictions)
    return {
        "parameters": parameters,
        "seeds": sorted(set(seeds)),
        "treatments": list(dict.fromkeys(prediction.treatment.name for prediction in predictions)),
        "data_fingerprints": {str(p.study.seed): p.fingerprint for p in predictions},
        "devices": sorted({prediction.device for prediction in predictions}),
    } | made_by()


def export(predictions: Sequence[Prediction], folder: Path, *, format: str = "csv") -> list[Path]:
    """Write the tables and `provenance.json`, which names each table with its digest, into the folder."""
    if format not in FORMATS:
        raise BadInput(f"format is {format!r}; expected one of: {', '.join(FORMATS)}.")
    if (
        len({replace(prediction.study.dataset, fold=0, draw=0, rotation=0) for prediction in predictions})
        != 1
    ):
        raise BadInput("predictions of several data sets were given; expected those of one: export each.")
    written: dict[str, bytes] = {
        f"{name}.{format}": _as_bytes(table, format) for name, table in tidy(predictions).items()
    }
    record = provenance(predictions) | {"tables": sha256_of_each(written)}
    written["provenance.json"] = (json.dumps(record, indent=2) + "\n").encode()
    for name, content in written.items():
        write_atomically(folder / name, content)
    return [folder / name for name in written]


def _as_bytes(table: pd.DataFrame, format: str) -> bytes:
    if format == "csv":
        return table.to_csv(index=False, lineterminator="\n").encode()
    content = io.BytesIO()
    table.to_parquet(content, index=False)
    return content.getvalue()


def sha256_of_each(files: Mapping[str, bytes]) -> dict[str, str]:
    """The SHA-256 of each file's content, by name."""
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
