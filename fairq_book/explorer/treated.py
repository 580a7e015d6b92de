"""Networks under treatments, and treatments by their names, in the order in which they stand."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from fairq_book.kit.treatments import columns_of
from fairq_utils.encoders.linear_layers import runs
from fairq_utils.errors import BadInput
from fairq_utils.quantization.models import bake, quantize_model
from fairq_utils.training.loop import predict
from fairq_utils.treatments.ablations import Ablation
from fairq_utils.treatments.treatment import FP32, Treatment


@torch.no_grad()
def logits_of(network: nn.Module, images: Tensor) -> Tensor:
    """What the network answers; images of bytes are scaled before, others are taken as they are."""
    if images.dtype == torch.uint8:
        return predict(network, images)
    device, was_training = next(network.parameters(), images).device, network.training
    network.eval()
    try:
        return torch.cat([network(batch.to(device)).float().cpu() for batch in images.split(250)])
    finally:
        network.train(was_training)


def rounded(network: nn.Module, treatment: Treatment | Ablation) -> nn.Module:
    """A network of somebody's own under a treatment, for which there are no images to train on."""
    if isinstance(treatment, Ablation):
        return treatment.apply(network)
    if treatment.trains or treatment.activations or treatment.batchnorm:
        raise BadInput(
            f"treatment is {treatment.name!r}, which needs training images; expected one that rounds weights "
            "alone, such as int4-channel."
        )
    if treatment.quantizer is None:
        return network
    return bake(quantize_model(network, treatment.quantizer, first_last=8 if treatment.ends8 else None))


def parsed(treatment: Treatment | Ablation | str) -> Treatment | Ablation:
    """The treatment of that name; a bare width is that of an int."""
    if not isinstance(treatment, str):
        return treatment
    name = treatment.strip()
    return Treatment.parse(f"int{name}" if name.isdecimal() else name)


def rounding(treatment: Treatment | str) -> Treatment:
    """The treatment of that name, which must not need training."""
    wanted = parsed(treatment)
    if not isinstance(wanted, Treatment) or wanted.trains:
        raise BadInput(
            f"treatment is {wanted.name!r}, which trains a network; expected one that only rounds, such "
            "as int5: name the others where you make the explorer."
        )
    return wanted


def of_linear_layers(treatment: str) -> str:
    """The name of that treatment of linear layers; a bare width is that of an int."""
    name = str(treatment).strip()
    name = f"int{name}" if name.isdecimal() else name
    runs(name)  # refuses a name that it does not know
    return name


def ordered(names: Iterable[str]) -> list[str]:
    """Each once, from full precision to the fewest bits of a weight; those of equal width as they came.

    >>> ordered(["int3-zeros", "bnb-nf4", "w4a8", "a8", "fp32", "int8", "fp32"])
    ['fp32', 'a8', 'int8', 'bnb-nf4', 'w4a8', 'int3-zeros']
    """
    # Full precision stands before all that leave weights as they are and change something else.
    return sorted(
        dict.fromkeys(names), key=lambda name: (-(columns_of(name)["bits"] or 0), name != FP32.name)
    )
