"""Write, list and verify what the book ships: what networks answered whose images it may not hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from fairq_audit.models.tables import group_columns
from fairq_book.experiments import studies
from fairq_book.experiments.codes import CODE
from fairq_book.experiments.export import made_by
from fairq_book.experiments.gather import identified, results_folder, sizes_of
from fairq_book.experiments.layer import Layer, LayerNetwork, Split, stale, verify
from fairq_book.experiments.settings import Setting
from fairq_book.experiments.store import Store
from fairq_book.experiments.studies import Study
from fairq_utils.data.datasets import PARTS
from fairq_utils.data.layouts import AGES, GENDERS
from fairq_utils.errors import BadInput
from fairq_utils.items import Item, canonical
from fairq_utils.quantization.models import storage_bytes, zero_share
from fairq_utils.treatments.ablations import Ablation
from fairq_utils.treatments.treatment import Treatment

_STAGES = ("read", "train", "predict")  # that decide what is shipped
_CODES = {"gender": GENDERS, "age": AGES}  # of attributes beside label and group


def write(
    setting: Setting, chosen: Sequence[Study], *, store: Store | None = None, layer: Layer | None = None
) -> Iterator[LayerNetwork]:
    """Put what each network of a setting answered into the book's results, one after the other.

    Networks that are missing are made, in this process; `fairq sweep` makes them on several. Images that are
    not those of the networks that the setting has already are refused before one is made.
    """
    layer = layer or Layer(results_folder())
    shipped = {canonical(network.study["dataset"]): network for network in layer.networks(setting.name)}
    for study in chosen:
        if kept := shipped.get(canonical(identified(study)["dataset"])):
            given, seen = studies.dataset(study, store=store).fingerprint, layer.split(setting.name, kept)
            if given != seen.fingerprint:
                raise BadInput(
                    f"{study.name} would see other images than {layer.folder / setting.name} was made of "
                    f"(fingerprint {given[:16]}, not {seen.fingerprint[:16]}); expected the same: give the "
                    "copy of the data that those were made of, or delete that folder to begin anew."
                )
        network, split = answered(study, setting.treatments(), store=store)
        layer.write(setting.name, network, split)
        yield network


def answered(
    study: Study, treatments: Sequence[Treatment | Ablation], *, store: Store | None = None
) -> tuple[LayerNetwork, Split]:
    """What a network and its treatments answered, and the images that they were tested on."""
    store = store or Store()
    images = studies.dataset(study, store=store)
    predictions = studies.predictions([study], treatments, store=store)
    original, *_ = networks = studies.networks([study], treatments, store=store)
    tested = images.is_test
    split = Split(
        labels=images.labels[tested].long(),
        groups=images.groups[tested].long(),
        label_names=images.label_names,
        group_names=images.group_names,
        sizes={part: sizes_of(images)[part].tolist() for part in PARTS},
        fingerprint=images.fingerprint,
        attributes=_attributes(study, images),
    )
    made = made_by()
    network = LayerNetwork(
        name=study.name,
        study=identified(study),
        weights=Item(dict(original.state_dict())).digest,
        split=split.key,
        logits={one.treatment.name: one.logits for one in predictions},
        record={
            "bytes": {one.name: storage_bytes(own) for one, own in zip(treatments, networks, strict=True)},
            "zeros": {
                one.name: round(float(zero_share(own)["total"]), 6)
                for one, own in zip(treatments, networks, strict=True)
            },
        },
        made={
            "code": {stage: CODE[stage] for stage in _STAGES},
            "revision": made["git_revision"] or "none",
            "versions": made["versions"],
            "device": f"{predictions[0].device}; {made['hardware']}",
            "date": made["date"],
        },
    )
    return network, split


def verified(
    setting: Setting, study: Study, *, store: Store | None = None, layer: Layer | None = None
) -> pd.DataFrame:
    """Make a network anew and compare it with the one that is shipped: a row a treatment and group."""
    layer = layer or Layer(results_folder())
    anew, _ = answered(study, setting.treatments(), store=store)
    return verify(layer, setting.name, anew)


def listed(root: Path | None = None) -> list[str]:
    """A line for each setting that is shipped: how much of it, when it was made, and whether by this code."""
    layer, lines = Layer(results_folder(root)), []
    for name in layer.settings():
        networks = list(layer.networks(name))
        treatments = {treatment for network in networks for treatment in network.logits}
        size = sum(path.stat().st_size for path in (layer.folder / name).rglob("*.xz"))
        dates = sorted(str(network.made["date"])[:10] for network in networks)
        changed = sorted({stage for network in networks for stage in stale(network, CODE)})
        code = f"made by earlier code of: {', '.join(changed)}" if changed else "made by this code"
        lines.append(
            f"{name}: {len(networks)} networks, {len(treatments)} treatments, {size / 1e6:.1f} MB, "
            f"{dates[0]} to {dates[-1]}, {code}"
        )
    return lines


def _attributes(study: Study, images: object) -> dict[str, Tensor]:
    """What else is known of the test images, as places in the lists of names that the data set has."""
    names = [name for name in _CODES if study.dataset.name in ("utkface", "fairface")]
    if not names:
        return {}
    table = group_columns(study.dataset, images, names)  # type: ignore[arg-type]
    return {
        name: torch.tensor([_CODES[name].index(value) for value in table[name]])
        for name in names
        if name in table
    }
