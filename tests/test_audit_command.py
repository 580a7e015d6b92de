"""The command: what it leaves and says, its exit codes, and how little it needs to start."""

import json
import os
import re
import resource
import shlex
import subprocess
import sys

import pandas as pd
import pytest
import yaml
from click.testing import CliRunner

import fairq_audit
from fairq_audit import auditing, cli, running
from fairq_book.cli import main
from tests.conftest import ROOT
from tests.test_auditing import TREES, tables


@pytest.fixture
def files(tmp_path):
    before, after = tables(TREES, {"elm": 0.3})
    before.to_csv(tmp_path / "fp32.csv", index=False)
    after[["id", "prediction"]].to_csv(tmp_path / "int4.csv", index=False)
    return tmp_path


def fairq(files, *arguments: str):
    given = ["audit", "--predictions", str(files / "fp32.csv"), str(files / "int4.csv")]
    return CliRunner().invoke(main.main, [*given, "--out", str(files / "out"), *arguments])


def test_an_audit_leaves_its_files_and_says_who_pays(files):
    done = fairq(files)
    assert done.exit_code == 0
    assert done.output.startswith("Harm shown. Group elm lost")
    assert "report.html" in done.output
    record = json.loads((files / "out" / "audit.json").read_text())
    assert record["compared"]["before"] == {"name": "fp32", "file": "fp32.csv", "rows": 1900}
    assert record["verdict"]["harmed"] == [{"grouping": "group", "group": "elm"}]
    assert "elm" in (files / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    ("gates", "code", "said"),
    [
        (["--fail-if", "worst_group_drop > 0.05"], 1, "Error: 1 of 1 gates failed."),
        (
            ["--fail-if", "worst_group_drop > 0.9", "--fail-if", "fvo_increase > 0.1"],
            1,
            "1 of 2 gates failed",
        ),
        (["--fail-if", "worst_group_drop > 0.9"], 0, "Passed. worst_group_drop > 0.9"),
        (["--fail-if", "worst_group_drop > 0.35"], 0, "Not ruled out. worst_group_drop > 0.35"),
        (["--fail-if", "worst_group_drop > 0.35", "--decide-on", "upper"], 1, "it cannot be ruled out."),
        (["--fail-if", "group_drop[elm] > 0.05"], 1, "Failed. group_drop[elm] > 0.05"),
        (["--fail-if", "group_drop[oak] > 0.05"], 2, "names no group of this audit; expected one of: ash"),
        (["--fail-if", "worst_group_drop > 0.35", "--strict"], 4, "1 of 1 gates can be neither passed nor"),
        (
            ["--fail-if", "worst_group_drop > 0.35", "--fail-if", "verdict = harm", "--strict"],
            1,
            "1 of 2 gates failed",
        ),
        (["--strict"], 2, "--strict was given without a gate; expected --fail-if"),
        (["--fail-if", "worst_group_drop > 0.9", "--strict"], 0, "Passed. worst_group_drop > 0.9"),
        (["--fail-if", "verdict != equivalent", "--margin", "0.02"], 1, "the verdict is harm shown."),
        (["--smallest-cell", "30"], 2, "--smallest-cell is now called --smallest-group"),
        (["--fail-if", "accuracy > 0.05"], 2, "cannot be read; expected QUANTITY > FRACTION"),
        (["--decide-on", "middle"], 2, "is not one of"),
        (["--groups", "colour"], 2, "fp32.csv has no column colour; it has id, label"),
        (["--margin", "7"], 2, "margin is 7.0; expected a fraction between 0 and 1"),
        (["--names", "one"], 2, "requires 2 arguments"),
    ],
)
def test_exit_codes(files, gates, code, said):
    done = fairq(files, *gates)
    assert done.exit_code == code
    assert said in done.output
    if code in (1, 4):
        assert (files / "out" / "report.html").exists()  # a failed gate is when the report is wanted


def test_options_reach_the_audit(files):
    done = fairq(
        files, "--groups", "group, light", "--names", "a", "b", "--margin", "0.02", "--confidence", "0.9",
        "--smallest-group", "30", "--fail-if", "flip_rate > 0.9", "--decide-on", "upper",
    )  # fmt: skip
    assert done.exit_code == 0
    record = json.loads((files / "out" / "audit.json").read_text())
    assert [grouping["name"] for grouping in record["groupings"]] == ["group", "light", "group x light"]
    assert record["compared"]["before"]["name"] == "a"
    settings = record["settings"]
    assert (settings["margin"], settings["confidence"], settings["smallest_group"]) == (0.02, 0.9, 30)
    assert record["gates"][0]["decided_on"] == "upper"


def test_images_of_one_file_alone_are_refused_unless_left_out(files):
    after = pd.read_csv(files / "int4.csv")
    after.iloc[:-5].to_csv(files / "int4.csv", index=False)
    refused = fairq(files)
    assert refused.exit_code == 2
    assert "share 1895 ids; 5 stand only in the first and 0 only in the second" in refused.output
    done = fairq(files, "--drop-unmatched")
    assert done.exit_code == 0
    record = json.loads((files / "out" / "audit.json").read_text())
    (gone,) = record["compared"]["dropped"]
    assert (gone["reason"], gone["n"], gone["of"]) == ("only in fp32.csv", 5, 1900)
    assert gone["groups"] == [
        {"grouping": "group", "group": "elm", "n": 5, "of": 200, "right": gone["right"]}
    ]
    first = "5 of 1,900 rows of fp32.csv are missing from int4.csv and were left out: by group elm 5 of 200."
    assert done.output.startswith(first)


def test_a_gate_does_not_pass_because_the_rows_that_it_would_fail_on_are_missing(files):
    """The second model crashed on three of ten elms, and answered all others as the first."""
    before = pd.read_csv(files / "fp32.csv")
    gone = before["group"].eq("elm") & (before.index % 10 < 3)
    before.loc[~gone, ["prediction", "id"]].to_csv(files / "int4.csv", index=False)
    for gate in (
        "group_drop[elm] > 0.02",
        "worst_group_drop > 0.02",
        "fvo_increase > 0.02",
        "overall_drop > 0.02",
    ):
        done = fairq(files, "--drop-unmatched", "--fail-if", gate)
        assert done.exit_code == 1, gate
        assert f"Failed. {gate}" in done.output
        assert "are missing, and if they count as wrong it is 0." in done.output
    assert fairq(files, "--drop-unmatched", "--fail-if", "group_drop[ash] > 0.02").exit_code == 0


def test_a_folder_that_cannot_be_written_is_refused_in_one_sentence(files):
    (files / "out").write_text("a file")
    done = fairq(files)
    assert done.exit_code == 2
    assert "cannot be written" in done.output


def test_the_folder_is_tried_before_answers_are_made(files, monkeypatch):
    monkeypatch.setattr(running, "predictions_of_models", lambda **_: pytest.fail("hours"))
    (files / "out").mkdir()
    (files / "out" / "groups.csv").write_text("mine")
    made = ["audit", "--model", "resnet18", "--treatment", "int4", "--out"]
    done = CliRunner().invoke(main.main, [*made, str(files / "out")])
    assert done.exit_code == 2
    assert "holds 'groups.csv', which is no part of an audit" in done.output
    (files / "out" / "groups.csv").rename(files / "file")
    for place in ("", ".", str(files / "file")):
        done = CliRunner().invoke(main.main, [*made, place])
        assert done.exit_code == 2
        assert "expected a folder" in done.output
    assert (files / "file").read_text() == "mine"


def test_a_folder_named_by_nothing_or_a_dot_is_no_place_for_a_report(files, monkeypatch):
    monkeypatch.chdir(files)
    for place in ("", "."):
        done = fairq(files, "--out", place)
        assert done.exit_code == 2
        assert "is the folder that you work in, or holds it; expected a folder of its own" in done.output
    assert sorted(path.name for path in files.iterdir()) == ["fp32.csv", "int4.csv"]


def workflow() -> dict:
    """The workflow of the reference page, as GitHub reads it."""
    page = (ROOT / "book" / "audit_reference.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```yaml\n(name: .*?)^```", page, re.M | re.S)
    return yaml.safe_load(block)


def test_the_workflow_on_the_reference_page_has_the_parts_that_github_asks_for():
    found = workflow()
    # YAML 1.1 reads the bare word `on` as true; GitHub does not.
    assert found.keys() == {"name", True, "permissions", "jobs"}
    assert found[True] == ["pull_request"]
    (job,) = found["jobs"].values()
    assert job["runs-on"] == "ubuntu-latest"
    for step in job["steps"]:
        assert len({"uses", "run"} & step.keys()) == 1
        assert step.keys() <= {"uses", "run", "with", "if"}
        assert re.fullmatch(r"[\w-]+/[\w-]+@v\d+", step.get("uses", "actions/checkout@v4"))
    kept = job["steps"][-1]
    assert (kept["uses"].partition("@")[0], kept["if"]) == ("actions/upload-artifact", "always()")


@pytest.mark.parametrize(("harm", "code"), [({}, 0), ({"elm": 0.3}, 1)])
def test_the_command_of_the_workflow_fails_the_job_when_somebody_pays(tmp_path, monkeypatch, harm, code):
    monkeypatch.chdir(tmp_path)
    (job,) = workflow()["jobs"].values()
    runs = [shlex.split(step["run"]) for step in job["steps"] if "run" in step]
    for script, table in zip(runs[1:3], tables(TREES, harm), strict=True):
        assert script[:2] == ["python", "predict.py"]
        table = table.rename(columns={"group": "gender", "light": "race"})
        table.to_csv(script[script.index("--out") + 1], index=False)
    program, *arguments = runs[3]
    assert program == "fairq-audit"
    done = CliRunner().invoke(cli.main, arguments)
    assert done.exit_code == code, done.output
    upload = job["steps"][-1]["with"]["path"]
    assert (tmp_path / upload / "report.html").exists()


def test_a_name_cannot_move_the_cursor_of_a_terminal(files):
    table = pd.read_csv(files / "fp32.csv")
    table["group"] = table["group"].replace("elm", "elm\x1b[2J\nHarm shown.")
    table.to_csv(files / "fp32.csv", index=False)
    done = fairq(files, "--fail-if", "worst_group_drop > 0.01")
    assert "\x1b" not in done.output
    assert not any(line.startswith("Harm shown.") for line in done.output.splitlines()[1:])


MEASURED = """
import json, sys
sys.argv = ["fairq", *sys.argv[1:]]
from fairq_book.cli.main import main
try:
    main()
finally:
    heavy = ("torch", "matplotlib", "scipy.stats", "seaborn")
    print(json.dumps([name for name in heavy if name in sys.modules]))
"""


def started(*arguments: str) -> tuple[subprocess.CompletedProcess[str], float]:
    """A run, and the seconds of processor that it took: those do not depend on who else is at work."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *arguments],
        capture_output=True, text=True, check=True, cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done, now.ru_utime + now.ru_stime - spent.ru_utime - spent.ru_stime


def test_help_and_a_small_audit_start_at_once_and_without_torch(files):
    helped, seconds = started("audit", "--help")
    assert "--fail-if" in helped.stdout
    assert seconds < 2
    given = ("--predictions", str(files / "fp32.csv"), str(files / "int4.csv"), "--out", str(files / "out"))
    done, seconds = started("audit", *given)
    assert done.stdout.startswith("Harm shown.")
    assert done.stdout.splitlines()[-1] == "[]"
    assert seconds < 2


@pytest.mark.parametrize("module", ["fairq_utils", "fairq_audit.cli"])
def test_what_is_imported_first_stays_light(module):
    code = f"import sys, {module}; print({{'torch', 'pandas', 'scipy', 'numpy'}} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "set()\n"


def test_the_index_gives_what_it_lists():
    assert fairq_audit.audit is auditing.audit
    assert fairq_audit.Audit is auditing.Audit
    with pytest.raises(AttributeError, match="fairq_audit has no 'adit'"):
        _ = fairq_audit.adit
