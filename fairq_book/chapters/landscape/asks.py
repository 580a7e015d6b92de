"""What the chapter on the loss around a network asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fairq_book.experiments.gather import Gathered, Request
from fairq_book.experiments.parameters import parameter
from fairq_book.experiments.studies import treatments
from fairq_utils.curvature.surveys import Survey


@dataclass(frozen=True, kw_only=True)
class Asks:
    """The loss around networks in full precision, rounded, and trained while rounded to the fewest bits."""

    bit_widths: Sequence[int] = parameter((4, 3), "widths from 2 to 16 to round the weights to")
    norm_bit_widths: Sequence[int] = parameter(
        (2,), "further widths, at which only gradients and eigenvalues are looked at"
    )
    images_per_group: int = parameter(64, "images of each group to measure on; of all groups as many")
    split: Literal["train", "test"] = parameter("train", "of which images: train or test")
    tol: float = parameter(0.1, "how far from an eigenvalue its estimate may be, as a share of it")

    def __call__(self, got: Gathered) -> dict[str, Request]:
        """The requests, which need nothing that was found before."""
        rounded = treatments(self.bit_widths)
        every = [*rounded, *treatments(self.bit_widths, "qat")[-1:]]
        ends = [rounded[0], rounded[-1]]
        further = treatments(self.norm_bit_widths)[1:] if self.norm_bit_widths else []
        further = [one for one in further if one not in rounded]
        return {
            "treated": Request(treatments=[*every, *further]),
            "learned": Request(treatments=rounded, split="train"),
            "landscapes": Request(treatments=every, survey=self.survey),
            "norms": Request(treatments=further, survey=self.survey, look="around"),
            "spectra": Request(treatments=ends, survey=self.survey, density=True, networks=1),
        }

    @property
    def survey(self) -> Survey:
        """How the loss is looked at."""
        return Survey(images_per_group=self.images_per_group, split=self.split, tol=self.tol)
