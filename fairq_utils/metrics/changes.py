"""Accuracies of groups and their changes, with intervals over networks and images."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fairq_utils.errors import BadInput
from fairq_utils.metrics.arrays import (
    Array,
    Outcomes,
    as_array,
    as_codes,
    outcomes_of,
    tail_probability,
    with_names,
)
from fairq_utils.metrics.noise import beyond_seeds, noise, reach_of_sum, shared_images

# -- intervals ----------------------------------------------------------------------------------------


def _draw(
    outcomes: Outcomes, coefficients: NDArray[np.float64], resamples: int, seed: int
) -> NDArray[np.float64]:
    """Draws of the true accuracies: resamples x treatments x groups that have examples.

    Images: the Bayesian bootstrap within each group. Images that the same number of seeds got right
    weigh alike, so their weights are drawn as one sum, exactly: cells of images, not images. Half an
    invented image of each plain kind (right throughout, wrong throughout, and, where treatments are
    contrasted, all that can be gained and all that can be lost) keeps a group that is all right, or of
    one, from looking certain; for one network this is Jeffreys' interval.

    Seeds: normal deviations of the seeds' accuracies, scaled so that each is Student's t about its mean.
    Resampling three or five seeds would understate their spread. The same deviation serves all groups and
    all treatments, because the seeds do. Of the noise of images only what the seeds do not show already is
    added: all of it where they share their images, as `beyond_seeds` says.
    """
    if resamples < 100:
        raise BadInput(f"resamples is {resamples}; expected 100 or more, so that the tails hold draws.")
    rng = np.random.default_rng(seed)
    treatments, seeds = outcomes.correct.shape[:2]
    right, times = outcomes.correct.sum(axis=1).T, outcomes.asked.sum(axis=0)
    throughout = np.ones(treatments, dtype=bool)
    kinds = np.unique([throughout, ~throughout, coefficients > 0, coefficients < 0], axis=0)
    kinds = np.column_stack([kinds, np.ones(len(kinds))])

    draws = np.empty((resamples, treatments, len(outcomes.present)))
    for place, group in enumerate(outcomes.present):
        own = np.column_stack([right, times])[outcomes.codes == group]
        invented = kinds * own[:, -1].mean()  # asked as often as an image of the group is
        cells, members = np.unique(np.concatenate([invented, own]), axis=0, return_inverse=True)
        mass = np.bincount(members, weights=np.repeat([0.5, 1.0], [len(kinds), len(own)]))
        drawn = rng.dirichlet(mass, size=resamples) @ cells
        draws[:, :, place] = drawn[:, :-1] / drawn[:, -1:]
    if seeds > 1:
        by_seed = outcomes.by_seed()
        for place, group in enumerate(outcomes.present):
            of_seeds = (coefficients @ by_seed[:, :, place]).var(ddof=1) / seeds
            of_images = (draws[:, :, place] @ coefficients).var()
            shared = shared_images(outcomes.asked[:, outcomes.codes == group])
            kept = beyond_seeds(of_images, of_seeds, shared) / of_images if of_images else 1.0
            middle = draws[:, :, place].mean(axis=0)
            draws[:, :, place] = middle + np.sqrt(kept) * (draws[:, :, place] - middle)
        deviations = rng.standard_normal((resamples, seeds))
        deviations -= deviations.mean(axis=1, keepdims=True)
        deviations /= np.sqrt(seeds * rng.chisquare(seeds - 1, size=(resamples, 1)))
        draws += np.einsum("rs,tsg->rtg", deviations, by_seed)
    return draws.clip(0, 1)


def _fvo_over_networks(
    accuracies: NDArray[np.float64], draws: NDArray[np.float64], tail: float
) -> tuple[float, float]:
    """An interval for FVO, the largest difference between two groups, from draws of images and of seeds.

    It is of the mean of one network or several, at one treatment; of one pair of models `paired` has that of
    the rise as well.

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


def _measures(accuracies: NDArray[np.float64], shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """OA, FVO and the worst accuracy behind the accuracies of the groups, along the last axis."""
    overall = accuracies @ shares
    gap, worst = np.ptp(accuracies, axis=-1), accuracies.min(axis=-1)
    return np.concatenate([accuracies, np.stack([overall, gap, worst], axis=-1)], axis=-1)


def _records(
    outcomes: Outcomes,
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
    return with_names(table, [*outcomes.names, *asked], sizes)


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
    several seeds. The estimates are averages over the seeds, and FVO is the
    highest minus the lowest of them. Any yes or no about an example can stand in its place, such as
    `flipped`.

    The intervals hold for other images of the same groups and, when there are several seeds, for other
    seeds too. Group sizes are kept as they are. For one network a group's interval is Jeffreys' for a
    binomial share; with endless images it would be Student's t over the seeds. Between the two, what is
    noise of image and seed together is counted for both, which makes intervals a little wide rather than
    narrow; networks that share no image are one number each, and images are counted in their spread. The
    interval of FVO is built for a maximum minus a minimum: it reaches 0 when noise may have
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
    tail = tail_probability(level)
    outcomes = outcomes_of([correct], groups, group_names)
    accuracies = outcomes.by_seed()[0].mean(axis=0)
    draws = _draw(outcomes, np.ones(1), resamples, seed)[:, 0]
    limits = np.quantile(_measures(draws, outcomes.shares), [tail, 1 - tail], axis=0)
    limits[:, -2] = _fvo_over_networks(accuracies, draws, tail)
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
    outcomes = outcomes_of([before, after], groups, group_names)
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
    outcomes = outcomes_of(treatments, groups, group_names)
    return _records(outcomes, *_contrast(outcomes, weights, resamples, seed, level))


def _contrast(
    outcomes: Outcomes, coefficients: NDArray[np.float64], resamples: int, seed: int, level: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Estimates and limits of the measures of the treatments, added up with the coefficients."""
    tail = tail_probability(level)
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

    `values` holds one number an example, or seeds by examples for networks trained alike: a column of
    `example_metrics`, say. For a paired comparison of two treatments pass the difference, after minus
    before. As in `accuracy_intervals` the interval covers other images and, with several seeds, other
    seeds; degrees of freedom are Welch and Satterthwaite's. A group of one has no interval. When few
    examples carry most of a mean (a loss that explodes), the interval is not to be trusted: look at a
    median, or at margins.

    >>> mean_intervals([0.1, 0.3, 0.2, 0.9], ["a", "a", "a", "b"]).round(2)
      group  n  estimate  lower  upper
    0     a  3       0.2  -0.05   0.45
    1     b  1       0.9    NaN    NaN
    """
    codes, names = as_codes(groups, group_names, "group")
    table = np.ma.array(np.ma.atleast_2d(as_array(values)), dtype=np.float64)
    if table.ndim != 2 or table.shape[1] != len(codes) or not np.isfinite(table.compressed()).all():
        raise BadInput(
            f"Values of shape {table.shape} for {len(codes)} groups; expected finite numbers, "
            "one an example, or seeds by examples."
        )
    records = {}
    for code in np.unique(codes):
        own = noise(table[:, codes == code])
        parts = own.parts()
        reach = reach_of_sum(parts, level) if np.isfinite([part for part, _ in parts]).all() else np.nan
        mean = own.by_seed.mean()
        records[code] = {"estimate": mean, "lower": mean - reach, "upper": mean + reach}
    found = pd.DataFrame.from_dict(records, orient="index")
    return with_names(found, names, np.bincount(codes, minlength=len(names)))


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
    pool = as_array(accuracy).astype(np.float64)
    if pool.ndim > 1 or not ((pool >= 0) & (pool <= 1)).all():
        raise BadInput(f"accuracy is {accuracy}; expected a fraction, or one an image, between 0 and 1.")
    if pool.ndim == 0:
        rates, chances = np.array([0, 1]), np.array([1 - pool, pool])
    else:
        rates, weights = np.unique(pool, return_counts=True)
        chances = weights / weights.sum()
    drawn = np.random.default_rng(seed).multinomial(counts, chances, size=(resamples, len(counts)))
    return np.ptp(drawn @ rates / counts, axis=1)
