"""Run the models that a command names over the images that it names."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fairq_audit.console import parse_parameters
from fairq_utils.errors import BadInput

if TYPE_CHECKING:
    from fairq_audit.models.own import OwnModels


def predictions_of_models(
    models: tuple[str, ...],
    treatment: str | None,
    weights: tuple[str, ...],
    arguments: tuple[str, ...],
    mean: str,
    std: str,
    classes: str,
    dataset: str,
    root: tuple[str, ...],
    label: str,
    group: str,
    image_size: int,
    train_images: int,
    test_images: int,
    epochs: float,
    *,
    columns: list[str],
    own: OwnModels | None = None,
) -> dict[str, Any]:
    """What the models that the options name say of the images that they name, for `auditing.audit`."""
    try:
        from fairq_audit.models import open, tables
        from fairq_utils.data.sources import DataSettings
    except ModuleNotFoundError as error:
        raise BadInput(
            f"a model is opened and run with the package {error.name}, which is not installed; expected it: "
            "pip install 'fairq-utils[models]', or give --predictions, which need no package more."
        ) from error

    if len(models) != (1 if treatment else 2):
        raise BadInput(
            f"--model was given {len(models)} times, {'with' if treatment else 'without'} --treatment; "
            "expected one model and --treatment, two models without it, or --predictions."
        )
    factories = [open.is_factory(model) for model in models]
    if len(weights) > sum(factories):
        raise BadInput(
            f"--weights was given {len(weights)} times, for {sum(factories)} factories; expected at most one "
            "file for each --model package.module:factory."
        )
    images = DataSettings(
        image_size=image_size or 32,
        name=dataset,
        root=os.pathsep.join(root) or None,
        label=label or None,
        group=group or None,
        train_images=train_images or None,
        test_images=test_images or None,
    )
    tables.further_groups(images, columns)  # refused before a network is trained or opened
    files = iter(weights)
    opened = [
        open.open_model(
            model,
            weights=next(files, None) if factory else None,
            arguments=parse_parameters(arguments, "-a", "num_classes=9") if factory else None,
            image_size=image_size or None,
            mean=_decimals("mean", mean),
            std=_decimals("std", std),
            class_names=[name.strip() for name in classes.split(",")] if classes else None,
            data=images,
            epochs=epochs,
            own=own,
        )
        for model, factory in zip(models, factories, strict=True)
    ]
    if not treatment:
        tables.check_two_models(*opened)
    size = image_size or next(filter(None, (model.image_size for model in opened)), images.image_size)
    images = replace(images, image_size=size)
    shown = own.load(images) if own else images.load()
    groups = tables.group_columns(images, shown, columns)
    after = opened[0].treated(treatment, shown) if treatment else opened[1]
    return tables.to_audit(opened[0], after, shown, groups=groups)


def _decimals(name: str, text: str) -> list[float] | None:
    try:
        return [float(part) for part in text.split(",")] if text else None
    except ValueError as error:
        raise BadInput(f"{name} is {text!r}; expected numbers, such as 0.485,0.456,0.406.") from error
