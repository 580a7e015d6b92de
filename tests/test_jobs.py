import asyncio
import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import dask
import psutil
import pytest
import torch
from distributed import Client, LocalCluster, Nanny
from tqdm.std import tqdm

from fairq_book.experiments import scheduling, studies
from fairq_book.experiments.scheduling import Job
from fairq_book.experiments.store import Store
from fairq_utils.errors import BadInput, JobsFailed
from fairq_utils.items import Item
from fairq_utils.training.loop import Recipe
from fairq_utils.treatments.treatment import FP32, Treatment

ROOT = Path(__file__).parents[1]
SMALL = {
    "arch": "resnet18-16",
    "train_images": 60,
    "test_images": 60,
    "recipe": Recipe(epochs=1, batch_size=20),
}


@pytest.fixture(scope="module")
def client():
    with scheduling.cluster(workers=2) as client:
        yield client


@pytest.fixture(params=["here", "cluster"])
def anywhere(request):
    return request.getfixturevalue("client") if request.param == "cluster" else None


# What jobs call. Workers import these from here, so they run there as they do in this process.


def draw(data, report):
    where = {"process": os.getpid(), "threads": torch.get_num_threads()}
    return Item({"x": torch.full((3,), float(data))}, where)


def add(data, *items, report):
    report(1)
    return Item({"x": sum(item.tensors["x"] for item in items)}, {"process": os.getpid()})


def when(data, *items, report):
    begun = time.monotonic()
    time.sleep(0.1)
    return Item({"x": torch.zeros(1)}, {"begun": begun})


def fail(data, *items, report):
    raise ZeroDivisionError("nothing to divide by")


def refuse(data, *items, report):
    raise BadInput("width is 1; expected 2.")


def die(data, *items, report):
    os.kill(os.getpid(), signal.SIGKILL)


def wait_for(ready, seconds=60):
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, f"{ready} never came true"
        time.sleep(0.02)


def sleep_at_first(data, *items, report, mark):
    """Of the first who calls it, the process is to be killed meanwhile."""
    try:
        mark.open("x").write(str(os.getpid()))
    except FileExistsError:
        return Item({"x": torch.zeros(1)})
    time.sleep(60)
    raise AssertionError("nobody killed this process")


def job(name, function, *needs, data=None, **options):
    return Job(
        kind="datasets",
        identity={"name": name},
        function=partial(function, **options),
        data=data,
        needs=needs,
    )


def test_what_is_needed_is_made_first_and_once(tmp_path, anywhere):
    store = Store(tmp_path)
    first = job("first", draw, data=2)
    wanted = [job(f"sum{n}", add, first, first) for n in range(3)]
    items = scheduling.make(wanted, store=store, client=anywhere)
    assert [item.tensors["x"].tolist() for item in items] == [[4.0] * 3] * 3
    assert store.written == {"datasets": 4}
    again = scheduling.make([wanted[1]], store=store, client=anywhere)
    assert store.written == {"datasets": 4}
    assert again[0].digest == items[1].digest


def test_jobs_run_with_one_thread_and_on_workers_when_there_are_some(tmp_path, anywhere):
    threads = torch.get_num_threads()
    (item,) = scheduling.make([job("x", draw, data=1)], store=Store(tmp_path), client=anywhere)
    assert item.info["threads"] == 1
    assert (item.info["process"] == os.getpid()) is (anywhere is None)
    assert torch.get_num_threads() == threads


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="no malloc_trim: this is not glibc")
def test_a_worker_gives_back_what_a_large_job_has_freed():
    script = """
import psutil, torch
from fairq_book.experiments import scheduling
def megabytes(): return psutil.Process().memory_info().rss / 1e6
before = megabytes()
parts = [torch.ones(250_000) for _ in range(400)]  # a megabyte each
last = parts[-1]  # what lies behind the gap
del parts
kept = megabytes() - before
scheduling._give_back(10**12)
small = megabytes() - before
scheduling._give_back(0)
print(kept, small, megabytes() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={
            **os.environ,
            **{
                name.rpartition(".")[2]: str(value)
                for name, value in scheduling._DASK.items()
                if "MALLOC" in name
            },
        },
        capture_output=True,
        text=True,
        check=True,
    )
    kept, small, after = map(float, done.stdout.split())
    assert min(kept, small) > 350
    assert after < 50


def test_of_two_callers_the_jobs_of_the_one_that_comes_first_are_made_first(tmp_path, monkeypatch):
    with scheduling.cluster(workers=1) as client:
        seconds = scheduling.seconds_by_priority(client)

        def ask(priority):
            monkeypatch.setenv(scheduling.PRIORITY_VARIABLE, str(priority))
            sweep = scheduling._Sweep(Store(tmp_path), client, tqdm(disable=True), {})
            wanted = [job(f"{priority}-{n}", when) for n in range(5)]
            return threading.Thread(target=sweep.through, args=[wanted]), wanted

        callers = [ask(priority) for priority in (-2, -1)]
        for thread, _ in callers:
            thread.start()
        for thread, _ in callers:
            thread.join()
    later, earlier = (
        [Store(tmp_path).find("datasets", each.identity).info["begun"] for each in wanted]
        for _, wanted in callers
    )
    assert sorted(later)[2] > max(earlier)  # what a worker has begun or has at hand, it ends
    assert 0.5 <= seconds[-1] < 5
    assert 0.5 <= seconds[-2] < 5


def test_what_exists_is_not_made_again_for_the_sake_of_what_needs_it(tmp_path, anywhere):
    store = Store(tmp_path)
    first = job("first", draw, data=2)
    scheduling.make([first], store=store)
    scheduling.make([job("second", add, first)], store=store, client=anywhere)
    # Nobody asks for the first when the second is there.
    store.path("datasets", first.identity).unlink()
    scheduling.make([job("second", add, first)], store=store, client=anywhere)
    assert store.written == {"datasets": 2}


@pytest.mark.parametrize("workers", [1, 2, 3, 9])
def test_every_worker_has_a_network_to_begin_with_and_nothing_comes_before_what_it_needs(workers):
    todo = []
    for study in range(4):
        original = job(f"original{study}", draw, data=1)
        tuned = job(f"tuned{study}", add, original)
        todo += [original, job(f"rounded{study}", add, original), tuned, job(f"of-tuned{study}", add, tuned)]
    ordered = scheduling._none_idle(todo, workers=workers)
    assert sorted(j.name for j in ordered) == sorted(j.name for j in todo)
    places = {j: place for place, j in enumerate(ordered)}
    assert all(places[need] < places[j] for j in todo for need in j.needs)
    beginnings = [j.name.startswith("original") for j in ordered]
    assert all(beginnings[: min(workers, 4)])
    assert beginnings.index(False) == min(workers, 4)  # and not all at once, which workers would have to hold


def test_a_whole_picture_of_the_first_studies_comes_before_the_networks_of_the_last():
    originals = [job(f"original{n}", draw) for n in range(5)]
    todo = [
        j for n, one in enumerate(originals) for j in (one, *(job(f"{n}-{i}", add, one) for i in range(9)))
    ]
    names = [j.name for j in scheduling._none_idle(todo, workers=2)]
    assert names.index("original2") > names.index("0-8")
    assert names.index("original4") > names.index("2-8")


def test_a_study_is_whole_before_the_next_network_is_begun(tmp_path):
    networks = [job(f"network{n}", when) for n in range(3)]
    todo = [
        each
        for n in range(3)
        for each in (networks[n], *(job(f"use{n}{k}", when, networks[n]) for k in "abc"))
    ]
    with scheduling.cluster(workers=1) as alone:
        items = scheduling.make(todo, store=Store(tmp_path), client=alone)
    begun = sorted(zip([item.info["begun"] for item in items], [each.name for each in todo], strict=True))
    assert [name[:-1] if "use" in name else name for _, name in begun] == [
        name for n in range(3) for name in (f"network{n}", *[f"use{n}"] * 3)
    ]


def test_a_failure_is_named_with_its_reason_and_the_rest_is_made(tmp_path, anywhere):
    store = Store(tmp_path)
    bad, refused, good = job("bad", fail), job("refused", refuse), job("good", draw, data=1)
    wanted = [job("of-bad", add, bad, good), refused, job("of-good", add, good)]
    with pytest.raises(JobsFailed) as caught:
        scheduling.make(wanted, store=store, client=anywhere)
    assert str(caught.value).splitlines() == [
        "3 of 5 could not be made, the rest is in the store.",
        "  bad: ZeroDivisionError: nothing to divide by (1 more needs it)",
        "  refused: width is 1; expected 2.",
    ]
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert store.written == {"datasets": 2}
    assert store.find("datasets", {"name": "of-good"})


def test_the_same_bytes_here_and_on_workers(tmp_path, client):
    wanted = studies.studies(seeds=[0, 1], **SMALL)
    treatments = [
        FP32,
        Treatment(3),
        Treatment.parse("nf4"),
        Treatment.parse("int4-qat"),
        Treatment.parse("w4a8-bn"),
    ]
    here, there = Store(tmp_path / "here"), Store(tmp_path / "there")
    studies.predictions(wanted, treatments, store=here)
    studies.predictions(wanted, treatments, store=there, client=client)
    files = [path.relative_to(here.root) for path in sorted(here.root.glob("*/*.safetensors"))]
    assert len(files) == 2 * (10 + 2 + 5)  # of each seed a brood of each group and split, too
    assert [path.relative_to(there.root) for path in sorted(there.root.glob("*/*.safetensors"))] == files
    for file in files:
        equal = (here.root / file).read_bytes() == (there.root / file).read_bytes()
        assert equal, file


def test_a_worker_that_is_killed_costs_only_what_it_had_in_hand(tmp_path):
    store = Store(tmp_path / "store")
    mark = tmp_path / "mark"
    first = job("first", draw, data=1)
    wanted = [job("slow", sleep_at_first, first, mark=mark), *(job(f"sum{n}", add, first) for n in range(4))]

    def kill():
        wait_for(mark.exists)
        while not mark.read_text():
            time.sleep(0.02)
        os.kill(int(mark.read_text()), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with scheduling.cluster(workers=2) as client:
        items = scheduling.make(wanted, store=store, client=client)
    killer.join()
    assert len(items) == 5
    assert store.written == {"datasets": 6}


def test_a_job_that_kills_every_worker_is_named(tmp_path):
    with (
        dask.config.set(
            {"distributed.scheduler.allowed-failures": 1}
        ),  # not 3, as a new worker takes seconds
        scheduling.cluster(workers=1) as client,
        pytest.raises(JobsFailed, match="deadly: KilledWorker") as caught,
    ):
        scheduling.make([job("deadly", die), job("good", draw, data=1)], store=Store(tmp_path), client=client)
    assert caught.value.failures.keys() == {"deadly"}
    assert Store(tmp_path).find("datasets", {"name": "good"})


def test_a_worker_that_is_slow_to_come_back_is_not_given_up(monkeypatch):
    instantiate = Nanny.instantiate

    async def slowly(self):
        await asyncio.sleep(3)  # two seconds more than Dask would have patience for
        return await instantiate(self)

    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "1s"}),
        scheduling.cluster(workers=1) as client,
    ):
        monkeypatch.setattr(Nanny, "instantiate", slowly)
        (process,) = client.run(os.getpid).values()
        os.kill(process, signal.SIGKILL)
        wait_for(lambda: not client.nthreads())
        wait_for(client.nthreads)


def without_workers(client):
    for nanny in client.cluster.workers.values():
        client.cluster.sync(nanny.close)
    wait_for(lambda: not client.nthreads())


@pytest.mark.parametrize("made", [False, True])
def test_what_has_no_worker_left_to_make_it_is_not_waited_for(tmp_path, monkeypatch, made):
    monkeypatch.setattr(scheduling, "_PATIENCE_SECONDS", 2)
    monkeypatch.setattr(scheduling, "_LOOK_SECONDS", 1)
    with scheduling.cluster(workers=1) as client, tqdm(disable=True) as bar:
        sweep = scheduling._Sweep(Store(tmp_path), client, bar, {})
        if made:  # and lost before it was handed over
            sweep._begin(job("x", draw, data=1))
            sweep.done.put(sweep._next())
        without_workers(client)
        with pytest.raises(BadInput, match="the cluster had no worker for 2 seconds; expected some"):
            sweep.through([] if made else [job("x", draw, data=1)])
    assert Store(tmp_path).try_lock("datasets", {"name": "x"})


def hold_and_keep(root, identity, until):
    """What another process does: it takes the lock, takes its time, and keeps the item."""
    store = Store(root)
    with store.lock("datasets", identity):
        print("held", flush=True)
        wait_for(until.exists)
        store.keep("datasets", identity, Item({"x": torch.ones(3)}))


def test_what_another_process_is_making_is_waited_for_and_not_made_twice(tmp_path, anywhere):
    store = Store(tmp_path)
    first = job("first", draw, data=2)
    until = store.path("datasets", {"name": "unrelated"})
    program = f"""
from pathlib import Path
from tests.test_jobs import hold_and_keep
hold_and_keep(Path({str(tmp_path)!r}), {first.identity!r}, Path({str(until)!r}))
"""
    other = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "held\n"
    items = scheduling.make(
        [job("unrelated", draw, data=5), first, job("sum", add, first)], store=store, client=anywhere
    )
    assert other.wait() == 0
    other.stdout.close()
    assert items[2].tensors["x"].tolist() == [1.0] * 3
    assert store.written == {"datasets": 2}


def test_two_sweeps_at_once_make_each_network_once(clone):
    options = [
        "--arch",
        "resnet18-16",
        "--train-images",
        "60",
        "--test-images",
        "60",
        "--epochs",
        "1",
        "--bits",
        "4",
        "--seeds",
        "0-2",
    ]
    command = [sys.executable, "-m", "fairq_book", "sweep", *options]
    sweeps = [
        subprocess.Popen(
            [*command, *more], cwd=clone.root, env=clone.environment, stdout=subprocess.PIPE, text=True
        )
        for more in ([], ["--workers", "2"])
    ]
    said = [sweep.communicate()[0] for sweep in sweeps]
    assert [sweep.returncode for sweep in sweeps] == [0, 0]
    now = " ".join(text.split("made now:")[1] for text in said)
    assert sum(int(number) for number in re.findall(r"(\d+) networks", now)) == 3, said
    assert sum(int(number) for number in re.findall(r"(\d+) predictions", now)) == 6, said


def test_a_caller_that_is_killed_goes_on_with_what_is_missing(clone):
    options = [
        "--arch",
        "resnet18-16",
        "--train-images",
        "60",
        "--test-images",
        "60",
        "--epochs",
        "1",
        "--bits",
        "4,3",
        "--seeds",
        "0-3",
    ]
    sweep = clone.start("sweep", *options)
    networks = clone.store / "networks"
    while len(list(networks.glob("*.safetensors"))) < 2:
        assert sweep.poll() is None
        time.sleep(0.05)
    os.killpg(sweep.pid, signal.SIGKILL)
    sweep.wait()
    before = {path: path.stat().st_mtime_ns for path in clone.store.glob("*/*.safetensors")}
    done = clone.fairq("sweep", *options)
    assert done.returncode == 0, done.stderr
    after = {path: path.stat().st_mtime_ns for path in clone.store.glob("*/*.safetensors")}
    assert len(after) == 4 * (10 + 1 + 3) > len(before)  # of each seed its broods of moths, too
    assert before.items() <= after.items()
    assert not list(clone.store.glob("*/.*"))


def test_on_a_cluster_that_stands_each_job_takes_one_of_the_gpus_that_are_announced(tmp_path):
    with LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0") as standing:
        command = [sys.executable, "-m", "distributed.cli.dask_worker", standing.scheduler_address]
        command += ["--nthreads", "1", "--no-dashboard", "--host", "127.0.0.1"]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        workers = [
            subprocess.Popen([*command, *more], cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
            for more in (["--name", "cores"], ["--name", "gpu", "--resources", "GPU=1"])
        ]
        try:
            with Client(standing) as ours:
                ours.wait_for_workers(2, timeout=60)
                known = ours.scheduler_info(n_workers=-1)["workers"]
                announcing = {address for address, worker in known.items() if worker["resources"]}
                processes = ours.run(os.getpid)
            with scheduling.cluster(scheduler=standing.scheduler_address) as client:
                wanted = [job(f"x{n}", draw, data=n) for n in range(6)]
                items = scheduling.make(wanted, store=Store(tmp_path / "store"), client=client)
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()
    assert len(announcing) == 1
    assert {item.info["process"] for item in items} == {processes[address] for address in announcing}


def test_a_cluster_without_workers_is_named():
    with (
        LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0") as standing,
        pytest.raises(BadInput, match="has no worker; expected at least one"),
        scheduling.cluster(scheduler=standing.scheduler_address),
    ):
        pass


def test_a_cluster_of_this_machine_listens_to_this_machine_alone(client):
    me = psutil.Process()
    addresses = {
        connection.laddr.ip
        for process in (me, *me.children(recursive=True))
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert addresses == {"127.0.0.1"}


def test_a_scheduler_that_does_not_answer_is_named(clone):
    done = clone.fairq("sweep", "--scheduler", "tcp://127.0.0.1:9", "--seeds", "0")
    assert done.returncode == 2
    assert done.stderr == (
        "Error: scheduler is 'tcp://127.0.0.1:9', where nothing answers as one; expected the address of a "
        "running Dask scheduler, such as tcp://127.0.0.1:8786: start one with `dask scheduler`.\n"
    )


def test_what_cannot_be_is_refused_in_one_sentence(tmp_path, monkeypatch):
    with (
        pytest.raises(BadInput, match="expected one of the two"),
        scheduling.cluster(workers=2, scheduler="tcp://x:1"),
    ):
        pass
    monkeypatch.setenv(scheduling.WORKERS_VARIABLE, "many")
    with pytest.raises(BadInput, match="FAIRQ_WORKERS is 'many'; expected a number"):
        scheduling.make([job("x", draw, data=1)], store=Store(tmp_path))


def test_workers_of_other_code_are_refused():
    with pytest.raises(BadInput, match="runs another fairq_utils or another torch than the caller"):
        scheduling._on_worker(draw, {"code": "other", "versions": {}}, None)


@pytest.mark.parametrize(
    ("asked", "cost", "roots", "chosen"),
    [
        ({}, 10**9, 5, {}),
        ({"FAIRQ_WORKERS": "4"}, 10**9, 5, {"workers": 4}),
        ({"FAIRQ_WORKERS": "4"}, 10**9, 3, {"workers": 3}),
        ({"FAIRQ_WORKERS": "4"}, 10**9, 1, {}),
        ({"FAIRQ_WORKERS": "4"}, 10, 5, {}),
        ({"FAIRQ_SCHEDULER": "tcp://x:1", "FAIRQ_WORKERS": "4"}, 10**9, 1, {"scheduler": "tcp://x:1"}),
        ({"FAIRQ_SCHEDULER": "tcp://x:1"}, 10, 5, {}),
    ],
)
def test_a_notebook_uses_other_processes_only_when_asked_and_worth_it(
    monkeypatch, asked, cost, roots, chosen
):
    for name in ("FAIRQ_WORKERS", "FAIRQ_SCHEDULER"):
        monkeypatch.delenv(name, raising=False)
    for name, value in asked.items():
        monkeypatch.setenv(name, value)
    first = [Job(kind="x", identity={"name": str(n)}, function=draw, cost=cost) for n in range(roots)]
    later = [Job(kind="x", identity={"name": "later"}, function=draw, needs=(need,)) for need in first]
    assert scheduling._by_environment([*first, *later]) == chosen
