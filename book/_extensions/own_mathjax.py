"""MathJax as a part of the book, so that formulas need no network and nobody learns who reads.

The files come from a package that pip installed, in the version that requirements.txt names; what a browser
will run is checked by its digest before it is copied.
"""

import hashlib
import importlib.metadata
import shutil
from pathlib import Path

from sphinx.errors import ExtensionError

PACKAGE = "sphinx-mathjax-offline"
PROGRAM = "tex-chtml.js"
DIGEST = "0a6ded5abbce13331658dd239f34382abd06492c74b71b61e8caa8112ec55fa5"
FONTS = "output/chtml/fonts"


def bring(app, exception):
    """Copy the program and its fonts beside the pages."""
    if exception or app.builder.format != "html":
        return
    source = Path(importlib.metadata.distribution(PACKAGE).locate_file(f"{PACKAGE}/static/mathjax"))
    if hashlib.sha256((source / PROGRAM).read_bytes()).hexdigest() != DIGEST:
        raise ExtensionError(
            f"{PROGRAM} of the installed {PACKAGE} is another than the one that was looked at; expected "
            "the SHA-256 in book/_extensions/own_mathjax.py: install requirements.txt."
        )
    target = Path(app.outdir) / "_static" / "mathjax"
    target.mkdir(parents=True, exist_ok=True)
    shutil.copy(source / PROGRAM, target)
    shutil.copytree(source / FONTS, target / FONTS, dirs_exist_ok=True)


def setup(app):
    """Called by Sphinx."""
    app.config.mathjax_path = f"mathjax/{PROGRAM}"
    app.connect("build-finished", bring)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "version": "1"}
