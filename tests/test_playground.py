"""The playground: that Python and the page compute the same, and that each control does what it says."""

import itertools
import json
import math
import re

import numpy as np
import pytest
import torch
from bs4 import BeautifulSoup

from fairq_audit.page_scripts import SCRIPTS, joined, page_script
from fairq_book.playground import (
    FULL,
    RECIPE,
    Playground,
    drawn_points,
    forward,
    measured,
    rounded,
    train,
    uniform,
    untrained,
)
from fairq_utils.errors import BadInput
from fairq_utils.quantization.quantizers import UniformQuantizer

SCRIPT = joined(SCRIPTS / "playground.js")
STYLE = (SCRIPTS / "page.css").read_text() + (SCRIPTS / "playground.css").read_text()
WIDTHS = [FULL, 8, 7, 6, 5, 4, 3, 2]  # as the slider has them
MATRICES = [f"{inputs} × {outputs}" for inputs, outputs in itertools.pairwise(RECIPE["layers"])]


def refusal(**traits) -> str:
    """What the traits are refused with: one sentence."""
    with pytest.raises(BadInput) as refused:
        Playground(**traits)
    sentence = str(refused.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    return sentence


# ---------------------------------------------------------------- Python


def test_state_is_small_and_holds_numbers_only():
    points = (drawn_points(50, 0.8) * 2)[: RECIPE["most"]]
    state = Playground(points).page_state()
    text = json.dumps(state, allow_nan=False)
    assert len(text) < 40_000
    assert set(state) == {"points", "bits", "seed", "size", "difficulty", "recipe", "result", "live"}


def test_markup_survives_the_end_of_a_script_in_any_string():
    text = "</script><!--<script>"
    markup = Playground(result={"said": text}).page_markup()
    kept = BeautifulSoup(markup, "html.parser").find("script")
    assert json.loads(kept.string)["result"] == {"said": text}


@pytest.mark.parametrize(
    ("traits", "named"),
    [
        ({"bits": 1}, "bits is 1; expected a whole number from 2 to 8"),
        ({"bits": 9}, "bits is 9"),
        ({"bits": 3.0}, "bits is 3.0"),
        ({"bits": "3"}, "bits is '3'"),
        ({"bits": True}, "bits is True"),
        ({"seed": 0}, "seed is 0"),
        ({"size": -1}, "size is -1"),
        ({"size": 51}, "size is 51; expected a whole number from 0 to 50"),
        ({"difficulty": 1.5}, "difficulty is 1.5"),
        ({"difficulty": math.nan}, "difficulty is nan"),
        ({"points": 3}, "points is 3"),
        ({"points": [{"x": 0, "y": 0}]}, "points[0] is"),
        ({"points": [{"x": 0, "y": 2, "label": "hollow", "group": "minority"}]}, "y 2"),
        ({"points": [{"x": math.nan, "y": 0, "label": "hollow", "group": "minority"}]}, "x nan"),
        ({"points": [{"x": 0, "y": 0, "label": "red", "group": "minority"}]}, "expected hollow or filled"),
        ({"points": [{"x": 0, "y": 0, "label": "hollow", "group": "Others"}]}, "group 'Others'"),
        ({"points": drawn_points(150, 0.5) * 2}, "500 entries; expected at most 250"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(traits, named):
    assert named in refusal(**traits)


def test_what_was_refused_changes_nothing():
    playground = Playground()
    with pytest.raises(BadInput):
        playground.bits = 1
    assert playground.bits == 3


def test_size_and_difficulty_draw_the_minority_again_and_leave_the_majority():
    playground = Playground()
    first = playground.points
    playground.size = 30
    assert playground.points[: len(first)] == first
    assert len(playground.points) == len(first) + 10
    playground.difficulty = 0.1
    assert playground.points[: RECIPE["majority"]] == first[: RECIPE["majority"]]
    assert playground.points[RECIPE["majority"] :] != drawn_points(30, 0.8)[RECIPE["majority"] :]


def test_points_that_are_given_are_kept():
    own = [{"x": 0, "y": 0.5, "label": "filled", "group": "minority"}]
    assert Playground(own, size=40).points == own


def test_what_the_page_sends_is_taken_as_it_is():
    own = [{"x": 0, "y": 0.5, "label": "filled", "group": "minority"}]
    playground = Playground()
    playground.set_state({"size": 30, "points": own})
    assert (playground.size, playground.points) == (30, own)
    playground.size = 10
    assert playground.points == drawn_points(10, playground.difficulty)


def test_a_notebook_gets_the_widget_and_the_page_its_markup():
    data, _ = Playground()._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    assert 'data-kind="playground"' in data["text/html"]


def test_fallback_is_a_figure_with_a_table_of_what_it_shows():
    playground = Playground()
    found = BeautifulSoup(playground.fallback(), "html.parser")
    figure = found.find("figure")
    drawings = figure.find_all("svg")
    assert [drawing["role"] for drawing in drawings] == ["img", "img"]
    full = measured(playground.points, train(playground.points, playground.seed))
    low = measured(playground.points, rounded(train(playground.points, playground.seed), playground.bits))
    assert f"{100 * full['minority']['accuracy']:.0f} % of the minority" in drawings[0]["aria-label"]
    assert f"{100 * low['minority']['accuracy']:.0f} % of the minority" in drawings[1]["aria-label"]
    cells = {row.th.string: [td.string for td in row.find_all("td")] for row in figure.tbody.find_all("tr")}
    assert cells["minority, accuracy, %"] == [
        f"{100 * one['minority']['accuracy']:.1f}" for one in (full, low)
    ]
    assert cells["gap (FVO), points"] == [f"{100 * one['FVO']:.1f}" for one in (full, low)]


@pytest.mark.parametrize("points", [[], [{"x": 0, "y": 0, "label": "hollow", "group": "majority"}]])
def test_fallback_of_a_task_without_a_group(points):
    assert "<td>–</td>" in Playground(points, bits=FULL).fallback()


def test_it_trains_as_torch_does(monkeypatch):
    monkeypatch.setitem(RECIPE, "steps", 25)
    points = drawn_points(20, 0.8)
    places = torch.tensor([[point["x"], point["y"]] for point in points], dtype=torch.float64)
    truth = torch.tensor([int(point["label"] == "filled") for point in points])
    pairs = [(torch.from_numpy(layer.weights), torch.from_numpy(layer.biases)) for layer in untrained(5)]
    tensors = [tensor.requires_grad_() for pair in pairs for tensor in pair]
    settings = {"lr": RECIPE["rate"], "eps": RECIPE["tiny"], "weight_decay": RECIPE["decay"]}
    adam = torch.optim.Adam(tensors, betas=(RECIPE["momentum"], RECIPE["memory"]), **settings)
    falling = torch.optim.lr_scheduler.LinearLR(adam, 1, 0, total_iters=RECIPE["steps"])
    for _ in range(RECIPE["steps"]):
        given = places
        for number, (weights, biases) in enumerate(pairs, start=1):
            given = given @ weights.T + biases
            given = given if number == len(pairs) else given.tanh()
        adam.zero_grad()
        torch.nn.functional.cross_entropy(given, truth).backward()
        adam.step()
        falling.step()
    for (weights, biases), layer in zip(pairs, train(points, 5), strict=True):
        np.testing.assert_allclose(weights.detach(), layer.weights, atol=1e-10)
        np.testing.assert_allclose(biases.detach(), layer.biases, atol=1e-10)


# ---------------------------------------------------------------- the page


class Reader:
    """Somebody before a page that holds one playground."""

    def __init__(self, browser, playground=None, *, width=1000, still=True, touch=False, learns=True):
        self.context = browser.new_context(
            viewport={"width": width, "height": 900},
            reduced_motion="reduce" if still else "no-preference",
            has_touch=touch,
        )
        self.page = self.context.new_page()
        self.errors = []
        halt = "" if learns else "<script>window.setTimeout = () => 1</script>"  # which is how it goes on
        self.page.on("console", lambda said: self.errors.append(said.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.set_content(
            f'<!doctype html><html lang="en"><head><title>A page</title>'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<style>body{{margin:0}}main{{padding:0 16px}}{STYLE}</style></head>"
            f"<body><main><h1>A page</h1>{(playground or Playground()).page_markup()}</main>"
            f"{halt}<script>{page_script('playground')}</script></body>"
        )
        if learns:
            self.wait()

    def wait(self):
        """Until the network has learned from what is drawn."""
        self.page.wait_for_selector('.fairq-playground[aria-busy="false"]')

    def said(self):
        return self.page.locator("[role=status]").inner_text().replace("\u00a0", " ")

    def boundary(self):
        return self.page.locator(".pg-region").get_attribute("d")

    def weights(self):
        strips = self.page.locator(".pg-right svg[role=img]").all()[: len(MATRICES)]
        return [strip.get_attribute("aria-label") for strip in strips]

    def points(self):
        return self.page.locator(".pg-point")

    def slide(self, name, value):
        self.page.get_by_label(name).fill(str(value))
        self.wait()

    def press(self, name):
        self.page.get_by_role("button", name=name).click()
        self.wait()

    def seen(self):
        return self.said(), self.boundary(), self.weights(), self.points().count()


@pytest.fixture
def read(browser):
    readers = []

    def opened(*arguments, **options):
        readers.append(Reader(browser, *arguments, **options))
        return readers[-1]

    yield opened
    for reader in readers:
        reader.context.close()
        assert reader.errors == []


@pytest.fixture(scope="module")
def compute(browser):
    """A function that evaluates an expression among what the modules of the script export, given `it`."""
    page = browser.new_page()
    source = re.sub(r"export default .*", "", SCRIPT)
    inside = "Object.assign({}, ...Object.values(fairqModules))"

    def computed(expression, it=None):
        return page.evaluate(f"(it) => {{ {source}; with ({inside}) return {expression}; }}", it)

    yield computed
    page.close()


def test_the_page_rounds_as_the_book_does(compute):
    draw = np.random.default_rng(0)
    matrices = [draw.normal(size=(8, 8)) * scale for scale in (1e-3, 1, 1e3)]
    # Halfway between two grid values, where rounding to even shows; and nothing but zeros.
    matrices += [np.arange(-63, 64)[None] / 2, np.zeros((2, 8)), np.array([[-1e-310, 1e-310]])]
    for bits in range(2, 9):
        for matrix in matrices:
            expected = UniformQuantizer(bits)(torch.from_numpy(matrix)).numpy()
            found = compute("rounded(it[0], it[1])", [matrix.ravel().tolist(), bits])
            np.testing.assert_allclose(found, expected.ravel(), rtol=1e-12, atol=0)


def test_the_page_draws_the_same_numbers_points_and_untrained_networks(compute):
    draw = uniform(2**32 - 1)
    numbers = compute(f"(() => {{ const d = uniform({2**32 - 1}); return [d(), d(), d()]; }})()")
    assert numbers == [draw() for _ in range(3)]
    for size, difficulty in ((20, 0.8), (0, 0.5), (50, 0.35), (7, 1), (8, 0)):
        points = compute("pointsOf(it[0], it[1], it[2])", [size, difficulty, RECIPE])
        assert points == drawn_points(size, difficulty)
    for layer, mirrored in zip(compute("untrained(9, it)", RECIPE), untrained(9), strict=True):
        assert layer["weights"] == mirrored.weights.ravel().tolist()


@pytest.mark.parametrize("seed", [1, 12])
def test_the_page_trains_and_measures_as_python_does(compute, seed):
    points = drawn_points(20, 0.8)
    it = {"points": points, "seed": seed, "recipe": RECIPE}
    found = compute("trained(it.points, it.seed, it.recipe)", it)
    network = train(points, seed)
    for layer, mirrored in zip(found, network, strict=True):
        np.testing.assert_allclose(layer["weights"], mirrored.weights.ravel(), atol=1e-6)
        np.testing.assert_allclose(layer["biases"], mirrored.biases, atol=1e-6)
    for bits in WIDTHS:
        it |= {"network": found, "bits": bits}
        page = compute("measured(it.points, quantized(it.network, it.bits))", it)
        python = measured(points, rounded(network, bits))
        for group in ("majority", "minority"):
            assert page[group] == pytest.approx(python[group], abs=1e-5)
        assert page["FVO"] == pytest.approx(python["FVO"])


def test_the_page_answers_as_python_does_on_the_same_weights(compute):
    network = [
        {"weights": one.weights.ravel().tolist(), "biases": one.biases.tolist()} for one in untrained(3)
    ]
    places = np.random.default_rng(1).uniform(-1, 1, (20, 2))
    found = compute(
        "it.places.map(([x, y]) => forward(it.network, x, y).slice())",
        {"network": network, "places": places.tolist()},
    )
    np.testing.assert_allclose(found, forward(untrained(3), places)[-1], rtol=1e-12)


def _answers(majority, minority):
    return {
        "majority": {"n": 100, "accuracy": majority},
        "minority": {"n": 20, "accuracy": minority},
        "FVO": abs(majority - minority),
    }


@pytest.mark.parametrize(
    ("full", "now", "ending"),
    [
        (
            (0.98, 0.9),
            (0.97, 0.6),
            "37 points, 29 more than in full precision; both lost, the minority more.",
        ),
        ((0.98, 0.9), (0.8, 0.8), "0 points, 8 fewer than in full precision; both lost, the majority more."),
        ((0.9, 0.9), (0.8, 0.8), "0 points, as in full precision; both lost, as much."),
        ((0.9, 0.9), (0.8, 0.9), "10 points, 10 more than in full precision; only the majority lost."),
        ((0.94, 0.95), (0.95, 0.94), "1 point, as in full precision; only the minority lost."),
        ((0.9, 0.8), (0.9, 0.85), "5 points, 5 fewer than in full precision; neither group lost."),
    ],
)
def test_the_sentence_goes_where_the_data_go(compute, full, now, ending):
    it = [_answers(*full), _answers(*now)]
    said = compute("sentence(3, 7, it[0], it[1])", it).replace("\u00a0", " ")
    right = [round(100 * share) for share in now]
    assert said.startswith(f"At 3 bits, with seed 7, the majority of 100 is right on {right[0]} %,")
    assert said.endswith(f"the minority of 20 on {right[1]} %: the gap is {ending}")


def test_every_width_says_what_python_computes(read):
    playground = Playground()
    reader = read(playground)
    network = train(playground.points, playground.seed)
    reader.page.get_by_text("All numbers").click()
    for bits in WIDTHS:
        reader.slide("Precision of the weights", WIDTHS.index(bits))
        found = measured(playground.points, rounded(network, bits))
        shown = [round(100 * found[group]["accuracy"]) for group in ("majority", "minority")]
        assert f"is right on {shown[0]} %, the minority of 20 on {shown[1]} %" in reader.said()
        rows = {
            row.locator("th").inner_text(): row.locator("td").all_inner_texts()
            for row in reader.page.locator("details tbody tr").all()[: 5 + len(MATRICES)]
        }
        assert float(rows["gap (FVO), points"][1]) == round(100 * found["FVO"], 1)
        zeros = [int((layer.weights == 0).sum()) for layer in rounded(network, bits)]
        assert [int(rows[name][-1]) for name in MATRICES] == zeros


def test_two_readers_see_the_same(read):
    assert read().seen() == read().seen()


def test_other_seeds_are_counted_as_python_counts_them(read):
    playground = Playground()
    reader = read(playground)
    reader.page.wait_for_selector("text=20 networks learned from these points, each from another seed")
    excesses = []
    for seed in range(1, RECIPE["population"] + 1):
        network = train(playground.points, seed)
        full, now = (measured(playground.points, rounded(network, bits)) for bits in (FULL, playground.bits))
        lost = {name: full[name]["accuracy"] - now[name]["accuracy"] for name in ("majority", "minority")}
        excesses.append(round(lost["minority"] - lost["majority"], 9))
    more, less = sum(one > 0 for one in excesses), sum(one < 0 for one in excesses)
    assert (
        f"At 3 bits the minority lost more than the majority in {more} of them, less in {less}, as much in "
        f"{20 - more - less}."
    ) in reader.page.locator(".pg-seeds-said").inner_text()
    assert reader.page.locator(".pg-seed").count() == 20
    assert reader.page.locator(".pg-seed.pg-this title").text_content().startswith("seed 12:")
    # Of another width the answer is there at once: nothing has to learn again.
    reader.slide("Precision of the weights", WIDTHS.index(4))
    assert "At 4 bits the minority" in reader.page.locator(".pg-seeds-said").inner_text()


def test_a_point_is_added_moved_and_removed_by_keys(read):
    reader = read()
    before = reader.seen()
    page = reader.page
    page.get_by_role("button", name="Add a point").focus()
    page.keyboard.press("Enter")
    reader.wait()
    own = page.locator(".pg-point:focus")
    assert own.get_attribute("aria-label").startswith("filled point of the minority at 0.00, 0.00")
    assert "the minority of 21" in reader.said()
    page.keyboard.press("Shift+ArrowUp")
    page.keyboard.press("ArrowLeft")
    reader.wait()
    assert own.get_attribute("aria-label").startswith("filled point of the minority at −0.02, 0.10")
    page.keyboard.press("PageUp")
    assert own.get_attribute("aria-label") == reader.points().nth(119).get_attribute("aria-label")
    page.keyboard.press("PageDown")
    page.keyboard.press("Delete")
    reader.wait()
    assert reader.seen() == before
    assert page.evaluate("document.activeElement.classList.contains('pg-point')")
    assert page.locator(".pg-point[tabindex='0']").count() == 1


def test_a_point_is_added_dragged_and_removed_by_mouse(read):
    reader = read()
    before = reader.seen()
    page = reader.page
    box = page.locator(".pg-points").bounding_box()
    place = (box["x"] + 0.04 * box["width"], box["y"] + 0.04 * box["height"])
    page.get_by_label("majority, hollow").check()
    page.mouse.click(*place)
    reader.wait()
    assert "the majority of 101" in reader.said()
    page.mouse.move(*place)
    page.mouse.down()
    page.mouse.move(place[0] + 20, place[1] + 30, steps=4)
    page.mouse.up()
    reader.wait()
    at = re.search(r"at (\S+), (\S+),", page.locator(".pg-picked").get_attribute("aria-label")).groups()
    x, y = (float(one.replace("−", "-")) for one in at)
    assert x == pytest.approx(-0.92 + 40 / box["width"], abs=0.02)
    assert y == pytest.approx(0.92 - 60 / box["height"], abs=0.02)
    page.get_by_role("button", name="Remove the chosen point").click()
    reader.wait()
    assert reader.seen() == before


def test_a_finger_adds_and_chooses(read):
    reader = read(width=390, touch=True)
    box = reader.page.locator(".pg-points").bounding_box()
    place = (box["x"] + 0.04 * box["width"], box["y"] + 0.04 * box["height"])
    reader.page.touchscreen.tap(*place)
    reader.wait()
    assert reader.points().count() == 121
    reader.page.touchscreen.tap(*place)
    assert reader.points().count() == 121
    assert reader.page.get_by_role("button", name="Remove the chosen point").is_enabled()


def swipe(reader, number):
    """A finger that comes down on a point and moves up the page; by how much the page scrolled."""
    page = reader.page
    page.wait_for_timeout(500)  # what rolls on from the last swipe would take this one too
    page.evaluate("scrollTo(0, 200)")
    box = reader.points().nth(number).bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    fingers = reader.context.new_cdp_session(page)
    for kind, way in [
        ("touchStart", 0),
        *(("touchMove", step) for step in range(10, 101, 10)),
        ("touchEnd", 0),
    ]:
        places = [] if kind == "touchEnd" else [{"x": x, "y": y - way}]
        fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": places})
        page.wait_for_timeout(20)
    reader.wait()
    return page.evaluate("scrollY") - 200


def test_a_finger_drags_the_minority_and_scrolls_past_the_majority(read):
    reader = read(width=390, touch=True)
    places = [reader.points().nth(number).get_attribute("transform") for number in (60, 119)]
    assert swipe(reader, 60) > 0
    assert swipe(reader, 119) == 0
    moved = [reader.points().nth(number).get_attribute("transform") for number in (60, 119)]
    assert (moved[0] == places[0], moved[1] == places[1]) == (True, False)
    assert reader.points().count() == 120


def test_without_a_group_it_says_so(read):
    only = [point for point in drawn_points(20, 0.8) if point["group"] == "majority"][:6]
    reader = read(Playground(only))
    assert reader.said() == "The minority has no points: add some to compare."
    reader.page.wait_for_selector("text=Where a group has no points, there is nothing to compare.")
    reader.points().nth(0).focus()
    for _ in range(6):
        reader.page.keyboard.press("Delete")
    reader.wait()
    assert reader.said() == "The majority and the minority have no points: add some to compare."
    reader.press("Add a point")
    assert reader.points().count() == 1


def test_before_it_has_learned_every_drawing_has_a_name(read):
    reader = read(learns=False)
    drawings = reader.page.locator(".fairq-playground svg[role=img]").all()
    assert reader.page.locator('.fairq-playground[aria-busy="true"]').count() == 1
    assert [drawing.get_attribute("aria-label") for drawing in drawings] == [
        "The network is still learning.",
        *[f"{name} weights: still being learned." for name in MATRICES],
        "No seed has been trained yet.",
    ]


def test_weights_move_to_their_bins_and_arrive(read):
    moving, still = read(still=False), read()
    for reader in (moving, still):
        reader.slide("Precision of the weights", WIDTHS.index(2))
    # What is said does not wait for what moves.
    assert moving.said() == still.said()
    moving.page.wait_for_function(
        "path => document.querySelector('.pg-region').getAttribute('d') === path", arg=still.boundary()
    )
    assert moving.seen() == still.seen()


def test_in_a_notebook_the_kernel_hears_and_is_heard(browser):
    """The widget runs as a module, with a model that answers as a kernel would."""
    page = browser.new_page()
    state = Playground(bits=4).page_state() | {"live": True}
    page.set_content("<main id='cell'></main>")
    page.evaluate(
        """async ([source, state]) => {
          const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
          const { render } = (await import(url)).default;
          const heard = {};
          window.saved = 0;
          window.model = {
            get: (name) => state[name],
            set: (name, value) => {
              state[name] = value;
              (heard[`change:${name}`] || []).forEach((f) => f());
            },
            on: (event, f) => (heard[event] ||= []).push(f),
            off: (event, f) => (heard[event] = heard[event].filter((other) => other !== f)),
            save_changes: () => window.saved++,
          };
          window.state = state;
          window.heard = heard;
          window.leave = render({ model: window.model, el: document.querySelector("#cell") });
        }""",
        [SCRIPT, state],
    )
    page.wait_for_function("window.state.result.bits === 4 && window.saved > 0")
    playground = Playground(bits=4)
    # What the script writes is what the trait takes.
    playground.result = page.evaluate("window.state.result")
    network = train(playground.points, playground.seed)
    for found, layer in zip(playground.result["rounded"], rounded(network, 4), strict=True):
        np.testing.assert_allclose(found, layer.weights.ravel(), atol=1e-6)
    found = measured(playground.points, rounded(network, 4))
    assert playground.result["now"]["minority"]["accuracy"] == found["minority"]["accuracy"]
    page.evaluate("window.model.set('bits', 2)")
    page.wait_for_function("window.state.result.bits === 2")
    assert page.get_by_label("Precision of the weights").input_value() == str(WIDTHS.index(2))
    page.evaluate("window.leave()")
    assert page.evaluate("Object.values(window.heard).every((list) => list.length === 0)")
    page.close()
