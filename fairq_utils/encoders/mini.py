"""Networks that compare images with texts: a small one to train here, and those that others trained.

A dual encoder turns an image into a direction, and a text into one of the same space; the two belong
together where the directions are close. `MiniCLIP` is trained from nothing in half a minute, `open_clip`
reads a model that somebody else trained. Both answer to `encode_images`, `encode_texts` and `logit_scale`;
and so does `MiniClassifier`, which is a MiniCLIP without language, for comparison.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fairq_utils.errors import BadInput
from fairq_utils.training.loop import to_input

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
    """The image side of a MiniCLIP, with a direction for each class as its text side: it knows no language.

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
