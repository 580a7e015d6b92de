"""What a chapter asks for, gathered: predictions and landscapes of the networks that it studies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from fairq_book.experiments import studies
from fairq_book.experiments.store import Store
from fairq_book.experiments.studies import Landscape, Prediction, Spectrum, Study
from fairq_utils.curvature.surveys import Survey
from fairq_utils.data.datasets import PARTS, Dataset
from fairq_utils.errors import BadInput
from fairq_utils.treatments.ablations import Ablation
from fairq_utils.treatments.treatment import FP32, Treatment


@dataclass(frozen=True, kw_only=True)
class Request:
    """Predictions of these treatments, or with a `survey` the loss around the networks that they make.

    With a survey and `density` it is the spectral densities there, of the largest and the smallest group.
    `each`: of at most so many images of each group; 0 for all. `networks`: of so many networks, the first
    ones; 0 for all.
    """

    treatments: Sequence[Treatment | Ablation]
    each: int = 0
    split: str = "test"
    networks: int = 0
    survey: Survey | None = None
    density: bool = False


@dataclass(frozen=True, eq=False)
class Gathered(Mapping[str, Any]):
    """What was asked for, by the name that it was asked under, and what is known of the images."""

    studies: Sequence[Study]
    store: Store | None = None
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
        images = self.images
        numbers = {
            part: np.bincount(images.groups[chosen], minlength=len(images.group_names))
            for part, chosen in zip(PARTS, (images.is_train, images.is_tuning, images.is_test), strict=True)
        }
        return pd.DataFrame({"group": images.group_names, **numbers})

    @property
    def smallest(self) -> str:
        """The group with the fewest training images, among those that have test images."""
        tested = self.sizes[self.sizes["test"] > 0]
        return str(tested["group"][tested["train"].idxmin()])

    @property
    def majority(self) -> str | None:
        """The group with the most training images; where all have as many, there is no majority."""
        sizes = self.sizes.set_index("group")["train"]
        return None if sizes.min() == sizes.max() else str(sizes.idxmax())

    def treatments(self, name: str) -> list[Any]:
        """What was done to the networks behind the predictions of that name, in the order of the request."""
        return list(dict.fromkeys(prediction.treatment for prediction in self[name]))

    def networks(
        self, treatments: Sequence[Treatment | Ablation] = (FP32,), *, first: int = 0
    ) -> list[nn.Module]:
        """The treated networks themselves, study by study, or those of so many, the first ones."""
        return studies.networks(self.studies[: first or None], treatments, store=self.store)


Asks = Callable[[Gathered], dict[str, Request]]


def gather(chosen: Sequence[Study], asks: Asks, *, store: Store | None = None) -> Gathered:
    """All that a chapter asks for of these studies: read, or made when missing.

    `asks` is called with what there is so far, and says all that it can name: what to take apart may depend
    on what rounding left standing. It is done when it names nothing new.
    """
    got = Gathered(chosen, store)
    while missing := {name: request for name, request in asks(got).items() if name not in got}:
        for name, request in missing.items():
            of = chosen[: request.networks or None]
            got.found[name] = (
                _landscapes(of, request, store) if request.survey else _predictions(of, request, store)
            )
    return got


def _predictions(chosen: Sequence[Study], request: Request, store: Store | None) -> list[Prediction]:
    return studies.predictions(
        chosen, request.treatments, each=request.each, split=request.split, store=store
    )


def _landscapes(
    chosen: Sequence[Study], request: Request, store: Store | None
) -> list[Landscape] | list[Spectrum]:
    treatments = [treatment for treatment in request.treatments if isinstance(treatment, Treatment)]
    look = studies.spectra if request.density else studies.landscapes
    return look(chosen, treatments, request.survey, store=store)
