import multiprocessing
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch

from fairq_utils.errors import BadInput
from fairq_utils.files import write_atomically
from fairq_utils.store import Item, Store, code_digest, default_root

IDENTITY = {"name": "thing", "seed": 0, "nested": {"pair": (1, 2)}}


def item() -> Item:
    return Item({"x": torch.arange(1000.0), "y": torch.tensor(3)}, {"names": ("a", "b")})


def refuse() -> Item:
    raise AssertionError("made again although it is in the store")


def test_what_is_there_is_read_and_equals_what_was_made(tmp_path):
    store = Store(tmp_path)
    made = store.get_or_make("things", IDENTITY, item)
    read = Store(tmp_path).get_or_make("things", IDENTITY, refuse)
    assert read.digest == made.digest
    assert torch.equal(read.tensors["x"], made.tensors["x"])
    assert read.info == {"names": ["a", "b"]}


def test_equal_items_are_equal_files(tmp_path):
    files = []
    for name in ("one", "other", "third"):
        store = Store(tmp_path / name)
        store.get_or_make("things", IDENTITY, item)
        files.append(store.path("things", IDENTITY).read_bytes())
    assert len(set(files)) == 1


@pytest.mark.parametrize("change", [{"seed": 1}, {"nested": {"pair": (2, 1)}}, {"more": None}])
def test_another_identity_is_another_item(tmp_path, change):
    store = Store(tmp_path)
    assert store.path("things", IDENTITY | change) != store.path("things", IDENTITY)


def flip_a_byte(path: Path, place: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 0x10
    path.write_bytes(content)


DAMAGE = {
    "one bit of the data": lambda path: flip_a_byte(path, 1.0),
    "one bit in the middle": lambda path: flip_a_byte(path, 0.5),
    "one bit of the header": lambda path: flip_a_byte(path, 0.02),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "empty": lambda path: path.write_bytes(b""),
    "something else": lambda path: path.write_text("not a tensor in sight"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_file_is_named_set_aside_and_made_again(tmp_path, damage):
    store = Store(tmp_path)
    made = store.get_or_make("things", IDENTITY, item)
    path = store.path("things", IDENTITY)
    damage(path)
    damaged = path.read_bytes()
    with pytest.warns(UserWarning, match=f"{path.name} was damaged: it is set aside as .* and made again"):
        again = store.get_or_make("things", IDENTITY, item)
    assert again.digest == made.digest
    assert [aside.read_bytes() for aside in path.parent.glob("*.damaged-*")] == [damaged]
    assert store.get_or_make("things", IDENTITY, refuse).digest == made.digest


def test_a_file_under_another_items_name_is_not_taken_for_it(tmp_path):
    store = Store(tmp_path)
    store.get_or_make("things", IDENTITY, item)
    other = IDENTITY | {"seed": 1}
    store.path("things", IDENTITY).rename(store.path("things", other))
    with pytest.warns(UserWarning, match="damaged"):
        made = store.get_or_make("things", other, lambda: Item({"x": torch.zeros(1)}))
    assert torch.equal(made.tensors["x"], torch.zeros(1))


def _make_slowly(root: str, log: str) -> None:
    def make() -> Item:
        with open(log, "a") as file:  # noqa: PTH123 - appended to by two processes
            file.write("made\n")
        time.sleep(0.5)
        return item()

    Store(Path(root)).get_or_make("things", IDENTITY, make)


def test_two_processes_that_want_the_same_thing_make_it_once(tmp_path):
    log = tmp_path / "log"
    spawn = multiprocessing.get_context("spawn")
    processes = [
        spawn.Process(target=_make_slowly, args=(str(tmp_path / "store"), str(log))) for _ in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert log.read_text() == "made\n"


WRITER = """
import sys, torch
from pathlib import Path
from fairq_utils.store import Item, Store
store = Store(Path(sys.argv[1]))
print("ready", flush=True)
for number in range(100000):
    make = lambda: Item({"x": torch.full((200_000,), number)})
    store.get_or_make("things", {"name": "n", "number": number}, make)
"""


@pytest.mark.parametrize("moment", [0.0, 0.05, 0.21, 0.4])
def test_a_kill_at_any_moment_leaves_only_whole_items(tmp_path, moment):
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    time.sleep(moment)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    store = Store(tmp_path)
    kept = len(list(tmp_path.glob("things/*.safetensors")))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a half file would be called damaged
        for number in range(kept + 1):
            read = store.get_or_make(
                "things",
                {"name": "n", "number": number},
                lambda number=number: Item({"x": torch.full((200_000,), number)}),
            )
            assert read.tensors["x"].eq(number).all()
    # What the killed process was writing was written again; its half file went with that.
    assert not list(tmp_path.glob("things/.*"))


def test_a_store_that_cannot_be_written_is_said_in_one_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    store = Store(tmp_path / "file" / "store")
    with pytest.raises(BadInput, match=r"cannot be written.*set FAIRQ_STORE"):
        store.get_or_make("things", IDENTITY, item)


def test_a_full_disk_loses_nothing_and_is_said(tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("/dev/full is missing: this system cannot pretend to have a full disk")
    target = tmp_path / "kept"
    write_atomically(target, b"old")
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    part.symlink_to("/dev/full")
    with pytest.raises(BadInput, match="No space left"):
        write_atomically(target, b"new")
    assert target.read_bytes() == b"old"


def test_the_environment_chooses_the_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("FAIRQ_STORE", str(tmp_path / "here"))
    assert default_root() == tmp_path / "here"
    monkeypatch.delenv("FAIRQ_STORE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if sys.platform != "darwin":
        assert default_root() == tmp_path / "cache" / "fairq"


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


def test_what_is_being_written_is_not_removed(tmp_path):
    store = Store(tmp_path)
    identity = {"name": "x"}
    part = store.path("things", identity).with_name(f".{store.path('things', identity).name}.77.part")
    part.parent.mkdir()
    part.write_bytes(b"half")
    (entry,) = store.entries()
    assert entry.identity is None
    lock = store.try_lock("things", identity)
    store.remove(entry)
    assert part.exists()
    lock.release()
    store.remove(entry)
    assert not part.exists()


def test_a_lock_is_held_by_one(tmp_path):
    store = Store(tmp_path)
    with store.lock("things", {"name": "x"}):
        assert store.try_lock("things", {"name": "x"}) is None
        other = store.try_lock("things", {"name": "y"})
    again = store.try_lock("things", {"name": "x"})
    for lock in (other, again):
        assert lock.is_locked
        lock.release()


def test_entries_tell_what_lies_there(tmp_path):
    store = Store(tmp_path)
    store.keep("things", {"name": "x"}, Item({"a": torch.zeros(3)}))
    (tmp_path / "things" / "broken.safetensors").write_bytes(b"not one")
    whole, broken = sorted(store.entries(), key=lambda entry: entry.identity is None)
    assert (whole.kind, whole.identity, whole.nbytes) == ("things", {"name": "x"}, whole.path.stat().st_size)
    assert broken.path.name == "broken.safetensors"
    assert list(Store(tmp_path / "nothing").entries()) == []
