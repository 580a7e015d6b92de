import importlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fairq_utils.errors import BadInput
from fairq_utils.progress import progress
from fairq_utils.training.loop import Recipe, augment, fit, predict, to_input, train


def stripes(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Upright and lying stripes at random phases: nothing but the direction tells them apart."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 2
    phase = torch.randint(0, 8, (count, 1, 1), generator=random)
    upright = ((torch.arange(32).reshape(1, 1, 32) + phase) % 8 < 4).expand(count, 32, 32)
    images = torch.where(labels[:, None, None] == 0, upright, upright.transpose(1, 2))
    return (images[:, None] * 200).to(torch.uint8).expand(-1, 3, -1, -1).contiguous(), labels


QUICK = Recipe(epochs=1, batch_size=16)


def weights(network: nn.Module) -> torch.Tensor:
    return torch.cat([value.flatten().double() for value in network.state_dict().values()])


def test_the_seed_decides_the_network_and_the_callers_random_state_does_not():
    images, labels = stripes(64)
    torch.manual_seed(1)
    first = train("resnet18", images, labels, classes=2, recipe=QUICK, seed=5)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    second = train("resnet18", images, labels, classes=2, recipe=QUICK, seed=5)
    other = train("resnet18", images, labels, classes=2, recipe=QUICK, seed=6)
    assert torch.equal(weights(first), weights(second))
    assert not torch.equal(weights(first), weights(other))
    assert torch.equal(torch.get_rng_state(), state)


def test_it_learns():
    images, labels = stripes(320)
    recipe = Recipe(epochs=3, batch_size=16, flip=False)
    network = train("resnet18", images[:256], labels[:256], classes=2, recipe=recipe)
    accuracy = (predict(network, images[256:]).argmax(1) == labels[256:]).float().mean()
    assert accuracy > 0.9
    assert not network.training
    assert {parameter.device.type for parameter in network.parameters()} == {"cpu"}


def test_a_diverging_run_is_stopped_and_named():
    images, labels = stripes(64)
    with pytest.raises(BadInput, match=r"wild: the loss became .*lower learning_rate"):
        train(
            "resnet18",
            images,
            labels,
            classes=2,
            recipe=Recipe(epochs=3, batch_size=16, learning_rate=1e30),
            description="wild",
        )


def test_too_few_images_are_refused():
    with pytest.raises(BadInput, match="1 images to train on; expected at least 2"):
        train(
            "resnet18",
            torch.zeros(1, 3, 32, 32, dtype=torch.uint8),
            torch.zeros(1, dtype=torch.long),
            classes=2,
        )


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"epochs": "two"}, "epochs is 'two'"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"shift": 0.5}, "shift is 0.5"),
    ],
)
def test_a_recipe_nobody_can_follow_is_refused(wrong, said):
    with pytest.raises(BadInput, match=said):
        Recipe(**wrong)


def test_predictions_do_not_depend_on_the_batch_and_leave_the_network_alone():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(), nn.LazyLinear(5)
    )
    images = torch.randint(0, 256, (13, 3, 8, 8), dtype=torch.uint8)
    network.eval()
    network(to_input(images))
    network.train()
    before = weights(network)
    whole = predict(network, images)
    torch.testing.assert_close(predict(network, images, batch_size=4), whole, rtol=1e-5, atol=1e-6)
    assert network.training
    assert torch.equal(weights(network), before)


@given(seed=st.integers(0, 2**16), size=st.integers(4, 12), shift=st.sampled_from([0.0, 0.1, 0.3]))
def test_augmenting_mirrors_and_moves_whole_images(seed, size, shift):
    random = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (6, 3, size, size + 1), generator=random, dtype=torch.uint8)
    moved = augment(images, Recipe(shift=shift), torch.Generator().manual_seed(seed)).numpy()
    up, across = round(shift * size), round(shift * (size + 1))
    for image, result in zip(images.numpy(), moved, strict=True):
        # numpy's own padding by the edge, and every place a window can be cut from it
        padded = np.pad(image, ((0, 0), (up, up), (across, across)), mode="edge")
        windows = [
            padded[:, y : y + size, x : x + size + 1]
            for y in range(2 * up + 1)
            for x in range(2 * across + 1)
        ]
        candidates = windows + [window[:, :, ::-1] for window in windows]
        assert any(np.array_equal(result, candidate) for candidate in candidates)


@pytest.mark.parametrize("size", [16, 24, 32])
def test_weights_that_no_image_reaches_stay_near_where_they_began(size):
    images, labels = stripes(40)
    recipe = Recipe(epochs=2, batch_size=20)
    network = train("resnet18", images[..., :size, :size], labels, classes=2, recipe=recipe)
    # Of small images, most taps of the last kernels see nothing but padding.
    assert network.layer4[0].conv1.weight.detach().abs().max() < 1


@pytest.mark.parametrize(("epochs", "steps"), [(0.01, 1), (0.5, 2), (1, 5), (1.5, 8)])
def test_half_an_epoch_shows_half_of_the_images(epochs, steps):
    images, labels = stripes(50)
    shown = []
    recipe = Recipe(epochs=epochs, batch_size=10)
    fit(small(), images, labels, recipe=recipe, report=lambda done, said="": shown.append(done // 3))
    assert sum(shown) == steps * 10


def test_a_whole_number_of_epochs_is_one_recipe_however_it_is_written():
    assert repr(Recipe(epochs=2.0)) == repr(Recipe(epochs=2))


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2))


@pytest.mark.parametrize(("told", "drawn"), [("0", False), ("1", True)])
def test_progress_is_drawn_when_asked_for(monkeypatch, capsys, told, drawn):
    monkeypatch.setenv("FAIRQ_PROGRESS", told)
    with progress(total=3, description="counting") as bar:
        bar.update(3)
    assert ("counting" in capsys.readouterr().err) == drawn


def test_progress_is_quiet_without_a_terminal(monkeypatch, capsys):
    importlib.import_module("ipykernel.kernelapp")  # as nbclient does: this is no kernel yet
    monkeypatch.delenv("FAIRQ_PROGRESS", raising=False)
    with progress(total=3, description="counting") as bar:
        bar.update(3)
    assert capsys.readouterr().err == ""
