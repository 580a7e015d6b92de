import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import fields
from pathlib import Path

import click
import pandas as pd
import pytest
import torch
from click.testing import CliRunner

from fairq_audit import cli
from fairq_book.build import notebooks
from fairq_book.cli import main
from fairq_book.experiments import studies
from fairq_book.experiments.codes import CODE
from fairq_book.experiments.parameters import StudyParameters
from fairq_book.experiments.store import MARKER, Store
from fairq_utils import __version__
from fairq_utils.data import sources
from fairq_utils.items import Item
from fairq_utils.treatments import treatment
from fairq_utils.treatments.jobs import train as jobs_train


@pytest.fixture
def no_kernel(monkeypatch):
    def refuse(*_args, **_options):
        raise AssertionError("a kernel was started")

    monkeypatch.setattr(notebooks.papermill, "execute_notebook", refuse)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["run", "01", "-p", "bit_width=[3]"],
            "has no parameter 'bit_width'; expected one of: setting, dataset, root",
        ),
        (["run", "01", "-p", "bit_widths=3"], "bit_widths is 3; expected list[int]"),
        (["run", "01", "-p", "bit_widths=['x']"], "bit_widths is ['x']; expected list[int]"),
        (["run", "01", "-p", "seeds=1.5"], "seeds is 1.5; expected list[int]"),
        (["run", "01", "-p", "bit_widths"], "'bit_widths' cannot be read; expected NAME=VALUE"),
        (["run", "01", "-p", "bit_widths=[3"], "cannot be read; expected NAME=VALUE"),
        (["run", "77"], "chapter is '77'; expected one of: 01_disparity_baseline"),
        (["book", "-p", "colour=red"], "No chapter has a parameter 'colour'; expected one of: activation"),
        (["book", "-p", "seeds=x"], "seeds is 'x'; expected list[int]"),
        (["book", "--profile", "desktop"], "profile is 'desktop'; expected one of: laptop"),
    ],
)
def test_refused_in_one_sentence_before_a_kernel_starts(no_kernel, arguments, said):
    result = CliRunner().invoke(main.main, arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_a_chapter_names_its_parameters():
    result = CliRunner().invoke(main.main, ["run", "01", "--help-parameters"])
    assert result.exit_code == 0
    for parameter in notebooks.find("01").parameters.values():
        assert f"{parameter.name}: {parameter.annotation} = {parameter.default!r}" in result.output
        assert parameter.help in result.output


def test_every_command_and_option_says_what_it_does():
    overview = CliRunner().invoke(main.main, ["--help"]).output
    for name, command in main.main.commands.items():
        assert f"  {name} " in overview
        # Lines are broken at spaces, and at hyphens.
        shown = "".join(CliRunner().invoke(main.main, [name, "--help"]).output.split())
        assert "".join(command.help.split("\n")[0].split()) in shown
        for option in command.params:
            if isinstance(option, click.Argument) or option.hidden:
                continue
            assert "".join(option.help.split()) in shown


@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("sweep", ["bits", "treatments", "workers", "scheduler"]),
        ("export", ["bits", "treatments", "out", "format"]),
    ],
)
def test_the_options_of_a_study_are_its_parameters_with_their_help(name, others):
    command = main.main.commands[name]
    options = {one.name: one for one in command.params if isinstance(one, click.Option)}
    assert list(options) == [one.name for one in fields(StudyParameters)] + others
    for one in fields(StudyParameters):
        assert options[one.name].help.lower().startswith(one.metadata["help"].lower())
        if one.name not in ("root", "seeds"):  # which are typed otherwise than they are written in a notebook
            assert options[one.name].default == one.default


WRONG = {"str": "3", "int": "many", "float": "long", "list[int]": "[1.5]", "list[str]": "[1]", "bool": "1"}


@pytest.mark.parametrize("chapter", notebooks.chapters(), ids=lambda chapter: chapter.slug)
def test_a_parameter_of_another_type_is_refused_in_one_sentence(no_kernel, chapter):
    for parameter in chapter.parameters.values():
        value = WRONG[parameter.annotation]
        result = CliRunner().invoke(main.main, ["run", chapter.slug[:2], "-p", f"{parameter.name}={value}"])
        assert result.exit_code == 2
        assert f"expected {parameter.annotation}, such as {parameter.default!r}." in result.stderr
        assert result.stderr.startswith(f"Error: {parameter.name} is ")
        assert result.stderr.count("\n") == 1


SMALL = ["-p", "train_images=60", "-p", "test_images=60", "-p", "epochs=1", "-p", "seeds=[0]"]
SMALL += ["-p", "arch=resnet18-16"]
SMALL += ["-p", "moth_train_images=60", "-p", "moth_seeds=[0]"]


def test_a_run_leaves_a_notebook_and_a_page_and_the_next_trains_nothing(clone):
    done = clone.fairq("run", "01", *SMALL, "-p", "bit_widths=[6, 3]")
    assert done.returncode == 0, done.stderr
    folders = list((clone.root / "_build" / "runs").iterdir())
    assert len(folders) == 1
    notebook = (folders[0] / "01_disparity_baseline.ipynb").read_text()
    page = (folders[0] / "index.html").read_text()
    for shown in ("int6", "int3", "Verdict"):
        assert shown in notebook
        assert shown in page
    networks = sorted(clone.store.glob("networks/*"))
    before = [path.stat().st_mtime_ns for path in networks]
    assert clone.fairq("run", "01", *SMALL, "-p", "bit_widths=[5]").returncode == 0
    assert sorted(clone.store.glob("networks/*")) == networks
    assert [path.stat().st_mtime_ns for path in networks] == before
    names = {path.name.rpartition("-")[0] for path in clone.store.glob("predictions/*")}
    assert names >= {f"moths-resnet18-16-32px-seed0-{name}" for name in ("fp32", "int3", "int5", "int6")}


def test_papermill_runs_a_chapter_as_any_papermill_user_would_type_it(clone):
    done = subprocess.run(
        [sys.executable, "-m", "papermill", "notebooks/01_disparity_baseline.ipynb", "out.ipynb",
         "-p", "bit_widths", "[6, 3]", "-p", "train_images", "60", "-p", "test_images", "60",
         "-p", "epochs", "1", "-p", "seeds", "[0]", "-p", "arch", "resnet18-16",
         "-p", "moth_train_images", "60", "-p", "moth_seeds", "[0]"],
        cwd=clone.root, env=clone.environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "int3" in (clone.root / "out.ipynb").read_text()


def test_a_value_that_cannot_be_is_refused_by_the_chapter_in_one_sentence(clone):
    done = clone.fairq("run", "01", *SMALL, "-p", "bit_widths=[1]")
    assert done.returncode == 2
    assert "bits is 1; expected a whole number from 2 to 16" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list((clone.root / "_build").rglob("*.ipynb"))


def test_a_store_that_cannot_be_written_is_said_and_nothing_is_lost(clone):
    clone.store.write_text("in the way")
    done = clone.fairq("run", "01", *SMALL)
    assert done.returncode == 2
    assert "cannot be written" in done.stderr
    assert "set FAIRQ_STORE" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert clone.store.read_text() == "in the way"


def test_where_names_the_store(clone):
    assert clone.fairq("where").stdout.strip() == str(clone.store)


def test_sync_repairs_and_check_fails(clone):
    source = clone.root / "notebooks" / "01_disparity_baseline.py"
    source.write_text(source.read_text().replace("# # 1. Who pays?", "# # Another title"))
    refused = clone.fairq("sync", "--check")
    assert refused.returncode == 2
    assert "run `make sync`" in refused.stderr
    assert clone.fairq("sync").returncode == 0
    assert clone.fairq("sync", "--check").returncode == 0
    cells = json.loads(source.with_suffix(".ipynb").read_text())["cells"]
    assert cells[0]["source"][0] == "# Another title\n"


def test_serving_needs_a_book_and_answers_this_machine_only(clone):
    unbuilt = clone.fairq("serve")
    assert unbuilt.returncode == 2
    assert "holds no book; build it first: make book" in unbuilt.stderr


HEX = 16 * "0"
SWEEP = ["--train-images", "60", "--test-images", "60", "--epochs", "1", "--seeds", "0,2", "--bits", "3"]
SWEEP += ["--arch", "resnet18-16"]


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("FAIRQ_STORE", str(tmp_path / "store"))
    return tmp_path / "store"


def said(*arguments, exit_code=0):
    result = CliRunner().invoke(main.main, list(arguments))
    assert result.exit_code == exit_code, result.output
    return result.output


def test_a_sweep_is_made_once_counted_exported_and_pruned(store, tmp_path):
    made = said("sweep", *SWEEP, "--treatments", "ptq,mse,nf4")
    assert made.startswith("8 predictions of 2 networks are in ")
    assert made.endswith("made now: 20 datasets, 2 networks, 8 predictions\n")
    assert said("sweep", *SWEEP, "--treatments", "ptq,mse,nf4").endswith("made now: nothing\n")

    rows = [line.split() for line in said("status").splitlines()[1:]]
    assert [row[:3] for row in rows[:3]] == [
        ["datasets", "current", "20"],  # broods: five groups, two splits, two draws
        ["networks", "current", "2"],
        ["predictions", "current", "8"],
    ]
    on_disk = sum(path.stat().st_size for path in store.glob("*/*.safetensors"))
    assert float(rows[3][2]) == pytest.approx(on_disk / 1e6, abs=0.05)  # "all 12 89.6 MB"

    said("export", *SWEEP, "--treatments", "ptq,mse,nf4", "--out", str(tmp_path / "out"))
    accuracy = pd.read_csv(tmp_path / "out" / "accuracy.csv")
    assert list(accuracy["treatment"].unique()) == ["fp32", "int3", "int3-mse", "nf4"]
    missing = said("export", *SWEEP, "--treatments", "qat", "--out", str(tmp_path / "no"), exit_code=2)
    assert "2 of 4 predictions are not in" in missing
    assert not (tmp_path / "no").exists()

    assert said("prune").startswith("0 files")
    half, left = f"half-{HEX}.safetensors", f".x-{HEX}.safetensors.1.part"
    (store / "networks" / half).write_bytes(b"half")
    (store / "predictions" / left).write_bytes(b"left")
    assert said("prune", "--dry-run") == "2 files, 8 bytes: would be removed\n"
    assert "damaged" in said("status")
    assert said("prune") == "2 files, 8 bytes: removed\n"
    assert not [path for path in store.glob("*/*") if path.suffix not in (".safetensors", ".lock")]
    assert not (store / "networks" / half).exists()
    assert said("sweep", *SWEEP, "--treatments", "ptq").endswith("made now: nothing\n")


def test_what_other_code_made_is_pruned_with_what_rests_on_it(store, monkeypatch):
    said("sweep", *SWEEP)
    monkeypatch.setattr(studies, "CODE", {stage: CODE[stage] for stage in ("read", "predict")})
    rows = {tuple(line.split()[:2]) for line in said("status").splitlines()[1:4]}
    assert rows == {("datasets", "current"), ("networks", "outdated"), ("predictions", "outdated")}
    assert said("prune").startswith("6 files")
    assert [path.parent.name for path in store.glob("*/*.safetensors")] == ["datasets"] * 20


def everything(folder):
    """Each file with its content, each link with its end."""
    return {
        path: path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def test_a_home_called_the_store_is_pruned_of_nothing(store):
    for name in ("Documents/thesis.txt", ".ssh/id_rsa", "photos/a.jpg", "networks/router.txt"):
        (store / name).parent.mkdir(parents=True, exist_ok=True)
        (store / name).write_text("mine")
    before = everything(store)
    for options in ([], ["--dry-run"]):
        assert "has no fairq-store.txt" in said("prune", *options, exit_code=2)
    for options in (["--adopt"], ["--adopt", "--dry-run"]):
        assert "holds nothing that fairq wrote" in said("prune", *options, exit_code=2)
    shown = said("status")
    assert "4 files or folders ('.ssh', 'Documents', 'router.txt', ...) not written by the store" in shown
    assert "prune" not in shown
    assert "damaged" not in shown
    assert everything(store) == before


def old_item(store):
    """Of other code, and so out of date."""
    made = Store(store)
    made.keep("networks", {"name": "old", "code": "of another version"}, Item({"x": torch.zeros(1)}))
    return made.path("networks", {"name": "old", "code": "of another version"})


def test_what_the_store_did_not_write_stops_neither_status_nor_prune_and_is_left(store):
    old = old_item(store)
    made = Store(store)
    made.keep("networks", {"name": "of no code"}, Item({"x": torch.zeros(1)}))
    uninstalled = {
        "name": "far",
        "code": CODE["read"],
        "versions": {"no-such-package": "1"},
    }
    made.keep("networks", uninstalled, Item({"x": torch.zeros(1)}))
    (store / "networks" / f"broken-{HEX}.safetensors").write_bytes(b"half")
    (store / "networks" / f"folder-{HEX}.safetensors").mkdir()
    (store / "networks" / f"dangling-{HEX}.safetensors").symlink_to("nowhere")
    (store / "networks" / "x.safetensors").mkdir()
    (store / "elsewhere").symlink_to(store.parent)
    (store / "notes.txt").write_text("mine")
    before = everything(store)
    shown = said("status")
    assert "networks     damaged          1     4 bytes\n" in shown
    assert "networks     outdated         1 " in shown
    assert "7 files or folders ('elsewhere', " in shown
    assert "`fairq prune` removes it" in shown
    asked = said("prune", "--dry-run")
    assert everything(store) == before
    done = said("prune")
    assert done == asked.replace("would be removed", "removed")
    assert done.startswith(
        f"2 files, {len(before[old]) + 4} bytes: removed\n7 files or folders ('elsewhere', "
    )
    gone = {path.name for path in before.keys() - everything(store).keys()}
    assert gone == {old.name, f"broken-{HEX}.safetensors"}
    assert said("prune").startswith("0 files, 0 bytes: removed\n7 files or folders")


def test_an_old_store_is_pruned_once_it_is_adopted(store):
    old = old_item(store)
    (store / MARKER).unlink()
    (store / "notes.txt").write_text("mine")
    assert "`fairq prune` says how to remove it" in said("status")
    assert "has no fairq-store.txt" in said("prune", exit_code=2)
    shown = said("prune", "--adopt", "--dry-run")
    assert shown.startswith("1 files, ")
    assert "1 file or folder ('notes.txt') not written by the store, or not readable: left" in shown
    assert old.exists()
    assert "has no fairq-store.txt" in said("prune", exit_code=2)
    assert said("prune", "--adopt") == shown.replace("would be removed", "removed")
    assert not old.exists()
    assert said("prune").startswith("0 files")
    assert (store / "notes.txt").exists()


def test_what_is_in_use_or_cannot_be_removed_is_left_and_said(store, monkeypatch):
    old = old_item(store)
    with Store(store).lock("networks", {"name": "old", "code": "of another version"}):
        assert said("prune") == "0 files, 0 bytes: removed\n1 in use by another process: left\n"
    assert old.exists()
    (store / "networks" / f"broken-{HEX}.safetensors").write_bytes(b"half")
    unlink = Path.unlink

    def refuse(path, **options):
        if path == old:
            raise PermissionError(13, "Permission denied")
        unlink(path, **options)

    monkeypatch.setattr(Path, "unlink", refuse)
    shown = said("prune", exit_code=2)
    assert shown.startswith("1 files, ")
    assert shown.endswith("set FAIRQ_STORE to one.\n")
    assert [path.name for path in store.glob("networks/*")] == [old.name]


def test_a_store_that_is_a_file_is_refused_and_one_that_is_not_there_is_empty(store):
    for command in ("status", "prune"):
        assert "0 bytes" in said(command)
    assert not store.exists()
    store.write_text("mine")
    for command in ("status", "prune"):
        assert "cannot be read (Not a directory)" in said(command, exit_code=2)
    assert store.read_text() == "mine"


def test_a_failed_sweep_says_what_failed_and_exits_with_one(store, monkeypatch):
    def fail(*_args, **_options):
        raise ZeroDivisionError("nothing to divide by")

    monkeypatch.setattr(jobs_train, "train_network", fail)
    output = said("sweep", *SWEEP, exit_code=1)
    assert output.splitlines() == [
        "Error: 6 of 6 could not be made, the rest is in the store.",
        "  moths-resnet18-16-32px-seed0: ZeroDivisionError: nothing to divide by (2 more need it)",
        "  moths-resnet18-16-32px-seed2: ZeroDivisionError: nothing to divide by (2 more need it)",
    ]


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--seeds", "a-b", "seeds is 'a-b'; expected whole numbers, such as 0-4 or 8,6,4"),
        ("--seeds", "0,0", "seeds is [0, 0]; expected whole numbers, each once"),
        ("--bits", "1", "bits is 1; expected a whole number from 2 to 16"),
        ("--treatments", "ptq,magic", "'magic' is not understood"),
        ("--dataset", "mooths", "dataset is 'mooths'; expected one of: moths"),
        ("--dataset", "utkface", "root is None; expected the path of your copy of utkface"),
        ("--arch", "resnet", "arch is 'resnet'; expected one of: resnet18"),
        ("--image-size", "7", "image_size is 7; expected a whole number"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused_in_one_sentence(store, option, value, message):
    result = CliRunner().invoke(main.main, ["sweep", option, value])
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not store.exists()


def test_data_are_counted_and_kept(store, tmp_path):
    output = said(
        "data", "moths", "--train-images", "60", "--test-images", "40", "--card", str(tmp_path / "card")
    )
    assert "Alder       24       2    17   43" in output
    assert json.loads((tmp_path / "card").read_text())["images"] == 100
    assert len(list(store.glob("datasets/*.safetensors"))) == 10  # a brood of each group and split


def test_every_word_of_a_treatment_is_explained():
    listed = said("treatments")
    for word, meaning in treatment.vocabulary()[["word", "meaning"]].itertuples(index=False):
        assert re.search(rf"^  {re.escape(word)}  +{re.escape(meaning)}$", listed, re.MULTILINE)


def test_the_names_of_data_sets_are_those_that_can_be_loaded():
    assert cli.DATA_NAMES == sources.NAMES


@pytest.fixture
def ends(monkeypatch, tmp_path):
    """Have `fairq where` end with an error; what is written aside goes to a folder of the test."""
    (tmp_path / "aside").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "aside"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def by(error):
        def fail():
            raise error

        monkeypatch.setattr("fairq_book.experiments.store.default_root", fail)
        return CliRunner().invoke(main.main, ["where"])

    return by


class _Panic(BaseException):
    """What a library that is written in Rust raises."""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("broken\ninto lines"), "RuntimeError: broken),"),
        (MemoryError(), "MemoryError),"),
        (AssertionError("x" * 1000), f"AssertionError: {'x' * 200}),"),
        (EOFError("the end"), "EOFError: the end),"),
        (PermissionError(13, "Permission denied"), "PermissionError: [Errno 13] Permission denied),"),
        (RecursionError("too deep"), "RecursionError: too deep),"),
        (_Panic("index out of bounds"), "_Panic: index out of bounds),"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_fault_of_ours_is_one_sentence_exit_code_3_and_a_trace_aside(ends, tmp_path, error, said):
    done = ends(error)
    assert done.exit_code == 3
    (trace,) = (tmp_path / "aside").iterdir()
    assert done.stderr.startswith(
        f"Error: this is a fault of fairq ({said} and says nothing about any model or gate"
    )
    assert f"the trace is in {trace}, to go with a report of it.\n" in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    text = trace.read_text()
    assert text.startswith(f"fairq-utils {__version__}, Python ")
    assert "\nfairq where\n" in text
    assert "Traceback (most recent call last)" in text
    assert type(error).__name__ in text
    assert trace.stat().st_mode & 0o077 == 0  # nobody else's business
    assert not list((tmp_path / "here").iterdir())


@pytest.mark.parametrize("why", ["missing", "full", "here"])
def test_a_trace_that_no_file_takes_goes_to_the_terminal(ends, tmp_path, monkeypatch, why):
    if why == "missing":
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    elif why == "here":
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "here"))
    else:
        if not Path("/dev/full").exists():
            pytest.skip("/dev/full is missing: this system cannot pretend to have a full disk")

        def full(**_options):
            (tmp_path / "aside" / "part").touch()
            return os.open("/dev/full", os.O_WRONLY), str(tmp_path / "aside" / "part")

        monkeypatch.setattr(tempfile, "mkstemp", full)
    done = ends(RuntimeError("broken"))
    assert done.exit_code == 3
    assert "Traceback (most recent call last)" in done.stderr
    assert "a fault of fairq" in done.stderr.splitlines()[-1]
    assert "the trace stands above" in done.stderr.splitlines()[-1]
    assert not [*(tmp_path / "aside").iterdir(), *(tmp_path / "here").iterdir()]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (click.ClickException("no"), 1),
        (click.UsageError("no"), 2),
        (click.exceptions.Exit(5), 5),
        (click.Abort(), 1),
        (KeyboardInterrupt(), 1),
        (SystemExit(7), 7),
        (BrokenPipeError(32, "Broken pipe"), 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_ends_a_command_on_purpose_is_no_fault(ends, tmp_path, error, code):
    done = ends(error)
    assert done.exit_code == code
    assert "fault" not in done.output
    assert not list((tmp_path / "aside").iterdir())


def test_a_program_that_calls_the_command_gets_the_fault_with_its_cause(ends):
    error = RuntimeError("broken")
    ends(error)
    with pytest.raises(click.ClickException, match="a fault of fairq") as caught:
        main.main(["where"], prog_name="fairq", standalone_mode=False)
    assert caught.value.exit_code == 3
    assert caught.value.__cause__ is error


def test_a_shell_sees_3_and_no_traceback(tmp_path):
    program = (
        "from fairq_book.cli.main import main; from fairq_book.experiments import store; "
        "store.default_root = None; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "where"],
        env=os.environ | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
    assert len(list(tmp_path.iterdir())) == 1


def test_the_command_says_what_its_exit_codes_mean():
    shown = " ".join(CliRunner().invoke(main.main, ["--help"]).output.split())
    assert "3 when the fault is fairq's own" in shown
