"""Measures the networks of the chapter into `book/measured`, and reads what is there.

`fairq results measure declaration` trains the networks, applies all treatments to each, and writes the tables
after each of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd

from fairq_audit.formats import counted
from fairq_book.chapters.language.treatments import SURVEYED, TREATMENTS
from fairq_book.experiments.codes import CODE
from fairq_book.experiments.export import made_by
from fairq_book.kit.by_network import measured_folder
from fairq_utils.errors import BadInput
from fairq_utils.files import write_atomically
from fairq_utils.language.articles import DeclarationSettings
from fairq_utils.language.jobs.measure import MeasuredLanguage, measure_language

NAME, LANDSCAPE = "declaration", "declaration_landscape"
SEEDS = tuple(range(300, 316))
STAGE = "language"


def make(seed: int) -> MeasuredLanguage:
    """What the network of that seed does under all treatments of the chapter."""
    return measure_language(DeclarationSettings(seed=seed), list(TREATMENTS.values()), surveyed=SURVEYED)


def measure(
    seeds: Sequence[int] = SEEDS,
    *,
    one: Callable[[int], MeasuredLanguage] = make,
    root: Path | None = None,
    told: Callable[[str], None] = print,
) -> None:
    """Measure each network that is not in the tables yet, and write them after each.

    A network that other code measured, or under other treatments, is measured again.
    """
    if strange := sorted(set(seeds) - set(SEEDS)):
        raise BadInput(f"seed is {strange[0]}; expected some of those registered, {SEEDS[0]} to {SEEDS[-1]}.")
    folder = measured_folder(root)
    card = folder / f"{NAME}.json"
    made: dict[str, Any] = json.loads(card.read_text(encoding="utf-8"))["made"] if card.is_file() else {}
    tables = {name: _read(folder / f"{name}.csv") for name in (NAME, LANDSCAPE)}
    for seed in seeds:
        there = tables[NAME]
        treated = set() if there.empty else set(there["treatment"][there["seed"] == seed])
        if treated == TREATMENTS.keys() and is_current(made.get(str(seed), {})):
            told(f"{NAME}, seed {seed}: measured already")
            continue
        found = one(seed)
        for name, own in ((NAME, found.answers), (LANDSCAPE, found.landscape)):
            others = tables[name]
            if not others.empty:
                own = pd.concat([others[others["seed"] != seed], own], ignore_index=True)
            tables[name] = own.sort_values("seed", kind="stable")
            _write(folder / f"{name}.csv", tables[name])
        by = made_by()
        made[str(seed)] = {
            "code": {STAGE: CODE[STAGE]},
            "texts": found.fingerprint,
            "revision": by["git_revision"] or "none",
            "hardware": by["hardware"],
            "versions": by["versions"],
            "date": by["date"],
        }
        record = {"title": "The Declaration in sixteen languages", "made": dict(sorted(made.items()))}
        write_atomically(card, (json.dumps(record, indent=1) + "\n").encode())
        told(f"{NAME}, seed {seed}: {len(TREATMENTS)} treatments")


@dataclass(frozen=True, eq=False)
class Kept:
    """What was measured: `answers` and `landscape` of `measure_language`, and how they were made."""

    answers: pd.DataFrame
    landscape: pd.DataFrame
    record: dict[str, Any]

    @property
    def networks(self) -> int:
        """How many networks there are."""
        return int(self.answers["seed"].nunique())

    @property
    def made(self) -> str:
        """How many networks, when, and whether by the code of today."""
        own = self.record["made"].values()
        dates = sorted(one["date"][:10] for one in own)
        earlier = "" if all(map(is_current, own)) else ", by earlier code"
        when = " to ".join(dict.fromkeys([dates[0], dates[-1]]))
        return f"{counted(self.networks, 'network')}, {when}{earlier}"


@cache
def load(root: Path | None = None) -> Kept:
    """The tables in `book/measured`.

    >>> load().networks % 4
    0
    """
    folder = measured_folder(root)
    if not (folder / f"{NAME}.json").is_file():
        raise BadInput(
            f"{NAME} was not measured; expected {folder / NAME}.json: fairq results measure {NAME}."
        )
    record = json.loads((folder / f"{NAME}.json").read_text(encoding="utf-8"))
    return Kept(_read(folder / f"{NAME}.csv"), _read(folder / f"{LANDSCAPE}.csv"), record)


def is_current(made: dict[str, Any]) -> bool:
    """Whether the code of today made it."""
    return made.get("code") == {STAGE: CODE[STAGE]}


def _read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path) if path.is_file() else pd.DataFrame()


def _write(path: Path, table: pd.DataFrame) -> None:
    text, digits = StringIO(), {"nats": "{:.1f}"}
    shown = table.copy()
    for name in shown.select_dtypes("float"):
        shown[name] = shown[name].map(digits.get(str(name), "{:.4g}").format)
    shown.to_csv(text, index=False, lineterminator="\n")
    write_atomically(path, text.getvalue().encode())
