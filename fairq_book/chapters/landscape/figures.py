"""The figures of the chapter on the loss around a network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from fairq_book.kit.figures import (
    FAINT,
    Picture,
    canvas,
    caption_of_own_scales,
    draw_lines,
    drawn,
    label_below,
    legend_above,
    looks_of,
    narrow_tick_labels,
    plain_number,
    read_aloud,
)


def steepness(table: pd.DataFrame, groups: Sequence[str]) -> Picture:
    """The squared gradient norm of each group, on the left as measured, on the right less its sampling."""
    order = list(table["treatment"].unique())
    looks = looks_of(groups, table.dropna(subset="estimate")["group"])
    # Linear about zero, where a logarithm has no place for what is below.
    linear = table["estimate"].abs().replace(0, np.nan).min()
    said = []
    with canvas(3.6, columns=2, sharey=True) as (figure, axes):
        for axis, measure in zip(axes[0], table["measure"].unique(), strict=True):
            own = table[table["measure"] == measure]
            draw_lines(axis, own, looks, by="group", order=order, factor=1, joined=False)
            axis.set_yscale("symlog", linthresh=linear)
            axis.yaxis.set_major_formatter(FuncFormatter(plain_number))
            axis.yaxis.set_minor_locator(NullLocator())
            axis.axhline(0, color=FAINT, linewidth=0.8, linestyle=":")
            axis.set_title(measure)
            said += [f"{measure}.", read_aloud(own, looks, by="group", factor=1, digits=1)]
        narrow_tick_labels(axes, order)
        axes[0, 0].set_ylabel("squared gradient norm")
        legend_above(figure, looks)
        return drawn(
            figure,
            alt=f"Dot plots of the squared gradient norm by treatment, means over seeds. {' '.join(said)}",
            caption="Arithmetic means over seeds with 95 % intervals. The scale is logarithmic, and linear "
            "near zero.",
        )


def spectra(table: pd.DataFrame, groups: Sequence[str]) -> Picture:
    """The spectral density for the largest and the smallest group: a panel a treatment."""
    panels, looks = list(table["treatment"].unique()), looks_of(groups, table["group"])
    said = []
    with canvas(3.1, columns=len(panels), sharex=True, sharey=True) as (figure, axes):
        for axis, name in zip(axes[0], panels, strict=True):
            for group, own in table[table["treatment"] == name].groupby("group", sort=False):
                values, shares = own["eigenvalue"], own["share"]
                look = {key: looks[str(group)][key] for key in ("color", "marker")}
                axis.plot(values, shares, linestyle="none", markersize=5, alpha=0.9, **look)
                axis.vlines(values, _LEAST_SHARE, shares, color=look["color"], linewidth=1.2)
                said.append(
                    f"{name}, {group}: from {values.min():.1f} to {values.max():.1f}, and "
                    f"{100 * shares[np.abs(values) < values.max() / 100].sum():.4f} % of the directions "
                    "within a hundredth of the largest of zero."
                )
            axis.set(yscale="log", ylim=(_LEAST_SHARE, 3), title=name)
            axis.set_xscale("symlog", linthresh=1)
            axis.xaxis.set_major_locator(FixedLocator([-100, -1, 1, 100, 10000]))
            axis.axvline(0, color=FAINT, linewidth=0.8, linestyle=":")
        axes[0, 0].set_ylabel("share of the directions")
        legend_above(figure, looks)
        label_below(figure, "eigenvalue")
        return drawn(
            figure,
            alt=f"Spectral densities. {' '.join(said)}",
            caption="Bars at the eigenvalues that Lanczos' method found, as high as the share of directions "
            "that each stands for. Both scales are logarithmic, below 1 the horizontal one is linear.",
        )


_LEAST_SHARE = 1e-9  # of ten million directions one is 1e-7; a random vector may meet it less


def slices(table: pd.DataFrame, groups: Sequence[str]) -> Picture:
    """The loss from the original to the rounded weights: a panel a treatment, thin lines single seeds."""
    panels, looks = list(table["treatment"].unique()), looks_of(groups, table["group"])
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
        legend_above(figure, looks)
        return drawn(
            figure,
            alt=f"Line charts of the mean loss along a straight way. {' '.join(said)}",
            caption="The loss on the straight line through the original weights and the rounded ones. "
            "Thin lines are single seeds, thick ones their mean.",
        )


def bound_against_excess(bounds: pd.DataFrame, groups: Sequence[str]) -> Picture:
    """Excess loss of each group over its forecasts: the bound on the left, the parabola on the right."""
    panels = list(bounds["treatment"].unique())
    names = looks_of(groups, bounds["group"])
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
            left.xaxis.set_major_formatter(FuncFormatter(plain_number))
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
        legend_above(figure, names)
        return drawn(
            figure,
            alt=f"Scatter plots of the excess loss in nats, one point per seed and group. {' '.join(said)}",
            caption="Excess loss in nats over what the original's landscape forecasts; one point per seed "
            "and group. On the grey line the forecast is right. A bound that ranks makes a rising cloud."
            f"{caption_of_own_scales(panels)}",
        )


def bound_by_part(parts: pd.DataFrame, groups: Sequence[str]) -> Picture:
    """Bound (above) and excess loss (below) when one part alone is rounded, a column a treatment."""
    panels, looks = list(parts["treatment"].unique()), looks_of(groups, parts["group"])
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
        legend_above(figure, looks)
        return drawn(
            figure,
            alt=f"Charts by part of the network, means over seeds. {' '.join(said)}",
            caption="One part of the network rounded, all others in full precision: the bound above, what it "
            "cost below. Small dots are single seeds, lines their means.",
        )
