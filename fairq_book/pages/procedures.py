"""How often each procedure errs, and how often it finds what is there: simulated where the truth is known.

Studies are drawn by the thousand, each of as many networks as a page has, and are read by the very functions
that the chapters call. `write` puts two tables into `book/procedures`, which the page shows.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.random import Generator
from numpy.typing import NDArray

from fairq_utils.files import write_atomically
from fairq_utils.intervals import ratio_of_means
from fairq_utils.metrics.by_network import (
    JUMP,
    TREND,
    collapsed,
    effects_of_two,
    others_against,
    over_widths,
    read_gap,
)
from fairq_utils.metrics.ranks import rank_agreement
from fairq_utils.metrics.verdicts import over_a_page, read

Floats = NDArray[np.float64]
Means = Floats | Sequence[float] | float

WRONG, FOUND = "wrong", "found"  # the two tables
NETWORKS = (20, 15, 8)  # as many as the book's pages have
ALLOWED = 0.05
_LEVELS = (0.92, 0.85, 0.80, 0.75, 0.50)  # accuracies of five groups, as those of the default moths
_EQUAL = (0.80,) * 5
_IMAGES = np.array([500, 200, 120, 120, 60])  # test images of each group
_SPREAD = 0.03  # by which a group's change scatters over networks, beyond what images add
_MARGIN = 0.03  # at int4 and int5
_CLAIMS = 40  # on a page


@dataclass(frozen=True)
class Procedure:
    """A question, what is true, and the share of statements that a study makes in error, or rightly."""

    table: str
    asks: str
    truth: str
    counted: str
    study: Callable[[Generator, int], float]
    networks: tuple[int, ...] = NETWORKS
    fewer: int = 1  # so many times fewer studies, of what takes long


def _changes(rng: Generator, networks: int, mean: Means, spread: float = _SPREAD) -> Floats:
    """One number a network, or one a network and group."""
    return np.asarray(rng.normal(mean, spread, (networks, *np.shape(mean))))


def _accuracies(
    rng: Generator, networks: int, levels: Means, change: Means, spread: float
) -> tuple[Floats, Floats]:
    """Accuracies on test images before and after, networks by groups; rounding scatters by `spread`."""
    before = _changes(rng, networks, levels, 0.01)
    after = before + change + rng.normal(0, spread, before.shape)
    first, second = (rng.binomial(_IMAGES, own.clip(0, 1)) / _IMAGES for own in (before, after))
    return first, second


def _says(word: str, mean: float, margin: float | None = None) -> Callable[[Generator, int], float]:
    return lambda rng, networks: read(_changes(rng, networks, mean), margin).word == word


def _moves(rng: Generator, networks: int) -> float:
    return read(_changes(rng, networks, 0.0), _MARGIN).word in ("falls", "rises")


def _moves_skewed(rng: Generator, networks: int) -> float:
    """Networks of which some lose much and most little."""
    return read(1 - rng.gamma(4, 1 / 4, networks)).word in ("falls", "rises")


def _negligible(mean: float) -> Callable[[Generator, int], float]:
    return lambda rng, networks: read(_changes(rng, networks, mean), _MARGIN).negligible


def _beyond_bound(rng: Generator, networks: int) -> float:
    return read(_changes(rng, networks, 0.02), _MARGIN).bound < 0.02


def _contrast(change: Means) -> Callable[[Generator, int], float]:
    def study(rng: Generator, networks: int) -> float:
        before, after = _accuracies(rng, networks, _LEVELS, change, _SPREAD)
        return read(others_against(after - before, 0)).word in ("falls", "rises")

    return study


def _payers(change: Floats, groups: list[int]) -> Callable[[Generator, int], float]:
    """Whether any of these groups is said to change, of five that are asked at once."""

    def study(rng: Generator, networks: int) -> float:
        before, after = _accuracies(rng, networks, _LEVELS, change, _SPREAD)
        words = [read((after - before)[:, group], level=1 - 0.05 / 5).word for group in groups]
        return any(word in ("falls", "rises") for word in words)

    return study


def _gap(word: str, levels: Means, change: Means, spread: float) -> Callable[[Generator, int], float]:
    def study(rng: Generator, networks: int) -> float:
        return read_gap(*_accuracies(rng, networks, levels, change, spread), margin=_MARGIN).word == word

    return study


def _widths(coefficients: tuple[float, ...], rise: float) -> Callable[[Generator, int], float]:
    """Over five widths, whose changes are those of one network and scatter more as bits fall."""

    def study(rng: Generator, networks: int) -> float:
        shared = _changes(rng, networks, 0.0)[:, None] * np.array([0.2, 0.3, 0.5, 0.8, 1.5])
        values = shared + rng.normal(0, 0.01, shared.shape) - rise * np.array([0, 0.1, 0.2, 0.4, 1.0])
        return read(over_widths(values, coefficients)).word in ("falls", "rises")

    return study


def _causes(size: float, cause: str) -> Callable[[Generator, int], float]:
    """Size and difficulty, when difficulty makes the hard group lose 8 points."""

    def study(rng: Generator, networks: int) -> float:
        cells = [_changes(rng, networks, mean) for mean in (0.0, size, -0.08, -0.08 + size)]
        return read(effects_of_two(*cells)[cause]).word == "falls"

    return study


def _ratio(above: float, missed: float) -> Callable[[Generator, int], float]:
    """Whether the interval of a ratio leaves out a number."""

    def study(rng: Generator, networks: int) -> float:
        shared = rng.normal(0, 0.2, networks)
        first, second = (mean * (1 + shared + rng.normal(0, 0.2, networks)) for mean in (above, 1.0))
        _, lower, upper = ratio_of_means(first, second)
        return not lower <= missed <= upper

    return study


def _collapse(above_largest: float) -> Callable[[Generator, int], float]:
    """The share of networks that are called collapsed."""
    return lambda rng, networks: float(
        collapsed(_changes(rng, networks, 0.4 + above_largest, 0.05), 0.4).mean()
    )


def _ranks(shared: float) -> Callable[[Generator, int], float]:
    """Two settings of five groups each; `shared` is what forecast and outcome have in common."""

    def study(rng: Generator, _: int) -> float:
        forecasts, noise = rng.normal(size=(2, 2, 5))
        return rank_agreement(list(forecasts), list(shared * forecasts + noise)).p < ALLOWED

    return study


def _page(true: Floats, wrong: bool) -> Callable[[Generator, int], float]:
    """Of what a page says, the share that is wrong; or of the true changes the share that it says."""

    def study(rng: Generator, networks: int) -> float:
        own = over_a_page([read(_changes(rng, networks, mean), _MARGIN) for mean in true])
        moved = np.array([one.word in ("falls", "rises") for one in own])
        if not wrong:
            return float(moved[true != 0].mean())
        sign = np.array([np.sign(one.estimate) for one in own])
        none = np.array([one.p_none is not None and one.p_none < ALLOWED for one in own])
        errors = (moved & (sign != np.sign(true))).sum() + (none & (np.abs(true) >= _MARGIN)).sum()
        return float(errors / max(moved.sum() + none.sum(), 1))

    return study


_NOBODY, _LAST = np.zeros(5), np.array([0.0, 0.0, 0.0, 0.0, -0.08])
_NOTHING_TRUE, _SOME_TRUE = np.zeros(_CLAIMS), np.repeat([0.0, _MARGIN, -0.06], [20, 10, 10])

PROCEDURES = (
    Procedure(WRONG, "Does it change?", "no change", "falls or rises", _moves),
    Procedure(
        WRONG, "Does it change?", "no change; networks scatter to one side", "falls or rises", _moves_skewed
    ),
    Procedure(WRONG, "Is there no change?", "a change of just the margin", "no change", _negligible(_MARGIN)),
    Procedure(WRONG, "No difference larger than X", "a change of 2 points", "X is smaller", _beyond_bound),
    Procedure(WRONG, "The contrast", "no change", "falls or rises", _contrast(0.0)),
    Procedure(
        WRONG,
        "Who pays?",
        "no group changes",
        "any of five groups falls or rises",
        _payers(_NOBODY, [*range(5)]),
    ),
    Procedure(
        WRONG,
        "Who pays?",
        "the smallest group loses 8 points",
        "any of the other four falls or rises",
        _payers(_LAST, [*range(4)]),
    ),
    Procedure(
        WRONG, "Does the gap grow?", "equal groups, nothing changes", "grows", _gap("grows", _EQUAL, 0, 0)
    ),
    Procedure(
        WRONG, "Does the gap grow?", "equal groups, all scatter more", "grows", _gap("grows", _EQUAL, 0, 0.06)
    ),
    Procedure(
        WRONG,
        "Does the gap grow?",
        "unequal groups, all scatter more",
        "grows",
        _gap("grows", _LEVELS, 0, 0.06),
    ),
    Procedure(
        WRONG,
        "Is it a lottery?",
        "unequal groups, the worst loses 8 points",
        "lottery",
        _gap("lottery", _LEVELS, _LAST, _SPREAD),
    ),
    Procedure(WRONG, "The jump from int8 to int4", "no change", "falls or rises", _widths(JUMP, 0)),
    Procedure(WRONG, "The trend over 8 to 3 bits", "no change", "falls or rises", _widths(TREND, 0)),
    Procedure(WRONG, "Size or difficulty?", "difficulty alone", "size makes it fall", _causes(0, "first")),
    Procedure(WRONG, "A ratio", "it is 1.3", "the interval leaves out 1.3", _ratio(1.3, 1.3)),
    Procedure(
        WRONG, "Collapsed?", "OA 10 points above the largest label", "networks collapsed", _collapse(0.1)
    ),
    Procedure(WRONG, "Does it rank groups?", "unrelated, two settings of five", "p < 0.05", _ranks(0), (1,)),
    Procedure(
        WRONG,
        f"A page of {_CLAIMS} claims",
        "nothing changes",
        "of what is said, wrong",
        _page(_NOTHING_TRUE, True),
        fewer=4,
    ),
    Procedure(
        WRONG,
        f"A page of {_CLAIMS} claims",
        "half change, by 3 or 6 points",
        "of what is said, wrong",
        _page(_SOME_TRUE, True),
        fewer=4,
    ),
    Procedure(FOUND, "Does it change?", "it falls by 2 points", "falls", _says("falls", -0.02)),
    Procedure(FOUND, "Does it change?", "it falls by 3 points", "falls", _says("falls", -0.03)),
    Procedure(FOUND, "Is there no change?", "no change", "no change", _negligible(0.0)),
    Procedure(FOUND, "Is there no change?", "a change of 1 point", "no change", _negligible(0.01)),
    Procedure(FOUND, "The contrast", "the others lose 4 points more", "falls", _contrast([0, *[-0.04] * 4])),
    Procedure(
        FOUND,
        "Who pays?",
        "the smallest group loses 8 points",
        "it falls",
        _payers(_LAST, [4]),
    ),
    Procedure(
        FOUND,
        "Does the gap grow?",
        "unequal groups, the worst loses 8 points",
        "grows",
        _gap("grows", _LEVELS, _LAST, _SPREAD),
    ),
    Procedure(
        FOUND,
        "Is it a lottery?",
        "equal groups, all scatter more",
        "lottery",
        _gap("lottery", _EQUAL, 0, 0.06),
    ),
    Procedure(FOUND, "The jump from int8 to int4", "it falls by 2 points", "falls", _widths(JUMP, 0.05)),
    Procedure(FOUND, "The trend over 8 to 3 bits", "by 5 points at int3", "falls", _widths(TREND, 0.05)),
    Procedure(
        FOUND, "Size or difficulty?", "size costs 3 points", "size makes it fall", _causes(-0.03, "first")
    ),
    Procedure(FOUND, "A ratio", "it is 1.3", "the interval leaves out 1", _ratio(1.3, 1.0)),
    Procedure(FOUND, "Collapsed?", "OA that of the largest label", "networks collapsed", _collapse(0.0)),
    Procedure(
        FOUND, "Does it rank groups?", "correlated by 0.9, two settings of five", "p < 0.05", _ranks(2), (1,)
    ),
    Procedure(
        FOUND,
        f"A page of {_CLAIMS} claims",
        "half change, by 3 or 6 points",
        "of these, said to change",
        _page(_SOME_TRUE, False),
        fewer=4,
    ),
)


def simulated(studies: int = 4000, *, seed: int = 0) -> pd.DataFrame:
    """Records: how often each procedure says what it counts, in percent, of so many studies each."""
    records = []
    for place, procedure in enumerate(PROCEDURES):
        for networks in procedure.networks:
            rng, count = np.random.default_rng([seed, place, networks]), max(studies // procedure.fewer, 1)
            said = np.mean([procedure.study(rng, networks) for _ in range(count)])
            records.append((place, networks, round(100 * float(said), 1)))
    return pd.DataFrame(records, columns=["procedure", "networks", "percent"])


def tables(found: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """What the page shows, as two tables: a row a procedure, a column for each number of networks."""
    for name in (WRONG, FOUND):
        rows = []
        for place, own in found.groupby("procedure", sort=True):
            procedure = PROCEDURES[int(str(place))]
            if procedure.table == name:
                shares = dict(zip(own["networks"], own["percent"], strict=True))
                about = {"question": procedure.asks, "truth": procedure.truth, "counted": procedure.counted}
                # What does not depend on networks says the same for all.
                rows.append(about | {f"{n} networks, %": shares.get(n, shares.get(1)) for n in NETWORKS})
        yield name, pd.DataFrame(rows)


def write(folder: Path, studies: int = 4000, *, seed: int = 0) -> list[Path]:
    """Simulate, and put the two tables into a folder."""
    written = []
    for name, table in tables(simulated(studies, seed=seed)):
        written.append(folder / f"{name}.csv")
        write_atomically(written[-1], table.to_csv(index=False).encode())
    return written
