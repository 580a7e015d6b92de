"""A population as the book keeps it: which models, their tables, and the claims that are asked of them."""

from dataclasses import replace

import pandas as pd
import pytest
import yaml
from fairq_book.experiments.census import Census

from fairq_book import registry
from fairq_book.chapters.encoders import figures, story
from fairq_book.chapters.encoders import tables as encoders_tables
from fairq_book.experiments import census, export, populations, settings
from fairq_book.experiments import kept as experiments_kept
from fairq_book.experiments.store import Store
from fairq_book.pages import claims
from fairq_utils.data.moths import MothSettings
from fairq_utils.encoders import linear_layers
from fairq_utils.errors import BadInput
from tests.test_verdicts import cells, untraced

TOY = {
    "title": "Toy",
    "seeds": [0, 1],
    "training_sets": ["balanced", "noisy"],
    "archs": ["patch8"],
    "image_size": 16,
    "images": 150,
    "epochs": 10,
    "batch_size": 25,
    "treatments": ["fp32", "bnb-nf4", "int4"],
    "top": 10,
}
SETTING = Census(name="toy", **TOY)
EASY = MothSettings(train=450, test=120, sizes=(0.2,) * 5, difficulty=(0.0,) * 5)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def made(store):
    patched = pytest.MonkeyPatch()
    patched.setattr(populations, "MOTH_SETTINGS", EASY)
    chosen = SETTING.studies()
    yield chosen, encoders_tables.tables_of(SETTING, chosen, store=store)
    patched.undo()


@pytest.fixture
def kept(made, tmp_path):
    chosen, tables = made
    record = {
        "seeds": [0, 1],
        "commands": ["fairq sweep toy"],
        **census.made_of(chosen, store=Store(tmp_path)),
    }
    return experiments_kept.Stored(SETTING, tables, record, tmp_path)


def test_a_population_has_a_classifier_beside_every_encoder_seed_by_seed():
    names = [study.name for study in SETTING.studies()]
    assert names[:4] == [
        "moths-patch8-balanced-seed0",
        "moths-patch8-noisy-seed0",
        "moths-patch8-balanced-labels-seed0",
        "moths-patch8-noisy-labels-seed0",
    ]
    assert [name[-1] for name in names] == list("00001111")
    assert [study.seed for study in SETTING.studies(seeds=[1])] == [1] * 4
    with pytest.raises(BadInput, match=r"seeds are \[7\]; expected some of those of toy: \[0, 1\]"):
        SETTING.studies(seeds=[7])


def test_it_is_declared_by_its_training_sets(tmp_path):
    file = tmp_path / "settings.yml"
    file.write_text(yaml.safe_dump({"toy": TOY}))
    assert settings.declared(file) == {"toy": SETTING}
    file.write_text(yaml.safe_dump({"toy": TOY | {"repair": [4]}}))
    with pytest.raises(BadInput, match="says 'repair' of toy; expected some of: title, seeds, training_sets"):
        settings.declared(file)


def test_the_tables_are_what_the_chapter_computes(made, store):
    chosen, tables = made
    encoders = [study for study in chosen if study.taught == "captions"]
    given = populations.answers(encoders, SETTING.treatments, store=store)
    measured = encoders_tables.measures(given, "species", top=10)
    assert tables["measures"].equals(measured)
    failed = encoders_tables.failures(given)
    assert tables["consistency"].equals(encoders_tables.consistency(measured, failed))
    assert tables["groups"]["train"].tolist() == [90] * 5
    assert tables["groups"]["test"].sum() == 120
    counts = tables["accuracy_by_seed"]
    assert counts["model"].nunique() == 8
    own = counts.query("model == 'moths-patch8-noisy-seed1' and treatment == 'int4'").set_index("group")
    assert own.loc["OA", "n"] == 120
    assert own["correct"].drop("OA").sum() == own.loc["OA", "correct"]
    shown = measured.set_index(["model", "treatment", "measure", "group"])["value"]
    share = shown["moths-patch8-noisy-seed1", "int4", "accuracy", "OA"]
    assert own.loc["OA", "correct"] / 120 == pytest.approx(share)


def test_a_kept_number_is_found_again_and_one_that_was_changed_is_found_out(kept, store, made):
    here = kept.provenance | export.made_by() | {"code": experiments_kept._code_of_tables()}
    for draw in range(3):
        check = experiments_kept.check_a_cell(replace(kept, provenance=here), draw=draw, store=store)
        assert check.agrees
        assert check.tolerance == 0
        assert check.treatment.startswith("moths-patch8-")
    counts = kept["accuracy_by_seed"]
    changed = replace(
        kept,
        tables=kept.tables | {"accuracy_by_seed": counts.assign(correct=counts["correct"] + 1)},
        provenance=here,
    )
    assert not experiments_kept.check_a_cell(changed, draw=1, store=store).agrees


def test_the_claims_are_asked_of_it_and_of_nothing_else_the_others(kept):
    asked = [key for key, claim in registry.CLAIMS.items() if claim.asked_of(kept)]
    assert asked == ["D1", "D2", "D3", "D4"]
    assert (kept.seeds, kept.networks) == (2, 4)
    page = claims.page({"toy": kept})
    assert "4 models of 2 seeds" in repr(page)
    assert "claim-d1" in page.markup
    assert "claim-a1" not in page.markup
    both = pd.concat([kept["failures"], kept["classifier_failures"]])
    for key, judged in {
        "D1": story.no_consistent_change(kept["consistency"], kept["failures"]),
        "D2": story.groups_oppose(kept["consistency"], kept["failures"]),
        "D3": story.significant_but_small(kept["consistency"], kept["failures"]),
        "D4": story.differs_in_kind(kept["beyond_classifiers"], both),
    }.items():
        said = claims.judge(key, kept)
        assert said.word == judged.word
        assert said.because.endswith(judged.because)
        assert said.because.startswith("Under review: ") == (key != "D4")


def test_what_is_read_back_has_not_failed_for_want_of_a_sign(kept):
    file = kept.folder / "failures.csv"
    kept["failures"].to_csv(file, index=False)
    again = pd.read_csv(file, keep_default_na=False, na_values=[""])
    assert encoders_tables.fallen(again).shape == encoders_tables.fallen(kept["failures"]).shape
    read = encoders_tables.by_model(kept["measures"], again)
    assert read.equals(encoders_tables.by_model(kept["measures"], kept["failures"]))
    for judged in (story.no_consistent_change, story.groups_oppose, story.significant_but_small):
        assert judged(kept["consistency"], again) == judged(kept["consistency"], kept["failures"])


def test_every_number_beside_a_verdict_stands_in_the_row_that_is_named(kept):
    shown = {"toy": kept}
    strays, count = untraced(cells(shown), shown)
    assert strays == []
    assert count > 10


def test_a_pair_is_a_model_and_its_twin():
    def table(taught: str, after: dict[str, float]) -> pd.DataFrame:
        rows = [
            (f"m-{arch}{taught}-seed0", treatment, "accuracy", "FVO", value)
            for arch, gap in after.items()
            for treatment, value in (("fp32", 0.1), ("int4", gap))
        ]
        return pd.DataFrame(rows, columns=["model", "treatment", "measure", "group", "value"])

    encoders = table("", {"a": 0.15, "b": 0.17, "c": 0.16})
    classifiers = table("-labels", {"a": 0.11, "b": 0.12, "c": 0.13})
    (row,) = encoders_tables.beyond_classifiers(encoders, classifiers).to_dict("records")
    assert row["estimate"] == pytest.approx((0.04 + 0.05 + 0.03) / 3)
    assert (row["n"], row["rises"], row["family"]) == (3, 3, "bias")
    fallen = pd.DataFrame({"model": ["m-b-labels-seed0"], "treatment": ["int4"], "sign": ["lost"]})
    (without,) = encoders_tables.beyond_classifiers(encoders, classifiers.copy(), fallen).to_dict("records")
    assert without["n"] == 2
    assert without["estimate"] == pytest.approx((0.04 + 0.03) / 2)


NOTHING = pd.DataFrame(columns=["model", "treatment", "accuracy", "original", "sign"])


def beyond(**treatments: tuple[float, ...]) -> pd.DataFrame:
    encoders, classifiers = [], []
    for model in range(8):
        for rows, name in ((encoders, f"m{model}"), (classifiers, f"m{model}-labels")):
            rows.append((name, "fp32", "accuracy", "FVO", 0.1))
            for treatment, (mean, spread) in treatments.items():
                moved = mean + spread * (-1) ** model if rows is encoders else 0.0
                rows.append((name, treatment, "accuracy", "FVO", 0.1 + moved))
    columns = ["model", "treatment", "measure", "group", "value"]
    return encoders_tables.beyond_classifiers(
        pd.DataFrame(encoders, columns=columns), pd.DataFrame(classifiers, columns=columns)
    )


@pytest.mark.parametrize(
    ("treatments", "word"),
    [
        ({"int4": (0.05, 0.01)}, "supported"),
        ({"int8": (0.0, 0.002)}, "contradicted"),
        ({"int4": (0.05, 0.01), "int8": (0.0, 0.002)}, "mixed"),
        ({"int4": (0.0, 0.2)}, "undecided"),
    ],
)
def test_encoders_differ_from_classifiers_or_are_shown_to_be_alike(treatments, word):
    verdict = story.differs_in_kind(beyond(**treatments), NOTHING)
    assert verdict.word == word
    assert "8 pairs" in verdict.because


def test_figures_show_every_model_measure_and_group(made):
    _, tables = made
    moved = encoders_tables.by_model(tables["measures"], tables["failures"])
    found = tables["consistency"]
    standing = moved[moved["measure"] == "accuracy"].query("group == 'FVO' and treatment == 'int4'")
    assert len(standing) == found.query("group == 'FVO' and treatment == 'int4'")["n"].item()
    wide = tables["measures"].pivot_table(
        index=["model", "measure", "group"], columns="treatment", values="value"
    )
    for row in standing.to_dict("records"):
        own = wide.loc[(row["model"], "accuracy", "FVO")]
        assert row["change"] == pytest.approx(own["int4"] - own["fp32"])
    picture = figures.population_changes(moved, found)
    for measure in ("FVO", "MaxSkew@10", "MinSkew@10", "NDKL@10"):
        assert f"{measure}, int4 " in picture.alt
    assert "Alder" in figures.accuracy_by_group(found).alt
    assert "captions" in figures.encoders_and_classifiers(found, tables["classifier_consistency"]).alt
    assert "margins" in figures.against_margins(found).alt


def test_where_nothing_stands_that_is_said(made):
    found = made[1]["consistency"].iloc[:0]
    for picture in (
        figures.population_changes(pd.DataFrame(), found),
        figures.accuracy_by_group(found),
        figures.against_margins(found),
        figures.encoders_and_classifiers(found, found),
    ):
        assert repr(picture) == "Nothing is drawn: no treatment has two models that stand."


def test_what_the_models_are_worth_is_said(made):
    _, tables = made
    said = str(story.who_was_trained(tables["measures"], tables["failures"], classes=5))
    rows = tables["measures"].query("measure == 'accuracy' and group == 'OA' and treatment == 'fp32'")
    assert said.startswith("4 models. In full precision they name ")
    assert f"{100 * rows['value'].mean():.1f} %" in said
    assert "guessing would reach 20.0 %" in said
    balanced, noisy = (
        f"{100 * rows[rows['model'].str.contains(name)]['value'].mean():.1f} %"
        for name in ("balanced", "noisy")
    )
    assert f"By training set: balanced {balanced}, noisy {noisy}. " in said
    shown = story.retrieval(tables["measures"])
    assert shown.index.tolist() == ["fp32", "bnb-nf4", "int4"]
    assert shown.loc["fp32", "flips"] == 0
    assert shown.columns[0] == "recall to text@1"


def test_what_rounds_is_said_in_full():
    said = str(story.what_rounds(linear_layers.linear_treatments(["fp32", "bnb-int8", "int5"])))
    assert said.count("\n- `") == 2
    assert "outliers in full. *Runs* " in said
    assert "- `int5`: our own: weights at 5 bits, one scale for each layer. *Runs* fairq_utils: Uni" in said


def test_who_lost_and_who_won_is_said_where_it_is_sure():
    counts = pd.DataFrame(
        [
            ("int4", "few", 90, 40, 5, 1e-6, 1e-6),
            ("int4", "many", 90, 3, 30, 1e-5, 1e-5),
            ("int8", "few", 90, 2, 1, 1.0, 1.0),
        ],
        columns=["treatment", "group", "n", "lost", "won", "p", "p_holm"],
    )
    said = str(story.lost_and_won(counts))
    assert "- `int4`: lost by few (40 lost, 5 won); won by many (30 won, 3 lost)" in said
    assert "- `int8`: no group surely" in said


def test_what_is_read_may_be_worded_otherwise(made, store):
    encoders = [study for study in made[0] if study.taught == "captions"][:1]
    own = populations.answers(encoders, ["fp32"], prompts=["a {} moth"], store=store)
    usual = populations.answers(encoders, ["fp32"], store=store)
    assert not own[0].logits.equal(usual[0].logits)
    with pytest.raises(BadInput, match="a prompt is 'a moth'; expected one gap"):
        populations.answers(encoders, ["fp32"], prompts=["a moth"], store=store)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"dataset": "folder"}, "dataset is 'folder'; expected moths or fairface"),
        ({"root": "/somewhere"}, "root is '/somewhere'; expected none, for moths are drawn"),
        ({"taught": "stories"}, "taught is 'stories'; expected captions or labels"),
        ({"archs": ["vit"]}, "arch is 'vit'; expected one of: patch8, patch4, patch8-deep"),
    ],
)
def test_a_population_that_cannot_be_is_refused_in_one_sentence(given, said):
    with pytest.raises(BadInput, match=said):
        populations.population(**given)
