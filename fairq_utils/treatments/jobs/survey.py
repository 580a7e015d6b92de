"""Look at the loss where a treated network stands."""

from __future__ import annotations

from fairq_utils.curvature.surveys import (
    Survey,
    measure,
    measure_change,
    measure_gradients,
    measure_parts,
    measure_spectrum,
)
from fairq_utils.data.datasets import Dataset
from fairq_utils.items import Item
from fairq_utils.progress import Report
from fairq_utils.treatments.jobs.restore import restored
from fairq_utils.treatments.treatment import Treatment

_MEASURES = {
    "around": measure,
    "gradients": measure_gradients,
    "parts": measure_parts,
    "spectrum": measure_spectrum,
}


def take_survey(
    images: Dataset,
    network: Item,
    *,
    treatment: Treatment,
    arch: str,
    how: Survey,
    look: str,
    seed: int,
    report: Report,
) -> Item:
    """What is seen there: `around`, in its `parts`, its `spectrum`, or the `change` from the original.

    Of what is around it `gradients` are those alone. The change is that of a treatment which rounds the very
    network that is given. The seed draws the images: with the same one for every treatment of a network,
    changes are paired.
    """
    treated = treatment.apply(restored(treatment.arch(arch, images), images, network), images)
    if look == "change":
        return measure_change(restored(arch, images, network), treated, images, how, seed=seed, report=report)
    return _MEASURES[look](treated, images, how, seed=seed, report=report)
