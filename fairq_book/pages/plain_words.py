"""What was found of the papers' claims, in plain words, and what would decide those that are open."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scipy import stats

from fairq_audit.formats import counted
from fairq_book.kit.claims import Claim, Effect
from fairq_book.kit.measured import Measured
from fairq_book.kit.wording import Prose, as_sentence
from fairq_book.registry import CLAIMS
from fairq_utils.metrics.verdicts import seeds_needed

_PRACTICAL = 200  # more seeds than that nobody will train


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
        "no difference": "**Where nothing differs by as much as matters.**",
        "bounded": "**What may go either way, but not far.**",
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
    effects = claim.effects(measured)
    numbers = "; ".join(f"{effect.says}: {effect.text}" for effect in effects)
    more = f" {what_would_decide(effects, measured)}" if word in ("bounded", "undecided") else ""
    shown = f" {as_sentence(numbers)}." if numbers else ""
    remark = claim.remark(measured)
    beside = f", {remark.short}." if remark else ""
    return f"*{claim.says}* ({claim.key}){beside}{shown}{more}"


def what_would_decide(effects: Sequence[Effect], measured: Measured) -> str:
    """How many networks would tell the first number from none in four of five studies, were it true."""
    if not effects:
        return "Models that survive being rounded would decide it."
    effect = effects[0]
    estimate, lower, upper = effect.beyond
    if effect.form == "rank":
        return "More groups would decide it, and not more seeds."
    if effect.form == "classes" or math.isnan(lower) or measured.networks < 2:
        return "More seeds would decide it."
    if lower > 0 or upper < 0:
        return "The first number is clear; the claim asks for more than that."
    freedom = measured.networks - 1
    spread = (upper - lower) / 2 / stats.t.ppf(0.975, freedom) * math.sqrt(measured.networks)
    # Student's shortest interval of as many as anybody trains; if that holds none, no count need be sought.
    if abs(estimate) <= 2 * spread / math.sqrt(_PRACTICAL):
        return "The first number is so near to none that no practical number of seeds would tell them apart."
    needed = seeds_needed(spread, effect=estimate)
    return f"Were the first number true, {needed} networks would tell it from none in four of five studies."
