import copy
import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fairq_book.experiments import studies
from fairq_book.experiments.store import Store
from fairq_utils.curvature import surveys
from fairq_utils.curvature.hessian import Hessian
from fairq_utils.curvature.surveys import Survey
from fairq_utils.data.datasets import Dataset
from fairq_utils.errors import BadInput
from fairq_utils.training.architectures import NAMES, build
from fairq_utils.training.loop import Recipe, to_input
from fairq_utils.treatments.treatment import FP32, Treatment


def ignore(done: int) -> None:
    pass


def data(*sizes: int, train: float = 1.0) -> Dataset:
    """Groups of these sizes, of which this share is for training; labels alternate."""
    random = torch.Generator().manual_seed(0)
    groups = torch.cat([torch.full((size,), group) for group, size in enumerate(sizes)])
    is_train = torch.cat([torch.arange(size) < train * size for size in sizes])
    images = torch.randint(0, 256, (len(groups), 3, 2, 2), generator=random, dtype=torch.uint8)
    names = tuple(f"group {n}" for n in range(len(sizes)))
    labels, none = torch.arange(len(groups)) % 2, torch.zeros_like(is_train)
    return Dataset(images, labels, groups, is_train, none, ("no", "yes"), names)


def linear(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.Tanh(), nn.Linear(4, 2)).eval()


def exact(network: nn.Module, images, labels) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Loss, gradient and Hessian over the two weights, by automatic differentiation of a plain function."""
    biases = [network[1].bias.detach(), network[3].bias.detach()]

    def loss(flat):
        hidden = torch.tanh(F.linear(images.flatten(1), flat[:48].reshape(4, 12), biases[0]))
        return F.cross_entropy(F.linear(hidden, flat[48:].reshape(2, 4), biases[1]), labels)

    at = torch.cat([network[1].weight.detach().flatten(), network[3].weight.detach().flatten()])
    gradient = torch.autograd.functional.jacobian(loss, at)
    return loss(at), gradient, torch.autograd.functional.hessian(loss, at)


def test_every_group_gives_as_many_images_and_each_seed_draws_them_anew():
    images = data(40, 9, 20)
    chosen = surveys.samples(images, Survey(images_per_group=15), seed=0)
    assert [(sample.group, len(sample.images)) for sample in chosen] == [(0, 9), (1, 9), (2, 9)]
    again = surveys.samples(images, Survey(images_per_group=15), seed=0)
    assert all(torch.equal(a.images, b.images) for a, b in zip(chosen, again, strict=True))
    other = surveys.samples(images, Survey(images_per_group=15), seed=1)
    assert not torch.equal(chosen[0].images, other[0].images)
    for sample in chosen:
        own = to_input(images.images[images.groups == sample.group])
        assert all((own == image).flatten(1).all(1).any() for image in sample.images)


def test_the_split_decides_and_a_group_without_images_is_left_out():
    images = data(40, 8, 20, train=0.5)
    for split, is_split in (("train", images.is_train), ("test", images.is_test)):
        own = to_input(images.images[is_split])
        for sample in surveys.samples(images, Survey(split=split), seed=0):
            assert len(sample.images) == 4
            assert all((own == image).flatten(1).all(1).any() for image in sample.images)
    absent = data(40, 0, 20)
    assert [sample.group for sample in surveys.samples(absent, Survey(), seed=0)] == [0, 2]
    assert surveys.extremes(absent, Survey()) == (0, 2)
    untested = data(40, 8, 20)
    untested.is_train[:20] = False
    assert [sample.group for sample in surveys.samples(untested, Survey(split="test"), seed=0)] == [0]


def test_of_equal_groups_two_different_ones_are_the_ends():
    assert surveys.extremes(data(5, 5, 5), Survey()) == (0, 2)
    assert surveys.extremes(data(3, 9, 3), Survey()) == (1, 2)


@pytest.mark.parametrize("arch", NAMES)
def test_parts_hold_every_weight_once_in_order(arch):
    network = build(arch, classes=3)
    names = [name for name, p in network.named_parameters() if name.endswith("weight") and p.dim() > 1]
    cut = surveys.parts(names)
    assert [name for own in cut.values() for name in own] == names
    assert 4 <= len(cut) <= 8


def test_the_parts_of_a_residual_network_are_its_stages():
    network = build("resnet18", classes=3)
    hessian_names = [name for name, p in network.named_parameters() if p.dim() > 1]
    assert list(surveys.parts(hessian_names)) == ["conv1", "layer1", "layer2", "layer3", "layer4", "fc"]


def test_what_is_measured_is_what_automatic_differentiation_says():
    images, network, survey = data(20, 12), linear(), Survey(tol=1e-4, max_iterations=60)
    item = surveys.measure(network, images, survey, seed=0, report=ignore)
    assert item.info == {"n": 12}
    for place, sample in enumerate(surveys.samples(images, survey, seed=0)):
        loss, gradient, hessian = exact(network, sample.images, sample.labels)
        found = {name: column[place].item() for name, column in item.tensors.items()}
        assert found["loss"] == pytest.approx(loss.item(), rel=1e-5)
        assert found["gradient_norm"] == pytest.approx(gradient.norm().item(), rel=1e-4)
        eight = Hessian(network, sample.images, sample.labels, parameters="weights").squared_gradient_norm()
        assert found["squared_gradient_norm"] == pytest.approx(eight)
        assert found["squared_gradient_norm"] < found["gradient_norm"] ** 2
        assert found["eigenvalue"] == pytest.approx(torch.linalg.eigvalsh(hessian)[-1].item(), rel=1e-3)
        assert found["residual"] <= 1e-4 * found["eigenvalue"]
        assert found["converged"] == 1
    alone = surveys.measure_gradients(network, images, survey, seed=0, report=ignore)
    assert alone.info == item.info
    assert list(alone.tensors) == ["group", "loss", "gradient_norm", "squared_gradient_norm"]
    assert all(torch.equal(column, item.tensors[name]) for name, column in alone.tensors.items())


def test_of_one_image_nothing_is_known_of_the_gradient_on_others():
    item = surveys.measure(linear(), data(20, 1), Survey(), seed=0, report=ignore)
    assert item.tensors["squared_gradient_norm"].isnan().all()
    assert (item.tensors["gradient_norm"] > 0).all()


def test_an_eigenvalue_that_was_not_reached_keeps_its_residual_and_says_so():
    item = surveys.measure(linear(), data(20, 12), Survey(tol=1e-6, max_iterations=2), seed=0, report=ignore)
    assert not item.tensors["converged"].any()
    assert (item.tensors["residual"] > 1e-6 * item.tensors["eigenvalue"]).all()
    assert (item.tensors["iterations"] == 2).all()


def test_parts_are_measured_with_respect_to_their_own_weights_alone():
    images, network, survey = data(20, 16, 12), linear(), Survey(tol=1e-4, max_iterations=60)
    item = surveys.measure_parts(network, images, survey, seed=0, report=ignore)
    assert item.info["parts"] == ["1", "3"]
    assert item.tensors["group"].tolist() == [0, 0, 2, 2]
    sample = surveys.samples(images, survey, seed=0)[2]
    _, gradient, hessian = exact(network, sample.images, sample.labels)
    for place, own in ((2, slice(0, 48)), (3, slice(48, 56))):
        top = torch.linalg.eigvalsh(hessian[own, own])[-1].item()
        assert item.tensors["eigenvalue"][place].item() == pytest.approx(top, rel=1e-3)
        assert item.tensors["gradient_norm"][place].item() == pytest.approx(
            gradient[own].norm().item(), rel=1e-4
        )


def moved(network: nn.Module, by: float) -> nn.Module:
    changed = copy.deepcopy(network)
    for layer in (changed[1], changed[3]):
        layer.weight.data += by * torch.randn(layer.weight.shape, generator=torch.Generator().manual_seed(3))
    return changed


def test_a_change_has_the_terms_of_taylor_and_the_losses_of_its_ends():
    images, network, survey = data(20, 16, 12), linear(), Survey()
    rounded = moved(network, 0.1)
    item = surveys.measure_change(network, rounded, images, survey, seed=0, report=ignore).tensors
    way = torch.cat([(b.weight - a.weight).detach().flatten() for a, b in
                     ((network[1], rounded[1]), (network[3], rounded[3]))])  # fmt: skip
    assert item["distance"].item() == pytest.approx(way.norm().item(), rel=1e-5)
    assert item["extremes"].tolist() == [0, 2]
    start, end = item["steps"].tolist().index(0), item["steps"].tolist().index(1)
    for place, sample in enumerate(surveys.samples(images, survey, seed=0)):
        loss, gradient, hessian = exact(network, sample.images, sample.labels)
        assert item["slope"][place].item() == pytest.approx((gradient @ way).item(), rel=1e-3, abs=1e-6)
        assert item["bend"][place].item() == pytest.approx(
            (way @ hessian @ way).item() / 2, rel=1e-3, abs=1e-6
        )
        if sample.group in (0, 2):
            drawn = item["slices"][0 if sample.group == 0 else 1]
            assert drawn[start].item() == pytest.approx(loss.item(), rel=1e-5)
            after, *_ = exact(rounded, sample.images, sample.labels)
            assert drawn[end].item() == pytest.approx(after.item(), rel=1e-5)


def test_rounding_one_part_moves_that_part_alone():
    images, network, survey = data(20, 12), linear(), Survey()
    first_only = moved(network, 0.1)
    first_only[3].weight.data = network[3].weight.data.clone()
    item = surveys.measure_change(network, first_only, images, survey, seed=0, report=ignore).tensors
    assert item["part_distance"][1] == 0
    assert item["part_distance"][0] == pytest.approx(item["distance"].item())
    sample = surveys.samples(images, survey, seed=0)[0]
    before, *_ = exact(network, sample.images, sample.labels)
    after, *_ = exact(first_only, sample.images, sample.labels)
    torch.testing.assert_close(
        item["part_excess"][0],
        torch.tensor([(after - before).item(), 0.0], dtype=torch.float64),
        atol=1e-6,
        rtol=1e-3,
    )


def test_a_change_of_more_than_weights_is_refused():
    network = linear()
    other = moved(network, 0.1)
    other[1].bias.data += 1
    with pytest.raises(BadInput, match="differ in more than their weights"):
        surveys.measure_change(network, other, data(20, 12), Survey(), seed=0, report=ignore)


def test_a_spectrum_is_of_the_two_ends_and_holds_every_direction():
    images, network = data(20, 16, 12), linear()
    survey = Survey(density_steps=40)
    item = surveys.measure_spectrum(network, images, survey, seed=0, report=ignore).tensors
    assert item.keys() == {f"{what}-{group}" for what in ("eigenvalues", "weights") for group in (0, 2)}
    sample = surveys.samples(images, survey, seed=0)[2]
    *_, hessian = exact(network, sample.images, sample.labels)
    assert item["weights-2"].sum().item() == pytest.approx(1)
    assert item["eigenvalues-2"][-1].item() == pytest.approx(
        torch.linalg.eigvalsh(hessian)[-1].item(), rel=1e-3
    )


def test_the_weights_of_a_survey_are_those_that_are_rounded():
    network = build("resnet18", classes=3).eval()
    rounded = Treatment(4).apply(network, data(20, 12))
    before, after = network.state_dict(), rounded.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    images = torch.zeros(1, 3, 32, 32)
    assert changed <= set(Hessian(network, images, torch.zeros(1).long(), parameters="weights").names)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"images_per_group": 0}, "images_per_group is 0; expected a whole number of at least 1"),
        ({"images_per_group": True}, "images_per_group is True"),
        ({"max_iterations": -1}, "max_iterations is -1"),
        ({"density_steps": 0}, "density_steps is 0"),
        ({"split": "all"}, "split is 'all'; expected train or test"),
        ({"tol": 0.0}, "tol is 0.0; expected a number above 0"),
    ],
)
def test_what_cannot_be_is_refused(settings, said):
    with pytest.raises(BadInput, match=said):
        Survey(**settings)


@pytest.mark.parametrize(
    ("name", "looks"),
    [
        ("fp32", ["around", "parts"]),
        ("int4-mse-channel", ["around", "change"]),
        ("fp16", ["around", "change"]),
        ("int4-qat", ["around"]),
        ("int4-tuned", ["around"]),
        ("int4-bn", ["around"]),
        ("w4a8", ["around"]),
        ("a8", ["around"]),
    ],
)
def test_only_where_weights_alone_were_rounded_is_there_a_way_to_follow(name, looks):
    assert studies._looks(Treatment.parse(name)) == looks


def test_a_network_is_looked_at_on_the_same_images_whatever_is_done_to_it_and_others_on_others(tmp_path):
    store, survey = Store(tmp_path), Survey(images_per_group=4, max_iterations=1)
    recipe = Recipe(epochs=0.1, batch_size=20)
    # Moths of seeds 0 and 4 are the same; drawn from them are others.
    asked = studies.studies(seeds=[0, 4], arch="resnet18-16", train_images=120, test_images=20, recipe=recipe)
    assert asked[0].dataset == asked[1].dataset
    images = studies.dataset(asked[0], store=store)
    shown = {}
    for study, treatment in itertools.product(asked, [FP32, Treatment(4)]):
        (found,) = studies.landscapes([study], [treatment], survey, store=store)
        (network,) = studies.networks([study], [treatment], store=store)
        losses = found.around.tensors["loss"]
        for seed in (0, 4):
            drawn = surveys.samples(images, survey, seed=seed)
            own = [Hessian(network, sample.images, sample.labels).loss() for sample in drawn]
            shown[study.seed, treatment.name, seed] = losses.tolist() == pytest.approx(own, rel=1e-4)
    assert {key for key, alike in shown.items() if alike} == {key for key in shown if key[0] == key[2]}


def test_landscapes_are_measured_once_and_each_network_is_asked_what_it_can_answer(tmp_path, monkeypatch):
    store = Store(tmp_path)
    asked = studies.studies(
        seeds=[0],
        arch="resnet18-16",
        train_images=60,
        test_images=20,
        recipe=Recipe(epochs=1, batch_size=20),
    )
    treatments = [FP32, Treatment(4)]
    survey = Survey(images_per_group=2, max_iterations=1, density_steps=2)
    first = studies.landscapes(asked, treatments, survey, store=store)
    assert [own.treatment for own in first] == treatments
    assert [(own.change is not None, own.parts is not None) for own in first] == [
        (False, True),
        (True, False),
    ]
    (spectrum, other) = studies.spectra(asked, [FP32], survey, store=store)
    assert (spectrum.group, other.group) == ("Alder", "Others")
    assert all(studies.is_current(entry.identity) for entry in store.entries())

    def never(*args, **options):
        raise AssertionError("measured again")

    for name in ("measure", "measure_parts", "measure_change", "measure_spectrum"):
        monkeypatch.setattr(surveys, name, never)
    again = studies.landscapes(asked, treatments, survey, store=store)
    assert all(
        torch.equal(a.around.tensors["loss"], b.around.tensors["loss"])
        for a, b in zip(first, again, strict=True)
    )
    studies.spectra(asked, [FP32], survey, store=store)
