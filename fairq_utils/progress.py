"""Progress bars that are quiet when nobody watches."""

from __future__ import annotations

import os
import sys

from tqdm.std import tqdm


def progress(*, total: int, description: str, unit: str = "it") -> tqdm:
    """A progress bar with the time left, on a terminal and in a notebook.

    The environment variable FAIRQ_PROGRESS, 0 or 1, overrules.

    >>> with progress(total=2, description="two steps") as bar:
    ...     _ = bar.update(2)
    """
    watched = sys.stderr.isatty() or "ipykernel" in sys.modules
    shown = os.environ.get("FAIRQ_PROGRESS", str(int(watched))) == "1"
    return tqdm(
        total=total,
        desc=description,
        unit=unit,
        unit_scale=total >= 10_000,
        disable=not shown,
        leave=False,
        mininterval=0.5,
        file=sys.stderr,
    )
