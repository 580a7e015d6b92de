"""The form in which a model takes images, and images of that form."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from fairq_utils.data.archives import Member
from fairq_utils.data.datasets import Dataset
from fairq_utils.data.layouts import LAYOUTS
from fairq_utils.data.sources import DataSettings, select_images
from fairq_utils.errors import BadInput
from fairq_utils.progress import progress

Size = int | tuple[int, int]  # along each side of a square; or height and width

_SQUARES = range(16, 513)  # that every data set can be read as
_LARGEST = 4096


@dataclass(frozen=True)
class Form:
    """How images lie in a tensor: their channels, whether these come last, and the pixels, where fixed."""

    channels: int = 3
    size: Size | None = None
    channels_last: bool = False


def parse_size(text: str) -> tuple[int | None, Size]:
    """What `--image-size` says: channels, if any are said, and a side, or height and width.

    >>> parse_size("32"), parse_size("48x192"), parse_size("1x28x28")
    ((None, 32), (None, (48, 192)), (1, 28))
    >>> parse_size("48x")
    Traceback (most recent call last):
        ...
    fairq_utils.errors.BadInput: image_size is '48x'; expected pixels along a side, such as 32, or height x
    width, such as 48x192, with one channel 1x48x192; each side from 1 to 4096.
    """
    found = re.fullmatch(r"(?:(?:([13])x)?(\d{1,4})x)?(\d{1,4})", text.replace(" ", ""))
    channels, height, width = found.groups() if found else (None, None, "0")
    both = int(height or width), int(width)
    if not 1 <= min(both) <= max(both) <= _LARGEST:
        raise BadInput(
            f"image_size is {text!r}; expected pixels along a side, such as 32, or height x width, such as "
            f"48x192, with one channel 1x48x192; each side from 1 to {_LARGEST}."
        )
    return int(channels) if channels else None, _size(*both)


def form_of(name: object, takes: Mapping[str, Sequence[int | None]]) -> Form:
    """The form of the images that a graph takes, from the shapes of its inputs.

    >>> form_of("a.onnx", {"pixels": (None, 48, 192, 1)})
    Form(channels=1, size=(48, 192), channels_last=True)
    """
    shape = next(iter(takes.values())) if len(takes) == 1 else ()
    colours = [shape[place] in (1, 3) for place in (1, 3)] if len(shape) == 4 else []
    free = len(shape) == 4 and shape[1] is None and not colours[1]
    if sum(colours) + free != 1:
        taken = " and ".join(
            " × ".join("any" if n is None else str(n) for n in own) for own in takes.values()
        )
        raise BadInput(
            f"{name} takes {taken or 'nothing'}; expected images × channels × height × width, or the "
            "channels last, of 1 or 3 channels, and nothing else: export a model that takes these, or give "
            "--inputs where it takes no images."
        )
    last = colours[1]
    channels, height, width = (shape[3], *shape[1:3]) if last else shape[1:]
    size = _size(height, width) if height is not None and width is not None else None
    return Form(channels or 3, size, last)


def _size(height: int, width: int) -> Size:
    return height if height == width else (height, width)


def sides(size: Size) -> tuple[int, int]:
    """Height and width.

    >>> sides(32), sides((48, 192))
    ((32, 32), (48, 192))
    """
    return (size, size) if isinstance(size, int) else size


def said(images: Dataset) -> str:
    """Height and width of these images, in words."""
    height, width = images.images.shape[2:]
    return f"{height} × {width}"


def grey(pixels: Tensor) -> Tensor:
    """One channel of three, of pixels from 0 to 255: brightness as Pillow computes it, to the last bit.

    >>> grey(torch.tensor([255.0, 0.0, 0.0]).view(1, 3, 1, 1)).item()
    76.0
    """
    # ITU-R 601 in units of 1/65536: all sums are whole numbers that float32 holds exactly.
    shares = torch.tensor([19595.0, 38470.0, 7471.0], device=pixels.device).view(1, 3, 1, 1)
    return (((pixels.round() * shares).sum(1, keepdim=True) + 32768) / 65536).floor()


def load_images(
    settings: DataSettings, size: Size, load: Callable[[DataSettings], Dataset] = DataSettings.load
) -> Dataset:
    """The data set in that size: cropped in its middle to the proportions of the size, then shrunk.

    Squares of 16 to 512 pixels are read by `load`, whatever the data set. Any other size is read from a
    folder of one's own alone.

    >>> load_images(DataSettings(train_images=40, test_images=20), 24).images.shape
    torch.Size([60, 3, 24, 24])
    """
    height, width = sides(size)
    if height == width and height in _SQUARES:
        return load(replace(settings, image_size=height))
    if settings.name != "folder":
        raise BadInput(
            f"images of {height} × {width} pixels are wanted, and {settings.name} is read as squares of "
            f"{_SQUARES[0]} to {_SQUARES[-1]}; expected a folder of your own for any other size: --dataset "
            "folder."
        )
    # Every file is checked as it is read for the first time: that it is a whole image and no larger than one.
    small = load(replace(settings, image_size=_SQUARES[0]))
    layout, paths = LAYOUTS[settings.name], settings.paths()
    listing = layout.read(paths, label=settings.label or layout.label, group=settings.group or layout.group)
    members = select_images(listing, settings)[0]["member"].tolist()
    images = torch.empty((len(members), 3, height, width), dtype=torch.uint8)

    def put(row: int) -> None:
        images.numpy()[row] = _pixels(members[row], height, width)

    with (
        progress(total=len(members), description="decoding", unit="image") as bar,
        ThreadPoolExecutor(os.cpu_count() or 1) as pool,
    ):
        for _ in pool.map(put, range(len(members))):
            bar.update()
    return replace(small, images=images)


def _pixels(member: Member, height: int, width: int) -> np.ndarray[Any, Any]:
    with Image.open(member.source / member.name, formats=("JPEG", "PNG", "WEBP", "BMP")) as image:
        ImageOps.exif_transpose(image, in_place=True)
        whole = image.convert("RGBA") if image.mode in ("P", "PA") else image
        cut = ImageOps.fit(whole.convert("RGB"), (width, height), Image.Resampling.BILINEAR)
    return np.asarray(cut).transpose(2, 0, 1)
