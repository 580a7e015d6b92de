import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from fairq_book.chapters.encoders import tables
from fairq_book.chapters.encoders.tables import measures
from fairq_book.experiments import populations as experiments_populations
from fairq_book.experiments import studies
from fairq_book.experiments.populations import ClipStudy, answers, answers_of, encoders
from fairq_book.experiments.store import Store
from fairq_utils.data.moths import MothSettings
from fairq_utils.data.sources import DataSettings
from fairq_utils.encoders import scenes as encoders_scenes
from fairq_utils.encoders.captions import captioned_moths
from fairq_utils.encoders.contrastive import ContrastiveRecipe
from fairq_utils.encoders.mini import DualEncoder
from fairq_utils.encoders.questions import EncoderOutputs, EvaluationSet, ask
from fairq_utils.errors import BadInput
from fairq_utils.metrics import populations, ranking

MOTHS = MothSettings(train=60, test=40, sizes=(0.2,) * 5, image_size=16)
SMALL = {"dataset": MOTHS, "images": 30, "recipe": ContrastiveRecipe(epochs=1, batch_size=10)}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def population():
    return experiments_populations.population(
        archs=["patch8"], training_sets=["balanced", "noisy"], seeds=[0], **SMALL
    )


def test_what_is_missing_is_made_once_and_more_is_little(store, population):
    first = answers(population, ["fp32", "int4"], store=store)
    assert (store.written["encoders"], store.written["answers"], store.written["datasets"]) == (2, 4, 1)
    again = answers(population, ["fp32", "int4", "int3"], store=store)
    assert (store.written["encoders"], store.written["answers"], store.written["datasets"]) == (2, 6, 1)
    assert torch.equal(first[0].logits, again[0].logits)
    assert [(one.model, one.treatment) for one in again[3:]] == [
        ("moths-patch8-noisy-seed0", name) for name in ("fp32", "int4", "int3")
    ]
    assert not torch.equal(again[0].logits, again[2].logits)


def test_what_is_kept_is_current(store, population):
    answers(population[:1], ["fp32"], store=store)
    kept = [entry for entry in store.entries() if entry.kind in ("encoders", "answers", "datasets")]
    assert kept
    assert all(studies.is_current(entry.identity) for entry in kept)


def test_an_encoder_that_is_brought_is_asked_the_same(store, population):
    (ours,) = answers(population[:1], ["int4"], store=store)
    scenes = experiments_populations.scenes(population[0], store=store)
    test = scenes.take(scenes.is_test)
    test = replace(test, captions=tuple(several[:1] for several in test.captions))
    grammar = population[0].grammar
    questions = EvaluationSet(
        test, "species", grammar.prompts_for("species", test.names("species")), grammar.queries
    )
    (encoder,) = encoders(population[:1], store=store)
    written = store.written["answers"]
    for _ in range(2):
        (brought,) = answers_of(encoder, questions, ["int4"], name="mine", store=store)
        for part in ("logits", "to_text", "to_image", "queries"):
            assert torch.equal(getattr(brought, part), getattr(ours, part))
    assert store.written["answers"] == written + 1


def test_fairface_is_asked_for_gender_and_measured_by_any_attribute(store, tmp_path):
    random = np.random.default_rng(0)
    for split, file, count in (
        ("train", "fairface_label_train.csv", 12),
        ("val", "fairface_label_val.csv", 6),
    ):
        (tmp_path / split).mkdir()
        rows = []
        for number in range(1, count + 1):
            pixels = random.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / split / f"{number}.jpg")
            who = (
                ("20-29", "more than 70")[number % 2],
                ("Male", "Female")[number % 2],
                ("White", "Black")[number // 2 % 2],
            )
            rows.append((f"{split}/{number}.jpg", *who, True))
        table = pd.DataFrame(rows, columns=["file", "age", "gender", "race", "service_test"])
        table.to_csv(tmp_path / file, index=False)
    settings = DataSettings(name="fairface", root=str(tmp_path), image_size=16)
    study = ClipStudy(dataset=settings, images=8, recipe=ContrastiveRecipe(epochs=1, batch_size=4))
    assert study.name == "fairface-patch8-balanced-seed0"
    given = answers([study], ["fp32", "int4"], store=store)
    assert given[0].logits.shape == (4, 2)  # a fifth of 18
    table = measures(given, "race", ks=(1,), top=3)
    assert set(table.query("measure == 'accuracy'")["group"]) == {"White", "Black", "OA", "FVO"}
    assert set(measures(given, "age", top=3).query("measure == 'flips'")["group"]) == {"20-29", "70+", "OA"}


def test_names_and_digests_tell_studies_apart(population):
    names = {study.name for study in experiments_populations.population()}
    assert len(names) == 18
    assert population[0] != replace(population[0], images=31)


class Compass(DualEncoder):
    """Four images that lie north, east, south and west, and texts that name a direction."""

    def __init__(self) -> None:
        super().__init__()
        self.towers = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False))
        self.towers[0].weight.data = torch.eye(2)

    PLACES = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, -1.0], [-1.0, 0.0]])

    def image_features(self, images):
        return self.towers(self.PLACES[images[:, 0, 0, 0].long()])

    def text_features(self, texts):
        told = {"north": [0, 1], "east": [1, 0], "south": [0, -1], "west": [-1, 0]}
        return torch.tensor([told[text] for text in texts], dtype=torch.float32)

    @property
    def logit_scale(self):
        return 10.0


def compass(captions: tuple[tuple[str, ...], ...] = ()) -> EvaluationSet:
    images = torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1).expand(4, 3, 2, 2)
    attributes = pd.DataFrame({"side": pd.Categorical(["up", "up", "down", "down"], ["up", "down", "away"])})
    scenes = encoders_scenes.Scenes(images, captions, attributes)
    return EvaluationSet(scenes, "side", [["north", "east"], ["south", "west"], ["west"]], ["north"])


def test_prompts_are_averaged_as_directions():
    found = ask(Compass(), compass())
    half = 10 / math.sqrt(2)
    assert torch.allclose(found["logits"][0], torch.tensor([half, -half, 0.0]), atol=1e-5)
    assert torch.allclose(found["logits"][3], torch.tensor([-half, half, 10.0]), atol=1e-5)
    assert found["queries"].tolist() == [[1.0, 0.0, -1.0, 0.0]]
    assert "to_text" not in found


def test_retrieval_goes_both_ways_and_equal_captions_are_equally_right():
    found = ask(Compass(), compass((("north",), ("north", "east"), ("west",), ("west",))))
    # Distinct captions: north, east, west. South is as far from north and east as from west: a tie is lost.
    assert found["to_text"].tolist() == [1, 1, 3, 1] or found["to_text"].tolist() == [1, 1, 2, 1]
    assert found["to_image"].tolist() == [1, 1, 1]


def made(
    model: str, treatment: str, right: list[bool], queries: list[list[float]] | None = None
) -> EncoderOutputs:
    """Answers on six images of two groups, with these right."""
    labels = [0, 1, 0, 1, 0, 1]
    attributes = pd.DataFrame(
        {
            "class": pd.Categorical.from_codes(labels, ["x", "y"]),
            "group": pd.Categorical.from_codes([0, 0, 0, 0, 1, 1], ["a", "b", "none"]),
        }
    )
    logits = torch.tensor(
        [[1.0, 0.0] if (label == 0) == hit else [0.0, 1.0] for label, hit in zip(labels, right, strict=True)]
    )
    return EncoderOutputs(
        model,
        treatment,
        "by hand",
        attributes,
        "class",
        logits,
        torch.tensor([1, 2, 6, 1, 1, 9]),
        torch.tensor([1, 1, 7]),
        None if queries is None else torch.tensor(queries),
    )


ALL, MOST = [True] * 6, [True, True, True, False, True, False]


def values(table: pd.DataFrame, measure: str) -> dict[str, float]:
    rows = table[(table["measure"] == measure) & (table["treatment"] == "int4")]
    return dict(zip(rows["group"], rows["value"].round(4), strict=True))


def test_measures_have_the_values_of_the_hand():
    queries = [[6.0, 5.0, 4.0, 3.0, 2.0, 1.0]]
    given = [made("m", "fp32", ALL, queries), made("m", "int4", MOST, queries)]
    table = measures(given, "group", ks=(1, 5), top=3, between=("a", "b"))
    assert values(table, "accuracy") == {"a": 0.75, "b": 0.5, "OA": 0.6667, "FVO": 0.25}
    assert values(table, "flips") == {"a": 0.25, "b": 0.5, "OA": 0.3333}
    # Class x: 2 of 2 against 1 of 1. Class y: 1 of 2 against 0 of 1.
    assert values(table, "recall disparity, a − b") == {"OA": 0.25}
    assert values(table, "recall to text@1") == {"a": 0.5, "b": 0.5, "OA": 0.5}
    assert values(table, "recall to text@5") == {"a": 0.75, "b": 0.5, "OA": 0.6667}
    assert values(table, "recall to image@5") == {"OA": 0.6667}
    assert values(table, "MaxSkew@3") == {"OA": round(math.log(1 / (4 / 6)), 4)}
    assert values(table, "MinSkew@3") == {"OA": round(math.log(0.5 / 3 / (2 / 6)), 4)}
    assert values(table, "NDKL@3") == {"OA": round(math.log(6 / 4), 4)}


def test_min_skew_is_that_of_the_metrics_when_nobody_is_missing():
    close = [[6.0, 5.0, 1.0, 2.0, 4.0, 3.0]]
    table = tables.skews([made("m", "fp32", ALL, close)], "group", top=4).set_index("measure")["value"]
    ranked = ["a", "a", "b", "b", "a", "a"]
    assert table["MinSkew@4"] == pytest.approx(ranking.min_skew(ranked, 4))
    assert table["MaxSkew@4"] == pytest.approx(ranking.max_skew(ranked, 4))


def test_ties_keep_the_order_of_the_images():
    table = tables.skews([made("m", "fp32", ALL, [[1.0] * 6])], "group", top=4)
    assert table.set_index("measure")["value"]["MaxSkew@4"] == pytest.approx(math.log(6 / 4))


def test_failures_are_found():
    few = made("m", "fp32", ALL)

    def many(treatment: str, right: list[bool]) -> EncoderOutputs:
        one = made("m", treatment, right)
        return replace(
            one,
            attributes=pd.concat([one.attributes] * 50, ignore_index=True),
            logits=one.logits.repeat(50, 1),
        )

    given = [many("fp32", ALL), many("int8", ALL), many("int4", MOST), many("int3", [True, False] * 3)]
    assert tables.failures(given)["sign"].tolist() == ["", "", "lost", "random"]
    assert tables.failures(given, lost=0.5)["sign"].tolist() == ["", "", "", "random"]
    assert tables.failures([few])["sign"].tolist() == [""]


def test_sign_tests_count_what_was_lost_and_won():
    given = [made("m", "fp32", ALL), made("m", "int4", MOST), made("n", "fp32", MOST), made("n", "int4", ALL)]
    table = tables.lost_and_won(given, "group").set_index("group")
    assert table.loc["a", ["n", "lost", "won"]].tolist() == [8, 1, 1]
    assert table["p"].tolist() == [1.0, 1.0, 1.0]
    twenty = [made(f"m{i}", t, r) for i in range(20) for t, r in (("fp32", ALL), ("int4", MOST))]
    table = tables.lost_and_won(twenty, "group").set_index("group")
    assert table.loc["b", "p"] == pytest.approx(2 * 0.5**20)
    assert table.loc["b", "p_holm"] == pytest.approx(6 * 0.5**20)


def tidy(changes: dict[str, list[float]], treatment: str = "int4") -> pd.DataFrame:
    """A table of measures in which each model changes by so much."""
    rows = []
    for group, moved in changes.items():
        for number, change in enumerate(moved):
            rows.append((f"m{number}", "fp32", "accuracy", group, 0.8))
            rows.append((f"m{number}", treatment, "accuracy", group, 0.8 + change))
    return pd.DataFrame(rows, columns=["model", "treatment", "measure", "group", "value"])


def test_consistency_is_what_the_three_tests_say():
    random = np.random.default_rng(0)
    moved = {"a": random.normal(-0.05, 0.01, 12), "b": random.normal(0.0, 0.004, 12)}
    table = tables.consistency(tidy({name: list(values) for name, values in moved.items()}))
    a, b = table.to_dict("records")
    assert a["estimate"] == pytest.approx(moved["a"].mean())
    assert (a["rises"], a["falls"]) == (0, 12)
    assert a["p_holm"] < 0.001 < 0.05 < a["p_within"]
    assert b["p_within"] < 0.05 < b["p_holm"]
    assert a["p_sign"] == pytest.approx(2 * 2 * 0.5**12)
    assert set(table["margin"]) == {tables.MARGIN_OF_SHARES}
    assert tables.consistency(tidy({"a": [0.0] * 3}), margins={"accuracy": 0.1})["margin"].tolist() == [0.1]


def test_tests_are_corrected_within_their_family():
    table = tidy(
        {"a": [0.01, 0.02, 0.04], "b": [0.0, 0.01, 0.05], "FVO": [0.01, 0.02, 0.03], "OA": [0.0, 0.1, 0.0]}
    )
    found = tables.consistency(table).set_index("group")
    assert found["family"].to_dict() == {"a": "group", "b": "group", "FVO": "bias", "OA": "overall"}
    alone = populations.paired_test(pd.DataFrame({"FVO": [0.01, 0.02, 0.03]}))["p"].item()
    assert found.loc["FVO", "p_holm"] == pytest.approx(alone)
    pair = populations.paired_test(pd.DataFrame({"a": [0.01, 0.02, 0.04], "b": [0.0, 0.01, 0.05]}))
    assert found.loc[["a", "b"], "p_holm"].tolist() == pytest.approx(pair["p_holm"].tolist())


def test_what_failed_is_set_apart():
    table = tidy({"a": [-0.5, -0.01, 0.01, 0.0]})
    failed = pd.DataFrame({"model": ["m0"], "treatment": ["int4"], "sign": ["lost"]})
    (row,) = tables.consistency(table, failed).to_dict("records")
    assert (row["n"], round(row["estimate"], 6)) == (3, 0.0)
    everything = pd.DataFrame(
        {"model": [f"m{i}" for i in range(4)], "treatment": ["int4"] * 4, "sign": ["lost"] * 4}
    )
    assert tables.consistency(table, everything).empty


def test_models_and_queries_can_be_the_pairs():
    given = [
        made(model, treatment, ALL, [close, close[::-1]])
        for model in ("m", "n")
        for treatment, close in (("fp32", [6.0, 5, 4, 3, 2, 1]), ("int4", [1.0, 2, 3, 4, 5, 6]))
    ]
    moved = tables.changes(tables.skews(given, "group", top=2), "int4")
    assert len(moved) == 4
    first = math.log((2 / 2) / (2 / 6)) - math.log((2 / 2) / (4 / 6))
    assert moved["MaxSkew@2", "OA"].tolist() == pytest.approx([first, -first, first, -first])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ClipStudy(seed=-1), "seed is -1"),
        (lambda: ClipStudy(images=1), "images is 1"),
        (lambda: ClipStudy(arch="vit"), "arch is 'vit'"),
        (lambda: ClipStudy(dataset=DataSettings(name="utkface", root="x")), "expected MothSettings"),
        (lambda: experiments_populations.population(seeds=[0, 0]), "each once"),
        (lambda: measures([made("m", "fp32", ALL)], "kind"), "group is 'kind'"),
        (lambda: measures([made("m", "fp32", ALL)] * 2, "group"), "given twice"),
        (lambda: tables.skews([made("m", "fp32", ALL)], "group"), "asked no neutral query"),
        (lambda: tables.skews([made("m", "fp32", ALL, [[1.0] * 6])], "group", top=7), "top is 7"),
        (lambda: tables.changes(tidy({"a": [0.0]}), "int3"), "'int3' is not in the table"),
        (lambda: replace(compass(), prompts=[["north"]]), "prompts for 1 classes"),
        (lambda: replace(compass(), prompts=[["north"], [], ["west"]]), "no prompt"),
        (lambda: replace(made("m", "fp32", ALL), logits=None).correct, "asked for no label"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(call, message):
    with pytest.raises(BadInput, match=message):
        call()


def test_moths_are_those_that_anybody_draws(store, population):
    assert (
        experiments_populations.scenes(population[0], store=store).fingerprint
        == captioned_moths(MOTHS).fingerprint
    )
