"""The tables of the chapter on what repairs it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from fairq_book.experiments.gather import Gathered
from fairq_book.experiments.studies import Prediction, Study
from fairq_book.kit.tables import (
    around,
    change,
    collapse,
    correct_by_network,
    for_each_treatment,
    groups_of,
    laid,
    landscape,
    rounding_alone,
    to_rounded,
    together,
)
from fairq_book.kit.treatments import COLUMNS, PLAIN_QAT, columns, where
from fairq_utils.data.datasets import Dataset
from fairq_utils.errors import BadInput
from fairq_utils.metrics import changes
from fairq_utils.metrics import groups as metrics_groups
from fairq_utils.treatments.ablations import Ablation
from fairq_utils.treatments.treatment import FP32, Treatment

_PARTS = ("training", "weights", "sampling")
_PUBLISHED = Treatment.parse("int4-fairqat")


def make(got: Gathered) -> dict[str, pd.DataFrame]:
    """Every table of the chapter, by name; those that are drawn have intervals of 95 %, each by itself."""
    predictions, controlled = [*got["rounded"], *got["arms"]], got["control"]
    rounded, looked_at = got.treatments("rounded"), got.treatments("learned")
    widths = len(rounded) - 1  # beside full precision
    level, with_control = together(widths), together(widths + bool(controlled))
    unseen = [prediction for prediction in predictions if prediction.treatment in looked_at]
    around_networks = landscape(got["landscapes"])
    return {
        "collapse": collapse(predictions),
        "effects_drawn": effects(predictions),
        "effects": effects(predictions, level=level),
        "against_rounding_drawn": against_rounding(predictions),
        "against_rounding": against_rounding(predictions, level=level),
        "against_plain_training": against_plain_training(predictions, level=level),
        "change_arms": _change_by_width([*predictions, *controlled], level=with_control),
        "frontier": frontier([*predictions, *got["further"]]),
        "landscape": around_networks,
        "around": around(around_networks),
        "to_rounded": to_rounded(around_networks),
        "on_both": on_both(got["learned"], unseen, level=together(len(looked_at))),
        "what_to_do": what_to_do(
            got["tuning"],
            predictions,
            costs=training_costs(got.studies[0], got.images, got.treatments("arms")),
            megabytes=got.megabytes(rounded),
        ),
    }


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
        correct = [correct_by_network(arm) for arm in own]
        for size in range(1, len(_PARTS) + 1):
            for places in itertools.combinations(range(len(_PARTS)), size):
                signs = [
                    math.prod(1 if setting[place] else -1 for place in places) / 4 for setting in settings
                ]
                table = changes.contrast(correct, signs, **groups_of(own[0]), level=level)
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
        original, before, after = _side_by_side(predictions, [FP32, rounding_alone(arm), arm])
        flipped = [
            laid(
                own, [metrics_groups.flipped(a.logits, b.logits) for a, b in zip(original, own, strict=True)]
            )
            for own in (before, after)
        ]
        flips = changes.compare(*flipped, **groups_of(after), level=level)
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
            table = _change_by_arm(*_side_by_side(predictions, [rounding_alone(arm), arm]), level=level)
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
        correct, groups = correct_by_network(own), groups_of(own)
        records = changes.accuracy_intervals(correct, **groups, level=level).set_index("group")
        worst = metrics_groups.worst_group(correct, **groups)
        about = {
            "width": _width(treatment),
            "family": _family(treatment),
            "strength": _strength(treatment),
            "equal": 100 / len(own[0].group_names),
        }
        known = _interval(records, "OA") | _interval(records, "FVO")
        worse = {"worst": worst, "worst_accuracy": records.loc[worst, "estimate"]}
        return pd.DataFrame([about | known | worse])

    return for_each_treatment([p for p in predictions if isinstance(p.treatment, Treatment)], point)


def swept(frontier: pd.DataFrame, family: str) -> pd.DataFrame:
    """The points of one sweep, in order and all trained while rounded, with what they are swept over.

    `percent` is the weight of the smallest group, or the way to seeing all groups equally often. A sweep
    begins at plain training, which weights all images alike and samples none.

    >>> from fairq_book.kit.treatments import with_columns
    >>> arms = ["qat", "qat-sampled", "qat-sampled50", "qat-oversampled", "tuned-sampled"]
    >>> table = pd.DataFrame({"treatment": [f"int4-ends8-{arm}" for arm in arms], "equal": 20.0,
    ...     "family": ["none", *4 * ["sampling"]], "strength": [np.nan, "both", 50.0, "over", "both"]})
    >>> swept(with_columns(table), "sampling")[["treatment", "percent"]]
                      treatment  percent
    0            int4-ends8-qat      0.0
    2  int4-ends8-qat-sampled50     50.0
    1    int4-ends8-qat-sampled    100.0
    """
    plain = where(frontier, PLAIN_QAT)
    own = frontier[plain | where(frontier, {"family": family, "training": "qat"})]
    percent = pd.to_numeric(own["strength"].map(lambda value: 100 if value == "both" else value), "coerce")
    begin = own["equal"] if family == "weights" else 0.0
    percent = percent.mask(plain[own.index], begin)
    found = own.assign(percent=percent).dropna(subset="percent").sort_values("percent")
    return found if len(found) > 1 else found[:0]


def training_costs(study: Study, images: Dataset, treatments: Sequence[Treatment]) -> dict[str, float]:
    """How many images each training shows, over those that training the original showed."""
    original = study.recipe.epochs * int(images.is_train.sum())
    return {t.name: t.images_seen(images, study.tuning) / original for t in treatments}


def what_to_do(
    tuning: Sequence[Prediction],
    test: Sequence[Prediction],
    *,
    costs: Mapping[str, float],
    megabytes: Mapping[str, float],
    oa_loss: float = 0.01,
    level: float = 0.95,
) -> pd.DataFrame:
    """For every width the arm to take, and what it brings on the test images over rounding alone.

    The choice sees the images for tuning alone, which no network has seen: of all arms whose OA there is at
    most `oa_loss` below the best, the one with the smallest FVO, and of several the cheapest. Rounding alone
    does not stand for choice, for what is asked is how to train. `costs` says by the treatment's name how
    many images its training shows, over those that the original's showed.
    `megabytes` says what the packed network takes that was only rounded, which training does not change.
    Changes are against rounding alone.
    """
    if not oa_loss >= 0:
        raise BadInput(f"oa_loss is {oa_loss}; expected a share of at least 0, such as 0.01.")
    rows = []
    for rounding in _roundings(tuning):
        options = [arm for arm in _arms(tuning) if rounding_alone(arm) == rounding]
        unknown = [option.name for option in options if option.name not in costs]
        unknown += [rounding.name] if rounding.name not in megabytes else []
        if unknown:
            raise BadInput(
                f"costs or megabytes say nothing of {', '.join(unknown)}; expected a number for each."
            )
        cost = {option: costs[option.name] for option in options}
        chosen = _fairest(dict(zip(options, _side_by_side(tuning, options), strict=True)), cost, oa_loss)
        before, after = _side_by_side(test, [rounding, chosen])
        records = changes.accuracy_intervals(correct_by_network(after), **groups_of(after), level=level)
        change = changes.compare(
            correct_by_network(before), correct_by_network(after), **groups_of(after), level=level
        )
        records, change = records.set_index("group"), change.set_index("group")
        rows.append(
            {
                "width": _width(rounding),
                "chosen": chosen.name,
                **columns(chosen),
                **_interval(records, "OA"),
                **_interval(records, "FVO"),
                **_interval(change, "OA", as_="OA_change"),
                **_interval(change, "FVO", as_="FVO_change"),
                "cost": cost[chosen],
                "megabytes": megabytes[rounding.name],
            }
        )
    numbers = [f"{name}{end}" for name in _OF_CHOICE for end in ("", "_lower", "_upper")]
    return pd.DataFrame(rows, columns=["width", "chosen", *COLUMNS, *numbers, "cost", "megabytes"])


_AGAINST_ROUNDING = [
    *("treatment", *COLUMNS, "reference", "width", "group", "n"),
    *("before", "after", "estimate", "lower", "upper"),
]
_OF_CHOICE = ("OA", "FVO", "OA_change", "FVO_change")
_SAME = 1e-9  # shares that differ by less differ by how sums are rounded


def _arms(predictions: Sequence[Prediction]) -> list[Treatment]:
    """The treatments that train and round."""
    distinct = dict.fromkeys(p.treatment for p in predictions)
    return [t for t in distinct if isinstance(t, Treatment) and t.trains and t.format != FP32.format]


def _roundings(predictions: Sequence[Prediction]) -> list[Treatment]:
    return list(dict.fromkeys(rounding_alone(arm) for arm in _arms(predictions)))


def _factorial(rounding: Treatment, while_rounded: bool, weighted: bool, sampled: bool) -> Treatment:
    return replace(
        rounding,
        training="qat" if while_rounded else "tuned",
        weight=_PUBLISHED.weight if weighted else None,
        sampling=_PUBLISHED.sampling if sampled else None,
    )


def _width(treatment: Treatment) -> str:
    return replace(rounding_alone(treatment), ends8=False).name


def _change_by_width(predictions: Sequence[Prediction], *, level: float) -> pd.DataFrame:
    """The records of `change`, with the width of each treatment."""
    treatments = {p.treatment for p in predictions}
    widths = {t.name: _width(t) for t in treatments if isinstance(t, Treatment)}
    table = change(predictions, level=level)
    return table.assign(width=table["treatment"].map(widths))


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
    table = changes.compare(
        correct_by_network(before), correct_by_network(after), **groups_of(after), worst=True, level=level
    )
    return _led_by_arm(table, after[0].treatment)


def _led_by_arm(table: pd.DataFrame, arm: Treatment | Ablation) -> pd.DataFrame:
    assert isinstance(arm, Treatment)
    return _led_by(
        table, treatment=arm.name, **columns(arm), reference=rounding_alone(arm).name, width=_width(arm)
    )


def _led_by(table: pd.DataFrame, **about: Any) -> pd.DataFrame:
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
    right = {
        option: metrics_groups.overall_accuracy(correct_by_network(own)) for option, own in options.items()
    }
    gaps = {
        option: metrics_groups.fairness_violation(correct_by_network(own), **groups_of(own))
        for option, own in options.items()
    }
    allowed = [option for option in options if right[option] >= max(right.values()) - oa_loss - _SAME]
    fairest = min(gaps[option] for option in allowed)
    return min((option for option in allowed if gaps[option] <= fairest + _SAME), key=lambda o: cost[o])
