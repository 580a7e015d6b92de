"""Every room of `make bench` runs to its end, at a size at which its numbers say nothing."""

import importlib
import math
import sys
from pathlib import Path

import pytest

import benchmarks

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
