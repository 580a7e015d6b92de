"""Which code decides a number: digests of a module and of all of ours that it reaches."""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
import io
import tokenize
from functools import cache
from pathlib import Path

from fairq_utils.errors import BadInput
from fairq_utils.items import canonical


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
    `without`: modules to leave out, and what only they import, because their work enters otherwise or is
    none: then an edit of them costs nothing.

    >>> code_digest("fairq_book.experiments.store") == code_digest("fairq_utils.errors")
    False
    """
    sources = {}
    for name, path in code_files(module, without=without).items():
        sources[name] = _without_words(path.read_text(encoding="utf-8"))
    return hashlib.sha256(canonical(sources).encode()).hexdigest()


def code_files(module: str, *, without: tuple[str, ...] = ()) -> dict[str, Path]:
    """The source of a module and of every module of its package that it imports, directly or not, by name.

    What is to be left out has to be met, lest a name that was misspelt, or is no longer right, leave it in.

    >>> sorted(code_files("fairq_utils.files"))
    ['fairq_utils.errors', 'fairq_utils.files']
    >>> code_files("fairq_utils.files", without=("fairq_utils.erors",))
    Traceback (most recent call last):
        ...
    fairq_utils.errors.BadInput: without names fairq_utils.erors, which fairq_utils.files does not reach;
    expected modules that it does: fairq_utils.errors.
    """
    found: dict[str, Path] = {}
    met, waiting = set(), [module]
    while waiting:
        name = waiting.pop()
        met.add(name)
        spec = importlib.util.find_spec(name)
        if name in found or name in without or spec is None or spec.origin is None:
            continue
        found[name] = Path(spec.origin)
        waiting += _imported(found[name].read_text(encoding="utf-8"), spec.parent or "")
    if strangers := [name for name in without if name not in met]:
        raise BadInput(
            f"without names {', '.join(strangers)}, which {module} does not reach; expected modules that it "
            f"does: {', '.join(sorted(met - {module})) or 'none'}."
        )
    return found


@cache  # likewise
def _imported(source: str, within: str) -> tuple[str, ...]:
    """The modules of its own package that a module with this source imports; `within` is where it lies."""
    package = within.split(".")[0]
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] == package]
        elif isinstance(node, ast.ImportFrom):
            origin = importlib.util.resolve_name("." * node.level + (node.module or ""), within)
            if origin.split(".")[0] != package:
                continue
            names = [f"{origin}.{alias.name}" for alias in node.names]
            submodules = [name for name in names if _is_module(name)]
            # What a package itself holds decides nothing where only modules are taken from it.
            found += submodules if submodules == names else [origin, *submodules]
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
