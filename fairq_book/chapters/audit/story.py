"""Chapter 8: an audit."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from fairq_audit.auditing import Audit
from fairq_audit.formats import as_markdown, counted, hundredths, plural, shown
from fairq_audit.sentences import told
from fairq_book.kit.wording import Prose, in_brackets, percent, points, whole_points

_MOST_SAID = 8


def audit_verdict(audit: Audit) -> Prose:
    """The word of an audit, and what it rests on."""
    warnings, sentence = told(audit.record["verdict"])
    first = "".join(f"**{as_markdown(warning)}** " for warning in warnings)
    return Prose(f"{first}**{audit.verdict.capitalize()}.** {as_markdown(sentence)}")


def audit_groups(audit: Audit) -> pd.DataFrame:
    """Accuracies before and after, and the points lost with limits that hold for all groups at once."""
    units = plural(audit.record["compared"]["unit"])
    rows = [
        {
            "group": row["group"],
            units: f"{row['n']:,}",
            "before, %": hundredths(row["accuracy_before"]),
            "after, %": hundredths(row["accuracy_after"]),
            "lost, points": points(row["drop"]),
            "from": points(row["drop_simultaneous_lower"]),
            "to": points(row["drop_simultaneous_upper"]),
        }
        for row in audit.tables["groups"].to_dict("records")
    ]
    return pd.DataFrame(rows).set_index("group").rename_axis(None)


def audit_gap(audit: Audit) -> Prose:
    """FVO before and after, who stands at its ends, and whether its rise is sure."""
    said = []
    for grouping in audit.record["groupings"]:
        if len(grouping["groups"]) < 2:
            continue
        before, after, rise = (grouping[f"fvo_{name}"] for name in ("before", "after", "increase"))
        reading = (
            "It surely rose"
            if rise["lower"] > 0
            else "It surely shrank"
            if rise["upper"] < 0
            else "Whether it changed is not decided"
        )
        where = f" by {shown(grouping['name'])}" if len(audit.record["groupings"]) > 1 else ""
        said.append(
            f"FVO{where} was {hundredths(before['estimate'])} points before, from {shown(before['best'])} "
            f"down to {shown(before['worst'])}, and is {hundredths(after['estimate'])} after, from "
            f"{shown(after['best'])} down to {shown(after['worst'])}. {reading}: the change is "
            f"{points(rise['estimate'])} points ({points(rise['lower'])} to {points(rise['upper'])})."
        )
    return Prose(as_markdown(" ".join(said) or "There is one group alone, so there is no gap to speak of."))


def audit_flips(audit: Audit) -> Prose:
    """How many predictions changed, in which way, and in which group most."""
    overall = audit.record["overall"]
    groups = [group for grouping in audit.record["groupings"] for group in grouping["groups"]]
    flipped = overall["lost"] + overall["gained"] + overall["changed"]
    if not flipped:
        return Prose(f"Not one of {overall['n']:,} predictions changed.")
    most = max(groups, key=lambda group: group["flip_rate"]["estimate"])
    own = most["flip_rate"]
    text = (
        f"Of {overall['n']:,} predictions {flipped:,} changed: {overall['lost']:,} became wrong, "
        f"{overall['gained']:,} became right, and {overall['changed']:,} went from one wrong answer to "
        f"another. OA shows only the second less the first: {points(-overall['drop']['estimate'])} points."
    )
    if len(groups) > 1:
        text += (
            f" The largest share changed in {shown(most['group'])}: {percent(own['estimate'])} "
            f"({percent(own['lower'])} to {percent(own['upper'])})."
        )
    return Prose(as_markdown(text))


def audit_power(audit: Audit, drop: float) -> Prose:
    """How often a true drop of that size would have been shown in each group, and what it would take."""
    table = audit.power(drop).sort_values("power", kind="stable")
    wanted = audit.record["settings"]["power"]
    enough = int((table["power"] >= wanted).sum())
    reading = (
        "Every group reaches that."
        if enough == len(table)
        else f"{enough or 'None'} of {counted(len(table), 'group')} "
        f"{'reach' if enough > 1 else 'reaches'} that."
    )
    overall, unit = audit.record["overall"], audit.record["compared"]["unit"]
    quiet = (
        ""
        if overall["lost"] + overall["gained"]
        else f" No answer became right or wrong here; where some do, it takes more {plural(unit)}."
    )
    lines = [
        f"- **{as_markdown(shown(row['group']))}**, {counted(row['n'], unit)}: "
        f"{_what_it_takes(row, wanted, plural(unit))}"
        for row in table.head(_MOST_SAID).to_dict("records")
    ]
    if len(table) > _MOST_SAID:
        lines.append(f"- The other {len(table) - _MOST_SAID} groups: at least as often.")
    return Prose(
        "\n".join(
            [
                f"If a group had truly lost {whole_points(drop)}, how often would an audit like this one "
                f"have shown it? Enough is {100 * wanted:.0f} of 100. {reading}{quiet}",
                "",
                *lines,
            ]
        )
    )


def audit_equivalence(audit: Audit) -> Prose:
    """Which groups surely stayed within the margin, up or down."""
    margin = audit.record["settings"]["margin"]
    if margin is None:
        return Prose("No margin was set, so equivalence was not tested.")
    groups = [group for grouping in audit.record["groupings"] for group in grouping["groups"]]
    held = [group["equivalence"]["equivalent"] for group in groups]
    within, open_ = (
        [shown(group["group"]) for group, own in zip(groups, held, strict=True) if own is wanted]
        for wanted in (True, False)
    )
    text = (
        f"{len(within) or 'None'} of {counted(len(groups), 'group')} stayed surely within "
        f"{whole_points(margin)}, up or down{in_brackets(within[:_MOST_SAID])}."
    )
    if open_:
        text += (
            f" For {', '.join(open_[:_MOST_SAID])}{' and others' if len(open_) > _MOST_SAID else ''} it "
            "is not shown: either they changed more, or what is known of them is too little to tell."
        )
    return Prose(as_markdown(text))


def audit_gates(audit: Audit) -> Prose:
    """What each gate found, and the exit code that a pipeline sees."""
    found = audit.record["gates"]
    code = 0 if audit.passes() else 1
    if not found:
        return Prose(f"No gate was set. The exit code is {code}.")
    lines = [f"- {as_markdown(gate['sentence'])}" for gate in found]
    strict = 4 if code == 0 and any(gate["outcome"] == "not ruled out" for gate in found) else code
    also = "" if strict == code else f", and with `--strict` **{strict}**"
    return Prose("\n".join([*lines, "", f"The exit code is **{code}**{also}."]))


def audit_card(audit: Audit) -> Prose:
    """The paragraph for a model card, as a quotation."""
    return Prose(f"> {audit.model_card()}")


def audit_untested(audit: Audit) -> Prose:
    """What the audit did not test, in a list."""
    return Prose("\n".join(f"- {as_markdown(sentence)}" for sentence in audit.record["not_tested"]))


def _what_it_takes(row: Mapping[Hashable, Any], wanted: float, units: str) -> str:
    if pd.isna(row["images_needed"]):
        return "it was right too rarely to lose so much."
    often = f"in {100 * row['power']:.0f} of 100."
    if row["power"] >= wanted:
        return f"{often} That is enough."
    return f"{often} It takes about {_rounded(row['images_needed'])} {units}."


def _rounded(number: float) -> str:
    """A count to two digits, because more would pretend to know."""
    return f"{float(f'{number:.2g}'):,.0f}"
