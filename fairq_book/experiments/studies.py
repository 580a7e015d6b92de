"""Which networks and predictions exist, and how the missing ones are made."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache, cached_property, partial
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from fairq_book.experiments import scheduling
from fairq_book.experiments.code import versions
from fairq_book.experiments.codes import CODE
from fairq_book.experiments.parameters import MOST_EPOCHS, MOST_SEED, StudyParameters
from fairq_book.experiments.seeds import of_seed
from fairq_book.experiments.store import Store
from fairq_utils.curvature import surveys
from fairq_utils.curvature.spectrum import SpectralDensity
from fairq_utils.curvature.surveys import Survey
from fairq_utils.data.datasets import Dataset
from fairq_utils.data.moths import GROUPS, Brood
from fairq_utils.data.sources import DataSettings
from fairq_utils.data.splits import of_each, places
from fairq_utils.data.tars import refuse_huge_headers
from fairq_utils.errors import BadInput
from fairq_utils.items import Item, canonical
from fairq_utils.metrics.groups import correct_answers
from fairq_utils.training.architectures import build, weights_digest
from fairq_utils.training.fairqat import TUNING
from fairq_utils.training.loop import Checkpoint, Recipe
from fairq_utils.treatments.ablations import Ablation
from fairq_utils.treatments.jobs.ablate import ablate
from fairq_utils.treatments.jobs.predict import predict
from fairq_utils.treatments.jobs.read import as_dataset, draw_brood, read
from fairq_utils.treatments.jobs.restore import restored
from fairq_utils.treatments.jobs.survey import take_survey
from fairq_utils.treatments.jobs.train import train
from fairq_utils.treatments.jobs.train_further import train_further
from fairq_utils.treatments.treatment import FP32, Treatment

if TYPE_CHECKING:
    from distributed import Client

# So many moths of a brood are drawn at a time: data sets that differ a little share them.
_BROODS = [*(10, 20, 50, 100, 200), *range(500, 10**6 + 1, 500)]


@dataclass(frozen=True, kw_only=True)
class Study:
    """Everything that decides one full-precision network, and how treatments train it further.

    `weights`: where training begins: None at random ones, "imagenet" at those of a file that you have.
    `tuning`: the recipe of treatments that train.

    >>> Study(seed=3).name
    'moths-resnet18-16-32px-seed3'
    >>> Study(seed=-1)
    Traceback (most recent call last):
        ...
    fairq_utils.errors.BadInput: seed is -1; expected a whole number from 0 to 4294967295.
    """

    dataset: DataSettings = field(default_factory=DataSettings)
    arch: str = "resnet18-16"
    weights: str | None = None
    recipe: Recipe = field(default_factory=Recipe)
    tuning: Recipe = TUNING
    seed: int = 0

    def __post_init__(self) -> None:
        if type(self.seed) is not int or not 0 <= self.seed <= MOST_SEED:
            raise BadInput(f"seed is {self.seed!r}; expected a whole number from 0 to {MOST_SEED}.")
        if (longest := max(self.recipe.epochs, self.tuning.epochs)) > MOST_EPOCHS:
            raise BadInput(f"epochs is {longest:g}; expected at most {MOST_EPOCHS:,} passes over the images.")
        _require_architecture(self.arch, self.dataset.image_size)

    def recipe_of(self, treatment: Treatment) -> Recipe:
        """How a treatment trains: a narrower network from scratch, as the original was."""
        return self.recipe if treatment.format == "narrow" else self.tuning

    @property
    def name(self) -> str:
        """Short enough for a file name; the settings it leaves out are in the digest beside it."""
        return f"{self.dataset.name}-{self.arch}-{self.dataset.image_size}px-seed{self.seed}"


@cache  # many studies have the same, and to build a network takes long
def _require_architecture(arch: str, image_size: int) -> None:
    """Refuse an architecture that is unknown or does not take such images."""
    build(arch, classes=2, image_size=image_size)


@dataclass(frozen=True, eq=False)
class Prediction:
    """Logits, labels and groups of one treated network on the test images, or those of another split."""

    study: Study
    treatment: Treatment | Ablation
    logits: Tensor
    labels: Tensor
    groups: Tensor
    label_names: tuple[str, ...]
    group_names: tuple[str, ...]
    fingerprint: str = ""  # of the images
    device: str = ""  # that ran the network
    split: str = "test"
    images: Tensor | None = None  # a number for each, the same wherever it is the same image

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether each image is given its label."""
        return correct_answers(self.logits, self.labels)

    def of_each_group(self, count: int) -> Prediction:
        """The prediction on at most so many images of each group, as `predictions(each=count)` takes them."""
        chosen = of_each(self.groups, count)
        some = {name: getattr(self, name)[chosen] for name in ("logits", "labels", "groups")}
        return replace(self, **some, images=None if self.images is None else self.images[chosen])


@dataclass(frozen=True, eq=False)
class Landscape:
    """The loss around one treated network, as `surveys` measures it.

    `around` holds what each group has there. `change` leads from the original network to this one, where
    nothing but weights was rounded, and is None elsewhere; `parts` is known of the original alone.
    """

    study: Study
    treatment: Treatment
    group_names: tuple[str, ...]
    around: Item
    change: Item | None = None
    parts: Item | None = None


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The spectral density at one treated network for one group."""

    study: Study
    treatment: Treatment
    group: str
    density: SpectralDensity


def studies(*, recipe: Recipe | None = None, **parameters: Any) -> list[Study]:
    """The study of each seed, from the plain values of `StudyParameters`, where "" or 0 is the default.

    The seed tells the images, too: which moths are drawn, and of photographs which fold is for the test. So
    an interval over networks covers seeds, images and the split. Epochs and learning rate overrule `recipe`.

    >>> [study.name for study in studies(seeds=[3], arch="resnet18-16")]
    ['moths-resnet18-16-32px-seed3']
    >>> studies(seeds=[])
    Traceback (most recent call last):
        ...
    fairq_utils.errors.BadInput: seeds is []; expected whole numbers, each once, such as [0, 1, 2].
    """
    given = StudyParameters(**parameters)
    data = DataSettings(
        name=given.dataset,
        root=given.root or None,
        image_size=given.image_size,
        label=given.label or None,
        group=given.group or None,
        train_images=given.train_images or None,
        test_images=given.test_images or None,
    )
    recipe, tuning = recipe or Recipe(), TUNING
    if given.epochs:
        recipe = replace(recipe, epochs=given.epochs)
    if given.learning_rate:
        recipe = replace(recipe, learning_rate=given.learning_rate)
    if given.tuning_epochs:
        tuning = replace(tuning, epochs=given.tuning_epochs)
    return [
        Study(
            dataset=of_seed(data, seed),
            arch=given.arch,
            weights=given.weights or None,
            recipe=recipe,
            tuning=tuning,
            seed=seed,
        )
        for seed in whole_numbers("seeds", given.seeds, such_as=[0, 1, 2])
    ]


def treatments(bit_widths: Sequence[int] | str, *options: str) -> list[Treatment]:
    """Full precision first, then each bit width from the widest to the narrowest, with these options.

    >>> [treatment.name for treatment in treatments([4, 8])]
    ['fp32', 'int8', 'int4']
    >>> [treatment.name for treatment in treatments([4], "mse", "channel")]
    ['fp32', 'int4-mse-channel']
    >>> treatments([])
    Traceback (most recent call last):
        ...
    fairq_utils.errors.BadInput: bit_widths is []; expected whole numbers, each once, such as [8, 4, 2].
    """
    widths = whole_numbers("bit_widths", bit_widths, such_as=[8, 4, 2])
    return [
        FP32,
        *(
            Treatment.parse("-".join(filter(None, [f"int{bits}", *options])))
            for bits in sorted(widths, reverse=True)
        ),
    ]


def repair_arms(bit_widths: Sequence[int] | str) -> list[Treatment]:
    """Eight ways to train further at each width: while rounded or before, weighted or not, sampled or not.

    >>> [treatment.name for treatment in repair_arms([4])][3:5]
    ['int4-ends8-tuned-weighted-sampled', 'int4-ends8-qat']
    """
    ways = product(["tuned", "qat"], ["", "weighted"], ["", "sampled"])
    return [arm for way in ways for arm in treatments(bit_widths, "ends8", *filter(None, way))[1:]]


def whole_numbers(name: str, given: Sequence[int] | str, *, such_as: list[int]) -> list[int]:
    """The numbers, also when they come as text: papermill's `-p seeds "[0, 1]"` hands over a string.

    >>> whole_numbers("bit_widths", "[4, 3]", such_as=[8, 4, 2])
    [4, 3]
    """
    try:
        numbers = list(ast.literal_eval(given) if isinstance(given, str) else given)
    except (TypeError, ValueError, SyntaxError):
        numbers = []
    if not numbers or any(type(n) is not int for n in numbers) or len(set(numbers)) < len(numbers):
        raise BadInput(f"{name} is {given!r}; expected whole numbers, each once, such as {such_as}.")
    return numbers


# ---------------------------------------------------------------- what is asked for


def dataset(settings: DataSettings | Study, *, store: Store | None = None) -> Dataset:
    """The images, drawn or read from your copy once, and from then on from the store."""
    store = store or Store()
    settings = settings.dataset if isinstance(settings, Study) else settings
    if settings.is_drawn:
        return settings.load(draw=partial(_drawn, store))
    refuse_huge_headers(settings.paths())
    identity = {
        "name": f"{settings.name}-{settings.image_size}px",
        "settings": settings.identity(),
        "code": CODE["read"],
        "versions": versions("torch", "numpy", "pillow"),
    }
    return as_dataset(store.get_or_make("datasets", identity, partial(read, settings)))


def _drawn(store: Store, brood: Brood, count: int) -> NDArray[np.uint8]:
    """The first moths of a brood. Broods are kept, for data sets of many sizes and roles share them."""
    drawn = next(size for size in _BROODS if size >= count)
    identity = {
        "name": f"moths-{brood.image_size}px-{GROUPS[brood.group]}",
        "brood": asdict(brood),
        "count": drawn,
        "code": CODE["read"],
        "versions": versions("numpy"),
    }
    item = store.get_or_make("datasets", identity, partial(draw_brood, brood, drawn))
    return item.tensors["images"][:count].numpy()


def predictions(
    studies: Iterable[Study],
    treatments: Sequence[Treatment | Ablation],
    *,
    each: int = 0,
    split: str = "test",
    store: Store | None = None,
    client: Client | None = None,
) -> list[Prediction]:
    """What each treated network says of the test images of its study: read, or made when missing.

    `each`: at most so many images of each group, for what is many times repeated; 0 for all.
    `split`: test; train; or tuning, the images that no network sees, to choose by.
    With a `client` of a Dask cluster, what is missing is made there.
    """
    store = store or Store()
    asked = [(plan, treatment) for plan in _plans(studies, store) for treatment in treatments]
    wanted = [plan.prediction(treatment, each, split) for plan, treatment in asked]
    items = scheduling.make(wanted, store=store, client=client)
    return [
        _as_prediction(plan, treatment, item, each, split)
        for (plan, treatment), item in zip(asked, items, strict=True)
    ]


def stored_predictions(
    studies: Iterable[Study], treatments: Sequence[Treatment], *, store: Store | None = None
) -> list[Prediction]:
    """What each treated network says of the test images, from the store alone: what is missing is refused."""
    store = store or Store()
    asked = [(plan, treatment) for plan in _plans(studies, store) for treatment in treatments]
    found = []
    for plan, treatment in asked:
        job = plan.prediction(treatment)
        if item := store.find(job.kind, job.identity):
            found.append(_as_prediction(plan, treatment, item))
    if len(found) < len(asked):
        raise BadInput(
            f"{len(asked) - len(found)} of {len(asked)} predictions are not in {store.root}; expected all: "
            "make them first by `fairq sweep` with the same options."
        )
    return found


def _as_prediction(
    plan: _Plan, treatment: Treatment | Ablation, item: Item, each: int = 0, split: str = "test"
) -> Prediction:
    shown = places(plan.images, each, split)
    return Prediction(
        plan.study,
        treatment,
        item.tensors["logits"],
        plan.images.labels[shown],
        plan.images.groups[shown],
        plan.images.label_names,
        plan.images.group_names,
        fingerprint=plan.images.fingerprint,
        device=item.info["device"],
        split=split,
        images=plan.images.image_numbers[shown],
    )


def networks(
    studies: Iterable[Study],
    treatments: Sequence[Treatment | Ablation] = (FP32,),
    *,
    store: Store | None = None,
    client: Client | None = None,
) -> list[nn.Module]:
    """The treated networks, study by study, on the CPU and in evaluation mode.

    Those that are trained are read, or made when missing; those that are only rounded are rounded anew.
    """
    store = store or Store()
    asked = [(plan, treatment) for plan in _plans(studies, store) for treatment in treatments]
    items = scheduling.make(
        [plan.network(treatment) for plan, treatment in asked], store=store, client=client
    )
    return [
        treatment.apply(
            restored(treatment.arch(plan.study.arch, plan.images), plan.images, item), plan.images
        )
        for (plan, treatment), item in zip(asked, items, strict=True)
    ]


def landscapes(
    studies: Iterable[Study],
    treatments: Sequence[Treatment],
    survey: Survey | None = None,
    *,
    look: str = "",
    store: Store | None = None,
    client: Client | None = None,
) -> list[Landscape]:
    """The loss around each treated network, group by group: read, or measured where missing.

    `look` is all that is looked at, `around` or its `gradients`. Without it there are also the parts of an
    original, and what lies between it and a rounded one.
    A network takes about as long as a thousand images to train on for each product of Hessian and vector:
    ask for few studies, and for fewer images where it is too slow.
    """
    store, survey = store or Store(), survey or Survey()
    asked = [
        (plan, treatment, one)
        for plan in _plans(studies, store)
        for treatment in treatments
        for one in ([look] if look else _looks(treatment))
    ]
    wanted = [plan.landscape(treatment, survey, one) for plan, treatment, one in asked]
    items = scheduling.make(wanted, store=store, client=client)
    found: dict[tuple[_Plan, Treatment], dict[str, Item]] = {}
    for (plan, treatment, one), item in zip(asked, items, strict=True):
        found.setdefault((plan, treatment), {})[one] = item
    return [
        Landscape(
            plan.study,
            treatment,
            plan.images.group_names,
            around=looks[look or "around"],
            change=looks.get("change"),
            parts=looks.get("parts"),
        )
        for (plan, treatment), looks in found.items()
    ]


def spectra(
    studies: Iterable[Study],
    treatments: Sequence[Treatment],
    survey: Survey | None = None,
    *,
    store: Store | None = None,
    client: Client | None = None,
) -> list[Spectrum]:
    """The spectral density at each treated network, for the largest and the smallest group."""
    store, survey = store or Store(), survey or Survey()
    asked = [(plan, treatment) for plan in _plans(studies, store) for treatment in treatments]
    wanted = [plan.landscape(treatment, survey, "spectrum") for plan, treatment in asked]
    items = scheduling.make(wanted, store=store, client=client)
    return [
        Spectrum(
            plan.study,
            treatment,
            plan.images.group_names[group],
            SpectralDensity(item.tensors[f"eigenvalues-{group}"], item.tensors[f"weights-{group}"]),
        )
        for (plan, treatment), item in zip(asked, items, strict=True)
        for group in surveys.extremes(plan.images, survey)
    ]


def network(study: Study, *, store: Store | None = None) -> nn.Module:
    """The full-precision network of a study, trained once and then read."""
    return networks([study], store=store)[0]


def is_current(identity: dict[str, Any]) -> bool:
    """Whether this code, with what is installed, could still ask for the item of that identity.

    >>> is_current({"name": "x", "code": "of another version", "versions": {}})
    False
    """
    inner = [value for value in identity.values() if isinstance(value, dict) and "code" in value]
    installed = identity["versions"] == versions(*identity["versions"]) if "versions" in identity else True
    return identity["code"] in CODE.values() and installed and all(map(is_current, inner))


# ---------------------------------------------------------------- how it is made


@dataclass(frozen=True, eq=False)
class _Plan:
    """The jobs of one study."""

    study: Study
    images: Dataset
    store: Store
    trained_further: dict[Treatment, scheduling.Job] = field(default_factory=dict)

    @cached_property
    def original(self) -> scheduling.Job:
        """Train the network in full precision."""
        study = self.study
        identity = {
            "name": study.name,
            "data": self.images.fingerprint,
            "arch": study.arch,
            "weights": weights_digest(study.arch, study.weights),
            "recipe": asdict(study.recipe),
            "seed": study.seed,
            "code": CODE["train"],
            "versions": versions("torch", "torchvision"),
        }
        cost = round(3 * study.recipe.epochs * self._count_train)
        return scheduling.Job(
            kind="networks",
            identity=identity,
            function=partial(
                train,
                arch=study.arch,
                weights=study.weights,
                recipe=study.recipe,
                seed=study.seed,
                description=study.name,
                checkpoint=self._checkpoint(identity),
            ),
            data=self.images,
            cost=cost,
        )

    def network(self, treatment: Treatment | Ablation) -> scheduling.Job:
        """The network whose weights the treatment rounds: the original, or one that was trained further."""
        if isinstance(treatment, Ablation) or not treatment.trains:
            return self.original
        trained = treatment.as_trained
        if trained in self.trained_further:  # one job, however many widths it serves
            return self.trained_further[trained]
        study = self.study
        recipe = study.recipe_of(trained)
        identity = {
            "name": f"{study.name}-{trained.name}",
            "network": self.original.identity,
            "treatment": trained.name,
            "recipe": asdict(recipe),
            "code": CODE["train_further"],
        }
        job = self.trained_further[trained] = scheduling.Job(
            kind="networks",
            identity=identity,
            function=partial(
                train_further,
                treatment=trained,
                arch=study.arch,
                recipe=recipe,
                seed=study.seed,
                description=f"{study.name} {trained.name}",
                checkpoint=self._checkpoint(identity),
            ),
            data=self.images,
            needs=(self.original,),
            cost=3 * trained.images_seen(self.images, recipe),
        )
        return job

    def prediction(
        self, treatment: Treatment | Ablation, each: int = 0, split: str = "test"
    ) -> scheduling.Job:
        """Run the treated network over the images of a split, or over at most so many of each group."""
        network = self.network(treatment)
        shown: dict[str, Any] = {"arch": self.study.arch, "each": each, "split": split}
        if isinstance(treatment, Ablation):
            function, code = partial(ablate, treatment=treatment, **shown), CODE["ablate"]
        else:
            function, code = partial(predict, treatment=treatment, **shown), CODE["predict"]
        identity = {
            "name": f"{self.study.name}-{treatment.name}",
            "network": network.identity,
            "treatment": treatment.name,
            "code": code,
        }
        return scheduling.Job(
            kind="predictions",
            identity=identity
            | ({"each": each} if each else {})
            | ({"split": split} if split != "test" else {}),
            function=function,
            data=self.images,
            needs=(network,),
            cost=len(places(self.images, each, split)),
        )

    def landscape(self, treatment: Treatment, survey: Survey, look: str) -> scheduling.Job:
        """Look at the loss where the treated network stands: `around`, `parts`, `change` or `spectrum`."""
        network = self.network(treatment)
        identity = {
            "name": f"{self.study.name}-{treatment.name}-{look}",
            "treated": self.prediction(treatment).identity,
            "survey": asdict(survey),
            "look": look,
            "code": CODE["survey"],
        }
        return scheduling.Job(
            kind="landscapes",
            identity=identity,
            function=partial(
                take_survey,
                treatment=treatment,
                arch=self.study.arch,
                how=survey,
                look=look,
                seed=self.study.seed,
            ),
            data=self.images,
            needs=(network,),
            cost=surveys.cost(self.images, survey),
        )

    def _checkpoint(self, identity: dict[str, Any]) -> Checkpoint:
        return Checkpoint(
            self.store.path("checkpoints", identity), about={"fairq": canonical({"identity": identity})}
        )

    @cached_property
    def _count_train(self) -> int:
        return int(self.images.is_train.sum())


def _plans(studies: Iterable[Study], store: Store) -> list[_Plan]:
    images: dict[DataSettings, Dataset] = {}  # read once, whatever the number of seeds
    plans = []
    for study in studies:
        if study.dataset not in images:
            images[study.dataset] = dataset(study, store=store)
        plans.append(_Plan(study, images[study.dataset], store))
    return plans


def _looks(treatment: Treatment) -> list[str]:
    """What there is to be seen of a treated network."""
    if treatment == FP32:
        return ["around", "parts"]
    elsewhere = treatment.trains or treatment.activations is not None or treatment.batchnorm
    # Both networks lie in one landscape where weights were rounded and nothing else changed.
    return ["around"] if elsewhere else ["around", "change"]
