"""A decoder in the shape of Llama: what most language models that people run are made of."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fairq_utils.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class LlamaShape:
    """How large a decoder is.

    `tokens`: how many there are. `width`: of the signal. `depth`: so many blocks. `heads`: of the queries;
    `key_heads`: of keys and values, each of which serves as many of the queries. `hidden`: the width between
    the linear layers of a block. `context`: the most tokens that it reads at once. `rotary_base`: how slowly
    the slowest pair of numbers turns. `epsilon`: what the norms add before they divide.

    >>> LlamaShape(tokens=9, width=8, depth=1, heads=2, key_heads=3, hidden=16)
    Traceback (most recent call last):
        ...
    fairq_utils.errors.BadInput: heads is 2; expected a multiple of the 3 key_heads.
    """

    tokens: int
    width: int
    depth: int
    heads: int
    key_heads: int
    hidden: int
    context: int = 2048
    rotary_base: float = 10_000.0
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        for name in ("tokens", "width", "depth", "heads", "key_heads", "hidden", "context"):
            if type(value := getattr(self, name)) is not int or value < 1:
                raise BadInput(f"{name} is {value!r}; expected a whole number of at least 1.")
        if self.heads % self.key_heads:
            raise BadInput(f"heads is {self.heads}; expected a multiple of the {self.key_heads} key_heads.")
        if self.width % (2 * self.heads):
            raise BadInput(
                f"width is {self.width}; expected a multiple of {2 * self.heads}: an even number for each of "
                f"the {self.heads} heads."
            )
        if not (self.rotary_base > 0 and self.epsilon > 0):
            raise BadInput(
                f"rotary_base is {self.rotary_base!r} and epsilon is {self.epsilon!r}; expected both above 0."
            )


class Llama(nn.Module):
    """The decoder: tokens (N x T, int64) go in, and for each place the logits of the next (N x T x tokens).

    The head is the embedding over again: one weight in two places, which `quantize_model` rounds once. Its
    other weights are of `nn.Linear`, without biases.

    >>> shape = LlamaShape(tokens=9, width=8, depth=1, heads=2, key_heads=1, hidden=16)
    >>> Llama(shape)(torch.tensor([[7, 2, 1]])).shape
    torch.Size([1, 3, 9])
    """

    def __init__(self, shape: LlamaShape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.tokens, shape.width)
        self.blocks = nn.ModuleList([LlamaBlock(shape) for _ in range(shape.depth)])
        self.norm = nn.RMSNorm(shape.width, shape.epsilon)
        self.head = nn.Linear(shape.width, shape.tokens, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """The logits of the token that follows each."""
        length = tokens.shape[1]
        if length > self.shape.context:
            raise BadInput(
                f"the text has {length} tokens; expected at most {self.shape.context}: give it in parts."
            )
        signal = self.embedding(tokens)
        turns = rotations(length, self.shape.width // self.shape.heads, self.shape.rotary_base).to(signal)
        for block in self.blocks:
            signal = block(signal, turns)
        return self.head(self.norm(signal))


class LlamaBlock(nn.Module):
    """Attention, then a gated pair of linear layers; each adds to the signal what it makes of it, normed."""

    def __init__(self, shape: LlamaShape) -> None:
        super().__init__()
        self.head_width = shape.width // shape.heads
        keys = shape.key_heads * self.head_width
        self.norm_attention = nn.RMSNorm(shape.width, shape.epsilon)
        self.norm_mix = nn.RMSNorm(shape.width, shape.epsilon)
        self.queries = nn.Linear(shape.width, shape.width, bias=False)
        self.keys = nn.Linear(shape.width, keys, bias=False)
        self.values = nn.Linear(shape.width, keys, bias=False)
        self.heads_together = nn.Linear(shape.width, shape.width, bias=False)
        self.gate = nn.Linear(shape.width, shape.hidden, bias=False)
        self.widen = nn.Linear(shape.width, shape.hidden, bias=False)
        self.narrow = nn.Linear(shape.hidden, shape.width, bias=False)

    def forward(self, signal: Tensor, turns: Tensor) -> Tensor:
        """`turns`: by how much the queries and keys of each place are turned, as `rotations` gives it."""
        normed = self.norm_attention(signal)
        queries, keys, values = (
            layer(normed).unflatten(-1, (-1, self.head_width)).transpose(1, 2)
            for layer in (self.queries, self.keys, self.values)
        )
        mixed = F.scaled_dot_product_attention(
            rotate(queries, turns), rotate(keys, turns), values, is_causal=True, enable_gqa=True
        )
        signal = signal + self.heads_together(mixed.transpose(1, 2).flatten(2))
        normed = self.norm_mix(signal)
        return signal + self.narrow(F.silu(self.gate(normed)) * self.widen(normed))


def rotations(length: int, width: int, base: float) -> Tensor:
    """Cosine and sine of the angle by which each pair of numbers of each place is turned (2 x T x pairs).

    The first pair turns by one radian a place, each further one more slowly.

    >>> rotations(2, 4, 10_000.0).round(decimals=2)
    tensor([[[1.0000, 1.0000],
             [0.5400, 1.0000]],
    <BLANKLINE>
            [[0.0000, 0.0000],
             [0.8400, 0.0100]]])
    """
    speeds = base ** (-torch.arange(0, width, 2) / width)
    angles = torch.arange(length)[:, None] * speeds
    return torch.stack([angles.cos(), angles.sin()])


def rotate(signal: Tensor, turns: Tensor) -> Tensor:
    """Turn each pair of neighbours, so that a query and a key meet at an angle that tells their distance.

    >>> rotate(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), rotations(2, 2, 1.0)).round(decimals=2)
    tensor([[1.0000, 0.0000],
            [0.5400, 0.8400]])
    """
    (cosine, sine), (first, second) = turns, (signal[..., 0::2], signal[..., 1::2])
    turned = (first * cosine - second * sine, first * sine + second * cosine)
    return torch.stack(turned, dim=-1).flatten(-2)
