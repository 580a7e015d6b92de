"""The tables of the chapter on logits and the boundary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from fairq_book.experiments.gather import Gathered
from fairq_book.experiments.studies import Prediction
from fairq_book.kit.by_network import MeasuredNetworks
from fairq_book.kit.interventions import Networks, in_rows
from fairq_book.kit.tables import (
    ALL,
    MEASURES,
    answer_changes,
    as_measure,
    but_full_precision,
    collapse,
    correct_by_network,
    example_measures,
    for_each_treatment,
    groups_of,
    in_full_precision,
    laid,
    loss_beyond_others,
    means_of_groups,
    student_interval,
    together,
)
from fairq_book.kit.treatments import columns
from fairq_utils.errors import BadInput
from fairq_utils.metrics import changes
from fairq_utils.metrics import groups as metrics_groups
from fairq_utils.treatments.ablations import Ablation
from fairq_utils.treatments.treatment import Treatment

_NO_VARIANCE = 1e-12  # stands for none where a logarithm is taken
_SPREAD = ("logit_variance", "margin")  # the measures of which is shown how single images are spread


def make(got: Gathered) -> dict[str, pd.DataFrame]:
    """Every table of the chapter, by name. Intervals of all widths hold together, where they say how much."""
    rounded, repaired, controls = got["rounded"], got["statistics"], got["controls"]
    level = together(len(got.treatments("rounded")) - 1)
    hot, cold = heated(rounded), rescaled(rounded)
    return {
        "collapse": collapse(rounded),
        "variance_left": variance_left(rounded, level=level),
        "densities": pd.concat([densities(rounded, name) for name in _SPREAD], ignore_index=True),
        "answers": answers(rounded),
        "answer_changes": answer_changes(rounded, level=level),
        "loss_beyond_others": loss_beyond_others(rounded, got.smallest, level=level),
        "arms_heated": arms(quantized=rounded, original_heated=hot),
        "loss_explained": loss_explained(rounded, level=level),
        "arms_rescaled": arms(quantized=rounded, rescaled=cold),
        "changes_rescaled": answer_changes(cold, against=rounded, level=level),
        "arms_statistics": repair_arms(rounded, repaired),
        "regained": regained(rounded, repaired, level=level),
        "changes_statistics": answer_changes([*rounded, *repaired], level=level),
        "variance_statistics": variance_left([*rounded, *repaired], level=level),
        "variance_controls": variance_left(controls, level=together(len(got.treatments("controls")) - 1)),
        "flips": flips(rounded),
    }


def answers(predictions: Sequence[Prediction], *, level: float = 0.95) -> pd.DataFrame:
    """Records: for each treatment and measure the mean of each group, and of all, over seeds and images.

    The measures are accuracy, confidence, margin, loss and logit variance, the last as a geometric mean: that
    of a typical image, where a plain mean is that of the few images with the largest logits. When few images
    carry most of a loss, look at margins instead.
    """

    def measured(own: list[Prediction]) -> pd.DataFrame:
        accuracy = changes.accuracy_intervals(correct_by_network(own), **groups_of(own), level=level)
        found = example_measures(own)
        variance = _exp(means_of_groups(own, _log_variance(found), level=level))
        means = [as_measure(name, means_of_groups(own, found[name], level=level)) for name in MEASURES]
        return pd.concat([as_measure("accuracy", accuracy), as_measure("logit_variance", variance), *means])

    return for_each_treatment(predictions, measured)


def variance_left(predictions: Sequence[Prediction], *, level: float = 0.95) -> pd.DataFrame:
    """Records: the logit variance that is left of what it was in full precision, for a typical image.

    Typical as in `answers`: each image counts by its own change.
    """
    if not but_full_precision(predictions):
        raise BadInput(
            "No treatment beside fp32 was given; expected at least one, such as int4 or a8: name it."
        )
    before = _log_variance(example_measures(in_full_precision(predictions)))

    def left(own: list[Prediction]) -> pd.DataFrame:
        return _exp(means_of_groups(own, _log_variance(example_measures(own)) - before, level=level))

    return for_each_treatment(but_full_precision(predictions), left)


def rescaled(predictions: Sequence[Prediction]) -> list[Prediction]:
    """Each network with its logits scaled, by one factor, to the typical variance of its original.

    A variance of nothing stays as it is: no factor brings it back.
    """
    return [
        replace(treated, logits=_scaled(treated.logits, like=original.logits))
        for treated, original in _pairs(predictions)
    ]


def heated(predictions: Sequence[Prediction]) -> list[Prediction]:
    """For each treatment the original, at the temperature that gives it the treated one's typical variance.

    It stands under the name of the treatment, to be compared with `predictions` line by line. Where the
    treatment made the variance larger, the temperature is below 1.
    """
    return [
        replace(treated, logits=_scaled(original.logits, like=treated.logits))
        for treated, original in _pairs(predictions)
    ]


def loss_explained(predictions: Sequence[Prediction], *, level: float = 0.95) -> pd.DataFrame:
    """Records: the loss that the heated original gains, as a share of what the treated network gained.

    Read it only where the treated network surely gained: elsewhere it is a ratio of noise.
    """
    before = example_measures(in_full_precision(predictions))["loss"]
    hot = heated(predictions)

    def explained(own: list[Prediction]) -> pd.DataFrame:
        gained = example_measures(own)["loss"] - before
        by_heat = example_measures([p for p in hot if p.treatment == own[0].treatment])["loss"] - before
        return _ratios(own, by_heat, gained, level=level)

    return for_each_treatment(but_full_precision(predictions), explained)


def regained(
    predictions: Sequence[Prediction], repaired: Sequence[Prediction], *, level: float = 0.95
) -> pd.DataFrame:
    """Records: of what a treatment changed, the share that new batch norm statistics undo, by measure.

    `repaired` are the same treatments with `-bn`. Read it only where the treatment surely changed
    something: elsewhere it is a ratio of noise.
    """
    before = example_measures(in_full_precision(predictions))

    def undone(own: list[Prediction]) -> pd.DataFrame:
        plain = _with_its_own_statistics(own[0].treatment)
        broken = example_measures([p for p in predictions if p.treatment == plain])
        mended = example_measures(own)
        return pd.concat(
            as_measure(m, _ratios(own, mended[m] - broken[m], before[m] - broken[m], level=level))
            for m in before
        )

    return for_each_treatment([p for p in repaired if columns(p.treatment)["batchnorm"]], undone)


def flips(predictions: Sequence[Prediction], *, parts: int = 10, level: float = 0.95) -> pd.DataFrame:
    """Records: the share of answers that a treatment flips, by how near the original was to the boundary.

    The test images of each original are cut into equal `parts` by the gap between its two largest logits,
    nearest to the boundary first; part 0 is all of them. `answers` counts images times seeds, `n`
    the images of the group. A cell without answers is missing.
    """
    originals = in_full_precision(predictions)
    nearest_first = []
    for original in originals:
        tops, _ = original.logits.double().topk(2)
        nearness = (tops[:, 0] - tops[:, 1]).argsort(stable=True).argsort().numpy()
        nearest_first.append(nearness * parts // len(nearness) + 1)
    part = laid(originals, nearest_first)

    def flipped(own: list[Prediction]) -> pd.DataFrame:
        changed = laid(
            own, [metrics_groups.flipped(a.logits, b.logits) for a, b in zip(originals, own, strict=True)]
        )
        groups = groups_of(own)["groups"]
        cells = []
        for number in range(parts + 1):
            inside = part == number if number else part > 0
            records = _ratios(own, changed & inside, inside, level=level)
            counted = np.bincount(groups, weights=np.asarray(inside.sum(axis=0)), minlength=len(records) - 1)
            records.insert(0, "part", number)
            records.insert(3, "answers", np.append(counted, counted.sum()).astype(int))
            cells.append(records)
        table = pd.concat(cells)
        # A share of none or all has an interval too: Jeffreys', with each image counted once.
        several = np.minimum(table["answers"], table["n"])
        table["upper"] = table["upper"].mask(
            table["estimate"] == 0, stats.beta.ppf((1 + level) / 2, 0.5, several + 0.5)
        )
        table["lower"] = table["lower"].mask(
            table["estimate"] == 1, stats.beta.ppf((1 - level) / 2, several + 0.5, 0.5)
        )
        return table.assign(lower=table["lower"].clip(0, 1), upper=table["upper"].clip(0, 1))

    return for_each_treatment(but_full_precision(predictions), flipped)


def densities(predictions: Sequence[Prediction], measure: str, *, bins: int = 80) -> pd.DataFrame:
    """How a measure is spread over the images of each group: a row a bin, over all seeds.

    The bins are the same throughout, and evenly spaced; for logit variance, which spans several powers of
    ten, its logarithm is. What lies beyond them, half a percent of all answers on either side, stands in
    the first and the last. `density` is the share of the group's answers in the bin, `below` the share of
    those below 0, wherever they lie; `number` is the group's place among the names.
    """
    found = {p.treatment: p for p in predictions}
    values = {t: example_measures([p for p in predictions if p.treatment == t])[measure] for t in found}
    if logarithmic := measure == "logit_variance":
        floor = 1e-4 * np.median(np.ma.compressed(next(iter(values.values()))))
        values = {t: np.log10(own.clip(floor)) for t, own in values.items()}
    groups = {t: groups_of([p for p in predictions if p.treatment == t])["groups"] for t in found}
    every = [np.ma.compressed(own) for own in values.values()]
    low, high = np.quantile(np.concatenate(every), [0.005, 0.995])
    edges = np.linspace(low, max(high, low + 1e-6), bins + 1)
    centres = (edges[1:] + edges[:-1]) / 2
    tables = []
    for treatment, prediction in found.items():
        for code, name in enumerate(prediction.group_names):
            own = np.ma.compressed(values[treatment][:, groups[treatment] == code])
            if len(own):
                counts, _ = np.histogram(own.clip(low, high), edges)
                record = {"measure": measure, "treatment": treatment.name, **columns(treatment)}
                record |= {"group": name, "n": len(own)}
                place = {"value": 10**centres if logarithmic else centres, "density": counts / len(own)}
                tables.append(pd.DataFrame(record | place | {"below": (own < 0).mean(), "number": code}))
    return pd.concat(tables, ignore_index=True)


def arms(**named: Sequence[Prediction]) -> pd.DataFrame:
    """The records of `answers` for all images together, for several lists of predictions: the arms."""
    tables = []
    for name, predictions in named.items():
        table = answers(predictions)
        tables.append(table[table["group"] == ALL].assign(arm=name.replace("_", " ")))
    return pd.concat(tables, ignore_index=True)


def repair_arms(predictions: Sequence[Prediction], repaired: Sequence[Prediction]) -> pd.DataFrame:
    """The records of `arms` for the treatments that `repaired` repairs, beside full precision."""
    originals = in_full_precision(predictions)
    plain = {p.treatment: _with_its_own_statistics(p.treatment) for p in repaired}
    table = arms(
        quantized=[*originals, *(p for p in predictions if p.treatment in plain.values())],
        new_statistics=[*originals, *repaired],
    )
    names = {treatment.name: own.name for treatment, own in plain.items()}
    return table.assign(treatment=table["treatment"].replace(names))


def _with_its_own_statistics(treatment: Treatment | Ablation) -> Treatment | Ablation:
    """The same with the batch norm statistics that the network had."""
    return replace(treatment, batchnorm=False) if isinstance(treatment, Treatment) else treatment


def _ratios(
    predictions: Sequence[Prediction],
    above: NDArray[Any],
    below: NDArray[Any],
    *,
    level: float,
) -> pd.DataFrame:
    """The sum of the one over the sum of the other, for each group and for all, with intervals.

    Both vary with images and seeds, together. To first order a ratio moves as the mean of the values that
    are made here does, so that their mean is the ratio and their spread its uncertainty.
    """
    groups, names = groups_of(predictions).values()
    tables = []
    for codes, known in ((groups, list(names)), (np.zeros_like(groups), [ALL])):
        values = np.ma.array(np.full(np.shape(above), np.nan), mask=np.ma.getmaskarray(above))
        for code in range(len(known)):
            own = codes == code
            # Of none at all a masked sum is masked, and no number.
            sums = [float(np.ma.filled(np.ma.sum(p[:, own], dtype=float), 0.0)) for p in (above, below)]
            if sums[1] != 0:
                ratio = sums[0] / sums[1]
                mean = sums[1] / np.ma.count(below[:, own])
                values[:, own] = ratio + (above[:, own] - ratio * below[:, own]) / mean
        defined = np.asarray(np.isfinite(values).all(axis=0))
        sizes = np.bincount(codes, minlength=len(known))
        if defined.any():
            table = changes.mean_intervals(values[:, defined], codes[defined], group_names=known, level=level)
        else:
            table = pd.DataFrame({"group": known, "estimate": np.nan, "lower": np.nan, "upper": np.nan})
        tables.append(table.assign(n=sizes)[["group", "n", "estimate", "lower", "upper"]])
    return pd.concat(tables)


def _pairs(predictions: Sequence[Prediction]) -> list[tuple[Prediction, Prediction]]:
    """Each prediction beside the original of the same study."""
    originals = {prediction.study: prediction for prediction in in_full_precision(predictions)}
    return [(prediction, originals[prediction.study]) for prediction in predictions]


def _exp(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(**{name: np.exp(table[name]) for name in ("estimate", "lower", "upper")})


def _log_variance(examples: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    return np.log(examples["logit_variance"].clip(_NO_VARIANCE))


def _scaled(logits: Tensor, *, like: Tensor) -> Tensor:
    """In double precision, so that no two logits become equal by rounding."""
    own, wanted = (part.double().var(dim=1, correction=0) for part in (logits, like))
    if own.max() <= _NO_VARIANCE:
        return logits.double()
    spread = wanted.clamp(_NO_VARIANCE).log() - own.clamp(_NO_VARIANCE).log()
    return logits.double() * (spread.mean() / 2).exp()


# ---------------------------------------------------------------- taken apart

PARTS = {
    "batchnorm": "old batch norm statistics",
    "offsets": "class offsets",
    "temperature": "temperature",
    "rest": "the rest",
}
_WHOSE = {
    "all, as they come": "fp32-bn",
    "moved and mirrored": "fp32-bn-augmented",
    "as many of each group": "fp32-bn-balanced",
    "of the majority alone": "fp32-bn-majority",
    "of the smallest group alone": "fp32-bn-smallest",
}


def parts_of_groups(
    measured: MeasuredNetworks, treatment: str = "int4-mse", measure: str = "right"
) -> pd.DataFrame:
    """What a treatment costs each group, in parts: means over networks, with intervals.

    `least` and `most` are the means over networks of what any order of the steps gives in each of them.
    `change` is the whole.
    """
    found = Networks(measured.table, measured.majority).parts(treatment, measure)
    rows = []
    for (group, part), own in found.groupby(["group", "part"], sort=False):
        about = {"treatment": treatment, "group": group, "part": part, "networks": len(own)}
        ends = {name: float(own[name].mean()) for name in ("least", "most", "change")}
        rows.append(about | ends | student_interval(own["share"], 0.95))
    return pd.DataFrame(rows)


def whose_statistics(measured: MeasuredNetworks) -> pd.DataFrame:
    """The contrast by whose images batch norm statistics are of: rows for a figure of dots."""
    networks = Networks(measured.table, measured.majority)
    found = []
    for width in ("fp32", "int4", "int3"):
        rows = {row: {"contrast": (name.replace("fp32", width), "fp32")} for row, name in _WHOSE.items()}
        found.append(in_rows(networks, rows, width=width))
    return pd.concat(found, ignore_index=True)


def rounded_inputs(measured: MeasuredNetworks) -> pd.DataFrame:
    """The contrast by the widths of weights and of activations: rows for a figure of dots."""
    networks = Networks(measured.table, measured.majority)
    found = []
    for weights in (32, 8, 4, 3):
        base = "a" if weights == 32 else f"w{weights}a"
        rows = {
            f"{bits} bits": {
                "as it is": (f"{base}{bits}", "fp32"),
                "class offsets": (f"{base}{bits}-offsets", "fp32"),
            }
            for bits in (8, 4, 3)
        }
        rows |= {
            f"4 bits, {name}": {"as it is": (f"{base}4-{word}", "fp32")}
            for name, word in {"99.9 %": "apercentile", "least error": "amse", "dynamic": "dynamic"}.items()
        }
        whole = "weights in full precision" if weights == 32 else f"weights of {weights} bits"
        found.append(in_rows(networks, rows, width=whole))
    return pd.concat(found, ignore_index=True)
