import multiprocessing
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import safetensors.torch
import torch

from fairq_book.experiments.store import KINDS, MARKER, Store, default_root
from fairq_utils.errors import BadInput
from fairq_utils.files import write_atomically
from fairq_utils.items import Item

IDENTITY = {"name": "thing", "seed": 0, "nested": {"pair": (1, 2)}}


def item() -> Item:
    return Item({"x": torch.arange(1000.0), "y": torch.tensor(3)}, {"names": ("a", "b")})


def refuse() -> Item:
    raise AssertionError("made again although it is in the store")


def test_what_is_there_is_read_and_equals_what_was_made(tmp_path):
    store = Store(tmp_path)
    made = store.get_or_make("networks", IDENTITY, item)
    read = Store(tmp_path).get_or_make("networks", IDENTITY, refuse)
    assert read.digest == made.digest
    assert torch.equal(read.tensors["x"], made.tensors["x"])
    assert read.info == {"names": ["a", "b"]}


def test_equal_items_are_equal_files(tmp_path):
    files = []
    for name in ("one", "other", "third"):
        store = Store(tmp_path / name)
        store.get_or_make("networks", IDENTITY, item)
        files.append(store.path("networks", IDENTITY).read_bytes())
    assert len(set(files)) == 1


@pytest.mark.parametrize("change", [{"seed": 1}, {"nested": {"pair": (2, 1)}}, {"more": None}])
def test_another_identity_is_another_item(tmp_path, change):
    store = Store(tmp_path)
    assert store.path("networks", IDENTITY | change) != store.path("networks", IDENTITY)


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
    made = store.get_or_make("networks", IDENTITY, item)
    path = store.path("networks", IDENTITY)
    damage(path)
    damaged = path.read_bytes()
    with pytest.warns(UserWarning, match=f"{path.name} was damaged: it is set aside as .* and made again"):
        again = store.get_or_make("networks", IDENTITY, item)
    assert again.digest == made.digest
    assert [aside.read_bytes() for aside in path.parent.glob("*.damaged-*")] == [damaged]
    assert store.get_or_make("networks", IDENTITY, refuse).digest == made.digest


def test_a_file_under_another_items_name_is_not_taken_for_it(tmp_path):
    store = Store(tmp_path)
    store.get_or_make("networks", IDENTITY, item)
    other = IDENTITY | {"seed": 1}
    store.path("networks", IDENTITY).rename(store.path("networks", other))
    with pytest.warns(UserWarning, match="damaged"):
        made = store.get_or_make("networks", other, lambda: Item({"x": torch.zeros(1)}))
    assert torch.equal(made.tensors["x"], torch.zeros(1))


def _make_slowly(root: str, log: str) -> None:
    def make() -> Item:
        with open(log, "a") as file:  # noqa: PTH123 - appended to by two processes
            file.write("made\n")
        time.sleep(0.5)
        return item()

    Store(Path(root)).get_or_make("networks", IDENTITY, make)


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
from fairq_book.experiments.store import Store
from fairq_utils.items import Item
store = Store(Path(sys.argv[1]))
print("ready", flush=True)
for number in range(100000):
    make = lambda: Item({"x": torch.full((200_000,), number)})
    store.get_or_make("networks", {"name": "n", "number": number}, make)
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
    kept = len(list(tmp_path.glob("networks/*.safetensors")))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a half file would be called damaged
        for number in range(kept + 1):
            read = store.get_or_make(
                "networks",
                {"name": "n", "number": number},
                lambda number=number: Item({"x": torch.full((200_000,), number)}),
            )
            assert read.tensors["x"].eq(number).all()
    # What the killed process was writing was written again; its half file went with that.
    assert not list(tmp_path.glob("networks/.*"))


def test_a_store_that_cannot_be_written_is_said_in_one_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    store = Store(tmp_path / "file" / "store")
    with pytest.raises(BadInput, match=r"cannot be written.*set FAIRQ_STORE"):
        store.get_or_make("networks", IDENTITY, item)


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
    monkeypatch.setenv("FAIRQ_STORE", "~nobody-of-this-name/store")
    with pytest.raises(BadInput, match="FAIRQ_STORE is '~nobody-of-this-name/store'; expected the path"):
        default_root()


def test_what_is_being_written_is_not_removed(tmp_path):
    store = Store(tmp_path)
    store.adopt()
    identity = {"name": "x"}
    part = store.path("networks", identity).with_name(f".{store.path('networks', identity).name}.77.part")
    part.parent.mkdir()
    part.write_bytes(b"half")
    (entry,) = store.entries()
    assert entry.identity is None
    lock = store.try_lock("networks", identity)
    assert not store.remove(entry)
    assert part.exists()
    lock.release()
    assert store.remove(entry)
    assert not part.exists()


def test_a_lock_is_held_by_one(tmp_path):
    store = Store(tmp_path)
    with store.lock("networks", {"name": "x"}):
        assert store.try_lock("networks", {"name": "x"}) is None
        other = store.try_lock("networks", {"name": "y"})
    again = store.try_lock("networks", {"name": "x"})
    for lock in (other, again):
        assert lock.is_locked
        lock.release()


def test_entries_tell_what_lies_there(tmp_path):
    store = Store(tmp_path)
    store.keep("networks", {"name": "x"}, Item({"a": torch.zeros(3)}))
    (tmp_path / "networks" / f"broken-{16 * '0'}.safetensors").write_bytes(b"not one")
    whole, broken = sorted(store.entries(), key=lambda entry: entry.identity is None)
    assert (whole.kind, whole.identity, whole.nbytes) == (
        "networks",
        {"name": "x"},
        whole.path.stat().st_size,
    )
    assert broken.path.name == f"broken-{16 * '0'}.safetensors"
    assert whole.own
    assert broken.own
    assert list(Store(tmp_path / "nothing").entries()) == []


def test_a_kind_that_the_store_does_not_know_is_refused(tmp_path):
    with pytest.raises(BadInput, match="kind is 'Documents'; expected one of: datasets, networks"):
        Store(tmp_path).keep("Documents", IDENTITY, item())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["../up", "a/b", "/etc/x", ".hidden", ""])
def test_a_name_that_leads_out_of_the_folder_is_refused(tmp_path, name):
    with pytest.raises(BadInput, match=f"name is '{name}'; expected one that a file can have"):
        Store(tmp_path / "store").keep("networks", {"name": name}, item())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("made", [False, True], ids=["new", "empty"])
def test_a_store_that_begins_with_nothing_marks_its_folder(tmp_path, made):
    root = tmp_path / "store"
    if made:
        root.mkdir()
    Store(root).get_or_make("networks", IDENTITY, item)
    assert Store(root).marked
    assert "fairq prune" in (root / MARKER).read_text()
    assert [entry.kind for entry in Store(root).entries()] == [
        "networks"
    ]  # the mark and the locks are no items


def test_a_folder_with_other_things_in_it_serves_but_nothing_is_removed_from_it(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    store = Store(tmp_path)
    made = store.get_or_make("networks", IDENTITY, item)
    assert store.get_or_make("networks", IDENTITY, refuse).digest == made.digest
    assert not store.marked
    (entry,) = [entry for entry in store.entries() if entry.own]
    with pytest.raises(BadInput, match=f"has no {MARKER}.*nothing is removed.*fairq prune --adopt"):
        store.remove(entry)
    assert entry.path.exists()
    store.adopt()
    assert store.remove(entry)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [MARKER, "thesis.txt"]


HEX = "0123456789abcdef"
KEPT = f"x-{HEX}.safetensors"


def save(path: Path, **metadata: str) -> None:
    safetensors.torch.save_file({"x": torch.zeros(1)}, path, metadata=metadata or None)


def folder_of_that_name(root: Path) -> None:
    (root / "networks" / KEPT).mkdir()
    (root / "networks" / KEPT / "inside.txt").write_text("mine")


def link_to_what_is_outside(root: Path) -> None:
    (root.parent / "outside" / "networks").mkdir(parents=True)
    (root.parent / "outside" / "networks" / KEPT).write_text("mine")
    (root / "networks" / KEPT).symlink_to(root.parent / "outside" / "networks" / KEPT)


def linked_folder_of_a_kind(root: Path) -> None:
    link_to_what_is_outside(root)
    (root / "networks" / KEPT).unlink()
    (root / "predictions").symlink_to(root.parent / "outside" / "networks")


def folder_beside(root: Path) -> None:
    (root / "Documents").mkdir()
    (root / "Documents" / KEPT).write_text("mine")


FOREIGN = {
    "a file beside the folders": lambda root: (root / "thesis.txt").write_text("mine"),
    "a folder of no kind": folder_beside,
    "a file in a folder of a kind": lambda root: (root / "networks" / "layout.txt").write_text("mine"),
    "a hidden file in it": lambda root: (root / "networks" / ".bashrc").write_text("mine"),
    "weights of another name": lambda root: save(root / "networks" / "resnet18.safetensors"),
    "a name with too short a digest": lambda root: save(root / "networks" / "x-0123456789.safetensors"),
    "a copy of an item": lambda root: (root / "networks" / f"{KEPT}.bak").write_text("mine"),
    "whole weights of somebody else": lambda root: save(root / "networks" / KEPT),
    "an identity that is none": lambda root: save(root / "networks" / KEPT, fairq='{"identity": 5}'),
    "a header that is no object": lambda root: save(root / "networks" / KEPT, fairq="[1]"),
    "a header without end": lambda root: save(root / "networks" / KEPT, fairq="[" * 100_000),
    "a folder called as an item": folder_of_that_name,
    "a link to what is outside": link_to_what_is_outside,
    "a dangling link": lambda root: (root / "networks" / KEPT).symlink_to("nowhere"),
    "a link to itself": lambda root: (root / "networks" / KEPT).symlink_to(KEPT),
    "a dangling link beside": lambda root: (root / "dangling").symlink_to("nowhere"),
    "a folder of a kind that is a link": linked_folder_of_a_kind,
    "a file called as a kind": lambda root: (root / "encoders").write_text("mine"),
    "a pipe": lambda root: os.mkfifo(root / "networks" / KEPT),
    "a key among the locks": lambda root: (root / "locks" / "id_rsa").write_text("mine"),
    "a mark where none belongs": lambda root: (root / "networks" / MARKER).write_text("mine"),
}


@pytest.mark.parametrize("put", FOREIGN.values(), ids=FOREIGN.keys())
def test_what_the_store_did_not_write_is_told_apart_and_cannot_be_removed(tmp_path, put):
    store = Store(tmp_path / "store")
    store.get_or_make("networks", IDENTITY, item)
    put(store.root)
    before = sorted(tmp_path.rglob("*"))
    (foreign,) = [entry for entry in store.entries() if not entry.own]
    assert foreign.identity is None
    with pytest.raises(BadInput, match="is not the store's; expected a file that the store wrote"):
        store.remove(foreign)
    for entry in [entry for entry in store.entries() if entry.own]:
        assert entry.path == store.path("networks", IDENTITY)
        assert store.remove(entry)
    gone = [path for path in before if not os.path.lexists(path)]
    assert gone == [store.path("networks", IDENTITY)]


@pytest.mark.parametrize("there", [True, False])
def test_a_mark_that_is_a_link_is_none(tmp_path, there):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / MARKER).symlink_to(tmp_path / "mark")
    if there:
        (tmp_path / "mark").write_text("of another store")
    store = Store(tmp_path / "store")
    assert not store.marked
    store.adopt()
    assert not store.marked
    assert (tmp_path / "mark").exists() == there
    assert [entry.own for entry in store.entries()] == [False]


def test_what_cannot_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    store = Store(tmp_path)
    store.get_or_make("networks", IDENTITY, item)

    def refused(*_args, **_options):
        raise FileNotFoundError("No such file or directory")  # its word for every file that it may not open

    monkeypatch.setattr(safetensors, "safe_open", refused)
    (entry,) = store.entries()
    assert not entry.own


def test_a_folder_that_shows_no_more_than_names_stops_nothing(tmp_path, monkeypatch):
    store = Store(tmp_path)
    store.get_or_make("networks", IDENTITY, item)
    lstat = Path.lstat

    def refused(path):
        if path != tmp_path:
            raise PermissionError(13, "Permission denied")
        return lstat(path)

    monkeypatch.setattr(Path, "lstat", refused)
    entries = list(store.entries())
    assert entries
    assert not any(entry.own for entry in entries)
    assert not store.marked


OWN = ["{}.safetensors", "{}.damaged-1754", ".{}.safetensors.77.part", ".{}.safetensors.part"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", OWN)
def test_what_a_kill_or_a_damage_leaves_is_the_stores_and_can_be_removed(tmp_path, kind, form):
    store = Store(tmp_path)
    store.adopt()
    left = tmp_path / kind / form.format(f"moths-resnet18-32px-seed0-int4.5-{HEX}")
    left.parent.mkdir()
    left.write_bytes(b"half")
    (entry,) = store.entries()
    assert (entry.kind, entry.own, entry.identity, entry.nbytes) == (kind, True, None, 4)
    assert store.remove(entry)
    assert not left.exists()
    assert list(store.entries()) == []


def test_a_store_that_is_no_folder_is_said_in_one_sentence(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(BadInput, match=r"file cannot be read \(Not a directory\); expected a folder"):
        list(Store(tmp_path / "file").entries())
    (tmp_path / "dangling").symlink_to("nowhere")
    assert list(Store(tmp_path / "dangling").entries()) == []
