"""Draw: one palette, one mark a group, readable in light and in dark, on paper and to a screen reader."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import itertools
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
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
from matplotlib.text import Text
from matplotlib.textpath import TextPath
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator
from numpy.typing import NDArray
from torch import nn

from fairq_utils.ablations import layers
from fairq_utils.data import Dataset, DataSettings
from fairq_utils.errors import BadInput
from fairq_utils.gates import shown
from fairq_utils.studies import Prediction, Spectrum
from fairq_utils.tables import ALL, gaussian_zero_share, swept
from fairq_utils.treatments import FP32, Treatment

# At least 3 : 1 against white and against the dark page, so that one figure serves both.
PALETTE = ("#2f7fc1", "#c4720e", "#1f9a6c", "#8e6bd1", "#d0457b", "#9c7a3c", "#2a93a8", "#7d828a")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h")
# From nothing to a blue on which the page's ink can be read in light and in dark.
_ONE_HUE = LinearSegmentedColormap.from_list("fairq", ["#2f7fc100", "#2f7fc1a0"])
# Stands for "the colour of the text around the figure", which only the page knows.
INK = "#010203"
FAINT = "#7d828a"
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
    height: float, *, rows: int = 1, columns: int = 1, **subplots: Any
) -> Iterator[tuple[Figure, NDArray]]:
    """A figure in the book's style, so many inches high, closed when the block ends."""
    with mpl.rc_context(_STYLE):
        figure, axes = plt.subplots(
            rows, columns, figsize=(_WIDTH, height), layout="constrained", squeeze=False, **subplots
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


def contact_sheet(settings: DataSettings, *, columns: int = 10) -> Picture:
    """The first training images of each group, larger than the network sees them; never photographs."""
    if not settings.is_drawn:
        text = "No photograph is shown: the people on them were not asked."
        return Picture(f"<p>{text}</p>", text)
    return _sheet(replace(settings, image_size=96, train_images=300, test_images=100).load(), columns)


def _sheet(images: Dataset, columns: int) -> Picture:
    sheets = []
    for group, name in enumerate(images.group_names):
        chosen = images.images[images.is_train & (images.groups == group)][:columns]
        row = np.concatenate(list(chosen.permute(0, 2, 3, 1).numpy()), axis=1)
        buffer = io.BytesIO()
        matplotlib.image.imsave(buffer, row, format="png")
        source = base64.b64encode(buffer.getvalue()).decode()
        sheets.append(
            f'<div class="fairq-sheet"><span>{html.escape(name)}</span>'
            f'<img alt="{len(chosen)} images of {html.escape(name)}" '
            f'src="data:image/png;base64,{source}"></div>'
        )
    alt = f"A contact sheet: a row of images for each of {', '.join(images.group_names)}."
    return Picture("".join(sheets), alt)


def group_sizes(images: Dataset) -> Picture:
    """How many images of each group there are to learn from and to be tested on."""
    return counts(images.counts())


def counts(table: pd.DataFrame) -> Picture:
    """The same, from the records of `Dataset.counts`."""
    by_split = table.pivot_table(index="group", columns="split", values="n", aggfunc="sum")
    names = list(dict.fromkeys(table["group"]))
    train, test = (by_split.loc[names, part].to_numpy() for part in ("train", "test"))
    with canvas(0.4 * len(names) + 0.3) as (figure, axes):
        axis = axes[0, 0]
        colours = [PALETTE[number % len(PALETTE)] for number in range(len(names))]
        bars = axis.barh(names, train, color=colours, height=0.62)
        axis.bar_label(
            bars, [f"{a:,} train, {b:,} test" for a, b in zip(train, test, strict=True)], padding=4
        )
        axis.set_xlim(0, train.max() * 1.6)
        axis.invert_yaxis()
        axis.xaxis.set_visible(False)
        axis.spines["bottom"].set_visible(False)
        axis.tick_params(left=False)
        each = "; ".join(f"{n} {a} and {b}" for n, a, b in zip(names, train, test, strict=True))
        return drawn(
            figure,
            alt=f"Bar chart of the images of each group, train and test: {each}.",
            caption="How many images there are of each group.",
        )


def accuracy_by_treatment(table: pd.DataFrame) -> Picture:
    """The accuracy of each group, and OA, under each treatment, with intervals."""
    with canvas(3.9) as (figure, axes):
        _accuracy_lines(axes[0, 0], table)
        return drawn(
            figure,
            alt=f"Line chart of accuracy in percent. {_spoken(table, [*_groups(table), 'OA'])}",
            caption="Accuracy of each group, and over all (OA, dashed), with 95 % intervals over seeds and "
            "images.",
        )


def card(table: pd.DataFrame, *, title: str, words: str, backing: str, payer: str | None = None) -> bytes:
    """A PNG of 1200 by 630 pixels for links to the book: its title, who pays, and the accuracies behind it.

    `payer` names the group in whose colour `words` are written; without one they are in that of the text.
    """
    groups = _groups(table)
    if payer is not None and payer not in groups:
        raise BadInput(f"payer is {payer!r}; expected one of: {', '.join(groups)}, or None.")
    colour = PALETTE[groups.index(payer) % len(PALETTE)] if payer is not None else INK
    with mpl.rc_context({**_STYLE, "figure.facecolor": "white", "savefig.transparent": False}):
        figure = plt.figure(figsize=(8, 4.2), dpi=CARD_SIZE[0] / 8)
        try:
            axis = figure.add_axes((0.56, 0.13, 0.335, 0.75))
            _accuracy_lines(axis, table)
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


def _groups(table: pd.DataFrame) -> list[str]:
    return [name for name in table["group"].unique() if name not in ("OA", "FVO")]


def _accuracy_lines(axis: Axes, table: pd.DataFrame) -> None:
    names = _groups(table)
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
            yerr=_reach(rows),
            color=colour,
            marker="" if name == "OA" else MARKERS[number % len(MARKERS)],
            linestyle="--" if name == "OA" else "-",
            markersize=5,
            elinewidth=1,
        )
        ends[name] = (place[-1], 100 * rows["estimate"].iloc[-1], colour)
    axis.set(ylabel="accuracy, %", ylim=(-2, 102))
    _widths(axis, order)
    _label_ends(axis, len(order) - 0.75, ends)


def violation_by_treatment(table: pd.DataFrame, chance: pd.DataFrame, collapse: pd.DataFrame) -> Picture:
    """FVO over what noise alone would give, and below it how far predictions have collapsed."""
    rows = table[table["group"] == "FVO"]
    order = list(rows["treatment"])
    collapse = collapse.set_index("treatment").loc[order].reset_index()  # it may know of more treatments
    place = np.arange(len(order))
    with canvas(4.4, rows=2, sharex=True, gridspec_kw={"height_ratios": (3, 1.3)}) as (figure, axes):
        above, below = axes[:, 0]
        above.fill_between(
            place,
            0,
            100 * chance["upper"],
            color=FAINT,
            alpha=0.3,
            linewidth=0,
            step="mid",
            label="noise alone",
        )
        above.errorbar(
            place,
            100 * rows["estimate"],
            yerr=_reach(rows),
            color=INK,
            marker="o",
            markersize=5,
            elinewidth=1,
        )
        above.annotate(
            "noise alone",
            (place[0] - 0.5, 50 * chance["upper"].iloc[0]),  # where the band begins
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
            color=INK,
        )
        above.set(ylabel="FVO, points", ylim=(0, 105))
        below.plot(place, collapse["effective_classes"], color=INK, marker="o", markersize=4)
        below.set(ylabel="classes\nin use", ylim=(0.8, None))
        below.axhline(1, color=FAINT, linestyle=":", linewidth=1)
        _widths(below, order)
        in_use = ", ".join(
            f"{row.treatment} {row.effective_classes:.1f}" for row in collapse.itertuples(index=False)
        )
        return drawn(
            figure,
            alt=f"Line chart of FVO in points. {_spoken(table, ['FVO'])} Effective number of classes "
            f"that the networks answer with: {in_use}.",
            caption="Above: FVO with 95 % intervals, over the FVO that equal groups would show by noise "
            "alone (grey, up to its 95 % quantile). Below: the effective number of classes the networks "
            "still answer with; near 1, a large FVO means collapse.",
        )


def confusion(predictions: Sequence[Prediction]) -> Picture:
    """What each group is taken for under each of a few treatments: a panel a treatment, over all seeds."""
    names = list(predictions[0].group_names)
    shown: dict[str, NDArray[np.float64]] = {}
    for prediction in predictions:
        given = np.zeros((len(names), prediction.logits.shape[1]))
        np.add.at(given, (prediction.groups.numpy(), prediction.logits.argmax(1).numpy()), 1)
        shown[prediction.treatment.name] = shown.get(prediction.treatment.name, 0) + given
    classes = list(predictions[0].label_names)
    with canvas(2.9, columns=len(shown), sharey=True) as (figure, axes):
        said = []
        for axis, (treatment, counts) in zip(axes[0], shown.items(), strict=True):
            shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
            axis.imshow(shares, cmap=_ONE_HUE, vmin=0, vmax=1, aspect="auto")
            for (row, column), share in np.ndenumerate(shares):
                axis.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=9, color=INK)
            axis.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
            axis.set(title=treatment, yticks=range(len(names)), yticklabels=names)
            axis.tick_params(length=0)
            axis.spines[:].set_visible(False)
            taken = ", ".join(
                f"{name} for {classes[share.argmax()]} ({100 * share.max():.0f} %)"
                for name, share in zip(names, shares, strict=True)
            )
            said.append(f"Under {treatment} most of each group is taken so: {taken}.")
        return drawn(
            figure,
            alt=" ".join(["Confusion matrices.", *said]),
            caption="Of the images of each group (row), the percentage that is given each label (column).",
        )


def accuracy_by_size(table: pd.DataFrame) -> Picture:
    """OA and FVO of each treatment against what its network takes: a line for each way to choose the grid."""
    grids = [grid for grid in dict.fromkeys(table["grid"]) if grid != "full precision"]
    looks = {grid: _look(number, grid) for number, grid in enumerate(grids)}
    with canvas(4.6, rows=2, sharex=True) as (figure, axes):
        for axis, measure, label in zip(axes[:, 0], ("OA", "FVO"), ("OA, %", "FVO, points"), strict=True):
            rows = table[table["group"] == measure]
            for grid, look in looks.items():
                own = rows[rows["grid"] == grid].sort_values("megabytes")
                axis.errorbar(own["megabytes"], 100 * own["estimate"], yerr=_reach(own), elinewidth=1, **look)
            whole = rows[rows["grid"] == "full precision"]
            axis.axhline(100 * whole["estimate"].iloc[0], color=FAINT, linestyle=":", linewidth=1)
            axis.set(ylabel=label, ylim=(-2, 102))
        axes[1, 0].set(xlabel="megabytes, weights packed")
        _legend(figure, looks)
        said = [
            f"{row['treatment']} ({row['grid']}), {row['megabytes']:.2f} MB: {row['group']} "
            f"{100 * row['estimate']:.1f}"
            for row in table.to_dict("records")
        ]
        return drawn(
            figure,
            alt=f"Two line charts, of OA and of FVO against size. {'; '.join(said)}.",
            caption="OA and FVO against the size of the network, with 95 % intervals. Each line is a way to "
            "choose the grid, each point on it a width; dotted, full precision.",
        )


def size_and_difficulty(effects: pd.DataFrame) -> Picture:
    """What Others lose beyond the species on four kinds of moths, and what size and difficulty each add."""
    names = {
        "moths-equal": "neither",
        "moths-by-size": "unequal size",
        "moths-by-difficulty": "unequal difficulty",
        "moths": "both",
        "size": "what size adds",
        "difficulty": "what difficulty adds",
    }
    treatments = list(dict.fromkeys(effects["treatment"]))
    with canvas(3.1, columns=len(treatments), sharey=True) as (figure, axes):
        for axis, treatment in zip(axes[0], treatments, strict=True):
            rows = effects[effects["treatment"] == treatment].set_index("effect").loc[list(names)]
            place = np.array([0, 1, 2, 3, 4.6, 5.6])
            colours = [FAINT] * 4 + [INK] * 2
            for number, (at, colour) in enumerate(zip(place, colours, strict=True)):
                row = rows.iloc[[number]]
                axis.errorbar(100 * row["estimate"], [at], xerr=_reach(row), color=colour, marker="o")
            axis.axvline(0, color=INK, linewidth=0.8)
            axis.set(title=treatment, yticks=place, yticklabels=list(names.values()), xlabel="points")
        axes[0, 0].invert_yaxis()
        said = [
            f"{row['treatment']}, {names[row['effect']]}: {100 * row['estimate']:+.1f} "
            f"({100 * row['lower']:+.1f} to {100 * row['upper']:+.1f})"
            for row in effects.to_dict("records")
        ]
        return drawn(
            figure,
            alt=f"Dots with intervals: points by which Others lose more than the species. {'; '.join(said)}.",
            caption="Change of accuracy of Others minus that of the species, in points, with 95 % intervals; "
            "left of the line, Others lose more. Below, what unequal size and unequal difficulty each add.",
        )


def _reach(rows: pd.DataFrame) -> NDArray[np.float64]:
    """What matplotlib calls yerr, in percent."""
    below, above = rows["estimate"] - rows["lower"], rows["upper"] - rows["estimate"]
    return 100 * np.clip([below, above], 0, None)


def _widths(axis: Axes, order: Sequence[str]) -> None:
    axis.set_xticks(np.arange(len(order)), order)
    axis.set_xlim(-0.5, len(order) - 0.5)


def _label_ends(axis: Axes, x: float, ends: dict[str, tuple[float, float, str]], gap: float = 6.0) -> None:
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


def _spoken(table: pd.DataFrame, names: Sequence[str]) -> str:
    """The table in words, for those who hear the figure."""
    sentences = []
    for name in names:
        rows = table[table["group"] == name].to_dict("records")
        values = ", ".join(f"{row['treatment']} {100 * row['estimate']:.0f}" for row in rows)
        sentences.append(f"{name}: {values}.")
    return " ".join(sentences)


# ---------------------------------------------------------------- chapter 2: logits and the boundary

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
            _lines(axis, own, names, by=by, order=order, factor=factor)
            low, high = _range(own, measure)
            axis.set(title=title, ylim=(factor * low, factor * high))
            cut |= _leave(own, low, high)
            said += [f"{title}.", _heard(own, names, by=by, factor=factor, digits=digits)]
        for axis in axes.flat[len(panels) :]:
            axis.set_visible(False)
        _narrow_widths(axes, order)
        _legend(figure, names)
        return drawn(
            figure,
            alt=f"Line charts by treatment. {' '.join(said)}",
            caption=f"Means of each {by} with 95 % intervals over seeds and images.{_go_on(cut)}"
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


def _leave(table: pd.DataFrame, low: float, high: float, of: str = "") -> bool:
    """Whether any interval, `of` which measure its columns are, goes on beyond what is drawn."""
    return bool((table[f"{of}lower"] < low).any() or (table[f"{of}upper"] > high).any())


def _go_on(cut: bool) -> str:
    """What a caption says of intervals, right after it has named them."""
    return " Those that reach the edge of a panel go on beyond it." if cut else ""


def variance_left(left: pd.DataFrame) -> Picture:
    """The typical logit variance of each group under each treatment, as a share of the original's."""
    order = list(left["treatment"].unique())
    names = _present(left, "group")
    with canvas(3.0) as (figure, axes):
        axis = axes[0, 0]
        axis.axhline(100, color=FAINT, linestyle=":", linewidth=1)
        seen = left.assign(estimate=left["estimate"].clip(_NEXT_TO_NOTHING))
        _lines(axis, seen, names, by="group", order=order, factor=100, joined=False)
        low, high, logarithmic = _window(left)
        axis.set(ylabel="variance left, %", ylim=(100 * low, 100 * high))
        if logarithmic:
            axis.set_yscale("log")
            axis.yaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5) if high < 2000 * low else (1,)))
            axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.yaxis.set_minor_locator(NullLocator())
        _widths(axis, order)
        _legend(figure, names)
        return drawn(
            figure,
            alt="Logit variance left, in percent of the original's. "
            f"{_heard(left, names, by='group', factor=100, digits=0)}",
            caption="Typical logit variance of each group and of all images, in percent of what it was in "
            "full precision (dotted), with intervals that hold for all treatments together."
            f"{_go_on(_leave(left, low, high))}{' The scale is logarithmic.' if logarithmic else ''}"
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
        for axis in _lowest(axes):
            axis.tick_params(labelbottom=True)
        _below(figure, title)
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
            _lines(axis, own, names, by="group", order=numbers, factor=100)
            axis.set(title=treatment, ylabel="flipped, %", ylim=(-2, 102))
            axis.set_xticks(range(parts), numbers)
            said += [f"{treatment}.", _heard(own, names, by="group", factor=100, digits=0)]
        axes[-1, 0].set_xlabel("tenth of the images, nearest to the boundary first")
        _legend(figure, names)
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
    return {name: _look(n, name) for n, name in enumerate(table[by].unique()) if name in drawable}


def _absent(table: pd.DataFrame, by: str) -> str:
    absent = [name for name in table[by].unique() if name not in _present(table, by)]
    return f" Not drawn, for want of test images: {', '.join(absent)}." if absent else ""


def _look(number: int, name: str) -> dict[str, Any]:
    if name == ALL:
        return {"color": INK, "marker": "", "linestyle": "--"}
    return {"color": PALETTE[number % len(PALETTE)], "marker": MARKERS[number % len(MARKERS)]}


def _lines(
    axis: Axes,
    table: pd.DataFrame,
    looks: Mapping[str, dict[str, Any]],
    *,
    by: str,
    order: Sequence[str],
    factor: float,
    joined: bool = True,
) -> None:
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


def _legend(figure: Figure, looks: Mapping[str, dict[str, Any]]) -> None:
    """Names above the panels, in as few rows as hold them, and these about equally long."""
    columns = _columns_of_names(list(looks))
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


def _columns_of_names(names: list[str]) -> list[list[str]]:
    """Names that are to be read row by row, column by column.

    >>> _columns_of_names(["Alder", "Bracken", "Clover"])
    [['Alder'], ['Bracken'], ['Clover']]
    >>> _columns_of_names([f"arm {number}, a long name" for number in range(3)])
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


def _below(figure: Figure, text: str) -> None:
    """What all panels show from left to right: below their middle, which is not that of the figure."""
    label = figure.supxlabel(text, fontsize=10)
    figure.draw_without_rendering()  # before it, nothing has a place
    panels = [axis.get_position() for axis in figure.axes if axis.get_visible()]
    label.set_x((min(panel.x0 for panel in panels) + max(panel.x1 for panel in panels)) / 2)


def _few_numbers(axis: Axes, columns: int) -> None:
    """So few and so short numbers below one of so many panels in a row that they do not meet."""
    axis.tick_params(axis="x", labelsize=9)
    axis.locator_params(axis="x", nbins=max(3, 8 // columns))
    axis.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value:g}".replace("-", "\N{MINUS SIGN}"))
    )


def _own_scales(panels: Sequence[Any]) -> str:
    """What a caption says of panels that do not share their scales."""
    return " The panels have scales of their own." if len(panels) > 1 else ""


def _narrow_widths(axes: NDArray, order: Sequence[str]) -> None:
    """Names of treatments below the lowest panel of each column, turned where they would collide."""
    for axis in _lowest(axes):
        _widths(axis, order)
        axis.tick_params(axis="x", rotation=90 if _collide(order) else 0, labelbottom=True)


def _collide(names: Sequence[str]) -> bool:
    """Whether names are too many or too long to stand beside each other below half a figure."""
    return len(names) > 4 or max(map(len, names)) > 8


def _lowest(axes: NDArray) -> list[Axes]:
    """The lowest panel of each column that is shown."""
    return [[axis for axis in column if axis.get_visible()][-1] for column in axes.T]


def _heard(table: pd.DataFrame, names: Iterable[str], *, by: str, factor: float, digits: int) -> str:
    sentences = []
    for name in names:
        rows = table[table[by] == name].dropna(subset="estimate").to_dict("records")
        values = ", ".join(f"{row['treatment']} {factor * row['estimate']:.{digits}f}" for row in rows)
        sentences.append(f"{name}: {values}.")
    return " ".join(sentences)


def _where_it_lies(table: pd.DataFrame, group: str, treatment: str, signed: bool) -> str:
    own = table[(table["group"] == group) & (table["treatment"] == treatment)]
    if signed:
        return f"{treatment} {100 * own['below'].iloc[0]:.0f} %"
    middle = own["value"].iloc[int(np.searchsorted(own["density"].cumsum(), 0.5))]
    return f"{treatment} {middle:.1f}"


# ---------------------------------------------------------------- chapter 3: the zero bin


def zero_shares(bins: pd.DataFrame) -> Picture:
    """The share of weights that become zero, layer by layer and treatment by treatment."""
    shares = bins.pivot_table(index="layer", columns="treatment", values="zero_share", sort=False)
    with canvas(0.22 * len(shares) + 0.7) as (figure, axes):
        axis = axes[0, 0]
        axis.imshow(shares, cmap=_ONE_HUE, vmin=0, vmax=1, aspect="auto")
        for (row, column), share in np.ndenumerate(shares.to_numpy()):
            axis.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=9.5, color=INK)
        axis.set_xticks(range(shares.shape[1]), list(shares.columns))
        axis.set_yticks(range(len(shares)), list(shares.index), fontsize=9.5)
        axis.xaxis.tick_top()
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
        said = "; ".join(
            f"{name} from {100 * own.min():.0f} ({own.idxmin()}) to {100 * own.max():.0f} ({own.idxmax()})"
            for name, own in shares.items()
        )
        return drawn(
            figure,
            alt=f"Table of the percentage of weights that become zero, {len(shares)} layers: {said}.",
            caption="The percentage of each layer's weights (row) that become zero at each width (column), "
            "averaged over the networks.",
        )


def zero_share_by_peak(bins: pd.DataFrame) -> Picture:
    """The zero share of each layer over its largest weight in sigmas, beside what Gaussian weights give."""
    table = bins.dropna(subset="gaussian")
    means = table.groupby(["treatment", "layer"], sort=False)[["peak", "zero_share", "gaussian"]].mean()
    order = list(dict.fromkeys(table["treatment"]))
    peaks = np.geomspace(table["peak"].min() * 0.9, table["peak"].max() * 1.1, 100)
    with canvas(3.6) as (figure, axes):
        axis = axes[0, 0]
        ends, said = {}, []
        for number, name in enumerate(order):
            own, colour = means.loc[name], PALETTE[number % len(PALETTE)]
            curve = 100 * gaussian_zero_share(peaks, int(name.removeprefix("int")))
            axis.plot(peaks, curve, color=colour, linewidth=1.2)
            axis.plot(
                own["peak"],
                100 * own["zero_share"],
                color=colour,
                linestyle="",
                marker=MARKERS[number % len(MARKERS)],
                markersize=4,
            )
            ends[name] = (peaks[-1], float(curve[-1]), colour)
            off = 100 * (own["zero_share"] - own["gaussian"]).abs().max()
            said.append(f"{name} at most {off:.1f} points from its curve")
        axis.set(xscale="log", ylim=(-3, 103), xlabel="largest weight, in sigmas", ylabel="zero bin, %")
        axis.xaxis.set_major_locator(FixedLocator([1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 50, 100, 200]))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set_xlim(peaks[0], peaks[-1])
        _label_ends(axis, peaks[-1] * (peaks[-1] / peaks[0]) ** 0.02, ends, gap=7)
        return drawn(
            figure,
            alt=f"Scatter plot of zero share over the largest weight, from {table['peak'].min():.1f} to "
            f"{table['peak'].max():.1f} sigmas, with a curve a width for Gaussian weights: "
            f"{'; '.join(said)}.",
            caption="One mark per layer and width; the lines are what Gaussian weights with that largest "
            "weight would give. Marks above a line: more small weights than a Gaussian has.",
        )


def weight_histogram(network: nn.Module, layer: str, treatment: Treatment) -> Picture:
    """The weights of one layer, the values that they are rounded to, and its zero bin."""
    known = {name.removesuffix(".weight"): name for name in layers(network)}
    layer = layer.removesuffix(".weight")
    if layer not in known:
        raise BadInput(f"layer is {layer!r}; expected one of: {', '.join(known)}.")
    quantizer = treatment.quantizer
    if quantizer is None:
        raise BadInput(f"treatment is {treatment.name}; expected one that rounds weights, such as int3.")
    weight = network.get_parameter(known[layer]).detach().flatten()
    rounded = quantizer(weight)
    zeroed = weight[rounded == 0].abs()
    values = rounded.unique().tolist()
    edge, share = float(zeroed.max()) if len(zeroed) else 0.0, len(zeroed) / len(weight)
    with canvas(2.9) as (figure, axes):
        axis = axes[0, 0]
        axis.hist(weight.numpy(), bins=121, color=PALETTE[0], linewidth=0)
        axis.axvspan(-edge, edge, color=PALETTE[1], alpha=0.25, linewidth=0)
        if len(values) <= 2**6:
            for value in values:
                axis.axvline(value, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
        axis.set(xlabel=f"weight of {layer}", ylabel="how many", yscale="log", ylim=(0.7, None))
        return drawn(
            figure,
            alt=f"Histogram of the {len(weight):,} weights of {layer}, from {weight.min():.3f} to "
            f"{weight.max():.3f}, with the {len(values)} values of {treatment.name} that are in use. Its "
            f"zero bin reaches to {edge:.3f} on either side and holds {100 * share:.1f} percent of them.",
            caption=f"The weights of {layer} in one network; counts on a logarithmic scale. Dashed: the "
            f"values that {treatment.name} rounds to. Shaded: its zero bin, {100 * share:.1f} % of the "
            "weights.",
        )


def loss_by_treatment(changes: pd.DataFrame, order: Sequence[str], notes: Sequence[str] = ()) -> Picture:
    """What each treatment adds to the loss of each group: records of `tables.answer_changes`.

    `notes`: a few words below each name.
    """
    table = changes[(changes["measure"] == "loss") & (changes["group"] != ALL)].dropna()
    names = list(table["group"].unique())
    reach = table.loc[table["treatment"].isin(order), ["lower", "upper"]].abs().max().max()
    with canvas(len(order) * (0.11 * len(names) + 0.17) + 1.0) as (figure, axes):
        axis = axes[0, 0]
        said = []
        for number, name in enumerate(names):
            rows = table[table["group"] == name].set_index("treatment").reindex(order)
            axis.errorbar(
                rows["estimate"],
                np.arange(len(order)) + 0.8 * ((number + 0.5) / len(names) - 0.5),
                xerr=np.clip([rows["estimate"] - rows["lower"], rows["upper"] - rows["estimate"]], 0, None),
                color=PALETTE[number % len(PALETTE)],
                marker=MARKERS[number % len(MARKERS)],
                linestyle="",
                markersize=4.5,
                elinewidth=1,
                label=name,
            )
            values = ", ".join(
                f"{treatment} {row['estimate']:+.2f} ({row['lower']:+.2f} to {row['upper']:+.2f})"
                for treatment, row in rows.dropna(subset="estimate").iterrows()
            )
            said.append(f"{name}: {values}.")
        labels = [f"{name}\n{note}" for name, note in zip(order, notes, strict=True)] if notes else order
        axis.set_yticks(range(len(order)), labels)
        axis.tick_params(axis="y", length=0)
        for between in np.arange(len(order) - 1) + 0.5:
            axis.axhline(between, color=FAINT, linewidth=0.5, alpha=0.5)
        axis.axvline(0, color=INK, linewidth=0.9)
        axis.set(xlabel="loss added, nats", ylim=(len(order) - 0.5, -0.5))
        if reach > 4:  # one exploding loss would press all others into a line
            axis.set_xscale("symlog", linthresh=1)
            axis.xaxis.set_major_locator(FixedLocator([-30, -10, -3, -1, 0, 1, 3, 10, 30]))
            axis.xaxis.set_major_formatter("{x:g}")
        figure.legend(
            loc="outside upper center",
            ncols=min(len(names), 5),
            fontsize=9,
            handletextpad=0.1,
            columnspacing=1,
        )
        return drawn(
            figure,
            alt=f"Dot plot of the change of loss in nats against full precision. {' '.join(said)}",
            caption="What each treatment adds to the mean loss of each group, in pairs against full "
            "precision, with 95 % intervals over images and seeds. Right of the line: worse."
            + (" Beyond 1 the scale is logarithmic." if reach > 4 else ""),
        )


def loss_by_layer(table: pd.DataFrame) -> Picture:
    """What touching one layer alone adds to the loss of one group and of the rest: a panel a kind."""
    titles = {
        "zeros": "zero bin\nemptied",
        "norm": "at random,\nsame length",
        "random": "at random,\nsame number",
    }
    order = list(dict.fromkeys(table["layer"]))
    names = [name for name in dict.fromkeys(table["group"]) if name != "beyond"]
    with canvas(0.22 * len(order) + 1.1, columns=len(titles), sharey=True) as (figure, axes):
        said = []
        for axis, (kind, title) in zip(axes[0], titles.items(), strict=True):
            for number, name in enumerate(names):
                own = table[(table["kind"] == kind) & (table["group"] == name)].dropna(subset="estimate")
                axis.errorbar(
                    own["estimate"],
                    [order.index(layer) + 0.3 * (number - 0.5) for layer in own["layer"]],
                    xerr=[own["estimate"] - own["lower"], own["upper"] - own["estimate"]],
                    color=(PALETTE[4], PALETTE[0])[number],
                    marker=MARKERS[number],
                    linestyle="",
                    markersize=3.5,
                    elinewidth=0.9,
                    label=name if axis is axes[0, 0] else None,
                )
                if len(own):
                    top = own.loc[own["estimate"].idxmax()]
                    said.append(
                        f"{title.replace(chr(10), ' ')}, {name}: mean {own['estimate'].mean():+.2f}, "
                        f"most {top['estimate']:+.2f} in {top['layer']}."
                    )
            axis.axvline(0, color=INK, linewidth=0.9)
            axis.set_title(title, fontsize=9.5)
            _few_numbers(axis, len(titles))
        axes[0, 0].set_yticks(range(len(order)), order, fontsize=9)
        axes[0, 0].set_ylim(len(order) - 0.5, -0.5)
        figure.legend(loc="outside upper center", ncols=2, fontsize=9.5, handletextpad=0.1)
        _below(figure, "loss added, nats")
        return drawn(
            figure,
            alt=f"Dot plot of the loss in nats that touching one layer adds, {len(order)} layers. "
            f"{' '.join(said)}",
            caption="What touching one layer alone adds to the mean loss, with 95 % intervals over images "
            "and seeds. The panels have scales of their own.",
        )


# ---------------------------------------------------------------- chapter 4: the landscape

_AROUND = {"gradient_norm": "gradient norm", "eigenvalue": "top eigenvalue"}


def around_by_treatment(table: pd.DataFrame, groups: Sequence[str]) -> Picture:
    """Gradient norm and top eigenvalue of each group under each treatment, from `tables.around`."""
    order = list(table["treatment"].unique())
    names = _looks(groups, table.dropna(subset="estimate")["group"])
    said, cut = [], False
    with canvas(4.4 if _collide(order) else 3.6, columns=2) as (figure, axes):
        for axis, (measure, title) in zip(axes[0], _AROUND.items(), strict=True):
            own = table[table["measure"] == measure]
            _lines(axis, own, names, by="group", order=order, factor=1, joined=False)
            _logarithmic(axis, own)
            axis.set_title(title)
            cut |= _leave(own, *axis.get_ylim())
            said += [f"{title}.", _heard(own, names, by="group", factor=1, digits=1)]
        _narrow_widths(axes, order)
        _legend(figure, names)
        return drawn(
            figure,
            alt=f"Dot plots by treatment, geometric means over seeds. {' '.join(said)}",
            caption=f"Geometric means over seeds with 95 % intervals.{_go_on(cut)} Logarithmic scales.",
        )


def spectra(spectra: Sequence[Spectrum], groups: Sequence[str]) -> Picture:
    """The spectral density for the largest and the smallest group: a panel a treatment."""
    panels = list(dict.fromkeys(own.treatment.name for own in spectra))
    looks = _looks(groups, [own.group for own in spectra])
    said = []
    with canvas(3.1, columns=len(panels), sharex=True, sharey=True) as (figure, axes):
        for axis, name in zip(axes[0], panels, strict=True):
            for own in [own for own in spectra if own.treatment.name == name]:
                values, weights = own.density.eigenvalues.numpy(), own.density.weights.numpy()
                look = {key: looks[own.group][key] for key in ("color", "marker")}
                axis.plot(values, weights, linestyle="none", markersize=5, alpha=0.9, **look)
                axis.vlines(values, _LEAST_SHARE, weights, color=look["color"], linewidth=1.2)
                said.append(
                    f"{name}, {own.group}: from {values.min():.1f} to {values.max():.1f}, and "
                    f"{100 * weights[np.abs(values) < values.max() / 100].sum():.4f} % of the directions "
                    "within a hundredth of the largest of zero."
                )
            axis.set(yscale="log", ylim=(_LEAST_SHARE, 3), title=name)
            axis.set_xscale("symlog", linthresh=1)
            axis.xaxis.set_major_locator(FixedLocator([-100, -1, 1, 100, 10000]))
            axis.axvline(0, color=FAINT, linewidth=0.8, linestyle=":")
        axes[0, 0].set_ylabel("share of the directions")
        _legend(figure, looks)
        _below(figure, "eigenvalue")
        return drawn(
            figure,
            alt=f"Spectral densities. {' '.join(said)}",
            caption="Bars at the eigenvalues that Lanczos' method found, as high as the share of directions "
            "that each stands for. Both scales are logarithmic, below 1 the horizontal one is linear.",
        )


_LEAST_SHARE = 1e-9  # of ten million directions one is 1e-7; a random vector may meet it less


def slices(table: pd.DataFrame, groups: Sequence[str]) -> Picture:
    """The loss from the original to the rounded weights: a panel a treatment, thin lines single seeds."""
    panels, looks = list(table["treatment"].unique()), _looks(groups, table["group"])
    said = []
    with canvas(3.1, columns=len(panels), sharey=True) as (figure, axes):
        for axis, name in zip(axes[0], panels, strict=True):
            for group, look in looks.items():
                own = table[(table["treatment"] == name) & (table["group"] == group)]
                for _, single in own.groupby("seed"):
                    axis.plot(single["step"], single["loss"], color=look["color"], linewidth=0.7, alpha=0.6)
                mean = own.groupby("step")["loss"].mean()
                axis.plot(mean.index, mean, linewidth=2, markersize=4.5, **look)
                said.append(f"{name}, {group}: {mean.loc[0.0]:.2f} at fp32, {mean.loc[1.0]:.2f} at {name}.")
            axis.set_xticks([0, 1], ["fp32", name.replace("-", "-\n", 1)])
            axis.grid(axis="x", color=FAINT, linewidth=0.6, linestyle=":")
        axes[0, 0].set_ylabel("loss, nats")
        _legend(figure, looks)
        return drawn(
            figure,
            alt=f"Line charts of the mean loss along a straight way. {' '.join(said)}",
            caption="The loss on the straight line through the original weights and the rounded ones. "
            "Thin lines are single seeds, thick ones their mean.",
        )


def bound_against_excess(bounds: pd.DataFrame, groups: Sequence[str]) -> Picture:
    """Excess loss of each group over its forecasts: the bound on the left, the parabola on the right."""
    panels = list(bounds["treatment"].unique())
    names = _looks(groups, bounds["group"])
    said = []
    with canvas(2.2 * len(panels) + 0.6, rows=len(panels), columns=2, sharey="row") as (figure, axes):
        for (left, right), name in zip(axes, panels, strict=True):
            own = bounds[bounds["treatment"] == name]
            for group, look in names.items():
                rows = own[own["group"] == group]
                dots = look | {"markersize": 5, "linestyle": "none"}
                left.plot(rows["bound"], rows["excess"], **dots)
                right.plot(rows["parabola"], rows["excess"], **dots)
            right.axline((0, 0), slope=1, color=FAINT, linewidth=1)
            left.set_xscale("log")
            # At both ends and halfway: powers of ten may all lie outside.
            places = np.geomspace(own["bound"].min(), own["bound"].max(), 3)
            left.xaxis.set_major_locator(FixedLocator([float(f"{place:.2g}") for place in places]))
            left.xaxis.set_major_formatter(FuncFormatter(_plain_number))
            left.xaxis.set_minor_locator(NullLocator())
            for axis in (left, right):
                axis.axhline(0, color=FAINT, linewidth=0.8, linestyle=":")
                axis.tick_params(labelsize=9)
            left.set_ylabel(f"{name}\nexcess loss")
            said.append(
                f"{name}: excess from {own['excess'].min():+.2f} to {own['excess'].max():+.2f}, bound from "
                f"{own['bound'].min():,.0f} to {own['bound'].max():,.0f}, parabola from "
                f"{own['parabola'].min():+.2f} to {own['parabola'].max():+.2f}."
            )
        axes[-1, 0].set_xlabel("bound (logarithmic)")
        axes[-1, 1].set_xlabel("parabola")
        _legend(figure, names)
        return drawn(
            figure,
            alt=f"Scatter plots of the excess loss in nats, one point per seed and group. {' '.join(said)}",
            caption="Excess loss in nats over what the original's landscape forecasts; one point per seed "
            "and group. On the grey line the forecast is right. A bound that ranks makes a rising cloud."
            f"{_own_scales(panels)}",
        )


def bound_by_part(parts: pd.DataFrame, groups: Sequence[str]) -> Picture:
    """Bound (above) and excess loss (below) when one part alone is rounded, a column a treatment."""
    panels, looks = list(parts["treatment"].unique()), _looks(groups, parts["group"])
    order, said = list(parts["part"].unique()), []
    with canvas(4.4, rows=2, columns=len(panels), sharex=True, sharey="row") as (figure, axes):
        for (above, below), name in zip(axes.T, panels, strict=True):
            for group, look in looks.items():
                own = parts[(parts["treatment"] == name) & (parts["group"] == group)]
                for axis, column in ((above, "bound"), (below, "excess")):
                    mean = own.groupby("part", sort=False)[column].mean().reindex(order)
                    places = [order.index(part) for part in own["part"]]
                    axis.plot(places, own[column], ".", color=look["color"], markersize=4, alpha=0.6)
                    axis.plot(range(len(order)), mean, linewidth=1.4, markersize=5, **look)
                    spoken = ", ".join(f"{part} {value:,.2f}" for part, value in mean.items())
                    said.append(f"{name}, {group}, {column}: {spoken}.")
            above.set(yscale="log", title=name)
            below.axhline(0, color=FAINT, linewidth=0.8, linestyle=":")
            below.set_xticks(range(len(order)), order, rotation=90, fontsize=9)
        axes[0, 0].set_ylabel("bound")
        axes[1, 0].set_ylabel("excess loss, nats")
        _legend(figure, looks)
        return drawn(
            figure,
            alt=f"Charts by part of the network, means over seeds. {' '.join(said)}",
            caption="One part of the network rounded, all others in full precision: the bound above, what it "
            "cost below. Small dots are single seeds, lines their means.",
        )


def _looks(groups: Sequence[str], shown: Iterable[str]) -> dict[str, dict[str, Any]]:
    """How the groups that are shown look: as they do wherever all groups are."""
    chosen = set(shown)
    return {name: _look(number, name) for number, name in enumerate(groups) if name in chosen}


def _logarithmic(axis: Axes, table: pd.DataFrame) -> None:
    """A logarithmic scale whose few ticks are plain numbers; intervals of few seeds may leave it."""
    shown = table.dropna(subset="estimate")
    axis.set_yscale("log")
    if len(shown):
        least, most = shown["estimate"].min(), shown["estimate"].max()
        lower, upper = shown["lower"].min(), shown["upper"].max()
        axis.set_ylim(np.nanmax([least / 5, lower / 1.2]), np.nanmin([most * 5, upper * 1.2]))
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(FuncFormatter(_plain_number))
    axis.yaxis.set_minor_locator(NullLocator())


def _plain_number(value: float, place: object = None) -> str:
    return f"{value:,.10g}"


# ---------------------------------------------------------------- chapter 5: what repairs

# What stands beside the groups in the tables of this chapter.
_TOTALS: dict[str, dict[str, Any]] = {
    "OA": {"color": INK, "marker": "|", "markersize": 8, "markeredgewidth": 2.2},
    "FVO": {"color": INK, "marker": "*"},
    "worst group": {"color": INK, "marker": "x"},
    "flips": {"color": FAINT, "marker": "."},
}
_FILLS = ("full", "none", "left", "bottom")
_ABBREVIATIONS = {"qat": "QAT", "fairqat": "FairQAT", "dro": "DRO"}


def effects(table: pd.DataFrame, groups: Sequence[str] = ("OA", "FVO")) -> Picture:
    """What each part of the method, and each two or three together, do: a panel a width.

    `table` of `tables.effects`; `groups`: which of its groups to show, OA and FVO among them.
    """
    return _rows_of_dots(
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
    return _rows_of_dots(
        table.assign(row=table["treatment"].map(_arm)),
        groups,
        what="Changes in points against rounding alone",
        caption="Change against rounding alone, in points, in pairs of the same network and image, with 95 % "
        "intervals. Left of the line: less.",
    )


def frontier(table: pd.DataFrame, groups: Sequence[str]) -> Picture:
    """OA against FVO of each treatment, a panel a width, with lines along the weights and the sampling.

    `table` of `tables.frontier`; `groups`: all groups of the data, so that each looks as it does elsewhere.
    """
    widths = _from_wide(name for name in table["width"] if name != FP32.name)
    worst = _looks(groups, table["worst"])
    sweeps = {"weights": "-", "sampling": "--"}
    named: dict[Axes, tuple[NDArray[np.float64], list[str]]] = {}
    marked: set[str] = set()
    said, cut = [], False
    with canvas(3.3 * len(widths) + 0.6, rows=len(widths)) as (figure, axes):
        for axis, width in zip(axes[:, 0], widths, strict=True):
            points = table[(table["treatment"] == FP32.name) | (table["width"] == width)]
            trained = points[points["treatment"].str.contains("qat|-tuned")]
            far = _far(points, trained)
            shown = points[~far]
            labels = {name: _arm(name).removeprefix("QAT ") for name in shown["treatment"]}
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
                cut |= _leave(shown, low, high, of=f"{measure}_")
            named[axis] = (100 * shown[["OA", "FVO"]].to_numpy(), [labels[t] for t in shown["treatment"]])
            beyond = [
                f"{_arm(row['treatment'])}: OA {100 * row['OA']:.0f}, FVO {100 * row['FVO']:.0f}"
                for row in points[far].to_dict("records")
            ]
            if beyond:
                axis.set_title(f"out of the picture: {'; '.join(beyond)}", loc="right", fontsize=8.5)
            said.append(f"{width}: " + "; ".join(_point(row) for row in points.to_dict("records")) + ".")
        lines = {f"{name} swept": {"color": INK, "linestyle": style} for name, style in sweeps.items()}
        marks = {f"{name} worst": worst[name] | {"linestyle": ""} for name in worst if name in marked}
        _legend(figure, marks | lines)
        figure.draw_without_rendering()  # before it, nothing has a place
        for axis, (places, texts) in named.items():
            _label_apart(axis, places, texts)
        return drawn(
            figure,
            alt=f"Scatter plots of FVO in points against OA in percent. {' '.join(said)}",
            caption="Better is to the right and below. Each mark is that of the group served worst; filled, "
            "trained while rounded; ringed, the published setting. Lines lead along the weights (percent for "
            "the smallest group) and along the sampling (percent of the way to groups seen "
            f"equally often). With 95 % intervals.{_go_on(cut)}",
        )


def on_both(table: pd.DataFrame) -> Picture:
    """The change of FVO on test images over that on training images: a panel a width, a mark an arm.

    `table` of `tables.on_both`.
    """
    own = table[table["group"] == "FVO"].assign(arm=lambda rows: rows["treatment"].map(_arm))
    widths, names = _from_wide(own["width"]), list(own["arm"].unique())
    # Once colours and marks are used up they begin anew, filled in another way.
    looks = {
        name: _look(number, name) | {"fillstyle": _FILLS[number // len(PALETTE) % len(_FILLS)]}
        for number, name in enumerate(names)
    }
    said, cut = [], False
    height = 3.2 if len(widths) == 1 else 2.1
    with _panels(len(widths), height, above=0.3 + 0.2 * len(_columns_of_names(names)[0])) as (figure, axes):
        for axis, width in zip(axes, widths, strict=True):
            here = own[own["width"] == width]
            low, high = _around(here["estimate"])
            cut |= _leave(here, low, high)
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
                    xerr=_reach(seen),
                    yerr=_reach(unseen),
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
        _legend(figure, {name: look | {"linestyle": ""} for name, look in looks.items()})
        _below(figure, "on training images, points")
        return drawn(
            figure,
            alt="Scatter plots of the change of FVO in points against rounding alone, on training and on "
            f"test images: {'; '.join(said)}.",
            caption="Change of FVO against rounding alone. On the grey line, what is repaired on training "
            f"images is repaired on test images; above it, less is. With 95 % intervals.{_go_on(cut)}"
            f"{_own_scales(widths)}",
        )


def _from_wide(widths: Iterable[str]) -> list[str]:
    """Each width once, from wide to narrow; names without a number in the order in which they come.

    >>> _from_wide(["int4", "int8", "int4", "int3"]), _from_wide(["captions", "labels"])
    (['int8', 'int4', 'int3'], ['captions', 'labels'])
    """
    return sorted(dict.fromkeys(widths), key=lambda name: -int((re.findall(r"\d+", name) or [0])[0]))


def _around(estimates: pd.Series) -> tuple[float, float]:
    """From where to where to draw, so that intervals of few seeds do not press all marks together."""
    least, most = estimates.min(), estimates.max()
    room = max(0.2 * (most - least), 0.005)
    return least - room, most + room


@contextmanager
def _panels(
    number: int, height: float, *, above: float = 0.5, most: int = 3, **subplots: Any
) -> Iterator[tuple[Figure, list]]:
    """So many panels, at most three beside one another, each so many inches high."""
    columns = _beside_one_another(number, most)
    rows = -(-number // columns)
    with canvas(height * rows + above, rows=rows, columns=columns, **subplots) as (figure, axes):
        for axis in axes.flat[number:]:
            axis.set_visible(False)
        for axis in axes.flat[:number]:
            _few_numbers(axis, columns)
        yield figure, list(axes.flat[:number])


def _beside_one_another(number: int, most: int = 3) -> int:
    """How many of so many panels stand in a row: of four two, not three and then one."""
    return -(-number // -(-number // most))


def _rows_of_dots(
    table: pd.DataFrame, groups: Sequence[str], *, what: str, caption: str, sharex: bool = False
) -> Picture:
    """A panel for each width, in it dots with intervals: a line for each `row`, a mark for each group."""
    names = [name for name in table["group"].unique() if name not in _TOTALS]
    known = _looks(names, names) | {name: _TOTALS[name] for name in _TOTALS if name in set(table["group"])}
    if not groups or (unknown := [name for name in groups if name not in known]):
        raise BadInput(
            f"groups is {', '.join(map(repr, unknown)) if groups else 'empty'}; expected some of: "
            f"{', '.join(known)}."
        )
    looks = {name: known[name] for name in groups}
    widths = _from_wide(table["width"])
    columns = _beside_one_another(len(widths))
    beside = [widths[start : start + columns] for start in range(0, len(widths), columns)]
    # Beside one another panels have the same lines, and none on which all of them are empty.
    lines = [list(table.loc[table["width"].isin(some), "row"].unique()) for some in beside]
    height = sum(map(len, lines)) * max(0.11 * len(looks) + 0.17, 0.42) / len(lines)
    ratios = list(map(len, lines))
    said = []
    with _panels(len(widths), height + 0.5, sharex=sharex, sharey="row", height_ratios=ratios) as (
        figure,
        axes,
    ):
        for number, (axis, width) in enumerate(zip(axes, widths, strict=True)):
            own = table[table["width"] == width]
            said += [f"{width}, {heard}" for heard in _dots(axis, own, looks, lines[number // columns])]
            axis.set_title(width, fontsize=9.5)
        _legend(figure, {name: look | {"linestyle": ""} for name, look in looks.items()})
        _below(figure, "points")
        return drawn(
            figure,
            alt=f"Dot plots. {what}. {' '.join(said)}",
            caption=caption if sharex else f"{caption}{_own_scales(widths)}",
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
            xerr=np.nan_to_num(_reach(rows)),
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


def _arm(treatment: str) -> str:
    """What sets an arm apart from others of its width, in words.

    >>> [_arm(name) for name in ("int4-ends8", "int4-ends8-qat-weighted", "int4-mse-fairqat", "fp32")]
    ['rounded', 'QAT weighted', 'FairQAT', 'fp32']
    """
    if treatment == FP32.name:
        return treatment
    words = re.split(r"-(?=ends8|tuned|qat|fairqat)", treatment, maxsplit=1)[1:]
    words = [word for part in words for word in part.split("-") if word != "ends8"]
    return " ".join(_ABBREVIATIONS.get(word, word) for word in words) or "rounded"


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
    fill = look["color"] if "qat" in point["treatment"] else "none"
    axis.plot([x], [y], markersize=5.5, linestyle="", markerfacecolor=fill, **look)
    if point["treatment"].endswith("-fairqat"):
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


# ---------------------------------------------------------------- chapter 6: vision and language

_NOTHING = Picture("", "", "Nothing is drawn: no treatment has two models that stand.")


def population_changes(moved: pd.DataFrame, found: pd.DataFrame) -> Picture:
    """What quantization does to the bias of each model: a panel a measure, a line a treatment, a dot a model.

    `moved` of `populations.by_model`, `found` of `populations.consistency`.
    """
    found = found[found["family"] == "bias"]
    if found.empty:
        return _NOTHING
    order = list(found["treatment"].unique())
    names = list(dict.fromkeys(zip(found["measure"], found["group"], strict=True)))
    said = []
    with _panels(len(names), 0.32 * len(order) + 0.75, above=0.2, most=2, sharey=True) as (figure, axes):
        for axis, (measure, group) in zip(axes, names, strict=True):
            rows = found[(found["measure"] == measure) & (found["group"] == group)]
            dots = moved[(moved["measure"] == measure) & (moved["group"] == group)]
            factor, unit = (1, "nats") if _in_nats(measure) else (100, "points")
            margin = factor * rows["margin"].iloc[0]
            axis.axvspan(-margin, margin, color=FAINT, alpha=0.2, linewidth=0)
            axis.axvline(0, color=INK, linewidth=0.9)
            for place, treatment in enumerate(order):
                own = factor * dots.loc[dots["treatment"] == treatment, "change"].to_numpy(float)
                beside = 0.5 * ((np.arange(len(own)) + 0.5) / max(len(own), 1) - 0.5)
                axis.plot(own, place + beside, "o", color=PALETTE[0], markersize=3, linewidth=0)
                for row in rows[rows["treatment"] == treatment].to_dict("records"):
                    ends = [factor * row[name] for name in ("lower", "upper")]
                    axis.plot(ends, [place, place], color=INK, linewidth=2.2)
                    axis.plot(
                        factor * row["estimate"], place, "|", color=INK, markersize=12, markeredgewidth=2
                    )
                    said.append(f"{_measure_name(measure, group)}, {_heard_move(row, factor, unit)}")
            axis.set_title(_measure_name(measure, group), fontsize=9.5)
            axis.set_yticks(range(len(order)), order, fontsize=9)
            axis.set_ylim(len(order) - 0.5, -0.5)
            axis.tick_params(axis="y", length=0)
            axis.set_xlabel(unit, fontsize=9.5)
        return drawn(
            figure,
            alt=f"Dot plots. Change of bias against the original. {'; '.join(said)}.",
            caption="Change against the original of the same model: a dot a model, the bar their mean with "
            "its 95 % interval. Grey: changes too small to matter. Right of the line: more bias, but for "
            f"MinSkew, where it is less.{_own_scales(names)}",
        )


def accuracy_by_group(found: pd.DataFrame) -> Picture:
    """What each group gains or loses over a population: a line a treatment, a mark a group.

    `found` of `populations.consistency`.
    """
    own = found[(found["measure"] == "accuracy") & (found["group"] != "FVO")]
    if own.empty:
        return _NOTHING
    groups = [name for name in own["group"].unique() if name != "OA"]
    return _rows_of_dots(
        own.assign(width="accuracy", row=own["treatment"]),
        [*groups, "OA"],
        what="Mean change of accuracy in points",
        caption="Mean change of zero-shot accuracy over the models, in points, with 95 % intervals. Left of "
        "the line: less. Groups on either side of it answer the same treatment in opposite ways.",
    )


def encoders_and_classifiers(encoders: pd.DataFrame, classifiers: pd.DataFrame) -> Picture:
    """What quantization does to networks taught by captions, and to the same taught by labels.

    Both of `populations.consistency`.
    """
    both = {"captions": encoders, "labels": classifiers}
    shown = pd.concat(
        [table[table["measure"] == "accuracy"].assign(width=taught) for taught, table in both.items()]
    )
    if shown.empty:
        return _NOTHING
    return _rows_of_dots(
        shown.assign(row=shown["treatment"]),
        ["OA", "FVO"],
        what="Mean change in points, of networks taught by captions and by labels",
        caption="Mean change of accuracy (OA) and of the gap between groups (FVO) over the models, in "
        "points, with 95 % intervals: left the dual encoders, right the classifiers of the same images.",
        sharex=True,
    )


def against_margins(found: pd.DataFrame) -> Picture:
    """How large each change of bias is, measured by the least that matters: a panel a treatment.

    `found` of `populations.consistency`.
    """
    found = found[found["family"] == "bias"]
    if found.empty:
        return _NOTHING
    order, names = list(found["treatment"].unique()), []
    found = found.assign(
        name=[_measure_name(*pair) for pair in zip(found["measure"], found["group"], strict=True)]
    )
    names = list(found["name"].unique())
    said = []
    with _panels(len(order), 0.3 * len(names) + 0.5, above=0.45, sharey=True) as (figure, axes):
        for axis, treatment in zip(axes, order, strict=True):
            axis.axvspan(-1, 1, color=FAINT, alpha=0.2, linewidth=0)
            axis.axvline(0, color=INK, linewidth=0.9)
            for row in found[found["treatment"] == treatment].to_dict("records"):
                place, sure = names.index(row["name"]), row["p_holm"] < 0.05
                ends = [row[name] / row["margin"] for name in ("lower", "upper")]
                colour = PALETTE[1] if sure else INK
                axis.plot(ends, [place, place], color=colour, linewidth=1.6)
                axis.plot(
                    row["estimate"] / row["margin"],
                    place,
                    "o",
                    color=colour,
                    markersize=6,
                    markerfacecolor=colour if sure else "none",
                )
                says = "significant" if sure else "not significant"
                said.append(
                    f"{treatment} {row['name']} {row['estimate'] / row['margin']:+.1f} margins, {says}"
                )
            axis.set_title(treatment, fontsize=9.5)
            axis.set_yticks(range(len(names)), names, fontsize=9)
            axis.set_ylim(len(names) - 0.5, -0.5)
            axis.tick_params(axis="y", length=0)
        looks = {
            "significant": {"color": PALETTE[1], "marker": "o", "linestyle": ""},
            "not significant": {"color": INK, "marker": "o", "linestyle": "", "markerfacecolor": "none"},
        }
        _legend(figure, looks)
        _below(figure, "change, in margins")
        return drawn(
            figure,
            alt=f"Dot plots. Mean change of bias, in margins. {'; '.join(said)}.",
            caption="Mean change of each measure of bias with its 95 % interval, divided by the least "
            "change that matters. In the grey band it is small, whether or not it is significant. "
            f"Significant: after correction for all measures of the treatment.{_own_scales(order)}",
        )


def _require_rows(found: pd.DataFrame) -> None:
    if found.empty:
        raise BadInput(
            "no treatment has two models that stand; expected some: add seeds or wider treatments."
        )


def _in_nats(measure: str) -> bool:
    return measure.startswith(("MaxSkew", "MinSkew", "NDKL"))


def _measure_name(measure: str, group: str) -> str:
    return "FVO" if group == "FVO" else measure


def _heard_move(row: Mapping[Any, Any], factor: float, unit: str) -> str:
    values = [
        f"{factor * row[name]:+.{2 if unit == 'nats' else 1}f}" for name in ("estimate", "lower", "upper")
    ]
    return (
        f"{row['treatment']} {values[0]} ({values[1]} to {values[2]}) {unit}, {row['rises']} rise and "
        f"{row['falls']} fall"
    )


# ---------------------------------------------------------------- chapter 7: an audit

_MOST_ROWS = 30
_LONGEST_NAME = 24
_FLIPS = {
    "lost": ("right, then wrong", PALETTE[1]),
    "changed": ("wrong in another way", FAINT),
    "gained": ("wrong, then right", PALETTE[0]),
}


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
        looks = [_look(number - 1, "" if number else ALL) | {"linestyle": ""} for number in range(len(rows))]
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
            "loss. The upright stroke is the smallest drop that the group's images would have shown in 80 of "
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
            said.append(f"{shown(row['group'])}, {row['n']} images: {parts}.")
        _names_of(axis, rows)
        axis.set_xlim(0, 1.05 * max(1, start.max()))
        axis.set_xlabel("predictions that changed, %")
        looks = {
            words: {"color": colour, "marker": "s", "linestyle": ""} for words, colour in _FLIPS.values()
        }
        _legend(figure, looks)
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
