"""The modules of the widgets: what a browser makes of them as they are, and joined into one text."""

import re

import pytest

from fairq_audit.page_scripts import SCRIPTS, joined, page_script, widget_kinds
from fairq_book.explorer.widget import Explorer
from fairq_book.playground import Playground
from tests.test_explorer import made_up


def written(folder, **modules):
    """A script `widget.js` and its modules in a folder `parts`; the path of the script."""
    (folder / "parts").mkdir()
    for name, source in modules.items():
        place = folder if name == "widget" else folder / "parts"
        (place / f"{name}.js").write_text(source, encoding="utf-8")
    return folder / "widget.js"


WIDGET = 'import { told } from "./parts/one.js";\n\nfunction render() {\n  return told();\n}\n\n'
EXPORT = "export default { render };\n"


@pytest.fixture
def rendered(browser):
    """A function that loads a text as a module and returns what its `render` returns."""
    page = browser.new_page()

    def called(source):
        return page.evaluate(
            """async (source) => {
              const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
              return (await import(url)).default.render();
            }""",
            source,
        )

    yield called
    page.close()


def test_a_module_keeps_its_own_names_and_is_run_once(tmp_path, rendered):
    one = """import { say, name } from "./two.js";
const own = "one";
export function told() {
  return [own, name, say()];
}
"""
    two = """const own = "two";
let times = 0;
export const name = "two";
export const say = () => `${own} ${++times}`;
"""
    widget = """import { told } from "./parts/one.js";
import { say } from "./parts/two.js";

const render = () => [...told(), say()];

export default { render };
"""
    assert rendered(joined(written(tmp_path, widget=widget, one=one, two=two))) == [
        "one",
        "two",
        "two 1",
        "two 2",
    ]


@pytest.mark.parametrize(
    ("one", "sentence"),
    [
        ("const told = () => 1;\n", "widget.js imports told, which one.js does not export."),
        ("function told() {}\nexport { told };\n", "one.js says 'export { told };'"),
        ("export const told = 1;\nexport let more = 2;\n", "one.js says 'export let more = 2;'"),
        ("export const told = 1;\nexport default told;\n", "one.js says 'export default told;'"),
        ('import * as all from "./two.js";\nexport const told = 1;\n', "one.js says 'import "),
        ('import { two } from "somewhere";\nexport const told = 1;\n', "one.js says 'import "),
        ('export const told = () => import("./two.js");\n', "one.js says 'import("),
        (
            'import { render } from "../widget.js";\nexport const told = 1;\n',
            "imports itself, by way",
        ),
    ],
)
def test_what_cannot_be_joined_is_refused(tmp_path, one, sentence):
    script = written(tmp_path, widget=WIDGET + EXPORT, one=one, two="export const two = 2;\n")
    with pytest.raises(ValueError, match=re.escape(sentence)):
        joined(script)


def test_every_module_belongs_to_a_widget_and_uses_all_that_it_imports():
    assert widget_kinds() == ["explorer", "playground"]
    together = page_script(*widget_kinds())
    for path in SCRIPTS.glob("*/*.js"):
        source = path.read_text(encoding="utf-8")
        assert f'fairqModules["{path.parent.name}/{path.name}"] = ' in together
        imports = re.findall(r"^import \{ (.*) \}.*$", source, re.MULTILINE)
        for name in [name for names in imports for name in names.split(", ")]:
            assert len(re.findall(rf"\b{name}\b", source)) > 1, f"{path.name} does not use {name}"


@pytest.mark.parametrize("kind", ["explorer", "playground"])
def test_a_browser_loads_the_modules_as_they_are_and_draws_what_is_drawn_when_they_are_joined(browser, kind):
    """It refuses what is no module: a name that is declared twice, or imported and not exported."""
    as_modules = f"""
      import widget from "./{kind}.js";
      window.fairqWidgets = {{ "{kind}": widget }};
      await import("./page.js");
    """
    apart = drawn(browser, kind, f'<script type="module">{as_modules}</script>')
    assert len(apart[1]) > 10
    assert apart == drawn(browser, kind, f"<script>{page_script(kind)}</script>")


def drawn(browser, kind, script):
    """What is said and drawn in a page that can load the modules from where it comes from."""
    home = "http://book.test/"
    markup = (Playground() if kind == "playground" else Explorer.of_predictions(made_up())).page_markup()
    whole = f'<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,">{markup}{script}'

    def serve(route):
        asked = route.request.url.removeprefix(home)
        body = (SCRIPTS / asked).read_text(encoding="utf-8") if asked else whole
        route.fulfill(body=body, content_type="text/javascript" if asked else "text/html")

    page = browser.new_page(reduced_motion="reduce")
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: errors.append(said.text))
    page.route(f"{home}**", serve)
    page.goto(home)
    page.wait_for_selector({"playground": "[aria-busy=false]", "explorer": ".fairq-explorer svg"}[kind])
    said = page.locator("[role=status]").inner_text()
    paths = page.locator(".fairq-live path").evaluate_all("all => all.map((one) => one.outerHTML)")
    page.close()
    assert errors == []
    return said, paths
