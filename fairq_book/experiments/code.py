"""Which code decides a number: digests of a module and of all of ours that it reaches."""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
import io
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGES = ("fairq_utils", "fairq_audit", "fairq_book")
# They say what is wrong, how far a job is, and how a file is written whole; no number depends on them.
_DECIDE_NOTHING = ("fairq_utils.errors", "fairq_utils.progress", "fairq_utils.files")


@cache
def code_digest(module: str) -> str:
    """Digest of a module and of every module of ours that it imports, directly or not.

    An item made by that code carries it in its identity, so that no edit can leave a stale item behind. Of
    each module counts its text without docstrings, comments and plain imports, and of the modules the sorted
    list: so words can be mended, and modules moved and renamed, without an hour of training.

    >>> code_digest("fairq_utils.items") == code_digest("fairq_utils.training.loop")
    False
    """
    texts = [deciding_text(path.read_text(encoding="utf-8")) for path in code_files(module).values()]
    each = sorted(hashlib.sha256(text.encode()).hexdigest() for text in texts)
    return hashlib.sha256("".join(each).encode()).hexdigest()


def code_files(module: str) -> dict[str, Path]:
    """The source of a module and of every module of ours that it imports, directly or not, by name.

    Left out are `errors`, `progress` and `files`, which decide no number.

    >>> list(code_files("fairq_utils.items"))
    ['fairq_utils.items']
    """
    found: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in found or name in _DECIDE_NOTHING:
            continue
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            continue
        found[name] = Path(spec.origin)
        waiting += _imported(found[name].read_text(encoding="utf-8"), spec.parent or "")
    return found


@cache  # a module stands below many others, and to read it takes long
def deciding_text(source: str) -> str:
    """A module's lines without docstrings, comments, and the places that it imports our own names from.

    What is imported under another name stays, because it means another thing in the lines below.

    >>> print(deciding_text('''
    ... \"\"\"A module.\"\"\"
    ... import math  # for pi
    ... from fairq_utils.files import write_atomically
    ... from fairq_utils.training.loop import fit as train
    ... AREA = math.pi
    ... ''').strip())
    import math
    fit as train
    AREA = math.pi
    """
    bare = without_words(source)
    lines: list[str | None] = list(bare.split("\n"))
    of_texts: set[int] = set()  # lines of strings, in which an empty one says something
    tree = ast.parse(bare)
    # Only strings in three quotes have several lines, and few modules have one that is no docstring.
    for node in ast.walk(tree) if '"""' in bare or "'''" in bare else _statements(tree):
        if isinstance(node, ast.ImportFrom):
            ours = bool(node.level) or (node.module or "").split(".")[0] in PACKAGES
        elif isinstance(node, ast.Import):
            ours = all(alias.name.split(".")[0] in PACKAGES for alias in node.names)
        else:
            if isinstance(node, ast.Constant | ast.JoinedStr):
                of_texts |= set(range(node.lineno - 1, node.end_lineno or node.lineno))
            continue
        if ours:
            renamed = [f"{a.name.split('.')[-1]} as {a.asname}" for a in node.names if a.asname]
            span = (node.end_lineno or node.lineno) - node.lineno + 1
            lines[node.lineno - 1 : node.lineno - 1 + span] = (renamed + [None] * span)[:span]
    kept = [line for place, line in enumerate(lines) if line or (line is not None and place in of_texts)]
    return "\n".join(map(str, kept))


@cache
def without_words(source: str) -> str:
    """The lines of a module without its docstrings and comments.

    >>> without_words("x = 1  # one")
    'x = 1'
    """
    lines: list[str | None] = list(source.split("\n"))
    for node in _statements(ast.parse(source)):
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
                if len(node.body) == 1:  # a body of a docstring alone
                    lines[first.lineno - 1] = " " * first.col_offset + "pass"
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = (lines[row - 1] or "")[:column].rstrip() or None
    return "\n".join(line for line in lines if line is not None)


def _statements(tree: ast.Module) -> Iterator[ast.AST]:
    """The module and all its statements, without the expressions in them, which are many more."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        within = ast.stmt | ast.excepthandler | ast.match_case
        waiting += reversed([child for child in ast.iter_child_nodes(node) if isinstance(child, within)])


@cache  # a module stands below many others, and to parse it takes long
def _imported(source: str, within: str) -> tuple[str, ...]:
    """The modules of ours that a module with this source imports; `within` is the folder that it lies in."""
    found: list[str] = []
    for node in _statements(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in PACKAGES]
        elif isinstance(node, ast.ImportFrom):
            origin = importlib.util.resolve_name("." * node.level + (node.module or ""), within)
            if origin.split(".")[0] not in PACKAGES:
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


@cache
def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
