"""Train the small language model, and train it further: while it is rounded, or to repair it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fairq_utils.errors import BadInput
from fairq_utils.language.decoder import ByteDecoder
from fairq_utils.language.texts import Texts, require_length, stream
from fairq_utils.progress import Report, progress, reporting
from fairq_utils.training.loop import default_device
from fairq_utils.training.schedules import one_cycle, require_finite


@dataclass(frozen=True, kw_only=True)
class LanguageRecipe:
    """How a language model is trained: AdamW; the rate climbs for a tenth and falls to 0 along half a cosine.

    A step shows `batch_size` windows as long as the context of the network. Which language a window is of,
    and where it begins, is drawn: each byte of the training text is as likely as any other.

    `loss_weights`: how much the bytes of a language count in the loss. None: each alike. `inverse`: by one
    over the size of the language's training text. Or a number for each language.
    `sampling`: how often a language is seen. None: in proportion to its text. `even`: each as often as any
    other. A number between 0 and 1: so far from the one to the other, on a logarithmic scale.

    >>> LanguageRecipe(sampling="over")
    Traceback (most recent call last):
        ...
    fairq_utils.errors.BadInput: sampling is 'over'; expected None, even or a number between 0 and 1.
    """

    steps: int = 1200
    batch_size: int = 16
    learning_rate: float = 3e-3
    weight_decay: float = 1.0
    loss_weights: str | Sequence[float] | None = None
    sampling: str | float | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size"):
            if type(value := getattr(self, name)) is not int or value < 1:
                raise BadInput(f"{name} is {value!r}; expected a whole number of at least 1.")
        if not isinstance(self.learning_rate, int | float) or not 0 < self.learning_rate < math.inf:
            raise BadInput(f"learning_rate is {self.learning_rate!r}; expected a number above 0.")
        if not isinstance(self.weight_decay, int | float) or not 0 <= self.weight_decay < math.inf:
            raise BadInput(f"weight_decay is {self.weight_decay!r}; expected a number of at least 0.")
        if isinstance(self.loss_weights, str) and self.loss_weights != "inverse":
            raise BadInput(
                f"loss_weights is {self.loss_weights!r}; expected None, inverse or a number for each "
                "language."
            )
        if self.sampling is not None and self.sampling != "even" and not _is_share(self.sampling):
            raise BadInput(f"sampling is {self.sampling!r}; expected None, even or a number between 0 and 1.")

    def chances(self, sizes: Tensor) -> Tensor:
        """How likely a window is of each language.

        >>> LanguageRecipe(sampling=0.5).chances(torch.tensor([100, 400]))
        tensor([0.3333, 0.6667])
        """
        evenness = 1.0 if self.sampling == "even" else float(self.sampling or 0.0)
        wanted = sizes ** (1 - evenness)
        return wanted / wanted.sum()

    def weights(self, sizes: Tensor) -> Tensor | None:
        """How much each language counts.

        >>> LanguageRecipe(loss_weights="inverse").weights(torch.tensor([100, 400]))
        tensor([0.0100, 0.0025])
        """
        if self.loss_weights is None:
            return None
        if self.loss_weights == "inverse":
            return 1 / sizes
        weights = torch.as_tensor(self.loss_weights, dtype=torch.float32)
        if weights.shape != sizes.shape or not (weights >= 0).all() or not weights.any():
            raise BadInput(
                f"loss_weights is {self.loss_weights}; expected {len(sizes)} numbers of at least 0, one for "
                "each language."
            )
        return weights


# Shorter and slower than a first training, for a network that has learned already.
FURTHER = LanguageRecipe(steps=300, learning_rate=1e-3)


def _is_share(value: object) -> bool:
    return isinstance(value, float | int) and not isinstance(value, bool) and 0 < value < 1


def train_language(
    texts: Texts,
    *,
    recipe: LanguageRecipe = LanguageRecipe(),
    seed: int = 0,
    width: int = 96,
    depth: int = 2,
    heads: int = 6,
    context: int = 64,
    device: torch.device | None = None,
    description: str = "training",
    report: Report | None = None,
) -> ByteDecoder:
    """A `ByteDecoder` trained on the texts; it comes back on the CPU, in eval mode.

    The seed decides how the network begins and what it is shown: two runs on one machine with as many
    threads give equal weights. `report` is told after each step how many windows passed, a backward pass
    counting as two.

    >>> from fairq_utils.language.articles import DeclarationSettings, draw_declaration
    >>> texts = draw_declaration(DeclarationSettings(languages=("English", "Greek", "Thai", "Korean")))
    >>> recipe = LanguageRecipe(steps=2, batch_size=4)
    >>> network = train_language(texts, recipe=recipe, width=8, depth=1, heads=2)
    >>> network.training
    False
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = ByteDecoder(width=width, depth=depth, heads=heads, context=context)
    told = {"device": device, "description": description, "report": report}
    return fit_language(network, texts, recipe=recipe, seed=seed, **told)  # type: ignore[arg-type]


def fit_language(
    network: ByteDecoder,
    texts: Texts,
    *,
    recipe: LanguageRecipe = FURTHER,
    seed: int = 0,
    device: torch.device | None = None,
    description: str = "training",
    report: Report | None = None,
) -> ByteDecoder:
    """Train this very network further; it comes back on the CPU, in eval mode.

    Given what `quantize_model` returns, it trains while the weights are rounded; `bake` it then. With
    `loss_weights` or `sampling` in the recipe, the languages that hold less count for more.

    >>> from fairq_utils.language.articles import DeclarationSettings, draw_declaration
    >>> from fairq_utils.quantization.models import bake, describe, quantize_model
    >>> from fairq_utils.quantization.quantizers import UniformQuantizer
    >>> texts = draw_declaration(DeclarationSettings(languages=("English", "Greek", "Thai", "Korean")))
    >>> network = quantize_model(ByteDecoder(width=8, depth=1, heads=2), UniformQuantizer(4))
    >>> recipe = LanguageRecipe(steps=2, batch_size=4, sampling="even")
    >>> describe(bake(fit_language(network, texts, recipe=recipe))).bits.tolist()
    [4, 4, 4, 4, 4, 4]
    """
    device = device or default_device()
    length, streams = network.context, {name: stream(articles) for name, articles in texts.train.items()}
    for language, text in streams.items():
        require_length(language, text, length)
    random = torch.Generator().manual_seed(seed)
    sizes = torch.tensor([len(text) for text in streams.values()])
    # All texts lie behind one another; a window stays within its own.
    everything, begins = torch.cat(list(streams.values())).to(device), sizes.cumsum(0) - sizes
    chances, weights = recipe.chances(sizes), recipe.weights(sizes)
    places = torch.arange(length + 1, device=device)
    network = network.to(device).train()
    optimizer = _optimizer(network, recipe, device)
    bar = None
    if report is None:
        shown = 3 * recipe.steps * recipe.batch_size
        bar = progress(total=shown, description=description, unit="windows")
        report = reporting(bar)
    try:
        for step in range(recipe.steps):
            groups = torch.multinomial(chances, recipe.batch_size, replacement=True, generator=random)
            way = torch.rand(recipe.batch_size, generator=random, dtype=torch.float64)
            starts = begins[groups] + (way * (sizes[groups] - length)).long()
            windows = everything[starts.to(device)[:, None] + places]
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * one_cycle((step + 1) / (recipe.steps + 1))
            logits = network(windows[:, :-1])
            losses = F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten(), reduction="none")
            loss = _mean(losses.view(len(groups), length).mean(1), groups, weights)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            says = (step + 1) % 100 == 0 or step + 1 == recipe.steps
            report(3 * len(groups), f"{loss.item() / math.log(2):.2f} bits a byte" if says else "")
            if says:
                require_finite(loss.item(), description, recipe.learning_rate)
    finally:
        if bar is not None:
            bar.close()
    return network.eval().to("cpu")


def _optimizer(network: nn.Module, recipe: LanguageRecipe, device: torch.device) -> torch.optim.AdamW:
    """Weights of two dimensions decay; biases, norms and learned steps do not."""
    parameters = list(network.parameters())
    decaying = {"params": [p for p in parameters if p.ndim == 2], "weight_decay": recipe.weight_decay}
    others = {"params": [p for p in parameters if p.ndim != 2], "weight_decay": 0.0}
    return torch.optim.AdamW(
        [decaying, others],
        lr=recipe.learning_rate,
        betas=(0.9, 0.98),
        fused=device.type in ("cpu", "cuda"),
    )


def _mean(losses: Tensor, groups: Tensor, weights: Tensor | None) -> Tensor:
    """The mean loss of a batch, in which windows count by the weight of their language."""
    if weights is None:
        return losses.mean()
    own = weights[groups].to(losses)
    # A batch in which nobody counts teaches nothing.
    return (losses * own).sum() / own.sum().clamp(min=torch.finfo(own.dtype).tiny)
