"""What is embedded of retrieval and neutral queries: who is found, and who comes first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fairq_book.chapters.encoders import tables
from fairq_book.explorer.quantities import BINS, RANK, Quantity, bins_of_places, described_as, short
from fairq_utils.encoders.questions import EncoderOutputs
from fairq_utils.errors import BadInput

_RECALLS = (1, 5, 10)  # how many captions are looked through


@dataclass(frozen=True, eq=False)
class Ranking:
    """What retrieval and neutral queries put first: the places of images, and what the groups get of them."""

    group: str
    top: int
    rank: bool
    queries: int
    described: dict[str, dict[str, Any]]
    heads: dict[str, dict[str, Any]]

    @classmethod
    def of(
        cls,
        found: Sequence[EncoderOutputs],
        group: str,
        quantities: Sequence[str],
        queries: Sequence[str],
        top: int,
    ) -> Ranking:
        """What can be told of answers such as these."""
        first = found[0]
        ranks = "rank" in quantities and first.to_text is not None and first.to_image is not None
        asked = len(first.queries) if "place" in quantities and first.queries is not None else 0
        if queries and asked and len(queries) != asked:
            raise BadInput(
                f"queries names {len(queries)}, and the encoders were asked {asked}; expected each to be "
                "named, in the order in which it was asked."
            )
        described: dict[str, dict[str, Any]] = {}
        heads: dict[str, dict[str, Any]] = {}
        if ranks:
            assert first.to_image is not None
            ends = {
                "low": short(math.log10(0.5), 7),
                "high": short(math.log10(len(first.to_image) + 0.5), 7),
            }
            lines = [short(math.log10(k + 0.5), 7) for k in _RECALLS]
            described["rank"] = described_as(RANK) | ends | {"bins": BINS, "zero": None, "lines": lines}
            described["rank"]["lined"] = f"lines: first {', '.join(map(str, _RECALLS))}"
            recalls = [{"name": f"recall@{k}", "unit": "%", "factor": 100} for k in _RECALLS]
            heads["rank"] = {"name": "Recall", "heads": recalls, "rows": ["all images"], "values": {}}
        if asked:
            skews = tables.skews(found[:1], group, top=top)  # refuses a top that is too long
            bins = bins_of_places(len(first.attributes))
            for number in range(asked):
                name = f"“{queries[number]}”" if queries else f"query {number + 1}"
                quantity = Quantity(f"place for {name}", closed=True, whole=True)
                key = f"place{number + 1}"
                line = {"lines": [top + 0.5], "lined": f"line: first {top}", "axis": "place in the ranking"}
                described[key] = described_as(quantity) | bins | line
                heads[key] = {
                    "name": f"The first {top} for {name}",
                    "heads": [
                        {"name": f"share of the first {top}", "unit": "%", "factor": 100},
                        {"name": "share of all", "unit": "%", "factor": 100},
                        {"name": "skew", "unit": "nats", "factor": 1},
                    ],
                    "rows": skews["measure"].unique().tolist(),
                    "values": {},
                }
        return cls(group, top, ranks, asked, described, heads)

    def places(self, found: Sequence[EncoderOutputs]) -> dict[str, NDArray[np.float64]]:
        """The logarithm of each rank, and the place for each query, encoder by encoder."""
        told = {}
        if self.rank:
            told["rank"] = np.log10(np.concatenate([_numbers(one.to_text) for one in found]))
        for number in range(self.queries):
            places = [_places(_numbers(one.queries)[number]) for one in found]
            told[f"place{number + 1}"] = np.concatenate(places)
        return told

    def tops(self, found: Sequence[EncoderOutputs]) -> dict[str, list[list[float | None]]]:
        """Recall of each group and of all; shares and skew of each group, and the skews over all groups."""
        codes, _ = found[0].codes(self.group)
        inside = [codes == code for code in np.unique(codes)]
        told: dict[str, list[list[float | None]]] = {}
        if self.rank:
            hits = np.stack([_numbers(one.to_text) <= np.array(_RECALLS)[:, None] for one in found])
            everyone = np.ones(len(codes), dtype=bool)
            told["rank"] = [
                [short(hit[:, own].mean()) for hit in hits.swapaxes(0, 1)] for own in (*inside, everyone)
            ]
        if not self.queries:
            return told
        skews = tables.skews(found, self.group, top=self.top)
        means = skews.groupby(["query", "measure"], sort=False)["value"].mean()
        for number in range(self.queries):
            ahead = [_places(_numbers(one.queries)[number]) <= self.top for one in found]
            rows: list[list[float | None]] = []
            for own in inside:
                counts, due = np.array([(first & own).sum() for first in ahead]), own.mean()
                skew = np.log(np.maximum(counts, 0.5) / self.top / due).mean()  # as in `populations.skews`
                rows.append([short(counts.mean() / self.top), short(due), short(skew)])
            told[f"place{number + 1}"] = rows + [[None, None, short(value)] for value in means[number]]
        return told


def _numbers(tensor: Tensor | None) -> NDArray[Any]:
    assert tensor is not None
    return tensor.numpy()


def _places(close: NDArray[Any]) -> NDArray[np.float64]:
    """The place of each image, the closest first; those that are equally close keep their order.

    >>> _places(np.array([0.1, 0.7, 0.1]))
    array([2., 1., 3.])
    """
    places = np.empty(len(close))
    places[np.argsort(-close, kind="stable")] = np.arange(1, len(close) + 1)
    return places
