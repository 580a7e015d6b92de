"""Texts of several languages in three parts, as bytes: what a language model learns and is judged on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from fairq_utils.errors import BadInput

Documents = Mapping[str, Mapping[int, bytes]]  # of each language, by the number of the article
Part = Literal["train", "tuning", "test"]
START = 0  # the byte before a document, which is in no text


@dataclass(frozen=True, eq=False)
class Texts:
    """What each language says in each article, apart for training, for tuning and for the test.

    Tuning and test have the same articles in every language; no language is trained on any of them, not even
    on another's translation. How much there is for training may differ.

    >>> hen, gallina = {1: b"a hen", 2: b"an egg"}, {1: b"una gallina", 2: b"un huevo"}
    >>> first, second = ({"English": {n: hen[n]}, "Spanish": {n: gallina[n]}} for n in (1, 2))
    >>> Texts(train=first, tuning={"English": {}, "Spanish": {}}, test=second).languages
    ('English', 'Spanish')
    """

    train: Documents
    tuning: Documents
    test: Documents

    def __post_init__(self) -> None:
        parts = {"train": self.train, "tuning": self.tuning, "test": self.test}
        for part, documents in parts.items():
            if not documents or documents.keys() != self.train.keys():
                raise BadInput(
                    f"{part} has the languages {', '.join(documents) or 'none'}; expected the same in train, "
                    "tuning and test, at least one."
                )
            for language, articles in documents.items():
                for number, text in articles.items():
                    if not text or START in text:
                        raise BadInput(
                            f"article {number} in {language} {'has a byte 0' if text else 'is empty'}; "
                            "expected text, and the byte 0 only between articles: leave it out."
                        )
        for part in ("tuning", "test"):
            first, *others = (articles.keys() for articles in parts[part].values())
            if any(own != first for own in others):
                raise BadInput(f"{part} has other articles in some languages; expected the same in all.")
        tuning, test = (set(held_out[self.languages[0]]) for held_out in (self.tuning, self.test))
        if both := tuning & test:
            raise BadInput(f"article {min(both)} is for tuning and for the test; expected each in one part.")
        for language, articles in self.train.items():
            if not articles:
                raise BadInput(f"{language} has no text to train on; expected some: raise its share.")
            if seen := (tuning | test) & articles.keys():
                raise BadInput(
                    f"{language} has article {min(seen)} for training and beyond; expected each in one part."
                )

    @property
    def languages(self) -> tuple[str, ...]:
        """The groups, in their order."""
        return tuple(self.train)

    def part(self, name: Part) -> Documents:
        """The documents of a part."""
        if name not in ("train", "tuning", "test"):
            raise BadInput(f"part is {name!r}; expected train, tuning or test.")
        return getattr(self, name)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the content."""
        digest = hashlib.sha256()
        for part in (self.train, self.tuning, self.test):
            for language, articles in part.items():
                digest.update(repr((language, list(articles.items()))).encode())
        return digest.hexdigest()


def stream(articles: Mapping[int, bytes]) -> Tensor:
    """All articles behind one another, as numbers, with the byte 0 before each.

    >>> stream({3: b"no", 1: b"a"})
    tensor([  0, 110, 111,   0,  97])
    """
    joined = b"".join(bytes([START]) + text for text in articles.values())
    return torch.frombuffer(bytearray(joined), dtype=torch.uint8).long() if joined else torch.empty(0).long()


def windows(
    texts: Texts, *, each: int, length: int, part: Part = "train", seed: int = 0
) -> dict[str, Tensor]:
    """Equally many windows of equally many bytes of each language, a row each, one byte longer than `length`.

    The seed decides where they begin, as shares of the way through the text of a part: the same in every
    language, so that where the articles are the same what they say is nearly the same.

    >>> texts = Texts(train={"English": {1: b"abcdefgh"}}, tuning={"English": {}}, test={"English": {}})
    >>> windows(texts, each=2, length=3)["English"].shape
    torch.Size([2, 4])
    """
    if each < 1 or length < 1:
        raise BadInput(f"each is {each} and length is {length}; expected 1 or more of both.")
    places = torch.rand(each, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = {}
    for language, articles in texts.part(part).items():
        text = stream(articles)
        require_length(language, text, length)
        starts = (places * (len(text) - length)).long()
        found[language] = text[starts[:, None] + torch.arange(length + 1)]
    return found


def require_length(language: str, text: Tensor, length: int) -> None:
    """Refuse a text in which no window fits.

    >>> require_length("English", torch.zeros(5), 64)
    Traceback (most recent call last):
        ...
    fairq_utils.errors.BadInput: English has 5 bytes; expected at least 65, for windows of 64 and a byte to
    begin with: give it more text, or take a shorter window.
    """
    if len(text) <= length:
        raise BadInput(
            f"{language} has {len(text)} bytes; expected at least {length + 1}, for windows of {length} and "
            "a byte to begin with: give it more text, or take a shorter window."
        )
