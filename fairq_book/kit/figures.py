"""Draw: one palette, one mark a group, readable in light and in dark, on paper and to a screen reader."""

from __future__ import annotations

import hashlib
import html
import io
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import matplotlib.image
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.textpath import TextPath
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from numpy.typing import NDArray

from fairq_audit.formats import MARKERS, PALETTE, true_minus
from fairq_book.kit.tables import ALL
from fairq_book.kit.treatments import columns_of
from fairq_utils.errors import BadInput

# From nothing to a blue on which the page's ink can be read in light and in dark.
ONE_HUE = LinearSegmentedColormap.from_list("fairq", [f"{PALETTE[0]}00", f"{PALETTE[0]}a0"])
# Stands for "the colour of the text around the figure", which only the page knows.
INK = "#010203"
FAINT = PALETTE[-1]
CARD_SIZE = (1200, 630)  # pixels of a picture that stands for a link to the book
_WIDTH = 5.2  # inches; shrunk to a phone, the text is still of ten pixels
_LEGEND_SIZE = 9.5
_STYLE: dict[Any, Any] = {
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "font.family": "DejaVu Sans",
    "font.size": 10.5,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "savefig.transparent": True,
    "svg.fonttype": "none",
    "svg.hashsalt": "fairq",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


@dataclass(frozen=True)
class Picture:
    """A figure on a page: what it looks like, what it says to a screen reader, and its caption."""

    body: str
    alt: str
    caption: str = ""

    def _repr_html_(self) -> str:
        caption = f"<figcaption>{html.escape(self.caption)}</figcaption>" if self.caption else ""
        return f'<figure class="fairq-figure">{self.body}{caption}</figure>'

    def __repr__(self) -> str:
        return f"{self.alt} {self.caption}".strip()


@contextmanager
def canvas(
    height: float, *, rows: int = 1, columns: int = 1, width: float = _WIDTH, **subplots: Any
) -> Iterator[tuple[Figure, NDArray]]:
    """A figure in the book's style, so many inches high and wide, closed when the block ends."""
    with mpl.rc_context(_STYLE):
        figure, axes = plt.subplots(
            rows, columns, figsize=(width, height), layout="constrained", squeeze=False, **subplots
        )
        try:
            yield figure, axes
        finally:
            plt.close(figure)


def drawn(figure: Figure, *, alt: str, caption: str = "") -> Picture:
    """The figure as SVG whose text is text, whose ink is the page's, and whose bytes are reproducible."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    # Verdana is as wide as DejaVu Sans, by which the text was laid out, and most readers have it.
    svg = svg.replace("'DejaVu Sans'", "'DejaVu Sans', Verdana, sans-serif")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # Every id that is referred to gets a name of its own, because a page holds several figures.
    own = "fig" + hashlib.sha256(f"{svg}{alt}".encode()).hexdigest()[:8]
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda m: f' id="{own}-{m[1]}"' if m[1] in used else "", svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\1{own}-", svg)
    width = figure.get_size_inches()[0] * 96
    opening = (
        f'<svg role="img" aria-label="{html.escape(alt)}" '
        f'style="width:100%;height:auto;max-width:{width:.0f}px"'
        ' xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    )
    svg = re.sub(r'<svg [^>]*?(viewBox="[^"]+")[^>]*>', lambda m: f"{opening} {m[1]}>", svg, count=1)
    return Picture(svg, alt, caption)


def card(table: pd.DataFrame, *, title: str, words: str, backing: str, payer: str | None = None) -> bytes:
    """A PNG of 1200 by 630 pixels for links to the book: its title, who pays, and the accuracies behind it.

    `payer` names the group in whose colour `words` are written; without one they are in that of the text.
    """
    groups = groups_of(table)
    if payer is not None and payer not in groups:
        raise BadInput(f"payer is {payer!r}; expected one of: {', '.join(groups)}, or None.")
    colour = PALETTE[groups.index(payer) % len(PALETTE)] if payer is not None else INK
    with mpl.rc_context({**_STYLE, "figure.facecolor": "white", "savefig.transparent": False}):
        figure = plt.figure(figsize=(8, 4.2), dpi=CARD_SIZE[0] / 8)
        try:
            axis = figure.add_axes((0.56, 0.13, 0.335, 0.75))
            accuracy_lines(axis, table)
            figure.add_artist(Line2D([0, 1], [1, 1], color=colour, linewidth=14))
            top = 0.87
            for text, size, broad, weight, ink in (
                (title, 22, 20, "normal", INK),
                (words, 20, 20, "bold", colour),
                (backing, 11, 38, "normal", INK),
            ):
                # Line by line: matplotlib sets lines with and without descenders at unequal distances.
                for line in textwrap.wrap(text, broad):
                    figure.text(0.045, top, line, size=size, weight=weight, color=ink, va="top")
                    top -= 0.0046 * size
                top -= 0.07
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", metadata={"Software": None})
            return buffer.getvalue()
        finally:
            plt.close(figure)


def groups_of(table: pd.DataFrame) -> list[str]:
    """The groups, and their names."""
    return [name for name in table["group"].unique() if name not in ("OA", "FVO")]


def accuracy_lines(axis: Axes, table: pd.DataFrame) -> None:
    """A line for each group, and one for all, over the treatments."""
    names = groups_of(table)
    order = list(table["treatment"].unique())
    ends = {}
    for number, name in enumerate([*names, "OA"]):
        rows = table[table["group"] == name].set_index("treatment").loc[order]
        colour = INK if name == "OA" else PALETTE[number % len(PALETTE)]
        # Side by side, so that no group's interval hides another's.
        place = np.arange(len(order)) + 0.05 * (number - len(names) / 2)
        axis.errorbar(
            place,
            100 * rows["estimate"],
            yerr=error_bars(rows),
            color=colour,
            marker="" if name == "OA" else MARKERS[number % len(MARKERS)],
            linestyle="--" if name == "OA" else "-",
            markersize=5,
            elinewidth=1,
        )
        ends[name] = (place[-1], 100 * rows["estimate"].iloc[-1], colour)
    axis.set(ylabel="accuracy, %", ylim=(-2, 102))
    treatment_ticks(axis, order)
    label_ends(axis, len(order) - 0.75, ends)


def error_bars(rows: pd.DataFrame) -> NDArray[np.float64]:
    """What matplotlib calls yerr, in percent."""
    below, above = rows["estimate"] - rows["lower"], rows["upper"] - rows["estimate"]
    return 100 * np.clip([below, above], 0, None)


def treatment_ticks(axis: Axes, order: Sequence[str]) -> None:
    """The treatments as the ticks of an axis."""
    axis.set_xticks(np.arange(len(order)), order)
    axis.set_xlim(-0.5, len(order) - 0.5)


def label_ends(axis: Axes, x: float, ends: dict[str, tuple[float, float, str]], gap: float = 6.0) -> None:
    """Names beside the ends of their lines, moved apart where they would overlap.

    In the ink of the text, since no one colour can be read in light and in dark, each tied to its line.
    """
    names = sorted(ends, key=lambda name: ends[name][1])
    places = np.array([ends[name][1] for name in names])
    for i in range(1, len(places)):
        places[i] = max(places[i], places[i - 1] + gap)
    places[-1] = min(places[-1], axis.get_ylim()[1])
    for i in reversed(range(len(places) - 1)):
        places[i] = min(places[i], places[i + 1] - gap)
    for name, y in zip(names, places, strict=True):
        end, value, colour = ends[name]
        axis.plot([end, x], [value, y], color=colour, linewidth=1, clip_on=False)
        axis.annotate(name, (x, y), (2, 0), textcoords="offset points", va="center", annotation_clip=False)


def table_in_words(table: pd.DataFrame, names: Sequence[str]) -> str:
    """What a table of accuracies says of each group, in percent, for those who hear the figure."""
    return read_aloud(table, names, by="group", factor=100, digits=0)


def leaves_the_window(table: pd.DataFrame, low: float, high: float, of: str = "") -> bool:
    """Whether any interval, `of` which measure its columns are, goes on beyond what is drawn."""
    return bool((table[f"{of}lower"] < low).any() or (table[f"{of}upper"] > high).any())


def caption_of_cut_intervals(cut: bool) -> str:
    """What a caption says of intervals, right after it has named them."""
    return " Those that reach the edge of a panel go on beyond it." if cut else ""


def look_of(number: int, name: str) -> dict[str, Any]:
    """Colour, mark and line of a group; all together are dashed, without a mark."""
    if name == ALL:
        return {"color": INK, "marker": "", "linestyle": "--"}
    return {"color": PALETTE[number % len(PALETTE)], "marker": MARKERS[number % len(MARKERS)]}


def draw_lines(
    axis: Axes,
    table: pd.DataFrame,
    looks: Mapping[str, dict[str, Any]],
    *,
    by: str,
    order: Sequence[str],
    factor: float,
    joined: bool = True,
) -> None:
    """A line or a row of marks with intervals for each name."""
    for number, (name, look) in enumerate(looks.items()):
        rows = table[table[by] == name].set_index("treatment").reindex(list(order))
        dots = {} if joined else {"linestyle": "none", "marker": look["marker"] or "_"}
        # Side by side, so that no interval hides another.
        place = np.arange(len(order)) + (0.6 / max(len(looks), 6)) * (number - (len(looks) - 1) / 2)
        reach = (rows["estimate"] - rows["lower"], rows["upper"] - rows["estimate"])
        axis.errorbar(
            place,
            factor * rows["estimate"],
            yerr=factor * np.clip(np.nan_to_num(reach), 0, None),
            markersize=4,
            elinewidth=1,
            linewidth=1.5,
            **(look | dots),
        )


def legend_above(figure: Figure, looks: Mapping[str, dict[str, Any]]) -> None:
    """Names above the panels, in as few rows as hold them, and these about equally long."""
    columns = columns_of_names(list(looks))
    names = [name for column in columns for name in column]  # matplotlib fills column after column
    figure.legend(
        [Line2D([], [], **({"markersize": 5} | looks[name])) for name in names],
        names,
        loc="outside upper left",
        ncols=len(columns),
        fontsize=_LEGEND_SIZE,
        handlelength=1.6,
        columnspacing=1,
    )


def columns_of_names(names: list[str]) -> list[list[str]]:
    """Names that are to be read row by row, column by column.

    >>> columns_of_names(["Alder", "Bracken", "Clover"])
    [['Alder'], ['Bracken'], ['Clover']]
    >>> columns_of_names([f"arm {number}, a long name" for number in range(3)])
    [['arm 0, a long name', 'arm 2, a long name'], ['arm 1, a long name']]
    """
    for rows in range(1, len(names) + 1):
        wide = -(-len(names) // rows)
        columns = [names[start::wide] for start in range(wide)]
        # In points; 32 for a line and its space.
        if sum(max(map(_length, column)) + 32 for column in columns) <= 72 * _WIDTH - 20:
            break
    return columns


def _length(name: str) -> float:
    return float(TextPath((0, 0), name, size=_LEGEND_SIZE).get_extents().width)


def label_below(figure: Figure, text: str) -> None:
    """What all panels show from left to right: below their middle, which is not that of the figure."""
    label = figure.supxlabel(text, fontsize=10)
    figure.draw_without_rendering()  # before it, nothing has a place
    panels = [axis.get_position() for axis in figure.axes if axis.get_visible()]
    label.set_x((min(panel.x0 for panel in panels) + max(panel.x1 for panel in panels)) / 2)


def few_numbers(axis: Axes, columns: int) -> None:
    """So few and so short numbers below one of so many panels in a row that they do not meet."""
    axis.tick_params(axis="x", labelsize=9)
    axis.locator_params(axis="x", nbins=max(3, 8 // columns))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: true_minus(f"{value:g}")))


def caption_of_own_scales(panels: Sequence[Any]) -> str:
    """What a caption says of panels that do not share their scales."""
    return " The panels have scales of their own." if len(panels) > 1 else ""


def narrow_tick_labels(axes: NDArray, order: Sequence[str]) -> None:
    """Names of treatments below the lowest panel of each column, turned where they would collide."""
    for axis in lowest_panels(axes):
        treatment_ticks(axis, order)
        axis.tick_params(axis="x", rotation=90 if _collide(order) else 0, labelbottom=True)


def _collide(names: Sequence[str]) -> bool:
    """Whether names are too many or too long to stand beside each other below half a figure."""
    return len(names) > 4 or max(map(len, names)) > 8


def lowest_panels(axes: NDArray) -> list[Axes]:
    """The lowest panel of each column that is shown."""
    return [[axis for axis in column if axis.get_visible()][-1] for column in axes.T]


def read_aloud(table: pd.DataFrame, names: Iterable[str], *, by: str, factor: float, digits: int) -> str:
    """What each line shows, in a sentence for those who hear the figure."""
    sentences = []
    for name in names:
        rows = table[table[by] == name].dropna(subset="estimate").to_dict("records")
        values = ", ".join(f"{row['treatment']} {factor * row['estimate']:.{digits}f}" for row in rows)
        sentences.append(f"{name}: {values}.")
    return " ".join(sentences)


_AROUND = {"gradient_norm": "gradient norm", "eigenvalue": "top eigenvalue"}


def around_by_treatment(table: pd.DataFrame, groups: Sequence[str]) -> Picture:
    """Gradient norm and top eigenvalue of each group under each treatment, from `tables.around`."""
    order = list(table["treatment"].unique())
    names = looks_of(groups, table.dropna(subset="estimate")["group"])
    said, cut = [], False
    with canvas(4.4 if _collide(order) else 3.6, columns=2) as (figure, axes):
        for axis, (measure, title) in zip(axes[0], _AROUND.items(), strict=True):
            own = table[table["measure"] == measure]
            draw_lines(axis, own, names, by="group", order=order, factor=1, joined=False)
            _logarithmic(axis, own)
            axis.set_title(title)
            cut |= leaves_the_window(own, *axis.get_ylim())
            said += [f"{title}.", read_aloud(own, names, by="group", factor=1, digits=1)]
        narrow_tick_labels(axes, order)
        legend_above(figure, names)
        return drawn(
            figure,
            alt=f"Dot plots by treatment, geometric means over seeds. {' '.join(said)}",
            caption=f"Geometric means over seeds with 95 % intervals."
            f"{caption_of_cut_intervals(cut)} Logarithmic scales.",
        )


def looks_of(groups: Sequence[str], shown: Iterable[str]) -> dict[str, dict[str, Any]]:
    """How the groups that are shown look: as they do wherever all groups are."""
    chosen = set(shown)
    return {name: look_of(number, name) for number, name in enumerate(groups) if name in chosen}


def _logarithmic(axis: Axes, table: pd.DataFrame) -> None:
    """A logarithmic scale whose few ticks are plain numbers; intervals of few seeds may leave it."""
    shown = table.dropna(subset="estimate")
    axis.set_yscale("log")
    if len(shown):
        least, most = shown["estimate"].min(), shown["estimate"].max()
        lower, upper = shown["lower"].min(), shown["upper"].max()
        axis.set_ylim(np.nanmax([least / 5, lower / 1.2]), np.nanmin([most * 5, upper * 1.2]))
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(FuncFormatter(plain_number))
    axis.yaxis.set_minor_locator(NullLocator())


def plain_number(value: float, place: object = None) -> str:
    """A number without a power of ten."""
    return f"{value:,.10g}"


# What stands beside the groups in the tables of this chapter.
_TOTALS: dict[str, dict[str, Any]] = {
    "OA": {"color": INK, "marker": "|", "markersize": 8, "markeredgewidth": 2.2},
    "FVO": {"color": INK, "marker": "*"},
    "worst group": {"color": INK, "marker": "x"},
    "flips": {"color": FAINT, "marker": "."},
}


def widest_first(widths: Iterable[str]) -> list[str]:
    """Each width once, from wide to narrow; names of something else in the order in which they come.

    >>> widest_first(["int4", "int8", "int4", "int3"]), widest_first(["captions", "labels"])
    (['int8', 'int4', 'int3'], ['captions', 'labels'])
    """
    return sorted(dict.fromkeys(widths), key=lambda name: -(columns_of(name)["bits"] or 0))


@contextmanager
def panels_in_rows(
    number: int, height: float, *, above: float = 0.5, most: int = 3, **subplots: Any
) -> Iterator[tuple[Figure, list]]:
    """So many panels, at most three beside one another, each so many inches high."""
    columns = _beside_one_another(number, most)
    rows = -(-number // columns)
    with canvas(height * rows + above, rows=rows, columns=columns, **subplots) as (figure, axes):
        for axis in axes.flat[number:]:
            axis.set_visible(False)
        for axis in axes.flat[:number]:
            few_numbers(axis, columns)
        yield figure, list(axes.flat[:number])


def _beside_one_another(number: int, most: int = 3) -> int:
    """How many of so many panels stand in a row: of four two, not three and then one."""
    return -(-number // -(-number // most))


def rows_of_dots(
    table: pd.DataFrame, groups: Sequence[str], *, what: str, caption: str, sharex: bool = False
) -> Picture:
    """A panel for each width, in it dots with intervals: a line for each `row`, a mark for each group."""
    names = [name for name in table["group"].unique() if name not in _TOTALS]
    known = looks_of(names, names) | {name: _TOTALS[name] for name in _TOTALS if name in set(table["group"])}
    if not groups or (unknown := [name for name in groups if name not in known]):
        raise BadInput(
            f"groups is {', '.join(map(repr, unknown)) if groups else 'empty'}; expected some of: "
            f"{', '.join(known)}."
        )
    looks = {name: known[name] for name in groups}
    widths = widest_first(table["width"])
    columns = _beside_one_another(len(widths))
    beside = [widths[start : start + columns] for start in range(0, len(widths), columns)]
    # Beside one another panels have the same lines, and none on which all of them are empty.
    lines = [list(table.loc[table["width"].isin(some), "row"].unique()) for some in beside]
    height = sum(map(len, lines)) * max(0.11 * len(looks) + 0.17, 0.42) / len(lines)
    ratios = list(map(len, lines))
    said = []
    with panels_in_rows(len(widths), height + 0.5, sharex=sharex, sharey="row", height_ratios=ratios) as (
        figure,
        axes,
    ):
        for number, (axis, width) in enumerate(zip(axes, widths, strict=True)):
            own = table[table["width"] == width]
            said += [f"{width}, {heard}" for heard in _dots(axis, own, looks, lines[number // columns])]
            axis.set_title(width, fontsize=9.5)
        legend_above(figure, {name: look | {"linestyle": ""} for name, look in looks.items()})
        label_below(figure, "points")
        return drawn(
            figure,
            alt=f"Dot plots. {what}. {' '.join(said)}",
            caption=caption if sharex else f"{caption}{caption_of_own_scales(widths)}",
        )


def _dots(
    axis: Axes, table: pd.DataFrame, looks: Mapping[str, dict[str, Any]], lines: list[str]
) -> Iterator[str]:
    """Draw a mark for each group on each of the lines, and say the numbers of each group."""
    for number, (name, look) in enumerate(looks.items()):
        rows = table[table["group"] == name].set_index("row").reindex(lines)
        axis.errorbar(
            100 * rows["estimate"],
            np.arange(len(lines)) + 0.8 * ((number + 0.5) / len(looks) - 0.5),
            xerr=np.nan_to_num(error_bars(rows)),
            linestyle="",
            elinewidth=1,
            **({"markersize": 5} | look),
        )
        values = ", ".join(
            f"{str(row).replace(chr(10), ' ')} {100 * value['estimate']:+.1f} "
            f"({100 * value['lower']:+.1f} to {100 * value['upper']:+.1f})"
            for row, value in rows.dropna(subset="estimate").iterrows()
        )
        yield f"{name}: {values}."
    for between in np.arange(len(lines) - 1) + 0.5:
        axis.axhline(between, color=FAINT, linewidth=0.5, alpha=0.5)
    axis.axvline(0, color=INK, linewidth=0.9)
    axis.set_yticks(range(len(lines)), lines, fontsize=9)
    axis.tick_params(axis="y", length=0)
    axis.set_ylim(len(lines) - 0.5, -0.5)


def dots_of_contrasts(table: pd.DataFrame, what: str) -> Picture:
    """A panel for each width, a line for each way to round, and a mark for each way to put it right."""
    return rows_of_dots(
        table,
        list(dict.fromkeys(table["group"])),
        what=f"The contrast {what}",
        caption=f"The contrast {what}: the mean change of all groups but the largest, minus that of the "
        "largest, with 95 % intervals over networks. Left of the line the smaller groups lose more.",
    )
