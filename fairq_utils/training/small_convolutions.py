"""Convolutions whose output is a pixel or four, as the matrix products that they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

_MOST_PIXELS = 4  # 2 x 2: at 4 x 4 the convolution of the library is as fast


class ConvolutionsAsProducts(TorchFunctionMode):
    """Within this block, a convolution on the CPU that leaves at most four pixels is a matrix product.

    At the end of a ResNet on small images hundreds of channels meet on maps of 2 x 2 or 1 x 1. There the
    convolutions of PyTorch's CPU library take several times as long as the same sums done as one product,
    forwards and backwards. The values are equal but for the order in which they are added.

    >>> images, kernel = torch.ones(1, 3, 2, 2), torch.ones(5, 3, 3, 3)
    >>> with ConvolutionsAsProducts():
    ...     F.conv2d(images, kernel, padding=1).shape
    torch.Size([1, 5, 2, 2])
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Called by PyTorch in place of each of its functions."""
        if func is torch.conv2d and (product := _as_product(*args, **(kwargs or {}))) is not None:
            return product
        return func(*args, **(kwargs or {}))


def _as_product(
    images: Tensor,
    kernel: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor | None:
    """The convolution, or nothing where it is better left to the library."""
    plain = groups == 1 and images.dim() == 4 and not isinstance(padding, str) and _pair(dilation) == (1, 1)
    if not plain or images.device.type != "cpu":
        return None
    (down, across), (above, beside) = _pair(stride), _pair(padding)
    height = (images.shape[2] + 2 * above - kernel.shape[2]) // down + 1
    width = (images.shape[3] + 2 * beside - kernel.shape[3]) // across + 1
    if not 0 < height * width <= _MOST_PIXELS:
        return None
    # What lies in the padding wherever the kernel stands adds nothing.
    rows = _touching(kernel.shape[2], images.shape[2], height, down, above)
    columns = _touching(kernel.shape[3], images.shape[3], width, across, beside)
    if not rows or not columns:
        return None
    padded = F.pad(images.permute(0, 2, 3, 1), (0, 0, beside, beside, above, above))
    seen = torch.cat(
        [
            padded[:, i : i + down * (height - 1) + 1 : down, j : j + across * (width - 1) + 1 : across]
            for i in rows
            for j in columns
        ],
        dim=-1,
    )
    used = kernel[:, :, rows.start : rows.stop, columns.start : columns.stop]
    product = F.linear(seen, used.permute(0, 2, 3, 1).flatten(1), bias)
    return product.permute(0, 3, 1, 2)


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


def _touching(kernel: int, image: int, out: int, stride: int, padding: int) -> range:
    """The rows of a kernel that touch the image at any of its places."""
    return range(max(0, padding - stride * (out - 1)), min(kernel, image + padding))
