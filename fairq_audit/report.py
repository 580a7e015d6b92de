"""An audit as one page of HTML, for somebody who does not write code: nothing to install, nothing fetched.

The page is built as a tree of elements, never by joining strings: a name out of somebody's file can only be
the text of an element or the value of an attribute, whatever it looks like.
"""

from __future__ import annotations

import base64
import hashlib
import html
import itertools
import json
import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from string import Template
from typing import Any
from xml.etree.ElementTree import Element, tostring

from fairq_utils.errors import BadInput

# Why the same drop has another interval in another place: what its ends allow for.
WHOSE_ENDS = {
    "worst_group_drop": "the lower end allows for all groups, the upper is one group's own",
    "group_drop": "both ends are the group's own and do not allow for the others",
}

_SCHEMA = "audit-1"
_SCRIPTS = Path(__file__).parent / "scripts"
_LONGEST_NAME = 90  # characters; the whole name is in the data that the page carries
_UNFOLDED = 24  # rows; of more, only the first are shown until the rest is asked for
_FIRST = 16
_HISTOGRAMS_UNFOLDED = 6
_DRAWN_BINS = 20  # or a few more, in a histogram that stands still
_LONGEST_LABEL = 14  # characters; the explorer writes a model's name beside that of a group
_EXPLORED_AT_FIRST = 6  # groups, those that lost most; the others can be ticked
_RECALLS = 10
_ROW = 34  # pixels

# Control characters, half surrogates and marks that turn the direction of what follows: shown as escapes.
_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\ufffe\uffff\ud800-\udfff]"
)
_MARKS = {
    "harm": "M12 2 23 21H1Z M12 9v6 M12 17.5v1",
    "well": "M12 1a11 11 0 1 0 .1 0Z M6.5 12.5l4 4 7.5-8.5",
    "open": "M12 1a11 11 0 1 0 .1 0Z M8.6 9a3.4 3.4 0 1 1 4.6 3.2Q12 12.8 12 14.3 M12 17v1",
}
_VERDICTS = {
    "harm shown": ("harm", "Harm shown"),
    "no harm found": ("open", "No harm found"),
    "equivalent": ("well", "Equivalent within the margin"),
    "cannot tell": ("open", "Cannot tell"),
}
_QUANTITIES = {
    "fvo_increase": "Increase of the gap between groups (FVO)",
    "fvo_after": "Gap between groups (FVO) after",
    "worst_group_drop": "Largest drop of a group",
    "overall_drop": "Drop over all images",
    "group_drop": "Drop of the group",
    "flip_rate": "Share of changed predictions",
}
# Those of the explorer: a group looks the same in all drawings.
_COLOURS = ("#2f7fc1", "#c4720e", "#1f9a6c", "#8e6bd1", "#d0457b", "#9c7a3c", "#2a93a8", "#7d828a")
_SIGNS = ("o", "s", "^", "D", "v", "P", "X", "h")
_DECIDED_ON = {
    "lower": "A gate fails only when the whole interval is beyond the limit.",
    "estimate": "A gate fails when the estimate is beyond the limit.",
    "upper": "A gate fails unless the whole interval is within the limit.",
}


def page(audit: Mapping[str, Any]) -> str:
    """The page of an audit, given as what its JSON holds (`schemas/audit-1.json`).

    One file of HTML that needs no network, in light, dark and print; it carries the audit itself for
    download. Nothing is missing without scripts; with them, tables can be sorted and, where the audit has
    scores, their histograms explored. Parts that the audit lacks, as layers or gates, are left out.

    >>> page({"schema": "audit-2"})
    Traceback (most recent call last):
        ...
    fairq_utils.errors.BadInput: the schema of the audit is 'audit-2'; expected 'audit-1': audit again with \
this version, or read it with the version that wrote it.
    """
    if audit.get("schema") != _SCHEMA:
        raise BadInput(
            f"the schema of the audit is {audit.get('schema')!r}; expected {_SCHEMA!r}: audit again with "
            "this version, or read it with the version that wrote it."
        )
    explored = any(grouping["distributions"] for grouping in audit["groupings"])
    explorer = _explorer_script() if explored else ""
    shell = _read("report.html")
    script = shell[shell.rindex("<script>") + len("<script>") : shell.rindex("</script>")]
    script = script.replace("$explorer", explorer)
    settings = audit["settings"]
    before, after = (_cut(audit["compared"][when]["name"]) for when in ("before", "after"))
    words = {
        "digest": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "title": f"Audit: {before}, {after}",
        "confidence": _hundredths(settings["confidence"]),
        "power": _hundredths(settings["power"]),
        "family": _number(settings["family"], 0),
        "resamples": _number(settings["resamples"], 0),
        "seed": str(settings["seed"]),
    }
    parts = {
        "top": _top(audit),
        "sections": _sections(audit),
        "untested": _untested(audit),
        "end": _end(audit),
    }
    return Template(shell).substitute(
        {name: html.escape(_plain(text)) for name, text in words.items()},
        **{name: "".join(map(_markup, _elements(part))) for name, part in parts.items()},
        explorer=explorer,
        style=_read("explorer.css") + _read("page.css") if explored else "",
    )


def _read(name: str) -> str:
    return (_SCRIPTS / name).read_text(encoding="utf-8")


def _explorer_script() -> str:
    """The explorer's script and the starter of a published page, which finds each explorer by its markup."""
    drawn = _read("explorer.js").replace("export default", "return")
    return f"window.fairqWidgets = {{ explorer: (() => {{\n{drawn}\n}})() }};\n{_read('page.js')}"


# -- elements -----------------------------------------------------------------------------------------

_Content = Element | str | None | Iterable["_Content"]


def _tag(tag: str, *content: _Content, **attributes: object) -> Element:
    """An element that holds text and other elements, in order; `class_` and `aria_label` lose their `_`."""
    names = {name: name.rstrip("_").replace("_", "-") for name in attributes}
    found = {names[name]: _plain(str(value)) for name, value in attributes.items() if value is not None}
    made = Element(tag, found)
    _append(made, content)
    return made


def _append(parent: Element, content: _Content) -> None:
    if isinstance(content, Element):
        parent.append(content)
    elif isinstance(content, str):
        if len(parent):
            parent[-1].tail = (parent[-1].tail or "") + _plain(content)
        else:
            parent.text = (parent.text or "") + _plain(content)
    elif content is not None:
        for part in content:
            _append(parent, part)


def _elements(content: _Content) -> list[Element]:
    return list(_tag("div", content))


def _markup(element: Element) -> str:
    return tostring(element, encoding="unicode", method="html")


def _plain(text: str) -> str:
    r"""The text with what cannot be seen written out.

    >>> _plain("a\x00\u202eb\nc")
    'a\\x00\\u202eb\\nc'
    """
    return _UNSEEN.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def _cut(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"


def _called(name: str) -> str:
    return _cut(name) if name.strip() else "(no name)"


def _name(name: str) -> Element:
    """A name from outside, whose direction of writing stays its own."""
    return _tag("bdi", _called(name))


def _layer_name(name: str) -> Element:
    """A layer's name without the word that nearly all end in; a line may end at its dots."""
    first, *others = _called(name.removesuffix(".weight")).split(".")
    return _tag("bdi", first, [[".", _tag("wbr"), part] for part in others])


# -- words --------------------------------------------------------------------------------------------


def _number(value: float, digits: int = 1) -> str:
    """The value with a true minus, and without one before zero.

    >>> _number(-0.04), _number(-1.25, 2), _number(12345.0, 0)
    ('0.0', '−1.25', '12,345')
    """
    text = f"{value:,.{digits}f}"
    return text.replace("-", "" if float(text.replace(",", "")) == 0 else "−")


def _percent(share: float) -> str:
    return _number(100 * share)


def _interval(found: Mapping[str, float]) -> str:
    return f"({_percent(found['lower'])} to {_percent(found['upper'])})"


def _measured(found: Mapping[str, float], unit: str = "") -> str:
    return f"{_percent(found['estimate'])}{unit} {_interval(found)}"


def _directed(found: Mapping[str, float], up: str, down: str, unit: str = "") -> str:
    """A change in the word for its direction, and so without a minus before it.

    >>> _directed({"estimate": -0.164, "lower": -0.218, "upper": -0.102}, "an increase", "a fall")
    'a fall of 16.4 (10.2 to 21.8)'
    """
    return f"{up if found['estimate'] >= 0 else down} of {_measured(unsigned(found), unit)}"


def unsigned(change: Mapping[str, float]) -> Mapping[str, float]:
    """How far it went, whichever way; the limits of a fall are turned with it."""
    if change["estimate"] >= 0:
        return change
    return {"estimate": -change["estimate"], "lower": -change["upper"], "upper": -change["lower"]}


def _hundredths(share: float) -> str:
    """Hundredths without needless places.

    >>> _hundredths(0.95), _hundredths(0.995)
    ('95', '99.5')
    """
    return _number(100 * share).removesuffix(".0")


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else _number(value, 3)


def _many(count: int, one: str) -> str:
    return f"{_number(count, 0)} {one if count == 1 else one + 's'}"


def _drop(outcome: Mapping[str, Any]) -> dict[str, float]:
    """The drop with its limits: of a group those that hold for all groups at once."""
    drop, wide = outcome["drop"], "simultaneous_" if "group" in outcome else ""
    return {
        "estimate": drop["estimate"],
        "lower": drop[f"{wide}lower"],
        "upper": drop[f"{wide}upper"],
    }


# -- drawings: rows of words with a drawing between them, whose places are percentages of its width -----


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


@dataclass(frozen=True)
class _Row:
    name: _Content
    drawing: _Content
    said: _Content


def _line(x1: str, y1: float, x2: str, y2: float, kind: str) -> Element:
    return _tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=kind)


def _drawing(*parts: _Content, height: int = _ROW, **attributes: object) -> Element:
    """Hidden from screen readers, because what it shows is said in words beside it."""
    return _tag("svg", *parts, height=height, aria_hidden="true", focusable="false", **attributes)


def _mark(scale: _Scale, found: Mapping[str, float], y: float, kind: str) -> list[Element]:
    """An interval and its estimate: a circle, or a diamond for what is surely above zero."""
    x = scale.at(found["estimate"])
    line = _line(scale.at(found["lower"]), y, scale.at(found["upper"]), y, kind)
    if kind != "sure":
        return [line, _tag("circle", cx=x, cy=y, r=4.5, class_=kind)]
    diamond = _tag("path", d="M0 -7 7 0 0 7 -7 0Z", class_=kind)
    return [line, _tag("svg", diamond, x=x, y=y)]


def _key(*entries: tuple[list[Element], str] | None) -> Element:
    items = [
        _tag("li", _drawing(entry[0], height=16, viewBox="0 0 30 16"), entry[1]) for entry in entries if entry
    ]
    return _tag("ul", items, class_="key")


_KEY_SCALE = _Scale(0, 1, 1)
_KEY_INTERVAL = {"estimate": 0.5, "lower": 0.1, "upper": 0.9}


def _key_mark(kind: str) -> list[Element]:
    return _mark(_KEY_SCALE, _KEY_INTERVAL, 8, kind)


def _figure(
    place: str,
    caption: _Content,
    key: Element | None,
    rows: Sequence[_Row],
    scale: _Scale,
    *,
    unit: str = "",
    signed: bool = True,
    what: str = "groups",
) -> Element:
    """Rows on one scale; of very many the first, and the others folded away."""
    # Drawn in the first row, and from there in all others, which keeps the page small.
    lines = [
        _line(scale.at(mark), 0, scale.at(mark), _ROW, "zero" if abs(mark) < 1e-9 else "rule")
        for mark in scale.marks()
    ]
    first, again = _tag("g", lines, id=f"{place}-lines"), _tag("use", href=f"#{place}-lines")
    digits = 0 if scale.step >= 0.01 else 1
    ticks = [
        _tag(
            "text", f"{_number(100 * (mark if signed else abs(mark)), digits)}{unit}", x=scale.at(mark), y=14
        )
        for mark in scale.marks()
    ]
    axis = _tag("li", _tag("span"), _drawing(ticks, height=20), aria_hidden="true")

    def listed(some: Sequence[_Row]) -> Element:
        items = [
            _tag(
                "li",
                _tag("span", row.name, class_="name"),
                _drawing(first if row is rows[0] else again, row.drawing),
                _tag("span", row.said, class_="said"),
            )
            for row in some
        ]
        return _tag("ul", items, axis, class_="rows")

    folded = None
    if len(rows) > _UNFOLDED:
        others = rows[_FIRST:]
        folded = _tag("details", _tag("summary", f"The other {len(others)} {what}"), listed(others))
    unfolded = rows[:_FIRST] if folded is not None else rows
    return _tag("figure", _tag("figcaption", caption, key), listed(unfolded), folded)


def _table(
    caption: str, heads: Sequence[str], rows: Sequence[Sequence[_Cell]], *, texts: int = 1
) -> list[_Content]:
    """A table that scrolls by itself where it is too wide; the first `texts` columns hold words."""

    def kind(place: int) -> str | None:
        return "text" if place < texts else None

    head = [_tag("th", head, scope="col", class_=kind(place)) for place, head in enumerate(heads)]
    body = [
        _tag(
            "tr",
            [
                _tag(
                    "td" if place else "th",
                    cell.content,
                    scope=None if place else "row",
                    class_=kind(place),
                    data_value=cell.value,
                )
                for place, cell in enumerate(row)
            ],
        )
        for row in rows
    ]
    table = _tag("table", _tag("thead", _tag("tr", head)), _tag("tbody", body))
    # A caption inside would be as wide as the table, wider than a phone.
    return [
        _tag("p", caption, class_="quiet", aria_hidden="true"),
        _tag("div", table, class_="scrolled", role="group", tabindex=0, aria_label=caption),
    ]


@dataclass(frozen=True)
class _Cell:
    """What a cell shows, and by what its row is sorted: its text if nothing else is said."""

    content: _Content
    value: float | str | None = None

    @classmethod
    def measured(cls, found: Mapping[str, float], tag: str | None = None) -> _Cell:
        estimate = _percent(found["estimate"])
        number = _tag(tag, estimate) if tag else estimate
        return cls([number, _tag("small", _interval(found))], found["estimate"])


# -- the parts of the page ----------------------------------------------------------------------------


def _top(audit: Mapping[str, Any]) -> _Content:
    """The answer, before anything that explains it."""
    compared = audit["compared"]
    return [
        _tag("h1", "Who pays when this model is quantized?"),
        _tag(
            "p",
            [_name(compared["before"]["name"]), " → ", _name(compared["after"]["name"]), ", "],
            ", ".join(filter(None, [_many(compared["n"], "image"), _day(audit["created"])])),
            class_="quiet",
        ),
        _verdict(audit),
        _tiles(audit),
    ]


def _sections(audit: Mapping[str, Any]) -> _Content:
    several = len(audit["groupings"]) > 1
    sections: list[Element | None] = [
        _section("gate", "The gate", _gates(audit)) if audit["gates"] else None,
        _section("compared", "What was compared", _compared(audit)),
    ]
    for place, grouping in enumerate(audit["groupings"]):
        heading: _Content = ["By ", _name(grouping["name"])] if several else "Group by group"
        sections.append(_section(f"groups-{place}", heading, _grouping(audit, place)))
    if audit["layers"]:
        sections.append(_section("layers", "Weights that became zero", _layers(audit["layers"])))
    return [*sections, _section("sight", "Where this audit sees least", _sight(audit))]


def _section(place: str, heading: _Content, *content: _Content) -> Element:
    return _tag("section", _tag("h2", heading, id=place), content, aria_labelledby=place)


def _untested(audit: Mapping[str, Any]) -> Element | None:
    sentences = [_tag("li", sentence) for sentence in audit["not_tested"]]
    return _section("untested", "What was not tested", _tag("ul", sentences)) if sentences else None


def _verdict(audit: Mapping[str, Any]) -> Element:
    kind, word = _VERDICTS[audit["verdict"]["word"]]
    gates = audit["gates"]
    failed = sum(not gate["passed"] for gate in gates)
    held = (
        f"{failed} of {_many(len(gates), 'gate')} failed" if failed else f"{_many(len(gates), 'gate')} passed"
    )
    gate = _tag("p", _sign("harm" if failed else "well"), _tag("a", held, href="#gate"), class_="word")
    warnings, sentence = told(audit["verdict"])
    return _tag(
        "div",
        [_tag("p", _sign("harm"), warning, class_="first") for warning in warnings],
        _tag("p", _sign(kind), word, class_="word"),
        _tag("p", sentence),
        gate if gates else None,
        class_=f"verdict {kind}",
    )


def told(verdict: Mapping[str, Any]) -> tuple[list[str], str]:
    """What must be known before a verdict is read, and its sentence without that.

    >>> told({"word": "equivalent", "sentence": "Look. All is well.", "warnings": ["Look."]})
    (['Look.'], 'All is well.')
    """
    warnings = list(verdict.get("warnings", []))
    return warnings, verdict["sentence"].removeprefix(" ".join(warnings)).strip()


def _sign(kind: str) -> Element:
    """What the word beside it says, for a glance; not by colour alone."""
    shape = _tag(
        "path", d=_MARKS[kind], fill="none", stroke="currentColor", stroke_width=2.2, stroke_linejoin="round"
    )
    return _tag("svg", shape, viewBox="0 0 24 24", class_=kind, aria_hidden="true", focusable="false")


def _compared(audit: Mapping[str, Any]) -> Element:
    compared, settings = audit["compared"], audit["settings"]
    facts: list[tuple[str, _Content]] = [
        ("Before", _model(compared["before"])),
        ("After", _model(compared["after"])),
    ]
    if compared["description"]:
        facts.append(("About", compared["description"]))
    facts.append(("Images", f"{_number(compared['n'], 0)}, each answered by both"))
    if compared["dropped"]:
        facts.append(("Left out", _left_out(compared["dropped"])))
    groups: list[_Content] = []
    for place, grouping in enumerate(audit["groupings"]):
        link = _tag("a", _name(grouping["name"]), href=f"#groups-{place}")
        groups += ["; " if groups else None, link, f" ({len(grouping['groups'])})"]
    facts += [("Groups by", groups), ("Classes", str(len(compared["classes"])))]
    facts.append(("Confidence", f"{_hundredths(settings['confidence'])} %"))
    return _tag("dl", [(_tag("dt", term), _tag("dd", words)) for term, words in facts], class_="facts")


def _left_out(dropped: Sequence[Mapping[str, Any]]) -> list[_Content]:
    parts: list[_Content] = []
    for left in dropped:
        parts += ["; " if parts else None, f"{_number(left['n'], 0)}: {left['reason']}"]
        if groups := left.get("groups"):
            parts.append(" (")
            for place, group in enumerate(groups[:_UNFOLDED]):
                of = f" {_number(group['n'], 0)} of {_number(group['of'], 0)}"
                parts += [", " if place else None, _name(group["group"]), of]
            parts.append(", …)" if len(groups) > _UNFOLDED else ")")
    return parts


def _model(model: Mapping[str, Any]) -> list[_Content]:
    file = model["file"]
    return [_name(model["name"]), [", from ", _tag("code", _name(file))] if file else None]


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


def _tiles(audit: Mapping[str, Any]) -> Element:
    overall, worst = audit["overall"], audit["worst_group_drop"]
    gaps = [grouping for grouping in audit["groupings"] if len(grouping["groups"]) > 1]
    widest = max(gaps or audit["groupings"], key=lambda grouping: grouping["fvo_increase"]["lower"])
    several = len(audit["groupings"]) > 1
    was, now = (overall[f"accuracy_{when}"]["estimate"] for when in ("before", "after"))
    first, then = (widest[f"fvo_{when}"]["estimate"] for when in ("before", "after"))
    tiles: list[tuple[_Content, str, str]] = [
        (
            "Accuracy over all (OA)",
            f"{_percent(was)} → {_percent(now)} %",
            _directed(overall["drop"], "a drop", "a rise", " points"),
        ),
        (
            ["Gap between groups (FVO)", [" by ", _name(widest["name"])] if several else None],
            f"{_percent(first)} → {_percent(then)}",
            f"points, {_directed(widest['fvo_increase'], 'an increase', 'a fall')}",
        ),
        (
            [
                "Largest drop: ",
                _name(worst["group"]),
                [", by ", _name(worst["grouping"])] if several else None,
            ],
            _percent(worst["estimate"]),
            f"points; the largest of all groups is {_percent(worst['lower'])} to {_percent(worst['upper'])}: "
            f"{WHOSE_ENDS['worst_group_drop']}",
        ),
    ]
    if not gaps:  # one group alone is all images
        tiles = tiles[:1]
    return _tag(
        "dl",
        [
            _tag(
                "div",
                _tag("dt", term),
                _tag("dd", value, class_="number"),
                _tag("dd", _tag("small", below)),
            )
            for term, value, below in tiles
        ],
        class_="tiles",
    )


def _gates(audit: Mapping[str, Any]) -> list[_Content]:
    items = []
    for gate in audit["gates"]:
        kind, word = ("well", "Passed") if gate["passed"] else ("harm", "Failed")
        quantity, _, _ = gate["quantity"].partition("[")
        by = " by " if quantity.startswith("fvo") else ", "
        where: _Content = [by, _name(gate["where"])] if gate["where"] else None
        limit = f". The limit is {_percent(gate['threshold'])}."
        remarks = []
        if audit["settings"]["family"] > 1 and quantity in WHOSE_ENDS:
            remarks.append(f"Of the interval, {WHOSE_ENDS[quantity]}.")
        if gate["passed"] and gate["value"]["upper"] > gate["threshold"]:
            remarks.append("More than the limit is not ruled out.")
        missing = gate.get("with_missing")
        if missing and not gate["passed"]:
            of = f" of {_called(missing['group'])}" if missing["group"] is not None else ""
            rows = f"{_number(missing['n'], 0)} rows{of}"
            remarks.append(f"{rows} are missing; if they count as wrong it is {_percent(missing['value'])}.")
        items.append(
            _tag(
                "li",
                _tag("span", _sign(kind), word, class_=f"word {kind}"),
                _tag(
                    "div",
                    _tag("code", gate["expression"]),
                    _tag("div", _QUANTITIES[quantity], where, f": {_measured(gate['value'])}", limit),
                    _tag("small", " ".join(remarks)) if remarks else None,
                ),
            )
        )
    rule = _DECIDED_ON[audit["settings"]["decide_on"]]
    return [
        _tag("p", f"Limits that were set beforehand, in percent or points. {rule}"),
        _tag("ul", items, class_="gate"),
    ]


def _grouping(audit: Mapping[str, Any], place: int) -> list[_Content]:
    grouping, overall = audit["groupings"][place], audit["overall"]
    groups = sorted(grouping["groups"], key=lambda group: -group["drop"]["estimate"])
    rows = [overall, *groups]
    return [
        _pool(grouping["pooled"]),
        _accuracies(rows, audit["settings"], f"accuracy-{place}"),
        _drops(rows, audit["settings"], f"drop-{place}"),
        _group_table([*groups, overall], audit["settings"]),
        _gap(grouping, f"gap-{place}") if len(groups) > 1 else None,
        _flips(rows, f"flips-{place}"),
        _recalls(grouping["recall"], audit["settings"]),
        _explorer(audit, grouping, groups) if grouping["distributions"] else None,
    ]


_Outcomes = Sequence[Mapping[str, Any]]


def _who(outcome: Mapping[str, Any]) -> Element:
    return _name(outcome["group"]) if "group" in outcome else _tag("strong", "All images")


def _pool(pooled: Mapping[str, Any] | None) -> Element | None:
    if pooled is None:
        return None
    kept = (
        f"They were put together, {_many(pooled['n'], 'image')} in all, and stand below as one group."
        if pooled["kept"]
        else f"Together they have {_many(pooled['n'], 'image')}, too few for a group: they count over all."
    )
    cells = [_tag("li", _name(cell["cell"]), f": {_many(cell['n'], 'image')}") for cell in pooled["cells"]]
    return _tag(
        "details",
        _tag(
            "summary",
            f"{_many(len(cells), 'combination')} with fewer than {_many(pooled['smallest'], 'image')} "
            f"{'does' if len(cells) == 1 else 'do'} not stand alone",
        ),
        _tag("p", kept),
        _tag("ul", cells),
    )


def _accuracies(rows: _Outcomes, settings: Mapping[str, Any], place: str) -> Element:
    shown = [row[f"accuracy_{when}"] for row in rows for when in ("before", "after")]
    scale = _Scale.of(accuracy[end] for accuracy in shown for end in ("lower", "upper"))
    drawn = []
    for row in rows:
        before, after = row["accuracy_before"], row["accuracy_after"]
        drawing: _Content = [
            _line(scale.at(before["estimate"]), 11, scale.at(after["estimate"]), 23, "between"),
            _mark(scale, before, 11, "before"),
            _mark(scale, after, 23, "sure" if _drop(row)["lower"] > 0 else "after"),
        ]
        said = f"{_percent(before['estimate'])} → {_percent(after['estimate'])} %"
        drawn.append(_Row(_who(row), drawing, [said, _tag("small", f" of {_number(row['n'], 0)}")]))
    any_lost = any(_drop(row)["lower"] > 0 for row in rows)
    return _figure(
        place,
        [
            _tag("strong", "Accuracy before and after. "),
            f"Lines are intervals of {_hundredths(settings['confidence'])} %. "
            "The group that lost most stands first.",
        ],
        _key(
            (_key_mark("before"), "before"),
            (_key_mark("after"), "after"),
            (_key_mark("sure"), "after, and surely a loss") if any_lost else None,
        ),
        drawn,
        scale,
        unit=" %",
    )


def _drops(rows: _Outcomes, settings: Mapping[str, Any], place: str) -> Element:
    shown = [_drop(row) for row in rows]
    could = [row["detectable_drop"] for row in rows if row["detectable_drop"] is not None]
    scale = _Scale.of([0, *could, *(drop[end] for drop in shown for end in ("lower", "upper"))])
    drawn = []
    for row, drop in zip(rows, shown, strict=True):
        sure, least = drop["lower"] > 0, row["detectable_drop"]
        drawing = [
            _mark(scale, drop, 17, "sure" if sure else "after"),
            None if least is None else _line(scale.at(least), 6, scale.at(least), 28, "could"),
        ]
        drawn.append(_Row(_who(row), drawing, _tag("strong" if sure else "span", _measured(drop))))
    of_100 = _hundredths(settings["power"])
    return _figure(
        place,
        [
            _tag("strong", "The drop, in points. "),
            f"Right of zero is a loss. The intervals hold for all {_number(settings['family'], 0)} groups at "
            "once, so a line that stays clear of zero is hardly an accident of having looked at many.",
        ],
        _key(
            (_key_mark("sure"), "surely a loss") if any(drop["lower"] > 0 for drop in shown) else None,
            (_key_mark("after"), "may be none") if any(drop["lower"] <= 0 for drop in shown) else None,
            (
                [_line("50%", 1, "50%", 15, "could")],
                f"smallest drop that {of_100} of 100 such audits would show",
            )
            if could
            else None,
        ),
        drawn,
        scale,
    )


def _group_table(rows: _Outcomes, settings: Mapping[str, Any]) -> list[_Content]:
    margin = settings["margin"]
    heads = ["group", "images", "before, %", "after, %", "drop, points", "corrected p"]
    heads += ["smallest drop it could show"]
    heads += [] if margin is None else [f"within {_percent(margin)} points"]
    cells = []
    for row in rows:
        least, same = row["detectable_drop"], row["equivalence"]
        own = [
            _Cell(_who(row)),
            _Cell(_number(row["n"], 0), row["n"]),
            _Cell.measured(row["accuracy_before"]),
            _Cell.measured(row["accuracy_after"]),
            _Cell.measured(_drop(row)),
            _Cell(_p(row["p_holm"]), row["p_holm"]),
            _Cell("none", "") if least is None else _Cell(_percent(least), least),
        ]
        own += [] if same is None else [_Cell("yes" if same["equivalent"] else "not shown")]
        cells.append(own)
    caption = (
        "Accuracy by group, and what it lost; in brackets intervals, those of drops for all groups at once"
    )
    return _table(caption, heads, cells)


def _gap(grouping: Mapping[str, Any], place: str) -> list[_Content]:
    before, after, increase = (grouping[f"fvo_{what}"] for what in ("before", "after", "increase"))
    scale = _Scale.of(
        [0, *(found[end] for found in (before, after, increase) for end in ("lower", "upper", "estimate"))]
    )
    kind = "sure" if increase["lower"] > 0 else "after"
    rows = [
        _Row(name, _mark(scale, found, 17, kind), _measured(found))
        for name, found, kind in (
            ("before", before, "before"),
            ("after", after, "after"),
            ("change", increase, kind),
        )
    ]
    return [
        _tag("h3", "The gap between groups (FVO)"),
        _tag(
            "p",
            "FVO is the highest accuracy of a group minus the lowest. Before, ",
            _served(before),
            "; after, ",
            _served(after),
            ".",
        ),
        _figure(
            place,
            [
                _tag("strong", "FVO, in points. "),
                f"Lines are intervals of {_hundredths(grouping['fvo_confidence'])} %.",
            ],
            None,
            rows,
            scale,
        ),
    ]


def _served(fvo: Mapping[str, Any]) -> _Content:
    if fvo["estimate"] == 0:
        return "all groups were served alike"
    return [_name(fvo["best"]), " was served best and ", _name(fvo["worst"]), " worst"]


def _flips(rows: _Outcomes, place: str) -> list[_Content]:
    lost, won = ([row[what] / row["n"] for row in rows] for what in ("lost", "gained"))
    scale = _Scale.of([0, *(-share for share in lost), *won])
    drawn = []
    for row, left, right in zip(rows, lost, won, strict=True):
        bars = [_bar(scale, -left, 0, "lost"), _bar(scale, 0, right, "won")]
        said = f"{_number(row['lost'], 0)} lost, {_number(row['gained'], 0)} won"
        drawn.append(_Row(_who(row), bars, said))
    return [
        _tag("h3", "Whose answers changed"),
        _tag(
            "p",
            "Behind a small drop many answers may have changed: some turned wrong, others turned right, and "
            "others are wrong both times, but not in the same way.",
        ),
        _figure(
            place,
            [_tag("strong", "Answers that changed, in percent of the group's images.")],
            _key(
                ([_bar(_KEY_SCALE, 0, 1, "lost")], "to the left: right before, wrong after (lost)"),
                ([_bar(_KEY_SCALE, 0, 1, "won")], "to the right: wrong before, right after (won)"),
            ),
            drawn,
            scale,
            signed=False,
        ),
        _tag("details", _tag("summary", "The same in numbers"), _flip_table(rows)),
    ]


def _flip_table(rows: _Outcomes) -> list[_Content]:
    return _table(
        "Images whose answer changed",
        ["group", "images", "lost", "won", "wrong both times", "changed in all, %"],
        [
            [
                _Cell(_who(row)),
                *(_Cell(_number(row[what], 0), row[what]) for what in ("n", "lost", "gained", "changed")),
                _Cell.measured(row["flip_rate"]),
            ]
            for row in rows
        ],
    )


def _bar(scale: _Scale, low: float, high: float, kind: str) -> Element:
    left, right = (float(scale.at(end).rstrip("%")) for end in (low, high))
    y, height = (1, 14) if scale is _KEY_SCALE else (9, 16)
    return _tag("rect", x=f"{left:.2f}%", y=y, width=f"{right - left:.2f}%", height=height, class_=kind)


def _recalls(recall: Mapping[str, Any], settings: Mapping[str, Any]) -> list[_Content] | None:
    if not recall["cells"]:
        return None
    fell = [cell for cell in recall["largest_drops"] if cell["drop"]["estimate"] > 0][:_RECALLS]
    pairs = f"{_many(recall['cells'], 'pair')} of class and group"
    looked = (
        f"Recall is the share of a class's images that is answered right. Of {pairs} with "
        f"{_number(settings['smallest_cell'], 0)} images or more, "
    )
    heading = _tag("h3", "Recall by class and group, where it fell most")
    if not fell:
        return [heading, _tag("p", looked, "none fell.")]
    by_group = _table(
        f"The {_many(len(fell), 'largest drop')} of recall",
        ["class", "group", "images", "before, %", "after, %", "drop, points"],
        [
            [
                _Cell(_name(cell["class"])),
                _Cell(_name(cell["group"])),
                _Cell(_number(cell["n"], 0), cell["n"]),
                _Cell(_percent(cell["before"]), cell["before"]),
                _Cell(_percent(cell["after"]), cell["after"]),
                _Cell.measured(cell["drop"], "strong" if _surely_fell(cell) else None),
            ]
            for cell in fell
        ],
        texts=2,
    )
    wider = [row for row in recall["disparities"] if row["increase"] > 0][:_RECALLS]
    by_class = _table(
        "Highest minus lowest recall of a class between groups, in points",
        ["class", "before", "after", "increase"],
        [
            [
                _Cell(_name(row["class"])),
                *(_Cell(_percent(row[what]), row[what]) for what in ("before", "after", "increase")),
            ]
            for row in wider
        ],
    )
    return [
        heading,
        _tag(
            "p",
            looked,
            "these fell most. Each interval is of its pair alone, so narrower than one that allows for all "
            "groups: among many, some leave out zero by accident.",
            f" Bold is what surely fell, allowing for all {_many(recall['tested'], 'pair')} that were tested."
            if any(map(_surely_fell, fell))
            else None,
        ),
        by_group,
        _tag("details", _tag("summary", "The same as a gap between groups, class by class"), by_class)
        if wider
        else None,
    ]


def _surely_fell(cell: Mapping[str, Any]) -> bool:
    return bool(cell["drop"].get("simultaneous_lower", 0) > 0)


def _explorer(audit: Mapping[str, Any], grouping: Mapping[str, Any], rows: _Outcomes) -> list[_Content]:
    """The histograms, to be explored where scripts run, and still where none do and on paper."""
    state = {"data": _explored(audit, grouping, rows), "live": False, "asks": False}
    state |= {"view": {"groups": list(range(len(rows)))[:_EXPLORED_AT_FIRST]}}
    # Inside a script element only its own end, and what opens a comment, would be read as markup.
    data = json.dumps(state, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return [
        _tag("h3", "How the answers are spread"),
        _tag(
            "p",
            "The margin is the score of the true class minus the highest other score: below 0 the answer is "
            "wrong. The confidence is the probability of the predicted class.",
        ),
        _tag(
            "div",
            _tag("script", data, type="application/json"),
            _tag("div", _distributions(grouping["distributions"], rows), class_="fairq-fallback"),
            class_="fairq-widget",
            data_kind="explorer",
        ),
    ]


def _explored(audit: Mapping[str, Any], grouping: Mapping[str, Any], rows: _Outcomes) -> dict[str, Any]:
    """What the explorer is to know: histograms, and no single image. Who flipped is drawn elsewhere."""
    found = grouping["distributions"]
    places = {group["group"]: place for place, group in enumerate(grouping["groups"])}
    names = [_plain(audit["compared"][when]["name"]) for when in ("before", "after")]
    if names[0] == names[1] or max(map(len, names)) > _LONGEST_LABEL:
        names = ["model before", "model after"]
    data: dict[str, Any] = {
        "about": f"audit of {' and '.join(names)}",
        "seeds": 1,
        "networks": ["pair of models", "images"],
        "treatments": names,
        "groups": [
            {"name": _plain(_called(row["group"])), "n": row["n"], **_look(places[row["group"]])}
            for row in rows
        ],
        "quantities": {},
        "counts": {},
        "summaries": {},
        "flows": {},
        "tops": {},
        "so_far": {},
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


def _look(place: int) -> dict[str, str]:
    """By the place at which the data name a group, so that it looks the same in other drawings of them."""
    return {"colour": _COLOURS[place % len(_COLOURS)], "mark": _SIGNS[place % len(_SIGNS)]}


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


def _distributions(found: Mapping[str, Any], rows: _Outcomes) -> list[_Content]:
    texts = {
        "confidence": ("How sure the answers are", "The probability of the predicted class", _sureness),
        "margin": (
            "How far from the border",
            "The score of the true class minus the highest other score; left of the upright line the answer "
            "is wrong, and the outermost bars hold all that lies further out",
            _number,
        ),
    }
    parts: list[_Content] = []
    for measure, (heading, words, said) in texts.items():
        edges = found[measure]["edges"]
        by_name = {group["group"]: group for group in found[measure]["groups"]}
        drawn = [_histogram(by_name[row["group"]], edges, said) for row in rows]
        first, others = drawn[:_HISTOGRAMS_UNFOLDED], drawn[_HISTOGRAMS_UNFOLDED:]
        parts += [
            _tag("h4", heading),
            _tag(
                "figure",
                _tag(
                    "figcaption",
                    f"{words}, by group: the outline is before, the area after.",
                ),
                _tag("ul", first, class_="histograms"),
                _tag(
                    "details",
                    _tag("summary", f"The other {len(others)} groups"),
                    _tag("ul", others, class_="histograms"),
                )
                if others
                else None,
            ),
        ]
    return parts


def _sureness(value: float) -> str:
    return f"{_number(100 * value, 0)}\u00a0%"


def _histogram(group: Mapping[str, Any], edges: Sequence[float], said: Callable[[float], str]) -> Element:
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

    zero = None
    if edges[0] < 0 < edges[-1]:
        x = f"{-100 * edges[0] / whole:.2f}"
        zero = _tag("path", d=f"M{x} 0V100", class_="zero", vector_effect="non-scaling-stroke")
    drawing = _drawing(
        _tag("path", d=outline(heights["after"]) + "Z", class_="after"),
        zero,
        _tag("path", d=outline(heights["before"]), class_="before", vector_effect="non-scaling-stroke"),
        height=88,
        viewBox="0 0 100 100",
        preserveAspectRatio="none",
    )
    middles = " → ".join(said(_quantile(group[when], edges, 0.5)) for when in ("before", "after"))
    return _tag(
        "li",
        _tag("span", _name(group["group"]), class_="name"),
        drawing,
        _tag("span", _tag("span", said(edges[0])), _tag("span", said(edges[-1])), class_="ends"),
        _tag("small", f"median about {middles}"),
    )


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


def _layers(layers: Sequence[Mapping[str, Any]]) -> list[_Content]:
    scale = _Scale.of([0, *(layer[f"zero_{when}"] for layer in layers for when in ("before", "after"))])
    rows = []
    for layer in layers:
        before, after = scale.at(layer["zero_before"]), scale.at(layer["zero_after"])
        drawing = [
            _line(before, 17, after, 17, "between"),
            _tag("circle", cx=before, cy=17, r=4.5, class_="before"),
            _tag("circle", cx=after, cy=17, r=4.5, class_="after"),
        ]
        said: _Content = [
            f"{_percent(layer['zero_before'])} → {_percent(layer['zero_after'])} %",
            _tag("small", f" of {_number(layer['weights'], 0)}"),
        ]
        rows.append(_Row(_layer_name(layer["layer"]), drawing, said))
    weights = sum(layer["weights"] for layer in layers) or 1
    before, after = (
        sum(layer["weights"] * layer[f"zero_{when}"] for layer in layers) / weights
        for when in ("before", "after")
    )
    return [
        _tag(
            "p",
            "Rounding makes a weight exactly zero when it is nearer to zero than to the next step of the "
            f"grid. Of all {_number(weights, 0)} weights {_percent(before)} % were zero before, "
            f"{_percent(after)} % after.",
        ),
        _figure(
            "layers",
            [_tag("strong", "Share of weights that are zero, by layer.")],
            _key((_key_mark("before")[1:], "before"), (_key_mark("after")[1:], "after")),
            rows,
            scale,
            unit=" %",
            what="layers",
        ),
    ]


def _sight(audit: Mapping[str, Any]) -> list[_Content]:
    seen = [(grouping, group) for grouping in audit["groupings"] for group in grouping["groups"]]
    seen.sort(
        key=lambda pair: -math.inf if pair[1]["detectable_drop"] is None else -pair[1]["detectable_drop"]
    )
    several = len(audit["groupings"]) > 1
    items = []
    for grouping, group in seen[:4]:
        least = group["detectable_drop"]
        told = (
            "no drop of any size would probably have been shown"
            if least is None
            else f"a drop of less than {_percent(least)} points would probably have gone unseen"
        )
        items.append(
            _tag(
                "li",
                _name(group["group"]),
                [" (by ", _name(grouping["name"]), ")"] if several else None,
                f", {_many(group['n'], 'image')}: {told}.",
            )
        )
    return [
        _tag(
            "p",
            "No loss found is not the same as no loss. What an audit can see depends on how many images a "
            "group has, and on how often its answers change. More images of these groups would make it see "
            "more:",
        ),
        _tag("ul", items),
    ]


def _end(audit: Mapping[str, Any]) -> Element:
    # An address of this kind works without a script, and its alphabet has no markup in it.
    data = base64.b64encode(json.dumps(audit, separators=(",", ":"), allow_nan=False).encode()).decode()
    made = f", {audit['created']}" if audit["created"] else ""
    return _tag(
        "footer",
        _tag(
            "p",
            _tag(
                "a",
                "Download all numbers (JSON)",
                href=f"data:application/json;base64,{data}",
                download="audit.json",
            ),
            class_="download",
        ),
        _tag(
            "p",
            f"Made by {audit['package']['name']} {audit['package']['version']}{made}, as {audit['schema']}. "
            "What it says is about these images and answers, not about people: a group "
            "is a name in a file.",
            class_="quiet",
        ),
    )
