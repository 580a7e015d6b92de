"""Images with what is said of them: captions, and attributes such as a class or a group.

The data sets that vision-language models are judged on, read from your copy as it was downloaded. Nothing
is fetched, and files stay as they are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fairq_utils.errors import BadInput


@dataclass(frozen=True, eq=False)
class Scenes:
    """Images in memory, with captions or attributes or both.

    `images` is uint8 of shape N x 3 x H x W. `captions` has the captions of each image, or is empty where
    nothing was said. `attributes` has a row an image and a categorical column for each attribute, so that a
    value that no image has keeps its name. `is_train` is true for what may be trained on, and `is_test` for
    what is there to judge by; what is neither is for tuning, which no encoder sees.

    >>> scenes = Scenes(
    ...     torch.zeros(2, 3, 4, 4, dtype=torch.uint8),
    ...     captions=(("a cat",), ("a dog", "some dog")),
    ...     attributes=pd.DataFrame({"kind": pd.Categorical(["cat", "dog"], ["cat", "dog", "owl"])}),
    ... )
    >>> scenes.codes("kind"), scenes.names("kind")
    (tensor([0, 1]), ('cat', 'dog', 'owl'))
    >>> scenes.take(torch.tensor([1])).captions
    (('a dog', 'some dog'),)
    """

    images: Tensor
    captions: tuple[tuple[str, ...], ...] = ()
    attributes: pd.DataFrame = field(default_factory=pd.DataFrame)
    is_train: Tensor | None = None
    is_test: Tensor | None = None

    def __post_init__(self) -> None:
        count = len(self.images)
        if not count:
            raise BadInput("there are no images; expected at least one: look at what was chosen.")
        for what, given in (("captions", self.captions), ("attributes", self.attributes.columns)):
            has = len(self.captions if what == "captions" else self.attributes)
            if len(given) and has != count:
                raise BadInput(f"{what} are of {has} images; expected those of {count}: one row an image.")

    def codes(self, attribute: str) -> Tensor:
        """The place of each image's value in the names of the attribute."""
        codes = self._column(attribute).cat.codes.to_numpy().astype(np.int64)
        if (codes < 0).any():
            raise BadInput(
                f"{int((codes < 0).sum())} images have no {attribute}; expected one for each: leave them out."
            )
        return torch.from_numpy(codes)

    def names(self, attribute: str) -> tuple[str, ...]:
        """All values that the attribute may have."""
        return tuple(map(str, self._column(attribute).cat.categories))

    def take(self, rows: Tensor) -> Scenes:
        """The images of these rows, or of this mask, with what belongs to them."""
        places = rows.nonzero()[:, 0] if rows.dtype == torch.bool else rows
        chosen = places.tolist()
        return Scenes(
            self.images[places],
            tuple(self.captions[row] for row in chosen) if self.captions else (),
            self.attributes.iloc[chosen].reset_index(drop=True),
            *(None if part is None else part[places] for part in (self.is_train, self.is_test)),
        )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the content."""
        said = [self.captions, [(name, self.attributes[name].tolist()) for name in self.attributes]]
        digest = hashlib.sha256(json.dumps(said).encode())
        for tensor in (self.images, self.is_train, self.is_test):
            if tensor is not None:
                digest.update(repr(tensor.shape).encode())
                digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def _column(self, attribute: str) -> pd.Series:
        if attribute not in self.attributes:
            known = ", ".join(map(str, self.attributes)) or "none"
            raise BadInput(f"attribute is {attribute!r}; expected one of: {known}.")
        return self.attributes[attribute]


def from_codes(codes: Tensor | np.ndarray, names: Sequence[str]) -> pd.Categorical:
    """A column of attributes: the names that the codes stand for, and all that there could be.

    >>> list(from_codes(torch.tensor([1, 0]), ["cat", "dog"]))
    ['dog', 'cat']
    """
    return pd.Categorical(np.array(names, dtype=object)[np.asarray(codes)], list(names))
