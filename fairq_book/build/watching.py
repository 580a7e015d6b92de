"""What a build of minutes says meanwhile: what is done, what is running, and how long is left."""

from __future__ import annotations

import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TextIO

import psutil

# Seconds of two cores that a build may spend on the jobs of each chapter and on the pages. The first chapter
# trains the networks of the three behind it, with which it shares.
SHARES = {"01": 120, "02": 30, "03": 30, "04": 30, "05": 90, "06": 45, "pages": 60}
# The same for all kernels together, which mostly draw, for the jobs of the two chapters that are
# left, and for the two audits that are worked examples.
SHARE_OF_KERNELS = 60 + 15
_TOGETHER = {"chapters 1 to 4": ("01", "02", "03", "04"), "chapter 5": ("05",), "chapter 6": ("06",)}
EVERY_SECONDS_IN_A_LOG = 30  # it is said how all stands; on a terminal, each second
_BAR = re.compile(r"(?P<what>[^\r\n]*?): +(?P<percent>\d+)%\|")


class Part:
    """A part of a build while it runs: a chapter, or the pages.

    To papermill it is the file for what the kernel says. Of bars it remembers the last; what else is said,
    such as a warning, is handed on.

    >>> part = Part("01_disparity_baseline", Watch([], file=sys.stdout))
    >>> _ = part.write("\\r2 networks:  45%|####     | 9/20")
    >>> str(part)
    '01_disparity_baseline (2 networks: 45 %)'
    >>> _ = part.write("a network was damaged\\n")
    a network was damaged
    """

    def __init__(self, name: str, watch: Watch, environment: Mapping[str, str] = {}) -> None:
        self.name, self.environment = name, {"FAIRQ_PROGRESS": "1"} | os.environ | dict(environment)
        self.done = self.kernel_seconds = 0.0
        self._watch, self._bar, self._stopped = watch, "", False
        self._kernel: psutil.Process | None = None

    def __str__(self) -> str:
        return f"{self.name} ({self._bar})" if self._bar else self.name

    def write(self, text: str) -> int:
        """What the kernel says."""
        for piece in re.split(r"[\r\n]", text):
            if bar := _BAR.match(piece):
                self._bar = f"{bar['what']}: {bar['percent']} %"
                self.done = max(self.done, 0.9 * int(bar["percent"]) / 100)
            elif piece.strip():
                self._watch.say(piece)
        return len(text)

    def flush(self) -> None:
        """Nothing waits to be written."""

    def started(self, process: int) -> None:
        """Its kernel runs in that process."""
        with suppress(psutil.NoSuchProcess):
            self._kernel = psutil.Process(process)
        if self._stopped:
            self.stop()

    def look(self) -> None:
        """See how long the kernel has computed: once it is gone, nobody can say."""
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if self._kernel:
                self.kernel_seconds = sum(self._kernel.cpu_times()[:2])

    def stop(self) -> None:
        """End its kernel, now or as soon as it is there."""
        self._stopped = True
        with suppress(psutil.NoSuchProcess):
            if self._kernel:
                self._kernel.kill()


class Watch:
    """Says in a line each what begins and what ends, and between them how all stands and how long is left.

    How all stands is on a terminal one line at the bottom, written over each second, and in a log a line each
    half minute. The time left is what the shares of a build make of the time that has passed.

    >>> with Watch(["01_disparity_baseline"], file=sys.stdout) as watch, watch.part("01_disparity_baseline"):
    ...     print(watch.standing())
    01_disparity_baseline: running
    0:00, 0 of 1 done, running 01_disparity_baseline
    01_disparity_baseline: done in 0 s
    """

    def __init__(self, names: list[str], *, file: TextIO | None = None) -> None:
        self.names, self.running, self.ended = names, list[Part](), list[Part]()
        self.took: dict[str, float] = {}
        # Seconds that each chapter's took, by its number; none where they were not counted.
        self.jobs: dict[str, float] | None = None
        self._file = file or sys.stderr
        self._overwrites = self._file.isatty()
        self._begun, self._one_at_a_time, self._over = time.monotonic(), threading.RLock(), threading.Event()
        self._ticking = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> Watch:
        self._begun = time.monotonic()
        self._ticking.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._ticking.join()
        self._erase()

    def say(self, line: str) -> None:
        """A line that stays."""
        with self._one_at_a_time:
            self._erase()
            print(line, file=self._file, flush=True)

    @contextmanager
    def part(self, name: str, environment: Mapping[str, str] = {}) -> Iterator[Part]:
        """The part of that name runs within this block."""
        part, begun = Part(name, self, environment), time.monotonic()
        self.running.append(part)
        self.say(f"{name}: running")
        try:
            yield part
            self.ended.append(part)
            self.took[name] = time.monotonic() - begun
            self.say(f"{name}: done in {self.took[name]:.0f} s")
        finally:
            self.running.remove(part)

    def stop(self) -> None:
        """End the kernels of all that runs."""
        for part in list(self.running):
            part.stop()

    def standing(self) -> str:
        """How all stands."""
        running = list(self.running)
        passed = time.monotonic() - self._begun
        weights = {name: float(SHARES.get(name[:2], SHARES.get(name, 10))) for name in self.names}
        done = sum(weights[name] for name in self.took) + sum(weights[p.name] * p.done for p in running)
        share = done / sum(weights.values())
        said = [f"{_clock(passed)}, {len(self.took)} of {len(self.names)} done"]
        said += [f"running {', '.join(map(str, running))}"] if running else []
        said += [f"about {_clock(passed * (1 - share) / share)} left"] if share > 0.05 else []
        return ", ".join(said)

    def table(self) -> str:
        """Seconds of two cores that were spent, beside their shares."""
        jobs = self.jobs or {}
        rows = [
            (what, sum(jobs.get(number, 0) for number in numbers) / 2, sum(SHARES[n] for n in numbers))
            for what, numbers in _TOGETHER.items()
        ]
        counted = {number for _, numbers in _TOGETHER.items() for number in numbers}
        rest = sum(seconds for number, seconds in jobs.items() if number not in counted)
        kernels = sum(part.kernel_seconds for part in self.ended)
        rows.append(("kernels, other chapters", (kernels + rest) / 2, SHARE_OF_KERNELS))
        rows.append(("pages", self.took.get("pages", 0), SHARES["pages"]))
        lines = [f"{'seconds of two cores':<24}{'spent':>8}{'share':>8}"]
        lines += [f"{what:<24}{spent:>8.0f}{share:>8}" for what, spent, share in rows]
        return "\n".join([*lines, f"{'all, by the clock':<24}{time.monotonic() - self._begun:>8.0f}"])

    def _tick(self) -> None:
        every = 1 if self._overwrites else EVERY_SECONDS_IN_A_LOG
        last = time.monotonic()
        while not self._over.wait(1):
            for part in list(self.running):
                part.look()
            if self.running and time.monotonic() - last >= every:
                last = time.monotonic()
                if self._overwrites:
                    with self._one_at_a_time:
                        wide = shutil.get_terminal_size().columns - 1
                        self._file.write(f"\r\x1b[K{self.standing()[:wide]}")
                        self._file.flush()
                else:
                    self.say(self.standing())

    def _erase(self) -> None:
        if self._overwrites:
            self._file.write("\r\x1b[K")
            self._file.flush()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}"
