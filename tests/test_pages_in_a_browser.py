"""The built book in a real browser, from a file server, with no way out."""

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.conftest import only_from
from tests.test_book import listed

PAGES = sorted(listed())
SEEN = {"light": 1440, "dark": 390}  # how wide, in which scheme


@pytest.fixture(scope="module", params=SEEN)
def reader(request, browser, address):
    """Somebody at a desk in the light, and somebody with a phone in the dark; nothing else answers them."""
    context = browser.new_context(
        viewport={"width": SEEN[request.param], "height": 900}, color_scheme=request.param
    )
    context.route("**/*", only_from(address))
    yield context
    context.close()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_quiet_fits_and_is_accessible(reader, address, name):
    page = reader.new_page()
    errors, fetched = [], []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: fetched.append(request.url))
    page.goto(f"{address}/{name}.html", wait_until="networkidle")
    assert errors == []
    assert [url for url in fetched if not url.startswith((address, "data:", "blob:"))] == []
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    serious = [
        (own["id"], [node["html"][:120] for node in own["nodes"][:3]])
        for own in found
        if own["impact"] in ("serious", "critical")
    ]
    assert serious == []
    page.close()


@pytest.fixture
def chapter(reader, address):
    page = reader.new_page()
    page.goto(f"{address}/notebooks/03_zero_bin_sparsity.html", wait_until="networkidle")
    yield page
    page.close()


def test_notes_stand_beside_the_text_and_on_a_phone_above_it(chapter):
    boxes = chapter.evaluate(
        """() => [...document.querySelectorAll("aside.margin")].map((note) => {
            const text = [...note.parentElement.children].find((one) => one.tagName === "P");
            const [own, other] = [note, text].map((one) => one.getBoundingClientRect());
            const share = own.width / other.width;
            return {beside: own.left >= other.right, above: own.bottom <= other.top, share};
        })"""
    )
    assert len(boxes) == 2
    for box in boxes:
        if chapter.viewport_size["width"] > 1000:
            assert box["beside"]
        else:
            assert box["above"]
            assert box["share"] > 0.95


def test_long_lines_of_code_scroll_in_their_box_which_shows_that_there_is_more(chapter):
    switch = chapter.get_by_role("button", name="Code", exact=True)
    assert not chapter.locator("article details.above-input:visible").count()
    switch.click()  # one switch shows the code of all cells
    boxes = chapter.evaluate(
        """() => [...document.querySelectorAll("article div.cell_input pre")].map((box) => {
            const [style, own] = [getComputedStyle(box), box.getBoundingClientRect()];
            return {
                long: box.scrollWidth > box.clientWidth + 1, scrolls: style.overflowX, right: own.right,
                hint: style.backgroundImage, moves: style.backgroundAttachment, focus: box.tabIndex,
            };
        })"""
    )
    long = [box for box in boxes if box["long"]]
    if chapter.viewport_size["width"] < 1000:
        assert len(long) > 3
    for box in boxes:
        assert box["right"] <= chapter.viewport_size["width"]
        assert box["scrolls"] == "auto"
        assert box["hint"].count("linear-gradient") == 4
        assert box["moves"] == "local, local, scroll, scroll"
    # The theme puts them in the way of the Tab key a moment after the page stands.
    chapter.wait_for_function(
        """() => [...document.querySelectorAll("article div.cell_input pre")].every(
            (box) => box.scrollWidth <= box.clientWidth + 1 || box.tabIndex === 0
        )"""
    )
    switch.click()
    assert not chapter.locator("article details.above-input:visible").count()
