"""What a network gets right, for whom, and how sure one can be of it.

Two kinds of input run through this module. *Logits*, an array of examples by classes, say everything
that one network answered. *Correct*, an array of true and false with one entry an example, or of seeds
by examples for several networks on the same images, says only where the answers were right; it comes
from `correct_answers`, and everything about accuracy is computed from it.

Arrays may be numpy or torch, of any floating type, on any device. Groups and labels are integers or
strings; in results a group is always named by a string. A name in `group_names` that no example has is
an empty group: its n is 0, its numbers are NaN, and it takes no part in OA and FVO.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from fairq_utils.errors import BadInput

Array = ArrayLike | torch.Tensor


# -- reading what was given ---------------------------------------------------------------------------


def _array(values: Array) -> NDArray[Any]:
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        if values.is_floating_point():  # numpy has no bfloat16
            values = values.double()
        return values.numpy()
    return np.asarray(values)


def _one_network(logits: Array) -> NDArray[np.float64]:
    scores = _logits(logits)
    if scores.ndim != 2:
        raise BadInput(
            f"The logits have shape {scores.shape}; expected examples by classes: pass one seed at a time."
        )
    return scores


def _logits(logits: Array) -> NDArray[np.float64]:
    array = _array(logits).astype(np.float64, copy=False)
    if array.ndim < 2 or array.shape[-1] < 2 or array.shape[-2] == 0:
        raise BadInput(
            f"The logits have shape {array.shape}; expected examples by two classes or more "
            "(seeds may stand in front): pass one row of scores an example."
        )
    broken = np.argwhere(~np.isfinite(array))
    if len(broken):
        raise BadInput(
            f"{len(broken)} of the {array.size} logits are NaN or infinite, the first at index "
            f"{tuple(broken[0].tolist())}; expected finite numbers: look for the layer that overflowed."
        )
    return array


def _codes(values: Array, names: Sequence[str] | None, what: str) -> tuple[NDArray[np.intp], list[str]]:
    """The place of each value in the names; without names, in the sorted distinct values."""
    array = _array(values)
    if array.ndim != 1 or len(array) == 0:
        raise BadInput(f"The {what}s have shape {array.shape}; expected one {what} an example, at least one.")
    if names is None:
        codes, distinct = pd.factorize(array, sort=True)
        known = [str(value) for value in distinct]
    else:
        known = list(names)
        if len(set(known)) < len(known):
            raise BadInput(f"The {what} names {known} repeat a name; expected each name once.")
        if np.issubdtype(array.dtype, np.integer):
            codes = np.where((array >= 0) & (array < len(known)), array, -1)
        else:
            codes = pd.Index(known).get_indexer(pd.Index(array))
    if (codes < 0).any():
        raise BadInput(
            f"A {what} is {array[codes < 0].tolist()[0]!r}; expected one of {known}: "
            "correct it or add its name."
        )
    return codes.astype(np.intp), known


def _named(table: pd.DataFrame, names: Sequence[str], sizes: NDArray[Any]) -> pd.DataFrame:
    """A table by place in the names, with every name and n in front; what is missing becomes NaN."""
    table = table.reindex(range(len(names)))
    table.insert(0, "group", names)
    table.insert(1, "n", sizes)
    return table


def _labels(
    labels: Array, class_names: Sequence[str] | None, examples: int, classes: int
) -> NDArray[np.intp]:
    names = [str(column) for column in range(classes)] if class_names is None else class_names
    if len(names) != classes:
        raise BadInput(
            f"{len(names)} class names for {classes} columns of logits; expected one name a column."
        )
    array = _array(labels)
    if class_names is None and not np.issubdtype(array.dtype, np.integer):
        raise BadInput(
            f"The labels are of type {array.dtype}; expected integers, or strings together with "
            "class_names, which says which column of the logits is which class."
        )
    codes, _ = _codes(array, names, "label")
    if len(codes) != examples:
        raise BadInput(f"{len(codes)} labels for {examples} rows of logits; expected one label a row.")
    return codes


@dataclass(frozen=True)
class _Outcomes:
    """Right and wrong of one treatment or several, and the groups that have examples."""

    correct: NDArray[np.bool_]  # treatments x seeds x examples
    codes: NDArray[np.intp]
    names: list[str]
    sizes: NDArray[np.intp]

    @property
    def present(self) -> NDArray[np.intp]:
        return np.flatnonzero(self.sizes)

    @property
    def shares(self) -> NDArray[np.float64]:
        return self.sizes[self.present] / self.sizes.sum()

    def by_seed(self) -> NDArray[np.float64]:
        """Accuracies, treatments x seeds x groups that have examples."""
        member = self.codes[:, None] == self.present
        return self.correct @ member.astype(np.float64) / self.sizes[self.present]


def _correct(correct: Array) -> NDArray[np.bool_]:
    array = _array(correct)
    if array.dtype != np.bool_ or array.ndim not in (1, 2) or array.size == 0:
        raise BadInput(
            f"An array of {array.dtype} of shape {array.shape} for right and wrong; expected true and false, "
            "one an example, or seeds by examples: correct_answers(logits, labels) makes it."
        )
    return array


def _outcomes(treatments: Sequence[Array], groups: Array, group_names: Sequence[str] | None) -> _Outcomes:
    codes, names = _codes(groups, group_names, "group")
    arrays = [_correct(correct) for correct in treatments]
    for array in arrays:
        if array.shape != arrays[0].shape or array.shape[-1] != len(codes):
            raise BadInput(
                f"Right and wrong have shape {' and '.join(str(a.shape) for a in arrays)} for {len(codes)} "
                "groups; expected the same seeds and examples throughout, in the same order."
            )
    correct = np.stack([np.atleast_2d(array) for array in arrays])
    return _Outcomes(correct, codes, names, np.bincount(codes, minlength=len(names)))


# -- what a network answers ---------------------------------------------------------------------------


def correct_answers(
    logits: Array, labels: Array, *, class_names: Sequence[str] | None = None
) -> NDArray[np.bool_]:
    """Where the largest logit is the label's: true and false, with the shape of the logits less the classes.

    Of equal largest logits the first class is taken, as `argmax` does; a network whose logits are all
    equal therefore answers class 0 throughout, and `collapse` shows it. Logits of several networks on the
    same examples may be stacked in front: seeds x examples x classes.

    >>> correct_answers([[2.0, 1.0], [0.0, 3.0], [1.0, 0.0]], [0, 1, 1])
    array([ True,  True, False])
    >>> correct_answers([[2.0, 1.0], [0.0, 3.0]], ["moth", "moth"], class_names=["moth", "fly"])
    array([ True, False])
    """
    scores = _logits(logits)
    return scores.argmax(axis=-1) == _labels(labels, class_names, *scores.shape[-2:])


def overall_accuracy(correct: Array) -> float:
    """OA: the share of right answers, over all examples and, if there are several, all seeds.

    >>> overall_accuracy([True, True, False, True])
    0.75
    """
    return float(_correct(correct).mean())


def fairness_violation(correct: Array, groups: Array, *, group_names: Sequence[str] | None = None) -> float:
    """FVO: the accuracy of the best group minus that of the worst, a fraction.

    With several seeds it is the gap between the groups' accuracies averaged over the seeds: the gap that
    stays when the luck of one training run is averaged out. It is a maximum minus a minimum, so noise
    alone makes it positive: read it with `accuracy_intervals`, or beside
    `fairness_violation_under_equality`. With one group it is 0.

    >>> fairness_violation([True, True, True, False], ["a", "a", "b", "b"])
    0.5
    """
    accuracies = _outcomes([correct], groups, group_names).by_seed()[0].mean(axis=0)
    return float(np.ptp(accuracies))


def worst_group(correct: Array, groups: Array, *, group_names: Sequence[str] | None = None) -> str:
    """The name of the group with the lowest accuracy; of several equal ones the first.

    >>> worst_group([True, True, True, False], ["a", "a", "b", "b"])
    'b'
    """
    outcomes = _outcomes([correct], groups, group_names)
    return outcomes.names[outcomes.present[outcomes.by_seed()[0].mean(axis=0).argmin()]]


def flipped(before: Array, after: Array) -> NDArray[np.bool_]:
    """Where two networks' logits for the same examples give different classes.

    Right to wrong, wrong to right and wrong to differently wrong all count. Group averages can stand
    still while many single answers flip.

    >>> flipped([[2.0, 1.0], [0.0, 3.0]], [[0.0, 1.0], [0.0, 9.0]])
    array([ True, False])
    """
    first, second = _logits(before), _logits(after)
    if first.shape != second.shape:
        raise BadInput(
            f"The logits have shapes {first.shape} and {second.shape}; expected those of two networks "
            "for the same examples and classes, in the same order."
        )
    return first.argmax(axis=-1) != second.argmax(axis=-1)


def flip_rate(before: Array, after: Array) -> float:
    """The share of examples to which two networks give different classes, from their logits.

    >>> flip_rate([[2.0, 1.0], [0.0, 3.0]], [[0.0, 1.0], [0.0, 9.0]])
    0.5
    """
    return float(flipped(before, after).mean())


@dataclass(frozen=True)
class Collapse:
    """How far a network has fallen back on few answers.

    `share` is the share of examples that get the most predicted class; `effective_classes` is the
    exponential of the entropy of the predicted classes: the number of classes that, used equally often,
    would be as varied.
    """

    share: float
    effective_classes: float


def collapse(logits: Array) -> Collapse:
    """How far the predictions have collapsed onto few classes.

    A network that always gives one class has an FVO of 1 by construction when group and label coincide.
    When `share` is near 1 and `effective_classes` near 1, read a large FVO as collapse and not as
    disparity.

    >>> collapse([[2.0, 1.0, 0.0], [3.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 2.0, 0.0]])
    Collapse(share=0.5, effective_classes=2.0)
    """
    scores = _one_network(logits)
    counts = np.bincount(scores.argmax(axis=-1), minlength=scores.shape[-1])
    shares = counts / counts.sum()
    return Collapse(float(shares.max()), float(np.exp(special.entr(shares).sum())))


def example_metrics(
    logits: Array, labels: Array, *, class_names: Sequence[str] | None = None
) -> pd.DataFrame:
    """What one network makes of each example: a row an example.

    - `correct`: whether the largest logit is the label's.
    - `loss`: cross entropy, in nats.
    - `logit_variance`: population variance of the example's logits over the classes.
    - `confidence`: the largest softmax probability.
    - `entropy`: that of the softmax, in nats; 0 is sure, ln(classes) is uniform.
    - `margin`: the label's logit less the largest other one; negative where the answer is wrong.

    The column of a measure, or the difference of two networks' columns, goes into `mean_intervals`. A
    loss that grows while accuracy stands still comes from answers that are confidently wrong: look at
    margin and confidence.

    >>> example_metrics([[2.0, 0.0], [0.0, 1.0]], [0, 0]).round(2)
       correct  loss  logit_variance  confidence  entropy  margin
    0     True  0.13            1.00        0.88     0.37     2.0
    1    False  1.31            0.25        0.73     0.58    -1.0
    """
    scores = _one_network(logits)
    truth = _labels(labels, class_names, *scores.shape)
    rows = np.arange(len(scores))
    log_probabilities = special.log_softmax(scores, axis=-1)
    probabilities = np.exp(log_probabilities)
    rivals = scores.copy()
    rivals[rows, truth] = -np.inf
    return pd.DataFrame(
        {
            "correct": scores.argmax(axis=-1) == truth,
            "loss": -log_probabilities[rows, truth],
            "logit_variance": scores.var(axis=-1),
            "confidence": probabilities.max(axis=-1),
            "entropy": special.entr(probabilities).sum(axis=-1),
            "margin": scores[rows, truth] - rivals.max(axis=-1),
        }
    )


def group_metrics(
    logits: Array,
    labels: Array,
    groups: Array,
    *,
    group_names: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
    bins: int = 15,
) -> pd.DataFrame:
    """How one network treats each group: a row a group.

    The columns are n, `accuracy`, and the group's mean of each column of `example_metrics`, with two more:

    - `logit_variance_within_class`: the other thing that "logit variance" may mean, the variance of a
      logit across the group's examples with the same label, averaged over labels (by examples) and logits.
    - `calibration_error`: the gap between accuracy and mean confidence in `bins` bins of equal width of
      confidence, averaged over the bins (by examples).

    `logit_variance` asks whether an example's scores are spread out, `logit_variance_within_class` whether
    scores differ between examples that should look alike. A temperature of T divides both by T squared
    and leaves accuracy alone. Both are population variances, so the second is 0 for a group of one. The
    calibration error of a small group is too large by chance: compare groups of similar n, or take fewer
    bins. For intervals use `accuracy_intervals` and `mean_intervals`.

    >>> table = group_metrics([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]], [0, 0, 1], ["a", "a", "b"])
    >>> table[["group", "n", "accuracy", "loss", "logit_variance", "margin"]].round(2)
      group  n  accuracy  loss  logit_variance  margin
    0     a  2       0.5  0.72            0.62     0.5
    1     b  1       0.0  3.05            2.25    -3.0
    """
    if bins < 1:
        raise BadInput(f"bins is {bins}; expected 1 or more, such as 15.")
    scores = _one_network(logits)
    examples = example_metrics(scores, labels, class_names=class_names)
    codes, names = _codes(groups, group_names, "group")
    if len(codes) != len(scores):
        raise BadInput(f"{len(codes)} groups for {len(scores)} rows of logits; expected one group a row.")

    truth = _labels(labels, class_names, *scores.shape)
    alike = pd.DataFrame(scores).groupby([codes, truth]).transform("mean").to_numpy()
    examples.insert(3, "logit_variance_within_class", ((scores - alike) ** 2).mean(axis=-1))
    # Closed above, so that a confidence of exactly 1 has a bin.
    bin_of = np.ceil(examples["confidence"] * bins)
    gaps = (examples["correct"] - examples["confidence"]).groupby([codes, bin_of]).sum().abs()

    by_group = examples.rename(columns={"correct": "accuracy"}).groupby(codes)
    table = by_group.mean().assign(calibration_error=gaps.groupby(level=0).sum() / by_group.size())
    return _named(table, names, np.bincount(codes, minlength=len(names)))


# -- intervals ----------------------------------------------------------------------------------------


def _draw(
    outcomes: _Outcomes, coefficients: NDArray[np.float64], resamples: int, seed: int
) -> NDArray[np.float64]:
    """Draws of the true accuracies: resamples x treatments x groups that have examples.

    Images: the Bayesian bootstrap within each group. Images that the same number of seeds got right
    weigh alike, so their weights are drawn as one sum, exactly: cells of images, not images. Half an
    invented image of each plain kind (right throughout, wrong throughout, and, where treatments are
    contrasted, all that can be gained and all that can be lost) keeps a group that is all right, or of
    one, from looking certain; for one network this is Jeffreys' interval.

    Seeds: normal deviations of the seeds' accuracies, scaled so that each is Student's t about its mean.
    Resampling three or five seeds would understate their spread. The same deviation serves all groups and
    all treatments, because the seeds do.
    """
    if resamples < 100:
        raise BadInput(f"resamples is {resamples}; expected 100 or more, so that the tails hold draws.")
    rng = np.random.default_rng(seed)
    treatments, seeds = outcomes.correct.shape[:2]
    right = outcomes.correct.sum(axis=1).T
    throughout = np.ones(treatments, dtype=bool)
    kinds = seeds * np.unique([throughout, ~throughout, coefficients > 0, coefficients < 0], axis=0)

    draws = np.empty((resamples, treatments, len(outcomes.present)))
    for place, group in enumerate(outcomes.present):
        own = right[outcomes.codes == group]
        cells, members = np.unique(np.concatenate([kinds, own]), axis=0, return_inverse=True)
        mass = np.bincount(members, weights=np.repeat([0.5, 1.0], [len(kinds), len(own)]))
        draws[:, :, place] = rng.dirichlet(mass, size=resamples) @ (cells / seeds)
    if seeds > 1:
        by_seed = outcomes.by_seed()
        deviations = rng.standard_normal((resamples, seeds))
        deviations -= deviations.mean(axis=1, keepdims=True)
        deviations /= np.sqrt(seeds * rng.chisquare(seeds - 1, size=(resamples, 1)))
        draws += np.einsum("rs,tsg->rtg", deviations, by_seed)
    return draws.clip(0, 1)


def _widest_gap(
    accuracies: NDArray[np.float64], draws: NDArray[np.float64], tail: float
) -> tuple[float, float]:
    """An interval for the largest difference between two groups.

    The largest of several noisy gaps is too large on average, and resampling makes it larger still, so
    the percentiles of resampled FVOs never reach down to 0. Here instead the lower limit takes from each
    gap the margin that holds for all gaps at once that may be the widest; the upper limit gives each gap
    the margin of one, since the truly widest gap alone has to stay below it.
    """
    if len(accuracies) == 1:
        return 0.0, 0.0
    high, low = np.nonzero(~np.eye(len(accuracies), dtype=bool))
    gaps = accuracies[high] - accuracies[low]
    errors = draws[:, high] - draws[:, low]
    errors -= np.median(errors, axis=0)
    margins = np.quantile(errors, 1 - tail, axis=0)
    excess = errors / margins
    factor = np.quantile(excess.max(axis=1), 1 - tail)
    rivals = gaps + factor * margins >= (gaps - factor * margins).max()
    factor = np.quantile(excess[:, rivals].max(axis=1), 1 - tail)
    return max(0.0, (gaps - factor * margins)[rivals].max()), min(1.0, (gaps + margins).max())


def _tail(level: float) -> float:
    if not 0 < level < 1:
        raise BadInput(f"level is {level}; expected a fraction between 0 and 1, such as 0.95.")
    return (1 - level) / 2


def _measures(accuracies: NDArray[np.float64], shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """OA, FVO and the worst accuracy behind the accuracies of the groups, along the last axis."""
    overall = accuracies @ shares
    gap, worst = np.ptp(accuracies, axis=-1), accuracies.min(axis=-1)
    return np.concatenate([accuracies, np.stack([overall, gap, worst], axis=-1)], axis=-1)


def _records(
    outcomes: _Outcomes,
    estimate: NDArray[np.float64],
    limits: NDArray[np.float64],
    *,
    worst: bool = False,
    **others: NDArray[np.float64],
) -> pd.DataFrame:
    """A row a group, then OA, FVO and, if asked, the worst group; an interval always holds its estimate."""
    lower, upper = np.minimum(limits[0], estimate), np.maximum(limits[1], estimate)
    groups, wholes = len(outcomes.names), ["OA", "FVO", "worst group"]
    table = pd.DataFrame(
        {**others, "estimate": estimate, "lower": lower, "upper": upper},
        index=[*outcomes.present, *range(groups, groups + len(wholes))],
    )
    asked = wholes if worst else wholes[:2]
    sizes = np.append(outcomes.sizes, [outcomes.sizes.sum()] * len(asked))
    return _named(table, [*outcomes.names, *asked], sizes)


def accuracy_intervals(
    correct: Array,
    groups: Array,
    *,
    group_names: Sequence[str] | None = None,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> pd.DataFrame:
    """The accuracy of each group, OA and FVO, each with n and an interval.

    `correct` is true and false: one an example, or seeds by examples for networks trained alike from
    several seeds and run on the same images. The estimates are averages over the seeds, and FVO is the
    highest minus the lowest of them. Any yes or no about an example can stand in its place, such as
    `flipped`.

    The intervals hold for other images of the same groups and, when there are several seeds, for other
    seeds too. Group sizes are kept as they are. For one network a group's interval is Jeffreys' for a
    binomial share; with endless images it would be Student's t over the seeds. Between the two, what is
    noise of image and seed together is counted for both, which makes intervals a little wide rather than
    narrow. The interval of FVO is built for a maximum minus a minimum: it reaches 0 when noise may have
    made the gap, and in simulations covers at least as often as it says.

    With one seed nothing is known about other seeds: say so beside the numbers. With two or three the
    intervals become very wide, rightly: train five or more. When a small group's interval is too wide
    to say anything, more resamples will not help, more images will.

    >>> correct = [True] * 90 + [False] * 10 + [True] * 14 + [False] * 6
    >>> accuracy_intervals(correct, ["many"] * 100 + ["few"] * 20).round(2)
      group    n  estimate  lower  upper
    0   few   20      0.70   0.50   0.87
    1  many  100      0.90   0.84   0.95
    2    OA  120      0.87   0.80   0.92
    3   FVO  120      0.20   0.00   0.42
    """
    tail = _tail(level)
    outcomes = _outcomes([correct], groups, group_names)
    accuracies = outcomes.by_seed()[0].mean(axis=0)
    draws = _draw(outcomes, np.ones(1), resamples, seed)[:, 0]
    limits = np.quantile(_measures(draws, outcomes.shares), [tail, 1 - tail], axis=0)
    limits[:, -2] = _widest_gap(accuracies, draws, tail)
    return _records(outcomes, _measures(accuracies, outcomes.shares), limits)


def compare(
    before: Array,
    after: Array,
    groups: Array,
    *,
    group_names: Sequence[str] | None = None,
    worst: bool = False,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> pd.DataFrame:
    """What a treatment changed: after minus before, for each group, OA and FVO, in pairs.

    `before` and `after` are true and false for the same examples and, if there are several, the same
    seeds in the same order, as for `accuracy_intervals`. Images and seeds are drawn together for both, so
    what the two networks have in common cancels: these intervals are narrower than the difference of two
    separate ones. `worst` adds a record for the accuracy of the worst group, whichever that is before and
    after, and in each draw.

    The change of FVO is a difference of maxima, with a bias that the draws show but do not cure: its
    interval reaches equally far to both sides, by the longer side of the draws; so does the worst group's.
    In simulations intervals of 95 % held the truth in 93 % of cases or more; the exception is a gap that
    opens between groups that were equal and small (70 examples), where it was 90 %. When an interval holds
    0, say that the data do not decide, not that nothing changed.

    >>> before = [True] * 90 + [False] * 10 + [True] * 14 + [False] * 6
    >>> after = [True] * 88 + [False] * 12 + [True] * 4 + [False] * 16
    >>> compare(before, after, ["many"] * 100 + ["few"] * 20).round(2)
      group    n  before  after  estimate  lower  upper
    0   few   20    0.70   0.20     -0.50  -0.67  -0.22
    1  many  100    0.90   0.88     -0.02  -0.06   0.01
    2    OA  120    0.87   0.77     -0.10  -0.14  -0.05
    3   FVO  120    0.20   0.68      0.48   0.20   0.76
    """
    outcomes = _outcomes([before, after], groups, group_names)
    first, second = _measures(outcomes.by_seed().mean(axis=1), outcomes.shares)
    contrasted = _contrast(outcomes, np.array([-1.0, 1.0]), resamples, seed, level)
    return _records(outcomes, *contrasted, worst=worst, before=first, after=second)


def contrast(
    treatments: Sequence[Array],
    coefficients: Sequence[float],
    groups: Array,
    *,
    group_names: Sequence[str] | None = None,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> pd.DataFrame:
    """Several treatments added up with coefficients, for each group, OA and FVO, image by image.

    Each treatment is true and false for the same examples and seeds, as for `compare`, which is the
    contrast with the coefficients -1 and 1; the intervals are made in the same way. FVO is the contrast of
    the treatments' FVOs. Coefficients of one half and minus one half set two treatments against two
    others.

    Averaging over treatments makes intervals narrower, but does not cure the bias of FVO, which draws its
    contrast towards 0. In simulations of four treatments against four, intervals of 95 % held the truth in
    93 % of cases or more, but where a gap opened between groups that were equal and small in 75 to 84 %.

    >>> plain, first, second = [True, False] * 50, [True] * 100, [True, True, False, True] * 25
    >>> contrast([plain, first, second], [-1, 0.5, 0.5], ["a", "b"] * 50).round(2)
      group    n  estimate  lower  upper
    0     a   50     -0.25  -0.31  -0.16
    1     b   50      1.00   0.88   1.00
    2    OA  100      0.38   0.31   0.41
    3   FVO  100     -0.75  -0.89  -0.61
    """
    weights = np.asarray(coefficients, dtype=np.float64)
    if weights.shape != (len(treatments),) or not (np.isfinite(weights).all() and weights.any()):
        raise BadInput(
            f"coefficients is {coefficients} for {len(treatments)} treatments; expected a finite number for "
            "each, not all of them 0."
        )
    outcomes = _outcomes(treatments, groups, group_names)
    return _records(outcomes, *_contrast(outcomes, weights, resamples, seed, level))


def _contrast(
    outcomes: _Outcomes, coefficients: NDArray[np.float64], resamples: int, seed: int, level: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Estimates and limits of the measures of the treatments, added up with the coefficients."""
    tail = _tail(level)
    estimate = coefficients @ _measures(outcomes.by_seed().mean(axis=1), outcomes.shares)
    drawn = _measures(_draw(outcomes, coefficients, resamples, seed), outcomes.shares)
    limits = np.quantile(np.einsum("t,rtm->rm", coefficients, drawn), [tail, 1 - tail], axis=0)
    reach = np.abs(limits[:, -2:] - estimate[-2:]).max(axis=0)
    lowest, highest = coefficients.clip(max=0).sum(), coefficients.clip(min=0).sum()
    limits[:, -2:] = np.clip([estimate[-2:] - reach, estimate[-2:] + reach], lowest, highest)
    return estimate, limits


def mean_intervals(
    values: Array,
    groups: Array,
    *,
    group_names: Sequence[str] | None = None,
    level: float = 0.95,
) -> pd.DataFrame:
    """The mean of any measure of examples for each group, with n and Student's t interval.

    `values` holds one number an example, or seeds by examples for networks trained alike and run on the
    same images: a column of `example_metrics`, say. For a paired comparison of two treatments pass the
    difference, after minus before. As in `accuracy_intervals` the interval covers other images and, with
    several seeds, other seeds; degrees of freedom are Welch and Satterthwaite's. A group of one has no
    interval. When few examples carry most of a mean (a loss that explodes), the interval is not to be
    trusted: look at a median, or at margins.

    >>> mean_intervals([0.1, 0.3, 0.2, 0.9], ["a", "a", "a", "b"]).round(2)
      group  n  estimate  lower  upper
    0     a  3       0.2  -0.05   0.45
    1     b  1       0.9    NaN    NaN
    """
    codes, names = _codes(groups, group_names, "group")
    table = np.atleast_2d(_array(values)).astype(np.float64)
    if table.ndim != 2 or table.shape[1] != len(codes) or not np.isfinite(table).all():
        raise BadInput(
            f"Values of shape {table.shape} for {len(codes)} groups; expected finite numbers, "
            "one an example, or seeds by examples."
        )
    seeds = len(table)
    images = pd.Series(table.mean(axis=0)).groupby(codes)
    mean, size = images.mean(), images.size()
    of_images = images.var() / size
    of_seeds = pd.DataFrame(table.T).groupby(codes).mean().var(axis=1) / seeds if seeds > 1 else 0 * of_images
    variance = of_images + of_seeds
    freedom = variance**2 / (of_images**2 / (size - 1) + of_seeds**2 / max(seeds - 1, 1))
    reach = (np.sqrt(variance) * stats.t.ppf(1 - _tail(level), freedom)).mask(variance == 0, 0.0)
    records = pd.DataFrame({"estimate": mean, "lower": mean - reach, "upper": mean + reach})
    return _named(records, names, np.bincount(codes, minlength=len(names)))


def fairness_violation_under_equality(
    sizes: Sequence[int], accuracy: float | Array, *, resamples: int = 2000, seed: int = 0
) -> NDArray[np.float64]:
    """The FVOs that noise alone would give if all groups had the same accuracy: one a resample.

    `sizes` are the groups' numbers of examples. `accuracy` is what they share: a fraction for one
    network; for several seeds on the same images an array with, for each image, the share of seeds that
    got it right (`correct.mean(axis=0)`), because seeds tend to fail on the same images, so that ten
    seeds are not ten times the images. Assumed: each group's images are drawn independently from one and
    the same pool. Noise of images is all there is here; that a seed may by luck serve one group worse is
    left out, and makes real gaps larger when seeds are few.

    Its quantiles say how large an FVO needs no explanation; the share of draws at least as large as an
    observed FVO is a p-value for "all groups are served alike".

    >>> chance = fairness_violation_under_equality([2015, 905, 687, 795, 338], 0.8)
    >>> round(float(np.median(chance)), 2), round(float(np.quantile(chance, 0.95)), 2)
    (0.03, 0.06)
    """
    counts = np.asarray(sizes)
    if not np.issubdtype(counts.dtype, np.integer) or counts.min() < 0 or counts.max() == 0:
        raise BadInput(f"sizes is {sizes}; expected a number of examples for each group, not all of them 0.")
    counts = counts[counts > 0]
    pool = _array(accuracy).astype(np.float64)
    if pool.ndim > 1 or not ((pool >= 0) & (pool <= 1)).all():
        raise BadInput(f"accuracy is {accuracy}; expected a fraction, or one an image, between 0 and 1.")
    if pool.ndim == 0:
        rates, chances = np.array([0, 1]), np.array([1 - pool, pool])
    else:
        rates, weights = np.unique(pool, return_counts=True)
        chances = weights / weights.sum()
    drawn = np.random.default_rng(seed).multinomial(counts, chances, size=(resamples, len(counts)))
    return np.ptp(drawn @ rates / counts, axis=1)


# -- populations of models ----------------------------------------------------------------------------


def _changes(changes: pd.DataFrame) -> pd.DataFrame:
    table = pd.DataFrame(changes).astype(float)
    if len(table) < 2 or table.shape[1] == 0:
        raise BadInput(
            f"The changes have shape {table.shape}; expected two models or more by one measure or more."
        )
    if not np.isfinite(table.to_numpy()).all():
        raise BadInput(
            "The changes hold numbers that are NaN or infinite; expected after - before of the same models "
            "and measures, which pandas lines up by name: compare the two indexes, then drop what is missing."
        )
    return table


def _holm(p_values: pd.Series) -> pd.Series:
    ordered = p_values.sort_values()
    return (ordered * np.arange(len(ordered), 0, -1)).cummax().clip(upper=1).reindex(p_values.index)


def paired_test(
    changes: pd.DataFrame, *, families: Sequence[str] | None = None, level: float = 0.95
) -> pd.DataFrame:
    """Student's paired t-test for each measure over a population of models, with Holm's correction.

    `changes` is after minus before: a row a model, a column a measure. A row of the result holds, for one
    measure, the number of models, the mean change with its interval, the statistic, p and p_holm: what
    remains of p when every measure of the same family was tested beside it. `families` names a family for
    each column; without it all columns are one family. The interval is that of one test, not corrected.

    The test takes the models to be independent draws; networks that share their training data are less
    than that, so treat a p near the threshold with suspicion. When nothing changed in any model p is 1,
    and when every model changed by exactly the same amount p is 0.

    >>> changes = pd.DataFrame({"gap": [0.02, 0.04, 0.03], "accuracy": [-0.01, 0.02, -0.03]})
    >>> paired_test(changes).round(3)
        measure  n  estimate  lower  upper  statistic      p  p_holm
    0       gap  3     0.030  0.005  0.055      5.196  0.035   0.070
    1  accuracy  3    -0.007 -0.069  0.056     -0.459  0.691   0.691
    """
    table = _changes(changes)
    count, columns = table.shape
    if families is not None and len(families) != columns:
        raise BadInput(f"{len(families)} families for {columns} measures; expected one family a column.")
    mean, error = table.mean(), table.sem()
    statistic = (mean / error).where(mean != 0, 0.0)
    reach = error * stats.t.ppf(1 - _tail(level), count - 1)
    p = pd.Series(2 * stats.t.sf(statistic.abs(), count - 1))
    return pd.DataFrame(
        {
            "measure": table.columns,
            "n": count,
            "estimate": mean.to_numpy(),
            "lower": (mean - reach).to_numpy(),
            "upper": (mean + reach).to_numpy(),
            "statistic": statistic.to_numpy(),
            "p": p,
            "p_holm": p.groupby([0] * columns if families is None else list(families)).transform(_holm),
        }
    )


def sign_consistency(changes: pd.DataFrame, *, level: float = 0.95) -> pd.DataFrame:
    """Whether a population of models changes in one direction: a row a measure.

    `changes` is after minus before: a row a model, a column a measure. `rises` and `falls` count the
    models that changed either way. `estimate` is the share of those that rose, with Clopper and Pearson's
    interval, `consistency` the share of the more frequent direction, and `p` that of the sign test. Few
    models agree often by chance: with five of five, p is still 0.06. When no model changed, the shares
    are NaN and p is 1.

    >>> changes = pd.DataFrame({"gap": [1, 2, 1, 3, 2, -1], "accuracy": [1, -1, 1, -1, 0, 0]})
    >>> sign_consistency(changes).round(2)
        measure  n  rises  falls  estimate  lower  upper  consistency     p
    0       gap  6      5      1      0.83   0.36   1.00         0.83  0.22
    1  accuracy  6      2      2      0.50   0.07   0.93         0.50  1.00
    """
    table = _changes(changes)
    rises, falls = (table > 0).sum().to_numpy(), (table < 0).sum().to_numpy()
    changed = rises + falls
    tail = _tail(level)
    with np.errstate(invalid="ignore"):  # no model changed: 0 / 0 is the NaN it should be
        share = rises / changed
    return pd.DataFrame(
        {
            "measure": table.columns,
            "n": len(table),
            "rises": rises,
            "falls": falls,
            "estimate": share,
            "lower": np.where(rises > 0, stats.beta.ppf(tail, rises, falls + 1), share),
            "upper": np.where(falls > 0, stats.beta.ppf(1 - tail, rises + 1, falls), share),
            "consistency": np.maximum(share, 1 - share),
            "p": np.minimum(1, 2 * stats.binom.cdf(np.minimum(rises, falls), changed, 0.5)),
        }
    )


def equivalence_test(
    changes: pd.DataFrame, margin: float, *, families: Sequence[str] | None = None, level: float = 0.95
) -> pd.DataFrame:
    """Whether a population of models changes by less than the margin: two one-sided t-tests a measure.

    `changes` is after minus before: a row a model, a column a measure. That a change was not found does not
    show that there is none; this does. `p` is the larger of the p-values against "the mean change is the
    margin or more" and against "it is minus the margin or less": small, it shows that the mean lies between
    the two. `p_holm`, `families` and what the models are taken for: as for `paired_test`. `lower` and
    `upper` are the interval that goes with it, of 1 - 2 (1 - level): at a level of 0.95 one of 90 %, and it
    lies inside the margins exactly when p is below 0.05. The margin is to be named before the numbers are
    seen. When every model changed by exactly the same amount, p is 0 or 1.

    >>> changes = pd.DataFrame({"gap": [0.002, -0.001, 0.001], "accuracy": [-0.01, 0.02, -0.03]})
    >>> equivalence_test(changes, 0.01).round(3)
        measure  n  estimate  lower  upper  margin      p  p_holm
    0       gap  3     0.001 -0.002  0.003    0.01  0.004   0.009
    1  accuracy  3    -0.007 -0.049  0.036    0.01  0.420   0.420
    """
    table = _changes(changes)
    count, columns = table.shape
    if not np.isfinite(margin) or margin <= 0:
        raise BadInput(f"margin is {margin}; expected a number above 0, the least change that matters.")
    if families is not None and len(families) != columns:
        raise BadInput(f"{len(families)} families for {columns} measures; expected one family a column.")
    mean, error = table.mean(), table.sem()
    nearest = margin - mean.abs()  # of the two margins the nearer one, which has the larger p
    with np.errstate(invalid="ignore"):
        statistic = (nearest / error).where(nearest != 0, 0.0)
    reach = error * stats.t.ppf(1 - 2 * _tail(level), count - 1)
    p = pd.Series(stats.t.sf(statistic, count - 1))
    return pd.DataFrame(
        {
            "measure": table.columns,
            "n": count,
            "estimate": mean.to_numpy(),
            "lower": (mean - reach).to_numpy(),
            "upper": (mean + reach).to_numpy(),
            "margin": margin,
            "p": p,
            "p_holm": p.groupby([0] * columns if families is None else list(families)).transform(_holm),
        }
    )


# -- retrieval ----------------------------------------------------------------------------------------


def retrieval_ranks(scores: Array, relevant: Array) -> NDArray[np.intp]:
    """For each query, the place at which the first relevant item comes: 1 is the best.

    `scores` is queries by items, larger is better; `relevant` says of each pair whether the item answers the
    query. An item that is not relevant and scores as high as the first relevant one stands before it: who
    cannot tell two items apart has not found the right one.

    >>> scores = [[0.9, 0.5, 0.1], [0.4, 0.4, 0.2]]
    >>> retrieval_ranks(scores, [[True, False, False], [False, True, False]])
    array([1, 2])
    """
    table, right = _array(scores).astype(np.float64), _array(relevant).astype(bool)
    if table.ndim != 2 or table.shape != right.shape or not table.size:
        raise BadInput(
            f"The scores have shape {table.shape} and what is relevant {right.shape}; expected queries by "
            "items for both."
        )
    if not np.isfinite(table).all():
        raise BadInput("Some scores are NaN or infinite; expected finite numbers: look at the encoder.")
    if not right.any(axis=1).all():
        raise BadInput(
            f"{int((~right.any(axis=1)).sum())} queries have no relevant item; expected one for each: leave "
            "those queries out."
        )
    best = np.where(right, table, -np.inf).max(axis=1, keepdims=True)
    return 1 + ((table >= best) & ~right).sum(axis=1)


def recall_at_k(ranks: Array, k: int) -> float:
    """The share of queries that find a relevant item among the first k, from `retrieval_ranks`.

    With k at least the number of items every query finds one, and the recall is 1.

    >>> recall_at_k([1, 2, 7], 1), recall_at_k([1, 2, 7], 10)
    (0.3333333333333333, 1.0)
    """
    places = _array(ranks)
    if places.ndim != 1 or not len(places) or (places < 1).any():
        raise BadInput("The ranks are no list of places from 1; expected those of `retrieval_ranks`.")
    if not isinstance(k, int) or k < 1:
        raise BadInput(f"k is {k!r}; expected a whole number of at least 1.")
    return float((places <= k).mean())


def recall_disparity(
    correct: Array,
    labels: Array,
    groups: Array,
    *,
    between: tuple[str, str],
    label_names: Sequence[str] | None = None,
    group_names: Sequence[str] | None = None,
) -> pd.DataFrame:
    """For each class, the recall in the first group minus that in the second: a row a class.

    Recall is the share of the images of a class, in a group, that are called so. `between` names the two
    groups. A class of which one of the groups has no image has no disparity: it is NaN, and to be left out
    of a mean.

    >>> right = [True, False, True, True]
    >>> recall_disparity(right, ["cook"] * 4, ["a", "a", "b", "b"], between=("a", "b"))
      label  n_first  n_second  first  second  estimate
    0  cook        2         2    0.5     1.0      -0.5
    """
    codes, names = _codes(groups, group_names, "group")
    classes, known = _codes(labels, label_names, "label")
    right = _correct(correct)
    if right.ndim != 1 or not len(right) == len(codes) == len(classes):
        raise BadInput(
            f"{right.shape} answers, {len(classes)} labels and {len(codes)} groups; expected one of each for "
            "every image of one network."
        )
    if len(set(between)) != 2 or not set(between) <= set(names):
        raise BadInput(f"between is {between!r}; expected two of the groups {names}.")
    table = pd.DataFrame({"label": np.array(known, dtype=object)})
    for place, group in zip(("first", "second"), between, strict=True):
        own = codes == names.index(group)
        table[f"n_{place}"] = np.bincount(classes[own], minlength=len(known))
        hits = np.bincount(classes[own], weights=right[own], minlength=len(known))
        table[place] = hits / table[f"n_{place}"].replace(0, np.nan)
    table = table[["label", "n_first", "n_second", "first", "second"]]
    return table.assign(estimate=table["first"] - table["second"])


def _top_shares(
    ranked: Array, desired: str | Mapping[str, float], group_names: Sequence[str] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The groups' shares of the first 1, 2, 3 ... of the ranking, and the shares they ought to have."""
    codes, names = _codes(ranked, group_names, "group")
    counts = (codes[:, None] == np.arange(len(names))).cumsum(axis=0)
    shares = counts / np.arange(1, len(codes) + 1)[:, None]
    if desired == "data":
        present = counts[-1] > 0
        return shares[:, present], shares[-1, present]
    if desired == "equal":
        return shares, np.full(len(names), 1 / len(names))
    if not isinstance(desired, Mapping) or set(desired) != set(names):
        raise BadInput(f'desired is {desired!r}; expected "data", "equal" or a share for each of {names}.')
    wanted = np.array([desired[name] for name in names], dtype=np.float64)
    if not (wanted > 0).all() or not np.isclose(wanted.sum(), 1):
        raise BadInput(f"desired is {desired!r}; expected shares above 0 that sum to 1.")
    return shares, wanted


def _skews(
    ranked: Array, k: int, desired: str | Mapping[str, float], group_names: Sequence[str] | None
) -> NDArray[np.float64]:
    shares, wanted = _top_shares(ranked, desired, group_names)
    if not 1 <= k <= len(shares):
        raise BadInput(
            f"k is {k}; expected a whole number from 1 to {len(shares)}, the length of the ranking."
        )
    with np.errstate(divide="ignore"):  # a group missing from the top has a skew of minus infinity
        return np.log(shares[k - 1] / wanted)


def max_skew(
    ranked: Array,
    k: int,
    *,
    desired: str | Mapping[str, float] = "data",
    group_names: Sequence[str] | None = None,
) -> float:
    """How far the most favoured group is over its due in the top k: ln(share in the top k / desired share).

    `ranked` is the group of every retrieved example, best first. `desired` is `"data"` (the shares of the
    whole ranking), `"equal"` (one over the number of groups) or a share for each name. 0 is fair, and
    ln 2 is twice the due.

    >>> round(max_skew(["a", "a", "a", "b", "b", "b"], 4), 4)  # ln(3/4 over 1/2)
    0.4055
    """
    return float(_skews(ranked, k, desired, group_names).max())


def min_skew(
    ranked: Array,
    k: int,
    *,
    desired: str | Mapping[str, float] = "data",
    group_names: Sequence[str] | None = None,
) -> float:
    """How far the least favoured group is under its due in the top k; arguments as for `max_skew`.

    Minus infinity says that a group is missing from the top k altogether. When that happens often, take a
    larger k or report `ndkl`, which stays finite.

    >>> round(min_skew(["a", "a", "a", "b", "b", "b"], 4), 4)  # ln(1/4 over 1/2)
    -0.6931
    """
    return float(_skews(ranked, k, desired, group_names).min())


def ndkl(
    ranked: Array,
    *,
    desired: str | Mapping[str, float] = "data",
    group_names: Sequence[str] | None = None,
) -> float:
    """Normalised discounted KL divergence: how far all tops of a ranking are from the desired shares.

    The mean over i of KL(shares of the first i || desired), in nats, weighted by 1 / log2(i + 1), so that
    the first places count most. Arguments as for `max_skew`. It is 0 for no ranking in practice, since
    the first place goes to one group: compare rankings of the same length with one another.

    >>> round(ndkl(["a", "b"]), 4)  # (ln 2 / log2(2) + 0 / log2(3)) / (1 + 1 / log2(3))
    0.425
    """
    shares, wanted = _top_shares(ranked, desired, group_names)
    discounts = 1 / np.log2(np.arange(2, len(shares) + 2))
    return float(np.average(special.rel_entr(shares, wanted).sum(axis=1), weights=discounts))
