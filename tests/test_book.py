import hashlib
import os
import re
import signal
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from bs4 import BeautifulSoup

from tests.conftest import ROOT, Clone

PROFILE = "tests/profile.yml"


def pages_of(clone: Clone) -> Path:
    return clone.root / "_build" / "books" / "profile" / "_build" / "html"


def listed() -> set[str]:
    contents = yaml.safe_load((ROOT / "_toc.yml").read_text())
    sections = [own for chapter in contents["chapters"] for own in chapter.get("sections", [])]
    return {contents["root"], *(entry["file"] for entry in [*contents["chapters"], *sections])}


def soup(clone: Clone, page: str) -> BeautifulSoup:
    return BeautifulSoup((pages_of(clone) / f"{page}.html").read_text(), "html.parser")


def shown_numbers(clone: Clone) -> str:
    """All that the chapter says and draws, without the code."""
    article = soup(clone, "notebooks/01_disparity_baseline").find("article")
    for code in article.select(".cell_input"):
        code.decompose()
    return article.decode()


def test_the_pages_are_those_of_the_table_of_contents(built):
    own = {"genindex", "search", "index"}  # made by Sphinx itself
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
    assert "Traceback" not in text
    assert "{glue" not in text
    assert "nan" not in re.findall(r"\bnan\b", soup(built, page).get_text().lower())
    for glued in soup(built, page).select(".pasted-text, .pasted-inline"):
        assert glued.get_text().strip()


def test_every_figure_can_be_heard(built):
    article = soup(built, "notebooks/01_disparity_baseline").find("article")
    drawings = article.select("svg[role=img]")
    assert len(drawings) == 4
    for drawing in drawings:
        assert len(drawing["aria-label"]) > 40
        assert any(character.isdigit() for character in drawing["aria-label"])
    pictures = article.select("img")
    assert pictures
    assert all(picture["alt"] for picture in pictures)


def test_ids_are_unique_on_a_page(built):
    class Ids(HTMLParser):
        def __init__(self):
            super().__init__()
            self.found = []

        def handle_starttag(self, tag, attributes):
            self.found += [value for name, value in attributes if name == "id"]

    ids = Ids()
    ids.feed(shown_numbers(built))
    assert len(ids.found) > 20
    assert len(set(ids.found)) == len(ids.found)


def test_the_parameters_of_the_profile_reach_the_page(built):
    text = soup(built, "notebooks/01_disparity_baseline").get_text()
    assert "bit_widths = [8, 2]" in text
    assert "int6" not in text.split("Accuracy of each group")[1].split("Verdict")[0]


def test_two_clones_show_the_same_and_only_what_changed_runs_again(built, clone):
    first = clone.fairq("book", "--profile", PROFILE)
    assert first.returncode == 0, first.stderr
    assert "01_disparity_baseline: running" in first.stderr
    assert shown_numbers(clone) == shown_numbers(built)

    again = clone.fairq("book", "--profile", PROFILE)
    assert "01_disparity_baseline: nothing changed" in again.stderr

    other = clone.fairq("book", "--profile", PROFILE, "-p", "bit_widths=[4]")
    assert other.returncode == 0, other.stderr
    beside = clone.root / "_build" / "books" / "profile-bit-widths=-4" / "_build" / "html"
    assert "int4" in (beside / "notebooks" / "01_disparity_baseline.html").read_text()
    assert shown_numbers(clone) == shown_numbers(built)

    source = clone.root / "notebooks" / "01_disparity_baseline.py"
    source.write_text(source.read_text().replace("## The gap", "## The rift"))
    edited = clone.fairq("book", "--profile", PROFILE)
    assert "01_disparity_baseline: running" in edited.stderr
    assert "The rift" in shown_numbers(clone)

    library = clone.root / "fairq_utils" / "claims.py"
    library.write_text(library.read_text().replace("the networks have collapsed", "the networks are gone"))
    stale = clone.fairq("book", "--profile", PROFILE)
    assert "01_disparity_baseline: running" in stale.stderr
    assert "the networks are gone" in shown_numbers(clone)


@pytest.mark.timeout(1200)
def test_killed_at_several_moments_the_book_ends_the_same(built, clone):
    for moment in (2.0, 5.0, 8.0, 12.0, 16.0):
        process = clone.start("book", "--profile", PROFILE)
        time.sleep(moment)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    done = clone.fairq("book", "--profile", PROFILE)
    assert done.returncode == 0, done.stderr
    assert "damaged" not in done.stderr
    assert shown_numbers(clone) == shown_numbers(built)
    for page in listed():
        assert soup(clone, page).find("article").decode() == soup(built, page).find("article").decode()


def test_a_damaged_network_is_named_and_trained_again(clone):
    small = ["-p", "train_images=60", "-p", "test_images=60", "-p", "epochs=1", "-p", "seeds=[0]"]
    assert clone.fairq("run", "01", *small, "-p", "bit_widths=[4]").returncode == 0
    (network,) = clone.store.glob("networks/*.safetensors")
    whole = network.read_bytes()
    digest = hashlib.sha256(whole).hexdigest()
    network.write_bytes(whole[:-1000])
    done = clone.fairq("run", "01", *small, "-p", "bit_widths=[5]")
    assert done.returncode == 0, done.stderr
    assert f"{network.name} was damaged: it is set aside" in done.stderr
    assert hashlib.sha256(network.read_bytes()).hexdigest() == digest


def test_a_failing_chapter_fails_the_book(clone):
    source = clone.root / "notebooks" / "01_disparity_baseline.py"
    source.write_text(source.read_text().replace("treatments = studies", "1 / 0\ntreatments = studies"))
    done = clone.fairq("book", "--profile", PROFILE)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
    assert not pages_of(clone).exists()


def test_a_warning_of_sphinx_fails_the_book(clone):
    index = clone.root / "book" / "index.md"
    index.write_text(index.read_text() + "\n{cite}`nobody1900`\n")
    done = clone.fairq("book", "--profile", PROFILE)
    assert done.returncode == 1
    assert "nobody1900" in done.stderr
