"""The book's own networks as models to audit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from fairq_audit.models.base import AuditModel
from fairq_audit.models.own import OwnModels
from fairq_audit.models.tables import group_columns, to_audit
from fairq_book.experiments.store import Store
from fairq_book.experiments.studies import Study, dataset, network
from fairq_utils.data.sources import DataSettings
from fairq_utils.training import architectures
from fairq_utils.training.loop import Recipe
from fairq_utils.treatments.treatment import Treatment

_NAME = rf"(?P<arch>{architectures.PATTERN})(?:-seed(?P<seed>\d+))?"


def from_study(study: Study, *, store: Store | None = None) -> AuditModel:
    """The full-precision network of a study, from the store or trained now."""
    return AuditModel(
        name=study.name,
        network=network(study, store=store),
        image_size=study.dataset.image_size,
        class_names=dataset(study, store=store).label_names,
        source={"entrance": "study"},
    )


def own_models() -> OwnModels:
    """The networks of the book by their names, such as resnet18-16 or resnet18-16-seed3.

    >>> own_models().expected
    'an architecture of the book (resnet18, efficientnet_b0, ..., vit-64)'
    """
    return OwnModels(
        pattern=_NAME,
        expected=f"an architecture of the book ({architectures.CHOICES})",
        open=_open,
        load=dataset,
    )


def _open(name: str, data: DataSettings, epochs: float) -> AuditModel:
    found = re.fullmatch(_NAME, name)
    assert found
    recipe = Recipe(epochs=epochs) if epochs else Recipe()
    return from_study(Study(dataset=data, arch=found["arch"], recipe=recipe, seed=int(found["seed"] or 0)))


def of_study(
    study: Study,
    treatment: Treatment | str,
    *,
    groups: Sequence[str] = ("group",),
    store: Store | None = None,
) -> dict[str, Any]:
    """The arguments of `fairq_audit.audit` for a study's network, before and after its weights are rounded.

    The network is read from the store, or trained now. `groups` names the columns that the audit compares,
    where they are more than the data set's usual one.

    >>> few = DataSettings(train_images=40, test_images=60, image_size=16)
    >>> of_study(Study(dataset=few, recipe=Recipe(epochs=1)), "int4")["names"]
    ('moths-resnet18-16-16px-seed0', 'moths-resnet18-16-16px-seed0 int4')
    """
    images = dataset(study, store=store)
    columns = group_columns(study.dataset, images, groups)  # refused before the network is trained
    before = from_study(study, store=store)
    return to_audit(before, before.treated(treatment, images), images, groups=columns)
