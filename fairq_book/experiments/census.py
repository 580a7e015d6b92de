"""What the book keeps of a population of encoders: which ones, what they are asked, and the tables of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from fairq_book.experiments import populations
from fairq_book.experiments.populations import ClipStudy
from fairq_book.experiments.store import Store
from fairq_utils.encoders.captions import TRAINING_SETS
from fairq_utils.encoders.contrastive import ContrastiveRecipe
from fairq_utils.encoders.linear_layers import LINEAR_TREATMENTS
from fairq_utils.encoders.mini import SHAPES
from fairq_utils.encoders.questions import Answers
from fairq_utils.errors import BadInput
from fairq_utils.training import loop

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
        "devices": [loop.default_device().type],
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
