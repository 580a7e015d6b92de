"""What was measured in one setting: the tables that chapters draw, and that claims are compared with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import pandas as pd

from fairq_audit.formats import counted
from fairq_book.experiments.gather import Gathered
from fairq_book.kit.tables import Ends
from fairq_utils.errors import BadInput

# As what the tables of a chapter leave its kernel, to travel with the executed notebook: no browser shows it.
MIME = "application/vnd.fairq.measured+json"
_LONGEST = 3000  # rows: no claim is judged by what is drawn point by point


@dataclass(frozen=True, eq=False)
class Measured:
    """The tables of a setting by name, of how many seeds and networks they are, and when they were made.

    `note` is what a page says beside them, such as "measured earlier, five networks". `made` says by which
    code, where and when, of what does not come from this build. `take_apart` is the width whose zero bin was
    taken apart, where one was. `parts` holds what single chapters measured, where their networks differ.
    """

    name: str
    title: str
    tables: Mapping[str, pd.DataFrame]
    seeds: int
    networks: int
    note: str
    made: Mapping[str, str] = field(default_factory=dict)
    take_apart: int = 0
    parts: Mapping[str, Measured] = field(default_factory=dict)

    def __getitem__(self, name: str) -> pd.DataFrame:
        """The table of that name."""
        if name not in self.tables:
            raise BadInput(f"{self.name} has no table {name!r}; expected one of: {', '.join(self.tables)}.")
        return self.tables[name]

    def by(self, chapter: str) -> Measured:
        """What the chapter of that name measured; all of it, where one record is of all chapters."""
        return self.parts.get(chapter, self)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        kept = {
            "name": self.name,
            "title": self.title,
            "seeds": self.seeds,
            "networks": self.networks,
            "note": self.note,
            "take_apart": self.take_apart,
            "tables": {
                name: {"columns": list(table), "data": _plain(table)}
                for name, table in self.tables.items()
                if len(table) <= _LONGEST
            },
        }
        said = f"{counted(len(self.tables), 'table')} of {counted(self.networks, 'network')} on {self.title}."
        return {"text/plain": said, MIME: kept}

    @cached_property
    def groups(self) -> tuple[str, ...]:
        """The groups, in the order that the data set gives them."""
        return tuple(self["groups"]["group"])

    @cached_property
    def ends(self) -> Ends:
        """The groups with the most and the fewest training images; of equal ones the first and the last."""
        sizes = dict(zip(self.groups, self["groups"]["train"], strict=True))
        largest, smallest = max(sizes, key=sizes.__getitem__), min(reversed(sizes), key=sizes.__getitem__)
        return Ends(largest, smallest, int(sizes[largest]), int(sizes[smallest]))

    @property
    def majority(self) -> str | None:
        """The group with the most training images; where several have as many, there is no majority."""
        alone = (self["groups"]["train"] == self.ends.most).sum() == 1
        return self.ends.largest if alone else None


def here(got: Gathered, made: Mapping[str, pd.DataFrame], *, take_apart: int = 0) -> Measured:
    """What a page has just measured, as its claims are judged by it.

    Shown as the last line of a cell it travels with the executed notebook, where `from_output` finds it.
    """
    data, networks = got.studies[0].dataset, len(got.studies)
    return Measured(
        name="here",
        title="Moths" if data.name == "moths" else data.name,
        tables={"groups": got.sizes, **made},
        seeds=len({study.seed for study in got.studies}),
        networks=networks,
        note=f"measured by this book, {counted(networks, 'network')}",
        take_apart=take_apart,
    )


def from_output(kept: Mapping[str, Any]) -> Measured:
    """What `here` left in the output of a cell.

    >>> table = pd.DataFrame({"group": ["few"], "estimate": [float("nan")]})
    >>> shown = Measured("here", "Moths", {"change": table}, 20, 20, "measured by this book, 20 networks")
    >>> from_output(shown._repr_mimebundle_()[MIME])["change"].dtypes["estimate"]
    dtype('float64')
    """
    tables = {name: _table(**own) for name, own in kept["tables"].items()}
    return Measured(**{**kept, "tables": tables})


def _plain(table: pd.DataFrame) -> list[list[Any]]:
    """The rows as JSON holds them, to the last digit: what is missing as null, what is infinite in words."""
    return [[_plain_cell(cell) for cell in row] for row in table.astype(object).to_numpy().tolist()]


def _plain_cell(cell: Any) -> Any:
    if pd.isna(cell):
        return None
    return str(cell) if isinstance(cell, float) and math.isinf(cell) else cell


def _table(columns: Sequence[str], data: Sequence[Sequence[Any]]) -> pd.DataFrame:
    """The table as it was."""
    return pd.DataFrame(data, columns=list(columns), dtype=object).apply(_as_it_was)


def _as_it_was(column: pd.Series) -> pd.Series:
    """Numbers where all that is there is numbers: missing ones are NaN, and infinite ones came as words."""
    words = column.map(lambda cell: isinstance(cell, str) and cell not in ("inf", "-inf"))
    missing = column.isna().any() or column.isin(["inf", "-inf"]).any()
    return column.astype(float) if missing and not words.any() else column.infer_objects()


def of_chapters(parts: Mapping[str, Measured]) -> Measured:
    """What several chapters measured on the same images, by the chapter, as one column of the claims."""
    first = next(iter(parts.values()))
    return replace(first, tables={}, parts=parts)
