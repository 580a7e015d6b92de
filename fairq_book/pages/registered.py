"""How large a difference the registered numbers of networks leave possible, from what pilots scattered.

`python -m fairq_book.pages.registered` writes the tables on the page of registered questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from fairq_book.chapters.disparity.tables import KINDS_OF_MOTHS
from fairq_book.chapters.landscape import norms
from fairq_book.chapters.language import questions as languages
from fairq_book.kit import remedy_questions
from fairq_book.kit.interventions import QUESTIONS, Question
from fairq_book.root import book_root
from fairq_utils.data.sources import ROLES
from fairq_utils.files import write_atomically
from fairq_utils.metrics.by_network import JUMP, TREND, effects_of_two, others_against, over_widths
from fairq_utils.metrics.verdicts import MARGINS

_LARGEST = "Alder"
NETWORKS, OF_A_KIND = 20, 30
FOCAL = len(ROLES) - 1
_MARGINS = {f"int{bits}": round(100 * margin) for bits, margin in MARGINS.items()}  # in points


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

    def add(question: str, asked: str, values: NDArray[np.float64], networks: int, margin: float) -> None:
        sd = float(values.std(ddof=1))
        x = special.stdtrit(networks - 1, 0.95) * sd / np.sqrt(networks)
        about = {"question": question, "of": asked, "sd": round(sd, 1), "networks": networks}
        found.append(about | {"x": round(float(x), 1), "margin": margin})

    def changed(dataset: str, treatment: str) -> pd.DataFrame:
        return by_network[dataset, treatment] - by_network[dataset, "fp32"]

    of_width = {name: changed("moths", name) for name in _MARGINS}
    contrast = {
        name: others_against(change, list(change).index(_LARGEST)) for name, change in of_width.items()
    }
    over = np.stack(list(contrast.values()), axis=1)
    add("M1", "contrast, int4 minus int8", over_widths(over, JUMP), NETWORKS, _MARGINS["int4"])
    add("M2", "trend of the contrast", over_widths(over, TREND), NETWORKS, _MARGINS["int4"])
    for name, margin in _MARGINS.items():
        add("M3", f"contrast at {name}", contrast[name], NETWORKS, margin)
    for name, margin in _MARGINS.items():
        gaps = [np.ptp(by_network["moths", one].to_numpy(), axis=1) for one in (name, "fp32")]
        add("M4", f"FVO per network at {name}", gaps[0] - gaps[1], NETWORKS, margin)
    for treatment in ("int4", "int3-mse-channel"):
        kinds = [changed(dataset, treatment)[list(ROLES)] for dataset in KINDS_OF_MOTHS]
        beyond = [-others_against(change, FOCAL) for change in kinds]
        effects = effects_of_two(*beyond)
        for question, effect, cause in (("M6", "first", "size"), ("M7", "second", "difficulty")):
            asked = f"what {cause} adds at {treatment}"
            add(question, asked, effects[effect], OF_A_KIND, _MARGINS["int3"])
    return pd.DataFrame(found)


# The settings that questions on why are asked of, with the number of their networks.
WHY = {"moths_why": 20, "utkface_why": 12}


def listed(questions: Sequence[Question | languages.Question]) -> pd.DataFrame:
    """The questions as they stand on the page."""
    rows = [(own.key, own.asks, own.said, own.yes, round(100 * own.margin)) for own in questions]
    return pd.DataFrame(rows, columns=["", "question", "number of each network", "yes if it", "margin"])


def steep_questions() -> pd.DataFrame:
    """The questions on gradient norms, as they stand on the page."""
    rows = [(own.key, own.asks, own.said) for own in norms.QUESTIONS]
    return pd.DataFrame(rows, columns=["", "question", "number of each network"])


def why_scatter(pilots: pd.DataFrame) -> pd.DataFrame:
    """Of each question on why: what pilots scatter by, and what the registered networks leave possible.

    `pilots` holds, for each setting, question and seed, the `points`, as `interventions.numbers` makes them.
    """
    rows = []
    for question in QUESTIONS:
        row: dict[str, object] = {"question": question.key}
        for name, count in WHY.items():
            chosen = (pilots["setting"] == name) & (pilots["question"] == question.key)
            sd = float(pilots["points"][chosen].std())
            x = float(special.stdtrit(count - 1, 0.95)) * sd / np.sqrt(count)
            of = name.partition("_")[0]
            row |= {f"sd, {of}": round(sd, 1), f"x, {of}": round(x, 1)}
        rows.append(row | {"margin": round(100 * question.margin)})
    return pd.DataFrame(rows)


def main() -> None:
    """Write the tables anew."""
    made = {
        "moths.csv": scatter(pd.read_csv(folder() / "moths_pilots.csv")),
        "why.csv": listed(QUESTIONS),
        "steep.csv": steep_questions(),
        "repair.csv": listed([*remedy_questions.OF_WIDTHS, *remedy_questions.QUESTIONS]),
        "language.csv": listed(languages.QUESTIONS),
        "why_scatter.csv": why_scatter(pd.read_csv(folder() / "why_pilots.csv")),
    }
    for name, table in made.items():
        write_atomically(folder() / name, table.to_csv(index=False, lineterminator="\n").encode())


if __name__ == "__main__":
    main()
