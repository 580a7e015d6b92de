import hashlib
import json
import subprocess
import types
from dataclasses import asdict, replace
from importlib import metadata

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from fairq_book.experiments import export, studies
from fairq_book.experiments import kept as experiments_kept
from fairq_book.experiments.settings import Setting
from fairq_book.experiments.store import Store
from fairq_book.experiments.studies import Prediction
from fairq_book.kit import export as kit_export
from fairq_book.kit import tables
from fairq_utils.data import sources
from fairq_utils.errors import BadInput
from fairq_utils.training.loop import Recipe
from fairq_utils.treatments.treatment import FP32, Treatment
from tests.conftest import ROOT

SMALL = {"train_images": 60, "test_images": 60, "recipe": Recipe(epochs=1, batch_size=20)}
CARDS = ROOT / "book" / "results" / "data"


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
    images = sources.load("moths", train_images=60, test_images=60)
    assert record["data_fingerprint"] == images.fingerprint
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


@pytest.fixture
def git(monkeypatch) -> dict[str, str]:
    """A repository whose one commit holds the modules as they lie here; what is put in its place differs."""
    held = {
        path.relative_to(ROOT).as_posix(): blob(path.read_bytes())
        for path in (ROOT / "fairq_utils").rglob("*.py")
    }

    def answer(*arguments: str) -> str | None:
        if arguments[0] == "ls-tree":
            listed = [f"100644 blob {name}\t{path}" for path, name in held.items()]
            return "\n".join(listed) if arguments[2] == REVISION else None
        return REVISION

    monkeypatch.setattr(export, "git", answer)
    return held


@pytest.fixture
def book(tmp_path):
    """A book that declares a setting and keeps nothing yet."""
    root = tmp_path / "root"
    (root / "notebooks").mkdir(parents=True)
    (root / "_toc.yml").touch()
    declare(root, toy=TOY, other=TOY | {"title": "Other", "bit_widths": [3]})
    return root


def declare(root, **blocks) -> None:
    (root / "book").mkdir(exist_ok=True)
    (root / "book" / "settings.yml").write_text(yaml.safe_dump(blocks, sort_keys=False))


def hand_made() -> dict[str, pd.DataFrame]:
    """What may be in a table: a group that is called NA, numbers of any size, and none."""
    return {
        "groups": pd.DataFrame({"group": ["many", "NA", "few"], "train": [30, 20, 10], "test": [9, 6, 3]}),
        "change": pd.DataFrame(
            {
                "group": ["many", "NA", "few"],
                "n": [9, 6, 3],
                "estimate": [0.12345678, -1.2345678e-9, 123456.7],
                "lower": [np.nan, -2.0, 1e5],
                "converged": [True, False, True],
                "strength": [50.0, "both", np.nan],
            }
        ),
    }


@pytest.fixture
def keep(monkeypatch, book, git):
    """Keep tables that are made by hand, of the seeds 0 and 2, as those of the setting `toy`."""
    images = types.SimpleNamespace(fingerprint="f" * 64, device="cpu")

    def keeping(made=None, name="toy"):
        with monkeypatch.context() as patched:
            patched.setattr(
                experiments_kept.evidence, "tables_of", lambda *_, **__: hand_made() if made is None else made
            )
            patched.setattr(experiments_kept.evidence.studies, "predictions", lambda *_, **__: [images])
            setting = experiments_kept.find_setting(name, book)
            return experiments_kept.keep(
                setting, setting.studies(seeds=[0, 2]), experiments_kept.results_folder(book)
            )

    return keeping


def test_what_is_kept_reads_back_to_six_digits(book, keep):
    keep()
    kept = experiments_kept.load("toy", root=book)
    assert kept.tables.keys() == hand_made().keys()
    pd.testing.assert_frame_equal(kept["groups"], hand_made()["groups"])
    back, made = kept["change"], hand_made()["change"]
    assert list(back.columns) == list(made.columns)
    assert back["group"].tolist() == ["many", "NA", "few"]
    assert back["converged"].tolist() == [True, False, True]
    np.testing.assert_allclose(back["estimate"], [0.123457, -1.23457e-9, 123457], rtol=1e-12)
    np.testing.assert_array_equal(back["lower"], [np.nan, -2, 1e5])
    assert pd.to_numeric(back["strength"], errors="coerce")[0] == 50
    assert back["strength"][1] == "both"
    assert pd.isna(back["strength"][2])
    assert (kept.title, kept.seeds, kept.groups) == ("Toy", 2, ("many", "NA", "few"))


def test_every_table_that_is_made_can_be_read_back(book, git, monkeypatch, swept):
    monkeypatch.setattr(experiments_kept.evidence, "tables_of", lambda *_, **__: swept.tables)
    declared = {
        key: list(value) if isinstance(value, list | tuple) else value
        for key, value in asdict(swept.setting).items()
        if key != "name"
    }
    declare(book, tiny=declared)
    experiments_kept.keep(
        swept.setting,
        swept.setting.studies(),
        experiments_kept.results_folder(book),
        store=Store(swept.store),
    )
    kept = experiments_kept.load("tiny", root=book)
    assert kept.tables.keys() == swept.tables.keys()
    for name, made in swept.tables.items():
        back = kept[name]
        assert list(back.columns) == list(made.columns), name
        for column in made:
            numbers = [pd.to_numeric(table[column], errors="coerce") for table in (back, made)]
            np.testing.assert_allclose(*numbers, rtol=6e-6, atol=1e-300, err_msg=f"{name} {column}")
            is_word = numbers[1].isna() & made[column].notna().to_numpy()
            assert back[column][is_word.to_numpy()].tolist() == made[column][is_word].tolist()
    one = studies.predictions(swept.setting.studies(seeds=[0]), [FP32], store=Store(swept.store))[0]
    assert kept.provenance["devices"] == [one.device]
    assert (
        kept.provenance["data_fingerprint"]
        == sources.load("moths", train_images=60, test_images=60).fingerprint
    )


def test_two_runs_of_one_seed_in_stores_of_their_own_give_the_same_tables(tmp_path, git):
    small = Setting(
        name="small",
        title="Small",
        seeds=[3],
        bit_widths=[8, 3],
        train_images=60,
        test_images=60,
        epochs=1,
        tuning_epochs=1,
        repair=[3],
        images_each=5,
        images_per_group=3,
    )
    runs = []
    for place in ("one", "other"):
        paths = experiments_kept.keep(
            small, small.studies(), tmp_path / place, store=Store(tmp_path / f"store-{place}")
        )
        runs.append({path.name: path.read_bytes() for path in paths if path.suffix == ".csv"})
    assert len(runs[0]) > 20
    assert runs[0] == runs[1]


def test_the_record_names_every_table_the_code_and_the_commands(book, keep):
    written = keep()
    own = book / "book" / "results" / "toy"
    assert sorted(written) == sorted(own.iterdir())
    record = json.loads((own / "provenance.json").read_text())
    assert record["tables"].keys() == {"groups.csv", "change.csv"}
    for name, digest in record["tables"].items():
        assert hashlib.sha256((own / name).read_bytes()).hexdigest() == digest
    assert record["seeds"] == [0, 2]
    assert record["data_fingerprint"] == "f" * 64
    assert record["devices"] == ["cpu"]
    assert record["git_revision"] == REVISION
    assert record["commands"] == ["fairq sweep toy --root PATH", "fairq results write toy --root PATH"]
    assert record["setting"]["bit_widths"] == [4]
    assert record["recipe"]["epochs"] == Recipe().epochs
    assert record["versions"]["torch"] == metadata.version("torch")


def test_the_code_is_named_as_git_names_it(book, keep):
    keep()
    code = experiments_kept.load("toy", root=book).provenance["code"]
    modules = {"evidence", "tables", "metrics", "studies", "training", "moths", "quantizers", "landscape"}
    modules |= {"stages/predict", "stages/images"}
    assert {f"fairq_utils/{name}.py" for name in modules} <= code.keys()
    # What shows the tables has no part in them.
    assert not {f"fairq_utils/{name}.py" for name in ("figures", "claims", "cli", "verdicts")} & code.keys()
    named = subprocess.check_output(["git", "hash-object", *code], cwd=ROOT, text=True).split()
    assert list(code.values()) == named


def test_code_that_is_not_committed_is_refused(book, keep, git):
    git["fairq_utils/tables.py"] = blob(b"other")
    del git["fairq_utils/metrics.py"]
    said = r"fairq_utils/metrics\.py, fairq_utils/tables\.py differ from revision 0123456789; expected"
    with pytest.raises(BadInput, match=said):
        keep()
    assert not (book / "book" / "results").exists()


def test_code_that_has_no_part_in_the_tables_may_differ(book, keep, git):
    git["fairq_utils/figures.py"] = blob(b"other")
    keep()
    assert experiments_kept.load("toy", root=book).seeds == 2


def test_outside_of_git_tables_are_kept_and_read_without_a_revision(book, keep, monkeypatch):
    monkeypatch.setattr(export, "git", lambda *_: None)
    keep()
    kept = experiments_kept.load("toy", root=book)
    assert kept.provenance["git_revision"] is None
    assert len(kept.tables) == 2


def test_where_git_does_not_know_the_revision_the_tables_are_still_checked(book, keep, monkeypatch):
    keep()
    monkeypatch.setattr(export, "git", lambda *_: None)
    assert len(experiments_kept.load("toy", root=book).tables) == 2
    (book / "book" / "results" / "toy" / "groups.csv").write_text("group\n")
    with pytest.raises(BadInput, match="is not the table that its record speaks of"):
        experiments_kept.load("toy", root=book)


def test_a_table_that_is_made_no_more_is_removed(book, keep):
    keep()
    keep(made={"groups": hand_made()["groups"]})
    own = book / "book" / "results" / "toy"
    assert {path.name for path in own.iterdir()} == {"groups.csv", "provenance.json"}
    assert experiments_kept.load("toy", root=book).tables.keys() == {"groups"}


def test_what_is_missing_of_what_is_kept_is_refused_by_name(book, keep):
    keep()
    with pytest.raises(BadInput, match="toy has no table 'bounds'; expected one of: groups, change"):
        experiments_kept.load("toy", root=book)["bounds"]
    with pytest.raises(BadInput, match="setting is 'toys'; expected one of: toy, other"):
        experiments_kept.load("toys", root=book)


def edit_record(own, change) -> None:
    record = json.loads((own / "provenance.json").read_text())
    change(record)
    (own / "provenance.json").write_text(json.dumps(record))


def edit_table(own) -> None:
    text = (own / "change.csv").read_text()
    assert "0.123457" in text
    (own / "change.csv").write_text(text.replace("0.123457", "0.223457"))


def claim_other_code(own) -> None:
    edit_record(own, lambda record: record["code"].update({"fairq_utils/tables.py": "a" * 40}))


def claim_a_module_that_never_was(own) -> None:
    edit_record(own, lambda record: record["code"].update({"fairq_utils/magic.py": "a" * 40}))


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (edit_table, "change.csv is not the table that its record speaks of"),
        (lambda own: (own / "groups.csv").unlink(), "groups.csv is not the table that its record speaks of"),
        (claim_other_code, "claims code of fairq_utils/tables.py that revision 0123456789 does not hold"),
        (claim_a_module_that_never_was, "claims code of fairq_utils/magic.py that revision 0123456789"),
        (lambda own: (own / "provenance.json").unlink(), "holds no record of its tables that can be read"),
        (lambda own: (own / "provenance.json").write_text("{"), "holds no record of its tables that can be"),
        (lambda own: (own / "provenance.json").write_text("[1]"), "holds no record of its tables that can"),
        (lambda own: edit_record(own, lambda record: record.pop("code")), "holds no record of its tables"),
        (
            lambda own: declare(own.parents[2], toy=TOY | {"train_images": 61}),
            "was made for another train_images than book/settings.yml declares",
        ),
        (
            lambda own: declare(own.parents[2], toy=TOY | {"bit_widths": [4, 3]}),
            "was made for another bit_widths than book/settings.yml declares",
        ),
    ],
)
def test_tables_that_are_not_what_their_record_says_are_refused_in_one_sentence(book, keep, harm, said):
    keep()
    experiments_kept.load("toy", root=book)
    harm(book / "book" / "results" / "toy")
    with pytest.raises(BadInput, match=said) as refused:
        experiments_kept.load("toy", root=book)
    assert "make it again: fairq results write toy --root PATH" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_another_title_and_more_seeds_leave_the_tables_what_they_are(book, keep):
    keep()
    declare(book, toy=TOY | {"title": "A toy", "seeds": [0, 1, 2, 3, 4]})
    kept = experiments_kept.load("toy", root=book)
    assert (kept.title, kept.seeds) == ("A toy", 2)


def test_what_is_kept_comes_in_the_order_of_the_declarations_and_what_is_not_is_left_out(book, keep):
    assert experiments_kept.stored(book) == {}
    keep(name="other")
    assert list(experiments_kept.stored(book)) == ["other"]
    keep(name="toy")
    assert list(experiments_kept.stored(book)) == ["toy", "other"]
    assert experiments_kept.stored(book)["other"].title == "Other"
    edit_table(book / "book" / "results" / "other")
    with pytest.raises(BadInput, match=r"other/change\.csv is not the table"):
        experiments_kept.stored(book)


@pytest.mark.parametrize(
    ("train", "expected"),
    [
        ([30, 20, 10], ("many", "few", 30, 10)),
        ([10, 30, 20], ("NA", "many", 30, 10)),
        # Of equal ones the first is the largest and the last the smallest.
        ([30, 10, 10], ("many", "few", 30, 10)),
        ([20, 20, 10], ("many", "few", 20, 10)),
        ([7, 7, 7], ("many", "few", 7, 7)),
    ],
)
def test_between_whom_is_compared(book, keep, train, expected):
    keep(made={"groups": hand_made()["groups"].assign(train=train)})
    ends = experiments_kept.load("toy", root=book).ends
    assert (ends.largest, ends.smallest, ends.most, ends.fewest) == expected


# ---------------------------------------------------------------- a number anew


@pytest.fixture
def kept_tiny(git, swept):
    """The tables of two networks, with a record made on this machine."""
    prediction = studies.predictions(swept.setting.studies(seeds=[0]), [FP32], store=Store(swept.store))[0]
    record = export.made_by() | {
        "code": experiments_kept._code_of_tables(),
        "data_fingerprint": prediction.fingerprint,
        "devices": [prediction.device],
        "seeds": [0, 1],
    }
    return experiments_kept.Stored(swept.setting, swept.tables, record, swept.store)


def with_counts(kept, counts: pd.DataFrame):
    return replace(kept, tables=kept.tables | {"accuracy_by_seed": counts})


def test_on_the_machine_that_made_it_a_number_is_found_again(kept_tiny, swept):
    store, drawn = Store(swept.store), set()
    for draw in range(8):
        check = experiments_kept.check_a_cell(kept_tiny, draw=draw, store=store)
        assert check.agrees
        assert check.tolerance == 0
        table = kept_tiny["accuracy_by_seed"].set_index(["seed", "treatment", "group"])
        row = table.loc[(check.seed, check.treatment, check.group)]
        assert (check.n, check.kept, check.anew) == (row["n"], row["correct"], row["correct"])
        assert str(check).startswith(
            f"tiny seed {check.seed} {check.treatment} {check.group}: {check.kept} of"
        )
        assert str(check).endswith("expected equal: agrees")
        drawn.add((check.seed, check.treatment, check.group))
    assert len(drawn) > 4
    assert dict(store.written) == {}
    again = experiments_kept.check_a_cell(kept_tiny, draw=3, store=store)
    assert again == experiments_kept.check_a_cell(kept_tiny, draw=3, store=store)


def test_a_number_that_was_changed_by_one_is_found_out(kept_tiny, swept):
    counts = kept_tiny["accuracy_by_seed"]
    changed = with_counts(kept_tiny, counts.assign(correct=counts["correct"] + 1))
    check = experiments_kept.check_a_cell(changed, draw=1, store=Store(swept.store))
    assert not check.agrees
    assert check.kept == check.anew + 1
    assert "DIFFERS" in str(check)


def test_code_that_only_makes_tables_of_answers_leaves_the_number_what_it_was(kept_tiny, swept):
    code = kept_tiny.provenance["code"] | {"fairq_utils/tables.py": "a" * 40}
    mended = replace(kept_tiny, provenance=kept_tiny.provenance | {"code": code})
    assert experiments_kept.check_a_cell(mended, draw=1, store=Store(swept.store)).tolerance == 0


def test_other_images_are_refused(kept_tiny, swept):
    other = replace(kept_tiny, provenance=kept_tiny.provenance | {"data_fingerprint": "e" * 64})
    with pytest.raises(BadInput, match=r"the images have the fingerprint \w{10}; expected .* eeeeeeeeee: "):
        experiments_kept.check_a_cell(other, draw=1, store=Store(swept.store))


@pytest.mark.parametrize(
    "elsewhere",
    [
        {"hardware": "Linux abacus, 1 x beads"},
        {"code": experiments_kept._code_of_tables() | {"fairq_utils/training.py": "a" * 40}},
        {"devices": ["a device that is not here"]},
        {"versions": {"torch": "1.0", "torchvision": "0.1"}},
    ],
)
def test_on_another_machine_or_by_other_code_a_number_may_be_as_far_off_as_another_seeds(
    kept_tiny, swept, elsewhere
):
    far = replace(kept_tiny, provenance=kept_tiny.provenance | elsewhere)
    check = experiments_kept.check_a_cell(far, draw=1, store=Store(swept.store))
    assert check.tolerance > 0
    assert check.agrees
    assert f"expected at most {check.tolerance} apart: agrees" in str(check)


@pytest.mark.parametrize(
    ("correct", "n", "tolerance"),
    [
        # Four standard deviations of a difference of two, that of images sqrt(100 / 4): 28.3.
        ([50, 50, 50], 100, 29),
        # That of seeds is larger, sqrt(1300): 203.96.
        ([30, 50, 100], 100, 204),
        # None right is taken for one right, sqrt(0.99): 5.6. So is none wrong.
        ([0, 0, 0], 100, 6),
        ([100, 100, 100], 100, 6),
        # Of a single seed nothing is known of others.
        ([50], 100, 29),
    ],
)
def test_how_far_off_is_that_of_images_or_of_seeds(kept_tiny, monkeypatch, correct, n, tolerance):
    setting = Setting(name="toy", **TOY)
    counts = pd.DataFrame({"treatment": "fp32", "seed": range(len(correct)), "group": "Others", "n": n})
    kept = replace(with_counts(kept_tiny, counts.assign(correct=correct)), setting=setting)
    # Its own 5 images of Others, all of them right.
    logits, names = torch.eye(2)[[0] * 5], ("Alder", "Others")
    zeros, fingerprint = torch.zeros(5, dtype=torch.int64), kept.provenance["data_fingerprint"]

    def predict(studies_, treatments, **_):
        about = {"label_names": ("a", "b"), "group_names": names, "fingerprint": fingerprint}
        assert treatments == [FP32]
        return [Prediction(studies_[0], FP32, logits, zeros, zeros + 1, device="another", **about)]

    monkeypatch.setattr(experiments_kept.evidence.studies, "predictions", predict)
    check = experiments_kept.check_a_cell(kept, draw=0)
    assert check.tolerance == tolerance
    assert check.anew == 5
    assert check.agrees == (abs(check.kept - 5) <= tolerance)


def test_a_group_without_test_images_is_never_drawn(kept_tiny, swept):
    counts = kept_tiny["accuracy_by_seed"]
    is_largest = counts["group"] == counts["group"].iloc[0]
    empty = counts.assign(n=counts["n"].where(is_largest, 0), correct=counts["correct"].where(is_largest, 0))
    far = replace(with_counts(kept_tiny, empty), provenance=kept_tiny.provenance | {"hardware": "abacus"})
    for draw in range(5):
        assert experiments_kept.check_a_cell(far, draw=draw, store=Store(swept.store)).n > 0
