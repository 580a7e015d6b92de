"""What the claims are held against, setting by setting: which networks that takes, and the tables they give.

A setting is a study at several seeds, with all that is to be done to its networks. The tables are those
that the chapters draw and judge, made by the same functions; they are small enough to be kept where the
images may not be.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from fairq_book.chapters.disparity import tables as disparity_tables
from fairq_book.chapters.encoders import tables
from fairq_book.chapters.landscape import tables as landscape_tables
from fairq_book.chapters.logits import tables as logits_tables
from fairq_book.chapters.repair import tables as repair_tables
from fairq_book.chapters.zero_bin import tables as zero_bin_tables
from fairq_book.experiments import census, studies
from fairq_book.experiments.census import Census
from fairq_book.experiments.store import Store
from fairq_book.experiments.studies import Landscape, Prediction, Study, Wanted
from fairq_book.kit import tables as kit_tables
from fairq_utils.curvature.surveys import Survey
from fairq_utils.data.datasets import Dataset
from fairq_utils.errors import BadInput
from fairq_utils.training.architectures import build
from fairq_utils.training.loop import Recipe
from fairq_utils.treatments import ablations
from fairq_utils.treatments.ablations import Ablation
from fairq_utils.treatments.treatment import FP32, Treatment

_MEASURES_DRAWN = ("logit_variance", "margin")
_STATISTICS = 3  # so many of the narrowest widths get new batch norm statistics


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A study at several seeds, and what is done to its networks. Nothing asked of a part leaves it out.

    `also`: whole names of more treatments. `repair`: widths at which all eight arms are trained;
    `repair_few`: those at which only the published method, plain training while rounded, and that with
    weights are. `take_apart`: the width whose zero bin is. `landscape`: widths; the full-precision network
    comes with them, and what is trained at the first width of `repair`.

    >>> Setting(name="small", title="Small", seeds=[0], bit_widths=[4]).studies()[0].name
    'moths-resnet18-32px-seed0'
    """

    name: str
    title: str
    seeds: Sequence[int]
    bit_widths: Sequence[int]
    dataset: str = "moths"
    label: str = ""
    group: str = ""
    image_size: int = 32
    train_images: int = 0
    test_images: int = 0
    epochs: float = 0
    learning_rate: float = Recipe.learning_rate
    batch_size: int = Recipe.batch_size
    tuning_epochs: float = 0
    grids: Sequence[str] = ()
    controls: Sequence[str] = ()
    repair: Sequence[int] = ()
    repair_few: Sequence[int] = ()
    also: Sequence[str] = ()
    take_apart: int = 0
    images_each: int = 200
    images_each_layer: int = 75
    seeds_by_layer: int = 3
    landscape: Sequence[int] = ()
    images_per_group: int = 64

    def studies(self, *, root: str = "", seeds: Iterable[int] = ()) -> list[Study]:
        """The study at each of its seeds, or at these; `root` is where your copy of the images lies."""
        seeds = list(seeds) or list(self.seeds)
        if strangers := set(seeds) - set(self.seeds):
            raise BadInput(
                f"seeds are {sorted(strangers)}; expected some of those of {self.name}: {list(self.seeds)}."
            )
        return studies.studies(
            seeds=seeds,
            dataset=self.dataset,
            root=root if self.dataset != "moths" else "",
            label=self.label,
            group=self.group,
            image_size=self.image_size,
            train_images=self.train_images,
            test_images=self.test_images,
            recipe=Recipe(learning_rate=self.learning_rate, batch_size=self.batch_size),
            epochs=self.epochs,
            tuning_epochs=self.tuning_epochs,
        )

    @cached_property
    def rounded(self) -> list[Treatment]:
        """Full precision, and the plain grid at every width."""
        return studies.treatments(self.bit_widths)

    @property
    def survey(self) -> Survey:
        """How its landscape is measured."""
        return Survey(images_per_group=self.images_per_group)


def declared(file: Path) -> dict[str, Declared]:
    """The settings that a file declares, by name, in its order.

    A block for each, in YAML, with the fields of `Setting`; or, where it says `training_sets`, with those
    of `Census`.
    """
    try:
        blocks = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        said = " ".join(str(error).split())  # of YAML's several lines one sentence
        raise BadInput(f"{file} cannot be read ({said}); expected settings in YAML.") from error
    if not isinstance(blocks, dict):
        raise BadInput(f"{file} holds no blocks with names; expected settings in YAML.")
    found: dict[str, Declared] = {}
    for name, block in blocks.items():
        kind = Census if isinstance(block, dict) and "training_sets" in block else Setting
        known = [field.name for field in fields(kind) if field.name != "name"]
        needed = {field.name for field in fields(kind) if field.default is MISSING} - {"name"}
        if not isinstance(block, dict) or (unknown := set(block) - set(known)):
            stranger = repr(sorted(unknown)[0]) if isinstance(block, dict) else repr(block)
            raise BadInput(f"{file.name} says {stranger} of {name}; expected some of: {', '.join(known)}.")
        if missing := needed - set(block):
            raise BadInput(f"{file.name} says no {sorted(missing)[0]} of {name}; expected one.")
        found[name] = kind(name=name, **block)
    return found


Declared = Setting | Census


@dataclass(frozen=True)
class Asked:
    """Predictions of so many treatments, of the networks of all seeds or of some."""

    treatments: Sequence[Treatment | Ablation]
    each: int = 0
    split: str = "test"
    seeds: int = 0  # of the networks of so many seeds, the first that are declared; 0 for all

    def asks(self, study: Study, setting: Setting) -> bool:
        """Whether of this network."""
        return not self.seeds or study.seed in setting.seeds[: self.seeds]


def asked(setting: Setting) -> dict[str, Asked]:
    """The predictions that a setting asks for, under the names that the tables know them by."""
    narrow = studies.treatments(setting.bit_widths, "bn")[1:][-_STATISTICS:]
    found = {
        "rounded": Asked(setting.rounded),
        "grids": Asked(_at(setting.bit_widths, setting.grids)),
        "statistics": Asked(narrow),
        "controls": Asked([Treatment.parse(name) for name in setting.controls]),
        "also": Asked([Treatment.parse(name) for name in setting.also]),
    }
    if setting.repair:
        widths = [*setting.repair, *setting.repair_few]
        few = _at(setting.repair_few, ["ends8-qat", "ends8-qat-weighted", "fairqat"])
        arms = list(dict.fromkeys([*studies.repair_arms(setting.repair), *few]))
        first = [*_at(setting.repair[:1], ["ends8"]), *studies.repair_arms(setting.repair[:1])]
        found["arms"] = Asked([*_at(widths, ["ends8"]), *arms])
        found["validation"] = Asked(arms, split="validation")
        found["learned"] = Asked(first, split="train", each=setting.images_each)
    if setting.take_apart:
        apart = Treatment(setting.take_apart)
        tried = [*ablations.halves(apart), *ablations.controls(apart), *ablations.other_grids(apart)]
        # The names of layers are those of any network of the architecture.
        by_layer = ablations.by_layer(apart, build("resnet18", classes=2, image_size=setting.image_size))
        found["tried"] = Asked([FP32, *tried], each=setting.images_each)
        found["by_layer"] = Asked(by_layer, each=setting.images_each_layer, seeds=setting.seeds_by_layer)
    return found


def _at(widths: Sequence[int], words: Sequence[str]) -> list[Treatment]:
    return [Treatment.parse(f"int{width}-{word}") for word in words for width in widths]


def _surveyed(setting: Setting) -> list[Treatment]:
    """The treated networks around which the loss is looked at."""
    if not setting.landscape:
        return []
    trained = _at(setting.repair[:1], ["ends8", "ends8-qat", "fairqat"])
    return [*studies.treatments(setting.landscape), *trained]


def wanted(chosen: Sequence[tuple[Setting, Sequence[Study]]]) -> list[Wanted]:
    """All that the tables take: of every setting the first network, then of every one the second, and so on.

    Stopped at any time, this leaves a whole picture of few seeds, and not a part of one of many.
    """
    found = []
    for place in range(max((len(own) for _, own in chosen), default=0)):
        for setting, own in chosen:
            if place < len(own):
                found += _wanted_of_one(setting, own[place])
    return found


def _wanted_of_one(setting: Setting, study: Study) -> list[Wanted]:
    found = [
        Wanted(study=study, treatments=own.treatments, each=own.each, split=own.split)
        for own in asked(setting).values()
        if own.treatments and own.asks(study, setting)
    ]
    if surveyed := _surveyed(setting):
        found.append(Wanted(study=study, treatments=surveyed, survey=setting.survey))
    return found


# ---------------------------------------------------------------- the tables

Got = dict[str, list[Prediction]]


def gathered(setting: Setting, chosen: Sequence[Study], *, store: Store | None = None) -> Got:
    """The predictions that the tables are made of, by name; what is missing is made."""
    found = {}
    for name, one in asked(setting).items():
        own = [study for study in chosen if one.asks(study, setting)]
        if one.treatments and own:
            found[name] = studies.predictions(
                own, one.treatments, each=one.each, split=one.split, store=store
            )
    return found


def tables_of(
    setting: Declared, chosen: Sequence[Any], *, store: Store | None = None
) -> dict[str, pd.DataFrame]:
    """Every table of the setting, by name, from networks of these studies; what is missing is made."""
    if isinstance(setting, Census):
        return tables.tables_of(setting, chosen, store=store)
    got = gathered(setting, chosen, store=store)
    images = studies.dataset(chosen[0], store=store)
    found = {
        "groups": _groups(images),
        "accuracy_by_seed": kit_tables.accuracy_by_seed(_on_all_test_images(got)),
        "collapse": kit_tables.collapse(_on_all_test_images(got)),
        "choices": _choices(setting, got),
    }
    smallest = kit_tables.smallest_group(images, got["rounded"])
    found |= _disparity(setting, chosen, got, store)
    found |= _logits(got, smallest)
    if "tried" in got:
        found |= _zero_bin(setting, chosen, got, smallest, store)
    if setting.landscape:
        surveyed = studies.landscapes(chosen, _surveyed(setting), setting.survey, store=store)
        found |= _landscape(surveyed, got)
    if "arms" in got:
        found |= _repair(setting, chosen, got, images, store)
    return found


def made_of(setting: Declared, chosen: Sequence[Any], *, store: Store | None = None) -> dict[str, Any]:
    """The recipes, the fingerprint of the images and the devices, for a record of the tables."""
    if isinstance(setting, Census):
        return census.made_of(chosen, store=store)
    originals = studies.predictions(chosen, [FP32], store=store)
    return {
        "recipe": asdict(chosen[0].recipe),
        "tuning": asdict(chosen[0].tuning),
        "data_fingerprint": originals[0].fingerprint,
        "devices": sorted({prediction.device for prediction in originals}),
    }


def of_each_seed(setting: Declared) -> int:
    """How many networks a seed has."""
    return len(setting.archs) * len(setting.training_sets) if isinstance(setting, Census) else 1


def counted_anew(
    setting: Declared, row: Mapping[Hashable, Any], *, root: str = "", store: Store | None = None
) -> tuple[int, dict[str, Any]]:
    """What the images give for a row of `accuracy_by_seed`, and how that was made."""
    chosen: list[Any] = list(setting.studies(root=root, seeds=[int(row["seed"])]))
    if isinstance(setting, Census):
        chosen = [study for study in chosen if study.name == row["model"]]
        given = census.everything(replace(setting, treatments=[row["treatment"]]), chosen, store=store)
        mine = tables.accuracy_by_seed(given, chosen)
    else:
        name = str(row["treatment"])
        treatment = FP32 if name == FP32.name else Treatment.parse(name)
        mine = kit_tables.accuracy_by_seed(studies.predictions(chosen, [treatment], store=store))
    return int(mine.set_index("group")["correct"][row["group"]]), made_of(setting, chosen, store=store)


def _on_all_test_images(got: Got) -> list[Prediction]:
    whole = ("rounded", "grids", "statistics", "controls", "also", "arms")
    return [prediction for name in whole for prediction in got.get(name, [])]


def _groups(images: Dataset) -> pd.DataFrame:
    """How many images of each group there are, in the order that the data set gives the groups."""
    numbers = [
        np.bincount(images.groups[part], minlength=len(images.group_names))
        for part in (images.is_train, ~images.is_train)
    ]
    return pd.DataFrame({"group": images.group_names, "train": numbers[0], "test": numbers[1]})


def _choices(setting: Setting, got: Got) -> pd.DataFrame:
    """Records: what another choice gives at the same width, where the papers leave it open, in pairs.

    Another grid, 8 bits in the first and the last layer, new batch norm statistics, all codes of a grid:
    each held against the plain grid, whose name is the `reference`.
    """
    every = _on_all_test_images(got)
    found = {p.treatment.name: p.treatment for p in every}
    words = ("mse", "channel", "mse-channel", "full", "ends8", "bn")
    pairs = [
        (plain, found[f"{plain.name}-{word}"])
        for word in words
        for plain in setting.rounded[1:]
        if f"{plain.name}-{word}" in found
    ]
    tables_of_pairs = []
    for plain, other in pairs:
        beside = [p for p in every if p.treatment in (plain, other)]
        change = kit_tables.change(zero_bin_tables.against(beside, plain), level=_level(len(pairs)))
        tables_of_pairs.append(change.assign(reference=plain.name))
    columns = ["treatment", "reference", "group", "n", "before", "after", "estimate", "lower", "upper"]
    return pd.concat(tables_of_pairs)[columns] if pairs else pd.DataFrame(columns=columns)


def _disparity(
    setting: Setting, chosen: Sequence[Study], got: Got, store: Store | None
) -> dict[str, pd.DataFrame]:
    rounded, level = got["rounded"], _level(len(setting.bit_widths))
    found = {
        "accuracy": kit_tables.accuracy(rounded),
        "change": kit_tables.change(rounded, level=level),
        "chance": kit_tables.chance(rounded),
    }
    if grids := got.get("grids"):
        every = [*setting.rounded, *_at(setting.bit_widths, setting.grids)]
        networks = studies.networks(chosen[:1], every, store=store)
        found["storage"] = disparity_tables.storage(networks, every, kit_tables.accuracy([*rounded, *grids]))
    return found


def _logits(got: Got, smallest: str) -> dict[str, pd.DataFrame]:
    rounded, repaired = got["rounded"], got["statistics"]
    level = _level(len({p.treatment for p in rounded}) - 1)
    hot = logits_tables.heated(rounded)
    found = {
        "variance_left": logits_tables.variance_left(rounded, level=level),
        "answers": logits_tables.answers(rounded),
        "answer_changes": kit_tables.answer_changes(rounded, level=level),
        "loss_beyond_others": kit_tables.loss_beyond_others(rounded, smallest, level=level),
        "heated": kit_tables.answer_changes(hot, level=level),
        "loss_explained": logits_tables.loss_explained(rounded, level=level),
        "arms_heated": logits_tables.arms(quantized=rounded, original_heated=hot),
        "arms_statistics": logits_tables.repair_arms(rounded, repaired),
        "regained": logits_tables.regained(rounded, repaired, level=level),
        "changes_statistics": kit_tables.answer_changes([*rounded, *repaired], level=level),
        "variance_statistics": logits_tables.variance_left([*rounded, *repaired], level=level),
        "flips": logits_tables.flips(rounded),
        "densities": pd.concat([logits_tables.densities(rounded, measure) for measure in _MEASURES_DRAWN]),
    }
    if controls := got.get("controls"):
        originals = [p for p in rounded if p.treatment == FP32]
        several = _level(len({p.treatment for p in controls}))
        found["variance_controls"] = logits_tables.variance_left([*originals, *controls], level=several)
    return found


def _zero_bin(
    setting: Setting, chosen: Sequence[Study], got: Got, smallest: str, store: Store | None
) -> dict[str, pd.DataFrame]:
    apart, tried = Treatment(setting.take_apart), got["tried"]
    zeros, controls, grids = (
        ablations.halves(apart)[0],
        ablations.controls(apart),
        ablations.other_grids(apart),
    )
    by_layer = {}
    if "by_layer" in got:  # it may be asked of other networks than were chosen
        layers = zero_bin_tables.losses_by_layer(got["by_layer"], smallest)
        by_layer = {"zero_layers": layers, "zero_layer_signs": zero_bin_tables.layer_signs(layers)}
    return by_layer | {
        "zero_bins": zero_bin_tables.zero_bins(
            chosen, studies.networks(chosen, store=store), setting.rounded
        ),
        "zero_changes": kit_tables.answer_changes(tried),
        "zero_collapse": kit_tables.collapse(tried),
        "zero_parts": zero_bin_tables.zero_bin_parts(tried, apart, smallest, level=_level(4)),
        "zero_controls": _against(tried, zeros, controls),
        "zero_grids": _against(tried, apart, grids),
    }


def _against(
    tried: Sequence[Prediction], reference: Treatment | Ablation, others: Sequence[Treatment | Ablation]
) -> pd.DataFrame:
    beside = [p for p in tried if p.treatment in (reference, *others)]
    return kit_tables.answer_changes(zero_bin_tables.against(beside, reference), level=_level(len(others)))


def _landscape(surveyed: Sequence[Landscape], got: Got) -> dict[str, pd.DataFrame]:
    predictions = [*got["rounded"], *got.get("arms", [])]
    return {
        "landscape": kit_tables.landscape(surveyed),
        "bounds": landscape_tables.bounds(surveyed, predictions),
        "part_bounds": landscape_tables.part_bounds(surveyed),
        "slices": landscape_tables.slices(surveyed),
    }


def _repair(
    setting: Setting, chosen: Sequence[Study], got: Got, images: Dataset, store: Store | None
) -> dict[str, pd.DataFrame]:
    originals = [p for p in got["rounded"] if p.treatment == FP32]
    predictions = [*originals, *got["arms"]]
    widths = [*setting.repair, *setting.repair_few]
    rounded = [FP32, *_at(widths, ["ends8"])]
    arms = list(dict.fromkeys(p.treatment for p in got["validation"]))
    together = _level(len(widths))
    at_one_width = {p.treatment for p in got["learned"]}
    return {
        "effects_drawn": repair_tables.effects(predictions),
        "effects": repair_tables.effects(predictions, level=_level(len(setting.repair))),
        "against_rounding_drawn": repair_tables.against_rounding(predictions),
        "against_rounding": repair_tables.against_rounding(predictions, level=together),
        "against_plain_training": repair_tables.against_plain_training(predictions, level=together),
        "change_arms": kit_tables.change(predictions, level=together),
        "frontier": repair_tables.frontier(predictions),
        "on_both": repair_tables.on_both(
            got["learned"],
            [p for p in predictions if p.treatment in at_one_width],
            level=_level(len(at_one_width)),
        ),
        "what_to_do": repair_tables.what_to_do(
            got["validation"],
            predictions,
            costs=repair_tables.training_costs(
                chosen[0], images, [t for t in arms if isinstance(t, Treatment)]
            ),
            megabytes=kit_tables.megabytes(studies.networks(chosen[:1], rounded, store=store), rounded),
        ),
    }


def _level(count: int) -> float:
    """Of each of so many intervals, so that they hold together with 95 %."""
    return 1 - 0.05 / max(count, 1)
