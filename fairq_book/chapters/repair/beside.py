"""Remedies beside one another: figures, tables and sentences on networks that were measured before."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from fairq_audit.formats import true_minus
from fairq_book.experiments.settings import find_setting
from fairq_book.kit import interventions
from fairq_book.kit.by_network import MeasuredNetworks, measured
from fairq_book.kit.figures import (
    FAINT,
    INK,
    Picture,
    canvas,
    drawn,
    error_bars,
    few_numbers,
    legend_above,
    look_of,
    rows_of_dots,
)
from fairq_book.kit.interventions import Networks, answer, ends_of, in_rows, in_words
from fairq_book.kit.remedies import (
    LINES,
    TRAINED,
    UNTRAINED,
    WIDTHS,
    Choice,
    arm,
    compared,
    gap,
    people,
    what_to_do,
)
from fairq_book.kit.remedy_questions import CHAPTER, OF_WIDTHS, QUESTIONS
from fairq_book.kit.tables import student_interval
from fairq_book.kit.wording import Prose, in_points
from fairq_utils.data.sources import ROLES
from fairq_utils.metrics.by_network import others_against
from fairq_utils.metrics.verdicts import MARGINS, Reading, read
from fairq_utils.treatments.ablations import parse_name
from fairq_utils.treatments.treatment import Treatment

CAUSES = {
    "moths_equal_repair": "all groups alike",
    "moths_by_size_repair": "one group small",
    "moths_by_difficulty_repair": "one group hard",
    "moths_by_both_repair": "small and hard",
}
_CURES = {
    "sampled": "ends8-qat-sampled",
    "loss weights": "ends8-qat-weighted",
    "both: FairQAT": "fairqat",
    "group-DRO": "ends8-qat-dro",
}


def _networks(one: MeasuredNetworks) -> Networks:
    return Networks(one.table, one.majority)


def who_answers(names: Sequence[str]) -> Prose:
    """How many networks there are of each setting, of how many that were registered."""
    there = {own.name: own.networks for own in measured(names)}
    said, unfinished = [], False
    for setting in map(find_setting, names):
        own, registered = there.get(setting.name, 0), len(list(setting.seeds))
        unfinished |= own < registered
        of = f"{own} of {registered}" if own < registered else f"all {registered}"
        said.append(f"on {setting.title.partition(',')[0]} {of}")
    more = " What fewer than that say is provisional: the others are made in the order of their seeds."
    return Prose(
        f"Networks that answer, of those that were registered: {', '.join(said)}.{more * unfinished}"
    )


# ---------------------------------------------------------------- every remedy at one width


def remedies(settings: Sequence[MeasuredNetworks], bits: int, *, trained: bool) -> Picture:
    """What each remedy changes at that width, a panel for each data set; what trains, against plain QAT."""
    known = TRAINED if trained else UNTRAINED
    before = arm(bits, "ends8-qat" if trained else "")
    found = [
        compared(
            _networks(one),
            {row: arm(bits, words) for row, words in known.items()},
            before,
            width=one.short_title,
        )
        for one in settings
    ]
    against = "plain QAT, which trained as long" if trained else "rounding alone"
    counts = " and ".join(f"{one.networks} networks on {one.short_title}" for one in settings)
    table = pd.concat(found)
    return rows_of_dots(
        table.assign(row=table["row"].map(lambda row: textwrap.fill(row, 30))),
        ["OA", "FVO"],
        what=f"What remedies change at int{bits}",
        caption=f"What each remedy changes at int{bits} against {against}, in points, with 95 % "
        f"intervals over {counts}. A remedy is good where OA is to the right and FVO to the left.",
    )


def frontier(settings: Sequence[MeasuredNetworks], bits: int) -> Picture:
    """OA against FVO of every remedy at that width, a panel for each data set; what was chosen is named."""
    said = []
    with canvas(3.6, columns=len(settings)) as (figure, axes):
        for axis, one in zip(axes[0], settings, strict=True):
            networks = _networks(one)
            points = {name: arm(bits, words) for name, words in {**UNTRAINED, **TRAINED}.items()}
            there = {row: name for row, name in points.items() if name in set(networks.table["treatment"])}
            at = {
                row: (100 * networks.overall(name).mean(), 100 * gap(networks, name).mean())
                for row, name in there.items()
            }
            named = {"rounded", "FairQAT"} | {own.remedy for own in what_to_do(networks, bits).values()}
            for row, (overall, fvo) in at.items():
                trained = row in TRAINED and row != "rounded, 8 bits at the ends"
                look = {"marker": "o" if trained else "s", "markersize": 6 if row in named else 4}
                axis.plot([overall], [fvo], color=INK if row in named else FAINT, linestyle="", **look)
                said.append(f"{one.short_title}, {row}: OA {overall:.1f}, FVO {fvo:.1f}")
            middle = np.mean([overall for overall, _ in at.values()])
            apart = 0.06 * np.ptp([fvo for _, fvo in at.values()])
            height = -np.inf
            for row in sorted(named & at.keys(), key=lambda name: at[name][1]):
                overall, fvo = at[row]
                height = max(fvo, height + apart)  # so that no name covers another
                left = overall > middle  # nor leaves the panel
                axis.annotate(
                    row,
                    (overall, fvo),
                    (overall + (-0.4 if left else 0.4), height),
                    ha="right" if left else "left",
                    va="center",
                    fontsize=8.5,
                )
            axis.set(xlabel="OA, %", ylabel="FVO, points", title=one.short_title)
        return drawn(
            figure,
            alt=f"Scatter plots of FVO against OA at int{bits}. {'; '.join(said)}.",
            caption=f"Every remedy at int{bits}, means over networks: round marks are trained, square ones "
            "are not. Better is to the right and below. Named are rounding alone, the published remedy, and "
            "what networks chose in the list below.",
        )


def by_bytes(settings: Sequence[MeasuredNetworks]) -> Picture:
    """The contrast of rounding, of pruning and of fewer channels where they take as many bytes."""
    found = []
    for one in settings:
        networks = _networks(one)
        rows = {}
        for bits in WIDTHS:
            rows[f"{bits} bits"] = {
                "rounded": (arm(bits), "fp32"),
                "pruned": (f"pruned{bits}", "fp32"),
                "rounded, trained": (arm(bits, "ends8-qat"), "fp32"),
                "pruned, trained": (arm(bits, "qat", "pruned"), "fp32"),
                "fewer channels": (f"narrow{bits}", "fp32"),
                "fewer channels, distilled": (f"narrow{bits}-distilled", "fp32"),
            }
        found.append(in_rows(networks, rows, width=one.short_title))
    table = pd.concat(found)
    return rows_of_dots(
        table,
        list(dict.fromkeys(table["group"])),
        what="The contrast where as many bytes are saved in other ways",
        caption="The contrast against full precision where the network takes the bytes of so many bits for a "
        "weight: by rounding, by pruning with a mask, or with fewer channels. With 95 % intervals over "
        "networks. Left of the line the smaller groups lose more.",
    )


# ---------------------------------------------------------------- how long to train


def longer(trained: MeasuredNetworks) -> pd.DataFrame:
    """OA and FVO by how often training went over the images: of QAT at each width, and of full precision."""
    networks = _networks(trained)
    rows = []
    for name in networks.table["treatment"].unique():
        one = parse_name(name)
        if isinstance(one, Treatment) and one.passes:
            for measure, values in (("OA", networks.overall(name)), ("FVO", gap(networks, name))):
                about = {"width": f"int{one.bits}" if one.bits else "fp32", "passes": one.passes}
                rows.append(about | {"measure": measure} | student_interval(pd.Series(values), 0.95))
    return pd.DataFrame(rows)


def learning_curves(table: pd.DataFrame) -> Picture:
    """OA and FVO over the number of passes, a line for each width; by `longer`."""
    widths = [name for name in ("fp32", *(f"int{bits}" for bits in WIDTHS)) if name in set(table["width"])]
    looks = {name: look_of(number, name) for number, name in enumerate(widths)}
    said = []
    with canvas(3.0, columns=2) as (figure, axes):
        for axis, measure in zip(axes[0], ("OA", "FVO"), strict=True):
            few_numbers(axis, 2)
            for name, look in looks.items():
                rows = table[(table["measure"] == measure) & (table["width"] == name)].sort_values("passes")
                axis.errorbar(
                    rows["passes"],
                    100 * rows["estimate"],
                    yerr=error_bars(rows),
                    markersize=4,
                    elinewidth=0.8,
                    **look,
                )
                numbers = ", ".join(
                    f"{row['passes']} {100 * row['estimate']:.1f}" for row in rows.to_dict("records")
                )
                said.append(f"{measure}, {name}: {numbers}")
            passes = sorted(table["passes"].unique())
            axis.set_xscale("log", base=2)
            axis.set_xticks(passes, [str(count) for count in passes])
            axis.set(xlabel="passes over the images", ylabel="OA, %" if measure == "OA" else "FVO, points")
        legend_above(figure, looks)
        return drawn(
            figure,
            alt=f"Lines over the number of passes. {'; '.join(said)}.",
            caption="Training further, quantized (int) and in full precision (fp32), for so many passes over "
            "the images. With 95 % intervals over networks.",
        )


def how_long(trained: MeasuredNetworks) -> Prose:
    """How many passes bring back what rounding took, and what more of them do in full precision."""
    networks = _networks(trained)
    passes: dict[int | None, dict[int, str]] = {}
    for name in networks.table["treatment"].unique():
        one = parse_name(name)
        if isinstance(one, Treatment) and one.passes:
            passes.setdefault(one.bits, {})[one.passes] = name
    full = passes.pop(None)
    said = []
    for bits, own in passes.items():
        less = {count: networks.overall(name) - networks.overall(full[count]) for count, name in own.items()}
        within = [count for count, values in less.items() if values.mean() >= -0.01]
        there = f"after {min(within)}" if within else f"after none of up to {max(own)}"
        said.append(f"int{bits} {there}")
    fewest, most = min(full), max(full)
    values = pd.Series(gap(networks, full[most]) - gap(networks, full[fewest]))
    falls = in_points(dict(student_interval(values, 0.95).items()))
    return Prose(
        f"Within a point of what full precision reaches when it trains as long, on average over "
        f"{trained.networks} networks, comes {', '.join(said)} passes. But look at full precision itself: "
        f"from {fewest} to {most} passes its FVO changes by {falls} points. Whoever compares a remedy that "
        "trains with a network that does not, measures that, too."
    )


# ---------------------------------------------------------------- cure by cause


def with_causes() -> dict[str, MeasuredNetworks]:
    """The networks of each kind of moths, by setting: one group is small, or hard, or both, or neither."""
    return {one.name: one for one in measured(list(CAUSES))}


def cures(settings: Mapping[str, MeasuredNetworks]) -> pd.DataFrame:
    """What each cure does for the focal group beyond its peers, against plain QAT: a value a network."""
    rows = []
    for name, one in settings.items():
        networks = _networks(one)
        for cure, words in _CURES.items():
            values = _for_focal(networks, arm(4, words))
            seeds = sorted(networks.table["seed"].unique())
            rows += [
                {"setting": name, "cure": cure, "seed": seed, "value": value}
                for seed, value in zip(seeds, values, strict=True)
            ]
    return pd.DataFrame(rows)


def cure_by_cause(table: pd.DataFrame) -> Picture:
    """What each cure does for the focal group, by what ails it; by `cures`."""
    rows = [
        {"width": "", "row": CAUSES[str(setting)], "group": cure} | student_interval(own["value"], 0.95)
        for (setting, cure), own in table.groupby(["setting", "cure"], sort=False)
    ]
    return rows_of_dots(
        pd.DataFrame(rows),
        list(_CURES),
        what="What cures do for the focal group beyond its peers, at int4",
        caption="How much more than its four peers the focal group gains at int4, against plain QAT, in "
        f"points, with 95 % intervals over {table['seed'].nunique()} networks of each kind.",
    )


def cures_read(table: pd.DataFrame) -> dict[str, Reading]:
    """The answers to C1 to C4; by `cures`."""
    wide = table.pivot_table(index="seed", columns=["setting", "cure"], values="value")

    def beyond_equal(kind: str, cure: str) -> np.ndarray:
        return (wide[kind, cure] - wide["moths_equal_repair", cure]).to_numpy()

    small, hard = "moths_by_size_repair", "moths_by_difficulty_repair"
    return {
        "C1": read(beyond_equal(small, "sampled"), MARGINS[4]),
        "C2": read(beyond_equal(small, "loss weights"), MARGINS[4]),
        "C3": read(beyond_equal(hard, "loss weights"), MARGINS[4]),
        "C4": read(beyond_equal(hard, "loss weights") - beyond_equal(hard, "sampled"), MARGINS[4]),
    }


_CAUSES_ASKED = {
    "C1": "Does sampling mend what being small does?",
    "C2": "Do loss weights mend what being small does?",
    "C3": "Do loss weights mend what being hard does?",
    "C4": "More than sampling does?",
}


def cures_answered(table: pd.DataFrame) -> Prose:
    """C1 to C4, each with its answer."""
    lines = []
    for key, reading in cures_read(table).items():
        said = f"*{answer(reading, 'rises')}*, {in_points(ends_of(reading))}"
        lines.append(f"- **{_CAUSES_ASKED[key]}** ({key}) {said}.")
    return Prose("\n".join(lines))


def _for_focal(networks: Networks, after: str) -> np.ndarray:
    change = networks.change(after, arm(4, "ends8-qat"))
    return -others_against(change, networks.groups.index(ROLES[-1]))


# ---------------------------------------------------------------- answers, and what to do


def published(settings: Sequence[MeasuredNetworks]) -> Prose:
    """The questions on the published remedy, each answered at every width."""
    lines = []
    for key in dict.fromkeys(question.key.partition(",")[0] for question in OF_WIDTHS):
        asked = [question for question in OF_WIDTHS if question.key.startswith(f"{key},")]
        said = [
            f"{one.short_title}: {'; '.join(f'int{own.bits} {in_words(own, one)}' for own in asked)}"
            for one in settings
        ]
        lines.append(f"- **{asked[0].asks}** ({key}: {asked[0].said.partition(' ')[0]}.) {'. '.join(said)}.")
    return Prose("\n".join(lines))


def answered(settings: Sequence[MeasuredNetworks]) -> Prose:
    """The questions on what repairs, each with what the networks say, as a list."""
    return interventions.answered(settings, CHAPTER, QUESTIONS)


def choices(settings: Sequence[MeasuredNetworks], widths: Sequence[int] = (4, 3)) -> Prose:
    """What to do: for what somebody can do, the remedy that networks chose and what it brought to others."""
    found = {(one.name, bits): what_to_do(_networks(one), bits) for one in settings for bits in widths}
    lines = []
    for line in LINES:
        lines.append(f"- **{line}.**")
        for one in settings:
            for bits in widths:
                if choice := found[one.name, bits].get(line):
                    lines.append(f"  - int{bits}, {one.short_title}: {_chosen(choice)}")
    return Prose("\n".join(lines))


def _chosen(choice: Choice) -> str:
    return (
        f"*{choice.remedy}*. FVO {in_points(choice.gap)}, OA {in_points(choice.overall)}, worst group "
        f"{in_points(choice.worst)}, over {choice.networks} networks that did not choose."
    )


def who_gains(one: MeasuredNetworks, bits: int = 4) -> pd.DataFrame:
    """Of a thousand images of each group, how many a remedy wins or loses; and whether the smallest gains."""
    shown = {
        "rounding alone": "ends8",
        "even offsets": "evenlabels",
        "QAT": "ends8-qat",
        "QAT, weights": "ends8-qat-weighted",
        "FairQAT": "fairqat",
    }
    found = people(_networks(one), {name: arm(bits, words) for name, words in shown.items()})
    smallest = min(one.record["sizes"], key=lambda group: one.record["sizes"][group])
    own = found[found["group"] == smallest].set_index("remedy")
    table = found.pivot_table(index="remedy", columns="group", values="won", sort=False)
    table = (1000 * table).map(lambda won: true_minus(f"{won:+.0f}"))
    for measure in ("recall", "precision", "F1"):
        table[measure] = own[measure].map(lambda share: f"{100 * share:.0f} %")
    table["off by"] = own["calibration"].map(lambda share: f"{100 * share:.0f}")
    return table.rename_axis(index=None, columns=None)


def costs(settings: Sequence[MeasuredNetworks], bits: int = 4) -> Prose:
    """How many images each remedy shows in training, of those that the original's training showed."""
    lines = []
    for one in settings:
        seen = one.record["images_seen"]
        shares: dict[str, list[str]] = {}
        for name, words in TRAINED.items():
            if (treatment := arm(bits, words)) in seen:
                shares.setdefault(f"{100 * seen[treatment] / seen['fp32']:.0f} %", []).append(name)
        usual = max(shares, key=lambda share: len(shares[share]))
        others = "; ".join(
            f"{share}: {', '.join(names)}" for share, names in shares.items() if share != usual
        )
        lines.append(f"- **{one.short_title}**: {usual}; but {others}." if others else f"- {usual}.")
    return Prose("\n".join(lines))
