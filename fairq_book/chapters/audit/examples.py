"""What the worked examples tell of their audits: several beside one another, and one class group by group."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from fairq_audit.auditing import Audit
from fairq_audit.formats import as_markdown, counted, hundredths, plural, shown
from fairq_audit.sentences import told
from fairq_book.kit.wording import Prose, percent, points, with_interval


def verdicts(audits: Mapping[str, Audit]) -> Prose:
    """The word of each audit, and what it rests on."""
    lines = []
    for name, audit in audits.items():
        warnings, sentence = told(audit.record["verdict"])
        said = " ".join([*warnings, sentence])
        lines.append(f"- **{as_markdown(name)}: {audit.verdict}.** {as_markdown(said)}")
    return Prose("\n".join(lines))


def at_a_glance(audits: Mapping[str, Audit]) -> pd.DataFrame:
    """A row for each audit: what it says, how many answers changed, and how much accuracy went."""
    rows = {
        name: {
            "verdict": audit.verdict,
            "flips, %": hundredths(audit.record["overall"]["flip_rate"]["estimate"]),
            "lost, points": points(audit.record["overall"]["drop"]["estimate"]),
            "most lost by": shown(audit.record["worst_group_drop"]["group"]),
            "it lost": with_interval(
                points, *(audit.record["worst_group_drop"][end] for end in ("estimate", "lower", "upper"))
            ),
        }
        for name, audit in audits.items()
    }
    return pd.DataFrame(rows).T


def class_by_group(audit: Audit, positive: str) -> pd.DataFrame:
    """Of one class, group by group: the share of rows taken for it, and the share of its own rows found.

    Where a group has too few rows of the class, nothing is said of how many are found.
    """
    own = audit.rates[audit.rates["class"] == positive]
    rows = []
    for (grouping, group), of in own.groupby(["grouping", "group"], sort=False):
        row: dict[str, Any] = {"grouping": grouping, "group": group}
        for measure in ("selection_rate", "recall"):
            found = of[(of["measure"] == measure) & (of["tested"] != "too few")].to_dict("records")
            for name in ("n", "before", "after", "drop", "drop_lower", "drop_upper"):
                row[f"{measure}_{name}"] = found[0][name] if found else float("nan")
            limits = [found[0][f"drop_simultaneous_{end}"] for end in ("lower", "upper")] if found else []
            row[f"{measure}_surely"] = bool(limits and (limits[0] > 0 or limits[1] < 0))
        rows.append(row)
    return pd.DataFrame(rows)


def class_said(audit: Audit, positive: str) -> Prose:
    """Where a class is found less often than before, and where nobody can tell."""
    table = class_by_group(audit, positive)
    known = table[table["recall_n"].notna()].sort_values("recall_drop", ascending=False, kind="stable")
    units = plural(audit.record["compared"]["unit"])
    if known.empty:
        return Prose(f"No group has enough {units} of {as_markdown(positive)} to say how many are found.")
    most, lost = known.iloc[0], known[known["recall_drop"] > 0]
    if lost.empty:
        text = f"In no group are fewer of those found who are {positive}."
    else:
        text = (
            f"Of those who are {positive}, {percent(most['recall_before'])} were found before in "
            f"{shown(most['group'])} and {percent(most['recall_after'])} after: "
            f"{points(-most['recall_drop'])} points ({points(-most['recall_drop_upper'])} to "
            f"{points(-most['recall_drop_lower'])}), the largest fall of all groups. Allowing for all rates "
            "that were looked at, "
        )
        surely = lost.loc[lost["recall_surely"], "group"]
        text += (
            f"fewer are surely found in {', '.join(map(shown, surely))}."
            if len(surely)
            else "in no group are surely fewer found."
        )
    blind = len(table) - len(known)
    if blind:
        text += (
            f" In {counted(blind, 'group')} fewer than {audit.record['settings']['smallest_group']} {units} "
            "are of it, and nothing is said."
        )
    return Prose(as_markdown(text))


def gaps(audits: Mapping[str, Audit], positive: str) -> pd.DataFrame:
    """What is often asked for by law or by a checklist, before and after, for each way to divide people.

    *Ratio*: the lowest share of a group that is taken for the class over the highest; by a rule of thumb it
    is not to be below 0.80. *Odds*: the larger of the gaps of recall and of false positives, in points.
    """
    rows = []
    for name, audit in audits.items():
        for grouping in audit.record["groupings"]:
            ratio = next((own for own in grouping["selection_ratios"] if own["class"] == positive), None)
            odds = grouping["odds"]
            if ratio is None or not odds or not odds["increase"]:
                continue
            rows.append(
                {
                    "": f"{name} by {grouping['name']}",
                    "ratio before": f"{ratio['before']['estimate']:.2f}",
                    "after": f"{ratio['after']['estimate']:.2f}",
                    "odds before": hundredths(odds["before"]["estimate"]),
                    "odds after": hundredths(odds["after"]["estimate"]),
                    "change": points(odds["increase"]["estimate"]),
                    "from": points(odds["increase"]["lower"]),
                    "to": points(odds["increase"]["upper"]),
                }
            )
    return pd.DataFrame(rows).set_index("") if rows else pd.DataFrame()


def beside(audits: Mapping[str, Audit], measure: str, positive: str) -> pd.DataFrame:
    """One rate of a class group by group, as several audits see it: before, after, and the change in points.

    Of groups that one column makes. `measure` is recall or selection_rate.
    """
    columns = {}
    for name, audit in audits.items():
        table = class_by_group(audit, positive).set_index("group")
        table = table[table["grouping"].isin(audit.record["compared"]["group_columns"])]
        change = table[f"{measure}_drop"] * (-1 if measure == "recall" else 1)
        columns[f"{name}: before, %"] = table[f"{measure}_before"].map(hundredths)
        columns[f"{name}: after, %"] = table[f"{measure}_after"].map(hundredths)
        columns[f"{name}: change"] = change.map(points)
    return pd.DataFrame(columns).replace({"nan": "–", "+nan": "–"}).rename_axis(None)


def threshold_said(plain: Audit, moved: Audit) -> Prose:
    """What is left of the change once the second model takes as many rows for the class as the first."""
    decided = moved.record["compared"]["positive"]
    flips = [one.record["overall"]["flip_rate"]["estimate"] for one in (plain, moved)]
    drops = [one.record["overall"]["drop"]["estimate"] for one in (plain, moved)]
    return Prose(
        as_markdown(
            f"A probability of {decided['before']:.3g} was enough before; so that as many are taken after, "
            f"it has to be {decided['after']:.3g}. Then {percent(flips[1])} of all answers differ, instead "
            f"of {percent(flips[0])}, and accuracy changed by {points(-drops[1])} points, instead of "
            f"{points(-drops[0])}. The verdict is {moved.verdict}."
        )
    )


def write(folder: str, tables: Mapping[str, pd.DataFrame]) -> None:
    """Leave each table as a CSV file in the folder, for the command `fairq-audit`."""
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        table.to_csv(place / f"{name}.csv", index=False, lineterminator="\n")


def command(files: Sequence[str], **settings: Any) -> Prose:
    """The command that audits those files as `audit` does with these settings; what is empty is left out.

    >>> print(command(["fp32.csv", "int4.csv"], groups=["race", "sex"], positive=">50K", cluster=""))
    ```sh
    fairq-audit --predictions fp32.csv int4.csv --groups race,sex \\
        --positive '>50K' --out audit
    ```
    """
    parts = [f"fairq-audit --predictions {' '.join(map(shlex.quote, files))}"]
    for name, value in settings.items():
        option = f"--{name.replace('_', '-')}"
        if name == "fail_if":
            parts += [f"{option} {shlex.quote(one)}" for one in value]
        elif value is True:
            parts.append(option)
        elif value not in ("", None, False, []):
            given = ",".join(value) if isinstance(value, list) else str(value)
            parts.append(f"{option} {shlex.quote(given)}")
    lines, line = [], ""
    for part in [*parts, "--out audit"]:
        if line and len(line) + len(part) > 68:
            lines.append(f"{line} \\")
            line = "    " + part
        else:
            line = f"{line} {part}".strip() if not line.startswith("    ") else f"{line} {part}"
    return Prose("\n".join(["```sh", *lines, line, "```"]))
