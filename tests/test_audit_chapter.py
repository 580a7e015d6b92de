"""What the chapter on an audit draws and says: the numbers of the audit, and nothing that was not found."""

import re
import xml.etree.ElementTree as ET

import pandas as pd
import pytest

from fairq_audit import auditing
from fairq_audit.auditing import Audit
from fairq_book.chapters.audit import figures, story
from fairq_book.kit import figures as kit_figures
from fairq_book.kit import wording
from tests.test_auditing import TREES, strangely_answered, tables

HOSTILE = "<b>*el*</b>$x$\u202e\n"


def audited(harm: dict[str, float], *, few: int = 1, **settings) -> Audit:
    sizes = {name: size // few for name, size in TREES.items()}
    return auditing.audit(*tables(sizes, harm), **({"margin": 0.02} | settings))


def same(n: int, **settings) -> Audit:
    """Nothing changed, in two groups."""
    table = pd.DataFrame({"id": range(2 * n), "label": "moth", "group": ["ash", "elm"] * n})
    table["prediction"] = (["moth"] * 8 + ["fly"] * 2) * (n // 5)
    return auditing.audit(table, table, smallest_group=2, **settings)


def table_of(audit: Audit) -> pd.DataFrame:
    return audit.tables["groups"]


def written(picture: kit_figures.Picture) -> list[str]:
    texts = ET.fromstring(picture.body).iter("{http://www.w3.org/2000/svg}text")
    return [(element.text or "").strip() for element in texts]


@pytest.mark.parametrize("draw", [figures.audited_drops, figures.audited_flips])
def test_a_drawing_is_sound_and_reproducible_and_names_every_group(draw):
    own = table_of(audited({"elm": 0.3}, groups=["group", "light"]))
    picture = draw(own)
    assert picture.body == draw(own).body
    assert ET.fromstring(picture.body).get("aria-label") == picture.alt
    trees = {f"group={tree}" for tree in TREES}
    assert {"all", *trees, "light=day", "light=night"} <= set(written(picture))
    assert kit_figures.INK not in picture.body


def test_the_drops_are_heard_with_limits_for_all_groups_and_what_could_be_seen():
    own = table_of(audited({"elm": 0.3})).set_index("group").loc["elm"]
    heard = figures.audited_drops(table_of(audited({"elm": 0.3}))).alt
    low, high, least = (
        f"{100 * own[name]:.1f}"
        for name in ("drop_simultaneous_lower", "drop_simultaneous_upper", "detectable_drop")
    )
    assert f"elm +{100 * own['drop']:.1f} (+{low} to +{high}; shown from {least})." in heard
    none = figures.audited_drops(table_of(same(5))).alt
    assert none.count("no drop would have been shown") == 2
    assert "Without a stroke" in figures.audited_drops(table_of(same(5))).caption


def test_the_flips_are_heard_as_they_were_counted():
    own = table_of(audited({"elm": 0.3})).set_index("group").loc["elm"]
    parts = f"{own['lost']} right, then wrong; {own['changed']} wrong in another way; {own['gained']} wrong"
    assert f"elm, of 200: {parts}, then right." in figures.audited_flips(table_of(audited({"elm": 0.3}))).alt


def test_of_many_groups_those_that_lost_most_are_drawn():
    sizes = {f"tree {number}": 40 for number in range(50)}
    own = table_of(auditing.audit(*tables(sizes, {"tree 33": 0.9})))
    picture = figures.audited_drops(own)
    assert "Of 50 groups the 29 that lost most" in picture.caption
    assert "tree 33" in written(picture)
    assert len([text for text in written(picture) if text.startswith("tree")]) == 29


def test_names_from_data_stay_text():
    before, after = (table.replace({"group": {"elm": HOSTILE}}) for table in tables(TREES, {"elm": 0.3}))
    audit = auditing.audit(before, after, margin=0.02, fail_if=["worst_group_drop > 0.02"])
    for picture in (figures.audited_drops(table_of(audit)), figures.audited_flips(table_of(audit))):
        assert "<b>" not in picture._repr_html_()
        assert "\u202e" not in picture.body
        assert any("*el*" in text and "$x$" in text for text in written(picture))
    for prose in said(audit):
        assert "<b>" not in prose.text.replace("\\<b\\>", "")
        assert "\u202e" not in prose.text


def said(audit: Audit) -> list[wording.Prose]:
    functions = (
        story.audit_verdict, story.audit_gap, story.audit_flips, story.audit_equivalence,
        story.audit_gates, story.audit_untested,
    )  # fmt: skip
    return [*(function(audit) for function in functions), story.audit_power(audit, 0.02)]


@pytest.mark.parametrize(
    ("audit", "expected"),
    [
        (
            lambda: audited({"elm": 0.3}, fail_if=["worst_group_drop > 0.02", "overall_drop > 0.5"]),
            [
                r"\*\*Harm shown\.\*\* Group elm lost \d\d\.\d points",
                r"It surely rose: the change is \+\d\d\.\d points",
                r"The largest share changed in elm",
                r"For elm",
                r"- Failed\.(?s:.*)- Passed\.(?s:.*)The exit code is \*\*1\*\*",
            ],
        ),
        (
            lambda: same(10),
            [
                r"\*\*Cannot tell\.\*\*",
                r"Whether it changed is not decided: the change is \+0\.0 points",
                r"Not one of 20 predictions changed",
                r"No margin was set, so equivalence was not tested",
                r"No gate was set\. The exit code is 0",
                r"None of 2 groups reaches that\. No answer became right or wrong here",
            ],
        ),
        (
            lambda: same(1000, margin=0.05),
            [
                r"\*\*Equivalent\.\*\*",
                r"2 of 2 groups stayed surely within 5 points, up or down \(ash, elm\)\.$",
                r"Every group reaches that(?s:.*)in 100 of 100. That is enough",
            ],
        ),
    ],
    ids=["harm", "cannot tell", "equivalent"],
)
def test_words_are_the_audits(audit, expected):
    everything = [prose.text for prose in said(audit())]
    for pattern in expected:
        assert any(re.search(pattern, text) for text in everything), pattern
    assert not any("nan" in text for text in everything)


def test_what_must_be_known_first_comes_before_the_word():
    audit = strangely_answered()
    text = story.audit_verdict(audit).text
    assert text.startswith("**The first table gives 190 of its 1,900 answers")
    assert text.count("as classes that are no label") == 1
    assert text.index("\\<b\\>wasp") < text.index(f"**{audit.verdict.capitalize()}.**")


def test_what_it_takes_is_told_in_two_digits_and_the_blindest_group_first():
    audit = audited({}, few=2)
    text = story.audit_power(audit, 0.02).text
    asked = audit.power(0.02).sort_values("power").iloc[0]
    first = text.split("\n- ")[1]
    assert first.startswith(f"**{asked['group']}**, {asked['n']} rows: in {100 * asked['power']:.0f} of 100.")
    (needed,) = re.findall(r"It takes about ([\d,]+) rows\.", first)
    assert float(needed.replace(",", "")) == pytest.approx(asked["images_needed"], rel=0.05)
    assert len(needed.replace(",", "").rstrip("0")) <= 2


def test_the_table_to_read_holds_the_numbers_of_the_audit():
    audit = audited({"elm": 0.3})
    read, own = story.audit_groups(audit), table_of(audit).set_index("group")
    assert list(read.index) == ["all", *TREES]
    assert read.loc["elm", "rows"] == "200"
    assert read.loc["elm", "before, %"] == f"{100 * own.loc['elm', 'accuracy_before']:.1f}"
    assert read.loc["elm", "lost, points"] == f"+{100 * own.loc['elm', 'drop']:.1f}"
    assert read.loc["elm", "from"] == f"+{100 * own.loc['elm', 'drop_simultaneous_lower']:.1f}"
    assert read.loc["elm", "to"] == f"+{100 * own.loc['elm', 'drop_simultaneous_upper']:.1f}"


def test_the_paragraph_for_a_model_card_is_quoted_whole():
    audit = audited({"elm": 0.3})
    assert story.audit_card(audit).text == f"> {audit.model_card()}"


def test_what_oa_shows_of_flips_is_what_became_right_less_what_became_wrong():
    audit = audited({"elm": 0.3})
    overall = audit.record["overall"]
    text = story.audit_flips(audit).text
    assert f"changed: {overall['lost']:,} became wrong, {overall['gained']:,} became right, and" in text
    shown = 100 * (overall["lost"] - overall["gained"]) / overall["n"]
    assert f"OA shows only the second less the first: −{shown:.1f} points." in text


def test_the_exit_codes_of_the_gates_are_those_of_the_command():
    gates = ["worst_group_drop > 0.02", "overall_drop > 0.5"]
    text = story.audit_gates(audited({"elm": 0.3}, fail_if=gates)).text
    assert text.endswith("\n\nThe exit code is **1**.")
    open_ = story.audit_gates(audited({"elm": 0.3}, fail_if=["worst_group_drop > 0.35"])).text
    assert open_.startswith("- Not ruled out. ")
    assert open_.endswith("The exit code is **0**, and with `--strict` **4**.")
    assert "strict" not in story.audit_gates(audited({}, fail_if=["overall_drop > 0.5"])).text


def test_one_group_has_no_gap():
    audit = auditing.audit(*tables({"ash": 100}, {}))
    assert story.audit_gap(audit).text == "There is one group alone, so there is no gap to speak of."


def test_a_group_that_is_rarely_right_cannot_lose_much():
    before, after = tables(TREES, {})
    never = before["group"] == "elm"
    before.loc[never, "prediction"] = after.loc[never, "prediction"] = "none of these"
    audit = auditing.audit(before, after)
    own = audit.power(0.02).set_index("group").loc["elm"]
    assert own["power"] == 0
    assert pd.isna(own["images_needed"])
    assert (
        "- **elm**, 200 rows: it was right too rarely to lose so much." in story.audit_power(audit, 0.02).text
    )
