"""Write a file whole or not at all, and say in a sentence what the operating system refuses."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from fairq_utils.errors import BadInput


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that whoever reads it, at any moment, finds the old content or the new one whole.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "folder" / "file"
    >>> write_atomically(path, b"content")
    >>> path.read_bytes(), len(list(path.parent.iterdir()))
    (b'content', 1)
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with saying_what_cannot_be_written(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def saying_what_cannot_be_written(folder: Path) -> Iterator[None]:
    """Turn the operating system's refusal into one sentence."""
    try:
        yield
    except filelock.Timeout:  # an OSError, but none of the operating system's
        raise
    except OSError as error:
        raise BadInput(
            f"{folder} cannot be written ({error.strerror}); expected a folder with space that you may "
            "write to: name another, or, if it is the store's, set FAIRQ_STORE to one."
        ) from error
