"""What a dual encoder is asked, and what it answers: to classify, to retrieve, and to rank for a query."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from fairq_utils.encoders.linear_layers import quantize_linear, runs
from fairq_utils.encoders.mini import DualEncoder
from fairq_utils.encoders.scenes import Scenes
from fairq_utils.errors import BadInput
from fairq_utils.items import Item, canonical
from fairq_utils.metrics.ranking import retrieval_ranks


@dataclass(frozen=True, eq=False)
class EncoderOutputs:
    """What one encoder, treated one way, says of the test images.

    `logits`: images by the values of `label`, cosines with the averaged prompts times the logit scale; None
    where there is no label. `to_text`, `to_image`: `retrieval_ranks` of each image's captions among all
    captions, and of each distinct caption's images among all images; None where there are no captions.
    `queries`: how close each image is to each neutral query. `runs`: what computed the treatment.
    """

    model: str
    treatment: str
    runs: str
    attributes: pd.DataFrame
    label: str | None
    logits: Tensor | None
    to_text: Tensor | None
    to_image: Tensor | None
    queries: Tensor | None

    @property
    def correct(self) -> np.ndarray:
        """Whether each image is given its label."""
        if self.logits is None or self.label is None:
            raise BadInput(f"{self.model} was asked for no label; expected one: name it when it is asked.")
        return (self.logits.argmax(dim=1).numpy() == self.attributes[self.label].cat.codes).to_numpy()

    def codes(self, attribute: str) -> tuple[np.ndarray, list[str]]:
        """The group of each image, and the names of all groups."""
        if attribute not in self.attributes:
            known = ", ".join(map(str, self.attributes)) or "none"
            raise BadInput(f"group is {attribute!r}; expected one of the attributes: {known}.")
        column = self.attributes[attribute]
        return column.cat.codes.to_numpy().astype(int), [str(name) for name in column.cat.categories]


@dataclass(frozen=True, eq=False)
class EvaluationSet:
    """What an encoder is asked: the images, and the texts to hold beside them."""

    scenes: Scenes
    label: str | None
    prompts: Sequence[Sequence[str]]
    queries: Sequence[str]

    def __post_init__(self) -> None:
        if self.label is not None and len(self.prompts) != len(self.scenes.names(self.label)):
            raise BadInput(
                f"there are prompts for {len(self.prompts)} classes, and {self.label} has "
                f"{len(self.scenes.names(self.label))}; expected prompts for each."
            )
        if any(not several for several in self.prompts):
            raise BadInput("a class has no prompt; expected at least one for each, such as: a photo of a {}.")

    @property
    def digest(self) -> str:
        """SHA-256 of the texts and the images."""
        texts = canonical([self.label, [list(several) for several in self.prompts], list(self.queries)])
        return hashlib.sha256((self.scenes.fingerprint + texts).encode()).hexdigest()


def ask(encoder: DualEncoder, questions: EvaluationSet) -> dict[str, Tensor]:
    """The tensors of `EncoderOutputs`, of one encoder as it stands.

    The prompts of a class are averaged as directions, and the average is a direction again. Images and texts
    are compared in float32.
    """
    images = encoder.encode_images(questions.scenes.images)
    found = {}
    if questions.label is not None:
        classes = torch.stack(
            [
                F.normalize(encoder.encode_texts(list(several)).mean(dim=0), dim=0)
                for several in questions.prompts
            ]
        )
        found["logits"] = encoder.logit_scale * images @ classes.T
    if questions.scenes.captions:
        texts = list(dict.fromkeys(text for several in questions.scenes.captions for text in several))
        place = {text: number for number, text in enumerate(texts)}
        own = torch.zeros(len(images), len(texts), dtype=torch.bool)
        for row, several in enumerate(questions.scenes.captions):
            own[row, [place[text] for text in several]] = True
        close = images @ encoder.encode_texts(texts).T
        found["to_text"] = torch.from_numpy(retrieval_ranks(close, own))
        found["to_image"] = torch.from_numpy(retrieval_ranks(close.T, own.T))
    if questions.queries:
        found["queries"] = encoder.encode_texts(list(questions.queries)) @ images.T
    return found


def answer_questions(encoder: DualEncoder, treatment: str, questions: EvaluationSet) -> Item:
    """What the encoder answers under the treatment, to be kept; `as_answers` reads it."""
    return Item(ask(quantize_linear(encoder, treatment), questions), {"runs": runs(treatment)})


def as_answers(model: str, treatment: str, questions: EvaluationSet, item: Item) -> EncoderOutputs:
    """What `answer` kept, with what it was asked."""
    return EncoderOutputs(
        model=model,
        treatment=treatment,
        runs=item.info["runs"],
        attributes=questions.scenes.attributes,
        label=questions.label,
        **{part: item.tensors.get(part) for part in ("logits", "to_text", "to_image", "queries")},
    )
