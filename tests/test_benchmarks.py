"""Every room of `make bench` runs to its end, at a size at which its numbers say nothing."""

import importlib
import math
import runpy
import sys
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import pytest

import benchmarks
from benchmarks import book, report

ROOMS = sorted(path.stem for path in Path(benchmarks.__file__).parent.glob("bench_*.py"))
TINY = 0.01


def rows_of(room: str) -> list[dict]:
    return list(importlib.import_module(f"benchmarks.{room}").cases(scale=TINY))


@pytest.mark.parametrize("room", ROOMS)
def test_each_room_runs_to_its_end(room):
    rows = rows_of(room)
    assert rows
    for row in rows:
        assert row.keys() == {"case", "measured", "unit", "limit", "peer", "note"}
        assert all(isinstance(row[name], str) for name in ("case", "unit", "peer", "note"))
        assert row["case"]
        assert row["limit"] is None or row["limit"] > 0
        assert row["measured"] > 0 or "is not installed" in row["note"]


@pytest.mark.parametrize(
    ("room", "modules", "name"),
    [
        ("bench_quantizers", ["brevitas", "brevitas.nn"], "brevitas"),
        ("bench_landscape", ["pyhessian"], "PyHessian"),
    ],
)
def test_a_peer_that_is_not_installed_is_named_and_the_rest_is_timed(monkeypatch, room, modules, name):
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)
    left_out = [row for row in rows_of(room) if math.isnan(row["measured"])]
    assert [row["note"] for row in left_out] == [f"{name} is not installed: make peers"]


def test_a_scale_makes_less_of_everything_and_nothing_vanishes():
    assert benchmarks.scaled(256, 1.0) == 256
    assert benchmarks.scaled(256, 0.5) == 128
    assert benchmarks.scaled(256, 0.001) == 1
    assert benchmarks.scaled(256, 0.001, least=5) == 5


ROW = {"case": "a | b", "measured": 3.0, "unit": "s", "limit": 2, "peer": "a stated limit", "note": ""}


def test_a_row_is_missed_only_beyond_its_limit():
    assert report.missed(ROW)
    assert not report.missed(ROW | {"limit": 3})
    assert not report.missed(ROW | {"limit": None})
    assert not report.missed(ROW | {"measured": math.nan})


def test_the_page_names_machine_and_date_and_has_a_line_for_each_row():
    page = report.as_markdown([ROW, ROW | {"case": "c", "measured": math.nan, "note": "x is not installed"}])
    about = page.splitlines()[2]
    assert about.startswith(date.today().isoformat())
    for part in (report.processor(), "cores", "Python 3.", "torch 2."):
        assert part in about
    first, second = page.splitlines()[-2:]
    assert first == "| a \\| b | 3 s (missed) | 2 | a stated limit |  |"
    assert second == "| c |  | 2 | a stated limit | x is not installed |"


@pytest.mark.parametrize(("arguments", "written"), [([], True), (["moths"], False)])
def test_only_a_full_run_leaves_the_page(monkeypatch, tmp_path, arguments, written):
    place = tmp_path / "__main__.py"
    place.write_text((Path(benchmarks.__file__).parent / "__main__.py").read_text())
    for room in ROOMS:
        (tmp_path / f"{room}.py").touch()
        monkeypatch.setitem(sys.modules, f"benchmarks.{room}", SimpleNamespace(cases=lambda: [ROW]))
    monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(place))
    assert ended.value.code  # a limit is missed
    assert (tmp_path / "RESULTS.md").exists() is written
    if written:
        assert (tmp_path / "RESULTS.md").read_text() == report.as_markdown([ROW] * len(ROOMS))


def test_the_book_as_a_whole_is_timed_in_a_clone(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(book, "seconds", lambda clone, *command: asked.append(command) or 90.0)
    (tmp_path / ".venv" / "torch").mkdir(parents=True)
    (tmp_path / ".venv" / "torch" / "large").write_bytes(b"0" * 200_000)
    (tmp_path / ".venv" / "small").write_bytes(b"0" * 100_000)
    rows = list(book.cases(tmp_path))
    assert [command[0].rpartition("/")[2] for command in asked] == ["make", "make", "fairq", "make"]
    assert [row["measured"] for row in rows if row["unit"] == "min"] == [1.5, 1.5]
    (beyond,) = [row["measured"] for row in rows if "beyond torch" in row["case"]]
    assert 0.1 <= beyond < 0.2
    assert all(row["limit"] for row in rows)


def test_what_fails_while_the_book_is_timed_ends_it(tmp_path):
    with pytest.raises(SystemExit, match="false failed with 1"):
        book.seconds(tmp_path, "false")
