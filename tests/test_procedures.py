"""How the verdicts are reached: the tables are what the command writes, and they keep the promise."""

import math

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from fairq_book.cli.main import main
from fairq_book.pages import audit_procedures, procedures
from fairq_book.root import book_root

PAGE = book_root() / "book" / "procedures.md"
SHOWN = {name: pd.read_csv(PAGE.parent / "procedures" / f"{name}.csv") for name in ("wrong", "found")}
SKEWED = "no change; networks scatter to one side"
STUDIES = 60


@pytest.fixture(scope="module")
def anew(tmp_path_factory):
    folder = tmp_path_factory.mktemp("procedures")
    given = ["simulate", "--studies", str(STUDIES), "--seed", "7", "--out", str(folder)]
    done = CliRunner().invoke(main, given, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return {name: pd.read_csv(folder / f"{name}.csv") for name in SHOWN}


@pytest.mark.parametrize("name", SHOWN)
def test_the_command_gives_the_committed_numbers(anew, name):
    words, shares = SHOWN[name].columns[:3], SHOWN[name].columns[3:]
    pd.testing.assert_frame_equal(anew[name][words], SHOWN[name][words])
    assert list(shares) == [f"{networks} networks, %" for networks in procedures.NETWORKS]
    for row, other in zip(SHOWN[name].to_dict("records"), anew[name].to_dict("records"), strict=True):
        for column in shares:
            studies = STUDIES / (4 if "page" in row["question"] else 1)
            share = min(max(row[column] / 100, 0.01), 0.99)
            apart = 100 * 4.5 * math.sqrt(share * (1 - share) / studies) + 1
            assert abs(row[column] - other[column]) < apart, (row, other)


def test_false_alarms_are_as_rare_as_promised():
    for row in SHOWN["wrong"].to_dict("records"):
        allowed = 8 if row["truth"] == SKEWED else 6
        assert max(row[f"{networks} networks, %"] for networks in procedures.NETWORKS) <= allowed, row
    assert SKEWED in set(SHOWN["wrong"]["truth"])


def test_more_networks_find_more():
    for row in SHOWN["found"].to_dict("records"):
        found = [row[f"{networks} networks, %"] for networks in procedures.NETWORKS]
        assert found == sorted(found, reverse=True), row
        assert found[0] > 50, row


CALM, BEYOND, HARMED = (
    pd.read_csv(PAGE.parent / "procedures" / f"audits_{truth}.csv", index_col="asked")
    for truth in ("calm", "beyond", "harmed")
)
TOLD = [world.title for world in audit_procedures.WORLDS if not world.blind]
(BLIND,) = [world.title for world in audit_procedures.WORLDS if world.blind]


def test_an_audit_errs_as_rarely_as_promised():
    assert list(CALM.index) == ["verdict", *audit_procedures.QUANTITIES]
    assert CALM[TOLD].to_numpy().max() <= 6
    assert list(BEYOND.index) == list(audit_procedures.QUANTITIES)
    assert BEYOND[TOLD].to_numpy().max() <= 6
    # Who is not told that frames belong together is wrong too often.
    assert CALM.loc["verdict", BLIND] > 8


def test_an_audit_finds_more_with_more_rows():
    assert (HARMED["10,000 rows"] >= HARMED["2,000 rows"]).all()
    assert HARMED.loc["verdict", "10,000 rows"] > 90


def test_the_audits_of_the_page_can_be_made_again():
    world = audit_procedures.WORLDS[0]
    limits = audit_procedures.truths(0.0)
    rng = np.random.default_rng(1)
    found = [audit_procedures.asked(world, 0.0, limits, rng) for _ in range(20)]
    assert sum(one["verdict"] == "harm shown" for one in found) <= 5
    assert set(found[0]) == {"verdict", *audit_procedures.QUANTITIES}


def test_the_page_shows_these_tables():
    shown = [line.split(": ")[1] for line in PAGE.read_text().splitlines() if line.startswith(":file:")]
    assert shown == [
        f"procedures/{name}.csv" for name in (*SHOWN, "audits_calm", "audits_beyond", "audits_harmed")
    ]
    assert "book/procedures" in (book_root() / "_toc.yml").read_text()


def test_no_studies_are_refused():
    done = CliRunner().invoke(main, ["simulate", "--studies", "0"])
    assert "Invalid value for '--studies': 0 is not in the range 1<=x<=1000000" in done.output
    assert done.exit_code != 0
