"""The scripts and styles of the widgets, put together into one file of each for the pages of the book."""

from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive

from fairq_audit.page_scripts import SCRIPTS, page_script, widget_kinds
from fairq_book.playground import Playground


class PlaygroundHere(Directive):
    """The playground, as it begins."""

    def run(self):
        """Called by docutils."""
        return [nodes.raw("", Playground().page_markup(), format="html")]


def bring(app, exception):
    """Write both files beside the pages."""
    if exception or app.builder.format != "html":
        return
    static = Path(app.outdir) / "_static"
    (static / "fairq-widgets.js").write_text(page_script(*widget_kinds()), encoding="utf-8")
    styles = [path.read_text(encoding="utf-8") for path in sorted(SCRIPTS.glob("*.css"))]
    (static / "fairq-widgets.css").write_text("\n".join(styles), encoding="utf-8")


def setup(app):
    """Called by Sphinx."""
    app.add_directive("playground", PlaygroundHere)
    app.add_js_file("fairq-widgets.js", loading_method="defer")
    app.add_css_file("fairq-widgets.css")
    app.connect("build-finished", bring)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "version": "1"}
