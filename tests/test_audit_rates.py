"""Recall, precision, false positives and selection against fairlearn; clusters, weights and thresholds."""

import json
from functools import cache
from importlib.resources import files

import jsonschema
import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from fairlearn import metrics as fair
from scipy import stats
from sklearn.metrics import accuracy_score, precision_score, recall_score

from fairq_audit import auditing, calibration, gates, rates, statistics, thresholds
from fairq_audit.cells import told_apart
from fairq_audit.predictions import read
from fairq_audit.sampling import Sampling, count
from fairq_utils.errors import BadInput

SCHEMA = json.loads((files("fairq_audit") / "schemas" / "audit-2.json").read_text())


def loans(n: int = 3000, *, scores: bool = False, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One in five of these people does not pay back; the second model finds fewer of them in group B."""
    rng = np.random.default_rng(seed)
    group = rng.choice(["A", "B"], size=n, p=[0.7, 0.3])
    bad = rng.random(n) < 0.2
    score = rng.normal(size=n) + 2.5 * bad - 1.2
    base = pd.DataFrame({"id": range(n), "label": np.where(bad, "default", "paid"), "group": group})
    base["person"], base["worth"] = rng.integers(n // 3, size=n), rng.uniform(0.5, 4, n)
    later = score + 0.3 * rng.normal(size=n) - np.where(group == "B", 0.8, 0)
    found = []
    for own in (score, later):
        sure = 1 / (1 + np.exp(-2 * own))
        said = base.assign(prediction=np.where(sure > 0.5, "default", "paid"))
        found.append(said.assign(probability_default=sure, probability_paid=1 - sure) if scores else said)
    return found[0], found[1]


# -- against fairlearn --------------------------------------------------------------------------------

ORACLES = {
    "recall": lambda y, p, **more: recall_score(y, p, **more),
    "precision": lambda y, p, **more: precision_score(y, p, **more),
    "fpr": lambda y, p, **more: fair.false_positive_rate(y, p, **more),
    "selection_rate": lambda y, p, **more: fair.selection_rate(y, p, **more),
}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("measure", ORACLES)
def test_rates_of_a_class_are_fairlearns(measure, weighted):
    before, after = loans()
    found = auditing.audit(before, after, weight="worth" if weighted else None)
    own = found.rates.query("measure == @measure and `class` == 'default'").set_index("group")
    for when, table in (("before", before), ("after", after)):
        truth, said = (table[name].eq("default").astype(int) for name in ("label", "prediction"))
        more = {"sample_params": {"sample_weight": before["worth"]}} if weighted else {}
        frame = fair.MetricFrame(
            metrics=ORACLES[measure], y_true=truth, y_pred=said, sensitive_features=table["group"], **more
        )
        assert own[when].to_dict() == pytest.approx(frame.by_group.to_dict())


def test_gaps_and_ratios_between_groups_are_fairlearns():
    before, after = loans()
    (grouping,) = auditing.audit(before, after, positive="default").record["groupings"]
    (ratio,) = grouping["selection_ratios"]
    for when, table in (("before", before), ("after", after)):
        truth, said = (table[name].eq("default").astype(int) for name in ("label", "prediction"))
        given = {"y_true": truth, "y_pred": said, "sensitive_features": table["group"]}
        assert grouping["odds"][when]["estimate"] == pytest.approx(fair.equalized_odds_difference(**given))
        assert ratio[when]["estimate"] == pytest.approx(fair.demographic_parity_ratio(**given))
        assert ratio[when]["lower"] < ratio[when]["estimate"] < ratio[when]["upper"] <= 1


def test_weighted_accuracies_are_those_of_a_library():
    before, after = loans()
    found = auditing.audit(before, after, weight="worth").record
    for group in found["groupings"][0]["groups"]:
        mine = before["group"].eq(group["group"])
        for when, table in (("before", before), ("after", after)):
            right = accuracy_score(
                table["label"][mine], table["prediction"][mine], sample_weight=table["worth"][mine]
            )
            assert group[f"accuracy_{when}"]["estimate"] == pytest.approx(right)
        assert group["effective_n"] < group["n"]
    everyone = accuracy_score(after["label"], after["prediction"], sample_weight=after["worth"])
    assert found["overall"]["accuracy_after"]["estimate"] == pytest.approx(everyone)


def test_rates_are_the_same_where_rows_are_weighted_alike_and_belong_to_nobody_else():
    before, after = loans()
    plain = auditing.audit(before, after)
    alike = auditing.audit(before.assign(worth=3.0), after, weight="worth")
    own = ["group", "class", "measure", "before", "after", "drop", "drop_lower", "drop_upper"]
    pd.testing.assert_frame_equal(plain.rates[own], alike.rates[own], atol=2e-3)
    for one, other in zip(
        plain.record["groupings"][0]["groups"], alike.record["groupings"][0]["groups"], strict=True
    ):
        assert other["drop"]["lower"] == pytest.approx(one["drop"]["lower"], abs=2e-3)


# -- rows that belong together, or count for more -----------------------------------------------------


def test_effective_rows_leave_a_share_as_uncertain_as_a_regression_with_clustered_errors():
    rng = np.random.default_rng(1)
    person = np.repeat(np.arange(200), 10)
    hit = (rng.random(200)[person] < 0.5) & (rng.random(2000) < 0.8)
    weights = rng.uniform(1, 5, 2000)
    for weight in (None, weights):
        counted = count(
            np.zeros(2000, int), hit.astype(int), (1, 2), {"share": [0, 1]}, Sampling(weight, person)
        )
        share = counted.weighted[0, 1] / 2000
        fit = sm.WLS(hit.astype(float), np.ones(2000), np.ones(2000) if weight is None else weight).fit(
            cov_type="cluster", cov_kwds={"groups": person}
        )
        assert share == pytest.approx(fit.params[0])
        student = stats.t.ppf(0.975, 199) / stats.norm.ppf(0.975)
        spread = share * (1 - share) / (2000 * counted.effective["share"][0])
        # statsmodels multiplies by (n - 1) / (n - k) as well, which is one here.
        assert spread == pytest.approx((fit.bse[0] * student) ** 2, rel=1e-3)


FRAMES, PEOPLE = 20, 50


@cache
def of_frames(cluster: bool) -> float:
    """How often harm is said of two groups of people with twenty frames each, none of whom pays."""
    rng, said = np.random.default_rng(2), 0
    person = np.repeat(np.arange(2 * PEOPLE), FRAMES)
    base = pd.DataFrame({"id": range(len(person)), "label": "face", "person": person})
    base["group"] = np.where(person < PEOPLE, "x", "y")
    for _ in range(200):
        # Some people's frames change their answer together, as often for the better as for the worse.
        moved = rng.choice([-1, 0, 1], size=2 * PEOPLE, p=[0.1, 0.8, 0.1])[person] * (
            rng.random(len(person)) < 0.6
        )
        before = np.where(moved > 0, "face", np.where(moved < 0, "none", "face"))
        after = np.where(moved > 0, "none", "face")
        found = auditing.audit(
            base.assign(prediction=before),
            base.assign(prediction=after)[["id", "prediction"]],
            cluster="person" if cluster else None,
        )
        said += found.verdict == "harm shown"
    return said / 200


def test_frames_of_one_person_are_no_independent_rows():
    assert of_frames(False) > 0.3
    assert of_frames(True) <= 0.06


def test_a_group_that_is_one_cluster_tells_next_to_nothing():
    before, after = loans()
    found = auditing.audit(before.assign(person=before["group"]), after, cluster="person")
    assert found.verdict == "cannot tell"
    for group in found.record["groupings"][0]["groups"]:
        assert group["drop"]["lower"] < -0.5
        assert group["drop"]["upper"] > 0.5


def test_what_was_not_modelled_is_said():
    before, after = loans()
    plain = " ".join(auditing.audit(before, after).record["not_tested"])
    assert "each was taken as independent" in plain
    assert "Whether some rows stand for more people" in plain
    told = auditing.audit(before, after, cluster="person", weight="worth", unit="person")
    assert "independent" not in " ".join(told.record["not_tested"])
    assert told.record["compared"]["clusters"] == {
        "column": "person",
        "different": before["person"].nunique(),
    }
    jsonschema.validate(json.loads(told.to_json()), SCHEMA)
    assert any(line.startswith("People unlike these") for line in told.record["not_tested"])


# -- intervals where the truth is known ---------------------------------------------------------------


@pytest.mark.parametrize("fresh", [0.003, 0.01, 0.03])
def test_the_interval_of_precision_holds_what_it_says(fresh):
    """So many rows are newly and wrongly taken for the class; others change as often either way."""
    kinds = np.array([0, fresh, 0.01, 0.01, 0.02, 0.02, 0.02, 0.3])
    kinds[0] = 1 - kinds.sum()
    before, after = 0.32 / 0.34, 0.32 / (0.33 + fresh)
    counts = np.random.default_rng(0).multinomial(400, kinds, size=20_000)
    lower, upper = statistics.precision_drop_limits(counts)
    assert (lower > 0.32 / 0.34 - after).mean() <= 0.027
    assert (upper < before - after).mean() <= 0.027
    assert np.median(upper - lower) < 0.12


def test_the_contrast_is_held_and_narrower_than_the_gap():
    rng = np.random.default_rng(0)
    sizes, truth = np.array([900, 300, 200, 120]), np.array([0.0, 0.05, 0.02, 0.0])
    held, widths = [], []
    for _ in range(1500):
        lost, gained = rng.binomial(sizes, 0.03 + truth), rng.binomial(sizes, 0.03)
        limits = statistics.drop_limits(lost, gained, sizes)
        estimate, low, high = statistics.contrast_limits((lost - gained) / sizes, *limits, 0)
        held.append(low <= truth[1:].mean() <= high)
        widths.append(high - low)
        assert low <= estimate <= high
    assert 0.935 <= np.mean(held) <= 0.97
    kept = sizes - lost - gained
    rows = np.stack([kept, lost, gained, 0 * lost, 0 * lost], axis=1)
    gap = statistics.fvo_of_one_pair(rows).increase
    assert np.mean(widths) < gap[2] - gap[1]


def test_a_perfectly_calibrated_model_shows_hardly_an_error_however_few_the_rows():
    rng, found, usual = np.random.default_rng(0), [], []
    for _ in range(300):
        sure = rng.uniform(0.5, 1, 333)
        right = rng.random(333) < sure
        found.append(calibration.error(sure, right))
        bins = np.minimum((sure * 15).astype(int), 14)  # the usual estimate: fifteen bins of equal width
        usual.append(sum(abs((sure - right)[bins == own].sum()) for own in range(15)) / 333)
    assert np.mean(usual) == pytest.approx(0.05, abs=0.01)
    assert np.mean([one["estimate"] for one in found]) < 0.03
    assert np.mean([one["lower"] > 0 for one in found]) <= 0.05
    off = [
        calibration.error(sure := rng.uniform(0.6, 1, 333), rng.random(333) < sure - 0.15) for _ in range(300)
    ]
    assert np.mean([one["lower"] <= 0.15 <= one["upper"] for one in off]) >= 0.93
    assert np.mean([one["estimate"] for one in off]) == pytest.approx(0.15, abs=0.01)


def test_calibration_is_told_of_scores_and_not_of_a_threshold():
    before, after = loans(scores=True)
    sharper = after.assign(probability_default=after["probability_default"].round())
    sharper["probability_paid"] = 1 - sharper["probability_default"]
    found = auditing.audit(before, sharper, fail_if=["calibration_rise > 0.05"])
    (grouping,) = found.record["groupings"]
    assert all(group["calibration"]["rise"]["lower"] > 0.01 for group in grouping["groups"])
    assert found.record["gates"][0]["outcome"] == "failed"
    decided = auditing.audit(before, after, positive="default", threshold=0.3).record["groupings"][0]
    assert all(group["calibration"] is None for group in decided["groups"])


# -- the positive class and its threshold -------------------------------------------------------------


def test_a_threshold_decides_and_at_the_same_rate_as_many_are_taken():
    before, after = loans(scores=True)
    found = auditing.audit(before, after, positive="default", threshold=0.3)
    own = found.rates.query("measure == 'selection_rate'").set_index("group")
    for group, mine in before.groupby("group"):
        assert own.loc[group, "before"] == pytest.approx((mine["probability_default"] >= 0.3).mean())
    assert set(found.rates.query("measure != 'recall'")["class"]) == {"default"}
    even = auditing.audit(before, after, positive="default", threshold=0.3, same_rate=True)
    said = even.record["compared"]["positive"]
    taken = [
        (one["probability_default"] >= said[when]).sum()
        for one, when in ((before, "before"), (after, "after"))
    ]
    assert taken[0] == taken[1]
    assert said["after"] < said["before"]


def test_at_the_same_rate_weights_count():
    before, after = loans(scores=True)
    even = auditing.audit(before, after, positive="default", threshold=0.3, same_rate=True, weight="worth")
    said = even.record["compared"]["positive"]
    shares = [
        before["worth"][one["probability_default"] >= said[when]].sum() / before["worth"].sum()
        for one, when in ((before, "before"), (after, "after"))
    ]
    assert shares[0] == pytest.approx(shares[1], abs=2 / len(before))
    rates = even.rates.query("measure == 'selection_rate'")
    assert not np.allclose(rates["before"], rates["after"], atol=1e-3)  # who is taken did change


def test_power_counts_rows_as_what_they_are_worth():
    before, after = loans()
    plain, clustered = (auditing.audit(before, after, cluster=name).power(0.05) for name in (None, "person"))
    assert (clustered["power"] <= plain["power"]).all()
    assert (clustered["images_needed"] >= plain["images_needed"]).all()


def test_odds_leave_out_groups_that_have_too_few_of_the_class():
    before, after = loans()
    before["group"] = before["group"].where(before["id"] % 9 > 0, "C")
    few = before["group"].eq("B") & before["label"].eq("default") & (before["id"] > 60)
    found = auditing.audit(
        before[~few],
        after[~few].drop(columns="group"),
        positive="default",
        fail_if=["equalized_odds_increase > 0.99"],
    )
    odds, (gate,) = found.record["groupings"][0]["odds"], found.record["gates"]
    assert odds["too_few"] == ["B"]
    assert odds["groups"] == 2
    assert gate["outcome"] == "not ruled out"
    assert "too few rows to tell of B" in gate["sentence"]
    # Who fails whatever cannot be ruled out fails this.
    assert not found.passes("equalized_odds_increase > 0.99", decide_on="upper")


def test_a_threshold_takes_probabilities_of_logits():
    first, second = (
        read(
            pd.DataFrame(
                {"id": [1, 2], "label": "a", "group": "g", "logit_a": [0.0, 1.0], "logit_b": [1.0, 0.0]}
            ),
            ["group"],
            called=name,
            with_labels=True,
        )
        for name in ("first", "second")
    )
    before, _, _ = thresholds.decide(first, second, "a", 0.25)
    assert before.table["prediction"].tolist() == ["a", "a"]
    before, _, _ = thresholds.decide(first, second, "a", 0.28)
    assert before.table["prediction"].tolist() == ["b", "a"]


# -- gates on classes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gate", "outcome"),
    [
        ("recall_drop[default] > 0.05", "failed"),
        ("recall_drop[default] > 0.25", "not ruled out"),
        ("recall_drop[default] > 0.6", "passed"),
        ("recall_drop[paid] > 0.05", "passed"),
        ("worst_recall_drop > 5%", "failed"),
        ("fpr_rise[default] > 0.05", "passed"),
        ("precision_drop[default] > 0.9", "passed"),
        ("selection_rate_ratio[default] < 0.9", "failed"),
        ("selection_rate_ratio[default] < 0.2", "passed"),
        ("equalized_odds_increase > 0.01", "failed"),
        ("contrast > -0.05", "not ruled out"),
        ("contrast > 1e-1", "passed"),
        ("verdict = harm", "failed"),
        ("verdict = cannot_tell", "passed"),
        ("verdict != equivalent", "failed"),
    ],
)
def test_gates_name_what_accuracy_hides(gate, outcome):
    found = auditing.audit(*loans(), margin=0.02, fail_if=[gate])
    (judged,) = found.record["gates"]
    assert judged["outcome"] == outcome, judged["sentence"]
    assert judged["passed"] == (outcome != "failed")
    word = {"failed": "Failed. ", "not ruled out": "Not ruled out. ", "passed": "Passed. "}[outcome]
    assert judged["sentence"].startswith(word + gate)
    jsonschema.validate(json.loads(found.to_json()), SCHEMA)


def test_gates_on_classes_fail_in_at_most_one_audit_of_twenty_where_nothing_is_wrong():
    rng, failed = np.random.default_rng(3), {}
    asked = [
        "worst_recall_drop > 0",
        "recall_drop[a] > 0",
        "fpr_rise[a] > 0",
        "precision_drop[a] > 0",
        "contrast > 0",
    ]
    for _ in range(150):
        n = 1200
        label, group = rng.choice(list("abc"), n, p=[0.1, 0.4, 0.5]), rng.choice(["x", "y", "z"], n)
        base = pd.DataFrame({"id": range(n), "label": label, "group": group})
        sides = [np.where(rng.random(n) < 0.85, label, rng.choice(list("abc"), n)) for _ in range(2)]
        tables = [base.assign(prediction=side) for side in sides]
        for gate in auditing.audit(*tables, fail_if=asked).record["gates"]:
            failed.setdefault(gate["expression"], []).append(gate["outcome"] == "failed")
    assert {name: np.mean(own) for name, own in failed.items() if np.mean(own) > 0.06} == {}


@pytest.mark.parametrize(
    "gate", ["recall_drop[default] > 0.5", "precision_drop[default] > 0.5", "equalized_odds_increase > 0.9"]
)
def test_where_no_group_has_rows_enough_a_gate_is_not_ruled_out(gate):
    before, after = loans(200)
    few = before["label"].eq("default") & (before["id"] > 40)
    found = auditing.audit(before[~few], after[~few], positive="default", fail_if=[gate])
    (judged,) = found.record["gates"]
    assert (judged["outcome"], judged["value"]) == ("not ruled out", None)
    assert judged["sentence"] == f"Not ruled out. {gate}; too few rows to tell of A, B."
    assert not found.passes(gate, decide_on="upper")
    jsonschema.validate(json.loads(found.to_json()), SCHEMA)
    assert "Too few rows to tell of A, B." in found._repr_html_()


def test_where_rows_are_missing_a_gate_on_a_class_cannot_pass():
    before, after = loans()
    found = auditing.audit(
        before, after.iloc[20:], drop_unmatched=True, fail_if=["recall_drop[default] > 0.6"]
    )
    (gate,) = found.record["gates"]
    assert gate["outcome"] == "not ruled out"
    assert gate["sentence"].endswith("20 rows are missing, which may count.")


def test_a_gap_that_is_not_ruled_out_in_one_column_does_not_pass_by_another():
    """Of 4,000 rows the gap by sex is known well, and that by age, of whom sixty are old, badly."""
    n = 4000
    before = pd.DataFrame({"id": range(n), "label": "a", "sex": ["f", "m"] * (n // 2)})
    before["age"] = np.where(before.index < 60, "old", "young")
    before["prediction"] = np.where(before.index % 10 == 0, "b", "a")
    after = before.assign(prediction=np.where(before.index.isin([1, 3, 5]), "b", before["prediction"]))
    found = auditing.audit(before, after, groups=["sex", "age"], fail_if=["fvo_increase > 0.03"])
    (gate,) = found.record["gates"]
    assert gate["outcome"] == "not ruled out"
    assert {one["where"] for one in gate["not_ruled_out"]} >= {"age"}
    assert gate["where"] != "sex"


# -- groups -------------------------------------------------------------------------------------------


def test_a_small_group_is_set_apart_named_and_told_of_where_it_lost():
    sizes = {"ash": 600, "elm": 400, "yew": 12}
    group = np.repeat(list(sizes), list(sizes.values()))
    before = pd.DataFrame({"id": range(1012), "label": "moth", "group": group, "prediction": "moth"})
    calm = auditing.audit(before, before.assign(prediction="moth"), margin=0.05)
    assert calm.verdict == "equivalent"
    assert "In every group of 20 rows or more accuracy stayed" in calm.sentence
    assert [own["group"] for own in calm.record["groupings"][0]["groups"]] == ["ash", "elm"]
    assert calm.record["settings"]["family"] == 2
    assert any("with fewer than 20 rows (yew; 12 together)" in one for one in calm.record["not_tested"])
    with pytest.raises(BadInput, match="names a group of 12 rows, too few to stand alone; expected more, or"):
        gates.parse("group_drop[yew] > 0.1").judge(calm.record)
    lost = before.assign(prediction=np.where(group == "yew", "fly", "moth"))
    told = auditing.audit(before, lost, margin=0.05)
    assert "yew has 12 rows, too few for a group of its own here, and 12 of them were lost" in told.sentence


@pytest.mark.parametrize(
    ("crossed", "names"),
    [
        ("none", ["a", "b", "c"]),
        ("pairs", ["a", "b", "c", "a x b", "a x c", "b x c"]),
        ("full", ["a", "b", "c", "a x b x c"]),
        ("every", ["a", "b", "c", "a x b", "a x c", "b x c", "a x b x c"]),
    ],
)
def test_columns_are_crossed_as_asked(crossed, names):
    rng = np.random.default_rng(0)
    before = pd.DataFrame({"id": range(900), "label": "m", "prediction": "m"})
    before[["a", "b", "c"]] = rng.choice(["yes", "no"], size=(900, 3))
    found = auditing.audit(
        before, before.assign(prediction="m"), groups=["a", "b", "c"], crossed=crossed
    ).record
    assert [own["name"] for own in found["groupings"]] == names
    assert found["groupings"][0]["groups"][0]["group"] == "a=no"
    assert gates.parse("group_drop[a=no] > 0.5").judge(found)["passed"]
    with pytest.raises(BadInput, match="names a group of several columns; expected one of: a=no, b=no, c=no"):
        gates.parse("group_drop[no] > 0.5").judge(found)


def test_names_that_look_alike_are_told_apart():
    assert told_apart(["é", "e\u0301", "x"]) == {"é": "'\\xe9'", "e\u0301": "'e\\u0301'", "x": "x"}
    before = pd.DataFrame(
        {"id": range(120), "label": "m", "prediction": "m", "group": [" lead", "lead", "tin"] * 40}
    )
    (grouping,) = auditing.audit(before, before.assign(prediction="m")).record["groupings"]
    assert [own["group"] for own in grouping["groups"]] == ["' lead'", "'lead'", "tin"]
    assert [own["value"] for own in grouping["groups"]] == ["' lead'", "'lead'", "tin"]


def test_others_are_held_against_the_reference():
    before, after = loans()
    largest, other = (auditing.audit(before, after, reference=name).record for name in (None, "B"))
    assert largest["groupings"][0]["contrast"]["reference"] == "A"
    assert other["groupings"][0]["contrast"]["reference"] == "B"
    one, two = (own["groupings"][0]["contrast"] for own in (largest, other))
    assert two["estimate"] == pytest.approx(-one["estimate"])
    assert rates.of_classes(0.95) == pytest.approx(0.998)
