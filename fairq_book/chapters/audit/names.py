"""The worked example on names: sentences that differ by a first name alone, and what a model makes of them.

`book/audits` holds the templates, and what one classifier answered on the embeddings of two packages.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from fairq_book.chapters.audit.adult import place

CLASSES = ("bad", "good")
# The first names of Bertrand and Mullainathan's experiment with letters of application (2004), who took
# them from birth certificates of Massachusetts and asked people whom they would think of.
NAMES = {
    ("female", "White"): "Allison Anne Carrie Emily Jill Kristen Laurie Meredith Sarah",
    ("female", "Black"): "Aisha Ebony Keisha Kenya Lakisha Latonya Latoya Tamika Tanisha",
    ("male", "White"): "Brad Brendan Brett Geoffrey Greg Jay Matthew Neil Todd",
    ("male", "Black"): "Darnell Hakim Jamal Jermaine Kareem Leroy Rasheed Tremayne Tyrone",
}
NOBODY = ("The neighbour", "Our new doctor", "My colleague", "The man next door", "The woman next door")


def sentences(root: Path | None = None) -> pd.DataFrame:
    """Every test template with every name: what it says, whether it is good, and whom the name is thought of.

    >>> table = sentences()
    >>> len(table), table["template"].nunique(), table["name"].nunique()
    (2304, 64, 36)
    >>> table.loc[0, ["sentence", "label", "gender", "ethnicity"]].tolist()
    ['Allison stayed late to help the new colleague.', 'good', 'female', 'White']
    """
    templates = pd.read_csv(place(root) / "names_test.csv")
    people = pd.DataFrame(
        [
            {"name": name, "gender": gender, "ethnicity": ethnicity}
            for (gender, ethnicity), names in NAMES.items()
            for name in names.split()
        ]
    )
    return _filled(templates.merge(people, how="cross"))


def lessons(root: Path | None = None) -> pd.DataFrame:
    """What the classifier learns from: other templates, and no names in them.

    >>> lessons()["sentence"].iloc[0]
    'The neighbour was friendly and patient all day.'
    """
    templates = pd.read_csv(place(root) / "names_train.csv")
    return _filled(templates.merge(pd.DataFrame({"name": NOBODY}), how="cross"))


def _filled(table: pd.DataFrame) -> pd.DataFrame:
    said = [text.format(name) for text, name in zip(table["template"], table["name"], strict=True)]
    return table.assign(sentence=[text[0].upper() + text[1:] for text in said])


def kept(root: Path | None = None) -> dict[str, pd.DataFrame]:
    """What the classifier answered of every sentence, by the embedding of each package: two tables to audit.

    `python -m fairq_book.chapters.audit.names_kept FOLDER` makes it again.

    >>> list(kept())
    ['fp32', 'int8']
    """
    found = pd.read_csv(place(root) / "names_answers.csv.xz")
    table = sentences(root).rename_axis("id").reset_index()
    return {
        str(name): table.assign(
            **{f"probability_{one}": own for one, own in zip(CLASSES, (1 - sure, sure), strict=True)}
        )
        for name, sure in found.items()
    }


def swayed(tables: dict[str, pd.DataFrame], groups: list[str]) -> pd.DataFrame:
    """What the name does to the same sentences: how good they are thought to be, and answers that it decides.

    Mean probability of `good` for each group, in percent; and the share of templates in percent of which the
    answer is not the same for all names.
    """
    shown = {}
    for side, table in tables.items():
        sure = table["probability_good"]
        means = sure.groupby(table[groups].agg(" x ".join, axis=1)).mean()
        good = (sure >= 0.5).astype(float).groupby(table["template"]).mean()
        decided = (good > 0) & (good < 1)
        of = {f"thought good: {name}": own for name, own in means.items()}
        shown[f"{side}, %"] = {
            name: f"{100 * own:.1f}" for name, own in (of | {"decided by the name": decided.mean()}).items()
        }
    return pd.DataFrame(shown)
