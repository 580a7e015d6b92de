"""Networks that compare images with texts: a small one to train here, and those that others trained.

A dual encoder turns an image into a direction, and a text into one of the same space; the two belong
together where the directions are close. `MiniCLIP` is trained from nothing in half a minute, `open_clip`
reads a model that somebody else trained. Both answer to `encode_images`, `encode_texts` and `logit_scale`;
and so does `MiniClassifier`, which is a MiniCLIP without language, for comparison.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fairq_utils import training
from fairq_utils.errors import BadInput
from fairq_utils.progress import Report, progress, reporting
from fairq_utils.training import default_device, to_input

BATCH = 250  # images, or texts, that pass through an encoder together


class DualEncoder(nn.Module):
    """What compares images with texts, whoever made it."""

    def image_features(self, images: Tensor) -> Tensor:
        """The image tower's answer to a batch of uint8 images, of any length."""
        raise NotImplementedError

    def text_features(self, texts: Sequence[str]) -> Tensor:
        """The text tower's answer to a batch of texts, of any length."""
        raise NotImplementedError

    @property
    def logit_scale(self) -> float:
        """What the cosine of an image and a text is multiplied by before a softmax."""
        raise NotImplementedError

    @torch.no_grad()
    def encode_images(self, images: Tensor) -> Tensor:
        """A direction (a row of length 1) for each uint8 image of N x 3 x H x W.

        Batches of `BATCH` in the order of the images: where a treatment rounds the inputs of a layer on a
        range that it takes from the batch, the batch has a say in the result.
        """
        if images.ndim != 4 or images.shape[1] != 3 or images.dtype != torch.uint8 or not len(images):
            raise BadInput(
                f"the images are {images.dtype} of shape {tuple(images.shape)}; expected uint8 of shape "
                "N x 3 x H x W with at least one image: pass those of a data set."
            )
        return torch.cat([_direction(self.image_features(batch)) for batch in images.split(BATCH)])

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """A direction (a row of length 1) for each text; equal texts are read once."""
        if isinstance(texts, str) or not len(texts):
            raise BadInput(f"texts is {texts!r}; expected a list of texts, at least one.")
        for text in texts:
            if not isinstance(text, str) or not text.strip():
                raise BadInput(f"a text is {text!r}; expected words: leave it out, or say what is seen.")
        distinct = list(dict.fromkeys(texts))
        batches = [distinct[start : start + BATCH] for start in range(0, len(distinct), BATCH)]
        directions = torch.cat([_direction(self.text_features(batch)) for batch in batches])
        place = {text: number for number, text in enumerate(distinct)}
        return directions[[place[text] for text in texts]]


def _direction(features: Tensor) -> Tensor:
    return F.normalize(features.float(), dim=-1).cpu()


# ---------------------------------------------------------------- words


@dataclass(frozen=True)
class WordTokenizer:
    """Text as numbers, one a word: what MiniCLIP reads.

    `words` is the whole vocabulary and `context` the most words a text may have. Case and punctuation do not
    count. A word outside the vocabulary becomes `UNKNOWN`, as it does in training; a text in which no word
    is known says nothing, and is refused, and so is one with more words than the context has.

    >>> tokenizer = WordTokenizer(("a", "pale", "moth"), context=4)
    >>> tokenizer(["A pale moth.", "a moth"])
    tensor([[2, 3, 4, 0],
            [2, 4, 0, 0]])
    >>> tokenizer(["a huge moth"])
    tensor([[2, 1, 4, 0]])
    >>> tokenizer(["lorem ipsum"])
    Traceback (most recent call last):
        ...
    fairq_utils.errors.BadInput: no word of 'lorem ipsum' is in the vocabulary; expected some of its 3
    words, such as: a, pale, moth.
    """

    words: tuple[str, ...]
    context: int = 24

    def __post_init__(self) -> None:
        if not self.words or len(set(self.words)) < len(self.words):
            raise BadInput(f"words is {self.words!r}; expected at least one word, each once.")

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """A row of `context` numbers for each text, filled up with `PADDING`."""
        place = {word: number for number, word in enumerate(self.words, start=UNKNOWN + 1)}
        rows = torch.full((len(texts), self.context), PADDING)
        for row, text in zip(rows, texts, strict=True):
            said = words_of(text)
            if len(said) > self.context:
                raise BadInput(
                    f"{text!r} has {len(said)} words; expected at most {self.context}: shorten it."
                )
            numbers = [place.get(word, UNKNOWN) for word in said]
            if all(number == UNKNOWN for number in numbers):
                raise BadInput(
                    f"no word of {text!r} is in the vocabulary; expected some of its {len(self.words)} "
                    f"words, such as: {', '.join(self.words[:5])}."
                )
            row[: len(numbers)] = torch.tensor(numbers)
        return rows


PADDING, UNKNOWN = 0, 1


def words_of(text: str) -> list[str]:
    """The words of a text, as the vocabulary has them.

    >>> words_of("A face: 20-29, Latino_Hispanic.")
    ['a', 'face', '20-29', 'latino_hispanic']
    """
    return re.findall(r"\w+(?:-\w+)*", text.lower())


# ---------------------------------------------------------------- a small dual encoder


@dataclass(frozen=True)
class Shape:
    """The form of a MiniCLIP: pixels along a patch, width and layers of the image tower."""

    patch: int
    width: int
    layers: int


SHAPES = {
    "patch8": Shape(8, 128, 2),
    "patch4": Shape(4, 64, 2),
    "patch8-deep": Shape(8, 64, 6),
}
_TEXT_WIDTH, _TEXT_LAYERS, _EMBEDDING, _HEAD, _STEM_WIDTH = 64, 2, 64, 32, 64


class MiniEncoder(DualEncoder):
    """The image side of what is trained here, a small transformer of linear layers alone.

    What any library quantizes are the linear layers, which hold nearly all weights; the vectors of the
    places are free parameters. `arch`: one of `SHAPES`.
    """

    def __init__(self, arch: str, *, image_size: int) -> None:
        super().__init__()
        if arch not in SHAPES:
            raise BadInput(f"arch is {arch!r}; expected one of: {', '.join(SHAPES)}.")
        shape = SHAPES[arch]
        if image_size % shape.patch:
            raise BadInput(
                f"image_size is {image_size}; expected a multiple of {shape.patch} pixels for {arch}."
            )
        self.image_size = image_size
        patches = (image_size // shape.patch) ** 2
        self.stem = _Stem(shape.patch, shape.width)
        self.patch_place = nn.Parameter(torch.randn(patches, shape.width) / math.sqrt(shape.width))
        self.image_tower = _Transformer(shape.width, shape.layers)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    @property
    def logit_scale(self) -> float:
        """What the cosine of an image and a text is multiplied by; learned, and at most 100."""
        return float(self.log_scale.detach().exp())

    def image_features(self, images: Tensor) -> Tensor:
        """The image tower's answer to a batch of uint8 images."""
        if images.shape[2:] != (self.image_size, self.image_size):
            raise BadInput(
                f"the images have {images.shape[2]} x {images.shape[3]} pixels; expected {self.image_size} x "
                f"{self.image_size}, at which this encoder was trained: load them at that size."
            )
        device = self.patch_place.device
        return self.image_tower(self.stem(to_input(images.to(device))) + self.patch_place, None)


class MiniCLIP(MiniEncoder):
    """Two small transformers, one for images and one for texts, of linear layers alone.

    `tokenizer`: the words it can read, whose vectors are free parameters.

    >>> encoder = MiniCLIP("patch8", WordTokenizer(("a", "moth")), image_size=32)
    >>> encoder.encode_images(torch.zeros(3, 3, 32, 32, dtype=torch.uint8)).shape
    torch.Size([3, 64])
    >>> encoder.encode_texts(["a moth", "moth"]).norm(dim=1).round()
    tensor([1., 1.])
    >>> MiniCLIP("patch7", WordTokenizer(("a", "moth")), image_size=32)
    Traceback (most recent call last):
        ...
    fairq_utils.errors.BadInput: arch is 'patch7'; expected one of: patch8, patch4, patch8-deep.
    """

    def __init__(self, arch: str, tokenizer: WordTokenizer, *, image_size: int) -> None:
        super().__init__(arch, image_size=image_size)
        self.tokenizer = tokenizer
        self.word_vector = nn.Parameter(torch.randn(UNKNOWN + 1 + len(tokenizer.words), _TEXT_WIDTH) / 8)
        self.word_place = nn.Parameter(torch.randn(tokenizer.context, _TEXT_WIDTH) / 8)
        self.text_tower = _Transformer(_TEXT_WIDTH, _TEXT_LAYERS)

    def text_features(self, texts: Sequence[str]) -> Tensor:
        """The text tower's answer to a batch of texts."""
        return self.token_features(self.tokenizer(texts))

    def token_features(self, tokens: Tensor) -> Tensor:
        """The text tower's answer to the numbers that the tokenizer gives."""
        tokens = tokens.to(self.word_place.device)
        tokens = tokens[:, : int((tokens != PADDING).sum(dim=1).max())]  # columns of padding say nothing
        vectors = F.embedding(tokens, self.word_vector) + self.word_place[: tokens.shape[1]]
        return self.text_tower(vectors, tokens != PADDING)


class MiniClassifier(MiniEncoder):
    """The same image side, and in place of a text side one direction for each class: it knows no language.

    So a classifier and a MiniCLIP differ in what taught them, and in nothing else. The only texts that it
    reads are the names of its classes.

    >>> classifier = MiniClassifier("patch8", ("Alder", "Others"), image_size=32)
    >>> classifier.encode_texts(["Others", "Alder"]).shape
    torch.Size([2, 64])
    >>> classifier.encode_texts(["a moth"])
    Traceback (most recent call last):
        ...
    fairq_utils.errors.BadInput: the text is 'a moth'; expected the name of a class, for a classifier reads
    nothing else: Alder, Others.
    """

    def __init__(self, arch: str, names: Sequence[str], *, image_size: int) -> None:
        super().__init__(arch, image_size=image_size)
        self.names = tuple(names)
        self.classes = nn.Linear(len(self.names), _EMBEDDING, bias=False)

    def text_features(self, texts: Sequence[str]) -> Tensor:
        """The directions of the classes of these names."""
        if stranger := next((text for text in texts if text not in self.names), None):
            raise BadInput(
                f"the text is {stranger!r}; expected the name of a class, for a classifier reads nothing "
                f"else: {', '.join(self.names)}."
            )
        return self.class_features()[[self.names.index(text) for text in texts]]

    def class_features(self) -> Tensor:
        """The directions of all classes."""
        return self.classes(torch.eye(len(self.names), device=self.patch_place.device))


class _Stem(nn.Module):
    """A vector for each patch, from overlapping windows that halve the picture until patches are left.

    Few images do not teach a transformer what an edge is; overlapping windows help, and so does a second look
    after each halving but the first, which would be the dearest.
    """

    def __init__(self, patch: int, width: int) -> None:
        super().__init__()
        halvings = patch.bit_length() - 1
        widths = [3, *[_STEM_WIDTH] * (halvings - 1), width]
        self.halvings = nn.ModuleList(
            [_Windows(before, after, stride=2) for before, after in pairwise(widths)]
        )
        looks = [_Windows(after, after, stride=1) for after in widths[2:]]
        for look in looks:
            nn.init.zeros_(look.norm.weight)  # it adds nothing before it has learned something
        self.second_looks = nn.ModuleList(looks)

    def forward(self, picture: Tensor) -> Tensor:
        for halve, look in zip(self.halvings, [None, *self.second_looks], strict=True):
            picture = F.gelu(halve(picture))
            if look is not None:
                picture = F.gelu(picture + look(picture))
        return picture.flatten(2).transpose(1, 2)


class _Windows(nn.Module):
    """A linear layer over 3 x 3 windows, normed over all places alike."""

    def __init__(self, before: int, after: int, *, stride: int) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(9 * before, after), nn.BatchNorm1d(after)
        self.stride = stride

    def forward(self, picture: Tensor) -> Tensor:
        side = -(picture.shape[-1] // -self.stride)
        channels = self.norm(_at_each_window(self.layer, picture, self.stride))
        return channels.unflatten(0, (len(picture), side, side)).permute(0, 3, 1, 2)


def _at_each_window(layer: nn.Module, picture: Tensor, stride: int) -> Tensor:
    """What the layer makes of the 3 x 3 window around every pixel, or every second one, a row each.

    Unfolded, so that libraries find a linear layer. While a plain one is trained a convolution does the same
    sums, and copies no pixel nine times.
    """
    if type(layer) is nn.Linear and layer.training:
        kernel = layer.weight.unflatten(1, (-1, 3, 3))
        return F.conv2d(picture, kernel, layer.bias, stride, padding=1).permute(0, 2, 3, 1).flatten(0, 2)
    return layer(F.unfold(picture, 3, padding=1, stride=stride).transpose(1, 2)).flatten(0, 1)


class _Transformer(nn.Module):
    """Blocks of attention and of two linear layers, then the mean over what is there, projected."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([_Block(width) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)
        self.projection = nn.Linear(width, _EMBEDDING, bias=False)

    def forward(self, signal: Tensor, there: Tensor | None) -> Tensor:
        for block in self.blocks:
            signal = block(signal, there)
        signal = self.norm(signal)
        if there is None:
            return self.projection(signal.mean(dim=1))
        weights = there[..., None].to(signal.dtype)
        return self.projection((signal * weights).sum(dim=1) / weights.sum(dim=1))


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = width // _HEAD
        self.norm_attention, self.norm_mix = nn.LayerNorm(width), nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.heads_together = nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, 3 * width), nn.Linear(3 * width, width)

    def forward(self, signal: Tensor, there: Tensor | None) -> Tensor:
        split = self.queries_keys_values(self.norm_attention(signal))
        signal = signal + self.heads_together(_attend(split, self.heads, there))
        return signal + self.narrow(F.gelu(self.widen(self.norm_mix(signal))))


def _attend(split: Tensor, heads: int, there: Tensor | None) -> Tensor:
    """Attention over queries, keys and values that lie behind one another in the last dimension."""
    count, places, width = split.shape[0], split.shape[1], split.shape[2] // 3
    query, key, value = split.view(count, places, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
    mask = None if there is None else there[:, None, None, :]
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return mixed.transpose(1, 2).reshape(count, places, width)


# ---------------------------------------------------------------- training


@dataclass(frozen=True, kw_only=True)
class ContrastiveRecipe:
    """How a MiniCLIP is trained: AdamW; the rate climbs for a tenth and falls to 0.

    Of a batch, each image is to find its caption among all, and each caption its image. When accuracy is
    still far from what it should be, raise `epochs`.

    >>> ContrastiveRecipe(epochs=0)
    Traceback (most recent call last):
        ...
    fairq_utils.errors.BadInput: epochs is 0; expected a whole number of at least 1.
    """

    epochs: int = 8
    batch_size: int = 50
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    shift: float = 0.06  # move each image by up to this share of its width and height

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 2)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise BadInput(f"{name} is {value!r}; expected a whole number of at least {least}.")
        if not isinstance(self.learning_rate, int | float) or not 0 < self.learning_rate < math.inf:
            raise BadInput(f"learning_rate is {self.learning_rate!r}; expected a number above 0.")


def train_mini_clip(
    arch: str,
    images: Tensor,
    captions: Sequence[Sequence[str]],
    *,
    words: Sequence[str],
    recipe: ContrastiveRecipe = ContrastiveRecipe(),
    seed: int = 0,
    device: torch.device | None = None,
    description: str = "training",
    report: Report | None = None,
) -> MiniCLIP:
    """Train a MiniCLIP on uint8 images, each with one caption or several; it comes back in eval mode.

    An epoch shows each image once, with one of its captions. `report` is told how many images passed, a
    backward pass counting as two. The seed decides everything that is drawn.

    >>> images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
    >>> captions = [("a pale moth",), ("a dark moth", "dark")] * 4
    >>> once = ContrastiveRecipe(epochs=1, batch_size=4)
    >>> encoder = train_mini_clip("patch8", images, captions, words=("a", "pale", "dark"), recipe=once)
    >>> encoder.training
    False
    """
    if len(images) != len(captions) or len(images) < 2:
        raise BadInput(
            f"{len(images)} images and captions for {len(captions)}; expected captions for each of at least "
            "2 images."
        )
    if not all(captions):
        raise BadInput("an image has no caption; expected at least one for each: leave that image out.")
    with _seeded(seed):
        encoder = MiniCLIP(arch, WordTokenizer(tuple(words)), image_size=images.shape[-1])
    distinct = list(dict.fromkeys(text for several in captions for text in several))
    place = {text: number for number, text in enumerate(distinct)}
    tokens = encoder.tokenizer(distinct)
    said = [torch.tensor([place[text] for text in several]) for several in captions]

    def texts_of(order: Tensor, random: torch.Generator) -> Tensor:
        chosen = [said[i][torch.randint(len(said[i]), (), generator=random)] for i in order.tolist()]
        return tokens[torch.stack(chosen)]

    def loss_of(pictures: Tensor, texts: Tensor) -> Tensor:
        """How far images and captions of a batch are from finding their own among all."""
        logits = _close(encoder, pictures, encoder.token_features(texts))
        own = torch.arange(len(logits), device=logits.device)
        return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2

    return _train(encoder, images, texts_of, loss_of, recipe, seed, device, description, report)


def train_mini_classifier(
    arch: str,
    images: Tensor,
    labels: Tensor,
    *,
    names: Sequence[str],
    recipe: ContrastiveRecipe = ContrastiveRecipe(),
    seed: int = 0,
    device: torch.device | None = None,
    description: str = "training",
    report: Report | None = None,
) -> MiniClassifier:
    """The same from labels, which index `names`, in place of captions: each image is to find its class.

    >>> images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
    >>> once = ContrastiveRecipe(epochs=1, batch_size=4)
    >>> labels = torch.tensor([0, 1] * 4)
    >>> classifier = train_mini_classifier("patch8", images, labels, names=("pale", "dark"), recipe=once)
    >>> classifier.encode_texts(["dark"]).shape
    torch.Size([1, 64])
    """
    if len(images) != len(labels) or len(images) < 2:
        raise BadInput(
            f"{len(images)} images and {len(labels)} labels; expected a label for each of at least 2 images."
        )
    with _seeded(seed):
        classifier = MiniClassifier(arch, names, image_size=images.shape[-1])

    def labels_of(order: Tensor, random: torch.Generator) -> Tensor:
        return labels[order]

    def loss_of(pictures: Tensor, own: Tensor) -> Tensor:
        return F.cross_entropy(
            _close(classifier, pictures, classifier.class_features()), own.to(pictures.device)
        )

    return _train(classifier, images, labels_of, loss_of, recipe, seed, device, description, report)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _close(encoder: MiniEncoder, pictures: Tensor, texts: Tensor) -> Tensor:
    """How close each image is to each text, times the logit scale."""
    pictures, texts = F.normalize(pictures.float(), dim=-1), F.normalize(texts.float(), dim=-1)
    with torch.autocast(pictures.device.type, enabled=False):
        return encoder.log_scale.exp() * pictures @ texts.T


Encoder = TypeVar("Encoder", bound=MiniEncoder)


def _train(
    encoder: Encoder,
    images: Tensor,
    beside: Callable[[Tensor, torch.Generator], Tensor],
    loss_of: Callable[[Tensor, Tensor], Tensor],
    recipe: ContrastiveRecipe,
    seed: int,
    device: torch.device | None,
    description: str,
    report: Report | None,
) -> Encoder:
    """`beside` says once an epoch what stands beside each image; `loss_of` judges a batch of both."""
    device = device or default_device()
    random = torch.Generator().manual_seed(seed)
    encoder = encoder.to(device).train()
    batch_size = min(recipe.batch_size, len(images))
    steps = len(images) // batch_size  # a short last batch is dropped: it would be an easier task
    total = recipe.epochs * steps
    # Weights of linear layers decay; biases, norms, vectors of words and places do not.
    linear = [layer.weight for layer in encoder.modules() if isinstance(layer, nn.Linear)]
    others = [weight for weight in encoder.parameters() if all(weight is not one for one in linear)]
    optimizer = torch.optim.AdamW(
        [
            {"params": linear, "weight_decay": recipe.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ],
        lr=recipe.learning_rate,
        betas=(0.9, 0.98),
        fused=device.type in ("cpu", "cuda"),
    )
    moves = training.Recipe(flip=True, shift=recipe.shift)
    bar = None
    if report is None:
        bar = progress(total=3 * total * batch_size, description=description, unit="img")
        report = reporting(bar)
    try:
        for step in range(total):
            if step % steps == 0:
                order = torch.randperm(len(images), generator=random)
                beside_images = beside(order, random)
            rows = slice(step % steps * batch_size, (step % steps + 1) * batch_size)
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * _warm_then_cosine((step + 1) / (total + 1))
            batch = training.augment(images[order[rows]], moves, random)
            # Layers this small are no faster in bfloat16 on a CPU.
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                pictures = encoder.image_features(batch)
                loss = loss_of(pictures, beside_images[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
            optimizer.step()
            with torch.no_grad():
                encoder.log_scale.clamp_(max=math.log(100))
            said_now = f"loss {loss.item():.2f}" if step % steps == steps - 1 else ""
            report(3 * batch_size, said_now)
            if said_now and not math.isfinite(loss.item()):
                raise BadInput(
                    f"{description}: the loss became {loss.item()}; expected a finite number, so lower "
                    f"learning_rate (now {recipe.learning_rate})."
                )
    finally:
        if bar is not None:
            bar.close()
    return encoder.eval().to("cpu")


def _warm_then_cosine(done: float) -> float:
    climb = 0.1
    return done / climb if done < climb else 0.5 * (1 + math.cos(math.pi * (done - climb) / (1 - climb)))
