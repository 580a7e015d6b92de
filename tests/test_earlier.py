"""What was measured earlier, as it lies in book/earlier."""

import pandas as pd
import pytest
from scipy import stats

from fairq_book import registry
from fairq_book.chapters.disparity import tables
from fairq_book.kit import earlier
from fairq_book.kit import tables as kit_tables
from fairq_book.kit.measured import Measured
from fairq_utils.errors import BadInput
from tests.conftest import ROOT
from tests.test_verdicts import cells, untraced

EARLIER = earlier.every(root=ROOT)
NETWORKS = [name for name, own in EARLIER.items() if own.networks == own.seeds]


def test_the_papers_data_set_is_among_it():
    assert "utkface" in EARLIER


@pytest.mark.parametrize("name", NETWORKS)
def test_what_chapters_and_claims_draw_is_there(name):
    fewest = {"groups", "accuracy", "accuracy_by_seed", "change", "collapse", "variance_left", "choices"}
    assert fewest <= set(EARLIER[name].tables)
    assert EARLIER[name]["accuracy_by_seed"]["seed"].nunique() == EARLIER[name].seeds


def test_a_population_is_as_large_as_it_is_said_to_be_and_worth_quantizing():
    own = EARLIER["fairface_encoders"]
    assert own.networks >= 9
    assert own["accuracy_by_seed"]["model"].nunique() == 2 * own.networks
    rows = own["measures"].query("measure == 'accuracy' and group == 'OA' and treatment == 'fp32'")
    assert rows["value"].mean() > 0.7


def test_together_they_are_small():
    files = [path for path in earlier.earlier_folder(ROOT).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 5_000_000
    assert {path.suffix for path in files} <= {".csv", ".json"}


def test_no_name_of_a_file_and_no_place_on_a_disk_is_in_them():
    for path in earlier.earlier_folder(ROOT).rglob("*.csv"):
        text = path.read_text()
        assert ".jpg" not in text
        assert "/" not in text.replace("w/o", "")


def test_every_number_beside_a_verdict_stands_in_the_row_that_is_named():
    for names in (NETWORKS, EARLIER.keys() - NETWORKS):
        shown = {name: EARLIER[name] for name in EARLIER if name in names}
        strays, count = untraced(cells(shown), shown)
        assert strays == []
        assert count >= 10 * len(shown)


@pytest.mark.parametrize("key", ["A1", "A3", "A4", "A6", "Liu", "Tran"])
def test_what_is_decided_is_decided_by_a_number_that_is_shown(key):
    """A reader who is told that something stands sees an interval that leaves out the opposite."""
    no_effect = {"times": 1.0, "points": 0.0, "rank": 0.0}
    for name in NETWORKS:
        own, claim = EARLIER[name], registry.CLAIMS[key]
        if claim.asked_of(own) and claim.verdict(own).word in ("supported", "contradicted"):
            intervals = [(effect.numbers, no_effect[effect.form]) for effect in claim.show(own)]
            assert any(lower > none or upper < none for (_, lower, upper), none in intervals), name


def test_no_verdict_rests_on_a_single_seed():
    for own in EARLIER.values():
        words = {claim.verdict(own).word for claim in registry.CLAIMS.values() if claim.asked_of(own)}
        assert own.networks > 1 or words == {"undecided"}


def test_the_networks_on_utkface_are_as_good_as_those_of_others():
    """Belcar and others had 80.3 % on the same five names, with duplicates on both sides of their split."""
    rows = EARLIER["utkface"]["accuracy"].set_index(["treatment", "group"])
    assert rows.loc[("fp32", "OA"), "estimate"] >= 0.82


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_who_pays_is_what_scipy_finds_in_the_counts(name):
    own = EARLIER[name]
    counts = own["accuracy_by_seed"]
    shares = (counts["correct"] / counts["n"]).groupby([counts["treatment"], counts["seed"], counts["group"]])
    wide = shares.first().unstack()  # noqa: PD010
    found = tables.change_by_network(counts, own.majority).set_index(["treatment", "group"])
    for treatment in own["change"]["treatment"].unique():
        change = (wide.loc[treatment] - wide.loc["fp32"])[list(own.groups)]
        level = 1 - 0.05 / len(own.groups)
        for group in own.groups:
            low, high = stats.ttest_1samp(change[group], 0).confidence_interval(level)
            row = found.loc[treatment, group]
            assert (row["lower"], row["upper"]) == pytest.approx((low, high), nan_ok=True)
            assert row["fell"] == (change[group] < 0).sum()
        others = change.drop(columns=own.majority).mean(axis=1) - change[own.majority]
        low, high = stats.ttest_1samp(others, 0).confidence_interval(0.95)
        row = found.loc[treatment, kit_tables.CONTRAST]
        assert (row["lower"], row["upper"]) == pytest.approx((low, high), nan_ok=True)


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (
            lambda: earlier.load("faces"),
            "setting is 'faces'; expected one that was measured earlier",
        ),
        (lambda: earlier.load("utkface")["spectra"], "utkface has no table 'spectra'; expected one of: acc"),
        (lambda: earlier.said_of("utkface", "mood"), "'mood' is no field of utkface; expected one of: name,"),
    ],
)
def test_what_is_not_there_is_refused_in_one_sentence(ask, said):
    with pytest.raises(BadInput, match=said):
        ask()


@pytest.mark.parametrize(
    ("train", "expected"),
    [([9, 5, 2], ("A", "C", "A")), ([2, 9, 2], ("B", "C", "B")), ([4, 4, 4], ("A", "C", None))],
)
def test_between_whom_is_compared(train, expected):
    groups = pd.DataFrame({"group": ["A", "B", "C"], "train": train})
    own = Measured("few", "Few", {"groups": groups}, 1, 1, "", {})
    assert (own.ends.largest, own.ends.smallest, own.majority) == expected
