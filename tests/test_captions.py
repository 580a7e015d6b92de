import pandas as pd
import pytest
import torch

from fairq_utils.data.datasets import Dataset
from fairq_utils.data.moths import MothSettings
from fairq_utils.encoders.captions import (
    FACES,
    MOTHS,
    NOISE,
    Grammar,
    captioned_faces,
    captioned_moths,
    moth_attributes,
    training_set,
)
from fairq_utils.encoders.mini import UNKNOWN, WordTokenizer, words_of
from fairq_utils.errors import BadInput

SETTINGS = MothSettings(train=400, test=100, sizes=(0.2,) * 5)


@pytest.fixture(scope="module")
def moths():
    return captioned_moths(SETTINGS)


def test_attributes_are_those_of_the_pictures(moths):
    pixels = moths.images.float()
    corners = torch.stack([pixels[:, :, y, x] for y in (0, -1) for x in (0, -1)]).mean(dim=0)
    ground = moths.attributes["ground"].to_numpy()
    greener = corners[:, 1] - corners[:, 0]
    assert greener[ground == "leaf"].mean() > greener[ground == "paper"].mean() + 5
    assert corners[ground == "paper"].mean() > corners[ground == "bark"].mean() + 20
    wings = pixels[:, :, 10:20, 8:24].mean(dim=(1, 2, 3))
    tone = moths.attributes["tone"].to_numpy()
    assert wings[tone == "pale"].mean() > wings[tone == "dark"].mean() + 20


def test_the_first_moths_keep_what_is_said_of_them_when_more_are_drawn():
    more = moth_attributes(MothSettings(train=500, test=100, sizes=(0.2,) * 5))
    fewer = moth_attributes(SETTINGS)
    assert more.iloc[:80].equals(fewer.iloc[:80])


def test_every_word_is_in_the_vocabulary_and_every_sentence_fits(moths):
    tokenizer = WordTokenizer(MOTHS.vocabulary(moths.attributes))
    texts = [text for several in moths.captions for text in several]
    texts += [text for several in MOTHS.prompts_for("species", moths.names("species")) for text in several]
    assert not (tokenizer([*texts, *MOTHS.queries]) == UNKNOWN).any()
    assert len(set(texts)) > 1000


def test_a_caption_says_what_is_true(moths):
    rows = moths.attributes.astype(str).to_dict("records")
    for row, several in zip(rows, moths.captions, strict=True):
        for text in several:
            assert MOTHS.wordings["species"][row["species"]][0] in words_of(text)
            for attribute, wordings in MOTHS.wordings.items():
                others = {w for value, ways in wordings.items() if value != row[attribute] for w in ways if w}
                if attribute in ("size", "tone", "colour", "pose", "wear"):
                    clash = others & set(words_of(text))
                    assert clash - {"small", "large", "green"} == set(), (text, row)


def test_neutral_queries_name_no_species():
    names = {ways[0] for ways in MOTHS.wordings["species"].values()}
    assert not any(names & set(words_of(query)) for query in MOTHS.queries)


def test_captions_are_the_seeds():
    table = pd.DataFrame({"kind": ["owl"] * 20, "tone": ["dark"] * 20})
    grammar = Grammar(("a {tone} {kind}", "{kind}, {tone}", "one {kind}"))
    assert grammar.captions(table, seed=1) == grammar.captions(table, seed=1)
    assert grammar.captions(table, seed=1) != grammar.captions(table, seed=2)
    assert all(len(set(several)) == 3 for several in grammar.captions(table, each=3))


def test_gaps_close_and_articles_agree():
    grammar = Grammar(("a {size} {kind}, seen", "a {kind}"), {"size": {"medium": ("",)}})
    said = {
        text
        for several in grammar.captions(pd.DataFrame({"size": ["medium"], "kind": ["owl"]}), each=2)
        for text in several
    }
    assert said == {"an owl, seen", "an owl"}


@pytest.mark.parametrize(
    ("kind", "counts"), [("balanced", [28] * 5), ("skewed", [72, 36, 18, 9, 5]), ("noisy", [28] * 5)]
)
def test_training_sets_have_one_size_and_their_own_shares(moths, kind, counts):
    drawn = training_set(moths, kind, group="species", count=140)
    assert drawn.codes("species").bincount().tolist() == counts
    assert drawn.is_train.all()
    assert training_set(moths, kind, group="species", count=140, seed=1).fingerprint != drawn.fingerprint


def test_noise_tells_every_fifth_image_what_another_is(moths):
    clean = training_set(moths, "balanced", group="species", count=140)
    noisy = training_set(moths, "noisy", group="species", count=140)
    assert torch.equal(clean.images, noisy.images)
    moved = sum(one != other for one, other in zip(clean.captions, noisy.captions, strict=True))
    assert moved == round(NOISE * 140)
    assert sorted(clean.captions) == sorted(noisy.captions)
    # Who is taught by labels is told wrong things of the same images, and of no others.
    species = dict(zip(clean.captions, clean.codes("species").tolist(), strict=True))
    assert [species[said] for said in noisy.captions] == noisy.codes("species").tolist()


def faces(label: str, codes: list[int], names: tuple[str, ...], images: torch.Tensor) -> Dataset:
    return Dataset(
        images,
        torch.tensor(codes),
        torch.tensor([0, 1, 1]),
        torch.tensor([True, True, False]),
        torch.tensor([False, False, False]),
        names,
        ("Latino_Hispanic", "East Asian"),
    )


def test_faces_are_said_in_the_words_of_the_data_set():
    images = torch.zeros(3, 3, 16, 16, dtype=torch.uint8)
    scenes = captioned_faces(
        faces("gender", [0, 1, 0], ("Male", "Female"), images),
        faces("age", [1, 0, 1], ("0-2", "70+"), images),
    )
    assert scenes.attributes.iloc[1].tolist() == ["Female", "East Asian", "0-2"]
    assert any("Latino_Hispanic" in text for text in scenes.captions[0])
    tokenizer = WordTokenizer(FACES.vocabulary(scenes.attributes))
    assert not (tokenizer([text for several in scenes.captions for text in several]) == UNKNOWN).any()
    with pytest.raises(BadInput, match="other images"):
        captioned_faces(
            faces("gender", [0, 1, 0], ("Male", "Female"), images),
            faces("age", [1, 0, 1], ("0-2", "70+"), images + 1),
        )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda moths: training_set(moths, "all", group="species", count=10), "training set is 'all'"),
        (lambda moths: training_set(moths, "skewed", group="species", count=400), "and there are 72"),
        (lambda moths: training_set(moths, "balanced", group="kind", count=10), "attribute is 'kind'"),
        (lambda moths: MOTHS.captions(moths.attributes, each=0), "each is 0"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(moths, call, message):
    with pytest.raises(BadInput, match=message):
        call(moths)
