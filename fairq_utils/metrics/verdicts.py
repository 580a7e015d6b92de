"""From one number a network to a word: it falls, it rises, it does not change, or it is bounded.

Numbers of networks in, a `Reading` out. What the number is of, says `by_network`; how often each word is
wrong, and how often it is found, is simulated on the page "How the verdicts are reached".
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from fairq_utils.errors import BadInput
from fairq_utils.intervals import benjamini_hochberg, student
from fairq_utils.metrics.arrays import tail_probability

Word = Literal["falls", "rises", "no change", "bounded"]

# By bits, as a share: the least change that matters. Declared before any network of the book was trained.
MARGINS = {8: 0.01, 6: 0.01, 5: 0.03, 4: 0.03, 3: 0.05}


def margin_at(bits: int, before: float | None = None) -> float:
    """The least change that matters at a width; of a group that had `before` at most a tenth of that.

    >>> margin_at(4), round(margin_at(4, before=0.2), 3)
    (0.03, 0.02)
    """
    if bits not in MARGINS:
        raise BadInput(
            f"bits is {bits}; expected a width with a declared margin: {', '.join(map(str, MARGINS))}."
        )
    return MARGINS[bits] if before is None else min(MARGINS[bits], before / 10)


@dataclass(frozen=True)
class Reading:
    """What networks say of one change.

    `word` is `falls` or `rises` where the interval from `lower` to `upper` leaves out 0 (Student, two-sided,
    95 %). Else it is `no change` where two one-sided tests show that the mean lies within `margin`, and
    `bounded` where they do not. What surely rises may do so by less than the margin: `negligible` says so.

    `bound` is the X of "no difference larger than X": the larger end of the 90 % interval that belongs to the
    two tests, without its sign. The mean is larger than that, to either side, in at most 5 % of such studies.
    `p` is that of "the mean is 0", `p_none` that of "the mean is the margin or more, to either side".
    """

    word: Word
    estimate: float
    lower: float
    upper: float
    p: float
    bound: float
    margin: float | None
    p_none: float | None
    networks: int
    level: float

    @property
    def negligible(self) -> bool:
        """Whether the change surely is smaller than the margin, be there one or none."""
        return self.p_none is not None and self.p_none < 1 - self.level


def read(values: ArrayLike, margin: float | None = None, *, level: float = 0.95) -> Reading:
    """The word on a change, from one number a network; a higher `level` allows for several questions.

    The networks are taken for independent draws. Of five groups that are asked at once, each is read at a
    level of 1 - 0.05 / 5, and with 95 % nothing that is said of them is wrong.

    >>> found = read([-0.031, -0.012, -0.024, -0.017, -0.026], margin=0.03)
    >>> found.word, round(found.estimate, 3), round(found.lower, 3), round(found.upper, 3), found.negligible
    ('falls', -0.022, -0.031, -0.013, True)
    >>> found = read([0.031, -0.012, -0.024, 0.017, -0.006], margin=0.03)
    >>> found.word, round(found.bound, 3)
    ('no change', 0.023)
    """
    own = _one_a_network(values)
    if margin is not None and not (np.isfinite(margin) and margin > 0):
        raise BadInput(f"margin is {margin}; expected a number above 0, the least change that matters.")
    beyond = 2 * tail_probability(level)
    if level <= 0.5:
        raise BadInput(f"level is {level}; expected a fraction above 0.5, such as 0.95.")
    (mean, reach), (_, of_none) = student(own, level), student(own, 1 - 2 * beyond)
    error, freedom = float(own.std(ddof=1)) / np.sqrt(len(own)), len(own) - 1
    p = 2 * _tail(abs(mean), error, freedom)
    p_none = None if margin is None else _tail(margin - abs(mean), error, freedom)
    return Reading(
        word=_word(mean, p, p_none, beyond),
        estimate=mean,
        lower=mean - reach,
        upper=mean + reach,
        p=p,
        bound=abs(mean) + of_none,
        margin=margin,
        p_none=p_none,
        networks=len(own),
        level=level,
    )


def _one_a_network(values: ArrayLike) -> NDArray[np.float64]:
    own = np.asarray(values, dtype=np.float64)
    if own.ndim != 1 or len(own) < 2 or not np.isfinite(own).all():
        raise BadInput(
            f"The values have shape {own.shape}, {int(np.isfinite(own).sum())} of them finite; expected one "
            "finite number a network, of two networks or more: one network decides nothing."
        )
    return own


def _tail(distance: float, error: float, freedom: int) -> float:
    """The probability that Student's t exceeds a distance; networks that all agree leave no doubt."""
    if error == 0:
        return 0.5 if distance == 0 else float(distance < 0)
    return float(special.stdtr(freedom, -distance / error))


def _word(estimate: float, p: float, p_none: float | None, beyond: float) -> Word:
    if p < beyond:
        return "falls" if estimate < 0 else "rises"
    return "no change" if p_none is not None and p_none < beyond else "bounded"


def over_a_page(readings: Sequence[Reading]) -> list[Reading]:
    """The readings with p values, and so words, that allow for how many of them stand on one page.

    Of each reading two things can be said, that there is a change and that there is none. All of these are
    one list, and of what is said at most 5 % is wrong on average (Benjamini and Hochberg's false discovery
    rate). Estimates, intervals and bounds stay those of each by itself. Primary questions stand apart: they
    are read as they are.

    >>> alone = [read([0.01, 0.02, 0.03]), read([0.01, 0.015, 0.01]), read([-0.02, 0.02, 0.01])]
    >>> [own.word for own in alone], [own.word for own in over_a_page(alone)]
    (['bounded', 'rises', 'bounded'], ['bounded', 'bounded', 'bounded'])
    """
    judged = [own.p_none for own in readings]
    listed = [own.p for own in readings] + [p for p in judged if p is not None]
    adjusted = benjamini_hochberg(listed).tolist()
    none = iter(adjusted[len(readings) :])
    found = []
    for own, p in zip(readings, adjusted, strict=False):
        p_none = None if own.p_none is None else next(none)
        word = _word(own.estimate, p, p_none, 1 - own.level)
        found.append(replace(own, p=p, p_none=p_none, word=word))
    return found


# -- how many seeds would decide ----------------------------------------------------------------------

_MOST = 100_000  # networks; nobody trains more


def sd_at_most(sd: float, networks: int, *, confidence: float = 0.8) -> float:
    """How large the spread over networks may well be, of which so many showed `sd`.

    A pilot of few networks hardly knows its own spread. With this confidence the true one is not larger, and
    seeds planned with it suffice as often.

    >>> round(sd_at_most(0.05, 15), 4), round(sd_at_most(0.05, 5), 4)
    (0.0608, 0.0779)
    """
    if networks < 2:
        raise BadInput(f"networks is {networks}; expected two or more, of one nobody knows the spread.")
    return float(sd * np.sqrt((networks - 1) / stats.chi2.ppf(1 - confidence, networks - 1)))


def power_to_decide(sd: float, effect: float, networks: int, *, level: float = 0.95) -> float:
    """How often `read` says which way, when the mean truly is `effect` and networks scatter by `sd`.

    >>> round(power_to_decide(0.05, 0.05, 10), 2)
    0.8
    """
    freedom, threshold = networks - 1, special.stdtrit(networks - 1, (1 + level) / 2)
    return float(stats.nct.sf(threshold, freedom, abs(effect) * np.sqrt(networks) / sd))


def power_to_show_none(
    sd: float, margin: float, networks: int, *, effect: float = 0.0, level: float = 0.95
) -> float:
    """How often the two one-sided tests of `read` succeed, when the mean truly is `effect`.

    For each spread that so many networks may show, the probability that both tests reject; averaged.

    >>> round(power_to_show_none(0.05, 0.05, 11), 2)
    0.85
    """
    freedom = networks - 1
    places = (np.arange(4000) + 0.5) / 4000
    shown = sd * np.sqrt(special.gammaincinv(freedom / 2, places) * 2 / freedom)
    room = (margin - special.stdtrit(freedom, level) * shown / np.sqrt(networks)).clip(min=0)
    error = sd / np.sqrt(networks)
    return float((special.ndtr((room - effect) / error) - special.ndtr((-room - effect) / error)).mean())


def seeds_needed(
    sd: float,
    *,
    effect: float | None = None,
    margin: float | None = None,
    pilot: int | None = None,
    power: float = 0.8,
    level: float = 0.95,
) -> int:
    """How many networks `read` needs, to show an `effect` or to show that none reaches the `margin`.

    `sd` is the spread over networks. Where a pilot of so many networks showed it, say so: then the spread
    may be larger than it looked, and is taken as `sd_at_most`. No change is planned for a true change of 0.

    >>> seeds_needed(0.05, effect=0.05), seeds_needed(0.05, margin=0.05), seeds_needed(0.021, margin=0.03)
    (10, 11, 6)
    >>> seeds_needed(0.05, effect=0.05, pilot=5)
    22
    """
    if (effect is None) == (margin is None):
        raise BadInput("Both or neither of effect and margin are given; expected one of them.")
    aim = abs(effect if effect is not None else margin or 0.0)
    if not (aim > 0 and sd >= 0 and 0 < power < 1):
        raise BadInput(
            f"sd is {sd}, the effect or margin {aim} and power {power}; expected a spread of 0 or more, an "
            "effect or margin other than 0, and a fraction such as 0.8."
        )
    spread = max(sd if pilot is None else sd_at_most(sd, pilot), 1e-9 * aim)
    reached = power_to_decide if margin is None else power_to_show_none
    few, enough = 1, 2
    while reached(spread, aim, enough, level=level) < power:
        few, enough = enough, 2 * enough
        if few > _MOST:
            raise BadInput(
                f"A spread of {sd} beside {aim} needs over {_MOST:,} networks; expected a larger aim."
            )
    while enough - few > 1:
        middle = (few + enough) // 2
        if reached(spread, aim, middle, level=level) < power:
            few = middle
        else:
            enough = middle
    return enough
