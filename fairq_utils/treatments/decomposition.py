"""Take what a treatment costs each group apart: what undoing one thing after the other gives back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
from torch import nn
from torch.nn import functional

from fairq_utils.data.datasets import Dataset
from fairq_utils.errors import BadInput
from fairq_utils.metrics.groups import correct_answers
from fairq_utils.metrics.shares import over_orders
from fairq_utils.training.loop import predict
from fairq_utils.treatments.treatment import FP32, Treatment

#: What can be undone without labels, by the field of a treatment that undoes it.
STEPS = ("batchnorm", "offsets", "temperature")


def undone(treatment: Treatment, steps: Sequence[str] = STEPS) -> list[Treatment]:
    """The treatment with every choice of these steps undone, none first.

    >>> [one.name for one in undone(Treatment(4), ["batchnorm", "offsets"])]
    ['int4', 'int4-bn', 'int4-offsets', 'int4-bn-offsets']
    """
    if unknown := set(steps) - set(STEPS):
        raise BadInput(f"steps say {sorted(unknown)[0]!r}; expected some of: {', '.join(STEPS)}.")
    chosen = [some for count in range(len(steps) + 1) for some in combinations(steps, count)]
    return [replace(treatment, **dict.fromkeys(some, True)) for some in chosen]  # type: ignore[arg-type]


def taken_apart(
    table: pd.DataFrame, treatment: Treatment, steps: Sequence[str] = STEPS, *, value: str = "accuracy"
) -> pd.DataFrame:
    """What a treatment costs each group, in parts: by a table of `treatment`, `group` and some `value`.

    The table has a row for each group and each treatment that `undone` names, of this one and of full
    precision. A step counts for what it gives back beyond what it gives in full precision. `change` is what
    the treatment does to the value in all. A `part` is the mean over the orders of the steps, between `least`
    and `most`; the `rest` is what no step gives back. The parts sum to the change. Further columns, such as
    `seed`, are kept apart.

    >>> names = ["fp32", "fp32-bn", "int4", "int4-bn"]
    >>> table = pd.DataFrame({"treatment": names, "group": "a", "accuracy": [0.9, 0.91, 0.7, 0.85]})
    >>> taken_apart(table, Treatment(4), ["batchnorm"]).round(2)
      group       part  share  least  most  change
    0     a  batchnorm  -0.14  -0.14 -0.14    -0.2
    1     a       rest  -0.06  -0.06 -0.06    -0.2
    """
    keys = [name for name in table.columns if name in ("seed", "group")]
    wide = table.pivot_table(index="treatment", columns=keys, values=value, sort=False)
    of = {
        frozenset(step for step in steps if getattr(one, step)): (one.name, control.name)
        for one, control in zip(undone(treatment, steps), undone(FP32, steps), strict=True)
    }
    if missing := {name for pair in of.values() for name in pair} - set(wide.index):
        raise BadInput(f"The table has no {sorted(missing)[0]}; expected what `undone` names.")

    def left(taken: frozenset[str]) -> np.ndarray:
        """What is lost with these steps undone, against full precision with the same ones done."""
        own, control = of[taken]
        return wide.loc[own].to_numpy() - wide.loc[control].to_numpy()

    shares = over_orders(steps, lambda taken: -left(taken))
    rest, change = left(frozenset(steps)), left(frozenset())
    parts = {step: (share.mean, share.least, share.most) for step, share in shares.items()}
    columns = wide.columns.to_frame(index=False)[keys]
    rows = [
        columns.assign(part=part, share=mean, least=least, most=most, change=change)
        for part, (mean, least, most) in (parts | {"rest": (rest, rest, rest)}).items()
    ]
    order = columns.assign(place=range(len(columns)))
    found = pd.concat(rows, ignore_index=True).merge(order, on=keys)
    return found.sort_values("place", kind="stable", ignore_index=True).drop(columns="place")


def decompose(
    network: nn.Module, treatment: Treatment, data: Dataset, steps: Sequence[str] = STEPS
) -> pd.DataFrame:
    """What a treatment costs each group of the test images, in parts: accuracy, and loss in nats.

    Of a network of your own, and of images that `load` reads or `Dataset` holds, whose tuning part the
    offsets and the temperature are fitted on. A row for each `measure`, group and part, which `taken_apart`
    describes:

    >>> from fairq_utils.data.sources import load
    >>> from fairq_utils.training.architectures import build
    >>> data = load("moths", train_images=200, test_images=50)
    >>> network = build("resnet18-4", classes=len(data.label_names)).eval()
    >>> parts = decompose(network, Treatment(3), data, ["batchnorm"])
    >>> parts.groupby("measure").size().to_dict()
    {'accuracy': 10, 'loss': 10}
    """
    test = data.is_test.nonzero()[:, 0]
    labels, groups = data.labels[test], data.groups[test].numpy()
    rows = []
    for one in [*undone(treatment, steps), *undone(FP32, steps)]:
        logits = predict(one.apply(network, data), data.images[test])
        measured = {
            "accuracy": correct_answers(logits, labels).astype(float),
            "loss": functional.cross_entropy(logits, labels, reduction="none").double().numpy(),
        }
        for measure, values in measured.items():
            for place in np.unique(groups):
                mean = float(values[groups == place].mean())
                rows.append((measure, one.name, data.group_names[place], mean))
    table = pd.DataFrame(rows, columns=["measure", "treatment", "group", "value"])
    parts = [
        taken_apart(own.drop(columns="measure"), treatment, steps, value="value").assign(measure=measure)
        for measure, own in table.groupby("measure", sort=False)
    ]
    found = pd.concat(parts, ignore_index=True)
    return found[["measure", *found.columns.drop("measure")]]
