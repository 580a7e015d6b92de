"""A population of dual encoders, each as it was trained and quantized: what they answer, and how it changes.

`population` names the encoders, `answers` makes what is missing and reads the rest, `measures` says what
the answers are worth and for whom, and `consistency` whether quantization changes that in one direction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from scipy import stats

from fairq_utils import jobs, studies
from fairq_utils.captions import (
    FACES,
    MOTHS,
    TRAINING_SETS,
    Grammar,
    captioned_faces,
    captioned_moths,
    training_set,
)
from fairq_utils.data import DataSettings
from fairq_utils.errors import BadInput
from fairq_utils.linear_layers import LINEAR_TREATMENTS, ORIGINAL, runs
from fairq_utils.metrics import (
    equivalence_test,
    flipped,
    max_skew,
    ndkl,
    paired_test,
    recall_at_k,
    recall_disparity,
    sign_consistency,
)
from fairq_utils.moths import Moths, MothSettings
from fairq_utils.paired import holm, mcnemar
from fairq_utils.questions import Answers, Questions, as_answers
from fairq_utils.scenes import Scenes
from fairq_utils.stages.answer import answer, restored
from fairq_utils.stages.answer_given import answer_given
from fairq_utils.stages.codes import CODE
from fairq_utils.stages.draw import as_moths, draw
from fairq_utils.stages.train_encoder import train_encoder
from fairq_utils.store import Item, Store, versions
from fairq_utils.vision_language import SHAPES, ContrastiveRecipe, DualEncoder, MiniEncoder

if TYPE_CHECKING:
    from distributed import Client

LOST = 0.2  # of its accuracy: a model that lost more has failed, and is set apart
MARGIN_OF_SHARES, MARGIN_OF_SKEWS = 0.02, 0.05  # the least change that matters: 2 points, 0.05 nats

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
        if type(self.seed) is not int or self.seed < 0:
            raise BadInput(f"seed is {self.seed!r}; expected a whole number of at least 0.")
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

    `dataset`: moths, or fairface, which lies at `root`; `test_images`: at most so many, of moths 1000. Or
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
    return [
        ClipStudy(arch=arch, training=training, seed=seed, dataset=shown, images=images, **settings)
        for arch in archs
        for training in training_sets
        for seed in studies.whole_numbers("seeds", given, such_as=[0, 1])
    ]


def answers(
    asked: Iterable[ClipStudy],
    treatments: Sequence[str] = LINEAR_TREATMENTS,
    *,
    prompts: Sequence[str] = (),
    store: Store | None = None,
    client: Client | None = None,
) -> list[Answers]:
    """What each encoder says under each treatment: read, or made when missing, with a progress bar.

    Retrieval is among the first captions of the test images. Who was taught by labels is asked for those
    alone. `prompts`: sentences with a gap, {}, for the name of a class; else those of `captions`.
    """
    store = store or Store()
    plans = _plans(list(asked), store, prompts)
    wanted = [(plan, treatment, plan.answer(treatment)) for plan in plans for treatment in treatments]
    items = jobs.make([job for _, _, job in wanted], store=store, client=client)
    return [
        as_answers(plan.study.name, treatment, plan.questions, item)
        for (plan, treatment, _), item in zip(wanted, items, strict=True)
    ]


def on_demand(
    asked: Sequence[ClipStudy], *, prompts: Sequence[str] = (), store: Store | None = None
) -> Callable[[str], list[Answers]]:
    """`answers` to one more treatment at a time, for an explorer that asks while somebody looks."""
    return lambda treatment: answers(asked, [treatment], prompts=prompts, store=store)


def encoders(
    asked: Iterable[ClipStudy], *, store: Store | None = None, client: Client | None = None
) -> list[MiniEncoder]:
    """The encoders in full precision, trained when missing."""
    store = store or Store()
    plans = _plans(list(asked), store)
    items = jobs.make([plan.encoder for plan in plans], store=store, client=client)
    return [plan.restored(item) for plan, item in zip(plans, items, strict=True)]


def answers_of(
    encoder: DualEncoder,
    questions: Questions,
    treatments: Sequence[str] = LINEAR_TREATMENTS,
    *,
    name: str,
    store: Store | None = None,
) -> list[Answers]:
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
    items = jobs.make(wanted, store=store)
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


# ---------------------------------------------------------------- how it is made


@dataclass(frozen=True, eq=False)
class _Plan:
    study: ClipStudy
    shown: Scenes
    questions: Questions
    texts: tuple[str, ...]  # the words that it can read, or the names of its classes

    @cached_property
    def encoder(self) -> jobs.Job:
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
        return jobs.Job(
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

    def answer(self, treatment: str) -> jobs.Job:
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
    tests: dict[tuple, Questions] = {}
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


def _questions(study: ClipStudy, everything: Scenes, prompts: Sequence[str]) -> Questions:
    assert everything.is_train is not None
    test = everything.take(~everything.is_train)
    names = test.names(study.label)
    if study.by_labels:
        return Questions(replace(test, captions=()), study.label, [[name] for name in names], ())
    test = replace(test, captions=tuple(several[:1] for several in test.captions))
    grammar = replace(study.grammar, prompts=tuple(prompts)) if prompts else study.grammar
    return Questions(test, study.label, grammar.prompts_for(study.label, names), grammar.queries)


def _answer_job(
    name: str, encoder: Mapping[str, Any], treatment: str, questions: Questions, function: Any, code: str
) -> jobs.Job:
    identity = {
        "name": f"{name}-{treatment}",
        "encoder": encoder,
        "treatment": treatment,
        "runs": runs(treatment),
        "questions": questions.digest,
        "code": code,
        "versions": versions("torch"),
    }
    return jobs.Job(
        kind="answers",
        identity=identity,
        function=function,
        data=questions,
        cost=2 * len(questions.scenes.images),
    )


# ---------------------------------------------------------------- what the answers are worth


def measures(
    given: Sequence[Answers],
    group: str,
    *,
    ks: Sequence[int] = (1, 5, 10),
    top: int = 100,
    between: tuple[str, str] | None = None,
) -> pd.DataFrame:
    """All measures of all answers, tidy: model, treatment, measure, group and value.

    - `accuracy` of each group and overall (OA), and its gap (FVO): zero-shot, over the averaged prompts;
    - `recall to text@k` and `recall to image@k` overall, and the former of each group;
    - `MaxSkew`, `MinSkew` and `NDKL` of the first `top` images of each neutral query, against the shares of
      all images, as means over the queries;
    - `flips`: the share of images, of each group and overall, whose answer is not that of the original;
    - with `between`, the `recall disparity` between two groups, as a mean over the classes that both have.

    What cannot be measured is left out: a group without images, labels or captions that were never given.
    """
    twice = pd.DataFrame([(one.model, one.treatment) for one in given]).duplicated()
    if twice.any():
        again = given[int(twice.argmax())]
        raise BadInput(
            f"{again.model} is given twice under {again.treatment}; expected each once: measure studies that "
            "differ in more than their names apart."
        )
    before = {one.model: one for one in given if one.treatment == ORIGINAL}
    rows = []
    for one in given:
        codes, names = one.codes(group)
        told: list[tuple[str, str, float]] = []
        if one.logits is not None and one.label is not None:
            told += _by_group("accuracy", one.correct, codes, names, gap=True)
            original = before[one.model].logits if one.model in before else None
            if original is not None:
                flips = flipped(original, one.logits)
                told += _by_group("flips", flips, codes, names)
            if between is not None:
                table = recall_disparity(
                    one.correct,
                    one.attributes[one.label],
                    codes,
                    between=between,
                    label_names=[str(name) for name in one.attributes[one.label].cat.categories],
                    group_names=names,
                )
                told.append(
                    (f"recall disparity, {between[0]} − {between[1]}", "OA", table["estimate"].mean())
                )
        for k in ks:
            if one.to_text is not None and one.to_image is not None:
                told += _by_group(f"recall to text@{k}", one.to_text.numpy() <= k, codes, names)
                told.append((f"recall to image@{k}", "OA", recall_at_k(one.to_image, k)))
        if one.queries is not None:
            mean = skews([one], group, top=top).groupby("measure", sort=False)["value"].mean()
            told += [(str(measure), "OA", float(value)) for measure, value in mean.items()]
        rows += [(one.model, one.treatment, *said) for said in told if not np.isnan(said[2])]
    return pd.DataFrame(rows, columns=["model", "treatment", "measure", "group", "value"])


def _by_group(
    measure: str, hit: np.ndarray, codes: np.ndarray, names: Sequence[str], *, gap: bool = False
) -> list[tuple[str, str, float]]:
    shares = {
        name: float(hit[codes == place].mean()) for place, name in enumerate(names) if (codes == place).any()
    }
    told = [(measure, name, share) for name, share in shares.items()]
    told.append((measure, "OA", float(hit.mean())))
    if gap:
        told.append((measure, "FVO", max(shares.values()) - min(shares.values())))
    return told


def skews(given: Sequence[Answers], group: str, *, top: int = 100) -> pd.DataFrame:
    """MaxSkew, MinSkew and NDKL of the first `top` images of each neutral query: a row a model and query.

    Images that are equally close keep their order. A group that is missing from the top counts as half an
    image of it in MinSkew, which would be minus infinity otherwise; a group without any image is left out.
    """
    rows = []
    for one in given:
        if one.queries is None:
            raise BadInput(
                f"{one.model} was asked no neutral query; expected some: name them when it is asked."
            )
        codes, names = one.codes(group)
        count = len(codes)
        if type(top) is not int or not 1 <= top <= count:
            raise BadInput(
                f"top is {top!r}; expected a whole number from 1 to {count}, the number of images."
            )
        sizes = np.bincount(codes, minlength=len(names))
        there = [name for name, size in zip(names, sizes, strict=True) if size]
        due = {name: size / count for name, size in zip(names, sizes, strict=True) if size}
        for number, close in enumerate(one.queries):
            order = torch.sort(close, descending=True, stable=True).indices.numpy()[:top]
            first = np.array(names, dtype=object)[codes[order]]
            found = np.array([(first == name).sum() for name in there])
            least = np.log(np.maximum(found, 0.5) / top / np.array([due[name] for name in there])).min()
            told = {
                f"MaxSkew@{top}": max_skew(first, top, desired=due, group_names=there),
                f"MinSkew@{top}": float(least),
                f"NDKL@{top}": ndkl(first, desired=due, group_names=there),
            }
            rows += [(one.model, number, one.treatment, name, "OA", value) for name, value in told.items()]
    return pd.DataFrame(rows, columns=["model", "query", "treatment", "measure", "group", "value"])


def changes(table: pd.DataFrame, treatment: str) -> pd.DataFrame:
    """After minus before: a row a model (and query, where the table has them), a column a measure and group.

    `table` of `measures` or `skews`. Models that lack either are left out; so are measures of which the
    original has none, and those that some model lacks.
    """
    rows = [name for name in ("model", "query") if name in table]
    wide = table.pivot_table(
        index=["treatment", *rows], columns=["measure", "group"], values="value", sort=False
    )
    known = wide.index.get_level_values("treatment")
    for name in (ORIGINAL, treatment):
        if name not in known:
            raise BadInput(
                f"treatment {name!r} is not in the table; expected of: {', '.join(known.unique())}."
            )
    moved: pd.DataFrame = wide.xs(treatment) - wide.xs(ORIGINAL)  # type: ignore[assignment] # of a table it is one
    return moved.dropna(how="all").dropna(axis="columns")


def by_model(table: pd.DataFrame, failed: pd.DataFrame | None = None) -> pd.DataFrame:
    """The changes behind `consistency`, tidy: model, treatment, measure, group and change."""
    table = _standing(table, failed)
    parts = []
    for name in _rounded(table):
        wide = changes(table, name)
        long = wide.melt(ignore_index=False, value_name="change").reset_index()
        parts.append(long.assign(treatment=name))
    columns = ["model", "treatment", "measure", "group", "change"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def failures(given: Sequence[Answers], *, lost: float = LOST) -> pd.DataFrame:
    """The signs that a model has failed: a row a model and treatment, `sign` empty where it stands.

    - random: its accuracy is not surely (one-sided binomial test at 5 %) above the share of the most
      frequent label, which one and the same answer to everything would reach;
    - lost: it lost more than `lost` of the original's accuracy.
    """
    before = {one.model: one.correct.mean() for one in given if one.treatment == ORIGINAL}
    rows = []
    for one in given:
        right, labels = one.correct, one.codes(one.label)[0]  # type: ignore[arg-type] # correct has refused None
        most = np.bincount(labels).max() / len(labels)
        guessed = stats.binomtest(int(right.sum()), len(right), float(most), alternative="greater").pvalue
        own = before.get(one.model, float("nan"))
        sign = "random" if guessed >= 0.05 else "lost" if right.mean() < (1 - lost) * own else ""
        rows.append((one.model, one.treatment, right.mean(), own, sign))
    return pd.DataFrame(rows, columns=["model", "treatment", "accuracy", "original", "sign"])


def fallen(failed: pd.DataFrame) -> pd.DataFrame:
    """The rows of `failures` that have a sign."""
    return failed[failed["sign"].isin(["random", "lost"])]  # in a kept table no sign is no text


def lost_and_won(given: Sequence[Answers], group: str) -> pd.DataFrame:
    """Sign tests over all pairs of model and image: how many answers turned wrong, and how many right.

    A row a treatment and group; p_holm is corrected over the groups of a treatment. One image under
    several models is taken for several: the p-values are those of these very images.
    """
    before = {one.model: one.correct for one in given if one.treatment == ORIGINAL}
    rows = []
    for treatment in dict.fromkeys(one.treatment for one in given if one.treatment != ORIGINAL):
        own = [one for one in given if one.treatment == treatment and one.model in before]
        for place, name in enumerate(own[0].codes(group)[1] if own else []):
            lost = won = count = 0
            for one in own:
                member = one.codes(group)[0] == place
                was, now = before[one.model][member], one.correct[member]
                lost, won, count = (
                    lost + int((was & ~now).sum()),
                    won + int((~was & now).sum()),
                    count + len(was),
                )
            rows.append((treatment, name, count, lost, won, float(mcnemar(lost, won))))
    table = pd.DataFrame(rows, columns=["treatment", "group", "n", "lost", "won", "p"])
    return table.assign(p_holm=table.groupby("treatment")["p"].transform(holm))


def consistency(
    table: pd.DataFrame, failed: pd.DataFrame | None = None, *, margins: Mapping[str, float] | None = None
) -> pd.DataFrame:
    """Whether each measure changes in one direction over the population: a row a treatment, measure, group.

    `table` of `measures`, or of `skews` for pairs of model and query; `failed` of `failures`, to set apart
    what has failed. `margins` names the least change that matters for a measure; else it is 2 points for
    shares and 0.05 nats for MaxSkew, MinSkew and NDKL. A row holds the mean change with its interval, p of
    the paired t-test, of the sign test and of the equivalence test, each after Holm over the measures of
    the treatment and family, and how many rise and fall. `family` is bias (FVO, the skews and the recall
    disparity), group (what each group gets) or overall. Flips have no before, and no row. A treatment that
    fewer than two models stand is left out.
    """
    table = _standing(table, failed)
    moved = {name: changes(table, name) for name in _rounded(table)}
    return _tested(moved, margins or {})


def beyond_classifiers(
    encoders: pd.DataFrame,
    classifiers: pd.DataFrame,
    failed: pd.DataFrame | None = None,
    *,
    margins: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """What quantization changes in encoders beyond what it changes in classifiers: as `consistency` has it.

    Both tables of `measures`, of the same population, once taught by captions and once by labels: a pair is
    a model of either, alike in all else. Only what both are asked for is compared, their accuracies.
    `failed` of `failures` of both; a pair of which either failed is set apart.
    """
    encoders, classifiers = _standing(encoders, failed), _standing(classifiers, failed)
    twins = classifiers.assign(model=classifiers["model"].str.replace("-labels", ""))
    moved = {}
    for name in _rounded(encoders):
        if name in set(twins["treatment"]):
            own, other = changes(encoders, name), changes(twins, name)
            moved[name] = (own - other).dropna(how="all").dropna(axis="columns")
    return _tested(moved, margins or {})


def _standing(table: pd.DataFrame, failed: pd.DataFrame | None) -> pd.DataFrame:
    """Without what has failed, and without flips, which have no before."""
    if failed is not None:
        down = fallen(failed)
        keys = pd.MultiIndex.from_frame(table[["model", "treatment"]])
        table = table[~keys.isin(pd.MultiIndex.from_frame(down[["model", "treatment"]]))]
    return table[table["measure"] != "flips"]


def _rounded(table: pd.DataFrame) -> list[str]:
    names = list(dict.fromkeys(table["treatment"]))
    return [name for name in names if name != ORIGINAL] if ORIGINAL in names else []


def _tested(moved: Mapping[str, pd.DataFrame], margins: Mapping[str, float]) -> pd.DataFrame:
    parts: list[pd.DataFrame] = []
    for treatment, table in moved.items():
        if len(table) < 2:
            continue
        names = [(str(column[0]), str(column[1])) for column in table.columns]
        table.columns = pd.RangeIndex(len(names))
        family = [_family(*name) for name in names]
        tests, signs = paired_test(table, families=family), sign_consistency(table)
        margin = [_margin(measure, margins) for measure, _ in names]
        within = pd.concat(
            [equivalence_test(table[[i]], margin[i]) for i in range(len(names))], ignore_index=True
        )
        parts.append(
            pd.DataFrame(
                {
                    "treatment": treatment,
                    "measure": [measure for measure, _ in names],
                    "group": [group for _, group in names],
                    "family": family,
                    **{name: tests[name] for name in ("n", "estimate", "lower", "upper", "p_holm")},
                    "rises": signs["rises"],
                    "falls": signs["falls"],
                    "p_sign": signs["p"].groupby(family).transform(holm),
                    "margin": margin,
                    "p_within": within["p"].groupby(family).transform(holm),
                }
            )
        )
    columns = ["treatment", "measure", "group", "family", "n", "estimate", "lower", "upper", "p_holm"]
    columns += ["rises", "falls", "p_sign", "margin", "p_within"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


_SKEWS = ("MaxSkew", "MinSkew", "NDKL")


def _family(measure: str, group: str) -> str:
    if group == "FVO" or measure.startswith((*_SKEWS, "recall disparity")):
        return "bias"
    return "overall" if group == "OA" else "group"


def _margin(measure: str, margins: Mapping[str, float]) -> float:
    return margins.get(measure, MARGIN_OF_SKEWS if measure.startswith(_SKEWS) else MARGIN_OF_SHARES)
