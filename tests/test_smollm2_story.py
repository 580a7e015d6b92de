"""The tables, the figure and the sentences on the language model, on made-up numbers and on the kept ones."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from fairq_book.chapters.language import real
from fairq_book.kit import smollm2 as kept
from fairq_book.kit.smollm2 import MeasuredModel
from fairq_utils.errors import BadInput
from fairq_utils.language.articles import LANGUAGES, sizes
from fairq_utils.language.jobs import smollm2

NAMES = tuple(LANGUAGES)
# What a text takes more, at each width: at three bits the network has collapsed.
LOSSES = {
    "int8-channel": 0.0,
    "int6-channel": 0.01,
    "int5-channel": 0.05,
    "int4-channel": 0.2,
    "int3-channel": 2,
}


def made_up(*, slope: float = 1.0, noise: float = 0.0, seed: int = 0) -> MeasuredModel:
    """Languages that are known less and less; each loses by its rank, times the slope."""
    draw = np.random.default_rng(seed)
    rows, around = [], []
    for rank, language in enumerate(NAMES):
        for article in smollm2.READ:
            tokens, nats = 100 + article, (100.0 + article) * (1 + 0.2 * rank)
            rows.append(("fp32", language, article, 300, tokens, nats, 40, 0))
            for treatment, loss in LOSSES.items():
                share = loss * (1 + slope * (rank - 7.5) / 7.5) + noise * draw.normal()
                right = 5 if treatment == "int3-channel" else 38
                flips = round(min(share / 2, 1) * tokens) if share > 0 else 0
                rows.append((treatment, language, article, 300, tokens, nats * (1 + share), right, flips))
        for treatment in kept.SURVEYED:
            around.append((treatment, language, 6, 106, 3.0, 10.0 + rank, 500.0 - 20 * rank, 10.0, 5))
    columns = ["treatment", "language", "article", "bytes", "tokens", "nats", "right", "flips"]
    of_loss = ["loss", "gradient_norm", "eigenvalue", "residual", "products"]
    made = {"fp32": {"code": "earlier", "date": "2026-11-30 09:00 UTC"}}
    return MeasuredModel(
        pd.DataFrame(rows, columns=columns),
        pd.DataFrame(around, columns=["treatment", "language", "article", "tokens", *of_loss]),
        {"made": made, "stored": ["Q4_1", "Q8_0"]},
    )


@pytest.fixture(scope="module")
def model() -> MeasuredModel:
    return made_up()


@pytest.fixture(scope="module")
def measured() -> MeasuredModel:
    return kept.load()


# ---------------------------------------------------------------- tables


def test_bits_and_shares_are_those_of_a_direct_computation(model):
    table = model.answers.set_index(["treatment", "language", "article"]).sort_index()
    text = real.by_text(model).set_index(["treatment", "language", "article"])
    here = ("int5-channel", "Thai", 10)
    before, after = table.loc[("fp32", *here[1:]), "nats"], table.loc[here, "nats"]
    assert text.loc[here, "bits"] == pytest.approx(before / math.log(2))
    assert text.loc[here, "more"] == pytest.approx((after - before) / math.log(2))
    assert text.loc[here, "share"] == pytest.approx((after - before) / before)
    language = real.by_language(text.reset_index()).set_index(["treatment", "language"])
    own = table.loc["int5-channel", "Thai"]
    assert language.loc[here[:2], "flips"] == pytest.approx(own["flips"].sum() / own["tokens"].sum())
    full = table.loc["fp32", "Thai"]
    assert language.loc[here[:2], "share"] == pytest.approx(own["nats"].sum() / full["nats"].sum() - 1)


def test_a_network_that_loses_half_of_what_was_right_has_collapsed(model):
    assert real.collapsed(real.by_language(real.by_text(model))) == ["int3-channel"]


def test_a_rank_correlation_and_how_often_its_interval_holds_it():
    draw = np.random.default_rng(0)
    first, second = draw.normal(size=(2, 16))
    assert real.rank_correlation(first, second)[0] == pytest.approx(stats.spearmanr(first, second).statistic)
    # Of normal pairs with this correlation the ranks correlate by 6 / pi * asin(r / 2).
    rho = 6 / math.pi * math.asin(0.6 / 2)
    held = 0
    for _ in range(400):
        one, noise = draw.normal(size=(2, 16))
        _, lower, upper = real.rank_correlation(one, 0.6 * one + 0.8 * noise)
        held += lower < rho < upper
    assert 0.92 < held / 400 < 0.98


def test_too_few_pairs_have_no_rank_correlation():
    with pytest.raises(BadInput, match="there are 3 pairs; expected at least four to rank"):
        real.rank_correlation([1, 2, 3, math.nan], [1, 2, 3, 4])


def test_english_against_the_others_is_a_paired_t_interval_over_articles():
    texts = real.by_text(made_up(noise=0.01))
    own = texts[texts["treatment"] == "int4-channel"]
    wide = own.pivot_table(index="article", columns="language", values="share")
    difference = wide.drop(columns="English").mean(axis=1) - wide["English"]
    theirs = stats.ttest_1samp(difference, 0).confidence_interval()
    mean, lower, upper = real.against_english(own, "share")
    assert (mean, lower, upper) == pytest.approx((difference.mean(), *theirs))


def test_an_eigenvalue_that_was_not_reached_is_left_out(model):
    landscape = model.landscape.copy()
    landscape.loc[3, "residual"] = landscape.loc[3, "eigenvalue"] / 9
    found = real.of_whole_texts(MeasuredModel(model.answers, landscape, {}))
    assert found["eigenvalue"].isna().tolist() == [place == 3 for place in range(len(found))]
    assert (found["gradient_norm"] == 106 * model.landscape["gradient_norm"]).all()


@pytest.mark.parametrize(
    ("slope", "ranked", "less"), [(1.0, "yes", "yes"), (-0.9, "the reverse", "the reverse")]
)
def test_the_questions_have_the_answers_that_were_put_in(slope, ranked, less):
    found = real.answered(made_up(slope=slope, noise=1e-4)).set_index(["question", "treatment"])
    words = found["word"]
    assert words["S1", "int4-channel"] == ranked
    assert words["S3", "int4-channel"] == less
    assert words["S3", "int8-channel"] == "no difference"
    assert (words.loc[:, "int3-channel"] == "collapsed").all()
    assert (words.loc["S5"] == "yes").all()
    assert (words.loc["S6"] == "the reverse").all()
    assert set(found.index.unique("question")) == {f"S{number}" for number in range(1, 9)}


def test_where_nothing_speaks_the_answer_is_open():
    words = [real.answered(made_up(slope=0, noise=0.05, seed=seed))["word"].iloc[0] for seed in range(20)]
    assert words.count("open") >= 15


# ---------------------------------------------------------------- the page


def test_the_table_goes_from_the_language_that_is_known_best(model):
    table = real.shown(model)
    assert table.index.tolist() == list(NAMES)
    assert table["bits in full"].is_monotonic_increasing


def test_the_figure_tells_every_number_to_those_who_hear_it(model):
    picture = real.picture(model)
    for name in NAMES:
        assert picture.alt.count(name) == 4
    assert "Korean 40.0 and 20.0" in picture.alt
    assert "int3, where the network has collapsed" in picture.caption
    assert "four bits already" in picture.caption


GUARDS = {
    real.the_average_stands_and_answers_flip: real.of_eight_bits,
    real.english_is_spared_at_four_bits_alone: real.of_english,
    real.no_order_is_sure: real.of_the_order,
    real.steepness_foretells_what_length_does: real.of_steepness,
}


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.__name__)
def test_a_sentence_is_said_where_its_guard_holds_and_numbers_stand_in_its_place_elsewhere(
    measured, model, guard
):
    assert guard(measured)
    assert str(GUARDS[guard](measured)).startswith("**")
    assert not guard(model)
    neutral = str(GUARDS[guard](model))
    assert "**" not in neutral
    assert any(character.isdigit() for character in neutral)


def test_what_full_precision_means_is_said_first(measured):
    said = str(real.what_full_means(measured))
    assert measured.record["stored"] == ["Q4_1", "Q8_0"]
    assert "four bits" in said
    assert "2026-11-30" in said


def test_what_is_kept_is_whole(measured):
    answers, landscape = measured.answers, measured.landscape
    texts = {(language, article) for language in NAMES for article in smollm2.READ}
    for _, own in answers.groupby("treatment"):
        assert len(own) == len(texts)
        assert set(zip(own["language"], own["article"], strict=True)) == texts
    assert list(answers["treatment"].unique()) == list(smollm2.TREATMENTS)
    lengths = sizes().set_index(["language", "article"])["bytes"]
    own = answers.set_index(["language", "article"])
    assert (own["bytes"] == lengths.reindex(own.index)).all()
    assert (own["tokens"] <= own["bytes"]).all()
    assert (answers[["right", "flips"]].max(axis=1) <= answers["tokens"]).all()
    assert (answers.loc[answers["treatment"] == "fp32", "flips"] == 0).all()
    full = answers[answers["treatment"] == "fp32"].set_index(["language", "article"])
    surveyed = landscape[landscape["treatment"] == "fp32"].set_index(["language", "article"])
    # Two computations of the same loss: text by text, and as what was differentiated.
    same = full.loc[surveyed.index]
    assert np.allclose(surveyed["loss"], same["nats"] / same["tokens"], rtol=1e-4)
    assert measured.record["sha256"] == kept.SHA256
    named = {*smollm2.TREATMENTS, *(f"{treatment}, landscape" for treatment in kept.SURVEYED)}
    assert set(measured.record["made"]) == named
