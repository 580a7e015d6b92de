"""Which networks and predictions exist, and how the missing ones are made."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor, nn

from fairq_utils import data
from fairq_utils.errors import BadInput
from fairq_utils.metrics import (
    accuracy_intervals,
    collapse,
    compare,
    correct_answers,
    fairness_violation_under_equality,
)
from fairq_utils.quantizers import UniformQuantizer, bake, quantize_model
from fairq_utils.store import Item, Store, code_digest, versions
from fairq_utils.training import Recipe, build, default_device, predict, train


@dataclass(frozen=True, kw_only=True)
class Study:
    """Everything that decides one full-precision network.

    >>> Study(seed=3).name
    'moths-resnet18-32px-seed3'
    >>> Study(seed=-1)
    Traceback (most recent call last):
        ...
    fairq_utils.errors.BadInput: seed is -1; expected a whole number of at least 0.
    """

    dataset: str = "moths"
    arch: str = "resnet18"
    image_size: int = 32
    train_images: int = 6000
    test_images: int = 6000
    recipe: Recipe = field(default_factory=Recipe)
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.seed, int) or self.seed < 0:
            raise BadInput(f"seed is {self.seed!r}; expected a whole number of at least 0.")
        build(self.arch, classes=2)  # refuses an unknown architecture
        self.data_settings  # noqa: B018 - refuses settings that no data set can have

    @property
    def name(self) -> str:
        """Short enough for a file name; the settings it leaves out are in the digest beside it."""
        return f"{self.dataset}-{self.arch}-{self.image_size}px-seed{self.seed}"

    @property
    def data_settings(self) -> data.MothSettings:
        """What decides the images: the same for every seed of training."""
        return data.settings(
            self.dataset,
            image_size=self.image_size,
            train_images=self.train_images,
            test_images=self.test_images,
        )


@dataclass(frozen=True)
class Treatment:
    """What is done to a network: nothing (`fp32`), or its weights rounded to `bits` bits (`int4`).

    Weights are rounded after training, symmetrically, one scale for each tensor, from the largest
    magnitude. The name parses back:

    >>> Treatment(4).name, Treatment.parse("int4") == Treatment(4), Treatment.parse("fp32").bits
    ('int4', True, None)
    >>> Treatment(1)
    Traceback (most recent call last):
        ...
    fairq_utils.errors.BadInput: bits is 1; expected a whole number from 2 to 16.
    """

    bits: int | None = None

    def __post_init__(self) -> None:
        self.quantizer  # noqa: B018 - refuses a width that it cannot quantize to

    @property
    def quantizer(self) -> UniformQuantizer | None:
        """What rounds the weights; nothing does at full precision."""
        return None if self.bits is None else UniformQuantizer(self.bits)

    @property
    def name(self) -> str:
        """As it stands in tables and figures."""
        return "fp32" if self.bits is None else f"int{self.bits}"

    @classmethod
    def parse(cls, name: str) -> Treatment:
        """The treatment of that name."""
        if match := re.fullmatch(r"fp32|int(\d+)", name):
            return cls(int(match[1]) if match[1] else None)
        raise BadInput(
            f"treatment is {name!r}; expected fp32, or int and a width from 2 to 16, such as int4."
        )

    def apply(self, network: nn.Module) -> nn.Module:
        """The treated network; the given one stays as it is."""
        return bake(quantize_model(network, self.quantizer)) if self.quantizer else network


FP32 = Treatment()


@dataclass(frozen=True, eq=False)
class Prediction:
    """Logits, labels and groups of one treated network on the test images."""

    study: Study
    treatment: Treatment
    logits: Tensor
    labels: Tensor
    groups: Tensor
    label_names: tuple[str, ...]
    group_names: tuple[str, ...]

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether each test image is given its label."""
        return correct_answers(self.logits, self.labels)


def studies(*, seeds: Sequence[int] | str, **settings: object) -> list[Study]:
    """The same study for each training seed.

    >>> [study.seed for study in studies(seeds=[0, 1], dataset="moths")]
    [0, 1]
    >>> studies(seeds=[])
    Traceback (most recent call last):
        ...
    fairq_utils.errors.BadInput: seeds is []; expected whole numbers, each once, such as [0, 1, 2].
    """
    numbers = _whole_numbers("seeds", seeds, such_as=[0, 1, 2])
    return [Study(seed=seed, **settings) for seed in numbers]  # type: ignore[arg-type]


def treatments(bit_widths: Sequence[int] | str) -> list[Treatment]:
    """Full precision first, then each bit width from the widest to the narrowest.

    >>> [treatment.name for treatment in treatments([4, 8])]
    ['fp32', 'int8', 'int4']
    >>> treatments([])
    Traceback (most recent call last):
        ...
    fairq_utils.errors.BadInput: bit_widths is []; expected whole numbers, each once, such as [8, 4, 2].
    """
    widths = _whole_numbers("bit_widths", bit_widths, such_as=[8, 4, 2])
    return [FP32, *(Treatment(bits) for bits in sorted(widths, reverse=True))]


def _whole_numbers(name: str, given: Sequence[int] | str, *, such_as: list[int]) -> list[int]:
    """The numbers, also when they come as text: papermill's `-p seeds "[0, 1]"` hands over a string."""
    try:
        numbers = list(ast.literal_eval(given) if isinstance(given, str) else given)
    except (TypeError, ValueError, SyntaxError):
        numbers = []
    if not numbers or any(type(n) is not int for n in numbers) or len(set(numbers)) < len(numbers):
        raise BadInput(f"{name} is {given!r}; expected whole numbers, each once, such as {such_as}.")
    return numbers


def dataset(study: Study, *, store: Store | None = None) -> data.Dataset:
    """The images of a study, drawn once and then read."""
    store = store or Store()
    settings = study.data_settings
    tensors = ("images", "labels", "groups", "is_train")
    names = ("label_names", "group_names")

    def make() -> Item:
        made = data.load(settings)
        return Item(
            {name: getattr(made, name) for name in tensors}, {name: getattr(made, name) for name in names}
        )

    identity = {
        "name": f"{study.dataset}-{study.image_size}px",
        "settings": asdict(settings),
        "code": code_digest("fairq_utils.data"),
        "versions": versions("torch", "numpy"),
    }
    item = store.get_or_make("datasets", identity, make)
    return data.Dataset(**item.tensors, **{name: tuple(item.info[name]) for name in names})  # type: ignore[arg-type]


def network(study: Study, *, store: Store | None = None) -> nn.Module:
    """The full-precision network of a study, trained once and then read."""
    store = store or Store()
    images = dataset(study, store=store)

    def make() -> Item:
        trained = train(
            study.arch,
            images.images[images.is_train],
            images.labels[images.is_train],
            classes=len(images.label_names),
            recipe=study.recipe,
            seed=study.seed,
            description=f"training {study.name}",
        )
        return Item(trained.state_dict())

    item = store.get_or_make("networks", _network_identity(study, images), make)
    network = build(study.arch, classes=len(images.label_names))
    network.load_state_dict(item.tensors)
    return network.eval()


def predictions(
    studies: Iterable[Study], treatments: Sequence[Treatment], *, store: Store | None = None
) -> list[Prediction]:
    """What each treated network says of the test images of its study: read, or made when missing."""
    store = store or Store()
    images_of: dict[data.MothSettings, data.Dataset] = {}  # read once, whatever the number of seeds
    found = []
    for study in studies:
        if study.data_settings not in images_of:
            images_of[study.data_settings] = dataset(study, store=store)
        images = images_of[study.data_settings]
        original = cache(partial(network, study, store=store))  # needed only when a prediction is missing
        found += [_prediction(study, treatment, images, original, store) for treatment in treatments]
    return found


def accuracy_table(predictions: Sequence[Prediction], *, level: float = 0.95) -> pd.DataFrame:
    """Records: for each treatment the accuracy of each group, OA and FVO, over seeds and images."""
    return _by_treatment(
        predictions,
        lambda own: accuracy_intervals(_correct(own), **_groups(own), level=level),
    )


def change_table(predictions: Sequence[Prediction], *, level: float = 0.95) -> pd.DataFrame:
    """Records: what each treatment changed against full precision, in pairs of the same seed and image."""
    original = [prediction for prediction in predictions if prediction.treatment == FP32]
    return _by_treatment(
        [prediction for prediction in predictions if prediction.treatment != FP32],
        lambda own: compare(_correct(original), _correct(own), **_groups(own), level=level),
    )


def chance_table(predictions: Sequence[Prediction], *, level: float = 0.95) -> pd.DataFrame:
    """For each treatment, the FVO that noise alone would give were all groups served alike."""

    def chance(own: list[Prediction]) -> pd.DataFrame:
        sizes = np.bincount(own[0].groups, minlength=len(own[0].group_names)).tolist()
        draws = fairness_violation_under_equality(sizes, _correct(own).mean(axis=0))
        return pd.DataFrame({"median": [np.median(draws)], "upper": [np.quantile(draws, level)]})

    return _by_treatment(predictions, chance)


def collapse_table(predictions: Sequence[Prediction]) -> pd.DataFrame:
    """For each treatment, how far predictions have collapsed onto few classes: the average over the seeds.

    Each seed is measured by itself: five networks that each say one thing, but not the same, have collapsed.
    """

    def collapsed(own: list[Prediction]) -> pd.DataFrame:
        return pd.DataFrame([asdict(collapse(prediction.logits)) for prediction in own]).mean().to_frame().T

    return _by_treatment(predictions, collapsed)


def _by_treatment(
    predictions: Sequence[Prediction], measure: Callable[[list[Prediction]], pd.DataFrame]
) -> pd.DataFrame:
    tables = []
    for treatment in dict.fromkeys(prediction.treatment for prediction in predictions):
        table = measure([prediction for prediction in predictions if prediction.treatment == treatment])
        table.insert(0, "treatment", treatment.name)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _correct(predictions: Sequence[Prediction]) -> NDArray[np.bool_]:
    return np.stack([prediction.correct for prediction in predictions])


def _groups(predictions: Sequence[Prediction]) -> dict[str, Any]:
    return {"groups": predictions[0].groups, "group_names": predictions[0].group_names}


def _network_identity(study: Study, images: data.Dataset) -> dict:
    return {
        "name": study.name,
        "study": asdict(study),
        "data": images.fingerprint,
        "device": default_device().type,
        "code": code_digest("fairq_utils.training"),
        "versions": versions("torch", "torchvision"),
    }


def _prediction(
    study: Study,
    treatment: Treatment,
    images: data.Dataset,
    original: Callable[[], nn.Module],
    store: Store,
) -> Prediction:
    is_test = ~images.is_train

    def make() -> Item:
        treated = treatment.apply(original()).to(default_device())
        return Item({"logits": predict(treated, images.images[is_test])})

    identity = {
        "name": f"{study.name}-{treatment.name}",
        "network": _network_identity(study, images),
        "treatment": repr(treatment.quantizer),
        "code": [code_digest("fairq_utils.quantizers"), code_digest("fairq_utils.training")],
    }
    logits = store.get_or_make("predictions", identity, make).tensors["logits"]
    return Prediction(
        study,
        treatment,
        logits,
        images.labels[is_test],
        images.groups[is_test],
        images.label_names,
        images.group_names,
    )
