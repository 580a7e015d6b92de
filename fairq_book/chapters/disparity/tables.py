"""The tables of the chapter on who pays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from fairq_book.experiments.gather import Gathered
from fairq_book.experiments.studies import Prediction
from fairq_book.kit.tables import (
    CONTRAST,
    accuracy,
    accuracy_by_seed,
    chance,
    change,
    collapse,
    correct_by_network,
    groups_of,
    side_by_side_groups,
    student_interval,
    together,
)
from fairq_book.kit.treatments import columns
from fairq_utils.metrics import noise as metrics_noise
from fairq_utils.treatments.ablations import Ablation
from fairq_utils.treatments.treatment import FP32, Treatment

# Moths by whether their groups differ in size, and in difficulty.
KINDS_OF_MOTHS = {
    "moths": (True, True),
    "moths-by-size": (True, False),
    "moths-by-difficulty": (False, True),
    "moths-equal": (False, False),
}


def make(got: Gathered, moths: Gathered | None = None) -> dict[str, pd.DataFrame]:
    """Every table of the chapter, by name; `size_and_difficulty` only with `moths` of each kind."""
    rounded, compared, by_seed = got["rounded"], got.treatments("grids"), accuracy_by_seed(got["rounded"])
    found = {
        "groups": got.sizes,
        "accuracy": accuracy(rounded),
        "accuracy_by_seed": by_seed,
        "change": change(rounded, level=together(len(got.treatments("rounded")) - 1)),
        "change_by_network": change_by_network(by_seed, got.majority),
        "chance": chance(rounded),
        "collapse": collapse(rounded),
        "confusion": confusion(rounded),
        "storage": storage(got.megabytes(compared), accuracy(got["grids"])),
    }
    if moths is not None:
        # Of size and of difficulty, at every width.
        level = together(2 * (len(moths.treatments("rounded")) - 1))
        found["size_and_difficulty"] = size_and_difficulty(moths["rounded"], level=level)
    return found


def confusion(predictions: Sequence[Prediction]) -> pd.DataFrame:
    """Records: how many answers of each treatment give each label to the images of each group, over seeds."""
    tables = []
    for treatment in dict.fromkeys(p.treatment for p in predictions):
        own = [p for p in predictions if p.treatment == treatment]
        groups, labels = own[0].group_names, own[0].label_names
        counts = np.zeros((len(groups), len(labels)), dtype=int)
        for prediction in own:
            np.add.at(counts, (prediction.groups.numpy(), prediction.logits.argmax(1).numpy()), 1)
        cells = {"group": np.repeat(groups, len(labels)), "answer": np.tile(labels, len(groups))}
        about = {"treatment": treatment.name, **columns(treatment)}
        tables.append(pd.DataFrame(about | cells | {"n": counts.ravel()}))
    return pd.concat(tables, ignore_index=True)


def change_by_network(
    by_seed: pd.DataFrame, majority: str | None = None, *, level: float = 0.95
) -> pd.DataFrame:
    """Records: what each treatment changed for each group, over all images (OA), and in contrast.

    `by_seed` of `accuracy_by_seed`. Each network is one number, on its own test images, so an interval is
    Student's over networks. At each treatment those of the groups hold together (Bonferroni): whoever asks
    which groups lose asks of all of them. The `contrast` is the mean change of all groups but
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
    wide = side_by_side_groups(shares, ["treatment", "seed"], "share")[[*groups, "OA"]]
    if majority in groups and len(groups) > 1:
        wide[CONTRAST] = wide[groups].drop(columns=majority).mean(axis=1) - wide[majority]
    records = []
    for treatment in (name for name in there["treatment"].unique() if name != FP32.name):
        after = wide.loc[treatment]
        changed = after - wide.loc[FP32.name].loc[after.index]
        for name in wide:
            own = 1 - (1 - level) / len(groups) if name in groups else level
            record = {"treatment": treatment, "group": name, "networks": len(changed)}
            records.append(
                record | {"fell": (changed[name] < 0).sum()} | student_interval(changed[name], own)
            )
    return pd.DataFrame(records)


def storage(size: Mapping[str, float], accuracies: pd.DataFrame) -> pd.DataFrame:
    """Records of OA and FVO for each treatment, with the megabytes that its network takes when packed."""
    rows = accuracies[accuracies["group"].isin(["OA", "FVO"]) & accuracies["treatment"].isin(size)]
    return rows.assign(megabytes=rows["treatment"].map(size))


# Ways to choose the grid, in words.
GRIDS = {
    "fp32": "full precision",
    "int": "one scale a tensor, largest weight",
    "int-mse": "one scale a tensor, least squared error",
    "int-channel": "one scale a channel, largest weight",
    "int-mse-channel": "one scale a channel, least squared error",
}


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
        about = {"treatment": treatment.name, **columns(treatment)}
        gaps = {kind: _gap_of_others(predictions, kind, treatment) for kind in KINDS_OF_MOTHS}
        for kind, gap in gaps.items():
            named: dict[str, Any] = about | {"effect": kind, "before": gap.before}
            rows.append(named | _sum_of([(1.0, gap)], level))
        for effect, place in (("size", 0), ("difficulty", 1)):
            signed = [((0.5 if KINDS_OF_MOTHS[kind][place] else -0.5), gap) for kind, gap in gaps.items()]
            rows.append(about | {"effect": effect} | _sum_of(signed, level))
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class _Gap:
    """An estimate from each seed, and the variance and degrees of freedom that the images give it.

    `shared`: of that variance the part which the seeds cannot show, for they share images.
    """

    by_seed: NDArray[np.float64]
    of_images: float
    freedom: float
    shared: float
    n: int
    before: float  # the accuracy of Others at full precision


def _gap_of_others(predictions: Sequence[Prediction], kind: str, treatment: Treatment | Ablation) -> _Gap:
    own = [p for p in predictions if p.study.dataset.name == kind]
    before = correct_by_network([p for p in own if p.treatment == FP32])
    change = correct_by_network([p for p in own if p.treatment == treatment]).astype(float) - before
    groups = groups_of(own)["groups"]
    others = len(own[0].group_names) - 1
    share = {group: 1.0 if group == others else -1 / others for group in range(others + 1)}
    by_seed, variances, parts, shared = np.zeros(len(change)), [], [], 0.0
    for group, weight in share.items():
        noise = metrics_noise.noise(change[:, groups == group])
        by_seed += weight * noise.by_seed
        variances.append(weight**2 * noise.of_images)
        parts.append(variances[-1] ** 2 / noise.freedom)
        shared = max(shared, noise.shared)
    variance = sum(variances)
    freedom = variance**2 / sum(parts) if variance else np.inf
    is_other = groups == others
    right = float(before[:, is_other].mean())
    return _Gap(by_seed, variance, freedom, shared, int(is_other.sum()), right)


def _sum_of(signed: Sequence[tuple[float, _Gap]], level: float) -> dict[str, float]:
    """The weighted sum of gaps, paired by seed, with Student's t interval after Welch and Satterthwaite."""
    by_seed = np.sum([weight * gap.by_seed for weight, gap in signed], axis=0)
    images = [weight**2 * gap.of_images for weight, gap in signed]
    seeds = np.var(by_seed, ddof=1) / len(by_seed) if len(by_seed) > 1 else 0.0
    shared = max(gap.shared for _, gap in signed)
    added = metrics_noise.beyond_seeds(sum(images), seeds, shared) / sum(images) if any(images) else 1.0
    images = [added * own for own in images]
    variance = sum(images) + seeds
    parts = sum(own**2 / gap.freedom for own, (_, gap) in zip(images, signed, strict=True))
    parts += seeds**2 / max(len(by_seed) - 1, 1)
    reach = stats.t.ppf(0.5 + level / 2, variance**2 / parts) * np.sqrt(variance) if variance else 0.0
    estimate = float(np.mean(by_seed))
    n = sum(gap.n for _, gap in signed)
    return {"n": n, "estimate": estimate, "lower": estimate - reach, "upper": estimate + reach}
