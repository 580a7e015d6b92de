"""Tidy tables of what was measured: one row a record, with n and an interval."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fairq_utils import metrics
from fairq_utils.studies import Prediction
from fairq_utils.treatments import FP32


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
    """

    def collapsed(own: list[Prediction]) -> pd.DataFrame:
        rows = [asdict(metrics.collapse(prediction.logits)) for prediction in own]
        return pd.DataFrame(rows).mean().to_frame().T

    return _by_treatment(predictions, collapsed)


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
