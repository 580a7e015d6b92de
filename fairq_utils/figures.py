"""Draw: one palette, one mark a group, readable in light and in dark, on paper and to a screen reader."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import re
from collections.abc import Iterator, Sequence
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
from numpy.typing import NDArray

from fairq_utils.data import Dataset, DataSettings
from fairq_utils.studies import Prediction

# At least 3 : 1 against white and against the dark page, so that one figure serves both.
PALETTE = ("#2f7fc1", "#c4720e", "#1f9a6c", "#8e6bd1", "#d0457b", "#9c7a3c", "#2a93a8", "#7d828a")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h")
# From nothing to a blue on which the page's ink can be read in light and in dark.
_ONE_HUE = LinearSegmentedColormap.from_list("fairq", ["#2f7fc100", "#2f7fc1a0"])
# Stands for "the colour of the text around the figure", which only the page knows.
INK = "#010203"
FAINT = "#7d828a"
_WIDTH = 5.2  # inches; shrunk to a phone, the text is still of ten pixels
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
    names = [name for name in table["group"].unique() if name not in ("OA", "FVO")]
    order = list(table["treatment"].unique())
    with canvas(3.9) as (figure, axes):
        axis = axes[0, 0]
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
            ends[name] = (100 * rows["estimate"].iloc[-1], colour)
        axis.set(ylabel="accuracy, %", ylim=(-2, 102))
        _widths(axis, order)
        _label_ends(axis, len(order) - 0.75, ends)
        return drawn(
            figure,
            alt=f"Line chart of accuracy in percent. {_spoken(table, [*names, 'OA'])}",
            caption="Accuracy of each group, and over all (OA, dashed), with 95 % intervals over seeds and "
            "images.",
        )


def violation_by_treatment(table: pd.DataFrame, chance: pd.DataFrame, collapse: pd.DataFrame) -> Picture:
    """FVO over what noise alone would give, and below it how far predictions have collapsed."""
    rows = table[table["group"] == "FVO"]
    order = list(rows["treatment"])
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
            (place[0], 50 * chance["upper"].iloc[0]),
            xytext=(-14, 0),
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


def _reach(rows: pd.DataFrame) -> NDArray[np.float64]:
    """What matplotlib calls yerr, in percent."""
    below, above = rows["estimate"] - rows["lower"], rows["upper"] - rows["estimate"]
    return 100 * np.clip([below, above], 0, None)


def _widths(axis: Axes, order: Sequence[str]) -> None:
    axis.set_xticks(np.arange(len(order)), order)
    axis.set_xlim(-0.5, len(order) - 0.5)


def _label_ends(axis: Axes, x: float, ends: dict[str, tuple[float, str]], gap: float = 6.0) -> None:
    """Names beside the ends of their lines, moved apart where they would overlap."""
    names = sorted(ends, key=lambda name: ends[name][0])
    places = np.array([ends[name][0] for name in names])
    for i in range(1, len(places)):
        places[i] = max(places[i], places[i - 1] + gap)
    places[-1] = min(places[-1], axis.get_ylim()[1])
    for i in reversed(range(len(places) - 1)):
        places[i] = min(places[i], places[i + 1] - gap)
    for name, y in zip(names, places, strict=True):
        axis.text(x, y, name, color=ends[name][1], va="center", clip_on=False)


def _spoken(table: pd.DataFrame, names: Sequence[str]) -> str:
    """The table in words, for those who hear the figure."""
    sentences = []
    for name in names:
        rows = table[table["group"] == name].to_dict("records")
        values = ", ".join(f"{row['treatment']} {100 * row['estimate']:.0f}" for row in rows)
        sentences.append(f"{name}: {values}.")
    return " ".join(sentences)
