"""The `fairq` command: bring data in, make networks, run chapters, build the book."""

from __future__ import annotations

import errno
import functools
import http.server
import inspect
import itertools
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import traceback
import webbrowser
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import click
import yaml
from click.core import ParameterSource

from fairq_utils import __version__
from fairq_utils.book import book_root
from fairq_utils.errors import BadInput, ChapterFailed, JobsFailed


class _Refused(click.ClickException):
    exit_code = 2


class _Fault(click.ClickException):
    exit_code = 3


class _Sentences(click.Group):
    """What the package refuses reaches the terminal as one sentence and exit code 2.

    So does a fault of its own, but with 3, lest a pipeline takes it for a gate that failed.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta["fairq.given"] = list(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
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
            raise _Fault(_told(error, ctx.meta["fairq.given"])) from error


def _told(error: BaseException, given: list[str]) -> str:
    """A sentence about what nobody foresaw; its trace is in a file that the sentence names."""
    if isinstance(error, MemoryError):  # what its frames hold may be all the memory that there is
        traceback.clear_frames(error.__traceback__)
    first, *_ = [*str(error).splitlines(), ""]
    said = f"{type(error).__name__}: {first[:200]}" if first else type(error).__name__
    where_it_ran = f"fairq-utils {__version__}, Python {platform.python_version()}, {platform.platform()}"
    command = shlex.join(["fairq", *given])
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


@click.group(
    cls=_Sentences,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 when it is done and every gate held, 1 when a gate, a chapter or a computation "
    "failed, 2 when something given cannot be used, 3 when the fault is fairq's own.",
)
@click.version_option(__version__, prog_name="fairq")
def main() -> None:
    """Who pays when a neural network is quantized? Bring data in, make networks,
    run the chapters of the book, and build it.
    """
    # For the kernels that are started from here: memory that is kept makes training a fifth faster.
    for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"):
        os.environ.setdefault(name, str(2**31))


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
    out = out or book_root() / "_build" / "runs" / name
    out.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(executed, out / f"{wanted.slug}.ipynb")
    (out / "index.html").write_text(chapters.as_page(executed))
    click.echo(f"notebook  {_shown(out / f'{wanted.slug}.ipynb')}\npage      {_shown(out / 'index.html')}")


def _book_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say which book, for the commands that build it."""
    options = [
        _parameters_option,
        click.option(
            "--workers",
            default=os.cpu_count() or 1,
            show_default="all cores",
            help="Processes that make networks beside each other.",
        ),
        click.option(
            "--profile", default="laptop", show_default=True, help="laptop, full, or a file of the same form."
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@main.command()
@_book_options
def book(given: tuple[str, ...], profile: str, workers: int) -> None:
    """Run the chapters that changed and build the book.

    With -p or another profile a second book is built beside the first. A parameter is given to every
    chapter that has it.
    """
    _build_book(given, profile, workers)


@main.command()
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
    from fairq_utils import paper

    paper.chromium()  # missed before the hours of a build rather than after
    built = _build_book(given, profile, workers)
    root = book_root()
    facts = {
        "By": yaml.safe_load((root / "_config.yml").read_text())["author"],
        "Printed": f"{date.today():%-d %B %Y}",
        "Profile": ", ".join([profile, *given]),
        "Version": f"fairq-utils {__version__}",
    }
    printed = out or built / paper.NAME
    sheets = paper.write(built, root / "_toc.yml", printed, facts=facts)
    about = f"{sheets} pages, {_size(printed.stat().st_size)}"
    if not out:
        paper.offer(built / "book" / "index.html", printed, f"{about}, printed {facts['Printed']}")
    click.echo(f"pdf       {_shown(printed)} ({about})")


def _build_book(given: tuple[str, ...], profile: str, workers: int) -> Path:
    """The folder with the pages of the book that the options name, built."""
    from fairq_utils import chapters

    root = book_root()
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
    return _build(root, root / "_build" / "books" / name if name else root, values, workers)


@contextmanager
def _workers_for_kernels(workers: int) -> Iterator[None]:
    """One set of processes for all chapters, unless the environment names another place to run."""
    from fairq_utils import jobs

    chosen = jobs.WORKERS_VARIABLE in os.environ or jobs.SCHEDULER_VARIABLE in os.environ
    with jobs.cluster(workers=0 if chosen or workers < 2 else workers) as client:
        if client:
            os.environ[jobs.SCHEDULER_VARIABLE] = client.scheduler_info()["address"]
        try:
            yield
        finally:
            if client:
                del os.environ[jobs.SCHEDULER_VARIABLE]


def _build(root: Path, out: Path, values: dict[str, dict[str, Any]], workers: int) -> Path:
    from fairq_utils import chapters

    every = chapters.chapters(root)
    for chapter in every:
        chapters.sync(chapter)
    missing = [c for c in every if not chapters.executed_path(c, values[c.slug]).exists()]
    with _workers_for_kernels(workers if missing else 0):
        for chapter in every:
            click.echo(f"{chapter.slug}: {'running' if chapter in missing else 'nothing changed'}", err=True)
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
    return built


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
    built = book_root() / "_build" / "html"
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


# ---------------------------------------------------------------- which images

# As in fairq_utils.data, which takes a second to import.
_DATA_NAMES = (
    "moths",
    "moths-by-size",
    "moths-by-difficulty",
    "moths-equal",
    "utkface",
    "fairface",
    "celeba",
    "folder",
)
_which_images = [
    click.option("--dataset", default="moths", show_default=True, help=f"One of {', '.join(_DATA_NAMES)}."),
    click.option(
        "--root", multiple=True, metavar="PATH", help="Where your copy of the data lies. May be repeated."
    ),
    click.option("--label", default="", help="What is predicted.  [default: the data set's own]"),
    click.option("--group", default="", help="Whom to compare.  [default: the data set's own]"),
]


# ---------------------------------------------------------------- an audit


def _model_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say which models are to be run, and on which images."""
    options = [
        click.option(
            "--model",
            "models",
            multiple=True,
            metavar="MODEL",
            help="package.module:factory, a .pt2 or .onnx file, a folder that save_pretrained of "
            "transformers wrote, or the book's own, such as resnet18-seed0. Once with --treatment, or twice: "
            "before and after. A factory and a .pt2 run the code of whoever wrote them: name only those that "
            "you trust.",
        ),
        click.option("--treatment", help="Round the weights of the one model so: `fairq treatments`."),
        click.option(
            "--weights",
            multiple=True,
            metavar="FILE",
            help="What the factory's network is filled with: .safetensors, or a state dict as .pt. "
            "Once for each factory, in their order.",
        ),
        click.option(
            "-a",
            "--argument",
            "arguments",
            multiple=True,
            metavar="NAME=VALUE",
            help="What the factory is called with; the value is YAML. May be repeated.",
        ),
        click.option("--mean", default="", help="Of pixels from 0 to 1.  [default: the model's own, or 0.5]"),
        click.option("--std", default="", help="Likewise.  [default: the model's own, or 0.25]"),
        click.option(
            "--classes", default="", help="Labels in the order of the logits.  [default: the model's own]"
        ),
        *_which_images,
        click.option(
            "--image-size", default=0, help="Pixels along a side.  [default: what the model takes, or 32]"
        ),
        click.option(
            "--train-images", default=0, help="At most so many for training.  [default: all; 6000 moths]"
        ),
        click.option("--test-images", default=0, help="At most so many to ask.  [default: all; 6000 moths]"),
        click.option(
            "--epochs", default=0.0, help="Those that the book's own network was trained for.  [default: 8]"
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _answers(
    models: tuple[str, ...],
    treatment: str | None,
    weights: tuple[str, ...],
    arguments: tuple[str, ...],
    mean: str,
    std: str,
    classes: str,
    dataset: str,
    root: tuple[str, ...],
    label: str,
    group: str,
    image_size: int,
    train_images: int,
    test_images: int,
    epochs: float,
    *,
    columns: list[str],
) -> dict[str, Any]:
    """What the models that the options name say of the images that they name, for `auditing.audit`."""
    from dataclasses import replace

    from fairq_utils import entrances, studies
    from fairq_utils.data import DataSettings

    if len(models) != (1 if treatment else 2):
        raise BadInput(
            f"--model was given {len(models)} times, {'with' if treatment else 'without'} --treatment; "
            "expected one model and --treatment, two models without it, or --predictions."
        )
    factories = [entrances.is_factory(model) for model in models]
    if len(weights) > sum(factories):
        raise BadInput(
            f"--weights was given {len(weights)} times, for {sum(factories)} factories; expected at most one "
            "file for each --model package.module:factory."
        )
    images = DataSettings(
        image_size=image_size or 32,
        name=dataset,
        root=os.pathsep.join(root) or None,
        label=label or None,
        group=group or None,
        train_images=train_images or None,
        test_images=test_images or None,
    )
    entrances.further_groups(images, columns)  # refused before a network is trained or opened
    files = iter(weights)
    opened = [
        entrances.load_model(
            model,
            weights=next(files, None) if factory else None,
            arguments=_parse(arguments) if factory else None,
            image_size=image_size or None,
            mean=_decimals("mean", mean),
            std=_decimals("std", std),
            class_names=[name.strip() for name in classes.split(",")] if classes else None,
            data=images,
            epochs=epochs,
        )
        for model, factory in zip(models, factories, strict=True)
    ]
    if not treatment:
        entrances.check_two_models(*opened)
    size = image_size or next(filter(None, (model.image_size for model in opened)), images.image_size)
    images = replace(images, image_size=size)
    shown = studies.dataset(images)
    groups = entrances.group_columns(images, shown, columns)
    after = opened[0].treated(treatment, shown) if treatment else opened[1]
    return entrances.to_audit(opened[0], after, shown, groups=groups)


def _decimals(name: str, text: str) -> list[float] | None:
    try:
        return [float(part) for part in text.split(",")] if text else None
    except ValueError as error:
        raise BadInput(f"{name} is {text!r}; expected numbers, such as 0.485,0.456,0.406.") from error


@main.command(
    epilog="Exit codes: 0 when every gate held (or none was set), 1 when one failed, 2 when something given "
    "cannot be used, 3 when the fault is fairq's own."
)
@click.option(
    "--predictions",
    nargs=2,
    metavar="BEFORE AFTER",
    help="Two CSV or Parquet files: id, label, group, and prediction or logit_<class> for each class.",
)
@_model_options
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder for the report: new, empty, or that of an earlier audit, which is replaced.",
)
@click.option(
    "--groups",
    default="group",
    show_default=True,
    help="Columns of groups, of the files or of the data; gender,race also crosses them.",
)
@click.option("--names", nargs=2, metavar="BEFORE AFTER", help="What to call the two.  [default: the files]")
@click.option("--margin", type=float, help="The smallest drop that matters, such as 0.02: test equivalence.")
@click.option("--confidence", default=0.95, show_default=True, help="Of every interval.")
@click.option("--smallest-cell", default=20, show_default=True, help="Crossed cells with fewer are pooled.")
@click.option(
    "--fail-if",
    multiple=True,
    metavar="GATE",
    help="Such as 'fvo_increase > 0.03', 'worst_group_drop > 0.02', 'group_drop[elm] > 0.05', overall_drop, "
    "fvo_after, flip_rate. May be repeated.",
)
@click.option(
    "--decide-on",
    type=click.Choice(["lower", "estimate", "upper"]),
    default="lower",
    show_default=True,
    help="A gate fails when its quantity is surely beyond (lower), when the estimate is beyond, or when that "
    "cannot be ruled out (upper).",
)
@click.option(
    "--drop-unmatched",
    is_flag=True,
    help="Leave out images that stand in one file alone. They are counted by group, and a gate passes only "
    "if it does with those that are missing after counted as wrong.",
)
@click.pass_context
def audit(
    ctx: click.Context,
    predictions: tuple[str, str] | None,
    out: Path,
    groups: str,
    names: tuple[str, str] | None,
    **settings: Any,
) -> None:
    """Who pays when this model was quantized? An answer from what it predicted before and after.

    The predictions may come from any framework. Or give a model and images, and they are made here: of the
    model and of the same one with its weights rounded, or of two models. What is left in the folder:
    report.html to read, audit.json to compute with, tables as CSV, model_card.md, a paragraph for a model
    card, and of models the predictions themselves, to be audited again.

    \b
    fairq audit --predictions fp32.csv int8.csv --out audit
    fairq audit --predictions fp32.csv int8.csv --out audit --groups gender,race \\
        --margin 0.02 --fail-if "worst_group_drop > 0.02" --fail-if "fvo_increase > 0.03"
    fairq audit --model resnet18 --treatment int4 --out audit
    fairq audit --model my_code:network --weights w.safetensors --treatment int8-mse-channel \\
        --dataset folder --root photos --image-size 64 --out audit
    fairq audit --model fp32.onnx --model int8.onnx --dataset folder --root photos --out audit
    """
    from fairq_utils import auditing, gates

    columns = [name.strip() for name in groups.split(",") if name.strip()]
    of_models = {
        name: settings.pop(name) for name in inspect.signature(_answers).parameters if name in settings
    }
    for expression in settings["fail_if"]:
        gates.parse(expression, settings["decide_on"])  # before hours are spent on answers
    auditing.check_place(out)  # likewise
    if predictions:
        given = [name for name in of_models if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT]
        if given:
            raise BadInput(
                f"--{given[0].replace('_', '-').removesuffix('s')} was given beside --predictions; expected "
                "either files of predictions, or models and images."
            )
        found = auditing.audit(*predictions, groups=columns, names=names, **settings)
        written = found.write(out)
    else:
        answers = _answers(**of_models, columns=columns)
        answers["names"] = names or answers["names"]
        found = auditing.audit(**answers, groups=columns, **settings)
        written = found.write(out, {name: answers[name] for name in ("before", "after")})
    click.echo(str(found))
    for gate in found.record["gates"]:
        click.echo(gate["sentence"])
    for path in written:
        click.echo(_shown(path))
    if not found.passes():
        failed = sum(not gate["passed"] for gate in found.record["gates"])
        raise click.ClickException(f"{failed} of {len(found.record['gates'])} gates failed.")


# ---------------------------------------------------------------- data and networks


def _study_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say which studies, for every command that asks for some."""
    options = [
        *_which_images,
        click.option("--image-size", default=32, show_default=True, help="Pixels along a side."),
        click.option(
            "--train-images", default=0, help="At most so many to learn from.  [default: all; 6000 moths]"
        ),
        click.option(
            "--test-images", default=0, help="At most so many to test on.  [default: all; 6000 moths]"
        ),
        click.option("--arch", default="resnet18", show_default=True, help="The network's architecture."),
        click.option("--weights", default="", help="imagenet: begin with these, from a file you have."),
        click.option(
            "--epochs", default=0.0, help="Passes over the training images.  [default: the recipe's]"
        ),
        click.option(
            "--tuning-epochs",
            default=0.0,
            help="The same for treatments that train, such as qat.  [default: the recipe's own]",
        ),
        click.option(
            "--seeds", default="0-4", show_default=True, help="One network from each: 0-4 or 0,2,5."
        ),
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


def _asked(
    root: tuple[str, ...], seeds: str, bits: str, treatments: str, **settings: Any
) -> tuple[list[Any], list[Any]]:
    """The studies and treatments that the options name."""
    from fairq_utils.studies import studies

    asked = studies(seeds=_numbers("seeds", seeds), root=os.pathsep.join(root), **settings)
    return asked, _treatments(_numbers("bits", bits), treatments)


def _treatments(widths: list[int], names: str) -> list[Any]:
    from fairq_utils.treatments import FP32, Treatment

    found = [FP32]
    for name in filter(None, (part.strip() for part in names.split(","))):
        if name == "ptq":
            found += [Treatment(width) for width in widths]
        elif name.split("-")[0] in Treatment.words():
            found += [Treatment.parse(f"int{width}-{name}") for width in widths]
        else:
            found.append(Treatment.parse(name))
    return list(dict.fromkeys(found))


def _numbers(name: str, text: str) -> list[int]:
    numbers: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if not match:
            raise BadInput(f"{name} is {text!r}; expected whole numbers, such as 0-4 or 8,6,4.")
        numbers += range(int(match[1]), int(match[2] or match[1]) + 1)
    return numbers


@main.command()
@click.argument("name", type=click.Choice(_DATA_NAMES))
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option("--label", help="What is predicted: race, gender or age; an attribute of CelebA.")
@click.option("--group", help="Whom to compare, likewise.")
@click.option("--image-size", default=32, show_default=True, help="Pixels along a side.")
@click.option("--train-images", type=int, help="At most so many to learn from.  [default: all; 6000 moths]")
@click.option("--test-images", type=int, help="At most so many to test on.  [default: all; 6000 moths]")
@click.option(
    "--split-seed", default=0, show_default=True, help="Decides the split where the data have none."
)
@click.option("--keep-conflicting", is_flag=True, help="Keep copies of one image whose labels disagree.")
@click.option("--card", type=click.Path(path_type=Path), help="Write the counts, as JSON, for a data card.")
def data(name: str, paths: tuple[str, ...], card: Path | None, **settings: Any) -> None:
    """Look at the data you have: what was found, what is left out and why, and who is in it.

    PATH is a folder, a .zip or a .tar.gz as it was downloaded, or several of them. The images are decoded
    into the store; nothing else is written, and your files stay as they are.
    """
    from fairq_utils.data import DataSettings, describe
    from fairq_utils.studies import dataset

    asked = DataSettings(name=name, root=os.pathsep.join(paths) or None, **settings)
    images = dataset(asked)
    click.echo(describe(images))
    if card:
        from fairq_utils import results
        from fairq_utils.files import write_atomically

        write_atomically(card, (json.dumps(results.card(asked, images), indent=2) + "\n").encode())
        click.echo(f"card        {_shown(card)}")


@main.command()
@click.argument("settings", nargs=-1, metavar="[SETTING]...")
@_study_options
@click.option("--workers", default=0, metavar="N", help="Make them in N processes of this machine.")
@click.option("--scheduler", metavar="ADDRESS", help="Make them on the Dask cluster at that address.")
@click.pass_context
def sweep(
    ctx: click.Context, settings: tuple[str, ...], workers: int, scheduler: str | None, **options: Any
) -> None:
    """Make every network and prediction that is missing, here or on a cluster.

    What exists is left as it is, so a sweep that was stopped goes on where it was. Without --workers and
    --scheduler it runs in this process, on one core.

    SETTING is one that book/settings.yml declares, such as utkface: then all is made that its tables in
    book/results take, seed by seed, and of the options only --root, --seeds, --workers and --scheduler say
    anything. The store of another machine can be copied into yours: what is alike has the same name.
    """
    from fairq_utils import jobs
    from fairq_utils.store import Store

    store = Store()
    with jobs.cluster(workers=workers, scheduler=scheduler) as client:
        if settings:
            said = _sweep_settings(_chosen(ctx, settings, **options), store, client)
        else:
            from fairq_utils.studies import predictions

            asked, treatments = _asked(**options)
            found = predictions(asked, treatments, store=store, client=client)
            said = f"{len(found)} predictions of {len(asked)} networks"
    made = ", ".join(f"{count} {kind}" for kind, count in sorted(store.written.items())) or "nothing"
    click.echo(f"{said} are in {store.root}; made now: {made}")


def _chosen(
    ctx: click.Context, settings: tuple[str, ...], root: tuple[str, ...], seeds: str, **others: Any
) -> list[Any]:
    """Each setting with its studies, all or those of the seeds that were named."""
    from fairq_utils import results

    given = [name for name in others if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT]
    if given:
        raise BadInput(
            f"--{given[0].replace('_', '-')} was given beside {settings[0]}, which book/settings.yml "
            "declares; expected --root, --seeds, --workers or --scheduler alone."
        )
    where = os.pathsep.join(root)
    named = (
        _numbers("seeds", seeds) if ctx.get_parameter_source("seeds") is not ParameterSource.DEFAULT else []
    )
    chosen = []
    for setting in map(results.find_setting, settings):
        own = [seed for seed in named if seed in setting.seeds]
        if named and not own:
            raise BadInput(f"seeds is {seeds}; expected some of those of {setting.name}: {setting.seeds}.")
        chosen.append((setting, setting.studies(root=where, seeds=own)))
    return chosen


def _sweep_settings(chosen: list[Any], store: Any, client: Any) -> str:
    from fairq_utils import census, evidence
    from fairq_utils.studies import prepare

    populations = [(setting, own) for setting, own in chosen if isinstance(setting, census.Census)]
    networks = [one for one in chosen if one not in populations]
    count = len(prepare(evidence.wanted(networks), store=store, client=client)) if networks else 0
    for setting, own in populations:
        count += len(census.everything(setting, own, store=store, client=client))
    names = ", ".join(
        f"{setting.name} ({len({study.seed for study in own})} seeds)" for setting, own in chosen
    )
    return f"{count} predictions and landscapes of {names}"


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
    from fairq_utils import results

    for setting, studies in _chosen(ctx, settings, root, seeds):
        paths = results.keep(setting, studies, results.results_folder())
        size = _size(sum(path.stat().st_size for path in paths))
        count = len({study.seed for study in studies})
        click.echo(f"{setting.name}: {len(paths) - 1} tables of {count} seeds, {size}")


@kept_results.command("list")
def list_() -> None:
    """Say what is kept, of how many seeds, by which code, and that it is what its record says."""
    from fairq_utils import results

    kept = results.stored()
    for name in results.settings():
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
    from fairq_utils import results
    from fairq_utils.store import Store

    differs = False
    with tempfile.TemporaryDirectory(prefix="fairq-") as fresh:
        store = Store(Path(fresh)) if anew else Store()
        for setting, cell in itertools.product(settings, range(cells)):
            kept = results.load(setting)
            drawn = None if draw is None else draw + cell
            check = results.check_a_cell(kept, root=os.pathsep.join(root), draw=drawn, store=store)
            click.echo(str(check))
            differs |= not check.agrees
    if differs:
        raise click.ClickException("what is kept is not what the images give.")


@main.command()
@_study_options
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="Folder for the tables.")
@click.option("--format", default="csv", show_default=True, help="csv or parquet.")
def export(out: Path, format: str, **options: Any) -> None:
    """Write tidy tables of what the store holds, and a record of where the numbers come from.

    Nothing is computed: what is missing is made by `fairq sweep` with the same options.
    """
    from fairq_utils import results
    from fairq_utils.studies import stored_predictions

    asked, treatments = _asked(**options)
    for path in results.export(stored_predictions(asked, treatments), out, format=format):
        click.echo(_shown(path))


@main.command()
def treatments() -> None:
    """List what the name of a treatment can be made of."""
    from fairq_utils.treatments import vocabulary

    for part, rows in vocabulary().groupby("part", sort=False):
        click.echo(f"{part}s")
        for word, meaning in zip(rows["word"], rows["meaning"], strict=True):
            click.echo(f"  {word:<12}{meaning}")


@main.command()
def status() -> None:
    """Say what the store holds, and its size. FAIRQ_STORE names its folder."""
    from fairq_utils.store import Store

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
        click.echo(f"  {kind:<12} {state:<10} {len(sizes):>7,}  {_size(sum(sizes)):>10}")
    total = [size for sizes in rows.values() for size in sizes]
    click.echo(f"  {'all':<12} {'':<10} {len(total):>7,}  {_size(sum(total)):>10}")
    if strange:
        click.echo(f"{_listed(strange)} not written by the store, or not readable.")
    if any(state != "current" for _, state in rows):
        does = "removes it" if store.marked else "says how to remove it"
        click.echo(f"What is not current was made by other code or is damaged; `fairq prune` {does}.")


@main.command()
@click.option("--dry-run", is_flag=True, help="Say what would be removed, and remove nothing.")
@click.option("--adopt", is_flag=True, help="Take a store that has no mark of its own for one, from now on.")
def prune(dry_run: bool, adopt: bool) -> None:
    """Remove from the store what this code can no longer ask for, and what is damaged.

    Another checkout of other code that uses the same store would have to make its own again. Only what the
    store wrote is removed, and only from a folder that was empty when it began there, or that you adopt.
    """
    from fairq_utils.store import Store

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
    size = _size(sum(entry.nbytes for entry in gone))
    click.echo(f"{len(gone)} files, {size}: {'would be removed' if dry_run else 'removed'}")
    if busy := len(stale) - len(gone) - len(refusals):
        click.echo(f"{busy} in use by another process: left")
    if strange := [entry for entry, state in found if state == "strange"]:
        click.echo(f"{_listed(strange)} not written by the store, or not readable: left")
    if refusals:
        raise refusals[0]


def _entries(store: Any) -> Iterator[tuple[Any, str]]:
    from fairq_utils.studies import is_current

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


def _size(nbytes: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if nbytes < 1000 or unit == "GB":
            break
        nbytes /= 1000
    return f"{nbytes:,.0f} {unit}" if unit == "bytes" else f"{nbytes:,.1f} {unit}"


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
