"""The figures of the chapter on what repairs it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.text import Text
from numpy.typing import NDArray

from fairq_audit.formats import PALETTE
from fairq_book.chapters.repair.tables import swept
from fairq_book.kit.figures import (
    FAINT,
    INK,
    Picture,
    canvas,
    caption_of_cut_intervals,
    caption_of_own_scales,
    columns_of_names,
    drawn,
    error_bars,
    label_below,
    leaves_the_window,
    legend_above,
    look_of,
    looks_of,
    panels_in_rows,
    rows_of_dots,
    widest_first,
)
from fairq_book.kit.treatments import FAIRQAT, NONE
from fairq_utils.treatments.treatment import FP32

_FILLS = ("full", "none", "left", "bottom")
_ABBREVIATIONS = {"qat": "QAT", "dro": "DRO"}


def effects(table: pd.DataFrame, groups: Sequence[str] = ("OA", "FVO")) -> Picture:
    """What each part of the method, and each two or three together, do: a panel a width.

    `table` of `tables.effects`; `groups`: which of its groups to show, OA and FVO among them.
    """
    return rows_of_dots(
        table.assign(row=table["effect"].str.replace(" × ", " ×\n")),
        groups,
        what="Effects in points",
        caption="What each part changes on average over the settings of the other two, and below it by how "
        "much parts together differ from what they add up to. In points, with 95 % intervals over seeds and "
        "images. Left of the line: less.",
    )


def arms(table: pd.DataFrame, *, groups: Sequence[str] = ("OA", "FVO")) -> Picture:
    """What each trained arm changed against rounding alone: a panel a width, a row an arm.

    `table` of `tables.against_rounding`; `groups`: which of its groups to show, OA and FVO among them.
    """
    return rows_of_dots(
        table.assign(row=_arms(table)),
        groups,
        what="Changes in points against rounding alone",
        caption="Change against rounding alone, in points, in pairs of the same network and image, with 95 % "
        "intervals. Left of the line: less.",
    )


def frontier(table: pd.DataFrame, groups: Sequence[str]) -> Picture:
    """OA against FVO of each treatment, a panel a width, with lines along the weights and the sampling.

    `table` of `tables.frontier`; `groups`: all groups of the data, so that each looks as it does elsewhere.
    """
    widths = widest_first(name for name in table["width"] if name != FP32.name)
    worst = looks_of(groups, table["worst"])
    sweeps = {"weights": "-", "sampling": "--"}
    named: dict[Axes, tuple[NDArray[np.float64], list[str]]] = {}
    marked: set[str] = set()
    said, cut = [], False
    with canvas(3.3 * len(widths) + 0.6, rows=len(widths)) as (figure, axes):
        for axis, width in zip(axes[:, 0], widths, strict=True):
            points = table[(table["treatment"] == FP32.name) | (table["width"] == width)]
            trained = points[points["training"] != NONE]
            far = _far(points, trained)
            shown = points[~far]
            labels = {row["treatment"]: _arm(row).removeprefix("QAT ") for row in shown.to_dict("records")}
            for family, style in sweeps.items():
                own = swept(shown, family)
                axis.plot(100 * own["OA"], 100 * own["FVO"], color=INK, linestyle=style, linewidth=0.9)
                further = own[own["family"] == family]  # a sweep begins at plain training
                labels |= {
                    name: f"{at:g} %"
                    for name, at in zip(further["treatment"], further["percent"], strict=True)
                }
            marked |= set(shown["worst"])
            for row in shown.to_dict("records"):
                _mark(axis, row, worst[row["worst"]])
            axis.set(xlabel="OA, %", ylabel="FVO, points")
            axis.set_title(width)
            for measure, limit in (("OA", axis.set_xlim), ("FVO", axis.set_ylim)):
                low, high = _around(shown[measure])
                limit(100 * low, 100 * high)
                cut |= leaves_the_window(shown, low, high, of=f"{measure}_")
            named[axis] = (100 * shown[["OA", "FVO"]].to_numpy(), [labels[t] for t in shown["treatment"]])
            beyond = [
                f"{_arm(row)}: OA {100 * row['OA']:.0f}, FVO {100 * row['FVO']:.0f}"
                for row in points[far].to_dict("records")
            ]
            if beyond:
                axis.set_title(f"out of the picture: {'; '.join(beyond)}", loc="right", fontsize=8.5)
            said.append(f"{width}: " + "; ".join(_point(row) for row in points.to_dict("records")) + ".")
        lines = {f"{name} swept": {"color": INK, "linestyle": style} for name, style in sweeps.items()}
        marks = {f"{name} worst": worst[name] | {"linestyle": ""} for name in worst if name in marked}
        legend_above(figure, marks | lines)
        figure.draw_without_rendering()  # before it, nothing has a place
        for axis, (places, texts) in named.items():
            _label_apart(axis, places, texts)
        return drawn(
            figure,
            alt=f"Scatter plots of FVO in points against OA in percent. {' '.join(said)}",
            caption="Better is to the right and below. Each mark is that of the group served worst; filled, "
            "trained while rounded; ringed, the published setting. Lines lead along the weights (percent for "
            "the smallest group) and along the sampling (percent of the way to groups seen "
            f"equally often). With 95 % intervals."
            f"{caption_of_cut_intervals(cut)}",
        )


def on_both(table: pd.DataFrame) -> Picture:
    """The change of FVO on test images over that on training images: a panel a width, a mark an arm.

    `table` of `tables.on_both`.
    """
    own = table[table["group"] == "FVO"].assign(arm=_arms)
    widths, names = widest_first(own["width"]), list(own["arm"].unique())
    # Once colours and marks are used up they begin anew, filled in another way.
    looks = {
        name: look_of(number, name) | {"fillstyle": _FILLS[number // len(PALETTE) % len(_FILLS)]}
        for number, name in enumerate(names)
    }
    said, cut = [], False
    height = 3.2 if len(widths) == 1 else 2.1
    with panels_in_rows(len(widths), height, above=0.3 + 0.2 * len(columns_of_names(names)[0])) as (
        figure,
        axes,
    ):
        for axis, width in zip(axes, widths, strict=True):
            here = own[own["width"] == width]
            low, high = _around(here["estimate"])
            cut |= leaves_the_window(here, low, high)
            axis.axline((0, 0), slope=1, color=FAINT, linewidth=1)
            axis.axhline(0, color=FAINT, linewidth=0.8, linestyle=":")
            axis.axvline(0, color=FAINT, linewidth=0.8, linestyle=":")
            rows = {split: rows.set_index("arm") for split, rows in here.groupby("split")}
            for name, look in looks.items():
                if name not in rows["train"].index:
                    continue
                seen, unseen = (rows[split].loc[[name]] for split in ("train", "test"))
                axis.errorbar(
                    100 * seen["estimate"],
                    100 * unseen["estimate"],
                    xerr=error_bars(seen),
                    yerr=error_bars(unseen),
                    markersize=5,
                    elinewidth=0.7,
                    linestyle="",
                    **look,
                )
                said.append(
                    f"{width} {name} {100 * seen['estimate'].iloc[0]:+.1f} and "
                    f"{100 * unseen['estimate'].iloc[0]:+.1f}"
                )
            axis.set_title(width, fontsize=9.5)
            axis.tick_params(labelsize=9)
            axis.set(xlim=(100 * low, 100 * high), ylim=(100 * low, 100 * high))
        figure.supylabel("on test images, points", fontsize=10)
        legend_above(figure, {name: look | {"linestyle": ""} for name, look in looks.items()})
        label_below(figure, "on training images, points")
        return drawn(
            figure,
            alt="Scatter plots of the change of FVO in points against rounding alone, on training and on "
            f"test images: {'; '.join(said)}.",
            caption="Change of FVO against rounding alone. On the grey line, what is repaired on training "
            f"images is repaired on test images; above it, less is. With 95 % intervals."
            f"{caption_of_cut_intervals(cut)}"
            f"{caption_of_own_scales(widths)}",
        )


def _around(estimates: pd.Series) -> tuple[float, float]:
    """From where to where to draw, so that intervals of few seeds do not press all marks together."""
    least, most = estimates.min(), estimates.max()
    room = max(0.2 * (most - least), 0.005)
    return least - room, most + room


def _arms(table: pd.DataFrame) -> list[str]:
    return [_arm(row) for row in table.to_dict("records")]


def _arm(row: Mapping[Any, Any]) -> str:
    """What sets an arm apart from others of its width, in words.

    >>> from fairq_book.kit.treatments import with_columns
    >>> names = ["int4-ends8", "int4-ends8-qat-weighted", "int4-mse-fairqat", "fp32"]
    >>> _arms(with_columns(pd.DataFrame({"treatment": names})))
    ['rounded', 'QAT weighted', 'FairQAT', 'fp32']
    """
    if row["treatment"] == FP32.name:
        return FP32.name
    if _is_published(row):
        return "FairQAT"
    said = [row[name] for name in ("training", "weighting", "sampling") if row[name] != NONE]
    words = " ".join(said).split()  # a weighting may be of two
    return " ".join(_ABBREVIATIONS.get(word, word) for word in words) or "rounded"


def _is_published(row: Mapping[Any, Any]) -> bool:
    return all(row[name] == value for name, value in FAIRQAT.items())


def _far(points: pd.DataFrame, trained: pd.DataFrame) -> pd.Series:
    """Which points lie so far from all trained ones that showing them would press those together."""
    far = pd.Series(False, index=points.index)
    for measure in ("OA", "FVO") if len(trained) else ():
        low, high = trained[f"{measure}_lower"].min(), trained[f"{measure}_upper"].max()
        far |= (points[measure] < 2 * low - high) | (points[measure] > 2 * high - low)
    return far


def _mark(axis: Axes, point: Mapping[Any, Any], look: Mapping[str, Any]) -> None:
    x, y = 100 * point["OA"], 100 * point["FVO"]
    lower, upper = ([100 * point[f"{name}_{end}"] for name in ("OA", "FVO")] for end in ("lower", "upper"))
    for across, along in (((lower[0], upper[0]), (y, y)), ((x, x), (lower[1], upper[1]))):
        axis.plot(across, along, color=look["color"], linewidth=0.7, alpha=0.5)
    fill = look["color"] if point["training"] == "qat" else "none"
    axis.plot([x], [y], markersize=5.5, linestyle="", markerfacecolor=fill, **look)
    if _is_published(point):
        axis.plot([x], [y], marker="o", markersize=12, markerfacecolor="none", color=INK)


@dataclass(frozen=True)
class _Spot:
    """Where a name may stand, in pixels; a box is its left, low, right and upper edge."""

    cost: float  # how far from its mark, and whether out of the panel
    middle: NDArray[np.float64]
    box: NDArray[np.float64]
    way: NDArray[np.float64]  # points on the line to it from its mark; of a name right beside its mark, none


def _label_apart(axis: Axes, places: NDArray[np.float64], labels: Sequence[str]) -> None:
    """A name near each mark, where it covers least and no other name; from afar, a line leads to it."""
    point = axis.figure.dpi / 72
    marks = axis.transData.transform(places)
    lines = np.concatenate([_along(axis.transData.transform(line.get_xydata())) for line in axis.lines])
    look: dict[str, Any] = {"textcoords": "offset points", "fontsize": 8.5, "ha": "center", "va": "center"}
    texts = [axis.annotate(name, tuple(at), (0, 0), **look) for name, at in zip(labels, places, strict=True)]
    spots = [_spots(axis, mark, text, point) for mark, text in zip(marks, texts, strict=True)]
    chosen = [own[0] for own in spots]
    for number in [*range(len(texts))] * 3:  # again, because the first knew nothing of the last
        others = chosen[:number] + chosen[number + 1 :]
        names = np.array([spot.box for spot in others]).reshape(-1, 4)
        ways = _boxes(np.concatenate([marks[:0], *(spot.way for spot in others)]), 1)
        foreign = np.delete(marks, number, axis=0)
        of_name = [
            (2, _boxes(lines, 1)),
            (25, _boxes(foreign, 10 * point)),  # nearer to another mark it would seem to be that one's
            (1000, names),
            (50, ways),
        ]
        of_way = [(10, _boxes(foreign, 4 * point)), (50, names), (20, ways)]
        badness = [
            spot.cost
            + sum(bad * _overlaps(spot.box[None], boxes) for bad, boxes in of_name)
            + sum(bad * _overlaps(_boxes(spot.way, 1), boxes) for bad, boxes in of_way)
            for spot in spots[number]
        ]
        chosen[number] = spots[number][int(np.argmin(badness))]
    for text, mark, spot in zip(texts, marks, chosen, strict=True):
        text.set_position((spot.middle - mark) / point)
        text.set_in_layout(False)  # or the panel would shrink for it, and all would move
        axis.plot(*axis.transData.inverted().transform(spot.way).T, color=FAINT, linewidth=0.8, zorder=1)


def _spots(axis: Axes, mark: NDArray[np.float64], text: Text, point: float) -> list[_Spot]:
    half = np.array(text.get_window_extent().size) / 2
    low, high = axis.get_window_extent().get_points()
    spots = []
    for reach, side in itertools.product((7, 12, 20, 35, 50, 70), _SIDES):
        end = mark + reach * point * side
        middle = end + half * side
        box = _boxes(middle, half)
        outside = (box[:2] < low).any() or (box[2:] > high).any()
        way = _along(np.array([mark + 4 * point * side, end])) if reach > 7 else end[None][:0]
        spots.append(_Spot(reach + 1000 * outside, middle, box, way))
    return spots


def _boxes(middles: NDArray[np.float64], half: Any) -> NDArray[np.float64]:
    return np.hstack([middles - half, middles + half])


def _overlaps(some: NDArray[np.float64], others: NDArray[np.float64]) -> int:
    some = some[:, None]
    return int(((some[..., :2] < others[:, 2:]) & (some[..., 2:] > others[:, :2])).all(axis=-1).sum())


def _along(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points at most a few pixels apart along a line through the corners."""
    ways = [
        np.linspace(start, end, 2 + int(np.abs(end - start).max() / 4))
        for start, end in itertools.pairwise(corners)
    ]
    return np.concatenate([corners, *ways])


# From a mark to the names around it: to the right first.
_SIDES = np.array(
    [side for side in itertools.product((1, -1, 0, 0.5, -0.5), (0, 1, -1, 0.5, -0.5)) if 1 in np.abs(side)]
)


def _point(row: Mapping[Any, Any]) -> str:
    return f"{row['treatment']} OA {100 * row['OA']:.1f}, FVO {100 * row['FVO']:.1f}, worst {row['worst']}"
