"""Asking a warm store, and sharing a sweep among processes."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks import scaled
from fairq_book.experiments import scheduling, studies
from fairq_book.experiments.store import Store
from fairq_utils.items import Item
from fairq_utils.training.loop import Recipe
from fairq_utils.treatments.treatment import Treatment


def warm_question(store: Store, *, seeds: int, widths: int, images: int) -> float:
    """Seconds to read so many predictions of so many images; what they hold does not matter here."""
    wanted = studies.studies(seeds=list(range(seeds)), train_images=images, test_images=images)
    treatments = [Treatment(bits) for bits in range(2, 2 + widths)]
    for plan in studies._plans(wanted, store):
        for treatment in treatments:
            job = plan.prediction(treatment)
            store.keep(job.kind, job.identity, Item({"logits": torch.randn(images, 5)}, {"device": "cpu"}))
    start = time.perf_counter()
    studies.predictions(wanted, treatments, store=Store(store.root))
    return time.perf_counter() - start


def sweep(workers: int, *, train_images: int) -> float:
    """Seconds that a sweep over tiny studies takes, from the first job to the last: without the start.

    A worker imports what it computes with when its first job comes; so other studies go before.
    """

    def of(*seeds: int) -> list[studies.Study]:
        recipe = Recipe(epochs=2, batch_size=50)
        return studies.studies(seeds=seeds, train_images=train_images, test_images=100, recipe=recipe)

    wanted = of(*range(4))
    with tempfile.TemporaryDirectory() as folder, scheduling.cluster(workers=workers) as client:
        store = Store(Path(folder))
        for study in wanted:
            studies.dataset(study, store=store)
        studies.predictions(of(100, 101, 102, 103), [Treatment(4)], store=store, client=client)
        start = time.perf_counter()
        studies.predictions(wanted, [Treatment(4)], store=store, client=client)
        return time.perf_counter() - start


def cases(scale: float = 1.0) -> Iterator[dict]:
    seeds, widths, images = scaled(100, scale), 10, scaled(6000, scale, least=20)
    with tempfile.TemporaryDirectory() as folder:
        seconds = warm_question(Store(Path(folder)), seeds=seeds, widths=widths, images=images)
    yield {
        "case": f"a warm question to the store for {seeds * widths:,} predictions, each",
        "measured": 1000 * seconds / (seeds * widths),
        "unit": "ms",
        "limit": 10,
        "peer": "a stated limit",
        "note": "",
    }
    two, one = (sweep(workers, train_images=scaled(600, scale, least=20)) for workers in (2, 1))
    yield {
        "case": "a sweep over 4 tiny studies: 2 workers over 1",
        "measured": two / one,
        "unit": "",
        "limit": 0.9,
        "peer": "one worker",
        "note": f"{two:.1f} s against {one:.1f} s; needs 2 idle cores",
    }


if __name__ == "__main__":
    print(*cases(), sep="\n")
