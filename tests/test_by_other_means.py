"""From photographs to verdicts by other people's code: where results surprise, first doubt our own."""

import os

import numpy as np
import pytest
import torch
import torchvision
from fairlearn.metrics import MetricFrame
from sklearn.metrics import accuracy_score
from torch import nn

from fairq_book.experiments import studies
from fairq_book.experiments.store import Store
from fairq_book.kit import tables
from fairq_utils.curvature import surveys
from fairq_utils.metrics import groups
from fairq_utils.training.loop import Recipe
from fairq_utils.treatments.treatment import FP32, Treatment


@pytest.fixture(scope="module", params=["moths", "utkface"])
def study(request):
    folder = os.environ.get("FAIRQ_TEST_DATA", "")
    if request.param == "utkface" and not folder:
        pytest.skip("FAIRQ_TEST_DATA is not set: expected a folder with UTKFace")
    (made,) = studies.studies(
        seeds=[0],
        arch="resnet18",  # torchvision's own
        dataset=request.param,
        root="" if request.param == "moths" else folder,
        train_images=600,
        test_images=600,
        recipe=Recipe(epochs=3),
    )
    return made


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"))


def theirs(study, store, bits: int | None) -> nn.Module:
    """torchvision's network with our trained weights, rounded by torch's own kernel."""
    own = studies.network(study, store=store)
    network = torchvision.models.resnet18(num_classes=5)
    network.load_state_dict(own.state_dict())
    for module in network.modules() if bits else []:
        if isinstance(module, nn.Conv2d | nn.Linear):
            most = 2 ** (bits - 1) - 1
            scale = module.weight.detach().abs().max().item() / most
            module.weight.data = torch.fake_quantize_per_tensor_affine(
                module.weight.data, scale, 0, -most, most
            )
    return network.eval()


def their_input(images: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(images.numpy().astype(np.float32) / np.float32(63.75) - np.float32(2))


@pytest.mark.parametrize("bits", [None, 8, 4, 2])
def test_rounding_and_counting(study, store, bits):
    images = studies.dataset(study, store=store)
    shown = images.is_test
    with torch.no_grad():
        logits = theirs(study, store, bits)(their_input(images.images[shown])).numpy()
    counted = MetricFrame(
        metrics=accuracy_score,
        y_true=images.labels[shown].numpy(),
        y_pred=logits.argmax(1),
        sensitive_features=np.array(images.group_names)[images.groups[shown]],
    )
    treatment = Treatment(bits) if bits else FP32
    (own,) = studies.predictions([study], [treatment], store=store)
    np.testing.assert_allclose(own.logits, logits, atol=2e-4 * np.abs(logits).max())
    table = tables.accuracy([own]).set_index("group")["estimate"]
    few = 2 / shown.sum().item()  # answers between two logits that floats cannot tell apart
    assert table["OA"] == pytest.approx(counted.overall, abs=few)
    assert table["FVO"] == pytest.approx(counted.difference(), abs=5 * few)
    for group, accuracy in counted.by_group.items():
        assert table[group] == pytest.approx(accuracy, abs=5 * few)
    variance = groups.example_metrics(own.logits, own.labels)["logit_variance"]
    np.testing.assert_allclose(variance, logits.var(axis=1), rtol=1e-2, atol=1e-4)


@pytest.mark.filterwarnings("ignore:Using backward.* with create_graph=True")  # it keeps the graph so
def test_steepness_and_curvature(study, store):
    images = studies.dataset(study, store=store)
    survey = surveys.Survey(images_per_group=12, tol=0.02, max_iterations=60)
    (surveyed,) = studies.landscapes([study], [FP32], survey, store=store)
    table = tables.landscape([surveyed]).set_index("group")
    pyhessian = pytest.importorskip("pyhessian", reason="PyHessian is not installed: make peers")
    network = theirs(study, store, None).double()
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.endswith("weight") and parameter.dim() > 1)  # those that are rounded
    for sample in surveys.samples(images, survey, seed=study.seed)[::4]:
        group = images.group_names[sample.group]
        batch = (sample.images.double(), sample.labels)
        loss = nn.functional.cross_entropy(network(batch[0]), batch[1])
        free = [parameter for parameter in network.parameters() if parameter.requires_grad]
        slopes = torch.autograd.grad(loss, free)
        steepness = torch.cat([slope.flatten() for slope in slopes]).norm().item()
        assert table.loc[group, "gradient_norm"] == pytest.approx(steepness, rel=1e-3)
        peer = pyhessian.hessian(network, nn.functional.cross_entropy, data=batch, cuda=False)
        (eigenvalue,), _ = peer.eigenvalues(maxIter=200, tol=1e-4)
        assert table.loc[group, "eigenvalue"] == pytest.approx(eigenvalue, rel=0.05)
