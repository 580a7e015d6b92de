import itertools
import re
import xml.etree.ElementTree as ET
from functools import cache

import numpy as np
import pandas as pd
import pytest

from fairq_book.chapters.repair import figures
from fairq_book.kit import figures as kit_figures
from fairq_book.kit.treatments import with_columns
from fairq_utils.errors import BadInput

GROUPS = ("many", "some", "few")
TOTALS = ("OA", "FVO")
EFFECTS = (
    "training",
    "weights",
    "sampling",
    "training × weights",
    "training × sampling",
    "weights × sampling",
    "training × weights × sampling",
)
EXTRAS = ("", "-weighted", "-sampled", "-weighted-sampled")


def arms_of(width: str) -> list[str]:
    return [
        f"{width}-fairqat" if (training, extra) == ("qat", EXTRAS[-1]) else f"{width}-ends8-{training}{extra}"
        for training, extra in itertools.product(("tuned", "qat"), EXTRAS)
    ]


def interval(centre: float, reach: float = 0.01) -> dict[str, float]:
    return {"estimate": centre, "lower": centre - reach, "upper": centre + reach}


def effects(*widths: str) -> pd.DataFrame:
    rows = [
        {"width": width, "effect": effect, "group": group, "n": 100} | interval(0.01 * (place - shift))
        for width in widths
        for place, effect in enumerate(EFFECTS)
        for shift, group in enumerate((*GROUPS, *TOTALS))
    ]
    return pd.DataFrame(rows)


def changes(*widths: str) -> pd.DataFrame:
    rows = [
        {"treatment": arm, "reference": f"{width}-ends8", "width": width, "group": group, "n": 100}
        | interval(0.02 * (shift - 2) * place / 7)
        for width in widths
        for place, arm in enumerate(arms_of(width))
        for shift, group in enumerate((*GROUPS, *TOTALS, "flips", "worst group"))
    ]
    return with_columns(pd.DataFrame(rows))


def point(treatment: str, family: str, strength: object, accuracy: float, gap: float, worst: str) -> dict:
    about = {"treatment": treatment, "width": treatment.split("-")[0], "family": family, "strength": strength}
    measured = {
        f"{name}{end}": value
        for name, centre in (("OA", accuracy), ("FVO", gap))
        for end, value in (("", centre), ("_lower", centre - 0.02), ("_upper", centre + 0.02))
    }
    return about | measured | {"worst": worst, "worst_accuracy": accuracy - gap / 2, "equal": 10.0}


def frontier(*widths: str) -> pd.DataFrame:
    rows = [point("fp32", "none", np.nan, 0.9, 0.15, "few")]
    for width in widths:
        rows += [
            point(f"{width}-ends8", "none", np.nan, 0.2, 1.0, "some"),
            point(f"{width}-ends8-tuned", "none", np.nan, 0.80, 0.30, "few"),
            point(f"{width}-ends8-qat", "none", np.nan, 0.86, 0.22, "few"),
            *(
                point(f"{width}-ends8-qat-weighted{at}", "weights", at, 0.87 - at / 900, 0.22 - at / 500, who)
                for at, who in ((20, "few"), (40, "few"), (80, "some"))
            ),
            point(f"{width}-ends8-qat-weighted", "weights", 60.0, 0.80, 0.10, "some"),
            point(f"{width}-ends8-qat-sampled50", "sampling", 50.0, 0.85, 0.17, "few"),
            point(f"{width}-ends8-qat-sampled", "sampling", "both", 0.84, 0.14, "few"),
            point(f"{width}-ends8-qat-oversampled", "sampling", "over", 0.845, 0.135, "few"),
            point(f"{width}-fairqat", "both", np.nan, 0.79, 0.09, "many"),
            point(f"{width}-ends8-qat-dro", "dro", np.nan, 0.83, 0.12, "few"),
            point(f"{width}-ends8-qat-adjusted", "adjusted", np.nan, 0.82, 0.11, "some"),
        ]
    return with_columns(pd.DataFrame(rows))


def on_both(*widths: str) -> pd.DataFrame:
    rows = [
        {"treatment": arm, "reference": f"{width}-ends8", "width": width, "group": group, "split": split}
        | interval(-0.02 * place / (1 + (split == "test")))
        for width in widths
        for place, arm in enumerate([*arms_of(width), f"{width}-ends8-qat-dro"])
        for group in TOTALS
        for split in ("train", "test")
    ]
    return with_columns(pd.DataFrame(rows))


DRAWINGS = {
    "effects": lambda: figures.effects(effects("int8", "int4", "int3"), ["FVO", "OA", "few"]),
    "one width": lambda: figures.effects(effects("int4")),
    "arms": lambda: figures.arms(changes("int4", "int3"), groups=[*GROUPS, *TOTALS]),
    "frontier": lambda: figures.frontier(frontier("int4", "int3"), GROUPS),
    "on both": lambda: figures.on_both(on_both("int8", "int4", "int3", "int2")),
}


@cache
def picture(name: str) -> kit_figures.Picture:
    return DRAWINGS[name]()


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_drawing_is_sound_and_speaks(name):
    body, alt = picture(name).body, picture(name).alt
    assert ET.fromstring(body).get("aria-label") == alt
    assert kit_figures.INK not in body
    defined = re.findall(r' id="([^"]+)"', body)
    assert len(set(defined)) == len(defined)
    assert "nan" not in alt


def written(name: str) -> list[str]:
    tree = ET.fromstring(picture(name).body)
    return [element.text.strip() for element in tree.iter("{http://www.w3.org/2000/svg}text")]


def test_names_beside_marks_stand_in_the_same_places_every_time():
    assert DRAWINGS["frontier"]().body == picture("frontier").body


def test_what_a_screen_reader_hears_are_the_numbers():
    assert "int4, few: training -2.0 (-3.0 to -1.0), weights -1.0 (-2.0 to +0.0)" in picture("effects").alt
    assert "training × weights × sampling +2.0 (+1.0 to +3.0)" in picture("effects").alt
    assert "int3, FVO: tuned +0.0 (-1.0 to +1.0)" in picture("arms").alt
    assert "FairQAT +4.0 (+3.0 to +5.0)" in picture("arms").alt
    assert "int4-fairqat OA 79.0, FVO 9.0, worst many" in picture("frontier").alt
    assert "int4 QAT -8.0 and -4.0" in picture("on both").alt


def test_only_the_groups_that_were_asked_for_are_shown_and_each_looks_as_it_does_elsewhere():
    body = picture("effects").body
    assert kit_figures.PALETTE[2] in body
    assert kit_figures.PALETTE[0] not in body
    assert kit_figures.PALETTE[1] not in body
    assert {"FVO", "OA", "few"} <= set(written("effects"))
    assert not {"many", "some"} & set(written("effects"))
    frontier_alone = figures.frontier(frontier("int4").query("worst != 'some'"), GROUPS).body
    assert kit_figures.PALETTE[2] in frontier_alone
    assert kit_figures.PALETTE[1] not in frontier_alone
    unseen = frontier("int4")  # only the point out of the picture serves "some" worst
    unseen.loc[unseen["treatment"] != "int4-ends8", "worst"] = "few"
    assert "some worst" not in figures.frontier(unseen, GROUPS).body


def test_panels_go_from_wide_to_narrow_and_leave_out_lines_on_which_none_of_a_row_has_a_mark():
    few = changes("int8", "int3", "int2").query("treatment.str.contains('qat')")
    table = pd.concat([changes("int4"), few])
    texts = [
        element.text.strip()
        for element in ET.fromstring(figures.arms(table).body).iter("{http://www.w3.org/2000/svg}text")
    ]
    assert [text for text in texts if text.startswith("int")] == ["int8", "int4", "int3", "int2"]
    assert texts.count("tuned") == 1  # of two rows of panels
    assert texts.count("FairQAT") == 2


@pytest.mark.parametrize(("name", "own"), [("effects", True), ("one width", False), ("on both", True)])
def test_that_panels_have_scales_of_their_own_is_said_where_there_are_several(name, own):
    assert ("The panels have scales of their own." in picture(name).caption) == own


@pytest.mark.parametrize(("reach", "beyond"), [(0.0, False), (0.5, True)])
def test_of_intervals_that_leave_a_panel_it_is_said_that_they_go_on(reach, beyond):
    table = frontier("int4")
    table["FVO_upper"] = table["FVO"] + reach
    both = on_both("int4")
    both["upper"] = both["estimate"] + reach
    for drawn in (figures.frontier(table, GROUPS), figures.on_both(both)):
        assert ("go on beyond it" in drawn.caption) == beyond


@pytest.mark.parametrize(
    ("groups", "said"), [(["moths"], "groups is 'moths'; expected some of: many"), ([], "groups is empty")]
)
@pytest.mark.parametrize("draw", [figures.effects, lambda table, groups: figures.arms(table, groups=groups)])
def test_groups_that_are_not_there_are_refused(draw, groups, said):
    table = with_columns(effects("int4").assign(treatment="int4-fairqat"))
    with pytest.raises(BadInput, match=said):
        draw(table, groups)


def test_a_group_without_images_is_neither_drawn_nor_said():
    table = effects("int4")
    table.loc[table["group"] == "few", ["estimate", "lower", "upper"]] = np.nan
    said = figures.effects(table, ["few", "OA"]).alt
    assert "nan" not in said
    assert "int4, OA: training" in said


def test_the_sweeps_are_named_by_percent_and_the_rest_by_what_they_are():
    labels = written("frontier")
    for label in ("20 %", "40 %", "60 %", "80 %", "50 %", "100 %", "fp32", "QAT", "FairQAT", "DRO", "tuned"):
        assert labels.count(label) == 2, label  # once a width
    assert "oversampled" in labels


def test_a_point_far_from_all_trained_ones_is_said_and_not_drawn():
    assert written("frontier").count("out of the picture: rounded: OA 20, FVO 100") == 2
    assert "rounded" not in written("frontier")
    near = frontier("int4")
    near.loc[near["treatment"] == "int4-ends8", ["OA", "FVO"]] = 0.8, 0.2
    body = figures.frontier(near, GROUPS).body
    assert "out of the picture" not in body
    assert ">rounded<" in re.sub(r"\s*([<>])\s*", r"\1", body)


@pytest.fixture
def unwritten(monkeypatch) -> list:
    """Figures that were drawn since, as matplotlib has them while they are open: what is asked of them."""
    asked = []

    def ask(figure, **words):
        figure.draw_without_rendering()
        handles = figure.legends[0].legend_handles
        asked.append(
            {
                "labels": [text.get_window_extent() for text in figure.axes[0].texts],
                "looks": {(h.get_color(), h.get_marker(), h.get_fillstyle()) for h in handles},
            }
        )
        return kit_figures.Picture("", "")

    monkeypatch.setattr(figures, "drawn", ask)
    return asked


def test_labels_of_the_frontier_do_not_cover_one_another(unwritten):
    figures.frontier(frontier("int4"), GROUPS)
    labels = unwritten[0]["labels"]
    assert len(labels) == 13
    assert all(box.count_overlaps(labels) == 1 for box in labels)  # itself


def test_more_arms_than_colours_still_look_different(unwritten):
    one = on_both("int4").query("treatment == 'int4-ends8-qat'")
    many = pd.concat(one.assign(treatment=f"int4-ends8-qat-weighted{at}") for at in range(10, 30))
    figures.on_both(with_columns(many))
    assert len(unwritten[0]["looks"]) == 20
