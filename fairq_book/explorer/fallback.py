"""A figure and tables, for print and where no script runs."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairq_audit.formats import number, true_minus
from fairq_book.explorer.counts import unpacked

_MOST_DECIMALS = 4
_PANEL, _HEIGHT, _GAP = 240, 44, 34  # units of the drawing


def figure_of(data: Mapping[str, Any], key: str, shown: Sequence[str]) -> str:
    """A row for each group, a column for each treatment: histograms in the ink of the page."""
    quantity = data["quantities"][key]
    merge = max(1, quantity["bins"] // 36)
    panels, said = [], []
    shares = {
        name: [_merged(unpacked(packed), merge) for packed in data["counts"][key][name]] for name in shown
    }
    for column, name in enumerate(shown):
        # A collapsed network's answers are a spike, beside which all others would vanish.
        top = max(float(share.max()) for share in shares[name]) or 1.0
        x = column * (_PANEL + 20)
        panels.append(f'<text x="{x}" y="12" font-weight="bold">{html.escape(name)}</text>')
        for row, (group, share) in enumerate(zip(data["groups"], shares[name], strict=True)):
            foot = 18 + row * (_HEIGHT + _GAP) + _GAP / 2 + _HEIGHT
            width = _PANEL / len(share)
            steps = "".join(f"V{foot - _HEIGHT * own / top:.1f}h{width:.2f}" for own in share)
            panels.append(
                f'<path d="M{x},{foot}{steps}V{foot}Z" fill="{group["colour"]}"/>'
                f'<path d="M{x},{foot}h{_PANEL}" stroke="currentColor"/>'
                f'<text x="{x}" y="{foot - _HEIGHT - 4:.0f}">{html.escape(group["name"])}</text>'
                + "".join(
                    f'<text x="{x + at * _PANEL:.0f}" y="{foot + 13}" text-anchor="{anchor}" '
                    f'font-size="10">{_end(quantity, at)}</text>'
                    for at, anchor in ((0, "start"), (1, "end"))
                )
            )
            if quantity["zero"]:
                at = x + _PANEL * quantity["zero"] / quantity["bins"]
                panels.append(f'<path d="M{at:.1f},{foot + 3}v{-_HEIGHT - 3}" stroke="currentColor"/>')
    medians = {
        name: _said(quantity, [summary[2] for summary in data["summaries"][key][name]]) for name in shown
    }
    for place, group in enumerate(data["groups"]):
        said.append(f"{group['name']}: {', '.join(f'{name} {medians[name][place]}' for name in shown)}.")
    alt = f"Histograms of {quantity['name']} under {' and '.join(shown)}; medians. {' '.join(said)}"
    wide = len(shown) * (_PANEL + 20) - 20
    high = 18 + len(data["groups"]) * (_HEIGHT + _GAP)
    line = " The line is at 0: wrong answers lie left of it." if key == "margin" and quantity["zero"] else ""
    beyond = "" if quantity["closed"] else " What lies beyond an end is heaped at it."
    box = f'viewBox="-2 0 {wide + 4} {high}" style="width:100%;height:auto;max-width:{wide}px"'
    caption = (
        f"{quantity['name'].capitalize()} of each group as a share of its answers. {_extent(data)} Each "
        f"column has a height of its own.{beyond}{line}"
    )
    return (
        f'<figure class="fairq-figure"><svg role="img" aria-label="{html.escape(alt)}" {box} font-size="12" '
        'font-family="sans-serif" fill="currentColor" xmlns="http://www.w3.org/2000/svg">'
        f"{''.join(panels)}</svg><figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def _merged(counts: Sequence[int], merge: int) -> NDArray[np.float64]:
    """Shares in bins that are so many times as wide."""
    merged = np.array(counts, dtype=float).reshape(-1, merge).sum(axis=1)
    return merged / max(merged.sum(), 1)


def _end(quantity: Mapping[str, Any], at: int) -> str:
    end = quantity["high" if at else "low"]
    unit = f" {quantity['unit']}" if quantity["unit"] else ""
    return true_minus(f"{quantity['factor'] * (10**end if quantity['log'] else end):.3g}{unit}")


def _said(quantity: Mapping[str, Any], values: Sequence[float | None]) -> list[str]:
    """Values of a quantity that stand together, with as many decimals each, as the script says them.

    The largest has three digits; where powers of ten are spanned, the smallest has two.

    >>> _said({"factor": 1, "unit": "nats"}, [2.4, 0.956, None])
    ['2.40 nats', '0.96 nats', '—']
    """
    found = [None if value is None else quantity["factor"] * value for value in values]
    sizes = [abs(value) for value in found if value]
    if all(size % 1 == 0 for size in sizes):
        decimals = 0
    else:
        needed = 1 - _power(min(sizes)) if quantity.get("log") else 2 - _power(max(sizes))
        decimals = min(max(needed, 0), _MOST_DECIMALS)
    unit = f" {quantity['unit']}" if quantity["unit"] else ""
    return ["—" if value is None else f"{_fixed(value, decimals)}{unit}" for value in found]


def _power(size: float) -> int:
    return math.floor(math.log10(size))


def _fixed(value: float, decimals: int) -> str:
    """With so many decimals; as a power of ten where that would be endless, or leave nothing.

    >>> _fixed(-0.001, 2), _fixed(1.2e-05, 4), _fixed(1234.5, 1)
    ('0.00', '1.2e−05', '1,234.5')
    """
    size = abs(value)
    endless = size >= 1e7 or (0 < size < 1e-4 and decimals == _MOST_DECIMALS)
    return true_minus(f"{value:.2g}") if endless else number(value, decimals)


def _extent(data: Mapping[str, Any]) -> str:
    """How much was looked at."""
    seeds, images = data["seeds"], sum(group["n"] for group in data["groups"])
    return f"{seeds} {data['networks'][seeds > 1]}, {images:,} images."


def table_of(data: Mapping[str, Any], key: str, shown: Sequence[str]) -> str:
    """Mean and quartiles of a quantity, by group and treatment."""
    quantity = data["quantities"][key]
    heads = ["group", "images", "treatment", quantity["mean"], "lower quartile", "median", "upper quartile"]
    stubs = [[group["name"], f"{group['n']:,}", name] for group in data["groups"] for name in shown]
    summaries = [
        data["summaries"][key][name][place] for place in range(len(data["groups"])) for name in shown
    ]
    columns = [_said(quantity, column) for column in zip(*summaries, strict=True)]
    rows = [[*stub, *cells] for stub, *cells in zip(stubs, *columns, strict=True)]
    return _html_table(f"{quantity['name'].capitalize()} by group", heads, rows)


def table_of_tops(data: Mapping[str, Any], key: str, shown: Sequence[str]) -> str:
    """What each group gets of what comes first, by treatment."""
    told = data["tops"][key]
    names = [*(group["name"] for group in data["groups"]), *told["rows"]]
    stubs = [[name, treatment] for name in names for treatment in shown]
    values = [told["values"][treatment][place] for place in range(len(names)) for treatment in shown]
    columns = [
        _said(head, column) for head, column in zip(told["heads"], zip(*values, strict=True), strict=True)
    ]
    rows = [[*stub, *cells] for stub, *cells in zip(stubs, *columns, strict=True)]
    return _html_table(told["name"], ["group", "treatment", *(head["name"] for head in told["heads"])], rows)


def _html_table(name: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{html.escape(text)}</th>' for text in heads)
    body = "".join(
        f'<tr><th scope="row">{html.escape(first)}</th>'
        + "".join(f"<td>{html.escape(text)}</td>" for text in rest)
        + "</tr>"
        for first, *rest in rows
    )
    caption = f"<caption>{html.escape(name)}</caption>"
    table = f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div style="overflow-x:auto">{table}</div>'
