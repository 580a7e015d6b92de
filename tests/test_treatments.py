from dataclasses import replace
from itertools import chain, combinations

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

from fairq_utils.data import sources
from fairq_utils.errors import BadInput
from fairq_utils.quantization.controls import only_zero_bin
from fairq_utils.quantization.quantizers import (
    CodebookQuantizer,
    FloatQuantizer,
    LearnedStepQuantizer,
    NF4Quantizer,
    PowerOfTwoQuantizer,
    UniformQuantizer,
)
from fairq_utils.training.fairqat import FairQAT
from fairq_utils.training.loop import Recipe, to_input
from fairq_utils.treatments import treatment as treatments_treatment
from fairq_utils.treatments.treatment import FP32, Treatment


@pytest.fixture(scope="module")
def moths():
    return sources.load("moths", train_images=60, test_images=20, image_size=16)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(392, 5)
    ).eval()


BASES = (
    "fp32", "fp16", "bf16", "fp8", "nf4", "int2", "int4", "int16", "codebook3", "pot4", "w4a8", "w16a2", "a8",
)  # fmt: skip


@given(st.sampled_from(BASES), st.lists(st.sampled_from([*Treatment.words(), "a6"]), unique=True))
def test_every_name_that_is_understood_parses_back_to_an_equal_treatment(base, words):
    try:
        treatment = Treatment.parse("-".join([base, *words]))
    except BadInput:
        assume(False)
    assert Treatment.parse(treatment.name) == treatment
    assert Treatment.parse(treatment.name).name == treatment.name


def test_treatments_that_differ_have_names_that_differ():
    found = {}
    some = chain.from_iterable(combinations(Treatment.words(), size) for size in range(4))
    for words in some:
        try:
            treatment = Treatment.parse("-".join(["int4", *words]))
        except BadInput:
            continue
        assert found.setdefault(treatment.name, treatment) == treatment
    assert len(set(found.values())) == len(found) > 100


@pytest.mark.parametrize(
    ("name", "quantizer"),
    [
        ("fp32", None),
        ("a8", None),
        ("int4", UniformQuantizer(4)),
        ("int4-mse-channel", UniformQuantizer(4, clip="mse", axis=0)),
        ("int2-full", UniformQuantizer(2, narrow=False)),
        ("w4a8-affine-percentile", UniformQuantizer(4, symmetric=False, clip="percentile")),
        ("int3-zeros", only_zero_bin(UniformQuantizer(3))),
        ("codebook3", CodebookQuantizer(3)),
        ("pot4", PowerOfTwoQuantizer(4)),
        ("nf4", NF4Quantizer()),
        ("fp8-e5m2", FloatQuantizer("fp8-e5m2")),
        ("bf16", FloatQuantizer("bf16")),
    ],
)
def test_a_name_says_what_rounds_the_weights(name, quantizer):
    assert Treatment.parse(name).quantizer == quantizer


def test_a_learned_step_is_one():
    quantizer = Treatment.parse("int4-channel-lsq").quantizer
    assert isinstance(quantizer, LearnedStepQuantizer)
    assert (quantizer.bits, quantizer.axis) == (4, 0)


def test_words_that_mean_the_same_are_one_name():
    assert Treatment.parse("int4-sampled-weighted-qat-ends8").name == "int4-fairqat"
    assert Treatment.parse("int4-channel-mse").name == "int4-mse-channel"


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("int4-fairqat", FairQAT.paper(4)),
        ("int3-qat", FairQAT(3, first_last=None)),
        ("int3-ends8-qat-weighted40", FairQAT(3, loss_weights=0.4)),
        ("int3-ends8-qat-sampled50", FairQAT(3, sampling=0.5)),
        ("int3-ends8-qat-oversampled", FairQAT(3, sampling="over")),
        ("int3-ends8-qat-dro-undersampled", FairQAT(3, sampling="under", loss_weights="dro")),
        ("int3-ends8-tuned-adjusted", FairQAT(None, logit_adjustment=1.0)),
    ],
)
def test_a_name_says_how_it_is_trained(moths, network, name, method):
    treatment = Treatment.parse(name)
    assert treatment.name == name
    recipe = Recipe(epochs=1, batch_size=20)
    ours = treatment.train(network, moths, recipe=recipe, seed=1)
    theirs = replace(method, recipe=recipe, patience=None).fit(network, moths, seed=1)
    for one, two in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        assert torch.equal(one, two)
    assert treatment.images_seen(moths, recipe) == replace(method, recipe=recipe).images_seen(moths)


@pytest.mark.parametrize(
    ("name", "trained"),
    [
        ("int4-ends8-tuned-weighted-sampled", "fp32-tuned-weighted-sampled"),
        ("nf4-tuned-dro-a8", "fp32-tuned-dro"),
        ("int4-mse-fairqat", "int4-mse-fairqat"),
        ("w4a8-qat-bn", "int4-qat"),
    ],
)
def test_what_is_done_after_training_decides_no_trained_network(name, trained):
    assert Treatment.parse(name).as_trained.name == trained


def test_full_precision_changes_nothing(moths, network):
    assert FP32.apply(network, moths) is network


def test_weights_are_rounded_in_a_copy(moths, network):
    before = network[0].weight.detach().clone()
    treated = Treatment.parse("int4").apply(network, moths)
    assert torch.equal(network[0].weight, before)
    torch.testing.assert_close(treated[0].weight, UniformQuantizer(4)(before), rtol=0, atol=0)
    assert treated.state_dict().keys() == network.state_dict().keys()


def test_ends_may_keep_eight_bits(moths, network):
    treated = Treatment.parse("int2-ends8").apply(network, moths)
    assert len(treated[0].weight.unique()) > 3  # the first
    assert len(treated[4].weight.unique()) > 3  # the last


def test_inputs_are_rounded(moths, network):
    images = torch.randn(4, 3, 16, 16)
    treated = Treatment.parse("a2").apply(network, moths)
    assert torch.equal(treated[0].weight, network[0].weight)
    seen = []
    treated[4].register_forward_hook(lambda layer, inputs, output: seen.append(inputs[0]))
    treated(images)
    assert len(seen[0].unique()) <= 4
    both = Treatment.parse("w3a2").apply(network, moths)
    assert len(both[4].weight.unique()) <= 7


@pytest.mark.parametrize("name", ["int2-bn", "a4"])
def test_statistics_and_ranges_are_those_of_training_images_only(moths, network, name):
    def statistics(images):
        treated = Treatment.parse(name).apply(network, images)
        return treated(to_input(moths.images[:20]))

    own = statistics(moths)
    assert not torch.equal(own, network(to_input(moths.images[:20])))
    assert moths.is_tuning.any()
    hidden = (~moths.is_train)[:, None, None, None]
    unlike = replace(moths, images=torch.where(hidden, 255 - moths.images, moths.images))
    assert torch.equal(statistics(unlike), own)
    unlike = replace(moths, images=torch.where(hidden, moths.images, moths.images // 2))
    assert not torch.equal(statistics(unlike), own)


def test_training_while_quantized_ends_on_the_grid_and_then_nothing_is_rounded_again(moths, network):
    qat = Treatment.parse("int3-qat")
    trained = qat.train(network, moths)
    assert len(trained[4].weight.unique()) <= 7
    assert not torch.equal(trained[4].weight, Treatment(3).apply(network, moths)[4].weight)
    assert qat.apply(trained, moths) is trained


def test_tuned_is_trained_free_and_then_rounded(moths, network):
    tuned = Treatment.parse("int3-tuned")
    trained = tuned.train(network, moths)
    assert len(trained[4].weight.unique()) > 7
    assert len(tuned.apply(trained, moths)[4].weight.unique()) <= 7


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("int", "'int' is not understood"),
        ("int99", "bits is 99; expected a whole number from 2 to 16"),
        ("w4a1", "bits is 1"),
        ("int4-msee", "'msee' is not understood"),
        ("nf4-mse", "says mse, which nf4 does not take"),
        ("fp32-qat", "says qat, which fp32 does not take"),
        ("int4-weighted", "weights or samples, but does not train; add qat or tuned"),
        ("int4-mse-lsq", "has a range to learn; leave out affine, mse and percentile"),
        ("int4-affine-full", "uses all codes already; leave out full"),
        ("int4-qat-weighted0", "'weighted0' is not understood"),
        ("int4-qat-weighted40-dro", "weights groups in two ways; leave out dro, share or weighted"),
        ("int4-sampled50", "weights or samples, but does not train"),
        ("", "'' is not understood"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(name, said):
    with pytest.raises(BadInput, match=said) as caught:
        Treatment.parse(name)
    assert "\n" not in str(caught.value)


def test_the_vocabulary_is_complete():
    listed = set(treatments_treatment.vocabulary()["word"])
    assert listed >= set(Treatment.words())
    assert all(treatments_treatment.vocabulary()["meaning"])
