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
