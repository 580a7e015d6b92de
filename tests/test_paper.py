"""The book on paper: every word, figure and table of it, and nothing beyond the edge of a sheet."""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pypdf
import pypdfium2
import pytest
from bs4 import BeautifulSoup
from click.testing import CliRunner

from fairq_book.build import pdf
from fairq_book.cli import book, main
from fairq_utils.errors import BadInput
from tests.conftest import ROOT
from tests.test_book import PROFILE, pages_of

PAGES = pdf.listed(ROOT / "_toc.yml")
RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff]")  # Hebrew, Arabic and their neighbours
MARGIN = 40  # points; the sheets leave more than that on every side


@dataclass(frozen=True)
class Printed:
    """The PDF of the whole book, and the pages that it was made of."""

    path: Path
    pages: Path

    @cached_property
    def reader(self):
        return pypdf.PdfReader(self.path)

    @cached_property
    def texts(self):
        # PDFium may take a sheet that lies on its side for one that is written from top to bottom.
        document = pypdfium2.PdfDocument(self.path)
        return [
            own.extract_text()
            if own.mediabox.width > own.mediabox.height
            else page.get_textpage().get_text_range()
            for own, page in zip(self.reader.pages, document, strict=True)
        ]

    @cached_property
    def outline(self):
        """Of every heading, in order: how deep it lies, what it says, on which sheet."""
        return list(self._below(self.reader.outline, 0))

    def _below(self, entries, depth):
        for entry in entries:
            if isinstance(entry, list):
                yield from self._below(entry, depth + 1)
            else:
                yield depth, entry.title, self.reader.get_destination_page_number(entry) + 1

    def parts(self, kind):
        """What a screen reader is told to be of this kind: each with the sheets that it lies on."""
        every = below(self.reader.trailer["/Root"]["/StructTreeRoot"])
        return [(node, sheets(node)) for node in every if node.get("/S") == kind]


def inside(node):
    own = node.get("/K", [])
    own = [part.get_object() for part in (own if isinstance(own, list) else [own])]
    return [part for part in own if isinstance(part, dict)]


def below(node):
    yield node
    for part in inside(node):
        yield from below(part)


def sheets(node):
    own = {node.raw_get("/Pg").idnum} if "/Pg" in node else set()
    return own.union(*map(sheets, inside(node)))


@pytest.fixture(scope="module")
def printed(built, tmp_path_factory):
    try:
        pdf.chromium()
    except BadInput as missing:
        pytest.skip(str(missing))
    path = tmp_path_factory.mktemp("printed") / "book.pdf"
    done = built.fairq("pdf", "--profile", PROFILE, "--out", str(path))
    assert done.returncode == 0, done.stderr
    assert "nothing changed" in done.stderr
    assert "fairq-on-paper" in (pages_of(built) / "book" / "index.html").read_text()
    return Printed(path, pages_of(built))


def whole(printed, page):
    return BeautifulSoup((printed.pages / f"{page.name}.html").read_text(), "html.parser")


def article(printed, page):
    return whole(printed, page).find("article")


def squeezed(text):
    """Without spaces, and with the hyphens at the end of lines, which are read back as another sign."""
    return re.sub(r"\s+", "", text.replace("\u00ad", "").replace("\ufffe", "-"))


def test_every_page_of_the_book_is_in_the_outline_and_begins_on_a_sheet_of_its_own(printed):
    titles = ["In short", *(pdf._title(pdf._article(whole(printed, page), page)) for page in PAGES[1:])]
    found = [(title, sheet) for depth, title, sheet in printed.outline if title in titles]
    assert [title for title, _ in found] == titles
    assert len({sheet for _, sheet in found}) == len(titles)
    depths = {title: depth for depth, title, _ in printed.outline}
    assert depths["Moths"] == depths["Data cards"] + 1
    assert depths["The gap"] == depths["1. Who pays?"] + 1


def test_the_contents_say_on_which_sheet_each_section_begins(printed):
    begins = {title: sheet for _, title, sheet in printed.outline}
    listed = squeezed("".join(printed.texts[begins["Contents"] - 1 : begins["In short"] - 1]))
    for title in ("1. Who pays?", "The gap", "Moths", "References"):
        assert re.search(rf"{re.escape(squeezed(title))}{begins[title]}(?!\d)", listed), title


def test_the_title_page_says_what_was_printed_and_holds_the_front_figure(printed):
    first = " ".join(printed.texts[0].split())
    assert "Who pays when a neural network is quantized?" in first
    assert f"Profile {PROFILE}" in first
    assert re.search(r"Printed \d+ \w+ 20\d\d", first)
    assert "accuracy,%" in squeezed(first)


def test_all_sheets_are_a4_and_carry_their_number(printed):
    assert len(PAGES) * 2 < len(printed.reader.pages) < 400
    for number, (page, text) in enumerate(zip(printed.reader.pages, printed.texts, strict=True), 1):
        assert sorted(round(float(side)) for side in page.mediabox[2:]) == pytest.approx([595, 842], abs=1)
        assert number == 1 or str(number) in text.split()
        assert text.strip()


def test_fonts_are_embedded_and_formulas_are_set(printed):
    names = set()
    for page in printed.reader.pages:
        for font in (page["/Resources"].get("/Font") or {}).values():
            own = font.get_object()
            own = own["/DescendantFonts"][0].get_object() if "/DescendantFonts" in own else own
            about = own["/FontDescriptor"]
            names.add(about["/FontName"])
            # The letters of type 3 are drawings in the file.
            assert own["/Subtype"] == "/Type3" or any(f"/FontFile{kind}" in about for kind in ("", "2", "3"))
    assert any("MathJax_Math" in name for name in names)
    assert not re.search(r"\\(frac|left|text|sum)\b", "".join(printed.texts))


def test_no_word_lies_beyond_the_edge_and_nothing_was_shrunk(printed):
    document = pypdfium2.PdfDocument(printed.path)
    for number in range(len(document)):
        page = document[number]
        text, (width, height) = page.get_textpage(), page.get_size()
        for index in range(text.count_rects()):
            left, bottom, right, top = text.get_rect(index)
            if left < 0 and right > width:
                continue  # the bar of a root, drawn far too long and clipped
            assert MARGIN < left < right < width - MARGIN, (number + 1, left, right)
            assert MARGIN / 2 < bottom < top < height - MARGIN / 2, (number + 1, bottom, top)
    sizes = set()
    first = next(sheet for _, title, sheet in printed.outline if title == "1. Who pays?")
    printed.reader.pages[first - 1].extract_text(
        visitor_text=lambda text, cm, tm, font, size: sizes.add(round(abs(cm[0] * tm[0]) * size, 1))
    )
    assert 9.5 in sizes  # a table wider than its sheet would make Chromium shrink all of the book


def test_every_figure_is_there_and_whole(printed):
    heard = {}
    for node, own in printed.parts("/Figure"):
        heard.setdefault(" ".join(str(node.get("/Alt", "")).split()), []).append(own)
    for page in PAGES:
        drawings = article(printed, page).select("svg[role=img], img")
        for drawing in drawings:
            said = " ".join((drawing.get("aria-label") or drawing["alt"]).split())
            assert said in heard, (page.name, said)
            assert all(len(own) == 1 for own in heard[said]), said
    assert len(heard) > 60


def test_every_row_of_every_table_is_there_and_uncut(printed):
    text = squeezed("".join(printed.texts))
    rows = 0
    for page in PAGES:
        for cell in article(printed, page).select("table td, table th"):
            for piece in cell.find_all(string=True):
                if piece.find_parent("a") is None or piece.find_parent("a")["href"].endswith(".html"):
                    # A row with words from right to left is read back in another order: by letters, then.
                    loose = RIGHT_TO_LEFT.search(cell.find_parent("tr").get_text())
                    parts = squeezed(piece) if loose else [squeezed(piece)]
                    assert all(part in text for part in parts), (page.name, piece)
                    rows += 1
    assert rows > 500
    split = [row for row, own in printed.parts("/TR") if len(own) > 1]
    # Heads are said on every sheet; where they are said again, their lines are marked without being a cell.
    assert all(part.get("/S", "/TH") == "/TH" for row in split for part in inside(row))


def test_links_lead_to_a_place_in_the_file_or_to_the_web(printed):
    named, within = printed.reader.named_destinations, 0
    for page in printed.reader.pages:
        for note in page.get("/Annots") or ():
            link = note.get_object()
            if "/Dest" in link:
                assert link["/Dest"] in named
                within += 1
            else:
                assert re.match("https?://", link["/A"]["/URI"]), link["/A"]["/URI"]
    assert within > 400
    begins = {title: sheet for _, title, sheet in printed.outline}
    target = named["/notebooks-01_disparity_baseline--the-gap"]
    assert printed.reader.get_destination_page_number(target) + 1 == begins["The gap"]


def test_nothing_of_a_screen_is_on_paper(printed):
    text = " ".join("".join(printed.texts).split())
    for word in ("Show code cell source", "Skip to main content", "Click to show", "Print to PDF"):
        assert word not in text
    assert "On a screen this answers you" in text
    assert "figures.accuracy_by_treatment(accuracies)" not in text  # folded away on the page


def test_the_joined_document_asks_nobody_for_anything(printed):
    joined = pdf.join(printed.pages, PAGES, facts={})
    tags = BeautifulSoup(joined, "html.parser").select("link[href], [src]")
    assert len(tags) > 10
    assert {(tag.get("src") or tag["href"]).partition(":")[0] for tag in tags} <= {"file", "data"}
    ids = re.findall(r'<(?!svg)\w+[^>]* id="([^"]+)"', joined)
    assert len([name for name in ids if not name.startswith("fig")]) > 300


def test_a_page_that_a_reader_prints_in_the_dark_is_light_and_is_the_text_alone(built, browser, tmp_path):
    context = browser.new_context(color_scheme="dark")
    page = context.new_page()
    page.goto((pages_of(built) / "notebooks" / "03_zero_bin_sparsity.html").as_uri())
    page.wait_for_function("document.documentElement.dataset.theme === 'dark'")
    (tmp_path / "page.pdf").write_bytes(page.pdf(prefer_css_page_size=True, print_background=True))
    context.close()
    document = pypdfium2.PdfDocument(tmp_path / "page.pdf")
    first = document[0].render().to_numpy()
    assert (first[5, 5, :3] == 255).all()
    assert (first.min(axis=2) < 128).mean() < 0.2
    text = "".join(document[number].get_textpage().get_text_range() for number in range(len(document)))
    assert "Do small groups live on small weights?" in text
    assert text.count("What repairs it?") == 0  # the navigation names it
    assert "On a screen this answers you" in text


def test_without_a_browser_one_sentence_names_what_to_install(monkeypatch):
    monkeypatch.setenv("PATH", "")
    done = CliRunner().invoke(main.main, ["pdf"])
    assert done.exit_code == 2
    assert done.output.startswith("Error: No browser is on the PATH; expected one of chromium,")
    assert "install Chromium" in done.output


def test_a_browser_that_prints_nothing_is_quoted(tmp_path, monkeypatch):
    broken = tmp_path / "chromium"
    broken.write_text("#!/bin/sh\necho no display >&2\nexit 1\n")
    broken.chmod(0o755)
    with pytest.raises(BadInput, match=r"printed nothing; .* no display"):
        pdf._print(str(broken), tmp_path / "book.html", tmp_path / "book.pdf")


def test_the_first_page_offers_the_pdf_that_lies_beside_it(tmp_path, monkeypatch):
    html = tmp_path / "html"
    front = html / "book" / "index.html"
    front.parent.mkdir(parents=True)
    front.write_text('<p>Read. <span class="fairq-on-paper"></span></p>')

    def write(pages, contents, out, *, facts):
        assert (pages, contents.name, facts["Profile"]) == (html, "_toc.yml", "laptop, bit_widths=[3]")
        out.write_bytes(bytes(2_000_000))
        return 7

    monkeypatch.setattr(book, "_build", lambda *_: html)
    monkeypatch.setattr(pdf, "chromium", lambda: "chromium")
    monkeypatch.setattr(pdf, "write", write)
    for _ in range(2):
        done = CliRunner().invoke(main.main, ["pdf", "-p", "bit_widths=[3]"])
        assert done.exit_code == 0, done.output
        assert "(7 pages, 2.0 MB)" in done.output
        (link,) = BeautifulSoup(front.read_text(), "html.parser").select(".fairq-on-paper a")
        assert (front.parent / link["href"]).resolve() == html / "fairq.pdf"
        assert front.read_text().count("(7 pages, 2.0 MB, printed ") == 1
    CliRunner().invoke(main.main, ["pdf", "-p", "bit_widths=[3]", "-o", str(tmp_path / "own.pdf")])
    assert (tmp_path / "own.pdf").exists()
    assert "own.pdf" not in front.read_text()


def test_the_page_that_offers_the_pdf_keeps_a_place_for_it():
    assert (ROOT / "book" / "index.md").read_text().count('<span class="fairq-on-paper"></span>') == 1
