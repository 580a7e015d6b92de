"""What is done to a language model is what its name says, to the same weights, and measured alike."""

import math
import re

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
import torch
from pandas.testing import assert_frame_equal
from scipy import optimize

from fairq_utils.errors import BadInput
from fairq_utils.language import treatments
from fairq_utils.language.articles import SHARES, DeclarationSettings, deal, draw_declaration
from fairq_utils.language.continuing import continue_texts
from fairq_utils.language.decoder import ByteDecoder
from fairq_utils.language.jobs.measure import FP32, answers_by_language, measure_language
from fairq_utils.language.measures import answer_texts, byte_logits, changes
from fairq_utils.language.texts import START, stream
from fairq_utils.language.training import LanguageRecipe, train_language
from fairq_utils.language.treatments import LanguageTreatment, train_as, treat
from fairq_utils.metrics.by_network import slopes_within
from fairq_utils.metrics.verdicts import read
from fairq_utils.quantization.models import bake, describe, places_of_weights, quantize_model
from fairq_utils.quantization.quantizers import UniformQuantizer

FOUR = ("English", "Swahili", "Chinese", "Korean")
SETTINGS = DeclarationSettings(languages=FOUR, seed=5)
SMALL = {"width": 12, "depth": 1, "heads": 2}
RECIPE = LanguageRecipe(steps=30, batch_size=8)


@pytest.fixture(scope="module")
def texts():
    return draw_declaration(SETTINGS)


@pytest.fixture(scope="module")
def network(texts) -> ByteDecoder:
    return train_language(texts, recipe=RECIPE, seed=5, **SMALL)


def weights(one: ByteDecoder) -> dict[str, torch.Tensor]:
    return {place.name: place.original.detach() for place in places_of_weights(one)}


# ---------------------------------------------------------------- slopes


def latin(seeds: int, languages: int = 8) -> pd.DataFrame:
    random = np.random.default_rng(3)
    rows = []
    own = random.normal(size=languages) * 5
    for seed in range(seeds):
        network = random.normal() * 3
        for place, share in enumerate(deal([str(n) for n in range(languages)], seed).values()):
            halvings = -math.log2(share)
            value = own[place] + network + 0.7 * halvings + random.normal()
            rows.append((seed, place, halvings, value))
    return pd.DataFrame(rows, columns=["seed", "language", "halvings", "value"])


@pytest.mark.parametrize("seeds", [4, 8, 6])  # six are no whole square: least squares allow for that, too
def test_a_slope_within_languages_is_that_of_least_squares_with_constants(seeds):
    table = latin(seeds)
    wide = {
        name: table.pivot_table(index="seed", columns="language", values=name) for name in table.columns[2:]
    }
    found = slopes_within(wide["value"], wide["halvings"])
    fitted = smf.ols("value ~ C(language) + C(seed) + halvings", table).fit()
    assert found.mean() == pytest.approx(fitted.params["halvings"], abs=1e-10)
    assert len(found) == seeds


def test_what_a_language_or_a_network_has_anyway_makes_no_slope():
    table = latin(4)
    halvings = table.pivot_table(index="seed", columns="language", values="halvings").to_numpy()
    anyway = np.arange(8) * 10.0 + np.arange(4)[:, None] * 100.0
    assert np.abs(slopes_within(anyway, halvings).mean()) < 1e-10
    assert slopes_within(anyway + 2 * halvings, halvings).mean() == pytest.approx(2)


def test_sizes_that_never_change_have_no_slope():
    with pytest.raises(BadInput, match="the same in all networks"):
        slopes_within([[1.0, 2.0]] * 3, [[0, 1]] * 3)
    for values, sizes in (([[1.0, 2.0]] * 3, [[0, 1]] * 2), ([[1.0, 2.0]] * 2, [[0, 1], [1, 0]])):
        with pytest.raises(BadInput, match="of three networks or more"):
            slopes_within(values, sizes)


@pytest.mark.parametrize("seeds", [4, 16])
def test_an_interval_over_such_slopes_holds_as_often_as_it_says(seeds):
    random = np.random.default_rng(8)
    sizes = [list(deal([str(n) for n in range(16)], seed).values()) for seed in range(seeds)]
    noise = random.normal(size=(2000, seeds, 16)) * np.linspace(0.5, 2, 16)
    held = [read(slopes_within(own, np.log2(sizes))) for own in noise]
    assert np.mean([one.lower < 0 < one.upper for one in held]) == pytest.approx(0.95, abs=0.02)


# ---------------------------------------------------------------- treatments


@pytest.mark.parametrize(
    ("treatment", "quantizer"),
    [
        (LanguageTreatment(bits=4), UniformQuantizer(4)),
        (LanguageTreatment(bits=3, channel=True), UniformQuantizer(3, axis=0)),
        (LanguageTreatment(bits=4, clip="mse"), UniformQuantizer(4, clip="mse")),
    ],
)
def test_rounding_is_that_of_the_library_on_the_same_weights(network, texts, treatment, quantizer):
    own, wanted = weights(treat(treatment, network, texts)), weights(bake(quantize_model(network, quantizer)))
    assert all(torch.equal(own[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize(("where", "rounded"), [("inside", slice(1, -1)), ("ends", slice(0, None, 5))])
def test_inside_and_ends_round_the_weights_of_that_place_alone(network, texts, where, rounded):
    before, names = weights(network), list(weights(network))
    own = treat(LanguageTreatment(bits=3, where=where), network, texts)
    chosen = set(names[rounded]) if where == "inside" else {names[0], names[-1]}
    assert dict(zip(names, describe(own)["bits"], strict=True)) == {
        name: 3 if name in chosen else 16 for name in names
    }
    for name, weight in weights(own).items():
        moved = (weight - before[name]).abs().max() / before[name].abs().max()
        assert (moved > 0.01) == (name in chosen)


@pytest.mark.parametrize("half", ["zeros", "nonzeros", "clipped", "unclipped"])
def test_the_two_halves_of_rounding_add_up_to_it(network, texts, half):
    clip = "mse" if half.endswith("clipped") else "absmax"
    other = {"zeros": "nonzeros", "nonzeros": "zeros", "clipped": "unclipped", "unclipped": "clipped"}[half]
    whole, one, two = (
        weights(treat(LanguageTreatment(bits=3, clip=clip, only=only), network, texts))
        for only in (None, half, other)
    )
    before = weights(network)
    assert any(not torch.equal(one[name], before[name]) for name in before)
    if clip == "absmax":  # each weight is moved by one half or by the other
        for name in before:
            assert torch.allclose(one[name] + two[name] - before[name], whole[name], atol=1e-6)


def test_rounded_inputs_leave_the_weights_and_louder_ones_lose_more(network, texts):
    inputs = treat(LanguageTreatment(activations=4), network, texts)
    assert all(torch.equal(weights(inputs)[name], weight) for name, weight in weights(network).items())
    loud = treat(LanguageTreatment(activations=4, scaled=8), network, texts)
    whole, plain, louder = (
        float(answer_texts(one, texts).loss.double().mean()) for one in (network, inputs, loud)
    )
    assert whole < plain < louder
    undone = treat(LanguageTreatment(activations=16, scaled=8), network, texts)
    assert float(answer_texts(undone, texts).loss.double().mean()) == pytest.approx(whole, abs=0.003)


def test_a_temperature_is_the_one_that_brings_logits_closest_on_the_tuning_articles(network, texts):
    way = LanguageTreatment(bits=2, temperature=True)
    sure, plain = treat(way, network, texts), treat(LanguageTreatment(bits=2), network, texts)
    ratio = plain.head.weight / sure.head.weight
    (temperature,) = ratio[plain.head.weight != 0].unique().round(decimals=3).unique().tolist()
    own, wanted = (
        torch.cat([logits for logits, _ in byte_logits(one, texts, "tuning")]).double()
        for one in (plain, network)
    )

    def divergence(inverse: float) -> float:
        return float(-(wanted.softmax(1) * (own * inverse).log_softmax(1)).sum(1).mean())

    best = optimize.minimize_scalar(divergence, bounds=(0.05, 20), method="bounded").x
    assert 1 / temperature == pytest.approx(best, abs=0.01)
    assert torch.equal(answer_texts(sure, texts).answer, answer_texts(plain, texts).answer)


def test_training_further_changes_a_copy_and_trains_at_the_width(network, texts):
    before = {name: weight.clone() for name, weight in weights(network).items()}
    recipe = LanguageRecipe(steps=3, batch_size=4)
    for way in (LanguageTreatment(training="tuned"), LanguageTreatment(bits=3, training="qat", sampled=True)):
        own = train_as(way, network, texts, recipe=recipe)
        assert not torch.equal(own.head.weight, before["head.weight"])
        levels = own.head.weight.unique().numel()
        assert levels <= 7 if way.training == "qat" else levels > 1000
    assert all(torch.equal(weights(network)[name], weight) for name, weight in before.items())


def test_each_way_to_train_is_its_recipe():
    recipe = LanguageRecipe(steps=7)
    both = LanguageTreatment(bits=4, training="qat", weighted=True, sampled=True).further(recipe)
    assert (both.steps, both.loss_weights, both.sampling) == (7, "inverse", "even")
    assert LanguageTreatment(training="tuned").further(recipe) == recipe


def test_treatments_of_one_training_share_it():
    of = LanguageTreatment
    tuned = of(training="tuned", weighted=True)
    assert of(bits=4, training="tuned", weighted=True).trains == tuned.trains == tuned
    qat = of(bits=4, training="qat")
    assert of(bits=4, training="qat", temperature=True).trains == qat != of(bits=3, training="qat").trains
    assert of(bits=4).trains is None


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"training": "more"}, "training is 'more'; expected None, tuned or qat"),
        ({"where": "middle"}, "where is 'middle'"),
        ({"only": "half"}, "only is 'half'; expected None or one of: zeros"),
        ({"weighted": True}, "weighted or sampled is set without training"),
        ({"training": "qat"}, "training is qat, and bits is None"),
    ],
)
def test_what_makes_no_sense_is_refused(fields, said):
    with pytest.raises(BadInput, match=re.escape(said)):
        LanguageTreatment(**fields)


# ---------------------------------------------------------------- the job


@pytest.fixture(scope="module")
def measured():
    of = LanguageTreatment
    asked = [of(bits=3), of(training="tuned"), of(bits=3, training="tuned"), of(bits=3, training="qat")]
    trained = []
    with pytest.MonkeyPatch.context() as patch:
        fit = treatments.fit_language

        def count(*args, **options):
            trained.append((options["seed"], options["recipe"].steps))
            return fit(*args, **options)

        patch.setattr(treatments, "fit_language", count)
        further = LanguageRecipe(steps=2, batch_size=4)
        found = measure_language(SETTINGS, asked, surveyed=[FP32], recipe=RECIPE, further=further, **SMALL)
    return found, trained


def test_the_job_trains_once_for_all_that_share_it_and_never_as_it_trained_first(measured):
    _, trained = measured
    assert [steps for _, steps in trained] == [2, 2]
    assert 5 not in {seed for seed, _ in trained}


def test_what_the_job_tells_is_what_rounding_that_very_network_changes(measured, network, texts):
    found, _ = measured
    before = answer_texts(network, texts)
    wanted = changes(before, answer_texts(treat(LanguageTreatment(bits=3), network, texts), texts))
    table = found.answers.set_index(["treatment", "language"])
    for name, own in wanted.groupby("language"):
        fp32, int3 = table.loc[("fp32", name)], table.loc[("int3", name)]
        assert int3["bytes"] == own["bytes"].sum()
        assert int3["flips"] == round((own["flips"] * own["bytes"]).sum())
        assert (int3["nats"] - fp32["nats"]) / math.log(2) == pytest.approx(own["bits"].sum(), abs=1e-3)
        assert int3["right"] - fp32["right"] == int3["won"] - int3["lost"]
        assert int3["right"] - fp32["right"] == round((own["accuracy"] * own["bytes"]).sum())
        assert int3["share"] == deal(FOUR, 5)[name]
    assert set(table["share"]) == set(SHARES)
    assert (table.loc["fp32"][["flips", "lost", "won"]] == 0).all(axis=None)
    assert found.fingerprint == texts.fingerprint


def test_the_job_gives_the_same_again_and_surveys_what_it_is_told(measured):
    found, _ = measured
    again = measure_language(SETTINGS, [], surveyed=[FP32], recipe=RECIPE, **SMALL)
    fp32 = found.answers[found.answers["treatment"] == "fp32"]
    assert_frame_equal(again.answers, fp32.reset_index(drop=True))
    assert_frame_equal(again.landscape, found.landscape)
    assert list(found.landscape["language"]) == list(FOUR)
    with pytest.raises(BadInput, match="int4 is surveyed and no treatment"):
        measure_language(SETTINGS, [], surveyed=[LanguageTreatment(bits=4)], recipe=RECIPE, **SMALL)


def test_confidence_variance_and_doubt_are_those_of_the_logits(network, texts):
    logits, truth = (torch.cat(parts) for parts in zip(*byte_logits(network, texts), strict=True))
    answers = answer_texts(network, texts)
    assert truth.to(torch.uint8).equal(answers.text)
    probabilities = logits.double().exp() / logits.double().exp().sum(1, keepdim=True)
    assert torch.allclose(answers.confidence.double(), probabilities.amax(1), atol=1e-5)
    assert answers.logit_variance.numpy() == pytest.approx(np.var(logits.numpy(), axis=1, ddof=1), rel=1e-4)
    rounded = answer_texts(treat(LanguageTreatment(bits=2), network, texts), texts)
    table = answers_by_language(answers, rounded)
    doubt, flipped = probabilities.amax(1) < 0.5, answers.answer != rounded.answer
    assert table["doubted"].sum() == int(doubt.sum())
    assert table["flips_in_doubt"].sum() == int((doubt & flipped).sum())
    first = answers.language == 0
    assert table.loc[0, "confidence"] == pytest.approx(float(rounded.confidence[first].mean()), rel=1e-5)


# ---------------------------------------------------------------- going on


def test_a_text_goes_on_byte_by_byte_as_the_network_says_one_alone(network):
    beginnings = [b"Everyone has the right", b"E", b"x" * 80]  # the last is longer than the context
    found = continue_texts(network, beginnings, 6)
    for beginning, own in zip(beginnings, found, strict=True):
        said = stream({1: beginning}).tolist()
        for _ in range(6):
            window = torch.tensor([said[-network.context :]])
            with torch.no_grad():
                said.append(int(network(window)[0, -1].argmax()))
            if said[-1] == START:
                break
        assert own == bytes(said[1 + len(beginning) :]).rstrip(b"\0")


def test_it_ends_where_an_article_ends():
    network = ByteDecoder(width=8, depth=1, heads=2)
    torch.nn.init.zeros_(network.head.weight)  # all bytes alike, of which the first is the end
    assert continue_texts(network, [b"a", b"bc"], 5) == [b"", b""]
    with pytest.raises(BadInput, match="count is -1"):
        continue_texts(network, [b"a"], -1)
