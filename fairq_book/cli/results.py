"""Commands on what the book keeps."""

from __future__ import annotations

import itertools
import os
import tempfile
from pathlib import Path

import click

from fairq_audit.console import size_in_words
from fairq_book.cli.experiments import chosen_settings
from fairq_book.cli.main import main


@main.group("results")
def kept_results() -> None:
    """The tables that the book keeps of data that it may not hold: write, list or verify them."""


_root_option = click.option(
    "--root", multiple=True, metavar="PATH", help="Where your copy of the data lies. May be repeated."
)


@kept_results.command()
@click.argument("settings", nargs=-1, required=True, metavar="SETTING...")
@_root_option
@click.option("--seeds", default="", help="Of these alone, such as 0-2.  [default: all that are declared]")
@click.pass_context
def write(ctx: click.Context, settings: tuple[str, ...], root: tuple[str, ...], seeds: str) -> None:
    """Write the tables of settings into book/results, with a record of where they come from.

    Networks that are missing are made, in this process: make them first, by `fairq sweep SETTING...`. The
    code has to be committed.
    """
    from fairq_book.experiments import kept as experiments_kept

    for setting, studies in chosen_settings(ctx, settings, root, seeds):
        paths = experiments_kept.keep(setting, studies, experiments_kept.results_folder())
        size = size_in_words(sum(path.stat().st_size for path in paths))
        count = len({study.seed for study in studies})
        click.echo(f"{setting.name}: {len(paths) - 1} tables of {count} seeds, {size}")


@kept_results.command("list")
def list_() -> None:
    """Say what is kept, of how many seeds, by which code, and that it is what its record says."""
    from fairq_book.experiments import kept as experiments_kept

    kept = experiments_kept.stored()
    for name in experiments_kept.settings():
        if name not in kept:
            click.echo(f"{name:<10} nothing is kept")
            continue
        record = kept[name].provenance
        by = (record["git_revision"] or "")[:10] or "no revision"
        count = f"{len(kept[name].tables)} tables of {kept[name].seeds} seeds"
        click.echo(f"{name:<10} {count}, {by}, {record['date']}")


@kept_results.command()
@click.argument("settings", nargs=-1, required=True, metavar="SETTING...")
@_root_option
@click.option("--cells", default=1, show_default=True, help="So many numbers of each.")
@click.option("--draw", type=int, help="Decides which numbers are drawn.  [default: others each time]")
@click.option("--anew", is_flag=True, help="Train the networks again, whatever your store holds.")
def verify(
    settings: tuple[str, ...], root: tuple[str, ...], cells: int, draw: int | None, anew: bool
) -> None:
    """Compute numbers of the kept tables anew, from the images, and compare.

    Exit code 1 when one differs by more than it may: not at all on a machine like the one that made the
    table, elsewhere by as much as other seeds would.
    """
    from fairq_book.experiments import kept as experiments_kept
    from fairq_book.experiments.store import Store

    differs = False
    with tempfile.TemporaryDirectory(prefix="fairq-") as fresh:
        store = Store(Path(fresh)) if anew else Store()
        for setting, cell in itertools.product(settings, range(cells)):
            kept = experiments_kept.load(setting)
            drawn = None if draw is None else draw + cell
            check = experiments_kept.check_a_cell(kept, root=os.pathsep.join(root), draw=drawn, store=store)
            click.echo(str(check))
            differs |= not check.agrees
    if differs:
        raise click.ClickException("what is kept is not what the images give.")
