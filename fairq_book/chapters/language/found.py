"""What chapter 7 found, in a few sentences: rare languages change more and lose no more."""

from __future__ import annotations

from fairq_book.chapters.language import real
from fairq_book.chapters.language.kept import Kept
from fairq_book.chapters.language.story import SENTENCES, Findings, findings
from fairq_book.kit.smollm2 import MeasuredModel
from fairq_book.kit.told import together, told
from fairq_book.kit.wording import Prose


def in_short(kept: Kept, model: MeasuredModel) -> Prose:
    """All of it: of the small networks, and of a real one."""
    own = findings(kept)
    return together(
        rare_loses_no_more(own), but_answers_change(own), steeper_and_no_dearer(own), a_real_one(model)
    )


def rare_loses_no_more(found: Findings) -> Prose:
    """Length and accuracy by how much was read."""
    numbers = found.number("L1, int4")
    return told(
        "**A rare language loses no more.** Down to four bits an article grows as little longer in a "
        "language of which the network has read an eighth as in one that it has read all of: at four bits "
        f"{numbers} points apart. It keeps as much accuracy, too.",
        holds=SENTENCES["longer"].holds(found) and SENTENCES["accuracy"].holds(found),
        otherwise=f"By how much longer an article grows where an eighth was read, at four bits: {numbers} "
        "points.",
    )


def but_answers_change(found: Findings) -> Prose:
    """Flips by how much was read."""
    numbers = found.number("L2, int4")
    return told(
        f"**But more of its answers change**, at four bits {numbers} points more. Most go from one guess to "
        "another, which costs nothing on average, and is another text all the same.",
        holds=SENTENCES["flips"].holds(found) and SENTENCES["accuracy"].holds(found),
        otherwise=f"By how many points more of its answers change at four bits: {numbers}.",
    )


def steeper_and_no_dearer(found: Findings) -> Prose:
    """Curvature by how much was read."""
    numbers = found.number("fp32 eigenvalue")
    return told(
        f"**Its loss is steeper, and that foretells nothing.** The top eigenvalue is {numbers} as large "
        "where an eighth was read. By the theory these languages lose more; they do not.",
        holds=SENTENCES["steep"].holds(found) and SENTENCES["longer"].holds(found),
        otherwise=f"The top eigenvalue is {numbers} as large where an eighth was read.",
    )


def a_real_one(model: MeasuredModel) -> Prose:
    """SmolLM2 at eight bits and at four."""
    return told(
        "**In a model that people use averages stand, and answers change.** SmolLM2 takes next to no more "
        "bits for any of sixteen languages at eight bits, and its answers change all the same. English is "
        "spared at four bits, and not before.",
        holds=real.the_average_stands_and_answers_flip(model)
        and real.english_is_spared_at_four_bits_alone(model),
        otherwise="What SmolLM2 does is shown below.",
    )
