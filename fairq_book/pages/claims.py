"""The tables that hold the papers' claims against what was measured.

Each is a template in `templates`, which escapes whatever it is given.
"""

from __future__ import annotations

import functools
import html
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from fairq_audit.formats import hundredths
from fairq_book.kit import remedy_questions
from fairq_book.kit.by_network import MeasuredNetworks
from fairq_book.kit.claims import Claim, Effect, Remark
from fairq_book.kit.interventions import OF_WIDTHS, QUESTIONS, Question, ends_of
from fairq_book.kit.measured import Measured
from fairq_book.kit.treatments import COLUMNS
from fairq_book.kit.wording import Verdict, as_sentence, in_points
from fairq_book.pages.plain_words import seeds_in_words
from fairq_book.registry import CLAIMS
from fairq_utils.intervals import benjamini_hochberg

_FALSE_DISCOVERIES = 0.05  # of what a page says, so much may be wrong
TEMPLATES = Path(__file__).parent / "templates"
# Columns of a treatment, and what it means that they have these values.
_CHOICES = {
    ("grid", "int-mse"): "the range with the least squared error",
    ("grid", "int-channel"): "one scale for each output channel",
    ("grid", "int-mse-channel"): "both of these",
    ("grid", "int-full"): "all codes, −2 to 1 at two bits",
    ("ends8", True): "8 bits in the first and the last layer",
    ("batchnorm", True): "batch norm statistics taken again",
}


@dataclass(frozen=True)
class Shown:
    """A piece of a page."""

    markup: str

    def _repr_html_(self) -> str:
        return self.markup

    def __repr__(self) -> str:
        return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", self.markup))).strip()


@dataclass(frozen=True)
class _Answer:
    """What one setting says of one claim, if it was asked."""

    claim: Claim
    measured: Measured

    @property
    def asked(self) -> bool:
        return self.claim.asked_of(self.measured)

    @functools.cached_property
    def verdict(self) -> Verdict:
        return self.claim.verdict(self.measured)

    @property
    def remark(self) -> Remark | None:
        return self.claim.remark(self.measured)

    @property
    def effects(self) -> list[Effect]:
        return self.claim.effects(self.measured)


def judge(key: str, measured: Measured) -> Verdict:
    """What a setting says of a claim."""
    return CLAIMS[key].verdict(measured)


def everywhere(key: str, measured: Mapping[str, Measured]) -> Shown:
    """A claim in every setting that was asked it, a line each: verdict and why, and some of its numbers."""
    claim = CLAIMS[key]
    answers = [_Answer(claim, own.by(claim.chapter)) for own in measured.values()]
    heads = ["setting", "verdict", "some of what it rests on"]
    return filled("everywhere", heads=heads, rows=[answer for answer in answers if answer.asked])


def overview(measured: Mapping[str, Measured]) -> Shown:
    """A word for every claim in every setting, each a link to why."""
    return filled("overview", **_by_claim_and_setting(measured))


def page(measured: Mapping[str, Measured], *, up: str = "..") -> Shown:
    """Every claim in every setting, and under each verdict why, and from which row of which table.

    `up`: the way from the page to the top of the book.
    """
    return filled("page", **_by_claim_and_setting(measured), up=up)


def how_many(measured: Mapping[str, Measured]) -> Shown:
    """How many verdicts a page holds, and which of the decided ones fall when all are allowed for.

    At a false-discovery rate of 5 % over the page. A verdict is as sure as the surest number beside it; where
    none has an interval of its kind, it is counted and left out.
    """
    answers = [
        answer for row in _by_claim_and_setting(measured)["rows"] for answer in row["answers"] if answer.asked
    ]
    surest = [
        min((p for p in (one.p(own.measured.networks) for one in own.effects) if p == p), default=math.nan)
        for own in answers
    ]
    tested = [(own, p) for own, p in zip(answers, surest, strict=True) if p == p]
    adjusted = benjamini_hochberg([p for _, p in tested])
    decided = [own.verdict.word in ("supported", "mixed", "contradicted") for own, _ in tested]
    fallen = [
        f"{own.claim.key} on {own.measured.title}"
        for (own, _), p, sure in zip(tested, adjusted, decided, strict=True)
        if sure and p >= _FALSE_DISCOVERIES
    ]
    said = (
        f"The page holds {len(answers)} verdicts, all of them secondary: {len(tested)} rest on numbers with "
        f"intervals, and {sum(decided)} of these are decided. With a false-discovery rate of 5 % over the "
        f"page {sum(decided) - len(fallen)} stay so."
    )
    said += f" Those that do not: {', '.join(fallen)}." if fallen else ""
    return Shown(f"<p>{html.escape(said)}</p>")


def choices(measured: Measured) -> Shown:
    """What another choice does to OA and FVO at the same width, for each that was tried."""
    rows = []
    for (_, plain), own in measured["choices"].groupby(["treatment", "reference"], sort=False):
        by_group = own.set_index("group").to_dict("index")
        rows.append(
            {
                "plain": plain,
                "choice": next(
                    words for (column, value), words in _CHOICES.items() if own.iloc[0][column] == value
                ),
                "effects": [Effect("", "points", "choices", by_group[name]) for name in ("OA", "FVO")],
            }
        )
    return filled("choices", heads=["instead of the plain grid", "OA", "FVO"], rows=rows)


def provenance(measured: Mapping[str, Measured], *, up: str = "..") -> Shown:
    """Of each setting: seeds, code, machine and date.

    `up`: the way from the page to the top of the book.
    """
    heads = ["record", "seeds", "code", "machine", "date"]
    return filled("provenance", heads=heads, rows=measured.values(), up=up)


def why(measured: Sequence[MeasuredNetworks]) -> Shown:
    """The registered questions on who pays and why, with the answer of each of these settings."""
    return _asked((*OF_WIDTHS, *QUESTIONS), measured)


def repairs(measured: Sequence[MeasuredNetworks]) -> Shown:
    """The registered questions on what repairs, with the answer of each of these settings."""
    return _asked((*remedy_questions.OF_WIDTHS, *remedy_questions.QUESTIONS), measured)


_COLOURS = {"yes": "supported", "the reverse": "contradicted", "no": "no-difference"}


def by_width(why: Sequence[MeasuredNetworks], repair: Sequence[MeasuredNetworks]) -> Shown:
    """What was asked at several widths, a word for each.

    `why`: networks that answer who pays. `repair`: those that answer what FairQAT does.
    """
    asked = [(why, [own for own in OF_WIDTHS if ", int" in own.key]), (repair, remedy_questions.OF_WIDTHS)]
    widths = [8, 6, 5, 4, 3, 2]
    rows = []
    for settings, questions in asked:
        for family in dict.fromkeys(own.key.partition(",")[0] for own in questions):
            of_width = {own.bits: own for own in questions if own.key.partition(",")[0] == family}
            asks = next(iter(of_width.values())).asks.partition(" at int")[0].rstrip("?") + "?"
            for setting in settings:
                answers = [
                    _in_a_word(of_width[bits], setting) if bits in of_width else None for bits in widths
                ]
                rows.append({"asks": asks, "setting": setting.short_title, "answers": answers})
    return filled("by_width", heads=["question", *(f"int{bits}" for bits in widths)], rows=rows)


def _in_a_word(question: Question, measured: MeasuredNetworks) -> dict[str, str]:
    """The answer in a word, or how small the difference is that may be left; beside it its number."""
    answer = _answered(question, measured)
    bound = answer["word"].removeprefix("no difference larger than ")
    word = answer["word"] if bound == answer["word"] else f"under {bound}"
    return answer | {"word": word.removeprefix("the "), "colour": _COLOURS.get(word, "bounded")}


def _asked(questions: Sequence[Question], measured: Sequence[MeasuredNetworks]) -> Shown:
    rows = [
        {"question": question, "answers": [_answered(question, own) for own in measured]}
        for question in questions
    ]
    heads = ["question", *(f"{own.short_title}, {own.made}" for own in measured)]
    return filled("why", heads=heads, rows=rows)


def _answered(question: Question, measured: MeasuredNetworks) -> dict[str, str]:
    reading = question.reading(measured)
    number = f"{in_points(ends_of(reading))} points"
    return {"title": measured.short_title, "word": question.answer(reading), "number": number}


def _by_claim_and_setting(measured: Mapping[str, Measured]) -> dict[str, Any]:
    """Titles and rows of a table with a row for each claim that was asked, and a column for each setting."""
    every = {
        claim: [_Answer(claim, own.by(claim.chapter)) for own in measured.values()]
        for claim in CLAIMS.values()
    }
    rows = [
        {"claim": claim, "answers": answers}
        for claim, answers in every.items()
        if any(answer.asked for answer in answers)
    ]
    return {"heads": ["claim", *(own.title for own in measured.values())], "rows": rows}


def filled(template: str, **given: Any) -> Shown:
    """A template of the book, filled with what it is given."""
    return Shown(_environment().get_template(f"{template}.html").render(given))


@functools.cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "as_sentence": as_sentence,
        "hundredths": hundredths,
        "row_in_words": _row_in_words,
        "seeds": seeds_in_words,
    }
    return made


def _row_in_words(effect: Effect) -> str:
    """The row of its table that a number stands in, or is made of, by what it says in words."""
    return ", ".join(
        f"{name} {value}"
        for name, value in effect.row.items()
        if isinstance(value, str) and name not in COLUMNS
    )
