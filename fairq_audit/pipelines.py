"""An audit inside a pipeline: an assertion for tests, JUnit XML, and a short summary for a pull request."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

from fairq_audit import auditing
from fairq_audit.formats import as_markdown, hundredths, measured, plural, shown
from fairq_audit.predictions import Predictions
from fairq_audit.sentences import told
from fairq_utils.errors import BadInput
from fairq_utils.files import saying_what_cannot_be_written, write_atomically

Outcome = Literal["passed", "not ruled out", "failed"]

_SUMMARY = "GITHUB_STEP_SUMMARY"  # the file to which every step of a job appends
_MOST_GROUPS, _MOST_GATES, _MOST_LETTERS = 10, 12, 600  # so that a summary has at most 40 lines


def assert_no_harm(
    before: Predictions,
    after: Predictions,
    *,
    fail_if: Sequence[str] = (),
    strict: bool = False,
    **settings: Any,
) -> auditing.Audit:
    """Raise an AssertionError where an audit shows harm or a gate fails, with the verdict and those gates.

    For a test of a model: `before`, `after`, `fail_if` and the other settings (`groups`, `margin`,
    `decide_on`, ...) are those of `fairq_audit.audit`. With `strict` it also raises where a gate cannot be
    ruled out to be exceeded, and where the audit cannot tell. Else the audit is returned.

    >>> import pandas as pd
    >>> before = pd.DataFrame({"id": range(600), "label": ["moth", "moth", "fly", "fly"] * 150})
    >>> before = before.assign(group=["ash", "elm"] * 300, prediction=before["label"])
    >>> assert_no_harm(before, before.assign(prediction=["moth", "fly", "fly", "moth"] * 150))
    Traceback (most recent call last):
        ...
    AssertionError: Harm shown. Group elm lost 100.0 points of accuracy, at least ...
    """
    found = auditing.audit(before, after, fail_if=fail_if, **settings)
    failed = [
        gate["sentence"]
        for gate in found.record["gates"]
        if gate["outcome"] == "failed" or (strict and gate["outcome"] == "not ruled out")
    ]
    if failed or _of_verdict(found.record, strict) == "failed":
        raise AssertionError("\n".join([str(found), *failed]))
    return found


def _of_verdict(record: Mapping[str, Any], strict: bool) -> Outcome:
    word = record["verdict"]["word"]
    if word == "harm shown" or (strict and word == "cannot tell"):
        return "failed"
    return "not ruled out" if word == "cannot tell" else "passed"


def junit(record: Mapping[str, Any], *, strict: bool = False) -> bytes:
    """The verdict and each gate as a test case of JUnit XML.

    A verdict of harm fails, whatever the gates say. What cannot be told or ruled out is skipped, with the
    sentence that says so, and with `strict` it fails.
    """
    sentence = f"{record['verdict']['word'].capitalize()}. {record['verdict']['sentence']}"
    cases = [("verdict", _of_verdict(record, strict), sentence)]
    for gate in record["gates"]:
        outcome = gate["outcome"]
        failed = strict and outcome == "not ruled out"
        cases.append((gate["expression"], "failed" if failed else outcome, gate["sentence"]))
    counts = {
        "tests": len(cases),
        "failures": sum(outcome == "failed" for _, outcome, _ in cases),
        "errors": 0,
        "skipped": sum(outcome == "not ruled out" for _, outcome, _ in cases),
    }
    said = {name: str(count) for name, count in counts.items()}
    suites = ElementTree.Element("testsuites", said)
    compared = f"{record['compared']['before']['name']} and {record['compared']['after']['name']}"
    suite = ElementTree.SubElement(
        suites, "testsuite", {"name": "fairq-audit", "timestamp": record["created"], **said}
    )
    for name, outcome, text in cases:
        case = ElementTree.SubElement(
            suite, "testcase", {"classname": f"fairq-audit: {_plain(compared)}", "name": _plain(name)}
        )
        if outcome != "passed":
            kind = "failure" if outcome == "failed" else "skipped"
            ElementTree.SubElement(case, kind, {"message": _plain(text)})
    ElementTree.indent(suites)
    found: bytes = ElementTree.tostring(suites, encoding="utf-8", xml_declaration=True)
    return found + b"\n"


def _plain(text: str) -> str:
    """The text in one line, of characters that XML may hold."""
    return shown(text, 10**6)


def summary(record: Mapping[str, Any]) -> str:
    """The verdict, the gates and the groups that lost most, as Markdown of at most 40 lines."""
    compared, verdict = record["compared"], record["verdict"]
    names = [_cell(compared[side]["name"]) for side in ("before", "after")]
    warnings, sentence = told(verdict)
    lines = [f"### {verdict['word'].capitalize()}: {names[0]} and {names[1]}", ""]
    lines += [f"{_cell(' '.join([*warnings, sentence]), _MOST_LETTERS)}", ""]
    if record["gates"]:
        lines += ["| gate | outcome | found |", "|---|---|---|"]
        # What failed stands first, lest it is among those that are left out.
        order = ("failed", "not ruled out", "passed")
        gates = sorted(record["gates"], key=lambda gate: order.index(gate["outcome"]))
        for gate in gates[:_MOST_GATES]:
            at = f" for {_cell(gate['where'])}" if gate["where"] is not None else ""
            found = verdict["word"] if gate["quantity"] == "verdict" else "too few rows"
            value = measured(gate["value"], " points") if gate["value"] else found
            lines.append(f"| {_cell(gate['expression'])} | {gate['outcome']} | {value}{at} |")
        lines += _left(len(gates) - _MOST_GATES, "gates")
    groups = [(own["name"], group) for own in record["groupings"] for group in own["groups"]]
    groups.sort(key=lambda found: -found[1]["drop"]["estimate"])
    lines += [
        f"| group | {plural(compared['unit'])} | before | after | accuracy lost |",
        "|---|---|---|---|---|",
    ]
    for name, group in groups[:_MOST_GROUPS]:
        was, now = (hundredths(group[f"accuracy_{side}"]["estimate"]) for side in ("before", "after"))
        of = f"{_cell(name)}: {_cell(group['group'])}"
        lines.append(f"| {of} | {group['n']:,} | {was} % | {now} % | {measured(group['drop'], ' points')} |")
    lines += _left(len(groups) - _MOST_GROUPS, "groups, which lost less")
    return "\n".join(lines) + "\n"


def _cell(text: str, longest: int = 60) -> str:
    """A name or a sentence that is only read: nothing in it is Markdown, and nobody is notified."""
    return as_markdown(shown(text, longest)).replace("@", "@<!-- -->")


def _left(more: int, what: str) -> list[str]:
    return ["", f"and {more} more {what}.", ""] if more > 0 else [""]


def check_files(out: Path, *files: Path | None) -> None:
    """Refuse files that could not be written once the audit is done, before it begins."""
    for path in filter(None, files):
        if out.resolve() in path.resolve().parents:
            raise BadInput(
                f"{path} lies in {out}, which the next audit replaces as a whole; expected a file beside it."
            )
        if path.is_dir() or not path.resolve().parent.is_dir():
            what = "is a folder" if path.is_dir() else "is to lie in a folder that does not exist"
            raise BadInput(f"{path} {what}; expected the name of a file, in a folder that is there.")


def write_files(
    record: Mapping[str, Any], *, junit_file: Path | None, summary_file: Path | None, strict: bool = False
) -> list[Path]:
    """Write the JUnit XML and the summary that were asked for, and return their paths.

    A summary goes to the end of the file that GitHub keeps for a step, and replaces any other.
    """
    if junit_file:
        with saying_what_cannot_be_written(junit_file.parent):
            write_atomically(junit_file, junit(record, strict=strict))
    if summary_file:
        with saying_what_cannot_be_written(summary_file.parent):
            if os.environ.get(_SUMMARY) == str(summary_file):
                with summary_file.open("a", encoding="utf-8") as file:
                    file.write(summary(record))
            else:
                write_atomically(summary_file, summary(record).encode())
    return [path for path in (junit_file, summary_file) if path]
