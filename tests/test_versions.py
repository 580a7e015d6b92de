"""Three versions of a model or more: one page, a table over versions, and gates for each."""

import json

import pandas as pd
import pytest
from click.testing import CliRunner

from fairq_audit import cli
from fairq_audit.auditing import audit
from fairq_audit.versions import audit_versions
from fairq_utils.errors import BadInput
from tests.test_auditing import TREES, tables


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before, mild = tables(TREES, {"elm": 0.02})
    _, strong = tables(TREES, {"elm": 0.4})
    for name, table in (("fp32", before), ("int8", mild), ("int4", strong)):
        table.to_csv(f"{name}.csv", index=False)
    return before, mild, strong


def run(*arguments: str):
    given = ["--predictions", "fp32.csv", "int8.csv", "int4.csv", "--out", "out", *arguments]
    return CliRunner().invoke(cli.main, given)


def test_each_version_is_what_an_audit_of_two_tables_finds(files):
    before, *others = files
    found = audit_versions(before, *others, names=["fp32", "int8", "int4"], margin=0.05)
    assert list(found.audits) == list(found.table.index) == ["int8", "int4"]
    for name, other in zip(found.audits, others, strict=True):
        alone = audit(before, other, names=("fp32", name), margin=0.05)
        assert found.audits[name].record | {"created": ""} == alone.record | {"created": ""}
        assert found.table.loc[name, "accuracy"] == alone.record["overall"]["accuracy_after"]["estimate"]
    groups = found.groups.set_index("group")
    assert list(groups.columns) == ["grouping", "fp32", "int8", "int4"]
    right = before["prediction"] == before["label"]
    assert groups.loc["elm", "fp32"] == pytest.approx(right[before["group"] == "elm"].mean())


def test_the_command_leaves_one_page_and_fails_by_any_version(files, tmp_path):
    done = run("--fail-if", "worst_group_drop > 0.2")
    assert done.exit_code == 1
    assert "int4: Failed. worst_group_drop > 0.2" in done.output
    assert "Error: 1 of 2 gates failed." in done.output
    record = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert list(record["audits"]) == ["int8", "int4"]
    table = pd.read_csv(tmp_path / "out" / "versions.csv", index_col="version")
    assert table.loc["int4", "verdict"] == "harm shown"
    assert table.loc["int4", "gates"] == "worst_group_drop > 0.2"
    # It may be replaced by the next, of two tables as well.
    again = ["--predictions", "fp32.csv", "int8.csv", "--out", "out"]
    assert CliRunner().invoke(cli.main, again).exit_code == 0
    assert run("--fail-if", "worst_group_drop > 0.42", "--strict").exit_code == 4


def test_the_reports_of_the_page_run_in_their_frames_and_fetch_nothing(files, tmp_path, browser):
    assert run().exit_code == 0
    context, wrong = browser.new_context(viewport={"width": 390, "height": 900}), []
    page = context.new_page()
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    address = (tmp_path / "out" / "report.html").as_uri()
    page.on(
        "request",
        lambda request: (
            wrong.append(request.url) if not request.url.startswith((address, "about:")) else None
        ),
    )
    page.goto(address)
    assert page.locator("table").first.locator("tbody tr").count() == 2
    page.locator("summary", has_text="The report").last.click()
    frame = page.frame_locator("iframe").last
    frame.locator("summary", has_text="Accuracy before and after").first.click()
    assert frame.locator("th button").count() > 0  # its own script ran
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert wrong == []
    context.close()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["int4.csv", "--out", "out"], "'int4.csv' was given by itself; expected it behind --predictions"),
        (
            ["--predictions", "fp32.csv", "int8.csv", "int8.csv", "--out", "out"],
            "are called fp32, int8, int8; expected a name of its own for each: rename the files.",
        ),
        (
            ["--predictions", "fp32.csv", "int8.csv", "int4.csv", "--out", "out", "--junit", "j.xml"],
            "--junit was given beside 2 versions; expected it for two tables alone.",
        ),
    ],
)
def test_what_makes_no_sense_of_versions_is_refused(files, given, said):
    done = CliRunner().invoke(cli.main, given)
    assert done.exit_code == 2
    assert said in done.output


def test_names_are_needed_for_all(files):
    with pytest.raises(BadInput, match="expected a name of its own for each"):
        audit_versions(*files, names=["fp32", "int8"])
