"""One network, one treatment, and four ways to ask who pays: the same numbers from each."""

import json
from pathlib import Path

import pandas as pd
import pytest
import safetensors.torch
from click.testing import CliRunner

import fairq_utils
from fairq_utils import cli
from fairq_utils.data import DataSettings
from fairq_utils.entrances import load_model, of_study, to_audit
from fairq_utils.studies import Study
from fairq_utils.training import Recipe
from fairq_utils.treatments import Treatment
from tests.test_entrances import of_here, tiny

SETTINGS = DataSettings(train_images=40, test_images=120, image_size=16)
SMALL = ("--train-images", 40, "--test-images", 120, "--image-size", 16)
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
        cli.main, ["audit", *map(str, entrance), *gates, "--margin", "0.02", "--out", str(out)]
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

    before = load_model(FACTORY, weights=folder / "before.safetensors")
    asked = to_audit(before, before.treated(TREATMENT, images), images)
    in_python = fairq_utils.audit(**asked, margin=0.02, fail_if=GATES)
    for name in ("before", "after"):  # a table as another framework would write it, in another order
        table: pd.DataFrame = asked[name].sample(frac=1, random_state=0)
        exact = dict.fromkeys(table.filter(like="logit_"), "float64")  # all digits of the same number
        table.astype(exact).to_csv(folder / f"{name}.csv", index=False)
    first, second = ((*model, folder / f"{name}.safetensors") for name in ("before", "after"))
    return {
        "Python": json.loads(in_python.to_json()),
        "model": by_command(folder / "model", *first, "--treatment", TREATMENT, *SMALL),
        "two models": by_command(folder / "two", *first, *second, *SMALL),
        "predictions": by_command(
            folder / "predictions", "--predictions", folder / "before.csv", folder / "after.csv"
        ),
    }


@pytest.mark.parametrize("entrance", ["model", "two models", "predictions"])
def test_every_entrance_gives_the_numbers_that_python_gives(records, entrance):
    wanted = numbers(records["Python"])
    assert wanted["overall"]["flip_rate"]["estimate"] > 0.1  # the treatment did something to be measured
    assert wanted["groupings"][0]["distributions"]
    assert numbers(records[entrance]) == wanted


def test_layers_are_measured_wherever_there_are_models(records):
    layers = {name: record["layers"] for name, record in records.items()}
    assert layers["Python"] == layers["model"] == layers["two models"]
    assert max(layer["zero_after"] for layer in layers["Python"]) > 0.1
    assert layers["predictions"] is None


def test_a_study_of_the_book_is_audited_as_its_network_is(tmp_path, monkeypatch):
    monkeypatch.setenv("FAIRQ_STORE", str(tmp_path))
    study = Study(dataset=SETTINGS, recipe=Recipe(epochs=1), seed=3)
    here = fairq_utils.audit(**of_study(study, "int4"), margin=0.02, fail_if=GATES)
    model = ("--model", "resnet18-seed3", "--treatment", "int4", "--epochs", 1)
    there = by_command(tmp_path / "out", *model, *SMALL)
    assert numbers(json.loads(here.to_json())) == numbers(there)
