"""What in two tables of predictions looks like a mistake: refused where it is one, told where it may be.

A comparison is silent about it: a class under two names counts as wrong in every row, and one model given
twice is equivalent to itself. A warning stands before the verdict, wherever that is read.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import suppress
from decimal import Decimal, InvalidOperation

import numpy as np
from numpy.typing import NDArray

from fairq_audit import statistics
from fairq_audit.formats import counted, hundredths, number
from fairq_utils.errors import BadInput

Counts = NDArray[np.intp]
Scores = NDArray[np.float64]

_MANY_STRANGERS = 0.01  # of a side's answers: if more are no label, that is said first
_MANY_NUMBERS = 20  # of which, as labels, one asks whether they are measured
_FLOATS = 1e-6  # beyond 0 and 1 by no more than single precision may go
_ROUNDED = 0.05  # by so much may probabilities miss 1: of a thousand classes each is rounded


def unchanged(kinds: Counts, scores: tuple[Scores, Scores] | None) -> Iterator[str]:
    """A warning where no answer changed, which is how one model looks that was given twice.

    >>> list(unchanged(np.array([statistics.KEPT, statistics.SAME]), None))
    ['No answer changed at all: are these two different models?']
    """
    if not np.isin(kinds, [statistics.KEPT, statistics.SAME]).all():
        return
    if not scores:
        yield "No answer changed at all: are these two different models?"
    elif np.array_equal(*scores):
        yield "No answer changed at all, nor any score: are these two different models?"
    else:
        yield "No answer changed at all, though scores did."


def check_spelling(called: str, classes: Sequence[str], asked: Counts, given: Counts) -> None:
    """Refuse predictions that are a label in another spelling, as 2.0 for 2: they would count as wrong.

    `asked` counts the labels of each class, `given` the predictions.

    >>> check_spelling("int8.csv", ["2", "2.0"], asked=np.array([9, 0]), given=np.array([5, 4]))
    Traceback (most recent call last):
        ...
    fairq_utils.errors.BadInput: int8.csv predicts '2.0', which is no label, where '2' is one; expected one
    spelling of each class: write both alike, whole numbers without a point and text without blanks around it.
    """
    unknown = np.flatnonzero((given > 0) & (asked == 0))
    if not len(unknown):
        return
    labels = [classes[code] for code in np.flatnonzero(asked).tolist()]
    # Where labels differ in case alone, case is what tells them apart.
    loose = len({_form(label, loose=True) for label in labels}) == len(labels)
    forms = {_form(label, loose=loose): label for label in labels}
    longest = 4 * max(map(len, labels)) + 16  # what is longer is no spelling of any: a generated text
    for code in unknown[np.argsort(-given[unknown], kind="stable")].tolist():
        stranger = classes[code]
        label = forms.get(_form(stranger, loose=loose)) if len(stranger) <= longest else None
        if label is not None:
            raise BadInput(
                f"{called} predicts {spelt(stranger)}, which is no label, where {spelt(label)} is one; "
                "expected one spelling of each class: write both alike, whole numbers without a point and "
                "text without blanks around it."
            )


def _form(text: str, *, loose: bool) -> str | Decimal:
    """What spellings of one class have in common.

    >>> _form("2.0", loose=False) == _form("2", loose=False), _form("Tax_Fraud ", loose=True)
    (True, 'tax fraud')
    """
    seen = unicodedata.normalize("NFKC", text)
    seen = "".join(char for char in seen if char.isspace() or not unicodedata.category(char).startswith("C"))
    with suppress(InvalidOperation):
        if (number := Decimal(seen.strip())).is_finite():
            return number
    return " ".join(re.sub("[_-]", " ", seen).casefold().split()) if loose else seen.strip()


def spelt(text: str) -> str:
    """A name with what cannot be seen in it, from both ends where it is long.

    >>> print(spelt("fraud "), spelt("x" * 99 + " "))
    'fraud ' 'xxxxxxxxxxxxxxxxxxxxxxxxxxx…xxxxxxxxxxxxxxxxxxxxxxxxxx '
    """
    written = repr(text) if unicodedata.is_normalized("NFC", text) else ascii(text)
    return written if len(written) <= 60 else f"{written[:28]}…{written[-28:]}"


def strangers(
    called: str,
    other: str,
    classes: Sequence[str],
    asked: Counts,
    given: Counts,
    by_other: Counts,
) -> Iterator[str]:
    """A warning where answers are no labels: many of them, or some while one label is never predicted.

    >>> asked, given, by_other = np.array([3, 1, 0]), np.array([2, 1, 1]), np.array([3, 1, 0])
    >>> next(strangers("a", "b", ["cat", "dog", "elk"], asked, given, by_other))
    "a gives 1 of its 4 answers (25.0 %) as classes that are no label, such as 'elk' (1 of them): they count
    as wrong."
    """
    if (asked > 0).sum() == 1 and given[asked > 0].any():
        return  # of logged answers the one label is that they are right, and no other answer can be one
    stranger = (given > 0) & (asked == 0)
    n, count = int(given.sum()), int(given[stranger].sum())
    only_here = bool((stranger & (by_other == 0)).any())
    missing = np.flatnonzero((asked > 0) & (given == 0) & (by_other > 0))
    swapped = only_here and len(missing) > 0
    if count < _MANY_STRANGERS * n and not swapped:
        return
    most = int(np.where(stranger, given, 0).argmax())
    said = (
        f"{called} gives {count:,} of its {n:,} answers ({hundredths(count / n)} %) as classes that are no "
        f"label, such as {spelt(classes[most])} ({given[most]:,} of them): they count as wrong."
    )
    if swapped:
        said += (
            f" It never predicts {spelt(classes[missing[0]])}, which is a label and which {other} predicts: "
            "is that one class under two names?"
        )
    yield said


def check_probabilities(called: str, probabilities: Scores) -> None:
    """Refuse probabilities that are none.

    >>> check_probabilities("int8.csv", np.array([[75.0, 25.0], [0.5, 0.5]]))
    Traceback (most recent call last):
        ...
    fairq_utils.errors.BadInput: int8.csv has probabilities from 0.5 to 75 in 1 of its 2 rows; expected
    fractions from 0 to 1: divide percentages by 100, and call what a last layer gives logit_<class>.
    """
    beyond = np.any((probabilities < -_FLOATS) | (probabilities > 1 + _FLOATS), axis=1)
    if beyond.any():
        raise BadInput(
            f"{called} has probabilities from {probabilities.min():g} to {probabilities.max():g} in "
            f"{int(beyond.sum()):,} of its {counted(len(beyond), 'row')}; expected fractions from 0 to 1: "
            "divide percentages by 100, and call what a last layer gives logit_<class>."
        )


def sums(called: str, probabilities: Scores) -> Iterator[str]:
    """A warning where probabilities of all classes do not sum to 1.

    >>> next(sums("int8.csv", np.array([[0.9, 0.8], [0.5, 0.5]])))
    'In 1 of the 2 rows of int8.csv (50.0 %) the probabilities do not sum to 1, but to 1.70: how sure the
    model was rests on them.'
    """
    whole = probabilities.sum(axis=1)
    beyond = np.abs(whole - 1) > _ROUNDED
    if beyond.any():
        ends = dict.fromkeys(number(end, 2) for end in (whole[beyond].min(), whole[beyond].max()))
        yield (
            f"{_of_rows(beyond, called)} the probabilities do not sum to 1, but to {' to '.join(ends)}: how "
            "sure the model was rests on them."
        )


def contradicted(called: str, classes: Sequence[str], predicted: Counts, scores: Scores) -> Iterator[str]:
    """A warning where a prediction is not the class of the highest score.

    >>> next(contradicted("int8.csv", ["cat", "dog"], np.array([0, 1]), np.array([[1, 2], [3, 3]])))
    "In 1 of the 2 rows of int8.csv (50.0 %) the prediction is not the class of the highest score, such as
    'cat' where 'dog' has it: predictions count. Is there a threshold, or are the columns of scores named in
    another order?"
    """
    against = scores[np.arange(len(scores)), predicted] < scores.max(axis=1)
    if against.any():
        first = int(against.argmax())
        yield (
            f"{_of_rows(against, called)} the prediction is not the class of the highest score, such as "
            f"{spelt(classes[predicted[first]])} where {spelt(classes[int(scores[first].argmax())])} has it: "
            "predictions count. Is there a threshold, or are the columns of scores named in another order?"
        )


def _of_rows(which: NDArray[np.bool_], called: str) -> str:
    share = hundredths(which.mean())
    return f"In {int(which.sum()):,} of the {counted(len(which), 'row')} of {called} ({share} %)"


def measurements(classes: Sequence[str], asked: Counts) -> Iterator[str]:
    """A warning where the labels are numbers such as a regression has: with decimals, or hardly repeated.

    >>> next(measurements([str(0.5 * step) for step in range(40)], np.ones(40, int)))
    "The labels look measured: 40 different numbers in 40 rows, such as '0.5'. Each is taken for a class, and
    an answer is right only if it is that very number: of a regression make classes first."
    """
    labels = [classes[code] for code in np.flatnonzero(asked).tolist()]
    if len(labels) < _MANY_NUMBERS:
        return
    try:
        parts = [float(label) % 1 for label in labels]
    except ValueError:
        return
    if any(parts) or 2 * len(labels) > asked.sum():
        shown = next((label for label, part in zip(labels, parts, strict=True) if part), labels[0])
        yield (
            f"The labels look measured: {len(labels):,} different numbers in {int(asked.sum()):,} rows, such "
            f"as {spelt(shown)}. Each is taken for a class, and an answer is right only if it is that very "
            "number: of a regression make classes first."
        )
