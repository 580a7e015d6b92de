"""What decides a number changes a digest, and nothing else does."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fairq_book.experiments import code, codes
from fairq_book.experiments.code import code_digest, code_files, deciding_text
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def ours(monkeypatch):
    """The packages of these tests are followed as ours are."""
    monkeypatch.setattr(code, "PACKAGES", (*code.PACKAGES, "sample", "near", "spoken", "terse"))
    yield
    code_digest.cache_clear()


def test_the_code_digest_follows_imports_and_nothing_else(tmp_path, monkeypatch):
    def digest(**edited: str) -> str:
        sources = {
            "__init__": "",
            "top": "import math\nfrom sample.middle import value",
            "middle": "from sample import bottom\nvalue = bottom.value",
            "bottom": "value = 1",
            "stranger": "value = 2",
        } | edited
        for name, source in sources.items():
            (tmp_path / "sample").mkdir(exist_ok=True)
            (tmp_path / "sample" / f"{name}.py").write_text(source)
        code_digest.cache_clear()
        return code_digest("sample.top")

    monkeypatch.syspath_prepend(tmp_path)
    before = digest()
    assert digest() == before
    assert digest(stranger="value = 3") == before
    assert digest(bottom="value = 3") != before
    assert digest(middle="value = 3") != before
    # Modules are taken from the package, and nothing that it holds itself; then it counts.
    assert digest(__init__="thing = 1") == before
    taken = "from sample import bottom, thing\nvalue = bottom.value"
    assert digest(middle=taken, __init__="thing = 1") != digest(middle=taken, __init__="thing = 2")
    code_digest.cache_clear()


def test_the_code_digest_follows_relative_imports(tmp_path, monkeypatch):
    (tmp_path / "near" / "inner").mkdir(parents=True)
    for name, source in {
        "__init__": "from . import top",
        "top": "from .inner.middle import value",
        "inner/__init__": "",
        "inner/middle": "from .. import bottom\nfrom .beside import more\nvalue = more",
        "inner/beside": "more = 1",
        "bottom": "",
    }.items():
        (tmp_path / "near" / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    reached = {"near.top", "near.inner.middle", "near.inner.beside", "near.bottom"}
    assert code_files("near.top").keys() == reached
    assert code_files("near").keys() == reached | {"near"}


def test_words_do_not_change_the_code_digest_and_everything_else_does(tmp_path, monkeypatch):
    def digest(source: str) -> str:
        (tmp_path / "spoken.py").write_text(source)
        code_digest.cache_clear()
        return code_digest("spoken")

    monkeypatch.syspath_prepend(tmp_path)
    source = '''"""About it."""
# why
def f(x):
    """Say what.

    # is no comment
    """
    y = "# neither is this"  # but this is
    """a string by itself is no docstring"""
    return """
  # of a text

""" + x + y
'''
    bare = digest(source)
    for old, new in (
        ("About it.", "About something else,\nat length."),
        ("# why\n", ""),
        ("Say what.", "Say more."),
        ("  # but this is", ""),
        ("# is no comment", "is none"),
    ):
        assert old in source
        assert digest(source.replace(old, new)) == bare, old
    for old, new in (
        ("# neither", "# either"),
        ("a string by", "the string by"),
        ("# of a", "# of no"),
        ('\n\n""" +', '\n""" +'),
        ("f(x)", "f(x=1)"),
        ("+ y", "+ y + y"),
    ):
        assert old in source
        assert digest(source.replace(old, new)) != bare, old
    code_digest.cache_clear()


def test_a_docstring_beside_its_def_does_not_hide_the_def(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    digests = set()
    for name in ("one", "two"):
        (tmp_path / "terse.py").write_text(f'def {name}(): "It does nothing."\n')
        code_digest.cache_clear()
        digests.add(code_digest("terse"))
    assert len(digests) == 2
    code_digest.cache_clear()


def test_a_name_that_is_imported_under_another_counts_and_the_place_of_it_does_not():
    plain = "from fairq_utils.training.loop import fit\nfit()"
    assert deciding_text(plain) == deciding_text(plain.replace("training.loop", "learning")) == "fit()"
    renamed = "from fairq_utils.training.loop import fit as train\ntrain()"
    assert deciding_text(renamed) == "fit as train\ntrain()"
    assert deciding_text(renamed) != deciding_text(renamed.replace("import fit", "import predict"))
    others = "from math import floor\nfloor(1.5)"
    assert deciding_text(others) != deciding_text(others.replace("math", "numpy"))


# One of each stage's at least, and where it would go.
MOVES = {
    "fairq_utils.training.loop": "fairq_utils.training.fitting",
    "fairq_utils.quantization.quantizers": "fairq_utils.quantization.families",
    "fairq_utils.curvature.surveys": "fairq_utils.curvature.looks",
    "fairq_utils.data.moths": "fairq_utils.data.drawn",
    "fairq_utils.data.splits": "fairq_utils.training.parts",
    "fairq_utils.encoders.mini": "fairq_utils.encoders.small",
    "fairq_utils.encoders.pretrained": "fairq_utils.encoders.brought",
    "fairq_utils.treatments.ablations": "fairq_utils.ablations",
}


def test_a_module_that_moves_changes_no_digest(tmp_path):
    for package in ("fairq_utils", "fairq_audit", "fairq_book"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    for old, new in MOVES.items():
        (tmp_path / Path(*old.split("."))).with_suffix(".py").rename(
            (tmp_path / Path(*new.split("."))).with_suffix(".py")
        )
    for path in tmp_path.rglob("*.py"):
        text = path.read_text()
        for old, new in MOVES.items():
            text = re.sub(rf"\bfrom {re.escape(old)} import", f"from {new} import", text)
            (before, name), (after, called) = old.rsplit(".", 1), new.rsplit(".", 1)
            text = re.sub(
                rf"\bfrom {before} import {name}$",
                f"from {after} import {called} as {name}",
                text,
                flags=re.M,
            )
        path.write_text(text)
    say = "import json; from fairq_book.experiments.codes import digests; print(json.dumps(digests()))"
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", say], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    reached = [set(code_files(module)) & MOVES.keys() for module in codes.STAGES.values()]
    assert all(reached)
    assert json.loads(done.stdout) == codes.digests()


def test_the_digests_of_the_stages_are_those_that_were_written_down():
    """Where one differs, what it made is made again: `python -m fairq_book.experiments.codes` writes them."""
    assert json.loads(codes.digests_file(ROOT).read_text()) == codes.digests()
