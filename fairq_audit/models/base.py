"""A model that can be audited: what it takes, what it answers, and what it is made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from fairq_audit.models.graphs import Graph
from fairq_audit.models.images import Size, grey, said, sides
from fairq_audit.models.inputs import Inputs
from fairq_audit.models.outputs import first_line, logits_of
from fairq_utils.data.datasets import Dataset
from fairq_utils.errors import BadInput
from fairq_utils.treatments.treatment import Treatment

# What `training.to_input` subtracts from pixels that run from 0 to 1, and divides them by.
_BOOK_MEAN, _BOOK_STD = (0.5,), (0.25,)


@dataclass(frozen=True, eq=False, kw_only=True)
class AuditModel:
    """A model that takes images, or rows of a table, and gives each a logit for each class.

    `network`: takes float images N x 3 x H x W, whose pixels run from 0 to 1 and then have `mean` subtracted
    and are divided by `std` (one number, or one for each of red, green and blue; by default the book's).
    With one of its `channels` it takes brightness, and with `channels_last` N x H x W x C.
    `image_size`: pixels along a side, or height and width, where the network fixes them.
    `class_names`: what its logits stand for, in their order; None where nobody says: then the labels of the
    images in theirs.
    `treatment`: what was done to it here; None where it is as it came. `source`: what else is known of it.

    >>> from fairq_audit.models.tables import layers, predictions_of
    >>> from fairq_utils.data.sources import load
    >>> images = load("moths", train_images=40, test_images=20, image_size=16)
    >>> mine = AuditModel(name="mine", network=nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 5)))
    >>> rounded = mine.treated("int2", images)
    >>> list(predictions_of(rounded, images).columns[:5])
    ['id', 'label', 'group', 'prediction', 'logit_Alder']
    >>> layers(mine, rounded)[["layer", "weights", "zero_before"]]
          layer  weights  zero_before
    0  1.weight     3840          0.0
    """

    name: str
    network: nn.Module
    image_size: Size | None = None
    channels: int = 3
    channels_last: bool = False
    mean: tuple[float, ...] | None = _BOOK_MEAN
    std: tuple[float, ...] | None = _BOOK_STD
    class_names: tuple[str, ...] | None = None
    treatment: Treatment | None = None
    source: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for option in ("mean", "std"):
            given = getattr(self, option)
            numbers = given is None or all(isinstance(n, int | float) and np.isfinite(n) for n in given)
            if not numbers or (given is not None and len(given) not in (1, 3)):
                raise BadInput(f"{option} is {given!r}; expected one number, or three: red, green, blue.")
            if given is not None and len(given) > self.channels:
                raise BadInput(f"{option} is {given!r} for images of one channel; expected one number.")
        if self.std and min(self.std) <= 0:
            raise BadInput(f"std is {self.std!r}; expected numbers above 0.")

    @cached_property
    def seeing(self) -> nn.Module:
        """The network behind images as `training.to_input` makes them, which is how the book runs one."""
        require_normalisation(self)
        return _Seeing(self).eval()

    def treated(self, treatment: Treatment | str, images: Dataset | Inputs) -> AuditModel:
        """A copy of the model with its weights rounded; this one stays as it is.

        Any treatment that does not train. Where inputs are rounded too, or batch norms are taken again, some
        training images are run through the network. An ONNX file and a program take treatments of weights
        alone, and so does whatever is fed with rows of a table. In an ONNX file the weights of Conv, Gemm and
        MatMul are rounded as they stand there: whoever exported it often folded batch norms into them, and
        one scale for all channels then costs more.
        """
        treatment = Treatment.parse(treatment) if isinstance(treatment, str) else treatment
        if treatment.trains:
            raise BadInput(
                f"treatment {treatment.name!r} trains, and an audit does not; expected one that only rounds, "
                "such as int4: train the network yourself and give both models, before and after."
            )
        if isinstance(images, Dataset) and not isinstance(self.network, Graph):
            require_fit(self, images)
            with explained(self, images):
                treated = treatment.apply(self.seeing, images)
            return replace(self, network=treated.network, treatment=treatment)  # type: ignore[arg-type]
        if treatment.activations or treatment.batchnorm or treatment.aligns or treatment.allocated:
            raise BadInput(
                f"treatment {treatment.name!r} changes more than weights, or looks at images to change them, "
                f"which {self.name} does not allow here; expected one of weights alone, such as int4"
                + (": or give the network as package.module:factory." if isinstance(images, Dataset) else ".")
            )
        unseen = cast(Dataset, images)  # by a treatment of weights alone
        if not isinstance(self.network, Graph):
            with explained(self, images):
                return replace(self, network=treatment.apply(self.network, unseen), treatment=treatment)
        weights = self.network.weights()
        if not len(weights):
            raise BadInput(
                f"{self.name} has no floating-point weight that a layer reads; expected a model that is not "
                "quantized yet: give two models, before and after."
            )
        return replace(
            self, network=self.network.holding(treatment.apply(weights, unseen)), treatment=treatment
        )

    @property
    def title(self) -> str:
        """Its name and what was done to it.

        >>> AuditModel(name="mine", network=nn.Identity(), treatment=Treatment(4)).title
        'mine int4'
        """
        return f"{self.name} {self.treatment.name}" if self.treatment else self.name

    def description(self) -> dict[str, Any]:
        """What a record of the audit has to say of the model, as plain JSON."""
        return {
            "model": self.name,
            "treatment": self.treatment and self.treatment.name,
            "image_size": list(self.image_size) if isinstance(self.image_size, tuple) else self.image_size,
            "mean": None if self.mean is None else list(self.mean),
            "std": None if self.std is None else list(self.std),
            "classes": None if self.class_names is None else list(self.class_names),
            **self.source,
        }


_COMPUTED = (torch.float32, torch.float16, torch.bfloat16, torch.float64)  # types that layers compute in


class _Seeing(nn.Module):
    """A network behind the book's own normalisation, which it undoes."""

    factor: Tensor
    shift: Tensor

    def __init__(self, model: AuditModel) -> None:
        super().__init__()
        self.network = model.network
        self.channels, self.channels_last = model.channels, model.channels_last
        own_mean, own_std = (
            torch.tensor(numbers, dtype=torch.float64).view(-1, 1, 1) for numbers in (model.mean, model.std)
        )
        # Exactly 1 and 0 where the two normalisations are one.
        self.register_buffer("factor", (_BOOK_STD[0] / own_std).float())
        self.register_buffer("shift", ((_BOOK_MEAN[0] - own_mean) / own_std).float())

    def forward(self, images: Tensor) -> Tensor:
        kinds = (parameter.dtype for parameter in self.network.parameters())
        own = next((kind for kind in kinds if kind in _COMPUTED), torch.float32)
        if self.channels == 1 and images.shape[1] == 3:
            pixels = (images * _BOOK_STD[0] + _BOOK_MEAN[0]) * 255
            images = (grey(pixels) / 255 - _BOOK_MEAN[0]) / _BOOK_STD[0]
        seen = (images * self.factor + self.shift).to(own)
        return logits_of(self.network(seen.permute(0, 2, 3, 1) if self.channels_last else seen)).float()


def require_normalisation(model: AuditModel) -> None:
    """Refuse a model of images of which nobody says how their pixels are normalised."""
    if model.mean is None or model.std is None:
        raise BadInput(
            f"{model.name} does not say how its images are normalised; expected mean and std of pixels from "
            "0 to 1, as in the code that trained it: --mean 0.5 --std 0.25 are those of this book's "
            "networks, --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 those of ImageNet."
        )


def require_fit(model: AuditModel, images: Dataset) -> None:
    """Refuse images that the model does not take."""
    size = model.image_size
    if size is None or sides(size) == tuple(images.images.shape[2:]):
        return
    wanted = f"{size} pixels along a side" if isinstance(size, int) else f"{size[0]} × {size[1]} pixels"
    raise BadInput(
        f"{model.name} takes images of {wanted}, and these have {said(images)}; expected the same: load the "
        f"data with image_size={size}."
    )


@contextmanager
def explained(model: AuditModel, images: Dataset | Inputs) -> Iterator[None]:
    """Say in a sentence what somebody's model raised."""
    try:
        yield
    except BadInput:
        raise
    except Exception as error:
        if isinstance(images, Inputs):
            raise BadInput(
                f"{model.name} raised {first_line(error)} on {images.said}; expected a model that takes "
                "them: name the columns that it was trained with, in its order, or mend it."
            ) from error
        raise BadInput(
            f"{model.name} raised {first_line(error)} on images of {model.channels} × {said(images)}; "
            "expected a model that takes them: give its image_size, or mend it."
        ) from error
