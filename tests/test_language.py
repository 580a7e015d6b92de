"""The small language model against PyTorch's own layers, direct computations and an exact Hessian."""

import copy
import math
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from fairq_utils.errors import BadInput
from fairq_utils.language.articles import DeclarationSettings, draw_declaration
from fairq_utils.language.decoder import (
    ByteDecoder,
    DecoderBlock,
    byte_loss,
    causal_distance,
    scale_norms,
)
from fairq_utils.language.landscape import LanguageSurvey, landscape_by_language
from fairq_utils.language.measures import ByteAnswers, answer_texts, by_article, by_language, changes
from fairq_utils.language.texts import Texts, stream, windows
from fairq_utils.language.training import LanguageRecipe, fit_language, train_language
from fairq_utils.quantization.models import bake, describe, quantize_model
from fairq_utils.quantization.quantizers import UniformQuantizer

FOUR = ("English", "Greek", "Thai", "Korean")
SMALL = {"width": 24, "depth": 1, "heads": 2, "context": 32}
QUICK = LanguageRecipe(steps=3, batch_size=4)


@pytest.fixture(scope="module")
def texts() -> Texts:
    return draw_declaration(DeclarationSettings(languages=FOUR))


@pytest.fixture(scope="module")
def trained(texts) -> ByteDecoder:
    return train_language(texts, recipe=LanguageRecipe(steps=400, learning_rate=1e-2), **SMALL)


def decoder(seed: int = 0, **shape) -> ByteDecoder:
    """One that has learned nothing, with weights so large that all of it matters."""
    torch.manual_seed(seed)
    network = ByteDecoder(**(SMALL | shape)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return network


@torch.no_grad()
def distance(network: ByteDecoder, other: ByteDecoder, text: Tensor) -> float:
    """How far apart the logits are, relative to their size."""
    return float((network(text) - other(text)).norm() / other(text).norm())


def some_text(count: int = 3, length: int = 32) -> Tensor:
    return torch.randint(0, 256, (count, length), generator=torch.Generator().manual_seed(0))


def two_letters(small: int = 100) -> Texts:
    """A language of which there is much, and one of which there is little."""
    none: dict[str, dict[int, bytes]] = {"much": {}, "little": {}}
    train = {"much": {0: b"a" * 1000}, "little": {0: b"b" * small}}
    return Texts(train=train, tuning=none, test=none)


# ---------------------------------------------------------------- the network


def test_a_block_is_pytorchs():
    torch.manual_seed(0)
    width, heads, places = 24, 3, 10
    block = DecoderBlock(width, heads)
    peer = nn.TransformerEncoderLayer(
        width, heads, 4 * width, dropout=0.0, activation="gelu", norm_first=True, batch_first=True
    )
    pairs = {
        block.queries_keys_values: (peer.self_attn.in_proj_weight, peer.self_attn.in_proj_bias),
        block.heads_together: (peer.self_attn.out_proj.weight, peer.self_attn.out_proj.bias),
        block.widen: (peer.linear1.weight, peer.linear1.bias),
        block.narrow: (peer.linear2.weight, peer.linear2.bias),
        block.norm_attention: (peer.norm1.weight, peer.norm1.bias),
        block.norm_mix: (peer.norm2.weight, peer.norm2.bias),
    }
    with torch.no_grad():
        for layer, (weight, bias) in pairs.items():
            weight.copy_(layer.weight.copy_(torch.randn_like(layer.weight)))
            bias.copy_(layer.bias.copy_(torch.randn_like(layer.bias)))
    distance, signal = causal_distance(heads, places), torch.randn(2, places, width)
    mask = distance.repeat(2, 1, 1)  # PyTorch's wants one for each head of each example
    torch.testing.assert_close(block(signal, distance), peer(signal, src_mask=mask), atol=1e-4, rtol=1e-4)


def test_what_comes_later_changes_nothing_before():
    network, text = decoder(), some_text()
    other = text.clone()
    other[:, 20:] = (other[:, 20:] + 1) % 256
    before, after = network(text), network(other)
    assert torch.equal(before[:, :20], after[:, :20])
    assert not torch.isclose(before[:, 20:], after[:, 20:]).all(-1).any()


def test_what_lies_further_back_counts_for_less_by_the_slope_of_the_head():
    distance = causal_distance(3, 4)
    assert distance[:, 3, 0].tolist() == [-6, -3, -1.5]
    assert (distance[:, 0, 1:] == -math.inf).all()


def test_every_weight_is_rounded_but_norms_and_biases_and_the_ends_can_have_another_width():
    network = ByteDecoder()
    table = describe(quantize_model(network, UniformQuantizer(4), first_last=8)).set_index("layer")
    assert table.index[0] == "embedding.weight"
    assert table.index[-1] == "head.weight"
    assert table.bits.tolist() == [8, *[4] * 8, 8]
    rounded = sum(math.prod(shape) for shape in table["shape"])
    total = sum(parameter.numel() for parameter in network.parameters())
    assert total == 273_024
    left = [name for name, p in network.named_parameters() if name not in table.index and p.ndim > 1]
    assert rounded > 0.98 * total
    assert not left


@pytest.mark.parametrize("axis", [None, 0], ids=["static", "dynamic"])
def test_what_enters_linear_layers_can_be_rounded(texts, axis):
    network = decoder()
    batches = [rows[:, :-1] for rows in windows(texts, each=4, length=network.context).values()]
    errors = []
    for bits in (4, 8):
        quantizer = UniformQuantizer(bits, symmetric=False, axis=axis)
        rounded = quantize_model(network, None, activations=(quantizer, batches))
        layers = [name for name, module in rounded.named_modules() if hasattr(module, "input_quantizer")]
        assert layers == [
            "blocks.0.queries_keys_values",
            "blocks.0.heads_together",
            "blocks.0.widen",
            "blocks.0.narrow",
            "head",
        ]
        errors.append(distance(rounded, network, batches[0]))
    assert 0 < 4 * errors[1] < errors[0] < 1


@pytest.mark.parametrize("factor", [1, 4, 32])
@pytest.mark.parametrize("louder", ["weights", "inputs"])
def test_louder_channels_compute_the_same(louder, factor):
    network, text = decoder(depth=2), some_text()
    kept = copy.deepcopy(network.state_dict())
    scaled = scale_norms(network, factor, louder=louder)
    torch.testing.assert_close(scaled(text), network(text), atol=1e-4, rtol=1e-4)
    assert all(torch.equal(tensor, kept[name]) for name, tensor in network.state_dict().items())
    layers = ["head", *(f"blocks.{n}.{name}" for n in (0, 1) for name in ("queries_keys_values", "widen"))]
    for name in layers:
        before, after = (one.get_submodule(name).weight for one in (network, scaled))
        if louder == "weights":
            torch.testing.assert_close(after.abs().max(), factor * before.abs().max())
        changed = (before != after).any(0).sum()
        assert changed == (factor != 1)


def test_a_louder_weight_makes_the_steps_wider_and_a_louder_input_those_of_the_inputs(texts):
    network, text = decoder(), some_text()
    batches = [rows[:, :-1] for rows in windows(texts, each=4, length=network.context).values()]
    activations = (UniformQuantizer(8, symmetric=False), batches)

    def error(scaled: ByteDecoder, **rounding) -> float:
        rounded = quantize_model(scaled, rounding.get("quantizer"), activations=rounding.get("activations"))
        return distance(rounded, network, text)

    for louder, rounding in (
        ("weights", {"quantizer": UniformQuantizer(8)}),
        ("inputs", {"activations": activations}),
    ):
        assert error(scale_norms(network, 16, louder=louder), **rounding) > 3 * error(network, **rounding)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: ByteDecoder(width=10, heads=4), "width is 10; expected a multiple of the 4 heads"),
        (lambda: ByteDecoder(depth=0), "depth is 0; expected a whole number of at least 1"),
        (lambda: decoder()(some_text(length=33)), "the text has 33 bytes; expected at most 32"),
        (lambda: scale_norms(decoder(), 0), "factor is 0"),
        (lambda: scale_norms(decoder(), 2, louder="all"), "louder is 'all'; expected weights or inputs"),
    ],
)
def test_what_the_network_cannot_do_is_refused(call, said):
    with pytest.raises(BadInput, match=re.escape(said)):
        call()


# ---------------------------------------------------------------- training


def test_a_seed_decides_the_weights(texts):
    networks = []
    for seed in (0, 0, 1):
        torch.rand(1)  # whatever was drawn elsewhere in between
        state = torch.get_rng_state()
        networks.append(train_language(texts, recipe=QUICK, seed=seed, **SMALL))
        assert torch.equal(state, torch.get_rng_state())
    first, again, other = networks
    assert not first.training
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
    assert not torch.equal(first.head.weight, other.head.weight)


def test_a_text_is_learned(texts, trained):
    """Much better than by the frequencies of bytes, which a network without attention could have."""
    for row in by_language(answer_texts(trained, texts)).itertuples():
        seen = torch.bincount(stream(texts.train[row.language]), minlength=256) + 1
        said = torch.cat([stream({n: text})[1:] for n, text in texts.test[row.language].items()])
        unigram = float(-(seen / seen.sum()).log2()[said].mean())
        assert row.bits_per_byte < unigram - 0.3


def shown(recipe: LanguageRecipe) -> pd.Series:
    """How often a window of each language is shown."""
    network, seen = ByteDecoder(**SMALL), []
    network.register_forward_pre_hook(lambda _, args: seen.append(args[0][:, -1]))
    fit_language(network, two_letters(), recipe=recipe)
    return pd.Series(torch.cat(seen).tolist()).map({ord("a"): "much", ord("b"): "little"}).value_counts()


@pytest.mark.parametrize(("sampling", "share"), [(None, 101 / 1102), ("even", 0.5), (0.5, 0.2411)])
def test_languages_are_shown_as_often_as_sampling_says(sampling, share):
    recipe = LanguageRecipe(steps=10, batch_size=200, sampling=sampling)
    counts = shown(recipe)
    assert counts.sum() == 2000
    assert counts["little"] / 2000 == pytest.approx(share, abs=4 * math.sqrt(0.25 / 2000))
    assert recipe.chances(torch.tensor([1001, 101]))[1] == pytest.approx(share, abs=1e-4)


def test_a_language_without_weight_teaches_nothing():
    recipe = replace(QUICK, loss_weights=(1.0, 0.0))
    networks = []
    for letter in (b"b", b"c"):
        texts = two_letters()
        texts.train["little"][0] = letter * 100
        networks.append(train_language(texts, recipe=recipe, **SMALL))
    first, other = (network.state_dict() for network in networks)
    assert all(torch.equal(tensor, other[name]) for name, tensor in first.items())


def test_weights_and_the_lack_of_them_are_told_apart():
    sizes = torch.tensor([1001, 101])
    assert LanguageRecipe().weights(sizes) is None
    weights = LanguageRecipe(loss_weights="inverse").weights(sizes)
    assert (weights * sizes).tolist() == pytest.approx([1, 1])
    first, other = (
        train_language(two_letters(), recipe=replace(QUICK, loss_weights=weights), **SMALL)
        for weights in (None, "inverse")
    )
    assert not torch.equal(first.head.weight, other.head.weight)
    alike = train_language(two_letters(), recipe=replace(QUICK, loss_weights=(3.0, 3.0)), **SMALL)
    torch.testing.assert_close(alike.head.weight, first.head.weight)


def test_training_while_rounded_repairs_what_rounding_broke(texts, trained):
    rounded = quantize_model(trained, UniformQuantizer(2), first_last=8)
    before = by_language(answer_texts(bake(rounded), texts)).bits_per_byte
    recipe = LanguageRecipe(steps=60, learning_rate=2e-3)
    repaired = bake(fit_language(copy.deepcopy(rounded), texts, recipe=recipe))
    assert len(repaired.blocks[0].widen.weight.unique()) == 3
    after = by_language(answer_texts(repaired, texts)).bits_per_byte
    assert (after < before).all()


def test_progress_counts_the_windows(texts):
    done = []
    train_language(texts, recipe=QUICK, report=lambda count, said="": done.append((count, said)), **SMALL)
    assert [count for count, _ in done] == [12] * 3
    assert re.fullmatch(r"\d\.\d\d bits a byte", done[-1][1])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"batch_size": 1.5}, "batch_size is 1.5"),
        ({"learning_rate": 0}, "learning_rate is 0"),
        ({"weight_decay": -1}, "weight_decay is -1"),
        ({"loss_weights": "dro"}, "loss_weights is 'dro'"),
        ({"sampling": 1.0}, "sampling is 1.0"),
        ({"sampling": True}, "sampling is True"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(settings, said):
    with pytest.raises(BadInput, match=re.escape(said)):
        LanguageRecipe(**settings)


def test_training_that_cannot_be_is_refused():
    for weights in ((1.0,), (0.0, 0.0), (1.0, -1.0)):
        with pytest.raises(BadInput, match="expected 2 numbers of at least 0, one for each language"):
            train_language(two_letters(), recipe=replace(QUICK, loss_weights=weights), **SMALL)
    with pytest.raises(BadInput, match="little has 11 bytes; expected at least 33"):
        train_language(two_letters(small=10), recipe=QUICK, **SMALL)
    with pytest.raises(BadInput, match=r"the loss became nan; .* lower learning_rate \(now 1e\+30\)"):
        train_language(two_letters(), recipe=replace(QUICK, learning_rate=1e30), **SMALL)


# ---------------------------------------------------------------- measures


@torch.no_grad()
def directly(network: ByteDecoder, article: bytes) -> list[tuple[float, int]]:
    """Of each byte its bits and the likeliest one, from the bytes before it and one at a time."""
    text, length = stream({0: article}), network.context
    step = length - length // 2
    found = []
    for place in range(len(article)):
        start = next(s for s in range(0, len(article), step) if place < s + length)
        logits = network(text[None, start : place + 1])[0, -1].double()
        found.append((float(-logits.log_softmax(0)[text[place + 1]] / math.log(2)), int(logits.argmax())))
    return found


@pytest.mark.parametrize("context", [1, 2, 5, 8, 64])
def test_each_byte_is_told_once_from_those_before_it(context):
    network = decoder(context=context)
    articles = {3: b"x", 5: b"Everyone has the right to life", 9: b"eight by"}
    held_out = Texts(train={"A": {0: b"a"}}, tuning={"A": {}}, test={"A": articles})
    answers = answer_texts(network, held_out)
    expected = [row for article in articles.values() for row in directly(network, article)]
    assert bytes(answers.text.tolist()) == b"".join(articles.values())
    assert answers.article.tolist() == [n for n, text in articles.items() for _ in text]
    bits, likeliest = zip(*expected, strict=True)
    torch.testing.assert_close(
        answers.loss.double() / math.log(2), torch.tensor(bits).double(), atol=1e-5, rtol=1e-5
    )
    assert answers.answer.tolist() == list(likeliest)
    table = by_article(answers).set_index("article")
    assert table.bits_per_byte[5] == pytest.approx(np.mean(bits[1:31]))
    assert table.bits[5] == pytest.approx(np.sum(bits[1:31]))
    whole = by_language(answers).loc[0]
    assert (whole.language, whole.bytes, whole.bits) == ("A", 39, pytest.approx(np.sum(bits)))
    right = [byte == guess for byte, guess in zip(b"".join(articles.values()), likeliest, strict=True)]
    assert whole.accuracy == pytest.approx(np.mean(right))


def test_rounding_is_judged_article_by_article(texts, trained):
    before = answer_texts(trained, texts)
    after = answer_texts(bake(quantize_model(trained, UniformQuantizer(3))), texts)
    table = changes(before, after)
    assert list(zip(table.language, table.article, strict=True)) == [
        (language, number) for language, articles in texts.test.items() for number in articles
    ]
    first, second = by_article(before), by_article(after)
    assert np.allclose(table.bits, second.bits - first.bits)
    assert np.allclose(table.relative, second.bits / first.bits - 1)
    assert np.allclose(table.bits_per_byte, second.bits_per_byte - first.bits_per_byte)
    assert np.allclose(table.accuracy, second.accuracy - first.accuracy)
    own = (before.language == 1) & (before.article == 10)
    flips = (before.answer != after.answer)[own].double().mean()
    assert table.query("language == 'Greek' and article == 10").flips.item() == pytest.approx(float(flips))
    assert 0 < flips < 1
    unchanged = changes(before, before)
    assert not unchanged[["bits", "relative", "bits_per_byte", "accuracy", "flips"]].any(axis=None)


def test_answers_to_other_texts_are_not_compared(texts, trained):
    with pytest.raises(BadInput, match="of other texts"):
        changes(answer_texts(trained, texts), answer_texts(trained, texts, "tuning"))
    with pytest.raises(BadInput, match="tuning has no article"):
        answer_texts(trained, replace(texts, tuning={language: {} for language in FOUR}), "tuning")


def test_reading_leaves_the_network_in_its_mode(texts):
    network = decoder().train()
    assert isinstance(answer_texts(network, texts), ByteAnswers)
    assert network.training


# ---------------------------------------------------------------- the landscape


def test_the_landscape_is_that_of_the_exact_hessian(texts):
    network = decoder(width=4, context=8).double().requires_grad_(False)
    names = [name for name, p in network.named_parameters() if name.startswith("blocks") and p.ndim == 2]
    survey = LanguageSurvey(windows_per_language=4, tol=1e-4, max_iterations=100)
    table = landscape_by_language(network, texts, survey, seed=5, parameters=names).set_index("language")
    assert table.index.tolist() == list(FOUR)
    rows = windows(texts, each=4, length=8, part="test", seed=5)["Greek"]
    shapes = [network.get_parameter(name).shape for name in names]

    def loss(vector: Tensor) -> Tensor:
        parts = vector.split([shape.numel() for shape in shapes])
        given = {name: part.view(shape) for name, part, shape in zip(names, parts, shapes, strict=True)}
        logits = functional_call(network, given, (rows[:, :-1],))
        losses = [-logits[i, j].log_softmax(0)[rows[i, j + 1]] for i in range(4) for j in range(8)]
        return torch.stack(losses).mean()

    start = torch.cat([network.get_parameter(name).detach().flatten() for name in names])
    with sdpa_kernel(SDPBackend.MATH):
        exact = torch.autograd.functional.hessian(loss, start)
        gradient = torch.func.grad(loss)(start)
    greek = table.loc["Greek"]
    assert greek.converged
    assert greek.eigenvalue == pytest.approx(float(torch.linalg.eigvalsh(exact)[-1]), rel=1e-4)
    assert greek.loss == pytest.approx(float(loss(start)))
    assert greek.gradient_norm == pytest.approx(float(gradient.norm()))


def test_a_landscape_can_be_seen_around_rounded_weights_and_says_where_it_stopped(texts, trained):
    rounded = bake(quantize_model(trained, UniformQuantizer(4)))
    survey = LanguageSurvey(windows_per_language=2, max_iterations=1, tol=1e-6)
    tables = [landscape_by_language(network, texts, survey) for network in (trained, rounded)]
    assert not any(table.converged.any() for table in tables)
    assert all((table.iterations == 1).all() for table in tables)
    assert not np.isclose(tables[0].gradient_norm, tables[1].gradient_norm, rtol=1e-3).any()


def test_the_loss_of_windows_is_the_mean_over_their_bytes():
    logits, text = torch.randn(3, 5, 256), some_text(3, 5)
    each = [-logits[i, j].log_softmax(0)[text[i, j]] for i in range(3) for j in range(5)]
    torch.testing.assert_close(byte_loss(logits, text), torch.stack(each).mean())


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"windows_per_language": 0}, "windows_per_language is 0"), ({"tol": 0}, "tol is 0")],
)
def test_a_survey_that_cannot_be_is_refused(settings, said):
    with pytest.raises(BadInput, match=said):
        LanguageSurvey(**settings)
