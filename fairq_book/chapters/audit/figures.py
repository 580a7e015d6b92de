"""The figures of the chapter on an audit of your model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from fairq_audit.formats import PALETTE, shown
from fairq_book.kit.figures import FAINT, INK, Picture, canvas, drawn, legend_above, look_of
from fairq_book.kit.tables import ALL

_MOST_ROWS = 30
_LONGEST_NAME = 36
_FLIPS = {
    "lost": ("right, then wrong", PALETTE[1]),
    "changed": ("wrong in another way", FAINT),
    "gained": ("wrong, then right", PALETTE[0]),
}
_BEFORE = {"color": FAINT, "marker": "o", "linestyle": "", "markerfacecolor": "none", "markersize": 6}
_AFTER = {"color": PALETTE[1], "marker": "o", "linestyle": "", "markersize": 5}


def audited_drops(table: pd.DataFrame, *, margin: float | None = None) -> Picture:
    """What each group lost, between which limits, and the smallest drop that its images would have shown.

    `table` is the table `groups` of an audit; `margin` draws the band of drops that do not matter.
    """
    rows, left_out = _audited(table)
    place = np.arange(len(rows))
    with canvas(0.34 * len(rows) + 1.25) as (figure, axes):
        axis = axes[0, 0]
        if margin is not None:
            axis.axvspan(-100 * margin, 100 * margin, color=FAINT, alpha=0.2, linewidth=0)
        axis.axvline(0, color=INK, linewidth=0.9)
        looks = [
            look_of(number - 1, "" if number else ALL) | {"linestyle": ""} for number in range(len(rows))
        ]
        for y, look, row in zip(place, looks, rows.to_dict("records"), strict=True):
            reach = (
                row["drop"] - row["drop_simultaneous_lower"],
                row["drop_simultaneous_upper"] - row["drop"],
            )
            axis.errorbar(
                100 * row["drop"],
                y,
                xerr=100 * np.clip(np.array(reach)[:, None], 0, None),
                markersize=6,
                elinewidth=1.2,
                **(look | {"marker": look["marker"] or "o"}),
            )
        axis.plot(
            100 * rows["detectable_drop"].astype(float),
            place,
            color=INK,
            linestyle="",
            marker="|",
            markersize=13,
            markeredgewidth=2,
        )
        _names_of(axis, rows)
        axis.set_xlabel("accuracy lost, points")
        band = "" if margin is None else f" Grey band: within {100 * margin:g} points."
        unseen = rows["detectable_drop"].isna().any()
        blind = " Without a stroke: no drop, however large, would have been." if unseen else ""
        return drawn(
            figure,
            alt=f"Dot plot. Accuracy lost, in points. {' '.join(map(_heard_drop, rows.to_dict('records')))}",
            caption="Accuracy lost. Dots with limits that hold for all groups at once; right of the line is "
            "loss. The upright stroke is the smallest drop that the group would have shown in 80 of "
            f"100 audits: what lies left of it may have gone unseen.{blind}{band}{left_out}",
        )


def audited_flips(table: pd.DataFrame) -> Picture:
    """Which share of each group's predictions changed, and how. `table` is the table `groups` of an audit."""
    rows, left_out = _audited(table)
    place, start = np.arange(len(rows)), np.zeros(len(rows))
    said = []
    with canvas(0.34 * len(rows) + 1.25) as (figure, axes):
        axis = axes[0, 0]
        for kind, (_, colour) in _FLIPS.items():
            share = 100 * (rows[kind] / rows["n"]).to_numpy(float)
            axis.barh(place, share, left=start, height=0.6, color=colour)
            start += share
        for row in rows.to_dict("records"):
            parts = "; ".join(f"{row[kind]} {words}" for kind, (words, _) in _FLIPS.items())
            said.append(f"{shown(row['group'])}, of {row['n']}: {parts}.")
        _names_of(axis, rows)
        axis.set_xlim(0, 1.05 * max(1, start.max()))
        axis.set_xlabel("predictions that changed, %")
        looks = {
            words: {"color": colour, "marker": "s", "linestyle": ""} for words, colour in _FLIPS.values()
        }
        legend_above(figure, looks)
        return drawn(
            figure,
            alt=f"Stacked bars. Predictions that changed. {' '.join(said)}",
            caption="Share of each group's predictions that changed. What was lost less what was gained is "
            f"the drop.{left_out}",
        )


def _audited(table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """All images, then the groups as they come; of too many, those that lost most."""
    if len(table) <= _MOST_ROWS:
        return table.reset_index(drop=True), ""
    most = table.iloc[1:].sort_values("drop", ascending=False, kind="stable").head(_MOST_ROWS - 1)
    said = f" Of {len(table) - 1} groups the {len(most)} that lost most; the report has all."
    return pd.concat([table.iloc[:1], most], ignore_index=True), said


def _names_of(axis: Axes, rows: pd.DataFrame) -> None:
    names = [shown(name, _LONGEST_NAME) for name in rows["group"]]
    axis.set_yticks(range(len(names)), names, parse_math=False)  # a name from data is no formula
    axis.tick_params(axis="y", length=0)
    axis.set_ylim(len(names) - 0.5, -0.5)


def _heard_drop(row: Mapping[Any, Any]) -> str:
    values = [
        f"{100 * row[name]:+.1f}" for name in ("drop", "drop_simultaneous_lower", "drop_simultaneous_upper")
    ]
    seen = row["detectable_drop"]
    least = "no drop would have been shown" if pd.isna(seen) else f"shown from {100 * seen:.1f}"
    return f"{shown(row['group'])} {values[0]} ({values[1]} to {values[2]}; {least})."


def class_by_group(table: pd.DataFrame, *, positive: str) -> Picture:
    """Of one class, group by group: the share taken for it, and the share of its own that is found.

    `table` is what `examples.class_by_group` gives.
    """
    panels = {"selection_rate": "taken for it, %", "recall": "found, %"}
    place, said = np.arange(len(table)), []
    with canvas(0.3 * len(table) + 1.4, columns=2, sharey=True) as (figure, axes):
        for axis, (measure, title) in zip(axes[0], panels.items(), strict=True):
            before, after = (100 * table[f"{measure}_{when}"] for when in ("before", "after"))
            axis.hlines(place, before, after, color=FAINT, linewidth=1.4)
            axis.plot(before, place, **_BEFORE)
            axis.plot(after, place, **_AFTER)
            axis.set_title(title, fontsize=9.5)
            axis.set_xlim(0, 1.08 * np.nanmax([*before, *after, 1]))
            axis.tick_params(axis="y", length=0)
        names = [shown(name, _LONGEST_NAME) for name in table["group"]]
        axes[0, 0].set_yticks(place, names, parse_math=False, fontsize=9)
        axes[0, 0].set_ylim(len(table) - 0.5, -0.5)
        legend_above(figure, {"before": _BEFORE, "after": _AFTER})
        for row in table.to_dict("records"):
            ends = {
                title: [f"{100 * row[f'{measure}_{when}']:.1f} {when}" for when in ("before", "after")]
                for measure, title in panels.items()
                if not pd.isna(row[f"{measure}_before"])
            }
            parts = [f"{title} {' and '.join(both)}" for title, both in ends.items()]
            said.append(f"{shown(row['group'])}: {'; '.join(parts) or 'too few to say'}.")
        return drawn(
            figure,
            alt=f"Dot plots of the class {shown(positive)}. {' '.join(said)}",
            caption=f"The class {shown(positive)}. Left, which share of each group is taken for it; right, "
            "which share of those who are of it is found. No dots: too few are of it to say.",
        )
