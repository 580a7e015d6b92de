"""Drawing the default data set."""

import time
from collections.abc import Iterator
from dataclasses import replace

from benchmarks import scaled
from fairq_utils.data.moths import MothSettings, draw_moths


def cases(scale: float = 1.0) -> Iterator[dict]:
    usual = MothSettings()
    settings = replace(
        usual, train=scaled(usual.train, scale, least=20), test=scaled(usual.test, scale, least=20)
    )
    start = time.perf_counter()
    moths = draw_moths(settings)
    yield {
        "case": f"{len(moths.images):,} moths of 32 x 32 pixels",
        "measured": time.perf_counter() - start,
        "unit": "s",
        "limit": 10,
        "peer": "a stated limit",
        "note": "",
    }
