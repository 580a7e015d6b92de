"""Intervals of shares and means, the sign test, and what is allowed for where many tests stand side by side.

Numbers and arrays of them in, numbers and arrays of them out. `paired` and `metrics` build on these.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from fairq_utils.errors import BadInput

Floats = NDArray[np.float64]


def two_sided(confidence: float) -> float:
    """How many standard errors an interval of that confidence reaches to each side.

    >>> round(two_sided(0.95), 2)
    1.96
    """
    if not 0.5 <= confidence < 1:
        raise BadInput(f"confidence is {confidence}; expected a fraction from 0.5 to 1, such as 0.95.")
    return float(-special.ndtri((1 - confidence) / 2))


def simultaneous(confidence: float, family: int) -> float:
    """The confidence of each of several intervals that together hold with the stated one (Šidák).

    >>> round(simultaneous(0.95, 5), 4)
    0.9898
    """
    return float(confidence ** (1 / family))


def share_limits(hits: ArrayLike, n: ArrayLike, confidence: float = 0.95) -> tuple[Floats, Floats]:
    """Wilson's score interval for a share of n images.

    >>> [round(float(limit), 3) for limit in share_limits(90, 100)]
    [0.826, 0.945]
    """
    z, count = two_sided(confidence), np.asarray(n, dtype=np.float64)
    share = np.asarray(hits) / count
    middle = share + z**2 / (2 * count)
    reach = z * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    scale = 1 + z**2 / count
    return np.clip((middle - reach) / scale, 0, 1), np.clip((middle + reach) / scale, 0, 1)


def student(values: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """The mean, and how far Student's interval reaches to each side of it: NaN for one value or none.

    >>> [round(number, 3) for number in student([1.0, 2.0, 3.0, 4.0])]
    [2.5, 2.054]
    """
    own = np.asarray(values, dtype=np.float64)
    count = len(own)
    if count < 2:
        return float(own[0]) if count else float("nan"), float("nan")
    error = own.std(ddof=1) / np.sqrt(count)
    return float(own.mean()), float(error * special.stdtrit(count - 1, (1 + level) / 2))


def ratio_of_means(
    above: ArrayLike, below: ArrayLike, confidence: float = 0.95
) -> tuple[float, float, float]:
    """The mean of one number over that of another, measured in pairs, with its interval by Fieller (1954).

    For numbers that may be negative, whose ratios pair by pair, and logarithms, say nothing. The interval
    leaves out one just where Student's interval of the mean difference leaves out zero. Where the mean below
    cannot be told from zero, a ratio has no bounds: from minus infinity to infinity.

    >>> [round(number, 2) for number in ratio_of_means([5.0, 6.1, 7.2], [2.0, 2.1, 2.4])]
    [2.82, 2.0, 3.36]
    >>> ratio_of_means([2.0, 4.0, 6.0], [-1.0, 2.0, 1.0])[1:]
    (-inf, inf)
    """
    pairs = np.stack(np.broadcast_arrays(above, below)).astype(np.float64)
    (mean, other), count = pairs.mean(axis=1), pairs.shape[1]
    if count < 2:
        return float(mean / other), np.nan, np.nan
    reach = special.stdtrit(count - 1, (1 + confidence) / 2)
    spread = reach**2 * np.cov(pairs) / count
    # The ratios r at which Student's interval of the mean of above - r * below holds zero.
    square, half, rest = other**2 - spread[1, 1], mean * other - spread[0, 1], mean**2 - spread[0, 0]
    if square <= 0:
        return float(mean / other), -np.inf, np.inf
    root = np.sqrt(max(half**2 - square * rest, 0.0))
    return float(mean / other), float((half - root) / square), float((half + root) / square)


def sign_test(ups: ArrayLike, downs: ArrayLike) -> Floats:
    """The exact two-sided p of so many that went one way and so many the other, were both as likely.

    Of images that are lost against images that are gained this is McNemar's exact test. Counts need not be
    whole, as those of weighted rows are not.

    >>> round(float(sign_test(12, 5)), 3), round(float(sign_test(6.0, 2.5)), 3)
    (0.143, 0.393)
    """
    up, down = np.asarray(ups, dtype=np.float64), np.asarray(downs, dtype=np.float64)
    more, fewer = np.maximum(np.maximum(up, down), 1e-9), np.minimum(up, down)
    return np.minimum(1.0, 2 * special.betainc(more, fewer + 1, 0.5))


def holm(p_values: ArrayLike) -> Floats:
    """Holm's correction: what remains of each p when all were tested beside each other.

    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    corrected = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    result = np.empty_like(p)
    result[order] = np.minimum(corrected, 1)
    return result


def benjamini_hochberg(p_values: ArrayLike) -> Floats:
    """Adjusted p values: whoever calls all below 0.05 real is, on average, wrong about 5 % of those at most.

    Milder than `holm`, which guards against a single error among all of them.

    >>> benjamini_hochberg([0.01, 0.04, 0.03, 0.5]).round(3).tolist()
    [0.04, 0.053, 0.053, 0.5]
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")[::-1]  # the largest first
    shares = np.arange(len(p), 0, -1) / max(len(p), 1)
    result = np.empty_like(p)
    result[order] = np.minimum(np.minimum.accumulate(p[order] / shares), 1)
    return result


def able_to_show(flips: ArrayLike, confidence: float = 0.95) -> int:
    """How many tests to allow for, of many beside each other with so many flips each (Tarone).

    A test of few flips could not show a loss though all of them were lost, and so cannot err. This is the
    smallest number that, allowed for, leaves no more tests able to show one.

    >>> able_to_show([0] * 5000 + [4] * 2000 + [25, 40])
    2
    """
    found = np.sort(np.asarray(flips))[::-1]
    z = special.ndtri((1 - confidence ** (1 / np.arange(1, len(found)))) / 2)
    able = np.append(found[1:] > z**2, False)
    return int(able.argmin()) + 1
