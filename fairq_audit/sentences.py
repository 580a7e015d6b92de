"""What an audit says: its verdict, what it warns of, what it did not test, and a paragraph for a model card.

Everything here turns numbers that were measured into English; nothing is computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fairq_audit.formats import as_markdown, between, counted, directed, hundredths, plural, shown, unsigned

if TYPE_CHECKING:
    from fairq_audit.predictions import LeftOut, Pairs

# Without a margin, an audit that could not have shown a drop of so much in some group cannot tell.
TELLING_DROP = 0.05

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


def no_better_said(rows: Sequence[int], right: Sequence[int]) -> Iterator[str]:
    """A warning of a first model that finds classes no better than one that looks at nothing.

    A wrong order of classes looks like this, and so does a wrong normalisation. `rows` and `right`: of each
    class, how many there are and how many are found. Classes count alike: of fraud, which is rare, a good
    model may be right less often than one that never says it.

    >>> next(no_better_said([90, 10], [90, 0]))[:80]
    'Before, 50.0 % of a class are found on average over classes, no more than by gue'
    >>> list(no_better_said([985, 15], [960, 13]))
    []
    """
    recalls = [found / of for found, of in zip(right, rows, strict=True) if of]
    mean = sum(recalls) / len(recalls)
    if len(recalls) > 1 and mean <= 1 / len(recalls):
        yield (
            f"Before, {hundredths(mean)} % of a class are found on average over classes, no more than by "
            f"guessing: "
            "look whether classes stand in the order of the scores, and whether inputs reach the model as "
            "they did "
            "in training."
        )


def small_said(groupings: Sequence[Mapping[str, Any]], unit: str) -> Iterator[str]:
    """A warning of groups that are too small to be audited and yet lost more than chance explains."""
    apart = [
        cell
        for own in groupings
        if own["pooled"] and not own["pooled"]["kept"]
        for cell in own["pooled"]["cells"]
    ]
    for cell in apart:
        if cell["lost"] > cell["gained"] and cell["p"] * len(apart) < 0.05:
            yield (
                f"{shown(cell['cell'])} has {counted(cell['n'], unit)}, too few for a group of its own "
                f"here, and {cell['lost']} of them were lost: look at it by itself."
            )


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
    """The rates of a class in a group that surely got worse, worst first.

    `further`: surely by more than the accuracy of the group, which so does not tell of it.
    """
    sure = []
    for grouping in record["groupings"]:
        drops = {group["group"]: group["drop"]["estimate"] for group in grouping["groups"]}
        for cell in grouping.get("rates", {}).get("surely_worse", []):
            lower = cell["drop"]["simultaneous_lower"]
            own = {"grouping": grouping["name"], "lower": lower, "further": lower > drops[cell["group"]]}
            sure.append({**cell, **own})
    return sorted(sure, key=lambda cell: -cell["lower"])


def _counted(record: Mapping[str, Any], count: str) -> int:
    """How many rates of a class in a group were tested, or had too few rows, or got worse."""
    return sum(grouping.get("rates", {}).get(count, 0) for grouping in record["groupings"])


def verdict(
    record: Mapping[str, Any],
    *,
    confidence: float,
    margin: float | None,
    missing: Mapping[str, Any] | None = None,
    unit: str = "row",
) -> dict[str, Any]:
    """A word, the sentences to it, and the groups and classes that surely lost, from what `measure` gives.

    Harm is shown when the drop of a group is above 0 with all groups looked at, or that of all rows, or when
    recall, precision or false positives of a class in a group got worse, with all of them looked at. With a
    margin, all groups within
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
            f"In every group{_large_enough(record, unit)} accuracy stayed within {hundredths(margin)} "
            f"points, up or "
            f"down, by two one-sided tests at {100 * confidence:g} % each."
        ]
        if harmed:
            sentences += [f"Within that margin, {_loss(harmed, len(groups))}."]
        if fell and fell[0]["lower"] > margin:
            word = "harm shown"
            sentences.insert(0, f"{_class_loss(record, fell)} Accuracy hides it.")
        else:
            sentences += [*([_class_loss(record, fell)] if fell else []), *_other_classes(record, unit)]
    elif harmed or fell:
        word = "harm shown"
        if harmed:
            loss = _loss(harmed, len(groups))
            sentences += [f"{loss}." if loss.startswith(shown(harmed[0][1]["group"])) else f"G{loss[1:]}."]
        # Where a group lost, its classes did: told is a class that lost more than its group.
        further = [cell for cell in fell if cell["further"] or not harmed]
        if further:
            second = bool(harmed) and further[0]["lower"] < harmed[0][1]["drop"]["estimate"]
            sentences.insert(1 if second else 0, _class_loss(record, further))
        sentences += _gap(record)
    elif overall["lower"] > 0:
        word = "harm shown"
        sentences += [
            f"Over all {plural(unit)} {hundredths(overall['estimate'])} points of accuracy were lost "
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
        "harmed_classes": [
            {name: cell[name] for name in ("grouping", "group", "class", "measure")} for cell in fell
        ],
    }


def _large_enough(record: Mapping[str, Any], unit: str) -> str:
    """Of how many rows at least the groups are, where smaller ones were set apart."""
    apart = [own["pooled"]["smallest"] for own in record["groupings"] if own.get("pooled")]
    return f" of {counted(apart[0], unit)} or more" if apart else ""


def _class_loss(record: Mapping[str, Any], fell: Sequence[Mapping[str, Any]]) -> str:
    """What became surely worse of a class in a group, and where else something did."""
    worst, tested = fell[0], _counted(record, "tested")
    drop, where, of = worst["drop"], shown(worst["group"]), shown(worst["class"])
    lower, upper = (hundredths(drop[f"simultaneous_{end}"]) for end in ("lower", "upper"))
    far = hundredths(drop["estimate"])
    limits = f"({lower} to {upper}{f', allowing for all {_rates_said(tested)}' if tested > 1 else ''})"
    said = {
        "recall": f"In {where} the class {of} lost {far} points of recall {limits}",
        "precision": f"In {where} answers of {of} are right {far} points less often {limits}",
        "fpr": f"In {where} {far} points more of the others are taken for {of} {limits}",
    }[worst["measure"]]
    places = dict.fromkeys(f"{shown(cell['class'])} in {shown(cell['group'])}" for cell in fell[1:])
    listed = [place for place in places if place != f"{of} in {where}"][:3]
    if listed:
        more = _counted(record, "worse") - 1 - len(listed)
        said += f"; {', '.join(listed)}{f' and {more:,} more' if more > 0 else ''} surely lost too"
    return f"{said}."


def _other_classes(record: Mapping[str, Any], unit: str) -> Iterator[str]:
    """What the equivalence of groups leaves open about their classes; nothing where there is one class."""
    tested, few = _counted(record, "tested"), _counted(record, "too_few")
    if tested:
        yield f"Of {_rates_said(tested)} none surely got worse by more than the margin."
    if few:
        yield f"For {_rates_said(few)} the {plural(unit)} are too few to tell."


def _rates_said(count: int) -> str:
    return f"{counted(count, 'rate')} of a class in a group"


def _loss(harmed: Sequence[tuple[str, Mapping[str, Any]]], looked_at: int) -> str:
    worst = harmed[0][1]
    allowing = (
        ""
        if looked_at == 1
        else f" allowing for {'both' if looked_at == 2 else f'all {looked_at}'} groups that were looked at"
    )
    named = shown(worst["group"])
    lost = (
        f"{named if '=' in named else f'group {named}'} lost {hundredths(worst['drop']['estimate'])} "
        f"points of accuracy, at "
        f"least {hundredths(worst['drop']['simultaneous_lower'])}{allowing}"
    )
    others = [shown(group["group"]) for _, group in harmed[1:]]
    if not others:
        return lost
    return f"{lost}; {_some(others) if len(harmed) < looked_at else 'all others'} surely lost too"


def _gap(record: Mapping[str, Any]) -> Iterator[str]:
    """A sentence on the gap that rose most, and on another that surely did; none of one group alone."""
    groupings = [own for own in record["groupings"] if len(own["groups"]) > 1]
    if not groupings:
        return
    grouping = max(groupings, key=lambda own: own["fvo_increase"]["estimate"])
    rise = grouping["fvo_increase"]
    gap = "the gap between the best and the worst group"
    if rise["lower"] <= 0 <= rise["upper"]:
        said = f"it is not decided whether {gap} rose ({between(rise)} points)."
    else:
        far, went = unsigned(rise), "rose" if rise["estimate"] > 0 else "shrank"
        said = f"{gap} {went} by {hundredths(far['estimate'])} points ({between(far)})."
    yield _by(record, grouping, said)
    sure = [own for own in groupings if own is not grouping and own["fvo_increase"]["lower"] > 0]
    if sure and rise["lower"] <= 0:
        other = max(sure, key=lambda own: own["fvo_increase"]["lower"])
        rose = other["fvo_increase"]
        yield _by(
            record, other, f"it surely did, by {hundredths(rose['estimate'])} points ({between(rose)})."
        )


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
        sharpest = (
            f" ({most} in {shown(dull['group'])}, {least} in {shown(sharp['group'])})"
            if least != most
            else ""
        )
        sentences.append(
            f"In 80 of 100 such audits a drop of {most} points or more would have been found in any "
            f"{'other ' if blind else ''}group{sharpest}; smaller ones may be there."
        )
    return " ".join(sentences)


def not_tested(
    pairs: Pairs, groupings: Sequence[Mapping[str, Any]], smallest: int, *, unit: str = "row"
) -> list[str]:
    """What the audit leaves open, a sentence each."""
    units = plural(unit)
    sentences = [
        f"{units.capitalize()} unlike these: the intervals hold for {units} that are drawn as these were.",
        "Other training runs: one model was compared with one, and another seed may fail other groups.",
        "Groups that no column names, and whether the names of the groups and the labels are right.",
    ]
    if pairs.clusters is None:
        sentences.append(
            f"Whether {units} belong together, as several of one person do: each was taken as independent "
            "(--cluster names a column of what they belong to)."
        )
    if pairs.weights is None:
        sentences.append(
            f"Whether some {units} stand for more people than others (--weight names a column of that)."
        )
    tested, few = (sum(own["rates"][count] for own in groupings) for count in ("tested", "too_few"))
    if tested + few:
        smaller = (
            f", and {_rates_said(few)} with fewer than {smallest} {units} not even for that" if few else ""
        )
        sentences.append(
            "Whether recall, precision and false positives of a class in a group stayed the same: they were "
            f"tested for getting worse alone{smaller}."
        )
    if pairs.scores is None:
        sentences.append("How sure the models were: at least one table holds predictions without scores.")
    if pairs.left_out:
        n = sum(out.n for out in pairs.left_out)
        sentences.append(f"The {n:,} {units} that stand in one table alone: they were left out.")
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
            count = len(pooled["cells"])
            smallest = pooled["smallest"]
            names = _some([shown(cell["cell"]) for cell in pooled["cells"]])
            what = "were pooled" if pooled["kept"] else f"count over all {units} alone"
            sentences.append(
                f"{counted(count, 'group')} of {shown(grouping['name'])} with fewer than "
                f"{smallest} {units} ({names}; {pooled['n']} together) {what}: what happened in each "
                "by itself is not known."
            )
    return sentences


def model_card(record: Mapping[str, Any]) -> str:
    """One paragraph of at most about 120 words, in Markdown; what must be known first stands first."""
    compared, overall, worst = record["compared"], record["overall"], record["worst_group_drop"]
    before, after = compared["before"]["name"], compared["after"]["name"]
    was, now = (hundredths(overall[f"accuracy_{side}"]["estimate"]) for side in ("before", "after"))
    warnings, sentence = told(record["verdict"])
    by = " and ".join(map(shown, compared["group_columns"]))
    text = "".join(f"{warning} " for warning in warnings)
    text += (
        f"{shown(after)} was compared with {shown(before)} on {counted(compared['n'], compared['unit'])}, "
        f"by {by}. Verdict: {record['verdict']['word']}. {sentence} "
        f"Accuracy over all went from {was} % to {now} %; the largest drop of a group was "
        f"{hundredths(worst['estimate'])} points ({shown(worst['group'])}; {between(worst)}). "
    )
    gaps = [own for own in record["groupings"] if len(own["groups"]) > 1]
    if gaps and "gap between" not in sentence:
        widest = max(gaps, key=lambda own: own["fvo_increase"]["estimate"])
        first, second, rise = (widest[f"fvo_{name}"] for name in ("before", "after", "increase"))
        said = (
            f"the gap between the best and the worst group went from {hundredths(first['estimate'])} to "
            f"{hundredths(second['estimate'])} points, {directed(rise, 'a rise', 'a fall')}. "
        )
        text += _by(record, widest, said)
    open_ = [gate["expression"] for gate in record["gates"] if gate["outcome"] != "passed"]
    if open_:
        text += f"Gates that did not pass: {', '.join(map(shown, open_))}. "
    text += (
        f"Intervals are at {100 * record['settings']['confidence']:g} %. Not tested: other training "
        f"runs, other {plural(compared['unit'])}. Made by {record['package']['name']} "
        f"{record['package']['version']}."
    )
    return as_markdown(text)
