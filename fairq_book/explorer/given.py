"""What an explorer is made of: answers under treatments, and the images that were asked about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from fairq_utils.encoders.questions import EncoderOutputs
from fairq_utils.errors import BadInput
from fairq_utils.treatments.ablations import Ablation
from fairq_utils.treatments.treatment import Treatment


@dataclass(frozen=True, eq=False)
class Run:
    """What the networks say of the images under one treatment, or under the one that has this name.

    Logits of each seed, and the first network; `ranked`: further quantities, network by network; `tops`: what
    is to be said of each of those in numbers, by group.
    """

    treatment: Treatment | Ablation | str
    logits: Sequence[Tensor]
    network: nn.Module | None = None
    ranked: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    tops: Mapping[str, list[list[float | None]]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of the treatment."""
        return self.treatment if isinstance(self.treatment, str) else self.treatment.name


@dataclass(frozen=True, eq=False)
class Images:
    """What each network is asked about, and the groups that have some of it."""

    labels: Sequence[NDArray[np.int64]]
    groups: Sequence[NDArray[np.int64]]
    names: Sequence[str]

    @property
    def present(self) -> list[int]:
        """The places of the groups that have images, among all names."""
        return [int(code) for code in np.unique(np.concatenate(self.groups))]

    def answers(self, code: int) -> list[int]:
        """How many images of the group the first networks are asked about, of one, of two, and so on."""
        return np.cumsum([int((own == code).sum()) for own in self.groups]).tolist()

    def each(self, code: int) -> int:
        """How many images of the group one network is asked about, on average."""
        return round(self.answers(code)[-1] / len(self.groups))

    def of_first(self, networks: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Labels and groups of all that the first networks are asked about, network by network."""
        return np.concatenate(self.labels[:networks]), np.concatenate(self.groups[:networks])


def require_alike(found: Sequence[EncoderOutputs], models: Sequence[str], first: EncoderOutputs) -> None:
    """Refuse answers unless they are of these encoders, each once and in order, and asked as `first` was."""
    asked = ("logits", "to_text", "to_image", "queries")
    if (
        [one.model for one in found] != list(models)
        or len(set(models)) < len(models)
        or any(
            not one.attributes.equals(first.attributes)
            or [getattr(one, part) is None for part in asked]
            != [getattr(first, part) is None for part in asked]
            for one in found
        )
    ):
        raise BadInput(
            "the answers are of other encoders, images or questions under one treatment than under another, "
            "or an encoder is there twice; expected the same images throughout: pass what one call of "
            "`populations.answers` returns, of seeds of one draw or fold."
        )


def own_images(images: Tensor, labels: Any, groups: Any, names: Sequence[str] | None) -> Images:
    """What is asked about somebody's own images: of their groups names, or numbers that `names` names."""
    classes, codes = (
        given.cpu().numpy() if isinstance(given, Tensor) else np.asarray(given) for given in (labels, groups)
    )
    if not len(images) == len(classes) == len(codes) or not len(images):
        raise BadInput(
            f"{len(images)} images come with {len(classes)} labels and {len(codes)} groups; expected one of "
            "each for every image, and at least one image."
        )
    if names is None:
        known, codes = np.unique(codes, return_inverse=True)
        names = [str(name) for name in known]
    elif not np.issubdtype(codes.dtype, np.integer):
        places = {name: place for place, name in enumerate(names)}
        codes = np.array([places.get(name, -1) for name in codes.tolist()])
    if codes.min() < 0 or codes.max() >= len(names):
        raise BadInput(f"a group is not among the group_names {list(names)}; correct it or add its name.")
    return Images([classes], [codes.astype(np.int64)], names)
