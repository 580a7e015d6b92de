"""Tables that were measured earlier, by code that has changed since, and are shown until they are replaced.

`book/earlier` has a folder for each setting: plain CSV, and a record of what they were made of. The logits
behind them are gone, so they can be read and not made again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from fairq_audit.formats import counted
from fairq_book.kit.measured import Measured
from fairq_book.kit.treatments import with_columns
from fairq_book.root import book_root
from fairq_utils.errors import BadInput

# In the order in which pages show them.
NAMES = ("utkface", "gender", "fairface", "fairface_encoders")


def earlier_folder(root: Path | None = None) -> Path:
    """Where the tables lie."""
    return (root or book_root()) / "book" / "earlier"


def load(name: str, *, root: Path | None = None) -> Measured:
    """The tables of that setting.

    >>> load("utkface").note
    'measured earlier, 5 networks'
    >>> load("utkfaces")
    Traceback (most recent call last):
        ...
    fairq_utils.errors.BadInput: setting is 'utkfaces'; expected one that was measured earlier: utkface,
    gender, fairface, fairface_encoders.
    """
    if name not in NAMES:
        raise BadInput(f"setting is {name!r}; expected one that was measured earlier: {', '.join(NAMES)}.")
    folder = earlier_folder(root) / name
    record = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    setting, seeds = record["setting"], len(record["seeds"])
    networks = seeds * len(setting.get("archs", "1")) * len(setting.get("training_sets", "1"))
    return Measured(
        name=name,
        title=setting["title"],
        tables={path.stem: _read(path) for path in sorted(folder.glob("*.csv"))},
        seeds=seeds,
        networks=networks,
        note=f"measured earlier, {counted(networks, 'network')}",
        made={
            "code": str(record["git_revision"])[:10],
            "machine": f"{record['hardware']}; torch {record['versions']['torch']}",
            "date": record["date"],
        },
        take_apart=setting.get("take_apart", 0),
    )


def _read(path: Path) -> pd.DataFrame:
    """A table, with the columns of its treatments, of which it holds the names."""
    table = pd.read_csv(path, keep_default_na=False, na_values=[""])
    of = next((name for name in ("treatment", "chosen") if name in table), None)
    return table if of is None else with_columns(table, of)


def every(names: Sequence[str] = NAMES, *, root: Path | None = None) -> dict[str, Measured]:
    """The tables of these settings, by name."""
    return {name: load(name, root=root) for name in names}


def said_of(name: str, field: str, *, root: Path | None = None) -> str:
    """What a setting that was measured earlier fixed, such as its number of epochs.

    >>> said_of("utkface", "image_size")
    '64'
    """
    record = json.loads((earlier_folder(root) / name / "provenance.json").read_text(encoding="utf-8"))
    if field not in record["setting"]:
        raise BadInput(f"{field!r} is no field of {name}; expected one of: {', '.join(record['setting'])}.")
    return str(record["setting"][field])
