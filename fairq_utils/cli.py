"""The `fairq` command: run chapters, build the book."""

from __future__ import annotations

import functools
import http.server
import json
import os
import shutil
import subprocess
import sys
import webbrowser
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
import yaml

from fairq_utils import __version__
from fairq_utils.errors import BadInput, ChapterFailed


class _Refused(click.ClickException):
    exit_code = 2


class _Sentences(click.Group):
    """What the package refuses reaches the terminal as one sentence and exit code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BadInput as error:
            raise _Refused(str(error)) from None
        except ChapterFailed as error:
            raise click.ClickException(str(error)) from None


@click.group(cls=_Sentences, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="fairq")
def main() -> None:
    """Who pays when a neural network is quantized? Run the chapters of the book, and build it."""


_parameters_option = click.option(
    "-p",
    "--parameter",
    "given",
    multiple=True,
    metavar="NAME=VALUE",
    help="Set a parameter; the value is YAML, such as bit_widths='[6, 3]'. May be repeated.",
)


@main.command()
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
    from fairq_utils import chapters

    wanted = chapters.find(chapter)
    if help_parameters:
        click.echo(f"{wanted.slug}: {wanted.title}\n")
        for parameter in wanted.parameters.values():
            click.echo(f"  {parameter.name}: {parameter.annotation} = {parameter.default!r}")
            click.echo(f"      {parameter.help}")
        return
    values = wanted.check(_parse(given))
    executed = chapters.execute(wanted, values)
    name = "-".join([wanted.slug, *(_safe(f"{key}={value}") for key, value in values.items())])
    out = out or chapters.book_root() / "_build" / "runs" / name
    out.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(executed, out / f"{wanted.slug}.ipynb")
    (out / "index.html").write_text(chapters.as_page(executed))
    click.echo(f"notebook  {_shown(out / f'{wanted.slug}.ipynb')}\npage      {_shown(out / 'index.html')}")


@main.command()
@_parameters_option
@click.option(
    "--profile", default="laptop", show_default=True, help="laptop, full, or a file of the same form."
)
def book(given: tuple[str, ...], profile: str) -> None:
    """Run the chapters that changed and build the book.

    With -p or another profile a second book is built beside the first. A parameter is given to every
    chapter that has it.
    """
    from fairq_utils import chapters

    root = chapters.book_root()
    parsed = _parse(given)
    values = chapters.load_profile(profile, root)
    known = {name for chapter in chapters.chapters(root) for name in chapter.parameters}
    if unknown := sorted(parsed.keys() - known):
        raise BadInput(
            f"No chapter has a parameter {unknown[0]!r}; expected one of: {', '.join(sorted(known))}."
        )
    for chapter in chapters.chapters(root):
        own = {name: value for name, value in parsed.items() if name in chapter.parameters}
        values[chapter.slug] = values.get(chapter.slug, {}) | chapter.check(own)
    name = "-".join([Path(profile).stem if profile != "laptop" else "", *(_safe(p) for p in given)]).strip(
        "-"
    )
    _build(root, root / "_build" / "books" / name if name else root, values)


def _build(root: Path, out: Path, values: dict[str, dict[str, Any]]) -> None:
    from fairq_utils import chapters

    for chapter in chapters.chapters(root):
        chapters.sync(chapter)
        todo = not chapters.executed_path(chapter, values[chapter.slug]).exists()
        click.echo(f"{chapter.slug}: {'running' if todo else 'nothing changed'}", err=True)
        chapters.execute(chapter, values[chapter.slug])

    built = out / "_build" / "html"
    unfinished = out / "_build" / ".unfinished"
    if unfinished.exists():  # a killed build may have left half a page that looks newer than its source
        for folder in (built, out / "_build" / ".doctrees"):
            shutil.rmtree(folder, ignore_errors=True)
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    unfinished.touch()
    jupyter_book = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()"]
    command = [*jupyter_book, "build", str(root), "--path-output", str(out)]
    done = subprocess.run(
        [*command, "--warningiserror", "--nitpick", "--keep-going"],
        env=os.environ | {chapters.PARAMETERS_VARIABLE: json.dumps(values)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise click.ClickException(f"the book could not be built:\n{done.stdout}\n{done.stderr}")
    unfinished.unlink()
    click.echo(f"book      {_shown(built / 'index.html')}")


@main.command()
@click.option("--check", is_flag=True, help="Change nothing; fail when a pair is out of step.")
def sync(check: bool) -> None:
    """Bring each chapter's .py and .ipynb in step; the half saved last wins."""
    from fairq_utils import chapters

    changed = [path for chapter in chapters.chapters() for path in chapters.sync(chapter, check=check)]
    for path in changed:
        click.echo(f"{'out of step' if check else 'written'}: {_shown(path)}")
    if check and changed:
        raise BadInput("A chapter's two halves differ; expected the same cells in both: run `make sync`.")


@main.command()
@click.option(
    "--port", default=8000, show_default=True, help="Port on this machine; nothing outside it is answered."
)
def serve(port: int) -> None:
    """Serve the built book to this machine's browser and open it."""
    from fairq_utils import chapters

    built = chapters.book_root() / "_build" / "html"
    if not (built / "index.html").exists():
        raise BadInput(f"{_shown(built)} holds no book; build it first: make book.")
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


@main.command()
def where() -> None:
    """Print the store's folder: trained networks and predictions. FAIRQ_STORE moves it."""
    from fairq_utils.store import default_root

    click.echo(default_root())


def _parse(given: Iterable[str]) -> dict[str, Any]:
    values = {}
    for item in given:
        name, equals, text = item.partition("=")
        try:
            values[name.strip()] = yaml.safe_load(text)
        except yaml.YAMLError:
            equals = ""
        if not equals:
            raise BadInput(f"-p {item!r} cannot be read; expected NAME=VALUE, such as bit_widths='[6, 3]'.")
    return values


def _safe(text: str) -> str:
    """A parameter as part of a folder's name."""
    return "".join(c if c.isalnum() or c in "=.-" else "-" for c in text.replace(" ", "")).strip("-")


def _shown(path: Path) -> str:
    return os.path.relpath(path)
