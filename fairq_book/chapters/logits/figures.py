"""The figures of the chapter on logits and the boundary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from fairq_audit.formats import PALETTE
from fairq_book.chapters.logits.tables import PARTS
from fairq_book.kit.figures import (
    FAINT,
    INK,
    Picture,
    canvas,
    caption_of_cut_intervals,
    draw_lines,
    drawn,
    label_below,
    leaves_the_window,
    legend_above,
    look_of,
    lowest_panels,
    narrow_tick_labels,
    read_aloud,
    treatment_ticks,
)

# How a measure is called, by what it is multiplied, and to how many digits it is said.
_MEASURES = {
    "logit_variance": ("typical logit variance", 1, 2),
    "confidence": ("confidence, %", 100, 0),
    "margin": ("margin", 1, 2),
    "loss": ("loss, nats", 1, 2),
    "accuracy": ("accuracy, %", 100, 0),
}


_NEXT_TO_NOTHING = 1e-3  # a share; less is drawn here, on a logarithmic scale


def measures_by_treatment(
    table: pd.DataFrame,
    *,
    by: str = "group",
    measures: Sequence[str] = ("logit_variance", "confidence", "loss", "accuracy"),
) -> Picture:
    """A panel for each measure of `tables.answers` or `tables.arms`, a line for each group or arm."""
    panels = [name for name in measures if name in set(table["measure"])]
    order = list(table["treatment"].unique())
    names = _present(table, by)
    rows = -(-len(panels) // 2)
    said, cut = [], False
    with canvas(2.1 * rows + 0.5, rows=rows, columns=min(2, len(panels)), sharex=True) as (figure, axes):
        for axis, measure in zip(axes.flat, panels, strict=False):
            title, factor, digits = _MEASURES[measure]
            own = table[table["measure"] == measure]
            draw_lines(axis, own, names, by=by, order=order, factor=factor)
            low, high = _range(own, measure)
            axis.set(title=title, ylim=(factor * low, factor * high))
            cut |= leaves_the_window(own, low, high)
            said += [f"{title}.", read_aloud(own, names, by=by, factor=factor, digits=digits)]
        for axis in axes.flat[len(panels) :]:
            axis.set_visible(False)
        narrow_tick_labels(axes, order)
        legend_above(figure, names)
        return drawn(
            figure,
            alt=f"Line charts by treatment. {' '.join(said)}",
            caption=f"Means of each {by} with 95 % intervals over seeds and images."
            f"{caption_of_cut_intervals(cut)}"
            f"{_absent(table, by)}",
        )


def _range(table: pd.DataFrame, measure: str) -> tuple[float, float]:
    """From where to where a measure is drawn: all estimates, and intervals as far as they leave them room."""
    least, most = table["estimate"].min(), table["estimate"].max()
    room = 0.5 * max(most - least, 0.1 * abs(most), 1e-3)
    low = np.nanmax([table["lower"].min(), least - room])
    high = np.nanmin([table["upper"].max(), most + room])
    if measure != "margin":
        low = max(low, 0)
    if measure in ("confidence", "accuracy"):
        high = min(high, 1)
    margin = 0.05 * (high - low)
    return low - margin, high + margin


def variance_left(left: pd.DataFrame) -> Picture:
    """The typical logit variance of each group under each treatment, as a share of the original's."""
    order = list(left["treatment"].unique())
    names = _present(left, "group")
    with canvas(3.0) as (figure, axes):
        axis = axes[0, 0]
        axis.axhline(100, color=FAINT, linestyle=":", linewidth=1)
        seen = left.assign(estimate=left["estimate"].clip(_NEXT_TO_NOTHING))
        draw_lines(axis, seen, names, by="group", order=order, factor=100, joined=False)
        low, high, logarithmic = _window(left)
        axis.set(ylabel="variance left, %", ylim=(100 * low, 100 * high))
        if logarithmic:
            axis.set_yscale("log")
            axis.yaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5) if high < 2000 * low else (1,)))
            axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.yaxis.set_minor_locator(NullLocator())
        treatment_ticks(axis, order)
        legend_above(figure, names)
        return drawn(
            figure,
            alt="Logit variance left, in percent of the original's. "
            f"{read_aloud(left, names, by='group', factor=100, digits=0)}",
            caption="Typical logit variance of each group and of all images, in percent of what it was in "
            "full precision (dotted), with intervals that hold for all treatments together."
            f"{caption_of_cut_intervals(leaves_the_window(left, low, high))}"
            f"{' The scale is logarithmic.' if logarithmic else ''}"
            f"{_absent(left, 'group')}",
        )


def _window(left: pd.DataFrame) -> tuple[float, float, bool]:
    """From where to where the axis goes, and whether by factors: intervals without end leave it."""
    marks = left["estimate"].clip(_NEXT_TO_NOTHING)
    room = np.clip(np.sqrt(marks.max() / marks.min()), 1.2, 4)
    low = min(1, max(left["lower"].min(), marks.min() / room))
    high = max(1, min(left["upper"].max(), marks.max() * room))
    if high > 4 * low:
        return low / 1.2, high * 1.2, True
    margin = max(0.08 * (high - low), 0.005)
    return low - margin, high + margin, False


def ridges(table: pd.DataFrame) -> Picture:
    """A panel for each group, in it a curve for each treatment: how the images are spread."""
    names, order = list(table["group"].unique()), list(table["treatment"].unique())
    logarithmic = table["measure"].iloc[0] == "logit_variance"
    title = "logit variance" if logarithmic else _MEASURES[table["measure"].iloc[0]][0]
    signed = table["value"].min() < 0
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    tallest = table["density"].groupby([table["group"], table["treatment"]]).max()
    said = []
    with canvas(
        (0.27 * len(order) + 0.55) * rows + 0.3, rows=rows, columns=columns, sharex=True, sharey=True
    ) as (figure, axes):
        for axis, name in zip(axes.flat, names, strict=False):
            number = table.loc[table["group"] == name, "number"].iloc[0]
            colour = PALETTE[number % len(PALETTE)]
            for level, treatment in enumerate(order):
                own = table[(table["group"] == name) & (table["treatment"] == treatment)]
                # Each curve to its own height: a collapsed network's is a spike beside which others vanish.
                height = own["density"] / tallest[(name, treatment)]
                place, foot = own["value"].to_numpy(), -level
                wrong = place < (0 if signed else place[0])
                for part, fill in ((wrong, FAINT), (~wrong, colour)):
                    top = foot + 0.9 * height[part]
                    # With an outline, since a spike is hardly wider than a line.
                    axis.fill_between(
                        place[part], foot, top, facecolor=(fill, 0.7), edgecolor=fill, linewidth=0.8
                    )
            if signed:
                axis.axvline(0, color=INK, linewidth=1)
            if logarithmic:
                axis.set_xscale("log")
            axis.set_title(name)
            axis.spines["left"].set_visible(False)
            axis.tick_params(left=False)
            axis.set_yticks([-level + 0.2 for level in range(len(order))], order)
            said.append(f"{name}: {', '.join(_where_it_lies(table, name, t, signed) for t in order)}.")
        for axis in axes.flat[len(names) :]:
            axis.set_visible(False)
        for axis in lowest_panels(axes):
            axis.tick_params(labelbottom=True)
        label_below(figure, title)
        told = "share below zero" if signed else "median"
        return drawn(
            figure,
            alt=f"Distributions of {title} for each group and treatment; {told}. {' '.join(said)}",
            caption=f"How the images of each group are spread over {title}, from all seeds. Each curve is "
            "drawn to its own height; what lies beyond the edge is heaped at it."
            + (" Grey, left of the line: wrong answers." if signed else " The scale is logarithmic."),
        )


def flips_by_nearness(table: pd.DataFrame) -> Picture:
    """How many answers flip in each part of the images, the nearest to the boundary first."""
    order = list(table["treatment"].unique())
    cut = table[table["part"] > 0]
    names = _present(cut, "group")
    parts = int(table["part"].max())
    said = []
    with canvas(1.75 * len(order) + 0.6, rows=len(order), sharex=True, sharey=True) as (figure, axes):
        for axis, treatment in zip(axes[:, 0], order, strict=True):
            own = cut[cut["treatment"] == treatment].assign(treatment=lambda rows: rows["part"].astype(str))
            numbers = [str(part) for part in range(1, parts + 1)]
            draw_lines(axis, own, names, by="group", order=numbers, factor=100)
            axis.set(title=treatment, ylabel="flipped, %", ylim=(-2, 102))
            axis.set_xticks(range(parts), numbers)
            said += [f"{treatment}.", read_aloud(own, names, by="group", factor=100, digits=0)]
        axes[-1, 0].set_xlabel("tenth of the images, nearest to the boundary first")
        legend_above(figure, names)
        return drawn(
            figure,
            alt="Share of flipped answers in percent by tenth of the images, nearest to the boundary first. "
            + " ".join(said),
            caption="Answers that differ from the original's, by how far apart its two largest logits were. "
            "Intervals of 95 % over seeds and images.",
        )


def _present(table: pd.DataFrame, by: str) -> dict[str, dict[str, Any]]:
    """The groups or arms of which there is anything to draw, and how each looks.

    A group without images is left out, and the others look as they do elsewhere.
    """
    drawable = set(table.dropna(subset="estimate")[by])
    return {name: look_of(n, name) for n, name in enumerate(table[by].unique()) if name in drawable}


def _absent(table: pd.DataFrame, by: str) -> str:
    absent = [name for name in table[by].unique() if name not in _present(table, by)]
    return f" Not drawn, for want of test images: {', '.join(absent)}." if absent else ""


def _where_it_lies(table: pd.DataFrame, group: str, treatment: str, signed: bool) -> str:
    own = table[(table["group"] == group) & (table["treatment"] == treatment)]
    if signed:
        return f"{treatment} {100 * own['below'].iloc[0]:.0f} %"
    middle = own["value"].iloc[int(np.searchsorted(own["density"].cumsum(), 0.5))]
    return f"{treatment} {middle:.1f}"


def waterfall(table: pd.DataFrame, title: str, *, unit: str = "points") -> Picture:
    """What a treatment costs each group: from zero to the whole change, one part after the other."""
    factor, digits = (100, 1) if unit == "points" else (1, 2)
    ends = ["estimate", "least", "most"]
    table = table.assign(**{end: factor * table[end] for end in ends})
    groups, parts = (list(dict.fromkeys(table[name])) for name in ("group", "part"))
    # A part that is nothing by arithmetic, as a temperature of accuracy, would only take room.
    colours = {part: PALETTE[number] for number, part in enumerate(PARTS)}
    parts = [part for part in parts if table["most"][table["part"] == part].abs().max() > 0]
    said = []
    with canvas(0.42 * len(groups) * len(parts) / 2 + 1.3) as (figure, axes):
        axis, place, ticks = axes[0, 0], 0.0, {}
        for group in groups:
            own = table[table["group"] == group].set_index("part")
            start, top = 0.0, place
            for part in parts:
                row = own.loc[part]
                axis.barh(place, row["estimate"], left=start, height=0.8, color=colours[part])
                start += row["estimate"]
                # what it would be in the order that makes least of it, and in the one that makes most
                axis.plot(
                    [(start - row["estimate"] + row[end]) for end in ("least", "most")],
                    [place, place],
                    color=INK,
                    linewidth=0.9,
                )
                place += 1
            axis.plot([start] * 2, [top - 0.6, place - 0.4], color=INK, linewidth=2.2)
            ticks[(top + place - 1) / 2] = group
            parts_said = ", ".join(f"{PARTS[part]} {own.loc[part, 'estimate']:+.{digits}f}" for part in parts)
            said.append(f"{group} {start:+.{digits}f}: {parts_said}")
            place += 0.9
        axis.axvline(0, color=INK, linewidth=0.9)
        axis.set_yticks(list(ticks), list(ticks.values()))
        axis.tick_params(axis="y", length=0)
        axis.invert_yaxis()
        axis.set_xlabel(unit)
        bars = {PARTS[part]: {"color": colours[part], "linewidth": 6} for part in parts}
        legend_above(figure, bars)
        return drawn(
            figure,
            alt=f"Waterfall of {unit}, {title}. {'; '.join(said)}.",
            caption=f"{title}. From 0 to the thick line goes the whole change of a group; each bar is what "
            "putting one thing right gives back, beyond what it gives in full precision. Means over networks "
            "and over the orders of the steps; thin lines reach from the least to the most that an order "
            "gives in a network, on average.",
        )
