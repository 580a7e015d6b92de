"""Who is found by a query: recall and skew among what lies closest."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from fairq_utils.errors import BadInput
from fairq_utils.metrics.arrays import Array, as_array, as_codes, as_correct

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
    table, right = as_array(scores).astype(np.float64), as_array(relevant).astype(bool)
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
    places = as_array(ranks)
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
    codes, names = as_codes(groups, group_names, "group")
    classes, known = as_codes(labels, label_names, "label")
    right = as_correct(correct)
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
    codes, names = as_codes(ranked, group_names, "group")
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
