import functools
import http.server
import os
import re
import shutil
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import yaml
from playwright.sync_api import sync_playwright
from xdist.scheduler import LoadScopeScheduling

from fairq_book.build.pdf import BROWSERS

ROOT = Path(__file__).parents[1]

# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

# Processes beside each other share the cores; it is said before torch counts them.
if beside := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(beside))))


@functools.cache
def _shared(path: Path) -> str:
    """What takes long to make and is shared by the tests of this file; else the file itself."""
    asked = re.search(r"[(,] ?(built|address)[,)]", path.read_text()) if path.name != "conftest.py" else None
    return "built" if asked else path.relative_to(ROOT).as_posix()


class _Together(LoadScopeScheduling):
    """With `pytest -n`: tests that share something stay in one process."""

    def _split_scope(self, nodeid: str) -> str:
        return _shared(ROOT / nodeid.split("::")[0])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    return _Together(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins."""
    names = ("every_chapter", "failing_builds", "jobs", "cli", "results", "benchmarks")
    longest = ["built", *(f"tests/test_{name}.py" for name in names)]
    place = {name: number for number, name in enumerate(longest)}
    items.sort(key=lambda item: place.get(_shared(item.path), len(longest)))


@dataclass(frozen=True)
class Clone:
    """A copy of the project with a store of its own."""

    root: Path
    store: Path

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {
            "FAIRQ_STORE": str(self.store),
            "FAIRQ_PROGRESS": "0",
            "PYTHONPATH": str(self.root),
        }

    def fairq(self, *arguments: str, **options) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "fairq_book", *arguments],
            cwd=self.root,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            **options,
        )

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """In a process group of its own, so that a test can kill it with its kernel and its Sphinx."""
        return subprocess.Popen(
            [sys.executable, "-m", "fairq_book", *arguments],
            cwd=self.root,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )


def copy_project(target: Path) -> Path:
    ignored = shutil.ignore_patterns(
        ".git", ".venv", "_build", ".*_cache", "__pycache__", "*.egg-info", ".hypothesis"
    )
    return Path(shutil.copytree(ROOT, target, ignore=ignored))


@pytest.fixture
def clone(tmp_path) -> Clone:
    return Clone(copy_project(tmp_path / "clone"), tmp_path / "store")


@pytest.fixture
def short_book(clone) -> Clone:
    """A clone whose book has the first chapter only: enough to see how a book is built, in less time."""
    return without_chapters(clone, "[2-9]")


@pytest.fixture
def bare_book(clone) -> Clone:
    """A clone whose book is one page: enough to see what Sphinx refuses, with nothing to run."""
    without_chapters(clone, "[1-9]")
    (clone.root / "_toc.yml").write_text("format: jb-book\nroot: book/index\n")
    (clone.root / "book" / "index.md").write_text(
        "# A page\n\nIt begins with a paragraph.\n\n```{choices} utkface\n```\n"
    )
    return clone


def without_chapters(clone: Clone, numbers: str) -> Clone:
    left_out = re.compile(rf"(?:0{numbers}|1\d)_")
    for path in (clone.root / "notebooks").iterdir():
        if left_out.match(path.name):
            path.unlink()
    for path in (clone.root / "book").rglob("*.md"):
        kept = "".join(line for line in path.read_text().splitlines(True) if not left_out.search(line))
        path.write_text(kept)
    contents = yaml.safe_load((clone.root / "_toc.yml").read_text())
    for part in contents["parts"]:
        part["chapters"] = [page for page in part["chapters"] if not left_out.search(page["file"])]
    contents["parts"] = [part for part in contents["parts"] if part["chapters"]]
    (clone.root / "_toc.yml").write_text(yaml.safe_dump(contents))
    for path in (clone.root / "tests" / "profile.yml", *(clone.root / "book" / "profiles").iterdir()):
        path.write_text(left_out.split(path.read_text())[0])
    return clone


@pytest.fixture(scope="session")
def built(tmp_path_factory) -> Clone:
    """A clone whose book was built, at the size of tests/profile.yml. Read it only.

    FAIRQ_TEST_STORE names the folder where its networks are to stay, for who needs them afterwards.
    """
    folder = tmp_path_factory.mktemp("built")
    store = Path(os.environ.get("FAIRQ_TEST_STORE") or folder / "store")
    made = Clone(copy_project(folder / "clone"), store)
    done = made.fairq("book", "--profile", "tests/profile.yml", "--workers", "2")
    assert done.returncode == 0, done.stderr
    folder.joinpath("said.txt").write_text(done.stderr)
    return made


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="session")
def address(built):
    """Where a plain file server hands out the built book."""
    folder = built.root / "_build" / "books" / "profile" / "_build" / "html"
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def only_from(address: str) -> Any:
    """Lets a browser reach that address, and nothing else."""

    def handle(route):
        (route.continue_ if route.request.url.startswith((address, "data:", "blob:")) else route.abort)()

    return handle


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium. Of a module, because while it is open its event loop keeps others from running."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not found:
        pytest.skip(f"no browser: expected one of {', '.join(BROWSERS)} on the PATH")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()
