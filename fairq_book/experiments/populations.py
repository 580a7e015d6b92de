"""A population of dual encoders, each as it was trained and quantized: what they answer, and how it changes.

`population` names the encoders, `answers` makes what is missing and reads the rest, `measures` says what
the answers are worth and for whom, and `consistency` whether quantization changes that in one direction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import torch

from fairq_book.experiments import scheduling, studies
from fairq_book.experiments.code import versions
from fairq_book.experiments.codes import CODE
from fairq_book.experiments.parameters import MOST_EPOCHS, MOST_SEED
from fairq_book.experiments.seeds import draw_of, fold_of
from fairq_book.experiments.store import Store
from fairq_utils.data.moths import Moths, MothSettings
from fairq_utils.data.sources import DataSettings
from fairq_utils.encoders.captions import (
    FACES,
    MOTHS,
    TRAINING_SETS,
    Grammar,
    captioned_faces,
    captioned_moths,
    training_set,
)
from fairq_utils.encoders.contrastive import ContrastiveRecipe
from fairq_utils.encoders.jobs.answer import answer, restored
from fairq_utils.encoders.jobs.answer_given import answer_given
from fairq_utils.encoders.jobs.draw import as_moths, draw
from fairq_utils.encoders.jobs.train_encoder import train_encoder
from fairq_utils.encoders.linear_layers import LINEAR_TREATMENTS, runs
from fairq_utils.encoders.mini import SHAPES, DualEncoder, MiniEncoder
from fairq_utils.encoders.questions import EncoderOutputs, EvaluationSet, as_answers
from fairq_utils.encoders.scenes import Scenes
from fairq_utils.errors import BadInput
from fairq_utils.items import Item

if TYPE_CHECKING:
    from distributed import Client


MOTH_SETTINGS = MothSettings(train=9000, test=1000, sizes=(0.2,) * 5, difficulty=(0.7,) * 5)


@dataclass(frozen=True, kw_only=True)
class ClipStudy:
    """Everything that decides one encoder that is trained here.

    `dataset`: what moths are drawn, or FairFace. By default moths of equal groups, and easier ones than
    elsewhere, so that half a minute of training suffices. `training`: which of its training images are
    shown, as `captions.training_set` draws them by `group`, and `images` how many. `taught`: by captions, or
    by labels alone, which makes a classifier of the same images: the captions are then not read.

    >>> ClipStudy(seed=2).name
    'moths-patch8-balanced-seed2'
    >>> ClipStudy(training="all")
    Traceback (most recent call last):
        ...
    fairq_utils.errors.BadInput: training is 'all'; expected one of: balanced, skewed, noisy.
    """

    dataset: MothSettings | DataSettings = MOTH_SETTINGS
    arch: str = "patch8"
    training: str = "balanced"
    group: str = ""
    images: int = 3000
    taught: str = "captions"
    recipe: ContrastiveRecipe = field(default_factory=ContrastiveRecipe)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.taught not in ("captions", "labels"):
            raise BadInput(f"taught is {self.taught!r}; expected captions or labels.")
        if self.training not in TRAINING_SETS:
            raise BadInput(f"training is {self.training!r}; expected one of: {', '.join(TRAINING_SETS)}.")
        if type(self.seed) is not int or not 0 <= self.seed <= MOST_SEED:
            raise BadInput(f"seed is {self.seed!r}; expected a whole number from 0 to {MOST_SEED}.")
        if self.recipe.epochs > MOST_EPOCHS:
            raise BadInput(f"epochs is {self.recipe.epochs:g}; expected at most {MOST_EPOCHS:,} passes.")
        if type(self.images) is not int or self.images < 2:
            raise BadInput(f"images is {self.images!r}; expected a whole number of at least 2.")
        if isinstance(self.dataset, DataSettings) and self.dataset.name != "fairface":
            raise BadInput(
                f"dataset is {self.dataset.name!r}; expected MothSettings, or DataSettings of fairface: of "
                "others there is too little to say."
            )
        with torch.device("meta"):  # refuses an architecture that is unknown or does not take such images
            MiniEncoder(self.arch, image_size=self.dataset.image_size)
        if not self.group:
            object.__setattr__(self, "group", self.label)

    @property
    def name(self) -> str:
        """Short enough for a file name; the settings it leaves out are in the digest beside it."""
        by = "-labels" if self.by_labels else ""
        return f"{'moths' if self.is_drawn else 'fairface'}-{self.arch}-{self.training}{by}-seed{self.seed}"

    @property
    def is_drawn(self) -> bool:
        """Whether the images are moths, so that no person is on them."""
        return isinstance(self.dataset, MothSettings)

    @property
    def by_labels(self) -> bool:
        """Whether it is a classifier, that never sees a caption."""
        return self.taught == "labels"

    @property
    def label(self) -> str:
        """The attribute that is to be recognised."""
        return "species" if self.is_drawn else "gender"

    @property
    def grammar(self) -> Grammar:
        """What is said of the images."""
        return MOTHS if self.is_drawn else FACES


def population(
    *,
    archs: Sequence[str] = tuple(SHAPES),
    training_sets: Sequence[str] = TRAINING_SETS,
    seeds: Sequence[int] | str = (0, 1),
    dataset: str | MothSettings | DataSettings = "moths",
    root: str = "",
    image_size: int = 32,
    images: int = ClipStudy.images,
    test_images: int = 0,
    **settings: Any,
) -> list[ClipStudy]:
    """One study for each architecture, training set and seed; `settings` are more of those of `ClipStudy`.

    `dataset`: moths, or fairface, which lies at `root`; `test_images`: at most so many, of moths 1000. Which
    moths, or which fold of the faces, the seed tells, as `seeds.draw_of` and `seeds.fold_of` say. Or
    whole settings of either, which say all of this themselves.

    >>> [study.name for study in population(archs=["patch4"], training_sets=["balanced"], seeds=[0, 1])]
    ['moths-patch4-balanced-seed0', 'moths-patch4-balanced-seed1']
    """
    given = seeds if isinstance(seeds, str) else list(seeds)
    shown: MothSettings | DataSettings
    if not isinstance(dataset, str):
        shown = dataset
    elif dataset == "moths":
        if root:
            raise BadInput(f"root is {root!r}; expected none, for moths are drawn: leave it out.")
        # Enough for the largest group of a skewed training set.
        count = test_images or MOTH_SETTINGS.test
        shown = replace(MOTH_SETTINGS, train=3 * images, test=count, image_size=image_size)
    elif dataset == "fairface":
        shown = DataSettings(
            name=dataset, root=root or None, image_size=image_size, test_images=test_images or None
        )
    else:
        raise BadInput(
            f"dataset is {dataset!r}; expected moths or fairface: of others there is too little to say."
        )
    numbers = studies.whole_numbers("seeds", given, such_as=[0, 1])
    by_seed = {seed: _of_seed(shown, seed) if isinstance(dataset, str) else shown for seed in numbers}
    return [
        ClipStudy(arch=arch, training=training, seed=seed, dataset=by_seed[seed], images=images, **settings)
        for arch in archs
        for training in training_sets
        for seed in numbers
    ]


def _of_seed(shown: MothSettings | DataSettings, seed: int) -> MothSettings | DataSettings:
    if isinstance(shown, MothSettings):
        return replace(shown, seed=draw_of(seed))
    return replace(shown, fold=fold_of(seed))


def answers(
    asked: Iterable[ClipStudy],
    treatments: Sequence[str] = LINEAR_TREATMENTS,
    *,
    prompts: Sequence[str] = (),
    store: Store | None = None,
    client: Client | None = None,
) -> list[EncoderOutputs]:
    """What each encoder says under each treatment: read, or made when missing, with a progress bar.

    Retrieval is among the first captions of the test images. Who was taught by labels is asked for those
    alone. `prompts`: sentences with a gap, {}, for the name of a class; else those of `captions`.
    """
    store = store or Store()
    plans = _plans(list(asked), store, prompts)
    wanted = [(plan, treatment, plan.answer(treatment)) for plan in plans for treatment in treatments]
    items = scheduling.make([job for _, _, job in wanted], store=store, client=client)
    return [
        as_answers(plan.study.name, treatment, plan.questions, item)
        for (plan, treatment, _), item in zip(wanted, items, strict=True)
    ]


def on_demand(
    asked: Sequence[ClipStudy], *, prompts: Sequence[str] = (), store: Store | None = None
) -> Callable[[str], list[EncoderOutputs]]:
    """`answers` to one more treatment at a time, for an explorer that asks while somebody looks."""
    return lambda treatment: answers(asked, [treatment], prompts=prompts, store=store)


def encoders(
    asked: Iterable[ClipStudy], *, store: Store | None = None, client: Client | None = None
) -> list[MiniEncoder]:
    """The encoders in full precision, trained when missing."""
    store = store or Store()
    plans = _plans(list(asked), store)
    items = scheduling.make([plan.encoder for plan in plans], store=store, client=client)
    return [plan.restored(item) for plan, item in zip(plans, items, strict=True)]


def answers_of(
    encoder: DualEncoder,
    questions: EvaluationSet,
    treatments: Sequence[str] = LINEAR_TREATMENTS,
    *,
    name: str,
    store: Store | None = None,
) -> list[EncoderOutputs]:
    """What an encoder that you have, such as one of `open_clip`'s, says under each treatment.

    It is kept in the store, under the name and a digest of the weights. Where other code than before runs the
    same weights, and it is not of this package, give another name.
    """
    store = store or Store()
    own = Item(encoder.state_dict()).digest
    wanted = [
        _answer_job(
            name,
            {"state": own},
            treatment,
            questions,
            partial(answer_given, encoder=encoder, treatment=treatment),
            CODE["answer_given"],
        )
        for treatment in treatments
    ]
    items = scheduling.make(wanted, store=store)
    return [
        as_answers(name, treatment, questions, item)
        for treatment, item in zip(treatments, items, strict=True)
    ]


def scenes(study: ClipStudy, *, store: Store | None = None) -> Scenes:
    """All images of the study, with their captions and attributes."""
    store = store or Store()
    if isinstance(study.dataset, MothSettings):
        return captioned_moths(study.dataset, _drawn(study.dataset, store))
    alike = replace(study.dataset, keep_conflicting=True, group="race")
    by_gender, by_age = (
        studies.dataset(replace(alike, label=label), store=store) for label in ("gender", "age")
    )
    return captioned_faces(by_gender, by_age)


def _drawn(settings: MothSettings, store: Store) -> Moths:
    identity = {
        "name": f"captioned-moths-{settings.image_size}px",
        "settings": asdict(settings),
        "code": CODE["draw"],
        "versions": versions("torch", "numpy"),
    }
    return as_moths(store.get_or_make("datasets", identity, partial(draw, settings)))


@dataclass(frozen=True, eq=False)
class _Plan:
    study: ClipStudy
    shown: Scenes
    questions: EvaluationSet
    texts: tuple[str, ...]  # the words that it can read, or the names of its classes

    @cached_property
    def encoder(self) -> scheduling.Job:
        study = self.study
        labels = self.shown.codes(study.label) if study.by_labels else None
        identity = {
            "name": study.name,
            "scenes": self.shown.fingerprint,
            "arch": study.arch,
            "labels": Item({"labels": labels}).digest if labels is not None else None,
            "texts": self.texts,
            "recipe": asdict(study.recipe),
            "seed": study.seed,
            "code": CODE["train_encoder"],
            "versions": versions("torch"),
        }
        return scheduling.Job(
            kind="encoders",
            identity=identity,
            function=partial(
                train_encoder,
                arch=study.arch,
                labels=labels,
                texts=self.texts,
                recipe=study.recipe,
                seed=study.seed,
                description=study.name,
            ),
            data=self.shown,
            cost=3 * study.recipe.epochs * len(self.shown.images),
        )

    def answer(self, treatment: str) -> scheduling.Job:
        made, study = self.encoder, self.study
        function = partial(
            answer, arch=study.arch, texts=self.texts, by_labels=study.by_labels, treatment=treatment
        )
        job = _answer_job(study.name, made.identity, treatment, self.questions, function, CODE["answer"])
        return replace(job, needs=(made,))

    def restored(self, item: Item) -> MiniEncoder:
        study = self.study
        return restored(
            study.arch, self.texts, item, by_labels=study.by_labels, image_size=study.dataset.image_size
        )


def _plans(asked: list[ClipStudy], store: Store, prompts: Sequence[str] = ()) -> list[_Plan]:
    read: dict[MothSettings | DataSettings, Scenes] = {}
    tests: dict[tuple, EvaluationSet] = {}
    drawn: dict[tuple, Scenes] = {}
    plans = []
    for study in asked:
        if study.dataset not in read:
            read[study.dataset] = scenes(study, store=store)
        everything = read[study.dataset]
        if (study.dataset, study.taught) not in tests:
            tests[study.dataset, study.taught] = _questions(study, everything, prompts)
        way = (study.dataset, study.training, study.group, study.images)
        if way not in drawn:  # other seeds train on the same images: what differs is the training
            drawn[way] = training_set(everything, study.training, group=study.group, count=study.images)
        if study.by_labels:
            texts = everything.names(study.label)
        else:
            texts = study.grammar.vocabulary(everything.attributes)
        plans.append(_Plan(study, drawn[way], tests[study.dataset, study.taught], tuple(texts)))
    return plans


def _questions(study: ClipStudy, everything: Scenes, prompts: Sequence[str]) -> EvaluationSet:
    assert everything.is_test is not None
    test = everything.take(everything.is_test)
    names = test.names(study.label)
    if study.by_labels:
        return EvaluationSet(replace(test, captions=()), study.label, [[name] for name in names], ())
    test = replace(test, captions=tuple(several[:1] for several in test.captions))
    grammar = replace(study.grammar, prompts=tuple(prompts)) if prompts else study.grammar
    return EvaluationSet(test, study.label, grammar.prompts_for(study.label, names), grammar.queries)


def _answer_job(
    name: str, encoder: Mapping[str, Any], treatment: str, questions: EvaluationSet, function: Any, code: str
) -> scheduling.Job:
    identity = {
        "name": f"{name}-{treatment}",
        "encoder": encoder,
        "treatment": treatment,
        "runs": runs(treatment),
        "questions": questions.digest,
        "code": code,
        "versions": versions("torch"),
    }
    return scheduling.Job(
        kind="answers",
        identity=identity,
        function=function,
        data=questions,
        cost=2 * len(questions.scenes.images),
    )
