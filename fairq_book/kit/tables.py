"""Tidy tables that several chapters share: one row a record, with n and an interval."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fairq_book.experiments.studies import Landscape, Prediction
from fairq_book.kit.treatments import NONE, UNTRAINED, columns, counterparts
from fairq_utils.errors import BadInput
from fairq_utils.intervals import student
from fairq_utils.metrics import by_network as metrics_by_network
from fairq_utils.metrics import changes as metrics_changes
from fairq_utils.metrics import groups as metrics_groups
from fairq_utils.metrics import noise as metrics_noise
from fairq_utils.treatments.treatment import FP32, Treatment

CONTRAST = "contrast"  # stands beside the groups for minorities against the majority


def accuracy(predictions: Sequence[Prediction], *, level: float = 0.95) -> pd.DataFrame:
    """Records: for each treatment the accuracy of each group, OA and FVO, over seeds and images."""
    return for_each_treatment(
        predictions,
        lambda own: metrics_changes.accuracy_intervals(
            correct_by_network(own), **groups_of(own), level=level
        ),
    )


def accuracy_by_seed(predictions: Sequence[Prediction]) -> pd.DataFrame:
    """Of every single network: how many of its test images each group has, and how many it names right."""
    tables = []
    for prediction in predictions:
        names = prediction.group_names
        right = np.bincount(prediction.groups, weights=prediction.correct, minlength=len(names))
        own = {
            "treatment": prediction.treatment.name,
            **columns(prediction.treatment),
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
    return for_each_treatment(
        [prediction for prediction in predictions if prediction.treatment != FP32],
        lambda own: metrics_changes.compare(
            correct_by_network(original), correct_by_network(own), **groups_of(own), level=level
        ),
    )


def chance(predictions: Sequence[Prediction], *, level: float = 0.95) -> pd.DataFrame:
    """For each treatment, the FVO that noise alone would give were all groups served alike."""

    def chance(own: list[Prediction]) -> pd.DataFrame:
        sizes = np.bincount(groups_of(own)["groups"], minlength=len(own[0].group_names)).tolist()
        draws = metrics_changes.fairness_violation_under_equality(
            sizes, np.asarray(correct_by_network(own).mean(axis=0))
        )
        return pd.DataFrame({"median": [np.median(draws)], "upper": [np.quantile(draws, level)]})

    return for_each_treatment(predictions, chance)


def collapse(predictions: Sequence[Prediction]) -> pd.DataFrame:
    """For each treatment, how far predictions have collapsed onto few classes: the average over the seeds.

    Each seed is measured by itself: five networks that each say one thing, but not the same, have collapsed.
    `fewest` and `most` are the effective classes of the seeds furthest apart. `standing` is the share of
    seeds that use at least half as many classes beyond the first as full precision does on average (or,
    without it, as many as there are). `fallen` is the share of networks that have collapsed by the OA of the
    others, at most 5 points above the share of the largest label; of one network it is missing.
    """
    whole = [metrics_groups.collapse(p.logits).effective_classes for p in predictions if p.treatment == FP32]
    beyond_first = (np.mean(whole) if whole else len(predictions[0].label_names)) - 1

    def collapsed(own: list[Prediction]) -> pd.DataFrame:
        rows = pd.DataFrame([asdict(metrics_groups.collapse(prediction.logits)) for prediction in own])
        classes = rows["effective_classes"]
        overall = [float(p.correct.mean()) for p in own]
        largest = float(np.mean([p.labels.bincount().max().item() / len(p.labels) for p in own]))
        return (
            rows.mean()
            .to_frame()
            .T.assign(
                fewest=classes.min(),
                most=classes.max(),
                standing=(classes - 1 >= beyond_first / 2).mean(),
                fallen=metrics_by_network.collapsed(overall, largest).mean() if len(own) > 1 else np.nan,
            )
        )

    return for_each_treatment(predictions, collapsed)


def standing_treatments(collapse: pd.DataFrame) -> set[str]:
    """The treatments under which most networks still tell classes apart, from the records of `collapse`.

    >>> table = pd.DataFrame({"treatment": ["fp32", "int4", "int2"], "standing": [1.0, 0.8, 0.0]})
    >>> sorted(standing_treatments(table)), sorted(standing_treatments(table.assign(fallen=[0.0, 1.0, 1.0])))
    (['fp32', 'int4'], ['fp32'])
    """
    return set(collapse.loc[share_standing(collapse) > 0.5, "treatment"])


def share_standing(collapse: pd.DataFrame) -> pd.Series:
    """The share of networks that have not collapsed: by the others' OA, or else by classes in use."""
    by_others = 1 - collapse["fallen"] if "fallen" in collapse else collapse["standing"]
    return by_others.fillna(collapse["standing"])


def for_each_treatment(
    predictions: Sequence[Prediction], measure: Callable[[list[Prediction]], pd.DataFrame]
) -> pd.DataFrame:
    """A table that is made for each treatment, one below the other, with its name and columns in front."""
    tables = []
    for treatment in dict.fromkeys(prediction.treatment for prediction in predictions):
        table = measure([prediction for prediction in predictions if prediction.treatment == treatment])
        about = {"treatment": treatment.name, **columns(treatment)}
        for place, (name, value) in enumerate(about.items()):
            table.insert(place, name, value)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def correct_by_network(predictions: Sequence[Prediction]) -> NDArray[np.bool_]:
    """Whether each image is given its label, networks by images."""
    return laid(predictions, [prediction.correct for prediction in predictions])


def groups_of(predictions: Sequence[Prediction]) -> dict[str, Any]:
    """The groups, and their names."""
    groups = laid(predictions, [prediction.groups.numpy() for prediction in predictions])
    return {"groups": np.asarray(groups.max(axis=0)), "group_names": predictions[0].group_names}


def laid(predictions: Sequence[Prediction], values: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Networks by images: a column for each image that any network was asked of, masked where one was not.

    Networks of different draws or folds are asked of different images.
    """
    numbers = _image_numbers(predictions)
    first = numbers[0]
    if all(np.array_equal(own, first) for own in numbers):
        return np.stack(values)
    every = np.unique(np.concatenate(numbers))
    found = np.ma.masked_all((len(values), len(every)), dtype=values[0].dtype)
    found.data[:] = 0  # what is masked is computed with, too
    for row, (own, of_network) in enumerate(zip(numbers, values, strict=True)):
        found[row, np.searchsorted(every, own)] = of_network
    return found


def _image_numbers(predictions: Sequence[Prediction]) -> list[NDArray[np.int64]]:
    known = [p.images for p in predictions if p.images is not None]
    if known and len(known) < len(predictions):
        raise BadInput(
            "Some predictions say which images they are of and others do not; expected all or none: take "
            "them from `studies.predictions`."
        )
    if not known and len({len(p.labels) for p in predictions}) > 1:
        raise BadInput(
            "Predictions of several numbers of images do not say which they are of; expected the same images "
            "for all, or `images` of each: take them from `studies.predictions`."
        )
    return [own.numpy() for own in known] or [np.arange(len(p.labels)) for p in predictions]


ALL = "all"  # stands beside the groups for every image there is
MEASURES = ["confidence", "margin", "loss"]


def together(count: int, *, error: float = 0.05) -> float:
    """The level of each of so many intervals, for all of them to hold together with 95 %.

    >>> together(5)
    0.99
    """
    return 1 - error / max(count, 1)


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
            in_full_precision(predictions)
            if against is None
            else [p for p in against if p.treatment == own[0].treatment]
        )
        accuracy = metrics_changes.compare(
            correct_by_network(original), correct_by_network(own), **groups_of(own), level=level
        )
        before, after = example_measures(original), example_measures(own)
        means = [
            as_measure(name, means_of_groups(own, after[name] - before[name], level=level))
            for name in MEASURES
        ]
        return pd.concat([as_measure("accuracy", accuracy), *means])

    return for_each_treatment(but_full_precision(predictions), compared)


def loss_beyond_others(predictions: Sequence[Prediction], group: str, *, level: float = 0.95) -> pd.DataFrame:
    """Records: by how much more the loss of one group grew than that of all others, in pairs.

    The interval covers other images of that group, other images of the others, and other seeds. With
    fewer than two images on either side there is nothing to compare, and the numbers are missing.
    """
    before = example_measures(in_full_precision(predictions))["loss"]

    def beyond(own: list[Prediction]) -> pd.DataFrame:
        change = example_measures(own)["loss"] - before
        inside = groups_of(own)["groups"] == own[0].group_names.index(group)
        estimate = reach = np.nan
        if min(inside.sum(), (~inside).sum()) > 1:
            noises = [metrics_noise.noise(change[:, part]) for part in (inside, ~inside)]
            by_seed = noises[0].by_seed - noises[1].by_seed
            both = replace(
                noises[0], by_seed=by_seed, of_images=sum(noise.of_images for noise in noises)
            ).parts()
            added = both[0][0] / sum(noise.of_images for noise in noises) if both[0][0] else 0.0
            parts = [(added * noise.of_images, noise.freedom) for noise in noises]
            estimate, reach = by_seed.mean(), metrics_noise.reach_of_sum([*parts, both[1]], level)
        record = {"group": group, "n": inside.sum(), "estimate": estimate}
        return pd.DataFrame([record | {"lower": estimate - reach, "upper": estimate + reach}])

    return for_each_treatment(but_full_precision(predictions), beyond)


def example_measures(predictions: Sequence[Prediction]) -> dict[str, NDArray[np.float64]]:
    """Each measure of single images, seeds by images."""
    found = [
        metrics_groups.example_metrics(p.logits, p.labels).rename(columns={"correct": "accuracy"})
        for p in predictions
    ]
    return {
        name: laid(predictions, [table[name].to_numpy() for table in found]).astype(float)
        for name in ["accuracy", "logit_variance", *MEASURES]
    }


def means_of_groups(
    predictions: Sequence[Prediction], values: NDArray[np.float64], *, level: float
) -> pd.DataFrame:
    """The mean of each group that has images, and of all, with intervals."""
    every = metrics_changes.mean_intervals(
        values, np.zeros(values.shape[1], dtype=int), group_names=[ALL], level=level
    )
    return pd.concat([metrics_changes.mean_intervals(values, **groups_of(predictions), level=level), every])


def as_measure(measure: str, table: pd.DataFrame) -> pd.DataFrame:
    """A table of accuracies as records of that measure, without the gap."""
    table = table[table["group"] != "FVO"].replace({"group": {"OA": ALL}})
    table.insert(0, "measure", measure)
    return table[["measure", "group", "n", "estimate", "lower", "upper"]]


def in_full_precision(predictions: Sequence[Prediction]) -> list[Prediction]:
    """The predictions of networks in full precision."""
    return [prediction for prediction in predictions if prediction.treatment == FP32]


def but_full_precision(predictions: Sequence[Prediction]) -> list[Prediction]:
    """The predictions of networks to which something was done."""
    return [prediction for prediction in predictions if prediction.treatment != FP32]


AROUND = ["gradient_norm", "eigenvalue"]


@dataclass(frozen=True)
class Ends:
    """The groups with the most and the fewest training images, and how many these are."""

    largest: str
    smallest: str
    most: int
    fewest: int


def landscape(landscapes: Sequence[Landscape]) -> pd.DataFrame:
    """Of every network and group: n, loss, gradient norm and top eigenvalue, with how it was reached.

    Beside the gradient norm on these images stands `squared_gradient_norm`, an estimate of the square of that
    on all images there could be, which is without bias and may be below 0.
    """
    tables = []
    for own in landscapes:
        measured = {name: column.numpy() for name, column in own.around.tensors.items()}
        about = {
            "treatment": own.treatment.name,
            **columns(own.treatment),
            "seed": own.study.seed,
            "group": np.array(own.group_names)[measured["group"].astype(int)],
            "n": own.around.info["n"],
        }
        tables.append(pd.DataFrame(measured | about | {"converged": measured["converged"].astype(bool)}))
    return pd.concat(tables, ignore_index=True)


def around(table: pd.DataFrame, *, level: float = 0.95) -> pd.DataFrame:
    """Records: geometric means over seeds of gradient norm and eigenvalue, by treatment and group."""
    return over_seeds(logarithms(table), ["treatment", "group", "measure"], level)


def to_rounded(table: pd.DataFrame) -> pd.DataFrame:
    """Records: what training while quantized multiplies both by, against rounding to the same width.

    `reference` names the treatment that rounds alike and trains nothing.
    """
    of = values_by_treatment(logarithms(table))
    rounded = counterparts(table, UNTRAINED)
    trained = table.loc[table["training"] != NONE, "treatment"].unique()
    pairs = {name: rounded[name] for name in trained if name in rounded}
    ratios = ratios_by_group({name: of[name] - of[plain] for name, plain in pairs.items()})
    return ratios.assign(reference=ratios["treatment"].map(pairs))


def logarithms(table: pd.DataFrame) -> pd.DataFrame:
    """Long: the logarithm of each measure; none where it is not above 0, or was not reached."""
    reached = table.assign(eigenvalue=table["eigenvalue"].where(table["converged"]))
    long = reached.melt(["treatment", "seed", "group"], AROUND, var_name="measure")
    return long.assign(value=np.log(long["value"].where(long["value"] > 0)))


def values_by_treatment(logs: pd.DataFrame) -> dict[str, pd.Series]:
    """The values of each treatment, by seed, group and measure."""
    keys = ["seed", "group", "measure"]
    return {str(name): own.set_index(keys)["value"] for name, own in logs.groupby("treatment", sort=False)}


def ratios_by_group(changes: dict[str, pd.Series]) -> pd.DataFrame:
    """Records of the ratios behind these differences of logarithms, for each group and for all."""
    rows = []
    for name, change in changes.items():
        by_group = change.rename("value").reset_index()
        every = by_group.groupby(["seed", "measure"], as_index=False)["value"].mean().assign(group=ALL)
        rows.append(pd.concat([by_group, every]).assign(treatment=name))
    empty = pd.DataFrame(columns=["seed", "group", "measure", "value", "treatment"])
    level = 1 - 0.05 / max(len(changes), 1)
    return over_seeds(pd.concat(rows) if rows else empty, ["treatment", "group", "measure"], level)


def over_seeds(
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
        interval = student_interval(values, level)
        records.append(record | {name: float(back(value)) for name, value in interval.items()})
    columns = [*keys, "n", "left_out", "estimate", "lower", "upper"]
    return pd.DataFrame(records, columns=columns)


def side_by_side_groups(table: pd.DataFrame, keys: list[str], value: str) -> pd.DataFrame:
    """A column for each group, in the order in which groups and rows come."""
    return pd.concat(
        {str(name): own.set_index(keys)[value] for name, own in table.groupby("group", sort=False)}, axis=1
    )


def student_interval(values: pd.Series, level: float) -> dict[str, float]:
    """The mean with Student's interval, which is missing where there is one value or none."""
    mean, reach = student(values, level)
    return {"estimate": mean, "lower": mean - reach, "upper": mean + reach}


def rounding_alone(treatment: Treatment) -> Treatment:
    """The treatment that rounds as this one does, without any training."""
    return replace(treatment, training=None, weight=None, dro=False, adjusted=False, sampling=None)
