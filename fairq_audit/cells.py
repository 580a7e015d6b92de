"""Whom an audit compares: groups by each column, by pairs of columns and by all of them crossed.

`predictions.pair` gives the rows with both their answers; the functions here divide them, set small groups
apart, name them so that no two look alike, and say of whom rows are missing.
"""

from __future__ import annotations

import itertools
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from fairq_audit import predictions, statistics
from fairq_audit.formats import shown
from fairq_utils import intervals
from fairq_utils.errors import BadInput

Crossed = Literal["full", "pairs", "every", "none"]
CROSSED: dict[Crossed, str] = {
    "full": "all columns with one another",
    "pairs": "each with each",
    "every": "both",
    "none": "no column with another",
}
MOST_GROUPS = 250


@dataclass(frozen=True)
class Cells:
    """One way to divide the rows: of each row its cell, -1 for none; and how many of each kind a cell has.

    `pooled`: the small ones, and whether they are one cell together. `names`: what is shown; `bare_names`:
    the same without the names of columns. `spelt`: for each column how its values are shown.
    """

    name: str
    columns: list[str]
    names: list[str]
    bare_names: list[str]
    codes: NDArray[np.intp]
    counts: NDArray[np.int64]
    pooled: dict[str, Any] | None
    spelt: list[Mapping[str, str]]


def groupings(
    pairs: predictions.Pairs, columns: Sequence[str], smallest: int, crossed: Crossed = "full"
) -> list[Cells]:
    """The rows divided by each column and, where there are several, by those that are crossed."""
    spelt = {name: told_apart(list(pairs.groups[name].categories)) for name in columns}
    several = len(columns) > 1
    ways: list[tuple[str, ...]] = [(name,) for name in columns]
    if several and crossed in ("pairs", "every"):
        ways += itertools.combinations(columns, 2)
    if (several and crossed == "full") or (len(columns) > 2 and crossed == "every"):
        ways.append(tuple(columns))
    return [_divided(pairs, way, smallest, spelt, several=several) for way in ways]


def told_apart(values: Sequence[Any]) -> dict[str, str]:
    r"""Each value as it is shown: those that would look like another are written with what cannot be seen.

    >>> told_apart(["elm", "ash", " elm"])
    {'elm': "'elm'", 'ash': 'ash', ' elm': "' elm'"}
    """
    texts = [str(value) for value in values]
    look = {
        text: " ".join(unicodedata.normalize("NFKC", shown(text, len(text) + 1)).split()) for text in texts
    }
    alike = Counter(look.values())
    return {text: text if alike[look[text]] == 1 else ascii(text) for text in texts}


def _divided(
    pairs: predictions.Pairs,
    columns: Sequence[str],
    smallest: int,
    spelt: Mapping[str, Mapping[str, str]],
    *,
    several: bool,
) -> Cells:
    parts = [pairs.groups[name] for name in columns]
    flat = np.ravel_multi_index([part.codes for part in parts], [len(part.categories) for part in parts])
    codes, seen = pd.factorize(flat, sort=True)  # which hashes: faster than to sort ten million rows
    sizes = np.bincount(codes)
    places = np.unravel_index(seen, [len(part.categories) for part in parts])
    found = [
        [str(part.categories[place[cell]]) for part, place in zip(parts, places, strict=True)]
        for cell in range(len(seen))
    ]
    ways = [spelt[name] for name in columns]
    names, bare_names = (
        [_called(own, columns if named and several else None, ways) for own in found]
        for named in (True, False)
    )
    name = " x ".join(columns)
    if twice := sorted(own for own, times in Counter(names).items() if times > 1):
        raise BadInput(
            f"Two cells of {shown(name)} are both called {shown(twice[0])!r}; expected names that tell them "
            "apart: rename groups that have ' x ' in their names."
        )
    small = sizes < smallest
    if small.all():
        raise BadInput(
            f"No group of {shown(name)} has {smallest} rows; expected some: lower smallest_group, name "
            "another column, or cross fewer."
        )
    pooled = None
    if small.any():
        pooled = _set_apart(names, codes, pairs.kinds, small) | {
            "smallest": smallest,
            "kept": len(columns) > 1 and bool(sizes[small].sum() >= smallest),
        }
        large = np.flatnonzero(~small)
        names, bare_names = ([own[cell] for cell in large] for own in (names, bare_names))
        new = np.where(small, -1, np.cumsum(~small) - 1)
        if pooled["kept"]:
            new[small] = len(names)
            for own in (names, bare_names):
                own.append(f"{small.sum()} small cells")
        codes = new[codes]
    if len(names) > MOST_GROUPS:
        raise BadInput(
            f"{shown(name)} has {len(names)} groups; expected {MOST_GROUPS} at most: name columns with "
            "fewer, or raise smallest_group."
        )
    counts = _by_kind(codes, pairs.kinds, len(names))
    return Cells(name, list(columns), names, bare_names, codes.astype(np.intp), counts, pooled, ways)


def _by_kind(codes: NDArray[np.intp], kinds: NDArray[np.intp], cells: int) -> NDArray[np.int64]:
    """How many rows of each cell are of each of the five kinds."""
    inside = codes >= 0
    return np.bincount(5 * codes[inside] + kinds[inside], minlength=5 * cells).reshape(cells, 5)


def _set_apart(
    names: Sequence[str], codes: NDArray[np.intp], kinds: NDArray[np.intp], small: NDArray[np.bool_]
) -> dict[str, Any]:
    """The small cells, and what became of their rows."""
    fates = _by_kind(codes, kinds, len(names))
    lost, gained = fates[:, statistics.LOST], fates[:, statistics.GAINED]
    chances, sizes = intervals.sign_test(lost, gained), fates.sum(axis=1)
    cells = [
        {
            "cell": names[int(cell)],
            "n": int(sizes[cell]),
            "lost": int(lost[cell]),
            "gained": int(gained[cell]),
            "p": float(chances[cell]),
        }
        for cell in np.flatnonzero(small)
    ]
    return {"n": int(sizes[small].sum()), "cells": cells}


def _called(values: Sequence[str], columns: Sequence[str] | None, spelt: Sequence[Mapping[str, str]]) -> str:
    """A cell by its values, each behind its column where there are several."""
    written = [own.get(value, value) for own, value in zip(spelt, values, strict=True)]
    if columns is None:
        return " x ".join(written)
    return " x ".join(f"{name}={value}" for name, value in zip(columns, written, strict=True))


# -- rows that one table lacks ------------------------------------------------------------------------


def dropped(
    out: predictions.LeftOut, pairs: predictions.Pairs, cells: Sequence[Cells], smallest: int
) -> dict[str, Any]:
    """How many rows are left out, of which groups, where the table says, and how many were right before."""
    entry: dict[str, Any] = {"reason": f"only in {out.called}", "n": out.n, "of": out.rows}
    if out.right is not None:
        entry["right"] = int(out.right.sum())
    if out.groups is not None:
        several = len(pairs.groups) > 1
        entry["groups"] = [
            row for cell in cells for row in _dropped_of(cell, out, pairs, smallest, several=several)
        ]
    return entry


def _dropped_of(
    cell: Cells, out: predictions.LeftOut, pairs: predictions.Pairs, smallest: int, *, several: bool
) -> Iterator[dict[str, Any]]:
    """The groups of a grouping that lost rows, the largest share first; small cells in the pool, if any."""
    assert out.groups is not None
    places = list(range(len(cell.columns)))  # in place of the columns' names, which may be n
    kept = pd.DataFrame({place: pairs.groups[cell.columns[place]].astype(object) for place in places})
    lost = out.groups[cell.columns].set_axis(places, axis=1)
    right = np.zeros(out.n, bool) if out.right is None else out.right
    rows = pd.concat([kept.assign(n=0, right=0), lost.assign(n=1, right=right)])
    found = rows.groupby(places).agg(of=("n", "size"), n=("n", "sum"), right=("right", "sum"))
    columns = cell.columns if several else None
    names = [_called(list(parts), columns, cell.spelt) for parts in found.index.to_frame().to_numpy()]
    alone = np.isin(names, cell.names) | (found["of"] >= smallest).to_numpy()
    pool = bool(cell.pooled and cell.pooled["kept"])
    found = found.set_axis(np.where(alone, names, cell.names[-1])).loc[alone | pool].groupby(level=0).sum()
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
