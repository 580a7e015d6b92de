"""The loss around a network: Hessians, spectra, and surveys of them."""

from fairq_utils.curvature.hessian import Hessian, gradient_norm
from fairq_utils.curvature.spectrum import (
    Eigenvalue,
    ExcessLossBound,
    LossSlice,
    NotConverged,
    SpectralDensity,
    Trace,
    excess_loss_bound,
    loss_slice,
    spectral_density,
    top_eigenvalue,
    trace,
)
from fairq_utils.curvature.surveys import Survey

__all__ = [
    "Eigenvalue",
    "ExcessLossBound",
    "Hessian",
    "LossSlice",
    "NotConverged",
    "SpectralDensity",
    "Survey",
    "Trace",
    "excess_loss_bound",
    "gradient_norm",
    "loss_slice",
    "spectral_density",
    "top_eigenvalue",
    "trace",
]
