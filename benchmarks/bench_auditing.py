"""An audit of a million predictions, timed against fairlearn's MetricFrame with its bootstrap."""

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
import pandas as pd
from fairlearn.metrics import MetricFrame
from sklearn.metrics import accuracy_score

from benchmarks import scaled

GROUPS, CLASSES = 20, 10
PEERS_RESAMPLES = 5


def _tables(images: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(0)
    labels = rng.integers(CLASSES, size=images)
    was = np.where(rng.random(images) < 0.9, labels, rng.integers(CLASSES, size=images))
    now = np.where(rng.random(images) < 0.95, was, rng.integers(CLASSES, size=images))
    names = np.array([f"class {place}" for place in range(CLASSES)])
    groups = np.array([f"group {place}" for place in range(GROUPS)])[rng.integers(GROUPS, size=images)]
    base = pd.DataFrame({"id": np.arange(images), "label": names[labels], "group": groups})
    return base.assign(prediction=names[was]), base.assign(prediction=names[now])


def cases(scale: float = 1.0) -> Iterator[dict]:
    images = scaled(1_000_000, scale)
    tables = _tables(images)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("before.csv", "after.csv")]
        for path, table in zip(paths, tables, strict=True):
            table.to_csv(path, index=False)
        command = [sys.executable, "-m", "fairq_book", "audit", "--predictions", *map(str, paths)]
        command += ["--out", str(Path(folder) / "audit")]
        earlier, start = resource.getrusage(resource.RUSAGE_CHILDREN), perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds = perf_counter() - start
        size = (Path(folder) / "audit" / "report.html").stat().st_size
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = spent.ru_utime + spent.ru_stime - earlier.ru_utime - earlier.ru_stime
    start = process_time()
    for table in tables:
        frame = MetricFrame(
            metrics=accuracy_score,
            y_true=table["label"],
            y_pred=table["prediction"],
            sensitive_features=table["group"],
            n_boot=PEERS_RESAMPLES,
            ci_quantiles=[0.025, 0.975],
        )
        frame.by_group_ci, frame.difference_ci()
    peer = process_time() - start
    yield {
        "case": f"an audit of {images:,} predictions in {GROUPS} groups, from CSV to report",
        "measured": seconds,
        "unit": "s",
        "limit": 15,
        "peer": f"fairlearn MetricFrame with {PEERS_RESAMPLES} resamples: {peer:.0f} s of processor",
        "note": f"{processor:.1f} s of processor, at a load of {os.getloadavg()[0]:.1f}; 2,000 resamples",
    }
    yield {
        "case": "the memory that it took at most",
        "measured": spent.ru_maxrss / 2**20,
        "unit": "GiB",
        "limit": 2,
        "peer": "no peer",
        "note": f"its report has {size / 1e6:.2f} MB",
    }
