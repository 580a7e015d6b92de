"""Gradient norms of groups beside what else is known of these: accuracy, size, difficulty, rounded inputs."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from fairq_audit.formats import counted, number, signed
from fairq_book.kit import wording
from fairq_book.kit.by_network import MeasuredNetworks, load
from fairq_book.kit.claims import BELLAM, Claim, Effect, effect_in_row
from fairq_book.kit.interventions import Networks
from fairq_book.kit.measured import Measured
from fairq_book.kit.tables import over_seeds, side_by_side_groups, standing_treatments, student_interval
from fairq_book.kit.treatments import columns_of
from fairq_book.kit.wording import Prose, Verdict, Word, with_interval, word_of
from fairq_utils.data.sources import ROLES
from fairq_utils.intervals import ratio_of_means
from fairq_utils.metrics.by_network import effects_of_two
from fairq_utils.metrics.ranks import rank_agreement
from fairq_utils.treatments.treatment import FP32

_FEWEST_TO_RANK = 3

# ---------------------------------------------------------------- against accuracy


def beside_accuracy(landscape: pd.DataFrame, by_seed: pd.DataFrame) -> pd.DataFrame:
    """Of each network and group: its gradient norm, and its accuracy on test images.

    In full precision and at plain widths. `landscape` and `by_seed` of the functions of these names.
    """
    names = landscape["treatment"].unique()
    plain = [name for name in names if name in (FP32.name, f"int{columns_of(name)['bits']}")]
    tested = by_seed[by_seed["n"] > 0]
    right = tested.assign(accuracy=tested["correct"] / tested["n"])
    keys = ["treatment", "seed", "group"]
    both = landscape[[*keys, "gradient_norm"]].merge(right[[*keys, "accuracy"]], on=keys)
    return both[both["treatment"].isin(plain)].reset_index(drop=True)


def norm_with_accuracy(both: pd.DataFrame) -> pd.DataFrame:
    """Records: Spearman's correlation over the groups of gradient norm and accuracy, by treatment.

    `both` of `beside_accuracy`. `estimate` is the mean over single networks, with Student's interval. `rho`
    is that of the means over networks, and `p` says how often chance finds as much when it permutes the
    groups, which are the data, in however many networks. Of fewer than three groups there is none.
    """
    rows, of_means = [], {}
    for treatment, own in both.groupby("treatment", sort=False):
        means = own.assign(norm=np.log(own["gradient_norm"])).groupby("group")[["norm", "accuracy"]].mean()
        if len(means) < _FEWEST_TO_RANK or not (np.ptp(means, axis=0) > 0).all():
            continue
        of_means[treatment] = rank_agreement([means["norm"]], [means["accuracy"]])
        for seed, single in own.groupby("seed"):
            value = single["gradient_norm"].corr(single["accuracy"], method="spearman")
            rows.append((treatment, seed, len(means), value))
    table = pd.DataFrame(rows, columns=["treatment", "seed", "groups", "value"])
    found = over_seeds(table, ["treatment", "groups"], 0.95, back=np.asarray)
    agreements = [of_means[name] for name in found["treatment"]]
    return found.assign(rho=[one.rho for one in agreements], p=[one.p for one in agreements])


def high_where_wrong(found: pd.DataFrame, collapse: pd.DataFrame, *, seeds: int) -> Verdict:
    """Have groups of higher gradient norm the lower accuracy, at each width? By `norm_with_accuracy`.

    Collapsed networks count, for it is a sign of failure that is asked about. Full precision stands beside.
    """
    claim = "Groups of higher gradient norm have the lower accuracy."
    rows = found.to_dict("records")
    rounded = [row for row in rows if row["treatment"] != FP32.name]
    if not rounded:
        return Verdict(claim, "undecided", "There is no width at which three groups or more can be ranked.")
    parts = [Verdict(f"At {row['treatment']}.", _word_of_rank(row), "") for row in rounded]
    chain = wording.together(claim, parts)
    said = "; ".join(
        f"{row['treatment']} {signed(row['rho'], 2)} (p = {row['p']:.2f}; in single networks "
        f"{_correlation(row)})"
        for row in rows
    )
    standing = standing_treatments(collapse)
    fallen = [row["treatment"] for row in rounded if row["treatment"] not in standing]
    apart = (
        f" At {' and '.join(fallen)} accuracy only says which answer is left, for networks have collapsed."
    )
    before = [row["rho"] for row in rows if row["treatment"] == FP32.name]
    as_low = bool(before) and before[0] <= min(row["rho"] for row in rounded) and before[0] < 0
    already = " In full precision it is as low at least, so it is no sign of what rounding does."
    return replace(
        chain,
        because=f"{chain.because} Rank correlations over {counted(int(found['groups'].max()), 'group')}, of "
        f"means over {counted(seeds, 'seed')}, with p by permuting the groups: {said}."
        f"{already if as_low else ''}{apart if fallen else ''}",
    )


def _word_of_rank(row: Mapping[Hashable, Any]) -> Word:
    surely = row["p"] < 0.05
    return word_of(speaks_for=surely and row["rho"] < 0, speaks_against=surely and row["rho"] > 0)


def _correlation(row: Mapping[Hashable, Any]) -> str:
    ends = (float(np.clip(row[name], -1, 1)) for name in ("estimate", "lower", "upper"))
    return with_interval(lambda value: signed(value, 2), *ends)


def _of(measured: Measured) -> pd.DataFrame:
    return norm_with_accuracy(beside_accuracy(measured["landscape"], measured["accuracy_by_seed"]))


def _shown(measured: Measured) -> list[Effect]:
    found = _of(measured)
    says = "rank correlation of gradient norm and accuracy"
    return [
        effect_in_row(measured, "landscape", found, f"{says}, {name}", "rank", {"treatment": name})
        for name in found["treatment"]
    ]


CLAIMS = (
    Claim(
        "A7c",
        "A sign of failure: groups of higher gradient norm have the lower accuracy.",
        BELLAM,
        "04_hessian_landscape",
        ("landscape", "accuracy_by_seed", "collapse"),
        lambda measured: high_where_wrong(_of(measured), measured["collapse"], seeds=measured.seeds),
        _shown,
    ),
)

# ---------------------------------------------------------------- size and difficulty, and rounded inputs

# Settings whose focal group is neither small nor hard, small, hard, and both.
KINDS = ("moths_equal_steep", "moths_by_size_steep", "moths_by_difficulty_steep", "moths_by_both_steep")
INPUTS = "moths_steep"
_FOCAL = ROLES[-1]
_KINDS_IN_WORDS = ("neither small nor hard", "small", "hard", "small and hard")
_CAUSES = {"first": "what being small adds", "second": "what being hard adds"}


@dataclass(frozen=True)
class Question:
    """What is asked of gradient norms, and the row of `by_kind` or `by_inputs` that answers it."""

    key: str
    asks: str
    said: str  # what the number of each network is
    treatment: str
    row: str


_OF_FOCAL = "squared gradient norm less sampling, focal group less peers"
_OF_MINORITIES = "gradient norm, minorities in times the majority"
QUESTIONS = (
    Question(
        "G1",
        "Does being small make the loss of a group steeper?",
        f"{_OF_FOCAL}, what size adds",
        "fp32",
        _CAUSES["first"],
    ),
    Question(
        "G2",
        "Does being hard?",
        f"{_OF_FOCAL}, what difficulty adds",
        "fp32",
        _CAUSES["second"],
    ),
    Question(
        "G3",
        "Does being small, at four bits?",
        f"{_OF_FOCAL}, what size adds, int4",
        "int4",
        _CAUSES["first"],
    ),
    Question(
        "G4",
        "Does being hard, at four bits?",
        f"{_OF_FOCAL}, what difficulty adds, int4",
        "int4",
        _CAUSES["second"],
    ),
    Question(
        "G5",
        "Do activations of four bits make the loss of minorities steeper?",
        f"{_OF_MINORITIES}, a4 against fp32",
        "a4",
        "fp32",
    ),
    Question(
        "G6",
        "Do they where weights have four bits?",
        f"{_OF_MINORITIES}, w4a4 against int4",
        "w4a4",
        "int4",
    ),
)


def measured_kinds() -> list[MeasuredNetworks]:
    """The networks of each kind of moths, as they were measured before."""
    return [load(name) for name in KINDS]


def measured_inputs() -> MeasuredNetworks:
    """The networks whose inputs are rounded, as they were measured before."""
    return load(INPUTS)


def by_kind(kinds: Sequence[MeasuredNetworks | Networks], split: str = "train") -> pd.DataFrame:
    """Records: the squared gradient norm, less sampling, of the focal group in times that of its peers.

    `kinds` are networks whose focal group is neither small nor hard, small, hard, and both, of which the
    seeds count that all have. A row each: the ratio of means over networks, with Fieller's interval. Beside
    these what size adds to the difference of focal group and peers, on average over difficulty, and what
    difficulty does; with Student's interval, in units of the mean squared norm that peers have in full
    precision where all are alike.
    """
    found = []
    wide = [_squares(own, split) for own in kinds]
    shared = set.intersection(*(set(own.index.unique("seed")) for own in wide))
    wide = [own[own.index.isin(shared, level="seed")] for own in wide]
    unit = wide[0].loc[FP32.name].drop(columns=_FOCAL).to_numpy().mean()
    for treatment in wide[0].index.unique("treatment"):
        focal = [own.loc[treatment][_FOCAL] for own in wide]
        peers = [own.loc[treatment].drop(columns=_FOCAL).mean(axis=1) for own in wide]
        about = {"treatment": treatment, "split": split, "networks": len(shared)}
        for row, above, below in zip(_KINDS_IN_WORDS, focal, peers, strict=True):
            ends = dict(zip(("estimate", "lower", "upper"), ratio_of_means(above, below), strict=True))
            found.append(about | {"row": row} | ends)
        effects = effects_of_two(*(above - below for above, below in zip(focal, peers, strict=True)))
        for effect, row in _CAUSES.items():
            values = pd.Series(effects[effect] / unit)
            found.append(about | {"row": row} | student_interval(values, 0.95))
    return pd.DataFrame(found)


def _squares(measured: MeasuredNetworks | Networks, split: str) -> pd.DataFrame:
    """Of each treatment and network the squared gradient norm of each group, less sampling."""
    own = measured.table[measured.table["split"] == split]
    return side_by_side_groups(own, ["treatment", "seed"], "squared_gradient_norm")


def by_inputs(measured: MeasuredNetworks | Networks, split: str = "train") -> pd.DataFrame:
    """Records: the gradient norm of minorities in times the majority's, and how rounding inputs changes it.

    Minorities by their geometric mean. `row` is "level", or the treatment that the ratio is divided by:
    full precision, and where weights are rounded as well the same without rounded inputs. Networks are
    paired. `every` is what happens to the norm of all groups, in times.
    """
    own = measured.table[measured.table["split"] == split]
    logs = side_by_side_groups(own, ["treatment", "seed"], "gradient_norm").apply(np.log)
    level = logs.drop(columns=measured.majority).mean(axis=1) - logs[measured.majority]
    every = logs.mean(axis=1)
    rows = []
    for name in own["treatment"].unique():
        references = {FP32.name, f"int{columns_of(name)['bits']}"} & set(level.index.unique("treatment"))
        of = {"level": level[name]}
        of |= {one: level[name] - level[one] for one in sorted(references - {name})}
        for row, values in of.items():
            ends = {end: float(np.exp(value)) for end, value in student_interval(values, 0.95).items()}
            whole = float(np.exp((every[name] - every[FP32.name]).mean()))
            rows.append({"treatment": name, "row": row, "networks": len(values), "every": whole} | ends)
    return pd.DataFrame(rows)


def kinds_in_a_table(kinds: Sequence[MeasuredNetworks]) -> pd.DataFrame:
    """`by_kind` for a reader: on training images, and in full precision on test images too."""
    of_training, of_test = by_kind(kinds), by_kind(kinds, "test")
    rows = list(dict.fromkeys(of_training["row"]))
    shown = {
        treatment: [_times(row) for row in own.set_index("row").loc[rows].to_dict("records")]
        for treatment, own in of_training.groupby("treatment", sort=False)
    }
    tested = of_test[of_test["treatment"] == FP32.name].set_index("row").loc[rows]
    shown["fp32, test images"] = [_times(row) for row in tested.to_dict("records")]
    heading = f"{of_training['networks'].iloc[0]} networks of each kind"
    return pd.DataFrame(
        shown,
        index=pd.Index(
            [f"focal group {row}" if row in _KINDS_IN_WORDS else row for row in rows], name=heading
        ),
    )


def inputs_in_a_table(measured: MeasuredNetworks) -> pd.DataFrame:
    """`by_inputs` for a reader: a row for each treatment."""
    found = by_inputs(measured)
    columns = {
        "level": "minorities in times the majority",
        FP32.name: "that, in times fp32",
        "int4": "in times int4",
    }
    shown = {}
    for treatment, own in found.groupby("treatment", sort=False):
        by_row = own.set_index("row").to_dict("index")
        shown[treatment] = {
            said: _times(by_row[row]) if row in by_row else "" for row, said in columns.items()
        }
        shown[treatment]["norm of all groups, in times fp32"] = number(own["every"].iloc[0], 2)
    return pd.DataFrame(shown).T.rename_axis(f"{found['networks'].iloc[0]} networks")


def answers(kinds: Sequence[MeasuredNetworks], inputs: MeasuredNetworks) -> Prose:
    """The registered questions on gradient norms, with what the networks say, on training images."""
    of_kind, of_inputs, lines = by_kind(kinds), by_inputs(inputs), []
    for question in QUESTIONS:
        of_focal = question.row in _CAUSES.values()
        table, none, unit = (of_kind, 0.0, "a peer's") if of_focal else (of_inputs, 1.0, question.row)
        chosen = (table["treatment"] == question.treatment) & (table["row"] == question.row)
        (row,) = table[chosen].to_dict("records")
        word = "yes" if row["lower"] > none else "the reverse" if row["upper"] < none else "open"
        networks = counted(row["networks"], "network") + (" of each kind" if of_focal else "")
        lines.append(
            f"- **{question.asks}** ({question.key}: {question.said}.) *{word}*, {_times(row)} times {unit}, "
            f"over {networks}."
        )
    return Prose("\n".join(lines))


def _times(row: Mapping[Hashable, Any]) -> str:
    if np.isinf(row["lower"]):
        return f"{number(row['estimate'], 2)} (no bounds)"
    return with_interval(
        lambda value: number(value, 2), *(row[end] for end in ("estimate", "lower", "upper"))
    )
