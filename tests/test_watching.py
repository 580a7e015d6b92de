import io
import re
import subprocess
import sys
import time

import pytest

from fairq_book.build import notebooks, watching
from fairq_book.build.watching import SHARE_OF_KERNELS, SHARES, Part, Watch
from tests.conftest import ROOT


class Terminal(io.StringIO):
    def isatty(self):
        return True


def watched(file) -> str:
    """What is said of two chapters, of which the second is half done for long."""
    with Watch(["01_one", "02_two"], file=file) as watch:
        with watch.part("01_one"):
            pass
        with watch.part("02_two") as part:
            part.write("\r3 networks:   0%|  ")
            part.write("\r3 networks:  50%|##")
            part.write("a network was damaged\n")
            time.sleep(2.5)
    return file.getvalue()


def test_a_log_has_whole_lines():
    lines = watched(io.StringIO()).splitlines()
    assert lines[:4] == ["01_one: running", "01_one: done in 0 s", "02_two: running", "a network was damaged"]
    assert re.fullmatch(r"02_two: done in \d+ s", *lines[4:])


def test_a_log_says_now_and_then_how_all_stands(monkeypatch):
    monkeypatch.setattr(watching, "EVERY_SECONDS_IN_A_LOG", 1)
    standing = [line for line in watched(io.StringIO()).splitlines() if line.startswith("0:0")]
    assert standing[0].startswith("0:01, 1 of 2 done, running 02_two (3 networks: 50 %), about 0:")
    assert "\r" not in "".join(standing)


def test_on_a_terminal_one_line_is_written_over_and_gone_at_the_end():
    said = watched(Terminal())
    assert said.count("\n") == 5
    assert "\r\x1b[K0:01, 1 of 2 done" in said
    assert said.endswith("\r\x1b[K")


def test_what_is_left_is_told_by_the_shares(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    watch = Watch(["01_one", "02_two", "pages"], file=io.StringIO())
    assert watch.standing() == "0:00, 0 of 3 done"
    with watch.part("01_one"):
        now[0] = 240.0  # twice its share
    left = 2 * (SHARES["02"] + SHARES["pages"])
    assert watch.standing() == f"4:00, 1 of 3 done, about {left // 60}:{left % 60:02} left"


def test_seconds_are_told_beside_their_shares():
    watch = Watch([], file=io.StringIO())
    watch.jobs = {"01": 100.0, "03": 60.0, "05": 300.0, "08": 20.0}
    with watch.part("05_five") as part:
        part.kernel_seconds = 30.0
    rows = {line[:24].strip(): line[24:].split() for line in watch.table().splitlines()}
    assert rows["chapters 1 to 4"] == ["80", "210"]
    assert rows["chapter 5"] == ["150", "90"]
    assert rows["chapter 6"] == ["0", "45"]
    assert rows["kernels, other chapters"] == ["25", str(SHARE_OF_KERNELS)]
    assert rows["pages"] == ["0", "60"]


def test_every_chapter_whose_networks_are_trained_as_jobs_has_a_share():
    without = {
        "07",
        "08",
        "09",
        "10",
        "11",
    }  # the audit, the explorer, language, two worked audits: they share what kernels have
    assert {chapter.slug[:2] for chapter in notebooks.chapters(ROOT)} == set(SHARES) - {"pages"} | without


@pytest.mark.parametrize("early", [True, False])
def test_a_kernel_is_ended_now_or_as_soon_as_it_is_there(early):
    part = Part("01_one", Watch([], file=io.StringIO()))
    if early:
        part.stop()
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as kernel:
        part.started(kernel.pid)
        part.look()
        if not early:
            assert kernel.poll() is None
            part.stop()
        assert kernel.wait(10) == -9
    part.look()
    part.stop()  # of what is gone, nothing is left to do
