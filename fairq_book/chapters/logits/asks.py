"""What the chapter on logits and the boundary asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fairq_book.experiments.gather import Gathered, Request
from fairq_book.experiments.parameters import parameter
from fairq_book.experiments.studies import treatments, whole_numbers
from fairq_utils.treatments.treatment import FP32, Treatment

_REPAIRED = 3  # so many widths, the narrowest, are given new batch norm statistics


@dataclass(frozen=True, kw_only=True)
class Asks:
    """All widths, the narrowest with new batch norm statistics too, and controls that leave weights fine."""

    bit_widths: Sequence[int] = parameter((8, 6, 5, 4, 3, 2), "widths from 2 to 16 to round the weights to")
    controls: Sequence[str] = parameter(("fp16", "bf16"), "treatments that leave weights as fine as they are")
    activation_bits: Sequence[int] = parameter((8, 4), "widths to which inputs of layers are rounded, alone")

    def __call__(self, got: Gathered) -> dict[str, Request]:
        """The requests that can be named with what there is so far: all of them."""
        return {
            "rounded": Request(treatments=treatments(self.bit_widths)),
            "statistics": Request(treatments=treatments(self.bit_widths, "bn")[1:][-_REPAIRED:]),
            "controls": Request(treatments=[FP32, *self._fine]),
        }

    @property
    def _fine(self) -> list[Treatment]:
        """What leaves weights as fine as they are."""
        widths = whole_numbers("activation_bits", self.activation_bits, such_as=[8, 4])
        asked = [*map(Treatment.parse, self.controls), *(Treatment(activations=bits) for bits in widths)]
        return list(dict.fromkeys(asked))
