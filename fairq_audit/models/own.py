"""Models that a caller knows by name, and images that it keeps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fairq_audit.models.base import AuditModel
from fairq_utils.data.datasets import Dataset
from fairq_utils.data.sources import DataSettings


@dataclass(frozen=True)
class OwnModels:
    """What `fairq audit` may name beside files and code: the networks of the book.

    `pattern` matches their names, `expected` describes them where a name is refused. `open` is given the
    name, the images and the epochs of training; `load` reads images, for instance from where they are kept.
    """

    pattern: str
    expected: str
    open: Callable[[str, DataSettings, float], AuditModel]
    load: Callable[[DataSettings], Dataset]
