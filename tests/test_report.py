"""The report of an audit: what it says, what it leaves out, and that names out of files stay words."""

import base64
import json
import math
import random
import re
import subprocess
import sys
import time
from itertools import cycle
from pathlib import Path

import jsonschema
import numpy as np
import pandas as pd
import pytest
from axe_playwright_python.sync_playwright import Axe
from bs4 import BeautifulSoup
from hypothesis import given, strategies
from jinja2 import UndefinedError

from fairq_audit import auditing, formats, report
from fairq_audit.report import page
from fairq_utils.errors import BadInput
from tests.test_auditing import frauds, tables

SCHEMA = json.loads((Path(report.__file__).parent / "schemas" / "audit-2.json").read_text())
EDGES = {"confidence": [place / 20 for place in range(21)], "margin": [place / 2 for place in range(-10, 21)]}


def interval(estimate, half, **others):
    return {"estimate": estimate, "lower": estimate - half, "upper": estimate + half, **others}


def outcome(n, lost, gained, changed, *, right=0.9, family=5, margin=None):
    before = round(right * n) / n
    drop = (lost - gained) / n
    spread = math.sqrt(max(lost + gained, 1)) / n
    return {
        "n": n,
        "accuracy_before": interval(before, 1.96 * math.sqrt(before * (1 - before) / n)),
        "accuracy_after": interval(before - drop, 1.96 * math.sqrt(before * (1 - before) / n)),
        "drop": interval(
            drop,
            1.96 * spread,
            simultaneous_lower=drop - 2.6 * spread,
            simultaneous_upper=drop + 2.6 * spread,
        ),
        "p": math.erfc(abs(drop) / spread / math.sqrt(2)),
        "p_holm": min(1, family * math.erfc(abs(drop) / spread / math.sqrt(2))),
        "lost": lost,
        "gained": gained,
        "changed": changed,
        "flip_rate": interval((lost + gained + changed) / n, 0.01),
        "effective_n": float(n),
        "detectable_drop": 3.4 * spread if n > 30 else None,
        "equivalence": margin
        and {
            "margin": margin,
            "p": 0.2,
            "equivalent": drop + 2 * spread < margin and drop - 2 * spread > -margin,
        },
    }


def counted(centre, width, edges, n):
    """How many of so many values lie in each bin; those further out in the outermost."""
    values = np.random.default_rng(n).normal(centre, width, n)
    return np.histogram(values.clip(edges[0], edges[-1]), edges)[0].tolist()


def grouping(
    name, names, *, draw, harmed=(), scores=True, margin=None, family=5, sizes=None, classes=("moth", "fly")
):
    groups = []
    for place, group in enumerate(names):
        n = sizes[place] if sizes else draw.choice([120, 300, 700, 1900])
        lost, gained = (round(n * share) for share in ((0.16, 0.03) if group in harmed else (0.03, 0.026)))
        right = 0.93 - 0.15 * draw.random()
        groups.append(
            {"group": group, "pooled": False, "value": group, "calibration": None}
            | outcome(n, lost, gained, round(n * 0.01), right=right, family=family, margin=margin)
        )
    by = {
        when: sorted(groups, key=lambda one: one[f"accuracy_{when}"]["estimate"])
        for when in ("before", "after")
    }
    gaps = {
        when: by[when][-1][f"accuracy_{when}"]["estimate"] - by[when][0][f"accuracy_{when}"]["estimate"]
        for when in by
    }
    extremes = {
        f"fvo_{when}": interval(gaps[when], 0.04, best=by[when][-1]["group"], worst=by[when][0]["group"])
        for when in by
    }
    worst = max(groups, key=lambda one: one["drop"]["estimate"])
    cells = [
        {
            "measure": "recall",
            "class": one,
            "group": group["group"],
            "n": group["n"] // len(classes),
            "before": 0.9,
            "after": 0.9 - 1.4 * group["drop"]["estimate"],
            "drop": interval(1.4 * group["drop"]["estimate"], 0.05),
        }
        for group in groups
        for one in classes
    ]
    centre = {"confidence": (0.86, 0.8), "margin": (4.2, 3.1)}
    return {
        "name": name,
        "columns": name.split(" x "),
        "groups": groups,
        "pooled": None,
        **extremes,
        "fvo_increase": interval(gaps["after"] - gaps["before"], 0.045),
        "fvo_confidence": 0.95,
        "worst_group_drop": {
            "grouping": name,
            "group": worst["group"],
            "estimate": worst["drop"]["estimate"],
            "lower": worst["drop"]["simultaneous_lower"],
            "upper": worst["drop"]["simultaneous_upper"],
            "lower_of": worst["group"],
            "upper_of": worst["group"],
        },
        "contrast": interval(0.02, 0.03, reference=names[0]) if len(names) > 1 else None,
        "odds": None,
        "selection_ratios": [],
        "amounts": [
            {
                "amount": amount,
                "group": one,
                "n": 90,
                "changed": 9,
                "before": 1234567.8,
                "after": 0.0,
                "change": change,
            }
            for amount in (("perplexity_of_a_byte", classes[0]) if scores else ())
            for one, change in zip(names, cycle([interval(-1234567.8, 3.0), None]), strict=False)
        ],
        "rates": {"tested": len(cells), "too_few": 0, "worse": 0, "surely_worse": [], "largest": {}},
        "recall": {
            "cells": len(cells),
            "largest_drops": sorted(cells, key=lambda cell: -cell["drop"]["estimate"])[:20],
            "disparities": [
                {"class": one, "before": 0.05, "after": 0.12, "increase": 0.07} for one in classes[:20]
            ],
        },
        "distributions": {
            measure: {
                "edges": EDGES[measure],
                "groups": [
                    {
                        "group": group["group"],
                        "before": counted(first, abs(first) / 4, EDGES[measure], group["n"]),
                        "after": counted(second, abs(second) / 3, EDGES[measure], group["n"]),
                    }
                    for group in groups
                ],
            }
            for measure, (first, second) in centre.items()
        }
        if scores
        else None,
    }


def example(
    names=("alder", "birch", "cedar", "elm", "ash"),
    *,
    harmed=("elm",),
    word="harm shown",
    sentence="Group elm lost 13.0 points of accuracy.",
    scores=True,
    layers=12,
    gates=True,
    margin=None,
    sizes=None,
    crossed=0,
    by="tree",
    files=("before.csv", "after.csv"),
    classes=("moth", "fly"),
):
    """An audit like one that `fairq audit` writes, as large and as strange as is asked for."""
    draw = random.Random(0)
    family = len(names) + crossed
    common = {"draw": draw, "scores": scores, "margin": margin, "family": family, "classes": classes}
    groupings = [grouping(by, names, harmed=harmed, sizes=sizes, **common)]
    if crossed:
        pairs = [f"{names[place % len(names)]} x light {place // len(names)}" for place in range(crossed)]
        groupings.append(grouping(f"{by} x light", pairs, harmed=pairs[1:2], **common))
        groupings[1]["pooled"] = {
            "smallest": 20,
            "n": 31,
            "kept": False,
            "cells": [
                {"cell": f"{names[0]} x night", "n": 12, "lost": 0, "gained": 0, "p": 1.0},
                {"cell": f"{names[1]} x night", "n": 19, "lost": 2, "gained": 1, "p": 1.0},
            ],
        }
    sums = [
        sum(group[what] for group in groupings[0]["groups"]) for what in ("n", "lost", "gained", "changed")
    ]
    overall = outcome(*sums, family=1, margin=margin)
    worst = max((one["worst_group_drop"] for one in groupings), key=lambda one: one["estimate"])
    found = [
        {
            "expression": expression,
            "quantity": quantity,
            "threshold": threshold,
            "decided_on": "lower",
            "where": where,
            "value": {end: value[end] for end in ("estimate", "lower", "upper")},
            "with_missing": None,
            "not_ruled_out": [{"where": where, "value": value["upper"]}]
            if value["upper"] > threshold
            else [],
            "too_few": [],
            "outcome": "failed"
            if value["lower"] > threshold
            else "not ruled out"
            if value["upper"] > threshold
            else "passed",
            "passed": value["lower"] <= threshold,
            "sentence": f"{expression} was decided.",
        }
        for expression, quantity, threshold, where, value in (
            ("fvo_increase > 0.03", "fvo_increase", 0.03, by, groupings[0]["fvo_increase"]),
            ("overall_drop > 0.02", "overall_drop", 0.02, None, overall["drop"]),
            (f"group_drop[{names[0]}] > 0.3", "group_drop", 0.3, names[0], worst),
        )
    ]
    return {
        "schema": "audit-2",
        "created": "2026-03-01T09:05:00Z",
        "package": {"name": "fairq-utils", "version": "0.1.0"},
        "compared": {
            "before": {"name": "fp32", "file": files[0], "rows": sums[0] + 3},
            "after": {"name": "int4", "file": files[1], "rows": sums[0]},
            "description": None,
            "n": sums[0],
            "unit": "image",
            "positive": None,
            "clusters": None,
            "weights": None,
            "classes": list(classes),
            "group_columns": [by, "light"] if crossed else [by],
            "scores": "logit" if scores else None,
            "dropped": [{"reason": f"only in {files[0]}", "n": 3}],
        },
        "settings": {
            "confidence": 0.95,
            "margin": margin,
            "smallest_group": 20,
            "crossed": "full",
            "reference": None,
            "rate_family": 1,
            "rate_confidence": 0.998,
            "resamples": 2000,
            "seed": 0,
            "power": 0.8,
            "family": family,
            "decide_on": "lower",
        },
        "verdict": {
            "word": word,
            "sentence": sentence,
            "harmed": [{"grouping": by, "group": name} for name in harmed],
        },
        "overall": overall,
        "worst_group_drop": worst,
        "groupings": groupings,
        "layers": [
            {
                "layer": f"{place}.conv",
                "weights": 36 * 4**place,
                "zero_before": 0,
                "zero_after": 0.1 + place / 40,
            }
            for place in range(layers)
        ]
        or None,
        "gates": found if gates else [],
        "passed": all(gate["passed"] for gate in found) if gates else None,
        "not_tested": ["Images unlike these.", "Other seeds: one model was compared with one."],
    }


HOSTILE = (
    "</script><script>pwned()</script>",
    '"><img src=x onerror=pwned()>',
    "' onmouseover='pwned()' x='",
    "]]><svg onload=pwned()></svg>",
    "</title></style><script>pwned()</script>",
    "<!-- $top $title {{ 7 * 7 }} &lt;b&gt; &#60;",
    "javascript:pwned()",
    "in\ntwo lines\twith a tab",
    "\u202eright to left, \u2066isolated",
    "\x00\x1b[31m\ud800",
    "=1+1",
    "🦋" * 30,
    "w" * 5000,
    " ",
    "ארז",
)


def read(audit):
    return BeautifulSoup(page(audit), "html.parser")


def words(element):
    return " ".join(element.get_text(" ").split())


EXAMPLES = {
    "five groups": example(margin=0.02),
    "two groups and nothing else": example(("few", "many"), harmed=(), scores=False, layers=0, gates=False),
    "one group": example(("all of them",), harmed=()),
    "few images": example(harmed=(), word="cannot tell", sizes=[60, 90, 25, 21, 40]),
    "twenty groups": example([f"group {place}" for place in range(20)], harmed=("group 7",)),
    "sixty intersections": example(crossed=60),
    "strange names": example(
        HOSTILE, harmed=HOSTILE[:2], by=HOSTILE[1], files=HOSTILE[:2], classes=HOSTILE[:4]
    ),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_are_what_an_audit_writes(name):
    jsonschema.validate(EXAMPLES[name], SCHEMA)


# ---------------------------------------------------------------- what it says


def test_the_answer_comes_first_in_words():
    audit = example()
    top = read(audit).main
    assert words(top.h1) == "Who pays when this model is quantized?"
    assert (
        words(top.find(class_="verdict")) == f"Harm shown {audit['verdict']['sentence']} "
        "1 of 3 gates failed 1 of 3 gates not ruled out 1 of 3 gates passed"
    )
    assert "fp32 → int4 , 7,100 images, 1 March 2026, 09:05 UTC" in words(top)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("harm shown", "Harm shown"),
        ("no harm found", "No harm found"),
        ("equivalent", "Equivalent within the margin"),
        ("cannot tell", "Cannot tell"),
    ],
)
def test_every_verdict_has_its_words_and_a_mark(word, said):
    verdict = read(example(word=word, gates=False)).find(class_="verdict")
    assert words(verdict.p) == said
    assert verdict.p.svg["aria-hidden"] == "true"
    assert "gate" not in words(verdict)


def test_gates_pass_and_fail_in_words():
    first, second, third = read(example()).find(class_="gate").find_all("li")
    assert words(first).startswith(
        "Failed fvo_increase > 0.03 By how much the gap between the best and the worst group rose, tree :"
    )
    # Its interval is not wholly beyond the limit, and so it did not fail; but part of it is.
    assert words(second).startswith("Not ruled out overall_drop > 0.02 Accuracy lost over all rows:")
    assert words(second).endswith("The limit is 2.0. More than the limit is not ruled out.")
    assert words(third).startswith("Passed group_drop")
    assert words(third).endswith("The limit is 30.0.")


def test_the_table_holds_the_numbers_of_every_group_and_the_largest_drop_is_first():
    audit = example(margin=0.02)
    rows = [
        [words(cell) for cell in row.find_all(["th", "td"])]
        for row in read(audit).find("table").tbody.find_all("tr")
    ]
    elm = next(group for group in audit["groupings"][0]["groups"] if group["group"] == "elm")
    assert rows[0][:2] == ["elm", "700"]
    assert rows[0][4] == (
        f"{100 * elm['drop']['estimate']:.1f} ({100 * elm['drop']['simultaneous_lower']:.1f} to "
        f"{100 * elm['drop']['simultaneous_upper']:.1f})"
    )
    assert rows[0][5] == "< 0.001"
    assert rows[0][6] == f"{100 * elm['detectable_drop']:.1f}"
    assert rows[0][7] == "not shown"
    assert rows[-1][:2] == ["All images", "7,100"]
    assert {row[0] for row in rows} == {"elm", "ash", "alder", "birch", "cedar", "All images"}


def tiles(audit):
    return [words(tile) for tile in read(audit).find(class_="tiles").find_all("div")]


def test_a_change_has_the_word_for_its_direction_and_no_minus():
    rise = example()
    assert re.search(r"a drop of \d\.\d points \(\d\.\d to \d\.\d\)$", tiles(rise)[0])
    assert re.search(r"points, an increase of \d+\.\d \(", tiles(rise)[1])
    fall = example()
    fall["overall"]["drop"] |= interval(-0.012, 0.005)
    fall["groupings"][0]["fvo_increase"] = {"estimate": -0.164, "lower": -0.218, "upper": -0.102}
    assert tiles(fall)[0].endswith("a rise of 1.2 points (0.7 to 1.7)")
    assert tiles(fall)[1].endswith("points, a fall of 16.4 (10.2 to 21.8)")


def test_whose_the_ends_of_the_largest_drop_are_is_said_where_they_are_others():
    audit = example()
    audit["worst_group_drop"] |= {"lower_of": "birch", "upper_of": "ash"}
    assert re.search(r"lies between [\d.−]+ \( birch \) and [\d.−]+ \( ash \)$", tiles(audit)[2])
    audit["worst_group_drop"] |= dict.fromkeys(("lower_of", "upper_of"), audit["worst_group_drop"]["group"])
    assert "(" not in tiles(audit)[2].partition("lies between")[2]
    audit["gates"][0]["value"] |= {"lower_of": "birch", "upper_of": audit["gates"][0]["where"]}
    gate = words(read(audit).find(class_="gate").li)
    assert gate.endswith("The lower end is that of birch.")


def test_a_class_that_surely_fell_in_a_group_stands_out():
    found = auditing.audit(*frauds(small=60, lost=50), margin=0.06).record
    soup = read(found)
    assert words(soup.find(class_="verdict")).startswith("Harm shown In B the class fraud lost 83.3 points")
    rows = [row for row in soup.find_all("tr") if words(row).startswith("fraud B recall 60")]
    assert [words(row.strong) for row in rows] == ["83.3"]
    assert "What surely got worse, allowing for all that were tested" in words(soup.main)
    quiet = auditing.audit(*tables({"ash": 300, "elm": 300}, {})).record
    assert "surely got worse" not in words(read(quiet).main)


def test_a_drop_that_no_audit_could_have_shown_is_said_so():
    soup = read(example(harmed=(), sizes=[25, 90, 60, 21, 40]))
    assert words(soup.find("table").find("th", string="alder").find_parent("tr").find_all("td")[-1]) == "none"
    least = soup.find(id="sight").parent
    assert words(least.find("li")) == "alder , 25 images: no drop of any size would probably have been shown."


def test_what_is_drawn_is_also_said_to_those_who_do_not_see_it():
    soup = read(example())
    assert all(svg["aria-hidden"] == "true" for svg in soup.find_all("svg") if svg.parent.name != "svg")
    for figure in soup.find_all("figure"):
        for row in figure.select(".rows > li:not([aria-hidden])"):
            assert re.search(r"\d", words(row.find(class_="said")))
    flips = soup.find(id="flips-0-lines").find_parent("ul")
    assert "elm 112 lost, 21 won" in words(flips)


def test_a_minus_is_a_minus_and_zero_has_none():
    text = words(read(example(harmed=())).main)
    assert "(−" in text
    assert not re.search(r"(?<![\w.\-])-\d", text)
    assert "−0.0 " not in text


def test_cells_that_were_pooled_are_named():
    pool = read(example(crossed=10)).find(id="groups-1").parent.find("details").find("details")
    assert words(pool).startswith("2 groups with fewer than 20 images do not stand alone")
    assert "They have 31 images in all, which count over all and in no group" in words(pool)
    assert "alder x night : 12 images birch x night : 19 images, 2 lost and 1 won" in words(pool)


def test_the_audit_can_be_taken_out_of_its_page():
    audit = EXAMPLES["strange names"]
    link = read(audit).find("a", download=True)
    kind, data = link["href"].split(",")
    assert (kind, link["download"]) == ("data:application/json;base64", "audit.json")
    assert json.loads(base64.b64decode(data)) == audit


def test_what_an_audit_found_is_what_its_page_says():
    draw = np.random.default_rng(0)
    before = pd.DataFrame({"id": range(900), "label": draw.choice(["moth", "fly"], 900)})
    before["tree"] = draw.choice(["ash", HOSTILE[0], HOSTILE[1]], 900)
    before["light"] = draw.choice(["day", "night"], 900, p=[0.98, 0.02])
    before["logit_moth"] = draw.normal(size=900) + np.where(before["label"] == "moth", 2, -2)
    before["logit_fly"] = 0.0
    noise = draw.normal(size=900) * np.where(before["tree"] == "ash", 4, 0.1)
    after = before.assign(logit_moth=before["logit_moth"] + noise)
    found = auditing.audit(before, after, groups=["tree", "light"], fail_if=["overall_drop > 0.9"])
    soup = read(found.record)
    assert words(soup.find(class_="verdict")) == f"Harm shown {found.sentence} 1 of 1 gate passed"
    drops = {
        words(row.th): words(row.find_all("td")[3]).split()[0]
        for row in soup.find("div", attrs={"aria-label": re.compile("^Accuracy by group")}).find_all("tr")[1:]
    }
    for group in found.record["groupings"][0]["groups"]:
        assert drops[group["group"]] == f"{100 * group['drop']['estimate']:.1f}".replace("-", "−")
    assert [words(heading) for heading in soup.find_all("h2")][1:5] == [
        "What was compared",
        "By tree",
        "By light",
        "By tree x light",
    ]
    assert "do not stand alone" in words(soup.find(id="groups-2").parent)


# ---------------------------------------------------------------- what it leaves out


def headings(audit):
    return [words(heading) for heading in read(audit).find_all(["h2", "h3", "h4", "summary"])]


def test_parts_that_the_audit_lacks_are_left_out_and_never_empty():
    whole = headings(example())
    without = {
        "The gate": example(gates=False),
        "Weights that became zero": example(layers=0),
        "How sure the answers are": example(scores=False),
        "How the answers are spread": example(scores=False),
        "How far from the border": example(scores=False),
        "What was not tested": example() | {"not_tested": []},
        "The gap between groups (FVO)": example(("all of them",), harmed=()),
    }
    for heading, audit in without.items():
        assert heading in whole
        assert heading not in headings(audit)


@pytest.mark.parametrize("name", EXAMPLES)
def test_nothing_is_empty_and_every_place_is_there_once(name):
    soup = read(EXAMPLES[name])
    for tag in ("section", "ul", "dl", "li", "dd", "tbody", "figure", "details", "td", "th"):
        for element in soup.find_all(tag):
            assert words(element) or element.find("svg")
    places = [element["id"] for element in soup.find_all(id=True)]
    assert len(places) == len(set(places))
    referred = {link["href"][1:] for link in soup.find_all(href=re.compile("^#"))}
    assert referred <= set(places)
    assert {section["aria-labelledby"] for section in soup.find_all("section")} <= set(places)
    for number in soup.find_all(["td", "span", "p"]):
        assert not re.search(r"\b(nan|inf|None)\b", words(number))


def test_without_recall_that_fell_the_page_says_so():
    audit = example(harmed=())
    audit["groupings"][0]["recall"]["largest_drops"] = []
    assert "Recall fell nowhere." in words(read(audit).main)


def test_without_a_time_the_page_names_none():
    found = words(read(example() | {"created": ""}).main)
    assert "fp32 → int4 , 7,100 images Harm shown" in found
    assert "Made by fairq-utils 0.1.0, as audit-2." in found
    assert "2026" not in found


def test_a_model_that_did_not_change_at_all_can_be_drawn():
    audit = example(("one", "two"), harmed=(), gates=False)
    still = {"estimate": 1.0, "lower": 1.0, "upper": 1.0}
    none = {"estimate": 0.0, "lower": 0.0, "upper": 0.0}
    for found in (audit["overall"], *audit["groupings"][0]["groups"]):
        found |= {"accuracy_before": still, "accuracy_after": still, "lost": 0, "gained": 0, "changed": 0}
        found |= {"drop": none | {"simultaneous_lower": 0.0, "simultaneous_upper": 0.0}, "flip_rate": none}
        found |= {"detectable_drop": None}
    for when in ("before", "after"):
        audit["groupings"][0][f"fvo_{when}"] |= none
    jsonschema.validate(audit, SCHEMA)
    text = words(read(audit).main)
    assert "nan" not in text
    assert "Before, all groups were alike; after, all groups were alike." in text
    assert "such audits would show" not in text  # no stroke is drawn, so none is explained


def test_another_schema_is_refused_in_one_sentence():
    with pytest.raises(
        BadInput, match=r"the schema of the audit is None; expected 'audit-2': .*\.$"
    ) as caught:
        page({"groups": []})
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- names out of files


def test_strange_names_change_no_markup():
    tame = tuple(f"name {place}" for place in range(len(HOSTILE)))
    quiet = example(tame, harmed=tame[:2], by=tame[1], files=tame[:2], classes=tame[:4])
    strange = read(EXAMPLES["strange names"])
    assert [tag.name for tag in strange.find_all()] == [tag.name for tag in read(quiet).find_all()]
    for tag, same in zip(strange.find_all(), read(quiet).find_all(), strict=True):
        assert list(tag.attrs) == list(same.attrs)


@given(strategies.text())
def test_any_text_comes_back_as_it_went_in(text):
    markup = '<p title="{{ text }}">{{ text }}</p><b>{{ text | tojson }}</b>'
    soup = BeautifulSoup(report.environment().from_string(markup).render(text=text), "html.parser")
    assert [tag.name for tag in soup.find_all()] == ["p", "b"]
    assert soup.p["title"] == soup.p.get_text() == report._plain(text)
    assert json.loads(soup.b.get_text()) == text


@pytest.mark.parametrize("missing", ["{{ nothing }}", "{{ audit.nothing }}", "{% if nothing %}{% endif %}"])
def test_a_template_that_asks_for_what_is_not_there_is_an_error(missing):
    with pytest.raises(UndefinedError, match="nothing"):
        report.environment().from_string(missing).render(audit={})


def test_templates_escape_everything():
    for path in (Path(report.__file__).parent / "templates").glob("*.html"):
        assert not re.search(r"\|\s*safe\b|autoescape", path.read_text())


def test_strange_names_stand_there_as_words():
    soup = read(EXAMPLES["strange names"])
    names = {cell.get_text() for cell in soup.find("table").tbody.find_all("th")}
    assert set(HOSTILE[:7]) <= names
    assert r"in\ntwo lines\twith a tab" in names
    assert r"\u202eright to left, \u2066isolated" in names
    assert r"\x00\x1b[31m\ud800" in names
    assert "w" * 89 + "…" in names
    assert "(no name)" in names
    assert all(cell.find("bdi") for cell in soup.find("table").tbody.find_all("th")[:-1])
    assert soup.title.get_text() == "Audit: fp32, int4"


def test_models_and_sentences_with_strange_words_are_words_too():
    audit = example(sentence=HOSTILE[0])
    audit["compared"] |= {"description": HOSTILE[1]}
    audit["compared"]["before"]["name"] = HOSTILE[4]
    audit["package"]["version"] = HOSTILE[3]
    audit["not_tested"] = [HOSTILE[0]]
    audit["created"] = HOSTILE[1]
    audit["settings"]["seed"] = HOSTILE[0]
    soup = read(audit)
    assert [len(soup.find_all(tag)) for tag in ("script", "style", "title", "img")] == [2, 1, 1, 0]
    assert words(soup.find(class_="verdict")).startswith("Harm shown </script><script>pwned()</script>")
    assert soup.title.get_text() == f"Audit: {HOSTILE[4]}, int4"


# ---------------------------------------------------------------- how large, how fast


def test_twenty_groups_make_a_small_page_quickly():
    audit = EXAMPLES["twenty groups"]
    start = time.perf_counter()
    size = len(page(audit).encode())
    assert time.perf_counter() - start < 1
    assert size < 300_000


def test_a_million_images_make_the_same_page_as_a_thousand():
    few, many = (example(sizes=[n] * 5) for n in (1_000, 200_000))
    assert "1,000,000 images" in page(many)
    assert len(page(many)) < 1.1 * len(page(few))
    assert len(page(example([f"group {place}" for place in range(20)], crossed=60))) < 1_500_000


def test_from_predictions_to_the_page_no_large_library_is_loaded():
    code = (
        "import sys, fairq_audit.report\n"
        "print(sorted({'pandas', 'numpy', 'scipy'} & set(sys.modules)))\n"
        "import fairq_audit.auditing\n"
        "print(sorted({'torch', 'matplotlib', 'seaborn', 'anywidget'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "[]"]


# ---------------------------------------------------------------- in a browser

CATCH = "window.ran = []; window.pwned = () => window.ran.push('a name became code');"


UNFOLD = "document.querySelectorAll('details').forEach((folded) => folded.open = true)"


@pytest.fixture
def opened(browser, tmp_path):
    """Opens a page of an audit as a file; what it fetched and what went wrong is told at the end."""
    contexts, wrong = [], []

    def open_page(audit, *, width=1440, unfolded=True, **options):
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        context.add_init_script(CATCH)
        found = context.new_page()
        path = tmp_path / f"{len(contexts)}.html"
        path.write_text(page(audit), encoding="utf-8")
        found.on("console", lambda message: wrong.append(message.text))
        found.on("pageerror", lambda error: wrong.append(str(error)))
        found.on("dialog", lambda dialog: wrong.append(dialog.message))
        found.on(
            "request", lambda request: wrong.append(request.url) if request.url != path.as_uri() else None
        )
        found.goto(path.as_uri())
        if unfolded:
            found.evaluate(UNFOLD)
        return found

    yield open_page
    assert wrong == []
    for context in contexts:
        context.close()


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("name", EXAMPLES)
def test_a_page_fits_with_all_unfolded(opened, name, width):
    found = opened(EXAMPLES[name], width=width)
    assert found.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    # A word that is wider than its place would be cut, and no one could scroll to it.
    cut = """[...document.querySelectorAll("p, li, dd, h2, .said")].filter(
        (one) => one.scrollWidth > one.clientWidth + 1 && !one.querySelector("svg")).length"""
    assert found.evaluate(cut) == 0


@pytest.mark.parametrize("width", [390, 1440])
def test_names_of_layers_stand_in_one_line(opened, width):
    audit = example()
    for layer, name in zip(
        audit["layers"], ("conv1", "layer1.0.conv2", "layer2.0.downsample.0"), strict=False
    ):
        layer["layer"] = f"{name}.weight"
    named = opened(audit, width=width).locator("section:has(#layers) .rows .name").all()[:3]
    assert [name.inner_text() for name in named] == ["conv1", "layer1.0.conv2", "layer2.0.downsample.0"]
    assert len({name.bounding_box()["height"] for name in named}) == 1


def test_the_table_of_groups_fits_or_shows_that_there_is_more(opened):
    audit = example(margin=0.02)
    overflow = "(one) => one.scrollWidth - one.clientWidth"
    assert opened(audit).locator(".scrolled").first.evaluate(overflow) == 0
    for table in opened(audit, width=390).locator(".scrolled, .fairq-scrolled").all():
        look = table.evaluate("(one) => getComputedStyle(one).backgroundAttachment")
        assert look == "local, local, scroll, scroll"


@pytest.mark.parametrize(
    ("name", "scheme", "width"),
    [("five groups", "light", 1440), ("strange names", "dark", 390), ("few images", "dark", 1440)],
)
def test_a_page_is_accessible(opened, name, scheme, width):
    found = opened(EXAMPLES[name], width=width, color_scheme=scheme)
    violations = Axe().run(found, options={"resultTypes": ["violations"]}).response["violations"]
    assert [(own["id"], own["nodes"][0]["html"][:120]) for own in violations] == []


@pytest.mark.parametrize("guarded", [True, False], ids=["as it is", "without its own policy"])
def test_no_strange_name_runs(opened, guarded):
    found = opened(EXAMPLES["strange names"], bypass_csp=not guarded)
    found.mouse.move(400, 400)
    for heading in found.get_by_role("button").all():
        heading.click()
    found.wait_for_timeout(100)
    assert found.evaluate("window.ran") == []


def test_the_policy_lets_run_nothing_but_its_own_script(browser, tmp_path):
    path = tmp_path / "injected.html"
    path.write_text(
        page(example()).replace("</h1>", "</h1><script>pwned()</script><img src=x onerror=pwned()>")
    )
    context = browser.new_context()
    context.add_init_script(CATCH)
    found = context.new_page()
    found.goto(path.as_uri())
    assert found.evaluate("window.ran") == []
    assert found.locator("th button").count() > 0  # its own did run
    context.close()


def test_a_table_can_be_put_in_another_order(opened):
    found = opened(example(sizes=[25, 90, 60, 1900, 40]))
    table = found.locator("table").first

    def column(place):
        return [row.locator("th, td").nth(place).inner_text() for row in table.locator("tbody tr").all()]

    table.get_by_role("button", name="images").click()
    assert column(1) == ["2,115", "1,900", "90", "60", "40", "25"]
    table.get_by_role("button", name="images").press("Enter")
    assert column(1) == ["25", "40", "60", "90", "1,900", "2,115"]
    assert table.locator("th").nth(1).get_attribute("aria-sort") == "ascending"
    table.get_by_role("button", name="group").click()
    assert column(0) == ["elm", "cedar", "birch", "ash", "All images", "alder"]
    for _ in range(2):  # what is not known comes last, both ways
        table.get_by_role("button", name="smallest drop").click()
        assert column(6)[-1] == "none"


def test_without_scripts_all_is_there_and_can_be_downloaded(opened):
    audit = example(crossed=60)
    found = opened(audit, java_script_enabled=False, unfolded=False)
    assert found.locator("table").first.locator("tbody tr").count() == 6
    found.locator("#groups-1 + details > summary").click()
    found.locator("summary", has_text="The other 45 groups").first.click()
    assert found.locator("figure details[open] .rows li").last.is_visible()
    with found.expect_download() as download:
        found.get_by_role("link", name="Download all numbers").click()
    assert download.value.suggested_filename == "audit.json"
    assert json.loads(Path(download.value.path()).read_text()) == audit


# ---------------------------------------------------------------- the explorer in it


def explorer_of(found, place=0):
    """The explorer of a grouping, and what it embeds."""
    widget = found.locator(".fairq-widget").nth(place)
    return widget.locator(".fairq-live"), json.loads(widget.locator("script").text_content())["data"]


def test_a_group_looks_as_its_place_in_the_data_says_wherever_its_loss_puts_it():
    audit = example()
    groups = json.loads(read(audit).find(class_="fairq-widget").script.get_text())["data"]["groups"]
    assert groups[0]["name"] == "elm"  # it lost most
    looks = {group["name"]: (group["colour"], group["mark"]) for group in groups}
    for place, group in enumerate(audit["groupings"][0]["groups"]):
        assert looks[group["group"]] == (formats.PALETTE[place], formats.MARKERS[place])


def test_the_explorer_works_from_a_file_without_a_network(opened):
    audit = EXAMPLES["sixty intersections"]
    found = opened(audit, offline=True)
    assert found.locator(".fairq-live").count() == len(audit["groupings"])
    assert not found.locator(".fairq-fallback").first.is_visible()
    for place, grouping in enumerate(audit["groupings"]):
        live, data = explorer_of(found, place)
        assert data["treatments"] == ["fp32", "int4"]
        n = f"{sum(group['n'] for group in grouping['groups']):,}"
        extent = live.locator(".fairq-extent").inner_text()
        assert extent == f"Audit of fp32 and int4: 1 pair of models, {n} images."
        assert {group["name"]: group["n"] for group in data["groups"]} == {
            group["group"]: group["n"] for group in grouping["groups"]
        }
        status, panels = live.locator("[role=status]"), live.locator(".fairq-canvas svg")
        assert live.locator("[data-control=link]").is_visible()
        most = max(grouping["groups"], key=lambda group: group["drop"]["estimate"])["group"]
        assert status.inner_text().startswith("Margin under int4")
        assert most in status.inner_text()  # the group that lost most is shown from the beginning
        before = panels.inner_html()
        live.locator("[data-control=quantity]").select_option("confidence")
        assert status.inner_text().startswith("Confidence under int4")
        assert panels.inner_html() != before
    # A group more, by the keyboard alone:
    box = live.locator("[data-control=group-6]")
    assert not box.is_checked()
    box.focus()
    found.keyboard.press("Space")
    assert data["groups"][6]["name"] in status.inner_text()


@pytest.mark.parametrize("name", ["resnet18-32px-seed0", "fp32"])
def test_models_whose_names_are_long_or_one_are_told_apart_in_the_explorer(name):
    audit = example()
    audit["compared"]["after"]["name"] = name
    data = json.loads(read(audit).find(class_="fairq-widget").script.get_text())["data"]
    assert data["treatments"] == ["model before", "model after"]


def test_what_the_explorer_reads_is_what_the_audit_counted(opened):
    audit = EXAMPLES["five groups"]
    live, data = explorer_of(opened(audit))
    live.locator("[data-control=numbers]").click()
    live.locator("[data-control=bins]").fill("9")
    live.locator("[data-control=bin]").focus()
    own = audit["groupings"][0]["distributions"]["margin"]
    middle = live.page.evaluate("document.activeElement.value")
    counted = {group["group"]: group["after"][int(middle)] for group in own["groups"]}
    said = live.locator("[role=status]").inner_text().split(": ", 1)[1].rstrip(".")
    assert said == "; ".join(f"{group['name']} {counted[group['name']]}" for group in data["groups"])


def test_the_explorers_picture_can_be_saved(opened):
    live, _ = explorer_of(opened(EXAMPLES["strange names"]))
    for kind, begins in (("png", b"\x89PNG"), ("svg", b"<svg"), ("csv", b"\xef\xbb\xbfgroup")):
        with live.page.expect_download() as caught:
            live.locator(f"[data-control=spread-{kind}]").click()
        assert Path(caught.value.path()).read_bytes().startswith(begins)


def test_strange_names_are_words_in_the_explorer_too(opened):
    found = opened(EXAMPLES["strange names"], bypass_csp=True)
    live, data = explorer_of(found)
    assert HOSTILE[0] in [group["name"] for group in data["groups"]]
    for box in live.locator("[data-control^=group-]").all():
        box.check()
    assert HOSTILE[0] in live.locator("table").inner_text()
    assert live.locator("script, img, style").count() == 0
    assert found.evaluate("window.ran") == []


@pytest.mark.parametrize(("scheme", "width"), [("dark", 390), ("light", 1440)])
def test_the_explorer_is_accessible_and_fits(opened, scheme, width):
    found = opened(EXAMPLES["twenty groups"], width=width, color_scheme=scheme)
    for quantity in ("confidence", "margin"):
        found.locator("[data-control=quantity]").select_option(quantity)
        options = {"resultTypes": ["violations"]}
        violations = Axe().run(found, context=".fairq-live", options=options).response["violations"]
        assert [(own["id"], own["nodes"][0]["html"][:120]) for own in violations] == []
    assert found.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_without_scripts_and_on_paper_the_histograms_stand_still(opened):
    still = opened(EXAMPLES["five groups"], java_script_enabled=False)
    assert still.locator(".fairq-fallback .histograms li").count() == 10
    assert still.locator(".fairq-fallback .histograms").first.is_visible()
    printed = opened(EXAMPLES["five groups"])
    printed.emulate_media(media="print")
    assert printed.locator(".fairq-fallback .histograms").first.is_visible()
    assert not printed.locator(".fairq-live").is_visible()


def test_in_the_frame_of_a_notebook_the_explorer_works_too(browser):
    found = auditing.Audit(EXAMPLES["five groups"], pd.DataFrame())
    context = browser.new_context(offline=True)
    outer, wrong = context.new_page(), []
    outer.on("console", lambda message: wrong.append(message.text))
    outer.on("pageerror", lambda error: wrong.append(str(error)))
    outer.set_content(f"<body>{found._repr_html_()}</body>")
    inner = outer.frame_locator("iframe")
    assert not inner.locator("[data-control=link]").is_visible()  # the frame's page has no address
    inner.locator("summary", has_text="How the answers are spread").click()
    inner.locator("[data-control=quantity]").select_option("confidence")
    assert inner.locator(".fairq-live [role=status]").inner_text().startswith("Confidence under int4")
    with outer.expect_download() as caught:
        inner.locator("[data-control=spread-png]").click()
    assert Path(caught.value.path()).read_bytes().startswith(b"\x89PNG")
    assert wrong == []
    context.close()


def test_on_paper_nothing_is_folded_and_ink_is_dark(opened):
    found = opened(example(crossed=60), width=700, color_scheme="dark", unfolded=False)
    folded = found.locator("figure details .rows li").nth(3)
    assert not folded.is_visible()
    found.emulate_media(media="print", color_scheme="dark")
    assert folded.is_visible()
    assert found.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert not found.locator(".download").is_visible()


def test_rows_of_a_figure_share_their_lines(opened):
    found = opened(example(crossed=60))
    boxes = [use.bounding_box() for use in found.locator("section:has(#groups-0) use").all()[:5]]
    first = found.locator("#drop-0-lines").bounding_box()
    assert all(box["x"] == pytest.approx(first["x"], abs=1) for box in boxes)
    assert all(box["width"] == pytest.approx(first["width"], abs=1) for box in boxes)
