"""What was measured in one setting: the tables that chapters draw, and that claims are held against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from fairq_book.kit.tables import Ends
from fairq_utils.errors import BadInput


@dataclass(frozen=True, eq=False)
class Measured:
    """The tables of a setting by name, of how many seeds and networks they are, and when they were made.

    `note` is what a page says beside them, such as "measured earlier, five networks". `take_apart` is the
    width whose zero bin was taken apart, where one was.
    """

    name: str
    title: str
    tables: Mapping[str, pd.DataFrame]
    seeds: int
    networks: int
    note: str
    made: Mapping[str, str]
    take_apart: int = 0

    def __getitem__(self, name: str) -> pd.DataFrame:
        """The table of that name."""
        if name not in self.tables:
            raise BadInput(f"{self.name} has no table {name!r}; expected one of: {', '.join(self.tables)}.")
        return self.tables[name]

    @cached_property
    def groups(self) -> tuple[str, ...]:
        """The groups, in the order that the data set gives them."""
        return tuple(self["groups"]["group"])

    @cached_property
    def ends(self) -> Ends:
        """The groups with the most and the fewest training images; of equal ones the first and the last."""
        sizes = dict(zip(self.groups, self["groups"]["train"], strict=True))
        largest, smallest = max(sizes, key=sizes.__getitem__), min(reversed(sizes), key=sizes.__getitem__)
        return Ends(largest, smallest, int(sizes[largest]), int(sizes[smallest]))

    @property
    def majority(self) -> str | None:
        """The group with the most training images; where several have as many, there is no majority."""
        alone = (self["groups"]["train"] == self.ends.most).sum() == 1
        return self.ends.largest if alone else None
