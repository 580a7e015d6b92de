"""Two tables of predictions, read and laid beside each other row by row.

A table has a row for each example, with the columns `id`, `label`, one or several of groups, and
`prediction`; or, in place of that, a column `logit_<class>` or `probability_<class>` for each class. Names
are text: a group may be called NA, and 007 is no 7.
"""

from __future__ import annotations

import filecmp
import lzma
import os
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fairq_audit import mistakes, statistics
from fairq_audit.arguments import group_columns
from fairq_audit.formats import shown
from fairq_utils.errors import BadInput

Predictions = pd.DataFrame | str | os.PathLike[str]
Kind = Literal["logit", "probability"]

# What pandas, pyarrow and those that unpack say of broken files.
_UNREADABLE = (
    *(ValueError, OSError, EOFError),
    *(zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError),
)
_PREFIX: dict[Kind, str] = {"logit": "logit_", "probability": "probability_"}


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
    amounts: tuple[str, ...] = ()

    def scores(self, classes: Sequence[str]) -> NDArray[np.float64]:
        """The scores of the classes in that order, a row for each example."""
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
    amounts: Sequence[str] = (),
) -> PredictionTable:
    """One table of predictions, from a file or a data frame; `called` is its name when it has no file.

    Without `with_labels` it may do without labels and groups: the other table has them. `cluster` names a
    column of what rows belong to, `weight` one of how many each stands for, `amounts` columns of numbers to
    be compared, which a row may lack.
    """
    sampled = [*(name for name in (cluster, weight) if name is not None), *amounts]
    needed = ["id", *(["label", *groups] if with_labels else []), *sampled]
    texts = [*dict.fromkeys(["id", "label", "prediction", *groups, *([] if cluster is None else [cluster])])]
    if weight in texts:
        raise BadInput(
            f"weight names {shown(str(weight))}, which holds text here; expected a column of numbers."
        )
    if wrong := [name for name in amounts if name in texts or _is_score(name)]:
        raise BadInput(
            f"amounts names {shown(wrong[0])}, which is no amount here; expected columns of numbers beside "
            "the predictions, such as loss."
        )
    if wrong := [name for name in groups if _is_score(name)]:
        raise BadInput(
            f"groups names {shown(wrong[0])}, which is a column of scores; expected columns of groups, such "
            "as gender,race: rename it where it holds groups."
        )
    if isinstance(source, pd.DataFrame):
        file = None
        if source.columns.nlevels > 1:
            raise BadInput(
                f"{called} has columns of {source.columns.nlevels} levels, such as {source.columns[0]}; "
                "expected one name for each: flatten them."
            )
        given = source.rename(columns=str)
        _check_columns(called, list(given.columns), needed)
    elif isinstance(source, str | os.PathLike):
        file = _writable(Path(source).name)
        called = shown(file)
        given = _file(Path(source), [*texts, *sampled], called, needed)
    else:
        raise BadInput(
            f"{called} is of type {type(source).__name__}; expected the path of a file or a data frame, with "
            "a row for each example."
        )
    if len(given) == 0:
        raise BadInput(f"{called} holds no rows; expected one for each example.")
    table = pd.DataFrame({name: _text(given[name], name, called) for name in texts if name in given})
    if weight is not None:
        table[weight] = _weights(given[weight], weight, called)
    for name in amounts:
        table[name] = _amount(given[name], name, called)
    repeated = table["id"][table["id"].duplicated()]
    if len(repeated):
        raise BadInput(
            f"{called} repeats {len(repeated)} ids, the first {shown(repeated.iloc[0])!r}; expected each "
            "example once."
        )
    there = [str(name) for name in given]
    kinds = [kind for kind, prefix in _PREFIX.items() if any(name.startswith(prefix) for name in there)]
    if len(kinds) > 1:
        raise BadInput(f"{called} has columns of logits and of probabilities; expected one kind of score.")
    if not kinds:
        return PredictionTable(called, file, table, None, [], cluster, weight, tuple(amounts))
    columns = [name for name in there if name.startswith(_PREFIX[kinds[0]])]
    if len(columns) == 1:
        raise BadInput(f"{called} has {shown(columns[0])} alone; expected a column for each class.")
    scores = pd.DataFrame({name: _number(given[name], name, called) for name in columns})
    if kinds[0] == "probability":
        mistakes.check_probabilities(called, scores.to_numpy())
    classes = [name.removeprefix(_PREFIX[kinds[0]]) for name in columns]
    table = pd.concat([table, scores], axis=1)
    return PredictionTable(called, file, table, kinds[0], classes, cluster, weight, tuple(amounts))


def check_two_files(before: Predictions, after: Predictions) -> None:
    """Refuse one file that was given twice, also as a copy."""
    if isinstance(before, pd.DataFrame) or isinstance(after, pd.DataFrame):
        return
    alike = False
    with suppress(OSError, ValueError, TypeError):  # what cannot be read is refused by who reads it
        alike = filecmp.cmp(before, after, shallow=False)
    if alike:
        raise BadInput(
            f"{before} and {after} hold the same, byte for byte; expected what two models answered: look at "
            "how the second was written, or, if two models do agree on every row, give their scores too "
            "(logit_<class>), which tell them apart."
        )


def side_by_side(
    before: Predictions, after: Predictions, groups: str | Sequence[str] = "group", rows: int = 2
) -> pd.DataFrame:
    """The first rows of each group with both predictions, to see what two tables hold.

    >>> before = pd.DataFrame({"id": [7, 9], "label": "moth", "group": "elm", "prediction": "moth"})
    >>> side_by_side(before, before[["id"]].assign(prediction=["moth", "fly"]))
       label group before after
    id
    7   moth   elm   moth  moth
    9   moth   elm   moth   fly
    """
    columns = group_columns(groups)
    first = read(before, columns, called="The first table", with_labels=True)
    second = read(after, columns, called="The second table", with_labels=False)
    classes = np.array(_classes(first, second), dtype=object)
    found = first.table[["id", "label", *columns]].astype(object).set_index("id")
    for name, one in (("before", first), ("after", second)):
        ids = one.table["id"].astype(object)
        found[name] = pd.Series(classes[_predicted(one, list(classes))], index=ids)
    return found.dropna().groupby(columns).head(rows)


def _file(path: Path, texts: Sequence[str], called: str, needed: Sequence[str]) -> pd.DataFrame:
    is_file = False
    with suppress(OSError):  # of a name that is too long, or in a folder that is closed
        is_file = path.is_file()
    if not is_file:
        raise BadInput(f"{shown(str(path), 120)} is no file; expected predictions as CSV or Parquet.")
    parquet = path.suffix.lower() in (".parquet", ".pq")
    try:
        if parquet:
            _check_columns(called, _parquet_names(path), needed)
            table = pd.read_parquet(path).rename(columns=str)
            _check_columns(called, list(table.columns), needed)  # what pandas takes for an index is none
            return table
        _check_columns(called, _csv_names(path), needed)
        there = [str(name) for name in pd.read_csv(path, nrows=0, encoding="utf-8-sig").columns]
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
    except ImportError as error:
        if parquet:
            raise BadInput(
                f"{called} is Parquet, which needs pyarrow; expected it to be installed: pip install "
                "pyarrow, or save the predictions as CSV."
            ) from None
        raise BadInput(
            f"{called} cannot be unpacked here ({shown(str(error), 120)}); expected CSV as it is, or packed "
            "as .gz, .bz2, .xz or .zip: pack it anew."
        ) from None
    except pd.errors.EmptyDataError:
        raise BadInput(
            f"{called} is empty; expected a row of column names, then a row for each example."
        ) from None
    except _UNREADABLE as error:
        said = shown(str(error), 120) or type(error).__name__
        raise BadInput(
            f"{called} cannot be read as {'Parquet' if parquet else 'CSV'} ({said}); expected "
            f"{'a whole Parquet file' if parquet else 'UTF-8 text with commas and a row of column names'}."
        ) from None


def _csv_names(path: Path) -> list[str]:
    """The names of the columns as they stand there: for a header, pandas makes each other than the rest."""
    row = pd.read_csv(path, header=None, nrows=1, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    return [str(name) for name in row.iloc[0]]


def _parquet_names(path: Path) -> list[str]:
    from pyarrow import parquet  # an extra, which an audit of CSV does without

    return [str(name) for name in parquet.read_schema(path).names]


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
        # A blank before or behind a name is seen between quotes alone.
        names = [name if name == shown(name, len(name)) else repr(name) for name in there]
        raise BadInput(
            f"{called} has no column {shown(', '.join(missing), 200)}; it has "
            f"{shown(', '.join(names), 300) or 'none'}: rename those that are meant."
        )
    read_ones = [name for name in there if name in (*needed, "label", "prediction") or _is_score(name)]
    for name, count in Counter(read_ones).items():
        if count > 1:
            raise BadInput(
                f"{called} has {count} columns called {shown(name)}; expected each name once: rename or drop "
                "one."
            )
        if name != _writable(name):
            raise BadInput(
                f"{called} has a column called {name!r}; expected text that UTF-8 can write: rename it."
            )


def _text(column: pd.Series, name: str, called: str) -> pd.Series:
    """A column as text, the same from a data frame as from a file."""
    values: pd.Index | pd.Series
    try:
        codes, values = pd.factorize(column)
    except TypeError:  # what cannot be compared is no name
        codes, values = np.arange(len(column)), column
    known = pd.api.types.infer_dtype(values, skipna=False) == "string"
    texts = list(values) if known else [_name(value, name, called) for value in values]
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        broken = next(text for text in texts if text != _writable(text))
        raise BadInput(
            f"{called} holds {broken!r} in {shown(name)}; expected text that UTF-8 can write: half of a "
            "character stands there."
        ) from None
    empty = {"", "nan", "NaN"} if name == "prediction" else {""}
    # Of a million ids none is empty, as a rule, which is soon seen.
    blank = [] if empty.isdisjoint(texts) else [at for at, text in enumerate(texts) if text in empty]
    if missing := int(np.isin(codes, [-1, *blank]).sum()):
        raise BadInput(
            f"{called} lacks {missing} of the {len(column)} entries of {shown(name)}; expected "
            "one in each row: fill them in, or leave those rows out of both tables."
        )
    # A text that is long is held once, in whatever number of rows it stands.
    if name == "id":
        return pd.Series(np.array(texts, dtype=object)[codes], dtype=object)
    return pd.Series(pd.Categorical(texts).take(codes))


def _name(value: Any, column: str, called: str) -> str:
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))  # a whole number in a column that once had a gap: 3, not 3.0
    if isinstance(value, bytes) or pd.api.types.is_list_like(value):
        raise BadInput(
            f"{called} holds values of type {type(value).__name__} in {shown(column)}; expected text or "
            "numbers, one in each row."
        )
    return str(value)


def _writable(text: str) -> str:
    """The text with halves of characters, which no file can hold, written out."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def _number(column: pd.Series, name: str, called: str) -> NDArray[np.float64]:
    if column.dtype.kind in "cmM":  # complex numbers, and times, which pandas would count
        column = pd.Series(np.nan, index=column.index)
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(np.float64)
    broken = int((~np.isfinite(numbers)).sum())
    if broken:
        raise BadInput(
            f"{called} has {broken} entries of {shown(name)} that are missing, NaN, infinite or no number; "
            "expected a finite number in each row: look for the layer that overflowed."
        )
    return numbers


def _weights(column: pd.Series, name: str, called: str) -> NDArray[np.float64]:
    weights = _number(column.astype(object), name, called)
    if (weights <= 0).any():
        raise BadInput(
            f"{called} has {int((weights <= 0).sum())} entries of {shown(name)} that are not above 0; "
            "expected how many each row stands for: leave those rows out of both tables."
        )
    return weights


def _amount(column: pd.Series, name: str, called: str) -> NDArray[np.float64]:
    """Numbers, of which some may be missing; anything else is refused, and so is infinity."""
    given = column.astype(object)
    missing = given.isna() | given.isin(["", "nan", "NaN", "NA", "null", "None"])
    numbers = np.full(len(given), np.nan)
    numbers[~missing] = _number(given[~missing], name, called)
    return numbers


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
    `amounts`: further numbers before and after, by the name of their column.
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
    amounts: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]] = field(default_factory=dict)


def pair(
    before: PredictionTable, after: PredictionTable, groups: Sequence[str], *, drop_unmatched: bool
) -> Pairs:
    """Lay the two tables beside each other by id, and say for each row what became of its prediction."""
    place = pd.Index(after.table["id"]).get_indexer(pd.Index(before.table["id"]))
    matched = place >= 0
    common = int(matched.sum())
    if not common or (max(len(matched), len(after.table)) > common and not drop_unmatched):
        raise BadInput(
            f"{before.called} and {after.called} share {common} ids; {len(matched) - common} stand only in "
            f"the first and {len(after.table) - common} only in the second; expected the same rows in both"
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
            mistakes.check_spelling(one.called, classes, asked, counts)
    if not given[0][asked > 0].any():
        raise BadInput(
            f"No label is ever predicted by {first.called}: labels are such as "
            f"{mistakes.spelt(classes[int(asked.argmax())])}, predictions such as "
            f"{mistakes.spelt(classes[int(given[0].argmax())])}; expected the same names of classes in both."
        )
    scores = (first.scores(classes), second.scores(classes)) if first.kind and second.kind else None
    never = np.flatnonzero((asked > 0) & (given[0] + given[1] == 0))
    return Pairs(
        classes=classes,
        labels=labels,
        groups={name: pd.Categorical(first.table[name]).remove_unused_categories() for name in groups},
        kinds=kinds.astype(np.intp),
        answers=(answers[0], answers[1]),
        never_predicted=[classes[code] for code in never],
        kind=first.kind if second.kind else None,
        scores=scores,
        left_out=[
            *_left_out(before, after, ~matched, groups, classes),
            *_left_out(after, before, ~np.isin(np.arange(len(after.table)), place), groups, None),
        ],
        warnings=[
            *mistakes.unchanged(kinds, scores),
            *mistakes.measurements(classes, asked),
            *mistakes.strangers(first.called, second.called, classes, asked, *given),
            *mistakes.strangers(second.called, first.called, classes, asked, *reversed(given)),
            *_of_scores(first, classes, answers[0]),
            *_of_scores(second, classes, answers[1]),
        ],
        clusters=None
        if first.cluster is None
        else pd.Categorical(first.table[first.cluster]).codes.astype(np.intp),
        weights=None if first.weight is None else first.table[first.weight].to_numpy(np.float64),
        amounts={
            name: (first.table[name].to_numpy(), second.table[name].to_numpy()) for name in first.amounts
        },
    )


def _of_scores(one: PredictionTable, classes: Sequence[str], predicted: NDArray[np.intp]) -> Iterator[str]:
    """What is to be said of scores that do not fit one another, or the predictions beside them."""
    if one.kind and "prediction" in one.table:
        yield from mistakes.contradicted(one.called, classes, predicted, one.scores(classes))
    if one.kind == "probability":
        yield from mistakes.sums(one.called, one.scores(classes))


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
        rows.table[list(groups)].astype(object) if named else None,
        right,
    )


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
            f"The {shown(name)} of {int(differs.sum())} rows differs between {first.called} and "
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
