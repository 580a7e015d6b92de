"""What the chapter on who pays asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fairq_book.chapters.disparity.tables import KINDS_OF_MOTHS
from fairq_book.experiments.gather import Gathered, Request
from fairq_book.experiments.parameters import parameter
from fairq_book.experiments.settings import studies_of
from fairq_book.experiments.studies import Study, studies, treatments
from fairq_utils.treatments.treatment import FP32, Treatment

#: Settings of the layer that are shown beside the moths of the page: more of the same networks, a wider one,
#: and Others as hard as two other calibrations made them. Their answers are shipped: nothing is trained.
BESIDE = ("moths_again", "moths_full_width", "moths_harder", "moths_easier")


def beside(got: Gathered) -> dict[str, Request]:
    """The requests of each of these: the plain widths at which groups are compared."""
    return {"rounded": Request(treatments=treatments([8, 6, 5, 4, 3]))}


@dataclass(frozen=True, kw_only=True)
class Asks:
    """All widths, and some of them on other grids; and of moths of four kinds, a few treatments."""

    bit_widths: Sequence[int] = parameter((8, 6, 5, 4, 3, 2), "widths from 2 to 16 to round the weights to")
    weight_range: Sequence[str] = parameter(
        ("mse", "channel", "mse-channel"), "other ways to choose the range"
    )
    grid_bit_widths: Sequence[int] = parameter((4, 3, 2), "widths at which they are compared")
    moth_seeds: Sequence[int] = parameter((), "seeds of the last section; empty for those that are shipped")
    moth_treatments: Sequence[str] = parameter(("int4", "int3-mse-channel"), "what is done to their networks")
    moth_train_images: int = parameter(2000, "images that they learn from; of what is shipped as many")

    def __call__(self, got: Gathered) -> dict[str, Request]:
        """The requests that can be named with what there is so far: all of them."""
        compared = [one for way in ("", *self.weight_range) for one in treatments(self.grid_bit_widths, way)]
        return {
            "rounded": Request(treatments=treatments(self.bit_widths)),
            "grids": Request(treatments=list(dict.fromkeys(compared))),
        }

    def moths(self, **parameters: Any) -> list[Study]:
        """The studies of moths of each kind: of the seeds that were given, with these further parameters.

        Without seeds they are those of the settings whose answers the book ships.
        """
        if not self.moth_seeds:
            return [study for kind in KINDS_OF_MOTHS for study in studies_of(kind.replace("-", "_"))]
        own: dict[str, Any] = {"seeds": self.moth_seeds, "train_images": self.moth_train_images}
        return [study for kind in KINDS_OF_MOTHS for study in studies(dataset=kind, **own, **parameters)]

    def of_moths(self, got: Gathered) -> dict[str, Request]:
        """The requests of the studies of moths."""
        chosen = [FP32, *(Treatment.parse(name) for name in self.moth_treatments)]
        return {"rounded": Request(treatments=list(dict.fromkeys(chosen)))}
