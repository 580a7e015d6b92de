"""Explore how the answers of each group are spread, and who flips: in a notebook and on a published page."""

from __future__ import annotations

import copy
import html
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
import traitlets
from numpy.typing import NDArray
from torch import Tensor, nn

from fairq_book.chapters.encoders import tables as encoders_tables
from fairq_book.experiments import studies
from fairq_book.experiments.store import Store
from fairq_book.experiments.studies import Prediction, Study
from fairq_book.widgets import SCRIPTS, PageWidget
from fairq_utils.encoders.linear_layers import runs
from fairq_utils.encoders.questions import Answers
from fairq_utils.errors import BadInput
from fairq_utils.metrics import groups as metrics_groups
from fairq_utils.quantization.grids import Grid, LookupGrid, UniformGrid
from fairq_utils.quantization.models import bake, grids, quantize_model, zero_share
from fairq_utils.training.loop import predict
from fairq_utils.training.small_convolutions import AsProducts
from fairq_utils.treatments.ablations import Ablation, layers
from fairq_utils.treatments.treatment import FP32, Treatment

BINS = 144  # fine ones; neighbours are merged 2, 3, 4, 6, 8 or 12 at a time
_BLOCK = 24  # zero lies after a multiple of so many bins, so that it stays an edge however bins are merged
_DRAWN_VALUES = 33  # of a grid; more would lie too close to be told apart
_TABLES = 3  # of recall and the first queries, where no script runs
_MOST_DECIMALS = 4
_RECALLS = (1, 5, 10)  # how many captions are looked through

_NETWORKS = ["network", "networks (seeds)"]  # one, and several

# Those of `figures`: a group looks the same in all drawings.
COLOURS = ("#2f7fc1", "#c4720e", "#1f9a6c", "#8e6bd1", "#d0457b", "#9c7a3c", "#2a93a8", "#7d828a")
MARKS = ("o", "s", "^", "D", "v", "P", "X", "h")


@dataclass(frozen=True)
class _Quantity:
    """How a quantity is called, and how its bins lie."""

    name: str
    unit: str = ""
    factor: float = 1  # what is said is so many times what is measured
    floor: float | None = None  # the smallest value, where bins are spaced by logarithm
    signed: bool = False  # zero is to be an edge
    mean: str = "mean"
    closed: bool = False  # nothing can lie beyond the ends of the axis
    whole: bool = False  # places are counted: 1, 2, 3 ...

    @property
    def is_logarithmic(self) -> bool:
        return self.floor is not None


_ANSWERS = {
    "logit_variance": _Quantity("logit variance", floor=1e-12, mean="geometric mean"),
    "confidence": _Quantity("confidence", "%", 100, closed=True),
    "margin": _Quantity("margin", signed=True),
    "loss": _Quantity("loss", "nats", floor=1e-6),
    "logit": _Quantity("logit of the label", signed=True),
}
QUANTITIES = (*_ANSWERS, "weights")
OF_ANSWERS = (*_ANSWERS, "rank", "place")
_RANK = _Quantity("rank of own caption", floor=1, closed=True, whole=True)


@dataclass(frozen=True, eq=False)
class _Run:
    """What the networks say of the images under one treatment.

    Logits of each seed, and the first network; `ranked`: further quantities, seeds by images; `tops`: what is
    to be said of each of those in numbers, by group.
    """

    treatment: Treatment | Ablation | _Named
    logits: Sequence[Tensor]
    network: nn.Module | None = None
    ranked: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    tops: Mapping[str, list[list[float | None]]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class _Images:
    """What is asked about, and the groups that have some of it."""

    labels: NDArray[np.int64]
    groups: NDArray[np.int64]
    names: Sequence[str]

    @property
    def present(self) -> list[int]:
        """The places of the groups that have images, among all names."""
        return [int(code) for code in np.unique(self.groups)]


_Report = Callable[[str, float], None]  # what is being done, and how much of all is done before it
_More = Callable[[Any, _Report], Iterator[_Run]]  # each run is of one network more than the last


class Explorer(PageWidget):
    """Histograms of what networks answer, for each group and treatment; the flow of answers; and weights.

    Made by `of`, `of_model`, `of_predictions`, `of_answers` or `from_table`. `view` says what is shown; what
    it leaves out is as at the beginning. With a kernel, and where there is a network to ask, another
    treatment can be added: by its name in the widget, or by `add`.

    Of dual encoders it also says who is found. Three lines show recall and skew by group and treatment, of
    all encoders of a population together::

        asked = populations.population(seeds=[0, 1])
        answers = populations.answers(asked, ["fp32", "int4"])
        Explorer.of_answers(answers, "species", queries=asked[0].grammar.queries)
    """

    kind: ClassVar[str] = "explorer"
    _esm = SCRIPTS / "explorer.js"
    _css = SCRIPTS / "explorer.css"

    data = traitlets.Dict(help="What is embedded: bins, counts, flows, weights.").tag(sync=True)
    view = traitlets.Dict(help="What is shown: quantity, treatment, bins ...").tag(sync=True)
    asks = traitlets.Bool(False, help="Whether another treatment can be asked for.").tag(sync=True)
    busy = traitlets.Unicode("", help="What is being computed.").tag(sync=True)
    done = traitlets.Float(0.0, help="How much of it is done, from 0 to 1.").tag(sync=True)
    answer = traitlets.Unicode("", help="Why what was asked for did not come.").tag(sync=True)

    _more: _More | None = None
    _understood: Callable[[Any], Any]
    _images: _Images
    _given: dict[str, NDArray[np.int64]]  # the class that each seed gives each image, by treatment

    # ------------------------------------------------------------ where it comes from

    @classmethod
    def of(
        cls,
        trained: Iterable[Study],
        treatments: Sequence[Treatment | Ablation | str],
        quantities: Sequence[str] = QUANTITIES,
        *,
        store: Store | None = None,
    ) -> Explorer:
        """The explorer of these studies under these treatments, full precision among them in any case.

        `quantities`: some of logit_variance, confidence, margin, loss, logit (that of the label) and weights
        (by layer, of the first study's network). What is not in the store is made.
        """
        trained, store = list(trained), store or Store()
        if not trained:
            raise BadInput("no study is given; expected at least one: `studies.studies` makes them.")
        _require_known(quantities)
        chosen = _ordered([FP32, *map(_parsed, treatments)])
        first = trained[:1] if "weights" in quantities else []
        explorer = cls.of_predictions(
            studies.predictions(trained, chosen, store=store),
            quantities,
            networks=studies.networks(first, chosen, store=store),
        )

        def more(treatment: Treatment, report: _Report) -> Iterator[_Run]:
            logits: list[Tensor] = []
            treated: list[nn.Module] = []
            for number, study in enumerate(trained):
                report(f"{treatment.name}: network {number + 1} of {len(trained)}", number / len(trained))
                (prediction,) = studies.predictions([study], [treatment], store=store)
                logits.append(prediction.logits)
                treated = treated or studies.networks(first, [treatment], store=store)
                yield _Run(treatment, logits, treated[0] if treated else None)

        explorer._answer_questions(more)
        return explorer

    @classmethod
    def of_predictions(
        cls,
        predictions: Sequence[Prediction],
        quantities: Sequence[str] = QUANTITIES,
        *,
        networks: Sequence[nn.Module] = (),
    ) -> Explorer:
        """The explorer of predictions that are there: the same seeds and images under each treatment.

        `networks`: those of one study, one for each treatment in the order of the predictions, for their
        weights; without them no weights are shown.
        """
        own: dict[Treatment | Ablation, list[Prediction]] = {}
        for prediction in predictions:
            own.setdefault(prediction.treatment, []).append(prediction)
        if not own:
            raise BadInput("no prediction is given; expected some: `studies.predictions` makes them.")
        first = predictions[0]
        of_first = [p.study for p in own[first.treatment]]
        if any(
            [p.study for p in found] != of_first
            or any(
                not torch.equal(p.labels, first.labels) or len(p.groups) != len(first.groups) for p in found
            )
            for found in own.values()
        ):
            raise BadInput(
                "the predictions are of other seeds or images under one treatment than under another; "
                "expected the same throughout: pass what one call of `studies.predictions` returns."
            )
        named = dict(zip(own, networks, strict=True)) if networks else {}
        study = first.study
        about = f"{study.dataset.name}, {study.arch}, {study.dataset.image_size} pixels"
        return cls._made_of(
            [_Run(t, [p.logits for p in own[t]], named.get(t)) for t in _ordered(own)],
            _Images(first.labels.numpy(), first.groups.numpy(), first.group_names),
            quantities,
            about=about,
            seeds=[study.seed for study in of_first],
        )

    @classmethod
    def of_model(
        cls,
        network: nn.Module,
        images: Tensor,
        labels: Tensor | Sequence[int],
        groups: Any,
        *,
        group_names: Sequence[str] | None = None,
        treatments: Sequence[Treatment | str] = ("fp32", "int8", "int6", "int5", "int4", "int3", "int2"),
        quantities: Sequence[str] = QUANTITIES,
    ) -> Explorer:
        """The explorer of a network of your own, on images of your own.

        `images` are what the network takes, N x channels x height x width; of uint8, they are made float32
        about zero mean and unit variance, as everywhere in this book. `labels`: for each image the place of
        its class among the logits. `groups`: for each its group, as a number or a name; `group_names` names
        the numbers. `treatments`: of those that round weights alone.

        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
        >>> images, labels, groups = torch.rand(30, 3, 2, 2), torch.arange(30) % 3, ["a", "b"] * 15
        >>> explorer = Explorer.of_model(network, images, labels, groups, treatments=["int4"])
        >>> [group["n"] for group in explorer.data["groups"]]
        [15, 15]
        """
        _require_known(quantities)
        images_and_groups = _own_images(images, labels, groups, group_names)

        def run(treatment: Treatment | Ablation) -> _Run:
            treated = _rounded(network, treatment)
            return _Run(treatment, [_logits(treated, images)], treated if "weights" in quantities else None)

        def more(treatment: Treatment, report: _Report) -> Iterator[_Run]:
            report(f"{treatment.name}: {len(images):,} images", 0)
            yield run(treatment)

        runs = [run(treatment) for treatment in _ordered([FP32, *map(_parsed, treatments)])]
        explorer = cls._made_of(runs, images_and_groups, quantities, about=type(network).__name__, seeds=[])
        explorer._answer_questions(more)
        return explorer

    @classmethod
    def of_answers(
        cls,
        answers: Sequence[Answers],
        group: str,
        quantities: Sequence[str] = OF_ANSWERS,
        *,
        queries: Sequence[str] = (),
        top: int = 100,
        ask: Callable[[str], Sequence[Answers]] | None = None,
    ) -> Explorer:
        """The explorer of what dual encoders answer: the same encoders and images under each treatment.

        `group`: the attribute of the images that tells groups apart. `quantities`: those of `of` but weights,
        of the zero-shot answers; `rank`, the place of an image's best own caption among all captions, with
        recall@1, 5 and 10; and `place`, that of the image among all images for each neutral query, with the
        skew of each group among the first `top`. What the encoders were not asked is left out. `queries`
        names the queries in their order. Several encoders are counted together; skews are means over them.

        `ask` answers for another treatment, so that it can be asked for, such as
        `lambda name: populations.answers(asked, [name])`.
        """
        answers = list(answers)
        if not answers:
            raise BadInput("no answer is given; expected some: `populations.answers` makes them.")
        unknown = [name for name in quantities if name not in OF_ANSWERS]
        if unknown or isinstance(quantities, str) or not quantities:
            raise BadInput(f"quantities is {quantities!r}; expected some of {', '.join(OF_ANSWERS)}.")
        first = answers[0]
        own: dict[str, list[Answers]] = {}
        for one in answers:
            own.setdefault(one.treatment, []).append(one)
        models = [one.model for one in own[first.treatment]]
        for found in own.values():
            _require_alike(found, models, first)
        ranking = _Ranking.of(own[first.treatment], group, quantities, queries, top)
        zero_shot = [name for name in _ANSWERS if name in quantities and first.logits is not None]
        if not zero_shot and not ranking.described:
            raise BadInput(
                f"the encoders were asked nothing that tells of {', '.join(quantities)}; expected a label, "
                "captions or neutral queries: ask again, or choose other quantities."
            )
        codes, names = first.codes(group)
        labels = np.zeros(len(codes), np.int64) if first.label is None else first.codes(first.label)[0]

        def run(treatment: str, found: Sequence[Answers]) -> _Run:
            logits = [one.logits for one in found if one.logits is not None]
            return _Run(_Named(treatment), logits, ranked=ranking.places(found), tops=ranking.tops(found))

        explorer = cls._made_of(
            [run(treatment.name, own[treatment.name]) for treatment in _ordered(map(_Named, own))],
            _Images(labels, codes, names),
            zero_shot,
            about=models[0] if len(models) == 1 else "",
            seeds=list(range(len(models))),
            ranking=ranking,
        )
        if ask is not None:

            def more(treatment: _Named, report: _Report) -> Iterator[_Run]:
                report(f"{treatment.name}: {len(models)} encoder{'s' * (len(models) > 1)}", 0)
                found = list(ask(treatment.name))
                _require_alike(found, models, first)
                yield run(treatment.name, found)

            explorer._answer_questions(more, _linear)
        return explorer

    @classmethod
    def from_table(cls, densities: pd.DataFrame, *, seeds: int = 1, about: str = "") -> Explorer:
        """The explorer of a stored table of `tables.densities`, for images that may not be handed on.

        It knows the histograms alone, in the table's own bins: neither who flips, nor weights. Means and
        quartiles are those of the bins.
        """
        needed = ["measure", "treatment", "group", "n", "value", "density", "number"]
        missing = [name for name in needed if name not in densities]
        if missing or densities.empty:
            raise BadInput(
                f"the table lacks {', '.join(missing) or 'rows'}; expected what `tables.densities` returns."
            )
        order = _ordered(_named(name) for name in densities["treatment"].unique())
        groups = densities.drop_duplicates("number").sort_values("number")
        data: dict[str, Any] = {
            "about": about,
            "seeds": seeds,
            "networks": _NETWORKS,
            "groups": [
                _look(int(row["number"]), row["group"], int(row["n"]) // seeds)
                for row in groups.to_dict("records")
            ],
            "treatments": [treatment.name for treatment in order],
            "quantities": {},
            "counts": {},
            "summaries": {},
            "flows": {},
            "tops": {},
            "so_far": {},
        }
        for measure, table in densities.groupby("measure", sort=False):
            quantity = _ANSWERS[str(measure)]
            centres = table["value"].drop_duplicates().sort_values().to_numpy()
            centres = np.log10(centres) if quantity.is_logarithmic else centres
            half = (centres[-1] - centres[0]) / max(len(centres) - 1, 1) / 2
            bins = {"low": _short(centres[0] - half, 7), "high": _short(centres[-1] + half, 7)}
            data["quantities"][measure] = _described(quantity) | bins | {"bins": len(centres), "zero": None}
            counts, summaries = (
                data["counts"].setdefault(measure, {}),
                data["summaries"].setdefault(measure, {}),
            )
            for treatment in data["treatments"]:
                for number in groups["number"]:
                    own = table[(table["treatment"] == treatment) & (table["number"] == number)]
                    own = own.sort_values("value")
                    found = (own["density"] * own["n"]).round().astype(int).tolist() or [0] * len(centres)
                    counts.setdefault(treatment, []).append(_packed(found))
                    spread = np.repeat(centres, found) if any(found) else np.full(1, np.nan)
                    described = data["quantities"][measure]
                    summaries.setdefault(treatment, []).append(_summary(described, spread))
        return cls(data=data)

    @classmethod
    def _made_of(
        cls,
        runs: Sequence[_Run],
        images: _Images,
        quantities: Sequence[str],
        *,
        about: str,
        seeds: list[int],
        ranking: _Ranking | None = None,
    ) -> Explorer:
        if ranking is None:
            _require_known(quantities)
        answers = [name for name in _ANSWERS if name in quantities]
        measured = [_measured(run, images.labels) for run in runs]
        further = {} if ranking is None else ranking.described
        classes = runs[0].logits[0].shape[1] if answers else 0
        data: dict[str, Any] = {
            "about": about,
            "seeds": max(len(seeds), 1),
            "networks": _NETWORKS if ranking is None else ["encoder", "encoders"],
            "groups": [
                _look(code, images.names[code], int((images.groups == code).sum())) for code in images.present
            ],
            "treatments": [],
            "quantities": {
                name: _described(_ANSWERS[name])
                | _bins(_ANSWERS[name], [found[name] for found in measured], classes=classes)
                for name in answers
            }
            | further,
            "counts": {name: {} for name in (*answers, *further)},
            "summaries": {name: {} for name in (*answers, *further)},
            "flows": {},
            "tops": {} if ranking is None else ranking.heads,
            "so_far": {},
        }
        if runs[0].network is not None and "weights" in quantities:
            data["weights"] = _weights(runs[0].network) | {"seed": seeds[0] if seeds else None}
        explorer = cls()
        explorer._images, explorer._given = images, {}
        for run, found in zip(runs, measured, strict=True):
            explorer._take_in(data, run, found)
        explorer.data = data
        return explorer

    # ------------------------------------------------------------ what it can be asked

    def add(self, treatment: Treatment | str) -> None:
        """Measure another treatment, one that needs no training, and show it.

        It is shown as soon as the first network has answered; `data["so_far"]` says of how many it is.
        """
        if self._more is None:
            raise BadInput(
                "this explorer has no network to ask; make it by `Explorer.of` or `of_model`, or with `ask`."
            )
        wanted = self._understood(treatment)
        chosen = {"treatment": wanted.name, "after": wanted.name}
        before, view = self.data, self.view
        try:
            for run in [] if wanted.name in before["treatments"] else self._more(wanted, self._report):
                data = copy.deepcopy(before)  # traits tell of what is new, not of what was changed inside
                self._take_in(data, run, _measured(run, self._images.labels))
                with self.hold_sync():
                    self.data, self.view = data, {**self.view, **chosen}
        except BaseException:  # also when it is interrupted: half of an answer must not stay for a whole one
            self._given.pop(wanted.name, None)
            with self.hold_sync():
                self.data, self.view = before, view
            raise
        finally:
            self.busy = ""
        self.view = {**self.view, **chosen}

    def _answer_questions(self, more: _More, understood: Callable[[Any], Any] | None = None) -> None:
        self._more, self._understood, self.asks = more, understood or _rounding, True
        self.on_msg(self._heard)

    def _heard(self, _: Any, content: Any, buffers: Any = None) -> None:
        """What the page sends: the name of a treatment, or a bare width."""
        name = str(content.get("wanted", "") if isinstance(content, dict) else "").strip()
        self.answer = ""
        try:
            self._report(f"{name}: looking for it", 0)
            self.add(name)
        except BadInput as error:
            self.answer = " ".join(str(error).split())
        except Exception as error:
            self.answer = f"{name} could not be made: {' '.join(str(error).split()) or type(error).__name__}"
            raise
        finally:
            self.busy = ""

    def _report(self, text: str, done: float) -> None:
        with self.hold_sync():
            self.busy, self.done = text, done

    def _take_in(self, data: dict[str, Any], run: _Run, found: Mapping[str, NDArray[np.float64]]) -> None:
        """Add what was measured under one treatment to the data, at its place among the others."""
        images, name = self._images, run.treatment.name
        inside = [images.groups == code for code in images.present]
        for key, bins in data["quantities"].items():
            own = [found[key][:, of_group] for of_group in inside]
            data["counts"][key][name] = [_packed(_counted(values, bins)) for values in own]
            data["summaries"][key][name] = [_summary(bins, values) for values in own]
        for key, told in run.tops.items():
            data["tops"][key]["values"][name] = told
        if "weights" in data and run.network is not None:
            changed = isinstance(run.treatment, Ablation)
            own_grids = _grids(run.network, changed=changed) | {"trains": _trains(run.treatment)}
            data["weights"]["grids"][name] = own_grids
        if run.logits:
            given = np.stack([logits.argmax(1).numpy() for logits in run.logits])
            for before, answered in self._given.items():
                if before != name:
                    own_flow = _flow(answered[: len(given)], given, images, inside)
                    data["flows"].setdefault(before, {})[name] = own_flow
            self._given[name] = given
            if len(given) < data["seeds"]:
                data["so_far"][name] = len(given)
        names = _ordered([*map(_named, data["treatments"]), run.treatment])
        data["treatments"] = [treatment.name for treatment in names]

    # ------------------------------------------------------------ without scripts

    def fallback(self) -> str:
        """The margins of each group at full precision and under the last treatment, and tables of numbers."""
        quantities, treatments = self.data["quantities"], self.data["treatments"]
        key = "margin" if "margin" in quantities else next(iter(quantities))
        shown = list(dict.fromkeys([treatments[0], treatments[-1]]))
        # On paper a table for every query would bury what stands around it.
        tops = [_tops_table(self.data, key, shown) for key in [*self.data["tops"]][:_TABLES]]
        return _figure(self.data, key, shown) + _table(self.data, key, shown) + "".join(tops)


# ---------------------------------------------------------------- what is given


def _require_known(quantities: Sequence[str]) -> None:
    unknown = [name for name in quantities if name not in QUANTITIES]
    if unknown or isinstance(quantities, str) or not any(name in _ANSWERS for name in quantities):
        raise BadInput(
            f"quantities is {quantities!r}; expected some of {', '.join(QUANTITIES)}, and not weights alone."
        )


def _parsed(treatment: Treatment | Ablation | str) -> Treatment | Ablation:
    """The treatment of that name; a bare width is that of an int."""
    if not isinstance(treatment, str):
        return treatment
    name = treatment.strip()
    return Treatment.parse(f"int{name}" if name.isdecimal() else name)


def _rounding(treatment: Treatment | str) -> Treatment:
    """The treatment of that name, which must not need training."""
    wanted = _parsed(treatment)
    if not isinstance(wanted, Treatment) or wanted.trains:
        raise BadInput(
            f"treatment is {wanted.name!r}, which trains a network; expected one that only rounds, such "
            "as int5: name the others where you make the explorer."
        )
    return wanted


@dataclass(frozen=True)
class _Named:
    """A treatment of which the name is all that is known: it was added before, or treats linear layers."""

    name: str


def _linear(treatment: str) -> _Named:
    """That of linear layers that has this name; a bare width is that of an int."""
    name = str(treatment).strip()
    name = f"int{name}" if name.isdecimal() else name
    runs(name)  # refuses a name that it does not know
    return _Named(name)


def _named(name: str) -> Treatment | _Named:
    try:
        return Treatment.parse(name)
    except BadInput:  # an ablation, whose name does not parse back
        return _Named(name)


def _ordered(treatments: Iterable[Any]) -> list[Any]:
    """Each once, from full precision to the fewest bits of a weight; those of equal width as they came."""
    once = {treatment.name: treatment for treatment in treatments}
    return sorted(once.values(), key=lambda treatment: -_bits(treatment))


_WIDTHS = {"fp32": 32, "fp16": 16, "bf16": 16, "fp8": 8, "nf4": 4}


def _bits(treatment: Any) -> float:
    if isinstance(treatment, _Named):  # int4-midrise, or bnb-nf4
        parts = [_named(part) for part in treatment.name.split("-")]
        return next((_bits(part) for part in parts if not isinstance(part, _Named)), 0)
    if isinstance(treatment, Ablation):
        return _bits(treatment.treatment)
    return 33 if treatment == FP32 else treatment.bits or _WIDTHS[treatment.format]


def _trains(treatment: Treatment | Ablation | _Named) -> bool:
    return isinstance(treatment, Treatment) and treatment.trains


def _rounded(network: nn.Module, treatment: Treatment | Ablation) -> nn.Module:
    """A network of somebody's own under a treatment, for which there are no images to train on."""
    if isinstance(treatment, Ablation):
        return treatment.apply(network)
    if treatment.trains or treatment.activations or treatment.batchnorm:
        raise BadInput(
            f"treatment is {treatment.name!r}, which needs training images; expected one that rounds weights "
            "alone, such as int4-channel."
        )
    if treatment.quantizer is None:
        return network
    return bake(quantize_model(network, treatment.quantizer, first_last=8 if treatment.ends8 else None))


@torch.no_grad()
def _logits(network: nn.Module, images: Tensor) -> Tensor:
    if images.dtype == torch.uint8:
        return predict(network, images)
    device, was_training = next(network.parameters(), images).device, network.training
    network.eval()
    try:
        with AsProducts():
            return torch.cat([network(batch.to(device)).float().cpu() for batch in images.split(250)])
    finally:
        network.train(was_training)


def _own_images(images: Tensor, labels: Any, groups: Any, names: Sequence[str] | None) -> _Images:
    classes, codes = (
        given.cpu().numpy() if isinstance(given, Tensor) else np.asarray(given) for given in (labels, groups)
    )
    if not len(images) == len(classes) == len(codes) or not len(images):
        raise BadInput(
            f"{len(images)} images come with {len(classes)} labels and {len(codes)} groups; expected one of "
            "each for every image, and at least one image."
        )
    if names is None:
        known, codes = np.unique(codes, return_inverse=True)
        names = [str(name) for name in known]
    elif not np.issubdtype(codes.dtype, np.integer):
        places = {name: place for place, name in enumerate(names)}
        codes = np.array([places.get(name, -1) for name in codes.tolist()])
    if codes.min() < 0 or codes.max() >= len(names):
        raise BadInput(f"a group is not among the group_names {list(names)}; correct it or add its name.")
    return _Images(classes, codes.astype(np.int64), names)


def _require_alike(found: Sequence[Answers], models: Sequence[str], first: Answers) -> None:
    """The same encoders in the same order, each once, asked the same of the same images as the first."""
    asked = ("logits", "to_text", "to_image", "queries")
    if (
        [one.model for one in found] != list(models)
        or len(set(models)) < len(models)
        or any(
            not one.attributes.equals(first.attributes)
            or [getattr(one, part) is None for part in asked]
            != [getattr(first, part) is None for part in asked]
            for one in found
        )
    ):
        raise BadInput(
            "the answers are of other encoders, images or questions under one treatment than under another, "
            "or an encoder is there twice; expected the same throughout: pass what one call of "
            "`populations.answers` returns."
        )


@dataclass(frozen=True, eq=False)
class _Ranking:
    """What retrieval and neutral queries put first: the places of images, and what the groups get of them."""

    group: str
    top: int
    rank: bool
    queries: int
    described: dict[str, dict[str, Any]]
    heads: dict[str, dict[str, Any]]

    @classmethod
    def of(
        cls,
        found: Sequence[Answers],
        group: str,
        quantities: Sequence[str],
        queries: Sequence[str],
        top: int,
    ) -> _Ranking:
        """What can be told of answers such as these."""
        first = found[0]
        ranks = "rank" in quantities and first.to_text is not None and first.to_image is not None
        asked = len(first.queries) if "place" in quantities and first.queries is not None else 0
        if queries and asked and len(queries) != asked:
            raise BadInput(
                f"queries names {len(queries)}, and the encoders were asked {asked}; expected each to be "
                "named, in the order in which it was asked."
            )
        described: dict[str, dict[str, Any]] = {}
        heads: dict[str, dict[str, Any]] = {}
        if ranks:
            assert first.to_image is not None
            ends = {
                "low": _short(math.log10(0.5), 7),
                "high": _short(math.log10(len(first.to_image) + 0.5), 7),
            }
            lines = [_short(math.log10(k + 0.5), 7) for k in _RECALLS]
            described["rank"] = _described(_RANK) | ends | {"bins": BINS, "zero": None, "lines": lines}
            described["rank"]["lined"] = f"lines: first {', '.join(map(str, _RECALLS))}"
            recalls = [{"name": f"recall@{k}", "unit": "%", "factor": 100} for k in _RECALLS]
            heads["rank"] = {"name": "Recall", "heads": recalls, "rows": ["all images"], "values": {}}
        if asked:
            skews = encoders_tables.skews(found[:1], group, top=top)  # refuses a top that is too long
            bins = _bins_of_places(len(first.attributes))
            for number in range(asked):
                name = f"“{queries[number]}”" if queries else f"query {number + 1}"
                quantity = _Quantity(f"place for {name}", closed=True, whole=True)
                key = f"place{number + 1}"
                line = {"lines": [top + 0.5], "lined": f"line: first {top}", "axis": "place in the ranking"}
                described[key] = _described(quantity) | bins | line
                heads[key] = {
                    "name": f"The first {top} for {name}",
                    "heads": [
                        {"name": f"share of the first {top}", "unit": "%", "factor": 100},
                        {"name": "share of all", "unit": "%", "factor": 100},
                        {"name": "skew", "unit": "nats", "factor": 1},
                    ],
                    "rows": skews["measure"].unique().tolist(),
                    "values": {},
                }
        return cls(group, top, ranks, asked, described, heads)

    def places(self, found: Sequence[Answers]) -> dict[str, NDArray[np.float64]]:
        """The logarithm of each rank, and the place for each query: encoders by images."""
        told = {}
        if self.rank:
            told["rank"] = np.log10(np.stack([_numbers(one.to_text) for one in found]))
        for number in range(self.queries):
            told[f"place{number + 1}"] = np.stack([_places(_numbers(one.queries)[number]) for one in found])
        return told

    def tops(self, found: Sequence[Answers]) -> dict[str, list[list[float | None]]]:
        """Recall of each group and of all; shares and skew of each group, and the skews over all groups."""
        codes, _ = found[0].codes(self.group)
        inside = [codes == code for code in np.unique(codes)]
        told: dict[str, list[list[float | None]]] = {}
        if self.rank:
            hits = np.stack([_numbers(one.to_text) <= np.array(_RECALLS)[:, None] for one in found])
            everyone = np.ones(len(codes), dtype=bool)
            told["rank"] = [
                [_short(hit[:, own].mean()) for hit in hits.swapaxes(0, 1)] for own in (*inside, everyone)
            ]
        if not self.queries:
            return told
        skews = encoders_tables.skews(found, self.group, top=self.top)
        means = skews.groupby(["query", "measure"], sort=False)["value"].mean()
        for number in range(self.queries):
            ahead = [_places(_numbers(one.queries)[number]) <= self.top for one in found]
            rows: list[list[float | None]] = []
            for own in inside:
                counts, due = np.array([(first & own).sum() for first in ahead]), own.mean()
                skew = np.log(np.maximum(counts, 0.5) / self.top / due).mean()  # as in `populations.skews`
                rows.append([_short(counts.mean() / self.top), _short(due), _short(skew)])
            told[f"place{number + 1}"] = rows + [[None, None, _short(value)] for value in means[number]]
        return told


def _numbers(tensor: Tensor | None) -> NDArray[Any]:
    assert tensor is not None
    return tensor.numpy()


def _places(close: NDArray[Any]) -> NDArray[np.float64]:
    """The place of each image, the closest first; those that are equally close keep their order.

    >>> _places(np.array([0.1, 0.7, 0.1]))
    array([2., 1., 3.])
    """
    places = np.empty(len(close))
    places[np.argsort(-close, kind="stable")] = np.arange(1, len(close) + 1)
    return places


def _bins_of_places(count: int) -> dict[str, Any]:
    """Bins of a round number of places each, and of a number that can be halved twice.

    >>> _bins_of_places(1000)
    {'low': 0.5, 'high': 1000.5, 'bins': 100, 'zero': None}
    """
    step = next(10**power * x for power in range(9) for x in (1, 2, 5) if 10**power * x * BINS >= count)
    bins = 4 * math.ceil(count / step / 4)
    return {"low": 0.5, "high": bins * step + 0.5, "bins": bins, "zero": None}


# ---------------------------------------------------------------- what is counted


def _measured(run: _Run, labels: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """Each quantity of single images, seeds by images; the logarithm of those that are spaced by it."""
    if not run.logits:
        return dict(run.ranked)
    tables = []
    for of_seed in run.logits:
        table = metrics_groups.example_metrics(of_seed, labels)
        tables.append(table.assign(logit=of_seed.double().numpy()[np.arange(len(labels)), labels]))
    found = {name: np.stack([table[name].to_numpy() for table in tables]) for name in _ANSWERS}
    floors = {name: quantity.floor for name, quantity in _ANSWERS.items() if quantity.floor is not None}
    spaced = {name: np.log10(found[name].clip(floor)) for name, floor in floors.items()}
    return found | spaced | dict(run.ranked)


def _bins(quantity: _Quantity, values: Sequence[NDArray[np.float64]], *, classes: int) -> dict[str, Any]:
    """Bins for all treatments, of which the first values are those of full precision."""
    if quantity.closed:
        return {"low": 1 / classes, "high": 1.0, "bins": BINS, "zero": None}
    low, high = np.quantile(values[0], [0.005, 0.995])
    # A treatment under which logits explode must not press all others into a single bin.
    room = 2 * (high - low)
    ends = np.array([np.quantile(own, [0.005, 0.995]) for own in values])
    low, high = max(low - room, ends[:, 0].min()), min(high + room, ends[:, 1].max())
    if quantity.signed:
        return _bins_around_zero(low, high)
    low, high = math.floor(100 * low) / 100, math.ceil(100 * high) / 100
    return {"low": low, "high": max(high, low + 0.01), "bins": BINS, "zero": None}


def _bins_around_zero(low: float, high: float) -> dict[str, Any]:
    """The finest bins of a round width that reach from low to high, and have an edge at zero.

    >>> _bins_around_zero(-5.1, 11.3)
    {'low': -6.0, 'high': 12.0, 'bins': 144, 'zero': 48}
    """
    blocks = BINS // _BLOCK

    def step_needed(reach: float, blocks: int) -> float:
        return 0.0 if reach <= 0 else reach / (blocks * _BLOCK) if blocks else math.inf

    steps = [max(step_needed(-low, n), step_needed(high, blocks - n)) for n in range(blocks + 1)]
    below = int(np.argmin(steps))
    step = _round_up(max(steps[below], 1e-6))
    low, high = -step * below * _BLOCK, step * (blocks - below) * _BLOCK
    return {"low": _short(low, 9), "high": _short(high, 9), "bins": BINS, "zero": below * _BLOCK}


def _round_up(step: float) -> float:
    """The next round number.

    >>> _round_up(0.117), _round_up(3.1)
    (0.125, 4.0)
    """
    power = 10.0 ** math.floor(math.log10(step))
    return next(_short(power * x, 6) for x in (1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if power * x >= step)


def _counted(values: NDArray[np.float64], bins: Mapping[str, Any]) -> list[int]:
    """How many values lie in each bin; those beyond an end lie in the last bin before it."""
    ends = (bins["low"], bins["high"])
    return np.histogram(values.clip(*ends), bins=bins["bins"], range=ends)[0].tolist()


def _packed(counts: Iterable[int]) -> list[int]:
    """The counts, with a negative number for so many zeros in a row.

    >>> _packed([0, 0, 0, 5, 2, 0, 1])
    [-3, 5, 2, -1, 1]
    """
    packed: list[int] = []
    for count in counts:
        if count:
            packed.append(count)
        elif packed and packed[-1] < 0:
            packed[-1] -= 1
        else:
            packed.append(-1)
    return packed


def _unpacked(packed: Iterable[int]) -> list[int]:
    return [count for part in packed for count in ([part] if part > 0 else [0] * -part)]


def _summary(quantity: Mapping[str, Any], values: NDArray[np.float64]) -> list[float | None]:
    """Mean and quartiles, of what the values stand for."""
    quartiles = np.quantile(values, [0.25, 0.5, 0.75])
    if not quantity["log"]:
        found = [values.mean(), *quartiles]
    elif quantity["mean"] == "geometric mean":
        found = [10 ** values.mean(), *10**quartiles]
    else:
        found = [(10**values).mean(), *10**quartiles]
    return [_short(number) if math.isfinite(number) else None for number in found]


def _flow(
    before: NDArray[np.int64], after: NDArray[np.int64], images: _Images, inside: Sequence[NDArray[np.bool_]]
) -> list[list[int]]:
    """For each group how many answers stay right, become wrong, become right, become wrong otherwise."""
    was, is_now = before == images.labels, after == images.labels
    parts = (was & is_now, was & ~is_now, ~was & is_now, ~was & ~is_now & (before != after))
    return [[int(part[:, of_group].sum()) for part in parts] for of_group in inside]


def _described(quantity: _Quantity) -> dict[str, Any]:
    return {
        "name": quantity.name,
        "unit": quantity.unit,
        "factor": quantity.factor,
        "log": quantity.is_logarithmic,
        "mean": quantity.mean,
        "closed": quantity.closed,
        "whole": quantity.whole,
    }


def _look(number: int, name: str, size: int) -> dict[str, Any]:
    looks = {"colour": COLOURS[number % len(COLOURS)], "mark": MARKS[number % len(MARKS)]}
    return {"name": str(name), "n": size} | looks


def _short(number: float, digits: int = 4) -> float:
    return float(f"{number:.{digits}g}")


# ---------------------------------------------------------------- weights


@torch.no_grad()
def _weights(network: nn.Module) -> dict[str, Any]:
    """A histogram of each layer's weights, from minus to plus the largest magnitude."""
    found = []
    for layer in layers(network):
        weight = network.get_parameter(layer).detach().cpu().float()
        reach = _short(float(weight.abs().max()) or 1.0, 9)
        counts = torch.histc(weight, BINS, -reach, reach).int().tolist()
        found.append({"name": layer.removesuffix(".weight"), "reach": reach, "counts": _packed(counts)})
    return {"layers": found, "grids": {}}


def _grids(network: nn.Module, *, changed: bool) -> dict[str, Any]:
    """Of each layer of a treated network the values of its grid, the bin of zero, and how much is zero.

    Values are there when a layer has one grid, and few enough of them; else there is only their number, and
    that is 0 where grids differ within a layer, or where weights are `changed` in another way.
    """
    shares, of_layer = zero_share(network), grids(network)
    found = []
    for layer in layers(network):
        values = _values(of_layer[layer]) if layer in of_layer else None
        about: dict[str, Any] = {"zeros": _short(float(shares[layer]), 6)}
        if values is not None:
            about |= {"size": len(values), "values": values if len(values) <= _DRAWN_VALUES else []}
            if 0.0 in values:
                place = values.index(0.0)
                ends = [values[max(place - 1, 0)] / 2, values[min(place + 1, len(values) - 1)] / 2]
                about["zero"] = [_short(end, 5) for end in ends]
            about["values"] = [_short(value, 5) for value in about["values"]]
        elif layer in of_layer or changed:
            about["size"] = 0
        found.append(about)
    return {"layers": found}


def _values(grid: Grid) -> list[float] | None:
    """All values of a grid that is the same for the whole tensor."""
    if isinstance(grid, UniformGrid) and grid.scale.numel() == 1:
        return grid.dequantize(torch.arange(grid.lowest, grid.highest + 1)).tolist()
    if isinstance(grid, LookupGrid) and grid.axis is None and grid.block is None:
        return grid.dequantize(torch.arange(grid.levels.numel())).tolist()
    return None


# ---------------------------------------------------------------- the figure and table that need no script

_PANEL, _HEIGHT, _GAP = 240, 44, 34  # units of the drawing


def _figure(data: Mapping[str, Any], key: str, shown: Sequence[str]) -> str:
    """A row for each group, a column for each treatment: histograms in the ink of the page."""
    quantity = data["quantities"][key]
    merge = max(1, quantity["bins"] // 36)
    panels, said = [], []
    shares = {
        name: [_merged(_unpacked(packed), merge) for packed in data["counts"][key][name]] for name in shown
    }
    for column, name in enumerate(shown):
        # A collapsed network's answers are a spike, beside which all others would vanish.
        top = max(float(share.max()) for share in shares[name]) or 1.0
        x = column * (_PANEL + 20)
        panels.append(f'<text x="{x}" y="12" font-weight="bold">{html.escape(name)}</text>')
        for row, (group, share) in enumerate(zip(data["groups"], shares[name], strict=True)):
            foot = 18 + row * (_HEIGHT + _GAP) + _GAP / 2 + _HEIGHT
            width = _PANEL / len(share)
            steps = "".join(f"V{foot - _HEIGHT * own / top:.1f}h{width:.2f}" for own in share)
            panels.append(
                f'<path d="M{x},{foot}{steps}V{foot}Z" fill="{group["colour"]}"/>'
                f'<path d="M{x},{foot}h{_PANEL}" stroke="currentColor"/>'
                f'<text x="{x}" y="{foot - _HEIGHT - 4:.0f}">{html.escape(group["name"])}</text>'
                + "".join(
                    f'<text x="{x + at * _PANEL:.0f}" y="{foot + 13}" text-anchor="{anchor}" '
                    f'font-size="10">{_end(quantity, at)}</text>'
                    for at, anchor in ((0, "start"), (1, "end"))
                )
            )
            if quantity["zero"]:
                at = x + _PANEL * quantity["zero"] / quantity["bins"]
                panels.append(f'<path d="M{at:.1f},{foot + 3}v{-_HEIGHT - 3}" stroke="currentColor"/>')
    medians = {
        name: _said(quantity, [summary[2] for summary in data["summaries"][key][name]]) for name in shown
    }
    for place, group in enumerate(data["groups"]):
        said.append(f"{group['name']}: {', '.join(f'{name} {medians[name][place]}' for name in shown)}.")
    alt = f"Histograms of {quantity['name']} under {' and '.join(shown)}; medians. {' '.join(said)}"
    wide = len(shown) * (_PANEL + 20) - 20
    high = 18 + len(data["groups"]) * (_HEIGHT + _GAP)
    line = " The line is at 0: wrong answers lie left of it." if key == "margin" and quantity["zero"] else ""
    beyond = "" if quantity["closed"] else " What lies beyond an end is heaped at it."
    box = f'viewBox="-2 0 {wide + 4} {high}" style="width:100%;height:auto;max-width:{wide}px"'
    caption = (
        f"{quantity['name'].capitalize()} of each group as a share of its answers. {_extent(data)} Each "
        f"column has a height of its own.{beyond}{line}"
    )
    return (
        f'<figure class="fairq-figure"><svg role="img" aria-label="{html.escape(alt)}" {box} font-size="12" '
        'font-family="sans-serif" fill="currentColor" xmlns="http://www.w3.org/2000/svg">'
        f"{''.join(panels)}</svg><figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def _merged(counts: Sequence[int], merge: int) -> NDArray[np.float64]:
    """Shares in bins that are so many times as wide."""
    merged = np.array(counts, dtype=float).reshape(-1, merge).sum(axis=1)
    return merged / max(merged.sum(), 1)


def _end(quantity: Mapping[str, Any], at: int) -> str:
    end = quantity["high" if at else "low"]
    unit = f" {quantity['unit']}" if quantity["unit"] else ""
    return f"{quantity['factor'] * (10**end if quantity['log'] else end):.3g}{unit}".replace("-", "−")


def _said(quantity: Mapping[str, Any], values: Sequence[float | None]) -> list[str]:
    """Values of a quantity that stand together, with as many decimals each, as the script says them.

    The largest has three digits; where powers of ten are spanned, the smallest has two.

    >>> _said({"factor": 1, "unit": "nats"}, [2.4, 0.956, None])
    ['2.40 nats', '0.96 nats', '—']
    """
    found = [None if value is None else quantity["factor"] * value for value in values]
    sizes = [abs(value) for value in found if value]
    if all(size % 1 == 0 for size in sizes):
        decimals = 0
    else:
        needed = 1 - _power(min(sizes)) if quantity.get("log") else 2 - _power(max(sizes))
        decimals = min(max(needed, 0), _MOST_DECIMALS)
    unit = f" {quantity['unit']}" if quantity["unit"] else ""
    return ["—" if value is None else f"{_fixed(value, decimals)}{unit}" for value in found]


def _power(size: float) -> int:
    return math.floor(math.log10(size))


def _fixed(value: float, decimals: int) -> str:
    """With so many decimals; as a power of ten where that would be endless, or leave nothing.

    >>> _fixed(-0.001, 2), _fixed(1.2e-05, 4), _fixed(1234.5, 1)
    ('0.00', '1.2e−05', '1,234.5')
    """
    size = abs(value)
    endless = size >= 1e7 or (0 < size < 1e-4 and decimals == _MOST_DECIMALS)
    text = f"{value:.2g}" if endless else f"{round(value, decimals) + 0.0:,.{decimals}f}"
    return text.replace("-", "−")


def _extent(data: Mapping[str, Any]) -> str:
    """How much was looked at."""
    seeds, images = data["seeds"], sum(group["n"] for group in data["groups"])
    return f"{seeds} {data['networks'][seeds > 1]}, {images:,} images."


def _table(data: Mapping[str, Any], key: str, shown: Sequence[str]) -> str:
    quantity = data["quantities"][key]
    heads = ["group", "images", "treatment", quantity["mean"], "lower quartile", "median", "upper quartile"]
    stubs = [[group["name"], f"{group['n']:,}", name] for group in data["groups"] for name in shown]
    summaries = [
        data["summaries"][key][name][place] for place in range(len(data["groups"])) for name in shown
    ]
    columns = [_said(quantity, column) for column in zip(*summaries, strict=True)]
    rows = [[*stub, *cells] for stub, *cells in zip(stubs, *columns, strict=True)]
    return _html_table(f"{quantity['name'].capitalize()} by group", heads, rows)


def _tops_table(data: Mapping[str, Any], key: str, shown: Sequence[str]) -> str:
    told = data["tops"][key]
    names = [*(group["name"] for group in data["groups"]), *told["rows"]]
    stubs = [[name, treatment] for name in names for treatment in shown]
    values = [told["values"][treatment][place] for place in range(len(names)) for treatment in shown]
    columns = [
        _said(head, column) for head, column in zip(told["heads"], zip(*values, strict=True), strict=True)
    ]
    rows = [[*stub, *cells] for stub, *cells in zip(stubs, *columns, strict=True)]
    return _html_table(told["name"], ["group", "treatment", *(head["name"] for head in told["heads"])], rows)


def _html_table(name: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{html.escape(text)}</th>' for text in heads)
    body = "".join(
        f'<tr><th scope="row">{html.escape(first)}</th>'
        + "".join(f"<td>{html.escape(text)}</td>" for text in rest)
        + "</tr>"
        for first, *rest in rows
    )
    caption = f"<caption>{html.escape(name)}</caption>"
    table = f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div style="overflow-x:auto">{table}</div>'
