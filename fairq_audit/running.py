"""Run the models that a command names over the images that it names."""

from __future__ import annotations

import os
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
    image_size: str,
    train_images: int,
    test_images: int,
    epochs: float,
    inputs: str,
    input_columns: str,
    tokenizer: str,
    *,
    columns: list[str],
    own: OwnModels | None = None,
) -> dict[str, Any]:
    """What the models that the options name say of the images or rows that they name, for `audit`."""
    try:
        from fairq_audit.models import base, open, tables
        from fairq_audit.models import images as forms
        from fairq_audit.models.inputs import read_inputs
        from fairq_utils.data.sources import DataSettings
        from fairq_utils.data.tars import refuse_huge_headers
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
    of_images = {
        "dataset": dataset if dataset != "moths" else "",
        "root": root,
        "label": label,
        "group": group,
        "mean": mean,
        "std": std,
        "image_size": image_size,
        "train_images": train_images,
        "test_images": test_images,
    }
    of_rows = {"columns": input_columns, "tokenizer": tokenizer}
    for name, value in of_images.items() if inputs else of_rows.items():
        if value:
            raise BadInput(
                f"--{name.replace('_', '-')} was given {'beside' if inputs else 'without'} --inputs; "
                "expected images, or a table as --inputs and the --columns of it that the model takes."
            )
    rows = None
    if inputs:
        named = [name.strip() for name in input_columns.split(",") if name.strip()]
        rows = read_inputs(inputs, named, groups=columns, tokenizer=tokenizer or None)
    channels, given_size = forms.parse_size(image_size) if image_size else (None, None)
    square = given_size if isinstance(given_size, int) and 16 <= given_size <= 512 else 32
    images = DataSettings(
        image_size=square,
        name=dataset,
        root=os.pathsep.join(root) or None,
        label=label or None,
        group=group or None,
        train_images=train_images or None,
        test_images=test_images or None,
    )
    if rows is None:
        if not images.is_drawn:
            refuse_huge_headers(images.paths())
        tables.further_groups(images, columns)  # refused before a network is trained or opened
    files = iter(weights)
    opened = [
        open.open_model(
            model,
            weights=next(files, None) if factory else None,
            arguments=parse_parameters(arguments, "-a", "num_classes=9") if factory else None,
            image_size=given_size,
            channels=channels,
            mean=_decimals("mean", mean),
            std=_decimals("std", std),
            class_names=[name.strip() for name in classes.split(",")] if classes else None,
            takes_images=rows is None,
            data=images,
            epochs=epochs,
            own=own,
        )
        for model, factory in zip(models, factories, strict=True)
    ]
    if not treatment:
        tables.check_two_models(*opened)
    if rows is not None:
        after = opened[0].treated(treatment, rows) if treatment else opened[1]
        return tables.to_audit(opened[0], after, rows)
    for model in opened:
        base.require_normalisation(model)
    known = [given_size, *(model.image_size for model in opened), images.image_size]
    size = next(own_size for own_size in known if own_size)
    shown = forms.load_images(images, size, own.load if own else DataSettings.load)
    groups = tables.group_columns(images, shown, columns)
    after = opened[0].treated(treatment, shown) if treatment else opened[1]
    return tables.to_audit(opened[0], after, shown, groups=groups)


def _decimals(name: str, text: str) -> list[float] | None:
    try:
        return [float(part) for part in text.split(",")] if text else None
    except ValueError as error:
        raise BadInput(f"{name} is {text!r}; expected numbers, such as 0.485,0.456,0.406.") from error
