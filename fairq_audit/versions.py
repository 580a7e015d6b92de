"""Several versions of a model, each compared with the first: one page, and a table over versions."""

from __future__ import annotations

import functools
import html
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from fairq_audit import report
from fairq_audit.auditing import Audit, audit, check_place, harmless
from fairq_audit.formats import shown
from fairq_audit.predictions import Predictions
from fairq_utils.errors import BadInput
from fairq_utils.files import replace_folder

SCHEMA = "audit-versions-1"


def audit_versions(
    first: Predictions, *others: Predictions, names: Sequence[str], **settings: Any
) -> Versions:
    """Audit each of several tables of predictions against the first; the settings are those of `audit`.

    Each version is judged by itself, as if there were no other.

    >>> before = pd.DataFrame({"id": range(600), "label": ["moth", "fly"] * 300, "group": "elm"})
    >>> before["prediction"] = before["label"]
    >>> worse = before.assign(prediction=["fly"] + before["label"].tolist()[1:])
    >>> names = ["fp32", "int8", "int2"]
    >>> found = audit_versions(before, worse, before.assign(prediction="fly"), names=names)
    >>> found.table.loc["int2", "verdict"], float(found.table.loc["int2", "largest drop"])
    ('harm shown', 0.5)
    """
    if len(set(names)) < len(names) or len(names) != len(others) + 1:
        raise BadInput(
            f"The versions are called {', '.join(map(shown, names))}; expected a name of its own for each: "
            "rename the files."
        )
    before, *later = names
    return Versions(
        {
            name: audit(first, other, names=(before, name), **settings)
            for name, other in zip(later, others, strict=True)
        }
    )


@dataclass(frozen=True)
class Versions:
    """What the audits of several versions found, by name."""

    audits: dict[str, Audit]

    def __repr__(self) -> str:
        return "\n".join(f"{shown(name)}: {found}" for name, found in self.audits.items())

    @functools.cached_property
    def table(self) -> pd.DataFrame:
        """A row a version: its verdict, accuracy, the largest drop, contrast, gap, and what changed."""
        rows = []
        for name, found in self.audits.items():
            record = found.record
            gaps = [own for own in record["groupings"] if len(own["groups"]) > 1]
            widest = max(gaps, key=lambda own: own["fvo_after"]["estimate"], default=None)
            worst, overall = record["worst_group_drop"], record["overall"]
            rows.append(
                {
                    "version": name,
                    "verdict": found.verdict,
                    "accuracy": overall["accuracy_after"]["estimate"],
                    "drop": overall["drop"]["estimate"],
                    "largest drop": worst["estimate"],
                    "of": worst["group"],
                    "contrast": widest["contrast"]["estimate"] if widest else None,
                    "gap": widest["fvo_after"]["estimate"] if widest else None,
                    "changed": overall["flip_rate"]["estimate"],
                    "gates": ", ".join(
                        gate["expression"] for gate in record["gates"] if gate["outcome"] != "passed"
                    ),
                }
            )
        return pd.DataFrame(rows).set_index("version")

    @functools.cached_property
    def groups(self) -> pd.DataFrame:
        """The accuracy of each group, a column a version."""
        first = next(iter(self.audits.values()))
        found: dict[str, pd.Series] = {}
        for name, one in self.audits.items():
            own = one.tables["groups"].set_index(["grouping", "group"])
            if one is first:
                found[one.record["compared"]["before"]["name"]] = own["accuracy_before"]
            found[name] = own["accuracy_after"]
        return pd.DataFrame(found).reset_index()

    @property
    def outcomes(self) -> list[str]:
        """What became of all gates of all versions."""
        return [gate["outcome"] for one in self.audits.values() for gate in one.record["gates"]]

    def page(self) -> str:
        """One file of HTML: the tables over versions, and the report of each, which can be unfolded."""
        pages = {name: report.page(one.record) for name, one in self.audits.items()}
        # A report in a frame runs its own script, and it alone, under the page's policy.
        digests = dict.fromkeys(d for text in pages.values() for d in re.findall(r"'(sha256-[^']+)'", text))
        template = report.environment().get_template("versions.html")
        return template.render(
            audits=[
                {"name": name, "record": one.record, "page": Markup(html.escape(pages[name])), "row": row}
                for (name, one), row in zip(self.audits.items(), self.table.to_dict("records"), strict=True)
            ],
            groups=self.groups.to_dict("records"),
            versions=list(self.groups.columns[2:]),
            digests=list(digests),
            style=report.style(),
        )

    def write(self, folder: str | Path) -> list[Path]:
        """Write report.html, audit.json with the records of all, versions.csv and groups.csv."""
        check_place(folder)
        records = {name: one.record for name, one in self.audits.items()}
        whole = json.dumps(
            {"schema": SCHEMA, "audits": records}, indent=1, allow_nan=False, ensure_ascii=False
        )
        tables = {"versions.csv": self.table.reset_index(), "groups.csv": self.groups}
        contents = {"report.html": self.page(), "audit.json": whole + "\n"} | {
            name: harmless(table).to_csv(index=False, lineterminator="\n") for name, table in tables.items()
        }
        replace_folder(Path(folder), {name: text.encode() for name, text in contents.items()})
        return [Path(folder) / name for name in contents]
