"""The chapters of the book in one list, and the claims that they judge."""

from __future__ import annotations

from fairq_book.chapters.disparity import story as disparity
from fairq_book.chapters.encoders import story as encoders
from fairq_book.chapters.landscape import norms
from fairq_book.chapters.landscape import story as landscape
from fairq_book.chapters.logits import story as logits
from fairq_book.chapters.repair import story as repair
from fairq_book.chapters.zero_bin import story as zero_bin

CLAIMS = {
    claim.key: claim
    for chapter in (disparity, logits, zero_bin, landscape, norms, repair, encoders)
    for claim in chapter.CLAIMS
}
