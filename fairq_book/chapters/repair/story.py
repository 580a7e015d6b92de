"""Chapter 5: what repairs."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import pandas as pd

from fairq_audit.formats import counted
from fairq_book.chapters.repair.tables import swept
from fairq_book.kit.claims import BELLAM, LIU, WIDTH, Claim, Effect, Remark, effect_in
from fairq_book.kit.measured import Measured
from fairq_book.kit.tables import standing_treatments
from fairq_book.kit.treatments import FAIRQAT, PLAIN_QAT, where
from fairq_book.kit.wording import (
    Prose,
    Verdict,
    Word,
    as_sentence,
    in_points,
    moves,
    nowhere,
    set_apart,
    unsure,
    whole_percent,
    whole_points,
    word_and_reading,
    word_of,
)
from fairq_utils.training.fairqat import FairQAT

_METHODS = {"dro": "Group-DRO", "adjusted": "Logit adjustment"}


def repairs(
    changes_vs_ptq: pd.DataFrame,
    changes_vs_qat: pd.DataFrame,
    collapse: pd.DataFrame,
    *,
    seeds: int,
    margin: float = 0.01,
) -> Verdict:
    """Does FairQAT lower FVO against rounding and against plain QAT, and keep OA?

    The tables are of `tables.against_rounding` and `tables.against_plain_training`; of both only the rows of
    FairQAT count. Supported when FVO surely falls against both at some
    width where OA does not surely lose more than `margin`, and surely rises nowhere. Mixed when something
    surely falls and something else speaks against it, contradicted when only the latter is so.
    """
    claim = "FairQAT lowers FVO against rounding and against plain QAT, at about the same OA."
    falls: dict[str, list[str]] = {}
    rises: dict[str, list[str]] = {}
    dear: list[str] = []
    facts, said, fallen, gaps = [], [], [], []
    for other, table in (("rounding", changes_vs_ptq), ("plain QAT", changes_vs_qat)):
        own = table[where(table, FAIRQAT) & table["group"].isin(["OA", "FVO"])]
        judged, collapsed = _both_stand(own, collapse)
        fallen += [name for name in collapsed if name not in fallen]
        gap, accuracy = (judged[judged["group"] == name] for name in ("FVO", "OA"))
        falls[other], rises[other] = _surely(gap)
        gaps.append(gap)
        lost = list(accuracy.loc[accuracy["upper"] < -margin, "width"])
        dear += lost
        cost = f" while OA surely loses more than {whole_points(margin)} at {', '.join(lost)}" if lost else ""
        moves = _where(falls[other], rises[other]) if len(judged) else "cannot be judged"
        facts.append(f"against {other} FVO {moves}{cost}")
        numbers = "; ".join(
            f"{row['width']} {row['group']} {in_points(row)}" for row in judged.to_dict("records")
        )
        said += [f"Against {other}: {numbers}."] if numbers else []
    apart = set_apart(fallen)
    if not said:
        return nowhere(claim, apart)
    anything_falls, anything_rises = (any(where.values()) for where in (falls, rises))
    whole = set.intersection(*map(set, falls.values())) - set(dear)
    against = anything_rises or bool(dear)
    word: Word = (
        "supported"
        if whole and not anything_rises
        else "mixed"
        if anything_falls and against
        else "contradicted"
        if against
        else unsure(pd.concat(gaps))[0]
    )
    bound = f" {unsure(pd.concat(gaps))[1]}." if not (anything_falls or against) else ""
    holding = [other for other in falls if falls[other] and not rises[other]]
    half = f" Only the half against {holding[0]} holds." if len(holding) == 1 else ""
    return Verdict(
        claim,
        word,
        f"{as_sentence('; '.join(facts))}.{bound}{half} Changes in points, paired over "
        f"{counted(seeds, 'seed')}, intervals that hold together over the widths with 95 %. "
        f"{' '.join(said)}{_of_images_only(seeds)}{apart}",
    )


def which_part_repairs(effects: pd.DataFrame, collapse: pd.DataFrame, *, seeds: int) -> Verdict:
    """Is it the weights that lower FVO, or the training while rounded? `effects` of `tables.effects`.

    Supported when the weights surely lower FVO somewhere and raise it nowhere, and training while rounded
    surely lowers it nowhere. A width is set apart when one of its eight arms has collapsed.
    """
    claim = "It is the weights, not the training while rounded, that narrow the gap (FVO)."
    standing = standing_treatments(collapse)
    own = effects[effects["group"] == "FVO"]
    fallen = {
        width: [arm for arm in _eight_arms(width) if arm not in standing] for width in own["width"].unique()
    }
    judged = own[~own["width"].isin(width for width, arms in fallen.items() if arms)]
    apart = set_apart([arm for arms in fallen.values() for arm in arms])
    if judged.empty:
        return nowhere(claim, apart)
    by_effect = dict(list(judged.groupby("effect")))
    weights, training = by_effect["weights"], by_effect["training"]
    holds = bool((weights["upper"] < 0).any())
    against = bool((weights["lower"] > 0).any() or (training["upper"] < 0).any())
    reading = "; ".join(f"{said} FVO {_where(*_surely(by_effect[name]))}" for name, said in _PARTS.items())
    word = word_of(speaks_for=holds, speaks_against=against)
    if word == "undecided":
        word, bound = unsure(pd.concat([weights, training]))
        reading = f"{reading}. {bound}"
    numbers = "; ".join(
        f"{row['width']}, {row['effect']} {in_points(row)}"
        for row in judged[judged["effect"].isin(_PARTS)].to_dict("records")
    )
    together = judged[~judged["effect"].isin(_PARTS) & ((judged["upper"] < 0) | (judged["lower"] > 0))]
    depends = "; ".join(
        f"{row['width']}, {row['effect']} {in_points(row)}, "
        + (
            f"so that together they leave a {'smaller' if row['upper'] < 0 else 'larger'} gap than they add "
            "up to"
            if row["effect"].count("×") == 1
            else "so that what two do depends on the third"
        )
        for row in together.to_dict("records")
    )
    add_up = f" They do not just add up: {depends}." if depends else " No interaction surely differs from 0."
    return Verdict(
        claim,
        word,
        f"{as_sentence(reading)}. What each part does to FVO, in points, on average over the other two, over "
        f"{counted(seeds, 'seed')}, intervals that hold together over the widths with 95 %: {numbers}."
        f"{add_up}{_of_images_only(seeds)}{apart}",
    )


def training_is_less_fair(changes: pd.DataFrame, collapse: pd.DataFrame, *, seeds: int) -> Verdict:
    """Is plain QAT less fair than rounding to the same bits? `changes` of `tables.against_rounding`."""
    claim = "Plain QAT leaves a larger gap (FVO) than rounding to the same width."
    own = changes[where(changes, PLAIN_QAT)]
    judged, fallen = _both_stand(own[own["group"] == "FVO"], collapse)
    accuracy = "; ".join(
        f"{row['width']} {moves(row)}, {in_points(row)}"
        for row in own[own["group"] == "OA"].to_dict("records")
    )
    apart = set_apart(fallen) + (f" OA, in points: {accuracy}." if accuracy else "")
    if judged.empty:
        return nowhere(claim, apart)
    readings: dict[Word, str] = {
        "supported": "Somewhere its FVO is surely larger, and nowhere surely smaller",
        "contradicted": "Somewhere its FVO is surely smaller, and nowhere surely larger",
        "mixed": "Its FVO is surely larger at one width and surely smaller at another",
    }
    word, reading = word_and_reading(judged, readings)
    said = "; ".join(f"{row['width']} {in_points(row)}" for row in judged.to_dict("records"))
    return Verdict(
        claim,
        word,
        f"{reading}. Change of FVO in points against rounding, paired over {counted(seeds, 'seed')}, "
        f"intervals that hold together over the widths with 95 %: {said}.{_of_images_only(seeds)}{apart}",
    )


def accuracy_comes_back(
    change_from_fp32: pd.DataFrame, ptq_change: pd.DataFrame, *, seeds: int, margin: float = 0.01
) -> Verdict:
    """Does QAT bring OA back to no more than `margin` below full precision?

    Both are records of `tables.change`: of the plain QAT arms, and of the networks that were only rounded.
    An interval wholly above −`margin` says yes, one wholly below says no. Supported when all widths say
    yes, contradicted when some say no and none yes, mixed when there are both. Widths at which rounding alone
    surely loses no more than `margin` are told, and do not count.
    """
    claim = f"QAT brings OA back to within {whole_points(margin)} of full precision."
    accuracy, rounded = (table[table["group"] == "OA"] for table in (change_from_fp32, ptq_change))
    accuracy = accuracy[where(accuracy, PLAIN_QAT)]
    if accuracy.empty:
        return nowhere(claim)
    beside = {row["width"]: row for row in rounded.to_dict("records")}
    answers, said, needless = [], [], []
    for row in accuracy.to_dict("records"):
        width, answer = row["width"], _is_back(row, margin)
        alone = f", by rounding alone {in_points(beside[width])}" if width in beside else ""
        said.append(f"{width} {answer}, {in_points(row)}{alone}")
        if width in beside and _is_back(beside[width], margin) == _BACK:
            needless.append(width)  # nothing was lost there, so nothing can come back
        else:
            answers.append(answer)
    open_ = accuracy[~accuracy["width"].isin(needless)].assign(margin=margin)
    word: Word = (
        "mixed"
        if {_BACK, _NOT_BACK} <= set(answers)
        else "supported"
        if answers and set(answers) == {_BACK}
        else "contradicted"
        if _NOT_BACK in answers
        else unsure(open_)[0]
    )
    bound = f"{unsure(open_)[1]}. " if word == "bounded" else ""
    no_need = f" At {', '.join(needless)} rounding alone is surely within it already." if needless else ""
    return Verdict(
        claim,
        word,
        f"{bound}Change of OA in points against full precision, paired over {counted(seeds, 'seed')}, "
        "intervals that hold together over the widths with 95 %: "
        f"{'; '.join(said)}.{no_need}{_of_images_only(seeds)}",
    )


def holds_on_test(on_both: pd.DataFrame, collapse: pd.DataFrame, *, seeds: int) -> Verdict:
    """Does what narrows the gap on training images narrow it on test images? By `tables.on_both`.

    Asked of the arms whose FVO surely falls in training. It holds where FVO surely falls in the test as
    well; it does not where FVO surely rises there, or falls for sure less and not surely at all. Supported
    when it holds for more than half of them and fails for none.
    """
    claim = "What narrows the gap (FVO) on training images narrows it on test images."
    judged, fallen = _both_stand(on_both[on_both["group"] == "FVO"], collapse)
    by_split = {split: rows.set_index("treatment") for split, rows in judged.groupby("split")}
    apart = set_apart(fallen)
    if len(by_split) < 2:
        return Verdict(claim, "undecided", f"There is no arm to judge it by.{apart}")
    holds, fails, said = [], [], []
    arms = counted(len(by_split["train"]), "arm")
    narrowed = by_split["train"][by_split["train"]["upper"] < 0]
    if narrowed.empty:
        word, bound = unsure(by_split["train"].reset_index())
        none = f"Of {arms} none surely narrows the gap on training images, over {counted(seeds, 'seed')}."
        return Verdict(claim, word, f"{none} {bound}.{_of_images_only(seeds)}{apart}")
    published = where(narrowed, FAIRQAT)
    for name, seen in zip(narrowed.index, narrowed.to_dict("records"), strict=True):
        unseen = by_split["test"].loc[[name]].to_dict("records")[0]
        less = unseen["lower"] > seen["upper"]
        fell, rose = unseen["upper"] < 0, unseen["lower"] > 0
        holds += [name] if fell else []
        fails += [name] if rose or (less and not fell) else []
        # Dozens of numbers inform nobody: the rest are in the figure.
        if name in fails or published[name]:
            size = ", surely less" if less else ""
            said.append(f"{name} {in_points(seen)} in training and {in_points(unseen)} in the test{size}")
    open_, bound = unsure(by_split["test"].loc[narrowed.index].reset_index())
    word = (
        "mixed"
        if holds and fails
        else "contradicted"
        if fails
        else "supported"
        if 2 * len(holds) > len(narrowed)
        else open_
    )
    on_test = f" In the test: {bound[0].lower()}{bound[1:]}." if word == open_ else ""
    listed = f" Change of FVO in points, of those and of FairQAT: {'; '.join(said)}." if said else ""
    return Verdict(
        claim,
        word,
        f"Of {arms}, {len(narrowed)} surely narrow{'s' * (len(narrowed) == 1)} the gap on "
        f"training images; of these {len(holds)} surely do so on test images and {len(fails)} surely do "
        f"not.{on_test}{listed} Against rounding, over {counted(seeds, 'seed')}."
        f"{_of_images_only(seeds)}{apart}",
    )


def at_what_price(frontier: pd.DataFrame) -> Prose:
    """What more weight, or more sampling, does to OA and FVO, and where the published setting stands.

    `frontier` of `tables.frontier`.
    """
    sentences = []
    for width, own in frontier.groupby("width", sort=False):
        said = []
        for family, unit in (
            ("weights", "for the smallest group"),
            ("sampling", "of the way to groups of one size"),
        ):
            rows = swept(own, family)
            if len(rows) < 2:
                continue
            first, last = rows.iloc[0].to_dict(), rows.iloc[-1].to_dict()
            said.append(
                f"As the {family} {'goes' if family == 'sampling' else 'go'} from {first['percent']:g} to "
                f"{last['percent']:g} % {unit}, OA goes from {_level(first, 'OA')} to {_level(last, 'OA')} % "
                f"and FVO from {_level(first, 'FVO')} to {_level(last, 'FVO')} points; "
                f"{_apart(first, last)}. {_who_is_worst(rows)}"
            )
        said += [_beside_published(own)] if where(own, FAIRQAT).any() else []
        sentences += [f"- **{width}**: {' '.join(said)}"] if said else []
    return Prose("\n".join(sentences) or "Neither the weights nor the sampling were varied.")


def baselines(frontier: pd.DataFrame) -> Prose:
    """Group-DRO and logit adjustment beside FairQAT: who has the higher OA, and who the smaller gap."""
    sentences = []
    for width, own in frontier.groupby("width", sort=False):
        published = own[where(own, FAIRQAT)].to_dict("records")
        rivals = own[own["family"].isin(_METHODS)].to_dict("records")
        if not published or not rivals:
            continue
        said = [
            f"{_METHODS[row['family']]} has OA {_level(row, 'OA')} %, "
            f"{_beside(row, published[0], 'OA', ('lower', 'higher'))}, and FVO {_level(row, 'FVO')} points, "
            f"{_beside(row, published[0], 'FVO', ('smaller', 'larger'))}."
            for row in rivals
        ]
        sentences.append(
            f"- **{width}**: FairQAT has OA {_level(published[0], 'OA')} % and FVO "
            f"{_level(published[0], 'FVO')} points. {' '.join(said)}"
        )
    return Prose("\n".join(sentences) or "No width has both FairQAT and another method to hold it against.")


def choices(what_to_do: pd.DataFrame) -> pd.DataFrame:
    """A table to act on, as it is read; by `tables.what_to_do`."""
    rows = [
        {
            "width": row["width"],
            "do": row["chosen"],
            "OA, %": _level(row, "OA"),
            "FVO, points": _level(row, "FVO"),
            "training": f"{100 * row['cost']:.0f} %",
            "MB": f"{row['megabytes']:.2f}",
        }
        for row in what_to_do.to_dict("records")
    ]
    columns = ["width", "do", "OA, %", "FVO, points", "training", "MB"]
    return pd.DataFrame(rows, columns=columns).set_index("width").rename_axis(None)


def advice(what_to_do: pd.DataFrame) -> Prose:
    """How to read the table, and a sentence a width: what to do and what it costs."""
    sentences = [
        f"- **{row['width']}**: {_what_to_do(row)} It takes {row['megabytes']:.2f} MB."
        for row in what_to_do.to_dict("records")
    ]
    note = (
        "Chosen on images for tuning, which no network has seen: the smallest FVO among the arms that come "
        "close to the best OA. OA and FVO are those on test images, with intervals. Training comes on top of "
        "the original's, as a share of it, counted in images shown."
    )
    return Prose("\n".join([note, "", *sentences]))


_PARTS = {
    "training": "with training while rounded",
    "weights": "with the weights",
    "sampling": "with the sampling",
}
_BACK, _NOT_BACK = "surely within it", "surely not"


def _both_stand(changes: pd.DataFrame, collapse: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The pairs of which neither has collapsed, and the names of all that have."""
    standing = standing_treatments(collapse)
    named = dict.fromkeys([*changes["reference"], *changes["treatment"]])
    stand = changes["treatment"].isin(standing) & changes["reference"].isin(standing)
    return changes[stand], [name for name in named if name not in standing]


def _eight_arms(width: str) -> list[str]:
    extras = ("", "-weighted", "-sampled", "-weighted-sampled")
    arms = [f"{width}-ends8-{training}{extra}" for training in ("tuned", "qat") for extra in extras]
    return [*arms[:-1], f"{width}-fairqat"]


def _surely(changes: pd.DataFrame) -> tuple[list[str], list[str]]:
    """The widths at which something surely falls, and those at which it surely rises."""
    return list(changes.loc[changes["upper"] < 0, "width"]), list(changes.loc[changes["lower"] > 0, "width"])


def _where(falls: Sequence[str], rises: Sequence[str]) -> str:
    said = [f"surely {verb} at {', '.join(at)}" for verb, at in (("falls", falls), ("rises", rises)) if at]
    return " and ".join(said) or "changes nowhere for sure"


def _of_images_only(seeds: int) -> str:
    return " One network says nothing of others: the intervals cover other images only." * (seeds == 1)


def _is_back(record: Mapping[Hashable, Any], margin: float) -> str:
    back, lost = record["lower"] > -margin, record["upper"] < -margin
    return _BACK if back else _NOT_BACK if lost else "not surely either"


def _level(record: Mapping[Hashable, Any], measure: str) -> str:
    """OA or FVO of a wide record, in hundredths."""
    texts = [f"{100 * record[measure + end]:.1f}" for end in ("", "_lower", "_upper")]
    return f"{texts[0]} ({texts[1]} to {texts[2]})"


def _overlap(one: Mapping[Hashable, Any], other: Mapping[Hashable, Any], measure: str) -> bool:
    lower, upper = f"{measure}_lower", f"{measure}_upper"
    return bool(one[lower] <= other[upper] and other[lower] <= one[upper])


def _apart(first: Mapping[Hashable, Any], last: Mapping[Hashable, Any]) -> str:
    overlapping = [measure for measure in ("OA", "FVO") if _overlap(first, last, measure)]
    if len(overlapping) == 1:
        return f"the intervals of {overlapping[0]} overlap, the others do not"
    return "both pairs of intervals overlap" if overlapping else "neither pair of intervals overlaps"


def _who_is_worst(rows: pd.DataFrame) -> str:
    """Who is served worst along a sweep, and where that changes."""
    switches = rows[rows["worst"] != rows["worst"].shift()]
    if len(switches) == 1:
        return f"{rows['worst'].iloc[0]} is served worst throughout."
    then = ", ".join(
        f"from {row['percent']:g} % on {row['worst']}" for row in switches[1:].to_dict("records")
    )
    return f"Served worst is first {rows['worst'].iloc[0]}, {then}."


def _beside_published(points: pd.DataFrame) -> str:
    """Whether any other point of the width is better than FairQAT in both OA and FVO."""
    published = points[where(points, FAIRQAT)].iloc[0].to_dict()
    better = points[(points["OA"] > published["OA"]) & (points["FVO"] < published["FVO"])]
    surely = better[
        (better["OA_lower"] > published["OA_upper"]) & (better["FVO_upper"] < published["FVO_lower"])
    ]
    reading = "no other point is better in both"
    if len(better):
        clear = (
            f"for {', '.join(surely['treatment'])} no intervals overlap"
            if len(surely)
            else "though all with intervals that overlap"
        )
        reading = (
            f"better in both {'is' if len(better) == 1 else 'are'} {', '.join(better['treatment'])}, {clear}"
        )
    stands = f"OA {_level(published, 'OA')} % and FVO {_level(published, 'FVO')} points"
    return f"The published setting has {stands}: {reading}."


def _beside(
    record: Mapping[Hashable, Any],
    other: Mapping[Hashable, Any],
    measure: str,
    words: tuple[str, str],
) -> str:
    difference = record[measure] - other[measure]
    word = words[0] if difference < 0 else words[1]
    overlap = "the intervals overlap" if _overlap(record, other, measure) else "the intervals lie apart"
    return f"{word} by {100 * abs(difference):.1f} ({overlap})" if difference else f"the same ({overlap})"


def _what_to_do(row: Mapping[Hashable, Any]) -> str:
    how = (
        "train further in full precision, then round"
        if row["training"] == "tuned"
        else "train further while rounded"
    )
    changes: dict[str, dict[Hashable, Any]] = {
        measure: {
            name: row[f"{measure}_change{end}"]
            for name, end in (("estimate", ""), ("lower", "_lower"), ("upper", "_upper"))
        }
        for measure in ("OA", "FVO")
    }
    accuracy, gap = (moves(changes[measure]) for measure in ("OA", "FVO"))
    gains = gap == "falls" or accuracy == "rises"
    doubt = "" if gains else ". The test images give no reason not to just round"
    return (
        f"{how} (`{row['chosen']}`). Against rounding alone OA {accuracy}, {in_points(changes['OA'])} "
        f"points, and FVO {gap}, {in_points(changes['FVO'])}{doubt}. It costs {100 * row['cost']:.0f} % of "
        "the training that the original took."
    )


_PAPERS_GROUPS = 5


def _repair(measured: Measured) -> list[Effect]:
    gap, accuracy = ({"treatment": f"{WIDTH}-fairqat", "group": name} for name in ("FVO", "OA"))
    return [
        effect_in(measured, "against_rounding", f"FVO against rounding at {WIDTH}", "points", gap),
        effect_in(measured, "against_plain_training", "FVO against plain QAT", "points", gap),
        effect_in(measured, "against_rounding", "OA against rounding", "points", accuracy),
    ]


def _plain_training(measured: Measured) -> list[Effect]:
    says = f"FVO of plain QAT against rounding at {WIDTH}"
    row = {"treatment": f"{WIDTH}-ends8-qat", "group": "FVO"}
    return [effect_in(measured, "against_rounding", says, "points", row)]


def _another_recipe(measured: Measured) -> Remark | None:
    """The published weights are for five groups, of which the smallest gets six times as much as another."""
    count = len(measured.groups)
    if count == _PAPERS_GROUPS:
        return None
    share = FairQAT.paper(4).loss_weights
    assert isinstance(share, float)
    factor = share / ((1 - share) / (count - 1))
    sizes = measured["groups"]["train"]
    of_loss = factor * measured.ends.fewest / (sizes.sum() + (factor - 1) * measured.ends.fewest)
    return Remark(
        "not the paper's recipe",
        f"its weights are for {_PAPERS_GROUPS} groups; with {count}, an image of "
        f"{measured.ends.smallest} counts {factor:g} times as much as any other, "
        f"so that these are {whole_percent(of_loss)} % of the loss before anything is sampled.",
    )


CLAIMS = (
    Claim(
        "A6",
        "FairQAT narrows the gap against rounding and against plain QAT, at about the same accuracy.",
        BELLAM,
        "05_fairqat_mitigation",
        ("against_rounding", "against_plain_training"),
        lambda measured: repairs(
            measured["against_rounding"],
            measured["against_plain_training"],
            measured["collapse"],
            seeds=measured.seeds,
        ),
        _repair,
        _another_recipe,
    ),
    Claim(
        "Liu",
        "Plain QAT is less fair than rounding to the same few bits.",
        LIU,
        "05_fairqat_mitigation",
        ("against_rounding",),
        lambda measured: training_is_less_fair(
            measured["against_rounding"], measured["collapse"], seeds=measured.seeds
        ),
        _plain_training,
    ),
)
