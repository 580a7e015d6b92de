"""The `fairq` command."""

from __future__ import annotations

import os
from typing import Any

import click

from fairq_audit.cli import audit
from fairq_audit.console import Sentences
from fairq_book.cli import book, experiments, results
from fairq_utils import __version__


def _own_models() -> Any:
    # Imported here: torch takes seconds that `fairq --help` should not.
    from fairq_book.chapters.audit.models import own_models

    return own_models()


@click.group(
    "fairq",
    cls=Sentences,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 when it is done and every gate held, 1 when a gate, a chapter or a computation "
    "failed, 2 when something given cannot be used, 3 when the fault is fairq's own.",
)
@click.version_option(__version__, prog_name="fairq")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Who pays when a neural network is quantized? Bring data in, make networks,
    run the chapters of the book, and build it.
    """
    ctx.obj = _own_models
    # For the kernels that are started from here: memory that is kept makes training a fifth faster.
    for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"):
        os.environ.setdefault(name, str(2**31))


for command in (audit, *book.COMMANDS, *experiments.COMMANDS, results.results_group):
    main.add_command(command)
