"""Ask a small encoder that was trained here."""

from __future__ import annotations

import torch

from fairq_utils.encoders.mini import DualEncoder, MiniClassifier, MiniCLIP, MiniEncoder, WordTokenizer
from fairq_utils.encoders.questions import EvaluationSet, answer_questions
from fairq_utils.items import Item
from fairq_utils.progress import Report


def answer(
    asked: EvaluationSet,
    made: Item,
    *,
    arch: str,
    by_labels: bool,
    texts: tuple[str, ...],
    treatment: str,
    report: Report,
) -> Item:
    """What the encoder with the weights of that item answers under the treatment."""
    encoder = restored(arch, texts, made, by_labels=by_labels, image_size=asked.scenes.images.shape[-1])
    return answer_of(encoder, asked, treatment, report)


def answer_of(encoder: DualEncoder, asked: EvaluationSet, treatment: str, report: Report) -> Item:
    """What an encoder answers under the treatment."""
    found = answer_questions(encoder, treatment, asked)
    report(2 * len(asked.scenes.images))
    return found


def restored(
    arch: str, texts: tuple[str, ...], made: Item, *, by_labels: bool, image_size: int
) -> MiniEncoder:
    """The encoder with the weights of that item, in evaluation mode."""
    encoder: MiniEncoder
    with torch.device("meta"):
        if by_labels:
            encoder = MiniClassifier(arch, texts, image_size=image_size)
        else:
            encoder = MiniCLIP(arch, WordTokenizer(texts), image_size=image_size)
    encoder.load_state_dict(made.tensors, assign=True)
    return encoder.eval()
