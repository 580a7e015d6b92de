"""The tables of the chapter on the loss around a network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from fairq_book.experiments.gather import Gathered
from fairq_book.experiments.studies import Landscape, Prediction, Spectrum
from fairq_book.kit.tables import (
    AROUND,
    Ends,
    accuracy_by_seed,
    around,
    collapse,
    landscape,
    logarithms,
    over_seeds,
    ratios_by_group,
    side_by_side_groups,
    to_rounded,
    values_by_treatment,
)
from fairq_book.kit.treatments import NONE, columns, with_columns
from fairq_utils.curvature import surveys
from fairq_utils.curvature.surveys import Survey
from fairq_utils.data.datasets import Dataset
from fairq_utils.intervals import ratio_of_means
from fairq_utils.metrics import groups
from fairq_utils.treatments.treatment import FP32

MINORITIES = "minorities"  # all groups but the largest
SMALLEST_TO_OTHERS = "smallest to the other minorities"
AS_MEASURED, LESS_SAMPLING = "as measured", "less sampling"


def make(got: Gathered, ends: Ends) -> dict[str, pd.DataFrame]:
    """Every table of the chapter, by name, compared between these `ends`."""
    table = landscape([*got["landscapes"], *got["norms"]])
    forecast, parts = bounds(got["landscapes"], got["treated"]), part_bounds(got["landscapes"])
    return {
        "collapse": collapse(got["treated"]),
        "accuracy_by_seed": accuracy_by_seed(got["treated"]),
        "landscape": table,
        "around": around(table),
        "to_majority": minorities_to_majority(table, ends),
        "steepness": steepness(table),
        "steepness_ratios": steepness_ratios(table, ends),
        "to_full_precision": to_full_precision(table),
        "to_rounded": to_rounded(table),
        "with_loss": with_loss(table),
        "generalization": generalization(got["learned"], got["treated"]),
        "spectra": spectra(got["spectra"]),
        "slices": slices(got["landscapes"]),
        "bounds": forecast,
        "ranks": rank_correlations(forecast),
        "part_bounds": parts,
        "part_ranks": part_rank_correlations(parts),
    }


def ends(images: Dataset, survey: Survey) -> Ends:
    """Between whom chapter 4 compares: of the groups that can be surveyed, the largest and the smallest."""
    sizes = np.bincount(images.groups[images.is_train], minlength=len(images.group_names))
    largest, smallest = surveys.extremes(images, survey)
    names = images.group_names
    return Ends(names[largest], names[smallest], int(sizes[largest]), int(sizes[smallest]))


def minorities_to_majority(table: pd.DataFrame, ends: Ends) -> pd.DataFrame:
    """Records: how many times as steep and as curved the loss is for minorities as for the majority.

    The majority is the group with the most training images, the minorities are all others, by their
    geometric mean. `who` is MINORITIES or the name of the smallest group, both against the majority; or
    SMALLEST_TO_OTHERS, the smallest group against the other minorities, where there are any. `of` is the
    `level` itself or the `rise`: the level divided by that of full precision. Seeds are paired. Every
    interval is one of 95 % by itself, so say which one decides before you look. Networks that were trained
    further are left out: the claim is about rounding.
    """
    logs = logarithms(table[table["training"] == NONE])
    wide = side_by_side_groups(logs, ["treatment", "measure", "seed"], "value")
    minorities = wide.drop(columns=ends.largest)
    others = minorities.drop(columns=ends.smallest, errors="ignore")
    levels = {MINORITIES: minorities.mean(axis=1, skipna=False) - wide[ends.largest]}
    levels[ends.smallest] = wide[ends.smallest] - wide[ends.largest]
    if len(others.columns):
        levels[SMALLEST_TO_OTHERS] = wide[ends.smallest] - others.mean(axis=1, skipna=False)
    rows = []
    for who, level in levels.items():
        rows.append(level.rename("value").reset_index().assign(who=who, of="level"))
        original = level.loc[FP32.name].reindex(level.index.droplevel("treatment")).to_numpy()
        rise = (level - original).rename("value").reset_index().assign(who=who, of="rise")
        rows.append(rise[rise["treatment"] != FP32.name])
    return over_seeds(pd.concat(rows), ["treatment", "measure", "who", "of"], 0.95)


def steepness(table: pd.DataFrame) -> pd.DataFrame:
    """Records: the squared gradient norm of each group, as it was measured and less its sampling variance.

    `measure` is AS_MEASURED or LESS_SAMPLING. What is less its sampling variance may be below 0 around a
    single network. It has no logarithm then, and without the negative ones a mean would be too large again:
    so these are arithmetic means over networks, of both, with Student's interval.
    """
    return over_seeds(_squared_norms(table), ["treatment", "measure", "group"], 0.95, back=np.asarray)


def steepness_ratios(table: pd.DataFrame, ends: Ends) -> pd.DataFrame:
    """Records: the mean squared gradient norm of the minorities in times that of the majority.

    Of both measures of `steepness`; `who` is MINORITIES, by their arithmetic mean, or the smallest group. It
    is the ratio of the means over networks, since ratios of single networks say nothing where one is near 0
    or below, with Fieller's interval: the networks are paired. Where the majority's mean cannot be told from
    0, the interval has no bounds. Networks that were trained further are left out.
    """
    values = _squared_norms(table[table["training"] == NONE])
    wide = side_by_side_groups(values, ["treatment", "measure", "seed"], "value")
    rows = []
    for (treatment, measure), own in wide.groupby(level=["treatment", "measure"], sort=False):
        known = own.dropna()
        minorities = known.drop(columns=ends.largest).mean(axis=1)
        for who, above in {MINORITIES: minorities, ends.smallest: known[ends.smallest]}.items():
            about = (treatment, measure, who, len(known), len(own) - len(known))
            ratio = ratio_of_means(above, known[ends.largest]) if len(known) else (np.nan,) * 3
            rows.append((*about, *ratio))
    columns = ["treatment", "measure", "who", "n", "left_out", "estimate", "lower", "upper"]
    return pd.DataFrame(rows, columns=columns)


def _squared_norms(table: pd.DataFrame) -> pd.DataFrame:
    """Long: a row for each network, group and measure."""
    squares = {AS_MEASURED: table["gradient_norm"] ** 2, LESS_SAMPLING: table["squared_gradient_norm"]}
    return table.assign(**squares).melt(["treatment", "seed", "group"], list(squares), var_name="measure")


def with_loss(table: pd.DataFrame) -> pd.DataFrame:
    """Records: Spearman's correlation over the groups of each measure and the loss, averaged over seeds."""
    reached = table.assign(eigenvalue=table["eigenvalue"].where(table["converged"]))
    rows = [
        (treatment, measure, seed, len(own), own[measure].corr(own["loss"], method="spearman"))
        for (treatment, seed), own in reached.groupby(["treatment", "seed"], sort=False)
        for measure in AROUND
    ]
    columns = ["treatment", "measure", "seed", "groups", "value"]
    keys = ["treatment", "measure", "groups"]
    return over_seeds(pd.DataFrame(rows, columns=columns), keys, 0.95, back=np.asarray)


def generalization(learned: Sequence[Prediction], tested: Sequence[Prediction]) -> pd.DataFrame:
    """Of each network, treatment and group: accuracy on what it learned from, on test images, and the gap."""
    columns = ["treatment", "seed", "group", "share"]
    shares = {}
    for part, predictions in (("train", learned), ("test", tested)):
        counts = accuracy_by_seed(predictions)
        shares[part] = counts[counts["n"] > 0].assign(share=counts["correct"] / counts["n"])[columns]
    both = shares["train"].merge(shares["test"], on=columns[:3], suffixes=("_train", "_test"))
    both = both.rename(columns={"share_train": "train", "share_test": "test"})
    return with_columns(both.assign(gap=both["train"] - both["test"]))


def to_full_precision(table: pd.DataFrame) -> pd.DataFrame:
    """Records: what each treatment multiplies gradient norm and eigenvalue by, for each group and for all.

    `all` is the geometric mean of the groups. Seeds are paired, and for a measure and group the intervals
    of all treatments hold together with 95 %. Networks that were trained further are left out.
    """
    logs = logarithms(table[table["training"] == NONE])
    by_treatment = values_by_treatment(logs)
    original = by_treatment.pop(FP32.name)
    return ratios_by_group({name: own - original for name, own in by_treatment.items()})


def bounds(landscapes: Sequence[Landscape], predictions: Sequence[Prediction]) -> pd.DataFrame:
    """Of every rounded network and group: the excess loss and what the original's landscape forecasts.

    `bound` is the sum of `gradient_term` and `curvature_term`; `parabola` is the expansion to second order
    along the very way from the original to the rounded weights. `excess` is on the images of the survey,
    `excess_test` on all test images of the group.
    """
    table = landscape(landscapes).set_index(["seed", "group"])
    original = table[table["treatment"] == FP32.name]
    rows = []
    for own in landscapes:
        if own.change is None:
            continue
        change = own.change.tensors
        here = table[(table["treatment"] == own.treatment.name)].loc[own.study.seed]
        before = original.loc[own.study.seed]
        distance = change["distance"].item()
        reached = before["eigenvalue"].where(before["converged"])
        frame = pd.DataFrame(
            {
                "treatment": own.treatment.name,
                **columns(own.treatment),
                "seed": own.study.seed,
                "group": here.index,
                "n": here["n"].to_numpy(),
                "distance": distance,
                "excess": (here["loss"] - before["loss"]).to_numpy(),
                "gradient_term": before["gradient_norm"].to_numpy() * distance,
                "curvature_term": reached.to_numpy() * distance**2 / 2,
                "parabola": (change["slope"] + change["bend"]).numpy(),
            }
        )
        rows.append(frame.assign(bound=frame["gradient_term"] + frame["curvature_term"]))
    return pd.concat(rows, ignore_index=True).merge(_excess_on_test(predictions), how="left")


def rank_correlations(bounds: pd.DataFrame) -> pd.DataFrame:
    """Records: Spearman's correlation over the groups of forecast and excess loss, averaged over seeds.

    `forecast` is bound or parabola, `outcome` excess or excess_test; `groups` says of how many groups.
    Intervals are over seeds, and for a forecast and an outcome those of all treatments hold together with
    95 %.
    """
    rows = []
    for forecast in ("bound", "parabola"):
        for outcome in ("excess", "excess_test"):
            for (treatment, seed), own in bounds.groupby(["treatment", "seed"], sort=False):
                known = own[[forecast, outcome]].dropna()
                value = known[forecast].corr(known[outcome], method="spearman") if len(known) > 1 else np.nan
                rows.append((treatment, forecast, outcome, seed, len(known), value))
    columns = ["treatment", "forecast", "outcome", "seed", "groups", "value"]
    keys = ["treatment", "forecast", "outcome", "groups"]
    level = 1 - 0.05 / max(bounds["treatment"].nunique(), 1)
    return over_seeds(pd.DataFrame(rows, columns=columns), keys, level, back=np.asarray)


def part_bounds(landscapes: Sequence[Landscape]) -> pd.DataFrame:
    """The bound and the excess loss when one part of the network alone is rounded.

    For the largest and the smallest group; the gradient and the eigenvalue are those of the part.
    """
    originals = {own.study.seed: own.parts for own in landscapes if own.parts is not None}
    rows = []
    for own in landscapes:
        parts = originals.get(own.study.seed)
        if own.change is None or parts is None:
            continue
        of_part, change = parts.tensors, own.change.tensors
        count = len(parts.info["parts"])
        distance = change["part_distance"].repeat(len(of_part["group"]) // count)
        reached = of_part["converged"].bool()
        eigenvalue = of_part["eigenvalue"].where(reached, torch.nan)
        bound = of_part["gradient_norm"] * distance + eigenvalue * distance**2 / 2
        rows.append(
            pd.DataFrame(
                {
                    "treatment": own.treatment.name,
                    **columns(own.treatment),
                    "seed": own.study.seed,
                    "group": np.array(own.group_names)[of_part["group"].int().numpy()],
                    "part": np.array(parts.info["parts"])[of_part["part"].int().numpy()],
                    "converged": reached.numpy(),
                    "bound": bound.numpy(),
                    "excess": change["part_excess"].flatten().numpy(),
                }
            )
        )
    return pd.concat(rows, ignore_index=True)


def part_rank_correlations(parts: pd.DataFrame) -> pd.DataFrame:
    """Records: Spearman's correlation over the parts of bound and excess loss, averaged over seeds."""
    rows = [
        (*key, len(own), own["bound"].corr(own["excess"], method="spearman"))
        for key, own in parts.groupby(["treatment", "group", "seed"], sort=False)
    ]
    table = pd.DataFrame(rows, columns=["treatment", "group", "seed", "parts", "value"])
    return over_seeds(table, ["treatment", "group", "parts"], 0.95, back=np.asarray)


def slices(landscapes: Sequence[Landscape]) -> pd.DataFrame:
    """The loss on the straight way from the original (step 0) to the rounded weights (step 1) and beyond."""
    rows = []
    for own in landscapes:
        if own.change is None:
            continue
        change = own.change.tensors
        for group, losses in zip(change["extremes"].tolist(), change["slices"], strict=True):
            rows.append(
                pd.DataFrame(
                    {
                        "treatment": own.treatment.name,
                        **columns(own.treatment),
                        "seed": own.study.seed,
                        "group": own.group_names[group],
                        "step": change["steps"].numpy(),
                        "loss": losses.numpy(),
                    }
                )
            )
    return pd.concat(rows, ignore_index=True)


def spectra(densities: Sequence[Spectrum]) -> pd.DataFrame:
    """The eigenvalues found at each treated network for a group, with the share of directions of each."""
    tables = [
        pd.DataFrame(
            {
                "treatment": own.treatment.name,
                **columns(own.treatment),
                "group": own.group,
                "eigenvalue": own.density.eigenvalues.numpy(),
                "share": own.density.weights.numpy(),
            }
        )
        for own in densities
    ]
    return pd.concat(tables, ignore_index=True)


def _excess_on_test(predictions: Sequence[Prediction]) -> pd.DataFrame:
    columns = ["treatment", "seed", "group", "excess_test"]
    losses = {}
    for own in predictions:
        examples = groups.example_metrics(own.logits, own.labels)["loss"]
        names = pd.Series(np.array(own.group_names)[own.groups.numpy()])
        losses[own.treatment.name, own.study.seed] = examples.groupby(names).mean()
    rows = [
        (treatment, seed, group, value)
        for (treatment, seed), after in losses.items()
        for group, value in (after - losses[FP32.name, seed]).items()
    ]
    return pd.DataFrame(rows, columns=columns)
