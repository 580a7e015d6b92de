"""What the book's own Sphinx extensions add to its pages: how to run again, where to go, what links show."""

import json
import re
import shlex
import subprocess
import sys
from types import SimpleNamespace

import nbformat
import pytest
import yaml
from bs4 import BeautifulSoup
from PIL import Image

from fairq_audit import console
from fairq_book.build import notebooks
from fairq_book.kit import figures
from fairq_book.pages import front
from tests.conftest import ROOT
from tests.test_book import PROFILE, listed, pages_of, soup

EXTENSIONS = ROOT / "book" / "_extensions"
SLUGS = [chapter.slug for chapter in notebooks.chapters(ROOT)]
TITLE = "Who pays when a neural network is quantized?"


# ---------------------------------------------------------------- run again


def given(slug: str) -> dict:
    """What the built book was built with, as far as it differs from the chapter's defaults."""
    values = yaml.safe_load((ROOT / PROFILE).read_text())[slug]
    known = notebooks.find(slug, ROOT).parameters
    return {name: value for name, value in values.items() if value != known[name].default}


@pytest.mark.parametrize("slug", SLUGS)
def test_the_box_under_a_chapter_runs_that_chapter_with_these_parameters(built, slug):
    article = soup(built, f"notebooks/{slug}").find("article")
    (box,) = [own for own in article.select("details") if "Run this chapter again" in own.summary.get_text()]
    run, papermill = [block.get_text() for block in box.select("pre")]

    program, command, number, *rest = shlex.split(run.replace("\\\n", " "))
    assert (program, command, number) == ("fairq", "run", slug[:2])
    assert console.parse_parameters(word for word in rest if word != "-p") == given(slug)

    program, notebook, _, flag, values = shlex.split(papermill)
    assert (program, notebook, flag) == ("papermill", f"notebooks/{slug}.ipynb", "-y")
    assert yaml.safe_load(values) == given(slug)

    names = [item.select_one("strong").get_text() for item in box.select("li")]
    assert names == list(notebooks.find(slug, ROOT).parameters)
    for item, parameter in zip(box.select("li"), notebooks.find(slug, ROOT).parameters.values(), strict=True):
        assert json.dumps(parameter.default) in item.get_text()
        said = " ".join(parameter.help.replace("`", "").replace("'", "’").split())
        assert said in " ".join(item.get_text().split())

    files = [link["href"] for link in box.select("a.download")]
    assert [file.rpartition("/")[2] for file in files] == [f"{slug}.ipynb", f"{slug}.py"]
    for file in files:
        there = (pages_of(built) / "notebooks" / file).resolve()
        assert there.read_bytes() == (built.root / "notebooks" / there.name).read_bytes()


def test_a_chapter_of_defaults_runs_again_without_a_parameter(monkeypatch):
    monkeypatch.syspath_prepend(str(EXTENSIONS))
    import run_again

    first = notebooks.find("01", ROOT)
    box = run_again.box(first, {"seeds": first.parameters["seeds"].default})
    assert "fairq run 01\n```" in box
    assert "out.ipynb\n```" in box
    assert ", here" not in box
    spoken = run_again.box(first, {"root": "~/my data", "weight_range": ["mse"]})
    (command,) = re.findall(r"```sh\n(fairq .*?)\n```", spoken, re.DOTALL)
    words = shlex.split(command.replace("\\\n", " "))[3:]
    assert console.parse_parameters(word for word in words if word != "-p") == {
        "root": "~/my data",
        "weight_range": ["mse"],
    }


# ---------------------------------------------------------------- read again


def test_a_page_of_verdicts_is_read_again_when_a_table_or_the_code_changes(monkeypatch):
    monkeypatch.syspath_prepend(str(EXTENSIONS))
    import claims_pages

    noted = []
    claims_pages.depend_on_results(SimpleNamespace(note_dependency=noted.append))
    tables = ROOT / "book" / "earlier"
    changing = [*tables.glob("*/provenance.json")]
    stories = ("pages/claims.py", "chapters/logits/story.py", "kit/figures.py", "kit/tables.py")
    templates = ("pages/templates/table.html", "pages/templates/page.html")
    changing += [ROOT / "fairq_book" / name for name in (*stories, *templates)]
    assert set(map(str, changing)) <= set(noted)


# ---------------------------------------------------------------- the public address


@pytest.fixture
def page(tmp_path):
    """How a chapter's page looks with the book's settings and another address; one cell is enough."""

    def build(url: str) -> BeautifulSoup:
        settings = yaml.safe_load((ROOT / "_config.yml").read_text())
        settings["repository"]["url"] = url
        settings["sphinx"] = {"local_extensions": {"public_address": str(EXTENSIONS)}}
        settings.pop("bibtex_bibfiles")
        settings.pop("logo")
        settings["html"].pop("favicon")
        (tmp_path / "notebooks").mkdir()
        cell = nbformat.v4.new_markdown_cell("# One")
        about = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
        nbformat.write(
            nbformat.v4.new_notebook(cells=[cell], metadata=about), tmp_path / "notebooks/one.ipynb"
        )
        (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: notebooks/one\n")
        (tmp_path / "_config.yml").write_text(yaml.safe_dump(settings))
        call = "from jupyter_book.cli.main import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", call, "build", str(tmp_path), "--warningiserror"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        built = tmp_path / "_build" / "html" / "notebooks" / "one.html"
        return BeautifulSoup(built.read_text(), "html.parser")

    return build


def outward(page: BeautifulSoup) -> list[str]:
    return [link["href"] for link in page.select(".article-header-buttons a[href^=http]")]


def test_with_an_address_a_chapter_leads_to_its_source_and_to_binder(page):
    shown = page("https://github.com/owner/name")
    assert set(outward(shown)) == {
        "https://github.com/owner/name",
        "https://github.com/owner/name/blob/main/notebooks/one.ipynb?plain=1",
        "https://mybinder.org/v2/gh/owner/name/main?urlpath=lab/tree/notebooks/one.ipynb",
    }


def test_without_an_address_no_button_leads_out_of_the_book(page):
    shown = page("")
    assert outward(shown) == []
    assert "github.com/executablebooks/jupyter-book" not in str(shown)  # the builder's own, its default


@pytest.mark.parametrize("name", sorted(listed()))
def test_no_page_of_the_book_has_a_dead_button(built, name):
    shown = soup(built, name)
    assert shown.select(".article-header-buttons .btn")
    assert outward(shown) == []


def test_binder_finds_what_it_has_to_install():
    binder = ROOT / ".binder"
    assert sorted(path.name for path in binder.iterdir()) == ["requirements.txt", "runtime.txt"]
    others, own = (binder / "requirements.txt").read_text().splitlines()
    assert (binder / others.removeprefix("-r ")).resolve() == ROOT / "requirements.txt"
    assert own == "-e ."  # Binder installs from the root, where pyproject.toml lies
    version = tuple(map(int, (binder / "runtime.txt").read_text().strip().removeprefix("python-").split(".")))
    assert version == (3, 11)
    assert 'requires-python = ">=3.11,<' in (ROOT / "pyproject.toml").read_text()


# ---------------------------------------------------------------- what a link to the book shows


def about(page: BeautifulSoup) -> dict[str, str]:
    named = page.select("meta[property^='og:'], meta[name^='twitter:']")
    return {tag.get("property") or tag["name"]: tag["content"] for tag in named}


@pytest.mark.parametrize("name", sorted(listed()))
def test_a_link_to_a_page_shows_its_title_its_first_sentence_and_the_card(built, name):
    shown = soup(built, name)
    said = about(shown)
    heading = shown.find("article").find("h1")
    for link in heading.select(".headerlink"):
        link.decompose()
    assert said["og:title"] == heading.get_text().strip()
    assert said["twitter:card"] == "summary_large_image"
    text = " ".join(shown.find("article").get_text().split())
    described = said["og:description"].removesuffix(" …")
    assert described in (text, TITLE) or described in text
    assert 20 < len(said["og:description"]) <= 200
    card = ((pages_of(built) / name).parent / said["og:image"]).resolve()
    with Image.open(card) as drawn:
        assert drawn.size == (1200, 630)


def test_the_card_is_drawn_from_what_opens_the_book(built):
    assert "{front}" in (ROOT / "book" / "index.md").read_text()
    said = front.headline()
    drawn = figures.card(front.accuracies(), title=TITLE, words=said.words, backing=said.backing)
    assert (pages_of(built) / "_static" / "card.png").read_bytes() == drawn
    assert said.backing in about(soup(built, "book/index"))["og:image:alt"]


def test_at_the_books_own_address_the_same_is_shown_and_the_first_page_follows(built):
    shown = BeautifulSoup((pages_of(built) / "index.html").read_text(), "html.parser")
    first = about(soup(built, "book/index"))
    assert about(shown) == first | {"og:image": "_static/card.png"}
    assert shown.select_one("meta[http-equiv=Refresh]")["content"] == "0; url=book/index.html"
    assert shown.select_one("body a")["href"] == "book/index.html"


@pytest.mark.parametrize("base", ["https://example.org/book", "https://example.org/book/"])
def test_where_the_address_is_known_the_card_is_named_in_full(monkeypatch, base):
    monkeypatch.syspath_prepend(str(EXTENSIONS))
    import social_card

    config = SimpleNamespace(html_baseurl=base, html_title=TITLE)
    lines = social_card.tags(config, title='"A" & B', said="", page="book/words.html", to_root="../")
    said = about(BeautifulSoup(lines, "html.parser"))
    assert said["og:image"] == "https://example.org/book/_static/card.png"
    assert said["og:url"] == "https://example.org/book/book/words.html"
    assert said["og:title"] == '"A" & B'
    assert said["og:description"] == TITLE
