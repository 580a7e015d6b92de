"""What the theme leaves to be mended on a page, until it mends it itself.

It loads on every page what few of them use: a script that draws icons which a font draws already, the index
of the search, the program for formulas, our own widgets. Each stays where it has something to do.
It brings the scripts that turn code into a live kernel twice, which is an error in the console, and they
would be fetched from elsewhere; the marks that fold the table of contents have no name that could be read
aloud; a list of citations says that it is a list, while its members do not say that they are in one; and a
line may end between a number and its percent sign.
"""

import re
from pathlib import Path

MENDED = (
    (re.compile(r"\s*<script>const THEBE_JS_URL.*?</script>", re.DOTALL), ""),
    (re.compile(r"\s*<script[^>]*sphinx-thebe\.js[^>]*></script>"), ""),
    (re.compile(r"\s*<link[^>]*sphinx-thebe\.css[^>]*/>"), ""),
    (re.compile(r'\s*<script type="text/x-thebe-config">.*?</script>', re.DOTALL), ""),
    (
        re.compile(r"<summary>(?=\s*<span[^>]*toctree-toggle)"),
        '<summary aria-label="Show or hide these pages">',
    ),
    (re.compile(r'<div role="list" class="citation-list">'), '<div class="citation-list">'),
    (re.compile(r"(?<=[0-9]) %(?=[\s.,;:)<])"), "\N{NO-BREAK SPACE}%"),
)


# Scripts and styles by name, and what a page that needs them holds; an icon is drawn by a font everywhere.
LOADED_WHERE = {
    r"scripts/fontawesome\.js": None,
    r"searchtools\.js": r'id="search-results"',
    r"language_data\.js": r'id="search-results"',
    r"searchindex\.js": r'id="search-results"',
    r"mathjax/tex-chtml\.js": r'class="(?:[^"]* )?math[ "]',
    r"fairq-widgets\.(?:js|css)": r'class="fairq-widget"',
}


def mend(app, exception):
    """Every page, once all are written."""
    if exception or app.builder.format != "html":
        return
    for path in Path(app.outdir).rglob("*.html"):
        text = before = path.read_text(encoding="utf-8")
        for pattern, instead in MENDED:
            text = pattern.sub(instead, text)
        for name, needed_by in LOADED_WHERE.items():
            if needed_by is None or not re.search(needed_by, text):
                text = re.sub(rf"\s*<script[^>]*{name}[^>]*></script>|\s*<link[^>]*{name}[^>]*/?>", "", text)
        if text != before:
            path.write_text(text, encoding="utf-8")


def setup(app):
    """Called by Sphinx."""
    app.connect("build-finished", mend)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "version": "1"}
