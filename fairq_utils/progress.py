"""Progress bars that are quiet when nobody watches."""

from __future__ import annotations

import os
import sys
from typing import Protocol

from tqdm.std import tqdm


class Report(Protocol):
    """Is told how much more is done, and now and then how it stands."""

    def __call__(self, done: int, said: str = "") -> object:
        """`done`: how much more; `said`: a few words on how it stands."""


def reporting(bar: tqdm, name: str = "") -> Report:
    """A report that moves the bar, and shows what is said beside the name.

    >>> with progress(total=2, description="two steps") as bar:
    ...     reporting(bar)(1, "loss 0.5")
    """

    def report(done: int, said: str = "") -> None:
        bar.update(done)
        if said:
            bar.set_postfix_str(f"{name} {said}".strip())

    return report


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
