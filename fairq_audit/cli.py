"""The `fairq-audit` command."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from fairq_audit.console import CannotTell, Sentence, from_here
from fairq_audit.formats import shown
from fairq_utils import __version__
from fairq_utils.errors import BadInput

# As in fairq_utils.data.sources, which takes a second to import.
DATA_NAMES = (
    "moths",
    "moths-harder",
    "moths-easier",
    "moths-by-size",
    "moths-by-difficulty",
    "moths-by-both",
    "moths-equal",
    "utkface",
    "fairface",
    "celeba",
    "folder",
)
IMAGE_OPTIONS = [
    click.option("--dataset", default="moths", show_default=True, help=f"One of {', '.join(DATA_NAMES)}."),
    click.option(
        "--root", multiple=True, metavar="PATH", help="Where your copy of the data lies. May be repeated."
    ),
    click.option("--label", default="", help="What is predicted.  [default: the data set's own]"),
    click.option("--group", default="", help="Whom to compare.  [default: the data set's own]"),
]


def _model_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say which models are to be run, and on which images."""
    options = [
        click.option(
            "--model",
            "models",
            multiple=True,
            metavar="MODEL",
            help="package.module:factory, a .pt2 or .onnx file, a folder that save_pretrained of "
            "transformers wrote; for `fairq audit` also the book's own, such as resnet18-16-seed0. Once with "
            "--treatment, or twice: before and after. A factory and a .pt2 run the code of whoever wrote "
            "them: name only those that you trust.",
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
        click.option(
            "--mean",
            default="",
            help="Of pixels from 0 to 1, as in training: one number or three.  [default: the model's own; "
            "a factory, .pt2 or .onnx has none]",
        ),
        click.option("--std", default="", help="Likewise, such as 0.25 or 0.229,0.224,0.225."),
        click.option(
            "--classes", default="", help="Labels in the order of the logits.  [default: the model's own]"
        ),
        *IMAGE_OPTIONS,
        click.option(
            "--image-size",
            default="",
            help="Pixels along a side; or height and width, 48x192; with one channel 1x48x192.  [default: "
            "what the model takes, or 32]",
        ),
        click.option(
            "--train-images", default=0, help="At most so many for training.  [default: all; 6000 moths]"
        ),
        click.option("--test-images", default=0, help="At most so many to ask.  [default: all; 6000 moths]"),
        click.option(
            "--epochs", default=0.0, help="Those that the book's own network was trained for.  [default: 8]"
        ),
        click.option(
            "--inputs",
            default="",
            metavar="FILE",
            help="In place of images, for a model that takes none: CSV or Parquet with id, label, groups and "
            "--columns.",
        ),
        click.option(
            "--columns",
            "input_columns",
            default="",
            help="Columns of numbers that the model takes, in its order; with --tokenizer the one of text.",
        ),
        click.option(
            "--tokenizer", default="", metavar="FOLDER", help="Where save_pretrained left that of the model."
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.command(
    cls=Sentence,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 when no gate failed (or none was set), 1 when one failed, 2 when something given "
    "cannot be used, 3 when the fault is fairq's own, 4 when under --strict a gate can neither be passed "
    "nor failed.",
)
@click.option(
    "--predictions",
    nargs=2,
    metavar="BEFORE AFTER",
    help="Two CSV or Parquet files: id, label, group, and prediction or logit_<class> for each class. "
    "Further files behind them are further versions, each compared with the first.",
)
@click.argument("versions", nargs=-1, metavar="[VERSION]...")
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
@click.option(
    "--smallest-group",
    default=20,
    show_default=True,
    help="Groups with fewer rows are set apart and named; crossed ones are pooled.",
)
@click.option("--smallest-cell", type=int, hidden=True)
@click.option(
    "--crossed",
    type=click.Choice(["full", "pairs", "every", "none"]),
    default="full",
    show_default=True,
    help="Of several columns of groups: all with one another, each with each, both, or none.",
)
@click.option("--reference", metavar="GROUP", help="Hold the others against it.  [default: the largest]")
@click.option(
    "--cluster",
    metavar="COLUMN",
    help="What rows belong together by, such as a person of whom there are several photographs.",
)
@click.option("--weight", metavar="COLUMN", help="How many others a row stands for, as in a survey.")
@click.option("--positive", metavar="CLASS", help="The class that matters, such as fraud.")
@click.option(
    "--threshold",
    type=float,
    help="Take a row for the positive class from this probability on; needs scores.",
)
@click.option(
    "--same-rate",
    is_flag=True,
    help="Move the threshold after until as many are taken for the positive class as before.",
)
@click.option(
    "--amount",
    "amounts",
    multiple=True,
    metavar="COLUMN",
    help="Numbers in both tables, such as a loss: their mean difference is told by group. May be repeated.",
)
@click.option(
    "--unit", default="", help="What a row is called: image, loan, person.  [default: row, or image]"
)
@click.option(
    "--fail-if",
    multiple=True,
    metavar="GATE",
    help="Such as 'worst_group_drop > 0.02', 'recall_drop[fraud] > 5%', 'contrast > 0.03', 'verdict = harm'. "
    "May be repeated; the page on audits lists all quantities.",
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
    "--strict",
    is_flag=True,
    help="Exit with 4 where a gate did not fail and yet what it forbids is not ruled out.",
)
@click.option(
    "--drop-unmatched",
    is_flag=True,
    help="Leave out rows that stand in one file alone. They are counted by group, and a gate passes only "
    "if it does with those that are missing after counted as wrong.",
)
@click.option(
    "--samples",
    nargs=2,
    metavar="BEFORE AFTER",
    help="What lm-evaluation-harness left by --log_samples: two files, or two folders of tasks. --groups are "
    "fields of a document, such as doc.subject, or task.",
)
@click.option(
    "--metric",
    help="Of the samples, what says that an answer is right: acc, or exact_match,strict-match.  "
    "[default: acc, exact_match, acc_norm or the only one that is 0 or 1]",
)
@click.option(
    "--junit",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Also the verdict and each gate as JUnit XML. What cannot be ruled out is skipped; harm fails.",
)
@click.option(
    "--summary",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Also 40 lines of Markdown, for a pull request or $GITHUB_STEP_SUMMARY.",
)
@click.pass_context
def audit(
    ctx: click.Context,
    predictions: tuple[str, str] | None,
    versions: tuple[str, ...],
    out: Path,
    groups: str,
    names: tuple[str, str] | None,
    strict: bool,
    unit: str,
    smallest_cell: int | None,
    samples: tuple[str, str] | None,
    metric: str | None,
    junit: Path | None,
    summary: Path | None,
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
    fairq audit --predictions fp32.csv int8.csv int4.csv --out audit
    fairq audit --model resnet18-16 --treatment int4 --out audit
    fairq audit --model my_code:network --weights w.safetensors --treatment int8-mse-channel \\
        --dataset folder --root photos --image-size 64 --out audit
    fairq audit --model fp32.onnx --model int8.onnx --dataset folder --root photos --out audit
    """
    # Imported here: pandas takes a moment that `--help` should not.
    from fairq_audit import auditing, gates, pipelines
    from fairq_audit.running import predictions_of_models

    if smallest_cell is not None:
        raise BadInput(
            "--smallest-cell is now called --smallest-group, and holds for groups of every column."
        )
    if strict and not settings["fail_if"]:
        raise BadInput(
            "--strict was given without a gate; expected --fail-if, such as 'verdict != equivalent'."
        )
    named: dict[str, Any] = {"unit": unit} if unit else {}
    columns = [name.strip() for name in groups.split(",") if name.strip()]
    of_models = {
        name: settings.pop(name)
        for name in inspect.signature(predictions_of_models).parameters
        if name in settings
    }
    gates.read(settings["fail_if"], settings["decide_on"], settings["margin"])  # before hours of answers
    auditing.check_place(out)  # before hours are spent on what could not be written there
    pipelines.check_files(out, junit, summary)
    if versions:
        others: dict[str, Any] = {
            "samples": samples,
            "metric": metric,
            "names": names,
            "junit": junit,
            "summary": summary,
        }
        others |= {
            name: True for name in of_models if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT
        }
        _finish(
            _of_versions(predictions, versions, others, out, groups=columns, **(settings | named)), strict
        )
        return
    if samples or metric:
        beside = ["predictions"] if predictions else []
        beside += [
            name for name in of_models if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT
        ]
        answers = _of_samples(ctx, samples, metric, columns, beside)
        answers["names"] = names or answers["names"]
        settings["amounts"] = settings["amounts"] or answers["amounts"]
        found = auditing.audit(**{"unit": "question"} | answers | named | settings)
        written = found.write(out, {name: answers[name] for name in ("before", "after")})
    elif predictions:
        given = [name for name in of_models if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT]
        if given:
            raise BadInput(
                f"--{_option(ctx, given[0])} was given beside --predictions; expected "
                "either files of predictions, or models and images."
            )
        found = auditing.audit(*predictions, groups=columns, names=names, **(settings | named))
        written = found.write(out)
    else:
        answers = predictions_of_models(**of_models, columns=columns, own=ctx.obj() if ctx.obj else None)
        answers["names"] = names or answers["names"]
        found = auditing.audit(**answers | named, groups=columns, **settings)
        written = found.write(out, {name: answers[name] for name in ("before", "after")})
    written += pipelines.write_files(found.record, junit_file=junit, summary_file=summary, strict=strict)
    click.echo(str(found))
    for gate in found.record["gates"]:
        click.echo(gate["sentence"])
    for path in written:
        click.echo(from_here(path))
    _finish([gate["outcome"] for gate in found.record["gates"]], strict)


def _finish(outcomes: list[str], strict: bool) -> None:
    """Leave with the exit code that the gates ask for."""
    if failed := outcomes.count("failed"):
        raise click.ClickException(f"{failed} of {len(outcomes)} gates failed.")
    if strict and (open_ := outcomes.count("not ruled out")):
        raise CannotTell(f"{open_} of {len(outcomes)} gates can be neither passed nor failed by so few rows.")


def _of_versions(
    predictions: tuple[str, str] | None,
    versions: tuple[str, ...],
    others: dict[str, Any],
    out: Path,
    **settings: Any,
) -> list[str]:
    """Audit several files against the first, and give what became of the gates."""
    from fairq_audit.versions import audit_versions

    if not predictions:
        raise BadInput(
            f"{versions[0]!r} was given by itself; expected it behind --predictions BEFORE AFTER, "
            "as a further version."
        )
    if given := [name for name, value in others.items() if value]:
        raise BadInput(
            f"--{given[0]} was given beside {len(versions) + 1} versions; expected it for two tables alone."
        )
    files = [*predictions, *versions]
    found = audit_versions(*files, names=[Path(file).stem for file in files], **settings)
    written = found.write(out)
    click.echo(str(found))
    for name, one in found.audits.items():
        for gate in one.record["gates"]:
            click.echo(f"{shown(name)}: {gate['sentence']}")
    for path in written:
        click.echo(from_here(path))
    return found.outcomes


def _of_samples(
    ctx: click.Context,
    samples: tuple[str, str] | None,
    metric: str | None,
    columns: list[str],
    beside: list[str],
) -> dict[str, Any]:
    """What lm-evaluation-harness logged, as arguments of an audit."""
    from fairq_audit.samples import read_samples

    if not samples or beside:
        given = (
            f"samples was given beside --{_option(ctx, beside[0])}" if samples else "metric needs --samples"
        )
        raise BadInput(f"--{given}; expected --samples BEFORE AFTER, and no other source of answers.")
    said = ctx.get_parameter_source("groups") is not ParameterSource.DEFAULT
    answers = read_samples(*samples, groups=columns if said else [], metric=metric)
    click.echo(answers["description"])
    return answers


def _option(ctx: click.Context, name: str) -> str:
    """What an option is called on the command line."""
    return next(own.opts[0] for own in ctx.command.params if own.name == name).lstrip("-")


main = click.version_option(__version__, prog_name="fairq-audit")(audit)
