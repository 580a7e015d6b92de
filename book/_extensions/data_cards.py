"""Data cards: what was counted in a data set, drawn and said from the file that the counting wrote.

`` {counts}`name` `` is a directive that draws the images of each group, and `` {fact}`name path` `` a role
that says one number, such as `` {fact}`utkface notes.copies.sets` ``. Neither lets a number be typed.
"""

import json
from pathlib import Path

import pandas as pd
from docutils import nodes
from docutils.parsers.rst import Directive

from fairq_book.chapters.disparity import figures

CARDS = Path(__file__).parents[1] / "data"


def card(name):
    """What was counted."""
    return json.loads((CARDS / f"{name}.json").read_text())


class Counts(Directive):
    """A bar for each group."""

    required_arguments = 1

    def run(self):
        """Called by docutils."""
        self.state.document.settings.env.note_dependency(str(CARDS / f"{self.arguments[0]}.json"))
        picture = figures.counts(pd.DataFrame(card(self.arguments[0])["counts"]))
        return [nodes.raw("", picture._repr_html_(), format="html")]


def fact(role, rawtext, text, lineno, inliner, options=None, content=None):
    """One number of a card."""
    name, path = text.split(" ", 1)
    inliner.document.settings.env.note_dependency(str(CARDS / f"{name}.json"))
    try:
        value = card(name)
        for key in path.split("."):
            value = value[int(key) if isinstance(value, list) else key]
    except (KeyError, IndexError, ValueError, FileNotFoundError):
        return [], [inliner.reporter.error(f"there is no fact {text!r}", line=lineno)]
    return [nodes.Text(f"{value:,}" if isinstance(value, int) else str(value))], []


def setup(app):
    """Called by Sphinx."""
    app.add_directive("counts", Counts)
    app.add_role("fact", fact)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "version": "1"}
