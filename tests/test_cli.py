import json
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from fairq_utils import chapters, cli


@pytest.fixture
def no_kernel(monkeypatch):
    def refuse(*_args, **_options):
        raise AssertionError("a kernel was started")

    monkeypatch.setattr(chapters.papermill, "execute_notebook", refuse)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["run", "01", "-p", "bit_width=[3]"],
            "has no parameter 'bit_width'; expected one of: dataset, arch",
        ),
        (["run", "01", "-p", "bit_widths=3"], "bit_widths is 3; expected list[int]"),
        (["run", "01", "-p", "bit_widths=['x']"], "bit_widths is ['x']; expected list[int]"),
        (["run", "01", "-p", "seeds=1.5"], "seeds is 1.5; expected list[int]"),
        (["run", "01", "-p", "bit_widths"], "'bit_widths' cannot be read; expected NAME=VALUE"),
        (["run", "01", "-p", "bit_widths=[3"], "cannot be read; expected NAME=VALUE"),
        (["run", "77"], "chapter is '77'; expected one of: 01_disparity_baseline"),
        (["book", "-p", "colour=red"], "No chapter has a parameter 'colour'; expected one of: arch"),
        (["book", "-p", "seeds=x"], "seeds is 'x'; expected list[int]"),
        (["book", "--profile", "desktop"], "profile is 'desktop'; expected one of: full, laptop"),
    ],
)
def test_refused_in_one_sentence_before_a_kernel_starts(no_kernel, arguments, said):
    result = CliRunner().invoke(cli.main, arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_a_chapter_names_its_parameters():
    result = CliRunner().invoke(cli.main, ["run", "01", "--help-parameters"])
    assert result.exit_code == 0
    for parameter in chapters.find("01").parameters.values():
        assert f"{parameter.name}: {parameter.annotation} = {parameter.default!r}" in result.output
        assert parameter.help in result.output


def test_every_command_and_option_says_what_it_does():
    overview = CliRunner().invoke(cli.main, ["--help"]).output
    for name, command in cli.main.commands.items():
        assert f"  {name} " in overview
        shown = " ".join(CliRunner().invoke(cli.main, [name, "--help"]).output.split())
        assert command.help.split("\n")[0] in shown
        for option in command.params:
            assert isinstance(option, click.Argument) or option.help.split("  ")[0] in shown


SMALL = ["-p", "train_images=60", "-p", "test_images=60", "-p", "epochs=1", "-p", "seeds=[0]"]


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
    names = sorted(path.name.split("-")[4] for path in clone.store.glob("predictions/*"))
    assert names == ["fp32", "int3", "int5", "int6"]


def test_papermill_runs_a_chapter_as_any_papermill_user_would_type_it(clone):
    done = subprocess.run(
        [sys.executable, "-m", "papermill", "notebooks/01_disparity_baseline.ipynb", "out.ipynb",
         "-p", "bit_widths", "[6, 3]", "-p", "train_images", "60", "-p", "test_images", "60",
         "-p", "epochs", "1", "-p", "seeds", "[0]"],
        cwd=clone.root, env=clone.environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "int3" in (clone.root / "out.ipynb").read_text()


@pytest.mark.parametrize(
    ("parameter", "said"),
    [
        ("bit_widths=[1]", "bits is 1; expected a whole number from 2 to 16"),
        ("bit_widths=[]", "bit_widths is []; expected whole numbers"),
        ("dataset=mooths", "dataset is 'mooths'; expected one of: moths"),
        ("seeds=[]", "seeds is []; expected whole numbers"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_the_chapter_in_one_sentence(clone, parameter, said):
    done = clone.fairq("run", "01", *SMALL, "-p", parameter)
    assert done.returncode == 2
    assert said in done.stderr
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
    source.write_text(source.read_text().replace("# # Disparity baseline", "# # Another title"))
    refused = clone.fairq("sync", "--check")
    assert refused.returncode == 2
    assert "run `make sync`" in refused.stderr
    assert clone.fairq("sync").returncode == 0
    assert clone.fairq("sync", "--check").returncode == 0
    cells = json.loads(source.with_suffix(".ipynb").read_text())["cells"]
    assert cells[0]["source"][0] == "# Another title\n"


def test_serving_needs_a_book_and_answers_this_machine_only(built):
    unbuilt = built.fairq("serve")
    assert unbuilt.returncode == 2
    assert "holds no book; build it first: make book" in unbuilt.stderr
