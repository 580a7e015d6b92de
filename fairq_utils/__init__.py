"""Who pays when a neural network is quantized, why, and how to repair it."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fairq_utils.auditing import Audit, audit

__version__ = "0.1.0"
__all__ = ["Audit", "__version__", "audit"]


def __getattr__(name: str) -> Any:
    """`audit` and `Audit` when they are asked for: pandas takes a moment that `fairq --help` should not."""
    if name in ("Audit", "audit"):
        from fairq_utils import auditing

        return getattr(auditing, name)
    raise AttributeError(f"module 'fairq_utils' has no attribute {name!r}")
