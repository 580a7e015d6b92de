"""MathJax as a part of the book: its program and its fonts beside the pages."""

import shutil
from pathlib import Path

from fairq_book.build import mathjax

PROGRAM = "tex-chtml.js"
FONTS = "output/chtml/fonts"


def bring(app, exception):
    """Copy the program and its fonts beside the pages."""
    if exception or app.builder.format != "html":
        return
    target = Path(app.outdir) / "_static" / "mathjax"
    target.mkdir(parents=True, exist_ok=True)
    (target / PROGRAM).write_bytes(mathjax.program(PROGRAM))
    shutil.copytree(mathjax.folder() / FONTS, target / FONTS, dirs_exist_ok=True)


def setup(app):
    """Called by Sphinx."""
    app.config.mathjax_path = f"mathjax/{PROGRAM}"
    app.connect("build-finished", bring)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "version": "1"}
