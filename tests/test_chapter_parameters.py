"""What a chapter may be told is said twice, in its notebook and in its `Asks`: the two say one thing."""

import ast
import importlib
import re
from dataclasses import fields

import pytest

from fairq_book.build.notebooks import Chapter
from fairq_book.experiments.parameters import StudyParameters
from tests.conftest import ROOT

# The notebook of each chapter that has an `Asks`, by the name of its folder.
CHAPTERS = {
    found[1]: Chapter(source)
    for source in sorted((ROOT / "notebooks").glob("*.py"))
    if (found := re.search(r"^from fairq_book\.chapters\.(\w+) import .*\basks\b", source.read_text(), re.M))
}


def plain(value):
    return list(value) if isinstance(value, tuple) else value


def of_fields(owner) -> dict:
    return {one.name: (plain(one.default), one.metadata["help"]) for one in fields(owner)}


def test_every_chapter_that_asks_has_a_notebook():
    assert set(CHAPTERS) == {path.parent.name for path in ROOT.glob("fairq_book/chapters/*/asks.py")}


@pytest.mark.parametrize("name", CHAPTERS)
def test_its_own_parameters_are_those_of_its_notebook_with_default_and_help(name):
    asks = importlib.import_module(f"fairq_book.chapters.{name}.asks").Asks
    of_study = {one.name for one in fields(StudyParameters)} | {"setting"}
    own = {
        parameter.name: (parameter.default, parameter.help)
        for parameter in CHAPTERS[name].parameters.values()
        if parameter.name not in of_study
    }
    assert of_fields(asks) == own
    assert list(of_fields(asks)) == list(own)


@pytest.mark.parametrize("name", CHAPTERS)
def test_every_parameter_of_a_notebook_is_used(name):
    cells = [cell.source for cell in CHAPTERS[name].cells.cells if cell.cell_type == "code"]
    names = {
        node.id
        for node in ast.walk(ast.parse("\n".join(cells)))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }
    assert set(CHAPTERS[name].parameters) <= names
