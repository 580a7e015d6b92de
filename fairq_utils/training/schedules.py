"""What several trainings share: how the learning rate goes, and that a loss must stay finite."""

import math

from fairq_utils.errors import BadInput


def one_cycle(done: float, climb: float = 0.1) -> float:
    """The share of the learning rate when so much of the training is done: up a line, down half a cosine.

    >>> [round(one_cycle(done), 2) for done in (0.05, 0.1, 0.55, 1.0)]
    [0.5, 1.0, 0.5, 0.0]
    """
    return done / climb if done < climb else 0.5 * (1 + math.cos(math.pi * (done - climb) / (1 - climb)))


def require_finite(loss: float, description: str, learning_rate: float) -> None:
    """Refuse a training whose loss is no number any more.

    >>> require_finite(math.inf, "seed 3", 0.1)
    Traceback (most recent call last):
        ...
    fairq_utils.errors.BadInput: seed 3: the loss became inf; expected a finite number, so lower learning_rate
    (now 0.1).
    """
    if not math.isfinite(loss):
        raise BadInput(
            f"{description}: the loss became {loss}; expected a finite number, so lower learning_rate "
            f"(now {learning_rate})."
        )
