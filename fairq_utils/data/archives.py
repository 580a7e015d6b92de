"""Images out of folders, zips and tars, without trusting what lies there and without unpacking it.

Nothing is written to disk and no path inside an archive is ever followed. Images are read one after
another in the order in which they are stored, and only a handful is held at a time.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import struct
import tarfile
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from fairq_utils.errors import BadInput
from fairq_utils.progress import progress

# A photograph is smaller; what is larger was made to fill the memory.
_MOST_BYTES = 64 * 2**20
_MOST_PIXELS = 64 * 10**6

_TARS = (".tar", ".tar.gz", ".tgz")
_ARCHIVES = (".zip", *_TARS)
_OUTSIDE = re.compile(r"[/\\]|[A-Za-z]:|(.*[/\\])?\.\.([/\\]|$)", re.DOTALL)
_LEFTOVER = re.compile(r"(^|/)(__MACOSX/|\._|\.DS_Store$)")
_UNREADABLE = (
    OSError,
    EOFError,
    RuntimeError,  # a zip with a password, or packed in a way that Python does not know
    ValueError,  # names and numbers that make no sense
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
    tarfile.TarError,
)
_DEPTHS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")


@dataclass(frozen=True, kw_only=True)
class Member:
    """A file in a folder or in an archive, which is its `source`.

    `name` is its path inside the source, with forward slashes. `place` is its number in an archive.
    `stamp` changes when the content does: the CRC in a zip, the time of change in a folder, 0 in a tar.
    """

    source: Path
    name: str
    size: int
    place: int = 0
    stamp: int = 0


# ---------------------------------------------------------------- what is there


def find_members(paths: Iterable[Path], wanted: Callable[[str], bool]) -> list[Member]:
    """The files whose name is wanted, in the given folders and archives and in the archives in the folders.

    A folder is searched with all its folders. What macOS leaves behind (`__MACOSX/`, `._x`, `.DS_Store`) is
    passed over. An archive that holds nothing wanted belongs to somebody else and is passed over too; one
    that does is refused if any of its names leads out of it: such an archive was made to do harm.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "one.txt").write_text("1")
    ...     [member.name for member in find_members([Path(folder)], lambda name: name.endswith(".txt"))]
    ['one.txt']
    >>> find_members([Path("nowhere")], bool)
    Traceback (most recent call last):
        ...
    fairq_utils.errors.BadInput: There is nothing at 'nowhere'; expected a folder, or a .zip, .tar, .tar.gz
    or .tgz: correct the path.
    """
    members = []
    for source in _sources(paths):
        members += _in_folder(source, wanted) if source.is_dir() else _in_archive(source, wanted)
    return members


def pick_members(folder: Path, names: Iterable[str]) -> list[Member]:
    """The named files of a folder, in the order given; a name that leads out of the folder is refused.

    >>> pick_members(Path("faces"), ["../other/face.jpg"])
    Traceback (most recent call last):
        ...
    fairq_utils.errors.BadInput: '../other/face.jpg' leads out of 'faces'; expected paths inside it, without
    '..' and not absolute.
    """
    members = []
    for name in names:
        _refuse_outside(name, folder)
        path = folder / name
        if not path.is_file():
            raise BadInput(
                f"{name!r} is not in {str(folder)!r}; expected the path of an image: put it there or strike "
                "it from the list."
            )
        members.append(_on_disk(folder, name))
    return members


def state_of_members(paths: Iterable[Path], wanted: Callable[[str], bool]) -> str:
    """A digest that changes when what `find_members` would find does, computed without reading the images.

    It covers names, sizes and times of change in a folder, names, sizes and CRCs in a zip, and the bytes of
    a tar. It does not cover where all that lies, so moving a folder leaves it alone.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     empty = state_of_members([Path(folder)], bool)
    ...     _ = Path(folder, "one.txt").write_text("1")
    ...     state_of_members([Path(folder)], bool) == empty
    False
    """
    digest = hashlib.sha256()
    for source in _sources(paths):
        if source.name.lower().endswith(_TARS):
            with _explained(source), source.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        else:
            found = _in_folder(source, wanted) if source.is_dir() else _in_archive(source, wanted)
            for member in sorted(found, key=lambda member: (member.name, member.place)):
                digest.update(repr((member.name, member.size, member.stamp)).encode())
    return digest.hexdigest()


def _sources(paths: Iterable[Path]) -> Iterator[Path]:
    """Each folder and each archive, those in the folders included."""
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            found[path] = None
            inside = (path / name for name in _walk(path) if name.lower().endswith(_ARCHIVES))
            found.update(dict.fromkeys(inside))
        elif path.exists() and path.name.lower().endswith(_ARCHIVES):
            found[path] = None
        else:
            what = f"{str(path)!r} is no archive" if path.exists() else f"There is nothing at {str(path)!r}"
            raise BadInput(f"{what}; expected a folder, or a .zip, .tar, .tar.gz or .tgz: correct the path.")
    return iter(found)


def _walk(folder: Path) -> Iterator[str]:
    """Paths of all files below the folder, relative to it."""

    def refuse(error: OSError) -> None:
        raise BadInput(
            f"{str(error.filename)!r} cannot be read ({error.strerror}); expected a folder that you may "
            "read: change its permissions."
        )

    for place, folders, names in os.walk(folder, onerror=refuse):
        folders.sort()
        below = Path(place).relative_to(folder).as_posix()
        prefix = "" if below == "." else f"{below}/"
        for name in sorted(names):
            if not _LEFTOVER.search(prefix + name):
                yield prefix + name


def _on_disk(folder: Path, name: str) -> Member:
    with _explained(folder / name):
        found = (folder / name).stat()
    return Member(source=folder, name=name, size=found.st_size, stamp=found.st_mtime_ns)


def _in_folder(folder: Path, wanted: Callable[[str], bool]) -> list[Member]:
    return [_on_disk(folder, name) for name in _walk(folder) if wanted(name)]


def _in_archive(path: Path, wanted: Callable[[str], bool]) -> list[Member]:
    found, all_names = [], []
    for member, _ in _members(path):
        all_names.append(member.name)
        if not _LEFTOVER.search(member.name) and wanted(member.name):
            found.append(member)
    if found:
        for name in all_names:
            _refuse_outside(name, path)
    return found


def _members(path: Path) -> Iterator[tuple[Member, Callable[[], bytes]]]:
    """All files of an archive in the order in which they are stored, each with a function that reads it."""
    with _explained(path):
        if path.name.lower().endswith(".zip"):
            with zipfile.ZipFile(path) as archive:
                for place, item in enumerate(archive.infolist()):
                    if "\0" in item.orig_filename:  # behind which zipfile would drop the rest
                        raise zipfile.BadZipFile(f"the name {item.orig_filename!r} holds a zero byte")
                    if not item.filename.endswith("/"):
                        member = Member(
                            source=path, name=item.filename, size=item.file_size, place=place, stamp=item.CRC
                        )
                        yield member, lambda item=item: archive.read(item)  # type: ignore[misc]
        else:
            with tarfile.open(path) as tar:
                for place, entry in enumerate(tar):
                    if not entry.isdir():
                        member = Member(source=path, name=entry.name, size=entry.size, place=place)
                        yield member, lambda entry=entry: _from_tar(tar, entry)  # type: ignore[misc]
                _refuse_cut_short(tar)


def _from_tar(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(entry) if entry.isreg() else None
    if file is None:
        raise tarfile.ReadError(f"{entry.name!r} is a link")
    content = file.read()
    if len(content) < entry.size:
        raise tarfile.ReadError("unexpected end of data")
    return content


def _refuse_cut_short(tar: tarfile.TarFile) -> None:
    """A tar ends with zeros, which `tarfile` does not ask for; at the end of a gzip stands its checksum."""
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("unexpected end of data")
    while tar.fileobj.read(2**20):
        pass


def _refuse_outside(name: str, source: Path) -> None:
    if _OUTSIDE.match(name):
        raise BadInput(
            f"{name!r} leads out of {str(source)!r}; expected paths inside it, without '..' and not absolute."
        )


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except _UNREADABLE as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise BadInput(
            f"{str(path)!r} cannot be read ({why}); expected a whole file without a password: "
            "fetch or make it again."
        ) from None


# ---------------------------------------------------------------- what it holds


def content_digests(members: Sequence[Member]) -> list[str]:
    """The SHA-256 of the bytes of each file: equal for copies, whatever they are called.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name, content in (("a", "x"), ("b", "x"), ("c", "y")):
    ...         _ = Path(folder, name).write_text(content)
    ...     first, second, third = content_digests(find_members([Path(folder)], bool))
    >>> first == second, first == third
    (True, False)
    """
    found = [""] * len(members)
    with progress(total=len(members), description="comparing", unit="image") as bar:
        for row, content in _contents(members):
            found[row] = hashlib.sha256(content).hexdigest()
            bar.update()
    return found


def decode_images(members: Sequence[Member], *, image_size: int, upright: bool = False) -> Tensor:
    """The images as uint8 of shape N x 3 x `image_size` x `image_size`, in the order of the members.

    Each is turned into red, green and blue, cropped to the square in its middle and shrunk with
    antialiasing; transparency is dropped. With `upright` a photograph is turned the way its camera was held
    (EXIF orientation). Should one file be no image, be cut short or be unreasonably large, all are refused.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("RGB", (40, 30), (255, 0, 0)).save(Path(folder, "red.png"))
    ...     images = decode_images(find_members([Path(folder)], bool), image_size=16)
    >>> images.shape, images[0, :, 8, 8].tolist()
    (torch.Size([1, 3, 16, 16]), [255, 0, 0])
    """
    images = torch.empty((len(members), 3, image_size, image_size), dtype=torch.uint8)
    pixels = images.numpy()

    def put(row: int, content: bytes) -> None:
        pixels[row] = _pixels(content, members[row], image_size, upright)

    threads = os.cpu_count() or 1
    waiting: deque[Future[None]] = deque()
    with (
        progress(total=len(members), description="decoding", unit="image") as bar,
        ThreadPoolExecutor(threads) as pool,
    ):
        for row, content in _contents(members):
            waiting.append(pool.submit(put, row, content))
            if len(waiting) > 4 * threads:  # the reader must not run far ahead of the decoders
                waiting.popleft().result()
                bar.update()
        for last in waiting:
            last.result()
            bar.update()
    return images


def _contents(members: Sequence[Member]) -> Iterator[tuple[int, bytes]]:
    """The bytes of each member with its row, source by source, as they are stored."""
    by_source: dict[Path, dict[tuple[int, str], list[int]]] = {}
    for row, member in enumerate(members):
        if member.size > _MOST_BYTES:
            raise BadInput(
                f"{member.name!r} in {str(member.source)!r} has {member.size:,} bytes; expected an image of "
                f"at most {_MOST_BYTES:,}: remove it or make it smaller."
            )
        by_source.setdefault(member.source, {}).setdefault((member.place, member.name), []).append(row)
    for source, rows in by_source.items():
        if source.is_dir():
            for (_, name), same in rows.items():
                with _explained(source / name):
                    content = (source / name).read_bytes()
                for row in same:
                    yield row, content
        else:
            for member, read in _members(source):
                same = rows.pop((member.place, member.name), [])
                if same:
                    with _explained(source):
                        content = read()
                    for row in same:
                        yield row, content
            if rows:
                raise BadInput(
                    f"{str(source)!r} changed while it was read; expected it to stay as it is: start again."
                )


def _pixels(content: bytes, member: Member, size: int, upright: bool) -> NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG", "PNG", "WEBP", "BMP")) as image:
            if image.width * image.height > _MOST_PIXELS:
                raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels are too many")
            if image.mode not in _DEPTHS:
                raise OSError(f"pixels of type {image.mode} have no 8 bits")
            if upright:
                ImageOps.exif_transpose(image, in_place=True)
            whole = image.convert("RGBA") if image.mode in ("P", "PA") else image
            square = ImageOps.fit(whole.convert("RGB"), (size, size), Image.Resampling.BILINEAR)
    # Pillow raises nearly every kind of exception at bytes that are no image.
    except Exception as error:
        why = (
            " ".join(str(error).split())
            if not isinstance(error, Image.UnidentifiedImageError)
            else "no image"
        )
        raise BadInput(
            f"{member.name!r} in {str(member.source)!r} cannot be shown ({why}); expected a whole JPEG, PNG, "
            "WebP or BMP: replace it or remove it."
        ) from None
    return np.asarray(square).transpose(2, 0, 1)
