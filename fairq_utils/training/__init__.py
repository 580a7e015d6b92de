"""Train networks, in full precision and while rounded."""

from fairq_utils.training.architectures import build
from fairq_utils.training.fairqat import FairQAT
from fairq_utils.training.loop import Checkpoint, Recipe, fit, predict, train

__all__ = [
    "Checkpoint",
    "FairQAT",
    "Recipe",
    "build",
    "fit",
    "predict",
    "train",
]
