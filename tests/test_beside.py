"""Remedies beside one another: what is compared, who chooses, and what is then said."""

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup

from fairq_book.chapters.repair import beside
from fairq_book.experiments.settings import find_setting
from fairq_book.kit import by_network, remedies, remedy_questions
from fairq_book.kit.by_network import MeasuredNetworks
from fairq_book.kit.interventions import Networks
from fairq_book.kit.remedies import TRAINED, UNTRAINED, arm
from fairq_book.kit.treatments import with_columns
from fairq_book.pages import claims, registered
from fairq_utils.errors import BadInput
from fairq_utils.treatments.ablations import parse_name

GROUPS = ("many", "some", "few")
SIZES = (900, 400, 300)
SETTINGS = ("moths_repair", "utkface_repair")


def toy(
    accuracies: dict[str, tuple[float, ...]], *, seeds: int = 9, scatter: float = 0.0, seed: int = 0
) -> MeasuredNetworks:
    """Networks that are right so often on each group under each treatment, give or take the scatter."""
    random = np.random.default_rng(seed)
    rows = [
        {"treatment": name, "seed": number, "group": group, "n": n, "named": n}
        | {"squared_calibration_error": 0.08 * (number % 2) - 0.04 * (group == "many")}
        | {"right": round(n * float(np.clip(share + scatter * random.normal(), 0, 1)))}
        for name, shares in accuracies.items()
        for number in range(seeds)
        for group, n, share in zip(GROUPS, SIZES, shares, strict=True)
    ]
    table = pd.DataFrame(rows).reindex(columns=list(by_network.COLUMNS))
    trained = {name: 50 for name in accuracies if getattr(parse_name(name), "trains", False)}
    made = {str(number): {"code": {}, "date": "2026-11-30 12:00 UTC"} for number in range(seeds)}
    record = {"title": "Toys, repaired", "majority": "many", "made": made}
    return MeasuredNetworks("toy", with_columns(table), record | {"images_seen": {"fp32": 100} | trained})


def all_alike(setting: str, *, scatter: float, seed: int = 0) -> MeasuredNetworks:
    names = [one.name for one in find_setting(setting).treatments()]
    found = toy(dict.fromkeys(names, (0.8, 0.7, 0.6)), scatter=scatter, seed=seed)
    return MeasuredNetworks(setting, found.table, found.record | {"title": find_setting(setting).title})


def networks(measured: MeasuredNetworks) -> Networks:
    return Networks(measured.table, measured.majority)


# ---------------------------------------------------------------- numbers


def test_gap_and_worst_group_are_those_of_each_network():
    own = networks(toy({"fp32": (0.9, 0.5, 0.6)}))
    assert remedies.gap(own, "fp32").tolist() == pytest.approx([0.4] * 9)
    assert remedies.worst(own, "fp32").tolist() == pytest.approx([0.5] * 9)


def test_a_remedy_is_compared_with_what_it_is_held_against_and_none_is_invented():
    own = networks(toy({"fp32": (0.9, 0.9, 0.9), "int4": (0.8, 0.6, 0.5), "int4-bn": (0.8, 0.7, 0.7)}))
    named = {"rounded": "int4", "new statistics": "int4-bn", "offsets": "int4-offsets"}
    found = remedies.compared(own, named, "int4").set_index(["row", "group"])["estimate"]
    assert set(found.index.get_level_values("row")) == {"new statistics"}
    assert found["new statistics", "FVO"] == pytest.approx(0.1 - 0.3)
    assert found["new statistics", "OA"] == pytest.approx((0.1 * 400 + 0.2 * 300) / 1600)


def test_people_are_counted_with_precision_and_f1():
    names = ("fp32", "int4-ends8", "int4-fairqat")
    measured = toy(dict(zip(names, [(0.9, 0.9, 0.9), (0.9, 0.9, 0.9), (0.8, 0.6, 0.5)], strict=True)))
    measured.table.loc[measured.table["group"] == "few", "named"] = 600
    found = remedies.people(networks(measured), {"FairQAT": "int4-fairqat"}).set_index("group")
    assert found["won"].tolist() == pytest.approx([-0.1, -0.3, -0.4])
    assert found.loc["few", "precision"] == pytest.approx(0.5 * 300 / 600)
    assert found.loc["few", "F1"] == pytest.approx(2 * 150 / (600 + 300))
    # Of nine networks four are off by the root of 0.08, and noise may put the mean of squares below 0.
    assert found["calibration"].tolist() == pytest.approx([0.0, (0.08 * 4 / 9) ** 0.5, (0.08 * 4 / 9) ** 0.5])
    assert found.loc["some", "precision"] == found.loc["some", "recall"] == pytest.approx(0.6)


def test_who_gains_stands_in_a_line_for_each_remedy():
    names = ("fp32", "int4-ends8", "int4-fairqat")
    measured = toy(dict(zip(names, [(0.9, 0.9, 0.9), (0.8, 0.6, 0.5), (0.7, 0.6, 0.8)], strict=True)))
    measured.record["sizes"] = dict(zip(GROUPS, SIZES, strict=True))
    found = beside.who_gains(measured)
    assert found.loc["FairQAT"].tolist() == ["−100", "+0", "+300", "80 %", "80 %", "80 %", "19"]
    assert found.loc["rounding alone"].tolist()[:3] == ["+0", "+0", "+0"]
    assert list(found) == [*GROUPS, "recall", "precision", "F1", "off by"]


def test_what_is_measured_holds_every_remedy_that_is_shown_or_asked():
    for setting in SETTINGS:
        there = {one.name for one in find_setting(setting).treatments()}
        assert {
            arm(bits, words) for bits in (8, 4) for words in UNTRAINED.values() if "bits" not in words
        } <= there
    there = {one.name for one in find_setting("moths_repair").treatments()}
    assert {arm(4, words) for words in TRAINED.values()} <= there


# ---------------------------------------------------------------- questions


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_question_can_be_asked_of_every_setting_and_nothing_is_said_of_networks_that_agree(setting):
    asked = (*remedy_questions.OF_WIDTHS, *remedy_questions.QUESTIONS)
    words = []
    for seed in range(5):
        still = all_alike(setting, scatter=0.004, seed=seed)
        words += [one.answer(one.reading(still)) for one in asked]
    assert np.mean([word in ("yes", "the reverse") for word in words]) <= 0.1
    assert words.count("no") > len(words) / 2


def test_a_remedy_that_narrows_the_gap_is_found_and_one_that_widens_it_is_the_reverse():
    asked = {one.key: one for one in remedy_questions.QUESTIONS}
    for few, answer in ((0.75, "yes"), (0.45, "the reverse")):
        names = [one.name for one in find_setting("moths_repair").treatments()]
        of = dict.fromkeys(names, (0.8, 0.7, 0.6)) | {"int4-ends8-qat-weighted": (0.8, 0.7, few)}
        measured = toy(of, scatter=0.01)
        assert asked["R3"].answer(asked["R3"].reading(measured)) == answer
        assert asked["R4"].answer(asked["R4"].reading(measured)) not in ("yes", "the reverse")


def test_the_page_of_claims_has_every_answer_with_its_number():
    both = [all_alike(name, scatter=0.02) for name in SETTINGS]
    rows = BeautifulSoup(claims.repairs(both)._repr_html_(), "html.parser").select("tbody tr")
    asked = (*remedy_questions.OF_WIDTHS, *remedy_questions.QUESTIONS)
    assert [row.find("strong").text for row in rows] == [question.key for question in asked]
    for question, row in zip(asked, rows, strict=True):
        for cell, one in zip(row.find_all("td"), both, strict=True):
            assert cell.find("strong").text == question.answer(question.reading(one))


def test_registered_questions_are_those_that_are_asked():
    table = pd.read_csv(registered.folder() / "repair.csv").rename(columns={"Unnamed: 0": ""})
    asked = registered.listed([*remedy_questions.OF_WIDTHS, *remedy_questions.QUESTIONS])
    pd.testing.assert_frame_equal(table, asked)
    keys = [*table[""]]
    assert len(set(keys)) == len(keys)


# ---------------------------------------------------------------- which one to take


def options(**accuracies: tuple[float, ...]) -> MeasuredNetworks:
    return toy({"fp32": (0.9, 0.9, 0.9), "int4": (0.85, 0.7, 0.5)} | accuracies)


def test_the_smallest_gap_is_taken_among_those_near_the_best_accuracy_and_another_table_names_another():
    named = {"rounded": "int4", "offsets": "int4-labels", "even offsets": "int4-evenlabels"}
    dear = options(**{"int4-labels": (0.85, 0.7, 0.6), "int4-evenlabels": (0.65, 0.65, 0.65)})
    assert remedies.choose(networks(dear), named).remedy == "offsets"
    cheap = options(**{"int4-labels": (0.85, 0.7, 0.6), "int4-evenlabels": (0.8, 0.75, 0.7)})
    chosen = remedies.choose(networks(cheap), named)
    assert (chosen.remedy, chosen.treatment) == ("even offsets", "int4-evenlabels")
    assert (chosen.chosen_by, chosen.networks) == (3, 6)
    assert chosen.gap["estimate"] == pytest.approx(0.1 - 0.35)
    assert chosen.worst["estimate"] == pytest.approx(0.2)


def test_those_that_choose_do_not_report():
    measured = options(**{"int4-labels": (0.85, 0.7, 0.6)})
    of_choosers = (measured.table["treatment"] == "int4-labels") & (measured.table["seed"] < 3)
    measured.table.loc[of_choosers & (measured.table["group"] == "few"), "right"] = 240  # 80 % instead of 60
    chosen = remedies.choose(networks(measured), {"a": "int4", "b": "int4-labels"})
    assert chosen.remedy == "b"
    assert chosen.gap["estimate"] == pytest.approx(0.25 - 0.35)
    with pytest.raises(BadInput, match="none of int3 was measured; expected one to choose"):
        remedies.choose(networks(measured), {"a": "int3"})


def test_what_to_do_follows_from_the_table_for_each_that_somebody_can_do():
    names = [one.name for one in find_setting("moths_repair").treatments()]
    of = dict.fromkeys(names, (0.8, 0.7, 0.5))
    better = {
        "int4-channel": 0.6,
        "int4-evenlabels": 0.6,
        "int4-ends8-qat-adjusted": 0.6,
        "int4-ends8-qat-dro": 0.6,
    }
    chosen = remedies.what_to_do(
        networks(toy(of | {name: (0.8, 0.7, few) for name, few in better.items()})), 4
    )
    assert [choice.treatment for choice in chosen.values()] == list(better)
    said = str(beside.choices([toy(of | {"int4-mse-channel": (0.8, 0.7, 0.6)})], widths=[4]))
    assert "int4, Toys: *the range with the least error, for each channel*. FVO −10.0" in said
    assert "over 6 networks that did not choose" in said


def test_what_the_others_report_of_a_lucky_choice_is_no_luck():
    # Remedies that all do nothing: what was chosen for its small gap has none on the networks that report.
    named = {f"{bits}": f"int4-{word}" for bits, word in enumerate(("bn", "labels", "evenlabels", "channel"))}
    covers = []
    for seed in range(60):
        of = dict.fromkeys(["fp32", "int4", *named.values()], (0.8, 0.7, 0.6))
        chosen = remedies.choose(networks(toy(of, seeds=12, scatter=0.02, seed=seed)), named)
        covers.append(chosen.gap["lower"] <= 0 <= chosen.gap["upper"])
    assert np.mean(covers) >= 0.88


# ---------------------------------------------------------------- what is shown


def all_there(name: str) -> MeasuredNetworks:
    found = toy({"fp32": (1.0, 1.0, 1.0)}, seeds=len(find_setting(name).seeds))
    return MeasuredNetworks(name, found.table, found.record)


def test_how_many_answer_is_said_and_that_fewer_are_provisional(monkeypatch):
    monkeypatch.setattr(beside, "measured", lambda names: [all_alike("moths_repair", scatter=0.0)])
    said = str(beside.who_answers(SETTINGS))
    assert "on Moths 9 of 12, on UTKFace 0 of 8" in said
    assert "provisional" in said
    monkeypatch.setattr(beside, "measured", lambda names: [all_there(name) for name in names])
    assert str(beside.who_answers(SETTINGS)).endswith("on Moths all 12, on UTKFace all 8.")


@pytest.mark.parametrize("trained", [False, True])
def test_each_data_set_has_its_panel_of_remedies(trained):
    picture = beside.remedies([all_alike(name, scatter=0.02) for name in SETTINGS], 4, trained=trained)
    assert "What remedies change at int4" in picture.alt
    assert ("FairQAT" if trained else "new batch norm statistics") in picture.alt


def test_the_frontier_names_what_was_chosen():
    names = [one.name for one in find_setting("moths_repair").treatments()]
    of = dict.fromkeys(names, (0.8, 0.7, 0.5)) | {"int4-ends8-qat-dro": (0.8, 0.7, 0.6)}
    picture = beside.frontier([toy(of), toy(of)], 4)
    assert "Toys, QAT, group-DRO: OA 73.8, FVO 20.0" in picture.alt
    assert ">QAT, group-DRO<" in picture.body
    assert ">QAT, undersampled<" not in picture.body


def test_longer_training_is_told_from_training_while_rounded():
    of = {"fp32": (0.9, 0.8, 0.4)}
    for passes, few in ((1, 0.40), (4, 0.50), (16, 0.70)):
        of[f"fp32-tuned-passes{passes}"] = (0.9, 0.8, few)
        of[f"int4-ends8-qat-passes{passes}"] = (0.9, 0.8, few - 0.01)
        if passes > 1:
            of[f"int2-ends8-qat-passes{passes}"] = (0.9, 0.8, 0.1 if passes < 16 else few)
    measured = toy(of)
    said = str(beside.how_long(measured))
    assert "on average over 9 networks, comes int4 after 1, int2 after 16 passes" in said
    assert "from 1 to 16 passes its FVO changes by −30.0 (−30.0 to −30.0) points" in said
    picture = beside.learning_curves(beside.longer(measured))
    assert "FVO, fp32: 1 50.0, 4 40.0, 16 20.0" in picture.alt


def kinds(**gains: dict[str, float]) -> dict[str, MeasuredNetworks]:
    found = {}
    for number, name in enumerate(beside.CAUSES):
        of = {"fp32": (0.8, 0.8, 0.8)} | {
            arm(4, words): (0.8, 0.8, 0.6 + gains.get(name, {}).get(words, 0.0))
            for words in ("ends8-qat", "ends8-qat-sampled", "ends8-qat-weighted", "fairqat", "ends8-qat-dro")
        }
        own = toy(of, scatter=0.01, seed=number)
        own.table["group"] = own.table["group"].map({"many": "Peer 1", "some": "Peer 2", "few": "Focal"})
        found[name] = MeasuredNetworks(name, own.table, own.record | {"majority": "Peer 1"})
    return found


def test_a_cure_of_size_is_no_cure_of_difficulty_where_it_is_not_and_is_where_it_is():
    small, hard = "moths_by_size_repair", "moths_by_difficulty_repair"
    only_size = {small: {"ends8-qat-sampled": 0.15, "ends8-qat-weighted": 0.15}}
    words = {key: own.word for key, own in beside.cures_read(beside.cures(kinds(**only_size))).items()}
    assert words["C1"] == words["C2"] == "rises"
    assert words["C3"] != "rises"
    both = only_size | {hard: {"ends8-qat-weighted": 0.15}}
    table = beside.cures(kinds(**both))
    words = {key: own.word for key, own in beside.cures_read(table).items()}
    assert set(words.values()) == {"rises"}
    assert str(beside.cures_answered(table)).count("*yes*") == 4
    assert "one group hard" in beside.cure_by_cause(table).alt


def test_costs_are_shares_of_what_training_the_original_showed():
    measured = toy({"fp32": (0.9, 0.8, 0.7), "int4-ends8-qat": (0.9, 0.8, 0.7)})
    measured.record["images_seen"] |= {"int4-fairqat": 50, "int4-ends8-qat-oversampled": 120}
    assert str(beside.costs([measured])) == "- **Toys**: 50 %; but 120 %: QAT, oversampled."


def test_the_published_remedy_is_judged_at_each_width():
    lines = str(beside.published([all_alike(name, scatter=0.02) for name in SETTINGS])).splitlines()
    assert len(lines) == 4
    for line in lines:
        assert [line.count(f"int{bits} *") for bits in (8, 4, 3, 2)] == [2] * 4
        assert "Moths: int8" in line
        assert "UTKFace: int8" in line
