"""What depends on the machine that a job runs on."""

from __future__ import annotations

import torch

from fairq_utils.training.loop import Checkpoint, default_device


def device() -> dict[str, str]:
    """On what it is computed: other hardware rounds otherwise.

    >>> device().keys()
    dict_keys(['device'])
    """
    found = default_device()
    return {"device": torch.cuda.get_device_name(found) if found.type == "cuda" else found.type}


def reachable(checkpoint: Checkpoint) -> Checkpoint | None:
    """The checkpoint, where there is the store that it lies in: a worker's machine may not have it.

    >>> from pathlib import Path
    >>> reachable(Checkpoint(Path("no", "such", "store.safetensors"))) is None
    True
    """
    return checkpoint if checkpoint.path.parents[1].is_dir() else None
