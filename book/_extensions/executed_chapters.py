"""Sphinx shows each chapter as it was executed, and reads it anew when what decides it has changed.

The notebooks in the source tree hold no outputs. Executing them is the package's work, which keys the
result by cells, parameters, library and versions; jupyter-cache would key it by the cells alone and go on
showing old numbers after an edit of the library.
"""

import json
import os

from fairq_book.build import notebooks

_CLAIMS = "book/claims"  # the page that shows what all of them measured


def parameters():
    """Of every chapter: what `fairq book` says, else the laptop profile."""
    given = os.environ.get(notebooks.PARAMETERS_VARIABLE)
    return json.loads(given) if given else notebooks.load_profile("laptop")


def executed_paths():
    """Where each chapter's page finds what it shows; a change of anything that decides it is another path."""
    values = parameters()
    return {
        f"notebooks/{chapter.slug}": notebooks.executed_path(chapter, values.get(chapter.slug, {}))
        for chapter in notebooks.chapters()
    }


def changed_chapters(app, env, added, changed, removed):
    """Tell Sphinx which chapters to read again, although their sources may be as they were."""
    paths = {docname: str(path) for docname, path in executed_paths().items()}
    before = getattr(env, "executed_chapters", {})
    env.executed_chapters = paths
    changed = [docname for docname, path in paths.items() if before.get(docname) != path]
    return [*changed, _CLAIMS] if changed else []


def show_executed(app, docname, source):
    """Put the executed notebook in the place of the stripped one."""
    for chapter in notebooks.chapters():
        if docname == f"notebooks/{chapter.slug}":
            source[0] = notebooks.execute(chapter, parameters().get(chapter.slug, {})).read_text()


def below_parameters(source, cell_id, text):
    """The notebook with a cell more, at the end of its section on parameters."""
    notebook = json.loads(source)
    headings = [
        place
        for place, cell in enumerate(notebook["cells"])
        if cell["cell_type"] == "markdown" and "".join(cell["source"]).startswith("## ")
    ]
    cell = {"cell_type": "markdown", "id": cell_id, "metadata": {}, "source": text}
    notebook["cells"].insert(headings[1], cell)
    return json.dumps(notebook)


def setup(app):
    """Called by Sphinx."""
    app.connect("env-get-outdated", changed_chapters)
    app.connect("source-read", show_executed)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "version": "1"}
