"""What the chapter on vision and language asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fairq_book.experiments import populations
from fairq_book.experiments.parameters import parameter
from fairq_book.experiments.populations import ClipStudy
from fairq_utils.encoders.captions import TRAINING_SETS
from fairq_utils.encoders.contrastive import ContrastiveRecipe
from fairq_utils.encoders.linear_layers import LINEAR_TREATMENTS, ORIGINAL
from fairq_utils.encoders.mini import SHAPES


@dataclass(frozen=True, kw_only=True)
class Asks:
    """A population of encoders, what rounds each of them, and what is counted of their answers."""

    images: int = parameter(3000, "to learn from, of each training set")
    archs: Sequence[str] = parameter(tuple(SHAPES), "shapes of the image side")
    training_sets: Sequence[str] = parameter(TRAINING_SETS, "what they are taught with")
    treatments: Sequence[str] = parameter(
        (), "such as bnb-nf4, torch-int8, or int2 to int16; empty for a choice of all"
    )
    prompts: Sequence[str] = parameter(
        (), "sentences with a gap, {}, for the name of a class; empty for the book's own"
    )
    ks: Sequence[int] = parameter((1, 5, 10), "retrieval: how many answers may be given")
    top: int = parameter(100, "ranking: how many of the closest images are looked at")

    def population(self, *, epochs: int, taught: str = "captions", **of_study: Any) -> list[ClipStudy]:
        """One study for each shape, training set and seed; `of_study` says what they share."""
        return populations.population(
            archs=self.archs,
            training_sets=self.training_sets,
            images=self.images,
            recipe=ContrastiveRecipe(epochs=epochs),
            taught=taught,
            **of_study,
        )

    @property
    def compared(self) -> list[str]:
        """The treatments, the original first, as all are compared with it."""
        return list(dict.fromkeys([ORIGINAL, *(self.treatments or LINEAR_TREATMENTS)]))
