"""Explore how the answers of each group are spread, and who flips: in a notebook and on a published page."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
import traitlets
from numpy.typing import NDArray
from torch import Tensor, nn

from fairq_audit.formats import look
from fairq_audit.page_scripts import SCRIPTS, joined
from fairq_book.experiments import studies
from fairq_book.experiments.store import Store
from fairq_book.experiments.studies import Prediction, Study
from fairq_book.explorer.counts import counted, flow_of, packed, summary_of, values_of
from fairq_book.explorer.fallback import figure_of, table_of, table_of_tops
from fairq_book.explorer.given import Images, Run, own_images, require_alike
from fairq_book.explorer.quantities import (
    ANSWERS,
    OF_ANSWERS,
    QUANTITIES,
    bins_for,
    described_as,
    require_known,
    short,
)
from fairq_book.explorer.ranking import Ranking
from fairq_book.explorer.treated import logits_of, of_linear_layers, ordered, parsed, rounded, rounding
from fairq_book.explorer.weights import grids_of, weights_of
from fairq_book.widgets import PageWidget
from fairq_utils.encoders.questions import EncoderOutputs
from fairq_utils.errors import BadInput
from fairq_utils.treatments.ablations import Ablation
from fairq_utils.treatments.treatment import FP32, Treatment

_TABLES = 3  # of recall and the first queries, where no script runs
_NETWORKS = ["network", "networks (seeds)"]  # one, and several

_Report = Callable[[str, float], None]  # what is being done, and how much of all is done before it
_More = Callable[[Any, _Report], Iterator[Run]]  # each run is of one network more than the last


class Explorer(PageWidget):
    """Histograms of what networks answer, for each group and treatment; the flow of answers; and weights.

    Made by `of`, `of_model`, `of_predictions`, `of_answers` or `from_table`. `view` says what is shown; what
    it leaves out is as at the beginning. With a kernel, and where there is a network to ask, another
    treatment can be added: by its name in the widget, or by `add`.

    Of dual encoders it also says who is found. Three lines show recall and skew by group and treatment, of
    all encoders of a population together::

        asked = populations.population(seeds=[0])
        answers = populations.answers(asked, ["fp32", "int4"])
        Explorer.of_answers(answers, "species", queries=asked[0].grammar.queries)
    """

    kind: ClassVar[str] = "explorer"
    _esm = joined(SCRIPTS / "explorer.js")
    _css = SCRIPTS / "explorer.css"

    data = traitlets.Dict(help="What is embedded: bins, counts, flows, weights.").tag(sync=True)
    view = traitlets.Dict(help="What is shown: quantity, treatment, bins ...").tag(sync=True)
    asks = traitlets.Bool(False, help="Whether another treatment can be asked for.").tag(sync=True)
    busy = traitlets.Unicode("", help="What is being computed.").tag(sync=True)
    done = traitlets.Float(0.0, help="How much of it is done, from 0 to 1.").tag(sync=True)
    answer = traitlets.Unicode("", help="Why what was asked for did not come.").tag(sync=True)

    _more: _More | None = None
    _understood: Callable[[Any], Any]
    _images: Images
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
        require_known(quantities)
        chosen = _chosen(treatments)
        first = trained[:1] if "weights" in quantities else []
        explorer = cls.of_predictions(
            studies.predictions(trained, chosen, store=store),
            quantities,
            networks=studies.networks(first, chosen, store=store),
        )

        def more(treatment: Treatment, report: _Report) -> Iterator[Run]:
            logits: list[Tensor] = []
            treated: list[nn.Module] = []
            for number, study in enumerate(trained):
                report(f"{treatment.name}: network {number + 1} of {len(trained)}", number / len(trained))
                (prediction,) = studies.predictions([study], [treatment], store=store)
                logits.append(prediction.logits)
                treated = treated or studies.networks(first, [treatment], store=store)
                yield Run(treatment, logits, treated[0] if treated else None)

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
        own: dict[str, list[Prediction]] = {}
        for prediction in predictions:
            own.setdefault(prediction.treatment.name, []).append(prediction)
        if not own:
            raise BadInput("no prediction is given; expected some: `studies.predictions` makes them.")
        first = predictions[0]
        beside = own[first.treatment.name]
        of_first = [p.study for p in beside]
        if any(
            [p.study for p in found] != of_first
            or any(not torch.equal(p.labels, b.labels) for p, b in zip(found, beside, strict=True))
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
            [
                Run(own[name][0].treatment, [p.logits for p in own[name]], named.get(name))
                for name in ordered(own)
            ],
            Images([p.labels.numpy() for p in beside], [p.groups.numpy() for p in beside], first.group_names),
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
        require_known(quantities)
        images_and_groups = own_images(images, labels, groups, group_names)

        def run(treatment: Treatment | Ablation) -> Run:
            treated = rounded(network, treatment)
            return Run(treatment, [logits_of(treated, images)], treated if "weights" in quantities else None)

        def more(treatment: Treatment, report: _Report) -> Iterator[Run]:
            report(f"{treatment.name}: {len(images):,} images", 0)
            yield run(treatment)

        runs = [run(treatment) for treatment in _chosen(treatments)]
        explorer = cls._made_of(runs, images_and_groups, quantities, about=type(network).__name__, seeds=[])
        explorer._answer_questions(more)
        return explorer

    @classmethod
    def of_answers(
        cls,
        answers: Sequence[EncoderOutputs],
        group: str,
        quantities: Sequence[str] = OF_ANSWERS,
        *,
        queries: Sequence[str] = (),
        top: int = 100,
        ask: Callable[[str], Sequence[EncoderOutputs]] | None = None,
    ) -> Explorer:
        """The explorer of what dual encoders answer: the same encoders and images under each treatment.

        All encoders are asked of the same images, for ranks are told among these: give seeds of one draw.
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
        own: dict[str, list[EncoderOutputs]] = {}
        for one in answers:
            own.setdefault(one.treatment, []).append(one)
        models = [one.model for one in own[first.treatment]]
        for found in own.values():
            require_alike(found, models, first)
        ranking = Ranking.of(own[first.treatment], group, quantities, queries, top)
        zero_shot = [name for name in ANSWERS if name in quantities and first.logits is not None]
        if not zero_shot and not ranking.described:
            raise BadInput(
                f"the encoders were asked nothing that tells of {', '.join(quantities)}; expected a label, "
                "captions or neutral queries: ask again, or choose other quantities."
            )
        codes, names = first.codes(group)
        labels = np.zeros(len(codes), np.int64) if first.label is None else first.codes(first.label)[0]

        def run(treatment: str, found: Sequence[EncoderOutputs]) -> Run:
            logits = [one.logits for one in found if one.logits is not None]
            return Run(treatment, logits, ranked=ranking.places(found), tops=ranking.tops(found))

        explorer = cls._made_of(
            [run(name, own[name]) for name in ordered(own)],
            Images([labels] * len(models), [codes] * len(models), names),
            zero_shot,
            about=models[0] if len(models) == 1 else "",
            seeds=list(range(len(models))),
            ranking=ranking,
        )
        if ask is not None:

            def more(treatment: str, report: _Report) -> Iterator[Run]:
                report(f"{treatment}: {len(models)} encoder{'s' * (len(models) > 1)}", 0)
                found = list(ask(treatment))
                require_alike(found, models, first)
                yield run(treatment, found)

            explorer._answer_questions(more, of_linear_layers)
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
        groups = densities.drop_duplicates("number").sort_values("number")
        data: dict[str, Any] = {
            "about": about,
            "seeds": seeds,
            "networks": _NETWORKS,
            "groups": [
                _look(int(row["number"]), row["group"], int(row["n"]) // seeds)
                for row in groups.to_dict("records")
            ],
            "treatments": ordered(densities["treatment"].unique()),
            "quantities": {},
            "counts": {},
            "summaries": {},
            "flows": {},
            "tops": {},
            "so_far": {},
        }
        for measure, table in densities.groupby("measure", sort=False):
            quantity = ANSWERS[str(measure)]
            centres = table["value"].drop_duplicates().sort_values().to_numpy()
            centres = np.log10(centres) if quantity.is_logarithmic else centres
            half = (centres[-1] - centres[0]) / max(len(centres) - 1, 1) / 2
            bins = {"low": short(centres[0] - half, 7), "high": short(centres[-1] + half, 7)}
            data["quantities"][measure] = described_as(quantity) | bins | {"bins": len(centres), "zero": None}
            counts, summaries = (
                data["counts"].setdefault(measure, {}),
                data["summaries"].setdefault(measure, {}),
            )
            for treatment in data["treatments"]:
                for number in groups["number"]:
                    own = table[(table["treatment"] == treatment) & (table["number"] == number)]
                    own = own.sort_values("value")
                    found = (own["density"] * own["n"]).round().astype(int).tolist() or [0] * len(centres)
                    counts.setdefault(treatment, []).append(packed(found))
                    spread = np.repeat(centres, found) if any(found) else np.full(1, np.nan)
                    described = data["quantities"][measure]
                    summaries.setdefault(treatment, []).append(summary_of(described, spread))
        return cls(data=data)

    @classmethod
    def _made_of(
        cls,
        runs: Sequence[Run],
        images: Images,
        quantities: Sequence[str],
        *,
        about: str,
        seeds: list[int],
        ranking: Ranking | None = None,
    ) -> Explorer:
        if ranking is None:
            require_known(quantities)
        answers = [name for name in ANSWERS if name in quantities]
        measured = [values_of(run, images) for run in runs]
        further = {} if ranking is None else ranking.described
        classes = runs[0].logits[0].shape[1] if answers else 0
        data: dict[str, Any] = {
            "about": about,
            "seeds": max(len(seeds), 1),
            "networks": _NETWORKS if ranking is None else ["encoder", "encoders"],
            "groups": [
                _look(code, images.names[code], images.each(code)) | {"answers": images.answers(code)}
                for code in images.present
            ],
            "treatments": [],
            "quantities": {
                name: described_as(ANSWERS[name])
                | bins_for(ANSWERS[name], [found[name] for found in measured], classes=classes)
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
            data["weights"] = weights_of(runs[0].network) | {"seed": seeds[0] if seeds else None}
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
        name = wanted if isinstance(wanted, str) else wanted.name
        chosen = {"treatment": name, "after": name}
        before, view = self.data, self.view
        try:
            for run in [] if name in before["treatments"] else self._more(wanted, self._report):
                data = copy.deepcopy(before)  # traits tell of what is new, not of what was changed inside
                self._take_in(data, run, values_of(run, self._images))
                with self.hold_sync():
                    self.data, self.view = data, {**self.view, **chosen}
        except BaseException:  # also when it is interrupted: half of an answer must not stay for a whole one
            self._given.pop(name, None)
            with self.hold_sync():
                self.data, self.view = before, view
            raise
        finally:
            self.busy = ""
        self.view = {**self.view, **chosen}

    def _answer_questions(self, more: _More, understood: Callable[[Any], Any] | None = None) -> None:
        self._more, self._understood, self.asks = more, understood or rounding, True
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

    def _take_in(self, data: dict[str, Any], run: Run, found: Mapping[str, NDArray[np.float64]]) -> None:
        """Add what was measured under one treatment to the data, at its place among the others."""
        images, name = self._images, run.name
        networks = len(run.logits) or len(images.groups)
        labels, groups = images.of_first(networks)
        inside = [groups == code for code in images.present]
        for key, bins in data["quantities"].items():
            own = [found[key][of_group] for of_group in inside]
            data["counts"][key][name] = [packed(counted(values, bins)) for values in own]
            data["summaries"][key][name] = [summary_of(bins, values) for values in own]
        for key, told in run.tops.items():
            data["tops"][key]["values"][name] = told
        if "weights" in data and run.network is not None:
            changed = isinstance(run.treatment, Ablation)
            trains = isinstance(run.treatment, Treatment) and run.treatment.trains
            data["weights"]["grids"][name] = grids_of(run.network, changed=changed) | {"trains": trains}
        if run.logits:
            given = np.concatenate([logits.argmax(1).numpy() for logits in run.logits])
            for before, answered in self._given.items():
                if before != name:
                    own_flow = flow_of(answered[: len(given)], given, labels, inside)
                    data["flows"].setdefault(before, {})[name] = own_flow
            self._given[name] = given
            if networks < data["seeds"]:
                data["so_far"][name] = networks
        data["treatments"] = ordered([*data["treatments"], name])

    # ------------------------------------------------------------ without scripts

    def fallback(self) -> str:
        """The margins of each group at full precision and under the last treatment, and tables of numbers."""
        quantities, treatments = self.data["quantities"], self.data["treatments"]
        key = "margin" if "margin" in quantities else next(iter(quantities))
        shown = list(dict.fromkeys([treatments[0], treatments[-1]]))
        # On paper a table for every query would bury what stands around it.
        tops = [table_of_tops(self.data, key, shown) for key in [*self.data["tops"]][:_TABLES]]
        return figure_of(self.data, key, shown) + table_of(self.data, key, shown) + "".join(tops)


def _chosen(treatments: Iterable[Treatment | Ablation | str]) -> list[Treatment | Ablation]:
    """These treatments and full precision, in their order."""
    named = {treatment.name: treatment for treatment in (FP32, *map(parsed, treatments))}
    return [named[name] for name in ordered(named)]


def _look(number: int, name: str, size: int) -> dict[str, Any]:
    return {"name": str(name), "n": size} | look(number)
