"""Rows of a table for models that take no images: columns of numbers, or text through a tokenizer."""

from __future__ import annotations

import hashlib
import inspect
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from fairq_audit.formats import shown
from fairq_audit.models.graphs import Graph
from fairq_audit.models.outputs import first_line, logits_of
from fairq_utils.errors import BadInput

_LONGEST = 10**6  # a tokenizer that names a longer one knows of none


@dataclass(frozen=True, eq=False, kw_only=True)
class Inputs:
    """What is asked of a model that takes no images.

    `table`: id, label and columns of groups, as text. `columns`: those that the model is fed with, in its
    order, as `values`; with a `tokenizer` the one of them that holds text. `source`: which file it was.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "loans.csv")
    ...     _ = path.write_text("id,label,group,age,income\\n1,no,f,40,3.5\\n2,yes,m,33,2.5\\n")
    ...     loans = read_inputs(path, ["income", "age"])
    >>> loans.values, loans.label_names, loans.said
    (tensor([[ 3.5000, 40.0000],
            [ 2.5000, 33.0000]]), ('no', 'yes'), 'rows of 2 columns')
    """

    table: pd.DataFrame
    columns: tuple[str, ...]
    values: Tensor | tuple[str, ...]
    source: str
    tokenizer: Any = None

    @cached_property
    def label_names(self) -> tuple[str, ...]:
        """The labels, whole numbers by their size and all others by the alphabet."""
        names = set(self.table["label"])
        return tuple(sorted(names, key=int if all(map(_is_whole, names)) else str))

    @property
    def said(self) -> str:
        """What the model is fed with, in words."""
        return f"the text of {self.columns[0]}" if self.tokenizer else f"rows of {len(self.columns)} columns"

    def answers(self, network: nn.Module, device: torch.device, batch_size: int) -> Iterator[Tensor]:
        """The logits of all rows, a batch at a time."""
        for start in range(0, len(self.table), batch_size):
            values = self.values[start : start + batch_size]
            if isinstance(values, Tensor):
                kinds = (
                    parameter.dtype for parameter in network.parameters() if parameter.is_floating_point()
                )
                yield logits_of(network(values.to(device, next(kinds, torch.float32)))).float().cpu()
            else:
                yield self._of_text(network, device, list(values)).float().cpu()

    def _of_text(self, network: nn.Module, device: torch.device, texts: list[str]) -> Tensor:
        takes = network.takes() if isinstance(network, Graph) else {}
        fixed = next((shape[1] for shape in takes.values() if len(shape) == 2), None)
        longest = fixed or (
            self.tokenizer.model_max_length if self.tokenizer.model_max_length < _LONGEST else None
        )
        tokens = self.tokenizer(
            texts,
            padding="max_length" if fixed else True,
            truncation=longest is not None,
            max_length=longest,
            return_tensors="pt",
        )
        given = {name: tensor.to(device) for name, tensor in tokens.items()}
        if isinstance(network, Graph):
            if lacking := [name for name in takes if name not in given]:
                raise BadInput(
                    f"the model takes {lacking[0]}, which the tokenizer does not give; expected inputs among "
                    f"{', '.join(given)}: export it with these names."
                )
            return logits_of(network(*(given[name] for name in takes)))
        parameters = inspect.signature(network.forward).parameters.values()
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            taken = {parameter.name for parameter in parameters}
            given = {name: tensor for name, tensor in given.items() if name in taken}
        return logits_of(network(**given))


def read_inputs(
    path: str | os.PathLike[str],
    columns: Sequence[str],
    *,
    groups: Sequence[str] = ("group",),
    tokenizer: str | os.PathLike[str] | None = None,
) -> Inputs:
    """The rows of a CSV or Parquet file with the columns id, label, those of groups, and those of a model.

    The `columns` are numbers, and reach the model as one tensor, rows x columns. With a `tokenizer`, a folder
    that transformers wrote, there is one column, of text. Of that folder only files are read, no code is run.
    """
    path = Path(path)
    texts = list(dict.fromkeys(["id", "label", *groups]))
    if not columns:
        raise BadInput("no columns are named that the model is fed with; expected some, such as age,income.")
    if tokenizer is not None and len(columns) != 1:
        raise BadInput(
            f"columns names {', '.join(columns)} beside a tokenizer; expected one column, which holds text."
        )
    table = _read(path)
    if missing := [name for name in [*texts, *columns] if name not in table]:
        raise BadInput(
            f"{path.name} has no column {shown(missing[0])}; expected id, label, columns of groups and those "
            f"that the model is fed with; it has {shown(', '.join(map(str, table)), 300)}."
        )
    if not len(table):
        raise BadInput(f"{path.name} holds no rows; expected one for each answer that is asked for.")
    known = pd.DataFrame({name: _text(table[name], path) for name in texts})
    if known["id"].duplicated().any():
        again = known["id"][known["id"].duplicated()].iloc[0]
        raise BadInput(f"{path.name} repeats the id {shown(again)!r}; expected each once.")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    values: Tensor | tuple[str, ...]
    if tokenizer is not None:
        values = tuple(_text(table[columns[0]], path))
    else:
        numbers = np.stack([_numbers(table[name], path) for name in columns], axis=1)
        values = torch.from_numpy(numbers.astype(np.float32))
    return Inputs(
        table=known,
        columns=tuple(columns),
        values=values,
        source=f"{path.name} (columns {', '.join(columns)}; SHA-256 {digest[:12]})",
        tokenizer=None if tokenizer is None else _tokenizer(Path(tokenizer).expanduser()),
    )


def _read(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise BadInput(f"{path} is no file; expected inputs as CSV or Parquet.")
    parquet = path.suffix.lower() in (".parquet", ".pq")
    try:
        if parquet:
            return pd.read_parquet(path).rename(columns=str)
        return pd.read_csv(path, dtype=str, keep_default_na=False, index_col=False, encoding="utf-8-sig")
    except ImportError:
        raise BadInput(
            f"{path.name} is Parquet, which needs pyarrow; expected it to be installed: pip install pyarrow, "
            "or save the inputs as CSV."
        ) from None
    except (ValueError, OSError, EOFError) as error:  # what pandas and pyarrow say of broken files
        raise BadInput(
            f"{path.name} cannot be read ({first_line(error)}); expected a whole CSV or Parquet file with a "
            "row of column names."
        ) from None


def _text(column: pd.Series, path: Path) -> pd.Series:
    """A column as text: 2.0, in a column of numbers that once had a gap, is 2."""
    missing = column.isna() | column.isin([""])
    if missing.any():
        raise BadInput(
            f"{path.name} lacks {int(missing.sum())} of the {len(column)} entries of "
            f"{shown(str(column.name))}; expected one in each row: fill them in, or leave those rows out."
        )
    if pd.api.types.is_float_dtype(column) and (column % 1 == 0).all():
        column = column.astype(np.int64)
    return column.astype(str)


def _numbers(column: pd.Series, path: Path) -> np.ndarray[Any, Any]:
    if column.dtype == object:
        column = column.where(~column.isin(["True", "False"]), column == "True")  # as pandas writes them
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(np.float64)
    if broken := int((~np.isfinite(numbers)).sum()):
        raise BadInput(
            f"{path.name} has {broken} entries of {shown(str(column.name))} that are missing or no finite "
            "number; expected numbers as the model was trained with: encode words, and fill in what is "
            "missing, or, if the column holds text, give --tokenizer."
        )
    return numbers


def _is_whole(text: str) -> bool:
    return text.removeprefix("-").isdecimal()


def _tokenizer(path: Path) -> Any:
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise BadInput(
            f"{path} is a tokenizer, and to open it takes the package transformers; run pip install "
            "fairq-utils[models]."
        ) from error
    if not path.is_dir():
        raise BadInput(f"{path} is no folder; expected one that a tokenizer of transformers was saved in.")
    try:
        return AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # whatever the files lead it to
        raise BadInput(
            f"{path} cannot be opened as a tokenizer ({first_line(error)}); expected a folder that "
            "save_pretrained of one wrote."
        ) from error
