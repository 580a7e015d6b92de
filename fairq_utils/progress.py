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
    shown = os.environ.get("FAIRQ_PROGRESS", str(int(sys.stderr.isatty() or _in_notebook()))) == "1"
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


def _in_notebook() -> bool:
    """Whether this process is a kernel; having imported the library of kernels does not make it one."""
    kernels = sys.modules.get("ipykernel.kernelapp")
    return kernels is not None and kernels.IPKernelApp.initialized()
