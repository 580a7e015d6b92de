"""The pages that hold the papers' claims against what was measured."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from fairq_book.kit.claims import Claim, Effect
from fairq_book.kit.measured import Measured
from fairq_book.kit.treatments import COLUMNS
from fairq_book.kit.wording import Prose, Verdict, as_sentence, counted
from fairq_book.registry import CLAIMS

_PRACTICAL = 200  # more seeds than that nobody will train


@dataclass(frozen=True)
class Shown:
    """A piece of a page."""

    markup: str

    def _repr_html_(self) -> str:
        return self.markup

    def __repr__(self) -> str:
        return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", self.markup))).strip()


def judge(key: str, measured: Measured) -> Verdict:
    """What a setting says of a claim."""
    return CLAIMS[key].verdict(measured)


def everywhere(key: str, measured: Mapping[str, Measured]) -> Shown:
    """A claim in every setting that was asked it, a line each: verdict and why, and some of its numbers."""
    claim = CLAIMS[key]
    rows = []
    for own in measured.values():
        if claim.asked_of(own):
            verdict = claim.verdict(own)
            why = f"<details><summary>why</summary><p>{html.escape(verdict.because)}</p></details>"
            head = f"{html.escape(own.title)}<br><small>{seeds_in_words(own)}</small>"
            rows.append((head, [_badge(claim, own) + why, _numbers(claim.show(own))]))
    said = "Measured earlier, with networks of full width; the moths among them are not those of this page."
    return _table(["setting", "verdict", "some of what it rests on"], rows, caption=said)


def overview(measured: Mapping[str, Measured]) -> Shown:
    """A word for every claim in every setting, each a link to why."""
    rows = []
    for claim in _asked(measured):
        cells = [
            f"<a href='#claim-{claim.key.lower()}'>{_badge(claim, own)}</a>"
            if claim.asked_of(own)
            else "<small>not asked</small>"
            for own in measured.values()
        ]
        rows.append((f"<strong>{claim.key}</strong> {html.escape(claim.says)}", cells))
    return _table(["claim", *(own.title for own in measured.values())], rows, compact=True)


def page(measured: Mapping[str, Measured], *, up: str = "..") -> Shown:
    """Every claim in every setting, and under each verdict why, and from which row of which table.

    `up`: the way from the page to the top of the book.
    """
    rows = []
    for claim in _asked(measured):
        figure = f"{up}/notebooks/{claim.chapter}.html#on-real-faces"
        head = (
            f"<strong id='claim-{claim.key.lower()}'>{claim.key}</strong> {html.escape(claim.says)}<br>"
            f"<small>{html.escape(claim.source)}. <a href='{figure}'>figures</a></small>"
        )
        rows.append((head, [_cell(claim, own, up) for own in measured.values()]))
    return _table(["claim", *(own.title for own in measured.values())], rows)


def _asked(measured: Mapping[str, Measured]) -> list[Claim]:
    return [claim for claim in CLAIMS.values() if any(claim.asked_of(own) for own in measured.values())]


def _cell(claim: Claim, measured: Measured, up: str) -> str:
    if not claim.asked_of(measured):
        return "<small>not asked</small>"
    verdict, effects = claim.verdict(measured), claim.show(measured)
    sources = "".join(f"<li>{_source(effect, measured, up)}</li>" for effect in effects)
    record = f"{up}/_static/{measured.name}/provenance.json"
    why = (
        f"<details><summary>why, and from where</summary><p>{html.escape(verdict.because)}</p>"
        f"<ul>{sources}</ul><p>{html.escape(as_sentence(measured.note))}. "
        f"<a href='{record}'>record</a></p></details>"
    )
    return f"{_badge(claim, measured)} <small>{seeds_in_words(measured)}</small>{_numbers(effects)}{why}"


def _table(
    heads: Sequence[str],
    rows: Iterable[tuple[str, Sequence[str]]],
    *,
    caption: str = "",
    compact: bool = False,
) -> Shown:
    """A table that is a table also where a narrow screen shows its rows as cards: hence the roles."""
    top = "".join(f"<th scope='col' role='columnheader'>{html.escape(head)}</th>" for head in heads)
    body = ""
    above = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    for head, cells in rows:
        listed = "".join(
            f"<td role='cell' data-title='{html.escape(title, quote=True)}'>{cell}</td>"
            for title, cell in zip(heads[1:], cells, strict=True)
        )
        body += f"<tr role='row'><th scope='row' role='rowheader'>{head}</th>{listed}</tr>"
    return Shown(
        f"<table class='fairq-verdicts{' fairq-compact' * compact}' role='table'>{above}"
        f"<thead role='rowgroup'><tr role='row'>{top}</tr></thead>"
        f"<tbody role='rowgroup'>{body}</tbody></table>"
    )


def _source(effect: Effect, measured: Measured, up: str) -> str:
    """The table that a number stands in, or is made of, and the row."""
    named = [name for name, value in effect.row.items() if isinstance(value, str) and name not in COLUMNS]
    where = ", ".join(f"{name} {effect.row[name]}" for name in named)
    link = f"<a href='{up}/_static/{measured.name}/{effect.table}.csv'>{effect.table}</a>"
    return f"{html.escape(effect.says)}: {link}, {html.escape(where)}"


def _badge(claim: Claim, measured: Measured) -> str:
    word, remark = claim.verdict(measured).word, claim.remark(measured)
    beside = f" <small class='fairq-remark'>{html.escape(remark.short)}</small>" if remark else ""
    return f"<strong class='fairq-word fairq-{word}'>{word}</strong>{beside}"


def _numbers(effects: Iterable[Effect]) -> str:
    return "".join(
        f"<div class='fairq-effect'><span>{html.escape(effect.says)}</span> {effect.text}</div>"
        for effect in effects
    )


def seeds_in_words(measured: Measured) -> str:
    """How many seeds, and models where these are more."""
    seeds = counted(measured.seeds, "seed")
    return seeds if measured.networks == measured.seeds else f"{measured.networks} models of {seeds}"


def in_plain_words(measured: Measured) -> Prose:
    """What of the papers stands in a setting, what does not, what is open, and what would decide it."""
    found = {claim: claim.verdict(measured) for claim in CLAIMS.values() if claim.asked_of(measured)}
    headings = {
        "supported": "**What stands.**",
        "contradicted": "**What does not.**",
        "mixed": "**What holds in part.**",
        "undecided": "**What we could not decide.**",
    }
    said = []
    for word, heading in headings.items():
        own = [claim for claim, verdict in found.items() if verdict.word == word]
        if own:
            listed = "\n".join(f"- {_line(claim, measured, word)}" for claim in own)
            said.append(f"{heading}\n\n{listed}")
    return Prose("\n\n".join(said))


def _line(claim: Claim, measured: Measured, word: str) -> str:
    effects = claim.show(measured)
    numbers = "; ".join(f"{effect.says}: {effect.text}" for effect in effects)
    more = f" {what_would_decide(effects, measured)}" if word == "undecided" else ""
    shown = f" {_capital(numbers)}." if numbers else ""
    remark = claim.remark(measured)
    beside = f", {remark.short}." if remark else ""
    return f"*{claim.says}* ({claim.key}){beside}{shown}{more}"


def what_would_decide(effects: Sequence[Effect], measured: Measured) -> str:
    """How many seeds it would take for the first interval to leave out no effect, were the estimate true."""
    if not effects:
        return "Models that survive being rounded would decide it."
    effect = effects[0]
    estimate, lower, upper = effect.numbers
    if effect.form == "classes" or math.isnan(lower) or measured.seeds < 2:
        return "More seeds would decide it."
    if effect.form in ("times", "share"):  # of what is multiplied, none is one
        estimate, lower, upper = (math.log(max(number, 1e-12)) for number in (estimate, lower, upper))
    if lower > 0 or upper < 0:
        return "The first number is clear; the claim asks for more than that."
    distance = abs(estimate)
    reach = estimate - lower if estimate > 0 else upper - estimate  # to the end that lies beyond none
    fewest, most = _seeds_that_tell(reach / distance, measured.seeds) if distance else (math.inf, math.inf)
    if fewest > _PRACTICAL:
        return "The first number is so near to none that no practical number of seeds would tell them apart."
    return (
        f"Were the first number true, {fewest} seeds might tell it from none and {most} would, with more "
        "test images besides if these are what limits it."
    )


def _seeds_that_tell(reach: float, seeds: int) -> tuple[float, float]:
    """How many seeds shorten an interval that reaches so many times too far, at best and at worst.

    It shrinks with the root of their number. Of few seeds it is also long because their spread is hardly
    known; how much of it that is, depends on how much is due to the seeds and how much to the images.
    """
    most = math.ceil(seeds * min(reach, 1e6) ** 2 - 1e-9)  # nine is not ten for how floats are cut
    numbers = np.arange(seeds, min(most, _PRACTICAL) + 1)
    shrinks = np.sqrt(seeds / numbers) * stats.t.ppf(0.975, numbers - 1) / stats.t.ppf(0.975, seeds - 1)
    told = numbers[reach * shrinks <= 1 + 1e-9]
    return int(told[0]) if len(told) else most, most


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


# Columns of a treatment, and what it means that they have these values.
_CHOICES = {
    ("grid", "int-mse"): "the range with the least squared error",
    ("grid", "int-channel"): "one scale for each output channel",
    ("grid", "int-mse-channel"): "both of these",
    ("grid", "int-full"): "all codes, −2 to 1 at two bits",
    ("ends8", True): "8 bits in the first and the last layer",
    ("batchnorm", True): "batch norm statistics taken again",
}


def choices(measured: Measured) -> Shown:
    """What another choice does to OA and FVO at the same width, for each that was tried."""
    rows = []
    for (_, plain), own in measured["choices"].groupby(["treatment", "reference"], sort=False):
        by_group = own.set_index("group").to_dict("index")
        choice = own.iloc[0]
        said = next(words for (column, value), words in _CHOICES.items() if choice[column] == value)
        cells = [
            f"{Effect('', 'points', 'choices', by_group[name]).text} "
            f"<small>from {100 * by_group[name]['before']:.1f}</small>"
            for name in ("OA", "FVO")
        ]
        rows.append((f"{html.escape(str(plain))}: {html.escape(said)}", cells))
    return _table(["instead of the plain grid", "OA", "FVO"], rows)


def provenance(measured: Mapping[str, Measured], *, up: str = "..") -> Shown:
    """Of each setting: seeds, code, machine and date."""
    rows = []
    for name, own in measured.items():
        made = {what: html.escape(said) for what, said in own.made.items()}
        cells = [str(own.seeds), f"<code>{made['code']}</code>", made["machine"], made["date"]]
        link = f"<a href='{up}/_static/{name}/provenance.json'>{html.escape(own.title)}</a>"
        rows.append((link, cells))
    return _table(["record", "seeds", "code", "machine", "date"], rows)
