"""Keep what was expensive to make, under a name that says everything that decided it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import safetensors
import safetensors.torch

from fairq_utils.errors import BadInput
from fairq_utils.files import saying_what_cannot_be_written, write_atomically
from fairq_utils.items import Item, canonical

# The folders of a store. What lies in any other is somebody else's, and stays.
KINDS = ("datasets", "networks", "predictions", "landscapes", "checkpoints", "encoders", "answers")
# By this file a folder is known to be a store, in which may be deleted what the store wrote.
MARKER = "fairq-store.txt"
_MARK = (
    "Networks, predictions and other things that took long to make. `fairq status` says what is here, and\n"
    "`fairq prune` removes what is out of date; by this file it knows that the folder is the store's.\n"
)
# How the store calls its files: an item, one that was set aside, and one that is being written.
_OWN = re.compile(
    r"(?P<item>[^./][^/]*-[0-9a-f]{16})\.(safetensors|damaged-\d+)"
    r"|\.(?P<half>[^./][^/]*-[0-9a-f]{16})\.safetensors(\.\d+)?\.part"
)


def default_root() -> Path:
    """Where the store is: the folder FAIRQ_STORE names, else the user's cache folder.

    >>> default_root().is_absolute()
    True
    """
    if chosen := os.environ.get("FAIRQ_STORE"):
        try:
            return Path(chosen).expanduser().absolute()
        except RuntimeError as error:
            raise BadInput(f"FAIRQ_STORE is {chosen!r}; expected the path of a folder ({error}).") from error
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "fairq"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "fairq"


@dataclass(frozen=True)
class Entry:
    """What lies in the store's folder: by place, name and content the store's `own`, or somebody else's.

    A file of the store's without an identity is damaged, or was left by a process that was killed.
    """

    path: Path
    kind: str
    nbytes: int
    identity: dict[str, Any] | None
    own: bool = True


def _header(path: Path) -> dict[str, Any]:
    with safetensors.safe_open(path, framework="pt") as file:
        return json.loads((file.metadata() or {})["fairq"])


def _entry(path: Path) -> Entry:
    """What a file of a store's folder is, judged by its name and its header."""
    about = path.lstat()
    identity, own = None, stat.S_ISREG(about.st_mode)
    if path.parent.name == "locks":
        own &= path.suffix == ".lock"
    else:
        own &= bool(_OWN.fullmatch(path.name))
        if own and path.suffix == ".safetensors":
            try:
                header = _header(path)
                identity = header.get("identity") if isinstance(header, dict) else None
                own = isinstance(identity, dict)
            except (OSError, KeyError, RecursionError):
                own = False  # it cannot be read, or it is whole and of somebody else
            except (safetensors.SafetensorError, ValueError):
                pass  # the store's by its name, but damaged
    return Entry(path, path.parent.name, about.st_size, identity if own else None, own)


class Store:
    """A folder of items, each under a digest of its identity.

    `get_or_make` is all that is needed: what is there is read, what is missing is made. The identity is
    plain JSON and holds everything that decides the content: settings, seeds, code, versions. A file is
    written beside its place and renamed into it, so a kill at any moment leaves the old state or the new
    one. A file that does not hold what was once written is set aside and made again.

    Whoever names a folder as the store may have other things in it. So only what the store wrote is ever
    removed, by place, name and content, and only where the store began in an empty folder or was adopted.

    >>> import tempfile, torch
    >>> store = Store(Path(tempfile.mkdtemp()))
    >>> make = lambda: print("making") or Item({"x": torch.arange(3)})
    >>> store.get_or_make("datasets", {"name": "three"}, make).tensors["x"]
    making
    tensor([0, 1, 2])
    >>> store.get_or_make("datasets", {"name": "three"}, make).tensors["x"]
    tensor([0, 1, 2])
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or default_root()
        self.written: Counter[str] = Counter()  # of each kind, by this object

    def path(self, kind: str, identity: dict[str, Any]) -> Path:
        """The file of the item with this identity, whether it exists or not."""
        if kind not in KINDS:
            raise BadInput(f"kind is {kind!r}; expected one of: {', '.join(KINDS)}.")
        digest = hashlib.sha256(canonical(identity).encode()).hexdigest()
        name = f"{identity['name']}-{digest[:16]}.safetensors"
        if not _OWN.fullmatch(name):
            raise BadInput(
                f"name is {identity['name']!r}; expected one that a file can have, without a slash or "
                "a dot in front."
            )
        return self.root / kind / name

    def get_or_make(self, kind: str, identity: dict[str, Any], make: Callable[[], Item]) -> Item:
        """Read the item, or make it, keep it and return it; of two processes at once, one makes it."""
        if item := self.find(kind, identity):
            return item
        with self.lock(kind, identity):
            if item := self.find(kind, identity):
                return item
            item = make()
            self.keep(kind, identity, item)
            return item

    def find(self, kind: str, identity: dict[str, Any]) -> Item | None:
        """The item, if it is here and whole; one that is not whole is set aside."""
        return self._read(self.path(kind, identity), identity)

    def keep(self, kind: str, identity: dict[str, Any], item: Item) -> None:
        """Write the item, whole or not at all. Hold its lock meanwhile."""
        self._write(self.path(kind, identity), identity, item)

    @contextmanager
    def lock(self, kind: str, identity: dict[str, Any]) -> Iterator[None]:
        """Wait until no other process makes the item, and keep others from it."""
        lock = self._locked(kind, identity, timeout=-1)
        try:
            yield
        finally:
            lock.release()

    def try_lock(self, kind: str, identity: dict[str, Any]) -> filelock.BaseFileLock | None:
        """The lock, held and to be released; None if another process holds it."""
        try:
            return self._locked(kind, identity, timeout=0)
        except filelock.Timeout:
            return None

    @property
    def marked(self) -> bool:
        """Whether the folder says of itself that it is a store."""
        with suppress(OSError):
            return stat.S_ISREG((self.root / MARKER).lstat().st_mode)
        return False

    def adopt(self) -> None:
        """Mark the folder as a store, so that what the store wrote there may be removed."""
        # That the file exists is what counts, so it may be found half written, and by two who begin at once.
        with (
            saying_what_cannot_be_written(self.root),
            suppress(FileExistsError),
            (self.root / MARKER).open("x", encoding="utf-8") as marker,
        ):
            marker.write(_MARK)

    def refuse_to_remove_unmarked(self) -> None:
        """Say how a folder without the mark becomes one in which something may be removed."""
        if not self.marked:
            raise BadInput(
                f"{self.root} has no {MARKER}, by which a store is known, so nothing is removed; expected a "
                "folder that was empty when fairq began to write there: if it is your store, only older than "
                "this mark, see by `fairq prune --adopt --dry-run` what would go and what would stay, then "
                "adopt it by `fairq prune --adopt`."
            )

    def entries(self) -> Iterator[Entry]:
        """Everything that lies in the store, kind by kind. Headers are read; no link is followed."""
        try:
            kinds = sorted(self.root.iterdir())
        except FileNotFoundError:
            return
        except OSError as error:
            raise BadInput(
                f"{self.root} cannot be read ({error.strerror}); expected a folder, which FAIRQ_STORE names."
            ) from error
        for folder in kinds:
            if folder.name == MARKER and self.marked:
                continue
            files = None
            with suppress(OSError):
                if folder.name in (*KINDS, "locks") and not folder.is_symlink():
                    files = sorted(folder.iterdir())
            if files is None:
                yield Entry(folder, "", 0, None, own=False)
            for path in files or []:
                try:
                    entry = _entry(path)
                except FileNotFoundError:  # another process removed it meanwhile
                    continue
                except OSError:
                    entry = Entry(path, folder.name, 0, None, own=False)
                if not (entry.own and entry.kind == "locks"):
                    yield entry

    def remove(self, entry: Entry) -> bool:
        """Delete a file of the store, unless some process is at it; whether that was done."""
        self.refuse_to_remove_unmarked()
        name = _OWN.fullmatch(entry.path.name)
        if not entry.own or not name:
            raise BadInput(f"{entry.path} is not the store's; expected a file that the store wrote.")
        # A half-written file, or one set aside, is called after the item, whose lock the writer holds.
        lock = filelock.FileLock(self._lock_path(Path(f"{name['item'] or name['half']}.safetensors")))
        with (
            saying_what_cannot_be_written(self.root),
            suppress(filelock.Timeout),
            lock.acquire(blocking=False),
        ):
            entry.path.unlink(missing_ok=True)
            return True
        return False

    def _lock_path(self, path: Path) -> Path:
        return self.root / "locks" / f"{path.name}.lock"

    def _read(self, path: Path, identity: dict[str, Any]) -> Item | None:
        if not path.exists():
            return None
        try:
            header = _header(path)
            with safetensors.safe_open(path, framework="pt") as file:
                item = Item({name: file.get_tensor(name) for name in file.keys()}, header["info"])  # noqa: SIM118
            intact = header["digest"] == item.digest and canonical(header["identity"]) == canonical(identity)
        except (safetensors.SafetensorError, KeyError, ValueError, OSError):
            intact = False
        if intact:
            return item
        aside = path.with_suffix(f".damaged-{time.time_ns()}")
        with saying_what_cannot_be_written(self.root):
            path.rename(aside)
        warnings.warn(f"{path} was damaged: it is set aside as {aside.name} and made again.", stacklevel=3)
        return None

    def _write(self, path: Path, identity: dict[str, Any], item: Item) -> None:
        # One entry, because safetensors writes several in any order: equal items should be equal files.
        header = {"fairq": canonical({"identity": identity, "info": item.info, "digest": item.digest})}
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in item.tensors.items()}
        with saying_what_cannot_be_written(self.root):
            self._begin()
        for leftover in path.parent.glob(f".{path.name}.*"):  # of a process killed while it wrote
            leftover.unlink(missing_ok=True)
        write_atomically(path, safetensors.torch.save(tensors, metadata=header))
        self.written[path.parent.name] += 1

    def _locked(self, kind: str, identity: dict[str, Any], *, timeout: float) -> filelock.BaseFileLock:
        lock = filelock.FileLock(self._lock_path(self.path(kind, identity)))
        with saying_what_cannot_be_written(self.root):
            self._begin()
            Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
            # The operating system frees the lock of a process that dies, however it dies.
            lock.acquire(timeout=timeout)
        return lock

    def _begin(self) -> None:
        """Make the folder, and mark it if nothing lies in it: what comes to lie there is the store's."""
        self.root.mkdir(parents=True, exist_ok=True)
        if not any(self.root.iterdir()):
            self.adopt()
