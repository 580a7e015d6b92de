"""The scripts and styles of the widgets, put together into one file of each for the pages of the book.

In a notebook a widget's script is a module. A page that was opened as a file may not load modules, so here
each becomes a function that returns what the module exports.
"""

from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive

from fairq_book.playground import Playground
from fairq_book.widgets import SCRIPTS

STARTER = "page"  # finds the widgets of a page and calls them
EXPORT = "export default"


class PlaygroundHere(Directive):
    """The playground, as it begins."""

    def run(self):
        """Called by docutils."""
        return [nodes.raw("", Playground().page_markup(), format="html")]


def as_function(path):
    """The script of a widget, under its name."""
    source = path.read_text(encoding="utf-8")
    if source.count(EXPORT) != 1 or "import " in source:
        raise ValueError(f"{path.name} has to export once, by `{EXPORT}`, and import nothing.")
    return f"window.fairqWidgets[{path.stem!r}] = (() => {{\n{source.replace(EXPORT, 'return')}\n}})();\n"


def bring(app, exception):
    """Write both files beside the pages."""
    if exception or app.builder.format != "html":
        return
    static = Path(app.outdir) / "_static"
    scripts = [path for path in sorted(SCRIPTS.glob("*.js")) if path.stem != STARTER]
    starter = (SCRIPTS / f"{STARTER}.js").read_text(encoding="utf-8")
    together = "".join(["window.fairqWidgets = {};\n", *map(as_function, scripts), starter])
    (static / "fairq-widgets.js").write_text(together, encoding="utf-8")
    styles = [path.read_text(encoding="utf-8") for path in sorted(SCRIPTS.glob("*.css"))]
    (static / "fairq-widgets.css").write_text("\n".join(styles), encoding="utf-8")


def setup(app):
    """Called by Sphinx."""
    app.add_directive("playground", PlaygroundHere)
    app.add_js_file("fairq-widgets.js", loading_method="defer")
    app.add_css_file("fairq-widgets.css")
    app.connect("build-finished", bring)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "version": "1"}
