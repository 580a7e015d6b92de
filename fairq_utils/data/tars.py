"""Refuse a tar whose headers are huge, before anything reads it.

Before each file a tar may hold a header of notes, of any size, and `tarfile` reads it into memory whole: an
archive of three megabytes took four gigabytes so.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, cast

from fairq_utils.errors import BadInput

_UNREADABLE = (OSError, EOFError, ValueError, RuntimeError, zlib.error, lzma.LZMAError, tarfile.TarError)
_LONGEST = 2**20  # bytes of a header: the longest path that a system knows takes 4,096


def refuse_huge_headers(paths: Iterable[Path]) -> None:
    """Refuse any tar among the paths, or in a folder of them, that would fill the memory.

    What cannot be read, or is no tar, is left to those who read it: they say what is wrong with it.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "faces.tar"
    >>> with tarfile.open(path, "w", format=tarfile.PAX_FORMAT, pax_headers={"note": 2**21 * "a"}) as tar:
    ...     tar.addfile(tarfile.TarInfo("face.jpg"))
    >>> try:
    ...     refuse_huge_headers([path])
    ... except BadInput as error:
    ...     print(str(error).partition("faces.tar' ")[2])
    has a header of 2,097,664 bytes; expected at most 1,048,576: it was made to fill your memory, so do not
    use it.
    """
    for path in _tars(paths):
        try:
            with _unpacked(path) as file, tarfile.TarFile(fileobj=cast(IO[bytes], _Short(file, path))) as tar:
                tar.getmembers()
        except BadInput:
            raise
        except _UNREADABLE:
            continue


def _tars(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        files = [Path(folder, name) for folder, _, names in os.walk(path) for name in names]
        for file in files if path.is_dir() else [path]:
            if file.name.lower().endswith((".tar", ".tar.gz", ".tgz")) and file.is_file():
                yield file


def _unpacked(path: Path) -> IO[bytes]:
    """By what it begins with, as `tarfile` does, whatever it is called."""
    with path.open("rb") as file:
        begin = file.read(6)
    for sign, opened in ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\0", lzma.open)):
        if begin.startswith(sign):
            return cast(IO[bytes], opened(path))
    return path.open("rb")


class _Short:
    """A file of which `tarfile` reads headers, which are short; what lies between them it passes over."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._file, self._path = file, path
        self.seek, self.tell, self.close = file.seek, file.tell, file.close

    def read(self, size: int) -> bytes:
        if size > _LONGEST:
            raise BadInput(
                f"{str(self._path)!r} has a header of {size:,} bytes; expected at most {_LONGEST:,}: it was "
                "made to fill your memory, so do not use it."
            )
        return self._file.read(size)
