"""Curvature against exact Hessians, known spectra, PyHessian and curvlinops."""

import copy
import math
import pickle
import warnings
import weakref
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parametrize

from fairq_utils.curvature.hessian import Hessian, gradient_norm
from fairq_utils.curvature.spectrum import NotConverged, spectral_density, top_eigenvalue, trace
from fairq_utils.errors import BadInput

cross_entropy = nn.functional.cross_entropy


class BatchNormAfterActivation(nn.Module):
    """Defined in the order convolution, BatchNorm, but computed with an activation between them."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(torch.tanh(self.conv(x))).mean((2, 3)))


class ConvolutionReadTwice(nn.Module):
    """BatchNorm follows the convolution, but something else reads it too."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        raw = self.conv(x)
        return self.head((self.norm(raw) * raw).mean((2, 3)))


class TokenTransformer(nn.Module):
    """Reads the pixels as tokens; its attention would take a kernel without second derivative."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(5, 4), nn.Linear(4, 3)
        self.layer = nn.TransformerEncoderLayer(4, 2, dim_feedforward=4, dropout=0.3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.embed(x)).mean(1))


def convnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Tanh(), nn.Conv2d(2, 3, 3, bias=False), nn.BatchNorm2d(3),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(3, 3),
    )  # fmt: skip


def lively(model: nn.Module, dtype: torch.dtype = torch.float64) -> nn.Module:
    """The model with parameters and BatchNorm statistics away from their neutral starting values."""
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            tensor.data = torch.rand(tensor.shape) * 1.5 - 0.5 * tensor.data.lt(1)
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.data = 0.5 + torch.rand(buffer.shape)
    return model.to(dtype)


def tiny(kind: str) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    labels = torch.randint(3, (7,))
    if kind == "transformer":
        return TokenTransformer().double(), torch.randint(5, (7, 6)), labels
    make = {
        "convnet": convnet,
        "after activation": BatchNormAfterActivation,
        "read twice": ConvolutionReadTwice,
    }
    model = make[kind.removeprefix("new ")]()
    images = torch.randn(7, 1, 6, 6, dtype=torch.float64)
    return (model.double() if kind.startswith("new ") else lively(model)), images, labels


@cache
def exact_hessian(kind: str) -> Tensor:
    """Of the tiny network of this kind, in the order of model.parameters(), without our code."""
    model, images, labels = tiny(kind)
    model.eval()
    parameters = list(model.parameters())
    shapes = {name: p.shape for name, p in model.named_parameters()}
    start = nn.utils.parameters_to_vector(parameters).detach()

    def loss(flat: Tensor) -> Tensor:
        parts = flat.split([p.numel() for p in parameters])
        values = {name: p.reshape(s) for (name, s), p in zip(shapes.items(), parts, strict=True)}
        return cross_entropy(functional_call(model, values, (images,)), labels)

    if kind == "transformer":
        # What forward over reverse gives at LayerNorm is not even symmetric: central differences instead.
        gradient = torch.func.grad(loss)
        nudges = torch.eye(len(start), dtype=torch.float64) * 1e-5
        return torch.stack([(gradient(start + n) - gradient(start - n)) / 2e-5 for n in nudges])
    with warnings.catch_warnings():  # torch scripts its own rules for forward mode when they are first used
        warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", DeprecationWarning)
        return torch.func.hessian(loss)(start)


class Quadratic(nn.Module):
    """1/2 w'Aw + b'w, whatever the images."""

    def __init__(self, a: Tensor, b: Tensor, w: Tensor):
        super().__init__()
        self.a, self.b, self.w = a, b, nn.Parameter(w)

    def forward(self, x: Tensor) -> Tensor:
        return (self.w @ self.a @ self.w / 2 + self.b @ self.w).expand(len(x))


def mean_output(outputs: Tensor, _: Tensor) -> Tensor:
    return outputs.mean()


def quadratic(spectrum: Tensor, w: Tensor | None = None) -> tuple[tuple[Quadratic, Tensor, Tensor], Tensor]:
    """The model with its data, and the eigenvectors belonging to the spectrum."""
    generator = torch.Generator().manual_seed(1)
    vectors = torch.linalg.qr(torch.randn(2 * spectrum.shape, generator=generator, dtype=torch.float64)).Q
    b = torch.zeros_like(spectrum)
    model = Quadratic(vectors * spectrum @ vectors.T, b, torch.zeros_like(spectrum) if w is None else w)
    return (model, torch.zeros(3, 1), torch.zeros(3)), vectors


# -- the operator -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["convnet", "new convnet", "transformer"])
@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_products_are_those_of_the_exact_hessian_at_any_batch_size(kind, batch_size):
    hessian = Hessian(*tiny(kind), batch_size=batch_size)
    exact = exact_hessian(kind)
    for vector in torch.randn(5, hessian.size, dtype=torch.float64):
        torch.testing.assert_close(hessian @ vector, exact @ vector, rtol=0, atol=1e-8)


@pytest.mark.parametrize("kind", ["after activation", "new after activation", "read twice", "new read twice"])
def test_batchnorm_is_left_alone_where_its_convolution_cannot_do_its_work(kind):
    model, images, labels = tiny(kind)
    # In float32, a new BatchNorm changes nothing that could be told from rounding.
    hessian = Hessian(model.float(), images, labels)
    vector = torch.randn(hessian.size)
    expected = exact_hessian(kind) @ vector.double()
    torch.testing.assert_close((hessian @ vector).double(), expected, rtol=0, atol=1e-5)


def test_no_time_is_lost_on_the_second_derivative_of_batchnorm(monkeypatch):
    hessian = Hessian(*tiny("convnet"))
    monkeypatch.setattr(nn.functional, "batch_norm", lambda *_: pytest.fail("BatchNorm was computed"))
    hessian @ torch.ones(hessian.size, dtype=torch.float64)


@pytest.mark.parametrize("kind", ["convnet", "transformer"])
def test_the_squared_norm_without_sampling_is_the_mean_over_pairs_of_images(kind):
    model, images, labels = tiny(kind)
    hessian, count = Hessian(model, images, labels), len(images)
    network = copy.deepcopy(model).eval()
    gradients = []
    for image, label in zip(images, labels, strict=True):
        network.zero_grad()
        cross_entropy(network(image[None]), label[None]).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters()]))
    products = torch.stack(gradients) @ torch.stack(gradients).T
    pairs = (products.sum() - products.trace()) / (count * (count - 1))
    assert hessian.squared_gradient_norm(batches=count) == pytest.approx(pairs.item(), rel=1e-9)
    raw = hessian.gradient().square().sum()
    variance = (products.trace() / count - raw) / (count - 1)
    assert hessian.squared_gradient_norm(batches=count) == pytest.approx((raw - variance).item(), rel=1e-9)
    # In fewer batches, the last of them shorter, only products of images of different batches count.
    batch = torch.arange(count) // math.ceil(count / 3)
    apart = batch[:, None] != batch
    expected = products[apart].mean().item()
    assert hessian.squared_gradient_norm(batches=3) == pytest.approx(expected, rel=1e-9)
    assert hessian.gradient().square().sum() == pytest.approx(raw.item())  # as it was before


@pytest.mark.parametrize("batches", [2, 8, 40])
@pytest.mark.parametrize("slope", [0.0, 0.5])
def test_the_squared_norm_without_sampling_is_right_on_average_and_keeps_its_sign(slope, batches):
    model = nn.Linear(4, 1, bias=False, dtype=torch.float64)
    nn.init.zeros_(model.weight)
    random = torch.Generator().manual_seed(3)
    found, raw = [], []
    for _ in range(300):
        images = torch.randn(10, 4, generator=random, dtype=torch.float64)
        noise = torch.randn(10, 1, generator=random, dtype=torch.float64)
        # Of the loss (w x - y)^2 / 2 at w = 0 the expected gradient is -slope in each direction.
        labels = slope * images.sum(dim=1, keepdim=True) + noise
        hessian = Hessian(model, images, labels, loss=lambda out, y: (out - y).square().mean() / 2)
        found.append(hessian.squared_gradient_norm(batches=batches))
        raw.append(hessian.gradient().square().sum().item())
    error = np.std(found) / math.sqrt(len(found))
    truth = 4 * slope**2
    assert abs(np.mean(found) - truth) < 3 * error
    assert np.mean(raw) - truth > 6 * error
    if slope == 0:
        assert 0.4 < np.mean(np.array(found) < 0) < 0.8  # nothing is clipped


def test_a_squared_norm_without_sampling_needs_two_images_and_two_batches():
    model, images, labels = tiny("convnet")
    assert math.isnan(Hessian(model, images[:1], labels[:1]).squared_gradient_norm())
    with pytest.raises(BadInput, match="batches is 1; expected 2 or more, such as 8"):
        Hessian(model, images, labels).squared_gradient_norm(batches=1)


@pytest.mark.parametrize("batch_size", [3, 7])
def test_gradient_and_loss_are_those_of_autograd(batch_size):
    model, images, labels = tiny("convnet")
    loss = cross_entropy(copy.deepcopy(model).eval()(images), labels)
    reference = copy.deepcopy(model).eval()
    cross_entropy(reference(images), labels).backward()
    expected = torch.cat([p.grad.reshape(-1) for p in reference.parameters()])
    hessian = Hessian(model, images, labels, batch_size=batch_size)
    assert hessian.loss() == pytest.approx(loss.item(), abs=1e-12)
    torch.testing.assert_close(hessian.gradient(), expected, rtol=0, atol=1e-12)
    norm = gradient_norm(model, images, labels, batch_size=batch_size)
    assert norm == pytest.approx(expected.norm().item(), rel=1e-12)


def test_weights_are_what_a_quantizer_rounds_and_give_the_block_of_the_hessian():
    model, images, labels = tiny("transformer")
    hessian = Hessian(model, images, labels, parameters="weights")
    assert hessian.names == (
        "embed.weight", "head.weight", "layer.self_attn.in_proj_weight", "layer.self_attn.out_proj.weight",
        "layer.linear1.weight", "layer.linear2.weight",
    )  # fmt: skip
    inside = torch.cat(
        [torch.full_like(p, n in hessian.names).reshape(-1) for n, p in model.named_parameters()]
    ).bool()
    vector = torch.randn(hessian.size, dtype=torch.float64)
    block = exact_hessian("transformer")[inside][:, inside]
    torch.testing.assert_close(hessian @ vector, block @ vector, rtol=0, atol=1e-8)
    named = Hessian(model, images, labels, parameters=["head.weight", "embed.weight"])
    assert named.names == ("embed.weight", "head.weight")


def test_memory_is_bounded_by_the_batch():
    model, images, labels = tiny("convnet")
    images, labels = images.repeat(12, 1, 1, 1), labels.repeat(12)

    def peak(count: int) -> int:
        """Entries that autograd holds at once for products over the first `count` images."""
        held, most = 0, 0

        def forget(size: int) -> None:
            nonlocal held
            held -= size

        class Saved:
            def __init__(self, tensor: Tensor):
                nonlocal held, most
                self.tensor = tensor
                held += tensor.numel()
                most = max(most, held)
                weakref.finalize(self, forget, tensor.numel())

        with torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.tensor):
            hessian = Hessian(model, images[:count], labels[:count], batch_size=7)
            for _ in range(2):
                hessian @ torch.ones(hessian.size)
        return most

    assert 0 < peak(84) <= peak(14)


def test_nothing_of_the_callers_model_changes():
    model, images, labels = tiny("convnet")
    model.train()
    model[0].requires_grad_(False)
    cross_entropy(model(images), labels).backward()
    before = copy.deepcopy(model)
    gradients = [p.grad if p.grad is None else p.grad.clone() for p in model.parameters()]
    state = torch.get_rng_state()
    where = {"batch_size": 3}
    gradient_norm(model, images, labels, **where)
    top_eigenvalue(model, images, labels, **where)
    trace(model, images, labels, products=6, **where)
    spectral_density(model, images, labels, steps=2, **where)
    assert torch.get_rng_state().equal(state)
    assert all(module.training for module in model.modules())
    assert all(module.forward.__self__ is module for module in model.modules())
    for (name, now), then, gradient in zip(
        model.named_parameters(), before.parameters(), gradients, strict=True
    ):
        assert now.equal(then), name
        assert now.requires_grad == then.requires_grad, name
        assert now.grad is gradient is None or now.grad.equal(gradient), name
    assert all(now.equal(then) for now, then in zip(model.buffers(), before.buffers(), strict=True))


class Round(nn.Module):
    """To multiples of 1/4, with a gradient that lets everything through."""

    def forward(self, w: Tensor) -> Tensor:
        return w + ((w * 4).round() / 4 - w).detach()


def test_at_a_quantized_network_it_is_the_hessian_of_the_dequantized_weights():
    model, images, labels = tiny("transformer")
    rounded, quantized = copy.deepcopy(model), copy.deepcopy(model)
    for plain, module in zip(list(rounded.modules()), list(quantized.modules()), strict=True):
        for name, _ in list(plain.named_parameters(recurse=False)):
            if name.endswith("weight") and not isinstance(plain, nn.LayerNorm):
                getattr(plain, name).data = Round()(getattr(plain, name).data)
                parametrize.register_parametrization(module, name, Round())
    outputs = copy.deepcopy(quantized).eval()(images)
    ours, plain = Hessian(quantized, images, labels), Hessian(rounded, images, labels)
    assert ours.names == plain.names == tuple(name for name, _ in model.named_parameters())
    vector = torch.randn(ours.size, dtype=torch.float64)
    torch.testing.assert_close(ours @ vector, plain @ vector, rtol=0, atol=1e-12)
    # The quantized model still is one: a copy shares its class, and with it the property that rounds.
    assert parametrize.is_parametrized(quantized.embed, "weight")
    assert copy.deepcopy(quantized).eval()(images).equal(outputs)


def test_half_precision_is_computed_in_float32():
    torch.manual_seed(0)
    model = lively(convnet(), torch.bfloat16)
    images, labels = torch.randn(4, 1, 6, 6), torch.randint(3, (4,))
    half, single = Hessian(model, images, labels), Hessian(copy.deepcopy(model).float(), images, labels)
    vector = torch.randn(half.size)
    assert (half @ vector).dtype == torch.float32
    assert (half @ vector).equal(single @ vector)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu():
    model, images, labels = tiny("convnet")
    here, there = Hessian(model, images, labels), Hessian(copy.deepcopy(model).cuda(), images, labels)
    vector = torch.randn(here.size, dtype=torch.float64)
    torch.testing.assert_close((there @ vector).cpu(), here @ vector, rtol=0, atol=1e-10)
    on_gpu = top_eigenvalue(model.cuda(), images, labels)
    assert on_gpu.value == pytest.approx(top_eigenvalue(model.cpu(), images, labels).value, rel=1e-10)


class Random(nn.Module):
    """A linear classifier whose images pass through something random first."""

    def __init__(self, how):
        super().__init__()
        self.how, self.head = how, nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.how(x))


random_numbers = np.random.default_rng(0)


@pytest.mark.parametrize(
    "how",
    [
        lambda x: nn.functional.dropout(x, 0.1, training=True),
        lambda x: x.flip(1) if torch.rand(()) < 0.01 else x,  # two evaluations nearly always agree
        lambda x: x + 0.1 * random_numbers.standard_normal(),  # not torch's numbers
    ],
    ids=["dropout", "rare flip", "numpy noise"],
)
def test_a_random_model_is_refused_and_the_random_numbers_are_put_back(how):
    model = Random(how)
    state = torch.get_rng_state()
    with pytest.raises(BadInput, match="different outputs for the same images"):
        Hessian(model, torch.ones(5, 4), torch.zeros(5, dtype=torch.long))
    assert torch.get_rng_state().equal(state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": torch.zeros(4)}, "5 images and 4 labels"),
        ({"images": torch.zeros(0, 4), "labels": torch.zeros(0)}, "0 images"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"parameters": "biases"}, r"\['biases'\], which the model lacks.*such as 'head.weight'"),
        ({"parameters": ["head.weight", "tail"]}, r"\['tail'\], which the model lacks"),
        ({"parameters": []}, "chooses none"),
        ({"model": nn.BatchNorm1d(4), "parameters": "weights"}, "chooses none"),
        ({"model": nn.ReLU()}, "the model has no parameters"),
        ({"images": torch.full((5, 4), float("nan"))}, "the loss is not finite"),
        ({"loss": lambda outputs, _: outputs.detach().mean()}, "does not depend on the chosen parameters"),
        ({"loss": lambda outputs, _: (outputs * 0).abs().sqrt().mean()}, "the gradient is not finite"),
    ],
)
def test_bad_input_is_refused_with_one_sentence(change, message):
    given = {
        "model": Random(nn.Identity()),
        "images": torch.ones(5, 4),
        "labels": torch.zeros(5, dtype=torch.long),
    } | change
    with pytest.raises(BadInput, match=message):
        gradient_norm(**given)


def test_a_vector_of_another_length_is_refused():
    model, images, labels = tiny("convnet")
    with pytest.raises(BadInput, match=r"shape \(2,\)"):
        Hessian(model, images, labels) @ torch.ones(2)


# -- eigenvalues --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["convnet", "transformer"])
def test_the_top_of_the_spectrum_of_a_network(kind):
    exact = torch.linalg.eigvalsh(exact_hessian(kind))
    options = {"tol": 1e-6, "batch_size": 4}
    assert top_eigenvalue(*tiny(kind), **options).value == pytest.approx(exact[-1].item(), abs=1e-8)


def test_the_largest_signed_eigenvalue_not_the_largest_magnitude():
    spectrum = torch.tensor([-50, *np.linspace(-3, 3, 198), 5], dtype=torch.float64)
    data, vectors = quadratic(spectrum)
    top = top_eigenvalue(*data, loss=mean_output, tol=1e-5)
    assert top.value == pytest.approx(5, rel=1e-9)
    assert abs(top.vector @ vectors[:, -1]).item() == pytest.approx(1, abs=1e-8)
    residual = (data[0].a @ top.vector - top.value * top.vector).norm().item()
    assert residual <= 1e-5 * abs(top.value)
    assert residual == pytest.approx(top.residual, rel=1e-6)


def test_an_unconverged_eigenvalue_is_never_returned():
    data, _ = quadratic(torch.linspace(-1, 1, 200, dtype=torch.float64))
    with pytest.raises(NotConverged, match=r"after 4 iterations.*tol=0.001") as caught:
        top_eigenvalue(*data, loss=mean_output, max_iterations=4)
    assert caught.value.iterations == 4
    assert caught.value.residual > 1e-3 * caught.value.value
    sent = pickle.loads(pickle.dumps(caught.value))
    assert (str(sent), vars(sent)) == (str(caught.value), vars(caught.value))
    converged = top_eigenvalue(*data, loss=mean_output)
    assert caught.value.value < converged.value == pytest.approx(1, abs=1e-3)
    assert converged.iterations > 4


@pytest.mark.parametrize(
    "spectrum", [[0.0] * 4, [3.0] * 4, [0.0, 0.0, 0.0, 2.0], [-2.0, -1.0, 0.0, 0.0], [7.0]]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_degenerate_spectra_end_as_soon_as_the_space_is_exhausted(spectrum, dtype):
    (model, *data), _ = quadratic(torch.tensor(spectrum, dtype=torch.float64))
    model.a, model.b = model.a.to(dtype), model.b.to(dtype)
    close = {"rel": 1e-5, "abs": 1e-5}
    top = top_eigenvalue(model.to(dtype), *data, loss=mean_output)
    assert top.value == pytest.approx(max(spectrum), **close)
    assert top.iterations <= len(set(spectrum))
    assert trace(model, *data, loss=mean_output).value == pytest.approx(sum(spectrum), **close)


def test_a_loss_linear_in_the_parameters_has_no_curvature():
    model = nn.Linear(3, 1)
    data = torch.ones(2, 3), torch.zeros(2)
    assert top_eigenvalue(model, *data, loss=mean_output).value == 0
    assert gradient_norm(model, *data, loss=mean_output) == pytest.approx(2)


@pytest.mark.parametrize("options", [{"tol": 0}, {"tol": float("nan")}, {"max_iterations": 0}])
def test_a_tolerance_that_cannot_be_met_is_refused(options):
    data, _ = quadratic(torch.ones(3, dtype=torch.float64))
    with pytest.raises(BadInput, match="expected at least 1, and more than 0"):
        top_eigenvalue(*data, loss=mean_output, **options)


# -- against others, on a network of practical size ---------------------------------------------------


@pytest.fixture(scope="module")
def resnet() -> tuple[nn.Module, Tensor, Tensor]:
    """ResNet18 after a few steps, so that BatchNorm has statistics and the Hessian a shape."""
    torchvision = pytest.importorskip("torchvision", reason="torchvision is not installed")
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    labels = torch.randint(5, (32,))
    images = torch.randn(32, 3, 32, 32) + labels[:, None, None, None] / 4
    for _ in range(5):
        optimizer.zero_grad()
        cross_entropy(model(images), labels).backward()
        optimizer.step()
    return model.eval(), images[:20], labels[:20]


# It keeps the graph this way; torch says so once, whichever test comes first.
@pytest.mark.filterwarnings("ignore:Using backward.* with create_graph=True")
def test_top_eigenvalue_agrees_with_pyhessian(resnet):
    pyhessian = pytest.importorskip("pyhessian", reason="PyHessian is not installed: make peers")
    model, images, labels = resnet
    top = top_eigenvalue(model, images, labels)
    peer = pyhessian.hessian(copy.deepcopy(model), cross_entropy, data=(images, labels), cuda=False)
    torch.manual_seed(0)
    (value,), _ = peer.eigenvalues(tol=1e-5, maxIter=200)
    assert top.value == pytest.approx(value, rel=1e-3)
    assert top.iterations < 40  # how the few steps of training end depends on the number of threads


def test_products_agree_with_curvlinops_when_the_last_batch_is_short(resnet):
    curvlinops = pytest.importorskip("curvlinops", reason="curvlinops is not installed: make peers")
    model, images, labels = resnet
    # In float32 a unit that is all but 0 may be switched on in the one sum and off in the other.
    model, images = copy.deepcopy(model).double(), images.double()
    batches = list(zip(images.split(8), labels.split(8), strict=True))
    peer = curvlinops.HessianLinearOperator(
        model,
        nn.CrossEntropyLoss(),
        list(model.parameters()),
        batches,
        check_deterministic=False,
    )
    ours = Hessian(model, images, labels, batch_size=8)
    vector = torch.randn(ours.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = peer @ vector
    torch.testing.assert_close(ours @ vector, expected, rtol=0, atol=1e-10 * expected.abs().max().item())


def test_the_residual_holds_in_float32_and_the_value_is_that_of_float64(resnet):
    model, images, labels = resnet
    top = top_eigenvalue(model, images, labels)
    double = Hessian(copy.deepcopy(model).double(), images, labels)
    vector = top.vector.double()
    assert (double @ vector - top.value * vector).norm().item() <= 1e-3 * top.value
    assert top.value == pytest.approx((vector @ (double @ vector)).item(), rel=1e-4)  # float32's products


# -- trace, density, slice, bound ---------------------------------------------------------------------


def test_trace_and_its_standard_error():
    model, images, labels = tiny("convnet")
    exact = exact_hessian("convnet").trace().item()
    complete = trace(model, images, labels, products=300)
    assert complete.value == pytest.approx(exact, rel=1e-8)
    assert complete.standard_error < 1e-10
    estimates = [trace(model, images, labels, products=12, seed=seed) for seed in range(30)]
    values = np.array([estimate.value for estimate in estimates])
    assert abs(values.mean() - exact) < 3 * values.std(ddof=1) / np.sqrt(30)
    errors = np.array([estimate.standard_error for estimate in estimates])
    assert values.std() == pytest.approx(np.sqrt((errors**2).mean()), rel=0.5)
    assert {estimate.products for estimate in estimates} == {12}
    with pytest.raises(BadInput, match="products is 5"):
        trace(model, images, labels, products=5)


def test_spectral_density_is_the_spectrum_when_all_steps_are_taken():
    spectrum = torch.tensor([-3.0, -1.0, 0.5, 2.0, 8.0], dtype=torch.float64)
    data, _ = quadratic(spectrum)
    density = spectral_density(*data, loss=mean_output, steps=100, probes=400)
    torch.testing.assert_close(
        density.eigenvalues.reshape(5, 400), spectrum[:, None].expand(5, 400), rtol=0, atol=1e-9
    )
    # Each eigenvalue's share of a random direction is Beta(1/2, 2): mean 1/5, standard error here 0.011.
    torch.testing.assert_close(
        density.weights.reshape(5, 400).sum(1), torch.full((5,), 0.2, dtype=torch.float64), rtol=0, atol=0.045
    )
    grid = torch.linspace(-20, 25, 5000, dtype=torch.float64)
    assert torch.trapezoid(density.smooth(grid, width=0.5), grid).item() == pytest.approx(1, abs=1e-9)


def test_spectral_density_matches_the_first_moments_after_few_steps():
    spectrum = torch.linspace(-2, 3, 100, dtype=torch.float64) ** 3
    data, _ = quadratic(spectrum)
    density = spectral_density(*data, loss=mean_output, steps=3, probes=1)
    generator = torch.Generator().manual_seed(0)
    probe = nn.functional.normalize(torch.randn(100, generator=generator).double(), dim=0)
    for power in range(6):  # Gauss quadrature of 3 nodes is exact up to degree 5
        expected = (probe @ torch.linalg.matrix_power(data[0].a, power) @ probe).item()
        assert (density.weights @ density.eigenvalues**power).item() == pytest.approx(expected, rel=1e-9)
    with pytest.raises(BadInput, match="steps is 0"):
        spectral_density(*data, loss=mean_output, steps=0)


def squared_filters(outputs: Tensor, _: Tensor) -> Tensor:
    return (outputs**2).sum(1).mean()
