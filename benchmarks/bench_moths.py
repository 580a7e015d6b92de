"""Drawing the default data set."""

import time
from collections.abc import Iterator

from fairq_utils.moths import MothSettings, draw_moths


def cases() -> Iterator[dict]:
    start = time.perf_counter()
    moths = draw_moths(MothSettings())
    yield {
        "case": f"{len(moths.images):,} moths of 32 x 32 pixels",
        "measured": time.perf_counter() - start,
        "unit": "s",
        "limit": 10,
        "peer": "a stated limit",
        "note": "",
    }
