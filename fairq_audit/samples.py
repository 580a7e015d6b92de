"""What lm-evaluation-harness logged of each document, before and after, as two tables of predictions.

With `--log_samples` it leaves a file `samples_<task>_<time>.jsonl` for each task, with a line for each
document and filter: the document, the target, what the model answered, and the value of each metric. Here
they are laid beside each other as they are.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fairq_audit.formats import shown
from fairq_utils.errors import BadInput

# Of several metrics that are 0 or 1 the one that is taken, where nobody says: what most tables report.
_USUAL = ("acc", "exact_match", "acc_norm")
_FILE = re.compile(r"samples_(?P<task>.+)_\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d[.\d]*\.jsonl")
_NO_METRICS = {
    *("doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics"),
    *("doc_hash", "prompt_hash", "target_hash"),
}
RIGHT, WRONG, OTHERWISE = "right", "wrong", "wrong in another way"


@dataclass(frozen=True)
class _Task:
    """The lines of one task, by filter and document."""

    file: Path
    filters: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)

    def metrics(self, name: str) -> list[str]:
        """The metrics of a filter, in the order of the file."""
        first = next(iter(self.filters[name].values()))
        return list(first.get("metrics") or (key for key in first if key not in _NO_METRICS))


def read_samples(
    before: str | os.PathLike[str],
    after: str | os.PathLike[str],
    *,
    groups: Sequence[str] = (),
    metric: str | None = None,
) -> dict[str, Any]:
    """The arguments of `fairq_audit.audit` for what lm-evaluation-harness logged of two models.

    `before` and `after`: a file of samples each, or a folder with one file for each task, however deep.
    `groups`: fields of the document, `doc.subject` or `doc.meta.language`, and `task`; the latter alone where
    nobody says. `metric`: what says that an answer is right, such as `acc`, or with a filter as the harness
    writes it, `exact_match,strict-match`; it must be 0 or 1 for every document. By default, and for tasks
    that lack it, acc, exact_match or acc_norm, whichever comes first, or the only metric that is 0 or 1; of
    several filters the first. The `description` says which it was.

    Metrics of the same filter that are numbers but not 0 or 1, such as a perplexity or an overlap of words,
    become `amounts`, whose mean difference the audit tells beside its verdict.

    Of a choice among given answers the tables hold which one was given; where answers are text, whether it
    is right, and whether two wrong ones differ.

    >>> import tempfile
    >>> line = {"doc_id": 7, "doc": {"text": "2+2?", "topic": "sums"}, "target": "4", "filter": "none"}
    >>> right = line | {"filtered_resps": ["4"], "metrics": ["exact_match"], "exact_match": 1.0}
    >>> wrong = line | {"filtered_resps": ["5"], "metrics": ["exact_match"], "exact_match": 0.0}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     files = [Path(folder, name) for name in ("fp16.jsonl", "int4.jsonl")]
    ...     _ = [file.write_text(json.dumps(own)) for file, own in zip(files, (right, wrong))]
    ...     found = read_samples(*files, groups=["doc.topic"])
    >>> found["after"]
               id  label prediction doc.topic
    0  samples #7  right      wrong      sums
    """
    sides = [_tasks(Path(place)) for place in (before, after)]
    for one, other, at in ((0, 1, after), (1, 0, before)):
        if lacking := [task for task in sides[one] if task not in sides[other]]:
            raise BadInput(
                f"{at} has no samples of the task {shown(lacking[0])}; expected the same tasks before and "
                "after: log them, or name the files of the tasks that both have."
            )
    if metric is not None and not any(_has(task, metric) for task in sides[0].values()):
        known = {
            own: None for task in sides[0].values() for name in task.filters for own in _named(task, name)
        }
        raise BadInput(f"metric is {metric!r}; expected one of: {', '.join(known)}.")
    columns = list(groups) or ["task"]
    found: list[list[pd.DataFrame]] = [[], []]
    told = []
    amounts: list[str] = []
    for task, first in sides[0].items():
        both = (first, sides[1][task])
        name, chosen = _choose(task, both, metric if metric is not None and _has(first, metric) else None)
        lines = [one.filters[chosen] for one in both]
        _check_documents(both, lines)
        beside = [own for own in first.metrics(chosen) if own != name and _is_amount(lines, own)]
        amounts += [own for own in beside if own not in amounts]
        for place, table in enumerate(_told(task, both, lines, name)):
            for column in columns:
                values = {
                    doc: _group(both[place].file, own, task, column) for doc, own in lines[place].items()
                }
                table[column] = list(values.values())
            for own in beside:
                said = [line.get(own) for line in lines[place].values()]
                table[own] = [value if _is_number(value) else np.nan for value in said]
            found[place].append(table)
        told.append(f"{name} of {task}" + (f" ({chosen})" if chosen != "none" else ""))
    if not any((table["label"] == table["prediction"]).any() for table in found[0]):
        raise BadInput(
            f"{before} is right in none of its {sum(map(len, found[0])):,} documents by {', '.join(told[:5])}"
            "; expected a model that has something to lose: name another --metric, or another filter of it."
        )
    names = tuple(map(_name, (before, after)))
    return {
        "before": pd.concat(found[0], ignore_index=True),
        "after": pd.concat(found[1], ignore_index=True),
        "groups": columns,
        "amounts": amounts,
        "names": names if names[0] != names[1] else ("before", "after"),
        "description": f"What lm-evaluation-harness logged; right is what counts as right by "
        f"{', '.join(told[:20])}{f' and {len(told) - 20} more' if len(told) > 20 else ''}.",
    }


# -- files --------------------------------------------------------------------------------------------


def _tasks(place: Path) -> dict[str, _Task]:
    if place.is_file():
        files = [place]
    else:
        files = sorted(path for path in place.rglob("samples_*.jsonl") if path.is_file())
    if not files:
        raise BadInput(
            f"{place} holds no samples_<task>_<time>.jsonl; expected what lm_eval left there with "
            "--output_path and --log_samples."
        )
    tasks: dict[str, _Task] = {}
    for path in files:
        matched = _FILE.fullmatch(path.name)
        name = matched["task"] if matched else "samples"
        if name in tasks:
            raise BadInput(
                f"{place} holds samples of {shown(name)} twice, {shown(tasks[name].file.name, 90)} and "
                f"{shown(path.name, 90)}; expected one run of one model: name its folder, or the file."
            )
        tasks[name] = _Task(path)
        for line in _lines(path):
            of_filter = tasks[name].filters.setdefault(str(line.get("filter", "none")), {})
            if str(line["doc_id"]) in of_filter:
                raise BadInput(
                    f"{path} holds the document {line['doc_id']} twice; expected each once: was it written "
                    "by two runs?"
                )
            of_filter[str(line["doc_id"])] = line
        if not tasks[name].filters:
            raise BadInput(f"{path} is empty; expected a line for each document.")
    return tasks


def _name(place: str | os.PathLike[str]) -> str:
    """What a side is called: the folder that the harness named after the model, or the file."""
    path = Path(place).resolve()
    return path.parent.name if _FILE.fullmatch(path.name) else path.name.removesuffix(".jsonl")


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        try:
            for number, text in enumerate(file, start=1):
                line = json.loads(text) if text.strip() else None
                if line is None:
                    continue
                if (
                    not isinstance(line, dict)
                    or not isinstance(line.get("doc"), dict)
                    or "doc_id" not in line
                ):
                    raise BadInput(
                        f"line {number} of {path} is no sample; expected what lm_eval writes with "
                        "--log_samples: doc_id, doc, target, filtered_resps and the metrics."
                    )
                yield line
        except BadInput:
            raise
        except (ValueError, RecursionError):  # no JSON, or no UTF-8
            raise BadInput(
                f"{path} cannot be read as JSON lines; expected whole files as lm_eval writes them with "
                "--log_samples."
            ) from None


def _check_documents(both: Sequence[_Task], lines: Sequence[dict[str, dict[str, Any]]]) -> None:
    """Refuse documents that are others under one number."""
    for doc, one in lines[0].items():
        other = lines[1].get(doc)
        if other and (one["doc"], one.get("target")) != (other["doc"], other.get("target")):
            raise BadInput(
                f"document {doc} is another one in {both[0].file.name} than in {both[1].file.name}; expected "
                "the same version of the task, and the same documents, before and after."
            )


# -- what is right ------------------------------------------------------------------------------------


def _choose(task: str, both: Sequence[_Task], asked: str | None) -> tuple[str, str]:
    """The metric and the filter that say what is right."""
    name, _, wanted = (asked or "").partition(",")
    filters = [own for own in both[0].filters if not name or name in both[0].metrics(own)]
    chosen = wanted or filters[0]
    if chosen not in both[1].filters:
        raise BadInput(
            f"{both[1].file} has no filter {shown(chosen)}, which {both[0].file.name} has; expected the same "
            "version of the task before and after."
        )
    known = both[0].metrics(chosen)
    usable = [own for own in known if all(_decides(one.filters[chosen], own) for one in both)]
    listed = (
        f"{', '.join(known) or 'none'}, of which 0 or 1 for every document: {', '.join(usable) or 'none'}"
    )
    if name and name not in usable:
        raise BadInput(
            f"{name} of {shown(task)} is not 0 or 1 for every document, so that nothing is right or wrong by "
            f"it; expected one that is: its metrics are {listed}."
        )
    usual = [own for own in _USUAL if own in usable]
    if not (name or usual or len(usable) == 1):
        raise BadInput(
            f"{shown(task)} has {'several metrics that are' if usable else 'no metric that is'} 0 or 1 for "
            f"every document; expected one, named as --metric: its metrics are {listed}."
        )
    return name or (usual or usable)[0], chosen


def _has(task: _Task, metric: str) -> bool:
    name, _, wanted = metric.partition(",")
    return any(name in task.metrics(own) for own in task.filters if wanted in ("", own))


def _named(task: _Task, name: str) -> list[str]:
    """The metrics of a filter as the harness writes them, with the filter where there are several."""
    return [f"{own},{name}" if len(task.filters) > 1 else own for own in task.metrics(name)]


def _decides(lines: dict[str, dict[str, Any]], metric: str) -> bool:
    return all(
        isinstance(line.get(metric), int | float) and line[metric] in (0, 1) for line in lines.values()
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _is_amount(lines: Sequence[dict[str, dict[str, Any]]], metric: str) -> bool:
    """Whether it is a number, on both sides, and not 0 or 1 throughout."""
    return (
        metric not in ("id", "label", "prediction", "task")
        and all(any(_is_number(line.get(metric)) for line in own.values()) for own in lines)
        and not all(_decides(own, metric) for own in lines)
    )


def _told(
    task: str, both: Sequence[_Task], lines: Sequence[dict[str, dict[str, Any]]], metric: str
) -> Iterator[pd.DataFrame]:
    """For each side id, label and prediction, so that the two are equal where the metric is 1."""
    right = [{doc: bool(line[metric]) for doc, line in own.items()} for own in lines]
    choices = [{doc: _choice(line, metric) for doc, line in own.items()} for own in lines]
    known = {doc: _gold(line) for own in lines for doc, line in own.items()}
    by_choice = all(
        given is not None and known[doc] is not None and (given == known[doc]) == right[place][doc]
        for place in (0, 1)
        for doc, given in choices[place].items()
    )
    texts = _texts([line for own in lines for line in own.values()]) if by_choice else []
    for place in (0, 1):
        rows = []
        for doc in lines[place]:
            if by_choice:
                label, prediction = (_called(texts, own[doc]) for own in (known, choices[place]))
            else:
                label = prediction = RIGHT
                if not right[place][doc]:
                    prediction = WRONG
                    theirs = lines[0].get(doc)
                    if place and theirs and not right[0][doc] and _answer(theirs) != _answer(lines[1][doc]):
                        prediction = OTHERWISE
            rows.append((f"{task} #{doc}", label, prediction))
        yield pd.DataFrame(rows, columns=["id", "label", "prediction"])


def _scores(line: dict[str, Any]) -> list[float] | None:
    """The log-likelihood of each of the answers that were given to choose from, if there were any."""
    try:
        scores = [float(score) for score, _ in line["filtered_resps"]]
    except (KeyError, TypeError, ValueError):
        return None
    return scores if len(scores) > 1 else None


def _choice(line: dict[str, Any], metric: str) -> int | None:
    """Which answer was chosen: that of the largest likelihood, for acc_norm by its length."""
    scores = _scores(line)
    if scores is None or metric not in ("acc", "acc_norm"):
        return None
    if metric == "acc_norm":
        lengths = [max(len(text), 1) for text in _continuations(line)]
        if len(lengths) != len(scores):
            return None
        scores = [score / length for score, length in zip(scores, lengths, strict=True)]
    return int(np.argmax(scores))


def _continuations(line: dict[str, Any]) -> list[str]:
    """The answers to choose from."""
    given = line.get("arguments")
    if not isinstance(given, dict):
        return []
    return [str(own.get("arg_1", "")).strip() for own in given.values() if isinstance(own, dict)]


def _gold(line: dict[str, Any]) -> int | None:
    """Which of the answers is right, as a place or as the answer itself."""
    target, answers = str(line.get("target", "")).strip(), _continuations(line)
    if target in answers:
        return answers.index(target) if answers.count(target) == 1 else None
    return int(target) if target.isdecimal() and int(target) < len(answers) else None


def _texts(lines: Sequence[dict[str, Any]]) -> list[str]:
    """The answers themselves, where every document has the same to choose from, as yes and no."""
    different = {tuple(_continuations(line)) for line in lines}
    (texts,) = different if len(different) == 1 else [()]
    return list(texts) if len(set(texts)) == len(texts) and all(texts) else []


def _called(texts: Sequence[str], place: int | None) -> str:
    """An answer by its text, else by its letter.

    >>> _called(["no", "yes"], 1), _called([], 1), _called([], 30)
    ('yes', 'B', '31')
    """
    assert place is not None
    return texts[place] if texts else chr(ord("A") + place) if place < 26 else str(place + 1)


def _answer(line: dict[str, Any]) -> object:
    """What two answers are compared by: the chosen one, else all that was said."""
    scores = _scores(line)
    return int(np.argmax(scores)) if scores else line.get("filtered_resps")


def _group(path: Path, line: dict[str, Any], task: str, column: str) -> str:
    """Whom a document is of: `task`, or a field of the document."""
    if column == "task":
        return task
    first, *fields = column.split(".")
    value: Any = line["doc"] if first == "doc" and fields else None
    for name in fields:
        value = value.get(name) if isinstance(value, dict) else None
    if value is None or isinstance(value, dict | list) or str(value).strip() == "":
        raise BadInput(
            f"groups names {shown(column)}, of which document {line['doc_id']} in {path.name} has no single "
            f"value; expected task, or a field of every document: {', '.join(_fields(line['doc']))}."
        )
    return str(value)


def _fields(document: dict[str, Any], prefix: str = "doc") -> list[str]:
    """The dotted names of all single values, to choose from.

    >>> _fields({"topic": "sums", "meta": {"language": "en"}, "choices": ["3", "4"]})
    ['doc.topic', 'doc.meta.language']
    """
    found = []
    for name, value in document.items():
        if isinstance(value, dict):
            found += _fields(value, f"{prefix}.{name}")
        elif not isinstance(value, list):
            found.append(f"{prefix}.{shown(str(name))}")
    return found
