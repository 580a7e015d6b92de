"""Time the book as a whole, from a clean clone: `python -m benchmarks.book`, in half an hour of its own.

It leaves the table in benchmarks/BOOK.md, with the machine and the date. What is committed is what is timed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import report

ROOT = Path(__file__).parents[1]
# Packages that torch brings, by the folders that they install.
_OF_TORCH = (
    "torch",
    "torchvision",
    "nvidia",
    "triton",
    "sympy",
    "functorch",
    "networkx",
    "mpmath",
    "torchgen",
)


def seconds(clone: Path, *command: str) -> float:
    """How long a command takes in the clone, with a store of its own."""
    own = os.environ | {"FAIRQ_STORE": str(clone / "_build" / "store")}
    start = time.perf_counter()
    done = subprocess.run(command, cwd=clone, env=own, capture_output=True, text=True, check=False)
    if done.returncode:
        said = f"{done.stdout[-2000:]}{done.stderr[-4000:]}"
        sys.exit(f"{' '.join(command)} failed with {done.returncode}:\n{said}")
    return time.perf_counter() - start


def megabytes(folder: Path, without: set[str] | None = None) -> float:
    """What a folder takes on the disk, each file once however many names it has."""
    sizes = {}
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            parts = path.relative_to(folder).parts
            if not without or not any(part.split("-")[0] in without for part in parts):
                sizes[path.stat().st_ino] = path.stat().st_blocks * 512
    return sum(sizes.values()) / 1e6


def cases(clone: Path) -> Iterator[dict]:
    """The rows, each when it has been measured."""

    def row(case: str, measured: float, unit: str, limit: float) -> dict:
        return {"case": case, "measured": measured, "unit": unit, "limit": limit, "peer": "", "note": ""}

    book = ("make", "book")
    yield row("`make book` from a clean clone, installation included", seconds(clone, *book) / 60, "min", 8.7)
    yield row("the store after it", megabytes(clone / "_build" / "store"), "MB", 800)
    yield row(
        "the environment beyond torch and its libraries", megabytes(clone / ".venv", _OF_TORCH), "MB", 1200
    )
    yield row("the same, nothing changed", seconds(clone, *book), "s", 10)
    run = (str(clone / ".venv" / "bin" / "fairq"), "run", "01", "-p", "bit_widths=[7]", "-p")
    seeds = f"seeds={list(range(20))}"
    width = seconds(clone, *run, seeds, "-p", "test_images=3000", "-p", "grid_bit_widths=[4, 3]")
    yield row("chapter 1 for a new width, networks present", width, "s", 10)
    # as the tests are run by others: the environment for them is not yet there
    yield row("`make test` from there", seconds(clone, "make", "test") / 60, "min", 12)


def main() -> None:
    """Clone what is committed, measure, and write the table, anew after each row."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        for row in cases(clone):
            rows.append(row)
            print(f"{row['case']:<60} {report.measured(row):>12}  at most {row['limit']}", flush=True)
            page = report.as_markdown(rows, title="The book as a whole", made_by="python -m benchmarks.book")
            (ROOT / "benchmarks" / "BOOK.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
