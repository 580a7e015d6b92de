"""What single networks do under many treatments, measured for each group: more than could be shipped whole.

`book/measured` has a table for each such setting, with a row for each network, treatment and group, and a
record of what it was made of: of what networks answer, or of the loss around them. Neither is kept whole, so
other questions need them made again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fairq_audit.formats import counted
from fairq_book.experiments.codes import CODE
from fairq_book.experiments.export import made_by
from fairq_book.experiments.settings import Setting
from fairq_book.experiments.studies import Landscape, Prediction
from fairq_book.kit import treatments
from fairq_book.kit.tables import in_full_precision, landscape
from fairq_book.kit.treatments import with_columns
from fairq_book.root import book_root
from fairq_utils.errors import BadInput
from fairq_utils.files import write_atomically
from fairq_utils.metrics.groups import example_metrics
from fairq_utils.metrics.shares import FLIP_PARTS, margins, why_flips_differ
from fairq_utils.treatments.treatment import FP32

# That decide what is measured.
_OF_ANSWERS, _OF_LOSS = ("read", "train", "predict", "ablate"), ("read", "train", "survey")
_MEASURES = ("loss", "logit_variance", "confidence")
_FLIPS = tuple(f"flips_by_{part}" for part in (*FLIP_PARTS, "beyond"))
COLUMNS = ("treatment", "seed", "group", "n", "right", "lost", "won", "flips", *_MEASURES, *_FLIPS)


def by_network(predictions: Sequence[Prediction], majority: str) -> pd.DataFrame:
    """A row for each network, treatment and group, with the columns of the treatment beside its name.

    Of `n` test images so many are named `right`; against full precision so many right answers were `lost`
    and so many `won`, and so many answers of whatever kind changed: `flips`. `loss`, `logit_variance` and
    `confidence` are means over the images. `flips_by_margins` and so on say why more answers flip to their
    runner-up than of the majority, as `why_flips_differ` splits it, where both have two images or more.
    """
    original = {one.study.seed: one for one in in_full_precision(predictions)}
    rows = []
    for own in predictions:
        before = original[own.study.seed]
        rows += _rows(before, own, own.group_names.index(majority))
    return with_columns(pd.DataFrame(rows, columns=list(COLUMNS)))


def _rows(before: Prediction, own: Prediction, majority: int) -> list[dict[str, Any]]:
    groups = own.groups.numpy()
    was, is_ = before.logits.argmax(1).numpy(), own.logits.argmax(1).numpy()
    right_before, right = before.correct, own.correct
    examples = example_metrics(own.logits, own.labels)
    margin, change = margins(before.logits, own.logits)
    rows = []
    for place, name in enumerate(own.group_names):
        rows_of = groups == place
        if not rows_of.any():
            continue
        row = {
            "treatment": own.treatment.name,
            "seed": own.study.seed,
            "group": name,
            "n": int(rows_of.sum()),
            "right": int(right[rows_of].sum()),
            "lost": int((right_before & ~right)[rows_of].sum()),
            "won": int((~right_before & right)[rows_of].sum()),
            "flips": int((was != is_)[rows_of].sum()),
            **{measure: float(examples[measure][rows_of].mean()) for measure in _MEASURES},
        }
        if own.treatment != FP32 and min(rows_of.sum(), (groups == majority).sum()) > 1:
            parts = why_flips_differ(margin, change, groups, majority, place)
            row |= dict(zip(_FLIPS, parts["share"], strict=True))
        rows.append(row)
    return rows


def around_networks(landscapes: Mapping[str, Sequence[Landscape]]) -> pd.DataFrame:
    """The loss around networks on each split: a row for each network, treatment, split and group.

    As `tables.landscape` has it. There is no eigenvalue where it was not reached, and none where inputs are
    rounded: gradients go straight through the rounding, and a second derivative would know nothing of it.
    """
    found = []
    for split, own in landscapes.items():
        table = landscape(own)
        known = table["converged"] & (table["activation_bits"] == _FULL)
        found.append(table.assign(split=split, eigenvalue=table["eigenvalue"].where(known)))
    return pd.concat(found, ignore_index=True)[["treatment", "seed", "split", "group", *_LOSS]]


_FULL = 32  # bits of inputs that are not rounded
_LOSS = ("n", "loss", "gradient_norm", "squared_gradient_norm", "eigenvalue")


# ---------------------------------------------------------------- what was measured before


@dataclass(frozen=True, eq=False)
class MeasuredNetworks:
    """A table as `by_network` makes it, with the record of what it was made of."""

    name: str
    table: pd.DataFrame
    record: dict[str, Any]

    @property
    def title(self) -> str:
        """What the setting is called."""
        return str(self.record["title"])

    @property
    def majority(self) -> str:
        """The group with the most training images."""
        return str(self.record["majority"])

    @property
    def networks(self) -> int:
        """How many networks there are."""
        return int(self.table["seed"].nunique())

    @property
    def made(self) -> str:
        """How many networks, when, and whether by the code of today."""
        dates = sorted(made["date"][:10] for made in self.record["made"].values())
        codes = [made["code"] for made in self.record["made"].values()]
        earlier = "" if all(_is_current(code) for code in codes) else ", by earlier code"
        when = " to ".join(dict.fromkeys([dates[0], dates[-1]]))
        return f"{counted(self.networks, 'network')}, {when}{earlier}"


def measured_folder(root: Path | None = None) -> Path:
    """Where the tables lie."""
    return (root or book_root()) / "book" / "measured"


@cache
def load(name: str, root: Path | None = None) -> MeasuredNetworks:
    """The table of that setting.

    >>> load("nobody")
    Traceback (most recent call last):
        ...
    fairq_utils.errors.BadInput: 'nobody' was not measured; expected one of: ...
    """
    folder = measured_folder(root)
    if not (folder / f"{name}.json").is_file():
        there = sorted(path.stem for path in folder.glob("*.json"))
        raise BadInput(f"{name!r} was not measured; expected one of: {', '.join(there) or 'none yet'}.")
    record = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    return MeasuredNetworks(name, with_columns(_read(folder / f"{name}.csv")), record)


def measure(
    setting: Setting,
    seeds: Sequence[int],
    rows_of: Callable[[int], tuple[pd.DataFrame, str]],
    *,
    root: Path | None = None,
    told: Callable[[str], None] = print,
) -> None:
    """Measure each network of a setting that is not in its table, and write the table after each of them.

    `rows_of` gives the rows of the network of a seed under every treatment, and the largest group. A network
    that other code measured, or under other treatments, is measured again.
    """
    folder, names = measured_folder(root), [one.name for one in setting.treatments()]
    path, card = folder / f"{setting.name}.csv", folder / f"{setting.name}.json"
    table = _read(path) if path.is_file() else pd.DataFrame(columns=["treatment", "seed"])
    stages = _OF_LOSS if setting.images_per_group else _OF_ANSWERS
    record = json.loads(card.read_text(encoding="utf-8")) if card.is_file() else {}
    made = record.get("made", {})
    for seed in seeds:
        there = set(table["treatment"][table["seed"] == seed])
        if there == set(names) and _is_current(made.get(str(seed), {}).get("code", {})):
            told(f"{setting.name}, seed {seed}: measured already")
            continue
        found, majority = rows_of(seed)
        own = found.drop(columns=[name for name in found if name in treatments.COLUMNS])
        table = pd.concat([table[table["seed"] != seed], own], ignore_index=True) if len(table) else own
        by = made_by()
        made[str(seed)] = {
            "code": {stage: CODE[stage] for stage in stages},
            "revision": by["git_revision"] or "none",
            "hardware": by["hardware"],
            "versions": by["versions"],
            "date": by["date"],
        }
        record = {"title": setting.title, "majority": majority, "made": dict(sorted(made.items()))}
        _write(path, table.sort_values("seed", kind="stable"))
        write_atomically(card, (json.dumps(record, indent=1) + "\n").encode())
        told(f"{setting.name}, seed {seed}: {len(names)} treatments")


def _is_current(code: dict[str, str]) -> bool:
    return bool(code) and all(CODE.get(stage) == digest for stage, digest in code.items())


def _read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path)


def _write(path: Path, table: pd.DataFrame) -> None:
    text = StringIO()
    shown = table.copy()
    floats = shown.select_dtypes("float").columns
    shown[floats] = shown[floats].map(lambda value: f"{value:.4g}" if np.isfinite(value) else "")
    shown.to_csv(text, index=False, lineterminator="\n")
    write_atomically(path, text.getvalue().encode())
