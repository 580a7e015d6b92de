"""The page that `fairq run` leaves: one file, that asks nobody for anything."""

import re

import nbformat
import pytest

from fairq_book.build import mathjax, notebooks
from fairq_utils.errors import BadInput

FORMULAS = r"""# A chapter

At $b$ bits a weight $w$ becomes

$$\hat w = s \cdot \mathrm{round}(w / s) < 1$$ (rounding)
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of a chapter with formulas and a script of its own."""
    output = nbformat.v4.new_output(
        "display_data", {"text/html": "<b id=shown>5</b><script>ran = 1</script>"}
    )
    cells = [nbformat.v4.new_markdown_cell(FORMULAS), nbformat.v4.new_code_cell("1", outputs=[output])]
    executed = tmp_path_factory.mktemp("run") / "01_small.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), executed)
    path = executed.with_suffix(".html")
    path.write_text(notebooks.as_page(executed), encoding="utf-8")
    return path


def test_it_names_no_address_to_fetch_from(page):
    text = page.read_text(encoding="utf-8")
    assert text.count("<script") == 3  # what MathJax is told, MathJax, and the chapter's own
    text = text.replace(mathjax.program("tex-svg.js").decode(), "")  # which names its home, in an About
    assert text.count("<script") == 3
    assert len(text) < 1_000_000
    assert not re.findall(r"""(?:src|href)=["']?(?:https?:)?//[^"'> ]+""", text)
    assert not re.findall(r"""(?:import|from|url\()\s*["']?https?://[^"'> ]+""", text)


def test_it_fetches_nothing_and_shows_its_formulas(page, browser):
    context, wrong, asked = browser.new_context(), [], []
    opened = context.new_page()
    opened.on("console", lambda message: wrong.append(message.text))
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(page.as_uri())
    opened.wait_for_function("document.querySelectorAll('mjx-container svg').length == 3")
    assert asked == [page.as_uri()]
    assert wrong == []
    assert opened.evaluate("ran") == 1
    context.close()


def test_another_program_than_the_one_that_was_looked_at_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(mathjax, "folder", lambda: tmp_path)
    with pytest.raises(BadInput, match=r"tex-svg.js of the installed sphinx-mathjax-offline is not there"):
        mathjax.program("tex-svg.js")
    (tmp_path / "tex-svg.js").write_text("evil()")
    with pytest.raises(BadInput, match="is another than the one that was looked at; expected"):
        mathjax.program("tex-svg.js")
