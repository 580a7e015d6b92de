import json
import os
import re
import shutil
import signal
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from fairq_book import registry
from fairq_book.build import notebooks, pdf
from fairq_book.kit import earlier
from fairq_book.kit.measured import Measured, from_output, of_chapters
from tests.conftest import ROOT, Clone

PROFILE = "tests/profile.yml"


def pages_of(clone: Clone) -> Path:
    return clone.root / "_build" / "books" / "profile" / "_build" / "html"


def listed() -> set[str]:
    return {page.name for page in pdf.listed(ROOT / "_toc.yml")}


def soup(clone: Clone, page: str) -> BeautifulSoup:
    return BeautifulSoup((pages_of(clone) / f"{page}.html").read_text(), "html.parser")


def measured_in(clone: Clone) -> Measured:
    """What the chapters of that book measured, as their executed notebooks hold it."""
    executed = (clone.root / "_build" / "executed").glob("*.ipynb")
    read = {path.name[:-23]: json.loads(path.read_text())["metadata"] for path in executed}
    found = {
        slug: from_output(own["fairq_measured"]) for slug, own in read.items() if "fairq_measured" in own
    }
    assert len(found) == 5
    return of_chapters(found)


def shown_numbers(clone: Clone) -> str:
    """All that the chapter says and draws, without the code."""
    article = soup(clone, "notebooks/01_disparity_baseline").find("article")
    for code in article.select(".cell_input"):
        code.decompose()
    return article.decode()


def test_the_pages_are_those_of_the_table_of_contents(built):
    own = {"genindex", "py-modindex", "search", "index"}  # made by Sphinx itself
    pages = {
        str(path.relative_to(pages_of(built)).with_suffix("")) for path in pages_of(built).rglob("*.html")
    }
    assert {page for page in pages if not page.startswith("_static")} - own == listed()
    assert (pages_of(built) / "index.html").exists()


@pytest.mark.parametrize("page", sorted(listed()))
def test_no_page_shows_what_no_reader_should_see(built, page):
    text = (pages_of(built) / f"{page}.html").read_text()
    for place in (str(built.root), str(built.store), str(ROOT), str(Path.home()), "/tmp/"):
        assert place not in text
    assert "{glue" not in text
    if not page.startswith("book/api/"):  # docstrings show how bad input is refused
        assert "Traceback" not in text
        assert "nan" not in re.findall(r"\bnan\b", soup(built, page).get_text().lower())
    for glued in soup(built, page).select(".pasted-text, .pasted-inline"):
        assert glued.get_text().strip()


@pytest.mark.parametrize("page", sorted(listed()))
def test_no_page_fetches_anything_from_elsewhere(built, page):
    here = soup(built, page)
    fetched = [tag.get("src") or tag.get("href") for tag in here.select("script[src], img[src], iframe[src]")]
    fetched += [link["href"] for link in here.select("link[href]") if "canonical" not in link["rel"]]
    assert fetched
    for place in fetched:
        assert not re.match(r"(https?:)?//", place), place
        own = (pages_of(built) / page).parent / place.partition("?")[0].partition("#")[0]
        assert place.startswith("data:") or own.is_file(), place
    if here.select(".math"):
        assert any("mathjax" in place for place in fetched)


@pytest.mark.parametrize("slug", [chapter.slug for chapter in notebooks.chapters(ROOT)])
def test_every_figure_can_be_heard(built, slug):
    article = soup(built, f"notebooks/{slug}").find("article")
    drawings = article.select("svg[role=img]")
    assert len(drawings) >= (4 if slug < "07" else 2)
    for drawing in drawings:
        assert len(drawing["aria-label"]) > 40
        assert any(character.isdigit() for character in drawing["aria-label"])
    assert len(article.select("figure figcaption")) == len(drawings)
    assert all(picture["alt"] for picture in article.select("img"))


@pytest.mark.parametrize("name", ["moths", "utkface", "fairface", "celeba"])
def test_a_data_card_draws_its_counts_and_says_its_facts(built, name):
    article = soup(built, f"book/data/{name}").find("article")
    (drawing,) = article.select("svg[role=img]")
    counted = json.loads((ROOT / "book" / "data" / f"{name}.json").read_text())["counts"]
    for group in {record["group"] for record in counted}:
        train, test = (
            sum(r["n"] for r in counted if (r["group"], r["split"]) == (group, split))
            for split in ("train", "test")
        )
        assert f"{group} {train} and {test}" in drawing["aria-label"]
    assert not article.select("img")
    assert "{fact}" not in article.get_text()


def test_the_page_of_claims_says_what_the_tables_say(built):
    article = soup(built, "book/claims").find("article")
    shown = earlier.every(["utkface", "gender", "fairface"])
    shown |= {"here": measured_in(built)} | earlier.every(["fairface_encoders"])
    # Of networks and of populations, at a glance; then the same in full.
    claimed = [t for t in article.select("table.fairq-verdicts") if t.select_one("th").text == "claim"]
    glance, *others = claimed[:4]
    judged = [
        claim.verdict(own.by(claim.chapter)).word
        for claim in registry.CLAIMS.values()
        for own in shown.values()
        if claim.asked_of(own.by(claim.chapter))
    ]
    heads = [cell.get_text() for cell in glance.select("thead th")]
    assert heads == ["claim", "UTKFace", "UTKFace, gender", "FairFace", "Moths"]
    for pair, words in (((glance, others[0]), "a .fairq-word"), (others[1:], ".fairq-word")):
        assert [word.get_text() for table in pair for word in table.select(words)] == judged
    for key in registry.CLAIMS:
        assert article.select(f"#claim-{key.lower()}")
    assert "What we could not decide" in article.get_text() or "undecided" not in glance.get_text()


@pytest.mark.parametrize("slug", [chapter.slug for chapter in notebooks.chapters(ROOT)])
def test_ids_are_unique_on_a_page(built, slug):
    class Ids(HTMLParser):
        def __init__(self):
            super().__init__()
            self.found = []

        def handle_starttag(self, tag, attributes):
            self.found += [value for name, value in attributes if name == "id"]

    ids = Ids()
    ids.feed(soup(built, f"notebooks/{slug}").find("article").decode())
    assert len(ids.found) > (3 if slug == "09_explorer" else 15)
    assert len(set(ids.found)) == len(ids.found)


def test_the_parameters_of_the_profile_reach_the_page(built):
    text = soup(built, "notebooks/01_disparity_baseline").get_text()
    assert "bit_widths = [8, 2]" in text
    assert "int6" not in text.split("Accuracy of each group")[1].split("Verdict")[0]


def test_a_build_says_in_whole_lines_what_runs_and_what_was_spent_at_its_end(built):
    said = (built.root.parent / "said.txt").read_text()
    assert "\r" not in said
    lines = said.splitlines()
    for part in (*(chapter.slug for chapter in notebooks.chapters(ROOT)), "pages"):
        begun = lines.index(f"{part}: running")
        assert any(re.fullmatch(rf"{part}: done in \d+ s", line) for line in lines[begun:])
    assert lines.index("02_logit_variance_collapse: running") < 3  # beside the first, in any order
    spent = {line[:24].strip(): line[24:].split() for line in lines[lines.index("pages: running") :]}
    # What the jobs of chapters took depends on what the store held before: perhaps nothing.
    assert all(int(spent[what][0]) >= 0 for what in ("chapters 1 to 4", "chapter 5", "chapter 6"))
    assert int(spent["pages"][0]) > 0


def test_killed_again_and_again_two_clones_show_the_same_and_only_what_changed_runs_again(built, short_book):
    root, pages = short_book.root, pages_of(short_book)
    moments = {
        "a network is there": lambda: any(short_book.store.glob("networks/*.safetensors")),
        "predictions are there": lambda: len([*short_book.store.glob("predictions/*.safetensors")]) > 6,
        "the chapter has been run": lambda: any(root.glob("_build/executed/01*.ipynb")),
        "some pages are written": lambda: len([*pages.glob("book/**/*.html")]) > 2,
    }
    for moment, has_come in moments.items():
        process = short_book.start("book", "--profile", PROFILE)
        while not has_come():
            assert process.poll() is None, moment
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    first = short_book.fairq("book", "--profile", PROFILE)
    assert first.returncode == 0, first.stderr
    assert "damaged" not in first.stderr
    assert "01_disparity_baseline: nothing changed" in first.stderr
    assert shown_numbers(short_book) == shown_numbers(built)
    for page in listed():
        # Others mention chapters that the short book does not have, as the list of all data does.
        if page.startswith("book/data/") and page != "book/data/index":
            assert (pages / f"{page}.html").exists()
            both = [soup(clone, page).find("article").decode() for clone in (short_book, built)]
            assert both[0] == both[1]

    again = short_book.fairq("book", "--profile", PROFILE)
    assert "pages: nothing changed" in again.stderr
    other = short_book.fairq("book", "--profile", PROFILE, "-p", "bit_widths=[4]")
    assert other.returncode == 0, other.stderr
    assert "01_disparity_baseline: running" in other.stderr
    beside = root / "_build" / "books" / "profile-bit-widths=-4" / "_build" / "html"
    assert "int4" in (beside / "notebooks" / "01_disparity_baseline.html").read_text()
    assert shown_numbers(short_book) == shown_numbers(built)

    library = root / "fairq_book" / "chapters" / "disparity" / "story.py"
    library.write_text(library.read_text().replace("the networks have collapsed", "the networks are gone"))
    stale = short_book.fairq("book", "--profile", PROFILE)
    assert "01_disparity_baseline: running" in stale.stderr
    assert "the networks are gone" in shown_numbers(short_book)


def test_pages_are_built_again_when_anything_that_they_are_made_of_changes(tmp_path):
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "words.md").write_text("One sentence.")
    (tmp_path / "_toc.yml").write_text("format: jb-book")
    values = notebooks.load_profile(PROFILE, ROOT)
    first = notebooks.pages_key(tmp_path, values)
    assert notebooks.pages_key(tmp_path, values) == first
    keys = {first}
    for path in ("book/words.md", "book/data.csv", "_toc.yml", "requirements.txt"):
        (tmp_path / path).write_text(f"{path} is another.")
        keys.add(notebooks.pages_key(tmp_path, values))
    keys.add(notebooks.pages_key(tmp_path, values | {"01_disparity_baseline": {"bit_widths": [5]}}))
    assert len(keys) == 6
