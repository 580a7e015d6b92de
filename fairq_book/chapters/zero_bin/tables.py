"""The tables of the chapter on the zero bin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special
from torch import nn

from fairq_book.experiments.gather import Gathered
from fairq_book.experiments.studies import Prediction, Study
from fairq_book.kit.by_network import MeasuredNetworks, by_network
from fairq_book.kit.interventions import Networks, in_rows, put_right
from fairq_book.kit.tables import (
    ALL,
    answer_changes,
    but_full_precision,
    collapse,
    loss_beyond_others,
    standing_treatments,
    student_interval,
    together,
)
from fairq_book.kit.treatments import columns
from fairq_utils.metrics import populations
from fairq_utils.quantization.models import zero_share
from fairq_utils.quantization.outliers import reach
from fairq_utils.treatments import ablations
from fairq_utils.treatments.ablations import Ablation
from fairq_utils.treatments.treatment import FP32, Treatment


def make(got: Gathered, apart: Treatment) -> dict[str, pd.DataFrame]:
    """Every table of the chapter, by name, of a width that is taken `apart`."""
    tried, smallest = got["tried"], got.smallest
    zeros, controls = ablations.halves(apart)[0], ablations.controls(apart)
    grids = ablations.other_grids(apart)
    bins = zero_bins(got.studies, got.networks(), got.treatments("rounded"))
    layers = losses_by_layer(got["by_layer"], smallest)
    return {
        "collapse": collapse(got["rounded"]),
        "zero_bins": bins,
        "zero_totals": zero_totals(bins),
        "zero_changes": answer_changes(tried),
        "zero_collapse": collapse(tried),
        "zero_parts": zero_bin_parts(tried, apart, smallest, level=together(4)),
        "zero_controls": _differences(tried, zeros, controls),
        "zero_grids": _differences(tried, apart, grids),
        "zero_layers": layers,
        "zero_layer_signs": layer_signs(layers),
        "two_grids": _louder(got),
    }


def _louder(got: Gathered) -> pd.DataFrame:
    """What loud channels do; nothing where no network has any, or no group that is tested is the largest."""
    if "two_grids" not in got or got.majority is None:
        return pd.DataFrame()
    table = by_network(got["two_grids"], got.majority)
    return two_grids(table, got.majority) if got.majority in set(table["group"]) else pd.DataFrame()


def _differences(
    tried: Sequence[Prediction], reference: Treatment | Ablation, others: Sequence[Treatment | Ablation]
) -> pd.DataFrame:
    """What each of the others does beyond the reference, with intervals that hold together."""
    beside = [p for p in tried if p.treatment in (reference, *others)]
    return answer_changes(against(beside, reference), level=together(len(others)))


def zero_bins(
    studies: Sequence[Study], networks: Sequence[nn.Module], treatments: Sequence[Treatment]
) -> pd.DataFrame:
    """Records: for each network, layer and treatment that rounds, how much falls into the zero bin.

    `networks` are the full-precision ones of the studies. `peak` is the largest magnitude over the root mean
    square; `zero_share` the share of weights that become zero, `gaussian` what it would be were the layer
    Gaussian with that peak (for plain int widths only); `error_share` is the share of the squared rounding
    error that the zero bin makes.
    """
    records = []
    for study, network in zip(studies, networks, strict=True):
        for layer in ablations.layers(network):
            weight = network.get_parameter(layer).detach()
            peak = float(weight.abs().max() / weight.square().mean().sqrt().clamp_min(1e-30))
            for treatment in treatments:
                if treatment.quantizer is None:
                    continue
                rounded = treatment.quantizer(weight)
                wrong, zero = (rounded - weight).square(), rounded == 0
                total = float(wrong.sum())
                records.append(
                    {
                        "treatment": treatment.name,
                        **columns(treatment),
                        "seed": study.seed,
                        "layer": layer.removesuffix(".weight"),
                        "weights": weight.numel(),
                        "peak": peak,
                        "zero_share": float(zero.float().mean()),
                        "gaussian": _gaussian_zero_share(peak, treatment),
                        "error_share": float(wrong.mul_(zero).sum()) / total if total else 0.0,
                        "error": total,
                    }
                )
    return pd.DataFrame(records)


def zero_totals(bins: pd.DataFrame) -> pd.DataFrame:
    """Of the records of `zero_bins` one for each treatment: over all weights of all networks."""
    sums = (
        bins.assign(
            zeros=bins["zero_share"] * bins["weights"],
            expected=bins["gaussian"] * bins["weights"],
            small=bins["error_share"] * bins["error"],
        )
        .groupby("treatment", sort=False)[["weights", "zeros", "expected", "small", "error"]]
        .sum(min_count=1)
    )
    totals = {
        "zero_share": sums["zeros"] / sums["weights"],
        "gaussian": sums["expected"] / sums["weights"],
        "error_share": (sums["small"] / sums["error"]).fillna(0.0),
    }
    return pd.DataFrame(totals).reset_index()


def gaussian_zero_share(peak: float | NDArray[np.float64], bits: int) -> NDArray[np.float64]:
    """The share of Gaussian weights that an int grid of that width zeroes, their largest being `peak` sigmas.

    >>> gaussian_zero_share(3.0, 4).round(2), gaussian_zero_share(6.0, 4).round(2)
    (np.float64(0.17), np.float64(0.33))
    """
    # Half a step, max|w| / (2**(bits - 1) - 1) / 2, in sigmas.
    return special.erf(np.asarray(peak) / (2 ** (bits - 1) - 1) / 2 / np.sqrt(2))


def _gaussian_zero_share(peak: float, treatment: Treatment) -> float:
    is_plain = treatment.bits is not None and treatment == Treatment(treatment.bits)
    return float(gaussian_zero_share(peak, treatment.bits or 2)) if is_plain else np.nan


def against(predictions: Sequence[Prediction], reference: Treatment | Ablation) -> list[Prediction]:
    """The predictions with another treatment in the place of full precision, to be paired with that."""
    kept = [prediction for prediction in predictions if prediction.treatment != FP32]
    return [replace(p, treatment=FP32) if p.treatment == reference else p for p in kept]


def two_groups(predictions: Sequence[Prediction], group: str) -> list[Prediction]:
    """The predictions with all groups but one taken together as "the rest"."""
    code = predictions[0].group_names.index(group)
    names = (group, "the rest")
    return [replace(p, groups=(p.groups != code).long(), group_names=names) for p in predictions]


def zero_bin_parts(
    predictions: Sequence[Prediction], treatment: Treatment, group: str, *, level: float = 0.95
) -> pd.DataFrame:
    """Records: the four parts of "the zero bin empties small weights that this group needs", as loss.

    `harm`: what emptying the zero bin adds to the group's loss. `rest`: by how much more than rounding all
    other weights adds. `others`: by how much more than it adds to all other groups. `norm`: by how much more
    than taking as much, in squared length, from weights drawn at random. All in pairs.
    """
    zeros = Ablation(treatment, "zeros")
    rest, norm = replace(treatment, only="nonzeros"), Ablation(treatment, "norm")

    def own_loss(reference: Treatment | Ablation) -> pd.DataFrame:
        pair = [p for p in predictions if p.treatment in (reference, zeros)]
        table = answer_changes(against(pair, reference) if reference != FP32 else pair, level=level)
        return table[(table["measure"] == "loss") & (table["group"] == group)]

    beyond = [p for p in predictions if p.treatment in (FP32, zeros)]
    parts = {
        "harm": own_loss(FP32),
        "rest": own_loss(rest),
        "others": loss_beyond_others(beyond, group, level=level),
        "norm": own_loss(norm),
    }
    table = pd.concat([own.assign(part=part) for part, own in parts.items()], ignore_index=True)
    return table[["part", "group", "n", "estimate", "lower", "upper"]]


def losses_by_layer(predictions: Sequence[Prediction], group: str, *, level: float = 0.95) -> pd.DataFrame:
    """Records: what touching one layer alone adds to the loss of a group, and of all others, by kind.

    A third record a layer, `beyond`, says by how much more it adds to the group than to the others.
    """
    both = answer_changes(two_groups(predictions, group), level=level)
    both = both[(both["measure"] == "loss") & (both["group"] != ALL)]
    beyond = loss_beyond_others(predictions, group, level=level).assign(group="beyond")
    table = pd.concat([both, beyond], ignore_index=True)
    layer = table["ablated_layer"].str.removesuffix(".weight")
    return table.assign(kind=table["ablation"], layer=layer)[
        ["kind", "layer", "group", "n", "estimate", "lower", "upper"]
    ]


def emptiest_layer(bins: pd.DataFrame, treatment: Treatment) -> str:
    """The layer of which the treatment zeroes the largest share, on average over the networks."""
    own = bins[bins["treatment"] == treatment.name]
    return str(own.groupby("layer", sort=False)["zero_share"].mean().idxmax())


def telling(predictions: Sequence[Prediction], width: int = 0) -> Treatment:
    """The treatment to take apart: the int of that width, or for 0 the last that leaves networks standing.

    When none does it is the first treatment.
    """
    if width:
        return Treatment(width)
    names = standing_treatments(collapse(predictions))
    rounded = list(dict.fromkeys(p.treatment for p in but_full_precision(predictions)))
    standing = [treatment for treatment in rounded if treatment.name in names]
    return [t for t in [rounded[0], *standing] if isinstance(t, Treatment)][-1]


def layer_signs(table: pd.DataFrame) -> pd.DataFrame:
    """In how many layers the group pays more with the zero bin than with each control.

    `table` of `losses_by_layer`. Pays means: more than the others do. A sign test over the layers, as
    `metrics.sign_consistency` describes; nothing where there is no layer to compare in.
    """
    table = table[table["group"] == "beyond"].dropna(subset="estimate")
    if table["layer"].nunique() < 2:
        return pd.DataFrame({"measure": [], "n": [], "rises": [], "p": []})
    beyond = table.pivot_table(index="layer", columns="kind", values="estimate")
    controls = beyond.drop(columns="zeros")
    return populations.sign_consistency(controls.rsub(beyond["zeros"], axis=0))


def zero_notes(treatments: Sequence[Treatment | Ablation], networks: Sequence[nn.Module]) -> dict[str, str]:
    """In words, which share of its weights each treated network has at zero, by the treatment's name."""
    return {
        treatment.name: f"{100 * zero_share(network)['total']:.0f} % zeros"
        for treatment, network in zip(treatments, networks, strict=True)
    }


def reach_by_layer(networks: Sequence[nn.Module]) -> pd.DataFrame:
    """The largest weight of each layer in standard deviations of its weights, over networks, by layer.

    `gaussian` is what as many Gaussian weights reach in half of the cases.
    """
    found = pd.DataFrame([reach(network) for network in networks])
    sizes = {name: networks[0].get_parameter(str(name)).numel() for name in found}
    of_layers = {
        "weights": pd.Series(sizes),
        "mean": found.mean(),
        "least": found.min(),
        "most": found.max(),
        "gaussian": pd.Series(
            {name: special.ndtri(1 - (1 - 0.5 ** (1 / n)) / 2) for name, n in sizes.items()}
        ),
    }
    return (
        pd.DataFrame(of_layers).rename_axis("layer").rename(index=lambda name: name.removesuffix(".weight"))
    )


# ---------------------------------------------------------------- another grid, and the zero bin put right

FACTORS = (1, 2, 4, 8, 16)
_STANDING = 0.05
_WAYS = {"a loud channel": "scaled", "the same steps without it": "coarser"}
_INSTEAD = {
    "all rounded": "",
    "zero bin alone": "zeros",
    "all but the zero bin": "nonzeros",
    "as much, at random": "norm",
    "as much, of the largest": "largest",
    "values at half steps": "midrise",
}


def two_grids(table: pd.DataFrame, majority: str) -> pd.DataFrame:
    """Accuracy and contrast where a loud channel makes steps wider, and where they are wider without it.

    A row for each width, factor, way and whether statistics were taken again. `step` is that of the grid, in
    halves of the range without a loud channel: by arithmetic, all widths lie on one curve over it. There is
    no contrast where OA is less than 5 points above the share of the largest group.
    """
    networks, there = Networks(table, majority), set(table["treatment"])
    sizes = table[table["treatment"] == "fp32"].groupby("group")["n"].sum()
    share = sizes[majority] / sizes.sum()
    rows = []
    for bits, factor, (way, word), renewed in product((8, 6, 5, 4, 3), FACTORS, _WAYS.items(), (False, True)):
        words = [f"int{bits}", "bn" if renewed else "", f"{word}{factor}" if factor > 1 else ""]
        name, control = "-".join(filter(None, words)), "fp32-bn" if renewed else "fp32"
        if name in there:
            about = {"treatment": name, "bits": bits, "factor": factor, "way": way, "renewed": renewed}
            about["step"] = factor / (2 ** (bits - 1) - 1)
            overall = student_interval(pd.Series(networks.overall(name)), 0.95)
            contrast = student_interval(pd.Series(networks.contrast(name, control)), 0.95)
            if overall["estimate"] < _STANDING + share:  # of networks that say one thing groups say nothing
                contrast = dict.fromkeys(contrast, np.nan)
            rows.append(about | overall | {f"contrast_{end}": value for end, value in contrast.items()})
    return pd.DataFrame(rows)


def zero_bin_put_right(measured: MeasuredNetworks, widths: Sequence[str] = ("int4", "int3")) -> pd.DataFrame:
    """The contrast of the zero bin, of its controls and of grids without one: rows for a figure of dots."""
    networks, found = Networks(measured.table, measured.majority), []
    for width in widths:
        rows = {row: put_right(words, width) for row, words in _INSTEAD.items()}
        rows["values by k-means"] = put_right("", width.replace("int", "codebook"))
        if width == "int4":
            rows["NF4"] = put_right("", "nf4")
        found.append(in_rows(networks, rows, width=width))
    return pd.concat(found, ignore_index=True)
