"""What is done to each network of the chapter: one list, by name."""

from __future__ import annotations

from fairq_utils.language.jobs.measure import FP32
from fairq_utils.language.treatments import LanguageTreatment as Of

WIDTHS = (8, 6, 5, 4, 3)  # two bits are measured as well, and answer nothing
REPAIRED = (Of(bits=4), Of(bits=3, channel=True))

_ALL = [
    FP32,
    *(Of(bits=bits) for bits in (*WIDTHS, 2)),
    *(Of(bits=bits, channel=True) for bits in (4, 3)),
    Of(bits=4, clip="mse"),
    Of(bits=4, clip="percentile"),
    Of(bits=3, clip="mse"),
    Of(bits=4, clip="mse", only="clipped"),
    Of(bits=4, clip="mse", only="unclipped"),
    Of(bits=3, only="zeros"),
    Of(bits=3, only="nonzeros"),
    Of(bits=4, where="inside"),
    Of(bits=4, where="ends"),
    Of(activations=8),
    Of(activations=4),
    Of(bits=4, scaled=4),
    Of(activations=4, scaled=4),
    Of(bits=4, temperature=True),
    Of(bits=3, temperature=True),
    Of(training="tuned"),
    Of(training="tuned", weighted=True),
    Of(training="tuned", sampled=True),
    Of(bits=4, training="tuned"),
    Of(bits=4, training="tuned", weighted=True),
    Of(bits=4, training="tuned", sampled=True),
    Of(bits=4, training="qat"),
    Of(bits=4, training="qat", weighted=True, sampled=True),
    Of(bits=3, channel=True, training="tuned"),
    Of(bits=3, channel=True, training="qat"),
    Of(bits=3, channel=True, training="qat", weighted=True, sampled=True),
]
TREATMENTS = {one.name: one for one in _ALL}
SURVEYED = tuple(TREATMENTS[name] for name in ("fp32", "int4", "int3-channel"))
