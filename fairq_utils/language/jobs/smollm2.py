"""What rounding takes from a real language model, language by language: SmolLM2 on the Declaration.

The file has its weights at four bits in blocks, and its embedding at eight: that is what *full precision*
means here, and what rounding is compared with. The model may have read the Declaration when it was trained.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fairq_utils.curvature.hessian import Hessian
from fairq_utils.curvature.spectrum import Eigenvalue, NotConverged, top_eigenvalue
from fairq_utils.errors import BadInput
from fairq_utils.language.articles import FOLDER, LANGUAGES, read_articles
from fairq_utils.language.llama import Llama
from fairq_utils.language.llama_files import LanguageModel
from fairq_utils.quantization.models import bake, quantize_model
from fairq_utils.quantization.quantizers import UniformQuantizer

Texts = Mapping[
    tuple[str, int], Tensor
]  # by language and article: the tokens, behind the one that starts them
Answers = Mapping[
    tuple[str, int], tuple[Tensor, Tensor]
]  # the nats that each token took, and what was likely

READ, SURVEYED = (6, 10, 14, 30), (6,)  # the shortest four of the articles for the test, and the shortest
FULL = "fp32"
_OURS: dict[str, tuple[UniformQuantizer, int | None]] = {
    "int8-channel": (UniformQuantizer(8, axis=0), None),
    "int6-channel": (UniformQuantizer(6, axis=0), None),
    "int5-channel": (UniformQuantizer(5, axis=0), None),
    "int4-channel": (UniformQuantizer(4, axis=0), None),
    "int3-channel": (UniformQuantizer(3, axis=0), None),
    "int4-channel-ends8": (UniformQuantizer(4, axis=0), 8),
    "int8": (UniformQuantizer(8), None),
    "int4": (UniformQuantizer(4), None),
    "int8-mse-channel": (UniformQuantizer(8, axis=0, clip="mse"), None),
    "int4-mse-channel": (UniformQuantizer(4, axis=0, clip="mse"), None),
    "int3-mse-channel": (UniformQuantizer(3, axis=0, clip="mse"), None),
    "int4-mse-channel-ends8": (UniformQuantizer(4, axis=0, clip="mse"), 8),
}
# Bits, the weights that have a scale in common (0: a whole channel), and whether each has a zero point too.
_TORCHAO = {
    "torchao-int8": (8, 0, False),
    "torchao-int4-blocks64": (4, 64, False),
    "torchao-int4-blocks32-affine": (4, 32, True),
}
# Those that search for their range come last, because that takes a minute.
TREATMENTS = tuple(sorted((FULL, *_OURS, *_TORCHAO), key=lambda name: "mse" in name))


def rounded(network: Llama, treatment: str) -> Llama:
    """A copy of the network under a treatment, one of `TREATMENTS`.

    The names of ours are those of `fairq_utils.treatments`; with `ends8` the embedding, which is the head
    too, has eight bits. torchao's own layers leave it as it is. `torchao-int4-blocks32-affine` has blocks
    and zero points like the file, but its zero point is a whole number of steps, where the file's is any
    number: so it rounds once more.

    >>> from fairq_utils.language.llama import LlamaShape
    >>> network = Llama(LlamaShape(tokens=9, width=8, depth=1, heads=2, key_heads=1, hidden=16))
    >>> len(rounded(network, "int3-channel").blocks[0].keys.weight[0].unique()) <= 7
    True
    """
    if treatment == FULL:
        return network
    if treatment in _OURS:
        quantizer, ends = _OURS[treatment]
        return bake(quantize_model(network, quantizer, first_last=ends))
    if treatment in _TORCHAO:
        return _by_torchao(network, *_TORCHAO[treatment])
    raise BadInput(f"treatment is {treatment!r}; expected one of: {', '.join(TREATMENTS)}.")


def _by_torchao(network: Llama, bits: int, block: int, affine: bool) -> Llama:
    try:
        from torchao import quantization
    except ImportError:
        raise BadInput("torchao is not installed; expected it for its own layers: make peers.") from None
    config: Any = quantization.Int8WeightOnlyConfig()
    if block:
        kinds = quantization.MappingType
        config = quantization.IntxWeightOnlyConfig(
            weight_dtype=getattr(torch, f"int{bits}"),
            granularity=quantization.PerGroup(block),
            mapping_type=kinds.ASYMMETRIC if affine else kinds.SYMMETRIC,
        )
    network = copy.deepcopy(network)
    quantization.quantize_(
        network, config, filter_fn=lambda module, name: isinstance(module, nn.Linear) and name != "head"
    )
    return network


def encoded(
    model: LanguageModel, articles: Sequence[int] = READ, languages: Sequence[str] = tuple(LANGUAGES)
) -> dict[tuple[str, int], Tensor]:
    """The tokens of these articles of the Declaration in these languages."""
    texts: dict[tuple[str, int], Tensor] = {}
    for language in languages:
        own = read_articles(FOLDER / f"{LANGUAGES[language]}.txt")
        texts |= {(language, article): model.encode(own[article].decode()) for article in articles}
    return texts


@torch.no_grad()
def answers(network: nn.Module, texts: Texts, told: Callable[[str], None] = lambda _: None) -> Answers:
    """For each text the nats that each of its tokens took, and the token that was the most likely there.

    >>> head = nn.Embedding.from_pretrained(torch.eye(3))  # the most likely token is the one before
    >>> nats, likely = answers(head, {("English", 6): torch.tensor([[0, 0, 2]])})["English", 6]
    >>> nats, likely
    (tensor([0.5514, 1.5514], dtype=torch.float64), tensor([0, 0]))
    """
    found = {}
    for place, text in texts.items():
        logits = network(text[:, :-1])[0]
        nats = F.cross_entropy(logits, text[0, 1:], reduction="none")
        found[place] = (nats.double(), logits.argmax(1))
        told(f"{place[0]}, article {place[1]}")
    return found


def by_article(texts: Texts, before: Answers, after: Answers) -> pd.DataFrame:
    """A row for each language and article: what its tokens took after a treatment, and what it changed.

    `tokens`; `nats` of all of them; `right`, at how many the text's own was the most likely; `flips`, at how
    many the most likely one is another than before.

    >>> texts = {("English", 6): torch.tensor([[0, 0, 2]])}
    >>> before = answers(nn.Embedding.from_pretrained(torch.eye(3)), texts)
    >>> after = answers(nn.Embedding.from_pretrained(torch.eye(3).flip(0)), texts)
    >>> by_article(texts, before, after).round(2)
      language  article  tokens  nats  right  flips
    0  English        6       2   2.1      1      2
    """
    rows = []
    for (language, article), text in texts.items():
        nats, likely = after[language, article]
        right = (likely == text[0, 1:]).sum().item()
        flips = (likely != before[language, article][1]).sum().item()
        rows.append((language, article, len(nats), nats.sum().item(), right, flips))
    return pd.DataFrame(rows, columns=["language", "article", "tokens", "nats", "right", "flips"])


def token_loss(logits: Tensor, tokens: Tensor) -> Tensor:
    """The mean cross entropy of the tokens of one text, in nats.

    >>> token_loss(torch.zeros(1, 2, 8), torch.tensor([[7, 1]]))
    tensor(2.0794)
    """
    return F.cross_entropy(logits.flatten(0, 1), tokens.flatten())


def landscape(network: Llama, text: Tensor, *, iterations: int = 10, tol: float = 0.1) -> dict[str, float]:
    """The loss of one text around the network, with respect to all weights that rounding changes.

    `loss`, the mean over the tokens in nats; `gradient_norm`; `eigenvalue`, the largest, with its `residual`
    after so many `products`. All are of the mean: for the nats of the whole text multiply the loss, the
    gradient norm and the eigenvalue by its tokens. What was not reached to within `tol` of its value is
    where it stopped, by its residual.

    >>> from fairq_utils.language.llama import LlamaShape
    >>> _ = torch.manual_seed(0)
    >>> network = Llama(LlamaShape(tokens=9, width=8, depth=1, heads=2, key_heads=1, hidden=16))
    >>> list(landscape(network, torch.tensor([[0, 7, 2, 1]])))
    ['loss', 'gradient_norm', 'eigenvalue', 'residual', 'products']
    """
    read, following = text[:, :-1], text[:, 1:]
    hessian = Hessian(network, read, following, parameters="weights", loss=token_loss)
    found = {"loss": hessian.loss(), "gradient_norm": hessian.gradient().norm().item()}
    del hessian  # and the graph that it keeps
    try:
        top: Eigenvalue | NotConverged = top_eigenvalue(
            network,
            read,
            following,
            tol=tol,
            max_iterations=iterations,
            parameters="weights",
            loss=token_loss,
        )
    except NotConverged as error:
        top = error
    return found | {"eigenvalue": top.value, "residual": top.residual, "products": top.iterations}
