"""Files of `torch.export`, and the operations that other libraries must register before one is loaded."""

from __future__ import annotations

import importlib
import logging
import os
import re
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from fairq_audit.models.outputs import first_line
from fairq_utils.errors import BadInput

# What registers the operations of a quantized program, by their namespace: importing it is enough. The first
# is what PT2E leaves, whoever ran it, and is part of torch.
_REGISTERED_BY = {"quantized_decomposed": "torch.ao.quantization.fx._decomposed", "torchao": "torchao"}
_LONGEST = 2**28  # of the description of a graph, in bytes: of a thousand layers it has a few million


def load_program(path: Path) -> torch.export.ExportedProgram:
    """What `torch.export.save` wrote, with what it takes to run it registered."""
    operations = _operations(path)
    for namespace, module in _REGISTERED_BY.items():
        if any(own == namespace for own, _ in operations):
            _imported(module)
    for namespace, name in sorted(operations):
        if not hasattr(getattr(torch.ops, namespace), name):
            raise BadInput(f"{path} calls torch.ops.{namespace}.{name}, {_who_has(namespace)}")
    try:
        return _loaded(path)
    except Exception as error:  # whatever the bytes lead it to
        held = re.search(r"GLOBAL ([\w.]+)", str(error))
        library = held[1].partition(".")[0] if held else ""
        # With its import torchao says which classes of its own are tensors and may be read.
        if library in _REGISTERED_BY and _imported(library):
            with suppress(Exception):
                return _loaded(path)
        if held:
            raise BadInput(
                f"{path} holds {held[1]} beside plain tensors, and to open it could run code; expected "
                + (
                    "tensors of torch, or of torchao where that is installed: pip install torchao."
                    if library in _REGISTERED_BY
                    else "tensors alone: export the network without it."
                )
            ) from error
        raise BadInput(
            f"{path} cannot be loaded ({first_line(error)}); expected what torch.export.save wrote, with "
            "tensors alone: export it again, with this version of torch."
        ) from error


def _who_has(namespace: str) -> str:
    if namespace in _REGISTERED_BY:
        return f"which comes with the package {_REGISTERED_BY[namespace].partition('.')[0]}; pip install it."
    return (
        "which torch does not have; expected operations of torch, PT2E or torchao: export the network "
        "without it, or give it as package.module:factory."
    )


def _loaded(path: Path) -> torch.export.ExportedProgram:
    with _weights_only(), _errors_of("torch.export") as swallowed, warnings.catch_warnings():
        # torch reads each tensor from bytes that it never writes, and warns of that
        warnings.filterwarnings("ignore", "The given buffer is not writable", UserWarning)
        try:
            return torch.export.load(path)
        except RuntimeError as error:  # which says to look at what was logged, and not what it was
            raise (swallowed or [error])[-1] from error


def _operations(path: Path) -> set[tuple[str, str]]:
    """Namespace and name of all operations that the graphs in the file call."""
    found = set()
    # What cannot be read is refused by torch, which reads it next.
    unreadable = (OSError, ValueError, RuntimeError, zipfile.BadZipFile)
    with suppress(*unreadable), zipfile.ZipFile(path) as archive:
        for item in archive.infolist():
            if re.search(r"models/[^/]+\.json$", item.filename) and item.file_size <= _LONGEST:
                text = archive.read(item).decode(errors="replace")
                found |= set(re.findall(r'"target":\s*"torch\.ops\.(\w+)\.(\w+)', text))
    return found


def _imported(module: str) -> bool:
    """Whether a module is there, imported without what it has to say."""
    with _errors_of("torch.utils._pytree"), warnings.catch_warnings(action="ignore"):
        try:
            importlib.import_module(module)
        except ImportError:
            return False
    return True


@contextmanager
def _errors_of(name: str) -> Iterator[list[BaseException]]:
    """Keep what a logger says from the terminal, and hand over the errors that it was about."""
    found: list[BaseException] = []

    def kept(record: logging.LogRecord) -> bool:
        if isinstance(record.exc_info, tuple) and record.exc_info[1]:
            found.append(record.exc_info[1])
        return False

    logger = logging.getLogger(name)
    logger.addFilter(kept)
    try:
        yield found
    finally:
        logger.removeFilter(kept)


@contextmanager
def _weights_only() -> Iterator[None]:
    """Let torch unpickle tensors alone, also where it would ask for more."""
    names = ("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD")
    before = {name: os.environ.pop(name, None) for name in names}
    os.environ[names[0]] = "1"
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
