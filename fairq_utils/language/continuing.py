"""How a language model goes on with a text that has begun."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fairq_utils.errors import BadInput
from fairq_utils.language.decoder import ByteDecoder
from fairq_utils.language.texts import START


@torch.no_grad()
def continue_texts(network: ByteDecoder, beginnings: Sequence[bytes], count: int) -> list[bytes]:
    """What the network says after each beginning: the likeliest byte, so many times, or to an article's end.

    A beginning is taken for that of an article. What has been said is read again with each byte, as far back
    as the context reaches. Bytes of two or more may be broken off: decode them with `errors="replace"`.

    >>> network = ByteDecoder(width=8, depth=1, heads=2)
    >>> [len(said) <= 3 for said in continue_texts(network, [b"Everyone", b"All"], 3)]
    [True, True]
    """
    if count < 0:
        raise BadInput(f"count is {count}; expected how many bytes are to follow, at least 0.")
    device = next(network.parameters()).device
    rows = [[START, *text] for text in beginnings]
    told = [len(row) for row in rows]
    going = list(range(len(rows)))  # those that have not come to an end
    was_training = network.training
    network.eval()
    try:
        for _ in range(count):
            if not going:
                break
            seen = [rows[row][-network.context :] for row in going]
            ends = torch.tensor([len(window) - 1 for window in seen])
            # What is filled up lies ahead of the last byte, where no attention reaches.
            windows = torch.zeros(len(seen), int(ends.max()) + 1, dtype=torch.int64)
            for place, window in enumerate(seen):
                windows[place, : len(window)] = torch.tensor(window)
            logits = network(windows.to(device))[torch.arange(len(seen)), ends]
            for row, byte in zip(going, logits.argmax(1).tolist(), strict=True):
                rows[row].append(byte)
            going = [row for row in going if rows[row][-1] != START]
    finally:
        network.train(was_training)
    return [bytes(row[start:]).removesuffix(bytes([START])) for row, start in zip(rows, told, strict=True)]
