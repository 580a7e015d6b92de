"""What is written on the page of registered questions is what the pilots give."""

import numpy as np
import pandas as pd
import pytest
import yaml
from pandas.testing import assert_frame_equal
from scipy import stats

from fairq_book.chapters.disparity.asks import BESIDE
from fairq_book.chapters.disparity.tables import KINDS_OF_MOTHS
from fairq_book.chapters.language import questions as languages
from fairq_book.chapters.language.kept import SEEDS
from fairq_book.experiments import settings
from fairq_book.experiments.seeds import PILOTS
from fairq_book.pages import registered
from fairq_book.root import book_root
from fairq_utils.metrics.by_network import TREND, WIDTHS
from fairq_utils.metrics.verdicts import MARGINS

PILOTS_TABLE = registered.folder() / "moths_pilots.csv"


@pytest.fixture(scope="module")
def pilots() -> pd.DataFrame:
    return pd.read_csv(PILOTS_TABLE)


def test_the_table_on_the_page_is_what_the_pilots_give(pilots):
    assert (pilots["seed"] >= PILOTS).all()
    shown = pd.read_csv(registered.folder() / "moths.csv")
    assert_frame_equal(shown, registered.scatter(pilots), check_exact=True)
    given = {one: MARGINS[int(one[3])] * 100 for one in ("int8", "int6", "int5", "int4", "int3")}
    for row in shown[shown["question"] == "M3"].itertuples():
        assert row.margin == given[row.of.split()[-1]]


def test_a_bound_is_that_of_two_one_sided_tests(pilots):
    share = pilots.assign(share=100 * pilots["correct"] / pilots["n"])
    own = share[share["dataset"] == "moths"].pivot_table(
        index="seed", columns=["treatment", "group"], values="share"
    )
    change = own["int4"] - own["fp32"]
    contrast = change[["Bracken", "Clover", "Damson", "Others"]].mean(axis=1) - change["Alder"]
    table = registered.scatter(pilots).set_index("of")
    row = table.loc["contrast at int4"]
    assert row["sd"] == pytest.approx(np.std(contrast, ddof=1), abs=0.05)
    reach = stats.t.interval(0.9, row["networks"] - 1, scale=contrast.std() / np.sqrt(row["networks"]))
    assert row["x"] == pytest.approx(reach[1], abs=0.05)


def test_the_page_says_what_the_code_does():
    page = (book_root() / "book" / "registered.md").read_text()
    assert f"at {', '.join(map(str, WIDTHS))[:-3]}, {WIDTHS[-1]} bits" in page
    said = [f"{weight:g}".replace("-", "−") for weight in TREND]
    assert f"times {', '.join(said)}" in page


def test_the_book_trains_the_seeds_that_were_registered():
    profile = yaml.safe_load((book_root() / "book" / "profiles" / "laptop.yml").read_text())
    for chapter in ("01_disparity_baseline", "02_logit_variance_collapse", "03_zero_bin_sparsity"):
        assert profile[chapter]["seeds"] == list(range(registered.NETWORKS))
    for chapter in ("04_hessian_landscape", "05_fairqat_mitigation"):
        assert profile[chapter]["seeds"] == list(range(8))
    assert "moth_seeds" not in profile["01_disparity_baseline"]  # so those of the settings
    shipped = settings.settings()
    for kind in KINDS_OF_MOTHS:
        assert shipped[kind.replace("-", "_")].seeds == list(range(100, 100 + registered.OF_A_KIND))
    assert shipped["moths_again"].seeds == list(range(100, 140))
    for name in BESIDE:
        assert min(shipped[name].seeds) == 100


def test_the_questions_on_languages_are_those_of_the_page_and_of_its_seeds():
    shown = pd.read_csv(registered.folder() / "language.csv").rename(columns={"Unnamed: 0": ""})
    assert_frame_equal(shown, registered.listed(languages.QUESTIONS), check_exact=True)
    page = (book_root() / "book" / "registered.md").read_text()
    first, *_, last = SEEDS
    assert f"Seeds {first} to {last}: one small decoder each" in page
