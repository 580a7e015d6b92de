"""From a chapter to the functions that it calls, and from a function to the chapters that call it.

Both are read off the chapters' code, so that neither can be out of date.
"""

import ast
from functools import cache

import executed_chapters

from fairq_book.build import notebooks


def called(chapter):
    """The full names of what a chapter calls of this package, in the order of the chapter."""
    source = "\n".join(cell.source for cell in chapter.cells.cells if cell.cell_type == "code")
    tree = ast.parse(source)
    known = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fairq_")
        for alias in node.names
    }
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in known:
            found.setdefault(f"{known[node.value.id]}.{node.attr}", (node.lineno, node.col_offset))
        elif isinstance(node, ast.Name) and node.id in known:
            found.setdefault(known[node.id], (node.lineno, node.col_offset))
    return sorted(found, key=found.get)


@cache  # asked of every docstring, and reading eight notebooks each time would take most of a build
def callers():
    """Of every function, the chapters that call it."""
    found = {}
    for chapter in notebooks.chapters():
        for name in called(chapter):
            found.setdefault(name, []).append(chapter)
    return found


def name_chapters(app, what, name, obj, options, lines):
    """Under the docstring of a function, the chapters that call it."""
    own = callers().get(name, [])
    if own:
        listed = ", ".join(f":doc:`{chapter.title} </notebooks/{chapter.slug}>`" for chapter in own)
        lines += ["", f"Called in {listed}.", ""]


def name_functions(app, docname, source):
    """Beside how to run a chapter again, the functions that it calls."""
    own = [chapter for chapter in notebooks.chapters() if docname == f"notebooks/{chapter.slug}"]
    if not own:
        return
    names = {name: name.split(".", 1)[1] for name in called(own[0])}
    listed = "\n".join(f"- {{py:obj}}`{short} <{name}>`" for name, short in names.items())
    text = f":::{{dropdown}} The functions that this chapter calls\n{listed}\n:::"
    source[0] = executed_chapters.below_parameters(source[0], "functions", text)


def setup(app):
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", name_chapters)
    app.connect("source-read", name_functions, priority=900)  # after the executed notebook was put there
    return {"parallel_read_safe": True, "parallel_write_safe": True, "version": "1"}
