"""Where the book lies."""

from __future__ import annotations

from pathlib import Path

from fairq_utils.errors import BadInput


def book_root() -> Path:
    """The folder that holds _toc.yml: this one, or one above it, or the one this package lies in.

    >>> (book_root() / "_toc.yml").exists()
    True
    """
    for folder in (Path.cwd(), *Path.cwd().parents, Path(__file__).parents[1]):
        if (folder / "_toc.yml").exists() and (folder / "notebooks").is_dir():
            return folder
    raise BadInput(
        f"{Path.cwd()} is in no book; expected a folder with _toc.yml and notebooks: go to your clone of it."
    )
