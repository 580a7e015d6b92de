"""The built book on paper: its pages joined into one document, which Chromium prints as a PDF."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urldefrag, urlsplit

import pypdf
import yaml
from bs4 import BeautifulSoup, Tag

from fairq_utils.errors import BadInput
from fairq_utils.files import write_atomically

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
NAME = "fairq.pdf"  # beside the pages, so that the first of them can offer it
_LIMIT_SECONDS = 600
_SETTLED_MILLISECONDS = 60_000  # of the page's own clock, which runs ahead of ours while nothing is fetched
_NOTE = (
    "Code that the pages fold away is left out here; it stands in the notebooks. "
    "What answers on a screen is a figure and a table here."
)
# What only a screen has a use for, and that code.
_NOT_ON_PAPER = "script, button, .headerlink, .toctree-wrapper, .fairq-on-paper, details.above-input"


@dataclass(frozen=True)
class Page:
    """A page of the book: its name without the suffix, and how deep it lies in the table of contents."""

    name: str
    depth: int

    @property
    def anchor(self) -> str:
        """Where it begins in the joined document."""
        return self.name.replace("/", "-")

    def anchor_of(self, fragment: str) -> str:
        """Where one of its own anchors went: two pages may have a section of one name."""
        return f"{self.anchor}--{fragment}" if fragment else self.anchor


def listed(contents: Path) -> list[Page]:
    """The pages of a `_toc.yml`, in order.

    >>> from fairq_book.root import book_root
    >>> listed(book_root() / "_toc.yml")[0]
    Page(name='book/index', depth=0)
    """
    given = yaml.safe_load(contents.read_text())
    chapters = (part["chapters"] for part in given["parts"])
    return [Page(given["root"], 0), *(page for own in chapters for page in _below(own, 0))]


def _below(entries: Sequence[Mapping[str, Any]], depth: int) -> Iterator[Page]:
    for entry in entries:
        yield Page(entry["file"], depth)
        yield from _below(entry.get("sections", ()), depth + 1)


def chromium() -> str:
    """The browser on the PATH that prints."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not found:
        raise BadInput(
            f"No browser is on the PATH; expected one of {', '.join(BROWSERS)}, which prints the PDF: "
            "install Chromium, 131 or later."
        )
    return found


def write(pages: Path, contents: Path, out: Path, *, facts: Mapping[str, str]) -> int:
    """Print the pages of a folder in the order of a `_toc.yml`; how many sheets it took.

    `facts` stand on the title page, such as the date and the profile.
    """
    browser = chromium()
    # Beside the pages, because a browser that was installed as a snap sees no /tmp but its own.
    with tempfile.TemporaryDirectory(prefix="fairq-", dir=pages.parent) as folder:
        joined, printed = Path(folder) / "book.html", Path(folder) / "book.pdf"
        text = join(pages, listed(contents), facts=facts)
        # No browser counts pages ahead: printed once to see where each section begins, and again to say so.
        for _ in range(2):
            joined.write_text(text, encoding="utf-8")
            _print(browser, joined, printed)
            reader = pypdf.PdfReader(printed)
            text = _numbered(text, reader)
        write_atomically(out, printed.read_bytes())
    return len(reader.pages)


def _print(browser: str, joined: Path, printed: Path) -> None:
    printed.unlink(missing_ok=True)
    command = [
        browser,
        "--headless",
        "--disable-gpu",
        "--no-sandbox",  # which a container does not let it have; the pages are our own
        f"--user-data-dir={joined.parent / 'browser'}",
        "--allow-file-access-from-files",  # the fonts of the formulas
        "--no-pdf-header-footer",
        "--generate-pdf-document-outline",
        f"--virtual-time-budget={_SETTLED_MILLISECONDS}",  # until the formulas are set
        f"--print-to-pdf={printed}",
        joined.as_uri(),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_LIMIT_SECONDS)
        said = done.stderr
    except subprocess.TimeoutExpired:
        said = f"it took more than {_LIMIT_SECONDS} s."
    if not printed.exists():
        raise BadInput(
            f"{browser} printed nothing; expected Chromium, 131 or later, that runs on this machine: "
            f"{(said.strip().splitlines() or ['it said nothing'])[-1]}"
        )


def offer(page: Path, printed: Path, about: str) -> None:
    """Link the PDF where a built page keeps a place for that, in the words of `about`."""
    address = html.escape(os.path.relpath(printed, page.parent))
    link = f'Or on paper: <a href="{address}">the whole book as a PDF</a> ({html.escape(about)}).'
    place = re.compile(r'(<span class="fairq-on-paper">).*?(</span>)', re.DOTALL)
    text = page.read_text(encoding="utf-8")
    write_atomically(page, place.sub(rf"\g<1>{link}\g<2>", text).encode())


def join(pages: Path, names: Sequence[Page], *, facts: Mapping[str, str]) -> str:
    """The pages as one HTML document, with a title page and a table of contents that is not numbered yet."""
    known = {(pages / f"{page.name}.html").resolve(): page for page in names}
    whole = {
        page: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser") for path, page in known.items()
    }
    for path, page in known.items():
        _move(whole[page], path, page, known)
    articles = {page: _article(own, page) for page, own in whole.items()}
    title = _text(_first(articles[names[0]], "h1"))
    front = _title_page(articles[names[0]], title, facts)
    # Of every page, for each brings only what it uses itself.
    tags = (tag for own in whole.values() for tag in own.select("head link[rel=stylesheet], head script"))
    heads = "".join(dict.fromkeys(str(tag) for tag in tags if _is_needed(tag)))
    running = "".join(
        f"@page {page.anchor} {{ @top-left {{ content: {json.dumps(_title(own), ensure_ascii=False)} }} }}"
        for page, own in articles.items()
    )
    body = "".join(
        f'<section class="fairq-page" id="{page.anchor}" style="page: {page.anchor}">'
        f"{own.decode_contents()}</section>"
        for page, own in articles.items()
    )
    return (
        f'<!DOCTYPE html><html lang="en" data-theme="light" class="fairq-paper"><head><meta charset="utf-8">'
        f"<title>{html.escape(title)}</title>{heads}<style>{running}</style></head>"
        f'<body><main class="bd-content"><article class="bd-article">'
        f"{front}{_contents(articles)}{body}</article></main></body></html>"
    )


def _is_needed(tag: Tag) -> bool:
    return tag.name == "link" or "mathjax" in f"{tag.get('src')}{tag.string}".lower()


def _move(soup: BeautifulSoup, path: Path, page: Page, known: Mapping[Path, Page]) -> None:
    """Let every anchor, link and file of a page hold in the joined document."""
    for tag in soup.select("article [id]"):
        if not tag.find_parent("svg"):  # a drawing names its own parts, by a digest
            tag["id"] = page.anchor_of(str(tag["id"]))
    for tag in soup.select("article a[href]"):
        address, fragment = urldefrag(str(tag["href"]))
        target = known.get((path.parent / address).resolve()) if address else page
        if target:
            tag["href"] = f"#{target.anchor_of(fragment)}"
        elif not urlsplit(address).scheme:
            tag.replace_with(
                "/".join(Path(address).parts[-2:])
            )  # a table beside the pages: its name at least
    for tag in soup.select("link[href], [src]"):
        kind = "href" if tag.name == "link" else "src"
        address = str(tag[kind])
        if not urlsplit(address).scheme:
            tag[kind] = (path.parent / address.partition("?")[0]).resolve().as_uri()


def _article(soup: BeautifulSoup, page: Page) -> Tag:
    """What a page says, one level lower for each page that it lies under."""
    article = _first(soup, "article")
    for tag in article.select(_NOT_ON_PAPER):
        tag.decompose()
    for tag in article.select("details"):
        tag["open"] = ""
    for tag in article.find_all(re.compile("^h[1-5]$")):
        tag.name = f"h{int(tag.name[1]) + page.depth}"
    return article


def _title_page(article: Tag, title: str, facts: Mapping[str, str]) -> str:
    """The book's title and its first figure, both taken from its first page."""
    heading, figure = _first(article, "h1"), _first(article, "figure")
    heading.string = "In short"
    lines = "".join(f"<dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd>" for k, v in facts.items())
    return (
        f'<section class="fairq-title"><p class="fairq-book">{html.escape(title)}</p>'
        f'{figure.extract()}<dl>{lines}</dl><p class="fairq-note">{_NOTE}</p></section>'
    )


def _contents(articles: Mapping[Page, Tag]) -> str:
    """A line for each page and each of its sections, which links to it and keeps a place for its number."""
    lines = []
    for page, article in articles.items():
        lines.append((page.depth, page.anchor, _title(article)))
        for heading in article.select(f"section > h{page.depth + 2}") if page.depth == 0 else ():
            lines.append((2, str(heading.parent and heading.parent["id"]), _text(heading)))
    items = "".join(
        f'<li class="fairq-depth-{depth}"><a href="#{anchor}"><span>{html.escape(text)}</span>'
        f"<i></i><b></b></a></li>"
        for depth, anchor, text in lines
    )
    return f'<nav class="fairq-contents"><h1>Contents</h1><ol>{items}</ol></nav>'


def _numbered(text: str, reader: pypdf.PdfReader) -> str:
    """The document, with the sheet on which each section was printed in its line of the contents."""
    named = reader.named_destinations

    def number(line: re.Match[str]) -> str:
        sheet = reader.get_destination_page_number(named[f"/{line['anchor']}"])
        return f"{line['link']}<b>{'' if sheet is None else sheet + 1}</b>"

    return re.sub(r'(?P<link><a href="#(?P<anchor>[^"]+)"><span>[^<]*</span><i></i>)<b>\d*</b>', number, text)


def _first(within: Tag, name: str) -> Tag:
    found = within.find(name)
    assert isinstance(found, Tag), f"a page without <{name}>"
    return found


def _title(article: Tag) -> str:
    return _text(_first(article, re.compile("^h[1-6]$")))  # type: ignore[arg-type]


def _text(tag: Tag) -> str:
    return " ".join(tag.get_text().split())
