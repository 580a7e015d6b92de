"""What a page measured, as it travels with the executed notebook to the page of claims."""

import json

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from fairq_book.kit.measured import MIME, Measured, from_output, of_chapters
from fairq_utils.errors import BadInput

NOTHING = float("nan")
TABLE = pd.DataFrame(
    {
        "treatment": ["int4", "int3"],
        "group": ["Größte", "few"],
        "ends8": [True, False],
        "bits": [4, 3],
        "estimate": [0.1 + 0.2, -1e-12],
        "lower": [NOTHING, -0.5],
        "before": [NOTHING, NOTHING],
        "bound": [float("inf"), 3.5],
        "limit": [float("-inf"), NOTHING],
        "beside": ["", None],
    }
)
LONG = pd.DataFrame({"x": range(5000)})


def page(name: str, table: pd.DataFrame, networks: int) -> Measured:
    return Measured("here", "Moths", {name: table}, networks, networks, "measured by this book", take_apart=3)


def carried(measured: Measured) -> Measured:
    return from_output(json.loads(json.dumps(measured._repr_mimebundle_()[MIME], allow_nan=False)))


def test_tables_arrive_as_they_were():
    got = carried(page("change", TABLE, 20))
    assert_frame_equal(got["change"], TABLE, check_exact=True)
    assert (got.name, got.title, got.seeds, got.networks, got.take_apart) == ("here", "Moths", 20, 20, 3)
    assert got.made == {}


def test_what_is_drawn_point_by_point_stays_behind():
    own = Measured("here", "Moths", {"change": TABLE, "densities": LONG}, 2, 2, "")
    assert set(carried(own).tables) == {"change"}


def test_each_chapter_is_judged_by_its_own_networks():
    both = of_chapters({"01": page("change", TABLE, 20), "05": page("arms", TABLE, 8)})
    assert (both.by("01").networks, both.by("05").networks) == (20, 8)
    assert both.title == "Moths"
    with pytest.raises(BadInput, match="has no table"):
        both["change"]
    assert both.by("06") is both  # which has no table, so that nothing is asked of it


def test_one_record_is_of_all_chapters():
    own = page("change", TABLE, 5)
    assert own.by("01") is own
