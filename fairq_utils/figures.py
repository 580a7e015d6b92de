"""Draw: one palette, one mark a group, readable in light and in dark, on paper and to a screen reader."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import matplotlib as mpl
import matplotlib.image
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fairq_utils.data import Dataset

# At least 3 : 1 against white and against the dark page, so that one figure serves both.
PALETTE = ("#2f7fc1", "#c4720e", "#1f9a6c", "#8e6bd1", "#d0457b", "#9c7a3c", "#2a93a8", "#7d828a")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h")
# Stands for "the colour of the text around the figure", which only the page knows.
INK = "#010203"
FAINT = "#7d828a"
_STYLE = {
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
def canvas(width: float, height: float, **subplots: object) -> Iterator[tuple[Figure, NDArray]]:
    """A figure of so many inches in the book's style, closed when the block ends."""
    with mpl.rc_context(_STYLE):
        figure, axes = plt.subplots(
            figsize=(width, height), layout="constrained", squeeze=False, **subplots  # type: ignore[arg-type]
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
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', svg))
    own = hashlib.sha256(f"{svg}{alt}".encode()).hexdigest()[:8]  # ids must differ between the figures of a page
    svg = re.sub(r' id="([^"]+)"', lambda m: f' id="{own}-{m[1]}"' if m[1] in used else "", svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\1{own}-", svg)
    width, height = figure.get_size_inches() * 96
    opening = (
        f'<svg role="img" aria-label="{html.escape(alt)}" style="width:100%;height:auto;max-width:{width:.0f}px" '
    )
    svg = re.sub(r'<svg [^>]*?(viewBox="[^"]+")[^>]*>', rf'{opening} \1 xmlns="http://www.w3.org/2000/svg" '
                 r'xmlns:xlink="http://www.w3.org/1999/xlink">', svg, count=1)
    return Picture(svg, alt, caption)


def percent(fraction: float) -> str:
    """A share as it stands in prose.

    >>> percent(0.4251)
    '42.5 %'
    """
    return f"{100 * fraction:.1f} %"


def points(fraction: float) -> str:
    """A difference of shares in percentage points, signed.

    >>> points(0.031), points(-0.2)
    ('+3.1 points', '−20.0 points')
    """
    return f"{100 * fraction:+.1f} points".replace("-", "−")


def contact_sheet(images: Dataset, *, columns: int = 12) -> Picture:
    """The first training images of each group, a row a group."""
    rows = []
    for group in range(len(images.group_names)):
        chosen = images.images[images.is_train & (images.groups == group)][:columns]
        rows.append(np.concatenate([np.pad(image, ((0, 0), (2, 2), (2, 2))) for image in chosen.numpy()], axis=2))
    ...


def group_sizes(images: Dataset) -> Picture:
    """How many images of each group there are to learn from and to be tested on."""
    table = pd.DataFrame(
        {
            "train": [int((images.is_train & (images.groups == g)).sum()) for g in range(len(images.group_names))],
            "test": [int((~images.is_train & (images.groups == g)).sum()) for g in range(len(images.group_names))],
        },
        index=list(images.group_names),
    )
    with canvas(5.8, 0.42 * len(table) + 0.7) as (figure, axes):
        axis = axes[0, 0]
        bars = axis.barh(table.index, table["train"], color=PALETTE[: len(table)], height=0.62)
        labels = [f"{row.train:,} to learn from, {row.test:,} to be tested on" for row in table.itertuples()]
        axis.bar_label(bars, labels, padding=4)
        axis.set_xlim(0, table["train"].max() * 1.9)
        axis.invert_yaxis()
        axis.xaxis.set_visible(False)
        axis.spines["bottom"].set_visible(False)
        axis.tick_params(left=False)
        sizes = "; ".join(f"{name} {label}" for name, label in zip(table.index, labels, strict=True))
        return drawn(figure, alt=f"Bar chart of the images of each group: {sizes}.")
