"""What single networks do under many treatments, measured for each group: more than could be shipped whole.

`book/measured` has a table for each such setting, with a row for each network, treatment and group, and a
record of what it was made of: of what networks answer, or of their gradients. Neither is kept whole, so
other questions need them made again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from fairq_audit.formats import counted
from fairq_book.experiments.codes import CODE
from fairq_book.experiments.export import made_by
from fairq_book.experiments.settings import Setting
from fairq_book.experiments.store import Store
from fairq_book.experiments.studies import (
    Landscape,
    Prediction,
    Study,
    dataset,
    landscapes,
    networks,
    predictions,
)
from fairq_book.kit.tables import in_full_precision
from fairq_book.kit.treatments import with_columns
from fairq_book.root import book_root
from fairq_utils.curvature.surveys import Survey
from fairq_utils.errors import BadInput
from fairq_utils.files import write_atomically
from fairq_utils.metrics.groups import calibration, example_metrics
from fairq_utils.metrics.shares import FLIP_PARTS, margins, why_flips_differ
from fairq_utils.quantization.models import storage_bytes
from fairq_utils.treatments.treatment import FP32, Treatment

if TYPE_CHECKING:
    from distributed import Client

# That decide what is measured.
_OF_ANSWERS, _OF_LOSS = ("read", "train", "predict", "ablate"), ("read", "train", "survey")
_MEASURES = ("loss", "logit_variance", "confidence")
_FLIPS = tuple(f"flips_by_{part}" for part in (*FLIP_PARTS, "beyond"))
_COUNTS = ("n", "right", "lost", "won", "flips", "named")
_FLOATS = (*_MEASURES, "squared_calibration_error", *_FLIPS)
COLUMNS = ("treatment", "seed", "group", *_COUNTS, *_FLOATS)


def by_network(predictions: Sequence[Prediction], majority: str) -> pd.DataFrame:
    """A row for each network, treatment and group, with the columns of the treatment beside its name.

    Of `n` test images so many are named `right`; against full precision so many right answers were `lost` and
    so many `won`, and so many answers of whatever kind changed: `flips`. Where groups are labels, `named` is
    how many images of any group were given this one's. `loss`, `logit_variance` and `confidence` are means
    over the images, and `squared_calibration_error` is that of `calibration`. `flips_by_margins` and so on
    say why more answers flip to their runner-up than of the majority, as `why_flips_differ` splits it, where
    both have two images or more.
    """
    original = {one.study.seed: one for one in in_full_precision(predictions)}
    rows: list[dict[str, Any]] = []
    for own in predictions:
        before = original[own.study.seed]
        rows += _rows(before, own, own.group_names.index(majority))
    return with_columns(pd.DataFrame(rows, columns=list(COLUMNS)))


def _rows(before: Prediction, own: Prediction, majority: int) -> list[dict[str, Any]]:
    groups = own.groups.numpy()
    was, is_ = before.logits.argmax(1).numpy(), own.logits.argmax(1).numpy()
    right_before, right = before.correct, own.correct
    examples = example_metrics(own.logits, own.labels)
    believed = calibration(
        own.logits, own.labels, own.groups, seed=own.study.seed, group_names=own.group_names
    ).set_index("group")["squared_calibration_error"]
    labels = own.label_names if own.label_names == own.group_names else ()
    margin, change = margins(before.logits, own.logits)
    rows = []
    for place, name in enumerate(own.group_names):
        rows_of = groups == place
        if not rows_of.any():
            continue
        row = {
            "treatment": own.treatment.name,
            "seed": own.study.seed,
            "group": name,
            "n": int(rows_of.sum()),
            "right": int(right[rows_of].sum()),
            "lost": int((right_before & ~right)[rows_of].sum()),
            "won": int((~right_before & right)[rows_of].sum()),
            "flips": int((was != is_)[rows_of].sum()),
            "named": int((is_ == place).sum()) if labels else None,
            "squared_calibration_error": float(believed[name]),
            **{measure: float(examples[measure][rows_of].mean()) for measure in _MEASURES},
        }
        if own.treatment != FP32 and min(rows_of.sum(), (groups == majority).sum()) > 1:
            parts = why_flips_differ(margin, change, groups, majority, place)
            row |= dict(zip(_FLIPS, parts["share"], strict=True))
        rows.append(row)
    return rows


def gradients(landscapes: Mapping[str, Sequence[Landscape]]) -> pd.DataFrame:
    """The gradients of networks on each split: a row for each network, treatment, split and group.

    `gradient_norm` is that on `n` images, `squared_gradient_norm` an estimate of the square of that on all
    images there could be, which is without bias and may be below 0.
    """
    found = [
        pd.DataFrame(
            {
                "treatment": own.treatment.name,
                "seed": own.study.seed,
                "split": split,
                "group": np.array(own.group_names)[own.around.tensors["group"].int().numpy()],
                "n": own.around.info["n"],
                **{name: own.around.tensors[name].numpy() for name in _GRADIENTS},
            }
        )
        for split, of_split in landscapes.items()
        for own in of_split
    ]
    return pd.concat(found, ignore_index=True)


_SPLITS: tuple[Literal["train", "test"], ...] = ("train", "test")
_GRADIENTS = ("loss", "gradient_norm", "squared_gradient_norm")


# ---------------------------------------------------------------- what was measured before


@dataclass(frozen=True, eq=False)
class MeasuredNetworks:
    """A table as `by_network` makes it, with the record of what it was made of."""

    name: str
    table: pd.DataFrame
    record: dict[str, Any]

    @property
    def title(self) -> str:
        """What the setting is called."""
        return str(self.record["title"])

    @property
    def short_title(self) -> str:
        """What its images are called: its title up to a comma."""
        return self.title.partition(",")[0]

    @property
    def majority(self) -> str:
        """The group with the most training images."""
        return str(self.record["majority"])

    @property
    def networks(self) -> int:
        """How many networks there are."""
        return int(self.table["seed"].nunique())

    @property
    def made(self) -> str:
        """How many networks, when, and whether by the code of today."""
        dates = sorted(made["date"][:10] for made in self.record["made"].values())
        codes = [made["code"] for made in self.record["made"].values()]
        earlier = "" if all(_is_current(code) for code in codes) else ", by earlier code"
        when = " to ".join(dict.fromkeys([dates[0], dates[-1]]))
        return f"{counted(self.networks, 'network')}, {when}{earlier}"


@dataclass(frozen=True, eq=False)
class Made:
    """What a network answers under treatments, and what these cost.

    `sizes`: how many images each group has in training. `images_seen`: how many the training of the original
    showed, as `fp32`, and that of each treatment that trains. `bytes`: what a network takes under each
    treatment that decides it; training does not. `landscapes`: its gradients on the images of each split,
    where these are looked at instead.
    """

    predictions: Sequence[Prediction]
    sizes: dict[str, int]
    images_seen: dict[str, int]
    bytes: dict[str, int]
    landscapes: Mapping[str, Sequence[Landscape]] = field(default_factory=dict)

    @property
    def rows(self) -> pd.DataFrame:
        """A row for each treatment and group: of its answers, or of its gradients."""
        if self.landscapes:
            return gradients(self.landscapes)
        return by_network(self.predictions, self.majority)[list(COLUMNS)]

    @property
    def majority(self) -> str:
        """The group with the most training images."""
        return max(self.sizes, key=lambda group: self.sizes[group])


def make(setting: Setting, study: Study, *, store: Store | None = None, client: Client | None = None) -> Made:
    """What the network of that study answers under all treatments of the setting, made where missing."""
    treatments = setting.treatments()
    images = dataset(study, store=store)
    counts = images.groups[images.is_train].bincount(minlength=len(images.group_names))
    sizes = dict(zip(images.group_names, counts.tolist(), strict=True))
    if setting.images_per_group:
        rounded = [one for one in treatments if isinstance(one, Treatment)]
        around: dict[str, Sequence[Landscape]] = {}
        for split in _SPLITS:
            survey = Survey(images_per_group=setting.images_per_group, split=split)
            around[split] = landscapes([study], rounded, survey, look="gradients", store=store, client=client)
        return Made((), sizes, {}, {}, around)
    trained = [one for one in treatments if isinstance(one, Treatment) and one.trains]
    packed = [one for one in treatments if isinstance(one, Treatment) and _decides_bytes(one)]
    made = networks([study], packed, store=store, client=client)
    return Made(
        predictions([study], treatments, split=setting.part, store=store, client=client),
        sizes,
        {FP32.name: round(int(images.is_train.sum()) * study.recipe.epochs)}
        | {one.name: one.images_seen(images, study.recipe_of(one)) for one in trained},
        {one.name: storage_bytes(own) for one, own in zip(packed, made, strict=True)},
    )


def _decides_bytes(treatment: Treatment) -> bool:
    """Whether it packs in a way of its own; what trains, aligns or gives bits to layers takes no more."""
    further = treatment.trains and treatment.format != "narrow"
    after = treatment.batchnorm or treatment.aligns or treatment.activations or treatment.scaled
    return not (further or after or treatment.only or treatment.coarser or treatment.allocated)


def measured_folder(root: Path | None = None) -> Path:
    """Where the tables lie."""
    return (root or book_root()) / "book" / "measured"


@cache
def load(name: str, root: Path | None = None) -> MeasuredNetworks:
    """The table of that setting.

    >>> load("nobody")
    Traceback (most recent call last):
        ...
    fairq_utils.errors.BadInput: 'nobody' was not measured; expected one of: ...
    """
    folder = measured_folder(root)
    if not (folder / f"{name}.json").is_file():
        there = sorted(path.stem for path in folder.glob("*.json"))
        raise BadInput(f"{name!r} was not measured; expected one of: {', '.join(there) or 'none yet'}.")
    record = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    return MeasuredNetworks(name, with_columns(_read(folder / f"{name}.csv")), record)


def measured(names: Sequence[str], root: Path | None = None) -> list[MeasuredNetworks]:
    """The tables of those settings that were measured.

    >>> [own.name for own in measured(["moths_why", "nobody"])]
    ['moths_why']
    """
    return [load(name, root) for name in names if (measured_folder(root) / f"{name}.json").is_file()]


def measure(
    setting: Setting,
    seeds: Sequence[int],
    predict: Callable[[int], Made],
    *,
    root: Path | None = None,
    told: Callable[[str], None] = print,
) -> None:
    """Measure each network of a setting that is not in its table, and write the table after each of them.

    `predict` gives what the network of a seed answers under every treatment. A network that other code
    measured, or under other treatments, is measured again.
    """
    folder, names = measured_folder(root), [one.name for one in setting.treatments()]
    path, card = folder / f"{setting.name}.csv", folder / f"{setting.name}.json"
    table = _read(path) if path.is_file() else pd.DataFrame(columns=["treatment", "seed"])
    stages = _OF_LOSS if setting.images_per_group else _OF_ANSWERS
    record = json.loads(card.read_text(encoding="utf-8")) if card.is_file() else {}
    made = record.get("made", {})
    for seed in seeds:
        there = set(table["treatment"][table["seed"] == seed])
        if there == set(names) and _is_current(made.get(str(seed), {}).get("code", {})):
            told(f"{setting.name}, seed {seed}: measured already")
            continue
        found = predict(seed)
        own = found.rows
        table = pd.concat([table[table["seed"] != seed], own], ignore_index=True) if len(table) else own
        by = made_by()
        made[str(seed)] = {
            "code": {stage: CODE[stage] for stage in stages},
            "revision": by["git_revision"] or "none",
            "hardware": by["hardware"],
            "versions": by["versions"],
            "date": by["date"],
        }
        record = {
            "title": setting.title,
            "majority": found.majority,
            "sizes": found.sizes,
            "images_seen": found.images_seen,
            "bytes": found.bytes,
            "made": dict(sorted(made.items())),
        }
        _write(path, table.sort_values("seed", kind="stable"))
        write_atomically(card, (json.dumps(record, indent=1) + "\n").encode())
        told(f"{setting.name}, seed {seed}: {len(names)} treatments")


def _is_current(code: dict[str, str]) -> bool:
    return bool(code) and all(CODE.get(stage) == digest for stage, digest in code.items())


def _read(path: Path) -> pd.DataFrame:
    table = pd.read_csv(path)
    of_answers = "right" in table  # of which one that was measured earlier has fewer columns
    return table.reindex(columns=list(COLUMNS)) if of_answers else table


def _write(path: Path, table: pd.DataFrame) -> None:
    text = StringIO()
    shown = table.copy()
    floats = shown.select_dtypes("float").columns.difference(["named"])
    if "named" in shown:
        shown["named"] = shown["named"].astype("Int64")
    shown[floats] = shown[floats].map(lambda value: f"{value:.4g}" if np.isfinite(value) else "")
    shown.to_csv(text, index=False, lineterminator="\n")
    write_atomically(path, text.getvalue().encode())
