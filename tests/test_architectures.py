import copy
import hashlib
from types import SimpleNamespace

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from fairq_utils.errors import BadInput
from fairq_utils.quantization.models import bake, describe, quantize_model
from fairq_utils.quantization.quantizers import UniformQuantizer
from fairq_utils.training.architectures import NAMES, build, weights_digest

CONVOLUTIONAL = NAMES[:-1]
NARROW = "resnet18-16"
SMALL = (NARROW, "efficientnet_b0-16", "vit-64")


def seeded(arch: str, seed: int = 0, **options) -> nn.Module:
    torch.manual_seed(seed)
    return build(arch, classes=5, **options)


def images(count: int, size: int) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def weights_of(network: nn.Module) -> torch.Tensor:
    return torch.cat([value.flatten().double() for value in network.state_dict().values()])


# ---------------------------------------------------------------- untrained networks


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("arch", [*NAMES, *SMALL])
def test_every_network_learns_a_few_images_by_heart(arch, size):
    network = seeded(arch, image_size=size).train()
    batch, labels = images(10, size), torch.arange(10) % 5
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    losses = []
    for _ in range(10):
        logits = network(batch)
        assert logits.shape == (10, 5)
        loss = F.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.75 * losses[0]


@pytest.mark.parametrize(("name", "usual"), [("resnet18", 64), ("efficientnet_b0", 32), ("vit", 128)])
def test_with_the_usual_channels_a_network_is_the_usual_one(name, usual):
    shapes = [
        {key: value.shape for key, value in build(arch, classes=5, image_size=64).state_dict().items()}
        for arch in (name, f"{name}-{usual}")
    ]
    assert shapes[0] == shapes[1]
    few, many = (weights_of(build(arch, classes=5)).numel() for arch in (f"{name}-{usual // 2}", name))
    assert 0.2 * many < few < 0.4 * many  # a layer's weights go with the square of its channels


def test_the_efficient_network_is_torchvisions():
    shapes = [
        {key: value.shape for key, value in network.state_dict().items()}
        for network in (
            build("efficientnet_b0", classes=5),
            torchvision.models.efficientnet_b0(num_classes=5),
        )
    ]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("channels", [1, 16, 24])
def test_a_narrow_network_is_the_same_with_fewer_channels(channels):
    wide, narrow = build("resnet18", classes=5), build(f"resnet18-{channels}", classes=5)
    shapes = {name: tuple(value.shape) for name, value in wide.state_dict().items()}
    for name, value in narrow.state_dict().items():
        kept = shapes.pop(name)
        assert tuple(value.shape) == tuple(n if n < 64 else n * channels // 64 for n in kept), name
        assert value.device.type == "cpu"
    assert not shapes
    described = [
        [layer.extra_repr().partition("kernel")[2] for layer in own.modules() if isinstance(layer, nn.Conv2d)]
        for own in (wide, narrow)
    ]
    assert described[0] == described[1]


def test_a_narrow_network_begins_as_torchvisions_does():
    torch.manual_seed(0)
    wide, narrow = build("resnet18", classes=5), build("resnet18-48", classes=5)
    for (name, one), (_, other) in zip(wide.named_modules(), narrow.named_modules(), strict=True):
        if isinstance(one, nn.Conv2d):
            assert other.weight.mean().abs() < 0.05 * other.weight.std(), name
            # By its fan out, which has shrunk as the channels have.
            ratio = (other.weight.std() / one.weight.std()).item()
            assert ratio == pytest.approx((64 / 48) ** 0.5, rel=0.05), name
        elif isinstance(one, nn.BatchNorm2d):
            assert (other.weight == 1).all(), name
            assert (other.bias == 0).all(), name


@pytest.mark.parametrize("arch", [*NAMES, NARROW])
def test_the_seed_decides_the_network(arch):
    first = weights_of(seeded(arch, seed=1))
    assert torch.equal(first, weights_of(seeded(arch, seed=1)))
    assert not torch.equal(first, weights_of(seeded(arch, seed=2)))


@pytest.mark.parametrize("size", [16, 32, 64, 224])
@pytest.mark.parametrize("arch", CONVOLUTIONAL)
def test_the_parameters_are_those_of_torchvision(arch, size):
    torch.manual_seed(3)
    stock = torchvision.models.get_model(arch, num_classes=5).state_dict()
    own = seeded(arch, seed=3, image_size=size).state_dict()
    assert list(own) == list(stock)
    assert all(torch.equal(own[name], stock[name]) for name in stock)


@pytest.mark.parametrize("arch", CONVOLUTIONAL)
def test_a_large_image_is_seen_as_torchvision_sees_it(arch):
    network = seeded(arch, image_size=224).eval()
    stock = torchvision.models.get_model(arch, num_classes=5).eval()
    stock.load_state_dict(network.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(network(images(1, 224)), stock(images(1, 224)))


@pytest.mark.parametrize(("size", "side"), [(16, 2), (32, 2), (33, 3), (63, 4), (64, 2), (96, 3), (224, 7)])
@pytest.mark.parametrize("arch", ["efficientnet_b0", "mobilenet_v3_small"])
def test_a_map_is_left_after_the_last_stride(arch, size, side):
    network = seeded(arch, image_size=size).eval()
    seen = []
    network.avgpool.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[2:]))
    with torch.no_grad():
        network(images(1, size))
    assert seen == [(side, side)]


@pytest.mark.parametrize("size", [16, 32, 64, 224])
def test_the_transformer_sees_64_patches_and_a_class_token(size):
    network = seeded("vit", image_size=size)
    assert network.seq_length == 64 + 1
    assert sum(parameter.numel() for parameter in network.parameters()) < 3e6


@pytest.mark.parametrize("arch", NAMES)
def test_training_mode_is_not_random(arch):
    network = seeded(arch).train()
    other = copy.deepcopy(network)
    torch.testing.assert_close(network(images(4, 32)), other(images(4, 32)), rtol=0, atol=0)


@pytest.mark.parametrize("arch", NAMES)
def test_curvature_can_be_taken(arch):
    network = seeded(arch)
    weight = next(network.parameters())
    with sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
        loss = network(images(4, 32)).square().mean()
        (gradient,) = torch.autograd.grad(loss, weight, create_graph=True)
        (curvature,) = torch.autograd.grad(gradient.square().sum(), weight)
    assert curvature.isfinite().all()


# ---------------------------------------------------------------- quantized


@pytest.mark.parametrize("arch", NAMES)
def test_every_matrix_goes_on_the_grid_and_stays_there_when_baked(arch):
    network = seeded(arch)
    if arch == "vit":
        nn.init.normal_(network.heads.head.weight)  # it starts at zero, where all networks answer alike
    quantized = quantize_model(network, UniformQuantizer(4))
    baked = bake(quantized)
    matrices = {
        name: value
        for name, value in baked.named_parameters()
        if value.dim() >= 2 and name not in {"class_token", "encoder.pos_embedding"}
    }
    assert len(matrices) == len(describe(baked))
    for name, value in matrices.items():
        assert len(value.unique()) <= 15, name
        assert not torch.equal(value, network.get_parameter(name)), name
    for training in (True, False):  # attention takes another way through when it is not trained
        outputs = []
        for model in (network, quantized, baked):
            with torch.no_grad():
                outputs.append(model.train(training)(images(4, 32)))
        torch.testing.assert_close(outputs[2], outputs[1], rtol=1e-4, atol=0)
        assert (outputs[2] - outputs[0]).norm() > 0.05 * outputs[0].norm()


@pytest.mark.parametrize("arch", NAMES)
def test_quantization_aware_training_reaches_every_weight(arch):
    quantized = quantize_model(seeded(arch), UniformQuantizer(4)).train()
    if arch == "vit":
        nn.init.normal_(quantized.heads.head.parametrizations.weight.original)
    F.cross_entropy(quantized(images(4, 32)), torch.arange(4)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in quantized.parameters())


# ---------------------------------------------------------------- ImageNet weights


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder where weights are looked for, and no other."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FAIRQ_WEIGHTS", str(tmp_path))
    return tmp_path


@pytest.fixture
def publish(folder, monkeypatch):
    """Put a file where torchvision's would be, under a name that holds its hash."""

    def put(content: object) -> str:
        torch.save(content, folder / "part")
        digest = hashlib.sha256((folder / "part").read_bytes()).hexdigest()
        path = (folder / "part").rename(folder / f"net-{digest[:8]}.pth")
        enum = SimpleNamespace(IMAGENET1K_V1=SimpleNamespace(url=f"https://example.org/a/{path.name}"))
        monkeypatch.setattr(torchvision.models, "get_model_weights", lambda arch: enum)
        return digest

    return put


@pytest.mark.parametrize("arch", CONVOLUTIONAL)
def test_all_but_the_last_layer_comes_from_the_file(arch, publish):
    torch.manual_seed(7)
    published = torchvision.models.get_model(arch)
    digest = publish(published.state_dict())
    network = seeded(arch, seed=1, weights="imagenet")
    fresh = seeded(arch, seed=1)
    assert weights_digest(arch, "imagenet") == digest
    last = list(published.state_dict())[-2:]
    for name, value in network.state_dict().items():
        origin = fresh if name in last else published
        assert torch.equal(value, origin.state_dict()[name]), name


def test_a_file_in_the_usual_place_is_found(publish, folder, monkeypatch):
    digest = publish(torchvision.models.resnet18().state_dict())
    usual = folder / "home" / "hub" / "checkpoints"
    usual.mkdir(parents=True)
    for file in folder.glob("*.pth"):
        file.rename(usual / file.name)
    assert weights_digest("resnet18", "imagenet") == digest
    monkeypatch.delenv("FAIRQ_WEIGHTS")
    assert weights_digest("resnet18", "imagenet") == digest


@pytest.mark.parametrize(
    "content",
    [
        [1, 2],
        {"fc.weight": torch.zeros(3)},
        {"x": torch.zeros(1)},
        torch.zeros(2),
        {},
        {1: 2},
        SimpleNamespace(),
    ],
    ids=["list", "head", "stranger", "tensor", "empty", "numbers", "pickled code"],
)
def test_a_file_of_something_else_is_refused(content, publish):
    publish(content)
    with pytest.raises(BadInput, match="resnet18 holds something else"):
        build("resnet18", classes=5, weights="imagenet")


def test_weights_of_another_network_are_refused(publish):
    publish(torchvision.models.resnet34().state_dict())
    with pytest.raises(BadInput, match="resnet18 holds something else"):
        build("resnet18", classes=5, weights="imagenet")


@given(content=st.binary(max_size=40))
@settings(max_examples=30)
def test_noise_is_refused(content, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    name = f"net-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    (folder / name).write_bytes(content)
    enum = SimpleNamespace(IMAGENET1K_V1=SimpleNamespace(url=f"https://example.org/{name}"))
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("FAIRQ_WEIGHTS", str(folder))
        monkeypatch.setattr(torchvision.models, "get_model_weights", lambda arch: enum)
        with pytest.raises(BadInput, match="resnet18 holds something else"):
            build("resnet18", classes=5, weights="imagenet")


def test_a_missing_file_is_named_with_the_places_for_it(folder):
    with pytest.raises(BadInput) as caught:
        build("resnet18", classes=5, weights="imagenet")
    for part in (
        "resnet18-f37072fd.pth",
        str(folder / "home" / "hub" / "checkpoints"),
        "get_model",
        str(folder),
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize("call", [build, weights_digest])
def test_a_damaged_file_is_refused(call, folder):
    (folder / "resnet18-f37072fd.pth").write_bytes(b"cut short")
    options = {"classes": 5, "weights": "imagenet"} if call is build else {"weights": "imagenet"}
    with pytest.raises(BadInput, match="expected one that begins with f37072fd"):
        call("resnet18", **options)


def test_a_folder_in_place_of_the_file_is_refused(folder):
    (folder / "resnet18-f37072fd.pth").mkdir()
    with pytest.raises(BadInput, match="cannot be read"):
        weights_digest("resnet18", "imagenet")


@pytest.mark.parametrize("arch", CONVOLUTIONAL)
def test_the_published_file_fits(arch):
    try:
        network = seeded(arch, weights="imagenet")
    except BadInput as missing:
        pytest.skip(str(missing))
    first = next(iter(network.state_dict()))
    assert not torch.equal(network.state_dict()[first], seeded(arch).state_dict()[first])


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"arch": "alexnet"}, "arch is 'alexnet'; expected one of: resnet18, "),
        ({"arch": "resnet18-0"}, "arch is 'resnet18-0'; expected one of: resnet18, .* resnet18-16"),
        ({"arch": "resnet18-016"}, "arch is 'resnet18-016'; expected one of: resnet18, .* resnet18-16"),
        ({"arch": "efficientnet_b0-12"}, "expected a multiple of 8 channels, such as efficientnet_b0-64"),
        ({"arch": "vit-63"}, "expected a multiple of 4 channels, such as vit-32"),
        ({"arch": "mobilenet_v3_small-8"}, "expected one of"),
        ({"arch": "resnet18-1000"}, "expected at most 256 channels, such as resnet18-16"),
        ({"arch": 18}, "arch is 18; expected one of: resnet18"),
        ({"arch": "resnet18-16", "weights": "imagenet"}, "resnet18-16 was never trained on ImageNet"),
        ({"classes": 0}, "classes is 0; expected"),
        ({"classes": 2.0}, "classes is 2.0; expected"),
        ({"image_size": 15}, "image_size is 15; expected"),
        ({"image_size": 225}, "image_size is 225; expected"),
        ({"image_size": 32.0}, "image_size is 32.0; expected"),
        ({"arch": "vit", "image_size": 36}, "image_size is 36, .*multiple of 8"),
        ({"arch": "vit", "weights": "imagenet"}, "vit was never trained on ImageNet"),
        ({"weights": "IMAGENET1K_V1"}, "weights is 'IMAGENET1K_V1'; expected 'imagenet' or None"),
    ],
)
def test_what_cannot_be_built_is_refused(wrong, said):
    with pytest.raises(BadInput, match=said) as caught:
        build(**{"arch": "resnet18", "classes": 5} | wrong)
    assert "\n" not in str(caught.value)
