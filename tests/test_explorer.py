"""The explorer: what it counts, what it embeds, what it asks, and what a browser makes of it."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from bs4 import BeautifulSoup
from scipy import special
from torch import nn

from fairq_audit.page_scripts import SCRIPTS, joined, page_script
from fairq_book.chapters.encoders import tables
from fairq_book.chapters.logits import tables as logits_tables
from fairq_book.experiments import populations, studies
from fairq_book.experiments.store import Store
from fairq_book.experiments.studies import Prediction, Study
from fairq_book.explorer import fallback
from fairq_book.explorer.counts import counted, packed, unpacked
from fairq_book.explorer.given import own_images
from fairq_book.explorer.quantities import BINS, QUANTITIES
from fairq_book.explorer.treated import ordered, rounded
from fairq_book.explorer.weights import grids_of
from fairq_book.explorer.widget import Explorer
from fairq_book.kit import tables as kit_tables
from fairq_utils.data.moths import MothSettings
from fairq_utils.encoders.contrastive import ContrastiveRecipe
from fairq_utils.encoders.questions import EncoderOutputs
from fairq_utils.errors import BadInput
from fairq_utils.metrics.ranking import max_skew, min_skew
from fairq_utils.quantization.models import bake, quantize_model
from fairq_utils.treatments.ablations import Ablation
from fairq_utils.treatments.treatment import FP32, Treatment
from tests.conftest import BROWSERS

ROOT = Path(__file__).parents[1]
STUDIES = [Study(seed=seed) for seed in range(3)]
ANSWERS = QUANTITIES[:-1]
HOSTILE = (
    "</script><script>pwned()</script>",
    "<img src=x onerror=pwned()>",
    "a \"quoted\", 'name'\nin two lines",
    "=1+1",
)


def made_up(
    treatments=("fp32", "int4", "int3"),
    *,
    seeds=3,
    images=400,
    groups=("many", "few", "none"),
    classes=4,
    change=None,
) -> list[Prediction]:
    """Logits that lean to the label, and the more noise, the fewer the bits; the last group has no images."""
    draw = np.random.default_rng(0)
    labels = torch.arange(images) % classes
    codes = torch.tensor(draw.integers(len(groups) - 1, size=images))
    names = tuple(f"class {place}" for place in range(classes))
    found = []
    for seed in range(seeds):
        logits = draw.normal(size=(images, classes)) * 2
        logits[np.arange(images), labels] += 2
        for number, name in enumerate(treatments):
            told = change(logits, number) if change else logits + draw.normal(size=logits.shape) * number
            common = (torch.tensor(told), labels, codes, names, groups)
            found.append(Prediction(STUDIES[seed], Treatment.parse(name), *common))
    return found


def raw(predictions: list[Prediction], treatment: str, group: int) -> dict[str, np.ndarray]:
    """Each quantity of each image of the group, in all seeds, by other means than the package's."""
    of_all: dict[str, list[np.ndarray]] = {name: [] for name in ANSWERS}
    for prediction in predictions:
        if prediction.treatment.name != treatment:
            continue
        inside = prediction.groups.numpy() == group
        logits, labels = prediction.logits.numpy()[inside], prediction.labels.numpy()[inside]
        rows = np.arange(len(labels))
        others = np.sort(np.where(np.arange(logits.shape[1]) == labels[:, None], -np.inf, logits), axis=1)
        of_all["logit_variance"].append(np.log10(np.mean(logits**2, axis=1) - logits.mean(axis=1) ** 2))
        of_all["confidence"].append(special.softmax(logits, axis=1).max(axis=1))
        of_all["margin"].append(logits[rows, labels] - others[:, -1])
        of_all["loss"].append(np.log10(special.logsumexp(logits, axis=1) - logits[rows, labels]))
        of_all["logit"].append(logits[rows, labels])
    return {name: np.concatenate(values) for name, values in of_all.items()}


def counts(explorer: Explorer, quantity: str, treatment: str, place: int) -> list[int]:
    return unpacked(explorer.data["counts"][quantity][treatment][place])


@pytest.fixture(scope="module")
def found() -> list[Prediction]:
    return made_up()


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4)).eval()


# ---------------------------------------------------------------- counts


@pytest.mark.parametrize("quantity", ANSWERS)
def test_counts_are_those_of_numpy_in_the_same_bins_for_all(found, quantity):
    explorer = Explorer.of_predictions(found)
    bins = explorer.data["quantities"][quantity]
    for treatment in ("fp32", "int4", "int3"):
        for group in (0, 1):
            values = raw(found, treatment, group)[quantity]
            edges = np.linspace(bins["low"], bins["high"], BINS + 1)
            expected, _ = np.histogram(values.clip(edges[0], edges[-1]), edges)
            got = np.array(counts(explorer, quantity, treatment, group))
            assert got.sum() == len(values)
            # A value within rounding of an edge may be counted on either side of it.
            assert np.abs(np.cumsum(got) - np.cumsum(expected)).max() <= 1


@pytest.mark.parametrize("quantity", ANSWERS)
def test_summaries_are_means_and_quartiles_of_the_raw_values(found, quantity):
    summary = Explorer.of_predictions(found).data["summaries"][quantity]["int4"][1]
    values = raw(found, "int4", 1)[quantity]
    logarithmic = quantity in ("logit_variance", "loss")
    quartiles = np.quantile(values, [0.25, 0.5, 0.75])
    mean = {"logit_variance": 10 ** values.mean(), "loss": np.mean(10**values)}.get(quantity, values.mean())
    expected = [mean, *(10**quartiles if logarithmic else quartiles)]
    assert summary == pytest.approx(expected, rel=1e-3)


def test_zero_is_an_edge_of_margins_and_wrong_answers_lie_below_it(found):
    explorer = Explorer.of_predictions(found)
    bins = explorer.data["quantities"]["margin"]
    assert bins["low"] + (bins["high"] - bins["low"]) * bins["zero"] / BINS == pytest.approx(0, abs=1e-12)
    wrong = sum(~p.correct[p.groups.numpy() == 0] for p in found if p.treatment.name == "int3").sum()
    assert sum(counts(explorer, "margin", "int3", 0)[: bins["zero"]]) == wrong


def test_an_exploding_treatment_does_not_press_the_others_into_one_bin():
    def change(logits, number):
        return logits * (1, 1000)[number]

    explorer = Explorer.of_predictions(made_up(("fp32", "int2"), change=change))
    for quantity in ("margin", "logit"):
        assert np.count_nonzero(counts(explorer, quantity, "fp32", 0)) > 15
        assert sum(counts(explorer, quantity, "int2", 0)) == sum(counts(explorer, quantity, "fp32", 0))


def test_flows_are_those_counted_by_hand(found):
    data = Explorer.of_predictions(found).data
    pairs = {(before, after) for before, others in data["flows"].items() for after in others}
    assert pairs == {("fp32", "int4"), ("fp32", "int3"), ("int4", "int3")}
    for before, after in pairs:
        expected = [[0, 0, 0, 0], [0, 0, 0, 0]]
        for seed in range(3):
            one, two = (
                next(p for p in found if p.study.seed == seed and p.treatment.name == name)
                for name in (before, after)
            )
            answers = zip(one.logits.argmax(1), two.logits.argmax(1), one.labels, one.groups, strict=True)
            for first, second, label, group in answers:
                kind = {(True, True): 0, (True, False): 1, (False, True): 2}.get(
                    (bool(first == label), bool(second == label)), 3 if first != second else None
                )
                if kind is not None:
                    expected[int(group)][kind] += 1
        assert data["flows"][before][after] == expected


def test_packing_loses_nothing():
    draw = np.random.default_rng(1)
    for _ in range(50):
        numbers = draw.poisson(0.5, size=60).tolist()
        assert unpacked(packed(numbers)) == numbers


def test_treatments_stand_from_full_precision_to_the_fewest_bits_and_groups_without_images_are_left_out():
    explorer = Explorer.of_predictions(made_up(("int3", "nf4", "fp32", "fp16", "a8", "int4")))
    assert explorer.data["treatments"] == ["fp32", "a8", "fp16", "nf4", "int4", "int3"]
    assert [group["name"] for group in explorer.data["groups"]] == ["many", "few"]


def test_treatments_of_every_format_stand_in_the_order_of_the_width_of_their_weights():
    names = ["codebook2", "pot3-ends8", "int4-ends8-tuned", "w5a8", "int6-mse", "int7-fairqat", "fp8-e5m2"]
    wide = ["bf16", "a8-bn", "fp32"]  # names that say it by their format
    parsed = [Treatment.parse(name) for name in names[:-1]]
    assert [treatment.bits for treatment in parsed] == sorted(treatment.bits for treatment in parsed)
    ablation = Ablation(Treatment(9), "random", "fc.weight").name
    assert ordered([*names, ablation, *wide, "nobody's"]) == [*wide[::-1], ablation, *names[::-1], "nobody's"]


# ---------------------------------------------------------------- weights


def test_weights_are_counted_and_the_grid_is_that_of_the_treatment(network):
    names = ["fp32", "int4", "int3", "int4-channel", "codebook3", "int4-ends8"]
    networks = [rounded(network, Treatment.parse(name)) for name in names]
    data = Explorer.of_predictions(made_up(names), networks=networks).data
    first, second = data["weights"]["layers"]
    weight = network[0].weight.detach().numpy()
    edges = np.linspace(-first["reach"], first["reach"], BINS + 1)
    assert sum(unpacked(first["counts"])) == weight.size
    expected = np.histogram(weight, edges)[0]
    assert np.abs(np.cumsum(unpacked(first["counts"])) - expected.cumsum()).max() <= 1
    assert second["name"] == "3"
    of = {name: data["weights"]["grids"][name]["layers"][0] for name in names}
    step = float(np.abs(weight).max()) / 7
    assert of["int4"]["size"] == 15
    assert of["int4"]["values"] == pytest.approx([step * code for code in range(-7, 8)], rel=1e-4)
    assert of["int4"]["zero"] == pytest.approx([-step / 2, step / 2], rel=1e-4)
    assert of["int4"]["zeros"] == pytest.approx((np.abs(weight) < step / 2).mean(), abs=1e-6)
    assert of["int3"]["size"] == 7
    assert "size" not in of["fp32"]
    assert of["int4-channel"]["size"] == 0  # a grid for each channel
    assert "zero" not in of["codebook3"]
    assert (of["int4-ends8"]["size"], of["int4-ends8"]["values"]) == (255, [])
    midrise = grids_of(Ablation(Treatment(3), "midrise").apply(network), changed=True)["layers"]
    assert [layer["size"] for layer in midrise] == [0, 0]


# ---------------------------------------------------------------- what a page holds


def test_eight_treatments_five_groups_and_five_quantities_are_small(network):
    names = ["fp32", "int8", "int7", "int6", "int5", "int4", "int3", "int2"]
    networks = [rounded(network, Treatment.parse(name)) for name in names]
    predictions = made_up(names, images=6000, groups=("a", "b", "c", "d", "e", "none"))
    markup = Explorer.of_predictions(predictions, networks=networks).page_markup()
    assert len(markup.encode()) < 150_000


def strange(logits, number):
    """Full precision, constant logits, huge ones."""
    return (logits, np.ones_like(logits), 1e6 * logits)[number]


@pytest.mark.parametrize("change", [None, strange, lambda logits, _: 0 * logits])
def test_what_is_embedded_is_strict_json_and_can_be_read_back(change):
    def refuse(constant):
        raise AssertionError(constant)

    soup = BeautifulSoup(Explorer.of_predictions(made_up(change=change)).page_markup(), "html.parser")
    state = json.loads(soup.find("script").string, parse_constant=refuse)
    assert state["live"] is False
    assert state["data"]["treatments"] == ["fp32", "int4", "int3"]
    assert set(state) == {"answer", "asks", "busy", "data", "done", "live", "view"}


def test_the_fallback_is_a_figure_with_words_and_a_table():
    soup = BeautifulSoup(Explorer.of_predictions(made_up()).fallback(), "html.parser")
    assert "Histograms of margin under fp32 and int3" in soup.svg["aria-label"]
    assert "currentColor" in str(soup.svg)
    assert [row.th.text for row in soup.tbody.find_all("tr")] == ["many", "many", "few", "few"]
    assert len(soup.tbody.tr.find_all("td")) == 6
    assert "3 networks (seeds), 400 images." in soup.figcaption.text
    assert "nan" not in soup.text


def test_hostile_names_stay_text_in_the_markup():
    markup = Explorer.of_predictions(made_up(groups=(*HOSTILE, "none"))).page_markup()
    soup = BeautifulSoup(markup, "html.parser")
    assert len(soup.find_all("script")) == 1
    assert not soup.find_all("img")
    assert [group["name"] for group in json.loads(soup.script.string)["data"]["groups"]] == list(HOSTILE)
    assert {th.text for th in soup.tbody.find_all("th")} == set(HOSTILE)


# ---------------------------------------------------------------- other ways in


def test_a_stored_table_shows_the_same_histograms_without_flows_and_weights(found):
    table = pd.concat([logits_tables.densities(found, measure) for measure in ("logit_variance", "margin")])
    explorer = Explorer.from_table(table, seeds=3, about="faces")
    data = explorer.data
    assert (data["flows"], "weights" in data, explorer.asks) == ({}, False, False)
    whole = Explorer.of_predictions(found).data
    assert data["groups"] == [{k: v for k, v in group.items() if k != "answers"} for group in whole["groups"]]
    for quantity, treatment in (("margin", "int3"), ("logit_variance", "fp32")):
        rows = table[
            (table["measure"] == quantity) & (table["treatment"] == treatment) & (table["group"] == "few")
        ]
        assert counts(explorer, quantity, treatment, 1) == (rows["density"] * rows["n"]).round().tolist()
        near = whole["summaries"][quantity][treatment][1]
        assert data["summaries"][quantity][treatment][1] == pytest.approx(near, rel=0.1, abs=0.15)
    bins = data["quantities"]["margin"]
    margins = table[table["measure"] == "margin"]["value"].unique()
    width = (bins["high"] - bins["low"]) / bins["bins"]
    assert bins["low"] + width / 2 == pytest.approx(margins.min(), rel=1e-4)
    json.dumps(explorer.page_state(), allow_nan=False)


def test_a_network_and_images_of_ones_own_take_three_lines(network):
    images = torch.rand(60, 3, 8, 8)
    labels, groups = torch.arange(60) % 4, ["old", "young", "old"] * 20
    explorer = Explorer.of_model(network, images, labels, groups, treatments=["int4", "int2"])
    assert explorer.data["treatments"] == ["fp32", "int4", "int2"]
    assert [(group["name"], group["n"]) for group in explorer.data["groups"]] == [("old", 40), ("young", 20)]
    treated = bake(quantize_model(network, Treatment(4).quantizer))
    with torch.no_grad():
        moved = int((network(images).argmax(1) != treated(images).argmax(1)).sum())
    flows = np.array(explorer.data["flows"]["fp32"]["int4"])
    assert flows[:, 1:].sum() == moved
    explorer._heard(explorer, {"wanted": "3"})
    assert (explorer.data["treatments"], explorer.answer) == (["fp32", "int4", "int3", "int2"], "")
    explorer._heard(explorer, {"wanted": "a8"})
    assert "needs training images" in explorer.answer


def test_images_of_bytes_are_scaled_as_everywhere(network):
    images = torch.randint(0, 256, (20, 3, 8, 8), dtype=torch.uint8)
    scaled = images.float() / 63.75 - 2
    labels, groups = torch.arange(20) % 4, torch.arange(20) % 2
    both = [
        Explorer.of_model(network, given, labels, groups, group_names=["a", "b"], treatments=["int4"]).data
        for given in (images, scaled)
    ]
    assert both[0]["flows"] == both[1]["flows"]
    assert [group["name"] for group in both[0]["groups"]] == ["a", "b"]


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda found: Explorer.of([], ["int4"]), "no study is given"),
        (lambda found: Explorer.of_predictions([]), "no prediction is given"),
        (lambda found: Explorer.of_predictions(found, ["sharpness"]), "quantities is"),
        (lambda found: Explorer.of_predictions(found, ["weights"]), "not weights alone"),
        (lambda found: Explorer.of_predictions(found[:-1]), "other seeds or images"),
        (lambda found: Explorer.of_predictions(found).add("int5"), "no network to ask"),
        (lambda found: Explorer.from_table(pd.DataFrame({"n": [1]})), "the table lacks measure"),
        (lambda found: Explorer.of_answers([], "shape"), "no answer is given"),
        (lambda found: Explorer.of_answers(answered(), "shape", ["weights"]), "quantities is"),
        (lambda found: Explorer.of_answers(answered(), "size"), "group is 'size'"),
        (lambda found: Explorer.of_answers(answered()[:-1], "shape"), "of other encoders"),
        (lambda found: Explorer.of_answers(answered() * 2, "shape"), "an encoder is there twice"),
        (lambda found: Explorer.of_answers(answered(), "shape", top=241), "top is 241"),
        (lambda found: Explorer.of_answers(answered(), "shape", queries=["one"]), "queries names 1"),
        (lambda found: own_images(torch.zeros(2), [1], [0, 0], None), "2 images come with 1 labels"),
        (lambda found: own_images(torch.zeros(1), [1], [3], ["a"]), "not among the group_names"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(found, call, sentence):
    with pytest.raises(BadInput, match=sentence) as caught:
        call(found)
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- dual encoders


def answered(
    treatments=("fp32", "bnb-nf4", "int4"), *, models=2, images=240, **without
) -> list[EncoderOutputs]:
    """What made-up encoders say: to find "wide" is easy at first, and the harder the more is rounded."""
    draw = np.random.default_rng(3)
    kinds = draw.choice(["wide", "thin"], size=images, p=[0.7, 0.3])
    labels = draw.choice(["moth", "bee", "fly"], size=images)
    told = pd.DataFrame({"shape": pd.Categorical(kinds, ["wide", "thin", "none"]), "kind": labels})
    told["kind"] = told["kind"].astype("category")
    found = []
    for number, treatment in enumerate(treatments):
        for model in range(models):
            random = np.random.default_rng([model, number])
            noise = 1 + number
            of = {
                "logits": torch.tensor(random.normal(size=(images, 3)) * noise).float(),
                "to_text": torch.tensor(1 + random.geometric(0.2 / noise, size=images).clip(0, 149)),
                "to_image": torch.tensor(1 + random.integers(images, size=150)),
                # Coarse, so that many images are equally close.
                "queries": torch.tensor(
                    ((kinds == "wide") + noise * random.normal(size=(2, images))).round()
                ),
            } | dict.fromkeys(without)
            of["label"] = None if of["logits"] is None else "kind"
            found.append(EncoderOutputs(f"encoder {model}", treatment, "PyTorch", attributes=told, **of))
    return found


def test_recall_and_skew_are_those_of_the_population_by_group_and_treatment():
    given = answered()
    data = Explorer.of_answers(given, "shape", queries=["an insect", "a thing"], top=50).data
    assert data["treatments"] == ["fp32", "bnb-nf4", "int4"]
    assert [group["name"] for group in data["groups"]] == ["wide", "thin"]
    measured = tables.measures(given, "shape", top=50)
    means = measured.groupby(["treatment", "measure", "group"])["value"].mean()
    recalls, skews = data["tops"]["rank"], [data["tops"][key] for key in ("place1", "place2")]
    assert [head["name"] for head in recalls["heads"]] == ["recall@1", "recall@5", "recall@10"]
    assert [told["name"] for told in skews] == ["The first 50 for “an insect”", "The first 50 for “a thing”"]
    for treatment in data["treatments"]:
        for group, row in zip(("wide", "thin", "OA"), recalls["values"][treatment], strict=True):
            expected = [means[treatment, f"recall to text@{k}", group] for k in (1, 5, 10)]
            assert row == pytest.approx(expected, rel=1e-3)
        for place, measure in enumerate(skews[0]["rows"], start=2):
            mean = np.mean([told["values"][treatment][place][2] for told in skews])
            assert mean == pytest.approx(means[treatment, measure, "OA"], rel=2e-3)


def test_the_skew_of_each_group_is_that_of_the_metrics_and_what_lies_left_of_the_line():
    (one,) = answered(["fp32"], models=1)
    data = Explorer.of_answers([one], "shape", top=50).data
    codes, _ = one.codes("shape")
    for number, key in enumerate(("place1", "place2")):
        order = np.lexsort((np.arange(len(codes)), -one.queries[number].numpy()))
        rows = data["tops"][key]["values"]["fp32"]
        own_skews = [row[2] for row in rows[:2]]
        assert max(own_skews) == pytest.approx(max_skew(codes[order], 50), rel=1e-3)
        assert min(own_skews) == pytest.approx(min_skew(codes[order], 50), rel=1e-3)
        bins = data["quantities"][key]
        step = (bins["high"] - bins["low"]) / bins["bins"]
        assert (bins["low"], step, bins["lines"]) == (0.5, 2, [50.5])
        for place, row in enumerate(rows[:2]):
            fine = unpacked(data["counts"][key]["fp32"][place])
            assert sum(fine[:25]) == np.isin(order[:50], np.flatnonzero(codes == place)).sum()
            assert (row[0], row[1]) == pytest.approx((sum(fine[:25]) / 50, (codes == place).mean()), rel=1e-3)
    # Recall is what lies left of a line as well.
    bins, fine = data["quantities"]["rank"], unpacked(data["counts"]["rank"]["fp32"][0])
    edges = np.linspace(bins["low"], bins["high"], BINS + 1)
    ranks = one.to_text.numpy()[codes == 0]
    for line, k in zip(bins["lines"], (1, 5, 10), strict=True):
        assert 10**line == pytest.approx(k + 0.5)
        assert sum(fine[: np.searchsorted(edges, line)]) == (ranks <= k).sum()


def test_a_group_that_is_missing_from_the_top_has_a_skew_that_json_can_hold():
    (one,) = answered(["fp32"], models=1)
    one.queries[:] = torch.tensor(one.attributes["shape"] == "wide").double()
    told = Explorer.of_answers([one], "shape", top=20).data["tops"]["place1"]["values"]["fp32"]
    share = float((one.attributes["shape"] == "thin").mean())
    assert told[1][2] == pytest.approx(np.log(0.5 / 20 / share), rel=1e-3)
    assert told[1][2] == told[3][2]
    json.dumps(told, allow_nan=False)


def test_zero_shot_answers_are_those_of_the_logits():
    given = answered(models=1)
    data = Explorer.of_answers(given, "shape").data
    wide = (given[0].attributes["shape"] == "wide").to_numpy()
    bins = data["quantities"]["margin"]
    for one in given:
        fine = unpacked(data["counts"]["margin"][one.treatment][0])
        assert sum(fine[: bins["zero"]]) == (~one.correct[wide]).sum()
    lost = (given[0].correct & ~given[2].correct)[wide].sum()
    assert data["flows"]["fp32"]["int4"][0][1] == lost


def test_what_an_encoder_was_not_asked_is_left_out():
    silent = answered(logits=None)
    only = Explorer.of_answers(silent, "shape")
    assert list(only.data["quantities"]) == ["rank", "place1", "place2"]
    assert (only.data["flows"], list(only.data["tops"])) == ({}, ["rank", "place1", "place2"])
    assert "Recall" in only.fallback()
    without = Explorer.of_answers(answered(to_text=None, to_image=None, queries=None), "shape").data
    assert (list(without["quantities"]), without["tops"]) == (list(ANSWERS), {})
    with pytest.raises(BadInput, match="asked nothing that tells of margin"):
        Explorer.of_answers(silent, "shape", ["margin"])


def test_what_a_population_embeds_is_small_and_its_tables_stand_without_scripts():
    names = ("fp32", "bnb-int8", "torch-int8", "int8", "bnb-nf4", "int4", "int3")
    explorer = Explorer.of_answers(answered(names, models=12, images=1000), "shape", queries=["a", "b"])
    assert len(explorer.page_markup().encode()) < 150_000
    assert explorer.data["treatments"] == list(names)
    captions = [table.caption.text for table in BeautifulSoup(explorer.fallback(), "html.parser")("table")]
    assert captions == ["Margin by group", "Recall", "The first 100 for “a”", "The first 100 for “b”"]
    assert "12 encoders, 1,000 images." in explorer.fallback()


def test_encoders_can_be_asked_for_another_treatment_of_linear_layers():
    wanted = []

    def ask(name):
        wanted.append(name)
        return [one for one in answered(("fp32", "bnb-nf4", "int3")) if one.treatment == name]

    explorer = Explorer.of_answers(answered(["fp32", "int4"]), "shape", ask=ask)
    before = explorer.data["tops"]["rank"]["values"]
    explorer._heard(explorer, {"wanted": " 3 "})
    explorer._heard(explorer, {"wanted": "bnb-nf4"})
    assert (wanted, explorer.answer) == (["int3", "bnb-nf4"], "")
    assert explorer.data["treatments"] == ["fp32", "int4", "bnb-nf4", "int3"]
    whole = Explorer.of_answers(answered(("fp32", "bnb-nf4")), "shape").data
    assert explorer.data["tops"]["rank"]["values"]["bnb-nf4"] == whole["tops"]["rank"]["values"]["bnb-nf4"]
    assert explorer.data["so_far"] == {}
    assert set(before) == {"fp32", "int4"}
    explorer._heard(explorer, {"wanted": "int1"})
    assert explorer.answer.startswith("treatment is 'int1'; expected one of: fp32, bnb-int8")


def test_a_population_in_the_store_takes_three_lines(tmp_path):
    store = Store(tmp_path)
    asked = [
        populations.ClipStudy(
            dataset=MothSettings(train=60, test=60, sizes=(0.2,) * 5),
            images=40,
            recipe=ContrastiveRecipe(epochs=1),
        )
    ]
    answers = populations.answers(asked, ["fp32"], store=store)
    explorer = Explorer.of_answers(
        answers,
        "species",
        queries=asked[0].grammar.queries,
        top=20,
        ask=lambda name: populations.answers(asked, [name], store=store),
    )
    explorer.add("int4")
    both = populations.answers(asked, ["fp32", "int4"], store=store)
    assert explorer.data["flows"] == Explorer.of_answers(both, "species", top=20).data["flows"]
    assert len(explorer.data["tops"]) == 1 + len(asked[0].grammar.queries)


# ---------------------------------------------------------------- with a kernel


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """An explorer with a store behind it, and the studies it is of."""
    trained = studies.studies(seeds=[0, 1], arch="resnet18-16", train_images=60, test_images=60, epochs=1)
    store = Store(tmp_path_factory.mktemp("store"))
    return Explorer.of(trained, [FP32, "int4"], store=store), trained, store


def test_another_width_is_computed_and_shown_and_progress_is_told(asked):
    explorer, trained, store = asked
    before, told, shares, shown = explorer.data, [], [], []
    explorer.observe(lambda event: told.append(event["new"]), "busy")
    explorer.observe(lambda event: shares.append(event["new"]), "done")
    explorer.observe(lambda event: shown.append(event["new"]), "data")
    explorer._heard(explorer, {"wanted": " int3 "})
    assert (explorer.answer, explorer.busy) == ("", "")
    assert [text for text in told if text] == [
        "int3: looking for it",
        "int3: network 1 of 2",
        "int3: network 2 of 2",
    ]
    assert shares == [0.5]
    # The first network is shown before the second has answered, and said to be one of two.
    assert [data["so_far"] for data in shown] == [{"int3": 1}, {}]
    parts = [unpacked(data["counts"]["margin"]["int3"][0]) for data in shown]
    assert 2 * sum(parts[0]) == sum(parts[1])
    first = [sum(data["flows"]["fp32"]["int3"][0]) for data in shown]
    assert first[0] <= first[1]
    assert before["treatments"] == ["fp32", "int4"]
    assert explorer.data["treatments"] == ["fp32", "int4", "int3"]
    assert explorer.view["treatment"] == "int3"
    assert {name: before["quantities"][name] for name in ANSWERS} == explorer.data["quantities"]
    # What was added is what would have been there from the beginning, in the same bins.
    predictions = studies.predictions(trained, [Treatment(3)], store=store)
    inside = predictions[0].groups.numpy() == 0
    margins = np.concatenate([kit_tables.example_measures([p])["margin"][0][inside] for p in predictions])
    bins = explorer.data["quantities"]["margin"]
    assert counts(explorer, "margin", "int3", 0) == counted(margins, bins)
    assert set(explorer.data["flows"]["int4"]) == {"int3"}
    assert explorer.data["weights"]["grids"]["int3"]["layers"][0]["size"] == 7
    json.dumps(explorer.page_state(), allow_nan=False)


@pytest.mark.parametrize("wanted", ["int99", "int4-msee", "</script>", "", None, "int4-qat", "1"])
def test_a_name_that_is_none_comes_back_as_one_sentence(asked, wanted):
    explorer, *_ = asked
    before = explorer.data
    explorer._heard(explorer, {"wanted": wanted})
    assert explorer.answer.endswith((".", "them."))
    assert "\n" not in explorer.answer
    assert (explorer.busy, explorer.data) == ("", before)


def test_what_nobody_foresaw_is_told_and_not_hidden(asked, monkeypatch):
    explorer, *_ = asked

    def fail(*_):
        raise RuntimeError("the disk\nis full")

    monkeypatch.setattr(explorer, "_more", fail)
    with pytest.raises(RuntimeError):
        explorer._heard(explorer, {"wanted": "int7"})
    assert (explorer.answer, explorer.busy) == ("int7 could not be made: the disk is full", "")


def test_half_of_an_answer_does_not_stay_for_a_whole_one(asked, monkeypatch):
    explorer, *_ = asked
    more, before, view = explorer._more, explorer.data, explorer.view

    def interrupted(*about):
        yield next(more(*about))
        raise KeyboardInterrupt

    monkeypatch.setattr(explorer, "_more", interrupted)
    with pytest.raises(KeyboardInterrupt):
        explorer.add("int6")
    assert (explorer.data, explorer.view, explorer.busy) == (before, view, "")
    monkeypatch.setattr(explorer, "_more", more)
    explorer.add("int6")
    assert (explorer.data["so_far"], explorer.view["after"]) == ({}, "int6")
    assert "int6" in explorer.data["flows"]["int4"]


def test_what_is_there_already_is_shown_and_not_computed_again(asked, monkeypatch):
    explorer, *_ = asked
    monkeypatch.setattr(explorer, "_more", lambda *_: pytest.fail("computed again"))
    explorer._heard(explorer, {"wanted": "4"})
    assert (explorer.view["treatment"], explorer.answer) == ("int4", "")


# ---------------------------------------------------------------- in a browser

CHROMIUM = next(filter(None, map(shutil.which, BROWSERS)), None)
browser = pytest.mark.skipif(
    not CHROMIUM, reason="no Chromium: neither chromium nor google-chrome is installed"
)

CATCH = """
window.wrong = [];
window.pwned = () => window.wrong.push("a name became code");
window.onerror = (words) => window.wrong.push(String(words));
window.onunhandledrejection = (event) => window.wrong.push(String(event.reason));
console.error = (...words) => window.wrong.push(words.join(" "));
window.blobs = [];
URL.createObjectURL = (blob) => { window.blobs.push(blob); return "#"; };
// The clock of the test runs ahead while a blob is read, so that what it holds is kept beside it.
window.Blob = class extends Blob {
  constructor(parts, about) {
    super(parts, about);
    this.words = parts.join("");
  }
};
HTMLAnchorElement.prototype.click = () => {};
"""

TOOLS = """
const found = { width: innerWidth };
const one = (control, within = document) => within.querySelector(`[data-control="${control}"]`);
const all = (what, within = document) => [...within.querySelectorAll(what)];
const seen = (within = document) => all(".fairq-canvas", within).map((drawn) => drawn.innerHTML).join();
const said = (within = document) => within.querySelector("[role=status]").textContent;
const act = (control, value, within = document) => {
  const node = one(control, within);
  if (node.type === "checkbox") node.click();
  else if (node.tagName === "BUTTON") node.click();
  else {
    node.value = value;
    node.dispatchEvent(new Event(node.type === "range" ? "input" : "change", { bubbles: true }));
  }
};
const until = async (done) => {
  for (let turn = 0; turn < 2000 && !done(); turn++) await new Promise((then) => setTimeout(then, 20));
};
const run = async (driver) => {
  await until(() => document.querySelector(".fairq-started"));
  try {
    await driver();
  } catch (error) {
    window.wrong.push(error.stack);
  }
  found.wrong = window.wrong;
  found.scrolls = document.documentElement.scrollWidth > innerWidth;
  const told = document.createElement("pre");
  told.id = "findings";
  told.textContent = JSON.stringify(found);
  document.body.append(told);
};
"""


def page(explorers: list[Explorer], driver: str) -> str:
    """A page as the book builds it, with a script that uses it and writes down what it found."""
    modules = joined(SCRIPTS / "explorer.js").replace("export default { render };", "")
    opened = f"{modules}return Object.assign({{}}, ...Object.values(fairqModules));"
    styles = "".join((SCRIPTS / name).read_text() for name in ("page.css", "explorer.css"))
    return (
        '<!doctype html><html><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<style>{styles}</style><script>{CATCH}</script></head><body>"
        f"{''.join(one.page_markup() for one in explorers)}"
        f"<script>{page_script('explorer')}</script>"
        f"<script>const inside = (() => {{{opened}}})();</script>"
        f"<script>{TOOLS}run(async () => {{ {driver} }});</script></body></html>"
    )


def findings(folder: Path, explorers: list[Explorer], driver: str, *, fragment="", width=900) -> dict:
    target = folder / "page.html"
    target.write_text(page(explorers, driver), encoding="utf-8")
    done = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={folder / 'browser'}",
            f"--window-size={width},900",
            "--virtual-time-budget=100000",
            "--dump-dom",
            f"{target.as_uri()}{fragment}",
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    told = re.search(r'<pre id="findings">(.*?)</pre>', done.stdout, re.DOTALL)
    assert told, done.stdout[-2000:]
    return json.loads(html.unescape(told[1]))


@pytest.fixture(scope="module")
def shown(network, found):
    names = ["fp32", "int4", "int3"]
    return Explorer.of_predictions(
        found, networks=[rounded(network, Treatment.parse(name)) for name in names]
    )


@browser
def test_a_link_of_somebody_elses_making_is_taken_for_what_is_known_of_it(shown, tmp_path):
    wish = "#explorer=quantity=%3Cimg%20src=x%20onerror=pwned()%3E&treatment=int9&bins=1e999&groups=7.x.1"
    wish += "&before=__proto__"
    told = findings(tmp_path, [shown], "found.said = said();", fragment=wish)
    assert told["wrong"] == []
    assert re.fullmatch(
        r"Margin under int3, \d+ bins, shares of answers, a panel for each group: medians few [−\d.]+\.",
        told["said"],
    )


@browser
def test_hostile_names_stay_text_in_the_page_and_in_files(tmp_path):
    explorer = Explorer.of_predictions(made_up(groups=(*HOSTILE, "none")))
    driver = """
      const names = all(".fairq-groups label > span:first-of-type");
      found.labels = names.map((node) => node.firstChild.data);
      found.images = document.querySelectorAll("img, .fairq-live script").length;
      act("overlay");
      act("quantity", "loss");
      one("bin").focus();
      for (const control of ["spread-csv", "spread-svg", "flow-csv", "spread-png"]) {
        const many = window.blobs.length;
        act(control);
        await until(() => window.blobs.length > many);
        found[control] = window.blobs.at(-1).words;
      }
      const parsed = new DOMParser().parseFromString(found["spread-svg"], "image/svg+xml");
      found.svg = parsed.documentElement.tagName;
      const fields = ["=1+1", "+1", "-1", "@x", "a,b", 'say "x"', -1.5, "two\\nlines", "plain"];
      found.fields = inside.csv([fields]);
    """
    told = findings(tmp_path, [explorer], driver)
    assert told["wrong"] == []
    assert told["labels"] == list(HOSTILE)
    assert (told["images"], told["svg"]) == (0, "svg")
    assert "\n'=1+1,int" in told["spread-csv"]
    assert "\n'=1+1,fp32" in told["flow-csv"]
    assert '"a ""quoted"", ' in told["spread-csv"]
    assert told["fields"] == '\'=1+1,\'+1,\'-1,\'@x,"a,b","say ""x""",-1.5,"two\nlines",plain\r\n'


@browser
def test_merged_bins_hold_what_the_fine_ones_hold_and_zero_stays_an_edge(shown, tmp_path):
    driver = """
      found.sums = [];
      const state = JSON.parse(document.querySelector("script[type='application/json']").textContent).data;
      for (const [key, quantity] of Object.entries(state.quantities)) {
        for (const packed of Object.values(state.counts[key]).flat()) {
          const fine = inside.unpack(packed);
          for (const bins of inside.choicesOfBins(quantity)) {
            const merged = inside.merge(fine, fine.length / bins);
            const whole = !quantity.zero || (quantity.zero * bins) % quantity.bins === 0;
            const total = (numbers) => numbers.reduce((a, b) => a + b, 0);
            const sizes = fine.length === 144 && merged.length === bins;
            found.sums.push(sizes && total(fine) === total(merged) && whole);
          }
        }
      }
      found.choices = inside.choicesOfBins({ bins: 144, zero: 48 });
      const numbers = [0, 1234.5, 0.00001234, -0.12345, 12.345, null, 123.4];
      found.plain = numbers.map((value) => inside.plain(value));
    """
    told = findings(tmp_path, [shown], driver)
    assert told["wrong"] == []
    assert len(told["sums"]) > 100
    assert all(told["sums"])
    assert told["choices"] == [12, 18, 24, 36, 48, 72, 144]
    assert told["plain"] == ["0", "1,235", "1.2e−5", "−0.123", "12.3", "—", "123"]


COLUMNS = (
    [2.4, 2.92, 0.956, None],
    [0, 12, 1234],
    [98.24, 3.51, 0.02],
    [-0.001, 0.5],
    [123.4, 7.2],
    [],
)


@browser
def test_numbers_of_a_column_have_as_many_decimals_each_in_script_and_fallback(shown, tmp_path):
    driver = f"""
      const columns = {json.dumps(COLUMNS)};
      found.linear = columns.map((column) => inside.alike(column));
      found.log = inside.alike([2.31, 0.0123, 0.00044, 0.0000012, 2e8], true);
      found.ticks = [9.6, 19, 100, 0.3].map((most) => inside.ticks(0, most, 2).at(-1));
      const table = all("details table")[0];
      found.table = [...table.tBodies[0].rows].map((row) => [...row.cells].map((cell) => cell.textContent));
      found.levels = all(".fairq-plot svg text").map((node) => node.textContent);
    """
    told = findings(tmp_path, [shown], driver)
    assert told["wrong"] == []
    assert told["linear"][0] == ["2.40", "2.92", "0.96", "—"]
    assert told["linear"][1] == ["0", "12", "1,234"]
    assert told["linear"][3] == ["−0.001", "0.500"]
    plain = {"factor": 1, "unit": ""}
    for column, said in zip(COLUMNS, told["linear"], strict=True):
        assert fallback._said(plain, column) == said
    assert told["log"] == ["2.3100", "0.0123", "0.0004", "1.2e−6", "2e8"]
    assert told["ticks"] == [5, 10, 100, 0.2]
    # Round numbers, and not the largest share that there happens to be.
    assert all(re.fullmatch(r"(1|2|2\.5|5)0* %", level) for level in told["levels"] if "%" in level)
    for column in list(zip(*told["table"], strict=True))[3:]:
        assert len({len(value.partition(".")[2]) for value in column}) == 1


@browser
@pytest.mark.parametrize("width", [390, 900])
def test_long_names_of_treatments_can_be_read_whole(tmp_path, width):
    name = "int4-ends8-tuned-weighted-sampled"
    driver = """
      act("before", found.name = one("before").options[1].value);
      const flow = all(".fairq-flows svg")[0];
      const bold = [...flow.querySelectorAll("text[font-weight=bold]")];
      found.heads = bold.map((node) => node.textContent).join("");
      found.out = [...flow.querySelectorAll("text")]
        .filter((node) => node.getBBox().x < 0 || node.getBBox().x + node.getBBox().width > flow.clientWidth)
        .map((node) => node.textContent);
      const caption = all(".fairq-flows .fairq-caption")[0];
      all("details").forEach((folded) => { folded.open = true; });
      found.caption = [caption.textContent, caption.scrollWidth <= caption.clientWidth];
      const scrolled = getComputedStyle(all(".fairq-flows .fairq-scrolled")[0]);
      found.cue = scrolled.backgroundAttachment;
    """
    explorer = Explorer.of_predictions(made_up(("fp32", name, "int3")))
    told = findings(tmp_path, [explorer], driver, width=width)
    assert (told["wrong"], told["scrolls"], told["out"]) == ([], False, [])
    assert told["name"] == name
    assert name in told["heads"]
    assert told["caption"] == [f"Answers from {name} to int3", True]
    assert told["cue"] == "local, local, scroll, scroll"


@browser
def test_the_slider_that_reads_a_bin_is_called_what_stands_beside_it_and_a_band_stands_over_its_handle(
    shown, tmp_path
):
    driver = """
      const slider = one("bin");
      found.called = [slider.labels.length, slider.labels[0].textContent, slider.getAttribute("aria-label")];
      found.seen = slider.labels[0].checkVisibility();
      const band = () => all(".fairq-plot svg rect").at(-1).getBoundingClientRect();
      const handle = () => {
        const box = slider.getBoundingClientRect();
        return box.x + 8 + ((box.width - 16) * slider.value) / slider.max;
      };
      found.apart = [handle() - (band().x + band().width / 2)];
      found.rest = [said(), all(".fairq-read").map((node) => node.textContent).join("")];
      act("bin", 3);
      found.apart.push(handle() - (band().x + band().width / 2));
      found.reads = said();
    """
    told = findings(tmp_path, [shown], driver)
    assert told["wrong"] == []
    assert told["called"] == [1, "Read a bin", None]
    assert told["seen"]
    assert max(map(abs, told["apart"])) < 10
    assert told["rest"][0].startswith("Margin under int3, 36 bins")
    assert told["rest"][1] == ""
    assert re.match(r"Margin .+: many \d+\.\d % \(\d+\); few \d+\.\d % \(\d+\)\.", told["reads"])


@browser
def test_recall_and_skew_stand_below_the_histogram_and_are_said(tmp_path):
    explorer = Explorer.of_answers(answered(), "shape", queries=["<b>an insect</b>", "a thing"], top=50)
    driver = """
      const rows = () => all(".fairq-live > .fairq-explorer tr, .fairq-explorer > div > .fairq-scrolled tr")
        .map((row) => [...row.cells].map((cell) => cell.textContent));
      found.extent = document.querySelector(".fairq-extent").textContent;
      found.none = rows();
      act("quantity", "rank");
      act("treatment", 2);
      found.rank = [rows(), said()];
      found.lines = seen().includes("lines: first 1, 5, 10");
      act("quantity", "place1");
      found.place = [rows(), said()];
      act("group-0");
      found.fewer = rows().length;
      one("bin").focus();
      act("bin", 0);
      found.bin = said();
      act("treatment", 0);
      found.first = rows();
      found.bold = document.querySelectorAll(".fairq-live b").length;
    """
    told = findings(tmp_path, [explorer], driver, width=390)
    assert (told["wrong"], told["scrolls"], told["bold"]) == ([], False, 0)
    assert told["extent"] == "2 encoders, counted together, 240 images."
    assert told["none"] == []
    data = explorer.data
    values = {key: data["tops"][key]["values"] for key in ("rank", "place1")}
    said = {"factor": 100, "unit": ""}
    heads, *rows = told["rank"][0]
    assert heads == ["group", "recall@1, %", "recall@5, %", "recall@10, %"]
    assert [row[0] for row in rows] == ["wide", "thin", "all images"]
    last = fallback._said(said, [row[2] for name in ("int4", "fp32") for row in values["rank"][name]])
    for row, now, was in zip(rows, last[:3], last[3:], strict=True):
        assert row[3] == f"{now} (was {was})"
    assert f" Recall@10, %: wide {last[0]}; " in told["rank"][1]
    assert told["lines"]
    heads, *rows = told["place"][0]
    assert heads == ["group", "share of the first 50, %", "share of all, %", "skew, nats"]
    assert [row[0] for row in rows] == ["wide", "thin", "MaxSkew@50", "MinSkew@50", "NDKL@50"]
    assert rows[2][1:3] == ["—", "—"]
    said["factor"] = 1
    last = fallback._said(said, [row[2] for name in ("int4", "fp32") for row in values["place1"][name]])
    assert rows[1][3].startswith(last[1])
    assert told["place"][1].startswith("Place for “<b>an insect</b>” under int4, 40 bins")
    assert f"Skew, nats: wide {last[0]}; " in told["place"][1]
    assert told["fewer"] == 5
    assert told["bin"].startswith("Place for “<b>an insect</b>” 1 to 6: thin ")
    assert not any("was" in cell for row in told["first"] for cell in row)


@browser
def test_with_a_kernel_another_width_can_be_asked_for_and_without_one_it_cannot(found, tmp_path):
    fewer = Explorer.of_predictions([p for p in found if p.treatment.name != "int3"])
    more = json.dumps(Explorer.of_predictions(found).data)
    driver = f"""
      found.hidden = getComputedStyle(document.querySelector(".fairq-ask")).display;
      const sent = [], heard = {{}}, el = document.createElement("div");
      const state = JSON.parse(document.querySelector("script[type='application/json']").textContent);
      Object.assign(state, {{ live: true, asks: true }});
      const model = {{
        get: (name) => state[name],
        set: (name, value) => {{
          state[name] = value;
          (heard[`change:${{name}}`] || []).forEach((hear) => hear());
        }},
        save_changes: () => {{ found.saved = true; }},
        send: (message) => sent.push(message),
        on: (event, hear) => (heard[event] ||= []).push(hear),
        off: (event, hear) => {{ heard[event] = heard[event].filter((other) => other !== hear); }},
      }};
      document.body.append(el);
      const stop = window.fairqWidgets.explorer.render({{ model, el }});
      found.offered = getComputedStyle(el.querySelector(".fairq-ask")).display;
      one("wish", el).value = " int3 ";
      el.querySelector("form").requestSubmit();
      found.sent = sent;
      found.asked = said(el);
      const bar = el.querySelector("progress");
      found.bar = [bar.hidden];
      model.set("busy", "int3: network 2 of 3");
      model.set("done", 1 / 3);
      found.busy = said(el);
      found.bar.push(bar.hidden, bar.value);
      act("numbers", undefined, el);
      const more = {more}, some = structuredClone(more);
      some.so_far = {{ int3: 1 }};
      for (const kind of Object.values(some.counts)) kind.int3 = kind.int3.map(() => [10, 20, -142]);
      model.set("data", some);
      model.set("view", {{ ...state.view, treatment: "int3", after: "int3" }});
      found.some = [el.querySelector(".fairq-extent").textContent, said(el)];
      const names = all("svg[role=img]", el).map((drawn) => drawn.getAttribute("aria-label"));
      found.someNames = names.map((name) => name.split(".").at(-2));
      model.set("data", more);
      model.set("busy", "");
      found.whole = said(el);
      found.bar.push(bar.hidden);
      model.set("answer", "treatment is 'int99', no.");
      found.answer = said(el);
      act("numbers", undefined, el);
      found.steps = [one("treatment", el).max, one("treatment", el).value];
      found.shown = said(el);
      stop();
      found.left = Object.values(heard).flat().length;
    """
    told = findings(tmp_path, [fewer], driver)
    assert told["wrong"] == []
    assert (told["hidden"], told["offered"]) == ("none", "flex")
    assert told["sent"] == [{"wanted": "int3"}]
    assert (told["asked"], told["busy"]) == ("int3 is asked for.", "int3: network 2 of 3 …")
    assert told["bar"] == [True, False, pytest.approx(1 / 3), True]
    # Numbers of one network beside those of three would be read as fewer answers: till then, shares.
    assert told["some"] == [
        "Moths, resnet18-16, 32 pixels: 3 networks (seeds), counted together; so far 1 under int3, 400 "
        "images.",
        told["busy"],
    ]
    assert told["someNames"][0] == " So far 1 of 3 networks"
    assert told["whole"].startswith("Margin under int3, 36 bins, numbers of answers, a panel for each group")
    assert "So far" not in told["whole"]
    assert told["answer"] == "treatment is 'int99', no."
    assert told["steps"] == ["2", "2"]
    assert told["shown"].startswith("Margin under int3, 36 bins")
    assert told["left"] == 0
