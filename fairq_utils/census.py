"""What the book keeps of a population of encoders: which ones, what they are asked, and the tables of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from fairq_utils import populations, training
from fairq_utils.captions import TRAINING_SETS
from fairq_utils.errors import BadInput
from fairq_utils.linear_layers import LINEAR_TREATMENTS
from fairq_utils.populations import ClipStudy
from fairq_utils.questions import Answers
from fairq_utils.scenes import Scenes
from fairq_utils.store import Store
from fairq_utils.vision_language import SHAPES, ContrastiveRecipe

if TYPE_CHECKING:
    from distributed import Client


@dataclass(frozen=True, kw_only=True)
class Census:
    """A population at several seeds, taught by captions, and the same taught by labels beside it.

    `group`: whom to compare, and by whom the training sets are balanced or skewed. `top`: how many of the
    images that lie closest to a neutral query are looked at. The rest as for `populations.ClipStudy`.

    >>> census = Census(name="few", title="Few", seeds=[0], archs=["patch8"], training_sets=["balanced"])
    >>> [study.name for study in census.studies()]
    ['moths-patch8-balanced-seed0', 'moths-patch8-balanced-labels-seed0']
    """

    name: str
    title: str
    seeds: Sequence[int]
    training_sets: Sequence[str] = TRAINING_SETS
    archs: Sequence[str] = tuple(SHAPES)
    dataset: str = "moths"
    group: str = ""
    image_size: int = 32
    images: int = ClipStudy.images
    epochs: int = ContrastiveRecipe.epochs
    batch_size: int = ContrastiveRecipe.batch_size
    learning_rate: float = ContrastiveRecipe.learning_rate
    treatments: Sequence[str] = LINEAR_TREATMENTS
    top: int = 100

    def studies(self, *, root: str = "", seeds: Iterable[int] = ()) -> list[ClipStudy]:
        """The population at each of its seeds, or at these; `root` is where your copy of the images lies."""
        seeds = list(seeds) or list(self.seeds)
        if strangers := set(seeds) - set(self.seeds):
            raise BadInput(
                f"seeds are {sorted(strangers)}; expected some of those of {self.name}: {list(self.seeds)}."
            )
        return [
            study
            for seed in seeds  # stopped at any time, this leaves a whole population of few seeds
            for taught in ("captions", "labels")
            for study in populations.population(
                archs=self.archs,
                training_sets=self.training_sets,
                seeds=[seed],
                dataset=self.dataset,
                root=root if self.dataset != "moths" else "",
                image_size=self.image_size,
                group=self.group,
                images=self.images,
                taught=taught,
                recipe=ContrastiveRecipe(
                    epochs=self.epochs, batch_size=self.batch_size, learning_rate=self.learning_rate
                ),
            )
        ]


def made_of(chosen: Sequence[ClipStudy], *, store: Store | None = None) -> dict[str, object]:
    """The recipe, and the fingerprint of the images, for a record of the tables."""
    return {
        "recipe": asdict(chosen[0].recipe),
        "data_fingerprint": populations.scenes(chosen[0], store=store).fingerprint,
        "devices": [training.default_device().type],
    }


def everything(
    census: Census,
    chosen: Sequence[ClipStudy],
    *,
    store: Store | None = None,
    client: Client | None = None,
) -> list[Answers]:
    """All that the tables take, made when missing."""
    return populations.answers(chosen, census.treatments, store=store, client=client)


def tables_of(
    census: Census, chosen: Sequence[ClipStudy], *, store: Store | None = None
) -> dict[str, pd.DataFrame]:
    """Every table of the census, by name; what is missing is made."""
    given = everything(census, chosen, store=store)
    by_labels = {study.name for study in chosen if study.taught == "labels"}
    encoders = [one for one in given if one.model not in by_labels]
    classifiers = [one for one in given if one.model in by_labels]
    group = chosen[0].group
    measured = populations.measures(encoders, group, top=census.top)
    beside = populations.measures(classifiers, group)
    failed, failed_beside = populations.failures(encoders), populations.failures(classifiers)
    both = pd.concat([failed, failed_beside], ignore_index=True)
    by_query = populations.skews(encoders, group, top=census.top)
    return {
        "groups": _groups(populations.scenes(chosen[0], store=store), group),
        "accuracy_by_seed": accuracy_by_seed(given, chosen),
        "measures": measured,
        "failures": failed,
        "consistency": populations.consistency(measured, failed),
        "by_query": populations.consistency(by_query, failed),
        "lost_and_won": populations.lost_and_won(encoders, group),
        "classifier_failures": failed_beside,
        "classifier_consistency": populations.consistency(beside, failed_beside),
        "beyond_classifiers": populations.beyond_classifiers(measured, beside, both),
    }


def accuracy_by_seed(given: Sequence[Answers], chosen: Sequence[ClipStudy]) -> pd.DataFrame:
    """How many images of each group each model names right, and overall (OA)."""
    seeds, group = {study.name: study.seed for study in chosen}, chosen[0].group
    rows = []
    for one in given:
        (codes, names), right = one.codes(group), one.correct
        members = [(name, codes == place) for place, name in enumerate(names)]
        for name, member in [*members, ("OA", np.ones(len(codes), dtype=bool))]:
            count, hits = int(member.sum()), int((right & member).sum())
            rows.append((one.model, seeds[one.model], one.treatment, name, count, hits))
    return pd.DataFrame(rows, columns=["model", "seed", "treatment", "group", "n", "correct"])


def _groups(scenes: Scenes, group: str) -> pd.DataFrame:
    assert scenes.is_train is not None
    codes, names = scenes.codes(group), scenes.names(group)
    numbers = [
        torch.bincount(codes[part], minlength=len(names)).tolist()
        for part in (scenes.is_train, ~scenes.is_train)
    ]
    return pd.DataFrame({"group": names, "train": numbers[0], "test": numbers[1]})
