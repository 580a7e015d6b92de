"""The loss around a network: Hessians, spectra, and surveys of them."""

from fairq_utils.curvature.hessian import Hessian, gradient_norm
from fairq_utils.curvature.spectrum import (
    Eigenvalue,
    NotConverged,
    SpectralDensity,
    Trace,
    spectral_density,
    top_eigenvalue,
    trace,
)
from fairq_utils.curvature.surveys import Survey

__all__ = [
    "Eigenvalue",
    "Hessian",
    "NotConverged",
    "SpectralDensity",
    "Survey",
    "Trace",
    "gradient_norm",
    "spectral_density",
    "top_eigenvalue",
    "trace",
]
