"""Remedies beside one another: which narrows the gap, what it costs, and which one to take.

By the tables that `by_network` makes. A number is one of each network, in shares; intervals are Student's
over networks.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fairq_book.kit.interventions import Networks
from fairq_book.kit.tables import student_interval
from fairq_utils.errors import BadInput
from fairq_utils.treatments.treatment import Treatment

Floats = NDArray[np.float64]

WIDTHS = (8, 4, 3, 2)
# At two bits training takes longer than elsewhere, by the learning curves of networks that nothing else is
# asked of; at the other widths it is as long as a setting says.
PASSES = {2: 8}
OA_LOSS = 0.02  # what a choice may cost of the overall accuracy
_CHOOSERS = 3  # one network in so many chooses, and the others say what the choice brings

# Of each remedy, what it is and the words that follow the width.
UNTRAINED = {
    "rounded": "",
    "a range for each channel": "channel",
    "the range with the least error, for each channel": "mse-channel",
    "new batch norm statistics": "bn",
    "class offsets, as before": "offsets",
    "class offsets, from labels": "labels",
    "class offsets, from labels that count alike": "evenlabels",
    "new statistics and offsets from labels": "bn-labels",
    "new statistics and offsets from labels that count alike": "bn-evenlabels",
    "bits where the worst group needs them": "groupbits",
    "bits where the mean needs them": "meanbits",
}
TRAINED = {
    "rounded, 8 bits at the ends": "ends8",
    "QAT": "ends8-qat",
    "QAT, loss weights": "ends8-qat-weighted",
    "QAT, a third of the loss": "ends8-qat-share32",
    "QAT, sampled both ways": "ends8-qat-sampled",
    "QAT, oversampled": "ends8-qat-oversampled",
    "QAT, undersampled": "ends8-qat-undersampled",
    "FairQAT": "fairqat",
    "FairQAT, a third of the loss": "ends8-qat-share32-sampled",
    "QAT, logit adjustment": "ends8-qat-adjusted",
    "QAT, group-DRO": "ends8-qat-dro",
    "QAT, learned scales": "lsq-ends8-qat",
    "trained before": "ends8-tuned",
    "trained before, loss weights": "ends8-tuned-weighted",
    "trained before, sampled": "ends8-tuned-sampled",
    "trained before, both": "ends8-tuned-weighted-sampled",
}


def arm(bits: int, words: str = "", format: str = "int") -> str:
    """The name of a remedy at a width, with the passes of that width where it trains.

    >>> arm(4, "ends8-qat-weighted"), arm(2, "fairqat"), arm(3, "bn"), arm(2, "qat", "pruned")
    ('int4-ends8-qat-weighted', 'int2-fairqat-passes8', 'int3-bn', 'pruned2-qat-passes8')
    """
    name = "-".join(filter(None, [f"{format}{bits}", words]))
    treatment = Treatment.parse(name)
    if treatment.trains and bits in PASSES:
        treatment = replace(treatment, passes=PASSES[bits])
    return treatment.name


def rounding_of(treatment: str) -> str:
    """Rounding alone, as a remedy is compared with: with 8 bits at the ends where the remedy has them.

    >>> rounding_of("int4-fairqat"), rounding_of("int3-bn-labels"), rounding_of("int2-fairqat-passes8")
    ('int4-ends8', 'int3', 'int2-ends8')
    """
    own = Treatment.parse(treatment)
    return Treatment(own.bits, ends8=own.ends8).name


def gap(networks: Networks, treatment: str) -> Floats:
    """FVO of each network: the accuracy of its best group less that of its worst."""
    return np.ptp(networks.of(treatment).to_numpy(), axis=1)


def worst(networks: Networks, treatment: str) -> Floats:
    """The accuracy of whichever group is worst in each network."""
    return networks.of(treatment).to_numpy().min(axis=1)


def compared(
    networks: Networks, remedies: Mapping[str, str], before: str, *, width: str = "", level: float = 0.95
) -> pd.DataFrame:
    """What each remedy changes of OA and of FVO against `before`, for a figure of dots.

    `remedies`: by what it is called, the name of the treatment; one that was not measured is left out.
    """
    there = set(networks.table["treatment"])
    measures = {"OA": networks.overall, "FVO": lambda name: gap(networks, name)}
    rows = []
    for row, treatment in remedies.items():
        if treatment in there and treatment != before:
            for measure, of in measures.items():
                values = pd.Series(of(treatment) - of(before))
                about = {"width": width, "row": row, "group": measure, "treatment": treatment}
                rows.append(about | student_interval(values, level))
    return pd.DataFrame(rows)


def people(networks: Networks, remedies: Mapping[str, str]) -> pd.DataFrame:
    """Recall, precision and F1 of each group under each remedy; `won`: recall less that of rounding alone.

    Means over networks, in shares. Precision and F1 are known where groups are labels. `calibration` is the
    root of the mean squared calibration error, which no noise lifts: 0 where that came out below.
    """
    size = networks.of("fp32", "n")
    rows = []
    for row, treatment in remedies.items():
        if treatment not in set(networks.table["treatment"]):
            continue
        recall, named = (networks.of(treatment, one) for one in ("right", "named"))
        measures = {
            "won": networks.change(treatment, rounding_of(treatment)),
            "recall": recall,
            "precision": recall * size / named,
            "F1": 2 * recall * size / (named + size),
        }
        means = {name: values.mean() for name, values in measures.items()}
        squared = networks.of(treatment, "squared_calibration_error").mean()
        means["calibration"] = squared.clip(lower=0) ** 0.5
        rows += [
            {"remedy": row, "group": group} | {name: mean[group] for name, mean in means.items()}
            for group in networks.groups
        ]
    return pd.DataFrame(rows)


# ---------------------------------------------------------------- which one to take


@dataclass(frozen=True)
class Choice:
    """A remedy that some networks chose, and what it brings to the others, in shares.

    Changes are against rounding alone: of OA, of FVO, and of the accuracy of the worst group.
    """

    remedy: str
    treatment: str
    chosen_by: int
    networks: int
    overall: dict[Hashable, float]
    gap: dict[Hashable, float]
    worst: dict[Hashable, float]


def choose(networks: Networks, remedies: Mapping[str, str], *, level: float = 0.95) -> Choice:
    """The remedy with the smallest mean FVO among those that lose no more than two points of OA.

    The first third of the networks choose, by what they are right on; the others say what the choice brings
    against rounding alone. Two points are counted from the remedy with the best OA.
    """
    there = {row: name for row, name in remedies.items() if name in set(networks.table["treatment"])}
    if not there:
        raise BadInput(f"none of {', '.join(remedies.values())} was measured; expected one to choose.")
    seeds = sorted(networks.table["seed"].unique())
    count = max(len(seeds) // _CHOOSERS, 1)
    choosers, others = (
        Networks(networks.table[networks.table["seed"].isin(some)], networks.majority)
        for some in (seeds[:count], seeds[count:])
    )
    best = max(choosers.overall(name).mean() for name in there.values())
    allowed = {row: name for row, name in there.items() if choosers.overall(name).mean() >= best - OA_LOSS}
    row = min(allowed, key=lambda one: gap(choosers, allowed[one]).mean())
    name = allowed[row]
    before = rounding_of(name)

    def brought(values: Floats) -> dict[Hashable, float]:
        found = student_interval(pd.Series(values), level)
        return {"estimate": found["estimate"], "lower": found["lower"], "upper": found["upper"]}

    return Choice(
        row,
        name,
        count,
        len(seeds) - count,
        brought(others.overall(name) - others.overall(before)),
        brought(gap(others, name) - gap(others, before)),
        brought(worst(others, name) - worst(others, before)),
    )


# What somebody can do decides among what there is to choose.
LINES: dict[str, tuple[str, ...]] = {
    "You cannot train, and have images without labels": (
        "rounded",
        "a range for each channel",
        "the range with the least error, for each channel",
        "new batch norm statistics",
        "class offsets, as before",
    ),
    "You cannot train, and have a few hundred images with labels": (
        "rounded",
        "class offsets, from labels",
        "class offsets, from labels that count alike",
        "new statistics and offsets from labels",
        "new statistics and offsets from labels that count alike",
        "bits where the worst group needs them",
        "bits where the mean needs them",
    ),
    "You can train, and know no groups": ("QAT", "QAT, logit adjustment", "QAT, learned scales"),
    "You can train, and know the groups of the training images": tuple(
        name for name in TRAINED if name not in ("rounded, 8 bits at the ends", "QAT, logit adjustment")
    ),
}


def what_to_do(networks: Networks, bits: int) -> dict[str, Choice]:
    """For what somebody can do, the remedy to take at that width, and what it brings over rounding alone."""
    known = UNTRAINED | TRAINED
    found = {}
    for line, names in LINES.items():
        remedies = {name: arm(bits, known[name]) for name in names}
        if set(remedies.values()) & set(networks.table["treatment"]):
            found[line] = choose(networks, remedies)
    return found
