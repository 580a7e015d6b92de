"""What a language model says of texts, byte by byte, and what rounding changes in it, article by article."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from fairq_utils.errors import BadInput
from fairq_utils.language.decoder import ByteDecoder
from fairq_utils.language.texts import Part, Texts, stream

_BATCH = 32


@dataclass(frozen=True, eq=False)
class ByteAnswers:
    """What a network says of every byte of some articles.

    `language` has the place of each byte's language in `languages`, `article` the number of its article,
    `text` the byte, `answer` the byte that the network held for most likely, `loss` the nats that the true
    one took. Of a network that was read here there are also `confidence`, the probability that it gave its
    answer, and `logit_variance`, that of its 256 logits.

    >>> ByteAnswers(
    ...     ("English",),
    ...     language=torch.zeros(2).long(),
    ...     article=torch.ones(2).long(),
    ...     text=torch.tensor([72, 105], dtype=torch.uint8),
    ...     answer=torch.tensor([72, 101], dtype=torch.uint8),
    ...     loss=torch.tensor([0.5, 1.5]),
    ... ).correct
    tensor([ True, False])
    """

    languages: tuple[str, ...]
    language: Tensor
    article: Tensor
    text: Tensor
    answer: Tensor
    loss: Tensor
    confidence: Tensor | None = None
    logit_variance: Tensor | None = None

    @property
    def correct(self) -> Tensor:
        """Where the answer is the byte of the text."""
        return self.answer == self.text


@torch.no_grad()
def answer_texts(network: ByteDecoder, texts: Texts, part: Part = "test") -> ByteAnswers:
    """What the network says of all articles of a part, each byte once, on the network's own device.

    An article is read from its beginning, in windows that overlap by half: so each byte but the first few is
    told from at least half a context before it.

    >>> train, test = {"English": {1: b"a hen"}}, {"English": {2: b"an egg"}}
    >>> texts = Texts(train=train, tuning={"English": {}}, test=test)
    >>> answers = answer_texts(ByteDecoder(width=8, depth=1, heads=2), texts)
    >>> bytes(answers.text.tolist())
    b'an egg'
    """
    batches = [
        {
            "text": truth.to(torch.uint8),
            "answer": logits.argmax(1).to(torch.uint8),
            "loss": F.cross_entropy(logits, truth, reduction="none"),
            "confidence": logits.softmax(1).amax(1),
            "logit_variance": logits.var(1),
        }
        for logits, truth in byte_logits(network, texts, part)
    ]
    articles = [
        (place, number, len(article))
        for place, of_language in enumerate(texts.part(part).values())
        for number, article in of_language.items()
    ]
    language, article_of, sizes = torch.tensor(articles).T
    return ByteAnswers(
        texts.languages,
        language=language.repeat_interleave(sizes),
        article=article_of.repeat_interleave(sizes),
        **{name: torch.cat([batch[name] for batch in batches]) for name in batches[0]},
    )


@torch.no_grad()
def byte_logits(network: ByteDecoder, texts: Texts, part: Part = "test") -> Iterator[tuple[Tensor, Tensor]]:
    """The network's logits of each byte of a part once, N x 256, and the true bytes, some windows at a time.

    In the order, and from the windows, of `answer_texts`.

    >>> train, test = {"English": {1: b"a hen"}}, {"English": {2: b"an egg"}}
    >>> texts = Texts(train=train, tuning={"English": {}}, test=test)
    >>> [logits.shape for logits, _ in byte_logits(ByteDecoder(width=8, depth=1, heads=2), texts)]
    [torch.Size([6, 256])]
    """
    device = next(network.parameters()).device
    length, overlap = network.context, network.context // 2
    rows, scored = [], []
    for articles in texts.part(part).values():
        for number, article in articles.items():
            text = stream({number: article})
            told = 0  # so many bytes are told already
            for start in range(0, max(len(article) - overlap, 1), length - overlap):
                end = min(start + length, len(article))
                rows.append(F.pad(text[start : end + 1], (0, length - (end - start))))
                mask = torch.zeros(length, dtype=torch.bool)
                mask[told - start : end - start] = True
                scored.append(mask)
                told = end
    if not rows:
        raise BadInput(f"{part} has no article; expected at least one to read.")
    was_training = network.training
    network.eval()
    try:
        for batch, told_here in zip(
            torch.stack(rows).split(_BATCH), torch.stack(scored).split(_BATCH), strict=True
        ):
            logits = network(batch[:, :-1].to(device)).float().cpu()
            yield logits[told_here], batch[:, 1:][told_here]
    finally:
        network.train(was_training)


def by_article(answers: ByteAnswers) -> pd.DataFrame:
    """A row for each article in each language.

    `bytes`; `loss`, the mean in nats; `bits`, what the whole article takes; `bits_per_byte`; `accuracy`, the
    share of bytes that are the network's most likely one.

    >>> answers = ByteAnswers(
    ...     ("English",),
    ...     language=torch.zeros(2).long(),
    ...     article=torch.ones(2).long(),
    ...     text=torch.tensor([72, 105], dtype=torch.uint8),
    ...     answer=torch.tensor([72, 101], dtype=torch.uint8),
    ...     loss=torch.tensor([0.0, 2 * math.log(2)]),
    ... )
    >>> by_article(answers).round(2)
      language  article  bytes  loss  bits  bits_per_byte  accuracy
    0  English        1      2  0.69   2.0            1.0       0.5
    """
    bytewise = _bytewise(answers, nats=answers.loss.double(), correct=answers.correct)
    return _told(bytewise.groupby(["language", "article"], sort=False))


def by_language(answers: ByteAnswers) -> pd.DataFrame:
    """A row for each language, over all bytes of its articles: the columns of `by_article` but the number.

    Bits a byte of two scripts are not to be compared: what a byte has to say differs. Those of one language
    are, before a treatment and after.
    """
    bytewise = _bytewise(answers, nats=answers.loss.double(), correct=answers.correct)
    return _told(bytewise.groupby(["language"], sort=False))


def changes(before: ByteAnswers, after: ByteAnswers) -> pd.DataFrame:
    """What a treatment changed, article by article: a row for each article in each language.

    `bits`: so many more the whole article takes; articles say the same in all languages, so these may be
    compared between them. `relative`: that as a share of what it took before. `bits_per_byte` and
    `accuracy`: after minus before. `flips`: the share of bytes whose most likely answer is another.

    >>> before = ByteAnswers(
    ...     ("English",),
    ...     language=torch.zeros(2).long(),
    ...     article=torch.ones(2).long(),
    ...     text=torch.tensor([72, 105], dtype=torch.uint8),
    ...     answer=torch.tensor([72, 101], dtype=torch.uint8),
    ...     loss=torch.tensor([math.log(2), math.log(2)]),
    ... )
    >>> from dataclasses import replace
    >>> after = replace(before, loss=2 * before.loss, answer=before.text)
    >>> changes(before, after).round(2)
      language  article  bytes  bits  relative  bits_per_byte  accuracy  flips
    0  English        1      2   2.0       1.0            1.0       0.5    0.5
    """
    if before.languages != after.languages or not (
        before.language.equal(after.language)
        and before.article.equal(after.article)
        and before.text.equal(after.text)
    ):
        raise BadInput("before and after are of other texts; expected answers to the same part of the same.")
    bytewise = _bytewise(
        before,
        before=before.loss.double(),
        nats=after.loss.double() - before.loss.double(),
        correct=after.correct.double() - before.correct.double(),
        flips=before.answer != after.answer,
    )
    groups = bytewise.groupby(["language", "article"], sort=False)
    table = _told(groups).drop(columns="loss")
    table.insert(4, "relative", (groups.nats.sum() / groups.before.sum()).to_numpy())
    return table.assign(flips=groups.flips.mean().to_numpy())


def _bytewise(answers: ByteAnswers, **columns: Tensor) -> pd.DataFrame:
    names = np.array(answers.languages)[answers.language.numpy()]
    table = {"language": names, "article": answers.article.numpy()}
    return pd.DataFrame(table | {name: column.numpy() for name, column in columns.items()})


def _told(groups: Any) -> pd.DataFrame:
    nats, count = groups.nats.sum(), groups.size()
    return pd.DataFrame(
        {
            "bytes": count,
            "loss": nats / count,
            "bits": nats / math.log(2),
            "bits_per_byte": nats / math.log(2) / count,
            "accuracy": groups.correct.mean(),
        }
    ).reset_index()
