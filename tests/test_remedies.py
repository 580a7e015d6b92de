"""Pruning, bits by layer, offsets, shares of the loss and narrower networks, against others' code."""

import itertools

import numpy as np
import pytest
import torch
from scipy import optimize
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import prune

from fairq_utils import data
from fairq_utils.errors import BadInput
from fairq_utils.quantization.alignment import fit_offsets
from fairq_utils.quantization.allocation import allocate
from fairq_utils.quantization.models import bake, describe, quantize_model, storage_bytes, zero_share
from fairq_utils.quantization.pruning import MaskGrid, prune_model, sparsity_of
from fairq_utils.quantization.quantizers import UniformQuantizer
from fairq_utils.training.architectures import build
from fairq_utils.training.distillation import SoftLabels, narrower
from fairq_utils.training.fairqat import FairQAT
from fairq_utils.training.loop import Recipe, predict
from fairq_utils.treatments.bits_by_layer import WIDTHS, bits_by_layer
from fairq_utils.treatments.treatment import Treatment

SHORT = Recipe(epochs=1, batch_size=16, learning_rate=0.01)


@pytest.fixture(scope="module")
def moths():
    return data.load("moths", train_images=200, test_images=40)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build("resnet18-8", classes=5).eval()


# ---------------------------------------------------------------- pruning


@pytest.mark.parametrize("bits", [8, 4, 3, 2])
def test_the_smallest_weights_of_the_network_go_as_torch_prunes_them(network, bits):
    ours = bake(prune_model(network, sparsity_of(bits)))
    theirs = build("resnet18-8", classes=5)
    theirs.load_state_dict(network.state_dict())
    layers = [module for module in theirs.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    prune.global_unstructured(
        [(layer, "weight") for layer in layers], pruning_method=prune.L1Unstructured, amount=sparsity_of(bits)
    )
    own = [module for module in ours.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    for mine, other in zip(own, layers, strict=True):
        assert torch.equal(mine.weight, other.weight)


@pytest.mark.parametrize("bits", [8, 4, 3, 2])
def test_what_is_pruned_takes_the_bytes_of_the_width(network, bits):
    rounded = quantize_model(network, UniformQuantizer(bits))
    pruned = prune_model(network, sparsity_of(bits))
    scales = 4 * len(describe(rounded))  # which a mask does not have
    assert storage_bytes(pruned) == pytest.approx(storage_bytes(rounded) - scales, abs=len(describe(rounded)))
    assert storage_bytes(bake(pruned)) == storage_bytes(pruned)
    assert describe(pruned)["zero_share"].between(0, 1).all()
    assert zero_share(pruned)["total"] == pytest.approx(sparsity_of(bits), abs=1e-4)


def test_training_leaves_at_zero_what_was_pruned_and_moves_the_rest(network, moths):
    untrained = Treatment.parse("pruned4").apply(network, moths)
    trained = Treatment.parse("pruned4-qat").train(network, moths, recipe=SHORT)
    for name, weight in untrained.named_parameters():
        if weight.ndim > 1:
            after = trained.get_parameter(name)
            assert torch.equal(after == 0, weight == 0), name
            assert not torch.equal(after, weight), name
    other_way = Treatment.parse("pruned4-tuned")
    tuned = other_way.apply(other_way.train(network, moths, recipe=SHORT), moths)
    assert zero_share(tuned)["total"] == pytest.approx(sparsity_of(4), abs=1e-4)


def test_a_mask_tells_no_weights_and_pruning_refuses_what_makes_no_sense(network):
    with pytest.raises(BadInput, match="a mask does not say"):
        MaskGrid(torch.ones(()), torch.tensor([True])).dequantize(torch.tensor([1]))
    with pytest.raises(BadInput, match="sparsity is 1; expected a share from 0 to below 1"):
        prune_model(network, 1)
    with pytest.raises(BadInput, match="no convolution, linear layer"):
        prune_model(nn.ReLU(), 0.5)
    with pytest.raises(BadInput, match="bits is 1"):
        Treatment.parse("pruned1")
    kept = bake(prune_model(network, 0)).state_dict()
    assert all(torch.equal(kept[name], value) for name, value in network.state_dict().items())


# ---------------------------------------------------------------- bits by layer


def test_bits_go_where_the_best_of_all_allocations_puts_them():
    random = np.random.default_rng(0)
    widths, sizes = [2, 4, 8], {"a": 10, "b": 30, "c": 5, "d": 20}
    for _ in range(5):
        costs = {name: random.random((3, 2)) * [[3], [2], [1]] for name in sizes}

        def worst(chosen: tuple[int, ...], costs: dict = costs) -> float:
            own = [costs[name][widths.index(width)] for name, width in zip(sizes, chosen, strict=True)]
            return float(np.sum(own, axis=0).max())

        possible = [
            chosen
            for chosen in itertools.product(widths, repeat=4)
            if np.dot(chosen, list(sizes.values())) <= 4 * sum(sizes.values())
        ]
        found = allocate(costs, sizes, widths, bits=4)
        assert worst(tuple(found.values())) == pytest.approx(min(map(worst, possible)))
        assert tuple(found.values()) in possible


def test_layers_get_other_widths_at_no_more_bytes(network, moths):
    quantizer = UniformQuantizer(3)
    for whose in ("groups", "mean"):
        before = {name: value.clone() for name, value in network.state_dict().items()}
        widths = bits_by_layer(network, moths, quantizer, bits=3, whose=whose)
        assert all(torch.equal(network.state_dict()[name], value) for name, value in before.items())
        assert set(widths.values()) <= set(WIDTHS)
        assert len(set(widths.values())) > 1
        treated = Treatment.parse(f"int3-{whose.removesuffix('s')}bits").apply(network, moths)
        assert dict(describe(treated)[["layer", "bits"]].to_numpy()) == widths
        assert storage_bytes(treated) <= storage_bytes(quantize_model(network, quantizer)) + len(widths)


def test_bits_of_a_weight_that_is_not_there_are_refused(network):
    with pytest.raises(BadInput, match=r"bits are given of 'head'; expected of: conv1\.weight"):
        quantize_model(network, UniformQuantizer(3), bits={"head": 8})
    with pytest.raises(BadInput, match="bits is 1; expected at least 2"):
        allocate({"a": [1.0, 0.0]}, {"a": 1}, [2, 4], bits=1)
    with pytest.raises(BadInput, match="expected finite numbers, 2 widths by groups"):
        allocate({"a": [1.0, np.nan]}, {"a": 1}, [2, 4], bits=4)
    with pytest.raises(BadInput, match="gives bits to layers, which goes with ranges alone"):
        Treatment.parse("int4-ends8-groupbits")


# ---------------------------------------------------------------- offsets fitted to labels


@pytest.mark.parametrize("evenly", [False, True])
def test_offsets_are_those_under_which_labels_are_likeliest(evenly):
    torch.manual_seed(1)
    labels = torch.tensor([0] * 30 + [1] * 9 + [2] * 5)
    logits = (2 * F.one_hot(labels, 3) + torch.randn(44, 3) + torch.tensor([0.0, 1.0, -1.0])).double()
    weights = (1 / torch.bincount(labels).double())[labels] if evenly else torch.ones(44).double()

    def loss(shift: np.ndarray) -> float:
        own = F.cross_entropy(logits + torch.tensor([0.0, *shift]), labels, reduction="none")
        return float((weights * own).sum() / weights.sum())

    theirs = np.array([0.0, *optimize.minimize(loss, np.zeros(2), tol=1e-12).x])
    ours = fit_offsets(logits, labels, evenly=evenly).offsets.numpy()
    assert ours == pytest.approx(theirs - theirs.mean(), abs=1e-4)


def test_offsets_of_a_network_are_fitted_on_images_for_tuning_alone(network, moths):
    treated = Treatment.parse("int4-labels").apply(network, moths)
    rounded = Treatment.parse("int4").apply(network, moths)
    own = moths.is_tuning
    offsets = fit_offsets(predict(rounded, moths.images[own]), moths.labels[own]).offsets
    images = moths.images[moths.is_test]
    assert torch.allclose(predict(treated, images), predict(rounded, images) + offsets)
    with pytest.raises(BadInput, match="has offsets of two kinds"):
        Treatment.parse("int4-offsets-labels")
    with pytest.raises(BadInput, match="expected at least one of each of 3 labels"):
        fit_offsets(torch.zeros(2, 3), torch.tensor([0, 1]))
    with pytest.raises(BadInput, match="expected a row of logits for each label"):
        fit_offsets(torch.zeros(2, 3), torch.tensor([0, 1, 2]))


# ---------------------------------------------------------------- how it is trained


@pytest.mark.parametrize("sampling", [None, "both", "over", 0.5])
def test_the_smallest_group_has_the_share_of_the_loss_that_is_asked_for(sampling):
    groups = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)
    method = FairQAT(4, loss_share=0.32, sampling=sampling)
    sizes = torch.bincount(groups)
    weights = method._group_weights(sizes)
    shown = {None: [60, 30, 10], "both": [33, 33, 33], "over": [60, 60, 60], 0.5: [47.1, 33.3, 19.2]}[
        sampling
    ]
    shares = weights * torch.tensor(shown)
    assert float(shares[2] / shares.sum()) == pytest.approx(0.32, abs=0.01)
    assert weights[0] == weights[1]


def test_published_weights_give_a_third_of_the_loss_where_the_smallest_group_is_seven_percent():
    # UTKFace as its authors count it: White, Black, Asian, Indian, Others
    sizes = torch.tensor([10078, 4526, 3434, 3975, 1692])
    weights = FairQAT(4, loss_weights=0.6)._group_weights(sizes)
    assert float((weights * sizes)[4] / (weights * sizes).sum()) == pytest.approx(0.316, abs=0.001)


def test_of_groups_that_are_as_small_the_last_has_the_weight():
    for sizes, place in (([5, 5, 5], 2), ([5, 4, 4], 2), ([3, 4, 4], 0)):
        for method in (FairQAT(4, loss_weights=0.6), FairQAT(4, loss_share=0.6)):
            assert int(method._group_weights(torch.tensor(sizes)).argmax()) == place


def test_a_share_of_the_loss_is_refused_where_it_is_none_or_not_alone():
    with pytest.raises(BadInput, match="loss_share is 32; expected None or a number between 0 and 1"):
        FairQAT(4, loss_share=32)
    with pytest.raises(BadInput, match=r"loss_share is 0\.3 beside loss_weights 'inverse'"):
        FairQAT(4, loss_share=0.3, loss_weights="inverse")
    with pytest.raises(BadInput, match="leave out dro, share or weighted"):
        Treatment.parse("int4-qat-weighted-share32")


def test_passes_are_those_of_the_name(moths):
    plain, longer = Treatment.parse("int4-qat"), Treatment.parse("int4-qat-passes3")
    assert longer.images_seen(moths, SHORT) == 3 * plain.images_seen(moths, SHORT)
    with pytest.raises(BadInput, match="weights or samples, but does not train"):
        Treatment.parse("int4-passes3")


# ---------------------------------------------------------------- narrower networks


@pytest.mark.parametrize(("arch", "bits", "expected"), [("resnet18", 8, "resnet18-31"), ("vit", 8, "vit-60")])
def test_a_narrower_network_takes_no_more_than_its_share(arch, bits, expected):
    def size(arch: str) -> int:
        return sum(one.numel() for one in build(arch, classes=5).parameters())

    found = narrower(arch, bits / 32, classes=5)
    assert found == expected
    name, _, channels = found.partition("-")
    step = 4 if name == "vit" else 1
    assert size(found) <= bits / 32 * size(arch) < size(f"{name}-{int(channels) + step}")


def test_a_narrower_network_is_another_and_learns_from_the_first_where_it_is_asked(network, moths):
    for name in ("narrow8", "narrow8-distilled"):
        treatment = Treatment.parse(name)
        arch = treatment.arch("resnet18-32", moths)
        assert arch == narrower("resnet18-32", 8 / 32, classes=5)
        trained = treatment.train(network, moths, recipe=SHORT, arch=arch)
        assert trained.conv1.out_channels == int(arch.partition("-")[2])
        assert treatment.images_seen(moths, SHORT) == int(moths.is_train.sum())
        assert treatment.apply(trained, moths) is trained
    for arch, share in (("mobilenet_v3_small", 0.5), ("resnet18-2", 1e-6)):
        with pytest.raises(BadInput, match=f"arch is {arch!r}, of which there is no narrower one"):
            narrower(arch, share, classes=5)


def test_soft_labels_are_half_the_labels_and_half_what_the_other_says():
    torch.manual_seed(0)
    own, other, labels = torch.randn(6, 4), torch.randn(9, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    rows = torch.tensor([8, 0, 3, 4, 1, 7])
    loss = SoftLabels(other, temperature=2.0)(own, labels, rows)
    wanted, said = (other[rows] / 2).softmax(1), (own / 2).softmax(1)
    soft = (wanted * (wanted / said).log()).sum(1).mean()
    assert float(loss) == pytest.approx(float(0.5 * F.cross_entropy(own, labels) + 0.5 * 4 * soft), rel=1e-5)
    same = SoftLabels(own)(own, labels, torch.arange(6))
    assert float(same) == pytest.approx(float(0.5 * F.cross_entropy(own, labels)), rel=1e-5)
    with pytest.raises(BadInput, match="temperature is 0; expected a number above 0"):
        SoftLabels(own, temperature=0)
