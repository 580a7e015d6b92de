"""How a chapter is laid out on its page: what was found first, detail folded, parameters last.

In a notebook parameters stand first, because papermill puts others behind them, and nothing is folded.
"""

from docutils import nodes

FOLD = "<!-- fold -->"  # below a heading: what follows it is detail


def lay_out(app, doctree):
    """Called by Sphinx for each page, before its contents are listed."""
    if not app.env.docname.startswith("notebooks/"):
        return
    for section in list(doctree.findall(nodes.section)):
        if any(isinstance(part, nodes.raw) and part.astext().strip() == FOLD for part in section):
            fold(section)
    (own,) = (part for part in doctree.findall(nodes.section) if "parameters" in part["ids"])
    page = own.parent
    page.remove(own)
    page.append(own)
    own[0].replace_self(nodes.title("", "Run it again"))


def fold(section):
    """The section with all but its heading behind a line that opens it."""
    heading, *rest = section.children
    (mark,) = (part for part in rest if isinstance(part, nodes.raw) and part.astext().strip() == FOLD)
    opening = nodes.raw("", '<details class="fairq-fold"><summary>Read on</summary>', format="html")
    closing = nodes.raw("", "</details>", format="html")
    section.children = []
    section += [heading, opening, *(part for part in rest if part is not mark), closing]


def setup(app):
    """Called by Sphinx."""
    app.connect("doctree-read", lay_out, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "version": "1"}
