import io
import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from fairq_book.chapters.disparity import figures, tables
from fairq_book.experiments.gather import sizes_of
from fairq_book.experiments.studies import Prediction, Study
from fairq_book.kit import figures as kit_figures
from fairq_utils.data.datasets import Dataset
from fairq_utils.data.sources import DataSettings
from fairq_utils.errors import BadInput
from fairq_utils.treatments.treatment import FP32, Treatment

GROUPS = ("many", "some", "few")
LIGHT, DARK = "#ffffff", "#14181e"  # the page in its two modes


def luminance(colour: str) -> float:
    channels = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


@pytest.mark.parametrize("colour", [*kit_figures.PALETTE, kit_figures.FAINT])
@pytest.mark.parametrize("page", [LIGHT, DARK])
def test_every_colour_stands_out_from_the_page_in_light_and_in_dark(colour, page):
    brighter, darker = sorted((luminance(colour), luminance(page)), reverse=True)
    assert (brighter + 0.05) / (darker + 0.05) >= 3  # WCAG 2.2, 1.4.11


def test_no_two_groups_share_a_colour_or_a_mark():
    assert len(set(kit_figures.PALETTE)) == len(kit_figures.PALETTE) == len(set(kit_figures.MARKERS))


def table(*treatments: str) -> pd.DataFrame:
    rows = [
        (treatment, group, 100, share - drop, share - drop - 0.03, share - drop + 0.03)
        for drop, treatment in zip((0.0, 0.05, 0.4), treatments, strict=False)
        for group, share in zip((*GROUPS, "OA", "FVO"), (0.9, 0.7, 0.5, 0.8, 0.4), strict=True)
    ]
    return pd.DataFrame(rows, columns=["treatment", "group", "n", "estimate", "lower", "upper"])


def images() -> Dataset:
    random = torch.Generator().manual_seed(0)
    groups = torch.tensor([0, 0, 0, 1, 1, 2] * 2)
    return Dataset(
        torch.randint(0, 256, (12, 3, 16, 16), generator=random, dtype=torch.uint8),
        groups,
        groups,
        torch.arange(12) < 6,
        torch.zeros(12, dtype=torch.bool),
        GROUPS,
        GROUPS,
    )


def prediction(treatment: Treatment, answer: int) -> Prediction:
    logits = torch.zeros(6, 3)
    logits[:, answer] = 1
    groups = torch.tensor([0, 0, 0, 1, 1, 2])
    return Prediction(Study(), treatment, logits, groups, groups, GROUPS, GROUPS)


DRAWINGS = {
    "group_sizes": lambda: figures.group_sizes(sizes_of(images())),
    "accuracy_by_treatment": lambda: figures.accuracy_by_treatment(table("fp32", "int4", "int2")),
    "one treatment": lambda: figures.accuracy_by_treatment(table("fp32")),
    "violation_by_treatment": lambda: figures.violation_by_treatment(
        table("fp32", "int4"),
        pd.DataFrame({"treatment": ["fp32", "int4"], "median": 0.02, "upper": 0.05}),
        pd.DataFrame({"treatment": ["fp32", "int4"], "share": 0.5, "effective_classes": [2.8, 1.1]}),
    ),
    "confusion": lambda: figures.confusion(
        tables.confusion([prediction(FP32, 0), prediction(Treatment(2), 2)])
    ),
}


@pytest.mark.parametrize("draw", DRAWINGS.values(), ids=DRAWINGS.keys())
def test_a_drawing_is_sound_reproducible_and_in_the_pages_ink(draw):
    picture = draw()
    again = draw()
    assert picture.body == again.body
    tree = ET.fromstring(picture.body)
    assert tree.get("role") == "img"
    assert tree.get("aria-label") == picture.alt
    assert kit_figures.INK not in picture.body
    assert "currentColor" in picture.body
    defined = re.findall(r' id="([^"]+)"', picture.body)
    assert len(set(defined)) == len(defined)
    assert set(re.findall(r'(?:url\(#|href="#)([^)"]+)', picture.body)) <= set(defined)
    assert f"<figcaption>{picture.caption}</figcaption>" in picture._repr_html_()
    assert picture.alt in repr(picture)


def written(picture: kit_figures.Picture) -> list[str]:
    return [
        element.text.strip()
        for element in ET.fromstring(picture.body).iter("{http://www.w3.org/2000/svg}text")
    ]


def test_what_a_screen_reader_hears_are_the_numbers():
    heard = DRAWINGS["accuracy_by_treatment"]().alt
    assert "many: fp32 90, int4 85, int2 50." in heard
    assert "OA: fp32 80, int4 75, int2 40." in heard
    assert "many for few (100 %)" in DRAWINGS["confusion"]().alt
    assert "few 1 and 1" in DRAWINGS["group_sizes"]().alt
    assert "int4 1.1" in DRAWINGS["violation_by_treatment"]().alt


def test_lines_are_labelled_by_name_and_labels_stay_apart():
    crowded = table("fp32", "int4")
    crowded.loc[crowded["group"].isin(GROUPS), ["estimate", "lower", "upper"]] = 0.0
    picture = figures.accuracy_by_treatment(crowded)
    assert {*GROUPS, "OA", "fp32", "int4"} <= set(written(picture))
    places = [
        float(element.get("y"))
        for element in ET.fromstring(picture.body).iter("{http://www.w3.org/2000/svg}text")
        if element.text.strip() in GROUPS
    ]
    assert min(np.diff(sorted(places))) >= 9  # points: the height of a line of text


def test_names_at_the_ends_of_lines_are_in_the_ink_of_the_text():
    names = [
        element
        for element in ET.fromstring(DRAWINGS["accuracy_by_treatment"]().body).iter(
            "{http://www.w3.org/2000/svg}text"
        )
        if element.text.strip() in (*GROUPS, "OA")
    ]
    assert len(names) == 4
    assert not any(colour in name.get("style") for name in names for colour in kit_figures.PALETTE)


def test_names_in_a_legend_are_spread_evenly_over_as_few_rows_as_hold_them():
    def rows(*names: str) -> list[int]:
        columns = kit_figures.columns_of_names(list(names))
        return [sum(len(column) > row for column in columns) for row in range(len(columns[0]))]

    assert rows("White", "Black", "Asian", "Indian", "Others") == [5]
    assert rows(*(f"a name of group {number}" for number in range(5))) == [2, 2, 1]
    assert rows("Alder moths", "Bracken moths", "Clover moths", "Damson moths", "Others") == [3, 2]
    assert rows("a name that is far longer than the figure is wide, and goes on and on and on") == [1]


def test_shares_of_the_confusion_matrix_add_up_over_seeds():
    mixed = figures.confusion(tables.confusion([prediction(FP32, 0), prediction(FP32, 2)]))
    assert written(mixed).count("50") == 6
    assert written(mixed).count("0") == 3


def test_the_confusion_of_the_first_and_the_last_treatment_is_drawn():
    three = [prediction(treatment, 0) for treatment in (FP32, Treatment(4), Treatment(2))]
    assert {"fp32", "int2"} <= set(written(figures.confusion(tables.confusion(three))))
    assert "int4" not in written(figures.confusion(tables.confusion(three)))


def test_a_contact_sheet_names_each_row_and_shows_images_of_that_group_only():
    sheet = figures._sheet(images(), columns=2)
    for name in GROUPS:
        assert f"<span>{name}</span>" in sheet.body
    assert sheet.body.count("data:image/png;base64,") == len(GROUPS)
    assert "2 images of many" in sheet.body
    assert "1 images of few" in sheet.body


def test_moths_are_shown_and_photographs_are_not(tmp_path):
    assert "data:image/png" in figures.contact_sheet(DataSettings()).body
    for name in ("utkface", "fairface", "celeba", "folder"):  # the path is not even looked at
        sheet = figures.contact_sheet(DataSettings(name=name, root=str(tmp_path / "nothing")))
        assert sheet.body == "<p>No photograph is shown: the people on them were not asked.</p>"


def test_names_from_data_stay_text():
    hostile = replace(images(), group_names=("<b>", "b", "c"))
    assert "<b>" not in figures._sheet(hostile, columns=2).body
    assert "<b>" not in figures.group_sizes(sizes_of(hostile)).body


def colours(png: bytes) -> dict[tuple[int, ...], int]:
    with Image.open(io.BytesIO(png)) as drawn:
        assert drawn.size == kit_figures.CARD_SIZE
        return {colour[:3]: count for count, colour in drawn.getcolors(maxcolors=10**6)}


def test_the_card_says_who_pays_in_that_groups_colour():
    said = {"title": "Who pays?", "words": "Few pay most.", "backing": "Much less than all."}
    own = tuple(int(kit_figures.PALETTE[GROUPS.index("few")][i : i + 2], 16) for i in (1, 3, 5))
    named = colours(kit_figures.card(table("fp32", "int4"), payer="few", **said))
    unnamed = colours(kit_figures.card(table("fp32", "int4"), **said))
    assert named[own] > unnamed[own] + 10_000  # the bar above all, and the words


def test_the_card_is_the_same_every_time_and_needs_a_group_that_it_shows():
    said = {"title": "Who pays?", "words": "Few pay most.", "backing": "Much less than all."}
    assert kit_figures.card(table("fp32", "int4"), **said) == kit_figures.card(table("fp32", "int4"), **said)
    with pytest.raises(BadInput, match="payer is 'nobody'; expected one of: many, some, few, or None"):
        kit_figures.card(table("fp32", "int4"), payer="nobody", **said)
