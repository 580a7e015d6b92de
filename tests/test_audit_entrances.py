"""One network, one treatment, and four ways to ask who pays: the same numbers from each."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from click.testing import CliRunner
from PIL import Image

from fairq_audit import auditing
from fairq_audit.models.tables import group_columns, to_audit
from fairq_book.chapters.audit.models import of_study
from fairq_book.cli import main
from fairq_book.experiments.studies import Study
from fairq_utils.data.sources import DataSettings
from fairq_utils.errors import BadInput
from fairq_utils.quantization.onnx import export_onnx
from fairq_utils.training.loop import Recipe
from fairq_utils.treatments.treatment import Treatment
from tests.test_audit_models import AS_IN_THE_BOOK, of_here, opened, tiny

SETTINGS = DataSettings(train_images=40, test_images=120, image_size=16)
SMALL = ("--train-images", 40, "--test-images", 120, "--image-size", 16)
ASKED = (*AS_IN_THE_BOOK, *SMALL)
TREATMENT = "int2"
GATES = ["worst_group_drop > 0.02", "flip_rate >= 0"]  # the second always fails
FACTORY = of_here("tiny")


def numbers(record: dict) -> dict:
    """All that was measured and decided, without what the two models are called and where they lay."""
    kept = (
        "verdict",
        "overall",
        "worst_group_drop",
        "groupings",
        "settings",
        "gates",
        "passed",
        "not_tested",
    )
    return {name: record[name] for name in kept} | {"classes": record["compared"]["classes"]}


def by_command(out: Path, *entrance: object) -> dict:
    gates = [part for gate in GATES for part in ("--fail-if", gate)]
    done = CliRunner().invoke(
        main.main, ["audit", *map(str, entrance), *gates, "--margin", "0.02", "--out", str(out)]
    )
    assert done.exit_code == 1, done.output
    return json.loads((out / "audit.json").read_text())


@pytest.fixture(scope="module")
def records(tmp_path_factory) -> dict[str, dict]:
    folder = tmp_path_factory.mktemp("one")
    images = SETTINGS.load()
    network = tiny(seed=1).eval()
    rounded = Treatment.parse(TREATMENT).apply(network, images)
    safetensors.torch.save_file(network.state_dict(), folder / "before.safetensors")
    safetensors.torch.save_file(rounded.state_dict(), folder / "after.safetensors")
    model = ("--model", FACTORY, "--weights")

    before = opened(FACTORY, weights=folder / "before.safetensors")
    asked = to_audit(before, before.treated(TREATMENT, images), images)
    in_python = auditing.audit(**asked, margin=0.02, fail_if=GATES)
    for name in ("before", "after"):  # a table as another framework would write it, in another order
        table: pd.DataFrame = asked[name].sample(frac=1, random_state=0)
        exact = dict.fromkeys(table.filter(like="logit_"), "float64")  # all digits of the same number
        table.astype(exact).to_csv(folder / f"{name}.csv", index=False)
    first, second = ((*model, folder / f"{name}.safetensors") for name in ("before", "after"))
    return {
        "Python": json.loads(in_python.to_json()),
        "model": by_command(folder / "model", *first, "--treatment", TREATMENT, *ASKED),
        "two models": by_command(folder / "two", *first, *second, *ASKED),
        "predictions": by_command(
            *(folder / "predictions", "--predictions", folder / "before.csv", folder / "after.csv"),
            *("--unit", "image"),
        ),
    }


@pytest.mark.parametrize("entrance", ["model", "two models", "predictions"])
def test_every_entrance_gives_the_numbers_that_python_gives(records, entrance):
    wanted = numbers(records["Python"])
    assert wanted["overall"]["flip_rate"]["estimate"] > 0.1  # the treatment did something to be measured
    assert wanted["groupings"][0]["distributions"]
    assert numbers(records[entrance]) == wanted


def test_one_model_given_twice_is_refused_before_it_answers(tmp_path, monkeypatch):
    def answering(_):
        raise BadInput("hours of answers begin")

    monkeypatch.setattr("fairq_book.chapters.audit.models.dataset", answering)
    for name, seed in {"one": 0, "same": 0, "other": 1}.items():
        safetensors.torch.save_file(tiny(seed=seed).state_dict(), tmp_path / f"{name}.safetensors")
    example = torch.zeros(2, 3, 16, 16)
    torch.export.save(torch.export.export(tiny().eval(), (example,)), tmp_path / "one.pt2")
    export_onnx(tiny().eval(), tmp_path / "one.onnx", example=example)

    def twice(first: list[object], second: list[object]) -> str:
        given = [str(part) for part in ("audit", *first, *second, *ASKED, "--out", tmp_path / "out")]
        done = CliRunner().invoke(main.main, given)
        assert done.exit_code == 2
        return done.output

    def filled(name: str) -> list[object]:
        return ["--model", FACTORY, "--weights", tmp_path / f"{name}.safetensors"]

    for one in (["--model", tmp_path / "one.onnx"], ["--model", tmp_path / "one.pt2"], filled("one")):
        assert "are one model; expected two" in twice(one, one)
    assert "are one model; expected two" in twice(filled("one"), filled("same"))
    assert "hours of answers" in twice(filled("one"), filled("other"))


def test_layers_are_measured_wherever_there_are_models(records):
    layers = {name: record["layers"] for name, record in records.items()}
    assert layers["Python"] == layers["model"] == layers["two models"]
    assert max(layer["zero_after"] for layer in layers["Python"]) > 0.1
    assert layers["predictions"] is None


def test_a_study_of_the_book_is_audited_as_its_network_is(tmp_path, monkeypatch):
    monkeypatch.setenv("FAIRQ_STORE", str(tmp_path))
    study = Study(dataset=SETTINGS, arch="resnet18-16", recipe=Recipe(epochs=1), seed=3)
    here = auditing.audit(**of_study(study, "int4"), margin=0.02, fail_if=GATES)
    model = ("--model", "resnet18-16-seed3", "--treatment", "int4", "--epochs", 1)
    there = by_command(tmp_path / "out", *model, *SMALL)
    assert numbers(json.loads(here.to_json())) == numbers(there)


# ---------------------------------------------------------------- groups by several columns


@pytest.fixture
def shop(tmp_path) -> Path:
    """A folder of images with two columns of groups beside the usual one."""
    draw = np.random.default_rng(0)
    n = 240
    table = pd.DataFrame(
        {"file": [f"{place:03}.png" for place in range(n)], "label": ["moth", "fly"] * (n // 2)}
    )
    table["group"] = draw.choice(["ash", "elm"], n)
    table["gender"] = draw.choice(["f", "m"], n)
    table["race"] = draw.choice(["one", "two", "rare"], n, p=[0.5, 0.44, 0.06])
    table["split"] = ["train", "test", "test"] * (n // 3)
    for place, file in enumerate(table["file"]):
        pixels = draw.integers(0, 255, (16, 16, 3), dtype=np.uint8) // 2 + 60 * (place % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / file)
    table.to_csv(tmp_path / "labels.csv", index=False)
    return tmp_path


def test_groups_by_several_columns_of_a_folder_are_those_of_its_table(shop, tmp_path_factory):
    data = ("--dataset", "folder", "--root", shop, "--image-size", 16, "--groups", "gender,race")
    made = ("--model", of_here("tiny"), "-a", "classes=2", "--treatment", TREATMENT, *AS_IN_THE_BOOK)
    out = tmp_path_factory.mktemp("out")
    record = by_command(out, *made, *data)
    crossed = record["groupings"][-1]
    assert [one["name"] for one in record["groupings"]] == ["gender", "race", "gender x race"]
    table = pd.read_csv(shop / "labels.csv").query("split == 'test'")
    expected = table.groupby(["gender", "race"]).size()
    small = expected[expected < 20]
    assert len(small)
    named = {cell: "gender={} x race={}".format(*cell) for cell in expected.index}
    apart = {cell["cell"]: cell["n"] for cell in crossed["pooled"]["cells"]}
    assert apart == {named[cell]: n for cell, n in small.items()}
    sizes = {one["group"]: one["n"] for one in crossed["groups"] if not one["pooled"]}
    assert sizes == {named[cell]: n for cell, n in expected[expected >= 20].items()}
    # Each image kept its own: the predictions that are left carry the columns of its line.
    left = pd.read_parquet(out / "before.parquet")
    own = pd.read_csv(shop / "labels.csv").loc[left["id"], ["label", "group", "gender", "race"]]
    pd.testing.assert_frame_equal(left[own.columns.tolist()], own.reset_index(drop=True), check_dtype=False)
    # And they can be audited again without the model, with the same numbers.
    files = ("--predictions", out / "before.parquet", out / "after.parquet", "--groups", "gender,race")
    files += ("--unit", "image")
    assert numbers(by_command(out / "again", *files)) == numbers(record)


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ("colour", "groups names colour, which folder does not have; expected some of: label, group, gender"),
        ("file", "groups names file, which folder does not have"),
        ("empty", "has 160 test images without a empty; expected one for each"),
    ],
)
def test_columns_that_a_folder_does_not_have_are_refused(shop, column, said):
    pd.read_csv(shop / "labels.csv").assign(empty=" ").to_csv(shop / "labels.csv", index=False)
    settings = DataSettings(name="folder", root=str(shop), image_size=16)
    with pytest.raises(BadInput, match=said):
        group_columns(settings, settings.load(), ["gender", column])


def test_a_folder_with_one_column_of_groups_says_so(shop):
    table = pd.read_csv(shop / "labels.csv")[["file", "label", "group", "split"]]
    table.to_csv(shop / "labels.csv", index=False)
    settings = DataSettings(name="folder", root=str(shop), image_size=16)
    with pytest.raises(BadInput, match="groups names race, but folder holds one group only, in the column"):
        group_columns(settings, settings.load(), ["group", "race"])


def test_images_of_other_settings_are_refused(shop):
    settings = DataSettings(name="folder", root=str(shop), image_size=16)
    with pytest.raises(BadInput, match="are others than those that were loaded; expected the same"):
        group_columns(replace(settings, test_images=50), settings.load(), ["race"])


def test_faces_can_be_compared_by_each_of_their_attributes(tmp_path):
    draw = np.random.default_rng(0)
    for place in range(60):
        age, gender, race = draw.integers(1, 80), draw.integers(2), draw.integers(5)
        pixels = draw.integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{age}_{gender}_{race}_2017{place:05}.jpg")
    settings = DataSettings(name="utkface", root=str(tmp_path), label="gender", image_size=16)
    images = settings.load()
    found = group_columns(settings, images, ["gender", "race"])
    shown = images.is_test
    assert found["race"].tolist() == [images.group_names[code] for code in images.groups[shown]]
    assert found["gender"].tolist() == [images.label_names[code] for code in images.labels[shown]]
    assert len(set(found["race"])) > 1
