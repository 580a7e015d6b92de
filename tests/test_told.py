"""Sentences that people wrote: true of the networks that were measured, silent where others say otherwise."""

import functools
import importlib

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from fairq_book.chapters.encoders import found as of_encoders
from fairq_book.chapters.language import found as of_language
from fairq_book.chapters.language import kept
from fairq_book.cli import book, main
from fairq_book.kit import earlier, smollm2
from fairq_book.kit.interventions import Networks
from fairq_book.kit.told import GAVE_WAY, falls, needs, networks_of, rises, tell, within
from fairq_book.pages import front

CHAPTERS = ("disparity", "logits", "zero_bin", "landscape", "repair")
FOUND = {
    f"{chapter}.{one.__name__}": one
    for chapter in CHAPTERS
    for one in importlib.import_module(f"fairq_book.chapters.{chapter}.found").FOUND
} | {f"front.{sentence.__name__}": sentence for sentence, _, _ in front.ANSWERS}
NETWORKS = {name: networks_of(name) for name in {name for one in FOUND.values() for name in needs(one)}}


def said(sentence, worlds):
    return sentence(**{name: worlds[name] for name in needs(sentence)}).text


class Listening(Networks):
    """Networks that remember which treatments they were asked about."""

    def __init__(self, networks):
        super().__init__(networks.table, networks.majority)
        self.asked = {"fp32", "int4"}

    def of(self, treatment, measure="right"):
        self.asked.add(treatment)
        return super().of(treatment, measure)

    def overall(self, treatment):
        self.asked.add(treatment)
        return super().overall(treatment)


@functools.cache
def tables_of(name):
    """What a sentence is about: the rows of the treatments that it asks of, by setting."""
    listening = {one: Listening(NETWORKS[one]) for one in needs(FOUND[name])}
    said(FOUND[name], listening)
    return {
        one: own.table[own.table["treatment"].isin(own.asked) | ("right" not in own.table)]
        for one, own in listening.items()
    }


def worlds(name, change):
    """The networks of a sentence, with their tables changed."""
    return {one: Networks(change(own), NETWORKS[one].majority) for one, own in tables_of(name).items()}


def drawn_again(table, rng):
    """As many networks, drawn from these with replacement."""
    by_seed = dict(list(table.groupby("seed", sort=False)))
    drawn = rng.choice(list(by_seed), len(by_seed))
    return pd.concat([by_seed[seed].assign(seed=place) for place, seed in enumerate(drawn)])


MEASURES = [
    "right",
    "flips",
    "flips_by_margins",
    "loss",
    "logit_variance",
    "squared_gradient_norm",
    "gradient_norm",
]


def where_nothing_happens(table):
    """Every treatment has done to each group what full precision did."""
    measures = [one for one in MEASURES if one in table]
    keys = [one for one in ("seed", "split", "group") if one in table]
    full = table[table["treatment"] == "fp32"].set_index(keys)[measures]
    return table.drop(columns=measures).join(full, on=keys)


def where_luck_rules(table, rng):
    """Every number is anything."""
    table = table.copy()
    for one in (own for own in MEASURES if own in table):
        table[one] = rng.random(len(table)) * (table["n"] if one in ("right", "flips") else 1)
    return table


def where_all_were_alike(table, rng):
    """Full precision serves everybody equally well, and what comes after is anything."""
    table = where_luck_rules(table, rng)
    full = table["treatment"] == "fp32"
    for one in (own for own in MEASURES if own in table):
        table.loc[full, one] = 0.5 * (table.loc[full, "n"] if one in ("right", "flips") else 1.0)
    return table


@pytest.mark.parametrize("name", FOUND)
def test_it_holds_of_the_networks_that_were_measured(name):
    assert GAVE_WAY not in said(FOUND[name], NETWORKS)


@pytest.mark.parametrize(
    ("name", "data", "often"),
    [
        (name, data, often)
        for name, own in FOUND.items()
        for data, often in (("moths", 0.9), ("utkface", 0.7))
        if any(one.startswith(data) for one in needs(own))
    ],
)
def test_it_holds_of_most_draws_of_as_many_networks(name, data, often):
    """Of moths in nine of ten, for others may draw them again; on faces there are fewer networks."""
    rng, held = np.random.default_rng(0), 0
    for _ in range(40):
        drawn = {
            one: Networks(drawn_again(own, rng) if one.startswith(data) else own, NETWORKS[one].majority)
            for one, own in tables_of(name).items()
        }
        held += GAVE_WAY not in said(FOUND[name], drawn)
    assert held >= 40 * often


@pytest.mark.parametrize("name", FOUND)
def test_it_gives_way_where_the_tables_say_otherwise(name):
    """No sentence is said of everything."""
    rng = np.random.default_rng(0)
    others = (
        where_nothing_happens,
        lambda table: where_luck_rules(table, rng),
        lambda table: where_all_were_alike(table, rng),
    )
    assert any(GAVE_WAY in said(FOUND[name], worlds(name, other)) for other in others)


def test_the_three_that_a_condition_is_made_of():
    rng = np.random.default_rng(1)
    wrong = [falls(rng.normal(0, 1, 12)) or rises(rng.normal(0, 1, 12)) for _ in range(2000)]
    assert np.mean(wrong) == pytest.approx(0.05, abs=0.015)
    assert all(falls(rng.normal(-3, 1, 12)) for _ in range(50))
    assert np.mean([within(rng.normal(1, 1, 12), 1) for _ in range(2000)]) <= 0.04


def test_several_are_told_one_below_the_other():
    one, two = list(FOUND.values())[:2]
    assert tell(one, two).text == f"{said(one, NETWORKS)}\n\n{said(two, NETWORKS)}"


def test_what_is_told_of_encoders_and_of_languages_holds_of_what_was_measured():
    assert GAVE_WAY not in of_encoders.in_short(earlier.load("fairface_encoders")).text
    assert GAVE_WAY not in of_language.in_short(kept.load(), smollm2.load()).text


def test_the_headline_says_that_smaller_groups_pay_only_where_they_do():
    assert front.headline(NETWORKS[front.WHY]).words.endswith("The smaller groups pay.")
    own = NETWORKS[front.WHY]
    still = Networks(where_nothing_happens(own.table), own.majority)
    assert front.headline(still).words == "Who pays?"


def test_each_figure_of_the_first_page_tells_its_numbers_to_those_who_hear_it():
    for _, picture, setting in front.ANSWERS:
        own = picture(NETWORKS[setting])
        assert own.alt.count(".") > 5
        assert f"{NETWORKS[setting].table['seed'].nunique()} networks" in own.caption


def test_the_build_says_where_sentences_gave_way_and_fails_where_asked_to(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "01_one.html").write_text(f"<p>3 {GAVE_WAY}</p><p>4 {GAVE_WAY}</p>")
    (tmp_path / "index.html").write_text("<p>All is well.</p>")
    monkeypatch.setattr(book, "_build_book", lambda *_: tmp_path)
    done = CliRunner().invoke(main.main, ["book"])
    assert done.exit_code == 0
    assert done.output == "01_one: 2 sentences gave way to the numbers\n"
    refused = CliRunner().invoke(main.main, ["book", "--strict"])
    assert refused.exit_code == 1
    assert "contradicts sentences" in refused.output
