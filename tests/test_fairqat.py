import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_sample_weight
from torch import nn
from torch.nn import functional as F

from fairq_utils.data.datasets import Dataset
from fairq_utils.errors import BadInput
from fairq_utils.quantization.models import bake, describe
from fairq_utils.quantization.quantizers import LearnedStepQuantizer, UniformQuantizer
from fairq_utils.training import fairqat
from fairq_utils.training.architectures import build
from fairq_utils.training.fairqat import FairQAT
from fairq_utils.training.loop import Checkpoint, Recipe, predict

SIZES = [30, 6, 12]
ONE_STEP = Recipe(
    epochs=1, batch_size=100, learning_rate=0.1, momentum=0.0, weight_decay=0.0, flip=False, shift=0.0
)


SHORT = Recipe(epochs=2, batch_size=16)
README = Path(__file__).parents[1] / "README.md"


@pytest.fixture
def data():
    torch.manual_seed(0)
    groups = torch.repeat_interleave(torch.arange(3), torch.tensor(SIZES))
    images = torch.randint(0, 256, (48, 3, 4, 4), dtype=torch.uint8)
    labels = torch.randint(0, 2, (48,))
    none = torch.zeros(48, dtype=torch.bool)
    return Dataset(images, labels, groups, ~none, none, ("no", "yes"), ("a", "b", "c"))


def some_for_tuning(data, part):
    """The data with a part of the training images taken for tuning."""
    chosen = torch.arange(len(data.labels)) % part == 0
    return replace(data, is_train=~chosen, is_tuning=chosen)


@pytest.fixture
def network():
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 6), nn.ReLU(), nn.Linear(6, 2))


def gradients_of_the_weighted_mean(network, data, example_weights):
    losses = F.cross_entropy(network(data.images.float() / 63.75 - 2), data.labels, reduction="none")
    weights = torch.as_tensor(example_weights, dtype=torch.float32)
    return torch.autograd.grad((losses * weights / weights.sum()).sum(), list(network.parameters()))


@pytest.mark.parametrize(
    ("loss_weights", "expected"),
    [
        (None, lambda groups: np.ones(48)),
        ("inverse", lambda groups: compute_sample_weight("balanced", groups)),
        (0.6, lambda groups: np.array([0.2, 0.6, 0.2])[groups]),
        ((1, 0, 3), lambda groups: np.array([1, 0, 3])[groups]),
    ],
)
def test_the_loss_weights_groups(data, network, loss_weights, expected):
    gradients = gradients_of_the_weighted_mean(network, data, expected(data.groups.numpy()))
    trained = FairQAT(None, loss_weights=loss_weights, recipe=ONE_STEP).fit(network, data)
    moved = flat(network.parameters()) - flat(trained.parameters())
    # In the direction of the gradient, up to the rounding of bfloat16 where training uses it.
    assert torch.cosine_similarity(moved, flat(gradients), dim=0) > 0.999


def flat(tensors):
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def test_effective_numbers_lie_between_equal_and_inverse():
    sizes = torch.tensor([5000, 700, 60])
    ratio = {}
    for name in ("inverse", "effective"):
        weights = FairQAT(4, loss_weights=name)._group_weights(sizes)
        ratio[name] = float(weights[2] / weights[0])
    assert 1 < ratio["effective"] < ratio["inverse"] == pytest.approx(5000 / 60)


@given(
    st.lists(st.integers(1, 40), min_size=2, max_size=5),
    st.sampled_from(["over", "under", "both"]),
    st.integers(0, 9),
)
def test_sampling_shows_every_group_equally_often_and_no_image_much_more_than_another(sizes, sampling, seed):
    groups = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    wanted_of_each = fairqat._wanted(torch.tensor(sizes), sampling)
    rows = fairqat._sample(groups, wanted_of_each, torch.Generator().manual_seed(seed))
    seen = np.bincount(groups[rows], minlength=len(sizes))
    wanted = {
        "over": max(sizes),
        "under": min(sizes),
        "both": float(torch.tensor(sizes).float().mean().round()),
    }
    assert (seen == wanted[sampling]).all()
    times = torch.bincount(rows, minlength=len(groups))
    for group in range(len(sizes)):
        own = times[groups == group]
        assert int(own.max() - own.min()) <= 1


def test_every_epoch_draws_another_part(data):
    random = torch.Generator().manual_seed(0)
    wanted = fairqat._wanted(torch.tensor(SIZES), "under")
    first, second = (set(fairqat._sample(data.groups, wanted, random).tolist()) for _ in range(2))
    assert first != second


@given(st.lists(st.integers(1, 4000), min_size=2, max_size=6), st.floats(0.01, 0.99))
def test_sampling_half_the_way_keeps_the_order_of_groups_and_the_length_of_an_epoch(sizes, way):
    own = torch.tensor(sizes)
    wanted = fairqat._wanted(own, way)
    assert abs(int(wanted.sum()) - sum(sizes)) <= len(sizes)
    assert (wanted[own.argsort()].diff() >= 0).all()
    assert wanted.max() - wanted.min() <= own.max() - own.min() + 1


# ---------------------------------------------------------------- closed forms


def two_points(shares, groups=None):
    """One image again and again, whose label cannot be told: the best answer is known by hand."""
    labels = torch.repeat_interleave(torch.arange(len(shares)), torch.tensor(shares))
    images = torch.full((len(labels), 3, 2, 2), 200, dtype=torch.uint8)
    names = tuple("abc"[: len(shares)])
    none = torch.zeros(len(labels), dtype=torch.bool)
    return Dataset(images, labels, labels if groups is None else groups, ~none, none, names, names)


def answer(method, data):
    """The probabilities of the labels after training a network that can only learn these."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    recipe = Recipe(epochs=150, batch_size=100, learning_rate=0.2, weight_decay=0.0, flip=False, shift=0.0)
    trained = replace(method, recipe=recipe).fit(network, data)
    return predict(trained, data.images[:1]).softmax(dim=1)[0]


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (FairQAT(None), 10 / 50),
        (FairQAT(None, loss_weights="inverse"), 0.5),
        # 40 images at 0.3 and 10 at 0.7
        (FairQAT(None, loss_weights=0.7), 10 * 0.7 / (40 * 0.3 + 10 * 0.7)),
        (FairQAT(None, loss_weights=(1, 2)), 20 / 60),
        (FairQAT(None, sampling="both"), 0.5),
        # as log odds, half of log(1 / 4)
        (FairQAT(None, sampling=0.5), 1 / 3),
        (FairQAT(None, logit_adjustment=1.0), 0.5),
        (FairQAT(None, logit_adjustment=0.5), 1 / 3),
        # of equal losses none grows: the ascent ends where both groups are as badly off
        (FairQAT(None, loss_weights="dro"), 0.5),
    ],
)
def test_two_points_are_weighed_as_by_hand(method, expected):
    assert float(answer(method, two_points([40, 10]))[1]) == pytest.approx(expected, abs=0.03)


def test_weights_go_by_group_where_groups_are_not_labels():
    data = two_points([30, 30], groups=torch.tensor([0] * 40 + [1] * 20))  # all of b are of label 1
    method = FairQAT(None, loss_weights=(1, 3))
    assert float(answer(method, data)[1]) == pytest.approx((10 + 3 * 20) / (30 + 10 + 3 * 20), abs=0.03)


def test_the_weights_of_dro_grow_exponentially_with_the_loss():
    groups = torch.tensor([0, 0, 1, 2])
    loss = fairqat._GroupDRO(groups, torch.full((3,), 1 / 3), torch.zeros(2))
    logits = torch.tensor([[2.0, 0.0], [0.0, 0.0], [0.0, 1.0], [0.0, 3.0]])
    labels = torch.tensor([0, 0, 0, 0])
    own = F.cross_entropy(logits, labels, reduction="none")
    of_groups = torch.stack([own[:2].mean(), own[2], own[3]])
    for _ in range(5):
        value = loss(logits, labels, torch.arange(4))
    expected = torch.softmax(5 * fairqat._DRO_STEP * of_groups, dim=0)
    torch.testing.assert_close(loss.weights, expected)
    torch.testing.assert_close(value, (expected * of_groups).sum())


# ---------------------------------------------------------------- what comes back


def test_the_original_stays_and_the_copy_lies_on_the_grid(data, network):
    before = [parameter.detach().clone() for parameter in network.parameters()]
    trained = FairQAT(3, first_last=None, recipe=ONE_STEP).fit(network, data)
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    for layer in (1, 3):
        weight = trained[layer].weight
        torch.testing.assert_close(UniformQuantizer(3)(weight), weight, rtol=1e-6, atol=0)
        assert not torch.equal(weight, network[layer].weight)


def test_first_and_last_keep_their_own_width(data, network):
    trained = FairQAT(2, recipe=ONE_STEP).fit(network, data)  # both layers are ends here
    assert len(trained[1].weight.unique()) > 3


def test_equal_seeds_give_equal_networks(data, network):
    method = FairQAT(4, sampling="both", loss_weights="inverse", recipe=SHORT)
    one, same, other = (method.fit(network, data, seed=seed)[1].weight for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"loss_weights": "heavy"},
            "loss_weights is 'heavy'; expected None, inverse, effective, dro, a number between 0 and 1, or",
        ),
        ({"loss_weights": [1, 2]}, r"loss_weights is \[1, 2\]; expected 3 numbers of at least 0"),
        ({"loss_weights": [1, 2, -1]}, "expected 3 numbers of at least 0"),
        ({"loss_weights": [0, 0, 0]}, "expected 3 numbers of at least 0"),
        ({"loss_weights": 1.5}, "loss_weights is 1.5; expected None"),
        ({"sampling": "up"}, "sampling is 'up'; expected None, over, under, both or a number"),
        ({"sampling": 1.0}, "sampling is 1.0; expected None"),
        ({"logit_adjustment": -1.0}, "logit_adjustment is -1.0; expected a number of at least 0"),
        ({"patience": 0}, "patience is 0; expected None or at least 1 epoch"),
        ({"quantizer": UniformQuantizer(3)}, "bits is 4 beside a quantizer; expected one of the two"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(data, network, options, said):
    with pytest.raises(BadInput, match=said):
        FairQAT(**{"bits": 4} | options).fit(network, data)


@pytest.mark.parametrize("bits", [0, 1, 17])
def test_a_width_that_there_is_not_is_refused_at_once(bits):
    with pytest.raises(BadInput, match=f"bits is {bits}"):
        FairQAT(bits)


def test_epochs_are_those_of_the_recipe():
    assert FairQAT(4, epochs=7).recipe == replace(FairQAT(4).recipe, epochs=7)
    assert replace(FairQAT(4, epochs=7), bits=3).recipe.epochs == 7
    with pytest.raises(BadInput, match="epochs is -1; expected a number above 0"):
        FairQAT(4, epochs=-1)


def test_weights_may_come_as_an_array(data, network):
    one, two = (
        FairQAT(4, loss_weights=weights, recipe=SHORT).fit(network, data)[1].weight
        for weights in (np.array([1, 2, 3.0]), (1, 2, 3))
    )
    assert torch.equal(one, two)


def test_the_shares_of_labels_are_those_of_images_as_they_are_shown():
    # Sampling makes both labels as frequent: nothing is left to adjust.
    both = answer(FairQAT(None, sampling="both", logit_adjustment=1.0), two_points([40, 10]))
    assert float(both[1]) == pytest.approx(0.5, abs=0.03)


def test_a_group_without_images_is_refused_where_groups_are_weighted(data, network):
    empty = replace(data, groups=data.groups.clamp(max=1))
    with pytest.raises(BadInput, match="group c has no training image"):
        FairQAT(4, loss_weights="inverse").fit(network, empty)
    with pytest.raises(BadInput, match="group c has no training image"):
        FairQAT(4, sampling="both").fit(network, empty)
    FairQAT(4, recipe=SHORT).fit(network, empty)


@pytest.mark.parametrize("arch", ["resnet18", "efficientnet_b0", "vit"])
def test_mixed_precision_gives_each_layer_its_bits(arch):
    network = build(arch, classes=2, image_size=32)
    bits = describe(bake(FairQAT(3)._quantized(network)))["bits"]
    assert len(bits) > 10
    assert list(bits.iloc[[0, -1]]) == [8, 8]
    assert set(bits.iloc[1:-1]) == {3}
    widths = {
        name: len(tensor.unique()) for name, tensor in weights_of(FairQAT(3)._quantized(network)).items()
    }
    assert min(widths.values()) <= 7 < 100 < next(iter(widths.values()))


def weights_of(network):
    baked = bake(network)
    return {
        name: module.weight
        for name, module in baked.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    }


def test_what_comes_back_answers_as_what_was_trained_bit_for_bit(data, monkeypatch):
    trained = []
    monkeypatch.setattr(fairqat, "bake", lambda network: trained.append(network) or bake(network))
    torch.manual_seed(0)
    network = torchvision.models.resnet18(num_classes=2)
    data = replace(data, images=data.images.repeat(1, 1, 8, 8))
    baked = FairQAT(4, recipe=SHORT).fit(network, data)
    assert torch.equal(predict(baked, data.images), predict(trained[0], data.images))
    table = describe(baked)
    assert (table["lowest"] >= table["bits"].map(lambda bits: -(2 ** (bits - 1)))).all()
    assert (table["highest"] <= table["bits"].map(lambda bits: 2 ** (bits - 1) - 1)).all()


def test_frozen_layers_stay_and_shared_weights_stay_shared(data):
    torch.manual_seed(0)
    shared = nn.Linear(6, 6)
    network = nn.Sequential(
        nn.Flatten(), nn.Linear(48, 6), nn.ReLU(), shared, nn.ReLU(), shared, nn.Linear(6, 2)
    )
    for parameter in network[1].parameters():
        parameter.requires_grad_(False)
    trained = FairQAT(4, recipe=SHORT).fit(network, data)
    torch.testing.assert_close(trained[1].weight, UniformQuantizer(8)(network[1].weight), rtol=0, atol=0)
    assert torch.equal(trained[1].bias, network[1].bias)
    assert trained[3].weight is trained[5].weight
    assert not torch.equal(trained[3].bias, network[3].bias)


def test_a_network_with_nothing_to_round_is_refused(data):
    with pytest.raises(BadInput, match="no convolution, linear layer, attention or embedding"):
        FairQAT(4).fit(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(48)), data)


# ---------------------------------------------------------------- on the way


def test_neither_images_for_tuning_nor_test_images_are_learned_from(data, network):
    place = torch.arange(48) % 5
    data = replace(data, is_train=place > 1, is_tuning=place == 1)
    method = FairQAT(4, recipe=SHORT, patience=None)
    hidden = (~data.is_train)[:, None, None, None]
    other = replace(data, images=torch.where(hidden, 255 - data.images, data.images))
    same = replace(data, images=torch.where(hidden, data.images, 255 - data.images))
    one, two, three = (method.fit(network, some)[1].weight for some in (data, other, same))
    assert torch.equal(one, two)
    assert not torch.equal(one, three)


def test_it_says_how_it_stands(data, network):
    said = []
    watched = some_for_tuning(data, 3)
    trained = FairQAT(4, recipe=SHORT, patience=None).fit(
        network, watched, report=lambda done, text="": said.append(text)
    )
    told = [text for text in said if text]
    assert len(told) == 2
    assert all(re.fullmatch(r"loss \d+\.\d\d, OA \d+%, worst [abc] \d+%", text) for text in told)
    right = (predict(trained, data.images).argmax(dim=1) == data.labels)[watched.is_tuning]
    assert f"OA {right.float().mean():.0%}," in told[-1]


def test_without_images_for_tuning_nothing_is_watched(data, network):
    said = []
    FairQAT(4, recipe=SHORT).fit(network, data, report=lambda done, text="": said.append(text))
    assert all("OA" not in text for text in said)


class Interrupted(Exception):
    pass


def interrupt(after, done, said=""):
    after[0] -= bool(said)  # once an epoch
    if after[0] == 0 and not said:
        raise Interrupted


@pytest.mark.parametrize(
    "method",
    [
        FairQAT(4, sampling="both", loss_weights="dro"),
        FairQAT(None, quantizer=LearnedStepQuantizer(3, axis=0), loss_weights="inverse"),
        FairQAT(None),
    ],
)
def test_an_interrupted_training_ends_in_the_same_weights(data, tmp_path, method):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Dropout(), nn.Linear(32, 2)
    )
    method = replace(method, recipe=Recipe(epochs=4, batch_size=16), patience=None)
    whole = method.fit(network, data, seed=3)
    checkpoint = Checkpoint(tmp_path / "folder" / "here.safetensors", every_seconds=0)
    with pytest.raises(Interrupted):
        method.fit(network, data, seed=3, checkpoint=checkpoint, report=partial(interrupt, [2]))
    assert checkpoint.path.exists()
    seen = []
    resumed = method.fit(
        network, data, seed=3, checkpoint=checkpoint, report=lambda done, said="": seen.append(said)
    )
    assert len(list(filter(None, seen))) == 2  # epochs, of four
    assert list(checkpoint.path.parent.iterdir()) == []
    for (name, one), two in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, two), name


def test_a_checkpoint_of_another_training_is_refused_and_a_damaged_one_not_used(data, network, tmp_path):
    checkpoint = Checkpoint(tmp_path / "here.safetensors", every_seconds=0)
    method = FairQAT(4, recipe=Recipe(epochs=3, batch_size=16))
    with pytest.raises(Interrupted):
        method.fit(network, data, checkpoint=checkpoint, report=partial(interrupt, [1]))
    with pytest.raises(BadInput, match="is of another training; expected one of this network, recipe and"):
        method.fit(network, data, checkpoint=checkpoint, seed=1)
    checkpoint.path.write_bytes(checkpoint.path.read_bytes()[:100])
    again = method.fit(network, data, checkpoint=checkpoint)
    assert torch.equal(again[1].weight, method.fit(network, data)[1].weight)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (FairQAT(4), FairQAT(3)),
        (FairQAT(4, loss_weights="inverse"), FairQAT(4, loss_weights=0.6)),
        (FairQAT(None), FairQAT(None, quantizer=LearnedStepQuantizer(4))),
        (FairQAT(4, sampling="over"), FairQAT(4, sampling="both")),
    ],
)
def test_a_checkpoint_of_another_method_is_refused(data, network, tmp_path, before, after):
    checkpoint = Checkpoint(tmp_path / "here.safetensors", every_seconds=0)
    with pytest.raises(Interrupted):
        replace(before, recipe=SHORT).fit(
            network, data, checkpoint=checkpoint, report=partial(interrupt, [1])
        )
    with pytest.raises(BadInput, match="is of another training"):
        replace(after, recipe=SHORT).fit(network, data, checkpoint=checkpoint)


def test_a_checkpoint_of_another_network_or_other_images_is_refused(data, network, tmp_path):
    checkpoint = Checkpoint(tmp_path / "here.safetensors", every_seconds=0)
    method = FairQAT(4, recipe=SHORT)
    with pytest.raises(Interrupted):
        method.fit(network, data, checkpoint=checkpoint, report=partial(interrupt, [1]))
    with pytest.raises(BadInput, match="is of another training"):
        method.fit(network, replace(data, images=255 - data.images), checkpoint=checkpoint)
    with torch.no_grad():
        network[1].weight.add_(1)
    with pytest.raises(BadInput, match="is of another training"):
        method.fit(network, data, checkpoint=checkpoint)


def test_a_checkpoint_that_cannot_be_written_is_said_in_one_sentence(data, network, tmp_path):
    (tmp_path / "file").touch()
    checkpoint = Checkpoint(tmp_path / "file" / "here.safetensors", every_seconds=0)
    with pytest.raises(BadInput, match=r"file cannot be written \(File exists\); expected a folder"):
        FairQAT(4, recipe=SHORT, patience=None).fit(network, data, checkpoint=checkpoint)


def test_a_diverging_training_is_stopped_and_named(data, network):
    wild = Recipe(epochs=3, batch_size=16, learning_rate=1e30)
    with pytest.raises(
        BadInput, match=r"mine: the loss became nan in epoch \d; expected a finite number, so l"
    ):
        FairQAT(4, recipe=wild).fit(network, data, description="mine")


def test_a_collapsed_training_is_stopped_and_named_unless_one_wants_to_see_it(data, network):
    with torch.no_grad():
        network[3].bias[1] = 1e4  # says yes to everything, and unlearns it slowly
    slow = Recipe(epochs=3, batch_size=16, learning_rate=1e-6)
    method, data = FairQAT(4, recipe=slow), some_for_tuning(data, 2)
    with pytest.raises(
        BadInput,
        match=r"24 images for tuning were given the label yes in 2 epochs in a row; expected several",
    ):
        method.fit(network, data)
    shown = replace(method, patience=None).fit(network, data)
    assert (predict(shown, data.images).argmax(dim=1) == 1).all()


def test_the_published_settings():
    assert FairQAT.paper(4) == FairQAT(4, first_last=8, loss_weights=0.6, sampling="both")
    weights = FairQAT.paper(2)._group_weights(torch.tensor([10, 4, 3, 4, 1]))
    torch.testing.assert_close(weights, torch.tensor([0.1, 0.1, 0.1, 0.1, 0.6]))


def test_what_the_readme_says_works(tmp_path, monkeypatch):
    (block,) = (
        b for b in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL) if "FairQAT" in b
    )
    photos = tmp_path / "photos"
    photos.mkdir()
    rows = ["file,label,group"]
    for number in range(60):
        pixels = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
        torchvision.io.write_png(pixels, str(photos / f"{number}.png"))
        rows.append(f"{number}.png,{('coat', 'shoe')[number % 2]},{('adult', 'child')[number % 3 == 0]}")
    (photos / "labels.csv").write_text("\n".join(rows))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FAIRQ_STORE", str(tmp_path / "store"))
    given = {"network": nn.Sequential(nn.Conv2d(3, 4, 8, stride=8), nn.Flatten(), nn.Linear(256, 2))}
    exec(block, given)
    assert (tmp_path / "repaired.safetensors").stat().st_size < 4000
