import re
import typing

import pandas as pd
import pytest

from fairq_utils import claims


def changes(**violation: tuple[float, float, float]) -> pd.DataFrame:
    rows = [(name, "FVO", *interval) for name, interval in violation.items()]
    rows += [(name, "few", -0.3, -0.4, -0.2) for name in violation]
    rows += [(name, "many", 0.0, -0.1, 0.1) for name in violation]
    return pd.DataFrame(rows, columns=["treatment", "group", "estimate", "lower", "upper"])


def in_use(**classes: float) -> pd.DataFrame:
    return pd.DataFrame({"treatment": classes.keys(), "share": 0.5, "effective_classes": classes.values()})


RISE, FALL, UNSURE = (0.1, 0.05, 0.15), (-0.1, -0.15, -0.05), (0.1, -0.05, 0.25)


@pytest.mark.parametrize(
    ("violation", "word"),
    [
        ({"int8": UNSURE, "int4": RISE}, "supported"),
        ({"int8": UNSURE, "int4": FALL}, "contradicted"),
        ({"int8": FALL, "int4": RISE}, "mixed"),
        ({"int8": UNSURE, "int4": UNSURE}, "undecided"),
    ],
)
def test_the_word_is_the_datas(violation, word):
    verdict = claims.violation_grows(changes(**violation), in_use(int8=4.0, int4=4.0), seeds=3)
    assert verdict.word == word
    assert f"<strong>{word.capitalize()}.</strong>" in verdict._repr_html_()
    assert repr(verdict).startswith(word.capitalize())
    assert "+10.0 (+5.0 to +15.0)" in verdict.because or word in ("contradicted", "undecided")


def test_a_collapsed_network_decides_nothing_and_is_named():
    verdict = claims.violation_grows(
        changes(int4=UNSURE, int2=(0.8, 0.7, 0.9)), in_use(int4=4.0, int2=1.0), seeds=3
    )
    assert verdict.word == "undecided"
    assert "collapsed: int2" in verdict.because
    assert "int2 +80" not in verdict.because
    nothing_stands = claims.violation_grows(changes(int2=RISE), in_use(int2=1.2), seeds=1)
    assert nothing_stands.word == "undecided"
    assert "no width to judge" in nothing_stands.because


def test_each_word_has_a_colour_of_its_own():
    colours = {claims.Verdict("c", word, "b")._repr_html_() for word in typing.get_args(claims.Word)}
    assert len({re.search(r"solid (#\w+)", shown)[1] for shown in colours}) == 4


def accuracies(**worst: float) -> pd.DataFrame:
    rows = [(t, "few", share, share - 0.1, share + 0.1) for t, share in worst.items()]
    rows += [(t, "many", 0.9, 0.85, 0.95) for t in worst]
    rows += [(t, "OA", 0.8, 0.75, 0.85) for t in worst]
    rows += [(t, "FVO", 0.9 - share, 0.0, 1.0) for t, share in worst.items()]
    return pd.DataFrame(rows, columns=["treatment", "group", "estimate", "lower", "upper"])


def test_who_pays_names_a_loser_only_when_one_surely_loses():
    said = claims.who_pays(accuracies(int4=0.2), changes(int4=RISE)).text
    assert "**int4**: few loses most, −30.0 (−40.0 to −20.0) points" in said
    assert "few is served worst, at 20.0 % (10.0 to 30.0)" in said
    unsure = changes(int4=RISE)
    unsure.loc[unsure["group"] == "few", "upper"] = 0.1
    assert "no group surely loses" in claims.who_pays(accuracies(int4=0.2), unsure).text


def test_the_narrowest_width_is_called_collapse_only_when_it_is():
    table = accuracies(int4=0.5, int2=0.1)
    collapsed = claims.at_the_narrowest(table, in_use(int4=4.0, int2=1.1), classes=5).text
    assert "**int2**" in collapsed
    assert "That is collapse" in collapsed
    standing = claims.at_the_narrowest(table, in_use(int4=4.0, int2=3.0), classes=5).text
    assert "still tell classes apart" in standing
    assert "collapse" not in standing


def test_text_from_data_stays_text():
    verdict = claims.Verdict("<b>claim</b>", "mixed", "<script>alert(1)</script>")
    assert "<script>" not in verdict._repr_html_()
    assert "&lt;b&gt;claim" in verdict._repr_html_()
