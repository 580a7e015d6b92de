import json
import os
import re
import shutil
import time
from pathlib import Path

import jupytext
import nbformat
import pytest

from fairq_book.build import notebooks
from fairq_book.build.notebooks import Chapter, Parameter
from fairq_utils.errors import BadInput, ChapterFailed
from tests.conftest import ROOT

HEADER = """\
# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,mystnb,-all
#     formats: ipynb,py:percent
#     notebook_metadata_filter: kernelspec,jupytext,-jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Small

# %% tags=["parameters"]
widths: list[int] = [8, 4]  # how wide
name: str = "x"
rate: float = 0.5
deep: bool = False

"""


@pytest.fixture
def small(tmp_path):
    """A chapter in a book of its own, with the given cells behind its parameters."""

    def write(*cells: str) -> Chapter:
        (tmp_path / "notebooks").mkdir(exist_ok=True)
        (tmp_path / "_toc.yml").touch()
        source = tmp_path / "notebooks" / "01_small.py"
        source.write_text(HEADER + "\n".join(f"# %%\n{cell}\n" for cell in cells))
        return Chapter(source)

    return write


def test_parameters_are_read_with_type_default_and_help(small):
    parameters = small().parameters
    assert parameters["widths"] == Parameter("widths", "list[int]", [8, 4], "how wide")
    assert [(p.name, p.annotation, p.default) for p in parameters.values()][1:] == [
        ("name", "str", "x"),
        ("rate", "float", 0.5),
        ("deep", "bool", False),
    ]


@pytest.mark.parametrize(
    "value", [{"widths": []}, {"widths": [3]}, {"name": ""}, {"rate": 1}, {"deep": True}]
)
def test_values_of_the_right_type_pass(small, value):
    assert small().check(value) == value


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"widths": 3}, r"widths is 3; expected list\[int\], such as \[8, 4\]"),
        ({"widths": ["3"]}, r"widths is \['3'\]"),
        ({"widths": [True]}, r"widths is \[True\]"),
        ({"widths": None}, "widths is None"),
        ({"name": 3}, "name is 3; expected str"),
        ({"rate": "fast"}, "rate is 'fast'; expected float"),
        ({"rate": True}, "rate is True"),
        ({"deep": 1}, "deep is 1; expected bool"),
        ({"width": [3]}, "no parameter 'width'; expected one of: widths, name, rate, deep"),
    ],
)
def test_unknown_names_and_wrong_types_are_refused(small, value, said):
    with pytest.raises(BadInput, match=said):
        small().check(value)


def outputs(path) -> str:
    cells = nbformat.read(path, as_version=4).cells
    return "".join(o.get("text", "") for c in cells if c.cell_type == "code" for o in c.outputs)


def test_a_chapter_runs_once_for_each_set_of_values(small, tmp_path):
    ran = tmp_path / "ran"
    chapter = small(f"open({str(ran)!r}, 'a').write('x')", "print(widths, name)")
    path = notebooks.execute(chapter, {"widths": [3]})
    assert outputs(path) == "[3] x\n"
    assert notebooks.execute(chapter, {"widths": [3]}) == path
    assert ran.read_text() == "x"
    defaults = notebooks.execute(chapter, {"name": "x", "widths": [8, 4]})
    assert outputs(defaults) == "[8, 4] x\n"
    assert "injected-parameters" not in defaults.read_text()
    assert notebooks.execute(chapter, {}) == defaults
    assert ran.read_text() == "xx"


def test_the_key_follows_cells_values_library_and_versions(small, monkeypatch):
    chapter = small("print(1)")
    key = chapter.key({})
    assert small("print(1)").key({}) == key
    assert small("print(2)").key({}) != key
    assert chapter.key({"name": "y"}) != key
    monkeypatch.setattr(notebooks, "library_digest", lambda: "edited")
    assert chapter.key({}) != key
    monkeypatch.undo()
    monkeypatch.setattr(notebooks, "versions", lambda *names: dict.fromkeys(names, "9"))
    assert chapter.key({}) != key


def test_what_is_kept_names_no_place_and_no_time(small, tmp_path):
    chapter = small("import sys; print('bar', file=sys.stderr); print('kept')")
    kept = notebooks.execute(chapter, {"name": "y"}).read_text()
    assert "kept" in kept
    assert "bar" not in kept.replace("print('bar'", "")
    assert str(tmp_path) not in kept
    assert "start_time" not in kept


def test_a_refusal_inside_a_cell_arrives_as_its_sentence(small):
    chapter = small("from fairq_utils.errors import BadInput", "raise BadInput('name is y; expected x.')")
    with pytest.raises(BadInput, match=r"^name is y; expected x\.$"):
        notebooks.execute(chapter, {})
    assert not list((chapter.source.parents[1] / "_build").rglob("*.ipynb"))


def test_any_other_failure_keeps_its_traceback(small):
    with pytest.raises(ChapterFailed, match=r"01_small failed in cell 2:(?s:.*)ZeroDivisionError"):
        notebooks.execute(small("1 / 0"), {})


def test_the_half_saved_last_wins_and_outputs_are_dropped(small):
    chapter = small("print(1)")
    assert notebooks.sync(chapter) == [chapter.notebook]
    assert notebooks.sync(chapter) == []

    edited = nbformat.read(chapter.notebook, as_version=4)
    edited.cells[-1].source = "print(2)"
    edited.cells[-1].outputs = [nbformat.v4.new_output("stream", text="2")]
    nbformat.write(edited, chapter.notebook)
    later = chapter.source.stat().st_mtime + 10
    os.utime(chapter.notebook, (later, later))
    assert notebooks.sync(chapter, check=True) == [chapter.source, chapter.notebook]
    assert "print(1)" in chapter.source.read_text()
    assert notebooks.sync(chapter) == [chapter.source, chapter.notebook]
    assert "print(2)" in chapter.source.read_text()
    assert '"output_type"' not in chapter.notebook.read_text()

    chapter.source.write_text(chapter.source.read_text().replace("print(2)", "print(3)"))
    os.utime(chapter.source, (later + 10, later + 10))
    notebooks.sync(chapter)
    assert "print(3)" in chapter.notebook.read_text()


def edit(path: Path, old: str, new: str, hours: int) -> None:
    """Replaced by an editor whose clock is so many hours off."""
    path.write_text(path.read_text().replace(old, new))
    os.utime(path, (time.time() + 3600 * hours,) * 2)


def kept(chapter) -> dict[str, str]:
    folder = chapter.source.parents[1] / "_build" / "replaced"
    return {path.suffix: path.read_text() for path in folder.glob("*")}


@pytest.mark.parametrize("hours", [-5, 5])
@pytest.mark.parametrize("half", ["source", "notebook"])
def test_the_half_that_was_edited_wins_whatever_the_clock_says(small, half, hours):
    chapter = small("print(1)")
    notebooks.sync(chapter)
    edit(getattr(chapter, half), "print(1)", "print(2)", hours)
    notebooks.sync(chapter)
    assert "print(2)" in chapter.source.read_text()
    assert "print(2)" in chapter.notebook.read_text()
    assert kept(chapter) == {}
    assert notebooks.sync(chapter, check=True) == []


@pytest.mark.parametrize(("later", "wins", "loses"), [("source", "py", "nb"), ("notebook", "nb", "py")])
def test_of_two_edited_halves_the_later_wins_and_the_other_is_kept(small, later, wins, loses):
    chapter = small("print(1)")
    notebooks.sync(chapter)
    for half, name in (("source", "py"), ("notebook", "nb")):
        edit(getattr(chapter, half), "print(1)", f"print('{name}')", hours=2 * (half == later))
    lost = (chapter.source if loses == "py" else chapter.notebook).read_text()
    asked = notebooks.sync(chapter, check=True)
    assert chapter.source in asked or chapter.notebook in asked
    assert kept(chapter) == {}
    written = notebooks.sync(chapter)
    assert f"print('{wins}')" in chapter.source.read_text()
    assert f"print('{wins}')" in chapter.notebook.read_text()
    (copy,) = set(written) - {chapter.source, chapter.notebook}
    assert copy.read_text() == lost
    assert notebooks.sync(chapter) == []


def test_where_no_sync_was_before_nothing_is_lost_either(small):
    chapter = small("print(1)")
    notebooks.sync(chapter)
    shutil.rmtree(chapter.source.parents[1] / "_build")  # as in a fresh clone
    edit(chapter.source, "print(1)", "print(2)", hours=-5)
    notebooks.sync(chapter)
    assert "print(1)" in chapter.source.read_text()
    assert "print(2)" in kept(chapter)[".py"]


BROKEN = [b"<<<<<<< HEAD\n{", b"\xff\xfe", b"[1]", b'{"cells": 5}', b'{"nbformat": 99}', b""]


@pytest.mark.parametrize(
    ("half", "content"), [("source", b"\xff\xfe"), *(("notebook", content) for content in BROKEN)]
)
def test_a_half_that_cannot_be_read_is_named_and_neither_is_touched(small, half, content):
    chapter = small("print(1)")
    notebooks.sync(chapter)
    broken = getattr(chapter, half)
    broken.write_bytes(content)
    os.utime(broken, (time.time() + 9,) * 2)
    before = (chapter.source.read_bytes(), chapter.notebook.read_bytes())
    with pytest.raises(BadInput, match=f"{broken.name} cannot be read as a notebook") as refused:
        notebooks.sync(notebooks.Chapter(chapter.source))
    assert "\n" not in str(refused.value)
    assert (chapter.source.read_bytes(), chapter.notebook.read_bytes()) == before


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("widths: list[int] = [8", "01_small.py has a cell of parameters that is no Python"),
        ("widths: list[int] = range(3)", "01_small.py has a cell of parameters that is no Python"),
    ],
)
def test_parameters_that_are_no_python_are_refused(small, cell, said):
    chapter = small()
    chapter.source.write_text(chapter.source.read_text().replace("widths: list[int] = [8, 4]", cell))
    with pytest.raises(BadInput, match=said):
        _ = chapter.parameters


@pytest.mark.parametrize("chapter", notebooks.chapters(), ids=lambda chapter: chapter.slug)
class TestEveryChapter:
    def test_is_paired_stripped_and_named_alike(self, chapter):
        assert notebooks.sync(chapter, check=True) == []
        metadata = json.loads(chapter.notebook.read_text())["metadata"]
        assert metadata["kernelspec"]["name"] == "python3"
        assert jupytext.read(chapter.source).metadata["kernelspec"] == metadata["kernelspec"]

    def test_is_thin(self, chapter):
        for cell in chapter.cells.cells:
            if cell.cell_type == "code":
                declares = "parameters" in cell.metadata.get("tags", [])
                assert len(cell.source.splitlines()) <= (20 if declares else 16)
                assert "def " not in cell.source
                assert "lambda" not in cell.source

    def test_opens_and_closes_as_every_chapter_does(self, chapter):
        prose = [cell.source for cell in chapter.cells.cells if cell.cell_type == "markdown"]
        tests_a_claim = chapter.slug < "07"
        assert ("**The claim.**" in prose[0]) == tests_a_claim
        headings = [said.splitlines()[0] for said in prose if said.startswith("## ")]
        assert headings[0] == "## Parameters"  # papermill puts others behind them; the page shows them last
        tells_a_story = chapter.slug < "08"
        assert (headings[1] == "## What we found") == tells_a_story
        limits = [place for place, said in enumerate(prose) if "**What this does not show.**" in said]
        assert limits == [3 if tells_a_story else 0]  # below what was found, else where the page begins
        if chapter.slug[:2] in ("07", "10", "11"):  # are of people or of languages themselves
            assert any(f"fairq run {chapter.slug[:2]} -p " in said for said in prose)
            return
        # To run it again, and then what was measured on faces.
        (faces,) = [place for place, said in enumerate(prose) if said.startswith("## On real faces")]
        assert any(f"fairq run {chapter.slug[:2]} -p " in said for said in prose[:faces])
        assert not any(said.startswith("## ") for said in prose[faces + 1 :])

    def test_every_parameter_has_a_word_of_help(self, chapter):
        assert all(parameter.help for parameter in chapter.parameters.values())

    def test_is_in_the_profile_of_the_book(self, chapter):
        assert chapter.slug in notebooks.load_profile("laptop")


def test_an_unknown_chapter_or_profile_is_refused():
    with pytest.raises(BadInput, match="chapter is '99'; expected one of: 01_disparity_baseline"):
        notebooks.find("99")
    with pytest.raises(BadInput, match="profile is 'desktop'; expected one of: laptop"):
        notebooks.load_profile("desktop")


@pytest.mark.parametrize("chapter", notebooks.chapters(ROOT), ids=lambda chapter: chapter.slug)
def test_a_page_that_stands_alone_shows_no_sign_of_what_only_the_book_resolves(chapter, tmp_path):
    alone = tmp_path / "alone.ipynb"
    nbformat.write(chapter.cells, alone)
    page = notebooks.as_page(alone)
    said = "\n".join(cell.source for cell in chapter.cells.cells if cell.cell_type == "markdown")
    assert "{term}`" in said
    for sign in (
        "{term}",
        "{eq}",
        "{cite}",
        "{margin}",
        ":::",
        "#quantize-yourself",
        "(rounding)",
        "(bound)",
    ):
        assert sign not in page
    # A script reads "\(" as a mere bracket, and all that stands in brackets would be a formula.
    assert r'inlineMath: [["$", "$"], ["\\(", "\\)"]]' in page
    for title in re.findall(r":::\{margin\} (.+)", said):
        assert f"<strong>{title}.</strong>" in page
