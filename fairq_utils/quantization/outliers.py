"""The same function on another grid: channels with larger weights, which batch norm makes small again."""

from __future__ import annotations

import copy
from collections import Counter
from typing import TypeVar

import pandas as pd
import torch
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from fairq_utils.errors import BadInput
from fairq_utils.quantization.models import weight_parameters

Model = TypeVar("Model", bound=nn.Module)


@torch.no_grad()
def scale_outliers(model: Model, factor: int) -> Model:
    """A copy of the model that computes the same function with one louder channel in each convolution.

    Of each convolution that only a batch norm follows, the output channel with the layer's largest weight
    is made `factor` times as large, and its batch norm makes it small again. So a grid for the whole tensor
    has steps that are exactly `factor` times as wide, for all other channels too; a grid for each channel
    does not change at all. What then happens is the grid's doing and not the function's.

    >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    >>> louder, images = scale_outliers(network, 4), torch.randn(2, 3, 8, 8)
    >>> (louder[0].weight.abs().max() / network[0].weight.abs().max()).item()
    4.0
    >>> torch.allclose(louder(images), network(images), atol=1e-6)
    True
    """
    if type(factor) is not int or factor < 1:
        raise BadInput(f"factor is {factor!r}; expected a whole number of at least 1, such as 4.")
    model = copy.deepcopy(model)
    for convolution, norm in _followed_by_norm(model):
        assert norm.running_mean is not None
        assert norm.running_var is not None
        channel = int(convolution.weight.flatten(1).abs().amax(1).argmax())
        convolution.weight[channel] *= factor
        if convolution.bias is not None:
            convolution.bias[channel] *= factor
        norm.running_mean[channel] *= factor
        # so that the variance with the norm's epsilon is factor**2 times what it was
        norm.running_var[channel] = (norm.running_var[channel] + norm.eps) * factor**2 - norm.eps
    return model


def _followed_by_norm(model: nn.Module) -> list[tuple[_ConvNd, _BatchNorm]]:
    """Each convolution whose output goes into a batch norm with statistics and nowhere else."""
    try:
        nodes = list(fx.symbolic_trace(model).graph.nodes)
    except Exception as error:  # whatever a stranger's forward does while it is traced
        said = " ".join(str(error).split())
        raise BadInput(
            f"The model cannot be traced ({type(error).__name__}: {said}); expected one whose convolutions "
            "and batch norms torch.fx finds, such as those of torchvision."
        ) from error
    modules = dict(model.named_modules())
    calls = Counter(node.target for node in nodes if node.op == "call_module")
    found = []
    for node in nodes:
        before = node.args[0] if node.args and isinstance(node.args[0], fx.Node) else None
        if node.op != "call_module" or before is None or before.op != "call_module":
            continue
        norm, convolution = modules[node.target], modules[before.target]
        if (
            isinstance(norm, _BatchNorm)
            and norm.track_running_stats
            and isinstance(convolution, _ConvNd)
            and not convolution.transposed
            and len(before.users) == 1
            and calls[node.target] == calls[before.target] == 1
        ):
            found.append((convolution, norm))
    if not found:
        raise BadInput(
            "The model has no convolution that only a batch norm follows; expected one, such as resnet18-16."
        )
    return found


@torch.no_grad()
def reach(model: nn.Module) -> pd.Series:
    """The largest weight over the standard deviation, by layer: how far a plain grid has to reach.

    On a grid of b bits a step is this over 2**(b - 1) - 1, in standard deviations. For Gaussian weights it
    grows slowly with their number: 4 for 10,000 and 5 for a million and a half.

    >>> layer = nn.Linear(4, 1, bias=False)
    >>> _ = layer.weight.data.copy_(torch.tensor([[1.0, -1.0, 1.0, -1.0]]))
    >>> reach(layer)
    weight    1.0
    Name: reach, dtype: float64
    """
    found = {place.name: place.original.double() for place in weight_parameters(model)}
    return pd.Series(
        {name: float(weight.abs().max() / weight.std(correction=0)) for name, weight in found.items()},
        name="reach",
    )
