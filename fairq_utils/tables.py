"""Tidy tables of what was measured: one row a record, with n and an interval."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import special, stats
from torch import Tensor, nn

from fairq_utils import metrics, surveys
from fairq_utils.ablations import Ablation, layers
from fairq_utils.data import Dataset
from fairq_utils.errors import BadInput
from fairq_utils.quantizers import storage_bytes, zero_share
from fairq_utils.studies import Landscape, Prediction, Study
from fairq_utils.surveys import Survey
from fairq_utils.treatments import FP32, Treatment

CONTRAST = "contrast"  # stands beside the groups for minorities against the majority


def accuracy(predictions: Sequence[Prediction], *, level: float = 0.95) -> pd.DataFrame:
    """Records: for each treatment the accuracy of each group, OA and FVO, over seeds and images."""
    return _by_treatment(
        predictions,
        lambda own: metrics.accuracy_intervals(_correct(own), **_groups(own), level=level),
    )


def accuracy_by_seed(predictions: Sequence[Prediction]) -> pd.DataFrame:
    """Of every single network: how many test images each group has, and how many of them it names right."""
    tables = []
    for prediction in predictions:
        names = prediction.group_names
        right = np.bincount(prediction.groups, weights=prediction.correct, minlength=len(names))
        own = {
            "treatment": prediction.treatment.name,
            "seed": prediction.study.seed,
            "group": names,
            "n": np.bincount(prediction.groups, minlength=len(names)),
            "correct": right.astype(int),
        }
        tables.append(pd.DataFrame(own))
    return pd.concat(tables, ignore_index=True)


def change(predictions: Sequence[Prediction], *, level: float = 0.95) -> pd.DataFrame:
    """Records: what each treatment changed against full precision, in pairs of the same seed and image."""
    original = [prediction for prediction in predictions if prediction.treatment == FP32]
    return _by_treatment(
        [prediction for prediction in predictions if prediction.treatment != FP32],
        lambda own: metrics.compare(_correct(original), _correct(own), **_groups(own), level=level),
    )


def change_by_network(
    by_seed: pd.DataFrame, majority: str | None = None, *, level: float = 0.95
) -> pd.DataFrame:
    """Records: what each treatment changed for each group, over all images (OA), and in contrast.

    `by_seed` of `accuracy_by_seed`. Each network is one number, so an interval is Student's over networks,
    on the test images that they share. At each treatment those of the groups hold together (Bonferroni):
    whoever asks which groups lose asks of all of them. The `contrast` is the mean change of all groups but
    `majority`, minus that of `majority`; it and OA are one question each. Without a majority there is no
    contrast, and of one network there is no interval. `fell` counts the networks in which it fell.

    >>> rows = [("fp32", 0, 9, 4), ("fp32", 1, 8, 4), ("int4", 0, 9, 2), ("int4", 1, 8, 1)]
    >>> long = [(t, seed, g, n, k) for t, seed, *right in rows for g, n, k in zip("ab", (10, 5), right)]
    >>> table = pd.DataFrame(long, columns=["treatment", "seed", "group", "n", "correct"])
    >>> change_by_network(table, "a")[["group", "networks", "fell", "estimate"]].round(2)
          group  networks  fell  estimate
    0         a         2     0      0.00
    1         b         2     2     -0.50
    2        OA         2     2     -0.17
    3  contrast         2     2     -0.50
    """
    there = by_seed[by_seed["n"] > 0]
    groups = list(there["group"].unique())
    every = there.groupby(["treatment", "seed"], sort=False, as_index=False)[["n", "correct"]].sum()
    shares = pd.concat([there, every.assign(group="OA")])
    shares["share"] = shares["correct"] / shares["n"]
    wide = _side_by_side_groups(shares, ["treatment", "seed"], "share")[[*groups, "OA"]]
    if majority in groups and len(groups) > 1:
        wide[CONTRAST] = wide[groups].drop(columns=majority).mean(axis=1) - wide[majority]
    records = []
    for treatment in (name for name in there["treatment"].unique() if name != FP32.name):
        after = wide.loc[treatment]
        changed = after - wide.loc[FP32.name].loc[after.index]
        for name in wide:
            own = 1 - (1 - level) / len(groups) if name in groups else level
            record = {"treatment": treatment, "group": name, "networks": len(changed)}
            records.append(record | {"fell": (changed[name] < 0).sum()} | _student(changed[name], own))
    return pd.DataFrame(records)


def chance(predictions: Sequence[Prediction], *, level: float = 0.95) -> pd.DataFrame:
    """For each treatment, the FVO that noise alone would give were all groups served alike."""

    def chance(own: list[Prediction]) -> pd.DataFrame:
        sizes = np.bincount(own[0].groups, minlength=len(own[0].group_names)).tolist()
        draws = metrics.fairness_violation_under_equality(sizes, _correct(own).mean(axis=0))
        return pd.DataFrame({"median": [np.median(draws)], "upper": [np.quantile(draws, level)]})

    return _by_treatment(predictions, chance)


def collapse(predictions: Sequence[Prediction]) -> pd.DataFrame:
    """For each treatment, how far predictions have collapsed onto few classes: the average over the seeds.

    Each seed is measured by itself: five networks that each say one thing, but not the same, have collapsed.
    `fewest` and `most` are the effective classes of the seeds furthest apart. `standing` is the share of
    seeds that use at least half as many classes beyond the first as full precision does on average (or,
    without it, as many as there are).
    """
    whole = [metrics.collapse(p.logits).effective_classes for p in predictions if p.treatment == FP32]
    beyond_first = (np.mean(whole) if whole else len(predictions[0].label_names)) - 1

    def collapsed(own: list[Prediction]) -> pd.DataFrame:
        rows = pd.DataFrame([asdict(metrics.collapse(prediction.logits)) for prediction in own])
        classes = rows["effective_classes"]
        return (
            rows.mean()
            .to_frame()
            .T.assign(
                fewest=classes.min(), most=classes.max(), standing=(classes - 1 >= beyond_first / 2).mean()
            )
        )

    return _by_treatment(predictions, collapsed)


def standing_treatments(collapse: pd.DataFrame) -> set[str]:
    """The treatments under which most networks still tell classes apart, from the records of `collapse`.

    >>> table = pd.DataFrame({"treatment": ["fp32", "int4", "int2"], "standing": [1.0, 0.8, 0.0]})
    >>> sorted(standing_treatments(table))
    ['fp32', 'int4']
    """
    return set(collapse.loc[collapse["standing"] > 0.5, "treatment"])


def storage(
    networks: Sequence[nn.Module], treatments: Sequence[Treatment], accuracies: pd.DataFrame
) -> pd.DataFrame:
    """Records of OA and FVO for each treatment, with the megabytes that its network takes when packed."""
    size = megabytes(networks, treatments)
    rows = accuracies[accuracies["group"].isin(["OA", "FVO"]) & accuracies["treatment"].isin(size)]
    return rows.assign(megabytes=rows["treatment"].map(size), grid=rows["treatment"].map(_grid))


def megabytes(networks: Sequence[nn.Module], treatments: Sequence[Treatment]) -> dict[str, float]:
    """What each treated network takes when it is packed, by the treatment's name."""
    return {
        treatment.name: storage_bytes(network) / 1e6
        for treatment, network in zip(treatments, networks, strict=True)
    }


def _grid(name: str) -> str:
    """What the words of a treatment's name say of its grid."""
    if name == FP32.name:
        return "full precision"
    words = name.split("-")[1:]
    scale = "one scale a channel" if "channel" in words else "one scale a tensor"
    reach = "least squared error" if "mse" in words else "largest weight"
    return f"{scale}, {reach}"


def size_and_difficulty(predictions: Sequence[Prediction], *, level: float = 0.95) -> pd.DataFrame:
    """Records: by how many more points Others lose than the species do, on moths of each kind.

    The predictions are of the four kinds of moths, at full precision and under other treatments, from the
    same seeds. `before` is the accuracy of Others at full precision. Beside the four, `size` and `difficulty`
    say what each of the two adds, on average over the other. Negative: it makes Others lose more. Intervals
    cover other images and other seeds. Kinds share part of their images, of which the intervals make no use.
    """
    rows = []
    treated = dict.fromkeys(p.treatment for p in predictions if p.treatment != FP32)
    for treatment in treated:
        gaps = {kind: _gap_of_others(predictions, kind, treatment) for kind in _KINDS}
        for kind, gap in gaps.items():
            named: dict[str, Any] = {"treatment": treatment.name, "effect": kind, "before": gap.before}
            rows.append(named | _sum_of([(1.0, gap)], level))
        for effect, place in (("size", 0), ("difficulty", 1)):
            signed = [((0.5 if _KINDS[kind][place] else -0.5), gap) for kind, gap in gaps.items()]
            rows.append({"treatment": treatment.name, "effect": effect} | _sum_of(signed, level))
    return pd.DataFrame(rows)


# Whether groups differ in size, and in difficulty.
_KINDS = {
    "moths": (True, True),
    "moths-by-size": (True, False),
    "moths-by-difficulty": (False, True),
    "moths-equal": (False, False),
}


@dataclass(frozen=True)
class _Gap:
    """An estimate from each seed, and the variance and degrees of freedom that the images give it."""

    by_seed: NDArray[np.float64]
    of_images: float
    freedom: float
    n: int
    before: float  # the accuracy of Others at full precision


def _gap_of_others(predictions: Sequence[Prediction], kind: str, treatment: Treatment | Ablation) -> _Gap:
    own = [p for p in predictions if p.study.dataset.name == kind]
    before = _correct([p for p in own if p.treatment == FP32])
    change = _correct([p for p in own if p.treatment == treatment]).astype(float) - before
    groups = own[0].groups.numpy()
    others = len(own[0].group_names) - 1
    share = {group: 1.0 if group == others else -1 / others for group in range(others + 1)}
    by_seed, variances, parts = np.zeros(len(change)), [], []
    for group, weight in share.items():
        values = change[:, groups == group]
        by_seed += weight * values.mean(axis=1)
        variances.append(weight**2 * values.mean(axis=0).var(ddof=1) / values.shape[1])
        parts.append(variances[-1] ** 2 / (values.shape[1] - 1))
    variance = sum(variances)
    freedom = variance**2 / sum(parts) if variance else np.inf
    is_other = groups == others
    return _Gap(by_seed, variance, freedom, int(is_other.sum()), float(before[:, is_other].mean()))


def _sum_of(signed: Sequence[tuple[float, _Gap]], level: float) -> dict[str, float]:
    """The weighted sum of gaps, paired by seed, with Student's t interval after Welch and Satterthwaite."""
    by_seed = np.sum([weight * gap.by_seed for weight, gap in signed], axis=0)
    images = [weight**2 * gap.of_images for weight, gap in signed]
    seeds = np.var(by_seed, ddof=1) / len(by_seed) if len(by_seed) > 1 else 0.0
    variance = sum(images) + seeds
    parts = sum(own**2 / gap.freedom for own, (_, gap) in zip(images, signed, strict=True))
    parts += seeds**2 / max(len(by_seed) - 1, 1)
    reach = stats.t.ppf(0.5 + level / 2, variance**2 / parts) * np.sqrt(variance) if variance else 0.0
    estimate = float(np.mean(by_seed))
    n = sum(gap.n for _, gap in signed)
    return {"n": n, "estimate": estimate, "lower": estimate - reach, "upper": estimate + reach}


def _by_treatment(
    predictions: Sequence[Prediction], measure: Callable[[list[Prediction]], pd.DataFrame]
) -> pd.DataFrame:
    tables = []
    for treatment in dict.fromkeys(prediction.treatment for prediction in predictions):
        table = measure([prediction for prediction in predictions if prediction.treatment == treatment])
        table.insert(0, "treatment", treatment.name)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _correct(predictions: Sequence[Prediction]) -> NDArray[np.bool_]:
    return np.stack([prediction.correct for prediction in predictions])


def _groups(predictions: Sequence[Prediction]) -> dict[str, Any]:
    return {"groups": predictions[0].groups, "group_names": predictions[0].group_names}


# ---------------------------------------------------------------- chapter 2: logits and the boundary

ALL = "all"  # stands beside the groups for every image there is
_MEASURES = ["confidence", "margin", "loss"]
_NO_VARIANCE = 1e-12  # stands for none where a logarithm is taken


def smallest_group(images: Dataset, predictions: Sequence[Prediction]) -> str:
    """The group with the fewest training images, among those that have test images."""
    sizes = np.bincount(images.groups[images.is_train], minlength=len(images.group_names))
    tested = np.unique(predictions[0].groups)
    return images.group_names[tested[sizes[tested].argmin()]]


def majority(images: Dataset) -> str | None:
    """The group with the most training images; where all have as many, there is no majority."""
    sizes = np.bincount(images.groups[images.is_train], minlength=len(images.group_names))
    return None if sizes.min() == sizes.max() else images.group_names[sizes.argmax()]


def answers(predictions: Sequence[Prediction], *, level: float = 0.95) -> pd.DataFrame:
    """Records: for each treatment and measure the mean of each group, and of all, over seeds and images.

    The measures are accuracy, confidence, margin, loss and logit variance, the last as a geometric mean: that
    of a typical image, where a plain mean is that of the few images with the largest logits. When few images
    carry most of a loss, look at margins instead.
    """

    def measured(own: list[Prediction]) -> pd.DataFrame:
        accuracy = metrics.accuracy_intervals(_correct(own), **_groups(own), level=level)
        found = _examples(own)
        variance = _exp(_means(own, _log_variance(found), level=level))
        means = [_measured(name, _means(own, found[name], level=level)) for name in _MEASURES]
        return pd.concat([_measured("accuracy", accuracy), _measured("logit_variance", variance), *means])

    return _by_treatment(predictions, measured)


def answer_changes(
    predictions: Sequence[Prediction],
    *,
    against: Sequence[Prediction] | None = None,
    level: float = 0.95,
) -> pd.DataFrame:
    """Records: how accuracy, confidence, margin and loss changed, in pairs of the same seed and image.

    Against full precision, or against the predictions of the same treatment in `against`.
    """

    def compared(own: list[Prediction]) -> pd.DataFrame:
        original = (
            _originals(predictions)
            if against is None
            else [p for p in against if p.treatment == own[0].treatment]
        )
        accuracy = metrics.compare(_correct(original), _correct(own), **_groups(own), level=level)
        before, after = _examples(original), _examples(own)
        means = [_measured(name, _means(own, after[name] - before[name], level=level)) for name in _MEASURES]
        return pd.concat([_measured("accuracy", accuracy), *means])

    return _by_treatment(_treated(predictions), compared)


def variance_left(predictions: Sequence[Prediction], *, level: float = 0.95) -> pd.DataFrame:
    """Records: the logit variance that is left of what it was in full precision, for a typical image.

    Typical as in `answers`: each image counts by its own change.
    """
    if not _treated(predictions):
        raise BadInput(
            "No treatment beside fp32 was given; expected at least one, such as int4 or a8: name it."
        )
    before = _log_variance(_examples(_originals(predictions)))

    def left(own: list[Prediction]) -> pd.DataFrame:
        return _exp(_means(own, _log_variance(_examples(own)) - before, level=level))

    return _by_treatment(_treated(predictions), left)


def loss_beyond_others(predictions: Sequence[Prediction], group: str, *, level: float = 0.95) -> pd.DataFrame:
    """Records: by how much more the loss of one group grew than that of all others, in pairs.

    The interval covers other images of that group, other images of the others, and other seeds. With
    fewer than two images on either side there is nothing to compare, and the numbers are missing.
    """
    before = _examples(_originals(predictions))["loss"]

    def beyond(own: list[Prediction]) -> pd.DataFrame:
        change = _examples(own)["loss"] - before
        inside = own[0].groups.numpy() == own[0].group_names.index(group)
        estimate = reach = np.nan
        if min(inside.sum(), (~inside).sum()) > 1:
            parts = [change[:, inside], change[:, ~inside]]
            by_seed = parts[0].mean(axis=1) - parts[1].mean(axis=1)
            samples = [part.mean(axis=0) for part in parts] + ([by_seed] if len(change) > 1 else [])
            estimate, reach = by_seed.mean(), _reach_of_sum(samples, level)
        record = {"group": group, "n": inside.sum(), "estimate": estimate}
        return pd.DataFrame([record | {"lower": estimate - reach, "upper": estimate + reach}])

    return _by_treatment(_treated(predictions), beyond)


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
    before = _examples(_originals(predictions))["loss"]
    hot = heated(predictions)

    def explained(own: list[Prediction]) -> pd.DataFrame:
        gained = _examples(own)["loss"] - before
        by_heat = _examples([p for p in hot if p.treatment == own[0].treatment])["loss"] - before
        return _ratios(own, by_heat, gained, level=level)

    return _by_treatment(_treated(predictions), explained)


def regained(
    predictions: Sequence[Prediction], repaired: Sequence[Prediction], *, level: float = 0.95
) -> pd.DataFrame:
    """Records: of what a treatment changed, the share that new batch norm statistics undo, by measure.

    `repaired` are the same treatments with `-bn`. Read it only where the treatment surely changed
    something: elsewhere it is a ratio of noise.
    """
    before = _examples(_originals(predictions))

    def undone(own: list[Prediction]) -> pd.DataFrame:
        plain = own[0].treatment.name.removesuffix("-bn")
        broken = _examples([p for p in predictions if p.treatment.name == plain])
        mended = _examples(own)
        return pd.concat(
            _measured(m, _ratios(own, mended[m] - broken[m], before[m] - broken[m], level=level))
            for m in before
        )

    return _by_treatment([p for p in repaired if p.treatment.name.endswith("-bn")], undone)


def flips(predictions: Sequence[Prediction], *, parts: int = 10, level: float = 0.95) -> pd.DataFrame:
    """Records: the share of answers that a treatment flips, by how near the original was to the boundary.

    The test images of each original are cut into equal `parts` by the gap between its two largest logits,
    nearest to the boundary first; part 0 is all of them. `answers` counts images times seeds, `n`
    the images of the group. A cell without answers is missing.
    """
    originals = _originals(predictions)
    tops, _ = torch.stack([p.logits.double() for p in originals]).topk(2)
    nearness = (tops[..., 0] - tops[..., 1]).argsort(stable=True).argsort().numpy()
    part = nearness * parts // nearness.shape[1] + 1

    def flipped(own: list[Prediction]) -> pd.DataFrame:
        changed = np.stack([metrics.flipped(a.logits, b.logits) for a, b in zip(originals, own, strict=True)])
        cells = []
        for number in range(parts + 1):
            inside = (part == number) | (number == 0)
            records = _ratios(own, changed & inside, inside, level=level)
            counted = np.bincount(own[0].groups, weights=inside.sum(axis=0), minlength=len(records) - 1)
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

    return _by_treatment(_treated(predictions), flipped)


def densities(predictions: Sequence[Prediction], measure: str, *, bins: int = 80) -> pd.DataFrame:
    """How a measure is spread over the images of each group: a row a bin, over all seeds.

    The bins are the same throughout, and evenly spaced; for logit variance, which spans several powers of
    ten, its logarithm is. What lies beyond them, half a percent of all answers on either side, stands in
    the first and the last. `density` is the share of the group's answers in the bin, `below` the share of
    those below 0, wherever they lie; `number` is the group's place among the names.
    """
    found = {p.treatment: p for p in predictions}
    values = {t: _examples([p for p in predictions if p.treatment == t])[measure] for t in found}
    if logarithmic := measure == "logit_variance":
        floor = 1e-4 * np.median(next(iter(values.values())))
        values = {t: np.log10(own.clip(floor)) for t, own in values.items()}
    low, high = np.quantile(np.concatenate(list(values.values())), [0.005, 0.995])
    edges = np.linspace(low, max(high, low + 1e-6), bins + 1)
    centres = (edges[1:] + edges[:-1]) / 2
    tables = []
    for treatment, prediction in found.items():
        for code, name in enumerate(prediction.group_names):
            own = values[treatment][:, prediction.groups.numpy() == code].ravel()
            if len(own):
                counts, _ = np.histogram(own.clip(low, high), edges)
                record = {"measure": measure, "treatment": treatment.name, "group": name, "n": len(own)}
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
    originals = _originals(predictions)
    plain = {p.treatment.name.removesuffix("-bn") for p in repaired}
    table = arms(
        quantized=[*originals, *(p for p in predictions if p.treatment.name in plain)],
        new_statistics=[*originals, *repaired],
    )
    return table.assign(treatment=table["treatment"].str.removesuffix("-bn"))


def _examples(predictions: Sequence[Prediction]) -> dict[str, NDArray[np.float64]]:
    """Each measure of single images, seeds by images."""
    found = [
        metrics.example_metrics(p.logits, p.labels).rename(columns={"correct": "accuracy"})
        for p in predictions
    ]
    return {
        name: np.stack([table[name] for table in found]).astype(float)
        for name in ["accuracy", "logit_variance", *_MEASURES]
    }


def _means(predictions: Sequence[Prediction], values: NDArray[np.float64], *, level: float) -> pd.DataFrame:
    """The mean of each group that has images, and of all, with intervals."""
    every = metrics.mean_intervals(
        values, np.zeros(values.shape[1], dtype=int), group_names=[ALL], level=level
    )
    return pd.concat([metrics.mean_intervals(values, **_groups(predictions), level=level), every])


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
    groups, names = predictions[0].groups.numpy(), predictions[0].group_names
    tables = []
    for codes, known in ((groups, list(names)), (np.zeros_like(groups), [ALL])):
        values = np.full(np.shape(above), np.nan)
        for code in range(len(known)):
            own = codes == code
            sums = [float(np.sum(part[:, own], dtype=float)) for part in (above, below)]
            if sums[1] != 0:
                ratio = sums[0] / sums[1]
                mean = sums[1] / below[:, own].size
                values[:, own] = ratio + (above[:, own] - ratio * below[:, own]) / mean
        defined = np.isfinite(values).all(axis=0)
        sizes = np.bincount(codes, minlength=len(known))
        if defined.any():
            table = metrics.mean_intervals(values[:, defined], codes[defined], group_names=known, level=level)
        else:
            table = pd.DataFrame({"group": known, "estimate": np.nan, "lower": np.nan, "upper": np.nan})
        tables.append(table.assign(n=sizes)[["group", "n", "estimate", "lower", "upper"]])
    return pd.concat(tables)


def _reach_of_sum(samples: Sequence[NDArray[np.float64]], level: float) -> float:
    """How far the interval reaches of what varies as the means of these samples do, each by itself."""
    freedom = np.array([len(sample) - 1 for sample in samples])
    squares = np.array([sample.var() for sample in samples]) / freedom
    total = squares.sum()
    if total == 0:
        return 0.0
    # Welch and Satterthwaite's degrees of freedom.
    return float(np.sqrt(total) * stats.t.ppf((1 + level) / 2, 1 / ((squares / total) ** 2 / freedom).sum()))


def _measured(measure: str, table: pd.DataFrame) -> pd.DataFrame:
    table = table[table["group"] != "FVO"].replace({"group": {"OA": ALL}})
    table.insert(0, "measure", measure)
    return table[["measure", "group", "n", "estimate", "lower", "upper"]]


def _originals(predictions: Sequence[Prediction]) -> list[Prediction]:
    return [prediction for prediction in predictions if prediction.treatment == FP32]


def _treated(predictions: Sequence[Prediction]) -> list[Prediction]:
    return [prediction for prediction in predictions if prediction.treatment != FP32]


def _pairs(predictions: Sequence[Prediction]) -> list[tuple[Prediction, Prediction]]:
    """Each prediction beside the original of the same study."""
    originals = {prediction.study: prediction for prediction in _originals(predictions)}
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


# ---------------------------------------------------------------- chapter 3: the zero bin


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
        for layer in layers(network):
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
    """The same, with another treatment in the place of full precision: what is paired is paired with it."""
    kept = [prediction for prediction in predictions if prediction.treatment != FP32]
    return [replace(p, treatment=FP32) if p.treatment == reference else p for p in kept]


def two_groups(predictions: Sequence[Prediction], group: str) -> list[Prediction]:
    """The same, with all groups but one taken together as "the rest"."""
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
    rest, norm = Treatment.parse(f"{treatment.name}-nonzeros"), Ablation(treatment, "norm")

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
    by_name = {p.treatment.name: p.treatment for p in predictions}
    both = answer_changes(two_groups(predictions, group), level=level)
    both = both[(both["measure"] == "loss") & (both["group"] != ALL)]
    beyond = loss_beyond_others(predictions, group, level=level).assign(group="beyond")
    table = pd.concat([both, beyond], ignore_index=True)
    touched = [by_name[name] for name in table["treatment"]]
    return table.assign(
        kind=[one.kind for one in touched if isinstance(one, Ablation)],
        layer=[one.layer.removesuffix(".weight") for one in touched if isinstance(one, Ablation)],
    )[["kind", "layer", "group", "n", "estimate", "lower", "upper"]]


def emptiest_layer(bins: pd.DataFrame, treatment: Treatment) -> str:
    """The layer of which the treatment zeroes the largest share, on average over the networks."""
    own = bins[bins["treatment"] == treatment.name]
    return str(own.groupby("layer", sort=False)["zero_share"].mean().idxmax())


def telling(predictions: Sequence[Prediction], width: int = 0) -> Treatment:
    """The treatment to take apart: the int of that width, or for 0 the last that leaves networks standing.

    When none does it is the first treatment.
    """
    if width:
        return Treatment.parse(f"int{width}")
    names = standing_treatments(collapse(predictions))
    rounded = list(dict.fromkeys(p.treatment for p in _treated(predictions)))
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
    return metrics.sign_consistency(controls.rsub(beyond["zeros"], axis=0))


def zero_notes(treatments: Sequence[Treatment | Ablation], networks: Sequence[nn.Module]) -> dict[str, str]:
    """In words, which share of its weights each treated network has at zero, by the treatment's name."""
    return {
        treatment.name: f"{100 * zero_share(network)['total']:.0f} % zeros"
        for treatment, network in zip(treatments, networks, strict=True)
    }


# ---------------------------------------------------------------- chapter 4: the landscape

AROUND = ["gradient_norm", "eigenvalue"]
MINORITIES = "minorities"  # all groups but the largest
SMALLEST_TO_OTHERS = "smallest to the other minorities"


@dataclass(frozen=True)
class Ends:
    """The groups with the most and the fewest training images, and how many these are."""

    largest: str
    smallest: str
    most: int
    fewest: int


def ends(images: Dataset, survey: Survey) -> Ends:
    """Between whom chapter 4 compares: of the groups that can be surveyed, the largest and the smallest."""
    sizes = np.bincount(images.groups[images.is_train], minlength=len(images.group_names))
    largest, smallest = surveys.extremes(images, survey)
    names = images.group_names
    return Ends(names[largest], names[smallest], int(sizes[largest]), int(sizes[smallest]))


def landscape(landscapes: Sequence[Landscape]) -> pd.DataFrame:
    """Of every network and group: n, loss, gradient norm and top eigenvalue, with how it was reached."""
    tables = []
    for own in landscapes:
        measured = {name: column.numpy() for name, column in own.around.tensors.items()}
        about = {
            "treatment": own.treatment.name,
            "seed": own.study.seed,
            "group": np.array(own.group_names)[measured["group"].astype(int)],
            "n": own.around.info["n"],
        }
        tables.append(pd.DataFrame(measured | about | {"converged": measured["converged"].astype(bool)}))
    return pd.concat(tables, ignore_index=True)


def around(table: pd.DataFrame, *, level: float = 0.95) -> pd.DataFrame:
    """Records: geometric means over seeds of gradient norm and eigenvalue, by treatment and group."""
    return _over_seeds(_logarithms(table), ["treatment", "group", "measure"], level)


def minorities_to_majority(table: pd.DataFrame, ends: Ends) -> pd.DataFrame:
    """Records: how many times as steep and as curved the loss is for minorities as for the majority.

    The majority is the group with the most training images, the minorities are all others, by their
    geometric mean. `who` is MINORITIES or the name of the smallest group, both against the majority; or
    SMALLEST_TO_OTHERS, the smallest group against the other minorities, where there are any. `of` is the
    `level` itself or the `rise`: the level divided by that of full precision. Seeds are paired. Every
    interval is one of 95 % by itself, so say which one decides before you look. Networks that were trained
    further are left out: the claim is about rounding.
    """
    logs = _logarithms(table[~table["treatment"].map(_trains)])
    wide = _side_by_side_groups(logs, ["treatment", "measure", "seed"], "value")
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
    return _over_seeds(pd.concat(rows), ["treatment", "measure", "who", "of"], 0.95)


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
    return _over_seeds(pd.DataFrame(rows, columns=columns), keys, 0.95, back=np.asarray)


def to_full_precision(table: pd.DataFrame) -> pd.DataFrame:
    """Records: what each treatment multiplies gradient norm and eigenvalue by, for each group and for all.

    `all` is the geometric mean of the groups. Seeds are paired, and for a measure and group the intervals
    of all treatments hold together with 95 %. Networks that were trained further are left out.
    """
    logs = _logarithms(table[~table["treatment"].map(_trains)])
    by_treatment = _by_treatment_name(logs)
    original = by_treatment.pop(FP32.name)
    return _ratios_by_group({name: own - original for name, own in by_treatment.items()})


def to_rounded(table: pd.DataFrame) -> pd.DataFrame:
    """Records: what training while quantized multiplies both by, against rounding to the same width."""
    of = _by_treatment_name(_logarithms(table))
    pairs = {name: rounding_of(name) for name in of if _trains(name)}
    return _ratios_by_group({name: of[name] - of[plain] for name, plain in pairs.items() if plain in of})


def rounding_of(treatment: str) -> str:
    """The treatment that rounds alike and trains nothing.

    >>> rounding_of("int4-fairqat"), rounding_of("int4")
    ('int4-ends8', 'int4')
    """
    return _rounding(Treatment.parse(treatment)).name


def _trains(treatment: str) -> bool:
    return Treatment.parse(treatment).trains


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
    return _over_seeds(pd.DataFrame(rows, columns=columns), keys, level, back=np.asarray)


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
    return _over_seeds(table, ["treatment", "group", "parts"], 0.95, back=np.asarray)


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
                        "seed": own.study.seed,
                        "group": own.group_names[group],
                        "step": change["steps"].numpy(),
                        "loss": losses.numpy(),
                    }
                )
            )
    return pd.concat(rows, ignore_index=True)


def _logarithms(table: pd.DataFrame) -> pd.DataFrame:
    """Long: the logarithm of each measure; none where it is not above 0, or was not reached."""
    reached = table.assign(eigenvalue=table["eigenvalue"].where(table["converged"]))
    long = reached.melt(["treatment", "seed", "group"], AROUND, var_name="measure")
    return long.assign(value=np.log(long["value"].where(long["value"] > 0)))


def _by_treatment_name(logs: pd.DataFrame) -> dict[str, pd.Series]:
    keys = ["seed", "group", "measure"]
    return {str(name): own.set_index(keys)["value"] for name, own in logs.groupby("treatment", sort=False)}


def _ratios_by_group(changes: dict[str, pd.Series]) -> pd.DataFrame:
    """Records of the ratios behind these differences of logarithms, for each group and for all."""
    rows = []
    for name, change in changes.items():
        by_group = change.rename("value").reset_index()
        every = by_group.groupby(["seed", "measure"], as_index=False)["value"].mean().assign(group=ALL)
        rows.append(pd.concat([by_group, every]).assign(treatment=name))
    empty = pd.DataFrame(columns=["seed", "group", "measure", "value", "treatment"])
    level = 1 - 0.05 / max(len(changes), 1)
    return _over_seeds(pd.concat(rows) if rows else empty, ["treatment", "group", "measure"], level)


def _over_seeds(
    rows: pd.DataFrame,
    keys: list[str],
    level: float,
    *,
    back: Callable[[Any], Any] = np.exp,
) -> pd.DataFrame:
    """The mean over seeds with Student's interval, and none of one seed; `back` undoes the logarithm."""
    records = []
    for key, own in rows.groupby(keys, sort=False):
        values = own["value"].dropna()
        record = dict(zip(keys, key, strict=True)) | {"n": len(values), "left_out": len(own) - len(values)}
        interval = _student(values, level)
        records.append(record | {name: float(back(value)) for name, value in interval.items()})
    columns = [*keys, "n", "left_out", "estimate", "lower", "upper"]
    return pd.DataFrame(records, columns=columns)


def _side_by_side_groups(table: pd.DataFrame, keys: list[str], value: str) -> pd.DataFrame:
    """A column for each group, in the order in which groups and rows come."""
    return pd.concat(
        {str(name): own.set_index(keys)[value] for name, own in table.groupby("group", sort=False)}, axis=1
    )


def _student(values: pd.Series, level: float) -> dict[str, float]:
    """The mean with Student's interval, which is missing where there is one value or none."""
    interval = {"estimate": values.mean(), "lower": np.nan, "upper": np.nan}
    if len(values) > 1:
        (test,) = metrics.paired_test(values.to_frame(), level=level).to_dict("records")
        interval = {name: test[name] for name in interval}
    return interval


def _excess_on_test(predictions: Sequence[Prediction]) -> pd.DataFrame:
    columns = ["treatment", "seed", "group", "excess_test"]
    losses = {}
    for own in predictions:
        examples = metrics.example_metrics(own.logits, own.labels)["loss"]
        names = pd.Series(np.array(own.group_names)[own.groups.numpy()])
        losses[own.treatment.name, own.study.seed] = examples.groupby(names).mean()
    rows = [
        (treatment, seed, group, value)
        for (treatment, seed), after in losses.items()
        for group, value in (after - losses[FP32.name, seed]).items()
    ]
    return pd.DataFrame(rows, columns=columns)


# ---------------------------------------------------------------- chapter 5: what repairs

_PARTS = ("training", "weights", "sampling")


def effects(predictions: Sequence[Prediction], *, level: float = 0.95) -> pd.DataFrame:
    """Records: what each part of the published method does by itself, and together with the others.

    For every width of which all eight arms are there: trained while rounded or in full precision before,
    with the published weights or without, with the published sampling or without, all with 8 bits in the
    first and the last layer. The effect of a part is what it adds on average over the four settings of the
    other two; that of training is of training while rounded, over training before. An interaction is half
    of what the effect of a part is with the other, less what it is without; of three, half of what the
    interaction of two is with the third, less what it is without.
    """
    settings = list(itertools.product((False, True), repeat=len(_PARTS)))
    tables = []
    for rounding in _roundings(predictions):
        arms = [_factorial(rounding, *setting) for setting in settings]
        if not rounding.ends8 or not set(arms) <= set(_arms(predictions)):
            continue
        own = _side_by_side(predictions, arms)
        correct = [_correct(arm) for arm in own]
        for size in range(1, len(_PARTS) + 1):
            for places in itertools.combinations(range(len(_PARTS)), size):
                signs = [
                    math.prod(1 if setting[place] else -1 for place in places) / 4 for setting in settings
                ]
                table = metrics.contrast(correct, signs, **_groups(own[0]), level=level)
                effect = " × ".join(_PARTS[place] for place in places)
                tables.append(_led_by(table, width=_width(rounding), effect=effect))
    return _joined(tables, ["width", "effect", "group", "n", "estimate", "lower", "upper"])


def against_rounding(predictions: Sequence[Prediction], *, level: float = 0.95) -> pd.DataFrame:
    """Records: what each trained arm changed against rounding alone, in pairs of the same seed and image.

    Beside the groups, OA and FVO: `worst group`, the accuracy of whichever group is worst in either, and
    `flips`, the share of images that are given another class than in full precision.
    """
    tables = []
    for arm in _arms(predictions):
        original, before, after = _side_by_side(predictions, [FP32, _rounding(arm), arm])
        flipped = [
            np.stack([metrics.flipped(a.logits, b.logits) for a, b in zip(original, own, strict=True)])
            for own in (before, after)
        ]
        flips = metrics.compare(*flipped, **_groups(after), level=level)
        flips = flips[flips["group"] == "OA"].assign(group="flips")
        change = _change_by_arm(before, after, level=level)
        tables.append(pd.concat([change, _led_by_arm(flips, arm)]))
    return _joined(tables, _AGAINST_ROUNDING)


def against_plain_training(predictions: Sequence[Prediction], *, level: float = 0.95) -> pd.DataFrame:
    """Records: what the published method changed against training while rounded alone, at every width."""
    tables = []
    for rounding in _roundings(predictions):
        before, after = _factorial(rounding, True, False, False), _factorial(rounding, True, True, True)
        if rounding.ends8 and {before, after} <= set(_arms(predictions)):
            own = _side_by_side(predictions, [before, after])
            tables.append(_change_by_arm(*own, level=level).assign(reference=before.name))
    return _joined(tables, _AGAINST_ROUNDING)


def on_both(train: Sequence[Prediction], test: Sequence[Prediction], *, level: float = 0.95) -> pd.DataFrame:
    """Records: what each trained arm changed of OA and FVO against rounding, on training and on test images.

    The images are different ones, and the intervals of the two are independent of one another.
    """
    if lost := {arm.name for arm in _arms(train)} ^ {arm.name for arm in _arms(test)}:
        raise BadInput(
            f"Predictions of {', '.join(sorted(lost))} are there for one kind of images alone; expected the "
            "same treatments for training and for test images: predict both, or leave them out."
        )
    tables = []
    for split, predictions in {"train": train, "test": test}.items():
        for arm in _arms(predictions):
            table = _change_by_arm(*_side_by_side(predictions, [_rounding(arm), arm]), level=level)
            tables.append(table[table["group"].isin(["OA", "FVO"])].assign(split=split))
    return _joined(tables, [*_AGAINST_ROUNDING, "split"])


def frontier(predictions: Sequence[Prediction], *, level: float = 0.95) -> pd.DataFrame:
    """For each treatment OA and FVO with intervals, the worst group, and what the training favours.

    `family` is none, weights, sampling, both, dro or adjusted. `strength` is the weight of the smallest
    group in percent, or how it is sampled: a word, or the percentage of the way. `equal` is the weight at
    which all groups count alike.
    """

    def point(own: list[Prediction]) -> pd.DataFrame:
        treatment = own[0].treatment
        assert isinstance(treatment, Treatment)
        correct, groups = _correct(own), _groups(own)
        records = metrics.accuracy_intervals(correct, **groups, level=level).set_index("group")
        worst = metrics.worst_group(correct, **groups)
        about = {
            "width": _width(treatment),
            "family": _family(treatment),
            "strength": _strength(treatment),
            "equal": 100 / len(own[0].group_names),
        }
        known = _interval(records, "OA") | _interval(records, "FVO")
        worse = {"worst": worst, "worst_accuracy": records.loc[worst, "estimate"]}
        return pd.DataFrame([about | known | worse])

    return _by_treatment([p for p in predictions if isinstance(p.treatment, Treatment)], point)


def swept(frontier: pd.DataFrame, family: str) -> pd.DataFrame:
    """The points of one sweep, in order and all trained while rounded, with what they are swept over.

    `percent` is the weight of the smallest group, or the way to seeing all groups equally often. A sweep
    begins at plain training, which weights all images alike and samples none.

    >>> arms = ["qat", "qat-sampled", "qat-sampled50", "qat-oversampled", "tuned-sampled"]
    >>> table = pd.DataFrame({"treatment": [f"int4-ends8-{arm}" for arm in arms], "equal": 20.0,
    ...     "family": ["none", *4 * ["sampling"]], "strength": [np.nan, "both", 50.0, "over", "both"]})
    >>> swept(table, "sampling")[["treatment", "percent"]]
                      treatment  percent
    0            int4-ends8-qat      0.0
    2  int4-ends8-qat-sampled50     50.0
    1    int4-ends8-qat-sampled    100.0
    """
    plain = frontier["treatment"].str.endswith("-qat")
    own = frontier[((frontier["family"] == family) & frontier["treatment"].str.contains("-qat")) | plain]
    percent = pd.to_numeric(own["strength"].map(lambda value: 100 if value == "both" else value), "coerce")
    begin = own["equal"] if family == "weights" else 0.0
    percent = percent.mask(own["treatment"].str.endswith("-qat"), begin)
    found = own.assign(percent=percent).dropna(subset="percent").sort_values("percent")
    return found if len(found) > 1 else found[:0]


def training_costs(study: Study, images: Dataset, treatments: Sequence[Treatment]) -> dict[str, float]:
    """How many images each training shows, over those that training the original showed."""
    original = study.recipe.epochs * int(images.is_train.sum())
    return {t.name: t.images_seen(images, study.tuning) / original for t in treatments}


def what_to_do(
    validation: Sequence[Prediction],
    test: Sequence[Prediction],
    *,
    costs: Mapping[str, float],
    megabytes: Mapping[str, float],
    oa_loss: float = 0.01,
    level: float = 0.95,
) -> pd.DataFrame:
    """For every width the arm to take, and what it brings on the test images over rounding alone.

    The choice sees the validation images alone: of all whose OA there is at most `oa_loss` below the best,
    the one with the smallest FVO, and of several the cheapest. Rounding alone does not stand for choice: the
    original has learned from these images. `costs` says by the treatment's name how many images its training
    shows, over those that the original's showed.
    `megabytes` says what the packed network takes that was only rounded, which training does not change.
    Changes are against rounding alone.
    """
    if not oa_loss >= 0:
        raise BadInput(f"oa_loss is {oa_loss}; expected a share of at least 0, such as 0.01.")
    rows = []
    for rounding in _roundings(validation):
        options = [arm for arm in _arms(validation) if _rounding(arm) == rounding]
        unknown = [option.name for option in options if option.name not in costs]
        unknown += [rounding.name] if rounding.name not in megabytes else []
        if unknown:
            raise BadInput(
                f"costs or megabytes say nothing of {', '.join(unknown)}; expected a number for each."
            )
        cost = {option: costs[option.name] for option in options}
        chosen = _fairest(dict(zip(options, _side_by_side(validation, options), strict=True)), cost, oa_loss)
        before, after = _side_by_side(test, [rounding, chosen])
        records = metrics.accuracy_intervals(_correct(after), **_groups(after), level=level)
        change = metrics.compare(_correct(before), _correct(after), **_groups(after), level=level)
        records, change = records.set_index("group"), change.set_index("group")
        rows.append(
            {
                "width": _width(rounding),
                "chosen": chosen.name,
                **_interval(records, "OA"),
                **_interval(records, "FVO"),
                **_interval(change, "OA", as_="OA_change"),
                **_interval(change, "FVO", as_="FVO_change"),
                "cost": cost[chosen],
                "megabytes": megabytes[rounding.name],
            }
        )
    numbers = [f"{name}{end}" for name in _OF_CHOICE for end in ("", "_lower", "_upper")]
    return pd.DataFrame(rows, columns=["width", "chosen", *numbers, "cost", "megabytes"])


_AGAINST_ROUNDING = [
    *("treatment", "reference", "width", "group", "n"),
    *("before", "after", "estimate", "lower", "upper"),
]
_OF_CHOICE = ("OA", "FVO", "OA_change", "FVO_change")
_SAME = 1e-9  # shares that differ by less differ by how sums are rounded


def _rounding(treatment: Treatment) -> Treatment:
    """The same without any training."""
    return replace(treatment, training=None, weight=None, dro=False, adjusted=False, sampling=None)


def _arms(predictions: Sequence[Prediction]) -> list[Treatment]:
    """The treatments that train and round."""
    distinct = dict.fromkeys(p.treatment for p in predictions)
    return [t for t in distinct if isinstance(t, Treatment) and t.trains and t.format != FP32.format]


def _roundings(predictions: Sequence[Prediction]) -> list[Treatment]:
    return list(dict.fromkeys(_rounding(arm) for arm in _arms(predictions)))


def _factorial(rounding: Treatment, while_rounded: bool, weighted: bool, sampled: bool) -> Treatment:
    published = Treatment.parse("int4-fairqat")
    return replace(
        rounding,
        training="qat" if while_rounded else "tuned",
        weight=published.weight if weighted else None,
        sampling=published.sampling if sampled else None,
    )


def _width(treatment: Treatment) -> str:
    return _rounding(treatment).name.replace("-ends8", "")


def _family(treatment: Treatment) -> str:
    if treatment.dro or treatment.adjusted:
        return "dro" if treatment.dro else "adjusted"
    if treatment.weight is not None:
        return "both" if treatment.sampling else "weights"
    return "sampling" if treatment.sampling else "none"


def _strength(treatment: Treatment) -> float | str:
    family, sampling = _family(treatment), treatment.sampling
    if family == "weights" and treatment.weight is not None:
        return float(treatment.weight)
    if family == "sampling" and sampling:
        return float(sampling) if sampling.isdecimal() else sampling
    return np.nan


def _side_by_side(
    predictions: Sequence[Prediction], treatments: Sequence[Treatment]
) -> list[list[Prediction]]:
    """The predictions of each treatment, of the same studies in the same order."""
    found = {(p.treatment, p.study): p for p in predictions}
    studies = dict.fromkeys(p.study for p in predictions if p.treatment in treatments)
    if not studies:
        raise BadInput(
            f"Predictions of {', '.join(dict.fromkeys(t.name for t in treatments))} are missing; expected "
            "them for the same networks as all others: add them to the treatments."
        )
    for treatment, study in itertools.product(treatments, studies):
        if (treatment, study) not in found:
            others = ", ".join(t.name for t in treatments if (t, study) in found)
            raise BadInput(
                f"Predictions of {treatment.name} are missing for {study.name}; expected them beside those "
                f"of {others}, which they are compared with: add {treatment.name} to the treatments."
            )
    return [[found[treatment, study] for study in studies] for treatment in treatments]


def _change_by_arm(before: list[Prediction], after: list[Prediction], *, level: float) -> pd.DataFrame:
    table = metrics.compare(_correct(before), _correct(after), **_groups(after), worst=True, level=level)
    return _led_by_arm(table, after[0].treatment)


def _led_by_arm(table: pd.DataFrame, arm: Treatment | Ablation) -> pd.DataFrame:
    assert isinstance(arm, Treatment)
    return _led_by(table, treatment=arm.name, reference=_rounding(arm).name, width=_width(arm))


def _led_by(table: pd.DataFrame, **about: str) -> pd.DataFrame:
    """The table with these columns in front."""
    return table.assign(**about)[[*about, *table.columns]]


def _joined(tables: Sequence[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    return pd.concat(tables, ignore_index=True)[columns] if tables else pd.DataFrame(columns=columns)


def _interval(records: pd.DataFrame, group: str, *, as_: str | None = None) -> dict[str, Any]:
    own, name = records.loc[group], as_ or group
    return {name: own["estimate"], f"{name}_lower": own["lower"], f"{name}_upper": own["upper"]}


def _fairest(
    options: Mapping[Treatment, list[Prediction]], cost: Mapping[Treatment, float], oa_loss: float
) -> Treatment:
    """Of those whose OA is at most `oa_loss` below the best the one with the smallest FVO, or the cheaper."""
    right = {option: metrics.overall_accuracy(_correct(own)) for option, own in options.items()}
    gaps = {
        option: metrics.fairness_violation(_correct(own), **_groups(own)) for option, own in options.items()
    }
    allowed = [option for option in options if right[option] >= max(right.values()) - oa_loss - _SAME]
    fairest = min(gaps[option] for option in allowed)
    return min((option for option in allowed if gaps[option] <= fairest + _SAME), key=lambda o: cost[o])
