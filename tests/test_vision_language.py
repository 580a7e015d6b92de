from unittest.mock import patch

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fairq_utils.encoders.contrastive import ContrastiveRecipe, train_mini_classifier, train_mini_clip
from fairq_utils.encoders.linear_layers import quantize_linear
from fairq_utils.encoders.mini import PADDING, SHAPES, UNKNOWN, MiniCLIP, WordTokenizer, _at_each_window
from fairq_utils.errors import BadInput

WORDS = ("a", "red", "blue", "square")
ONCE = ContrastiveRecipe(epochs=1, batch_size=10)


def coloured(count: int) -> tuple[torch.Tensor, list[tuple[str, ...]]]:
    """Red and blue squares in turn, with noise."""
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 120, (count, 3, 16, 16), generator=random, dtype=torch.uint8)
    images[::2, 0] += 120
    images[1::2, 2] += 120
    return images, [
        ("a red square", "red") if i % 2 == 0 else ("a blue square", "blue") for i in range(count)
    ]


@pytest.fixture(scope="module")
def encoder() -> MiniCLIP:
    images, captions = coloured(60)
    recipe = ContrastiveRecipe(epochs=5, batch_size=10)
    return train_mini_clip("patch8", images, captions, words=WORDS, recipe=recipe)


def test_what_was_learned_is_found_by_other_words(encoder):
    images, _ = coloured(20)
    close = encoder.encode_images(images) @ encoder.encode_texts(["square red", "the blue one"]).T
    assert close.argmax(dim=1).tolist() == [0, 1] * 10


def test_training_is_the_seeds_and_leaves_the_global_random_state_alone():
    images, captions = coloured(20)
    state = torch.get_rng_state()
    first, again, other = (
        train_mini_clip("patch8", images, captions, words=WORDS, recipe=ONCE, seed=seed).state_dict()
        for seed in (0, 0, 1)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["word_vector"], other["word_vector"])


@pytest.mark.parametrize("arch", SHAPES)
def test_libraries_see_nearly_all_weights(arch):
    encoder = MiniCLIP(arch, WordTokenizer(tuple(f"word{i}" for i in range(60))), image_size=32)
    kinds = {
        type(module)
        for module in encoder.modules()
        if next(module.parameters(recurse=False), None) is not None
    }
    assert kinds == {MiniCLIP, nn.Linear, nn.LayerNorm, nn.BatchNorm1d}
    linear = sum(layer.weight.numel() for layer in encoder.modules() if isinstance(layer, nn.Linear))
    assert linear / sum(weight.numel() for weight in encoder.parameters()) > 0.9
    assert encoder.encode_images(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).shape == (1, 64)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [7, 8])
def test_windows_are_seen_alike_in_training_and_afterwards(side, stride):
    picture = torch.randn(3, 2, side, side, dtype=torch.float64, requires_grad=True)
    layer = nn.Linear(18, 5).double()

    def values_and_gradients() -> list[torch.Tensor]:
        found = _at_each_window(layer, picture, stride)
        return [found, *torch.autograd.grad(found.square().sum(), [picture, layer.weight, layer.bias])]

    with patch.object(F, "unfold", side_effect=AssertionError("no convolution while it trains")):
        trained = values_and_gradients()
    layer.eval()
    with patch.object(F, "conv2d", side_effect=AssertionError("a convolution outside of training")):
        used = values_and_gradients()
    for one, other in zip(trained, used, strict=True):
        torch.testing.assert_close(one, other)


def test_a_classifier_is_a_mini_clip_without_a_text_side():
    images, _ = coloured(20)
    labels = torch.arange(20) % 2
    classifier = train_mini_classifier("patch8", images, labels, names=("even", "odd"), recipe=ONCE)
    encoder = MiniCLIP("patch8", WordTokenizer(WORDS), image_size=images.shape[-1])
    of_images = {name for name in encoder.state_dict() if not name.startswith(("text_", "word_"))}
    assert classifier.state_dict().keys() - of_images == {"classes.weight"}
    assert of_images <= classifier.state_dict().keys()
    # Its directions survive what libraries put in place of linear layers.
    for treatment in ("torch-int8", "int8"):
        treated = quantize_linear(classifier, treatment)
        assert (treated.encode_texts(["odd"]) @ classifier.encode_texts(["odd"]).T).item() > 0.99
    with pytest.raises(BadInput, match="the text is 'a moth'; expected the name of a class"):
        classifier.encode_texts(["odd", "a moth"])
    with pytest.raises(BadInput, match="20 images and 19 labels"):
        train_mini_classifier("patch8", images, labels[1:], names=("even", "odd"))


def test_a_classifier_learns_to_tell_colours():
    images, _ = coloured(60)
    labels, names = torch.arange(60) % 2, ("red", "blue")
    recipe = ContrastiveRecipe(epochs=5, batch_size=10)
    classifier = train_mini_classifier("patch8", images, labels, names=names, recipe=recipe)
    new, _ = coloured(20)
    close = classifier.encode_images(new) @ classifier.encode_texts(names).T
    assert close.argmax(dim=1).tolist() == [0, 1] * 10


def test_the_answer_to_a_text_does_not_depend_on_the_texts_beside_it(encoder):
    alone = encoder.encode_texts(["red"])
    beside = encoder.encode_texts(["a blue square square square", "red"])[1:]
    assert torch.allclose(alone, beside, atol=1e-6)


def test_equal_texts_are_read_once_and_given_to_each(encoder, monkeypatch):
    read = []
    features = MiniCLIP.text_features
    monkeypatch.setattr(
        MiniCLIP, "text_features", lambda self, texts: read.append(texts) or features(self, texts)
    )
    directions = encoder.encode_texts(["red", "blue", "red"])
    assert read == [["red", "blue"]]
    assert torch.equal(directions[0], directions[2])


def test_unknown_words_have_a_number_and_short_texts_are_filled_up():
    tokens = WordTokenizer(WORDS, context=4)(["A RED, huge square!", "blue"])
    assert tokens.tolist() == [[2, 3, UNKNOWN, 5], [4, PADDING, PADDING, PADDING]]


def test_the_scale_is_positive_and_bounded(encoder):
    assert 1 < encoder.logit_scale <= 100 * (1 + 1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e: e.encode_texts([]), r"texts is \[\]"),
        (lambda e: e.encode_texts("red"), "texts is 'red'"),
        (lambda e: e.encode_texts(["red", " "]), "a text is ' '"),
        (lambda e: e.encode_texts([None]), "a text is None"),
        (lambda e: e.encode_texts(["lorem ipsum"]), "no word of 'lorem ipsum'"),
        (lambda e: e.encode_texts(["red " * 30]), "has 30 words; expected at most 24"),
        (lambda e: e.encode_images(torch.zeros(1, 3, 16, 16)), "torch.float32"),
        (lambda e: e.encode_images(torch.zeros(0, 3, 16, 16, dtype=torch.uint8)), "at least one image"),
        (
            lambda e: e.encode_images(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)),
            "32 x 32 pixels; expected 16",
        ),
        (lambda _: MiniCLIP("patch8", WordTokenizer(WORDS), image_size=20), "a multiple of 8"),
        (lambda _: WordTokenizer(()), "at least one word"),
        (lambda _: WordTokenizer(("a", "a")), "each once"),
        (lambda _: ContrastiveRecipe(batch_size=1), "batch_size is 1"),
        (lambda _: ContrastiveRecipe(learning_rate=-1.0), "learning_rate is -1.0"),
        (
            lambda _: train_mini_clip("patch8", coloured(4)[0], [("red",)], words=WORDS),
            "4 images and captions for 1",
        ),
        (
            lambda _: train_mini_clip("patch8", coloured(2)[0], [("red",), ()], words=WORDS),
            "an image has no caption",
        ),
    ],
)
def test_bad_input_is_refused_in_one_sentence(encoder, call, message):
    with pytest.raises(BadInput, match=message) as refusal:
        call(encoder)
    assert str(refusal.value).endswith(".")
    assert "\n" not in str(refusal.value)


def test_a_loss_that_explodes_is_said():
    images, captions = coloured(20)
    wild = ContrastiveRecipe(epochs=3, batch_size=10, learning_rate=1e30)
    with pytest.raises(BadInput, match="lower learning_rate"):
        train_mini_clip("patch8", images, captions, words=WORDS, recipe=wild)
