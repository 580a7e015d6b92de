"""What a pipeline may fail on: how gates are read, and by which end of an interval they are decided."""

import pytest

from fairq_audit import formats, gates
from fairq_audit.quantities import QUANTITIES
from fairq_utils.errors import BadInput


def interval(estimate: float, lower: float, upper: float) -> dict[str, float]:
    return {"estimate": estimate, "lower": lower, "upper": upper}


def group(name: str, estimate: float, lower: float, upper: float) -> dict:
    return {"group": name, "drop": interval(estimate, lower, upper)}


RECORD = {
    "overall": {"drop": interval(0.02, 0.01, 0.03), "flip_rate": interval(0.1, 0.08, 0.12)},
    "worst_group_drop": {"group": "elm", **interval(0.05, 0.02, 0.09)},
    "groupings": [
        {
            "name": "tree",
            "fvo_increase": interval(0.04, -0.01, 0.1),
            "fvo_after": interval(0.12, 0.08, 0.16),
            "groups": [group("elm", 0.05, 0.02, 0.09), group("ash", 0.0, -0.01, 0.01)],
        },
        {
            "name": "light",
            "fvo_increase": interval(0.03, 0.01, 0.05),
            "fvo_after": interval(0.1, 0.09, 0.11),
            "groups": [group("ash", 0.01, -0.02, 0.04), group("a ] b", 0.3, 0.2, 0.4)],
        },
    ],
}


def judged(expression: str, decide_on: str = "lower") -> dict:
    return gates.parse(expression, decide_on).judge(RECORD)


@pytest.mark.parametrize(
    ("expression", "failing"),
    [
        ("overall_drop > 0.005", {"lower", "estimate", "upper"}),
        ("overall_drop > 0.015", {"estimate", "upper"}),
        ("overall_drop > 0.025", {"upper"}),
        ("overall_drop > 0.035", set()),
        ("worst_group_drop>0.04", {"estimate", "upper"}),
        ("  flip_rate  >=  0.08 ", {"lower", "estimate", "upper"}),
        ("flip_rate > 0.08", {"estimate", "upper"}),
        ("group_drop[elm] > 0.01", {"lower", "estimate", "upper"}),
        ("group_drop[a ] b] > 0.25", {"estimate", "upper"}),
        ("group_drop[light=ash] > 0.02", {"upper"}),
        ("fvo_after > 0.085", {"lower", "estimate", "upper"}),
        ("fvo_increase > 0.005", {"lower", "estimate", "upper"}),
        ("fvo_increase > 0.06", {"upper"}),
        ("overall_drop > -0.01", {"lower", "estimate", "upper"}),
    ],
)
def test_a_gate_fails_when_the_chosen_end_is_beyond(expression, failing):
    found = {end for end in ("lower", "estimate", "upper") if not judged(expression, end)["passed"]}
    assert found == failing


def test_a_gap_fails_by_the_grouping_that_is_furthest_beyond_and_passes_by_all():
    assert judged("fvo_increase > 0.005", "lower")["where"] == "light"
    assert judged("fvo_increase > 0.02", "upper")["where"] == "tree"
    # Neither is surely beyond: told is the larger, and that neither is ruled out.
    found = judged("fvo_increase > 0.02", "lower")
    assert (found["where"], found["outcome"], found["passed"]) == ("tree", "not ruled out", True)
    assert [one["where"] for one in found["not_ruled_out"]] == ["tree", "light"]
    assert found["sentence"].endswith("between −0.0100 and 0.1000; nor is it for light.")
    assert judged("fvo_increase > 0.2")["outcome"] == "passed"


def test_a_gate_that_did_not_fail_says_when_more_is_not_ruled_out():
    assert judged("overall_drop > 0.025")["sentence"] == (
        "Not ruled out. overall_drop > 0.025: 0.0200, between 0.0100 and 0.0300."
    )
    assert judged("overall_drop > 0.05")["sentence"].startswith("Passed. overall_drop")
    assert judged("worst_group_drop > 0.01")["sentence"] == (
        "Failed. worst_group_drop > 0.01: 0.0500 for elm, between 0.0200 and 0.0900; it is surely beyond."
    )


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "fvo_increase",
        "fvo_increase == 0.1",
        "fvo > 0.1",
        "group_drop > 0.1",
        "group_drop[] > 0.1",
        "overall_drop[elm] > 0.1",
        "__import__('os').system('true') > 0",
        "fvo_increase > 0.1 or True",
        "fvo_increase > 1e-3\nfvo_after > 1",
    ],
)
def test_what_is_no_gate_is_refused_with_what_is_known(expression):
    with pytest.raises(BadInput) as refused:
        gates.parse(expression)
    assert str(refused.value) == (
        f"The gate {expression!r} cannot be read; expected QUANTITY > FRACTION, such as fvo_increase > 0.03, "
        f"where the quantity is one of: {', '.join(QUANTITIES)}."
    )


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("fvo_increase < 0.1", "has the sign <; expected > or >="),
        ("selection_rate_ratio[yes] > 0.8", "has the sign >; expected < or <="),
        ("verdict > harm", "has the sign >; expected = or !="),
        ("verdict = harmful", "names the verdict 'harmful'; expected one of: harm, no_harm, equivalent"),
        ("fvo_increase > much", "ends in 'much'; expected a fraction, such as 0.03 or 3%."),
        ("fvo_increase > 0.0.3", "ends in '0.0.3'; expected a fraction"),
        ("fvo_increase > nan", "ends in 'nan'; expected a fraction"),
    ],
)
def test_what_a_gate_has_wrong_is_named(expression, said):
    with pytest.raises(BadInput) as refused:
        gates.parse(expression)
    assert said in str(refused.value)


def test_thresholds_are_read_in_every_usual_way():
    assert [gates.parse(f"overall_drop > {text}").threshold for text in ("0.03", "3%", "3e-2", ".03")] == [
        pytest.approx(0.03)
    ] * 4


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        (
            "fvo_increase > 3",
            "has the threshold 3; expected a fraction between −1 and 1: 0.03 for three points",
        ),
        ("group_drop[oak] > 0.1", "names no group of this audit; expected one of: elm, ash, ash, a ] b."),
        ("group_drop[ash] > 0.1", "of several columns; expected one of: tree=ash, light=ash."),
    ],
)
def test_gates_that_fit_no_audit_are_refused(expression, said):
    with pytest.raises(BadInput) as refused:
        judged(expression)
    assert said in str(refused.value)


def test_a_side_that_does_not_exist_is_refused():
    with pytest.raises(BadInput, match="decide_on is 'middle'; expected lower"):
        gates.parse("overall_drop > 0.1", "middle")


def test_names_in_sentences_stay_in_their_line_and_end():
    assert formats.shown("a\r\n\tb\x1b[2J\u202ec") == "a b [2J c"
    assert len(formats.shown("x" * 500)) == 60


def lacking(*groups: dict, n: int = 0, right: int = 0) -> dict:
    """The record where rows are missing after, of groups of the first grouping."""
    own = [{"grouping": "tree", **group} for group in groups]
    sizes = {"elm": 90, "ash": 300, "a ] b": 60}
    groupings = [
        grouping
        | {
            "groups": [
                group
                | {"n": sizes[group["group"]]}
                | {"drop": group["drop"] | {"simultaneous_lower": group["drop"]["lower"]}}
                | {f"accuracy_{when}": interval(share, 0, 1) for when, share in accuracies.items()}
                for group, accuracies in zip(
                    grouping["groups"],
                    ({"before": 0.9, "after": 0.8}, {"before": 0.8, "after": 0.7}),
                    strict=True,
                )
            ]
        }
        for grouping in RECORD["groupings"]
    ]
    gone = {"reason": "only in b.csv", "n": n, "right": right, "groups": own}
    overall = RECORD["overall"] | {"n": 390}
    return RECORD | {"overall": overall, "groupings": groupings, "compared": {"dropped": [gone]}}


ELM = {"group": "elm", "n": 10, "right": 9, "of": 100}
GONE = {"group": "oak", "n": 40, "right": 30, "of": 40}


@pytest.mark.parametrize(
    ("expression", "end", "groups", "worth", "whose"),
    [
        # Of 390 images 2 of 100 were lost; with ten missing, of which nine were right, it is (7.8 + 9) / 400.
        ("overall_drop > 0.03", "estimate", [ELM], (0.02 * 390 + 9) / 400, ""),
        ("overall_drop > 0.03", "lower", [ELM], (0.01 * 390 + 9) / 400, ""),
        ("flip_rate > 0.11", "estimate", [ELM], (0.1 * 390 + 10) / 400, ""),
        ("group_drop[elm] > 0.06", "estimate", [ELM], (0.05 * 90 + 9) / 100, " of elm"),
        ("group_drop[tree=elm] > 0.06", "estimate", [ELM], (0.05 * 90 + 9) / 100, " of elm"),
        ("worst_group_drop > 0.06", "estimate", [ELM], (0.05 * 90 + 9) / 100, " of elm"),
        ("worst_group_drop > 0.1", "upper", [ELM], (0.09 * 90 + 9) / 100, " of elm"),
        # A group of which nothing is left has lost what it had right.
        ("worst_group_drop > 0.06", "lower", [ELM, GONE], 30 / 40, " of oak"),
        # A gap opens where the missing of one group are wrong and no other's: elm falls from 0.8 to 0.72.
        ("fvo_after > 0.19", "estimate", [ELM], 0.12 + 0.8 * 10 / 100, " of elm"),
        (
            "fvo_after > 0.19",
            "upper",
            [{"group": "oak", "n": 40, "right": 30, "of": 40}],
            0.16 + 0.7,
            " of oak",
        ),
        # Before, with all its rows, elm was right in 90 of 100 as without: the gap before is what it was.
        ("fvo_increase > 0.1", "estimate", [ELM], 0.04 + 0.8 * 10 / 100, " of elm"),
        # Had elm been right less often among the missing, the gap before was smaller, and so rose by more.
        ("fvo_increase > 0.12", "estimate", [ELM | {"right": 0}], 0.04 + 0.08 + 0.09, " of elm"),
    ],
)
def test_a_gate_does_not_pass_over_rows_that_are_missing(expression, end, groups, worth, whose):
    n, right = (sum(group[what] for group in groups) for what in ("n", "right"))
    record = lacking(*groups, n=n, right=right)
    gate = gates.parse(expression, end)
    plain = gate.judge(RECORD)
    found = gate.judge(record)
    assert (plain["passed"], found["passed"]) == (True, False)
    assert found["value"] == plain["value"]
    own = groups[-1]["n"] if whose else n
    assert found["with_missing"] == {
        "n": own,
        "group": whose.removeprefix(" of ") or None,
        "value": pytest.approx(worth),
    }
    begun = plain["sentence"].replace("Not ruled out.", "Failed.").replace("Passed.", "Failed.")
    assert found["sentence"] == (
        begun.partition("; nor is it")[0].removesuffix(".")
        + f"; not ruled out: {own} rows{whose} are missing, and if they count as wrong it is {worth:.4f}."
    )


def test_missing_rows_that_change_nothing_leave_a_gate_as_it_was():
    record = lacking(ELM, n=10, right=9)
    for expression in ("overall_drop > 0.05", "worst_group_drop > 0.2", "group_drop[light=ash] > 0.04"):
        assert gates.parse(expression).judge(record)["passed"]
    failed = gates.parse("worst_group_drop > 0.01").judge(record)
    assert failed["sentence"].endswith("it is surely beyond.")
    assert gates.parse("group_drop[light=ash] > 0.04").judge(record)["with_missing"] is None
    assert judged("overall_drop > 0.05")["with_missing"] is None


def test_a_gate_on_a_group_that_is_missing_altogether_is_refused():
    with pytest.raises(BadInput, match="all of whose 40 rows are missing"):
        gates.parse("group_drop[oak] > 0.5").judge(lacking(GONE, n=40, right=30))
