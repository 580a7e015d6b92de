"""How often an audit errs, and how often it finds harm: simulated where it is known who pays.

Two models are drawn that answer the same rows, and `fairq_audit.audit` is asked as anybody would ask it.
`write` puts a table into `book/procedures`, which the page shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.random import Generator

from fairq_audit.auditing import audit
from fairq_utils.files import write_atomically

_GROUPS = {"alder": 0.5, "birch": 0.25, "clover": 0.15, "damson": 0.1}
_CLASSES = {"common": 0.6, "less": 0.3, "rare": 0.1}
CALM, BEYOND, HARMED = "calm", "beyond", "harmed"  # nobody pays; a limit is exceeded; somebody pays
_HARM = 0.1  # of the right answers of the smallest group
QUANTITIES = (
    "overall_drop",
    "worst_group_drop",
    "group_drop[damson]",
    "contrast",
    "fvo_increase",
    "worst_recall_drop",
    "recall_drop[rare]",
    "fpr_rise[rare]",
    "precision_drop[rare]",
    "equalized_odds_increase",
    "calibration_rise",
)


@dataclass(frozen=True)
class World:
    """So many rows, `frames` of each person; `weighted`: rows stand for different numbers of people."""

    title: str
    rows: int
    frames: int = 1
    weighted: bool = False
    blind: bool = False  # whether the audit is told of neither

    def settings(self) -> dict[str, Any]:
        """What an audit is told of how the rows were drawn."""
        if self.blind:
            return {}
        found = {"cluster": "person"} if self.frames > 1 else {}
        return found | ({"weight": "worth"} if self.weighted else {})


WORLDS = (
    World("2,000 rows", 2000),
    World("10,000 rows", 10_000),
    World("2,000 rows by weight", 2000, weighted=True),
    World("400 people, five frames each", 2000, frames=5),
    World("the same, not told", 2000, frames=5, blind=True),
)


def draw(world: World, harm: float, rng: Generator) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What two models answer that differ by chance alone, but for the harm done to the smallest group."""
    people = max(world.rows // world.frames, 1)
    person = np.repeat(np.arange(people), world.frames)
    n = len(person)
    group = rng.choice(list(_GROUPS), people, p=list(_GROUPS.values()))[person]
    label = rng.choice(len(_CLASSES), people, p=list(_CLASSES.values()))[person]
    truth = 2.2 * np.eye(len(_CLASSES))[label]

    def noise(spread: float) -> np.ndarray:
        """Half of it is a person's, half a row's."""
        own = rng.normal(size=(people, len(_CLASSES)))[person] if world.frames > 1 else 0.0
        apart = rng.normal(size=(n, len(_CLASSES)))
        return spread * (np.sqrt(0.5) * (own + apart) if world.frames > 1 else apart)

    common, sides = truth + noise(1.0), []
    for after in (False, True):
        scores = common + noise(0.5)
        if after:
            hit = (group == "damson") & (rng.random(n) < harm)
            scores[hit, label[hit]] -= 6
        sides.append(scores)
    names = np.array(list(_CLASSES))
    base = pd.DataFrame({"id": np.arange(n), "label": names[label], "group": group, "person": person})
    base["worth"] = rng.uniform(0.3, 5, n)
    columns = [f"logit_{name}" for name in names]
    first, second = (base.join(pd.DataFrame(2 * scores, columns=columns)) for scores in sides)
    return first, second[["id", *columns]]


def asked(world: World, harm: float, limits: dict[str, float], rng: Generator) -> dict[str, str]:
    """The verdict of one audit, and what became of a gate on each quantity at its limit."""
    gates = [f"{name} > {limits[name]:.6f}" for name in QUANTITIES]
    found = audit(*draw(world, harm, rng), fail_if=gates, positive="rare", **world.settings())
    outcomes = [gate["outcome"] for gate in found.record["gates"]]
    return {"verdict": found.verdict} | dict(zip(QUANTITIES, outcomes, strict=True))


def truths(harm: float, seed: int = 0) -> dict[str, float]:
    """What the quantities are with a quarter of a million rows; without harm they are nought."""
    if harm == 0:
        return dict.fromkeys(QUANTITIES, 0.0)
    rng = np.random.default_rng([seed, 9])
    gates = [f"{name} > 0" for name in QUANTITIES]
    found = audit(*draw(World("", 250_000), harm, rng), fail_if=gates, positive="rare")
    return {
        name: gate["value"]["estimate"] for name, gate in zip(QUANTITIES, found.record["gates"], strict=True)
    }


def simulated(audits: int = 400, *, seed: int = 0) -> pd.DataFrame:
    """In percent of so many audits: false alarms, false calm and what is found, a column a world."""
    limits = {harm: truths(harm, seed) for harm in (0.0, _HARM)}
    columns = {}
    for place, world in enumerate(WORLDS):
        rng = np.random.default_rng([seed, place])
        calm = [asked(world, 0.0, limits[0.0], rng) for _ in range(audits)]
        # A limit just below what is true: who passes it is wrong.
        below = {name: max(value - 1e-4, -0.99) for name, value in limits[_HARM].items()}
        beyond = [asked(world, _HARM, below, rng) for _ in range(audits)]
        found = [asked(world, _HARM, limits[0.0], rng) for _ in range(audits)]

        def share(of: list[dict[str, str]], what: str, word: str) -> float:
            return round(100 * float(np.mean([own[what] == word for own in of])), 1)

        columns[world.title] = {
            (CALM, "verdict"): share(calm, "verdict", "harm shown"),
            **{(CALM, name): share(calm, name, "failed") for name in QUANTITIES},
            **{(BEYOND, name): share(beyond, name, "passed") for name in QUANTITIES},
            (HARMED, "verdict"): share(found, "verdict", "harm shown"),
            **{(HARMED, name): share(found, name, "failed") for name in QUANTITIES},
        }
    table = pd.DataFrame(columns)
    table.index.names = ["truth", "asked"]
    return table.reset_index()


def write(folder: Path, audits: int = 400, *, seed: int = 0) -> list[Path]:
    """Simulate, and put a table for each truth into a folder."""
    found, written = simulated(audits, seed=seed), []
    for truth in (CALM, BEYOND, HARMED):
        own = found[found["truth"] == truth].drop(columns="truth")
        written.append(folder / f"audits_{truth}.csv")
        write_atomically(written[-1], own.to_csv(index=False).encode())
    return written
