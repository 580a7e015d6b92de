"""Group metrics and resampling, timed against fairlearn's MetricFrame."""

from collections.abc import Callable, Iterator
from statistics import median
from time import perf_counter

import numpy as np
from fairlearn.metrics import MetricFrame
from scipy.special import entr, softmax
from sklearn.metrics import accuracy_score, log_loss

from benchmarks import scaled
from fairq_utils.metrics.changes import compare
from fairq_utils.metrics.groups import group_metrics

CLASSES = 5


def _seconds(work: Callable[[], object]) -> float:
    start = perf_counter()
    work()
    return perf_counter() - start


def _interleaved(ours: Callable[[], object], peer: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Median seconds of ours, and of the pairwise ratios ours over peer."""
    ours(), peer()  # warm-up
    pairs = [(_seconds(ours), _seconds(peer)) for _ in range(rounds)]
    return median(mine for mine, _ in pairs), median(mine / theirs for mine, theirs in pairs)


def _margin(labels: np.ndarray, logits: np.ndarray) -> float:
    own = np.arange(CLASSES) == labels[:, None]
    return (logits[own] - np.where(own, -np.inf, logits).max(axis=1)).mean()


def _within_class(labels: np.ndarray, logits: np.ndarray) -> float:
    spread = [logits[labels == label].var(axis=0, ddof=1).mean() for label in np.unique(labels)]
    return np.average(spread, weights=np.unique(labels, return_counts=True)[1])


METRICS = {
    "accuracy": lambda labels, logits: accuracy_score(labels, logits.argmax(axis=1)),
    "loss": lambda labels, logits: log_loss(labels, softmax(logits, axis=1), labels=range(CLASSES)),
    "logit_variance": lambda labels, logits: logits.var(axis=1).mean(),
    "logit_variance_within_class": _within_class,
    "confidence": lambda labels, logits: softmax(logits, axis=1).max(axis=1).mean(),
    "entropy": lambda labels, logits: entr(softmax(logits, axis=1)).sum(axis=1).mean(),
    "margin": _margin,
}


def _data(examples: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.integers(CLASSES, size=examples)
    logits = rng.standard_normal((examples, CLASSES)) + 1.5 * np.eye(CLASSES)[labels]
    return logits, labels, rng.choice(CLASSES, size=examples, p=[0.4, 0.2, 0.15, 0.15, 0.1])


def cases(scale: float = 1.0) -> Iterator[dict]:
    rounds = scaled(5, scale)
    logits, labels, groups = _data(scaled(50_000, scale))
    seconds, ratio = _interleaved(
        lambda: group_metrics(logits, labels, groups),
        lambda: (
            MetricFrame(metrics=METRICS, y_true=labels, y_pred=logits, sensitive_features=groups).by_group
        ),
        rounds=rounds,
    )
    yield {
        "case": f"group metrics of {len(labels):,} examples",
        "measured": ratio,
        "unit": "x",
        "limit": 1 / 20,
        "peer": "fairlearn MetricFrame, the same seven metrics",
        "note": f"ours {1000 * seconds:.0f} ms",
    }

    logits, labels, groups = _data(scaled(5_000, scale))
    correct = logits.argmax(axis=1) == labels
    after = correct ^ (np.random.default_rng(1).random(len(correct)) < 0.05)
    ours, peers = scaled(2_000, scale, least=100), scaled(20, scale)
    seconds, ratio = _interleaved(
        lambda: compare(correct, after, groups, resamples=ours),
        lambda: (
            MetricFrame(
                metrics=accuracy_score,
                y_true=labels,
                y_pred=logits.argmax(axis=1),
                sensitive_features=groups,
                n_boot=peers,
                ci_quantiles=[0.025, 0.975],
            ).by_group_ci
        ),
        rounds=rounds,
    )
    yield {
        "case": f"{ours:,} stratified paired resamples of {len(labels):,} examples, 5 groups, per resample",
        "measured": ratio * peers / ours,
        "unit": "x",
        "limit": 1 / 100,
        "peer": "fairlearn MetricFrame's bootstrap: one network, not stratified",
        "note": f"ours {1000 * seconds:.1f} ms for all {ours}; drawn by kinds of images, not images",
    }
