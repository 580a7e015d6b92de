"""What chapter 1 found, in a few sentences: who pays, at which width, by which range."""

from __future__ import annotations

from fairq_book.kit.interventions import Networks
from fairq_book.kit.remedies import gap
from fairq_book.kit.told import falls, in_each, in_points, rises, size, tell, told, within
from fairq_book.kit.wording import Prose

_CUT = "int4-mse"  # the range of least squared error
_LITTLE = 0.04  # what a contrast may be without mattering to a sentence
_SAME = 0.01  # a difference of overall accuracy that nobody would look at twice


def _both(utkface: Networks, moths: Networks) -> dict[str, Networks]:
    return {"UTKFace": utkface, "moths": moths}


def down_to_five_bits_little(utkface_why: Networks, moths_why: Networks) -> Prose:
    """The contrast at 8, 6 and 5 bits, and at five with the other range."""
    both = _both(utkface_why, moths_why)
    plain, cut = (
        in_each({name: own.contrast(treatment) for name, own in both.items()})
        for treatment in ("int5", "int5-mse")
    )
    return told(
        "**Down to five bits there is little to see.** Where the grid reaches to the largest weight, the "
        f"smaller groups surely lose less than {100 * _LITTLE:.0f} points more than the largest: at five "
        f"bits {plain}. With the range of least squared error they begin to lose there: {cut}.",
        holds=all(within(own.contrast(f"int{bits}"), _LITTLE) for own in both.values() for bits in (8, 6, 5))
        and all(falls(own.contrast("int5-mse")) for own in both.values()),
        otherwise=f"At five bits the smaller groups change, beyond the largest, by {plain}; with the range "
        f"of least squared error by {cut}.",
    )


def at_four_it_is_the_range(utkface_why: Networks, moths_why: Networks) -> Prose:
    """The contrast at four bits, by range; and what most users look at."""
    both = _both(utkface_why, moths_why)
    plain, cut = (
        in_each({name: own.contrast(treatment) for name, own in both.items()}) for treatment in ("int4", _CUT)
    )
    averages = [own.overall(_CUT) - own.overall("int4") for own in both.values()]
    return told(
        "**At four bits the range decides.** Where it has the least squared error, the smaller groups "
        f"surely lose more than the largest: {cut}. Where it reaches to the largest weight, nothing is "
        f"sure: {plain}. The accuracy over all images is no better there, so whoever looks at the average "
        "sees nothing.",
        holds=all(falls(own.contrast(_CUT)) for own in both.values())
        and all(own.mean() > -_SAME for own in averages),
        otherwise=f"At four bits the smaller groups change, beyond the largest, by {plain}; with the range "
        f"of least squared error by {cut}.",
    )


def at_three_somebody_pays(utkface_why: Networks, moths_why: Networks) -> Prose:
    """The gap of single networks against the contrast over them."""
    both = _both(utkface_why, moths_why)
    widens = {name: gap(own, "int3") - gap(own, "fp32") for name, own in both.items()}
    hit = {name: own.change("int3").idxmin(axis=1).nunique() for name, own in both.items()}
    sides = in_each({name: own.contrast("int3") for name, own in both.items()})
    return told(
        "**At three bits somebody pays, in each network somebody else.** The gap of a network widens, by "
        f"{in_each(widens)}. But {hit['UTKFace']} of the groups of UTKFace, and {hit['moths']} of the "
        "moths, lose most in one network or another. So the smaller groups together are not surely worse "
        f"off than the largest: {sides}.",
        holds=rises(widens["moths"])
        and widens["UTKFace"].mean() > 0
        and min(hit.values()) > 2
        and not any(falls(own.contrast("int3")) for own in both.values()),
        otherwise=f"At three bits the gap of a network changes by {in_each(widens)}; the smaller groups "
        f"change, beyond the largest, by {sides}.",
    )


def wide_networks_take_a_side(utkface: Networks, utkface_why: Networks) -> Prose:
    """Networks of full width at three bits, and small ones with the range that cuts off."""
    wide, small = utkface.contrast("int3"), utkface_why.contrast("int3-mse")
    networks = utkface.table["seed"].nunique()
    return told(
        f"**Networks of full width take a side.** In {networks} of them, measured earlier on UTKFace, all "
        f"groups but {utkface.majority} lose at three bits, by {in_points(wide)} points against it. Small "
        f"networks do so where the range cuts weights off, by {in_points(small)} points.",
        holds=falls(wide)
        and falls(small)
        and bool((utkface.change("int3").drop(columns=utkface.majority).mean() < 0).all()),
        otherwise=f"At three bits the smaller groups change against the largest by {in_points(wide)} points "
        f"in networks of full width, and by {in_points(small)} in small ones whose range cuts weights off.",
    )


def most_of_the_gap_is_older(utkface_why: Networks) -> Prose:
    """The gap in full precision, as a share of that at four bits."""
    before, after = (100 * gap(utkface_why, name).mean() for name in ("fp32", "int4"))
    return told(
        f"**Most of the gap is older.** Of the {after:.0f} points between the best and the worst group of "
        f"UTKFace at four bits, {before:.0f} were there in full precision.",
        holds=bool(before > 0.75 * after),
        otherwise=f"The gap on UTKFace is {before:.0f} points in full precision and {after:.0f} at four "
        "bits.",
    )


def answers_flip(utkface_why: Networks, moths_why: Networks) -> Prose:
    """How many answers change while the average hardly moves, whose, and why."""
    both = _both(utkface_why, moths_why)
    more = in_each({name: own.level("int4", "flips") for name, own in both.items()})
    flips = {name: _flips(own) for name, own in both.items()}
    losses = {name: size(own.overall("int4") - own.overall("fp32")) for name, own in both.items()}
    return told(
        f"**Answers change unseen.** At four bits {flips['UTKFace']:.0f} % of the answers on UTKFace are "
        f"other ones, while accuracy falls by {losses['UTKFace']} points; on moths {flips['moths']:.0f} %, "
        f"and {losses['moths']} points. Among the smaller groups more of them change, by {more}, because "
        "they were nearer to the boundary.",
        holds=all(
            rises(own.level("int4", "flips"))
            and rises(own.level("int4", "flips_by_margins"))
            and flips[name] > 1.5 * float(losses[name])
            for name, own in both.items()
        ),
        otherwise=f"At four bits {flips['UTKFace']:.0f} % of the answers on UTKFace change and "
        f"{flips['moths']:.0f} % on moths; among the smaller groups more, by {more}.",
    )


def _flips(networks: Networks) -> float:
    """The share of all answers that change at four bits, in percent."""
    own = networks.table[networks.table["treatment"] == "int4"]
    return 100 * float(own["flips"].sum() / own["n"].sum())


FOUND = (
    down_to_five_bits_little,
    at_four_it_is_the_range,
    at_three_somebody_pays,
    wide_networks_take_a_side,
    most_of_the_gap_is_older,
    answers_flip,
)


def in_short() -> Prose:
    """All of it, one below the other."""
    return tell(*FOUND)
