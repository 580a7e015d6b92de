"""What the two commands share: errors told in one sentence, parameters, paths and sizes."""

from __future__ import annotations

import errno
import os
import platform
import shlex
import tempfile
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
import yaml

from fairq_audit.formats import shown
from fairq_utils import __version__
from fairq_utils.errors import BadInput, ChapterFailed, JobsFailed


class _Refused(click.ClickException):
    exit_code = 2


class _Fault(click.ClickException):
    exit_code = 3


class CannotTell(click.ClickException):
    """No gate failed, and one cannot be said to have passed."""

    exit_code = 4


class _InSentences(click.Command):
    """What the package refuses reaches the terminal as one sentence and exit code 2.

    So does a fault of its own, but with 3, lest a pipeline takes it for a gate that failed.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Remember what was typed, for the report of a fault."""
        ctx.meta.setdefault("fairq.given", list(args))
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, and tell in a sentence what went wrong."""
        try:
            return super().invoke(ctx)
        except BadInput as error:
            raise _Refused(str(error)) from None
        except (ChapterFailed, JobsFailed) as error:
            raise click.ClickException(str(error)) from None
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except (KeyboardInterrupt, SystemExit, BrokenPipeError):
            raise
        except BaseException as error:  # a panic in a library that is written in Rust is no Exception
            command = [ctx.find_root().info_name or "fairq", *ctx.meta["fairq.given"]]
            raise _Fault(_told(error, command)) from error


class Sentence(_InSentences):
    """A command whose errors are told in one sentence."""


class Sentences(_InSentences, click.Group):
    """A group of commands whose errors are told in one sentence."""


def _told(error: BaseException, given: list[str]) -> str:
    """A sentence about what nobody foresaw; its trace is in a file that the sentence names."""
    if isinstance(error, MemoryError):  # what its frames hold may be all the memory that there is
        traceback.clear_frames(error.__traceback__)
    first, *_ = [*str(error).splitlines(), ""]
    said = f"{type(error).__name__}: {first[:200]}" if first else type(error).__name__
    where_it_ran = f"fairq-utils {__version__}, Python {platform.python_version()}, {platform.platform()}"
    command = shlex.join(given)
    trace = "".join([f"{where_it_ran}\n{command}\n\n", *traceback.format_exception(error)])
    try:
        where = f"the trace is in {_written_aside(trace)}, to go with a report of it"
    except OSError as refused:
        click.echo(trace, err=True)
        where = f"the trace stands above, as no file could take it ({refused.strerror})"
    return f"this is a fault of fairq ({said}), and says nothing about any model or gate; {where}."


def _written_aside(text: str) -> Path:
    """A file that nobody else can guess or read, with the text in it."""
    folder = Path(tempfile.gettempdir())  # where there is no other, the folder that one works in
    if folder.samefile(Path.cwd()):
        raise OSError(errno.ENOENT, "the folder for temporary files is the one that you are in")
    handle, name = tempfile.mkstemp(prefix="fairq-", suffix=".txt", dir=folder)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
    return Path(name)


def size_in_words(nbytes: float) -> str:
    """A number of bytes in a unit that suits it."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if nbytes < 1000 or unit == "GB":
            break
        nbytes /= 1000
    return f"{nbytes:,.0f} {unit}" if unit == "bytes" else f"{nbytes:,.1f} {unit}"


def parse_parameters(
    given: Iterable[str], option: str = "-p", such_as: str = "bit_widths='[6, 3]'"
) -> dict[str, Any]:
    """NAME=VALUE, with YAML as value, as a dictionary; `option` is where it was given.

    >>> parse_parameters(["seeds=[0, 1]", "root=faces.zip"])
    {'seeds': [0, 1], 'root': 'faces.zip'}
    """
    values = {}
    for item in given:
        name, equals, text = item.partition("=")
        try:
            values[name.strip()] = yaml.safe_load(text)
        except (
            yaml.YAMLError,
            ValueError,
            RecursionError,
        ):  # of a date that is none, of brackets without end
            equals = ""
        if not equals or not name.strip():
            raise BadInput(
                f"{option} {shown(item)!r} cannot be read; expected NAME=VALUE, such as {such_as}."
            )
    return values


def from_here(path: Path) -> str:
    """A path as seen from the folder that one works in."""
    return os.path.relpath(path)
