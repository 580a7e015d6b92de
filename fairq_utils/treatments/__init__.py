"""What can be done to a network, under one name that says all of it."""

from fairq_utils.treatments.ablations import Ablation
from fairq_utils.treatments.treatment import FP32, Treatment, vocabulary

__all__ = [
    "FP32",
    "Ablation",
    "Treatment",
    "vocabulary",
]
