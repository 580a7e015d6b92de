"""What a model returned, and what it raised."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fairq_utils.errors import BadInput


def logits_of(output: Any) -> Tensor:
    """The logits in what a model returned."""
    logits = getattr(output, "logits", output)  # Hugging Face's models wrap them
    if not isinstance(logits, Tensor):
        raise BadInput(
            f"the model returned a {type(output).__name__}; expected a tensor of logits, or an object that "
            "has them as .logits: wrap the model in a module that returns them alone."
        )
    if logits.dim() != 2:
        raise BadInput(
            f"the model returned a tensor of shape {tuple(logits.shape)}; expected images × classes: wrap "
            "the model in a module that returns one logit for each class."
        )
    return logits


def first_line(error: Exception) -> str:
    """The kind of an error and the first line of what it says."""
    first = (str(error).strip().splitlines() or [""])[0].rstrip(".")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
