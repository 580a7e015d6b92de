"""The chapter on language: its questions by hand, what it keeps, its view, its guarded sentences."""

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from fairq_audit.formats import signed
from fairq_book.chapters.language import kept, questions, secondary, story, tables, view
from fairq_book.chapters.language.questions import QUESTIONS, Languages
from fairq_book.chapters.language.treatments import TREATMENTS
from fairq_book.cli.main import main
from fairq_utils.errors import BadInput
from fairq_utils.language.articles import LANGUAGES, SHARES, DeclarationSettings, deal, draw_declaration
from fairq_utils.language.decoder import ByteDecoder
from fairq_utils.language.jobs.measure import MeasuredLanguage
from fairq_utils.metrics.verdicts import MARGINS

FOUR = ("English", "Swahili", "Chinese", "Korean")


def table(change, *, seeds=range(8), names=tuple(LANGUAGES), scatter=0.0) -> pd.DataFrame:
    """A table as networks would give it, if `change(treatment, halvings)` said what each answers."""
    random = np.random.default_rng(1)
    rows = []
    for seed in seeds:
        for language, share in deal(names, seed).items():
            halvings = -np.log2(share)
            place = names.index(language)
            for treatment in TREATMENTS:
                said = {"nats": 1000.0 + 10 * place, "right": 500, "flips": 0, "flips_in_doubt": 0}
                said |= {
                    "doubted": 400,
                    "bytes": 1000,
                    "lost": 0,
                    "won": 0,
                    "logit_variance": 9.0,
                    "confidence": 0.6,
                }
                said |= {} if treatment == "fp32" else change(treatment, halvings)
                said = {
                    name: value + (scatter * random.normal() if name == "nats" else 0)
                    for name, value in said.items()
                }
                rows.append(
                    {"treatment": treatment, "seed": seed, "language": language, "share": share} | said
                )
    return pd.DataFrame(rows)


def landscape(rise: float = 1.0) -> pd.DataFrame:
    rows = [
        {
            "treatment": treatment,
            "seed": seed,
            "language": language,
            "share": share,
            "loss": 2.0,
            "squared_gradient_norm": 4.0 * (1 + rise * -np.log2(share)) + 0.1 * ((seed * 7 + place * 3) % 5),
            "eigenvalue": 100.0 * 2 ** (rise * -np.log2(share) / 3) * (1 + 0.01 * ((seed * 5 + place) % 7)),
            "converged": True,
        }
        for treatment in ("fp32", "int4", "int3-channel")
        for seed in range(8)
        for place, (language, share) in enumerate(deal(tuple(LANGUAGES), seed).items())
    ]
    return pd.DataFrame(rows)


# ---------------------------------------------------------------- numbers


def test_measures_are_shares_of_bytes_and_of_the_usual_article():
    languages = Languages(
        table(lambda treatment, _: {"nats": 1130.0, "right": 480, "flips": 90}, names=FOUR, seeds=range(4))
    )
    assert languages.networks == 4
    usual = np.mean([1000, 1010, 1020, 1030])
    assert languages.of("int4", "flips").eq(0.09).all(axis=None)
    assert languages.change("int4", "accuracy").to_numpy() == pytest.approx(-0.02)
    assert languages.change("int4", "extra")["Korean"].to_numpy() == pytest.approx(100 / usual)
    assert languages.of("fp32", "bits")["English"].to_numpy() == pytest.approx(1 / np.log(2))
    assert languages.halvings.loc[0].to_dict() == {name: -np.log2(own) for name, own in deal(FOUR, 0).items()}
    with pytest.raises(BadInput, match="int7 was not measured"):
        languages.of("int7", "flips")


def test_a_slope_is_told_from_all_the_text_to_an_eighth_whatever_a_language_has_anyway():
    languages = Languages(
        table(lambda treatment, halvings: {"flips": 100 + 20 * halvings, "right": 500 - 10 * halvings})
    )
    assert languages.slope("int4", "flips") == pytest.approx(0.06)  # three halvings of 2 points each
    assert languages.slope("int4", "accuracy", "int8") == pytest.approx(0)
    assert languages.steepness("int4", "accuracy") == pytest.approx(-0.03)
    assert languages.slope("int4", "extra") == pytest.approx(0, abs=1e-3)


def test_each_question_is_asked_of_the_number_that_it_names():
    ways = {"int8": 1, "int6": 2, "int5": 3, "int4": 4, "int3": 5}
    ways |= {"int4-tuned": 10, "int4-qat": 12, "int4-qat-weighted-sampled": 15}
    ways |= {"int3-channel-tuned": 20, "int3-channel-qat": 23, "int3-channel-qat-weighted-sampled": 27}

    def change(treatment, halvings):
        rise = ways.get(treatment, 0) * halvings
        return {"nats": 1000 + 3 * rise, "flips": 2 * rise, "right": 500 + rise}

    languages = Languages(table(change))
    found = {one.key: one.number(languages).mean() for one in QUESTIONS}
    usual = languages.table.query("treatment == 'fp32'")["nats"].mean()
    for bits, place in ((8, 1), (6, 2), (5, 3), (4, 4), (3, 5)):
        assert found[f"L2, int{bits}"] == pytest.approx(3 * 2 * place / 1000)
        assert found[f"L3, int{bits}"] == pytest.approx(3 * place / 1000)
        # nats have no language's own part here, and fp32 has it: what is everybody's makes no slope
        assert found[f"L1, int{bits}"] == pytest.approx(3 * 3 * place / usual)
    assert found["L4"] == pytest.approx(0.003 * (-0.8 * 1 - 0.4 * 2 + 0.4 * 4 + 0.8 * 5))
    assert found["L5, int4"] == pytest.approx(0.006)
    assert found["L5, int3-channel"] == pytest.approx(0.009)
    assert found["L6, int4"] == pytest.approx(0.009)
    assert found["L6, int3-channel"] == pytest.approx(0.012)
    assert len(found) == len(QUESTIONS) == 20
    margins = {one.key: one.margin for one in QUESTIONS}
    assert margins["L1, int8"] == MARGINS[8]
    assert margins["L6, int3-channel"] == MARGINS[3]


def test_every_treatment_that_is_measured_is_asked_about():
    read = set()

    class Noted(Languages):
        def of(self, treatment, measure):
            read.add(treatment)
            return super().of(treatment, measure)

    languages = Noted(
        table(lambda treatment, _: {"flips": 10, "flips_in_doubt": 5, "right": 490}, scatter=1.0)
    )
    for one in QUESTIONS:
        one.number(languages)
    for one in secondary.asked(languages.names).values():
        one.number(languages, landscape())
    tables.repairs(languages)
    assert TREATMENTS.keys() - read == {"int2"}  # which answers nothing, and is told live alone


def test_doubt_and_times_are_ratios_of_shares():
    def change(treatment, _):
        many = {"int4": 100, "int8": 25}.get(treatment, 10)
        return {"flips": many, "flips_in_doubt": 0.8 * many}

    asked = secondary.asked(list(LANGUAGES))
    languages = Languages(table(change))
    number = {
        key: asked[key].number(languages, landscape()) for key in ("int4 in doubt", "int4 against int8")
    }
    assert number["int4 in doubt"] == pytest.approx(np.log2((80 / 400) / (20 / 600)))
    assert number["int4 against int8"] == pytest.approx(2)


def test_steepness_of_the_loss_is_told_against_its_mean_and_as_a_factor():
    asked = secondary.asked(list(LANGUAGES))
    languages = Languages(table(lambda treatment, _: {}))
    found = asked["fp32 eigenvalue"].number(languages, landscape(rise=1.0))
    assert found.mean() == pytest.approx(1.0, abs=0.02)  # twice as large at an eighth
    assert asked["fp32 eigenvalue"].in_points is False
    flat = asked["int4 gradient"].number(languages, landscape(rise=0.0))
    assert abs(flat.mean()) < 0.02


# ---------------------------------------------------------------- what is kept


def made(seed: int) -> MeasuredLanguage:
    own = table(lambda treatment, _: {"nats": 1100.123456}, seeds=[seed])
    around = landscape()[lambda rows: rows["seed"] == 0].assign(seed=seed)
    return MeasuredLanguage(own, around, f"text {seed}")


def test_networks_are_measured_once_and_again_when_code_or_treatments_change(tmp_path, monkeypatch):
    asked = []

    def one(seed):
        asked.append(seed)
        return made(seed)

    told = []
    kept.measure([301, 300], one=one, root=tmp_path, told=told.append)
    kept.measure([300, 301, 302], one=one, root=tmp_path, told=told.append)
    assert asked == [301, 300, 302]
    assert told[2] == "declaration, seed 300: measured already"
    found = kept.load(tmp_path)
    assert list(found.answers["seed"].unique()) == [300, 301, 302]
    assert found.networks == 3
    assert list(found.landscape["seed"].unique()) == [300, 301, 302]
    assert found.record["made"]["301"]["texts"] == "text 301"
    assert set(found.answers.loc[found.answers["treatment"] == "int4", "nats"]) == {1100.1}
    assert "by earlier code" not in found.made
    monkeypatch.setitem(kept.CODE, kept.STAGE, "other")
    assert "by earlier code" in kept.Kept(found.answers, found.landscape, found.record).made
    kept.measure([300], one=one, root=tmp_path, told=told.append)
    assert asked[-1] == 300
    monkeypatch.delitem(kept.TREATMENTS, "int2")
    kept.measure([300], one=one, root=tmp_path, told=told.append)
    assert len(asked) == 5
    assert len(kept.load.__wrapped__(tmp_path).answers) == 3 * 16 * len(TREATMENTS) + 2 * 16


def test_the_command_measures_the_seeds_that_were_registered(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(kept, "measure", lambda seeds, **_: asked.append(list(seeds)))
    monkeypatch.setenv("FAIRQ_STORE", str(tmp_path))
    for seeds in ([], ["--seeds", "300-301"]):
        done = CliRunner().invoke(main, ["results", "measure", "declaration", *seeds])
        assert done.exit_code == 0, done.output
    assert asked == [list(range(300, 316)), [300, 301]]
    monkeypatch.undo()
    with pytest.raises(BadInput, match="seed is 7; expected some of those registered, 300 to 315"):
        kept.measure([300, 7], root=tmp_path)


def test_what_was_not_measured_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"declaration was not measured; expected .*declaration\.json"):
        kept.load(tmp_path)


def test_the_networks_that_are_shipped_are_whole_and_of_the_registered_seeds():
    found = kept.load()
    assert set(found.answers["seed"]) <= set(kept.SEEDS)
    assert {str(seed) for seed in found.answers["seed"].unique()} == found.record["made"].keys()
    assert found.networks % 4 == 0  # so that each language held each share as often
    size = found.answers.groupby("seed").size()
    assert (size == len(TREATMENTS) * len(LANGUAGES)).all()
    held = found.answers.query("treatment == 'fp32'").pivot_table(
        index="language", columns="share", values="seed", aggfunc="count"
    )
    assert (held == found.networks // 4).all(axis=None)
    assert list(held) == sorted(SHARES)
    texts = draw_declaration(DeclarationSettings(seed=300))
    assert found.record["made"]["300"]["texts"] == texts.fingerprint
    bytes_of = found.answers.query("seed == 300 and treatment == 'int4'").set_index("language")["bytes"]
    assert bytes_of.to_dict() == {
        name: sum(map(len, articles.values())) for name, articles in texts.test.items()
    }


# ---------------------------------------------------------------- sentences


@pytest.fixture(scope="module")
def shipped() -> story.Findings:
    return story.findings(kept.load())


@pytest.mark.parametrize("key", story.SENTENCES)
def test_each_sentence_is_true_of_what_is_shipped(shipped, key):
    there = shipped.kept.networks
    if not story.SENTENCES[key].holds(shipped) and there < len(kept.SEEDS):
        pytest.skip(
            f"only {there} of {len(kept.SEEDS)} networks are measured: fairq results measure declaration"
        )
    assert story.SENTENCES[key].holds(shipped)


@pytest.mark.parametrize("key", story.SENTENCES)
def test_each_falls_back_to_its_numbers_where_nothing_was_found(key):
    nothing = kept.Kept(
        table(lambda treatment, _: {"nats": 1000.0, "flips": 10, "flips_in_doubt": 5}, scatter=30.0),
        landscape(rise=0.0),
        {},
    )
    found = story.Findings(nothing)
    own = story.SENTENCES[key]
    if key in ("longer", "accuracy"):  # which say that there is nothing

        def change(_, halvings):
            return {
                "right": 500 - 60 * halvings,
                "nats": 1000 + 90 * halvings,
                "flips": 10,
                "flips_in_doubt": 5,
            }

        found = story.Findings(replace(nothing, answers=table(change)))
    assert not own.holds(found)
    said = own.told(found).text
    assert said.startswith(f"{own.about}, in 8 networks: ")
    assert "nan" not in said
    assert all(f"{name.rpartition(', ')[2]} " in said for name in own.numbers)


def test_there_are_at_most_ten_sentences_and_the_page_tells_each_once():
    page = (kept.measured_folder().parents[1] / "notebooks" / "07_language.py").read_text()
    told = re.findall(r'story\.tell\("([^"]+)"', page)
    assert sorted(told) == sorted(story.SENTENCES)
    assert len(told) <= 10


def test_a_page_says_how_many_of_the_registered_networks_answer(shipped):
    said = story.who_answers(shipped.kept).text
    assert said.startswith(f"Measured earlier: {shipped.kept.networks} networks, 2026-")
    assert ("provisional" in said) == (shipped.kept.networks < 16)


# ---------------------------------------------------------------- figures, tables and the view


@pytest.fixture(scope="module")
def small():
    settings = DeclarationSettings(languages=("English", "Arabic", "Thai", "Korean"))
    texts = draw_declaration(settings)
    networks = tables.rounded(ByteDecoder(width=8, depth=1, heads=2), texts, [4, 2])
    return texts, networks, tables.of_this_network(networks, texts, settings)


def test_one_network_is_told_as_the_kept_ones_are(small):
    texts, networks, live = small
    assert list(networks) == ["fp32", "int4", "int2"]
    assert set(kept.load().answers) == set(live)
    who = tables.who_holds(texts, live)
    assert list(who["share"]) == ["1", "0.5", "0.25", "0.125"]
    assert who.loc["Thai", "test bytes"] == 6714
    cost = tables.costs(live)
    assert set(cost["group"]) == {"int4"}
    own = live.set_index(["treatment", "language"])
    row = cost[(cost["row"] == "Thai") & (cost["width"] == "flips")].iloc[0]
    assert row["estimate"] == own.loc[("int4", "Thai"), "flips"] / 6714


def test_the_answers_on_the_page_are_those_of_the_questions(shipped):
    lines = {line[4:6]: line for line in story.answers(shipped.kept).text.splitlines()}
    assert list(lines) == ["L1", "L2", "L3", "L4", "L5", "L6"]
    for one in QUESTIONS:
        reading, (key, _, width) = one.reading(shipped.languages), one.key.partition(", ")
        (said,) = [part for part in lines[key].split("; ") if f"{width} *" in part or not width]
        assert f"*, {signed(100 * reading.estimate)} (" in said
        assert ("*yes*" in said) == (reading.word == one.yes)


def test_the_table_of_steepness_has_means_by_treatment_and_share():
    found = tables.steepness(landscape(rise=1.0))
    assert list(found.index[:4]) == [("fp32", 1.0), ("fp32", 0.5), ("fp32", 0.25), ("fp32", 0.125)]
    own = landscape(rise=1.0).query("treatment == 'int4' and share == 0.5")
    assert found.loc[("int4", 0.5), "eigenvalue"] == pytest.approx(own["eigenvalue"].mean(), abs=0.01)


def test_the_view_has_a_choice_and_a_table_for_each_language_and_escapes_what_it_shows(small):
    texts, networks, live = small
    told = view.continued(networks, texts, article=6, begin=40, count=9)
    assert len(told) == 4 * 4
    row = told[(told["language"] == "Korean") & (told["treatment"] == "the article")].iloc[0]
    whole = texts.test["Korean"][6].decode()
    assert whole.startswith(row["begins"] + row["follows"])
    assert 38 <= len(row["begins"].encode()) <= 40
    shown = view.by_language(live, told.assign(follows='<b>&"')).markup
    assert shown.count('type="radio"') == shown.count("<section>") == 4
    assert shown.count(" checked>") == 1
    assert '<b>&"' not in shown
    assert "&lt;b&gt;&amp;" in shown
    assert "<b>Korean</b>, with an eighth of its text" in shown
    assert 'lang="ar" dir="rtl"' in shown
    assert 'lang="ko" dir="ltr"' in shown
    assert "<script" not in shown
    for number in range(4):
        assert f'id="fairq-language-{number}"' in shown
        assert f"#fairq-language-{number}:checked~div>section:nth-of-type({number + 1})" in shown


def test_an_article_that_is_not_of_the_test_is_refused(small):
    texts, networks, _ = small
    with pytest.raises(BadInput, match="article is 3; expected one of the test: 2, 6, 10"):
        view.continued(networks, texts, article=3, begin=4, count=1)


def test_every_language_has_a_code_and_those_from_right_to_left_are_named():
    assert view.CODES.keys() == LANGUAGES.keys()
    assert {"Hebrew", "Arabic"} == view.RIGHT_TO_LEFT


def test_the_record_is_small_and_says_how_each_network_was_made():
    folder = kept.measured_folder()
    record = json.loads((folder / "declaration.json").read_text())
    for one in record["made"].values():
        assert one.keys() == {"code", "texts", "revision", "hardware", "versions", "date"}
    assert sum(path.stat().st_size for path in folder.glob("declaration*")) < 2_000_000


def test_measures_that_a_question_may_name_are_columns_or_shares():
    languages = Languages(table(lambda treatment, _: {}, seeds=range(4), names=FOUR))
    for measure in ("accuracy", "extra", "flips", "bits", "logit_variance", "confidence"):
        assert np.isfinite(languages.of("int4", measure)).all(axis=None)
    assert -np.log2(min(SHARES)) == questions.HALVINGS
