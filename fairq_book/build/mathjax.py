"""MathJax, so that formulas need no network and nobody learns who reads.

The files come from a package that pip installed, in the version that requirements.txt names; what a browser
will run is checked by its digest before it is used.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from pathlib import Path

from fairq_utils.errors import BadInput

PACKAGE = "sphinx-mathjax-offline"
# As in MathJax 3.2.2. The first reads its fonts from files beside it, the second has all in itself.
DIGESTS = {
    "tex-chtml.js": "0a6ded5abbce13331658dd239f34382abd06492c74b71b61e8caa8112ec55fa5",
    "tex-svg.js": "d4295dc33744836935c1399feece5159577b34c5c8ffb9f1c6324cd82e03a882",
}


def folder() -> Path:
    """Where the package keeps the program and its fonts.

    >>> folder().name
    'mathjax'
    """
    return Path(str(importlib.metadata.distribution(PACKAGE).locate_file(f"{PACKAGE}/static/mathjax")))


def program(name: str) -> bytes:
    """The program of that name, when it is the one that was looked at.

    >>> program("tex-svg.js")[:10]
    b'(function('
    """
    path = folder() / name
    content = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(content).hexdigest() != DIGESTS[name]:
        what = "is another than the one that was looked at" if content else "is not there"
        raise BadInput(
            f"{name} of the installed {PACKAGE} {what}; expected the SHA-256 in fairq_book/build/mathjax.py: "
            "install requirements.txt."
        )
    return content
