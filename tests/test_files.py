"""Folders that are replaced as a whole, or not at all: by a full disk, by a kill, by a typing error."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fairq_utils import files
from fairq_utils.errors import BadInput
from tests.conftest import ROOT

OLD, NEW = {"a": b"old a", "gone": b"old"}, {"a": b"new a", "b": b"new b"}


def held(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def filled(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name, content in OLD.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("there", [None, {}, OLD])
def test_a_folder_holds_what_it_was_given_and_nothing_else(tmp_path, there):
    place = tmp_path / "above" / "place"
    if there is not None:
        filled(place)
    if there == {}:
        for path in place.iterdir():
            path.unlink()
    files.replace_folder(place, NEW)
    assert held(place) == NEW
    assert list(place.parent.iterdir()) == [place]


def test_the_folder_behind_a_link_is_replaced_and_its_mode_kept(tmp_path):
    place = filled(tmp_path / "place")
    place.chmod(0o770)
    (tmp_path / "link").symlink_to(place)
    files.replace_folder(tmp_path / "link", NEW)
    assert held(place) == NEW
    assert (tmp_path / "link").is_symlink()
    assert place.stat().st_mode & 0o777 == 0o770


@pytest.mark.parametrize("until", range(2))
def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch, until):
    place, synced = filled(tmp_path / "place"), []

    def full(_: int) -> None:
        if len(synced) == until:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        synced.append(1)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BadInput, match="/place cannot be written \\(No space left on device\\)"):
        files.replace_folder(place, NEW)
    assert held(place) == OLD
    assert list(tmp_path.iterdir()) == [place]


KILLED = """
import os, sys
from pathlib import Path
from fairq_utils import files

steps = 0
for name in ("mkdir", "open", "replace", "rename", "rmdir", "unlink"):
    def dying(*given, own=getattr(os, name), **others):
        global steps
        if steps == int(sys.argv[2]):
            os._exit(9)
        steps += 1
        return own(*given, **others)
    setattr(os, name, dying)
files.replace_folder(Path(sys.argv[1]), {"a": b"new a", "b": b"new b"})
"""


def test_a_kill_at_any_step_leaves_the_old_one_or_the_new_one_whole(tmp_path):
    seen = []
    for step in range(60):
        place = filled(tmp_path / str(step) / "place")
        done = subprocess.run(
            [sys.executable, "-c", KILLED, str(place), str(step)],
            check=False, env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        where = place if place.exists() else next(place.parent.glob(".place.*.old"))
        assert held(where) in (OLD, NEW)
        seen.append((where == place, held(where) == NEW))
        files.replace_folder(place, NEW)  # the next one goes on as if nothing had been
        assert held(place) == NEW
        if done.returncode == 0:
            break
        assert done.returncode == 9
    assert done.returncode == 0
    assert seen.count((False, False)) == 1  # between two renames
    assert (False, True) not in seen
    assert {(True, False), (True, True)} <= set(seen)


def test_what_cannot_be_replaced_is_refused_and_nothing_is_left(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("a file")
    (tmp_path / "work" / "inside").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work" / "inside")
    for place in ("", ".", "..", "/", tmp_path / "work"):
        with pytest.raises(BadInput, match="is the folder that you work in, or holds it; expected a folder"):
            files.check_replaceable(Path(place))
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(BadInput, match="cannot be written \\(Not a directory\\)"):
            files.check_replaceable(place)
    with pytest.raises(BadInput, match="is where a disk is mounted; expected a folder inside it"):
        files.check_replaceable(Path("/proc"))
    before = sorted(tmp_path.rglob("*"))
    files.check_replaceable(tmp_path / "new" / "one")
    files.check_replaceable(Path("here"))
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("x" * 300, "File name too long"),
        ("x" * 300 + "/below", "File name too long"),
        ("y/" * 3000, "File name too long"),
        ("loop", "it leads in a circle"),
        ("loop/below", "it leads in a circle"),
        ("nul\0", "embedded null byte"),
        ("file", "Not a directory"),
    ],
)
@pytest.mark.parametrize("check", [files.check_replaceable, files.check_writable])
def test_a_place_that_cannot_be_is_refused_in_a_short_sentence(tmp_path, monkeypatch, check, place, why):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(BadInput) as refused:
        check(Path(place))
    said = str(refused.value)
    assert f"cannot be written ({why}); expected a folder" in said
    assert "\n" not in said
    assert len(said) < 400
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "loop"]


def test_where_something_may_be_written_it_is_tried_and_nothing_stays(tmp_path, monkeypatch):
    files.check_writable(tmp_path)
    files.check_writable(tmp_path / "new" / "one")
    assert list(tmp_path.iterdir()) == []

    def read_only(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "mkdir", read_only)
    with pytest.raises(BadInput, match="cannot be written \\(Read-only file system\\)"):
        files.check_writable(tmp_path / "new")


@pytest.mark.parametrize("name", ["x" * 300, "folder", "loop/file"])
def test_a_file_that_cannot_be_written_is_said(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(BadInput, match="cannot be written"):
        files.write_atomically(tmp_path / name, b"content")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "loop"]
