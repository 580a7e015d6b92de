import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_sample_weight
from torch import nn
from torch.nn import functional as F

from fairq_utils import fairqat
from fairq_utils.data import Dataset
from fairq_utils.errors import BadInput
from fairq_utils.fairqat import FairQAT
from fairq_utils.quantizers import UniformQuantizer
from fairq_utils.training import Recipe

SIZES = [30, 6, 12]
ONE_STEP = Recipe(
    epochs=1, batch_size=100, learning_rate=0.1, momentum=0.0, weight_decay=0.0, flip=False, shift=0.0
)


@pytest.fixture
def data():
    torch.manual_seed(0)
    groups = torch.repeat_interleave(torch.arange(3), torch.tensor(SIZES))
    images = torch.randint(0, 256, (48, 3, 4, 4), dtype=torch.uint8)
    labels = torch.randint(0, 2, (48,))
    return Dataset(images, labels, groups, torch.ones(48, dtype=torch.bool), ("no", "yes"), ("a", "b", "c"))


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
        ("paper", lambda groups: np.array([0.2, 0.6, 0.2])[groups]),
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
    rows = fairqat._sample(groups, torch.tensor(sizes), sampling, torch.Generator().manual_seed(seed))
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
    sizes = torch.tensor(SIZES)
    first, second = (set(fairqat._sample(data.groups, sizes, "under", random).tolist()) for _ in range(2))
    assert first != second


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
    method = FairQAT(4, sampling="both", loss_weights="inverse", recipe=Recipe(epochs=2, batch_size=16))
    one, same, other = (method.fit(network, data, seed=seed)[1].weight for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"loss_weights": "heavy"},
            "loss_weights is 'heavy'; expected None, inverse, effective, paper or a number",
        ),
        ({"loss_weights": [1, 2]}, r"loss_weights is \[1, 2\]; expected 3 numbers of at least 0"),
        ({"loss_weights": [1, 2, -1]}, "expected 3 numbers of at least 0"),
        ({"loss_weights": [0, 0, 0]}, "expected 3 numbers of at least 0"),
        ({"sampling": "up"}, "sampling is 'up'; expected None, over, under or both"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(data, network, options, said):
    with pytest.raises(BadInput, match=said):
        FairQAT(4, **options).fit(network, data)


def test_a_group_without_images_is_refused(data, network):
    empty = Dataset(
        data.images, data.labels, data.groups.clamp(max=1), data.is_train, data.label_names, data.group_names
    )
    with pytest.raises(BadInput, match="group c has no training image"):
        FairQAT(4).fit(network, empty)
