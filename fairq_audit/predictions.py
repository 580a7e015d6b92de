"""Two tables of predictions, read and laid beside each other image by image.

A table has a row an image, with the columns `id`, `label`, one or several of groups, and `prediction`;
or, in place of `prediction`, a column `logit_<class>` or `probability_<class>` for each class. Names are
text: a group may be called NA, and 007 is no 7.
"""

from __future__ import annotations

import filecmp
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fairq_audit import statistics
from fairq_audit.formats import hundredths, shown
from fairq_utils.errors import BadInput

Predictions = pd.DataFrame | str | os.PathLike[str]
Kind = Literal["logit", "probability"]

_PREFIX: dict[Kind, str] = {"logit": "logit_", "probability": "probability_"}
_MANY_STRANGERS = 0.01  # of a side's answers: if more are no label, that is said first


@dataclass(frozen=True)
class PredictionTable:
    """What one model answered: text columns as categories, scores as numbers, their classes in order."""

    called: str
    file: str | None
    table: pd.DataFrame
    kind: Kind | None
    classes: list[str]
    cluster: str | None = None
    weight: str | None = None

    def scores(self, classes: Sequence[str]) -> NDArray[np.float64]:
        """The scores of the classes in that order, a row an image."""
        assert self.kind is not None
        return self.table[[_PREFIX[self.kind] + name for name in classes]].to_numpy(np.float64)


def read(
    source: Predictions,
    groups: Sequence[str],
    *,
    called: str,
    with_labels: bool,
    cluster: str | None = None,
    weight: str | None = None,
) -> PredictionTable:
    """One table of predictions, from a file or a data frame; `called` is its name when it has no file.

    Without `with_labels` it may do without labels and groups: the other table has them. `cluster` names a
    column of what rows belong to, `weight` one of how many each stands for.
    """
    sampled = [name for name in (cluster, weight) if name is not None]
    needed = ["id", *(["label", *groups] if with_labels else []), *sampled]
    texts = [*dict.fromkeys(["id", "label", "prediction", *groups, *([] if cluster is None else [cluster])])]
    if weight in texts:
        raise BadInput(
            f"weight names {shown(str(weight))}, which holds text here; expected a column of numbers."
        )
    if wrong := [name for name in groups if _is_score(name)]:
        raise BadInput(
            f"groups names {shown(wrong[0])}, which is a column of scores; expected columns of groups, such "
            "as gender,race: rename it where it holds groups."
        )
    if isinstance(source, pd.DataFrame):
        file = None
        given = source.rename(columns=str)
        _check_columns(called, list(given.columns), needed)
    else:
        file = Path(source).name
        called = shown(file)
        given = _file(Path(source), [*texts, *sampled], called, needed)
    if len(given) == 0:
        raise BadInput(f"{called} holds no rows; expected one an image.")
    table = pd.DataFrame({name: _text(given[name], name, called) for name in texts if name in given})
    if weight is not None:
        table[weight] = _weights(given[weight], weight, called)
    repeated = table["id"][table["id"].duplicated()]
    if len(repeated):
        raise BadInput(
            f"{called} repeats {len(repeated)} ids, the first {shown(repeated.iloc[0])!r}; expected each "
            "image once."
        )
    there = [str(name) for name in given]
    kinds = [kind for kind, prefix in _PREFIX.items() if any(name.startswith(prefix) for name in there)]
    if len(kinds) > 1:
        raise BadInput(f"{called} has columns of logits and of probabilities; expected one kind of score.")
    if not kinds:
        return PredictionTable(called, file, table, None, [], cluster, weight)
    columns = [name for name in there if name.startswith(_PREFIX[kinds[0]])]
    if len(columns) == 1:
        raise BadInput(f"{called} has {shown(columns[0])} alone; expected a column for each class.")
    scores = pd.DataFrame({name: _number(given[name], name, called) for name in columns})
    classes = [name.removeprefix(_PREFIX[kinds[0]]) for name in columns]
    table = pd.concat([table, scores], axis=1)
    return PredictionTable(called, file, table, kinds[0], classes, cluster, weight)


def check_two_files(before: Predictions, after: Predictions) -> None:
    """Refuse one file that was given twice, also as a copy."""
    if isinstance(before, pd.DataFrame) or isinstance(after, pd.DataFrame):
        return
    alike = False
    with suppress(OSError):  # what cannot be read is refused by who reads it
        alike = filecmp.cmp(before, after, shallow=False)
    if alike:
        raise BadInput(
            f"{before} and {after} hold the same, byte for byte; expected what two models answered: look at "
            "how the second was written, or, if two models do agree on every image, give their scores too "
            "(logit_<class>), which tell them apart."
        )


def side_by_side(
    before: Predictions, after: Predictions, groups: str | Sequence[str] = "group", rows: int = 2
) -> pd.DataFrame:
    """The first images of each group with both predictions, to see what two tables hold.

    >>> before = pd.DataFrame({"id": [7, 9], "label": "moth", "group": "elm", "prediction": "moth"})
    >>> side_by_side(before, before[["id"]].assign(prediction=["moth", "fly"]))
       label group before after
    id
    7   moth   elm   moth  moth
    9   moth   elm   moth   fly
    """
    columns = [groups] if isinstance(groups, str) else list(groups)
    first = read(before, columns, called="The first table", with_labels=True)
    second = read(after, columns, called="The second table", with_labels=False)
    classes = np.array(_classes(first, second), dtype=object)
    found = first.table[["id", "label", *columns]].astype(object).set_index("id")
    for name, one in (("before", first), ("after", second)):
        ids = one.table["id"].astype(object)
        found[name] = pd.Series(classes[_predicted(one, list(classes))], index=ids)
    return found.dropna().groupby(columns).head(rows)


def _file(path: Path, texts: Sequence[str], called: str, needed: Sequence[str]) -> pd.DataFrame:
    if not path.is_file():
        raise BadInput(f"{path} is no file; expected predictions as CSV or Parquet.")
    parquet = path.suffix.lower() in (".parquet", ".pq")
    try:
        if parquet:
            table = pd.read_parquet(path).rename(columns=str)
            _check_columns(called, list(table.columns), needed)
            return table
        there = [str(name) for name in pd.read_csv(path, nrows=0, encoding="utf-8-sig").columns]
        _check_columns(called, there, needed)
        scores = [name for name in there if _is_score(name)]
        # Every column is read, wanted or not: else a row with a comma too many would pass for a whole one.
        table = pd.read_csv(
            path,
            encoding="utf-8-sig",
            dtype={name: "str" if name == "id" else "category" for name in there if name not in scores},
            keep_default_na=False,  # text stays text
            na_values={name: ["", "nan", "NaN", "NA", "null", "None"] for name in scores},
        )
        if not isinstance(table.index, pd.RangeIndex):  # pandas took the first of them for names of rows
            raise ValueError("rows hold more fields than there are names of columns")
        return table[[name for name in there if name in texts or name in scores]]
    except BadInput:
        raise
    except ImportError:
        raise BadInput(
            f"{called} is Parquet, which needs pyarrow; expected it to be installed: pip install pyarrow, or "
            "save the predictions as CSV."
        ) from None
    except pd.errors.EmptyDataError:
        raise BadInput(f"{called} is empty; expected a row of column names, then a row an image.") from None
    except (ValueError, OSError, EOFError) as error:  # what pandas, pyarrow and gzip say of broken files
        said = shown(str(error), 120) or type(error).__name__
        raise BadInput(
            f"{called} cannot be read as {'Parquet' if parquet else 'CSV'} ({said}); expected "
            f"{'a whole Parquet file' if parquet else 'UTF-8 text with commas and a row of column names'}."
        ) from None


def _is_score(column: str) -> bool:
    return column.startswith(tuple(_PREFIX.values()))


def _check_columns(called: str, there: Sequence[str], needed: Sequence[str]) -> None:
    missing = [name for name in needed if name not in there]
    if "prediction" not in there and not any(_is_score(name) for name in there):
        missing.append("prediction, nor logit_<class>")
    if missing and len(there) == 1 and any(other in there[0] for other in ";\t|"):
        raise BadInput(
            f"{called} has one column, {shown(there[0])!r}; expected commas between columns: save it as CSV "
            "with commas."
        )
    if missing:
        raise BadInput(
            f"{called} has no column {shown(', '.join(missing), 200)}; it has "
            f"{shown(', '.join(there), 300) or 'none'}: rename those that are meant."
        )


def _text(column: pd.Series, name: str, called: str) -> pd.Series:
    """A column as text, the same from a data frame as from a file."""
    missing = column.isna() | column.isin(["", "nan", "NaN"] if name == "prediction" else [""])
    if missing.any():
        raise BadInput(
            f"{called} lacks {int(missing.sum())} of the {len(column)} entries of {shown(name)}; expected "
            "one an image: fill them in, or leave those images out of both tables."
        )
    if pd.api.types.is_float_dtype(column):  # a whole number in a column that once had a gap: 3, not 3.0
        numbers = column.unique()
        column = column.map({n: str(int(n)) if float(n).is_integer() else str(n) for n in numbers})
    text = column.astype(str).reset_index(drop=True)
    return text if name == "id" else text.astype("category")


def _number(column: pd.Series, name: str, called: str) -> NDArray[np.float64]:
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(np.float64)
    broken = int((~np.isfinite(numbers)).sum())
    if broken:
        raise BadInput(
            f"{called} has {broken} entries of {shown(name)} that are missing, NaN, infinite or no number; "
            "expected a finite number an image: look for the layer that overflowed."
        )
    return numbers


def _weights(column: pd.Series, name: str, called: str) -> NDArray[np.float64]:
    weights = _number(column.astype(object), name, called)
    if (weights <= 0).any():
        raise BadInput(
            f"{called} has {int((weights <= 0).sum())} entries of {shown(name)} that are not above 0; "
            f"expected "
            "how many each row stands for: leave those rows out of both tables."
        )
    return weights


# -- side by side -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LeftOut:
    """Rows of one table that the other lacks: `n` of its `rows`, and the names of both.

    `groups`: whose they are, where the table says. `right`: whether it answered them right, of the first.
    """

    called: str
    other: str
    rows: int
    n: int
    groups: pd.DataFrame | None
    right: NDArray[np.bool_] | None


@dataclass(frozen=True)
class Pairs:
    """Both tables, row by row. `labels` and `answers` are places in `classes`.

    `clusters`: which rows belong together. `weights`: how many each stands for. None where nothing was said.
    """

    classes: list[str]
    labels: NDArray[np.intp]
    groups: dict[str, pd.Categorical]
    kinds: NDArray[np.intp]
    answers: tuple[NDArray[np.intp], NDArray[np.intp]]
    never_predicted: list[str]
    kind: Kind | None
    scores: tuple[NDArray[np.float64], NDArray[np.float64]] | None
    left_out: list[LeftOut]
    warnings: list[str]
    clusters: NDArray[np.intp] | None = None
    weights: NDArray[np.float64] | None = None


def pair(
    before: PredictionTable, after: PredictionTable, groups: Sequence[str], *, drop_unmatched: bool
) -> Pairs:
    """Lay the two tables beside each other by id, and say for each image what became of its prediction."""
    place = pd.Index(after.table["id"]).get_indexer(pd.Index(before.table["id"]))
    matched = place >= 0
    common = int(matched.sum())
    if not common or (max(len(matched), len(after.table)) > common and not drop_unmatched):
        raise BadInput(
            f"{before.called} and {after.called} share {common} ids; {len(matched) - common} stand only in "
            f"the first and {len(after.table) - common} only in the second; expected the same images in both"
            + (": --drop-unmatched (drop_unmatched=True) leaves the others out." if common else ".")
        )
    first = _of_rows(before, np.flatnonzero(matched))
    second = _of_rows(after, place[matched])
    for name in ["label", *groups]:
        _check_agreement(first, second, name)
    if first.kind and second.kind:
        _check_classes(first, second)
    classes = _classes(first, second)
    labels = _codes(first.table["label"], classes)
    answers = [_predicted(one, classes) for one in (first, second)]
    right = [predicted == labels for predicted in answers]
    kinds = np.select(
        [right[0] & right[1], right[0], right[1], answers[0] == answers[1]],
        [statistics.KEPT, statistics.LOST, statistics.GAINED, statistics.SAME],
        statistics.CHANGED,
    )
    asked = np.bincount(labels, minlength=len(classes))
    given = [np.bincount(predicted, minlength=len(classes)) for predicted in answers]
    for one, counts in zip((first, second), given, strict=True):
        if not one.kind:  # else the columns of scores say which classes there are
            _check_spelling(one.called, classes, asked, counts)
    if not given[0][asked > 0].any():
        raise BadInput(
            f"No label is ever predicted by {first.called}: labels are such as "
            f"{_spelt(classes[int(asked.argmax())])}, predictions such as "
            f"{_spelt(classes[int(given[0].argmax())])}; expected the same names of classes in both."
        )
    never = np.flatnonzero((asked > 0) & (given[0] + given[1] == 0))
    return Pairs(
        classes=classes,
        labels=labels,
        groups={name: pd.Categorical(first.table[name]).remove_unused_categories() for name in groups},
        kinds=kinds.astype(np.intp),
        answers=(answers[0], answers[1]),
        never_predicted=[classes[code] for code in never],
        kind=first.kind if second.kind else None,
        scores=(first.scores(classes), second.scores(classes)) if first.kind and second.kind else None,
        left_out=[
            *_left_out(before, after, ~matched, groups, classes),
            *_left_out(after, before, ~np.isin(np.arange(len(after.table)), place), groups, None),
        ],
        warnings=[
            *_unchanged(kinds, first, second, classes),
            *_strangers(first.called, second.called, classes, asked, *given),
            *_strangers(second.called, first.called, classes, asked, *reversed(given)),
        ],
        clusters=None
        if first.cluster is None
        else pd.Categorical(first.table[first.cluster]).codes.astype(np.intp),
        weights=None if first.weight is None else first.table[first.weight].to_numpy(np.float64),
    )


def _left_out(
    one: PredictionTable,
    other: PredictionTable,
    out: NDArray[np.bool_],
    groups: Sequence[str],
    classes: list[str] | None,
) -> Iterator[LeftOut]:
    """The rows of a table that are left out, if any; whether they are right, where classes are given."""
    if not out.any():
        return
    rows = _of_rows(one, np.flatnonzero(out))
    named = all(name in rows.table for name in groups)
    right = None
    if classes is not None:
        right = _predicted(rows, classes) == _codes(rows.table["label"], classes)
    yield LeftOut(
        one.called,
        other.called,
        len(out),
        int(out.sum()),
        rows.table[list(groups)].astype(str) if named else None,
        right,
    )


def _unchanged(
    kinds: NDArray[np.intp], first: PredictionTable, second: PredictionTable, classes: Sequence[str]
) -> Iterator[str]:
    """A warning where no answer changed, which is how one model looks that was given twice."""
    if not np.isin(kinds, [statistics.KEPT, statistics.SAME]).all():
        return
    if not (first.kind and second.kind):
        yield "No answer changed at all: are these two different models?"
    elif np.array_equal(first.scores(classes), second.scores(classes)):
        yield "No answer changed at all, nor any score: are these two different models?"
    else:
        yield "No answer changed at all, though scores did."


def _check_spelling(
    called: str, classes: Sequence[str], asked: NDArray[np.intp], given: NDArray[np.intp]
) -> None:
    """Refuse predictions that are a label in another spelling, as 2.0 for 2: they would count as wrong."""
    strangers = np.flatnonzero((given > 0) & (asked == 0))
    if not len(strangers):
        return
    labels = [classes[code] for code in np.flatnonzero(asked).tolist()]
    # Where labels differ in case alone, case is what tells them apart.
    loose = len({_form(label, loose=True) for label in labels}) == len(labels)
    forms = {_form(label, loose=loose): label for label in labels}
    longest = 4 * max(map(len, labels)) + 16  # what is longer is no spelling of any: a generated text
    for code in strangers[np.argsort(-given[strangers], kind="stable")].tolist():
        stranger = classes[code]
        label = forms.get(_form(stranger, loose=loose)) if len(stranger) <= longest else None
        if label is not None:
            raise BadInput(
                f"{called} predicts {_spelt(stranger)}, which is no label, where {_spelt(label)} is one; "
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


def _spelt(text: str) -> str:
    """A name with what cannot be seen in it, from both ends where it is long.

    >>> print(_spelt("fraud "), _spelt("x" * 99 + " "))
    'fraud ' 'xxxxxxxxxxxxxxxxxxxxxxxxxxx…xxxxxxxxxxxxxxxxxxxxxxxxxx '
    """
    written = repr(text) if unicodedata.is_normalized("NFC", text) else ascii(text)
    return written if len(written) <= 60 else f"{written[:28]}…{written[-28:]}"


def _strangers(
    called: str,
    other: str,
    classes: Sequence[str],
    asked: NDArray[np.intp],
    given: NDArray[np.intp],
    by_other: NDArray[np.intp],
) -> Iterator[str]:
    """A warning where answers are no labels: many of them, or some while one label is never predicted."""
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
        f"label, such as {_spelt(classes[most])} ({given[most]:,} of them): they count as wrong."
    )
    if swapped:
        said += (
            f" It never predicts {_spelt(classes[missing[0]])}, which is a label and which {other} predicts: "
            "is that one class under two names?"
        )
    yield said


def _of_rows(answers: PredictionTable, rows: NDArray[np.intp]) -> PredictionTable:
    return replace(answers, table=answers.table.iloc[rows].reset_index(drop=True))


def _check_agreement(first: PredictionTable, second: PredictionTable, name: str) -> None:
    if name not in second.table:
        return
    mine, theirs = first.table[name], second.table[name]
    differs = mine.astype(object) != theirs.astype(object)
    if differs.any():
        row = int(differs.argmax())
        raise BadInput(
            f"The {shown(name)} of {int(differs.sum())} images differs between {first.called} and "
            f"{second.called}, such as {shown(mine[row])!r} and {shown(theirs[row])!r} for "
            f"{shown(first.table['id'][row])!r}; expected the same in both, or none in the second."
        )


def _check_classes(first: PredictionTable, second: PredictionTable) -> None:
    if first.kind != second.kind:
        raise BadInput(
            f"{first.called} holds a {first.kind} for each class and {second.called} a {second.kind}; "
            "expected the same kind of score in both."
        )
    if lone := sorted(set(first.classes) ^ set(second.classes)):
        raise BadInput(
            f"The class {shown(lone[0])!r} has scores in only one of {first.called} and {second.called}; "
            "expected the same classes in both, in any order."
        )


def _classes(first: PredictionTable, second: PredictionTable) -> list[str]:
    """The classes in the order of the scores before; what has no scores must be one of those that have."""
    texts = {
        text
        for one in (first, second)
        for name in ("label", "prediction")
        if name in one.table
        for text in one.table[name].cat.categories
    }
    scored = list(dict.fromkeys([*first.classes, *second.classes]))
    if not scored:
        return sorted(texts)
    if unknown := sorted(texts - set(scored)):
        raise BadInput(
            f"{shown(unknown[0])!r} is a label or a prediction, but no column of scores is named after it; "
            f"expected one of: {shown(', '.join(scored), 300)}."
        )
    return scored


def _codes(column: pd.Series, classes: Sequence[str]) -> NDArray[np.intp]:
    return pd.Index(classes).get_indexer(column.cat.categories)[column.cat.codes.to_numpy()].astype(np.intp)


def _predicted(answers: PredictionTable, classes: Sequence[str]) -> NDArray[np.intp]:
    """The predicted class: as it is said, or that of the highest score; of equals the first of `classes`."""
    if "prediction" in answers.table:
        return _codes(answers.table["prediction"], classes)
    return answers.scores(classes).argmax(axis=1)
