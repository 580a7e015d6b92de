"""The explorers and the playground where readers meet them: in the built book, with no way out."""

import csv
import io
import json
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image

from fairq_book.explorer import fallback
from fairq_book.explorer.counts import unpacked
from fairq_book.playground import FULL
from tests.conftest import only_from
from tests.test_book import soup

EXPLORER = "notebooks/09_explorer"
EXPLORERS = [  # each place in the book, and which of the explorers there
    (EXPLORER, 0),
    (EXPLORER, 1),
    ("notebooks/02_logit_variance_collapse", 0),
    ("notebooks/03_zero_bin_sparsity", 0),
    ("notebooks/05_fairqat_mitigation", 0),
    ("notebooks/06_vision_language", 0),
]
WIDTHS = [FULL, 8, 7, 6, 5, 4, 3, 2]  # as the playground's slider has them


class Reader:
    """Somebody before one widget of a page of the book."""

    def __init__(self, browser, address, page, place=0, *, kind="explorer", width=1440, fragment="", **about):
        about = {"color_scheme": "light"} | about
        self.context = browser.new_context(viewport={"width": width, "height": 900}, **about)
        self.context.route("**/*", only_from(address))
        self.page = self.context.new_page()
        self.wrong = []
        self.page.on("console", self.heard)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.goto(f"{address}/{page}.html{fragment}", wait_until="networkidle")
        self.widget = self.page.locator(f'.fairq-widget[data-kind="{kind}"]').nth(place)
        self.live = self.widget.locator(".fairq-live")

    def heard(self, said):
        if said.type == "error":
            self.wrong.append(f"{said.text} {said.location['url']}")

    @property
    def data(self):
        """What the page embeds."""
        return json.loads(self.widget.locator("script").first.text_content())["data"]

    def control(self, name):
        return self.live.locator(f'[data-control="{name}"]')

    def controls(self):
        """The names of those that are to be seen, in the order of the page."""
        found = "nodes => nodes.filter((node) => node.checkVisibility()).map((node) => node.dataset.control)"
        return self.live.locator("[data-control]").evaluate_all(found)

    def choose(self, name, value=None):
        """Use a control: choose that value, or tick it, or press it."""
        control = self.control(name)
        if control.evaluate("node => node.tagName") == "SELECT":
            control.select_option(value)
        elif control.get_attribute("type") == "range":
            control.fill(str(value))
        else:
            control.click()

    def drawn(self):
        """What is drawn, without the band over the bin that is read."""
        canvases = self.live.locator(".fairq-canvas").evaluate_all("nodes => nodes.map((n) => n.innerHTML)")
        return [re.sub(r'<rect [^>]*opacity="0.18"[^>]*>', "", canvas) for canvas in canvases]

    def said(self):
        return self.live.locator("[role=status]").first.inner_text().replace("\u00a0", " ")

    def saved(self, control):
        """The bytes of the file that a button saves, and its name."""
        with self.page.expect_download() as caught:
            self.choose(control)
        return caught.value.path().read_bytes(), caught.value.suggested_filename


@pytest.fixture
def read(browser, address):
    readers = []

    def opened(*arguments, **options):
        readers.append(Reader(browser, address, *arguments, **options))
        return readers[-1]

    yield opened
    for reader in readers:
        reader.context.close()
        assert reader.wrong == []


def barriers(reader):
    """What axe finds in the widget as it stands."""
    options = {"resultTypes": ["violations"], "preload": False}  # it would fetch styles by wrong addresses
    found = Axe().run(reader.page, context=".fairq-live", options=options).response["violations"]
    return [(one["id"], [node["html"][:120] for node in one["nodes"][:3]]) for one in found]


def another(control):
    """A value that the control does not have now."""
    return control.evaluate(
        """node => node.tagName === "SELECT"
          ? [...node.options].map((option) => option.value).find((value) => value !== node.value)
          : String(Number(node.value) > 0 ? Number(node.value) - 1 : 1)"""
    )


# ---------------------------------------------------------------- explorers


@pytest.mark.parametrize(("page", "place"), EXPLORERS)
def test_each_control_changes_what_is_drawn_and_what_is_said(read, page, place):
    reader = read(page, place)
    used = set()
    for quantity in reader.control("quantity").locator("option").all():
        if quantity.get_attribute("value") != reader.control("quantity").input_value():
            before = reader.drawn(), reader.said()
            reader.choose("quantity", quantity.get_attribute("value"))
            assert (reader.drawn()[0] != before[0][0], reader.said() != before[1]) == (True, True)
        for name in reader.controls():
            if name in {"quantity", "bin", "link", *used} or re.search("-(png|svg|csv)$", name):
                continue
            before = reader.drawn(), reader.said()
            chosen = another(reader.control(name))
            reader.choose(name, chosen)
            assert (name, reader.drawn() != before[0], reader.said() != before[1]) == (name, True, True)
            used.add(name)
    assert {"treatment", "bins", "overlay", "change", "numbers", "group-0"} <= used
    assert ("before" in used) == bool(reader.data["flows"])
    assert ("layer" in used) == ("weights" in reader.data)


@pytest.mark.parametrize(("page", "place"), EXPLORERS)
def test_on_a_phone_in_the_dark_it_fits_and_a_finger_meets_every_control(read, page, place):
    reader = read(page, place, width=390, color_scheme="dark", has_touch=True)
    if "weights" in reader.data:
        reader.choose("quantity", "weights")
    for summary in reader.live.locator("summary").all():
        summary.tap()
    assert reader.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    small = """nodes => nodes
      .filter((node) => node.checkVisibility())
      .map((node) => (node.closest("label") || node).getBoundingClientRect())
      .filter((box) => box.width < 24 || box.height < 24 || box.left < 0 || box.right > innerWidth).length"""
    assert reader.live.locator("[data-control], summary").evaluate_all(small) == 0
    ink = reader.live.locator(".fairq-canvas svg text").first.evaluate("node => getComputedStyle(node).fill")
    assert min(map(int, re.findall(r"\d+", ink)[:3])) > 180
    assert barriers(reader) == []
    reader.choose("quantity", "margin")
    box = reader.live.locator(".fairq-canvas").first.bounding_box()
    reader.live.locator(".fairq-canvas").first.tap(position={"x": 0.6 * box["width"], "y": 40})
    assert re.match("Margin .+: .+%", reader.said())


def test_the_tab_key_reaches_every_control_and_keys_use_them(read):
    reader = read(EXPLORER)
    page = reader.page
    expected = reader.controls()
    reader.control(expected[0]).focus()
    reached = []
    for _ in range(3 * len(expected)):
        name = page.evaluate("document.activeElement.dataset.control || document.activeElement.tagName")
        inside = reader.live.evaluate("node => node.contains(document.activeElement)")
        if not inside:
            break
        reached.append(name)
        page.keyboard.press("Tab")
    assert [name for name in reached if name in expected] == expected
    assert reached.count("SUMMARY") == 2

    def pressed(name, key):
        before = reader.drawn(), reader.said()
        reader.control(name).focus()
        page.keyboard.press(key)
        return reader.drawn() != before[0], reader.said() != before[1]

    ways = {"quantity": "ArrowUp", "treatment": "Home", "bins": "ArrowRight", "overlay": "Space"}
    for name, key in (ways | {"group-1": "Space", "after": "Home"}).items():
        assert (name, *pressed(name, key)) == (name, True, True)
    for key in ("Home", "ArrowRight", "End"):
        assert pressed("bin", key) == (False, True)
    reader.live.locator("summary").first.focus()
    page.keyboard.press("Enter")
    assert reader.live.locator("table").first.is_visible()


def test_what_is_said_comes_from_what_is_embedded(read):
    reader = read(EXPLORER)
    data, treatment = reader.data, reader.data["treatments"][-1]
    reader.choose("treatment", len(data["treatments"]) - 2)
    reader.choose("treatment", len(data["treatments"]) - 1)
    quantity = {"factor": 1, "unit": ""}
    found = fallback._said(quantity, [summary[2] for summary in data["summaries"]["margin"][treatment]])
    medians = [f"{group['name']} {median}" for group, median in zip(data["groups"], found, strict=True)]
    expected = f"Margin under {treatment}, 36 bins, shares of answers, a panel for each group: medians "
    assert reader.said() == f"{expected}{'; '.join(medians)}."
    names = reader.live.locator("svg[role=img]").evaluate_all("all => all.map((svg) => svg.ariaLabel)")
    assert names[0] == reader.said()
    # Who flipped goes along with the treatment that is looked at.
    flows = data["flows"]["fp32"][treatment]
    assert names[1].startswith(
        f"Answers from fp32 to {treatment}: {data['groups'][0]['name']} {flows[0][1]} "
    )
    reader.choose("before", data["treatments"][1])
    assert reader.said().startswith(f"Answers from {data['treatments'][1]} to {treatment}: ")


def test_pointer_and_keys_read_the_same_values_which_are_those_of_the_file(read):
    reader = read(EXPLORER)
    canvas = reader.live.locator(".fairq-canvas").first
    canvas.scroll_into_view_if_needed()
    bins = int(reader.control("bins").get_attribute("aria-valuetext"))
    box = canvas.bounding_box()
    left, right = 50, box["width"] - 12  # where the axis begins and ends
    place = bins // 3
    reader.page.mouse.move(box["x"] + left + (right - left) * (place + 0.5) / bins, box["y"] + 60)
    hovered = reader.said()
    reader.control("bin").focus()
    reader.page.keyboard.press("ArrowRight")
    assert reader.said() != hovered
    reader.page.keyboard.press("ArrowLeft")
    assert reader.said() == hovered
    beside = reader.live.locator(".fairq-read").all_inner_texts()
    rows = list(csv.DictReader(io.StringIO(reader.saved("spread-csv")[0].decode("utf-8-sig"))))
    names = [group["name"] for group in reader.data["groups"]]
    counts = [[row for row in rows if row["group"] == name][place]["count"] for name in names]
    assert [re.search(r"\((.+)\)", text)[1].replace(",", "") for text in beside] == counts
    assert all(f"{name} {text}" in hovered for name, text in zip(names, beside, strict=True))


def test_files_arrive_and_hold_what_is_shown(read):
    reader = read(EXPLORER)
    data, treatment = reader.data, reader.data["treatments"][-1]
    reader.choose("treatment", len(data["treatments"]) - 1)
    reader.choose("bins", 0)
    table, name = reader.saved("spread-csv")
    assert name == f"spread-margin-{treatment}.csv"
    rows = list(csv.DictReader(io.StringIO(table.decode("utf-8-sig"))))
    bins = int(reader.control("bins").get_attribute("aria-valuetext"))
    for place, group in enumerate(data["groups"]):
        found = [int(row["count"]) for row in rows if row["group"] == group["name"]]
        fine = unpacked(data["counts"]["margin"][treatment][place])
        assert found == np.reshape(fine, (bins, -1)).sum(axis=1).tolist()
    for part, words in (("spread", f"Margin under {treatment}"), ("flow", "right → wrong")):
        drawing, _ = reader.saved(f"{part}-svg")
        told = "".join(ET.fromstring(drawing).itertext())
        assert words in told
        assert all(group["name"] in told for group in data["groups"])
        picture = Image.open(io.BytesIO(reader.saved(f"{part}-png")[0])).convert("RGB")
        assert picture.width == 1520
        assert len(picture.getcolors(1 << 20)) > 20
    flows = list(csv.DictReader(io.StringIO(reader.saved("flow-csv")[0].decode("utf-8-sig"))))
    assert [[int(row["right → wrong"]), int(row["wrong → right"])] for row in flows] == [
        parts[1:3] for parts in data["flows"]["fp32"][treatment]
    ]


@pytest.mark.parametrize("place", [0, 1])
def test_a_link_brings_the_same_view_back_and_leaves_the_other_widget_alone(read, place):
    reader, other = read(EXPLORER, place), read(EXPLORER, 1 - place)
    for name, value in (("quantity", "logit_variance"), ("bins", 2), ("overlay", None), ("group-0", None)):
        reader.choose(name, value)
    drawn, said = reader.drawn(), reader.said()
    reader.choose("link")
    link = reader.live.locator(".fairq-address").input_value()
    again = read(EXPLORER, place, fragment=f"#{link.partition('#')[2]}")
    assert (again.drawn(), again.said()) == (drawn, said)
    beside = again.page.locator(".fairq-explorer").nth(1 - place).locator("[role=status]").inner_text()
    assert beside == other.said()


# ---------------------------------------------------------------- without scripts, and on paper


@pytest.mark.parametrize("page", ["book/index", *dict.fromkeys(page for page, _ in EXPLORERS)])
def test_figure_and_table_are_there_without_scripts_and_on_paper_and_embedded_data_are_small(
    browser, address, built, page
):
    def shown(context, **media):
        one = context.new_page()
        one.goto(f"{address}/{page}.html")
        one.emulate_media(**media)
        visible = "nodes => nodes.filter((node) => node.checkVisibility()).length"
        parts = {name: one.locator(f".fairq-widget {name}") for name in ("figure", "table", ".fairq-live")}
        return {name: found.evaluate_all(visible) for name, found in parts.items()}

    widgets = soup(built, page).select(".fairq-widget")
    count = len(widgets)
    assert count >= 1
    for script in (widget.script for widget in widgets):
        assert len(script.string.encode()) < 500_000
    plain, able = browser.new_context(java_script_enabled=False), browser.new_context()
    try:
        for context, media in ((plain, {}), (able, {"media": "print"})):
            found = shown(context, **media)
            assert (found["figure"], found[".fairq-live"]) == (count, 0)
            assert found["table"] >= count
        assert shown(able)[".fairq-live"] == count
    finally:
        plain.close()
        able.close()


# ---------------------------------------------------------------- the playground


@pytest.fixture
def playground(read):
    def opened(**options):
        reader = read("book/index", kind="playground", reduced_motion="reduce", **options)
        wait(reader)
        return reader

    return opened


def wait(reader):
    """Until the network has learned from what is drawn."""
    reader.page.wait_for_selector('.fairq-playground[aria-busy="false"]')


def seen(reader):
    page = reader.page
    return reader.said(), page.locator(".pg-region").get_attribute("d"), page.locator(".pg-point").count()


def test_each_control_of_the_playground_changes_what_is_drawn_and_said(playground):
    reader = playground()
    page = reader.page
    start = seen(reader)
    assert start[0].startswith("At 3 bits, with seed 12, the majority of 100 is right on ")
    steps = [
        (lambda: page.get_by_label("Precision of the weights").fill(str(WIDTHS.index(5))), "At 5 bits"),
        (lambda: page.get_by_label("Precision of the weights").fill("0"), "In full precision"),
        (lambda: page.get_by_role("button", name="Another seed").click(), "with seed 13"),
        (lambda: page.get_by_label("Size of the minority").fill("30"), "the minority of 30"),
        (lambda: page.get_by_label("Its difficulty").fill("0.2"), "the minority of 30"),
        (lambda: page.get_by_role("button", name="Add a point").click(), "the minority of 31"),
    ]
    views = [start]
    for step, words in steps:
        step()
        wait(reader)
        assert words in reader.said()
        views.append(seen(reader))
    assert len({view[:2] for view in views}) == len(views)
    page.get_by_role("button", name="Start again").click()
    wait(reader)
    assert seen(reader) == start


def test_the_playground_is_used_by_keys_alone(playground):
    reader = playground()
    page = reader.page
    start = seen(reader)
    page.get_by_label("Precision of the weights").focus()
    reached = []
    while reader.live.evaluate("node => node.contains(document.activeElement)") and len(reached) < 40:
        reached.append(page.evaluate("document.activeElement.className.baseVal ?? document.activeElement.id"))
        page.keyboard.press("Tab")
    # Three sliders, two buttons, one of the points and of the kinds of points, what adds one, and the table.
    assert 9 <= len(reached) < 40
    page.get_by_label("Precision of the weights").focus()
    page.keyboard.press("ArrowRight")
    wait(reader)
    assert "At 2 bits" in reader.said()
    page.keyboard.press("ArrowLeft")
    page.get_by_role("button", name="Add a point").focus()
    page.keyboard.press("Enter")
    wait(reader)
    assert "the minority of 21" in reader.said()
    page.keyboard.press("Shift+ArrowUp")
    wait(reader)
    label = page.locator(".pg-point:focus").get_attribute("aria-label")
    assert label.startswith("filled point of the minority at 0.00, 0.10")
    page.keyboard.press("Delete")
    wait(reader)
    assert seen(reader) == start


def test_on_a_phone_the_playground_fits_and_a_finger_meets_every_control(playground):
    reader = playground(width=390, color_scheme="dark", has_touch=True)
    page = reader.page
    page.get_by_text("All numbers").tap()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    small = """nodes => nodes
      .filter((node) => node.checkVisibility())
      .map((node) => [node.outerHTML.slice(0, 90), (node.closest("label") || node).getBoundingClientRect()])
      .filter(([_, box]) => box.width < 24 || box.height < 24).map(([words]) => words)"""
    assert reader.live.locator("button, input, summary").evaluate_all(small) == []
    assert barriers(reader) == []
    box = page.locator(".pg-points").bounding_box()
    page.locator(".pg-points").tap(position={"x": 0.04 * box["width"], "y": 0.04 * box["height"]})
    wait(reader)
    assert "the minority of 21" in reader.said()
