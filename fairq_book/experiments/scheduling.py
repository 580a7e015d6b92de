"""Make what the store lacks: in this process, on the cores of this machine, or on somebody's cluster.

A job is a pure function of its inputs, so where it runs does not matter. It runs with one thread: sums of
floats depend on how they are divided among threads, and equal jobs should give equal bytes on two cores
and on sixty-four. Speed comes from running jobs beside each other.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
import queue
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import filelock
import torch
from tqdm.std import tqdm

from fairq_book.experiments.code import code_digest, versions
from fairq_book.experiments.parameters import MOST_WORKERS
from fairq_book.experiments.store import Store
from fairq_utils.errors import BadInput, JobsFailed
from fairq_utils.items import Item
from fairq_utils.progress import Report, progress, reporting

if TYPE_CHECKING:  # importing it takes a second, which only those who use a cluster should pay
    from distributed import Client, Future

# Where a notebook's jobs run, which has no command line to say it.
WORKERS_VARIABLE, SCHEDULER_VARIABLE = "FAIRQ_WORKERS", "FAIRQ_SCHEDULER"
# Which of several callers of one scheduler comes first: the one with the higher number.
PRIORITY_VARIABLE = "FAIRQ_PRIORITY"
# Images; with less to do, starting workers or asking a scheduler costs more than it saves.
_WORTH_STARTING, _WORTH_ASKING = 60_000, 5_000
_PAUSE_SECONDS = 0.3  # to see what another process has made, as asking for hundreds of items takes a while
_KNOCK_SECONDS = 3  # for a scheduler to answer at all
_PATIENCE_SECONDS = 300  # with a cluster that has no workers at all
_LOOK_SECONDS = 10  # between one look at it and the next, while nothing is done
# Bytes that a worker may have between jobs. About a thousand million are its own once PyTorch is at work.
_KEPT = 1_500_000_000
# Many, because whole studies may wait for one network, and a worker should find work beyond them. Not more,
# because each holds a lock, and the usual limit is 1024 open files.
_AT_MOST_IN_FLIGHT = 400


@dataclass(frozen=True, eq=False, kw_only=True)
class Job:
    """One item of the store, and how it is made.

    `function` is called with `data`, then with the item of each job in `needs`, and `report=` to be told
    how much of `cost` is done, and how it stands. It is to be importable, or a `functools.partial` of
    what is.
    `cost` is in images that pass through a network, of which a backward pass counts as two.
    """

    kind: str
    identity: dict[str, Any]
    function: Callable[..., Item]
    data: Any = None
    needs: tuple[Job, ...] = ()
    cost: int = 1

    @property
    def name(self) -> str:
        """What it is called where a person reads it."""
        return str(self.identity["name"])

    @cached_property
    def code(self) -> dict[str, Any]:
        """What must be the same wherever the job runs."""
        return _code(self.function)


def _code(function: Callable[..., Item]) -> dict[str, Any]:
    module = getattr(function, "func", function).__module__
    return {"code": code_digest(module), "versions": versions("torch", "torchvision")}


def make(jobs: Sequence[Job], *, store: Store, client: Client | None = None) -> list[Item]:
    """The item of each job: read where it exists, made where it does not, in the order of the jobs.

    With a `client` of a Dask cluster the jobs run there; without, in this process, unless the environment
    variable FAIRQ_SCHEDULER or FAIRQ_WORKERS says otherwise and there is enough to do. Only this process
    writes the store. What cannot be made does not keep the rest from being made: `JobsFailed` names it at
    the end.

    >>> import tempfile, pathlib
    >>> store = Store(pathlib.Path(tempfile.mkdtemp()))
    >>> def count(data, report):
    ...     return Item({"numbers": torch.arange(data)})
    >>> three = Job(kind="datasets", identity={"name": "three"}, function=count, data=3)
    >>> make([three], store=store)[0].tensors["numbers"]
    tensor([0, 1, 2])
    """
    found = [store.find(job.kind, job.identity) for job in jobs]
    wanted = [job for job, item in zip(jobs, found, strict=True) if item is None]
    todo = _in_order(wanted, store)
    if todo:
        made = _make_all(todo, store, client)
        found = [item or made(job) for job, item in zip(jobs, found, strict=True)]
    return [item for item in found if item is not None]


def _make_all(todo: list[Job], store: Store, client: Client | None) -> Callable[[Job], Item | None]:
    failures: dict[Job, Exception] = {}
    total = sum(job.cost for job in todo)
    with (
        nullcontext(client) if client else cluster(**_by_environment(todo)) as chosen,
        progress(total=total, description=_count(todo), unit="img") as bar,
    ):
        if chosen:
            _on_cluster(todo, store, chosen, bar, failures)
        else:
            _in_this_process(todo, store, bar, failures)
    if failures:
        raise JobsFailed({job.name: failures[job] for job in todo if job in failures}, of=len(todo))
    return lambda job: store.find(job.kind, job.identity)


def _in_order(jobs: Iterable[Job], store: Store) -> list[Job]:
    """The jobs, each once, after those that it needs and that are not in the store."""
    ordered: dict[Job, None] = {}
    for job in jobs:
        missing = [need for need in job.needs if not store.path(need.kind, need.identity).exists()]
        ordered |= dict.fromkeys([*_in_order(missing, store), job])
    return list(ordered)


def _count(jobs: Iterable[Job]) -> str:
    return ", ".join(f"{number} {kind}" for kind, number in Counter(job.kind for job in jobs).items())


# ---------------------------------------------------------------- here


_ALONE = threading.Lock()  # PyTorch's number of threads and its random state belong to the whole process


def run(function: Callable[..., Item], *inputs: Any, report: Report) -> Item:
    """Call the function as it is called everywhere: with one thread, and nothing else beside it."""
    with _ALONE, torch.enable_grad():  # the caller may have switched gradients off, for work of its own
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return function(*inputs, report=report)
        finally:
            torch.set_num_threads(threads)


class _Failed(Exception):
    """Raised around an error of a job's own, to tell it from an error of the store."""


def _in_this_process(todo: list[Job], store: Store, bar: tqdm, failures: dict[Job, Exception]) -> None:
    @lru_cache(maxsize=2)  # a network is read once for all its treatments, and no older one is held
    def item(job: Job) -> Item:
        def make() -> Item:
            inputs = [item(need) for need in job.needs]
            bar.set_postfix_str(job.name)
            try:
                return run(job.function, job.data, *inputs, report=reporting(bar, job.name))
            except Exception as error:
                raise _Failed from error

        return store.get_or_make(job.kind, job.identity, make)

    done = 0
    for job in todo:
        if blocked := [need for need in job.needs if need in failures]:
            failures[job] = failures[blocked[0]]
        else:
            try:
                item(job)
            except _Failed as failed:
                failures[job] = failed.__cause__  # type: ignore[assignment] # it has one
        done += job.cost
        bar.update(done - bar.n)


# ---------------------------------------------------------------- on a cluster


_DASK = {
    # The images travel once, as a task of their own that can be run again when its worker dies.
    "distributed.admin.large-graph-warning-threshold": "100GB",
    # Dask has workers give each freed page back at once, which makes training take twice as long. Kept
    # for the next step instead, it takes a fifth less than by default.
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": 2**31,
    "distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": 2**31,
    # A worker that dies is started again. Dask gives up one that is not back 15 seconds after it first
    # died, even if it was back between, and then nothing is left to do the work.
    "distributed.deploy.lost-worker-timeout": "365 days",
}


@contextmanager
def cluster(*, workers: int = 0, scheduler: str | None = None) -> Iterator[Client | None]:
    """A client of the scheduler at that address, or of so many processes here, or None for neither.

    A cluster of this machine listens on its loopback interface alone, and ends with the block.

    >>> with cluster() as client:
    ...     print(client)
    None
    """
    if scheduler and workers:
        raise BadInput(f"scheduler is {scheduler} and workers is {workers}; expected one of the two.")
    if not 0 <= workers <= MOST_WORKERS:
        raise BadInput(f"workers is {workers}; expected a number of processes from 0 to {MOST_WORKERS}.")
    if not scheduler and not workers:
        yield None
        return
    import dask
    from distributed import Client, LocalCluster

    with dask.config.set(_DASK):
        if scheduler:
            try:
                _knock(scheduler)
                client = Client(scheduler, timeout="3s", set_as_default=False)
            except (OSError, ValueError, TypeError) as error:  # the last of a protocol that is not set up
                raise BadInput(
                    f"scheduler is {scheduler!r}, where nothing answers as one; expected the address of a "
                    "running Dask scheduler, such as tcp://127.0.0.1:8786: start one with `dask scheduler`."
                ) from error
            with client:
                if not client.scheduler_info()["workers"]:
                    raise BadInput(
                        f"scheduler {scheduler} has no worker; expected at least one: start it with "
                        f"`dask worker {scheduler} --nthreads 1`."
                    )
                yield client
            return
        with (
            LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                worker_dashboard_address="127.0.0.1:0",
                memory_limit=0,
                silence_logs=logging.CRITICAL,
            ) as local,
            Client(local, set_as_default=False) as client,
        ):
            yield client


def _knock(address: str) -> None:
    """Ask whether a scheduler answers, before a client does, which prints traces and may wait for ever."""
    from distributed.comm.core import connect
    from distributed.security import Security

    async def knock() -> None:
        settings = Security().get_connection_args("client")
        (await asyncio.wait_for(connect(address, timeout=_KNOCK_SECONDS, **settings), _KNOCK_SECONDS)).abort()

    with ThreadPoolExecutor(1) as apart:  # a kernel has a loop of its own, in which none other can run
        apart.submit(asyncio.run, knock()).result()


def seconds_by_priority(client: Client) -> Counter[int]:
    """Seconds that jobs take from now on, by the priority of their caller; counted as they end.

    The client's scheduler has to run in this process, as that of `cluster(workers=...)` does.
    """
    from distributed.diagnostics.plugin import SchedulerPlugin

    seconds: Counter[int] = Counter()
    scheduler: Any = client.cluster.scheduler  # type: ignore[union-attr] # it has one

    class Count(SchedulerPlugin):
        def transition(self, key: Any, start: str, finish: str, *_: Any, **about: Any) -> None:
            for each in about.get("startstops") or ():
                if each["action"] == "compute":
                    priority = -scheduler.tasks[key].priority[0]
                    seconds[priority] += each["stop"] - each["start"]

    scheduler.add_plugin(Count())
    return seconds


def _by_environment(todo: list[Job]) -> dict[str, Any]:
    """Where the environment wants jobs to run, as options of `cluster`; here if there is little to do."""
    cost = sum(job.cost for job in todo)
    if scheduler := os.environ.get(SCHEDULER_VARIABLE):
        return {"scheduler": scheduler} if cost >= _WORTH_ASKING else {}
    asked = os.environ.get(WORKERS_VARIABLE, "0")
    if not asked.isdecimal() or int(asked) > MOST_WORKERS:
        raise BadInput(
            f"{WORKERS_VARIABLE} is {asked!r}; expected a number of processes from 0 to {MOST_WORKERS}, such "
            "as 4."
        )
    beside = sum(not job.needs or all(need not in todo for need in job.needs) for job in todo)
    workers = min(int(asked), beside)
    return {"workers": workers} if workers > 1 and cost >= _WORTH_STARTING else {}


def _on_worker(function: Callable[..., Item], code: dict[str, Any], *inputs: Any) -> Item:
    """What a worker does: refuse to compute by other code than the caller's, then compute."""
    if _code(function) != code:
        raise BadInput(
            f"the worker on {os.uname().nodename} runs another fairq_utils or another torch than the caller; "
            "expected the same: install the same on both, and start the workers again."
        )
    try:
        return run(function, *inputs, report=lambda done, said="": None)
    finally:
        _give_back(_KEPT)


def _give_back(limit: int) -> None:
    """Return what is free to the system when this process has more than so many bytes.

    Within a job freed memory is kept, as `_DASK` says why. Kept from job to job as well, each worker would
    hold the most that it ever needed and the gaps between what is left.
    """
    import psutil  # Dask brings it

    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc; other systems return it themselves
    if trim and psutil.Process().memory_info().rss > limit:
        gc.collect()
        trim(0)


def _itself(value: Any) -> Any:
    return value


def _on_cluster(
    todo: list[Job], store: Store, client: Client, bar: tqdm, failures: dict[Job, Exception]
) -> None:
    def through(jobs: list[Job]) -> _Sweep:
        sweep = _Sweep(store, client, bar, failures)
        sweep.through(jobs)
        return sweep

    wanted = _none_idle(todo, workers=len(client.nthreads()))
    while wanted:
        sweep = through(wanted)
        wanted = sweep.elsewhere
        # Dask blames everything that a dying worker had in hand. By itself, each shows who the culprit is.
        for job in sweep.blamed:
            alone = through([job])
            wanted += alone.elsewhere
            if job in alone.blamed:
                failures[job] = alone.blamed[job]
                bar.update(job.cost)
        if wanted:  # another process is at these: wait for one, then see what is left
            bar.set_postfix_str(f"another process makes {wanted[0].name}")
            with store.lock(wanted[0].kind, wanted[0].identity):
                pass
            time.sleep(_PAUSE_SECONDS)


def _first(jobs: list[Job]) -> dict[Job, None]:
    """The jobs that others wait for, and that wait for none themselves: the networks of studies."""
    own, needed = set(jobs), {need for job in jobs for need in job.needs}
    return {job: None for job in jobs if job in needed and own.isdisjoint(job.needs)}


def _none_idle(jobs: list[Job], *, workers: int) -> list[Job]:
    """The jobs in an order in which workers need not wait for one another.

    Study by study, all workers but one would wait for the network that everything in a study needs. So
    each worker begins with one of those, and with the work on each study one more is begun.
    """
    first = _first(jobs)
    ordered, later = list(first)[:workers], iter(list(first)[workers:])
    begun = 0
    for job in jobs:
        if job not in first:
            ordered.append(job)
        elif begun and (following := next(later, None)):
            ordered.append(following)
        begun += job in first
    return ordered


class _NoWorkers(BadInput):
    def __init__(self) -> None:
        super().__init__(
            f"the cluster had no worker for {_PATIENCE_SECONDS} seconds; expected some: what was made is in "
            "the store, so start workers and this command again."
        )


class _Sweep:
    """One pass over jobs on a cluster: what can be begun is begun, what comes back is kept."""

    def __init__(self, store: Store, client: Client, bar: tqdm, failures: dict[Job, Exception]) -> None:
        self.store, self.client, self.bar, self.failures = store, client, bar, failures
        self.shared: dict[int, Future] = {}  # what many jobs are given travels once
        self.results: dict[Job, Future] = {}  # of what later jobs need
        self.running: dict[Future, tuple[Job, filelock.BaseFileLock]] = {}
        self.done: queue.SimpleQueue[Future] = queue.SimpleQueue()
        self.priority = int(os.environ.get(PRIORITY_VARIABLE, "0"))
        self.resources = {"GPU": 1} if _announces_gpus(client) else None
        self.elsewhere: list[Job] = []  # another process is making these
        self.blamed: dict[Job, Exception] = {}  # these were in the hands of workers that died

    def through(self, jobs: list[Job]) -> None:
        """Make the jobs; what is not made stands in `elsewhere`, `blamed` or `failures`."""
        waiting = deque(jobs)
        later = Counter(need for job in jobs for need in job.needs)
        first = _first(jobs)

        def too_early(job: Job) -> bool:
            # What waits for a network is ready a moment after it. A worker that knew the next network by
            # then would begin that, and studies would be begun one after another before one is whole.
            begun = sum(other in first for other, _ in self.running.values()) if job in first else 0
            return begun > 0 and begun >= len(self.client.nthreads())

        try:
            while waiting or self.running:
                while waiting and len(self.running) < _AT_MOST_IN_FLIGHT and not too_early(waiting[0]):
                    job = waiting.popleft()
                    self._begin(job)
                    for need in job.needs:
                        later[need] -= 1
                        if not later[need]:  # Dask keeps it for as long as a task of ours needs it
                            self.results.pop(need, None)
                if self.running:
                    self._keep(self._next(), later)
        finally:
            for _, lock in self.running.values():
                lock.release()

    def _begin(self, job: Job) -> None:
        if blocked := [need for need in job.needs if need in self.failures]:
            self.failures[job] = self.failures[blocked[0]]
            self.bar.update(job.cost)
        elif blocked := [need for need in job.needs if need in self.blamed]:
            self.blamed[job] = self.blamed[blocked[0]]
        elif any(need in self.elsewhere for need in job.needs):  # noqa: SIM114 - one line would not fit
            self.elsewhere.append(job)
        elif not (lock := self.store.try_lock(job.kind, job.identity)):
            self.elsewhere.append(job)
        elif self.store.path(job.kind, job.identity).exists():
            lock.release()
            self.bar.update(job.cost)
        else:
            self._submit(job, lock)

    def _submit(self, job: Job, lock: filelock.BaseFileLock) -> None:
        if id(job.data) not in self.shared:
            self.shared[id(job.data)] = self.client.submit(_itself, job.data, pure=False)
        for need in job.needs:
            if need not in self.results:  # it was in the store, and travels once like what is made on the way
                stored = self.store.find(need.kind, need.identity)
                self.results[need] = self.client.submit(_itself, stored, pure=False)
        future = self.client.submit(
            _on_worker,
            job.function,
            job.code,
            self.shared[id(job.data)],
            *(self.results[need] for need in job.needs),
            key=f"{job.name}-{uuid.uuid4()}",
            resources=self.resources,
            priority=self.priority,
        )
        self.running[future] = job, lock
        self.results[job] = future
        future.add_done_callback(self.done.put)

    def _next(self) -> Future:
        """The next that ends; when all workers are gone for long, nothing will."""
        patience = _PATIENCE_SECONDS
        while True:
            try:
                return self.done.get(timeout=_LOOK_SECONDS)
            except queue.Empty:
                patience = patience - _LOOK_SECONDS if not self.client.nthreads() else _PATIENCE_SECONDS
                if patience <= 0:
                    raise _NoWorkers from None

    def _result(self, future: Future) -> Item:
        """What it made. When its worker dies before it hands that over, another has to make it again."""
        while True:
            try:
                return future.result(timeout=_PATIENCE_SECONDS)
            except TimeoutError:
                if future.status == "error":  # the job's own
                    raise
                if not self.client.nthreads():
                    raise _NoWorkers from None

    def _keep(self, future: Future, later: Counter[Job]) -> None:
        from distributed import KilledWorker

        job, lock = self.running.pop(future)
        try:
            item = self._result(future)
        except _NoWorkers:
            raise
        except KilledWorker as error:
            self.blamed[job] = error
        except Exception as error:
            _raise_if_the_cluster_is_gone(error, self.client)
            of_need = [self.failures[need] for need in job.needs if need in self.failures]
            self.failures[job] = of_need[0] if of_need else error
        else:
            self.store.keep(job.kind, job.identity, item)
        finally:
            lock.release()
        if not later[job]:
            self.results.pop(job, None)
        if job not in self.blamed:
            self.bar.update(job.cost)


def _announces_gpus(client: Client) -> bool:
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    return any("GPU" in worker.get("resources", {}) for worker in workers)


def _raise_if_the_cluster_is_gone(error: Exception, client: Client) -> None:
    from distributed.client import FutureCancelledError
    from distributed.comm.core import CommClosedError

    if isinstance(error, CommClosedError | FutureCancelledError) or client.status != "running":
        raise BadInput(
            "the scheduler went away; what was made is in the store, so start it and this command again."
        ) from error
