"""A claim in every way that it can be asked, and at each width: the numbers, the words, the switches."""

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from scipy import stats

from fairq_book.kit.by_network import MeasuredNetworks, load
from fairq_book.kit.interventions import OF_WIDTHS, Networks
from fairq_book.pages import claims
from fairq_book.pages.specifications import curve, specifications
from tests.conftest import ROOT

STYLE = (ROOT / "book" / "_static" / "fairq.css").read_text()


@pytest.fixture(scope="module")
def faces():
    return load("utkface_why")


def chosen(found, **wanted):
    (own,) = [one for one in found if wanted.items() <= one.choices.items()]
    return own


def test_each_way_is_a_mean_over_networks_with_students_interval(faces):
    found = specifications([faces])
    assert len(found) == 5 * 4 * 2 * 2 * 2  # widths, ranges, scales, statistics, measures
    assert [one.estimate for one in found] == sorted(one.estimate for one in found)
    own = chosen(
        found,
        bits="4",
        range="least squared error",
        scale="one a tensor",
        measure="smaller groups against the largest",
        **{"batch norm statistics": "taken again"},
    )
    values = Networks(faces.table, faces.majority).contrast("int4-mse-bn", "fp32-bn")
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (own.estimate, own.lower, own.upper) == pytest.approx((values.mean(), low, high))
    assert own.side == "neither"


def test_a_gap_that_is_wider_lies_on_the_side_of_harm(faces):
    found = specifications([faces])
    own = chosen(
        found,
        bits="4",
        range="least squared error",
        scale="one a tensor",
        measure="best group against the worst",
        **{"batch norm statistics": "as they were"},
    )
    accuracy = faces.table.assign(share=faces.table["right"] / faces.table["n"])
    wide = accuracy.pivot_table(index=["treatment", "seed"], columns="group", values="share")
    gaps = np.ptp(wide.to_numpy(), axis=1)
    gaps = pd.Series(gaps, wide.index)
    assert own.estimate == pytest.approx(-(gaps["int4-mse"] - gaps["fp32"]).mean())
    assert own.side == "against"


def test_where_nothing_happens_no_way_says_anything(faces):
    full = faces.table[faces.table["treatment"] == "fp32"].set_index(["seed", "group"])["right"]
    table = faces.table.drop(columns="right").join(full, on=["seed", "group"])
    rng = np.random.default_rng(0)
    rounded = table["treatment"] != "fp32"
    table.loc[rounded, "right"] += rng.integers(-1, 2, rounded.sum())
    still = specifications([MeasuredNetworks("still", table, faces.record)])
    contrasts = [one for one in still if one.choices["measure"].startswith("smaller")]
    assert np.mean([one.side != "neither" for one in contrasts]) < 0.15


def test_each_width_has_the_word_of_its_question(faces):
    repair = load("utkface_repair")
    shown = BeautifulSoup(claims.by_width([faces], [repair]).markup, "html.parser")
    heads = [head.text for head in shown.select("thead th")]
    assert heads == ["question", "int8", "int6", "int5", "int4", "int3", "int2"]
    pays, *fairqat = shown.select("tbody tr")
    words = [cell.text.strip() for cell in pays.select("td")]
    for question in OF_WIDTHS:
        if ", int" in question.key:
            said = question.answer(question.reading(faces))
            word = words[heads.index(f"int{question.bits}") - 1]
            assert word == said.replace("no difference larger than", "under").removeprefix("the ")
    assert words[-1] == "–"
    assert len(fairqat) == 4
    assert all("UTKFace" in row.select_one("th").text for row in (pays, *fairqat))


def test_what_a_switch_takes_out_is_gone(faces, browser):
    shown = curve([load("moths_why"), faces])
    page = browser.new_page()
    page.set_content(f"<style>{STYLE}</style>{shown.markup}")
    marks = page.locator(".fairq-curve-marks i:visible")
    every = len(BeautifulSoup(shown.markup, "html.parser").select(".fairq-curve-marks i"))
    assert marks.count() == every
    page.get_by_label("UTKFace").uncheck()
    assert marks.count() == every // 2
    page.get_by_label("taken again").uncheck()
    assert marks.count() == every // 4
    assert all("Moths" in title for title in marks.evaluate_all("all => all.map(one => one.title)"))
    page.close()
