"""From models and images to the tables of predictions that an audit compares."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from fairq_audit.models.base import AuditModel, explained, require_fit
from fairq_audit.models.graphs import Graph, GraphWeights, OnnxGraph
from fairq_audit.models.images import said
from fairq_audit.models.inputs import Inputs
from fairq_utils.data.datasets import Dataset
from fairq_utils.data.layouts import FOLDER, LAYOUTS
from fairq_utils.data.sources import DataSettings, select_images
from fairq_utils.errors import BadInput
from fairq_utils.progress import progress
from fairq_utils.quantization.models import weight_parameters
from fairq_utils.training.loop import default_device, to_input


def predictions_of(model: AuditModel, images: Dataset | Inputs, *, batch_size: int = 100) -> pd.DataFrame:
    """What a model says of the test images, a row for each: id, label, group, prediction and logits.

    `id` is the place of the image in the data set; rows of a table have their own, and their own groups. A
    logit is under `logit_` and the name of its class, in the order of the data's labels, whatever the model's
    own order. So two tables of one data set go together, whoever made the models.
    """
    table = images.table if isinstance(images, Inputs) else _of_images(images)
    order = _order(model, images)
    found: list[Tensor] = []
    network = model.network if isinstance(images, Inputs) else model.seeing
    if isinstance(images, Dataset):
        require_fit(model, images)
    with (
        _where_it_runs_fast(network) as device,
        torch.no_grad(),  # inference mode would be refused by networks of packed weights
        progress(total=len(table), description=model.title, unit="row") as bar,
        explained(model, images),
    ):
        for logits in _answers(network, images, device, batch_size):
            if logits.shape[1] != len(order):
                raise _other_classes(model, logits.shape[1], images)
            found.append(logits)
            bar.update(len(logits))
    logits = torch.cat(found)[:, order]
    finite = logits.isfinite().all(1)
    if not finite.all():
        look = "look at mean and std, and" if isinstance(images, Dataset) else "look at the columns, and"
        raise BadInput(
            f"{model.title} gives NaN or infinity for {int((~finite).sum())} of "
            f"{len(table)} rows; expected finite logits: {look} whether it diverged."
        )
    names = np.array(images.label_names)
    scores = pd.DataFrame(logits.numpy(), columns=[f"logit_{name}" for name in names])
    return table.assign(prediction=names[logits.argmax(1).numpy()]).join(scores)


def _of_images(images: Dataset) -> pd.DataFrame:
    """Id, label and group of the test images."""
    shown = images.is_test.nonzero()[:, 0]
    return pd.DataFrame(
        {
            "id": shown.numpy(),
            "label": np.array(images.label_names)[images.labels[shown].numpy()],
            "group": np.array(images.group_names)[images.groups[shown].numpy()],
        }
    )


def _answers(
    network: nn.Module, images: Dataset | Inputs, device: torch.device, batch_size: int
) -> Iterator[Tensor]:
    """The logits of all rows, or of the test images, a batch at a time."""
    if isinstance(images, Inputs):
        yield from images.answers(network, device, batch_size)
        return
    for rows in images.is_test.nonzero()[:, 0].split(batch_size):
        yield network(to_input(images.images[rows].to(device))).cpu()


def layers(before: AuditModel, after: AuditModel) -> pd.DataFrame:
    """The layers that two models share: how many weights, and which share of them is exactly zero in each.

    Left out is a layer that is in one of them only, under that name, or holds its weights in a packed form.
    """
    first, second = (_shares(model.network) for model in (before, after))
    return first.merge(second, on=["layer", "weights"], suffixes=("_before", "_after"))


def _shares(network: nn.Module) -> pd.DataFrame:
    weights: nn.Module = network.weights() if isinstance(network, Graph) else network
    rows = []
    for number, place in enumerate(weight_parameters(weights)):
        name = weights.names[number] if isinstance(weights, GraphWeights) else place.name
        values = getattr(place.module, place.tensor).detach()
        with suppress(NotImplementedError, RuntimeError):  # of a packed form that cannot be unpacked
            values = values if type(values) is Tensor else values.dequantize()
            share = 1 - int(values.count_nonzero()) / max(values.numel(), 1)
            rows.append((name, values.numel(), share))
    return pd.DataFrame(rows, columns=["layer", "weights", "zero"])


_OWN_COLUMNS = ("id", "label", "group", "prediction")  # of a table of predictions, whatever the data


def further_groups(settings: DataSettings, names: Sequence[str]) -> list[str]:
    """Which of the names are not in every table of predictions, if the data set has them.

    >>> further_groups(DataSettings(name="utkface", root="faces.zip"), ["group", "gender", "age"])
    ['gender', 'age']
    >>> further_groups(DataSettings(), ["group", "light"])
    Traceback (most recent call last):
        ...
    fairq_utils.errors.BadInput: groups names light, but moths holds one group only, in the column group;
    expected group, or data with several: utkface, fairface, celeba, or a folder whose CSV has more columns.
    """
    wanted = [name for name in names if name not in ("label", "group")]
    known = _attributes(settings) if wanted else []
    if unknown := [name for name in wanted if name not in known]:
        raise BadInput(
            f"groups names {unknown[0]}, which {settings.name} does not have; expected some of: "
            f"{', '.join(['label', 'group', *known])}."
            if known
            else f"groups names {unknown[0]}, but {settings.name} holds one group only, in the column group; "
            "expected group, or data with several: utkface, fairface, celeba, or a folder whose CSV has more "
            "columns."
        )
    return wanted


def group_columns(settings: DataSettings, images: Dataset, names: Sequence[str]) -> pd.DataFrame:
    """Further columns of groups for the test images, by which they can be compared and crossed.

    `images` are those of the settings. UTKFace and FairFace have race, gender and age, CelebA its attributes,
    and a folder the columns of its CSV. `label` and `group` are in every table of predictions anyway, and
    need not be asked for.

    >>> moths = DataSettings(train_images=40, test_images=20)
    >>> group_columns(moths, moths.load(), ["group"]).shape
    (20, 0)
    """
    wanted = further_groups(settings, names)
    shown = images.is_test.numpy()
    if not wanted:
        return pd.DataFrame(index=range(int(shown.sum())))
    layout, paths = LAYOUTS[settings.name], settings.paths()
    label, group = settings.label or layout.label, settings.group or layout.group
    rows = select_images(layout.read(paths, label=label, group=group), settings)[0]
    if rows["label"].tolist() != images.labels.tolist() or rows["group"].tolist() != images.groups.tolist():
        raise BadInput(
            f"The images at {settings.root} are others than those that were loaded; expected the same: load "
            "them again with these settings."
        )
    found = {}
    for name in wanted:
        listing = layout.read(paths, label=label, group=name)
        texts = np.array(listing.group_names, dtype=object)[listing.table["group"]]
        own = pd.Series(texts, index=listing.table["name"])[rows["name"][shown]]
        if empty := int((own.str.strip() == "").sum()):
            raise BadInput(
                f"{settings.root} has {empty} test images without a {name}; expected one for each: fill them "
                "in, or leave those images out."
            )
        found[name] = own.to_numpy()
    return pd.DataFrame(found)


def _attributes(settings: DataSettings) -> list[str]:
    """The columns by which the images of a data set can be compared, apart from its label and group."""
    if settings.is_drawn:
        return []
    if settings.name != "folder":
        return list(LAYOUTS[settings.name].attributes)
    table = pd.read_csv(FOLDER.table(settings.paths()), nrows=0, encoding="utf-8-sig")
    own = ("file", "split", *_OWN_COLUMNS)
    return [
        name
        for name in map(str, table)
        if name not in own and not name.startswith(("logit_", "probability_"))
    ]


def check_two_models(before: AuditModel, after: AuditModel) -> None:
    """Refuse one model that was given twice, before it answers."""
    first, second = map(_what_it_is, (before, after))
    if first == second:
        raise BadInput(
            f"{before.name} and {after.name} are one model; expected two: give the one that was quantized as "
            "the second --model, or one --model and --treatment."
        )


def _what_it_is(model: AuditModel) -> tuple[object, ...]:
    """What tells a model from others: a copy of its file has the same, and is it."""
    source = {name: value for name, value in model.source.items() if name != "weights"}
    # A factory and a study are told by their name. An ONNX file may keep its weights in another one.
    own = model.network.path.resolve() if isinstance(model.network, OnnxGraph) else None
    named = model.name if source["entrance"] in ("factory", "study") else own
    return named, source, model.mean, model.std, model.image_size, model.class_names, model.treatment


def to_audit(
    before: AuditModel,
    after: AuditModel,
    images: Dataset | Inputs,
    *,
    groups: pd.DataFrame | None = None,
    batch_size: int = 100,
) -> dict[str, Any]:
    """What two models say of the test images, as the arguments of `fairq_audit.audit`.

    `groups`: further columns for the tables, from `group_columns`.

    >>> from fairq_audit.auditing import audit
    >>> images = DataSettings(train_images=40, test_images=60, image_size=16).load()
    >>> mine = AuditModel(name="mine", network=nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 5)))
    >>> found = audit(**to_audit(mine, mine.treated("int4", images), images))
    >>> found.record["compared"]["after"]["name"]
    'mine int4'
    """
    tables = [predictions_of(model, images, batch_size=batch_size) for model in (before, after)]
    if groups is not None:
        tables = [table.join(groups) for table in tables]
    shared = layers(before, after)
    names = [model.title for model in (before, after)]
    if names[0] == names[1]:
        names = [f"{name}, {place}" for name, place in zip(names, ("before", "after"), strict=True)]
    if isinstance(images, Inputs):
        what = f"{len(tables[0]):,} rows of {images.source}"
    else:
        fingerprint = f"fingerprint {images.fingerprint[:12]}"
        what = f"{len(tables[0]):,} test images of {said(images)} pixels ({fingerprint})"
    other = _about(after, images)
    if after.treatment and (before.name, before.source) == (after.name, after.source):
        other = f"the same at {after.treatment.name}"
    return {
        "before": tables[0],
        "after": tables[1],
        "names": tuple(names),
        "layers": None if shared.empty else shared,
        "unit": "image" if isinstance(images, Dataset) else "row",
        "description": f"{_about(before, images)}, and {other}, on {what}.",
    }


def _about(model: AuditModel, images: Dataset | Inputs) -> str:
    """Which model, from which file, and how its images were normalised."""
    digest = str(model.source.get("sha256", ""))[:12]
    known = [f"SHA-256 {digest}"] if digest else []
    if isinstance(images, Dataset):
        for name, numbers in (("mean", model.mean or ()), ("std", model.std or ())):
            said_once = numbers[:1] if len(set(numbers)) == 1 else numbers
            known.append(f"{name} {', '.join(f'{n:g}' for n in said_once)}")
    return f"{model.title} ({', '.join(known)})" if known else model.title


def _order(model: AuditModel, images: Dataset | Inputs) -> list[int]:
    """For each label of the data the place of its logit."""
    if model.class_names is None:
        return list(range(len(images.label_names)))
    if len(model.class_names) != len(images.label_names):
        raise _other_classes(model, len(model.class_names), images)
    for name in images.label_names:
        if model.class_names.count(name) != 1:
            raise BadInput(
                f"{model.name} has no class {name!r}, which is a label of the data (its classes are "
                f"{', '.join(model.class_names)}); expected the same names: give class_names, the data's "
                "labels in the order of the model's logits."
            )
    return [model.class_names.index(name) for name in images.label_names]


def _other_classes(model: AuditModel, classes: int, images: Dataset | Inputs) -> BadInput:
    labels = images.label_names
    return BadInput(
        f"{model.name} tells {classes} classes apart, and the data have {len(labels)} labels "
        f"({', '.join(labels)}); expected as many: give the data it was trained for, or a model of these."
    )


@contextmanager
def _where_it_runs_fast(network: nn.Module) -> Iterator[torch.device]:
    """Bring a network that is on the CPU to the accelerator, where there is one, and back."""
    home = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    device = home if home.type != "cpu" else default_device()
    network.to(device)
    try:
        yield device
    finally:
        network.to(home)
