"""One widget for two places: with a kernel behind it in a notebook, and without any on a published page."""

from __future__ import annotations

import html
import json
from typing import Any, ClassVar

import anywidget
import traitlets


class PageWidget(anywidget.AnyWidget):
    """An anywidget that brings along what a page without a kernel needs.

    `kind` is what its script `scripts/KIND.js` and its style `scripts/KIND.css` are called; a subclass names
    both, the script as `page_scripts.joined` makes it of its modules. What the script is to know are the
    traits that are marked `sync=True`. `page_state` says which of them a page embeds, and `fallback` what
    stands there in print, or where no script runs: a figure and a table, as HTML.

    In a notebook Jupyter draws the widget. On a page the book's own script finds the embedded state and calls
    the same `render`, with a model that has a state but nobody to ask.
    """

    kind: ClassVar[str]
    live = traitlets.Bool(True, help="Whether a kernel answers.").tag(sync=True)

    def page_state(self) -> dict[str, Any]:
        """The traits that the page embeds, ready for JSON."""
        own = set(self.trait_names(sync=True)) - set(anywidget.AnyWidget.class_trait_names(sync=True))
        return {name: getattr(self, name) for name in sorted(own) if not name.startswith("_")} | {
            "live": False
        }

    def fallback(self) -> str:
        """A figure and a table, as HTML, for print and for those without scripts."""
        raise NotImplementedError

    def page_markup(self) -> str:
        """What a published page holds in the place of the widget."""
        # Inside a script element only its own end, and what opens a comment, would be read as markup.
        state = json.dumps(self.page_state(), separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
        name = html.escape(self.kind, quote=True)
        return (
            f'<div class="fairq-widget" data-kind="{name}">'
            f'<script type="application/json">{state}</script>'
            f'<div class="fairq-fallback">{self.fallback()}</div></div>'
        )

    def _repr_mimebundle_(self, **options: Any) -> Any:
        bundle = super()._repr_mimebundle_(**options)
        data, about = bundle if isinstance(bundle, tuple) else (bundle or {}, {})
        return {**data, "text/html": self.page_markup()}, about
