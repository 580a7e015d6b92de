import hashlib
import json
import subprocess

import pandas as pd
import pytest

from fairq_book.experiments import studies
from fairq_book.experiments.store import Store
from fairq_book.kit import export as kit_export
from fairq_book.kit import tables
from fairq_book.kit.treatments import COLUMNS
from fairq_utils.data import sources
from fairq_utils.errors import BadInput
from fairq_utils.training.loop import Recipe
from fairq_utils.treatments.treatment import FP32, Treatment
from tests.conftest import ROOT

SMALL = {"train_images": 60, "test_images": 60, "recipe": Recipe(epochs=1, batch_size=20)}
CARDS = ROOT / "book" / "data"


@pytest.fixture(scope="module")
def predictions(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("store"))
    return studies.predictions(studies.studies(seeds=[2, 5], **SMALL), [FP32, Treatment(3)], store=store)


@pytest.mark.parametrize(("format", "read"), [("csv", pd.read_csv), ("parquet", pd.read_parquet)])
def test_what_is_written_is_what_chapters_draw(tmp_path, predictions, format, read):
    written = kit_export.export(predictions, tmp_path / "out", format=format)
    assert sorted(path.name for path in written) == sorted(path.name for path in (tmp_path / "out").iterdir())
    for name, table in kit_export.tidy(predictions).items():
        back = read(tmp_path / "out" / f"{name}.{format}")
        pd.testing.assert_frame_equal(back, table, check_dtype=False)
        assert list(back)[: 1 + len(COLUMNS)] == ["treatment", *COLUMNS]
        assert set(zip(back["treatment"], back["bits"], back["grid"], strict=True)) <= {
            ("fp32", 32, "fp32"),
            ("int3", 3, "int"),
        }
    assert set(kit_export.tidy(predictions)) >= {"accuracy", "change"}
    pd.testing.assert_frame_equal(kit_export.tidy(predictions)["change"], tables.change(predictions))


def test_the_record_says_where_the_numbers_come_from(tmp_path, predictions):
    kit_export.export(predictions, tmp_path)
    record = json.loads((tmp_path / "provenance.json").read_text())
    assert record["seeds"] == [2, 5]
    assert record["treatments"] == ["fp32", "int3"]
    assert record["parameters"]["recipe"]["batch_size"] == 20
    assert record["parameters"]["dataset"]["train_images"] == 60
    assert "root" not in record["parameters"]["dataset"]
    assert record["data_fingerprints"] == {
        seed: sources.load("moths", train_images=60, test_images=60, draw=draw).fingerprint
        for seed, draw in (("2", 2), ("5", 1))
    }
    assert record["devices"] == [predictions[0].device]
    assert {"torch", "fairq-utils"} <= record["versions"].keys()
    for name, digest in record["tables"].items():
        assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == digest
    assert len(record["tables"]) == len(list(tmp_path.iterdir())) - 1
    if (ROOT / ".git").exists():
        revision = subprocess.check_output(["git", "-C", ROOT, "rev-parse", "HEAD"], text=True).strip()
        assert record["git_revision"].rstrip("+") == revision


def test_without_full_precision_there_is_no_change(predictions):
    assert "change" not in kit_export.tidy([p for p in predictions if p.treatment != FP32])


def test_what_cannot_be_is_refused_in_one_sentence(tmp_path, predictions):
    with pytest.raises(BadInput, match="format is 'xlsx'; expected one of: csv, parquet"):
        kit_export.export(predictions, tmp_path / "out", format="xlsx")
    store = Store(tmp_path / "store")
    other = studies.studies(seeds=[0], **SMALL | {"test_images": 50})
    mixed = [*predictions, *studies.predictions(other, [FP32], store=store)]
    with pytest.raises(BadInput, match="predictions of several data sets were given; expected those of one"):
        kit_export.export(mixed, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_card_of_the_moths_counts_the_moths():
    settings = sources.DataSettings()
    card = json.loads((CARDS / "moths.json").read_text())
    now = kit_export.card(settings, settings.load())
    for key in ("parameters", "images", "notes", "counts", "data_fingerprint"):
        assert card[key] == now[key]


@pytest.mark.parametrize("path", sorted(CARDS.glob("*.json")), ids=lambda path: path.stem)
def test_a_card_names_no_file_and_its_counts_add_up(path):
    text = path.read_text()
    assert ".jpg" not in text
    assert '"root"' not in text
    card = json.loads(text)
    counted = sum(record["n"] for record in card["counts"])
    # CelebA's validation split is in no count.
    assert counted == card["images"] - (19_867 if path.stem == "celeba" else 0)


# ---------------------------------------------------------------- what the book keeps

REVISION = "0123456789abcdef0123456789abcdef01234567"
TOY = {"title": "Toy", "seeds": [0, 1, 2], "bit_widths": [4], "train_images": 60, "test_images": 60}


def blob(content: bytes) -> str:
    """What git calls a content."""
    return hashlib.sha1(b"blob " + str(len(content)).encode() + b"\0" + content).hexdigest()
