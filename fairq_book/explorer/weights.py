"""What is embedded of a network: histograms of its weights, and the grids that they are rounded to."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from fairq_book.explorer.counts import packed
from fairq_book.explorer.quantities import BINS, short
from fairq_utils.quantization.grids import Grid, LookupGrid, UniformGrid
from fairq_utils.quantization.models import grids, zero_share
from fairq_utils.treatments.ablations import layers

_DRAWN_VALUES = 33  # of a grid; more would lie too close to be told apart


@torch.no_grad()
def weights_of(network: nn.Module) -> dict[str, Any]:
    """A histogram of each layer's weights, from minus to plus the largest magnitude."""
    found = []
    for layer in layers(network):
        weight = network.get_parameter(layer).detach().cpu().float()
        reach = short(float(weight.abs().max()) or 1.0, 9)
        counts = torch.histc(weight, BINS, -reach, reach).int().tolist()
        found.append({"name": layer.removesuffix(".weight"), "reach": reach, "counts": packed(counts)})
    return {"layers": found, "grids": {}}


def grids_of(network: nn.Module, *, changed: bool) -> dict[str, Any]:
    """Of each layer of a treated network the values of its grid, the bin of zero, and how much is zero.

    Values are there when a layer has one grid, and few enough of them; else there is only their number, and
    that is 0 where grids differ within a layer, or where weights are `changed` in another way.
    """
    shares, of_layer = zero_share(network), grids(network)
    found = []
    for layer in layers(network):
        values = _values(of_layer[layer]) if layer in of_layer else None
        about: dict[str, Any] = {"zeros": short(float(shares[layer]), 6)}
        if values is not None:
            about |= {"size": len(values), "values": values if len(values) <= _DRAWN_VALUES else []}
            if 0.0 in values:
                place = values.index(0.0)
                ends = [values[max(place - 1, 0)] / 2, values[min(place + 1, len(values) - 1)] / 2]
                about["zero"] = [short(end, 5) for end in ends]
            about["values"] = [short(value, 5) for value in about["values"]]
        elif layer in of_layer or changed:
            about["size"] = 0
        found.append(about)
    return {"layers": found}


def _values(grid: Grid) -> list[float] | None:
    """All values of a grid that is the same for the whole tensor."""
    if isinstance(grid, UniformGrid) and grid.scale.numel() == 1:
        return grid.dequantize(torch.arange(grid.lowest, grid.highest + 1)).tolist()
    if isinstance(grid, LookupGrid) and grid.axis is None and grid.block is None:
        return grid.dequantize(torch.arange(grid.levels.numel())).tolist()
    return None
