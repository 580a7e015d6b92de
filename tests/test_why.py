"""What single networks do under many treatments, and the questions that are asked of them."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from bs4 import BeautifulSoup
from click.testing import CliRunner
from pandas.testing import assert_frame_equal
from scipy import stats

from fairq_book.chapters.disparity import figures as disparity_figures
from fairq_book.chapters.disparity import story as disparity_story
from fairq_book.chapters.disparity import tables as disparity_tables
from fairq_book.chapters.logits import figures as logits_figures
from fairq_book.chapters.logits import tables as logits_tables
from fairq_book.chapters.zero_bin import figures as zero_bin_figures
from fairq_book.chapters.zero_bin import tables as zero_bin_tables
from fairq_book.cli.main import main
from fairq_book.experiments import settings
from fairq_book.experiments.settings import Setting, find_setting
from fairq_book.experiments.studies import Prediction, Study, landscapes
from fairq_book.kit import by_network, interventions
from fairq_book.kit import figures as kit_figures
from fairq_book.kit.by_network import MeasuredNetworks
from fairq_book.kit.interventions import QUESTIONS, Networks
from fairq_book.kit.treatments import with_columns
from fairq_book.pages import claims, registered
from fairq_utils.curvature.surveys import Survey
from fairq_utils.errors import BadInput
from fairq_utils.metrics.by_network import TREND, WIDTHS
from fairq_utils.training.architectures import build
from fairq_utils.treatments.ablations import layers, parse_name
from fairq_utils.treatments.treatment import Treatment

GROUPS = ("many", "some", "few")
SETTINGS = ("moths_why", "utkface_why")


def prediction(name: str, seed: int, answers: list[int], labels: list[int], groups: list[int]) -> Prediction:
    logits = torch.nn.functional.one_hot(torch.tensor(answers), 3).float() * 2 + torch.tensor([0.2, 0.1, 0.0])
    own = torch.tensor(labels), torch.tensor(groups)
    return Prediction(Study(seed=seed), parse_name(name), logits, *own, ("x", "y", "z"), GROUPS)


def test_a_network_is_counted_group_by_group():
    labels, groups = [0, 1, 2, 0, 1, 2], [0, 0, 1, 1, 2, 2]
    before = prediction("fp32", 7, [0, 1, 2, 1, 1, 0], labels, groups)
    after = prediction("int3-bn-norm", 7, [0, 2, 2, 0, 0, 1], labels, groups)
    found = by_network.by_network([before, after], "many")
    own = found[found["treatment"] == "int3-bn-norm"].set_index("group")
    assert own[["n", "right", "lost", "won", "flips"]].to_numpy().tolist() == [
        [2, 1, 1, 0, 1],
        [2, 2, 0, 1, 1],
        [2, 0, 1, 0, 2],
    ]
    assert own["ablation"].tolist() == ["norm"] * 3
    assert own["batchnorm"].all()
    assert found[found["treatment"] == "fp32"]["flips"].sum() == 0
    loss = torch.nn.functional.cross_entropy(after.logits, after.labels, reduction="none")
    assert own["loss"].tolist() == pytest.approx(loss.reshape(3, 2).mean(1).tolist())
    assert own["logit_variance"].tolist() == pytest.approx(
        after.logits.var(1, correction=0).reshape(3, 2).mean(1).tolist()
    )
    parts = own[[f"flips_by_{part}" for part in ("margins", "spread", "drift", "beyond")]]
    assert parts.loc["many"].abs().max() < 1e-12


def test_groups_of_one_image_or_none_are_counted_and_not_taken_apart():
    before = prediction("fp32", 7, [0, 1, 2], [0, 1, 2], [0, 1, 1])
    after = prediction("int4", 7, [1, 1, 0], [0, 1, 2], [0, 1, 1])
    found = by_network.by_network([before, after], "many").query("treatment == 'int4'").set_index("group")
    assert found["n"].to_dict() == {"many": 1, "some": 2}
    assert found["flips"].to_dict() == {"many": 1, "some": 1}
    assert found["flips_by_margins"].isna().all()


# ---------------------------------------------------------------- questions

# What each number is: treatments, and how often the contrast of each counts. Full precision never counts
# by itself, for its contrast is taken off every time.
IS = {
    "W1": {"int4-mse": 1, "fp32": -1},
    "W2": {"int4-mse": 1, "int4": -1},
    "W3": {"int4-mse-clipped": 1, "fp32": -1},
    "W4": {"int4-mse-unclipped": 1, "fp32": -1},
    "W5": {"int4-offsets": 1, "fp32": -1},
    "W6": {"int4-mse-offsets": 1, "fp32": -1},
    "W7": {"int3-bn": 1, "fp32-bn": -1, "int3": -1, "fp32": 1},
    "W8": {"int3-bn": 1, "fp32-bn": -1},
    "W9": {"int4-mse-bn-temperature-offsets": 1, "fp32-bn-temperature-offsets": -1},
    "W10": {"int3-bn-majority": 1, "int3-bn-balanced": -1},
    "W11": {"int4-bn-scaled4": 1, "int4-bn": -1},
    "W12": {"int4-bn-scaled4": 1, "int4-bn-coarser4": -1},
    "W13": {"int3-zeros-bn": 1, "fp32-bn": -1},
    "W14": {"int3-zeros-bn": 1, "int3-bn-norm": -1},
    "W15": {"int3-bn-largest": 1, "int3-zeros-bn": -1},
    "W16": {"int3-bn-midrise": 1, "int3-bn": -1},
    "W17": {"a4": 1, "fp32": -1},
    "W18": {"w4a4": 1, "int4": -1, "a4": -1, "fp32": 1},
}


def toy(setting: str, *, seeds: int = 6, scatter: float = 0.2, seed: int = 0) -> MeasuredNetworks:
    """Random numbers for every treatment of a setting."""
    random = np.random.default_rng(seed)
    names = [one.name for one in find_setting(setting).treatments()]
    rows = []
    for name in names:
        for number in range(seeds):
            for group, n in zip(GROUPS, (900, 400, 300), strict=True):
                right = int(n * np.clip(0.6 + scatter * random.normal(), 0, 1))
                rest = [n, *random.random(3 + 1 + 4)]
                rows.append((name, number, group, n, right, 0, 0, int(0.1 * n), *rest))
    table = pd.DataFrame(rows, columns=list(by_network.COLUMNS))
    made = {str(number): {"code": {}, "date": "2026-11-29 12:00 UTC"} for number in range(seeds)}
    record = {"title": find_setting(setting).title, "majority": "many", "made": made}
    return MeasuredNetworks(setting, with_columns(table), record)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("key", IS)
def test_each_number_is_the_contrast_that_it_says(setting, key):
    measured = toy(setting)
    (question,) = [one for one in QUESTIONS if one.key == key]
    share = measured.table.assign(share=measured.table["right"] / measured.table["n"])
    wide = share.pivot_table(index="seed", columns=["treatment", "group"], values="share")
    expected = sum(
        often * (wide[name][["some", "few"]].mean(axis=1) - wide[name]["many"])
        for name, often in IS[key].items()
    )
    found = question.number(Networks(measured.table, measured.majority))
    assert found.tolist() == pytest.approx(expected.tolist())


def test_two_numbers_are_of_answers_that_change():
    measured = toy("moths_why")
    own = measured.table[measured.table["treatment"] == "int4"]
    wide = own.assign(flips=own["flips"] / own["n"]).pivot_table(
        index="seed", columns="group", values=["flips", "flips_by_margins"]
    )
    for key, column in (("W19", "flips"), ("W20", "flips_by_margins")):
        (question,) = [one for one in QUESTIONS if one.key == key]
        expected = wide[column][["some", "few"]].mean(axis=1) - wide[column]["many"]
        found = question.number(Networks(measured.table, measured.majority))
        assert found.tolist() == pytest.approx(expected.tolist())
    assert {one.key for one in QUESTIONS} == {*IS, "W19", "W20"}


def shifted(name: str, by: float) -> MeasuredNetworks:
    """Networks that agree but for a treatment, under which minorities have so much more."""
    measured = toy("moths_why", scatter=0.002, seeds=12)
    table = measured.table.copy()
    rows = (table["treatment"] == name) & (table["group"] != "many")
    table.loc[rows, "right"] += (by * table.loc[rows, "n"]).astype(int)
    return replace(measured, table=table)


@pytest.mark.parametrize("key", [key for key in IS if key != "W9"])
@pytest.mark.parametrize("by", [-0.2, 0.2])
def test_an_effect_is_found_whichever_way_it_goes(key, by):
    (question,) = [one for one in QUESTIONS if one.key == key]
    name, often = next(iter(IS[key].items()))
    measured = shifted(name, by)
    goes = "falls" if by * often < 0 else "rises"
    assert question.answer(question.reading(measured)) == ("yes" if goes == question.yes else "the reverse")
    still = shifted("nothing", by)
    assert question.answer(question.reading(still)) in ("no", "yes", "the reverse")
    loud = toy("moths_why", seeds=5)
    said = question.answer(question.reading(loud))
    assert said in ("yes", "the reverse") or said.startswith("no difference larger than ")


def test_nothing_is_said_of_networks_that_agree_in_most_of_the_questions():
    """Networks under which nothing happens are told so: at most one question in five is answered wrongly."""
    still = shifted("nothing", 0)
    words = [one.answer(one.reading(still)) for one in QUESTIONS if one.key in IS]
    assert words.count("no") >= len(words) - 2


def test_what_is_asked_is_answered_in_words_for_its_chapter():
    both = [toy(name) for name in SETTINGS]
    said = [
        interventions.answered(both, chapter).text
        for chapter in ("01_disparity_baseline", "02_logit_variance_collapse", "03_zero_bin_sparsity")
    ]
    for question in QUESTIONS:
        assert sum(f"({question.key}: " in text for text in said) == 1
    assert all("Moths: *" in line and "UTKFace: *" in line for text in said for line in text.splitlines())


def test_what_was_not_measured_is_named():
    measured = toy("moths_why")
    networks = Networks(measured.table, "many")
    with pytest.raises(BadInput, match="int7 was not measured"):
        networks.contrast("int7")
    with pytest.raises(BadInput, match="majority is 'most'; expected one of: many, some, few"):
        Networks(measured.table, "most")


# ---------------------------------------------------------------- what is registered


def test_the_tables_of_the_page_are_those_of_the_questions_and_of_the_pilots():
    pilots = pd.read_csv(registered.folder() / "why_pilots.csv")
    assert (pilots["seed"] >= 900).all()
    shown = pd.read_csv(registered.folder() / "why_scatter.csv")
    assert_frame_equal(shown, registered.why_scatter(pilots), check_exact=True)
    asked = pd.read_csv(registered.folder() / "why.csv").rename(columns={"Unnamed: 0": ""})
    assert_frame_equal(asked, registered.listed(QUESTIONS))


def test_the_seeds_are_those_that_were_registered_in_their_order_and_no_others_were_measured():
    known = settings.settings()
    assert known["moths_why"].seeds == list(range(20, 40))
    assert known["utkface_why"].seeds == list(range(200, 212))
    for name, count in registered.WHY.items():
        measured = by_network.load(name)
        assert sorted(set(measured.table["seed"])) == known[name].seeds[: measured.networks]
        assert 5 <= measured.networks <= count == len(known[name].seeds)
        of_each = measured.table.groupby("seed")["treatment"].nunique()
        assert (of_each == len(known[name].treatments())).all()


def test_answers_that_change_are_counted_and_groups_that_part_ways_are_told_within_a_network():
    measured = toy("moths_why", seeds=4, scatter=0)
    table = measured.table.copy()
    rows = table["treatment"] == "int4"
    table.loc[rows, ["lost", "won", "flips"]] = [20, 20, 45]
    first = rows & (table["seed"] == 0)
    table.loc[first & (table["group"] == "many"), ["lost", "won"]] = [5, 60]
    table.loc[first & (table["group"] == "few"), ["lost", "won"]] = [60, 5]
    table.loc[rows & (table["seed"] == 1) & (table["group"] == "few"), ["lost", "won"]] = [60, 5]
    found = disparity_tables.answers_that_change(replace(measured, table=table))
    own = found[found["treatment"] == "int4"].set_index("seed")
    assert own["apart"].tolist() == [True, False, False, False]  # in the second nobody won
    assert own["flips"].tolist() == pytest.approx([3 * 45 / 1600] * 4)
    assert own["accuracy"].abs().max() == 0
    said = disparity_story.answers_change({"Toy": found}).text
    assert "at int4 8.4 (8.4 to 8.4) % of all answers change, while OA changes by +0.0" in said
    times = 3 * 45 / (90 + 40 + 30)
    assert f"That is {times:.1f} ({times:.1f} to {times:.1f}) times as many as at int8" in said
    assert "In 1 of 4 networks some group surely won and another surely lost." in said


# ---------------------------------------------------------------- measured, and gone on with


@pytest.fixture
def small() -> Setting:
    return Setting(
        name="small",
        title="Small, to be tried",
        train_images=60,
        test_images=60,
        arch="resnet18-8",
        epochs=1,
        seeds=[3, 4],
        bit_widths=[4],
        also=["int4-bn"],
    )


def made(predictions: list[Prediction]) -> by_network.Made:
    return by_network.Made(predictions, {"many": 4, "some": 3, "few": 2}, {"fp32": 9}, {"fp32": 100})


def measured_by(setting: Setting, folder, calls: list[int]) -> list[str]:
    labels, groups = [0, 1, 2] * 4, [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]

    def predict(seed: int):
        calls.append(seed)
        answers = list(np.random.default_rng(seed).integers(0, 3, 12))
        names = [one.name for one in setting.treatments()]
        return made([prediction(name, seed, answers, labels, groups) for name in names])

    said: list[str] = []
    by_network.measure(setting, setting.seeds, predict, root=folder, told=said.append)
    return said


def test_what_was_measured_is_not_measured_again_unless_its_code_changed(small, tmp_path, monkeypatch):
    calls: list[int] = []
    assert measured_by(small, tmp_path, calls) == [
        "small, seed 3: 3 treatments",
        "small, seed 4: 3 treatments",
    ]
    first = (tmp_path / "book" / "measured" / "small.csv").read_bytes()
    assert all("measured already" in line for line in measured_by(small, tmp_path, calls))
    assert calls == [3, 4]
    assert (tmp_path / "book" / "measured" / "small.csv").read_bytes() == first
    found = by_network.load("small", tmp_path)
    assert (found.title, found.majority, found.networks) == ("Small, to be tried", "many", 2)
    assert "earlier code" not in found.made
    monkeypatch.setitem(by_network.CODE, "predict", "0" * 64)
    assert "by earlier code" in by_network.load("small", tmp_path).made
    measured_by(small, tmp_path, calls)
    assert calls == [3, 4, 3, 4]
    more = replace(small, bit_widths=[4, 3])
    measured_by(more, tmp_path, calls)
    assert calls == [3, 4] * 3


def test_what_was_stopped_has_whole_networks(small, tmp_path):
    labels, groups = [0, 1, 2] * 4, [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]

    def predict(seed: int):
        if seed == 4:
            raise KeyboardInterrupt
        names = [one.name for one in small.treatments()]
        return made([prediction(name, seed, [0] * 12, labels, groups) for name in names])

    with pytest.raises(KeyboardInterrupt):
        by_network.measure(small, small.seeds, predict, root=tmp_path, told=lambda said: None)
    assert by_network.load("small", tmp_path).table["seed"].unique().tolist() == [3]


def test_the_command_measures_networks_that_it_makes(small, tmp_path, monkeypatch):
    (tmp_path / "book").mkdir()
    monkeypatch.setenv("FAIRQ_STORE", str(tmp_path / "store"))
    monkeypatch.setattr(settings, "find_setting", lambda name, root=None: small)
    monkeypatch.setattr(by_network, "book_root", lambda: tmp_path)
    done = CliRunner().invoke(main, ["results", "measure", "small", "--seeds", "3"])
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[-1] == "small, seed 3: 3 treatments"
    record = json.loads((tmp_path / "book" / "measured" / "small.json").read_text())
    assert set(record["made"]["3"]["code"]) == {"read", "train", "predict", "ablate"}
    assert record["images_seen"] == {"fp32": 54}
    assert list(record["bytes"]) == ["fp32", "int4"]
    assert record["bytes"]["int4"] < record["bytes"]["fp32"] / 4
    assert sum(record["sizes"].values()) == 54
    table = by_network.load("small", tmp_path).table
    assert table.groupby("treatment")["n"].sum().tolist() == [60] * 3


def test_with_images_for_each_group_it_is_gradients_that_are_measured(small, tmp_path, monkeypatch):
    (tmp_path / "book").mkdir()
    steep = replace(small, seeds=[3], also=["a4"], images_per_group=3)
    monkeypatch.setenv("FAIRQ_STORE", str(tmp_path / "store"))
    monkeypatch.setattr(settings, "find_setting", lambda name, root=None: steep)
    monkeypatch.setattr(by_network, "book_root", lambda: tmp_path)
    done = CliRunner().invoke(main, ["results", "measure", "small"])
    assert done.exit_code == 0, done.output
    found = by_network.load("small", tmp_path)
    assert set(found.record["made"]["3"]["code"]) == {"read", "train", "survey"}
    assert found.table.groupby(["treatment", "split"])["n"].sum().tolist() == [15] * 6
    (around,) = landscapes(
        settings.studies_of("small"),
        [Treatment.parse("a4")],
        Survey(images_per_group=3, split="test"),
    )
    own = found.table.query("treatment == 'a4' and split == 'test'")
    wanted = around.around.tensors["squared_gradient_norm"]
    assert own["squared_gradient_norm"].tolist() == pytest.approx(wanted.tolist(), rel=1e-3)
    assert CliRunner().invoke(main, ["results", "measure", "small"]).output.strip().endswith("already")


# ---------------------------------------------------------------- what is drawn


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_figure_shows_and_says_its_numbers(setting):
    measured = toy(setting)
    networks = Networks(measured.table, measured.majority)
    ranges = disparity_tables.ranges(measured)
    assert set(ranges["row"]) == set(disparity_tables.RANGES)
    assert ranges.groupby(["width", "row"]).size().eq(3).all()
    own = ranges.query("width == 'int4' and row == 'least error' and group == 'new statistics'")
    assert own["estimate"].item() == pytest.approx(networks.contrast("int4-mse-bn", "fp32-bn").mean())
    picture = kit_figures.dots_of_contrasts(ranges, "by range")
    assert f"least error {100 * own['estimate'].item():+.1f}" in picture.alt
    kit_figures.dots_of_contrasts(disparity_tables.clipped_or_rounded(measured), "apart")
    flips = disparity_tables.flips_apart(measured)
    assert set(flips["row"]) == {"some", "few"}
    parts = flips[flips["group"] != "in all"].groupby(["width", "row"])["estimate"].sum()
    assert parts.tolist() == pytest.approx(
        flips[flips["group"] == "in all"].set_index(["width", "row"])["estimate"].loc[parts.index].tolist()
    )
    disparity_figures.why_flips(flips, "many")
    split = logits_tables.parts_of_groups(measured)
    whole = split.groupby("group")["estimate"].sum()
    assert whole[list(GROUPS)].tolist() == pytest.approx(networks.change("int4-mse").mean().tolist())
    picture = logits_figures.waterfall(split, "Toy")
    assert f"few {100 * whole['few']:+.1f}: old batch norm statistics" in picture.alt
    whose = logits_tables.whose_statistics(measured)
    assert set(whose["width"]) == {"fp32", "int4", "int3"}
    inputs = logits_tables.rounded_inputs(measured)
    assert inputs.query("width == 'weights of 4 bits' and row == '4 bits'")["estimate"].iloc[0] == (
        pytest.approx(networks.contrast("w4a4").mean())
    )
    kit_figures.dots_of_contrasts(inputs, "by both")
    grids = zero_bin_tables.two_grids(measured.table, "many")
    scaled = grids.query("bits == 4 and factor == 4 and way == 'a loud channel' and renewed")
    assert scaled["estimate"].item() == pytest.approx(networks.overall("int4-bn-scaled4").mean())
    assert scaled["step"].item() == pytest.approx(4 / 7)
    assert "int4, a loud channel, new statistics: 1 times" in zero_bin_figures.two_grids(grids, "Toy").alt
    right = zero_bin_tables.zero_bin_put_right(measured)
    assert right.groupby(["width", "row"]).size().eq(3).all()
    assert "so nothing is shown" in zero_bin_figures.two_grids(grids[:0], "Toy").text


def test_the_page_of_claims_has_every_answer_with_its_number():
    both = {name: toy(name) for name in SETTINGS}
    shown = BeautifulSoup(claims.why(list(both.values()))._repr_html_(), "html.parser")
    rows = shown.select("tbody tr")
    questions = (*interventions.OF_WIDTHS, *QUESTIONS)
    assert [row.find("strong").text for row in rows] == [question.key for question in questions]
    assert [cell.text for cell in shown.select("thead th")][1].startswith("Moths, 6 networks")
    for question, row in zip(questions, rows, strict=True):
        for cell, measured in zip(row.find_all("td"), both.values(), strict=True):
            reading = question.reading(measured)
            assert cell.find("strong").text == question.answer(reading)
            assert f"{100 * reading.estimate:+.1f}".replace("-", "−") in cell.text


def test_what_new_statistics_leave_is_said_to_explain_only_where_they_do():
    before = {"fp32": 0.7, "fp32-bn": 0.7, "int4-mse-clipped": 0.6, "int4-mse-clipped-bn": 0.7}
    for left, explains in ((0.7, True), (0.6, False)):
        settings = []
        for name in SETTINGS:
            own = toy(name, scatter=0.0)
            share = own.table["treatment"].map(before | {"int4-mse-clipped-bn": left}).fillna(0.7)
            minority = own.table["group"] != "many"
            own.table["right"] = own.table["n"] * share.where(minority, 0.7)
            own.table["right"] += own.table["seed"] % 3  # or all networks would be one
            settings.append(own)
        said = str(interventions.left_by_new_statistics(settings))
        assert ("do not miss the large weights" in said) == explains
        assert said.count("cut off alone −10.0") == 2


def test_plain_widths_are_asked_as_the_moths_are():
    measured = toy("moths_why")
    networks = Networks(measured.table, "many")
    of = {question.key: question.number(networks) for question in interventions.OF_WIDTHS}
    assert of["M1"].tolist() == pytest.approx((of["M3, int4"] - of["M3, int8"]).tolist())
    trend = sum(weight * of[f"M3, int{bits}"] for weight, bits in zip(TREND, WIDTHS, strict=True))
    assert of["M2"].tolist() == pytest.approx(trend.tolist())
    for bits in WIDTHS:
        assert of[f"M3, int{bits}"].tolist() == networks.contrast(f"int{bits}").tolist()


def test_the_numbers_that_pilots_scatter_by_are_those_of_the_questions():
    measured = toy("moths_why", seeds=3)
    found = interventions.numbers(measured).set_index(["question", "seed"])["points"]
    for question in QUESTIONS:
        expected = 100 * question.number(Networks(measured.table, "many"))
        assert found[question.key].tolist() == pytest.approx(expected.tolist(), abs=0.005)


# ---------------------------------------------------------------- layer by layer, and other networks


def clipped(by: dict[str, float], *, title: str = "Toy, cut") -> MeasuredNetworks:
    """Eight networks of three layers, whose minorities lose so much where a layer is cut off."""
    random, rows = np.random.default_rng(0), []
    for name in ("fp32", "int4-mse-clipped", *(f"int4-mse-clipped@{layer}.weight" for layer in "abc")):
        for seed in range(8):
            for group in GROUPS:
                lost = (
                    by.get(name.partition("@")[2].removesuffix(".weight"), by["all"])
                    if "@" in name
                    else by["all"]
                )
                lost = 0.0 if name == "fp32" or group == "many" else lost
                rows.append((name, seed, group, 10_000, round(7000 - 10_000 * lost + 20 * random.normal())))
    table = pd.DataFrame(rows, columns=["treatment", "seed", "group", "n", "right"])
    made = {"0": {"code": {}, "date": "2026-11-30 12:00 UTC"}}
    return MeasuredNetworks("toy", with_columns(table), {"title": title, "majority": "many", "made": made})


def test_the_layers_in_which_cutting_off_costs_minorities_are_named():
    both = [clipped({"a": 0.05, "b": 0.0, "c": -0.04, "all": 0.02}), clipped({"all": 0.0}, title="Other")]
    found = disparity_tables.clipped_by_layer(both)
    own = found[found["setting"] == "Toy"].set_index("layer")
    assert list(own.index) == ["a", "b", "c", disparity_tables.ALL_LAYERS]
    assert own["estimate"].tolist() == pytest.approx([-0.05, 0.0, 0.04, -0.02], abs=0.002)
    values = Networks(both[0].table, "many").contrast("int4-mse-clipped@a.weight")
    low, high = stats.t.interval(1 - 0.05 / 3, 7, values.mean(), stats.sem(values))
    assert own.loc["a", ["lower", "upper"]].tolist() == pytest.approx([low, high])
    toy_line, other_line = disparity_story.where_clipping_acts(found).text.splitlines()
    named = f"`a` {100 * own.loc['a', 'estimate']:.2f}".replace("-", "−")
    assert f"of 3 layers, cut off alone, 1 surely cost the smaller groups more: {named}" in toy_line
    assert "Surely less: `c`." in toy_line
    assert "more: none. Surely less: none." in other_line
    picture = disparity_figures.clipped_by_layer(found)
    assert f"Toy, a: {100 * own.loc['a', 'estimate']:+.1f}" in picture.alt


@pytest.mark.parametrize(("name", "seeds"), [("moths", range(20, 40)), ("utkface", range(200, 212))])
def test_what_was_cut_off_layer_by_layer_is_what_was_registered_in_its_order(name, seeds):
    setting, measured = find_setting(f"{name}_clipping"), by_network.load(f"{name}_clipping")
    assert setting.seeds == list(seeds)
    assert sorted(set(measured.table["seed"])) == setting.seeds[: measured.networks]
    assert measured.networks >= 5
    of_each = measured.table.groupby("seed")["treatment"].nunique()
    assert (of_each == len(setting.treatments())).all()


def test_every_layer_of_the_network_is_cut_off_once():
    names = [one.name for one in find_setting("moths_clipping").treatments() if "@" in one.name]
    assert [name.partition("@")[2] for name in names] == layers(build("resnet18-16", classes=5))
