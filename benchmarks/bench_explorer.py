"""The explorer: how soon it answers, in a page and with a kernel behind it."""

import math
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from playwright.sync_api import Browser, sync_playwright

from benchmarks import scaled
from fairq_audit.page_scripts import SCRIPTS, page_script
from fairq_book.experiments import studies
from fairq_book.experiments.store import Store
from fairq_book.experiments.studies import Prediction, Study
from fairq_book.explorer.widget import Explorer
from fairq_utils.items import Item
from fairq_utils.training.architectures import build
from fairq_utils.treatments.treatment import Treatment

NAMES = ["fp32", "int8", "int7", "int6", "int5", "int4", "int3", "int2"]
GROUPS = ("a", "b", "c", "d", "e")


def new_width(name: str, store: Store, *, train: int, test: int) -> list[tuple[float, float]]:
    """Seconds of the clock, and of all cores, from a question to each answer: of one network, of two ...

    The networks are stored and this width was never predicted; what they have learned takes no part.
    """
    trained = studies.studies(seeds=range(4), train_images=train, test_images=test)
    for plan in studies._plans(trained, store):
        network = build(plan.study.arch, classes=len(plan.images.label_names), image_size=32)
        job = plan.original
        if not store.find(job.kind, job.identity):
            store.keep(job.kind, job.identity, Item(network.state_dict(), {"device": "cpu"}))
    explorer = Explorer.of(trained, [], store=store)
    seconds: list[tuple[float, float]] = []

    def shown(change: dict) -> None:
        if name in change["new"]["treatments"]:
            seconds.append((time.perf_counter() - start, time.process_time() - begun))

    explorer.observe(shown, "data")
    start, begun = time.perf_counter(), time.process_time()
    explorer.add(name)
    return seconds


def page(images: int) -> str:
    """A page that holds eight treatments of five groups, with all quantities, and the widget's script."""
    labels, groups = torch.arange(images) % 5, torch.arange(images) % len(GROUPS)
    draw = torch.Generator().manual_seed(0)
    common = (labels, groups, GROUPS, GROUPS)
    logits = 2 * torch.randn(images, 5, generator=draw) + 2 * torch.eye(5)[labels]
    predictions = [
        Prediction(Study(), Treatment.parse(name), logits + 0.3 * place * torch.randn(images, 5), *common)
        for place, name in enumerate(NAMES)
    ]
    network = build("resnet18", classes=5, image_size=32).eval()
    networks = [Treatment.parse(name).apply(network, None) for name in NAMES]
    markup = Explorer.of_predictions(predictions, networks=networks).page_markup()
    style = (SCRIPTS / "explorer.css").read_text(encoding="utf-8")
    return (
        f"<!doctype html><meta charset='utf-8'><style>{style}</style>{markup}"
        f"<script>{page_script('explorer')}</script>"
    )


FIRST_MOVE = """async () => {
  const slider = document.querySelector("[data-control=treatment]");
  const before = document.querySelector("[role=status]").textContent;
  const start = performance.now();
  slider.value = Number(slider.value) - 1;
  slider.dispatchEvent(new Event("input", { bubbles: true }));
  document.body.getBoundingClientRect();
  const milliseconds = performance.now() - start;
  if (document.querySelector("[role=status]").textContent === before) throw new Error("nothing happened");
  return milliseconds;
}"""


def first_interaction(browser: Browser, html: str, *, runs: int) -> float:
    """Milliseconds from the first move of the slider until all is drawn and laid out: the median of pages."""
    found = []
    for _ in range(runs):
        one = browser.new_page()
        one.set_content(html)
        one.wait_for_selector(".fairq-started")
        found.append(one.evaluate(FIRST_MOVE))
        one.close()
    return statistics.median(found)


def cases(scale: float = 1.0) -> Iterator[dict]:
    html, runs = page(scaled(6000, scale)), scaled(9, scale)
    yield {
        "case": "what the explorer embeds for 8 treatments, 5 groups, 5 quantities and weights",
        "measured": len(html.split("<script type")[1].split("</script>")[0].encode()) / 1000,
        "unit": "kB",
        "limit": 500,
        "peer": "a stated limit",
        "note": "",
    }
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    measured = math.nan
    if found:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=found, args=["--no-sandbox", "--disable-gpu"]
            )
            measured = first_interaction(browser, html, runs=runs)
            browser.close()
    yield {
        "case": "the first move of a slider of that explorer, in Chromium",
        "measured": measured,
        "unit": "ms",
        "limit": 100,
        "peer": "a stated limit",
        "note": f"the median of {runs} pages" if found else "Chromium is not installed",
    }
    train, test = scaled(5000, scale, least=20), scaled(2500, scale, least=20)
    with tempfile.TemporaryDirectory() as folder:
        (first, work), *_, (last, whole) = new_width("int7", Store(Path(folder)), train=train, test=test)
    yield {
        "case": f"a new width of four stored ResNet18, on {test:,} moths, until the first is shown",
        "measured": first,
        "unit": "s",
        "limit": 2,
        "peer": "a stated limit",
        "note": f"{work:.1f} s of a core; all four {last:.1f} s, {whole:.1f} s of a core; needs an idle one",
    }


if __name__ == "__main__":
    print(*cases(), sep="\n")
