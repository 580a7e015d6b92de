"""Round the linear layers of a network, by the libraries that people use and by our own quantizers.

The same layers for all of them: every `nn.Linear`, and nothing else. An `nn.MultiheadAttention` hides its
layers from libraries, so it is first replaced by its equal made of linear layers.
"""

from __future__ import annotations

import copy
import importlib.metadata
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fairq_utils.errors import BadInput
from fairq_utils.quantization.models import bake, quantize_model
from fairq_utils.quantization.quantizers import NF4Quantizer, UniformQuantizer

ORIGINAL = "fp32"
_MEANING = {
    ORIGINAL: "no rounding",
    "bnb-int8": "bitsandbytes, LLM.int8: weights and inputs at 8 bits, a scale a row, outliers in full",
    "bnb-nf4": "bitsandbytes: weights at 4 bits (NormalFloat), a scale for each 64 of them",
    "torch-int8": "PyTorch, dynamic: weights at 8 bits, a scale a layer; inputs at 8 bits, a range a batch",
}
_OWN = re.compile(r"int([2-9]|1[0-6])")
LINEAR_TREATMENTS = (*_MEANING, "int8", "int4", "int3")
# LLM.int8 keeps inputs above it in full precision; the value that its authors chose.
_OUTLIER = 6.0
_BLOCK = 64  # weights that have a scale in common under NF4

Model = TypeVar("Model", bound=nn.Module)
Change = Callable[[nn.Linear], nn.Module]


def linear_treatments(names: Sequence[str] = LINEAR_TREATMENTS) -> pd.DataFrame:
    """The treatments by name, what each does, and what runs when it is asked for on this machine.

    Of our own there is one for every width from `int2` to `int16`.

    Where a library is missing or cannot compute here, our equal of its weights stands in for it, and
    `runs` says so.

    >>> linear_treatments()[["treatment", "runs"]].iloc[[0, -1]].values.tolist()
    [['fp32', 'PyTorch'], ['int3', 'fairq_utils: UniformQuantizer(3)']]
    """
    return pd.DataFrame(
        [(name, _meaning(name), runs(name)) for name in names],
        columns=["treatment", "meaning", "runs"],
    )


def _meaning(name: str) -> str:
    own = f"our own: weights at {name.removeprefix('int')} bits, one scale for each layer"
    return _MEANING.get(name, own)


def runs(treatment: str) -> str:
    """What computes the treatment on this machine.

    >>> runs("int4")
    'fairq_utils: UniformQuantizer(4)'
    >>> runs("int1")
    Traceback (most recent call last):
        ...
    fairq_utils.errors.BadInput: treatment is 'int1'; expected one of: fp32, bnb-int8, bnb-nf4, torch-int8,
    or int2 to int16.
    """
    return _chosen(treatment)[0]


def quantize_linear(model: Model, treatment: str) -> Model:
    """A copy of the model whose linear layers are treated, in eval mode on the CPU; the model stays as it is.

    >>> layer = nn.Sequential(nn.Linear(2, 1, bias=False))
    >>> _ = layer[0].weight.data.copy_(torch.tensor([[1.4, -0.3]]))
    >>> quantize_linear(layer, "int4")[0].weight.data
    tensor([[ 1.4000, -0.4000]])
    """
    _, change = _chosen(treatment)
    model = attention_of_linear_layers(model).to("cpu").eval()
    if change is None:
        return model
    layers = [
        (parent, name, layer)
        for parent in model.modules()
        for name, layer in parent.named_children()
        if type(layer) is nn.Linear
    ]
    if not layers:
        raise BadInput("the model has no linear layer to round; expected some below its outermost module.")
    for parent, name, layer in layers:
        if not torch.isfinite(layer.weight).all():
            raise BadInput(f"the weights of {name} are not all finite; expected numbers: train it again.")
        setattr(parent, name, change(layer).eval())
    return model


def _chosen(treatment: str) -> tuple[str, Change | None]:
    """What runs, and how it changes a layer."""
    match treatment:
        case "fp32":
            return "PyTorch", None
        case "bnb-int8" if library := _bitsandbytes():
            return _version("bitsandbytes"), lambda layer: _llm_int8(library, layer)
        case "bnb-nf4" if library := _bitsandbytes():
            name = f"{_version('bitsandbytes')}; NF4Quantizer where a row is no whole number of blocks"
            return name, lambda layer: _nf4(library, layer)
        case "torch-int8" if _has_dynamic():
            engine = torch.backends.quantized.engine
            return f"PyTorch {torch.__version__}, engine {engine}", _dynamic
        case "bnb-int8":
            return _ours(UniformQuantizer(8, axis=0), "weights alone, in place of bitsandbytes")
        case "bnb-nf4":
            return _ours(NF4Quantizer(), "in place of bitsandbytes")
        case "torch-int8":
            return _ours(UniformQuantizer(8), "weights alone, in place of PyTorch's")
        case str() if _OWN.fullmatch(treatment):
            return _ours(UniformQuantizer(int(treatment[3:])))
    raise BadInput(f"treatment is {treatment!r}; expected one of: {', '.join(_MEANING)}, or int2 to int16.")


def _ours(quantizer: UniformQuantizer | NF4Quantizer, why: str = "") -> tuple[str, Change]:
    axis = ", axis=0" if isinstance(quantizer, UniformQuantizer) and quantizer.axis == 0 else ""
    said = f"{type(quantizer).__name__}({quantizer.bits}{axis})"
    name = f"fairq_utils: {said}{', ' + why if why else ''}"
    return name, lambda layer: bake(quantize_model(layer, quantizer))


def _version(package: str) -> str:
    return f"{package} {importlib.metadata.version(package)}"


# ---------------------------------------------------------------- bitsandbytes


@contextmanager
def quietly() -> Iterator[None]:
    """Without what a library says of its own future, or of kernels that it does without.

    >>> with quietly():
    ...     warnings.warn("this function will be removed")
    """
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


@cache
def _bitsandbytes() -> Any:
    """The library, if it is installed and computes on a CPU; else None."""
    with quietly():
        try:
            import bitsandbytes

            layer, inputs = nn.Linear(64, 64), torch.ones(1, 64)
            works = all(torch.isfinite(make(bitsandbytes, layer)(inputs)).all() for make in (_llm_int8, _nf4))
        except Exception:  # whatever a native library without its kernels raises
            return None
    # Of each product of 8-bit layers it would say that it casts to float16.
    logging.getLogger(bitsandbytes.__name__).setLevel(logging.ERROR)
    return bitsandbytes if works else None


def _llm_int8(library: Any, layer: nn.Linear) -> nn.Module:
    made = library.nn.Linear8bitLt(
        layer.in_features,
        layer.out_features,
        bias=layer.bias is not None,
        has_fp16_weights=False,
        threshold=_OUTLIER,
    )
    made.weight = library.nn.Int8Params(
        layer.weight.detach().clone(), requires_grad=False, has_fp16_weights=False
    )
    return _with_bias(made, layer)


def _nf4(library: Any, layer: nn.Linear) -> nn.Module:
    if layer.in_features % _BLOCK:  # its CPU kernel takes each row for whole blocks, and errs where it is not
        return bake(quantize_model(layer, NF4Quantizer(block=_BLOCK)))
    made = library.nn.LinearNF4(layer.in_features, layer.out_features, bias=layer.bias is not None)
    made.weight = library.nn.Params4bit(
        layer.weight.detach().clone(),
        requires_grad=False,
        quant_type="nf4",
        blocksize=_BLOCK,
        compress_statistics=False,  # scales in full, as when Hugging Face's libraries ask for 4 bits
    )
    # Its kernel for processors with bfloat16 takes no odd width, and rounds sums that others do not.
    made.support_avx512bf16_for_cpu = False
    return _with_bias(made, layer)


def _with_bias(made: Any, layer: nn.Linear) -> nn.Module:
    if layer.bias is not None:
        made.bias = nn.Parameter(layer.bias.detach().clone(), requires_grad=False)
    return made.to("cpu")  # which is when bitsandbytes rounds


# ---------------------------------------------------------------- PyTorch


@cache
def _has_dynamic() -> bool:
    """Whether this PyTorch still has dynamic quantization, and an engine to compute it."""
    if torch.backends.quantized.engine == "none":
        return False
    try:
        return bool(torch.isfinite(_dynamic(nn.Linear(8, 8))(torch.ones(1, 8))).all())
    except Exception:  # whatever an engine without its kernels raises
        return False


def _dynamic(layer: nn.Linear) -> nn.Module:
    with quietly():
        from torch.ao.quantization import quantize_dynamic

        return quantize_dynamic(nn.Sequential(layer), {nn.Linear}, dtype=torch.qint8)[0]


# ---------------------------------------------------------------- attention


def attention_of_linear_layers(model: Model) -> Model:
    """A copy of the model with each self-attention of PyTorch replaced by its equal of linear layers.

    >>> layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0).eval()
    >>> signal = torch.randn(2, 3, 8)
    >>> bool(torch.allclose(attention_of_linear_layers(layer)(signal), layer(signal), atol=1e-5))
    True
    """
    model = copy.deepcopy(model)
    for parent in list(model.modules()):
        for name, module in list(parent.named_children()):
            if isinstance(module, nn.MultiheadAttention):
                if not module._qkv_same_embed_dim or module.bias_k is not None or module.add_zero_attn:
                    raise BadInput(
                        f"{name} is attention of a kind that is not replaced here; expected self-attention "
                        "of one width without extra keys."
                    )
                setattr(parent, name, _SelfAttention(module))
    return model


class _SelfAttention(nn.Module):
    """What `nn.MultiheadAttention` computes in eval mode, called alike, of linear layers alone."""

    in_proj_bias = None  # keeps PyTorch's encoder layer from a shortcut past these layers

    def __init__(self, module: nn.MultiheadAttention) -> None:
        super().__init__()
        self.heads, self.batch_first = module.num_heads, module.batch_first
        width = module.embed_dim
        bias = module.in_proj_bias is not None
        self.queries_keys_values = nn.Linear(width, 3 * width, bias=bias)
        self.heads_together = nn.Linear(width, width, bias=module.out_proj.bias is not None)
        with torch.no_grad():
            self.queries_keys_values.weight.copy_(module.in_proj_weight)
            self.heads_together.weight.copy_(module.out_proj.weight)
            if bias:
                self.queries_keys_values.bias.copy_(module.in_proj_bias)
            if module.out_proj.bias is not None:
                self.heads_together.bias.copy_(module.out_proj.bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        **_: Any,
    ) -> tuple[Tensor, None]:
        if query is not key or query is not value:
            raise BadInput("attention was given other keys than queries; expected self-attention.")
        signal = query if self.batch_first else query.transpose(0, 1)
        count, places, width = signal.shape
        split = self.queries_keys_values(signal).view(count, places, 3, self.heads, width // self.heads)
        queries, keys, values = split.permute(2, 0, 3, 1, 4)
        mask = torch.zeros(1, 1, 1, places, dtype=signal.dtype, device=signal.device)
        if attn_mask is not None:
            own = _added(attn_mask, signal)  # one for all, or one for each head of each example
            mask = mask + (own if own.ndim == 2 else own.view(count, self.heads, places, places))
        if key_padding_mask is not None:
            mask = mask + _added(key_padding_mask, signal)[:, None, None, :]
        mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        mixed = self.heads_together(mixed.transpose(1, 2).reshape(count, places, width))
        return (mixed if self.batch_first else mixed.transpose(0, 1)), None


def _added(mask: Tensor, signal: Tensor) -> Tensor:
    """The mask as what is added to scores; where a mask of PyTorch's attention is true, nobody may look."""
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=signal.dtype).masked_fill(mask, float("-inf"))
