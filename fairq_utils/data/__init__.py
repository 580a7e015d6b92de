"""Images, labels and groups, and everything that chooses among them."""

from fairq_utils.data.datasets import Dataset, describe
from fairq_utils.data.moths import Moths, MothSettings, draw_moths
from fairq_utils.data.sources import DataSettings, load

__all__ = [
    "DataSettings",
    "Dataset",
    "MothSettings",
    "Moths",
    "describe",
    "draw_moths",
    "load",
]
