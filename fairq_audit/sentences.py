"""What an audit says: its verdict, what it warns of, what it did not test, and a paragraph for a model card.

Everything here turns numbers that were measured into English; nothing is computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fairq_audit.formats import as_markdown, between, counted, hundredths, shown, unsigned

if TYPE_CHECKING:
    from fairq_audit.predictions import LeftOut, Pairs

# Without a margin, an audit that could not have shown a drop of so much in some group cannot tell.
TELLING_DROP = 0.05
# Why the same drop has another interval in another place: what its ends allow for.
WHOSE_ENDS = {
    "worst_group_drop": "the lower end allows for all groups, the upper is one group's own",
    "group_drop": "both ends are the group's own and do not allow for the others",
}


# -- rows that one table lacks ------------------------------------------------------------------------


def missing_said(out: LeftOut, dropped: Mapping[str, Any], conspicuous: Sequence[str]) -> str:
    """How many rows are left out, and whose; `conspicuous` are groups that lack more than chance explains."""
    said = f"{out.n:,} of {out.rows:,} rows of {out.called} are missing from {out.other} and were left out"
    if out.groups is None:
        return f"{said}; of which groups is not known."
    parts = []
    for column in map(str, out.groups):
        lost = [row for row in dropped["groups"] if row["grouping"] == column]
        whose = [f"{shown(row['group'])} {row['n']:,} of {row['of']:,}" for row in lost]
        parts.append(f"by {shown(column)} {_some(whose)}")
    said += f": {'; '.join(parts)}."
    if conspicuous:
        more = f"More are missing of {_some([*map(shown, conspicuous)])} than chance explains"
        said += f" {more}: perhaps because they went wrong."
    return said


def _some(names: Sequence[str]) -> str:
    """The first names of a list, which may be long."""
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


# -- the verdict --------------------------------------------------------------------------------------


def told(verdict: Mapping[str, Any]) -> tuple[list[str], str]:
    """What must be known before a verdict is read, and its sentence without that.

    >>> told({"word": "equivalent", "sentence": "Look. All is well.", "warnings": ["Look."]})
    (['Look.'], 'All is well.')
    """
    warnings = list(verdict.get("warnings", []))
    return warnings, verdict["sentence"].removeprefix(" ".join(warnings)).strip()


def _harmed(record: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """The groups that surely lost, most first."""
    sure = [
        (grouping["name"], group)
        for grouping in record["groupings"]
        for group in grouping["groups"]
        if group["drop"]["simultaneous_lower"] > 0
    ]
    return sorted(sure, key=lambda found: -found[1]["drop"]["estimate"])


def _fell(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The pairs of class and group whose recall surely fell, most first.

    `further`: surely by more than the accuracy of the group, which so does not tell of it.
    """
    sure = []
    for grouping in record["groupings"]:
        drops = {group["group"]: group["drop"]["estimate"] for group in grouping["groups"]}
        for cell in grouping.get("recall", {}).get("surely_fell", []):
            lower = cell["drop"]["simultaneous_lower"]
            own = {"grouping": grouping["name"], "lower": lower, "further": lower > drops[cell["group"]]}
            sure.append({**cell, **own})
    return sorted(sure, key=lambda cell: -cell["lower"])


def _counted(record: Mapping[str, Any], count: str) -> int:
    """How many pairs of class and group were tested, or had too few images, or fell."""
    return sum(grouping.get("recall", {}).get(count, 0) for grouping in record["groupings"])


def verdict(
    record: Mapping[str, Any],
    *,
    confidence: float,
    margin: float | None,
    missing: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A word, the sentences to it, and the groups and classes that surely lost, from what `measure` gives.

    Harm is shown when the drop of a group is above 0 with all groups looked at, or that of all images, or
    the drop of a class's recall in a group with all such pairs looked at. With a margin, all groups within
    it are equivalent, however surely one lost a little, unless a class surely fell by more in one of them.
    Otherwise it matters what could have been found: where a group's smallest drop that the audit would have
    shown is above the margin (5 points without one), it cannot tell. Nor can it where rows are `missing`
    after and a group would have lost so much were they wrong.
    """
    harmed, fell = _harmed(record), _fell(record)
    groups = [group for grouping in record["groupings"] for group in grouping["groups"]]
    overall = record["overall"]["drop"]
    telling = TELLING_DROP if margin is None else margin
    sentences = []
    if margin is not None and all(group["equivalence"]["equivalent"] for group in groups):
        word = "equivalent"
        sentences += [
            f"In every group accuracy stayed within {hundredths(margin)} points, up or down, by two "
            f"one-sided tests at {100 * confidence:g} % each."
        ]
        if harmed:
            sentences += [f"Within that margin, {_loss(harmed, len(groups))}."]
        if fell and fell[0]["lower"] > margin:
            word = "harm shown"
            sentences.insert(0, f"{_class_loss(record, fell)} Accuracy hides it.")
        else:
            sentences += [*([_class_loss(record, fell)] if fell else []), *_other_classes(record)]
    elif harmed or fell:
        word = "harm shown"
        if harmed:
            loss = _loss(harmed, len(groups))
            sentences += [f"{loss[0].upper()}{loss[1:]}."]
        # Where a group lost, its classes did: told is a class that lost more than its group.
        further = [cell for cell in fell if cell["further"] or not harmed]
        if further:
            second = bool(harmed) and further[0]["lower"] < harmed[0][1]["drop"]["estimate"]
            sentences.insert(1 if second else 0, _class_loss(record, further))
        sentences += _gap(record)
    elif overall["lower"] > 0:
        word = "harm shown"
        sentences += [
            f"Over all images {hundredths(overall['estimate'])} points of accuracy were lost "
            f"({between(overall)}), but no group's loss is sure by itself: who pays cannot be told.",
            _power(groups),
        ]
    else:
        blind = any(
            group["detectable_drop"] is None or group["detectable_drop"] > telling for group in groups
        )
        word = "cannot tell" if blind else "no harm found"
        sentences += ["No group's loss is sure, and that is no proof that there is none.", _power(groups)]
        if blind:
            what = "the margin" if margin is not None else "a drop that would matter"
            least = f"{hundredths(telling)} points"
            sentences += [f"That is too blunt to tell: {what}, {least}, could go unseen."]
    if missing and missing["value"] > telling and word in ("equivalent", "no harm found"):
        word = "cannot tell"
        group = shown(missing["group"])
        sentences.insert(
            0,
            f"If the {missing['n']:,} missing rows of {group} count as wrong, {group} lost "
            f"{hundredths(missing['value'])} points, so whether anybody lost cannot be told. The rest is of "
            "the other rows.",
        )
    return {
        "word": word,
        "sentence": " ".join(sentences),
        "harmed": [{"grouping": name, "group": group["group"]} for name, group in harmed],
        "harmed_classes": [{name: cell[name] for name in ("grouping", "group", "class")} for cell in fell],
    }


def _class_loss(record: Mapping[str, Any], fell: Sequence[Mapping[str, Any]]) -> str:
    """What the class lost that surely lost most, and which others did."""
    worst, tested = fell[0], _counted(record, "tested")
    drop = worst["drop"]
    lower, upper = (hundredths(drop[f"simultaneous_{end}"]) for end in ("lower", "upper"))
    said = (
        f"In {shown(worst['group'])} the class {shown(worst['class'])} lost {hundredths(drop['estimate'])} "
        f"points of recall ({lower} to {upper}"
        f"{f', allowing for all {_pairs_said(tested)}' if tested > 1 else ''})"
    )
    listed = [f"{shown(cell['class'])} in {shown(cell['group'])}" for cell in fell[1:4]]
    more = _counted(record, "fell") - 1 - len(listed)
    if listed:
        said += f"; {', '.join(listed)}{f' and {more:,} more' if more else ''} surely lost too"
    return f"{said}."


def _other_classes(record: Mapping[str, Any]) -> Iterator[str]:
    """What the equivalence of groups leaves open about their classes; nothing where there is one class."""
    tested, few = _counted(record, "tested"), _counted(record, "too_few")
    if tested:
        yield f"In none of {_pairs_said(tested)} is a loss of recall beyond the margin sure."
    if few:
        yield f"In {_pairs_said(few)} the images are too few to tell whether recall fell."


def _pairs_said(count: int) -> str:
    return f"{counted(count, 'pair')} of class and group"


def _loss(harmed: Sequence[tuple[str, Mapping[str, Any]]], looked_at: int) -> str:
    worst = harmed[0][1]
    allowing = (
        ""
        if looked_at == 1
        else f" allowing for {'both' if looked_at == 2 else f'all {looked_at}'} groups that were looked at"
    )
    lost = (
        f"group {shown(worst['group'])} lost {hundredths(worst['drop']['estimate'])} points of accuracy, at "
        f"least {hundredths(worst['drop']['simultaneous_lower'])}{allowing}"
    )
    others = [shown(group["group"]) for _, group in harmed[1:]]
    if not others:
        return lost
    return f"{lost}; {_some(others) if len(harmed) < looked_at else 'all others'} surely lost too"


def _gap(record: Mapping[str, Any]) -> Iterator[str]:
    """A sentence on the gap that rose most surely; none where every column has one group alone."""
    groupings = [own for own in record["groupings"] if len(own["groups"]) > 1]
    if not groupings:
        return
    grouping = max(groupings, key=lambda own: own["fvo_increase"]["lower"])
    rise = grouping["fvo_increase"]
    gap = "the gap between the best and the worst group"
    if rise["lower"] <= 0 <= rise["upper"]:
        said = f"it is not decided whether {gap} rose ({between(rise)} points)."
    else:
        far, went = unsigned(rise), "rose" if rise["estimate"] > 0 else "shrank"
        said = f"{gap} {went} by {hundredths(far['estimate'])} points ({between(far)})."
    yield _by(record, grouping, said)


def _by(record: Mapping[str, Any], grouping: Mapping[str, Any], said: str) -> str:
    """A sentence on one grouping, which it names where there are several."""
    if len(record["groupings"]) > 1:
        return f"By {shown(grouping['name'])}, {said}"
    return said[0].upper() + said[1:]


def _power(groups: Sequence[Mapping[str, Any]]) -> str:
    """What could have been found, at best and at worst."""
    blind = [shown(group["group"]) for group in groups if group["detectable_drop"] is None]
    seeing = sorted(
        (group for group in groups if group["detectable_drop"] is not None),
        key=lambda group: group["detectable_drop"],
    )
    sentences = []
    if blind:
        sentences.append(
            f"In {_some(blind)} no drop, however large, would have been found: too few right answers to lose."
        )
    if seeing:
        sharp, dull = seeing[0], seeing[-1]
        least, most = hundredths(sharp["detectable_drop"]), hundredths(dull["detectable_drop"])
        sharpest = f" ({least} in {shown(sharp['group'])})" if least != most else ""
        sentences.append(
            f"In 80 of 100 such audits a drop of {most} points or more would have been found in any "
            f"{'other ' if blind else ''}group{sharpest}; smaller ones may be there."
        )
    return " ".join(sentences)


def not_tested(pairs: Pairs, groupings: Sequence[Mapping[str, Any]], smallest: int) -> list[str]:
    """What the audit leaves open, a sentence each."""
    sentences = [
        "Images unlike these: the intervals hold for images that are drawn as these were.",
        "Other training runs: one model was compared with one, and another seed may fail other groups.",
        "Groups that no column names, and whether the names of the groups and the labels are right.",
    ]
    tested, few = (sum(own["recall"][count] for own in groupings) for count in ("tested", "too_few"))
    if tested + few:
        smaller = (
            f", and {_pairs_said(few)} with fewer than {smallest} images not even for that" if few else ""
        )
        sentences.append(
            f"Whether recall of a class in a group stayed the same: it was tested for a loss alone{smaller}."
        )
    if pairs.scores is None:
        sentences.append("How sure the models were: at least one table holds predictions without scores.")
    if pairs.left_out:
        n = sum(out.n for out in pairs.left_out)
        sentences.append(f"The {n:,} images that stand in one table alone: they were left out.")
    if pairs.never_predicted:
        listed = ", ".join(map(shown, pairs.never_predicted[:5]))
        sentences.append(
            f"Labels that neither model ever predicts count as wrong throughout ({listed}): check that they "
            "are spelt as the predictions are."
        )
    for grouping in groupings:
        if len(grouping["groups"]) == 1:
            sentences.append(
                f"{shown(grouping['name'])} has one group alone, so there is no gap to speak of."
            )
        pooled = grouping["pooled"]
        if pooled:
            what = (
                "were pooled" if pooled["kept"] else "count over all images alone, being too few for a pool"
            )
            sentences.append(
                f"{len(pooled['cells'])} cells of {shown(grouping['name'])} with fewer than "
                f"{pooled['smallest']} images each ({pooled['n']} together) {what}: what happened in each by "
                "itself is not known."
            )
    return sentences


def model_card(record: Mapping[str, Any]) -> str:
    """One paragraph, in Markdown."""
    compared, overall, worst = record["compared"], record["overall"], record["worst_group_drop"]
    before, after = compared["before"]["name"], compared["after"]["name"]
    was, now = (hundredths(overall[f"accuracy_{side}"]["estimate"]) for side in ("before", "after"))
    allowing = f": {WHOSE_ENDS['worst_group_drop']}" if record["settings"]["family"] > 1 else ""
    together = ", those of gaps together" if len(record["groupings"]) > 1 else ""
    warnings, sentence = told(record["verdict"])
    text = "".join(f"{warning} " for warning in warnings)
    text += (
        f"The accuracy of {shown(before)} and {shown(after)} was compared on {compared['n']:,} images, by "
        f"{' and '.join(map(shown, compared['group_columns']))}. Over all images it went from "
        f"{was} % to {now} %; the largest drop of a group was {hundredths(worst['estimate'])} points "
        f"({shown(worst['group'])}; {hundredths(worst['lower'])} to {hundredths(worst['upper'])}{allowing}). "
    )
    for grouping in record["groupings"]:
        if len(grouping["groups"]) == 1:
            continue
        first, second, rise = (grouping[f"fvo_{name}"] for name in ("before", "after", "increase"))
        far = unsigned(rise)
        way = f"a {'fall' if rise['estimate'] < 0 else 'rise'} of {hundredths(far['estimate'])}"
        said = (
            f"the gap between the best and the worst group went from {hundredths(first['estimate'])} to "
            f"{hundredths(second['estimate'])} points, {way} ({between(far)}). "
        )
        text += _by(record, grouping, said)
    text += f"Verdict: {record['verdict']['word']}. {sentence} "
    text += (
        f"Intervals are at {100 * record['settings']['confidence']:g} %{together}. "
        f"Not tested: other training runs, other images. Made by {record['package']['name']} "
        f"{record['package']['version']}."
    )
    return as_markdown(text)
