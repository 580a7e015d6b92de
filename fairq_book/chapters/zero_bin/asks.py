"""What the chapter on the zero bin asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fairq_book.chapters.zero_bin.tables import telling
from fairq_book.experiments.gather import Gathered, Request
from fairq_book.experiments.parameters import parameter
from fairq_book.experiments.studies import Study, treatments, whole_numbers
from fairq_utils.errors import BadInput
from fairq_utils.quantization.outliers import scale_outliers
from fairq_utils.training.architectures import build
from fairq_utils.treatments import ablations
from fairq_utils.treatments.treatment import FP32, Treatment


@dataclass(frozen=True, kw_only=True)
class Asks:
    """All widths, and one of them taken apart: on fewer images, and layer by layer on fewer networks too."""

    bit_widths: Sequence[int] = parameter((8, 6, 5, 4, 3, 2), "widths from 2 to 16 to round the weights to")
    width: int = parameter(
        0, "the width to take apart; 0 for the narrowest that leaves the networks standing"
    )
    layer: str = parameter("", "the layer whose weights are drawn; empty for the one with the most zeros")
    images_each: int = parameter(200, "test images of each group for the interventions")
    images_each_layer: int = parameter(75, "test images of each group where one layer at a time is touched")
    seeds_by_layer: int = parameter(3, "networks for that, the first ones")

    outliers: Sequence[int] = parameter((4,), "how many times as loud one channel of each layer is made")

    def __call__(self, got: Gathered) -> dict[str, Request]:
        """The requests that can be named with what there is so far."""
        found = {"rounded": Request(treatments=treatments(self.bit_widths))}
        if "rounded" in got:
            apart = self.taken_apart(got)
            tried = [*ablations.halves(apart), *ablations.controls(apart), *ablations.other_grids(apart)]
            study = got.studies[0]
            # The names of layers are those of any network of the architecture.
            network = build(study.arch, classes=2, image_size=study.dataset.image_size)
            found["tried"] = Request(treatments=[FP32, *tried], each=self.images_each)
            found["by_layer"] = Request(
                treatments=ablations.by_layer(apart, network),
                each=self.images_each_layer,
                networks=self.seeds_by_layer,
            )
            if louder := self._louder(study):
                few = self.seeds_by_layer
                found["two_grids"] = Request(treatments=louder, each=self.images_each, networks=few)
        return found

    def _louder(self, study: Study) -> list[Treatment]:
        """Networks with loud channels, and with steps as wide without them; none where no channel can be."""
        if not self.outliers:
            return []
        factors = whole_numbers("outliers", self.outliers, such_as=[4, 16])
        try:
            scale_outliers(build(study.arch, classes=2, image_size=study.dataset.image_size), 1)
        except BadInput:  # no convolution that only a batch norm follows
            return []
        words = ["", *(f"{word}{factor}" for factor in factors for word in ("scaled", "coarser"))]
        renewed = [treatments(self.bit_widths, *filter(None, ["bn", way]))[1:] for way in words]
        return [FP32, Treatment.parse("fp32-bn"), *(one for some in renewed for one in some)]

    def taken_apart(self, got: Gathered) -> Treatment:
        """The width that is taken apart."""
        return telling(got["rounded"], self.width)
