"""What a pipeline gets of an audit: an assertion, JUnit XML, a summary, and the reference page's action."""

import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
import yaml
from click.testing import CliRunner

import fairq_audit
from fairq_audit import auditing, pipelines
from fairq_audit.cli import main
from fairq_utils.errors import BadInput
from tests.conftest import ROOT
from tests.test_auditing import TREES, tables

GATES = [
    "worst_group_drop > 0.05",
    "worst_group_drop > 0.35",
    "overall_drop > 0.5",
]  # failed, not ruled out, passed


@pytest.fixture(scope="module")
def harmed() -> auditing.Audit:
    return auditing.audit(*tables(TREES, {"elm": 0.3}), fail_if=GATES)


@pytest.fixture(scope="module")
def spared() -> auditing.Audit:
    before, _ = tables(TREES, {})
    return auditing.audit(before, before, fail_if=["worst_group_drop > 0.5"], margin=0.1)


# ---------------------------------------------------------------- an assertion


def test_an_assertion_says_the_verdict_and_the_failed_gates(harmed):
    with pytest.raises(AssertionError) as raised:
        fairq_audit.assert_no_harm(*tables(TREES, {"elm": 0.3}), fail_if=GATES)
    lines = str(raised.value).splitlines()
    assert lines[0] == str(harmed)
    assert [line[:34] for line in lines[1:]] == ["Failed. worst_group_drop > 0.05: 0"]


def test_an_assertion_that_holds_gives_the_audit_and_its_settings_reach_it():
    found = fairq_audit.assert_no_harm(
        *tables(TREES, {}), groups=["group", "light"], margin=0.1, fail_if=["flip_rate > 0.5"]
    )
    assert found.verdict == "equivalent"
    assert [one["name"] for one in found.record["groupings"]] == ["group", "light", "group x light"]


def test_harm_that_no_gate_asks_about_is_harm():
    with pytest.raises(AssertionError, match=r"^Harm shown\. Group elm lost"):
        fairq_audit.assert_no_harm(*tables(TREES, {"elm": 0.3}), fail_if=["fvo_increase > 0.9"])


def few() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Too few images to tell anything."""
    return tables({"ash": 30, "elm": 30}, {}, seed=1)


@pytest.mark.parametrize("options", [{}, {"fail_if": ["worst_group_drop > 0.02"]}])
def test_what_cannot_be_told_fails_where_one_is_strict(options):
    found = fairq_audit.assert_no_harm(*few(), **options)
    assert found.verdict == "cannot tell"
    with pytest.raises(AssertionError, match=r"(?m)^Cannot tell\.") as raised:
        fairq_audit.assert_no_harm(*few(), **options, strict=True)
    assert ("worst_group_drop > 0.02" in str(raised.value)) is bool(options)


def test_bad_input_is_no_assertion():
    with pytest.raises(BadInput, match="cannot be read; expected QUANTITY > FRACTION"):
        fairq_audit.assert_no_harm(*few(), fail_if=["harm"])


# ---------------------------------------------------------------- JUnit


def outcomes(content: bytes) -> dict[str, str]:
    return {
        case.attrib["name"]: next((child.tag for child in case), "passed")
        for case in ElementTree.fromstring(content).iter("testcase")
    }


def test_each_gate_and_the_verdict_is_a_test_case(harmed):
    content = pipelines.junit(harmed.record)
    told = ["failure", "failure", "skipped", "passed"]
    assert outcomes(content) == dict(zip(["verdict", *GATES], told, strict=True))
    suite = ElementTree.fromstring(content).find("testsuite")
    counts = {name: suite.attrib[name] for name in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "4", "failures": "2", "errors": "0", "skipped": "1"}
    messages = [child.attrib["message"] for case in suite for child in case]
    assert messages == [str(harmed), *(gate["sentence"] for gate in harmed.record["gates"][:2])]


def test_what_is_not_ruled_out_fails_where_one_is_strict(harmed, spared):
    assert outcomes(pipelines.junit(harmed.record, strict=True))[GATES[1]] == "failure"
    cannot_tell = auditing.audit(*few()).record
    assert outcomes(pipelines.junit(cannot_tell)) == {"verdict": "skipped"}
    assert outcomes(pipelines.junit(cannot_tell, strict=True)) == {"verdict": "failure"}
    assert "failure" not in outcomes(pipelines.junit(spared.record, strict=True)).values()


def test_a_gate_may_say_its_outcome_itself(harmed):
    told = [gate | {"outcome": "not ruled out"} for gate in harmed.record["gates"]]
    assert set(outcomes(pipelines.junit(harmed.record | {"gates": told})).values()) == {"failure", "skipped"}


HOSTILE = "<b>&\"'|]]>\x1b[2J\x00\n# @everyone `x` ![a](b)"


def hostile() -> auditing.Audit:
    before, after = tables({HOSTILE: 300, "elm": 300}, {HOSTILE: 0.3})
    gate = f"group_drop[{HOSTILE}] > 0.01"
    return auditing.audit(before, after, fail_if=[gate], names=(HOSTILE, "after"))


def test_names_cannot_break_out_of_the_xml():
    content = pipelines.junit(hostile().record)
    (suite,) = ElementTree.fromstring(content)  # it parses, which a raw control character does not
    line = "<b>&\"'|]]> [2J # @everyone `x` ![a](b)"
    assert [case.attrib["name"] for case in suite] == ["verdict", f"group_drop[{line}] > 0.01"]
    assert all(line in case.attrib["classname"] for case in suite)


# ---------------------------------------------------------------- a summary


def test_a_summary_has_the_verdict_the_gates_and_the_groups_that_lost(harmed):
    text = pipelines.summary(harmed.record)
    assert text.startswith("### Harm shown: before and after\n\nGroup elm lost ")
    told = [line.split(" | ")[1] for line in text.splitlines() if "\\_drop" in line]
    assert told == ["failed", "not ruled out", "passed"]
    groups = [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| group: ")]
    assert groups[0] == "| group: elm"
    assert len(groups) == len(TREES)


def test_a_summary_has_at_most_40_lines():
    sizes = {f"group {place:02}": 60 for place in range(60)}
    gates = [f"group_drop[group {place:02}] > 0.3" for place in range(60)]
    found = auditing.audit(*tables(sizes, {"group 59": 0.9}), groups=["group", "light"], fail_if=gates)
    lines = pipelines.summary(found.record).splitlines()
    assert len(lines) <= 40
    assert "and 48 more gates." in lines
    assert any(line.startswith("| group\\_drop\\[group 59\\] \\> 0.3 | failed |") for line in lines)
    assert max(map(len, lines)) < 1400


def test_names_in_a_summary_are_text_and_notify_nobody():
    text = pipelines.summary(hostile().record)
    assert "\x1b" not in text
    assert "<b>" not in text.replace("\\<b\\>", "")
    assert "@everyone" not in text
    assert "![a]" not in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {4, 6}  # no name adds a cell


# ---------------------------------------------------------------- the command


@pytest.fixture
def files(tmp_path):
    before, after = tables(TREES, {"elm": 0.3})
    before.to_csv(tmp_path / "before.csv", index=False)
    after.to_csv(tmp_path / "after.csv", index=False)
    return tmp_path


def command(files, *arguments: object):
    given = ["--predictions", files / "before.csv", files / "after.csv", "--out", files / "out", *arguments]
    return CliRunner().invoke(main, list(map(str, given)))


def test_the_command_writes_both_whatever_the_gates_say(files, monkeypatch):
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    both = ("--junit", files / "audit.xml", "--summary", files / "audit.md")
    for _ in range(2):  # the second time it replaces them
        done = command(files, *both, "--fail-if", GATES[0])
        assert done.exit_code == 1
    assert outcomes((files / "audit.xml").read_bytes()) == {"verdict": "failure", GATES[0]: "failure"}
    assert (files / "audit.md").read_text().count("### Harm shown: before and after") == 1
    assert "audit.xml" in done.output


def test_a_step_of_a_job_adds_to_what_others_said(files, monkeypatch):
    place = files / "step.md"
    place.write_text("What was said before.\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(place))
    assert command(files, "--summary", place).exit_code == 0
    assert place.read_text().startswith("What was said before.\n### Harm shown")


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("out/junit.xml", "lies in {files}/out, which the next audit replaces as a whole"),
        ("absent/junit.xml", "is to lie in a folder that does not exist; expected the name of a file"),
        (".", "is a folder; expected the name of a file"),
    ],
)
def test_a_place_for_no_file_is_refused_before_the_audit(files, place, said):
    for option in ("--junit", "--summary"):
        done = command(files, option, files / place)
        assert done.exit_code == 2
        assert said.format(files=files) in done.output
        assert not (files / "out" / "audit.json").exists()


# ---------------------------------------------------------------- the action of the reference page


def action() -> dict:
    page = (ROOT / "book" / "audit_reference.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```yaml\n# \S+/action\.yml\n(.*?)^```", page, re.M | re.S)
    return yaml.safe_load(block)


def test_the_action_has_the_parts_that_github_asks_for():
    found = action()
    assert found.keys() == {"name", "description", "inputs", "runs"}
    assert found["runs"]["using"] == "composite"
    for step in found["runs"]["steps"]:
        assert (
            (step["shell"] == "bash") if "run" in step else re.fullmatch(r"[\w-]+/[\w-]+@v\d+", step["uses"])
        )
        for value in step.get("env", {}).values():  # what a caller says reaches the shell as a variable alone
            assert re.fullmatch(r"\$\{\{ inputs\.([\w-]+) \}\}", value)
            assert value[11:-3] in found["inputs"]
        assert "${{" not in step.get("run", "")


def act(folder: Path, **inputs: str) -> subprocess.CompletedProcess[str]:
    """Run the lines of the action as GitHub does."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    ours = (
        f'exec {sys.executable} -c \'from fairq_audit.cli import main; main(prog_name="fairq-audit")\' "$@"'
    )
    for name, text in {"fairq-audit": ours, "pip": 'echo pip "$@"'}.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    known = {name: own.get("default", "") for name, own in action()["inputs"].items()} | inputs
    for step in action()["runs"]["steps"]:
        if "run" not in step:
            continue
        given = {name: known[value[11:-3]] for name, value in step.get("env", {}).items()}
        runner = {"RUNNER_TEMP": str(folder / "temp"), "GITHUB_STEP_SUMMARY": str(folder / "step.md")}
        path = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
            cwd=folder, env=os.environ | runner | path | given, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            break
    return done


@pytest.mark.parametrize(
    ("gates", "code"),
    [
        ("worst_group_drop > 0.5\nfvo_increase > 0.9", 0),
        ("overall_drop > 0.5\n\ngroup_drop[elm] > 0.05\n", 1),
        ("", 0),
        ("$(touch ran) > 0.1", 2),
    ],
)
def test_the_action_fails_the_step_and_tells_the_pull_request(files, gates, code):
    (files / "temp").mkdir()
    (files / "step.md").touch()
    done = act(files, before="before.csv", after="after.csv", **{"fail-if": gates})
    assert done.returncode == code, done.stderr
    assert not (files / "ran").exists()
    if code == 2:
        assert (files / "step.md").read_text() == ""
        return
    text = (files / "step.md").read_text()
    assert text.startswith("### Harm shown: before and after")
    assert text.count("| failed |") == code
    assert (files / "temp" / "audit" / "report.html").exists()
    assert outcomes((files / "temp" / "audit.xml").read_bytes())["verdict"] == "failure"
