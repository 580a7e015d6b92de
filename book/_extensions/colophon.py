"""How to cite the book, and which version of it a page belongs to, read off CITATION.cff."""

from datetime import date
from pathlib import Path

import yaml
from docutils import nodes
from docutils.parsers.rst import Directive


class HowToCite(Directive):
    """A line to cite the book by, and the same as an entry of BibTeX."""

    def run(self):
        """Called by docutils."""
        env = self.state.document.settings.env
        source = Path(env.srcdir) / "CITATION.cff"
        env.note_dependency(str(source))
        about = yaml.safe_load(source.read_text())
        authors = ", ".join(one["name"] for one in about["authors"])
        today = date.today()
        line = nodes.paragraph()
        line += [
            nodes.Text(f"{authors} ({today.year}). "),
            nodes.emphasis("", about["title"]),
            nodes.Text(f". Version {about['version']}, this copy built on {today:%-d %B %Y}."),
        ]
        entry = (
            f"@software{{fairq,\n  author = {{{{{authors}}}}},\n  title = {{{about['title']}}},\n"
            f"  version = {{{about['version']}}},\n  year = {{{today.year}}},\n}}"
        )
        return [line, nodes.literal_block(entry, entry, language="bibtex")]


def setup(app):
    """Called by Sphinx."""
    app.add_directive("how-to-cite", HowToCite)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "version": "1"}
