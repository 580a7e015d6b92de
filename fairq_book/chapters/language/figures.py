"""The figures of the chapter on language."""

from __future__ import annotations

import pandas as pd

from fairq_audit.formats import counted
from fairq_book.kit.figures import Picture, rows_of_dots


def costs(table: pd.DataFrame) -> Picture:
    """What each width costs each language of one network, by `tables.costs`."""
    return rows_of_dots(
        table,
        list(table["group"].unique()),
        what="What each width costs each language of this network",
        caption="One network. Answers that flipped, as a share of the bytes, and by how much longer the test "
        "articles became, as a share of what they took in full precision; both in points.",
    )


def slopes_by_width(table: pd.DataFrame, networks: int) -> Picture:
    """How much steeper each width makes it to hold less text, by `tables.slopes_by_width`."""
    return rows_of_dots(
        table,
        list(table["group"].unique()),
        what="The slope of three changes over the share of text held, by width",
        caption="How far a straight line rises from a language with all its text to one with an eighth, with "
        f"95 % intervals over {counted(networks, 'network')}. Right of the line a language of which less "
        "was read costs more, or flips more; in the last panel it loses more left of the line.",
    )


def causes(table: pd.DataFrame, networks: int) -> Picture:
    """The same slopes under interventions, by `tables.causes`."""
    return rows_of_dots(
        table,
        list(table["group"].unique()),
        what="The slope of two changes under interventions",
        caption="As above, against full precision, for what is done to the same networks instead, with 95 % "
        f"intervals over {counted(networks, 'network')}.",
    )


def by_language(table: pd.DataFrame, networks: int) -> Picture:
    """The change of accuracy of each language, by `tables.by_language`."""
    return rows_of_dots(
        table,
        list(table["group"].unique()),
        what="The change of accuracy of each language",
        caption="Next-byte accuracy of each language against full precision, over all shares that it held, "
        f"with intervals over {counted(networks, 'network')} that hold together at each width with 95 %.",
    )


def repairs(table: pd.DataFrame, networks: int) -> Picture:
    """What each repair leaves, by `tables.repairs`: how steep accuracy still is over the share held."""
    own = table[table["what"] == "slope of accuracy"].assign(group="slope of accuracy")
    return rows_of_dots(
        own,
        ["slope of accuracy"],
        what="The slope of accuracy after each repair",
        caption="How much less accurate a language with an eighth of its text is than one with all of it, "
        f"after 200 more steps or none, with 95 % intervals over {counted(networks, 'network')}. "
        "Nearer to the line is more even.",
        sharex=True,
    )
