"""An audit as one page of HTML, for somebody who does not write code: nothing to install, nothing fetched.

The page is a template, `templates/report.html`. It is filled in here, with what an audit holds and with
where on a scale each number lies. A name out of somebody's file can only be the text of an element or the
value of an attribute, whatever it looks like, because the template escapes all that it is given.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import itertools
import json
import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from fairq_audit import formats
from fairq_audit.formats import hundredths, number
from fairq_audit.page_scripts import SCRIPTS, page_script
from fairq_audit.quantities import QUANTITIES
from fairq_audit.sentences import told
from fairq_utils.errors import BadInput

SCHEMA = "audit-2"
_HERE = Path(__file__).parent
_LONGEST_NAME = 90  # characters; the whole name is in the data that the page carries
_DRAWN_BINS = 20  # or a few more, in a histogram that stands still
_LONGEST_LABEL = 14  # characters; the explorer writes a model's name beside that of a group
_EXPLORED_AT_FIRST = 6  # groups, those that lost most; the others can be ticked
_RECALLS = 10
_VERDICTS = {  # how each is marked, and what it is called
    "harm shown": ("harm", "Harm shown"),
    "no harm found": ("open", "No harm found"),
    "equivalent": ("well", "Equivalent within the margin"),
    "cannot tell": ("open", "Cannot tell"),
}
# Those of `formats`, which templates use by these names.
_FILTERS = (
    "between",
    "counted",
    "directed",
    "four_digits",
    "hundredths",
    "measured",
    "number",
    "p_value",
    "short_hundredths",
)

_Record = Mapping[str, Any]
_Shape = dict[str, Any]

# Control characters, half surrogates and marks that turn the direction of what follows: shown as escapes.
_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\ufffe\uffff\ud800-\udfff]"
)


def page(audit: _Record) -> str:
    """The page of an audit, given as what its JSON holds (`schemas/audit-2.json`).

    One file of HTML that needs no network, in light, dark and print; it carries the audit itself for
    download. Nothing is missing without scripts; with them, tables can be sorted and, where the audit has
    scores, their histograms explored. Parts that the audit lacks, as layers or gates, are left out.

    >>> page({"schema": "audit-1"})
    Traceback (most recent call last):
        ...
    fairq_utils.errors.BadInput: the schema of the audit is 'audit-1'; expected 'audit-2': audit again with \
this version, or read it with the version that wrote it.
    """
    if audit.get("schema") != SCHEMA:
        raise BadInput(
            f"the schema of the audit is {audit.get('schema')!r}; expected {SCHEMA!r}: audit again with "
            "this version, or read it with the version that wrote it."
        )
    explored = any(grouping["distributions"] for grouping in audit["groupings"])
    script = _read("templates/report.js") + (page_script("explorer") if explored else "")
    style = _read("templates/report.css")
    if explored:
        style += "".join(
            (SCRIPTS / name).read_text(encoding="utf-8") for name in ("explorer.css", "page.css")
        )
    warnings, sentence = told(audit["verdict"])
    gaps = [grouping for grouping in audit["groupings"] if len(grouping["groups"]) > 1]
    # An address of this kind works without a script, and its alphabet has no markup in it.
    data = base64.b64encode(json.dumps(audit, separators=(",", ":"), allow_nan=False).encode()).decode()
    template = environment().get_template("report.html")
    return template.render(
        audit=audit,
        warnings=warnings,
        sentence=sentence,
        widest=max(gaps, key=lambda grouping: grouping["fvo_increase"]["estimate"], default=None),
        unit=audit["compared"]["unit"],
        units=formats.plural(audit["compared"]["unit"]),
        gates=[_judged(gate) for gate in audit["gates"]],
        groupings=[_grouping(audit, place) for place in range(len(audit["groupings"]))],
        layers=_layers(audit["layers"]) if audit["layers"] else None,
        least_seen=_groups_by_sight(audit["groupings"])[:4],
        data=data,
        style=Markup(style),
        script=Markup(script),
        digest=base64.b64encode(hashlib.sha256(f"\n{script}".encode()).digest()).decode(),
    )


@functools.cache
def environment() -> Environment:
    """What templates are filled in with: all that they are given is escaped, and nothing may be missing."""
    made = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_plain,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    made.filters |= {name: getattr(formats, name) for name in _FILTERS}
    made.globals["verdicts"] = _VERDICTS
    made.filters |= {"called": _called, "cut": _cut, "day": _day, "capitalize_first": _capitalized}
    return made


def style() -> Markup:
    """What a page of an audit is set with."""
    return Markup(_read("templates/report.css"))


def _read(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


# -- words --------------------------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    r"""A text with what cannot be seen written out; anything else, and markup of our own, as it is.

    >>> _plain("a\x00\u202eb\nc")
    'a\\x00\\u202eb\\nc'
    """
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return _UNSEEN.sub(lambda match: match[0].encode("unicode_escape").decode(), value)


def _cut(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"


def _called(name: str) -> str:
    return _cut(name) if name.strip() else "(no name)"


def _capitalized(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"


def _day(moment: str) -> str:
    """The day and the minute, as far as the text says them.

    >>> _day("2026-03-01T09:05:00Z")
    '1 March 2026, 09:05 UTC'
    """
    try:
        found = datetime.fromisoformat(moment)
    except ValueError:
        return moment
    return f"{found.day} {found:%B %Y, %H:%M} {found.tzname() or ''}".strip()


def _judged(gate: _Record) -> dict[str, Any]:
    """A gate with what its quantity is, and with what has to be known of its interval."""
    about = {name.partition("[")[0]: said for name, said in QUANTITIES.items()}[gate["quantity"]]
    about = "the verdict" if gate["quantity"] == "verdict" else about
    remarks = []
    others = [
        _called(str(one["where"]))
        for one in gate["not_ruled_out"]
        if one["where"] not in (None, gate["where"])
    ]
    if gate["not_ruled_out"] and gate["outcome"] == "not ruled out":
        remarks.append("More than the limit is not ruled out.")
        if others:
            remarks.append(
                f"Nor is it for {', '.join(others[:4])}{' and others' if len(others) > 4 else ''}."
            )
    if gate["too_few"]:
        few = ", ".join(map(_called, gate["too_few"][:4]))
        remarks.append(f"Too few rows to tell of {few}{' and others' if len(gate['too_few']) > 4 else ''}.")
    value = gate["value"] or {}
    for end, side in (("lower", "lower"), ("upper", "upper")):
        whose = value.get(f"{end}_of", gate["where"])
        if whose != gate["where"]:
            remarks.append(f"The {side} end is that of {_called(str(whose))}.")
    missing = gate.get("with_missing")
    if missing and gate["outcome"] != "passed":
        of = f" of {_called(missing['group'])}" if missing["group"] is not None else ""
        rows = f"{number(missing['n'], 0)} rows{of} are missing"
        remarks.append(
            f"{rows}, which may count."
            if missing["value"] is None
            else f"{rows}; if they count as wrong it is {hundredths(missing['value'])}."
        )
    return {**gate, "about": about, "remarks": remarks}


# -- drawings: shapes on a scale, whose places are percentages of its width -----------------------------


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float
    step: float

    @classmethod
    def of(cls, values: Iterable[float]) -> _Scale:
        """From one round number to another, with no more than seven marks."""
        found = list(values)
        low, high = min(found), max(found)
        steps = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
        step = next((step for step in steps if high - low <= 5 * step), 0.5)
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        return cls(first * step, max(last, first + 1) * step, step)

    def at(self, value: float) -> str:
        return f"{3 + 94 * (value - self.low) / (self.high - self.low):.2f}%"

    def marks(self) -> list[float]:
        count = round((self.high - self.low) / self.step)
        return [self.low + self.step * place for place in range(count + 1)]


def _line(x1: str, y1: float, x2: str, y2: float, kind: str) -> _Shape:
    return {"shape": "line", "x1": x1, "y1": y1, "x2": x2, "y2": y2, "kind": kind}


def _dot(x: str, y: float, kind: str) -> _Shape:
    return {"shape": "dot", "x": x, "y": y, "kind": kind}


def _bar(scale: _Scale, low: float, high: float, kind: str, y: float = 9, height: float = 16) -> _Shape:
    left, right = (float(scale.at(end).rstrip("%")) for end in (low, high))
    width = f"{right - left:.2f}%"
    return {"shape": "bar", "x": f"{left:.2f}%", "y": y, "width": width, "height": height, "kind": kind}


def _interval(scale: _Scale, found: Mapping[str, float], y: float, kind: str) -> list[_Shape]:
    """A line from end to end, and the estimate on it."""
    ends = _line(scale.at(found["lower"]), y, scale.at(found["upper"]), y, kind)
    return [ends, _dot(scale.at(found["estimate"]), y, kind)]


_KEY_SCALE = _Scale(0, 1, 1)
_KEYS = {
    **{
        kind: _interval(_KEY_SCALE, {"estimate": 0.5, "lower": 0.1, "upper": 0.9}, 8, kind)
        for kind in ("before", "after", "sure")
    },
    "could": [_line("50%", 1, "50%", 15, "could")],
    **{kind: [_bar(_KEY_SCALE, 0, 1, kind, y=1, height=14)] for kind in ("lost", "won")},
}


def _figure(
    place: str,
    scale: _Scale,
    rows: Iterable[tuple[_Record, list[_Shape]]],
    key: Sequence[tuple[list[_Shape], str]] = (),
    *,
    unit: str = "",
    signed: bool = True,
) -> dict[str, Any]:
    """What is drawn in each row, the marks of the scale, and what the shapes mean."""
    digits = 0 if scale.step >= 0.01 else 1
    ticks = [
        {
            "x": scale.at(mark),
            "kind": "zero" if abs(mark) < 1e-9 else "rule",
            "label": f"{number(100 * (mark if signed else abs(mark)), digits)}{unit}",
        }
        for mark in scale.marks()
    ]
    drawn = [{**row, "drawn": shapes} for row, shapes in rows]
    return {"place": place, "ticks": ticks, "key": key, "rows": drawn}


# -- the parts of the page ----------------------------------------------------------------------------


def _grouping(audit: _Record, place: int) -> dict[str, Any]:
    """A grouping with its groups from the largest drop to the smallest, and all that is drawn of them."""
    units = formats.plural(audit["compared"]["unit"])
    grouping, overall = (
        audit["groupings"][place],
        _with_drop_for_all(audit["overall"]) | {"units": units, "calibration": None},
    )
    groups = sorted(map(_with_drop_for_all, grouping["groups"]), key=lambda group: -group["drop"]["estimate"])
    rows = [overall, *groups]
    spread = grouping["distributions"]
    return {
        **grouping,
        "place": place,
        "groups_then_all": [*groups, overall],
        "all_then_groups": rows,
        "accuracies": _accuracies(rows, f"accuracy-{place}"),
        "drops": _drops(rows, audit["settings"]["power"], f"drop-{place}"),
        "gap": _gap(grouping, f"gap-{place}") if len(groups) > 1 else None,
        "flips": _flips(rows, f"flips-{place}"),
        "recall": _recall(grouping["recall"]),
        "worse": grouping["rates"]["surely_worse"][:_RECALLS],
        "calibrated": any(group["calibration"] for group in groups),
        "explorer": _explorer(audit, grouping, groups) if spread else None,
        "histograms": _histograms(spread, groups) if spread else None,
    }


def _with_drop_for_all(outcome: _Record) -> dict[str, Any]:
    """With the limits of the drop that are shown: of a group those that hold for all groups at once."""
    drop, wide = outcome["drop"], "simultaneous_" if "group" in outcome else ""
    ends = {end: drop[f"{wide}{end}"] for end in ("lower", "upper")}
    return {**outcome, "drop": {"estimate": drop["estimate"], **ends}}


def _accuracies(rows: Sequence[_Record], place: str) -> dict[str, Any]:
    shown = [row[f"accuracy_{when}"] for row in rows for when in ("before", "after")]
    scale = _Scale.of(accuracy[end] for accuracy in shown for end in ("lower", "upper"))
    drawn = []
    for row in rows:
        before, after = row["accuracy_before"], row["accuracy_after"]
        between = _line(scale.at(before["estimate"]), 11, scale.at(after["estimate"]), 23, "between")
        kind = "sure" if row["drop"]["lower"] > 0 else "after"
        drawn.append([between, *_interval(scale, before, 11, "before"), *_interval(scale, after, 23, kind)])
    key = [(_KEYS["before"], "before"), (_KEYS["after"], "after")]
    if any(row["drop"]["lower"] > 0 for row in rows):
        key.append((_KEYS["sure"], "after, and surely a loss"))
    return _figure(place, scale, zip(rows, drawn, strict=True), key, unit=" %")


def _drops(rows: Sequence[_Record], power: float, place: str) -> dict[str, Any]:
    could = [row["detectable_drop"] for row in rows if row["detectable_drop"] is not None]
    scale = _Scale.of([0, *could, *(row["drop"][end] for row in rows for end in ("lower", "upper"))])
    drawn, kinds = [], set()
    for row in rows:
        kind, least = "sure" if row["drop"]["lower"] > 0 else "after", row["detectable_drop"]
        stroke = [] if least is None else [_line(scale.at(least), 6, scale.at(least), 28, "could")]
        drawn.append([*_interval(scale, row["drop"], 17, kind), *stroke])
        kinds.add(kind)
    words = {"sure": "surely a loss", "after": "may be none"}
    key = [(_KEYS[kind], text) for kind, text in words.items() if kind in kinds]
    if could:
        of_100 = formats.short_hundredths(power)
        key.append((_KEYS["could"], f"smallest drop that {of_100} of 100 such audits would show"))
    return _figure(place, scale, zip(rows, drawn, strict=True), key)


def _gap(grouping: _Record, place: str) -> dict[str, Any]:
    rose = "sure" if grouping["fvo_increase"]["lower"] > 0 else "after"
    kinds = {"before": "before", "after": "after", "increase": rose}
    rows = [
        {"word": "change" if what == "increase" else what, "found": grouping[f"fvo_{what}"]} for what in kinds
    ]
    ends = (row["found"][end] for row in rows for end in ("lower", "upper", "estimate"))
    scale = _Scale.of([0, *ends])
    drawn = [_interval(scale, row["found"], 17, kind) for row, kind in zip(rows, kinds.values(), strict=True)]
    return _figure(place, scale, zip(rows, drawn, strict=True))


def _flips(rows: Sequence[_Record], place: str) -> dict[str, Any]:
    lost, won = ([row[what] / row["n"] for row in rows] for what in ("lost", "gained"))
    scale = _Scale.of([0, *(-share for share in lost), *won])
    drawn = [
        [_bar(scale, -left, 0, "lost"), _bar(scale, 0, right, "won")]
        for left, right in zip(lost, won, strict=True)
    ]
    key = [
        (_KEYS["lost"], "to the left: right before, wrong after (lost)"),
        (_KEYS["won"], "to the right: wrong before, right after (won)"),
    ]
    return _figure(place, scale, zip(rows, drawn, strict=True), key, signed=False)


def _recall(recall: _Record) -> dict[str, Any]:
    """The pairs of class and group whose recall fell most, and the classes whose gaps grew most."""
    fell = [
        {**cell, "surely": cell["drop"].get("simultaneous_lower", 0) > 0}
        for cell in recall["largest_drops"]
        if cell["drop"]["estimate"] > 0
    ][:_RECALLS]
    wider = [row for row in recall["disparities"] if row["increase"] > 0][:_RECALLS]
    return {**recall, "fell": fell, "wider": wider}


def _layers(layers: Sequence[_Record]) -> dict[str, Any]:
    scale = _Scale.of([0, *(layer[f"zero_{when}"] for layer in layers for when in ("before", "after"))])
    drawn = []
    for layer in layers:
        before, after = scale.at(layer["zero_before"]), scale.at(layer["zero_after"])
        dots = [_dot(before, 17, "before"), _dot(after, 17, "after")]
        drawn.append([_line(before, 17, after, 17, "between"), *dots])
    weights = sum(layer["weights"] for layer in layers) or 1
    shares = {
        when: sum(layer["weights"] * layer[f"zero_{when}"] for layer in layers) / weights
        for when in ("before", "after")
    }
    key = [(_KEYS[when][1:], when) for when in ("before", "after")]
    figure = _figure("layers", scale, zip(layers, drawn, strict=True), key, unit=" %")
    return {"weights": weights, **shares, "figure": figure}


def _groups_by_sight(groupings: Sequence[_Record]) -> list[tuple[_Record, _Record]]:
    """Every group with its grouping, first those of which least could have been seen."""

    def sharpness(pair: tuple[_Record, _Record]) -> float:
        least = pair[1]["detectable_drop"]
        return -math.inf if least is None else -float(least)

    return sorted(((own, group) for own in groupings for group in own["groups"]), key=sharpness)


# -- how the answers are spread -----------------------------------------------------------------------


def _explorer(audit: _Record, grouping: _Record, rows: Sequence[_Record]) -> dict[str, Any]:
    """What the explorer is started with, where scripts run."""
    at_first = {"groups": list(range(len(rows)))[:_EXPLORED_AT_FIRST]}
    return {"data": _explored(audit, grouping, rows), "live": False, "asks": False, "view": at_first}


def _explored(audit: _Record, grouping: _Record, rows: Sequence[_Record]) -> dict[str, Any]:
    """What the explorer is to know: histograms, and no single image. Who flipped is drawn elsewhere."""
    found = grouping["distributions"]
    places = {group["group"]: place for place, group in enumerate(grouping["groups"])}
    names = [_plain(audit["compared"][when]["name"]) for when in ("before", "after")]
    if names[0] == names[1] or max(map(len, names)) > _LONGEST_LABEL:
        names = ["model before", "model after"]
    data: dict[str, Any] = {
        "about": f"audit of {' and '.join(names)}",
        "seeds": 1,
        "networks": ["pair of models", formats.plural(audit["compared"]["unit"])],
        "treatments": names,
        "groups": [
            {"name": _plain(_called(row["group"])), "n": row["n"], **formats.look(places[row["group"]])}
            for row in rows
        ],
        **{part: {} for part in ("quantities", "counts", "summaries", "flows", "tops", "so_far")},
    }
    for measure, unit, factor in (("confidence", "%", 100), ("margin", "", 1)):
        edges = found[measure]["edges"]
        own = {group["group"]: group for group in found[measure]["groups"]}
        data["quantities"][measure] = {
            "name": measure,
            "unit": unit,
            "factor": factor,
            "log": False,
            "mean": "mean",
            "low": edges[0],
            "high": edges[-1],
            "bins": len(edges) - 1,
            "zero": _zero(edges),
            "closed": unit == "%",
        }
        counts = {
            name: [own[row["group"]][when] for row in rows]
            for name, when in zip(names, ("before", "after"), strict=True)
        }
        # A negative number stands for so many zeros in a row.
        data["counts"][measure] = {
            name: [[count or -1 for count in group] for group in groups] for name, groups in counts.items()
        }
        data["summaries"][measure] = {
            name: [_summary(group, edges) for group in groups] for name, groups in counts.items()
        }
    return data


def _zero(edges: Sequence[float]) -> int | None:
    """The place of the edge at 0 between the others, if it is one.

    >>> _zero([-1.0, 0.0, 1.0]), _zero([0.0, 0.5, 1.0])
    (1, None)
    """
    return edges.index(0) if 0 in edges[1:-1] else None


def _summary(counts: Sequence[int], edges: Sequence[float]) -> list[float]:
    """The mean and the quartiles, as far as a histogram knows them."""
    middles = [(low + high) / 2 for low, high in itertools.pairwise(edges)]
    mean = sum(map(operator.mul, counts, middles)) / sum(counts)
    return [
        float(f"{value:.4g}") for value in (mean, *(_quantile(counts, edges, q) for q in (0.25, 0.5, 0.75)))
    ]


def _histograms(found: _Record, rows: Sequence[_Record]) -> dict[str, list[dict[str, Any]]]:
    """What stands where no script runs, and on paper."""
    drawn = {}
    for measure, said in (("confidence", _sureness), ("margin", number)):
        own = {group["group"]: group for group in found[measure]["groups"]}
        drawn[measure] = [_histogram(own[row["group"]], found[measure]["edges"], said) for row in rows]
    return drawn


def _sureness(value: float) -> str:
    return f"{number(100 * value, 0)}\u00a0%"


def _histogram(group: _Record, edges: Sequence[float], said: Callable[[float], str]) -> dict[str, Any]:
    """Outlines in a square of 100 by 100, and what is written under it."""
    by = _merged(edges)
    heights = {
        when: [sum(group[when][start : start + by]) for start in range(0, len(edges) - 1, by)]
        for when in ("before", "after")
    }
    top = max(map(max, heights.values())) or 1
    whole = edges[-1] - edges[0]

    def outline(values: Sequence[float]) -> str:
        steps = [
            f"V{100 - 100 * value / top:.1f}H{100 * (high - edges[0]) / whole:.1f}"
            for value, high in zip(values, edges[by::by], strict=True)
        ]
        return f"M0 100{''.join(steps)}V100"

    return {
        "group": group["group"],
        "before": outline(heights["before"]),
        "after": outline(heights["after"]),
        "zero": f"{-100 * edges[0] / whole:.2f}" if edges[0] < 0 < edges[-1] else None,
        "low": said(edges[0]),
        "high": said(edges[-1]),
        "medians": " → ".join(said(_quantile(group[when], edges, 0.5)) for when in ("before", "after")),
    }


def _merged(edges: Sequence[float]) -> int:
    """How many neighbouring bins are drawn as one; zero stays an edge where it is one.

    >>> _merged(range(61)), _merged(range(-18, 43)), _merged(range(-17, 44))
    (3, 3, 1)
    """
    bins, zero = len(edges) - 1, _zero(edges) or 0
    fit = [by for by in range(2, bins + 1) if bins % by == zero % by == 0 and bins // by >= _DRAWN_BINS]
    return max(fit, default=1)


def _quantile(counts: Sequence[int], edges: Sequence[float], share: float) -> float:
    """The value that this share of what was counted lies below, taking each bin as evenly filled.

    >>> _quantile([1, 2, 1], [0, 1, 2, 3], 0.5)
    1.5
    """
    below = share * sum(counts)
    for count, so_far, low, high in zip(counts, itertools.accumulate(counts), edges, edges[1:], strict=False):
        if count and so_far >= below:
            return high - (high - low) * (so_far - below) / count
    return edges[-1]
