"""The tables of the chapter on who pays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fairq_book.experiments.gather import Gathered
from fairq_book.experiments.studies import Prediction
from fairq_book.kit.by_network import MeasuredNetworks
from fairq_book.kit.interventions import Networks, in_rows, put_right
from fairq_book.kit.tables import (
    CONTRAST,
    accuracy,
    accuracy_by_seed,
    but_full_precision,
    chance,
    change,
    collapse,
    in_full_precision,
    side_by_side_groups,
    student_interval,
    together,
)
from fairq_book.kit.treatments import columns, columns_of
from fairq_utils.intervals import holm, sign_test
from fairq_utils.metrics import groups as metrics_groups
from fairq_utils.metrics.by_network import JUMP, TREND, WIDTHS, effects_of_two, others_against, read_gap_over
from fairq_utils.metrics.shares import FLIP_PARTS
from fairq_utils.metrics.verdicts import MARGINS, Reading, margin_at, read
from fairq_utils.treatments.treatment import FP32

# Moths whose focal group is neither small nor hard, small, hard, and both.
KINDS_OF_MOTHS = ("moths-equal", "moths-by-size", "moths-by-difficulty", "moths-by-both")
CAUSES = ("size", "difficulty")
# What is measured of each image. Points have a floor, for who is seldom right has little to lose; flips and
# nats have none.
UNITS = ("points", "flips", "nats")


def make(got: Gathered, moths: Gathered | None = None) -> dict[str, pd.DataFrame]:
    """Every table of the chapter, by name; `size_and_difficulty` only with `moths` of each kind."""
    rounded, compared, by_seed = got["rounded"], got.treatments("grids"), accuracy_by_seed(got["rounded"])
    found = {
        "groups": got.sizes,
        "accuracy": accuracy(rounded),
        "accuracy_by_seed": by_seed,
        "answers": answers(rounded),
        "change": change(rounded, level=together(len(got.treatments("rounded")) - 1)),
        "change_by_network": change_by_network(by_seed, got.majority),
        "readings": readings(by_seed, got.majority),
        "chance": chance(rounded),
        "collapse": collapse(rounded),
        "confusion": confusion(rounded),
        "storage": storage(got.megabytes(compared), accuracy(got["grids"])),
    }
    if moths is not None:
        # Of size and of difficulty, under each treatment.
        level = together(len(CAUSES) * (len(moths.treatments("rounded")) - 1))
        found["size_and_difficulty"] = size_and_difficulty(moths["rounded"], level=level)
    return found


def answers(predictions: Sequence[Prediction]) -> pd.DataFrame:
    """Records: precision and F1 of each group beside its accuracy, and how many images are won and lost.

    Before and after each treatment, means over networks; empty where group and label part ways, for then no
    answer belongs to a group.
    """
    found = []
    before = in_full_precision(predictions)
    for treatment in dict.fromkeys(p.treatment for p in but_full_precision(predictions)):
        own = [p for p in predictions if p.treatment == treatment]
        table = metrics_groups.answers_by_group(
            [p.labels for p in own],
            [p.logits.argmax(1) for p in before],
            [p.logits.argmax(1) for p in own],
            [p.groups for p in own],
            group_names=own[0].group_names,
        )
        means = table.groupby("group", sort=False).mean().drop(columns="network").reset_index()
        found.append(means.assign(treatment=treatment.name))
    every = pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=["treatment", "f1_after"])
    return every[every["f1_after"].notna()].reset_index(drop=True)


def confusion(predictions: Sequence[Prediction]) -> pd.DataFrame:
    """Records: how many answers of each treatment give each label to the images of each group, over seeds."""
    tables = []
    for treatment in dict.fromkeys(p.treatment for p in predictions):
        own = [p for p in predictions if p.treatment == treatment]
        groups, labels = own[0].group_names, own[0].label_names
        counts = np.zeros((len(groups), len(labels)), dtype=int)
        for prediction in own:
            np.add.at(counts, (prediction.groups.numpy(), prediction.logits.argmax(1).numpy()), 1)
        cells = {"group": np.repeat(groups, len(labels)), "answer": np.tile(labels, len(groups))}
        about = {"treatment": treatment.name, **columns(treatment)}
        tables.append(pd.DataFrame(about | cells | {"n": counts.ravel()}))
    return pd.concat(tables, ignore_index=True)


def change_by_network(
    by_seed: pd.DataFrame, majority: str | None = None, *, level: float = 0.95
) -> pd.DataFrame:
    """Records: what each treatment changed for each group, over all images (OA), and in contrast.

    `by_seed` of `accuracy_by_seed`. Each network is one number, on its own test images, so an interval is
    Student's over networks. At each treatment those of the groups hold together (Bonferroni): whoever asks
    which groups lose asks of all of them. The `contrast` is the mean change of all groups but
    `majority`, minus that of `majority`; it and OA are one question each. Without a majority there is no
    contrast, and of one network there is no interval. `fell` counts the networks in which it fell. A change
    within the `margin` counts as none, at widths that have one.

    >>> rows = [("fp32", 0, 9, 4), ("fp32", 1, 8, 4), ("int4", 0, 9, 2), ("int4", 1, 8, 1)]
    >>> long = [(t, seed, g, n, k) for t, seed, *right in rows for g, n, k in zip("ab", (10, 5), right)]
    >>> table = pd.DataFrame(long, columns=["treatment", "seed", "group", "n", "correct"])
    >>> change_by_network(table, "a")[["group", "networks", "fell", "estimate"]].round(2)
          group  networks  fell  estimate
    0         a         2     0      0.00
    1         b         2     2     -0.50
    2        OA         2     2     -0.17
    3  contrast         2     2     -0.50
    """
    there = by_seed[by_seed["n"] > 0]
    groups = list(there["group"].unique())
    every = there.groupby(["treatment", "seed"], sort=False, as_index=False)[["n", "correct"]].sum()
    shares = pd.concat([there, every.assign(group="OA")])
    shares["share"] = shares["correct"] / shares["n"]
    wide = side_by_side_groups(shares, ["treatment", "seed"], "share")[[*groups, "OA"]]
    if majority in groups and len(groups) > 1:
        wide[CONTRAST] = wide[groups].drop(columns=majority).mean(axis=1) - wide[majority]
    records = []
    for treatment in (name for name in there["treatment"].unique() if name != FP32.name):
        after = wide.loc[treatment]
        changed = after - wide.loc[FP32.name].loc[after.index]
        for name in map(str, wide):
            own = 1 - (1 - level) / len(groups) if name in groups else level
            record = {"treatment": treatment, "group": name, "networks": len(changed)}
            bits = columns_of(treatment)["bits"]
            if bits in MARGINS:
                original = wide.xs(FP32.name, level="treatment")
                before = float(original[name].mean()) if name in groups else None
                record["margin"] = margin_at(bits, before)
            records.append(
                record | {"fell": (changed[name] < 0).sum()} | student_interval(changed[name], own)
            )
    return pd.DataFrame(records)


def contrasts(settings: Mapping[str, Gathered]) -> pd.DataFrame:
    """Records: the contrast in several settings, by title: of the first, where the others have it too.

    That is the page's own, which may have been asked for other widths, or have no majority.
    """
    found = []
    for title, got in settings.items():
        changed = change_by_network(accuracy_by_seed(got["rounded"]), got.majority)
        found.append(changed[changed["group"] == CONTRAST].assign(setting=title))
    common = set.intersection(*(set(table["treatment"]) for table in found[1:]))
    every = pd.concat(found, ignore_index=True)
    return every[every["treatment"].isin(common)]


# What is read of the widths together, with a coefficient for each of `WIDTHS`.
JUMP_OF_WIDTHS = "int8 to int4"
OVER_WIDTHS = {JUMP_OF_WIDTHS: JUMP, "trend over 8, 6, 5, 4, 3 bits": TREND}
GAP, PAIR = "FVO per network", "a fixed pair"
WIDTH_OF_JUMP = 4  # whose margin both are judged by
_NUMBERS = ("networks", "estimate", "lower", "upper", "bound", "margin")
_FEWEST = 3  # networks, of which one can name a pair that two measure


def readings(by_seed: pd.DataFrame, majority: str | None = None, *, level: float = 0.95) -> pd.DataFrame:
    """Records: the contrast of minorities and `majority`, FVO per network, and the gap of two fixed groups.

    `by_seed` of `accuracy_by_seed`. For each treatment against full precision, and over the widths where all
    that count are there. `word` is that of `verdicts.read`; for FVO that of `read_gap`, which has the pair in
    view. `groups` names the pair, or the majority. Of fewer than three networks there are no readings.

    >>> right = {"fp32": [(9, 7), (9, 7), (9, 8), (8, 7)], "int4": [(9, 5), (9, 4), (9, 5), (8, 4)]}
    >>> long = [(t, s, g, 10, right[t][s][i]) for t in right for s in range(4) for i, g in enumerate("ab")]
    >>> table = pd.DataFrame(long, columns=["treatment", "seed", "group", "n", "correct"])
    >>> readings(table, "a")[["reading", "groups", "estimate", "word"]].round(2)
               reading groups  estimate   word
    0         contrast      a     -0.28  falls
    1  FVO per network   a, b      0.27  grows
    2     a fixed pair   a, b      0.30  rises
    """
    there = by_seed[by_seed["n"] > 0]
    shares = there.assign(share=there["correct"] / there["n"])
    wide = side_by_side_groups(shares, ["treatment", "seed"], "share").dropna(axis=1)
    by_name = {str(name): wide.loc[name] for name in there["treatment"].unique()}
    asked: list[tuple[str, list[str], tuple[float, ...]]] = [
        (name, [FP32.name, name], (-1.0, 1.0)) for name in by_name if name != FP32.name
    ]
    for name, over in OVER_WIDTHS.items():
        used = {f"int{bits}": times for bits, times in zip(WIDTHS, over, strict=True) if times}
        asked.append((name, list(used), tuple(used.values())))
    records = []
    for name, needed, coefficients in asked:
        if len(wide.columns) < 2 or not by_name.keys() >= set(needed):
            continue
        seeds = by_name[needed[-1]].index
        if len(seeds) < _FEWEST:
            continue
        values = np.stack([by_name[one].loc[seeds] for one in needed])
        bits = WIDTH_OF_JUMP if name in OVER_WIDTHS else columns_of(name)["bits"]
        margin = MARGINS.get(bits)
        gap = read_gap_over(list(values), coefficients, margin=margin, level=level)
        pair = ", ".join(wide.columns[list(gap.groups)])
        found: list[tuple[str, str, Reading, str]] = [
            (GAP, pair, gap.fvo, gap.word),
            (PAIR, pair, gap.pair, gap.pair.word),
        ]
        if majority in wide:
            place = list(wide).index(majority)
            of_each = np.stack([others_against(table, place) for table in values])
            contrast = read(np.asarray(coefficients) @ of_each, margin, level=level)
            found.insert(0, (CONTRAST, str(majority), contrast, contrast.word))
        for reading, groups, own, word in found:
            about = {"treatment": name, "bits": bits, "reading": reading, "groups": groups, "word": word}
            records.append(about | {number: getattr(own, number) for number in _NUMBERS})
    return pd.DataFrame(records, columns=["treatment", "bits", "reading", "groups", "word", *_NUMBERS])


def storage(size: Mapping[str, float], accuracies: pd.DataFrame) -> pd.DataFrame:
    """Records of OA and FVO for each treatment, with the megabytes that its network takes when packed."""
    rows = accuracies[accuracies["group"].isin(["OA", "FVO"]) & accuracies["treatment"].isin(size)]
    return rows.assign(megabytes=rows["treatment"].map(size))


# Ways to choose the grid, in words.
GRIDS = {
    "fp32": "full precision",
    "int": "one scale a tensor, largest weight",
    "int-mse": "one scale a tensor, least squared error",
    "int-channel": "one scale a channel, largest weight",
    "int-mse-channel": "one scale a channel, least squared error",
}


def size_and_difficulty(predictions: Sequence[Prediction], *, level: float = 0.95) -> pd.DataFrame:
    """Records: what happens to the focal group beyond what happens to its peers, on moths of each kind.

    The predictions are of the four `KINDS_OF_MOTHS`, in full precision and under other treatments, from the
    same seeds. Each network is one number in each of the `UNITS`: the change of the focal group's accuracy
    (points), the share of its answers that changed (flips) and the change of its loss (nats), minus the mean
    of the same over its peers. Beside the kinds, `size` and `difficulty` say what each of the two adds, on
    average over the other; the intervals are Student's over networks. `before` is the accuracy of the focal
    group in full precision.
    """
    pairs = {(p.study.dataset.name, p.study.seed, p.treatment): p for p in predictions}
    found = [
        {"kind": kind, "seed": seed, "treatment": treatment} | _beyond_peers(pairs[kind, seed, FP32], own)
        for (kind, seed, treatment), own in pairs.items()
        if treatment != FP32
    ]
    by_network = pd.DataFrame(found)
    rows = []
    for treatment in dict.fromkeys(by_network["treatment"]):
        own = by_network[by_network["treatment"] == treatment]
        before = own.groupby("kind")["before"].mean()
        for unit in UNITS:
            wide = own.pivot_table(index="seed", columns="kind", values=unit)
            effects = {kind: wide[kind] for kind in KINDS_OF_MOTHS}
            size, difficulty, _ = effects_of_two(*effects.values()).values()
            effects |= {"size": pd.Series(size), "difficulty": pd.Series(difficulty)}
            for effect, values in effects.items():
                about = {"treatment": treatment.name, **columns(treatment), "unit": unit, "effect": effect}
                about |= {"before": before.get(effect, np.nan), "networks": len(values)}
                rows.append(about | student_interval(values, level))
    return pd.DataFrame(rows)


def _beyond_peers(before: Prediction, after: Prediction) -> dict[str, float]:
    """What one network's focal group, the last, loses beyond its peers; and how often it was right before."""
    loss = [metrics_groups.example_metrics(own.logits, own.labels)["loss"] for own in (before, after)]
    changed: dict[str, NDArray[Any]] = {
        "points": after.correct.astype(float) - before.correct,
        "flips": metrics_groups.flipped(before.logits, after.logits).astype(float),
        "nats": (loss[1] - loss[0]).to_numpy(),
    }
    groups = before.groups.numpy()
    *peers, focal = (groups == group for group in range(len(before.group_names)))
    beyond = {
        unit: float(values[focal].mean() - np.mean([values[peer].mean() for peer in peers]))
        for unit, values in changed.items()
    }
    return beyond | {"before": float(before.correct[focal].mean())}


# ---------------------------------------------------------------- the range, and answers that change

RANGES = {
    "largest weight": "",
    "largest weight, by channel": "channel",
    "least error": "mse",
    "least error, by channel": "mse-channel",
    "99.9 % of weights": "percentile",
    "99.9 %, by channel": "percentile-channel",
    "zero point": "affine",
    "zero point, by channel": "channel-affine",
}
_HALVES = {
    "both": "mse",
    "cut off alone": "mse-clipped",
    "rounded alone": "mse-unclipped",
    "both, by channel": "mse-channel",
    "cut off, by channel": "mse-channel-clipped",
    "rounded, by channel": "mse-channel-unclipped",
}


def ranges(measured: MeasuredNetworks, widths: Sequence[str] = ("int4", "int3")) -> pd.DataFrame:
    """The contrast by the range of the weights, as it is and put right: rows for a figure of dots."""
    return _by_words(measured, RANGES, widths)


def clipped_or_rounded(measured: MeasuredNetworks, widths: Sequence[str] = ("int4", "int3")) -> pd.DataFrame:
    """The contrast where weights beyond the range of least error are cut off, or rounded to it, or both."""
    return _by_words(measured, _HALVES, widths)


ALL_LAYERS = "all layers"


def clipped_by_layer(
    settings: Sequence[MeasuredNetworks], treatment: str = "int4-mse-clipped"
) -> pd.DataFrame:
    """The contrast where large weights of one layer alone are cut off, and of all: by setting and layer.

    Intervals of the layers hold together with 95 % in each setting; that of all layers by itself.
    """
    found = []
    for measured in settings:
        networks = Networks(measured.table, measured.majority)
        names = [name for name in networks.table["treatment"].unique() if name.startswith(f"{treatment}@")]
        for name in [*names, treatment]:
            layer = name.partition("@")[2].removesuffix(".weight") or ALL_LAYERS
            values = pd.Series(networks.contrast(name))
            about = {"setting": measured.short_title, "layer": layer, "networks": len(values)}
            level = together(len(names)) if name in names else 0.95
            found.append(about | student_interval(values, level))
    return pd.DataFrame(found)


def _by_words(measured: MeasuredNetworks, rows: Mapping[str, str], widths: Sequence[str]) -> pd.DataFrame:
    networks = Networks(measured.table, measured.majority)
    found = [
        in_rows(networks, {row: put_right(words, width) for row, words in rows.items()}, width=width)
        for width in widths
    ]
    return pd.concat(found, ignore_index=True)


def answers_that_change(measured: MeasuredNetworks) -> pd.DataFrame:
    """What each network's answers do at each width: the share that changes, OA, and groups that part ways.

    `flips` and `accuracy` are over all images, `accuracy` as it changed. `apart` says whether some group
    surely gained and another surely lost in that very network, by the images that were lost and won (sign
    tests, with Holm's correction over the groups).
    """
    rows = []
    table = measured.table
    before = table[table["treatment"] == FP32.name].groupby("seed")["right"].sum()
    for width in (f"int{bits}" for bits in WIDTHS):
        for seed, own in table[table["treatment"] == width].groupby("seed"):
            n, won, lost = own["n"].sum(), own["won"].to_numpy(), own["lost"].to_numpy()
            surely = holm(sign_test(won, lost)) < 0.05
            rows.append(
                {
                    "treatment": width,
                    "seed": seed,
                    "flips": own["flips"].sum() / n,
                    "accuracy": (own["right"].sum() - before[seed]) / n,
                    "apart": bool((surely & (won > lost)).any() and (surely & (won < lost)).any()),
                }
            )
    return pd.DataFrame(rows)


def flips_apart(measured: MeasuredNetworks, widths: Sequence[str] = ("int4", "int3")) -> pd.DataFrame:
    """Why more answers of a group change than of the largest: rows for a figure of dots, a mark each part."""
    networks = Networks(measured.table, measured.majority)
    rows = []
    for width in widths:
        parts = {part: networks.of(width, f"flips_by_{part}") for part in (*FLIP_PARTS, "beyond")}
        parts = {"in all": pd.concat(parts.values()).groupby(level=0).sum()} | parts
        for group in networks.groups:
            if group == measured.majority:
                continue
            for part, values in parts.items():
                about = {"width": width, "row": group, "group": part, "networks": len(values)}
                rows.append(about | student_interval(values[group], 0.95))
    return pd.DataFrame(rows)
