"""Write a file or a folder whole or not at all, and say in a sentence what the operating system refuses."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from fairq_utils.errors import BadInput

_LONGEST = 200  # characters of a path in a sentence


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that whoever reads it, at any moment, finds the old content or the new one whole.

    >>> path = Path(tempfile.mkdtemp()) / "folder" / "file"
    >>> write_atomically(path, b"content")
    >>> path.read_bytes(), len(list(path.parent.iterdir()))
    (b'content', 1)
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with saying_what_cannot_be_written(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _write(part, content)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def saying_what_cannot_be_written(folder: Path) -> Iterator[None]:
    """Turn the operating system's refusal into one sentence."""
    try:
        yield
    except OSError as error:
        if error.strerror is None:  # not of the operating system: that of a lock which others hold, say
            raise
        raise _refusal(folder, error.strerror) from error


def _refusal(folder: Path, why: str) -> BadInput:
    name = str(folder)
    name = name if len(name) <= _LONGEST else f"{name[:_LONGEST]}…"
    return BadInput(
        f"{name} cannot be written ({why}); expected a folder with space that you may write to: name "
        "another, or, if it is the store's, set FAIRQ_STORE to one."
    )


def check_writable(folder: Path) -> None:
    """Refuse a folder in which nothing could be written, by trying, before there is anything to write.

    >>> check_writable(Path(tempfile.mkdtemp()) / "new" / "one")
    >>> check_writable(Path("/dev/null"))
    Traceback (most recent call last):
        ...
    fairq_utils.errors.BadInput: /dev/null cannot be written (Not a directory); expected a folder with space
    that you may write to: name another, or, if it is the store's, set FAIRQ_STORE to one.
    """
    place = _resolved(folder)
    with saying_what_cannot_be_written(folder):
        steps = [place, *place.parents]
        there = next(own for own in steps if own.exists())
        if any(own.is_symlink() for own in steps):  # from Python 3.13 on a circle is resolved, to itself
            raise _refusal(folder, "it leads in a circle")
        tempfile.TemporaryDirectory(dir=there).cleanup()


def _resolved(folder: Path) -> Path:
    try:
        return folder.resolve()
    except RuntimeError:
        raise _refusal(folder, "it leads in a circle") from None
    except ValueError as error:  # of a zero byte
        raise _refusal(folder, str(error)) from None


def replace_folder(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Make a folder hold these files and nothing else: whatever goes wrong, it is the old one or the new one.

    They are written beside it, and then renamed into its place, so a full disk leaves it as it was. A kill
    between the two renames leaves the old one beside its place, as `.NAME.PID.old`.

    >>> place = Path(tempfile.mkdtemp()) / "folder"
    >>> replace_folder(place, {"old": b""})
    >>> replace_folder(place, {"file": b"content"})
    >>> [path.name for path in place.iterdir()]
    ['file']
    """
    place = _resolved(folder)
    part, old = (place.with_name(f".{place.name}.{os.getpid()}.{end}") for end in ("part", "old"))
    with saying_what_cannot_be_written(folder):
        shutil.rmtree(part, ignore_errors=True)  # of a killed process that had the same number
        try:
            part.mkdir(parents=True)
            for name, content in contents.items():
                _write(part / name, content)
            if place.exists():
                shutil.rmtree(old, ignore_errors=True)
                shutil.copymode(place, part)
                place.rename(old)
            try:
                part.rename(place)
            except OSError:
                if old.exists():
                    old.rename(place)
                raise
        finally:
            shutil.rmtree(part, ignore_errors=True)
        if old.exists():
            shutil.rmtree(old)


def check_replaceable(folder: Path) -> None:
    """Refuse a folder that `replace_folder` could not replace, by trying, before its content is computed."""
    place = _resolved(folder)
    if place in (Path.cwd(), *Path.cwd().parents):
        raise BadInput(
            f"{place} is the folder that you work in, or holds it; expected a folder of its own, because it "
            f"is replaced as a whole: name another, such as {Path.cwd() / 'audit'}."
        )
    with saying_what_cannot_be_written(folder):
        is_mount = place.is_mount()
    if is_mount:
        raise BadInput(
            f"{place} is where a disk is mounted; expected a folder inside it, because it is replaced as a "
            f"whole: name another, such as {place / 'audit'}."
        )
    for own in (place.parent, place):
        check_writable(own)
