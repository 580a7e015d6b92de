"""What a job makes: named tensors, and a little JSON about them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Item:
    """What the store keeps: named tensors, and a little JSON about them."""

    tensors: dict[str, Tensor]
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """SHA-256 of the content, whatever it is called and wherever it lies.

        >>> import torch
        >>> Item({"x": torch.zeros(2)}).digest == Item({"x": torch.zeros(2)}).digest
        True
        >>> Item({"x": torch.zeros(2)}).digest == Item({"x": torch.zeros(1, 2)}).digest
        False
        """
        digest = hashlib.sha256(canonical(self.info).encode())
        for name, tensor in sorted(self.tensors.items()):
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()


def canonical(value: Any) -> str:
    """JSON with one spelling for one value.

    >>> canonical({"b": (1, 2), "a": None})
    '{"a":null,"b":[1,2]}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
