"""The networks the book trains, by name, each fitted to small images."""

from __future__ import annotations

import hashlib
import io
import os
import re
from functools import partial
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.efficientnet import EfficientNet, MBConvConfig
from torchvision.ops import SqueezeExcitation

from fairq_utils.errors import BadInput

NAMES = ("resnet18", "efficientnet_b0", "mobilenet_v3_small", "vit")
# Of each name as a message or a help text lists them.
CHOICES = f"{', '.join(NAMES)}, or with fewer channels resnet18-16, efficientnet_b0-16, vit-64"
PATTERN = rf"(?:{'|'.join(NAMES)}|(?:resnet18|efficientnet_b0|vit)-[1-9]\d*)"

_COLOURS = 3
# Of the networks that there are with other numbers of channels: how many each usually begins with, and by
# what its other layers need that number to be divided.
_USUAL_CHANNELS, _DIVIDED_BY = (
    {"resnet18": 64, "efficientnet_b0": 32, "vit": 128},
    {"efficientnet_b0": 8, "vit": 4},
)
_MOST_CHANNELS = 256
_SMALLEST_MAP = 2  # what the efficient networks shall still see across, after their last stride
_PATCHES = 8  # along each side of what the transformer sees


def build(arch: str, *, classes: int, image_size: int = 32, weights: str | None = None) -> nn.Module:
    """A network of the named architecture: untrained, or with `weights="imagenet"` all but its last layer.

    `resnet18` is torchvision's as it stands, at every size. `resnet18-16` is the same with 16 channels at its
    start where that has 64, and so a quarter as many everywhere: a sixteenth of the weights, for when many
    networks say more than large ones. Any other number of channels is named alike. `efficientnet_b0-16`
    begins with 16 channels where that has 32, and a multiple of 8 is asked for; `vit-64` is 64 wide where
    `vit` is 128, and a multiple of 4 is asked for.

    `efficientnet_b0` and `mobilenet_v3_small` are torchvision's with fewer strides. Five times they would
    halve an image: of 32 pixels a map of 1 x 1 would be left, where all but the middle of a depthwise kernel
    falls on padding. So the first strides become 1, as few as leave a map of 2 x 2 at the end: two at 16
    pixels, one at 32, none from 64 on. The first, because detail that they skip is lost to all later
    layers: compared once on moths, EfficientNet was right on 69 % this way, and on 63 % with the last
    stride at 1, which took half of the time. Nothing is dropped out at random, for a short training only
    suffers from it, and normalisation forgets at PyTorch's usual rate: at that of MobileNet its averages
    lag hundreds of steps behind.

    `vit` is torchvision's transformer, small: 8 x 8 patches (of 4 pixels at 32), six layers of width 128. It
    takes images of exactly `image_size`, a multiple of 8.

    The parameters of `resnet18` and of the efficient networks have the shapes of torchvision's, so
    `weights="imagenet"` fits. It reads a file and never fetches one: where the file is missing, the message
    says which and where to put it. What is drawn at random follows `torch.manual_seed`.

    >>> build("resnet18", classes=5).fc.out_features
    5
    >>> build("resnet18-16", classes=5).fc.in_features
    128
    >>> build("vit", classes=5, image_size=64)(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 5])
    >>> build("resnet19", classes=5)
    Traceback (most recent call last):
        ...
    fairq_utils.errors.BadInput: arch is 'resnet19'; expected one of: resnet18, efficientnet_b0,
    mobilenet_v3_small, vit, or with fewer channels resnet18-16, efficientnet_b0-16, vit-64.
    """
    content = _weights_content(arch, weights)
    if not isinstance(classes, int) or classes < 1:
        raise BadInput(f"classes is {classes!r}; expected a whole number of at least 1.")
    if not isinstance(image_size, int) or not 16 <= image_size <= 224:
        raise BadInput(f"image_size is {image_size!r}; expected a whole number of pixels from 16 to 224.")
    name, _, channels = arch.partition("-")
    network = _BUILDERS[name](
        classes, image_size, int(channels) if channels else _USUAL_CHANNELS.get(name, 0)
    )
    if content is not None:
        _fill(network, content, arch)
    return network


def weights_digest(arch: str, weights: str | None) -> str | None:
    """The SHA-256 of the file that `build` would read; None when it would read none.

    What was trained from other weights must not pass for trained from these. A missing file is refused as
    in `build`: the message says where to put it.

    >>> weights_digest("resnet18", None)
    >>> weights_digest("vit", "imagenet")
    Traceback (most recent call last):
        ...
    fairq_utils.errors.BadInput: weights is 'imagenet', but this small vit was never trained on ImageNet;
    leave weights out, or choose one of: resnet18, efficientnet_b0, mobilenet_v3_small.
    """
    content = _weights_content(arch, weights)
    return None if content is None else hashlib.sha256(content).hexdigest()


# ---------------------------------------------------------------- untrained networks


def _resnet(classes: int, image_size: int, channels: int) -> nn.Module:
    if channels == _USUAL_CHANNELS["resnet18"]:
        return torchvision.models.resnet18(num_classes=classes)
    with torch.device(
        "meta"
    ):  # its own weights are not drawn, so that the seed decides those of the narrow one
        network = torchvision.models.resnet18(num_classes=classes)
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d | nn.Linear):
            owner, _, own = name.rpartition(".")
            setattr(network.get_submodule(owner), own, _narrowed(module, channels))
    return network


def _narrowed(module: nn.Conv2d | nn.BatchNorm2d | nn.Linear, channels: int) -> nn.Module:
    """The layer for a network that begins with so many channels, initialised as torchvision does."""

    def fewer(count: int) -> int:
        return count * channels // _USUAL_CHANNELS["resnet18"]

    if isinstance(module, nn.Linear):
        return nn.Linear(fewer(module.in_features), module.out_features)
    if isinstance(module, nn.BatchNorm2d):
        return nn.BatchNorm2d(fewer(module.num_features))
    conv = nn.Conv2d(
        module.in_channels if module.in_channels == _COLOURS else fewer(module.in_channels),
        fewer(module.out_channels),
        kernel_size=module.kernel_size,  # type: ignore[arg-type]
        stride=module.stride,  # type: ignore[arg-type]
        padding=module.padding,  # type: ignore[arg-type]
        bias=False,
    )
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv


# EfficientNet-B0, block by block: expansion, kernel, stride, channels in and out, and how often.
_BLOCKS = (
    (1, 3, 1, 32, 16, 1),
    (6, 3, 2, 16, 24, 2),
    (6, 5, 2, 24, 40, 2),
    (6, 3, 2, 40, 80, 3),
    (6, 5, 1, 80, 112, 3),
    (6, 5, 2, 112, 192, 4),
    (6, 3, 1, 192, 320, 1),
)


def _efficientnet(classes: int, image_size: int, channels: int) -> nn.Module:
    narrowed = channels / _USUAL_CHANNELS["efficientnet_b0"]
    blocks = [MBConvConfig(*block, width_mult=narrowed) for block in _BLOCKS]
    network = EfficientNet(blocks, dropout=0.0, stochastic_depth_prob=0.0, num_classes=classes)
    return _with_fewer_strides(network, image_size)


def _mobilenet(classes: int, image_size: int, channels: int) -> nn.Module:
    norm = partial(nn.BatchNorm2d, eps=0.001)  # torchvision's has momentum 0.01 too
    network = torchvision.models.mobilenet_v3_small(num_classes=classes, dropout=0.0, norm_layer=norm)
    for module in list(network.modules()):
        if isinstance(module, SqueezeExcitation):
            module.scale_activation = _HardSigmoid()
    return _with_fewer_strides(network, image_size)


class _HardSigmoid(nn.Module):
    """What `nn.Hardsigmoid` computes; but that has no second derivative, which curvature asks for."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu6(x + 3) / 6


def _with_fewer_strides(network: nn.Module, image_size: int) -> nn.Module:
    halving = [
        layer for layer in network.modules() if isinstance(layer, nn.Conv2d) and layer.stride == (2, 2)
    ]
    while image_size < _SMALLEST_MAP * 2 ** len(halving):
        halving.pop(0).stride = (1, 1)
    return network


def _transformer(classes: int, image_size: int, channels: int) -> nn.Module:
    if image_size % _PATCHES:
        raise BadInput(
            f"image_size is {image_size}, which vit cannot cut into {_PATCHES} x {_PATCHES} patches; "
            f"choose a multiple of {_PATCHES}."
        )
    return torchvision.models.VisionTransformer(
        image_size=image_size,
        patch_size=image_size // _PATCHES,
        num_layers=6,
        num_heads=4,
        hidden_dim=channels,
        mlp_dim=2 * channels,
        num_classes=classes,
    )


_BUILDERS = {
    "resnet18": _resnet,
    "efficientnet_b0": _efficientnet,
    "mobilenet_v3_small": _mobilenet,
    "vit": _transformer,
}


# ---------------------------------------------------------------- ImageNet weights, from a file


def _weights_content(arch: str, weights: str | None) -> bytes | None:
    """The file of weights, when its SHA-256 begins as its name says."""
    if not isinstance(arch, str) or not re.fullmatch(PATTERN, arch):
        raise BadInput(f"arch is {arch!r}; expected one of: {CHOICES}.")
    name, _, channels = arch.partition("-")
    if channels and int(channels) > _MOST_CHANNELS:
        raise BadInput(f"arch is {arch!r}; expected at most {_MOST_CHANNELS} channels, such as resnet18-16.")
    if channels and int(channels) % (by := _DIVIDED_BY.get(name, 1)):
        raise BadInput(f"arch is {arch!r}; expected a multiple of {by} channels, such as {name}-{8 * by}.")
    if weights is None:
        return None
    if weights != "imagenet":
        raise BadInput(f"weights is {weights!r}; expected 'imagenet' or None.")
    if arch == "vit" or channels:
        raise BadInput(
            f"weights is 'imagenet', but this small {arch} was never trained on ImageNet; "
            f"leave weights out, or choose one of: {', '.join(NAMES[:-1])}."
        )
    path = _weights_path(arch)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror}); make it a readable file.") from error
    expected = path.stem.rpartition("-")[2]
    digest = hashlib.sha256(content).hexdigest()
    if not digest.startswith(expected):
        raise BadInput(
            f"{path} has the SHA-256 {digest[:16]}...; expected one that begins with {expected}: "
            "the file is damaged, delete it and download it again."
        )
    return content


def _weights_path(arch: str) -> Path:
    name = Path(torchvision.models.get_model_weights(arch).IMAGENET1K_V1.url).name
    usual = Path(torch.hub.get_dir()) / "checkpoints"
    named = os.environ.get("FAIRQ_WEIGHTS")
    for folder in ([Path(named)] if named else []) + [usual]:
        if (folder / name).exists():
            return folder / name
    raise BadInput(
        f"The ImageNet weights of {arch} are missing; put the file {name} into {usual}, where "
        f"torchvision.models.get_model({arch!r}, weights='IMAGENET1K_V1') downloads it, or into the folder "
        f"that the environment variable FAIRQ_WEIGHTS names (now {named or 'not set'})."
    )


def _fill(network: nn.Module, content: bytes, arch: str) -> None:
    """Put the weights into all but the last layer, which keeps its own: its classes are others."""
    *_, head = (name for name, layer in network.named_modules() if isinstance(layer, nn.Linear))
    own = {name: value for name, value in network.state_dict().items() if name.startswith(f"{head}.")}
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        network.load_state_dict({**state, **own})
    except Exception as error:  # the unpickler raises whatever the bytes lead it to
        raise BadInput(
            f"The file of ImageNet weights for {arch} holds something else; expected the state of "
            "torchvision's network: delete the file and download it again."
        ) from error
