"""Every link of the built book leads somewhere: pages, places on them, images, scripts, styles, files."""

from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tests.test_book import pages_of

LEADING = {"a": "href", "link": "href", "use": "href", "img": "src", "script": "src", "iframe": "src"}


class Page(HTMLParser):
    """What can be linked on a page, and what it links."""

    def __init__(self, path: Path):
        super().__init__()
        self.places: set[str] = set()
        self.links: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        own = {name.removeprefix("xlink:"): value or "" for name, value in attributes}
        self.places.add(own.get("id", ""))
        if LEADING.get(tag) in own:
            self.links.append(own[LEADING[tag]])
        if own.get("http-equiv", "").lower() == "refresh":
            self.links.append(own["content"].partition("url=")[2])
        if own.get("property") == "og:image":
            self.links.append(own["content"])


page_at = cache(Page)


def broken(path: Path) -> list[str]:
    found = []
    for link in page_at(path).links:
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        leads = target.is_file() and (
            not parts.fragment
            or target.suffix != ".html"
            or unquote(parts.fragment) in page_at(target).places
        )
        if not leads:
            found.append(link)
    return found


def test_a_link_that_leads_nowhere_is_found(tmp_path):
    (tmp_path / "there.html").write_text('<p id="here"></p>')
    (tmp_path / "page.html").write_text(
        '<a href="there.html#here"></a><a href="there.html#gone"></a><img src="gone.png"><a href="#gone"></a>'
        '<a href="https://elsewhere/gone"></a>'
    )
    assert broken(tmp_path / "page.html") == ["there.html#gone", "gone.png", "#gone"]


def test_every_link_of_every_page_leads_somewhere(built):
    pages = [path for path in sorted(pages_of(built).rglob("*.html")) if "_static" not in path.parts]
    nowhere = {str(path.relative_to(pages_of(built))): broken(path) for path in pages}
    assert {page: links for page, links in nowhere.items() if links} == {}
    assert sum(len(page_at(path).links) for path in pages) > 30 * len(pages)
