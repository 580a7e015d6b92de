"""Commands that run chapters and build the book."""

from __future__ import annotations

import functools
import http.server
import json
import os
import shutil
import subprocess
import sys
import webbrowser
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import yaml

from fairq_audit.console import from_here, parse_parameters, size_in_words
from fairq_audit.formats import counted
from fairq_book.experiments.parameters import MOST_SEED, MOST_WORKERS
from fairq_book.root import book_root
from fairq_utils import __version__
from fairq_utils.errors import BadInput
from fairq_utils.files import check_writable, write_atomically

if TYPE_CHECKING:
    from fairq_book.build.notebooks import Chapter
    from fairq_book.build.watching import Watch

# While one draws and one waits for its jobs, a third is ready to begin.
_CHAPTERS_AT_ONCE = 3

_parameters_option = click.option(
    "-p",
    "--parameter",
    "given",
    multiple=True,
    metavar="NAME=VALUE",
    help="Set a parameter; the value is YAML, such as bit_widths='[6, 3]'. May be repeated.",
)


@click.command()
@click.argument("chapter")
@_parameters_option
@click.option("--help-parameters", is_flag=True, help="List the chapter's parameters and stop.")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="Folder for what comes out.  [default: under _build/runs]",
)
def run(chapter: str, given: tuple[str, ...], help_parameters: bool, out: Path | None) -> None:
    """Run CHAPTER (a number, a slug or a path) and leave its notebook and an HTML page.

    Networks and predictions that exist are read from the store; only what is missing is computed.
    """
    # Imported here: nbconvert and papermill take a second that `fairq --help` should not.
    from fairq_book.build import notebooks

    wanted = notebooks.find(chapter)
    if help_parameters:
        click.echo(f"{wanted.slug}: {wanted.title}\n")
        for parameter in wanted.parameters.values():
            click.echo(f"  {parameter.name}: {parameter.annotation} = {parameter.default!r}")
            click.echo(f"      {parameter.help}")
        return
    values = wanted.check(parse_parameters(given))
    name = "-".join([wanted.slug, *(_safe(f"{key}={value}") for key, value in values.items())])
    out = out or book_root() / "_build" / "runs" / name
    check_writable(out)  # missed before the hours of a chapter rather than after
    executed = notebooks.execute(wanted, values)
    write_atomically(out / f"{wanted.slug}.ipynb", executed.read_bytes())
    write_atomically(out / "index.html", notebooks.as_page(executed).encode())
    click.echo(
        f"notebook  {from_here(out / f'{wanted.slug}.ipynb')}\npage      {from_here(out / 'index.html')}"
    )


def _book_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say which book, for the commands that build it."""
    options = [
        _parameters_option,
        click.option(
            "--workers",
            type=click.IntRange(1, MOST_WORKERS),
            default=os.cpu_count() or 1,
            show_default="all cores",
            help="Processes that make networks beside each other.",
        ),
        click.option(
            "--profile", default="laptop", show_default=True, help="laptop, or a file of the same form."
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@_book_options
@click.option("--strict", is_flag=True, help="Fail where a sentence that somebody wrote no longer holds.")
def book(given: tuple[str, ...], profile: str, workers: int, strict: bool) -> None:
    """Run the chapters that changed and build the book.

    With -p or another profile a second book is built beside the first. A parameter is given to every
    chapter that has it. Sentences that do not hold of what was measured give way to their numbers; at the end
    it is said on which pages.
    """
    gave_way = _sentences_that_gave_way(_build_book(given, profile, workers))
    for page, count in gave_way.items():
        click.echo(f"{page}: {counted(count, 'sentence')} gave way to the numbers", err=True)
    if strict and gave_way:
        raise click.ClickException(
            "what was measured contradicts sentences that somebody wrote; see fairq_book/chapters/*/found.py."
        )


def _sentences_that_gave_way(built: Path) -> dict[str, int]:
    """Of each page on which one did, how many."""
    from fairq_book.kit.told import GAVE_WAY

    found = {page: page.read_text(encoding="utf-8").count(GAVE_WAY) for page in sorted(built.rglob("*.html"))}
    return {page.relative_to(built).stem: count for page, count in found.items() if count}


@click.command()
@_book_options
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="The PDF.  [default: fairq.pdf beside the pages, the first of which then links it]",
)
def pdf(given: tuple[str, ...], profile: str, workers: int, out: Path | None) -> None:
    """Build the book, and print all of it as one PDF.

    Chromium prints, which has to be installed. Code that a page folds away stays out; widgets stand still.
    """
    # Imported here: reading pages takes a while that `fairq --help` should not.
    from fairq_book.build import pdf as build_pdf

    build_pdf.chromium()  # missed before the hours of a build rather than after
    if out:
        check_writable(out.parent)
    built = _build_book(given, profile, workers)
    root = book_root()
    facts = {
        "By": yaml.safe_load((root / "_config.yml").read_text())["author"],
        "Printed": f"{date.today():%-d %B %Y}",
        "Profile": ", ".join([profile, *given]),
        "Version": f"fairq-utils {__version__}",
    }
    printed = out or built / build_pdf.NAME
    sheets = build_pdf.write(built, root / "_toc.yml", printed, facts=facts)
    about = f"{sheets} pages, {size_in_words(printed.stat().st_size)}"
    if not out:
        build_pdf.offer(built / "book" / "index.html", printed, f"{about}, printed {facts['Printed']}")
    click.echo(f"pdf       {from_here(printed)} ({about})")


def _build_book(given: tuple[str, ...], profile: str, workers: int) -> Path:
    """The folder with the pages of the book that the options name, built."""
    from fairq_book.build import notebooks

    root = book_root()
    parsed = parse_parameters(given)
    values = notebooks.load_profile(profile, root)
    known = {name for chapter in notebooks.chapters(root) for name in chapter.parameters}
    if unknown := sorted(parsed.keys() - known):
        raise BadInput(
            f"No chapter has a parameter {unknown[0]!r}; expected one of: {', '.join(sorted(known))}."
        )
    for chapter in notebooks.chapters(root):
        own = {name: value for name, value in parsed.items() if name in chapter.parameters}
        values[chapter.slug] = values.get(chapter.slug, {}) | chapter.check(own)
    name = "-".join([Path(profile).stem if profile != "laptop" else "", *(_safe(p) for p in given)]).strip(
        "-"
    )
    return _build(root, root / "_build" / "books" / name if name else root, values, workers)


def _run_chapters(missing: list[Chapter], values: dict[str, Any], workers: int, watch: Watch) -> None:
    """Several chapters at once share one set of processes, so that these find work while a kernel draws.

    Jobs of an earlier chapter come first. What one chapter makes, the others wait for and read.
    """
    from fairq_book.build import notebooks
    from fairq_book.experiments import scheduling

    def run(chapter: Chapter, environment: dict[str, str]) -> None:
        environment = {scheduling.PRIORITY_VARIABLE: f"-{int(chapter.slug[:2])}", **environment}
        with watch.part(chapter.slug, environment) as part:
            notebooks.execute(chapter, values[chapter.slug], part)

    elsewhere = scheduling.SCHEDULER_VARIABLE in os.environ
    own = 0 if elsewhere or scheduling.WORKERS_VARIABLE in os.environ or workers < 2 else workers
    with (
        scheduling.cluster(workers=own) as client,
        ThreadPoolExecutor(_CHAPTERS_AT_ONCE if client or elsewhere else 1) as pool,
    ):
        spent = scheduling.seconds_by_priority(client) if client else None
        address = {scheduling.SCHEDULER_VARIABLE: client.scheduler_info()["address"]} if client else {}
        running = [pool.submit(run, chapter, address) for chapter in missing]
        try:
            for done in as_completed(running):
                done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            watch.stop()
            raise
        if spent is not None:
            watch.jobs = {f"{-priority:02}": seconds for priority, seconds in spent.items()}


def _build(root: Path, out: Path, values: dict[str, dict[str, Any]], workers: int) -> Path:
    from fairq_book.build import notebooks
    from fairq_book.build.watching import Watch

    every = notebooks.chapters(root)
    for chapter in every:
        for path in notebooks.sync(chapter):
            click.echo(_brought_in_step(path, chapter), err=True)
    missing = [c for c in every if not notebooks.executed_path(c, values[c.slug]).exists()]
    with Watch([*(chapter.slug for chapter in missing), "pages"]) as watch:
        for chapter in every:
            if chapter not in missing:
                watch.say(f"{chapter.slug}: nothing changed")
        if missing:
            _run_chapters(missing, values, workers, watch)
        built, key = out / "_build" / "html", notebooks.pages_key(root, values)
        if _is_built(built, key):
            watch.say("pages: nothing changed")
        else:
            with watch.part("pages"):
                _build_pages(root, out, values, key)
        if watch.jobs is not None:
            watch.say(watch.table())
    click.echo(f"book      {from_here(built / 'index.html')}")
    return built


def _is_built(built: Path, key: str) -> bool:
    """Whether the pages were built, to their end, of all that this key is of."""
    record = built.parent / ".built"
    return (built / "index.html").exists() and record.exists() and record.read_text() == key


def _build_pages(root: Path, out: Path, values: dict[str, dict[str, Any]], key: str) -> None:
    from fairq_book.build import notebooks

    record = out / "_build" / ".built"
    if not record.exists():  # a killed build may have left half a page that looks newer than its source
        for name in ("html", ".doctrees"):
            shutil.rmtree(out / "_build" / name, ignore_errors=True)
    record.unlink(missing_ok=True)
    jupyter_book = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()"]
    command = [*jupyter_book, "build", str(root), "--path-output", str(out)]
    done = subprocess.run(
        [*command, "--warningiserror", "--nitpick", "--keep-going"],
        env=os.environ | {notebooks.PARAMETERS_VARIABLE: json.dumps(values)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise click.ClickException(f"the book could not be built:\n{done.stdout}\n{done.stderr}")
    record.write_text(key)


def _brought_in_step(path: Path, chapter: Chapter) -> str:
    if path in (chapter.source, chapter.notebook):
        return f"written: {from_here(path)}"
    return (
        f"both halves of {chapter.slug} were edited, and the later won; the other is kept: {from_here(path)}"
    )


@click.command()
@click.option("--check", is_flag=True, help="Change nothing; fail when a pair is out of step.")
def sync(check: bool) -> None:
    """Bring each chapter's .py and .ipynb in step: the half that was edited is written into the other.

    Where both were edited, the one saved last wins; what the other held is kept, and it is said where.
    """
    from fairq_book.build import notebooks

    changed = False
    for chapter in notebooks.chapters():
        for path in notebooks.sync(chapter, check=check):
            changed = True
            click.echo(f"out of step: {from_here(path)}" if check else _brought_in_step(path, chapter))
    if check and changed:
        raise BadInput("A chapter's two halves differ; expected the same cells in both: run `make sync`.")


@click.command()
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=8000,
    show_default=True,
    help="Port on this machine; nothing outside it is answered.",
)
def serve(port: int) -> None:
    """Serve the built book to this machine's browser and open it."""
    built = book_root() / "_build" / "html"
    if not (built / "index.html").exists():
        raise BadInput(f"{from_here(built)} holds no book; build it first: make book.")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(built))
    try:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    except OSError as error:
        raise BadInput(
            f"port is {port} ({error.strerror}); expected a free one: fairq serve --port 8001."
        ) from None
    with server:
        address = f"http://127.0.0.1:{port}"
        click.echo(f"The book is at {address}; stop with Ctrl-C.")
        webbrowser.open(address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            click.echo("stopped")


@click.command()
@click.option(
    "--studies",
    type=click.IntRange(1, 10**6),
    default=4000,
    show_default=True,
    help="So many for each number.",
)
@click.option(
    "--seed", type=click.IntRange(0, MOST_SEED), default=0, show_default=True, help="Of the random numbers."
)
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Folder.  [default: book/procedures]")
def simulate(studies: int, seed: int, out: Path | None) -> None:
    """Simulate how often verdicts of the book and of an audit err, and how often they find what is there."""
    from fairq_book.pages import audit_procedures, procedures

    folder = out or book_root() / "book" / "procedures"
    for path in procedures.write(folder, studies, seed=seed):
        click.echo(f"written  {from_here(path)}")
    for path in audit_procedures.write(folder, max(studies // 10, 1), seed=seed):
        click.echo(f"written  {from_here(path)}")


def _safe(text: str) -> str:
    """A parameter as part of a folder's name."""
    return "".join(c if c.isalnum() or c in "=.-" else "-" for c in text.replace(" ", "")).strip("-")


COMMANDS = (run, book, pdf, sync, serve, simulate)
