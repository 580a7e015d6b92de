"""Ask an encoder that is brought."""

from __future__ import annotations

from fairq_utils.encoders.jobs.answer import answer_of
from fairq_utils.encoders.mini import DualEncoder
from fairq_utils.encoders.pretrained import OpenClip
from fairq_utils.encoders.questions import EvaluationSet
from fairq_utils.items import Item
from fairq_utils.progress import Report


# An OpenClip is a DualEncoder. It is named so that its module counts, which decides what it sees.
def answer_given(
    asked: EvaluationSet, *, encoder: OpenClip | DualEncoder, treatment: str, report: Report
) -> Item:
    """What it answers under the treatment."""
    return answer_of(encoder, asked, treatment, report)
