"""The figures of the chapter on vision and language."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from fairq_audit.formats import PALETTE
from fairq_book.kit.figures import (
    FAINT,
    INK,
    Picture,
    caption_of_own_scales,
    drawn,
    label_below,
    legend_above,
    panels_in_rows,
    rows_of_dots,
)
from fairq_utils.errors import BadInput

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
    with panels_in_rows(len(names), 0.32 * len(order) + 0.75, above=0.2, most=2, sharey=True) as (
        figure,
        axes,
    ):
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
            f"MinSkew, where it is less.{caption_of_own_scales(names)}",
        )


def accuracy_by_group(found: pd.DataFrame) -> Picture:
    """What each group gains or loses over a population: a line a treatment, a mark a group.

    `found` of `populations.consistency`.
    """
    own = found[(found["measure"] == "accuracy") & (found["group"] != "FVO")]
    if own.empty:
        return _NOTHING
    groups = [name for name in own["group"].unique() if name != "OA"]
    return rows_of_dots(
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
    return rows_of_dots(
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
    with panels_in_rows(len(order), 0.3 * len(names) + 0.5, above=0.45, sharey=True) as (figure, axes):
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
        legend_above(figure, looks)
        label_below(figure, "change, in margins")
        return drawn(
            figure,
            alt=f"Dot plots. Mean change of bias, in margins. {'; '.join(said)}.",
            caption="Mean change of each measure of bias with its 95 % interval, divided by the least "
            "change that matters. In the grey band it is small, whether or not it is significant. "
            f"Significant: after correction for all measures of the treatment.{caption_of_own_scales(order)}",
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
