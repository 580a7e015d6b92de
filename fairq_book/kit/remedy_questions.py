"""Questions on what repairs, asked before the networks that answer were trained: a number of each network."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from fairq_book.kit.interventions import Floats, Networks, Question
from fairq_book.kit.remedies import WIDTHS, arm, gap, worst

CHAPTER = "05"


def gap_change(networks: Networks, after: str, before: str) -> Floats:
    """How much larger FVO is after than before, in each network."""
    return gap(networks, after) - gap(networks, before)


def _fvo(bits: int, after: str, before: str, networks: Networks) -> Floats:
    return gap_change(networks, arm(bits, after), arm(bits, before))


def _oa(bits: int, after: str, before: str, networks: Networks) -> Floats:
    return networks.overall(arm(bits, after)) - networks.overall(arm(bits, before))


def _beyond_full(bits: int, words: str, networks: Networks) -> Floats:
    """What a remedy changes of FVO at a width, less what it changes in full precision."""
    return gap_change(networks, arm(bits, words), arm(bits)) - gap_change(networks, f"fp32-{words}", "fp32")


def _interaction(bits: int, networks: Networks) -> Floats:
    of = {words: gap(networks, arm(bits, words)) for words in (_QAT, _WEIGHTED, _SAMPLED, "fairqat")}
    return of["fairqat"] - of[_WEIGHTED] - of[_SAMPLED] + of[_QAT]


def _more_than_at_8(bits: int, networks: Networks) -> Floats:
    return _fvo(bits, "fairqat", "ends8", networks) - _fvo(8, "fairqat", "ends8", networks)


def _for_the_worst(bits: int, networks: Networks) -> Floats:
    return worst(networks, arm(bits, "groupbits")) - worst(networks, arm(bits, "meanbits"))


def _pruned(bits: int, networks: Networks) -> Floats:
    return networks.contrast(arm(bits, "qat", "pruned"), arm(bits, _QAT))


_QAT, _WEIGHTED, _SAMPLED = "ends8-qat", "ends8-qat-weighted", "ends8-qat-sampled"
_BEFORE = "ends8-tuned"


def _question(
    key: str, asks: str, number: Callable[[Networks], Floats], said: str, bits: int, yes: str
) -> Question:
    return Question(key, asks, number, said, bits, yes, CHAPTER)


QUESTIONS = (
    _question(
        "R1",
        "Do loss weights narrow the gap without training while rounded?",
        partial(_fvo, 4, f"{_BEFORE}-weighted", _BEFORE),
        "FVO at int4, trained before with loss weights against without",
        4,
        "falls",
    ),
    _question(
        "R2",
        "Does training while rounded narrow it further?",
        partial(_fvo, 4, _WEIGHTED, f"{_BEFORE}-weighted"),
        "FVO at int4, loss weights in QAT against before",
        4,
        "falls",
    ),
    _question(
        "R3",
        "Do loss weights narrow the gap by themselves, in QAT?",
        partial(_fvo, 4, _WEIGHTED, _QAT),
        "FVO at int4, QAT with loss weights against plain",
        4,
        "falls",
    ),
    _question(
        "R4",
        "Does sampling?",
        partial(_fvo, 4, _SAMPLED, _QAT),
        "FVO at int4, QAT sampled against plain",
        4,
        "falls",
    ),
    _question(
        "R5",
        "Do both together bring less than they add up to?",
        partial(_interaction, 4),
        "FVO at int4, interaction of weights and sampling in QAT",
        4,
        "rises",
    ),
    _question(
        "R6",
        "Does FairQAT narrow a gap that rounding did not make?",
        partial(_fvo, 8, "fairqat", "ends8"),
        "FVO at int8, FairQAT against rounding",
        8,
        "falls",
    ),
    _question(
        "R7",
        "Does it narrow the gap more at int4 than at int8?",
        partial(_more_than_at_8, 4),
        "FVO, FairQAT against rounding, at int4 less at int8",
        4,
        "falls",
    ),
    _question(
        "R8",
        "Do new batch norm statistics, and nothing else, bring accuracy back?",
        partial(_oa, 3, "bn", ""),
        "OA at int3, new statistics against old ones",
        3,
        "rises",
    ),
    _question(
        "R9",
        "Do class offsets from labels that count alike narrow the gap?",
        partial(_fvo, 4, "evenlabels", ""),
        "FVO at int4, such offsets against none",
        4,
        "falls",
    ),
    _question(
        "R10",
        "Is that more than they do in full precision?",
        partial(_beyond_full, 4, "evenlabels"),
        "FVO, the same at int4 less in full precision",
        4,
        "falls",
    ),
    _question(
        "R11",
        "Is FairQAT better than these offsets, which train nothing?",
        partial(_fvo, 4, "fairqat", "evenlabels"),
        "FVO at int4, FairQAT against such offsets",
        4,
        "falls",
    ),
    _question(
        "R12",
        "Does the worst group gain when bits go to layers for its sake?",
        partial(_for_the_worst, 3),
        "worst group at int3, bits for the worst group against bits for the mean",
        3,
        "rises",
    ),
    _question(
        "R13",
        "Does group-DRO narrow the gap?",
        partial(_fvo, 4, f"{_QAT}-dro", _QAT),
        "FVO at int4, QAT with group-DRO against plain",
        4,
        "falls",
    ),
    _question(
        "R14",
        "Does logit adjustment?",
        partial(_fvo, 4, f"{_QAT}-adjusted", _QAT),
        "FVO at int4, QAT with logit adjustment against plain",
        4,
        "falls",
    ),
    _question(
        "R15",
        "Does showing every group as often as the largest?",
        partial(_fvo, 4, f"{_QAT}-oversampled", _QAT),
        "FVO at int4, QAT oversampled against plain",
        4,
        "falls",
    ),
    _question(
        "R16",
        "Is sampling both ways anything else than showing all as often as the largest?",
        partial(_fvo, 4, _SAMPLED, f"{_QAT}-oversampled"),
        "FVO at int4, sampled both ways against oversampled",
        4,
        "rises",
    ),
    _question(
        "R17",
        "Does a third of the loss leave a larger gap than FairQAT's six tenths?",
        partial(_fvo, 4, f"{_QAT}-share32-sampled", "fairqat"),
        "FVO at int4, sampled with a third of the loss against FairQAT",
        4,
        "rises",
    ),
    _question(
        "R18",
        "Do minorities pay more when weights are pruned than when they are rounded?",
        partial(_pruned, 4),
        "contrast, pruned to the bytes of int4 and trained, against QAT",
        4,
        "falls",
    ),
    _question(
        "R19",
        "And at the bytes of two bits?",
        partial(_pruned, 2),
        "contrast, pruned to the bytes of int2 and trained, against QAT",
        2,
        "falls",
    ),
    _question(
        "R20",
        "Do they pay more in a narrower network?",
        lambda own: own.contrast("narrow4", arm(4, _QAT)),
        "contrast, as many bytes in fewer channels against QAT",
        4,
        "falls",
    ),
)


def _by_width() -> tuple[Question, ...]:
    """The published remedy at each width, against rounding and against plain QAT, and its price."""
    asked = []
    for bits in WIDTHS:
        for key, asks, of, before, yes in (
            ("A6a", "Does FairQAT narrow the gap against rounding?", _fvo, "ends8", "falls"),
            ("A6b", "Against plain QAT?", _fvo, _QAT, "falls"),
            ("A6c", "Does it cost accuracy, against plain QAT?", _oa, _QAT, "falls"),
            ("A6d", "Is plain QAT less fair than rounding?", _fvo, "", "rises"),
        ):
            after = _QAT if key == "A6d" else "fairqat"
            named = "OA" if of is _oa else "FVO"
            asked.append(
                _question(
                    f"{key}, int{bits}",
                    asks,
                    partial(of, bits, after, before or "ends8"),
                    f"{named} at int{bits}",
                    bits,
                    yes,
                )
            )
    return tuple(asked)


OF_WIDTHS = _by_width()
