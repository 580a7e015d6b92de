"""What the first page says: who pays, why, and what repairs it, each with a figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from fairq_audit.formats import MARKERS, PALETTE, signed
from fairq_book.kit.figures import FAINT, INK, Picture, canvas, drawn
from fairq_book.kit.interventions import Networks, in_rows
from fairq_book.kit.remedies import gap
from fairq_book.kit.tables import student_interval
from fairq_book.kit.told import falls, in_points, networks_of, rises, share_of, size, told, within
from fairq_book.kit.wording import Prose
from fairq_utils.metrics.verdicts import MARGINS

_CUT = "int4-mse"  # four bits, with the range whose squared error is least
_WIDTH = 4.0  # inches: half of a page's column, all of a phone
_TO_THE_SMALLEST = 0.6  # of the published loss weights; the others share the rest
_FEW = 0.01  # a difference of accuracy that nobody would look at twice

WHY, REPAIR = "utkface_why", "utkface_repair"  # the settings whose networks answer


def losers(networks: Networks, treatment: str) -> list[str]:
    """The groups that surely lose accuracy, all of them asked at once."""
    change = networks.change(treatment)
    level = 1 - 0.05 / len(networks.groups)
    return [group for group in networks.groups if student_interval(change[group], level)["upper"] < 0]


def who_pays(utkface_why: Networks) -> Prose:
    """At four bits nobody in particular, or the smaller groups: it depends on the range."""
    own = utkface_why
    plain, cut = own.contrast("int4"), own.contrast(_CUT)
    lost = losers(own, _CUT)
    theirs = own.change(_CUT)
    gains = theirs[own.majority].to_numpy()
    average = own.overall(_CUT) - own.overall("int4")
    before, after = gap(own, "fp32"), gap(own, _CUT)
    return told(
        "**Who pays?** Round the weights of a face classifier to four bits, and it loses "
        f"{size(own.overall('int4') - own.overall('fp32'))} points of accuracy; whether the smaller groups "
        f"lose more than the largest, {_networks(own)} cannot tell. Now let the weights have another "
        f"common range, the one with the least squared error. The average is as good, but {_and(lost)} "
        f"lose {size(theirs[lost].mean(axis=1))} points, and {own.majority} gains {size(gains)}. Most of "
        f"the gap is older, though: {100 * before.mean():.0f} of its {100 * after.mean():.0f} points were "
        "there before a bit was taken away.",
        holds=falls(cut)
        and average.mean() > -_FEW
        and len(lost) > 1
        and gains.mean() > 0
        and before.mean() > 0.75 * after.mean(),
        otherwise=f"**Who pays?** At four bits the smaller groups change by {in_points(plain)} points more "
        f"than {own.majority}, with the range of least squared error by {in_points(cut)}. The gap is "
        f"{100 * before.mean():.0f} points in full precision and {100 * after.mean():.0f} with that range.",
    )


def why(utkface_why: Networks) -> Prose:
    """Large weights are cut off, and batch norm does not know it."""
    own = utkface_why
    clipped = own.contrast(f"{_CUT}-clipped")
    left = own.contrast(f"{_CUT}-bn", "fp32-bn")
    lost = own.overall("fp32") - own.overall("int3")
    back = own.overall("int3-bn") - own.overall("int3")
    stays = own.contrast("int3-bn", "fp32-bn")
    return told(
        "**Why?** That range cuts off the largest weights, and batch norm goes on with the statistics of "
        "the network that had them. Take these statistics again, which needs no training, and the "
        f"difference between the groups is gone: {in_points(left)} points. At three bits new statistics "
        f"bring back {100 * share_of(back, lost):.0f} % of the accuracy that was lost. What they do not "
        f"bring back is missing in the smaller groups, by {in_points(stays)} points against {own.majority}.",
        holds=falls(clipped) and within(left, MARGINS[4]) and rises(back) and falls(stays),
        otherwise="**Why?** Where only the largest weights are cut off, the smaller groups change by "
        f"{in_points(clipped)} points more than {own.majority}; with batch norm statistics taken again, by "
        f"{in_points(left)}. At three bits new statistics bring back {in_points(back)} points of accuracy.",
    )


def what_repairs(utkface_repair: Networks) -> Prose:
    """Rounding is repaired by training while rounded; the older gap is another matter."""
    own = utkface_repair
    three = own.overall("int3-ends8-qat") - own.overall("fp32")
    weighted, rounded = "fp32-tuned-weighted", "int4-ends8-qat-weighted"
    cost = own.overall("fp32") - own.overall(weighted)
    fair, price = "int4-fairqat", own.overall("fp32") - own.overall("int4-fairqat")
    numbers = {name: f"{100 * gap(own, name).mean():.0f}" for name in ("fp32", weighted, fair)}
    times = _TO_THE_SMALLEST * (len(own.groups) - 1) / (1 - _TO_THE_SMALLEST)
    return told(
        "**What repairs it?** What rounding does, a short training while rounded undoes: at three bits "
        f"{size(three)} points of accuracy stay lost. The older gap stays, too. It yields to a loss to "
        f"which an image of the smallest group counts {times:.0f} times, rounded or not: from "
        f"{numbers['fp32']} to {numbers[weighted]} points, for {size(cost)} points of accuracy. "
        f"{{term}}`FairQAT`, the recipe of the paper, leaves {numbers[fair]} and costs {size(price)}.",
        holds=within(three, 2 * _FEW)
        and falls(gap(own, weighted) - gap(own, "fp32"))
        and falls(gap(own, rounded) - gap(own, "fp32"))
        and rises(gap(own, fair) - gap(own, rounded))
        and rises(price - cost),
        otherwise="**What repairs it?** Training while rounded changes accuracy at three bits by "
        f"{in_points(three)} points against full precision. Loss weights bring the gap from "
        f"{numbers['fp32']} to {numbers[weighted]} points and cost {in_points(cost)}; FairQAT brings it to "
        f"{numbers[fair]} and costs {in_points(price)}.",
    )


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


# ---------------------------------------------------------------- a figure for each


def of_groups(utkface_why: Networks) -> Picture:
    """The accuracy of each group: in full precision, and at four bits with either range."""
    own = utkface_why
    looks: dict[str, tuple[str, dict[str, Any]]] = {
        "full precision": ("fp32", {"marker": "o", "markerfacecolor": "none", "color": INK}),
        "four bits": ("int4", {"marker": "|", "markeredgewidth": 2, "color": INK}),
        "four bits, least error": (_CUT, {"marker": "D", "color": PALETTE[1]}),
    }
    means = {name: 100 * own.of(treatment).mean() for name, (treatment, _) in looks.items()}
    with canvas(2.9, width=_WIDTH) as (figure, axes):
        axis = axes[0, 0]
        for row, group in enumerate(own.groups):
            full, cut = (means[name][group] for name in ("full precision", "four bits, least error"))
            arrow = {"arrowstyle": "-", "color": PALETTE[1], "linewidth": 1.6, "shrinkA": 0, "shrinkB": 0}
            axis.annotate("", (cut, row), (full, row), arrowprops=arrow)
            axis.annotate(
                signed(cut - full), (max(full, cut), row), (7, 0), textcoords="offset points", va="center",
                fontsize=9,
            )  # fmt: skip
        for name, (_, look) in looks.items():
            axis.plot(means[name], range(len(own.groups)), linestyle="", markersize=6, label=name, **look)
        full = means["full precision"]
        low, high = full.min(), full.max()
        axis.annotate(
            "", (low, len(own.groups) - 0.35), (high, len(own.groups) - 0.35),
            arrowprops={"arrowstyle": "<->", "color": FAINT},
        )  # fmt: skip
        axis.text(
            (low + high) / 2, len(own.groups) - 0.25, f"{high - low:.0f} points apart before a bit is taken",
            ha="center", va="top", fontsize=9,
        )  # fmt: skip
        axis.set_yticks(range(len(own.groups)), own.groups)
        axis.tick_params(axis="y", length=0)
        axis.set_xlim(0, 104)
        axis.set_ylim(len(own.groups) + 0.3, -0.5)
        axis.set_xlabel("accuracy, %")
        axis.legend(loc="upper left", bbox_to_anchor=(-0.02, 1.27), ncols=2, fontsize=9, handlelength=1)
        heard = " ".join(
            f"{group}: {', '.join(f'{name} {means[name][group]:.1f}' for name in looks)}."
            for group in own.groups
        )
        return drawn(
            figure,
            alt=f"Dots. Accuracy of each group in percent, mean of {_networks(own)}. {heard}",
            caption=f"{_networks(own)}, UTKFace. The numbers: what the other range changes, in points.",
        )


def of_causes(utkface_why: Networks) -> Picture:
    """The contrast of each step between rounding and its remedy."""
    steps = {
        "four bits": ("int4", "fp32"),
        "least error": (_CUT, "fp32"),
        "only cut off": (f"{_CUT}-clipped", "fp32"),
        "new statistics": (f"{_CUT}-bn", "fp32-bn"),
    }
    found = in_rows(utkface_why, {name: {"": both} for name, both in steps.items()})
    with canvas(2.3, width=_WIDTH) as (figure, axes):
        axis = axes[0, 0]
        for row, (_, own) in enumerate(found.iterrows()):
            colour = PALETTE[2] if row == len(found) - 1 else PALETTE[1] if own["upper"] < 0 else INK
            axis.plot([100 * own["lower"], 100 * own["upper"]], [row, row], color=colour, linewidth=1.6)
            axis.plot(100 * own["estimate"], row, marker=MARKERS[0], markersize=6, color=colour)
        axis.axvline(0, color=INK, linewidth=0.9)
        axis.set_yticks(range(len(found)), found["row"])
        axis.tick_params(axis="y", length=0)
        axis.set_ylim(len(found) - 0.5, -0.5)
        axis.set_xlabel(f"points against {utkface_why.majority}")
        heard = " ".join(
            f"{own['row']}: {signed(100 * own['estimate'])} ({signed(100 * own['lower'])} to "
            f"{signed(100 * own['upper'])})."
            for _, own in found.iterrows()
        )
        return drawn(
            figure,
            alt=f"Dots with intervals. What the smaller groups lose beyond the largest, in points. {heard}",
            caption=f"{_networks(utkface_why)}, with 95 % intervals. Left of the line the smaller groups "
            "lose more. With the range of least error: as it is; with nothing but large weights cut off; "
            "with new batch norm statistics.",
        )


def of_repairs(utkface_repair: Networks) -> Picture:
    """What each repair leaves of the gap, against the accuracy that it leaves."""
    own = utkface_repair
    shown = {
        "full precision": ("fp32", INK, (0, -11), "center"),
        "int3": ("int3", PALETTE[1], (-8, 0), "right"),
        "int3, trained while rounded": ("int3-ends8-qat", PALETTE[2], (0, 12), "center"),
        "loss weights": ("fp32-tuned-weighted", PALETTE[2], (8, 2), "left"),
        "int4, loss weights": ("int4-ends8-qat-weighted", PALETTE[2], (-8, -9), "right"),
        "FairQAT, int4": ("int4-fairqat", PALETTE[0], (8, 0), "left"),
    }
    places = {
        name: (100 * own.overall(one).mean(), 100 * gap(own, one).mean()) for name, (one, *_) in shown.items()
    }
    with canvas(2.9, width=_WIDTH) as (figure, axes):
        axis = axes[0, 0]
        for number, (name, (_, colour, offset, side)) in enumerate(shown.items()):
            axis.plot(*places[name], marker=MARKERS[number % len(MARKERS)], markersize=7, color=colour)
            axis.annotate(
                name, places[name], offset, textcoords="offset points", ha=side, va="center", fontsize=9
            )
        axis.set(xlabel="accuracy over all images, %", ylabel="gap, points", xlim=(52, 92), ylim=(0, 100))
        heard = " ".join(
            f"{name.replace(chr(10), ' ')}: {oa:.1f} % and {points:.1f}."
            for name, (oa, points) in places.items()
        )
        return drawn(
            figure,
            alt="Points. Accuracy over all images in percent and the gap between the best and the worst "
            f"group, mean of {_networks(own)}. {heard}",
            caption=f"{_networks(own)}, UTKFace. Better is lower and to the right.",
        )


def _networks(networks: Networks) -> str:
    return f"{networks.table['seed'].nunique()} networks"


# Each sentence of the first page, its figure, and the setting that both are about.
ANSWERS: tuple[tuple[Callable[..., Prose], Callable[..., Picture], str], ...] = (
    (who_pays, of_groups, WHY),
    (why, of_causes, WHY),
    (what_repairs, of_repairs, REPAIR),
)


# ---------------------------------------------------------------- for who sees a link to the book


@dataclass(frozen=True)
class Headline:
    """The book in a few words, and what backs them."""

    words: str
    backing: str


def headline(networks: Networks | None = None) -> Headline:
    """Who pays, for who has one second: what a picture of the book says."""
    own = networks or networks_of(WHY)
    others = own.change(_CUT).drop(columns=own.majority)
    backing = (
        f"UTKFace at four bits, range of least error, {_networks(own)}: accuracy falls by "
        f"{size(own.overall(_CUT) - own.overall('fp32'))} points over all images, by "
        f"{size(others.mean(axis=1))} in the smaller groups."
    )
    holds = falls(own.contrast(_CUT)) and within(own.overall(_CUT) - own.overall("int4"), _FEW)
    return Headline("The average stands. The smaller groups pay." if holds else "Who pays?", backing)


def accuracies(networks: Networks | None = None) -> pd.DataFrame:
    """What the picture draws: each group over the widths, with the range of least error."""
    own = networks or networks_of(WHY)
    rows = []
    for treatment in ("fp32", "int8-mse", "int6-mse", "int5-mse", _CUT):
        values = own.of(treatment).assign(OA=own.overall(treatment))
        for group in values:
            about = {"treatment": treatment.removesuffix("-mse"), "group": group}
            rows.append(about | student_interval(values[group], 0.95))
    return pd.DataFrame(rows)
