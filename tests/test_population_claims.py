import re

import numpy as np
import pandas as pd
import pytest

from fairq_book.chapters.encoders import story
from fairq_book.chapters.encoders.tables import consistency

NOTHING = pd.DataFrame(columns=["model", "treatment", "accuracy", "original", "sign"])
GROUPS = ("many", "few")


def population(
    centres: dict[str, tuple[float, float]], *, spread: float = 0.003, models: int = 12
) -> pd.DataFrame:
    """What `consistency` finds of models in which two groups change by about so much at each treatment."""
    random = np.random.default_rng(0)
    rows = []
    for treatment, means in centres.items():
        for group, mean in zip(GROUPS, means, strict=True):
            noise = random.normal(0, spread, models)
            for model, change in enumerate(mean + noise - noise.mean()):
                rows.append((f"m{model}", "fp32", "accuracy", group, 0.8))
                rows.append((f"m{model}", treatment, "accuracy", group, 0.8 + change))
    table = pd.DataFrame(rows, columns=["model", "treatment", "measure", "group", "value"])
    return consistency(table.drop_duplicates(["model", "treatment", "measure", "group"]))


def of_bias(found: pd.DataFrame) -> pd.DataFrame:
    """Changes as if each were one of a measure of bias."""
    return found.assign(family="bias")


@pytest.mark.parametrize(
    ("centres", "spread", "word"),
    [
        ({"int8": (0.0, 0.001), "int4": (-0.001, 0.0)}, 0.003, "supported"),
        ({"int4": (-0.05, -0.06)}, 0.003, "contradicted"),
        ({"int8": (0.0, 0.0), "int4": (-0.05, -0.06)}, 0.003, "mixed"),
        ({"int4": (0.0, 0.0)}, 0.3, "bounded"),
    ],
)
def test_consistent_change_is_shown_or_shown_to_be_none(centres, spread, word):
    verdict = story.no_consistent_change(of_bias(population(centres, spread=spread)), NOTHING)
    assert verdict.word == word
    assert "margin (2 points)" in verdict.because
    assert "12 models" in verdict.because


def test_a_large_p_alone_supports_nothing():
    found = of_bias(population({"int4": (0.0, 0.0)}, spread=0.3))
    assert (found["p_holm"] > 0.9).all()
    assert story.no_consistent_change(found, NOTHING).word == "bounded"


@pytest.mark.parametrize(
    ("centres", "spread", "word"),
    [
        ({"int4": (0.03, -0.03)}, 0.01, "supported"),
        ({"int4": (-0.05, -0.03)}, 0.01, "contradicted"),
        ({"int4": (0.0, 0.0)}, 0.003, "contradicted"),
        ({"int8": (0.0, 0.0), "int4": (-0.03, -0.05)}, 0.003, "contradicted"),
        ({"int8": (0.0, 0.0), "int4": (0.03, -0.03)}, 0.003, "mixed"),
        ({"int4": (0.0, 0.0)}, 0.3, "bounded"),
        ({"int4": (-0.05, 0.0)}, 0.1, "bounded"),
    ],
)
def test_groups_oppose_when_one_surely_gains_and_one_surely_loses(centres, spread, word):
    verdict = story.groups_oppose(population(centres, spread=spread), NOTHING)
    assert verdict.word == word
    surely = any(abs(mean) > 3 * spread / 12**0.5 for means in centres.values() for mean in means)
    assert ("many" in verdict.because) == surely


@pytest.mark.parametrize(
    ("centres", "spread", "word"),
    [
        ({"int4": (-0.01, 0.0)}, 0.003, "supported"),
        ({"int4": (-0.05, 0.0)}, 0.003, "contradicted"),
        ({"int8": (-0.01, 0.0), "int4": (-0.05, 0.0)}, 0.003, "mixed"),
        ({"int4": (0.0, 0.0)}, 0.1, "bounded"),
        ({"int4": (-0.02, 0.0)}, 0.003, "bounded"),
    ],
)
def test_small_is_what_surely_lies_within_the_margin(centres, spread, word):
    verdict = story.significant_but_small(of_bias(population(centres, spread=spread)), NOTHING)
    assert verdict.word == word
    assert "significant" in verdict.because


def test_groups_that_are_alike_at_one_treatment_may_oppose_at_another():
    found = pd.concat(
        [population({"int8": (0.0, 0.0)}), population({"int4": (0.0, 0.0)}, spread=0.3)], ignore_index=True
    )
    assert story.groups_oppose(found, NOTHING).word == "bounded"


def test_what_failed_is_told_and_without_models_nothing_is_decided():
    failed = pd.DataFrame(
        {
            "model": ["a", "b", "c"],
            "treatment": ["int3"] * 3,
            "accuracy": [0.2, 0.2, 0.5],
            "original": [0.8] * 3,
            "sign": ["random", "random", "lost"],
        }
    )
    for claim in (story.no_consistent_change, story.groups_oppose, story.significant_but_small):
        verdict = claim(
            consistency(pd.DataFrame(columns=["model", "treatment", "measure", "group", "value"])), failed
        )
        assert verdict.word == "undecided"
        assert "int3 2 no better than one answer to everything" in verdict.because
        assert "int3 1 lost over a fifth of its accuracy" in verdict.because


def test_what_groups_get_is_no_measure_of_bias():
    found = population({"int4": (-0.05, -0.05)})
    assert set(found["family"]) == {"group"}
    assert story.no_consistent_change(found, NOTHING).word == "undecided"
    both = pd.concat([found, of_bias(population({"int4": (0.0, 0.0)}))], ignore_index=True)
    assert story.no_consistent_change(both, NOTHING).word == "supported"
    assert story.groups_oppose(both[both["family"] == "group"], NOTHING).word == "contradicted"


def test_sizes_are_said_in_their_own_unit():
    found = of_bias(population({"int4": (-0.05, 0.0)}))
    nats = found.assign(measure="MaxSkew@100", group="OA", margin=0.04)
    said = story.no_consistent_change(pd.concat([found, nats], ignore_index=True), NOTHING).because
    assert re.search(r"int4 accuracy of many −5\.0 \(−5\.\d to −4\.\d\) points, 0 models rise, 12 fall", said)
    assert re.search(r"int4 MaxSkew@100 −0\.05 \(−0\.05 to −0\.05\) nats, 0 models rise", said)
    assert "(2 points, 0.04 nats)" in said


# ---------------------------------------------------------------- copies


@pytest.mark.parametrize(
    ("last", "said"),
    [((9, 7), "Of 3 models 1 repeats another one: "), ((9, 8), "No two of the 3 models answer alike.")],
)
def test_models_that_answer_alike_throughout_are_named(last, said):
    rows = [
        (model, treatment, right)
        for model, rights in {"first": (9, 7), "second": (8, 7), "third": last}.items()
        for treatment, right in zip(("fp32", "int4"), rights, strict=True)
    ]
    text = story.copies(pd.DataFrame(rows, columns=["model", "treatment", "correct"])).text
    assert text.startswith(said)
    assert ("third" in text) == (last == (9, 7))
    assert "first" not in text
