"""One language model, trained and then treated in many ways: what each does to each language."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from fairq_utils.errors import BadInput
from fairq_utils.language.articles import DeclarationSettings, deal, draw_declaration
from fairq_utils.language.decoder import ByteDecoder
from fairq_utils.language.landscape import LanguageSurvey, landscape_by_language
from fairq_utils.language.measures import ByteAnswers, answer_texts
from fairq_utils.language.training import LanguageRecipe, train_language
from fairq_utils.language.treatments import LanguageTreatment, train_as, treat

FP32 = LanguageTreatment()
# What a network is shown when it is trained further is not what it was shown first.
_FURTHER_SEED = 1_000_000
RECIPE, FURTHER = LanguageRecipe(), LanguageRecipe(steps=200, learning_rate=1e-3)
SURVEY = LanguageSurvey(windows_per_language=8)
_SURE = 0.5  # a byte whose most likely value had less than half the probability is one of doubt


class MeasuredLanguage(NamedTuple):
    """What one network says under each treatment: `answers`, and the `landscape` around it under some.

    A row is a treatment and a language, of which `share` of the training text was held; the other columns are
    those of `answers_by_language` and of `landscape_by_language`. `fingerprint` is that of the texts.
    """

    answers: pd.DataFrame
    landscape: pd.DataFrame
    fingerprint: str


def measure_language(
    settings: DeclarationSettings,
    treatments: Sequence[LanguageTreatment],
    *,
    surveyed: Sequence[LanguageTreatment] = (),
    recipe: LanguageRecipe = RECIPE,
    further: LanguageRecipe = FURTHER,
    survey: LanguageSurvey = SURVEY,
    width: int = 96,
    depth: int = 2,
    heads: int = 6,
) -> MeasuredLanguage:
    """Train the network of the settings' seed, apply each treatment to it, and measure language by language.

    Everything is of one network: each change is one of the same weights. Treatments that share a training
    are made of one. `fp32`, the network as it is, comes first, whether it is named or not. Of those that are
    `surveyed` the landscape is measured too, on the test articles.

    >>> settings = DeclarationSettings(languages=("English", "Greek", "Thai", "Korean"))
    >>> recipe = LanguageRecipe(steps=2, batch_size=4)
    >>> found = measure_language(
    ...     settings, [LanguageTreatment(bits=4)], recipe=recipe, width=8, depth=1, heads=2
    ... )
    >>> found.answers[["treatment", "language", "share", "bytes"]].tail(2)
      treatment language  share  bytes
    6      int4     Thai  0.250   6714
    7      int4   Korean  0.125   2909
    """
    if unasked := [one.name for one in surveyed if one not in (FP32, *treatments)]:
        raise BadInput(f"{unasked[0]} is surveyed and no treatment; expected one of the treatments.")
    texts = draw_declaration(settings)
    held = deal(settings.languages, settings.seed, settings.shares)
    network = train_language(texts, recipe=recipe, seed=settings.seed, width=width, depth=depth, heads=heads)
    before = answer_texts(network, texts)
    trained: dict[LanguageTreatment, ByteDecoder] = {}
    answers, landscapes = [], []
    for treatment in dict.fromkeys([FP32, *treatments]):
        source = network
        if (training := treatment.trains) is not None:
            if training not in trained:
                seed = settings.seed + _FURTHER_SEED
                trained[training] = train_as(training, network, texts, recipe=further, seed=seed)
            source = trained[training]
        own = treat(treatment, source, texts, original=network)
        told = answers_by_language(before, answer_texts(own, texts))
        answers.append(_about(treatment, settings.seed, held, told))
        if treatment in surveyed:
            around = landscape_by_language(own, texts, survey, seed=settings.seed)
            landscapes.append(_about(treatment, settings.seed, held, around))
    landscape = pd.concat(landscapes, ignore_index=True) if landscapes else pd.DataFrame()
    return MeasuredLanguage(pd.concat(answers, ignore_index=True), landscape, texts.fingerprint)


def _about(
    treatment: LanguageTreatment, seed: int, held: Mapping[str, float], table: pd.DataFrame
) -> pd.DataFrame:
    """The table, with what its rows are of before them."""
    share = table["language"].map(held)
    before = pd.DataFrame({"treatment": treatment.name, "seed": seed, "language": table["language"]})
    return pd.concat([before.assign(share=share), table.drop(columns="language")], axis=1)


def answers_by_language(before: ByteAnswers, after: ByteAnswers) -> pd.DataFrame:
    """What a network answers after a treatment, beside what it answered before: a row for each language.

    Of all bytes of a language: `bytes`, how many; `nats` that they take afterwards; answers that are `right`,
    that were right and are `lost`, or wrong and are `won`; `flips`, all answers that changed; `doubted`, the
    bytes of which the answer before had less than half the probability, and `flips_in_doubt` among these;
    `logit_variance` and `confidence`, means over the bytes.

    >>> import torch
    >>> from dataclasses import replace
    >>> before = ByteAnswers(
    ...     ("English",),
    ...     language=torch.zeros(2).long(),
    ...     article=torch.ones(2).long(),
    ...     text=torch.tensor([72, 105], dtype=torch.uint8),
    ...     answer=torch.tensor([72, 101], dtype=torch.uint8),
    ...     loss=torch.tensor([0.25, 2.0]),
    ...     confidence=torch.tensor([0.75, 0.25]),
    ...     logit_variance=torch.ones(2),
    ... )
    >>> after = replace(before, answer=before.text)
    >>> answers_by_language(before, after)[["right", "lost", "won", "flips", "doubted"]].iloc[0].tolist()
    [2, 0, 1, 1, 1]
    """
    if before.confidence is None or after.confidence is None or after.logit_variance is None:
        raise BadInput("Confidence or logit variance is missing; expected answers that answer_texts gives.")
    flips, doubted = before.answer != after.answer, before.confidence < _SURE
    rows = []
    for place, language in enumerate(after.languages):
        own = after.language == place
        rows.append(
            {
                "language": language,
                "bytes": int(own.sum()),
                "nats": float(after.loss[own].double().sum()),
                "right": int(after.correct[own].sum()),
                "lost": int((before.correct & ~after.correct)[own].sum()),
                "won": int((~before.correct & after.correct)[own].sum()),
                "flips": int(flips[own].sum()),
                "doubted": int(doubted[own].sum()),
                "flips_in_doubt": int((flips & doubted)[own].sum()),
                "logit_variance": float(after.logit_variance[own].double().mean()),
                "confidence": float(after.confidence[own].double().mean()),
            }
        )
    return pd.DataFrame(rows)
