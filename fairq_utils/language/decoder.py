"""A small network that reads text byte by byte and says which byte comes next."""

from __future__ import annotations

import copy
import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fairq_utils.errors import BadInput

BYTES = 256


class ByteDecoder(nn.Module):
    """A decoder: blocks of causal attention and of two linear layers, each behind a layer norm.

    Text as rows of numbers (N x T, int64) goes in, and for each place the logits of the next byte come out
    (N x T x 256). `quantize_model` rounds every weight but norms and biases. The vectors of the bytes are an
    `nn.Embedding`, the first of these weights, and the head is an `nn.Linear` of its own, the last of them:
    so `first_last` gives both another width. No place has a vector; each head counts what lies further back
    for less, by a slope of its own (ALiBi, Press et al. 2022). The steepest see little but the last bytes,
    which a network has to learn otherwise, and few bytes do not teach it that.

    `context`: the most bytes that it reads at once.

    >>> network = ByteDecoder(width=8, depth=1, heads=2)
    >>> network(torch.tensor([[72, 101, 110]])).shape
    torch.Size([1, 3, 256])
    """

    distance: Tensor

    def __init__(self, *, width: int = 96, depth: int = 2, heads: int = 6, context: int = 64) -> None:
        super().__init__()
        for name, value in (("width", width), ("depth", depth), ("heads", heads), ("context", context)):
            if type(value) is not int or value < 1:
                raise BadInput(f"{name} is {value!r}; expected a whole number of at least 1.")
        if width % heads:
            raise BadInput(f"width is {width}; expected a multiple of the {heads} heads.")
        self.context = context
        self.embedding = nn.Embedding(BYTES, width)
        self.blocks = nn.ModuleList([DecoderBlock(width, heads) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, BYTES, bias=False)
        self.register_buffer("distance", causal_distance(heads, context), persistent=False)
        self._begin(width, depth)

    def _begin(self, width: int, depth: int) -> None:
        """Small vectors and outputs; what is added to the signal is the smaller the more blocks add to it."""
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                ends = name.startswith(("embedding", "head"))
                deviation = 0.02 if ends else weight.shape[1] ** -0.5
                if name.endswith(("heads_together.weight", "narrow.weight")):
                    deviation /= math.sqrt(2 * depth)
                nn.init.normal_(weight, std=deviation)
            elif name.endswith("bias"):
                nn.init.zeros_(weight)

    def forward(self, text: Tensor) -> Tensor:
        """The logits of the byte that follows each."""
        length = text.shape[1]
        if length > self.context:
            raise BadInput(f"the text has {length} bytes; expected at most {self.context}: give it in parts.")
        distance = self.distance[:, :length, :length]
        signal = self.embedding(text)
        for block in self.blocks:
            signal = block(signal, distance)
        return self.head(self.norm(signal))


class DecoderBlock(nn.Module):
    """Attention, then two linear layers; each adds to the signal what it makes of the normed signal."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_mix = nn.LayerNorm(width), nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.heads_together = nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, signal: Tensor, distance: Tensor) -> Tensor:
        """`distance` is added to what each head makes of each pair of places before the softmax."""
        count, places, width = signal.shape
        split = self.queries_keys_values(self.norm_attention(signal))
        query, key, value = split.view(count, places, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=distance)
        signal = signal + self.heads_together(mixed.transpose(1, 2).reshape(count, places, width))
        return signal + self.narrow(F.gelu(self.widen(self.norm_mix(signal))))


def causal_distance(heads: int, context: int) -> Tensor:
    """For each head, how much each place counts to each other: less the further back, and not at all ahead.

    The slopes are 2, 1, 1/2, 1/4 and so on.

    >>> causal_distance(2, 3)
    tensor([[[-0., -inf, -inf],
             [-2., -0., -inf],
             [-4., -2., -0.]],
            [[-0., -inf, -inf],
             [-1., -0., -inf],
             [-2., -1., -0.]]])
    """
    slopes = 2.0 ** (1 - torch.arange(heads))
    back = torch.arange(context)[:, None] - torch.arange(context)
    return torch.where(back < 0, -math.inf, -slopes[:, None, None] * back)


def byte_loss(logits: Tensor, text: Tensor) -> Tensor:
    """The mean cross entropy of the bytes of some windows, in nats.

    As a mean over windows of one length, it is what `fairq_utils.curvature` asks of a loss.

    >>> byte_loss(torch.zeros(1, 3, 256), torch.tensor([[72, 101, 110]]))
    tensor(5.5452)
    """
    return F.cross_entropy(logits.flatten(0, 1), text.flatten())


@torch.no_grad()
def scale_norms(
    network: ByteDecoder, factor: int, *, louder: Literal["weights", "inputs"] = "weights"
) -> ByteDecoder:
    """A copy that computes the same function, with one louder channel behind each layer norm.

    With `louder="weights"` the norm makes the channel `factor` times smaller whose column has the largest
    weight of the linear layer that follows, and that column is `factor` times as large: a grid for the whole
    tensor has steps exactly `factor` times as wide. One for each output has wider steps too, for the column
    crosses all of them. With `louder="inputs"` it is the other way round: the channel with the largest gain
    is `factor` times as large where it enters the layer, and its column as much smaller, as in the large
    language models whose inputs are so hard to round.

    >>> network = ByteDecoder(width=8, depth=1, heads=2).eval()
    >>> louder, text = scale_norms(network, 4), torch.tensor([[72, 101, 110]])
    >>> (louder.head.weight.abs().max() / network.head.weight.abs().max()).item()
    4.0
    >>> torch.allclose(louder(text), network(text), atol=1e-6)
    True
    """
    if type(factor) is not int or factor < 1:
        raise BadInput(f"factor is {factor!r}; expected a whole number of at least 1, such as 4.")
    if louder not in ("weights", "inputs"):
        raise BadInput(f"louder is {louder!r}; expected weights or inputs.")
    network = copy.deepcopy(network)
    pairs = [(network.norm, network.head)]
    for block in network.blocks:
        assert isinstance(block, DecoderBlock)
        pairs += [(block.norm_attention, block.queries_keys_values), (block.norm_mix, block.widen)]
    for norm, linear in pairs:
        of_weights = louder == "weights"
        sizes = linear.weight.abs().amax(0) if of_weights else norm.weight.abs()
        channel, larger = int(sizes.argmax()), factor if of_weights else 1 / factor
        linear.weight[:, channel] *= larger
        norm.weight[channel] /= larger
        norm.bias[channel] /= larger
    return network
