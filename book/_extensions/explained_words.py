"""A word of the glossary says what it means where the pointer rests on it; a click leads to its entry."""

import functools
import re

from docutils import nodes

WORDS = "book/words"


@functools.cache
def meanings(env):
    """Of each entry, by its anchor, the first sentence of its definition."""
    found = {}
    for item in env.get_doctree(WORDS).findall(nodes.definition_list_item):
        definition = " ".join(next(item.findall(nodes.definition)).astext().split())
        first = re.match(r".+?[.?!](?= [A-Z]|$)", definition)
        for term in item.findall(nodes.term):
            found |= dict.fromkeys(term["ids"], first.group() if first else definition)
    return found


def explain(app, doctree, docname):
    """Called by Sphinx once links are resolved."""
    if WORDS not in app.env.found_docs:
        return
    for link in doctree.findall(nodes.reference):
        if any(
            "std-term" in part.get("classes", ()) for part in link.children if isinstance(part, nodes.Element)
        ):
            anchor = link.get("refid") or link.get("refuri", "").partition("#")[2]
            link["reftitle"] = meanings(app.env).get(anchor, link.get("reftitle", ""))


def setup(app):
    """Called by Sphinx."""
    app.connect("doctree-resolved", explain)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "version": "1"}
