"""What makes a build fail, and what it says of it."""

import hashlib

import pytest

from tests.test_book import PROFILE, pages_of


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{fact}`moths notes.eyes`", "there is no fact 'moths notes.eyes'"),
        ("{cite}`nobody1900`", "nobody1900"),
    ],
)
def test_what_sphinx_warns_of_fails_the_book(bare_book, line, said):
    page = bare_book.root / "book" / "index.md"
    page.write_text(f"{page.read_text()}\n{line}\n")
    done = bare_book.fairq("book", "--profile", PROFILE)
    assert done.returncode == 1
    assert said in done.stderr


def test_a_damaged_network_is_named_and_trained_again(clone):
    values = dict.fromkeys(("train_images", "test_images", "moth_train_images"), 60)
    values |= {"seeds": [0], "moth_seeds": [0], "epochs": 1, "arch": "resnet18-16"}
    small = [f"--parameter={name}={value}" for name, value in values.items()]
    options = ["--arch=resnet18-16", "--train-images=60", "--test-images=60", "--epochs=1", "--seeds=0"]
    assert clone.fairq("sweep", *options, "--bits=4").returncode == 0
    (network,) = clone.store.glob("networks/moths-resnet18-*.safetensors")
    whole = network.read_bytes()
    digest = hashlib.sha256(whole).hexdigest()
    network.write_bytes(whole[:-1000])
    done = clone.fairq("run", "01", *small, "-p", "bit_widths=[5]")
    assert done.returncode == 0, done.stderr
    assert f"{network.name} was damaged: it is set aside" in done.stderr
    assert hashlib.sha256(network.read_bytes()).hexdigest() == digest


def test_a_failing_chapter_fails_the_book(short_book):
    source = short_book.root / "notebooks" / "01_disparity_baseline.py"
    source.write_text(source.read_text().replace("trained = settings", "1 / 0\ntrained = settings"))
    done = short_book.fairq("book", "--profile", PROFILE)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
    assert not pages_of(short_book).exists()
