"""What a link to the book looks like elsewhere: a title, a sentence, and a card drawn from the tables.

Nobody loads the card but those who show such links. They want it by its full address, which only
`html.baseurl` in _config.yml can tell; without one it is named relative to the page.
"""

import functools
import html
import textwrap
from dataclasses import asdict
from pathlib import Path

from docutils import nodes

from fairq_book.kit import figures
from fairq_book.pages import front

CARD = "_static/card.png"
LONGEST = 200  # characters of a description, of which most places show no more


@functools.cache
def headline():
    """Who pays, in a few words, and what backs them."""
    return front.headline()


def description(doctree):
    """The first paragraph of a page, as far as it is shown."""
    paragraphs = (node for node in doctree.findall(nodes.paragraph) if node.parent.tagname == "section")
    said = " ".join(next(paragraphs, nodes.paragraph()).astext().split()).removeprefix("Purpose. ")
    return textwrap.shorten(said, LONGEST, placeholder=" …")


def tags(config, *, title, said, page, to_root):
    """The lines for the head of a page; `to_root` leads from it to the book's folder."""
    base = (config.html_baseurl or "").rstrip("/")
    own = headline()
    values = {
        "og:type": "website",
        "og:site_name": config.html_title,
        "og:title": title,
        "og:description": said or config.html_title,
        "og:url": f"{base}/{page}" if base else "",
        "og:image": f"{base}/{CARD}" if base else f"{to_root}{CARD}",
        "og:image:width": figures.CARD_SIZE[0],
        "og:image:height": figures.CARD_SIZE[1],
        "og:image:alt": f"{config.html_title} {own.words} {own.backing}",
        "twitter:card": "summary_large_image",
    }
    return "\n".join(
        f'<meta {"name" if name.startswith("twitter") else "property"}="{name}" '
        f'content="{html.escape(str(value), quote=True)}" />'
        for name, value in values.items()
        if value != ""
    )


def name_card(app, pagename, templatename, context, doctree):
    """Each page says what a link to it shows."""
    known = app.env.titles.get(pagename)
    own = tags(
        app.config,
        title=known.astext() if known else context.get("title") or app.config.html_title,
        said=description(doctree) if doctree else "",
        page=f"{pagename}{app.builder.link_suffix}",
        to_root="../" * pagename.count("/"),
    )
    context["metatags"] = f"{context.get('metatags', '')}\n{own}\n"


def draw(app, exception):
    """The card, and at the book's own address, which leads on to the first page, the same tags."""
    if exception or app.builder.format != "html":
        return
    out, root = Path(app.outdir), app.config.root_doc
    card = figures.card(front.accuracies(), title=app.config.html_title, **asdict(headline()))
    (out / CARD).write_bytes(card)
    title = html.escape(app.config.html_title)
    said = description(app.env.get_doctree(root))
    lead = tags(app.config, title=app.config.html_title, said=said, page="", to_root="")
    (out / "index.html").write_text(
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8" />\n'
        f"<title>{title}</title>\n{lead}\n"
        f'<meta http-equiv="Refresh" content="0; url={root}.html" />\n</head>\n'
        f'<body><a href="{root}.html">{title}</a></body>\n</html>\n',
        encoding="utf-8",
    )


def setup(app):
    """Called by Sphinx."""
    app.connect("html-page-context", name_card)
    app.connect("build-finished", draw, priority=900)  # after the bare redirect was written
    return {"parallel_read_safe": True, "parallel_write_safe": True, "version": "1"}
