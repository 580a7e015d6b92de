"""Hostile and clumsy input: whatever is given, one sentence comes back, an exit code that says what it means
(0 done, 1 a gate failed, 2 what was given cannot be used, 3 a fault of ours), and nothing is lost."""

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import pickle
import re
import socket
import sys
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from string import ascii_lowercase

import pandas as pd
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from fairq_audit import auditing
from fairq_audit import cli as audit_cli
from fairq_book.cli import main
from fairq_utils.errors import BadInput

# What imports torch is imported where it is needed: an audit of files has to do without.

ROWS = 40
HEAD = "id,label,group,prediction\n"


def rows(**changes) -> pd.DataFrame:
    """A table in which nothing is wrong, but for the changes; None leaves a column out."""
    columns = {
        "id": range(ROWS),
        "label": ["cat", "dog"] * (ROWS // 2),
        "group": ["ash", "ash", "elm", "elm"] * (ROWS // 4),
        "prediction": ["cat", "dog"] * (ROWS // 2),
    }
    columns |= changes
    return pd.DataFrame({name: values for name, values in columns.items() if values is not None})


def text(**changes) -> str:
    return rows(**changes).to_csv(index=False)


def scored(kind: str = "logit", cat: object = 2.0, dog: object = 1.0) -> str:
    return text(prediction=None, **{f"{kind}_cat": cat, f"{kind}_dog": dog})


AFTER = text(label=None, group=None, prediction=["cat", "dog", "dog", "dog"] * (ROWS // 4))


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch, capfd):
    """An empty folder to work in, with two good tables. What is printed past the command, others print."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FAIRQ_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("FAIRQ_PROGRESS", "0")
    Path("before.csv").write_text(text())
    Path("after.csv").write_text(AFTER)
    yield tmp_path
    assert capfd.readouterr() == ("", "")


def everything(folder: Path) -> dict[str, object]:
    """What lies in the folder; of what cannot be read, its kind."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = path.readlink()
        else:
            found[name] = path.read_bytes() if path.is_file() else path.stat().st_mode
    return found


def fairq(*arguments: object) -> Result:
    return CliRunner().invoke(main.main, [str(argument) for argument in arguments])


def audit(before: object, after: object, *options: object) -> Result:
    return fairq("audit", "--predictions", before, after, "--out", "out", *options)


def is_one_sentence(done: Result, said: str, code: int = 2) -> None:
    """One sentence on stderr with these words in it; of a wrong option, click says first how it is used."""
    assert done.exit_code == code, done.output
    assert "Traceback" not in done.output
    assert said != ""
    usage, error, rest = done.stderr.partition("Error: ")
    sentence, *choices = rest.splitlines()
    assert error
    assert all(re.match("Usage: |Try | |$", line) for line in usage.splitlines())
    assert all(line.startswith("\t") for line in choices)
    assert usage or sentence[-1] in ".!?"  # click ends its own in several ways
    assert said in sentence
    assert sentence.isprintable()
    assert 10 < len(sentence) < 1500
    assert done.stdout == ""


def test_where_nothing_is_wrong_nothing_is_refused(place):
    done = audit("before.csv", "after.csv")
    assert done.exit_code == 0
    assert done.stderr == ""
    assert (place / "out" / "report.html").exists()


@pytest.fixture
def light():
    """An audit of files imports no torch; that can be seen where no other test did before."""
    there = "torch" in sys.modules
    yield
    assert there or "torch" not in sys.modules


# -- files that are none ------------------------------------------------------------------------------


def packed(mode: str, *names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, mode) as archive:
        for name in names:
            archive.writestr(name, text())
    return buffer.getvalue()


def parquet(table: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    table.to_parquet(buffer)
    return buffer.getvalue()


class Evil:
    def __reduce__(self):
        return os.system, ("touch ran",)


# Of the table before: its name, what is in it, and what is said.
FILES: dict[str, tuple[str, bytes | str | Callable[[Path], object] | None, str]] = {
    "nothing there": ("x.csv", None, "x.csv is no file; expected predictions as CSV or Parquet."),
    "an empty name": ("", None, ". is no file; expected predictions"),
    "a blank": (" ", None, "is no file; expected predictions"),
    "a dash": ("-", None, "- is no file"),
    "a pattern": ("*.csv", None, "*.csv is no file"),
    "an address": ("https://127.0.0.1:9/x.csv", None, "x.csv is no file"),
    "an address of a bucket": ("s3://bucket/x.parquet", None, "x.parquet is no file"),
    "an address of a file": ("file:///etc/passwd", None, "is no file"),
    "a home": ("~/x.csv", None, "is no file"),
    "a folder": ("folder", Path.mkdir, "folder is no file"),
    "a folder that looks like a file": ("x.csv", Path.mkdir, "x.csv is no file"),
    "a device without end": ("/dev/zero", None, "/dev/zero is no file"),
    "a device without content": ("/dev/null", None, "/dev/null is no file"),
    "a pipe": ("pipe.csv", os.mkfifo, "pipe.csv is no file"),
    "a circle": ("loop.csv", lambda path: path.symlink_to("loop.csv"), "loop.csv is no file"),
    "a link to nothing": ("link.csv", lambda path: path.symlink_to("nowhere"), "link.csv is no file"),
    "a link without end": ("zero.csv", lambda path: path.symlink_to("/dev/zero"), "zero.csv is no file"),
    "a name that is too long": ("x" * 300 + ".csv", None, "is no file"),
    "a path that is too long": ("y/" * 3000 + "x.csv", None, "is no file"),
    "a file within a file": ("before.csv/x.csv", None, "is no file"),
    "an empty file": ("x.csv", b"", "x.csv is empty; expected a row of column names"),
    "blank lines": ("x.csv", b"\n\n\n", "x.csv is empty; expected a row of column names"),
    "a mark of order alone": ("x.csv", b"\xef\xbb\xbf", "x.csv is empty; expected a row of column names"),
    "a head alone": ("x.csv", HEAD, "x.csv holds no rows; expected one for each example."),
    "no head": ("x.csv", text().partition("\n")[2], "x.csv has no column id, label, group, prediction"),
    "names in capitals": (
        "x.csv",
        text().replace("label", "Label"),
        "x.csv has no column label; it has id, L",
    ),
    "a blank in the head": ("x.csv", text().replace(",label", ", label"), "it has id, ' label', group"),
    "a blank behind a name": ("x.csv", text().replace("group,", "group ,"), "it has id, label, 'group ', p"),
    "an invisible name": (
        "x.csv",
        text().replace("group,", "gro\u200bup,"),
        r"it has id, label, 'gro\u200bup'",
    ),
    "semicolons": ("x.csv", text().replace(",", ";"), "expected commas between columns"),
    "tabs": ("x.csv", text().replace(",", "\t"), "expected commas between columns"),
    "pipes": ("x.csv", text().replace(",", "|"), "expected commas between columns"),
    "a name twice": ("x.csv", text().replace("group,prediction", "label,prediction"), "has no column group"),
    "a column twice": (
        "x.csv",
        re.sub("$", ",cat", text(), flags=re.M).replace("prediction,cat", "prediction,prediction"),
        "x.csv has 2 columns called prediction; expected each name once: rename or drop one.",
    ),
    "a comma too many": ("x.csv", HEAD + "1,cat,ash,cat\n2,cat,ash,cat,5\n", "x.csv cannot be read as CSV"),
    "commas too many throughout": (
        "x.csv",
        HEAD + "1,cat,ash,cat,5\n" * 3,
        "rows hold more fields than there",
    ),
    "a comma too few": ("x.csv", text() + "99,cat,ash\n", "x.csv lacks 1 of the 41 entries of prediction"),
    "a quote that never ends": (
        "x.csv",
        HEAD + '1,cat,"ash,cat\n' + "2,cat,ash,cat\n",
        "cannot be read as CSV",
    ),
    "bytes of zero": ("x.csv", b"\0" * 5000, "x.csv"),
    "a picture": ("x.csv", b"\x89PNG\r\n\x1a\n\0\0\xff", "x.csv cannot be read as CSV"),
    "a program": ("x.csv", b"\x7fELF\x02\x01\x01" + bytes(range(256)), "x.csv"),
    "a page": (
        "x.csv",
        "<!DOCTYPE html>\n<p>Not found</p>\n",
        "x.csv has no column id, label, group, prediction",
    ),
    "a notebook": ("x.csv", json.dumps({"cells": []}, indent=1), "x.csv has no column id"),
    "a pickle": ("x.csv", pickle.dumps(Evil()), "x.csv"),
    "a pickle that is called so": ("x.pkl", pickle.dumps(Evil()), "x.pkl"),
    "JSON": ("x.json", rows().to_json(), "x.json has no column id"),
    "UTF-16": ("x.csv", text().encode("utf-16"), "x.csv cannot be read as CSV"),
    "UTF-32": ("x.csv", text().encode("utf-32"), "x.csv"),
    "Latin 1": ("x.csv", text(group="\xe9").encode("latin-1"), "expected UTF-8 text with commas"),
    "gzip that is none": ("x.csv.gz", b"text", "x.csv.gz cannot be read as CSV"),
    "gzip cut short": ("x.csv.gz", gzip.compress(text().encode())[:-20], "x.csv.gz cannot be read as CSV"),
    "gzip of nothing": ("x.csv.gz", gzip.compress(b""), "x.csv.gz is empty"),
    "bzip2 cut short": ("x.csv.bz2", bz2.compress(text().encode())[:-9], "x.csv.bz2 cannot be read as CSV"),
    "bzip2 that is none": ("x.csv.bz2", b"text", "x.csv.bz2 cannot be read as CSV"),
    "xz cut short": ("x.csv.xz", lzma.compress(text().encode())[:-9], "x.csv.xz cannot be read as CSV"),
    "xz that is none": ("x.csv.xz", b"text", "x.csv.xz cannot be read as CSV"),
    "zstandard": ("x.csv.zst", b"text", "expected CSV as it is, or packed as .gz, .bz2, .xz or .zip"),
    "a tar that is none": ("x.csv.tar", b"text", "x.csv.tar cannot be read as CSV"),
    "a zip that is none": ("x.zip", b"text", "x.zip cannot be read as CSV"),
    "a zip of two": ("x.zip", packed("w", "a.csv", "b.csv"), "x.zip cannot be read as CSV"),
    "a zip of none": ("x.zip", packed("w"), "x.zip cannot be read as CSV"),
    "a table that is called Parquet": ("x.parquet", text(), "x.parquet cannot be read as Parquet"),
    "Parquet that is called a table": ("x.csv", parquet(rows()), "x.csv cannot be read as CSV"),
    "Parquet that is empty": ("x.parquet", b"", "x.parquet cannot be read as Parquet"),
    "Parquet cut short": ("x.parquet", parquet(rows())[:-9], "x.parquet cannot be read as Parquet"),
    "Parquet with a wrong byte": (
        "x.parquet",
        parquet(rows())[:200] + b"\xff" * 90 + parquet(rows())[290:],
        "x.parquet",
    ),
    "Parquet without rows": ("x.parquet", parquet(rows().head(0)), "x.parquet holds no rows"),
    "Parquet of lists": (
        "x.parquet",
        parquet(rows(prediction=[["cat"]] * ROWS)),
        "values of type ndarray in",
    ),
    "Parquet of structs": (
        "x.parquet",
        parquet(rows(group=[{"a": 1}] * ROWS)),
        "values of type dict in group",
    ),
    "Parquet of bytes": ("x.parquet", parquet(rows(label=[b"cat"] * ROWS)), "values of type bytes in label"),
    "Parquet with an index": (
        "x.parquet",
        parquet(rows().set_index("id")),
        "x.parquet has no column id; it has label, group, prediction",
    ),
    "Parquet of two levels": (
        "x.parquet",
        parquet(rows().set_axis(pd.MultiIndex.from_product([rows().columns, ["a"]]), axis=1)),
        "x.parquet has no column id",
    ),
}


def put(name: str, content: bytes | str | Callable[[Path], object] | None) -> None:
    if callable(content):
        content(Path(name))
    elif content is not None:
        Path(name).write_bytes(content.encode() if isinstance(content, str) else content)


@pytest.mark.usefixtures("light")
@pytest.mark.parametrize("case", FILES)
def test_a_file_that_is_none_is_refused(place, case):
    name, content, said = FILES[case]
    put(name, content)
    before = everything(place)
    is_one_sentence(audit(name, "after.csv"), said)
    assert everything(place) == before


# Of the table after, which may do without labels and groups.
AFTERS = {
    name: FILES[name]
    for name in (
        *("nothing there", "a folder", "a device without end", "a pipe", "a circle", "an empty file"),
        *("a head alone", "semicolons", "bytes of zero", "a picture", "a pickle", "UTF-16", "gzip cut short"),
        *(
            "a zip of two",
            "Parquet cut short",
            "Parquet of lists",
            "a column twice",
            "a quote that never ends",
        ),
    )
}


@pytest.mark.usefixtures("light")
@pytest.mark.parametrize("case", AFTERS)
def test_a_second_file_that_is_none_is_refused(place, case):
    name, content, said = AFTERS[case]
    put(name, content)
    before = everything(place)
    is_one_sentence(audit("before.csv", name), said)
    assert everything(place) == before


# -- tables that make no sense ------------------------------------------------------------------------


def ids(*first: object) -> list[object]:
    return [*first, *range(len(first), ROWS)]


def first(value: object, name: str) -> list[object]:
    return [value, *rows()[name].tolist()[1:]]


# Before, after (None: the usual ones), and what is said.
TABLES: dict[str, tuple[str | None, str | None, str]] = {
    "an id twice": (
        text(id=ids(1, 1)),
        None,
        "before.csv repeats 1 ids, the first '1'; expected each example once",
    ),
    "an id that is blank": (text(id=ids("")), None, "before.csv lacks 1 of the 40 entries of id"),
    "a label that is blank": (text(label=first("", "label")), None, "lacks 1 of the 40 entries of label"),
    "a group that is blank": (text(group=first("", "group")), None, "lacks 1 of the 40 entries of group"),
    "a prediction that is blank": (
        text(prediction=first("", "prediction")),
        None,
        "1 of the 40 entries of pred",
    ),
    "a prediction that is nan": (
        text(prediction=first("nan", "prediction")),
        None,
        "1 of the 40 entries of pre",
    ),
    "ids of others": (
        None,
        text(id=range(900, 900 + ROWS)),
        "share 0 ids; 40 stand only in the first and 40",
    ),
    "ids that are shifted": (
        None,
        text(id=range(1, ROWS + 1)),
        "share 39 ids; 1 stand only in the first and 1",
    ),
    "ids with zeros": (None, text(id=[f"{n:03}" for n in range(ROWS)]), "share 0 ids"),
    "ids with points": (None, text(id=[f"{n}.0" for n in range(ROWS)]), "share 0 ids"),
    "ids with blanks": (None, text(id=[f" {n}" for n in range(ROWS)]), "share 0 ids"),
    "ids with endings": (None, text(id=[f"{n}.jpg" for n in range(ROWS)]), "share 0 ids"),
    "too few rows": (
        None,
        AFTER.rpartition("39")[0],
        "share 39 ids; 1 stand only in the first and 0 only in",
    ),
    "too many rows": (None, AFTER + "40,cat\n", "share 40 ids; 0 stand only in the first and 1 only in"),
    "another label": (
        None,
        text(label=first("dog", "label")),
        "The label of 1 rows differs between before.csv",
    ),
    "another group": (
        None,
        text(group=first("elm", "group")),
        "The group of 1 rows differs between before.csv",
    ),
    "a point too many": (
        text(label=["1", "2"] * 20, prediction=["1.0", "2.0"] * 20),
        text(label=None, group=None, prediction=["1", "2"] * 20),
        "before.csv predicts '1.0', which is no label, where '1' is one; expected one spelling of each class",
    ),
    "a point too many after": (
        text(label=["1", "2"] * 20, prediction=["1", "2"] * 20),
        text(label=None, group=None, prediction=["1.0", "2"] * 20),
        "after.csv predicts '1.0', which is no label, where '1' is one",
    ),
    "a blank too many": (None, AFTER.replace("dog", "dog "), "after.csv predicts 'dog ', which is no label"),
    "capitals": (
        None,
        AFTER.replace("dog", "DOG"),
        "after.csv predicts 'DOG', which is no label, where 'dog'",
    ),
    "an invisible character": (
        None,
        AFTER.replace("dog", "do\u200bg"),
        r"after.csv predicts 'do\u200bg', which",
    ),
    "other names of classes": (
        text(prediction=["0", "1"] * 20),
        None,
        "No label is ever predicted by before.csv",
    ),
    "no prediction": (
        text(prediction=None),
        None,
        "has no column prediction, nor logit_<class>; it has id, label",
    ),
    "one score": (
        text(prediction=None, logit_cat=1.0),
        None,
        "before.csv has logit_cat alone; expected a column",
    ),
    "two kinds of scores": (
        text(prediction=None, logit_cat=1, logit_dog=2, probability_cat=0.5),
        None,
        "before.csv has columns of logits and of probabilities; expected one kind of score.",
    ),
    "a score twice": (
        scored().replace("logit_dog", "logit_cat"),
        None,
        "before.csv has 2 columns called logit_cat; expected each name once",
    ),
    "a score without a name": (
        scored().replace("logit_dog", "logit_"),
        None,
        "'dog' is a label or a prediction, but no column of scores is named after it",
    ),
    "scores of other classes": (
        scored().replace("logit_dog", "logit_cow"),
        None,
        "'dog' is a label or a prediction, but no column of scores is named after it; expected one of: cat",
    ),
    "scores of other classes after": (
        scored(),
        scored().replace("logit_dog", "logit_cow"),
        "The class 'cow' has scores in only one of before.csv and after.csv",
    ),
    "another kind of scores after": (
        scored(),
        scored("probability", 0.5, 0.5),
        "holds a logit for each class and",
    ),
    "a probability above one": (
        scored("probability", 73.0, 0.5),
        None,
        "before.csv has probabilities from 0.5 to 73 in 40 of its 40 rows; expected fractions from 0 to 1",
    ),
    "a probability below zero": (
        scored("probability", -5.0, 0.5),
        None,
        "before.csv has probabilities from -5 to",
    ),
    "percentages": (scored("probability", 75, 25), None, "divide percentages by 100"),
    "text where groups are named after scores": (text(logit_x=1), None, "before.csv has logit_x alone"),
    "a group a row": (text(group=range(ROWS)), None, "No group of group has 20 rows; expected some: lower"),
} | {
    f"a score that is {value!r}": (
        scored(cat=[value] + [1.0] * (ROWS - 1)),
        None,
        "before.csv has 1 entries of logit_cat that are missing, NaN, infinite or no number; expected",
    )
    for value in (
        "nan",
        "inf",
        "-inf",
        "1e400",
        "0x10",
        "high",
        "",
        "1,5",
        "1 000",
        "true",
        "None",
        "1e",
        "\u0661x",
    )
}


@pytest.mark.usefixtures("light")
@pytest.mark.parametrize("case", TABLES)
def test_a_table_that_makes_no_sense_is_refused(place, case):
    before, after, said = TABLES[case]
    if before is not None:
        Path("before.csv").write_text(before)
    if after is not None:
        Path("after.csv").write_text(after)
    there = everything(place)
    is_one_sentence(audit("before.csv", "after.csv"), said)
    assert everything(place) == there


# What a person would call the same table: before, after.
SAME = {
    "a mark of order": ("\ufeff" + text(), "\ufeff" + AFTER),
    "lines of Windows": (text().replace("\n", "\r\n"), AFTER.replace("\n", "\r\n")),
    "lines of an old Macintosh": (text().replace("\n", "\r"), AFTER.replace("\n", "\r")),
    "blank lines between": (text().replace("\n", "\n\n"), AFTER + "\n\n"),
    "quotes around everything": (rows().to_csv(index=False, quoting=csv.QUOTE_ALL), AFTER),
    "another order of columns": (rows()[["prediction", "group", "id", "label"]].to_csv(index=False), AFTER),
    "another order of rows": (rows().iloc[::-1].to_csv(index=False), AFTER),
    "more columns": (text(note="x", weight=1.5), AFTER),
    "names of rows": (rows().to_csv(), AFTER),
    "no end of line": (text().rstrip("\n"), AFTER.rstrip("\n")),
    "other columns of one name": (rows(note=1).to_csv(index=False, header=[*rows(), "x"]), AFTER),
}


@pytest.mark.usefixtures("light")
@pytest.mark.parametrize("case", SAME)
def test_what_a_person_would_read_alike_is_read_alike(case):
    audit("before.csv", "after.csv")
    expected = Path("out/groups.csv").read_text()
    before, after = SAME[case]
    Path("before.csv").write_bytes(before.encode())
    Path("after.csv").write_bytes(after.encode())
    done = audit("before.csv", "after.csv")
    assert done.exit_code == 0, done.output
    assert Path("out/groups.csv").read_text() == expected


# Nothing is wrong for sure, so it is audited, and said first.
DOUBTS = {
    "one model twice": (None, text(label=None), "No answer changed at all: are these two different models?"),
    "scores alone changed": (scored(), scored(cat=2.5), "No answer changed at all, though scores did."),
    "answers that are no label": (
        None,
        AFTER.replace("dog", "cow"),
        "classes that are no label, such as 'cow'",
    ),
    "probabilities that sum to more": (
        scored("probability", 0.9, 0.6),
        scored("probability", 0.7, 0.3),
        "In 40 of the 40 rows of before.csv (100.0 %) the probabilities do not sum to 1, but to 1.50",
    ),
    "predictions against their scores": (
        text(logit_cat=2.0, logit_dog=1.0),
        None,
        "In 20 of the 40 rows of before.csv (50.0 %) the prediction is not the class of the highest score, "
        "such as 'dog' where 'cat' has it",
    ),
    "a regression": (
        text(label=[0.1 * n for n in range(ROWS)], prediction=[0.1 * n for n in range(ROWS)]),
        text(label=None, group=None, prediction=[0.1 * n + 0.05 * (n % 2) for n in range(ROWS)]),
        "The labels look measured: 40 different numbers in 40 rows",
    ),
}


@pytest.mark.usefixtures("light")
@pytest.mark.parametrize("case", DOUBTS)
def test_what_may_be_a_mistake_is_said_before_the_verdict(case):
    before, after, said = DOUBTS[case]
    if before:
        Path("before.csv").write_text(before)
    if after:
        Path("after.csv").write_text(after)
    done = audit("before.csv", "after.csv", "--margin", "0.5")
    assert done.exit_code == 0, done.output
    verdict = re.search("^(Harm shown|Cannot tell|No harm found|Equivalent)", done.stdout, re.M)
    assert said in done.stdout[: verdict.start()]
    assert said.replace("'", "&#39;") in Path("out/report.html").read_text()
    assert done.stderr == ""


def test_one_file_twice_is_refused(place):
    Path("copy.csv").write_text(text())
    for other in ("before.csv", "copy.csv", f"../{place.name}/before.csv", place / "before.csv"):
        is_one_sentence(audit("before.csv", other), "hold the same, byte for byte; expected what two models")


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        ("group_drop[elm] > 0.02", "Failed. group_drop[elm] > 0.02"),
        ("worst_group_drop > 0.02", "Failed. worst_group_drop > 0.02"),
        ("fvo_increase > 0.02", "Failed. fvo_increase > 0.02"),
    ],
)
def test_a_model_that_crashed_where_it_would_have_lost_fails_the_gate(gate, said):
    alive = rows().query("not (group == 'elm' and id % 3 == 0)")
    alive.to_csv("after.csv", index=False)
    done = audit("before.csv", "after.csv", "--drop-unmatched", "--smallest-group", "5", "--fail-if", gate)
    assert done.exit_code == 1
    assert said in done.stdout
    assert "rows of before.csv are missing from after.csv" in done.stdout
    assert done.stderr == "Error: 1 of 1 gates failed.\n"


# -- options ------------------------------------------------------------------------------------------

OPTIONS: dict[str, tuple[list[str], str]] = {
    "a margin of none": (["--margin", "0"], "margin is 0.0; expected a fraction between 0 and 1"),
    "a margin below": (["--margin", "-1"], "margin is -1.0; expected a fraction between 0 and 1"),
    "a margin of points": (["--margin", "7"], "margin is 7.0; expected a fraction between 0 and 1"),
    "a margin that is nan": (["--margin", "nan"], "margin is nan; expected a fraction between 0 and 1"),
    "a margin without end": (["--margin", "inf"], "margin is inf; expected a fraction between 0 and 1"),
    "a margin in percent": (["--margin", "2%"], "'2%' is not a valid float"),
    "a margin in words": (["--margin", "two"], "'two' is not a valid float"),
    "a margin that is missing": (["--margin"], "Option '--margin' requires an argument"),
    "no confidence": (["--confidence", "0"], "confidence is 0.0; expected a fraction from 0.5 to 1"),
    "certainty": (["--confidence", "1"], "confidence is 1.0; expected a fraction from 0.5 to 1"),
    "a confidence in percent": (
        ["--confidence", "95"],
        "confidence is 95.0; expected a fraction from 0.5 to 1",
    ),
    "a confidence that is nan": (["--confidence", "nan"], "confidence is nan; expected a fraction from 0.5"),
    "a confidence in words": (["--confidence", "high"], "'high' is not a valid float"),
    "cells of none": (["--smallest-group", "0"], "smallest_group is 0; expected 2 rows or more"),
    "cells of one": (["--smallest-group", "1"], "smallest_group is 1; expected 2 rows or more"),
    "cells below": (["--smallest-group", "-5"], "smallest_group is -5; expected 2 rows or more"),
    "cells of half": (["--smallest-group", "2.5"], "'2.5' is not a valid integer"),
    "cells larger than all": (
        ["--groups", "group,label", "--smallest-group", "1000000000"],
        "No group of group has 1000000000 rows",
    ),
    "no groups": (["--groups", ""], "groups is []; expected one column or several"),
    "commas for groups": (["--groups", ",,"], "groups is []; expected one column or several"),
    "a group twice": (["--groups", "group,group"], "expected one column or several, each once"),
    "a group that is not there": (
        ["--groups", "colour"],
        "before.csv has no column colour; it has id, label",
    ),
    "ids as groups": (["--groups", "id"], "expected one column or several"),
    "predictions as groups": (["--groups", "prediction"], "expected one column or several"),
    "scores as groups": (["--groups", "logit_x"], "groups names logit_x, which is a column of scores"),
    "one name": (["--names", "one"], "Option '--names' requires 2 arguments"),
    "another end": (["--decide-on", "middle"], "'middle' is not one of 'lower', 'estimate', 'upper'"),
    "an option that is none": (["--colour", "red"], "No such option '--colour'"),
    "a word too many": (["more"], "more is no file; expected predictions as CSV or Parquet"),
    "a model beside files": (["--model", "x.onnx"], "--model was given beside --predictions"),
    "a treatment beside files": (["--treatment", "int4"], "--treatment was given beside --predictions"),
    "images beside files": (["--dataset", "moths"], "--dataset was given beside --predictions"),
} | {
    f"the gate {gate!r}": (["--fail-if", gate], said)
    for gate, said in {
        "": "The gate '' cannot be read; expected QUANTITY > FRACTION",
        "worst_group_drop": "cannot be read; expected QUANTITY > FRACTION",
        "worst_group_drop >": "cannot be read; expected QUANTITY > FRACTION",
        "worst_group_drop < 0.02": "has the sign <; expected > or >=",
        "worst_group_drop = 0.02": "has the sign =; expected > or >=",
        "worst_group_drop > 7": "expected",
        "worst_group_drop > nan": "ends in 'nan'; expected a fraction, such as 0.03 or 3%",
        "worst_group_drop > inf": "ends in 'inf'; expected a fraction, such as 0.03 or 3%",
        "worst_group_drop > 1.2.3": "expected",
        "worst_group_drop > .": "expected",
        "worst_group_drop > --1": "ends in '--1'; expected a fraction, such as 0.03 or 3%",
        "accuracy > 0.02": "cannot be read; expected QUANTITY > FRACTION",
        "group_drop > 0.02": "expected",
        "group_drop[] > 0.02": "expected",
        "group_drop[oak] > 0.02": "names no group of this audit; expected one of: ash, elm",
        "overall_drop[ash] > 0.02": "expected",
        "__import__('os').system('touch ran') > 0": "cannot be read; expected QUANTITY > FRACTION",
        "group_drop[__import__('os').system('touch ran')] > 0": "names no group of this audit",
        "{{7*7}} > 0": "cannot be read; expected QUANTITY > FRACTION",
        "\x1b[2J > 0": "cannot be read; expected QUANTITY > FRACTION",
        "a\nb > 0": "cannot be read; expected QUANTITY > FRACTION",
    }.items()
}


@pytest.mark.usefixtures("light")
@pytest.mark.parametrize("case", OPTIONS)
def test_an_option_that_makes_no_sense_is_refused(place, case):
    options, said = OPTIONS[case]
    before = everything(place)
    is_one_sentence(audit("before.csv", "after.csv", *options), said)
    assert everything(place) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["audit"], "Missing option '-o' / '--out'"),
        (["audit", "--out", "out"], "expected one model and --treatment, two models without it, or --pred"),
        (["audit", "--predictions", "before.csv"], "Option '--predictions' requires 2 arguments"),
        (["audit", "--predictions", "before.csv", "after.csv"], "Missing option '-o' / '--out'"),
        (["adit"], "No such command 'adit'"),
        (["--colour"], "No such option '--colour'"),
        (["audit", "--out"], "Option '--out' requires an argument"),
        (["results", "erase"], "No such command 'erase'"),
        (["results", "write"], "Missing argument 'SETTING...'"),
        (["run"], "Missing argument 'CHAPTER'"),
        (["data"], "Missing argument"),
        (["export"], "Missing option '-o' / '--out'"),
        (["where", "here"], "Got unexpected extra argument (here)"),
    ],
)
def test_half_a_command_is_refused(place, arguments, said):
    before = everything(place)
    is_one_sentence(fairq(*arguments), said)
    assert everything(place) == before


# Where the report is to go, what lies there, and what is said.
PLACES: dict[str, tuple[str, dict[str, str | Callable[[Path], object]], str]] = {
    "nowhere": ("", {}, "is the folder that you work in, or holds it; expected a folder of its own"),
    "here": (".", {}, "is the folder that you work in, or holds it; expected a folder of its own"),
    "above": ("..", {}, "is the folder that you work in, or holds it; expected a folder of its own"),
    "the root": ("/", {}, "is the folder that you work in, or holds it; expected a folder of its own"),
    "a disk": ("/proc", {}, "is where a disk is mounted; expected a folder inside it"),
    "within a disk of none": ("/proc/x", {}, "cannot be written (No such file or directory)"),
    "a device": ("/dev/null", {}, "cannot be written (Not a directory)"),
    "a file": ("mine", {"mine": "mine"}, "cannot be written (Not a directory)"),
    "within a file": ("mine/out", {"mine": "mine"}, "cannot be written (Not a directory)"),
    "one of the tables": ("before.csv", {}, "cannot be written (Not a directory)"),
    "a folder of others": (
        "mine",
        {"mine/notes.md": "mine"},
        "holds 'notes.md', which is no part of an audit",
    ),
    "a table of others": ("mine", {"mine/groups.csv": "mine"}, "holds 'groups.csv', which is no part of an"),
    "an audit of others": (
        "mine",
        {"mine/audit.json": "{}", "mine/gates.csv": "mine"},
        "which is no part of an audit; expected a new or an empty folder",
    ),
    "a hidden file": ("mine", {"mine/.keep": ""}, "holds '.keep', which is no part of an audit"),
    "a folder in it": ("mine", {"mine/groups.csv": Path.mkdir}, "holds 'groups.csv', which is no part of an"),
    "a link in it": (
        "mine",
        {"mine/report.html": lambda path: path.symlink_to("/etc/passwd")},
        "holds 'report.html', which is no part of an audit",
    ),
    "a circle": ("loop", {"loop": lambda path: path.symlink_to("loop")}, "cannot be written (it leads in a"),
    "a name that is too long": ("x" * 300, {}, "cannot be written (File name too long)"),
    "a path that is too long": ("y/" * 3000, {}, "cannot be written (File name too long)"),
    "a pipe": ("pipe", {"pipe": os.mkfifo}, "cannot be written (Not a directory)"),
}


@pytest.mark.usefixtures("light")
@pytest.mark.parametrize("case", PLACES)
def test_a_place_for_the_report_that_is_none_is_refused_and_left(place, case):
    out, there, said = PLACES[case]
    for name, content in there.items():
        Path(name).parent.mkdir(exist_ok=True)
        put(name, content)
    before = everything(place)
    is_one_sentence(fairq("audit", "--predictions", "before.csv", "after.csv", "--out", out), said)
    assert everything(place) == before


@pytest.mark.parametrize("command", [main.main, audit_cli.main])
def test_a_full_disk_leaves_the_earlier_audit_whole_with_its_predictions(place, monkeypatch, command):
    found = auditing.audit("before.csv", "after.csv")
    found.write("out", {"before": rows(), "after": rows()})
    before = everything(place)
    synced, whole = [], os.fsync

    def full(handle: int) -> None:
        synced.append(handle)
        if len(synced) == 5:
            raise OSError(28, os.strerror(28))
        whole(handle)

    monkeypatch.setattr(os, "fsync", full)
    Path("after.csv").write_text(text(prediction="dog"))
    given = ["audit"] * (command is main.main) + ["--predictions", "before.csv", "after.csv", "--out", "out"]
    is_one_sentence(CliRunner().invoke(command, given), "out cannot be written (No space left on device)")
    assert everything(place) == before | {"after.csv": text(prediction="dog").encode()}
    synced.clear()
    with pytest.raises(ValueError, match="No space left on device"):
        found.write("out", {"before": rows(), "after": rows()})
    assert everything(place / "out") == {
        name.removeprefix("out/"): content for name, content in before.items() if name.startswith("out/")
    }


# -- names --------------------------------------------------------------------------------------------

NAMES = {
    "a script": "<script>document.title='ran'</script>",
    "an image": "<img src=x onerror=alert(1)>",
    "the end of a script": "</script><script>alert(1)</script>",
    "an attribute": '" onmouseover="alert(1)" x=\'',
    "a template": "{{ 7*7 }}{% for x in y %}",
    "a format": "{0.__class__} %s %(x)s ${x}",
    "a formula": "=cmd|' /C calc'!A0",
    "another formula": "@SUM(1+1)*cmd",
    "a sign": "+1+1",
    "a path": "../../etc/passwd",
    "a command": "$(touch ran) `touch ran`; touch ran",
    "a colour of a terminal": "\x1b[31mred\x1b[2J",
    "a bell": "a\x07b\x08c\x7f",
    "right to left": "abc\u202egpj.exe",
    "an invisible one": "a\u200bb\u2060c",
    "lines": "a\nHarm shown.\nb",
    "a carriage return": "a\rPassed.",
    "a link of Markdown": "[x](javascript:alert(1)) ![x](y) `code` **b** | c |",
    "an entity": "&lt;b&gt; &amp; &#x27;",
    "emoji and accents": "\U0001f9d1\U0001f3fe\u200d\U0001f680 na\xefve caf\u0065\u0301",
    "a long one": "x" * 5000,
    "a quote": 'it\'s "so"',
    "commas": "a,b;c\td",
    "a number": "1e309",
    "a word of pandas": "NA",
    "a word of Python": "None",
    "a multiplication sign": "ash x elm",
    "a crowd of accents": "e" + "\u0301" * 200,
}


@pytest.mark.usefixtures("light")
@pytest.mark.parametrize("case", NAMES)
def test_a_name_that_means_harm_stays_a_name(place, case):
    name = NAMES[case]
    table = rows(id=[f"{name}{n}" for n in range(ROWS)]).replace({"group": {"elm": name}})
    table["label"] = table["label"].replace("dog", name)
    column = "group" if "," in name else name  # between columns stands a comma
    table = table.rename(columns={"group": column})
    quoted = {"index": False, "quoting": csv.QUOTE_ALL}
    table.assign(prediction=table["label"]).to_csv("before.csv", **quoted)
    table.assign(prediction="cat")[["id", "prediction"]].to_csv("after.csv", **quoted)
    done = audit("before.csv", "after.csv", f"--groups={column}", "--names", name, "after")
    assert done.exit_code == 0, done.output
    assert "Traceback" not in done.output
    assert all(line.isprintable() for line in done.stdout.splitlines())
    assert not any(line.startswith(("Passed", "Harm shown")) for line in done.stdout.splitlines()[1:])
    page = Path("out/report.html").read_text(encoding="utf-8")
    assert page.count("<script") == page.count("</script>")
    for part in ("<img src=x", "alert(1)</script>", "<script>document.title", '" onmouseover="'):
        assert part not in re.sub(r'<script type="application/json"[^>]*>.*?</script>', "", page, flags=re.S)
    card = Path("out/model_card.md").read_text(encoding="utf-8")
    assert card.count("\n") == 1
    assert not re.search(r"(?<!\\)<(script|img)", card)
    for table_file in Path("out").glob("*.csv"):
        for cell in pd.read_csv(table_file, dtype=str, keep_default_na=False).to_numpy().ravel():
            number = re.fullmatch(r"-?[0-9.]+(e-?[0-9]+)?", cell)
            assert number or not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    record = json.loads(Path("out/audit.json").read_text(encoding="utf-8"))
    assert record["compared"]["before"]["name"] == name
    assert sorted(record["compared"]["classes"]) == sorted({"cat", name})
    assert not (place / "ran").exists()


@pytest.mark.usefixtures("light")
@pytest.mark.parametrize(
    "name", ["<b>.csv", "a b.csv", "=1+1.csv", "\u202e.csv", "b\udcff.csv", "'.csv", "a\nb.csv"]
)
def test_a_file_may_be_called_anything(name):
    Path("before.csv").rename(name)
    done = audit(name, "after.csv")
    assert done.exit_code == 0, done.output
    assert json.loads(Path("out/audit.json").read_text(encoding="utf-8"))["compared"]["n"] == ROWS


# -- data and what is packed --------------------------------------------------------------------------


def picture(width: int = 20, height: int = 20) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "teal").save(buffer, "PNG")
    return buffer.getvalue()


def header_of(width: int, height: int) -> bytes:
    """A PNG that says it is so large, and is not."""
    size = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\0\0\0"
    crc = zlib.crc32(b"IHDR" + size).to_bytes(4, "big")
    return b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + size + crc + picture()[33:]


# As in UTKFace: age, gender, race.
FACE = "25_0_1_20170116174525125.jpg.chip.jpg"


def zipped(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def among_faces(content: bytes) -> bytes:
    """A zip of pictures of nobody, one of which is something else."""
    good = {f"{20 + n}_{n % 2}_1_{n:017}.jpg.chip.jpg": picture(20 + n) for n in range(20)}
    return zipped(**good | {FACE: content})


def tarred(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = kind, link
        content = picture() if kind == tarfile.REGTYPE else b""
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


PACKED: dict[str, tuple[str, bytes | str | Callable[[Path], object] | None, str]] = {
    "nothing there": ("faces", None, "There is nothing at 'faces'; expected a folder, or a .zip"),
    "an empty folder": ("faces", Path.mkdir, "faces"),
    "a text": ("faces.txt", "text", "'faces.txt' is no archive; expected a folder, or a .zip, .tar"),
    "a pipe": ("faces", os.mkfifo, "'faces' is no archive"),
    "a pipe that is called a zip": ("faces.zip", b"", "'faces.zip' cannot be read"),
    "a circle": ("faces", lambda path: path.symlink_to("faces"), "There is nothing at 'faces'"),
    "an empty zip": ("faces.zip", b"", "'faces.zip' cannot be read"),
    "a zip that is none": ("faces.zip", b"PK\x03\x04 no zip", "'faces.zip' cannot be read"),
    "a zip cut short": ("faces.zip", zipped(**{FACE: picture()})[:-30], "'faces.zip' cannot be read"),
    "a tar that is none": ("faces.tar", b"no tar" * 200, "'faces.tar' cannot be read"),
    "a gzip that is none": ("faces.tar.gz", b"no gzip", "'faces.tar.gz' cannot be read"),
    "a gzip cut short": ("faces.tgz", tarred(FACE, mode="w:gz")[:-20], "'faces.tgz' cannot be read"),
    "a zip that climbs": ("faces.zip", zipped(**{f"../{FACE}": picture()}), "leads out of 'faces.zip'"),
    "a zip from the root": ("faces.zip", zipped(**{f"/etc/{FACE}": picture()}), "leads out of 'faces.zip'"),
    "a zip of Windows": ("faces.zip", zipped(**{f"C:/{FACE}": picture()}), "leads out of 'faces.zip'"),
    "a tar that climbs": ("faces.tar", tarred(f"a/../../{FACE}"), "leads out of 'faces.tar'"),
    "a tar from the root": ("faces.tar", tarred(f"/{FACE}"), "leads out of 'faces.tar'"),
    "a link in a tar": ("faces.tar", tarred(FACE, tarfile.SYMTYPE, "/etc/passwd"), "is a link"),
    "a hard link in a tar": ("faces.tar", tarred(FACE, tarfile.LNKTYPE, "/etc/passwd"), "is a link"),
    "a pipe in a tar": ("faces.tar", tarred(FACE, tarfile.FIFOTYPE), "is a link"),
    "a device in a tar": ("faces.tar", tarred(FACE, tarfile.CHRTYPE), "is a link"),
    "text for a picture": ("faces.zip", among_faces(b"text"), "cannot be shown (no image)"),
    "a script for a picture": ("faces.zip", among_faces(b"%!PS-Adobe-3.0 EPSF"), "cannot be shown"),
    "a picture cut short": ("faces.zip", among_faces(picture()[:-30]), "cannot be shown"),
    "a picture that fills the memory": (
        "faces.zip",
        among_faces(header_of(60_000, 60_000)),
        "could be decompression bomb",
    ),
    "a picture that says it has no size": ("faces.zip", among_faces(header_of(0, 0)), "cannot be shown"),
    "a file that fills the memory": (
        "faces.tar",
        lambda path: sparse(path, 300 * 2**20),
        "has 314,572,800 bytes; expected an image of at most 67,108,864",
    ),
    "pictures of nobody": ("faces.zip", zipped(**{"holiday.jpg": picture()}), "faces.zip"),
}


def sparse(path: Path, size: int) -> None:
    """A tar with a file of that size, of which the disk holds nothing."""
    entry = tarfile.TarInfo(FACE)
    entry.size = size
    with path.open("wb") as file:
        file.write(entry.tobuf())
        file.truncate(size + 2 * tarfile.BLOCKSIZE + tarfile.BLOCKSIZE)


@pytest.mark.parametrize("case", PACKED)
def test_data_that_are_none_are_refused_and_nothing_is_unpacked(place, case):
    name, content, said = PACKED[case]
    put(name, content)
    before = set(everything(place))
    is_one_sentence(fairq("data", "utkface", name), said)
    left = set(everything(place)) - before
    assert not [path for path in left if not path.startswith("store")]
    assert not [path for path in left if path.endswith((".safetensors", ".part"))]


# -- networks, chapters, results, the store -----------------------------------------------------------

SMALL = ["--train-images", "60", "--test-images", "60", "--seeds", "0", "--bits", "3"]
COMMANDS: dict[str, tuple[list[str], str]] = {
    "seeds without end": (["sweep", "--seeds", "0-99999999999"], "expected at most 1,000 numbers at once"),
    "more seeds without end": (["sweep", *["--seeds", "0-999,5000-9999"]], "expected at most 1,000 numbers"),
    "a range downwards": (["sweep", "--seeds", "5-3"], "seeds is '5-3'; expected a range upwards: 3-5."),
    "a seed twice": (["sweep", "--seeds", "0,0"], "seeds is [0, 0]; expected whole numbers, each once"),
    "no seeds": (["sweep", "--seeds", ""], "seeds is ''; expected whole numbers, such as 0-4"),
    "seeds in words": (["sweep", "--seeds", "some"], "seeds is 'some'; expected whole numbers"),
    "a seed of half": (["sweep", "--seeds", "0.5"], "seeds is '0.5'; expected whole numbers"),
    "a seed below": (["sweep", "--seeds", "-1"], "seeds is '-1'; expected whole numbers"),
    "a seed too large": (["sweep", "--seeds", "99999999999"], "expected a whole number from 0 to 4294967295"),
    "a seed of many digits": (["sweep", "--seeds", "9" * 5000], "expected whole numbers, such as 0-4"),
    "widths without end": (["sweep", "--bits", "2-99999999999"], "bits is '2-99999999999'; expected at most"),
    "widths downwards": (["sweep", "--bits", "8-3"], "bits is '8-3'; expected a range upwards: 3-8."),
    "a width of one": (["sweep", "--bits", "1"], "bits is 1; expected a whole number from 2 to 16"),
    "a width of many": (["sweep", "--bits", "64"], "bits is 64; expected a whole number from 2 to 16"),
    "endless training": (["sweep", "--epochs", "1e308"], "epochs is 1e+308; expected at most 10,000 passes"),
    "training without end": (["sweep", "--epochs", "inf"], "epochs is inf; expected a number above 0"),
    "training that is nan": (["sweep", "--epochs", "nan"], "epochs is nan; expected a number above 0"),
    "training backwards": (["sweep", "--epochs", "-1"], "epochs is -1.0; expected a number above 0"),
    "endless tuning": (["sweep", "--tuning-epochs", "99999"], "epochs is 99999; expected at most 10,000"),
    "a rate that is nan": (["sweep", "--learning-rate", "nan"], "learning_rate is nan; expected"),
    "a rate below": (["sweep", "--learning-rate", "-1"], "learning_rate is -1.0; expected"),
    "workers below": (["sweep", "--workers", "-1"], "'--workers': -1 is not in the range 0<=x"),
    "workers without end": (["sweep", "--workers", "100000"], "'--workers': 100000 is not in the range 0<=x"),
    "workers in words": (["sweep", "--workers", "all"], "'all' is not a valid integer"),
    "a scheduler that is none": (["sweep", "--scheduler", "garbage"], "scheduler is 'garbage', where"),
    "a scheduler of no port": (["sweep", "--scheduler", "tcp://127.0.0.1:x"], "where nothing answers as one"),
    "a scheduler of another kind": (["sweep", "--scheduler", "http://127.0.0.1:9"], "where nothing answers"),
    "a scheduler without certificate": (
        ["sweep", "--scheduler", "tls://127.0.0.1:9"],
        "where nothing answers",
    ),
    "a scheduler and workers": (["sweep", "--scheduler", "x:1", "--workers", "2"], "expected one of the two"),
    "a network that is none": (["sweep", "--arch", "resnet999"], "arch is 'resnet999'; expected one of"),
    "a network of no channels": (["sweep", "--arch", "resnet18-0"], "arch is 'resnet18-0'; expected"),
    "a network of many channels": (["sweep", "--arch", "resnet18-99999999"], "resnet18-99999999"),
    "a network that is a path": (["sweep", "--arch", "../../x"], "arch is '../../x'; expected one of"),
    "weights that are none": (["sweep", *SMALL, "--weights", "coco"], "weights is 'coco'; expected"),
    "images too small": (["sweep", "--image-size", "1"], "image_size is 1; expected a whole number from 16"),
    "images too large": (["sweep", "--image-size", "99999"], "image_size is 99999; expected a whole number"),
    "images of half": (["sweep", "--image-size", "32.5"], "'32.5' is not a valid integer"),
    "too few images": (["sweep", "--train-images", "1"], "train_images is 1; expected a whole number from 5"),
    "images below": (["sweep", "--test-images", "-5"], "test_images is -5; expected a whole number from 5"),
    "images without end": (["sweep", "--train-images", "99999999999"], "expected a whole number from 5 to"),
    "data that are none": (["sweep", "--dataset", "cats"], "dataset is 'cats'; expected one of: moths"),
    "data without a place": (
        ["sweep", "--dataset", "utkface"],
        "root is None; expected the path of your copy of utkface",
    ),
    "data at no place": (["sweep", "--dataset", "utkface", "--root", "gone"], "There is nothing at 'gone'"),
    "a place for what is drawn": (
        ["sweep", "--root", "gone"],
        "root is 'gone'; expected none, for moths are",
    ),
    "a label that is none": (
        ["sweep", "--label", "colour"],
        "label is 'colour'; expected, for moths, one of",
    ),
    "a group that is none": (
        ["sweep", "--group", "colour"],
        "group is 'colour'; expected, for moths, one of",
    ),
    "a treatment that is none": (["sweep", "--treatments", "int4-magic"], "magic"),
    "a treatment of no width": (["sweep", "--treatments", "int"], "int"),
    "a treatment that is code": (
        ["sweep", "--treatments", "__import__('os').system('touch ran')"],
        "__import__",
    ),
    "a setting that is none": (["sweep", "nobody"], "setting is 'nobody'; expected one of: "),
    "a setting that is a path": (["sweep", "../x"], "setting is '../x'; expected one of: "),
    "a setting and more": (
        ["sweep", "utkface_small", "--arch", "vit"],
        "--arch was given beside utkface_small",
    ),
    "seeds of no setting": (
        ["sweep", "utkface_small", "--seeds", "999"],
        "expected some of those of utkface_s",
    ),
    "tables of nothing": (["export", *SMALL, "--out", "tables"], "2 of 2 predictions are not in"),
    "tables of no form": (
        ["export", *SMALL, "--out", "tables", "--format", "xml"],
        "'xml' is not one of 'csv', 'parquet'",
    ),
    "pilots that decide": (["calibrate", "--seeds", "0-3"], "expected those of pilots, from 900 on"),
    "pilots without workers": (["calibrate", "--workers", "0"], "0 is not in the range 1<=x"),
    "pilots without end": (["calibrate", "--rounds", "99999999"], "is not in the range 1<=x<=100"),
    "pilots of nothing": (["calibrate", "cats"], "moths is 'cats'; expected some of: moths"),
    "a data set that is none": (["data", "cats"], "'cats' is not one of 'moths'"),
    "a fold that is none": (
        ["data", "utkface", "x.zip", "--fold", "9"],
        "fold is 9; expected a whole number",
    ),
    "a fold of moths": (["data", "moths", "--fold", "2"], "expected none, for moths are drawn"),
    "a draw of faces": (
        ["data", "utkface", "x.zip", "--draw", "2"],
        "expected none, for utkface is not drawn",
    ),
    "a draw without end": (
        ["data", "moths", "--draw", "9" * 30],
        "expected a whole number from 0 to 4294967295",
    ),
    "a way to split that is gone": (["data", "moths", "--split-seed", "1"], "expected none any more: fold"),
    "a chapter that is none": (["run", "77"], "chapter is '77'; expected one of: 01_disparity_baseline"),
    "a chapter that is a path": (
        ["run", "../../etc/passwd"],
        "chapter is '../../etc/passwd'; expected one of",
    ),
    "a chapter of no name": (["run", ""], "chapter is ''; expected one of"),
    "a parameter of no value": (
        ["run", "01", "-p", "seeds"],
        "-p 'seeds' cannot be read; expected NAME=VALUE",
    ),
    "a parameter of no name": (["run", "01", "-p", "=3"], "-p '=3' cannot be read; expected NAME=VALUE"),
    "a parameter that is none": (
        ["run", "01", "-p", "colour=red"],
        "has no parameter 'colour'; expected one",
    ),
    "a parameter of another type": (["run", "01", "-p", "seeds=x"], "seeds is 'x'; expected list[int]"),
    "a day that is none": (["run", "01", "-p", "seeds=2020-13-45"], "cannot be read; expected NAME=VALUE"),
    "a number that is none": (["run", "01", "-p", "seeds=0x_"], "cannot be read; expected NAME=VALUE"),
    "a number of many digits": (
        ["run", "01", "-p", "epochs=" + "9" * 5000],
        "cannot be read; expected NAME=",
    ),
    "brackets without end": (
        ["run", "01", "-p", "seeds=" + "[" * 5000],
        "cannot be read; expected NAME=VALUE",
    ),
    "a list in itself": (
        ["run", "01", "-p", "seeds=&a [*a]"],
        "; expected list[int], such as [0, 1, 2, 3, 4]",
    ),
    "a list that explodes": (
        [
            "run",
            "01",
            "-p",
            f"seeds=[&a [1,1],{','.join(f'&{b} [*{a},*{a}]' for a, b in pairwise(ascii_lowercase))}]",
        ],
        "expected list[int], such as [0, 1, 2, 3, 4]",
    ),
    "a tag that runs": (
        ["run", "01", "-p", "root=!!python/object/apply:os.system ['touch ran']"],
        "cannot be",
    ),
    "an alias of nothing": (["run", "01", "-p", "seeds=*x"], "cannot be read; expected NAME=VALUE"),
    "a setting of no name": (["run", "01", "-p", "setting=nobody"], "setting is 'nobody'; expected one of"),
    "a book of no profile": (
        ["book", "--profile", "desktop"],
        "profile is 'desktop'; expected one of: laptop",
    ),
    "a profile that climbs": (
        ["book", "--profile", "../../x"],
        "profile is '../../x'; expected one of: laptop",
    ),
    "a profile that is not there": (
        ["book", "--profile", "gone.yml"],
        "profile is 'gone.yml'; expected one of",
    ),
    "a book of no workers": (["book", "--workers", "0"], "'--workers': 0 is not in the range 1<=x"),
    "a book of too many": (["book", "--workers", "100000"], "'--workers': 100000 is not in the range 1<=x"),
    "a port below": (["serve", "--port", "-1"], "'--port': -1 is not in the range 1<=x<=65535"),
    "a port beyond": (["serve", "--port", "99999"], "'--port': 99999 is not in the range 1<=x<=65535"),
    "a port of nothing": (["serve", "--port", "0"], "'--port': 0 is not in the range 1<=x<=65535"),
    "a port in words": (["serve", "--port", "http"], "'http' is not a valid integer"),
    "no simulations": (["simulate", "--studies", "0"], "'--studies': 0 is not in the range 1<=x"),
    "simulations without end": (["simulate", "--studies", "9" * 20], "is not in the range 1<=x"),
    "simulations of a seed below": (["simulate", "--seed", "-1"], "'--seed': -1 is not in the range 0<=x"),
    "nothing to verify": (
        ["results", "verify", "utkface_small", "--networks", "0"],
        "0 is not in the range x>=1",
    ),
    "less to verify": (
        ["results", "verify", "utkface_small", "--networks", "-3"],
        "-3 is not in the range x>=1",
    ),
    "results of no setting": (["results", "write", "nobody"], "setting is 'nobody'; expected one of"),
    "results of no seed": (
        ["results", "write", "utkface_small", "--seeds", "9-3"],
        "expected a range upwards: 3-9",
    ),
    "measures of no workers": (
        ["results", "measure", "nobody", "--workers", "-2"],
        "-2 is not in the range 0<=x",
    ),
    "a model that is none": (["audit", "--model", "x", "--treatment", "int4", "-o", "out"], "x"),
    "a factory of no module": (
        ["audit", "--model", "no_such:f", "--treatment", "int4", "-o", "out"],
        "no_such",
    ),
    "an argument of no value": (
        ["audit", "--model", "no_such:f", "--treatment", "int4", "-a", "num_classes", "-o", "out"],
        "-a 'num_classes' cannot be read; expected NAME=VALUE, such as num_classes=9.",
    ),
    "a mean in words": (
        ["audit", "--model", "no_such:f", "--treatment", "int4", "--mean", "dark", "-o", "out"],
        "mean is 'dark'; expected numbers",
    ),
    "three models": (
        ["audit", "--model", "a", "--model", "b", "--model", "c", "-o", "out"],
        "--model was given 3 times, without --treatment",
    ),
}


@pytest.mark.parametrize("case", COMMANDS)
def test_a_command_that_makes_no_sense_is_refused(place, monkeypatch, case):
    monkeypatch.setattr("papermill.execute_notebook", lambda *_, **__: pytest.fail("a kernel was started"))
    arguments, said = COMMANDS[case]
    before = everything(place)
    is_one_sentence(fairq(*arguments), said)
    after = everything(place)
    assert {name: content for name, content in after.items() if not name.startswith("store")} == before


@pytest.mark.parametrize("asked", ["-2", "100000", "2.5", "all", "\u00b2"])
def test_workers_of_the_environment_that_are_none_are_refused(place, monkeypatch, asked):
    from fairq_book.experiments.scheduling import Job, make
    from fairq_book.experiments.store import Store

    monkeypatch.setenv("FAIRQ_WORKERS", asked)
    job = Job(kind="datasets", identity={"name": "x"}, function=len)
    with pytest.raises(BadInput, match=r"FAIRQ_WORKERS is .*; expected a number of processes from 0 to"):
        make([job], store=Store(place / "store"))


@pytest.mark.parametrize("workers", [-1, 100_000])
def test_a_cluster_of_no_size_is_refused(workers):
    from fairq_book.experiments import scheduling

    with (
        pytest.raises(BadInput, match=f"workers is {workers}; expected a number of processes from 0 to"),
        scheduling.cluster(workers=workers),
    ):
        pass


def test_what_is_no_scheduler_but_answers_is_refused_soon():
    """A server that takes what it is told and says nothing: whoever waits for it waits for ever."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        before = time.monotonic()
        is_one_sentence(fairq("sweep", *SMALL, "--scheduler", address), "where nothing answers as one")
    assert time.monotonic() - before < 20


OUTS = {
    "a file": ("mine", "cannot be written (Not a directory)"),
    "within a file": ("mine/out", "cannot be written (Not a directory)"),
    "a device": ("/dev/null", "cannot be written (Not a directory)"),
    "a name that is too long": ("x" * 300, "cannot be written (File name too long)"),
    "a circle": ("loop", "cannot be written (it leads in a circle)"),
    "within a disk of none": ("/proc/x", "cannot be written (No such file or directory)"),
}


@pytest.mark.parametrize("case", OUTS)
def test_a_place_for_a_run_that_is_none_is_refused_before_it_runs(place, monkeypatch, case):
    monkeypatch.setattr("papermill.execute_notebook", lambda *_, **__: pytest.fail("a kernel was started"))
    out, said = OUTS[case]
    Path("mine").write_text("mine")
    Path("loop").symlink_to("loop")
    before = everything(place)
    is_one_sentence(fairq("run", "01", "-p", "seeds=[0]", "-o", out), said)
    assert everything(place) == before


STORES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a file": (lambda path: path.write_text("mine"), "cannot be read (Not a directory)"),
    "a pipe": (os.mkfifo, "cannot be read (Not a directory)"),
    "a device": (lambda path: path.symlink_to("/dev/null"), "cannot be read (Not a directory)"),
    "a circle": (
        lambda path: path.symlink_to(path.name),
        "cannot be read (Too many levels of symbolic links)",
    ),
}


@pytest.mark.parametrize("command", ["status", "prune"])
@pytest.mark.parametrize("case", STORES)
def test_a_store_that_is_none_is_refused(place, case, command):
    make, said = STORES[case]
    make(place / "store")
    before = everything(place)
    is_one_sentence(fairq(command), said)
    assert everything(place) == before


STRANGE: dict[str, bytes | str | Callable[[Path], object]] = {
    "networks/x.safetensors": Path.mkdir,
    f"networks/x-{'0' * 16}.safetensors": Path.mkdir,
    f"networks/y-{'0' * 16}.safetensors": lambda path: path.symlink_to("nowhere"),
    f"networks/z-{'0' * 16}.safetensors": os.mkfifo,
    f"networks/w-{'0' * 16}.safetensors": (2**62).to_bytes(8, "little") + b"{}",
    f"networks/v-{'0' * 16}.safetensors": (8).to_bytes(8, "little") + b'{"a":[1]',
    f"networks/u-{'0' * 16}.safetensors": (5000).to_bytes(8, "little") + b"[" * 5000,
    f"networks/t-{'0' * 16}.safetensors": pickle.dumps(Evil()),
    "networks/loop": lambda path: path.symlink_to("loop"),
    "networks/\u202e.safetensors": b"",
    "networks/a\nb": b"",
    "locks/x": Path.mkdir,
    "elsewhere": lambda path: path.symlink_to("/"),
    ".ssh": Path.mkdir,
    "thesis.txt": b"mine",
}


@pytest.mark.parametrize("case", STRANGE)
def test_what_is_strange_in_a_store_stops_neither_status_nor_prune(place, case):
    from fairq_book.experiments.store import Store

    root = place / "store"
    root.mkdir()
    Store(root).adopt()
    (root / case).parent.mkdir(exist_ok=True)
    put(f"store/{case}", STRANGE[case])
    before = everything(place)
    for command in (["status"], ["prune", "--dry-run"], ["prune"]):
        done = fairq(*command)
        assert done.exit_code == 0, done.output
        assert done.stderr == ""
        assert all(line.isprintable() for line in done.stdout.splitlines())
    gone = before.keys() - everything(place).keys()
    assert gone <= {f"store/{case}"}
    assert not gone or re.search("-0{16}[.]safetensors$", case)
    assert not (place / "ran").exists()


# -- models -------------------------------------------------------------------------------------------

MODELS: dict[str, tuple[str, bytes | str | Callable[[Path], object] | None]] = {
    "an empty ONNX file": ("x.onnx", b""),
    "an ONNX file that is none": ("x.onnx", b"no graph"),
    "an ONNX file that is a folder": ("x.onnx", Path.mkdir),
    "an ONNX file that is not there": ("x.onnx", None),
    "an ONNX file of zeros": ("x.onnx", b"\0" * 4096),
    "a pickle that is called ONNX": ("x.onnx", pickle.dumps(Evil())),
    "a folder of nothing": ("x", Path.mkdir),
    "a pickle that is called a program": ("x.pkl", pickle.dumps(Evil())),
    "a file of no kind": ("x.bin", b"\0" * 99),
    "a path that climbs": ("../../x.onnx", None),
    "an address": ("https://127.0.0.1:9/x.onnx", None),
    "a name of a hub": ("google/vit-base-patch16-224", None),
    "a device": ("/dev/zero", None),
}


@pytest.mark.parametrize("case", MODELS)
def test_a_model_that_is_none_is_refused_and_nothing_of_it_runs(place, case):
    name, content = MODELS[case]
    put(name, content)
    before = everything(place)
    done = fairq("audit", "--model", name, "--treatment", "int4", "--out", "out")
    is_one_sentence(done, Path(name).name)
    after = everything(place)
    assert {own: content for own, content in after.items() if not own.startswith("store")} == before
