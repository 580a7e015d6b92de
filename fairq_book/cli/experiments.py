"""Commands that look at data, make networks, and keep order in the store."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from fairq_audit.cli import DATA_NAMES
from fairq_audit.console import from_here, size_in_words
from fairq_audit.formats import shown
from fairq_book.experiments.parameters import MOST_NUMBERS, MOST_WORKERS, StudyParameters
from fairq_utils.errors import BadInput


def _study_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say which studies, one for each of the parameters that there are."""
    options = [
        *(_option(one) for one in fields(StudyParameters)),
        click.option("--bits", default="8,6,5,4,3,2", show_default=True, help="Widths from 2 to 16."),
        click.option(
            "--treatments",
            default="ptq",
            show_default=True,
            help="For each width ptq, qat, fairqat, mse-channel, ...; or whole names such as nf4. "
            "`fairq treatments` lists the words that they are made of.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _option(one: Field[Any]) -> Callable[..., Any]:
    name, said = (
        f"--{one.name.replace('_', '-')}",
        f"{one.metadata['help'][0].upper()}{one.metadata['help'][1:]}.",
    )
    if one.name == "root":
        return click.option(name, multiple=True, metavar="PATH", help=f"{said} May be repeated.")
    if one.name == "seeds":
        return click.option(name, default="0-4", show_default=True, help=f"{said} Such as 0-4 or 0,2,5.")
    kind = float if one.type == "float" else None
    return click.option(name, default=one.default, type=kind, show_default=bool(one.default), help=said)


def _asked(
    root: tuple[str, ...], seeds: str, bits: str, treatments: str, **settings: Any
) -> tuple[list[Any], list[Any]]:
    """The studies and treatments that the options name."""
    from fairq_book.experiments.studies import studies

    asked = studies(seeds=whole_numbers("seeds", seeds), root=os.pathsep.join(root), **settings)
    return asked, _treatments(whole_numbers("bits", bits), treatments)


def _treatments(widths: list[int], names: str) -> list[Any]:
    from fairq_utils.treatments.treatment import FP32, Treatment

    found = [FP32]
    for name in filter(None, (part.strip() for part in names.split(","))):
        if name == "ptq":
            found += [Treatment(width) for width in widths]
        elif name.split("-")[0] in Treatment.words():
            found += [Treatment.parse(f"int{width}-{name}") for width in widths]
        else:
            found.append(Treatment.parse(name))
    return list(dict.fromkeys(found))


def whole_numbers(name: str, text: str) -> list[int]:
    """The numbers that a text lists, such as 0-4 or 8,6,4."""
    numbers: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,18})(?:-(\d{1,18}))?\s*", part)
        if not match:
            raise BadInput(f"{name} is {shown(text)!r}; expected whole numbers, such as 0-4 or 8,6,4.")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise BadInput(f"{name} is {shown(text)!r}; expected a range upwards: {last}-{first}.")
        if len(numbers) + last - first >= MOST_NUMBERS:
            raise BadInput(f"{name} is {shown(text)!r}; expected at most {MOST_NUMBERS:,} numbers at once.")
        numbers += range(first, last + 1)
    return numbers


workers_option = click.option(
    "--workers",
    type=click.IntRange(0, MOST_WORKERS),
    default=0,
    metavar="N",
    help="Make them in N processes of this machine.",
)


@click.command()
@click.argument("name", type=click.Choice(DATA_NAMES))
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option("--label", help="What is predicted: race, gender or age; an attribute of CelebA.")
@click.option("--group", help="Whom to compare: race, gender or age; an attribute of CelebA.")
@click.option("--image-size", default=32, show_default=True, help="Pixels along a side.")
@click.option("--train-images", type=int, help="At most so many to learn from.  [default: all; 6000 moths]")
@click.option("--test-images", type=int, help="At most so many to test on.  [default: all; 6000 moths]")
@click.option("--fold", default=0, show_default=True, help="Which fifth of photographs is for the test.")
@click.option("--draw", default=0, show_default=True, help="Which moths are drawn.")
@click.option("--split-seed", type=int, hidden=True)  # refused with a word on what there is now
@click.option("--keep-conflicting", is_flag=True, help="Keep copies of one image whose labels disagree.")
@click.option("--card", type=click.Path(path_type=Path), help="Write the counts, as JSON, for a data card.")
def data(name: str, paths: tuple[str, ...], card: Path | None, **settings: Any) -> None:
    """Look at the data you have: what was found, what is left out and why, and who is in it.

    PATH is a folder, a .zip or a .tar.gz as it was downloaded, or several of them. The images are decoded
    into the store; nothing else is written, and your files stay as they are.
    """
    from fairq_book.experiments.studies import dataset
    from fairq_utils.data.datasets import describe
    from fairq_utils.data.sources import DataSettings

    asked = DataSettings(name=name, root=os.pathsep.join(paths) or None, **settings)
    images = dataset(asked)
    click.echo(describe(images))
    if card:
        from fairq_book.kit import export as experiments_export
        from fairq_utils.files import write_atomically

        write_atomically(card, (json.dumps(experiments_export.card(asked, images), indent=2) + "\n").encode())
        click.echo(f"card        {from_here(card)}")


@click.command()
@click.argument("settings", nargs=-1, metavar="[SETTING]...")
@_study_options
@workers_option
@click.option("--scheduler", metavar="ADDRESS", help="Make them on the Dask cluster at that address.")
@click.pass_context
def sweep(
    ctx: click.Context, settings: tuple[str, ...], workers: int, scheduler: str | None, **options: Any
) -> None:
    """Make every network and prediction that is missing, here or on a cluster.

    What exists is left as it is, so a sweep that was stopped goes on where it was. Without --workers and
    --scheduler it runs in this process, on one core.

    SETTING is one that book/settings.yml declares, such as utkface_small: then all is made that it says,
    seed by seed, and of the options only --root, --seeds, --workers and --scheduler say
    anything. The store of another machine can be copied into yours: what is alike has the same name.
    """
    from fairq_book.experiments import scheduling
    from fairq_book.experiments.store import Store

    store = Store()
    with scheduling.cluster(workers=workers, scheduler=scheduler) as client:
        if settings:
            said = _sweep_settings(chosen_settings(ctx, settings, **options), store, client)
        else:
            from fairq_book.experiments.studies import predictions

            asked, treatments = _asked(**options)
            found = predictions(asked, treatments, store=store, client=client)
            said = f"{len(found)} predictions of {len(asked)} networks"
    made = ", ".join(f"{count} {kind}" for kind, count in sorted(store.written.items())) or "nothing"
    click.echo(f"{said} are in {store.root}; made now: {made}")


def chosen_settings(
    ctx: click.Context, names: tuple[str, ...], root: tuple[str, ...], seeds: str, **others: Any
) -> list[tuple[Any, list[Any]]]:
    """Each setting with its studies, all or those of the seeds that were named."""
    from fairq_book.experiments import settings

    given = [name for name in others if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT]
    if given:
        raise BadInput(
            f"--{given[0].replace('_', '-')} was given beside {names[0]}, which book/settings.yml "
            "declares; expected --root, --seeds, --workers or --scheduler alone."
        )
    where = os.pathsep.join(root)
    by_hand = ctx.get_parameter_source("seeds") is not ParameterSource.DEFAULT
    named = whole_numbers("seeds", seeds) if by_hand else []
    chosen = []
    for setting in map(settings.find_setting, names):
        own = [seed for seed in setting.seeds if seed in named or not named]
        if not own:
            raise BadInput(f"seeds is {seeds}; expected some of those of {setting.name}: {setting.seeds}.")
        chosen.append((setting, settings.studies_of(setting.name, root=where, seeds=own)))
    return chosen


def _sweep_settings(chosen: list[tuple[Any, list[Any]]], store: Any, client: Any) -> str:
    from fairq_book.experiments.studies import predictions

    count = 0
    for (
        setting,
        own,
    ) in chosen:  # network by network: stopped at any time, this leaves whole ones of few seeds
        count += len(predictions(own, setting.treatments(), store=store, client=client))
    names = ", ".join(f"{setting.name} ({len(own)} seeds)" for setting, own in chosen)
    return f"{count} predictions of {names}"


@click.command()
@click.argument("names", nargs=-1, metavar="[MOTHS]...")
@click.option("--arch", default="resnet18-16", show_default=True, help="The network.")
@click.option("--seeds", default="900-907", show_default=True, help="Of pilots, from 900 on.")
@click.option(
    "--rounds", type=click.IntRange(1, 100), default=3, show_default=True, help="Steps of the search."
)
@click.option(
    "--workers",
    type=click.IntRange(1, MOST_WORKERS),
    default=os.cpu_count() or 1,
    show_default="all cores",
    help="Networks at a time.",
)
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Write the last steps, as a table.")
def calibrate(
    names: tuple[str, ...], arch: str, seeds: str, rounds: int, workers: int, out: Path | None
) -> None:
    """Look for difficulties of moths that give full-precision networks the accuracies that are wanted.

    MOTHS is the name of a kind, such as moths-by-both; without one all are looked at. Every step prints the
    difficulties that were tried, and of each group the mean accuracy over the networks and its standard
    deviation, in percent. The numbers that were chosen stand in fairq_utils/data/moths.py, and are not
    changed by this.
    """
    import pandas as pd

    from fairq_book.experiments.calibration import TARGETS, search
    from fairq_book.experiments.seeds import PILOTS
    from fairq_utils.files import write_atomically

    chosen, tables = whole_numbers("seeds", seeds), {}
    if min(chosen) < PILOTS:
        raise BadInput(f"seeds is {seeds}; expected those of pilots, from {PILOTS} on: others decide claims.")
    for name in names or TARGETS:
        if name not in TARGETS:
            raise BadInput(f"moths is {name!r}; expected some of: {', '.join(TARGETS)}.")
        target = TARGETS[name]
        click.echo(f"{name}: {len(chosen)} networks, {target.train_images} training images")
        steps = rounds if any(target.wanted) else 1
        for tried in search(target, chosen, arch=arch, rounds=steps, workers=workers):
            tables[name] = tried.table
            click.echo(tried.table.to_string(index=False))
            click.echo(f"furthest from what is wanted: {100 * abs(tried.missing).max():.1f} points")
    if out:
        table = pd.concat(tables, names=["dataset"]).droplevel(1).reset_index()
        write_atomically(out, table.to_csv(index=False, lineterminator="\n").encode())
        click.echo(from_here(out))


@click.command()
@_study_options
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="Folder for the tables.")
@click.option(
    "--format",
    type=click.Choice(["csv", "parquet"]),
    default="csv",
    show_default=True,
    help="Of the files: csv or parquet.",
)
def export(out: Path, format: str, **options: Any) -> None:
    """Write tidy tables of what the store holds, and a record of where the numbers come from.

    Nothing is computed: what is missing is made by `fairq sweep` with the same options.
    """
    from fairq_book.experiments.studies import stored_predictions
    from fairq_book.kit import export as experiments_export

    asked, treatments = _asked(**options)
    for path in experiments_export.export(stored_predictions(asked, treatments), out, format=format):
        click.echo(from_here(path))


@click.command()
def treatments() -> None:
    """List what the name of a treatment can be made of."""
    from fairq_utils.treatments.treatment import vocabulary

    known = vocabulary()
    width = known["word"].str.len().max() + 2
    for part, rows in known.groupby("part", sort=False):
        click.echo(f"{part}s")
        for word, meaning in zip(rows["word"], rows["meaning"], strict=True):
            click.echo(f"  {word:<{width}}{meaning}")


@click.command()
def status() -> None:
    """Say what the store holds, and its size. FAIRQ_STORE names its folder."""
    from fairq_book.experiments.store import Store

    store = Store()
    rows: dict[tuple[str, str], list[int]] = {}
    strange = []
    for entry, state in _entries(store):
        if state == "strange":
            strange.append(entry)
        else:
            rows.setdefault((entry.kind, state), []).append(entry.nbytes)
    click.echo(f"{store.root}")
    for (kind, state), sizes in sorted(rows.items()):
        click.echo(f"  {kind:<12} {state:<10} {len(sizes):>7,}  {size_in_words(sum(sizes)):>10}")
    total = [size for sizes in rows.values() for size in sizes]
    click.echo(f"  {'all':<12} {'':<10} {len(total):>7,}  {size_in_words(sum(total)):>10}")
    if strange:
        click.echo(f"{_listed(strange)} not written by the store, or not readable.")
    if any(state != "current" for _, state in rows):
        does = "removes it" if store.marked else "says how to remove it"
        click.echo(f"What is not current was made by other code or is damaged; `fairq prune` {does}.")


@click.command()
@click.option("--dry-run", is_flag=True, help="Say what would be removed, and remove nothing.")
@click.option("--adopt", is_flag=True, help="Take a store that has no mark of its own for one, from now on.")
def prune(dry_run: bool, adopt: bool) -> None:
    """Remove from the store what this code can no longer ask for, and what is damaged.

    Another checkout of other code that uses the same store would have to make its own again. Only what the
    store wrote is removed, and only from a folder that was empty when it began there, or that you adopt.
    """
    from fairq_book.experiments.store import Store

    store = Store()
    found = list(_entries(store))
    if found and not store.marked:
        if not adopt:
            store.refuse_to_remove_unmarked()
        if not any(entry.identity for entry, _ in found):
            raise BadInput(
                f"{store.root} holds nothing that fairq wrote; expected a store, which FAIRQ_STORE names."
            )
        if not dry_run:
            store.adopt()
    stale = [entry for entry, state in found if state in ("outdated", "damaged")]
    gone, refusals = [], []
    for entry in stale:
        try:
            if dry_run or store.remove(entry):
                gone.append(entry)
        except BadInput as error:  # the others may go all the same
            refusals.append(error)
    size = size_in_words(sum(entry.nbytes for entry in gone))
    click.echo(f"{len(gone)} files, {size}: {'would be removed' if dry_run else 'removed'}")
    if busy := len(stale) - len(gone) - len(refusals):
        click.echo(f"{busy} in use by another process: left")
    if strange := [entry for entry, state in found if state == "strange"]:
        click.echo(f"{_listed(strange)} not written by the store, or not readable: left")
    if refusals:
        raise refusals[0]


def _entries(store: Any) -> Iterator[tuple[Any, str]]:
    from fairq_book.experiments.studies import is_current

    for entry in store.entries():
        if not entry.own:
            yield entry, "strange"
        elif entry.identity is None:
            yield entry, "damaged"
        else:
            try:
                state = "current" if is_current(entry.identity) else "outdated"
            except (LookupError, TypeError, AttributeError, ImportError, RecursionError):
                state = "strange"  # of a form that this code never wrote, or of a package that is not here
            yield entry, state


def _listed(entries: list[Any]) -> str:
    """How many there are, and what the first are called."""
    names = [repr(entry.path.name) for entry in entries[:3]]
    count = "1 file or folder" if len(entries) == 1 else f"{len(entries):,} files or folders"
    return f"{count} ({', '.join(names)}{', ...' if len(entries) > len(names) else ''})"


@click.command()
def where() -> None:
    """Print the store's folder: trained networks and predictions. FAIRQ_STORE moves it."""
    from fairq_book.experiments.store import default_root

    click.echo(default_root())


COMMANDS = (data, calibrate, sweep, export, treatments, status, prune, where)
