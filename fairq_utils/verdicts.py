"""The papers' claims, each with what judges it and the numbers it rests on, over all that the book keeps."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from fairq_utils import claims, tables
from fairq_utils.claims import Payers, Prose, Verdict
from fairq_utils.claims.wording import as_sentence, counted, in_points, whole_percent
from fairq_utils.errors import BadInput
from fairq_utils.evidence import Setting
from fairq_utils.fairqat import FairQAT
from fairq_utils.results import Stored

_PRACTICAL = 200  # more seeds than that nobody will train
_WIDTH = "int4"  # the width at which the papers look most closely, and the one whose numbers are shown
_PAPERS_GROUPS = 5
_NARROW = "int3"  # where something is decided, it often is here; shown where networks are left to speak of


@dataclass(frozen=True)
class Effect:
    """A number that a verdict rests on, its interval, and the row of the table that it stands in."""

    says: str
    form: str  # points, share, times, nats, classes or rank
    table: str
    row: Mapping[Hashable, Any]
    columns: tuple[str, str, str] = ("estimate", "lower", "upper")

    @property
    def numbers(self) -> tuple[float, float, float]:
        """The estimate and the ends of its interval, which are missing where a single seed gives none."""
        estimate, lower, upper = (float(self.row[column]) for column in self.columns)
        return estimate, lower, upper

    @property
    def text(self) -> str:
        """The number and its interval, in its unit."""
        if math.isnan(self.numbers[0]):
            return "none to be had"
        estimate, lower, upper = (_FORMS[self.form](number) for number in self.numbers)
        spread = f" ({lower} to {upper})" if not math.isnan(self.numbers[1]) else ""
        return f"{estimate}{spread}{_UNITS[self.form]}"


def _signed(digits: int, factor: float = 1.0) -> Callable[[float], str]:
    return lambda number: f"{factor * number:+z.{digits}f}".replace("-", "−")


_FORMS: dict[str, Callable[[float], str]] = {
    "points": _signed(1, 100),
    "share": whole_percent,
    "times": lambda number: f"{number:.2f}",
    "nats": _signed(3),
    "classes": lambda number: f"{number:.1f}",
    # An interval by Student may reach beyond what a correlation can be.
    "rank": lambda number: _signed(2)(min(max(number, -1.0), 1.0)),
}
_UNITS = {"points": " points", "share": " %", "times": " times", "nats": " nats", "classes": "", "rank": ""}


@dataclass(frozen=True)
class Remark:
    """What a reader has to know of a verdict before its word: in two or three words, and in a sentence."""

    short: str
    why: str


@dataclass(frozen=True)
class Claim:
    """A sentence of a paper, the tables that it takes, what judges it, and the numbers to show with it.

    `remark` is what has to be known before the verdict of a setting, if there is anything.
    """

    key: str
    says: str
    source: str
    chapter: str
    needs: tuple[str, ...]
    judge: Callable[[Stored], Verdict]
    show: Callable[[Stored], Sequence[Effect]]
    remark: Callable[[Stored], Remark | None] = lambda kept: None

    def asked_of(self, kept: Stored) -> bool:
        """Whether the setting has what the claim is judged by."""
        return all(name in kept.tables for name in self.needs)

    def verdict(self, kept: Stored) -> Verdict:
        """What the tables say of it; of a single network they say nothing."""
        judged = self.judge(kept)
        if kept.networks < 2:
            judged = Verdict(
                judged.claim, "undecided", f"One network decides nothing. What it shows: {judged.because}"
            )
        if remark := self.remark(kept):
            judged = replace(judged, because=f"{as_sentence(remark.short)}: {remark.why} {judged.because}")
        return judged


def _find(kept: Stored, table: str, says: str, form: str, where: Mapping[str, str]) -> Effect:
    """The effect in the one row of a stored table where these columns have these values."""
    return _in_row(kept, table, kept[table], says, form, where)


def _in_row(
    kept: Stored, table: str, made_of_it: pd.DataFrame, says: str, form: str, where: Mapping[str, str]
) -> Effect:
    """The same in a table that is made of the stored one."""
    rows = made_of_it
    for column, value in where.items():
        rows = rows[rows[column] == value]
    if len(rows) != 1:
        asked = ", ".join(f"{column} {value}" for column, value in where.items())
        raise BadInput(f"{table} of {kept.setting.name} has {len(rows)} rows of {asked}; expected one.")
    return Effect(says, form, table, rows.iloc[0].to_dict())


def _closely(kept: Stored, table: pd.DataFrame) -> list[str]:
    """The widths of this table whose numbers are shown."""
    narrow = _NARROW in tables.standing_treatments(kept["collapse"]) and _NARROW in set(table["treatment"])
    return [_WIDTH, _NARROW] if narrow else [_WIDTH]


def _violation(kept: Stored) -> list[Effect]:
    found = []
    for width in ("int8", *_closely(kept, kept["change"])):
        says = f"FVO at {width} against fp32"
        found.append(_find(kept, "change", says, "points", {"treatment": width, "group": "FVO"}))
    return found


def _logits(kept: Stored) -> list[Effect]:
    every = {"treatment": _WIDTH, "group": tables.ALL}
    smallest = kept["loss_beyond_others"]["group"].iloc[0]
    return [
        _find(kept, "variance_left", f"logit variance left at {_WIDTH}", "share", every),
        _find(
            kept,
            "loss_beyond_others",
            f"loss that {smallest} gains beyond the others",
            "nats",
            {"treatment": _WIDTH},
        ),
        _find(kept, "loss_explained", "of what all lose, the fall in variance explains", "share", every),
    ]


def _judge_logits(kept: Stored) -> Verdict:
    collapse = kept["collapse"]
    return claims.together(
        "Quantization lowers logit variance, and that is why loss grows, most for minorities.",
        [
            claims.variance_falls(kept["variance_left"], collapse, seeds=kept.seeds),
            claims.loss_falls_on(
                kept["loss_beyond_others"], kept["answer_changes"], collapse, seeds=kept.seeds
            ),
            claims.temperature_explains(
                kept["loss_explained"], kept["answer_changes"], collapse, seeds=kept.seeds
            ),
        ],
    )


def _rounding_only(kept: Stored) -> pd.DataFrame:
    """The landscape without what chapter 5 adds: with 8 bits in the first and the last layer."""
    table = kept["landscape"]
    return table[~table["treatment"].str.contains("ends8|fairqat")]


def _to_majority(kept: Stored) -> pd.DataFrame:
    return tables.minorities_to_majority(_rounding_only(kept), kept.ends)


def _larger(kept: Stored, measure: str) -> Verdict:
    return claims.larger_for_minorities(
        _to_majority(kept), measure, kept.ends, kept["collapse"], seeds=kept.seeds
    )


def _judge_curvature(kept: Stored) -> Verdict:
    sharper = claims.sharpened_for_minorities(
        _to_majority(kept), kept.ends, kept["collapse"], seeds=kept.seeds
    )
    chain = claims.together(
        "Minority groups have a larger top Hessian eigenvalue, and quantization sharpens it further.",
        [_larger(kept, "eigenvalue"), sharper],
    )
    return replace(chain, because=f"{chain.because} {sharper.because}")


def _gradient(kept: Stored) -> list[Effect]:
    return [
        _show_ratio(kept, "gradient_norm", who, "level", treatment)
        for treatment in (_WIDTH, "fp32")
        for who in (tables.MINORITIES, kept.ends.smallest)
    ]


def _curvature(kept: Stored) -> list[Effect]:
    widths = _closely(kept, kept["landscape"])
    found = [_show_ratio(kept, "eigenvalue", tables.MINORITIES, "rise", width) for width in widths]
    found.append(_show_ratio(kept, "eigenvalue", tables.MINORITIES, "level", _WIDTH))
    for who in (kept.ends.smallest, tables.SMALLEST_TO_OTHERS):
        found.append(_show_ratio(kept, "eigenvalue", who, "rise", widths[-1]))
    return found


def _show_ratio(kept: Stored, measure: str, who: str, of: str, treatment: str) -> Effect:
    ends = kept.ends
    pair = {
        tables.MINORITIES: f"minorities to {ends.largest}",
        ends.smallest: f"{ends.smallest} to {ends.largest}",
        tables.SMALLEST_TO_OTHERS: f"{ends.smallest} to the other minorities",
    }[who]
    where = "in full precision" if treatment == "fp32" else f"at {treatment}"
    says = f"{pair}, {where}" if of == "level" else f"{pair}, what rounding does {where}"
    row = {"treatment": treatment, "measure": measure, "who": who, "of": of}
    return _in_row(kept, "landscape", _to_majority(kept), says, "times", row)


def _zero_bin(kept: Stored) -> list[Effect]:
    return [
        _find(kept, "zero_parts", "emptying the zero bin adds to its loss", "nats", {"part": "harm"}),
        _find(kept, "zero_parts", "beyond as long a change at random", "nats", {"part": "norm"}),
    ]


def _judge_zero_bin(kept: Stored) -> Verdict:
    assert isinstance(kept.setting, Setting)  # nothing else has these tables
    return claims.small_weights_are_needed(
        kept["zero_parts"],
        kept["zero_changes"],
        kept["zero_collapse"],
        f"int{kept.setting.take_apart}",
        seeds=kept.seeds,
    )


def _repair(kept: Stored) -> list[Effect]:
    gap, accuracy = ({"treatment": f"{_WIDTH}-fairqat", "group": name} for name in ("FVO", "OA"))
    return [
        _find(kept, "against_rounding", f"FVO against rounding at {_WIDTH}", "points", gap),
        _find(kept, "against_plain_training", "FVO against plain QAT", "points", gap),
        _find(kept, "against_rounding", "OA against rounding", "points", accuracy),
    ]


def _collapse(kept: Stored) -> list[Effect]:
    found = []
    for width in ("fp32", "int3", "int2"):
        own = _find(kept, "collapse", f"classes in use at {width}", "classes", {"treatment": width})
        found.append(replace(own, columns=("effective_classes", "fewest", "most")))
    return found


def _plain_training(kept: Stored) -> list[Effect]:
    says = f"FVO of plain QAT against rounding at {_WIDTH}"
    row = {"treatment": f"{_WIDTH}-ends8-qat", "group": "FVO"}
    return [_find(kept, "against_rounding", says, "points", row)]


def _plain_rounding_bounds(kept: Stored) -> pd.DataFrame:
    table = kept["bounds"]
    return tables.rank_correlations(table[~table["treatment"].str.contains("ends8")])


def _bound(kept: Stored) -> list[Effect]:
    row = {"treatment": _WIDTH, "forecast": "bound", "outcome": "excess"}
    says = f"rank correlation of bound and excess loss at {_WIDTH}"
    return [_in_row(kept, "bounds", _plain_rounding_bounds(kept), says, "rank", row)]


def _bias(kept: Stored) -> list[Effect]:
    skew = next((name for name in kept["consistency"]["measure"] if str(name).startswith("NDKL")), "")
    wanted = [("bnb-nf4", "accuracy", "FVO"), (_WIDTH, "accuracy", "FVO"), (_WIDTH, skew, "OA")]
    return _of_population(kept, "consistency", wanted)


def _ends_of_groups(kept: Stored) -> list[Effect]:
    rows = kept["consistency"]
    rows = rows[(rows["treatment"] == _WIDTH) & (rows["measure"] == "accuracy") & (rows["family"] == "group")]
    ranked = rows.sort_values("estimate", kind="stable")["group"].tolist()
    ends = dict.fromkeys([*ranked[:1], *ranked[-1:]])
    return _of_population(kept, "consistency", [(_WIDTH, "accuracy", name) for name in ends])


def _gap_beyond(kept: Stored) -> list[Effect]:
    return _of_population(kept, "beyond_classifiers", [(_WIDTH, "accuracy", "FVO")])


def _of_population(kept: Stored, table: str, wanted: Iterable[tuple[str, str, str]]) -> list[Effect]:
    """The effects that there are: where too few models stand, there is none."""
    there = set(zip(*(kept[table][name] for name in ("treatment", "measure", "group")), strict=True))
    effects = []
    for treatment, measure, group in wanted:
        if (treatment, measure, group) in there:
            says = {"OA": measure, "FVO": "FVO"}.get(group, f"{measure} of {group}")
            form = "points" if measure == "accuracy" else "nats"
            where = {"treatment": treatment, "measure": measure, "group": group}
            effects.append(_find(kept, table, f"{says} at {treatment} against fp32", form, where))
    return effects


def _of_encoders(judge: Callable[[pd.DataFrame, pd.DataFrame], Verdict]) -> Callable[[Stored], Verdict]:
    return lambda kept: judge(kept["consistency"], kept["failures"])


def _beyond(kept: Stored) -> Verdict:
    both = pd.concat([kept["failures"], kept["classifier_failures"]], ignore_index=True)
    return claims.differs_in_kind(kept["beyond_classifiers"], both)


def _under_review(why: str) -> Callable[[Stored], Remark]:
    return lambda kept: Remark("under review", why)


def _another_recipe(kept: Stored) -> Remark | None:
    """The published weights are for five groups, of which the smallest gets six times as much as another."""
    count = len(kept.groups)
    if count == _PAPERS_GROUPS:
        return None
    share = FairQAT.paper(4).loss_weights
    assert isinstance(share, float)
    factor = share / ((1 - share) / (count - 1))
    sizes = kept["groups"]["train"]
    of_loss = factor * kept.ends.fewest / (sizes.sum() + (factor - 1) * kept.ends.fewest)
    return Remark(
        "not the paper's recipe",
        f"its weights are for {_PAPERS_GROUPS} groups; with {count}, an image of {kept.ends.smallest} counts "
        f"{factor:g} times as much as any other, so that these are {whole_percent(of_loss)} % of the loss "
        "before anything is sampled.",
    )


_BELLAM, _LIU, _TRAN = "Bellam and Kim 2025", "Liu and others 2025", "Tran and others 2022"
_SLYMAN = "Slyman and others 2024"

_DISPARITY_CLAIMS = (
    Claim(
        "A1",
        "With fewer bits the gap between the best and the worst served group (FVO) grows.",
        _BELLAM,
        "01_disparity_baseline",
        ("change",),
        lambda kept: claims.violation_grows(kept["change"], kept["collapse"], seeds=kept.seeds),
        _violation,
    ),
    Claim(
        "A7",
        "At two and three bits the logits say nothing any more.",
        _BELLAM,
        "01_disparity_baseline",
        ("collapse",),
        lambda kept: claims.answers_collapse(kept["collapse"], seeds=kept.seeds),
        _collapse,
        _under_review(
            "it counts the classes that are answered, while the claim speaks of logits and of gradients."
        ),
    ),
)

_LOGITS_CLAIMS = (
    Claim(
        "A2",
        "Quantization lowers logit variance, and that is why loss grows, most for minorities.",
        _BELLAM,
        "02_logit_variance_collapse",
        ("variance_left", "loss_explained"),
        _judge_logits,
        _logits,
    ),
)

_ZERO_BIN_CLAIMS = (
    Claim(
        "A5",
        "The zero bin empties small weights that minorities need.",
        _BELLAM,
        "03_zero_bin_sparsity",
        ("zero_parts",),
        _judge_zero_bin,
        _zero_bin,
        _under_review(
            "it is asked at four bits alone, where rounding may harm too little for a cause to be seen."
        ),
    ),
)

_LANDSCAPE_CLAIMS = (
    Claim(
        "A3",
        "Minority groups have larger gradient norms.",
        _BELLAM,
        "04_hessian_landscape",
        ("landscape",),
        lambda kept: _larger(kept, "gradient_norm"),
        _gradient,
    ),
    Claim(
        "A4",
        "Minority groups have a larger top Hessian eigenvalue, and quantization sharpens it further.",
        _BELLAM,
        "04_hessian_landscape",
        ("landscape",),
        _judge_curvature,
        _curvature,
    ),
    Claim(
        "Tran",
        "Gradient norm and curvature of a group bound what it loses, and so tell who is hurt.",
        _TRAN,
        "04_hessian_landscape",
        ("bounds",),
        lambda kept: claims.bound_tells_who_is_hurt(
            _plain_rounding_bounds(kept), kept["collapse"], seeds=kept.seeds
        ),
        _bound,
    ),
)

_REPAIR_CLAIMS = (
    Claim(
        "A6",
        "FairQAT narrows the gap against rounding and against plain QAT, at about the same accuracy.",
        _BELLAM,
        "05_fairqat_mitigation",
        ("against_rounding", "against_plain_training"),
        lambda kept: claims.repairs(
            kept["against_rounding"], kept["against_plain_training"], kept["collapse"], seeds=kept.seeds
        ),
        _repair,
        _another_recipe,
    ),
    Claim(
        "Liu",
        "Plain QAT is less fair than rounding to the same few bits.",
        _LIU,
        "05_fairqat_mitigation",
        ("against_rounding",),
        lambda kept: claims.training_is_less_fair(
            kept["against_rounding"], kept["collapse"], seeds=kept.seeds
        ),
        _plain_training,
    ),
)

_ENCODERS_CLAIMS = (
    Claim(
        "D1",
        "Over a population of models, quantization changes bias in no consistent size or direction.",
        _SLYMAN,
        "06_vision_language",
        ("consistency",),
        _of_encoders(claims.no_consistent_change),
        _bias,
        _under_review(
            "so few models can hardly show that a skew stays within its margin: “undecided” was to be "
            "expected."
        ),
    ),
    Claim(
        "D2",
        "Different groups answer the same quantization in opposite ways.",
        _SLYMAN,
        "06_vision_language",
        ("consistency",),
        _of_encoders(claims.groups_oppose),
        _ends_of_groups,
        _under_review("it looks at the mean over models, while the claim is about groups within a model."),
    ),
    Claim(
        "D3",
        "Some changes of bias are significant, and those are small.",
        _SLYMAN,
        "06_vision_language",
        ("consistency",),
        _of_encoders(claims.significant_but_small),
        _bias,
        _under_review(
            "it asks whether a change is significant where so few models can hardly show that one is."
        ),
    ),
    Claim(
        "D4",
        "Quantization changes the gap between groups otherwise in dual encoders than in classifiers.",
        f"{_SLYMAN}, as a supposition",
        "06_vision_language",
        ("beyond_classifiers",),
        _beyond,
        _gap_beyond,
    ),
)

CLAIMS = {
    claim.key: claim
    for claims_of_chapter in (
        _DISPARITY_CLAIMS,
        _LOGITS_CLAIMS,
        _ZERO_BIN_CLAIMS,
        _LANDSCAPE_CLAIMS,
        _REPAIR_CLAIMS,
        _ENCODERS_CLAIMS,
    )
    for claim in claims_of_chapter
}


# ---------------------------------------------------------------- as they are shown


@dataclass(frozen=True)
class Shown:
    """A piece of a page."""

    markup: str

    def _repr_html_(self) -> str:
        return self.markup

    def __repr__(self) -> str:
        return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", self.markup))).strip()


def judge(key: str, kept: Stored) -> Verdict:
    """What a setting says of a claim."""
    return CLAIMS[key].verdict(kept)


def everywhere(key: str, kept: Mapping[str, Stored]) -> Shown:
    """A claim in every setting that was asked it, a line each: verdict and why, and some of its numbers."""
    claim = CLAIMS[key]
    rows = []
    for own in kept.values():
        if claim.asked_of(own):
            verdict = claim.verdict(own)
            why = f"<details><summary>why</summary><p>{html.escape(verdict.because)}</p></details>"
            head = f"{html.escape(own.title)}<br><small>{_seeds(own)}</small>"
            rows.append((head, [_badge(claim, own) + why, _numbers(claim.show(own))]))
    said = "Studies that the book keeps; the moths among them are not those of this page."
    return _table(["kept study", "verdict", "some of what it rests on"], rows, caption=said)


def overview(kept: Mapping[str, Stored]) -> Shown:
    """A word for every claim in every setting, each a link to why."""
    rows = []
    for claim in _asked(kept):
        cells = [
            f"<a href='#claim-{claim.key.lower()}'>{_badge(claim, own)}</a>"
            if claim.asked_of(own)
            else "<small>not asked</small>"
            for own in kept.values()
        ]
        rows.append((f"<strong>{claim.key}</strong> {html.escape(claim.says)}", cells))
    return _table(["claim", *(own.title for own in kept.values())], rows, compact=True)


def page(kept: Mapping[str, Stored], *, up: str = "..") -> Shown:
    """Every claim in every setting, and under each verdict why, and from which row of which table.

    `up`: the way from the page to the top of the book.
    """
    rows = []
    for claim in _asked(kept):
        figure = f"{up}/notebooks/{claim.chapter}.html#on-real-faces"
        head = (
            f"<strong id='claim-{claim.key.lower()}'>{claim.key}</strong> {html.escape(claim.says)}<br>"
            f"<small>{html.escape(claim.source)}. <a href='{figure}'>figures</a></small>"
        )
        rows.append((head, [_cell(claim, own, up) for own in kept.values()]))
    return _table(["claim", *(own.title for own in kept.values())], rows)


def _asked(kept: Mapping[str, Stored]) -> list[Claim]:
    return [claim for claim in CLAIMS.values() if any(claim.asked_of(own) for own in kept.values())]


def _cell(claim: Claim, kept: Stored, up: str) -> str:
    if not claim.asked_of(kept):
        return "<small>not asked</small>"
    verdict, effects = claim.verdict(kept), claim.show(kept)
    sources = "".join(f"<li>{_source(effect, kept, up)}</li>" for effect in effects)
    record = f"{up}/_static/{kept.setting.name}/provenance.json"
    why = (
        f"<details><summary>why, and from where</summary><p>{html.escape(verdict.because)}</p>"
        f"<ul>{sources}</ul><p>Made by {_commands(kept)}<br><a href='{record}'>record</a></p></details>"
    )
    return f"{_badge(claim, kept)} <small>{_seeds(kept)}</small>{_numbers(effects)}{why}"


def _commands(kept: Stored) -> str:
    return "<br>".join(f"<code>{html.escape(line)}</code>" for line in kept.provenance["commands"])


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


def _source(effect: Effect, kept: Stored, up: str) -> str:
    """The table that a number stands in, or is made of, and the row."""
    names = [name for name, value in effect.row.items() if isinstance(value, str)]
    where = ", ".join(f"{name} {effect.row[name]}" for name in names)
    link = f"<a href='{up}/_static/{kept.setting.name}/{effect.table}.csv'>{effect.table}</a>"
    return f"{html.escape(effect.says)}: {link}, {html.escape(where)}"


def _badge(claim: Claim, kept: Stored) -> str:
    word, remark = claim.verdict(kept).word, claim.remark(kept)
    beside = f" <small class='fairq-remark'>{html.escape(remark.short)}</small>" if remark else ""
    return f"<strong class='fairq-word fairq-{word}'>{word}</strong>{beside}"


def _numbers(effects: Iterable[Effect]) -> str:
    return "".join(
        f"<div class='fairq-effect'><span>{html.escape(effect.says)}</span> {effect.text}</div>"
        for effect in effects
    )


def _seeds(kept: Stored) -> str:
    seeds = counted(kept.seeds, "seed")
    return seeds if kept.networks == kept.seeds else f"{kept.networks} models of {seeds}"


# ---------------------------------------------------------------- in plain words


def in_plain_words(kept: Stored) -> Prose:
    """What of the papers stands in a setting, what does not, what is open, and what would decide it."""
    found = {claim: claim.verdict(kept) for claim in CLAIMS.values() if claim.asked_of(kept)}
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
            listed = "\n".join(f"- {_line(claim, kept, word)}" for claim in own)
            said.append(f"{heading}\n\n{listed}")
    return Prose("\n\n".join(said))


def _line(claim: Claim, kept: Stored, word: str) -> str:
    effects = claim.show(kept)
    numbers = "; ".join(f"{effect.says}: {effect.text}" for effect in effects)
    more = f" {what_would_decide(effects, kept)}" if word == "undecided" else ""
    shown = f" {_capital(numbers)}." if numbers else ""
    remark = claim.remark(kept)
    beside = f", {remark.short}." if remark else ""
    return f"*{claim.says}* ({claim.key}){beside}{shown}{more}"


def what_would_decide(effects: Sequence[Effect], kept: Stored) -> str:
    """How many seeds it would take for the first interval to leave out no effect, were the estimate true."""
    if not effects:
        return "Models that survive being rounded would decide it."
    effect = effects[0]
    estimate, lower, upper = effect.numbers
    if effect.form == "classes" or math.isnan(lower) or kept.seeds < 2:
        return "More seeds would decide it."
    if effect.form in ("times", "share"):  # of what is multiplied, none is one
        estimate, lower, upper = (math.log(max(number, 1e-12)) for number in (estimate, lower, upper))
    if lower > 0 or upper < 0:
        return "The first number is clear; the claim asks for more than that."
    distance = abs(estimate)
    reach = estimate - lower if estimate > 0 else upper - estimate  # to the end that lies beyond none
    fewest, most = _seeds_that_tell(reach / distance, kept.seeds) if distance else (math.inf, math.inf)
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


# ---------------------------------------------------------------- choices and provenance

_CHOICES = {
    "mse": "the range with the least squared error",
    "channel": "one scale for each output channel",
    "mse-channel": "both of these",
    "full": "all codes, −2 to 1 at two bits",
    "ends8": "8 bits in the first and the last layer",
    "bn": "batch norm statistics taken again",
}


def choices(kept: Stored) -> Shown:
    """What another choice does to OA and FVO at the same width, for each that was tried."""
    rows = []
    for (other, plain), own in kept["choices"].groupby(["treatment", "reference"], sort=False):
        by_group = own.set_index("group").to_dict("index")
        word = str(other).removeprefix(f"{plain}-")
        cells = [
            f"{Effect('', 'points', 'choices', by_group[name]).text} "
            f"<small>from {100 * by_group[name]['before']:.1f}</small>"
            for name in ("OA", "FVO")
        ]
        rows.append((f"{html.escape(str(plain))}: {html.escape(_CHOICES[word])}", cells))
    return _table(["instead of the plain grid", "OA", "FVO"], rows)


def sizes(kept: Sequence[Stored]) -> Shown:
    """OA and FVO in full precision, and what each width does to FVO, setting by setting."""
    rows = [("seeds", [str(own.seeds) for own in kept])]
    rows += [(f"{name}, fp32", [_level(own, "fp32", name) for own in kept]) for name in ("OA", "FVO")]
    for width in dict.fromkeys(kept[0]["change"]["treatment"]):
        where = {"treatment": width, "group": "FVO"}
        changes = [_find(own, "change", "", "points", where).text for own in kept]
        rows.append((f"{width}, change of FVO", changes))
    return _table(["measure", *(own.title for own in kept)], rows)


def _level(kept: Stored, treatment: str, group: str) -> str:
    rows = kept["accuracy"]
    row = rows[(rows["treatment"] == treatment) & (rows["group"] == group)].iloc[0]
    estimate, lower, upper = (f"{100 * row[name]:.1f}" for name in ("estimate", "lower", "upper"))
    return f"{estimate} ({lower} to {upper}) {'%' if group == 'OA' else 'points'}"


def provenance(kept: Mapping[str, Stored], *, up: str = "..") -> Shown:
    """Of each setting: seeds, code, machine, date, and the commands that make its tables."""
    rows = []
    for name, own in kept.items():
        record = own.provenance
        cells = [
            str(own.seeds),
            f"<code>{html.escape(str(record['git_revision'])[:10])}</code>",
            html.escape(f"{record['hardware']}; torch {record['versions']['torch']}"),
            html.escape(record["date"]),
            _commands(own),
        ]
        link = f"<a href='{up}/_static/{name}/provenance.json'>{html.escape(own.title)}</a>"
        rows.append((link, cells))
    return _table(["record", "seeds", "code", "machine", "date", "made by"], rows)


# ---------------------------------------------------------------- the first page


def in_three_sentences(kept: Stored) -> Prose:
    """Who pays, how much of the papers' story stands, and what to do about it: for who has ten seconds."""
    return Prose("\n".join(f"- {said}" for said in (_who_pays(kept), _what_stands(kept), _what_helps(kept))))


@dataclass(frozen=True)
class Headline:
    """The book in a few words, what backs them, and the group that they name, if they name one."""

    words: str
    backing: str
    payer: str | None = None


def in_three_words(kept: Stored) -> Headline:
    """Who pays, for who has one second: what a picture of the book says.

    It asks three things of a table (each group, all images, the contrast) and says the first that is sure. So
    each has a third of the chance of error, while the numbers stand with their intervals as elsewhere.
    """
    narrowest, _, shown = _at_the_narrowest(kept)
    strict = tables.change_by_network(kept["accuracy_by_seed"], kept.majority, level=1 - 0.05 / 3)
    own = shown and Payers.of(strict, narrowest, kept.majority)
    if own is None or shown is None:
        return Headline("Nobody can tell.", f"On {kept.title} the networks do not survive being rounded.")
    where = f"Of the groups that {kept.title} names, rounded to {narrowest}"
    accuracy = f"{in_points(shown.rows['OA'])} points of accuracy over all images, in {_seeds(kept)}"
    # In quotes: whoever sees this has not read what such names leave out.
    named = [f"“{name}”" for name in own.lost]
    if own.minorities_pay:
        everyone = own.all_fell(own.groups)
        words = "Every group pays." if everyone else f"All but “{own.majority}” pay."
        who = "each" if everyone else f"each but {own.majority}"
        backing = f"{where}: {who} loses accuracy in each of {own.networks} networks"
        beside = f", against {own.majority} {in_points(shown.contrast)} points" if shown.contrast else ""
        return Headline(words, f"{backing}{beside}.")
    if len(named) == 1:
        lost = in_points(shown.rows[own.lost[0]])
        return Headline(
            f"{named[0]} surely pays.", f"{where}: {lost} points, against {accuracy}.", own.lost[0]
        )
    if named:
        return Headline(
            f"{' and '.join(named)} surely pay."
            if len(named) == 2
            else f"{len(named)} of {len(own.groups)} groups surely pay.",
            f"{where}: {', '.join(own.lost)} surely lose; {accuracy}.",
        )
    if shown.contrast and own.contrast and (own.contrast["upper"] < 0 or own.contrast["lower"] > 0):
        fewer = own.contrast["upper"] < 0
        return Headline(
            "The smaller groups fare worse." if fewer else "The largest group fares worse.",
            f"{where}: the others against {own.majority}, {in_points(shown.contrast)} points.",
        )
    if own.rows["OA"]["upper"] < 0:
        return Headline("Somebody pays.", f"{where}: {accuracy}, too few to tell whose.")
    if own.networks < 2 or not shown.tells:
        return Headline("Nobody can tell.", f"{where}: {accuracy}, too few to tell who pays.")
    most = f"{100 * shown.bound:.1f}"
    return Headline(f"Nobody loses over {most} points.", f"{where}: {accuracy}.")


def _at_the_narrowest(kept: Stored) -> tuple[str, pd.DataFrame, Payers | None]:
    """The narrowest plain width at which the networks stand, all changes by network, and who pays there."""
    by_network = tables.change_by_network(kept["accuracy_by_seed"], kept.majority)
    standing = tables.standing_treatments(kept["collapse"])
    order = [name for name in dict.fromkeys(kept["change"]["treatment"]) if name in standing]
    if not order:
        return "", by_network, None
    return order[-1], by_network, Payers.of(by_network, order[-1], kept.majority)


def _who_pays(kept: Stored) -> str:
    narrowest, by_network, own = _at_the_narrowest(kept)
    if own is None:
        return f"On {kept.title} the networks do not survive being rounded: who pays cannot be told."
    gap = _find(kept, "change", "", "points", {"treatment": narrowest, "group": "FVO"})
    _, lower, upper = gap.numbers
    moves = "grows" if lower > 0 else "shrinks" if upper < 0 else "does not surely change"
    fallen = "; narrower, they collapse" if kept["change"]["treatment"].iloc[-1] != narrowest else ""
    elsewhere = claims.contrast_elsewhere(by_network, kept["collapse"], narrowest)
    return (
        f"**Who pays.** Rounded to {narrowest}, the narrowest width at which networks trained on "
        f"{kept.title} still stand, {own.text}. {elsewhere} The gap between the best and the worst group "
        f"{moves}, {gap.text}{fallen}."
    )


def _what_stands(kept: Stored) -> str:
    asked = [claim for claim in CLAIMS.values() if claim.asked_of(kept)]
    words = [claim.verdict(kept).word for claim in asked if claim.remark(kept) is None]
    numbers = [
        f"{words.count(word)} {said}"
        for word, said in (
            ("supported", "supported"),
            ("mixed", "mixed"),
            ("contradicted", "contradicted"),
            ("undecided", "undecided"),
        )
        if word in words
    ]
    if aside := len(asked) - len(words):
        numbers.append(f"{aside} set aside")
    return (
        f"**Why.** Of {len(asked)} claims of the papers, held against {_seeds(kept)}: {', '.join(numbers)}. "
        "[Each with its numbers](claims.md)."
    )


def _what_helps(kept: Stored) -> str:
    if "what_to_do" not in kept.tables:
        return "**What helps.** Nothing was tried here."
    choice, (narrowest, _, _) = kept["what_to_do"], _at_the_narrowest(kept)
    there = choice[choice["width"] == narrowest]
    row = (there if len(there) else choice).iloc[0].to_dict()
    changes = [
        Effect(
            "",
            "points",
            "what_to_do",
            row,
            (f"{name}_change", f"{name}_change_lower", f"{name}_change_upper"),
        )
        for name in ("OA", "FVO")
    ]
    return (
        f"**What helps.** At {row['width']} the held-out images choose `{row['chosen']}` of the ways to "
        f"train further that were tried. Against rounding with 8 bits in the first and the last layer it "
        f"moves accuracy by {changes[0].text} and the gap by {changes[1].text}."
    )
