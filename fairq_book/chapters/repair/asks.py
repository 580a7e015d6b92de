"""What the chapter on what repairs it asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fairq_book.experiments.gather import Gathered, Request
from fairq_book.experiments.parameters import parameter
from fairq_book.experiments.studies import repair_arms, treatments, whole_numbers
from fairq_utils.curvature.surveys import Survey
from fairq_utils.treatments.treatment import Treatment


@dataclass(frozen=True, kw_only=True)
class Asks:
    """Eight arms and rounding alone at all widths; at the first of them further methods, and a closer look.

    All that is looked at closely has 8 bits in the first and the last layer, as the arms have.
    """

    bit_widths: Sequence[int] = parameter(
        (4, 3, 2), "widths from 2 to 16; the first is looked at most closely"
    )
    loss_weights: Sequence[int] = parameter(
        (40, 80), "of the smallest group in percent, beside the published 60"
    )
    samplings: Sequence[str] = parameter(
        ("sampled50", "oversampled"), "beside the published one; also undersampled"
    )
    images_per_group: int = parameter(64, "images of each group to measure the landscape on")
    images_each: int = parameter(200, "training images of each group, to compare with the test")

    def __call__(self, got: Gathered) -> dict[str, Request]:
        """The requests, which need nothing that was found before."""
        widths = whole_numbers("bit_widths", self.bit_widths, such_as=[4, 3, 2])
        first, arms = widths[:1], repair_arms(widths)
        swept = [*(f"weighted{percent}" for percent in self.loss_weights), *self.samplings]
        further = [_rounded(first, "ends8", "qat", word) for word in [*swept, "dro", "adjusted"]]
        # Plain rounding to 8 bits takes nothing, so training while rounded has nothing to bring back there.
        control = [] if 8 in widths else [_rounded([8]), _rounded([8], "qat")]
        flattened = [_rounded(first, *words) for words in (["ends8"], ["ends8", "qat"], ["fairqat"])]
        at_one_width = [*treatments(first, "ends8"), *repair_arms(first)]
        return {
            "rounded": Request(treatments=treatments(widths, "ends8")),
            "arms": Request(treatments=arms),
            "control": Request(treatments=control),
            "further": Request(treatments=[one for one in dict.fromkeys(further) if one not in arms]),
            "landscapes": Request(
                treatments=flattened, survey=Survey(images_per_group=self.images_per_group)
            ),
            "learned": Request(treatments=at_one_width, split="train", each=self.images_each),
            "tuning": Request(treatments=arms, split="tuning"),
        }


def _rounded(widths: Sequence[int], *options: str) -> Treatment:
    return treatments(widths, *options)[1]
