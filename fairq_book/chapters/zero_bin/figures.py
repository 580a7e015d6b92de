"""The figures of the chapter on the zero bin."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from torch import nn

from fairq_audit.formats import MARKERS, PALETTE
from fairq_book.chapters.zero_bin.tables import gaussian_zero_share
from fairq_book.kit.figures import (
    FAINT,
    INK,
    ONE_HUE,
    Picture,
    canvas,
    drawn,
    few_numbers,
    label_below,
    label_ends,
    legend_above,
    plain_number,
)
from fairq_book.kit.tables import ALL
from fairq_book.kit.wording import Prose
from fairq_utils.errors import BadInput
from fairq_utils.treatments.ablations import layers
from fairq_utils.treatments.treatment import Treatment


def zero_shares(bins: pd.DataFrame) -> Picture:
    """The share of weights that become zero, layer by layer and treatment by treatment."""
    shares = bins.pivot_table(index="layer", columns="treatment", values="zero_share", sort=False)
    with canvas(0.22 * len(shares) + 0.7) as (figure, axes):
        axis = axes[0, 0]
        axis.imshow(shares, cmap=ONE_HUE, vmin=0, vmax=1, aspect="auto")
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
    bits = dict(zip(table["treatment"], table["bits"], strict=True))
    peaks = np.geomspace(table["peak"].min() * 0.9, table["peak"].max() * 1.1, 100)
    with canvas(3.6) as (figure, axes):
        axis = axes[0, 0]
        ends, said = {}, []
        for number, name in enumerate(order):
            own, colour = means.loc[name], PALETTE[number % len(PALETTE)]
            curve = 100 * gaussian_zero_share(peaks, bits[name])
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
        label_ends(axis, peaks[-1] * (peaks[-1] / peaks[0]) ** 0.02, ends, gap=7)
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
            few_numbers(axis, len(titles))
        axes[0, 0].set_yticks(range(len(order)), order, fontsize=9)
        axes[0, 0].set_ylim(len(order) - 0.5, -0.5)
        figure.legend(loc="outside upper center", ncols=2, fontsize=9.5, handletextpad=0.1)
        label_below(figure, "loss added, nats")
        return drawn(
            figure,
            alt=f"Dot plot of the loss in nats that touching one layer adds, {len(order)} layers. "
            f"{' '.join(said)}",
            caption="What touching one layer alone adds to the mean loss, with 95 % intervals over images "
            "and seeds. The panels have scales of their own.",
        )


def two_grids(table: pd.DataFrame, title: str) -> Picture | Prose:
    """Accuracy over the width of a step, and the contrast: with a loud channel, and as wide without it."""
    if table.empty:
        return Prose(
            "These networks have no convolution that only a batch norm follows, or no group that is larger "
            "than the others; so nothing is shown of them."
        )
    widths, measured = list(dict.fromkeys(table["bits"])), sorted(set(table["renewed"]))
    said = []
    with canvas(5.0, rows=2, columns=len(measured), sharex=True, sharey="row") as (figure, axes):
        for column, renewed in enumerate(measured):
            for number, bits in enumerate(widths):
                for way, filled in (("a loud channel", True), ("the same steps without it", False)):
                    chosen = (table["bits"] == bits) & (table["way"] == way) & (table["renewed"] == renewed)
                    rows = table[chosen].sort_values("step")
                    look = {
                        "color": PALETTE[number],
                        "marker": MARKERS[number],
                        "markerfacecolor": PALETTE[number] if filled else "none",
                        "linestyle": "-" if filled else ":",
                        "markersize": 5,
                        "linewidth": 1,
                    }
                    for axis, prefix in zip(axes[:, column], ("", "contrast_"), strict=True):
                        low = rows[f"{prefix}estimate"] - rows[f"{prefix}lower"]
                        reach = 100 * np.clip(np.nan_to_num(low), 0, None)
                        axis.errorbar(
                            rows["step"], 100 * rows[f"{prefix}estimate"], yerr=reach, elinewidth=0.7, **look
                        )
                    numbers = ", ".join(
                        f"{row.factor} times {100 * row.estimate:.0f}" for row in rows.itertuples()
                    )
                    stats = "new statistics" if renewed else "old statistics"
                    said.append(f"int{bits}, {way}, {stats}: {numbers}")
            axes[0, column].set_title("new statistics" if renewed else "as it is", fontsize=9.5)
            axes[1, column].axhline(0, color=INK, linewidth=0.9)
            axes[1, column].set_xscale("log")
            axes[1, column].xaxis.set_major_locator(FixedLocator([0.01, 0.1, 1]))
            axes[1, column].xaxis.set_minor_locator(NullLocator())
            axes[1, column].xaxis.set_major_formatter(FuncFormatter(plain_number))
        axes[0, 0].set_ylabel("OA, %")
        axes[1, 0].set_ylabel("contrast, points")
        label_below(figure, "step, in halves of the range")
        marks = {f"int{bits}": {"color": PALETTE[i], "marker": MARKERS[i]} for i, bits in enumerate(widths)}
        hollow = {"color": FAINT, "marker": "o", "markerfacecolor": "none", "linestyle": ":"}
        legend_above(figure, marks | {"as wide without": hollow})
        return drawn(
            figure,
            alt=f"Line charts, {title}: accuracy over all images, in percent. {'; '.join(said)}.",
            caption=f"{title}. Filled marks: the same function, with one channel of each layer 1 to 16 times "
            "as loud. Hollow marks: steps that are as wide, without it. Above the accuracy over all images, "
            "below the contrast where networks have not collapsed; with 95 % intervals over networks.",
        )
