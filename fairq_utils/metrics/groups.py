"""What a network gets right, for whom, and how sure one can be of it.

Two kinds of input run through this module. *Logits*, an array of examples by classes, say everything
that one network answered. *Correct*, an array of true and false with one entry an example, or of seeds
by examples for several networks on the same images, says only where the answers were right; it comes
from `correct_answers`, and everything about accuracy is computed from it.

Networks may have been asked of different examples: then an array of seeds by examples has a column for
every example that any of them was asked of, and is masked (`numpy.ma`) where one was not. An estimate is the
mean over networks, and an interval knows which examples several of them share.

Arrays may be numpy or torch, of any floating type, on any device. Groups and labels are integers or
strings; in results a group is always named by a string. A name in `group_names` that no example has is
an empty group: its n is 0, its numbers are NaN, and it takes no part in OA and FVO.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from fairq_utils.errors import BadInput
from fairq_utils.metrics.arrays import (
    Array,
    as_array,
    as_codes,
    as_correct,
    as_labels,
    as_logits,
    logits_of_one_network,
    outcomes_of,
    with_names,
)

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
    scores = as_logits(logits)
    return scores.argmax(axis=-1) == as_labels(labels, class_names, *scores.shape[-2:])


def overall_accuracy(correct: Array) -> float:
    """OA: the share of right answers, over all examples and, if there are several, all seeds.

    >>> overall_accuracy([True, True, False, True])
    0.75
    """
    return float(as_correct(correct).mean())


def fairness_violation(correct: Array, groups: Array, *, group_names: Sequence[str] | None = None) -> float:
    """FVO: the accuracy of the best group minus that of the worst, a fraction.

    With several seeds it is the gap between the groups' accuracies averaged over the seeds: the gap that
    stays when the luck of one training run is averaged out. It is a maximum minus a minimum, so noise
    alone makes it positive: read it with `accuracy_intervals`, or beside
    `fairness_violation_under_equality`. With one group it is 0.

    >>> fairness_violation([True, True, True, False], ["a", "a", "b", "b"])
    0.5
    """
    accuracies = outcomes_of([correct], groups, group_names).by_seed()[0].mean(axis=0)
    return float(np.ptp(accuracies))


def worst_group(correct: Array, groups: Array, *, group_names: Sequence[str] | None = None) -> str:
    """The name of the group with the lowest accuracy; of several equal ones the first.

    >>> worst_group([True, True, True, False], ["a", "a", "b", "b"])
    'b'
    """
    outcomes = outcomes_of([correct], groups, group_names)
    return outcomes.names[outcomes.present[outcomes.by_seed()[0].mean(axis=0).argmin()]]


def flipped(before: Array, after: Array) -> NDArray[np.bool_]:
    """Where two networks' logits for the same examples give different classes.

    Right to wrong, wrong to right and wrong to differently wrong all count. Group averages can stand
    still while many single answers flip.

    >>> flipped([[2.0, 1.0], [0.0, 3.0]], [[0.0, 1.0], [0.0, 9.0]])
    array([ True, False])
    """
    first, second = as_logits(before), as_logits(after)
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


def answers_by_group(
    labels: Sequence[Array],
    before: Sequence[Array],
    after: Sequence[Array],
    groups: Sequence[Array],
    *,
    group_names: Sequence[str] | None = None,
) -> pd.DataFrame:
    """What a treatment does to the answers of each group, beyond accuracy: a row a network and group.

    Each argument holds one array a network, of its test images: their labels, the answers before and after,
    and their groups. `won` counts the images that are right after and were wrong before, `lost` the reverse.
    Where group and label coincide the accuracy of a group is a recall, and can be had by giving its label to
    everybody. There `precision` is the share of the answers with its label that are right, and `f1` the
    harmonic mean of both, 0 when nothing is right; elsewhere these are NaN, and so is the precision of a
    label that no image is given. For the mean over networks: `table.groupby("group", sort=False).mean()`.

    >>> labels, before, after = [[0, 0, 0, 1, 1]], [[0, 0, 0, 0, 1]], [[0, 1, 1, 1, 1]]
    >>> table = answers_by_group(labels, before, after, labels, group_names=["many", "few"])
    >>> table[["group", "n", "accuracy_before", "accuracy_after", "won", "lost"]].round(2)
      group  n  accuracy_before  accuracy_after  won  lost
    0  many  3              1.0            0.33    0     2
    1   few  2              0.5            1.00    1     0
    >>> table[["group", "precision_before", "precision_after", "f1_before", "f1_after"]].round(2)
      group  precision_before  precision_after  f1_before  f1_after
    0  many              0.75              1.0       0.86      0.50
    1   few              1.00              0.5       0.67      0.67
    """
    given = [[as_array(own) for own in per_network] for per_network in (labels, before, after, groups)]
    shapes = {tuple(own.shape for own in per_network) for per_network in given}
    if len(shapes) != 1 or not given[0] or any(own.ndim != 1 for own in given[0]):
        raise BadInput(
            "Labels, answers before and after, and groups are of different networks or images; expected for "
            "each network one array of each, with one entry an image."
        )
    codes, names = as_codes(np.concatenate(given[3]), group_names, "group")
    truth = np.concatenate(given[0])
    label_of = {code: truth[codes == code][0] for code in np.unique(codes)}
    coincide = np.array_equal(truth, np.array([label_of[code] for code in codes]))
    coincide &= len(set(label_of.values())) == len(label_of)
    tables, start = [], 0
    for network, (own_labels, *answers, _) in enumerate(zip(*given, strict=True)):
        member = codes[start : start + len(own_labels), None] == np.arange(len(names))
        start += len(own_labels)
        right = [answer == own_labels for answer in answers]
        n = member.sum(axis=0)
        columns: dict[str, Any] = {"network": network, "group": names, "n": n}
        for when, answer, hit in zip(("before", "after"), answers, right, strict=True):
            hits, given_to = hit @ member.astype(int), np.full(len(names), np.nan)
            for code, label in label_of.items() if coincide else ():
                given_to[code] = (answer == label).sum()
            with np.errstate(invalid="ignore"):  # of nobody there is no share: NaN, as it should be
                columns[f"accuracy_{when}"] = hits / n
                columns[f"precision_{when}"] = hits / given_to
                columns[f"f1_{when}"] = 2 * hits / (given_to + n)
        columns["won"] = (~right[0] & right[1]) @ member.astype(int)
        columns["lost"] = (right[0] & ~right[1]) @ member.astype(int)
        tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)


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
    scores = logits_of_one_network(logits)
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
    scores = logits_of_one_network(logits)
    truth = as_labels(labels, class_names, *scores.shape)
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
) -> pd.DataFrame:
    """How one network treats each group: a row a group.

    The columns are n, `accuracy`, and the group's mean of each column of `example_metrics`, with one more:
    `logit_variance_within_class`, the other thing that "logit variance" may mean, the variance of a logit
    across the group's examples with the same label, averaged over labels (by examples) and logits. It is
    the sample variance, which is on average as large for few examples as for many; an example that is alone
    with its label in its group is left out.

    `logit_variance` asks whether an example's scores are spread out, `logit_variance_within_class` whether
    scores differ between examples that should look alike. A temperature of T divides both by T squared
    and leaves accuracy alone. For intervals use `accuracy_intervals` and `mean_intervals`, and for how far
    confidence can be believed `calibration`.

    >>> table = group_metrics([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]], [0, 0, 1], ["a", "a", "b"])
    >>> table[["group", "n", "accuracy", "loss", "logit_variance", "margin"]].round(2)
      group  n  accuracy  loss  logit_variance  margin
    0     a  2       0.5  0.72            0.62     0.5
    1     b  1       0.0  3.05            2.25    -3.0
    """
    scores = logits_of_one_network(logits)
    examples = example_metrics(scores, labels, class_names=class_names)
    codes, names = _groups_of_rows(groups, group_names, scores)
    truth = as_labels(labels, class_names, *scores.shape)
    alike = pd.DataFrame(scores).groupby([codes, truth])
    variances = alike.transform("var").mean(axis="columns")  # none of an example that is alone
    examples.insert(3, "logit_variance_within_class", variances)
    table = examples.rename(columns={"correct": "accuracy"}).groupby(codes).mean()
    return with_names(table, names, np.bincount(codes, minlength=len(names)))


def calibration(
    logits: Array,
    labels: Array,
    groups: Array,
    *,
    seed: int,
    group_names: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
    bins: int = 15,
) -> pd.DataFrame:
    """How far confidence and accuracy lie apart for each group, on equally many examples: a row a group.

    Of each group as many examples are drawn as the smallest has: n, by the `seed`; with that of the network,
    a mean over networks covers the draw. They lie in `bins` bins of equal width of confidence.
    `squared_calibration_error` is the square of the gap between accuracy and mean confidence in a bin, less
    what chance adds to it, averaged over the bins (by examples). The gap that one sees in a bin is never
    zero, and the fewer the examples, the larger; so the plain calibration error finds fault with small
    groups. Less that, after Kumar et al. 2019, it is on average 0 where confidence can be believed, and so
    below 0 about as often as above: average it over networks before taking a root. An example that is alone
    in its bin tells nothing, and is left out.

    >>> sure = [[0.0, 9.0]] * 4
    >>> table = calibration(sure, [1, 1, 1, 0], ["a", "a", "b", "b"], seed=0)
    >>> table.round(4)
      group  n  squared_calibration_error
    0     a  2                     0.0000
    1     b  2                    -0.0001
    """
    if bins < 1:
        raise BadInput(f"bins is {bins}; expected 1 or more, such as 15.")
    scores = logits_of_one_network(logits)
    examples = example_metrics(scores, labels, class_names=class_names)
    codes, names = _groups_of_rows(groups, group_names, scores)
    sizes = np.bincount(codes, minlength=len(names))
    count = sizes[sizes > 0].min()
    random = np.random.default_rng(seed)
    places = [np.flatnonzero(codes == code) for code in np.flatnonzero(sizes)]
    chosen = np.concatenate([random.choice(own, count, replace=False) for own in places])

    gap = (examples["correct"] - examples["confidence"])[chosen]
    # Closed above, so that a confidence of exactly 1 has a bin.
    bin_of = np.ceil(examples["confidence"][chosen] * bins)
    by_bin = pd.DataFrame({"gap": gap, "square": gap**2, "n": 1}).groupby([codes[chosen], bin_of]).sum()
    shared = by_bin[by_bin["n"] > 1]
    # The mean over pairs of different examples of the product of their gaps, times n.
    errors = (shared["gap"] ** 2 - shared["square"]) / (shared["n"] - 1)
    table = (errors.groupby(level=0).sum() / shared["n"].groupby(level=0).sum()).rename(
        "squared_calibration_error"
    )
    return with_names(table.to_frame(), names, np.where(sizes > 0, count, 0))


def _groups_of_rows(
    groups: Array, group_names: Sequence[str] | None, scores: NDArray[np.float64]
) -> tuple[NDArray[np.intp], list[str]]:
    codes, names = as_codes(groups, group_names, "group")
    if len(codes) != len(scores):
        raise BadInput(f"{len(codes)} groups for {len(scores)} rows of logits; expected one group a row.")
    return codes, names
