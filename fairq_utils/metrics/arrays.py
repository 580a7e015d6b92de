"""What the metrics take: logits, labels and groups, checked once and brought into one form."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray

from fairq_utils.errors import BadInput

Array = ArrayLike | torch.Tensor


# -- reading what was given ---------------------------------------------------------------------------


def as_array(values: Array) -> NDArray[Any]:
    """A NumPy array of what may be a tensor, in double precision where it holds fractions."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        if values.is_floating_point():  # numpy has no bfloat16
            values = values.double()
        return values.numpy()
    return values if isinstance(values, np.ma.MaskedArray) else np.asarray(values)


def logits_of_one_network(logits: Array) -> NDArray[np.float64]:
    """Logits of one network, checked: examples by classes."""
    scores = as_logits(logits)
    if scores.ndim != 2:
        raise BadInput(
            f"The logits have shape {scores.shape}; expected examples by classes: pass one seed at a time."
        )
    return scores


def as_logits(logits: Array) -> NDArray[np.float64]:
    """Logits as an array, checked: examples by two classes or more."""
    array = as_array(logits).astype(np.float64, copy=False)
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


def as_codes(values: Array, names: Sequence[str] | None, what: str) -> tuple[NDArray[np.intp], list[str]]:
    """The place of each value in the names; without names, in the sorted distinct values."""
    array = as_array(values)
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


def with_names(table: pd.DataFrame, names: Sequence[str], sizes: NDArray[Any]) -> pd.DataFrame:
    """A table by place in the names, with every name and n in front; what is missing becomes NaN."""
    table = table.reindex(range(len(names)))
    table.insert(0, "group", names)
    table.insert(1, "n", sizes)
    return table


def as_labels(
    labels: Array, class_names: Sequence[str] | None, examples: int, classes: int
) -> NDArray[np.intp]:
    """The place of each label among the classes."""
    names = [str(column) for column in range(classes)] if class_names is None else class_names
    if len(names) != classes:
        raise BadInput(
            f"{len(names)} class names for {classes} columns of logits; expected one name a column."
        )
    array = as_array(labels)
    if class_names is None and not np.issubdtype(array.dtype, np.integer):
        raise BadInput(
            f"The labels are of type {array.dtype}; expected integers, or strings together with "
            "class_names, which says which column of the logits is which class."
        )
    codes, _ = as_codes(array, names, "label")
    if len(codes) != examples:
        raise BadInput(f"{len(codes)} labels for {examples} rows of logits; expected one label a row.")
    return codes


@dataclass(frozen=True)
class Outcomes:
    """Right and wrong of one treatment or several, and the groups that have examples."""

    correct: NDArray[np.bool_]  # treatments x seeds x examples, false where one was not asked
    asked: NDArray[np.bool_]  # seeds x examples
    codes: NDArray[np.intp]
    names: list[str]
    sizes: NDArray[np.intp]

    @property
    def present(self) -> NDArray[np.intp]:
        """The places of the groups that have examples."""
        return np.flatnonzero(self.sizes)

    @property
    def shares(self) -> NDArray[np.float64]:
        """Each of these groups' share of all examples."""
        return self.sizes[self.present] / self.sizes.sum()

    def by_seed(self) -> NDArray[np.float64]:
        """Accuracies, treatments x seeds x groups that have examples.

        A network that was asked of nobody in a group stands where the others do on average.
        """
        member = (self.codes[:, None] == self.present).astype(np.float64)
        sizes = self.asked @ member
        found = self.correct @ member / np.where(sizes, sizes, np.nan)
        if sizes.all():
            return found
        return np.where(sizes, found, np.nanmean(found, axis=1, keepdims=True))


def as_correct(correct: Array) -> NDArray[np.bool_]:
    """Right and wrong as an array, one a network and example."""
    array = as_array(correct)
    if array.dtype != np.bool_ or array.ndim not in (1, 2) or array.size == 0:
        raise BadInput(
            f"An array of {array.dtype} of shape {array.shape} for right and wrong; expected true and false, "
            "one an example, or seeds by examples: correct_answers(logits, labels) makes it."
        )
    return array


def outcomes_of(treatments: Sequence[Array], groups: Array, group_names: Sequence[str] | None) -> Outcomes:
    """Right and wrong of treatments that were tried on the same examples."""
    codes, names = as_codes(groups, group_names, "group")
    arrays = [as_correct(correct) for correct in treatments]
    for array in arrays:
        if array.shape != arrays[0].shape or array.shape[-1] != len(codes):
            raise BadInput(
                f"Right and wrong have shape {' and '.join(str(a.shape) for a in arrays)} for {len(codes)} "
                "groups; expected the same seeds and examples throughout, in the same order."
            )
    asked = np.atleast_2d(~np.ma.getmaskarray(arrays[0]))
    if any((np.ma.getmaskarray(array) == asked).any() for array in arrays):
        raise BadInput(
            "Right and wrong are of other examples under one treatment than under another; expected every "
            "seed to be asked of the same ones throughout, and the seeds in the same order."
        )
    correct = np.stack([np.atleast_2d(np.ma.filled(array, False)) for array in arrays])
    return Outcomes(correct, asked, codes, names, np.bincount(codes, minlength=len(names)))


def tail_probability(level: float) -> float:
    """The probability that an interval of that level leaves at each end."""
    if not 0 < level < 1:
        raise BadInput(f"level is {level}; expected a fraction between 0 and 1, such as 0.95.")
    return (1 - level) / 2
