"""What a chapter asks for, gathered: from what the book ships where all of it is there, else made here."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from fairq_book.experiments import studies
from fairq_book.experiments.layer import Layer, LayerNetwork, Split
from fairq_book.experiments.store import Store
from fairq_book.experiments.studies import Landscape, Prediction, Study
from fairq_book.root import book_root
from fairq_utils.curvature.surveys import Survey
from fairq_utils.data.datasets import PARTS, Dataset
from fairq_utils.errors import BadInput
from fairq_utils.quantization.models import storage_bytes
from fairq_utils.treatments.ablations import Ablation
from fairq_utils.treatments.treatment import FP32, Treatment


@dataclass(frozen=True, kw_only=True)
class Request:
    """Predictions of these treatments, or with a `survey` the loss around the networks that they make.

    `each`: of at most so many images of each group; 0 for all. `networks`: of so many networks, the first
    ones; 0 for all. `density`: of the loss around them the spectral density. `look`: all that is looked
    at there, as in `landscapes`.
    """

    treatments: Sequence[Treatment | Ablation]
    each: int = 0
    split: str = "test"
    networks: int = 0
    survey: Survey | None = None
    density: bool = False
    look: str = ""

    def lacking(self, network: LayerNetwork) -> list[str]:
        """What a network that the book ships has nothing of."""
        if self.survey is not None:
            return ["the loss around it"]
        if self.split != "test":
            return [f"its answers to the images for {self.split}"]
        return [one.name for one in self.treatments if one.name not in network.logits]


@dataclass(frozen=True)
class _Shipped:
    """A network of the book's results, with the images that it was tested on."""

    network: LayerNetwork
    split: Split

    def prediction(self, study: Study, treatment: Treatment | Ablation, each: int) -> Prediction:
        """What it answered under a treatment."""
        own = self.split
        # Where two networks were tested on the same images, they have one split.
        first = zlib.crc32(own.key.encode()) << 20
        found = Prediction(
            study,
            treatment,
            self.network.logits[treatment.name],
            own.labels,
            own.groups,
            tuple(own.label_names),
            tuple(own.group_names),
            fingerprint=own.fingerprint,
            device=str(self.network.made["device"]),
            images=first + torch.arange(len(own.labels)),
        )
        return found.of_each_group(each) if each else found


@dataclass(frozen=True, eq=False)
class Gathered(Mapping[str, Any]):
    """What was asked for, by the name that it was asked under, and what is known of the images."""

    studies: Sequence[Study]
    store: Store | None = None
    shipped: Mapping[Study, _Shipped] = field(default_factory=dict)
    found: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        if name not in self.found:
            raise BadInput(f"{name!r} was not asked for; expected one of: {', '.join(self.found)}.")
        return self.found[name]

    def __contains__(self, name: object) -> bool:
        return name in self.found

    def __iter__(self) -> Iterator[str]:
        return iter(self.found)

    def __len__(self) -> int:
        return len(self.found)

    @cached_property
    def images(self) -> Dataset:
        """The images of the first network."""
        return studies.dataset(self.studies[0], store=self.store)

    @cached_property
    def sizes(self) -> pd.DataFrame:
        """How many images each group has in each part of the data set of the first network."""
        if first := self.shipped.get(self.studies[0]):
            return pd.DataFrame(
                {"group": first.split.group_names, **{part: first.split.sizes[part] for part in PARTS}}
            )
        return sizes_of(self.images)

    @property
    def group_names(self) -> tuple[str, ...]:
        """The groups, in the order that the data set gives them."""
        return tuple(self.sizes["group"])

    @property
    def smallest(self) -> str:
        """The group with the fewest training images, among those that have test images."""
        tested = self.sizes[self.sizes["test"] > 0]
        return str(tested["group"][tested["train"].idxmin()])

    @property
    def majority(self) -> str | None:
        """The group with the most training images; where several have as many, there is no majority."""
        sizes = self.sizes.set_index("group")["train"]
        return str(sizes.idxmax()) if (sizes == sizes.max()).sum() == 1 else None

    def treatments(self, name: str) -> list[Any]:
        """What was done to the networks behind the predictions of that name, in the order of the request."""
        return list(dict.fromkeys(prediction.treatment for prediction in self[name]))

    def networks(
        self, treatments: Sequence[Treatment | Ablation] = (FP32,), *, first: int = 0
    ) -> list[nn.Module]:
        """The treated networks themselves, study by study, or those of so many, the first ones."""
        return studies.networks(self.studies[: first or None], treatments, store=self.store)

    def megabytes(self, treatments: Sequence[Treatment]) -> dict[str, float]:
        """What the first network takes when it is packed, under each treatment, by its name."""
        if first := self.shipped.get(self.studies[0]):
            return {one.name: first.network.record["bytes"][one.name] / 1e6 for one in treatments}
        treated = self.networks(treatments, first=1)
        return {one.name: storage_bytes(own) / 1e6 for one, own in zip(treatments, treated, strict=True)}


Asks = Callable[[Gathered], dict[str, Request]]


def gather(
    chosen: Sequence[Study], asks: Asks, *, store: Store | None = None, layer: Layer | None = None
) -> Gathered:
    """All that a chapter asks for of these studies: shipped with the book, read from the store, or made.

    `asks` is called with what there is so far, and says all that it can name: what to take apart may depend
    on what rounding left standing. It is done when it names nothing new.

    A study is taken whole. If the book ships all that is asked of it, that is read. If something is missing,
    everything of that study is made here, for a seed is another network on another machine; and where it
    cannot be made, a sentence says what is there.
    """
    layer = layer or Layer(results_folder())
    shipped = {study: own for study in chosen if (own := _shipped(study, layer))}
    while True:
        for study in chosen:
            if study not in shipped and not can_be_made(study):
                raise BadInput(_not_here(study, layer))
        got = Gathered(chosen, store, dict(shipped))
        lacking = _fill(got, asks)
        if not lacking:
            return got
        for study, names in lacking.items():
            if not can_be_made(study):
                raise BadInput(_lacks(study, names, shipped[study].network))
            del shipped[study]


def can_be_made(study: Study) -> bool:
    """Whether there are images to make it of: they are drawn, or somebody says where they lie.

    >>> can_be_made(Study())
    True
    """
    return study.dataset.is_drawn or study.dataset.root is not None


def results_folder(root: Path | None = None) -> Path:
    """Where the book holds what it ships: a folder for each setting."""
    return (root or book_root()) / "book" / "results"


def identified(study: Study) -> dict[str, Any]:
    """What identifies a study wherever its images lie, as plain JSON.

    >>> identified(Study(seed=3))["seed"]
    3
    """
    found = asdict(study)
    del found["dataset"]["root"]
    if not study.dataset.rotates:  # nor does it say anything where groups are no roles
        del found["dataset"]["rotation"]
    return found


def _fill(got: Gathered, asks: Asks) -> dict[Study, list[str]]:
    """Gather all that is asked; at the first that what is shipped lacks, say what that is."""
    while missing := {name: request for name, request in asks(got).items() if name not in got}:
        for name, request in missing.items():
            of = got.studies[: request.networks or None]
            lacking = {
                study: names
                for study in of
                if study in got.shipped and (names := request.lacking(got.shipped[study].network))
            }
            if lacking:
                return lacking
            if request.survey:
                got.found[name] = _landscapes(of, request, got.store)
            else:
                got.found[name] = _predictions(of, request, got)
    return {}


def _predictions(of: Sequence[Study], request: Request, got: Gathered) -> list[Prediction]:
    here = [study for study in of if study not in got.shipped]
    made: dict[Study, list[Prediction]] = {study: [] for study in of}
    if here:
        for one in studies.predictions(
            here, request.treatments, each=request.each, split=request.split, store=got.store
        ):
            made[one.study].append(one)
    for study in of:
        if study in got.shipped:
            own = got.shipped[study]
            made[study] = [own.prediction(study, one, request.each) for one in request.treatments]
    return [one for study in of for one in made[study]]


def _landscapes(of: Sequence[Study], request: Request, store: Store | None) -> list[Landscape] | list[Any]:
    treatments = [treatment for treatment in request.treatments if isinstance(treatment, Treatment)]
    if request.density:
        return studies.spectra(of, treatments, request.survey, store=store)
    return studies.landscapes(of, treatments, request.survey, look=request.look, store=store)


def sizes_of(images: Dataset) -> pd.DataFrame:
    """How many images each group has in each part of a data set, in the order of the groups' names.

    >>> from fairq_utils.data.sources import load
    >>> sizes_of(load("moths-equal", train_images=100, test_images=20)).head(1)
        group  train  tuning  test
    0  Peer 1     18       2     4
    """
    parts = zip(PARTS, (images.is_train, images.is_tuning, images.is_test), strict=True)
    counts = {
        part: np.bincount(images.groups[chosen], minlength=len(images.group_names)) for part, chosen in parts
    }
    return pd.DataFrame({"group": images.group_names, **counts})


def _shipped(study: Study, layer: Layer) -> _Shipped | None:
    for setting in layer.settings():
        if network := layer.find(setting, identified(study)):
            return _Shipped(network, layer.split(setting, network))
    return None


def _not_here(study: Study, layer: Layer) -> str:
    there = [
        setting
        for setting in layer.settings()
        if any(own.study["dataset"]["name"] == study.dataset.name for own in layer.networks(setting))
    ]
    how = (
        f"; or one that the book ships: -p setting={', -p setting='.join(there)}, with its own seeds"
        if there
        else ""
    )
    return (
        f"{study.name} takes images of {study.dataset.name}, and none were given; expected where your copy "
        f"lies, by -p root=PATH{how}."
    )


def _lacks(study: Study, names: Sequence[str], network: LayerNetwork) -> str:
    return (
        f"the book does not ship, of {study.name}, {', '.join(names)}; expected some of: "
        f"{', '.join(network.logits)}, or your copy of {study.dataset.name}, by -p root=PATH, of which all "
        "is made anew."
    )
