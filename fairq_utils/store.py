"""Keep what was expensive to make, under a name that says everything that decided it."""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
import io
import json
import os
import sys
import time
import tokenize
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import filelock
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from fairq_utils.files import saying_what_cannot_be_written, write_atomically


def default_root() -> Path:
    """Where the store is: the folder FAIRQ_STORE names, else the user's cache folder.

    >>> default_root().is_absolute()
    True
    """
    if chosen := os.environ.get("FAIRQ_STORE"):
        return Path(chosen).expanduser().absolute()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "fairq"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "fairq"


@dataclass(frozen=True)
class Item:
    """What the store keeps: named tensors, and a little JSON about them."""

    tensors: dict[str, Tensor]
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """SHA-256 of the content, whatever it is called and wherever it lies.

        >>> import torch
        >>> Item({"x": torch.zeros(2)}).digest == Item({"x": torch.zeros(2)}).digest
        True
        >>> Item({"x": torch.zeros(2)}).digest == Item({"x": torch.zeros(1, 2)}).digest
        False
        """
        digest = hashlib.sha256(canonical(self.info).encode())
        for name, tensor in sorted(self.tensors.items()):
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()


@dataclass(frozen=True)
class Entry:
    """A file of the store. Without an identity it is damaged, or was left by a process that was killed."""

    path: Path
    kind: str
    nbytes: int
    identity: dict[str, Any] | None


def _header(path: Path) -> dict[str, Any]:
    with safetensors.safe_open(path, framework="pt") as file:
        return json.loads((file.metadata() or {})["fairq"])


class Store:
    """A folder of items, each under a digest of its identity.

    `get_or_make` is all that is needed: what is there is read, what is missing is made. The identity is
    plain JSON and holds everything that decides the content: settings, seeds, code, versions. A file is
    written beside its place and renamed into it, so a kill at any moment leaves the old state or the new
    one. A file that does not hold what was once written is set aside and made again.

    >>> import tempfile, torch
    >>> store = Store(Path(tempfile.mkdtemp()))
    >>> make = lambda: print("making") or Item({"x": torch.arange(3)})
    >>> store.get_or_make("numbers", {"name": "three"}, make).tensors["x"]
    making
    tensor([0, 1, 2])
    >>> store.get_or_make("numbers", {"name": "three"}, make).tensors["x"]
    tensor([0, 1, 2])
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or default_root()
        self.written: Counter[str] = Counter()  # of each kind, by this object

    def path(self, kind: str, identity: dict[str, Any]) -> Path:
        """The file of the item with this identity, whether it exists or not."""
        digest = hashlib.sha256(canonical(identity).encode()).hexdigest()
        return self.root / kind / f"{identity['name']}-{digest[:16]}.safetensors"

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

    def entries(self) -> Iterator[Entry]:
        """Everything that lies in the store, kind by kind; contents are not read."""
        for path in sorted(self.root.glob("*/*")):
            if path.parent.name == "locks":
                continue
            identity = None
            if path.suffix == ".safetensors" and not path.name.startswith("."):
                with suppress(safetensors.SafetensorError, KeyError, ValueError, OSError):
                    identity = _header(path)["identity"]
            yield Entry(path, path.parent.name, path.stat().st_size, identity)

    def remove(self, entry: Entry) -> None:
        """Delete a file of the store, unless some process is at it."""
        # A file that is half written is called after the one that it becomes, whose lock the writer holds.
        stem = entry.path.name.removeprefix(".").split(".safetensors")[0]
        lock = filelock.FileLock(self._lock_path(entry.path.with_name(f"{stem}.safetensors")))
        with (
            saying_what_cannot_be_written(self.root),
            suppress(filelock.Timeout),
            lock.acquire(blocking=False),
        ):
            entry.path.unlink(missing_ok=True)

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
        for leftover in path.parent.glob(f".{path.name}.*"):  # of a process killed while it wrote
            leftover.unlink(missing_ok=True)
        write_atomically(path, safetensors.torch.save(tensors, metadata=header))
        self.written[path.parent.name] += 1

    def _locked(self, kind: str, identity: dict[str, Any], *, timeout: float) -> filelock.BaseFileLock:
        lock = filelock.FileLock(self._lock_path(self.path(kind, identity)))
        with saying_what_cannot_be_written(self.root):
            Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
            # The operating system frees the lock of a process that dies, however it dies.
            lock.acquire(timeout=timeout)
        return lock


def canonical(value: Any) -> str:
    """JSON with one spelling for one value.

    >>> canonical({"b": (1, 2), "a": None})
    '{"a":null,"b":[1,2]}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


@cache  # a module stands below many others, and to read it takes long
def _without_words(source: str) -> str:
    """The lines of a module less its docstrings and comments."""
    lines: list[str | None] = list(source.split("\n"))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
                and first.lineno > getattr(node, "lineno", 0)  # not on the line of its def
            ):
                assert first.end_lineno
                lines[first.lineno - 1 : first.end_lineno] = [None] * (first.end_lineno - first.lineno + 1)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = (lines[row - 1] or "")[:column].rstrip() or None
    return "\n".join(line for line in lines if line is not None)


@cache
def code_digest(module: str, *, without: tuple[str, ...] = ()) -> str:
    """Digest of a module's source and of every module of its package that it imports, directly or not.

    An item made by that code carries it in its identity, so that no edit can leave a stale item behind.
    Docstrings and comments do not count: to mend a sentence must not cost hours of training.
    `without`: modules to leave out, and what only they import, because their work enters otherwise.

    >>> code_digest("fairq_utils.store") == code_digest("fairq_utils.errors")
    False
    """
    sources = {}
    for name, path in code_files(module, without=without).items():
        sources[name] = _without_words(path.read_text(encoding="utf-8"))
    return hashlib.sha256(canonical(sources).encode()).hexdigest()


def code_files(module: str, *, without: tuple[str, ...] = ()) -> dict[str, Path]:
    """The source of a module and of every module of its package that it imports, directly or not, by name.

    >>> sorted(code_files("fairq_utils.files"))
    ['fairq_utils.errors', 'fairq_utils.files']
    """
    package = module.split(".")[0]
    found: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        spec = importlib.util.find_spec(name)
        if name in found or name in without or spec is None or spec.origin is None:
            continue
        found[name] = Path(spec.origin)
        waiting += _imported(found[name].read_text(encoding="utf-8"), package)
    return found


@cache  # likewise
def _imported(source: str, package: str) -> tuple[str, ...]:
    """The modules of the package that a module with this source imports."""
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] == package]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == package:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            submodules = [name for name in names if _is_module(name)]
            # What a package itself holds decides nothing where only modules are taken from it.
            found += submodules if submodules == names else [str(node.module), *submodules]
    return tuple(found)


def versions(*packages: str) -> dict[str, str]:
    """The installed version of each package: another version may compute another number.

    >>> versions("torch").keys()
    dict_keys(['torch'])
    """
    return {package: importlib.metadata.version(package) for package in packages}


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
