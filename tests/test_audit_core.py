"""What is installed without extras audits tables of predictions, and says what it lacks to run models."""

import os
import subprocess
import sys

import pytest

from tests.conftest import copy_project
from tests.test_auditing import TREES, tables

# What the extras bring, which an installation without them lacks. It is refused as if it were not there.
WITHOUT_EXTRAS = """
import sys

EXTRAS = {"torch", "torchvision", "safetensors", "PIL", "tqdm", "onnx", "onnxruntime", "transformers",
          "open_clip", "pyarrow", "matplotlib", "seaborn", "ipywidgets", "distributed", "filelock"}

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in EXTRAS:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refuse())
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the packages as pip installs them, and two small tables beside it."""
    folder = tmp_path_factory.mktemp("installed")
    source = copy_project(folder / "source")  # the build leaves folders in it
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
    ]
    subprocess.run([*pip, "--no-index", "--target", str(folder / "packages"), str(source)], check=True)
    for name, table in zip(("before", "after"), tables(TREES, {"elm": 0.15}), strict=True):
        table.to_csv(folder / f"{name}.csv", index=False)
    return folder


def run(installed, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT_EXTRAS + code, *arguments],
        cwd=installed,
        env=os.environ | {"PYTHONPATH": str(installed / "packages")},
        capture_output=True,
        text=True,
        check=False,
    )


def audit(installed, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run(installed, "from fairq_audit.cli import main; main(prog_name='fairq-audit')", *arguments)


def test_an_audit_of_tables_needs_no_extra(installed, tmp_path):
    done = audit(installed, "--predictions", "before.csv", "after.csv", "--out", str(tmp_path / "out"))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Harm shown. Group elm lost")
    assert "elm" in (tmp_path / "out" / "report.html").read_text()


def test_an_audit_of_a_model_says_which_extra_it_needs(installed, tmp_path):
    done = audit(installed, "--model", "x", "--treatment", "int4", "--out", str(tmp_path / "out"))
    assert done.returncode == 2
    assert "with the package torch, which is not installed" in done.stderr
    assert "pip install 'fairq-utils[models]'" in done.stderr
    assert not (tmp_path / "out").exists()


def test_what_is_installed_is_what_was_run(installed):
    done = run(installed, "import fairq_audit; print(fairq_audit.__file__)")
    assert done.stdout.startswith(str(installed / "packages"))


@pytest.mark.parametrize("module", ["fairq_utils", "fairq_audit", "fairq_audit.cli"])
def test_to_import_it_imports_nothing_of_the_extras(installed, module):
    done = run(installed, f"import {module}; print(sorted(EXTRAS & sys.modules.keys()))")
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_the_command_is_installed(installed):
    assert (installed / "packages" / "bin" / "fairq-audit").exists()
