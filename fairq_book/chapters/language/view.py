"""A view by language, without kernel or script: what each width costs it, and how it then goes on."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from fairq_utils.errors import BadInput
from fairq_utils.language.articles import SHARES
from fairq_utils.language.continuing import continue_texts
from fairq_utils.language.decoder import ByteDecoder
from fairq_utils.language.texts import Texts

# What a browser has to know to set a text: its language, and whether it runs from right to left.
CODES = {
    "English": "en",
    "Spanish": "es",
    "Turkish": "tr",
    "Swahili": "sw",
    "Vietnamese": "vi",
    "Russian": "ru",
    "Ukrainian": "uk",
    "Greek": "el",
    "Hebrew": "he",
    "Arabic": "ar",
    "Hindi": "hi",
    "Thai": "th",
    "Georgian": "ka",
    "Tigrinya": "ti",
    "Chinese": "zh-Hans",
    "Korean": "ko",
}
_HELD = dict(zip(SHARES, ("all", "a half", "a quarter", "an eighth"), strict=True))
RIGHT_TO_LEFT = {"Hebrew", "Arabic"}


@dataclass(frozen=True)
class ByLanguage:
    """A choice of languages, and of each a table: radio buttons that style sheets alone connect with it."""

    markup: str
    said: str

    def _repr_html_(self) -> str:
        return self.markup

    def __repr__(self) -> str:
        return self.said


def continued(
    networks: Mapping[str, ByteDecoder], texts: Texts, *, article: int, begin: int, count: int
) -> pd.DataFrame:
    """How each network goes on with the beginning of a test article: a row for each language and network.

    `begin` and `count` are in bytes, cut to whole characters; `is_true` is the row of the article itself.
    """
    if article not in next(iter(texts.test.values())):
        numbers = ", ".join(map(str, next(iter(texts.test.values()))))
        raise BadInput(f"article is {article}; expected one of the test: {numbers}.")
    beginnings, rows = {}, []
    for language, articles in texts.test.items():
        whole = articles[article]
        beginnings[language] = whole[:begin].decode(errors="ignore").encode()
        following = whole[len(beginnings[language]) :][:count].decode(errors="ignore")
        rows.append((language, "the article", beginnings[language].decode(), following))
    for name, network in networks.items():
        said = continue_texts(network, list(beginnings.values()), count)
        rows += [
            (language, name, beginning.decode(), own.decode(errors="replace").rstrip("\ufffd"))
            for (language, beginning), own in zip(beginnings.items(), said, strict=True)
        ]
    return pd.DataFrame(rows, columns=["language", "treatment", "begins", "follows"])


def by_language(live: pd.DataFrame, told: pd.DataFrame) -> ByLanguage:
    """The view, by `tables.of_this_network` and `continued`."""
    before = live[live["treatment"] == "fp32"].set_index("language")
    languages = list(before.index)
    name = "fairq-language"
    inputs, panels, rules, said = [], [], [], []
    for number, language in enumerate(languages):
        checked = " checked" if number == 0 else ""
        inputs.append(
            f'<input type="radio" name="{name}" id="{name}-{number}"{checked}>'
            f'<label for="{name}-{number}">{html.escape(language)}</label>'
        )
        rules.append(f"#{name}-{number}:checked~div>section:nth-of-type({number + 1})")
        own = live[live["language"] == language]
        rows = told[told["language"] == language]
        panels.append(_panel(language, before.loc[language], own, rows))
        said.append(f"{language}: {len(rows) - 1} continuations")
    style = (
        f".{name}{{margin:1rem 0;border:0;padding:0;min-width:0;position:relative}}"
        f".{name} input{{position:absolute;left:0;opacity:0}}"
        f".{name} label{{display:inline-block;margin:0 .3rem .4rem 0;padding:.15rem .55rem;cursor:pointer;"
        "border:1px solid color-mix(in srgb,currentcolor 35%,transparent);border-radius:4px;font-size:.9rem}"
        f".{name} input:checked+label{{font-weight:700;border-color:currentcolor;"
        "background:color-mix(in srgb,currentcolor 12%,transparent)}"
        f".{name} input:focus-visible+label{{outline:2px solid currentcolor;outline-offset:2px}}"
        f".{name} section{{display:none}}"
        f"{','.join(rules)}{{display:block}}"
        f".{name} table{{border-collapse:collapse;width:100%;font-size:.9rem}}"
        f".{name} table :is(th,td){{text-align:left;vertical-align:top;padding:.3rem .5rem .3rem 0;"
        "border-bottom:1px solid color-mix(in srgb,currentcolor 20%,transparent);font-weight:inherit}"
        f".{name} table td:last-child{{overflow-wrap:anywhere}}"
        f".{name} i{{opacity:.65;font-style:normal}}"
        f"@media print{{.{name} section{{display:block}}.{name} label{{display:none}}}}"
    )
    markup = (
        f'<style>{style}</style><fieldset class="{name}"><legend style="font-size:1rem">Language</legend>'
        f"{''.join(inputs)}<div>{''.join(panels)}</div></fieldset>"
    )
    return ByLanguage(markup, f"{'; '.join(said)}.")


def _panel(language: str, before: pd.Series, live: pd.DataFrame, told: pd.DataFrame) -> str:
    """What one language pays, and how it goes on: a row for each width."""
    costs = live.set_index("treatment")
    rows = []
    for row in told.to_dict("records"):
        treatment = str(row["treatment"])
        longer = flips = ""
        if treatment in costs.index and treatment != "fp32":
            own = costs.loc[treatment]
            longer = f"{100 * (own['nats'] / before['nats'] - 1):+.1f} %".replace("-", "\u2212")
            flips = f"{100 * own['flips'] / own['bytes']:.1f} %"
        rows.append(
            f'<tr><th scope="row">{html.escape(treatment)}</th><td>{longer}</td><td>{flips}</td>'
            f"<td {_set_as(language)}>{html.escape(str(row['follows'])) or '&mdash;'}</td></tr>"
        )
    begins = html.escape(str(told["begins"].iloc[0]))
    return (
        f"<section><p><b>{html.escape(language)}</b>, with {_HELD[before['share']]} of its text. The article "
        f"begins: <bdi {_set_as(language)}>{begins}</bdi></p><table><thead><tr><th></th><th>longer by</th>"
        "<th>flips</th><th>and goes on</th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></section>"
    )


def _set_as(language: str) -> str:
    direction = "rtl" if language in RIGHT_TO_LEFT else "ltr"
    return f'lang="{CODES[language]}" dir="{direction}"'
