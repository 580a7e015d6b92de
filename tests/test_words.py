"""Words of the glossary are linked where a page first uses them, and explained in the margin where needed."""

import re

import pytest
from bs4 import BeautifulSoup

from fairq_book.build import notebooks
from tests.conftest import ROOT
from tests.test_book import listed, soup

# Words that mean one thing only; of others, such as "group" or "scale", no rule could tell what is meant.
UNMISTAKABLE = {
    "OA": "OA",
    "FVO": "FVO",
    "PTQ": "PTQ",
    "QAT": "QAT",
    "FairQAT": "FairQAT",
    "zero bin": "zero-bin",
    "logits?": "logit",
}
READ = sorted(
    page
    for page in listed()
    if not page.startswith("book/api/") and page not in ("book/words", "book/references")
)
CHAPTERS = [chapter.slug for chapter in notebooks.chapters(ROOT) if chapter.slug < "06"]


def key(link) -> str:
    return link["href"].partition("#term-")[2]


def prose(article: BeautifulSoup) -> BeautifulSoup:
    """What an author wrote: no code, no headings, nothing computed, no notes at the side."""
    unwritten = (
        ".cell_output, .cell_input, pre, code, h1, h2, h3, aside, details, figure, table.fairq-verdicts, "
        ".fairq-widget, .fairq-computed, .math, .doc"  # the last are titles of pages
    )
    for element in article.select(unwritten):
        element.decompose()
    return article


def unlinked(article: BeautifulSoup) -> list[str]:
    """Words that stand on the page before they are linked, or without being linked."""
    written = prose(article)
    for link in written.select("a:has(.std-term)"):
        link.replace_with(f"⟦{key(link)}⟧")
    text = written.get_text()
    found = []
    for word, name in UNMISTAKABLE.items():
        first = re.search(rf"(?<![\w⟦-]){word}(?![\w⟧-])", text, re.IGNORECASE if name.islower() else 0)
        if first and f"⟦{name}⟧" not in text[: first.start()]:
            found.append(word)
    return found


def test_a_word_that_is_linked_too_late_is_found():
    linked = '<a href="w.html#term-FVO"><span class="std-term">FVO</span></a>'
    assert unlinked(BeautifulSoup(f"<p>{linked} and FVO.</p><pre>OA</pre>", "html.parser")) == []
    assert unlinked(BeautifulSoup(f"<p>FVO and {linked}, logits.</p>", "html.parser")) == ["FVO", "logits?"]


@pytest.mark.parametrize("page", READ)
def test_a_word_is_linked_where_a_page_first_uses_it_and_only_there(built, page):
    article = soup(built, page).find("article")
    linked = [key(link) for link in article.select("a:has(.std-term)")]
    assert len(set(linked)) == len(linked)
    assert unlinked(article) == []  # which takes the links out


def test_every_word_is_used_somewhere(built):
    defined = {term["id"].removeprefix("term-") for term in soup(built, "book/words").select("dt[id]")}
    used = {key(link) for page in READ for link in soup(built, page).select("article a:has(.std-term)")}
    assert len(defined) > 15
    assert used == defined


@pytest.mark.parametrize("slug", CHAPTERS)
def test_a_chapter_explains_in_the_margin_what_is_needed_there(built, slug):
    notes = soup(built, f"notebooks/{slug}").select("aside.margin")
    assert 1 <= len(notes) <= 3
    for note in notes:
        assert note.select_one(".sidebar-title").get_text().strip()
        assert len(note.get_text()) > 60


def test_a_formula_has_one_number_in_the_whole_book(built):
    numbers = [
        number.get_text() for slug in CHAPTERS for number in soup(built, f"notebooks/{slug}").select(".eqno")
    ]
    numbers = [re.sub(r"[^()\d]", "", number) for number in numbers]
    assert len(numbers) == len(CHAPTERS) == len(set(numbers))
    third = soup(built, "notebooks/03_zero_bin_sparsity")
    (across,) = third.select("a[href^='01_disparity_baseline.html#equation-rounding']")
    assert across.get_text() == numbers[0]


@pytest.mark.parametrize("slug", CHAPTERS[:3])
def test_the_first_chapters_lead_back_to_the_network_that_can_be_quantized(built, slug):
    (link,) = soup(built, f"notebooks/{slug}").select("article a[href*='#quantize-yourself']")
    assert link["href"] == "../book/index.html#quantize-yourself"
    place = soup(built, "book/index").select_one("#quantize-yourself")
    assert (place if place.name == "section" else place.parent).select(".fairq-widget[data-kind=playground]")
