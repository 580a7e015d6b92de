"""The figures of the chapter on who pays."""

from __future__ import annotations

import base64
import html
import io
from dataclasses import replace

import matplotlib.image
import numpy as np
import pandas as pd

from fairq_audit.formats import PALETTE
from fairq_book.chapters.disparity.tables import GRIDS, KINDS_OF_MOTHS
from fairq_book.kit.figures import (
    FAINT,
    INK,
    ONE_HUE,
    Picture,
    accuracy_lines,
    canvas,
    drawn,
    error_bars,
    groups_of,
    legend_above,
    look_of,
    rows_of_dots,
    table_in_words,
    treatment_ticks,
)
from fairq_utils.data.datasets import Dataset
from fairq_utils.data.sources import DataSettings
from fairq_utils.treatments.treatment import FP32


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


def group_sizes(sizes: pd.DataFrame) -> Picture:
    """How many images of each group there are to learn from and to be tested on; a column for each part."""
    return counts(sizes.melt(id_vars="group", var_name="split", value_name="n"))


def counts(table: pd.DataFrame) -> Picture:
    """How many images of each group there are, from the records of `Dataset.counts`."""
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
        accuracy_lines(axes[0, 0], table)
        return drawn(
            figure,
            alt=f"Line chart of accuracy in percent. {table_in_words(table, [*groups_of(table), 'OA'])}",
            caption="Accuracy of each group, and over all (OA, dashed), with 95 % intervals over seeds and "
            "images.",
        )


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
            yerr=error_bars(rows),
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
        treatment_ticks(below, order)
        in_use = ", ".join(
            f"{row.treatment} {row.effective_classes:.1f}" for row in collapse.itertuples(index=False)
        )
        return drawn(
            figure,
            alt=f"Line chart of FVO in points. {table_in_words(table, ['FVO'])} Effective number of classes "
            f"that the networks answer with: {in_use}.",
            caption="Above: FVO with 95 % intervals, over the FVO that equal groups would show by noise "
            "alone (grey, up to its 95 % quantile). Below: the effective number of classes the networks "
            "still answer with; near 1, a large FVO means collapse.",
        )


def confusion(table: pd.DataFrame) -> Picture:
    """What each group is taken for: a panel for the first treatment of the table, one for the last."""
    order = list(dict.fromkeys(table["treatment"]))
    names, classes = (list(dict.fromkeys(table[column])) for column in ("group", "answer"))
    shown = list(dict.fromkeys([order[0], order[-1]]))
    with canvas(2.9, columns=len(shown), sharey=True) as (figure, axes):
        said = []
        for axis, treatment in zip(axes[0], shown, strict=True):
            own = table[table["treatment"] == treatment].set_index(["group", "answer"])["n"]
            counts = np.array([[own[group, answer] for answer in classes] for group in names])
            shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
            axis.imshow(shares, cmap=ONE_HUE, vmin=0, vmax=1, aspect="auto")
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
    table = table.assign(grid=table["grid"].map(lambda grid: GRIDS.get(grid, grid)))
    grids = [grid for grid in dict.fromkeys(table["grid"]) if grid != GRIDS[FP32.name]]
    looks = {grid: look_of(number, grid) for number, grid in enumerate(grids)}
    with canvas(4.6, rows=2, sharex=True) as (figure, axes):
        for axis, measure, label in zip(axes[:, 0], ("OA", "FVO"), ("OA, %", "FVO, points"), strict=True):
            rows = table[table["group"] == measure]
            for grid, look in looks.items():
                own = rows[rows["grid"] == grid].sort_values("megabytes")
                axis.errorbar(
                    own["megabytes"], 100 * own["estimate"], yerr=error_bars(own), elinewidth=1, **look
                )
            whole = rows[rows["grid"] == GRIDS[FP32.name]]
            axis.axhline(100 * whole["estimate"].iloc[0], color=FAINT, linestyle=":", linewidth=1)
            axis.set(ylabel=label, ylim=(-2, 102))
        axes[1, 0].set(xlabel="megabytes, weights packed")
        legend_above(figure, looks)
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


# The kinds of moths and the two causes, in words.
_EFFECTS = {
    "moths-equal": "neither",
    "moths-by-size": "small",
    "moths-by-difficulty": "hard",
    "moths-by-both": "small and hard",
    "size": "what size adds",
    "difficulty": "what difficulty adds",
}


def size_and_difficulty(effects: pd.DataFrame) -> Picture:
    """What the focal group loses beyond its peers on moths of four kinds; what size and difficulty add."""
    treatments, units = (list(dict.fromkeys(effects[name])) for name in ("treatment", "unit"))
    place, said = np.array([0, 1, 2, 3, 4.6, 5.6]), []
    with canvas(2.2 * len(treatments), rows=len(treatments), columns=len(units), sharey=True) as (
        figure,
        axes,
    ):
        for row, treatment in zip(axes, treatments, strict=True):
            for axis, unit in zip(row, units, strict=True):
                chosen = (effects["treatment"] == treatment) & (effects["unit"] == unit)
                own = effects[chosen].set_index("effect").loc[list(_EFFECTS)].copy()
                if unit != "nats":
                    own[["estimate", "lower", "upper"]] *= 100
                for at, (effect, number) in zip(place, own.iterrows(), strict=True):
                    colour = FAINT if str(effect) in KINDS_OF_MOTHS else INK
                    reach = error_bars(own.loc[[effect]]) / 100
                    axis.errorbar(number["estimate"], [at], xerr=reach, color=colour, marker="o")
                    said.append(
                        f"{treatment}, {unit}, {_EFFECTS[str(effect)]}: {number['estimate']:+.2f} "
                        f"({number['lower']:+.2f} to {number['upper']:+.2f})"
                    )
                axis.axvline(0, color=INK, linewidth=0.8)
                axis.set(yticks=place, yticklabels=list(_EFFECTS.values()))
                axis.set(title=treatment if unit == units[0] else "", xlabel=_UNITS[unit])
        axes[0, 0].invert_yaxis()
        return drawn(
            figure,
            alt=f"Dots with intervals: what the focal group loses beyond its peers. {'; '.join(said)}.",
            caption="The focal group minus its peers, with 95 % intervals over networks: the change of its "
            "accuracy in points, the percentage of its answers that changed, and the change of its loss. "
            "Left of the line in points, and right of it in flips and nats, it is hit harder. Below, what "
            "being small and being hard each add.",
        )


_UNITS = {"points": "points", "flips": "flips, in %", "nats": "nats"}


def contrasts(table: pd.DataFrame) -> Picture:
    """The contrast at each width, side by side in several settings."""
    titles, treatments = (list(dict.fromkeys(table[name])) for name in ("setting", "treatment"))
    with canvas(3.0) as (figure, axes):
        axis, looks, said = axes[0, 0], {}, []
        for number, title in enumerate(titles):
            rows = table[table["setting"] == title].set_index("treatment").reindex(treatments).reset_index()
            looks[title] = {"color": PALETTE[number], "marker": "os^Dv"[number % 5], "linestyle": "none"}
            place = np.arange(len(treatments)) + 0.15 * (number - (len(titles) - 1) / 2)
            axis.errorbar(place, 100 * rows["estimate"], yerr=error_bars(rows), **looks[title])
            said += [
                f"{title}, {row['treatment']}: {100 * row['estimate']:+.1f} "
                f"({100 * row['lower']:+.1f} to {100 * row['upper']:+.1f})"
                for row in rows.dropna(subset="estimate").to_dict("records")
            ]
        axis.axhline(0, color=INK, linewidth=0.8)
        axis.set(ylabel="contrast, points")
        treatment_ticks(axis, treatments)
        legend_above(figure, looks)
        return drawn(
            figure,
            alt=f"Dots with intervals: the contrast at each width in several settings. {'; '.join(said)}.",
            caption="The mean change of all groups but the largest, minus that of the largest, with 95 % "
            "intervals over networks. Below the line, the smaller groups lose more.",
        )


def clipped_by_layer(table: pd.DataFrame) -> Picture:
    """The contrast where one layer's large weights are cut off, layer by layer, and where all layers' are."""
    layers, said, looks = list(dict.fromkeys(table["layer"])), [], {}
    titles = list(dict.fromkeys(table["setting"]))
    with canvas(3.6) as (figure, axes):
        axis = axes[0, 0]
        for number, title in enumerate(titles):
            own = table[table["setting"] == title].set_index("layer").reindex(layers)
            looks[title] = {"color": PALETTE[number], "marker": "os"[number % 2], "linestyle": "none"}
            place = np.arange(len(layers)) + 0.3 * (number - (len(titles) - 1) / 2)
            bars = {"markersize": 4, "elinewidth": 1} | looks[title]
            axis.errorbar(place, 100 * own["estimate"], yerr=error_bars(own), **bars)
            said += [
                f"{title}, {layer}: {100 * row['estimate']:+.1f} "
                f"({100 * row['lower']:+.1f} to {100 * row['upper']:+.1f})"
                for layer, row in own.dropna(subset="estimate").iterrows()
            ]
        axis.axhline(0, color=INK, linewidth=0.8)
        axis.axvline(len(layers) - 1.5, color=FAINT, linewidth=0.8, linestyle=":")
        axis.set_ylabel("contrast, points")
        axis.set_xticks(range(len(layers)), layers, rotation=90, fontsize=8.5)
        legend_above(figure, looks)
        return drawn(
            figure,
            alt=f"Dots with intervals: the contrast where one layer's weights are cut. {'; '.join(said)}.",
            caption="The contrast where only weights beyond the range of least error are cut off, at four "
            "bits: in one layer alone, from the first to the last, and in all. Intervals of the layers hold "
            "together with 95 %. Below the line, the smaller groups lose more.",
        )


def why_flips(table: pd.DataFrame, majority: str) -> Picture:
    """A panel for each width, a line for each group, and a mark for each part of what flips more."""
    return rows_of_dots(
        table,
        list(dict.fromkeys(table["group"])),
        what=f"By how much more answers of each group flip than those of {majority}, and why",
        caption=f"By how many more points answers of a group go to their runner-up than those of {majority}, "
        "in all and in parts: smaller margins, a wider spread of the noise, a drift of it, and what a "
        "Gaussian forecast misses. Means over networks, with 95 % intervals.",
    )
