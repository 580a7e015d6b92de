"""How large a difference the registered numbers of networks leave possible, from what pilots scattered.

`python -m fairq_book.pages.registered` writes the table on the page of registered questions.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from scipy import special

from fairq_book.root import book_root
from fairq_utils.files import write_atomically

_LARGEST = "Alder"
_ROLES = ("Peer 1", "Peer 2", "Peer 3", "Peer 4", "Focal")
_SMALL, _HARD = ("moths-by-size", "moths-by-both"), ("moths-by-difficulty", "moths-by-both")
NETWORKS, OF_A_KIND = 20, 30
# Per question the margin in points, of those that are asked at one width.
_MARGINS = {"int8": 1, "int6": 1, "int5": 3, "int4": 3, "int3": 5}
_TREND = {"int8": -0.8, "int6": -0.4, "int5": 0.0, "int4": 0.4, "int3": 0.8}


def folder(root: Path | None = None) -> Path:
    """Where the pilots' numbers lie, and the table that is made of them."""
    return (root or book_root()) / "book" / "registered"


def scatter(pilots: pd.DataFrame) -> pd.DataFrame:
    """Of each registered question: what networks scatter by, and what so many of them leave possible.

    `pilots` counts, for each data set, treatment, seed and group, the test images (`n`) and the right answers
    (`correct`). In points. `x` is the bound of two one-sided tests at 95 % where the mean shows nothing.
    """
    share = pilots.assign(share=100 * pilots["correct"] / pilots["n"])
    by_network = {
        key: own.pivot_table(index="seed", columns="group", values="share")
        for key, own in share.groupby(["dataset", "treatment"])
    }
    found = []

    def add(question: str, asked: str, values: pd.Series, networks: int, margin: float) -> None:
        sd = float(values.std())
        x = special.stdtrit(networks - 1, 0.95) * sd / np.sqrt(networks)
        about = {"question": question, "of": asked, "sd": round(sd, 1), "networks": networks}
        found.append(about | {"x": round(float(x), 1), "margin": margin})

    def changed(dataset: str, treatment: str) -> pd.DataFrame:
        return by_network[dataset, treatment] - by_network[dataset, "fp32"]

    def gaps(treatment: str) -> pd.Series:
        own = by_network["moths", treatment]
        return own.max(axis=1) - own.min(axis=1)

    contrast = {}
    for treatment in _MARGINS:
        change = changed("moths", treatment)
        contrast[treatment] = change.drop(columns=_LARGEST).mean(axis=1) - change[_LARGEST]
    add("M1", "contrast, int4 minus int8", contrast["int4"] - contrast["int8"], NETWORKS, 3)
    trend = pd.DataFrame(contrast) @ pd.Series(_TREND)
    add("M2", "trend of the contrast", trend, NETWORKS, 3)
    for treatment, margin in _MARGINS.items():
        add("M3", f"contrast at {treatment}", contrast[treatment], NETWORKS, margin)
    for treatment, margin in _MARGINS.items():
        add("M4", f"FVO per network at {treatment}", gaps(treatment) - gaps("fp32"), NETWORKS, margin)
    for treatment in ("int4", "int3-mse-channel"):
        beyond = {}
        for dataset in ("moths-equal", "moths-by-size", "moths-by-difficulty", "moths-by-both"):
            *peers, focal = _ROLES
            change = changed(dataset, treatment)
            beyond[dataset] = change[focal] - change[peers].mean(axis=1)
        for question, cause, kinds in (("M6", "size", _SMALL), ("M7", "difficulty", _HARD)):
            effect = pd.DataFrame(beyond) @ pd.Series(
                {name: 0.5 if name in kinds else -0.5 for name in beyond}
            )
            add(question, f"what {cause} adds at {treatment}", effect, OF_A_KIND, 5)
    return pd.DataFrame(found)


def main() -> None:
    """Write the table anew."""
    table = scatter(pd.read_csv(folder() / "moths_pilots.csv"))
    write_atomically(folder() / "moths.csv", table.to_csv(index=False, lineterminator="\n").encode())


if __name__ == "__main__":
    main()
